"""Hardware faults on simulated cards: each can be planted, and what the suite makes of it.

For each row of `ROWS` the fault is planted twice: on raw torch (raw_faults.py), so that it is known
to do something, and under the suite, whose report must then say what the row says. The table is
printed at the end of the selftests.
"""

from __future__ import annotations

import functools
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from fixtures.core.backends.simulated_cann.faults import KINDS
from selftest import raw_faults
from selftest.conftest import Outcome, Suite
from selftest.simulated import CARDS, ROOT, folder, needs_cards, script, variables

pytestmark = needs_cards

NUMBERS = ("tests/test_operators.py", "tests/test_precision.py")
COPIES = ("tests/test_migration.py", "tests/test_precision.py")
CARD = ("tests/test_environment.py", "tests/test_afterwards.py")
SOON = ("--simulate", "1", "--case-timeout", "10")
TIMES = ("-m", "smoke", "tests/test_latency.py")
SLOWER = (*TIMES, "tests/test_baseline.py")


@dataclass(frozen=True)
class Row:
    """One fault under the suite.

    `caught` is part of the id of a case that must end with `status`, and `doubt` of a doubt that
    some case must tell. With `baseline` a healthy card's run is given as one.
    """

    name: str
    tests: tuple[str, ...]
    caught: str
    status: str = "FAIL"
    doubt: str = ""
    baseline: bool = False
    plan: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("--simulate", "1")

    @property
    def faults(self) -> str:
        """The plan as JSON."""
        return json.dumps([{"kind": self.name, **self.plan}])


ROWS = (
    Row("wrong_gelu", NUMBERS, "test_operator[gelu"),
    Row("hf32", NUMBERS, "test_operator[linear"),
    Row("bf16_accumulation", NUMBERS, "test_operator[linear"),
    Row("fp16_accumulation", NUMBERS, "test_operator[linear"),
    Row("dropped_channel", NUMBERS, "test_agreement[b1]", plan={"operator": "aclnnConvolution"}),
    Row("scaled_channel", NUMBERS, "test_operator[", plan={"operator": "aclnnConvolution"}),
    Row("swapped_group", NUMBERS, "test_agreement[b1]", plan={"operator": "aclnnConvolution"}),
    Row("stale_output", NUMBERS, "test_agreement[b1]", plan={"operator": "aclnnConvolution"}),
    Row("off_by_one_stripe", NUMBERS, "test_agreement[b1]", plan={"operator": "aclnnConvolution"}),
    Row("denormal_flush", NUMBERS, "test_operator[layernorm-stage0-float16]"),
    Row("nan_on_tiny_variance", NUMBERS, "test_operator[layernorm"),
    Row("nondeterministic_last_bit", ("tests/test_determinism.py",), "test_repeats_deterministic["),
    Row("stuck_bit", COPIES, "test_model_comes_back", plan={"length": 1 << 26}),
    Row("copy_bit_flip", COPIES, "test_model_comes_back", plan={"nth": 40}),
    Row("leak", COPIES, "test_allocations_cost_no_memory"),
    Row(
        "out_of_memory",
        ("-m", "smoke", "tests/test_throughput.py"),
        "test_throughput[b16]",
        plan={"size": 20 << 20, "nth": "2-"},  # the caching allocator's segments are of 20 MiB
    ),
    Row("short_hbm", CARD, "accelerator-memory"),
    Row("missing_operator", NUMBERS, "test_operator[gelu"),
    Row("sync_error", NUMBERS, "test_operator", plan={"nth": "20-"}),
    Row("hbm_ecc", NUMBERS, "test_operator", plan={"nth": "20-"}),
    Row("device_lost", NUMBERS, "test_operator", plan={"nth": "20-"}),
    Row("timeout", NUMBERS, "test_operator", plan={"nth": "20-"}),
    Row(
        "hang",
        ("tests/test_precision.py",),
        "test_",
        "HANG",
        plan={"nth": 30},
        arguments=SOON,
    ),
    Row(
        "hang_with_gil",
        ("tests/test_precision.py",),
        "test_",
        "HANG",
        plan={"nth": 30},
        arguments=SOON,
    ),
    Row(
        "hang_at_exit",
        ("tests/test_precision.py",),
        "the end of the process",
        "HANG",
        arguments=SOON,
    ),
    Row("wrong_device", COPIES, "placement", arguments=("--simulate", "2", "--device", "npu:1")),
    Row(
        "sync_error_on_second",
        NUMBERS,
        "test_operator",
        plan={"kind": "sync_error", "device": 1, "nth": "20-"},
        arguments=("--simulate", "2", "--device", "npu:1"),
    ),
    Row("slow_operator", SLOWER, "test_baseline", plan={"seconds": 0.03}, baseline=True),
    Row("launch_overhead", SLOWER, "test_baseline", plan={"seconds": 0.005}, baseline=True),
    Row(
        "throttling",
        SLOWER,
        "test_baseline",
        doubt="throttled",
        plan={"factor": 12.0, "calls": 50},
        baseline=True,
    ),
    Row("clock_skew", TIMES, "test_latency", "INVALID", plan={"rate": 1.2}),
    Row("lazy_completion", TIMES, "test_latency", "INVALID"),
    Row("health_alarm", CARD, "card-health"),
    Row("ecc_rising", CARD, "card-ecc"),
    Row("temperature", CARD, "card-temperature"),
)

ALONE = ("sync_error", "sync_error_on_second", "hbm_ecc", "device_lost", "timeout")
"""Faults after which a process can measure nothing more."""
TOGETHER = tuple(
    name for name in raw_faults.MEASURES if name not in (*ALONE, *raw_faults.FROM_THE_START)
)
HANGS = ("hang", "hang_with_gil", "hang_at_exit")


def test_every_kind_has_a_row():
    """Nobody adds a kind of fault without saying how it shows and what the suite makes of it."""
    assert {row.name for row in ROWS} >= set(KINDS)
    assert set(raw_faults.MEASURES) | set(HANGS) >= set(KINDS)


# --- on raw torch --------------------------------------------------------------------------------


def measured(*names: str) -> dict[str, dict[str, Any]]:
    """What raw_faults.py measured, by kind."""
    done = script("raw_faults.py", *names, timeout=240)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-2000:]
    return {line["kind"]: line for line in lines}


def differs(clean: Any, faulty: Any) -> bool:
    """Whether a fault shows: another word, or a number that is clearly another one."""
    if isinstance(clean, str) or isinstance(faulty, str):
        return bool(clean != faulty)
    if clean == 0:
        return bool(faulty > 0)
    return math.isinf(faulty) or abs(faulty / clean - 1) > 0.1


@functools.cache
def measured_together() -> dict[str, dict[str, Any]]:
    """All kinds that one process can measure one after the other."""
    return measured(*TOGETHER)


ONE_PROCESS = pytest.mark.xdist_group("raw")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=ONE_PROCESS if name in TOGETHER else ())
        for name in raw_faults.MEASURES
    ],
)
def test_planted(name, record_property):
    """The fault does on raw torch what its kind says, and does not without it."""
    if name in TOGETHER:
        found = measured_together()[name]
    else:
        found = measured(name)[name]
        if name in raw_faults.FROM_THE_START:
            found |= measured(name, "clean")[name]
    record_property("planted", [name, f"{found['clean']} -> {found['faulty']}"])
    assert differs(found["clean"], found["faulty"]), found


@pytest.mark.parametrize("name", HANGS)
def test_planted_hang(name, tmp_path, record_property):
    """The process never ends by itself; with the lock held not even its other threads run on."""
    ticks = tmp_path / "ticks"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "selftest/raw_faults.py"), name],
        env=variables(TICKS=str(ticks)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        while '"the work"' not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(1)
        before = ticks.read_text()
        time.sleep(2)
        assert process.poll() is None
        runs_on = ticks.read_text() != before
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    words = "other threads run on" if runs_on else "no thread runs on"
    record_property("planted", [name, f"the process never ends; {words}"])
    if name == "hang":
        assert runs_on
    if name == "hang_with_gil":
        assert not runs_on


# --- under the suite -----------------------------------------------------------------------------


def run(suite: Suite, *arguments: str) -> Outcome:
    """The suite on simulated cards, as if no other ran beside it.

    Without coverage, which makes these many runs a third slower and sees no line in them that it
    does not see in those of test_simulated_wheel.py.
    """
    changes = {
        "PYTHONPATH": str(folder()),
        "COVERAGE_PROCESS_CONFIG": None,
        "TMPDIR": str(suite.root),  # where runs leave word for each other
    }
    return suite.run(*CARDS, *arguments, **changes)


ONE_BASELINE = pytest.mark.xdist_group("baseline")


@pytest.fixture(scope="session")
def healthy(tmp_path_factory):
    """The report of a healthy card, made once for all that are compared with it."""
    outcome = run(Suite(tmp_path_factory.mktemp("healthy")), *TIMES, "--simulate", "1")
    assert outcome.case("test_latency")["status"] == "PASS", outcome.out
    return outcome.reports / "validation_report.json"


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=ONE_BASELINE if row.baseline else ()) for row in ROWS],
    ids=lambda row: row.name,
)
def test_caught(suite, row, request, record_property):
    """The suite's report says what the row says: which case caught it, how, and the verdict."""
    given = ("--baseline", str(request.getfixturevalue("healthy"))) if row.baseline else ()
    outcome = run(suite, *row.tests, *row.arguments, *given, "--faults", row.faults)
    report = outcome.report
    bad = [case for case in report["cases"] if case["outcome"] == "failed"]
    told = [(case["id"], case["status"], (case["sentences"] or [""])[0]) for case in bad]
    assert report["device"]["simulated"] is True, outcome.out
    first = next((each for each in told if row.caught in each[0]), None)
    words = f"{first[0]}: {first[1]}" if first else "not caught"
    verdict = report["verdict"]["status"]
    record_property("caught", [row.name, words, first[2] if first else "", verdict])
    assert any(row.caught in name and status == row.status for name, status, _ in told), (
        told or outcome.out[-3000:]
    )
    if row.doubt:
        assert row.doubt in " ".join(doubt for case in report["cases"] for doubt in case["doubts"])
    assert verdict == "NOT QUALIFIED"
    assert outcome.code != 0


@pytest.mark.slow
@ONE_BASELINE
def test_a_healthy_card_is_no_slower_than_another(suite, healthy):
    """The control: beside the same baseline a sound card fails nothing."""
    outcome = run(suite, *SLOWER, "--simulate", "1", "--baseline", str(healthy))
    case = outcome.case("test_baseline")
    assert case["status"] in ("PASS", "INCONCLUSIVE"), outcome.out
    assert case["records"]["comparison"]["equal_fingerprint"] is True
    assert outcome.report["verdict"]["status"] == "INCOMPLETE"


# --- what npu-smi shows, under the suite ---------------------------------------------------------

SCENES = {
    "busy": ("card-busy", "PASS", "process 1444272 (sglangschedul, 26264 MB)"),
    "half_table": ("card-tool", "PASS", "the table ends in the middle of NPU 0"),
    "device_used": ("card-tool", "FAIL", "because the device is used"),
    "id_5": ("card-identity", "PASS", ""),
}
"""By scenario of host.py: the check that tells, its status, and what its sentence or doubt says.
Alarms and ECC errors are rows above; the other scenarios are test_simulated_host.py's."""


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_host(suite, scene):
    """The environment check sees what npu-smi shows, through a real process."""
    plan = json.dumps({"host": scene})
    outcome = run(suite, "tests/test_environment.py", "--simulate", "1", "--faults", plan)
    check, status, words = SCENES[scene]
    case = outcome.case(f"test_environment[{check}]")
    assert case["status"] == status, outcome.out
    assert words in " ".join([*case["sentences"], *case["doubts"]])
    failed = [case["id"] for case in outcome.report["cases"] if case["outcome"] == "failed"]
    assert failed == ([case["id"]] if status == "FAIL" else [])
    npu_id = 5 if scene == "id_5" else 0
    if scene != "device_used":
        assert outcome.report["device"]["npu_id"] == npu_id

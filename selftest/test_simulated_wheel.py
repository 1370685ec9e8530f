"""The real torch_npu on healthy simulated cards: on raw torch, then under the suite.

raw_wheel.py measures in one process for each release and each TASK_QUEUE_ENABLE, since importing
torch with torch_npu takes seconds; here it is judged. In what the releases differ stands in
`PECULIAR`.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest

from fixtures.core.backends.simulated_cann.host import BUSES
from selftest import raw_wheel, simulated_cost
from selftest.conftest import QUICK, Outcome, Suite
from selftest.simulated import CARDS, DEFAULT, folder, needs_cards, script

pytestmark = needs_cards

Run = tuple[str, str]
"""A release of torch_npu and TASK_QUEUE_ENABLE."""

BRIEF = ("parity", "hf32", "gelu", "events", "memory", "out_of_memory", "peculiar", "fallback")
QUEUED = ("parity", "events", "streams", "pinned", "waits", "memory", "out_of_memory")
RUNS: dict[Run, tuple[str, ...]] = {
    ("2.9.0", "0"): tuple(raw_wheel.CHECKS),
    ("2.9.0", "1"): QUEUED,
    ("2.9.0", "2"): QUEUED,
    ("2.9.0.post2", "0"): BRIEF,
    ("2.9.0.post9", "0"): BRIEF,
    ("2.9.0.post9", "1"): QUEUED,
    ("2.9.0.post9", "2"): QUEUED,
    ("2.9.1", "0"): BRIEF,
}
"""What is measured in one process: by release, with and without the task queue."""

PECULIAR = {
    "2.9.0": {"Module.npu(1)": "npu:0", "memory": "RuntimeError", "compatible": "tanh"},
    "2.9.0.post2": {"Module.npu(1)": "npu:0", "memory": "OutOfMemoryError", "compatible": "none"},
    "2.9.0.post9": {"Module.npu(1)": "npu:1", "memory": "OutOfMemoryError", "compatible": "none"},
    "2.9.1": {"Module.npu(1)": "npu:0", "memory": "OutOfMemoryError", "compatible": "none"},
}
"""By release: where Module.npu(1) puts a module, what running out of memory raises, and the form of
GELU under TORCH_NPU_USE_COMPATIBLE_IMPL=1."""

SAME = 4.0
"""The card's error over the CPU's, both against float64.

Both round the same sums in different orders, so their errors are two draws of one size. A norm over
all elements of a tensor varies by less than that, and the least difference that must be told, HF32
or another form of GELU, is some hundred times the error of float32.
"""


def facts_of(done: Any) -> dict[str, Any]:
    """What a process measured, by check."""
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["check"]: line["facts"] for line in lines}


@functools.cache
def process(version: str, queue: str) -> Any:
    """The one process of a run, ended. Each release is once imported as everybody imports it."""
    names, cold = RUNS[version, queue], queue == "0"
    return script("raw_wheel.py", *names, version=version, cold=cold, TASK_QUEUE_ENABLE=queue)


def measured(run: Run, check: str) -> Any:
    """What a check measured in a run."""
    done = process(*run)
    facts = facts_of(done)
    assert check in facts, (done.returncode, sorted(facts), done.stderr[-3000:])
    return facts[check]


def alone(check: str, version: str = DEFAULT, **changes: str) -> Any:
    """A check that has a process of its own; it must end well."""
    done = script("raw_wheel.py", check, version=version, **changes)
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:])
    return facts_of(done)[check]


def one_worker(run: Run) -> Any:
    """Under pytest-xdist those who look at one process are sent to one worker."""
    return pytest.param(run, id="-".join(run), marks=pytest.mark.xdist_group(f"wheel {run}"))


def where(check: str) -> Any:
    """In every run that measures the check."""
    return pytest.mark.parametrize(
        "run", [one_worker(run) for run, names in RUNS.items() if check in names]
    )


@pytest.mark.parametrize("run", [one_worker(run) for run in RUNS])
def test_the_process_ends_well(run):
    """Nothing is left undone or broken when torch_npu takes its leave."""
    done = process(*run)
    assert set(facts_of(done)) == set(RUNS[run])
    assert done.returncode == 0, done.stderr[-3000:]


# --- numbers ------------------------------------------------------------------------------------


@where("parity")
def test_networks_train_as_on_the_cpu(run):
    """Logits, all gradients and all parameters after a step of SGD, for three networks."""
    for name, found in measured(run, "parity").items():
        assert found["tensors"] > 90
        assert found["worst"][1] < SAME, (name, found)
        assert found["repeats"], name
        assert found["hf32"][0] > 10 * SAME, "HF32 must be told from float32"
        if name != "resnet":  # which has no GELU
            assert found["erf"][0] > 10 * SAME, "the exact GELU must be told from its tanh form"


@where("half")
def test_networks_run_in_half_formats(run):
    """An error of the CPU's size, also by autocast, which does compute in the half format."""
    found = measured(run, "half")
    for name, errors in found.items():
        network, form = name.split()
        assert errors["dtypes"] == [f"torch.{form}"] * 2
        assert errors["card"] < SAME * errors["host"], name
        assert errors["autocast"] < SAME * errors["host"], name
        assert errors["autocast"] > 100 * errors["float32"], "autocast did nothing"
        if form == "bfloat16":
            assert errors["card"] > SAME * found[f"{network} float16"]["host"], "three bits fewer"


@where("hf32")
def test_hf32_is_what_the_switches_say(run):
    """Factors rounded to 11 bits where a switch says so, and only there; shares of the bound."""
    found = measured(run, "hf32")
    for unit in ("conv", "matmul"):
        exact, rounded = found[f"{unit} False"]
        assert exact < 1 < rounded, (unit, found)
        exact, rounded = found[f"{unit} True"]
        assert rounded < 1 < exact, (unit, found)
    assert found["matmul beside conv True"] < 1, "the switch of convolutions is theirs alone"


@where("gelu")
def test_gelu_is_the_tanh_form(run):
    """Even where the exact form is asked for: they differ by 5e-4, float32 by 1e-6."""
    found = measured(run, "gelu")
    assert found["tanh"] < 2e-6
    assert found["none"] > 1e-4


@pytest.mark.parametrize("version", PECULIAR)
def test_gelu_in_compatible_mode(version):
    """The exact form, where a release has compatible implementations."""
    found = alone("gelu", version, TORCH_NPU_USE_COMPATIBLE_IMPL="1")
    right = PECULIAR[version]["compatible"]
    assert found.pop(right) < 2e-6
    assert found.popitem()[1] > 1e-4


@where("seeds")
def test_a_seed_gives_the_same_numbers_again(run):
    """And another draw or seed gives others."""
    assert measured(run, "seeds") == {"again": True, "next": False, "other seed": False}


# --- time ---------------------------------------------------------------------------------------


@where("events")
def test_events_tell_the_time_in_milliseconds(run):
    """Event time lies within host time; an event is not done while its work is queued."""
    found = measured(run, "events")
    assert found["query"] == [False, True]
    assert found["queued_ms"] < found["host_ms"]
    assert 0.5 * found["host_ms"] < found["event_ms"] <= found["host_ms"]


@where("streams")
def test_streams_are_ordered_by_events_alone(run):
    """The second stream sees the first one's result if it waits, and else what was there before."""
    assert measured(run, "streams") == {"waited": [1.0] * 8, "did not wait": [0.0] * 8}


@where("pinned")
def test_copies_from_pinned_memory_do_not_block(run):
    """They are done in their stream's order, and right."""
    assert measured(run, "pinned") == {"pinned": True, "early": False, "same": True}


@where("waits")
def test_no_wait_stands_still(run):
    """torch_npu waits with the interpreter's lock held, which the streams need to compute."""
    found = measured(run, "waits")
    assert found["milliseconds"] > 0
    assert found["value"] > 1


@pytest.mark.parametrize(
    ("version", "queue"), [("2.9.0", "0"), ("2.9.0", "1"), ("2.9.0", "2"), ("2.9.0.post9", "1")]
)
def test_leaving_with_work_queued(version, queue):
    """The process ends, with exit code 0."""
    assert alone("queued", version, TASK_QUEUE_ENABLE=queue) == {"left": True}


# --- memory -------------------------------------------------------------------------------------


@where("memory")
def test_memory_is_accounted_for(run):
    """Allocated, peak and free bytes follow what is taken; fresh memory reads as NaN."""
    found = measured(run, "memory")
    start, taken, freed, emptied = found["told"]
    size = 64 << 20
    assert size <= taken[0] - start[0] <= size + 1024
    assert taken[1] == freed[1] == emptied[1] == taken[0], "the peak stays"
    assert freed[0] == start[0], "what was given back is not allocated"
    assert size <= start[2] - taken[2] <= size + (4 << 20)
    assert freed[2] == taken[2], "torch keeps what was given back"
    assert emptied[2] == start[2], "until its cache is emptied"
    assert {row[3] for row in found["told"]} == {start[3]}
    assert found["fresh"]


@where("two_cards")
def test_cards_have_memory_of_their_own(run):
    """An allocation takes from its own card; bits go from card to card as they are."""
    found = measured(run, "two_cards")
    (first, none), (nothing, second) = found["shrunk"]
    assert first >= 64
    assert second >= 64
    assert none == nothing == 0
    assert found["device"] == "npu:1"
    assert found["same"]
    assert found["computed"]


def test_an_operator_takes_tensors_of_one_card():
    """torch_npu does not look; the card finds an address that is not its own."""
    kind, text = alone("mixed")["raised"]
    assert kind == "RuntimeError"
    assert "error code is 507015" in text
    assert "lies on card 1, the stream is of card 0" in text


@where("out_of_memory")
def test_memory_runs_out_and_the_card_goes_on(run):
    """The text names what was asked for; nothing is lost."""
    found = measured(run, "out_of_memory")
    assert found["type"] == found["again"] == PECULIAR[run[0]]["memory"]
    assert "NPU out of memory. Tried to allocate 64.00 GiB (NPU 0; 30.48 GiB" in found["text"]
    assert found["after"] == [2.0] * 8
    assert found["lost"] <= 2


@pytest.mark.parametrize("version", ["2.9.0", "2.9.0.post9"])
def test_segments_can_grow(version):
    """PYTORCH_NPU_ALLOC_CONF=expandable_segments:True takes effect, and numbers stay right."""
    found = alone("expandable", version, PYTORCH_NPU_ALLOC_CONF="expandable_segments:True")
    assert found["expandable"]
    assert found["fresh"]
    assert all(network["worst"][1] < SAME for network in found["parity"].values())


# --- what one must know of torch_npu --------------------------------------------------------------


@where("peculiar")
def test_peculiarities(run):
    """Indices that are ignored, formats that become others, layouts that are refused."""
    found = measured(run, "peculiar")
    assert found["Module.npu(1)"] == PECULIAR[run[0]]["Module.npu(1)"]
    assert found["Tensor.npu(1)"] == "npu:1"
    assert found["double"] == "torch.float32"
    assert found["double by copy"] == "torch.float64"
    words = {
        "module": "Only contiguous_format or preserve_format is supported.",
        "to": "Only contiguous_format or preserve_format is supported.",
        "contiguous": "NPU contiguous operator only supported contiguous memory format.",
        "empty": "Only c10::MemoryFormat::Contiguous is supported for creating a npu tensor",
    }
    for way, (kind, text) in found["channels_last"].items():
        assert kind == "RuntimeError", way
        assert words[way] in text


@where("fallback")
def test_a_run_on_the_cpu_is_announced_once(run):
    """On descriptor 2, and the result is right."""
    found = measured(run, "fallback")
    assert found["right"]
    assert re.findall(r"CAUTION: The operator '([^']+)' is not", found["said"]) == [
        "aten::special_bessel_j0.out"
    ]


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [("1,0", {"count": 0}), ("1", {"count": 1, "shrunk": [0, 66]}), ("", {"count": 0})],
)
def test_visible_devices(listed, wanted):
    """The list must ascend, or there are none; npu:0 is the first one listed."""
    found = alone("visible", ASCEND_RT_VISIBLE_DEVICES=listed)
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("version", "queue"),
    [("2.9.0", "0"), ("2.9.0", "2"), *((version, "1") for version in PECULIAR)],
)
def test_what_follows_the_first_error(version, queue):
    """With the task queue, everything after an error is dropped in silence.

    No wait fails and no result is written (Ascend/pytorch NPUQueue.cpp); an event that is recorded
    then mostly stays undone for ever. The suite therefore measures nothing after the first error.
    Without the queue the error is raised in place, and work goes on.
    """
    found = alone("dropped", version, TASK_QUEUE_ENABLE=queue)
    kind, text = found["first"]
    assert kind == "RuntimeError"
    assert found["then"] == found["work"] == found["wait"] == ["", "None"]
    if queue == "0":
        assert "call aclnnAdd failed, error code is 507015" in text
        assert found["result"] == ["3.0", "6.0", "9.0"]
    else:
        assert "The Inner error is reported as above" in text
        assert found["result"] == ["nan"] * 3


# --- under the suite -----------------------------------------------------------------------------


def run_suite(suite: Suite, *arguments: str, cold: bool = False, **environment: str) -> Outcome:
    """The suite on simulated cards."""
    return suite.run(*CARDS, *arguments, cold=cold, PYTHONPATH=str(folder()), **environment)


def passed(outcome: Outcome) -> dict[str, Any]:
    """The report of a run that had nothing to complain of but being a rehearsal."""
    assert outcome.code == 0, outcome.out[-4000:]
    report = outcome.report
    assert report["verdict"]["status"] == "REHEARSAL"
    assert report["verdict"]["reasons"] == [
        "rehearsal: the device under test is simulated",
        "rehearsal: the weights are synthetic",
    ]
    assert report["device"]["simulated"] is True
    return report


SECOND_BUS = f"0000:{BUSES[1]}:00.0"

NOISE = (
    r"(process \d+: )?("
    r"(unstable|noisy|drift|outliers|bimodal|autocorrelated|busy host|warming up): "
    r"|only \d+ samples: |NOT STEADY after ).*|another run of this suite .* at the same time"
)
BUSY = r"busy host: \d+% of .* was spent waiting for a core"
LINE = r"batch \d+ is \S+ off the line|the line (gives|begins) .*"

DOUBTS = {
    "test_environment[version-": r"\S+ is \S+, not the qualified \S+",
    "test_environment[pairing-plugin]": r"torch_npu \S+ asks for torch==\S+\+cpu, torch is \S+",
    "test_environment[variables-recommended]": r"(ASCEND_RT_VISIBLE_DEVICES|"
    r"PYTORCH_NPU_ALLOC_CONF) is not set; .*",
    "test_latency.py": NOISE,
    "test_throughput.py": NOISE,
    "test_cold_start.py": NOISE,
    "test_replicates.py": NOISE,
    "test_modes.py": NOISE,
    "test_bounds.py::test_peaks": rf".* was still gaining at the largest size .*|{BUSY}",
    "test_bounds.py::test_bounds": f"{LINE}|{BUSY}",
}
"""What a healthy run may doubt, by part of the case's id, all of it about the host.

Which releases of other packages lie there; that PyPI's torch is not the +cpu build that the wheel
asks for; variables that a user would set; and times, which other processes of the host disturb.
"""


def strange_doubts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Doubts that are not listed."""
    return [
        (case["id"], doubt)
        for case in report["cases"]
        for doubt in case["doubts"]
        if not any(
            part in case["id"] and re.fullmatch(form, doubt) for part, form in DOUBTS.items()
        )
    ]


def test_a_strange_doubt_is_told_from_the_listed():
    """The list is no sieve with one large hole."""
    cases = [
        ("tests/test_latency.py::test_latency", "drift: -7%", False),
        ("tests/test_latency.py::test_latency", "NOT STEADY after 30 calls of warm-up", False),
        ("tests/test_latency.py::test_latency", "the outputs differ", True),
        ("tests/test_bounds.py::test_bounds", "batch 4 is +22.9% off the line", False),
        ("tests/test_bounds.py::test_bounds", "drift: -7%", True),
        ("tests/test_environment.py::test_environment[version-cann]", "CANN is unknown", True),
        ("tests/test_precision.py::test_agreement[b1]", "drift: -7%", True),
    ]
    for name, doubt, strange in cases:
        report = {"cases": [{"id": name, "doubts": [doubt]}]}
        assert bool(strange_doubts(report)) is strange


@pytest.fixture(scope="session")
def on_second_card(tmp_path_factory) -> Outcome:
    """A whole run on card 1 of two, of which card 0 computes and copies wrongly."""
    faults = [
        {"kind": "dropped_channel", "device": 0},
        {"kind": "copy_bit_flip", "device": 0},
    ]
    suite = Suite(tmp_path_factory.mktemp("second"))
    (suite.root / "tests/conftest.py").write_text(QUICK)
    return run_suite(
        suite,
        *("--simulate", "2", "--device", "npu:1", "--faults", json.dumps(faults)),
        cold=True,
    )


@pytest.mark.slow
@pytest.mark.xdist_group("second card")
def test_a_whole_run_on_the_second_card(on_second_card):
    """Nothing is computed on or copied to card 0, or its faults would show."""
    report = passed(on_second_card)
    assert report["device"]["index"] == 1
    assert report["device"]["bus_id"] == SECOND_BUS
    assert {case["status"] for case in report["cases"]} <= {"PASS", "UNSUPPORTED"}
    assert len(report["cases"]) > 150


@pytest.mark.slow
@pytest.mark.xdist_group("second card")
def test_a_healthy_run_doubts_the_host_alone(on_second_card):
    """Every doubt is one of the list."""
    assert not strange_doubts(on_second_card.report)


def test_a_lazy_card_does_what_a_wait_needs_of_its_other_streams():
    """Else the waiting stream and the one it waits for would both stand still."""
    assert alone("lazy_streams") == {"begun": False, "result": 6.0}


@pytest.mark.slow
def test_a_healthy_card_may_vary(suite):
    """Another order of sums, FMA, the last bit of exp, truncating HF32: all cases pass."""
    plan = ("--faults", '{"variation": true}')
    outcome = run_suite(suite, "--simulate", "1", "-m", "not performance", *plan)
    assert outcome.code == 0, outcome.out[-4000:]
    report = outcome.report
    assert {case["status"] for case in report["cases"]} <= {"PASS", "UNSUPPORTED"}
    assert not strange_doubts(report)


@pytest.mark.slow
@pytest.mark.parametrize("queue", ["1", "2"])
def test_smoke_with_the_task_queue(suite, queue):
    """torch_npu launches from a thread of its own; everything passes as without."""
    (suite.root / "tests/conftest.py").write_text(QUICK)
    outcome = run_suite(suite, "--simulate", "1", "-m", "smoke", TASK_QUEUE_ENABLE=queue)
    assert outcome.code == 0, outcome.out[-4000:]
    report = outcome.report
    assert {case["status"] for case in report["cases"]} <= {"PASS", "UNSUPPORTED"}
    assert report["environment"]["variables"]["TASK_QUEUE_ENABLE"] == queue
    assert report["verdict"]["status"] == "INCOMPLETE"


def test_a_list_of_cards_that_leaves_none_is_refused(suite):
    """One sentence, before the work."""
    outcome = run_suite(suite, "--simulate", "2", ASCEND_RT_VISIBLE_DEVICES="1,0")
    assert outcome.code == 4, outcome.out
    assert (
        "ASCEND_RT_VISIBLE_DEVICES=1,0 is not a strictly ascending list of ids, so torch sees 0 "
        "devices: give ids such as 0,1"
    ) in outcome.out
    assert "Traceback" not in outcome.out


@pytest.mark.slow
def test_the_card_that_is_listed_is_the_one_reported(suite):
    """npu:0 is then card 1: its bus, its memory in npu-smi's table, its health afterwards."""
    outcome = run_suite(
        suite,
        *("tests/test_environment.py", "tests/test_migration.py", "tests/test_afterwards.py"),
        *("--simulate", "2", "--faults", '[{"kind": "health_alarm", "device": 0}]'),
        ASCEND_RT_VISIBLE_DEVICES="1",
    )
    assert outcome.code == 0, outcome.out[-4000:]
    assert outcome.report["device"]["index"] == 0
    assert outcome.report["device"]["bus_id"] == SECOND_BUS


@pytest.mark.slow
def test_a_run_on_the_cpu_in_a_foreign_case_is_in_the_report(suite):
    """torch_npu announces it once; whichever case is first, the run has not passed."""
    (suite.root / "tests/test_planted.py").write_text(
        """
import pytest
import torch

@pytest.mark.precision
def test_first(device):
    "An operator that torch_npu does not have."
    torch.special.bessel_j0(torch.ones(3).to(str(device)))

@pytest.mark.precision
def test_second(device):
    "The same, which is not announced again."
    torch.special.bessel_j0(torch.ones(3).to(str(device)))
"""
    )
    outcome = run_suite(suite, "tests/test_planted.py", "--simulate", "1")
    assert outcome.code == 1, outcome.out
    report = outcome.report
    assert report["verdict"]["status"] == "NOT QUALIFIED"
    words = "aten::special_bessel_j0.out ran on the CPU"
    assert words in outcome.case("test_first")["sentences"][0]
    assert any(words in reason for reason in report["verdict"]["reasons"])
    assert report["facts"]["fallbacks"] == ["aten::special_bessel_j0.out"]
    assert words in (outcome.newest / "report.html").read_text()


LARGE = 64
"""A batch whose activations need more than 30 MiB in one piece, where 16 needs less."""


@pytest.mark.slow
def test_memory_runs_out_in_the_sweep(suite):
    """An extra batch size that does not fit is no failure; what it held is given back."""
    (suite.root / "tests/conftest.py").write_text(QUICK)
    faults = [{"kind": "out_of_memory", "size": 30 << 20}]
    outcome = run_suite(
        suite,
        *("tests/test_throughput.py", "tests/test_inference.py", "--simulate", "1"),
        *("--batch-sizes", f"1,4,8,16,{LARGE}", "--faults", json.dumps(faults)),
    )
    assert outcome.code == 0, outcome.out[-4000:]
    large = outcome.case(f"test_throughput[b{LARGE}]")
    assert large["status"] == "UNSUPPORTED"
    assert f"batch size {LARGE} does not fit" in large["reason"]
    rest = [case for case in outcome.report["cases"] if case["id"] != large["id"]]
    assert {case["status"] for case in rest} <= {"PASS", "UNSUPPORTED"}
    sweep = {entry["batch_size"]: entry for entry in outcome.report["throughput"]}
    assert sweep[16]["samples_per_second"] > 0
    assert sweep[LARGE]["out_of_memory"]


# --- the cost -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_cost_is_measured():
    """The benchmark runs and its figures belong together; how large they are is not judged here."""
    done = script("simulated_cost.py", "test_convnext.r160_in1k", "5")
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert told["pairs"] == 5
    assert told["ratio"] == pytest.approx(told["card_ms"] / told["cpu_ms"], rel=0.02)
    low, high = told["interval"]
    assert 0 < low <= told["ratio"] <= high


def test_the_interval_holds_the_true_ratio():
    """Of pairs whose ratio is known; without noise it is a point."""
    assert simulated_cost.interval([(1.0, 1.5)] * 5) == (1.5, 1.5)
    pairs = [(1.0 + 0.01 * (n % 5), 1.2 + 0.01 * (n % 7)) for n in range(35)]
    low, high = simulated_cost.interval(pairs)
    assert low < simulated_cost.ratio_of_medians(pairs) < high
    assert high - low < 0.05
    assert not low < 1.0 < high

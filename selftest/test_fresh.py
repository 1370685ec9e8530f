"""A fresh process: what it tells, how it may end, and one real one."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.core import fresh
from fixtures.core.fresh import KINDS, PHASES, ColdStart, Fresh, Sampled, Spec, gathered, measure
from fixtures.core.fresh_process import Answers
from fixtures.core.levels import LEVELS
from fixtures.core.power import Blocks
from fixtures.core.records import Status
from fixtures.processes import noted
from selftest.conftest import SMALL
from selftest.simulated import CARDS, needs_cards, variables

FAKE = (sys.executable, str(Path(__file__).with_name("fake_process.py")))

DONE = {"event": "done"}


def phase(name, seconds=0.5):
    return [
        {"event": "begin", "phase": name},
        {"event": "phase", "phase": name, "seconds": seconds},
    ]


def whole(output=(1.0, 2.0), samples=100):
    """The events of a process that did everything."""
    events = [each for name in PHASES for each in phase(name)]
    events += [
        {"event": "facts", "facts": {"torch": "2.9.0"}},
        {"event": "output", "name": "first_forward", "rows": [list(output)]},
        {"event": "batch", "batch_size": 4, "seconds": [0.4, 0.2], "reason": ""},
        {"event": "batch", "batch_size": 64, "seconds": [], "reason": "out of memory"},
        {"event": "warm_up", "seconds": [0.1] * 30},
        {
            "event": "samples",
            "seconds": [0.1 + 1e-4 * (n % 3) for n in range(samples)],
            "at_s": [10.0, 20.0],
            "waited": 0.01,
        },
        {
            "event": "throughput",
            "batch_size": 4,
            "calls": 5,
            "seconds": [0.5] * 5,
            "peak_memory_bytes": 7,
            "reason": "",
            "warm_up": [0.1] * 30,
            "at_s": [20.0, 22.5],
            "waited": 0.0,
        },
    ]
    return [*events, DONE]


def spec(folder, **changes):
    given = {"timeout_s": 60.0, **changes}
    return Spec("cpu", 0, "x", 10, folder / "w", folder / "i", folder, **given)


# --- what it tells ------------------------------------------------------------------------------


def test_what_a_process_said_is_gathered():
    found = gathered(whole())
    assert not found.failure
    assert found.verdict()
    assert list(found.phases) == list(PHASES)
    assert found.by_batch[0].seconds == (0.4, 0.2)
    assert found.by_batch[1].reason == "out of memory"
    assert len(found.samples_s) == 100
    assert found.outputs["first_forward"] == ((1.0, 2.0),)
    assert found.throughput[0].samples_per_second == 4 * 5 * 5 / 2.5
    assert found.sampled.at_s == (10.0, 20.0)
    assert found.doubts == ()
    assert found.slack == found.throughput[0].slack == 0


def test_a_warm_up_that_was_not_steady_is_a_doubt():
    events = whole()
    for event in events:
        if event["event"] == "warm_up":
            event["seconds"] = [0.1 - 1e-3 * n for n in range(40)]
    assert any(doubt.startswith("NOT STEADY after 40") for doubt in gathered(events).doubts)


def changed(**values):
    """A process whose samples were taken otherwise."""
    events = whole()
    for event in events:
        if event["event"] == "samples":
            event |= values
    return gathered(events)


def test_times_may_be_off_by_what_is_doubtful():
    assert changed(waited=0.5).slack == 1.0  # half of the time: twice as long
    assert changed(waited=0.1).slack == 0
    drifts = changed(seconds=[0.1 * 1.002**n for n in range(99)])
    assert drifts.slack == pytest.approx(1.002**66 - 1)
    found = dataclasses.replace(gathered(whole()), sampled=Sampled(clocks=(0.9, 0.5, 0.5)))
    assert found.slack == 1.0  # half of the clock
    assert any(each.startswith("throttled: 2 of 3") for each in found.doubts)
    for few in ((0.5,), (0.5, 1.0), (0.5, *[1.0] * 19)):
        idle = dataclasses.replace(found, sampled=Sampled(clocks=few))
        assert idle.slack == 0  # one reading may have met a card that waits for its host


def test_an_unsteady_rate_is_a_doubt_of_its_process():
    events = whole()
    for event in events:
        if event["event"] == "throughput":
            event |= {"seconds": [0.5, 0.5, 0.6, 0.6, 0.7, 0.7], "warm_up": [0.1] * 5}
    found = gathered(events)
    assert found.slack == 0
    assert found.throughput[0].slack == pytest.approx(0.4)
    assert found.doubts[0].startswith("throughput at batch 4: NOT STEADY after 5 calls")


def test_a_process_that_ran_out_of_time_says_how_many_samples_there_are():
    found = dataclasses.replace(gathered(whole()), wanted=1400)
    assert "slow: it took 100 of 1400 samples in the time of a case" in found.doubts


def test_the_clocks_are_looked_at_while_a_process_samples():
    """Not while it starts: a card that waits for its host is at no full clock."""
    blocks = Blocks()
    blocks.clocks = lambda: (0.9,) if blocks.done[-1].name == "it" else (0.5, 0.5)
    found = noted(gathered(whole()), "it", blocks)
    assert [(each.name, each.begin_s, each.pictures) for each in blocks.done] == [
        ("it, throughput b4", 20.0, 100),
        ("it", 10.0, 100),
    ]
    assert found.sampled.clocks == (0.9,)
    assert found.slack == 0
    assert found.throughput[0].slack == 1.0


def test_another_environment_is_not_told_where_ours_lies(monkeypatch):
    own = f"{sys.prefix}/torch-npu"
    monkeypatch.setenv("PYTHONPATH", f"{own}{os.pathsep}/cann/python")
    assert fresh._environment((sys.executable,))["PYTHONPATH"].startswith(own)
    assert fresh._environment(("/other/python",))["PYTHONPATH"] == "/cann/python"
    monkeypatch.setenv("PYTHONPATH", own)
    assert "PYTHONPATH" not in fresh._environment(("/other/python",))


def test_every_way_to_fail_has_its_status():
    for kind, status in KINDS.items():
        told = gathered([{"event": "error", "kind": kind, "sentence": "why"}])
        assert told.verdict().status is status
        assert repr(told.verdict()) == "why"
    assert Status.PASS not in KINDS.values()
    unknown = gathered([{"event": "error", "kind": "odd", "sentence": "why"}])
    assert unknown.verdict().status is Status.FAIL


@pytest.mark.parametrize(
    ("events", "end", "words"),
    [
        ([], ("crash", "was killed by signal 11 (SIGSEGV)"), "(SIGSEGV), in python_start"),
        (
            [{"event": "begin", "phase": "transfer"}],
            ("hang", "did not end within 9 s"),
            "did not end within 9 s, in transfer",
        ),
        (phase("transfer"), ("crash", "ended with exit status 1"), "1, after transfer (at last)"),
        (phase("transfer"), ("", ""), "ended without a word, after transfer (at last)"),
    ],
)
def test_a_process_that_died_says_where(events, end, words):
    found = gathered(events, end, "first\nat last\n\n")
    assert found.failure
    assert found.error == f"a fresh process {words}" or words in found.error
    assert not found.verdict()
    assert "\n" not in found.error


# --- the cold start -----------------------------------------------------------------------------


def test_a_cold_start_adds_up():
    found = ColdStart(gathered(whole(), started_s=12.0), since_s=10.0)
    told = found.as_json()
    assert [each["name"] for each in told["phases"]] == list(PHASES)
    assert told["total_ms"] == pytest.approx(500.0 * len(PHASES))
    assert told["process_started_ms"] == 2000.0
    assert told["by_batch"][0] == {
        "batch_size": 1,
        "first_ms": 500.0,
        "second_ms": 500.0,
        "reason": "",
    }
    assert told["by_batch"][2]["first_ms"] is None
    assert told["by_batch"][2]["reason"] == "out of memory"
    assert told["reasons"] == {}
    assert "the second forward took 500 ms" in found.doubts[0]
    assert found.verdict()
    json.dumps(told, allow_nan=False)


def test_a_cold_start_that_broke_off_says_why_of_each_phase():
    broken = gathered(phase("python_start"), ("hang", "did not end within 9 s"))
    found = ColdStart(broken, 0.0)
    assert found.verdict().status is Status.HANG
    told = found.as_json()
    assert told["total_ms"] is None
    assert set(told["reasons"]) == {*PHASES, "total_ms"} - {"python_start"}
    assert all(figure.value is not None or figure.reason for figure in found.figures())
    assert found.doubts == ()


# --- what it is given -----------------------------------------------------------------------------


def test_weights_are_written_only_where_no_file_holds_just_them(tmp_path):
    from safetensors.torch import load_file, save_file
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    written = fresh.state_file(net, None, tmp_path)
    assert written.parent == tmp_path
    assert net.load_state_dict(load_file(written), strict=True)
    assert fresh.state_file(net, "weights.pt", tmp_path) == written
    other = tmp_path / "other.safetensors"
    save_file({"0.weight": net[0].weight.detach()}, other)
    assert fresh.state_file(net, str(other), tmp_path) == written, "a part of them is none"
    plain = nn.Linear(2, 3)
    save_file(plain.state_dict(), other)
    assert fresh.state_file(plain, str(other), tmp_path) == other


# --- how it may end -----------------------------------------------------------------------------


def fake(tmp_path, monkeypatch, end="", events=(), says="", **changes):
    monkeypatch.setenv("FAKE_EVENTS", json.dumps(list(events)))
    monkeypatch.setenv("FAKE_END", end)
    monkeypatch.setenv("FAKE_SAYS", says)
    monkeypatch.setenv("FAKE_CHILD", str(tmp_path / "child"))
    told = []
    found = measure(spec(tmp_path, **changes), FAKE, told.append)
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "child"]), "its folder is taken away"
    return found, told


def test_a_process_that_ends_well(tmp_path, monkeypatch):
    found, _ = fake(tmp_path, monkeypatch, events=whole(), says="CAUTION: on the CPU")
    assert not found.failure
    assert found.said.strip() == "CAUTION: on the CPU"
    assert 0 < found.started_s < time.perf_counter()


def test_each_phase_is_told_once_as_soon_as_it_is_written_whole(tmp_path):
    file = tmp_path / "answers.jsonl"
    begun = fresh._Begun(file)
    assert begun.since() == []
    answers = Answers(file)
    with answers.phase("import_torch"):
        answers.write("output", name="b8", rows=[[0.5] * 640] * 8)
    answers._file.close()
    with file.open("a") as torn:
        torn.write('{"event": "begin", "pha')
    assert begun.since() == ["import_torch"]
    assert begun.since() == []
    with file.open("a") as rest:
        rest.write('se": "warm_up"}\n')
    assert begun.since() == ["warm_up"]


def test_a_crash_is_one_sentence(tmp_path, monkeypatch):
    found, _ = fake(tmp_path, monkeypatch, "crash", phase("import_torch"), "free(): invalid")
    assert found.failure == "crash"
    assert found.error == (
        "a fresh process was killed by signal 11 (SIGSEGV), after import_torch (free(): invalid)"
    )
    assert found.phases == {"import_torch": 0.5}


def test_an_exit_status_is_told(tmp_path, monkeypatch):
    found, _ = fake(tmp_path, monkeypatch, "exit")
    assert "ended with exit status 3" in found.error


def gone(pid):
    """Whether a process has ended; one that nobody waited for counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def soon(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_hang_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    begun = [{"event": "begin", "phase": "device_init"}]
    found, told = fake(tmp_path, monkeypatch, "hang", begun, timeout_s=5.0)
    assert found.failure == "hang"
    assert found.verdict().status is Status.HANG
    assert found.error == "a fresh process did not end within 5 s, in device_init"
    assert told == ["device_init"]
    for pid in (tmp_path / "child").read_text().split():
        assert soon(lambda pid=pid: gone(pid))


def test_a_python_that_is_not_there(tmp_path):
    found = measure(spec(tmp_path), (str(tmp_path / "nowhere"),))
    assert found.failure == "import"
    assert "nowhere cannot be started (No such file or directory)" in found.error


def test_a_python_without_torch_says_so(tmp_path):
    """Another environment's Python, which finds nothing but the standard library."""
    found = measure(spec(tmp_path), (sys.executable, "-S", "-E"))
    assert found.error.endswith("cannot import torch (No module named 'torch')"), found
    assert found.failure == "import"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_no_process_outlives_the_run(tmp_path):
    """Killed without a chance to end it, the run takes its fresh process with it."""
    starter = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    reading, writing = os.pipe()  # held open: the child waits for its task
    run = subprocess.Popen(
        [sys.executable, "-c", starter, str(fresh.PROCESS), str(tmp_path / "answers")],
        stdin=reading,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        pid = int(run.stdout.readline())
        time.sleep(1)  # until it waits; ended before that it finds itself an orphan
        assert not gone(pid)
        run.kill()
        run.wait()
        assert soon(lambda: gone(pid))
    finally:
        run.kill()
        run.stdout.close()
        os.close(reading)
        os.close(writing)


# --- the real one -------------------------------------------------------------------------------

FEWER = """
import dataclasses
from fixtures.core import levels
levels.LEVELS["quick"] = dataclasses.replace(levels.LEVELS["quick"], samples=20, pairs=1)
"""


def test_a_run_on_the_cpu(suite):
    """Cold start, replicates and A/B against an environment that has torch and timm and no more of
    what the suite needs, in three real processes."""
    (suite.root / "tests" / "conftest.py").write_text(FEWER)
    files = (f"tests/test_{name}.py" for name in ("cold_start", "replicates", "ab"))
    run = suite.run(
        *(*files, *SMALL, "--batch-sizes", "1,4"),
        *("--ab", f"{sys.executable} {Path(__file__).with_name('bare_python.py')}"),
        *("--limit", "latency_mean_ms=0.001", "--limit", "throughput_b4=1"),
    )
    assert run.code == 0, run.out
    report = run.report
    cold = run.case("test_cold_start")
    assert cold["status"] == "PASS", run.out
    section = cold["records"]["cold_start"]
    assert all(each["ms"] > 0 for each in section["phases"])
    assert [row["batch_size"] for row in section["by_batch"]] == [1, 4]
    assert all(row["second_ms"] > 0 for row in section["by_batch"])

    replicates = run.case("test_replicates")
    assert replicates["status"] == "INCONCLUSIVE"
    assert "--level quick judges no limit" in replicates["reason"]
    assert "give --level standard" in replicates["reason"]
    section = replicates["records"]["replicates"]
    assert len(section["processes"][0]["samples_ms"]) == 20
    by_name = {row["name"]: row for row in section["figures"]}
    assert by_name["latency_mean_ms"]["estimate"] > 0
    assert by_name["throughput_b4"]["estimate"] > 0
    assert {"latency_mean_ms", "throughput_b4"} <= {row["name"] for row in replicates["limits"]}

    versus = run.case("test_ab")
    assert versus["status"] in ("PASS", "INCONCLUSIVE"), versus
    section = versus["records"]["comparison"]
    assert section["differences"] == []
    assert section["features_apart"] == 0.0
    assert section["environments"]["theirs"]["torch"]
    assert not versus["required"]
    assert not list(run.newest.glob(f"{fresh.SCRATCH}*")), "weights are taken away"
    assert report["cases"]


def test_a_process_that_computes_something_else_fails(suite):
    """Features of another network, well timed, are a failure; so are none at all."""
    (suite.root / "tests" / "conftest.py").write_text(
        "import os\nfrom pathlib import Path\nfrom fixtures.core import fresh\n"
        "fresh.PROCESS = Path(os.environ['FAKE_PROCESS'])\n"
    )
    run = suite.run(
        *("tests/test_cold_start.py", "tests/test_replicates.py", *SMALL),
        FAKE_PROCESS=FAKE[1],
        FAKE_EVENTS=json.dumps(whole(output=[0.1] * 1000)),
    )
    assert run.code == 1, run.out
    case = run.case("test_cold_start")
    assert case["status"] == "FAIL"
    assert "the fresh process, first forward" in " ".join(case["sentences"])
    assert run.case("test_replicates")["status"] == "FAIL"


@needs_cards
def test_a_fresh_process_on_a_simulated_card(suite):
    """It stages simulated cards of its own, and its features are those of this process."""
    (suite.root / "tests" / "conftest.py").write_text(FEWER)
    run = suite.run(
        *("tests/test_cold_start.py", *CARDS, "--simulate", "1", "--batch-sizes", "1,4"),
        **variables(),
    )
    assert run.code == 0, run.out
    case = run.case("test_cold_start")
    assert case["status"] == "PASS", run.out
    phases = {each["name"]: each["ms"] for each in case["records"]["cold_start"]["phases"]}
    assert min(phases.values()) > 0
    assert phases["import_plugin"] > 10


def test_the_levels_bear_what_they_say():
    """A percentile of a level is one that its samples can bound."""
    from fixtures.core.statistics import smallest_sample

    for level in LEVELS.values():
        for percent in level.percentiles:
            assert level.samples >= smallest_sample(percent)
        assert level.judges is (level.processes >= 3)


def test_a_fresh_record_is_empty_until_something_came():
    assert Fresh().verdict()
    assert Fresh().doubts == ()

"""Bad input and bad days, as users meet them: one sentence and exit 4, or a report that says so."""

import json
import os
import re
import signal
import stat
import time

import pytest

from selftest.conftest import SMALL, Outcome, Suite

# --- bad input: refused at once, in one sentence that names option, value and cure ---------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "tpu"], "--device tpu: unknown device; give one of auto, npu"),
        (["--device", "npu:x"], "--device npu:x: give NAME or NAME:INDEX"),
        (["--batch-sizes", "0"], "--batch-sizes 0: give whole numbers from 1"),
        (["--batch-size", "0"], "--batch-size 0: give a whole number from 1 on"),
        (["--num-classes", "0"], "--num-classes 0: give"),
        (["--seed", "-1"], "--seed -1: give"),
        (["--case-timeout", "0"], "--case-timeout 0.0: give seconds above 0"),
        (["--limit", "max_abs_eror=1"], "no limit is called 'max_abs_eror'; known: max_abs_error"),
        (["--limit", "max_abs_error"], "give NAME=NUMBER"),
        (["--image", "nowhere.png"], "nowhere.png: there is no such file"),
        (["--image-dir", "nowhere"], "nowhere: there is no such folder"),
        (["--image", "pytest.ini", "--image-dir", "."], "give one of them"),
        (["--report", "pytest.ini/x.json"], "cannot write there"),
        (["--report", "report.txt"], "ends in .json"),
        (["--qualify", "--device", "cpu"], "the CPU is where one rehearses"),
        (["--qualify", "--weights", "synthetic"], "synthetic weights are for rehearsals"),
        (["--reference", "nobody"], "--reference nobody"),
    ],
)
def test_bad_options_are_refused(suite, arguments, words):
    run = suite.run(*arguments)
    assert run.code == 4, run.out
    assert words in run.out
    assert run.out.strip().count("\n") < 5, run.out
    assert "Traceback" not in run.out
    assert not (suite.reports / "runs").exists() or not list((suite.reports / "runs").iterdir())


@pytest.mark.parametrize("arguments", [["-m", "smok"], ["-k", "nothing_of_that_name"]])
def test_a_selection_that_selects_nothing_is_no_pass(suite, arguments):
    run = suite.run(*arguments)
    assert run.code in (4, 5), run.out  # pytest from 9.1 on refuses the unknown marker


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu:1"], "--device cpu:1: there is no such device; give cpu:0"),
        (["--device", "npu"], "--device npu: "),
        (["--device", "cuda"], "--device cuda: "),
        (["--device", "cpu", "--model", "convnxt_base"], "convnxt_base"),
        (["--device", "cpu", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--device", "cpu", "--weights", "pytest.ini"], "pytest.ini"),
        (["--device", "cpu", "--weights", "pretrained"], "HF_HUB_OFFLINE"),
        (["--qualify"], "--qualify: no accelerator is in this machine"),
    ],
)
def test_what_is_not_there_is_refused(suite, arguments, words):
    run = suite.run("--model", "test_convnext.r160_in1k", *arguments)
    assert run.code == 4, run.out
    assert words in run.out
    assert "Traceback" not in run.out


def test_an_unreachable_hub_is_known_within_seconds(suite):
    begun = time.monotonic()
    run = suite.run(
        *("--device", "cpu", "--model", "test_convnext.r160_in1k", "--weights", "pretrained"),
        HF_HUB_OFFLINE=None,
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    assert run.code == 4, run.out
    assert "http://127.0.0.1:9" in run.out
    assert time.monotonic() - begun < 60, "timm's own retries alone take about 46 s"


def fake_tool(folder, name, text):
    """An executable that prints `text`."""
    folder.mkdir(exist_ok=True)
    tool = folder / name
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_visible_hardware_without_its_software_is_no_reason_to_take_the_cpu(suite, tmp_path):
    path = fake_tool(tmp_path / "bin", "npu-smi", "npu-smi version: 24.1.rc3")
    run = suite.run("--model", "test_convnext.r160_in1k", PATH=path)
    assert run.code == 4, run.out
    assert "npu hardware is here (npu-smi" in run.out
    assert "--device cpu if the CPU is meant" in run.out


def test_an_unreadable_picture_is_refused(suite):
    (suite.root / "bad.png").write_text("not a picture")
    run = suite.run(*SMALL, "-m", "inference", "--image", "bad.png")
    assert run.code == 4, run.out
    assert "bad.png" in run.out


def test_a_folder_without_pictures_is_refused(suite):
    (suite.root / "empty").mkdir()
    run = suite.run(*SMALL, "-m", "inference", "--image-dir", "empty")
    assert run.code == 4, run.out
    assert "--image-dir" in run.out


# --- bad days ------------------------------------------------------------------------------------


def case_file(suite, text, name="test_planted.py"):
    """Plant a test file in the suite's copy."""
    head = "import ctypes, os, time\nimport pytest\n"
    (suite.root / "tests" / name).write_text(head + text)


def test_a_broken_test_file_is_a_failure_in_every_report(suite):
    case_file(suite, "def test_(:\n", "test_broken.py")
    run = suite.run(*SMALL)
    assert run.code == 2, run.out
    assert run.report["verdict"]["status"] == "NOT QUALIFIED"
    assert "test_broken.py" in run.case("test_broken")["id"]
    assert "test_broken.py" in (run.reports / "report.html").read_text()


def test_a_loosened_limit_makes_the_run_incomplete_and_a_tight_one_fails(suite):
    run = suite.run(*SMALL, "-m", "precision and smoke", "--limit", "max_abs_error=1")
    assert run.code == 0, run.out
    reasons = " ".join(run.report["verdict"]["reasons"])
    assert "max_abs_error was loosened to 1" in reasons
    run = suite.run(*SMALL, "-m", "precision and smoke", "--limit", "min_cosine_similarity=1.5")
    assert run.code == 1, run.out
    assert "must be > 1.5 (--limit)" in run.out


SLOW = """
@pytest.mark.precision
def test_first(record):
    "This is measured."
    record.figure("kept", 1.5, "ms")

@pytest.mark.precision
def test_second():
    "This never ends by itself."
    open("second", "w").close()
    {wait}
"""


def wait_for(path, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def measured_before(run):
    """What was recorded before the end is in the report."""
    kept = run.case("test_first")
    assert kept["status"] == "PASS"
    assert kept["figures"][0]["name"] == "kept"


def test_ctrl_c_keeps_what_was_measured(suite):
    case_file(suite, SLOW.format(wait="time.sleep(300)"))
    process = suite.start(*SMALL, "tests/test_planted.py")
    wait_for(suite.root / "second", process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    run = Outcome(process.returncode, out, suite.reports)
    assert run.code == 2, out
    assert run.report["verdict"]["status"] == "INCOMPLETE"
    assert any("interrupted" in reason for reason in run.report["verdict"]["reasons"])
    measured_before(run)


def test_a_kill_keeps_what_was_measured(suite):
    case_file(suite, SLOW.format(wait="time.sleep(300)"))
    process = suite.start(*SMALL, "tests/test_planted.py")
    wait_for(suite.root / "second", process)
    process.kill()
    out, _ = process.communicate(timeout=120)
    run = Outcome(process.returncode, out, suite.reports)
    assert run.report["verdict"]["status"] == "INCOMPLETE"
    assert "INCOMPLETE" in (suite.reports / "report.html").read_text()
    measured_before(run)


def test_a_case_that_hangs_with_the_interpreters_lock_is_ended_and_reported(suite):
    case_file(suite, SLOW.format(wait="ctypes.PyDLL(None).sleep(300)"))
    run = suite.run(*SMALL, "tests/test_planted.py", "--case-timeout", "15")
    assert run.code != 0, run.out
    assert "hung and was ended" in run.out
    assert run.report["verdict"]["status"] == "NOT QUALIFIED"
    assert run.case("test_second")["status"] == "HANG"
    measured_before(run)


END_HANGS = {
    "with the lock": "import atexit\natexit.register(ctypes.PyDLL(None).sleep, 300)\n",
    "in a thread": "import threading\nthreading.Thread(target=time.sleep, args=(300,)).start()\n",
}


def test_a_process_that_hangs_at_its_end_is_ended_and_its_reports_say_so(tmp_path):
    """Both at once, each in its own copy: the wait is most of the time."""
    started = []
    for number, hang in enumerate(END_HANGS.values()):
        (tmp_path / str(number)).mkdir()
        suite = Suite(tmp_path / str(number))
        case_file(suite, f"{hang}\n\ndef test_first():\n    'It passes.'\n")
        arguments = (*SMALL, "tests/test_planted.py", "--case-timeout", "15", "--report=out/r.json")
        started.append((suite, suite.start(*arguments)))
    for suite, process in started:
        out, _ = process.communicate(timeout=200)
        run = Outcome(process.returncode, out, suite.reports)
        assert run.code != 0, out
        assert run.report["verdict"]["status"] == "NOT QUALIFIED"
        assert run.case("the end of the process")["status"] == "HANG"
        assert run.case("test_first")["status"] == "PASS"
        reason = "the end of the process did not end within 15 s since the last report"
        for name in ("report.html", "adaptation_report.md", "validation_report.json"):
            for folder in (run.newest, suite.reports, suite.root / "out"):
                copy = folder / ("r.json" if folder.name == "out" and "json" in name else name)
                assert reason in copy.read_text(encoding="utf-8"), copy
        (line,) = [line for line in out.splitlines() if line.startswith("qualification: the end")]
        assert reason in line


DEVICE_ERRORS = {
    "in the case": """
@pytest.mark.precision
def test_first(device):
    "The device fails."
    raise RuntimeError("aicore exception, error code is 507015")
""",
    "in a session fixture": """
@pytest.fixture(scope="session")
def device_model(device):
    "The network cannot be brought to the device."
    raise RuntimeError("aicore exception, error code is 507015")

@pytest.mark.precision
def test_first(device_model):
    "The device fails before the case."
""",
    "in teardown": """
@pytest.fixture
def late(device):
    yield
    raise RuntimeError("aicore exception, error code is 507015")

@pytest.mark.precision
def test_first(late):
    "The device fails after the case."
""",
    "in two teardowns": """
@pytest.fixture
def late(device):
    yield
    raise RuntimeError("aicore exception, error code is 507015")

@pytest.fixture
def later(device):
    yield
    raise ValueError("and another one")

@pytest.mark.precision
def test_first(late, later):
    "pytest makes a group of the errors."
""",
    "behind another error": """
@pytest.mark.precision
def test_first(device):
    "The device fails, and another error is raised of it."
    try:
        raise RuntimeError("aicore exception, error code is 507015")
    except RuntimeError as error:
        raise ValueError("something went wrong") from error
""",
    "caught by the case": """
@pytest.mark.precision
def test_first(device, monkeypatch):
    "The device fails, and the case goes on."
    def fail(index):
        raise RuntimeError("aicore exception, error code is 507015")
    monkeypatch.setattr(device.backend, "synchronize", fail)
    with pytest.raises(RuntimeError):
        device.synchronize()
""",
    "in the network, and caught": """
@pytest.fixture(scope="session")
def device_model(moved):
    def broken(images):
        raise RuntimeError("aicore exception, error code is 507015")
    return broken

@pytest.mark.precision
def test_first(forward, batch):
    "The network fails on the device, and the case goes on."
    with pytest.raises(RuntimeError):
        forward(batch(1).images)
""",
    "not raised at all": """
@pytest.mark.precision
def test_first(device, monkeypatch):
    "The device drops what it is told, as torch_npu does once its queue has failed."
    import torch
    plus = torch.Tensor.__add__
    def stale(one, other):
        return one if one is other else plus(one, other)
    torch.Tensor.__add__ = stale
""",
}


@pytest.mark.parametrize("error", DEVICE_ERRORS.values(), ids=DEVICE_ERRORS)
def test_a_device_error_ends_the_measurements_of_the_process(suite, request, error):
    conftest(
        suite,
        """
from fixtures.core.backends.cpu import CpuBackend
CpuBackend.is_device_error = lambda self, error: (
    isinstance(error, RuntimeError) and "507015" in str(error)
)
""",
    )
    case_file(
        suite,
        error
        + """

@pytest.mark.precision
def test_second(device):
    "Nothing after it counts."

@pytest.mark.precision
def test_third(cpu):
    "What needs no device still runs."
""",
    )
    asked = "in the case" in request.node.name  # reading the environment takes a while
    run = suite.run(
        *(*SMALL, "tests/test_planted.py"), *(["tests/test_afterwards.py"] if asked else [])
    )
    assert run.code == 1, run.out
    told = "1 + 1 gave 1 on cpu" if "stale" in error else "507015"
    assert run.case("test_first")["status"] == "FAIL"
    assert run.case("test_second")["status"] == "NOT RUN"
    assert told in run.case("test_second")["reason"]
    assert run.case("test_third")["status"] == "PASS"
    if asked:
        assert run.case("test_afterwards[card-health]")["status"] == "UNSUPPORTED"
    for name in ("report.html", "adaptation_report.md", "validation_report.json"):
        text = (run.newest / name).read_text(encoding="utf-8")
        assert "the device failed in tests/test_planted.py::test_first" in text, name
        assert "nothing measured on it afterwards counts" in text
    assert told in run.report["verdict"]["reasons"][0]
    assert "nothing measured on it afterwards counts" in run.out


CORRUPT = """
from fixtures.core import copies

class Flipping(torch.Tensor):
    "A tensor on the device, of which every second reading is wrong in two elements."
    reads = 0
    def to(self, *where, **how):
        Flipping.reads += 1
        copy = self.as_subclass(torch.Tensor).clone()
        if Flipping.reads % 2 == 0:
            copy.view(torch.int32).view(-1)[:2] ^= 1
        return copy

class There(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, x):
        return self.model(x).as_subclass(Flipping)

@pytest.fixture(scope="session")
def device_model(moved):
    return There(moved.model)
"""


def test_a_copy_that_changes_bits_fails_the_case_in_a_sentence(suite):
    conftest(suite, f"import pytest, torch\n{CORRUPT}")
    run = suite.run(*SMALL, "tests/test_latency.py", "tests/test_precision.py", "-m", "smoke")
    assert run.code == 1, run.out
    for name in ("test_latency", "test_agreement[b8]"):
        assert run.case(name)["status"] == "FAIL"
        (sentence,) = run.case(name)["sentences"]
        assert re.fullmatch(r"a copy from cpu changed 2 of \d+ elements", sentence)
    assert run.case("test_inputs_differ")["status"] == "PASS"


SICK = """
from dataclasses import replace
from fixtures.core.backends.base import Telemetry
from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.npu_smi import ECC, TEMPERATURE

READINGS = []

def telemetry(self, index):
    "A card that the work makes sick."
    READINGS.append(Telemetry(
        "npu-smi", True, health="OK", temperature_c=40.0, name="910B4", limits=(ECC, TEMPERATURE),
        ecc={"HBM Single Bit Error Count": 1, "HBM Double Bit Error Count": 0},
    ))
    if len(READINGS) > 1:
        return replace(
            READINGS[0], health="Alarm", problems=("health of this card is Alarm, must be OK",),
            ecc={"HBM Single Bit Error Count": 6, "HBM Double Bit Error Count": 1},
        )
    return READINGS[0]

CpuBackend.telemetry = telemetry
"""


def test_a_card_that_the_work_made_sick_is_not_qualified(suite):
    """Also where the card was not asked for beforehand: it is read before the first case."""
    conftest(suite, SICK)
    run = suite.run(*SMALL, "tests/test_precision.py", "tests/test_afterwards.py", "-m", "smoke")
    assert run.code == 1, run.out
    ended = {case["id"]: case for case in run.report["cases"]}
    assert list(ended)[-1].startswith("tests/test_afterwards.py"), "last of all"
    assert run.case("test_afterwards[card-health]")["status"] == "FAIL"
    ecc = run.case("test_afterwards[card-ecc]")
    assert ecc["status"] == "FAIL"
    assert "HBM Double Bit Error Count rose from 0 to 1 during the run" in ecc["sentences"]
    assert ecc["doubts"] == ["HBM Single Bit Error Count rose from 1 to 6 during the run"]
    assert run.case("test_afterwards[card-temperature]")["status"] == "PASS"
    assert run.report["environment"]["telemetry"]["health"] == "OK"
    assert run.report["facts"]["afterwards"]["health"] == "Alarm"
    assert "Card health afterwards" in (run.newest / "adaptation_report.md").read_text()


def test_an_operator_that_falls_back_fails_the_case_that_met_it(suite):
    case_file(
        suite,
        r"""
@pytest.mark.precision
def test_first(device):
    "A fallback is announced on the descriptor, by C++ code."
    device.backend.fallback_pattern = r"operator '([^']+)' is not"
    os.write(2, b"CAUTION: The operator 'aten::gelu' is not currently supported\n")

@pytest.mark.precision
def test_second(device):
    "This one is innocent."
""",
    )
    for capture in ([], ["-s"]):
        run = suite.run(*SMALL, "tests/test_planted.py", *capture)
        assert run.code == 1, run.out
        assert "aten::gelu ran on the CPU" in run.case("test_first")["sentences"][0]
        assert run.case("test_second")["status"] == "PASS"


def test_a_verdict_that_was_recorded_but_not_asserted_still_fails(suite):
    case_file(
        suite,
        """
from fixtures.core.records import Figure, Limit

@pytest.mark.precision
def test_forgetful(record):
    "The assert was forgotten."
    record(Figure("x", 2.0), Limit.row("x", "<", 1.0, "a table"))
""",
    )
    run = suite.run(*SMALL, "tests/test_planted.py")
    assert run.code == 1, run.out
    assert run.case("test_forgetful")["sentences"] == ["x is 2, must be < 1"]


def test_a_run_in_which_everything_was_skipped_does_not_pass(suite):
    case_file(
        suite,
        """
@pytest.mark.precision
def test_nothing(record):
    "Nothing can be measured."
    record.not_run("there is nothing")
""",
    )
    run = suite.run(*SMALL, "tests/test_planted.py")
    assert run.code == 5, run.out
    assert run.report["verdict"]["status"] == "INCOMPLETE"
    assert run.case("test_nothing")["status"] == "NOT RUN"


def test_another_directory_makes_no_difference(suite, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run = suite.run(*SMALL, *("-m", "precision and smoke"), str(suite.root), cwd=elsewhere)
    assert run.code == 0, run.out
    assert run.report["verdict"]["status"] == "INCOMPLETE"
    assert list(elsewhere.iterdir()) == []


def test_report_goes_where_it_is_asked_for(suite, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    arguments = ("-m", "precision and smoke", "--report", "out/result.json", str(suite.root))
    run = suite.run(*SMALL, *arguments, cwd=elsewhere)
    assert run.code == 0, run.out
    names = {path.name for path in (elsewhere / "out").iterdir()}
    assert {"result.json", "report.html", "adaptation_report.md"} <= names
    assert json.loads((elsewhere / "out" / "result.json").read_text())["cases"]


def test_xdist_runs_correctness_and_says_that_it_takes_no_times(suite):
    marked = "smoke and (precision or performance or environment)"
    run = suite.run(*SMALL, "-n", "2", "-m", marked, "-k", "not test_environment")
    assert run.code == 0, run.out
    report = run.report
    assert run.case("test_afterwards[card-health]")["status"] == "NOT RUN"
    assert "others may still be at work" in run.case("test_afterwards[card-health]")["reason"]
    assert run.case("test_agreement[b8]")["status"] == "PASS"
    assert run.case("test_latency")["status"] == "NOT RUN"
    assert "xdist" in run.case("test_latency")["reason"]
    assert report["verdict"]["status"] == "INCOMPLETE"
    assert report["subject"]["model"] == "test_convnext.r160_in1k"
    assert report["device"]["backend"] == "cpu"


def test_xdist_refuses_bad_input_as_well(suite):
    run = suite.run("-n", "2", "--model", "nonsense_net", "--device", "cpu")
    assert run.code == 4, run.out
    assert "nonsense_net" in run.out


def test_benchmark_disable_says_not_run(suite):
    run = suite.run(*SMALL, "--benchmark-disable", "-m", "smoke and performance")
    assert run.code == 5, run.out
    assert run.case("test_latency")["status"] == "NOT RUN"
    assert "--benchmark-disable" in run.case("test_latency")["reason"]


def test_collecting_wakes_nothing(suite):
    probe = """
import sys
def pytest_unconfigure(config):
    names = ("torch", "timm", "numpy", "PIL", "matplotlib")
    heavy = [name for name in names if name in sys.modules]
    print("IMPORTED", heavy)
"""
    (suite.root / "probe.py").write_text(probe)
    run = suite.run("--collect-only", "-q", "-p", "probe", cold=True, PYTHONPATH=str(suite.root))
    assert run.code == 0, run.out
    assert "IMPORTED []" in run.out
    assert "test_agreement[b16]" in run.out
    assert not suite.reports.exists(), "collecting leaves no reports"


def test_two_runs_at_once_keep_apart(suite):
    arguments = (*SMALL, "-m", "precision and smoke")
    both = [suite.start(*arguments), suite.start(*arguments)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    folders = list((suite.reports / "runs").iterdir())
    assert len(folders) == 2
    for folder in folders:
        report = json.loads((folder / "validation_report.json").read_text())
        assert report["verdict"]["status"] == "INCOMPLETE"


# --- ways in which a pass could be had without deserving it --------------------------------------


def conftest(suite, text):
    """A conftest.py in tests/, as a team that means well might leave there."""
    (suite.root / "tests" / "conftest.py").write_text(text)


def test_a_failure_is_not_forgotten_when_the_case_is_run_again(suite):
    conftest(
        suite,
        """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    "Runs each case twice, as plug-ins for flaky tests do."
    for _ in range(2):
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        runtestprotocol(item, nextitem=nextitem)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        item._initrequest()
    return True
""",
    )
    case_file(
        suite,
        """
TRIES = []

@pytest.mark.precision
def test_flaky():
    "Wrong at first."
    TRIES.append(1)
    assert len(TRIES) > 1, "wrong at first"
""",
    )
    run = suite.run(*SMALL, "tests/test_planted.py")
    assert run.code == 1, run.out
    assert run.case("test_flaky")["status"] == "FAIL"
    assert "wrong at first" in run.case("test_flaky")["sentences"][0]


def test_a_case_that_a_plug_in_takes_away_is_noticed(suite):
    conftest(
        suite,
        """
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "test_agreement" not in item.nodeid]
""",
    )
    run = suite.run(*SMALL, "tests/test_precision.py")
    reasons = " ".join(run.report["verdict"]["reasons"])
    assert "cases were taken away by a plug-in" in reasons, run.out


def test_other_rules_of_what_a_case_is_are_noticed(suite):
    run = suite.run(*SMALL, "tests/test_precision.py", "-o", "python_functions=test_inputs*")
    assert "python_functions was changed" in " ".join(run.report["verdict"]["reasons"]), run.out


def test_a_failed_judgement_stands_although_the_case_then_skips(suite):
    case_file(
        suite,
        """
from fixtures.core.records import Figure, Limit

@pytest.mark.precision
def test_shy(record):
    "It measured, and then looked away."
    record(Figure("x", 2.0), Limit.row("x", "<", 1.0, "a table"))
    record.unsupported("never mind")
""",
    )
    run = suite.run(*SMALL, "tests/test_planted.py")
    assert run.code == 1, run.out
    assert run.case("test_shy")["status"] == "FAIL"


def test_a_judgement_that_decided_nothing_is_no_pass_although_the_case_goes_on(suite):
    case_file(
        suite,
        """
from fixtures.core.records import Status, Verdict

@pytest.mark.precision
def test_undecided(record):
    "It could not tell, and does not look at that."
    record.judge(Verdict(Status.INCONCLUSIVE, ("3 processes are too few",)))
""",
    )
    run = suite.run(*SMALL, "tests/test_planted.py")
    case = run.case("test_undecided")
    assert (case["status"], case["reason"]) == ("INCONCLUSIVE", "3 processes are too few"), run.out
    assert run.report["verdict"]["status"] == "INCOMPLETE"
    assert "1 skipped" in run.out, run.out


def test_a_fallback_that_is_only_a_silenced_warning_fails_all_the_same(suite):
    case_file(
        suite,
        r"""
import warnings

@pytest.mark.precision
def test_quiet(device):
    "The announcement is a Python warning."
    device.backend.fallback_pattern = r"operator '([^']+)' is not"
    warnings.warn("CAUTION: The operator 'aten::gelu' is not here, it runs on the CPU")
""",
    )
    run = suite.run(*SMALL, "tests/test_planted.py", "-W", "ignore")
    assert run.code == 1, run.out
    assert "aten::gelu ran on the CPU" in run.case("test_quiet")["sentences"][0]


def test_the_environment_check_passes_only_as_a_whole(suite):
    run = suite.run(*SMALL, "-m", "environment", "-k", "version-python")
    assert run.code == 0, run.out
    assert "[INCOMPLETE] Environment check" in run.out


def test_setting_up_is_not_running(suite):
    case_file(suite, "def test_x():\n    'A claim.'\n    assert False\n")
    for option in ("--setup-only", "--setup-plan"):
        run = suite.run(*SMALL, "tests/test_planted.py", option)
        assert run.code == 5, run.out


def test_without_pytest_html_there_is_still_a_page(suite):
    run = suite.run(*SMALL, "-m", "precision and smoke", "-p", "no:html")
    assert run.code == 0, run.out
    assert "INCOMPLETE" in (run.newest / "report.html").read_text()

"""Whole runs, as a user makes them: what they print, what they write, what they catch."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import jsonschema
import numpy as np
import pytest

from selftest import warm
from selftest.conftest import QUICK, ROOT, SMALL

SCHEMA = json.loads(
    (ROOT / "fixtures/core/report/validation_report.schema.json").read_text(encoding="utf-8")
)


ONE_RUN = pytest.mark.xdist_group("full_run")
"""All who look at the one whole run are sent to one worker."""

# --- a healthy run -------------------------------------------------------------------------------


@ONE_RUN
def test_a_healthy_run_on_the_cpu_is_a_rehearsal(full_run):
    assert full_run.code == 0, full_run.out
    report = full_run.report
    jsonschema.validate(report, SCHEMA)
    assert report["verdict"]["status"] == "REHEARSAL"
    assert report["verdict"]["reasons"] == [
        "rehearsal: the device under test is the CPU",
        "rehearsal: the weights are synthetic",
    ]
    assert {case["status"] for case in report["cases"]} == {"PASS", "UNSUPPORTED"}
    assert full_run.out.rstrip().splitlines()[-1] == report["verdict"]["line"]


@ONE_RUN
def test_it_prints_the_documents_block_and_where_its_time_went(full_run):
    lines = full_run.out.splitlines()
    start = lines.index("Environment Check")
    keys = [line.partition(":")[0] for line in lines[start + 2 : start + 8]]
    assert keys == [
        *("torch_version", "torch_npu_version", "npu_available", "npu_count"),
        *("timm_version", "npu_smi"),
    ]
    assert lines[start + 8] == "[PASS] Environment check"
    told = next(line for line in lines if line.startswith("time: "))
    for purpose in ("imports", "weights", "model", "reference", "probes", "suite"):
        assert re.search(rf"{purpose} \d+\.\d s \(\d+%\)", told), told
    # how small the suite's own share is, is measured by the proof "overhead"
    assert full_run.report["time_spent"].keys() >= {"suite", "total"}


@ONE_RUN
def test_every_item_of_the_document_left_its_figures(full_run):
    report = full_run.report
    assert report["latency"]["mean_ms"] > 0
    assert report["latency"]["cold_start_ms"] > 0
    assert len(report["latency"]["samples_ms"]) >= 64
    assert [entry["batch_size"] for entry in report["throughput"]] == [1, 4, 8, 16]
    assert all(entry["samples_per_second"] > 0 for entry in report["throughput"])
    assert {entry["status"] for entry in report["operators"]} == {"supported"}
    families = {entry["family"] for entry in report["operators"]}
    assert families >= {
        *("Conv2d", "DepthwiseConv2d", "LayerNorm", "LayerNorm2d", "GELU", "Linear"),
        *("GlobalAveragePooling", "StochasticDepth"),
    }
    metrics = {metric["name"] for metric in report["precision"]["metrics"]}
    assert metrics >= {"max_abs_error", "min_cosine_similarity", "relative_l2_error", "identity"}
    assert report["environment"]["versions"]["timm"]
    assert report["subject"]["weights"]["sha256"]
    assert report["fusion"]["found"] is False
    assert report["references"]["published"] is None, "nothing was published for this network"


@ONE_RUN
def test_it_writes_every_report_it_promises(full_run):
    promised = (
        *("report.html", "validation_report.json", "benchmark.json", "features.npz"),
        *("adaptation_report.md", "adaptation_report.zh-CN.md"),
    )
    for name in promised:
        assert (full_run.reports / name).read_bytes() == (full_run.newest / name).read_bytes()
    page = (full_run.reports / "report.html").read_text(encoding="utf-8")
    assert "REHEARSAL" in page
    assert "<svg" in page
    assert not re.search(r"""(src|href)=["']https?://(?!pypi)""", page), "self-contained"
    benchmarks = json.loads((full_run.reports / "benchmark.json").read_text())["benchmarks"]
    assert len(benchmarks) == 5
    assert all(each["stats"]["data"] for each in benchmarks), "every sample is kept"


@ONE_RUN
def test_the_features_are_those_of_the_pictures(full_run):
    with np.load(full_run.reports / "features.npz") as saved:
        assert saved["features"].shape == (8, 1000)
        assert saved["features"].dtype == np.float32
        lengths = np.linalg.norm(saved["normalized_features"], axis=1)
        assert np.allclose(lengths, 1, atol=1e-6)
        assert len(saved["files"]) == 8


@ONE_RUN
def test_a_stored_report_can_be_judged_again(full_run):
    from fixtures.core import report as reports
    from fixtures.core.verdict import conclude

    stored = full_run.report
    verdict = conclude(reports.from_json(stored))
    assert (verdict.status, verdict.line) == (
        stored["verdict"]["status"],
        stored["verdict"]["line"],
    )


def test_the_subject_itself_passes_its_smoke_run(suite):
    plant(suite, QUICK)
    run = suite.run("--device", "cpu", "--weights", "synthetic", "-m", "smoke", "--junitxml=j.xml")
    assert run.code == 0, run.out
    report = run.report
    jsonschema.validate(report, SCHEMA)
    assert report["verdict"]["status"] == "INCOMPLETE"
    assert report["subject"]["parameters"] == 88_222_464
    assert report["subject"]["num_classes"] == 640
    assert report["subject"]["input_size"] == [3, 256, 256]
    assert report["references"]["published"]["other_device"] is True
    for name in ("adaptation_report.md", "adaptation_report.zh-CN.md"):
        assert "58.31" in (run.newest / name).read_text(encoding="utf-8")
    cases = ET.parse(suite.root / "j.xml").getroot().iter("testcase")
    figures = {p.get("name") for case in cases for p in case.iter("property")}
    assert "latency_mean_ms" in figures


# --- planted faults: a wrong device must not pass ------------------------------------------------


def plant(suite, text):
    """A conftest in tests/ that overrides the suite's fixtures with a faulty device."""
    (suite.root / "tests" / "conftest.py").write_text("import pytest\nimport torch\n" + text)


DEAD_BLOCK = """
@pytest.fixture(scope="session")
def device_model(moved):
    with torch.no_grad():
        moved.model.stages[2].blocks[0].conv_dw.weight.zero_()
    return moved.model
"""


def test_a_network_that_lost_one_convolution_is_not_qualified(suite):
    plant(suite, QUICK + DEAD_BLOCK)
    run = suite.run(*SMALL, "tests/test_precision.py", "tests/test_latency.py")
    assert run.code == 1, run.out
    assert run.report["verdict"]["status"] == "NOT QUALIFIED"
    failed = {case["id"].split("::")[1] for case in run.report["cases"] if case["status"] == "FAIL"}
    assert {"test_agreement[b1]", "test_agreement[b8]", "test_latency"} <= failed
    told = run.case("test_agreement[b8]")["sentences"]
    assert any(re.search(r"relative l2 error is .*, must be <= 0.01", each) for each in told), told


TIRED = """
class Tired(torch.nn.Module):
    "Right for the first calls, and then not any more."
    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0
    def forward(self, x):
        self.calls += 1
        y = self.model(x)
        return y if self.calls < 40 else y.roll(1, -1)

@pytest.fixture(scope="session")
def device_model(moved):
    return Tired(moved.model)
"""


def test_an_output_that_goes_wrong_only_while_it_is_timed_fails(suite):
    plant(suite, QUICK + TIRED)
    run = suite.run(*SMALL, "tests/test_latency.py")
    assert run.code == 1, run.out
    assert run.case("test_latency")["status"] == "FAIL"
    assert any("timed forward" in each for each in run.case("test_latency")["sentences"])


UNSYNCHRONISED = """
@pytest.fixture(scope="session", autouse=True)
def asynchronous(device):
    "A device that claims to work on after a call returns, and shows nothing of it."
    device.backend.asynchronous = True
"""


def test_times_without_proof_of_synchronisation_are_invalid(suite):
    plant(suite, UNSYNCHRONISED)
    run = suite.run(*SMALL, "tests/test_latency.py", "-m", "smoke")
    assert run.code == 1, run.out
    assert run.case("test_latency")["status"] == "INVALID"


FULL = """
class Full(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, x):
        if len(x) >= {size}:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 21474836480 bytes")
        return self.model(x)

@pytest.fixture(scope="session")
def device_model(moved):
    return Full(moved.model)
"""


@pytest.mark.parametrize(("size", "code", "status"), [(32, 0, "UNSUPPORTED"), (16, 1, "FAIL")])
def test_out_of_memory_is_a_result(suite, size, code, status):
    plant(suite, QUICK + FULL.format(size=size))
    sizes = ("--batch-sizes", "1,4,8,16,32")
    run = suite.run(*SMALL, *sizes, "tests/test_throughput.py", "-k", f"b{size} or b4")
    assert run.code == code, run.out
    assert run.case(f"test_throughput[b{size}]")["status"] == status
    entry = next(e for e in run.report["throughput"] if e["batch_size"] == size)
    assert entry["out_of_memory"] is True
    assert entry["samples_per_second"] is None
    assert run.case("test_throughput[b4]")["status"] == "PASS"


# --- weights and pictures of one's own -----------------------------------------------------------


@pytest.fixture(scope="module")
def weight_files(tmp_path_factory):
    """Two files: weights in which every block matters, and timm's own initialisation."""
    import timm
    import torch
    from safetensors.torch import save_file

    from fixtures.core import weights

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = timm.create_model("test_convnext.r160_in1k", pretrained=False)
    save_file(model.state_dict(), folder / "fresh.safetensors")
    weights.draw(model, seed=5)
    save_file(model.state_dict(), folder / "good.safetensors")
    return folder


def with_file(path):
    return ("--model", "test_convnext.r160_in1k", "--device", "cpu", f"--weights={path}")


def test_given_weights_are_named_by_their_digest(suite, weight_files):
    run = suite.run(*with_file(weight_files / "good.safetensors"), "-m", "model")
    assert run.code == 0, run.out
    digest = run.report["subject"]["weights"]["sha256"]
    import hashlib

    assert digest == hashlib.sha256((weight_files / "good.safetensors").read_bytes()).hexdigest()
    assert f"given weights (SHA-256 {digest})" in run.out


def test_given_weights_whose_blocks_do_not_matter_prove_nothing(suite, weight_files):
    run = suite.run(*with_file(weight_files / "fresh.safetensors"), "-m", "model and smoke")
    assert run.code == 1, run.out
    assert "block sensitivity" in " ".join(run.report["verdict"]["reasons"])


def test_another_number_of_classes_is_incomplete(suite, weight_files):
    arguments = (*with_file(weight_files / "good.safetensors"), "--num-classes", "10")
    run = suite.run(*arguments, "-m", "model and smoke")
    assert run.code == 0, run.out
    assert "re-initialised for 10 classes" in " ".join(run.report["verdict"]["reasons"])


def test_one_bad_picture_does_not_stop_the_others(suite):
    pictures = suite.root / "pictures"
    pictures.mkdir()
    for name in ("astronaut", "coins"):
        source = next((ROOT / "fixtures" / "pictures").glob(f"{name}.*"))
        (pictures / source.name).write_bytes(source.read_bytes())
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8 not much of a picture")
    run = suite.run(*SMALL, "-m", "inference", "--image-dir", "pictures", "--batch-size", "2")
    assert run.code == 0, run.out
    with np.load(run.newest / "features.npz") as saved:
        assert len(saved["files"]) == 2
    assert any("broken.jpg" in d for case in run.report["cases"] for d in case["doubts"])


# --- the page, as a reader sees it ---------------------------------------------------------------


def test_a_hostile_name_reaches_no_page_unescaped(suite):
    folder = suite.root / "<script>alert(1)"
    folder.mkdir()
    source = next((ROOT / "fixtures" / "pictures").glob("coins.*"))
    (folder / "<img src=x onerror=alert(2)>.png").write_bytes(source.read_bytes())
    run = suite.run(*SMALL, "-m", "inference", f"--image-dir={folder}")
    assert run.code == 0, run.out
    page = (run.newest / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page


def test_benchmark_only_takes_times_and_nothing_is_skipped_for_it(suite):
    plant(suite, QUICK)
    run = suite.run(*SMALL, "--benchmark-only", "--batch-sizes", "1")
    assert run.code == 0, run.out
    assert {case["status"] for case in run.report["cases"]} == {"PASS"}
    assert "deselected by options of pytest" in " ".join(run.report["verdict"]["reasons"])


def test_benchmarks_are_saved_and_compared_as_people_know_it(suite):
    """pytest-benchmark's own storage: every sample of one run, and a table beside the next."""
    plant(suite, QUICK)
    keep = ("--benchmark-save=first", "--benchmark-save-data")
    run = suite.run(*SMALL, "tests/test_latency.py", *keep)
    assert run.case("test_latency")["status"] == "PASS", run.out
    (saved,) = (suite.root / ".benchmarks").rglob("*_first.json")
    (entry,) = json.loads(saved.read_text(encoding="utf-8"))["benchmarks"]
    samples = run.report["latency"]["samples_ms"]
    assert [1e3 * s for s in entry["stats"]["data"]] == pytest.approx(samples)
    run = suite.run(*SMALL, "tests/test_latency.py", "--benchmark-compare=0001")
    assert run.case("test_latency")["status"] == "PASS", run.out
    assert "test_latency (0001_first)" in run.out


def test_pytest_can_still_be_asked_for_other_things():
    for question in ("--help", "--markers", "--fixtures", "--version"):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", question, "-p", "no:cacheprovider"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_a_run_inside_another_program_may_outlive_itself(suite):
    """Under ``pytest.main()`` the process is not pytest's: nobody ends it when the run is over."""
    program = suite.root / "program.py"
    program.write_text(
        "import sys, time, pytest\n"
        "code = pytest.main(sys.argv[1:])\n"
        "time.sleep(13)\n"
        "print('went on', int(code))\n"
    )
    arguments = [*SMALL, "-k", "test_refused_picture", "--case-timeout", "10"]
    process = warm.start([str(program), *arguments], suite.root, suite.environment())
    out, _ = process.communicate(timeout=120)
    assert "went on 0" in out, out

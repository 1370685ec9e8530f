"""The sweep: the host's memory is never used up, an out of memory is a result."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core import sweep as module
from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.latency import Work
from fixtures.core.power import Blocks
from fixtures.core.records import Limit, Status
from fixtures.core.sweep import HostMemory, Point, Room, Sweep, law, stop, sweep
from selftest.conftest import SMALL
from selftest.simulated import CARDS, folder, needs_cards

GIB = 2**30


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    """No time is looked at here."""
    monkeypatch.setattr(module, "WARM_S", 1e-3)
    monkeypatch.setattr(module, "BLOCK_S", 1e-3)


APART = Limit.row("apart", "<=", 1e-4, "a selftest")


def point(size, each=0.01, peak=None, **others):
    return Point(size, 1, (each,) * 3, peak, peak, **others)


# --- the law of memory --------------------------------------------------------------------------


@settings(deadline=None)  # scipy is imported in the first
@given(st.integers(1, 10**10), st.integers(1, 10**9))
def test_the_law_of_a_straight_line_is_that_line(base, each):
    found = law({size: base + each * size for size in (1, 4, 8, 16)})
    assert found.per_picture == pytest.approx(each, rel=1e-6)
    room = base + 100.5 * each
    assert found.largest(int(room)) in (99, 100, 101)
    assert found.largest(None) is None


def test_without_a_law_there_is_a_reason():
    assert "two are needed" in law({1: 5}).reason
    assert "does not grow" in law({1: 5, 2: 5, 4: 5}).reason
    assert law({1: 5, 2: None}).largest(10) is None


# --- when to stop -------------------------------------------------------------------------------


def test_on_a_card_it_goes_on_until_memory_ends():
    points = [point(1, peak=GIB), point(4, peak=4 * GIB)]
    assert stop(points, 8, Room(5 * GIB), 100.0) == ""


def test_the_hosts_memory_is_not_tried_out():
    points = [point(1, peak=GIB), point(4, peak=2 * GIB), point(8, peak=3 * GIB)]
    there = Room(None, True, 4 * GIB)
    assert stop(points[:2], 8, there, 100.0) == ""
    told = stop(points, 16, there, 100.0)
    assert told.startswith("batch 16 is not tried: this process would hold")
    assert "4 GiB of the host's memory" in told


def test_of_one_point_all_that_is_held_counts():
    assert stop([point(1, peak=GIB)], 4, Room(None, True, 5 * GIB), 100.0) == ""
    assert "not tried" in stop([point(1, peak=GIB)], 8, Room(None, True, 5 * GIB), 100.0)


def test_where_the_host_does_not_tell_nothing_more_is_tried():
    assert "not known" in stop([point(1)], 2, Room(None, True), 100.0)
    assert "not tried" in stop([point(1)], 2, Room(None, True, GIB), 100.0)


def test_time_ends_a_sweep_too():
    assert "would take more than" in stop([point(8, each=1.0)], 16, Room(None), 5.0)
    assert "beyond" in stop([point(65536)], 131072, Room(None), 1e9)


# --- the host's memory --------------------------------------------------------------------------


def host(tmp_path, **files):
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return HostMemory(tmp_path)


def test_what_is_left_is_the_hosts_or_the_containers(tmp_path):
    there = host(tmp_path, proc__meminfo="MemTotal: 9000 kB\nMemAvailable:   8000 kB\n")
    assert there.free() == 8000 * 1024
    folder = tmp_path / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text("4096000")
    (folder / "memory.current").write_text("4000000")
    assert there.free() == 96000
    (folder / "memory.stat").write_text("anon 5\ninactive_file 1000\n")
    assert there.free() == 97000
    (folder / "memory.max").write_text("max")
    assert there.free() == 8000 * 1024


def test_nothing_is_known_where_nobody_tells(tmp_path):
    there = HostMemory(tmp_path)
    assert (there.free(), there.held(), there.most(), there.reset()) == (None, None, None, False)


# --- what comes of it ---------------------------------------------------------------------------


def test_the_best_batch_is_the_smallest_close_to_the_fastest():
    points = (point(1, 0.01), point(4, 0.02), point(8, 0.0396), point(16, 0.08))
    found = Sweep(points, stopped="enough")
    assert found.best[0] == 4
    assert found.largest == 16
    assert found.sentence.startswith("best batch 4")
    assert found.as_json()["best_batch"] == 4
    assert found.verdict()


def test_a_larger_batch_that_is_slower_is_told():
    found = Sweep((point(4, 0.02), point(8, 0.08)))
    assert found.doubts == ("batch 8 gives 100 samples/s, less than batch 4 with 200",)


def test_a_batch_that_is_faster_than_the_chip_is_invalid_and_never_the_best():
    work = Work(10**9, 1e12, "float32", "a table")
    points = (point(4, 0.02), point(8, 8 * 1e-3 / 50), point(16, 0.08))
    assert Sweep(points, work=work).verdict().status is Status.INVALID
    assert "8 pictures would be 50 TFLOP/s" in repr(Sweep(points, work=work).verdict())
    assert Sweep(points, work=work).best == (4, pytest.approx(200.0))
    assert Sweep(points).verdict()
    assert Sweep((point(4, 0.02),), work=work).verdict()
    unsure = Work(10**9, 1e12, "hf32", "a table", ceiling=1e14)
    assert Sweep(points, work=unsure).verdict()
    assert "nobody confirmed" in Sweep(points, work=unsure).doubts[0]


def test_no_room_for_the_smallest_batch_is_one_sentence():
    found = Sweep((Point(1, out_of_memory="NPU out of memory"),), stopped="batch 1 does not fit")
    assert found.verdict().status is Status.FAIL
    assert found.verdict().sentences == ("no room for the smallest batch, 1: NPU out of memory",)
    assert all(figure.reason for figure in found.figures())
    assert found.as_json()["best_batch"] is None


# --- sweeping -----------------------------------------------------------------------------------


class Small(CpuBackend):
    """A device with room for so many rows, whose memory is its own."""

    shares_host_memory = False
    room = 20

    def is_out_of_memory(self, error):
        return "out of memory" in str(error)

    def reserved_memory(self, index):
        return 0

    def empty_cache(self, index):
        self.emptied = True


def network(backend, change=lambda size, output: output):
    import torch

    torch.manual_seed(0)
    linear = torch.nn.Linear(12, 5)

    class Network(torch.nn.Module):
        def forward(self, inputs):
            if len(inputs) > backend.room:
                raise RuntimeError("Tried to allocate: out of memory")
            return change(len(inputs), linear(inputs.flatten(1)))

    return Network().eval()


def images(count=8):
    import torch

    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(2))


def test_an_out_of_memory_is_a_result():
    device, blocks = Small().open(0), Blocks()
    slow = Work(1, 1.0, "float32", "a table")
    found = sweep(device, network(device.backend), images(), (1, 4), APART, blocks=blocks)
    fast = sweep(device, network(device.backend), images(), (1, 4), APART, work=slow)
    assert fast.verdict().status is Status.INVALID
    assert [each.batch_size for each in found.points] == [1, 4, 8, 16, 32]
    assert [each.name for each in blocks.done[-2:]] == ["sweep b8", "sweep b16"]
    assert blocks.done[-1].pictures == 16 * found.fitted[-1].calls * len(found.fitted[-1].seconds)
    assert found.points[-1].out_of_memory
    assert found.largest == 16
    assert "batch 32 does not fit: Tried to allocate" in found.sentence
    assert device.backend.emptied
    assert found.verdict(), found.verdict().sentences
    told = found.as_json()
    assert told["points"][-1]["out_of_memory"] is True
    assert told["points"][-1]["samples_per_second"] is None


def test_no_room_at_all():
    device = Small().open(0)
    device.backend.room = 0
    found = sweep(device, network(device.backend), images(), (1, 4), APART)
    assert len(found.points) == 1
    assert found.verdict().sentences[0].startswith("no room for the smallest batch, 1")


def test_rows_that_go_wrong_in_a_large_batch_fail():
    def change(size, output):
        if size == 16:
            output[11] *= 2
        return output

    device = Small().open(0)
    found = sweep(device, network(device.backend, change), images(), (1, 4), APART)
    assert [each.batch_size for each in found.points if each.wrong] == [16]
    assert found.best[0] != 16
    assert found.verdict().status is Status.FAIL
    assert found.verdict().sentences[0].startswith("batch 16: apart")


def test_a_device_that_does_not_recover_fails():
    backend = Small()
    state = {"full": False}

    def change(size, output):
        return output * (2.0 if state["full"] else 1.0)

    backend.empty_cache = lambda index: state.update(full=True)
    found = sweep(backend.open(0), network(backend, change), images(), (1, 4), APART)
    assert found.broken.startswith("after the out of memory: apart")
    assert found.verdict().status is Status.FAIL


def test_what_is_no_out_of_memory_is_raised():
    def change(size, output):
        raise RuntimeError("something else")

    device = Small().open(0)
    with pytest.raises(RuntimeError, match="something else"):
        sweep(device, network(device.backend, change), images(), (1,), APART)


def test_on_the_hosts_memory_it_ends_before_that_does(tmp_path):
    class Told(HostMemory):
        def __init__(self):
            super().__init__()
            self.asked = 0

        def free(self):
            return 2 * GIB

        def held(self):
            return GIB

        def most(self):
            self.asked += 1
            return GIB + self.asked * GIB // 2

        def reset(self):
            return True

    device = CpuBackend().open(0)
    backend = Small()
    backend.room = 10**6
    found = sweep(device, network(backend), images(), (1,), APART, host=Told())
    assert "is not tried: this process would hold" in found.stopped
    assert not any(each.out_of_memory for each in found.points)
    assert found.verdict()


# --- under the suite ----------------------------------------------------------------------------

SHORT = """
from fixtures.core import sweep
sweep.LONGEST_S, sweep.WARM_S, sweep.BLOCK_S = 20.0, 0.01, 0.01
"""


def short(suite, *arguments, **changes):
    (suite.root / "tests" / "conftest.py").write_text(SHORT, encoding="utf-8")
    return suite.run("tests/test_sweep.py", "--batch-sizes", "auto", *arguments, **changes)


def swept(outcome):
    (case,) = [case for case in outcome.report["cases"] if "test_sweep" in case["id"]]
    return case, case["records"].get("sweep")


@pytest.mark.slow
def test_a_sweep_on_the_cpu(suite):
    outcome = short(suite, *SMALL)
    case, found = swept(outcome)
    assert case["status"] == "PASS", outcome.out
    assert found["best_batch"] >= 1
    assert found["largest_batch"] >= 16
    assert "out_of_memory" in found["points"][0]


@pytest.mark.slow
def test_without_the_option_there_is_no_such_case(suite):
    outcome = suite.run("-m", "performance", "--collect-only", "-q", *SMALL)
    assert "test_sweep" not in outcome.out
    assert "test_sweep" in suite.run("--batch-sizes", "auto", "--collect-only", "-q", *SMALL).out


@pytest.mark.slow
@needs_cards
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "out_of_memory", "size": 20 << 20, "nth": "2-"},
        {"kind": "short_hbm", "total": 200 << 20},
    ],
    ids=lambda fault: fault["kind"],
)
def test_memory_ends_on_a_simulated_card(suite, fault):
    outcome = short(
        suite,
        *CARDS,
        "--simulate",
        "1",
        "--faults",
        json.dumps([fault]),
        PYTHONPATH=str(folder()),
    )
    case, found = swept(outcome)
    assert case["status"] == "PASS", (case["sentences"], outcome.out)
    assert found["points"][-1]["out_of_memory"]
    assert found["best_batch"]
    assert "does not fit" in found["sentence"]

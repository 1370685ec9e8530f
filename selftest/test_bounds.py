"""What limits the network: host or device is told apart, and nothing impossible passes."""

import dataclasses
import json
import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fixtures.core import operator_times, trace
from fixtures.core.backends import backend
from fixtures.core.backends.base import Kernel, ProfilerMissing
from fixtures.core.backends.npu import NpuBackend, read_kernels
from fixtures.core.bounds import Bounds, Cost, Timed, flop_by_table, flop_per_picture
from fixtures.core.networks import DEFAULT_NETWORK, NETWORKS
from fixtures.core.operator_times import OperatorTime, OperatorTimes, Work, slow, work
from fixtures.core.peaks import (
    BYTE_RATE,
    CONVOLUTION,
    COPY,
    FLOP_RATE,
    MATMUL,
    Peak,
    Peaks,
    Try,
    grow,
    measure,
)
from fixtures.core.records import MathMode, Status, plain
from fixtures.core.trace import Operand, Signature, contiguous
from selftest.conftest import QUICK, ROOT, SMALL
from selftest.simulated import CARDS, folder, needs_cards

SMALLEST = "test_convnext.r160_in1k"


def peak(name, rate, format="float32", paper=None, unit=FLOP_RATE):
    return Peak(name, format, unit, (Try(1, int(rate), (1.0,)),), paper, "a table")


def card(matmul=100e12, conv=50e12, bandwidth=1e12, paper=None):
    return Peaks(
        (
            peak(MATMUL, matmul, paper=paper),
            peak(CONVOLUTION, conv, "hf32", paper),
            peak(COPY, bandwidth, "", None, BYTE_RATE),
        )
    )


ASCEND = MathMode("hf32", "ieee", "tanh")
COST = Cost(40_100_000_000, 2_000_000_000, 352_889_856, 0.1)


def bounds(times, latency=None, cost=COST, peaks=None, **others):
    return Bounds(
        ASCEND,
        cost,
        peaks or card(),
        None if latency is None else Timed(1, (latency,)),
        tuple(Timed(size, (seconds,)) for size, seconds in times.items()),
        **others,
    )


# --- what a picture costs ----------------------------------------------------------------------


def test_operations_by_shapes_are_those_of_the_table():
    import timm
    import torch

    model = timm.create_model(SMALLEST).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = trace.find(SMALLEST).table
    assert flop_per_picture(model, (3, 160, 160)) == flop_by_table(table) == 62_457_600
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert flop_per_picture(model.half(), (3, 160, 160)) == 62_457_600


def test_a_network_that_looks_at_values_is_run():
    import torch

    class Chooses(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.once = torch.nn.Linear(4, 8, bias=False)

        def forward(self, x):
            return self.once(x) if float(x.sum()) == 0 else x

    assert flop_per_picture(Chooses(), (4,)) == 2 * 4 * 8


@pytest.mark.parametrize("name", NETWORKS)
def test_tables_cost_what_the_rows_say(name):
    row, table = NETWORKS[name], trace.find(name).table
    cost = Cost.of(table, row.parameters)
    assert cost.flops * 1e-9 == pytest.approx(row.gflop, rel=5e-3)
    assert cost.told
    assert 0 < cost.conv_share < 1 or row.conv_mlp
    assert cost.bytes > cost.weight_bytes == 4 * row.parameters
    assert cost.intensity(16) > cost.intensity(1)


def signature(op, flops=0, count=1, **arguments):
    values = tuple(
        (name, Operand(value, contiguous(value), "float32") if isinstance(value, tuple) else value)
        for name, value in arguments.items()
    )
    return Signature(op, values, count, flops)


def test_bytes_are_operands_and_results():
    product = signature("aten.addmm.default", 48, self=(4,), mat1=(2, 3), mat2=(3, 4))
    assert work(product) == Work(48, 4 * (4 + 6 + 12 + 8))
    assert work(signature("aten.gelu.default", self=(2, 5))) == Work(0, 4 * 20)
    assert work(signature("aten.t.default", self=(2, 5))) == Work(0, 0)
    spread = Operand((1000, 4), (0, 1), "float32")
    added = Signature("aten.add.Tensor", (("self", spread), ("other", spread)))
    assert work(added) == Work(0, 4 * (4 + 4 + 4000))


def test_an_unknown_result_is_told():
    unknown = signature("aten.nothing_of_this_name.default", 7, self=(2, 5))
    assert work(unknown) == Work(7, 40, told=False)
    cost = dataclasses.replace(COST, told=False)
    assert any("too few" in doubt for doubt in bounds({1: 0.1}, cost=cost).doubts)


# --- host or device ----------------------------------------------------------------------------


def test_the_documents_own_figures_are_host_bound():
    reference = json.loads((ROOT / "fixtures/references/ascend-910b4.json").read_text())
    times = {row["batch_size"]: 1e-3 * row["latency_ms"] for row in reference["throughput"]}
    assert times[1] == pytest.approx(0.05567)
    for taken in (times, {1: times[1], 16: times[16]}):
        found = bounds(taken)
        assert found.bound_by == "host"
        assert found.host_share == 1.0
        assert found.sentence.startswith("host-bound at batch 1: 100% of its 55.67 ms")
        assert "no profiler tells them apart" in found.sentence
    section = bounds(times, latency=1e-3 * reference["latency"]["mean_ms"]).as_json()
    assert section["bound_by"] == "host"
    assert section["line"]["beta_ms"] < 0.1
    assert section["points"][-1]["batch_size"] == 16


@given(st.floats(1e-4, 1), st.floats(0, 1))
def test_a_line_is_split_at_a_half(whole, share):
    times = {size: whole * (share + (1 - share) * size) for size in (1, 4, 8, 16)}
    found = bounds(times)
    assert found.host_share == pytest.approx(share, abs=1e-6)
    assume(abs(share - 0.6) > 1e-6 < abs(share - 0.4))
    wanted = "host" if share > 0.6 else "device" if share < 0.4 else "undecided"
    assert found.bound_by == wanted
    assert found.sentence.startswith(wanted)


def test_a_host_that_hides_a_larger_batch_is_found_at_batch_one():
    """Launching takes 6 ms, the device 0.5 ms and 1.5 ms a picture; they overlap."""
    found = bounds({b: max(0.006, 0.0005 + 0.0015 * b) for b in (1, 4, 8, 16)}, latency=0.0062)
    assert found.bound_by == "host"
    assert found.host_share == pytest.approx(1 - 1.5 / 6.2, abs=0.03)
    assert found.share_at(found.throughput[-1]) < 0.15
    assert found.off_latency > 0.15
    assert any("no line down to batch 1" in doubt for doubt in found.doubts)


def test_launching_alone_can_show_the_host():
    rows = tuple(dataclasses.replace(row, calls=10) for row in network())
    times = OperatorTimes(rows, launch_s=130e-6)
    assert times.launches == 280
    found = bounds({1: 0.0557, 16: 0.0515}, operators=times)
    assert found.launching_s == pytest.approx(0.0364)
    assert "launching its 280 operators takes at least 36.4 ms" in found.sentence
    assert "tells them apart" not in found.sentence
    unclear = {1: 0.050, 16: 0.050 * (0.5 + 0.5 * 16)}
    assert bounds(unclear).bound_by == "undecided"
    assert bounds(unclear, operators=times).bound_by == "host"
    busy = {1: 0.050, 16: 16 * 0.050}  # each picture takes all the time that the first did
    assert bounds(busy, operators=times).bound_by == "device"


def test_times_that_are_no_line_decide_nothing():
    noisy = bounds({1: 0.05, 4: 0.2, 8: 0.1, 16: 0.5}, latency=0.05)
    assert noisy.bound_by == "undecided"


@pytest.mark.parametrize(
    ("evidence", "bound_by", "by"),
    [
        ({"launch_s": 0.005}, "device", "launch"),  # returned early: the device had the rest
        ({"launch_s": 0.049}, "host", "line"),
        ({"busy_s": 0.045}, "device", "profiler"),
        ({"busy_s": 0.004, "launch_s": 0.048}, "host", "profiler"),
    ],
)
def test_the_least_of_the_bounds_counts(evidence, bound_by, by):
    found = bounds({1: 0.05, 16: 0.08}, latency=0.05, **evidence)
    assert found.bound_by == bound_by
    assert min(found.shares(), key=lambda share: share.most).by == by or bound_by == "host"
    assert "tells them apart" not in found.sentence


def test_what_was_not_measured_says_so():
    nothing = bounds({})
    assert nothing.host_share is None
    assert nothing.bound_by == "undecided"
    assert "no time at batch 1" in nothing.sentence
    alone = bounds({}, latency=0.05)
    assert "at least two batch sizes" in alone.sentence
    section = alone.as_json()
    assert section["line"] is None
    assert set(section["reasons"]) >= {"line", "host_share", "latency_check", "paper_mfu"}
    assert {f.name: f.reason for f in alone.figures() if f.value is None}.keys() >= {"host_share"}
    smoke = bounds({16: 0.08}, latency=0.05)  # latency is then part of the line
    assert smoke.line is not None
    assert smoke.off_latency is None
    unknown = bounds({1: 0.05, 4: 0.06}, cost=None, reasons={"flop_per_picture": "not traced"})
    assert unknown.bound_by == "host"
    assert unknown.as_json()["points"][0]["mfu"] is None
    assert unknown.as_json()["operators_reason"] == "not traced"
    json.dumps(plain(unknown.as_json()), allow_nan=False)


def test_out_of_memory_is_no_point():
    assert Timed.of({"batch_size": 512, "samples_ms": []}) is None
    assert Timed.of({"batch_size": 2, "samples_ms": [10, 12, 11]}).middle_s == pytest.approx(0.011)


# --- against the card --------------------------------------------------------------------------


def test_peaks_add_up_by_time():
    both = card().attainable("hf32", "ieee", 0.5)
    assert both == pytest.approx(1 / (0.5 / 50e12 + 0.5 / 100e12))
    assert card().attainable("hf32", "ieee", 0.0) == pytest.approx(100e12)
    assert card().attainable("float16", "float16", 0.5) is None
    only = Peaks((peak(MATMUL, 9e12, "float16"),))
    assert only.attainable("float16", "float16", 0.5) == pytest.approx(9e12)


def test_points_lie_under_the_roof():
    section = bounds({1: 0.05, 16: 0.06}).as_json()
    one, many = section["points"]
    assert one["flop_per_s"] == pytest.approx(40.1e9 / 0.05)
    assert one["mfu"] == pytest.approx(one["flop_per_s"] / section["attainable_flop_per_s"])
    assert one["intensity"] < many["intensity"]
    assert one["roof_flop_per_s"] == pytest.approx(1e12 * one["intensity"])
    assert 0 < one["roof_share"] < 1


def test_faster_than_the_chip_is_invalid():
    fast = bounds({1: 1e-4}, peaks=card(paper=60e12))
    assert fast.verdict().status is Status.INVALID
    assert "not real" in repr(fast.verdict())
    assert bounds({1: 1e-2}, peaks=card(paper=60e12)).verdict()
    assert any("did not reach" in doubt for doubt in bounds({1: 1e-4}).doubts)


def test_a_figure_that_nobody_confirmed_is_no_wall_for_the_network():
    row = dataclasses.replace(peak(MATMUL, 150e12, "hf32", 123e12), ceiling=246e12)

    def at(rate):
        found = bounds({1: COST.flops / rate}, peaks=Peaks((row,)))
        return dataclasses.replace(found, arithmetic=MathMode("hf32", "hf32"))

    assert at(160e12).verdict()
    assert any(doubt.endswith("a figure that nobody confirmed") for doubt in at(160e12).doubts)
    assert at(260e12).verdict().status is Status.INVALID
    assert not any("nobody confirmed" in doubt for doubt in at(100e12).doubts + at(260e12).doubts)


def test_convolutions_may_need_fewer_operations_than_are_counted():
    peaks = card(paper=60e12)
    cost = dataclasses.replace(COST, conv_share=0.9)

    def status(rate, saving):
        found = bounds({1: cost.flops / rate}, cost=cost, peaks=peaks, saving=saving)
        return found.verdict().status

    most = 60e12 / (0.9 / 4 + 0.1)
    assert status(most, 4.0) is Status.PASS
    assert status(1.1 * most, 4.0) is Status.INVALID
    assert status(70e12, 1.0) is Status.INVALID


def test_a_peak_above_the_paper_is_invalid():
    assert card(matmul=62e12, conv=61e12, paper=60e12).verdict()
    verdict = card(matmul=64e12, paper=60e12).verdict()
    assert verdict.status is Status.INVALID
    assert "matmul in float32" in repr(verdict)


def test_a_figure_that_nobody_confirmed_is_a_doubt_below_what_is_certain():
    above = dataclasses.replace(peak(CONVOLUTION, 150e12, "hf32", 123e12), ceiling=246e12)
    assert above.verdict()
    assert "nobody confirmed" in above.doubts[-1]
    beyond = dataclasses.replace(above, ceiling=140e12)
    assert beyond.verdict().status is Status.INVALID


def test_another_forward_than_the_rows_fails():
    assert bounds({1: 0.05}, stated_gflop=40.1).verdict()
    verdict = bounds({1: 0.05}, stated_gflop=20.0).verdict()
    assert verdict.status is Status.FAIL
    assert "40.1 GFLOP, must be 20" in repr(verdict)


def test_sizes_grow_until_nothing_is_gained(monkeypatch):
    cpu = backend("cpu").open(0)
    seconds = {1: 0.01, 2: 0.015, 4: 0.029, 8: 0.058}
    monkeypatch.setattr("fixtures.core.peaks.blocks", lambda device, run, left: (seconds[run],))
    tries = grow(cpu, seconds, lambda n: n, lambda n: n, 10.0)
    assert [each.size for each in tries] == [1, 2, 4]
    assert Peak(MATMUL, "float32", FLOP_RATE, tuple(tries)).steady
    short = grow(cpu, seconds, lambda n: n, lambda n: n, 0.05)
    assert [each.size for each in short] == [1]
    unsteady = Peaks((Peak(MATMUL, "float32", FLOP_RATE, tuple(short)),))
    assert "still gaining" in unsteady.doubts[0]


def test_memory_that_ends_ends_the_growth(monkeypatch):
    cpu = backend("cpu").open(0)

    def blocks(device, run, left):
        if run > 1:
            raise MemoryError
        return (0.01,)

    monkeypatch.setattr("fixtures.core.peaks.blocks", blocks)
    assert len(grow(cpu, (1, 2), lambda n: n, lambda n: n, 10.0)) == 1
    with pytest.raises(MemoryError):
        grow(cpu, (2,), lambda n: n, lambda n: n, 10.0)


def test_the_host_is_probed(monkeypatch):
    for name in ("SMALL_BUDGET_S", "BLOCK_S"):
        monkeypatch.setattr(f"fixtures.core.peaks.{name}", 0.01)
    monkeypatch.setattr("fixtures.core.peaks.SMALL_COPY_BYTES", 1 << 20)
    found = measure(backend("cpu").open(0))
    assert {(row.name, row.format) for row in found.rows} == {
        (MATMUL, "float32"),
        (CONVOLUTION, "float32"),
        (MATMUL, "float16"),
        (MATMUL, "bfloat16"),
        (COPY, ""),
    }
    assert all(row.measured and row.measured > 0 for row in found.rows), found
    assert found.verdict()
    json.dumps(found.as_json(), allow_nan=False)


def test_a_probe_that_fails_says_why(monkeypatch):
    def convolution(*arguments):
        raise RuntimeError("no such convolution\nat all")

    for name in ("SMALL_BUDGET_S", "BLOCK_S"):
        monkeypatch.setattr(f"fixtures.core.peaks.{name}", 0.01)
    monkeypatch.setattr("fixtures.core.peaks.SMALL_COPY_BYTES", 1 << 20)
    monkeypatch.setattr("fixtures.core.peaks.convolution", convolution)
    row = measure(backend("cpu").open(0)).row(CONVOLUTION, "float32")
    assert row.measured is None
    assert row.figure().reason == "no such convolution"


# --- slow operators ----------------------------------------------------------------------------


def timed(name, size, seconds, flops=0, empty=1e-5, kind="", other=None):
    taken = (seconds + empty, (seconds if other is None else other) + empty)
    done = Work(flops * size, size)
    return OperatorTime(f"aten::{name}", f"{name}-{size}", kind or name, 1, done, taken, empty)


def network(noise=1.0, seed=0, **factors):
    """Times as the bytes and operations have it, each off by up to a factor."""
    chance = random.Random(seed)
    rows = []
    for name in ("gelu", "add", "mul", "native_layer_norm"):
        for size in (1 << 18, 1 << 19, 1 << 20, 1 << 21):
            off = noise ** chance.uniform(-1, 1)
            rows.append(timed(name, size, factors.get(name, 1) * off * (5e-6 + size / 1e10)))
    for number in range(12):
        size = 1 << (16 + number // 2)
        off = noise ** chance.uniform(-1, 1) * factors.get(f"addmm-{number}", 1)
        row = timed("addmm", size + number, off * size / 1e9, 100)
        rows.append(row)
    return rows


def least(done):
    return max(done.flops / 1e12, done.bytes / 1e11)


@pytest.mark.parametrize("seed", range(20))
def test_sound_operators_are_not_named(seed):
    assert slow(network(1.5, seed), least) == ()


@pytest.mark.parametrize("seed", range(5))
def test_an_operator_that_is_slow_everywhere_is_named(seed):
    (told,) = slow(network(1.3, seed, gelu=8), least)
    assert told.startswith("aten::gelu is slow: over its 4 signatures it takes")


@pytest.mark.parametrize("seed", range(5))
def test_one_slow_signature_is_named_among_its_own(seed):
    (told,) = slow(network(1.2, seed, **{"addmm-5": 8}), least)
    assert told.startswith(f"aten::addmm is slow at addmm-{(1 << 18) + 5}: it takes")


def test_where_it_cannot_be_told_nothing_is_named():
    rows = network(gelu=8)
    few = [row for row in rows if row.kind in ("gelu", "add")]
    assert slow(few, least) == ()
    assert slow(rows, lambda done: None) == ()
    disturbed = [dataclasses.replace(row, seconds=(1.0, 9.0)) for row in rows]
    assert slow(disturbed, least) == ()
    products = [dataclasses.replace(row, kind="x", work=Work(9, 9)) for row in rows[:4]]
    assert slow([*products, *rows[4:]], least) == ()


def test_an_operator_below_the_launch_is_no_finding():
    rows = [dataclasses.replace(row, empty_s=10.0) for row in network(gelu=8)]
    assert all(row.own_s == 0 for row in rows)
    assert slow(rows, least) == ()


def test_slow_operators_are_doubts_and_rows():
    rows = tuple(network(gelu=8))
    times = OperatorTimes(rows, {"odd": "not there"}, (), "profiler missing: none")
    found = bounds({1: 0.05, 4: 0.06}, operators=times)
    assert any(doubt.startswith("aten::gelu is slow") for doubt in found.doubts)
    section = found.as_json()
    shares = [row["share"] for row in section["operators"]]
    assert shares == sorted(shares, reverse=True)
    assert math.fsum(shares) == pytest.approx(1)
    assert {"name", "site", "calls", "ms", "flop_per_s", "bytes_per_s"} <= set(
        section["operators"][0]
    )
    assert section["operators_reason"].startswith("profiler missing: none; each signature")
    assert "odd: not there" in section["operators_reason"]


# --- measuring operators -----------------------------------------------------------------------


def small_table(*more):
    table = trace.find(SMALLEST).table
    kept = [row for row in table.signatures["inference"] if row.name in ("gelu", "addmm", "t")]
    return dataclasses.replace(table, signatures={"inference": (*kept, *more)})


def test_each_signature_is_timed_and_what_is_lacking_told():
    lacking = signature("aten.nothing_of_this_name.default", 7, self=(2, 5))
    times = operator_times.timed(backend("cpu").open(0), small_table(lacking))
    assert {row.name for row in times.rows} == {"aten::gelu", "aten::addmm"}
    assert all(len(row.seconds) >= 6 and row.own_s >= 0 for row in times.rows)
    assert times.total_s > 0
    assert list(times.untimed) == ["nothing_of_this_name-inference-2x5"]


def test_groups_are_another_kind():
    kinds = {
        operator_times.kind_of(row)
        for row in trace.find(DEFAULT_NETWORK).table.signatures["inference"]
    }
    assert {"convolution", "convolution by groups", "addmm"} <= kinds


def test_the_profiler_of_the_host_tells_its_operators(tmp_path):
    import torch

    model = torch.nn.Linear(64, 64)
    times = operator_times.profiled(
        OperatorTimes(()), backend("cpu").open(0), model, torch.ones(8, 64), tmp_path
    )
    assert times.reason == ""
    assert "aten::addmm" in {kernel.name for kernel in times.kernels}
    assert times.device_s > 0


def test_a_missing_profiler_is_one_sentence(tmp_path, monkeypatch):
    import torch

    device = backend("cpu").open(0)

    def kernels(index, run, folder):
        raise ProfilerMissing("there is none")

    monkeypatch.setattr(device.backend, "kernels", kernels)
    times = operator_times.profiled(
        OperatorTimes(()), device, torch.nn.Linear(4, 4), torch.ones(1, 4), tmp_path
    )
    assert times.kernels == ()
    assert times.reason == "profiler missing: there is none"
    assert {f.name: f.reason for f in times.figures() if f.value is None} == {
        "device_busy_ms": "profiler missing: there is none"
    }


KERNELS = """Device_id,Name,Type,Accelerator Core,Start Time(us),Duration(us),Wait Time(us)
0,aclnnMm_1,MatMulV2,AI_CORE,1.0,30.5,0.0
0,aclnnGelu_1,Gelu,AI_VECTOR_CORE,40.0,4.0,0.0
0,aclnnMm_2,MatMulV2,AI_CORE,50.0,29.5,0.0
0,broken,Gelu,AI_VECTOR_CORE,60.0,N/A,0.0
"""


def test_a_table_of_kernels_is_added_up():
    assert read_kernels(KERNELS) == (
        Kernel("MatMulV2", 2, pytest.approx(60e-6)),
        Kernel("Gelu", 1, pytest.approx(4e-6)),
    )
    assert read_kernels("") == read_kernels("nothing,here\n1,2\n") == ()


@pytest.mark.parametrize("text", [KERNELS, None])
def test_an_npus_profiler_is_read_where_it_writes(text, tmp_path, monkeypatch):
    import sys
    import types
    from pathlib import Path

    class Profile:
        def __init__(self, activities, on_trace_ready):
            self.folder = on_trace_ready

        def __enter__(self):
            return self

        def __exit__(self, *error):
            if text is not None:
                out = Path(self.folder) / "host_1_ascend_pt" / "ASCEND_PROFILER_OUTPUT"
                out.mkdir(parents=True)
                (out / "kernel_details.csv").write_text(text)

    profiler = types.SimpleNamespace(
        ProfilerActivity=types.SimpleNamespace(CPU="CPU", NPU="NPU"),
        profile=Profile,
        tensorboard_trace_handler=lambda name: name,
    )
    monkeypatch.setitem(sys.modules, "torch_npu.profiler", profiler)
    npu = NpuBackend()
    monkeypatch.setattr(npu, "synchronize", lambda index: None)
    if text is None:
        with pytest.raises(ProfilerMissing, match="no table of kernels"):
            npu.kernels(0, list, tmp_path)
    else:
        assert [kernel.name for kernel in npu.kernels(0, list, tmp_path)] == ["MatMulV2", "Gelu"]
    assert list(tmp_path.iterdir()) == []


# --- under the suite ---------------------------------------------------------------------------

FILES = ("tests/test_latency.py", "tests/test_throughput.py", "tests/test_bounds.py")


def quick(suite):
    """Fewer samples: nobody looks at the times."""
    (suite.root / "tests" / "conftest.py").write_text(QUICK)
    return suite


@pytest.mark.slow
def test_a_run_on_the_host(suite):
    outcome = quick(suite).run(*SMALL, "--batch-sizes", "1,4", *FILES)
    case = outcome.case("test_bounds.py::test_bounds")
    assert case["status"] == "PASS", outcome.out
    record = case["records"]["bounds"]
    assert [point["batch_size"] for point in record["points"]] == [1, 4]
    assert record["flop_per_picture"] == 62_457_600
    assert record["bound_by"] in ("host", "device", "undecided")
    assert record["latency_check"]["measured_ms"] > 0
    assert len(record["operators"]) == 36
    assert all(point["mfu"] > 0 for point in record["points"])
    assert record["kernels"]


@pytest.mark.slow
@needs_cards
def test_alone_it_says_what_is_missing_and_times_operators(suite):
    faults = json.dumps([{"kind": "slow_operator", "operator": "aclnnGelu", "factor": 8}])
    outcome = quick(suite).run(
        *CARDS,
        *("--simulate", "1", "--faults", faults, "tests/test_bounds.py"),
        PYTHONPATH=str(folder()),
        COVERAGE_PROCESS_CONFIG=None,
    )
    case = outcome.case("test_bounds.py::test_bounds")
    assert case["status"] == "NOT RUN", outcome.out
    assert "no time at batch 1 was taken in this process that can be true" in case["reason"]
    assert case["required"] is False
    rows = case["records"]["bounds"]["operators"]
    spent = {row["name"]: 0.0 for row in rows}
    for row in rows:
        spent[row["name"]] += row["ms"]
    # Whether it is named as well hangs on a quiet machine; that it takes the time does not.
    least = ("aten::add", "aten::mul", "aten::native_layer_norm")
    assert all(spent["aten::gelu"] > spent[name] for name in least), spent


@pytest.mark.slow
@needs_cards
def test_a_host_that_is_slow_to_launch_is_the_limit(suite):
    faults = json.dumps([{"kind": "launch_overhead", "seconds": 0.002}])
    arguments = ("--simulate", "1", "--batch-sizes", "1,4", "--faults", faults, *FILES)
    outcome = quick(suite).run(
        *CARDS, *arguments, PYTHONPATH=str(folder()), COVERAGE_PROCESS_CONFIG=None
    )
    record = outcome.case("test_bounds.py::test_bounds")["records"]["bounds"]
    assert record["bound_by"] == "host", outcome.out
    assert record["host_share"] > 0.6
    assert record["launching_ms"] > 2 * 70  # operators that compute, each launched
    assert record["operators_reason"].startswith(
        "profiler missing: simulated cards have no profiler"
    )

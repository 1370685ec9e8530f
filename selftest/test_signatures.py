"""The network's own signatures: tables that are true, healthy devices that pass, faults that do
not."""

import dataclasses
import json
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from fixtures.core import signatures, trace
from fixtures.core.aten import problem as problems
from fixtures.core.aten.rules import DEFAULT, RULES, problem, rule
from fixtures.core.backends import backend
from fixtures.core.backends.base import Backend, Device
from fixtures.core.networks import DEFAULT_NETWORK, NETWORKS
from fixtures.core.operators import ERROR_IN_BOUNDS, with_fallback
from fixtures.core.records import MathMode, Status
from fixtures.core.trace import Named, Operand, Signature
from selftest.simulated import CARDS, folder, needs_cards

TINY, ATTO = "test_convnext.r160_in1k", "convnext_atto.d2_in1k"
RESNET, VIT = "resnet50.a1_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
CPU = backend("cpu").open(0)


class Declaring(Backend):
    """The CPU under another name for its arithmetic, with a switch for strict IEEE float32."""

    name = "cpu"
    is_accelerator = False

    def __init__(self, mode, strict=None):
        self.now, self.strict_mode, self.entered = mode, strict or mode, 0

    def device_string(self, index):
        return "cpu"

    def synchronize(self, index):
        pass

    def math_mode(self, index=0):
        return self.now

    @contextmanager
    def strict(self, index):
        before, self.now = self.now, self.strict_mode
        self.entered += 1
        yield
        self.now = before


def declaring(mode, strict=None):
    """A CPU that declares this arithmetic."""
    return Device(Declaring(mode, strict), 0)


def table_of(model):
    """A shipped table."""
    found = trace.find(model).table
    assert found is not None
    return found


def cases_of(model, dtypes=("float32",)):
    """Its cases by id."""
    return {case.id: case for case in signatures.cases(table_of(model), dtypes)}


def judged(coverage):
    """Status of a coverage, after checking that its parts agree with each other."""
    passed = coverage.status == "supported"
    assert bool(coverage.verdict()) == passed
    figures = {figure.name: figure for figure in coverage.figures()}
    assert figures["flops_share"].value == coverage.flops_share
    assert bool(ERROR_IN_BOUNDS.judge(figures["error_in_bounds"])) or not passed
    json.dumps(coverage.as_json())
    if not passed:
        assert coverage.reason in repr(coverage.verdict())
        assert coverage.id in repr(coverage.verdict())
    return coverage.status


# --- the tables ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", trace.SHIPPED)
def test_a_shipped_table_is_what_torch_dispatches(name):
    found = trace.find(name)
    if found.notices:
        pytest.skip("; ".join(found.notices))

    made = trace.to_text(trace.trace(name))

    assert made == trace.shipped(name).read_text(encoding="utf-8"), (
        "python -m fixtures.core.trace --write"
    )


def test_fake_tensors_dispatch_what_real_ones_do():
    _, timm = trace.versions()
    made = trace.trace(TINY)
    signatures_, classes = trace._both(trace._create(TINY, None))

    assert timm
    assert (made.how, made.num_classes) == ("fake tensors", classes)
    for mode, found in signatures_.items():
        assert set(found) == set(made.signatures[mode]), mode


def test_the_default_network_has_78_signatures_of_11_operators():
    table = table_of(DEFAULT_NETWORK)
    inference = table.signatures["inference"]

    assert len(inference) == 78
    assert len({signature.op for signature in inference}) == 11
    assert all(op.startswith("aten.") for op in {signature.op for signature in inference})


@pytest.mark.parametrize("name", NETWORKS)
def test_the_flops_are_those_of_the_networks_row(name):
    table = table_of(name)
    shares = [table.share("inference", each) for each in table.signatures["inference"]]

    assert table.flops("inference") * 1e-9 == pytest.approx(NETWORKS[name].gflop, rel=5e-3)
    assert sum(shares) == pytest.approx(1)
    # a backward needs twice the products of a forward, less the gradient of the pictures
    forwards = table.flops("training") / table.flops("inference") / trace.BATCH["training"]
    assert 2.9 < forwards <= 3


def test_no_kernel_that_only_the_cpu_has_is_in_a_table():
    for name in trace.SHIPPED:
        for found in table_of(name).signatures.values():
            assert not [each.op for each in found if "cpu" in each.op or "mkldnn" in each.op]


def test_no_operator_of_a_shipped_network_is_without_a_rule():
    for name in trace.SHIPPED:
        for found in table_of(name).signatures.values():
            assert [each.op for each in found if rule(each) is DEFAULT] == []


def test_names_of_rules_are_unique():
    names = [name for row in RULES for name in row.names]

    assert len(set(names)) == len(names)


def test_cases_need_no_torch():
    code = (
        "import sys\n"
        "from fixtures.core import signatures, trace\n"
        f"table = trace.find({DEFAULT_NETWORK!r}).table\n"
        "assert len(signatures.cases(table, ('float32', 'bfloat16'))) > 300\n"
        "assert not {'torch', 'numpy', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=trace.ROOT, check=True)


@pytest.mark.parametrize("name", trace.SHIPPED)
def test_ids_are_plain_unique_and_begin_with_the_operator(name):
    cases = signatures.cases(table_of(name), ("float32", "float16", "bfloat16"))
    ids = [case.id for case in cases]

    assert len(set(ids)) == len(ids)
    for case in cases:
        assert re.fullmatch(r"[a-z0-9._-]+", case.id)
        assert case.id.startswith(case.signature.name.lower())
        assert case.mode in case.id
        assert case.dtype == "float32" or (case.dtype in case.id and case.mode == "inference")


def test_a_table_is_read_as_it_was_written():
    odd = Signature(
        "aten.odd.default",
        (
            ("self", Operand((2, 1, 3), (1, 6, 2), "float32")),
            ("tensors", (Operand((), (), "int64"), None)),
            ("dtype", Named("dtype", "bfloat16")),
            ("value", float("-inf")),
            ("flag", True),
            ("mode", "bilinear"),
        ),
        3,
        7,
    )
    table = trace.Table("x", 2, "1", "2", "fake tensors", {"inference": (odd,), "training": ()})

    assert trace.from_text(trace.to_text(table)) == table


def test_strides_of_axes_of_size_one_do_not_count():
    assert trace.laid_out((1, 4, 1, 2), (7, 2, 9, 1)) == (8, 2, 8, 1)
    assert trace.laid_out((1, 1), (5, 3)) == (1, 1)
    assert trace.contiguous((2, 1, 3)) == (3, 6, 1)
    assert Operand((2, 3), (1, 2), "float32").extent == 6
    assert Operand((2, 3), (0, 1), "float32").extent == 3
    assert Operand((2, 0), (1, 1), "float32").extent == 0


# --- tables that are not there ---------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "accelerator-qualification" / "signatures"


@pytest.fixture
def child(monkeypatch):
    """A child that gives the tiny network's table for any other; the calls it got."""
    calls = []

    def trace_it(model, num_classes):
        calls.append((model, num_classes))
        torch_version, timm_version = trace.versions()
        return trace.to_text(
            dataclasses.replace(
                table_of(TINY),
                model=model,
                num_classes=num_classes or 1000,
                torch=torch_version,
                timm=timm_version,
            )
        )

    monkeypatch.setattr(trace, "_child", trace_it)
    return calls


def test_another_network_is_traced_once_and_cached(cache, child):
    assert trace.find("other_net", 10) == trace.Found(None)

    first = trace.obtain("other_net", 10)
    again = trace.obtain("other_net", 10)

    assert first.table == again.table == trace.find("other_net", 10).table
    assert child == [("other_net", 10)]
    assert not [path for path in cache.iterdir() if path.suffix != ".json"]
    trace.obtain("other_net", 11)
    assert len(child) == 2


def test_a_shipped_network_with_another_head_is_traced(cache, child):
    assert trace.obtain(TINY, 1000).table == table_of(TINY)
    assert child == []

    trace.obtain(TINY, 12)

    assert child == [(TINY, 12)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"count": 1', '"count": 2', 1),
        lambda text: text.replace('"format": 1', '"format": 0'),
        lambda text: "[]",
        lambda text: '{"inference": [], "training": []}',
    ],
)
def test_a_corrupt_cache_is_traced_again_with_a_notice(cache, child, damage):
    trace.obtain("other_net")
    (path,) = cache.iterdir()
    path.write_text(damage(path.read_text()))

    found = trace.obtain("other_net")

    assert len(child) == 2
    assert found.table is not None
    assert re.search(f"{path.name} is not used: .*; it is traced again", found.notices[0])
    assert trace.obtain("other_net").notices == ()


def test_another_version_has_a_cache_of_its_own(cache, child, monkeypatch):
    trace.obtain("other_net")
    monkeypatch.setattr(trace, "versions", lambda: ("99.0", "1.0"))
    trace.obtain("other_net")

    assert len(child) == 2


def test_a_shipped_table_of_other_versions_serves_until_there_is_one_of_these(
    cache, child, monkeypatch
):
    monkeypatch.setattr(trace, "versions", lambda: ("99.0", "1.0"))
    found = trace.find(TINY)
    assert not found.current
    assert "torch 99.0 and timm 1.0 may dispatch others" in found.notices[0]

    own = trace.obtain(TINY)
    assert own.current
    assert own.notices == ()
    assert trace.find(TINY) == own

    def fails(*model):
        raise trace.TraceError("out of memory")

    monkeypatch.setattr(trace, "versions", lambda: ("99.1", "1.0"))
    monkeypatch.setattr(trace, "_child", fails)
    again = trace.obtain(TINY)
    assert again.table == table_of(TINY)
    assert "may dispatch others" in again.notices[0]
    assert again.notices[1] == "out of memory"


def test_the_table_of_another_network_is_not_taken(cache, child):
    trace.obtain("other_net", 10)
    (path,) = cache.iterdir()
    path.rename(trace.cached("third_net", 10))

    found = trace.obtain("third_net", 10)

    assert child == [("other_net", 10), ("third_net", 10)]
    assert "is not used: it is of other_net with 10 outputs" in found.notices[0]
    assert found.table.model == "third_net"


def test_a_cache_that_cannot_be_written_is_no_failure(cache, child):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")

    found = trace.obtain("other_net")

    assert found.table is not None
    assert "cannot be cached" in found.notices[-1]


def test_a_child_that_fails_says_why(cache):
    with pytest.raises(trace.TraceError, match=r"no_such_net cannot be traced: .*no such network"):
        trace.obtain("no_such_net")


def test_a_child_without_a_table_is_refused(cache, monkeypatch):
    monkeypatch.setattr(trace, "_child", lambda *model: "Killed")
    with pytest.raises(trace.TraceError, match="gave no table"):
        trace.obtain("other_net")


# --- operands --------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_thin_rows_hold_every_element_once_in_a_while(half):
    x = problems.thin(torch.ones(2, 40, 6, 5), 1, (0, 2, 3), half)
    kept = (x != 0).sum(dim=1)
    thin = kept < 40

    assert int(thin.sum()) == 30
    assert set(kept[thin].tolist()) == {8}
    rows = x.permute(0, 2, 3, 1).reshape(60, 40)
    assert bool((rows[thin.flatten()] != 0).any(dim=0).all())
    if half:
        assert bool(thin[0].all())
    else:
        assert bool(thin.flatten()[1::2].all())


def test_few_thin_rows_hold_more_each():
    x = problems.thin(torch.ones(4, 1000), 1, (0,))

    assert (x != 0).sum(dim=1).tolist() == [1000, 500, 1000, 500]
    assert bool((x[1] + x[3] == 1).all())


def test_operands_lie_in_memory_as_the_network_has_them():
    for case in cases_of(VIT).values():
        given = problem(case.signature)
        for name, wanted in case.signature.arguments:
            if isinstance(wanted, Operand):
                tensor = given.arguments[name]
                assert tuple(tensor.shape) == wanted.shape
                assert trace.laid_out(tensor.shape, tensor.stride()) == wanted.stride
                assert str(tensor.dtype) == f"torch.{wanted.dtype}"


def test_operands_are_the_same_every_time_and_torchs_generator_is_left_alone():
    state = torch.get_rng_state()
    for case in list(cases_of(TINY).values())[:40]:
        one, again = problem(case.signature), problem(case.signature)
        for name, value in one.arguments.items():
            if isinstance(value, torch.Tensor) and case.computes:
                assert torch.equal(value, again.arguments[name])

    assert torch.equal(torch.get_rng_state(), state)


def test_shifted_sums_are_torchs_own_convolution():
    given = problem(cases_of(TINY)["convolution-training-2x48x10x10-48x1x7x7"].signature)
    arguments = {**given.arguments, "stride": [2, 1], "padding": [3, 2]}
    given = dataclasses.replace(given, arguments=arguments)
    from fixtures.core.aten import products

    assert products._depthwise(given)
    assert torch.allclose(products._shifted_sum(given), given.doubled(), rtol=1e-12, atol=1e-12)

    back = cases_of(TINY)["convolution_backward-training-2x48x10x10-2x48x10x10"]
    given = problem(back.signature)
    for mine, theirs in zip(products._depthwise_gradients(given), given.doubled(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-12)


# --- healthy devices -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "formats", "step"),
    [
        (TINY, ("float32", "float16", "bfloat16"), 1),
        (ATTO, ("float32",), 3),
        (VIT, ("float32", "bfloat16"), 1),
        (RESNET, ("float32",), 7),
    ],
)
def test_the_cpu_is_within_its_bounds(model, formats, step):
    worst = {}
    for case in list(cases_of(model, formats).values())[::step]:
        coverage = signatures.run(case, CPU)
        assert judged(coverage) == "supported", coverage.verdict()
        kind = case.signature.name, case.dtype
        worst[kind] = max(worst.get(kind, 0.0), coverage.error_in_bounds)
    for (name, dtype), error in worst.items():
        print(f"{model}: {name} {dtype}: at most {error:.3f} of the bound")
    # one rounding where two are allowed is half; a product of two terms can do no better
    assert max(error for (name, _), error in worst.items() if name != "mm") < 0.55
    assert max(worst.values()) < 0.7


# --- faults ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Broken(signatures.SignatureCase):
    """A case on a device that does something else."""

    run: object = None

    @property
    def rule(self):
        return dataclasses.replace(super().rule, run=self.run)


def broken(case, before=lambda there: there, after=lambda results: results):
    """The case with arguments changed before, or results after; a result that is changed in place
    may be a view of an operand."""
    honest = case.rule.run

    def run(given, op, there):
        results = honest(given, op, before(dict(there)))
        return after([None if r is None else r.clone() for r in results])

    fields = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    return Broken(**fields, run=run)


def scaled(output, axis, factor, channel=1):
    """One channel off by a factor."""

    def change(results):
        size = results[output].shape[axis]
        results[output].select(axis, channel % size).mul_(factor)
        return results

    return change


FP32, BF16 = 1 + 2**-6, 1 + 2**-4
"""The smallest fault that must be caught."""

CHANNELS = [
    # model, case, output, axes whose single channels must show
    (TINY, "convolution-inference-1x3x160x160-24x3x4x4", 0, (1,)),
    (TINY, "convolution-inference-1x64x5x5-64x1x7x7", 0, (1,)),
    (TINY, "convolution-inference-1x48x10x10-64x48x2x2", 0, (1,)),
    (TINY, "addmm-inference-100x48-48x192", 0, (0, 1)),
    (TINY, "addmm-inference-1x64-64x1000", 0, (1,)),
    (TINY, "native_layer_norm-inference-1x10x10x48", 0, (3,)),
    (TINY, "gelu-inference-1x5x5x256", 0, (3,)),
    (TINY, "mul-tensor-inference-1x64x5x5-1x64x1x1", 0, (1,)),
    (TINY, "add-tensor-inference-1x64x5x5-1x64x5x5", 0, (1,)),
    (TINY, "mean-dim-inference-1x64x5x5", 0, (1,)),
    (TINY, "convolution_backward-training-2x48x10x10-2x48x10x10", 0, (1,)),
    (TINY, "convolution_backward-training-2x48x10x10-2x48x10x10", 1, (0,)),
    (TINY, "convolution_backward-training-2x48x10x10-2x48x10x10", 2, (0,)),
    (TINY, "convolution_backward-training-2x64x5x5-2x48x10x10", 0, (1,)),
    (TINY, "convolution_backward-training-2x64x5x5-2x48x10x10", 1, (0, 1)),
    (TINY, "convolution_backward-training-2x64x5x5-2x48x10x10", 2, (0,)),
    (TINY, "mm-training-48x200-200x192", 0, (0, 1)),
    (TINY, "sum-dim_intlist-training-200x192", 0, (1,)),
    (TINY, "native_layer_norm_backward-training-2x10x10x48-2x10x10x48", 0, (3,)),
    (TINY, "native_layer_norm_backward-training-2x10x10x48-2x10x10x48", 1, (0,)),
    (TINY, "native_layer_norm_backward-training-2x10x10x48-2x10x10x48", 2, (0,)),
    (TINY, "gelu_backward-training-2x5x5x256-2x5x5x256", 0, (3,)),
    (TINY, "_log_softmax-training-2x1000", 0, (1,)),
    (TINY, "_log_softmax_backward_data-training-2x1000-2x1000", 0, (1,)),
    (VIT, "scaled_dot_product_attention-inference-1x3x197x64-1x3x197x64", 0, (1, 3)),
    (VIT, "scaled_dot_product_attention_backward-training-2x3x197x64-2x3x197x64", 0, (1, 3)),
    (VIT, "scaled_dot_product_attention_backward-training-2x3x197x64-2x3x197x64", 1, (1, 3)),
    (VIT, "scaled_dot_product_attention_backward-training-2x3x197x64-2x3x197x64", 2, (1, 3)),
    (RESNET, "convolution-inference-1x512x7x7-512x512x3x3", 0, (1,)),
    (RESNET, "native_batch_norm-inference-1x512x7x7", 0, (1,)),
    (RESNET, "native_batch_norm-training-2x512x7x7", 0, (1,)),
    (RESNET, "native_batch_norm-training-2x512x7x7", 3, (0,)),
    (RESNET, "native_batch_norm-training-2x512x7x7", 4, (0,)),
    (RESNET, "native_batch_norm_backward-training-2x512x7x7-2x512x7x7", 0, (1,)),
    (RESNET, "native_batch_norm_backward-training-2x512x7x7-2x512x7x7", 1, (0,)),
    (RESNET, "max_pool2d_with_indices-inference-1x64x112x112", 0, (1,)),
    (RESNET, "max_pool2d_with_indices_backward-training-2x64x56x56-2x64x112x112", 0, (1,)),
    (RESNET, "threshold_backward-training-2x2048x7x7-2x2048x7x7", 0, (1,)),
    (RESNET, "relu_-inference-1x2048x7x7", 0, (1,)),
]


@pytest.mark.parametrize(
    ("model", "name", "output", "axes"), CHANNELS, ids=[f"{c[1]}-{c[2]}" for c in CHANNELS]
)
def test_one_channel_off_by_a_64th_is_seen(model, name, output, axes):
    case = cases_of(model)[name]
    # as the default of an Ascend card: convolutions in HF32, products of matrices in float32
    device = declaring(MathMode(conv="hf32", matmul="ieee", gelu="erf"))
    given = problem(case.signature)

    assert judged(signatures.observe(case, given, device)) == "supported"
    for axis in axes:
        for channel in (0, 3, -2):
            fault = broken(case, after=scaled(output, axis, FP32, channel))
            coverage = signatures.observe(fault, given, device)
            assert judged(coverage) == "wrong", (axis, channel)
            assert coverage.error_in_bounds > 1


HALF_CHANNELS = [row for row in CHANNELS if "inference" in row[1] and row[0] == TINY]


@pytest.mark.parametrize(
    ("model", "name", "output", "axes"), HALF_CHANNELS, ids=[row[1] for row in HALF_CHANNELS]
)
def test_one_channel_off_by_a_16th_is_seen_in_bfloat16(model, name, output, axes):
    case = cases_of(model, ("bfloat16",))[f"{name}-bfloat16"]
    given = problem(case.signature, "bfloat16")

    assert judged(signatures.observe(case, given, CPU)) == "supported"
    for axis in axes:
        fault = broken(case, after=scaled(output, axis, BF16))
        assert judged(signatures.observe(fault, given, CPU)) == "wrong"


def misread(name):
    """The strides of an operand are ignored: its memory is read in order."""

    def change(there):
        tensor = there[name]
        flat = tensor.as_strided((tensor.untyped_storage().nbytes() // 4,), (1,), 0)
        there[name] = flat[: tensor.numel()].reshape(tensor.shape)
        return there

    return change


def changed(**others):
    """Other arguments."""
    return lambda there: {**there, **others}


def stripe(results):
    """Rows 1 and 2 are taken from one row further."""
    results[0][..., 1:3, :] = results[0][..., 2:4, :].clone()
    return results


def to_bfloat16(results):
    """Rounded where nothing may be."""
    return [results[0].bfloat16().float()]


FAULTS = {
    "eps": (
        "native_layer_norm-inference-1x10x10x48",
        {"before": changed(eps=1e-4)},
        "output 0",
    ),
    "flat rows give NaN": (
        "native_layer_norm-inference-1x10x10x48",
        {"after": lambda r: [r[0].where(r[0] != r[0][0, 0, 5], torch.nan), *r[1:]]},
        "not finite",
    ),
    "strides of the input": (
        "convolution-inference-1x48x10x10-48x1x7x7",
        {"before": misread("input")},
        "times the bound",
    ),
    "strides of a factor": (
        "addmm-inference-100x48-48x192",
        {"before": misread("mat2")},
        "times the bound",
    ),
    "padding shifted": (
        "convolution-inference-1x48x10x10-48x1x7x7",
        {"after": lambda r: [r[0].roll(1, dims=2)]},
        "times the bound",
    ),
    "stripe": (
        "convolution-inference-1x3x160x160-24x3x4x4",
        {"after": stripe},
        "times the bound",
    ),
    "bias missing": (
        "convolution-inference-1x3x160x160-24x3x4x4",
        {"before": changed(bias=None)},
        "times the bound",
    ),
    "one input channel": (
        "addmm-inference-100x192-192x48",
        {"before": lambda t: {**t, "mat1": t["mat1"].index_fill(1, torch.tensor([77]), 0.0)}},
        "times the bound",
    ),
    "GELU in another form": (
        "gelu-inference-1x5x5x256",
        {"before": changed(approximate="none")},
        "all are within the bound of gelu erf",
    ),
    "a view in another order": (
        "permute-inference-1x48x10x10",
        {"after": lambda r: [r[0].transpose(1, 2)]},
        "have other bits",
    ),
    "a view of another shape": (
        "permute-inference-1x48x10x10",
        {"after": lambda r: [r[0][:, 1:]]},
        "has the shape",
    ),
    "a copy that rounds": (
        "clone-training-2x5x5x64",
        {"after": to_bfloat16},
        "have other bits",
    ),
    "another format": (
        "clone-training-2x5x5x64",
        {"after": lambda r: [r[0].double()]},
        "is torch.float64, not torch.float32",
    ),
    "no output": (
        "addmm-inference-100x48-48x192",
        {"after": lambda r: [None]},
        "the output is missing",
    ),
    "whole numbers": (
        "add-tensor-inference-1x64x5x5-1x64x5x5",
        {"after": lambda r: [r[0].int()]},
        "is torch.int32, not torch.float64",
    ),
    "infinity": (
        "add-tensor-inference-1x64x5x5-1x64x5x5",
        {"after": lambda r: [r[0].clone().index_fill_(1, torch.tensor([3]), torch.inf)]},
        "25 of 1600 elements are not finite",
    ),
    "the mean of a row less": (
        "mean-dim-inference-1x64x5x5",
        {"before": lambda t: {**t, "self": t["self"].clone().index_fill_(2, torch.tensor([4]), 0)}},
        "times the bound",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_and_told(name):
    case_id, how, words = FAULTS[name]
    case = cases_of(TINY)[case_id]
    given = problem(case.signature)

    assert judged(signatures.observe(case, given, CPU)) == "supported"
    coverage = signatures.observe(broken(case, **how), given, CPU)

    assert judged(coverage) == "wrong"
    assert words in coverage.reason


MORE = {
    "batch norm's eps": (
        RESNET,
        "native_batch_norm-inference-1x512x7x7",
        {"before": changed(eps=1e-6)},
    ),
    "batch norm's momentum": (
        RESNET,
        "native_batch_norm-training-2x512x7x7",
        {"before": changed(momentum=0.11)},
    ),
    "batch norm's mode": (
        RESNET,
        "native_batch_norm-training-2x512x7x7",
        {"before": changed(training=False)},
    ),
    "pooling without padding": (
        RESNET,
        "max_pool2d_with_indices-inference-1x64x112x112",
        {"after": lambda r: [r[0].roll(1, dims=3), *r[1:]]},
    ),
    "attention's scale": (
        VIT,
        "scaled_dot_product_attention-inference-1x3x197x64-1x3x197x64",
        {"before": changed(scale=0.126)},
    ),
    "attention without its last key": (
        VIT,
        "scaled_dot_product_attention-inference-1x3x197x64-1x3x197x64",
        {
            "before": lambda t: {
                **t,
                "key": t["key"][..., :-1, :],
                "value": t["value"][..., :-1, :],
            }
        },
    ),
    "a gradient without its mean": (
        TINY,
        "native_layer_norm_backward-training-2x10x10x48-2x10x10x48",
        {"after": lambda r: [r[0] + r[0].mean(dim=-1, keepdim=True) + 1e-3, *r[1:]]},
    ),
    "a target next to the right one": (
        TINY,
        "nll_loss_forward-training-2x1000",
        {"before": lambda t: {**t, "target": t["target"] + 1}},
    ),
}


@pytest.mark.parametrize("name", MORE)
def test_other_operators_faults_are_caught(name):
    model, case_id, how = MORE[name]
    case = cases_of(model)[case_id]
    given = problem(case.signature)

    assert judged(signatures.observe(case, given, CPU)) == "supported"
    assert judged(signatures.observe(broken(case, **how), given, CPU)) == "wrong"


# --- which arithmetic ------------------------------------------------------------------------


def test_the_declared_arithmetic_decides():
    case = cases_of(TINY)["addmm-inference-100x192-192x48"]
    given = problem(case.signature)
    from fixtures.core.rounding import rounded

    def cube(there):
        return {**there, **{n: rounded(there[n], "hf32") for n in ("mat1", "mat2")}}

    hf32 = broken(case, before=cube)
    strict = signatures.observe(hf32, given, CPU)

    assert strict.status == "wrong"
    assert strict.reason.endswith("; all are within the bound of matmul hf32")
    assert signatures.observe(hf32, given, declaring(MathMode(matmul="hf32"))).status == "supported"


def test_a_convolution_in_hf32_is_run_in_strict_float32_too():
    case = cases_of(TINY)["convolution-inference-1x48x10x10-48x1x7x7"]
    given = problem(case.signature)
    device = declaring(MathMode(conv="hf32"), MathMode())

    default = signatures.observe(case, given, device)
    both = signatures.observe(case, given, device, ("default", "ieee"))

    assert (default.arithmetic, both.arithmetic) == ("hf32", "ieee")
    assert default.error_in_bounds < both.error_in_bounds < 1
    fault = broken(case, after=scaled(0, 1, 1 + 2**-13))
    assert signatures.observe(fault, given, device).status == "supported"
    assert signatures.observe(fault, given, device, ("default", "ieee")).status == "wrong"


def test_a_switch_that_changes_nothing_costs_no_second_run():
    case = cases_of(TINY)["addmm-inference-100x48-48x192"]
    runs = []
    counting = broken(case, before=lambda there: runs.append(1) or there)

    signatures.observe(counting, problem(case.signature), CPU, ("default", "ieee"))

    assert len(runs) == 1


def test_tanh_gelu_is_judged_as_declared():
    case = cases_of(VIT)["gelu-inference-1x197x768"]
    given = problem(case.signature)
    tanh = broken(case, before=changed(approximate="tanh"))

    assert signatures.observe(case, given, declaring(MathMode(gelu="tanh"))).status == "wrong"
    assert signatures.observe(tanh, given, declaring(MathMode(gelu="tanh"))).status == "supported"
    assert "gelu tanh" in signatures.observe(tanh, given, CPU).reason


# --- operators without a rule ----------------------------------------------------------------


def lone(op, **arguments):
    """A case of one operator."""
    signature = Signature(op, tuple(arguments.items()), 1, 0)
    table = trace.Table("x", 1, "", "", "fake tensors", {"inference": (signature,), "training": ()})
    return signatures.cases(table)[0]


ROW = Operand((6, 50), (50, 1), "float32")


def test_an_unknown_operator_is_measured_by_the_host():
    case = lone("aten.softplus.default", self=ROW)
    given = problem(case.signature)

    assert case.rule is DEFAULT
    assert "no rule" in case.claim
    assert judged(signatures.observe(case, given, CPU)) == "supported"
    off = broken(case, after=scaled(0, 1, 1 + 2**-14))
    assert judged(signatures.observe(off, given, CPU)) == "wrong"


def test_an_unknown_operators_whole_numbers_must_be_equal():
    case = lone("aten.argsort.default", self=ROW)
    given = problem(case.signature)

    assert judged(signatures.observe(case, given, CPU)) == "supported"
    off = broken(case, after=lambda results: [results[0] + 1])
    assert judged(signatures.observe(off, given, CPU)) == "wrong"


@pytest.mark.parametrize("op", ["aten.linalg_cholesky.default", "aten.no_such_operator.default"])
def test_what_the_host_cannot_compute_is_not_asked_of_a_device(op):
    case = lone(op, self=ROW)
    with pytest.raises(problems.NoReference, match=r"the host cannot compute it|has no aten"):
        signatures.run(case, CPU)


def test_drawn_numbers_are_as_frequent_as_asked_for():
    case = lone("aten.bernoulli_.float", self=ROW, p=0.75)
    given = problem(case.signature)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert judged(signatures.observe(case, given, CPU)) == "supported"
        rarer = broken(case, before=changed(p=0.5))
        coverage = signatures.observe(rarer, given, CPU)
    assert judged(coverage) == "wrong"
    assert "elements are 1 at probability 0.75" in coverage.reason
    twos = broken(case, after=lambda results: [results[0] * 2])
    assert "neither 0 nor 1" in signatures.observe(twos, given, CPU).reason


# --- devices that lack an operator -----------------------------------------------------------


def raising(error):
    """A device that raises."""

    def change(there):
        raise error

    return change


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("Could not run 'aten::addmm' with arguments from the 'X' backend"),
        RuntimeError("addmm is not currently supported on this device"),
    ],
)
def test_an_operator_that_is_not_there_is_unsupported(error):
    case = broken(cases_of(TINY)["addmm-inference-100x48-48x192"], before=raising(error))
    coverage = signatures.run(case, CPU)

    assert judged(coverage) == "unsupported"
    assert coverage.error_in_bounds is None


def test_every_other_error_goes_on_its_way():
    case = broken(
        cases_of(TINY)["addmm-inference-100x48-48x192"], before=raising(RuntimeError("lost"))
    )
    with pytest.raises(RuntimeError, match="lost"):
        signatures.run(case, CPU)


@pytest.mark.parametrize(
    ("case_id", "heard"),
    [
        ("convolution-inference-1x3x160x160-24x3x4x4", "aten::thnn_conv2d"),
        ("addmm-inference-100x48-48x192", "aten::addmm.out"),
        ("gelu-inference-1x5x5x256", "aten::npu_gelu"),
    ],
)
def test_a_fallback_that_was_announced_is_one(case_id, heard):
    coverage = signatures.run(cases_of(TINY)[case_id], CPU)

    assert with_fallback(coverage, ["aten::nms"]) == coverage
    fallback = with_fallback(coverage, [heard])
    assert judged(fallback) == "fallback"
    assert heard in fallback.reason


# --- the whole network -----------------------------------------------------------------------


def test_the_summary_adds_up_shares_and_names_what_is_not_covered():
    table, listed = table_of(TINY), list(cases_of(TINY).values())
    good = signatures.run(cases_of(TINY)["addmm-inference-100x48-48x192"], CPU)
    seen = {case.id: dataclasses.replace(good, id=case.id) for case in listed}

    whole = signatures.summary(table, listed, seen)
    assert whole.verdict()
    inference = whole.parts[0]
    assert inference.counts["supported"] == inference.compute < inference.signatures == 78
    assert inference.shares["supported"] == 1
    assert sum(row["flops_share"] for row in inference.operators) == pytest.approx(1)
    figures = {figure.name: figure.value for figure in whole.figures()}
    assert figures["inference_float32_covered_flops_share"] == 1
    json.dumps(whole.as_json())

    name = "addmm-inference-100x48-48x192"
    share = cases_of(TINY)[name].share
    seen[name] = dataclasses.replace(good, id=name, status="fallback", reason="x")
    seen["gelu-inference-1x5x5x256"] = None
    seen["view-inference-64"] = None  # of a view its own case tells
    partly = signatures.summary(table, listed, seen)
    assert partly.verdict().status is Status.FAIL
    told = repr(partly.verdict())
    assert told.startswith(f"2 compute signatures of {TINY} are not covered: ")
    assert f"{name} ({share:.3g} of the FLOPs of inference) is fallback" in told
    assert "gelu-inference-1x5x5x256 (0 of the FLOPs of inference) came to no result" in told
    assert partly.parts[0].shares["fallback"] == pytest.approx(share)
    assert partly.parts[0].counts["not measured"] == 1


def test_a_table_that_is_not_the_networks_is_a_gap():
    import timm

    table = table_of(TINY)
    network = timm.create_model(TINY, num_classes=table.num_classes).eval()
    assert trace.unknown(table, network) == ()
    other = timm.create_model(TINY, num_classes=12).eval()
    strange = trace.unknown(table, other)
    assert [each.op for each in strange] == ["aten.t.default", "aten.addmm.default"]

    whole = signatures.summary(table, [], {}, unknown=strange)
    assert whole.gap == (
        "the table of signatures is not this network's: it dispatches aten.t.default, "
        "aten.addmm.default as the table does not have it"
    )


def test_a_part_of_the_run_is_not_the_network():
    table, listed = table_of(TINY), list(cases_of(TINY).values())
    part = signatures.summary(table, listed, {}, ("a notice",))

    assert part.verdict()  # nothing bad was seen …
    assert part.missing == sum(case.computes for case in listed)  # … but nothing was looked at
    assert part.doubts == ("a notice",)
    assert part.parts[0].shares["not measured"] == 1


# --- under the suite -------------------------------------------------------------------------

FILE = "tests/test_signatures.py"
OTHER = ("--model", "test_vit", "--weights", "synthetic", "--device", "cpu")


@pytest.mark.slow
def test_a_network_without_a_table_shows_one_item_and_is_traced_when_run(suite, tmp_path):
    cache = tmp_path / "cache"
    changes = {"XDG_CACHE_HOME": str(cache)}

    shown = suite.run(*OTHER, FILE, "--collect-only", "-q", **changes)
    assert f"{FILE}::test_signature[traced-when-run]" in shown.out
    smoke = suite.run(*OTHER, FILE, "-m", "smoke", **changes)
    assert "2 deselected" in smoke.out
    assert not list(cache.rglob("signatures/*"))  # nothing was traced for nothing

    outcome = suite.run(*OTHER, FILE, "-k", "addmm or covered", **changes)
    assert len(list(cache.rglob("signatures/*.json"))) == 1
    measured = [case for case in outcome.report["cases"] if "addmm" in case["id"]]
    assert len(measured) > 3
    assert {case["status"] for case in measured} == {"PASS"}
    assert outcome.case("network_is_covered")["status"] == "NOT RUN"
    rows = [row for row in outcome.report["operators"] if row["family"] == "aten::addmm"]
    assert len(rows) == len(measured)
    assert all(0 < row["flops_share"] < 1 for row in rows)


@pytest.mark.slow
@needs_cards
def test_a_wrong_operator_of_a_card_is_named(suite):
    plan = [{"kind": "scaled_channel", "operator": "aclnnAddmm", "channel": 5, "factor": FP32}]
    outcome = suite.run(
        *CARDS,
        *("--simulate", "1", FILE, "-k", "(100x48 or covered or permute)"),
        *("--faults", json.dumps(plan)),
        PYTHONPATH=str(folder()),
        COVERAGE_PROCESS_CONFIG=None,
    )
    bad = {case["id"] for case in outcome.report["cases"] if case["status"] == "FAIL"}

    assert bad == {
        f"{FILE}::test_signature[addmm-inference-100x48-48x192]",
        f"{FILE}::test_network_is_covered",
    }, outcome.out
    assert "aten::addmm (addmm-inference-100x48-48x192) on npu:0" in outcome.out

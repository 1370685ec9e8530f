"""What a call may be off by: every family lets float32 and half results pass, and nothing wrong."""

import math
import re

import pytest
import torch
from torch.nn import functional as F

from fixtures.core import allowance
from fixtures.core.allowance import Call, allowances, family_of, floats, in_place, judge, name_of
from fixtures.core.emulation import float64_mode
from fixtures.core.records import MathMode

IEEE = MathMode()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, W, B = normal(2, 8, 12, 12), normal(16, 8, 3, 3, seed=1), normal(16, seed=2)
D = normal(8, 1, 3, 3, seed=3)
V = normal(2, 5, 24, seed=4)
HEADS = tuple(normal(2, 3, 7, 8, seed=n) for n in range(3))
STATE = (normal(8).abs(), normal(8, seed=5).abs() + 0.5, normal(8, seed=6), normal(8, seed=7))

CALLS = {
    "convolution": (F.conv2d, (X, W, B, 2, 1), {}),
    "convolution-without-bias": (F.conv2d, (X, W), {}),
    "depthwise": (F.conv2d, (X, D, None, 1, 1, 1, 8), {}),
    "few-terms": (F.linear, (X[..., :2], normal(4, 2)), {}),
    "linear": (F.linear, (V, normal(6, 24), normal(6)), {}),
    "matmul": (torch.matmul, (V, V.transpose(1, 2)), {}),
    "layer-norm": (F.layer_norm, (V, (24,), normal(24), normal(24, seed=9), 1e-6), {}),
    "layer-norm-without-weight": (F.layer_norm, (X, (12, 12)), {}),
    "batch-norm": (F.batch_norm, (X, *STATE, False), {}),
    "batch-norm-without-weight": (F.batch_norm, (X, *STATE[:2]), {}),
    "batch-norm-of-the-batch": (F.batch_norm, (X, None, None, None, None, True), {}),
    "gelu": (F.gelu, (4 * X,), {}),
    "mean": (torch.mean, (X, (2, 3)), {}),
    "average-pooling": (F.adaptive_avg_pool2d, (X, 1), {}),
    "addition": (torch.add, (X, normal(8, 1, 1)), {}),
    "scaled-addition": (torch.add, (X, X.flip(0)), {"alpha": 0.3}),
    "division": (torch.div, (X, X.flip(0)), {}),
    "softmax": (torch.softmax, (V, -1), {}),
    "silu": (F.silu, (X,), {}),
    "norm": (torch.norm, (X,), {"dim": (1, 2), "keepdim": True}),
    "attention": (F.scaled_dot_product_attention, HEADS, {}),
    "constant": (F.silu, (torch.zeros(3, 4),), {}),
    "relu": (F.relu, (X,), {}),
    "permutation": (torch.permute, (X, (0, 2, 3, 1)), {}),
    "splitting": (torch.chunk, (X, 2, 1), {}),
    "nothing": (F.relu, (torch.zeros(0, 3),), {}),
}


def judged(function, args, kwargs, change=lambda result: result, dtype="float32", arithmetic=IEEE):
    """Judge the CPU's own result, after a change, of operands in that format."""
    form = getattr(torch, dtype)
    narrow = allowance.replaced(args, lambda value: value.to(form))
    got = floats(function(*narrow, **kwargs))
    wide = allowance.replaced(narrow, lambda value: value.double())
    call = Call(name_of(function), function, wide, kwargs, dtype, arithmetic)
    with float64_mode(arithmetic.gelu):
        allowed = allowances(call)
    return [judge(change(one), other) for one, other in zip(got, allowed, strict=True)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", CALLS)
def test_the_host_is_right(name, dtype):
    """torch's own kernels keep every bound, in float32 and in both halves."""
    for found in judged(*CALLS[name], dtype=dtype):
        assert found.share <= 0.5, found


@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 2.0**-6), ("bfloat16", 2.0**-4), ("float16", 2.0**-6)]
)
@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("constant", "nothing")])
def test_one_slice_off_is_found(name, dtype, size):
    """A slice of the result is off by 2^-6 in float32 and float16, by 2^-4 in bfloat16."""

    def off(result):
        result = result.clone()
        result[..., -1] *= 1 + size
        return result

    for found in judged(*CALLS[name], off, dtype):
        assert found.share > 1
        assert "must be" in found.words


def test_a_shortcut_is_allowed_where_it_is_declared():
    """The factors of a format that is declared may be rounded; else the bound stays."""
    from fixtures.core.emulation import Emulation
    from fixtures.core.regimes import REGIMES

    def rounded(form):
        with Emulation(MathMode(form, form), REGIMES["default"], truncate=True):
            return F.conv2d(X, W, B)

    for form in ("hf32", "tf32"):
        got = rounded(form)
        for declared, right in ((form, True), ("ieee", False)):
            call = Call("conv2d", F.conv2d, (X.double(), W.double(), B.double()), {}, "float32",
                        MathMode(declared))  # fmt: skip
            assert (judge(got, allowances(call)[0]).share <= 1) == right


def test_the_declared_form_of_gelu_is_held_to():
    for declared, share in (("tanh", 1), ("erf", math.inf)):
        (found,) = judged(
            F.gelu, (X,), {}, lambda _: F.gelu(X, approximate="tanh"),
            arithmetic=MathMode(gelu=declared),
        )  # fmt: skip
        assert 0 < found.share <= share
    assert found.share > 10


def test_a_cast_rounds_once():
    wide = X.double()
    for dtype, error in (("float32", 0.0), ("bfloat16", 2.0**-9)):
        call = Call("to", lambda value: value, (wide,), {}, dtype, IEEE)
        (allowed,) = allowances(call)
        assert judge(X.to(getattr(torch, dtype)), allowed).share <= 1
        assert judge(X * (1 + 4 * error + 1e-6), allowed).share > 1


def test_what_is_moved_is_right_to_the_bit():
    def one_bit(result):
        result = result.contiguous()
        result.view(torch.int32).view(-1)[3] ^= 1
        return result

    (found,) = judged(torch.permute, (X, (0, 2, 3, 1)), {}, one_bit)

    assert found.share == math.inf
    assert re.fullmatch(r"local error \S+, must be <= 0", found.words)


def test_a_single_element_is_named():
    """One element beyond its own bound, where no slice is."""

    def one(result):
        result = result.clone()
        result[1, 2, 3] += 2e-4
        return result

    (found,) = judged(F.linear, (normal(2, 400, 24), normal(400, 24)), {}, one)

    assert found.share > 1
    assert found.error <= found.limit
    assert found.words.startswith("element (1, 2, 3) is ")


def test_an_infinity_that_is_right():
    """Where the result leaves the format's range; elsewhere, or instead of NaN, it is wrong."""
    large = torch.full((2, 3), 300.0)

    for found in judged(torch.mul, (large, large), {}, dtype="float16"):
        assert found.share <= 1
    for change in (torch.neg, lambda result: result * math.nan):
        (found,) = judged(torch.mul, (large, large), {}, change, dtype="float16")
        assert found.words == "6 of 6 elements are not finite"


def test_names():
    assert name_of(torch.Tensor.add_) == name_of(torch.Tensor.__iadd__) == "add"
    assert name_of(torch.Tensor.__truediv__) == "div"
    assert name_of(torch.Tensor.T.__get__) == "T"
    assert family_of(name_of(F._max_pool2d)).id == "exact"
    assert family_of("no_such_function") is allowance.OTHER
    assert name_of(object()).startswith("<object")
    names = [name for family in allowance.FAMILIES for name in family.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "writes"),
    [
        (torch.Tensor.add_, (X, X), {}, True),
        (torch.Tensor.__iadd__, (X, X), {}, True),
        (torch.Tensor.__setitem__, (X, 0, X), {}, True),
        (F.relu, (X,), {"inplace": True}, True),
        (F.relu, (X, True), {}, True),
        (torch.add, (X, X), {"out": X}, True),
        (torch.add, (X, X), {}, False),
        (torch.Tensor.__add__, (X, X), {}, False),
        (F.relu, (X,), {"inplace": False}, False),
    ],
)
def test_what_may_be_overwritten(function, args, kwargs, writes):
    assert in_place(function, args, kwargs) == writes

"""What simulated cards compute: every aclnn function against torch in float64, in every layout."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.core import operators
from fixtures.core.backends import backend
from fixtures.core.backends.simulated_cann import compute, table
from fixtures.core.backends.simulated_cann.compute import Card
from fixtures.core.backends.simulated_cann.plan import Variation
from fixtures.core.backends.simulated_cann.table import TABLE, parse, written
from fixtures.core.networks import NETWORKS
from fixtures.core.records import MathMode

aten = torch.ops.aten

HEALTHY = Card()
DIFFERENT = Card(0, Variation(summation=True, hf32="truncate", fma=True, ulp=2, seed=7))
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCES = {
    # relative and absolute: a half result is rounded once, the sums before it are float32
    torch.float32: (2e-6, 1e-5),
    torch.float16: (2.0**-10, 1e-5),
    torch.bfloat16: (2.0**-7, 1e-5),
}

_chance = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=_chance, dtype=torch.float64)


def coarse(x: Tensor) -> Tensor:
    """Numbers near those given that every format can hold."""
    return x.bfloat16().half().double()


def whole(most: int, *shape: int) -> Tensor:
    """Whole numbers below most."""
    return torch.randint(0, most, shape, generator=_chance)


def call(name: str, *args: Any, card: Card = HEALTHY) -> None:
    """Compute one row."""
    getattr(compute, TABLE[name].compute)(card, *args)


# --- the cases --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A row with its arguments, outputs left out, and what must come out of them in float64.

    Floating-point tensors are drawn in float64 and given in each format; the reference gets them
    as they were given, widened. `single` are the outputs that are float32 in any case; `tied`
    arguments follow from each other, so that none of them can be expanded.
    """

    row: str
    args: tuple[Any, ...]
    reference: Callable[..., Any]
    single: tuple[int, ...] = ()
    tied: bool = False


def gradients(function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Autograd's gradients of a function with respect to its tensors."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    found = torch.autograd.grad(function(*leaves), leaves, grad)
    return list(found)


X, Y, Z = normal(3, 4, 5), normal(3, 4, 5), normal(3, 4, 5)
ROW = normal(5)
POSITIVE = X.abs() + 0.1
UNIT = torch.tanh(X) * 0.9
WHOLE = whole(90, 3, 4, 5) + 1
FLAGS = X > 0
PLANES = normal(2, 4, 9, 8)
NAMES = whole(4, 6)
LOGITS = torch.log_softmax(normal(6, 4), 1)


def _arithmetic() -> Iterator[Case]:
    for name, function in (("Add", torch.add), ("Sub", torch.sub)):
        for args in ((X, Y, 1), (X, ROW, 0.5), (X, Y, -2)):
            for row in (f"aclnn{name}", f"aclnnInplace{name}"):
                yield Case(row, args, lambda x, y, a, f=function: f(x, y, alpha=a))
        yield Case(f"aclnn{name}s", (X, 1.5, 2), lambda x, y, a, f=function: f(x, y, alpha=a))
        yield Case(f"aclnnInplace{name}s", (X, 1.5, 2), lambda x, y, a, f=function: f(x, y * a))
    yield Case("aclnnAdd", (WHOLE, WHOLE, 3), lambda x, y, a: x + 3 * y)
    yield Case("aclnnAddV3", (2.5, X, 0.5), lambda x, y, a: x + a * y)
    yield Case("aclnnRsub", (X, Y, 2.0), lambda x, y, a: y - a * x)
    yield Case("aclnnRsubs", (X, 1.5, 2.0), lambda x, y, a: y - a * x)
    yield Case("aclnnDivs", (WHOLE, 4.0), lambda x, y: (x / y).float())
    pairs: dict[str, tuple[Any, Any, Any]] = {
        "Mul": (torch.mul, X, Y),
        "Div": (torch.div, X, Y.abs() + 1),
    }
    for name, (function, x, y) in pairs.items():
        for row in (f"aclnn{name}", f"aclnnInplace{name}"):
            yield Case(row, (x, y), function)
            yield Case(row, (x, y[0]), function)
        for row in (f"aclnn{name}s", f"aclnnInplace{name}s"):
            yield Case(row, (x, 1.5), function)
    for mode, rounding in enumerate((None, "trunc", "floor")):
        for row, y in (("DivMod", Y), ("InplaceDivMod", Y), ("DivMods", 0.7)):
            reference = lambda x, y, m, r=rounding: torch.div(x, y, rounding_mode=r)  # noqa: E731
            yield Case(f"aclnn{row}", (4.1 * X, y, mode), reference)
        yield Case(
            "aclnnInplaceDivMods",
            (4.1 * X, 0.7, mode | 0x7FF00000000),  # an int: the upper half of its word is anything
            lambda x, y, m, r=rounding: torch.div(x, y, rounding_mode=r),
        )
    yield Case("aclnnFloorDivide", (4.1 * X, Y), torch.floor_divide)
    yield Case("aclnnFloorDivides", (WHOLE, 7), torch.floor_divide)
    yield Case("aclnnRemainderTensorTensor", (WHOLE, WHOLE.flip(0)), torch.remainder)
    yield Case("aclnnRemainderTensorScalar", (WHOLE, -7), torch.remainder)
    yield Case("aclnnFmodTensor", (-WHOLE, WHOLE.flip(0)), torch.fmod)
    yield Case("aclnnFmodScalar", (-WHOLE, 7), torch.fmod)
    for row in ("aclnnPowTensorScalar", "aclnnInplacePowTensorScalar"):
        yield Case(row, (POSITIVE, 1.5), torch.pow)
    for row in ("aclnnPowTensorTensor", "aclnnInplacePowTensorTensor"):
        yield Case(row, (POSITIVE, Y), torch.pow)
    yield Case("aclnnPowScalarTensor", (2.0, X), torch.pow)
    yield Case("aclnnMaximum", (X, Y), torch.maximum)
    yield Case("aclnnMinimum", (X, Y), torch.minimum)
    yield Case("aclnnAtan2", (X, Y), torch.atan2)
    for name, function in (("Addcmul", torch.addcmul), ("Addcdiv", torch.addcdiv)):
        for row in (f"aclnn{name}", f"aclnnInplace{name}"):
            yield Case(
                row, (X, Y, POSITIVE, 0.3), lambda x, a, b, v, f=function: f(x, a, b, value=v)
            )
    for row in ("aclnnLerp", "aclnnInplaceLerp"):
        yield Case(row, (X, Y, POSITIVE), torch.lerp)
    for row in ("aclnnLerps", "aclnnInplaceLerps"):
        yield Case(row, (X, Y, 0.3), torch.lerp)
    yield Case("aclnnClamp", (X, -0.5, 0.5), torch.clamp)
    yield Case("aclnnClamp", (X, None, 0.5), torch.clamp)
    yield Case("aclnnClampTensor", (X, Y, Z), torch.clamp)
    for bound in ("Min", "Max"):
        function = getattr(torch, f"clamp_{bound.lower()}")
        for row in (f"Clamp{bound}Tensor", f"InplaceClamp{bound}Tensor"):
            yield Case(f"aclnn{row}", (X, Y), function)
        yield Case(f"aclnnClamp{bound}", (X, 0.2), function)
    yield Case("aclnnInplaceClampMax", (X, 0.2), torch.clamp_max)


def _single() -> Iterator[Case]:
    anywhere = "Abs Neg Sign Exp Expm1 Sin Cos Erf Floor Ceil Round Trunc Sigmoid Tanh Relu".split()
    positive = "Log Log1p Log2 Sqrt Rsqrt Reciprocal".split()
    layers = "Silu Hardswish Hardsigmoid".split()
    for name in (*anywhere, *positive, *layers, "Erfinv"):
        function = getattr(F if name in layers else torch, name.lower())
        x = POSITIVE if name in positive else UNIT if name == "Erfinv" else 3 * X
        yield Case(f"aclnn{name}", (x,), function)
        if f"aclnnInplace{name}" in TABLE:
            yield Case(f"aclnnInplace{name}", (x,), function)
    extreme = X.clone()
    extreme[0, 0, :4] = torch.tensor([math.inf, -math.inf, math.nan, 0.0])
    for name in ("IsFinite", "IsPosInf", "IsNegInf"):
        yield Case(f"aclnn{name}", (extreme,), getattr(torch, name.lower()))
    for row in ("aclnnLogicalNot", "aclnnInplaceLogicalNot"):
        yield Case(row, (FLAGS,), torch.logical_not)
    yield Case("aclnnBitwiseNot", (WHOLE,), torch.bitwise_not)
    yield Case("aclnnGelu", (3 * X,), lambda x: F.gelu(x, approximate="tanh"))
    yield Case("aclnnGeluV2", (3 * X, 0), lambda x, form: F.gelu(x))
    yield Case("aclnnGeluV2", (3 * X, 1), lambda x, form: F.gelu(x, approximate="tanh"))
    yield Case("aclnnSoftmax", (3 * X, 1), torch.softmax)
    yield Case("aclnnLogSoftmax", (3 * X, -1), torch.log_softmax)
    for row in ("aclnnHardtanh", "aclnnInplaceHardtanh"):
        yield Case(row, (X, 0, 0.6), F.hardtanh)
    for row in ("aclnnLeakyRelu", "aclnnInplaceLeakyRelu"):
        yield Case(row, (X, 0.1), F.leaky_relu)


def _activations_backward() -> Iterator[Case]:
    def of_input(row: str, function: Callable[[Tensor], Tensor], *rest: Any) -> Case:
        return Case(row, (Y, 3 * X, *rest), lambda g, x, *_: gradients(function, g, x)[0])

    yield of_input("aclnnGeluBackward", lambda x: F.gelu(x, approximate="tanh"))
    yield of_input("aclnnGeluBackwardV2", lambda x: F.gelu(x, approximate="tanh"), "tanh")
    yield of_input("aclnnGeluBackwardV2", F.gelu, "none")
    yield of_input("aclnnThresholdBackward", torch.relu, 0)
    yield of_input("aclnnSiluBackward", F.silu)
    yield of_input("aclnnHardswishBackward", F.hardswish)
    yield of_input("aclnnHardsigmoidBackward", F.hardsigmoid)
    yield of_input("aclnnHardtanhBackward", F.relu6, 0, 6)
    yield of_input("aclnnLeakyReluBackward", lambda x: F.leaky_relu(x, 0.1), 0.1, False)
    yield Case("aclnnSigmoidBackward", (Y, torch.sigmoid(X)), lambda g, y: g * y * (1 - y))
    yield Case("aclnnTanhBackward", (Y, torch.tanh(X)), lambda g, y: g * (1 - y * y))
    soft, log = torch.softmax(X, 1), torch.log_softmax(X, 1)
    yield Case(
        "aclnnSoftmaxBackward", (Y, soft, 1), lambda g, y, dim: y * (g - (g * y).sum(dim, True))
    )
    yield Case(
        "aclnnLogSoftmaxBackward",
        (Y, log, 1),
        lambda g, y, dim: g - torch.exp(y) * g.sum(dim, True),
    )


def _logic() -> Iterator[Case]:
    near = torch.where(FLAGS, X, Y)
    for name in "Eq Ne Gt Ge Lt Le".split():
        function = getattr(torch, name.lower())
        yield Case(f"aclnn{name}Tensor", (X, near), function)
        yield Case(f"aclnn{name}Scalar", (WHOLE, 40), function)
    for other, same in ((X, True), (near, False)):
        yield Case("aclnnEqual", (X, other), lambda x, y, s=same: torch.tensor([s]))
    yield Case("aclnnIsClose", (X, X * (1 + 1e-9), 1e-5, 1e-8, False), torch.isclose)
    yield Case("aclnnSWhere", (FLAGS, X, Y), torch.where)
    for name in ("LogicalAnd", "LogicalOr", "LogicalXor"):
        function = getattr(torch, f"logical_{name[7:].lower()}")
        yield Case(f"aclnn{name}", (FLAGS, FLAGS.flip(0)), function)
        if f"aclnnInplace{name}" in TABLE:
            yield Case(f"aclnnInplace{name}", (FLAGS, FLAGS.flip(0)), function)
    for name in ("And", "Or", "Xor"):
        function = getattr(torch, f"bitwise_{name.lower()}")
        for row in (f"aclnnBitwise{name}", f"aclnnInplaceBitwise{name}"):
            yield Case(f"{row}Tensor", (WHOLE, WHOLE.flip(0)), function)
            yield Case(f"{row}Scalar", (WHOLE, 6), function)


def _reductions() -> Iterator[Case]:
    form = torch.float32
    for dims, keep in (([1], True), ([0, 2], False), ([], False), (None, False)):
        yield Case("aclnnMean", (X, dims, keep, form), lambda x, d, k, t: x.mean(d or (0, 1, 2), k))
        yield Case(
            "aclnnReduceSum", (X, dims, keep, form), lambda x, d, k, t: x.sum(d or (0, 1, 2), k)
        )
    yield Case("aclnnReduceSum", (FLAGS, [1], False, torch.int64), lambda x, d, k, t: x.sum(d))
    yield Case("aclnnMean", (WHOLE, [1], False, form), lambda x, d, k, t: x.float().mean(d))
    yield Case("aclnnProd", (POSITIVE, form), lambda x, t: x.prod())
    yield Case("aclnnProdDim", (POSITIVE, 1, True, form), lambda x, d, k, t: x.prod(d, k))
    for row, function in (("VarCorrection", torch.var), ("Std", torch.std)):
        yield Case(
            f"aclnn{row}",
            (X, [1], 0, True),
            lambda x, d, c, k, f=function: f(x, d, correction=c, keepdim=k),
        )
    yield Case(
        "aclnnVarMean",
        (X, [2], 1, False),
        lambda x, d, c, k: torch.var_mean(x, d, correction=c, keepdim=k),
    )
    norm = torch.linalg.vector_norm
    yield Case("aclnnNorm", (X, 2, [1], True), lambda x, o, d, k: norm(x, o, d, k))
    for order in (1, 2, math.inf):
        yield Case(
            "aclnnLinalgVectorNorm", (X, order, [], False, form), lambda x, o, *_: norm(x, o)
        )
    yield Case("aclnnAll", (X > -1, [1], True), torch.all)
    yield Case("aclnnAny", (X > 2, [0, 1, 2], False), lambda x, d, k: x.any())
    for name in ("Max", "Min"):
        function = getattr(torch, name.lower())
        yield Case(f"aclnn{name}", (X,), function)
        yield Case(f"aclnn{name}Dim", (X, 1, True), function)
        yield Case(f"aclnnA{name.lower()}", (X, [1, 2], False), getattr(torch, f"a{name.lower()}"))
        yield Case(f"aclnnArg{name}", (X, 1, True), getattr(torch, f"arg{name.lower()}"))
    yield Case("aclnnTopk", (X, 2, 2, False, True), torch.topk)
    yield Case(
        "aclnnSort",
        (X, True, 2, True),
        lambda x, s, d, r: torch.sort(x, stable=s, dim=d, descending=r),
    )
    yield Case("aclnnCumsum", (X, 1, form), lambda x, d, t: x.cumsum(d))


def _arranging() -> Iterator[Case]:
    yield Case("aclnnCat", ([X, Y, Z[:, :2]], 1), torch.cat)
    yield Case("aclnnStack", ([X, Y], 1), torch.stack)
    yield Case("aclnnRepeat", (X, [2, 1, 1, 3]), lambda x, times: x.repeat(times))
    yield Case(
        "aclnnRepeatInterleaveIntWithDim",
        (X, 2, 1, 8),
        lambda x, times, dim, total: x.repeat_interleave(times, dim),
    )
    yield Case("aclnnFlip", (X, [0, 2]), torch.flip)
    yield Case("aclnnRoll", (X, [1, 2], [0, 2]), torch.roll)
    yield Case("aclnnRoll", (X, [7], None), lambda x, shifts, dims: torch.roll(x, shifts))
    yield Case("aclnnConstantPadNd", (X, [1, 2, 0, 1], 2.5), lambda x, p, v: F.pad(x, p, value=v))
    for name in ("Tril", "Triu"):
        for row in (f"aclnn{name}", f"aclnnInplace{name}"):
            yield Case(row, (X, 1), getattr(torch, name.lower()))
    yield Case("aclnnInplaceMaskedFillScalar", (X, FLAGS, -1.0), torch.masked_fill)
    yield Case(
        "aclnnInplaceMaskedFillTensor",
        (X, FLAGS, torch.tensor([-1.0]).double()),
        lambda x, mask, value: torch.masked_fill(x, mask, value.reshape(())),
    )
    nothing = torch.empty(0)  # an index that is left out
    yield Case("aclnnIndex", (X, [nothing, NAMES]), lambda x, i: x[:, i[1]])
    yield Case("aclnnIndex", (X, [NAMES % 3, NAMES]), lambda x, i: x[i[0], i[1]])
    yield Case("aclnnIndex", (X, [FLAGS[:, 0, 0]]), lambda x, i: x[i[0]])
    yield Case("aclnnIndex", (X, [NAMES[:0]]), lambda x, i: x[i[0]])

    def put(x: Tensor, i: list[Tensor], v: Tensor, add: bool, unsafe: bool) -> Tensor:
        return x.clone().index_put((i[0],), v, add)

    yield Case("aclnnIndexPutImpl", (X, [torch.tensor([2, 0])], Y[:2], False, False), put)
    yield Case("aclnnIndexPutImpl", (X, [torch.tensor([1, 1])], Y[:2], True, False), put)
    yield Case("aclnnIndexPutImpl", (X, [torch.tensor([1, 1])], Y[0, 0], True, False), put)
    yield Case("aclnnIndexSelect", (X, 1, NAMES), torch.index_select)
    places = WHOLE % 3
    yield Case("aclnnGather", (X, 0, places), torch.gather)
    row, once = normal(3, 3), torch.tensor([[1], [0], [2]])
    for name in ("aclnnScatter", "aclnnInplaceScatter"):
        yield Case(
            name, (row, 1, once, normal(3, 1), 0), lambda x, d, i, s, r: torch.scatter(x, d, i, s)
        )
        for number, how in ((1, "sum"), (2, "prod")):
            yield Case(
                name,
                (row, 1, once, normal(3, 1), number),
                lambda x, d, i, s, r, how=how: torch.scatter_reduce(x, d, i, s, how),
            )
    for name in ("aclnnScatterValue", "aclnnInplaceScatterValue"):
        yield Case(name, (row, 1, once, 9.0, 0), lambda x, d, i, s, r: torch.scatter(x, d, i, s))
        yield Case(
            name,
            (row, 1, once, 9.0, 1),
            lambda x, d, i, s, r: x + torch.zeros(3, 3).scatter(d, i, s),
        )
    yield Case("aclnnScatterAdd", (X, 0, places, Y), torch.scatter_add)
    yield Case("aclnnEmbedding", (normal(4, 5), NAMES), torch.embedding)
    yield Case(
        "aclnnEmbeddingDenseBackward",
        (normal(6, 5), NAMES, 4, -1, False),
        lambda g, i, *_: torch.zeros(4, 5).double().index_add(0, i, g),
    )
    yield Case("aclnnInplaceCopy", (X,), lambda x: x)
    yield Case("aclnnCast", (X, torch.float16), lambda x, t: x.half())
    yield Case("aclnnCast", (WHOLE, torch.float32), lambda x, t: x.float())
    yield Case("aclnnInplaceZero", (), lambda: torch.zeros(3, 4))
    yield Case("aclnnInplaceOne", (), lambda: torch.ones(3, 4))
    yield Case("aclnnInplaceFillScalar", (2.5,), lambda v: torch.full((3, 4), v))
    yield Case("aclnnInplaceFillTensor", (torch.tensor([7]),), lambda v: torch.full((3, 4), 7))
    yield Case("aclnnArange", (2, 9, 3), torch.arange)
    yield Case("aclnnArange", (0.0, 1.0, 0.25), torch.arange)
    yield Case("aclnnLinspace", (0.0, 1.0, 5), torch.linspace)
    yield Case("aclnnEye", (2, 3), torch.eye)
    yield Case(
        "aclnnOneHot",
        (NAMES, 4, torch.tensor([1]), torch.tensor([0]), -1),
        lambda x, depth, *_: F.one_hot(x, depth),
    )


CONVOLUTIONS = {
    # shape, weights, stride, padding, dilation, transposed, output padding, groups
    "stem": ((2, 3, 9, 8), (4, 3, 4, 4), [4, 4], [0, 0], [1, 1], False, [0, 0], 1),
    "padded": ((2, 4, 9, 8), (6, 4, 3, 3), [2, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "dilated": ((1, 4, 9, 8), (6, 4, 3, 3), [1, 1], [2, 2], [2, 2], False, [0, 0], 1),
    "groups": ((2, 4, 9, 8), (6, 2, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 2),
    "depthwise": ((2, 4, 9, 8), (4, 1, 7, 7), [1, 1], [3, 3], [1, 1], False, [0, 0], 4),
    "transposed": ((2, 4, 4, 5), (4, 3, 3, 3), [2, 2], [1, 1], [1, 1], True, [1, 1], 2),
    "line": ((2, 4, 9), (6, 4, 3), [1], [1], [1], False, [0], 1),
    "volume": ((1, 2, 4, 5, 3), (3, 2, 2, 2, 2), [1] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1),
}


def _cube(keep: int = 0) -> Iterator[Case]:
    def forward(x: Tensor, w: Tensor, b: Tensor | None, *rest: Any) -> Tensor:
        return torch.convolution(x, w, b, *rest[:6])

    def backward(g: Tensor, x: Tensor, w: Tensor, sizes: Any, *rest: Any) -> list[Tensor | None]:
        *geometry, mask, _ = rest
        bias = torch.zeros(g.shape[1], dtype=g.dtype)
        found = gradients(lambda *leaves: forward(*leaves, *geometry), g, x, w, bias)
        return [value if wanted else None for value, wanted in zip(found, mask, strict=True)]

    for shape, weights, *rest in CONVOLUTIONS.values():
        out = weights[0] if not rest[3] else weights[1] * rest[5]
        x, w, b = normal(*shape), normal(*weights) / 4, normal(out)
        yield Case("aclnnConvolution", (x, w, b, *rest), lambda *a: forward(*a[:-1]))
        g = forward(x, w, b, *rest)
        for mask in ([True] * 3, [False, True, False], [True, False, False]):
            yield Case("aclnnConvolutionBackward", (g, x, w, [out], *rest, mask, keep), backward)
    picture = (normal(3, 9, 8), normal(4, 3, 4, 4), None)  # without a batch, without a bias
    rest = [[4, 4], [0, 0], [1, 1], False, [0, 0], 1]
    yield Case("aclnnConvolution", (*picture, *rest), lambda x, w, b, *_: F.conv2d(x, w, None, 4))
    x, w, *_ = picture
    yield Case(
        "aclnnConvolutionBackward",
        (normal(4, 2, 2), x, w, None, *rest, [True, True, False], keep),
        lambda g, x, w, *_: [*gradients(lambda x, w: F.conv2d(x, w, None, 4), g, x, w), None],
    )
    yield Case("aclnnMm", (normal(4, 5), normal(5, 6)), lambda a, b, cube: a @ b)
    yield Case("aclnnMatmul", (normal(3, 1, 4, 5), normal(2, 5, 6)), lambda a, b, cube: a @ b)
    yield Case("aclnnMatmul", (normal(5), normal(5)), lambda a, b, cube: a @ b)
    yield Case("aclnnBatchMatMul", (normal(3, 4, 5), normal(3, 5, 6)), lambda a, b, cube: a @ b)
    yield Case("aclnnMv", (normal(4, 5), normal(5)), lambda a, b, cube: a @ b)
    yield Case("aclnnDot", (normal(5), normal(5)), torch.dot)
    for beta, alpha in ((1, 1), (0.5, 2)):
        add = lambda c, a, b, beta, alpha, cube: beta * c + alpha * (a @ b)  # noqa: E731
        for c in (normal(6), normal(4, 6)):
            yield Case("aclnnAddmm", (c, normal(4, 5), normal(5, 6), beta, alpha), add)
        yield Case("aclnnBaddbmm", (normal(6), normal(3, 4, 5), normal(3, 5, 6), beta, alpha), add)
    yield Case(
        "aclnnAddmm",
        (torch.full((6,), math.nan).double(), normal(4, 5), normal(5, 6), 0, 1),
        lambda c, a, b, *_: a @ b,
    )


def _norms() -> Iterator[Case]:
    def layer(x: Tensor, shape: list[int], w: Any, b: Any, eps: float) -> Any:
        return torch.native_layer_norm(x, shape, w, b, eps)

    w, b = normal(5), normal(5)
    for row in ("aclnnLayerNorm", "aclnnFastLayerNorm"):
        yield Case(row, (X, [5], w, b, 1e-6), layer, (1, 2))
        yield Case(row, (X, [4, 5], None, None, 1e-6), layer, (1, 2))
        yield Case(row, (X, [5], w, None, 1e-6), lambda *a: [layer(*a)[0], None, None])

    def layer_backward(
        g: Tensor, x: Tensor, shape: Any, m: Any, r: Any, w: Any, b: Any, mask: Any
    ) -> Any:
        found = gradients(lambda x, w, b: F.layer_norm(x, shape, w, b, 1e-5), g, x, w, b)
        return [value if wanted else None for value, wanted in zip(found, mask, strict=True)]

    x = coarse(X)
    _, mean, rstd = torch.native_layer_norm(x, [5], w, b, 1e-5)
    for mask in ([True, True, True], [True, False, False]):
        args = (Y, x, [5], mean.float(), rstd.float(), w, b, mask)
        yield Case("aclnnLayerNormBackward", args, layer_backward, tied=True)

    w, b = normal(4), normal(4)
    m, v = normal(4), normal(4).abs() + 0.5

    def batch(x: Tensor, w: Any, b: Any, m: Tensor, v: Tensor, train: bool, *rest: float) -> Any:
        m, v = m.clone(), v.clone()
        y, mean, rstd = torch.native_batch_norm(x, w, b, m, v, train, *rest)
        return [m, v, y, *((mean, rstd) if train else (None, None))]

    for train in (True, False):
        yield Case("aclnnBatchNorm", (PLANES, w, b, m, v, train, 0.1, 1e-5), batch, (3, 4))

    def batch_backward(
        g: Tensor,
        x: Tensor,
        w: Tensor,
        m: Tensor,
        v: Tensor,
        sm: Any,
        sr: Any,
        train: bool,
        *_: Any,
    ) -> Any:
        return gradients(
            lambda x, w, b: F.batch_norm(x, m.clone(), v.clone(), w, b, train), g, x, w, w * 0
        )

    x = coarse(PLANES)
    mean, rstd = x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + 1e-5).rsqrt()
    for train in (True, False):
        args = (PLANES.flip(0), x, w, coarse(m), coarse(v), mean.float(), rstd.float(), train, 1e-5)
        yield Case("aclnnBatchNormBackward", (*args, [True] * 3), batch_backward, (1, 2), True)
    sizes = (2, 4, 72, 2)
    yield Case(
        "aclnnGroupNorm",
        (PLANES, w, b, *sizes, 1e-5),
        lambda x, w, b, *a: torch.native_group_norm(x.contiguous(), w, b, *a),
    )
    _, mean, rstd = torch.native_group_norm(x, w, b, *sizes, 1e-5)
    yield Case(
        "aclnnGroupNormBackward",
        (PLANES.flip(0), x, mean.float(), rstd.float(), w, *sizes, [True] * 3),
        lambda g, x, m, r, w, *_: gradients(
            lambda x, w, b: F.group_norm(x, 2, w, b), g, x, w, w * 0
        ),
        tied=True,
    )


def _pools() -> Iterator[Case]:
    window: tuple[Any, ...] = ([3, 2], [2, 2], [1, 1])
    for ceil, pads, divisor in ((False, True, 0), (True, False, 0), (False, True, 5)):
        rest = (*window, ceil, pads, divisor, 0)
        pool = lambda x, *a: F.avg_pool2d(x, *a[:5], a[5] or None)  # noqa: E731
        yield Case("aclnnAvgPool2d", (PLANES, *rest), pool)
        g = pool(PLANES, *rest)
        yield Case(
            "aclnnAvgPool2dBackward",
            (g, PLANES, *rest),
            lambda g, x, *a: gradients(lambda x: F.avg_pool2d(x, *a[:5], a[5] or None), g, x)[0],
        )
    for size in ([1, 1], [3, 4]):
        yield Case("aclnnAdaptiveAvgPool2d", (PLANES, size), F.adaptive_avg_pool2d)
        g = F.adaptive_avg_pool2d(PLANES, size)
        yield Case(
            "aclnnAdaptiveAvgPool2dBackward",
            (g, PLANES),
            lambda g, x: gradients(lambda x: F.adaptive_avg_pool2d(x, g.shape[2:]), g, x)[0],
        )
        yield Case("aclnnAdaptiveMaxPool2d", (PLANES, size), aten.adaptive_max_pool2d)
        _, places = aten.adaptive_max_pool2d(PLANES, size)
        yield Case(
            "aclnnAdaptiveMaxPool2dBackward",
            (g, PLANES, places),
            aten.adaptive_max_pool2d_backward,
        )
    rest = (*window, [1, 2], True)
    yield Case("aclnnMaxPool2dWithIndices", (PLANES, *rest), aten.max_pool2d_with_indices)
    g, places = aten.max_pool2d_with_indices(PLANES, *rest)
    yield Case(
        "aclnnMaxPool2dWithIndicesBackward",
        (g, PLANES, places, *rest),
        lambda g, x, i, *a: aten.max_pool2d_with_indices_backward(g, x, *a, i),
    )


def _losses() -> Iterator[Case]:
    target, w = NAMES.clone(), normal(4).abs()
    target[2] = 3
    for reduction in (0, 1, 2):
        g = normal(6) if reduction == 0 else normal(1).reshape(())
        args = (LOGITS, target, w, reduction, 3)
        yield Case("aclnnNLLLoss", args, aten.nll_loss_forward)
        total = aten.nll_loss_forward(*args)[1]
        yield Case(
            "aclnnNLLLossBackward",
            (g, *args, total),
            lambda g, x, t, w, r, i, total: aten.nll_loss_backward(g, x, t, w, r, i, total),
        )
        g = Y if reduction == 0 else g
        for row, loss in (("MseLoss", aten.mse_loss), ("L1Loss", aten.l1_loss)):
            yield Case(f"aclnn{row}", (X, Z, reduction), loss)
            yield Case(
                f"aclnn{row}Backward",
                (g, X, Z, reduction),
                lambda g, x, t, r, f=loss: gradients(lambda x: f(x, t, r), g, x)[0],
            )
        yield Case("aclnnSmoothL1Loss", (X, Z, reduction, 0.5), aten.smooth_l1_loss)
        yield Case(
            "aclnnSmoothL1LossBackward",
            (g, X, Z, reduction, 0.5),
            lambda g, x, t, r, beta: gradients(lambda x: aten.smooth_l1_loss(x, t, r, beta), g, x)[
                0
            ],
        )
        bce = aten.binary_cross_entropy_with_logits
        for weight, positive in ((None, None), (POSITIVE, POSITIVE[0, 0])):
            args = (X, torch.sigmoid(Z), weight, positive, reduction)
            yield Case("aclnnBinaryCrossEntropyWithLogits", args, bce)
            yield Case(
                "aclnnBinaryCrossEntropyWithLogitsBackward",
                (g, *args),
                lambda g, x, *a, f=bce: gradients(lambda x: f(x, *a), g, x)[0],
            )


def _training() -> Iterator[Case]:
    lists, others, third = [X, PLANES], [Y, PLANES.flip(0)], [POSITIVE, PLANES.abs() + 1]

    def each(function: Callable[..., Tensor], count: int) -> Callable[..., list[Tensor]]:
        def reference(*args: Any) -> list[Tensor]:
            rows = zip(*args[:count], strict=True)
            return [function(*row, *args[count:]) for row in rows]

        return reference

    for name in ("Abs", "Neg", "Exp"):
        function = each(getattr(torch, name.lower()), 1)
        yield Case(f"aclnnForeach{name}", (lists,), function)
    for name in ("Sqrt", "Reciprocal"):
        yield Case(f"aclnnForeach{name}", (third,), each(getattr(torch, name.lower()), 1))
    yield Case("aclnnForeachCopy", (lists,), each(torch.clone, 1))
    yield Case("aclnnForeachZeroInplace", (), lambda: [torch.zeros(3), torch.zeros(2, 2)])
    for name in ("Add", "Mul", "Div", "Pow"):
        function = each(getattr(torch, name.lower()), 1)
        yield Case(f"aclnnForeach{name}ScalarV2", (third, 1.5), function)
    yield Case("aclnnForeachNorm", (lists, 2), each(torch.linalg.vector_norm, 1))
    for name in ("Mul", "Maximum", "Minimum"):
        yield Case(
            f"aclnnForeach{name}List", (lists, others), each(getattr(torch, name.lower()), 2)
        )
    yield Case("aclnnForeachDivList", (lists, third), each(torch.div, 2))
    yield Case("aclnnForeachAddListV2", (lists, others, 0.5), each(lambda x, y, a: x + a * y, 2))
    yield Case("aclnnForeachSubListV2", (lists, others, 0.5), each(lambda x, y, a: x - a * y, 2))
    yield Case("aclnnForeachLerpScalar", (lists, others, 0.3), each(torch.lerp, 2))
    yield Case(
        "aclnnForeachAddcmulScalarV2",
        (lists, others, third, 0.3),
        each(lambda x, a, b, v: x + v * a * b, 3),
    )
    yield Case(
        "aclnnForeachAddcdivScalarV2",
        (lists, others, third, 0.3),
        each(lambda x, a, b, v: x + v * a / b, 3),
    )


CASES = [
    case
    for cases in (
        *(_arithmetic, _single, _activations_backward, _logic, _reductions, _arranging),
        *(_cube, _norms, _pools, _losses, _training),
    )
    for case in cases()
]

ELSEWHERE = {
    # by tests of their own
    *("attention", "attention_backward", "max_pool_mask", "max_pool_mask_backward"),
    *("normal", "uniform", "random", "randperm", "bernoulli", "multinomial"),
    *("dropout", "dropout_mask", "update_scale", "unscale"),
}


# --- the table --------------------------------------------------------------------------------


def _functions() -> dict[str, Callable[..., None]]:
    """The functions of compute.py that a row can name: they are given a card and return nothing."""
    functions = {
        name: inspect.signature(thing)
        for name, thing in vars(compute).items()
        if inspect.isfunction(thing) and not name.startswith("_")
    }
    return {
        name: getattr(compute, name)
        for name, signature in functions.items()
        if next(iter(signature.parameters), "") == "card" and signature.return_annotation == "None"
    }


def test_every_function_is_computed_with_as_many_arguments_as_it_is_given():
    for row in TABLE.values():
        signature = inspect.signature(_functions()[row.compute])
        signature.bind("card", *parse(row.signature))
        assert row.source.endswith(".cpp") or ".cpp, " in row.source or "yaml " in row.source
        assert row.name.startswith("aclnn")
        assert written(row), f"{row.name} writes nothing"
    assert len(TABLE) == len(table._ROWS), "a name stands twice"


def test_every_computation_has_a_row_and_a_test():
    named = {row.compute for row in TABLE.values()}
    assert named == set(_functions())
    assert named == {TABLE[case.row].compute for case in CASES} | ELSEWHERE


def test_every_computation_says_what_it_is():
    assert not [name for name, function in _functions().items() if not function.__doc__]


def test_what_is_written_and_what_is_a_letter():
    assert written(TABLE["aclnnConvolutionBackward"]) == (12, 13, 14)
    assert written(TABLE["aclnnInplaceAdd"]) == (0,)
    assert written(TABLE["aclnnForeachNonFiniteCheckAndUnscale"]) == (0, 1)
    assert parse("t I o") == ("t", "I", "o")
    with pytest.raises(ValueError, match="'q'"):
        parse("t q o")


def test_a_real_number_has_the_width_that_torch_npu_passes():
    """A float comes in other bits of the register than a double (NormalKernelNpuOpApi.cpp and
    SmoothL1LossKernelNpuOpApi.cpp cast to float, the others pass a double)."""
    floats = {row.name for row in TABLE.values() if "F" in parse(row.signature)}
    assert floats == {"aclnnInplaceNormal", "aclnnSmoothL1Loss", "aclnnSmoothL1LossBackward"}


# --- every row against torch ------------------------------------------------------------------


def spread(x: Tensor) -> Tensor:
    """The same tensor with gaps between its elements and a storage offset."""
    wide = torch.zeros([2 * size + 1 for size in x.shape], dtype=x.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    view.copy_(x)
    return view


def turned(x: Tensor) -> Tensor:
    """The same tensor with its axes the other way round in memory."""
    axes = tuple(reversed(range(x.dim())))
    return x.permute(axes).contiguous().permute(axes)


def expanded(x: Tensor) -> Tensor:
    """A tensor of the same shape whose first axis has stride zero."""
    return x[:1].expand(x.shape) if x.dim() and x.shape[0] else x


LAYOUTS = {"contiguous": torch.clone, "spread": spread, "turned": turned, "expanded": expanded}


def poisoned(like: Tensor) -> Tensor:
    """A place for a result, with gaps, in which every byte is 0xff."""
    place = spread(torch.zeros(like.shape, dtype=like.dtype))
    torch.tensor([], dtype=torch.uint8).set_(place.untyped_storage()).fill_(255)
    return place


def given(value: Any, letter: str, dtype: torch.dtype, layout: str) -> Any:
    """An argument in a format and a layout; what is written in place is never expanded."""
    if letter == "l":
        return [given(each, "t", dtype, layout) for each in value]
    if not isinstance(value, Tensor):
        return value
    value = value.to(dtype) if value.dtype == torch.float64 else value
    alike = layout != "expanded" or (letter == "t" and value.is_floating_point())
    return LAYOUTS[layout](value) if alike else value.clone()


def widened(value: Any) -> Any:
    if isinstance(value, list):
        return [widened(each) for each in value]
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if floats else value


def as_list(found: Any) -> list[Any]:
    return [found] if isinstance(found, Tensor) else list(found)


def observe(
    case: Case, dtype: torch.dtype, layout: str, card: Card = HEALTHY
) -> list[tuple[Tensor, Tensor]]:
    """Compute a case; (result, reference) of every output that is wanted."""
    letters = parse(TABLE[case.row].signature)
    inputs = [letter for letter in letters if letter not in "om"]
    values = list(case.args)
    if len(values) < len(inputs):  # a cube_math_type that keeps float32 stands after the output
        values.append(0)
    args = [given(v, letter, dtype, layout) for v, letter in zip(values, inputs, strict=True)]
    expected = as_list(case.reference(*(widened(arg) for arg in args)))
    in_place = [n for n, letter in enumerate(inputs) if letter == "w"]
    expected = [None if want is None else want for want in expected]
    if letters.count("m"):
        expected = [expected]

    def place(number: int, want: Any) -> Any:
        if want is None:
            return None
        if isinstance(want, list):
            return [place(number, each) for each in want]
        if want.dtype == torch.float64:
            want = want.to(torch.float32 if number in case.single else dtype)
        return poisoned(want)

    outs = [args[n] for n in in_place]
    outs += [place(n, want) for n, want in enumerate(expected) if n >= len(in_place)]
    rest, written_ = iter(args), iter(outs[len(in_place) :])
    call(case.row, *(next(written_ if x in "om" else rest) for x in letters), card=card)
    pairs = []
    for out, want in zip(outs, expected, strict=True):
        for one, other in zip(
            *((out, want) if isinstance(want, list) else ([out], [want])), strict=True
        ):
            if other is not None:
                pairs.append((one, other.to(one.dtype)))
    return pairs


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.row}-{n}") for n, case in enumerate(CASES)]
)
def test_what_is_computed_is_what_torch_computes(case):
    for dtype in FLOATS:
        for layout in LAYOUTS if not case.tied else LAYOUTS.keys() - {"expanded"}:
            for out, expected in observe(case, dtype, layout):
                rtol, atol = TOLERANCES.get(out.dtype, (0, 0))
                torch.testing.assert_close(
                    out,
                    expected,
                    rtol=rtol,
                    atol=atol,
                    check_stride=False,
                    msg=lambda text, d=dtype, way=layout: f"{d}, {way}: {text}",
                )


@pytest.mark.parametrize(
    ("row", "broken"),
    [
        ("aclnnAdd", lambda card, x, y, alpha, out=None: out.copy_(x + y)),
        ("aclnnSub", lambda card, x, y, alpha, out=None: None),
        ("aclnnLayerNorm", lambda card, x, s, w, b, eps, out, m, r: out.copy_(x)),
    ],
)
def test_a_wrong_computation_and_an_unwritten_output_are_noticed(row, broken, monkeypatch):
    """The comparison above can fail."""
    monkeypatch.setattr(compute, TABLE[row].compute, broken)
    case = [case for case in CASES if case.row == row][-1]
    with pytest.raises(AssertionError):
        test_what_is_computed_is_what_torch_computes(case)


# --- HF32 and half formats --------------------------------------------------------------------

BITS = {
    # float32: to nearest with ties away from zero, cut off
    0x3F80_0000: (0x3F80_0000, 0x3F80_0000),  # 1
    0x3F80_07FF: (0x3F80_0000, 0x3F80_0000),  # just below half a unit
    0x3F80_0800: (0x3F80_1000, 0x3F80_0000),  # half a unit
    0xBF80_0800: (0xBF80_1000, 0xBF80_0000),
    0x3F80_1800: (0x3F80_2000, 0x3F80_1000),  # the tie that goes to even either way
    0x3FFF_F800: (0x4000_0000, 0x3FFF_F000),  # into the next power of two
    0x0000_0800: (0x0000_1000, 0x0000_0000),  # a subnormal
    0x8000_0000: (0x8000_0000, 0x8000_0000),  # -0
}
SPECIAL = {
    0x7F7F_FFFF: (0x7F80_0000, 0x7F7F_F000),  # the largest number
    0x7F80_0000: (0x7F80_0000, 0x7F80_0000),  # infinity
    0x7F80_0001: (0x7F80_0001, 0x7F80_0001),  # NaNs stay, whatever their bits
    0xFFFF_FFFF: (0xFFFF_FFFF, 0xFFFF_FFFF),
}


def from_bits(*bits: int) -> Tensor:
    """float32 numbers by their bits."""
    signed = [value - (1 << 32) if value >= 1 << 31 else value for value in bits]
    return torch.tensor(signed, dtype=torch.int32).view(torch.float32)


@pytest.mark.parametrize("patterns", [BITS, BITS | SPECIAL], ids=["ordinary", "special"])
@pytest.mark.parametrize("truncate", [False, True])
def test_hf32_keeps_eleven_bits(patterns, truncate):
    x = from_bits(*patterns)
    expected = from_bits(*(pair[truncate] for pair in patterns.values()))
    rounded = compute.hf32(x, truncate)
    assert rounded.view(torch.int32).tolist() == expected.view(torch.int32).tolist()
    assert x.view(torch.int32).equal(from_bits(*patterns).view(torch.int32)), "the input changed"


@pytest.mark.parametrize("row", ["aclnnConvolution", "aclnnMatmul", "aclnnAddmm"])
def test_the_cube_unit_rounds_its_factors_as_it_is_told(row):
    """1 + 2^-12 is kept in float32, goes up in HF32, down where that cuts off and in half."""
    x = from_bits(0x3F80_0800).reshape(1, 1)
    out = torch.zeros(1, 1)
    found = []
    for cube, card in ((0, HEALTHY), (1, HEALTHY), (3, HEALTHY), (3, DIFFERENT), (2, HEALTHY)):
        if row == "aclnnConvolution":
            shaped = x.reshape(1, 1, 1, 1), torch.ones(1, 1, 1, 1), None, [1, 1], [0, 0], [1, 1]
            place = out.reshape(1, 1, 1, 1)
            call(row, *shaped, False, [0, 0], 1, place, cube, card=card)
        elif row == "aclnnAddmm":
            call(row, torch.zeros(1), x, torch.ones(1, 1), 1, 1, out, cube, card=card)
        else:
            call(row, x, torch.ones(1, 1), out, cube, card=card)
        found.append(float(out))
    assert found == [1 + 2.0**-12, 1 + 2.0**-11, 1 + 2.0**-11, 1.0, 1.0]


@pytest.mark.parametrize("dtype", FLOATS[1:])
def test_half_products_are_rounded_once(dtype):
    """Accumulated in the half format they would be far off."""
    a, b = normal(8, 300).to(dtype), normal(300, 8).to(dtype)
    out = torch.empty(8, 8, dtype=dtype)
    call("aclnnMm", a, b, out, 0)
    exact = a.double() @ b.double()
    once = exact.to(dtype)
    assert (out == once).double().mean() > 0.95  # the rest are ties of float32's own error
    unit = torch.finfo(dtype).eps
    assert ((out.double() - exact).abs() <= 0.51 * unit * exact.abs() + 1e-4).all()


# --- attention --------------------------------------------------------------------------------


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    kept: Tensor | float = 1.0,
    added: Tensor | float = 0.0,
) -> Tensor:
    """Attention by its definition."""
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    scores = q @ k.transpose(-1, -2) * 0.3 + added
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf)
    return (scores.softmax(-1) * kept) @ v


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("way", ["plain", "masked", "causal", "dropout", "shared keys", "added"])
def test_attention_and_its_gradients(dtype, way):
    heads = 1 if way == "shared keys" else 2
    q, g = normal(2, 2, 6, 8).to(dtype), normal(2, 2, 6, 8).to(dtype)
    k, v = spread(normal(2, heads, 6, 8).to(dtype)), turned(normal(2, heads, 6, 8).to(dtype))
    bits, keep, kept, given_mask = None, 1.0, 1.0, None
    mask = {"masked": torch.eye(6).bool(), "causal": torch.ones(6, 6).triu(1).bool()}.get(way)
    given_mask = torch.ones(2048, 2048).triu(1).bool() if way == "causal" else mask
    if way == "dropout":
        bits, keep = torch.empty(128, dtype=torch.uint8), 0.75
        call("aclnnDropoutGenMaskV2", [144], 0.25, 1, 2, dtype, bits)
        chosen = torch.ones(144, dtype=dtype)
        call("aclnnDropoutDoMask", chosen, bits, 0.25, chosen)
        kept = (chosen > 0).reshape(2, 2, 6, 6).double() / keep
    rest = ([], 0.3, keep, 2**31 - 1, 0, 2, "BNSD", 0, 2 if way == "causal" else 0)
    most, total = torch.empty(2, 2, 6, 8), torch.empty(2, 2, 6, 8)
    out, nothing = poisoned(q), torch.empty(0)
    pse = normal(2, 6, 6).to(dtype) if way == "added" else None
    added = 0.0 if pse is None else pse.double()
    tensors = (pse, bits, None, given_mask)
    call("aclnnFlashAttentionScore", q, k, v, *tensors, *rest, most, total, nothing, out)
    wide = (q.double(), k.double(), v.double())
    rtol, atol = TOLERANCES[dtype]
    close = {"rtol": 2 * rtol, "atol": max(10 * atol, rtol), "check_stride": False}
    expected = attend(*wide, mask, kept, added)
    torch.testing.assert_close(out, expected.to(dtype), **close)
    grads = [poisoned(x) for x in (q, k, v)]
    grad_pse = nothing if pse is None else poisoned(pse)
    figures = (most, total, nothing, expected.to(dtype))
    call("aclnnFlashAttentionScoreGrad", q, k, v, g, *tensors, *figures, *rest, *grads, grad_pse)
    leaves = wide if pse is None else (*wide, added)
    wanted = gradients(lambda q, k, v, a=0.0: attend(q, k, v, mask, kept, a), g.double(), *leaves)
    close = {"rtol": 4 * rtol, "atol": max(1e-4, 8 * rtol), "check_stride": False}
    for grad, want in zip((*grads, grad_pse), wanted, strict=False):
        torch.testing.assert_close(grad, want.to(dtype), **close)


def test_a_layout_of_attention_that_is_not_simulated_is_refused():
    q = torch.zeros(1, 2, 8)
    args = (None, None, None, None, [], 0.3, 1.0, 0, 0, 2, "BSH", 0, 0)
    with pytest.raises(NotImplementedError, match="'BSH'"):
        call("aclnnFlashAttentionScore", q, q, q, *args, q, q, q, q)


# --- pooling with a mask ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil"),
    [
        ([3, 3], [2, 2], [1, 1], [1, 1], False),
        ([2, 2], [], [0, 0], [1, 1], True),
        ([3, 2], [1, 2], [1, 0], [2, 3], False),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_max_pooling_remembers_where_in_its_mask(kernel, stride, padding, dilation, ceil, dtype):
    x = turned(PLANES.to(dtype))
    geometry = (kernel, stride, padding, dilation, ceil)
    y, places = aten.max_pool2d_with_indices(x, kernel, stride or kernel, *geometry[2:])
    columns = (math.prod(y.shape[2:]) + 15) // 16 + 1  # MaxPool2dWithIndicesKernelNpuOpApi.cpp
    mask = torch.full((2, 4, math.prod(kernel), columns * 32), -1, dtype=torch.int8)
    out = poisoned(y)
    call("aclnnMaxPool2dWithMask", x, *geometry, out, mask)
    assert out.equal(y)
    grad, back = normal(*y.shape).to(dtype), poisoned(x)
    call("aclnnMaxPool2dWithMaskBackward", grad, x, mask, *geometry, back)
    wide = (kernel, stride or kernel, *geometry[2:])
    expected = aten.max_pool2d_with_indices_backward(grad.double(), x.double(), *wide, places)
    torch.testing.assert_close(back, expected.to(dtype), check_stride=False)


# --- chance -----------------------------------------------------------------------------------

DRAWS: dict[str, tuple[Any, ...]] = {
    "aclnnInplaceNormal": (2.0, 0.5),
    "aclnnInplaceUniform": (-1.0, 3.0),
    "aclnnInplaceRandom": (3, 9),
    "aclnnInplaceBernoulli": (0.3,),
    "aclnnInplaceBernoulliTensor": (torch.full((20_000,), 0.3),),
}


@pytest.mark.parametrize("row", DRAWS)
def test_seed_and_offset_say_what_is_drawn(row):
    def draw(seed: int, offset: int) -> Tensor:
        out = torch.empty(20_000)
        call(row, out, *DRAWS[row], seed, offset)
        return out

    once = draw(5, 10)
    assert draw(5, 10).equal(once)
    for seed, offset in ((6, 10), (5, 20), (10, 5), (2**63 - 1, 0)):
        assert not draw(seed, offset).equal(once)
    mean, deviation = {
        "aclnnInplaceNormal": (2, 0.5),
        "aclnnInplaceUniform": (1, 4 / math.sqrt(12)),
        "aclnnInplaceRandom": (5.5, math.sqrt(35 / 12)),
    }.get(row, (0.3, math.sqrt(0.21)))
    assert once.mean() == pytest.approx(mean, abs=6 * deviation / math.sqrt(20_000))
    assert once.std() == pytest.approx(deviation, rel=0.05)


def test_permutations_and_choices():
    out = torch.empty(50, dtype=torch.int64)
    call("aclnnRandperm", 50, 1, 2, out)
    assert out.sort().values.tolist() == list(range(50))
    chosen = torch.empty(9000, dtype=torch.int64)
    call("aclnnMultinomial", torch.tensor([1.0, 0.0, 2.0]), 9000, True, 1, 2, chosen)
    counts = chosen.bincount(minlength=3).tolist()
    assert counts[1] == 0
    assert counts[2] == pytest.approx(6000, abs=300)


@pytest.mark.parametrize("dtype", FLOATS)
def test_dropout_keeps_a_share_and_the_same_elements_backwards(dtype):
    x = torch.ones(100, 101, dtype=dtype)
    mask = torch.empty((x.numel() + 127) // 128 * 16, dtype=torch.uint8)
    call("aclnnDropoutGenMaskV2", [100, 101], 0.25, 3, 4, dtype, mask)
    out = poisoned(x)
    call("aclnnDropoutDoMask", x, mask, 0.25, out)
    scaled = (torch.ones(1) / 0.75).to(dtype)
    assert sorted(out.unique().tolist()) == [0.0, float(scaled)]
    assert float((out == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    back = torch.empty_like(x)
    call("aclnnDropoutDoMask", turned(x), mask, 0.25, back)
    assert back.equal(out)
    call("aclnnDropoutDoMask", x, mask, 1.0, out)
    assert not out.any()


# --- GradScaler -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "steps", "scale", "expected"),
    [
        (1.0, 1, 8.0, (4.0, 0)),  # not finite: smaller, and counted anew
        (0.0, 0, 8.0, (8.0, 1)),
        (0.0, 1, 8.0, (16.0, 0)),  # the second in a row: larger
        (0.0, 1, 3e38, (3e38, 0)),  # never infinite
    ],
)
def test_the_scale_of_gradients(found, steps, scale, expected):
    size, tracker = torch.tensor([scale]), torch.tensor([steps], dtype=torch.int32)
    given_ = (torch.tensor([found]), 2.0, 0.5, 2)
    call("aclnnAmpUpdateScale", size, tracker, *given_, size, tracker)
    assert (float(size), int(tracker)) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize("bad", [None, math.inf, math.nan])
def test_gradients_that_are_not_finite_are_noticed(bad):
    grads = [spread(torch.full((3, 2), 6.0)), torch.full((2,), 4.0, dtype=torch.float16)]
    if bad is not None:
        grads[1][1] = bad
    found = torch.zeros(1)
    call("aclnnForeachNonFiniteCheckAndUnscale", grads, found, torch.tensor(0.5))
    assert float(found) == (bad is not None)
    assert grads[0].eq(3).all()
    assert grads[1][0] == 2


# --- emulated accumulators --------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bfloat16", "float16"])
def test_an_emulated_accumulator_rounds_every_partial_sum(form):
    a, b = normal(3, 40).float(), normal(40, 2).float()
    total = torch.zeros(3, 2)
    for start in (0, 16, 32):
        part = a[:, start : start + 16] @ b[start : start + 16]
        total = (total + part).to(getattr(torch, form)).float()
    assert compute.matmul(a, b, form).equal(total)
    assert compute.matmul(a, b).equal(a @ b)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_an_emulated_accumulator_of_convolutions(name):
    """Its result is of the format, wrong by about its roundings, and not right."""
    shape, weights, *rest = CONVOLUTIONS[name]
    channels = 64 if name in ("stem", "padded") else shape[1]
    shape = (shape[0], channels, *shape[2:])
    weights = (weights[0], channels, *weights[2:]) if channels == 64 else weights
    x, w = normal(*shape).float(), normal(*weights).float()
    bias = normal(weights[0] if not rest[3] else weights[1] * rest[5]).float()
    y = compute.convolution(x, w, bias, *rest, "bfloat16")
    exact = torch.convolution(x, w, bias, *rest)
    size = torch.convolution(x.abs(), w.abs(), bias.abs(), *rest)
    assert y.equal(y.bfloat16().float())
    terms = channels // rest[5] * math.prod(weights[2:])
    assert ((y - exact).abs() <= 2.0**-8 * (terms / 16 + 3) * size).all()
    assert not torch.allclose(y, exact, rtol=1e-4)
    assert compute.convolution(x, w, bias, *rest).equal(exact)


def test_an_emulated_accumulator_adds_channels_as_a_matrix_product_does():
    x, w = normal(1, 48, 3, 3).float(), normal(5, 48, 1, 1).float()
    y = compute.convolution(x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, "float16")
    product = compute.matmul(x.flatten(2)[0].T, w.flatten(1).T, "float16")
    torch.testing.assert_close(y.flatten(2)[0].T, product, rtol=2.0**-9, atol=2.0**-9)


# --- healthy cards that differ ----------------------------------------------------------------

VARIED = [
    case
    for case in CASES
    if case.row
    in {
        *("aclnnConvolution", "aclnnConvolutionBackward", "aclnnMm", "aclnnMatmul", "aclnnAddmm"),
        *("aclnnBatchMatMul", "aclnnBaddbmm", "aclnnMean", "aclnnReduceSum", "aclnnSoftmax"),
        *("aclnnLayerNorm", "aclnnGelu", "aclnnGeluV2", "aclnnExp", "aclnnRsqrt", "aclnnAdd"),
        *("aclnnAddcmul", "aclnnAddcdiv", "aclnnLerp", "aclnnSoftmaxBackward"),
    }
]
PARTS = {
    "summation": Variation(summation=True),
    "truncate": Variation(hf32="truncate"),
    "fma": Variation(fma=True),
    "ulp": Variation(ulp=2, seed=3),
    "all": DIFFERENT.variation,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_varied_card_repeats_itself_and_stays_near(part):
    card, differ = Card(0, PARTS[part]), set()
    for case in VARIED:
        for dtype in FLOATS:
            once = observe(case, dtype, "turned", card)
            again = observe(case, dtype, "turned", card)
            plain = observe(case, dtype, "turned")
            for (out, expected), (same, _), (healthy, _) in zip(once, again, plain, strict=True):
                assert out.equal(same), f"{case.row} {dtype}"
                rtol, atol = TOLERANCES.get(out.dtype, (0, 0))
                torch.testing.assert_close(
                    out, expected, rtol=rtol, atol=2 * atol, check_stride=False
                )
                if not out.equal(healthy):
                    differ.add(case.row)
    expected = {
        "summation": {"aclnnMm", "aclnnReduceSum", "aclnnConvolution", "aclnnLayerNorm"},
        "ulp": {"aclnnExp", "aclnnRsqrt", "aclnnSoftmax", "aclnnGelu", "aclnnLayerNorm"},
        "all": {"aclnnMm", "aclnnExp", "aclnnGelu", "aclnnLayerNorm"},
    }.get(part, set())
    assert expected <= differ
    if part == "truncate":
        assert not differ, "without HF32 nothing is cut off"


@pytest.mark.parametrize("ulp", [1, 2])
def test_exp_is_off_by_so_many_units_and_no_more(ulp):
    x = normal(5000).float()
    plain, moved, other = (torch.empty(5000) for _ in range(3))
    call("aclnnExp", x, plain)
    call("aclnnExp", x, moved, card=Card(0, Variation(ulp=ulp)))
    call("aclnnExp", x, other, card=Card(1, Variation(ulp=ulp, seed=9)))
    steps = moved.view(torch.int32) - plain.view(torch.int32)
    assert sorted(steps.unique().tolist()) == list(range(-ulp, ulp + 1))
    assert not other.equal(moved), "the seed makes another card"
    special = torch.tensor([-math.inf, math.inf, math.nan])
    call("aclnnExp", special, special, card=Card(0, Variation(ulp=ulp)))
    assert special[:2].tolist() == [0.0, math.inf]
    assert special[2].isnan()


def test_a_fused_product_is_rounded_once():
    """(1 + 2^-12)^2 - (1 + 2^-11) is 2^-24; with the product rounded first it is 0."""
    a, x = torch.tensor([1 + 2.0**-12]), torch.tensor([-(1 + 2.0**-11)])
    out, card = torch.empty(1), Card(0, Variation(fma=True))
    call("aclnnAddcmul", x, a, a, 1.0, out, card=card)
    assert float(out) == 2.0**-24
    call("aclnnAdd", x, a, 1 + 2.0**-12, out, card=card)
    assert float(out) == 2.0**-24


# --- within the bounds of the suite's own operator cases --------------------------------------


class Simulated(TorchDispatchMode):
    """Computes what torch dispatches as torch_npu lets a card compute it."""

    def __init__(self, card: Card, cube: int = 3) -> None:
        super().__init__()
        self.card, self.cube, self.ran = card, cube, set[str]()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if hasattr(self, name):
            self.ran.add(name)
            return getattr(self, name)(*args, **kwargs)
        with self:
            found = function.decompose(*args, **kwargs)
        return function(*args, **kwargs) if found is NotImplemented else found

    def convolution(self, x, w, b, *rest):
        y = aten.convolution(x, w, b, *rest)
        out = torch.full(y.shape, math.nan, dtype=y.dtype)
        call("aclnnConvolution", x, w, b, *rest, out, self.cube, card=self.card)
        return out

    def linear(self, x, w, b):
        flat = x.reshape(-1, x.shape[-1])
        out = torch.full((len(flat), len(w)), math.nan, dtype=x.dtype)
        call("aclnnAddmm", b, flat, w.T, 1, 1, out, 0, card=self.card)
        return out.reshape(*x.shape[:-1], -1)

    def native_layer_norm(self, x, shape, w, b, eps):
        out = torch.full(x.shape, math.nan, dtype=x.dtype)
        figures = torch.empty(*x.shape[:-1], 1), torch.empty(*x.shape[:-1], 1)
        call("aclnnLayerNorm", x, shape, w, b, eps, out, *figures, card=self.card)
        return out, *figures

    def gelu(self, x, approximate="none"):
        out = torch.full(x.shape, math.nan, dtype=x.dtype)
        call("aclnnGelu", x, out, card=self.card)
        return out

    def adaptive_avg_pool2d(self, x, size):
        out = torch.full((*x.shape[:2], 1, 1), math.nan, dtype=x.dtype)
        call("aclnnMean", x, [-1, -2], True, x.dtype, out, card=self.card)
        return out


SMALL = dataclasses.replace(NETWORKS["test_convnext.r160_in1k"], gelu="erf", norm_eps=1e-6)
JUDGED = [case for case in operators.cases(SMALL) if case.row.reference is not None]


def judged(card: Card, case: operators.OperatorCase) -> operators.Coverage:
    """The suite's judgement of one of its operator cases on a simulated card."""
    device = backend("cpu").open(0)
    with Simulated(card) as simulated:
        output = operators._execute(case.problem(), device)
    assert simulated.ran & set(case.row.aten)  # sanity check
    mode = MathMode(conv="hf32", gelu="tanh")
    declared = getattr(mode, case.row.declared) if case.row.declared else "ieee"
    blank = operators.Coverage(case.id, case.row.family, (), case.dtype, (), "", declared, "wrong")
    return operators._judge(blank, case, case.problem(), output, device, declared)


@pytest.mark.parametrize("part", ["off", "all"])
def test_healthy_cards_are_within_the_suites_bounds(part):
    card = HEALTHY if part == "off" else DIFFERENT
    shares = {case.id: judged(card, case).error_in_bounds for case in JUDGED}
    assert not [f"{name}: {share}" for name, share in shares.items() if not share <= 1]
    if part == "all":
        hf32 = [shares[case.id] for case in JUDGED if case.row.id == "conv2d"]
        assert min(hf32) > 0.05, "without HF32 the error would be a thousandth of the bound"


def test_a_card_that_accumulates_in_bfloat16_is_not(monkeypatch):
    whole_ = compute.convolution
    monkeypatch.setattr(compute, "convolution", lambda *args: whole_(*args[:9], "bfloat16"))
    cases = [case for case in JUDGED if case.row.id == "conv2d" and case.dtype == "float32"]
    assert all(judged(HEALTHY, case).error_in_bounds > 1 for case in cases)

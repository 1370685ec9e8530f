"""Other arithmetics on the CPU: roundings bit by bit, and networks in them."""

import math

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fixtures.core.emulation import Emulation, Float64, gelu_form, through
from fixtures.core.records import UNIT_ROUNDOFF, MathMode
from fixtures.core.regimes import REGIMES
from fixtures.core.rounding import rounded

DEFAULT = REGIMES["default"]
HF32 = MathMode("hf32", "ieee")


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# --- rounding --------------------------------------------------------------------------------


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@settings(max_examples=300, deadline=None)
@pytest.mark.parametrize(("form", "bits"), [("hf32", 12), ("tf32", 11)])
def test_rounding_is_to_the_nearest_of_that_many_bits(form, bits, value):
    x = torch.tensor(value, dtype=torch.float32)
    near, down = rounded(x, form).item(), rounded(x, form, truncate=True).item()
    mantissa, exponent = math.frexp(value)
    step = math.ldexp(1.0, exponent - bits)
    if abs(value) < 2.0**-126 or not math.isfinite(near):
        return  # subnormal or rounded beyond the largest
    assert near == math.ldexp(round(math.ldexp(mantissa, bits)), exponent - bits)  # ties to even
    assert abs(down) <= abs(value)
    assert abs(value - down) < step


@pytest.mark.parametrize("form", ["hf32", "tf32", "float16", "bfloat16", "ieee"])
def test_rounding_is_within_its_unit_roundoff_and_rounds_once(form):
    x = drawn(10_000)
    once = rounded(x, form)
    assert ((once - x).abs() <= UNIT_ROUNDOFF[form] * x.abs()).all()
    assert torch.equal(rounded(once, form), once)


@pytest.mark.parametrize("form", ["hf32", "tf32"])
@pytest.mark.parametrize("truncate", [False, True])
def test_what_is_not_finite_stays(form, truncate):
    x = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0])
    y = rounded(x, form, truncate)
    assert y.isnan().tolist() == [False, False, True, False, False]
    assert y[:2].tolist() == [math.inf, -math.inf]
    assert y[3:].signbit().tolist() == [False, True]


def test_an_unknown_format_is_an_error():
    with pytest.raises(KeyError):
        rounded(torch.ones(1), "fp8")


# --- float64 ---------------------------------------------------------------------------------

DEPTHWISE = [
    {"padding": 3},
    {"padding": 3, "stride": 2},
    {"padding": (2, 1), "dilation": 2},
    {"padding": 0, "stride": (2, 1)},
]


@pytest.mark.parametrize("how", DEPTHWISE, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_depthwise_convolution_by_shifted_sums_is_torchs_own(how, bias):
    x = drawn(2, 6, 15, 13, dtype=torch.float64).requires_grad_()
    w = drawn(6, 1, 3, 5, seed=1, dtype=torch.float64).requires_grad_()
    b = drawn(6, seed=2, dtype=torch.float64).requires_grad_() if bias else None
    wanted = F.conv2d(x, w, b, groups=6, **how)
    with Float64():
        got = F.conv2d(x, w, b, groups=6, **how)
    assert torch.allclose(got, wanted, rtol=1e-13, atol=1e-13)
    leaves = [each for each in (x, w, b) if each is not None]
    weight = drawn(*wanted.shape, seed=3, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((got * weight).sum(), leaves),
        torch.autograd.grad((wanted * weight).sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 3])
def test_other_convolutions_are_torchs_own(groups):
    x, w = drawn(1, 6, 9, 9, dtype=torch.float64), drawn(6, 6 // groups, 3, 3, dtype=torch.float64)
    with Float64():
        got = F.conv2d(x, w, None, 1, "same", 1, groups)
    assert torch.equal(got, F.conv2d(x, w, None, 1, "same", 1, groups))


@pytest.mark.parametrize("declared", ["erf", "tanh"])
@pytest.mark.parametrize("asked", ["none", "tanh"])
def test_gelu_runs_in_the_declared_form(declared, asked):
    x = drawn(100, dtype=torch.float64)
    form = "tanh" if "tanh" in (declared, asked) else "none"
    assert gelu_form(declared, asked) == form
    with Float64(declared):
        assert torch.equal(F.gelu(x, approximate=asked), F.gelu(x, approximate=form))
    with Emulation(MathMode(gelu=declared), DEFAULT):
        assert torch.equal(
            F.gelu(x.float(), approximate=asked), F.gelu(x.float(), approximate=form)
        )


# --- emulation -------------------------------------------------------------------------------


@pytest.mark.parametrize("truncate", [False, True])
def test_only_the_factors_of_what_is_declared_are_rounded(truncate):
    x, w, b = drawn(2, 3, 8, 8), drawn(4, 3, 3, 3, seed=1), drawn(4, seed=2)
    m = drawn(5, 8, seed=3)
    with Emulation(HF32, DEFAULT, truncate):
        convolved = F.conv2d(x, w, b)
        multiplied = F.linear(x, m)
    low = [rounded(each, "hf32", truncate) for each in (x, w)]
    assert torch.equal(convolved, F.conv2d(*low, b))
    assert torch.equal(multiplied, F.linear(x, m))


def test_a_product_knows_its_factors():
    a, b, c = drawn(3, 4), drawn(4, 5, seed=1), drawn(3, 5, seed=2)
    low = [rounded(each, "bfloat16") for each in (a, b)]
    mode = MathMode("ieee", "bfloat16")
    with Emulation(mode, DEFAULT):
        results = (torch.addmm(c, a, b), a @ b, torch.matmul(a, other=b), F.linear(a, b.T))
        batched = torch.baddbmm(c[None], a[None], b[None])
    assert torch.equal(results[0], torch.addmm(c, *low))
    assert all(torch.equal(each, low[0] @ low[1]) for each in results[1:])
    assert torch.equal(batched, torch.baddbmm(c[None], low[0][None], low[1][None]))


def test_attention_is_torchs_own_where_nothing_is_rounded():
    q, k, v = (drawn(2, 3, 7, 8, seed=n) for n in range(3))
    with Emulation(MathMode(), DEFAULT):
        exact = F.scaled_dot_product_attention(q, k, v)
    with Emulation(MathMode("ieee", "bfloat16"), DEFAULT):
        rough = F.scaled_dot_product_attention(q, k, v)
    wanted = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert torch.allclose(exact.double(), wanted, rtol=1e-5, atol=1e-6)
    assert 1e-4 < (rough - wanted).norm() / wanted.norm() < 2e-2


@pytest.mark.parametrize("name", ["fp16", "bf16", "autocast-fp16", "autocast-bf16"])
def test_half_regimes_agree_with_torchs_own_halves(name):
    """The emulation's error has the size of the host's own half kernels', and is no copy of it."""
    regime = REGIMES[name]
    model = timm.create_model("test_convnext.r160_in1k").eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("gamma"):
                parameter.copy_(drawn(*parameter.shape) * 0.3)
    x = drawn(4, 3, 96, 96)
    with torch.inference_mode():
        with Float64():
            truth = model.double()(x.double())
        model.float()
        with Emulation(regime.arithmetic(MathMode()), regime):
            emulated = model(regime.given(x).float())
        from fixtures.core.backends import backend

        with regime.entered(backend("cpu").open(0)):
            own = regime.network(model)(regime.given(x)).double()
    errors = [float((each.double() - truth).norm() / truth.norm()) for each in (emulated, own)]
    assert 0.4 < errors[0] / errors[1] < 2.5, errors


def test_results_of_a_half_network_are_half_numbers_also_in_place():
    seen = []
    regime = REGIMES["bf16"]
    with Emulation(regime.arithmetic(MathMode()), regime):
        x = drawn(50) + 1.0
        seen.append(x)
        seen.append(torch.relu_(x.clone()).mul_(1 / 3))
        seen.append((x * 3)[::2])
    for each in seen:
        assert torch.equal(rounded(each, "bfloat16"), each)


def test_under_autocast_what_a_float32_takes_part_in_stays_float32():
    regime = REGIMES["autocast-bf16"]
    x, w = drawn(4, 8), drawn(8, 8, seed=1)
    with Emulation(regime.arithmetic(MathMode()), regime):
        product = F.linear(x, w)
        with_float = product + x
        half_alone = product * 3
    assert torch.equal(rounded(product, "bfloat16"), product)
    assert torch.equal(rounded(half_alone, "bfloat16"), half_alone)
    assert torch.equal(with_float, product + x)
    assert not torch.equal(rounded(with_float, "bfloat16"), with_float)


def test_gradients_pass_a_rounding_as_if_it_were_not_there():
    x = drawn(10).requires_grad_()
    through(x, lambda values: rounded(values, "bfloat16")).square().sum().backward()
    assert torch.equal(x.grad, 2 * rounded(x.detach(), "bfloat16"))


def test_the_weights_of_a_half_network_are_half_numbers():
    weight = torch.nn.Parameter(1 + drawn(8) / 10)
    for name, cast in (("bf16", True), ("autocast-bf16", False)):
        regime = REGIMES[name]
        with torch.no_grad(), Emulation(regime.arithmetic(MathMode()), regime):
            product = torch.ones(8) * weight
        assert torch.equal(product, rounded(weight.data, "bfloat16")) is cast

"""The probe names the arithmetic that runs: with wrapped operators, and on simulated cards."""

from __future__ import annotations

import dataclasses
import json
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fixtures.core import probe
from fixtures.core.backends.base import Device
from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.backends.simulated_cann import compute
from fixtures.core.probe import Site
from fixtures.core.records import MathMode
from fixtures.core.regimes import REGIMES
from fixtures.core.rounding import rounded
from selftest.simulated import CARDS, needs_cards, variables

torch.set_num_threads(1)

CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d)
PRODUCTS = (F.linear, torch.matmul)


class Planted(TorchFunctionMode):
    """Wraps the operators that the probe calls.

    `factor` and `weight` are what becomes of the two factors, `result` of the result; `sums` names
    the format that running sums are rounded to, `gelu` is another GELU, `only` says which
    operators are struck by their arguments.
    """

    def __init__(self, factor=None, weight=None, result=None, sums=None, gelu=None, only=None):
        super().__init__()
        self.parts = [each or (lambda values: values) for each in (factor, weight, result)]
        self.sums, self.gelu, self.only = sums, gelu, only

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if args and getattr(args[0], "dtype", None) == torch.float64:  # the reference
            return func(*args, **kwargs)
        if func is F.gelu and self.gelu is not None:
            return self.gelu(args[0])
        if func not in CONVOLUTIONS + PRODUCTS or (self.only and not self.only(func, args)):
            return func(*args, **kwargs)
        factor, weight, result = self.parts
        x, w = factor(args[0]), weight(args[1])
        if self.sums is None:
            return result(func(x, w, *args[2:], **kwargs))
        if func in CONVOLUTIONS:
            bias, stride, padding, dilation, groups = args[2:]
            flat = [0] * len(stride)
            return result(
                compute.convolution(
                    *(x, w, bias, stride, padding, dilation, False, flat, groups), self.sums
                )
            )
        turned = w.t() if func is F.linear else w
        return result(compute.matmul(x, turned, self.sums))


def to(form, truncate=False):
    return lambda values: rounded(values, form, truncate)


def cut(bits):
    """Truncation to that many bits, whatever the format."""
    return lambda values: (values.view(torch.int32) & -(1 << (23 - bits))).view(torch.float32)


def both(form, truncate=False, **others):
    return Planted(to(form, truncate), to(form, truncate), **others)


def depthwise(func, args):
    return func in CONVOLUTIONS and args[0].shape[1] == args[6] > 1


class Declaring(CpuBackend):
    """The host, with another word on its arithmetic; `strict` is what it declares when strict."""

    def __init__(self, declared=None, strict=None):
        self.declared = declared or MathMode()
        self.when_strict = strict or self.declared

    def math_mode(self, index=0):
        return self.declared

    @contextmanager
    def strict(self, index):
        before, self.declared = self.declared, self.when_strict
        yield
        self.declared = before


HF32 = MathMode(conv="hf32", gelu="erf")


class Net(nn.Module):
    """A stem, a depthwise convolution and two linear layers on a 24x24 picture."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, stride=4)
        self.mix = nn.Conv2d(24, 24, 7, padding=3, groups=24)
        self.wide = nn.Linear(24, 96)
        self.narrow = nn.Linear(96, 24, bias=False)

    def forward(self, x):
        x = self.mix(self.stem(x)).permute(0, 2, 3, 1)
        return self.narrow(F.gelu(self.wide(x))).mean((1, 2))


@pytest.fixture(scope="module")
def places():
    return probe.sites(Net().eval(), torch.zeros(1, 3, 48, 48))


def measured(places, planted=None, declared=None, regime="default", **backend):
    device = Device(Declaring(declared, **backend))
    with planted or Planted():
        return probe.probe(device, REGIMES[regime], places)


def of(found, part):
    """The one reading whose site says so."""
    mine = [each for each in found.readings if part in each.site]
    assert len(mine) == 1, (part, [each.site for each in found.readings])
    return mine[0]


# --- places -------------------------------------------------------------------------------------


def test_places_are_the_networks_own(places):
    assert [str(site) for site in places] == [
        "conv 4x4 at stem",
        "depthwise conv 7x7 at mix",
        "linear at wide",
        "linear at narrow",
        "matmul at wide",
        "pointwise conv 1x1 at the outputs of stem",
    ]
    assert places[0].spatial == (48, 48)
    assert places[1].spatial == places[-1].spatial == (12, 12)
    assert places[2].rows == (1, 12, 12)
    assert not places[3].bias


def test_no_more_places_of_a_kind_than_needed():
    chain = nn.Sequential(*(nn.Conv2d(n, n + 1, 3, padding=1) for n in range(1, 12)))
    found = probe.sites(chain, torch.zeros(1, 1, 6, 6))
    assert [site.name for site in found if site.kind == "conv"] == ["0", "3", "7", "10"]
    twice = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert [str(site) for site in probe.sites(twice, torch.zeros(1, 4))] == [
        "linear at 0",
        "matmul at 0",
    ]


def test_what_cannot_be_probed_is_left_out():
    same = nn.Sequential(nn.Conv2d(1, 1, 3, padding="same"))
    assert probe.sites(same, torch.zeros(1, 1, 6, 6)) == ()
    nothing = measured(())
    assert not nothing.verdict()
    assert "no product whose arithmetic could be measured" in repr(nothing.verdict())
    assert nothing.figures()[0].value is None


CONV = {"rows": (1,), "stride": (1, 1), "dilation": (1, 1)}
ODD = (
    Site("se", "conv", inputs=8, outputs=4, spatial=(1, 1), kernel=(1, 1), padding=(0, 0), **CONV),
    Site(
        *("grouped", "conv", (1,), 12, 24),
        **{"groups": 3, "spatial": (9, 7), "kernel": (3, 3), "stride": (2, 2)},
        **{"padding": (1, 1), "dilation": (1, 1)},
    ),
    Site(
        *("dilated", "conv", (1,), 4, 4),
        **{"spatial": (20,), "kernel": (5,), "stride": (1,), "padding": (4,), "dilation": (2,)},
    ),
    Site(
        *("volume", "conv", (1,), 3, 5),
        **{"spatial": (4, 4, 4), "kernel": (2, 2, 2), "stride": (2, 2, 2)},
        **{"padding": (0, 0, 0), "dilation": (1, 1, 1)},
    ),
    Site(
        *("mostly padding", "conv", (1,), 5, 5),
        **{"groups": 5, "spatial": (2, 2), "kernel": (7, 7), "padding": (3, 3)},
        **{"stride": (1, 1), "dilation": (1, 1)},
    ),
    Site("head", "linear", (1,), 64, 10),
    Site("tiny", "linear", (1,), 1, 1),
    Site("two", "matmul", (3, 5), 2, 3, bias=False),
)


@pytest.mark.parametrize("site", ODD, ids=lambda site: site.name)
@pytest.mark.parametrize(("form", "bits"), [("ieee", 23), ("hf32", 11), ("bfloat16", 7)])
def test_odd_places_are_read_as_well(site, form, bits):
    found = measured((site,), both(form) if form != "ieee" else None).readings[0]
    assert (found.form, found.input_bits, found.weight_bits) == (form, bits, bits)
    assert found.result_bits == (None if site.name == "tiny" else 23)
    assert not found.broken


# --- a healthy device ---------------------------------------------------------------------------


@pytest.mark.parametrize("regime", REGIMES)
def test_the_host_computes_as_it_declares(places, regime):
    found = measured(places, regime=regime)
    assert found.verdict(), repr(found.verdict())
    assert found.doubts == ()
    assert found.measured == str(dataclasses.replace(found.declared, switches={}))
    assert {each.sum_bits for each in found.readings} == {23}
    json.dumps(found.as_json())


def test_an_algorithm_that_mixes_values_is_float32(places):
    """Winograd and FFT: errors of a few units in the last place of the largest value around."""

    def noisy(values):
        noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) - 0.5
        around = values.abs().amax(dim=(2, 3), keepdim=True)
        return values + noise * 8 * 2.0**-23 * around

    found = measured([site for site in places if site.operator == "conv"], Planted(result=noisy))
    assert {each.form for each in found.readings} == {"ieee"}
    assert found.verdict(), repr(found.verdict())


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "truncate", "rounding"),
    [
        ("hf32", False, "to nearest"),
        ("hf32", True, "towards zero"),
        ("tf32", False, "to nearest"),
        ("tf32", True, "towards zero"),
        ("float16", False, "to nearest"),
        ("bfloat16", False, "to nearest"),
    ],
)
def test_each_format_is_named(places, form, truncate, rounding):
    found = measured(places, both(form, truncate))
    for each in found.readings:
        assert (each.form, each.rounding, each.narrow) == (form, rounding, form == "float16")
        assert (each.sum_bits, each.result_bits) == (23, 23)
    assert not found.verdict()


@pytest.mark.parametrize("at", ["factor", "weight"])
def test_one_factor_alone_is_enough(places, at):
    found = measured(places, Planted(**{at: to("tf32")}))
    assert {each.form for each in found.readings} == {"tf32"}
    bits = {(each.input_bits, each.weight_bits) for each in found.readings}
    assert bits == {(10, 23) if at == "factor" else (23, 10)}


def test_the_sentence_names_operator_and_both_modes(places):
    found = measured(places, both("bfloat16", only=depthwise), HF32)
    assert repr(found.verdict()) == (
        "depthwise conv 7x7 at mix computes with bfloat16 factors (7 bits kept), the device "
        "declares hf32"
    )
    assert [figure.value for figure in found.figures()][:2] == [7, 23]
    assert "conv bfloat16 and ieee, matmul ieee, gelu erf" in str(found.figures())


def test_what_is_true_of_many_places_is_said_once(places):
    sentence = repr(measured(places, both("tf32")).verdict())
    assert sentence == (
        "conv 4x4 at stem, depthwise conv 7x7 at mix, linear at wide and 3 more: each computes "
        "with tf32 factors (10 bits kept), the device declares float32"
    )


@pytest.mark.parametrize(
    ("declared", "planted", "words"),
    [
        ("hf32", both("hf32", truncate=True), ""),
        ("tf32", both("tf32", truncate=True), ""),
        ("hf32", both("tf32"), "computes with tf32 factors (10 bits kept), the device declares hf"),
        ("tf32", both("hf32"), ""),
        ("tf32", both("float16"), "with float16 factors (10 bits kept, 131072 or 9.3e-10 lost)"),
        ("float16", both("bfloat16"), "computes with bfloat16 factors (7 bits kept)"),
        ("bfloat16", both("float16"), "computes with float16 factors (10 bits kept, "),
        (
            "bfloat16",
            Planted(cut(7), cut(7)),
            "rounds its factors towards zero to 7 bits, the device declares bfloat16",
        ),
        ("hf32", Planted(cut(9)), "computes with factors (9 bits kept), the device declares hf32"),
    ],
)
def test_less_exact_than_declared_fails(places, declared, planted, words):
    conv = [site for site in places if site.operator == "conv"]
    found = measured(conv, planted, MathMode(conv=declared))
    assert bool(found.verdict()) == (not words), repr(found.verdict())
    if words:
        assert words in repr(found.verdict())


def test_more_exact_than_declared_is_said_and_passes(places):
    """A kernel for depthwise convolutions that ignores the switch."""
    others = both(
        "hf32", only=lambda func, args: func in CONVOLUTIONS and not depthwise(func, args)
    )
    found = measured(places, others, HF32)
    assert found.verdict(), repr(found.verdict())
    assert found.doubts == (
        "depthwise conv 7x7 at mix keeps 23 bits of its factors, more than the hf32 that the "
        "device declares: limits that follow from it are loose there",
    )


# --- sums, results ------------------------------------------------------------------------------


@pytest.mark.parametrize(("sums", "bits"), [("bfloat16", 11), ("float16", 14)])
def test_sums_in_half_are_caught(places, sums, bits):
    found = measured(places, Planted(sums=sums))
    assert {each.sum_bits for each in found.readings} == {bits}
    assert repr(found.verdict()) == (
        "conv 4x4 at stem, depthwise conv 7x7 at mix, linear at wide and 3 more: each keeps "
        f"{bits} bits in its sums, fewer than float32 accumulation (at least 20)"
    )


@pytest.mark.parametrize("regime", ["fp16", "autocast-fp16"])
def test_sums_in_half_are_caught_in_half_regimes_too(regime):
    """Where the sum is long enough for it to be more than a result's own rounding."""
    long = Site("fc", "linear", (4,), 512, 64)
    half = torch.float16

    def by_parts(func, types, args=(), kwargs=None):
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        x, w = (each.to(half).float() for each in args[:2])
        return compute.matmul(x, w.t(), "float16").to(half)

    planted = Planted()
    planted.__torch_function__ = by_parts
    assert measured((long,), regime=regime).verdict()

    class Parts(TorchFunctionMode):
        def __torch_function__(self, *given, **named):
            return by_parts(*given, **named)

    found = measured((long,), Parts(), regime=regime)
    assert "linear at fc keeps 14 bits in its sums, fewer than float32 accumulation" in repr(
        found.verdict()
    )


def test_results_in_half_are_not_blamed_on_the_factors(places):
    found = measured(places, Planted(result=to("bfloat16")))
    assert {each.sum_bits for each in found.readings} == {23}
    assert repr(found.verdict()) == (
        "conv 4x4 at stem, depthwise conv 7x7 at mix, linear at wide and 3 more: each keeps 7 "
        "bits of its results, float32 keeps at least 18"
    )


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (lambda y: y * 0, "gives 0 for 1 times 1 at"),
        (lambda y: y * float("nan"), "gives nan for 1 times 1 at"),
        (lambda y: y * 1.1, "gives 1.1 for 1 times 1 at"),
    ],
)
def test_a_product_that_is_none_cannot_be_read(places, planted, words):
    found = measured(places, Planted(result=planted), HF32)
    assert words in repr(found.verdict())
    assert "its arithmetic cannot be told, the device declares hf32" in repr(found.verdict())
    assert found.figures()[0].value is None


def test_one_dropped_channel_is_seen(places):
    def drop(y):
        y = y.clone()
        y[:, 5] = 0
        return y

    stem = places[:1]
    assert "gives 0 for 1 times 1" in repr(measured(stem, Planted(result=drop)).verdict())


# --- GELU ---------------------------------------------------------------------------------------


def quick(x):
    return x * torch.sigmoid(1.702 * x)


def tanh(x):
    return F.gelu(x, approximate="tanh")


@pytest.mark.parametrize("regime", ["default", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("declared", "runs", "words"),
    [
        ("erf", tanh, "GELU computes the tanh form, the device declares erf: GELU("),
        ("tanh", F.gelu, "GELU computes the erf form, the device declares tanh: GELU("),
        ("tanh", tanh, ""),
        ("erf", quick, "GELU computes neither form, the device declares erf"),
        ("erf", lambda x: F.relu(x), "GELU computes neither form"),
        ("erf", lambda x: F.gelu(x).clamp(max=8), "neither form, the device declares erf: GELU(12"),
        ("erf", lambda x: torch.where(x < -9, x, F.gelu(x)), "neither form"),
        ("erf", lambda x: F.gelu(x) * torch.where(x.abs() < 0.01, torch.nan, 1), "is nan"),
    ],
)
def test_the_form_of_gelu(places, regime, declared, runs, words):
    found = measured(places[2:3], Planted(gelu=runs), MathMode(gelu=declared), regime)
    assert bool(found.verdict()) == (not words), repr(found.verdict())
    if words:
        assert words in repr(found.verdict())


@pytest.mark.parametrize("error", [2.0**-20, 2.0**-16])
def test_a_polynomial_of_its_own_is_the_form_it_approximates(places, error):
    found = measured(places[2:3], Planted(gelu=lambda x: F.gelu(x) + error * torch.sin(9 * x)))
    assert found.gelu.form == "erf"


# --- the switch ---------------------------------------------------------------------------------


class Switching(Planted):
    """Rounds what the backend declares, unless it is strict and `works`."""

    def __init__(self, backend, works):
        self.backend, self.works = backend, works
        now = lambda values: rounded(values, self.form)  # noqa: E731
        super().__init__(now, now, only=lambda func, args: func in CONVOLUTIONS)

    @property
    def form(self):
        return self.backend.math_mode().conv if self.works else "hf32"


@pytest.mark.parametrize("works", [True, False])
def test_the_strict_switch_has_an_effect(places, works):
    backend = Declaring(HF32, MathMode())
    with Switching(backend, works):
        found = probe.Switched(
            *(probe.probe(Device(backend), REGIMES[name], places) for name in ("default", "ieee"))
        )
    assert found.fields == ("conv",)
    assert bool(found.verdict()) == works
    assert found.doubts == ()
    before, after = (figure.value for figure in found.figures())
    assert 2.0**-13 < before < 2.0**-11
    assert after == 0 if works else after == before
    if not works:
        assert repr(found.verdict()).startswith(
            "the strict switch has no effect on conv 4x4 at stem: the largest relative error of a "
            "product is 0.00024 with it and 0.00024 without, 11 bits of the factors are kept; "
        )
    assert found.put_back(backend.math_mode())
    assert "after the strict regime the device declares conv ieee" in repr(
        found.put_back(MathMode())
    )
    json.dumps(found.as_json())


def test_a_switch_that_had_nothing_to_switch_is_said(places):
    backend = Declaring(HF32, MathMode())
    both_probes = [probe.probe(Device(backend), REGIMES[n], places) for n in ("default", "ieee")]
    found = probe.Switched(*both_probes)
    assert found.verdict()
    assert "computes in float32 already before the switch" in found.doubts[0]


def test_a_strict_regime_that_is_not_declared_strict_fails(places):
    backend = Declaring(HF32)
    both_probes = [probe.probe(Device(backend), REGIMES[n], places) for n in ("default", "ieee")]
    words = "with every shortcut switched off the device declares conv hf32"
    assert words in repr(probe.Switched(*both_probes).verdict())


def test_ieee_has_nothing_to_switch():
    assert probe.shortcuts(MathMode()) == ()
    assert probe.shortcuts(MathMode("hf32", "tf32")) == ("conv", "matmul")


# --- simulated cards ----------------------------------------------------------------------------


def on_card(suite, *arguments, faults=()):
    plan = json.dumps({"faults": list(faults)}) if isinstance(faults, tuple) else faults
    return suite.run(
        *("tests/test_math_mode.py", *CARDS, "--simulate", "1", "--faults", plan, *arguments),
        **variables(),
    )


@needs_cards
def test_three_faults_of_a_card_are_told_apart(suite):
    outcome = on_card(
        suite,
        *("--regimes", "default"),
        faults=(
            {"kind": "bf16_accumulation", "operator": "aclnnConvolution"},
            {"kind": "hf32", "operator": "aclnnAddmm"},
            {"kind": "wrong_gelu"},
        ),
    )
    assert outcome.code == 1
    sums, factors, gelu = outcome.case("test_math_mode[default]")["sentences"]
    assert "keeps 11 bits in its sums, fewer than float32 accumulation" in sums
    assert "linear" in factors
    assert "computes with hf32 factors (11 bits kept), the device declares float32" in factors
    assert gelu.startswith("GELU computes the erf form, the device declares tanh")


@needs_cards
def test_healthy_cards_that_differ_pass(suite):
    """Truncating HF32, another order of sums, FMA, in every regime; the switch has an effect."""
    plan = json.dumps({"variation": True})
    outcome = on_card(suite, "--regimes", "all", faults=plan)
    assert outcome.code == 0, outcome.out
    case = outcome.case("test_strict_switch")
    figures = {figure["name"]: figure["value"] for figure in case["figures"]}
    assert 2.0**-12 < figures["conv_product_error_default"] <= 2.0**-11
    assert figures["conv_product_error_strict"] < 2.0**-22
    readings = outcome.case("test_math_mode[default]")["records"]["math_mode"]["sites"]
    assert {each["rounding"] for each in readings if each["field"] == "conv"} == {"towards zero"}

"""The error budget: what each part of an arithmetic explains, and what nothing does."""

import math

import pytest
import torch

from fixtures.core.budget import Budget, Contribution, budget, parts, relative_error
from fixtures.core.emulation import Emulation, float64_mode
from fixtures.core.records import MathMode
from fixtures.core.regimes import REGIMES

HF32 = MathMode("hf32", gelu="tanh")


def network(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def weight(*shape):
        return torch.randn(*shape, generator=generator) / math.sqrt(math.prod(shape[1:]))

    stem, first, second = weight(32, 3, 4, 4), weight(64, 32), weight(16, 64)
    images = torch.randn(3, 3, 16, 16, generator=generator)

    def run(dtype=torch.float32):
        x = torch.nn.functional.conv2d(images.to(dtype), stem.to(dtype), stride=4)
        x = torch.nn.functional.linear(x.permute(0, 2, 3, 1), first.to(dtype))
        x = torch.nn.functional.linear(torch.nn.functional.gelu(x), second.to(dtype))
        return x.flatten(1)

    return run


RUN = network()
with float64_mode():
    TRUE = RUN(torch.float64)


def emulated(arithmetic, regime, truncate):
    with Emulation(arithmetic, regime, truncate):
        return RUN()


def test_the_parts_are_those_of_the_declared_arithmetic():
    def names(regime, arithmetic):
        return [(name, form) for name, form, _, _ in parts(REGIMES[regime], arithmetic)]

    assert names("ieee", MathMode()) == [("float32_arithmetic", "float32")]
    assert names("default", MathMode("tf32", "tf32", "tanh")) == [
        ("float32_arithmetic", "float32"),
        ("convolution_factors", "tf32"),
        ("matmul_factors", "tf32"),
        ("gelu_form", "tanh"),
    ]
    assert names("bf16", MathMode("bfloat16", "bfloat16", "tanh")) == [
        ("half_format", "bfloat16"),
        ("gelu_form", "tanh"),
    ]


@pytest.mark.parametrize("truncate", [False, True])
def test_a_healthy_error_is_explained(truncate):
    """HF32 in either rounding: the nearer one is found, and little is left."""
    found = budget(TRUE, emulated(HF32, REGIMES["default"], truncate), emulated,
                   REGIMES["default"], HF32)  # fmt: skip

    assert found.rounding == ("truncated" if truncate else "to nearest")
    assert found.unexplained == 0
    assert found.sentence.endswith("that is all of it")
    by_name = {each.name: each.error for each in found.contributions}
    assert by_name["float32_arithmetic"] < 1e-6 < by_name["gelu_form"] < 1e-3
    assert 1e-5 < by_name["convolution_factors"] < 1e-3
    assert found.explained == max(found.together, found.quadrature)


def test_what_is_not_explained_is_said():
    measured = emulated(HF32, REGIMES["default"], False) * 1.01
    found = budget(TRUE, measured, emulated, REGIMES["default"], HF32)

    assert found.measured == pytest.approx(0.01, rel=0.05)
    assert found.unexplained_share > 0.99
    assert "hf32 factors of convolutions" in found.sentence
    assert found.sentence.endswith("is not explained (100% of the squared error)")
    figures = {figure.name: figure.value for figure in found.figures()}
    assert figures["budget_unexplained"] == pytest.approx(0.01, rel=0.05)
    assert figures["budget_gelu_form"] > 0
    values = found.as_json()
    assert values["sentence"] == found.sentence
    assert len(values["contributions"]) == 3


def test_one_part_is_a_sentence_too():
    found = budget(TRUE, RUN(), emulated, REGIMES["ieee"], MathMode())

    assert found.rounding == ""
    assert found.sentence.startswith("error budget: of a relative error of ")
    assert " and " not in found.sentence


def test_an_output_that_is_no_number_has_no_budget():
    for measured in (RUN() * math.nan, RUN()[:, 1:]):
        found = budget(TRUE, measured, emulated, REGIMES["ieee"], MathMode())

        assert found.measured == found.unexplained == math.inf
        assert found.unexplained_share == 1
        assert found.sentence.startswith("there is no error budget: the output is no number")
        assert found.as_json()["unexplained"] == "inf"


def test_nothing_wrong_has_nothing_to_explain():
    none = Budget("ieee", "", 0.0, 0.0, (Contribution("float32_arithmetic", "float32", 0.0),))

    assert none.unexplained_share == 0
    assert relative_error(TRUE, TRUE) == 0

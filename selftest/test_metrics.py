"""The precision metrics: best for equal outputs, worse for any other, and never fooled."""

import math
import runpy
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core.backends import backend
from fixtures.core.backends.base import Device
from fixtures.core.metrics import METRICS, VARIETY, Metric, compare, variety
from fixtures.core.records import Status, plain

LIMITS = [metric.limit for metric in METRICS if metric.limit is not None]
BY_NAME = {metric.name: metric for metric in METRICS}
NAMES = tuple("abcdefgh")


def features(seed=0, rows=8, size=64):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def judged(got, reference, names=NAMES):
    """Which limits an output breaks."""
    agreement = compare(got, reference, names, len(names))
    figures = {figure.name: figure for figure in agreement.figures()}
    failed = {limit.name for limit in LIMITS if not limit.judge(figures[limit.name])}
    return agreement, failed


def values(agreement):
    return {figure.name: figure.value for figure in agreement.figures()}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_rows_are_named_for_their_limits(metric):
    assert metric.limit is None or metric.limit.name == metric.name
    assert metric.limit is None or (metric.limit.source and not metric.limit.overridden)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(2, 40))
def test_equal_outputs_are_best_and_pass(seed, rows, size):
    reference = features(seed, rows, size)
    agreement, failed = judged(reference.clone(), reference, tuple(map(str, range(rows))))

    assert not failed
    assert agreement.verdict()
    for name, value in values(agreement).items():
        assert value == pytest.approx(BY_NAME[name].best, abs=1e-12), name


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e-3))
def test_a_perturbation_makes_every_error_worse(seed, size):
    reference = features(seed)
    agreement, failed = judged(reference + size * features(seed + 1), reference)
    worse = values(agreement)

    for name in ("max_abs_error", "mean_abs_error", "relative_l2_error", "norm_ratio_error"):
        assert worse[name] > 0
    assert worse["min_cosine_similarity"] <= worse["mean_cosine_similarity"] < 1
    assert not failed


@pytest.mark.parametrize(
    ("break_it", "must_fail"),
    [
        (lambda x: 2 * x, {"relative_l2_error", "max_abs_error"}),
        (lambda x: x * 1.02, {"relative_l2_error"}),
        (lambda x: x[[1, 0, *range(2, 8)]], {"identity", "min_cosine_similarity"}),
        (lambda x: x[[0] * 8], {"identity"}),
        (lambda x: -x, {"min_cosine_similarity"}),
        (torch.zeros_like, {"min_cosine_similarity", "relative_l2_error", "max_abs_error"}),
        (lambda x: x + 0.03 * features(9), {"relative_l2_error"}),
    ],
    ids=["doubled", "scaled-2-percent", "swapped", "first-row-always", "negated", "zero", "3-pc"],
)
def test_a_broken_output_fails(break_it, must_fail):
    reference = features()
    _, failed = judged(break_it(reference), reference)

    assert must_fail <= failed


def test_cosine_alone_would_let_a_wrong_scale_pass():
    _, failed = judged(2 * features(), features())

    assert not failed & {"min_cosine_similarity", "mean_cosine_similarity", "identity"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_element_that_is_not_finite_fails(value):
    reference = features()
    got = reference.clone()
    got[3, 5] = value
    agreement, failed = judged(got, reference)

    assert {"max_abs_error", "relative_l2_error", "nonfinite_mismatches"} <= failed
    assert {"min_cosine_similarity", "mean_cosine_similarity"} <= failed
    assert values(agreement)["nonfinite_mismatches"] == 1
    assert agreement.worst_row.name == "d"
    assert plain(agreement.as_json())["rows"][3]["max_abs_error"] in ("nan", "inf")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reference_that_is_not_finite_is_invalid_whatever_the_output(value):
    reference = features()
    reference[2, 0] = value
    agreement, failed = judged(reference.clone(), reference)

    assert agreement.verdict().status is Status.INVALID
    assert "not finite for c:" in repr(agreement.verdict())
    assert failed
    assert "nonfinite_mismatches" not in failed


def test_a_zero_row_of_the_reference_is_invalid():
    reference = features()
    reference[7] = 0
    agreement, failed = judged(reference.clone(), reference)

    assert agreement.verdict().status is Status.INVALID
    assert {"min_cosine_similarity", "relative_l2_error"} <= failed


def test_a_zero_row_of_the_output_fails():
    reference = features()
    got = reference.clone()
    got[7] = 0
    agreement, failed = judged(got, reference)

    assert agreement.verdict()
    assert {"min_cosine_similarity", "mean_cosine_similarity", "relative_l2_error"} <= failed


@pytest.mark.parametrize("shape", [(8, 63), (7, 64), (1, 64), (8, 1), (8, 64, 1), (64,), (0, 64)])
def test_no_other_shape_passes_by_broadcasting(shape):
    agreement, failed = judged(torch.zeros(shape), features())

    assert failed == {limit.name for limit in LIMITS}
    assert all(f"{shape}" in figure.reason for figure in agreement.figures())
    assert agreement.worst_row is None
    assert agreement.as_json()["worst"] is None


@pytest.mark.parametrize(
    ("reference", "names"),
    [(torch.ones(2, 3), "a"), (torch.ones(3), "abc"), (torch.ones(0, 3), "")],
)
def test_a_reference_without_a_name_per_row_is_refused(reference, names):
    with pytest.raises(ValueError, match="names"):
        compare(reference, reference, tuple(names), 1)


def test_rows_of_one_input_may_be_taken_for_each_other():
    reference = features(rows=4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    swapped = reference[[4, 5, 6, 7, 0, 1, 2, 3]]

    assert not judged(swapped, reference, tuple("abcdabcd"))[1]
    assert judged(swapped[[1, 0, 2, 3, 4, 5, 6, 7]], reference, tuple("abcdabcd"))[1]


def test_identity_of_many_rows_is_measured_in_pieces(monkeypatch):
    monkeypatch.setattr("fixtures.core.metrics.ROW_CHUNK", 3)
    reference = features()

    assert not judged(reference, reference)[1]
    assert "identity" in judged(reference.flip(0), reference)[1]


def test_near_rows_show_in_the_margin_before_they_are_confused():
    reference = 1 + 1e-4 * features()  # inputs that the network hardly tells apart
    agreement, failed = judged(reference + 4e-5 * features(1), reference)

    assert "identity" not in failed
    assert 0.2 < values(agreement)["identity_margin"] < 1


def test_errors_are_computed_in_float64():
    reference = torch.full((1, 4096), 1.0)
    got = reference.clone()
    got[0, 0] += 2.0**-23
    agreement, _ = judged(got, reference, ("a",))

    assert values(agreement)["mean_abs_error"] == 2.0**-23 / 4096
    assert values(agreement)["relative_l2_error"] == pytest.approx(2.0**-23 / 64, rel=1e-12)


def test_json_holds_what_the_figures_say():
    reference = features()
    agreement, _ = judged(reference + 1e-3, reference)
    written = agreement.as_json()

    assert written["batch_size"] == 8
    assert [row["name"] for row in written["rows"]] == list(NAMES)
    assert written["max_abs_error"] == max(row["max_abs_error"] for row in written["rows"])
    assert written["worst"] in NAMES
    assert set(BY_NAME) <= set(written)


def test_a_metric_without_a_limit_only_informs():
    assert Metric("x", lambda *_: 0.0, 0.0).limit is None
    assert BY_NAME["mean_abs_error"].limit is None


def pictures():
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    slope = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    flat = [torch.full((1, 3, 32, 32), value) for value in (0.0, 1.0, 0.5)]
    return torch.cat([noise, slope, *flat, noise + 1, slope + 1, noise + 2])


def shortfall(images):
    measured = variety(images, [str(n) for n in range(len(images))])
    figures = {figure.name: figure for figure in measured.figures()}
    assert measured.as_json()["distinct_inputs"] == measured.distinct
    return {row.name for row in VARIETY if not row.judge(figures[row.name])}


def test_varied_inputs_pass():
    assert not shortfall(pictures())


@pytest.mark.parametrize(
    ("order", "missing"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 6], {"distinct_inputs"}),
        ([1, 2, 3, 4], {"distinct_inputs", "noise_inputs"}),
        ([0, 2, 3, 4], {"distinct_inputs", "image_like_inputs"}),
        ([0, 1, 2, 3, 3, 5, 6, 7], {"distinct_inputs", "constant_inputs"}),
        ([0, 1], {"distinct_inputs", "constant_inputs"}),
    ],
)
def test_uniform_inputs_do_not(order, missing):
    assert shortfall(pictures()[order]) == missing


# --- the case of tests/test_precision.py at a batch size that does not fit ---------------------

with warnings.catch_warnings():
    warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
    CASE = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "test_precision.py"))


class Ended(Exception):
    """What `record.unsupported` ends a case with."""


def agreement_case(batch_size, error):
    """Run the case where the forward raises; the number of times that the cache was emptied."""
    emptied = []

    class Small(type(backend("cpu"))):
        def empty_cache(self, index):
            emptied.append(index)

        def is_out_of_memory(self, error):
            return "out of memory" in str(error)

    def outputs(regime, size):
        raise error

    def unsupported(sentence):
        raise Ended(sentence)

    def batch(size):
        return SimpleNamespace(images=torch.zeros(size, 3, 2, 2), names=("a",) * size)

    record = SimpleNamespace(unsupported=unsupported)
    try:
        CASE["test_agreement"](batch_size, batch, outputs, Device(Small()), {}, record, None)
    except (AssertionError, Ended, RuntimeError) as ended:
        return type(ended), str(ended), len(emptied)


@pytest.mark.parametrize(("batch_size", "kind"), [(16, AssertionError), (64, Ended)])
def test_a_batch_that_does_not_fit_is_a_sentence(batch_size, kind):
    error = torch.OutOfMemoryError("NPU out of memory. Tried to allocate 2 GiB\nmore")
    told = f"batch size {batch_size} does not fit: NPU out of memory. Tried to allocate 2 GiB"

    ended, sentence, emptied = agreement_case(batch_size, error)
    assert (ended, sentence.splitlines()[0], emptied) == (kind, told, 1)


def test_another_error_of_the_device_goes_on_its_way():
    assert agreement_case(64, RuntimeError("broken")) == (RuntimeError, "broken", 0)

"""Records: a limit judges strictly, a verdict reads as a sentence, plain values survive JSON."""

import dataclasses
import json
import math

import pytest

from fixtures.core.records import (
    Case,
    DeviceIdentity,
    Figure,
    Limit,
    MathMode,
    Status,
    Verdict,
    WeightsIdentity,
    plain,
    show,
    worst,
)


@pytest.mark.parametrize(
    ("relation", "good", "bad"),
    [("<", 0.9, 1.0), ("<=", 1.0, 1.1), (">", 1.1, 1.0), (">=", 1.0, 0.9), ("==", 1.0, 0.9)],
)
def test_a_limit_holds_its_relation(relation, good, bad):
    limit = Limit.row("thing", relation, 1.0, "a table")
    assert limit.judge(Figure("thing", good))
    assert not limit.judge(Figure("thing", bad))


@pytest.mark.parametrize("value", [math.nan, "0.5", None])
@pytest.mark.parametrize("relation", ["<", "<=", ">", ">=", "=="])
def test_nothing_passes_for_lack_of_a_number(relation, value):
    figure = Figure("thing", value, reason="because")
    assert not Limit.row("thing", relation, 1.0, "a table").judge(figure)


def test_a_failing_verdict_says_what_got_required_and_where():
    limit = Limit.row("min_cosine_similarity", ">", 0.999, "the document")
    verdict = limit.judge(Figure("min_cosine_similarity", 0.9974123456), "batch 8")
    assert repr(verdict) == "min cosine similarity is 0.997412346, must be > 0.999 (batch 8)"


def test_a_cosine_close_to_one_is_never_shown_as_one():
    assert show(1 - 1e-8) == "0.99999999"
    assert show(1 - 1e-11) == "0.99999999999"
    assert show(1 - 2**-53) == "0.99999999999999989"
    assert show(1.0) == "1"
    assert show(True) == "True"


def test_an_overridden_limit_is_marked_in_its_sentence():
    limit = dataclasses.replace(Limit.row("x", "<", 1.0, "t"), bound=0.5)
    assert limit.overridden
    assert "(--limit)" in repr(limit.judge(Figure("x", 0.7)))


@pytest.mark.parametrize(
    ("relation", "bound", "loosened"),
    [("<", 2.0, True), ("<", 0.5, False), (">=", 0.5, True), (">=", 2.0, False), ("==", 2.0, True)],
)
def test_a_looser_limit_is_known_from_a_tighter_one(relation, bound, loosened):
    limit = dataclasses.replace(Limit.row("x", relation, 1.0, "t"), bound=bound)
    assert limit.loosened is loosened


def test_a_limit_that_is_not_set_judges_nothing():
    limit = Limit("latency_mean_ms", "<=", None, "none by default")
    assert limit.judge(Figure("latency_mean_ms", 1e9))
    assert not limit.loosened
    assert not dataclasses.replace(limit, bound=5.0).judge(Figure("latency_mean_ms", 6.0))


def test_an_unknown_relation_and_an_unexplained_absence_are_refused():
    with pytest.raises(ValueError, match="unknown relation"):
        Limit.row("x", "=<", 1.0, "t")
    with pytest.raises(ValueError, match="no reason"):
        Figure("x", None)


def test_verdicts_add_up_to_the_worse_status_and_all_sentences():
    both = Verdict() & Verdict(Status.FAIL, ("a",)) & Verdict(Status.INVALID, ("b",))
    assert both.status is Status.INVALID
    assert repr(both) == "a; b"
    assert repr(Verdict()) == "PASS"
    assert worst([]) is Status.PASS
    assert worst([Status.PASS, Status.NOT_RUN, Status.FAIL]) is Status.FAIL


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_one_of_pytests_outcomes(status):
    assert status.outcome in ("passed", "failed", "skipped")
    assert (status.outcome == "passed") is (status is Status.PASS)


def test_plain_keeps_what_json_can_hold_and_names_what_it_cannot():
    value = {"a": (1, 2.5, None, True), "n": math.nan, "i": math.inf, "s": Status.FAIL, "o": object}
    text = json.dumps(plain(value), allow_nan=False)
    back = json.loads(text)
    assert back["a"] == [1, 2.5, None, True]
    assert (back["n"], back["i"], back["s"]) == ("nan", "inf", "FAIL")


def test_a_case_survives_json():
    case = Case(
        "tests/test_x.py::test_x[b8]",
        Status.FAIL,
        ("precision",),
        {"batch_size": 8},
        (Figure("x", 1.5, "ms"), Figure("y", None, reason="too few")),
        (Limit.row("x", "<", 1.0, "t"),),
        ("x is 1.5 ms, must be < 1",),
        ("noisy",),
        "",
        1.25,
        "A claim.",
        False,
        {"latency": {"mean_ms": 1.5}},
    )
    values = json.loads(json.dumps(case.as_json()))
    assert values["outcome"] == "failed"
    assert Case.from_json(values) == case


def test_labels_tell_the_card_and_the_weights():
    card = DeviceIdentity("npu", "Ascend910B4", 0, 5, "0000:41:00.0", "SN1", "V1", simulated=True)
    assert card.label == (
        "Ascend910B4, npu:0, NPU ID 5, bus 0000:41:00.0, serial SN1, VDie V1, simulated"
    )
    assert "not verified" in WeightsIdentity("pretrained", "ab").label
    assert "ab, verified" in WeightsIdentity("pretrained", "ab", verified=True).label
    assert WeightsIdentity("given", "cd", path="/x").label == "given weights (SHA-256 cd)"
    assert WeightsIdentity("synthetic", "ef", seed=3).label == "synthetic weights (seed 3)"
    assert str(MathMode("hf32", "ieee", "tanh")) == "conv hf32, matmul ieee, gelu tanh"

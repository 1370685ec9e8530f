"""Two environments in turns: what is compared, what is judged, and whose fault is whose."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core.ab import FAR, INFORMATION, Versus, distance, order, take_turns
from fixtures.core.fresh import PHASES, Fresh, Sampled
from fixtures.core.latency import Work
from fixtures.core.levels import LEVELS
from fixtures.core.records import Status

COMMAND = ("/opt/old/bin/python",)
FEATURES = {"first_forward": ((3.0, 4.0),), "last_forward": ((3.0, 4.0),)}


def process(centre=0.050, seed=0, outputs=None, torch="2.9.0", **changes):
    draw = random.Random(seed)
    return Fresh(
        phases=dict.fromkeys(PHASES, 0.1),
        samples_s=tuple(centre * draw.gauss(1, 0.01) for _ in range(100)),
        warm_up_s=(centre,) * 30,
        outputs=FEATURES if outputs is None else outputs,
        facts={"torch": torch, "threads": 2},
        **changes,
    )


def made(ratio=1.0, level="standard", pairs=5, theirs=None, ours=None):
    a = tuple(process(0.05 * ratio * (1 + 0.003 * n), n) for n in range(pairs))
    b = tuple(process(0.05 * (1 + 0.003 * n), 50 + n, torch="2.8.0") for n in range(pairs))
    return Versus(COMMAND, LEVELS[level], ours or a, theirs or b)


def statuses(found):
    return {row.figure: row.status for row in found.rows}


@given(st.integers(1, 20))
def test_turns_are_fair(pairs):
    turns = order(pairs)
    assert len(turns) == 2 * pairs
    for pair in range(pairs):
        assert set(turns[2 * pair : 2 * pair + 2]) == {"A", "B"}
    if pairs % 2 == 0:  # neither comes earlier than the other
        assert sum(n for n, name in enumerate(turns) if name == "A") * 2 == sum(range(2 * pairs))


def test_both_are_measured_in_turns():
    called = []

    def measured(name):
        def measure(number):
            called.append((name, number))
            return process()

        return measure

    ours, theirs = take_turns(2, measured("A"), measured("B"))
    assert called == [("A", 1), ("B", 1), ("B", 2), ("A", 2)]
    assert len(ours) == len(theirs) == 2


def test_a_pair_that_failed_ends_it():
    ours, theirs = take_turns(
        5, lambda number: process(), lambda number: Fresh(error="no torch", failure="import")
    )
    assert len(ours) == len(theirs) == 1


def test_equal_environments_pass():
    found = made()
    assert found.verdict()
    assert found.reason == ""
    told = statuses(found)
    assert told["latency_p50_ms"] == told["latency_p90_ms"] == "PASS"
    assert told["latency_mean_ms"] == told["cold_start_ms"] == INFORMATION
    assert found.apart == 0.0
    json.dumps(found.as_json(), allow_nan=False)


def test_a_regression_fails():
    found = made(1.10)
    assert found.verdict().status is Status.FAIL
    assert "latency p50 ms, this environment beside the other" in repr(found.verdict())
    assert "regression" in found.sentence
    assert found.as_json()["rows"][0]["status"] == "FAIL"


def test_an_improvement_is_information():
    found = made(0.80)
    assert found.verdict()
    assert "improvement" in found.sentence


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_where_no_row_is_judged_nothing_is_decided(ratio):
    found = made(ratio, "quick", pairs=2)
    assert found.verdict(), "and no fault of this environment's"
    assert set(statuses(found).values()) == {INFORMATION}
    assert found.reason == "--level quick judges nothing: give --level standard"
    found = made(ratio, pairs=2)
    assert set(statuses(found).values()) == {INFORMATION}
    assert found.reason == "2 pairs of processes judge nothing, at least 3 do"


def test_doubtful_times_decide_nothing_that_is_near():
    """Reduced clocks in the other's processes: what they took may be off by half."""
    during = Sampled(clocks=(1 / 1.5,) * 3)
    throttled = tuple(dataclasses.replace(each, sampled=during) for each in made(1.10).theirs)
    found = made(1.10, theirs=throttled)
    assert found.verdict()
    assert statuses(found)["latency_p50_ms"] == "INCONCLUSIVE"
    assert "and 50 % more for what is doubtful" in found.reason
    assert made(2.0, theirs=throttled).verdict().status is Status.FAIL
    cold = next(row for row in found.rows if row.figure == "cold_start_ms")
    assert "doubtful" not in cold.sentence


def test_an_environment_beside_itself_is_a_doubt():
    found = made()
    assert not any("same environment" in doubt for doubt in found.doubts)
    alike = tuple(dataclasses.replace(each, facts=found.ours[0].facts) for each in found.theirs)
    assert any("same environment" in doubt for doubt in made(theirs=alike).doubts)


def test_a_process_of_ours_that_is_faster_than_the_chip_is_invalid():
    """40 GFLOP in 50 ms are 0.8 TFLOP/s."""
    work = Work(40_000_000_000, 1e11, "float32", "a data sheet")
    found = dataclasses.replace(made(), work=work).verdict()
    assert found.status is Status.INVALID
    assert "the chip does at most" in repr(found)


def test_versions_that_differ_are_listed():
    told = made().as_json()
    assert told["differences"] == ["torch: 2.9.0 here, 2.8.0 there"]
    assert told["equal_fingerprint"] is False
    assert told["environments"]["theirs"]["torch"] == "2.8.0"
    same = made(theirs=tuple(process(seed=n) for n in range(5)))
    assert same.as_json()["equal_fingerprint"] is True


@pytest.mark.parametrize(
    "outputs",
    [
        {"first_forward": ((3.0, 4.2),)},
        {"first_forward": ((3.0, 4.0, 5.0),)},
        {"first_forward": ((3.0, math.nan),)},
        {},
    ],
)
def test_times_of_something_else_are_no_measure(outputs):
    """Neither a pass nor a fault of ours."""
    theirs = tuple(process(0.01, n, outputs) for n in range(5))
    found = made(theirs=theirs)
    assert found.verdict(), "what the other computes is no fault of this environment"
    assert "times of something else are no measure" in found.reason
    assert found.sentence == found.reason
    json.dumps(found.as_json(), allow_nan=False)


def test_the_other_side_s_failure_is_told_and_ours_fails():
    theirs = (Fresh(error="cannot import timm", failure="import"),)
    found = made(theirs=theirs, ours=(process(),))
    assert found.verdict()
    assert found.reason == "nothing is compared with /opt/old/bin/python: cannot import timm"
    assert found.as_json()["equal_fingerprint"] is None
    ours = (Fresh(error="it was killed", failure="crash"),)
    found = made(ours=ours, theirs=(process(),))
    assert found.verdict().status is Status.FAIL
    assert found.reason


def test_a_percentile_that_is_not_known_is_said():
    few = tuple(
        Fresh(samples_s=(0.05,) * 5, outputs=FEATURES, phases=dict.fromkeys(PHASES, 0.1))
        for _ in range(5)
    )
    found = made(ours=few)
    assert found.verdict()
    assert found.reason == (
        "p50 is not known of every process: process 1 of this environment: 5 samples; p50 needs "
        "11 at 99% confidence"
    )


def test_distances():
    assert distance(((3.0, 4.0),), ((3.0, 4.0),)) == 0
    assert distance(((3.0, 4.0), (1.0, 0.0)), ((3.0, 4.0), (1.0, 0.5))) == 0.5
    assert distance(((0.0, 0.0),), ((0.0, 0.0),)) == math.inf
    assert distance((), ((1.0,),)) == math.inf
    assert FAR < 0.5

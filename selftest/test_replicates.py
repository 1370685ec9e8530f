"""Limits are judged by several processes, never dropped, and it is said what would decide them."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core.fresh import Fresh, Rate, Sampled
from fixtures.core.latency import Work
from fixtures.core.levels import LEVELS
from fixtures.core.limits import performance_limits
from fixtures.core.records import Status
from fixtures.core.replicates import Replicates, sizes_with_limits

SIZES = (1, 16)
NAMES = [limit.name for limit in performance_limits(SIZES)]


def process(centre=0.050, seed=0, samples=100, rate=None, **changes):
    """Samples of 1 % noise about a centre, in seconds."""
    draw = random.Random(seed)
    taken = tuple(centre * draw.gauss(1, 0.01) for _ in range(samples))
    rates = () if rate is None else (Rate(16, 1, (16 / rate,), **changes),)
    return Fresh(samples_s=taken, warm_up_s=(centre,) * 30, throughput=rates, **changes)


def made(level="standard", bounds=None, processes=None, **each):
    row = LEVELS[level]
    limits = tuple(
        dataclasses.replace(limit, bound=(bounds or {}).get(limit.name))
        for limit in performance_limits(SIZES)
    )
    if processes is None:
        processes = [
            process(0.050 * (1 + 0.002 * n), n, row.samples, **each) for n in range(row.processes)
        ]
    return Replicates(row, tuple(processes), limits)


def rows(found):
    return {row.limit.name: row for row in found.replicated}


def test_without_a_limit_estimates_have_intervals():
    found = made()
    assert found.verdict()
    p50 = rows(found)["latency_p50_ms"]
    assert p50.low < 50.2 < p50.high
    assert p50.low <= p50.estimate <= p50.high
    assert 0 < p50.between < 0.01
    assert p50.status is None
    assert "latency_p99_ms" not in rows(found)
    assert "throughput_b16" not in rows(found)
    assert {figure.name for figure in found.figures()} == set(rows(found))
    json.dumps(found.as_json(), allow_nan=False)


def test_one_process_gives_no_interval():
    found = made("quick")
    assert found.verdict()
    assert rows(found)["latency_mean_ms"].low is None
    assert rows(found)["latency_mean_ms"].estimate == pytest.approx(50, rel=0.01)


@pytest.mark.parametrize(
    ("bound", "status"), [(60.0, Status.PASS), (40.0, Status.FAIL), (50.3, Status.INCONCLUSIVE)]
)
@pytest.mark.parametrize("name", ["latency_mean_ms", "latency_p50_ms"])
def test_several_processes_judge(name, bound, status):
    found = made(bounds={name: bound})
    assert found.verdict().status is status
    assert rows(found)[name].status is status
    assert f"must be <= {bound:g} ms" in rows(found)[name].sentence
    assert rows(found)[name].sentence.endswith("(--limit)")
    entry = next(row for row in found.as_json()["figures"] if row["name"] == name)
    assert (entry["limit"], entry["relation"], entry["status"]) == (bound, "<=", status.value)


@pytest.mark.parametrize("name", NAMES)
def test_one_process_judges_nothing_and_names_the_cure(name):
    """However far a figure is from its limit: quick is at most INCONCLUSIVE."""
    for bound in (1e-3, 1e9):
        found = made("quick", {name: bound}, rate=100.0)
        verdict = found.verdict()
        assert verdict.status is Status.INCONCLUSIVE
        level = "full" if "p99" in name else "standard"
        assert f"give --level {level}" in repr(verdict)
        assert name.replace("_", " ") in repr(verdict)


def test_p99_needs_the_full_level():
    found = made(bounds={"latency_p99_ms": 60.0})
    assert found.verdict().status is Status.INCONCLUSIVE
    assert "latency_p99_ms needs 1400 samples a process: give --level full" in repr(found.verdict())
    assert made("full", {"latency_p99_ms": 60.0}).verdict()


def test_a_percentile_that_one_process_cannot_bear_is_not_judged():
    whole = [process(seed=n) for n in range(4)]
    few = process(seed=9, samples=30)
    found = made(bounds={"latency_p90_ms": 60.0}, processes=[*whole, few])
    assert found.verdict().status is Status.INCONCLUSIVE
    assert "process 5: 30 samples; p90 needs 64" in repr(found.verdict())
    assert "; --level full takes 1400" in repr(found.verdict())


def test_an_estimate_without_some_process_says_so():
    whole = [process(seed=n) for n in range(3)]
    few = [process(0.060, seed=9, samples=30), process(0.060, seed=8, samples=30)]
    found = made(processes=[*whole, *few, Fresh(error="it was killed", failure="crash")])
    row = rows(found)["latency_p90_ms"]
    assert row.estimate == pytest.approx(50, rel=0.03)
    assert row.reason == (
        "latency p90 ms is of 3 of 6 processes; processes 4, 5: 30 samples; p90 needs 64 at 99% "
        "confidence; process 6: it was killed"
    )
    assert row.reason in [each["sentence"] for each in found.as_json()["figures"]]
    assert rows(found)["latency_p50_ms"].reason == (
        "latency p50 ms is of 5 of 6 processes; process 6: it was killed"
    )


def correlated(centre, seed):
    """A process whose neighbours correlate by 0.6: its 100 samples are worth about 25."""
    draw, value, taken = random.Random(seed), 0.0, []
    for _ in range(150):
        value = 0.6 * value + 0.8 * draw.gauss(0, 0.01)
        taken.append(centre * (1 + value))
    return dataclasses.replace(process(centre), samples_s=tuple(taken[50:]))


def test_correlated_samples_have_a_centre_and_are_judged():
    """One slow process of correlated samples is no less a process than the others."""
    mixed = [*(process(0.050, n) for n in range(4)), correlated(0.060, 1)]
    found = made(processes=mixed)
    p50, p90 = (rows(found)[f"latency_p{p}_ms"] for p in (50, 90))
    assert p90.estimate > p50.estimate > 51
    assert p90.reason == ""
    assert None not in [each["p90_ms"] for each in found.as_json()["processes"]]
    alike = [correlated(0.050, n) for n in range(5)]
    for bound, status in ((60.0, Status.PASS), (40.0, Status.FAIL)):
        assert made(bounds={"latency_p90_ms": bound}, processes=alike).verdict().status is status


def test_a_process_that_gave_no_rate_is_not_left_out():
    told = [process(seed=n, rate=100.0) for n in range(4)]
    found = made(bounds={"throughput_b16": 90.0}, processes=[*told, process(seed=5)])
    assert found.verdict().status is Status.INCONCLUSIVE
    assert "process 5: no throughput at batch 16 was measured" in repr(found.verdict())


def test_a_doubtful_process_decides_only_from_afar():
    """At reduced clocks times may be off by half, and the limit must be farther away."""
    during = Sampled(clocks=(1 / 1.5,) * 3)
    mixed = [process(seed=n, rate=100.0, sampled=during) for n in range(5)]
    assert mixed[0].slack == pytest.approx(0.5)
    for name, near, far in (
        ("latency_p50_ms", 60.0, 80.0),
        ("latency_mean_ms", 60.0, 80.0),
        ("throughput_b16", 90.0, 60.0),
    ):
        assert made(bounds={name: near}, rate=100.0).verdict()
        found = made(bounds={name: near}, processes=mixed)
        assert found.verdict().status is Status.INCONCLUSIVE
        assert "and 50 % more for what is doubtful" in repr(found.verdict())
        assert made(bounds={name: far}, processes=mixed).verdict()


def test_a_process_that_is_faster_than_the_chip_is_invalid():
    """40 GFLOP in 50 ms are 0.8 TFLOP/s."""
    for peak, status in ((1e12, Status.PASS), (1e11, Status.INVALID)):
        work = Work(40_000_000_000, peak, "float32", "a data sheet")
        assert dataclasses.replace(made(), work=work).verdict().status is status
    slow = [process(5.0, n, rate=100.0) for n in range(5)]
    work = Work(40_000_000_000, 1e11, "float32", "a data sheet")
    found = dataclasses.replace(made(processes=slow), work=work).verdict()
    assert found.status is Status.INVALID
    assert "16 pictures" in repr(found)


@pytest.mark.parametrize(("bound", "status"), [(90.0, Status.PASS), (110.0, Status.FAIL)])
def test_throughput_is_judged_by_its_rate(bound, status):
    found = made(bounds={"throughput_b16": bound}, rate=100.0)
    assert found.verdict().status is status
    assert rows(found)["throughput_b16"].estimate == pytest.approx(100.0)


def test_a_throughput_that_does_not_fit_is_undecided():
    full = [process(seed=n) for n in range(5)]
    told = (Rate(16, 0, (), reason="out of memory"),)
    full = [dataclasses.replace(each, throughput=told) for each in full]
    found = made(bounds={"throughput_b16": 1.0}, processes=full)
    assert found.verdict().status is Status.INCONCLUSIVE
    assert "out of memory" in repr(found.verdict())


def test_a_process_that_failed_fails_and_the_others_are_kept():
    broken = Fresh(error="it was killed", failure="crash")
    found = made(processes=[process(seed=1), broken, process(seed=2)])
    assert found.verdict().status is Status.FAIL
    assert repr(found.verdict()) == "process 2: it was killed"
    told = found.as_json()
    assert [len(each["samples_ms"]) for each in told["processes"]] == [100, 0, 100]
    assert told["processes"][1]["error"] == "it was killed"


def test_a_hang_is_a_hang_and_no_room_is_not_run():
    for kind, status in (("hang", Status.HANG), ("device", Status.NOT_RUN)):
        broken = Fresh(error="why", failure=kind)
        assert made(processes=[process(), broken]).verdict().status is status


def test_no_process_at_all_is_no_pass_for_a_limit():
    found = made(bounds={"latency_p50_ms": 60.0}, processes=[])
    assert found.verdict().status is Status.INCONCLUSIVE


def test_doubts_name_their_process():
    slow = process(seed=3)
    drifting = dataclasses.replace(slow, samples_s=tuple(0.05 * (1 + n / 100) for n in range(100)))
    found = made(processes=[slow, drifting])
    assert any(doubt.startswith("process 2: drift") for doubt in found.doubts)
    assert not any(doubt.startswith("process 1: drift") for doubt in found.doubts)


def test_who_gave_a_limit_is_said():
    found = made()
    table = dataclasses.replace(
        found.limits[1], bound=40.0, default=40.0, source="--reference mine.json"
    )
    by_file = Replicates(found.level, found.processes, (table,))
    assert repr(by_file.verdict()).endswith("(--reference mine.json)")


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(list(LEVELS)),
    st.dictionaries(st.sampled_from(NAMES), st.floats(1e-3, 1e6), max_size=len(NAMES)),
    st.lists(st.integers(0, 2), max_size=4),
)
def test_no_limit_is_dropped(level, bounds, kinds):
    """Whatever was measured, each limit has its row and a status, and the verdict heeds it."""
    choices = (process(rate=100.0, samples=12), Fresh(error="no", failure="crash"), Fresh())
    found = made(level, bounds, [choices[kind] for kind in kinds])
    told = rows(found)
    assert set(bounds) <= set(told)
    assert all(told[name].status is not None for name in bounds)
    if bounds and not LEVELS[level].judges:
        assert not found.verdict()
    for name in bounds:
        if told[name].status is not Status.PASS:
            assert told[name].sentence in repr(found.verdict())
    json.dumps(found.as_json(), allow_nan=False)


def test_throughput_is_measured_where_it_is_bounded():
    assert sizes_with_limits(made(bounds={"throughput_b16": 1.0}).limits) == (16,)
    assert sizes_with_limits(made(bounds={"latency_p50_ms": 1.0}).limits) == ()

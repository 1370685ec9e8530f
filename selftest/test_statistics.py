"""Statistics: what theory knows of them holds, and what they promise holds in simulation."""

import math
import random
import statistics as stdlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, bootstrap, t, ttest_1samp, ttest_ind, ttest_rel

from fixtures.core.records import Limit, Status
from fixtures.core.statistics import (
    BOUNDED,
    CONFIDENCE,
    FEW,
    FLOOR,
    JUDGED,
    LEAST_REPLICATES,
    POWER,
    autocorrelations,
    centre,
    decide,
    doubts,
    effective_size,
    intervals,
    judge,
    line,
    nearest_rank,
    percentile,
    ratio,
    ratio_intervals,
    slope,
    smallest_sample,
)
from selftest import proof_statistics
from selftest.proof_statistics import Rate

TIMES = st.floats(1e-4, 10)
SAMPLES = st.lists(TIMES, min_size=1, max_size=200)
CENTRES = st.lists(st.floats(0.9, 1.1), min_size=LEAST_REPLICATES, max_size=12)


def limit(bound, relation="<="):
    return Limit("latency_p50_ms", relation, bound, "a selftest", "ms")


def noise(count, spread=0.02, rho=0.0, seed=0):
    """A process's times about 1: a first-order autoregression."""
    draw, value = random.Random(seed), 0.0
    found = []
    for _ in range(count + 50):
        value = rho * value + math.sqrt(1 - rho**2) * draw.gauss(0, spread)
        found.append(math.exp(value))
    return found[50:]


# --- percentiles ---------------------------------------------------------------------------------


def test_samples_needed_are_those_of_mlperf():
    assert [smallest_sample(p) for p in (50, 90, 95, 99)] == [11, 64, 130, 662]


@given(st.integers(50, 99))
def test_the_smallest_sample_is_the_first_whose_bound_is_not_its_maximum(percent):
    need, p = smallest_sample(percent), percent / 100
    for count, below in ((need, True), (need - 1, False)):
        rank = int(binom.ppf(CONFIDENCE, count, p)) + 1  # the first k with cdf(k - 1) >= confidence
        assert (rank <= count - 1) is below


@given(SAMPLES, st.floats(1, 100))
def test_a_percentile_is_a_sample_that_covers_its_share(samples, percent):
    value = nearest_rank(samples, percent)
    assert value in samples
    assert sum(s <= value for s in samples) >= percent / 100 * len(samples) - 1e-9
    assert sum(s < value for s in samples) < percent / 100 * len(samples) + 1e-9


@given(SAMPLES, st.sampled_from([50, 90, 95, 99]))
def test_bounds_bracket_the_percentile(samples, percent):
    found = percentile(samples, percent)
    assert (found.n, found.needed) == (len(samples), smallest_sample(percent))
    assert (found.value is None) is (int(found.effective) < found.needed)
    bounded = int(found.effective) >= max(found.needed, BOUNDED)
    assert bounded is not bool(found.reason)
    if bounded:
        assert found.low <= found.value <= found.high
    else:
        assert (found.low, found.high) == (None, None)


@given(SAMPLES, st.sampled_from([50, 90, 99]))
def test_a_centre_asks_how_many_samples_there_are_and_not_what_they_are_worth(samples, percent):
    value, why = centre(samples, percent)
    enough = len(samples) >= smallest_sample(percent)
    assert (value is not None) is enough is not bool(why)
    if enough:
        assert value == nearest_rank(samples, percent)


@given(st.integers(0, 10**6), st.sampled_from([50, 90]))
def test_bounds_of_independent_samples_are_the_binomial_s(seed, percent):
    order = random.Random(seed).sample(range(1, 201), 200)
    found = percentile(order, percent)
    assume(found.effective == 200)
    p = percent / 100
    assert binom.cdf(found.high - 1, 200, p) >= CONFIDENCE > binom.cdf(found.high - 2, 200, p)
    assert binom.sf(found.low - 1, 200, p) >= CONFIDENCE > binom.sf(found.low, 200, p)


def test_known_ranks():
    order = list(range(1, 201))
    random.Random(4).shuffle(order)
    assert effective_size(order) == 200
    assert percentile(order, 50).high == 117
    assert percentile(order, 90).high == 190
    assert percentile(order, 95).high == 197


def test_a_percentile_without_its_samples_says_why():
    assert percentile([1.0] * 63, 90).reason == "63 samples; p90 needs 64 at 99% confidence"
    correlated = percentile(noise(100, rho=0.6), 90)
    assert correlated.value is None
    assert f"worth {int(correlated.effective)} independent ones" in correlated.reason
    assert percentile([], 50).value is None
    assert centre(noise(100, rho=0.6), 90)[0] is not None


def test_few_samples_give_a_percentile_without_bounds():
    few = percentile([1.0] * 15, 50)
    assert (few.value, few.low, few.high) == (1.0, None, None)
    assert few.reason == "15 samples; bounds need 20"
    tied = percentile([1.0 + n // 8 for n in range(100)], 50)
    assert tied.value is None
    assert "100 samples are worth" in tied.reason


def test_where_neighbours_correlate_strongly_bounds_are_refused_and_rarely_wrong():
    """Some of such samples look independent: refusing the rest keeps wrong bounds rare."""
    found = [percentile(noise(100, rho=0.9, seed=seed), 50) for seed in range(300)]
    shown = [each for each in found if each.high is not None]
    assert len(shown) < 0.1 * len(found)
    for wrong in (sum(each.low > 1 for each in shown), sum(each.high < 1 for each in shown)):
        assert Rate(wrong, len(found)).bounds[0] <= 0.012


def test_bounds_hold_as_often_as_they_say():
    draws = np.random.default_rng(1).standard_normal((800, 100))
    found = [percentile(list(row), 50) for row in draws]
    for wrong in (sum(each.low > 0 for each in found), sum(each.high < 0 for each in found)):
        assert Rate(wrong, len(found)).bounds[0] <= 1 - CONFIDENCE


@pytest.mark.parametrize("rho", [0.3, 0.6])
def test_bounds_hold_where_neighbours_correlate(rho):
    found = [percentile(noise(300, rho=rho, seed=seed), 50) for seed in range(200)]
    for wrong in (sum(each.low > 1 for each in found), sum(each.high < 1 for each in found)):
        assert Rate(wrong, len(found)).bounds[0] <= 1 - CONFIDENCE


# --- how many samples they are worth -------------------------------------------------------------


@given(SAMPLES)
def test_samples_are_worth_between_one_and_all_of_them(samples):
    assert 1 <= effective_size(samples) <= len(samples)


@given(SAMPLES, st.integers(-10, 10))
def test_a_unit_does_not_change_what_samples_are_worth(samples, power):
    scaled = [s * 2.0**power for s in samples]
    assert effective_size(scaled) == effective_size(samples)


def test_the_effective_size_is_theory_s():
    """(1 - rho) / (1 + rho) of a first-order autoregression, a little more of its ranks."""
    for rho in (0.0, 0.3, 0.6):
        found = stdlib.median(effective_size(noise(2000, rho=rho, seed=n)) for n in range(15))
        assert found == pytest.approx(2000 * (1 - rho) / (1 + rho), rel=0.15)


def test_one_far_sample_does_not_hide_the_order_of_the_others():
    samples = noise(200, rho=0.8)
    samples[100] = 50.0
    assert next(autocorrelations(samples)) > 0.7


def test_what_never_varies_does_not_correlate():
    assert effective_size([1.0] * 40) == 40
    assert effective_size([]) == 0
    assert doubts([1.0] * 40) == ()


# --- doubts --------------------------------------------------------------------------------------

PLANTED = {
    "noisy": noise(100, 0.07),
    "unstable": noise(100, 0.2),
    "drift": [s * (1 + 0.06 * n / 100) for n, s in enumerate(noise(100, 0.01))],
    "bimodal": [s * (1.3 if n % 7 < 2 else 1) for n, s in enumerate(noise(100, 0.01))],
    "autocorrelated": noise(200, 0.01, rho=0.85),
    "outliers": [s * (2 if n % 12 == 0 else 1) for n, s in enumerate(noise(100, 0.01))],
}


@pytest.mark.parametrize("word", PLANTED)
def test_a_planted_doubt_is_named(word):
    assert word in [doubt.partition(":")[0] for doubt in doubts(PLANTED[word])]


def test_even_modes_are_two_modes():
    even = [s * (1.05 if n % 2 else 1) for n, s in enumerate(noise(60, 0.002))]
    assert any(doubt.startswith("bimodal: 30 samples") for doubt in doubts(even))


def test_a_step_is_a_drift():
    assert any(doubt.startswith("drift") for doubt in doubts([1.0] * 10 + [1.1] * 20))


def test_reduced_clocks_are_throttling():
    (doubt,) = doubts(noise(50), clocks=[1.0, 0.99, 0.7, 0.5])
    assert doubt == "throttled: 2 of 4 readings below 75% of the rated clock, the least 50%"
    assert doubts(noise(50), clocks=[1.0, 0.76]) == ()


def test_clean_noise_raises_no_doubt():
    """At most one sample in a hundred: a doubt that is often false is read by nobody."""
    alarms = [doubts(noise(count, 0.02, seed=n)) for count in (30, 100) for n in range(200)]
    assert sum(map(bool, alarms)) <= 4, [told for told in alarms if told]


def test_a_correlation_that_the_issue_calls_usual_is_told_with_what_it_costs():
    (doubt,) = doubts(noise(100, 0.01, rho=0.75))
    assert doubt.startswith("autocorrelated: neighbours correlate by 0.")
    assert " 100 samples are worth " in doubt


def test_a_timer_s_ticks_are_no_modes():
    assert doubts([1.0, 1.001] * 30) == ()
    assert doubts([1.0, 1.0, 1.0, 1.0, 1.0001] * 10) == ()


@given(SAMPLES, st.integers(-10, 10))
def test_a_unit_does_not_change_the_doubts(samples, power):
    assert doubts([s * 2.0**power for s in samples]) == doubts(samples)


def test_few_samples_tell_little():
    assert doubts([1, 2]) == ("only 2 samples: no spread can be told",)
    ramp = [1 + 1e-4 * n for n in range(FEW)]
    assert doubts(ramp[:-1]) == ()
    assert doubts(ramp)[0].startswith("autocorrelated")


def test_many_samples_are_thinned_for_their_slope():
    told = doubts([1 + 1e-5 * n for n in range(6000)])
    assert told[0] == (
        "drift: the last third of the sample is +4.0% from the first, the median slope over all "
        "of it +5.8%"
    )


# --- limits --------------------------------------------------------------------------------------


@given(CENTRES, st.floats(0.8, 1.2), st.floats(0.8, 1.2), st.sampled_from(["<=", ">="]))
def test_an_easier_limit_never_judges_worse(centres, one, other, relation):
    order = [Status.FAIL, Status.INCONCLUSIVE, Status.PASS]
    strict, easy = sorted((one, other), reverse=relation == ">=")
    ranks = [order.index(judge(centres, limit(each, relation)).status) for each in (strict, easy)]
    assert ranks[0] <= ranks[1]


@given(CENTRES, st.floats(0.8, 1.2), st.integers(-8, 8))
def test_a_unit_does_not_change_the_judgement(centres, bound, power):
    by = 2.0**power
    ours, theirs = judge(centres, limit(bound)), judge([c * by for c in centres], limit(bound * by))
    distance = min(abs(math.log(bound / edge)) for edge in (ours.low, ours.high))
    assume(distance > 1e-9)
    assert (ours.status, ours.replicates) == (theirs.status, theirs.replicates)
    assert theirs.estimate == pytest.approx(ours.estimate * by)


@given(CENTRES, st.floats(0.8, 1.2))
def test_a_rate_is_judged_as_the_time_that_it_is_of(centres, bound):
    time, rate = (
        judge(centres, limit(bound)),
        judge([1 / c for c in centres], limit(1 / bound, ">=")),
    )
    assume(min(abs(math.log(bound / edge)) for edge in (time.low, time.high)) > 1e-9)
    assert time.status is rate.status
    assert time.needed == rate.needed


@given(st.lists(TIMES, min_size=1, max_size=LEAST_REPLICATES - 1), TIMES)
def test_fewer_than_three_processes_judge_nothing(centres, bound):
    found = judge(centres, limit(bound))
    assert found.status is Status.INCONCLUSIVE
    assert (found.low, found.high, found.needed) == (None, None, LEAST_REPLICATES)
    assert "at least 3 are needed" in found.sentence


@given(CENTRES)
def test_the_interval_is_students_and_never_narrower_than_the_floor(centres):
    found = judge(centres, limit(1.0))
    assert found.low <= found.estimate <= found.high
    assert math.log(found.high / found.estimate) >= FLOOR - 1e-12
    logs = np.log(centres)
    assume(np.std(logs) > 1e-6)
    theirs = ttest_1samp(logs, 0).confidence_interval(2 * JUDGED - 1)
    assert found.low == pytest.approx(math.exp(min(theirs.low, logs.mean() - FLOOR)))
    assert found.high == pytest.approx(math.exp(max(theirs.high, logs.mean() + FLOOR)))


@given(CENTRES, st.floats(0.8, 1.2))
def test_as_many_processes_as_are_said_to_be_needed_decide(centres, bound):
    found = judge(centres, limit(bound))
    assume(found.status is Status.INCONCLUSIVE)
    distance = abs(math.log(bound) - math.log(found.estimate))
    if found.needed is None:
        assert "not even 200 processes" in found.sentence
        return
    assert found.needed > len(centres)
    assert f"about {found.needed} processes would decide" in found.sentence
    assert ("; --level full has 9" in found.sentence) is (found.needed > 9)
    spread = np.std(np.log(centres), ddof=1)
    for count, enough in ((found.needed, True), (found.needed - 1, False)):
        error = spread / math.sqrt(count)
        half = max(FLOOR, t.ppf(JUDGED, count - 1) * error)
        if count > len(centres):
            assert bool(half + t.ppf(POWER, count - 1) * error <= distance + 1e-12) is enough


@pytest.mark.parametrize("off", [0.02, 0.03, 0.05])
def test_what_is_said_to_be_needed_decides_nine_times_in_ten(off):
    """Of processes that differ as much as those that were seen, and are as far from the limit."""
    seen = [math.exp(off + step) for step in (-0.03, 0.0, 0.03)]
    needed = judge(seen, limit(1.0)).needed
    draw = np.random.default_rng(7)
    centres = np.exp(off + 0.03 * draw.standard_normal((4000, needed)))
    passed, failed = decide(intervals(centres), limit(1.0))
    assert np.mean(passed | failed) == pytest.approx(POWER, abs=0.05)


@given(CENTRES, st.floats(0.8, 1.2), st.floats(0.0, 0.3))
def test_what_is_doubtful_widens_the_interval_and_never_decides(centres, bound, slack):
    plain, doubtful = judge(centres, limit(bound)), judge(centres, limit(bound), slack)
    assert doubtful.low == pytest.approx(plain.low / (1 + slack))
    assert doubtful.high == pytest.approx(plain.high * (1 + slack))
    assert doubtful.status in (plain.status, Status.INCONCLUSIVE)
    assert ("more for what is doubtful" in doubtful.sentence) is (slack > 0)


def test_a_doubtful_limit_is_decided_only_from_afar():
    centres = [61, 63, 62, 61.5, 64]
    assert judge(centres, limit(70), 0.1).status is Status.INCONCLUSIVE
    assert judge(centres, limit(72), 0.1).status is Status.PASS
    assert judge(centres, limit(50), 0.1).status is Status.FAIL
    near = judge(centres, limit(60), 0.1)
    assert near.sentence == (
        "latency p50 ms is 62.2907 ms (60.1756 to 64.4802 in 5 processes, and 10 % more for what "
        "is doubtful), must be <= 60 ms: undecided, and at this distance not even 200 processes "
        "would decide"
    )


def test_a_sentence_says_what_got_required_and_where():
    assert judge([61, 63, 62, 61.5, 64], limit(60)).sentence == (
        "latency p50 ms is 62.2907 ms (60.1756 to 64.4802 in 5 processes), must be <= 60 ms"
    )
    assert judge([70], limit(60)).sentence.startswith("latency p50 ms is 70 ms of 1 process, ")
    assert judge([50] * 5, limit(60)).status is Status.PASS
    assert judge([60] * 5, limit(60)).needed is None


@pytest.mark.parametrize("centres", [[], [1, 0, 1], [1, -1, 1], [1, math.nan, 1], [1, math.inf, 1]])
def test_what_is_no_time_is_refused(centres):
    with pytest.raises(ValueError, match="must be positive numbers"):
        judge(centres, limit(1))


def test_a_limit_must_have_a_bound_and_a_side():
    with pytest.raises(ValueError, match="has no bound"):
        judge([1, 1, 1], limit(None))
    with pytest.raises(ValueError, match="has no bound"):
        decide(intervals(np.ones((2, 3))), limit(None))
    with pytest.raises(ValueError, match="no interval is == a number"):
        judge([1, 1, 1], limit(1, "=="))


def test_many_judgements_at_once_are_those_of_each():
    draw = np.random.default_rng(3)
    centres = np.exp(0.015 * draw.standard_normal((50, 5)))
    passed, failed = decide(intervals(centres), limit(1.01))
    for row, passes, fails in zip(centres, passed, failed, strict=True):
        status = judge(row, limit(1.01)).status
        assert (status is Status.PASS, status is Status.FAIL) == (passes, fails)


# --- ratios --------------------------------------------------------------------------------------


@settings(deadline=None)  # a bootstrap on a busy machine
@given(CENTRES, CENTRES)
def test_a_ratio_s_interval_is_at_least_welch_s_and_the_bootstrap_s(ours, theirs):
    assume(np.std(ours) > 1e-6 and np.std(theirs) > 1e-6)
    found = ratio(ours, theirs)
    welch = ttest_ind(np.log(ours), np.log(theirs), equal_var=False)
    edges = welch.confidence_interval(2 * JUDGED - 1)
    assert found.low <= math.exp(edges.low) * (1 + 1e-9)
    assert found.high >= math.exp(edges.high) * (1 - 1e-9)
    assert found.low <= found.estimate * math.exp(-FLOOR) * (1 + 1e-9)


@settings(deadline=None)  # a bootstrap on a busy machine
@given(st.lists(st.tuples(st.floats(0.9, 1.1), st.floats(0.9, 1.1)), min_size=3, max_size=9))
def test_a_paired_ratio_is_that_of_the_pairs(pairs):
    ours, theirs = zip(*pairs, strict=True)
    logs = np.log(ours) - np.log(theirs)
    assume(np.std(logs) > 1e-6)
    found = ratio(ours, theirs, paired=True)
    edges = ttest_rel(np.log(ours), np.log(theirs)).confidence_interval(2 * JUDGED - 1)
    low = min(edges.low, logs.mean() - FLOOR)
    assert found.low == pytest.approx(math.exp(low), rel=1e-3)


def test_our_bootstrap_is_scipy_s():
    """Many replicates that are far from normal: there the bootstrap is the wider one."""
    draw = np.random.default_rng(0)
    ours, theirs = (np.exp(0.1 * draw.exponential(size=60) ** 3) for _ in range(2))

    def difference(x, y, axis):
        return x.mean(axis=axis) - y.mean(axis=axis)

    theirs_by_scipy = bootstrap(
        (np.log(ours), np.log(theirs)),
        difference,
        confidence_level=2 * JUDGED - 1,
        method="percentile",
        n_resamples=20_000,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    found = ratio(ours, theirs)
    welch = ttest_ind(np.log(ours), np.log(theirs), equal_var=False)
    edges = welch.confidence_interval(2 * JUDGED - 1)
    width = theirs_by_scipy.high - theirs_by_scipy.low
    assert math.log(found.low) == pytest.approx(
        min(theirs_by_scipy.low, edges.low), abs=0.03 * width
    )
    assert math.log(found.high) == pytest.approx(
        max(theirs_by_scipy.high, edges.high), abs=0.03 * width
    )


@settings(deadline=None)  # a bootstrap on a busy machine
@given(CENTRES, CENTRES, st.integers(-8, 8))
def test_a_unit_does_not_change_a_ratio(ours, theirs, power):
    by = 2.0**power
    one, other = ratio(ours, theirs), ratio([c * by for c in ours], [c * by for c in theirs])
    assert one.low == pytest.approx(other.low)
    assert one.high == pytest.approx(other.high)


def test_what_ratios_are_called():
    base = [50.0, 50.1, 49.9, 50.0, 50.05]

    def told(times):
        return ratio([times * c for c in base], base)

    assert (told(1.0).status, told(1.0).size, told(1.0).regression) == (Status.PASS, "small", False)
    assert (told(1.008).status, told(1.008).regression) == (Status.PASS, False)  # within the floor
    assert (told(1.015).status, told(1.015).size) == (Status.FAIL, "small")
    assert (told(1.03).size, told(1.03).regression) == ("moderate", True)
    assert told(1.10).size == "large"
    assert told(1.10).sentence == "10.0% slower (ratio 1.089 to 1.111): a large regression"
    better = told(0.9)
    assert (better.status, better.regression, better.size) == (Status.PASS, False, "large")
    assert better.sentence.endswith(": an improvement")


@pytest.mark.parametrize("paired", [False, True])
def test_an_undecided_ratio_says_how_many_would_decide(paired):
    found = ratio([1.0, 1.06, 1.03, 1.09, 0.98], [1.0, 1.03, 0.98, 1.02, 1.01], paired)
    assert found.status is Status.INCONCLUSIVE
    assert found.regression is False
    assert found.needed > 5
    what = "pairs" if paired else "processes each"
    assert f"about {found.needed} {what} would decide; --level full has 9" in found.sentence


@pytest.mark.parametrize("paired", [False, True])
def test_what_is_doubtful_widens_a_ratio(paired):
    base = [50.0, 50.1, 49.9, 50.0, 50.05]
    ours = [1.10 * c for c in base]
    plain, doubtful = ratio(ours, base, paired), ratio(ours, base, paired, slack=0.2)
    assert plain.status is Status.FAIL
    assert doubtful.status is Status.INCONCLUSIVE
    assert doubtful.low == pytest.approx(plain.low / 1.2)
    assert doubtful.high == pytest.approx(plain.high * 1.2)
    assert "(ratio 1.089 to 1.111, and 20 % more for what is doubtful)" in doubtful.sentence
    assert ratio([1.5 * c for c in base], base, paired, slack=0.2).status is Status.FAIL
    assert ratio(base, base, paired, slack=0.2).status is Status.INCONCLUSIVE


def test_what_two_sessions_differ_by_is_no_regression():
    base = [50.0, 50.1, 49.9, 50.0, 50.05]

    def told(times):
        return ratio([times * c for c in base], base, least=1.02)

    assert told(1.0).status is Status.PASS
    assert told(1.04).status is Status.FAIL
    between = told(1.025)
    assert (between.status, between.regression) == (Status.INCONCLUSIVE, False)
    assert between.sentence == (
        "2.5% slower (ratio 1.015 to 1.035): undecided, sessions may differ by 2.0% without a "
        "cause; --ab decides, in one session"
    )
    assert ratio([1.025 * c for c in base], base).status is Status.FAIL


def test_too_few_processes_make_no_ratio():
    found = ratio([1.2, 1.2], [1.0] * 5)
    assert (found.regression, found.status) == (None, Status.INCONCLUSIVE)
    assert found.reason.startswith("2 processes against 5: ")
    assert found.estimate == pytest.approx(1.2)
    with pytest.raises(ValueError, match="3 and 4 processes are no pairs"):
        ratio([1] * 3, [1] * 4, paired=True)


def test_processes_that_do_not_differ_leave_the_floor():
    found = ratio([2.0] * 3, [2.0] * 3)
    assert math.log(found.high) == pytest.approx(FLOOR)


@pytest.mark.parametrize("paired", [False, True])
def test_many_ratios_at_once_are_those_of_each(paired):
    draw = np.random.default_rng(3)
    ours, theirs = np.exp(0.015 * draw.standard_normal((2, 20, 5)))
    found = ratio_intervals(ours, theirs, paired)
    for n, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        one = ratio(x, y, paired)
        assert math.log(one.low) == pytest.approx(found.low[n])
        assert math.log(one.high) == pytest.approx(found.high[n])


# --- lines ---------------------------------------------------------------------------------------


def test_the_slope_of_a_line_is_its_slope():
    assert slope(range(20), [3 * x + 7 for x in range(20)]) == 3
    assert slope([1], [5]) is None
    assert slope([1, 1], [5, 9]) is None
    assert slope([1, 1, 2], [5, 5, 5]) == 0


def test_outliers_do_not_move_the_slope():
    x, y = list(range(50)), [5.0 * n for n in range(50)]
    for at in random.Random(0).sample(x, 12):
        y[at] = 10**9
    assert slope(x, y) == pytest.approx(5, abs=1)


@given(st.floats(0, 1), st.floats(1e-4, 1), st.sets(st.integers(1, 64), min_size=3, max_size=8))
def test_a_line_is_found_again(alpha, beta, sizes):
    found = line(sorted(sizes), [alpha + beta * size for size in sorted(sizes)])
    assert found.alpha == pytest.approx(alpha, abs=1e-9)
    assert found.beta == pytest.approx(beta)
    assert max(map(abs, found.residuals)) < 1e-9
    assert [doubt for doubt in found.doubts if "below zero" not in doubt] == []


def test_what_is_off_the_line_is_named():
    found = line([1, 2, 4, 8, 16], [1.0, 2.0, 5.0, 8.0, 16.0])
    assert found.doubts == ("batch 4 is +20.0% off the line",)
    assert line([1, 8], [1.0, 2.0]).doubts == ("two batch sizes: any line fits them",)
    (doubt,) = line([1, 2, 4], [0.5, 2.5, 6.5]).doubts
    assert doubt == "the line begins below zero, at -1.5e+03 ms: it is no law"
    with pytest.raises(ValueError, match="two batch sizes"):
        line([4, 4], [1, 2])


# --- what is promised ----------------------------------------------------------------------------


def test_no_promise_is_broken_in_simulation():
    """The proof error-rates with fewer comparisons: no rate is certainly above what is said."""
    draw = np.random.default_rng(proof_statistics.SEED)
    rows = list(proof_statistics.limits(draw, 1000))
    rows += proof_statistics.ratios(draw, 400)
    for row in rows:
        if row.beyond:
            continue
        assert row.wrong_fail.bounds[0] <= proof_statistics.WRONG_FAIL.bound, row
        if row.wrong_pass is not None:
            assert row.wrong_pass.bounds[0] <= proof_statistics.WRONG_PASS.bound, row
        assert not row.promised or row.found.bounds[1] >= proof_statistics.FOUND.bound, row


def test_what_does_not_hold_is_shown_and_not_promised():
    """One process in five that is much slower: wrong passes, apart from the promised rows."""
    draw = np.random.default_rng(proof_statistics.SEED)
    beyond = [row for row in proof_statistics.limits(draw, 500) if row.beyond]
    assert {row.words[2] for row in beyond} == {"one in five 10% slower"}
    assert max(row.wrong_pass.bounds[0] for row in beyond) > proof_statistics.WRONG_PASS.bound
    assert all(row.verdict() for row in beyond)


def test_the_proof_takes_the_centres_that_the_suite_takes():
    for count, percents in ((100, (50, 90)), (1400, (50, 90, 99))):
        draws = (np.random.default_rng(2) for _ in range(2))
        found = proof_statistics.percentiles(next(draws), 6, count, percents)
        times = proof_statistics.samples(next(draws), (6, count))
        for percent in percents:
            ours = [centre(list(map(float, row)), percent)[0] for row in times]
            assert np.ptp(np.log(ours) - np.log(found[percent])) < 1e-6


def test_a_judgement_that_knows_one_process_would_break_the_promise(monkeypatch):
    """The proof can fail: with the normal's quantile for Student's, limits are judged wrongly."""
    monkeypatch.setattr("scipy.stats.t.ppf", lambda share, freedom: 2.41)
    draw = np.random.default_rng(proof_statistics.SEED)
    rows = proof_statistics.limits(draw, 2000)
    row = next(row for row in rows if row.words == ("p50 of 100", "5", "1.5%"))
    assert "wrong fail is 0.0" in repr(row.verdict())


def test_the_proof_writes_its_tables():
    text, _ = proof_statistics.error_rates(50)
    assert text.count("\n| --- |") == 3
    assert "50 comparisons a row" in text
    assert "one in five 10% slower" not in text.partition("## Where processes")[0]

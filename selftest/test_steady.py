"""A warm-up ends when nothing changes any more, and says what still does where it does not."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core import steady, timed
from fixtures.core.steady import TREND, WINDOW, Ceilings, WarmUp, unsteady, windows

LEAST = TREND * WINDOW


def noisy(level, spread=0.01, count=WINDOW, seed=0):
    """A window of calls about a level."""
    chance = random.Random(seed)
    return [level * (1 + spread * chance.uniform(-1, 1)) for _ in range(count)]


def test_what_is_steady_is_called_so():
    told = WarmUp(tuple(noisy(0.01, count=LEAST)))
    assert told.steady
    assert told.reason == ""
    assert told.doubts == ()
    assert told.as_json()["windows_ms"] == pytest.approx([10, 10, 10], rel=0.02)


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=LEAST - 1))
def test_too_few_calls_are_never_steady(seconds):
    told = WarmUp(tuple(seconds))
    assert not told.steady
    assert "too few" in told.reason
    assert told.doubts[0].startswith("NOT STEADY")
    assert len(told.as_json()["samples_ms"]) == len(seconds)


@given(st.floats(1e-5, 10), st.integers(LEAST, 120), st.floats(0, 0.015), st.integers(0, 99))
def test_noise_below_what_counts_is_steady(level, count, spread, seed):
    assert unsteady(noisy(level, spread / 2, count, seed)) == ""


@given(
    st.lists(st.floats(1e-4, 1), min_size=LEAST, max_size=90),
    st.floats(1e-3, 1e3, allow_subnormal=False),
)
def test_the_unit_of_time_does_not_matter(seconds, unit):
    kind = unsteady(seconds).split()[:4]
    scaled = unsteady([s * unit for s in seconds]).split()[:4]
    assert (kind == []) == (scaled == []) or kind == scaled  # rounding moves what is on an edge


@given(st.floats(0.012, 0.3), st.booleans())
def test_a_planted_trend_is_seen(step, falls):
    """Of windows that go one way by less than 2 % each, the three together tell."""
    factor = 1 - step if falls else 1 + step
    seconds = [s for n in range(TREND) for s in noisy(0.01 * factor**n, 0.0005, seed=n)]
    assert unsteady(seconds)
    words = unsteady(seconds)
    assert ("one way" in words) or ("median of the last" in words)


def test_a_slow_trend_of_one_way_is_named_so():
    seconds = [level for level in (0.0100, 0.00985, 0.0097) for _ in range(WINDOW)]
    assert "go one way, -3.0%" in unsteady(seconds)


def test_a_ramp_in_two_modes_is_not_steady():
    """The clock comes up in steps: within a window some calls are fast, some are slow."""
    ramp = [0.02] * 10 + [0.02] * 7 + [0.01] * 3 + [0.02] * 3 + [0.01] * 7
    assert "median" in unsteady(ramp)
    assert unsteady(ramp + [0.01] * 20) == "" or "one way" in unsteady(ramp + [0.01] * 20)
    assert unsteady(ramp + [0.01] * 30) == ""


def test_a_spread_that_grows_is_not_steady():
    calm, wild = [0.0100, 0.0102] * 5, [0.0085, 0.0115, 0.0101, 0.0101, 0.0086] * 2
    assert "the spread went from" in unsteady(calm + calm + wild)


def test_windows_are_whole():
    assert [len(window) for window in windows(range(37))] == [10, 10, 10]
    assert windows(range(9)) == ()


@pytest.mark.parametrize(
    ("calls", "seconds", "over"), [(299, 59.9, False), (300, 1.0, True), (5, 60.0, True)]
)
def test_ceilings(calls, seconds, over):
    assert steady.FULL.reached(calls, seconds) is over


class Ticking:
    """A clock that calls move on."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timed.time, "perf_counter", lambda: self.now)

    def calls(self, seconds):
        """A call that takes each of some seconds in turn, the last one ever after."""
        left = list(seconds)

        def call():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_a_warm_up_ends_with_the_first_steady_windows(monkeypatch):
    call = Ticking(monkeypatch).calls([0.5, 0.1, *[0.02 - 0.0005 * n for n in range(20)], 0.01])
    done = timed.warm_up(call, Ceilings(0.0, 300, 60.0))
    assert done.steady
    assert LEAST < len(done.seconds) <= 60
    assert len(done.seconds) % WINDOW == 0
    assert done.seconds[0] == 0.5
    assert done.typical == pytest.approx(0.01)


def test_it_lasts_as_long_as_it_must(monkeypatch):
    done = timed.warm_up(Ticking(monkeypatch).calls([0.01]), Ceilings(2.0, 1000, 60.0))
    assert done.steady
    assert len(done.seconds) == 200


@pytest.mark.parametrize(
    ("plan", "calls"), [(Ceilings(0.0, 47, 60.0), 47), (Ceilings(0.0, 300, 0.5), 12)]
)
def test_a_ceiling_ends_what_never_comes_to_rest(monkeypatch, plan, calls):
    falling = [0.05 * 0.97**n for n in range(400)]
    done = timed.warm_up(Ticking(monkeypatch).calls(falling), plan)
    assert not done.steady
    assert len(done.seconds) == calls
    assert f"{calls} calls of warm-up" in done.doubts[0]


def test_one_call_longer_than_the_ceiling_is_a_warm_up(monkeypatch):
    done = timed.warm_up(Ticking(monkeypatch).calls([7.0]), Ceilings(0.0, 300, 2.0))
    assert done.seconds == (7.0,)
    assert done.typical == 7.0
    assert done.windows == ()

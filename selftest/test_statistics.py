"""Statistics: what is known of them by theory holds, and what they promise in simulation."""

from hypothesis import given
from hypothesis import strategies as st

from fixtures.core.statistics import nearest_rank, smallest_sample

# --- percentiles ---------------------------------------------------------------------------------


def test_samples_needed_are_those_of_mlperf():
    assert [smallest_sample(p) for p in (50, 90, 95, 99)] == [11, 64, 130, 662]


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=200), st.floats(1, 100))
def test_a_percentile_is_a_sample_that_covers_its_share(seconds, percent):
    value = nearest_rank(seconds, percent)
    assert value in seconds
    assert sum(s <= value for s in seconds) >= percent / 100 * len(seconds) - 1e-9
    assert sum(s < value for s in seconds) < percent / 100 * len(seconds) + 1e-9

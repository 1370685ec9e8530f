"""On demand (`--baseline FILE`): this run beside an earlier one: what has become slower."""

from __future__ import annotations

import pytest

from fixtures.core import baseline as baselines

pytestmark = [pytest.mark.performance, pytest.mark.smoke, pytest.mark.baseline]


def test_baseline(baseline, fingerprint, cases_so_far, record):
    """Nothing has become slower than in the run that --baseline names, on the same host and stack.

    A difference between two single processes counts only where it is larger than any between sound
    ones; an improvement is information.
    """
    record.informs()
    if baseline is None:
        record.not_run("there is nothing to compare with: give --baseline FILE, an earlier report")
    found = baselines.against(baseline, fingerprint, cases_so_far)
    verdict = record(found)
    assert verdict
    if found.reason:
        record.inconclusive(found.reason)

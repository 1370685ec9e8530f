"""Item: the card again, when all else is done. It must be as sound as before the work."""

from __future__ import annotations

import pytest

from fixtures.core.environment import AFTERWARDS


@pytest.mark.smoke
@pytest.mark.environment
@pytest.mark.parametrize("check", AFTERWARDS, ids=lambda check: check.id)
def test_afterwards(check, environment, afterwards, record):
    """The card is as sound after the work as before it: what this row of the table claims."""
    verdict = record.finding(check(environment, afterwards))
    assert verdict

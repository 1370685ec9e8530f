"""Item: the environment. Versions, the card and its health, its software, its variables."""

from __future__ import annotations

import pytest

from fixtures.core.environment import CHECKS


@pytest.mark.smoke
@pytest.mark.environment
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_environment(check, environment, record):
    """The machine is one that a qualification can stand on: what this row of the table claims."""
    if not check.required:
        record.informs()
    verdict = record.finding(check(environment))
    assert verdict

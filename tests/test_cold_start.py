"""The cold start of a fresh process, from nothing to the first features, phase by phase."""

from __future__ import annotations

import pytest

from fixtures.core.clock import clock
from fixtures.core.fresh import ColdStart
from fixtures.core.records import Status

pytestmark = pytest.mark.performance


def test_cold_start(alone, processes, patience, record, same_features, blocks):
    """A fresh process comes from nothing to features, and they are those of this process."""
    patience()
    fresh = processes(1, blocks=blocks)
    verdict = record(ColdStart(fresh, clock.started))
    verdict &= same_features(fresh, "the fresh process")
    if verdict.status is Status.NOT_RUN:
        record.not_run(repr(verdict))
    assert verdict

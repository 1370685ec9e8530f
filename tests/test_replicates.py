"""Latency in as many fresh processes as the level has; limits are judged by all of them."""

from __future__ import annotations

import pytest

from fixtures.core.levels import LEVELS
from fixtures.core.limits import performance_limits
from fixtures.core.records import Status
from fixtures.core.replicates import Replicates

pytestmark = pytest.mark.performance


def test_replicates(
    alone, processes, settings, patience, record, limits, same_features, work, blocks
):
    """Fresh processes agree in their times and features, and the limits that were given hold."""
    level = LEVELS[settings.level]
    taken = []
    for number in range(1, level.processes + 1):
        patience()
        taken.append(processes(number, level.processes, blocks))
        if taken[-1].failure:  # the others would take as long to end no better
            break
    rows = [limits[row.name] for row in performance_limits(settings.batch_sizes)]
    record.limits |= {row.name: row for row in rows}
    patience()
    verdict = record(Replicates(level, tuple(taken), tuple(rows), work))
    for number, fresh in enumerate(taken, 1):
        verdict &= same_features(fresh, f"fresh process {number}")
    if verdict.status is Status.NOT_RUN:
        record.not_run(repr(verdict))
    if verdict.status is Status.INCONCLUSIVE:
        record.inconclusive(repr(verdict))
    assert verdict

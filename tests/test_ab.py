"""On demand (`--ab "COMMAND"`): this environment beside another one, in turns."""

from __future__ import annotations

import pytest

from fixtures.core.ab import Versus, take_turns
from fixtures.core.levels import LEVELS

pytestmark = [pytest.mark.performance, pytest.mark.ab]


def test_ab(
    alone, process_spec, measured_fresh, settings, patience, record, same_features, blocks, work
):
    """Beside another environment, process by process in turns, this one has not become slower."""
    record.informs()
    if not settings.ab:
        record.not_run('no --ab "COMMAND" was given: the Python of another environment')
    level = LEVELS[settings.level]

    def measure(python, whose, number):
        patience()
        what = f"{whose} {number} of {level.pairs}"
        return measured_fresh(process_spec(), python, what, blocks)

    ours, theirs = take_turns(
        level.pairs,
        lambda number: measure((), "this environment", number),
        lambda number: measure(settings.ab, "the other environment", number),
    )
    found = Versus(settings.ab, level, ours, theirs, work)
    patience()
    verdict = record(found)
    for number, fresh in enumerate(ours, 1):
        verdict &= same_features(fresh, f"process {number} of this environment")
    if verdict and found.reason:
        record.inconclusive(found.reason)
    assert verdict

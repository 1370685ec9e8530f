"""Item: the environment. Versions, the card and its health, its software, its variables."""

from __future__ import annotations

import pytest

from fixtures.core.environment import CHECKS
from fixtures.core.records import Status


@pytest.mark.smoke
@pytest.mark.environment
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_environment(check, environment, record):
    """The machine is one that a qualification can stand on: what this row of the table claims."""
    finding = check(environment)
    for figure in finding.figures:
        record.figure(figure.name, figure.value, figure.unit, figure.reason)
    for doubt in finding.doubts:
        record.doubt(doubt)
    if not check.required:
        record.informs()
    if finding.verdict.status is Status.UNSUPPORTED:
        record.unsupported(finding.reason)
    if finding.verdict.status is Status.NOT_RUN:
        record.not_run(finding.reason)
    verdict = record.judge(finding.verdict)
    assert verdict

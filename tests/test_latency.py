"""Latency of single forwards at batch 1: warmed up, synchronised, every sample kept."""

from __future__ import annotations

import pytest

from fixtures.core.metrics import compare
from fixtures.core.regimes import REGIMES

pytestmark = [pytest.mark.performance, pytest.mark.smoke]

DEFAULT = REGIMES["default"]


def test_latency(measure, batch, record, apart):
    """A forward at batch 1 has a latency that can be trusted, and its timed outputs are right."""
    inputs = batch(1)
    latency, outputs, same = measure.latency(inputs.images)
    verdict = record(latency)
    repeats = same.result()
    verdict &= record(repeats)
    verdict &= record.judge(repeats.judge(apart(DEFAULT) if repeats.differing else None))

    for number, output in enumerate(outputs, 1):
        agreement = compare(output, inputs.reference, inputs.names, 1)
        verdict &= record.check(agreement, f"timed forward {number}")
    assert verdict

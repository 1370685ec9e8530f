"""Latency of single forwards at batch 1: warmed up, synchronised, every sample kept."""

from __future__ import annotations

import pytest

from fixtures.core.limits import LATENCY_LIMITS
from fixtures.core.metrics import compare

pytestmark = [pytest.mark.performance, pytest.mark.smoke]


def test_latency(measure, batch, record, limits):
    """A forward at batch 1 has a latency that can be trusted, and its timed outputs are right."""
    inputs = batch(1)
    latency, outputs = measure.latency(inputs.images)
    verdict = record(latency, *(limits[limit.name] for limit in LATENCY_LIMITS))

    for number, output in enumerate(outputs, 1):
        agreement = compare(output, inputs.reference, inputs.names, 1)
        verdict &= record.check(agreement, f"timed forward {number}")
    assert verdict

"""On demand (`pytest -m soak --soak-seconds N`): the device under load for a while."""

from __future__ import annotations

import pytest

from fixtures.core.regimes import REGIMES
from fixtures.core.soak import soak, stressed

pytestmark = pytest.mark.soak


def test_soak(device_model, device, batch, settings, record, progress):
    """Kept busy, the device gives the same bits, loses no memory and counts no errors."""
    images = batch(max(settings.batch_sizes)).images
    found = soak(device, device_model, images, REGIMES["default"], settings.soak_seconds, progress)
    verdict = record(found)
    assert verdict


def test_stress_detect(device, settings, record):
    """The vendor's own test of the chip finds no silent errors; it runs where it is asked for."""
    if not settings.stress_detect:
        record.informs()
        record.not_run(
            "opt in by --stress-detect: it wants the node for itself and varies the chip's voltage"
        )
    verdict = record.finding(stressed(device))
    assert verdict

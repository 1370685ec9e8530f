"""Where the device's network and the reference part, operator by operator; run by `-m layers`."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core.regimes import REGIMES

pytestmark = [pytest.mark.layers, pytest.mark.precision]

PICTURES = (0, 1)
"""Rows of the inputs that are followed: noise, and something like a picture."""


def pytest_generate_tests(metafunc):
    """One case per regime of the run."""
    if "regime" in metafunc.fixturenames:
        rows = [REGIMES[name] for name in metafunc.config.stash[SETTINGS].regimes]
        metafunc.parametrize("regime", [pytest.param(row, id=row.name) for row in rows])


def test_layers(regime, device, record, parted):
    """Each operator and block, fed with the reference's own input, is as exact as is declared."""
    record.informs()
    refusal = regime.refusal(device.backend)
    if refusal:
        record.unsupported(refusal)

    verdict = record(parted(regime, PICTURES))
    assert verdict

"""The arithmetic that the device declares is the one it computes in: measured, not believed."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core import probe
from fixtures.core.regimes import REGIMES

pytestmark = pytest.mark.precision

SMOKE = "default"
"""The regime whose probe is a smoke case: it takes less than a forward."""


def pytest_generate_tests(metafunc):
    """One case per regime of the run."""
    if "regime" in metafunc.fixturenames:
        names = metafunc.config.stash[SETTINGS].regimes
        smoke = [pytest.mark.smoke]
        metafunc.parametrize(
            "regime", [pytest.param(n, marks=smoke if n == SMOKE else []) for n in names]
        )


@pytest.fixture(scope="module")
def places(cpu_model, subject):
    """The kinds of products that the network computes, at the network's own shapes."""
    import torch

    return probe.sites(cpu_model, torch.zeros(1, *subject.input_size))


def test_math_mode(regime, places, device, record):
    """Factors, sums, results and GELU are what the device declares in this regime."""
    refusal = REGIMES[regime].refusal(device.backend)
    if refusal:
        record.unsupported(refusal)
    verdict = record(probe.probe(device, REGIMES[regime], places))
    assert verdict


def test_strict_switch(places, device, record):
    """Switching every shortcut off makes float32 of what was less, and can be undone."""
    before = device.math_mode()
    if not probe.shortcuts(before):
        record.unsupported(f"there is nothing to switch off: by default {device} has {before}")
    default = probe.probe(device, REGIMES["default"], places)
    switched = probe.Switched(default, probe.probe(device, REGIMES["ieee"], places))
    verdict = record(switched)
    verdict &= record.judge(switched.put_back(device.math_mode()))
    assert verdict

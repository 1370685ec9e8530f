"""The gates prove themselves before they judge: wrong networks are stopped, the host is right."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core import golden, mutants
from fixtures.core.regimes import REGIMES
from fixtures.core.strict import ABSOLUTE

pytestmark = pytest.mark.precision


def pytest_generate_tests(metafunc):
    """One case per regime; those of float32 are smoke cases."""
    if "regime" in metafunc.fixturenames:
        rows = [REGIMES[name] for name in metafunc.config.stash[SETTINGS].regimes]
        metafunc.parametrize(
            "regime",
            [pytest.param(row, id=row.name) for row in rows],
        )


@pytest.mark.smoke
def test_host(synthetic_model, subject, store, record):
    """The host's own CPU gives the outputs that the repository holds for synthetic weights."""
    if not golden.shipped(subject.model, subject.num_classes):
        record.informs()
        record.not_run(f"no golden outputs are shipped for {subject.model}")
    found = golden.check_host(synthetic_model, subject, store)
    for notice in store.take_notices():
        record.doubt(notice)
    verdict = record(found, *golden.LIMITS, where=f"{subject.model}, synthetic weights, seed 0")
    assert verdict


def test_synthetic(regime, synthetic_outputs, arithmetic, device, subject, limits, record):
    """With synthetic weights the device's error is within what its arithmetic may ever have."""
    refusal = regime.refusal(device.backend)
    if refusal:
        record.unsupported(refusal)
    if not golden.shipped(subject.model, subject.num_classes):
        record.informs()
        record.not_run(f"no golden outputs are shipped for {subject.model}")
    declared = arithmetic(regime)
    found = golden.check_device(synthetic_outputs(regime), subject, regime, declared)
    where = f"regime {regime.name} ({declared}), synthetic weights, seed 0"
    verdict = record(found, limits[ABSOLUTE.name], where=where)
    assert verdict


def test_mutants(regime, panel, device, record, store):
    """Networks that are wrong in a known way do not pass the strict gate."""
    refusal = regime.refusal(device.backend)
    if refusal:
        record.unsupported(refusal)
    found = panel(regime)
    for notice in store.take_notices():
        record.doubt(notice)
    verdict = record(found, mutants.PANEL, mutants.MISSED, where=found.where)
    assert verdict

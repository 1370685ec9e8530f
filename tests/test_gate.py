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
def test_host(synthetic_model, subject, record):
    """The host's own CPU gives the outputs that the repository holds for synthetic weights."""
    name, model = golden.host_network(synthetic_model, subject)
    if name != subject.model:
        record.doubt(
            f"no golden outputs are shipped for {subject.model} with {subject.num_classes} "
            f"outputs: this host was checked with {name}"
        )
    verdict = record(
        golden.check_host(name, model),
        *golden.LIMITS,
        where=f"{name}, synthetic weights, seed 0",
    )
    assert verdict


def test_synthetic(
    regime, synthetic_outputs, synthetic_reference, arithmetic, device, limits, record, store
):
    """With synthetic weights the device's error is within what its arithmetic may ever have."""
    refusal = regime.refusal(device.backend)
    if refusal:
        record.unsupported(refusal)
    declared = arithmetic(regime)
    found = golden.check_device(synthetic_outputs(regime), synthetic_reference, regime, declared)
    for notice in store.take_notices():
        record.doubt(notice)
    if found.reference == golden.HERE:
        record.doubt("no golden outputs are shipped for it: the reference is this host's float64")
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

"""The same work gives the same bits again, and a row does not depend on the rows beside it."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core import determinism
from fixtures.core.regimes import REGIMES

pytestmark = pytest.mark.determinism

BATCH = 2
"""Pictures of a repeat: more than one, so that rows can be mixed up."""

BATCHES = (2, 8)
"""Batches in which a row is compared with itself alone."""


def pytest_generate_tests(metafunc):
    """One case per regime of the run."""
    metafunc.parametrize("regime", metafunc.config.stash[SETTINGS].regimes)


@pytest.fixture
def chosen(regime, device, record):
    """The regime, where the device can run it."""
    refusal = REGIMES[regime].refusal(device.backend)
    if refusal:
        record.unsupported(refusal)
    return REGIMES[regime]


def varying(device, model, images, regime, repeats):
    """The first operator that is not repeatable, with deterministic algorithms alone."""
    from fixtures.core.replay import first_varying

    network, there = regime.network(model), regime.given(images).to(device.torch)
    with device.noticing(), regime.entered(device), determinism.deterministic():
        return first_varying(device, network, there, repeats)


# The strict case comes last: on an NPU what a thread was first told about determinism may stay.


def test_repeats_as_set_up(chosen, device_model, device, batch, settings, apart, record, progress):
    """Repeats of a forward agree to the bit; where they need not, by how much they differ."""
    images = batch(BATCH).images
    found = determinism.repeats(
        device, device_model, images, chosen, settings.repeats, strict=False, progress=progress
    )
    verdict = record(found)
    verdict &= record.judge(found.judge(apart(chosen) if found.differing else None))
    assert verdict


def test_batch_invariance(chosen, device_model, device, batch, apart, record):
    """A row alone and the same row in a batch: how far apart they are."""
    images = batch(max(BATCHES)).images
    found = determinism.invariance(device, device_model, images, chosen, BATCHES)
    verdict = record(found)
    verdict &= record.judge(found.judge(apart(chosen) if found.rows else None))
    assert verdict


def test_repeats_deterministic(chosen, device_model, device, batch, settings, record, progress):
    """With deterministic algorithms alone every repeat of a forward gives the same bits."""
    images = batch(BATCH).images
    found = determinism.repeats(
        device, device_model, images, chosen, settings.repeats, strict=True, progress=progress
    )
    verdict = record(found)
    if not verdict:
        verdict &= record(varying(device, device_model, images, chosen, settings.repeats))
    assert verdict

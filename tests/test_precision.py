"""The device's features against the CPU's on the same inputs, at every timed batch size."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core.backends.base import first_line
from fixtures.core.metrics import METRICS, VARIETY, compare, variety
from fixtures.core.settings import DEFAULT_BATCH_SIZES

pytestmark = pytest.mark.precision

DISTINCT = 8
"""Inputs that every batch size is tried with, at least; also the batch size of the smoke case."""


def pytest_generate_tests(metafunc):
    """One case per timed batch size, and the smoke case whether it is timed or not."""
    if "batch_size" in metafunc.fixturenames:
        sizes = sorted({*metafunc.config.stash[SETTINGS].batch_sizes, DISTINCT})
        smoke = pytest.mark.smoke
        metafunc.parametrize(
            "batch_size",
            [pytest.param(n, id=f"b{n}", marks=[smoke] if n == DISTINCT else []) for n in sizes],
        )


@pytest.mark.smoke
def test_inputs_differ(batch, record):
    """The inputs differ and are of every kind: noise, image-like, black, white, constant."""
    inputs = batch(DISTINCT)
    verdict = record(variety(inputs.images, inputs.names), *VARIETY)
    assert verdict


def test_agreement(batch_size, batch, forward, device, limits, record):
    """At this batch size the device gives the CPU's features, row by row."""
    import torch

    size = -(-DISTINCT // batch_size) * batch_size
    inputs = batch(size)
    too_large = ""
    try:
        got = torch.cat([forward(images) for images in inputs.images.split(batch_size)])
    except (RuntimeError, MemoryError) as error:
        if not device.backend.is_out_of_memory(error):
            raise
        too_large = f"batch size {batch_size} does not fit: {first_line(error)}"
    if too_large:  # outside of the handler, where the error holds the tensors no longer
        device.backend.empty_cache(device.index)
        assert batch_size not in DEFAULT_BATCH_SIZES, too_large
        record.unsupported(too_large)

    agreement = compare(got, inputs.reference, inputs.names, batch_size)
    worst = agreement.worst_row
    verdict = record(
        agreement,
        *(limits[metric.name] for metric in METRICS if metric.limit is not None),
        where=f"batch size {batch_size}, worst input {worst.name if worst else 'unknown'}",
    )
    assert verdict

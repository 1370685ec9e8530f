"""Throughput at each batch size, out of memory included; every timed output is compared."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core.metrics import compare
from fixtures.core.regimes import REGIMES
from fixtures.core.settings import DEFAULT_BATCH_SIZES

pytestmark = pytest.mark.performance

DEFAULT = REGIMES["default"]


def pytest_generate_tests(metafunc):
    """One case per batch size; the largest of the document's is the smoke case."""
    sizes = metafunc.config.stash[SETTINGS].batch_sizes
    smoke = max(DEFAULT_BATCH_SIZES)
    metafunc.parametrize(
        "batch_size",
        [
            pytest.param(size, id=f"b{size}", marks=[pytest.mark.smoke] if size == smoke else [])
            for size in sizes
        ],
    )


def test_throughput(batch_size, measure, batch, record, apart):
    """The network keeps up its throughput at this batch size and its outputs stay right."""
    inputs = batch(batch_size)
    throughput, outputs, same = measure.throughput(inputs.images)
    verdict = record(throughput)
    if throughput.out_of_memory:
        sentence = f"batch size {batch_size} does not fit: {throughput.out_of_memory}"
        assert batch_size not in DEFAULT_BATCH_SIZES, sentence
        record.unsupported(sentence)
    repeats = same.result()
    verdict &= record(repeats)
    verdict &= record.judge(repeats.judge(apart(DEFAULT) if repeats.differing else None))

    for number, output in enumerate(outputs, 1):
        agreement = compare(output, inputs.reference, inputs.names, batch_size)
        verdict &= record.check(agreement, f"timed block {number}")
    for number, output in same.strange:
        agreement = compare(output, inputs.reference, inputs.names, batch_size)
        verdict &= record.check(agreement, f"timed forward {number}")
    assert verdict

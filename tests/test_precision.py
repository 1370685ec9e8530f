"""The device's features against the CPU's and against float64, at every batch size and regime."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core.backends.base import first_line
from fixtures.core.gate import DISTINCT, coarsest
from fixtures.core.metrics import METRICS, VARIETY, compare, variety
from fixtures.core.records import MathMode, Verdict
from fixtures.core.regimes import REGIMES
from fixtures.core.settings import DEFAULT_BATCH_SIZES
from fixtures.core.strict import ABSOLUTE, REST, STRICT

pytestmark = pytest.mark.precision

DEFAULT = REGIMES["default"]


def pytest_generate_tests(metafunc):
    """One case per timed batch size, and the smoke case whether it is timed or not; the regimes
    beside the default one are tried at the smoke case's size."""
    if "batch_size" not in metafunc.fixturenames:
        return
    settings = metafunc.config.stash[SETTINGS]
    sizes = sorted({*settings.batch_sizes, DISTINCT})

    def marks(regime, size):
        return [pytest.mark.smoke] if size == DISTINCT and not regime.half else []

    if "regime" in metafunc.fixturenames:
        rows = [
            pytest.param(
                REGIMES[name], size, id=f"{name}-b{size}", marks=marks(REGIMES[name], size)
            )
            for name in settings.regimes
            for size in (sizes if name == DEFAULT.name else (DISTINCT,))
        ]
        metafunc.parametrize("regime, batch_size", rows)
    else:
        rows = [pytest.param(n, id=f"b{n}", marks=marks(DEFAULT, n)) for n in sizes]
        metafunc.parametrize("batch_size", rows)


def given(outputs, regime, batch_size, device, record):
    """What the device gives; a batch that does not fit is unsupported where one asked for it."""
    too_large = ""
    try:
        return outputs(regime, batch_size)
    except (RuntimeError, MemoryError) as error:
        if not device.backend.is_out_of_memory(error):
            raise
        too_large = f"batch size {batch_size} does not fit: {first_line(error)}"
    # outside of the handler, where the error holds the tensors no longer
    device.backend.empty_cache(device.index)
    assert batch_size not in DEFAULT_BATCH_SIZES, too_large
    return record.unsupported(too_large)


def where_from(parted, regime, row, batch_size, record):
    """Say of a failure where it comes from: on its worst input beside the first one, then in a
    batch as it was. The failure stands, whatever becomes of the search."""
    whole = (row,) if batch_size == 1 else tuple(range(min(batch_size, DISTINCT)))
    try:
        found = parted(regime, tuple(sorted({0, row})))
        if not found.verdict():
            return record(found)
        found = parted(regime, whole)
        if found.verdict():
            record.doubt(f"followed operator by operator, in a batch of {len(whole)}, it is right")
        return record(found)
    except NotImplementedError as error:
        record.doubt(f"where the networks part could not be found: {first_line(error)}")
        return Verdict()


@pytest.mark.smoke
def test_inputs_differ(batch, record):
    """The inputs differ and are of every kind: noise, image-like, black, white, constant."""
    inputs = batch(DISTINCT)
    verdict = record(variety(inputs.images, inputs.names), *VARIETY)
    assert verdict


def test_agreement(batch_size, batch, outputs, device, limits, record, parted):
    """At this batch size the device gives the CPU's features, row by row."""
    got = given(outputs, DEFAULT, batch_size, device, record)
    inputs = batch(len(got))
    agreement = compare(got, inputs.reference, inputs.names, batch_size)
    worst = agreement.worst_row
    verdict = record(
        agreement,
        *(limits[metric.name] for metric in METRICS if metric.limit is not None),
        where=f"batch size {batch_size}, worst input {worst.name if worst else 'unknown'}",
    )
    if not verdict:
        names = inputs.names[:DISTINCT]
        row = names.index(worst.name) if worst and worst.name in names else 0
        verdict &= where_from(parted, DEFAULT, row, batch_size, record)
    assert verdict


def test_strict(
    regime,
    batch_size,
    batch,
    outputs,
    gate,
    arithmetic,
    network,
    subject,
    device,
    limits,
    record,
    parted,
    shares,
    store,
):
    """In this regime the device's error is that of its declared arithmetic, and no more."""
    refusal = regime.refusal(device.backend)
    if refusal:
        record.unsupported(refusal)
    got = given(outputs, regime, batch_size, device, record)
    declared = arithmetic(regime)
    stages = outputs.stages.get(regime.name) if batch_size == DISTINCT else None
    rest = batch(len(got)).reference[DISTINCT:]
    strict = gate.judge(got, regime, declared, batch_size, stages=stages, rest=rest)
    # TAU was measured on the listed networks, with synthetic weights (golden.Reference.tau)
    known = network.listed or coarsest(declared) == "ieee"
    rows = STRICT + ((ABSOLUTE,) if known and subject.weights.source == "synthetic" else ())
    rows += (REST,) if len(rest) else ()
    verdict = record(
        strict,
        *(limits[row.name] for row in rows),
        where=f"strict gate, regime {regime.name} ({declared}), batch size {batch_size}",
    )
    for notice in store.take_notices():
        record.doubt(notice)
    first = batch_size == DISTINCT and regime is DEFAULT
    if not verdict or (first and declared != MathMode(switches=declared.switches)):
        record(shares(regime, got))
    if not verdict:
        verdict &= where_from(parted, regime, strict.worst, batch_size, record)
    assert verdict

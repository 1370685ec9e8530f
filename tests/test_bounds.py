"""What limits the network: the card's peaks, and the times taken before against them."""

from __future__ import annotations

import pytest

from fixtures.core.bounds import Bounds, Cost, Timed
from fixtures.core.regimes import REGIMES

pytestmark = pytest.mark.performance

DEFAULT = REGIMES["default"]


def test_peaks(peaks, record):
    """No product, convolution or copy is faster than the chip can be."""
    verdict = record(peaks)
    assert verdict
    missing = [f"{row.words}: {row.reason}" for row in peaks.rows if row.measured is None]
    if missing:
        record.informs()
        record.not_run("; ".join(missing))


def test_bounds(
    peaks, table, operator_times, recorded, network, subject, arithmetic, device, work, record
):
    """What was timed is possible on this card, and host or device is told to be its limit."""
    taken = [entry for entry in recorded("latency") if entry["batch_size"] == 1][:1]
    blocks = sorted(filter(None, map(Timed.of, recorded("throughput"))), key=lambda t: t.batch_size)
    launch_s = None
    if taken and device.backend.asynchronous and not device.backend.queues_launches:
        launch_s = 1e-3 * taken[0]["synchronisation"]["launch_only_ms"]
    bounds = Bounds(
        arithmetic(DEFAULT),
        None if table.table is None else Cost.of(table.table, subject.parameters),
        peaks,
        Timed.of(taken[0]) if taken else None,
        tuple(blocks),
        launch_s,
        operator_times.device_s if operator_times and device.backend.asynchronous else None,
        operator_times,
        network.gflop if subject.num_classes == network.num_classes else None,
        work.saving,
        {} if table.table is not None else {"flop_per_picture": "; ".join(table.notices)},
    )
    verdict = record(bounds)
    assert verdict
    if bounds.host_share is None:
        record.informs()
        record.not_run(bounds.sentence)

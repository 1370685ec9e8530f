"""On demand (`pytest --batch-sizes auto`): batch sizes doubled until memory ends."""

from __future__ import annotations

import pytest

from fixtures.core.batches import DISTINCT
from fixtures.core.regimes import REGIMES
from fixtures.core.sweep import sweep

pytestmark = [pytest.mark.sweep, pytest.mark.performance]


def test_sweep(
    device_model, device, batch, settings, apart, record, progress, request, blocks, work
):
    """Batch sizes are doubled until memory ends: rates, a law of memory, and the best batch."""
    record.informs()
    config = request.config
    if hasattr(config, "workerinput") or config.getoption("benchmark_disable", False):
        record.not_run("no times are taken under pytest-xdist or --benchmark-disable")
    images = batch(DISTINCT).images
    limit = apart(REGIMES["default"])
    sizes = settings.batch_sizes
    found = sweep(device, device_model, images, sizes, limit, progress, blocks=blocks, work=work)
    verdict = record(found)
    assert verdict

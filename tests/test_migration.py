"""Moving the network and single tensors to the device and back; nothing in it is tied to CUDA."""

from __future__ import annotations

import pytest

from fixtures.core import migration
from fixtures.core.clock import clock

pytestmark = [pytest.mark.migration, pytest.mark.smoke]


def test_model_moves(device_model, device, record):
    """``.to(device)`` moves every tensor that the network holds."""
    verdict = record(migration.moved(device_model, device))
    assert verdict


def test_model_comes_back(cpu_model, device_model, record):
    """Every tensor of the network comes back from the device with the same bits."""
    verdict = record(migration.round_trip(cpu_model, device_model))
    assert verdict


def test_twin_stays(cpu_model, device_model, cpu, record):
    """The network on the CPU stays there while its twin is on the device."""
    verdict = record(migration.moved(cpu_model, cpu))
    assert verdict


def test_source_has_no_cuda(cpu_model, record):
    """No function that the network uses names CUDA as the device to run on."""
    verdict = record(migration.scan_source(cpu_model))
    assert verdict


def test_run_without_cuda(forward, batch, device, record):
    """The network runs on the device with every entry point of CUDA trapped."""
    images = batch(1).images
    owner = device.backend.owns_cuda_namespace
    verdict = record(
        migration.run_trapped(f"a forward on {device}", lambda: forward(images), owner)
    )
    assert verdict


def test_run_without_cuda_on_cpu(cpu_model, batch, record):
    """The network runs on the CPU with every entry point of CUDA trapped."""
    import torch

    images = batch(1).images

    def forward():
        with clock.spent("reference"), torch.inference_mode():
            cpu_model(images)

    verdict = record(migration.run_trapped("a forward on the CPU", forward))
    assert verdict


@pytest.mark.parametrize("layout", migration.LAYOUTS)
@pytest.mark.parametrize("dtype", migration.SPECIAL_BITS)
def test_tensor(dtype, layout, device, record):
    """A tensor of special values goes to the device and back with every bit as it was."""
    if dtype not in device.backend.round_trip_dtypes:
        record.unsupported(f"the {device.backend.name} backend does not list {dtype}")

    verdict = record(migration.tensor_round_trip(device, dtype, layout))
    assert verdict

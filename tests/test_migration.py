"""Moving the network and single tensors to the device and back; nothing in it is tied to CUDA."""

from __future__ import annotations

import pytest

from fixtures.core import migration, placement
from fixtures.core.clock import clock
from fixtures.core.records import Status

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


def test_float64(device, record):
    """A float64 tensor keeps its format on the device, or gets the one its backend declares."""
    verdict = record(migration.float64_kept(device))
    assert verdict


def test_channels_last(device, record):
    """The channels-last format is taken with every value kept, or refused with an error."""
    verdict = record(migration.channels_last(device))
    assert verdict


# --- on that card, and on no other ----------------------------------------------------------------


@pytest.fixture
def judged(device, record):
    """Judge a record of the device's memory; the case ends where memory cannot be asked."""
    try:
        known = placement.free_memory(device) is not None
    except RuntimeError as error:
        if device.backend.device_error(error):
            raise
        record.not_run(f"the free memory of {device} cannot be asked: {error}")
    if not known:
        record.unsupported(f"the {device.backend.name} backend has no device memory to ask for")

    def judge(measured):
        verdict = record(measured)
        if verdict.status is Status.INCONCLUSIVE:
            record.inconclusive(repr(verdict))
        return verdict

    return judge


def test_chosen_device(device, record):
    """torch works on the device that was asked for, by default and where it is named."""
    if not device.is_accelerator:
        record.unsupported("there is but one processor")

    verdict = record(placement.chosen(device))
    assert verdict


def test_placement(device, judged):
    """What is put on the device lies on that card and on no other, and it gets it back."""
    verdict = judged(placement.place(device))
    assert verdict


def test_allocations_cost_no_memory(device, judged):
    """Taking memory from the card and giving it back, again and again, loses none of it."""
    measured = placement.losses(
        device, "an allocation", lambda: placement.allocate_and_release(device)
    )
    verdict = judged(measured)
    assert verdict


def test_forwards_cost_no_memory(device, forward, batch, judged):
    """A forward, again and again, loses none of the card's memory."""
    images = batch(1).images
    verdict = judged(placement.losses(device, "a forward", lambda: forward(images)))
    assert verdict

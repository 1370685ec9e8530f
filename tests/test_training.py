"""Training for downstream use: one step, optimizers, StochasticDepth, half formats, a fine-tune."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core import fine_tuning, inputs, loss_scaling, optimizers, stochastic_depth, training
from fixtures.core.backends.base import first_line
from fixtures.core.pictures import built_in
from fixtures.core.regimes import REGIMES

pytestmark = pytest.mark.training

DEFAULT = REGIMES["default"]


def pytest_generate_tests(metafunc):
    """One case per float32 regime, and per optimizer."""
    if "regime" in metafunc.fixturenames:
        chosen = [REGIMES[name] for name in metafunc.config.stash[SETTINGS].regimes]
        rows = [row for row in chosen if not row.half] or [DEFAULT]
        metafunc.parametrize("regime", rows, ids=[row.name for row in rows])
    if "optimizer" in metafunc.fixturenames:
        rows = optimizers.OPTIMIZERS
        metafunc.parametrize("optimizer", rows, ids=[row.id for row in rows])


@pytest.fixture(scope="module")
def bench(cpu_model, batch, device):
    """The network, what it is to learn, and the float64 references, each computed once."""
    given = training.exercise(cpu_model, batch(training.BATCH).images)
    return training.Bench(cpu_model, given, device)


@pytest.fixture
def judged(record):
    """`judged(measured)`: file what was measured, then judge each figure where it comes from."""

    def judge(measured):
        verdict = record(measured)
        for each in measured.judged():
            verdict &= record.judge(each.limit, each.figure, each.where)
        return verdict

    return judge


def test_step(regime, bench, arithmetic, judged):
    """Loss and the gradient of every parameter are as exact as the declared arithmetic allows."""
    verdict = judged(bench.step(regime, arithmetic(regime)))
    assert verdict


def test_optimizer(optimizer, bench, device, judged):
    """The optimizer moves the weights as its formula says, given the device's own gradient."""
    verdict = judged(optimizers.observe(optimizer, bench.on_device, bench.given, device))
    assert verdict


def test_stochastic_depth(bench, batch, device, judged, record):
    """In training single rows are dropped at the right rate and the others scaled, in evaluation
    none."""
    images = training.exercise(bench.model, batch(stochastic_depth.IMAGES).images).images
    measured = stochastic_depth.observe(bench.on_device, images, device)
    if measured is None:
        record.informs()
        record.unsupported("the network has no place for StochasticDepth")

    verdict = judged(measured)
    assert verdict


def test_autocast(bench, arithmetic, device, judged, record):
    """A step under autocast to bfloat16 is as exact as that format allows."""
    refusal = training.AUTOCAST["bfloat16"].refusal(device.backend)
    if refusal:
        record.unsupported(refusal)

    verdict = judged(bench.autocast("bfloat16", arithmetic(DEFAULT)))
    assert verdict


def test_loss_scaling(bench, arithmetic, device, judged, record):
    """GradScaler carries a float16 step through, and skips one with gradients out of bounds."""
    refusal = training.AUTOCAST["float16"].refusal(device.backend)
    if refusal:
        record.unsupported(refusal)

    try:
        measured, step = loss_scaling.scaled_step(bench, arithmetic(DEFAULT))
    except NotImplementedError as error:
        if device.backend.device_error(error):
            raise
        record.unsupported(f"torch has no GradScaler for {device}: {first_line(error)}")
    verdict = judged(measured)
    verdict &= judged(step)
    assert verdict


def test_fine_tune(cpu_model, batch, arithmetic, device, judged, record):
    """With the backbone frozen the loss falls as on the CPU, and nothing frozen moves."""
    if not fine_tuning.has_head(cpu_model):
        record.informs()
        record.unsupported("the network has no classifier")
    first = len(inputs.KINDS)
    rows = batch(first + len(built_in()))
    given = training.exercise(cpu_model, rows.images[first:])
    verdict = judged(fine_tuning.fine_tune(cpu_model, given, device, arithmetic(DEFAULT)))
    assert verdict

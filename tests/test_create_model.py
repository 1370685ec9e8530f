"""The network is what timm's call makes of it, with weights that are known, whole and matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.core import blocks, weights
from fixtures.core.clock import clock
from fixtures.core.records import Limit

pytestmark = pytest.mark.model

FINITE = Limit.row("nonfinite_outputs", "==", 0, "every output is a number")
WHOLE = Limit.row("tensors_not_loaded", "==", 0, "no tensor is left at its random initialisation")


@pytest.mark.smoke
def test_create_model(cpu_model, network, subject, settings, batch, record):
    """timm creates the network as its row says: parameters, input and output shape, eval mode,
    finite output."""
    image, output = batch(1).images, batch(1).reference
    record.figure("parameters", subject.parameters)
    record.figure("outputs", output.shape[1])
    nonfinite = record.figure("nonfinite_outputs", int((~output.isfinite()).sum()))
    if not network.listed:
        record.doubt(f"{network.name} is not in the table of networks: only timm's word is checked")

    verdict = record.judge(FINITE, nonfinite)
    verdict &= record.judge(network.held_to("input_size", tuple(image.shape[1:])))
    if settings.num_classes in (None, network.num_classes):  # else the head is another one
        verdict &= record.judge(network.held_to("parameters", subject.parameters))
        verdict &= record.judge(network.held_to("num_classes", output.shape[1]))
    assert verdict
    shape, wanted = tuple(output.shape), (1, subject.num_classes)
    assert shape == wanted, f"the output has the shape {shape}, must be {wanted}"
    training = [name for name, module in cpu_model.named_modules() if module.training]
    assert not training, f"{training[0] or 'the network'} is in training mode, must be in eval mode"


@pytest.mark.smoke
def test_weights(cpu_model, subject, record):
    """The weights are the recorded ones: source and SHA-256 hold, and every tensor was loaded."""
    identity = subject.weights
    record.figure("weights_source", identity.source)
    record.figure("weights_sha256", identity.sha256)
    if identity.note:
        record.doubt(f"synthetic weights: {identity.note}")
    if identity.source == "pretrained" and not identity.verified:
        record.doubt("the hub's digest of the weights is not known: they could not be verified")
    if identity.head_reinitialised:
        record.doubt("the classifier was drawn anew: its number of classes is not the checkpoint's")

    with clock.spent("weights"):
        if identity.path is not None:
            digest = weights.file_digest(Path(identity.path))
            assert digest == identity.sha256, f"{identity.path} changed since it was loaded"
        astray = weights.not_from(cpu_model, identity)
    figure = record.figure("tensors_not_loaded", len(astray))
    assert record.judge(WHOLE, figure, ", ".join(astray[:3]))


@pytest.mark.smoke
def test_block_sensitivity(cpu_model, subject, batch, limits, record):
    """Every residual block matters: skipping it moves the output by more than the precision
    comparison lets pass. Pretrained weights only inform."""
    with clock.spent("reference"):
        measured = blocks.block_sensitivity(cpu_model, batch(2).images[1])
    record(measured)
    if not measured.blocks:
        record.not_run(f"{subject.model} has no block that can be skipped")
    verdict = measured.judge(limits[blocks.BLOCK_SENSITIVITY.name])
    if subject.weights.source == "pretrained":
        record.informs()
        if not verdict:
            record.doubt(f"trained weights, a block that hardly matters: {verdict!r}")
        return
    assert record.judge(verdict)

"""Every fact in the table of networks is what the installed timm says, derived anew."""

import dataclasses

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fixtures.core.networks import DEFAULT_NETWORK, NETWORKS, Network, network
from fixtures.core.preprocessing import data_config


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=lambda row: row.name)
def pair(request):
    """A row and its network, on the meta device: shapes without values."""
    with torch.device("meta"):
        return request.param, timm.create_model(request.param.name).eval()


def test_every_fact_holds(pair):
    row, model = pair
    config = data_config(model)
    blocks = [block for stage in model.stages for block in stage.blocks]
    hidden = [block.mlp.fc1.weight.shape[0] / block.mlp.fc1.weight.shape[1] for block in blocks]
    norms = {module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)}
    facts = {
        "name": f"{model.pretrained_cfg['architecture']}.{model.pretrained_cfg['tag']}",
        "num_classes": model.num_classes,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **{name: config[name] for name in ("input_size", "mean", "std", "crop_pct")},
        "interpolation": config["interpolation"],
        "widths": tuple(stage.blocks[0].conv_dw.out_channels for stage in model.stages),
        "depths": tuple(len(stage.blocks) for stage in model.stages),
        "mlp_ratio": hidden[0],
        "stem": (model.stem[0].kernel_size[0], model.stem[0].stride[0]),
        "conv_mlp": isinstance(blocks[0].mlp.fc1, nn.Conv2d),
        "gelu": "tanh" if "Tanh" in type(blocks[0].mlp.act).__name__ else "erf",
        "norm_eps": norms.pop(),
        "listed": True,
    }
    assert not norms
    assert set(hidden) == {hidden[0]}
    flop = row.gflop
    assert {**facts, "gflop": flop} == dataclasses.asdict(row)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        model(torch.empty(1, *row.input_size))
    assert float(f"{counter.get_total_flops() / 1e9:.3g}") == flop


def test_the_default_network_is_the_adaptation_documents():
    row = network(DEFAULT_NETWORK)
    assert (row.parameters, row.input_size, row.num_classes) == (88_222_464, (3, 256, 256), 640)


def test_names_are_the_keys_and_unlisted_networks_know_nothing():
    assert all(name == row.name for name, row in NETWORKS.items())
    assert network("resnet18") == Network("resnet18", listed=False)


def test_a_fact_that_differs_is_told_and_an_unknown_one_is_not_judged():
    row = network(DEFAULT_NETWORK)
    assert row.held_to("parameters", 88_222_464)
    verdict = row.held_to("parameters", 7)
    assert not verdict
    assert repr(verdict) == f"parameters is 7, must be 88222464 (timm 1.0.27: {DEFAULT_NETWORK})"
    assert network("resnet18").held_to("parameters", 7)

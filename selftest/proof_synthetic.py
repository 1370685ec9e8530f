"""The proof that synthetic weights make every block matter; a row of selftest.proof.

Each block of a network loses one of its parts, or gets another in its place, and the relative L2
change of the network's output is measured. What moves the output by less than the precision limit
could be computed wrongly unseen.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fixtures.core import blocks, inputs, weights
from fixtures.core.records import Figure, Verdict

Change = Callable[[nn.Module, Any, Tensor], Tensor]


def zeroed(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    """The part gives zeros."""
    return torch.zeros_like(output)


def identity(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    """The part gives back its input."""
    return given[0]


def redrawn(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    """The part has other weights of the same kind."""
    other = copy.deepcopy(module)
    other._forward_hooks.clear()
    weights.draw(other, seed=1)
    return other(given[0])


FAULTS: dict[str, tuple[str, Change]] = {
    "depthwise conv zeroed": ("conv_dw", zeroed),
    "depthwise conv left out": ("conv_dw", identity),
    "depthwise conv redrawn": ("conv_dw", redrawn),
    "GELU zeroed": ("mlp.act", zeroed),
    "GELU left out": ("mlp.act", identity),
    "MLP zeroed": ("mlp", zeroed),
    "MLP left out": ("mlp", identity),
    "MLP redrawn": ("mlp", redrawn),
}
"""What befalls a block: which part, and what becomes of it."""


def effects(model: nn.Module, images: Tensor) -> dict[str, dict[str, float]]:
    """The change of the output by block and fault; of several images, the least moved one's.

    One forward serves all: each block adds to the batch the rows that its faults give, so that
    what lies before a block is computed once. `images` is (n, C, H, W).
    """
    count = len(images)
    labels: list[tuple[str, str]] = []

    def extend(name: str, block: nn.Module, given: Any, output: Tensor) -> Tensor:
        rows = [output]
        for fault, (part, change) in FAULTS.items():
            hook = block.get_submodule(part).register_forward_hook(change)
            rows.append(block.forward(given[0][:count]))  # past the hook that called this
            hook.remove()
            labels.append((name, fault))
        return torch.cat(rows)

    hooks = [
        block.register_forward_hook(functools.partial(extend, name))
        for name, block in blocks.blocks_of(model)
    ]
    with torch.inference_mode():
        output = model(images).double()
    for hook in hooks:
        hook.remove()
    whole = output[:count]
    faulty = output[count:].view(len(labels), *whole.shape)
    changes = ((faulty - whole).norm(dim=2) / whole.norm(dim=1)).amin(dim=1).tolist()
    table: dict[str, dict[str, float]] = {}
    for (name, fault), change in zip(labels, changes, strict=True):
        table.setdefault(name, {})[fault] = change
    return table


def pictures(model: nn.Module) -> Tensor:
    """A noise and an image-like input, at half the network's own size: (2, C, H/2, W/2)."""
    config: Any = model.pretrained_cfg
    channels, height, width = config["input_size"]
    size = (channels, height // 2, width // 2)
    rows = [inputs.make(index, size, config["mean"], config["std"])[1] for index in range(2)]
    return torch.stack([torch.from_numpy(row) for row in rows])


def prove(name: str) -> tuple[str, Verdict]:
    """Synthetic weights beside timm's own initialisation, as Markdown, and the verdict on them."""
    model = timm.create_model(name, pretrained=False).eval()
    untrained = effects(model, pictures(model))
    weights.draw(model, seed=0)
    drawn = effects(model, pictures(model))
    limit = blocks.BLOCK_SENSITIVITY
    verdict = Verdict()
    lines = [
        f"Relative L2 change of the output of {name}, the smaller one of a noise and an image-like",
        f"input at half size; the limit on the relative L2 error is {limit.bound:g}. Synthetic",
        f"weights of seed 0, SHA-256 {weights.state_digest(model)}.",
        "",
        "| fault in one block | least change, synthetic weights | in block "
        "| largest change, timm's initialisation |",
        "| --- | --- | --- | --- |",
    ]
    for fault in FAULTS:
        least = min(drawn, key=lambda block: drawn[block][fault])
        most = max(changes[fault] for changes in untrained.values())
        lines.append(f"| {fault} | {drawn[least][fault]:.3g} | {least} | {most:.3g} |")
        verdict &= limit.judge(Figure(limit.name, drawn[least][fault]), f"{least}, {fault}")
    lines += ["", "| block | " + " | ".join(FAULTS) + " |", "| --- |" + " --- |" * len(FAULTS)]
    for block, changes in drawn.items():
        lines.append(f"| {block} | " + " | ".join(f"{changes[each]:.3f}" for each in FAULTS) + " |")
    return "\n".join(lines), verdict

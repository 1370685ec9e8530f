"""Run as a script: what a simulated card costs beside the CPU it computes on.

``simulated_cost.py [NETWORK [PAIRS]]`` times forwards at batch 1 on the CPU and on the card, in
pairs so that both meet the same moments of a busy machine, and prints one JSON line: the medians in
milliseconds, their ratio, and its 95 % confidence interval from the pairs.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.core.weights import draw
from selftest.cards import load

NETWORK = "convnext_base.clip_laion2b"
WARM = 2
RESAMPLES = 2000


def ratio_of_medians(pairs: Sequence[tuple[float, float]]) -> float:
    """The card's median over the CPU's; a pair is (CPU, card) in seconds."""
    cpu, card = zip(*pairs, strict=True)
    return float(statistics.median(card) / statistics.median(cpu))


def interval(pairs: Sequence[tuple[float, float]], seed: int = 0) -> tuple[float, float]:
    """95 % of that ratio, by the percentile bootstrap over whole pairs (Efron and Tibshirani)."""
    chance = random.Random(seed)
    drawn = sorted(ratio_of_medians(chance.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main(name: str = NETWORK, pairs: str = "30") -> None:
    """Time the pairs, in turn with the CPU and the card first, and print the line."""
    _, torch = load(1)
    import timm

    torch.npu.conv.allow_hf32 = False  # else the card rounds factors, which the CPU does not
    model = timm.create_model(name, pretrained=False)
    draw(model, seed=0)
    model.eval()
    size = model.pretrained_cfg["input_size"]
    images = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    card = timm.create_model(name, pretrained=False)
    card.load_state_dict(model.state_dict())
    card.eval().to("npu:0")
    there = images.to("npu:0")

    def on_card() -> None:
        card(there)
        torch.npu.synchronize()

    with torch.inference_mode():
        for _ in range(WARM):
            model(images)
            on_card()
        found = []
        for number in range(int(pairs)):
            if number % 2:
                late = timed(on_card)
                found.append((timed(lambda: model(images)), late))
            else:
                found.append((timed(lambda: model(images)), timed(on_card)))
    cpu, simulated = (1e3 * statistics.median(each) for each in zip(*found, strict=True))
    told = {
        "network": name,
        "threads": torch.get_num_threads(),
        "pairs": len(found),
        "cpu_ms": round(cpu, 2),
        "card_ms": round(simulated, 2),
        "ratio": round(ratio_of_medians(found), 4),
        "interval": [round(end, 4) for end in interval(found)],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])

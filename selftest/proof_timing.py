"""What the suite's own timing adds, beside a bare loop and beside that of timm's benchmark.py.

``python -m selftest.proof_timing [--device cuda] [--model NAME] [--pairs N] [--blocks N]`` prints
one JSON line. Batch-1 forwards are timed by fixtures/timing.py through pytest-benchmark, as in a
run, and before each of them one by a bare synchronised loop. Blocks of forwards are timed by the
suite, and before each of them the same number as timm's loop times them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.core.backends import backend
from fixtures.core.latency import PLANS, Plan
from fixtures.core.records import Figure, Limit, Verdict
from fixtures.core.steady import Ceilings
from fixtures.timing import Measure

ROOT = Path(__file__).resolve().parent.parent

WARM_ITER, BENCH_ITER = 10, 40
"""Forwards before and inside timm's timed loop: the defaults of --num-warm-iter and
--num-bench-iter (huggingface/pytorch-image-models, benchmark.py at 066e490605)."""

LEAST_PAIRS = 100

KINDS = ("latency", "throughput")

LARGER = ("--model", "convnext_atto.d2_in1k", "--batch-size", "8", "--calls", "10")
"""Forwards that take long enough that torch.no_grad, which timm's loop uses, costs nothing that
shows beside torch.inference_mode: 5 % of a forward of the smallest network are that alone."""

LATENCY = Limit.row(
    "latency_overhead",
    "<",
    1.01,
    "issue D: the bound of the ratio to a bare synchronised loop excludes 1.01",
)
THROUGHPUT = (
    Limit.row("throughput_ratio", ">", 0.98, "issue D: within 2 % of the loop of timm's benchmark"),
    Limit.row("throughput_ratio", "<", 1.02, "issue D: within 2 % of the loop of timm's benchmark"),
)


# --- statistics of pairs -------------------------------------------------------------------------


def median_bounds(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Order statistics that hold the median with that confidence on each side (distribution-free).

    X(k) with P(Binomial(n, 1/2) <= k - 1) >= confidence is above it, X(n + 1 - k) below.
    """
    ordered, count = sorted(values), len(values)
    below, k = 0.0, 0
    while below < confidence and k < count:
        below += math.comb(count, k) / 2**count
        k += 1
    return ordered[count - k], ordered[k - 1]


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The median of the pairs' ratios with its bounds: a busy moment meets both of a pair."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = median_bounds(ratios)
    return {
        "pairs": len(ratios),
        "suite_ms": 1e3 * statistics.median(ours),
        "other_ms": 1e3 * statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
    }


# --- the two loops -------------------------------------------------------------------------------


class Fixed(Plan):
    """So many samples and blocks as the proof asks for."""

    pairs = LEAST_PAIRS
    pair_blocks = LEAST_PAIRS
    calls = BENCH_ITER

    def latency_rounds(self, seconds_each: float) -> int:
        """As many as pairs."""
        return self.pairs

    def block_calls(self, seconds_each: float) -> int:
        """As many as timm's timed loop has."""
        return self.calls

    def blocks(self, seconds_each: float) -> int:
        """As many as pairs of blocks."""
        return self.pair_blocks


class Interleaved(Measure):
    """The suite's own timing, with another loop's sample before each of its own."""

    other: Callable[[], float]

    def _time(
        self,
        what: str,
        call: Callable[[], None],
        rounds: int,
        pictures: int,
        between: Callable[[], None] = lambda: None,
    ) -> tuple[float, ...]:
        self.others: list[float] = []

        def both() -> None:
            between()
            self.others.append(self.other())

        return super()._time(what, call, rounds, pictures, both)


def bare(device: Any, model: Any, inputs: Any) -> float:
    """One synchronised forward, and nothing else."""
    device.synchronize()
    begun = time.perf_counter()
    model(inputs)
    device.synchronize()
    return time.perf_counter() - begun


def timms(device: Any, model: Any, inputs: Any, calls: int) -> float:
    """Seconds of the timed loop of timm's InferenceBenchmarkRunner.run: under no_grad, each step
    ended by a timestamp that waits for the device."""
    import torch

    def timestamp(wait: bool = False) -> float:
        if wait:
            device.synchronize()
        return time.perf_counter()

    def step() -> float:
        begun = timestamp()
        model(inputs)
        return timestamp(True) - begun

    with torch.inference_mode(False), torch.no_grad():
        total, pictures = 0.0, 0
        begun = timestamp()
        for _ in range(calls):
            total += step()
            pictures += len(inputs)
        return timestamp(True) - begun


# --- run inside pytest, for its benchmark fixture ------------------------------------------------


class Plugin:
    """Gives the one test its arguments and takes its result."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.found: dict[str, Any] = {}

    @pytest.fixture
    def proof(self) -> Plugin:
        """This object."""
        return self


@pytest.mark.parametrize("kind", KINDS)
def test_pairs(benchmark: Any, proof: Plugin, kind: str) -> None:
    """Both loops take the same calls in turn."""
    import timm
    import torch

    from fixtures.core import weights

    given = proof.given
    if given.threads:
        torch.set_num_threads(given.threads)
    name, _, index = given.device.partition(":")
    chosen = backend(name)
    chosen.load()
    device = chosen.open(int(index or 0))
    model = timm.create_model(given.model, pretrained=False)
    weights.draw(model, seed=0)
    model = model.eval().to(device.torch)
    size = 1 if kind == "latency" else given.batch_size
    shape = model.pretrained_cfg["input_size"]
    images = torch.randn(size, *shape, generator=torch.Generator().manual_seed(0))
    inputs = images.to(device.torch)
    quick = PLANS["quick"]
    warm = Ceilings(0.5, 100, 20.0)
    plan = Fixed(**{**vars(quick), "warm_up": warm, "batch_warm_up": warm})
    for field, value in (
        ("pairs", given.pairs),
        ("pair_blocks", given.blocks),
        ("calls", given.calls),
    ):
        object.__setattr__(plan, field, value)
    measure = Interleaved(benchmark, device, model, 0.0, plan, lambda *_: None)
    if kind == "latency":
        measure.other = lambda: bare(device, model, inputs)
    else:
        measure.other = lambda: timms(device, model, inputs, given.calls)
    for _ in range(WARM_ITER):
        bare(device, model, inputs)
    measured, *_ = getattr(measure, kind)(images)
    proof.found[kind] = {
        **paired(measured.seconds, measure.others),
        "model": given.model,
        "calls": 1 if kind == "latency" else given.calls,
        "batch_size": size,
        "verdict": str(measured.verdict().status),
    }
    proof.found["device"] = str(device.identity().label)
    proof.found["threads"] = torch.get_num_threads()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="test_convnext.r160_in1k")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=LEAST_PAIRS)
    parser.add_argument("--calls", type=int, default=BENCH_ITER, help="forwards in a block")
    parser.add_argument("--threads", type=int, default=0, help="torch's own choice by default")
    parser.add_argument("--only", choices=KINDS, help="both by default")
    given = parser.parse_args(arguments)
    plugin = Plugin(given)
    options = ["-q", "-s", "--noconftest", "-p", "no:cacheprovider", "-c", os.devnull]
    options += ["-k", given.only] if given.only else []
    code = pytest.main([__file__, *options, f"--rootdir={ROOT}"], plugins=[plugin])
    print(json.dumps(plugin.found))
    return int(code)


# --- the proof -----------------------------------------------------------------------------------


def overhead() -> tuple[str, Verdict]:
    """Both ratios on the CPU, as Markdown, and the verdict on them."""
    from selftest.proof_tables import table

    told = _measured("--only", "latency") | _measured("--only", "throughput", *LARGER)
    return judged(told, table)


def _measured(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "selftest.proof_timing", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"nothing was measured:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return dict(json.loads(lines[-1]))


def judged(told: dict[str, Any], table: Callable[..., str]) -> tuple[str, Verdict]:
    """The table of one line of the script, and the verdict."""
    one, many = told["latency"], told["throughput"]
    rows = [
        (
            f"{word}, batch {row['batch_size']}",
            f"`{row['model']}`",
            other,
            str(row["pairs"]),
            f"{row['suite_ms']:.4g}",
            f"{row['other_ms']:.4g}",
            f"{row['ratio']:.4f}",
            f"{row['low']:.4f} to {row['high']:.4f}",
        )
        for word, other, row in (
            ("one synchronised forward", "a bare synchronised loop", one),
            (f"{many['calls']} forwards", "the loop of timm's benchmark.py", many),
        )
    ]
    columns = "what|network|beside|pairs|suite (ms)|other (ms)|ratio|95 % bounds"
    verdict = LATENCY.judge(Figure(LATENCY.name, one["high"]), "95 % bound")
    verdict &= THROUGHPUT[0].judge(Figure(THROUGHPUT[0].name, many["low"]), "95 % bound")
    verdict &= THROUGHPUT[1].judge(Figure(THROUGHPUT[1].name, many["high"]), "95 % bound")
    text = (
        f"{told['device']}, {told['threads']} threads; medians, and the "
        "median of the ratios of pairs with its distribution-free 95 % bounds to each side. On an "
        "accelerator: `python -m selftest.proof_timing --device cuda`.\n\n"
    )
    return text + table(columns.split("|"), rows), verdict


if __name__ == "__main__":
    sys.exit(main())

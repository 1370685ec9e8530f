"""What the limits of precision rest on, measured: emulated errors, and what the gates cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from fixtures.core import inputs, weights
from fixtures.core.chain import Chain
from fixtures.core.gate import DISTINCT, coarsest
from fixtures.core.networks import network
from fixtures.core.records import Figure, Limit, MathMode, Verdict
from fixtures.core.regimes import REGIMES
from fixtures.core.store import Store
from fixtures.core.strict import TAU, relative_errors
from selftest.proof_tables import table

SEEDS = {"test_convnext.r160_in1k": 5, "convnext_atto.d2_in1k": 5, "convnext_base.clip_laion2b": 2}
"""Seeds of weights and inputs per network."""

ARITHMETICS = (
    ("ieee", MathMode()),
    ("default", MathMode("hf32", gelu="tanh")),
    ("default", MathMode("hf32", "hf32")),
    ("default", MathMode("tf32", "tf32")),
    *((name, MathMode()) for name in ("fp16", "bf16", "autocast-fp16", "autocast-bf16")),
)

ROOM = Limit.row(
    "k_emulated_errors_over_tau",
    "<=",
    1.0,
    "the strict gate allows k times the emulated error: the absolute limit may not be below that",
)

COST = Limit.row(
    "gate_cost_ratio",
    "<",
    6.0,
    "what is beyond the adaptation document's own precision check is to stay affordable",
)


def limits() -> tuple[str, Verdict]:
    """Largest relative L2 error of each emulated arithmetic with synthetic weights, beside TAU."""
    worst: dict[tuple[str, str], dict[str, float]] = {}
    for name, seeds in SEEDS.items():
        for seed in range(seeds):
            row = network(name)
            plan = weights.resolve("synthetic", row, None, seed)
            model = weights.build(row, plan, None)[0]
            config = model.pretrained_cfg
            size = tuple(config["input_size"])
            images = torch.stack(
                [
                    torch.from_numpy(inputs.make(n, size, config["mean"], config["std"], seed)[1])
                    for n in range(DISTINCT)
                ]
            )
            with tempfile.TemporaryDirectory() as folder:
                chain = Chain(model, weights.state_digest(model), Store(Path(folder)))
                for regime_name, mode in ARITHMETICS:
                    regime = REGIMES[regime_name]
                    arithmetic = regime.arithmetic(mode)
                    golden = chain.golden(images, arithmetic.gelu).whole
                    errors = [
                        float(relative_errors(each.whole, golden).max())
                        for each in chain.same_arithmetic(images, regime, arithmetic)
                    ]
                    key = regime_name, str(arithmetic)
                    found = worst.setdefault(key, {"tau": TAU[coarsest(arithmetic)]})
                    found[name] = max(found.get(name, 0.0), *errors)
    verdict = Verdict()
    lines = []
    for (regime_name, arithmetic), found in worst.items():
        most = max(found[name] for name in SEEDS)
        k = REGIMES[regime_name].k
        share = Figure(ROOM.name, k * most / found["tau"])
        verdict &= ROOM.judge(share, f"{regime_name} ({arithmetic})")
        cells = [f"{found[name]:.2g}" for name in SEEDS]
        lines.append(
            [
                regime_name,
                arithmetic,
                *cells,
                f"{found['tau']:g}",
                f"{k:g}",
                f"{k * most / found['tau']:.2f}",
            ]
        )
    head = ("regime", "arithmetic", *SEEDS, "TAU", "k", "k times the largest, over TAU")
    seeds = ", ".join(f"{name}: {count}" for name, count in SEEDS.items())
    return f"{DISTINCT} inputs a seed; seeds: {seeds}.\n\n{table(head, lines)}", verdict


CPU = ("--device", "cpu", "--weights", "synthetic", "-q", "-p", "no:cacheprovider")
DOCUMENTS = ("tests/test_precision.py", "-k", "test_agreement and b8")
BEYOND = (
    *("tests/test_math_mode.py", "tests/test_gate.py", "tests/test_signatures.py"),
    *("tests/test_precision.py", "-m", "not training"),
    *("-k", "not test_agreement and not test_inputs and not (test_strict and default and not b8)"),
)
"""Items 2 to 5 and 8 of what goes beyond it: the probe, gates and mutants, the network's own
operators in inference, the strict gate in both regimes."""


def spent(*arguments: str) -> float:
    """Seconds of a run of the suite less its imports, and less making the network."""
    from selftest.conftest import Suite

    with tempfile.TemporaryDirectory() as folder:
        suite = Suite(Path(folder))
        out = Path(folder) / "report.json"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, *CPU, "--report", str(out)],
            cwd=suite.root,
            env=suite.environment(OMP_NUM_THREADS=str(os.cpu_count())),
            capture_output=True,
            text=True,
            check=False,
        )
        if not out.exists():
            raise RuntimeError(f"nothing was measured:\n{done.stdout[-2000:]}")
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if done.returncode:
        raise RuntimeError(f"it failed:\n{done.stdout[-2000:]}")
    return sum(case["duration_s"] for case in report["cases"]) - sum(
        report["time_spent"][name] for name in ("imports", "weights")
    )


def cost() -> tuple[str, Verdict]:
    """What the strict gate and all around it cost beside the document's check, on this CPU."""
    model = ("--model", "convnext_base.clip_laion2b")
    begun = time.perf_counter()
    spent(*BEYOND, *model)
    cold = time.perf_counter() - begun
    document = [spent(*DOCUMENTS, *model) for _ in range(3)]
    beyond = [spent(*BEYOND, *model) for _ in range(3)]
    half = spent(*BEYOND, *model, "--regimes", "bf16")
    ratio = sorted(beyond)[1] / sorted(document)[1]
    rows = [
        ("the document's check at batch 8, CPU against CPU (median of 3)", sorted(document)[1]),
        (
            "what is beyond it, regimes default and ieee, warm cache (median of 3)",
            sorted(beyond)[1],
        ),
        ("the same with a cold cache, imports and weights included", cold),
        ("the same in bf16 alone, cold", half),
    ]
    lines = [(words, f"{seconds:.1f} s") for words, seconds in rows]
    lines.append(("ratio, warm", f"{ratio:.2f}"))
    return table(("convnext_base.clip_laion2b", ""), lines), COST.judge(Figure(COST.name, ratio))

"""Made-up records of what a pass rests on, for the sample runs: gates, arithmetic, training, load.

Figures are invented; each record is made by the class that a case files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fixtures.core.determinism import Difference, Invariance, Repeats, RowDifference
from fixtures.core.fine_tuning import FineTune
from fixtures.core.golden import DeviceAgreement, HostAgreement
from fixtures.core.loss_scaling import LossScaling
from fixtures.core.mutants import FLOAT32, MUTANTS, Panel, Trial
from fixtures.core.optimizers import OptimizerAgreement
from fixtures.core.probe import Gelu, Probe, Reading, Switched
from fixtures.core.records import Figure, Limit, MathMode
from fixtures.core.replay import Varying
from fixtures.core.signatures import NetworkCoverage, Part, SignatureCoverage
from fixtures.core.soak import Instruments, Soak
from fixtures.core.stochastic_depth import StochasticDepth
from fixtures.core.strict import StageError, Strict
from fixtures.core.training import Allowance, StepAgreement, TensorError

CARD = "Ascend910B4, npu:0"
ARITHMETIC = {
    "default": "conv hf32, matmul ieee, gelu tanh",
    "ieee": "conv ieee, matmul ieee, gelu tanh",
}
MODES = {"default": MathMode("hf32", "ieee", "tanh"), "ieee": MathMode("ieee", "ieee", "tanh")}
SIZE = {"default": 2.6e-4, "ieee": 6.1e-7}
"""Relative error of the emulated arithmetic."""


def strict(regime: str, batch_size: int, share: float = 0.48, names: Sequence[str] = ()) -> Strict:
    """What the strict gate measured, `share` of the limit."""
    error = 2 * SIZE[regime] * share
    values = {
        "strict_error": share,
        "strict_cosine": share**2,
        "strict_max_abs": 0.7 * share,
        "strict_identity": 1.0,
        "strict_identity_margin": 3e-5 * share,
        "strict_nonfinite": 0.0,
        "strict_tau": 0.5 * share,
        "device_error": error,
        "emulated_error": SIZE[regime],
        "allowed_error": 2 * SIZE[regime],
        "cpu_error": 6.1e-7,
        "error_over_cpu": error / 6.1e-7,
    }
    rows = [
        {"name": name, "error": error, "allowed": 2 * SIZE[regime], "emulated": SIZE[regime]}
        for name in names[:batch_size]
    ]
    stages = [
        StageError(f"stages.{n}", error * (n + 1) / 4, SIZE[regime] * (n + 1) / 4, 1e-7 * (n + 1))
        for n in range(4 if batch_size == 8 else 0)
    ]
    return Strict(
        regime,
        ARITHMETIC[regime],
        batch_size,
        tuple(Figure(name, value) for name, value in values.items()),
        tuple(rows),
        stages=tuple(stages),
    )


def unlike(regime: str, batch_size: int) -> Strict:
    """An output of the wrong shape: nothing can be compared."""
    reason = "the output has the shape (1, 2), the reference (8, 640)"
    names = ("strict_error", "strict_cosine", "strict_max_abs", "strict_tau")
    figures = tuple(Figure(name, None, reason=reason) for name in names)
    return Strict(regime, ARITHMETIC[regime], batch_size, figures)


def panel(regime: str, missed: int = 0) -> Panel:
    """All mutants before the gates; the first `missed` of those claimed are let pass."""
    coarse = MODES[regime].conv
    trials = []
    for number, mutant in enumerate(MUTANTS):
        if mutant.id == "layer-scale-lost":
            trials.append(Trial(mutant.id, mutant.magnitude, "", False, note="it has none"))
            continue
        claimed = coarse in mutant.claims
        caught = (claimed or mutant.claims != FLOAT32) and number >= missed
        trials.append(
            Trial(
                mutant.id,
                mutant.magnitude,
                f"stages.{number % 4}",
                claimed,
                caught,
                number % 3 > 0,
                1.7e-4 * (number + 1),
            )
        )
    return Panel(regime, ARITHMETIC[regime], tuple(trials))


def host() -> HostAgreement:
    """A host whose CPU is right."""
    return HostAgreement("convnext_base.clip_laion2b", 2.33e-7, 1.1e-15)


def synthetic(regime: str) -> DeviceAgreement:
    """The device with synthetic weights."""
    return DeviceAgreement(regime, SIZE[regime], 1e-3 if regime == "default" else 1e-5)


def probed(regime: str, form: str = "tanh", bits: int | None = None) -> Probe:
    """The arithmetic of a regime; `bits` of the convolutions' factors, else those declared."""
    kept = bits or (11 if MODES[regime].conv == "hf32" else 23)
    readings = (
        *(
            Reading(f"conv 7x7 at stages.{n}", "conv", 49, kept, kept, "to nearest" * (kept < 23),
                    False, 23, 23 - n, 2.0 ** -(kept + 1) if kept < 23 else 0.0)
            for n in range(2)
        ),
        Reading("linear at head.fc", "matmul", 640, 23, 23, "", False, 23, 22, 0.0),
        Reading("linear at head.fc2", "matmul", 640, broken="it gives nothing but zeros"),
    )  # fmt: skip
    gelu = Gelu(form, 2.69921875, 2.690311, 2.689838, 2.690311)
    return Probe(regime, "float32", MODES[regime], readings, gelu)


def switched() -> Switched:
    """The strict switch works."""
    return Switched(probed("default"), probed("ieee"))


def repeats(strict: bool, differing: int = 0, regime: str = "default") -> Repeats:
    """Nine repeats beside the first."""
    mode = "with deterministic algorithms" if strict else "as it is set up"
    differences = (Difference(4, (0, 17), "0x00000001", 3, 1280, 2.1e-8),) if differing else ()
    worst = 2.1e-8 if differing else 0.0
    what = f"the network {mode}, {regime}, batch 2"
    return Repeats(what, CARD, strict, 9, differing, differences, worst)


def invariance() -> Invariance:
    """Two rows of which one differs."""
    return Invariance("default", CARD, (2, 8), 4, (RowDifference(1, 8, 77, 1.6e-7),))


def varying() -> Varying:
    """The first operator that is not repeatable."""
    return Varying("native_layer_norm", "stages.1.blocks.0.norm", 12, 30, 4, 3, 1280)


def step(what: str, share: float = 0.47, half: str = "") -> StepAgreement:
    """A training step, its worst gradient at `share` of its limit."""
    allowed = Allowance(2.0, 4.9e-4)
    names = ("logits", "gradient/stem.0.weight", "gradient/head.fc.weight")
    errors = tuple(
        TensorError(name, share * allowed(3e-4) / (n + 1), 3e-4, 1e-4, 3e-4, 2e-4)
        for n, name in enumerate(reversed(names))
    )
    words = ARITHMETIC["default"] if not half else f"autocast to {half}, gelu tanh"
    where = f"a training step on npu:0 {what}"
    return StepAgreement(where, words, "80x80", 7.41, 1e-4, 1e-3, allowed, errors)


def optimizer(name: str = "sgd") -> OptimizerAgreement:
    """Two steps of an optimizer."""
    told = "element 3 of head.fc.weight came to 0.0629, its formula gives 0.0629"
    return OptimizerAgreement(name, 0.447, "head.fc.weight", 101, 101, told)


def depth() -> StochasticDepth:
    """Rows dropped at the right rate."""
    return StochasticDepth(9, 8, ((6, 5, 7, 6, 5, 6, 6, 7, 6),) * 15, 0.74)


def scaling() -> LossScaling:
    """GradScaler does what it should."""
    after = {"inf": 512.0, "nan": 256.0}
    return LossScaling(1024.0, 1024.0, 0, 267006, 1024.0, {"inf": 0, "nan": 0}, after)


def tuned(changed: tuple[str, ...] = ()) -> FineTune:
    """A fine-tune that lowers the loss."""
    losses = (7.31, 7.06, 6.81)
    pairs = ((2.1e-4, 1.1e-3),) * 3
    heads = {"head.fc.weight": (2.2e-4, 1.1e-3), "head.fc.bias": (1.5e-5, 5.5e-4)}
    what = "a fine-tune of the classifier on npu:0"
    return FineTune(what, "80x80", losses, losses, pairs, pairs, heads, 99, changed, ())


SIGNATURES = (
    ("convolution", "inference", "1x3x256x256", True, 0.08),
    ("convolution", "training", "2x3x256x256", True, 0.03),
    ("addmm", "inference", "64x512", True, 0.92),
    ("mm", "training", "64x512", True, 0.97),
    ("permute", "inference", "1x64x64x128", False, 0.0),
)


def signature(
    name: str, mode: str, shape: str, computes: bool, share: float, status: str = "supported"
) -> SignatureCoverage:
    """One signature of the network."""
    return SignatureCoverage(
        id=f"{name}-{mode}-{shape}",
        family=f"aten::{name}",
        aten=(name,),
        dtype="float32",
        shape=tuple(map(int, shape.split("x"))),
        device="npu:0",
        arithmetic="ieee",
        status=status,
        error_in_bounds=0.21 if status == "supported" else None,
        reason="" if status == "supported" else f"it is {status} here",
        bound="|y - g| <= c u (sum|x||w| + |b|)",
        mode=mode,
        computes=computes,
        count=3,
        flops_share=share,
    )


def network(bad: tuple[str, ...] = ()) -> NetworkCoverage:
    """How much of the network is covered; `bad` names operators that are wrong."""
    parts = []
    for mode in ("inference", "training"):
        rows = [row for row in SIGNATURES if row[1] == mode]
        counts = dict.fromkeys(("supported", "fallback", "unsupported", "wrong", "not measured"), 0)
        shares = dict.fromkeys(counts, 0.0)
        for name, _, _, computes, share in rows:
            word = "wrong" if name in bad else "supported"
            counts[word] += computes
            shares[word] += share
        operators = tuple(
            {
                "op": f"aten.{name}.default",
                "kind": "compute" if computes else "view",
                "signatures": 1,
                "calls": 3,
                "flops_share": share,
                "statuses": {"wrong" if name in bad else "supported": 1},
                "worst_error_in_bounds": 0.21,
            }
            for name, _, _, computes, share in rows
        )
        compute = sum(row[3] for row in rows)
        part = Part(mode, "float32", len(rows), compute, counts, 10**9, shares, operators)
        parts.append(part)
    return NetworkCoverage("convnext_base", "2.9.0", "1.0.27", tuple(parts), bad)


def soak(differing: int = 0) -> Soak:
    """A minute under load."""
    same = Repeats("default, batch 16, under load", CARD, True, 459, differing, word="forward")
    if differing:
        bits = (Difference(31, (2, 5), "0x00400000", 1, 10240, 1e-3),)
        same = Repeats(same.what, CARD, True, 459, differing, bits, 1e-3, "forward")
    hot = Limit.row("card_temperature_c", "<", 90, "documentation", "C")
    told = Instruments(
        "npu-smi",
        (39.0, 61.0, 63.0),
        hot,
        {"HBM Single Bit Error Count": 1},
        {"HBM Single Bit Error Count": 1 + differing},
    )
    memory = tuple((n, 48_234_496) for n in range(1, 47))
    rates = tuple(250 + math.sin(n) for n in range(30))
    return Soak("default", 16, 60.0, 60.1, 460, same, memory, memory, "", rates, told)

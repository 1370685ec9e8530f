"""Run as a script on simulated cards: how many planted faults are found, and how many false alarms.

``proof_detection.py faults NETWORK DRAWS STATE`` plants one fault at a time, drawn by a committed
seed from kind, magnitude, operator and depth, and asks the suite's own checks in the order of a
run. ``proof_detection.py clean NETWORK RUNS STATE`` runs them on healthy cards that differ from
one another in all that healthy cards may differ in. Each result is one line of the file STATE;
what stands there is not measured again.
"""

from __future__ import annotations

import copy
import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.core.networks import network
from fixtures.core.records import MathMode
from fixtures.core.regimes import REGIMES
from selftest.cards import load

SEED = "detection/1"
"""Of the draws; limits were frozen before it was chosen. Another seed is another proof."""

BATCH = 8
REPEATS = 4


# --- what is drawn ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """One fault: its plan, the module that it strikes ("" for the first of its operator), and the
    words by which a sentence names it rightly."""

    number: int
    kind: str
    magnitude: str
    operator: str
    module: str
    parameters: dict[str, Any]
    names: tuple[str, ...]
    regime: str = ""


@dataclass(frozen=True)
class Family:
    """One kind of fault with its magnitudes, and which operators it is planted at.

    With a `regime` only calls in its format are struck, wherever they are made: the half networks
    are copies with weights of their own.
    """

    kind: str
    magnitudes: tuple[tuple[str, dict[str, Any]], ...]
    operators: tuple[str, ...]
    regime: str = ""


def factors(*powers: int) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Channels off by 2^-power."""
    return tuple((f"2^-{power}", {"factor": 1 + 2.0**-power}) for power in powers)


MADE = ("conv", "linear", "norm")
"""Operators with weights: a fault is tied to one module by the address of its weight."""

EVERYWHERE = ("nan_on_tiny_variance", "denormal_flush")
"""Kinds that are a property of the kernel, wherever it is called; they are named by it."""

FAMILIES = (
    Family("scaled_channel", factors(6, 4, 2), MADE),
    Family("scaled_channel", (("2^-4, bfloat16", {"factor": 1 + 2.0**-4}),), MADE, "bf16"),
    Family("dropped_channel", (("one channel", {}),), MADE),
    Family("swapped_group", (("1 wide", {"width": 1}), ("8 wide", {"width": 8})), MADE),
    Family(
        "off_by_one_stripe",
        tuple((f"{rows} rows", {"rows": rows}) for rows in (1, 4)),
        ("conv", "linear"),
    ),
    Family("stale_output", (("whole", {}),), MADE),
    Family("hf32", (("for float32", {}),), ("conv", "linear")),
    Family("bf16_accumulation", (("16 terms", {}),), ("conv", "linear")),
    Family("fp16_accumulation", (("16 terms", {}),), ("conv", "linear")),
    Family("wrong_gelu", (("erf", {"form": "erf"}), ("sigmoid", {"form": "sigmoid"})), ("gelu",)),
    Family(
        "nondeterministic_last_bit",
        tuple((f"share {share}", {"share": share}) for share in (0.01, 0.1)),
        ("conv", "linear"),
    ),
    Family("nan_on_tiny_variance", (("1e-12", {}),), ("norm",)),
    Family("denormal_flush", (("all", {}),), ("any",)),
)

OPERATORS = {
    "conv": ("aclnnConvolution",),
    "linear": ("aclnnAddmm", "aclnnMatmul", "aclnnMm", "aclnnBatchMatMul", "aclnnBaddbmm"),
    "norm": ("aclnnLayerNorm", "aclnnFastLayerNorm"),
    "gelu": ("aclnnGelu", "aclnnGeluV2"),
    "any": ("*",),
}

WORDS = {
    "conv": ("conv",),
    "linear": ("linear", "addmm", "matmul"),
    "norm": ("norm",),
    "gelu": ("gelu",),
    "any": ("norm", "conv", "linear", "gelu", "subnormal"),
}
"""How a sentence may call them."""


def sites(model: Any) -> dict[str, list[tuple[str, int]]]:
    """(module, output channels) of each kind of operator, in order of depth."""
    found: dict[str, list[tuple[str, int]]] = {name: [] for name in OPERATORS}
    for name, module in model.named_modules():
        what = type(module).__name__
        if what == "Conv2d":
            found["conv"].append((name, module.out_channels))
        elif what == "Linear":
            found["linear"].append((name, module.out_features))
        elif what in ("LayerNorm", "LayerNorm2d"):
            found["norm"].append((name, module.weight.numel()))
        elif what in ("GELU", "GELUTanh"):
            found["gelu"].append((name, 0))
    found["any"].append(("", 0))
    return found


def draws(model: Any, count: int) -> Iterator[Draw]:
    """Draws without end of kind, magnitude, operator and depth; the same for the same network."""
    chance = random.Random(SEED)
    places = sites(model)
    rows = [
        (family, magnitude, operator)
        for family in FAMILIES
        for magnitude in family.magnitudes
        for operator in family.operators
        if places[operator]
    ]
    for number in range(count):
        family, (words, parameters), operator = rows[number % len(rows)]
        module, channels = chance.choice(places[operator])
        parameters = dict(parameters)
        if "channel" in family.kind:
            # a kernel that is wrong everywhere: in a channel that every call has
            least = min(each for _, each in places[operator]) if family.regime else channels
            parameters["channel"] = chance.randrange(least)
        if family.kind == "swapped_group":
            parameters["width"] = min(parameters["width"], max(1, channels // 4))
            groups = channels // parameters["width"]
            first = chance.randrange(groups - 1)
            parameters |= {"first": first, "second": first + 1}
        everywhere = family.kind in EVERYWHERE or bool(family.regime)
        module = "" if everywhere else module
        names = (module,) if operator in MADE and not everywhere else WORDS[operator]
        yield Draw(number, family.kind, words, operator, module, parameters, names, family.regime)


# --- the bench -------------------------------------------------------------------------------


class Bench:
    """One network on the CPU and on the simulated card, with the suite's own judges."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self.cards, self.torch = load(1)
        from fixtures.core import weights
        from fixtures.core.backends.simulated_cann.backend import SimulatedNpuBackend

        self.row = network(name)
        self.device = SimulatedNpuBackend(1, None).open(0)
        self.weights = weights
        self.make(seed)

    def make(self, seed: int) -> None:
        """The network with the synthetic weights of a seed, and inputs of the same seed."""
        from fixtures.core import inputs
        from fixtures.core.batches import Batches
        from fixtures.core.chain import Chain
        from fixtures.core.gate import Gate
        from fixtures.core.store import Store, cache_folder

        self.forget()
        plan = self.weights.resolve("synthetic", self.row, None, seed)
        self.cpu, identity = self.weights.build(self.row, plan, None)
        self.there = copy.deepcopy(self.cpu).to(self.device.torch).eval()
        config = self.cpu.pretrained_cfg
        size = tuple(config["input_size"])

        def row(index: int) -> Any:
            name, values = inputs.make(index, size, config["mean"], config["std"], seed)
            return name, self.torch.from_numpy(values)

        def run(images: Any) -> Any:
            with self.torch.inference_mode():
                return self.cpu(images)

        # the cache is for one network whose faults are drawn; other seeds are used once
        folder = cache_folder() / "reference"
        if seed:
            self.once = tempfile.TemporaryDirectory()
            folder = Path(self.once.name)
        chain = Chain(self.cpu, identity.sha256, Store(folder))
        self.gate = Gate(chain, Batches(row, run)(BATCH))

    def forget(self) -> None:
        """Let the network before this one go: of large ones memory does not hold two."""
        self.cpu = self.there = self.gate = self.once = None
        gc.collect()
        self.torch.npu.empty_cache()

    def declared(self, regime: Any) -> MathMode:
        with regime.entered(self.device):
            mode: MathMode = regime.arithmetic(self.device.math_mode())
            return mode

    def run(self, regime: Any, rows: int = BATCH) -> Any:
        """The device's output of the first inputs, on the CPU."""
        with regime.entered(self.device), self.torch.inference_mode():
            images = regime.given(self.gate.inputs.images[:rows]).to(self.device.torch)
            output = regime.network(self.there)(images)
            self.torch.npu.synchronize()
            return output.float().cpu()

    @contextmanager
    def planted(self, draw: Draw) -> Iterator[None]:
        """The fault strikes at its site as long as the block runs."""
        from fixtures.core.backends.simulated_cann.plan import Plan, checked_fault

        address = 0
        if draw.operator in MADE and draw.module:
            address = dict(self.there.named_modules())[draw.module].weight.data_ptr()
        plan = {
            "kind": draw.kind,
            "operator": list(self.possible(draw)),
            **draw.parameters,
        }
        fault = checked_fault("draw", plan)
        only = self.at(address) if address else None
        self.cards.plant(Plan((fault,)), self.in_bfloat16 if draw.regime else only)
        try:
            yield
        finally:
            self.torch.npu.synchronize()
            self.cards.plant(Plan())

    def possible(self, draw: Draw) -> tuple[str, ...]:
        """The operators of the draw that this kind can strike."""
        from fixtures.core.backends.simulated_cann.faults import KINDS

        only = KINDS[draw.kind].only
        return tuple(name for name in OPERATORS[draw.operator] if not only or name in only)

    def at(self, address: int) -> Callable[[Any], bool]:
        """Whether a call has an operand at that address."""

        def only(call: Any) -> bool:
            return any(
                value.data_ptr() == address
                for value in call.args
                if isinstance(value, self.torch.Tensor)
            )

        return only

    def in_bfloat16(self, call: Any) -> bool:
        """Whether a call has an operand of that format."""
        return any(
            value.dtype == self.torch.bfloat16
            for value in call.args
            if isinstance(value, self.torch.Tensor)
        )

    # --- the suite's checks, in the order of a run

    def checks(
        self, regimes: tuple[str, ...]
    ) -> Iterator[tuple[str, Callable[[], tuple[bool, str]]]]:
        """(name, check): a check gives whether it stops the device, and its sentence."""
        for name in regimes:
            yield f"strict gate, {name}", lambda name=name: self.strict(REGIMES[name])
        yield "determinism", self.repeats
        yield "operator cases", self.operators
        for name in regimes:
            yield f"layers, {name}", lambda name=name: self.layers(REGIMES[name])

    def strict(self, regime: Any) -> tuple[bool, str]:
        found = self.gate.judge(self.run(regime), regime, self.declared(regime), BATCH)
        if not found.caught:
            return False, ""
        _, sentence = self.layers(regime)
        return True, sentence

    def layers(self, regime: Any) -> tuple[bool, str]:
        from fixtures.core.layers import locate

        found = locate(
            self.cpu,
            self.there,
            self.gate.inputs.images[:2],
            self.device,
            regime,
            self.declared(regime),
        )
        verdict = found.verdict()
        return not verdict, "; ".join(verdict.sentences)

    def repeats(self) -> tuple[bool, str]:
        from fixtures.core.copies import changed

        self.torch.use_deterministic_algorithms(True)
        try:
            first, *others = (self.run(REGIMES["ieee"], 2) for _ in range(REPEATS))
        finally:
            self.torch.use_deterministic_algorithms(False)
        differ = [changed(first, other) for other in others]
        if not any(differ):
            return False, ""
        from fixtures.core.replay import first_varying

        regime = REGIMES["ieee"]
        with regime.entered(self.device):
            images = self.gate.inputs.images[:2].to(self.device.torch)
            found = first_varying(self.device, self.there, images, REPEATS)
        return True, repr(found.verdict())

    def operators(self) -> tuple[bool, str]:
        from fixtures.core import operators

        for case in operators.cases(self.row):
            found = operators.run(case, self.device, self.device.math_mode())
            if found.status != "supported":
                return True, f"{found.label}: {found.reason}"
        return False, ""


def document_stops(bench: Bench) -> bool:
    """Whether the adaptation document's own limits stop the card as it is."""
    from fixtures.core.mutants import document_stops

    return document_stops(bench.run(REGIMES["default"]), bench.gate)


# --- the two experiments ---------------------------------------------------------------------


def one_fault(bench: Bench, draw: Draw) -> dict[str, Any]:
    """Plant a fault and ask the checks until one stops it."""
    began = time.perf_counter()
    result: dict[str, Any] = {
        "number": draw.number,
        "kind": draw.kind,
        "magnitude": draw.magnitude,
        "operator": draw.operator,
        "module": draw.module,
        "caught": "",
        "sentence": "",
    }
    with bench.planted(draw):
        regimes = (draw.regime,) if draw.regime else ("ieee", "default")
        for name, check in bench.checks(regimes):
            stopped, sentence = check()
            if stopped:
                result |= {"caught": name, "sentence": sentence}
                break
        result["document"] = document_stops(bench)
    sentence = result["sentence"].lower()
    result["named"] = any(word.lower() in sentence for word in draw.names)
    result["seconds"] = round(time.perf_counter() - began, 2)
    return result


def faults(name: str, count: int, state: Path) -> None:
    """All draws."""
    bench = Bench(name)
    done = {row["number"] for row in read(state)}
    for draw in draws(bench.cpu, count):
        if draw.number not in done:
            write(state, one_fault(bench, draw))


def clean(name: str, count: int, state: Path) -> None:
    """Healthy cards: none may be stopped."""
    from fixtures.core.backends.simulated_cann.plan import Plan, Variation

    bench = Bench(name)
    done = {row["number"] for row in read(state)}
    regimes = list(REGIMES.values())
    for number in range(count):
        chance = random.Random(f"{SEED}/clean/{number}")
        variation = Variation(
            summation=chance.random() < 0.8,
            hf32=chance.choice(("nearest", "truncate")),
            fma=chance.random() < 0.5,
            ulp=chance.choice((0, 1, 2)),
            seed=chance.randrange(1 << 31),
        )
        seed = chance.randrange(1, 1 << 31)
        if number in done:
            continue
        began = time.perf_counter()
        bench.make(seed)
        bench.cards.plant(Plan(variation=variation))
        stopped = []
        shares = {}
        half = regimes[2 + number % (len(regimes) - 2)]
        for regime in (REGIMES["default"], REGIMES["ieee"], half):
            declared = bench.declared(regime)
            found = bench.gate.judge(bench.run(regime), regime, declared, BATCH)
            shares[regime.name] = found.value("strict_error")
            if found.caught:
                stopped.append(f"strict gate, {regime.name}")
            if bench.layers(regime)[0]:
                stopped.append(f"layers, {regime.name}")
        if bench.repeats()[0]:
            stopped.append("determinism")
        if document_stops(bench):
            stopped.append("document")
        write(
            state,
            {
                "number": number,
                "seed": seed,
                "variation": repr(variation),
                "half": half.name,
                "stopped": stopped,
                "shares": shares,
                "seconds": round(time.perf_counter() - began, 2),
            },
        )


def read(state: Path) -> list[dict[str, Any]]:
    """What stands there; a line that was cut off does not count."""
    if not state.exists():
        return []
    rows = []
    for line in state.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def write(state: Path, row: dict[str, Any]) -> None:
    """One more line, there and on the terminal."""
    with state.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    {"faults": faults, "clean": clean}[sys.argv[1]](
        sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    )

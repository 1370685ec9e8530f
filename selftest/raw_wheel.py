"""Run as a script: what the real torch_npu does on healthy simulated cards, without the suite.

``raw_wheel.py CHECK...`` makes two cards and prints one JSON line for each check: what was
measured. test_simulated_wheel.py judges it. A check of `ALONE` comes alone, since it ends with a
process that is good for nothing more or must be started in its own way.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.core.backends.base import BackendUnavailable
from fixtures.core.backends.simulated_cann.plan import read
from fixtures.core.weights import draw
from selftest.cards import load

Facts = dict[str, Any]

NETWORKS: dict[str, dict[str, Any]] = {
    "convnext": {"model_name": "test_convnext.r160_in1k", "act_layer": "gelu"},
    "resnet": {"model_name": "test_resnet.r160_in1k"},
    "vit": {"model_name": "test_vit.r160_in1k"},
}
"""Small networks of three families. timm's test_convnext has the tanh form of GELU in its own
definition; with the exact one it is as the ConvNeXt of the subject."""

RATE = 0.1
"""Learning rate of the one step of SGD."""


class Bench:
    """Two cards and torch, with convolutions in IEEE float32."""

    def __init__(self) -> None:
        self.cards, self.torch = load(2)
        self.torch.npu.conv.allow_hf32 = False
        self._load: Any = None

    def normal(self, *shape: int, seed: int = 0) -> Any:
        """Standard normal numbers on the CPU."""
        return self.torch.randn(*shape, generator=self.torch.Generator().manual_seed(seed))

    def network(self, name: str) -> Any:
        """A network with weights under which every block matters, on the CPU, for inference."""
        import timm

        model = timm.create_model(pretrained=False, **NETWORKS[name])
        draw(model, seed=0)
        return model.eval()

    def twin(self, model: Any, gelu: str = "tanh") -> Any:
        """A copy of a network with GELU in that form, as `approximate` names it."""
        nn = self.torch.nn
        model = copy.deepcopy(model)
        for module in list(model.modules()):
            for child, inner in list(module.named_children()):
                if type(inner).__name__ == "GELU":
                    setattr(module, child, nn.GELU(approximate=gelu))
        return model

    def busy(self, times: int = 8) -> Any:
        """Work for a few tenths of a second, on the current stream."""
        if self._load is None:
            self._load = self.normal(1024, 1024).to("npu:0")
        x = self._load
        return [x @ x for _ in range(times)][-1]


def apart(got: Any, exact: Any) -> float:
    """Relative distance in the Euclidean norm."""
    got, exact = got.double(), exact.double()
    return float((got - exact).norm() / exact.norm())


def raised(call: Callable[[], Any]) -> tuple[str, str]:
    """Type and text of what a call raises, or ("", what it returned)."""
    try:
        return "", str(call())
    except Exception as error:
        return type(error).__name__, str(error)


# --- numbers ------------------------------------------------------------------------------------


def trained(bench: Bench, model: Any, images: Any, labels: Any) -> dict[str, Any]:
    """Logits, gradients and the parameters after one step, in double precision on the CPU."""
    torch = bench.torch
    model = copy.deepcopy(model)
    step = torch.optim.SGD(model.parameters(), lr=RATE)
    logits = model(images)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    found = {"logits": logits}
    found |= {f"gradient {name}": tensor.grad for name, tensor in model.named_parameters()}
    found = {name: tensor.detach().cpu().double() for name, tensor in found.items()}
    step.step()
    after = {f"after {name}": tensor for name, tensor in model.named_parameters()}
    return found | {name: tensor.detach().cpu().double() for name, tensor in after.items()}


def parity(bench: Bench) -> Facts:
    """Errors of the card and of the CPU, both against float64 on the CPU, for every tensor.

    For each network: the largest ratio of the two over all tensors, with its name; the ratio for
    the logits alone under a planted difference (exact GELU on the card's side is played by the
    CPU, HF32 by the card itself), and whether two runs of the card agree to the bit.
    """
    torch, facts = bench.torch, {}
    labels = torch.tensor([3, 7])
    images = bench.normal(2, 3, 160, 160)
    for name in NETWORKS:
        model = bench.network(name)
        twin = bench.twin(model)
        exact = trained(bench, copy.deepcopy(twin).double(), images.double(), labels)
        host = trained(bench, twin, images, labels)
        here = copy.deepcopy(model).to("npu:0"), images.to("npu:0"), labels.to("npu:0")
        card, again = (trained(bench, *here) for _ in range(2))

        def ratios(found: dict[str, Any], exact: Any = exact, host: Any = host) -> dict[str, float]:
            return {
                tensor: apart(found[tensor], true) / max(apart(host[tensor], true), 2.0**-25)
                for tensor, true in exact.items()
            }

        found = ratios(card)
        worst = max(found, key=lambda each: found[each])
        erf = ratios(trained(bench, model, images, labels))
        torch.npu.conv.allow_hf32 = True
        hf32 = ratios(trained(bench, *here))
        torch.npu.conv.allow_hf32 = False
        facts[name] = {
            "tensors": len(found),
            "worst": [worst, found[worst]],
            "logits": found["logits"],
            "erf": [erf["logits"], max(erf.values())],
            "hf32": [hf32["logits"], max(hf32.values())],
            "repeats": all(bool((card[each] == again[each]).all()) for each in card),
        }
    return facts


def half(bench: Bench) -> Facts:
    """Errors of the logits in half formats, of card and CPU, against float64 on the CPU."""
    torch, facts = bench.torch, {}
    images = bench.normal(2, 3, 160, 160)
    for name in NETWORKS:
        model = bench.network(name)
        twin = bench.twin(model)
        with torch.inference_mode():
            exact = copy.deepcopy(twin).double()(images.double())
            here = copy.deepcopy(model).to("npu:0")
            single = here(images.to("npu:0")).cpu()
            for form in ("float16", "bfloat16"):
                kind = getattr(torch, form)
                host = copy.deepcopy(twin).to(kind)(images.to(kind))
                card = copy.deepcopy(model).to(kind).to("npu:0")(images.to(kind).to("npu:0")).cpu()
                with torch.autocast("npu", dtype=kind):
                    mixed = here(images.to("npu:0")).cpu()
                facts[f"{name} {form}"] = {
                    "card": apart(card, exact),
                    "host": apart(host, exact),
                    "autocast": apart(mixed, exact),
                    "float32": apart(single, exact),
                    "dtypes": [str(card.dtype), str(mixed.dtype)],
                }
    return facts


def hf32_by_hand(x: Any) -> Any:
    """Float32 numbers rounded to 11 bits after the point, ties away from zero, by their bits."""
    import numpy as np

    bits = x.numpy().view(np.uint32).astype(np.uint64)
    kept = ((bits + (1 << 11)) >> 12 << 12).astype(np.uint32)
    return kept.view(np.float32)


def hf32(bench: Bench) -> Facts:
    """Convolution and matmul under their switches, against float64 of exact or rounded factors.

    Each figure is the largest error over the largest that summing K products in any order can
    make, K 2^-24 sum |a b| (Higham, Accuracy and Stability, section 3.1).
    """
    torch = bench.torch
    x, w = bench.normal(2, 16, 12, 12, seed=1), bench.normal(8, 16, 3, 3, seed=2)
    a, b = bench.normal(32, 64, seed=3), bench.normal(64, 24, seed=4)

    def share(got: Any, run: Callable[..., Any], pair: tuple[Any, Any], terms: int) -> float:
        pair = pair[0].double(), pair[1].double()
        bound = terms * 2.0**-24 * run(pair[0].abs(), pair[1].abs())
        return float(((got.cpu().double() - run(*pair)).abs() / bound).max())

    def rounded(*pair: Any) -> tuple[Any, ...]:
        return tuple(torch.from_numpy(hf32_by_hand(each)) for each in pair)

    conv, product = torch.nn.functional.conv2d, torch.matmul
    here = [each.to("npu:0") for each in (x, w, a, b)]
    facts: Facts = {}
    for on in (False, True):
        torch.npu.conv.allow_hf32 = on
        y = conv(*here[:2])
        facts[f"conv {on}"] = [share(y, conv, pair, 144) for pair in ((x, w), rounded(x, w))]
        z = product(*here[2:])
        facts[f"matmul beside conv {on}"] = share(z, product, (a, b), 64)
        torch.npu.conv.allow_hf32 = False
        before = torch.npu.matmul.allow_hf32
        torch.npu.matmul.allow_hf32 = on
        z = product(*here[2:])
        facts[f"matmul {on}"] = [share(z, product, pair, 64) for pair in ((a, b), rounded(a, b))]
        torch.npu.matmul.allow_hf32 = before
    return facts


def gelu(bench: Bench) -> Facts:
    """The form of GELU that runs where the exact one is asked for: its distance from both."""
    torch = bench.torch
    x = torch.linspace(-4, 4, 257)
    of = torch.nn.functional.gelu
    got = of(x.to("npu:0")).cpu()
    return {
        form: float((got - of(x.double(), approximate=form)).abs().max())
        for form in ("none", "tanh")
    }


def seeds(bench: Bench) -> Facts:
    """Whether a seed gives the same numbers again, and the next draw others."""
    torch = bench.torch

    def drawn() -> list[Any]:
        torch.manual_seed(3)
        return [torch.randn(64, device="npu:0").cpu() for _ in range(2)]

    (first, second), (again, _) = drawn(), drawn()
    torch.manual_seed(4)
    other = torch.randn(64, device="npu:0").cpu()
    return {
        "again": bool((first == again).all()),
        "next": bool((first == second).all()),
        "other seed": bool((first == other).all()),
    }


# --- time ---------------------------------------------------------------------------------------


def events(bench: Bench) -> Facts:
    """Event time and host time of the same work in milliseconds; query while it is queued."""
    torch = bench.torch
    bench.busy(1)
    torch.npu.synchronize()
    start, stop = (torch.npu.Event(enable_timing=True) for _ in range(2))
    began = time.perf_counter()
    start.record()
    bench.busy()
    stop.record()
    queued = 1e3 * (time.perf_counter() - began)
    early = stop.query()
    stop.synchronize()
    host = 1e3 * (time.perf_counter() - began)
    return {
        "host_ms": host,
        "queued_ms": queued,
        "event_ms": start.elapsed_time(stop),
        "query": [early, stop.query()],
    }


def streams(bench: Bench) -> Facts:
    """What a second stream reads of the first one's result, waiting for its event or not."""
    torch = bench.torch
    first, second = torch.npu.Stream(), torch.npu.Stream()
    facts = {}
    for wait in (True, False):
        x, y = (torch.zeros(8, device="npu:0") for _ in range(2))
        torch.npu.synchronize()
        done = torch.npu.Event()
        with torch.npu.stream(first):
            bench.busy()
            x.fill_(1)
            done.record()
        with torch.npu.stream(second):
            if wait:
                second.wait_event(done)
            y.copy_(x)
        torch.npu.synchronize()
        facts["waited" if wait else "did not wait"] = y.cpu().tolist()
    return facts


def pinned(bench: Bench) -> Facts:
    """Copies from and to pinned memory that do not block, behind queued work."""
    torch = bench.torch
    x = bench.normal(512, 512).pin_memory()
    back = torch.empty(512, 512).pin_memory()
    bench.busy(1)
    torch.npu.synchronize()
    bench.busy()
    here = x.to("npu:0", non_blocking=True)
    back.copy_(here, non_blocking=True)
    event = torch.npu.Event()
    event.record()
    early = event.query()
    torch.npu.synchronize()
    return {"pinned": x.is_pinned(), "early": early, "same": bool((back == x).all())}


def waits(bench: Bench) -> Facts:
    """Calls that wait for queued work, made without a synchronise before; none may stand still."""
    torch = bench.torch
    start, stop = (torch.npu.Event(enable_timing=True) for _ in range(2))
    start.record()
    bench.busy(2)
    stop.record()
    milliseconds = start.elapsed_time(stop)
    bench.busy(2)
    torch.npu.empty_cache()
    value = bench.busy(2).abs().max().item()
    bench.busy(2)
    torch.npu.current_stream().synchronize()
    return {"milliseconds": milliseconds, "value": value}


# --- memory -------------------------------------------------------------------------------------

MIB = 1 << 20


def memory(bench: Bench) -> Facts:
    """Bytes in use, at the peak and free while 64 MiB are taken and given back."""
    npu, torch = bench.torch.npu, bench.torch
    npu.synchronize()
    npu.empty_cache()
    npu.reset_peak_memory_stats(0)
    told = []

    def tell() -> None:
        free, total = npu.mem_get_info(0)
        told.append([npu.memory_allocated(0), npu.max_memory_allocated(0), free, total])

    tell()
    x = torch.empty(64 * MIB, dtype=torch.uint8, device="npu:0")
    tell()
    del x
    tell()
    npu.empty_cache()
    tell()
    fresh = torch.empty(4 * MIB, device="npu:0")
    return {"told": told, "fresh": bool(fresh.cpu().isnan().all())}


def two_cards(bench: Bench) -> Facts:
    """Which card's memory shrinks, and bits that go from one card to the other and back."""
    torch = bench.torch
    torch.npu.empty_cache()
    shrunk = {}
    for index in (0, 1):
        before = [bench.cards.memory(card)[0] for card in (0, 1)]
        x = torch.empty(64 * MIB, dtype=torch.uint8, device=f"npu:{index}")
        after = [bench.cards.memory(card)[0] for card in (0, 1)]
        shrunk[index] = [(b - a) // MIB for b, a in zip(before, after, strict=True)]
        del x
        with torch.npu.device(index):
            torch.npu.empty_cache()
    bits = torch.randint(-(2**31), 2**31 - 1, (4096,), dtype=torch.int32)
    there = bits.to("npu:0").to("npu:1")
    back = there.to("npu:0")
    with torch.npu.device(1):
        sums = (there + 1).cpu()
    return {
        "shrunk": [shrunk[0], shrunk[1]],
        "device": str(there.device),
        "same": bool((there.cpu() == bits).all() and (back.cpu() == bits).all()),
        "computed": bool((sums == bits + 1).all()),
    }


def out_of_memory(bench: Bench) -> Facts:
    """What asking for too much comes to, and whether the card goes on."""
    torch = bench.torch
    before = torch.npu.mem_get_info(0)[0]
    kind, text = raised(lambda: torch.empty(64 << 30, dtype=torch.uint8, device="npu:0"))
    known = raised(lambda: torch.empty(64 << 30, dtype=torch.uint8, device="npu:0"))[0]
    y = (torch.ones(8, device="npu:0") * 2).cpu().tolist()
    return {
        "type": kind,
        "again": known,
        "text": text,
        "after": y,
        "lost": (before - torch.npu.mem_get_info(0)[0]) // MIB,
    }


# --- peculiarities ------------------------------------------------------------------------------


def peculiar(bench: Bench) -> Facts:
    """What this torch_npu does otherwise than torch on other devices."""
    torch = bench.torch
    picture = torch.ones(1, 3, 4, 4, device="npu:0")
    last = torch.channels_last
    conv = torch.nn.Conv2d(3, 3, 3)
    return {
        "Module.npu(1)": str(torch.nn.Linear(2, 2).npu(1).weight.device),
        "Tensor.npu(1)": str(torch.ones(2).npu(1).device),
        "double": str(picture.double().dtype),
        "double by copy": str(torch.ones(2, dtype=torch.float64).to("npu:0").dtype),
        "channels_last": {
            "module": raised(lambda: conv.to("npu:0").to(memory_format=last)),
            "to": raised(lambda: picture.to(memory_format=last)),
            "contiguous": raised(lambda: picture.contiguous(memory_format=last)),
            "empty": raised(lambda: torch.empty(1, 3, 4, 4, device="npu:0", memory_format=last)),
        },
        "hf32": [torch.npu.conv.allow_hf32, torch.npu.matmul.allow_hf32],
    }


def fallback(bench: Bench) -> Facts:
    """What is said on descriptor 2 when an operator runs on the CPU, twice, and the result."""
    torch = bench.torch
    x = torch.tensor([0.5, 1.0, 2.0])
    saved, log = os.dup(2), Path(os.environ.get("TMPDIR", "/tmp")) / f"fallback-{os.getpid()}"
    with log.open("w+") as file:
        os.dup2(file.fileno(), 2)
        got = [torch.special.bessel_j0(x.to("npu:0")).cpu() for _ in range(2)]
        os.dup2(saved, 2)
        file.seek(0)
        said = file.read()
    log.unlink()
    right = torch.special.bessel_j0(x)
    return {"said": said, "right": all(bool((each == right).all()) for each in got)}


CHECKS: dict[str, Callable[[Bench], Facts]] = {
    "parity": parity,
    "half": half,
    "hf32": hf32,
    "gelu": gelu,
    "seeds": seeds,
    "events": events,
    "streams": streams,
    "pinned": pinned,
    "waits": waits,
    "memory": memory,
    "two_cards": two_cards,
    "out_of_memory": out_of_memory,
    "peculiar": peculiar,
    "fallback": fallback,
}


# --- alone --------------------------------------------------------------------------------------


def mixed(bench: Bench) -> Facts:
    """Tensors of two cards in one operator: what the wait for it says."""
    torch = bench.torch
    x, y = torch.ones(8).to("npu:0"), torch.ones(8).to("npu:1")

    def add() -> None:
        x + y
        torch.npu.synchronize()

    return {"raised": raised(add)}


def dropped(bench: Bench) -> Facts:
    """After an operator that could not be launched: what each later call comes to."""
    torch = bench.torch
    x = torch.tensor([1.0, 2.0, 3.0]).to("npu:0")
    torch.npu.synchronize()
    torch.npu.empty_cache()
    bench.cards.plant(read('[{"kind": "sync_error", "operator": "launch", "nth": 1}]'))

    def first() -> None:
        x + x
        torch.npu.synchronize()

    def ended(call: Callable[[], Any]) -> list[Any]:
        kind, text = raised(call)
        return [kind, text]

    facts: Facts = {"first": ended(first), "then": ended(torch.npu.synchronize)}
    kept: list[Any] = []
    facts["work"] = ended(lambda: kept.append(x * 3))
    facts["wait"] = ended(torch.npu.synchronize)
    facts["result"] = [str(value) for value in kept[0].cpu().tolist()] if kept else None
    return facts


def expandable(bench: Bench) -> Facts:
    """Whether segments can grow, and a network's training in them."""
    torch = bench.torch
    fresh = torch.empty(4 * MIB, device="npu:0").cpu().isnan().all()
    found = parity(bench)
    segments = torch.npu.memory_snapshot()
    return {
        "expandable": any(segment.get("is_expandable") for segment in segments),
        "parity": found,
        "fresh": bool(fresh),
    }


def queued(bench: Bench) -> Facts:
    """Leave with work still queued: how the process ends is for the caller to see."""
    bench.busy(4)
    return {"left": True}


def lazy_streams(bench: Bench) -> Facts:
    """Wait for a stream that waits for another one's event, on a card that begins only then."""
    torch = bench.torch
    bench.cards.plant(read('[{"kind": "lazy_completion"}]'))
    first, second = torch.npu.Stream(), torch.npu.Stream()
    x = torch.ones(64, 64).to("npu:0")
    torch.npu.synchronize()
    event = torch.npu.Event()
    with torch.npu.stream(first):
        y = x + x
        event.record()
    with torch.npu.stream(second):
        second.wait_event(event)
        z = y * 3
    begun = event.query()
    second.synchronize()
    return {"begun": begun, "result": float(z.cpu()[0, 0])}


ALONE: dict[str, Callable[[Bench], Facts]] = {
    "lazy_streams": lazy_streams,
    "mixed": mixed,
    "dropped": dropped,
    "expandable": expandable,
    "queued": queued,
}
"""Checks after which a process is no good, or whose process is started in another way."""


def visible() -> Facts:
    """What ASCEND_RT_VISIBLE_DEVICES leaves of two cards, and which one npu:0 lies on."""
    try:
        cards, torch = load(2)
    except BackendUnavailable as error:
        npu = sys.modules["torch"].npu
        return {"count": npu.device_count(), "refused": str(error)}
    before = [cards.memory(card)[0] for card in (0, 1)]
    x = torch.empty(64 * MIB, dtype=torch.uint8, device="npu:0")
    after = [cards.memory(card)[0] for card in (0, 1)]
    del x
    return {
        "count": torch.npu.device_count(),
        "shrunk": [(b - a) // MIB for b, a in zip(before, after, strict=True)],
    }


def main(names: list[str]) -> None:
    """Run the checks and leave as any program does."""
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    if names == ["visible"]:
        print(json.dumps({"check": "visible", "facts": visible()}), flush=True)
        return
    bench = Bench()
    for name in names:
        facts = {**CHECKS, **ALONE}[name](bench)
        print(json.dumps({"check": name, "facts": facts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

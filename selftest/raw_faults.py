"""Run as a script: what each kind of fault does on raw torch, without the suite.

``raw_faults.py KIND...`` prints one JSON line for each kind: what was measured without the fault
and with it, and whether the two differ as they must. A kind that ends the process comes alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixtures.core.backends.simulated_cann.plan import Plan, read
from selftest.cards import load

Measured = Any


class Bench:
    """Cards, torch, and operands that every measurement uses."""

    def __init__(self, cards: int, plan: str | None = None) -> None:
        self.cards, self.torch = load(cards, plan)
        torch = self.torch
        torch.npu.conv.allow_hf32 = False
        make = torch.Generator().manual_seed(0)
        self.x = torch.randn(2, 32, 16, 16, generator=make).to("npu:0")
        self.w = torch.randn(32, 32, 3, 3, generator=make).to("npu:0")
        self.rows = torch.randn(64, 256, generator=make).to("npu:0")

    def conv(self) -> Any:
        """A convolution's output, on the CPU."""
        out = self.torch.nn.functional.conv2d(self.x, self.w, padding=1).cpu()
        return out

    def gelu(self) -> Any:
        """GELU of the convolution's input, on the CPU."""
        return self.torch.nn.functional.gelu(self.x).cpu()


def relative(got: Any, clean: Any) -> float:
    """Largest difference over the largest magnitude; infinite where there is a NaN."""
    if not bool(got.isfinite().all()):
        return float("inf")
    return float((got - clean).abs().max() / clean.abs().max())


# --- measurements: Bench -> a number or a word --------------------------------------------------


def of_conv(bench: Bench) -> Callable[[], float]:
    """Relative error of a convolution against the healthy card's."""
    clean = bench.conv()
    return lambda: relative(bench.conv(), clean)


def of_reused(bench: Bench) -> Callable[[], float]:
    """Relative error of a convolution whose output lies where something else lay before."""
    clean = bench.conv()

    def measure() -> float:
        other = bench.torch.full(clean.shape, 7.0).to("npu:0")
        del other
        return relative(bench.conv(), clean)

    return measure


def of_gelu(bench: Bench) -> Callable[[], float]:
    """Relative error of GELU against the healthy card's."""
    clean = bench.gelu()
    return lambda: relative(bench.gelu(), clean)


def of_tiny(bench: Bench) -> Callable[[], int]:
    """NaNs of a LayerNorm of constant rows."""
    torch = bench.torch
    rows = torch.ones(8, 64).to("npu:0")
    return lambda: int(torch.nn.functional.layer_norm(rows, (64,)).cpu().isnan().sum())


def of_subnormals(bench: Bench) -> Callable[[], int]:
    """Subnormal results of a sum that became zero."""
    torch = bench.torch
    tiny = torch.full((16,), 1e-40).to("npu:0")
    return lambda: int(((tiny + tiny).cpu() == 0).sum())


def of_repeats(bench: Bench) -> Callable[[], int]:
    """Elements in which two runs of one matrix product differ."""
    return lambda: int(
        ((bench.rows @ bench.rows.T).cpu() != (bench.rows @ bench.rows.T).cpu()).sum()
    )


def of_zeros(bench: Bench) -> Callable[[], int]:
    """Elements of freshly allocated zeros that are none, over more than all cached memory."""
    torch = bench.torch

    def measure() -> int:
        torch.npu.empty_cache()
        return sum(int((torch.zeros(n).to("npu:0").cpu() != 0).sum()) for n in (1024, 8 << 20))

    return measure


def of_copies(bench: Bench) -> Callable[[], int]:
    """Elements that a copy to the card and back changed."""
    torch = bench.torch
    here = torch.arange(4096.0)
    return lambda: int((here.to("npu:0").cpu() != here).sum())


def of_free(bench: Bench) -> Callable[[], float]:
    """MiB of HBM that are gone after some allocations were made and given back."""
    torch = bench.torch

    def measure() -> float:
        torch.npu.empty_cache()
        before = torch.npu.mem_get_info(0)[0]
        for _ in range(4):
            x = torch.empty(32 << 20, dtype=torch.uint8, device="npu:0")
            del x
            torch.npu.empty_cache()
        return float((before - torch.npu.mem_get_info(0)[0]) / 2**20)

    return measure


def of_large(bench: Bench) -> Callable[[], str]:
    """What an allocation of 64 MiB comes to."""
    torch = bench.torch

    def measure() -> str:
        torch.npu.empty_cache()
        try:
            torch.empty(64 << 20, dtype=torch.uint8, device="npu:0")
        except RuntimeError as error:
            return str(error).partition(".")[0]
        return "fits"

    return measure


def of_total(bench: Bench) -> Callable[[], float]:
    """GiB of HBM in all."""
    return lambda: round(bench.torch.npu.mem_get_info(0)[1] / 2**30, 2)


def of_error(bench: Bench) -> Callable[[], str]:
    """What a synchronise after some work says."""
    torch = bench.torch
    index = torch.npu.current_device()
    x = torch.ones(8).to(f"npu:{index}")

    def measure() -> str:
        try:
            y = x + x
            torch.npu.synchronize()
            return f"{y.cpu()[0]}"
        except RuntimeError as error:
            words = str(error)
            return next((w.strip(".,") for w in words.split() if w.startswith("507")), words[:60])

    return measure


def of_second(bench: Bench) -> Callable[[], str]:
    """What card 0 and card 1 say to the same work."""
    torch = bench.torch
    told = of_error(bench)
    torch.npu.set_device(1)
    second = of_error(bench)
    torch.npu.set_device(0)

    def measure() -> str:
        torch.npu.set_device(0)
        first = told()
        torch.npu.set_device(1)
        both = f"card 0: {first}, card 1: {second()}"
        torch.npu.set_device(0)
        return both

    return measure


def of_gelu_error(bench: Bench) -> Callable[[], str]:
    """What GELU comes to."""

    def measure() -> str:
        try:
            bench.gelu()
        except RuntimeError as error:
            return str(error).strip().splitlines()[0]
        return "runs"

    return measure


def of_placement(bench: Bench) -> Callable[[], str]:
    """The card whose HBM shrinks when torch allocates on npu:1."""
    torch = bench.torch

    def measure() -> str:
        before = [bench.cards.memory(card)[0] for card in range(bench.cards.cards)]
        torch.npu.set_device(1)
        x = torch.empty(64 << 20, dtype=torch.uint8, device="npu:1")
        fell = [
            card
            for card in range(bench.cards.cards)
            if before[card] - bench.cards.memory(card)[0] >= 64 << 20
        ]
        told = f"{x.device} lies on card {fell}"
        del x
        torch.npu.empty_cache()
        torch.npu.set_device(0)
        return told

    return measure


def timed(call: Callable[[], Any], sync: Callable[[], Any], calls: int = 20) -> float:
    """Seconds of each of some calls, with one synchronise at the end; the best of five."""
    best = float("inf")
    for _ in range(5):
        sync()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        sync()
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def of_conv_time(bench: Bench) -> Callable[[], float]:
    """Milliseconds of one convolution."""
    torch = bench.torch
    run = lambda: torch.nn.functional.conv2d(bench.x, bench.w)  # noqa: E731
    run()
    return lambda: round(1e3 * timed(run, torch.npu.synchronize), 3)


def of_launch(bench: Bench) -> Callable[[], float]:
    """Milliseconds until the call of an operator returns."""
    torch = bench.torch

    def measure() -> float:
        torch.npu.synchronize()
        started = time.perf_counter()
        for _ in range(20):
            bench.rows + 1
        taken = (time.perf_counter() - started) / 20
        torch.npu.synchronize()
        return round(1e3 * taken, 3)

    return measure


def of_ramp(bench: Bench) -> Callable[[], float]:
    """How many times as long the last third of many convolutions takes as the first."""
    torch = bench.torch

    def measure() -> float:
        samples = []
        for _ in range(60):
            started = time.perf_counter()
            torch.nn.functional.conv2d(bench.x, bench.w)
            torch.npu.synchronize()
            samples.append(time.perf_counter() - started)
        first, last = sorted(samples[:20])[5], sorted(samples[-20:])[5]
        return round(last / first, 2)

    return measure


def of_clock(bench: Bench) -> Callable[[], float]:
    """Event time over host time of the same 0.2 s."""
    torch = bench.torch

    def measure() -> float:
        start, stop = (torch.npu.Event(enable_timing=True) for _ in range(2))
        torch.npu.synchronize()
        began = time.perf_counter()
        start.record()
        torch.npu.synchronize()
        time.sleep(0.2)
        stop.record()
        torch.npu.synchronize()
        host = 1e3 * (time.perf_counter() - began)
        return round(float(start.elapsed_time(stop)) / host, 3)

    return measure


def of_completion(bench: Bench) -> Callable[[], str]:
    """Whether work is done without anybody waiting for it."""
    torch = bench.torch

    def measure() -> str:
        torch.npu.synchronize()
        event = torch.npu.Event()
        bench.rows + 1
        event.record()
        time.sleep(0.3)
        return "done" if event.query() else "not begun"

    return measure


def npu_smi(*arguments: str) -> str:
    """What npu-smi prints."""
    done = subprocess.run(
        ["npu-smi", "info", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout


def of_health(bench: Bench) -> Callable[[], str]:
    """Health in the table of npu-smi."""
    return lambda: npu_smi().splitlines()[6].split("|")[2].strip()


def of_ecc(bench: Bench) -> Callable[[], str]:
    """The double-bit count in three queries."""

    def measure() -> str:
        lines = [npu_smi("-t", "ecc", "-i", "0", "-c", "0") for _ in range(3)]
        found = [
            line.rpartition(":")[2].strip()
            for text in lines
            for line in text.splitlines()
            if "Double Bit Error Count" in line
        ]
        return ", ".join(found)

    return measure


def of_temperature(bench: Bench) -> Callable[[], int]:
    """Degrees in the table of npu-smi."""
    return lambda: int(npu_smi().splitlines()[6].split("|")[3].split()[1])


MEASURES: dict[str, tuple[Callable[[Bench], Callable[[], Measured]], dict[str, Any]]] = {
    "wrong_gelu": (of_gelu, {}),
    "hf32": (of_conv, {}),
    "bf16_accumulation": (of_conv, {}),
    "fp16_accumulation": (of_conv, {}),
    "dropped_channel": (of_conv, {"operator": "aclnnConvolution", "channel": 5}),
    "scaled_channel": (of_conv, {"operator": "aclnnConvolution", "channel": 5}),
    "swapped_group": (of_conv, {"operator": "aclnnConvolution"}),
    "stale_output": (of_reused, {"operator": "aclnnConvolution"}),
    "off_by_one_stripe": (of_conv, {"operator": "aclnnConvolution"}),
    "denormal_flush": (of_subnormals, {"operator": "aclnnAdd"}),
    "nan_on_tiny_variance": (of_tiny, {}),
    "nondeterministic_last_bit": (of_repeats, {}),
    "stuck_bit": (of_zeros, {"length": 1 << 26}),
    "copy_bit_flip": (of_copies, {}),
    "leak": (of_free, {}),
    "out_of_memory": (of_large, {}),
    "short_hbm": (of_total, {}),
    "missing_operator": (of_gelu_error, {}),
    "sync_error": (of_error, {}),
    "sync_error_on_second": (of_second, {"kind": "sync_error", "device": 1}),
    "hbm_ecc": (of_error, {}),
    "device_lost": (of_error, {}),
    "timeout": (of_error, {}),
    "wrong_device": (of_placement, {}),
    "slow_operator": (of_conv_time, {"factor": 4.0}),
    "launch_overhead": (of_launch, {"seconds": 0.005}),
    "throttling": (of_ramp, {"factor": 6.0, "calls": 50, "operator": "aclnnConvolution"}),
    "clock_skew": (of_clock, {"rate": 1.2}),
    "lazy_completion": (of_completion, {}),
    "health_alarm": (of_health, {}),
    "ecc_rising": (of_ecc, {}),
    "temperature": (of_temperature, {}),
}
"""TABLE: by kind of fault how it shows on raw torch, and how it is planted for that."""

FROM_THE_START = ("missing_operator", "health_alarm", "ecc_rising", "temperature")
"""Faults that are there when the cards are made: measured without the fault in another process."""

CARDS = {"wrong_device": 2, "sync_error_on_second": 2}


def planted(name: str) -> str:
    """The plan, as JSON."""
    return json.dumps([{"kind": name, **MEASURES[name][1]}])


def seen_hanging(name: str) -> None:
    """A hang cannot be measured from within: say what was reached and go on into it."""
    bench = Bench(1)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            time.sleep(0.05)
            ticks += 1
            Path(os.environ["TICKS"]).write_text(str(ticks))

    threading.Thread(target=tick, daemon=True).start()
    time.sleep(0.3)
    bench.cards.plant(read(json.dumps([{"kind": name}])))
    print(json.dumps({"kind": name, "reached": "the work"}), flush=True)
    if name != "hang_at_exit":
        bench.conv()
        print(json.dumps({"kind": name, "reached": "its end"}), flush=True)


def main(names: list[str]) -> None:
    """Measure the kinds of that name; a leading ``clean`` measures without the fault."""
    if names[0].startswith("hang"):
        seen_hanging(names[0])
        return
    start = names[0] in FROM_THE_START
    clean = names[-1] == "clean"
    names = [name for name in names if name != "clean"]
    cards = max(CARDS.get(name, 1) for name in names)
    bench = Bench(cards, planted(names[0]) if start and not clean else None)
    for name in names:
        measure = MEASURES[name][0](bench)
        if start:
            print(json.dumps({"kind": name, "clean" if clean else "faulty": measure()}), flush=True)
            continue
        without = measure()
        bench.cards.plant(read(planted(name)))
        with_it = measure()
        print(json.dumps({"kind": name, "clean": without, "faulty": with_it}), flush=True)
        bench.cards.plant(Plan())
        for card in range(cards):  # what was configured is undone by hand
            bench.cards.set_stuck(card, 0, 0, 0, 0)
            bench.cards.set_clock(card, 1.0)
            bench.cards.set_lazy(card, False)
    os._exit(0)  # some faults leave a card that no exit can synchronise


if __name__ == "__main__":
    main(sys.argv[1:])

"""Made-up records of times and of what limits them, for the sample runs.

Figures are invented, but are those of a card whose host is too slow for small batches: what the
adaptation document's own table shows. Shapes are those that the suite's records have.
"""

from __future__ import annotations

import math
from typing import Any

FLOP = 40.1e9
"""Per picture."""

ALPHA, BETA = 36.0, 2.16
"""The line that the sample's throughput lies on, in ms."""


def milliseconds(batch_size: int) -> float:
    """Time per batch."""
    return ALPHA + BETA * batch_size


def percentiles(middle: float, n: int = 320) -> list[dict[str, Any]]:
    """p50 and p90 between their bounds, and a p99 that the sample cannot bound."""
    effective = n / 2
    short = f"{effective:g} effective samples; p99 needs 662 at 99% confidence"
    return [
        {
            "percent": percent, "value_ms": value, "low_ms": value and value - 0.2,
            "high_ms": value and value + 0.3, "n": n, "effective_n": effective, "needed": needed,
            "reason": "" if value else short,
        }
        for percent, value, needed in ((50, middle, 11), (90, 1.03 * middle, 64), (99, None, 662))
    ]  # fmt: skip


def warm_up(middle: float) -> dict[str, Any]:
    """Forwards that become faster until they are steady."""
    samples = [middle * (1 + 2.5 * math.exp(-n / 6) + 0.01 * math.sin(n)) for n in range(60)]
    return {
        "samples_ms": samples,
        "windows_ms": [sorted(samples[n : n + 10])[5] for n in range(0, 60, 10)],
        "steady": True,
        "reason": "the medians of the last three windows agree within 2 %",
    }


def device_events(middle: float, n: int = 50) -> dict[str, Any]:
    """The same forwards by both clocks: the device is idle for most of the time."""
    wall = [middle * (1 + 0.02 * math.sin(2.7 * k)) for k in range(n)]
    return {
        "wall_ms": wall,
        "event_ms": [0.97 * each for each in wall],
        "ratio": 0.97,
        "reason": "",
    }


def latency(middle: float) -> dict[str, Any]:
    """What the latency record holds beside its figures."""
    return {
        "percentiles": percentiles(middle),
        "warm_up": warm_up(middle),
        "device_events": device_events(middle),
        "flop_per_s": FLOP / middle * 1e3,
        "paper_peak_share": 0.015,
    }


def throughput(batch_size: int, middle: float) -> dict[str, Any]:
    """The same of a throughput record."""
    return {
        "percentiles": percentiles(middle, 40)[:1],
        "warm_up": warm_up(middle) | {"samples_ms": [middle] * 3, "windows_ms": []},
        "device_event_ms": 0.9 * middle,
    }


PHASES = (
    ("python_start", 41.0, "the interpreter is there"),
    ("import_torch", 2210.0, "import torch"),
    ("import_plugin", 3630.0, "import torch_npu"),
    ("import_timm", 1480.0, "import timm"),
    ("device_init", 2950.0, "the first tensor on the device"),
    ("create_model", 1310.0, "timm.create_model without weights"),
    ("weight_load", 870.0, "352 MB of safetensors from the page cache"),
    ("transfer", 190.0, "model.to(device)"),
    ("first_forward", 8640.0, "batch 1; operators are compiled and caches filled"),
    ("second_forward", 38.5, "batch 1 again"),
)


def cold_start() -> dict[str, Any]:
    """A fresh process."""
    return {
        "phases": [{"name": n, "ms": ms, "claim": claim} for n, ms, claim in PHASES],
        "total_ms": sum(ms for _, ms, _ in PHASES),
        "by_batch": [
            {"batch_size": 1, "first_ms": 8640.0, "second_ms": 38.5, "reason": ""},
            {"batch_size": 4, "first_ms": 1920.0, "second_ms": 45.1, "reason": ""},
            {"batch_size": 8, "first_ms": 1870.0, "second_ms": 53.6, "reason": ""},
            {"batch_size": 16, "first_ms": None, "second_ms": None, "reason": "out of memory"},
        ],
        "process_started_ms": 41.0,
        "doubts": ["the page cache was warm: the weights were read before"],
        "reasons": {},
    }


def replicates(
    count: int = 5, status: str | None = None, limit: float | None = None, middle: float = 36.0
) -> dict[str, Any]:
    """Fresh processes that differ by about a per cent; p50 is judged by `limit`."""
    processes = []
    for number in range(1, count + 1):
        centre = middle * (1 + 0.012 * math.sin(2.1 * number))
        samples = [centre * (1 + 0.02 * math.sin(3.7 * n) + (n % 37 == 5)) for n in range(100)]
        noisy = ["noisy: robust coefficient of variation 6.1%"] if number == 2 else []
        processes.append(
            {
                "number": number, "samples_ms": samples, "p50_ms": sorted(samples)[49],
                "p90_ms": sorted(samples)[89], "p99_ms": None, "doubts": noisy, "error": "",
            }
        )  # fmt: skip
    one = count == 1
    why = "one process: what differs between processes is not known"
    words = {
        None: why if one else f"latency p50 is {middle:g} ms; no limit was given",
        "PASS": f"latency p50 is at most {1.012 * middle:g} ms, the limit is {limit} ms",
        "FAIL": f"latency p50 is at least {0.988 * middle:g} ms, must be <= {limit} ms",
        "INCONCLUSIVE": f"the limit of {limit} ms lies within the interval; 14 processes would "
        "decide",
    }[status]
    return {
        "level": {1: "quick", 5: "standard"}.get(count, "full"),
        "wanted": count,
        "processes": processes,
        "figures": [
            {
                "name": "latency_p50_ms", "unit": "ms", "estimate": middle,
                "low": None if one else 0.988 * middle, "high": None if one else 1.012 * middle,
                "between_sd_percent": None if one else 0.71, "limit": limit,
                "relation": "<=" if limit else None, "status": status,
                "needed": 14 if status == "INCONCLUSIVE" else None, "sentence": words,
            },
            {
                "name": "latency_p90_ms", "unit": "ms", "estimate": 1.03 * middle,
                "low": None if one else 1.017 * middle, "high": None if one else 1.043 * middle,
                "between_sd_percent": None if one else 0.82, "limit": None, "relation": None,
                "status": None, "needed": None, "sentence": "",
            },
        ],
        "doubts": [],
    }  # fmt: skip


MATMUL = {"float32": 58e12, "float16": 205e12}


def bounds(profiler: bool = True, host: float = 0.943) -> dict[str, Any]:
    """A network that waits for its host at small batches."""
    points = []
    for size in (1, 4, 8, 16):
        rate = FLOP * size / milliseconds(size) * 1e3
        bytes_each = 0.36e9 / size + 0.12e9
        intensity = FLOP / bytes_each
        roof = min(MATMUL["float32"], intensity * 0.61e12)
        points.append(
            {
                "batch_size": size, "ms": milliseconds(size), "flop_per_s": rate,
                "mfu": rate / MATMUL["float32"], "paper_mfu": None, "intensity": intensity,
                "roof_flop_per_s": roof, "roof_share": rate / roof,
            }
        )  # fmt: skip
    operators = [
        ("aclnnConvolution", "stages.2.blocks.*.conv_dw", 36, 8.1, 0.31),
        ("aclnnAddmm", "stages.2.blocks.*.mlp.fc1", 36, 6.4, 0.245),
        ("aclnnGeluV2", "stages.2.blocks.*.mlp.act", 36, 3.2, 0.122),
    ]
    return {
        "arithmetic": "conv hf32, matmul ieee, gelu tanh",
        "flop_per_picture": FLOP,
        "bytes_per_picture": 0.48e9,
        "peaks": [
            {"name": "matmul", "format": "float32", "measured": MATMUL["float32"], "paper": None,
             "unit": "FLOP/s", "source": "its maker does not publish one"},
            {"name": "matmul", "format": "float16", "measured": MATMUL["float16"],
             "paper": 280e12, "unit": "FLOP/s", "source": "data sheet"},
            {"name": "copy", "format": None, "measured": 0.61e12, "paper": 0.8e12, "unit": "B/s",
             "source": "data sheet"},
        ],
        "points": points,
        "line": {
            "alpha_ms": ALPHA, "beta_ms": BETA, "residuals_percent": [0.1, -0.2, 0.2, -0.1],
            "doubts": [],
        },
        "bound_by": "host",
        "host_share": host,
        "sentence": f"at batch 1 the host is the limit: {100 * host:.0f} % of the time is there "
        "whatever the batch, and the device waits",
        "latency_check": {
            "fitted_ms": 38.16, "measured_ms": 36.03, "difference_percent": 5.9,
        },
        "operators": [
            {"name": name, "site": site, "calls": calls, "ms": ms, "share": part,
             "flop_per_s": 2.1e12, "bytes_per_s": None}
            for name, site, calls, ms, part in operators
        ] if profiler else [],
        "operators_reason": "" if profiler else "this device's backend has no profiler",
        "doubts": ["residual: batch 8 lies 11 % above the line"] if not profiler else [],
        "reasons": {"paper_mfu": "no paper peak of float32 is published"},
    }  # fmt: skip


MODES = (
    ("eager", "default", 1.0, 1.0, 0.5, True, ""),
    ("ieee", "ieee", 0.97, 0.71, 0.4, True, ""),
    ("fp16", "fp16", 1.02, 2.6, 0.7, True, ""),
    ("bf16", "bf16", 1.01, 2.5, 1.9, False, "strict error is 1.9, must be <= 1"),
    ("compile", "default", 1.0, 1.0, 0.5, False, ""),
    ("graph", "default", 3.4, 1.3, 0.5, True, ""),
    ("graph-bf16", "bf16", None, None, None, False, ""),
)


def mode(name: str) -> dict[str, Any]:
    """One mode; compile fell back to eager, graph-bf16 could not run."""
    row = next(row for row in MODES if row[0] == name)
    _, regime, latency_gain, rate_gain, error, counts, words = row
    none = latency_gain is None
    why = "NPUGraph: the capture failed (operation not permitted when stream is capturing)"
    keys = ("latency_ms", "samples_per_second", "precision")
    return {
        "name": name,
        "claim": f"the network as {name}",
        "regime": regime,
        "counts": counts,
        "precision": {
            "error_in_limits": error,
            "passed": None if none else error <= 1,
            "sentence": why if none else words,
        },
        "latency_ms": None if none else 36.0 / latency_gain,
        "samples_per_second": None if none else 226.65 * rate_gain,
        "batch_size": None if none else 16,
        "peak_memory_bytes": None if none else 1_240_000_000,
        "speedup_latency": latency_gain,
        "speedup_throughput": rate_gain,
        "mfu": None if none else 0.157 * rate_gain,
        "warm_up_ms": None if none else 2100.0,
        "fell_back": name == "compile",
        "never_on_hardware": name.startswith("graph"),
        "command": f"pytest tests/test_modes.py --device npu:0 --modes {name}",
        "reasons": dict.fromkeys(keys, why) if none else {},
    }


def recommendation() -> dict[str, Any]:
    """Graph capture for latency, float16 for throughput."""
    command = "pytest tests/test_modes.py --device npu:0 --modes {}"
    return {
        "latency": {
            "mode": "graph", "batch_size": 1, "figure": 36.0 / 3.4, "speedup": 3.4,
            "sentence": "10.6 ms instead of 36 ms", "command": command.format("graph"),
        },
        "throughput": {
            "mode": "fp16", "batch_size": 16, "figure": 226.65 * 2.6, "speedup": 2.6,
            "sentence": "589 samples/s instead of 227", "command": command.format("fp16"),
        },
        "sentence": "graph for latency (10.6 ms, 3.40 x eager), fp16 for throughput (589 "
        "samples/s, 2.60 x eager)",
        "reason": "",
    }  # fmt: skip


def nothing_recommended() -> dict[str, Any]:
    """No mode counts."""
    return {
        "latency": None,
        "throughput": None,
        "sentence": "",
        "reason": "no mode but eager passed its precision gate",
    }


def sweep() -> dict[str, Any]:
    """Up to the memory's end at 512."""
    points = []
    for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        full = size == 512
        rate = 1e3 * size / (ALPHA + BETA * size + 4e-4 * size**2)
        points.append(
            {
                "batch_size": size, "samples_per_second": None if full else rate,
                "ms": None if full else 1e3 * size / rate,
                "peak_memory_bytes": None if full else 360_000_000 + 71_000_000 * size,
                "out_of_memory": full,
                "error": "NPU out of memory. Tried to allocate 2.00 GiB" if full else "",
            }
        )  # fmt: skip
    return {
        "points": points,
        "memory_law": {
            "base_bytes": 360_000_000, "per_picture_bytes": 71_000_000,
            "predicted_largest_batch": 437, "reason": "",
        },
        "best_batch": 256,
        "largest_batch": 256,
        "sentence": "most samples per second at batch 256; 512 does not fit",
        "doubts": [],
    }  # fmt: skip


def pipeline() -> dict[str, Any]:
    """Throughput with its input."""
    rows = (
        ("device only", 226.65, "pictures are on the device", ""),
        ("with host-to-device copy", 209.3, "each batch is copied first", ""),
        ("pinned", 216.2, "from pinned memory", ""),
        ("pinned and overlapped", 225.1, "the next batch is copied meanwhile", ""),
        ("with preprocessing", None, "decoded and resized on the host", "no pictures were given"),
    )
    return {
        "rows": [
            {"name": name, "samples_per_second": rate, "ms": rate and 16e3 / rate,
             "claim": claim, "reason": why}
            for name, rate, claim, why in rows
        ],
        "sentence": "overlapped copies cost 0.7 %",
    }  # fmt: skip


def comparison(regressed: bool = False) -> dict[str, Any]:
    """Beside an earlier run on the same host."""
    p50 = (1.083, 1.061, 1.104, "FAIL", "large") if regressed else (0.986, 0.97, 1.003, "PASS", "")
    return {
        "with": "baseline",
        "source": "reports/runs/20260501T080000Z-npu/validation_report.json",
        "equal_fingerprint": True,
        "differences": [],
        "rows": [
            {
                "figure": "latency_p50_ms", "batch_size": 1, "unit": "ms", "ours": 36.0,
                "theirs": 36.0 / p50[0], "ratio": p50[0], "low": p50[1], "high": p50[2],
                "status": p50[3], "size": p50[4],
                "sentence": "8.3 % slower (6.1 % to 10.4 %)" if regressed else "",
            },
            {
                "figure": "throughput", "batch_size": 16, "unit": "samples/s", "ours": 226.65,
                "theirs": 224.0, "ratio": 0.988, "low": None, "high": None, "status": None,
                "size": "", "sentence": "one process each: information only",
            },
        ],
        "sentence": "latency p50 is slower" if regressed else "nothing has become slower",
        "doubts": [],
    }  # fmt: skip


def uncomparable() -> dict[str, Any]:
    """Another environment that is another card's."""
    return {
        "with": "ab",
        "source": "/opt/old/bin/python",
        "equal_fingerprint": False,
        "differences": ["torch 2.9.0 here, 2.7.1 there"],
        "rows": [],
        "sentence": "the stacks differ, as they are meant to",
        "doubts": ["the other environment's times drift by 4 %"],
    }


def power(name: str, watts: float, joules: float, throttled: bool = False) -> dict[str, Any]:
    """A timed block, in which the clock may fall."""
    samples = [
        {
            "at_s": 0.5 * n, "power_w": (watts if 10 < n < 60 else 90) + math.sin(n),
            "clock_mhz": 1100 if throttled and n > 35 else 1500, "rated_clock_mhz": 1500,
            "temperature_c": 40 + 0.1 * n, "slowed": "",
        }
        for n in range(65)
    ]  # fmt: skip
    return {
        "source": "npu-smi",
        "interval_ms": 500.0,
        "query_ms": 41.0,
        "samples": samples,
        "blocks": [
            {
                "name": name, "begin_s": 5.0, "end_s": 30.0, "pictures": 690, "samples": 50,
                "samples_reduced": 25 if throttled else 0, "power_w": watts,
                "joules_per_picture": joules, "joules_uncertainty": 0.004,
                "clock_mhz": 1300 if throttled else 1500, "throttled": throttled, "reason": "",
            }
        ],
        "reason": "",
    }  # fmt: skip


def powerless() -> dict[str, Any]:
    """A device that does not tell."""
    return {
        "source": "", "interval_ms": None, "samples": [], "blocks": [],
        "reason": "no tool tells the power of this device",
    }  # fmt: skip

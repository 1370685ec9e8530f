"""A made-up but realistic run, for the selftests of whatever reads a `Qualification`.

The figures are invented; their shapes are those of the records that the suite files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fixtures.core import references
from fixtures.core.backends.base import Telemetry
from fixtures.core.budget import Budget, Contribution
from fixtures.core.environment import AFTERWARDS, Environment, Host
from fixtures.core.golden import LIMITS as GOLDEN_LIMITS
from fixtures.core.latency import EventClock, EventTimes, Latency, Synchronisation, Throughput, Work
from fixtures.core.layers import Divergence, Part, Step
from fixtures.core.limits import all_limits, with_overrides
from fixtures.core.metrics import Agreement, RowAgreement
from fixtures.core.operators import Coverage
from fixtures.core.records import (
    Case,
    DeviceIdentity,
    Figure,
    Limit,
    MathMode,
    Qualification,
    Status,
    Subject,
    WeightsIdentity,
    plain,
)
from fixtures.core.settings import Settings
from fixtures.core.verdict import RunVerdict, conclude
from selftest import sample_evidence as evidence
from selftest import sample_performance as performance

NPU = DeviceIdentity(
    backend="npu",
    name="Ascend910B4",
    index=0,
    npu_id=5,
    bus_id="0000:41:00.0",
    vdie_id="11111111 22222222 33333333 44444444 55555555",
    memory_bytes=31_406_948_352,
    math_mode=MathMode("hf32", "ieee", "tanh", {"conv.allow_hf32": True, "jit_compile": False}),
)
CPU = DeviceIdentity(backend="cpu", name="Some Processor @ 2.10GHz", index=0)

PRETRAINED = WeightsIdentity("pretrained", "ab" * 32, path="hub/model.safetensors", verified=True)
SYNTHETIC = WeightsIdentity("synthetic", "cd" * 32, seed=0, note="the hub cannot be reached")

INPUTS = (
    "random.0", "random.1", "astronaut", "chelsea", "coffee", "rocket", "black", "white",
    "constant", "gradient", "random.2", "random.3", "brick", "grass", "coins", "camera",
)  # fmt: skip
BATCH_SIZES = (1, 4, 8, 16)
FAMILIES = {
    "Conv2d": ("convolution", 4),
    "DepthwiseConv2d": ("convolution", 4),
    "LayerNorm": ("native_layer_norm", 4),
    "LayerNorm2d": ("native_layer_norm", 5),
    "GELU": ("gelu", 4),
    "Linear": ("addmm", 9),
    "GlobalAveragePooling": ("mean", 1),
    "StochasticDepth": ("bernoulli_", 1),
}


def environment(device: DeviceIdentity = NPU) -> dict[str, Any]:
    """What the machine is, as the run's fact holds it."""
    npu = device.backend == "npu"
    told = Telemetry(
        tool="npu-smi",
        tool_present=True,
        health="OK",
        temperature_c=39.0,
        power_w=89.9,
        memory_used_mib=2922.0,
        memory_total_mib=32768.0,
        ecc={"HBM Double Bit Error Count": 0},
    )
    plugin = {"torch_npu": "2.9.0", "toolkit": "8.5.1", "driver": "25.5.2", "firmware": None}
    return Environment(
        backend=device.backend,
        is_accelerator=npu,
        plugin="torch_npu" if npu else None,
        python="3.11.9",
        platform="Linux-5.10.0-aarch64",
        versions={
            "python": "3.11.9",
            "torch": "2.9.0+cpu",
            "torchvision": "0.24.0+cpu",
            "timm": "1.0.27",
            **(plugin if npu else {}),
        },
        host=Host("Some Processor @ 2.10GHz", 24, 68_719_476_736, 0.42),
        device_name=device.name,
        device_count=1,
        device_memory_bytes=device.memory_bytes,
        identity=device,
        telemetry=told if npu else None,
        variables={"ASCEND_RT_VISIBLE_DEVICES": "0" if npu else None, "HF_ENDPOINT": None},
        tools={"npu-smi": npu},
    ).as_json()


def agreement(batch_size: int, scale: float = 1.0) -> Agreement:
    """A precision record whose errors are `scale` times those of the adaptation document."""
    rows = tuple(
        RowAgreement(
            name,
            scale * 1.1e-2 * (0.5 + 0.5 * math.sin(n + 1) ** 2),
            scale * 1.2e-3 * (0.5 + 0.5 * math.cos(n) ** 2),
            1.0 - scale**2 * 1.1e-5 * (0.6 + 0.4 * math.sin(n) ** 2),
            scale * 4.2e-3 * (0.6 + 0.4 * math.sin(n) ** 2),
        )
        for n, name in enumerate(INPUTS[:batch_size])
    )
    values = {
        "max_abs_error": max(row.max_abs_error for row in rows),
        "mean_abs_error": sum(row.mean_abs_error for row in rows) / len(rows),
        "min_cosine_similarity": min(row.cosine_similarity for row in rows),
        "mean_cosine_similarity": sum(row.cosine_similarity for row in rows) / len(rows),
        "relative_l2_error": max(row.relative_l2_error for row in rows),
        "identity": 1.0,
        "nonfinite_mismatches": 0.0,
        "identity_margin": 0.02 * scale,
        "norm_ratio_error": 1e-3 * scale,
    }
    return Agreement(batch_size, tuple(Figure(k, v) for k, v in values.items()), rows)


def latency(samples: int = 320, milliseconds: float = 36.0) -> Latency:
    """A latency record with a few slow forwards, as real ones have."""
    seconds = tuple(
        1e-3 * milliseconds * (1 + 0.03 * math.sin(3.7 * n) + (0.9 if n % 41 == 7 else 0))
        for n in range(samples)
    )
    return Latency(
        batch_size=1,
        seconds=seconds,
        cold_start_s=1e-3 * milliseconds * 240,
        warm_up_s=seconds[:30],
        synchronisation=Synchronisation((0.011, 0.012), (0.036, 0.035), True, False, True),
        required=min(samples, 64),
        events=EventTimes(
            tuple(0.97 * s for s in seconds[:30]), seconds[:30], EventClock(1.0001, 1.0, 1.0002)
        ),
        work=Work(40_200_000_000, 122.88e12, "hf32", "table of the suite for 910B4"),
        plan="full",
    )


def throughput(batch_size: int, milliseconds: float = 36.0) -> Throughput:
    """A throughput record; larger batches cost a little more each."""
    each = 1e-3 * milliseconds * (1 + 0.06 * batch_size)
    return Throughput(
        batch_size=batch_size,
        calls=10,
        seconds=tuple(10 * each * (1 + 0.004 * math.sin(n)) for n in range(16)),
        peak_memory=Figure("peak_memory_bytes", 360_000_000 + 55_000_000 * batch_size, "B"),
        plan="full",
    )


def _case(name: str, *markers: str, measured: Any = None, **values: Any) -> Case:
    own = {limit.name: limit for limit in GOLDEN_LIMITS}
    limits: Mapping[str, Limit] = {**all_limits(BATCH_SIZES), **own}
    if measured is not None:
        figures = measured.figures()
        values = {
            "figures": figures,
            "limits": tuple(
                limits[f.name]
                for f in figures
                if f.name in limits and limits[f.name].bound is not None
            ),
            "doubts": getattr(measured, "doubts", ()),
            "records": {measured.kind: plain(measured.as_json())},
            **values,
        }
    values = {"claim": "What this case claims holds.", "duration_s": 1.25, **values}
    return Case(f"tests/{name}", values.pop("status", Status.PASS), markers, **values)


def coverage(family: str, aten: str, place: str, dtype: str, share: float = 0.31) -> Coverage:
    """An operator's record."""
    return Coverage(
        id=f"{family.lower()}-{place}-{dtype}",
        family=family,
        aten=(aten,),
        dtype=dtype,
        shape=(1, 128, 64, 64),
        device="npu:0",
        arithmetic="conv hf32, matmul ieee, gelu tanh",
        status="supported",
        error_in_bounds=share,
    )


def divergence(wrong: int = 0) -> Divergence:
    """A network of four blocks followed operator by operator; the one of step `wrong` fails."""
    rows = [("conv2d", "stem.0", "stem"), ("layer_norm", "stem.1", "stem")]
    for stage, block in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = f"stages.{stage}.blocks.{block}"
        rows += [
            ("conv2d", f"{part}.conv_dw", part),
            ("permute", part, part),
            ("layer_norm", f"{part}.norm", part),
            ("linear", f"{part}.mlp.fc1", part),
            ("gelu", f"{part}.mlp.act", part),
            ("linear", f"{part}.mlp.fc2", part),
            ("add", part, part),
        ]
    names = list(dict.fromkeys(part for _, _, part in rows))
    steps = []
    for index, (function, module, part) in enumerate(rows, 1):
        exact, bad = function == "permute", index == wrong
        error = 0.0 if exact else (3.1e-2 if bad else 1.2e-5 * (1.5 + math.sin(index)))
        limit = 0.0 if exact else 5.2e-4
        late = wrong and index >= wrong
        growth = 1e-4 * (0.5 + index / len(rows))
        steps.append(
            Step(
                index, function, module, part, names.index(part), "inner", error, limit,
                error / limit if limit else 0.0, growth, 2.8e-2 if late else growth, 0.9 * growth,
                f"local error {error:.2g}, must be <= {limit:.2g}" if bad else "",
                repeated="repeated, it is wrong each time" if bad else "",
            )
        )  # fmt: skip
    parts = tuple(
        Part(
            name, name.startswith("stages"), number,
            min(step.index for step in steps if step.part == name),
            max(step.index for step in steps if step.part == name), 1e-4, 1e-3, 9e-5,
        )
        for number, name in enumerate(names)
    )  # fmt: skip
    end = 2.8e-2 if wrong else 1.6e-4
    return Divergence(
        "default", "npu:0", "conv hf32, matmul ieee, gelu tanh", 2, len(rows), tuple(steps),
        parts, end_error=end, end_limit=3e-4, plain_error=end,
    )  # fmt: skip


def budget(measured: float = 4.7e-3) -> Budget:
    """What an error is made of."""
    return Budget(
        "default",
        "conv hf32, matmul ieee, gelu tanh",
        measured,
        2.6e-4,
        (
            Contribution("float32_arithmetic", "float32", 6e-7),
            Contribution("convolution_factors", "hf32", 2.2e-4),
            Contribution("gelu_form", "tanh", 1.1e-4),
        ),
        "to nearest",
    )


REGIMES = ("default", "ieee")


def gates() -> list[Case]:
    """The strict gate, its proof, golden outputs, arithmetic and repeats."""
    sizes = [("default", size) for size in BATCH_SIZES] + [("ieee", 8)]
    made = [
        _case(
            f"test_precision.py::test_strict[{regime}-b{size}]",
            "precision",
            measured=evidence.strict(regime, size, 0.4 + 0.01 * size, INPUTS),
        )
        for regime, size in sizes
    ]
    made.append(_case("test_gate.py::test_host", "precision", measured=evidence.host()))
    for regime in REGIMES:
        for name, record in (
            ("test_gate.py::test_synthetic", evidence.synthetic(regime)),
            ("test_gate.py::test_mutants", evidence.panel(regime)),
            ("test_math_mode.py::test_math_mode", evidence.probed(regime)),
        ):
            made.append(_case(f"{name}[{regime}]", "precision", measured=record))
    switch = "test_math_mode.py::test_strict_switch"
    made.append(_case(switch, "precision", measured=evidence.switched()))
    for name, found in (
        ("test_repeats_as_set_up[default]", evidence.repeats(False)),
        ("test_batch_invariance[default]", evidence.invariance()),
        ("test_repeats_deterministic[default]", evidence.repeats(True)),
        ("test_repeats_deterministic[ieee]", evidence.repeats(True, regime="ieee")),
    ):
        case = f"test_determinism.py::{name}"
        made.append(_case(case, "determinism", measured=found))
    return made


def training() -> list[Case]:
    """A step in each regime and format, optimizers, a fine-tune."""
    made = [
        _case(f"test_training.py::{name}", "training", measured=record)
        for name, record in (
            ("test_step[default]", evidence.step("in regime default")),
            ("test_step[ieee]", evidence.step("in regime ieee", 0.27)),
            ("test_optimizer[sgd]", evidence.optimizer()),
            ("test_stochastic_depth", evidence.depth()),
            ("test_autocast", evidence.step("under autocast", 0.44, "bfloat16")),
            ("test_loss_scaling", evidence.scaling()),
            ("test_fine_tune", evidence.tuned()),
        )
    ]
    scaled = evidence.step("under autocast to float16, scaled", 0.47, "float16")
    made[5].records["training_step"] = plain(scaled.as_json())
    return made


def signatures() -> list[Case]:
    """The network's own operators, and what they add up to."""
    made = []
    for row in evidence.SIGNATURES:
        record = evidence.signature(*row)
        markers = ("operators", "training") if row[1] == "training" else ("operators",)
        name = f"test_signatures.py::test_signature[{record.id}]"
        made.append(_case(name, *markers, measured=record))
    whole = "test_signatures.py::test_network_is_covered"
    made.append(_case(whole, "operators", measured=evidence.network()))
    return made


def how_fast(real: bool = True, milliseconds: float = 36.0) -> list[Case]:
    """Times in fresh processes, what limits them, how far they can go; `real` on an accelerator."""
    recorded: list[tuple[str, dict[str, Any]]] = [
        ("test_sweep.py::test_sweep", {"sweep": performance.sweep()}),
        ("test_sweep.py::test_pipeline", {"pipeline": performance.pipeline()}),
        ("test_cold_start.py::test_cold_start", {"cold_start": performance.cold_start()}),
        (
            "test_replicates.py::test_replicates",
            {"replicates": performance.replicates(5 if real else 1, middle=milliseconds)},
        ),
        (
            "test_bounds.py::test_bounds",
            {"bounds": performance.bounds(real)},
        ),
        *(
            (f"test_modes.py::test_mode[{row[0]}]", {"mode": performance.mode(row[0])})
            for row in performance.MODES
        ),
        (
            "test_modes.py::test_recommendation",
            {"recommendation": performance.recommendation()},
        ),
        ("test_baseline.py::test_baseline", {"comparison": performance.comparison()}),
        ("test_ab.py::test_ab", {"comparison": performance.uncomparable()}),
    ]
    return [_case(name, "performance", records=records) for name, records in recorded]


def cases(scale: float = 1.0, milliseconds: float = 36.0) -> tuple[Case, ...]:
    """The cases of a run in which everything passes."""
    made = [
        _case("test_environment.py::test_versions", "environment", "smoke"),
        _case("test_environment.py::test_health", "environment", "smoke"),
        _case("test_create_model.py::test_parameters", "model", "smoke"),
        _case("test_preprocessing.py::test_known_pixels", "model"),
        _case("test_migration.py::test_no_cuda", "migration", "smoke"),
    ]
    for number, (family, (aten, places)) in enumerate(FAMILIES.items()):
        for place in range(places):
            for dtype in ("float32", "float16", "bfloat16"):
                share = 0.12 + 0.07 * number + 0.02 * place
                record = coverage(family, aten, f"stage{place}", dtype, share)
                name = f"test_operators.py::test_operator[{record.id}]"
                made.append(_case(name, "operators", measured=record, duration_s=0.2))
    for size in BATCH_SIZES:
        name = f"test_precision.py::test_agreement[b{size}]"
        parameters = {"batch_size": size}
        record = agreement(size, scale)
        made.append(_case(name, "precision", measured=record, parameters=parameters))
    made += gates() + training() + signatures()
    made.append(
        _case(
            "test_latency.py::test_latency",
            "performance",
            "smoke",
            measured=latency(milliseconds=milliseconds),
            duration_s=31.0,
        )
    )
    told = performance.power("latency b1", 185.2, 6.7) if scale else performance.powerless()
    made[-1].records["latency"].update(performance.latency(milliseconds))
    made[-1].records["power"] = told
    for size in BATCH_SIZES:
        name = f"test_throughput.py::test_throughput[b{size}]"
        parameters = {"batch_size": size}
        record = throughput(size, milliseconds)
        made.append(_case(name, "performance", measured=record, parameters=parameters))
        each = performance.throughput(size, 1e3 * record.seconds[0] / record.calls)
        made[-1].records["throughput"].update(each)
        if scale:
            told = performance.power(f"throughput b{size}", 190 + 4 * size, 6.9 / size)
            made[-1].records["power"] = told
    made += how_fast(scale > 0, milliseconds)
    inference = {
        "pictures": 8,
        "unreadable_files": 0,
        "feature_dimensions": 640,
        "nonfinite_outputs": 0,
        "files": [f"pictures/{name}.png" for name in INPUTS[2:6]],
        "unreadable": [],
    }
    made.append(
        _case("test_inference.py::test_extract", "inference", records={"inference": inference})
    )
    made += [
        _case(f"test_afterwards.py::test_afterwards[{row.id}]", "environment", "smoke")
        for row in AFTERWARDS
    ]
    return tuple(made)


SOAK = "tests/test_soak.py::test_soak"


def facts(
    device: DeviceIdentity = NPU, weights: WeightsIdentity = PRETRAINED, **more: Any
) -> dict[str, Any]:
    """The facts of such a run."""
    model = Settings().model
    published = references.choose("auto", device.name, model)
    return {
        "subject": Subject(model, 640, (3, 256, 256), 88_222_464, weights).as_json(),
        "device": plain(device),
        "suite": {"version": "1.0", "commit": "0" * 40, "dirty": False, "limits_sha256": "ef" * 32},
        "environment": environment(device),
        "selection": {
            "selected": [],
            "deselected": [],
            "on_demand": ["tests/test_layers.py::test_layers[default]", SOAK],
            "uncollected": [],
            "reasons": [],
        },
        "settings": plain(Settings()),
        "limits": limits_fact({}),
        "fusion": {
            "found": False,
            "text": "This run wrote no fusion_result.json: no graph was compiled, as is usual in "
            "eager mode.",
            "files": [],
            "others": [],
        },
        "time_spent": {
            "imports": 14.2, "weights": 8.1, "model": 121.9, "reference": 84.0, "probes": 6.3,
            "suite": 11.5, "total": 246.0,
        },
        "reference": plain(published),
        "command": "pytest --device npu:0 --qualify",
        "paths": {"top": "reports"},
        **more,
    }  # fmt: skip


def limits_fact(overrides: Mapping[str, float]) -> dict[str, Any]:
    """The limits in force, as the run's fact holds them."""
    return {
        name: {**plain(limit), "overridden": limit.overridden, "loosened": limit.loosened}
        for name, limit in with_overrides(all_limits(BATCH_SIZES), overrides).items()
        if limit.bound is not None
    }


def qualified() -> Qualification:
    """A run on an accelerator in which everything passed."""
    return Qualification(cases(), facts(), "2026-05-12T08:00:00+00:00", "2026-05-12T08:04:06+00:00")


def rehearsal() -> Qualification:
    """The same on a CPU, with synthetic weights; there the output is the reference itself."""
    known = facts(CPU, SYNTHETIC, command="pytest")
    made = cases(scale=0.0, milliseconds=640.0)
    return dataclasses.replace(qualified(), cases=made, facts=known)


def failed() -> Qualification:
    """A run in which things went wrong, each in its own way."""
    broken = agreement(8, scale=7.0)
    whole = list(cases())
    by_id = {case.id: number for number, case in enumerate(whole)}

    def change(name: str, **values: Any) -> None:
        number = by_id[f"tests/{name}"]
        whole[number] = dataclasses.replace(whole[number], **values)

    change(
        "test_precision.py::test_agreement[b8]",
        status=Status.FAIL,
        figures=broken.figures(),
        records={
            "precision": plain(broken.as_json()),
            "layers": plain(divergence(12).as_json()),
            "budget": plain(budget().as_json()),
        },
        sentences=tuple(
            sentence
            for figure in broken.figures()
            for limit in all_limits(BATCH_SIZES).values()
            if limit.name == figure.name
            for sentence in limit.judge(figure, "batch 8").sentences
        ),
    )
    wrong = coverage("GELU", "gelu", "stage1", "float16", 41.7)
    wrong = dataclasses.replace(wrong, status="wrong", reason="the error is 41.7 times its bound")
    change(
        "test_operators.py::test_operator[gelu-stage1-float16]",
        status=Status.FAIL,
        figures=wrong.figures(),
        records={"operators": plain(wrong.as_json())},
        sentences=("GELU (gelu-stage1-float16) on npu:0 is wrong",),
    )
    change(
        "test_operators.py::test_operator[linear-stage3-bfloat16]",
        status=Status.HANG,
        figures=(),
        limits=(),
        records={},
        sentences=("did not end within 900 s (--case-timeout) and was ended",),
    )
    change(
        "test_environment.py::test_health",
        status=Status.NOT_RUN,
        required=False,
        reason="npu-smi is not installed, so nothing is known of this card's health",
    )
    none_left = dataclasses.replace(
        throughput(16),
        seconds=(),
        out_of_memory="NPU out of memory. Tried to allocate 2.00 GiB",
        peak_memory=Figure("peak_memory_bytes", None, "B", "out of memory"),
    )
    change(
        "test_throughput.py::test_throughput[b16]",
        status=Status.FAIL,
        figures=none_left.figures(),
        limits=(),
        records={
            "throughput": plain(none_left.as_json()),
            "power": performance.power("throughput b16", 254.0, 0.43, throttled=True),
        },
        sentences=("batch size 16 does not fit: NPU out of memory",),
    )
    change(
        "test_latency.py::test_latency",
        status=Status.INCONCLUSIVE,
        figures=latency(9).figures(),
        records={"latency": plain(latency(9).as_json())},
        doubts=("unstable: robust coefficient of variation 14.0%",),
        reason="9 samples were taken, 64 are needed",
    )

    def measured(name: str, record: Any, *sentences: str, **values: Any) -> None:
        change(
            name,
            status=Status.FAIL,
            figures=record.figures(),
            sentences=sentences,
            records={record.kind: plain(record.as_json()), **values},
        )

    measured(
        "test_precision.py::test_strict[default-b8]",
        evidence.strict("default", 8, 9.1, INPUTS),
        "strict error is 9.1, must be <= 1",
    )
    measured("test_precision.py::test_strict[ieee-b8]", evidence.unlike("ieee", 8), "no such shape")
    measured("test_gate.py::test_mutants[ieee]", evidence.panel("ieee", 2), "mutants missed is 2")
    measured(
        "test_math_mode.py::test_math_mode[ieee]",
        evidence.probed("ieee", "erf", 11),
        "GELU computes the erf form, the device declares tanh",
    )
    measured(
        "test_determinism.py::test_repeats_deterministic[default]",
        evidence.repeats(True, 2),
        "2 of 9 repeats differ from the first",
        varying=plain(evidence.varying().as_json()),
    )
    measured(
        "test_training.py::test_step[default]",
        evidence.step("in regime default", 3.3),
        "gradient error in limits is 3.3, must be <= 1",
    )
    change(
        "test_training.py::test_fine_tune",
        status=Status.HANG,
        figures=(),
        records={},
        sentences=("did not end within 900 s (--case-timeout) and was ended",),
    )
    for name, status, sentences, records in (
        (
            "test_replicates.py::test_replicates",
            Status.FAIL,
            ("latency p50 is at least 35.57 ms, must be <= 35 ms",),
            {"replicates": performance.replicates(9, "FAIL", 35.0)},
        ),
        (
            "test_modes.py::test_recommendation",
            Status.PASS,
            (),
            {"recommendation": performance.nothing_recommended()},
        ),
        (
            "test_modes.py::test_mode[fp16]",
            Status.HANG,
            ("did not end within 900 s (--case-timeout) and was ended",),
            {},
        ),
        (
            "test_baseline.py::test_baseline",
            Status.FAIL,
            ("latency p50 is 8.3 % slower (6.1 % to 10.4 %)",),
            {"comparison": performance.comparison(True)},
        ),
        (
            "test_bounds.py::test_bounds",
            Status.PASS,
            (),
            {"bounds": performance.bounds(False)},
        ),
        ("test_cold_start.py::test_cold_start", Status.FAIL, ("the child process died",), {}),
    ):
        change(name, status=status, sentences=sentences, records=records)
    name, *rest = evidence.SIGNATURES[0]
    measured(
        f"test_signatures.py::test_signature[{evidence.signature(name, *rest).id}]",
        evidence.signature(name, *rest, "wrong"),
        "aten::convolution is wrong",
    )
    measured(
        "test_signatures.py::test_network_is_covered",
        evidence.network(("convolution",)),
        "2 compute signatures are not covered",
    )
    change(
        f"test_signatures.py::test_signature[{evidence.signature(*evidence.SIGNATURES[3]).id}]",
        status=Status.HANG,
        figures=(),
        limits=(),
        records={},
        sentences=("did not end within 900 s (--case-timeout) and was ended",),
    )
    whole.append(
        _case(
            "test_soak.py::test_soak",
            "soak",
            measured=evidence.soak(1),
            status=Status.FAIL,
            sentences=("1 of 459 forwards differs from the first",),
        )
    )
    known = facts(limits=limits_fact({"mean_cosine_similarity": 0.99}))
    known["selection"]["on_demand"].remove(SOAK)
    return dataclasses.replace(qualified(), cases=tuple(whole), facts=known)


def subset() -> Qualification:
    """A smoke run: most cases were deselected."""
    kept = tuple(case for case in cases() if "smoke" in case.markers)
    gone = [case.id for case in cases() if "smoke" not in case.markers]
    known = facts(
        selection={
            "selected": [case.id for case in kept],
            "deselected": gone,
            "on_demand": [SOAK],
            "uncollected": ["test_inference.py"],
            "reasons": [f"{len(gone)} cases were deselected by -m 'smoke'"],
        },
        command="pytest -m smoke",
    )
    return dataclasses.replace(qualified(), cases=kept, facts=known)


def crashed() -> Qualification:
    """A run that died before it had made a network or opened a device."""
    return Qualification(
        (_case("test_environment.py::test_versions", "environment"),),
        {
            "settings": plain(Settings()),
            "command": "pytest",
            "interrupted": "the process was killed, or died, before it could write its reports",
        },
        "2026-05-12T08:00:00+00:00",
        "2026-05-12T08:00:09+00:00",
    )


def empty() -> Qualification:
    """A run of which nothing is known but that it began."""
    return Qualification((), {}, "2026-05-12T08:00:00+00:00", "2026-05-12T08:00:00+00:00")


def hostile() -> Qualification:
    """A run in which every text that comes from outside tries to be markup."""
    attack = '<script>alert("1")</script>|`*_[x](y)\n</table>&'
    card = dataclasses.replace(NPU, name=attack, bus_id=attack)
    weights = dataclasses.replace(SYNTHETIC, note=attack, path=attack)
    known = facts(card, weights, command=f"pytest --image {attack}", interrupted=attack)
    known["subject"]["model"] = attack
    known["environment"]["versions"] |= {"timm": attack, attack: attack}
    known["environment"]["telemetry"]["processes"] = [attack]
    known["environment"]["variables"][attack] = attack
    known["environment"][attack] = attack
    totals = {attack: {"match": 2, "effect": 1}}
    known["fusion"] = {"found": True, "text": attack, "files": [{"path": attack, "totals": totals}]}
    known["selection"] = {
        "selected": [], "deselected": [attack], "on_demand": [attack], "uncollected": [attack],
        "reasons": [attack],
    }  # fmt: skip
    known["suite"]["commit"] = attack
    known["reference"] = {
        **known["reference"], "device": attack, "source": attack, "notes": [attack],
        "stack": {attack: attack},
    }  # fmt: skip
    bad = _case(
        f"test_throughput.py::test_throughput[{attack}]",
        "performance",
        attack,
        status=Status.FAIL,
        figures=(Figure(attack, attack, attack),),
        sentences=(attack,),
        doubts=(attack,),
        claim=attack,
    )
    skipped = _case(
        "test_operators.py::test_gone", "operators", status=Status.NOT_RUN, reason=attack
    )
    row = RowAgreement(attack, 1e-3, 1e-4, 0.9999, 1e-3)
    named = dataclasses.replace(agreement(1), rows=(row,))
    precision = _case("test_precision.py::test_agreement[b1]", "precision", measured=named)
    step = dataclasses.replace(divergence(3).steps[2], function=attack, module=attack, words=attack)
    parted = dataclasses.replace(divergence(), regime=attack, arithmetic=attack, steps=(step,))
    parted = dataclasses.replace(parted, parts=(dataclasses.replace(parted.parts[0], name=attack),))
    explained = dataclasses.replace(budget(), regime=attack, arithmetic=attack, rounding=attack)
    precision.records.update(layers=plain(parted.as_json()), budget=plain(explained.as_json()))
    operator = dataclasses.replace(coverage("GELU", "gelu", "a", "b"), family=attack, reason=attack,
                                   status="wrong", aten=(attack,))  # fmt: skip
    made = _case("test_operators.py::test_operator[x]", "operators", measured=operator)
    inference = _case("test_inference.py::test_extract", "inference",
                      records={"inference": {"unreadable": [attack], attack: attack}})  # fmt: skip
    more = (bad, skipped, precision, made, inference, *poisoned(attack))
    return dataclasses.replace(qualified(), cases=more, facts=known)


def poisoned(attack: str) -> list[Case]:
    """Cases of what a pass rests on in whose records every text is an attack."""

    def everywhere(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            kept = {name: everywhere(item, name) for name, item in value.items()}
            named = key in ("heads", "before", "after", "skipped_changed", "scales_after_skips")
            return {attack: next(iter(kept.values()))} if named else kept
        if isinstance(value, list):
            return [everywhere(item, key) for item in value]
        read = key in ("mode", "dtype", "conv", "matmul", "field", "relation", "status")
        number = value in ("nan", "inf", "-inf")
        return value if read or number or not isinstance(value, str) else attack

    made = []
    fit = _case("test_soak.py::test_soak", "soak", measured=evidence.soak(1))
    late = _case(
        "test_determinism.py::test_repeats_as_set_up[b]", measured=evidence.repeats(True, 1)
    )
    late.records["varying"] = plain(evidence.varying().as_json())
    timed = [case for case in cases() if "performance" in case.markers]
    for case in (*gates(), *training(), *signatures(), *timed, fit, late):
        records = {kind: everywhere(record) for kind, record in case.records.items()}
        made.append(dataclasses.replace(case, records=records, sentences=(attack,)))
    for name in (
        "test_precision.py::test_strict",
        "test_gate.py::test_mutants",
        "test_gate.py::test_host",
        "test_math_mode.py::test_strict_switch",
        "test_determinism.py::test_batch_invariance",
        "test_training.py::test_step",
        "test_signatures.py::test_network_is_covered",
        "test_soak.py::test_soak",
        "test_cold_start.py::test_cold_start",
        "test_modes.py::test_mode",
    ):
        made.append(_case(f"{name}[{attack}]", status=Status.NOT_RUN, reason=attack))
    hung = "test_signatures.py::test_signature[mm-training-2x2]"
    made.append(_case(hung, "operators", status=Status.HANG, sentences=(attack,)))
    return made


def not_finite() -> Qualification:
    """A run whose device gave NaN and infinities."""
    values = tuple(
        dataclasses.replace(figure, value=math.nan if "cosine" in figure.name else math.inf)
        for figure in agreement(4).values
    )
    rows = (RowAgreement("black", math.inf, math.inf, math.nan, math.nan), *agreement(3).rows)
    record = Agreement(4, values, rows)
    case = _case(
        "test_precision.py::test_agreement[b4]",
        "precision",
        measured=record,
        status=Status.FAIL,
        sentences=("min cosine similarity is nan, must be > 0.999",),
    )
    strict = _case(
        "test_precision.py::test_strict[default-b4]",
        "precision",
        measured=evidence.strict("default", 4, math.nan, INPUTS),
        status=Status.FAIL,
        sentences=("strict error is nan, must be <= 1",),
    )
    step = _case(
        "test_training.py::test_step[default]",
        "training",
        measured=evidence.step("in regime default", math.inf),
        status=Status.FAIL,
    )
    return dataclasses.replace(qualified(), cases=(case, strict, step))


RUNS = {
    made.__name__: made
    for made in (
        qualified, rehearsal, failed, subset, crashed, empty, hostile, not_finite,
    )
}  # fmt: skip


def verdict(qualification: Qualification) -> RunVerdict:
    """Its verdict."""
    return conclude(qualification)


def write_pages(folder: Path) -> None:
    """Write every sample's reports below `folder`, to look at them in a browser."""
    from fixtures.core import report

    for name, made in RUNS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        report.write_all(folder / name, made(), verdict(made()))

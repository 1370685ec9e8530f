"""Modes: the table, what shows that a mode ran, what counts, the choice; and runs of the suite."""

import dataclasses
import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core import modes, timed
from fixtures.core.backends import BACKENDS, backend
from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.backends.simulated_cann.backend import SimulatedNpuBackend
from fixtures.core.fresh import Fresh, Rate
from fixtures.core.latency import Work
from fixtures.core.modes import (
    EAGER,
    MODES,
    Budget,
    Evidence,
    ModeResult,
    Precision,
    Task,
    TooSlow,
    best_known_batch,
    command,
    dispatched,
    evidence,
    judged,
    measured,
    of_process,
    outputs_of,
    recommend,
    running,
    uncertainty,
    why_it_failed,
)
from fixtures.core.records import Figure, Limit, Status
from fixtures.core.settings import Settings
from fixtures.core.steady import WarmUp
from fixtures.core.strict import Strict
from selftest.conftest import SMALL
from selftest.simulated import CARDS, folder, needs_cards

# --- the table ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_every_mode_has_an_arithmetic_and_a_way(mode):
    assert mode.arithmetic.name == mode.regime
    assert mode.how in ("eager", "channels-last", "compile", "graph")
    assert mode.claim


def test_the_eager_mode_comes_first():
    assert next(iter(MODES)) == EAGER


@pytest.mark.parametrize("name", BACKENDS)
def test_backends_declare_modes_of_the_table(name):
    chosen = backend(name)
    assert set(chosen.modes) <= set(MODES)
    assert set(chosen.tries()) <= set(chosen.modes)
    assert set(chosen.unproven_modes) <= set(chosen.modes)
    assert not set(chosen.mode_refusals) & set(chosen.modes)
    assert EAGER in chosen.tries()
    assert bool(chosen.graph_class) == ("graph" in chosen.modes)
    for mode in MODES:
        refusal = chosen.mode_refusal(mode)
        assert bool(refusal) is (mode not in chosen.modes)


def test_simulated_cards_say_why_they_capture_and_compile_nothing():
    declared = SimulatedNpuBackend
    for name in ("graph", "graph-bf16", "compile", "compile-bf16"):
        assert name not in declared.modes
        assert "simulated" in declared.mode_refusals[name]


# --- what shows that a mode ran -----------------------------------------------------------------


def network(torch):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.GELU(), torch.nn.Conv2d(8, 8, 3)]
    rest = [torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, *rest).eval()


def images(torch, count=8):
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(1))


class Capturing(CpuBackend):
    """A CPU whose backend captures as `replay` has it."""

    modes = (*CpuBackend.modes, "graph", "graph-bf16")

    def __init__(self, replay):
        self.replay = replay

    def capture(self, index, forward):
        output = forward()
        return (lambda: self.replay(forward, output)), output


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def fused():
    """`fused(call)`: the call as one operator, as a compiled forward or a replay is."""
    import torch

    calls = []

    @torch.library.custom_op("selftest::fused", mutates_args=())
    def one(number: int, inputs: torch.Tensor) -> torch.Tensor:
        return calls[number](inputs)

    def make(call):
        calls.append(call)
        number = len(calls) - 1
        return lambda inputs: one(number, inputs)

    return make


def seen(torch, mode, device=None, model=None, compiler=None):
    """The evidence of a mode on a small network."""
    device = device or CpuBackend().open(0)
    model = model or network(torch)
    with running(MODES[mode], model, device, compiler) as run:
        forward = run.forward(images(torch))
        return evidence(run, forward, images(torch).flip(0))


def test_operators_are_counted_once_each(torch):
    model, inputs = network(torch), images(torch)
    with torch.inference_mode():
        assert dispatched(lambda: model(inputs)) == 6


def handed_back(gm, inputs):
    return gm.forward


def test_a_compiler_that_hands_the_network_back_is_a_fall_back(torch):
    found = seen(torch, "compile", compiler=handed_back)
    assert found.compiled
    assert found.asked == found.eager
    assert "ran in eager mode" in found.fell_back


def test_a_network_that_torch_compile_leaves_alone_is_a_fall_back(torch):
    model = network(torch)
    model.forward = torch._dynamo.disable(model.forward)
    found = seen(torch, "compile", model=model, compiler=handed_back)
    assert found.compiled == 0
    assert "compiled nothing" in found.fell_back


def test_a_network_that_breaks_says_so(torch):
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network(torch)

        def forward(self, inputs):
            inputs = self.inner[:2](inputs)
            torch._dynamo.graph_break()
            return self.inner[2:](inputs)

    found = seen(torch, "compile", model=Broken(), compiler=handed_back)
    assert found.fell_back
    assert any("torch.compile broke the network" in told for told in found.doubts)


def test_a_compiled_network_is_no_fall_back(torch, fused):
    call = fused(network(torch))

    def compiler(gm, inputs):
        def compiled(*given):
            (pictures,) = (each for each in given if each.shape[1:] == (3, 12, 12))
            return (call(pictures),)

        return compiled

    found = seen(torch, "compile", compiler=compiler)
    assert found.compiled == 1
    assert found.asked < found.eager
    assert found.fell_back == ""


def test_a_replay_that_computes_again_is_a_fall_back(torch):
    def replay(forward, output):
        output.copy_(forward())

    found = seen(torch, "graph", Capturing(replay).open(0))
    assert found.called
    assert found.answers
    assert "own forward" in found.fell_back


def test_a_replay_of_single_operators_is_a_fall_back(torch):
    model = network(torch)

    def replay(forward, output):
        inputs = forward.__closure__  # the wrapper's network and buffer
        cells = {type(cell.cell_contents).__name__: cell.cell_contents for cell in inputs}
        output.copy_(cells["Running"].model(cells["Tensor"]))

    found = seen(torch, "graph", Capturing(replay).open(0), model)
    assert found.called == 0
    assert "one by one" in found.fell_back


def test_a_replay_that_ignores_its_input_is_none(torch):
    found = seen(torch, "graph", Capturing(lambda forward, output: None).open(0))
    assert found.called == 0
    assert "same output for another input" in found.fell_back


def test_a_replay_is_no_fall_back(torch, fused):
    model = network(torch)
    call = fused(model)

    def replay(forward, output):
        cells = [cell.cell_contents for cell in forward.__closure__]
        (inputs,) = [each for each in cells if isinstance(each, torch.Tensor)]
        output.copy_(call(inputs))

    found = seen(torch, "graph", Capturing(replay).open(0), model)
    assert found.fell_back == ""
    assert found.asked < found.eager


@pytest.mark.parametrize("mode", ["fp16", "bf16", "channels-last", "autocast-bf16", "ieee"])
def test_plain_modes_are_no_fall_back(torch, mode):
    assert seen(torch, mode).fell_back == ""


def test_a_half_mode_that_gives_another_format_is_a_fall_back():
    found = Evidence(format="float32", expected="bfloat16")
    assert found.fell_back == "the output is in float32, not in bfloat16"
    assert "channels-last" in Evidence(strides=False).fell_back


def test_outputs_are_those_of_the_mode(torch):
    model, device = network(torch), CpuBackend().open(0)
    with running(MODES["bf16"], model, device) as run:
        forward = run.forward(images(torch, 4))
        got = outputs_of(forward, images(torch).split(4), run)
    assert got.dtype == torch.float32
    with torch.inference_mode():
        wanted = network(torch).to(torch.bfloat16)(images(torch).to(torch.bfloat16)).float()
    assert torch.allclose(got, wanted, atol=1e-2)


@pytest.mark.slow
def test_torch_compile_itself_is_no_fall_back(torch):
    assert seen(torch, "compile").fell_back == ""


# --- what counts --------------------------------------------------------------------------------

LIMIT = Limit.row("strict_error", "<=", 1.0, "a selftest")


def strict(error, device_error=1e-3, emulated=1e-3):
    values = (
        Figure("strict_error", error),
        Figure("device_error", device_error),
        Figure("emulated_error", emulated),
    )
    return Strict("bf16", "bfloat16", 8, values)


def test_the_strict_gate_decides_what_counts():
    assert judged(strict(0.5), [LIMIT], True) == Precision(0.5, True, "")
    wrong = judged(strict(3.0), [LIMIT], True)
    assert not wrong.passed
    assert "strict error is 3" in wrong.sentence
    missing = judged(Strict("bf16", "", 8, ()), [LIMIT], False)
    assert not missing.passed


def test_a_half_mode_as_exact_as_float32_is_a_fall_back():
    found = judged(strict(1e-4, 1e-7), [LIMIT], True)
    assert found.passed
    assert found.too_fine
    result = ModeResult(MODES["autocast-bf16"], found)
    assert "as exact as float32's" in result.fell_back
    assert not result.counts


FINE = Precision(0.5, True, "")


def result(name, latency_ms=10.0, rate=100.0, batch=16, eager=None, **others):
    return ModeResult(
        MODES[name],
        others.pop("precision", FINE),
        latency_s=(latency_ms / 1e3,) * 20,
        batch_size=batch,
        throughput_s=(batch / rate,) * 5,
        eager=eager,
        command=f"pytest tests/test_modes.py --modes {name}",
        **others,
    )


def test_figures_derive_from_samples():
    eager = result(EAGER)
    fast = result("bf16", 5.0, 400.0, eager=eager)
    assert fast.latency_ms == pytest.approx(5.0)
    assert fast.samples_per_second == pytest.approx(400.0)
    assert fast.speedup("latency") == pytest.approx(2.0)
    assert fast.speedup("throughput") == pytest.approx(4.0)
    assert eager.speedup("latency") == 1.0
    told = fast.as_json()
    assert told["counts"] is True
    assert told["fell_back"] is False
    assert told["speedup_throughput"] == pytest.approx(4.0)
    assert {figure.name for figure in fast.figures()} >= {"mode_latency_ms", "speedup_latency"}


def test_every_figure_that_is_missing_has_a_reason():
    empty = ModeResult(MODES["compile"], missing={"precision": "no compiler"})
    told = empty.as_json()
    nulls = [key for key, value in told.items() if value is None]
    for key in nulls:
        if key not in ("batch_size", "peak_memory_bytes", "warm_up_ms"):
            assert told["reasons"].get(key) or key.startswith("operators"), key
    assert told["precision"]["sentence"] == "no compiler"
    assert all(figure.value is not None or figure.reason for figure in empty.figures())


def test_throughput_at_another_batch_size_is_not_compared():
    fast = result("bf16", batch=8, eager=result(EAGER, batch=16))
    assert fast.speedup("throughput") is None
    assert "not measured alike" in fast.reasons["speedup_throughput"]


def test_mfu_needs_a_peak_and_cannot_be_made_up():
    known = {"eager": None, "never_on_hardware": True, "command": "pytest"}
    work = Work(10**9, 1e12, "bfloat16", "a selftest")
    assert result("bf16").completed(work=work, **known).mfu == pytest.approx(0.1)
    none = Work(10**9, reason="no paper peak of a card is known")
    unknown = result("bf16").completed(work=none, **known)
    assert unknown.mfu is None
    assert "no paper peak" in unknown.as_json()["reasons"]["mfu"]
    assert unknown.as_json()["never_on_hardware"] is True


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"rate": 50_000.0}, "16 pictures would be 50 TFLOP/s"),
        ({"latency_ms": 0.1}, "1 picture would be 10 TFLOP/s"),
    ],
)
def test_a_mode_that_is_faster_than_the_chip_does_not_count(times, words):
    known = {"never_on_hardware": False, "command": "pytest"}
    work = Work(10**9, 1e12, "bfloat16", "a selftest")
    eager = result(EAGER).completed(eager=None, work=work, **known)
    assert eager.counts
    for name in ("bf16", "task-queue-2"):
        found = result(name, **times).completed(eager=eager, work=work, **known)
        assert found.verdict().status is Status.INVALID
        assert words in found.refusal
        assert found.speedup("throughput") is None
        assert recommend([eager, found]).throughput.mode == EAGER
        winograd = dataclasses.replace(work, saving=100.0)
        assert result(name, **times).completed(eager=eager, work=winograd, **known).counts
        unsure = dataclasses.replace(work, ceiling=1e15)
        doubtful = result(name, **times).completed(eager=eager, work=unsure, **known)
        assert doubtful.counts
        assert "nobody confirmed" in doubtful.doubts[-1]


# --- the choice ---------------------------------------------------------------------------------


def test_the_fastest_that_counts_is_recommended_with_its_command():
    eager = result(EAGER)
    wrong = result("fp16", 1.0, 900.0, eager=eager, precision=Precision(9.0, False, "wrong"))
    fell = result("graph", 1.0, 900.0, eager=eager, evidence=Evidence(called=1))
    good = result("bf16", 5.0, 400.0, eager=eager)
    found = recommend([eager, wrong, good, fell])
    assert found.latency.mode == found.throughput.mode == "bf16"
    assert found.throughput.speedup == pytest.approx(4.0)
    assert found.throughput.command.endswith("--modes bf16")
    assert any(
        told.startswith("fp16 does not count: its outputs are wrong") for told in found.doubts
    )
    assert any(told.startswith("graph does not count: the replay") for told in found.doubts)


def test_without_the_eager_mode_nothing_is_recommended():
    for results in ([], [result("bf16")]):
        found = recommend(results)
        assert found.latency is found.throughput is None
        assert "eager mode was not measured" in found.sentence
    bad = result(EAGER, precision=Precision(3.0, False, "wrong"))
    assert "eager mode does not count" in recommend([bad, result("bf16", eager=bad)]).reason
    assert recommend([]).as_json()["latency"] is None
    assert all(figure.reason for figure in recommend([]).figures())


def test_what_differs_by_noise_goes_to_the_earlier_one():
    eager = result(EAGER)
    assert recommend([eager, result("bf16", 9.9, 101.0, eager=eager)]).latency.mode == EAGER
    noisy = dataclasses.replace(eager, latency_s=tuple(0.01 + 0.001 * (n % 5) for n in range(20)))
    quick = dataclasses.replace(result("bf16"), eager=noisy, latency_s=(0.0117,) * 20)
    assert recommend([noisy, quick]).latency.mode == EAGER


def test_another_process_must_be_faster_by_what_processes_differ():
    eager = result(EAGER)

    def chosen(there, here=100.0):
        others = [result("bf16", 1000 / here, here), result("task-queue-2", 1000 / there, there)]
        found = recommend([eager, *(dataclasses.replace(each, eager=eager) for each in others)])
        assert found.latency.mode == found.throughput.mode
        return found.latency.mode

    assert chosen(104.0) == EAGER
    assert chosen(106.0) == "task-queue-2"
    assert chosen(107.0, here=103.0) == "bf16"
    assert chosen(109.0, here=103.0) == "task-queue-2"


@given(
    st.lists(
        st.tuples(st.floats(0.1, 100), st.floats(1, 1e4), st.booleans()), min_size=1, max_size=8
    )
)
def test_no_choice_is_slower_than_eager_or_does_not_count(rows):
    names = [name for name in MODES if name != EAGER]
    eager = result(EAGER)
    results = [eager]
    for name, (latency, rate, right) in zip(names, rows, strict=False):
        precision = Precision(0.5, right, "" if right else "wrong")
        results.append(result(name, latency, rate, eager=eager, precision=precision))
    found = recommend(results)
    for choice in (found.latency, found.throughput):
        assert choice.speedup >= 1 - modes.CLOSE
        assert next(each for each in results if each.mode.name == choice.mode).counts


@given(st.lists(st.floats(0.9, 1.1), min_size=3, max_size=50))
def test_uncertainty_is_a_share(seconds):
    assert 0 <= uncertainty(seconds) < 1
    assert uncertainty(seconds[:2]) == 0.0


def test_the_best_known_batch():
    figures = [("throughput_b1", 18.0), ("throughput_b8", 99.0), ("throughput_b16", 100.0)]
    assert best_known_batch(figures, (1, 4)) == (8, 99.0)
    assert best_known_batch([*figures, ("sweep_b64", 200.0)], (1,)) == (64, 200.0)
    assert best_known_batch([("throughput_b4", "out of memory")], (1, 16)) == (16, None)


def test_the_command_measures_the_same_again():
    plain = command(Settings(), "npu:0", MODES["bf16"], 16)
    assert plain == "pytest tests/test_modes.py --device npu:0 --modes bf16 --batch-sizes 16"
    changed = Settings(
        num_classes=10, seed=3, simulate=1, faults='[{"kind": "x"}]', limits={"strict_error": 0.5}
    )
    words = shlex.split(command(changed, "npu:0", MODES["bf16"], 8))
    assert words[4:13] == [
        *("--num-classes", "10", "--seed", "3", "--limit", "strict_error=0.5", "--simulate", "1"),
        '--faults=[{"kind": "x"}]',
    ]


def test_a_budget_is_shared_and_chooses_a_batch():
    assert Budget.share(100).seconds == modes.LEAST_S
    assert Budget.share(1).seconds == modes.MOST_S
    assert Budget(6.0).batch_size(16, lambda size: 0.001 * size) == 16
    assert Budget(6.0).batch_size(16, lambda size: 0.1 * size) == 4
    assert Budget(6.0).batch_size(16, lambda size: 9.0) == 1


# --- measuring ----------------------------------------------------------------------------------


class Patient(Budget):
    """Whatever else this machine does."""

    def allows(self, seconds):
        return True


def task(torch, judge=lambda got: FINE, **others):
    pool = images(torch, 32)
    return Task(
        **{
            "images": lambda count: pool[:count],
            "judge": judge,
            "apart": lambda: Limit.row("apart", "<=", 1e-4, "a selftest"),
            "batch_size": 4,
            "distinct": 8,
            "budget": Patient(1.0),
            **others,
        }
    )


def test_a_mode_is_judged_and_then_timed(torch):
    given = []

    def judge(got):
        given.append(got)
        return FINE

    chosen = task(torch, judge)
    found = measured(MODES[EAGER], network(torch), CpuBackend().open(0), chosen)
    assert found.counts
    alone, many = chosen.blocks.done  # where the card's power and clocks are looked at
    assert (alone.name, alone.pictures) == ("eager b1", len(found.latency_s))
    assert many.name == "eager throughput b4"
    assert many.pictures == 4 * found.calls * len(found.throughput_s)
    assert len(given[0]) == 8
    with torch.inference_mode():
        wanted = network(torch)(images(torch, 32)[:8])
    assert torch.allclose(given[0], wanted, atol=1e-6)
    assert len(found.latency_s) >= modes.LEAST_SAMPLES
    assert len(found.throughput_s) >= modes.LEAST_BLOCKS
    assert found.batch_size == 4
    assert found.samples_per_second > 0


def test_a_mode_that_the_gate_stops_is_not_timed(torch):
    wrong = Precision(5.0, False, "strict error is 5")
    chosen = task(torch, lambda got: wrong)
    found = measured(MODES["bf16"], network(torch), CpuBackend().open(0), chosen)
    assert not found.counts
    assert not found.latency_s
    assert found.reasons["latency_ms"].startswith("its outputs are wrong: strict error is 5")


def test_outputs_that_change_once_they_are_timed_do_not_count(torch):
    model = network(torch)
    state = {"judged": False}
    forward = model.forward

    def judge(got):
        state["judged"] = True
        return FINE

    model.forward = lambda inputs: forward(inputs) * (2.0 if state["judged"] else 1.0)
    found = measured(MODES[EAGER], model, CpuBackend().open(0), task(torch, judge))
    assert not found.counts
    assert "apart" in found.refusal


def test_outputs_that_are_wrong_while_they_are_timed_do_not_count(torch, monkeypatch):
    """Right before and after: only the timed calls themselves show it."""
    model = network(torch)
    state = {"timed": False}
    forward, sample = model.forward, timed.sample

    def timing(device, call, count):
        state["timed"] = True
        taken = sample(device, call, count)
        state["timed"] = False
        return taken

    model.forward = lambda inputs: forward(inputs) * (2.0 if state["timed"] else 1.0)
    monkeypatch.setattr(timed, "sample", timing)
    found = measured(MODES[EAGER], model, CpuBackend().open(0), task(torch))
    assert "apart" in found.refusal


def test_a_warm_up_that_never_came_to_rest_is_a_doubt(torch, monkeypatch):
    monkeypatch.setattr(timed, "warm_up", lambda call, plan: WarmUp((0.01,) * 20 + (0.02,) * 10))
    found = measured(MODES[EAGER], network(torch), CpuBackend().open(0), task(torch))
    assert any(doubt.startswith("NOT STEADY after 30 calls") for doubt in found.doubts)
    monkeypatch.setattr(timed, "warm_up", lambda call, plan: WarmUp((0.01,) * 30))
    found = measured(MODES[EAGER], network(torch), CpuBackend().open(0), task(torch))
    assert not any(doubt.startswith("NOT STEADY") for doubt in found.doubts)


@pytest.mark.parametrize("patience", [0.0, float("inf")])
def test_what_takes_long_to_compile_is_not_compiled_twice(torch, fused, patience):
    call = fused(network(torch))

    def compiler(gm, inputs):
        def compiled(*given):
            (pictures,) = (each for each in given if each.shape[1:] == (3, 12, 12))
            return (call(pictures),)

        return compiled

    backend = CpuBackend()
    backend.compile_backend = compiler
    chosen = task(torch, compiling_s=patience)
    found = measured(MODES["compile"], network(torch), backend.open(0), chosen)
    assert found.counts, found.refusal
    assert found.samples_per_second
    assert bool(found.latency_s) is (patience > 0)
    assert bool(found.latency_s) is ("latency_ms" not in found.missing)


def test_a_mode_that_is_far_too_slow_says_so(torch):
    chosen = task(torch, budget=Budget(1e-6))
    with pytest.raises(TooSlow, match="longer than"):
        measured(MODES[EAGER], network(torch), CpuBackend().open(0), chosen)


def test_a_fresh_process_is_judged_as_any_other(torch):
    chosen = task(torch)
    rows = tuple(map(tuple, torch.eye(8).tolist()))
    done = Fresh(
        samples_s=(0.01,) * 20,
        throughput=(Rate(4, 2, (0.08,) * 3, 1000),),
        outputs={"b8": rows, "last_forward": rows[:1]},
        facts={"TASK_QUEUE_ENABLE": "2"},
    )
    found = of_process(MODES["task-queue-2"], done, chosen)
    assert found.counts, found.refusal
    assert found.latency_ms == pytest.approx(10.0)
    assert found.samples_per_second == pytest.approx(100.0)
    for change, words in (
        ({"error": "it was killed"}, "it was killed"),
        ({"outputs": {}}, "no outputs to judge"),
        ({"outputs": {"b8": rows}}, "no timed output"),
        ({"outputs": {"b8": rows, "last_forward": rows[1:2]}}, "apart"),
        ({"outputs": {**done.outputs, "b4": rows[1:5]}}, "at batch 4"),
        ({"facts": {}}, "saw TASK_QUEUE_ENABLE unset, not as 2"),
        ({"facts": {"TASK_QUEUE_ENABLE": "0"}}, "saw TASK_QUEUE_ENABLE as 0, not as 2"),
    ):
        found = of_process(MODES["task-queue-2"], dataclasses.replace(done, **change), chosen)
        assert not found.counts
        assert words in found.refusal
    assert found.fell_back
    larger = {"outputs": {**done.outputs, "b12": (*rows, *rows[:4])}}
    chosen = task(torch, batch_size=12)
    assert of_process(MODES["task-queue-2"], dataclasses.replace(done, **larger), chosen).counts
    wrong = task(torch, lambda got: Precision(5.0, False, "strict error is 5"))
    assert not of_process(MODES["task-queue-2"], done, wrong).latency_s


def test_what_stops_a_mode_is_one_sentence():
    missing = RuntimeError(
        "No working C++ compiler found in torch._inductor.config.cpp.cxx: (None,)"
    )
    told = why_it_failed(MODES["compile"], missing, "long words")
    assert told == "torch.compile needs a C++ compiler on this host and found none: install g++"
    assert why_it_failed(MODES["graph"], ValueError("x"), "x") == "capturing the forward failed: x"
    assert why_it_failed(MODES["bf16"], ValueError("x"), "x") == "bf16 failed: x"


# --- under the suite ----------------------------------------------------------------------------

SHORT = """
from fixtures.core import modes, pipeline
modes.WHOLE_S, modes.LEAST_S, modes.MOST_S = 4.0, 0.5, 2.0
modes.Budget.allows = lambda self, seconds: True  # whatever else this machine does
modes.Budget.batch_size = lambda self, wanted, seconds: wanted
pipeline.ROW_S = 0.2
"""


def short(suite, *arguments, **changes):
    (suite.root / "tests" / "conftest.py").write_text(SHORT, encoding="utf-8")
    return suite.run("tests/test_modes.py", "--batch-sizes", "4", *arguments, **changes)


def entries(outcome, kind):
    return [
        (case["status"], case["records"][kind])
        for case in outcome.report["cases"]
        if kind in case["records"]
    ]


@pytest.mark.slow
def test_modes_on_the_cpu(suite):
    # float16 takes long on a CPU; torch.compile is tried above
    wanted = [name for name in MODES if not re.search(r"fp16|compile", name)]
    outcome = short(suite, *SMALL, "--modes", ",".join(wanted))
    assert outcome.code == 0, outcome.out
    found = {entry["name"]: (status, entry) for status, entry in entries(outcome, "mode")}
    assert list(found) == wanted
    for name, (status, entry) in found.items():
        if name in CpuBackend.modes:
            assert status == "PASS", (name, entry["reasons"])
            assert entry["counts"]
            assert entry["latency_ms"] > 0
        else:
            assert status == "UNSUPPORTED"
            assert not entry["counts"]
        assert f"--modes {name} --batch-sizes 4" in entry["command"] or status == "UNSUPPORTED"
    ((status, chosen),) = entries(outcome, "recommendation")
    assert status == "PASS"
    assert chosen["latency"]["speedup"] >= 1 - modes.CLOSE
    ((status, pipe),) = entries(outcome, "pipeline")
    assert status == "PASS"
    rates = {row["name"]: row["samples_per_second"] for row in pipe["rows"]}
    assert rates["device only"]
    assert rates["with preprocessing"]
    assert rates["pinned"] is None


@pytest.mark.slow
@needs_cards
def test_modes_on_a_simulated_card(suite):
    outcome = short(
        suite,
        *CARDS,
        "--simulate",
        "1",
        "--modes",
        "eager,shortcuts,bf16,channels-last,compile,graph,task-queue-2",
        PYTHONPATH=str(folder()),
    )
    assert outcome.code == 0, outcome.out
    found = {entry["name"]: (status, entry) for status, entry in entries(outcome, "mode")}
    for name in ("eager", "shortcuts", "bf16", "task-queue-2"):
        assert found[name][0] == "PASS", found[name]
    assert found["task-queue-2"][1]["never_on_hardware"]
    for name in ("channels-last", "compile", "graph"):
        assert found[name][0] == "UNSUPPORTED"
    ((_, pipe),) = entries(outcome, "pipeline")
    assert all(row["samples_per_second"] for row in pipe["rows"])


WRONG = """
from fixtures.core import regimes

right = regimes.Regime.network


def network(self, model):
    import torch

    made = right(self, model)
    if made is not model:
        with torch.no_grad():
            made.head.fc.weight.mul_(1.1)
    return made


regimes.Regime.network = network
"""


@pytest.mark.slow
def test_a_mode_with_wrong_outputs_does_not_count(suite):
    """Wrong in bfloat16 alone: the eager mode stands, and nothing is recommended beside it."""
    (suite.root / "tests" / "conftest.py").write_text(SHORT + WRONG, encoding="utf-8")
    outcome = suite.run("tests/test_modes.py", "-k", "not pipeline", *SMALL, "--modes", "bf16")
    assert outcome.code == 0, outcome.out
    found = {entry["name"]: (status, entry) for status, entry in entries(outcome, "mode")}
    assert found["eager"][0] == "PASS", outcome.out
    assert found["bf16"][0] == "INCONCLUSIVE"
    assert "its outputs are wrong" in found["bf16"][1]["reasons"]["counts"]
    ((_, chosen),) = entries(outcome, "recommendation")
    assert chosen["throughput"]["mode"] == "eager"

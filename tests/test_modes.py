"""Ways to run the network faster, side by side: each counts only if its outputs stay right.

These cases inform: what does not count, or is not there, is said and fails nothing.
"""

from __future__ import annotations

import math

import pytest

from fixtures import SETTINGS
from fixtures.core import timed
from fixtures.core.backends import asked, likely
from fixtures.core.backends.base import first_line, one_line
from fixtures.core.copies import CorruptCopy
from fixtures.core.gate import DISTINCT
from fixtures.core.modes import (
    EAGER,
    MODES,
    Budget,
    ModeResult,
    Task,
    TooSlow,
    best_known_batch,
    command,
    judged,
    measured,
    of_process,
    recommend,
    why_it_failed,
)
from fixtures.core.pictures import built_in, open_picture
from fixtures.core.pipeline import Pictures, pipeline, threads
from fixtures.core.regimes import REGIMES
from fixtures.core.strict import ABSOLUTE, STRICT

pytestmark = pytest.mark.performance

COMPILING_S = 20.0
"""Where no modes were asked for, batch 1 is left out of one that takes longer to compile."""


def tried(settings):
    """The modes of the run, in the table's order: those asked for, else those of the device."""
    if settings.modes is not None:
        return settings.modes
    chosen = asked(likely(settings.device_name), settings.simulate, settings.faults)
    return tuple(name for name in MODES if name in chosen.tries())


def pytest_generate_tests(metafunc):
    """One case per mode."""
    if "mode" in metafunc.fixturenames:
        names = tried(metafunc.config.stash[SETTINGS])
        metafunc.parametrize("mode", [pytest.param(MODES[name], id=name) for name in names])


@pytest.fixture(scope="module")
def results():
    """What each mode of this run gave, by name."""
    return {}


@pytest.fixture
def informs(record, request):
    """These cases inform; where no times are taken there is nothing to say."""
    record.informs()
    config = request.config
    if hasattr(config, "workerinput") or config.getoption("benchmark_disable", False):
        record.not_run("no times are taken under pytest-xdist or --benchmark-disable")


@pytest.fixture
def task(request, settings, batch, gate, limits, subject, arithmetic, results, blocks):
    """`task(mode)`: what to do with a mode in this run."""
    figures = [pair for item in request.session.items for pair in item.user_properties]
    wanted, rate = best_known_batch(figures, settings.batch_sizes)
    if len(settings.batch_sizes) == 1:  # as in a command that measures a mode again
        (wanted,) = settings.batch_sizes
    budget = Budget.share(len(tried(settings)))
    rows = STRICT + ((ABSOLUTE,) if subject.weights.source == "synthetic" else ())

    def make(mode):
        regime = mode.arithmetic
        declared = arithmetic(regime)

        def judge(got):
            strict = gate.judge(got, regime, declared, len(got))
            return judged(strict, [limits[row.name] for row in rows], regime.half)

        eager = results.get(EAGER)
        fixed = eager.batch_size if eager is not None else None
        return Task(
            images=lambda count: batch(count).images,
            judge=judge,
            apart=lambda: gate.apart(regime, declared),
            # The eager mode chooses what the others are to be compared at.
            batch_size=fixed or wanted,
            # Where both were asked for by name, just that is measured.
            choose=fixed is None and (settings.modes is None or len(settings.batch_sizes) > 1),
            rate=rate,
            compiling_s=COMPILING_S if settings.modes is None else math.inf,
            distinct=DISTINCT,
            budget=budget,
            blocks=blocks,
        )

    return make


@pytest.fixture
def in_process(process_spec, measured_fresh, settings, blocks):
    """`in_process(mode, task)`: what a fresh process measures in it."""

    def measure(mode, task):
        spec = process_spec(
            regime=mode.regime,
            mode=mode.name,
            batch_sizes=tuple(sorted({DISTINCT, task.batch_size})),
            samples=100,
            throughput_sizes=(task.batch_size,),
            environment=dict(mode.environment),
            timeout_s=0.8 * settings.case_timeout_s,
        )
        return measured_fresh(spec, what=f"mode {mode.name}", blocks=blocks)

    return measure


def test_mode(
    mode,
    informs,
    record,
    device,
    device_model,
    settings,
    work,
    task,
    in_process,
    arithmetic,
    results,
):
    """This way to run the network: its outputs in its regime's strict gate, then its times."""
    refusal = device.backend.mode_refusal(mode.name) or mode.arithmetic.refusal(device.backend)
    if refusal:
        record(ModeResult(mode, missing={"precision": refusal}))
        record.unsupported(refusal)
    unproven = mode.name in device.backend.unproven_modes
    why = ""
    try:
        chosen = task(mode)
        if mode.environment:
            found = of_process(mode, in_process(mode, chosen), chosen)
            why = found.missing.get("precision", "")
        else:
            found = measured(mode, device_model, device, chosen)
    except TooSlow as slow:
        why = str(slow)
    except CorruptCopy:
        raise
    except Exception as error:
        if device.backend.device_error(error) is not None:
            raise
        words = one_line(first_line(error), 200)
        if device.backend.is_out_of_memory(error):
            why = f"it does not fit: {words}"
        else:
            why = why_it_failed(mode, error, words)
    if why:
        # outside of the handler, where the error holds the tensors no longer
        device.backend.empty_cache(device.index)
        found = ModeResult(mode, missing={"precision": why})
    found = found.completed(
        eager=results.get(EAGER),
        work=timed.in_arithmetic(work, device, arithmetic(mode.arithmetic)),
        never_on_hardware=unproven,
        command=command(settings, device, mode, found.batch_size or max(settings.batch_sizes)),
    )
    results[mode.name] = found
    verdict = record(found)
    if why:
        record.not_run(why)
    if mode.name == EAGER:
        assert verdict
    if not found.counts:
        record.inconclusive(f"the mode does not count: {found.refusal}")


def test_recommendation(informs, record, results):
    """One setting for latency and one for throughput, with the commands that measure them again."""
    if not results:
        record.not_run("no mode was measured in this run")
    found = recommend(tuple(results.values()))
    record(found)
    if found.latency is None and found.throughput is None:
        record.inconclusive(found.reason)


def test_pipeline(
    informs,
    record,
    device,
    device_model,
    batch,
    transform,
    apart,
    settings,
    request,
    results,
    blocks,
    work,
):
    """Inputs that come from the host, or from real pictures, leave this much of the throughput."""
    eager = results.get(EAGER)
    figures = [pair for item in request.session.items for pair in item.user_properties]
    size = (eager and eager.batch_size) or best_known_batch(figures, settings.batch_sizes)[0]
    workers = threads()
    files = built_in()
    pictures = Pictures(files, open_picture, transform, size, workers)
    try:
        limit = apart(REGIMES["default"])
        images = batch(size).images
        found = pipeline(
            device, device_model, images, pictures, workers, limit, blocks=blocks, work=work
        )
    finally:
        pictures.close()
    verdict = record(found)
    assert verdict

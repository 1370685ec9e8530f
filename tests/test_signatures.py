"""Every operator that the network dispatches, at its own shapes, strides and format."""

from __future__ import annotations

import re

import pytest

import fixtures
from fixtures.core import signatures, trace
from fixtures.core.aten.problem import NoReference
from fixtures.core.clock import clock
from fixtures.core.operators import ERROR_IN_BOUNDS, with_fallback

pytestmark = pytest.mark.operators

TABLE: pytest.StashKey[trace.Found] = pytest.StashKey()
"""On ``config.stash``: the network's table, found or traced once per process."""

SEEN: pytest.StashKey[dict[str, signatures.SignatureCoverage | None]] = pytest.StashKey()
"""On ``config.stash``: what came of the cases that this process ran, None until it is known."""

UNTRACED = "traced-when-run"
"""The one case of a network that has not been traced."""


def _found(config):
    """The table; of a network without one only a run that may need it has it traced."""
    if TABLE not in config.stash:
        settings = config.stash[fixtures.SETTINGS]
        model = settings.model, settings.num_classes
        with clock.spent("probes"):
            found = trace.find(*model)
            if not found.current and _may_run(config.option):
                patience = config.stash[fixtures.PATIENCE]
                patience(trace.TRACE_S)
                try:
                    found = trace.obtain(*model)
                except trace.TraceError as error:
                    found = trace.Found(None, (*found.notices, str(error)))
                patience(settings.case_timeout_s)
        config.stash[TABLE] = found
    return config.stash[TABLE]


def _may_run(option):
    """Whether these cases can be among those that run: tracing takes seconds, so none for nothing.

    ``-m smoke`` names neither of their markers; an expression with ``not`` may mean them.
    """
    if option.collectonly:
        return False
    words = set(re.findall(r"\w+", option.markexpr))
    return not words or bool(words & {"not", "operators", "training"})


def _cases(config):
    table = _found(config).table
    formats = signatures.dtypes(config.stash[fixtures.SETTINGS].regimes)
    return signatures.cases(table, formats) if table is not None else []


def pytest_generate_tests(metafunc):
    """One case per signature and format; one in all where the network has not been traced."""
    if "signature" not in metafunc.fixturenames:
        return
    marks = {"training": [pytest.mark.training]}
    params = [
        pytest.param(case, id=case.id, marks=marks.get(case.mode, []))
        for case in _cases(metafunc.config)
    ]
    metafunc.parametrize("signature", params or [pytest.param(None, id=UNTRACED)])


def test_signature(signature, device, settings, record, pytestconfig):
    """The device has this operator of the network and computes it as its arithmetic allows."""
    if signature is None:
        notices = _found(pytestconfig).notices
        record.not_run(
            "; ".join(notices) or f"the signatures of {settings.model} were not traced in this run"
        )
    if signature.dtype not in ("float32", *device.backend.half_dtypes):
        record.unsupported(f"the {device.backend.name} backend does not list {signature.dtype}")

    seen = pytestconfig.stash.setdefault(SEEN, {})
    seen[signature.id] = None
    try:
        coverage = signatures.run(signature, device, settings.regimes)
    except NoReference as error:
        record.not_run(str(error))
    coverage = with_fallback(coverage, record.fallbacks())
    seen[signature.id] = coverage
    verdict = record(coverage, ERROR_IN_BOUNDS)
    assert verdict


def test_network_is_covered(cpu_model, device, settings, record, pytestconfig):
    """The device has every operator that the network computes with, and computes it rightly."""
    table, notices = _found(pytestconfig).table, _found(pytestconfig).notices
    if table is None:
        record.not_run(
            "; ".join(notices) or f"the signatures of {settings.model} were not traced in this run"
        )
    formats = ("float32", *device.backend.half_dtypes)
    cases = [case for case in _cases(pytestconfig) if case.dtype in formats]
    seen = pytestconfig.stash.get(SEEN, {})
    with clock.spent("reference"):
        unknown = trace.unknown(table, cpu_model)
    coverage = signatures.summary(table, cases, seen, notices, unknown)
    verdict = record(coverage)
    assert verdict
    if coverage.gap:
        record.not_run(coverage.gap)

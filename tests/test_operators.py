"""Each operator family of the adaptation document against a float64 reference, at the network's
own shapes, or the default network's where they are not known: see test_signatures.py."""

from __future__ import annotations

import pytest

from fixtures import SETTINGS
from fixtures.core import operators
from fixtures.core.networks import network

pytestmark = pytest.mark.operators


def pytest_generate_tests(metafunc):
    """One case per operator, place and dtype; the first place in float32 is the smoke case."""
    cases = operators.cases(network(metafunc.config.stash[SETTINGS].model))
    smoke = pytest.mark.smoke
    metafunc.parametrize(
        "case",
        [pytest.param(case, id=case.id, marks=[smoke] if case.smoke else []) for case in cases],
    )


def test_operator(case, device, record):
    """The device has this operator and computes it as exactly as its declared arithmetic allows."""
    if case.dtype not in ("float32", *device.backend.half_dtypes):
        record.unsupported(f"the {device.backend.name} backend does not list {case.dtype}")

    coverage = operators.run(case, device, device.math_mode())
    coverage = operators.with_fallback(coverage, record.fallbacks())
    verdict = record(coverage, operators.ERROR_IN_BOUNDS)
    assert verdict

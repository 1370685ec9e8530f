"""The proof of timing's overhead judges by bounds, and its two loops take the same calls."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftest import proof_timing
from selftest.proof_tables import table

ROOT = Path(__file__).resolve().parent.parent
FEW = "--pairs 20 --blocks 2 --calls 5 --threads 1"


def told(latency=(0.995, 1.0, 1.005), throughput=(0.99, 1.0, 1.01)):
    def row(low, ratio, high):
        return {
            **{"pairs": 100, "suite_ms": 10.0, "other_ms": 10.0, "batch_size": 1},
            **{"ratio": ratio, "low": low, "high": high},
            **{"model": "a network", "calls": 40},
        }

    return {
        **{"device": "a card", "threads": 1},
        **{"latency": row(*latency), "throughput": row(*throughput)},
    }


def test_both_bounds_are_judged():
    text, verdict = proof_timing.judged(told(), table)
    assert verdict
    assert "0.9950 to 1.0050" in text


@pytest.mark.parametrize(
    "values",
    [
        {"latency": (0.99, 1.0, 1.01)},
        {"throughput": (0.979, 1.0, 1.01)},
        {"throughput": (0.99, 1.0, 1.021)},
    ],
)
def test_a_bound_beyond_its_limit_is_no_proof(values):
    assert not proof_timing.judged(told(**values), table)[1]


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=300))
def test_bounds_are_samples_around_the_median(values):
    low, high = proof_timing.median_bounds(values)
    assert {low, high} <= set(values)
    assert low <= sorted(values)[(len(values) - 1) // 2] <= high


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 1000))
def test_each_bound_errs_no_more_than_it_says(seed):
    chance = random.Random(seed)
    wrong = 0
    for _ in range(400):
        values = [chance.expovariate(1.0) for _ in range(101)]
        wrong += proof_timing.median_bounds(values)[1] < 0.6931471805599453
    assert wrong <= 40  # 20 are expected, 40 are 4.6 standard deviations more


def test_a_pair_meets_the_same_moment():
    """A machine that is three times slower half of the time leaves the ratio as it is."""
    slow = [1 if n % 7 < 4 else 3 for n in range(100)]
    found = proof_timing.paired([1.001 * s for s in slow], [1.0 * s for s in slow])
    assert found["ratio"] == pytest.approx(1.001)
    assert (found["low"], found["high"]) == pytest.approx((1.001, 1.001))


@pytest.mark.slow
def test_the_script_measures_both(tmp_path):
    """With few pairs: what comes out is whole, whatever the machine is doing."""
    done = subprocess.run(
        [sys.executable, "-m", "selftest.proof_timing", *FEW.split()],
        cwd=ROOT,
        # under pytest-xdist's variables pytest-benchmark would take no times
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")},
        capture_output=True,
        text=True,
        check=False,
    )
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-2000:]
    assert (line["latency"]["pairs"], line["throughput"]["pairs"]) == (20, 2)
    assert {line[kind]["verdict"] for kind in ("latency", "throughput")} == {"PASS"}
    assert all(0.2 < line[kind]["ratio"] < 5 for kind in ("latency", "throughput"))
    assert line["throughput"]["suite_ms"] > line["latency"]["suite_ms"]

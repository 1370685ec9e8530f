"""Timing: percentiles need samples, doubts are named, unproved synchronisation is INVALID."""

import pytest

from fixtures.core.latency import (
    PLANS,
    Latency,
    Synchronisation,
    Throughput,
)
from fixtures.core.records import Figure, Status
from fixtures.core.statistics import doubts, smallest_sample

WAITED = Synchronisation((0.001,), (0.010,), True, False, True)


MIXED = [0.01, 0.02, 0.02, 0.01] * 16
"""Each half as often, in an order in which no neighbour tells the next."""


def latency(seconds, required=11, synchronisation=WAITED):
    return Latency(1, tuple(seconds), 0.5, (0.02,), synchronisation, required)


def test_figures_are_those_of_the_samples():
    figures = {f.name: f for f in latency(MIXED).figures()}
    assert figures["latency_mean_ms"].value == pytest.approx(15.0)
    assert figures["latency_min_ms"].value == pytest.approx(10.0)
    assert figures["latency_max_ms"].value == pytest.approx(20.0)
    assert figures["latency_p50_ms"].value == pytest.approx(10.0)
    assert figures["latency_p90_ms"].value == pytest.approx(20.0)
    assert figures["cold_start_ms"].value == 500.0


def test_a_percentile_without_its_samples_is_null_with_the_reason():
    section = latency([0.01] * 63).as_json()
    assert section["p50_ms"] == pytest.approx(10.0)
    assert section["p90_ms"] is None
    assert section["reasons"]["p90_ms"] == "63 samples; p90 needs 64 at 99% confidence"
    assert len(section["samples_ms"]) == 63


def test_too_small_a_sample_is_inconclusive():
    assert latency([0.01] * 64, required=64).verdict()
    verdict = latency([0.01] * 63, required=64).verdict()
    assert verdict.status is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("proof", "status"),
    [
        (WAITED, Status.PASS),
        # host-bound: little is left after the return, but events show the wait
        (Synchronisation((0.0099,), (0.01,), True, False, True), Status.PASS),
        # all was done when the call returned
        (Synchronisation((0.0099,), (0.01,), True, True, True), Status.PASS),
        # a synchronous device needs no proof
        (Synchronisation((0.01,), (0.01,), False), Status.PASS),
        # synchronise came back with work unfinished
        (Synchronisation((0.001,), (0.01,), True, False, False), Status.INVALID),
        # an asynchronous device without events and without any wait
        (Synchronisation((0.0099,), (0.01,), True), Status.INVALID),
    ],
)
def test_synchronisation_must_be_shown(proof, status):
    assert proof.verdict().status is status
    assert latency([0.01] * 64, 11, proof).verdict().status is status


def test_a_quiet_sample_raises_no_doubt():
    assert doubts([0.0100, 0.0101, 0.0100, 0.0102, 0.0100, 0.0101, 0.0100, 0.0101, 0.0100]) == ()


@pytest.mark.parametrize(
    ("seconds", "word"),
    [
        ([0.01, 0.02], "only 2 samples"),
        ([0.010, 0.011, 0.009, 0.0105, 0.0095, 0.0108, 0.0092, 0.01, 0.0105], "noisy"),
        ([0.01, 0.02, 0.03, 0.01, 0.02, 0.03, 0.015, 0.025, 0.01], "unstable"),
        ([0.0100] * 10 + [0.0102] * 10 + [0.0106] * 10, "drift"),
        ([0.0100, 0.0101] * 20 + [0.03] * 4, "outliers"),
    ],
)
def test_doubts_are_named(seconds, word):
    assert any(doubt.startswith(word) for doubt in doubts(seconds)), doubts(seconds)


def test_throughput_without_proof_of_synchronisation_is_invalid():
    """Looked at in the largest batch, where the device is farthest behind its host."""
    peak = Figure("peak_memory_bytes", 1, "B")
    lies = Synchronisation((0.001,), (0.010,), True, False, False)
    for proof, status in ((None, Status.PASS), (WAITED, Status.PASS), (lies, Status.INVALID)):
        measured = Throughput(16, 4, (0.5, 0.3), peak, synchronisation=proof)
        assert measured.verdict().status is status
        told = measured.as_json()["synchronisation"]
        assert told == (None if proof is None else proof.as_json())


def test_throughput_is_pictures_over_seconds():
    peak = Figure("peak_memory_bytes", 5, "B")
    measured = Throughput(16, 4, (0.5, 0.3), peak)
    assert measured.samples_per_second == pytest.approx(16 * 8 / 0.8)
    assert measured.latency_ms == pytest.approx(100.0)
    assert measured.as_json()["samples_ms"] == pytest.approx([125.0, 75.0])
    assert measured.figures()[0].name == "throughput_b16"


def test_out_of_memory_is_a_result():
    peak = Figure("peak_memory_bytes", None, "B", "out of memory")
    measured = Throughput(512, 0, (), peak, out_of_memory="NPU out of memory.")
    section = measured.as_json()
    assert section["out_of_memory"] is True
    assert section["samples_per_second"] is None
    assert measured.doubts == ()


def test_plans_give_what_their_percentiles_need():
    assert PLANS["full"].latency_rounds(1.0) == smallest_sample(90)
    assert PLANS["full"].latency_rounds(0.043) >= smallest_sample(99)
    assert PLANS["quick"].latency_rounds(1.0) == smallest_sample(50)
    assert PLANS["quick"].block_calls(7.0) == 1
    assert PLANS["full"].blocks(7.0) == 5
    assert PLANS["full"].blocks(0.5) == 16


def test_reduced_clocks_while_it_was_timed_are_a_doubt():
    peak = Figure("peak_memory_bytes", None, "B", "not told")
    slow = Latency(1, (0.02,) * 20, 0.5, (), WAITED, 11, clocks=(1.0, 0.5))
    sound = Throughput(8, 2, (0.2,) * 20, peak, clocks=(1.0, 0.9))
    assert any(doubt.startswith("throttled: 1 of 2") for doubt in slow.doubts)
    assert not any(doubt.startswith("throttled") for doubt in sound.doubts)

"""A soak tells a leak from noise, a rising counter, a hot card and one wrong bit."""

from __future__ import annotations

import json
import random

import pytest
import torch
from torch import nn

from fixtures.core import soak
from fixtures.core.backends.base import Device, Telemetry
from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.determinism import Repeats
from fixtures.core.npu_smi import TEMPERATURE
from fixtures.core.records import Status
from fixtures.core.regimes import REGIMES
from fixtures.core.soak import Instruments, Soak
from selftest.simulated import CARDS, needs_cards, variables

torch.set_num_threads(1)

MIB = 1 << 20
DOUBLE, SINGLE = "HBM Double Bit Error Count", "HBM Single Bit Error Count"


# --- the record ---------------------------------------------------------------------------------


def readings(slope=0.0, count=100, start=3 << 30, noise=0):
    draw = random.Random(1)
    return tuple((n, int(start + slope * n + draw.randint(-noise, noise))) for n in range(count))


def made(memory=None, **changed):
    same = Repeats("default, batch 2, under load", "card 7", True, 99, word="forward")
    values = {
        "memory": readings() if memory is None else memory,
        "rates": (100.0,) * 30,
        "instruments": Instruments("npu-smi", (40.0, 55.0), TEMPERATURE, {DOUBLE: 0}, {DOUBLE: 0}),
    }
    return Soak("default", 2, 10, 10.1, 100, same, **{**values, **changed})


def figures(found):
    return {figure.name: figure.value for figure in found.figures()}


def test_a_sound_soak_passes():
    found = made()
    assert found.verdict()
    assert found.doubts == ()
    assert figures(found)["memory_growth_bytes"] == 0
    assert figures(found)["temperature_max_c"] == 55
    assert figures(found)["error_counters_risen"] == 0
    assert figures(found)["throughput_drift"] == 0
    json.dumps(found.as_json())


@pytest.mark.parametrize("noise", [0, MIB])
def test_a_leak_is_found_below_its_noise(noise):
    leaking = made(readings(slope=64 << 10, noise=noise))
    assert "memory growth bytes is " in repr(leaking.verdict())
    assert "B per forward in 100 forwards" in repr(leaking.verdict())
    assert made(readings(slope=0, noise=noise)).verdict()


def test_what_happens_while_it_warms_up_is_no_leak():
    grown = tuple((n, (3 << 30) + min(n, 9) * 20 * MIB) for n in range(100))
    assert made(grown).verdict()


def test_a_single_step_is_no_slope():
    stepped = tuple((n, (3 << 30) + (20 * MIB if n > 80 else 0)) for n in range(100))
    assert made(stepped).verdict()


def test_too_few_readings_decide_nothing():
    found = made(readings(count=5))
    assert found.verdict().status is Status.INCONCLUSIVE
    assert "give more --soak-seconds" in repr(found.verdict())
    assert figures(found)["memory_slope"] is None


def test_memory_that_nothing_tells_is_not_judged():
    found = made((), memory_reason="the host's memory is everybody's")
    assert found.verdict()
    reasons = {figure.name: figure.reason for figure in found.figures()}
    assert reasons["memory_slope"] == "the host's memory is everybody's"


def test_beside_others_only_our_own_memory_is_judged():
    shared = Instruments("npu-smi", strangers=("process 4711 (python)",))
    theirs = made(readings(slope=MIB), reserved=readings(), instruments=shared)
    assert theirs.verdict()
    assert theirs.doubts == ("the card was not ours alone: process 4711 (python)",)
    ours = made(readings(), reserved=readings(slope=MIB), instruments=shared)
    assert not ours.verdict()


@pytest.mark.parametrize(
    ("before", "after", "fails", "doubts"),
    [
        ({DOUBLE: 3}, {DOUBLE: 3}, False, 0),
        ({DOUBLE: 3}, {DOUBLE: 4}, True, 0),
        ({}, {DOUBLE: 1}, True, 0),
        ({SINGLE: 0}, {SINGLE: 2}, False, 1),
        ({"ecc.errors.uncorrected.volatile.total": 0},) * 2 + (False, 0),
        (
            {"ecc.errors.uncorrected.volatile.total": 0},
            {"ecc.errors.uncorrected.volatile.total": 1},
            True,
            0,
        ),
    ],
)
def test_counters_that_rise(before, after, fails, doubts):
    found = made(instruments=Instruments("npu-smi", (40.0,), TEMPERATURE, before, after))
    assert bool(found.verdict()) != fails
    assert len(found.doubts) == doubts
    if fails:
        assert "rose from" in repr(found.verdict())


def test_a_hot_card_fails_by_its_own_limit():
    found = made(instruments=Instruments("npu-smi", (40.0, 93.0), TEMPERATURE))
    assert "temperature max c is 93 C, must be < 90 C (npu-smi)" in repr(found.verdict())


def test_an_alarm_fails():
    found = made(instruments=Instruments("npu-smi", problems=("health is Alarm",)))
    assert repr(found.verdict()) == "health is Alarm"


def test_a_throughput_that_falls_is_said():
    found = made(rates=(100.0,) * 20 + (80.0,) * 10)
    assert found.verdict()
    assert found.doubts == ("drift: the throughput changed by -20.0% while it ran",)


# --- the soak itself ----------------------------------------------------------------------------


class Net(nn.Module):
    """Means of the pictures; from its call `at` on one bit is wrong."""

    def __init__(self, at=10**9):
        super().__init__()
        self.at, self.count = at, 0

    def forward(self, x):
        self.count += 1
        out = x.mean((2, 3))
        if self.count == self.at:
            out = out.clone()
            out.view(torch.int32)[1, 2] ^= 1 << 22
        return out


class Card(CpuBackend):
    """The host, posing as a card whose memory and instruments are made up."""

    is_accelerator = True

    def __init__(self, leak=0, temperature=50.0, ecc=0):
        self.calls = 0
        self.leak, self.temperature, self.ecc = leak, temperature, ecc

    def memory_info(self, index):
        self.calls += 1
        return (20 << 30) - self.leak * self.calls, 30 << 30

    def telemetry(self, index):
        self.heard = getattr(self, "heard", 0) + 1
        return Telemetry(
            *("npu-smi", True),
            temperature_c=self.temperature,
            ecc={DOUBLE: self.ecc * self.heard},
            limits=(TEMPERATURE,),
        )


def run(card, net=None, seconds=0.3):
    images = torch.linspace(-1, 1, 2 * 3 * 16).reshape(2, 3, 4, 4)
    told = []
    found = soak.soak(
        *(Device(card), net or Net(), images, REGIMES["default"], seconds),
        lambda *given: told.append(given),
    )
    assert told[-1] == ("soak", int(seconds), int(seconds))
    return found


def test_a_sound_card_is_kept_busy():
    found = run(Card())
    assert found.verdict(), repr(found.verdict())
    assert found.seconds >= 0.3
    assert found.forwards == found.same.compared + 1 > 20
    assert len(found.rates) == soak.WINDOWS
    assert len(found.memory) > 20
    assert found.instruments.temperatures_c[:2] == (50.0, 50.0)
    assert not torch.are_deterministic_algorithms_enabled()
    json.dumps(found.as_json())


def test_one_wrong_bit_in_a_long_run_is_found():
    found = run(Card(), Net(at=40))
    assert "1 of " in repr(found.verdict())
    assert "forward 40 at first: element [1, 2] differs in bits 0x00400000" in repr(found.verdict())


def test_a_leaking_card_is_found():
    assert "memory growth bytes" in repr(run(Card(leak=4 * MIB)).verdict())


def test_counters_and_heat_are_read_before_during_and_after():
    found = run(Card(temperature=95.0, ecc=1))
    assert "HBM Double Bit Error Count rose from 1 to 3" in repr(found.verdict())
    assert "temperature max c is 95 C" in repr(found.verdict())


def test_the_hosts_memory_is_not_judged():
    found = run(CpuBackend())
    assert found.verdict()
    assert found.memory == ()
    assert "everybody's" in found.memory_reason


def test_a_card_that_tells_no_memory_is_said():
    card = Card()
    card.memory_info = lambda index: None
    found = run(card)
    assert found.verdict()
    assert found.memory_reason == "nothing tells how much memory of cpu is free"


def test_an_error_of_the_device_ends_it():
    class Lost(Net):
        def forward(self, x):
            if self.count == 5:
                raise RuntimeError("device lost")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="device lost"):
        run(Card(), Lost())
    assert not torch.are_deterministic_algorithms_enabled()


# --- the vendor's own test ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "status", "words"),
    [
        (None, Status.UNSUPPORTED, "the cpu backend has no stress test of its own"),
        (0, Status.PASS, ""),
        (1, Status.NOT_RUN, "the stress test could not run"),
        (2, Status.FAIL, "the stress test found cpu faulty (it returned 2; "),
        (7, Status.FAIL, "it returned 7"),
    ],
)
def test_what_the_stress_test_says(told, status, words):
    card = CpuBackend()
    card.stress_detect = lambda index: told
    found = soak.stressed(Device(card))
    assert found.verdict.status is status
    assert words in found.reason


# --- simulated cards ----------------------------------------------------------------------------


@needs_cards
def test_a_leak_an_error_and_a_bit_on_a_simulated_card(suite):
    plan = [
        {"kind": "leak", "operator": "aclnnConvolution", "bytes": 65536},
        {"kind": "ecc_rising"},
        {"kind": "nondeterministic_last_bit", "operator": "aclnnConvolution"},
    ]
    outcome = suite.run(
        *("-m", "soak", *CARDS, "--simulate", "1", "--soak-seconds", "3", "--batch-sizes", "1"),
        *("--stress-detect", "--faults", json.dumps(plan)),
        **variables(),
    )
    assert outcome.code == 1
    differs, grows, counted = outcome.case("test_soak.py::test_soak")["sentences"]
    assert "forward 2 at first: element [0, 0] differs in bits" in differs
    assert grows.startswith("memory growth bytes is ")
    assert counted.startswith("HBM Double Bit Error Count rose from ")
    stress = outcome.case("test_stress_detect")
    assert stress["status"] == "NOT RUN"
    assert "the stress test could not run" in stress["reason"]

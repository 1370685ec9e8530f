"""Synchronisation, events and the chip's speed, judged on a virtual device with a virtual clock."""

import dataclasses
import random
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.core import timed
from fixtures.core.backends.base import PaperPeaks, Timer
from fixtures.core.latency import CLOCK_RATE, EventClock, EventTimes, Synchronisation, Work
from fixtures.core.records import MathMode, Status

LAUNCH, WORK, COST = 1e-3, 1e-2, 1e-4
"""Seconds of a launch on the host, of its work on the device, of a record or a synchronise."""


class Event:
    def __init__(self, world):
        self.world = world
        self.at = None

    def record(self):
        self.at = None
        self.world.spend(COST)
        self.world.put(self)

    def query(self):
        self.world.spend(COST)
        if self.world.lies:
            return True
        return self.at is not None and self.at <= self.world.now

    def elapsed_time(self, other):
        return 1e3 * self.world.rate * (other.at - self.at)


class World:
    """A host and a device on one virtual clock, in place of a Device and of the module `time`.

    The device works off what it is given in order, a `lazy` one only when it is waited for, and a
    `blocking` one before the launch returns. Events of one that `lies` are always done. The host
    may `stall` for up to so many seconds at any moment.
    """

    def __init__(
        self,
        rate=1.0,
        lazy=False,
        work=WORK,
        waits=True,
        stall=0.0,
        seed=0,
        lies=False,
        blocking=False,
    ):
        self.rate, self.lazy, self.work, self.waits = rate, lazy, work, waits
        self.lies, self.blocking = lies, blocking
        self.stall, self.chance = stall, random.Random(seed)
        self.now = self.free = 0.0
        self.queue = []
        self.torch = "cpu"
        self.backend = SimpleNamespace(
            asynchronous=True, timer=lambda: Timer(Event(self), Event(self))
        )

    def spend(self, seconds):
        late = self.stall * self.chance.random() if self.chance.random() < 0.05 else 0.0
        self.now += seconds + late

    def perf_counter(self):
        self.spend(1e-7)
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def put(self, job):
        self.queue.append((self.now, job))
        if not self.lazy:
            self.run()

    def run(self):
        for since, job in self.queue:
            begin = max(self.free, self.now if self.lazy else since)
            if isinstance(job, Event):
                job.at = self.free = begin
            else:
                self.free = begin + job
        self.queue.clear()

    def launch(self):
        self.spend(LAUNCH)
        self.put(self.work)
        if self.blocking:
            self.now = max(self.now, self.free)

    def fetch(self):
        self.run()
        self.now = max(self.now, self.free)
        self.spend(COST)

    def synchronize(self):
        self.run()
        if self.waits:
            self.now = max(self.now, self.free)
        self.spend(COST)

    @contextmanager
    def timed(self):
        timer = self.backend.timer()
        timer.start.record()
        yield timer
        timer.stop.record()


@pytest.fixture
def world(monkeypatch):
    def make(**values):
        made = World(**values)
        monkeypatch.setattr(timed, "time", made)
        return made

    return make


def test_a_device_that_runs_ahead_is_proved_to_be_waited_for(world):
    device = world()
    proof = timed.prove(device, device.launch)
    assert (proof.done_at_return, proof.done_after, proof.done_unwaited) == (False, True, True)
    assert proof.share > 0.8
    assert proof.verdict()


def test_a_device_that_begins_only_when_it_is_waited_for_is_invalid(world):
    device = world(lazy=True)
    proof = timed.prove(device, device.launch)
    assert proof.done_after is True
    assert proof.done_unwaited is False
    verdict = proof.verdict()
    assert verdict.status is Status.INVALID
    assert "only when it is waited for" in repr(verdict)


def test_a_synchronise_that_does_not_wait_is_invalid(world):
    device = world(waits=False, work=1.0)
    verdict = timed.prove(device, device.launch).verdict()
    assert verdict.status is Status.INVALID
    assert "still unfinished after synchronise" in repr(verdict)


@pytest.mark.parametrize("work", [2e-3, WORK, 1.0])
def test_an_event_and_a_synchronise_that_lie_are_found_by_the_output(world, work):
    device = world(waits=False, lies=True, work=work)
    proof = timed.prove(device, device.launch, device.fetch)
    assert (proof.done_at_return, proof.done_after, proof.done_unwaited) == (True, True, True)
    verdict = proof.verdict()
    assert verdict.status is Status.INVALID
    assert "the device was still at work" in repr(verdict)


def test_an_output_that_is_a_little_late_is_a_doubt():
    done = ((0.0099,) * 3, (0.01,) * 3, True, True, True, True, 5.0)
    late = Synchronisation(*done, fetched_s=(0.0012,) * 3, again_s=(1e-4,) * 3)
    assert late.verdict()
    assert "11.0% of a forward's time later" in late.doubts[0]
    assert Synchronisation(*done, fetched_s=(2e-4,) * 3, again_s=(1e-4,) * 3).doubts == ()
    once = Synchronisation(*done, fetched_s=(0.5, 1e-4, 0.5), again_s=(1e-4,) * 3)
    assert once.verdict()
    assert not once.doubts


@pytest.mark.parametrize("values", [{"blocking": True}, {"work": 1e-5}, {"work": 1e-4}])
def test_a_device_that_is_done_when_the_call_returns_is_no_fault(world, values):
    """Blocking launches, and a host that is the limit: the last launch finds an empty queue."""
    device = world(**values)
    proof = timed.prove(device, device.launch, device.fetch)
    assert proof.verdict()
    assert proof.doubts == ()


def test_an_event_alone_is_no_proof():
    proof = Synchronisation((0.0099,), (0.01,), True, True, True)
    assert proof.verdict()
    assert "it may lie" in proof.doubts[0]
    assert Synchronisation((0.01,), (0.01,), False).doubts == ()
    assert Synchronisation((0.001,), (0.01,), True, False, True).doubts == ()


@pytest.mark.parametrize("work", [1e-5, 1e-3, 1e-1])
def test_a_stalling_host_is_no_fault_of_the_device(world, work):
    """Busy machines: whichever of host and device is the limit, no verdict comes of it."""
    for seed in range(20):
        device = world(work=work, stall=0.05, seed=seed)
        assert timed.prove(device, device.launch, device.fetch).verdict()
        assert timed.event_pairs(device, device.launch, 10).verdict()


def test_samples_hold_one_call_each(world):
    device = world()
    for _ in range(5):
        device.launch()  # left over from before
    taken = timed.sample(device, device.launch, 4)
    assert taken == pytest.approx([LAUNCH + WORK + COST] * 4, rel=0.01)


def test_events_and_wall_clock_are_of_the_same_calls(world):
    device = world()
    pairs = timed.event_pairs(device, device.launch, 7)
    assert len(pairs.event_s) == len(pairs.wall_s) == 7
    assert pairs.ratio == pytest.approx((LAUNCH + WORK) / (LAUNCH + WORK + 2 * COST), rel=0.02)
    assert pairs.doubts == ()
    assert pairs.verdict()


def test_without_events_there_are_none():
    device = SimpleNamespace(
        synchronize=lambda: None,
        timed=lambda: nothing(),
        backend=SimpleNamespace(timer=lambda: None, asynchronous=False),
    )
    assert timed.event_pairs(device, lambda: None, 3) is None
    assert timed.event_clock(device) is None
    proof = timed.prove(device, lambda: None)
    assert proof.done_unwaited is None
    assert proof.verdict()


@contextmanager
def nothing():
    yield None


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(0.998, 1.002), st.floats(0, 0.02), st.integers(0, 99))
def test_a_sound_event_clock_is_never_invalid(rate, stall, seed):
    """The brackets hold the truth, whatever the host does in between."""
    device = World(rate=rate, stall=stall, seed=seed)
    clock = clock_of(device, 0.2, 0.6)
    low, high = clock.rate
    assert low - 1e-9 <= rate <= high + 1e-9
    assert clock.verdict()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([0.5, 0.95, 0.99, 1.01, 1.05, 3.0]), st.integers(0, 99))
def test_a_skewed_event_clock_is_invalid(rate, seed):
    clock = clock_of(World(rate=rate, stall=0.005, seed=seed), 0.5, 2.0)
    verdict = clock.verdict()
    assert verdict.status is Status.INVALID
    assert "times the rate of time" in repr(verdict)
    assert EventTimes((1.0,), (1.1,), clock).verdict().status is Status.INVALID


def clock_of(device, least, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed, "time", device)
        return timed.event_clock(device, least, most)


def test_a_rate_that_is_not_known_is_a_doubt():
    clock = EventClock(1.0, 0.98, 1.02)
    assert clock.verdict()
    assert not clock.known
    assert EventTimes((1.0,), (1.0,), clock).doubts == (
        "the rate of the event clock is known to 0.9804 to 1.02 only",
    )


@given(st.floats(0.1, 10), st.floats(0, 0.1), st.floats(0.5, 2))
def test_only_what_no_clock_could_show_is_invalid(wall, bracket, rate):
    clock = EventClock(rate * wall, wall * (1 - bracket), wall * (1 + bracket))
    could = 1 - CLOCK_RATE <= clock.rate[1] and clock.rate[0] <= 1 + CLOCK_RATE
    assert bool(clock.verdict()) is could


@pytest.mark.parametrize(
    ("event", "status", "doubt"),
    [(0.0099, "PASS", ""), (0.0103, "INVALID", ""), (0.004, "PASS", "span 40.0%")],
)
def test_events_lie_within_their_call(event, status, doubt):
    pairs = EventTimes((event,) * 5, (0.01,) * 5)
    assert pairs.verdict().status == status
    assert bool(pairs.doubts) is bool(doubt)
    assert doubt in " ".join(pairs.doubts)


# --- faster than the chip ------------------------------------------------------------------------

BASE = Work(40_200_000_000, 122.88e12, "hf32", "a table")


def test_a_time_that_the_chip_can_reach_stands():
    assert BASE.verdict(1, 0.036)
    assert BASE.share(1, 0.036) == pytest.approx(0.0091, rel=0.01)


def test_a_time_faster_than_the_chip_is_invalid_and_names_both_rates():
    verdict = BASE.verdict(16, 0.004)
    assert verdict.status is Status.INVALID
    assert "160.8 TFLOP/s" in repr(verdict)
    assert "122.9 in hf32 (a table)" in repr(verdict)


@given(st.integers(1, 10**12), st.floats(1e9, 1e15), st.floats(1e-7, 10), st.integers(1, 512))
def test_invalid_begins_at_the_peak(flop, peak, seconds, pictures):
    work = Work(flop, peak, "float32", "a table")
    assert bool(work.verdict(pictures, seconds)) is (flop * pictures / seconds / peak <= 1)


def test_a_peak_that_nobody_confirmed_is_no_wall():
    work = dataclasses.replace(BASE, ceiling=245.76e12)
    assert work.doubts(1, 0.036) == ()
    assert work.verdict(16, 0.004)
    assert "122.9 in hf32 (a table), a figure that nobody confirmed" in work.doubts(16, 0.004)[0]
    assert "at most 245.8" in repr(work.verdict(16, 0.002))
    assert work.doubts(16, 0.002) == ()


def test_what_is_not_known_judges_nothing():
    assert Work(None, reason="not counted").verdict(1, 1e-12)
    assert Work(10**12, reason="no paper peak").verdict(1, 1e-12)
    assert Work(10**12, reason="no paper peak").rate(1, 1.0) == 1e12
    assert Work(10**12).share(1, 1.0) is None


def test_convolutions_that_can_do_with_fewer_products_are_given_them():
    import torch

    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    patches = torch.nn.Conv2d(3, 8, 4, stride=4)
    grouped = torch.nn.Conv2d(8, 8, 7, groups=8)
    assert [timed._saving(each) for each in (plain, patches, grouped)] == [4.0, 1.0, 1.0]
    assert Work(100, 50.0, "float32", "a table", 4.0).verdict(1, 0.6)
    assert "even if 4 times fewer" in repr(
        Work(100, 50.0, "float32", "a table", 4.0).verdict(1, 0.4)
    )


def test_work_of_a_network_on_a_device():
    import torch

    peaks = PaperPeaks({"float32": 1e12, "hf32": 2e12}, 1e12, "a table")
    backend = SimpleNamespace(device_name=lambda index: "a card", paper_peaks=lambda name: peaks)
    device = SimpleNamespace(backend=backend, index=0, math_mode=lambda: MathMode("hf32", "ieee"))
    network = torch.nn.Conv2d(3, 4, 2, stride=2)
    work = timed.work(device, network, (3, 8, 8))
    assert work == Work(2 * 4 * 3 * 4 * 16, 2e12, "hf32", "a table")
    backend.paper_peaks = lambda name: None
    assert timed.work(device, network, (3, 8, 8)).reason == "no paper peak of a card is known"
    backend.paper_peaks = lambda name: peaks
    device.math_mode = MathMode
    assert timed.work(device, network, (3, 8, 8)).peak == 1e12
    device.math_mode = lambda: MathMode("bfloat16", "ieee")
    assert "in conv bfloat16" in timed.work(device, network, (3, 8, 8)).reason
    assert timed.work(device, torch.nn.Bilinear(1, 1, 1), (3, 8, 8)).flop is None
    assert timed.in_arithmetic(Work(None, reason="odd"), device, MathMode()).reason == "odd"
    peaks = PaperPeaks({"hf32": 2e12, "float16": 4e12}, 1e12, "a table")
    hf32 = timed.in_arithmetic(work, device, MathMode("hf32", "hf32"))
    assert (hf32.flop, hf32.peak, hf32.ceiling) == (work.flop, 2e12, 4e12)
    assert timed.in_arithmetic(hf32, device, MathMode("float16", "float16")).ceiling is None


def test_synchronisation_is_told_in_full():
    told = Synchronisation((0.001,), (0.01,), True, False, True, True, 5.0).as_json()
    assert told["done_unwaited"] is True

"""Placement: memory on another card, on none, on two, or kept for ever is seen; others' work is
not taken for it."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from fixtures.core import placement
from fixtures.core.backends import backend
from fixtures.core.backends.base import Backend, Device
from fixtures.core.placement import ROUNDS, SIZE, Losses, Placement, Try
from fixtures.core.records import Measured, Status

GIB = 1 << 30


class Cards(Backend):
    """Cards with memory, of which one may be another than the one that is asked for."""

    name = "cuda"  # torch knows the name without a card

    def __init__(self, count=2, lands=None, leak=0, keeps=0, cached=0, tool=True, reserves=True):
        self.lands = lands or {}
        self.leak, self.keeps, self.cached = leak, keeps, cached
        self.tool, self.reserves = tool, reserves
        self.used = [0] * count
        self.taken = 0
        self.noise = iter(())

    def device_count(self):
        return len(self.used)

    def synchronize(self, index):
        pass

    def take(self, index):
        """A tensor of `SIZE` bytes is made: from the cache, or from the card."""
        if self.cached:
            self.cached -= 1
            return
        self.taken += SIZE
        for card in self.lands.get(index, (index,)):
            self.used[card] += SIZE + self.leak

    def empty_cache(self, index):
        for card in self.lands.get(index, (index,)):
            self.used[card] -= self.taken - min(self.keeps, self.taken)
        self.taken = 0

    def reserved_memory(self, index):
        return self.taken if self.reserves else None

    def memory_info(self, index):
        self.used[index] += next(self.noise, 0)
        return 32 * GIB - self.used[index], 32 * GIB

    def memory_in_use(self, index):
        if not self.tool:
            return None
        return f"card {index}", {f"card {n}": used / 2**20 for n, used in enumerate(self.used)}


@pytest.fixture
def made(monkeypatch):
    """Devices on cards of the test's choice; tensors are made on these."""

    def make(index=0, **how):
        cards = Cards(**how)
        monkeypatch.setattr(torch, "zeros", lambda *_, **__: cards.take(index))
        return Device(cards, index)

    return make


@pytest.mark.parametrize("how", [{}, {"count": 1}, {"tool": False}, {"reserves": False}])
def test_memory_on_its_own_card_passes_at_the_first_try(made, how):
    found = placement.place(made(**how))
    assert isinstance(found, Measured)
    assert found.verdict(), found.verdict()
    assert len(found.tries) == 1
    assert found.doubts == ()
    figures = {figure.name: figure.value for figure in found.figures()}
    assert figures["free_memory_fell_bytes"] == figures["free_memory_rose_bytes"] == SIZE
    assert figures["card_memory_grew_bytes"] == (SIZE if how.get("tool", True) else None)
    assert found.as_json()["card"] == "cuda:0"


def test_what_the_allocator_had_in_its_cache_proves_nothing(made):
    found = placement.place(made(cached=3))
    assert found.verdict()
    assert found.tries[-1].taken == SIZE
    full = placement.place(made(cached=10**6))
    assert full.verdict().status is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("tool", "words"), [(True, "the tool shows them on card 0"), (False, "they are not there")]
)
def test_memory_on_another_card_fails(made, tool, words):
    verdict = placement.place(made(index=1, lands={1: (0,)}, tool=tool)).verdict()
    assert verdict.status is Status.FAIL
    assert "64 MiB were put on cuda:1" in repr(verdict)
    assert words in repr(verdict)


def test_no_other_card_is_asked(made, monkeypatch):
    device = made(index=1, count=8)
    asked = []
    told = device.backend.memory_info
    monkeypatch.setattr(
        device.backend, "memory_info", lambda index: asked.append(index) or told(index)
    )
    assert placement.place(device).verdict()
    assert set(asked) == {1}


def test_memory_that_is_nowhere_fails(made):
    verdict = placement.place(made(lands={0: ()})).verdict()
    assert verdict.status is Status.FAIL
    assert "they are not there" in repr(verdict)


def test_memory_that_is_not_given_back_fails(made):
    verdict = placement.place(made(keeps=SIZE)).verdict()
    assert verdict.status is Status.FAIL
    assert "it did not get them back" in repr(verdict)


def test_the_tool_is_believed_about_cards_that_torch_does_not_see(made, monkeypatch):
    device = made(count=1)
    told = iter([("NPU 4", {"NPU 4": 0.0, "NPU 5": used}) for used in (0.0, 64.0, 0.0) * 2])
    monkeypatch.setattr(device.backend, "memory_in_use", lambda index: next(told))
    verdict = placement.place(device).verdict()
    assert verdict.status is Status.FAIL
    assert "64 MiB were put on cuda:0, which is NPU 4, and the tool shows them on NPU 5" in repr(
        verdict
    )


def test_a_tool_that_saw_nothing_is_a_doubt(made, monkeypatch):
    device = made()
    monkeypatch.setattr(device.backend, "memory_in_use", lambda index: ("card 0", {"card 0": 9.0}))
    found = placement.place(device)
    assert found.verdict()
    assert found.doubts == ("the tool saw the memory in use of card 0 grow by 0 MiB for 64 MiB",)


QUIET, FREED = 0, -SIZE
"""What others take of the card between two readings of its free memory."""


def test_others_at_work_in_one_try_are_a_doubt(made):
    device = made(tool=False)
    device.backend.noise = iter((QUIET, QUIET, FREED))  # while ours were put there
    found = placement.place(device)
    assert found.verdict()
    assert len(found.tries) == 2
    assert (
        "only a second try showed where the memory is: try 1: free memory of cuda:0"
        in (found.doubts[0])
    )


def test_others_at_work_in_both_tries_leave_it_open(made):
    device = made(tool=False)
    half = SIZE // 2
    device.backend.noise = iter((QUIET, QUIET, -half, half, QUIET, -half, half))
    verdict = placement.place(device).verdict()
    assert verdict.status is Status.INCONCLUSIVE
    assert "where 64 MiB on cuda:0 lie cannot be told: try 1" in repr(verdict)


@pytest.mark.parametrize(
    "other",
    [
        (0.0, 900.0, 900.0),  # a model is loaded there
        (0.0, 64.0, 64.0),  # as much as ours, and it stays
        (64.0, 128.0, 1000.0),
        (None, 2828.0, 2828.0),  # the first table was cut short
        (0.0, 2828.0, None),
    ],
)
def test_another_card_on_which_others_work_is_not_taken_for_ours(other):
    """Ours come and go; the tool may be slow to show them on our own card."""
    shown = tuple({"NPU 0": 2828.0} | ({} if used is None else {"NPU 1": used}) for used in other)
    one = Try(32 * GIB, 32 * GIB - SIZE, 32 * GIB, shown=shown)
    found = Placement("npu:0", (one, one), "NPU 0")
    assert found.verdict() == placement.Verdict()
    assert "the tool saw the memory in use of NPU 0 grow by 0 MiB" in found.doubts[-1]


def test_memory_that_cannot_be_asked_is_said():
    assert placement.free_memory(backend("cpu").open(0)) is None
    silent = Cards()
    silent.memory_info = lambda index: None
    assert placement.free_memory(Device(silent)) is None


# --- the chosen device ---------------------------------------------------------------------------


def chosen(monkeypatch, index=1, current=1, default=1, named=1):
    """What `placement.chosen` says where torch's current device and tensors are these."""
    there = {
        "cuda": torch.device("cuda", default),
        torch.device("cuda:1"): torch.device("cuda", named),
    }
    sent = SimpleNamespace(to=lambda where: SimpleNamespace(device=there[where]))
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: sent)
    cards = Cards()
    monkeypatch.setattr(cards, "current", lambda: current)
    return placement.chosen(Device(cards, index)).verdict()


def test_the_device_that_was_asked_for_is_in_use(monkeypatch):
    assert chosen(monkeypatch)
    assert chosen(monkeypatch, current=None), "there is but one"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"current": 0}, "the current device is cuda:0"),
        ({"default": 0}, "a tensor sent to cuda says that it is on cuda:0"),
        ({"named": 0}, "a tensor sent to cuda:1 says that it is on cuda:0"),
    ],
)
def test_another_device_in_use_is_named(monkeypatch, wrong, words):
    assert words in repr(chosen(monkeypatch, **wrong))


# --- given back ----------------------------------------------------------------------------------


def test_allocations_that_are_given_back_cost_nothing(made):
    device = made()
    found = placement.losses(device, "x", lambda: placement.allocate_and_release(device))
    assert found.verdict()
    assert found.lost == (0,) * ROUNDS
    assert isinstance(found, Measured)


def test_a_leak_is_seen(made):
    device = made(leak=1 << 20)
    found = placement.losses(
        device, "an allocation", lambda: placement.allocate_and_release(device)
    )
    assert repr(found.verdict()) == ("an allocation costs cuda:0 1 MiB for good, each time of 5")
    assert found.figures()[0].value == 1 << 20
    assert found.as_json()["lost"] == [1 << 20] * ROUNDS


def test_what_torch_itself_holds_is_no_leak(made):
    device = made()
    found = placement.losses(device, "a forward", lambda: device.backend.take(0))
    assert found.lost == (0,) * ROUNDS


@pytest.mark.parametrize(
    ("lost", "status"),
    [
        ((0, 0, 4096, 0, 0), Status.PASS),
        ((4096, 4096, 4096, 4096, -4096), Status.PASS),
        ((1, 2, 3, 4, 5), Status.INCONCLUSIVE),
        ((4096,) * 5, Status.FAIL),
    ],
)
def test_only_the_same_loss_each_time_is_ours(lost, status):
    assert Losses("a forward", "npu:0", lost).verdict().status is status


def test_memory_that_some_rounds_lose_is_a_doubt():
    mib = 1 << 20
    lost = Losses("a forward", "npu:0", (2 * mib, 0, 2 * mib, 0, 2 * mib))
    assert lost.verdict()
    assert "npu:0 has 6 MiB less after 5 rounds of a forward" in lost.doubts[0]
    assert Losses("a forward", "npu:0", (mib, -mib, 0, 0, 0)).doubts == ()
    assert Losses("a forward", "npu:0", (mib,) * 5).doubts == ()


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Losses("a", "b", (0,)).what = "c"

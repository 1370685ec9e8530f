"""Copies: one that changes a bit is a failure, and says how much it changed."""

import math

import pytest
import torch

from fixtures.core import copies
from fixtures.core.backends import backend
from fixtures.core.backends.base import Backend, Device
from fixtures.core.copies import CorruptCopy
from fixtures.core.records import Status

CPU = backend("cpu").open(0)
VALUES = torch.tensor([[math.nan, -0.0, 1.0], [math.inf, 5e-324, -2.0]], dtype=torch.float32)


class There(torch.Tensor):
    """A tensor "on the device": it remembers how each copy of it is to go wrong."""

    @staticmethod
    def of(values, reads):
        made = values.clone().as_subclass(There)
        made.reads = list(reads)
        return made

    def to(self, *_, **__):
        """A copy, with as many elements changed as the plan says."""
        copy = self.as_subclass(torch.Tensor).clone()
        copy.view(torch.int32).view(-1)[: self.reads.pop(0)] ^= 1
        return copy


class Sending(torch.Tensor):
    """A tensor on the host that arrives as `There`."""

    def to(self, *_, **__):
        """What arrives: a bit of the first element differs."""
        return There.of(self.as_subclass(torch.Tensor), [1])


class Elsewhere(Backend):
    """Has a name that is not the CPU's."""

    name = "npu"

    def device_string(self, index):
        return "cpu"


DEVICE = Device(Elsewhere())


def test_on_the_cpu_nothing_is_copied():
    assert copies.to_device(CPU, VALUES) is VALUES
    assert copies.to_cpu(CPU, VALUES) is VALUES


def test_a_copy_of_special_values_that_is_right_passes():
    there = There.of(VALUES, [0, 0])
    assert copies.same_bits(copies.to_cpu(DEVICE, there), VALUES)


@pytest.mark.parametrize("reads", [[0, 2], [2, 0]])
def test_two_readings_that_differ_are_a_failure(reads):
    with pytest.raises(CorruptCopy, match="a copy from cpu changed 2 of 6 elements") as caught:
        copies.to_cpu(DEVICE, There.of(VALUES, reads))
    assert caught.value.verdict.status is Status.FAIL
    assert caught.value.verdict.sentences == (str(caught.value),)


def test_what_comes_back_must_be_what_was_sent():
    with pytest.raises(CorruptCopy, match="a copy to cpu and back changed 1 of 6 elements"):
        copies.to_device(DEVICE, VALUES.as_subclass(Sending))


@pytest.mark.parametrize(
    ("other", "count"),
    [(VALUES, 0), (VALUES.neg(), 6), (VALUES.double(), 6), (VALUES.reshape(3, 2), 6)],
)
def test_elements_are_counted_by_their_bits(other, count):
    assert copies.changed(VALUES, other) == count
    assert copies.same_bits(VALUES, other) is (count == 0)


def test_a_corrupt_copy_is_neither_memory_nor_device_error():
    error = CorruptCopy("a copy from npu:0 changed 1 of 6 elements")
    assert not backend("npu").is_out_of_memory(error)
    assert not backend("npu").is_device_error(error)
    assert not isinstance(error, RuntimeError), "no handler for a full device may swallow it"

"""The pipeline: what inputs from the host cost, and outputs that must stay what they are."""

import pytest

from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.latency import Work
from fixtures.core.pipeline import (
    ALONE,
    CLAIMS,
    COPIED,
    OVERLAPPED,
    PREPARED,
    PREPARING,
    Pictures,
    Pipeline,
    Row,
    pipeline,
    threads,
)
from fixtures.core.power import Blocks
from fixtures.core.records import Limit, Status

APART = Limit.row("apart", "<=", 1e-4, "a selftest")


def row(name, rate, batch=10, **others):
    return Row(name, batch, 1, (batch / rate,) * 3, **others)


def test_rates_derive_from_blocks():
    found = Row(ALONE, 8, 4, (0.4, 0.2, 0.3))
    assert found.each == pytest.approx(0.075)
    assert found.samples_per_second == pytest.approx(8 / 0.075)
    assert Row(ALONE, 8).samples_per_second is None


def test_the_sentence_says_what_limits():
    rows = (row(ALONE, 100), row(COPIED, 80), row(PREPARED, 20), row(PREPARING, 25))
    told = Pipeline(rows, 2).sentence
    assert "80% of that with a copy from the host" in told
    assert "20% with real pictures prepared by 2 threads" in told
    assert told.endswith("prepare 25 samples/s: the host's preprocessing is the limit")
    assert "limit" not in Pipeline((row(ALONE, 100), row(PREPARING, 900)), 2).sentence
    assert Pipeline((), 2).sentence == "the device alone was not measured"


def test_wrong_outputs_fail():
    found = Pipeline((row(ALONE, 100), row(OVERLAPPED, 100, wrong="apart is 1")), 2)
    assert found.verdict().status is Status.FAIL
    assert found.verdict().sentences == ("pinned and overlapped: apart is 1",)
    assert Pipeline((row(ALONE, 100),), 2).verdict()


def test_a_row_that_is_faster_than_the_chip_is_invalid():
    work = Work(10**9, 1e12, "float32", "a table")
    quick = (row(ALONE, 1e5), row(PREPARING, 100))
    assert Pipeline(quick, 2, work).verdict().status is Status.INVALID
    assert Pipeline((row(ALONE, 100), row(PREPARING, 1e5)), 2, work).verdict()


class Network:
    """A network whose outputs tell its inputs; `spoil` changes those after so many calls."""

    def __init__(self, spoil=None):
        self.calls = 0
        self.spoil = spoil

    def __call__(self, inputs):
        self.calls += 1
        output = inputs.flatten(1)[:, ::7] + 1
        return output * 2 if self.spoil and self.calls > self.spoil else output


def pictures(size):
    import torch

    def transform(number):
        return torch.full((3, 4, 4), float(number))

    return Pictures(range(3), lambda number: number, transform, size, 2)


def run(network, size=4, device=None, blocks=None):
    import torch

    made = pictures(size)
    images = torch.randn(size, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    try:
        device = device or CpuBackend().open(0)
        return pipeline(device, network, images, made, 2, APART, 0.05, blocks)
    finally:
        made.close()


def test_pictures_come_in_order_and_go_round():
    made = pictures(2)
    try:
        for _ in range(2):
            batches = [[int(row[0, 0, 0]) for row in batch] for batch in made.batches(4)]
            assert batches == [[0, 1], [2, 0], [1, 2], [0, 1]]
    finally:
        made.close()


def test_a_picture_that_cannot_be_read_is_raised():
    def read(number):
        raise ValueError("no picture")

    made = Pictures(range(3), read, lambda each: each, 2, 2)
    try:
        with pytest.raises(ValueError, match="no picture"):
            next(made.batches(1))
    finally:
        made.close()


def test_on_the_cpu_nothing_is_copied():
    blocks = Blocks()
    found = run(Network(), blocks=blocks)
    assert [each.name for each in found.rows] == list(CLAIMS)
    # without the network the card is idle
    assert [each.name for each in blocks.done] == [f"pipeline {name}" for name in (ALONE, PREPARED)]
    assert all(each.pictures > 0 for each in blocks.done)
    rates = {each.name: each.samples_per_second for each in found.rows}
    assert rates[ALONE]
    assert rates[PREPARED]
    assert rates[PREPARING]
    assert rates[COPIED] is rates[OVERLAPPED] is None
    assert all(each.samples_per_second or each.reason for each in found.rows)
    assert all(figure.value is not None or figure.reason for figure in found.figures())
    assert found.verdict()


def test_outputs_that_change_are_caught():
    found = run(Network(spoil=12))
    assert found.verdict().status is Status.FAIL
    assert "apart" in found.verdict().sentences[0]


def test_threads():
    assert threads() >= 1

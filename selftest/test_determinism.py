"""One bit in one repeat is found, named and judged as its mode asks; the clock's calls as well."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fixtures.core import determinism
from fixtures.core.backends import backend
from fixtures.core.backends.base import Device
from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.determinism import Comparison, difference, relative
from fixtures.core.latency import PLANS
from fixtures.core.records import Limit, Status
from fixtures.core.regimes import REGIMES
from fixtures.core.steady import Ceilings
from fixtures.timing import Measure
from selftest.simulated import CARDS, needs_cards, variables

torch.set_num_threads(1)

WIDE = Limit.row("relative_l2_error", "<=", 1e-3, "a selftest's")
NARROW = Limit.row("relative_l2_error", "<=", 1e-9, "a selftest's")


@pytest.fixture
def device():
    return backend("cpu").open(0)


class Net(nn.Module):
    """Gives its pictures' means and their squares, and does `spoil` to the output of some calls."""

    def __init__(self, spoil=None, calls=()):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        self.spoil, self.calls, self.count = spoil, calls, 0

    def forward(self, x):
        self.count += 1
        out = x.mean((2, 3)) @ self.weight + 1
        return self.spoil(out.clone()) if self.count in self.calls else out


def images(count=2):
    return torch.linspace(-1, 1, count * 3 * 16).reshape(count, 3, 4, 4)


def flip(index, bit):
    def spoil(out):
        words = out.view({2: torch.int16, 4: torch.int32}[out.element_size()])
        words[index] ^= 1 << bit
        return out

    return spoil


# --- differences --------------------------------------------------------------------------------


def test_equal_bits_are_no_difference():
    values = torch.tensor([1.0, -0.0, math.nan, math.inf])
    assert difference(values, values.clone()) is None


def floats(*bits):
    return torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)


@pytest.mark.parametrize(
    ("one", "other", "xor", "size"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0]), "0x80000000", 0.0),
        (floats(0x7FC00000), floats(0x7FC00001), "0x00000001", 0.0),
        (torch.tensor([1.0]), torch.tensor([math.nan]), "0x40400000", math.inf),
        (torch.tensor([math.inf]), torch.tensor([-math.inf]), "0x80000000", math.inf),
        (torch.tensor([1.0]), torch.tensor([1 + 2.0**-23]), "0x00000001", 2.0**-23),
        (torch.tensor([-1.0]), torch.tensor([1.0]), "0x80000000", 2.0),
        (torch.tensor([1.0]).half(), torch.tensor([1.5]).half(), "0x0200", 0.5),
        (torch.tensor([1.0]).bfloat16(), torch.tensor([-1.0]).bfloat16(), "0x8000", 2.0),
        (torch.tensor([0.0]), torch.tensor([1.0]), "0x3f800000", math.inf),
    ],
)
def test_signs_of_zero_and_payloads_of_nan_count(one, other, xor, size):
    found = difference(one, other, 7)
    assert (found.number, found.index, found.xor, found.elements) == (7, (0,), xor, 1)
    assert found.relative == size


def test_the_first_element_that_differs_is_named():
    one = torch.zeros(2, 3, 4)
    other = one.clone()
    other[1, 2, 1] = 1
    other[1, 2, 3] = 1
    found = difference(one, other)
    assert (found.index, found.elements, found.of) == ((1, 2, 1), 2, 24)


def test_another_dtype_or_shape_differs_everywhere():
    one = torch.zeros(2, 3)
    for other in (one.double(), one[0]):
        found = difference(one, other)
        assert (found.elements, found.relative) == (6, math.inf)


def test_relative_is_never_nan():
    nothing = torch.zeros(3)
    for one, other in (
        (nothing, nothing),
        (nothing + math.nan, nothing + math.nan),
        (nothing, nothing + math.nan),
    ):
        assert not math.isnan(relative(one, other))


# --- repeats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("strict", [True, False])
def test_a_device_that_repeats_itself_passes(device, regime, strict):
    found = determinism.repeats(device, Net(), images(), REGIMES[regime], 4, strict)
    assert found.verdict()
    assert (found.compared, found.differing, found.doubts) == (3, 0, ())
    assert found.judge(NARROW)
    json.dumps(found.as_json())


@pytest.mark.parametrize("bit", [0, 22, 31])
def test_one_bit_in_one_repeat_fails(device, bit):
    net = Net(flip((1, 3), bit), calls=(4,))
    found = determinism.repeats(device, net, images(), REGIMES["default"], 5, strict=True)
    sentence = repr(found.verdict())
    assert found.verdict().status is Status.FAIL
    assert sentence.startswith(
        "the network with deterministic algorithms, default, batch 2: 1 of 4 repeats differ from "
        f"the first, repeat 4 at first: element [1, 3] differs in bits 0x{1 << bit:08x}, 1 of 8 "
        "elements differ, relative L2 difference "
    )
    assert sentence.endswith(f"({device.identity().label})")
    assert [figure.value for figure in found.figures()][:2] == [4, 1]


def test_a_wrong_first_run_is_seen_by_all_others(device):
    net = Net(flip((0, 0), 5), calls=(1,))
    found = determinism.repeats(device, net, images(), REGIMES["default"], 12, strict=True)
    assert "11 of 11 repeats differ from the first, repeat 2 at first" in repr(found.verdict())
    assert len(found.differences) == determinism.KEPT


@pytest.mark.parametrize(
    ("limit", "passes"),
    [(None, True), (WIDE, True), (NARROW, False)],
    ids=["none", "wide", "tight"],
)
def test_without_the_flag_a_difference_is_told_and_judged_by_size(device, limit, passes):
    net = Net(flip((0, 1), 3), calls=(2, 3))
    found = determinism.repeats(device, net, images(), REGIMES["default"], 4, strict=False)
    assert found.verdict()
    assert "2 of 3 repeats differ from the first" in found.doubts[0]
    assert bool(found.judge(limit)) == passes
    if not passes:
        assert "repeat difference is " in repr(found.judge(limit))
        assert "must be <= 1e-09 (the network as it is set up, default, batch 2, repeat 2" in repr(
            found.judge(limit)
        )


def test_the_worst_repeat_is_judged_however_late_it_comes(device):
    class Worse(Net):
        def forward(self, x):
            out = super().forward(x)
            return out * (1 + (2.0**-20 if self.count < 15 else 0.5) * (self.count > 1))

    found = determinism.repeats(device, Worse(), images(), REGIMES["default"], 16, strict=False)
    assert found.differing == 15
    assert found.worst == pytest.approx(0.5, rel=0.01)
    assert "repeat 16" in repr(found.judge(WIDE)) or "repeat 15" in repr(found.judge(WIDE))


def test_nan_beside_a_number_is_beyond_every_limit(device):
    net = Net(lambda out: out * math.nan, calls=(2,))
    found = determinism.repeats(device, net, images(), REGIMES["default"], 3, strict=False)
    assert not found.judge(WIDE)


def test_nothing_compared_fails(device):
    found = determinism.repeats(device, Net(), images(), REGIMES["default"], 1, strict=False)
    assert "nothing was compared" in repr(found.verdict())


def test_the_flag_is_on_while_it_runs_and_as_before_afterwards(device):
    seen = []

    class Looking(Net):
        def forward(self, x):
            seen.append(
                (
                    torch.are_deterministic_algorithms_enabled(),
                    torch.is_deterministic_algorithms_warn_only_enabled(),
                )
            )
            return super().forward(x)

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        determinism.repeats(device, Looking(), images(), REGIMES["default"], 2, strict=True)
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    with pytest.raises(ValueError), determinism.deterministic():
        raise ValueError
    assert not torch.are_deterministic_algorithms_enabled()
    assert seen == [(True, False)] * 2


def test_an_operator_without_a_deterministic_form_is_an_error(device):
    class Scattering(Net):
        def forward(self, x):
            # put_ without accumulation: torch has no deterministic form of it
            out = super().forward(x).clone()
            return out.put_(torch.tensor([0]), torch.ones(1), accumulate=False)

    with pytest.raises(RuntimeError, match="deterministic"):
        determinism.repeats(device, Scattering(), images(), REGIMES["default"], 2, strict=True)


# --- batches ------------------------------------------------------------------------------------


def test_rows_that_do_not_depend_on_their_batch(device):
    found = determinism.invariance(device, Net(), images(8), REGIMES["default"], (2, 8))
    assert found.verdict()
    assert (found.compared, found.rows, found.worst) == (8, (), None)
    assert found.judge(NARROW)


def test_a_row_that_depends_on_its_batch_is_named(device):
    class Leaning(Net):
        def forward(self, x):
            out = super().forward(x)
            if len(x) == 8:
                out[3] = out[3] + 2.0**-10
            return out

    found = determinism.invariance(device, Leaning(), images(8), REGIMES["default"], (2, 8))
    assert found.verdict(), "a difference of roundings is no fault by itself"
    assert [(each.row, each.batch) for each in found.rows] == [(3, 8)]
    assert found.judge(None)
    assert found.judge(Limit.row("x", "<=", 0.1, "a selftest's"))
    assert "row 3 alone and in a batch of 8, default" in repr(found.judge(NARROW))
    json.dumps(found.as_json())


def test_swapped_rows_are_far_apart(device):
    class Swapping(Net):
        def forward(self, x):
            return super().forward(x).flip(0)

    found = determinism.invariance(device, Swapping(), images(8), REGIMES["default"], (2, 8))
    assert len(found.rows) == 8
    assert not found.judge(WIDE)


def test_no_batch_is_no_evidence(device):
    assert not determinism.invariance(device, Net(), images(1), REGIMES["default"], (2,)).verdict()


# --- timed calls --------------------------------------------------------------------------------


class Benchmark:
    """As much of pytest-benchmark's fixture as the timer uses."""

    def pedantic(self, call, setup, rounds, iterations):
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[]))
        for _ in range(rounds):
            setup()
            call()
            self.stats.stats.data.append(0.001)


SHORT = dataclasses.replace(
    PLANS["quick"],
    warm_up=Ceilings(0.0, 30, 0.02),
    batch_warm_up=Ceilings(0.0, 30, 0.02),
    block_s=0.01,
    throughput_s=0.05,
)


def timer(model):
    return Measure(Benchmark(), Device(CpuBackend()), model, 0.1, SHORT, lambda *_: None)


class Late(Net):
    """Spoils its output in the calls from `first` on after it was told that timing began."""

    def __init__(self, spoil, at):
        super().__init__(spoil)
        self.at = at

    def begin(self):
        self.calls = tuple(self.count + n for n in self.at)


def spoiled(kind, model):
    measure = timer(model)
    usual = measure._time

    def begin(*given, **named):
        model.begin()
        return usual(*given, **named)

    measure._time = begin
    return getattr(measure, kind)(images())


@pytest.mark.parametrize("kind", ["latency", "throughput"])
def test_a_bit_that_flips_while_it_is_timed_is_named(kind):
    model = Late(flip((1, 2), 30), at=(5,))
    measured, outputs, same = spoiled(kind, model)
    found = same.result()
    assert found.compared >= 10
    assert (found.differing, found.differences[0].number) == (1, 5)
    assert found.differences[0].xor == "0x40000000"
    assert "timed at batch 2: 1 of" in found.doubts[0]
    assert "timed forward 5 at first: element [1, 2] differs" in found.doubts[0]
    assert not found.judge(WIDE)
    number, output = same.strange[0]
    assert number == 5
    assert not torch.equal(output, outputs[0])
    assert len(outputs) == len(measured.seconds)


def test_every_forward_of_a_block_is_compared_and_none_while_it_is_timed(monkeypatch):
    model = Net()
    measure = timer(model)
    taken = []
    usual = Comparison.take
    monkeypatch.setattr(
        Comparison, "take", lambda self, out: (taken.append(model.count), usual(self, out))[1]
    )
    measured, _, same = measure.throughput(images())
    assert same.result().compared + 1 == measured.calls * len(measured.seconds) == len(taken)
    blocks = {at - taken[0] for at in taken}
    assert blocks == {n * measured.calls for n in range(len(measured.seconds))}


# --- simulated cards ----------------------------------------------------------------------------


@needs_cards
def test_a_card_that_rounds_by_chance_is_caught(suite):
    outcome = suite.run(
        *("tests/test_determinism.py", *CARDS, "--simulate", "1", "--regimes", "default"),
        *("--repeats", "4", "--faults"),
        '[{"kind": "nondeterministic_last_bit", "operator": "aclnnConvolution"}]',
        **variables(),
    )
    assert outcome.code == 1
    sentence = outcome.case("test_repeats_deterministic")["sentences"][0]
    assert "3 of 3 repeats differ from the first, repeat 2 at first: element [0, 0]" in sentence
    assert "serial" in sentence
    told = outcome.case("test_repeats_as_set_up")
    assert told["status"] == "PASS"
    assert "3 of 3 repeats differ" in told["doubts"][0]
    assert outcome.case("test_batch_invariance")["status"] == "PASS"

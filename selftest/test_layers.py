"""Where device and reference part: what is planted is named, and nothing healthy is."""

import copy
import dataclasses
import functools
import math
import re
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fixtures.core import copies, layers, weights
from fixtures.core.backends import backend
from fixtures.core.emulation import Emulation, float64_mode
from fixtures.core.layers import Alone, Divergence, Part, Step
from fixtures.core.lockstep import Layout, Lockstep, _relative
from fixtures.core.networks import network
from fixtures.core.records import MathMode, Status
from fixtures.core.regimes import REGIMES
from fixtures.core.watch import End, Follower, align, parts_of

NAME = "test_convnext.r160_in1k"
BLOCK = "stages.2.blocks.1"
CPU = backend("cpu").open(0)


def made(name):
    row = network(name)
    plan = weights.resolve("synthetic", row, None, 0)
    return weights.build(row, plan, None)[0].eval()


def pictures(model, count=1):
    size = model.pretrained_cfg["input_size"]
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return made(NAME)


@pytest.fixture(scope="module")
def images(model):
    return pictures(model)


def parted(model, images, device_model=None, regime="default", arithmetic=None):
    """`device_model` (a copy by default) followed beside `model`."""
    row = REGIMES[regime]
    with row.entered(CPU):
        declared = arithmetic or row.arithmetic(CPU.math_mode())
    other = copy.deepcopy(model) if device_model is None else device_model
    return layers.locate(model, other, images, CPU, row, declared)


class Planted(TorchFunctionMode):
    """A device that does something else with the results of one of torch's functions: with each,
    or with the call of that number, or where `where` says so."""

    def __init__(self, name, change, nth=None, where=None):
        super().__init__()
        self.name, self.change, self.nth, self.where, self.calls = name, change, nth, where, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.__name__ != self.name or (self.where and not self.where(result)):
            return result
        self.calls += 1
        return self.change(result) if self.nth in (None, self.calls) else result


def scaled(axis, index, factor):
    def change(result):
        result = result.clone()
        result.select(axis, index).mul_(factor)
        return result

    return change


# --- nothing healthy is named ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "regime"),
    [
        (NAME, "default"),
        (NAME, "bf16"),
        (NAME, "autocast-fp16"),
        ("convnext_atto.d2_in1k", "ieee"),
        ("test_resnet.r160_in1k", "default"),
        ("test_resnet.r160_in1k", "autocast-bf16"),
        ("test_vit.r160_in1k", "default"),
        ("test_vit.r160_in1k", "fp16"),
        ("test_efficientnet.r160_in1k", "autocast-bf16"),
    ],
)
def test_a_healthy_device_follows(name, regime):
    """Views, in-place functions, attention, casts: every call is judged, and right."""
    model = made(name)
    found = parted(model, pictures(model), regime=regime)

    assert repr(found.verdict()) == "PASS"
    assert found.calls == len(found.steps) > 40
    assert [step.index for step in found.steps] == list(range(1, found.calls + 1))
    assert not any(step.unjudged for step in found.steps)
    assert (found.parameters, found.missing, found.extra, found.replay_differs) == ((), (), (), 0)
    assert {part.name for part in found.parts if part.block} == {
        name for name, block in parts_of(model).items() if block
    }
    figures = {figure.name: figure.value for figure in found.figures()}
    assert 0 < figures["local_error_in_limits"] <= 0.5
    assert figures["operators_wrong"] == 0
    assert figures["first_wrong_step"] is None


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("form", ["hf32", "tf32"])
def test_a_declared_shortcut_is_no_error(model, images, form, truncate):
    """Factors rounded as declared, to nearest or truncated, and the declared GELU, are right."""
    declared = MathMode(form, form, "tanh")
    with Emulation(declared, REGIMES["default"], truncate):
        found = parted(model, images, arithmetic=declared)

    assert repr(found.verdict()) == "PASS"
    assert max(step.share for step in found.steps if step.family == "inner") < 0.5


class InOrder(TorchFunctionMode):
    """Linear layers sum one product after the other."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        x, weight, bias = args
        total = x.new_zeros(*x.shape[:-1], len(weight))
        for n in range(x.shape[-1]):
            total.addcmul_(x[..., n : n + 1], weight[:, n])
        return total + bias


def test_another_order_of_summation_is_no_error(model, images):
    with InOrder():
        found = parted(model, images)

    assert repr(found.verdict()) == "PASS"
    assert max(step.share for step in found.steps if step.function == "linear") < 0.1


def test_one_object_may_be_both(model, images):
    """The same module is watched in two threads at once."""
    assert repr(parted(model, images, model).verdict()) == "PASS"
    assert not any(module._forward_hooks for module in model.modules())


# --- what is planted is named ----------------------------------------------------------------


def relu(model):
    model.get_submodule(f"{BLOCK}.mlp").act = nn.ReLU()


def negated(model):
    model.get_submodule(f"{BLOCK}.conv_dw").weight.data.neg_()


def dropped_channel(model):
    downsample = model.get_submodule("stages.2.downsample.1")
    downsample.weight.data[5] = 0
    downsample.bias.data[5] = 0


def large_epsilon(model):
    model.get_submodule(f"{BLOCK}.norm").eps = 1e-3


def lost_gamma(model):
    model.get_submodule(BLOCK).gamma = None


def skipped(model):
    model.get_submodule("stages.2.blocks")[1] = nn.Identity()


def subtracted(model):
    block = model.get_submodule(BLOCK)

    def forward(x):
        y = block.mlp(block.norm(block.conv_dw(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return block.drop_path(y.mul(block.gamma.reshape(1, -1, 1, 1))) - block.shortcut(x)

    block.forward = forward


class Scaled(nn.Module):
    """A module whose result is 1 % too large."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 1.01


def scaled_mean(model):
    model.head.global_pool.pool = Scaled(model.head.global_pool.pool)


def swapped_rows(model):
    weight = model.head.fc.weight.data
    weight[[3, 4]] = weight[[4, 3]]


def one_bit(model):
    model.get_submodule(f"{BLOCK}.mlp.fc1").weight.data.view(torch.int32)[3, 4] ^= 1


@pytest.fixture(scope="module")
def changed(model, images):
    """`changed(change)`: a copy of the network, changed, beside the network; followed once."""

    @functools.cache
    def followed(change):
        other = copy.deepcopy(model)
        change(other)
        return parted(model, images, other)

    return followed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (relu, f"operator relu, where the reference calls gelu, of {BLOCK}.mlp.act (step 61 of"),
        (negated, f"operator conv2d of {BLOCK}.conv_dw (step 57 of 122): local error 2, must be"),
        (negated, f"other bits than on the CPU: {BLOCK}.conv_dw.weight in 2352 of 2352 elements"),
        (dropped_channel, "operator conv2d of stages.2.downsample.1 (step 45 of 122): local error"),
        (large_epsilon, f"operator layer_norm of {BLOCK}.norm (step 59 of 122): local error 0.000"),
        (lost_gamma, f"block {BLOCK} (steps 57 to 67 of 122): local error"),
        (lost_gamma, f"it does not call mul of {BLOCK}, which the reference calls"),
        (lost_gamma, f"the network on cpu has no parameter {BLOCK}.gamma"),
        (skipped, f"block {BLOCK} (steps 57 to 67 of 122): local error"),
        (skipped, f"it does not call conv2d of {BLOCK}.conv_dw, layer_norm of {BLOCK}.norm"),
        (skipped, "and 6 more"),
        (subtracted, f"operator sub, where the reference calls add, of {BLOCK} (step 67 of 122)"),
        (scaled_mean, "it calls mul of head.global_pool.pool, which the reference does not"),
        (swapped_rows, "operator linear of head.fc (step 122 of 122): local error"),
        (swapped_rows, "head.fc.weight in 128 of 64000 elements"),
        (one_bit, f"{BLOCK}.mlp.fc1.weight in 1 of 9216 elements"),
    ],
)
def test_a_wrong_network_is_named(changed, change, said):
    """Each of these is the first thing wrong, and the sentence says which."""
    verdict = changed(change).verdict()

    assert verdict.status is Status.FAIL
    assert said in repr(verdict)
    located = repr(verdict).startswith("first wrong:")
    assert located == (change not in (scaled_mean, one_bit))


def test_a_wrong_module_of_the_device_is_no_excuse(model, images):
    """A block that is not there at all."""
    other = copy.deepcopy(model)
    del other.stages[2].blocks[3]
    found = parted(model, images, other)
    (part,) = (part for part in found.parts if part.name == "stages.2.blocks.3")

    assert part.unjudged == "the device's network has no such module"
    assert "it does not call conv2d of stages.2.blocks.3.conv_dw" in repr(found.verdict())


class Doubled(nn.Module):
    """An activation of two operands."""

    def forward(self, x):
        return torch.add(x, x)


def test_what_cannot_be_compared_is_not_judged(model, images):
    """A call whose operands are not those of the reference's; its block tells."""
    other = copy.deepcopy(model)
    other.get_submodule(f"{BLOCK}.mlp").act = Doubled()
    found = parted(model, images, other)
    (unjudged,) = (step for step in found.steps if step.unjudged)

    assert (unjudged.function, unjudged.instead_of) == ("add", "gelu")
    assert unjudged.unjudged == "the operands are not the same on both sides"
    assert unjudged.local_error is None
    assert repr(found.verdict()).startswith(f"first wrong: block {BLOCK} (steps 57 to 67 of 122)")


def test_a_block_that_is_never_run_is_judged_all_the_same(model, images):
    other = copy.deepcopy(model)
    blocks = other.stages[2].blocks
    blocks.forward = lambda x: blocks[3](blocks[2](blocks[0](x)))
    found = parted(model, images, other)

    assert repr(found.verdict()).startswith(
        "the device's network is another than the reference: it"
    )
    assert not any(part.wrong or part.unjudged for part in found.parts)


def test_an_output_of_another_shape_is_wrong(model, images):
    other = copy.deepcopy(model)
    other.reset_classifier(7)
    found = parted(model, images, other)

    assert found.end_error == math.inf
    assert not found.verdict()
    assert _relative([images], []) == _relative([images], [images[0]]) == math.inf
    assert _relative([images * math.inf], [images]) == math.inf
    assert _relative([images], [torch.zeros_like(images)]) == pytest.approx(float(images.norm()))


@pytest.mark.parametrize(
    ("regime", "arithmetic", "power"),
    [("default", MathMode("hf32", gelu="tanh"), -6), ("bf16", None, -4)],
)
def test_a_single_channel_is_enough(model, images, regime, arithmetic, power):
    """One output channel of one operator off by 2^-6 in fp32, 2^-4 in bf16, is named."""
    fault = Planted(
        "conv2d",
        scaled(1, 7, 1 + 2.0**power),
        where=lambda result: result.shape[1:] == (48, 10, 10),
    )
    if arithmetic is None:
        with fault:
            found = parted(model, images, regime=regime)
    else:
        with Emulation(arithmetic, REGIMES["default"], truncate=True), fault:
            found = parted(model, images, arithmetic=arithmetic)

    assert "operator conv2d of stages.2.downsample.1 (step 45 of 122): local error" in repr(
        found.verdict()
    )
    assert re.search(r"(local error \S+|worst) in slice 7 of axis 1", repr(found.verdict()))


def test_a_shortcut_that_is_not_declared_is_named(model, images):
    with Emulation(MathMode("hf32"), REGIMES["default"]):
        found = parted(model, images)

    assert repr(found.verdict()).startswith(
        "first wrong: operator conv2d of stem.0 (step 1 of 122)"
    )


@pytest.fixture(scope="module")
def once(model, images):
    """`once(nth)`: a device whose linear layer is wrong in the call of that number."""

    @functools.cache
    def followed(nth):
        with Planted("linear", lambda result: result * 1.5, nth):
            return parted(model, images)

    return followed


@pytest.mark.parametrize(
    ("nth", "said"),
    [
        # the reference's and the device's plain forwards make 19 calls each
        (25, "intermittent: a plain forward was wrong"),
        (39, "fc1 (step 8 of 122): in the device's own stream local error 0.5, must be <="),
        (39, "fed with the reference's operands it is right; intermittent: repeated with the same"),
        (40, "fc1 (step 8 of 122): local error 0.5, must be <= 4.9e-06; intermittent: repeated"),
        (44, "block stages.0.blocks.0 (steps 5 to 15 of 122): local error 0.0"),
        (44, "although each operator that it calls is right by itself; intermittent"),
    ],
)
def test_what_happens_once_is_intermittent(once, nth, said):
    """A fault in one call only: in the plain forward, the stream, a call alone, a block alone."""
    verdict = once(nth).verdict()

    assert verdict.status is Status.FAIL
    assert said in repr(verdict)


def test_what_depends_on_the_stream_is_told(model, images):
    """A device that is wrong for its own stream's operands only, each time."""
    seen = []

    def where(result):
        return result.shape == (1, 20, 20, 128) and any(result.equal(each) for each in seen)

    class Remember(Planted):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = super().__torch_function__(func, types, args, kwargs)
            if func is F.linear and result.shape == (1, 20, 20, 128) and len(seen) < 2:
                seen.append(result.clone())  # that of the device's plain forward is the stream's
            return result

    with Remember("linear", lambda result: result * 1.5, where=where) as fault:
        fault.where = lambda result: len(seen) == 2 and where(result)
        found = parted(model, images)

    words = repr(found.verdict())
    assert "operator linear of stages.1.blocks.0.mlp.fc1" in words
    assert "repeated with the operands of the stream it is wrong again" in words


def test_an_operand_that_was_overwritten_is_known():
    """The sum of a ResNet's block is in place: the stream's own operands are kept."""
    resnet = made("test_resnet.r160_in1k")
    images = pictures(resnet)
    blocks = sum(parts_of(resnet).values())
    with Planted("add_", lambda result: result.mul_(1.5), nth=2 * blocks + 1):
        words = repr(parted(resnet, images).verdict())

    assert "operator add of layer1.0 (step" in words
    assert "in the device's own stream local error 0.5" in words
    assert "intermittent: repeated with the same operands it is right" in words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda result: result * math.nan, "6400 of 6400 elements are not finite"),
        (lambda result: result.half(), "the result is float16"),
        (lambda result: result[..., :-1], "the result has the shape (1, 5, 5, 255), not"),
        (lambda result: result.to("meta"), "the result lies on meta"),
        (lambda result: (result, result), "it gives 2 tensors, not 1"),
    ],
)
def test_a_result_of_another_kind_is_told(model, images, change, said):
    """Where it matters to nobody downstream: in the calls that are fed by hand."""

    def last(result):  # of the last stage: the plain forwards, and the stream, go on
        return result.shape == (1, 5, 5, 256) and threading.current_thread().name == "alone"

    def alone(self, *arguments):
        thread = threading.current_thread()
        before, thread.name = thread.name, "alone"
        try:
            return judged(self, *arguments)
        finally:
            thread.name = before

    judged = Lockstep._judged
    with pytest.MonkeyPatch.context() as patch, Planted("linear", change, where=last):
        patch.setattr(Lockstep, "_judged", alone)
        patch.setattr(copies, "to_cpu", lambda device, tensor: tensor)
        verdict = parted(model, images).verdict()

    assert f"operator linear of stages.3.blocks.0.mlp.fc1 (step 97 of 122): {said}" in repr(verdict)


def test_the_device_is_never_swallowed(model, images):
    """An error of the device is raised, and noted; the threads end."""

    class Lost(Exception):
        pass

    def lose(result):
        raise Lost("error code 507015")

    before = threading.active_count()
    with pytest.raises(Lost), Planted("layer_norm", lose, nth=32):
        parted(model, images)

    assert threading.active_count() == before
    assert not any(module._forward_hooks for module in model.modules())


def test_a_copy_that_changes_a_bit_is_raised(model, images, monkeypatch):
    real, calls = copies._compare, []

    def compare(one, other, what):
        calls.append(what)
        if len(calls) == 60:
            other = other.clone()
            other.view(torch.int32).flatten()[0] ^= 1
        real(one, other, what)

    def far(device, tensor):
        compare(tensor, tensor.clone(), "a copy from far")
        return tensor

    monkeypatch.setattr(copies, "to_cpu", far)
    with pytest.raises(copies.CorruptCopy, match="a copy from far changed 1 of"):
        parted(model, images)


def test_a_reference_that_is_no_number_is_invalid(model, images):
    found = parted(model, images * math.nan)

    assert found.verdict().status is Status.INVALID
    assert repr(found.verdict()) == "the reference is zero or not finite"


def test_a_device_that_varies_is_doubted(model, images):
    """In the last bits of the output, from run to run."""
    count = iter(range(10_000))

    def jitter(result):
        return result * (1 + next(count) % 2 * 2.0**-23)

    with Planted("linear", jitter, where=lambda result: result.shape == (1, 1000)):
        found = parted(model, images)

    assert found.verdict()
    assert "two forwards of the same input differ in" in found.doubts[0]


# --- the parts -------------------------------------------------------------------------------


def test_a_reference_that_fails_is_raised():
    """What goes wrong in the other thread comes up in this one."""

    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("broken")

    follower = Follower(Broken(), torch.zeros(1), float64_mode())
    with pytest.raises(ValueError, match="broken"), follower.following():
        follower.advance()

    follower = Follower(nn.ReLU(), torch.zeros(1), float64_mode())
    with follower.following():
        with pytest.raises(ZeroDivisionError):
            follower.do(lambda: 1 / 0)
        assert follower.advance().name == "relu"


def test_a_module_that_gives_several_tensors_is_no_part():
    class Two(nn.Module):
        def forward(self, x):
            return x.relu(), x

    follower = Follower(nn.Sequential(Two()), torch.zeros(1), float64_mode(), ("0",))
    with follower.following():
        assert follower.advance().name == "relu"
        assert isinstance(follower.advance(), End)


def call(name, module="", *shape):
    return module, name, (shape,)


def test_calls_are_paired():
    """The same calls; one in another's place; one in a wrapper; missing and extra ones."""
    a, b, c = call("conv2d", "a", 2), call("gelu", "b", 2), call("add", "", 2)

    assert align([a, b, c], [a, b, c]) == ({0: 0, 1: 1, 2: 2}, [], [])
    assert align([a, b, c], [a, call("relu", "b", 2), c]) == ({0: 0, 1: 1, 2: 2}, [], [])
    assert align([a, b, c], [a, call("gelu", "b.inner", 2), call("mul", "b", 2), c]) == (
        {0: 0, 1: 1, 3: 2},
        [],
        [2],
    )
    assert align([a, b, c], [a, c]) == ({0: 0, 1: 2}, [1], [])
    assert align([a, c], [a, b, c]) == ({0: 0, 2: 1}, [], [1])
    assert align([a], [call("conv2d", "a", 3)]) == ({}, [0], [0])


def test_parts_are_the_blocks_and_what_is_beside_them(model):
    found = parts_of(model)

    assert found["stem"] is False
    assert found["stages.2.downsample"] is False
    assert found["stages.2.blocks.1"] is True
    assert "stages.2" not in found


@pytest.mark.parametrize(
    ("tensor", "order"),
    [
        (torch.zeros(2, 3, 4), (0, 1, 2)),
        (torch.zeros(2, 3, 4).permute(2, 0, 1), (1, 2, 0)),
        (torch.zeros(3, 1).expand(3, 4), ()),
        (torch.zeros(4, 6)[:, ::2], ()),
    ],
)
def test_an_operand_keeps_its_layout(model, tensor, order):
    """What is fed by hand lies in memory as the device's own operand does."""
    layout = Layout.of(tensor)
    values = torch.randn(tensor.shape)
    placed = Lockstep(model, model, values, CPU, REGIMES["default"], MathMode())._placed(
        values, layout
    )

    assert layout.order == order
    assert placed.equal(values)
    assert placed.data_ptr() != values.data_ptr()
    if order:
        assert placed.stride() == tensor.stride()


# --- what is said ----------------------------------------------------------------------------


def step(index, share=0.1, **more):
    values = {
        "index": index, "function": "linear", "module": f"m{index}", "part": "", "depth": 0,
        "family": "inner", "local_error": 1e-7, "local_limit": 1e-6, "local_share": share,
        "before": 1e-7, "accumulated_error": 2e-7, "emulated_error": 2e-7,
    }  # fmt: skip
    return Step(**{**values, **more})


def divergence(*steps, **more):
    values = {"end_error": 1e-7, "end_limit": 1e-6, "plain_error": 1e-7, "calls": len(steps)}
    return Divergence("ieee", "npu:0", "arithmetic", 2, steps=steps, **{**values, **more})


def test_nothing_passes_for_lack_of_evidence():
    nothing = divergence()
    unjudged = divergence(step(1, None, local_error=None, unjudged="the operands differ"))

    for found in (nothing, unjudged):
        assert found.verdict().status is Status.FAIL
        assert repr(found.verdict()) == "no operator of the network was judged on npu:0"
        assert found.figures()[0].value is None
    assert not divergence(step(1, math.nan)).verdict()
    assert not divergence(step(1), end_error=math.nan).verdict()
    assert not divergence(step(1), end_limit=0.0).verdict()


def test_where_nothing_by_itself_is_wrong_the_jump_is_named():
    """The end is wrong, no operator is: the first step that leaves the emulation is named."""
    steps = (step(1), step(2, 0.7, accumulated_error=1e-3), step(3, accumulated_error=1e-3))
    words = repr(divergence(*steps, end_error=1e-3, plain_error=1e-3).verdict())

    assert words.startswith("the output is wrong (relative error 0.001, must be <= 1e-06) and no")
    assert "leaves that of the emulated arithmetic at operator linear of m2 (step 2 of 3" in words
    assert "nearest to its limit is operator linear of m2 (step 2, 0.7 of it)" in words
    assert words.endswith("this output is that of a plain forward")
    back = (step(1, accumulated_error=1e-3), step(2))
    found = divergence(*back, end_error=1e-3, plain_error=1e-3, replay_differs=4)
    assert "nowhere does the error leave" in repr(found.verdict())
    assert repr(found.verdict()).endswith("differs in 4 elements from that of a plain forward")


def test_what_is_first_in_the_order_of_execution_is_named():
    """An operator of a block before the block; an earlier block before an operator."""
    early = Part("a", False, 0, 1, 2, 1.0, 1e-6, 1e-7)
    late = Part("b", True, 1, 3, 4, math.nan, 1e-6, 1e-7, repeated="repeated, it is wrong again")
    words = "local error 1, must be <= 0.1"
    bad = step(3, 10.0, module="", words=words)

    assert "operator linear of the network itself (step 3 of 4): local error 1" in repr(
        divergence(step(1), step(2), bad, step(4), parts=(late,)).verdict()
    )
    assert repr(divergence(step(1), step(2), bad, parts=(early, late)).verdict()).startswith(
        "first wrong: module a (steps 1 to 2 of 3): local error 1, must be <= 1e-06, although"
    )
    assert repr(divergence(step(1), parts=(late,)).verdict()).endswith(
        "right by itself; repeated, it is wrong again"
    )


def test_calls_without_a_partner_are_told():
    found = divergence(
        step(1),
        missing=tuple(Alone("mul", f"a.{n}") for n in range(5)),
        extra=(Alone("add", ""),),
    )

    assert repr(found.verdict()) == (
        "the device's network is another than the reference: it does not call mul of a.0, mul of "
        "a.1, mul of a.2 and 2 more, which the reference calls; it calls add of the network "
        "itself, which the reference does not"
    )


def test_the_json_holds_the_steps(model, changed):
    values = changed(relu).as_json()

    assert values["first_wrong_step"] == 61
    assert values["sentence"].startswith("first wrong: operator relu")
    wrong = [row for row in values["steps"] if row["wrong"]]
    assert [(row["index"], row["function"], row["instead_of"]) for row in wrong] == [
        (61, "relu", "gelu")
    ]
    assert wrong[0]["part"] == BLOCK
    assert wrong[0]["depth"] == list(parts_of(model)).index(BLOCK)
    assert {row["name"] for row in values["blocks"] if row["wrong"]} == {BLOCK}
    assert (
        dataclasses.asdict(Part("a", True, 0, 1, 2, None, None, None, "why"))["unjudged"] == "why"
    )
    assert not Part("a", True, 0, 1, 2, None, None, None, "why").wrong

"""Training: a healthy step passes in every arithmetic, a planted fault does not, and is named."""

import copy
import dataclasses
import json
import math

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.core import (
    dispatched,
    fine_tuning,
    inputs,
    loss_scaling,
    optimizers,
    stochastic_depth,
    training,
)
from fixtures.core.backends import backend
from fixtures.core.backends.base import Backend, Device
from fixtures.core.dispatched import Dispatched, Watch
from fixtures.core.records import MathMode, Status
from fixtures.core.regimes import REGIMES
from fixtures.core.rounding import rounded
from fixtures.core.weights import draw
from selftest.simulated import CARDS, folder, needs_cards

CPU = backend("cpu").open(0)
DEFAULT = REGIMES["default"]
MODES = {
    "ieee": MathMode(),
    "npu": MathMode(conv="hf32", gelu="tanh"),
    "tf32": MathMode(conv="tf32", matmul="tf32"),
}


def images(count=2, size=160, seed=0):
    rows = [inputs.make(n, (3, size, size), (0.5,) * 3, (0.5,) * 3, seed)[1] for n in range(count)]
    return torch.stack([torch.from_numpy(row) for row in rows])


def network(name="test_convnext.r160_in1k", **options):
    model = timm.create_model(name, pretrained=False, **options).eval()
    draw(model, 0)
    return model


@pytest.fixture(scope="module")
def model():
    """The small network with GELU in the form that most networks ask for."""
    return network(act_layer="gelu")


@pytest.fixture(scope="module")
def bench(model):
    return training.Bench(model, training.exercise(model, images()), CPU)


def judge(measured):
    """Everything that a test of the suite would judge: a verdict."""
    verdict = measured.verdict()
    for each in measured.judged():
        verdict &= each.limit.judge(each.figure, each.where)
    figures = [figure.name for figure in measured.figures()]
    assert len(set(figures)) == len(figures)
    assert {each.figure.name for each in measured.judged()} <= set(figures)
    json.dumps(measured.as_json(), allow_nan=False)
    return verdict


def planted(model, change):
    """A copy to which `change(network)` happens before each forward, on whatever copy of it."""
    faulty = copy.deepcopy(model)

    def before(module, given):
        change(module)

    faulty.register_forward_pre_hook(before)
    return faulty


def with_gradient(model, name, change):
    """A copy in which `change` is made of the gradient of one parameter."""

    def plant(module):
        dict(module.named_parameters())[name].register_hook(change)

    return planted(model, plant)


class Jitter(TorchDispatchMode):
    """Another order of summation: results of float32 operators are off by some roundings."""

    HIT = (*dispatched.FACTORS, *(getattr(torch.ops.aten, name) for name in (
        "native_layer_norm", "native_layer_norm_backward", "gelu", "gelu_backward", "mul", "sum",
        "native_batch_norm", "native_batch_norm_backward",
    )))  # fmt: skip

    def __init__(self, seed, ulps=2):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.ulps = ulps

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket not in self.HIT:
            return found
        return dispatched._each(found, self.moved)

    def moved(self, x):
        if x.dtype != torch.float32:
            return x
        by = torch.rand(x.shape, generator=self.generator, dtype=torch.float64) * 2 - 1
        return (x.double() * (1 + by * self.ulps * 2.0**-24)).float()


# --- the dispatched arithmetic ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "dilation", "bias"), [(1, 1, True), (2, 1, False), (1, 2, True)]
)
def test_depthwise_convolutions_by_shifted_sums_are_torchs_own(stride, dilation, bias):
    make = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 11, 9, generator=make, dtype=torch.float64)
    conv = nn.Conv2d(6, 6, (5, 3), stride, (2, 1), dilation, 6, bias).double()

    def run():
        given = x.clone().requires_grad_()
        conv.zero_grad()
        y = conv(given)
        (y * torch.arange(y.numel()).reshape(y.shape).sin()).sum().backward()
        return [y.detach(), given.grad, *(p.grad.clone() for p in conv.parameters())]

    wanted = run()
    with Dispatched(MathMode()):
        got = run()
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("truncate", [False, True])
def test_factors_are_rounded_backward_as_well(truncate):
    make = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=make).requires_grad_()
    w = torch.randn(8, 4, 3, 3, generator=make).requires_grad_()
    slope = torch.randn(2, 8, 6, 6, generator=make)
    with Dispatched(MathMode(conv="hf32"), truncate):
        F.conv2d(x, w).backward(slope)
    x2, w2, slope2 = (rounded(t.detach(), "hf32", truncate) for t in (x, w, slope))
    x2.requires_grad_()
    w2.requires_grad_()
    F.conv2d(x2, w2).backward(slope2)

    assert torch.equal(x.grad, x2.grad)
    assert torch.equal(w.grad, w2.grad)


@pytest.mark.parametrize(("declared", "asked", "form"), [
    ("erf", "none", "none"), ("tanh", "none", "tanh"), ("erf", "tanh", "tanh"),
])  # fmt: skip
def test_gelu_and_its_derivative_have_the_declared_form(declared, asked, form):
    x = torch.linspace(-4, 4, 101, dtype=torch.float64, requires_grad=True)
    with Dispatched(MathMode(gelu=declared)):
        y = F.gelu(x, approximate=asked)
        (slope,) = torch.autograd.grad(y.sum(), x)
    wanted = F.gelu(x, approximate=form)

    assert torch.equal(y, wanted)
    assert torch.equal(slope, torch.autograd.grad(wanted.sum(), x)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_products_are_float32_ones_rounded_once(dtype):
    make = torch.Generator().manual_seed(0)
    a, b = (torch.randn(32, 32, generator=make).to(dtype) for _ in range(2))
    with Dispatched(MathMode()) as mode:
        got = a @ b
    assert torch.equal(got, (a.float() @ b.float()).to(dtype))
    largest = mode.seen.largest_half
    assert largest == (float(got.abs().max()) if dtype == torch.float16 else 0)


def test_another_order_of_summation_moves_sums_by_what_adding_one_by_one_costs():
    make = torch.Generator().manual_seed(0)
    a, b = torch.randn(64, 1536, generator=make), torch.randn(1536, 64, generator=make)
    with Dispatched(MathMode(), order=0):
        moved = a @ b
    error = float((moved.double() - a.double() @ b.double()).norm() / (a @ b).norm())
    one_by_one = torch.zeros(64, 64)
    for n in range(1536):
        one_by_one += a[:, n : n + 1] * b[n]
    wanted = float((one_by_one.double() - a.double() @ b.double()).norm() / (a @ b).norm())
    assert wanted / 2 < error < 2 * wanted


class Kinked(nn.Module):
    """ReLUs in place and not, and a max pooling."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(F.relu_(x - 0.1).mean(dim=(2, 3)))


def test_a_kinked_networks_gates_are_followed():
    torch.manual_seed(0)
    kinked = Kinked()
    given = training.exercise(kinked, images(2, 32))
    assert given.kinked
    with Jitter(2, ulps=2.0**15):  # so many that some gates go the other way
        got, gates = training.device_step(kinked, given, CPU)
    assert [gate.kind for gate in gates] == ["relu", "max_pool2d", "relu"]
    free = training.reference_step(kinked, given)
    bound = training.reference_step(kinked, given, gates=gates)
    assert bound.flips > 0
    assert 0 < bound.flipped_share < 0.01
    name = "gradient/conv.weight"
    errors = [training.relative_error(got.tensors[name], each.tensors[name])
              for each in (free, bound)]  # fmt: skip
    assert errors[1] < errors[0], errors


def test_a_gate_that_is_wrong_is_no_rounding():
    torch.manual_seed(0)
    kinked = Kinked()
    broken = copy.deepcopy(kinked)
    broken.__class__ = type("Broken", (Kinked,), {
        "forward": lambda self, x: self.fc(F.relu(
            F.max_pool2d(F.relu(-self.conv(x)), 2) - 0.1).mean(dim=(2, 3)))
    })  # fmt: skip
    bench = training.Bench(kinked, training.exercise(kinked, images(2, 32)), CPU, broken)
    verdict = judge(bench.step(DEFAULT, MathMode()))
    assert not verdict
    assert "ReLUs or max poolings went the other way for " in repr(verdict)


def test_gates_of_another_network_are_not_followed():
    torch.manual_seed(0)
    kinked = Kinked()
    given = training.exercise(kinked, images(2, 32))
    bench = training.Bench(kinked, given, CPU)
    got, gates = training.device_step(kinked, given, CPU)
    judged = bench.judge("x", got, gates[:1], MathMode(), DEFAULT)
    assert "cannot be followed (max_pool2d" in judged.doubts[0]
    assert judge(judged)


def test_the_watch_changes_nothing():
    torch.manual_seed(0)
    kinked, x = Kinked(), images(2, 32)
    with Watch():
        watched = kinked(x)
    assert torch.equal(watched, kinked(x))


# --- one step --------------------------------------------------------------------------------


def test_a_healthy_cpu_passes_and_half_the_pictures_size_is_used(bench):
    measured = bench.step(DEFAULT, MathMode())
    assert judge(measured)
    assert measured.size == "80x80"
    assert len([row for row in measured.errors if row.name.startswith("gradient/")]) == len(
        list(bench.model.parameters())
    )


def test_a_network_of_one_size_keeps_it():
    vit = network("test_vit.r160_in1k", dynamic_img_size=False)
    given = training.exercise(vit, images())
    assert given.size == "160x160"
    assert judge(training.Bench(vit, given, CPU).step(DEFAULT, MathMode()))


def test_buffers_that_training_changes_are_judged():
    resnet = network("test_resnet.r160_in1k")
    bench = training.Bench(resnet, training.exercise(resnet, images()), CPU)
    measured = bench.step(DEFAULT, MathMode())
    assert judge(measured)
    assert any(each.limit is training.BUFFERS for each in measured.judged())

    bench.planted = planted(resnet, lambda module: module.bn1.eval())
    verdict = judge(bench.step(DEFAULT, MathMode()))
    assert "buffer " in repr(verdict)


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("name", MODES)
def test_other_orders_of_summation_pass(name, truncate, bench):
    for seed in range(2):
        with Jitter(seed):
            got = training._on_cpu(
                bench.model, bench.given, MODES[name], "float32", truncate=truncate
            )
        verdict = judge(bench.judge("x", got, (), MODES[name], DEFAULT))
        assert verdict


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_other_orders_of_summation_pass_in_half(half, bench):
    for seed in range(2):
        with Jitter(seed):
            got = training._on_cpu(bench.model, bench.given, MathMode(), "float32", half, 1024.0)
        regime = training.AUTOCAST[half]
        verdict = judge(bench.judge("x", got, (), MathMode(), regime, 1024.0))
        assert verdict


def channel(factor):
    """Scale the gradient of the fourth channel."""

    def change(gradient):
        gradient = gradient.clone()
        gradient[3] *= factor
        return gradient

    return change


PARAMETERS = (
    "stem.0.weight",
    "stages.0.blocks.0.conv_dw.weight",
    "stages.2.blocks.1.mlp.fc1.weight",
    "stages.1.blocks.0.norm.weight",
    "stages.3.blocks.1.gamma",
    "stages.3.downsample.1.bias",
    "head.fc.weight",
)


@pytest.mark.parametrize("name", PARAMETERS)
def test_one_channel_of_one_gradient_is_off_by_a_64th(name, bench):
    faulty = with_gradient(bench.model, name, channel(1 + 2.0**-6))
    verdict = judge(dataclasses.replace(bench, planted=faulty).step(DEFAULT, MathMode()))
    assert verdict.status is Status.FAIL
    assert f"error of gradient {name} is " in repr(verdict)
    assert "are allowed, 2 x the" in repr(verdict)


@pytest.mark.parametrize("mode", MODES)
def test_a_negated_gradient_is_named(mode, bench):
    name = "stages.2.blocks.0.mlp.fc2.weight"
    faulty = with_gradient(bench.model, name, lambda gradient: -gradient)
    verdict = judge(dataclasses.replace(bench, planted=faulty).step(DEFAULT, MODES[mode]))
    assert f"relative L2 error of gradient {name} is 2" in repr(verdict)


def test_the_gradient_in_which_the_backward_first_errs_is_named(bench):
    """What is wrong in a block's gradient is wrong in all before it."""

    def plant(module):
        block = module.stages[2].blocks[1]
        block.norm.register_full_backward_hook(lambda m, before, after: (before[0] * 1.01,))

    faulty = planted(bench.model, plant)
    verdict = judge(dataclasses.replace(bench, planted=faulty).step(DEFAULT, MathMode()))
    assert "gradients are wrong, nearest to the loss stages.2.blocks.1.conv_dw.bias" in repr(
        verdict
    )


def test_a_missing_gradient_is_named(bench):
    name = "stages.1.blocks.1.mlp.fc1.bias"

    def lose(module):
        dict(module.named_parameters())[name].requires_grad_(False)

    verdict = judge(
        dataclasses.replace(bench, planted=planted(bench.model, lose)).step(DEFAULT, MathMode())
    )
    assert "gradients missing is 1, must be == 0" in repr(verdict)
    assert name in repr(verdict)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_gradient_that_says_nothing_fails(value, bench):
    name = "stages.1.blocks.1.mlp.fc1.bias"
    faulty = with_gradient(bench.model, name, lambda gradient: torch.full_like(gradient, value))
    verdict = judge(dataclasses.replace(bench, planted=faulty).step(DEFAULT, MathMode()))
    assert f"error of gradient {name} is " in repr(verdict)


def test_a_wrong_loss_fails(bench, monkeypatch):
    golden = bench.step(DEFAULT, MathMode())  # references first
    own = training.loss_of
    monkeypatch.setattr(training, "loss_of", lambda logits, target: own(logits, target) * 1.01)
    got, _ = training.device_step(bench.model, bench.given, CPU)
    monkeypatch.undo()
    verdict = judge(bench.judge("x", got, (), MathMode(), DEFAULT))
    assert "the loss is off by 0.07" in repr(verdict)
    assert judge(golden)


def test_gelu_in_the_other_form_fails(bench):
    assert judge(bench.step(DEFAULT, MathMode()))
    verdict = judge(bench.step(DEFAULT, MathMode(gelu="tanh")))
    assert "training logits error in limits" in repr(verdict)


def test_more_exact_than_declared_passes(bench):
    assert judge(bench.step(DEFAULT, MathMode(conv="hf32")))


def test_nothing_passes_for_lack_of_evidence(bench):
    empty = training.Step({"loss": torch.tensor(7.0), "logits": torch.zeros(2, 1000)})
    verdict = judge(bench.judge("x", empty, (), MathMode(), DEFAULT))
    for words in ("gradient error in limits is not known", "gradients missing is 101"):
        assert words in repr(verdict)


def test_tensors_of_another_shape_or_too_many_fail(bench):
    golden = bench.golden("erf")
    other = {**golden.tensors, "gradient/stem.0.bias": torch.zeros(3)}
    assert not judge(bench.judge("x", training.Step(other), (), MathMode(), DEFAULT))
    more = {**golden.tensors, "gradient/else": torch.zeros(3)}
    verdict = judge(bench.judge("x", training.Step(more), (), MathMode(), DEFAULT))
    assert "gradient/else is there, and the reference has none" in repr(verdict)


def test_a_tensor_that_drowns_in_noise_is_told(bench):
    measured = bench.step(DEFAULT, MathMode())
    loud = dataclasses.replace(measured.errors[-1], emulated=1.0)
    golden = bench.golden("erf")
    emulated = bench.emulated(golden, MathMode())
    emulated = dataclasses.replace(emulated, errors={**emulated.errors, loud.name: (1.0, 1.0)})
    got = training.Step(dict(golden.tensors))
    judged = training.agree("x", got, golden, emulated, measured.allowed, bench.given, "")
    assert "1 tensors drown in the noise" in judged.doubts[0]


def test_an_emulation_that_overflows_bounds_nothing(bench):
    golden = bench.golden("erf")
    emulated = bench.emulated(golden, MathMode())
    name = next(name for name in emulated.errors if name.startswith("gradient/"))
    emulated = dataclasses.replace(emulated, errors={**emulated.errors, name: (math.inf, math.inf)})
    got = training.Step(dict(golden.tensors))
    allowed = bench.step(DEFAULT, MathMode()).allowed
    judged = training.agree("x", got, golden, emulated, allowed, bench.given, "")
    assert judged.verdict().status is Status.INVALID
    assert "the same arithmetic on the CPU overflows in 1 tensors" in repr(judged.verdict())


def test_the_loss_follows_its_logits(bench):
    """No change of the logits within an error moves the loss by more than is allowed for it."""
    golden = bench.golden("erf")
    z, target = golden.tensors["logits"], bench.given.target
    loss = float(golden.tensors["loss"])
    for error in (1e-5, 1e-3, 1e-1):
        allowed = training.loss_allowance(golden, target, error)
        slope = torch.zeros_like(z)
        slope[range(2), target] = 1.0
        for direction in (slope, -slope, torch.randn(z.shape).double()):
            moved = z + direction * error * z.norm() / direction.norm()
            assert abs(float(training.loss_of(moved, target)) - loss) <= allowed


def test_one_class_can_be_learnt():
    single = network(num_classes=1)
    bench = training.Bench(single, training.exercise(single, images()), CPU)
    assert judge(bench.step(DEFAULT, MathMode()))


def test_a_copy_that_did_not_arrive_is_no_gradient_fault(model):
    class Flipping(nn.Module):
        """A network whose move to a device flips the sign of one weight."""

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def to(self, *given, **options):
            with torch.no_grad():
                self.fc.weight[0, 0] *= -1
            return self

    with pytest.raises(training.copies.CorruptCopy, match=r"changed 1 of 6 elements of fc.weight"):
        with training.borrowed(Flipping(), CPU):
            pass


def test_memory_is_given_back(model):
    class Card(Backend):
        name = "cpu"
        emptied = 0

        def empty_cache(self, index):
            Card.emptied += 1

        def synchronize(self, index):
            pass

        def device_string(self, index):
            return "cpu"

    with training.borrowed(copy.deepcopy(model), Device(Card())) as network:
        network(images(1, 32)).sum().backward()
    assert Card.emptied == 1
    assert all(p.device.type == "meta" and p.grad is None for p in network.parameters())


def test_the_network_on_the_cpu_is_left_alone(bench, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bench.step(DEFAULT, MathMode())
    optimizers.observe(optimizers.OPTIMIZERS[0], model, bench.given, CPU)
    stochastic_depth.observe(model, images(2, 32), CPU)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


# --- optimizers ------------------------------------------------------------------------------

ROWS = {row.id: row for row in optimizers.OPTIMIZERS}


@pytest.mark.parametrize("name", ROWS)
def test_healthy_optimizers_pass(name, bench):
    measured = optimizers.observe(ROWS[name], bench.model, bench.given, CPU)
    assert judge(measured)
    assert measured.share > 0.1  # the bound is no more than an order of magnitude too wide


def lagging(parameters):
    """SGD whose momentum is reset before each step."""
    optimizer = optimizers._sgd(parameters)
    optimizer.register_step_pre_hook(lambda *given: optimizer.state.clear())
    return optimizer


def corrected_once(parameters):
    """AdamW whose count of steps stays at one: its bias correction is lost."""
    optimizer = optimizers._adamw(parameters)

    def reset(*given):
        for state in optimizer.state.values():
            state["step"].zero_()

    optimizer.register_step_pre_hook(reset)
    return optimizer


FAULTS = {
    "weight decay lost": ("sgd", lambda p: torch.optim.SGD(p, 0.125, momentum=0.9)),
    "momentum lost": ("sgd", lagging),
    "rate off by a thousandth": (
        "sgd",
        lambda p: torch.optim.SGD(p, 0.125125, momentum=0.9, weight_decay=0.05),
    ),
    "AdamW's weight decay lost": ("adamw", lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.0)),
    "Adam in place of AdamW": ("adamw", lambda p: torch.optim.Adam(p, 1e-3, weight_decay=0.05)),
    "bias correction lost": ("adamw", corrected_once),
    "beta2 of 0.99": (
        "adamw",
        lambda p: torch.optim.AdamW(p, 1e-3, betas=(0.9, 0.99), weight_decay=0.05),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_optimizer_is_caught(fault, bench):
    name, make = FAULTS[fault]
    row = dataclasses.replace(ROWS[name], make=make)
    verdict = judge(optimizers.observe(row, bench.model, bench.given, CPU))
    assert verdict.status is Status.FAIL
    assert f"({name}: element " in repr(verdict)
    assert "its formula gives" in repr(verdict)


def test_an_optimizer_without_gradients_proves_nothing(bench):
    faulty = planted(bench.model, lambda module: module.stem.requires_grad_(requires_grad=False))
    verdict = judge(optimizers.observe(ROWS["sgd"], faulty, bench.given, CPU))
    assert "4 of 101 parameters have no gradient" in repr(verdict)


# --- StochasticDepth -------------------------------------------------------------------------


class Drop(nn.Module):
    """timm's DropPath, to be made faulty."""

    def __init__(self, drop_prob=0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def mask(self, x):
        shape = (len(x), *(1,) * (x.dim() - 1))
        return x.new_empty(shape).bernoulli_(1 - self.drop_prob) / (1 - self.drop_prob)

    def forward(self, x):
        return x * self.mask(x) if self.training else x


class Unscaled(Drop):
    def mask(self, x):
        return (super().mask(x) != 0).float()


class WholeBatch(Drop):
    def mask(self, x):
        return super().mask(x[:1]).expand(len(x), *(1,) * (x.dim() - 1))


class Never(Drop):
    def mask(self, x):
        return x.new_full((1,) * x.dim(), 1.0)


class WrongRate(Drop):
    def mask(self, x):
        return (super().mask(x) != 0) * (torch.rand(len(x), 1, 1, 1) < 0.6) * 4.0


class SameRows(Drop):
    def mask(self, x):
        return torch.tensor([0.0, 4.0, 0, 0, 0, 4.0, 0, 0])[: len(x)].view(-1, 1, 1, 1)


class InEvaluation(Drop):
    def forward(self, x):
        return x * self.mask(x)


class Elsewhere(Drop):
    """Drops other rows backward than forward."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, mask):
            ctx.save_for_backward(mask)
            return x * mask

        @staticmethod
        def backward(ctx, grad):
            return grad * ctx.saved_tensors[0].roll(1, 0), None

    def forward(self, x):
        return self.Function.apply(x, self.mask(x)) if self.training else x


def dropping(model, kind):
    """A copy with another module at every place of StochasticDepth."""
    faulty = copy.deepcopy(model)
    for module in list(faulty.modules()):
        if hasattr(module, "drop_path"):
            module.drop_path = kind()
    return faulty


DROPS = images(stochastic_depth.IMAGES, 64)


@pytest.mark.parametrize("kind", [None, Drop], ids=["timm", "own"])
def test_stochastic_depth_passes(kind, model):
    measured = stochastic_depth.observe(dropping(model, kind) if kind else model, DROPS, CPU)
    assert judge(measured)
    assert measured.places == 9
    assert measured.total >= stochastic_depth.ROWS


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Unscaled, "rows are neither 0 nor the input's divided by 0.25"),
        (WholeBatch, "whole batches are dropped or kept, not single rows"),
        (Never, "neither 0 nor the input's divided by 0.25"),
        (WrongRate, "drop rate in interval is"),
        (SameRows, "every call drops the same rows"),
        (InEvaluation, "in evaluation the output is not the input"),
        (Elsewhere, "other rows are dropped backward than forward"),
    ],
)
def test_faulty_stochastic_depth_is_caught(kind, words, model):
    verdict = judge(stochastic_depth.observe(dropping(model, kind), DROPS, CPU))
    assert words in repr(verdict)


def test_a_network_without_stochastic_depth_has_none():
    assert stochastic_depth.observe(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), DROPS, CPU) is (
        None
    )


def test_places_that_are_none_are_filled_as_well():
    """timm's residual networks have None there."""
    resnet = network("test_resnet.r160_in1k")
    measured = stochastic_depth.observe(resnet, DROPS, CPU)
    assert judge(measured)
    assert measured.places == 4


# --- half formats ----------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_autocast_passes(half, bench):
    measured = bench.autocast(half, MathMode())
    assert judge(measured)
    assert not measured.doubts


def test_autocast_that_computes_float32_is_told(bench):
    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return type(self).__mro__[1].forward(self, x)

    silent = copy.deepcopy(bench.model)
    silent.__class__ = type("Silent", (type(silent),), {"forward": forward})
    measured = dataclasses.replace(bench, planted=silent).autocast("bfloat16", MathMode())
    assert judge(measured)
    assert "it seems to compute in float32" in measured.doubts[0]


def test_a_fault_shows_under_autocast(bench):
    name = "stages.2.blocks.1.mlp.fc1.weight"
    faulty = with_gradient(bench.model, name, channel(1.5))
    verdict = judge(dataclasses.replace(bench, planted=faulty).autocast("bfloat16", MathMode()))
    assert f"error of gradient {name} is " in repr(verdict)


def test_loss_scaling_passes(bench):
    measured, step = loss_scaling.scaled_step(bench, MathMode())
    assert judge(measured)
    assert judge(step)
    assert measured.scale == loss_scaling.FIRST_SCALE
    assert measured.scales_after_skips == {"inf": measured.scale / 2, "nan": measured.scale / 4}


class Scaler(torch.amp.GradScaler):
    """To be made faulty."""

    def __init__(self, device, scale):
        super().__init__(device.torch.type, init_scale=scale, growth_interval=1 << 20)


class Forgetful(Scaler):
    """Scales the loss and not the gradients back."""

    def _unscale_grads_(self, optimizer, inverse, *rest):
        return super()._unscale_grads_(optimizer, torch.ones_like(inverse), *rest)


class Idle(Scaler):
    """Does not scale the loss."""

    def scale(self, outputs):
        super().scale(outputs)
        return outputs * 1.0


class Careless(Scaler):
    """Takes every step."""

    def _maybe_opt_step(self, optimizer, state, *given, **options):
        return optimizer.step(*given, **options)


class Stubborn(Scaler):
    """Never lowers its scale."""

    def update(self, new_scale=None):
        kept = self.get_scale()
        super().update()
        self._scale.fill_(kept)


class Timid(Scaler):
    """Takes no step at all."""

    def _maybe_opt_step(self, optimizer, state, *given, **options):
        return None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Forgetful, "unscaled gradients changed is 2"),
        (Idle, "the scaled loss is 1 times the loss, must be 1024"),
        (Careless, "weights changed by a skipped step is "),
        (Stubborn, "the scale is 1024 after a gradient that is inf, must be 512"),
        (Timid, "a step with finite gradients moved no weight"),
    ],
)
def test_a_faulty_scaler_is_caught(kind, words, bench):
    measured, step = loss_scaling.scaled_step(bench, MathMode(), kind)
    verdict = judge(measured)
    assert words in repr(verdict)
    if kind is Forgetful:
        assert "relative L2 error of gradient" in repr(judge(step))


def test_the_scale_leaves_room(bench):
    """A network whose gradients are large is given a smaller scale, so that nothing overflows."""
    loud = copy.deepcopy(bench.model)
    with torch.no_grad():
        loud.head.fc.weight *= 200
    bench = training.Bench(loud, bench.given, CPU)
    scale = loss_scaling.overflow_free(bench, MathMode())
    assert 1 <= scale < loss_scaling.FIRST_SCALE
    assert math.log2(scale) % 1 == 0
    found = bench.emulated(bench.golden("erf"), MathMode(), "float16", scale)
    assert found.largest_half <= loss_scaling.HEADROOM


# --- a fine-tune -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(model):
    return training.exercise(model, images(4, seed=3))


@pytest.mark.parametrize("mode", MODES)
def test_a_fine_tune_passes(mode, model, pictures):
    measured = fine_tuning.fine_tune(model, pictures, CPU, dataclasses.replace(
        MODES[mode], gelu="erf"))  # fmt: skip
    assert judge(measured)
    assert len(measured.losses) == fine_tuning.STEPS + 1
    assert list(measured.reference) == sorted(measured.reference, reverse=True)
    assert measured.frozen == len(model.state_dict()) - 2


def test_the_shortcut_of_the_reference_is_the_whole_network(model, pictures, monkeypatch):
    short, rate = fine_tuning.tune_on_cpu(model, pictures, MathMode(), "float64")
    monkeypatch.setattr(torch, "equal", lambda *given: False)
    whole, _ = fine_tuning.tune_on_cpu(model, pictures, MathMode(), "float64", rate)
    assert short.losses == pytest.approx(whole.losses, rel=1e-12)


def moving(parameters, rate):
    """SGD that also moves the first parameter, by one unit in the last place."""
    parameters = list(parameters)
    optimizer = fine_tuning.plain_sgd(parameters, rate)

    def move(*given):
        with torch.no_grad():
            parameters[0].copy_(torch.nextafter(parameters[0], torch.tensor(9.0)))

    optimizer.register_step_post_hook(move)
    return optimizer


TUNERS = {
    "frozen weights move": (moving, "frozen tensors changed is 1, must be == 0 (a fine-tune of"),
    "the loss rises": (lambda p, rate: torch.optim.SGD(p, rate, maximize=True), "must be below"),
    "nothing is learnt": (lambda p, rate: torch.optim.SGD(p, 0.0), "must be below"),
    "rate off by a thousandth": (
        lambda p, rate: torch.optim.SGD(p, rate * 1.001),
        "the relative L2 error of the change of head.fc.",
    ),
}


@pytest.mark.parametrize("fault", TUNERS)
def test_a_faulty_fine_tune_is_caught(fault, model, pictures):
    make, words = TUNERS[fault]
    verdict = judge(fine_tuning.fine_tune(model, pictures, CPU, MathMode(), make))
    assert words in repr(verdict)


def test_frozen_parameters_with_gradients_are_caught(model, pictures):
    faulty = planted(model, lambda module: module.stem.requires_grad_())
    verdict = judge(fine_tuning.fine_tune(model, pictures, CPU, MathMode(), planted=faulty))
    assert "frozen gradients is 4, must be == 0" in repr(verdict)
    assert "stem.0.weight" in repr(verdict)


def test_buffers_of_a_frozen_backbone_are_watched(pictures):
    resnet = network("test_resnet.r160_in1k")
    assert judge(fine_tuning.fine_tune(resnet, pictures, CPU, MathMode()))
    faulty = planted(resnet, lambda module: module.layer1.train())
    verdict = judge(fine_tuning.fine_tune(resnet, pictures, CPU, MathMode(), planted=faulty))
    assert "running_mean" in repr(verdict)


def test_a_network_without_a_classifier_has_nothing_to_tune():
    assert not fine_tuning.has_head(nn.Linear(2, 2))
    assert not fine_tuning.has_head(network(num_classes=0))
    assert fine_tuning.has_head(network())


# --- on simulated cards ----------------------------------------------------------------------


@needs_cards
@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "channel"),
    [("aclnnConvolutionBackward", 1), ("aclnnGeluBackward", 7)],
)
def test_a_cards_backward_operators_are_watched(suite, operator, channel):
    plan = [{"kind": "scaled_channel", "operator": operator, "channel": channel, "factor": 1.0625}]
    outcome = suite.run(
        *CARDS, "--simulate", "1", "tests/test_training.py", "-k", "test_step",
        "--faults", json.dumps(plan), "--regimes", "ieee",
        PYTHONPATH=str(folder()), COVERAGE_PROCESS_CONFIG=None,
    )  # fmt: skip
    case = outcome.case("test_step[ieee]")
    assert case["status"] == "FAIL", outcome.out[-3000:]
    told = " ".join(case["sentences"])
    assert "in regime ieee (conv ieee, matmul ieee, gelu tanh)" in told
    assert "error of gradient " in told
    figures = {figure["name"]: figure["value"] for figure in case["figures"]}
    assert figures["gradient_error_in_limits"] > 10
    # the forward is sound
    assert figures["training_logits_error_in_limits"] < 1

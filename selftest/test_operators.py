"""The operator table: healthy operators pass with room to spare, planted faults do not."""

import dataclasses
import math
import re
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fixtures.core import operators
from fixtures.core.backends import backend
from fixtures.core.backends.base import Backend, Device
from fixtures.core.networks import DEFAULT_NETWORK, NETWORKS, Network
from fixtures.core.operators import DTYPES, ERROR_IN_BOUNDS, OPERATORS, Arithmetic, Coverage
from fixtures.core.records import UNIT_ROUNDOFF, MathMode, Status

TANH = NETWORKS["test_convnext.r160_in1k"]
CONV_MLP = NETWORKS["convnext_atto.d2_in1k"]
SMALL = dataclasses.replace(TANH, name="small", gelu="erf", norm_eps=1e-6)
"""A small network with the operators of the default one."""
CASES = {case.id: case for case in operators.cases(SMALL)}
CPU = backend("cpu").open(0)


def judged(coverage):
    """Status of a coverage, after checking that its parts agree with each other."""
    passed = coverage.status == "supported"
    assert bool(coverage.verdict()) == passed
    figures = {figure.name: figure for figure in coverage.figures()}
    limited = ERROR_IN_BOUNDS.judge(figures["error_in_bounds"])
    assert bool(limited) or not passed
    assert coverage.as_json()["status"] == coverage.status
    if not passed:
        told = repr(coverage.verdict())
        for part in (coverage.family, coverage.id, coverage.dtype, str(coverage.shape)):
            assert part in told
        assert coverage.reason in told
        assert coverage.reason
    return coverage.status


def observe(case_id, break_it=lambda module: None, mode=None, network=SMALL):
    """Run a case of a network with its module tampered with."""
    case = next(case for case in operators.cases(network) if case.id == case_id)
    problem = case.problem()
    with torch.no_grad():
        module = break_it(problem.module) or problem.module
    problem = dataclasses.replace(problem, module=module)
    return operators.observe(case, problem, CPU, mode or MathMode())


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_every_row_runs_on_the_cpu_within_half_of_its_bound(name):
    shares = {}
    for case in operators.cases(NETWORKS[name]):
        coverage = operators.run(case, CPU, MathMode())
        assert judged(coverage) == "supported", coverage.verdict()
        shares.setdefault((coverage.family, case.dtype), []).append(coverage.error_in_bounds)
    for (family, dtype), found in shares.items():
        print(f"{name}: {family} {dtype}: at most {max(found):.3f} of the bound")
    # In half one correct rounding of two that are allowed is half of the bound, and no less can
    # be asked of a device; in float32 there is far more room.
    assert max(max(found) for found in shares.values()) < 0.55
    assert max(max(f) for (_, dtype), f in shares.items() if dtype == "float32") < 0.4


def test_ids_are_plain_and_unique_and_each_family_has_one_smoke_case():
    ids = [case.id for case in operators.cases(NETWORKS[DEFAULT_NETWORK])]
    smoke = [case for case in operators.cases(NETWORKS[DEFAULT_NETWORK]) if case.smoke]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9._-]+", name) for name in ids)
    assert [case.row for case in smoke] == list(OPERATORS)
    assert {case.dtype for case in smoke} == {"float32"}


def test_the_documents_families_are_all_there():
    document = {
        "Conv2d", "LayerNorm", "GELU", "GlobalAveragePooling", "DepthwiseConv2d", "StochasticDepth"
    }  # fmt: skip

    assert document <= {row.family for row in OPERATORS}


def test_an_unknown_network_is_given_the_default_networks_shapes():
    known = [case.id for case in operators.cases(NETWORKS[DEFAULT_NETWORK])]
    unknown = operators.cases(Network("resnet18", listed=False))

    assert [case.id for case in unknown] == known
    assert unknown[0].site.out == 128


IDLE = {"Identity", "Dropout", "Flatten", "FastAdaptiveAvgPool", "AdaptiveAvgPool2d"}
"""What computes nothing in evaluation, and the inside of the pooling."""


def in_the_network(name):
    """Every operator of timm's own network: its repr, which has each setting, and input shape."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(name).eval()
    seen = set()

    def note(module, inputs, output):
        kind = type(module).__name__
        if kind == "SelectAdaptivePool2d" or not (list(module.children()) or kind in IDLE):
            seen.add((repr(module), tuple(inputs[0].shape)[1:]))

    for module in model.modules():
        module.register_forward_hook(note)
    with torch.inference_mode():
        model(torch.zeros(1, *NETWORKS[name].input_size, device="meta"))
    return seen


def in_the_table(network):
    """The same of the cases."""
    with torch.device("meta"):
        return {
            (repr(case.row.module(case.site)), case.site.input_shape[1:])
            for case in operators.cases(network)
            if case.row.id != "stochastic-depth"  # idle unless the network is trained
        }


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_has_the_networks_operators_and_no_other(name):
    assert in_the_table(NETWORKS[name]) == in_the_network(name)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (TANH, {"gelu": "erf"}),
        (TANH, {"norm_eps": 1e-6}),
        (TANH, {"conv_mlp": True}),
        (CONV_MLP, {"conv_mlp": False}),
        (CONV_MLP, {"mlp_ratio": 3}),
    ],
)
def test_a_row_with_another_networks_facts_is_seen(row, fault):
    assert in_the_table(dataclasses.replace(row, **fault)) != in_the_network(row.name)


def test_families_are_those_of_the_modules():
    for network in NETWORKS.values():
        for case in operators.cases(network):
            with torch.device("meta"):
                module = case.row.module(case.site)
            if isinstance(module, nn.Conv2d):
                assert case.row.family == ("Conv2d" if module.groups == 1 else "DepthwiseConv2d")
    ids = {case.id for case in operators.cases(CONV_MLP)}
    assert {"conv2d-stage0.fc1-float32", "layernorm2d-stage0-float32"} <= ids
    assert {name for name in ids if name.startswith("linear-stage")} == set()


class Dispatched(TorchDispatchMode):
    """Notes the names, without overload, of what torch dispatches."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


HOUSEKEEPING = {"permute", "view", "_unsafe_view", "t", "transpose", "detach", "new_empty", "clone"}
"""What only moves or reshapes."""


@pytest.mark.parametrize("row", OPERATORS, ids=lambda row: row.id)
def test_rows_name_what_torch_dispatches(row):
    case = next(case for case in CASES.values() if case.row is row)
    problem = case.problem()
    training = row.id == "stochastic-depth"
    with torch.inference_mode(), Dispatched() as dispatched:
        problem.module.train(training)(problem.seen(problem.x))

    computing = dispatched.names - HOUSEKEEPING
    assert computing
    assert computing <= set(row.aten)


def test_operands_are_the_same_every_time_and_differ_between_cases():
    one, again = (CASES["linear-stage0.fc1-float32"].problem() for _ in range(2))
    half = CASES["linear-stage0.fc1-bfloat16"].problem()
    other = CASES["linear-stage1.fc1-float32"].problem()

    assert torch.equal(one.x, again.x)
    assert torch.equal(one.state["weight"], again.state["weight"])
    assert torch.equal(half.x, one.x.bfloat16())
    assert other.x.flatten()[0] != one.x.flatten()[0]
    assert not torch.equal(
        one.state["bias"], one.state["weight"].flatten()[: one.state["bias"].numel()]
    )


def test_preparing_a_case_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name in ("conv2d-stem-float32", "stochastic-depth-stage3-float32"):
        operators.run(CASES[name], CPU, MathMode())

    assert torch.equal(torch.get_rng_state(), before)


# --- the bounds -------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", ["ieee", "hf32", "tf32", "bfloat16"])
def test_float32_arithmetic_is_as_declared(declared):
    arithmetic = Arithmetic.of("float32", declared)

    assert arithmetic.u == UNIT_ROUNDOFF[declared]
    assert arithmetic.operand == (0 if declared == "ieee" else arithmetic.u)
    assert arithmetic.result == 0


def test_c_counts_what_is_rounded():
    sum_in_u32 = 6 * math.sqrt(100)

    assert operators.inner_product_bound(99, Arithmetic.of("float32")) == sum_in_u32
    assert operators.inner_product_bound(9, Arithmetic.of("float32")) == 10  # fewer than 36 terms
    hf32 = operators.inner_product_bound(99, Arithmetic.of("float32", "hf32"))
    u = UNIT_ROUNDOFF["hf32"]
    assert hf32 == pytest.approx(2 + u + sum_in_u32 * UNIT_ROUNDOFF["ieee"] / u)
    half = operators.inner_product_bound(99, Arithmetic.of("float16"))
    assert half == pytest.approx(2 + sum_in_u32 * 2**-13)


@pytest.mark.parametrize(("count", "probability"), [(10, 0.5), (512, 0.75), (64, 0.25)])
def test_a_binomial_interval_leaves_what_is_allowed_outside(count, probability):
    alarm = 1e-3
    least, most = operators.binomial_interval(count, probability, alarm)

    def upto(last):
        p = Fraction(probability)
        return sum(math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(last + 1))

    assert upto(least - 1) <= alarm / 2 < upto(least)
    assert 1 - upto(most) <= alarm / 2 < 1 - upto(most - 1)


def test_no_binomial_interval_is_empty():
    with pytest.raises(ValueError, match="probability"):
        operators.binomial_interval(4, 0.5, 3.0)


# --- planted faults ---------------------------------------------------------------------------


def no_bias(module):
    module.bias.zero_()


def dropped_channel(module):
    module.weight[:, 1] = 0


def dropped_output(module):
    module.weight[1] = 0


def one_wrong_weight(module):
    module.weight.view(-1)[7] *= -1


def shifted(module):
    module.weight.copy_(module.weight.roll(1, -1))


def mirrored(module):
    module.weight.copy_(module.weight.transpose(-1, -2).clone())


def narrow_padding(module):
    module.padding = (module.kernel_size[0] // 2 - 1,) * 2


def shifted_padding(module):
    inner = nn.Sequential(nn.ZeroPad2d((4, 2, 3, 3)), module)
    module.padding = (0, 0)
    return inner


def wrong_stride(module):
    module.stride = (module.stride[0] - 1,) * 2


def transposed_weight(module):
    module.weight.copy_(module.weight.reshape(module.weight.shape[::-1]).T.clone())


def wrong_eps(module):
    module.eps = 1e-5


def no_eps(module):
    module.eps = 0.0


def no_weight(module):
    module.weight.fill_(1.0)


def normalised_over_half(module):
    class Half(nn.Module):
        def forward(self, x):
            half = x.shape[-1] // 2
            parts = (nn.functional.layer_norm(p, (half,), eps=1e-6) for p in x.split(half, -1))
            return torch.cat(tuple(parts), -1) * module.weight + module.bias

    return Half()


def other_axis(module):
    class Other(nn.Module):
        def forward(self, x):
            return nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)

    return Other()


def tanh(module):
    return nn.GELU(approximate="tanh")


def sigmoid_form(module):
    class Sigmoid(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(1.702 * x)

    return Sigmoid()


def max_pool(module):
    return nn.AdaptiveMaxPool2d(1)


class Cropped(nn.Module):
    """The mean of all but the last column."""

    def forward(self, x):
        return x[..., :-1].mean((2, 3), keepdim=True)


def cropped_pool(module):
    return Cropped()


FAULTS = [
    ("conv2d-stem", (no_bias, dropped_channel, dropped_output, one_wrong_weight, mirrored)),
    ("conv2d-stem", (shifted, wrong_stride)),
    ("conv2d-downsample3", (no_bias, dropped_channel, dropped_output, one_wrong_weight, mirrored)),
    ("conv2d-downsample3", (shifted, wrong_stride)),
    ("depthwise-conv2d-stage0", (no_bias, dropped_output, one_wrong_weight, mirrored, shifted)),
    ("depthwise-conv2d-stage3", (narrow_padding, shifted_padding, one_wrong_weight)),
    ("layernorm-stage0", (no_eps, no_weight, no_bias, normalised_over_half, wrong_eps)),
    ("layernorm-stage3", (no_eps, wrong_eps)),
    ("layernorm2d-stem", (no_eps, no_weight, no_bias, wrong_eps, other_axis)),
    ("layernorm2d-head", (no_weight, no_bias, wrong_eps)),
    ("gelu-stage0", (tanh, sigmoid_form)),
    ("linear-stage0.fc1", (no_bias, dropped_channel, one_wrong_weight, transposed_weight)),
    ("linear-stage3.fc2", (no_bias, dropped_channel, one_wrong_weight, transposed_weight)),
    ("linear-head.fc", (no_bias, dropped_channel, dropped_output, one_wrong_weight)),
    ("global-average-pooling-head", (max_pool, cropped_pool)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("place", "fault"),
    [(place, fault) for place, faults in FAULTS for fault in faults],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_planted_fault_is_caught_in_every_dtype(place, fault, dtype):
    assert judged(observe(f"{place}-{dtype}", fault)) == "wrong"


def rounded(module, bits, truncated=False):
    """The module with its operands rounded to `bits`, as a matrix unit does it in hardware."""

    def shortened(x):
        unit = 1 << (24 - bits)
        whole = x.contiguous().view(torch.int32)
        nearest = unit // 2 - 1 + ((whole // unit) & 1)
        return ((whole + (0 if truncated else nearest)) & -unit).view(torch.float32)

    class Rounded(nn.Module):
        def forward(self, x):
            return module(shortened(x))

    module.weight.copy_(shortened(module.weight))
    return Rounded()


BITS = {"hf32": 12, "tf32": 11, "bfloat16": 8}


@pytest.mark.parametrize(
    ("form", "truncated"),
    [("hf32", False), ("hf32", True), ("tf32", False), ("bfloat16", False)],
)
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("conv2d-stem-float32", "conv"),
        ("depthwise-conv2d-stage1-float32", "conv"),
        ("linear-stage0.fc1-float32", "matmul"),
    ],
)
def test_rounded_operands_pass_only_where_they_are_declared(name, field, form, truncated):
    def as_hardware(module):
        return rounded(module, BITS[form], truncated)

    declared = observe(name, as_hardware, MathMode(**{field: form}))
    silent = observe(name, as_hardware)
    other = "matmul" if field == "conv" else "conv"
    elsewhere = observe(name, as_hardware, MathMode(**{other: form}))

    assert judged(declared) == "supported"
    assert 0.1 < declared.error_in_bounds < 0.9
    assert declared.arithmetic == form
    assert judged(silent) == judged(elsewhere) == "wrong"
    # the next finer format may explain it too: a bound is for the worst that rounding can do
    told = re.search(rf"; all are within the bound of {field} (\w+)$", silent.reason)
    assert BITS[form] <= BITS[told[1]] <= BITS[form] + 1


def test_gelu_is_judged_in_the_form_that_is_declared():
    tanh_declared = observe("gelu-stage0-float32", tanh, MathMode(gelu="tanh"))
    erf_instead = observe("gelu-stage0-float32", mode=MathMode(gelu="tanh"))

    assert judged(tanh_declared) == "supported"
    assert tanh_declared.arithmetic == "tanh"
    assert judged(erf_instead) == "wrong"
    assert erf_instead.reason.endswith("all are within the bound of gelu erf")
    assert "all are" not in observe("gelu-stage0-float32", sigmoid_form).reason


def erf(module):
    return nn.GELU()


@pytest.mark.parametrize("declared", ["erf", "tanh"])
def test_gelu_that_asks_for_tanh_is_judged_as_tanh_whatever_is_declared(declared):
    mode = MathMode(gelu=declared)
    right = observe("gelu-stage0-float32", mode=mode, network=TANH)
    wrong = observe("gelu-stage0-float32", erf, mode, TANH)

    assert judged(right) == "supported"
    assert right.arithmetic == "tanh"
    assert judged(wrong) == "wrong"
    assert wrong.reason.endswith("all are within the bound of gelu erf")


def other_eps(module):
    module.eps = 1e-6 if module.eps == 1e-5 else 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("network", "place", "fault"),
    [
        (TANH, "layernorm-stage0", other_eps),
        (TANH, "layernorm2d-stem", other_eps),
        (CONV_MLP, "layernorm2d-stage3", other_eps),
        (CONV_MLP, "conv2d-stage3.fc1", dropped_channel),
        (CONV_MLP, "conv2d-stage3.fc2", dropped_output),
        (CONV_MLP, "conv2d-stage3.fc2", no_bias),
    ],
)
def test_a_planted_fault_is_caught_in_other_networks(network, place, fault, dtype):
    assert judged(observe(f"{place}-{dtype}", fault, network=network)) == "wrong"


# --- StochasticDepth --------------------------------------------------------------------------


def drops(keep=0.25, scale=None, rows=True, evaluation=lambda x: x):
    """A StochasticDepth with its parts replaced."""

    class Drops(nn.Module):
        def forward(self, x):
            if not self.training:
                return evaluation(x)
            shape = (x.shape[0] if rows else 1, 1, 1, 1)
            mask = torch.empty(shape, dtype=x.dtype).bernoulli_(keep)
            return x * mask * (1 / keep if scale is None else scale)

    return lambda module: Drops()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (drops(scale=1.0), "are neither 0 nor x / 0.25"),
        (drops(scale=4.02), "are neither 0 nor x / 0.25"),
        (drops(keep=0.75, scale=4.0), "rows were dropped at probability 0.75"),
        (drops(keep=1.0, scale=4.0), "0 of 256 rows"),
        (drops(keep=0.0, scale=4.0), "256 of 256 rows"),
        (drops(rows=False), ""),
        (drops(evaluation=lambda x: x * 1.01), "in evaluation the output is not the input"),
        (drops(evaluation=lambda x: x[:1]), "evaluation: the output has the shape"),
    ],
)
def test_a_wrong_stochastic_depth_is_caught(fault, told, dtype):
    coverage = observe(f"stochastic-depth-stage3-{dtype}", fault)

    assert judged(coverage) == "wrong"
    assert told in coverage.reason


def test_whole_batches_dropped_are_caught_even_at_the_right_rate():
    blank = observe("stochastic-depth-stage3-float32")
    rate = [16] * 12 + [0] * 4

    assert operators._judge_drops(blank, rate).reason.startswith("whole batches")
    assert operators._judge_drops(blank, [12] * 16).status == "supported"


def test_a_right_stochastic_depth_passes_and_says_its_rate():
    coverage = observe("stochastic-depth-stage3-float32", drops())

    assert judged(coverage) == "supported"
    assert 0.6 < coverage.as_json()["drop_rate"] < 0.9


# --- what is not an answer --------------------------------------------------------------------


def giving(output):
    """A module that gives this whatever it is asked."""

    class Giving(nn.Module):
        def forward(self, x):
            return output(x)

    return lambda module: Giving()


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (lambda x: x[..., :-1], "the output has the shape (1, 40, 40, 95)"),
        (lambda x: x.double(), "the output is torch.float64"),
        (lambda x: x.to("meta"), "the output lies on meta"),
        (lambda x: x.index_fill(0, torch.tensor([0]), math.nan), "elements are not finite"),
        (lambda x: x / 0, "elements are not finite"),
    ],
)
def test_an_output_that_cannot_be_compared_is_wrong(output, told):
    coverage = observe("gelu-stage0-float32", giving(output))

    assert judged(coverage) == "wrong"
    assert told in coverage.reason
    assert coverage.error_in_bounds is None
    assert not ERROR_IN_BOUNDS.judge(coverage.figures()[0])


def raising(error):
    def fail(x):
        raise error

    return giving(fail)


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("Could not run 'aten::gelu' with arguments from this backend"),
        RuntimeError("\"gelu_kernel\" not implemented for 'Half'\nmore"),
        RuntimeError("aclnnGelu does not support DT_BFLOAT16"),
        RuntimeError("gelu is currently not supported on this device"),
        NotImplementedError(),
    ],
)
@pytest.mark.parametrize("name", ["gelu-stage0-float16", "stochastic-depth-stage3-float16"])
def test_an_operator_that_is_not_there_is_unsupported(error, name):
    coverage = observe(name, raising(error))

    assert judged(coverage) == "unsupported"
    assert coverage.reason == (str(error).splitlines() or ["NotImplementedError"])[0]


class Fragile(Backend):
    """A backend that takes one error for the end of its device."""

    name = "cpu"

    def device_string(self, index):
        return "cpu"

    def synchronize(self, index):
        pass

    def is_device_error(self, error):
        return "507015" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("NPU out of memory. Tried to allocate 2 GiB"),
        RuntimeError("out of memory: large pages not supported"),
        RuntimeError("aicore exception 507015, kernel not supported"),
        RuntimeError("shape mismatch"),
        ValueError("not supported"),
    ],
)
def test_other_errors_go_on_their_way(error):
    case = CASES["gelu-stage0-float32"]
    problem = dataclasses.replace(case.problem(), module=raising(error)(None))

    with pytest.raises(type(error), match=re.escape(str(error))):
        operators.observe(case, problem, Device(Fragile()), MathMode())


def test_a_fallback_is_told_of_the_operator_that_fell_back():
    coverage = observe("gelu-stage0-float32")
    fell = operators.with_fallback(coverage, ["aten::mul.Tensor", "aten::gelu.out"])

    assert judged(fell) == "fallback"
    assert "ran on the CPU: the device does not have aten::gelu.out" in repr(fell.verdict())
    assert operators.with_fallback(coverage, ["aten::relu", "gelu_backward"]) is coverage
    assert operators.with_fallback(coverage, []) is coverage


def test_a_wrong_operator_stays_wrong_if_it_also_fell_back():
    wrong = observe("gelu-stage0-float32", tanh)

    assert operators.with_fallback(wrong, ["gelu"]).status == "wrong"


def test_a_failure_is_a_sentence():
    told = observe("conv2d-stem-float16", no_bias).verdict()

    assert told.status is Status.FAIL
    assert re.fullmatch(
        r"Conv2d \(conv2d-stem-float16\) on cpu with a float16 input of shape \(1, 3, 160, 160\) "
        r"is wrong: element \(0, \d+, \d+, \d+\) is \S+, the reference \S+, which is \S+ times "
        r"the bound \|y - g\| <= c u \(sum\|x\|\|w\| \+ \|b\|\) of float16 arithmetic; \S+% of the "
        r"elements are outside it",
        repr(told),
    )


def test_canns_figures_are_shown_and_not_judged():
    """A healthy float32 CPU exceeds them wherever a sum cancels."""
    values = observe("linear-stage3.fc1-float32").as_json()

    assert values["cann_threshold"] == 2.0**-13
    assert values["cann_max_relative_error"] > values["cann_mean_relative_error"]
    assert observe("linear-stage3.fc1-bfloat16").as_json()["cann_threshold"] == 2.0**-7
    declared = observe("conv2d-stem-float32", mode=MathMode(conv="hf32")).as_json()
    assert declared["cann_threshold"] == 2.0**-11


def test_json_names_operators_as_text():
    values = observe("linear-stage3.fc1-float32").as_json()

    assert values["aten"].startswith("linear, addmm")
    assert values["shape"] == [1, 5, 5, 64]
    assert values["c"] > 0
    assert "extra" not in values
    assert Coverage.kind == "operators"

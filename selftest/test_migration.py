"""Migration checks: a tensor left behind, a flipped bit and hard-coded CUDA are each caught."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.cuda import synchronize as imported_synchronize

from fixtures.core import migration
from fixtures.core.backends import backend
from fixtures.core.backends.base import Backend, Device
from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.migration import ALLOWED, LAYOUTS, SPECIAL_BITS, HardCodedCuda
from fixtures.core.records import Status

CPU = backend("cpu").open(0)


class Elsewhere(Backend):
    """A device whose tensors hold no values: enough to ask where something lies."""

    name = "meta"

    def device_string(self, index):
        return "meta"

    def synchronize(self, index):
        pass


META = Device(Elsewhere())


class Network(nn.Module):
    """A parameter, a buffer, one that is not saved, and a submodule."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.register_buffer("steps", torch.arange(5))
        self.register_buffer("mask", torch.ones(2), persistent=False)
        self.register_parameter("none", None)

    def forward(self, x):
        return self.inner(x)


def failing(measured):
    verdict = measured.verdict()
    assert verdict.status is Status.FAIL
    assert {f.name: f.value for f in measured.figures()}["wrong"] == len(measured.wrong)
    return repr(verdict)


# --- where things are, and what came back -----------------------------------------------------


def test_a_network_that_moved_whole_passes():
    model = Network()

    assert migration.moved(model, CPU).verdict()
    assert migration.moved(model, CPU).checked == 4
    assert migration.moved(model.to("meta"), META).verdict()
    assert not migration.moved(model, CPU).verdict()


@pytest.mark.parametrize("left", ["steps", "mask", "inner.bias"])
def test_a_tensor_left_behind_is_named(left):
    model = Network()
    there = copy.deepcopy(model).to("meta")
    owner, _, name = left.rpartition(".")
    module, source = there.get_submodule(owner), model.get_submodule(owner)
    held = module._parameters if name in module._parameters else module._buffers
    held[name] = getattr(source, name)

    assert f"1 of 4 wrong: {left} is on cpu" in failing(migration.moved(there, META))


def test_a_plain_attribute_is_left_behind_by_module_to():
    model = Network()
    model.inner.scale = torch.ones(1)

    assert "inner.scale is on cpu" in failing(migration.moved(model.to("meta"), META))


def test_nothing_to_check_is_no_success():
    assert "there was nothing to check" in repr(migration.moved(nn.Identity(), CPU).verdict())


def test_devices_are_one_whatever_index_is_left_out():
    same = [("cpu", "cpu"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0")]
    other = [("cpu", "cuda"), ("cuda:0", "cuda:1"), ("cpu", "meta")]

    for pairs, wanted in ((same, True), (other, False)):
        for pair in pairs:
            assert migration.same_device(*map(torch.device, pair)) == wanted, pair


def test_a_copy_with_the_same_bits_passes():
    model = Network()

    assert migration.round_trip(model, copy.deepcopy(model)).verdict()


def test_one_flipped_bit_is_caught():
    model, there = Network(), None
    there = copy.deepcopy(model)
    there.inner.weight.data.view(torch.int32)[2, 1] ^= 1

    told = failing(migration.round_trip(model, there))
    assert "inner.weight came back as other bits in 1 of 12 elements" in told


def test_equal_values_with_other_bits_are_caught():
    model = Network()
    model.mask.zero_()
    there = copy.deepcopy(model)
    there.mask.neg_()

    assert torch.equal(model.mask, there.mask)
    assert "mask came back as other bits in 2 of 2" in failing(migration.round_trip(model, there))


def test_another_dtype_or_a_missing_tensor_is_caught():
    model = Network()
    there = copy.deepcopy(model)
    there.mask = there.mask.double()
    del there.steps

    told = failing(migration.round_trip(model, there))
    assert "steps is only in one of the two" in told
    assert "mask came back as torch.float64 (2,), not torch.float32 (2,)" in told


def test_a_twin_that_shares_its_tensors_is_no_twin():
    model = Network()

    assert "mask is one tensor in both networks" in failing(migration.round_trip(model, model))


def test_more_than_ten_faults_are_counted():
    wrong = tuple(map(str, range(13)))

    assert repr(migration.Migration("x", 20, wrong).verdict()).endswith("8; 9 and 3 more")
    assert migration.Migration("x", 20, wrong).as_json()["checked"] == 20


# --- single tensors ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", SPECIAL_BITS)
def test_special_values_survive_the_cpu(dtype, layout):
    measured = migration.tensor_round_trip(CPU, dtype, layout)

    assert measured.verdict()
    assert "strides" in measured.notes[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_special_values_are_special(dtype):
    values = migration.special_values(dtype)
    tiny = torch.finfo(values.dtype).tiny

    assert values.isnan().sum() > 100
    assert (values.isinf() & (values < 0)).any()
    assert ((values != 0) & (values.abs() < tiny)).any()
    assert (torch.signbit(values) & (values == 0)).any()
    assert (values == torch.finfo(values.dtype).max).any()
    bits = values.view(torch.int32 if dtype == "float32" else torch.int16)
    assert len(bits[values.isnan()].unique()) > 2


def test_special_integers_do_not_fit_a_double():
    values = migration.special_values("int64")

    assert (values.double().long() != values).any()
    assert values.min() == -(2**63)


def test_layouts_are_what_they_are_called():
    x = migration.special_values("float32")
    laid = {name: arrange(x) for name, arrange in LAYOUTS.items()}

    assert [name for name, t in laid.items() if t.is_contiguous()] == [
        "contiguous",
        "empty",
        "scalar",
    ]
    assert 0 in laid["expanded"].stride()
    assert laid["channels-last"].is_contiguous(memory_format=torch.channels_last)
    assert laid["empty"].numel() == 0
    assert laid["scalar"].dim() == 0
    assert laid["scalar"].isnan()


class Spoiling(Backend):
    """A device whose copies go through something: the CPU, with a fault planted."""

    name = "cpu"

    def device_string(self, index):
        return "cpu"

    def synchronize(self, index):
        pass


@pytest.mark.parametrize(
    ("dtype", "spoil"),
    [
        ("float32", lambda x: x + 0.0),  # -0.0 becomes 0.0, signalling NaNs go quiet
        ("float32", lambda x: x.half().float()),
        ("float16", lambda x: torch.where(x.abs() < 2**-14, x * 0, x)),  # subnormals flushed
        ("bfloat16", lambda x: torch.where(x.isnan(), torch.full_like(x, math.nan), x)),
        ("int64", lambda x: x.double().long()),
    ],
)
def test_a_copy_that_changes_bits_is_caught(dtype, spoil, monkeypatch):
    plain = torch.Tensor.to

    def to(self, *args, **kwargs):
        moved = plain(self, *args, **kwargs)
        return spoil(moved) if kwargs.get("copy") else moved

    monkeypatch.setattr(torch.Tensor, "to", to)
    measured = migration.tensor_round_trip(Device(Spoiling()), dtype, "contiguous")

    assert "laid out on the CPU, it came back as other bits in" in failing(measured)


def test_a_tensor_that_never_left_is_caught(monkeypatch):
    monkeypatch.setattr(Spoiling, "device_string", lambda self, index: "cpu:0")
    device = Device(Spoiling())
    monkeypatch.setattr(migration, "same_device", lambda one, other: False)

    told = failing(migration.tensor_round_trip(device, "float32", "contiguous"))
    assert "it lies on cpu" in told


# --- the source -------------------------------------------------------------------------------

HARD_CODED = {
    "x = x.cuda()": "x.cuda()",
    "x = self.table.cuda(non_blocking=True)": "self.table.cuda(non_blocking=True)",
    "torch.cuda.synchronize()": "torch.cuda.synchronize",
    "s = torch.cuda.current_stream().wait()": "torch.cuda.current_stream",
    "x = x.to('cuda')": "'cuda'",
    "x = torch.zeros(3, device='cuda:1')": "'cuda:1'",
    "x = x.to(torch.device('cuda', 0))": "'cuda'",
    "y = x if x.is_cpu else x.cuda()": "x.cuda()",
    "if not torch.cuda.is_available():\n    raise OSError\nx = x.cuda()": "x.cuda()",
    "if not torch.cuda.is_available():\n    x.cuda()": "x.cuda()",
    "if x.device.type == 'cuda':\n    pass\nelse:\n    torch.cuda.init()": "torch.cuda.init",
    "with torch.cuda.amp.autocast():\n    pass": "torch.cuda.amp.autocast",
}

HARMLESS = [
    '"""Runs on cuda."""',
    "x = x.to(device)",
    "if x.device.type == 'cuda':\n    torch.cuda.synchronize()",
    "y = x.cuda() if torch.cuda.is_available() else x",
    "assert device == 'cuda'",
    "fast = device.type in ('cuda', 'xpu')",
    "n = torch.cuda.device_count()",
    "name = 'cuda_graph'",
    "use = self.cuda",
]


@pytest.mark.parametrize("source", HARD_CODED)
def test_hard_coded_cuda_is_found_in_source(source):
    lines = [" " * 4 + line for line in source.splitlines()]

    assert [text for _, text in migration.cuda_in_source("\n".join(lines))] == [HARD_CODED[source]]


@pytest.mark.parametrize("source", HARMLESS)
def test_portable_source_is_left_alone(source):
    assert migration.cuda_in_source(source) == []


class Planted(Network):
    """A network with CUDA in its forward."""

    def forward(self, x):
        return self.inner(x).cuda()


def helper(x):
    return second_helper(x)


def second_helper(x):
    return x.to(device="cuda:0")


class Deep(Network):
    """A network that reaches CUDA through two functions and a module's attribute."""

    def forward(self, x):
        return helper(self.inner(x))


neighbour = None


class Outside(Network):
    """A network that reaches CUDA through a function of another module."""

    @property
    def there(self):
        return neighbour.reached

    def forward(self, x):
        return self.there(self.inner(x))


@pytest.mark.parametrize("name", ["convnext_atto", "test_convnext.r160_in1k"])
def test_timm_names_cuda_only_where_it_is_allowed(name):
    import timm

    scan = migration.scan_source(timm.create_model(name))

    assert scan.verdict()
    assert scan.checked > 50
    assert len(scan.allowed) == len(ALLOWED)
    assert all(row.reason in " ".join(scan.allowed) for row in ALLOWED)
    assert not scan.doubts


@pytest.mark.parametrize("row", ALLOWED, ids=lambda row: row.function)
def test_every_allowance_is_needed(row, monkeypatch):
    import timm

    monkeypatch.setattr(migration, "ALLOWED", tuple(other for other in ALLOWED if other != row))

    assert f"({row.function}): {row.text}" in failing(
        migration.scan_source(timm.create_model("test_convnext.r160_in1k"))
    )


def test_the_functions_that_a_network_reaches_are_searched():
    import timm

    names = {name for _, name in migration.functions_in_use(timm.create_model("convnext_atto"))}

    assert {"ConvNeXtBlock.forward", "LayerNorm2d.forward", "fast_layer_norm"} <= names
    assert {"drop_path", "SelectAdaptivePool2d.forward", "is_autocast_enabled"} <= names
    assert "create_model" not in names


def test_a_planted_call_is_found_with_its_place():
    told = failing(migration.scan_source(Planted()))

    assert f"{__name__}:" in told
    assert "(Planted.forward): self.inner(x).cuda()" in told


def test_a_call_two_functions_away_is_found():
    assert "(second_helper): 'cuda:0'" in failing(migration.scan_source(Deep()))


def test_a_call_in_a_module_that_is_used_by_name_is_found(monkeypatch):
    import types

    module = types.ModuleType(__name__ + ".neighbour")
    module.reached = second_helper
    monkeypatch.setitem(globals(), "neighbour", module)

    assert "(second_helper): 'cuda:0'" in failing(migration.scan_source(Outside()))


def test_source_that_cannot_be_read_is_a_doubt():
    space = {"__name__": __name__, "nn": nn}
    exec("class Made(nn.Module):\n    def forward(self, x):\n        return x.cuda()", space)
    scan = migration.scan_source(space["Made"]())

    assert scan.doubts == (f"not searched for CUDA: {__name__} (Made.forward): OSError",)
    assert scan.as_json()["notes"]


# --- the trap ---------------------------------------------------------------------------------

SPRINGS = {
    "torch.Tensor.cuda": lambda: torch.ones(1).cuda(),
    "torch.nn.Module.cuda": lambda: nn.Linear(1, 1).cuda(),
    "torch.cuda.synchronize": lambda: torch.cuda.synchronize(),
    "torch.cuda.current_device": lambda: torch.cuda.current_device(),
    "torch.cuda.set_device": lambda: torch.cuda.set_device(0),
    "torch.cuda.current_stream": lambda: torch.cuda.current_stream(),
    "torch.cuda.Event": lambda: torch.cuda.Event(),
    "torch.cuda._lazy_init": imported_synchronize,
    "to with the device cuda": lambda: torch.ones(1).to("cuda"),
    "to with the device cuda:1": lambda: torch.ones(1).to(torch.device("cuda", 1)),
    "zeros with the device cuda": lambda: torch.zeros(2, device="cuda"),
}


@pytest.mark.parametrize("name", SPRINGS)
def test_every_way_to_cuda_springs_the_trap_and_names_its_caller(name):
    with migration.cuda_trapped() as trapped, pytest.raises(HardCodedCuda) as caught:
        SPRINGS[name]()

    assert str(caught.value).endswith(f"used {name}")
    assert str(caught.value).startswith(f"{__name__}:")
    assert trapped == [str(caught.value)]


def state():
    names = ("synchronize", "current_device", "_lazy_init", "Stream", "init")
    return [vars(torch.Tensor).get("cuda"), nn.Module.cuda, torch.Tensor.cuda] + [
        getattr(torch.cuda, name) for name in names
    ]


def test_everything_is_as_it_was_afterwards():
    before = state()
    during = []
    with pytest.raises(ZeroDivisionError), migration.cuda_trapped():
        during.append(state()) or 1 // 0

    assert during != [before]
    assert state() == before
    assert torch.ones(1).to("cpu") == 1


def test_a_torch_without_some_entry_point_is_trapped_all_the_same(monkeypatch):
    monkeypatch.delattr(torch.cuda, "empty_cache")

    with migration.cuda_trapped(), pytest.raises(HardCodedCuda):
        torch.cuda.init()
    assert not hasattr(torch.cuda, "empty_cache")


def test_what_portable_code_may_do_springs_no_trap():
    with migration.cuda_trapped() as trapped:
        torch.manual_seed(0)
        torch.cuda.is_available()
        assert torch.device("cuda", 1) != torch.ones(1).device
    assert not trapped


def test_an_owner_of_the_namespace_may_use_it_but_not_the_methods():
    with migration.cuda_trapped(owns_cuda_namespace=True):
        assert torch.cuda.synchronize is imported_synchronize
        for method in (torch.ones(1).cuda, nn.Linear(1, 1).cuda):
            with pytest.raises(HardCodedCuda):
                method()


def test_a_clean_network_runs_in_the_trap():
    model = Network()

    assert migration.run_trapped("forward", lambda: model(torch.ones(2, 3))).verdict()


@pytest.mark.parametrize("network", [Planted, Deep])
def test_a_planted_network_is_caught_when_run(network):
    told = failing(migration.run_trapped("forward", lambda: network()(torch.ones(2, 3))))

    assert f"{__name__}:" in told
    assert "forward: 1 of 1 wrong" in told


def test_a_use_that_is_caught_and_hidden_is_told_all_the_same():
    def hiding():
        for _ in range(2):
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                pass

    assert "used torch.cuda.synchronize" in failing(migration.run_trapped("hiding", hiding))


def test_other_errors_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        migration.run_trapped("division", lambda: 1 // 0)


# --- formats that a device does not have ----------------------------------------------------------


class Declaring(CpuBackend):
    """The CPU, under a backend that may declare something else of it."""


def test_float64_is_held_to_what_the_backend_declares(monkeypatch):
    device = Device(Declaring())
    assert migration.float64_kept(device).verdict()

    monkeypatch.setattr(torch.Tensor, "double", lambda tensor: tensor)  # as torch_npu has it
    words = failing(migration.float64_kept(device))
    assert "made there by .double(), it is float32, must be float64 or float64" in words
    monkeypatch.setattr(Declaring, "float64_becomes", "float32")
    assert migration.float64_kept(device).verdict()


def test_a_float64_tensor_that_is_narrowed_on_its_way_is_wrong(monkeypatch):
    device = Device(Declaring())
    to = torch.Tensor.to

    def narrowing(tensor, *arguments, **options):
        moved = to(tensor, *arguments, **options)
        narrow = moved.dtype == torch.float64 and isinstance(arguments[0], (torch.device, str))
        return moved.float().double() if narrow else moved

    monkeypatch.setattr(torch.Tensor, "to", narrowing)
    assert "sent, it came back as other bits in" in failing(migration.float64_kept(device))


def test_channels_last_is_held_to_what_the_backend_declares(monkeypatch):
    device = Device(Declaring())
    assert migration.channels_last(device).verdict()
    to = torch.Tensor.to

    def refusing(tensor, *arguments, **options):
        if options.get("memory_format") is torch.channels_last:
            raise RuntimeError("Only contiguous_format or preserve_format is supported.")
        return to(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", refusing)
    assert "Only contiguous_format" in failing(migration.channels_last(device))
    monkeypatch.setattr(Declaring, "channels_last", False)
    assert migration.channels_last(device).verdict()

    def spoiling(tensor, *arguments, **options):
        moved = to(tensor, *arguments, **options)
        return moved + 1 if options.get("memory_format") is torch.channels_last else moved

    monkeypatch.setattr(torch.Tensor, "to", spoiling)
    assert "other bits" in failing(migration.channels_last(device))

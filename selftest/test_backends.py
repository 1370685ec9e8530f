"""What each backend declares holds, on hosts made of files, fake plug-ins and fake namespaces."""

from __future__ import annotations

import enum
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from fixtures.core.backends import BACKENDS, backend, other
from fixtures.core.backends.base import (
    Backend,
    BackendUnavailable,
    Device,
    Telemetry,
    one_line,
)
from fixtures.core.backends.cpu import CpuBackend, memory_bytes, model_name
from fixtures.core.backends.cuda import FIELDS, CudaBackend, parse_rows, select_row
from fixtures.core.backends.generic import (
    AcceleratorBackend,
    MpsBackend,
    PciDevice,
    XpuBackend,
    import_all,
    pci_devices,
    read_switches,
)
from fixtures.core.backends.npu import NpuBackend, plugin_version, visible_devices_problem
from fixtures.core.npu_smi import ToolAnswer
from fixtures.core.records import UNIT_ROUNDOFF
from selftest.ascend_host import answers, sample, tool, tree, without

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GIB = 1 << 30


@contextmanager
def precision(switch, value):
    """Set one of torch's fp32_precision switches; they cannot be deleted, as monkeypatch would."""
    before = switch.fp32_precision
    switch.fp32_precision = value
    try:
        yield
    finally:
        switch.fp32_precision = before


# --- the table


@pytest.mark.parametrize("name", BACKENDS)
def test_every_row_makes_its_backend(name):
    made = backend(name)
    assert made.name == name
    assert made.device_string(3) == ("cpu" if name == "cpu" else f"{name}:3")
    assert {variable.verdict for variable in made.variables} <= {
        "recommended",
        "harmful",
        "recorded",
    }
    names = [variable.name for variable in made.variables]
    assert len(names) == len(set(names))
    assert all(variable.why and variable.source for variable in made.variables)
    assert made.early_environment == {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    if made.fallback_pattern:
        assert re.compile(made.fallback_pattern).groups == 1


def test_the_table_is_read_without_torch():
    code = (
        "import sys\n"
        "from fixtures.core.backends import BACKENDS, backend\n"
        "import fixtures.core.environment\n"
        "for name in BACKENDS: backend(name).hardware()\n"
        "bad = {'torch', 'numpy', 'PIL', 'timm'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_foreign_text_becomes_one_line():
    assert one_line("a\n  b\t c") == "a b c"
    assert one_line("x" * 400) == "x" * 299 + "…"


# --- classified import failures

HCCL = "libhccl.so: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("package", "error", "text", "kind", "words"),
    [
        ("timm", "ModuleNotFoundError", "No module named 'timm'", "not installed", "install -c"),
        ("PIL", "ModuleNotFoundError", "No module named 'PIL'", "not installed", "txt pillow"),
        (
            "torch_npu",
            "ModuleNotFoundError",
            "No module named 'torch_npu'",
            "not installed",
            "torch-npu 2.9.0",
        ),
        ("torch_npu", "ModuleNotFoundError", "No module named 'yaml'", "broken", "needs yaml"),
        ("torch_npu", "ImportError", HCCL, "toolkit not sourced", "libhccl.so is not found"),
        (
            "torch",
            "RuntimeError",
            "Failed to load the backend extension: torch_npu. You can disable extension "
            f"auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.; {HCCL}. Please check that the "
            "cann package is installed. Please run 'source set_env.sh'",
            "toolkit not sourced",
            "libhccl.so is not found",
        ),
        (
            "torch_npu",
            "Exception",
            "ASCEND_OPP_PATH environment variable is not set. Please check",
            "toolkit not sourced",
            "ASCEND_OPP_PATH environment variable is not set",
        ),
        (
            "torch_npu",
            "Exception",
            "ASCEND_HOME_PATH : /opt/none does not exist. Please run 'source set_env.sh'",
            "toolkit not sourced",
            "/opt/none does not exist",
        ),
        (
            "torch_npu",
            "ImportError",
            "libascend_hal.so: cannot open shared object file: No such file or directory",
            "toolkit not sourced",
            "mount /usr/local/Ascend/driver",
        ),
        (
            "torch_npu",
            "ImportError",
            "/x/libtorch_npu.so: undefined symbol: _ZN3c1021warn_unless",
            "ABI clash",
            "release is that of torch",
        ),
        (
            "torch_npu",
            "RuntimeError",
            "Two accelerators cannot be used at the same time in PyTorch: npu and cuda.",
            "ABI clash",
            "torch==2.9.0+cpu",
        ),
        (
            "timm",
            "RuntimeError",
            "operator torchvision::nms does not exist",
            "ABI clash",
            "built for other versions",
        ),
        (
            "numpy",
            "ValueError",
            "numpy.dtype size changed, may indicate binary incompatibility.",
            "ABI clash",
            "numpy",
        ),
        ("timm", "SyntaxError", "invalid\nsyntax", "broken", "(SyntaxError: invalid syntax)"),
    ],
)
def test_import_failures_are_classified_with_a_cure(package, error, text, kind, words):
    made = NpuBackend()
    told = made.classify_import(package, error, text)
    assert told[0] == kind
    assert words in told[1]
    assert "\n" not in told[1]
    assert not BackendUnavailable(*told).args[0].endswith(".")


def test_a_failing_plug_in_under_plain_import_torch_names_the_switch():
    text = "Failed to load the backend extension: torch_other."
    kind, sentence = CpuBackend().classify_import("torch", "RuntimeError", text)
    assert kind == "toolkit not sourced"
    assert "set TORCH_DEVICE_BACKEND_AUTOLOAD=0" in sentence


def test_the_cure_names_the_set_env_that_is_there(tmp_path, monkeypatch):
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    made = NpuBackend()
    made.root = tree(tmp_path, toolkit="8.5.1")
    assert (
        f"run 'source {tmp_path}/usr/local/Ascend/cann/set_env.sh' first"
        in (made.classify_import("torch_npu", "ImportError", HCCL)[1])
    )
    made.root = tmp_path / "bare"
    assert "install the CANN toolkit" in made.classify_import("torch_npu", "ImportError", HCCL)[1]


FAKE_NAMESPACE = """
import sys, types, torch
npu = types.ModuleType("torch.npu")
npu.device_count = lambda: {count}
npu.is_available = lambda: {count} > 0
torch.npu = npu
__version__ = "2.9.0.post1+gitee7ba04"
"""


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (None, "not installed", "torch_npu is not installed"),
        (f"raise ImportError({HCCL!r})", "toolkit not sourced", "CANN is not sourced"),
        (
            "raise ImportError('libtorch_npu.so: undefined symbol: _ZN3c10')",
            "ABI clash",
            "built for other versions",
        ),
        (FAKE_NAMESPACE.format(count=0), "no device", "there is no /dev/davinci0 here"),
        ("1 / 0", "broken", "ZeroDivisionError"),
        (FAKE_NAMESPACE.format(count=2), "loaded", "2 devices"),
    ],
)
def test_a_fresh_process_says_why_the_npu_cannot_be_had(tmp_path, source, kind, words):
    (tmp_path / "torch.py").write_text("")  # the real one takes two seconds and changes nothing
    if source is not None:
        (tmp_path / "torch_npu").mkdir()
        (tmp_path / "torch_npu/__init__.py").write_text(source)
    code = (
        "import os, pathlib\n"
        "from fixtures.core.backends import backend\n"
        "from fixtures.core.backends.base import BackendUnavailable\n"
        "made = backend('npu')\n"
        f"made.root = pathlib.Path({str(tmp_path)!r})\n"
        "try:\n"
        "    made.load()\n"
        "except BackendUnavailable as error:\n"
        "    print(f'{error.kind}|{error}')\n"
        "else:\n"
        "    print(f'loaded|{made.device_count()} devices')\n"
        "assert os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] == '0'\n"
    )
    environment = without("TORCH_DEVICE", "ASCEND") | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT])
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{kind}|")
    assert words in lines[0]


# --- hardware, found without torch


def test_ascend_hardware_signs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    made = NpuBackend()
    made.root = tree(tmp_path, nodes=("davinci0", "davinci10", "davinci_manager"))
    assert made.hardware() == ("/dev/davinci0", "/dev/davinci10", "PCI 19e5:d802 at 0000:c1:00.0")
    (tmp_path / "npu-smi").write_text("#!/bin/sh\n")
    (tmp_path / "npu-smi").chmod(0o755)
    assert made.hardware()[-1] == "npu-smi on PATH"


def test_other_chips_of_the_same_vendors_are_no_accelerator(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    root = tree(
        tmp_path,
        nodes=("null", "nvidiactl"),
        pci=(
            ("0x19e5", "0x1822", "0x020000"),  # a network card of an Arm server
            ("0x19e5", "0x1711", "0x030000"),  # the VGA chip of its management controller
            ("0x10de", "0x1aef", "0x040300"),  # the sound function of a graphics card
            ("0x8086", "0xd802", "0x120000"),
        ),
    )
    for cls in (NpuBackend, CudaBackend):
        made = cls()
        made.root = root
        assert made.hardware() == ()


def test_an_accelerator_of_an_unknown_number_is_seen_by_its_class(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    made = NpuBackend()
    made.root = tree(tmp_path, nodes=(), pci=(("0x19e5", "0xdead", "0x120000"),))
    assert made.hardware() == ("PCI 19e5:dead at 0000:c1:00.0",)


def test_nvidia_hardware_signs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    made = CudaBackend()
    made.root = tree(tmp_path, nodes=("nvidia0",), pci=(("0x10de", "0x2335", "0x030200"),))
    assert made.hardware() == ("/dev/nvidia0", "PCI 10de:2335 at 0000:c1:00.0")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert made.hardware()[-1] == "nvidia-smi on PATH"


def test_a_pci_function_without_files_is_passed_over(tmp_path):
    root = tree(tmp_path)
    (root / "sys/bus/pci/devices/0000:ff:00.0").mkdir()
    assert pci_devices(root) == (PciDevice("0000:c1:00.0", "0x19e5", "0xd802", "0x120000"),)


# --- NPU, with a fake torch.npu


class Cube(enum.Enum):
    """As torch.npu.CubeMathType."""

    KEEP_DTYPE = 0
    ALLOW_FP32_DOWN_PRECISION = 1
    USE_FP16 = 2
    USE_HF32 = 3
    USE_FP32_ADD = 4


class FakeEvent:
    """A device event that counts its records."""

    def __init__(self, enable_timing=False):
        self.enable_timing = enable_timing
        self.records = 0

    def record(self):
        """Note the call."""
        self.records += 1

    def elapsed_time(self, end):
        """Milliseconds."""
        return 1.5


def fake_npu(**changed):
    calls = []
    namespace = {
        "device_count": lambda: 2,
        "set_device": calls.append,
        "synchronize": lambda index: calls.append(f"sync {index}"),
        "get_device_name": lambda index: "Ascend910B4",
        "get_device_properties": lambda index: SimpleNamespace(
            name="Ascend910B4", total_memory=29 * GIB, cube_core_num=20
        ),
        "mem_get_info": lambda index: (28 * GIB, 29 * GIB),
        "max_memory_allocated": lambda index: 1234,
        "memory_reserved": lambda index: 5 << 20,
        "reset_peak_memory_stats": lambda index: calls.append(f"reset {index}"),
        "empty_cache": lambda: calls.append("empty"),
        "Event": FakeEvent,
        "conv": SimpleNamespace(allow_hf32=True),
        "matmul": SimpleNamespace(allow_hf32=False),
        "aclnn": SimpleNamespace(allow_hf32=True),
        "is_jit_compile_false": lambda: True,
        "calls": calls,
    }
    return SimpleNamespace(**{**namespace, **changed})


@pytest.fixture
def npu(monkeypatch):
    """Set ``torch.npu`` to a fake; returns (backend, namespace)."""

    def make(texts=None, **changed):
        namespace = fake_npu(**changed)
        monkeypatch.setattr(torch, "npu", namespace, raising=False)
        monkeypatch.setattr(torch, "get_device_module", lambda name: getattr(torch, name))
        monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
        made = NpuBackend()
        made.tool = tool(answers() if texts is None else texts)
        return made, namespace

    return make


def test_opening_makes_the_device_current(npu):
    made, namespace = npu()
    device = made.open(1)
    assert namespace.calls == [1]
    assert str(device) == "npu:1"
    with pytest.raises(BackendUnavailable, match="npu:2 does not exist: torch sees 2 npu devices"):
        made.open(2)
    with pytest.raises(BackendUnavailable, match="npu:-1 does not exist"):
        made.open(-1)


def test_a_device_that_cannot_be_opened_is_said_in_one_sentence(npu):
    def refuse(index):
        raise RuntimeError("NPU function error: c10_npu::SetDevice, error code is 507033\n[Error]")

    made, _ = npu(set_device=refuse, device_count=lambda: 1)
    with pytest.raises(BackendUnavailable, match="npu:0 cannot be opened: NPU function") as caught:
        made.open(0)
    assert caught.value.kind == "broken"
    assert "\n" not in str(caught.value)
    with pytest.raises(BackendUnavailable, match="torch sees 1 npu device, counted"):
        made.open(1)


def test_device_calls_reach_the_device(npu):
    made, namespace = npu()
    device = Device(made, 1)
    device.synchronize()
    device.reset_peak_memory()
    made.empty_cache(1)
    assert namespace.calls == ["sync 1", "reset 1", "empty"]
    assert device.peak_memory().value == 1234
    assert made.memory_info(1) == (28 * GIB, 29 * GIB)
    with device.timed() as timer:
        assert timer.start.records == 1
    assert timer.stop.records == 1
    assert timer.start.enable_timing
    assert timer.elapsed_ms() == 1.5


def test_identity_is_the_physical_cards(npu):
    made, _ = npu()
    identity = made.identity(0)
    assert identity.npu_id == 0
    assert identity.bus_id == "0000:C1:00.0"
    assert identity.serial == "1023C7654321"
    assert identity.vdie_id == "14036E64 00E04F1D 1223F2B2 84528485 104301E2"
    assert identity.memory_bytes == 29 * GIB
    assert identity.label.startswith("Ascend910B4, npu:0, NPU ID 0, bus 0000:C1:00.0")


def test_an_unknown_mapping_leaves_the_identity_open(npu):
    made, _ = npu(answers(m=sample("bad-id")))
    identity = made.identity(0)
    assert (identity.npu_id, identity.bus_id, identity.serial) == (None, None, None)
    assert identity.name == "Ascend910B4"


def test_the_index_goes_through_the_visible_devices(npu, monkeypatch):
    texts = answers(7, info=sample("info-23.0.6-ids4to7"), m=sample("m-ids4to7"))
    made, _ = npu(texts)
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,3")
    assert made.identity(1).npu_id == 7
    assert made.telemetry(1).temperature_c == 42


def test_memory_in_use_is_that_of_every_chip_of_the_host(npu, monkeypatch):
    texts = answers(7, info=sample("info-23.0.6-ids4to7"), m=sample("m-ids4to7"))
    made, _ = npu(texts)
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,3")
    name, used = made.memory_in_use(1)
    assert name == "NPU 7 chip 0"
    assert used.pop("NPU 4 chip 0") == 29096, "not visible, and shown all the same"
    assert used == {f"NPU {n} chip 0": 2825 + n for n in (5, 6, 7)}
    made, _ = npu(answers(m=sample("bad-id")))
    assert made.memory_in_use(0) is None, "which chip it is cannot be told"


def test_the_current_device_and_what_is_reserved_are_asked_where_they_can_be(npu):
    made, namespace = npu(current_device=lambda: 1)
    assert made.current() == 1
    assert made.reserved_memory(0) == 5 << 20
    del namespace.current_device, namespace.memory_reserved
    assert made.current() is None
    assert made.reserved_memory(0) is None
    assert CpuBackend().current() is CpuBackend().reserved_memory(0) is None


def test_without_a_tool_of_their_own_for_it_telemetry_tells_the_memory_in_use():
    made = Backend()
    made.name = "fake"
    made.telemetry = lambda index: Telemetry("tool", True, memory_used_mib=9.0)
    assert made.memory_in_use(2) == ("fake:2", {"fake:2": 9.0})
    for told in (None, Telemetry("tool", True), Telemetry("tool", True, mapped=False)):
        made.telemetry = lambda index, told=told: told
        assert made.memory_in_use(2) is None


def test_properties_may_lack_what_is_asked(npu):
    made, _ = npu(get_device_properties=lambda index: SimpleNamespace())
    assert made.total_memory(0) == 29 * GIB
    made, namespace = npu(get_device_properties=lambda index: SimpleNamespace())
    del namespace.mem_get_info, namespace.max_memory_allocated, namespace.Event
    del namespace.reset_peak_memory_stats, namespace.get_device_name
    assert made.total_memory(0) is None
    assert made.memory_info(0) is None
    assert made.timer() is None
    made.reset_peak_memory(0)
    assert made.peak_memory(0).reason == "torch.npu keeps no peak"
    assert made.device_name(0) == "npu"
    del namespace.get_device_properties
    assert made.properties(0) is None


def test_the_default_mode_is_mixed(npu):
    made, _ = npu()
    mode = made.math_mode()
    assert str(mode) == "conv hf32, matmul ieee, gelu tanh"
    assert mode.switches == {
        "npu.conv.allow_hf32": True,
        "npu.matmul.allow_hf32": False,
        "npu.aclnn.allow_hf32": True,
        "is_jit_compile_false": True,
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"conv": SimpleNamespace(allow_hf32=False)}, "conv ieee, matmul ieee, gelu tanh"),
        ({"matmul": SimpleNamespace(allow_hf32=True)}, "conv hf32, matmul hf32, gelu tanh"),
        (
            {"matmul": SimpleNamespace(allow_hf32=False, cube_math_type=Cube.USE_HF32)},
            "conv hf32, matmul hf32, gelu tanh",
        ),
        (
            {"matmul": SimpleNamespace(allow_hf32=False, cube_math_type=2)},
            "conv hf32, matmul float16, gelu tanh",
        ),
        (
            {"matmul": SimpleNamespace(allow_hf32=False, cube_math_type=Cube.KEEP_DTYPE)},
            "conv hf32, matmul ieee, gelu tanh",
        ),
        ({"are_compatible_impl_enabled": lambda: True}, "conv hf32, matmul ieee, gelu erf"),
        ({"are_compatible_impl_enabled": lambda: False}, "conv hf32, matmul ieee, gelu tanh"),
    ],
)
def test_the_mode_is_read_back_from_the_switches(npu, changed, told):
    made, _ = npu(**changed)
    mode = made.math_mode()
    assert str(mode) == told
    assert {mode.conv, mode.matmul} <= set(UNIT_ROUNDOFF)


class Named:
    """A setting that is known by its name alone."""

    def __init__(self, name):
        self.name = name

    def __str__(self):
        return f"CubeMathType.{self.name}"


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("KEEP_DTYPE", "ieee"),
        ("ALLOW_FP32_DOWN_PRECISION", "hf32"),
        ("USE_FP16", "float16"),
        ("USE_HF32", "hf32"),
        ("USE_FP32_ADD", "ieee"),
    ],
)
def test_a_cube_math_type_is_no_digit_in_a_name(npu, name, mode):
    member = Cube[name]
    number = enum.IntEnum("Cube", {name: member.value})[name]
    for value in (member, number, member.value, str(member.value), name, str(member), Named(name)):
        made, _ = npu(matmul=SimpleNamespace(allow_hf32=False, cube_math_type=value))
        assert made.math_mode().matmul == mode, repr(value)


@pytest.mark.parametrize("value", [None, 16, "USE_FP8_2", object()])
def test_an_unknown_cube_math_type_has_the_tightest_bounds(npu, value):
    made, _ = npu(matmul=SimpleNamespace(allow_hf32=False, cube_math_type=value))
    assert made.math_mode().matmul == "ieee"


def test_a_cube_math_type_that_cannot_be_read_ends_no_run(npu):
    class Broken:
        allow_hf32 = False

        @property
        def cube_math_type(self):
            raise RuntimeError("no option")

    made, _ = npu(matmul=Broken())
    mode = made.math_mode()
    assert mode.matmul == "ieee"
    assert mode.switches["npu.matmul.cube_math_type"] == "cannot be read (no option)"


def test_the_device_under_test_is_asked_not_the_first(npu, monkeypatch, tmp_path):
    made, _ = npu(get_device_limit=lambda index: index)
    device = Device(made, 1)
    assert device.math_mode().switches["get_device_limit"] == 1
    assert device.identity().math_mode.switches["get_device_limit"] == 1
    asked = []
    monkeypatch.setattr(made, "_chip", lambda index: (asked.append(index), (None, ""))[1])
    made.root = tmp_path  # neither file is there, so the board is asked
    made.versions(1)
    assert asked == [1]


def test_strict_switches_every_shortcut_off_and_back(npu):
    made, namespace = npu(matmul=SimpleNamespace(allow_hf32=True, cube_math_type=Cube.USE_HF32))
    before = made.math_mode()
    with made.strict(0):
        assert str(made.math_mode()) == "conv ieee, matmul ieee, gelu tanh"
        assert namespace.matmul.cube_math_type is Cube.KEEP_DTYPE
    assert made.math_mode() == before
    assert namespace.matmul.cube_math_type is Cube.USE_HF32
    with pytest.raises(ValueError), made.strict(0):
        raise ValueError
    assert made.math_mode() == before


@pytest.mark.parametrize("matmul", [{}, {"cube_math_type": None}])
def test_a_cube_math_type_that_nobody_chose_is_left_alone(npu, matmul):
    chosen = SimpleNamespace(allow_hf32=True, **matmul)
    made, namespace = npu(matmul=chosen)
    with made.strict(0):
        assert vars(namespace.matmul) == {"allow_hf32": False, **matmul}
    assert vars(namespace.matmul) == {"allow_hf32": True, **matmul}


def test_a_switch_that_cannot_be_set_ends_the_strict_regime_at_once(npu):
    class Refusing:
        allow_hf32 = property(lambda self: True)

    made, namespace = npu(matmul=Refusing())
    with pytest.raises(AttributeError), made.strict(0):
        pytest.fail("nobody knows what would be computed here")
    assert namespace.conv.allow_hf32 is True, "what was switched before is put back"


@pytest.mark.parametrize("told", [0, 1, 2])
def test_the_vendors_stress_test_is_that_of_one_card(npu, told):
    asked = []

    @contextmanager
    def device(index):
        asked.append(index)
        yield
        asked.append("left")

    def stress(kind):
        asked.append(kind)
        return told

    made, _ = npu(stress_detect=stress, device=device)
    assert made.stress_detect(1) == told
    assert asked == [1, "aic", "left"]


def test_where_there_is_no_stress_test_it_is_none(npu):
    made, _ = npu()
    assert made.stress_detect(0) is None
    assert CpuBackend().stress_detect(0) is None


def test_a_switch_that_cannot_be_read_is_said(npu):
    def broken():
        raise RuntimeError("no option")

    made, _ = npu(is_jit_compile_false=broken, get_device_limit=lambda index: {"cube_core_num": 20})
    switches = made.math_mode().switches
    assert switches["is_jit_compile_false"] == "cannot be read (no option)"
    assert switches["get_device_limit"] == "{'cube_core_num': 20}"


@pytest.mark.parametrize(
    ("name", "gib", "sound"),
    [
        ("Ascend910B4", 29.5, True),
        ("Ascend910B4", 32.0, True),
        ("Ascend910B4", 26.0, False),
        ("Ascend910B3", 60.96, True),
        ("Ascend910B3", 32.0, False),
    ],
)
def test_memory_band(name, gib, sound):
    least, most = NpuBackend().memory_band(name)
    assert (least <= gib * GIB <= most) is sound
    assert NpuBackend().memory_band("Ascend310P3") is None


def test_versions_from_files_and_from_the_board(npu, tmp_path, monkeypatch):
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    made, _ = npu()
    made.root = tree(tmp_path, toolkit="8.5.1")
    monkeypatch.setitem(
        sys.modules, "torch_npu", SimpleNamespace(__version__="2.9.0.post1+gitee7ba04")
    )
    assert made.versions() == {
        "torch_npu": "2.9.0.post1+gitee7ba04",
        "toolkit": "8.5.1",
        "driver": "23.0.7",
        "firmware": "7.1.0.11.220",
        "npu-smi": "24.1.rc3",
    }
    made.root = tmp_path / "container"
    monkeypatch.setattr(torch.version, "cann", "8.5.0", raising=False)
    told = made.versions()
    assert (told["driver"], told["firmware"], told["toolkit"]) == (
        "24.1.0.3",
        "7.5.0.5.220",
        "8.5.0",
    )


def test_versions_that_nobody_tells_are_none(npu, tmp_path, monkeypatch):
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    made, _ = npu({})
    made.root = tmp_path
    monkeypatch.delitem(sys.modules, "torch_npu", raising=False)
    assert set(made.versions().values()) == {None}
    assert plugin_version() is None


def test_the_graph_engines_file_goes_to_the_runs_folder(tmp_path):
    assert NpuBackend().run_environment(tmp_path) == {
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "ASCEND_WORK_PATH": str(tmp_path),
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            "[W VariableFallbackKernel.cpp:224] Warning: CAUTION: The operator 'aten::logit.out' is"
            " not currently supported on the NPU backend and will fall back to run on the CPU. This"
            " may have performance implications. (function npu_cpu_fallback)",
            ["aten::logit.out"],
        ),
        (
            "CAUTION: The operator aten::_masked_softmax is currently not supported on the NPU "
            "backend.Now this operator will fallback to run on the CPU and may have",
            ["aten::_masked_softmax"],
        ),
        (
            "Since the NPU interface does not support operator 'aten::_sparse_csr_sum.dim_dtype', "
            "the operator will fall back to CPU.",
            ["aten::_sparse_csr_sum.dim_dtype"],
        ),
        (
            "the operator 'torchvision::nms' is not currently supported on the NPU backend and "
            "will FALL BACK to run on the CPU.\nThe operator 'aten::x' is not currently supported "
            "on the NPU backend and will fall back to run on the CPU.",
            ["torchvision::nms", "aten::x"],
        ),
        ("The operator aten::npu_grouped_matmul is not support tuning_config", []),
        ("The operator 'aten::a' is fine\nsomething will fall back to run on the CPU", []),
    ],
)
def test_fallback_texts(text, names):
    assert re.findall(NpuBackend.fallback_pattern, text) == names


OOM = "NPU out of memory. Tried to allocate 64.00 GiB (NPU 0; 32.00 GiB total capacity; ..."


@pytest.mark.parametrize(
    ("error", "memory", "device"),
    [
        (torch.OutOfMemoryError(OOM), True, False),
        (RuntimeError(OOM), True, False),
        (RuntimeError("NPUWorkspaceAllocator tried to allocate, NPU out of memory."), True, False),
        (RuntimeError("call aclrtMalloc failed, error code is 207001"), True, False),
        (RuntimeError("error code is 207018"), True, False),
        (RuntimeError("EL0004: Failed to allocate memory."), True, False),
        (RuntimeError("[PID:1] EL0004 blah"), True, False),
        (RuntimeError("ACL stream synchronize failed, error code:507015"), False, True),
        (RuntimeError("error code is 507899 An internal error occurs in the Driver"), False, True),
        # the code decides, whatever the words and the type
        (RuntimeError("error code is 507018, NPU out of memory"), False, True),
        (torch.OutOfMemoryError("error code is 507899 ... EL0004 207018"), False, True),
        (torch.OutOfMemoryError(f"The Inner error is reported as above. {OOM}"), False, True),
        (RuntimeError("aicore exception 507015, out of memory"), False, True),
        (RuntimeError("aivec error exception, error code = 0x800000, 507035"), False, True),
        (RuntimeError("error code is 561103 ... runtime result = 507035"), False, True),
        (RuntimeError("error code is 561103 ... tiling failed"), False, False),
        (RuntimeError("aclrtMalloc, error code is 207001, 507904 bytes asked"), True, False),
        (RuntimeError("aclrtMalloc, error code is 207001 (507015 before)"), True, False),
        # sizes that look like codes
        (RuntimeError("EL0004: Failed to allocate memory of 507904 bytes"), True, False),
        (torch.OutOfMemoryError(f"{OOM} 507904"), True, False),
        (RuntimeError("took 507.015 ms, 1507015 calls"), False, False),
        (RuntimeError("error code is 507054 HBM MULTI BIT ECC ERROR."), False, True),
        (RuntimeError("The Inner error is reported as above. The process exits"), False, True),
        (RuntimeError("shape [5070151] is invalid"), False, False),
        (RuntimeError("size mismatch"), False, False),
        (ValueError("207001 507015"), False, False),
    ],
)
def test_errors_are_told_apart(error, memory, device):
    made = NpuBackend()
    assert made.is_out_of_memory(error) is memory
    assert made.is_device_error(error) is device


LOST = RuntimeError("error code is 507015")


def raised(error, **links):
    """An exception with a cause, a context or members."""
    for name, value in links.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (LOST, LOST),
        (raised(ValueError("x"), __cause__=LOST), LOST),
        (raised(ValueError("x"), __context__=raised(KeyError("y"), __context__=LOST)), LOST),
        (raised(Exception("a group"), exceptions=(ValueError("x"), LOST)), LOST),
        (ValueError("x"), None),
    ],
)
def test_a_device_error_is_found_behind_others(error, found):
    assert NpuBackend().device_error(error) is found


def test_a_circle_of_errors_ends():
    one = ValueError("x")
    raised(one, __context__=raised(KeyError("y"), __context__=one))
    assert NpuBackend().device_error(one) is None


def test_a_device_remembers_its_first_error_although_it_was_caught(monkeypatch):
    device = Device(NpuBackend())
    told = iter(["size mismatch", "error code is 507015\nmore", "error code is 507018"])

    def fail(index):
        raise RuntimeError(next(told))

    monkeypatch.setattr(device.backend, "synchronize", fail)
    for failure in ("", "error code is 507015", "error code is 507015"):
        with pytest.raises(RuntimeError):
            device.synchronize()
        assert device.failure == failure


def test_an_error_that_leaves_a_block_is_noticed():
    device = Device(NpuBackend())
    with device.noticing():
        pass
    with pytest.raises(ValueError, match="x"), device.noticing():
        raise ValueError("x")
    assert device.failure == ""
    with pytest.raises(RuntimeError, match="507015"), device.noticing():
        raise LOST
    assert device.failure == "error code is 507015"


def test_a_device_that_obeys_is_left_alone():
    device = CpuBackend().open(0)
    for _ in range(3):
        device.check_obedience()
    assert device.failure == ""


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (None, "1 + 1 gave 1 on cpu"),
        (RuntimeError("error code is 507015\nat length"), "error code is 507015"),
        (RuntimeError("not enough memory: you tried to allocate 4 bytes"), ""),
        (RuntimeError("told once"), "adding two numbers on cpu failed: told once"),
    ],
)
def test_a_device_that_drops_what_it_is_told_has_failed(monkeypatch, error, failure):
    asked = []

    def stale(one, other):
        asked.append(one)
        if error is not None:
            raise error
        return one

    device = CpuBackend().open(0)
    monkeypatch.setattr(device.backend, "is_device_error", NpuBackend().is_device_error)
    monkeypatch.setattr(torch.Tensor, "__add__", stale)
    device.check_obedience()
    assert device.failure == failure
    device.check_obedience()
    assert len(asked) == (1 if failure else 2), "one that has failed is not asked again"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, None),
        ({"ASCEND_RT_VISIBLE_DEVICES": "1,3"}, None),
        ({"ASCEND_RT_VISIBLE_DEVICES": "3,1"}, "torch sees 0 devices"),
        ({"ASCEND_RT_VISIBLE_DEVICES": ""}, "is empty, so torch sees 0 devices"),
        ({"ASCEND_RT_VISIBLE_DEVICES": "0,1-3"}, "read only up to its first character"),
        ({"ASCEND_LAUNCH_BLOCKING": "1"}, "ASCEND_LAUNCH_BLOCKING=1 must not be set"),
        ({"ASCEND_LAUNCH_BLOCKING": "0"}, None),
        ({"TORCH_NPU_DISABLED_WARNING": "1"}, "hides"),
        ({"TORCH_NPU_WARNING_DISABLE": "1"}, "hides"),
        ({"PYTORCH_NO_NPU_MEMORY_CACHING": "1"}, "caching allocator"),
        ({"INF_NAN_MODE_ENABLE": "0"}, "saturates"),
        ({"INF_NAN_MODE_ENABLE": "1"}, None),
        ({"TORCH_TRANSFER_TO_NPU": "1"}, "CUDA calls"),
        ({"TORCH_NPU_SANITIZER": "1"}, "streams"),
        ({"TORCH_NPU_DEVICE_CAPABILITY": "8.0"}, "compute capability"),
        ({"TASK_QUEUE_ENABLE": "2"}, None),
    ],
)
def test_variables_are_judged(environ, words):
    problems, _ = NpuBackend().judge_variables(environ)
    assert len(problems) == (words is not None)
    assert words is None or words in problems[0]


def test_recommended_variables_are_missed():
    _, doubts = NpuBackend().judge_variables({})
    assert len(doubts) == 2
    assert "PYTORCH_NPU_ALLOC_CONF=expandable_segments:True" in doubts[1]
    given_ = {"ASCEND_RT_VISIBLE_DEVICES": "0", "PYTORCH_NPU_ALLOC_CONF": "x"}
    assert NpuBackend().judge_variables(given_) == ((), ())


@pytest.mark.parametrize(
    ("nodes", "visible", "words"),
    [
        ((), None, "--device /dev/davinci0"),
        (("davinci0",), "1,0", "not a strictly ascending list"),
        (("davinci0",), None, "the driver offers none"),
    ],
)
def test_why_there_is_no_npu(tmp_path, monkeypatch, nodes, visible, words):
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    made = NpuBackend()
    made.root = tree(tmp_path, nodes=nodes)
    assert words in made.no_device()


def test_a_device_node_without_rights_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    made = NpuBackend()
    made.root = tree(tmp_path)
    assert "/dev/davinci0 may not be opened by this user" in made.no_device()


def test_visible_devices_that_are_fine_are_no_problem():
    assert visible_devices_problem("0,1,7 ") == ""


# --- CUDA

ROWS = (
    "GPU-aaaa, 00000000:18:00.0, NVIDIA H200, 165001, 570.1, 31, 76.5, 4, 143771, 0, 0\n"
    "GPU-bbbb, 00000000:2A:00.0, NVIDIA H200, [N/A], 570.1, 88, [N/A], 9000, 143771, 99, 2\n"
)


def fake_cuda(monkeypatch, texts, hip=None, capability=(9, 0), **properties):
    several = isinstance(capability, list)
    namespace = SimpleNamespace(
        device_count=lambda: 2,
        get_device_name=lambda index: "NVIDIA H200",
        get_device_capability=lambda index: capability[index] if several else capability,
        get_device_properties=lambda index: SimpleNamespace(total_memory=GIB, **properties),
    )
    monkeypatch.setattr(torch, "cuda", namespace)
    monkeypatch.setattr(torch, "get_device_module", lambda name: getattr(torch, name))
    monkeypatch.setattr(torch.version, "hip", hip)
    made = CudaBackend()

    def ask(command, timeout=0.0):
        for key, text in texts.items():
            if key in command[1]:
                return ToolAnswer(True, text, 0)
        return ToolAnswer(False, reason="nvidia-smi is not on PATH")

    made.ask = ask
    return made


def test_rows_of_nvidia_smi():
    rows = parse_rows(ROWS + "a broken line\n", FIELDS)
    assert len(rows) == 2
    assert rows[0]["serial"] == "165001"
    assert "serial" not in rows[1]
    assert select_row(rows, "BBBB", None) is rows[1]
    assert select_row(rows, None, "0000:18:00.0") is rows[0]
    assert select_row(rows, "cccc", None) is None


def test_the_gpu_that_torch_has_is_asked_not_the_first(monkeypatch):
    apps = (
        f"GPU-bbbb, 1, /usr/bin/Xorg, 30\nGPU-bbbb, {os.getpid()}, python, 700\n"
        "GPU-aaaa, 1, other, 5\nGPU-bbbb, 1, nomem, [N/A]\n"
    )
    made = fake_cuda(
        monkeypatch,
        {"query-gpu=uuid": ROWS, "compute-apps": apps, "driver": "570.1\n"},
        uuid="bbbb",
    )
    told = made.telemetry(0)
    assert (told.temperature_c, told.power_w, told.memory_used_mib) == (88, None, 9000)
    assert told.ecc == {"ecc.errors.uncorrected.volatile.total": 2}
    assert told.processes == ("process 1 (/usr/bin/Xorg, 30 MiB)", "process 1 (nomem)")
    identity = made.identity(0)
    assert (identity.bus_id, identity.serial) == ("00000000:2A:00.0", "GPU-bbbb")
    assert made.versions()["driver"] == "570.1"


def test_the_gpu_is_found_by_bus_id_too(monkeypatch):
    made = fake_cuda(
        monkeypatch,
        {"query-gpu=uuid": ROWS, "compute-apps": ""},
        pci_domain_id=0,
        pci_bus_id=0x18,
        pci_device_id=0,
    )
    assert made.telemetry(0).temperature_c == 31
    assert made.identity(0).bus_id == "0000:18:00.0"
    assert made.identity(0).serial == "165001"


def test_a_gpu_that_is_not_shown_is_not_guessed(monkeypatch, tmp_path):
    made = fake_cuda(monkeypatch, {"query-gpu=uuid": ROWS}, uuid="cccc")
    told = made.telemetry(0)
    assert not told.mapped
    assert told.reason == "nvidia-smi shows no GPU with the UUID of cuda:0"


def test_an_nvidia_smi_that_fails_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    made = fake_cuda(monkeypatch, {"query-gpu": said})
    told = made.telemetry(0)
    assert told.tool_present
    assert told.problems == (f"nvidia-smi failed: {said.strip()}",)
    assert made.versions()["driver"] is None


def test_no_nvidia_smi_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    told = fake_cuda(monkeypatch, {}).telemetry(0)
    assert (told.tool_present, told.mapped, told.problems) == (False, False, ())


def test_rocm_does_not_ask_nvidia_smi(monkeypatch):
    made = fake_cuda(monkeypatch, {}, hip="6.4")
    assert made.telemetry(0) is None
    assert made.versions() == {"rocm": "6.4"}
    assert made.identity(0).serial is None
    assert str(made.math_mode()) == "conv ieee, matmul ieee, gelu erf"


def test_tf32_is_read_back(monkeypatch):
    made = fake_cuda(monkeypatch, {})
    assert str(made.math_mode()) == "conv tf32, matmul ieee, gelu erf"
    with precision(torch.backends.cudnn.conv, "ieee"):
        with precision(torch.backends.cuda.matmul, "tf32"):
            assert str(made.math_mode()) == "conv ieee, matmul tf32, gelu erf"
    old = fake_cuda(monkeypatch, {}, capability=(7, 5))
    assert str(old.math_mode()) == "conv ieee, matmul ieee, gelu erf"


def test_strict_switches_tf32_off_and_back(monkeypatch):
    made = fake_cuda(monkeypatch, {})
    before = made.math_mode()
    with precision(torch.backends.cuda.matmul, "tf32"):
        with made.strict(0):
            assert str(made.math_mode()) == "conv ieee, matmul ieee, gelu erf"
        assert str(made.math_mode()) == "conv tf32, matmul tf32, gelu erf"
    assert made.math_mode() == before


def test_cublas_may_be_asked_to_repeat_itself(tmp_path):
    told = CudaBackend().run_environment(tmp_path)
    assert told == {**CudaBackend().early_environment, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def test_tf32_is_that_of_the_device_under_test(monkeypatch):
    made = fake_cuda(monkeypatch, {}, capability=[(7, 5), (9, 0)])
    assert [Device(made, index).math_mode().conv for index in (0, 1)] == ["ieee", "tf32"]


def test_why_there_is_no_gpu(monkeypatch):
    made = CudaBackend()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "its driver must support CUDA 12.8" in made.no_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "hides them all" in made.no_device()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in made.no_device()


@pytest.mark.parametrize(
    ("text", "memory", "device"),
    [
        ("CUDA out of memory. Tried to allocate", True, False),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling", True, False),
        ("CUDA error: an illegal memory access was encountered", False, True),
        ("CUDA error: uncorrectable ECC error encountered", False, True),
        ("CUDA error: no kernel image is available", False, False),
    ],
)
def test_cuda_errors_are_told_apart(text, memory, device):
    made = CudaBackend()
    assert made.is_out_of_memory(RuntimeError(text)) is memory
    assert made.is_device_error(RuntimeError(text)) is device


# --- CPU


def test_the_cpu_is_a_device():
    made = CpuBackend()
    made.load()
    device = made.open(0)
    assert not device.is_accelerator
    assert device.torch == torch.device("cpu")
    assert made.device_count() == 1
    assert made.hardware() == ()
    assert made.telemetry(0) is None
    assert made.versions() == {}
    device.synchronize()
    device.reset_peak_memory()
    made.empty_cache(0)
    with device.timed() as timer:
        assert timer is None
    assert device.peak_memory().value is None
    identity = device.identity()
    assert identity.name
    assert identity.memory_bytes > 0
    free, total = made.memory_info(0)
    assert 0 < free <= total
    with pytest.raises(BackendUnavailable, match="cpu:1 does not exist"):
        made.open(1)


def test_the_cpus_name(tmp_path):
    (tmp_path / "proc").mkdir()
    file = tmp_path / "proc/cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9654\n\nmodel name\t: AMD EPYC 9654\n")
    assert model_name(tmp_path) == "AMD EPYC 9654"
    file.write_text("processor\t: 0\nCPU implementer\t: 0x48\nCPU part\t: 0xd01\n")
    assert model_name(tmp_path) == "Kunpeng-920"
    file.write_text("CPU implementer\t: 0x41\nCPU part\t: 0xd4f\n")
    assert model_name(tmp_path) == "Arm implementer 0x41 part 0xd4f"
    assert model_name(tmp_path / "none")
    (tmp_path / "proc/meminfo").write_text("MemFree: 1 kB\n")
    assert memory_bytes(tmp_path) is None
    assert memory_bytes(tmp_path / "none") is None
    (tmp_path / "proc/meminfo").write_text("MemTotal:   64 kB\nMemAvailable:  32 kB\n")
    assert memory_bytes(tmp_path) == (32768, 65536)
    made = CpuBackend()
    made.root = tmp_path / "none"
    assert made.identity(0).memory_bytes is None


def test_the_cpus_mode_is_read_back():
    assert str(CpuBackend().math_mode()) == "conv ieee, matmul ieee, gelu erf"
    with precision(torch.backends.mkldnn.matmul, "bf16"):
        assert str(CpuBackend().math_mode()) == "conv ieee, matmul bfloat16, gelu erf"


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("out of luck"), False),
    ],
)
def test_the_cpus_memory_errors(error, memory):
    assert CpuBackend().is_out_of_memory(error) is memory
    assert CpuBackend().is_device_error(error) is False


def test_a_variable_that_changes_the_reference_is_a_problem():
    problems, _ = CpuBackend().judge_variables({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"})
    assert "ONEDNN_DEFAULT_FPMATH_MODE=BF16 must not be set" in problems[0]
    assert CpuBackend().judge_variables({"ONEDNN_DEFAULT_FPMATH_MODE": "STRICT"}) == ((), ())


# --- the others


def test_a_further_accelerator_is_a_few_lines(monkeypatch):
    class Meta(AcceleratorBackend):
        name = "meta"

    made = Meta()
    with pytest.raises(BackendUnavailable, match="torch sees no meta device"):
        made.load()
    module = SimpleNamespace(
        device_count=lambda: 1,
        get_device_properties=lambda index: SimpleNamespace(name="M1"),
    )
    monkeypatch.setattr(torch, "meta", module, raising=False)
    monkeypatch.setattr(torch, "get_device_module", lambda name: module)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    made.load()
    device = made.open(0)
    assert device.identity().name == "M1"
    assert device.identity().memory_bytes is None


def test_an_accelerator_that_is_not_in_the_table_is_a_backend(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "get_device_module", lambda name: SimpleNamespace())
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda: SimpleNamespace(type="tpu")
    )
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", calls.append)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda index: calls.append(f"s{index}"))
    made = other("tpu")
    assert isinstance(made, Backend)
    made.load()
    device = made.open(1)
    device.synchronize()
    made.empty_cache(1)
    assert (str(device), device.is_accelerator, calls) == ("tpu:1", True, [1, "s1"])
    identity = device.identity()
    assert (identity.backend, identity.name, identity.memory_bytes) == ("tpu", "tpu", None)
    assert (made.timer(), made.telemetry(1), made.versions(1)) == (None, None, {})
    assert device.peak_memory().reason == "torch.tpu keeps no peak"

    # torch speaks of another accelerator: this one is not there
    with pytest.raises(BackendUnavailable, match="torch sees no npx device"):
        other("npx").load()
    assert other("tpu").name == "tpu", "two of them do not share their name"
    assert AcceleratorBackend.name == ""


def test_xpu_and_mps_say_that_there_is_none():
    for made in (XpuBackend(), MpsBackend()):
        assert made.device_count() == 0
        assert made.hardware() == ()


def test_mps_has_one_device_without_index(monkeypatch):
    calls = []
    module = SimpleNamespace(device_count=lambda: 1, synchronize=lambda: calls.append("sync"))
    monkeypatch.setattr(torch, "mps", module)
    monkeypatch.setattr(torch, "get_device_module", lambda name: module)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M3", raising=False)
    made = MpsBackend()
    device = made.open(0)
    device.synchronize()
    assert calls == ["sync"]
    assert made.device_name(0) == "Apple M3"
    monkeypatch.delattr(torch.backends.mps, "get_name")
    assert made.device_name(0) == "Apple GPU"
    assert made.judge_variables({"PYTORCH_ENABLE_MPS_FALLBACK": "1"})[0]


def test_switches_that_cannot_be_read_do_not_end_a_run(monkeypatch):
    class Mixed:
        @property
        def fp32_precision(self):
            raise RuntimeError("PyTorch is checking whether allow_tf32 is mixed")

    monkeypatch.setattr(torch.backends.cudnn, "conv", Mixed())
    read = read_switches("backends.cudnn.conv.fp32_precision", "backends.none.at_all")
    assert read == {
        "backends.cudnn.conv.fp32_precision": "cannot be read (PyTorch is checking whether "
        "allow_tf32 is mixed)"
    }


def test_the_autoload_is_switched_off_before_torch_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    seen = []

    def pretend(name):
        seen.append((name, os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD")))

    monkeypatch.setattr("fixtures.core.backends.generic.import_module", pretend)
    import_all(NpuBackend())
    assert seen == [("torch", "0"), ("torch_npu", "0")]
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD")


def test_the_base_declares_nothing_it_does_not_have():
    made = Backend()
    with made.strict(0):
        assert str(made.math_mode()) == "conv ieee, matmul ieee, gelu erf"
    assert made.stress_detect(0) is None
    assert made.versions() == {}
    assert made.telemetry(0) is None
    assert made.memory_band("x") is None
    assert made.device_count() == 0
    assert str(made.math_mode()) == "conv ieee, matmul ieee, gelu erf"

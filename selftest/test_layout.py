"""The house's rules: imports run one way, each kind of knowledge is in one place."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "fixtures" / "core").rglob("*.py"))
PLUGINS = sorted((ROOT / "fixtures").glob("*.py"))
TESTS = sorted((ROOT / "tests").glob("*.py"))
HEAVY = {"torch", "timm", "numpy", "PIL", "matplotlib", "torchvision", "safetensors", "scipy"}


def imports(path, everywhere=True):
    """Modules that a file imports; without `everywhere` only where importing it does."""
    found = set()

    def walk(nodes):
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not everywhere:
                continue
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            else:
                walk(ast.iter_child_nodes(node))

    walk(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


def of(module, *packages):
    return any(module == package or module.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_knows_neither_pytest_nor_the_plugins(path):
    forbidden = ("pytest", "_pytest", "pytest_html", "pytest_benchmark", "conftest", "tests")
    for module in imports(path):
        assert not of(module, *forbidden), module
        assert not module.startswith("fixtures.") or of(module, "fixtures.core"), module


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_no_plugin_imports_another(path):
    for module in imports(path):
        assert not of(module, "conftest", "tests"), module
        assert not re.match(r"fixtures\.(options|devices|models|timing|recording)\b", module), (
            module
        )


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_items_reach_plugins_by_fixture_name_only(path):
    for module in imports(path):
        if of(module, "fixtures"):
            assert of(module, "fixtures.core") or module in ("fixtures", "fixtures.SETTINGS"), (
                module
            )


LATE = tuple(
    ROOT / "fixtures/core" / name
    for name in (
        "backends/simulated_cann/compute.py",
        "emulation.py",
        "dispatched.py",
        "lockstep.py",
        "replay.py",
        "watch.py",
    )
)
"""What stands around torch's own calls and needs torch for that: imported inside functions only."""


@pytest.mark.parametrize("path", CORE + PLUGINS + TESTS, ids=lambda path: path.stem)
def test_nothing_heavy_is_imported_before_it_is_needed(path):
    if path in LATE:
        return
    for module in imports(path, everywhere=False):
        assert not of(module, *HEAVY), module


def test_what_needs_torch_is_imported_late():
    late = tuple(str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in LATE)
    for path in CORE:
        if path in LATE:
            continue
        for module in imports(path, everywhere=False):
            assert not of(module, "compute", *late), (path, module)
            assert not module.endswith("simulated_cann.compute"), path


def test_records_stand_on_the_standard_library_alone():
    for module in imports(ROOT / "fixtures" / "core" / "records.py"):
        assert module.partition(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("path", CORE + PLUGINS + TESTS, ids=lambda path: path.stem)
def test_what_a_backend_is_called_is_asked_nowhere_but_in_its_module(path):
    if "backends" in path.parts:
        return
    text = path.read_text(encoding="utf-8")
    for name in ("npu", "cuda", "xpu", "mps"):
        assert not re.search(rf"""[=!]=\s*["']{name}\b|\.startswith\(["']{name}\b""", text), name


def test_only_one_file_knows_each_plug_in():
    for word, home in (("pytest_html", "recording.py"), ("benchmark.pedantic", "timing.py")):
        for path in PLUGINS + CORE + TESTS:
            if path.name != home:
                assert word not in path.read_text(encoding="utf-8"), (word, path.name)


def test_ids_are_plain(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(ROOT), "--collect-only", "-q"],
        cwd=tmp_path,  # from elsewhere, by the root's name: the selftests are no items
        capture_output=True,
        text=True,
        check=True,
    )
    ids = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(ids) > 80
    assert len(set(ids)) == len(ids)
    for line in ids:
        assert re.fullmatch(r"tests/test_[a-z_]+\.py::test_[a-z_0-9]+(\[[a-z0-9._-]+\])?", line), (
            line
        )


def test_nothing_runs_strings_through_a_shell_or_reads_pickles():
    for path in CORE + PLUGINS:
        text = path.read_text(encoding="utf-8")
        assert "shell=True" not in text, path
        assert "os.system" not in text, path
        assert "weights_only=False" not in text, path
        assert not re.search(r"\bpickle\.(load|loads)\b", text), path

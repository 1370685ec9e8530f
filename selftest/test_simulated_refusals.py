"""Simulated cards that cannot be had: one clear sentence, exit code 4, and torch never imported.

Also the parts that decide it: the building of the libraries, what they must hold for each release
of torch_npu, and the mark by which a report knows that its card was simulated.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from fixtures.core.backends.simulated_cann import build, marker, trampolines
from fixtures.core.backends.simulated_cann.loader import MOST_CARDS, SUPPORTED
from fixtures.core.backends.simulated_cann.table import TABLE
from selftest.conftest import SMALL, Suite
from selftest.simulated import CARDS, ROOT, folder, needs_cards, variables

pytestmark = needs_cards

PACKAGE = ROOT / "fixtures/core/backends/simulated_cann"


# --- refusals -----------------------------------------------------------------------------------


class Shell:
    """A copy of the suite beside a torch that tells of being imported."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.touched = suite.root / "torch-was-imported"
        self.path = suite.root / "path"
        (self.path / "torch").mkdir(parents=True)
        (self.path / "torch/__init__.py").write_text(
            f"open({str(self.touched)!r}, 'w').close()\nraise ImportError('not now')\n"
        )

    def distribution(self, name: str, version: str) -> None:
        """Metadata of an installed distribution, which hides the one that is installed."""
        made = self.path / f"{name}-{version}.dist-info"
        made.mkdir()
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def refused(
        self, *arguments: str, torch_npu: str | None = SUPPORTED[0], **environment: str
    ) -> str:
        """The one sentence that a run is refused with; torch_npu None: it is not installed."""
        places = [self.path, *([folder(torch_npu)] if torch_npu else [])]
        outcome = self.suite.run(
            "--weights",
            "synthetic",
            *arguments,
            PYTHONPATH=os.pathsep.join(map(str, places)),
            **environment,
        )
        assert outcome.code == 4, outcome.out
        assert not self.touched.exists(), "torch was imported first"
        assert "Traceback" not in outcome.out
        sentences = [line for line in outcome.out.splitlines() if line.startswith("ERROR: ")]
        assert len(sentences) == 1, outcome.out
        return sentences[0].removeprefix("ERROR: ")


@pytest.fixture
def shell(suite: Suite) -> Shell:
    """A fresh one."""
    return Shell(suite)


NPU = ("--device", "npu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*NPU, "--simulate", "0"), ["--simulate 0: give a number of cards from 1"]),
        ((*NPU, "--simulate", "-1"), ["--simulate -1: give a number of cards from 1"]),
        (
            (*NPU, "--simulate", "99"),
            [f"--simulate 99: give a number of cards from 1 to {MOST_CARDS}"],
        ),
        (("--simulate", "1"), ["--simulate 1: which cards? Add --device npu"]),
        (("--device", "cpu", "--simulate", "1"), ["--simulate 1", "cpu", "--device npu"]),
        (("--device", "cuda", "--simulate", "1"), ["--simulate 1", "cuda", "--device npu"]),
        ((*NPU, "--faults", "[]"), ["--faults []: ", "add --simulate 1"]),
        ((*NPU, "--qualify", "--simulate", "1"), ["--qualify", "synthetic"]),
        (
            (*NPU, "--qualify", "--simulate", "1", "--weights", "auto"),
            ["--qualify --simulate 1: simulated cards are for rehearsals; leave one"],
        ),
        (
            (*NPU, "--simulate", "1", "--faults", '[{"kind": "wrong_gelo"}]'),
            ["--faults: ", "wrong_gelo", "wrong_gelu"],
        ),
        (
            (
                *NPU,
                "--simulate",
                "1",
                "--faults",
                '[{"kind": "hf32", "operator": "aclnnConvolutoin"}]',
            ),
            ["--faults: ", "aclnnConvolutoin", "aclnnConvolution"],
        ),
        (
            (*NPU, "--simulate", "2", "--faults", '[{"kind": "hang", "device": 2}]'),
            ["--faults: ", "2"],
        ),
        ((*NPU, "--simulate", "1", "--faults", "[{"), ["--faults: "]),
        ((*NPU, "--simulate", "1", "--faults", "nowhere.json"), ["--faults: ", "nowhere.json"]),
        ((*NPU, "--simulate", "1", "--faults", "tests"), ["--faults: ", "tests"]),
        (
            (*NPU, "--simulate", "1", "--faults", "~nobody-here/plan.json"),
            ["~nobody-here/plan.json: there is no such user's home folder"],
        ),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_options_are_refused(shell, arguments, words):
    """Named are the option, its value and the cure."""
    sentence = shell.refused(*arguments)
    for word in words:
        assert word in sentence


def test_a_plan_of_the_variable_is_refused_by_its_name(shell):
    """A plan may come from the environment as well."""
    sentence = shell.refused(*NPU, "--simulate", "1", SIMULATED_CANN_FAULTS='[{"kind": "x"}]')
    assert sentence.startswith("SIMULATED_CANN_FAULTS: ")


def test_visible_devices_that_name_no_simulated_card(shell):
    """It is the variable that must be changed, not a driver."""
    sentence = shell.refused(*NPU, "--simulate", "2", ASCEND_RT_VISIBLE_DEVICES="5")
    assert "ASCEND_RT_VISIBLE_DEVICES=5 names none of the cards 0 to 1: unset it" in sentence


def test_a_real_library_that_got_in_is_refused(tmp_path):
    """The loader may find one where nobody looked, in /etc/ld.so.conf.d say."""
    source = tmp_path / "empty.c"
    source.write_text("")
    real = tmp_path / "libopapi_other.so"
    subprocess.run(["gcc", "-shared", "-o", str(real), str(source)], check=True)
    code = (
        "import ctypes, pathlib\n"
        f"ctypes.CDLL({str(real)!r})\n"
        "from fixtures.core.backends.simulated_cann import marker\n"
        f"print(marker.foreign(pathlib.Path('/elsewhere')), "
        f"marker.foreign(pathlib.Path({str(tmp_path)!r})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"[{str(real)!r}] []"


def test_without_a_compiler(shell, tmp_path):
    """Nothing on PATH builds the libraries, and none are kept."""
    (tmp_path / "empty").mkdir()
    sentence = shell.refused(
        *(*NPU, "--simulate", "1"),
        PATH=str(tmp_path / "empty"),
        XDG_CACHE_HOME=str(tmp_path),
        CXX="",
    )
    assert "no C++ compiler" in sentence
    assert "install g++" in sentence


def compiler(path: Path, body: str) -> Path:
    """A program that stands for g++."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_with_a_compiler_that_fails(shell, tmp_path):
    """Its first error is told."""
    bad = compiler(
        tmp_path / "g++", 'case "$*" in *version*) exit 0;; esac; echo "x: error: no" >&2; exit 1'
    )
    sentence = shell.refused(
        *(*NPU, "--simulate", "1"), CXX=str(bad), XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    assert f"{bad} could not compile runtime.cpp (x: error: no)" in sentence
    assert "in CXX" in sentence
    left = list((tmp_path / "cache/accelerator-qualification/simulated-cann").iterdir())
    assert not left, "nothing half-built is left behind"


def test_with_a_cache_that_cannot_be_written(shell, tmp_path):
    """A file is where the folder should be."""
    (tmp_path / "file").write_text("")
    sentence = shell.refused(*NPU, "--simulate", "1", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert str(tmp_path / "file") in sentence
    assert "cannot be written" in sentence
    assert "XDG_CACHE_HOME" in sentence


def test_without_torch_npu(shell):
    """The line to type is told."""
    sentence = shell.refused(*NPU, "--simulate", "1", torch_npu=None)
    assert "torch-npu is not installed" in sentence
    assert f"pip install --no-deps torch-npu=={SUPPORTED[0]}" in sentence


def test_with_an_unknown_torch_npu(shell):
    """A release that nobody tried."""
    shell.distribution("torch_npu", "2.99.0")
    sentence = shell.refused(*NPU, "--simulate", "1")
    assert "torch-npu 2.99.0 is not known" in sentence
    assert ", ".join(SUPPORTED) in sentence


def test_with_a_torch_of_another_release(shell):
    """torch and torch_npu go together."""
    shell.distribution("torch", "2.8.1")
    sentence = shell.refused(*NPU, "--simulate", "1")
    assert "needs torch 2.9, installed is 2.8.1" in sentence


@pytest.mark.parametrize("name", ["ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH"])
def test_beside_a_real_cann(shell, name):
    """Its shell has set_env.sh sourced."""
    sentence = shell.refused(*NPU, "--simulate", "1", **{name: "/usr/local/Ascend/cann"})
    assert f"a real CANN is in this shell ({name}=/usr/local/Ascend/cann)" in sentence


def test_beside_the_libraries_of_a_real_cann(shell, tmp_path):
    """The loader would find them by LD_LIBRARY_PATH."""
    (tmp_path / marker.SONAME).write_text("")
    sentence = shell.refused(*NPU, "--simulate", "1", LD_LIBRARY_PATH=f"/nowhere:{tmp_path}")
    assert f"{tmp_path} in LD_LIBRARY_PATH holds {marker.SONAME}" in sentence


# --- building -----------------------------------------------------------------------------------

FAKE = """
echo "$*" >> "$0.calls"
case "$*" in *--version*) echo 1; exit 0;; esac
%s
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo x > "$2"; shift; done
"""
"""A compiler that notes what it is called with and writes what it is asked for."""

FILES = {build.CORE, build.OPERATORS, *build.ALIASES}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """That compiler in CXX, beside an empty cache; `calls()` counts what it compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def use(name: str = "g++", extra: str = "") -> Path:
        made = compiler(tmp_path / name, FAKE % extra)
        monkeypatch.setenv("CXX", str(made))
        return made

    return use


def compiled(path: Path) -> int:
    """How many files a fake compiler was asked for."""
    calls = Path(f"{path}.calls").read_text().splitlines()
    return sum(" -o " in line for line in calls)


def test_libraries_are_built_once(fake):
    """And again for another compiler, or with operators left out."""
    first = fake()
    built = build.libraries()
    assert {file.name for file in built.iterdir() if file.suffix == ".so"} == FILES
    assert compiled(first) == len(FILES)
    assert build.libraries() == built
    assert compiled(first) == len(FILES), "nothing is compiled twice"
    assert build.libraries(frozenset({"aclnnGelu"})) != built
    other = fake("clang++")
    assert build.libraries() != built
    assert compiled(other) == len(FILES)


def test_a_changed_source_is_built_anew(fake, monkeypatch):
    """The folder's name holds what the libraries depend on."""
    fake()
    built = build.libraries()
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    assert build.libraries() != built


def test_two_processes_may_build_at_once(fake, tmp_path):
    """Both get the same whole folder, and nothing else is left."""
    fake(extra="sleep 0.1")
    line = (
        "from fixtures.core.backends.simulated_cann import build\n"
        "folder = build.libraries()\n"
        "print(folder, sorted(file.name for file in folder.glob('*.so')))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", line], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert told[0] == told[1]
    assert all(name in told[0] for name in FILES)
    cache = tmp_path / "cache/accelerator-qualification/simulated-cann"
    assert len(list(cache.iterdir())) == 1


# --- what the libraries must hold -----------------------------------------------------------------

SYSTEM = re.compile(r"lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so|ld-linux")
"""Libraries of the C and C++ runtimes."""
CANN = re.compile(r"(acl|rt[A-Z]|Hccl|Msprof|drv)\w+$")
"""Names of CANN's own functions."""


def lines(*command: str) -> list[str]:
    """What a tool of the compiler's package prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def needed(library: Path) -> list[str]:
    """SONAMEs that a library asks the loader for."""
    return [
        line.partition("[")[2].partition("]")[0]
        for line in lines("readelf", "-d", str(library))
        if "(NEEDED)" in line
    ]


@functools.cache
def loaded_with(version: str) -> tuple[frozenset[Path], frozenset[str]]:
    """Libraries of the wheel that ``import torch_npu`` loads, and SONAMEs from elsewhere."""
    base = folder(version) / "torch_npu"
    own, outside = set(base.glob("_C*.so")), set()
    queue = list(own)
    while queue:
        for name in needed(queue.pop()):
            found = base / "lib" / name
            if not found.exists():
                outside.add(name)
            elif found not in own:
                own.add(found)
                queue.append(found)
    return frozenset(own), frozenset(outside)


def symbols(kind: str, libraries: Iterable[Path]) -> set[str]:
    """Names that nm lists, without versions."""
    return {
        line.split()[-1].partition("@")[0]
        for library in libraries
        for line in lines("nm", "-D", f"--{kind}-only", str(library))
    }


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_library_that_a_release_needs_is_built(version):
    """What is neither torch's nor the system's is CANN's."""
    import torch

    own, outside = loaded_with(version)
    assert any(library.name == "libtorch_npu.so" for library in own)
    torchs = {file.name for file in (Path(torch.__file__).parent / "lib").iterdir()}
    rest = {name for name in outside - torchs if not SYSTEM.match(name)}
    assert marker.SONAME in rest
    assert rest <= set(build.ALIASES)


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_symbol_that_a_release_binds_is_there(version):
    """libtorch_npu.so is bound at once: a single missing one makes the import fail."""
    own, _ = loaded_with(version)
    undefined = {name for name in symbols("undefined", own) if CANN.match(name)}
    undefined -= symbols("defined", own)
    assert len(undefined) > 60
    assert undefined <= symbols("defined", [build.libraries() / build.CORE])


def test_what_is_compiled_is_portable():
    """C and C++ without assembly or intrinsics of a processor, so that aarch64 can build it."""
    core = (PACKAGE / "runtime.cpp").read_text()
    operators = trampolines.source(TABLE.values(), frozenset())
    foreign = re.compile(r"\basm\b|__asm|intrin\.h|\b_mm\d*_|__builtin_ia32|\barm_neon|__x86_64__")
    assert foreign.search("asm volatile")
    assert foreign.search("#include <immintrin.h>")
    assert not foreign.search(core)
    assert not foreign.search(operators)
    gxx = os.environ.get("CXX", "g++")
    check = (gxx, "-fsyntax-only", "-Wall", "-Werror=implicit-fallthrough", "-x")
    for language, text in (("c++", core), ("c", operators)):
        done = subprocess.run(
            [*check, language, *(["-std=c++17"] if language == "c++" else []), "-"],
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[:2000]


# --- the mark -----------------------------------------------------------------------------------


def test_a_plain_process_has_no_simulated_runtime():
    """Neither this one nor one that only has the variables and the libraries' folder."""
    assert not marker.loaded()
    line = "from fixtures.core.backends.simulated_cann import marker; print(marker.loaded())"
    for more in (line, f"import ctypes; ctypes.CDLL('{marker.SONAME}'); {line}"):
        done = subprocess.run(
            [sys.executable, "-c", more],
            env=variables(
                LD_LIBRARY_PATH=str(build.libraries()),
                SIMULATED_CANN_CARDS="2",
                ASCEND_HOME_PATH="/nowhere",
            ),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.strip() == str(more != line), "it is what is loaded that counts"


TAMPER = """
import dataclasses
from fixtures import SETTINGS

def pytest_collection_modifyitems(config):
    config.stash[SETTINGS] = dataclasses.replace(config.stash[SETTINGS], simulate={cards})
    (config.rootpath / "tampered").touch()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("simulated", "claimed"), [(True, 0), (False, 2)])
def test_the_report_asks_the_runtime_not_the_option(suite, simulated, claimed):
    """Whatever the settings come to say, the report tells what the card was."""
    (suite.root / "tests/conftest.py").write_text(TAMPER.format(cards=claimed))
    subset = ("tests/test_environment.py", "-k", "version-python or torch")
    if simulated:
        outcome = suite.run(*CARDS, "--simulate", "1", *subset, PYTHONPATH=str(folder()))
    else:
        outcome = suite.run(*SMALL, *subset)
    report = outcome.report
    assert (suite.root / "tampered").exists()
    assert report["device"]["simulated"] is simulated
    told = "rehearsal: the device under test is simulated" in report["verdict"]["reasons"]
    assert told is simulated

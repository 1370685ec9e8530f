"""`make` and `.ci/prepare` on hosts of every kind, without installing the real stack."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PREPARE = ROOT / ".ci" / "prepare"
ON_ASCEND = bool(list(Path("/dev").glob("davinci[0-9]*")) or shutil.which("npu-smi"))
not_on_ascend = pytest.mark.skipif(ON_ASCEND, reason="this is an Ascend host itself")
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


def run(*command, **environment):
    """Run a command from elsewhere than the repository, with pip cut off from any index."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV", "MAKE", "COV"))
    }
    kept |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", **environment}
    return subprocess.run(
        list(map(str, command)), cwd="/", env=kept, capture_output=True, text=True, timeout=300
    )


def ask_index(*command):
    """Run a command with whatever index this host's pip is set up for."""
    quick = {"PIP_RETRIES": "1", "PIP_TIMEOUT": "20"}
    return subprocess.run(
        list(map(str, command)), env=os.environ | quick, capture_output=True, text=True, timeout=300
    )


def installs(report):
    """What a report of pip would install: version by name."""
    entries = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    return {entry["name"].lower(): entry["version"] for entry in entries}


def refusal(done):
    """The one sentence of a run that stopped."""
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("error: ").strip()


def executable(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def asks(tmp_path):
    """A requirements file that asks for nothing."""
    path = tmp_path / "requirements.txt"
    path.write_text("# nothing\n")
    return path


@pytest.fixture
def ascend(tmp_path):
    """The PATH of a host with npu-smi, whose Pythons have nothing installed."""
    executable(tmp_path / "bin" / "npu-smi", "#!/bin/sh\n")
    bare = f'#!/bin/sh\nexec {sys.executable} -S "$@"\n'
    for name in ("python", "python3", *(f"python3.{minor}" for minor in range(10, 14))):
        executable(tmp_path / "bin" / name, bare)
    return f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"


def module(folder, name, version, text=""):
    """A package of that name that can be imported, and that pip knows of."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"__version__ = {version!r}\n{text}")
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "INSTALLER").write_text("vendor\n")
    (about / "RECORD").write_text("")


def wheel(folder, name, version, *requires):
    """An empty wheel with real metadata."""
    about = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{about}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")


@pytest.fixture
def index(tmp_path):
    """A folder of wheels that depend on one another as the real ones do."""
    folder = tmp_path / "wheels"
    for torch, torchvision in (("2.9.0", "0.24.0"), ("2.13.0", "0.28.0")):
        wheel(folder, "torch", torch)
        wheel(folder, "torchvision", torchvision, f"torch=={torch}")
    for timm in ("1.0.27", "1.0.99"):  # the qualified one, and a newer
        wheel(folder, "timm", timm, "torch", "torchvision")
    wheel(folder, "numpy", "2.2.6")
    return folder


@pytest.fixture
def vendor(tmp_path):
    """A vendor's environment, itself a virtual one: torch, torch_npu and an old timm."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "vendor"], check=True)
    python = tmp_path / "vendor" / "bin" / "python"
    told = run(python, "-c", "import site; print(site.getsitepackages()[0])")
    packages = Path(told.stdout.strip())
    module(packages, "torch", "2.9.0+vendor")
    module(packages, "torch_npu", "2.9.0.post1")
    module(packages, "timm", "1.0.9")
    module(packages, "numpy", "1.26.4")
    return python


# --- an Ascend host ------------------------------------------------------------------------------


def test_an_ascend_host_without_the_vendors_torch_says_what_to_install(tmp_path, ascend, asks):
    told = refusal(run(PREPARE, tmp_path / "v", asks, PATH=ascend))
    assert "none of python3 python python3.13" in told
    assert "has torch and torch_npu" in told
    assert "activate the environment that has them (PYTHON=/path/to/python)" in told
    assert "requirements-ascend.txt" in told
    assert not (tmp_path / "v").exists()


def test_a_torch_npu_without_cann_says_what_to_source(tmp_path, ascend, asks):
    reason = "libhccl.so: cannot open shared object file: No such file or directory"
    module(tmp_path / "packages", "torch", "2.9.0")
    module(tmp_path / "packages", "torch_npu", "2.9.0", f"raise ImportError({reason!r})\n")
    done = run(PREPARE, tmp_path / "v", asks, PATH=ascend, PYTHONPATH=str(tmp_path / "packages"))
    told = refusal(done)
    assert f"torch_npu of python3 cannot be imported (ImportError: {reason})" in told
    assert "source CANN's set_env.sh first" in told
    assert not (tmp_path / "v").exists()


def test_a_torch_that_would_load_its_plug_in_by_itself_is_asked_not_to(tmp_path, ascend, asks):
    """Else `import torch` fails where CANN is missing, and the reason names the wrong thing."""
    autoload = "import os\nassert os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] == '0', 'autoload'\n"
    module(tmp_path / "packages", "torch", "2.9.0", autoload)
    module(tmp_path / "packages", "torch_npu", "2.9.0", "raise ImportError('libascendcl.so')\n")
    done = run(PREPARE, tmp_path / "v", asks, PATH=ascend, PYTHONPATH=str(tmp_path / "packages"))
    assert "(ImportError: libascendcl.so)" in refusal(done)


def test_the_vendors_torch_is_kept_and_what_the_suite_adds_fits_it(
    tmp_path, ascend, vendor, index, asks
):
    """timm asks for torchvision, whose newest release asks for another torch than the vendor's."""
    asks.write_text("torch>=2.9\ntimm>=1.0.27\nnumpy>=1.26\n")
    here = {"PATH": ascend, "PYTHON": str(vendor), "PIP_FIND_LINKS": str(index)}
    done = run(PREPARE, tmp_path / "v", asks, **here)
    assert done.returncode == 0, done.stderr
    listed = run(tmp_path / "v/bin/python", "-m", "pip", "list", "--format=freeze").stdout
    held = ("torch==2.9.0+vendor", "torchvision==0.24.0", "timm==1.0.27", "numpy==1.26.4")
    for line in held:
        assert line in listed.split(), listed
    imported = "import torch, torch_npu; print(torch.__file__, torch_npu.__file__)"
    for path in run(tmp_path / "v/bin/python", "-c", imported).stdout.split():
        assert Path(path).is_relative_to(tmp_path / "vendor"), path
    before = run(vendor, "-c", "import timm; print(timm.__version__)").stdout
    assert before.strip() == "1.0.9", "what the vendor installed stays as it was"

    # what is installed beside an interpreter that is no virtual environment is seen as well
    assert "include-system-site-packages = true" in (tmp_path / "v/pyvenv.cfg").read_text()

    # sanity check: without the constraint pip would have taken the other torch
    pip = (tmp_path / "v/bin/python", "-m", "pip", "install", "--dry-run", "--ignore-installed")
    loose = run(*pip, "-r", asks, **here).stdout
    assert "torch-2.13.0" in loose, loose
    assert "timm-1.0.99" in loose, loose


def test_requirements_that_only_another_torch_can_meet_are_refused(
    tmp_path, ascend, vendor, index, asks
):
    asks.write_text("torch>=2.10\n")
    here = {"PATH": ascend, "PYTHON": str(vendor), "PIP_FIND_LINKS": str(index)}
    done = run(PREPARE, tmp_path / "v", asks, **here)
    assert done.returncode == 2
    assert "torch==2.9.0+vendor" in done.stderr, "pip says what it could not bring together"
    assert f"error: pip could not install what {asks} asks for" in done.stderr
    listed = run(tmp_path / "v/bin/python", "-m", "pip", "list", "--format=freeze").stdout
    assert "torch==2.9.0+vendor" in listed.split()


def test_a_torch_that_pip_does_not_know_of_is_not_installed_again(tmp_path, ascend, vendor, asks):
    for name in ("torch", "timm"):
        shutil.rmtree(next(vendor.parent.parent.rglob(f"{name}-*.dist-info")))
    told = refusal(run(PREPARE, tmp_path / "v", asks, PATH=ascend, PYTHON=str(vendor)))
    assert told == f"pip does not know of {vendor}'s torch and would install another one"


def test_an_environment_that_hides_the_vendors_torch_is_noticed(tmp_path, ascend, vendor, asks):
    here = {"PATH": ascend, "PYTHON": str(vendor)}
    assert run(PREPARE, tmp_path / "v", asks, **here).returncode == 0
    told = run(tmp_path / "v/bin/python", "-c", "import site; print(site.getsitepackages()[0])")
    module(Path(told.stdout.strip()), "torch", "2.13.0")
    asks.write_text("# nothing, in other words\n")
    told = refusal(run(PREPARE, tmp_path / "v", asks, **here))
    assert "has another torch (2.13.0 2.9.0.post1" in told
    assert f"remove {tmp_path / 'v'} and try again" in told


def test_the_real_requirements_leave_a_torch_that_is_held_alone(tmp_path):
    """With the real index: the newest torchvision and timm are looked at, and fit torch 2.9.0."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "v"], check=True)
    python = tmp_path / "v" / "bin" / "python"
    told = run(python, "-c", "import site; print(site.getsitepackages()[0])")
    module(Path(told.stdout.strip()), "torch", "2.9.0")
    frozen = tmp_path / "vendor.txt"
    frozen.write_text(run(python, "-m", "pip", "list", "--format=freeze").stdout)
    dry = (python, "-m", "pip", "install", "--dry-run", "--no-input", "--quiet")
    report = tmp_path / "report.json"
    done = ask_index(*dry, "--report", report, "-r", ROOT / "requirements.txt", "-c", frozen)
    if done.returncode and ask_index(*dry, "--ignore-installed", "--no-deps", "pip").returncode:
        pytest.skip(f"no package index is within reach: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    added = installs(report)
    assert "torch" not in added, added
    assert added["torchvision"].startswith("0.24."), "the release that goes with torch 2.9"
    assert {"timm", "pytest", "pytest-benchmark", "pytest-html"} <= set(added)


@pytest.mark.parametrize("local", ["2.9.0+cpu", "2.9.0"])
def test_the_workflows_install_keeps_torch_and_adds_the_qualified_stack(tmp_path, index, local):
    """The line of qualify-ascend.yml, where torch of its own index is installed already."""
    text = (ROOT / ".github/workflows/qualify-ascend.yml").read_text()
    (line,) = re.findall(r"^ *pip install (.*-r requirements\.txt.*)$", text, re.MULTILINE)
    assert line.split() == [
        *("-r", "requirements-ascend.txt", "-r", "requirements.txt", "-c", "constraints.txt")
    ]
    plug_in = "torch_npu"
    wheel(index, plug_in, "2.9.0", f"torch=={local}")
    wheel(index, plug_in, "2.9.1", "torch==2.13.0")
    (tmp_path / "requirements-ascend.txt").write_text("torch-npu==2.9.0\n")
    (tmp_path / "requirements.txt").write_text("torch>=2.9\ntorchvision\ntimm>=1.0.27\n")
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "v"], check=True)
    python = tmp_path / "v" / "bin" / "python"
    told = run(python, "-c", "import site; print(site.getsitepackages()[0])")
    module(Path(told.stdout.strip()), "torch", local)
    module(Path(told.stdout.strip()), "torchvision", local.replace("2.9", "0.24"))
    asked = [tmp_path / word if word.endswith(".txt") else word for word in line.split()]
    done = run(python, "-m", "pip", "install", *asked, PIP_FIND_LINKS=str(index))
    assert done.returncode == 0, done.stderr
    listed = run(python, "-m", "pip", "list", "--format=freeze").stdout.split()
    vision = f"torchvision=={local.replace('2.9', '0.24')}"
    assert {f"torch=={local}", vision, "timm==1.0.27"} <= set(listed), listed
    assert {"torch_npu==2.9.0", "torch-npu==2.9.0"} & set(listed), listed


def test_the_workflows_cache_is_where_the_weights_are_looked_for():
    """In a container job the expression `github.workspace` is the path outside the container."""
    text = (ROOT / ".github/workflows/qualify-ascend.yml").read_text()
    first = text[text.index("steps:") :].split("      - ")[1]
    assert 'echo "HF_HOME=$GITHUB_WORKSPACE/.cache/huggingface" >> "$GITHUB_ENV"' in first
    assert "path: .cache/huggingface\n" in text
    assert not re.search(r"\$\{\{\s*github\.workspace", text)


def test_what_is_installed_here_meets_the_requirements_and_is_left_alone(tmp_path):
    pip = (sys.executable, "-m", "pip")
    frozen = tmp_path / "vendor.txt"
    frozen.write_text(run(*pip, "list", "--format=freeze").stdout)
    assert re.search(r"(?m)^torch==", frozen.read_text()), "sanity check"
    report = tmp_path / "report.json"
    dry = (*pip, "install", "--dry-run", "--no-input", "--quiet", "--report", report)
    done = run(*dry, "-r", ROOT / "requirements.txt", "-c", frozen)
    assert done.returncode == 0, done.stderr
    assert installs(report) == {}


# --- any other host ------------------------------------------------------------------------------


@not_on_ascend
def test_a_second_run_does_nothing_until_something_changes(tmp_path, asks):
    venv = tmp_path / "v"
    first = run(PREPARE, venv, asks, PYTHON=sys.executable)
    assert first.returncode == 0, first.stderr
    assert "installing the qualified stack" in first.stdout
    stamps = list(venv.glob("prepared.*"))
    assert len(stamps) == 1

    (venv / "pyvenv.cfg").unlink()  # making the environment again would write it again
    second = run(PREPARE, venv, asks, PYTHON=sys.executable)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert not (venv / "pyvenv.cfg").exists()
    assert list(venv.glob("prepared.*")) == stamps

    asks.write_text("# nothing, in other words\n")
    third = run(PREPARE, venv, asks, PYTHON=sys.executable)
    assert third.returncode == 0, third.stderr
    assert (venv / "pyvenv.cfg").exists()
    assert len(list(venv.glob("prepared.*"))) == 2


@not_on_ascend
def test_an_installation_that_fails_is_no_installation(tmp_path, asks):
    asks.write_text("there-is-no-such-package\n")
    for _ in range(2):
        done = run(PREPARE, tmp_path / "v", asks, PYTHON=sys.executable)
        assert done.returncode == 2
        assert "there-is-no-such-package" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: pip could not install what ")
        assert not list((tmp_path / "v").glob("prepared.*"))


def test_a_python_that_is_not_there_is_named(tmp_path, asks):
    told = refusal(run(PREPARE, tmp_path / "v", asks, PYTHON="/nowhere/python"))
    assert told == "PYTHON=/nowhere/python is no Python 3.10 to 3.13; name another one"


@pytest.mark.parametrize("version", ["(2, 7, 18)", "(3, 9, 18)", "(3, 14, 0)"])
def test_a_python_that_the_suite_does_not_run_on_is_named(tmp_path, asks, version):
    other = executable(
        tmp_path / "bin" / "python",
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = {version}; $2"\n',
    )
    told = refusal(run(PREPARE, tmp_path / "v", asks, PYTHON=str(other)))
    assert told == f"PYTHON={other} is no Python 3.10 to 3.13; name another one"
    assert not (tmp_path / "v").exists()


def test_a_host_without_python_is_told_to_install_one(tmp_path, asks):
    for tool in ("bash", "env", "dirname", "cat", "cksum", "tr"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    told = refusal(run(PREPARE, tmp_path / "v", asks, PATH=str(tmp_path / "bin")))
    assert told.startswith("no Python 3.10 to 3.13 was found; install one")


# --- make ----------------------------------------------------------------------------------------


def planned(*arguments):
    """The commands that make would run."""
    done = run("make", "-C", ROOT, "-n", *arguments)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("make")]


@needs_make
def test_make_qualify_prepares_then_runs_pytest_with_the_users_arguments():
    assert planned("qualify", "ARGS=--device npu --qualify") == [
        ".ci/prepare .venv requirements.txt",
        ".venv/bin/python -m pytest tests --device npu --qualify",
    ]


@needs_make
def test_a_rehearsal_gets_the_real_torch_npu():
    first, second, last = planned("rehearse-npu", "ARGS=-m smoke")
    assert first.endswith(".ci/prepare .venv requirements.txt")
    assert second.endswith(".ci/torch-npu .venv 2.9.0")
    assert last == ".venv/bin/python -m pytest tests --device npu --simulate 1 -m smoke"
    assert os.access(ROOT / ".ci" / "torch-npu", os.X_OK)


@needs_make
@pytest.mark.parametrize("target", ["selftest", "lint", "proof"])
def test_what_tests_the_suite_also_installs_what_that_needs(target):
    first, second, *rest = planned(target)
    assert first == ".ci/prepare .venv requirements.txt selftest/requirements.txt"
    assert second == ".ci/torch-npu .venv"
    assert rest
    assert all(line.startswith(".venv/bin/") for line in rest), rest


@needs_make
def test_make_runs_nothing_where_preparing_stopped(tmp_path):
    done = run("make", "-C", ROOT, "qualify", f"VENV={tmp_path / 'v'}", "PYTHON=/nowhere/python")
    assert done.returncode == 2
    assert "error: PYTHON=/nowhere/python is no Python" in done.stderr
    assert "pytest" not in done.stdout
    assert "Traceback" not in done.stderr


def test_ci_runs_what_people_run():
    text = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^make (\S+)$", text, re.MULTILINE) == ["lint", "selftest"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert os.access(PREPARE, os.X_OK)

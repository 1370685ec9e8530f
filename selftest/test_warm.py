"""A fork of the warm process is to whom starts it what a process of its own is."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from selftest import warm

TELL = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "cwd": os.getcwd(), "path": sys.path, "name": __name__,
    "spec": __spec__ and __spec__.name, "variables": dict(os.environ),
    "warm": "torch" in sys.modules, "pid": os.getpid(),
}))
print("an error", file=sys.stderr)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks are made on Linux only")


@pytest.fixture
def place(tmp_path):
    """A folder with a module."""
    (tmp_path / "told.py").write_text(TELL)
    return tmp_path


def both(command, place, **changes):
    """What the same command tells as a fork and as a process of its own."""
    found = []
    for begin in (warm.start, warm.cold):
        process = begin(command, place, warm.environment(**changes), errors=True)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert process.poll() == 0
        assert err == "an error\n"
        told = json.loads(out)
        assert told.pop("pid") == process.pid
        found.append(told)
    return found


@linux
@pytest.mark.parametrize("how", ["module", "script"])
def test_a_fork_has_what_a_process_has(place, how):
    command = ["-m", "told"] if how == "module" else [str(place / "told.py")]
    fork, own = both([*command, "a b", "--c"], place, ANY="1", PATH="/bin", PYTHONPATH="/x:/y")
    assert fork.pop("warm")
    assert not own.pop("warm")
    for each in (fork, own):
        each["variables"].pop("LC_CTYPE", None)  # Python may set it when it starts (PEP 538)
    assert fork == own
    assert fork["variables"]["ANY"] == "1"
    assert fork["path"][:3] == [str(place), "/x", "/y"]


@linux
@pytest.mark.parametrize("change", [{"HF_ENDPOINT": "http://a"}, {"OMP_NUM_THREADS": "2"}])
def test_what_a_fork_cannot_change_gets_a_process_of_its_own(place, change):
    process = warm.start(["-m", "told"], place, warm.environment(**change))
    assert isinstance(process, subprocess.Popen)
    assert '"warm": false' in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def started(place, code, **changes):
    (place / "program.py").write_text(code)
    return warm.start([str(place / "program.py")], place, warm.environment(**changes))


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("print('said')", 0, "said\n"),
        ("import sys; sys.exit(5)", 5, ""),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("import os; os._exit(3)", 3, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import atexit; atexit.register(print, 'at the end')", 0, "at the end\n"),
        (
            "import threading, time\n"
            "threading.Thread(target=lambda: [time.sleep(0.2), print('a thread')]).start()",
            0,
            "a thread\n",
        ),
    ],
)
def test_its_end_is_that_of_any_process(place, code, status, said):
    process = started(place, code)
    assert process.communicate(timeout=60)[0] == said
    assert process.returncode == status


def test_errors_that_nobody_caught_are_told(place):
    process = started(place, "1 / 0")
    assert "ZeroDivisionError" in process.communicate(timeout=60)[0]
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_it_takes_signals_and_its_output_can_be_large(place, number, status):
    process = started(
        place, "import time\nprint('x' * 300_000, flush=True)\nopen('ready', 'w')\ntime.sleep(60)"
    )
    while not (place / "ready").exists():
        assert process.poll() is None
        time.sleep(0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.2)
    process.send_signal(number)
    out = process.communicate(timeout=60)[0]
    assert out.startswith("x" * 300_000)
    assert ("KeyboardInterrupt" in out) is (number == signal.SIGINT)
    assert process.returncode == status
    process.kill()  # nobody is there any more


@linux
def test_forks_run_side_by_side_and_do_not_know_one_another(place):
    code = "import os, time\nopen(os.environ['ME'], 'w')\n"
    code += "while not os.path.exists(os.environ['YOU']): time.sleep(0.05)\nimport torch\n"
    code += "print(getattr(torch, 'left', 'nothing'))\ntorch.left = 'something'"
    two = [started(place, code, ME="a", YOU="b"), started(place, code, ME="b", YOU="a")]
    for process in two:
        assert isinstance(process, warm.Fork)
        assert process.communicate(timeout=60)[0] == "nothing\n"
        assert not os.path.exists(f"/proc/{process.pid}"), "it was waited for"


@pytest.mark.xdist_group("a group")
@pytest.mark.parametrize("number", [1, 2])
def test_a_group_is_told_to_the_scheduler(request, number):
    """Else what is shared would be made anew on each worker, and nobody would notice."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("this is no worker of pytest -n 2 --dist loadgroup")
    assert request.node.nodeid.endswith(f"[{number}]@a group")

"""Processes that do not import torch anew: forks of one that has done so.

Importing torch and timm is most of what a short run costs. Run as a script, this file is a process
that imports them once and then waits; for each request it forks, and the fork becomes
``python -m MODULE ARGUMENT...`` or ``python SCRIPT ARGUMENT...``, in the folder and with the
environment of the request. Pipes, signals, exit code and the end of the interpreter are those of
any process. A run whose imports are themselves looked at must be started for itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

IMPORTED = (
    *("torch", "timm", "safetensors.torch"),
    "torch._inductor.compile_fx",  # most of what torch_npu imports
    *("matplotlib.figure", "matplotlib.ticker", "matplotlib.backends.backend_svg"),
    *("jinja2", "pytest"),
)

ENTERED = ("PYTHON", "OMP_", "HF_", "CUDA_", "LD_")
"""Variables that matter when the interpreter starts, or to what has been imported."""
FREE = ("PYTHONPATH", "HF_HOME")
"""Those that a fork can change all the same: a path can be set anew, and where the hub's files lie
does not matter as long as there are none."""

UNUSED = ("hypothesispytest", "anyio")
"""Plug-ins of the selftests' environment that the suite does not use; they import for a second."""

COVERAGE = "COVERAGE_PROCESS_CONFIG"
"""With it a process that starts takes its own coverage (coverage's ``patch = subprocess``)."""


def entered(variables: Mapping[str, str]) -> dict[str, str]:
    """What of an environment a fork cannot change any more."""
    return {
        name: value
        for name, value in variables.items()
        if name.startswith(ENTERED) and name not in FREE
    }


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of a run: no hub, no GPU, no leftovers of this process; None takes away."""
    kept: dict[str, str | None] = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "ASCEND", "HF_", "SIMULATED_"))
    }
    kept |= {
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",  # two runs at a time on two cores must not fight over them
        "PYTEST_ADDOPTS": " ".join(f"-p no:{name}" for name in UNUSED),
        **changes,
    }
    return {name: value for name, value in kept.items() if value is not None}


class Fork:
    """What the selftests use of `subprocess.Popen`, for text."""

    def __init__(self, pid: int, state: int, files: list[IO[str]]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._state = state
        self._said = [""] * len(files)
        self._readers = [
            threading.Thread(target=self._read, args=each, daemon=True) for each in enumerate(files)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, number: int, file: IO[str]) -> None:
        with file:
            self._said[number] = file.read()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; that of a signal is negative. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._state], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0)
            told = os.read(self._state, 64)
            os.close(self._state)
            assert told, "nobody waited for the fork"
            self.returncode = int(told)
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """What it printed, once it has ended; errors by themselves if they were to be."""
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():  # whom it started still holds the pipe
                raise subprocess.TimeoutExpired("a fork", timeout or 0)
        return self._said[0], self._said[1] if len(self._said) > 1 else None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that forks, as seen from the selftests."""

    def __init__(self) -> None:
        own = environment(**dict.fromkeys((*FREE, COVERAGE)), TORCH_DEVICE_BACKEND_AUTOLOAD="0")
        self.entered = entered(own)
        self._here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(there.fileno())],
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[there.fileno()],
        )
        there.close()

    def start(
        self, command: list[str], cwd: Path, variables: Mapping[str, str], errors: bool
    ) -> Fork:
        """Become ``python COMMAND...``; `errors` have a pipe of their own."""
        pipes = [os.pipe() for _ in range(2 + errors)]
        request = json.dumps([command, str(cwd), dict(variables)]).encode()
        socket.send_fds(self._here, [request], [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        (state, *outputs) = [read for read, _ in pipes]
        pid = b""
        while not pid.endswith(b"\n"):
            byte = os.read(state, 1)
            assert byte, "the process that forks has ended"
            pid += byte
        files = [open(each, encoding="utf-8", errors="replace") for each in outputs]
        return Fork(int(pid), state, files)

    def end(self) -> None:
        """Let it go."""
        self._here.close()
        self._process.wait()


_warm: Warm | None = None


def start(
    command: list[str], cwd: Path, variables: Mapping[str, str], errors: bool = False
) -> Fork | subprocess.Popen[str]:
    """``python COMMAND...`` as a fork where that is the same, else as a process of its own."""
    global _warm
    if sys.platform == "linux":
        if _warm is None:
            _warm = Warm()
        if _warm.entered == entered(variables):
            return _warm.start(command, cwd, variables, errors)
    return cold(command, cwd, variables, errors)


def cold(
    command: list[str], cwd: Path, variables: Mapping[str, str], errors: bool = False
) -> subprocess.Popen[str]:
    """The same as a process of its own."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=dict(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if errors else subprocess.STDOUT,
        text=True,
    )


def end() -> None:
    """Let the process that forks go, at the end of the selftests."""
    global _warm
    if _warm is not None:
        _warm.end()
        _warm = None


# --- the process that forks ----------------------------------------------------------------------


def serve(here: socket.socket) -> tuple[list[str], str, dict[str, str]] | None:
    """Fork for each request: the fork returns it, the process itself None when nobody is left."""
    while True:
        message, files, _, _ = socket.recv_fds(here, 1 << 20, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            return None
        if os.fork():  # one that waits for the fork, so that this one need not
            for file in files:
                os.close(file)
            continue
        here.close()
        state, *outputs = files
        fork = os.fork()
        if not fork:
            os.dup2(outputs[0], 1)
            os.dup2(outputs[-1], 2)
            for file in files:
                os.close(file)
            command, cwd, variables = json.loads(message)
            return command, cwd, variables
        for file in outputs:
            os.close(file)
        os.write(state, f"{fork}\n".encode())
        _, status = os.waitpid(fork, 0)
        os.write(state, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)


def prepare() -> None:
    """Import everything that takes long, and what the forks need to begin."""
    import gc
    import importlib
    from importlib.metadata import entry_points

    for name in IMPORTED:
        importlib.import_module(name)
    # pytest rewrites its plug-ins while they are imported: that is for the forks to see.
    plugins = {each.module.partition(".")[0] for each in entry_points(group="pytest11")}
    for name in list(sys.modules):
        if name.partition(".")[0] in plugins:
            del sys.modules[name]
    gc.collect()
    gc.freeze()


def become(command: list[str], cwd: str, variables: dict[str, str]) -> None:
    """Go on as ``python COMMAND...`` does, in this module's place."""
    import importlib
    import runpy

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    module = command[0] == "-m"
    first = cwd if module else str(Path(command[0]).parent)
    search = [each for each in variables.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:] = [first, *search, *BEGUN_WITH]
    importlib.invalidate_caches()
    if COVERAGE in variables:
        import coverage

        coverage.process_startup()
    run: Any = runpy
    if module:
        sys.argv = command[1:]
        run._run_module_as_main(command[1])  # what ``python -m`` itself calls
    else:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    BEGUN_WITH = sys.path[1:]  # what is imported may add to it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whom it starts
    prepare()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(*request)

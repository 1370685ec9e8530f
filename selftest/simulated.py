"""Simulated cards in selftests: which torch_npu there is, and how a process gets it.

The releases lie in folders of their own beside the virtual environment (.ci/torch-npu); a process
gets one by PYTHONPATH, so that no other selftest ever sees torch_npu.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.core.backends.simulated_cann.loader import SUPPORTED
from selftest import warm

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = SUPPORTED[0]

HAVE = sys.platform == "linux" and platform.machine() == "x86_64"
"""Where simulated cards are tested. Elsewhere their cases are skipped with this reason:"""
needs_cards = pytest.mark.skipif(
    not HAVE, reason=f"simulated cards are tested on Linux x86_64, this is {platform.platform()}"
)

CARDS = ("--model", "test_convnext.r160_in1k", "--weights", "synthetic", "--device", "npu")
"""The small network on simulated cards; `--simulate N` is to be added."""


def folder(version: str = DEFAULT) -> Path:
    """Where that torch_npu lies. A missing one is an error, not a skip."""
    found = Path(sys.prefix) / "torch-npu" / version
    assert found.is_dir(), f"{found} is missing: run .ci/torch-npu {sys.prefix}"
    return found


def variables(version: str = DEFAULT, **changes: str) -> dict[str, str]:
    """What a process needs to find that torch_npu, and nothing of a real CANN."""
    return warm.environment(
        **{
            "PYTHONPATH": os.pathsep.join([str(folder(version)), str(ROOT)]),
            "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
            **changes,
        }
    )


def script(
    name: str,
    *arguments: str,
    version: str = DEFAULT,
    timeout: float = 120,
    cwd: Path | None = None,
    cold: bool = False,
    **changes: str,
) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder on simulated cards; `cold` if it must import torch itself."""
    command = [str(ROOT / "selftest" / name), *arguments]
    begin = warm.cold if cold else warm.start
    process = begin(command, cwd or Path.cwd(), variables(version, **changes), errors=True)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(command, process.returncode, out, err)

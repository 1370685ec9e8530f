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
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "ASCEND", "HF_", "SIMULATED_"))
    }
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(folder(version)), str(ROOT)]),
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        **changes,
    }


def script(
    name: str,
    *arguments: str,
    version: str = DEFAULT,
    timeout: float = 120,
    cwd: Path | None = None,
    **changes: str,
) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder on simulated cards, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "selftest" / name), *arguments],
        env=variables(version, **changes),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

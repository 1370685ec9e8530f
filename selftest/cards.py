"""Imported by scripts that run on raw torch: loads the simulated cards without the suite.

``cards, torch = load(2)`` gives the loaded runtime, with two healthy cards, and torch.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from fixtures.core.backends.simulated_cann.backend import SimulatedNpuBackend
from fixtures.core.backends.simulated_cann.runtime import Runtime


def load(cards: int = 1, plan: str | None = None) -> tuple[Runtime, Any]:
    """Simulated cards with the faults of a plan, torch with torch_npu, and card 0 selected."""
    backend = SimulatedNpuBackend(cards, plan)
    folder = Path(os.environ.get("CARDS_FOLDER") or tempfile.mkdtemp(prefix="cards-"))
    backend.stage(folder)
    backend.load()
    backend.open(0)
    assert SimulatedNpuBackend.runtime is not None
    import torch

    return SimulatedNpuBackend.runtime, torch

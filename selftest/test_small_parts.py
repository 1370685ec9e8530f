"""Clock, batches and the tap on standard error."""

import os
import subprocess
import sys
import time
import warnings

import pytest

from fixtures.core import neighbours
from fixtures.core.batches import DISTINCT, Batches
from fixtures.core.clock import Clock
from fixtures.core.fallback import Tap
from selftest.conftest import ROOT


def test_each_second_is_counted_once_for_the_innermost_purpose(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock()
    now[0] += 1  # nobody's: the suite's own
    with clock.spent("model"):
        now[0] += 2
        with clock.spent("reference"):
            now[0] += 4
        now[0] += 8
    seconds = clock.seconds()
    assert (seconds["suite"], seconds["model"], seconds["reference"]) == (1, 10, 4)
    assert sum(v for k, v in seconds.items() if k != "total") == seconds["total"] == 15


def test_an_unknown_purpose_is_refused():
    with pytest.raises(KeyError), Clock().spent("leisure"):
        pass


def test_a_reference_row_is_computed_once_and_is_the_same_in_every_batch():
    import torch

    seen = []

    def network(images):
        seen.append(len(images))
        return images.flatten(1).sum(1, keepdim=True)

    batch = Batches(lambda index: (f"row-{index}", torch.full((3, 2, 2), float(index))), network)
    assert batch(1).reference.tolist() == [[0.0]]
    assert batch(16).reference[:, 0].tolist() == [12.0 * i for i in range(16)]
    assert batch(8).reference.shape == (8, 1)
    assert sum(seen) == 16
    large = batch(DISTINCT + 3)
    assert large.names[DISTINCT] == "row-0"
    assert torch.equal(large.reference[DISTINCT:], batch(3).reference)
    assert torch.equal(large.images[DISTINCT], large.images[0])


PATTERN = r"(?i)operator '([^']+)' .* fall ?back to run on the CPU"
LINE = "CAUTION: The operator 'aten::foo' is not there and will fall back to run on the CPU.\n"


def test_the_tap_hears_the_descriptor_and_passes_on_what_it_heard(tmp_path, capfd):
    tap = Tap(tmp_path / "stderr.log")
    with tap.listen():
        os.write(2, LINE.encode())
        assert tap.heard(PATTERN) == ["aten::foo"], "at once, not only afterwards"
    assert capfd.readouterr().err == LINE
    assert tap.news(PATTERN) == ["aten::foo"]
    with tap.listen():
        os.write(2, LINE.encode())
    assert tap.news(PATTERN) == [], "each operator is news once"
    assert tap.heard(PATTERN) == ["aten::foo"]
    assert tap.heard(None) == []
    assert (tmp_path / "stderr.log").read_text() == 2 * LINE


def test_the_tap_hears_warnings_that_the_user_silenced(tmp_path):
    tap = Tap(tmp_path / "stderr.log")
    with warnings.catch_warnings(record=True) as outside:
        warnings.simplefilter("ignore")
        with tap.listen():
            warnings.warn(LINE, stacklevel=1)
            warnings.warn("something else", stacklevel=1)
    assert tap.news(PATTERN) == ["aten::foo"]
    assert outside == [], "who asked not to be told is not told"


def test_another_run_on_the_same_device_is_known_while_it_lives(tmp_path):
    program = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from fixtures.core import neighbours
leave = neighbours.announce("npu:0", Path({str(tmp_path)!r}))
print("here", flush=True)
sys.stdin.read()
"""
    leave = neighbours.announce("npu:0", tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "here\n"
    assert neighbours.others("npu:0", tmp_path) == [other.pid]
    assert neighbours.others("npu:1", tmp_path) == []
    other.kill()  # it cannot clean up after itself
    other.communicate()
    assert neighbours.others("npu:0", tmp_path) == []
    leave()
    assert not list(tmp_path.glob(f"*{os.getpid()}*"))

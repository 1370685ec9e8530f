"""Limits of a run: the tables', a reference file's, the command line's, each with its source."""

from __future__ import annotations

import json

import pytest

from fixtures.core import references
from fixtures.core.limits import in_force, performance_limits
from fixtures.core.settings import Settings
from selftest.conftest import SMALL

KNOWN = [limit.name for limit in performance_limits((1, 16))]


@pytest.fixture
def published(tmp_path):
    """A reference file with some limits."""

    def write(limits):
        path = references.FOLDER / "ascend-910b4.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        file = tmp_path / "mine.json"
        file.write_text(json.dumps({**values, "limits": limits}))
        return str(file)

    return write


def test_a_file_s_limits_are_in_force_and_the_command_line_s_win(published):
    file = published({"latency_p90_ms": 60, "throughput_b16": 300})
    brought = references.limits_of(file, "x", KNOWN)
    settings = Settings(
        batch_sizes=(1, 16),
        reference=file,
        reference_limits=brought,
        limits={"throughput_b16": 200.0, "latency_p50_ms": 50.0},
    )
    table = in_force(settings)
    p90 = table["latency_p90_ms"]
    assert (p90.bound, p90.source) == (60, f"--reference {file}")
    assert not p90.overridden
    rate = table["throughput_b16"]
    assert rate.bound == 200.0
    assert rate.overridden
    assert rate.loosened, "a limit that is easier than the file's makes the run INCOMPLETE"
    assert not table["latency_p50_ms"].loosened
    assert table["latency_mean_ms"].bound is None


def test_only_a_file_that_is_named_judges(published):
    assert references.limits_of("auto", "x", KNOWN) == {}
    assert references.limits_of("none", "x", KNOWN) == {}
    assert references.limits_of("ascend-910b4", "x", KNOWN) == {}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"latency_p90": 60}, "unknown key 'latency_p90'; known here: latency_mean_ms"),
        ({"max_abs_error": 1}, "unknown key 'max_abs_error'"),
        ({"throughput_b32": 1}, "unknown key 'throughput_b32'"),
        ({"latency_p90_ms": 0}, "limits.latency_p90_ms is 0"),
        ({"latency_p90_ms": "fast"}, "limits.latency_p90_ms is 'fast'"),
        ([60], "limits is not an object"),
    ],
)
def test_bad_limits_are_refused(published, limits, words):
    with pytest.raises(ValueError, match=r"--reference .*mine\.json: ") as refusal:
        references.limits_of(published(limits), "x", KNOWN)
    assert words in str(refusal.value)


def test_a_run_refuses_a_file_s_bad_limits(suite, published):
    run = suite.run(*SMALL, "--reference", published({"throughput_b32": 1}))
    assert run.code == 4, run.out
    assert "limits has an unknown key 'throughput_b32'" in run.out

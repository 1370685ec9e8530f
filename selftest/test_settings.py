"""Options: bad values are refused in one sentence that names option, value and cure."""

import sys
from pathlib import Path

import pytest

from fixtures.core.limits import all_limits, digest, performance_limits, with_overrides
from fixtures.core.modes import MODES
from fixtures.core.settings import (
    DEFAULT_BATCH_SIZES,
    Refusal,
    parse_batch_sizes,
    parse_command,
    parse_device,
    parse_level,
    parse_limits,
    parse_modes,
)

KNOWN = list(all_limits((1, 16)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", ("auto", None)),
        ("npu", ("npu", None)),
        ("npu:1", ("npu", 1)),
        ("cpu:0", ("cpu", 0)),
    ],
)
def test_devices_are_read(text, expected):
    assert parse_device(text) == expected


@pytest.mark.parametrize("text", ["tpu", "npu:", "npu:x", "npu:-1", "auto:0", "", "npu:1:2"])
def test_a_bad_device_is_refused(text):
    with pytest.raises(Refusal, match="--device"):
        parse_device(text)


def test_batch_sizes_are_ascending_and_each_once():
    assert parse_batch_sizes("1,8") == (1, 8)
    with pytest.raises(Refusal, match="ascending, each once, such as 1,8"):
        parse_batch_sizes("8,1,8")


def test_auto_batch_sizes_begin_with_the_document_s():
    assert parse_batch_sizes("auto") == DEFAULT_BATCH_SIZES


def test_level_is_higher_for_what_is_to_be_signed():
    assert parse_level(None, qualify=False) == "quick"
    assert parse_level(None, qualify=True) == "standard"
    assert parse_level("full", qualify=True) == "full"
    with pytest.raises(Refusal, match=r"--level often: .* give one of quick, standard, full"):
        parse_level("often", qualify=False)


def test_modes_bring_what_they_are_compared_with():
    assert parse_modes("auto") is None
    assert parse_modes("bf16") == ("eager", "bf16")
    assert parse_modes("all") == tuple(MODES)
    with pytest.raises(Refusal, match="no mode is called 'fast'"):
        parse_modes("fast")


def test_the_other_environment_is_a_command_that_exists():
    here = Path.cwd()
    assert parse_command("--ab", None, here) == ()
    assert parse_command("--ab", f"{sys.executable} -X dev", here) == (sys.executable, "-X", "dev")
    for text, words in (("/no/such/python", "no such program"), ("'a", "quoting"), ("", "program")):
        with pytest.raises(Refusal, match=words):
            parse_command("--ab", text, here)


def test_the_other_environment_s_program_is_found_from_where_one_is(tmp_path):
    """It runs in another folder; and the link that an environment's python is stays one."""
    link = tmp_path / "env" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to(sys.executable)
    assert parse_command("--ab", "./env/bin/python -I", tmp_path) == (str(link), "-I")
    assert parse_command("--ab", "env/bin/python", tmp_path) == (str(link),)
    assert Path(parse_command("--ab", "sh", tmp_path)[0]).is_absolute()
    with pytest.raises(Refusal, match="no such program"):
        parse_command("--ab", "./env/bin/python", tmp_path / "env")


@pytest.mark.parametrize("text", ["0", "", "1,,2", "a", "-4", "1.5", "1,65537"])
def test_bad_batch_sizes_are_refused(text):
    with pytest.raises(Refusal, match="--batch-sizes"):
        parse_batch_sizes(text)


def test_limits_are_read():
    assert parse_limits(["max_abs_error=1e-2"], KNOWN) == {"max_abs_error": 0.01}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["max_abs_err=1"], "no limit is called"),
        (["max_abs_error"], "NAME=NUMBER"),
        (["max_abs_error=nan"], "NAME=NUMBER"),
        (["max_abs_error=big"], "NAME=NUMBER"),
        (["max_abs_error=1", "max_abs_error=2"], "given twice"),
        (["throughput_b4=1"], "no limit is called"),
    ],
)
def test_bad_limits_are_refused(texts, words):
    with pytest.raises(Refusal, match=words):
        parse_limits(texts, KNOWN)


@pytest.mark.parametrize("text", ["latency_p50_ms=0", "latency_p50_ms=-5", "throughput_b16=0"])
def test_a_time_or_a_rate_that_is_none_is_refused(text):
    times = [limit.name for limit in performance_limits((1, 16))]
    with pytest.raises(Refusal, match=f"--limit {text}: .* give a number above 0"):
        parse_limits([text], KNOWN, times)
    assert parse_limits(["max_abs_error=0"], KNOWN, times) == {"max_abs_error": 0.0}


def test_the_digest_of_the_limits_changes_with_any_of_them(tmp_path):
    limits = all_limits((1, 16))
    (tmp_path / "tests").mkdir()
    before = digest(limits, tmp_path)
    assert before == digest(all_limits((1, 16)), tmp_path)
    assert digest(with_overrides(limits, {"max_abs_error": 0.04}), tmp_path) != before
    (tmp_path / "tests" / "test_x.py").write_text("LIMIT = 100")
    assert digest(limits, tmp_path) != before, "code that judges counts as well"
    changed = with_overrides(limits, {"latency_mean_ms": 60.0})
    assert changed["latency_mean_ms"].bound == 60.0
    assert not changed["latency_mean_ms"].loosened

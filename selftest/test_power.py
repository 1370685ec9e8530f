"""Power and clocks: what the tools print becomes readings, which fall into timed blocks."""

import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core import npu_smi, sampling
from fixtures.core.backends import BACKENDS, backend
from fixtures.core.backends.cuda import POWER_FIELDS, REASON_FIELDS, CudaBackend, power_reading
from fixtures.core.npu_smi import Chip, ToolAnswer
from fixtures.core.power import (
    Block,
    Blocks,
    Power,
    Reading,
    Sample,
    Sampler,
    Source,
    Waiting,
    parse,
    waited,
)
from fixtures.core.statistics import REDUCED_CLOCK

DATA = Path(__file__).parent / "data/npu_smi"
COMMON = (DATA / "t-common-mcu.txt").read_text()
POWER = (DATA / "t-power.txt").read_text()
CHIP = Chip(1, 0, 1, "Ascend 910B4")


# --- what the tools print


def test_a_recorded_common_query_tells_power_and_both_clocks():
    told = npu_smi.reading(COMMON)
    assert told == Reading(130.4, 1800.0, 1800.0, 46.0)
    assert not told.reduced


def test_an_idle_clock_reads_as_reduced_so_only_blocks_may_ask():
    told = npu_smi.reading(COMMON.replace("curFreq(MHZ)            : 1800", "curFreq(MHZ) : 800"))
    assert told.clock_mhz == 800
    assert told.reduced


@pytest.mark.parametrize(
    "text", ["", "Invalid card id.", "\tNPU ID : 0\n", COMMON.replace("Aicore", "x")[:60]]
)
def test_a_text_without_figures_is_no_reading(text):
    assert npu_smi.reading(text) is None


@given(st.text())
def test_no_text_breaks_the_readers(text):
    npu_smi.reading(text)
    power_reading(text, (*POWER_FIELDS, REASON_FIELDS[0]))
    assert parse(text, lambda texts: Reading(1.0)) == ()


def tool(**texts):
    """An npu-smi that answers these kinds; the commands it was asked with."""
    asked = []

    def ask(command):
        asked.append(tuple(command))
        kind = command[command.index("-t") + 1]
        return ToolAnswer(True, texts.get(kind, "This device does not support querying.\n"), 0)

    return npu_smi.Tool(ask), asked


def test_one_query_is_enough_where_common_tells_the_power():
    source, why = tool(common=COMMON, power=POWER)[0].power_source(CHIP)
    assert why == ""
    assert source.commands == (("npu-smi", "info", "-t", "common", "-i", "1"),)
    assert source.read([COMMON]).power_w == 130.4
    assert source.interval_s >= 1
    assert not source.streams


def test_power_is_asked_besides_where_common_lacks_it():
    silent = "\n".join(line for line in COMMON.splitlines() if "Power" not in line)
    source, _ = tool(common=silent, power=POWER)[0].power_source(CHIP)
    assert [command[3] for command in source.commands] == ["common", "power"]
    told = source.read([silent, POWER])
    assert (told.power_w, told.clock_mhz) == (103.5, 1800)


def test_power_alone_is_better_than_nothing():
    source, _ = tool(power=POWER)[0].power_source(CHIP)
    told = source.read([POWER])
    assert told.power_w == 103.5
    assert told.share is None
    assert not told.reduced


def test_a_card_that_tells_nothing_has_a_reason():
    source, why = tool()[0].power_source(CHIP)
    assert source is None
    assert "NPU 1 chip 0" in why


FIELDS = (*POWER_FIELDS, REASON_FIELDS[0])


@pytest.mark.parametrize(
    ("line", "reduced", "words"),
    [
        ("412.33, 1755, 1980, 61, 0x0000000000000004", False, ""),  # the cap on power is normal
        ("412.33, 1980, 1980, 61, 0x0000000000000000", False, ""),
        ("212.33, 1200, 1980, 61, 0x0000000000000000", True, ""),
        ("212.33, 1755, 1980, 91, 0x0000000000000060", True, "heat"),
        ("[N/A], 1755, 1980, 91, [N/A]", False, ""),
    ],
)
def test_rows_of_nvidia_smi(line, reduced, words):
    told = power_reading(line, FIELDS)
    assert told.rated_clock_mhz == 1980
    assert told.reduced is reduced
    assert words in told.slowed


def test_the_older_name_of_a_field_is_tried(monkeypatch):
    asked = []

    def ask(command):
        asked.append(command[1])
        if REASON_FIELDS[0] in command[1]:
            return ToolAnswer(True, 'Field "clocks_event_reasons.active" is not a valid field', 2)
        return ToolAnswer(True, "100.0, 1980, 1980, 40, 0x0000000000000000\n", 0)

    cuda = CudaBackend()
    cuda.ask = ask
    monkeypatch.setattr(cuda, "_has_tool", lambda: True)
    monkeypatch.setattr(cuda, "_row", lambda index: ({"uuid": "GPU-1"}, (), ""))
    source, why = cuda.power_sampler(0)
    assert why == ""
    assert REASON_FIELDS[1] in source.commands[0][1]
    assert "--id=GPU-1" in source.commands[0]
    assert source.commands[0][-1] == "--loop-ms=500"
    assert source.streams
    assert len(asked) == 2


@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in ("npu", "cuda")])
def test_a_device_that_tells_nothing_says_so(name):
    source, why = backend(name).power_sampler(0)
    assert source is None
    assert "power" in why


# --- samples and blocks


def sample(at, power=100.0, clock=1500.0, rated=1500.0, slowed=""):
    return Sample(at, Reading(power, clock, rated, 50.0, slowed), 0.1)


def power(samples, blocks, interval=1.0, why=""):
    return Power("tool", interval, tuple(samples), tuple(blocks), 0.0, why)


def test_samples_belong_to_the_block_that_they_fall_into():
    block = Block("latency b1", 10.0, 15.0, 100)
    inside = power([sample(at, at) for at in range(8, 20)], [block]).of(block)
    assert [s.at_s for s in inside.samples] == [10, 11, 12, 13, 14, 15]
    assert inside.power_w == 12.5
    assert inside.joules_per_picture == 12.5 * 5 / 100
    assert inside.uncertainty == pytest.approx(math.sqrt(17.5 / 5) / math.sqrt(6) / 12.5)
    assert not inside.throttled


def test_reduced_clocks_outside_of_blocks_are_idleness():
    block = Block("b", 10.0, 15.0, 1)
    told = power([sample(5, clock=100.0), sample(12), sample(20, clock=800.0)], [block])
    assert told.doubts == ()


def test_reduced_clocks_inside_of_a_block_are_a_doubt_and_set_apart():
    block = Block("latency b1", 10.0, 15.0, 1)
    told = power([sample(11), sample(12, clock=900.0), sample(13, clock=1100.0)], [block])
    (doubt,) = told.doubts
    assert doubt.startswith("throttled: 2 of 3 samples during latency b1")
    assert "900 of 1500 MHz, 60%" in doubt
    row = told.as_json()["blocks"][0]
    assert row["throttled"] is True
    assert row["samples_reduced"] == 2


def test_what_the_card_says_of_itself_counts_at_any_clock():
    block = Block("b", 0.0, 5.0, 1)
    (doubt,) = power([sample(1, slowed="a slowdown by heat")], [block]).doubts
    assert "the card tells of a slowdown by heat" in doubt
    assert "lowest" not in doubt


def test_a_card_that_tells_no_watts_has_no_joules():
    """Some drivers print 0.00 where they know nothing."""
    samples = tuple(Sample(at, Reading(power_w=0.0)) for at in (1.0, 2.0, 3.0))
    made = Power("a tool", 1.0, samples, (Block("latency b1", 0.0, 4.0, 10),), 0.0)
    (row,) = made.as_json()["blocks"]
    assert row["power_w"] is None
    assert row["reason"] == "the card tells no power"


@given(st.floats(0.01, 1.5), st.floats(100, 3000))
def test_the_threshold_is_a_share_of_the_rated_clock(share, rated):
    told = Reading(1.0, share * rated, rated)
    assert told.reduced is (told.share < REDUCED_CLOCK)


@pytest.mark.parametrize(
    ("samples", "block", "interval", "words"),
    [
        ([sample(1)], Block("b", 0, 1.9, 1), 1.0, "2 s are needed"),
        ([], Block("b", 0, 9, 1), 1.0, "no sample"),
        ([sample(1, power=None)], Block("b", 0, 9, 1), 1.0, "no power"),
        ([], Block("b", 0, 9, 1), None, "the words of the backend"),
    ],
)
def test_a_block_without_power_has_a_reason(samples, block, interval, words):
    told = power(samples, [block], interval, "the words of the backend")
    row = told.as_json()["blocks"][0]
    assert row["power_w"] is None
    assert row["joules_per_picture"] is None
    assert words in row["reason"]
    assert all(figure.value is None and figure.reason for figure in told.figures())


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(1, 1000)), max_size=30),
    st.floats(0, 50),
    st.floats(0, 50),
    st.integers(0, 1000),
)
def test_joules_are_power_over_rate(points, begin, length, pictures):
    block = Block("b", begin, begin + length, pictures)
    told = power([sample(at, watts) for at, watts in points], [block])
    of = told.of(block)
    assert (of.power_w is None) is bool(of.reason)
    if of.joules_per_picture is not None:
        rate = pictures / block.seconds
        assert of.joules_per_picture == pytest.approx(of.power_w / rate)
    json.dumps(told.as_json(), allow_nan=False)


def test_blocks_of_a_device_without_a_source_keep_the_reason():
    blocks = Blocks(None, "no tool here")
    with blocks.timed("latency b1", 3):
        pass
    assert blocks.clocks() == ()
    told = blocks.power()
    assert told.reason == "no tool here"
    assert told.as_json()["blocks"][0]["reason"] == "no tool here"
    blocks.close()


def test_a_block_that_fails_is_noted_all_the_same():
    blocks = Blocks()
    with pytest.raises(ValueError, match="out"), blocks.timed("b", 1):
        raise ValueError("out of memory")
    assert len(blocks.done) == 1


# --- the host


def host_of(folder, threads, stat="cpu  1 1 1 1 1 1 1 500 0 0\ncpu0 1 1 1 1 1 1 1 300 0 0\n"):
    """A /proc with these threads' schedstat, and one core of which time was stolen."""
    for number, text in enumerate(threads):
        task = folder / f"proc/self/task/{number}"
        task.mkdir(parents=True)
        (task / "schedstat").write_text(text)
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc/stat").write_text(stat)
    return folder


def test_waiting_is_told_by_thread_and_what_was_stolen(tmp_path):
    root = host_of(tmp_path, ["9 2000000000 5", "9 500000000 5"])
    stolen = 300 / os.sysconf("SC_CLK_TCK")
    assert Waiting.now(root) == Waiting({"0": 2.0, "1": 0.5}, stolen)


def test_a_time_is_longer_by_the_thread_that_waited_longest():
    before = Waiting({"1": 5.0, "2": 1.0}, 0.5)
    after = Waiting({"1": 6.0, "2": 3.0, "3": 1.5}, 0.7)
    assert waited(before, after, 10.0) == pytest.approx(0.22)
    assert waited(before, after, 1.0) == 1.0
    assert waited(after, before, 1.0) == 0.0
    assert waited(None, after, 1.0) is None


@pytest.mark.parametrize("threads", [[], ["5"], ["a b c"]])
def test_a_host_that_does_not_tell_is_no_busy_one(tmp_path, threads):
    assert Waiting.now(host_of(tmp_path, threads)) is None


def test_a_process_that_sleeps_waits_for_no_core():
    blocks = Blocks()
    with blocks.timed("b", 1):
        time.sleep(0.3)
    assert blocks.done[0].waited is None or blocks.done[0].waited < 1


def test_a_busy_host_is_a_doubt():
    told = power([], [Block("b", 0.0, 5.0, 1, 0.5), Block("c", 5.0, 9.0, 1, 0.1)], None, "no tool")
    assert told.doubts == ("busy host: 50% of b was spent waiting for a core",)


# --- the process that asks

SAYS = "import sys; print(sys.argv[1])"


def source(interval=0.05, streams=False, program=SAYS, words="42"):
    def read(texts):
        return Reading(float(texts[0])) if texts[0].strip() else None

    command = (sys.executable, "-I", "-S", "-c", program, words)
    return Source("a tool", (command,), interval, read, streams)


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "given",
    [
        source(),
        source(
            streams=True,
            program="import time\nwhile True: print(42, flush=True); time.sleep(0.05)",
        ),
    ],
    ids=["polled", "streamed"],
)
def test_samples_stand_on_the_clock_of_the_timed_process(given):
    before = time.perf_counter()
    blocks = Blocks(given)
    with blocks.timed("b", 10):
        wait_for(lambda: len(blocks.power().samples) >= 3)
    samples = blocks.power().samples
    after = time.perf_counter()
    assert all(before <= s.at_s <= after for s in samples)
    assert [s.at_s for s in samples] == sorted(s.at_s for s in samples)
    assert blocks.power().as_json()["blocks"][0]["samples"] >= 2
    pid = blocks._sampler._child.pid
    blocks.close()
    assert not alive(pid)
    blocks.close()


def test_a_tool_is_asked_no_more_than_half_of_the_time():
    slow = source(0.01, program="import time; time.sleep(0.2); print(1)")
    sampler = Sampler(slow)
    try:
        wait_for(lambda: len(sampler.samples()) >= 3)
        samples = sampler.samples()
    finally:
        sampler.end()
    for one, other in itertools.pairwise(samples):
        gap = (other.at_s - other.cost_s / 2) - (one.at_s + one.cost_s / 2)
        assert gap >= 0.9 * one.cost_s


def test_a_tool_that_is_missing_or_talks_nonsense_gives_no_sample():
    given = Source("none", (("/nowhere/tool",),), 0.01, source().read)
    blocks = Blocks(given)
    with blocks.timed("b", 1):
        time.sleep(0.3)
    assert "no answer" in blocks.power().reason
    blocks.close()


def test_the_sampler_ends_with_its_parent():
    script = (
        "import os, sys, time\n"
        "from fixtures.core.power import Sampler\n"
        "from selftest.test_power import source\n"
        "sampler = Sampler(source())\n"
        "print(sampler._child.pid, flush=True)\n"
        "time.sleep(0.5)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    pid = int(done.stdout)
    wait_for(lambda: not alive(pid))


def test_a_line_that_is_cut_off_is_no_sample():
    whole = json.dumps({"at": 1.0, "cost": 0.1, "texts": ["5"]})
    assert parse(f"{whole}\n{whole[:-4]}", source().read) == (Sample(1.0, Reading(5.0), 0.1),)


def test_the_child_needs_the_standard_library_alone():
    text = Path(sampling.__file__).read_text()
    assert "fixtures" not in text.split('"""', 2)[2]

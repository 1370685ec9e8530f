"""A simulated Ascend host: its npu-smi is a process, and the suite reads back what it was told."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from functools import partial
from types import SimpleNamespace

import pytest

from fixtures.core.backends.base import Device
from fixtures.core.backends.npu import NpuBackend
from fixtures.core.backends.simulated_cann import npu_smi_tool
from fixtures.core.backends.simulated_cann.host import (
    BUSES,
    CANN,
    DRIVERS,
    ECC_COUNTERS,
    RECORD,
    SCENARIOS,
    HostError,
    make,
    set_state,
)
from fixtures.core.environment import CHECKS, ImportProbe, collect
from fixtures.core.npu_smi import (
    Process,
    Tool,
    parse_ecc,
    parse_info,
    parse_list,
    parse_mapping,
    parse_process_memory,
    parse_values,
    read_version_file,
    run_tool,
)
from fixtures.core.records import Status
from selftest.ascend_host import DATA, sample

SILENT = ("hanging", "device_used", "no_driver")
"""Scenarios in which npu-smi tells nothing."""


@pytest.fixture
def on(tmp_path, monkeypatch):
    """Make a host and stand on it: npu-smi on PATH, CANN sourced."""

    def build(cards=2, **how):
        made = make(tmp_path / "a host", cards, **how)
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
        return made

    return build


def ask(arguments):
    return run_tool(("npu-smi", *arguments.split()), 10)


def tell(arguments):
    """What it prints."""
    return ask(arguments).text


def answer(host, arguments):
    """What the tool prints, without a process: for controls."""
    try:
        return npu_smi_tool.answer(str(host.folder), arguments.split())
    except npu_smi_tool.Failure as failure:
        return failure.text


def state_of(host):
    return json.loads(host.state.read_text())


def write_usage(host, device, used_mib=0, pid=0, errors=0, clock=0):
    """What the runtime writes."""
    with host.usage.open("r+b") as file:
        file.seek(RECORD * device)
        for number in (used_mib << 20, pid, errors, 0, clock):
            file.write(number.to_bytes(8, "little"))


def everybody(rows):
    return rows


# --- the recorded outputs


def cards(*rows):
    """Give the cards these values, by position."""

    def change(state):
        for card, row in zip(state["cards"], rows, strict=True):
            card |= row

    return change


STRANGER = {"pid": 1444272, "name": "sglangschedul", "memory_mib": 26264, "container_pid": 311}


def four(state):
    """Four cards of an eight-card host, one of them busy and one in alarm."""
    cards(
        {"bus_id": "0000:81:00.0", "power_w": 89.2, "hbm_idle_mib": 2832, "processes": [STRANGER]},
        {"bus_id": "0000:82:00.0", "power_w": 88.1, "hbm_idle_mib": 2830},
        {"bus_id": "0000:01:00.0", "power_w": 90.4, "hbm_idle_mib": 2831, "health": "Alarm"},
        {"bus_id": "0000:02:00.0", "power_w": 87.7, "hbm_idle_mib": 2832},
    )(state)


def a3(state):
    """Fifteen dies: the first two and the last as recorded."""
    first, second = state["cards"]
    cards(
        {"power_w": 162.6, "temperature_c": 34, "hbm_idle_mib": 3419},
        {"temperature_c": 34, "hbm_idle_mib": 2874},
    )(state)
    for npu_id in range(1, 7):
        state["cards"] += [first | {"npu_id": npu_id}, second | {"npu_id": npu_id}]
    last = {"npu_id": 7, "phy_id": 14, "bus_id": "0000:93:00.0", "power_w": 226.8}
    last |= {"temperature_c": 53, "aicore_percent": 13, "hbm_idle_mib": 2533}
    state["cards"].append(first | last | {"processes": [STRANGER | {"memory_mib": 60970}]})


def older_counters(state):
    """A 910A counts DDR too, and has no next-isolated pages."""
    names = [name for name in ECC_COUNTERS if "Next" not in name]
    names = [name.replace("HBM", "DDR") for name in names] + names
    counts = {"Single Bit Error Count": 4, "Single Bit Aggregate Total Err Cnt": 9}
    state["cards"][0]["ecc"] = {name: counts.get(name[4:], 0) for name in names}


def boards(state):
    told = {"Serial Number": "1023C7654321", "Software Version": "24.1.0.3"}
    chip = {"VDie ID": "14036E64 00E04F1D 1223F2B2 84528485 104301E2"}
    for key, values in (("board", told), ("chip_board", chip)):
        state["cards"][0][key] |= {**values, "Firmware Version": "7.5.0.5.220"}


def workstation(state):
    state["server"] = False
    for number, card in enumerate(state["cards"]):
        card["board"]["Serial Number"] = f"2102313{number}"


def driver(version, **row):
    def change(state):
        state["driver"] = version
        cards(row)(state)

    return change


def equal(out, text):
    return out == text


def starts(out, text):
    """The sample was posted without its process table, or the warning in fewer words."""
    return out.startswith(text)


def holds(out, text):
    """Every line is there, byte for byte and in order: posts lose blank lines and whole cards, and
    the ECC sample is a 950's, which shows neither the number of chips nor the chip's id."""
    lines = iter(out.splitlines())
    return all(line in lines for line in filter(None, text.splitlines()))


def trimmed(out, text):
    """The sample pads the chips' names, print_mapping_info does not."""
    return [line.rstrip() for line in text.splitlines()] == [
        line.rstrip() for line in out.splitlines()
    ]


def reordered(out, text):
    """The sample has the chip's id first, as the oldest chips show it."""
    return sorted(filter(None, out.splitlines())) == sorted(filter(None, text.splitlines()))


def but_last(out, text):
    """The sample's MCU shows a power, which only that of a 310P does (print_mcu_common_info)."""
    return out == "".join(text.splitlines(keepends=True)[:-1])


def last_words(out, text):
    """The sample's line lost its padding."""
    return out.splitlines()[-1].split() == text.splitlines()[-1].split()


RECORDED = {
    "bad-id": (equal, "info -t health -i 4", {}, None),
    "info-23.0.6-ids4to7": (equal, "info", {"cards": 4, "scenario": "ids_from_4"}, four),
    "info-24.1.rc3": (
        starts,
        "info",
        {"cards": 2},
        cards(
            {"power_w": 92.1, "temperature_c": 52},
            {"bus_id": "0000:C2:00.0", "power_w": 85.2, "temperature_c": 51, "hbm_idle_mib": 2829},
        ),
    ),
    "info-25.2.0-910b4-1": (
        starts,
        "info",
        {"name": "910B4-1", "hbm_mib": 65536},
        driver("25.2.0", power_w=91.3, temperature_c=33, hbm_idle_mib=3197),
    ),
    "info-25.5.2-one-card-id5": (
        equal,
        "info",
        {"scenario": "id_5"},
        cards({"power_w": 89.9, "hbm_idle_mib": 2922}),
    ),
    "info-26.0.rc1-wide": (
        equal,
        "info",
        {"scenario": "driver_26.0.rc1"},
        cards({"power_w": 82.6, "temperature_c": 32, "hbm_idle_mib": 2871}),
    ),
    "info-26.0.rc2-a3": (holds, "info", {"cards": 2, "scenario": "a3"}, a3),
    "info-device-used": (equal, "info", {"scenario": "device_used"}, None),
    "info-no-driver": (equal, "info -m", {"scenario": "no_driver"}, None),
    "l": (equal, "info -l", {"cards": 2}, workstation),
    "m-910b3": (trimmed, "info -m", {"cards": 8, "name": "910B3"}, None),
    "m-a3-phyid": (holds, "info -m", {"cards": 2, "scenario": "a3"}, a3),
    "m-ids4to7": (trimmed, "info -m", {"cards": 4, "scenario": "ids_from_4"}, None),
    "t-board": (equal, "info -t board -i 0", {}, boards),
    "t-board-chip": (equal, "info -t board -i 0 -c 0", {}, boards),
    "t-common-mcu": (
        but_last,
        "info -t common -i 1",
        {"cards": 2},
        cards(
            {},
            {"hbm_total_mib": 100, "hbm_idle_mib": 91, "aicore_percent": 6, "aicore_mhz": 1800}
            | {"aicore_current_mhz": 1800, "temperature_c": 46, "power_w": 130.4}
            | {"mcu_temperature_c": 40},
        ),
    ),
    "t-ecc": (holds, "info -t ecc -i 0", {}, None),
    "t-ecc-910a": (holds, "info -t ecc -i 0", {}, older_counters),
    "t-ecc-double-bit": (holds, "info -t ecc -i 0", {"scenario": "ecc"}, None),
    "t-health-alarm": (equal, "info -t health -i 0 -c 0", {"scenario": "alarm"}, None),
    "t-health-ok": (equal, "info -t health -i 0 -c 0", {}, None),
    "t-memory": (holds, "info -t memory -i 0", {}, None),
    "t-power": (reordered, "info -t power -i 0", {}, cards({"power_w": 103.5})),
    "t-proc-mem": (
        last_words,
        "info -t proc-mem -i 0 -c 0",
        {},
        cards({"processes": [{"pid": 1654497, "name": "python", "memory_mib": 177}]}),
    ),
    "t-usages": (
        holds,
        "info -t usages -i 0",
        {"hbm_mib": 65536},
        cards({"hbm_idle_mib": 3379}),
    ),
}
"""By sample: how exactly it was recorded, the query, the host, and what makes it that host."""

OTHERS = {
    "info-950": "another chip",
    "info-warning": "a table of its own, and the warning in other words: tested below",
    "t-temp-mcu": "nobody's output: tested below",
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_output_is_reproduced(on, name):
    same, arguments, how, change = RECORDED[name]
    host, text = on(**{"cards": 1, **how}), sample(name)
    if change:
        assert not same(answer(host, arguments), text)  # control: it is the state that does it
        set_state(host, change)
    out = tell(arguments)
    assert same(out, text), out
    missing = [line for line in text.splitlines() if line and line in out.splitlines()]
    assert missing or same is last_words
    for line in missing:  # control: no line may be missing
        assert not same("".join(f"{kept}\n" for kept in out.splitlines() if kept != line), text)


def test_every_recorded_output_is_accounted_for():
    assert sorted([*RECORDED, *OTHERS]) == sorted(path.stem for path in DATA.glob("npu_smi/*.txt"))


def test_a_half_installed_driver_is_warned_of(on):
    on(1, scenario="half_installed")
    text = sample("info-warning")
    told = text[text.index("[WARNING]") : text.index(", please")]
    assert tell("info").splitlines()[-1].startswith(told)
    assert parse_info(tell("info")).warnings[0].startswith(told)


def test_no_warning_where_the_driver_is_whole(on):
    on(1)
    assert "WARNING" not in tell("info")


def test_the_mcu_has_its_own_temperatures(on):
    set_state(on(1), cards({"temperature_c": 46, "mcu_temperature_c": 40}))
    for query in ("info -t temp -i 0", "info -t temp -i 0 -c 0", "info -t common -i 0"):
        values = parse_values(tell(query))
        assert (values.get("NPU Temperature (C)") or values["Temperature(C)"]) == "46"
    assert tell("info -t temp -i 0 -c 1").split() == ("LM75A_TE (C) : 40 LM75B_TE (C) : 40".split())


# --- what is read back


def read_back(state, ask=tell):
    """All that the suite's parsers read of the card at device 0, by the names of the state."""
    card = state["cards"][0]
    npu, chip = card["npu_id"], card["chip_id"]
    kinds = ("health", "ecc", "usages", "temp", "power", "memory", "board", "proc-mem")
    queries = ["info", "info -m", "info -l", f"info -t common -i {npu}", f"info -t board -i {npu}"]
    queries += [f"info -t {kind} -i {npu} -c {chip}" for kind in kinds]
    with ThreadPoolExecutor(2) as pool:
        texts = dict(zip(queries, pool.map(ask, queries), strict=True))
    asked = {kind: texts[f"info -t {kind} -i {npu} -c {chip}"] for kind in kinds}
    values = {kind: parse_values(text, chip) for kind, text in asked.items()}
    common = parse_values(texts[f"info -t common -i {npu}"], chip)
    table = parse_info(texts["info"])
    shown = table.card(npu, chip)
    health = values["health"]
    return {
        "driver": table.version,
        "npu_ids": [row.npu_id for row in table.cards],
        "health": [shown.health, health["Health Status"]],
        "error_code": health.get("Error Code", ""),
        "error_information": health.get("Error Information", "").replace("; ", "\n"),
        "temperature_c": [
            shown.temperature_c,
            float(values["temp"]["NPU Temperature (C)"]),
            float(common["Temperature(C)"]),
        ],
        "power_w": [
            shown.power_w,
            float(values["power"]["NPU Real-time Power(W)"]),
            float(common["NPU Real-time Power(W)"]),
        ],
        "aicore_percent": [
            shown.utilization_percent,
            float(values["usages"]["Aicore Usage Rate(%)"]),
            float(common["Aicore Usage Rate(%)"]),
        ],
        "hbm_total_mib": [
            shown.hbm_total_mib,
            int(values["usages"]["HBM Capacity(MB)"]),
            int(values["memory"]["HBM Capacity(MB)"]),
        ],
        "hbm_used_mib": shown.hbm_used_mib,
        "rates": [values["usages"]["HBM Usage Rate(%)"], common["HBM Usage Rate(%)"]],
        "hbm_temperature_c": float(values["memory"]["HBM Temperature(C)"]),
        "ctrlcpu_percent": float(values["usages"]["Ctrlcpu Usage Rate(%)"]),
        "aicore_mhz": float(common["Aicore Freq(MHZ)"]),
        "ecc": parse_ecc(asked["ecc"], chip),
        "bus_id": shown.bus_id,
        "phy_id": shown.phy_id,
        "name": shown.name,
        "serial": parse_values(texts[f"info -t board -i {npu}"]).get("Serial Number"),
        "vdie": values["board"].get("VDie ID"),
        "processes": [(row.pid, row.name, row.memory_mib) for row in table.processes],
        "process_memory": [
            (row.pid, row.name, row.memory_mib) for row in parse_process_memory(asked["proc-mem"])
        ],
        "mapping": [
            (row.npu_id, row.chip_id, row.logic_id, row.name)
            for row in parse_mapping(texts["info -m"])
        ],
        "list": parse_list(texts["info -l"]),
        "damage": table.damage,
    }


def expected(state):
    """The same from the state alone."""
    card, ids = state["cards"][0], [card["npu_id"] for card in state["cards"]]
    used = card["hbm_idle_mib"] + sum(row["memory_mib"] for row in card["processes"])
    rows = [(row["pid"], row["name"], row["memory_mib"]) for row in card["processes"]]
    a3 = card["phy_id"] is not None
    return {
        "driver": state["driver"],
        "npu_ids": ids,
        "health": [card["health"]] * 2,
        "error_code": card["error_code"],
        "error_information": card["error_information"],
        "temperature_c": [card["temperature_c"]] * 3,
        "power_w": [card["power_w"]] * 3,
        "aicore_percent": [card["aicore_percent"]] * 3,
        "hbm_total_mib": [card["hbm_total_mib"]] * 3,
        "hbm_used_mib": used,
        "rates": [str(int(100 * used / card["hbm_total_mib"]))] * 2,
        "hbm_temperature_c": card["hbm_temperature_c"],
        "ctrlcpu_percent": card["ctrlcpu_percent"],
        "aicore_mhz": card["aicore_mhz"],
        "ecc": card["ecc"],
        "bus_id": card["bus_id"],
        "phy_id": card["phy_id"],
        "name": card["name"],
        "serial": card["board"].get("Serial Number"),
        "vdie": card["chip_board"].get("VDie ID"),
        "processes": rows,
        "process_memory": rows,
        "mapping": [
            (
                row["npu_id"],
                row["chip_id"],
                device,
                row["name"] if a3 else f"Ascend {row['name']}",
            )
            for device, row in enumerate(state["cards"])
        ],
        "list": tuple(dict.fromkeys(ids)),
        "damage": ("the table ends in the middle of NPU 1",) if state["info_lines"] else (),
    }


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in SILENT])
def test_the_suite_reads_back_what_the_state_says(on, scenario):
    host = on(1 if scenario == "id_5" else 2, scenario=scenario)
    assert read_back(state_of(host)) == expected(state_of(host))


def test_every_figure_of_the_state_is_shown(on):
    """Control: each of them, changed behind the suite's back, is found."""
    host = on(1)
    before = state_of(host)
    changed = {
        "health": "Critical",
        "error_code": "80E01801",
        "error_information": "a fault",
        "temperature_c": 99,
        "power_w": 300.5,
        "aicore_percent": 77,
        "hbm_total_mib": 30000,
        "hbm_idle_mib": 9000,
        "hbm_temperature_c": 88,
        "ctrlcpu_percent": 5,
        "aicore_mhz": 1000,
        "ecc": dict.fromkeys(ECC_COUNTERS, 7),
        "bus_id": "0000:C2:00.0",
        "name": "910B3",
        "processes": [STRANGER],
        "board": {"Serial Number": "another"},
        "chip_board": {"VDie ID": "another"},
    }
    set_state(
        host, lambda state: (state.update(driver="25.5.2"), state["cards"][0].update(changed))
    )
    wanted, found = expected(before), read_back(before, partial(answer, host))
    alike = {key for key in wanted if wanted[key] == found[key]}
    assert alike == {"npu_ids", "phy_id", "list", "damage"}
    after = state_of(host)
    assert read_back(after, partial(answer, host)) == expected(after)


@pytest.mark.parametrize("scenario", ["device_used", "no_driver"])
def test_an_error_text_ends_every_command(on, scenario):
    host = on(1, scenario=scenario)
    failure = state_of(host)["failure"]
    for arguments in ("info", "info -m", "info -t ecc -i 0", "-v"):
        got = ask(arguments)
        assert got.reason == failure["text"]
        assert got.code == failure["status"] % 256
    told = Tool().telemetry(0, None, everybody)
    assert (told.mapped, told.problems) == (False, (f"npu-smi info failed: {failure['text']}",))


def test_a_hanging_tool_ends_at_the_suites_time_out(on):
    on(1, scenario="hanging")
    started = time.monotonic()
    told = Tool(lambda command: run_tool(command, 0.3)).telemetry(0, None, everybody)
    assert 0.3 <= time.monotonic() - started < 8
    assert not told.mapped
    assert told.problems == ("npu-smi info failed: npu-smi info did not answer within 0.3 s",)


def test_a_tool_that_does_not_hang_answers_in_that_time(on):
    """Control of the above, and how fast it is: the suite asks many times. It takes 25 ms."""
    on(2)
    times = []
    for _ in range(5):
        started = time.monotonic()
        assert not ask("info").reason
        times.append(time.monotonic() - started)
    assert min(times) < 0.3


# --- usage.bin, counters, concurrency


@pytest.mark.parametrize("driver", ["24.1.rc3", "26.0.rc1"])
def test_memory_in_use_and_its_process_are_shown(on, driver):
    host = on(2, driver=driver)
    write_usage(host, 1, used_mib=1234, pid=os.getpid())
    table = parse_info(tell("info"))
    assert [card.hbm_used_mib for card in table.cards] == [2828, 2828 + 1234]
    inside = os.getpid() if driver.startswith("26") else None
    assert table.processes == (Process(1, 0, os.getpid(), "python3", 1234, inside),)
    assert parse_process_memory(tell("info -t proc-mem -i 1")) == (
        Process(0, 0, os.getpid(), "python3", 1234),
    )
    assert tell("info -t proc-mem -i 0 -c 0") == "\tNo process in device.\n"
    assert NpuBackend().telemetry(1).processes == ()  # it is ours


def test_memory_of_a_process_that_has_ended_is_free_again(on):
    host = on(1)
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    write_usage(host, 0, used_mib=500, pid=child.pid)
    assert parse_info(tell("info")).cards[0].hbm_used_mib == 2828 + 500
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert parse_info(tell("info")).cards[0].hbm_used_mib == 2828
    child.communicate()
    assert parse_info(tell("info")).cards[0].hbm_used_mib == 2828


@pytest.mark.parametrize(("clock", "shown"), [(0, 1500), (1000, 1500), (400, 600)])
def test_a_card_at_work_shows_its_clock_and_an_idle_one_that_of_idleness(on, clock, shown):
    host = on(2)
    write_usage(host, 1, used_mib=5, pid=os.getpid(), clock=clock)
    found = [parse_values(tell(f"info -t common -i {npu}")) for npu in (0, 1)]
    assert [values["Aicore curFreq(MHZ)"] for values in found] == ["800", str(shown)]
    assert {values["Aicore Freq(MHZ)"] for values in found} == {"1500"}


@pytest.mark.parametrize("content", [b"", b"\1" * (RECORD + 5), None])
def test_a_short_or_missing_usage_file_is_an_idle_card(on, content):
    host = on(2)
    host.usage.unlink() if content is None else host.usage.write_bytes(content)
    table = parse_info(tell("info"))
    assert table.cards[1].hbm_used_mib == 2828
    assert set(parse_ecc(tell("info -t ecc -i 1")).values()) == {0}


def test_errors_that_the_runtime_noted_are_uncorrectable(on):
    host = on(2)
    write_usage(host, 1, errors=3)
    ecc = [parse_ecc(tell(f"info -t ecc -i {npu} -c 0")) for npu in (0, 1)]
    assert set(ecc[0].values()) == {0}
    assert {name: count for name, count in ecc[1].items() if count} == {
        "HBM Double Bit Error Count": 3,
        "HBM Double Bit Aggregate Total Err Cnt": 3,
    }


def test_rising_counters_rise_at_each_query_of_their_card(on):
    host = on(2)
    name = "HBM Single Bit Error Count"
    still = [parse_ecc(tell("info -t ecc -i 0"))[name] for _ in range(2)]
    assert still == [0, 0]  # control: no step, no rise
    set_state(host, lambda state: state["cards"][1].update(ecc_step={name: 5}))
    ask("info")
    assert [parse_ecc(tell("info -t ecc -i 1 -c 0"))[name] for _ in range(3)] == [5, 10, 15]
    assert parse_ecc(tell("info -t ecc -i 0"))[name] == 0


def test_queries_at_the_same_time_are_all_counted(on):
    host = on(1)
    name = "HBM Single Bit Error Count"
    set_state(host, lambda state: state["cards"][0].update(ecc_step={name: 1}))
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: tell("info -t ecc -i 0 -c 0"), range(16)))
    assert sorted(parse_ecc(text)[name] for text in texts) == list(range(1, 17))


def test_a_query_waits_for_the_one_that_counts(on):
    host = on(1)
    name = "HBM Single Bit Error Count"
    set_state(host, lambda state: state["cards"][0].update(ecc_step={name: 1}))
    with ThreadPoolExecutor(1) as pool, host.usage.open("r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = pool.submit(tell, "info -t ecc -i 0")
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        file.seek(24)
        file.write((41).to_bytes(8, "little"))
        fcntl.flock(file, fcntl.LOCK_UN)
        assert parse_ecc(waiting.result(10))[name] == 42


def test_the_state_can_be_changed_while_it_is_read(on):
    host = on(1)

    def write(number):
        set_state(host, lambda state: state["cards"][0].update(temperature_c=number))

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(ask, "info") for _ in range(12)]
        for number in range(60):
            write(number)
        tables = [parse_info(each.result().text) for each in done]
    assert all(table.cards[0].whole and not table.failure for table in tables)


# --- bad options


@pytest.mark.parametrize(
    ("arguments", "text", "status"),
    [
        ("", "Usage: npu-smi <Command", 215),
        ("nonsense", "Command or option is not found.", 211),
        ("-h", "Usage: npu-smi <Command", 0),
        ("info -h", "Usage: npu-smi info", 0),
        ("info -x", "Error parameter of -x", 215),
        ("info -t", "Error parameter of -t", 215),
        ("info -t nonsense -i 0", "Error parameter of -t", 215),
        ("info -l -m", "Usage", 0),
        ("info -t ecc -t ecc", "Error parameter of -t", 215),
        ("info -t ecc -i x", "Invalid card id.", 215),
        ("info -t ecc -i", "Invalid card id.", 215),
        ("info -t ecc -i 0 -c 2", "Invalid chip id.", 215),
        ("info -t ecc -c 0 -i 0", "Invalid chip id.", 215),
        ("info -t ecc", "\nThis command must input card id.", 215),
        ("info -i 0", "Must input parameter of type.", 215),
        ("info -t common -i 0 -c 0", "Error parameter in querying chip info", 215),
        ("info -t flash -i 0", "This device does not support querying flash.", 0),
        ("info -t sensors -i 0 -c 0", "This device does not support querying sensors.", 0),
        ("info -t ecc -i 0 -c 1", "This device does not support querying ecc.", 0),
        ("info proc", "This device does not support querying proc info.", 0),
        ("info watch", "This device does not support querying watch.", 0),
    ],
)
def test_bad_options_are_answered_as_the_real_tool_does(on, arguments, text, status):
    on(1)
    got = ask(arguments)
    if arguments == "info -l -m":  # every option takes two words, so -m is the value of -l
        assert parse_list(got.text) == (0,)
    else:
        assert got.text.startswith(text)
    assert got.code == status


def test_the_version_is_that_of_the_driver(on):
    on(1, driver="25.5.2")
    assert tell("-v") == "npu-smi version: 25.5.2\n"


def test_an_alarm_without_a_code_is_ok_to_the_query(on):
    """npu_chip_info.c, handle_health_state: the suite must take the worse of the two."""
    set_state(on(1), cards({"health": "Alarm"}))
    assert parse_values(tell("info -t health -i 0 -c 0")) == {"Health Status": "OK"}
    assert Tool().telemetry(0, None, everybody).problems == (
        "health of NPU 0 chip 0 is Alarm, must be OK (-t health says OK, the table Alarm)",
    )


def test_a_code_without_a_text_is_shown_as_its_number(on):
    set_state(on(1), cards({"health": "Alarm", "error_code": "80E01801 1F"}))
    information = parse_values(tell("info -t health -i 0 -c 0"))["Error Information"]
    assert information == f"{0x80E01801}; 31"


# --- the whole environment check


class Bench(NpuBackend):
    """The NPU backend on a simulated host, with figures in torch's place."""

    def __init__(self, host):
        super().__init__()
        self.root = host.root
        self.cards = len(state_of(host)["cards"])

    def module(self):
        return SimpleNamespace(
            get_device_name=lambda index: "Ascend910B4",
            get_device_properties=lambda index: SimpleNamespace(total_memory=29 << 30),
        )

    def device_count(self):
        return self.cards

    def math_mode(self, index=0):
        return super(NpuBackend, self).math_mode(index)


class Imported:
    """Where the import probe goes: it takes seconds, and is tested elsewhere."""

    def result(self, timeout):
        names = ("numpy", "torch", "torch_npu", "torchvision", "PIL", "timm")
        return tuple(ImportProbe(name, "ok", "1") for name in names)

    def end(self):
        pass


def judged(host, index=0):
    environment = collect(Device(Bench(host), index), Imported())
    return environment, {check.id: check(environment) for check in CHECKS}


OF_THE_HOST = (
    "accelerator-available accelerator-count accelerator-name accelerator-memory card-identity "
    "card-tool card-health card-temperature card-power card-memory card-ecc card-busy "
    "card-neighbours version-driver version-firmware version-toolkit"
).split()


def test_a_healthy_host_passes_every_check_of_the_card(on):
    host = on(2)
    environment, found = judged(host, 1)
    for check in OF_THE_HOST:
        assert found[check].verdict.status is Status.PASS, found[check].verdict
        assert found[check].doubts == ()
    assert environment.versions["npu-smi"] == environment.versions["driver"] == "24.1.rc3"
    assert environment.versions["firmware"] == "7.5.0.1.129"
    assert environment.versions["toolkit"] == CANN
    identity, card = environment.identity, state_of(host)["cards"][1]
    assert (identity.npu_id, identity.bus_id) == (card["npu_id"], card["bus_id"])
    assert identity.serial == card["board"]["Serial Number"]
    assert identity.vdie_id == card["chip_board"]["VDie ID"]
    signs = " ".join(environment.hardware)
    assert "/dev/davinci0 /dev/davinci1 PCI 19e5:d802 at 0000:01:00.0" in signs
    assert signs.endswith("npu-smi on PATH")
    assert environment.tools["npu-smi"]


def hot(state):
    state["cards"][0]["temperature_c"] = 95


def small(state):
    state["cards"][0]["hbm_total_mib"] = 30000


@pytest.mark.parametrize(
    ("scenario", "change", "failing", "doubtful"),
    [
        ("alarm", None, ["card-health"], []),
        ("ecc", None, ["card-ecc"], []),
        ("healthy", hot, ["card-temperature"], []),
        ("healthy", small, ["card-memory"], []),
        ("busy", None, [], ["card-busy"]),
        ("half_installed", None, [], ["card-tool"]),
        ("device_used", None, ["card-tool"], []),
        ("no_driver", None, ["card-tool"], []),
        ("ids_from_4", None, [], []),
    ],
)
def test_what_is_wrong_with_a_host_fails_its_own_check_and_no_other(
    on, scenario, change, failing, doubtful
):
    host = on(2, scenario=scenario)
    if change:
        set_state(host, change)
    _, found = judged(host)
    of_host = {check: found[check] for check in OF_THE_HOST}
    assert [check for check, one in of_host.items() if one.verdict.status is Status.FAIL] == failing
    assert [check for check, one in of_host.items() if one.doubts] == doubtful


def test_an_alarm_beside_the_card_is_a_doubt_alone(on):
    _, found = judged(on(2, scenario="alarm"), 1)
    assert found["card-health"].verdict.status is Status.PASS
    assert found["card-neighbours"].doubts == ("NPU 0 chip 0 says Alarm",)


def test_a_card_that_the_half_table_lost_is_asked_by_query(on):
    host = on(2, scenario="half_table")
    told = Tool().telemetry(1, None, everybody)
    card = state_of(host)["cards"][1]
    assert (told.temperature_c, told.power_w) == (card["temperature_c"], card["power_w"])
    assert told.memory_total_mib == card["hbm_total_mib"]
    assert told.memory_used_mib == round(32768 * 0.08)  # an integer percentage


def test_visible_devices_choose_the_card(on, monkeypatch):
    on(4, scenario="ids_from_4")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,3")
    assert NpuBackend().telemetry(1).temperature_c == 39 + 3
    assert not NpuBackend().telemetry(2).mapped


# --- the files


@pytest.mark.parametrize("driver", DRIVERS)
def test_version_files_hold_what_is_known_of_a_driver(on, driver):
    host = on(1, driver=driver)
    ascend = host.root / "usr/local/Ascend"
    values = read_version_file(ascend / "driver/version.info")
    assert values["Version"] == values["package_version"] == driver
    recorded = read_version_file(DATA / "versions/driver-23.0.7.info")
    assert [key for key in recorded if key in values] == list(values)  # its keys, in its order
    firmware = read_version_file(ascend / "firmware/version.info")
    assert firmware.get("Version") == DRIVERS[driver].firmware
    assert set(firmware) <= set(read_version_file(DATA / "versions/firmware-7.1.0.11.220.info"))
    versions = Bench(host).versions()
    assert (versions["driver"], versions["toolkit"]) == (driver, CANN)
    assert versions["firmware"] == DRIVERS[driver].firmware


def test_the_toolkit_is_where_torch_npu_looks_for_it(on):
    host = on(1)
    environment = host.environment("/bin")
    assert environment["PATH"] == f"{host.bin}:/bin"
    for name in ("runtime", "compiler"):
        assert os.path.isdir(os.path.join(environment["ASCEND_HOME_PATH"], name))
    assert os.path.isdir(environment["ASCEND_OPP_PATH"])
    assert (host.root / "usr/local/Ascend/cann").resolve() == host.toolkit
    (installed,) = host.toolkit.glob("*-linux/ascend_toolkit_install.info")
    recorded = read_version_file(DATA / "versions/toolkit-7.0.T10.info")
    assert set(read_version_file(installed)) <= set(recorded)


def test_devices_and_buses_are_those_that_npu_smi_shows(on):
    host = on(8)
    assert sorted(path.name for path in (host.root / "dev").glob("davinci?")) == [
        f"davinci{number}" for number in range(8)
    ]
    shown = [card.bus_id for card in parse_info(tell("info")).cards]
    assert shown == [f"0000:{bus}:00.0" for bus in BUSES]
    functions = {path.name.upper() for path in (host.root / "sys/bus/pci/devices").iterdir()}
    assert functions == set(shown)


def test_everything_is_under_the_folder_and_made_once(tmp_path):
    host = make(tmp_path / "host", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["host"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    set_state(host, hot)
    assert make(tmp_path / "host", 2) == host
    assert state_of(host)["cards"][0]["temperature_c"] == 95  # what became of it stays
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {path for path in after if after[path] != before.get(path)} == {host.folder, host.state}
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty", 1).state.exists()


def test_hosts_are_made_at_the_same_time_and_once(tmp_path):
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from fixtures.core.backends.simulated_cann.host import make\n"
        "assert 'torch' not in sys.modules\n"
        "make(Path(sys.argv[1]), 2)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "host"), str(DATA.parent.parent)]
    children = [subprocess.Popen(command) for _ in range(4)]
    assert [child.wait(30) for child in children] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["host"]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (dict(cards=0), "cards=0: scenario healthy has 1 to 8"),
        (dict(cards=3, scenario="a3"), "cards=3: scenario a3 has 1 to 2"),
        (dict(scenario="alarms"), "did you mean alarm? there are healthy, alarm,"),
        (dict(driver="99"), "driver='99': the drivers known are 23.0.6, 24.1.rc3"),
        (dict(npu_ids=[1, 2]), "npu_ids=[1, 2]: there must be 1, one for each card"),
        (dict(cards=2, npu_ids=[2, 1]), "they must be rising numbers from 0 to 7"),
        (dict(npu_ids=[8]), "they must be rising numbers from 0 to 7"),
        (dict(cards=2, scenario="a3", npu_ids=[0, 1]), "the dies of scenario a3 are those of NPU"),
        (dict(hbm_mib=2000), "hbm_mib=2000: an idle card alone shows 2828, so give more"),
        (dict(cards=2, scenario="id_5", npu_ids=[5]), "there must be 2"),
    ],
)
def test_a_host_that_does_not_exist_is_refused(tmp_path, how, sentence):
    with pytest.raises(HostError) as refused:
        make(tmp_path / "host", **{"cards": 1, **how})
    assert sentence in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_another_things_folder_is_left_alone(tmp_path):
    make(tmp_path / "host", 1)
    with pytest.raises(HostError, match="holds another simulated host: give a new folder"):
        make(tmp_path / "host", 2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").write_text("dear")
    with pytest.raises(HostError, match="holds something that is no simulated host"):
        make(tmp_path / "mine", 1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter"]

"""Every recorded format of npu-smi and of the version files is read, and nothing is made up."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core import npu_smi
from fixtures.core.backends.generic import kin, strangers
from fixtures.core.npu_smi import (
    Card,
    Chip,
    Process,
    cann_version,
    locate,
    package_version,
    parse_ecc,
    parse_info,
    parse_list,
    parse_mapping,
    parse_process_memory,
    parse_values,
    parse_version_file,
    run_tool,
    toolkit_version,
    visible_devices,
)
from selftest.ascend_host import DATA, answers, install, sample, tool, tree

# --- npu-smi info


@pytest.mark.parametrize(
    ("name", "version", "card"),
    [
        (
            "info-24.1.rc3",
            "24.1.rc3",
            Card(1, 0, "910B4", "OK", None, "0000:C2:00.0", 85.2, 51, 0, 2829, 32768),
        ),
        (
            "info-25.5.2-one-card-id5",
            "25.5.2",
            Card(5, 0, "910B4", "OK", None, "0000:41:00.0", 89.9, 39, 0, 2922, 32768),
        ),
        (
            "info-26.0.rc1-wide",
            "26.0.rc1",
            Card(0, 0, "910B4", "OK", None, "0000:C1:00.0", 82.6, 32, 0, 2871, 32768),
        ),
        (
            "info-23.0.6-ids4to7",
            "23.0.6",
            Card(4, 0, "910B4", "OK", None, "0000:81:00.0", 89.2, 39, 0, 29096, 32768),
        ),
        (
            "info-25.2.0-910b4-1",
            "25.2.0",
            Card(0, 0, "910B4-1", "OK", None, "0000:C1:00.0", 91.3, 33, 0, 3197, 65536),
        ),
        (
            "info-26.0.rc2-a3",
            "26.0.rc2",
            Card(0, 1, "Ascend910", "OK", 1, "0000:9F:00.0", None, 34, 0, 2874, 65536),
        ),
        (
            "info-950",
            "26.1.0",
            Card(3, 0, "Ascend950PR", "OK", None, None, 171.0, 41, 7, 4021, 131072),
        ),
    ],
)
def test_info_tables(name, version, card):
    table = parse_info(sample(name))
    assert table.version == version
    assert table.card(card.npu_id, card.chip_id) == card
    assert table.failure == ""
    assert table.damage == ()


def test_ids_need_not_start_at_zero():
    table = parse_info(sample("info-23.0.6-ids4to7"))
    assert [card.npu_id for card in table.cards] == [4, 5, 6, 7]
    assert [card.health for card in table.cards] == ["OK", "OK", "Alarm", "OK"]


def test_process_rows_with_and_without_the_container_column():
    narrow = parse_info(sample("info-23.0.6-ids4to7")).processes
    assert narrow == (Process(4, 0, 1444272, "sglangschedul", 26264),)
    wide = parse_info(sample("info-26.0.rc2-a3")).processes
    assert wide == (Process(7, 0, 1444272, "sglangschedul", 60970, 311),)
    assert str(wide[0]) == "process 1444272 (sglangschedul, 60970 MB)"
    assert str(Process(0, 0, 1, "x")) == "process 1 (x)"
    assert parse_info(sample("info-25.5.2-one-card-id5")).processes == ()


def test_two_dies_of_one_card_are_two_chips():
    table = parse_info(sample("info-26.0.rc2-a3"))
    assert [(c.npu_id, c.chip_id, c.power_w) for c in table.cards] == [
        (0, 0, 162.6),
        (0, 1, None),
        (7, 0, 226.8),
    ]


def test_a_warning_below_the_table_is_kept():
    table = parse_info(sample("info-warning"))
    assert table.warnings == (
        "[WARNING]The driver package may not be completely installed, please check.",
    )
    assert len(table.cards) == 1


@pytest.mark.parametrize("name", ["info-device-used", "info-no-driver", "bad-id"])
def test_an_error_text_is_a_failure_though_the_tool_exits_with_0(name):
    table = parse_info(sample(name))
    assert table.cards == ()
    assert table.failure == sample(name).splitlines()[0]


def test_nothing_at_all_is_a_failure():
    assert parse_info("").failure == "npu-smi info printed no table (nothing at all)"
    assert "Segmentation fault" in parse_info("Segmentation fault (core dumped)").failure


def test_half_a_table_is_not_taken_for_a_whole_one():
    text = sample("info-23.0.6-ids4to7")
    cut = text[: text.index("| 0                         | 0000:82:00.0")]
    table = parse_info(cut)
    assert [(card.npu_id, card.whole) for card in table.cards] == [(4, True), (5, False)]
    assert table.cards[1].hbm_used_mib is None
    assert table.damage == ("the table ends in the middle of NPU 5",)


def test_a_card_whose_second_line_is_missing_does_not_take_its_neighbours():
    lines = sample("info-24.1.rc3").splitlines()
    del lines[7]  # the second line of NPU 0
    table = parse_info("\n".join(lines))
    assert table.card(0, 0).hbm_total_mib is None
    assert table.card(1, 0).hbm_total_mib == 32768
    assert table.damage == ("the table ends in the middle of NPU 0",)


def test_rows_that_mean_nothing_are_named():
    text = sample("info-24.1.rc3") + "| a | row |\n| NPU Chip | Process id | x | y |\n| ? | ? |\n"
    damage = parse_info(text).damage
    assert damage == ("not a card row: | a | row |", "not a process row: | ? | ? |")
    assert parse_info("| only | cells | here |").damage


def test_figures_that_a_row_lacks_are_none():
    table = parse_info("| 0 910B4 | OK | |\n| 0 | NA | |\n")
    assert table.cards == (Card(0, 0, "910B4", "OK"),)


@given(st.text())
def test_no_text_breaks_a_parser(text):
    parse_info(text)
    parse_mapping(text)
    parse_list(text)
    parse_values(text)
    parse_ecc(text)
    parse_process_memory(text)
    parse_version_file(text)
    visible_devices(text)
    cann_version(text)


@given(st.data())
def test_no_cut_of_a_table_breaks_the_parser_or_invents_a_card(data):
    text = sample("info-23.0.6-ids4to7")
    table = parse_info(text[: data.draw(st.integers(0, len(text)))])
    assert {card.npu_id for card in table.cards} <= {4, 5, 6, 7}
    assert all(card.health in ("OK", "Alarm") for card in table.cards if card.whole)


# --- npu-smi info -l, -m, -t


def test_list():
    assert parse_list(sample("l")) == (0, 1)


def test_mapping_leaves_the_mcu_out():
    chips = parse_mapping(sample("m-910b3"))
    assert chips == tuple(Chip(i, 0, i, "Ascend 910B3") for i in range(8))


def test_mapping_with_the_phy_id_column():
    assert parse_mapping(sample("m-a3-phyid")) == (
        Chip(0, 0, 0, "Ascend910"),
        Chip(0, 1, 1, "Ascend910"),
        Chip(7, 0, 14, "Ascend910"),
    )


def test_health_texts():
    assert parse_values(sample("t-health-ok")) == {"Health Status": "OK"}
    alarm = parse_values(sample("t-health-alarm"))
    assert alarm["Health Status"] == "Alarm"
    assert alarm["Error Code"] == "A4025021 8C03A000 8C084E00"
    assert alarm["Error Information"].startswith("ascend_monitor adda heart beat lost error; node")
    assert alarm["Error Information"].endswith("event state=Heartbeat Lost.")


def test_values_of_the_other_queries():
    assert parse_values(sample("t-power"))["NPU Real-time Power(W)"] == "103.5"
    usages = parse_values(sample("t-usages"))
    assert usages["HBM Capacity(MB)"] == "65536"
    assert usages["Chip ID"] == "0"
    memory = parse_values(sample("t-memory"))
    assert memory["HBM Capacity(MB)"] == "32768"
    assert memory["HBM Temperature(C)"] == "50"
    board = parse_values(sample("t-board"))
    assert board["Serial Number"] == "1023C7654321"
    assert board["PCIe Bus Info"] == "0000:C1:00.0"
    assert "Model" not in board  # NA
    chip = parse_values(sample("t-board-chip"))
    assert chip["VDie ID"] == "14036E64 00E04F1D 1223F2B2 84528485 104301E2"


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("t-common-mcu", "Temperature(C)", "46"),
        ("t-common-mcu", "NPU Real-time Power(W)", "130.4"),
        ("t-temp-mcu", "NPU Temperature (C)", "46"),
    ],
)
def test_the_mcu_repeats_keys_and_does_not_count(name, key, value):
    assert parse_values(sample(name))[key] == value


def test_blocks_of_several_chips_are_told_apart():
    front = "NPU ID : 0\nChip Count : 2\n\nChip ID : 0\nT : 40\n\nChip ID : 1\nT : 41\n"
    end = "NPU ID : 0\nT : 40\nChip ID : 0\nT : 41\nChip ID : 1\n"
    for text in (front, end):
        assert parse_values(text, 0)["T"] == "40"
        assert parse_values(text, 1)["T"] == "41"
    assert "T" not in parse_values(front, 2)


def test_ecc_of_new_drivers_and_of_910a():
    new = parse_ecc(sample("t-ecc"))
    assert len(new) == 8
    assert set(new.values()) == {0}
    old = parse_ecc(sample("t-ecc-910a"))
    assert len(old) == 12
    assert old["DDR Single Bit Aggregate Total Err Cnt"] == 9
    bad = parse_ecc(sample("t-ecc-double-bit"))
    assert bad["HBM Double Bit Error Count"] == 2
    assert bad["HBM Double Bit Aggregate Total Err Cnt"] == 3


def test_process_memory_of_a2():
    assert parse_process_memory(sample("t-proc-mem")) == (Process(0, 0, 1654497, "python", 177),)


# --- which card


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("0", (0,)),
        ("1,3", (1, 3)),
        ("3,1", ()),
        ("1,1", ()),
        ("", ()),
        ("0,1x,2", (0, 1)),
        ("x", ()),
        (" 0,1 ", (0, 1)),
    ],
)
def test_visible_devices_are_read_as_torch_npu_reads_them(text, ids):
    assert visible_devices(text) == ids


@pytest.mark.parametrize(
    ("index", "visible", "npu_id"), [(0, None, 4), (3, None, 7), (0, "1,3", 5), (1, "1,3", 7)]
)
def test_torch_index_to_npu_id(index, visible, npu_id):
    chip, reason = locate(index, visible, parse_mapping(sample("m-ids4to7")))
    assert (chip.npu_id, reason) == (npu_id, "")


@pytest.mark.parametrize(
    ("index", "visible", "word"),
    [(2, "1,3", "leaves no device npu:2"), (0, "3,1", "leaves no device"), (4, None, "no chip")],
)
def test_no_card_is_guessed(index, visible, word):
    chip, reason = locate(index, visible, parse_mapping(sample("m-ids4to7")))
    assert chip is None
    assert word in reason


def test_an_empty_mapping_is_said():
    assert "it shows none" in locate(0, None, ())[1]


# --- telemetry of one card


def everybody(rows):
    return rows


def test_telemetry_of_a_healthy_card():
    told = tool(answers()).telemetry(0, None, everybody)
    assert told.mapped
    assert (told.health, told.temperature_c, told.power_w) == ("OK", 52, 92.1)
    assert (told.memory_used_mib, told.memory_total_mib) == (2828, 32768)
    assert (told.name, told.utilization_percent) == ("910B4", 0)
    assert told.ecc["HBM Double Bit Error Count"] == 0
    assert (told.problems, told.neighbours, told.reason, told.processes) == ((), (), "", ())


def test_the_card_of_the_visible_devices_is_asked():
    texts = answers(7, info=sample("info-23.0.6-ids4to7"), m=sample("m-ids4to7"))
    told = tool(texts).telemetry(1, "1,3", everybody)
    assert told.temperature_c == 42
    assert told.reason == ""
    assert tool(texts).telemetry(0, "1,3", everybody).temperature_c == 40


def test_a_neighbours_alarm_is_no_problem_of_this_card():
    texts = answers(5, info=sample("info-23.0.6-ids4to7"), m=sample("m-ids4to7"))
    told = tool(texts).telemetry(1, None, everybody)
    assert told.problems == ()
    assert told.neighbours == ("NPU 6 chip 0 says Alarm",)


def test_this_cards_alarm_is_a_problem():
    texts = answers(
        6,
        info=sample("info-23.0.6-ids4to7"),
        m=sample("m-ids4to7"),
        health=sample("t-health-alarm"),
    )
    told = tool(texts).telemetry(2, None, everybody)
    assert len(told.problems) == 1
    assert told.problems[0].startswith(
        "health of NPU 6 chip 0 is Alarm, must be OK (error code A4025021 8C03A000 8C084E00, error"
    )
    assert told.neighbours == ()


def test_an_alarm_in_the_table_counts_when_the_query_says_nothing():
    texts = answers(6, info=sample("info-23.0.6-ids4to7"), m=sample("m-ids4to7"), health="")
    told = tool(texts).telemetry(2, None, everybody)
    assert told.problems == ("health of NPU 6 chip 0 is Alarm, must be OK",)


def test_a_good_answer_does_not_overrule_an_alarm_in_the_table():
    texts = answers(6, info=sample("info-23.0.6-ids4to7"), m=sample("m-ids4to7"))
    told = tool(texts).telemetry(2, None, everybody)
    assert told.health == "Alarm"
    assert told.problems == (
        "health of NPU 6 chip 0 is Alarm, must be OK (-t health says OK, the table Alarm)",
    )


@pytest.mark.parametrize(
    ("table", "asked", "worst"),
    [
        ("OK", "OK", "OK"),
        ("OK", "Warning", "Warning"),
        ("Critical", "Alarm", "Critical"),
        ("Warning", "Alarm", "Alarm"),
        ("UNKNOWN", "OK", "UNKNOWN"),
        ("NA", "OK", "OK"),
        ("NA", "NA", None),
    ],
)
def test_the_worse_of_two_states_counts(table, asked, worst):
    info = sample("info-24.1.rc3").replace("| OK ", f"| {table} ")
    health = sample("t-health-ok").replace(": OK", f": {asked}")
    told = tool(answers(info=info, health=health)).telemetry(0, None, everybody)
    assert told.health == worst
    assert bool(told.problems) is (worst not in ("OK", None))


def test_an_error_code_beside_ok_is_a_warning():
    health = sample("t-health-ok").replace("Code                     : NA", "Code : 80E01801")
    told = tool(answers(health=health)).telemetry(0, None, everybody)
    assert (told.health, told.problems) == ("OK", ())
    assert told.warnings == ("NPU 0 chip 0 is OK, with the error code 80E01801",)


def test_only_this_cards_processes_count():
    texts = answers(4, info=sample("info-23.0.6-ids4to7"), m=sample("m-ids4to7"))
    busy = tool(texts).telemetry(0, None, everybody)
    assert busy.processes == ("process 1444272 (sglangschedul, 26264 MB)",)
    assert tool(texts).telemetry(1, None, everybody).processes == ()
    assert tool(texts).telemetry(0, None, lambda rows: ()).processes == ()


def test_what_the_table_lacks_is_asked_for():
    cut = "\n".join(sample("info-24.1.rc3").splitlines()[:7])
    texts = answers(info=cut, common=sample("t-common-mcu"), usages=sample("t-usages"))
    told = tool(texts).telemetry(0, None, everybody)
    assert (told.temperature_c, told.power_w) == (52, 92.1)  # the first line was there
    assert told.memory_total_mib == 65536
    assert told.memory_used_mib == round(65536 * 0.91)
    assert told.utilization_percent == 6


def test_the_second_die_has_no_power_and_that_is_said():
    texts = answers(0, 1, info=sample("info-26.0.rc2-a3"), m=sample("m-a3-phyid"))
    told = tool(texts).telemetry(1, None, everybody)
    assert told.power_w is None
    assert told.temperature_c == 34
    assert told.reason == "npu-smi shows no power of NPU 0 chip 1"


def test_a_chip_that_the_table_does_not_show_is_asked_by_query():
    texts = answers(7, m=sample("m-ids4to7"), common=sample("t-common-mcu"))
    told = tool(texts).telemetry(3, None, everybody)
    assert told.name is None
    assert (told.temperature_c, told.power_w, told.memory_used_mib) == (46, 130.4, None)
    assert "shows no HBM use, HBM size of NPU 7" in told.reason


def test_a_query_without_the_chip_option_is_tried():
    texts = answers()
    texts["info -t ecc -i 0"] = texts.pop("info -t ecc -i 0 -c 0")
    assert tool(texts).telemetry(0, None, everybody).ecc


def test_counters_that_nobody_told_are_missing_with_a_reason():
    told = tool(answers(ecc="This device does not support querying ecc.\n")).telemetry(
        0, None, everybody
    )
    assert told.ecc == {}
    assert told.reason == "npu-smi shows no ECC counters of NPU 0 chip 0"


@pytest.mark.parametrize("name", ["info-device-used", "info-no-driver"])
def test_a_tool_that_fails_reads_nothing(name):
    told = tool(answers(info=sample(name))).telemetry(0, None, everybody)
    assert (told.tool_present, told.mapped) == (True, False)
    assert told.problems == (f"npu-smi info failed: {sample(name).strip()}",)


def test_an_unknown_mapping_reads_nothing():
    told = tool(answers(m=sample("bad-id"))).telemetry(0, None, everybody)
    assert (told.mapped, told.health, told.ecc) == (False, None, {})
    assert told.reason == "Invalid card id."
    assert not tool(answers(m=sample("m-910b3"))).telemetry(9, None, everybody).mapped


def test_no_tool_is_said():
    told = npu_smi.Tool(lambda command: npu_smi.ToolAnswer(False, reason="no npu-smi")).telemetry(
        0, None, everybody
    )
    assert (told.tool_present, told.mapped, told.reason) == (False, False, "no npu-smi")


def test_the_board_says_which_card_it_is_and_is_asked_once():
    asked = []
    texts = answers()

    def ask(command):
        asked.append(command)
        return npu_smi.ToolAnswer(True, texts[" ".join(command[1:])], 0)

    probe = npu_smi.Tool(ask)
    chip, _ = probe.locate(0, None)
    for _ in range(2):
        board = probe.board(chip)
    assert board["Serial Number"] == "1023C7654321"
    assert board["VDie ID"].startswith("14036E64")
    assert len(asked) == 3


# --- whose process


def test_own_processes_are_not_strangers():
    mine = Process(0, 0, os.getpid(), "python")
    other = Process(0, 0, 1, "init")
    assert strangers((mine, other)) == (other,)


def test_a_container_pid_is_believed_before_the_hosts():
    row = Process(0, 0, 999999, "python", container_pid=os.getpid())
    assert strangers((row,)) == ()


def test_one_row_of_our_name_is_ours_where_only_host_pids_are_shown():
    rows = tuple(Process(0, 0, pid, name) for pid, name in ((1, "python3"), (2, "python3")))
    assert strangers(rows, related=lambda pid: None, name="python3.11") == rows[1:]
    assert strangers(rows, related=lambda pid: False, name="python3.11") == rows
    rows = (Process(0, 0, 1, "sglangschedul"), Process(0, 0, 2, ""))
    assert strangers(rows, related=lambda pid: None, name="python3.11") == rows


def test_children_are_kin(tmp_path):
    for pid, parent in ((1, 0), (10, 1), (11, 10), (12, 11)):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/stat").write_text(f"{pid} (a ) b) S {parent} 1 1")
    assert kin(12, own=10, root=tmp_path) is True
    assert kin(10, own=12, root=tmp_path) is False
    assert kin(77, own=10, root=tmp_path) is None
    (tmp_path / "proc/11/stat").unlink()
    assert kin(12, own=10, root=tmp_path) is False
    (tmp_path / "proc/11/stat").write_text("11 (loop) S 12")
    assert kin(12, own=10, root=tmp_path) is False


# --- running the tool


def script(folder, text):
    path = folder / "npu-smi"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_tool_on_path_is_run(tmp_path, monkeypatch):
    install(tmp_path / "bin", answers())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    told = npu_smi.Tool().telemetry(0, None, everybody)
    assert told.health == "OK"
    assert run_tool(("npu-smi", "info", "-t", "x", "-i", "99")).reason == "Invalid card id."


def test_a_missing_tool_is_said():
    answer = run_tool(("no-such-tool-here", "info"))
    assert (answer.found, answer.reason) == (False, "no-such-tool-here is not on PATH")


def test_a_tool_that_may_not_be_run_is_said(tmp_path):
    (tmp_path / "npu-smi").write_text("not a program")
    (tmp_path / "npu-smi").chmod(0o644)
    answer = run_tool((str(tmp_path / "npu-smi"),))
    assert not answer.found
    assert "cannot be run: Permission denied" in answer.reason


def test_a_hanging_tool_ends_with_its_children(tmp_path):
    path = script(tmp_path, f"echo half\nsleep 60 & echo $! > {tmp_path}/child\nsleep 60\n")
    started = time.monotonic()
    answer = run_tool((path, "info"), timeout=0.5)
    assert time.monotonic() - started < 10
    assert answer.reason == f"{path} info did not answer within 0.5 s"
    assert answer.text == "half\n"
    assert gone(int((tmp_path / "child").read_text()))


def gone(pid, seconds=5.0):
    """Whether a process ends soon; a killed one that nobody has reaped yet has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_output_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(npu_smi, "MAX_OUTPUT", 1000)
    path = script(tmp_path, "head -c 100000 /dev/zero | tr '\\0' x\n")
    assert len(run_tool((path,)).text) == 1000


def test_a_tool_that_hangs_reads_nothing(tmp_path, monkeypatch):
    path = script(tmp_path, "sleep 60\n")
    told = npu_smi.Tool(lambda command: run_tool((path, *command[1:]), 0.2)).telemetry(
        0, None, everybody
    )
    assert not told.mapped
    assert "did not answer within 0.2 s" in told.problems[0]


@pytest.mark.parametrize(
    "text",
    [
        "npu-smi: error while loading shared libraries: libdcmi.so: cannot open shared object",
        "This command cannot be executed on a VM or container.",
        "There is no NPU card on this server.",
        "Failed to execute npu-smi info. ret is -8008.",
    ],
)
def test_failure_texts(text):
    assert npu_smi.tool_failure(f"first\n{text}\nlast") == text


# --- versions


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("7.0.T10", "7.0.RC1"),
        ("7.0.RC1", "8.0.0"),
        ("8.2.RC1.alpha003", "8.2.RC1"),
        ("8.2.RC1", "8.2.RC2"),
        ("8.2.RC2", "8.3.RC1"),
        ("8.3.RC1", "8.5.0"),
        ("8.5.0", "8.5.1"),
        ("8.5.1", "9.0.0-beta.2"),
        ("9.0.0-beta.2", "9.0.0"),
        ("8.0.RC3", "8.0.RC3.SPC100"),
        ("8.5.0", "8.5.0.post1"),
    ],
)
def test_cann_versions_are_ordered(lower, higher):
    assert cann_version(lower) < cann_version(higher)
    assert cann_version(lower.lower()) == cann_version(f"V{lower}")


def test_a_word_is_no_version():
    assert cann_version("latest") is None
    assert cann_version(" 8.5.1 \n") == cann_version("8.5.1")
    assert cann_version("8.5") == cann_version("8.5.0")


def test_version_files_as_recorded(tmp_path):
    files = {path.stem: parse_version_file(path.read_text()) for path in DATA.glob("versions/*")}
    assert files["driver-23.0.7"]["Version"] == "23.0.7"
    assert files["driver-23.0.7"]["compatible_version_fw"] == "[7.0.0,7.1.99]"
    assert files["firmware-7.1.0.11.220"]["Version"] == "7.1.0.11.220"
    assert files["toolkit-7.0.T10"]["version"] == "7.0.T10"
    assert npu_smi.read_version_file(tmp_path / "none") == {}


def test_driver_and_firmware_versions_of_a_host(tmp_path):
    root = tree(tmp_path)
    assert package_version("driver", root) == "23.0.7"
    assert package_version("firmware", root) == "7.1.0.11.220"
    assert package_version("driver", tmp_path / "elsewhere") is None


def test_a_driver_in_another_place_is_found(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ascend_install.info").write_text("Driver_Install_Path_Param=/opt/huawei\n")
    (tmp_path / "opt/huawei/driver").mkdir(parents=True)
    (tmp_path / "opt/huawei/driver/version.info").write_text("Version=24.1.0\n")
    assert package_version("driver", tmp_path) == "24.1.0"


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("usr/local/Ascend/cann/aarch64-linux/ascend_toolkit_install.info", "version=8.5.1"),
        (
            "usr/local/Ascend/ascend-toolkit/latest/x86_64-linux/ascend_toolkit_install.info",
            "version=8.3.RC1",
        ),
        ("usr/local/Ascend/cann/share/info/toolkit/version.info", "Version=9.0.0-beta.2"),
        ("opt/cann-8.5.1/x86_64-linux/ascend_toolkit_install.info", "version=8.5.1"),
        ("home/me/Ascend/cann/aarch64-linux/ascend_toolkit_install.info", "version=8.5.2"),
    ],
)
def test_a_toolkit_is_found_where_it_may_be(tmp_path, place, text):
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(text)
    (tmp_path / "etc/Ascend").mkdir(parents=True)
    (tmp_path / "etc/Ascend/ascend_cann_install.info").write_text("path=/opt/cann-8.5.1\n")
    environ = {"HOME": str(tmp_path / "home/me")}
    assert toolkit_version(tmp_path, environ) == text.partition("=")[2]
    assert toolkit_version(tmp_path / "empty", {}) is None


def test_the_sourced_toolkit_comes_first(tmp_path):
    root = tree(tmp_path, toolkit="8.5.1")
    other = tmp_path / "other/aarch64-linux"
    other.mkdir(parents=True)
    (other / "ascend_toolkit_install.info").write_text("version=9.0.0\n")
    environ = {"ASCEND_HOME_PATH": str(tmp_path / "other")}
    assert toolkit_version(root, environ) == "9.0.0"
    assert toolkit_version(root, {}) == "8.5.1"

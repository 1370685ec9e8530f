"""Each row of the table of environment checks: what passes, what fails and what is not judged."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.core import environment as module
from fixtures.core import import_probe
from fixtures.core.backends.base import Backend, Device, Telemetry
from fixtures.core.backends.cpu import CpuBackend
from fixtures.core.backends.npu import NpuBackend
from fixtures.core.environment import (
    AFTERWARDS,
    CHECKS,
    Environment,
    Host,
    ImportProbe,
    Probe,
    classify,
    collect,
    document_block,
)
from fixtures.core.npu_smi import Limit
from fixtures.core.records import DeviceIdentity, Measured, Status
from fixtures.core.stack import PACKAGES, PLUGINS, public, release, satisfies
from selftest.ascend_host import answers, sample, tool

ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30
MODULES = ("numpy", "torch", "torch_npu", "torchvision", "PIL", "timm")


def everybody(rows):
    return rows


def healthy(**changed) -> Telemetry:
    texts = answers()
    return replace(tool(texts).telemetry(0, None, everybody), **changed)


QUALIFIED = {name: package.qualified[0] for name, package in PACKAGES.items()}


def npu_host(**changed) -> Environment:
    """The adaptation document's host, in order."""
    values = dict(
        backend="npu",
        is_accelerator=True,
        plugin="torch_npu",
        python="3.11.10",
        platform="Linux",
        versions=QUALIFIED
        | {
            "torch": "2.9.0+cpu",
            "torch_npu": "2.9.0.post1+gitee7ba04",
            "toolkit": "8.5.1",
            "driver": "24.1.rc3",
            "firmware": "7.5.0.5.220",
            "npu-smi": "24.1.rc3",
        },
        host=Host("Kunpeng-920", 24, 64 * GIB, 0.5),
        device_name="Ascend910B4",
        device_count=1,
        device_memory_bytes=29 * GIB,
        identity=DeviceIdentity("npu", "Ascend910B4", 0, 0, "0000:C1:00.0", "1023C", "1403"),
        telemetry=healthy(),
        recommended_variables=("ASCEND_RT_VISIBLE_DEVICES",),
        harmful_variables=("ASCEND_LAUNCH_BLOCKING",),
        imports=tuple(ImportProbe(name, "ok", "1", seconds=0.1) for name in MODULES),
        requirements={"torchvision": "torch (==2.9.0)", "torch_npu": "torch==2.9.0+cpu"},
        tools={"npu-smi": True},
        memory_band=NpuBackend().memory_band("Ascend910B4"),
        document_card="Ascend910B4",
    )
    return Environment(**{**values, **changed})


def cpu_host(**changed) -> Environment:
    """A rehearsal's host."""
    return npu_host(
        **{
            **dict(
                backend="cpu",
                is_accelerator=False,
                plugin=None,
                versions={**QUALIFIED, "torch": "2.9.0+cu128", "torch_npu": None},
                identity=DeviceIdentity("cpu", "AMD EPYC", 0),
                device_name="AMD EPYC",
                telemetry=None,
                recommended_variables=(),
                memory_band=None,
                document_card="",
                tools={"npu-smi": False},
            ),
            **changed,
        }
    )


def find(check_id, environment):
    return next(check for check in CHECKS if check.id == check_id)(environment)


# --- the table as a whole


def test_rows_have_ids_and_claims():
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9._-]+", name) for name in ids)
    assert all(check.claim for check in CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_the_documents_host_passes_everything(check):
    finding = check(npu_host())
    assert finding.verdict.status is Status.PASS, finding.reason
    assert finding.doubts == ()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_nothing_passes_on_a_host_that_tells_nothing(check):
    """Missing data on a backend that has the check is NOT RUN or FAIL, never PASS."""
    silent = npu_host(
        python="3.9.1",
        versions=dict.fromkeys(npu_host().versions),
        device_name="",
        device_count=0,
        device_memory_bytes=None,
        identity=DeviceIdentity("npu", "", 0),
        telemetry=Telemetry("npu-smi", False, mapped=False, reason="npu-smi is not on PATH"),
        variable_problems=("X=1 must not be set",),
        imports=(),
        requirements={},
    )
    if check.id == "variables-recommended":  # a doubt at worst
        return
    finding = check(silent)
    assert finding.verdict.status in (Status.FAIL, Status.NOT_RUN)
    assert finding.reason


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_the_cpu_has_no_card(check):
    finding = check(cpu_host())
    no_card = check.id.startswith(("accelerator-", "card-")) or check.id in (
        "version-plugin",
        "version-toolkit",
        "version-driver",
        "version-firmware",
        "pairing-plugin",
        "pairing-toolkit",
        "variables-recommended",
        "import-plugin",
    )
    assert finding.verdict.status is (Status.UNSUPPORTED if no_card else Status.PASS)
    assert bool(finding.reason) is no_card


# --- one fault, one row


def without_key(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


VERSIONS = npu_host().versions


@pytest.mark.parametrize(
    ("check_id", "changed", "status", "words"),
    [
        ("version-python", {"python": "3.9.18"}, Status.FAIL, "must be at least 3.10"),
        (
            "version-torch",
            {"versions": {**VERSIONS, "torch": None}},
            Status.FAIL,
            "torch is not installed, must be 2.9.0",
        ),
        (
            "version-timm",
            {"versions": {**VERSIONS, "timm": "1.0.3"}},
            Status.FAIL,
            "timm is 1.0.3, must be at least 1.0.27; qualified is 1.0.27",
        ),
        (
            "version-plugin",
            {"versions": {**VERSIONS, "torch_npu": "2.8.0"}},
            Status.FAIL,
            "torch_npu is 2.8.0, must be at least 2.9.0",
        ),
        ("version-plugin", {"plugin": "torch_other"}, Status.UNSUPPORTED, "no version of"),
        (
            "pairing-torchvision",
            {"requirements": {"torchvision": "torch==2.13.0"}},
            Status.FAIL,
            "torch is 2.9.0+cpu, must be torch==2.13.0 for torchvision 0.24.0",
        ),
        (
            "pairing-plugin",
            {"versions": {**VERSIONS, "torch": "2.10.0"}},
            Status.FAIL,
            "torch is 2.10.0, must be torch==2.9.0+cpu",
        ),
        (
            "pairing-plugin",
            {"versions": {**VERSIONS, "torch": "2.10.0"}, "requirements": {}},
            Status.FAIL,
            "torch is 2.10.0, must be a torch 2.9.0 for torch_npu",
        ),
        (
            "pairing-plugin",
            {"versions": {**VERSIONS, "torch": None}},
            Status.NOT_RUN,
            "torch is not installed",
        ),
        (
            "pairing-toolkit",
            {"versions": {**VERSIONS, "toolkit": "9.0.0"}},
            Status.FAIL,
            "CANN is 9.0.0, must be 8.5.x for torch_npu 2.9.0.post1+gitee7ba04",
        ),
        (
            "pairing-toolkit",
            {"versions": {**VERSIONS, "torch_npu": "2.9.0.post2", "toolkit": "8.5.1"}},
            Status.FAIL,
            "must be 9.0.x for torch_npu 2.9.0.post2",
        ),
        (
            "pairing-toolkit",
            {"versions": {**VERSIONS, "toolkit": None}},
            Status.NOT_RUN,
            "the version of CANN is not known",
        ),
        (
            "version-driver",
            {"versions": {**VERSIONS, "driver": None}},
            Status.NOT_RUN,
            "the driver version is not known",
        ),
        (
            "version-toolkit",
            {"versions": without_key(VERSIONS, "toolkit")},
            Status.UNSUPPORTED,
            "no toolkit version to read",
        ),
        ("accelerator-available", {"device_count": 0}, Status.FAIL, "torch sees no npu device"),
        (
            "accelerator-count",
            {"identity": DeviceIdentity("npu", "x", 3)},
            Status.FAIL,
            "device count is 1, must be > 3",
        ),
        ("accelerator-name", {"device_name": ""}, Status.FAIL, "no name"),
        (
            "accelerator-name",
            {"telemetry": healthy(name="910B3")},
            Status.FAIL,
            "device name is Ascend910B4, but npu-smi calls this card 910B3",
        ),
        (
            "accelerator-name",
            {"device_name": "Ascend910B4-1"},
            Status.FAIL,
            "device name is Ascend910B4-1, but npu-smi calls this card 910B4",
        ),
        (
            "accelerator-name",
            {"telemetry": healthy(name="Ascend910")},
            Status.FAIL,
            "device name is Ascend910B4, but npu-smi calls this card Ascend910",
        ),
        (
            "accelerator-memory",
            {"device_memory_bytes": 20 * GIB},
            Status.FAIL,
            "device memory is 20.00 GiB, must be between 27.25 and 32.00 GiB for Ascend910B4",
        ),
        ("accelerator-memory", {"device_memory_bytes": None}, Status.NOT_RUN, "does not tell"),
        (
            "card-identity",
            {"identity": DeviceIdentity("npu", "x", 0, npu_id=4)},
            Status.NOT_RUN,
            "which card this is is not known",
        ),
        (
            "card-tool",
            {"telemetry": Telemetry("npu-smi", False, mapped=False)},
            Status.FAIL,
            "npu-smi is not on PATH, must be there",
        ),
        (
            "card-tool",
            {"telemetry": Telemetry("npu-smi", True, mapped=False, problems=("it failed",))},
            Status.FAIL,
            "it failed",
        ),
        (
            "card-health",
            {"telemetry": Telemetry("npu-smi", True, mapped=False)},
            Status.NOT_RUN,
            "which card torch's index stands for is not known",
        ),
        (
            "card-health",
            {"telemetry": healthy(health="Alarm", problems=("health is Alarm, must be OK",))},
            Status.FAIL,
            "health is Alarm, must be OK",
        ),
        (
            "card-health",
            {"telemetry": healthy(health=None, reason="npu-smi shows no health")},
            Status.NOT_RUN,
            "npu-smi shows no health",
        ),
        (
            "card-health",
            {"telemetry": healthy(health=None)},
            Status.UNSUPPORTED,
            "npu-smi tells no health of this card",
        ),
        (
            "card-temperature",
            {"telemetry": healthy(temperature_c=90)},
            Status.FAIL,
            "card temperature c is 90 C, must be < 90 C (npu-smi)",
        ),
        ("card-temperature", {"telemetry": healthy(temperature_c=89)}, Status.PASS, ""),
        ("card-power", {"telemetry": healthy(power_w=0.0)}, Status.FAIL, "must be > 0"),
        ("card-power", {"telemetry": healthy(power_w=None, reason="-")}, Status.NOT_RUN, "-"),
        (
            "card-memory",
            {"telemetry": healthy(memory_total_mib=30720)},
            Status.FAIL,
            "card memory share is 0.9375, must be >= 0.95 (npu-smi)",
        ),
        (
            "card-memory",
            {"telemetry": healthy(memory_total_mib=None, reason="cut")},
            Status.NOT_RUN,
            "cut",
        ),
        ("card-memory", {"telemetry": healthy(name="310P3")}, Status.PASS, ""),
        (
            "card-ecc",
            {"telemetry": healthy(ecc={"HBM Double Bit Error Count": 2, "HBM Single Bit": 7})},
            Status.FAIL,
            "card ecc uncorrectable is 2, must be <= 0 (npu-smi); HBM Double Bit Error Count is 2",
        ),
        (
            "card-ecc",
            {"telemetry": healthy(ecc={"HBM Single Bit Error Count": 7})},
            Status.NOT_RUN,
            "npu-smi shows no double-bit counter",
        ),
        (
            "card-ecc",
            {"telemetry": healthy(ecc={"HBM Double Bit Isolated Pages Count": 0})},
            Status.NOT_RUN,
            "npu-smi shows no double-bit counter",
        ),
        (
            "card-ecc",
            {"telemetry": healthy(ecc={"HBM Double Bit Isolated Pages Count": 1})},
            Status.FAIL,
            "HBM Double Bit Isolated Pages Count is 1",
        ),
        ("card-ecc", {"telemetry": healthy(ecc={}, reason="none")}, Status.NOT_RUN, "none"),
        (
            "card-busy",
            {"telemetry": healthy(memory_used_mib=None, reason="cut")},
            Status.NOT_RUN,
            "cut",
        ),
        ("card-busy", {"telemetry": healthy(memory_used_mib=None)}, Status.PASS, ""),
        (
            "variables-harmful",
            {"variable_problems": ("A=1 must not be set: x", "B=1 must not be set: y")},
            Status.FAIL,
            "A=1 must not be set: x; B=1 must not be set: y",
        ),
        ("variables-harmful", {"harmful_variables": ()}, Status.UNSUPPORTED, "no variables"),
        (
            "import-timm",
            {
                "imports": (
                    ImportProbe("timm", "ABI clash", None, "timm was built for others", 0.1),
                )
            },
            Status.FAIL,
            "ABI clash: timm was built for others",
        ),
        (
            "import-timm",
            {"imports": (ImportProbe("timm", "not tried", None, "it was killed"),)},
            Status.NOT_RUN,
            "it was killed",
        ),
        (
            "import-plugin",
            {"imports": (ImportProbe("torch_npu", "no device", "2.9.0", "sees no device", 1.0),)},
            Status.FAIL,
            "no device: sees no device",
        ),
    ],
)
def test_a_fault_is_seen_and_said(check_id, changed, status, words):
    finding = find(check_id, npu_host(**changed))
    assert finding.verdict.status is status
    assert words in finding.reason


@pytest.mark.parametrize(
    ("check_id", "changed", "words"),
    [
        ("version-python", {"python": "3.14.0"}, "newer than 3.13"),
        (
            "version-torch",
            {"versions": {**VERSIONS, "torch": "2.10.0+cpu"}},
            "torch is 2.10.0+cpu, not the qualified 2.9.0",
        ),
        (
            "version-plugin",
            {"versions": {**VERSIONS, "torch_npu": "2.9.0.post2"}},
            "not the qualified 2.9.0 or 2.9.0.post1",
        ),
        (
            "pairing-plugin",
            {"versions": {**VERSIONS, "torch": "2.9.0+cu128"}},
            "asks for torch==2.9.0+cpu, torch is 2.9.0+cu128",
        ),
        ("pairing-torchvision", {"requirements": {}}, "does not say which torch"),
        (
            "pairing-toolkit",
            {"versions": {**VERSIONS, "torch_npu": "2.13.0"}},
            "no CANN release is listed for torch_npu 2.13.0",
        ),
        (
            "pairing-toolkit",
            {"versions": {**VERSIONS, "toolkit": "latest"}},
            "CANN calls itself latest",
        ),
        (
            "accelerator-name",
            {"device_name": "Ascend910B4-1", "telemetry": healthy(name="910B4-1")},
            "the device is Ascend910B4-1; the adaptation document's figures are from Ascend910B4",
        ),
        ("card-tool", {"telemetry": healthy(warnings=("[WARNING]The driver",))}, "[WARNING]"),
        (
            "card-busy",
            {"telemetry": healthy(processes=("process 7 (train, 60970 MB)",))},
            "the card is not idle: process 7 (train, 60970 MB)",
        ),
        (
            "card-busy",
            {"telemetry": healthy(memory_used_mib=29096)},
            "card memory foreign mib is 29096 MiB, must be <= 6800 MiB",
        ),
        (
            "card-neighbours",
            {"telemetry": healthy(neighbours=("NPU 6 chip 0 says Alarm",))},
            "NPU 6 chip 0 says Alarm",
        ),
        ("variables-recommended", {"variable_doubts": ("X is not set",)}, "X is not set"),
    ],
)
def test_a_deviation_is_a_doubt_and_passes(check_id, changed, words):
    finding = find(check_id, npu_host(**changed))
    assert finding.verdict.status is Status.PASS
    assert len(finding.doubts) == 1
    assert words in finding.doubts[0]


def test_a_neighbours_alarm_fails_nothing():
    texts = answers(5, info=sample("info-23.0.6-ids4to7"), m=sample("m-ids4to7"))
    told = tool(texts).telemetry(1, None, everybody)
    for check in CHECKS:
        assert check(npu_host(telemetry=told)).verdict, check.id


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ("Ascend 910B4", "Ascend910B4"),
        ("910b4-1", "Ascend910B4-1"),
        ("Ascend910", "Ascend910_9392"),
        ("NVIDIA H200", "NVIDIA H200 MIG 1g.18gb"),
    ],
)
def test_one_card_may_be_written_in_two_ways(shown, name):
    environment = npu_host(device_name=name, telemetry=healthy(name=shown))
    assert find("accelerator-name", environment).verdict


@pytest.mark.parametrize("fault", ["cut", "NA"])
def test_ecc_without_its_double_bit_lines_is_not_judged(fault):
    lines = sample("t-ecc").splitlines()
    if fault == "cut":
        lines = lines[:2]
    else:
        lines = [re.sub(r": 0$", ": NA", line) if "Double" in line else line for line in lines]
    told = tool(answers(ecc="\n".join(lines))).telemetry(0, None, everybody)
    assert told.ecc, "sanity check: the other counters are there"
    finding = find("card-ecc", npu_host(telemetry=told))
    assert finding.verdict.status is Status.NOT_RUN
    assert finding.reason == "npu-smi shows no double-bit counter"


def test_an_error_code_beside_ok_is_a_doubt():
    health = sample("t-health-ok").replace("Code                     : NA", "Code : 80E01801")
    told = tool(answers(health=health)).telemetry(0, None, everybody)
    finding = find("card-tool", npu_host(telemetry=told))
    assert finding.verdict
    assert "80E01801" in finding.doubts[0]


def test_own_tensors_are_not_another_job():
    told = healthy(memory_used_mib=9000)
    assert find("card-busy", npu_host(telemetry=told)).doubts
    assert not find("card-busy", npu_host(telemetry=told, reserved_bytes=4 * GIB)).doubts


@pytest.mark.parametrize("local", ["", "+cpu", "+gitee7ba04", "+git4c901a4"])
@pytest.mark.parametrize("version", ["2.9.0", "2.9.0.post1"])
def test_the_qualified_plug_in_has_any_local_suffix(version, local):
    versions = {**VERSIONS, "torch_npu": version + local}
    for check_id in ("version-plugin", "pairing-plugin", "pairing-toolkit"):
        finding = find(check_id, npu_host(versions=versions))
        assert finding.verdict
        assert finding.doubts == ()


def test_power_and_firmware_only_inform():
    assert {check.id for check in CHECKS if not check.required} == {
        "version-firmware",
        "card-power",
        "card-neighbours",
    }


# --- the card again, when the work is done


def again(row_id, told, **before):
    """Judge a second reading beside the first."""
    return next(row for row in AFTERWARDS if row.id == row_id)(npu_host(**before), told)


COUNTED = {**dict.fromkeys(healthy().ecc, 0), "HBM Single Bit Error Count": 3}


@pytest.mark.parametrize("row", AFTERWARDS, ids=lambda row: row.id)
def test_a_card_that_is_as_it_was_passes(row):
    assert re.fullmatch("[a-z0-9.-]+", row.id)
    assert row.claim
    finding = row(npu_host(), healthy())
    assert finding.verdict.status is Status.PASS, finding.reason
    assert finding.doubts == ()


@pytest.mark.parametrize("row", AFTERWARDS, ids=lambda row: row.id)
def test_afterwards_nothing_is_judged_where_nothing_tells(row):
    assert row(cpu_host(), None).verdict.status is Status.UNSUPPORTED
    lost = Telemetry("npu-smi", True, mapped=False, reason="which card it is cannot be told")
    finding = row(npu_host(telemetry=lost), lost)
    wanted = Status.PASS if row.id == "card-tool" else Status.NOT_RUN
    assert finding.verdict.status is wanted


GONE = Telemetry("npu-smi", False, mapped=False, reason="npu-smi is not on PATH")
UNMAPPED = Telemetry("npu-smi", True, mapped=False, reason="no chip has logic ID 0")
ALARM = healthy(health="Alarm", problems=("health of NPU 0 chip 0 is Alarm, must be OK",))
TWO = {**healthy().ecc, "HBM Double Bit Error Count": 2}


@pytest.mark.parametrize(
    ("row_id", "told", "status", "words"),
    [
        ("card-tool", GONE, Status.FAIL, "npu-smi is not on PATH, must be there"),
        ("card-tool", UNMAPPED, Status.FAIL, "no longer shows this card (no chip has logic ID 0)"),
        ("card-tool", healthy(name=None), Status.FAIL, "npu-smi no longer shows this card"),
        ("card-health", ALARM, Status.FAIL, "is Alarm, must be OK"),
        ("card-health", UNMAPPED, Status.NOT_RUN, "no chip has logic ID 0"),
        ("card-health", healthy(health=None, reason="silent"), Status.NOT_RUN, "silent"),
        ("card-temperature", healthy(temperature_c=91.0), Status.FAIL, "must be < 90 C"),
        ("card-ecc", healthy(ecc=TWO), Status.FAIL, "card ecc uncorrectable is 2, must be <= 0"),
        (
            "card-ecc",
            healthy(ecc=TWO, limits=()),
            Status.FAIL,
            "HBM Double Bit Error Count rose from 0 to 2 during the run",
        ),
        ("card-ecc", healthy(ecc={}, reason="silent"), Status.NOT_RUN, "silent"),
    ],
)
def test_what_the_work_did_to_the_card_is_seen_and_said(row_id, told, status, words):
    finding = again(row_id, told)
    assert finding.verdict.status is status
    assert words in finding.reason


@pytest.mark.parametrize(
    ("told", "before", "words"),
    [
        (
            {"ecc": {**COUNTED, "HBM Single Bit Error Count": 7}},
            {"telemetry": healthy(ecc=COUNTED)},
            "HBM Single Bit Error Count rose from 3 to 7 during the run",
        ),
        (
            {"ecc": {**COUNTED, "HBM Single Bit Error Count": 0}},
            {"telemetry": healthy(ecc=COUNTED)},
            "HBM Single Bit Error Count fell from 3 to 0: what the run added is unknown",
        ),
        ({}, {"telemetry": healthy(ecc={})}, "what was counted before the run is not known"),
    ],
)
def test_a_counter_of_corrected_errors_that_moved_is_a_doubt(told, before, words):
    finding = again("card-ecc", healthy(**told), **before)
    assert finding.verdict
    assert finding.doubts == (words,)


def test_only_what_is_new_is_a_doubt_afterwards():
    was = healthy(warnings=("[WARNING]old",), neighbours=("NPU 6 chip 0 says Alarm",))
    now = healthy(warnings=("[WARNING]old", "[WARNING]new"), neighbours=was.neighbours)
    finding = again("card-tool", now, telemetry=was)
    assert finding.verdict
    assert finding.doubts == ("new since the run began: [WARNING]new",)


# --- the qualified stack


def test_the_constraints_are_the_qualified_stack():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().split()
        if re.fullmatch(r"[\w-]+==[\w.]+", line)
    )
    for name, package in PACKAGES.items():
        assert pins[name] == package.qualified[0]
        assert release(package.least) <= release(package.qualified[0])
    plugin = PLUGINS["torch_npu"]
    assert f"torch-npu=={plugin.qualified[0]}" in (ROOT / "requirements-ascend.txt").read_text()


@pytest.mark.parametrize(
    ("version", "requirement", "answer"),
    [
        ("2.9.0+cu128", "torch (==2.9.0)", True),
        ("2.9.0", "torch==2.9.0+cpu", True),
        ("2.9.1", "torch==2.9.0", False),
        ("2.13.1", "torch==2.13.0.*", False),
        ("2.13.0+cpu", "torch==2.13.0.*", True),
        ("2.9.0", "torch>=2.0", None),
        ("2.9.0", "", None),
    ],
)
def test_requirements_on_torch(version, requirement, answer):
    assert satisfies(version, requirement) is answer


def test_versions_are_cut():
    assert public("2.9.0.post1+gitee7ba04") == "2.9.0.post1"
    assert release("2.9.0.post1+cpu") == (2, 9, 0)
    assert release("3.11") == (3, 11, 0)
    assert release("unknown") == (0, 0, 0)


# --- the import probe


class Answering(Backend):
    """A backend with a plug-in of the test's choice."""

    name = "fake"
    is_accelerator = False

    def __init__(self, plugin=None, **extra):
        self.plugin = plugin
        self.early_environment = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", **extra}


def probe_with(tmp_path, monkeypatch, torch="__version__ = '9'", plugin=None, timeout=30.0):
    """Probe a set of empty packages in place of the real ones."""
    for name in ("numpy", "torchvision", "PIL", "timm"):
        (tmp_path / f"{name}.py").write_text("__version__ = '1.2.3'\n")
    (tmp_path / "torch.py").write_text(torch)
    if plugin is not None:
        (tmp_path / "torch_fake.py").write_text(plugin)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    backend = Answering("torch_fake" if plugin is not None else None)
    return Probe(backend).result(timeout)


def outcomes(probes):
    return {probe.module: probe.outcome for probe in probes}


def test_every_package_is_imported_in_a_fresh_process(tmp_path, monkeypatch):
    probes = probe_with(tmp_path, monkeypatch)
    assert outcomes(probes) == dict.fromkeys(("numpy", "torch", "torchvision", "PIL", "timm"), "ok")
    assert {probe.version for probe in probes} == {"9", "1.2.3"}
    assert all(probe.seconds >= 0 for probe in probes)


def test_the_autoload_is_off_in_the_probe(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    source = "import os\nassert os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] == '0'\n"
    assert outcomes(probe_with(tmp_path, monkeypatch, torch=source))["torch"] == "ok"


def test_a_package_that_fails_is_classified_and_the_rest_go_on(tmp_path, monkeypatch):
    source = "raise RuntimeError('operator torchvision::nms does not exist')"
    probes = probe_with(tmp_path, monkeypatch, plugin=source)
    assert outcomes(probes)["torch_fake"] == "ABI clash"
    assert outcomes(probes)["timm"] == "ok"


def test_causes_are_told(tmp_path, monkeypatch):
    source = "try:\n    1 / 0\nexcept Exception as e:\n    raise ImportError('outer') from e\n"
    probes = probe_with(tmp_path, monkeypatch, plugin=source)
    assert "outer; division by zero" in probes[2].sentence


def test_a_package_that_kills_the_process_is_named(tmp_path, monkeypatch):
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    probes = probe_with(tmp_path, monkeypatch, plugin=source)
    assert outcomes(probes) == {
        "numpy": "ok",
        "torch": "ok",
        "torch_fake": "broken",
        "torchvision": "not tried",
        "PIL": "not tried",
        "timm": "not tried",
    }
    assert "torch_fake was killed by signal 11" in probes[2].sentence


def test_a_package_that_hangs_is_named(tmp_path, monkeypatch):
    probes = probe_with(tmp_path, monkeypatch, plugin="import time\ntime.sleep(60)\n", timeout=1.0)
    assert outcomes(probes)["torch_fake"] == "broken"
    assert "did not end within 1 s" in probes[2].sentence


def test_a_plug_in_that_sees_no_device_is_named(tmp_path, monkeypatch):
    namespace = "import types, torch\ntorch.fake = types.SimpleNamespace(device_count=lambda: {})\n"
    probes = probe_with(tmp_path, monkeypatch, plugin=namespace.format(0))
    assert outcomes(probes)["torch_fake"] == "no device"
    probes = probe_with(tmp_path, monkeypatch, plugin=namespace.format(1))
    assert outcomes(probes)["torch_fake"] == "ok"


def test_half_an_answer_counts_for_nothing(tmp_path):
    probe = Probe(Answering())
    probe.end()
    probe._answers.write_text(
        '{"module": "numpy", "error": null, "version": "1", "seconds": 1}\n{"m'
    )
    assert outcomes(probe.result())["numpy"] == "ok"
    assert outcomes(classify(Answering(), ("numpy",), [], "x")) == {"numpy": "broken"}


def test_the_probe_in_this_process(tmp_path):
    answers_file = tmp_path / "answers"
    import_probe.main(answers_file, "none", ["json", "no_such_module_here"])
    lines = [json.loads(line) for line in answers_file.read_text().splitlines()]
    assert [line.get("error", "-") for line in lines] == [None, "ModuleNotFoundError", "-"]
    assert lines[2] == {"devices": 0}
    import_probe.main(answers_file, "", ["json"])
    assert len(answers_file.read_text().splitlines()) == 4


# --- collecting


@pytest.fixture
def quick(monkeypatch):
    """Collect without starting a process."""

    class Ready:
        def __init__(self, backend):
            self.ended = False

        def result(self, timeout):
            return (ImportProbe("torch", "ok", "2.9.0+cpu", seconds=0.1),)

        def end(self):
            self.ended = True

    monkeypatch.setattr(module, "Probe", Ready)
    return Ready


def test_the_environment_of_this_host():
    """The real thing, with the real packages in a real process."""
    found = collect(CpuBackend().open(0))
    assert isinstance(found, Measured)
    assert outcomes(found.imports) == dict.fromkeys(
        ("numpy", "torch", "torchvision", "PIL", "timm"), "ok"
    )
    assert found.versions["torch"] == __import__("torch").__version__
    assert found.requirements["torchvision"].startswith("torch")
    assert found.host.cores >= 1
    for check in CHECKS:
        assert check(found).verdict.status in (Status.PASS, Status.UNSUPPORTED), check.id
    values = found.as_json()
    assert json.loads(json.dumps(values)) == values
    figures = {figure.name: figure for figure in found.figures()}
    assert figures["device_count"].value == 1
    assert figures["card_power_w"].reason == "the backend has no tool that tells"


def test_the_environment_of_an_ascend_host(quick, monkeypatch):
    monkeypatch.setenv("ASCEND_LAUNCH_BLOCKING", "1")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror.example/x")
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    import torch

    namespace = SimpleNamespace(
        device_count=lambda: 1,
        get_device_name=lambda index: "Ascend910B4",
        get_device_properties=lambda index: SimpleNamespace(total_memory=29 * GIB),
        memory_reserved=lambda index: 1 << 20,
    )
    monkeypatch.setattr(torch, "npu", namespace, raising=False)
    monkeypatch.setattr(torch, "get_device_module", lambda name: namespace)
    backend = NpuBackend()
    backend.tool = tool(answers())
    found = collect(Device(backend, 0))
    assert found.identity.serial == "1023C7654321"
    assert found.telemetry.health == "OK"
    assert found.versions["torch"] == "2.9.0+cpu"
    assert found.versions["driver"]
    assert found.reserved_bytes == 1 << 20
    assert found.memory_band == backend.memory_band("Ascend910B4")
    assert "ASCEND_LAUNCH_BLOCKING=1 must not be set" in found.variable_problems[0]
    assert found.variables["HF_ENDPOINT"] == "https://***@mirror.example/x"
    assert "ONEDNN_DEFAULT_FPMATH_MODE" in found.harmful_variables
    figures = {figure.name: figure for figure in found.figures()}
    assert figures["card_power_w"].value == 92.1
    bare = replace(found, telemetry=replace(found.telemetry, power_w=None))
    assert {f.name: f for f in bare.figures()}["card_power_w"].reason == "npu-smi does not tell"


def test_versions_are_asked_of_the_device_under_test(quick, monkeypatch):
    backend, asked = CpuBackend(), []
    monkeypatch.setattr(backend, "versions", lambda index=0: asked.append(index) or {})
    collect(Device(backend, 1))
    assert asked == [1]


def test_a_probe_is_ended_when_collecting_fails(quick, monkeypatch):
    device = CpuBackend().open(0)
    probe = quick(None)
    monkeypatch.setattr(device.backend, "hardware", lambda: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        collect(device, probe)
    assert probe.ended


def test_a_host_without_affinity_counts_its_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(module, "memory_bytes", lambda: None)
    host = module.host()
    assert host.cores == (os.cpu_count() or 1)
    assert host.memory_bytes is None


def test_packages_that_are_not_there_have_no_version():
    assert module.installed("no-such-distribution-here") is None
    assert module._requirements(Answering("no_such_plugin_here")).keys() <= {"torchvision"}


# --- the document's block


def test_the_documents_block():
    """The text of the adaptation document, chapter 5, to the letter."""
    bar = "=" * 60
    assert document_block(npu_host(), True) == (
        f"{bar}\nEnvironment Check\n{bar}\n"
        "torch_version: 2.9.0+cpu\n"
        "torch_npu_version: 2.9.0.post1+gitee7ba04\n"
        "npu_available: True\n"
        "npu_count: 1\n"
        "timm_version: 1.0.27\n"
        "npu_smi: True\n"
        "[PASS] Environment check"
    )


def test_the_block_of_a_rehearsal_claims_no_npu():
    block = document_block(cpu_host(), False)
    for line in (
        "torch_npu_version: not installed",
        "npu_available: False",
        "npu_count: 0",
        "npu_smi: False",
        "[FAIL] Environment check",
    ):
        assert line in block.splitlines()


def test_the_block_can_be_made_from_a_stored_report():
    stored = json.loads(json.dumps(npu_host().as_json()))
    assert document_block(stored, True) == document_block(npu_host(), True)
    assert document_block({}, False).endswith("[FAIL] Environment check")


@pytest.mark.parametrize("word", ["PASS", "FAIL", "INCOMPLETE"])
def test_the_block_has_three_states(word):
    assert document_block(npu_host(), word).endswith(f"\n[{word}] Environment check")


def test_the_block_takes_no_other_word():
    with pytest.raises(ValueError, match="'passed', must be PASS, FAIL or INCOMPLETE"):
        document_block(npu_host(), "passed")


def test_limits_carry_their_source():
    for limit in healthy().limits:
        assert isinstance(limit, Limit)
        assert limit.source


def test_the_interpreter_is_this_one():
    assert find("version-python", npu_host(python=sys.version.split()[0])).verdict

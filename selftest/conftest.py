"""Runs the suite as a user would: another process, a copy of the repository, a report to read."""

from __future__ import annotations

import atexit
import compileall
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from selftest import warm

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--model", "test_convnext.r160_in1k", "--weights", "synthetic", "--device", "cpu")
"""The smallest network that has every operator of the subject: 0.3 M parameters at 160x160."""

BRIEF = """
import dataclasses
from fixtures.core import latency, pipeline, steady
brief = {
    "batch_warm_up": steady.Ceilings(least_s=0.1, most_calls=30, most_s=1.0),
    "block_s": 0.1,
    "throughput_s": 0.5,
}
for name, plan in latency.PLANS.items():
    latency.PLANS[name] = dataclasses.replace(plan, **brief)
pipeline.ROW_S = 0.2
"""
"""For tests/conftest.py: short blocks of throughput, for those who only ask that there are any."""

QUICK = f"""{BRIEF}
from fixtures.core import modes
latency.PLANS["full"] = latency.PLANS["quick"]
modes.LEAST_S = modes.MOST_S = 1.0
"""
"""The same with fewer samples of everything, for those who do not look at the times."""


@dataclass
class Outcome:
    """One run of the suite: exit code, what it printed, and where its reports are."""

    code: int
    out: str
    reports: Path

    @property
    def report(self) -> dict:
        """The JSON report at the top of reports/."""
        return json.loads((self.reports / "validation_report.json").read_text(encoding="utf-8"))

    @property
    def newest(self) -> Path:
        """The newest run's folder."""
        return sorted((self.reports / "runs").iterdir())[-1]

    def case(self, part: str) -> dict:
        """The one case whose id contains `part`."""
        found = [case for case in self.report["cases"] if part in case["id"]]
        assert len(found) == 1, (part, [case["id"] for case in self.report["cases"]])
        return found[0]


NO_BYTECODE = shutil.ignore_patterns("__pycache__")


@cache
def compiled() -> Path:
    """The package that the copies of the suite are made of, compiled once for all of them."""
    folder = Path(tempfile.mkdtemp(prefix="selftest-compiled-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(ROOT / "fixtures", folder / "fixtures", ignore=NO_BYTECODE)
    assert compileall.compile_dir(folder, quiet=1)
    return folder / "fixtures"


class Suite:
    """A copy of the repository, in which it may write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reports = root / "reports"
        shutil.copytree(compiled(), root / "fixtures")
        shutil.copytree(ROOT / "tests", root / "tests", ignore=NO_BYTECODE)
        for name in ("conftest.py", "pytest.ini"):
            shutil.copy(ROOT / name, root)

    def environment(self, **changes: str | None) -> dict[str, str]:
        """The environment of a run: warm.py's, and nothing of a hub's."""
        return warm.environment(**{"HF_HOME": str(self.root / "hf"), **changes})

    def start(
        self,
        *arguments: str,
        cwd: Path | None = None,
        cold: bool = False,
        **environment: str | None,
    ) -> warm.Fork | subprocess.Popen[str]:
        """Start `pytest *arguments`, output joined; `cold` if it must import everything itself."""
        begin = warm.cold if cold else warm.start
        command = ["-m", "pytest", *arguments]
        return begin(command, cwd or self.root, self.environment(**environment))

    def run(
        self,
        *arguments: str,
        cwd: Path | None = None,
        cold: bool = False,
        **environment: str | None,
    ) -> Outcome:
        """Run `pytest *arguments` to its end."""
        process = self.start(*arguments, cwd=cwd, cold=cold, **environment)
        out, _ = process.communicate(timeout=300)
        assert process.returncode is not None
        return Outcome(process.returncode, out, self.reports)


LONG = {"suite", "full_run"}
"""Who asks for one of these, or is marked as slow, runs for seconds rather than milliseconds."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those who share a run go to one worker; long ones first, so that both end together.

    pytest-xdist 3.8 tells its scheduler of a group by the end of an id, in a way that pytest 9.2
    does not take any more (pytest-xdist issue 1386).
    """
    for item in items:
        group = item.get_closest_marker("xdist_group")
        if group is not None and getattr(config.option, "loadgroup", False):
            end = f"@{group.args[0]}"
            if not item.nodeid.endswith(end):
                item._id = type(item.id).parse(item.nodeid + end)

    def long(item: pytest.Item) -> bool:
        return not LONG.isdisjoint(item.fixturenames) or bool(item.get_closest_marker("slow"))

    items.sort(key=long, reverse=True)


def pytest_unconfigure() -> None:
    """Let go what was kept for all runs."""
    warm.end()


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what became of each hardware fault (test_simulated_cards.py), under xdist as well."""
    planted, caught = {}, {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == "planted":
                    planted[value[0]] = value[1]
                elif key == "caught":
                    caught[value[0]] = value[1:]
    if not caught:
        return
    table = [
        {
            "fault": name,
            "planted": planted.get(name, "not measured in this run"),
            "case": case,
            "sentence": sentence,
            "verdict": verdict,
        }
        for name, (case, sentence, verdict) in sorted(caught.items())
    ]
    if os.environ.get("FAULTS_TABLE"):  # for selftest/proof.py
        Path(os.environ["FAULTS_TABLE"]).write_text(json.dumps(table))
    tell = terminalreporter.write_line
    terminalreporter.section("hardware faults on simulated cards")
    for row in table:
        tell(f"{row['fault']}: planted: {row['planted']}")
        words = f": {row['sentence']}" if row["sentence"] else ""
        tell(f"    {row['case']}; verdict {row['verdict']}{words}")


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """A fresh copy of the suite."""
    return Suite(tmp_path)


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One whole run on the small network, made once for all who look at its reports."""
    suite = Suite(tmp_path_factory.mktemp("full"))
    (suite.root / "tests/conftest.py").write_text(BRIEF)
    return suite.run(*SMALL, cold=True)

"""Runs the suite as a user would: another process, a copy of the repository, a report to read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--model", "test_convnext.r160_in1k", "--weights", "synthetic", "--device", "cpu")
"""The smallest network that has every operator of the subject: 0.3 M parameters at 160x160."""


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


class Suite:
    """A copy of the repository, in which it may write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reports = root / "reports"
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("fixtures", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=ignore)
        for name in ("conftest.py", "pytest.ini"):
            shutil.copy(ROOT / name, root)

    def environment(self, **changes: str | None) -> dict[str, str]:
        """The environment of a run: no hub, no leftovers of this process."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "ASCEND", "HF_", "SIMULATED_"))
        }
        kept |= {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.root / "hf"),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",  # two runs at a time on two cores must not fight over them
        }
        for name, value in changes.items():
            kept.pop(name, None)
            if value is not None:
                kept[name] = value
        return kept

    def start(self, *arguments: str, cwd: Path | None = None, **environment: str | None):
        """Start `pytest *arguments`, output joined."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=cwd or self.root,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, cwd: Path | None = None, **environment: str | None) -> Outcome:
        """Run `pytest *arguments` to its end."""
        process = self.start(*arguments, cwd=cwd, **environment)
        out, _ = process.communicate(timeout=300)
        return Outcome(process.returncode, out, self.reports)


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
    return Suite(tmp_path_factory.mktemp("full")).run(*SMALL)

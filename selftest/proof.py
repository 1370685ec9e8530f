"""What is exhaustive: named proofs, outside CI, each a table under proof/.

Run: python -m selftest.proof [NAME ...] [--again NAME] [--list]

A proof whose table was made by this very code is not made again, so that a run that was interrupted
goes on where it stopped. A proof that does not hold leaves no table, and the exit code says so.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fixtures.core.backends.cpu import model_name
from fixtures.core.clock import PURPOSES
from fixtures.core.networks import NETWORKS
from fixtures.core.records import Figure, Limit, Status, Verdict
from fixtures.core.report import write_atomic

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "proof"
CODE = (
    *("conftest.py", "pytest.ini", "fixtures", "tests"),
    *("selftest/conftest.py", "selftest/warm.py", "selftest/proof*", "selftest/cards.py"),
    *("selftest/raw_faults.py", "selftest/simulated*", "selftest/test_simulated_cards.py"),
)
"""What a proof rests on, as git's path patterns: a change of anything else leaves it standing."""


@dataclass(frozen=True)
class Proof:
    """A claim, and what measures it: a table as Markdown, and the verdict on it."""

    claim: str
    measure: Callable[[], tuple[str, Verdict]]


# --- the proofs ------------------------------------------------------------------------------

SHARE = Limit.row(
    "suite_share",
    "<",
    0.15,
    "what measures is to take little of the time, so that the run is mostly what it measures",
)
COST = Limit.row(
    "simulator_cost_ratio", "<=", 1.5, "a rehearsal is to take little longer than the same on a CPU"
)
RUNS = 3

FAULTS = {"convnext_atto.d2_in1k": 200, "convnext_base.clip_laion2b": 40}
"""Faults drawn per network."""
CLEAN = {"convnext_atto.d2_in1k": 200, "convnext_base.clip_laion2b": 10}
"""Runs on healthy cards per network."""


def synthetic(name: str) -> tuple[str, Verdict]:
    """Faults in every block of a network, under synthetic weights and timm's own."""
    from selftest import proof_synthetic

    return proof_synthetic.prove(name)


def overhead() -> tuple[str, Verdict]:
    """Where the time of whole runs goes. What no purpose is charged with is the suite's own.

    Wall time is the process's, so that starting Python and writing the reports count as well; the
    runs are of the smallest network, of which the suite's share is largest.
    """
    from selftest.conftest import SMALL, Suite

    rows = []
    verdict = Verdict()
    for number in range(1, RUNS + 1):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            run = Suite(Path(folder)).run(*SMALL, cold=True)
            wall = time.perf_counter() - begun
        spent = charged(run.out)
        share = 1 - sum(spent.values()) / wall
        verdict &= SHARE.judge(Figure(SHARE.name, share), f"run {number}")
        rows.append((wall, *spent.values(), share))
    head = ("run", "wall (s)", *(f"{purpose} (s)" for purpose in PURPOSES), "the suite itself")
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    middle = tuple(statistics.median(column) for column in zip(*rows, strict=True))
    for label, row in [*enumerate(rows, 1), ("median", middle)]:
        cells = [*(f"{value:.1f}" for value in row[:-1]), f"{row[-1]:.1%}"]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    command = " ".join(SMALL)
    return f"`pytest {command}`, {RUNS} times.\n\n" + "\n".join(lines), verdict


def charged(output: str) -> dict[str, float]:
    """Seconds by purpose, from the last words of a run; they count the reports, its JSON cannot."""
    lines = [line for line in output.splitlines() if line.startswith("time: ")]
    if not lines:
        raise RuntimeError(f"the run said nothing of its time:\n{output}")
    told = dict(re.findall(r"(\w+) ([\d.]+) s \(", lines[-1]))
    return {purpose: float(told[purpose]) for purpose in PURPOSES}


def simulated_cost() -> tuple[str, Verdict]:
    """A forward of the default network on a simulated card beside the CPU, in interleaved pairs."""
    from selftest.simulated import script

    threads = str(os.cpu_count())
    done = script("simulated_cost.py", timeout=1800, cold=True, OMP_NUM_THREADS=threads)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"nothing was measured:\n{done.stderr}")
    told = json.loads(lines[-1])
    low, high = told["interval"]
    rows = {
        "network, batch 1": told["network"],
        "threads": told["threads"],
        "pairs": told["pairs"],
        "median on the CPU": f"{told['cpu_ms']:g} ms",
        "median on the simulated card": f"{told['card_ms']:g} ms",
        "ratio": f"{told['ratio']:.2f}, 95 % interval {low:.2f} to {high:.2f}",
    }
    table = "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in rows.items())])
    return table, COST.judge(Figure(COST.name, high), "upper end of the interval")


def precision(what: str) -> tuple[str, Verdict]:
    """What the limits of precision rest on, and what the gates cost."""
    from selftest import proof_precision

    measured: tuple[str, Verdict] = getattr(proof_precision, what)()
    return measured


def error_rates() -> tuple[str, Verdict]:
    """How often simulated limits and ratios are judged wrongly."""
    from selftest import proof_statistics

    return proof_statistics.error_rates()


def timing() -> tuple[str, Verdict]:
    """What the suite's own timing adds to a forward."""
    from selftest import proof_timing

    return proof_timing.overhead()


def simulated_faults() -> tuple[str, Verdict]:
    """Every hardware fault, planted on raw torch and under the suite."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "faults.json"
        command = ["-c", "selftest/pytest.ini", "selftest/test_simulated_cards.py", "-q"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *command, "-n", "2", "--dist", "loadgroup"],
            cwd=ROOT,
            env={**os.environ, "FAULTS_TABLE": str(path)},
            capture_output=True,
            text=True,
            check=False,
        )
        if not path.exists():
            raise RuntimeError(f"nothing was planted:\n{done.stdout}")
        rows = json.loads(path.read_text(encoding="utf-8"))
    head = ("fault", "without -> with it, on raw torch", "under the suite", "verdict", "sentence")
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --- |" * (len(head) - 1)]
    for row in rows:
        cells = [str(row[key]) for key in ("fault", "planted", "case", "verdict", "sentence")]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    words = () if done.returncode == 0 else (done.stdout.strip().splitlines()[-1],)
    return "\n".join(lines), Verdict(Status.FAIL, words) if words else Verdict()


def detection(what: str, network: str, count: int) -> tuple[str, Verdict]:
    """Faults or healthy cards drawn by the seed of proof_detection.py, on simulated cards.

    Each result is kept as it comes, so that an interrupted proof goes on where it stopped.
    """
    from fixtures.core.store import cache_folder
    from selftest import proof_detection, proof_tables
    from selftest.simulated import variables

    folder = cache_folder() / "proof"
    folder.mkdir(parents=True, exist_ok=True)
    code = code_id()
    if code.endswith("+dirty"):
        code += f"-{os.getpid()}"  # nothing of it may be taken for this code's later on
    state = folder / f"{what}-{network}-{code}.jsonl"
    command = [sys.executable, str(ROOT / "selftest/proof_detection.py")]
    done = subprocess.run(
        [*command, what, network, str(count), str(state)],
        env=variables(OMP_NUM_THREADS=str(os.cpu_count())),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    rows = proof_detection.read(state)
    if done.returncode or len(rows) < count:
        raise RuntimeError(f"{len(rows)} of {count} were measured:\n{done.stderr[-2000:]}")
    tabled = proof_tables.faults if what == "faults" else proof_tables.alarms
    text, verdict = tabled(rows)
    return f"`{network}`, seed `{proof_detection.SEED}`.\n\n{text}", verdict


PROOFS: dict[str, Proof] = {
    **{
        f"synthetic-{name.partition('.')[0]}": Proof(
            f"Under synthetic weights every block of {name} matters, and each part of it",
            functools.partial(synthetic, name),
        )
        for name in NETWORKS
    },
    "overhead": Proof(
        f"The suite itself takes less than {SHARE.bound:.0%} of a whole run", overhead
    ),
    "simulated-cost": Proof(
        f"A simulated card costs at most {COST.bound:g} times what the CPU does", simulated_cost
    ),
    "timing-overhead": Proof(
        "The suite's timing adds less than 1 % to a forward at batch 1, and its throughput is "
        "within 2 % of timm's loop",
        timing,
    ),
    "simulated-faults": Proof(
        "Every hardware fault can be planted, and the suite says what it makes of it",
        simulated_faults,
    ),
    "precision-limits": Proof(
        "The absolute limits of precision allow what the strict gate allows, in every arithmetic",
        functools.partial(precision, "limits"),
    ),
    "gate-cost": Proof(
        "What goes beyond the document's precision check costs less than six times as much",
        functools.partial(precision, "cost"),
    ),
    "error-rates": Proof(
        "Limits and ratios are judged wrongly as rarely as is said, 5 % is found where promised",
        error_rates,
    ),
    **{
        f"detection-{name.partition('.')[0]}": Proof(
            f"Every fault planted in {name} is caught, and rightly named",
            functools.partial(detection, "faults", name, count),
        )
        for name, count in FAULTS.items()
    },
    **{
        f"false-alarms-{name.partition('.')[0]}": Proof(
            f"No healthy card that runs {name} is stopped",
            functools.partial(detection, "clean", name, count),
        )
        for name, count in CLEAN.items()
    },
}
"""TABLE of proofs by name: each is made into proof/<name>.md."""


# --- the runner ------------------------------------------------------------------------------


def git(*arguments: str) -> str | None:
    """What git says about this repository; None where it has nothing to say."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments, "--", *CODE],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def code_id() -> str:
    """The commit whose code this is, ``+dirty`` if it was changed since."""
    commit = git("rev-list", "--max-count=1", "HEAD")
    if not commit:
        return "unknown"
    return f"{commit}+dirty" if git("status", "--porcelain") else commit


def is_current(path: Path, code: str) -> bool:
    """Whether a table was made by the code of that id; code that has no name never counts."""
    if not re.fullmatch("[0-9a-f]{40,64}", code) or not path.exists():
        return False
    return f"| commit | `{code}` |" in path.read_text(encoding="utf-8").splitlines()


def page(claim: str, table: str, seconds: float, code: str) -> str:
    """The Markdown of a proof."""
    facts = {
        "commit": f"`{code}`",
        "date (UTC)": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "timm")},
        "processor": f"{model_name()}, {os.cpu_count()} cores",
        "took": f"{seconds:.0f} s",
    }
    lines = [f"# {claim}", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join([*lines, "", table, ""])


def make(name: str, proof: Proof, folder: Path, code: str) -> str:
    """Make one proof; what came of it, in words, empty if it holds."""
    begun = time.perf_counter()
    try:
        table, verdict = proof.measure()
    except Exception:
        return traceback.format_exc().strip()
    if not verdict:
        return f"{table}\n\nit does not hold: {verdict!r}"
    folder.mkdir(exist_ok=True)
    text = page(proof.claim, table, time.perf_counter() - begun, code)
    write_atomic(folder / f"{name}.md", text)
    return ""


def main(
    arguments: Sequence[str] | None = None,
    proofs: Mapping[str, Proof] = PROOFS,
    folder: Path = FOLDER,
    code: str | None = None,
) -> int:
    """Make the proofs that are named, or all. 0 if each holds, 1 if not, 2 for bad usage."""
    parser = argparse.ArgumentParser(prog="selftest.proof", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="proofs to make (default: all)")
    parser.add_argument(
        "--again", action="append", default=[], metavar="NAME", help="make it though it stands"
    )
    parser.add_argument("--list", action="store_true", help="list the proofs and what they claim")
    given = parser.parse_args(arguments)
    for name in (*given.names, *given.again):
        if name not in proofs:
            parser.error(f"no proof is called {name!r}; there are {', '.join(proofs)}")
    code = code or code_id()
    failed = []
    for name, proof in proofs.items():
        path = folder / f"{name}.md"
        stands = is_current(path, code)
        if given.list:
            print(f"{name}: {proof.claim} ({'stands' if stands else 'to be made'})")
        elif given.names and name not in (*given.names, *given.again):
            continue
        elif stands and name not in given.again:
            print(f"{name}: stands, {path} was made by this code")
        else:
            print(f"{name}: {proof.claim} ...", flush=True)
            try:
                told = make(name, proof, folder, code)
            except KeyboardInterrupt:
                print(f"{name}: interrupted; what is finished stands, the same command goes on")
                return 130
            if told:
                print(f"{told}\n{name}: no proof")
                failed.append(name)
            else:
                print(f"{name}: holds, see {path}")
    if failed:
        print(f"error: {', '.join(failed)}: no proof", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What the documents say is what the code does: commands, options, limits, exit codes, paths."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from fixtures.core import stack
from fixtures.core.backends.simulated_cann.faults import KINDS
from fixtures.core.backends.simulated_cann.loader import SUPPORTED
from fixtures.core.latency import PERCENTILES
from fixtures.core.limits import all_limits
from fixtures.core.networks import DEFAULT_NETWORK, NETWORKS
from fixtures.core.publish import PUBLISHED
from fixtures.core.records import Status
from fixtures.core.statistics import CONFIDENCE, smallest_sample
from fixtures.core.verdict import conclude, exit_code
from fixtures.options import OPTIONS
from fixtures.recording import ORDER
from selftest import sample, simulated

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "fixtures" / "pictures"
READMES = ("README.md", "README.zh-CN.md")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
DOCUMENTS = (*READMES, "reports/README.md", "proof/README.md", ".github/CONTRIBUTING.md")
PROGRAMS = ("pytest", "make", "pip", "python")
THE_DOCUMENTS = ("python verify_npu.py", "python ascend_adapter.py")
"""The adaptation document's own scripts, beside which the READMEs set their own commands."""

WORDS = {
    "README.md": {
        "off": "off",
        "none": "none",
        "pictures": "set of eight pictures",
        "codes": ("2 interrupted", "3 internal error", "4 bad usage", "5 nothing was measured"),
    },
    "README.zh-CN.md": {
        "off": "关闭",
        "none": "无",
        "pictures": "8 张图片",
        "codes": ("2 运行中断", "3 内部错误", "4 用法错误", "5 没有测量任何内容"),
    },
}


@dataclass(frozen=True)
class Document:
    """A Markdown file, taken apart."""

    name: str
    text: str

    @property
    def prose(self) -> str:
        """The text without its code blocks."""
        return re.sub(r"(?ms)^```.*?^```$", "", self.text)

    @property
    def headings(self) -> list[tuple[int, str]]:
        """Level and words."""
        return [(len(m[1]), m[2]) for m in re.finditer(r"(?m)^(#+) (.*)$", self.prose)]

    @property
    def tables(self) -> list[list[list[str]]]:
        """Cells by row by table, without the line below the header."""
        found = re.findall(r"(?m)(?:^\|.*\|$\n?)+", self.prose)
        rows = ([line.strip("|").split("|") for line in table.splitlines()] for table in found)
        return [[[cell.strip() for cell in row] for row in (r[0], *r[2:])] for r in map(list, rows)]

    def table(self, section: int, number: int = 0) -> list[list[str]]:
        """Rows below the header of a table, by the number of its section of level 2."""
        part = re.split(r"(?m)^## .*$", self.text)[section]
        return Document(self.name, part).tables[number][1:]

    @property
    def commands(self) -> list[str]:
        """Commands of the code blocks, without their comments."""
        blocks = "\n".join(re.findall(r"(?ms)^```console\n(.*?)^```$", self.text))
        return [m.split("  #")[0].strip() for m in re.findall(r"(?m)^\$ (.*)$", blocks)]

    @property
    def spans(self) -> list[str]:
        """Code between backticks in the prose."""
        return spans(self.prose)

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures within the repository."""
        targets = re.findall(r"\]\(([^)\s]+)\)", self.prose)
        return [target for target in targets if not target.startswith("https://")]

    @property
    def typed(self) -> list[str]:
        """Every command, in the code blocks and in the prose."""
        told = [each for each in self.spans if each.split()[0] in PROGRAMS and " " in each]
        return [*self.commands, *(each for each in told if not each.startswith(THE_DOCUMENTS))]

    @property
    def said(self) -> list[str]:
        """Every command, and the options that the prose names, which are pytest's."""
        return self.typed + [f"pytest {each}" for each in self.spans if re.match("--?[a-z]", each)]


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def read(name: str) -> Document:
    return Document(name, (ROOT / name).read_text(encoding="utf-8"))


def call(*command: str, **changes: str) -> str:
    """What a module prints that is run from the repository, on its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=kept | changes,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def known_options(*tool: str) -> frozenset[str]:
    """The options that a tool's own help names.

    Of an option that is spelt with and without a dash, pytest's help shows the first only.
    """
    told = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", call(*tool, "--help")))
    short = {f"--{each[2:].replace('-', '')}" for each in told - set(OPTIONS)}
    return frozenset(told | short if tool == ("pytest",) else told)


@cache
def markers() -> tuple[str, ...]:
    """The markers of pytest.ini."""
    ini = ConfigParser()
    ini.read(ROOT / "pytest.ini", encoding="utf-8")
    return tuple(line.split(":")[0] for line in ini["pytest"]["markers"].strip().splitlines())


def as_pytest(command: str) -> list[str] | None:
    """The arguments that pytest gets from a command; None where it is another tool's."""
    program, *arguments = shlex.split(command)
    if program == "make" and arguments[0] in ("qualify", "rehearse-npu"):
        return [word for each in arguments[1:] for word in shlex.split(each.removeprefix("ARGS="))]
    return arguments if program == "pytest" else None


def helper(command: str) -> tuple[tuple[str, ...], list[str]]:
    """The tool whose options a command uses, and its arguments."""
    program, *arguments = shlex.split(command)
    if program.endswith("python") and arguments[0] == "-m":
        program, *arguments = arguments[1:]
    if program == "make":
        goal = {
            **dict.fromkeys(("qualify", "rehearse-npu", "selftest"), "pytest"),
            "proof": "selftest.proof",
        }
        words = [word for each in arguments for word in shlex.split(each.removeprefix("ARGS="))]
        return ((goal[words[0]],) if len(words) > 1 else ()), words[1:]
    if program == "pip":
        return ("pip", arguments[0]), arguments[1:]
    known = ("pytest", "fixtures.core.trace", "selftest.proof_timing")
    return ((program,) if program in known else ()), arguments


# --- the checks, each of a document --------------------------------------------------------------


def options_exist(document: Document) -> None:
    """Every option that a command or the prose names exists in the tool that is to take it."""
    seen = 0
    for command in document.said:
        tool, arguments = helper(command)
        used = [word.split("=")[0] for word in arguments if re.match(r"--?[A-Za-z]", word)]
        assert not used or tool, f"{command}: whose options are these?"
        for option in used:
            assert option in known_options(*tool), f"{command}: {tool} has no {option}"
            seen += 1
    assert seen or document.name not in READMES


def options_are_documented(document: Document) -> None:
    """The table of options has each own option, with its real default."""
    words = WORDS[document.name]
    told = {}
    for names, _, default in document.table(5):
        told |= {span.split()[0]: default for span in spans(names)}
    assert list(told) == list(OPTIONS)
    for name, how in OPTIONS.items():
        default = how.get("default", False)
        if default is False:
            default = words["off"]
        elif default == []:
            default = words["none"]
        elif name == "--num-classes":
            default = str(NETWORKS[DEFAULT_NETWORK].num_classes)
        elif default is None:
            assert not spans(told[name]), f"{name} has no default, {told[name]} is said"
            continue
        value = f"{default:g}" if isinstance(default, float) else str(default)
        assert re.search(rf"(?<![\w.]){re.escape(value)}(?![\w.])", told[name]), (name, told[name])
    assert words["pictures"] in told["--image"]
    assert len([path for path in PICTURES.iterdir() if path.suffix != ".md"]) == 8


def devices_are_documented(document: Document) -> None:
    """The devices that the table of options names are the backends."""
    from fixtures.core.backends import BACKENDS

    meaning = document.table(5)[0][1]
    assert [span for span in spans(meaning) if span.islower()][:-1] == ["auto", *BACKENDS]


def limits_are_the_tables(document: Document) -> None:
    """The table of limits is what judges; those without a bound are named at --limit."""
    told = {}
    for names, bound, _ in document.table(7):
        relation, value = bound.split()
        told |= {name: (relation, float(value)) for name in spans(names)}
    table = all_limits((16,)).values()
    bounds = {each.name: (each.relation, each.bound) for each in table}
    assert told == {name: row for name, row in bounds.items() if row[1] is not None}
    row = next(row for row in document.table(5) if row[0].startswith("`--limit"))
    free = [name for name, row in bounds.items() if row[1] is None]
    assert [span for span in spans(row[1]) if "_" in span] == free


def verdicts_and_exit_codes_are_real(document: Document) -> None:
    """The table of verdicts has each, in order of precedence, with the codes that it exits with."""
    runs = (sample.failed(), sample.crashed(), sample.rehearsal(), sample.qualified())
    real = {}
    for run in runs:
        verdict = conclude(run)
        bad = verdict.status == "NOT QUALIFIED"
        codes = {exit_code(run, verdict, int(bad), qualify) for qualify in (False, True)}
        real[verdict.status] = sorted(codes)
    rows = document.table(1)
    assert {spans(row[0])[0]: list(map(int, re.findall(r"\d", row[2]))) for row in rows} == real
    assert [spans(row[0])[0] for row in rows] == list(real)
    for told in WORDS[document.name]["codes"]:
        assert told in document.text.replace("\n", " "), told
    named = {pytest.ExitCode(int(told[0])).name for told in WORDS[document.name]["codes"]}
    assert named == {"INTERRUPTED", "INTERNAL_ERROR", "USAGE_ERROR", "NO_TESTS_COLLECTED"}


def statuses_are_named(document: Document) -> None:
    """Each way that a case can end is named, and nothing else that looks like one."""
    section = re.split(r"(?m)^## .*$", document.text)[1]
    verdicts = {spans(row[0])[0] for row in document.table(1)}
    capitals = {span for span in spans(section) if span.isupper()}
    assert capitals - verdicts == {status.value for status in Status}


def items_are_the_tests(document: Document) -> None:
    """The table of items has each test file, in the document's order, with a marker it carries."""
    told = [spans(marker)[0] for _, marker, _ in document.table(3)]
    carried = cases_by_file()
    assert len(told) == len(ORDER)
    for name, marker in zip(ORDER, told, strict=True):
        assert marker in markers()
        assert carried[f"test_{name}.py"], name
        assert all(marker in each for each in carried[f"test_{name}.py"]), (name, marker)
    assert set(carried) == {f"test_{name}.py" for name in ORDER}
    assert {"smoke", *told} == set(markers())


def percentiles_are_computed(document: Document) -> None:
    """The sample sizes are those that the code asks for."""
    line = next(
        p for p in document.text.split("\n\n") if f"{CONFIDENCE:.0%}".replace("%", " %") in p
    )
    for percent in PERCENTILES:
        assert re.search(rf"p{percent}\D+\b{smallest_sample(percent)}\b", line), percent


def versions_are_the_qualified_ones(document: Document) -> None:
    """Versions of the stack, of Python and of CANN are those of the table."""
    text = document.text
    real = {name: package.qualified[0] for name, package in stack.PACKAGES.items()}
    real["torch-npu"] = stack.PLUGINS["torch_npu"].qualified[0]
    for name in ("torch", "torch-npu", "timm"):
        found = re.findall(rf"(?<![\w-]){name} (\d+(?:\.\d+)+)", text)
        assert found, name
        assert set(found) == {real[name]}, name
    assert set(re.findall(r"CANN (\d+\.\d+)\.\d", text)) == {
        stack.CANN_FOR_TORCH_NPU[real["torch-npu"]]
    }
    assert set(re.findall(r"Python (\d\S+-\d[\d.]*\d)", text)) == {"-".join(stack.PYTHON)}


def subject_is_the_default_network(document: Document) -> None:
    """The first screen describes the network that runs without options."""
    row = NETWORKS[DEFAULT_NETWORK]
    first = re.split(r"(?m)^## ", document.text)[0]
    assert f"timm/{row.name}" in first
    assert "×".join(map(str, row.input_size)) in first
    assert re.search(rf"\b{row.num_classes}\b", first)


def paths_exist(document: Document) -> None:
    """Each link, and each path of this repository between backticks, leads somewhere."""
    here = (ROOT / document.name).parent
    for link in document.links:
        path, _, anchor = link.partition("#")
        target = here / path if path else ROOT / document.name
        assert target.exists(), f"{document.name}: {link} is not there"
        if anchor:
            heads = [words for _, words in Document("", target.read_text("utf-8")).headings]
            slugs = [re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-") for words in heads]
            assert anchor in slugs, f"{document.name}: {link} has no such heading"
    tops = {path.name for path in ROOT.iterdir() if path.name != "reports"}
    for span in document.spans:
        for word in span.split():
            if word.split("/")[0] in tops and "/" in word:
                assert list(ROOT.glob(word.rstrip("/"))), f"{document.name}: {word} is not there"


def make_targets_exist(document: Document) -> None:
    """Each target that a command names is in the Makefile."""
    targets = re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
    for command in document.said:
        program, *arguments = shlex.split(command)
        if program == "make":
            assert arguments[0] in targets, f"{command}: there is no such target"


def faults_are_the_tables(document: Document) -> None:
    """The lists of hardware faults are the kinds of the table, group by group."""
    told = re.findall(r"(?m)^- \S+?[:：] ?((?:`\w+`[,、]?\s*)+)$", document.prose)
    groups: dict[str, list[str]] = {}
    for kind in KINDS.values():
        groups.setdefault(kind.group, []).append(kind.name)
    assert [spans(line) for line in told] == list(groups.values())


def simulated_releases_are_the_supported(document: Document) -> None:
    """The torch-npu releases that are said to run on simulated cards are those that are let in."""
    for version in SUPPORTED:
        assert re.search(rf"(?<![\w.]){re.escape(version)}(?!\.?\w)", document.prose), version


CHECKS: tuple[Callable[[Document], None], ...] = (
    faults_are_the_tables,
    simulated_releases_are_the_supported,
    options_exist,
    options_are_documented,
    devices_are_documented,
    limits_are_the_tables,
    verdicts_and_exit_codes_are_real,
    statuses_are_named,
    items_are_the_tests,
    percentiles_are_computed,
    versions_are_the_qualified_ones,
    subject_is_the_default_network,
    paths_exist,
    make_targets_exist,
)


@pytest.mark.parametrize("name", READMES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_readme(name, check):
    check(read(name))


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in READMES])
@pytest.mark.parametrize("check", [options_exist, paths_exist, make_targets_exist])
def test_other_documents(name, check):
    check(read(name))


FAULTS = [
    (options_exist, "--device npu --qualify", "--divice npu --qualify"),
    (options_exist, "`--junitxml`", "`--junit-html`"),
    (options_exist, "pip list --format=freeze", "pip list --fromat=freeze"),
    (options_are_documented, "| `--seed` |", "| `--sead` |"),
    (options_are_documented, "| 0 |\n| `--reference`", "| 1 |\n| `--reference`"),
    (options_are_documented, "`1,4,8,16`", "`1,4,8`"),
    (options_are_documented, "`default,ieee` |", "`default` |"),
    (options_are_documented, "900 s", "90 s"),
    (options_are_documented, " 8 |\n| `--limit", " 16 |\n| `--limit"),
    (options_are_documented, "640)", "1000)"),
    (devices_are_documented, "`xpu`, ", ""),
    (limits_are_the_tables, "> 0.999", "> 0.99"),
    (limits_are_the_tables, "<= 0.01", "< 0.01"),
    (limits_are_the_tables, "`identity`", "`identical`"),
    (limits_are_the_tables, "`strict_tau` | <= 1 |", "`strict_tau` | <= 2 |"),
    (limits_are_the_tables, "`latency_p99_ms`", "`latency_p95_ms`"),
    (verdicts_and_exit_codes_are_real, "where | 1 |", "where | 2 |"),
    (verdicts_and_exit_codes_are_real, "`REHEARSAL` |", "`PRACTICE` |"),
    (verdicts_and_exit_codes_are_real, "5 nothing", "6 nothing"),
    (statuses_are_named, "`INCONCLUSIVE`", "`UNDECIDED`"),
    (items_are_the_tests, "| `operators` |", "| `operator` |"),
    (items_are_the_tests, "| latency | `performance` |", "| latency | `precision` |"),
    (items_are_the_tests, "| layers | `layers` |", "| layers | `precision` |"),
    (percentiles_are_computed, "662", "668"),
    (versions_are_the_qualified_ones, "timm 1.0.27", "timm 1.0.28"),
    (versions_are_the_qualified_ones, "CANN 8.5.1", "CANN 8.3.1"),
    (versions_are_the_qualified_ones, "3.10-3.13", "3.9-3.13"),
    (subject_is_the_default_network, "3×256×256", "3×224×224"),
    (paths_exist, "(reports/README.md)", "(reports/READ.md)"),
    (paths_exist, "`fixtures/core/metrics.py`", "`fixtures/core/metric.py`"),
    (make_targets_exist, "make selftest", "make selftests"),
    (faults_are_the_tables, "`health_alarm`", "`health_alert`"),
    (faults_are_the_tables, "`stuck_bit`, ", ""),
    (simulated_releases_are_the_supported, "2.9.0.post9", "2.9.0.post8"),
]


@pytest.mark.parametrize(("check", "words", "others"), FAULTS)
def test_a_planted_fault_is_seen(check, words, others):
    document = read("README.md")
    assert words in document.text, "sanity check"
    with pytest.raises((AssertionError, StopIteration, KeyError)):
        check(Document(document.name, document.text.replace(words, others)))


# --- the two READMEs -----------------------------------------------------------------------------


def test_both_readmes_have_the_same_structure():
    one, other = map(read, READMES)
    assert [level for level, _ in one.headings] == [level for level, _ in other.headings]
    assert one.commands == other.commands
    assert len(one.tables) == len(other.tables)
    for ours, theirs in zip(one.tables, other.tables, strict=True):
        assert [len(row) for row in ours] == [len(row) for row in theirs]
        for row, same in zip(ours[1:], theirs[1:], strict=True):
            assert [spans(cell) for cell in row] == [spans(cell) for cell in same]
    shared = [[link for link in each.links if link not in READMES] for each in (one, other)]
    assert shared[0] == shared[1]
    assert [link for link in one.links if link in READMES] == ["README.zh-CN.md"]
    assert [link for link in other.links if link in READMES] == ["README.md"]


# --- commands, as a user types them --------------------------------------------------------------


def collectable() -> list[str]:
    """The pytest commands of both READMEs, FILE and DIR being the pictures that are there."""
    typed = (as_pytest(command) for name in READMES for command in read(name).typed)
    return list(dict.fromkeys(shlex.join(each) for each in typed if each is not None))


@pytest.mark.parametrize("arguments", collectable())
def test_a_command_selects_cases(arguments, tmp_path):
    words = {"FILE": str(PICTURES / "coffee.jpg"), "DIR": str(PICTURES)}
    given = []
    for word in shlex.split(arguments):
        option, equals, value = word.partition("=")
        value = words.get(value, value)
        if option == "--report":
            value = str(tmp_path / value)
        given.append(f"{option}{equals}{value}")
    for flag, value in pairwise(given):
        if flag == "-m":
            assert set(re.findall(r"\w+", value)) - {"not", "and", "or"} <= set(markers())
    changes = {}
    if "--simulate" in given:
        if not simulated.HAVE:
            pytest.skip("torch-npu, which the simulated cards carry, is for Linux")
        changes["PYTHONPATH"] = str(simulated.folder())
    out = call("pytest", *given, "--collect-only", "-q", "-p", "no:cacheprovider", **changes)
    assert re.search(r"(?m)^tests/\S+::test_", out), out


@cache
def cases_by_file() -> dict[str, list[set[str]]]:
    """The markers of each case, by test file, from one collection of all of them."""
    probe = (
        "def pytest_collection_finish(session):\n"
        "    for item in session.items:\n"
        "        print('CARRIES', item.path.name, *(m.name for m in item.iter_markers()))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "carries.py").write_text(probe)
        arguments = ("--collect-only", "-q", "-s", "-p", "no:cacheprovider", "-p", "carries")
        arguments += ("-m", " or ".join(markers()))
        out = call("pytest", *arguments, PYTHONPATH=folder)
    carried: dict[str, list[set[str]]] = {}
    for line in re.findall(r"(?m)^CARRIES (.*)$", out):
        name, *marks = line.split()
        carried.setdefault(name, []).append(set(marks))
    return carried


# --- what is installed ---------------------------------------------------------------------------


def requirements(name: str) -> dict[str, str]:
    """What a requirements file asks for: the rest of the line by distribution."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Za-z][\w.-]*)([^#]*)", line) for line in lines)
    return {m[1]: m[2].strip() for m in found if m}


def test_the_constraints_are_the_qualified_stack():
    pinned = requirements("constraints.txt")
    assert list(pinned) == list(requirements("requirements.txt"))
    for name, package in stack.PACKAGES.items():
        assert pinned[name] == f"=={package.qualified[0]}"
    plug_in = requirements("requirements-ascend.txt")["torch-npu"]
    assert plug_in == f"=={stack.PLUGINS['torch_npu'].qualified[0]}"


# --- CI and the forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_there_is(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for used in re.findall(r"uses: (\S+)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used), f"{used} is not held at a commit"
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines()]
    checked = 0
    for line in (line.split(" | ")[0] for line in lines):
        if line.startswith(".ci/"):
            assert os.access(ROOT / line, os.X_OK)
            checked += 1
        elif line.startswith(("pip ", "python -m pytest ")):
            tool, arguments = helper(line)
            for word in arguments:
                if re.match(r"--?[A-Za-z]", word):
                    assert word.split("=")[0] in known_options(*tool), line
            for flag, value in pairwise(arguments):
                if flag in ("-r", "-c") and value != "vendor.txt":  # it is made here
                    assert (ROOT / value).exists(), line
            for name, version in re.findall(r"\b(torch|torchvision)==([\d.]+)", line):
                assert version in stack.PACKAGES[name].qualified, line
            checked += 1
    assert checked
    versions = re.findall(r'python: \["(.*)", "(.*)"\]', text)
    assert all(pair == stack.PYTHON for pair in versions)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_the_report(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names)
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "dropdown")
        assert field["attributes"]["label"]
    asked = next(field for field in form["body"] if field["id"] == "report")
    assert PUBLISHED[0] in asked["attributes"]["description"]


def test_the_files_of_a_run_are_named():
    told = {each for row in read("reports/README.md").tables[0] for each in spans(row[0])}
    assert set(PUBLISHED) <= told


# --- no place on anybody's machine ---------------------------------------------------------------

PUBLIC = ("/dev/", "/usr/bin/env", "/usr/local/Ascend/", "/path/to/")
"""Absolute paths that are the same on every machine, or nobody's."""


def private_paths(text: str) -> list[str]:
    found = re.findall(r"""(?<![\w.*~:}>)\]"'/$-])/[A-Za-z][\w.-]*(?:/[\w.-]*)+""", text)
    return [path for path in found if not path.startswith(PUBLIC)]


def written() -> list[Path]:
    """Everything that is written for people."""
    patterns = ("*.md", "*.txt", "Makefile", "proof/*.md", "reports/*.md", ".ci/*", ".github/**/*")
    found = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    generated = {ROOT / "reports" / name for name in PUBLISHED}
    return sorted(set(found) - generated)


@pytest.mark.parametrize("path", written(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_names_a_place_on_somebodys_machine(path):
    assert private_paths(path.read_text(encoding="utf-8")) == []


def test_a_place_on_somebodys_machine_is_seen():
    text = "cd /home/me/suite; source /usr/local/Ascend/x/set_env.sh; https://a.org/b/c and/or x/y"
    assert private_paths(text) == ["/home/me/suite"]

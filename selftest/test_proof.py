"""The runner of proofs: it goes on where it stopped, and a proof that fails leaves no table."""

import subprocess

import pytest

from fixtures.core.records import Figure, Limit
from selftest import proof

CODE = "0123456789abcdef0123456789abcdef01234567"
LIMIT = Limit.row("size", ">=", 1, "the test")


class Proofs:
    """A table of fake proofs that counts what is made."""

    def __init__(self, folder):
        self.folder = folder
        self.made = []
        self.sizes = {"first": 2, "second": 2, "third": 2}
        self.table = {
            name: proof.Proof(f"The {name} one holds", lambda name=name: self.measure(name))
            for name in self.sizes
        }

    def measure(self, name):
        self.made.append(name)
        size = self.sizes[name]
        if isinstance(size, BaseException):
            raise size
        return f"| size |\n| --- |\n| {size} |", LIMIT.judge(Figure("size", size))

    def run(self, *arguments, code=CODE):
        """The exit code, and which proofs were made in this run."""
        self.made.clear()
        return proof.main(arguments, self.table, self.folder, code), list(self.made)


@pytest.fixture
def proofs(tmp_path):
    return Proofs(tmp_path / "proof")


def test_a_table_tells_what_it_was_made_of(proofs):
    assert proofs.run("first") == (0, ["first"])
    text = (proofs.folder / "first.md").read_text()
    assert text.startswith("# The first one holds\n")
    assert text.endswith("| size |\n| --- |\n| 2 |\n")
    for fact in (rf"| commit | `{CODE}` |", "| date (UTC) | 20", "| Python | 3.", "| torch | 2."):
        assert f"\n{fact}" in text
    for fact in ("timm", "processor", "took"):
        assert f"\n| {fact} | " in text


def test_what_stands_is_not_made_again(proofs, capsys):
    assert proofs.run() == (0, ["first", "second", "third"])
    assert proofs.run() == (0, [])
    assert capsys.readouterr().out.count("stands, ") == 3
    (proofs.folder / "second.md").unlink()
    assert proofs.run() == (0, ["second"])
    assert proofs.run("third", "first") == (0, [])


def test_again_makes_one_again(proofs):
    assert proofs.run() == (0, ["first", "second", "third"])
    assert proofs.run("--again", "second") == (0, ["second"])
    assert proofs.run("first", "--again", "third") == (0, ["third"])


@pytest.mark.parametrize("code", ["f" * 40, f"{CODE}+dirty", "unknown"])
def test_other_code_needs_other_proofs(proofs, code):
    assert proofs.run("first") == (0, ["first"])
    assert proofs.run("first", code=code) == (0, ["first"])


@pytest.mark.parametrize("code", [f"{CODE}+dirty", "unknown"])
def test_code_without_a_name_proves_nothing_for_the_next_run(proofs, code):
    for _ in range(2):
        assert proofs.run("first", code=code) == (0, ["first"])


def test_an_interrupted_run_goes_on_where_it_stopped(proofs, capsys):
    proofs.sizes["second"] = KeyboardInterrupt()
    assert proofs.run() == (130, ["first", "second"])
    assert "the same command goes on" in capsys.readouterr().out
    proofs.sizes["second"] = 2
    assert proofs.run() == (0, ["second", "third"])


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "it does not hold: size is 0, must be >= 1"),
        (RuntimeError("no more memory"), "no more memory"),
    ],
)
def test_one_that_fails_leaves_the_others(proofs, capsys, size, words):
    assert proofs.run("second") == (0, ["second"])
    before = (proofs.folder / "second.md").read_text()
    proofs.sizes["second"] = size
    assert proofs.run("--again", "second") == (1, ["first", "second", "third"])
    told = capsys.readouterr()
    assert words in told.out
    assert told.err == "error: second: no proof\n"
    assert (proofs.folder / "third.md").exists()
    assert (proofs.folder / "second.md").read_text() == before
    assert sorted(path.name for path in proofs.folder.iterdir()) == [
        "first.md",
        "second.md",
        "third.md",
    ]


def test_list_makes_nothing(proofs, capsys):
    proofs.run("first")
    assert proofs.run("--list") == (0, [])
    told = capsys.readouterr().out.splitlines()[-3:]
    assert told == [
        "first: The first one holds (stands)",
        "second: The second one holds (to be made)",
        "third: The third one holds (to be made)",
    ]


@pytest.mark.parametrize("arguments", [["forth"], ["--again", "forth"]])
def test_an_unknown_name_is_refused(proofs, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        proofs.run(*arguments)
    assert ended.value.code == 2
    assert "no proof is called 'forth'; there are first, second, third" in capsys.readouterr().err
    assert proofs.made == []


def test_the_codes_name_is_its_commit_until_it_is_changed(tmp_path, monkeypatch):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    monkeypatch.setattr(proof, "ROOT", tmp_path)
    assert proof.code_id() == "unknown"
    git("init", "--quiet")
    assert proof.code_id() == "unknown"
    for name in ("fixtures/x.py", "README.md", "selftest/proof_x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    code = git("rev-parse", "HEAD")
    assert proof.code_id() == code

    (tmp_path / "proof").mkdir()
    (tmp_path / "proof" / "first.md").write_text("a table")
    (tmp_path / "README.md").write_text("other words")
    assert proof.code_id() == code, "what a proof does not rest on leaves it standing"
    git("add", ".")
    git("commit", "--quiet", "-m", "tables and words")
    assert proof.code_id() == code
    (tmp_path / "fixtures" / "new.py").write_text("")
    assert proof.code_id() == f"{code}+dirty"
    git("add", ".")
    git("commit", "--quiet", "-m", "code")
    assert proof.code_id() == git("rev-parse", "HEAD") != code


TIME = (
    "time: 82.1 s = imports 10.2 s (12%), weights 1.0 s (1%), model 57.6 s (70%), "
    "reference 6.8 s (8%), probes 0.0 s (0%), suite 6.4 s (8%)"
)


def test_the_time_of_a_run_is_read_from_its_last_words():
    spent = proof.charged(f"time: 1 s = nonsense\n{TIME}\nQUALIFIED")
    assert spent == {
        "imports": 10.2,
        "weights": 1.0,
        "model": 57.6,
        "reference": 6.8,
        "probes": 0.0,
    }
    with pytest.raises(RuntimeError, match="crashed"):
        proof.charged("it crashed")


@pytest.mark.parametrize(("wall", "holds"), [(80.0, True), (100.0, False)])
def test_overhead_is_what_no_purpose_is_charged_with(monkeypatch, wall, holds):
    from selftest import conftest

    ticks = iter(range(1000))
    monkeypatch.setattr(proof.time, "perf_counter", lambda: next(ticks) * wall)
    monkeypatch.setattr(conftest.Suite, "__init__", lambda self, root: None)
    outcome = conftest.Outcome(0, TIME, None)
    monkeypatch.setattr(conftest.Suite, "run", lambda self, *arguments, cold: outcome)
    table, verdict = proof.overhead()
    share = 1 - 75.6 / wall
    assert f"| median | {wall:.1f} | 10.2 | 1.0 | 57.6 | 6.8 | 0.0 | {share:.1%} |" in table
    assert bool(verdict) is holds
    assert holds or "run 1" in repr(verdict)


def test_each_proof_is_explained_and_each_explanation_has_a_proof():
    lines = (proof.FOLDER / "README.md").read_text().splitlines()
    named = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert named == list(proof.PROOFS)

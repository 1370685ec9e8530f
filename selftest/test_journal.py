"""The journal and the watcher: what was measured outlives the run, whatever ends it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.core import journal, publish, watcher
from fixtures.core.fresh import SCRATCH
from fixtures.core.journal import Journal, Reader
from fixtures.core.records import Case, Status

ROOT = Path(__file__).resolve().parent.parent
CASE = Case("tests/test_a.py::test_a", Status.PASS, ("precision",))


def begin(folder, top=None):
    book = Journal(folder)
    book.write("fact", name="settings", value={"model": "net", "batch_sizes": [1, 4, 8, 16]})
    selection = {"selected": [CASE.id, "tests/test_b.py::test_b"], "reasons": []}
    book.write("fact", name="selection", value=selection)
    book.write("fact", name="paths", value={"top": str(top or folder)})
    book.write("case", case=CASE.as_json())
    return book


def test_a_torn_last_line_waits_for_its_rest(tmp_path):
    book = begin(tmp_path)
    book.close()
    path = tmp_path / journal.NAME
    reader = Reader(tmp_path)
    assert list(reader.read().cases) == [CASE.id]
    other = {"event": "fact", "at": "x", "name": "late", "value": 1}
    text = json.dumps(other) + "\n"
    with path.open("a") as file:
        file.write(text[:10])
    assert "late" not in reader.read().facts
    with path.open("a") as file:
        file.write(text[10:])
    assert reader.read().facts["late"] == 1


def test_overdue_names_what_ran_too_long(tmp_path):
    book = begin(tmp_path)
    book.running("slow", -1)
    story = journal.read(tmp_path)
    assert story.overdue() == ("slow", -1)
    book.done("slow")
    book.close()
    assert journal.read(tmp_path).overdue() is None


def child(folder, code):
    """A run, small: writes its journal, starts its watcher, then does what `code` says."""
    program = f"""
import ctypes, os, sys, time
sys.path.insert(0, {str(ROOT)!r}); sys.path.insert(0, {str(ROOT / "selftest")!r})
from pathlib import Path
from fixtures.core import watcher
from test_journal import begin
folder = Path({str(folder)!r})
book = begin(folder)
watcher.listen(folder)
process = watcher.start(folder, Path({str(ROOT)!r}))
{code}
"""
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


def stored(folder):
    return json.loads((folder / publish.JSON_NAME).read_text())


def test_a_run_that_is_killed_leaves_its_reports_and_no_weights(tmp_path):
    (tmp_path / f"{SCRATCH}x").mkdir()
    (tmp_path / f"{SCRATCH}x/weights.safetensors").write_bytes(b"large")
    run = child(tmp_path, 'book.running("tests/test_b.py::test_b", 60); time.sleep(60)')
    deadline = time.monotonic() + 20
    while (
        "test_b" not in (tmp_path / journal.NAME).read_text()
        if (tmp_path / journal.NAME).exists()
        else True
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    run.kill()
    _, told = run.communicate(timeout=60)  # ends when the watcher has written and left
    report = stored(tmp_path)
    assert report["verdict"]["status"] == "INCOMPLETE"
    assert [case["id"] for case in report["cases"]] == [CASE.id]
    assert "killed" in " ".join(report["verdict"]["reasons"])
    assert "INCOMPLETE" in told
    assert (tmp_path / publish.HTML_NAME).exists()
    assert not list(tmp_path.glob(f"{SCRATCH}*"))


def test_a_hang_that_holds_the_interpreters_lock_is_ended(tmp_path):
    hang = 'book.running("tests/test_b.py::test_b", 1); ctypes.PyDLL(None).sleep(120)'
    begun = time.monotonic()
    run = child(tmp_path, hang)
    _, told = run.communicate(timeout=60)
    assert time.monotonic() - begun < 100
    assert run.returncode < 0, "ended by a signal"
    report = stored(tmp_path)
    assert report["verdict"]["status"] == "NOT QUALIFIED"
    hung = {case["id"]: case for case in report["cases"]}["tests/test_b.py::test_b"]
    assert hung["status"] == "HANG"
    assert "did not end within 1 s" in hung["reason"]
    assert "hung and was ended" in told
    assert "File" in (tmp_path / watcher.STACKS).read_text(), "the stacks say where it hung"


HANGS = {
    "atexit, with the lock": "import atexit; atexit.register(ctypes.PyDLL(None).sleep, 120)",
    "a thread": "import threading; threading.Thread(target=time.sleep, args=(120,)).start()",
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_hang_at_the_very_end_is_ended_and_put_into_the_reports(tmp_path, hang):
    folder, top = tmp_path / "run", tmp_path / "top"
    folder.mkdir()
    code = f"""
from fixtures.core import journal, publish
book.write("fact", name="paths", value={{"top": {str(top)!r}}})
publish.publish(folder, journal.read(folder).qualification(), html=True)
book.write("reported"); book.running("the end of the process", 1)
{hang}
"""
    begun = time.monotonic()
    run = child(folder, code)
    _, told = run.communicate(timeout=60)
    assert time.monotonic() - begun < 100
    assert run.returncode < 0, "ended by a signal"
    for place in (folder, top):
        report = stored(place)
        assert report["verdict"]["status"] == "NOT QUALIFIED"
        cases = {case["id"]: case for case in report["cases"]}
        assert cases["the end of the process"]["status"] == "HANG"
        assert cases[CASE.id]["status"] == "PASS"
        assert "the end of the process" in (place / publish.HTML_NAME).read_text()
        assert "NOT QUALIFIED" in (place / "adaptation_report.md").read_text()
    (line,) = told.strip().splitlines()
    assert "the end of the process did not end within 1 s since the last report" in line
    assert "NOT QUALIFIED" in line
    assert "hread 0x" in (folder / watcher.STACKS).read_text(), "the stacks say where it hung"


def test_a_page_that_is_not_ours_is_written_again(tmp_path):
    begin(tmp_path).close()
    page = tmp_path / publish.HTML_NAME
    page.write_text("<p>somebody else's</p>")
    verdict = publish.correct(tmp_path, journal.read(tmp_path).qualification())
    assert verdict.status == "INCOMPLETE"
    assert "net on no device, with no weights loaded" in page.read_text()


def test_a_hang_is_ended_although_it_cannot_be_reported(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(watcher, "_kill", lambda victims, how: ended.append(how))
    monkeypatch.setattr(watcher.os, "kill", lambda pid, how: None)
    monkeypatch.setattr(watcher.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(watcher, "_say_that_it_hung", lambda *_: 1 / 0)
    begin(tmp_path).close()
    with pytest.raises(ZeroDivisionError):
        watcher._end(Reader(tmp_path), tmp_path, 4711, "slow", 1.0)
    assert watcher.signal.SIGKILL in ended


@pytest.mark.parametrize("end", ['book.write("reported")', "import shutil; shutil.rmtree(folder)"])
def test_the_watcher_leaves_a_run_that_ended_well_or_was_refused_alone(tmp_path, end):
    folder = tmp_path / "run"
    folder.mkdir()
    run = child(folder, end)
    assert run.communicate(timeout=60)[1] == ""
    assert run.returncode == 0
    assert not (folder / publish.JSON_NAME).exists()


def test_what_a_run_started_is_found(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as process:
        try:
            assert process.pid in watcher.descendants(os.getpid())
        finally:
            process.kill()


def test_run_folders_never_collide(tmp_path):
    stamp = "2026-11-22T12:00:00+00:00"
    first = publish.new_run_folder(tmp_path, stamp, "npu:0")
    second = publish.new_run_folder(tmp_path, stamp, "npu:0")
    assert first.name == "20261122T120000Z-npu-0"
    assert second.name == "20261122T120000Z-npu-0.2"


def facts(top, reasons=(), report=None):
    return {"paths": {"top": str(top), "report": report}, "selection": {"reasons": list(reasons)}}


def qualification(top, reasons=(), report=None):
    from fixtures.core.records import Qualification

    return Qualification((CASE,), facts(top, reasons, report), "2026", "2026")


def test_a_subset_never_replaces_the_copy_of_a_full_run(tmp_path):
    top, full, part = tmp_path / "reports", tmp_path / "full", tmp_path / "part"
    for folder in (top, full, part):
        folder.mkdir()
    (full / publish.JSON_NAME).write_text(json.dumps({"selection": {"reasons": []}}))
    (full / publish.HTML_NAME).write_text("full")
    (part / publish.JSON_NAME).write_text(json.dumps({"selection": {"reasons": ["-m smoke"]}}))
    publish.copy_out(part, qualification(top, ["-m smoke"]))
    assert (top / publish.JSON_NAME).exists(), "a subset is better than nothing"
    publish.copy_out(full, qualification(top))
    assert (top / publish.HTML_NAME).read_text() == "full"
    publish.copy_out(part, qualification(top, ["-m smoke"]))
    assert (top / publish.HTML_NAME).read_text() == "full"
    wanted = tmp_path / "mine" / "result.json"
    publish.copy_out(part, qualification(top, ["-m smoke"], str(wanted)))
    assert json.loads(wanted.read_text())["selection"]["reasons"] == ["-m smoke"]


def test_a_fusion_result_that_appears_when_the_process_ends_is_put_into_its_reports(tmp_path):
    from fixtures.core.report import html
    from fixtures.core.verdict import conclude

    begin(tmp_path).close()
    run = journal.read(tmp_path).qualification()
    publish.publish(tmp_path, run, html=True)
    publish.refresh_fusion(tmp_path, 4711)
    assert stored(tmp_path)["fusion"] is None, "there is none yet"
    made = tmp_path / "FE" / "4711" / "fusion_result.json"
    made.parent.mkdir(parents=True)
    passes = {"MyFusionPass": {"effect_times": "2", "match_times": "3"}}
    made.write_text(json.dumps({"session_and_graph_id_0_0": {"graph_fusion": passes}}))
    page = tmp_path / publish.HTML_NAME
    page.write_text(f"<p>kept</p>{html.fragment(run, conclude(run))}<p>kept too</p>")
    publish.refresh_fusion(tmp_path, 4711)
    assert stored(tmp_path)["fusion"]["found"] is True
    text = page.read_text()
    assert text.startswith("<p>kept</p>")
    assert text.endswith("<p>kept too</p>")
    assert "MyFusionPass" in text
    assert "MyFusionPass" in (tmp_path / "adaptation_report.md").read_text()

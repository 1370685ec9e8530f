"""fusion_result.json is read in both schemas, glued, cut and damaged, and only this run's."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core import fusion
from fixtures.core.fusion import NAME, find, summarise

# pass names and counts as in public repositories: volcengine/verl, zhouxzh/Ascend310
LIST = [
    {
        "graph_fusion": {
            "RefreshInt64ToInt32FusionPass": {"effect_times": "0", "match_times": "1"},
            "TransdataCastFusionPass": {"effect_times": "0", "match_times": "1"},
        },
        "session_and_graph_id": "0_0",
    }
]
OBJECT = {
    "session_and_graph_id_0_0": {
        "graph_fusion": {
            "FIXPIPEFUSIONPASS": {"effect_times": "47", "match_times": "50"},
            "BatchNormBnInferFusionPass": {"effect_times": "1", "match_times": "1"},
        },
        "ub_fusion": {
            "TbeConvFixPipeFusionPass": {
                "effect_times": "46",
                "match_times": "46",
                "repository_hit_times": "0",
            }
        },
    },
    "session_and_graph_id_1_2": {
        "graph_fusion": {"FIXPIPEFUSIONPASS": {"effect_times": "3", "match_times": "3"}}
    },
}


def test_the_current_schema():
    read = summarise(json.dumps(OBJECT, indent=4))
    assert [session["id"] for session in read["sessions"]] == ["0_0", "1_2"]
    assert read["sessions"][0]["passes"][0] == {
        "kind": "graph_fusion",
        "pass": "FIXPIPEFUSIONPASS",
        "match": 50,
        "effect": 47,
    }
    assert read["totals"]["graph_fusion/FIXPIPEFUSIONPASS"] == {"match": 53, "effect": 50}
    assert read["totals"]["ub_fusion/TbeConvFixPipeFusionPass"] == {
        "match": 46,
        "effect": 46,
        "repository": 0,
    }
    assert read["problems"] == []


def test_the_older_schema():
    read = summarise(json.dumps(LIST))
    assert [session["id"] for session in read["sessions"]] == ["0_0"]
    assert read["totals"]["graph_fusion/TransdataCastFusionPass"] == {"match": 1, "effect": 0}
    assert read["problems"] == []


@pytest.mark.parametrize("glue", ["", "\n", " , \n"])
def test_lists_one_after_the_other(glue):
    read = summarise(glue.join([json.dumps(LIST)] * 3))
    assert len(read["sessions"]) == 3
    assert read["totals"]["graph_fusion/TransdataCastFusionPass"] == {"match": 3, "effect": 0}
    assert read["problems"] == []


def test_both_schemas_in_one_file_and_a_session_without_a_list():
    read = summarise(json.dumps(OBJECT) + json.dumps(LIST[0]))
    assert [session["id"] for session in read["sessions"]] == ["0_0", "1_2", "0_0"]


def test_a_damaged_end_keeps_what_came_before_it():
    text = json.dumps(LIST) + '[{"graph_fusion": {"X'
    read = summarise(text)
    assert len(read["sessions"]) == 1
    assert len(read["problems"]) == 1
    assert "it is damaged from character" in read["problems"][0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it holds no session"),
        ("not json", "it is damaged from character 0 of 8 on"),
        ("[" * 200_000, "it is damaged"),
        ("[1, 2]", "session ? is no object"),
        ('{"session_and_graph_id_0_0": 3}', "session 0_0 is no object"),
        (
            '[{"graph_fusion": {"P": {"match_times": "many"}}, "session_and_graph_id": "0_0"}]',
            "session 0_0, P: match_times is 'many', no count",
        ),
        ('[{"graph_fusion": {"P": 5}}]', "P: match_times is 'nothing', no count"),
    ],
)
def test_what_cannot_be_read_is_said(text, words):
    read = summarise(text)
    assert words in read["problems"][0]
    json.dumps(read)


def test_a_pass_list_of_a_wrong_type_is_no_pass():
    assert summarise('[{"graph_fusion": [1]}]')["totals"] == {}


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")))
def test_no_text_breaks_it(text):
    json.dumps(summarise(text))


@given(st.data())
def test_no_cut_breaks_it(data):
    text = json.dumps(OBJECT) + json.dumps(LIST)
    at = data.draw(st.integers(0, len(text)))
    read = summarise(text[:at])
    assert len(read["sessions"]) <= 3
    assert bool(read["problems"]) == (at not in (len(json.dumps(OBJECT)), len(text)))


# --- which file is this run's


def write(folder, value=LIST):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(json.dumps(value))
    return str((folder / NAME).resolve())


def test_no_file_is_no_failure(tmp_path):
    found = find(tmp_path / "run", None, tmp_path, os.getpid())
    assert not found["found"]
    assert "no graph was compiled" in found["text"]
    assert (found["files"], found["others"]) == ([], [])


def test_this_process_file_is_told_from_others(tmp_path):
    run, work = tmp_path / "run", tmp_path / "work"
    mine = write(work / "FE" / "42", OBJECT)
    other = write(work / "FE" / "43")
    stray = write(tmp_path)
    found = find(run, str(work), tmp_path, 42)
    assert [file["path"] for file in found["files"]] == [mine]
    assert found["others"] == sorted([other, stray])
    assert found["found"]
    assert "2 sessions, 3 passes, 100 matches, 97 took effect" in found["text"]
    assert f"Not from this run, and not read: {', '.join(found['others'])}" in found["text"]
    json.dumps(found)


def test_what_a_child_left_in_the_runs_folder_is_this_runs(tmp_path):
    run = tmp_path / "run"
    child = write(run / "graph" / "FE" / "99")
    found = find(run, str(run), tmp_path, 42)
    assert [file["path"] for file in found["files"]] == [child]
    assert found["others"] == []


def test_a_damaged_file_of_this_run_is_named(tmp_path):
    write(tmp_path / "run")
    (tmp_path / "run" / NAME).write_text('{"session')
    found = find(tmp_path / "run", None, tmp_path, 1)
    assert found["found"]
    assert "it is damaged from character 1 of 9" in found["text"]


def test_a_file_that_is_too_large_or_unreadable_is_not_read(tmp_path, monkeypatch):
    write(tmp_path / "run")
    monkeypatch.setattr(fusion, "MAX_BYTES", 3)
    assert "it is too large" in find(tmp_path / "run", None, tmp_path, 1)["text"]
    assert "it cannot be read (No such file" in fusion._read(tmp_path / "none")["problems"][0]

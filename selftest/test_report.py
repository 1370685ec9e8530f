"""The reports of a run: the JSON and its schema, the page, the two documents, how they are written.

Each is made for every sample run, the bad ones above all: empty, crashed, hostile, not finite.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest

from fixtures.core import report as reports
from fixtures.core.limits import all_limits
from fixtures.core.records import Case, Figure, Limit, Qualification, Status, plain
from fixtures.core.report import columns, evidence, html, markdown, plots, sections, view
from fixtures.core.verdict import conclude
from selftest import sample

RUNS = pytest.mark.parametrize("made", sample.RUNS.values(), ids=sample.RUNS)

VOID = {"br", "meta", "link", "img", "input", "hr", "wbr", "use", "path"}


@pytest.fixture(scope="module")
def schema():
    """The shipped JSON Schema, itself valid."""
    loaded = json.loads(reports.SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(loaded)
    return jsonschema.Draft202012Validator(loaded)


def as_json(qualification):
    """A run's report as it is after having been written and read."""
    made = reports.as_json(qualification, sample.verdict(qualification))
    return json.loads(json.dumps(made, allow_nan=False))


def page(qualification):
    """The head of the page, without plots."""
    return html.fragment(
        qualification,
        sample.verdict(qualification),
        dict.fromkeys(plots.PLOTS, ""),
    )


def document(qualification, language="en"):
    """One adaptation document."""
    return markdown.render(as_json(qualification), language)


class Page(HTMLParser):
    """Reads a page as a browser does: tags in order, text, and whether tags close one another."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        """Note a tag and what stands in it."""
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("span", "b", "code"):
            self.text.append(" ")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        """Fail if it is not the one that is open."""
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        """Note the text that a reader sees."""
        if not {"style", "title"} & set(self._open[-1:]):
            self.text.append(data)

    @property
    def words(self):
        """All text, spaces as one."""
        return " ".join("".join(self.text).split())


# --- JSON ------------------------------------------------------------------------------------


@RUNS
def test_the_json_is_as_its_schema_says(made, schema):
    """Every run's report is valid against the shipped schema."""
    schema.validate(as_json(made()))


@RUNS
def test_a_stored_report_can_be_judged_again(made):
    """What is read back gives the same verdict and the same report, whatever happened."""
    run = made()
    first = as_json(run)

    again = reports.from_json(first)

    assert conclude(again) == conclude(run)
    assert as_json(again) == first


def test_reading_back_loses_nothing():
    """A run whose figures are all finite comes back equal."""
    run = sample.failed()

    again = reports.from_json(as_json(run))

    assert again.cases == run.cases
    assert {k: v for k, v in run.facts.items() if v is not None} == again.facts
    assert (again.started_at, again.finished_at) == (run.started_at, run.finished_at)


@pytest.mark.parametrize(
    "damage",
    [
        lambda report: report.pop("latency"),
        lambda report: report.update(extra=1),
        lambda report: report["verdict"].update(status="FINE"),
        lambda report: report["latency"].update(mean_ms="36 ms"),
        lambda report: report["latency"].pop("p99_ms"),
        lambda report: report["cases"][0].update(status="OK"),
        lambda report: report["cases"][0].update(note=""),
        lambda report: report["cases"][5]["figures"][0].update(note=""),
        lambda report: report["throughput"][0].pop("reasons"),
        lambda report: report["operators"][0].update(status="fine"),
        lambda report: report["strict"][0].pop("rows"),
        lambda report: report["strict"][0].update(note=""),
        lambda report: report["mutants"][0]["trials"][0].update(caught="yes"),
        lambda report: report["soak"].append({"case": "x", "case_status": "PASS"}),
        lambda report: report["selection"].update(on_demand="all"),
        lambda report: report["subject"]["weights"].update(source="somewhere"),
        lambda report: report.update(schema_version="2.0"),
        lambda report: report["cases"][0]["figures"].append(
            {"name": "x", "value": None, "unit": "", "reason": ""}
        ),
    ],
)
def test_the_schema_is_strict(schema, damage):
    """A report that lacks something, or says it otherwise, is not valid."""
    report = as_json(sample.qualified())
    damage(report)

    with pytest.raises(jsonschema.ValidationError):
        schema.validate(report)


def test_the_keys_are_those_that_others_rely_on():
    """The names of the interface stay."""
    report = as_json(sample.qualified())

    assert set(report) == {
        "schema_version", "verdict", "subject", "device", "suite", "environment", "selection",
        "settings", "fusion", "time_spent", "interrupted", "command", "limits", "precision",
        "latency", "throughput", "operators", "inference", "weights", "layers", "budget",
        "strict", "mutants", "host", "synthetic", "math_mode", "strict_switch", "repeats",
        "batch_invariance", "varying", "signatures", "training_step", "optimizer",
        "stochastic_depth", "loss_scaling", "fine_tune", "soak", "cold_start", "replicates",
        "bounds", "mode", "recommendation", "sweep", "pipeline", "comparison", "power",
        "references", "cases", "facts", "started_at", "finished_at",
    }  # fmt: skip
    assert {"status", "reasons"} <= set(report["verdict"])
    assert {
        "cold_start_ms", "mean_ms", "min_ms", "max_ms", "p50_ms", "p90_ms", "p99_ms", "samples_ms"
    } <= set(report["latency"])  # fmt: skip
    assert {"batch_size", "samples_per_second", "latency_ms", "peak_memory_bytes"} <= set(
        report["throughput"][0]
    )


def test_the_schema_version_has_a_dated_history():
    """The version in the report is the newest of the history, each entry with its date."""
    assert as_json(sample.empty())["schema_version"] == list(reports.SCHEMA_HISTORY)[-1]
    assert all(re.match(r"\d{4}-\d\d-\d\d: \w", text) for text in reports.SCHEMA_HISTORY.values())


@pytest.mark.parametrize("version", [None, "", "2.0", "0.9"])
def test_another_version_is_refused(version):
    """A report of another major version is not read as if it were ours."""
    report = as_json(sample.empty()) | {"schema_version": version}

    with pytest.raises(ValueError, match="no validation report of version 1"):
        reports.from_json(report)


def test_a_figure_that_was_not_measured_is_null_with_a_reason():
    """A percentile that its sample cannot bound is null, and the reason stands beside it."""
    latency = as_json(sample.qualified())["latency"]

    assert latency["p99_ms"] is None
    assert latency["reasons"]["p99_ms"].startswith("320 samples; p99 needs 662")
    assert latency["p50_ms"] == pytest.approx(36.03, abs=0.01)
    assert len(latency["samples_ms"]) == 320


def test_sections_carry_their_case():
    """Every entry names the case that recorded it and how that ended."""
    report = as_json(sample.failed())

    assert report["latency"]["case"] == "tests/test_latency.py::test_latency"
    assert report["latency"]["case_status"] == "INCONCLUSIVE"
    assert [row["case_status"] for row in report["throughput"]] == ["PASS", "PASS", "PASS", "FAIL"]
    assert report["precision"]["case_status"] == "FAIL"


def test_precision_is_given_at_its_worst():
    """Each metric is the worst over all batch sizes, and says where."""
    metrics = {m["name"]: m for m in as_json(sample.failed())["precision"]["metrics"]}

    assert metrics["max_abs_error"]["value"] > 0.05
    assert metrics["max_abs_error"]["batch_size"] == 8
    assert metrics["max_abs_error"]["status"] == "FAIL"
    assert metrics["min_cosine_similarity"]["batch_size"] == 8
    assert metrics["min_cosine_similarity"]["status"] == "PASS"
    assert metrics["mean_abs_error"]["status"] is None


def test_what_is_not_a_number_is_the_worst():
    """A NaN at one batch size is not hidden by a good figure at another."""
    bad = sample.not_finite().cases
    good = tuple(case for case in sample.cases() if "precision" in case.id)
    for cases in (bad + good, good + bad):
        run = dataclasses.replace(sample.qualified(), cases=cases)

        metrics = {m["name"]: m for m in as_json(run)["precision"]["metrics"]}

        assert metrics["min_cosine_similarity"]["value"] == "nan"
        assert metrics["min_cosine_similarity"]["status"] == "FAIL"
        assert metrics["max_abs_error"]["value"] == "inf"


@pytest.mark.parametrize(("values", "worst"), [((1.0, 0.9), 0.9), ((0.9, 1.0), 0.9)])
def test_identity_is_worst_where_it_differs_from_its_bound(values, worst):
    """For an equality the worst is what is farthest from it."""
    limit = all_limits(())["identity"]
    cases = tuple(
        Case(
            f"tests/test_precision.py::test_agreement[b{n}]",
            Status.PASS,
            figures=(Figure("identity", value),),
            limits=(limit,),
            records={"precision": {"batch_size": n, "identity": value, "rows": []}},
        )
        for n, value in enumerate(values, 1)
    )

    (metric,) = as_json(Qualification(cases, {}, "", ""))["precision"]["metrics"]

    assert metric["value"] == worst


def test_a_metric_without_a_value_says_why():
    """An output of the wrong shape has no figures, and the report says that."""
    figure = Figure("max_abs_error", None, reason="the output has the shape (1, 2)")
    case = Case(
        "tests/test_precision.py::test_agreement[b1]",
        Status.FAIL,
        figures=(figure,),
        limits=(all_limits(())["max_abs_error"],),
        records={"precision": {"batch_size": 1, "max_abs_error": None, "rows": []}},
    )
    run = Qualification((case,), {}, "", "")

    (metric,) = as_json(run)["precision"]["metrics"]

    assert metric["status"] == "FAIL"
    assert metric["reason"] == "the output has the shape (1, 2)"
    assert "not measured (the output has the shape (1, 2))" in Page(page(run)).words


def test_out_of_memory_is_a_result():
    """A batch that did not fit stands in the table, with nulls and the reason."""
    row = as_json(sample.failed())["throughput"][-1]

    assert row["out_of_memory"] is True
    assert row["samples_per_second"] is None
    assert row["reasons"]["samples_per_second"] == "out of memory"


def test_a_case_that_recorded_nothing_keeps_its_place():
    """A throughput or operator case that hung is in its section, with what happened."""
    run = sample.qualified()
    hung = [
        Case("tests/test_throughput.py::test_throughput[b32]", Status.HANG, ("performance",),
             {"batch_size": 32}, sentences=("it hung",)),
        Case("tests/test_throughput.py::test_throughput[bx]", Status.FAIL, ("performance",)),
        Case("tests/test_operators.py::test_operator[gelu-stage9-float32]", Status.HANG,
             ("operators",), sentences=("it hung",)),
        Case("tests/test_operators.py::test_fallback", Status.NOT_RUN, ("operators",)),
    ]  # fmt: skip
    report = as_json(dataclasses.replace(run, cases=(*run.cases, *hung)))

    *_, last, nowhere = report["throughput"]
    assert (last["batch_size"], last["reasons"]["latency_ms"]) == (32, "it hung")
    assert (nowhere["batch_size"], nowhere["reasons"]["latency_ms"]) == (None, "FAIL")
    gelu, fallback = report["operators"][-2:]
    assert (gelu["family"], gelu["status"], gelu["reason"]) == ("GELU", "not measured", "it hung")
    assert fallback["family"] == "test_fallback"
    families = {row.family: row for row in view.operators(report)}
    assert families["GELU"].status == "not measured"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cases": ()}, "no such case was run"),
        (
            {"cases": (), "facts": {"selection": {"deselected": ["test_latency.py::x"]}}},
            "deselected",
        ),
        ({"cases": (), "facts": {"interrupted": "Ctrl-C"}}, "the run was interrupted: Ctrl-C"),
        ({"cases": (Case("test_latency.py::x", Status.PASS),)}, "no case recorded it"),
        (
            {"cases": (Case("test_latency.py::x", Status.NOT_RUN, reason="it is off"),)},
            "NOT RUN: it is off",
        ),
        ({"cases": (Case("test_latency.py::x", Status.HANG),)}, "HANG"),
    ],
)
def test_why_nothing_was_measured_is_said(change, reason):
    """A figure that is missing has the reason, in the words of the case that should have it."""
    run = dataclasses.replace(sample.empty(), **change)

    assert as_json(run)["latency"]["reasons"]["mean_ms"] == reason


def test_the_largest_sample_at_batch_one_is_the_latency():
    """Of several latency cases the document's figures are those of the largest at batch 1."""
    small, large, other = (
        Case(f"test_latency.py::{n}", Status.PASS, records={"latency": record.as_json()})
        for n, record in enumerate(
            (
                sample.latency(20),
                sample.latency(90),
                dataclasses.replace(sample.latency(99), batch_size=4),
            )
        )
    )  # fmt: skip
    latency = as_json(Qualification((small, large, other), {}, "", ""))["latency"]

    assert latency["case"] == large.id
    assert latency["batch_size"] == 1


def test_a_case_may_record_several_of_a_kind():
    """A list under one kind is several entries; what is no object is none."""
    case = Case("x", Status.PASS, records={"inference": [{"pictures": 1}, {"pictures": 2}, None]})

    found = sections.recorded(Qualification((case,), {}, "", ""), "inference")

    assert [entry["pictures"] for entry in found] == [1, 2]


def test_limits_in_force_are_listed_with_their_override():
    """What the user set is marked, and whether it is looser than the table."""
    limits = as_json(sample.failed())["limits"]

    assert limits["mean_cosine_similarity"]["overridden"] is True
    assert limits["mean_cosine_similarity"]["loosened"] is True
    assert limits["max_abs_error"]["overridden"] is False
    assert limits["max_abs_error"]["bound"] == 0.05


def test_a_run_whose_limits_are_not_a_fact_takes_them_from_its_cases():
    """After a crash the limits are those that the cases carry."""
    limit = Limit("max_abs_error", "<", 0.5, "mine", default=0.05)
    case = Case("x", Status.PASS, limits=(limit,))

    limits = as_json(Qualification((case,), {}, "", ""))["limits"]

    assert limits["max_abs_error"]["loosened"] is True


# --- writing ---------------------------------------------------------------------------------


def test_everything_is_written(tmp_path):
    """JSON, both documents and the page, in UTF-8, nothing else left behind."""
    run = sample.rehearsal()

    paths = reports.write_all(tmp_path, run, sample.verdict(run))

    assert [path.name for path in paths] == [
        "validation_report.json",
        "adaptation_report.md",
        "adaptation_report.zh-CN.md",
        "report.html",
    ]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert json.loads(paths[0].read_text(encoding="utf-8")) == as_json(run)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in paths)


def test_the_page_is_left_to_pytest_html(tmp_path):
    """Where pytest-html writes its page, ours does not take its place."""
    run = sample.empty()

    paths = reports.write_all(tmp_path, run, sample.verdict(run), html=False)

    assert len(paths) == 3
    assert not (tmp_path / "report.html").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """A full disk in the middle of writing costs the new report, not the old one."""
    path = tmp_path / "validation_report.json"
    reports.write_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        reports.write_atomic(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_figures_are_written_before_the_pages(tmp_path, monkeypatch):
    """A fault in a page costs that page; the JSON is on disk by then."""

    def broken(*_):
        raise RuntimeError("a template is broken")

    monkeypatch.setattr(markdown, "render", broken)
    run = sample.qualified()
    with pytest.raises(RuntimeError):
        reports.write_all(tmp_path, run, sample.verdict(run))

    assert json.loads((tmp_path / "validation_report.json").read_text()) == as_json(run)


def test_a_folder_that_is_gone_is_an_os_error(tmp_path):
    """Nothing is written anywhere else."""
    run = sample.empty()

    with pytest.raises(OSError, match="No such file"):
        reports.write_all(tmp_path / "gone", run, sample.verdict(run))


def test_a_file_name_that_is_no_text_is_written(tmp_path):
    """A path with undecodable bytes neither stops the reports nor changes in the JSON."""
    name = "b\udce9b\u00e9\u4e2d\u6587\U0001f600.png"
    case = Case(f"tests/test_inference.py::test_x[{name}]", Status.FAIL, sentences=(name,))
    run = Qualification((case,), {"command": f"pytest --image {name}"}, "", "")

    paths = reports.write_all(tmp_path, run, sample.verdict(run))

    stored = json.loads(paths[0].read_text(encoding="utf-8"))
    assert stored["cases"][0]["sentences"] == [name]
    for path in paths:
        assert "\u4e2d\u6587\U0001f600" in path.read_text(encoding="utf-8")


# --- the page --------------------------------------------------------------------------------


@RUNS
def test_the_head_is_well_formed(made):
    """Every tag is closed, for every run."""
    Page(page(made()))


@RUNS
def test_the_page_says_the_verdict(made):
    """Status, network, card and weights stand at its top."""
    run = made()
    verdict = sample.verdict(run)

    words = Page(page(run)).words

    assert verdict.status in words
    assert " ".join(verdict.line.partition(": ")[2].split()) in words


def test_a_rehearsal_is_labelled_big():
    """Nobody takes a rehearsal for a qualification, whatever else it came to."""
    assert '<p class="q-verdict">REHEARSAL' in page(sample.rehearsal())
    failed = dataclasses.replace(sample.failed(), facts=sample.facts(sample.CPU, sample.SYNTHETIC))
    assert re.search(
        r'<p class="q-verdict">NOT QUALIFIED\s*<span class="q-badge">REHEARSAL', page(failed)
    )
    assert "REHEARSAL" not in page(sample.qualified())


def test_hostile_text_stays_text():
    """No name, path or tool's output becomes markup, on the page or in the whole page."""
    run = sample.hostile()
    whole = html.standalone(run, sample.verdict(run))

    for text in (page(run), whole):
        read = Page(text)
        assert "script" not in read.tags
        assert text.count('<script>alert("1")') == 0
        assert '<script>alert("1")</script>' in read.words
        assert not any(name.startswith("on") for name, _ in read.attributes)


def test_the_page_shows_what_an_engineer_looks_for():
    """Figures, limits, published figures, operators, time and the document's block."""
    words = Page(page(sample.qualified())).words

    for text in (
        "torch_version: 2.9.0+cpu",
        "[INCOMPLETE] Environment check",
        "Max absolute error 0.0109999 16 < 0.05 PASS 0.0118 -6.8 %",
        "Mean 36.81 58.31 -36.9 %",
        "p99 not measured (320 samples; p99 needs 662 at 99% confidence)",
        "16 226.65 310.75 -27.1 % 70.59 51.49 +37.1 %",
        "DepthwiseConv2d supported 12 float32, float16, bfloat16 0.25 convolution",
        "reference 1 min 24 s 34.1 %",
        "published for Ascend 910B4",
        "no graph was compiled",
        "Card health OK",
        "{0} of {0}".format(len(sample.qualified().cases)),
    ):
        assert text in words, text


def test_the_page_says_what_was_not_run():
    """A subset, what was deselected, and what was skipped with its reason."""
    smoke = Page(page(sample.subset())).words
    broken = Page(page(sample.failed())).words

    assert "This was a subset" in smoke
    assert "cases were deselected by -m 'smoke'" in smoke
    assert "test_inference.py" in smoke
    assert "tests/test_precision.py::test_agreement[b4]" in smoke
    assert "npu-smi is not installed" in broken
    assert "(informs only)" in broken
    assert "mean cosine similarity was set by --limit" in broken.lower()
    assert "That is looser." in broken


def test_a_crashed_run_has_a_page():
    """It says that the run ended before its time, and why each figure is missing."""
    run = sample.crashed()
    words = Page(html.standalone(run, sample.verdict(run))).words

    assert "The run ended before its time" in words
    assert "INCOMPLETE" in words
    assert "No device was opened." in words
    assert "tests/test_environment.py::test_versions" in words


def test_the_whole_page_needs_nothing_beside_it():
    """No script, no file, no address is loaded."""
    run = sample.failed()
    text = html.standalone(run, sample.verdict(run))
    read = Page(text)

    assert "script" not in read.tags
    assert "link" not in read.tags
    for name, value in read.attributes:
        assert name != "src"
        assert name != "href" or value.startswith("#")
    assert "@import" not in text
    assert "url(http" not in text
    assert read.words.count("GELU (gelu-stage1-float16) on npu:0 is wrong") >= 2  # reason and row


def test_the_head_can_be_replaced():
    """A page of pytest-html gets a new head, and keeps all else."""
    old, new = page(sample.empty()), page(sample.qualified())
    around = f"<html><body>before{old}after</body></html>"

    assert html.replace_fragment(around, new) == f"<html><body>before{new}after</body></html>"


@pytest.mark.parametrize(
    "text", ["", html.BEGIN, html.END + html.BEGIN, 2 * (html.BEGIN + html.END)]
)
def test_a_page_without_one_head_is_refused(text):
    """Nothing is guessed about a page that is not ours."""
    with pytest.raises(ValueError, match="one head"):
        html.replace_fragment(text, "")


def test_many_reasons_are_folded():
    """Two hundred failures do not bury the figures."""
    cases = tuple(Case(f"tests/test_x.py::test_x[{n}]", Status.FAIL) for n in range(200))
    run = dataclasses.replace(sample.qualified(), cases=cases)

    text = page(run)

    assert re.search(r"<summary>2\d\d more</summary>", text)


def test_light_dark_print_and_narrow_are_styled():
    """The page follows the reader's scheme and paper."""
    css = html.css()

    assert "prefers-color-scheme: dark" in css
    assert "@media print" in css
    assert "max-width: 40rem" in css
    light, dark = re.findall(r":root \{([^}]*--q-ink[^}]*)\}", css)
    names = re.compile(r"--q-[a-z-]+(?=:)")
    assert set(names.findall(light)) == set(names.findall(dark))
    assert set(re.findall(r"var\((--q-[a-z-]+)", css)) <= {
        *names.findall(light), "--q-tone", "--q-tone-soft"
    }  # fmt: skip


# --- columns ---------------------------------------------------------------------------------


@pytest.mark.parametrize("column", columns.COLUMNS, ids=lambda column: column.name)
def test_a_column_renders_an_empty_case(column):
    """Each column has a text for a case of which nothing is known."""
    assert isinstance(column.text(Case("x", Status.NOT_RUN)), str)


def test_header_and_cells_agree():
    """As many cells as headers, for a case and for none."""
    case = sample.failed().cases[0]

    assert len(columns.header()) == len(columns.cells(case)) == len(columns.cells(None))
    assert all(re.fullmatch(r"<th [^>]*>.*</th>", cell) for cell in columns.header())


def test_judged_figures_come_first_with_their_limit():
    """The figure that decided stands on top; only a few of the others follow."""
    limit = Limit("judged", "<", 2.0, "here", "ms", default=1.0)
    others = tuple(Figure(f"other_{n}", n) for n in range(9))
    missing = Figure("missing", None, reason="nobody asked")
    case = Case(
        "x", Status.PASS, figures=(missing, *others, Figure("judged", 1.5, "ms")), limits=(limit,)
    )

    lines = columns.figures(case).splitlines()

    assert lines[0] == "judged 1.5 ms (< 2, --limit)"
    assert lines[1] == "missing: not known (nobody asked)"
    assert lines[-1] == "and 4 more in the JSON report"


def test_remarks_hold_sentence_reason_and_doubt():
    """All that explains a case is in its row."""
    case = Case("x", Status.FAIL, sentences=("a",), reason="b", doubts=("c",), required=False)

    assert columns.remarks(case) == "a\nb\ndoubt: c"
    assert columns.status(case) == "FAIL\ninforms only"


def test_cells_are_escaped():
    """What a case says is text."""
    run = sample.hostile()

    for case in run.cases:
        for cell in columns.cells(case):
            assert re.fullmatch(r"<td class=\"[a-z -]+\">[^<>]*</td>", cell, re.DOTALL)


def test_the_first_divergence_and_the_budget_are_shown():
    """The operator that is wrong first is on the page and in both documents, with the budget."""
    run = sample.failed()
    shown = Page(page(run)).words
    english, chinese = document(run), document(run, "zh-CN")

    sentence = "first wrong: operator layer_norm of stages.0.blocks.1.norm (step 12 of 30)"
    for text in (shown, english, chinese):
        assert sentence in text
        assert "error budget: of a relative error of 0.0047" in text
    assert (
        "| 12 | `layer_norm` | `stages.0.blocks.1.norm` | 0.031 | 0.00052 | 60 | 0.028 |" in english
    )
    assert "### 6.18 逐算子对比" in chinese
    assert "| 未能解释的部分 |  | 0.0047 | 99.7 % |" in chinese
    assert "Error budget" in shown
    for text in (Page(page(sample.qualified())).words, document(sample.qualified())):
        assert "operator by operator" not in text
        assert "budget" not in text


def test_a_comparison_without_a_fault_says_so():
    """Every operator right: a sentence, and the operators nearest to their limits."""
    run = sample.qualified()
    case = next(case for case in run.cases if "precision" in case.id)
    case.records["layers"] = plain(sample.divergence().as_json())

    assert "Each of 30 operators and 5 modules, fed with the reference's own operands" in (
        Page(page(run)).words
    )
    assert "each of 30 operators and 5 modules" in document(run)


def test_what_is_infinite_is_the_worst():
    """An error that is no number stands first, and is all of the budget."""
    run = sample.failed()
    case = next(case for case in run.cases if "layers" in case.records)
    steps = case.records["layers"]["steps"]
    steps[4] = {**steps[4], "local_error": "inf", "local_share": "inf", "wrong": True}
    steps[5] = {**steps[5], "module": "", "instead_of": "gelu", "function": "relu"}
    case.records["budget"]["unexplained"] = "inf"
    report = as_json(run)

    (layers,), (budget,) = view.layers(report), view.budgets(report)
    assert (layers.worst[0].error, layers.worst[0].share) == ("inf", "inf")
    assert len(layers.worst) == view.MOST_STEPS
    assert [part.share for part in budget.parts] == [0, 0, 0, 1]
    assert plots.draw(report, "layers")["layers"].startswith("<figure")
    case.records["layers"]["steps"] = [
        {**step, "local_error": 0.0, "local_limit": 0.0, "accumulated_error": 0.0,
         "emulated_error": None, "stream_share": 2.0 if step["index"] == 6 else None}
        for step in steps
    ]  # fmt: skip
    report = as_json(run)
    row = next(row for row in view.layers(report)[0].worst if "relu" in row.operator)
    assert (row.operator, row.module, row.share) == ("relu (reference: gelu)", "-", "2")
    assert plots.draw(report, "layers")["layers"].startswith("<figure")


# --- what a pass rests on --------------------------------------------------------------------


def section(run, heading):
    """The words of one section of the page, from its heading to the next."""
    words = Page(page(run).replace("<h2>", "<h2>@@")).words
    return next(part for part in words.split("@@") if part.startswith(heading))


HEADINGS = ("Strict gate", "The gates' own proof", "Host and golden outputs",
            "Measured arithmetic", "Determinism", "Training", "The network's own operators",
            "Under load (soak)")  # fmt: skip


def only(*parts, **facts):
    """A run of the sample's cases whose ids hold one of these."""
    run = sample.qualified()
    cases = tuple(case for case in run.cases if any(part in case.id for part in parts))
    return dataclasses.replace(run, cases=cases, facts={**run.facts, **facts})


def headings(run):
    """Every second heading of the page, in order."""
    return re.findall(r"<h2>(.*?)</h2>", page(run).replace("&#39;", "'"))


def test_each_kind_that_was_recorded_is_a_section():
    """What the cases filed is gathered by kind, each entry with its case; nothing is unmeasured."""
    report = as_json(sample.qualified())

    for kind in sections.KINDS:
        entries = [] if kind in ("varying", "soak") else report[kind]
        assert entries or kind in ("varying", "soak"), kind
        for entry in entries:
            assert (entry["case_status"], entry["unmeasured"]) == ("PASS", "")
    assert [(e["regime"], e["batch_size"]) for e in report["strict"]] == [
        ("default", 1), ("default", 4), ("default", 8), ("default", 16), ("ieee", 8)
    ]  # fmt: skip
    assert len(report["training_step"]) == 4  # two regimes, autocast and a scaled one


@pytest.mark.parametrize("name", sorted({n for names in sections.KINDS.values() for n in names}))
def test_a_kind_has_cases(name):
    """The functions of the table are those of tests/: none was renamed away."""
    files = (Path(__file__).parent.parent / "tests").glob("test_*.py")

    assert any(f"def {name}(" in path.read_text(encoding="utf-8") for path in files)


def test_what_ended_before_it_was_recorded_keeps_its_place():
    """A hung fine-tune and a regime that the device has not stand in their sections."""
    run = sample.failed()
    none = Case("tests/test_precision.py::test_strict[fp16-b8]", Status.UNSUPPORTED,
                ("precision",), reason="no fp16")  # fmt: skip
    run = dataclasses.replace(run, cases=(*run.cases, none))
    report = as_json(run)

    assert report["fine_tune"] == [
        {"case": "tests/test_training.py::test_fine_tune", "case_status": "HANG",
         "unmeasured": "did not end within 900 s (--case-timeout) and was ended"}
    ]  # fmt: skip
    assert report["strict"][-1]["unmeasured"] == "no fp16"
    assert "UNSUPPORTED test_strict[fp16-b8]: nothing was recorded (no fp16)" in section(
        run, "Strict gate"
    )
    assert "HANG test_fine_tune: nothing was recorded (did not end" in section(run, "Training")
    assert "- HANG `test_fine_tune`: nothing was recorded (did not end" in document(run)


def test_the_strict_gate_is_shown_beside_the_documents():
    """One row per regime and batch size, with the document's gate where it judged the same."""
    good, bad = sample.qualified(), sample.failed()

    words = section(good, "Strict gate")
    assert "default conv hf32, matmul ieee, gelu tanh 1 2.13e-04 2.6e-04 350 0.41" in words
    assert "ieee conv ieee, matmul ieee, gelu tanh 8 5.86e-07 6.1e-07 0.96 0.48" in words
    assert "0.392 1.68e-05 PASS PASS 0.011, 0.999989" in words
    assert "stages.3 2.5e-04 2.6e-04 4e-07" in words
    words = section(bad, "Strict gate")
    assert "9.1 82.8 6.37 2.73e-04 FAIL PASS" not in words  # b8 fails the document's gate as well
    assert "9.1 82.8 6.37 2.73e-04 FAIL FAIL 0.0762, 0.99947" in words
    assert "strict error is 9.1, must be <= 1" not in words  # it stands in its cell
    assert "no such shape" in words
    assert "ieee conv ieee, matmul ieee, gelu tanh 8 - - - - - - - FAIL -" in words
    reason = "the output has the shape (1, 2), the reference (8, 640)"
    assert words.count(reason) == 1
    assert "| ieee | 8 | - |" in document(bad)
    assert f"- `ieee`, 8: {reason}" in document(bad)
    assert "| default | 8 | 0.00473 | 2.6e-04 |" in document(bad)


def test_a_share_near_its_limit_is_not_rounded_to_it():
    """1.0004 reads as more than 1, and 0.9996 as less."""
    values = (1.0004, 0.9996, 1.0, 1.0123, -0.0, 2e-7, 405029.4, 1.6e11, "inf", None)

    assert [evidence.brief(value) for value in values] == [
        "1.0004", "0.9996", "1", "1.01", "0", "2e-07", "405029", "1.6e+11", "inf", ""
    ]  # fmt: skip
    assert evidence.share_text(0.99999) == "< 100 %"
    assert evidence.share_text(1.0) == "100.0 %"
    assert evidence.share_text(1e-5) == "< 0.1 %"


def test_sentences_are_said_once():
    """What several cases say alike is one line, and a hundred lines are cut."""
    assert evidence.once(("a", "b"), ("b",)) == ["a", "b"]
    assert evidence.once(map(str, range(20)))[-1] == "and 4 more in the table of cases"


def test_the_mutants_are_shown_by_row():
    """What each gate stopped, what was claimed, and what it should have stopped and did not."""
    good, bad = section(sample.qualified(), "The gates"), section(sample.failed(), "The gates")

    row = "gelu-form erf for tanh or tanh for erf, everywhere stages.0"
    assert f"{row} let pass stopped claimed let pass 1.7e-04" in good
    assert "not tried (it has none)" in good
    assert "13 claimed, 0 of them missed" in good
    assert f"{row} let pass missed claimed let pass" in bad
    assert "11 of 13 13 claimed, 2 of them missed" in bad
    assert "| gelu-form | erf for tanh or tanh for erf, everywhere; stages.0 | let pass | " in (
        document(sample.failed())
    )
    assert "漏检 (应拦截)" in document(sample.failed(), "zh-CN")
    assert "| 拦截 |  | " in document(sample.failed(), "zh-CN")


def test_mutants_of_regimes_that_differ_are_one_table():
    """A mutant that one regime's panel lacks is not taken for caught."""
    run = only("test_mutants")
    run.cases[1].records["mutants"]["trials"].pop(0)

    (first, *_), rows = (found := evidence.mutants(as_json(run))).rows, found.rows

    assert len(rows) == 14
    assert [trial.word for trial in first.trials] == ["let pass", ""]


def test_the_arithmetic_is_shown_as_declared_and_measured():
    """Each operator of each regime; a difference is marked, what cannot be told is said."""
    good, bad = (section(run(), "Measured") for run in (sample.qualified, sample.failed))

    assert "default Convolutions hf32 hf32 11 to nearest 22 to 23 23 2.44e-04 2 PASS" in good
    assert "default Matrix products ieee ieee and unknown differs 23, 1 not known" in good
    assert "GELU(2.699219) = 2.690311; erf 2.689838, tanh 2.690311" in good
    assert "Convolutions hf32 2.44e-04 ieee 0 PASS" in good
    assert "it gives nothing but zeros" in good
    assert "ieee GELU tanh erf differs FAIL" in bad
    assert "ieee Convolutions ieee hf32 differs 11" in bad


def test_repeats_are_shown():
    """How many outputs differ, the first that does, and which operator it is."""
    words = section(sample.failed(), "Determinism")

    assert "batch 2 no 0 of 9 0 PASS" in words
    assert "yes 2 of 9 2.1e-08 repeat 4, element [0, 17], xor 0x00000001, 3 of 1280" in words
    assert "First to differ: native_layer_norm of stages.1.blocks.0.norm (step 12 of 30)" in words
    assert "default 2, 8 1 of 4 1.6e-07 1 / 8 PASS" in words
    assert "First to differ: `native_layer_norm` of `stages.1.blocks.0.norm`" in document(
        sample.failed()
    )
    assert "`stages.1.blocks.0.norm` 的 `native_layer_norm`" in document(sample.failed(), "zh-CN")


def test_training_is_shown_by_its_worst_tensor():
    """Each case with its worst parameter and that one's share of its limit."""
    good, bad = (section(run(), "Training") for run in (sample.qualified, sample.failed))

    assert "Training step on npu:0 in regime ieee gradient head.fc.weight 0.27 loss 7.41" in good
    assert "Optimizer, two steps sgd head.fc.weight 0.447 parameters compared 101 / 101" in good
    assert "StochasticDepth 0 drop rate 0.75, rows 1080, places 9" in good
    assert "scale 1024, scale afterwards 1024, inf: 512, nan: 256" in good
    assert "Fine-tune of the classifier on npu:0 head.fc.weight 0.2 loss before 7.31" in good
    assert "in regime default gradient head.fc.weight 3.3" in bad
    assert "gradient error in limits is 3.3, must be <= 1" in bad


def test_an_error_that_is_no_number_is_the_worst_of_training():
    """Infinite and missing errors are not passed over for finite ones."""
    report = as_json(sample.not_finite())

    (row,) = evidence.training(report)
    assert (row.worst, row.share) == ("gradient head.fc.weight", "inf")
    (tile,) = evidence.tiles(report)
    assert (tile.text, tile.result) == ("nan", "FAIL")


def test_a_soak_is_shown_only_where_it_ran():
    """It runs on demand: without it nothing is missing, and it is listed as what it is."""
    good, bad = sample.qualified(), sample.failed()

    assert "Under load (soak)" not in headings(good)
    assert "2 cases: on demand, not part of this run" in Page(page(good)).words
    assert "On demand, not part of this run: 2 cases" in document(good)
    assert "soak" not in " ".join(why for _, why in evidence.absent(as_json(good)))
    words = section(bad, "Under load (soak)")
    assert "Outputs that differ 1 / 459" in words
    assert "HBM Single Bit Error Count 1 -> 2" in words
    assert "Highest temperature (°C) 63" in words
    assert "1 of 459 forwards differs from the first" in words
    assert "| 要求的秒数" not in document(bad, "zh-CN")
    assert "| 不一致的输出 | 1 / 459 |" in document(bad, "zh-CN")


def test_nothing_told_of_the_card_is_said():
    """Without a tool the soak's rows say so instead of a zero."""
    run = only("test_x")
    record = plain(sample.evidence.soak().as_json())
    record |= {"memory_slope": None, "throughput_drift": None}
    record["instruments"] |= {"temperatures_c": [], "after": {}, "reason": "no such tool"}
    figure = Figure("memory_slope", None, reason="2 readings are too few for a slope")
    case = Case("tests/test_soak.py::test_soak", Status.PASS, ("soak",), figures=(figure,),
                records={"soak": record})  # fmt: skip

    words = section(dataclasses.replace(run, cases=(case,)), "Under load")

    assert "Memory growth (B per forward) 2 readings are too few for a slope" in words
    assert "Highest temperature (°C) no such tool Error counters that rose no such tool" in words
    assert "Change of throughput not known" in words


def test_signatures_stand_apart_from_the_families():
    """The network's own operators have a table of their own, with their share of the FLOPs."""
    good, bad = sample.qualified(), sample.failed()

    assert not any("aten::" in row.family for row in view.operators(as_json(bad)))
    words = section(good, "The network's own operators")
    assert "inference, float32 2 2 100.0 %" in words
    assert "aten::addmm supported 1 1 92.0 % - 0.21" in words
    assert "aten::convolution supported 2 2 8.0 % 3.0 % 0.21" in words
    assert "1 operators that only view, copy or fill: equal bit by bit" in words
    words = section(bad, "The network's own operators")
    assert words.index("aten::convolution wrong 2 1 1") < words.index("aten::addmm supported")
    assert "convolution-inference-1x3x256x256: it is wrong here" in words
    assert "aten::mm not measured 1 1 - 97.0 %" in words
    assert "mm-training-64x512: did not end within 900 s" in words
    assert "| `aten::convolution` | wrong | 2 | 1 | 0 | 0 | 1 | 0 | 8.0 % | 3.0 % |" in (
        document(bad)
    )


def test_signatures_without_their_sum_have_shares_of_what_was_run():
    """Where the case that adds them up was left out the rows stand for themselves."""
    run = only("test_signature[")

    rows = {row.name: row for row in evidence.signatures(as_json(run))}

    assert rows["aten::addmm"].shares == ("92.0 %", "-")
    assert rows["aten::mm"].shares == ("-", "97.0 %")
    assert "The network's own operators" in headings(run)


def test_the_sum_of_the_signatures_is_no_operator():
    """Neither the case that adds them up nor one that found no table is a row of the operators."""
    run = only("test_signature[")
    more = [
        Case("tests/test_signatures.py::test_network_is_covered", Status.NOT_RUN, ("operators",),
             reason="3 compute signatures were not part of this run"),
        Case("tests/test_signatures.py::test_signature[traced-when-run]", Status.NOT_RUN,
             ("operators",), reason="not traced"),
        Case("tests/test_signatures.py::test_signature[mm-inference-2x2-float16]",
             Status.UNSUPPORTED, ("operators",), reason="no float16"),
    ]  # fmt: skip
    report = as_json(dataclasses.replace(run, cases=(*run.cases, *more)))

    assert len(report["operators"]) == len(run.cases) + 1
    assert view.operators(report) == []
    assert sum(sum(row.counts) for row in evidence.signatures(report)) == len(run.cases)
    assert report["signatures"][0]["unmeasured"].startswith("3 compute signatures")


def test_a_signature_that_hung_is_no_family():
    """A hung GELU of the document's families keeps its name beside the network's own gelu."""
    run = sample.qualified()
    cases = [
        Case("tests/test_signatures.py::test_signature[gelu-inference-1x2]", Status.PASS,
             ("operators",), records={"operators": plain(
                 sample.evidence.signature("gelu", "inference", "1x2", True, 0.0).as_json())}),
        Case("tests/test_signatures.py::test_signature[gelu_backward-training-1x2]", Status.HANG,
             ("operators", "training")),
        Case("tests/test_operators.py::test_operator[gelu-stage9-float32]", Status.HANG,
             ("operators",)),
    ]  # fmt: skip
    *_, backward, gelu = as_json(dataclasses.replace(run, cases=(*run.cases, *cases)))["operators"]

    assert (backward["family"], backward["mode"]) == ("aten::gelu_backward", "training")
    assert (gelu["family"], "mode" in gelu) == ("GELU", False)


def test_golden_outputs_are_shown():
    """The host's own CPU and the device, each beside its limit."""
    words = section(sample.qualified(), "Host and golden")

    assert "Host's float32 2.33e-07 1e-05 0.0233 PASS" in words
    assert "Device, default 2.6e-04 0.001 0.26 PASS" in words


def test_sections_appear_where_something_was_recorded():
    """What was not recorded is a line with the reason, and no heading of its own."""
    whole, gate = headings(sample.qualified()), headings(only("test_strict["))

    assert [name for name in HEADINGS if name in whole] == list(HEADINGS[:-1])
    assert "Not measured in this run" not in whole
    assert [name for name in HEADINGS if name in gate] == ["Strict gate"]
    gone = only("test_strict[", selection={"deselected": ["tests/test_training.py::test_step[x]"],
                                           "on_demand": [sample.SOAK]})  # fmt: skip
    words = section(gone, "Not measured in this run")
    assert "Training: not measured (deselected)" in words
    assert "Determinism: not measured (no such case was run)" in words
    assert "soak" not in words
    assert "- 训练：未被选中" in document(gone, "zh-CN")
    assert "### 6.6 Not measured in this run" in document(gone)


def test_what_runs_on_demand_is_not_missing():
    """The reason for what nobody asked for is that it was not asked for."""
    report = as_json(sample.qualified())

    assert view.missing(report, "layers") == "on demand, not part of this run"
    assert view.missing(report, "test_soak") == "on demand, not part of this run"


def test_the_gates_have_tiles():
    """The worst share of a limit and in which regime, and how many mutants are stopped."""
    good, bad = (
        {tile.title: tile for tile in evidence.tiles(as_json(run()))}
        for run in (sample.qualified, sample.failed)
    )

    tile = good["strict_tile"]
    assert (tile.text, tile.beside, tile.result) == ("0.56", "L2 error, default, batch 16", "PASS")
    tile = good["mutants_tile"]
    assert (tile.text, tile.result) == ("7 of 13", "PASS")
    assert tile.beside == "in default, 13 in ieee, document's gate 9"
    assert bad["strict_tile"].result == bad["mutants_tile"].result == "FAIL"
    assert (bad["strict_tile"].text, bad["strict_tile"].beside) == (
        "not known", "L2 error, ieee, batch 8"
    )  # fmt: skip
    assert evidence.tiles(as_json(sample.crashed())) == []
    assert "Strict gate, worst / limit0.56" in Page(page(sample.qualified())).words


def test_the_documents_items_hold_each_case_once():
    """Gate, proof, arithmetic, signatures are items of their own, not the comparison's."""
    report = as_json(sample.qualified())
    items = {item.key: item for item in view.items(report)}

    assert items["precision"].total == len(sample.BATCH_SIZES)
    assert items["strict_gate"].total == 5
    assert items["operators"].total == 3 * sum(n for _, n in sample.FAMILIES.values())
    assert items["signatures"].total == 6
    assert sum(item.total for item in items.values()) == len(report["cases"])


# --- the documents ---------------------------------------------------------------------------


BAR = re.compile(r"(?<!\\)[|]")


def structure(text):
    """Headings by level, tables as columns by rows, and list items, outside of code blocks."""
    text = re.sub(r"^(`{3,}).*?^\1$", "CODE", text, flags=re.DOTALL | re.MULTILINE)
    kinds = []
    for line in text.splitlines():
        if line.startswith("#"):
            kinds.append(line.partition(" ")[0])
        elif line.startswith("|"):
            kinds.append(f"row of {len(BAR.findall(line))}")
        elif line.startswith("- "):
            kinds.append("item")
        elif line == "CODE":
            kinds.append(line)
    return kinds


def numbers(text):
    """Every number in a document, sorted."""
    return sorted(re.findall(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?", text))


@RUNS
def test_the_documents_are_in_step(made):
    """English and Chinese have the same headings, tables and numbers."""
    english, chinese = document(made()), document(made(), "zh-CN")

    assert structure(english) == structure(chinese)
    assert numbers(english) == numbers(chinese)
    assert re.search("[\u4e00-\u9fff]", chinese)


@RUNS
def test_no_text_breaks_a_table(made):
    """Each table has as many cells in every row as in its head."""
    for language in ("en", "zh-CN"):
        width = None
        for line in document(made(), language).splitlines():
            if not line.startswith("|"):
                width = None
                continue
            cells = len(BAR.findall(line))
            width = width or cells
            assert cells == width, line
            assert line.endswith("|")


@RUNS
def test_a_table_stands_apart(made):
    """A table begins after an empty line; else it is no table."""
    lines = ["", *document(made()).splitlines()]
    for before, line in itertools.pairwise(lines):
        if line.startswith("|") and not before.startswith("|"):
            assert before == "", line


def test_the_document_holds_the_measured_values():
    """Chapters 5 and 6 are filled, each figure beside its limit and the published one."""
    text = document(sample.qualified())

    for line in (
        "torch_version: 2.9.0+cpu",
        "[INCOMPLETE] Environment check",
        "| `GELU` | supported | 12 | float32, float16, bfloat16 | 0.46 | gelu |",
        "| Latency, batch 1 | PASS | 1 of 1 | Mean: bs=1, 36.81 ms |",
        "| Mean | 36.81 | 58.31 | -36.9 % |",
        "| p99 | not measured (320 samples; p99 needs 662 at 99% confidence) |  |  |",
        "| Max absolute error | 0.0109999 | < 0.05 | PASS | 0.0118 | -6.8 % |",
        "| 1 | 26.19 | 17.96 | +45.8 % | 38.18 | 55.67 | -31.4 % | 395.8 MiB | PASS |",
        "pytest --device npu:0 --qualify",
    ):
        assert line in text, line


def test_the_chinese_document_reads_like_the_original():
    """The terms are those of the adaptation document."""
    text = document(sample.qualified(), "zh-CN")

    for line in (
        "## 5 Smoke 验证",
        "| `Conv2d` | 支持 |",
        "| 最大绝对误差 | 0.0109999 | < 0.05 | 通过 |",
        "| 平均延迟 | 36.81 | 58.31 |",
        "| 批大小 |",
    ):
        assert line in text, line


def test_without_a_publication_its_columns_are_gone():
    """``--reference none`` leaves tables of measured figures."""
    run = sample.qualified()
    run.facts["reference"] = None

    assert "| Mean | 36.81 |\n" in document(run)
    assert "58.31" not in document(run)
    assert "58.31" not in Page(page(run)).words


def test_a_batch_size_that_was_not_measured_is_a_row():
    """A published batch size that this run left out is shown as not measured."""
    run = sample.qualified()
    kept = tuple(case for case in run.cases if "test_throughput[b8]" not in case.id)

    text = document(dataclasses.replace(run, cases=kept))

    assert "| 8 | not measured (this batch size was not measured) | 127.68 |" in text


def test_every_word_has_its_chinese():
    """What has a name in one language has one in the other."""
    english, chinese = markdown.words("en"), markdown.words("zh-CN")

    assert set(english) <= set(chinese) | {"torch", "no case"}
    assert {status.value for status in Status} <= set(chinese)


def test_code_survives_backticks():
    """A code span or block is fenced by more backticks than it holds."""
    assert markdown.code("a`b") == "``a`b``"
    assert markdown.code("`a``") == "``` `a`` ```"
    assert markdown.code("a|b\nc") == r"`a\|b c`"
    assert markdown.code("") == ""
    assert markdown.fenced("```\nx").startswith("````text\n")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("a\nb", "a b"),
        ("<b>", "&lt;b>"),
        ("< 0.05", "< 0.05"),
        ("&lt;", "&amp;lt;"),
        ("a & b", "a & b"),
        ("max_abs_error", "max_abs_error"),
        ("_x_", r"\_x\_"),
        ("[a](b)", r"\[a\](b)"),
        ("C:\\d", r"C:\\d"),
        ("; ", "; "),
    ],
)
def test_inline_text_is_no_markdown(text, escaped):
    """What Markdown or HTML would take for its own is escaped, and nothing else."""
    assert markdown.inline(text) == escaped


# --- how figures are shown -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (58.31, "58.31"), (1234.56, "1234.6"), (0.0123456, "0.01235"), (0.00001234, "1.23e-05"),
        (0.0, "0"), (0, "0"), (7, "7"), (True, "True"), ("nan", "nan"), (float("inf"), "inf"),
        (-12.5, "-12.50"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    """About four digits, as many as a reader compares."""
    assert view.number(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (3 << 20, "3 MiB"), (34359738368, "32 GiB"),
     ("nan", "nan"), (True, "True")],
)  # fmt: skip
def test_amounts(count, text):
    """Bytes in binary units."""
    assert view.amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250 ms"), (1.26, "1.3 s"), (59.99, "60.0 s"), (125.0, "2 min 5 s"), ("nan", "nan")],
)
def test_spans(seconds, text):
    """Seconds as people say them."""
    assert view.span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.01, "0.0 %"),
        (-0.04, "0.0 %"),
        (12.34, "+12.3 %"),
        (-7.06, "-7.1 %"),
        (2336.7, "+2337 %"),
    ],
)
def test_percents(value, text):
    """A difference is signed, and never a signed zero."""
    assert view.percent(value) == text


def test_nested_values_are_flat():
    """Everything in a record has a line, and an empty thing says so."""
    value = {"a": {"b": [1, 2]}, "c": [], "d": {}, "e": [{"f": None}], "g": True, "h": {"i": "x"}}

    assert list(view.flat(value)) == [
        ("a.b", "1, 2"), ("c", "none"), ("d", "none"), ("e.0.f", "not known"), ("g", "yes"),
        ("h.i", "x"),
    ]  # fmt: skip


def test_a_long_list_is_cut():
    """A folder of ten thousand pictures does not fill the page."""
    assert view.text(list(range(100))).endswith("15, and 84 more")


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ((), "NOT RUN"),
        (("PASS", "PASS"), "PASS"),
        (("PASS", "UNSUPPORTED"), "PASS"),
        (("UNSUPPORTED",), "UNSUPPORTED"),
        (("PASS", "NOT RUN"), "NOT RUN"),
        (("NOT RUN", "FAIL"), "FAIL"),
    ],
)
def test_an_item_is_as_good_as_its_worst_case(statuses, status):
    """What does not apply decides nothing; anything else does."""
    cases = tuple(
        Case(f"tests/test_migration.py::test_{n}", Status(name), ("migration",))
        for n, name in enumerate(statuses)
    )
    items = {item.key: item for item in view.items(as_json(Qualification(cases, {}, "", "")))}

    assert items["migration"].status == status
    assert items["migration"].total == len(statuses)


def test_time_without_a_total_has_shares():
    """Shares are of the sum if the run could not say its total, and of nothing if nothing."""
    run = dataclasses.replace(sample.empty(), facts={"time_spent": {"model": 3.0, "mine": 1.0}})
    none = dataclasses.replace(sample.empty(), facts={"time_spent": {"model": 0.0}})

    assert [part.share for part in view.time_spent(as_json(run))] == [0.75, 0.25]
    assert [part.share for part in view.time_spent(as_json(none))] == [0.0]
    assert view.run_seconds(as_json(run)) is None


def test_an_operator_status_that_is_new_is_shown():
    """A status that this page does not know is not taken for a good one."""
    case = Case("tests/test_operators.py::test_operator[a]", Status.PASS, ("operators",),
                records={"operators": {"family": "A", "status": "odd"}})  # fmt: skip

    (row,) = view.operators(as_json(Qualification((case,), {}, "", "")))

    assert row.status == "odd"
    assert row.worst == ""


def test_a_limit_that_judges_nothing_is_none():
    """A limit without a bound reads as none."""
    limit = as_json(sample.qualified())["limits"]["max_abs_error"]

    assert view.limit_text(limit) == "< 0.05"
    assert view.limit_text({**limit, "bound": None}) == "none"


def test_fusion_passes_are_listed():
    """Each pass of this run's graphs with its counts."""
    run = sample.qualified()
    run.facts["fusion"] = {
        "found": True,
        "text": "one file",
        "files": [{"totals": {"ub_fusion/A": {"match": 3, "effect": 2, "repository": 1}}}],
    }

    assert view.fusion_passes(as_json(run)) == [("ub_fusion/A", "3", "2", "1")]
    assert "ub_fusion/A 3 2 1" in Page(page(run)).words
    assert "| `ub_fusion/A` | 3 | 2 | 1 |" in document(run)


def test_a_simulated_card_says_so():
    """Nobody takes a simulated card for a real one."""
    card = dataclasses.replace(sample.NPU, simulated=True)
    run = dataclasses.replace(sample.qualified(), facts=sample.facts(card))

    assert ("simulated", "yes") in view.device(as_json(run))
    assert "REHEARSAL" in page(run)

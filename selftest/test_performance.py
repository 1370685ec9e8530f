"""What limits it, how far it can go: the report's sections on times, on the page and on paper.

Whether they are well-formed, escaped and in step is seen with all the rest (test_report.py).
"""

from __future__ import annotations

import json
import re

import pytest

from fixtures.core.baseline import LARGE, SESSION
from fixtures.core.records import Case, Qualification, Status
from fixtures.core.report import (
    as_json,
    html,
    markdown,
    performance,
    performance_plots,
    plots,
    view,
)
from selftest import sample
from selftest import sample_performance as made

HEADINGS = (
    "Percentiles, warm-up, two clocks",
    "Cold start in a fresh process",
    "Latency over fresh processes",
    "What limits it",
    "Batch sweep",
    "Input pipeline",
    "Modes side by side",
    "Comparison",
    "Power and clocks",
)


def report_of(run):
    """A run's report as it is after having been written and read."""
    return json.loads(json.dumps(as_json(run, sample.verdict(run)), allow_nan=False))


def of(records, name="test_bounds.py::test_bounds", **values):
    """A run of one case that recorded this."""
    values = {"status": Status.PASS, "markers": ("performance",), **values}
    return Qualification((Case(f"tests/{name}", records=records, **values),), {}, "", "")


def page(run):
    """The words of the head of the page, without plots."""
    text = html.fragment(run, sample.verdict(run), NO_PLOTS)
    text = re.sub(r"(?s)<(style|noscript)>.*?</\1>", "", text)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def document(run, language="en"):
    """One adaptation document."""
    return markdown.render(report_of(run), language)


def headings(run):
    """The sections that the page has, of those here."""
    found = re.findall(r"<h2>(.*?)</h2>", html.fragment(run, sample.verdict(run), NO_PLOTS))
    return [name for name in found if name in HEADINGS]


NO_PLOTS = dict.fromkeys(plots.PLOTS, "")


def test_every_section_is_there_in_its_order():
    """Times first, then what limits them, then how far it can go."""
    assert tuple(headings(sample.qualified())) == HEADINGS
    assert headings(sample.empty()) == headings(sample.crashed()) == []


def test_the_page_shows_what_an_engineer_looks_for():
    """Bounds of percentiles, phases, the interval, the limit that holds, commands, ratios."""
    good, bad = page(sample.qualified()), page(sample.failed())

    for text in (
        "1 p90 37.08 36.88 37.38 320",
        "1 p99 not measured (160 effective samples; p99 needs 662 at 99% confidence)",
        "81.94 \N{RIGHTWARDS ARROW} 36.16 yes",
        "Device is initialised 2950.0 13.8 % the first tensor on the device",
        "16 not measured (out of memory) not measured (out of memory)",
        "Doubt: the page cache was warm",
        "Latency p50 36.00 ms 35.57 36.43 0.71 %",
        "at batch 1 the host is the limit: 94 %",
        "t(b) = 36.00 ms + 2.16 ms * b",
        "16 70.56 9.09 TFLOP/s 15.7 %",
        "Matrix products float16 205 TFLOP/s 280 TFLOP/s data sheet",
        "aclnnAddmm stages.2.blocks.*.mlp.fc1 36 6.4 24.5 %",
        "512 out of memory NPU out of memory",
        "m(b) = 343.3 MiB + 67.71 MiB * b",
        "with preprocessing not measured (no pictures were given)",
        "bf16 bf16 no 1.9 35.64 1.010 566.62",
        "strict error is 1.9, must be &lt;= 1",
        "it silently fell back to eager",
        "NPUGraph: the capture failed",
        "For throughput fp16 16 589.29 samples/s 2.600 pytest tests/test_modes.py --device npu:0",
        "differences: torch 2.9.0 here, 2.7.1 there",
        "latency b1 185.20 1500 6.7 \N{PLUS-MINUS SIGN} 0.4 % no",
    ):
        assert text in good, text
    for text in (
        "Latency p50 36.00 ms 35.57 36.43 0.71 % &lt;= 35.00 FAIL",
        "FAIL test_cold_start : nothing was recorded (the child process died)",
        "HANG test_mode[fp16] : nothing was recorded (did not end within 900 s",
        "no mode but eager passed its precision gate",
        "Latency p50 1 36.00 ms 33.24 ms 1.083 1.061 \N{EN DASH} 1.104 FAIL large",
        "Doubt: residual: batch 8 lies 11 % above the line",
        "throughput b16 254.00 1300 0.43 \N{PLUS-MINUS SIGN} 0.4 % yes",
        "operators: not measured (this device&#39;s backend has no profiler)",
    ):
        assert text in bad, text


def test_the_documents_hold_what_is_signed():
    """Cold start, percentiles with bounds, what limits it, the recommendation, the comparison."""
    english, chinese = document(sample.qualified()), document(sample.qualified(), "zh-CN")

    for line in (
        "| 1 | p90 | 37.08 | 36.88 | 37.38 | 320 |",
        "| First forward | 8640.0 | 40.5 % |",
        "| Latency p50 | 36.00 ms | 35.57 | 36.43 | 0.71 % |",
        "- at batch 1 the host is the limit",
        "`pytest tests/test_modes.py --device npu:0 --modes graph`",
        "| Latency p50 | 1 | 36.00 ms | 36.51 ms | 0.986 |",
    ):
        assert line in english, line
    for line in ("性能瓶颈", "| 首次前向 | 8640.0 |", "| 吞吐优先 | fp16 | 16 |"):
        assert line in chinese, line


def test_what_was_not_measured_is_said_with_its_reason():
    """A subset names the sections that nobody measured; what was not asked for is not missing."""
    told = dict(performance.absent(report_of(sample.subset())))

    assert told == dict.fromkeys(("cold_start", "replicates", "bounds", "modes", "sweep"),
                                 "deselected")  # fmt: skip
    assert "Cold start in a fresh process: not measured (deselected)" in page(sample.subset())
    assert performance.absent(report_of(sample.qualified())) == []
    chosen = sample.empty()
    chosen.facts["selection"] = {"on_demand": ["tests/test_sweep.py::test_sweep"]}
    assert "sweep" not in dict(performance.absent(report_of(chosen)))


@pytest.mark.parametrize("name", sample.RUNS)
def test_every_plot_is_drawn_or_a_sentence(name):
    """None of any run is one that could not be drawn."""
    for html_ in plots.draw(report_of(sample.RUNS[name]())).values():
        assert html_.startswith(
            ("<figure", '<p class="q-none">No plot', '<p class="q-none">No pic')
        )


def test_the_plots_are_drawn_of_a_whole_run():
    """Each says in words what it shows."""
    drawn = plots.draw(report_of(sample.qualified()))
    bad = plots.draw(report_of(sample.failed()))

    for name in performance.context(report_of(sample.qualified()))["performance"]:
        for plot in name.plots:
            assert drawn[plot].startswith("<figure"), plot
    for name, words in (
        ("timing", "p50 36.00 (35.80 to 36.30)"),
        ("events", "device events"),
        ("cold_start", "first forward 8.6 s"),
        ("replicates", "5 fresh processes, level standard"),
        ("line", "alpha 36.00 ms"),
        ("roofline", "b16 9.09 TFLOP/s"),
        ("sweep", "best: b256"),
        ("modes", "not counted: bf16, compile"),
        ("comparison", "latency_p50_ms, b1 (baseline)"),
        ("power", "Latencies are laid evenly into their block"),
    ):
        assert words in drawn[name], name
    assert "limit 35.00" in bad["replicates"]
    assert "red where the clock was reduced" in bad["power"]


def compared(*ratios, against="baseline", half=0.01):
    """A comparison plot of such ratios: its axis, the places of its lines, and its caption."""
    rows = [
        {"figure": f"f{n}", "batch_size": 1, "ratio": ratio, "status": "PASS", "size": "small",
         "low": ratio - half if half else None, "high": ratio + half if half else None}
        for n, ratio in enumerate(ratios)
    ]  # fmt: skip
    report = {"comparison": [{"unmeasured": "", "with": against, "rows": rows}]}
    figure, _, caption = performance_plots.comparison(report)
    (axis,) = figure.axes
    lines = {
        line.get_xdata()[0]: line.get_linestyle()
        for line in axis.lines
        if len({*line.get_xdata()}) == 1 and len(line.get_xdata()) == 2
    }
    return axis, lines, caption


def test_the_line_that_judges_a_comparison_is_drawn_and_named():
    """Within a session a regression lies above 1, beside a baseline above what sessions differ by;
    single processes have a bound of their own."""
    _, lines, caption = compared(0.99, 1.03)
    assert lines == {1.0: "-", SESSION: "--"}
    assert "right of the dashed line as a whole: 1.015 (baseline)" in caption
    _, lines, caption = compared(0.99, 1.03, against="ab")
    assert lines == {1.0: "--"}
    assert "1 (ab)" in caption
    _, lines, caption = compared(0.99, 1.25, half=None)
    assert lines == {1.0: "-", LARGE: ":"}
    assert "dashed" not in caption
    assert "one process each: a regression from 1.3" in caption


@pytest.mark.parametrize("ratios", [(1.0,), (0.98, 1.01), (2.0,), (1.01, 2.3), (0.4, 1.0), (30.0,)])
def test_no_comparison_leaves_half_of_its_axis_empty(ratios):
    """The axis goes from the least to the greatest that is drawn, and little further."""
    axis, lines, _ = compared(*ratios)
    ends = [end for ratio in ratios for end in (ratio - 0.01, ratio + 0.01)]
    shown = min([*ends, *lines]), max([*ends, *lines])
    turn = axis.xaxis.get_transform().transform
    left, right, *drawn = turn([*axis.get_xlim(), *shown])
    assert left < drawn[0] < drawn[1] < right
    assert drawn[1] - drawn[0] > 0.6 * (right - left)
    assert axis.get_xscale() == ("log" if max(ratios) == 30.0 else "linear")


def test_a_plot_that_cannot_be_drawn_costs_only_itself():
    """A record of an unforeseen shape leaves a sentence, and the other plots."""
    run = sample.qualified()
    (case,) = (case for case in run.cases if "sweep" in case.records)
    case.records["sweep"]["points"][0].pop("batch_size")

    drawn = plots.draw(report_of(run), "sweep", "line")

    assert "no plot: it cannot be drawn (KeyError" in drawn["sweep"]
    assert drawn["line"].startswith("<figure")


def test_nulls_are_left_out_and_their_reasons_stay():
    """Where nothing could be computed, tables and plots hold what is left."""
    bounds = made.bounds() | {"line": None, "latency_check": None, "host_share": None,
                              "peaks": [], "operators": [], "kernels": [{"name": "k", "calls": 1,
                              "ms": 2.0}], "bound_by": "undecided"}  # fmt: skip
    for point in bounds["points"]:
        point.update(mfu=None, intensity=None, roof_share=None)
    run = of({"bounds": bounds, "cold_start": made.cold_start(), "sweep": made.sweep()})
    record = run.cases[0].records
    record["cold_start"]["phases"][2] = {"name": "import_plugin", "ms": None}
    record["cold_start"]["reasons"] = {"import_plugin": "it has none"}
    record["cold_start"]["total_ms"] = None
    none = dict.fromkeys(("base_bytes", "per_picture_bytes", "predicted_largest_batch"))
    record["sweep"]["memory_law"] = {**none, "reason": "one point"}
    record["sweep"]["points"][0]["peak_memory_bytes"] = None
    report = report_of(run)
    drawn = plots.draw(report, "line", "roofline", "cold_start", "sweep")

    assert "import of the plug-in not measured (it has none)" in page(run)
    assert "memory law: one point" in page(run)
    assert "Of measured peak (MFU)" not in page(run)
    assert "paper_mfu: no paper peak of float32 is published" in page(run)
    assert "No plot of the roofline: not measured" in drawn["roofline"]
    assert all(drawn[name].startswith("<figure") for name in ("line", "cold_start", "sweep"))


def test_a_device_without_power_says_why():
    """Its sentence stands where the table would."""
    run = of({"power": made.powerless()}, "test_latency.py::test_latency")

    assert "no tool tells the power of this device" in page(run)
    assert "no tool tells" in plots.draw(report_of(run), "power")["power"]
    mute = made.power("latency b1", 1.0, 1.0)
    for each in mute["samples"]:
        each.update(power_w=None, clock_mhz=None)
    said = plots.draw(report_of(of({"power": mute})), "power")["power"]
    assert "the samples hold neither" in said


def test_the_tiles_say_what_decides():
    """The replicated latency with its interval, what limits it, the best mode that counts."""
    tiles = {tile.title: tile for tile in performance.tiles(report_of(sample.qualified()))}
    bad = {tile.title: tile for tile in performance.tiles(report_of(sample.failed()))}

    assert tiles["replicates_tile"].beside == "35.57 to 36.43, standard"
    assert tiles["bound_tile"].text == "host"
    assert tiles["bound_tile"].beside == "94.3 % of batch 1 is the host's"
    assert tiles["recommendation_tile"].text == "589.29 /s"
    assert bad["replicates_tile"].result == "FAIL"
    assert "recommendation_tile" not in bad


def test_the_last_words_name_limit_and_recommendation():
    """One line each at the end of a run, where they were measured."""
    told = performance.last_words(sample.qualified().cases)

    assert [line.partition(":")[0] for line in told] == ["what limits it", "recommended"]
    assert performance.last_words(sample.crashed().cases) == []


@pytest.mark.parametrize(
    ("shown", "value", "text"),
    [
        (performance.share, 0.1234, "12.3 %"),
        (performance.share, 0.0001, "< 0.1 %"),
        (performance.share, 0, "0.0 %"),
        (performance.share, "nan", "nan"),
        (performance.rate, 5.62e13, "56.2 TFLOP/s"),
        (performance.rate, 12.0, "12 FLOP/s"),
        (performance.rate, "inf", "inf"),
        (performance.times, 1.0834, "1.083"),
        (performance.times, 31.4159, "31.42"),
        (performance.times, "nan", "nan"),
    ],
)
def test_figures_are_short(shown, value, text):
    """As many digits as tell."""
    assert shown(value) == text


def test_a_limit_that_was_judged_is_the_one_drawn():
    """Of several figures the judged one; undecided is said with the processes that would do."""
    record = made.replicates(5, "INCONCLUSIVE", 36.1)
    record["figures"].reverse()
    run = of({"replicates": record}, "test_replicates.py::test_replicates",
             status=Status.INCONCLUSIVE, reason="undecided")  # fmt: skip

    drawn = plots.draw(report_of(run), "replicates")["replicates"]

    assert "limit 36.10" in drawn
    assert "14 processes would decide" in page(run)
    assert "INCONCLUSIVE 14" in page(run)
    alone = of({"replicates": made.replicates(1)}, "test_replicates.py::test_replicates")
    assert plots.draw(report_of(alone), "replicates")["replicates"].startswith("<figure")
    assert "what differs between processes is not known" in page(alone)


def test_no_terminal_word_without_a_sentence():
    """A record that says nothing adds no line."""
    run = of({"bounds": {**made.bounds(), "sentence": ""}})

    assert performance.last_words(run.cases) == []


def test_an_item_on_demand_is_not_missing():
    """The document's table has it where it ran, and no gap where nobody asked for it."""
    whole, none = (
        {item.key for item in view.items(report_of(run()))}
        for run in (sample.qualified, sample.crashed)
    )

    assert whole - none == set(view.ASKED_FOR)

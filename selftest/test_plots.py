"""Plots: what they show, that they are the same each time, and what stands where none can be."""

from __future__ import annotations

import builtins
import dataclasses
import itertools
import re
import xml.etree.ElementTree as ET
from html import unescape

import pytest

from fixtures.core.records import plain
from fixtures.core.report import as_json, drawing, plots
from selftest import sample

ALWAYS = ("precision", "latency", "throughput")
"""What every whole run has a plot of."""

SVG = "{http://www.w3.org/2000/svg}"


def drawn(made, *names):
    """The plots of a sample run, all or those named."""
    qualification = made() if callable(made) else made
    return plots.draw(as_json(qualification, sample.verdict(qualification)), *names)


def svg(html):
    """The SVG inside a plot's HTML, parsed: fails if it is not well-formed."""
    return ET.fromstring(html[html.index("<svg") : html.index("</svg>") + len("</svg>")])


def words(html):
    """Every text in a plot."""
    return [" ".join(element.itertext()).strip() for element in svg(html).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def good():
    """The plots of the run in which everything passed."""
    return drawn(sample.qualified, *ALWAYS)


def test_every_section_has_a_plot(good):
    """Latency, throughput and precision are drawn, each with a title and a description."""
    for name in ("latency", "throughput", "precision"):
        root = svg(good[name])

        assert root.get("role") == "img"
        assert root.find(f"{SVG}title").text
        assert root.find(f"{SVG}desc").text in unescape(good[name].partition("<figcaption>")[2])


def test_latency_shows_the_measured_and_the_published_figures(good):
    """Mean and percentiles stand in the plot, and the document's figures beside them."""
    shown = " | ".join(words(good["latency"]))

    for text in ("mean 36.81", "p50 36.03", "p90 37.", "published mean 58.31"):
        assert text in shown
    assert "published min 30.32" in shown
    assert "published max 144.28" in shown
    assert "p99" not in shown  # 320 samples do not bound it


def test_throughput_shows_both(good):
    """Measured and published rates are written at their points."""
    shown = words(good["throughput"])

    assert "310.75" in shown
    assert "51.49" in shown
    assert shown.count("measured") == 1


def test_precision_shows_each_input_and_its_limits(good):
    """Every input has a row, and the limits are labelled."""
    shown = words(good["precision"])

    assert set(sample.INPUTS) <= set(shown)
    assert {"limit 0.01", "limit 0.001", "limit 0.05"} <= set(shown)


def test_the_same_report_gives_the_same_bytes(good):
    """Nothing in a plot depends on the day or the process."""
    assert drawn(sample.qualified, *ALWAYS) == good
    assert "<metadata" not in "".join(good.values())


def test_plots_share_no_id(good):
    """Several plots on one page do not disturb each other."""
    ids = [found for html in good.values() for found in re.findall(r' id="([^"]+)"', html)]

    assert len(ids) == len(set(ids))
    for name, html in good.items():
        assert set(re.findall(r"(?:url\(|href=\")#(\w+)-", html)) <= {name}


def test_colours_are_those_of_the_page(good):
    """No colour is fixed: each follows the page into the dark."""
    for html in good.values():
        assert "var(--q-measured" in html
        assert not re.search(r"(?:fill|stroke): #", html)


def test_what_was_not_measured_is_a_sentence():
    """Where there is nothing to draw, a sentence says why."""
    for name, html in drawn(sample.crashed).items():
        assert html.startswith('<p class="q-none">'), name
        assert "the run was interrupted" in html
        assert "<svg" not in html


def test_precision_without_rows_is_a_sentence():
    """Metrics alone, without errors by input, cannot be drawn."""
    run = sample.qualified()
    bare = [case for case in run.cases if "precision" in case.id][:1]
    bare[0].records["precision"]["rows"] = []
    alone = type(run)(tuple(bare), run.facts, run.started_at, run.finished_at)

    assert "no error by input was recorded" in drawn(alone, "precision")["precision"]


def test_zeros_and_what_is_not_a_number_are_counted():
    """A point that a logarithmic axis cannot show is told, not dropped."""
    assert (
        "87 points at the left edge are exactly zero"
        in drawn(sample.rehearsal, "precision")["precision"]
    )
    assert "3 points are not numbers" in drawn(sample.not_finite, "precision")["precision"]


def test_another_device_is_said_to_be_one():
    """Published figures of another device are labelled so."""
    assert (
        "published for Ascend 910B4; another device"
        in drawn(sample.rehearsal, "latency")["latency"]
    )


def test_without_a_publication_only_the_measured_is_drawn():
    """``--reference none`` leaves the plots to the measured figures."""
    run = sample.qualified()
    run.facts["reference"] = None

    made = drawn(run)

    assert "published" not in made["latency"] + made["throughput"]
    assert svg(made["throughput"]) is not None


def test_depth_shows_the_first_wrong_operator():
    """Error against depth: the operator that is wrong first is named at its place."""
    html = drawn(sample.failed, "layers")["layers"]
    shown = words(html)

    assert "first wrong: gelu of stages.0.blocks.1.mlp.act" not in shown
    assert "first wrong: layer_norm of stages.0.blocks.1.norm" in shown
    assert {"stem", "stages.0", "stages.1", "local error", "accumulated error"} <= set(shown)
    assert "Regime default (conv hf32, matmul ieee, gelu tanh)" in shown


def test_depth_is_drawn_once_a_regime():
    """The same comparison, recorded by several cases, is one panel; of many regimes four."""
    run = sample.qualified()
    cases = [case for case in run.cases if "precision" in case.id]
    for case in cases[:2]:
        case.records["layers"] = plain(sample.divergence().as_json())

    once = words(drawn(run, "layers")["layers"])
    cases[0].records["layers"] = [
        plain(dataclasses.replace(sample.divergence(), regime=f"r{n}").as_json()) for n in range(5)
    ]
    html = drawn(run, "layers")["layers"]

    assert sum(text.startswith("Regime") for text in once) == 1
    assert sum(text.startswith("Regime") for text in words(html)) == 4
    assert "2 more regimes are in the JSON report" in html


def test_depth_that_nobody_asked_for_is_on_demand():
    """Without the layers' cases the sentence says that they run where they are asked for."""
    html = drawn(sample.qualified, "layers")["layers"]

    assert "not measured (on demand, not part of this run)" in html


def test_out_of_memory_leaves_the_rest():
    """A batch size that did not fit has no point, and the others are still there."""
    shown = words(drawn(sample.failed, "throughput")["throughput"])

    assert "150.08" in shown
    assert "310.75" in shown


def test_hostile_names_stay_text():
    """A name that is markup is text in the plot."""
    made = drawn(sample.hostile)

    assert all("<script" not in html for html in made.values())
    assert any("<script>" in text for text in words(made["precision"]))


def test_without_matplotlib_there_is_a_sentence(monkeypatch):
    """A machine without matplotlib gets its report, with a sentence for each plot."""
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)

    assert all(
        "matplotlib cannot be imported" in html
        for html in drawn(sample.qualified, *ALWAYS).values()
    )


def test_a_single_sample_is_drawn():
    """One sample, all equal samples: the axes still have a range."""
    run = sample.qualified()
    (case,) = (case for case in run.cases if case.id.endswith("test_latency"))
    for samples in ([36.0], [36.0] * 9):
        case.records["latency"]["samples_ms"] = samples
        run.facts["reference"] = None
        assert svg(drawn(run, "latency")["latency"]) is not None


@pytest.mark.parametrize(
    "positions",
    [[0.5], [0.5, 0.5, 0.5], [0.0, 0.01, 1.0], [0.99, 1.0, 0.98], [0.2, 0.21, 0.3, 0.31]],
)
def test_labels_are_spread(positions):
    """Labels keep their order, their distance and their place on the axis."""
    moved = drawing.spread(positions, 0.075)

    order = sorted(range(len(positions)), key=positions.__getitem__)
    gaps = [moved[b] - moved[a] for a, b in itertools.pairwise(order)]
    assert all(gap >= 0.075 - 1e-9 for gap in gaps)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)


def test_labels_that_are_apart_stay():
    """Nothing is moved without need."""
    assert drawing.spread([0.1, 0.5, 0.9], 0.075) == pytest.approx([0.1, 0.5, 0.9])

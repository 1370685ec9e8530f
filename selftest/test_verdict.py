"""The run's verdict: a pure function, and no road leads from a gap or a failure to QUALIFIED."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core.environment import AFTERWARDS, CHECKS
from fixtures.core.records import Case, Limit, Qualification, Status
from fixtures.core.regimes import DEFAULT_REGIMES
from fixtures.core.verdict import (
    REQUIRED_AFTERWARDS,
    REQUIRED_BY_REGIME,
    REQUIRED_BY_SIZE,
    REQUIRED_CASES,
    REQUIRED_MARKERS,
    case_counts,
    conclude,
    environment_word,
    exit_code,
    measured_nothing,
)

CASES = (
    *(Case(f"tests/test_{m}.py::test", Status.PASS, (m,)) for m in REQUIRED_MARKERS),
    *(Case(f"tests/{name}", Status.PASS) for name in REQUIRED_CASES),
    *(
        Case(f"tests/{name}", Status.PASS)
        for name in dict.fromkeys(
            [
                *(case.format(size) for case in REQUIRED_BY_SIZE for size in (1, 4, 8, 16)),
                *(case.format(name) for case in REQUIRED_BY_REGIME for name in DEFAULT_REGIMES),
            ]
        )
    ),
    *(Case(f"tests/{REQUIRED_AFTERWARDS}[{row.id}]", Status.PASS) for row in AFTERWARDS),
)
WEIGHTS = {
    "source": "pretrained",
    "sha256": "ab" * 32,
    "path": "/cache/model.safetensors",
    "seed": None,
    "verified": True,
    "head_reinitialised": False,
    "note": "",
}
DEVICE = {
    "backend": "npu",
    "name": "Ascend910B4",
    "index": 0,
    "npu_id": 5,
    "bus_id": "0000:41:00.0",
    "serial": None,
    "vdie_id": None,
    "memory_bytes": 34359738368,
    "simulated": False,
    "math_mode": None,
}
FACTS = {
    "subject": {
        "model": "net",
        "num_classes": 640,
        "input_size": [3, 256, 256],
        "parameters": 1,
        "weights": WEIGHTS,
        "listed": True,
    },
    "device": DEVICE,
    "settings": {"batch_sizes": [1, 4, 8, 16]},
    "selection": {"selected": [c.id for c in CASES], "deselected": [], "reasons": []},
}


def run(cases=CASES, **facts):
    return Qualification(cases, {**FACTS, **facts}, "", "")


def status(qualification):
    return conclude(qualification).status


def with_weights(**changes):
    return {"subject": {**FACTS["subject"], "weights": {**WEIGHTS, **changes}}}


def test_a_whole_run_on_a_card_with_verified_weights_qualifies():
    verdict = conclude(run())
    assert verdict.status == "QUALIFIED"
    assert not verdict.reasons
    assert "NPU ID 5" in verdict.line
    assert "ab" * 32 in verdict.line


@pytest.mark.parametrize("bad", [Status.FAIL, Status.HANG, Status.INVALID])
@pytest.mark.parametrize("where", range(len(CASES)))
def test_any_failure_is_not_qualified(bad, where):
    cases = list(CASES)
    cases[where] = dataclasses.replace(cases[where], status=bad, sentences=("it broke",))
    verdict = conclude(run(tuple(cases)))
    assert verdict.status == "NOT QUALIFIED"
    assert any("it broke" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("gap", [Status.NOT_RUN, Status.INCONCLUSIVE])
def test_a_required_case_without_judgement_is_incomplete(gap):
    skipped = Case("tests/test_x.py::test_y", gap, ("precision",), reason="no time")
    assert status(run((*CASES, skipped))) == "INCOMPLETE"
    assert status(run((*CASES, dataclasses.replace(skipped, required=False)))) == "QUALIFIED"


@pytest.mark.parametrize(
    "name",
    [
        *REQUIRED_CASES,
        "test_precision.py::test_strict[ieee-b8]",
        "test_throughput.py::test_throughput[b16]",
    ],
)
@pytest.mark.parametrize("end", [Status.UNSUPPORTED, Status.NOT_RUN])
def test_a_case_that_must_be_there_must_pass(name, end):
    """Neither a word of the backend nor a case that only informs stands for it."""
    cases = tuple(
        dataclasses.replace(case, status=end, required=False, reason="left out")
        if case.id.endswith(name)
        else case
        for case in CASES
    )
    verdict = conclude(run(cases))
    assert verdict.status == "INCOMPLETE"
    (reason,) = verdict.reasons
    assert name in reason
    assert "left out" in reason


def test_a_batch_that_one_asked_for_may_be_too_large():
    more = [Case(f"tests/{case.format(256)}", Status.UNSUPPORTED) for case in REQUIRED_BY_SIZE]
    asked = {"batch_sizes": [1, 4, 8, 16, 256]}
    assert status(run((*CASES, *more), settings=asked)) == "QUALIFIED"
    assert status(run(CASES, settings=asked)) == "INCOMPLETE"


def test_a_network_without_a_row_can_qualify():
    """Its own operators were traced and covered: REQUIRED_CASES."""
    assert "test_signatures.py::test_network_is_covered" in REQUIRED_CASES
    assert status(run(subject={**FACTS["subject"], "listed": False})) == "QUALIFIED"


def test_what_a_backend_declares_it_has_not_is_no_gap():
    assert status(run((*CASES, Case("a::b", Status.UNSUPPORTED, reason="cpu")))) == "QUALIFIED"


@pytest.mark.parametrize("marker", REQUIRED_MARKERS)
def test_an_item_that_is_missing_altogether_is_incomplete(marker):
    left = tuple(case for case in CASES if marker not in case.markers)
    facts = {"selection": {"selected": [c.id for c in left], "reasons": []}}
    verdict = conclude(run(left, **facts))
    assert verdict.status == "INCOMPLETE"
    assert f"no {marker} case passed" in verdict.reasons


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"interrupted": "by KeyboardInterrupt"}, "interrupted"),
        ({"selection": {"selected": [], "reasons": ["-m smoke"]}}, "a subset was chosen: -m smoke"),
        ({"selection": {"selected": ["tests/gone"], "reasons": []}}, "did not run"),
        ({"settings": {"batch_sizes": [1, 4]}}, "batch sizes 8, 16"),
        ({"device": None}, "no device"),
        ({"subject": None}, "no network"),
        (with_weights(head_reinitialised=True), "re-initialised"),
        (with_weights(verified=False), "could not be verified"),
        (
            {"limits": {"x": {"name": "x", "bound": 2.0, "default": 1.0, "loosened": True}}},
            "loosened to 2",
        ),
    ],
)
def test_every_gap_is_incomplete_and_said(facts, words):
    verdict = conclude(run(**facts))
    assert verdict.status == "INCOMPLETE"
    assert any(words in reason for reason in verdict.reasons), verdict.reasons


@pytest.mark.parametrize(
    "facts",
    [
        {"device": {**DEVICE, "backend": "cpu"}},
        {"device": {**DEVICE, "simulated": True}},
        with_weights(source="synthetic", seed=0, verified=False),
    ],
)
def test_a_cpu_a_simulation_and_synthetic_weights_only_rehearse(facts):
    verdict = conclude(run(**facts))
    assert verdict.status == "REHEARSAL"
    assert verdict.rehearsal
    failed = (*CASES, Case("a::b", Status.FAIL, sentences=("x",)))
    assert "(REHEARSAL)" in conclude(run(failed, **facts)).line


def test_given_weights_qualify_with_their_digest_in_the_line():
    verdict = conclude(run(**with_weights(source="given", verified=False)))
    assert verdict.status == "QUALIFIED"
    assert "given weights (SHA-256 abab" in verdict.line


@given(st.lists(st.sampled_from(list(Status)), max_size=8), st.booleans(), st.booleans())
def test_qualified_means_no_failure_no_gap_and_no_rehearsal(statuses, subset, simulated):
    extra = tuple(Case(f"t::{n}", s, ("precision",)) for n, s in enumerate(statuses))
    selection = {"selected": [], "reasons": ["-k x"] if subset else []}
    facts = {"selection": selection, "device": {**DEVICE, "simulated": simulated}}
    clean = set(statuses) <= {Status.PASS, Status.UNSUPPORTED}
    qualified = status(run(CASES + extra, **facts)) == "QUALIFIED"
    assert qualified is (clean and not subset and not simulated)


def test_a_run_of_skips_measured_nothing_and_never_exits_0():
    skipped = run((Case("a::b", Status.NOT_RUN, reason="x"),), selection={"reasons": ["-k b"]})
    assert measured_nothing(skipped)
    assert exit_code(skipped, conclude(skipped), 0, False) == 5


@pytest.mark.parametrize(
    ("facts", "extra", "qualify", "expected"),
    [
        ({}, (), False, 0),
        ({}, (), True, 0),
        ({"settings": {"batch_sizes": [1]}}, (), False, 0),
        ({"settings": {"batch_sizes": [1]}}, (), True, 1),
        ({"device": {**DEVICE, "simulated": True}}, (), True, 1),
        ({"selection": {"reasons": ["-m smoke"]}}, (), True, 0),
        ({"selection": {"reasons": ["-m x"]}}, (Case("a::b", Status.NOT_RUN),), True, 1),
        ({"selection": {"reasons": ["-m x"]}}, (Case("a::b", Status.NOT_RUN),), False, 0),
        (with_weights(source="synthetic"), (), True, 1),
        (
            {
                "selection": {"reasons": ["-m precision"]},
                "limits": {"x": {"name": "x", "bound": 2.0, "default": 1.0, "loosened": True}},
            },
            (),
            True,
            1,
        ),
        ({}, (Case("a::b", Status.FAIL),), False, 1),
    ],
)
def test_exit_codes(facts, extra, qualify, expected):
    qualification = run(CASES + extra, **facts)
    assert exit_code(qualification, conclude(qualification), 0, qualify) == expected


def limit_given(name, **more):
    return {name: {"name": name, "bound": 0.001, "default": None, "loosened": False, **more}}


@pytest.mark.parametrize("name", ["latency_p90_ms", "throughput_b8"])
@pytest.mark.parametrize("overridden", [True, False])
@pytest.mark.parametrize("reasons", [[], ["-m smoke"]])
def test_a_limit_that_was_given_must_be_judged(name, overridden, reasons):
    """No subset is forgiven for leaving out the case that would judge a --limit."""
    facts = {
        "limits": limit_given(name, overridden=overridden),
        "selection": {**FACTS["selection"], "selected": [], "reasons": reasons},
    }
    unjudged = run(**facts)
    told = f"limit {name} was given and no case judged it"
    assert any(told in reason for reason in conclude(unjudged).reasons)
    forgiven = bool(reasons) and not overridden  # a reference file brings its limits anyhow
    assert exit_code(unjudged, conclude(unjudged), 0, qualify=True) == (0 if forgiven else 1)
    limit = Limit(name, "<=", 0.001, "", "ms")
    cases = tuple(
        dataclasses.replace(case, limits=(limit,)) if "test_replicates" in case.id else case
        for case in CASES
    )
    judged = run(cases, **facts)
    assert not any(told in reason for reason in conclude(judged).reasons)
    assert exit_code(judged, conclude(judged), 0, qualify=True) == 0


@pytest.mark.parametrize("code", [2, 3, 4])
def test_pytests_own_worse_codes_stay(code):
    assert exit_code(run(), conclude(run()), code, False) == code


@pytest.mark.parametrize(
    "name",
    [
        "test_agreement[b8]",
        "test_throughput.py::test_throughput[b16]",
        "test_latency",
        *(f"test_afterwards[{row.id}]" for row in AFTERWARDS),
    ],
)
def test_a_case_that_no_whole_run_is_without_is_missed(name):
    left = tuple(case for case in CASES if not case.id.endswith(name))
    facts = {"selection": {"selected": [c.id for c in left], "reasons": []}}
    verdict = conclude(run(left, **facts))
    assert verdict.status == "INCOMPLETE"
    assert any(name in reason for reason in verdict.reasons)


def test_a_run_whose_device_failed_is_not_qualified_whatever_its_cases_say():
    verdict = conclude(run(device_error="tests/test_x.py::test_y: error code is 507015"))
    assert verdict.status == "NOT QUALIFIED"
    assert verdict.reasons[0] == (
        "the device failed in tests/test_x.py::test_y: error code is 507015; nothing measured on "
        "it afterwards counts"
    )


def test_code_that_is_not_its_commits_does_not_qualify():
    assert status(run(suite={"commit": "abc", "dirty": True})) == "INCOMPLETE"
    assert status(run(suite={"commit": "abc", "dirty": False})) == "QUALIFIED"


def test_the_environment_check_passes_only_when_all_of_it_did():
    whole = len(CHECKS) + len(AFTERWARDS)
    checks = [Case(f"t::{n}", Status.PASS, ("environment",)) for n in range(whole)]
    assert environment_word(checks) == "PASS"
    assert environment_word(checks[1:]) == "INCOMPLETE"
    checks[0] = dataclasses.replace(checks[0], status=Status.NOT_RUN)
    assert environment_word(checks) == "INCOMPLETE"
    checks[1] = dataclasses.replace(checks[1], status=Status.FAIL)
    assert environment_word(checks) == "FAIL"


def test_counts_leave_out_zeros():
    assert case_counts(CASES) == {"PASS": len(CASES)}


def failing(*parts):
    """A whole run of which the cases with these parts in their ids failed."""
    return tuple(
        dataclasses.replace(case, status=Status.FAIL, sentences=("too far off",))
        if any(part in case.id for part in parts)
        else case
        for case in CASES
    )


def test_where_only_the_strict_gate_fails_the_line_says_so():
    strict = conclude(run(failing("test_strict[")))
    assert strict.status == "NOT QUALIFIED"
    assert strict.line.startswith("NOT QUALIFIED (strict gate): ")
    both = conclude(run(failing("test_strict[", "test_agreement[b4]")))
    other = conclude(run(failing("test_strict[", "test_latency")))
    assert both.line.startswith("NOT QUALIFIED: ")
    assert other.line.startswith("NOT QUALIFIED: ")


def test_a_regime_that_was_taken_away_is_a_gap():
    settings = {**FACTS["settings"], "regimes": ["default", "bf16"]}
    verdict = conclude(run(settings=settings))
    assert verdict.status == "INCOMPLETE"
    assert "regimes ieee were taken away by --regimes" in verdict.reasons


def test_fewer_repeats_than_usual_are_a_gap():
    few = conclude(run(settings={**FACTS["settings"], "repeats": 2}))
    assert few.status == "INCOMPLETE"
    assert few.reasons == ("only 2 repeats had to agree (--repeats; 10 are usual)",)
    assert status(run(settings={**FACTS["settings"], "repeats": 50})) == "QUALIFIED"


@pytest.mark.parametrize("file", ["test_math_mode", "test_signatures", "test_determinism"])
def test_a_file_of_the_gates_that_is_gone_is_noticed(file):
    left = tuple(case for case in CASES if file not in case.id)
    selection = {**FACTS["selection"], "selected": [case.id for case in left]}
    verdict = conclude(run(left, selection=selection))
    assert verdict.status == "INCOMPLETE"
    assert any(f"{file}.py::" in reason and "missing" in reason for reason in verdict.reasons)


def test_a_run_to_be_signed_replicates_its_times():
    """One process cannot show what differs between processes: such a run is incomplete."""
    for qualify, level, wanted in (
        (True, "quick", "INCOMPLETE"),
        (True, "standard", "QUALIFIED"),
        (True, "full", "QUALIFIED"),
        (False, "quick", "QUALIFIED"),
    ):
        settings = {"batch_sizes": [1, 4, 8, 16], "level": level, "qualify": qualify}
        assert status(run(settings=settings)) == wanted
    settings["qualify"] = True
    assert (
        "times were taken in one process only (--level quick)"
        in conclude(run(settings=settings)).reasons
    )


@pytest.mark.parametrize(
    "name", ["test_replicates.py::test_replicates", "test_baseline.py::test_baseline"]
)
def test_a_limit_that_is_undecided_leaves_a_gap(name):
    """INCONCLUSIVE is no pass; what is slower than the baseline is a failure."""
    rest = tuple(case for case in CASES if not case.id.endswith(name))
    case = Case(f"tests/{name}", Status.INCONCLUSIVE, ("performance",), reason="14 would decide")
    assert status(run((*rest, case))) == "INCOMPLETE"
    assert status(run((*rest, dataclasses.replace(case, status=Status.FAIL)))) == "NOT QUALIFIED"

"""An earlier run as a baseline: planted slowdowns are found, sound runs pass, bad files refused."""

import dataclasses
import json
import math
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fixtures.core import baseline, neighbours
from fixtures.core.baseline import (
    BETWEEN,
    INFORMATION,
    LARGE,
    SESSION,
    Baseline,
    Key,
    Taken,
    against,
    chance,
    compare,
    figures,
    load,
    refuse,
    refuse_device,
    refuse_subject,
)
from fixtures.core.fingerprint import Fingerprint
from fixtures.core.records import Case, Qualification, Status
from fixtures.core.report import as_json
from fixtures.core.settings import Refusal, Settings
from fixtures.core.statistics import ratio_intervals
from fixtures.core.verdict import conclude
from selftest.conftest import SMALL
from selftest.sample import qualified

PRINT = Fingerprint({"cpu": "a CPU", "torch": "2.9.0", "device": "a card"}, {})
FAILED = str(Status.FAIL)
PASSED = str(Status.PASS)
OPEN = str(Status.INCONCLUSIVE)


def around(centre, count=64, spread=0.01, seed=0):
    draw = random.Random(seed)
    return tuple(centre * math.exp(draw.gauss(0, spread)) for _ in range(count))


def run(factor=1.0, seed=0, replicates=0, **more):
    """Cases of a run whose every time is that many times as long."""

    def ms(centre, count=64):
        return [factor * value for value in around(centre, count, seed=seed)]

    cases = [
        Case("t.py::test_latency", Status.PASS, records={"latency": {"samples_ms": ms(50)}}),
        Case(
            "t.py::test_throughput[b8]",
            Status.PASS,
            records={"throughput": {"batch_size": 8, "samples_ms": ms(300, 9)}},
        ),
        Case(
            "t.py::test_cold_start",
            Status.PASS,
            records={"cold_start": {"phases": [{"name": "import_torch", "ms": factor * 3000}]}},
        ),
        Case(
            "t.py::test_bounds",
            Status.PASS,
            records={
                "bounds": {
                    "operators": [
                        {"name": "aten::addmm", "site": "mlp", "ms": factor * 30.0},
                        {"name": "aten::gelu", "site": "mlp", "ms": factor * 0.5},
                    ]
                }
            },
        ),
    ]
    if replicates:
        cases.append(fresh(factor, seed, replicates))
    return [dataclasses.replace(case, **more) for case in cases]


def fresh(factor=1.0, seed=0, replicates=5, session=0.0, **more):
    """The case of so many processes; `session` is by how much all of them are off, as a logarithm.
    `more` are further values of each."""
    draw = random.Random(seed)
    rows = [
        {
            "samples_ms": [
                factor * value
                for value in around(
                    50 * math.exp(session + draw.gauss(0, BETWEEN)), 100, seed=100 * seed + number
                )
            ],
            **more,
        }
        for number in range(replicates)
    ]
    return Case("t.py::test_replicates", Status.PASS, records={"replicates": {"processes": rows}})


def earlier(cases, found=PRINT):
    facts = {"fingerprint": None if found is None else found.as_json()}
    return Baseline(baseline.Path("before.json"), Qualification(tuple(cases), facts, "", ""))


def compared(ours, theirs):
    return against(earlier(theirs), PRINT, ours)


def statuses(found):
    return {row.key.words: row.status for row in found.rows}


# --- what is found ------------------------------------------------------------------------------


def test_the_bound_is_beyond_what_processes_differ_by():
    between = math.sqrt(2) * BETWEEN
    assert math.log(LARGE) / between > 12
    assert math.log(LARGE) / (4 * between) > 3
    assert math.log(chance(1, 1)) / between == pytest.approx(2.409, abs=0.001)
    assert chance(1, 9) < chance(1, 1)


def test_a_run_that_is_a_little_faster_passes():
    found = compared(run(0.97, seed=1), run(seed=1))
    assert found.verdict()
    assert found.reason == ""
    assert "none of 6 figures became slower" in found.sentence
    status = statuses(found)
    assert status.pop("cold_start_import_torch_ms") == INFORMATION
    assert set(status.values()) == {PASSED}


@pytest.mark.parametrize(
    ("factor", "status"),
    [(0.9, PASSED), (0.98, PASSED), (0.99, OPEN), (1.0, OPEN), (1.049, OPEN), (1.29, OPEN)],
)
def test_one_process_each_excludes_5_percent_only_where_it_is_faster(factor, status):
    """What a ratio of processes passes at, a single one must not pass beyond."""
    found = compared(run(factor, seed=1), run(seed=1))
    assert found.verdict()
    told = statuses(found)
    assert told["latency_p50_ms at batch 1"] == status
    assert told["throughput_ms_per_batch at batch 8"] == status
    assert told["operator aten::addmm mlp"] in (status, INFORMATION)
    assert told["operators_ms"] == status
    assert bool(found.reason) is (status == OPEN)


def test_one_process_of_a_slower_card_rarely_passes():
    """5 % slower, at the spread that sound processes have: at most once in a hundred."""
    draw = random.Random(3)
    passed = 0
    for _ in range(2000):
        found = 1.05 * math.exp(draw.gauss(0, math.sqrt(2) * BETWEEN))
        row = compare(Key("x_ms", 1), Taken((found,)), Taken((1.0,)))
        passed += row.status == PASSED
    assert passed <= 30  # 16 are expected, with a standard deviation of 4


def test_a_planted_slowdown_is_a_regression_of_every_judged_figure():
    found = compared(run(1.5), run())
    status = statuses(found)
    assert status.pop("cold_start_import_torch_ms") == INFORMATION
    assert status.pop("operator aten::gelu mlp") == INFORMATION  # half a millisecond of thirty
    assert set(status.values()) == {FAILED}
    verdict = found.verdict()
    assert verdict.status is Status.FAIL
    assert any("latency_p50_ms at batch 1: 50.0% slower" in each for each in verdict.sentences)
    assert {row.size for row in found.rows if row.status == FAILED} == {"large"}
    assert {row.size for row in found.rows if row.status != FAILED} == {""}


@given(st.floats(1.31, 1000), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_whatever_is_beyond_the_bound_fails(factor, seed):
    assume(factor > LARGE * 1.05)
    assert compared(run(factor, seed), run(seed=seed)).verdict().status is Status.FAIL


@given(st.floats(0.001, 1.0), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_an_improvement_is_never_a_failure(factor, seed):
    assert compared(run(factor, seed), run(seed=seed)).verdict()


def test_one_process_that_is_a_little_slower_decides_nothing():
    found = compared(run(1.15), run())
    assert found.verdict()
    assert statuses(found)["latency_p50_ms at batch 1"] == OPEN
    assert "--level standard" in found.reason


def test_replicates_find_what_one_process_cannot():
    found = compared(run(1.08, seed=1, replicates=5), run(seed=2, replicates=5))
    status = statuses(found)
    assert status["replicates_p50_ms at batch 1"] == FAILED
    assert status["latency_p50_ms at batch 1"] == INFORMATION
    (row,) = (row for row in found.rows if row.key.name == "replicates_p50_ms")
    assert 1 < row.low < row.ratio < row.high


def test_replicates_of_a_sound_card_pass():
    found = compared(run(seed=1, replicates=5), run(seed=2, replicates=5))
    assert statuses(found)["replicates_p50_ms at batch 1"] != FAILED
    assert statuses(found)["replicates_p90_ms at batch 1"] != FAILED
    assert found.verdict()


def test_sessions_that_differ_are_no_regression():
    """A baseline is another session: 1 % between sessions fails at most a few sound cards."""
    draw = random.Random(5)
    told = [
        statuses(compared([fresh(seed=n, session=draw.gauss(0, 0.01))], [fresh(seed=n + 1000)]))[
            "replicates_p50_ms at batch 1"
        ]
        for n in range(100)
    ]
    assert told.count(FAILED) <= 5


@pytest.mark.parametrize(
    ("processes", "slower", "session", "rate"),
    [
        (5, 1.05, 0.0, 0.64),
        (5, 1.07, 0.0, 0.97),
        (9, 1.05, 0.0, 0.97),
        (5, 1.0, 0.01, 0.0),
        (9, 1.0, 0.015, 0.024),
    ],
)
def test_how_many_slowdowns_are_found_and_how_many_sound_cards_fail(
    processes, slower, session, rate
):
    """The rates that README tells, and what another session does to a sound card."""
    draw = np.random.default_rng(7)
    shape = (2000, processes)
    ours, theirs = (np.exp(draw.normal(0, BETWEEN, shape)) for _ in "AB")
    ours *= slower * np.exp(draw.normal(0, session, (2000, 1)))
    found = (np.exp(ratio_intervals(ours, theirs).low) > SESSION).mean()
    assert found == pytest.approx(rate, abs=0.03)


def test_a_regression_lies_beyond_what_sessions_differ_by():
    base = fresh(seed=2)
    for factor, status in ((1.025, OPEN), (1.10, FAILED)):
        slower = fresh(factor, seed=2)
        (row,) = (
            row for row in compared([slower], [base]).rows if row.key.name == "replicates_p50_ms"
        )
        assert row.status == status
        assert (row.low > SESSION) is (status == FAILED)


# --- nothing is left out silently ---------------------------------------------------------------


def test_a_process_without_a_centre_leaves_the_figure_undecided():
    """Three known p90s of five say nothing of the other two, which may be the slow ones."""
    ours = fresh(seed=1)
    for row in ours.records["replicates"]["processes"][:2]:
        row["samples_ms"] = row["samples_ms"][:63]
    found = compared([ours], [fresh(seed=2)])
    assert statuses(found)["replicates_p90_ms at batch 1"] == OPEN
    assert "in this run 2 of 5 processes have too few samples for p90" in found.reason
    assert statuses(found)["replicates_p50_ms at batch 1"] != OPEN


def test_a_centre_is_of_the_samples_whatever_they_depend_on():
    """Samples that resemble their neighbours have no p90 in the report, and are compared."""
    slow = fresh(1.2, seed=1, p90_ms=None)
    for row in slow.records["replicates"]["processes"]:
        row["samples_ms"].sort()
    assert statuses(compared([slow], [fresh(seed=2)]))["replicates_p90_ms at batch 1"] == FAILED


@pytest.mark.parametrize("swap", [False, True])
def test_a_figure_of_one_report_alone_is_undecided(swap):
    ours, theirs = (run(0.9)[:1], run()) if not swap else (run(0.9), run()[:1])
    found = compared(ours, theirs)
    side = "the baseline" if swap else "this run"
    status = statuses(found)
    assert status["throughput_ms_per_batch at batch 8"] == OPEN
    assert status["operators_ms"] == OPEN
    assert "cold_start_import_torch_ms" not in status or (
        status["cold_start_import_torch_ms"] == INFORMATION
    )
    assert f"{side} has none" in found.reason
    assert all(figure.value or figure.reason for figure in found.figures())


def test_many_operators_that_are_each_too_short_to_count_count_together():
    def case(factor):
        rows = [{"name": f"aten::{n}", "site": "", "ms": factor} for n in range(40)]
        return Case("t.py::test_bounds", Status.PASS, records={"bounds": {"operators": rows}})

    found = compared([case(1.5)], [case(1.0)])
    status = statuses(found)
    assert status.pop("operators_ms") == FAILED
    assert set(status.values()) == {INFORMATION}


def test_operators_of_one_name_and_place_are_one_figure():
    rows = [{"name": "aten::addmm", "site": "mlp", "ms": ms} for ms in (3.0, 5.0)]
    case = Case("t.py::test_bounds", Status.PASS, records={"bounds": {"operators": rows}})
    assert figures([case])[Key("operator aten::addmm mlp")].centres == (8.0,)


def test_a_slow_operator_alone_is_found_and_named():
    ours = run(seed=1)
    ours[3].records["bounds"]["operators"][0]["ms"] = 120.0
    found = compared(ours, run(seed=1))
    assert [row.key.words for row in found.rows if row.status == FAILED] == [
        "operator aten::addmm mlp",
        "operators_ms",
    ]


# --- what must not be taken for a slower card ---------------------------------------------------


def test_a_host_that_is_busy_now_and_then_decides_nothing():
    quiet = around(50)
    busy = tuple(v * (1.0 if n % 4 == 0 else 3.0) for n, v in enumerate(around(50, seed=1)))
    row = compare(Key("latency_p50_ms", 1), Taken((150.0,), busy), Taken((50.0,), quiet))
    assert row.status == OPEN
    assert "busy" in row.sentence


@pytest.mark.parametrize(("waited", "status"), [(0.0, FAILED), (0.3, FAILED), (0.6, OPEN)])
def test_waiting_for_a_core_raises_the_bound(waited, status):
    ours = run(2.5)
    ours[0].records["power"] = {"blocks": [{"waited_share": None}, {"waited_share": waited}]}
    row = next(row for row in compared(ours, run()).rows if row.key.name == "latency_p50_ms")
    assert row.status == status
    assert bool(waited) is ("waiting for a core" in row.sentence)


def test_another_run_at_the_same_time_decides_nothing():
    doubt = f"{neighbours.SHARED} (process 5) was on npu:0 at the same time"
    found = compared(run(3.0, doubts=(doubt,)), run())
    assert statuses(found)["latency_p50_ms at batch 1"] == OPEN
    assert statuses(found)["throughput_ms_per_batch at batch 8"] == OPEN


def test_an_unstable_sample_shows_no_equality():
    found = compared(run(doubts=("unstable: robust coefficient of variation 40.0%",)), run())
    assert statuses(found)["latency_p50_ms at batch 1"] == OPEN


@pytest.mark.parametrize("slack", [None, 0.2])
def test_processes_that_are_doubtful_do_not_fail_by_that(slack):
    """A busy host made all of ours 10 % slower: the record says by how much, or only that."""
    doubt = "busy host: 40% of the sampling was spent waiting for a core"
    ours = fresh(1.1, seed=1, doubts=[doubt], **({} if slack is None else {"slack": slack}))
    row = next(r for r in compared([ours], [fresh(seed=2)]).rows if r.key.name.endswith("p50_ms"))
    assert row.status == OPEN
    assert "doubtful" in row.sentence
    slower = fresh(1.5, seed=1, doubts=[doubt], **({} if slack is None else {"slack": slack}))
    row = next(r for r in compared([slower], [fresh(seed=2)]).rows if r.key.name.endswith("p50_ms"))
    assert row.status == (OPEN if slack is None else FAILED)


def test_a_doubtful_baseline_hides_no_regression():
    theirs = fresh(1.06, seed=2, slack=0.1)
    status = statuses(compared([fresh(1.06, seed=1)], [theirs]))
    assert status["replicates_p50_ms at batch 1"] == OPEN
    waiting = run()
    waiting[0].records["power"] = {"blocks": [{"waited_share": 0.2}]}
    found = compared(run(0.9), waiting)
    assert statuses(found)["latency_p50_ms at batch 1"] == OPEN
    assert "the baseline spent 20% of the time waiting for a core" in found.reason


def test_processes_beside_another_run_decide_nothing():
    doubt = f"{neighbours.SHARED} (process 5) was on npu:0 at the same time"
    ours = dataclasses.replace(fresh(1.5, seed=1), doubts=(doubt,))
    assert statuses(compared([ours], [fresh(seed=2)]))["replicates_p50_ms at batch 1"] == OPEN


@pytest.mark.parametrize("status", [Status.FAIL, Status.INVALID, Status.HANG, Status.NOT_RUN])
@pytest.mark.parametrize("side", ["this run", "the baseline"])
def test_times_of_a_case_that_failed_are_not_compared(status, side):
    """A baseline that failed and was far too slow would pass anything."""
    bad, good = run(9.0, status=status), run()
    found = compared(bad, good) if side == "this run" else compared(good, bad)
    assert found.verdict()
    assert f"in {side} test_latency ended as {status}" in found.reason
    assert {row.ratio for row in found.rows} == {None}
    assert {*statuses(found).values()} == {OPEN, INFORMATION}


def test_a_baseline_that_is_not_qualified_is_a_doubt():
    theirs = dataclasses.replace(earlier(run()), verdict="NOT QUALIFIED")
    found = against(theirs, PRINT, run())
    assert "the baseline's own verdict is NOT QUALIFIED" in found.doubts


@pytest.mark.parametrize(
    "values", [None, [], [math.nan], ["1"], [0], [-1.0, 2.0], [True], [math.inf]]
)
def test_numbers_that_are_none_are_no_figures(values):
    case = Case("t.py::test_latency", Status.PASS, records={"latency": {"samples_ms": values}})
    assert figures([case]) == {}


def test_a_percentile_that_the_sample_cannot_bear_is_not_compared():
    few = Case("t.py::test_latency", Status.PASS, records={"latency": {"samples_ms": [5.0] * 11}})
    assert [key.name for key in figures([few])] == ["latency_p50_ms"]


def test_cold_starts_alone_judge_nothing():
    cold = [case for case in run() if "cold_start" in case.records]
    slower = [case for case in run(5.0) if "cold_start" in case.records]
    found = compared(slower, cold)
    assert found.verdict()
    assert "can be judged" in found.reason


# --- host and stack -----------------------------------------------------------------------------


def test_another_stack_is_not_compared_and_told_in_words():
    other = Fingerprint({**PRINT.fields, "torch": "2.8.0"}, PRINT.variables)
    found = against(earlier(run(), other), PRINT, run(9.0))
    assert found.rows == ()
    assert found.verdict()
    assert found.differences == ("torch is 2.9.0, it was 2.8.0",)
    assert "host and stack are not the same" in found.reason
    assert found.as_json()["equal_fingerprint"] is False


def test_a_baseline_without_a_fingerprint_is_not_compared():
    found = against(earlier(run(), None), PRINT, run())
    assert found.rows == ()
    assert "fingerprint" in found.reason


def test_another_card_of_the_kind_is_a_doubt():
    theirs = Fingerprint({**PRINT.fields, "card": "one"}, {})
    ours = Fingerprint({**PRINT.fields, "card": "two"}, {})
    found = against(earlier(run(), theirs), ours, run())
    assert found.rows
    assert "card is two, it was one" in found.doubts


@given(st.floats(0.1, 10), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_the_record_is_json_and_its_figures_have_values(factor, replicates):
    found = compared(run(factor, replicates=replicates), run(replicates=5))
    json.dumps(found.as_json(), allow_nan=False)
    assert all(figure.value or figure.reason for figure in found.figures())
    assert {"with", "source", "equal_fingerprint", "differences", "rows", "sentence", "doubts"} == (
        set(found.as_json())
    )


# --- at the door --------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path):
    """Writes a whole report with changes, and gives its path."""

    def write(**changes):
        qualification = qualified()
        values = as_json(qualification, conclude(qualification))
        path = tmp_path / "validation_report.json"
        path.write_text(json.dumps({**values, **changes}), encoding="utf-8")
        return path

    return write


def test_a_whole_report_is_read(report):
    given = load(report())
    assert given.run.cases
    model = given.run.facts["subject"]["model"]
    refuse(given, Settings(model=model))
    refuse_device(given, given.run.facts["device"])
    refuse_subject(given, given.run.facts["subject"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100000, "is not JSON"),
        (b"[]", "no validation report"),
        (b"{}", "no validation report"),
        (b'{"schema_version": 1}', "no validation report"),
        (b'{"schema_version": "2.0"}', "its schema is 2.0"),
        (b'{"schema_version": "1.9"}', "damaged"),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_one_sentence(tmp_path, content, words):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(Refusal) as refused:
        load(path)
    sentence = str(refused.value)
    assert sentence.startswith(f"--baseline {path}: ")
    assert words in sentence
    assert "\n" not in sentence


def with_record(kind, value):
    """Changes of a report: its cases, each with such a record."""
    qualification = qualified()
    cases = as_json(qualification, conclude(qualification))["cases"]
    records = {"latency": {"samples_ms": [50.0] * 64}, kind: value}
    return {"cases": [{**case, "records": records} for case in cases]}


@pytest.mark.parametrize(
    "change",
    [
        with_record("power", 5),
        with_record("power", [5]),
        with_record("power", {"blocks": 5}),
        with_record("power", {"blocks": [5]}),
        with_record("latency", {"samples_ms": [50.0] * 64, "batch_size": [1]}),
        with_record("latency", {"samples_ms": [10**400] * 64}),
        with_record("throughput", {"samples_ms": [50.0], "batch_size": "8"}),
        with_record("replicates", {"processes": 5}),
        with_record("replicates", {"processes": [{"samples_ms": [1.0] * 64, "doubts": 5}]}),
        with_record("replicates", {"processes": [{"samples_ms": [1.0] * 64, "slack": "x"}]}),
        with_record("cold_start", {"phases": 5}),
        with_record("bounds", {"operators": 5}),
        with_record("bounds", 5),
        {"settings": {"batch_sizes": [[1]]}},
        {"settings": {"batch_sizes": 5}},
        {"verdict": [5]},
        {"references": None},
    ],
)
def test_a_damaged_report_is_refused_at_the_door(report, change):
    """Never a traceback, neither at the door nor in the case that compares."""
    with pytest.raises(Refusal, match="the report is damaged") as refused:
        load(report(**change))
    assert "\n" not in str(refused.value)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(Refusal, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("key", ["device", "subject", "settings"])
def test_a_report_that_knows_no_device_is_refused(report, key):
    with pytest.raises(Refusal, match=f"it knows no {key}"):
        load(report(**{key: None}))


def test_another_network_is_refused(report):
    with pytest.raises(Refusal, match="this run of resnet50; give --model"):
        refuse(load(report()), Settings(model="resnet50"))


def test_other_batches_are_refused(report):
    given = load(report())
    model = given.run.facts["subject"]["model"]
    given.run.facts["settings"]["batch_sizes"] = [1, 4]
    refuse(given, Settings(model=model, batch_sizes=(4, 32)))
    with pytest.raises(Refusal, match="batch sizes 1, 4, none of which"):
        refuse(given, Settings(model=model, batch_sizes=(32, 64)))


@pytest.mark.parametrize(
    "change", [{"name": "Ascend910B3"}, {"backend": "cuda"}, {"simulated": "other"}]
)
def test_another_device_is_refused(report, change):
    given = load(report())
    device = given.run.facts["device"]
    if "simulated" in change:
        change = {"simulated": not device["simulated"]}
    with pytest.raises(Refusal, match="it was measured on"):
        refuse_device(given, {**device, **change})


def test_other_weights_and_another_head_are_refused(report):
    given = load(report())
    subject = given.run.facts["subject"]
    other = {**subject, "weights": {**subject["weights"], "sha256": "0" * 64}}
    with pytest.raises(Refusal, match="weights of SHA-256"):
        refuse_subject(given, other)
    with pytest.raises(Refusal, match="number of classes of"):
        refuse_subject(given, {**subject, "num_classes": 7})


# --- as a user would ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bad_baseline_is_bad_usage_before_anything_runs(suite, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text("{")
    outcome = suite.run(*SMALL, "--baseline", str(path))
    assert outcome.code == 4
    assert f"--baseline {path}: the file is not JSON" in outcome.out


@pytest.mark.slow
def test_a_baseline_of_another_device_is_bad_usage_before_the_first_case(suite, report):
    path = report()
    model = json.loads(path.read_text())["subject"]["model"]
    arguments = ("--model", model, "--weights", "synthetic", "--device", "cpu")
    outcome = suite.run(*arguments, "--baseline", str(path), "tests/test_environment.py")
    assert outcome.code == 4
    assert "it was measured on" in outcome.out
    assert "passed" not in outcome.out


@pytest.mark.slow
def test_without_a_baseline_the_case_is_on_demand(suite):
    outcome = suite.run(*SMALL, "tests/test_environment.py", "tests/test_baseline.py")
    case = outcome.case("test_baseline")
    assert case["status"] == "NOT RUN"
    assert case["required"] is False
    assert "--baseline FILE" in case["reason"]

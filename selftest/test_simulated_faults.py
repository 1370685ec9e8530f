"""Fault plans are read or refused in words, faults strike when planned and do what they say."""

from __future__ import annotations

import ctypes
import inspect
import json
import math
import subprocess
import sys
import threading
import time

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixtures.core.backends.simulated_cann import compute, faults, plan, runtime
from fixtures.core.backends.simulated_cann.faults import HANG, KINDS, PLACES, Call, run
from fixtures.core.backends.simulated_cann.host import ECC_COUNTERS, make, set_state
from fixtures.core.backends.simulated_cann.plan import (
    OPEN,
    RUNTIME_CALLS,
    TYPICAL,
    Fault,
    Plan,
    PlanError,
    Trigger,
    Variation,
    read,
)
from fixtures.core.backends.simulated_cann.table import TABLE, Row
from selftest.conftest import ROOT

FORMATS = (torch.float32, torch.float16, torch.bfloat16)
CLAIMED = set()


def of(kind):
    """Mark a test as the one that shows what a kind does."""

    def mark(test):
        CLAIMED.add(kind)
        return test

    return mark


def test_every_kind_has_a_test_that_shows_it():
    assert set(KINDS) == CLAIMED


# --- plans


def one(**fault):
    """The fault of a plan that has only this one."""
    return read(json.dumps([fault])).faults[0]


def test_a_plan_is_read_with_all_its_keys(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(
        '{"variation": {"summation": true, "hf32": "truncate", "fma": true, "ulp": 2,'
        ' "event_jitter": 0.1, "seed": 5},'
        ' "faults": [{"kind": "dropped_channel", "operator": ["aclnnAddmm", "aclnnConvolution"],'
        ' "device": 1, "nth": [3, 5], "shape": [1, 128, 64, 64], "probability": 0.5, "seed": 1,'
        ' "channel": 7}, {"kind": "lazy_completion"}]}'
    )
    made = read(str(file))
    assert made.variation == Variation(True, "truncate", True, 2, 0.1, 5)
    assert made.faults[0] == Fault(
        "dropped_channel",
        device=1,
        operators=("aclnnAddmm", "aclnnConvolution"),
        nth=(3, 5),
        shape=(1, 128, 64, 64),
        probability=0.5,
        seed=1,
        parameters={"channel": 7, "dim": None},
    )
    assert made.faults[1] == Fault("lazy_completion")


def test_json_itself_a_bare_list_and_an_object_are_the_same_plan():
    faults = '[{"kind": "hang"}]'
    assert read(faults).faults == read(f' {{"faults": {faults}}}').faults == (Fault("hang"),)


def test_what_a_plan_leaves_out_comes_from_the_kind():
    fault = one(kind="scaled_channel", factor=2)
    assert fault.operators == ("aclnnConvolution",)
    assert fault.parameters == {"channel": 0, "dim": None, "factor": 2.0}
    assert (fault.device, fault.nth, fault.shape, fault.probability) == (None, None, None, 1)


@pytest.mark.parametrize(
    ("text", "variation"),
    [
        ('{"variation": true}', TYPICAL),
        ('{"variation": false}', Variation()),
        ('{"variation": {"ulp": 1}}', Variation(ulp=1)),
        ('{"faults": []}', Variation()),
        ("[]", Variation()),
    ],
)
def test_a_healthy_variation_is_planned_without_any_fault(text, variation):
    assert read(text) == Plan((), variation)


def test_typical_variation_has_everything_on():
    assert all(
        getattr(TYPICAL, name) != getattr(Variation(), name)
        for name in ("summation", "hf32", "fma", "ulp", "event_jitter")
    )


@pytest.mark.parametrize(
    ("value", "nth"),
    [
        (3, (3, 3)),
        ([3, 5], (3, 5)),
        ([2, 2], (2, 2)),
        ("3-", (3, OPEN)),
        ("3-5", (3, 5)),
        ("4", (4, 4)),
    ],
)
def test_nth_is_a_call_a_range_or_open(value, nth):
    assert one(kind="hang", nth=value).nth == nth


def values(row):
    """What a parameter may be."""
    if row.choices:
        return st.sampled_from(row.choices)
    low = None if row.low is None else row.low
    high = None if row.high is None else row.high
    if row.wanted is int:
        low = 0 if low is None else math.ceil(low / row.multiple)
        high = None if high is None else math.floor(high / row.multiple)
        return st.integers(low, 10**9 if high is None else high).map(lambda n: n * row.multiple)
    if row.wanted is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    return st.text(st.characters(codec="ascii", exclude_categories=["Cc"]))


@st.composite
def planned(draw):
    """Any fault that can be planned, as the plan has it."""
    kind = draw(st.sampled_from(list(KINDS.values())))
    fault = {"kind": kind.name}
    place = kind.where
    if kind.where == "operator":
        names = kind.only or tuple(TABLE)
        fault["operator"] = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        fault["shape"] = draw(st.lists(st.integers(0, 9), max_size=4))
    if place not in ("build", "finalize"):
        fault["device"] = draw(st.integers(0, 7))
    if place not in ("build", "configure", "host"):
        first = draw(st.integers(1, 9))
        fault["nth"] = draw(st.sampled_from([first, [first, first + 3], f"{first}-"]))
        fault["probability"] = draw(st.floats(0, 1))
    fault["seed"] = draw(st.integers(0, 99))
    for row in kind.fields:
        if draw(st.booleans()):
            fault[row.name] = draw(values(row))
    return fault


def toml(fault):
    """The same fault in TOML."""
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in fault.items())
    return f"[[faults]]\n{lines}"


@given(planned())
@settings(max_examples=150, deadline=None)
def test_any_fault_that_can_be_planned_reads_alike_from_json_and_toml(tmp_path_factory, fault):
    file = tmp_path_factory.getbasetemp() / "plan.toml"
    file.write_text(toml(fault), encoding="utf-8")
    made = one(**fault)
    assert read(str(file)).faults == (made,)
    assert made.kind == fault["kind"]
    for name, value in {**KINDS[made.kind].parameters, **fault}.items():
        if name in KINDS[made.kind].parameters:
            assert made.parameters[name] == value
    assert made.where in KINDS[made.kind].places


WORDS = {
    "<kinds>": "give one of " + ", ".join(KINDS),
    "<nth>": 'give a call from 1 on such as 3, a range such as [3, 5], or "3-"',
    "<shape>": "give a list of sizes such as [1, 128, 64, 64]",
    "<from 0>": "give a whole number from 0 on",
    "<from 1>": "give a whole number from 1 on",
    "<share>": "give a number from 0 to 1",
    "<not there>": "since this kind cannot strike there",
    "<always>": "means nothing, since the fault is there from the start, not at single calls",
    "<process>": "means nothing, since the fault belongs to the process, not to one card",
    "<unaddressed>": "means nothing, since this kind is not addressed by operator",
    "<cube>": ", ".join((*faults.CUBE, "aclnnConvolutionBackward")),
    "<counters>": ", ".join(ECC_COUNTERS),
}


def rows(text):
    """The lines of a table, split at bars, its abbreviations written out."""
    for short, long in WORDS.items():
        text = text.replace(short, long)
    return [tuple(line.split(" | ")) for line in text.strip().splitlines()]


UNUSABLE = rows("""
[1 | is not JSON (Expecting ',' delimiter: line 1 column 3 (char 2)); mend that place
{} | plans nothing; give faults or a variation
{"fault": []} | unknown key "fault"; did you mean faults?
{"faults": {"kind": "hang"}} | faults is {"kind": "hang"}; give a list of faults
{"variation": 1} | variation: the variation is 1; give true, false or an object
{"variation": {"ulps": 1}} | variation: unknown key "ulps"; did you mean ulp?
{"variation": {"ulp": 3}} | variation: ulp is 3; give a whole number from 0 to 2
{"variation": {"fma": 1}} | variation: fma is 1; give true or false
{"variation": {"hf32": "up"}} | variation: hf32 is "up"; give one of nearest, truncate
{"variation": {"event_jitter": 1}} | variation: event_jitter is 1.0; give a number from 0 to 0.5
[3] | fault 1: the fault is 3; give an object such as {"kind": "hang"}
[{"nth": 3}] | fault 1: has no kind; <kinds>
[{"kind": "hangs"}] | fault 1: unknown kind "hangs"; did you mean hang?
[{"kind": ["hang"]}] | fault 1: unknown kind ["hang"]; <kinds>
[{"kind": "xyz"}] | fault 1: unknown kind "xyz"; <kinds>
[{"kind": "hang"}, {"kind": "lek"}] | fault 2: unknown kind "lek"; did you mean leak?
[{"kind": "hang", "kind": "leak"}] | kind is given twice in one object; keep one
""")


@pytest.mark.parametrize(("text", "sentence"), UNUSABLE, ids=[text for text, _ in UNUSABLE])
def test_a_plan_that_cannot_be_used_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(PlanError) as refused:
        read(text)
    assert str(refused.value) == f"fault plan: {sentence}"


UNPLANTABLE = rows("""
leak | byte | 5 | unknown key "byte"; did you mean bytes?
hang | xyz | 5 | unknown key "xyz"; \
give one of kind, operator, device, nth, shape, probability, seed
hang | operator | "aclnnGeluV3" | unknown operator "aclnnGeluV3"; did you mean aclnnGeluV2?
hang | operator | [] | operator is []; give a name or a list of names
hang | operator | 3 | operator is 3; give a name or a list of names
hang | operator | ["aclnnGelu", 3] | operator is ["aclnnGelu", 3]; give a name or a list of names
hang | operator | "aclrtMalloc" | operator is "aclrtMalloc"; give an operator, <not there>
wrong_gelu | operator | "aclnnAdd" | operator is "aclnnAdd"; \
give one of aclnnGelu, aclnnGeluV2, <not there>
hf32 | operator | "*" | operator is "*"; give one of <cube>, <not there>
leak | operator | "launch" | operator is "launch"; give an operator, <not there>
copy_bit_flip | operator | "*" | operator is "*"; give one of aclrtMemcpy, <not there>
missing_operator | operator | "*" | operator is "*"; give an operator, <not there>
leak | operator | ["aclnnGelu", "aclrtMalloc"] | operator is ["aclnnGelu", "aclrtMalloc"]; \
give operators or one runtime call, not both
short_hbm | operator | "aclnnAdd" | operator "aclnnAdd" <unaddressed>; leave operator out
temperature | operator | "aclnnAdd" | operator "aclnnAdd" <unaddressed>; leave operator out
hang | device | -1 | device is -1; <from 0>
hang | device | "0" | device is "0"; <from 0>
hang | device | true | device is true; <from 0>
hang | probability | 1.5 | probability is 1.5; <share>
hang | probability | -0.1 | probability is -0.1; <share>
hang | probability | NaN | probability is NaN; <share>
hang | seed | -1 | seed is -1; <from 0>
hang | seed | 1.0 | seed is 1.0; <from 0>
hang | nth | 0 | nth is 0; <nth>
hang | nth | true | nth is true; <nth>
hang | nth | [5, 3] | nth is [5, 3]; <nth>
hang | nth | [1, 2, 3] | nth is [1, 2, 3]; <nth>
hang | nth | "-3" | nth is "-3"; <nth>
hang | nth | "x-" | nth is "x-"; <nth>
hang | nth | "" | nth is ""; <nth>
hang | nth | 2.0 | nth is 2.0; <nth>
hang | shape | 3 | shape is 3; <shape>
hang | shape | [-1] | shape is [-1]; <shape>
hang | shape | [true] | shape is [true]; <shape>
short_hbm | nth | 3 | nth 3 <always>; leave nth out
health_alarm | probability | 0.5 | probability 0.5 <always>; leave probability out
missing_operator | nth | "2-" | nth "2-" <always>; leave nth out
missing_operator | device | 0 | device 0 <process>; leave device out
hang_at_exit | device | 0 | device 0 <process>; leave device out
leak | shape | [1] | shape [1] means nothing, since the fault strikes no operator; leave shape out
dropped_channel | channel | -1 | channel is -1; <from 0>
dropped_channel | channel | 1.5 | channel is 1.5; <from 0>
dropped_channel | dim | 9 | dim is 9; give a whole number from -8 to 7
scaled_channel | factor | "2" | factor is "2"; give a number
scaled_channel | factor | Infinity | factor is Infinity; give a number
wrong_gelu | form | "relu" | form is "relu"; give one of auto, erf, tanh, sigmoid
nan_on_tiny_variance | variance | -1.0 | variance is -1.0; give a number from 0 on
stuck_bit | bit | 32 | bit is 32; give a whole number from 0 to 31
stuck_bit | bit | -1 | bit is -1; give a whole number from 0 to 31
stuck_bit | value | 2 | value is 2; give a whole number from 0 to 1
stuck_bit | offset | 3 | offset is 3; give a whole number divisible by 4 from 0 on
stuck_bit | length | 3 | length is 3; give a whole number from 4 on
copy_bit_flip | direction | "h2d" | direction is "h2d"; give one of any, H2D, D2H, D2D
leak | bytes | 0 | bytes is 0; <from 1>
out_of_memory | size | -1 | size is -1; <from 0>
short_hbm | total | 0 | total is 0; <from 1>
sync_error | code | 0 | code is 0; give a whole number from 1 to 999999
timeout | seconds | -1 | seconds is -1.0; give a number from 0 on
wrong_device | selects | -1 | selects is -1; <from 0>
slow_operator | factor | 0.5 | factor is 0.5; give a number from 1 on
throttling | calls | 0 | calls is 0; <from 1>
clock_skew | rate | 0 | rate is 0.0; give a number from 1e-06 to 1e+06
health_alarm | code | 5 | code is 5; give a text
temperature | celsius | 300 | celsius is 300; give a whole number from -40 to 200
ecc_rising | step | 0 | step is 0; <from 1>
ecc_rising | counter | "x" | counter is "x"; give one of <counters>
""")


@pytest.mark.parametrize(
    ("kind", "key", "value", "sentence"),
    UNPLANTABLE,
    ids=["-".join(row[:3]) for row in UNPLANTABLE],
)
def test_a_fault_that_cannot_be_planted_is_refused_in_one_sentence(kind, key, value, sentence):
    read(f'[{{"kind": "{kind}"}}]')  # sanity check: without the key it is a plan
    with pytest.raises(PlanError) as refused:
        read(f'[{{"kind": "{kind}", "{key}": {value}}}]')
    assert str(refused.value) == f"fault plan: fault 1 ({kind}): {sentence}"


def test_a_file_that_cannot_be_used_is_refused_by_its_name(tmp_path):
    def refusal(name, content=None):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(PlanError) as refused:
            read(str(file))
        head = f"fault plan {file}: "
        assert str(refused.value).startswith(head)
        return str(refused.value)[len(head) :]

    cannot = "cannot be read ({}); give a file that can"
    assert refusal("absent.json") == cannot.format("No such file or directory")
    assert refusal("latin.json", b"\xe9") == cannot.format("it is not UTF-8 text")
    (tmp_path / "folder.toml").mkdir()
    assert refusal("folder.toml") == cannot.format("Is a directory")
    assert refusal("empty.json", b" \n") == "is empty; write faults or a variation into it"
    assert refusal("empty.toml", b"") == "is empty; write faults or a variation into it"
    assert refusal("comment.toml", b"# later") == "plans nothing; give faults or a variation"
    assert refusal("plan.yaml", b"faults: []") == (
        "neither a .json nor a .toml file; give the path of one, or JSON itself"
    )
    assert refusal("bad.json", b"faults").startswith("is not JSON (Expecting value: line 1")
    assert refusal("number.json", b"3") == (
        "the plan is 3; give an object with faults or a variation, or a list of faults"
    )
    assert refusal("bad.toml", b"faults = [").startswith("is not TOML (")
    assert refusal("bad.toml", b"faults = [").endswith("; mend that place")
    assert refusal("deep.json", b"[" * 100_000).startswith("is not JSON (")
    assert refusal("date.toml", b'[[faults]]\nkind = "hang"\nnth = 2020-01-01').endswith(
        f'nth is "2020-01-01"; {WORDS["<nth>"]}'
    )


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "plan.json"
    file.write_bytes(b'\xef\xbb\xbf[{"kind": "hang"}]')
    assert read(str(file)).faults == (Fault("hang"),)


def test_a_card_that_there_is_not_is_refused():
    made = read('[{"kind": "hang"}, {"kind": "hang", "device": 1}]')
    made.check_cards(2)
    with pytest.raises(PlanError) as refused:
        made.check_cards(1)
    assert str(refused.value) == (
        "fault plan: fault 2 (hang): device 1 is no card of 1; give 0 to 0, or simulate more cards"
    )
    made = read('[{"kind": "wrong_device", "selects": 3}]')
    with pytest.raises(PlanError, match="selects 3 is no card of 2; give 0 to 1"):
        made.check_cards(2)


def test_a_plan_is_read_without_torch():
    code = (
        "import sys\n"
        "from fixtures.core.backends.simulated_cann.plan import read, Trigger\n"
        'made = read(\'{"variation": true, "faults": [{"kind": "hang"}]}\')\n'
        "assert Trigger(made.faults[0]).strikes(0, 'aclnnConvolution')\n"
        "assert made.faults[0].apply\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- the table of kinds


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_kind_is_addressed_at_what_there_is_and_described(kind):
    assert set(kind.operators) | set(kind.only) <= {*TABLE, *RUNTIME_CALLS, "*"}
    assert not kind.only or set(kind.operators) <= set(kind.only)
    assert kind.summary
    assert "\n" not in kind.summary
    assert kind.group in ("numeric", "memory", "runtime", "timing", "telemetry")
    assert {row.name for row in kind.fields}.isdisjoint(
        {"kind", "operator", "device", "nth", "shape", "probability", "seed"}
    )
    assert one(kind=kind.name).where == kind.where
    assert (kind.apply is None) == (kind.where == "build")


ARGUMENTS = {
    "operator": ("fault", "call"),
    "copy": ("fault", "runtime", 0, 1, 2, 3, 4),
    "malloc": ("fault", "runtime", 0, 1),
    "synchronize": ("fault", "runtime", 0),
    "launch": ("fault", "runtime", 0),
    "set_device": ("fault", "runtime", 0),
    "finalize": ("fault", "runtime", 0),
    "configure": ("fault", "runtime", range(1)),
    "host": ("fault", {}),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_apply_takes_what_its_place_gives(kind):
    for place in kind.places:
        if place != "build":
            inspect.signature(kind.at(place)).bind(*ARGUMENTS[place])


def test_a_fault_addressed_elsewhere_strikes_there():
    assert one(kind="leak").where == "malloc"
    leak = one(kind="leak", operator="aclnnGelu")
    assert leak.where == "operator"
    assert leak.apply is not KINDS["leak"].apply
    assert one(kind="sync_error", operator="launch").where == "launch"
    assert one(kind="sync_error", operator="*").where == "operator"
    with pytest.raises(TypeError, match="nothing to call"):
        _ = one(kind="missing_operator").apply


def test_places_are_those_of_the_runtime():
    assert tuple(PLACES.items()) == tuple(zip(runtime.CALLS, runtime.HOOKS, strict=True))


def test_the_runtime_offers_what_faults_ask_of_it():
    asked = [name for name in vars(faults.Runtime) if not name.startswith("_")]
    assert len(asked) > 5  # sanity check
    for name in asked:
        wanted = inspect.signature(getattr(faults.Runtime, name))
        offered = inspect.signature(getattr(runtime.Runtime, name))
        assert list(wanted.parameters) == list(offered.parameters), name


# --- when a fault strikes


def struck(trigger, calls, device=0, operator="aclnnConvolution", shapes=()):
    """The numbers of the calls that were struck, from 1."""
    return [n for n in range(1, calls + 1) if trigger.strikes(device, operator, shapes)]


@pytest.mark.parametrize(
    ("nth", "numbers"),
    [(3, [3]), ([2, 4], [2, 3, 4]), ("4-", [4, 5, 6]), (None, [1, 2, 3, 4, 5, 6])],
)
def test_the_nth_matching_calls_are_struck(nth, numbers):
    planned = {"kind": "hang"} if nth is None else {"kind": "hang", "nth": nth}
    assert struck(Trigger(one(**planned)), 6) == numbers


def test_only_matching_calls_are_struck_and_counted():
    fault = one(kind="hang", device=1, operator=["aclnnAdd", "aclnnMul"], shape=[2, 3], nth=2)
    trigger = Trigger(fault)
    for device, operator, shapes in [
        (0, "aclnnAdd", [(2, 3)]),
        (1, "aclnnSub", [(2, 3)]),
        (1, "aclnnAdd", [(3, 2)]),
        (1, "aclnnAdd", []),
        (1, "aclnnAdd", [(2, 3)]),  # the first that matches
    ]:
        assert not trigger.strikes(device, operator, shapes)
    assert trigger.strikes(1, "aclnnMul", [(5,), (2, 3)])


def test_each_card_has_its_own_count():
    trigger = Trigger(one(kind="hang", nth=2))
    assert struck(trigger, 3, device=0) == [2]
    assert struck(trigger, 3, device=1) == [2]


def test_every_operator_is_no_runtime_call():
    trigger = Trigger(one(kind="throttling"))
    assert all(trigger.strikes(0, name) for name in TABLE)
    assert not any(trigger.strikes(0, name) for name in RUNTIME_CALLS)


def test_calls_that_a_fault_would_leave_alone_are_not_counted():
    copies = Trigger(one(kind="copy_bit_flip", direction="D2H", nth=2))
    directions = ["H2D", "D2H", "H2D", "D2H", "D2H"]
    hits = [copies.strikes(0, "aclrtMemcpy", direction=direction) for direction in directions]
    assert hits == [False, False, False, True, False]
    blocks = Trigger(one(kind="out_of_memory", size=100, nth=2))
    hits = [blocks.strikes(0, "aclrtMalloc", size=size) for size in (50, 100, 99, 200, 300)]
    assert hits == [False, False, False, True, False]


@given(st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_chance_repeats_itself_by_seed(probability, seed):
    fault = one(kind="hang", probability=probability, seed=seed)
    first, again = struck(Trigger(fault), 100), struck(Trigger(fault), 100)
    assert first == again
    assert abs(len(first) - 100 * probability) <= 5 * math.sqrt(100 * 0.25)


def test_another_seed_and_another_card_strike_other_calls():
    def numbers(seed, device=0):
        return struck(Trigger(one(kind="hang", probability=0.5, seed=seed)), 64, device)

    assert numbers(1) != numbers(2)
    assert numbers(1, device=0) != numbers(1, device=1)
    assert struck(Trigger(one(kind="hang", probability=0)), 64) == []


def test_no_call_is_lost_or_struck_twice_between_threads():
    class Slow(dict):
        """Lets other threads run between the reading of a count and its writing."""

        def get(self, *key):
            found = super().get(*key)
            time.sleep(0)
            return found

    trigger, hits = Trigger(one(kind="hang", nth=[101, 300])), []
    trigger._tally._counts = Slow()
    start = threading.Barrier(8)

    def work():
        start.wait()
        hits.append(len(struck(trigger, 100)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(hits) == 200


def test_a_tally_knows_the_time_since_its_first_count(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(plan.time, "monotonic", lambda: now[0])
    tally = plan.Tally()
    assert tally.since(0) == 0
    assert [tally.next(0), tally.next(0), tally.next(1)] == [1, 2, 1]
    now[0] = 12.5
    tally.next(0)
    assert tally.since(0) == 2.5


# --- what a fault does


class FakeRuntime:
    """Records what is asked of it."""

    def __init__(self):
        self.asked = []

    def memory(self, device):
        return 10, 1000

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.asked.append((name, *args, *kwargs.values()))


def operate(name, args, *planned, runtime=None, device=0):
    """Run an operator of the table under planned faults, each striking. Returns its code."""
    row, card = TABLE[name], compute.Card(device)
    call = Call(
        card,
        row,
        list(args),
        lambda: getattr(compute, row.compute)(card, *call.args),
        runtime or FakeRuntime(),
    )
    with torch.inference_mode():
        return run(call, [one(**fault) for fault in planned])


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


HOLE = 123.0


def holed(*shape, dtype=torch.float32):
    """An output with permuted strides and gaps between its elements, and the memory around it."""
    reversed_shape = [2 * size + 1 for size in reversed(shape)]
    memory = torch.full(reversed_shape, HOLE, dtype=dtype)
    view = memory.permute(*reversed(range(len(shape))))
    for dim, size in enumerate(shape):
        view = view.narrow(dim, 1, 2 * size)
        view = view[(slice(None),) * dim + (slice(None, None, 2),)]
    return view.fill_(float("nan")), memory


def convolution(dtype=torch.float32, out=None, channels=40, cube=0, batch=2):
    """Arguments of a small convolution: 6 -> `channels`, 3x3, rows 9, columns 8."""
    x, w = random(batch, 6, 9, 8, dtype=dtype), random(channels, 6, 3, 3, dtype=dtype, seed=1)
    out = torch.full((batch, channels, 9, 8), float("nan"), dtype=dtype) if out is None else out
    b = random(channels, dtype=dtype, seed=2)
    return [x, w, b, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, out, cube]


def healthy_and_struck(dtype=torch.float32, **fault):
    """What a convolution gives without and with a fault, into memory of any layout."""
    arguments = convolution(dtype)
    assert operate("aclnnConvolution", arguments) == 0
    healthy = arguments[9]
    out, memory = holed(*healthy.shape, dtype=dtype)
    assert operate("aclnnConvolution", convolution(dtype, out), fault) == 0
    result = out.clone()
    out.fill_(HOLE)
    assert bool((memory == HOLE).all()), "wrote beside the output"
    assert not torch.equal(healthy, result)
    return healthy, result


@pytest.mark.parametrize("dtype", FORMATS)
@of("dropped_channel")
def test_dropped_channel_zeroes_one_output_channel(dtype):
    healthy, result = healthy_and_struck(dtype, kind="dropped_channel", channel=7)
    healthy[:, 7] = 0
    assert torch.equal(result, healthy)


@pytest.mark.parametrize("dtype", FORMATS)
@of("scaled_channel")
def test_scaled_channel_multiplies_one_output_channel(dtype):
    healthy, result = healthy_and_struck(dtype, kind="scaled_channel", channel=39, factor=2)
    healthy[:, 39] *= 2
    assert torch.equal(result, healthy)


def test_a_channel_is_the_last_axis_unless_the_plan_says_otherwise():
    x, out = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
    operate("aclnnMuls", [x, 1, out], {"kind": "dropped_channel", "operator": "*", "channel": 3})
    assert out[..., 3].abs().sum() == 0
    assert out.sum() == 18
    fault = {"kind": "dropped_channel", "operator": "*", "channel": 1, "dim": 1}
    operate("aclnnMuls", [x, 1, out], fault)
    assert out[:, 1].abs().sum() == 0
    assert out.sum() == 16
    operate("aclnnMuls", [x, 1, out], {**fault, "channel": 9, "dim": 0})  # there is no channel 9
    assert out.sum() == 24
    operate("aclnnMuls", [x, 1, out], {**fault, "channel": 3, "dim": 7})  # no such axis: the last
    assert out[..., 3].abs().sum() == 0


def test_what_an_output_does_not_have_is_not_spoiled():
    for fault in (
        {"kind": "dropped_channel", "channel": 4},
        {"kind": "scaled_channel", "channel": 4, "factor": 9},
        {"kind": "off_by_one_stripe", "first": 4},
        {"kind": "swapped_group", "second": 4},
    ):
        out = torch.empty(4, 4)
        operate("aclnnMuls", [torch.ones(4, 4), 1, out], {**fault, "operator": "*"})
        assert torch.equal(out, torch.ones(4, 4)), fault


def test_a_picture_without_batch_has_its_channels_first():
    arguments = convolution(batch=1)
    arguments[0], arguments[9] = arguments[0][0], arguments[9][0]
    operate("aclnnConvolution", arguments, {"kind": "dropped_channel", "channel": 8})
    zero = [n for n in range(40) if bool((arguments[9][n] == 0).all())]
    assert zero == [8]


@pytest.mark.parametrize("dtype", FORMATS)
@of("swapped_group")
def test_swapped_group_swaps_two_groups_of_channels(dtype):
    healthy, result = healthy_and_struck(dtype, kind="swapped_group", first=1, second=0)
    order = [*range(16, 32), *range(16), *range(32, 40)]
    assert torch.equal(result, healthy[:, order])


def test_swapped_groups_of_few_channels_are_narrower():
    healthy, result = healthy_and_struck(kind="swapped_group", first=0, second=3)
    order = [*range(30, 40), *range(10, 30), *range(10)]
    assert torch.equal(result, healthy[:, order])


@pytest.mark.parametrize("dtype", FORMATS)
@of("stale_output")
def test_stale_output_keeps_every_bit_that_was_there(dtype):
    x, out = random(4, 8, dtype=dtype), random(4, 8, dtype=dtype, seed=3)
    faults.bits(out)[0, 0] = -1  # a NaN with all its bits set, as in memory never written
    before = faults.bits(out).clone()
    mean, deviation = torch.full((4, 1), 5.0), torch.full((4, 1), 6.0)
    arguments = [x, [8], None, None, 1e-6, out, mean, deviation]
    assert operate("aclnnLayerNorm", arguments, {"kind": "stale_output"}) == 0
    assert torch.equal(faults.bits(out), before)
    assert (mean.mean(), deviation.mean()) == (5, 6)
    operate("aclnnLayerNorm", arguments)
    assert not torch.equal(faults.bits(out), before)


@pytest.mark.parametrize("dtype", FORMATS)
@of("off_by_one_stripe")
def test_off_by_one_stripe_takes_rows_from_one_further(dtype):
    healthy, result = healthy_and_struck(dtype, kind="off_by_one_stripe", first=2, rows=4)
    assert torch.equal(result, healthy[:, :, [0, 1, 3, 4, 5, 6, 6, 7, 8]])


def test_a_stripe_ends_at_the_last_row_and_one_row_is_shifted_along_itself():
    healthy, result = healthy_and_struck(kind="off_by_one_stripe", first=7, rows=9)
    assert torch.equal(result, healthy[:, :, [0, 1, 2, 3, 4, 5, 6, 8, 8]])
    row = torch.zeros(1, 5)
    fault = {"kind": "off_by_one_stripe", "operator": "*", "rows": 3}
    operate("aclnnMuls", [torch.arange(5.0).reshape(1, 5), 1, row], fault)
    assert row.tolist() == [[1, 2, 3, 3, 4]]


@pytest.mark.parametrize(
    ("name", "approximate", "form", "expected"),
    [
        ("aclnnGelu", None, "auto", "none"),
        ("aclnnGeluV2", 0, "auto", "tanh"),
        ("aclnnGeluV2", 1, "auto", "none"),
        ("aclnnGelu", None, "erf", "none"),
        ("aclnnGeluV2", 0, "tanh", "tanh"),
        ("aclnnGelu", None, "sigmoid", "sigmoid"),
    ],
)
@pytest.mark.parametrize("dtype", FORMATS)
@of("wrong_gelu")
def test_wrong_gelu_computes_another_form(name, approximate, form, expected, dtype):
    x = torch.linspace(-4, 4, 999).to(dtype)

    def gelu(*planned):
        out = torch.empty_like(x)
        extra = [] if approximate is None else [approximate]
        assert operate(name, [x, *extra, out], *planned) == 0
        return out

    wide = x.float()
    if expected == "sigmoid":
        wanted = wide * torch.sigmoid(1.702 * wide)
    else:
        wanted = torch.nn.functional.gelu(wide, approximate=expected)
    assert torch.equal(gelu({"kind": "wrong_gelu", "form": form}), wanted.to(dtype))
    assert not torch.equal(gelu(), wanted.to(dtype))
    extra = [] if approximate is None else [approximate]
    operate(name, [x, *extra, x], {"kind": "wrong_gelu", "form": form})  # into its own input
    assert torch.equal(x, wanted.to(dtype))


CUBE_CALLS = {
    "aclnnMm": lambda a, b, out, cube: [a, b, out, cube],
    "aclnnMatmul": lambda a, b, out, cube: [a, b, out, cube],
    "aclnnBatchMatMul": lambda a, b, out, cube: [a[None], b[None], out[None], cube],
    "aclnnMv": lambda a, b, out, cube: [a, b[:, 0], out[:, 0], cube],
    "aclnnAddmm": lambda a, b, out, cube: [torch.zeros(()), a, b, 1, 1, out, cube],
    "aclnnBaddbmm": lambda a, b, out, cube: [
        torch.zeros(()),
        a[None],
        b[None],
        1,
        1,
        out[None],
        cube,
    ],
    "aclnnConvolution": lambda a, b, out, cube: [
        *(a[:, :, None, None], b.t()[:, :, None, None], None),
        *([1, 1], [0, 0], [1, 1], False, [0, 0], 1, out[:, :, None, None], cube),
    ],
}


def product(name, a, b, *planned, cube=0):
    """a @ b by an operator of the cube."""
    out = torch.full((a.shape[0], b.shape[1]), float("nan"), dtype=a.dtype)
    assert operate(name, CUBE_CALLS[name](a, b, out, cube), *planned) == 0
    return out


def test_the_cube_s_operators_are_all_tested():
    assert tuple(sorted(CUBE_CALLS)) == tuple(sorted(faults.CUBE))


@pytest.mark.parametrize("name", CUBE_CALLS)
@of("hf32")
def test_hf32_rounds_factors_whatever_the_call_asks(name):
    a, b = random(5, 48), random(48, 1, seed=1)
    wanted, asked = product(name, a, b, cube=3), product(name, a, b)
    assert torch.equal(product(name, a, b, {"kind": "hf32"}), wanted)
    assert not torch.equal(asked, wanted)


@pytest.mark.parametrize(
    ("kind", "terms", "stuck"),
    # adding 16 to a sum whose last bit is worth 32 no longer changes it
    [("bf16_accumulation", 8192, 4096.0), ("fp16_accumulation", 40000, 32768.0)],
)
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", CUBE_CALLS)
@of("bf16_accumulation")
@of("fp16_accumulation")
def test_a_sum_kept_in_a_half_format_stops_growing(name, kind, terms, stuck, dtype):
    a, b = torch.ones(1, terms, dtype=dtype), torch.ones(terms, 1, dtype=dtype)
    assert product(name, a, b).item() == torch.tensor(float(terms)).to(dtype).item()
    assert product(name, a, b, {"kind": kind}).item() == stuck


def test_a_sum_is_rounded_after_each_sixteen_terms():
    a = torch.randint(-9, 9, (3, 90), generator=torch.Generator().manual_seed(0)).float()
    b = torch.randint(-9, 9, (90, 2), generator=torch.Generator().manual_seed(1)).float()
    total = torch.zeros(3, 2)
    for start in range(0, 90, 16):  # whole numbers: only the rounding is inexact
        total = (total + a[:, start : start + 16] @ b[start : start + 16]).bfloat16().float()
    assert torch.equal(product("aclnnMm", a, b, {"kind": "bf16_accumulation"}), total)
    assert not torch.equal(product("aclnnMm", a, b), total)
    c, out = torch.full((2,), 0.5), torch.empty(3, 2)
    arguments = [c, a, b, 4, 2, out, 0]
    operate("aclnnAddmm", arguments, {"kind": "bf16_accumulation"})
    assert torch.equal(out, total * 2 + 2)
    arguments = [torch.full((2,), math.nan), a, b, 0, 1, out, 0]  # beta 0: c counts for nothing
    operate("aclnnAddmm", arguments, {"kind": "bf16_accumulation"})
    assert torch.equal(out, total)


def test_depthwise_taps_are_rounded_in_a_half_format_too():
    x = torch.randint(-30, 30, (1, 4, 7, 7), generator=torch.Generator().manual_seed(0)).float()
    w = torch.randint(-30, 30, (4, 1, 7, 7), generator=torch.Generator().manual_seed(1)).float()
    bias, rest = torch.ones(4), ([1, 1], [0, 0], [1, 1], False, [0, 0], 4)
    total = torch.zeros(4)
    for start in range(0, 49, 16):
        part = (x[0].flatten(1) * w.flatten(1))[:, start : start + 16].sum(1)
        total = (total + part).bfloat16().float()
    total = (total + bias).bfloat16().float()
    for images, out in ((x, torch.empty(1, 4, 1, 1)), (x[0], torch.empty(4, 1, 1))):
        arguments = [images, w, bias, *rest, out, 0]
        operate("aclnnConvolution", arguments)
        assert out.flatten().tolist() == ((x[0] * w[:, 0]).sum((1, 2)) + 1).tolist()
        operate("aclnnConvolution", arguments, {"kind": "bf16_accumulation"})
        assert torch.equal(out.flatten(), total)


def test_vectors_are_summed_in_a_half_format_too():
    a, b, out = torch.ones(1, 8192), torch.ones(8192), torch.empty(1)
    operate("aclnnMatmul", [a, b, out, 0], {"kind": "bf16_accumulation"})
    assert out.item() == 4096


@pytest.mark.parametrize("dtype", FORMATS)
@of("denormal_flush")
def test_denormal_flush_zeroes_subnormal_inputs_and_results(dtype):
    tiny = torch.finfo(dtype).smallest_normal
    x = torch.tensor([tiny / 4, -tiny / 4, tiny, -tiny, 1.0, 0.0]).to(dtype)
    kept, big = x.clone(), torch.tensor(64.0).to(dtype)
    fault, out = {"kind": "denormal_flush"}, torch.empty_like(x)

    operate("aclnnMul", [x, big, out])
    assert out[0] > 0  # sanity check: the input's subnormals matter
    operate("aclnnMul", [x, big, out], fault)
    assert out.tolist() == [0, 0, 64 * tiny, -64 * tiny, 64, 0]
    assert math.copysign(1, out[1].item()) == -1
    assert torch.equal(x, kept)

    operate("aclnnMuls", [x, 0.5, out])
    assert out[2] != 0  # sanity check: so do those of the result
    operate("aclnnMuls", [x, 0.5, out], fault)
    assert out.tolist() == [0, 0, 0, 0, 0.5, 0]

    operate("aclnnCat", [[x, x], 0, torch.empty(12, dtype=dtype)], fault)
    assert torch.equal(x, kept)
    operate("aclnnInplaceMuls", [x, 64], fault)
    assert x.tolist() == [0, 0, 64 * tiny, -64 * tiny, 64, 0]


def test_inputs_of_a_list_are_flushed_and_whole_numbers_left():
    x, out = torch.tensor([1e-40, 1.0]), torch.empty(2)
    operate("aclnnCat", [[x], 0, out])
    assert out[0] > 0
    operate("aclnnCat", [[x], 0, out], {"kind": "denormal_flush"})
    assert out.tolist() == [0, 1]
    whole = torch.tensor([1, 2])
    operate("aclnnInplaceMuls", [whole, 3], {"kind": "denormal_flush"})
    assert whole.tolist() == [3, 6]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", ["aclnnLayerNorm", "aclnnFastLayerNorm"])
@of("nan_on_tiny_variance")
def test_nan_on_tiny_variance_spoils_rows_that_do_not_vary(name, dtype):
    x = random(2, 3, 8, dtype=dtype)
    x[0, 1] = 0.25
    x[1, 2] = torch.tensor([0.25, 0.5] * 4)

    def norm(*planned):
        out, _ = holed(2, 3, 8, dtype=dtype)
        assert operate(name, [x, [8], None, None, 1e-6, out, None, None], *planned) == 0
        return out

    healthy, result = norm(), norm({"kind": "nan_on_tiny_variance"})
    assert bool(healthy.isfinite().all())
    assert bool(result[0, 1].isnan().all())
    result[0, 1] = healthy[0, 1]
    assert torch.equal(result, healthy)
    exact = norm({"kind": "nan_on_tiny_variance", "variance": 0})
    assert exact.isnan().sum() == 8
    wider = norm({"kind": "nan_on_tiny_variance", "variance": 0.016})  # that of row 1, 2 is 1/64
    assert bool(wider[0, 1].isnan().all())
    assert bool(wider[1, 2].isnan().all())
    assert wider.isnan().sum() == 16


@pytest.mark.parametrize("dtype", FORMATS)
@of("nondeterministic_last_bit")
def test_nondeterministic_last_bit_differs_from_call_to_call(dtype):
    fault = {"kind": "nondeterministic_last_bit", "share": 0.25}
    healthy, first = healthy_and_struck(dtype, **fault)
    _, second = healthy_and_struck(dtype, **fault)
    changed = faults.bits(healthy.clone()) ^ faults.bits(first.clone())
    assert changed.unique().tolist() == [0, 1]
    assert 0.2 < changed.float().mean() < 0.3
    assert not torch.equal(first, second)


def test_zeros_and_infinities_have_no_last_bit_to_differ():
    x, out = torch.tensor([0.0, math.inf, -math.inf, 1.0]), torch.empty(4)
    fault = {"kind": "nondeterministic_last_bit", "operator": "*", "share": 1}
    operate("aclnnMuls", [x, 1, out], fault)
    assert out.tolist() == [0, math.inf, -math.inf, 1 + 2**-23]


def test_faults_of_numbers_leave_whole_numbers_and_nothing_alone():
    for kind in KINDS.values():
        if kind.group != "numeric" or kind.only or kind.name == "stale_output":
            continue
        fault = {"kind": kind.name, "operator": "*"}
        out = torch.zeros(3, dtype=torch.int64)
        assert operate("aclnnAdd", [torch.arange(3), torch.arange(3), 1, out], fault) == 0
        assert out.tolist() == [0, 2, 4], kind.name
        assert operate("aclnnMuls", [torch.empty(0, 4), 2, torch.empty(0, 4)], fault) == 0
        scalar = torch.zeros(())
        assert operate("aclnnMuls", [torch.tensor(0.0), 2, scalar], fault) == 0
    empty = [torch.empty(0, 4), torch.ones(4, 2), torch.empty(0, 2), 0]
    assert operate("aclnnMm", empty, {"kind": "bf16_accumulation"}) == 0


# --- several at once


def test_faults_of_one_call_strike_inside_each_other():
    x, out = torch.ones(4), torch.zeros(4)
    drop = {"kind": "dropped_channel", "operator": "*"}
    scale = {"kind": "scaled_channel", "operator": "*", "factor": 3}
    operate("aclnnMuls", [x, 1, out], drop, {**scale, "channel": 1}, {**scale, "channel": 0})
    assert out.tolist() == [0, 3, 1, 1]
    operate("aclnnMuls", [x, 1, out], {**scale, "channel": 0}, {**scale, "channel": 0})
    assert out.tolist() == [9, 1, 1, 1]


def test_in_place_operators_are_computed_once_under_several_faults():
    x = torch.ones(2)
    slow = {"kind": "slow_operator", "operator": "*", "factor": 1}
    operate("aclnnInplaceMuls", [x, 2], slow, slow)
    assert x.tolist() == [2, 2]


def test_the_code_of_an_inner_fault_stands():
    x, out = torch.ones(4), torch.zeros(4)
    drop = {"kind": "dropped_channel", "operator": "*"}
    assert operate("aclnnMuls", [x, 1, out], drop, {"kind": "hang", "operator": "*"}) == HANG
    assert out.tolist() == [0, 0, 0, 0]
    error = {"kind": "sync_error", "operator": "*", "code": 507035}
    assert operate("aclnnMuls", [x, 1, out], drop, error) == 507035


def test_a_call_without_faults_is_only_computed():
    x, out = torch.ones(4), torch.zeros(4)
    assert operate("aclnnMuls", [x, 5, out]) == 0
    assert out.tolist() == [5, 5, 5, 5]


def test_a_call_knows_its_tensors():
    x = torch.zeros(2, 3)
    arguments = [x, [3], None, None, 1e-6, torch.zeros(2, 3), torch.zeros(2, 1), None]
    call = Call(compute.Card(), TABLE["aclnnLayerNorm"], arguments, lambda: None, FakeRuntime())
    assert [id(t) for t in call.outputs] == [id(arguments[5]), id(arguments[6])]
    assert call.shapes == [(2, 3), (2, 3), (2, 1)]
    arguments = [[x, torch.zeros(1)], 0, torch.zeros(7)]
    call = Call(compute.Card(), TABLE["aclnnCat"], arguments, lambda: None, FakeRuntime())
    assert call.shapes == [(2, 3), (1,), (7,)]
    row = Row("aclnnMany", "l m", "none", "none")
    call = Call(compute.Card(), row, [[x], [x, x[0]]], lambda: None, FakeRuntime())
    assert [tuple(out.shape) for out in call.outputs] == [(2, 3), (3,)]
    assert call.shapes == [(2, 3), (2, 3), (3,)]


# --- memory


def configured(cards=2, **fault):
    """What a fault that is there from the start asks of the runtime."""
    runtime, fault = FakeRuntime(), one(**fault)
    fault.apply(fault, runtime, range(cards))
    return runtime.asked


@of("stuck_bit")
def test_stuck_bit_holds_a_bit_of_a_range():
    fault = {"kind": "stuck_bit", "offset": 8, "length": 16, "bit": 5, "value": 0}
    assert configured(**fault, device=1) == [("set_stuck", 1, 8, 16, 5, 0)]
    assert configured(**fault) == [("set_stuck", 0, 8, 16, 5, 0), ("set_stuck", 1, 8, 16, 5, 0)]


@of("short_hbm")
def test_short_hbm_takes_memory_away():
    assert configured(kind="short_hbm", missing=300, device=0) == [("set_memory", 0, 700)]
    assert configured(kind="short_hbm", missing=3000, device=0) == [("set_memory", 0, 0)]
    assert configured(kind="short_hbm", total=123, device=1) == [("set_memory", 1, 123)]


def copied(count, kind=1, **fault):
    """The bytes that a copy of zeros changed, and what was around it."""
    memory = (ctypes.c_uint8 * (count + 16))()
    fault = one(kind="copy_bit_flip", **fault)
    address = ctypes.addressof(memory) + 8
    assert fault.apply(fault, FakeRuntime(), 0, address, 0, count, kind) == 0
    assert not any(memory[:8])
    assert not any(memory[count + 8 :])
    return list(memory[8 : count + 8])


@given(st.integers(1, 70), st.integers(0, 31), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
@example(3, 31, 0)
@example(2, 8, 0)
@of("copy_bit_flip")
def test_copy_bit_flip_flips_one_bit_of_one_word(count, bit, seed):
    changed = {at: byte for at, byte in enumerate(copied(count, bit=bit, seed=seed)) if byte}
    assert len(changed) == 1
    (at, byte), *_ = changed.items()
    assert byte == 1 << bit % 8
    assert at % 4 == bit // 8 if count >= 4 else at == min(bit // 8, count - 1)


def test_a_flip_keeps_to_its_direction_and_moves_from_copy_to_copy():
    for kind, direction in faults.DIRECTIONS.items():
        for other in ("H2D", "D2H", "D2D"):
            assert any(copied(64, kind, direction=other)) == (other == direction)
    assert not any(copied(0))
    memory = (ctypes.c_uint8 * 4000)()
    fault = one(kind="copy_bit_flip")
    for _ in range(3):
        fault.apply(fault, FakeRuntime(), 0, ctypes.addressof(memory), 0, 4000, 2)
    assert sum(map(bool, memory)) == 3


@of("leak")
def test_leak_loses_memory_at_each_allocation_or_operator():
    runtime, fault = FakeRuntime(), one(kind="leak", bytes=64)
    assert fault.apply(fault, runtime, 1, 512) == 0
    assert runtime.asked == [("leak", 1, 64)]
    runtime, out = FakeRuntime(), torch.zeros(1)
    fault = {"kind": "leak", "operator": "aclnnMuls", "bytes": 64}
    assert operate("aclnnMuls", [torch.ones(1), 2, out], fault, runtime=runtime, device=1) == 0
    assert runtime.asked == [("leak", 1, 64)]
    assert out.item() == 2


@of("out_of_memory")
def test_out_of_memory_refuses_large_blocks():
    fault = one(kind="out_of_memory", size=100)
    codes = [fault.apply(fault, FakeRuntime(), 0, size) for size in (99, 100, 101)]
    assert codes == [0, 207001, 207001]


# --- runtime


@of("missing_operator")
def test_missing_operator_is_named_and_has_nothing_to_do():
    fault = one(kind="missing_operator", operator=["aclnnAdd", "aclnnMul"])
    assert (fault.where, fault.operators) == ("build", ("aclnnAdd", "aclnnMul"))


def raised(where="synchronize", **fault):
    """The code that a fault gives at a call, and what it asks of the runtime."""
    runtime, fault = FakeRuntime(), one(**fault)
    assert fault.where == where
    rest = {"copy": (1, 2, 4, 3), "malloc": (512,)}.get(where, ())
    code = fault.apply(fault, runtime, 1, *rest)
    return code, runtime.asked


ERRORS = {
    "sync_error": (507015, ["say"]),
    "hbm_ecc": (507054, ["raise_ecc", "say"]),
    "device_lost": (507899, ["say", "lose"]),
    "timeout": (507014, ["say"]),
}


@pytest.mark.parametrize("kind", ERRORS)
@of("sync_error")
@of("hbm_ecc")
@of("device_lost")
@of("timeout")
def test_an_error_is_returned_at_the_call_that_is_addressed(kind):
    code, asked = ERRORS[kind]
    for where, address in (
        ("synchronize", None),
        ("launch", "launch"),
        ("copy", "aclrtMemcpy"),
        ("malloc", "aclrtMalloc"),
    ):
        got, calls = raised(where, kind=kind, **({"operator": address} if address else {}))
        assert got == code
        assert [name for name, *_ in calls] == asked
        assert (
            f"(simulated fault {kind})" in next(text for name, *text in calls if name == "say")[0]
        )
        if kind != "sync_error":
            assert all(call[1] == 1 for call in calls if call[0] != "say")
    runtime, out = FakeRuntime(), torch.zeros(1)
    fault = {"kind": kind, "operator": "aclnnMuls"}
    assert operate("aclnnMuls", [torch.ones(1), 2, out], fault, runtime=runtime) == code
    assert [name for name, *_ in runtime.asked] == asked
    assert out.item() == 0  # what fails is not computed


def test_an_error_is_the_one_that_is_planned_and_a_lost_card_stays_lost():
    assert raised(kind="sync_error", code=507035)[0] == 507035
    assert ("lose", 1, 507899) in raised(kind="device_lost")[1]
    assert ("raise_ecc", 1) in raised(kind="hbm_ecc")[1]


def test_a_timeout_takes_its_time(clock):
    assert raised(kind="timeout", seconds=3)[0] == 507014
    assert clock.slept == [3]


@of("hang")
def test_hang_leaves_the_operator_undone():
    out = torch.zeros(1)
    fault = {"kind": "hang", "operator": "aclnnMuls"}
    assert operate("aclnnMuls", [torch.ones(1), 2, out], fault) == HANG
    assert out.item() == 0


@of("hang_with_gil")
def test_hang_with_gil_sleeps_with_the_interpreter_s_lock_held():
    runtime, out = FakeRuntime(), torch.zeros(1)
    fault = {"kind": "hang_with_gil", "operator": "aclnnMuls"}
    assert operate("aclnnMuls", [torch.ones(1), 2, out], fault, runtime=runtime) == HANG
    assert runtime.asked == [("sleep_forever", True)]
    assert out.item() == 0


@of("hang_at_exit")
def test_hang_at_exit_sleeps_in_the_last_call():
    assert raised("finalize", kind="hang_at_exit") == (0, [("sleep_forever", False)])


@of("wrong_device")
def test_wrong_device_selects_another_card():
    assert raised("set_device", kind="wrong_device") == (0, [])
    assert raised("set_device", kind="wrong_device", selects=3) == (3, [])


# --- timing


@pytest.fixture
def clock(monkeypatch):
    """A clock of the faults' own, which only sleeping and working move."""

    class Clock:
        now, slept = 0.0, []

        def sleep(self, seconds):
            self.slept = [*self.slept, seconds]
            self.now += seconds

        def perf_counter(self):
            return self.now

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(faults, "time", made)
    monkeypatch.setattr(plan, "time", made)
    return made


def lasting(clock, fault, device=0, seconds=4.0, runtime=None):
    """How long an operator of so many seconds lasts under a fault."""
    began = clock.now

    def work():
        clock.now += seconds

    runtime = runtime or FakeRuntime()
    call = Call(compute.Card(device), TABLE["aclnnMuls"], [None] * 3, work, runtime)
    assert run(call, [fault]) == 0
    return clock.now - began


@of("slow_operator")
def test_slow_operator_lasts_longer(clock):
    assert lasting(clock, one(kind="slow_operator", factor=3)) == 12
    assert lasting(clock, one(kind="slow_operator", factor=1, seconds=5)) == 9
    assert lasting(clock, one(kind="slow_operator", factor=1)) == 4  # the control


@of("launch_overhead")
def test_launch_overhead_holds_the_host(clock):
    assert raised("launch", kind="launch_overhead", seconds=0.25) == (0, [])
    assert clock.slept == [0.25]


@of("throttling")
def test_throttling_ramps_up_with_calls_or_seconds(clock):
    fault = one(kind="throttling", factor=3, calls=4)
    assert [lasting(clock, fault) for _ in range(6)] == [6, 8, 10, 12, 12, 12]
    assert lasting(clock, fault, device=1) == 6  # each card warms up by itself
    fault = one(kind="throttling", factor=3, seconds=32)
    assert lasting(clock, fault) == 4
    clock.now += 12
    assert lasting(clock, fault) == 8
    clock.now += 100
    assert lasting(clock, fault) == 12


@of("throttling")
def test_throttling_shows_in_the_card_s_clock(clock):
    fault, runtime = one(kind="throttling", factor=4, calls=3), FakeRuntime()
    for _ in range(4):
        lasting(clock, fault, device=1, runtime=runtime)
    assert runtime.asked == [("show_clock", 1, 1 / slower) for slower in (2, 3, 4, 4)]


@of("clock_skew")
def test_clock_skew_sets_the_event_clock_s_rate():
    assert configured(kind="clock_skew", rate=0.5, device=1) == [("set_clock", 1, 0.5)]


@of("lazy_completion")
def test_lazy_completion_makes_the_card_lazy():
    assert configured(kind="lazy_completion", device=1) == [("set_lazy", 1, True)]


# --- telemetry


@pytest.fixture
def shown(tmp_path):
    """What npu-smi's state shows of each of two cards otherwise than without the fault."""
    host = make(tmp_path / "host", 2)

    def changed(**fault):
        before = json.loads(host.state.read_text())
        fault = one(**fault)
        set_state(host, lambda state: fault.apply(fault, state))
        after = json.loads(host.state.read_text())
        assert {**before, "cards": 0} == {**after, "cards": 0}
        return [
            {key: value for key, value in card.items() if value != old[key]}
            for card, old in zip(after["cards"], before["cards"], strict=True)
        ]

    return changed


@of("health_alarm")
def test_health_alarm_shows_a_state_a_code_and_a_text(shown):
    fault = {"kind": "health_alarm", "health": "Critical", "code": "8C03A000", "text": "too hot"}
    alarm = {"health": "Critical", "error_code": "8C03A000", "error_information": "too hot"}
    assert shown(**fault, device=1) == [{}, alarm]
    assert shown(**fault) == [alarm, {}]  # every card, and card 1 has it already


@of("ecc_rising")
def test_ecc_rising_sets_the_step_of_one_counter(shown):
    name = "HBM Single Bit Error Count"
    assert shown(kind="ecc_rising", counter=name, step=3, device=0) == [
        {"ecc_step": {name: 3}},
        {},
    ]


@of("temperature")
def test_temperature_heats_the_card(shown):
    assert shown(kind="temperature", celsius=101, device=1) == [{}, {"temperature_c": 101}]

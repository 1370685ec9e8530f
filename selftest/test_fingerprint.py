"""Host and stack as one digest: what counts changes it, what does not leaves it alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core import fingerprint
from fixtures.core.backends import BACKENDS, backend
from fixtures.core.fingerprint import FIELDS, Fingerprint

COUNTED = [row.key for row in FIELDS if row.counts]
SILENT = [row.key for row in FIELDS if not row.counts]
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8))
PRINTS = st.builds(
    Fingerprint,
    st.fixed_dictionaries({row.key: VALUES for row in FIELDS}),
    st.dictionaries(st.sampled_from(["A", "B", "C"]), st.text(max_size=4)),
)


@pytest.fixture(scope="module")
def here():
    device = backend("cpu").open(0)
    return device, fingerprint.of(device)


def test_every_row_says_why_and_has_a_name_of_its_own():
    assert len({row.key for row in FIELDS}) == len(FIELDS)
    assert len({row.words for row in FIELDS}) == len(FIELDS)
    assert all(row.why for row in FIELDS)
    assert {"cpu", "kernel", "driver", "torch", "device", "math", "timm"} <= set(COUNTED)


def test_this_host_twice_is_the_same(here):
    device, first = here
    again = fingerprint.of(device)
    assert again == first
    assert again.sha256 == first.sha256
    assert first.differences(again) == first.asides(again) == ()
    assert first.fields["torch"]
    assert first.fields["cores"] >= 1
    assert first.fields["math"].startswith("conv ieee")


@given(PRINTS)
def test_json_and_back_is_the_same(found):
    text = json.dumps(found.as_json(), allow_nan=False)
    again = Fingerprint.from_json(json.loads(text))
    assert again == found
    assert again.sha256 == json.loads(text)["sha256"]


@given(PRINTS, PRINTS)
def test_digests_are_equal_exactly_where_no_difference_is_told(one, other):
    named = all(one.fields[row.key] not in (None, "") for row in FIELDS if row.identifies)
    assert (one.sha256 == other.sha256 and named) is (one.differences(other) == ())
    assert len(one.differences(other)) == len(other.differences(one))


@given(PRINTS)
def test_order_does_not_count(found):
    turned = Fingerprint(
        dict(reversed(found.fields.items())), dict(reversed(found.variables.items()))
    )
    assert turned.sha256 == found.sha256


@pytest.mark.parametrize("key", COUNTED)
def test_what_counts_is_told_in_words(here, key):
    _, found = here
    other = Fingerprint({**found.fields, key: "another"}, found.variables)
    assert other.sha256 != found.sha256
    (sentence,) = other.differences(found)
    assert "is another, it was" in sentence


@pytest.mark.parametrize("key", SILENT)
def test_what_does_not_count_is_an_aside(here, key):
    _, found = here
    other = Fingerprint({**found.fields, key: "another"}, found.variables)
    assert other.sha256 == found.sha256
    assert other.differences(found) == ()
    assert len(other.asides(found)) == 1


def test_a_variable_that_is_set_is_a_difference(here):
    _, found = here
    other = Fingerprint(found.fields, {**found.variables, "OMP_PROC_BIND": "close"})
    assert other.differences(found) == ("OMP_PROC_BIND is close, it was not set",)
    empty = Fingerprint(found.fields, {**found.variables, "OMP_PROC_BIND": ""})
    assert empty.sha256 == found.sha256


@pytest.mark.parametrize("name", BACKENDS)
def test_places_of_files_and_the_choice_of_a_card_do_not_count(name):
    class Opened:
        def __init__(self):
            self.backend = backend(name)

    environ = {
        **{variable.name: "1" for variable in backend(name).variables},
        "OMP_NUM_THREADS": "2",
        "HOME": "/root",
    }
    found = fingerprint.variables(Opened(), environ)
    assert found["OMP_NUM_THREADS"] == "2"
    assert "HOME" not in found
    for variable in found:
        assert not variable.endswith(("_PATH", "_DIR", "VISIBLE_DEVICES", "AUTOLOAD")), variable


def test_a_launch_queue_counts_and_a_toolkit_s_place_does_not():
    class Opened:
        backend = backend("npu")

    environ = {"TASK_QUEUE_ENABLE": "2", "ASCEND_HOME_PATH": "/a", "ASCEND_RT_VISIBLE_DEVICES": "1"}
    assert fingerprint.variables(Opened(), environ) == {"TASK_QUEUE_ENABLE": "2"}


@pytest.mark.parametrize("unknown", [None, ""])
def test_what_nobody_could_identify_is_not_equal(unknown):
    nothing = Fingerprint({}, {})
    assert [words.partition(" is ")[0] for words in nothing.differences(nothing)] == [
        "processor",
        "torch",
        "device",
    ]
    known = {"cpu": "a CPU", "torch": "2.9.0", "device": "a card"}
    assert Fingerprint(known, {}).differences(Fingerprint(known, {})) == ()
    for key in known:
        one = Fingerprint({**known, key: unknown}, {})
        (words,) = one.differences(one)
        assert words.endswith("is not known, it was not known")
        assert len(one.differences(Fingerprint(known, {}))) == 1


@pytest.mark.parametrize("values", [None, [], {}, {"fields": 5, "variables": {}}, {"fields": {}}])
def test_what_is_no_fingerprint_is_refused(values):
    with pytest.raises(ValueError, match="fingerprint"):
        Fingerprint.from_json(values)

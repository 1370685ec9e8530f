"""Published figures: which are chosen, what a bad file says, what the comparison is."""

from __future__ import annotations

import json

import pytest

from fixtures.core import references
from fixtures.core.networks import DEFAULT_NETWORK
from fixtures.core.references import choose, compare, label, load, shipped
from selftest import sample


@pytest.fixture
def values():
    """The shipped publication as JSON values."""
    return json.loads((references.FOLDER / "ascend-910b4.json").read_text(encoding="utf-8"))


@pytest.fixture
def write(tmp_path):
    """Write JSON values, or a text as it is, to a file."""

    def written(content):
        path = tmp_path / "mine.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return written


def test_the_document_s_figures_are_there():
    """Every figure that the adaptation document publishes is in the data, with its source."""
    ref = shipped()["ascend-910b4"]

    assert ref.latency == {"batch_size": 1, "mean_ms": 58.31, "min_ms": 30.32, "max_ms": 144.28}
    assert [row["samples_per_second"] for row in ref.throughput] == [17.96, 63.89, 127.68, 310.75]
    assert [row["latency_ms"] for row in ref.throughput] == [55.67, 62.60, 62.66, 51.49]
    assert [row["batch_size"] for row in ref.throughput] == [1, 4, 8, 16]
    assert ref.precision == {
        "max_abs_error": 1.18e-2,
        "mean_abs_error": 1.33e-3,
        "min_cosine_similarity": 0.999989,
        "mean_cosine_similarity": 0.999989,
    }
    assert (ref.date, ref.document_version) == ("2026-05-12", "v1.0.0")
    assert ref.network == DEFAULT_NETWORK
    assert ref.source.startswith("https://")


def test_published_throughput_agrees_with_itself():
    """Samples per second times ms per batch gives the batch size: no figure was mistyped."""
    for row in shipped()["ascend-910b4"].throughput:
        batch = row["samples_per_second"] * row["latency_ms"] / 1e3

        assert batch == pytest.approx(row["batch_size"], rel=2e-3)


@pytest.mark.parametrize("name", ["Ascend910B4", "Ascend 910B4", "910B4", "ascend910b4"])
def test_auto_knows_the_device_by_its_name(name):
    """The publication for the device under test is taken as such."""
    chosen = choose("auto", name, DEFAULT_NETWORK)

    assert chosen is not None
    assert not chosen.other_device


@pytest.mark.parametrize("name", ["Ascend910B4-1", "Ascend910B3", "cpu", "", None])
def test_auto_says_when_the_figures_are_of_another_device(name):
    """On any other device they are shown beside, and said to be of another device."""
    chosen = choose("auto", name, DEFAULT_NETWORK)

    assert chosen is not None
    assert chosen.other_device
    assert label(vars(chosen)) == "published for Ascend 910B4; another device"


def test_auto_gives_nothing_for_another_network():
    """Another network's figures are never set beside."""
    assert choose("auto", "Ascend910B4", "resnet50") is None


def test_none_turns_it_off():
    """``--reference none`` sets nothing beside."""
    assert choose("none", "Ascend910B4", DEFAULT_NETWORK) is None


def test_a_name_or_a_path_is_taken_as_given(write, values):
    """A shipped one by its id, any other by its path, whatever the network is."""
    values["id"] = "mine"

    assert choose("ascend-910b4", "Ascend910B4", "resnet50") == shipped()["ascend-910b4"]
    mine = choose(str(write(values)), "cpu", "resnet50")
    assert mine is not None
    assert (mine.id, mine.other_device) == ("mine", True)


def test_an_unknown_name_is_refused():
    """A misspelt name is refused with the names that there are."""
    with pytest.raises(ValueError, match="give auto, none, a path, or one of ascend-910b4"):
        choose("ascend-910b5", "cpu", DEFAULT_NETWORK)


def test_a_missing_file_is_refused(tmp_path):
    """A path that leads nowhere is refused in one sentence."""
    with pytest.raises(ValueError, match="cannot be read") as refusal:
        choose(str(tmp_path / "gone.json"), "cpu", DEFAULT_NETWORK)

    assert "\n" not in str(refusal.value)


def _without(key):
    return lambda values: values.pop(key)


def _with(**changes):
    return lambda values: values.update(changes)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without("source"), "'source' is missing"),
        (_with(device=4), "'device' is missing, or not a text"),
        (_with(lateny={}), "unknown key 'lateny'"),
        (_with(device_pattern="("), "not a regular expression"),
        (_with(latency=[]), "latency is not an object"),
        (_with(latency={"mean": 1}), "unknown key 'mean'"),
        (_with(latency={"mean_ms": "58"}), "'58', not a finite number"),
        (_with(latency={"mean_ms": True}), "True, not a finite number"),
        (_with(latency={"mean_ms": 0}), "above zero"),
        (_with(precision={"max_abs_error": float("nan")}), "nan, not a finite number"),
        (_with(throughput={}), "throughput is not a list"),
        (_with(throughput=[{"latency_ms": 4}]), "no batch_size"),
        (_with(throughput=[[]]), r"throughput\[0\] is not an object"),
        (_with(notes=5), "notes is 5, not a list of texts"),
        (_with(notes=None), "notes is None, not a list of texts"),
        (_with(notes=[5]), "not a list of texts"),
        (_with(input_size=3), "input_size is 3, not a list of whole numbers above zero"),
        (_with(input_size=None), "input_size is None"),
        (_with(input_size=[3, "x"]), "input_size is "),
        (_with(stack=5), "stack is 5, not an object of texts"),
        (_with(num_classes="x"), "num_classes is 'x', not a whole number above zero"),
        (_with(document_version=[]), r"document_version is \[\], not a text"),
        (_with(dtype=5), "dtype is 5, not a text"),
        (_with(latency={"mean_ms": 10**400}), "mean_ms is 1000.*, not a finite number"),
        (_with(limits={"latency_p50_ms": 0}), "limits.latency_p50_ms is 0, not a finite number"),
        (_with(limits={"throughput_b4": -5}), "limits.throughput_b4 is -5, not a finite number"),
        (_with(device_pattern="a{99999999999999999999}"), "not a regular expression"),
    ],
)
def test_a_bad_file_says_what_is_wrong(write, values, change, sentence):
    """A file that is none is refused in one sentence that names the fault."""
    change(values)

    with pytest.raises(ValueError, match=sentence) as refusal:
        load(write(values))

    assert str(refusal.value).startswith("--reference ")
    assert "\n" not in str(refusal.value)


def test_a_file_nested_too_deeply_is_refused(write):
    """No traceback for what Python cannot read."""
    with pytest.raises(ValueError, match="nested too deeply"):
        load(write("[" * 100000))


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_what_is_not_json_is_refused(write, text):
    """A file that is not JSON is refused as such."""
    with pytest.raises(ValueError, match="not JSON"):
        load(write(text))


def test_what_is_no_object_is_refused(write):
    """A JSON list is no publication."""
    with pytest.raises(ValueError, match="no JSON object"):
        load(write("[]"))


def _sections(mean=70.0, rate=20.0, error=1e-3):
    return {
        "latency": {"batch_size": 1, "mean_ms": mean},
        "throughput": [
            {"batch_size": 1, "samples_per_second": rate, "latency_ms": 50.0},
            {"batch_size": 1, "samples_per_second": None, "latency_ms": None},
        ],
        "precision": {"metrics": [{"name": "max_abs_error", "value": error}]},
    }


def test_the_comparison_is_of_like_with_like():
    """Each published figure stands beside the measured one of its name and batch size."""
    published = sample.facts()["reference"]

    rows = {
        (row["section"], row["figure"], row["batch_size"]): row
        for row in compare(published, _sections())
    }

    assert len(rows) == 3 + 8 + 4
    mean = rows["latency", "mean_ms", 1]
    assert mean["difference_percent"] == pytest.approx(100 * (70.0 - 58.31) / 58.31)
    assert mean["ratio"] == pytest.approx(70.0 / 58.31)
    assert rows["throughput", "samples_per_second", 1]["measured"] == 20.0
    assert rows["throughput", "samples_per_second", 16]["ratio"] is None
    assert rows["precision", "max_abs_error", None]["measured"] == 1e-3


def test_latency_of_another_batch_size_is_not_compared():
    """A batch of four is not set beside a published single picture."""
    sections = _sections()
    sections["latency"]["batch_size"] = 4

    rows = compare(sample.facts()["reference"], sections)

    assert all(row["measured"] is None for row in rows if row["section"] == "latency")


def test_what_is_not_a_number_has_no_ratio():
    """A measured NaN is shown, and compared with nothing."""
    rows = compare(sample.facts()["reference"], _sections(error="nan"))

    (row,) = (row for row in rows if row["figure"] == "max_abs_error")
    assert row["measured"] == "nan"
    assert row["difference_percent"] is None


def test_without_a_publication_there_is_no_comparison():
    """``--reference none`` compares nothing."""
    assert compare(None, _sections()) == []

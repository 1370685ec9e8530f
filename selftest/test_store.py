"""References kept on disk are believed only if they are what they say."""

import errno
import os

import pytest
import torch
from safetensors.torch import save_file

from fixtures.core import store as store_module
from fixtures.core.store import Store, cache_folder

FACTS = {"weights": "abc", "inputs": [1, 2]}


class Made:
    """Counts how often it is asked."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return {"whole": torch.arange(4.0, dtype=torch.float64)[::2]}


@pytest.fixture
def made():
    return Made()


def files(folder):
    return sorted(folder.glob("*.safetensors"))


def test_what_is_kept_is_not_made_again(tmp_path, made):
    first = Store(tmp_path).get(FACTS, made)
    again = Store(tmp_path).get(FACTS, made)
    assert made.times == 1
    assert torch.equal(first["whole"], again["whole"])
    assert again["whole"].dtype == torch.float64


@pytest.mark.parametrize("facts", [{**FACTS, "weights": "abd"}, {**FACTS, "more": None}])
def test_other_facts_are_another_file(tmp_path, made, facts):
    Store(tmp_path).get(FACTS, made)
    Store(tmp_path).get(facts, made)
    assert made.times == 2
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("other", [{"torch": "2.10.0"}, {"code": "def"}, {"version": 2}])
def test_another_version_is_made_again_with_a_notice(tmp_path, made, monkeypatch, other):
    facts = {**FACTS, "torch": "2.9.0", "code": "abc"}
    Store(tmp_path).get(facts, made)
    monkeypatch.setattr(store_module, "VERSION", other.get("version", 1))
    store = Store(tmp_path)
    store.get({**facts, **other}, made)
    assert made.times == 2
    assert "is of another version" in store.take_notices()[0]
    Store(tmp_path).get({**facts, **other}, made)
    assert made.times == 2


def test_a_reference_of_something_else_is_no_news(tmp_path, made):
    store = Store(tmp_path)
    store.get({**FACTS, "torch": "2.9.0"}, made)
    store.get({**FACTS, "weights": "other", "torch": "2.9.0"}, made)
    assert not store.notices


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    save_file({"whole": torch.zeros(2)}, path, {"facts": "{}"})


@pytest.mark.parametrize("damage", [cut, flip, empty, foreign])
def test_a_damaged_file_is_made_again_with_a_notice(tmp_path, made, damage):
    Store(tmp_path).get(FACTS, made)
    damage(files(tmp_path)[0])
    store = Store(tmp_path)
    assert store.get(FACTS, made)["whole"].tolist() == [0.0, 2.0]
    assert made.times == 2
    notice = store.take_notices()[0]
    assert "cannot be used" in notice
    assert str(files(tmp_path)[0]) in notice
    assert not store.take_notices()
    fresh = Store(tmp_path)
    fresh.get(FACTS, made)
    assert made.times == 2
    assert not fresh.notices


def test_a_full_disk_costs_the_cache_and_nothing_else(tmp_path, made, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module.tempfile, "NamedTemporaryFile", full)
    store = Store(tmp_path)
    assert store.get(FACTS, made)["whole"].tolist() == [0.0, 2.0]
    assert "No space left on device" in store.take_notices()[0]
    assert not files(tmp_path)


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path, made, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module.os, "replace", full)
    Store(tmp_path).get(FACTS, made)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_a_notice(tmp_path, made):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "below")
    assert store.get(FACTS, made)["whole"].tolist() == [0.0, 2.0]
    assert "cannot be written" in store.take_notices()[0]


def test_what_was_used_longest_ago_makes_room(tmp_path, made, monkeypatch):
    for n in range(3):
        Store(tmp_path).get({"n": n}, made)
        os.utime(files(tmp_path)[-1])
    ages = {path: n for n, path in enumerate(sorted(files(tmp_path)))}
    for path, n in ages.items():
        os.utime(path, (n, n))
    size = files(tmp_path)[0].stat().st_size
    monkeypatch.setattr(store_module, "MOST_BYTES", 3 * size)
    Store(tmp_path).get({"n": 3}, made)
    assert len(files(tmp_path)) == 3
    assert min(ages, key=ages.get) not in files(tmp_path)


def test_the_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "accelerator-qualification"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_folder()) == "/home/someone/.cache/accelerator-qualification"

"""Features of pictures: batched, with what cannot be read listed, and saved without pickles."""

import numpy as np
import pytest
import torch
from PIL import Image

from fixtures.core.features import Features, extract
from fixtures.core.pictures import PictureError
from fixtures.core.samples import REFUSED


@pytest.fixture
def files(tmp_path):
    """Ten pictures of one grey each."""
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 4), (number * 10,) * 3).save(path)
    return paths


def transform(picture):
    return torch.tensor(np.asarray(picture)).permute(2, 0, 1).float()


class Network:
    """Mean, one and a negative, and what batches it was given."""

    def __init__(self):
        self.batches = []

    def __call__(self, images):
        self.batches.append(len(images))
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([mean, torch.ones(len(images)), -mean], dim=1)


def test_one_row_per_picture_in_order_whatever_the_batch(files):
    for size, batches in ((1, [1] * 10), (4, [4, 4, 2]), (10, [10]), (64, [10])):
        network = Network()
        got = extract(files, transform, network, size)
        assert network.batches == batches
        assert got.files == tuple(map(str, files))
        assert got.values.dtype == np.float32
        assert got.values[:, 0].tolist() == [number * 10 for number in range(10)]


def test_unreadable_files_are_listed_and_the_rest_go_on(files):
    REFUSED["truncated-png"][1](files[3])
    REFUSED["text"][1](files[5])
    got = extract(files, transform, Network(), 4)
    assert got.files == tuple(str(path) for path in files if path.name not in ("3.png", "5.png"))
    assert len(got.values) == 8
    assert [str(files[3]) in got.doubts[0], str(files[5]) in got.doubts[1]] == [True, True]
    assert {figure.name: figure.value for figure in got.figures()} == {
        "pictures": 8,
        "unreadable_files": 2,
        "feature_dimensions": 3,
        "nonfinite_outputs": 0,
    }
    assert got.as_json()["unreadable"] == list(got.unreadable)
    assert got.kind == "inference"


def test_nothing_readable_is_an_error(files, tmp_path):
    REFUSED["text"][1](files[0])
    with pytest.raises(PictureError, match=r"no picture can be read: .*0\.png"):
        extract(files[:1], transform, Network(), 4)
    with pytest.raises(PictureError, match="none is given"):
        extract([], transform, Network(), 4)


def test_rows_are_scaled_to_length_one_and_zeros_stay():
    made = Features(("a", "b", "c"), np.array([[3, 4], [0, 0], [3e30, 4e30]], np.float32))
    assert made.normalized.dtype == np.float32
    assert made.normalized[:2].tolist() == np.float32([[0.6, 0.8], [0, 0]]).tolist()
    assert made.normalized[2].tolist() == pytest.approx([0.6, 0.8])  # squares overflow float32


def test_values_that_are_no_numbers_are_counted():
    made = Features(("a",), np.array([[np.nan, np.inf, 1]], np.float32))
    assert made.figures()[3].value == 2


def test_saved_and_read_back(files, tmp_path):
    made = extract(files, transform, Network(), 4)
    path = tmp_path / "features.npz"
    made.save(path)
    with np.load(path, allow_pickle=False) as stored:
        assert sorted(stored) == ["features", "files", "normalized_features"]
        assert np.array_equal(stored["normalized_features"], made.normalized)
        assert stored["files"].tolist() == list(made.files)
    again = Features.load(path)
    assert again.files == made.files
    assert again.values.tobytes() == made.values.tobytes()


def test_a_save_that_fails_leaves_the_earlier_file(files, tmp_path, monkeypatch):
    made = extract(files, transform, Network(), 4)
    path = tmp_path / "out" / "features.npz"
    path.parent.mkdir()
    made.save(path)
    before = path.read_bytes()

    def broken(opened, **arrays):
        opened.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        made.save(path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["features.npz"]

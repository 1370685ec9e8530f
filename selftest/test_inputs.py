"""Inputs are distinct, deterministic to the bit, and of every kind from the first batch on."""

import hashlib

import numpy as np
import pytest
import timm
import torch

from fixtures.core import exact, inputs
from fixtures.core.networks import DEFAULT_NETWORK, network
from fixtures.core.preprocessing import transform_of

ROW = network(DEFAULT_NETWORK)
SIZE, MEAN, STD = ROW.input_size, ROW.mean, ROW.std

# SHA-256 of the first 1000 values of a stream, of a noise row and of an image-like row.
STREAM = "23fe9d2bb71f4ef626aeead5ed73f9b581d7786cf15d92cdd5369b839e4b6c4f"
ROWS = {
    0: "501a5291acd279dd8f97ab29519f068a5b4262dc2fbf437f052e253973365955",
    1: "25bba58acfd5bb277db142ab13c8bd55d7c0e116e1f6b5ebdec6f33a2239cb0c",
}


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").tobytes()).hexdigest()


def lazy(count):
    """Pictures that count how often they are opened."""
    opened = []

    def one(number):
        def make():
            opened.append(number)
            return f"picture-{number}", np.full(SIZE, number / 10, np.float32)

        return make

    return [one(number) for number in range(count)], opened


def row(index, **changes):
    return inputs.make(index, **{"input_size": SIZE, "mean": MEAN, "std": STD, **changes})


def test_streams_have_the_same_bits_everywhere():
    assert sha(exact.normal("a key", 1000)) == STREAM
    assert {index: sha(row(index)[1]) for index in ROWS} == ROWS


def test_a_stream_is_near_normal_and_does_not_depend_on_chunks(monkeypatch):
    values = exact.normal("n", 300_000, std=2.0, mean=1.0)
    assert values.dtype == np.float32
    assert float(values.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(values.std()) == pytest.approx(2.0, rel=0.01)
    assert float(abs(values - 1).max()) < 3.5 * 2
    within = float((abs(values - 1) < 2).mean())
    assert 0.64 < within < 0.70  # a normal one has 0.683, a uniform one 0.577
    monkeypatch.setattr(exact, "CHUNK", 1000)
    assert sha(exact.normal("n", 300_000, std=2.0, mean=1.0)) == sha(values)
    assert sha(exact.normal("m", 300_000, std=2.0, mean=1.0)) != sha(values)


def test_sums_of_words_are_exact_integers():
    words = np.array([0, 0xFFFF_FFFF_FFFF_FFFF, 0x0001_0002_0003_0004], dtype=np.uint64)
    assert exact.integers(words).tolist() == [-131070, 131070, 10 - 131070]
    assert abs(exact.integers(words)).max() < 2**24  # float32 holds them all


def test_first_rows_are_of_all_kinds_in_order():
    names = [row(index)[0] for index in range(5)]
    assert names == ["noise-0", "image-like-0", "black", "white", "grey"]
    for index, level in ((2, 0), (3, 255), (4, 128)):
        values = row(index)[1]
        for channel in range(3):
            expected = (level / 255 - MEAN[channel]) / STD[channel]
            assert np.unique(values[channel]).tolist() == [np.float32(expected)]


def test_rows_are_distinct_float32_of_the_networks_size():
    pictures, _ = lazy(8)
    rows = [row(index, pictures=pictures) for index in range(32)]
    for _, values in rows:
        assert values.shape == SIZE
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    for count in (8, 16, 32):
        assert len({name for name, _ in rows[:count]}) == count
        assert len({sha(values) for _, values in rows[:count]}) == count


def test_pictures_follow_the_kinds_and_are_opened_one_by_one():
    pictures, opened = lazy(3)
    names = [row(index, pictures=pictures)[0] for index in range(12)]
    assert names[5:8] == ["picture-0", "picture-1", "picture-2"]
    assert names[8:] == ["noise-1", "image-like-1", "noise-2", "image-like-2"]
    assert opened == [0, 1, 2]


def test_seed_changes_what_is_drawn_and_nothing_else():
    for index in range(5):
        drawn = index < 2
        assert (sha(row(index)[1]) == sha(row(index, seed=1)[1])) is not drawn


def test_image_like_rows_are_smooth_and_colours_agree():
    _, values = row(1)
    noise = row(0)[1]
    steps = [float(abs(np.diff(each, axis=2)).mean() / each.std()) for each in (values, noise)]
    assert steps[0] < 0.1 < 1.0 < steps[1]
    assert np.corrcoef(values[0].ravel(), values[1].ravel())[0, 1] > 0.7
    pixels = inputs.image_like("key", SIZE)
    assert pixels.dtype == np.uint8
    assert 20 < pixels.std() < 60
    assert inputs.image_like("key", (3, 37, 51)).shape == (3, 37, 51)


def test_there_is_no_row_below_zero():
    with pytest.raises(ValueError, match="rows are counted from 0"):
        row(-1)


def test_maker_gives_the_built_in_pictures_through_the_transform():
    with torch.device("meta"):
        model = timm.create_model("test_convnext.r160_in1k")
    make = inputs.maker(model.pretrained_cfg, transform_of(model), seed=2)
    rows = [make(index) for index in range(16)]
    assert len({name for name, _ in rows}) == 16
    assert all(tuple(values.shape) == (3, 160, 160) for _, values in rows)
    assert all(values.dtype is torch.float32 for _, values in rows)
    assert [name for name, _ in rows[5:8]] == [
        "picture-astronaut",
        "picture-brick",
        "picture-camera",
    ]
    assert rows[13][0] == "noise-1"
    assert torch.equal(make(13)[1], rows[13][1])

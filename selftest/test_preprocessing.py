"""The float64 reference holds timm's transform to its configuration, and catches what is wrong."""

import math

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from fixtures.core import preprocessing
from fixtures.core.networks import NETWORKS
from fixtures.core.pictures import built_in, open_picture
from fixtures.core.preprocessing import PREPROCESSING_ERROR, NoReference
from fixtures.core.samples import pattern


@pytest.fixture(scope="module", params=NETWORKS)
def model(request):
    with torch.device("meta"):
        return timm.create_model(request.param)


@pytest.fixture(scope="module")
def clip():
    """The subject's own configuration."""
    with torch.device("meta"):
        return preprocessing.data_config(timm.create_model("convnext_base.clip_laion2b"))


def judged(config, picture, **changes):
    """The verdict on a transform whose configuration was changed."""
    got = create_transform(**{**config, **changes})(picture)
    measured = preprocessing.compare("picture", got, picture, config)
    return PREPROCESSING_ERROR.judge(measured.figures()[0])


def test_the_documents_own_call_fails_and_ours_does_not(model):
    with pytest.raises(TypeError):
        create_transform(**model.default_cfg)
    picture = Image.fromarray(pattern(300, 220))
    values = preprocessing.transform_of(model)(picture)
    assert tuple(values.shape) == model.pretrained_cfg["input_size"]
    assert values.dtype is torch.float32


@pytest.mark.parametrize("size", [(512, 512), (300, 220), (220, 300), (1, 1), (31, 90), (168, 168)])
def test_the_reference_agrees_with_timm_on_every_network(model, size):
    config, transform = preprocessing.data_config(model), preprocessing.transform_of(model)
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 2, (size[1], size[0], 3), dtype=np.uint8) * 255
    for pixels in (pattern(*size), sharp):
        picture = Image.fromarray(pixels)
        measured = preprocessing.compare("picture", transform(picture), picture, config)
        assert PREPROCESSING_ERROR.judge(measured.figures()[0]), measured


def test_the_tolerance_is_small(model):
    """A step and a half of 8 bits where both sides are resized, float32 rounding where none is."""
    config = preprocessing.data_config(model)
    std = np.array(config["std"]).reshape(3, 1, 1)
    resized = preprocessing.expected(Image.fromarray(pattern(500, 400)), config)
    assert (resized.tolerance * 255 * std < 1.5).all()
    side = math.floor(config["input_size"][1] / config["crop_pct"])
    kept = preprocessing.expected(Image.fromarray(pattern(side, side)), config)
    assert (kept.tolerance < 1e-5).all()


@pytest.mark.parametrize("path", built_in(), ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "changes",
    [
        {"interpolation": "bilinear"},
        {"interpolation": "lanczos"},
        {"interpolation": "nearest"},
        {"crop_pct": 0.98},
        {"mean": (0.485, 0.456, 0.406)},
        {"std": (0.229, 0.224, 0.225)},
        {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    ],
    ids=lambda changes: "-".join(f"{key}" for key in changes),
)
def test_every_wrong_configuration_fails_on_every_real_picture(clip, path, changes):
    picture = open_picture(path)
    assert judged(clip, picture)
    assert not judged(clip, picture, **changes)


def test_other_faults_fail(clip):
    picture = Image.fromarray(pattern(300, 220))
    good = create_transform(**clip)(picture)
    faults = {
        "channels swapped": good.flip(0),
        "mirrored": good.flip(2),
        "squashed": create_transform(**{**clip, "crop_mode": "squash"})(picture),
        "one pixel aside": good.roll(1, 2),
        "wrong size": good[:, 1:],
        "not a number": good.where(good < good.max(), torch.nan),
        "one value": good.where(good < good.max(), good.max() + 0.02),
    }
    for fault, values in faults.items():
        measured = preprocessing.compare("picture", values, picture, clip)
        verdict = PREPROCESSING_ERROR.judge(measured.figures()[0])
        assert not verdict, fault
        assert "preprocessing error is" in repr(verdict)


def test_tiny_errors_of_mean_are_seen_where_nothing_is_resized(clip):
    levels = np.arange(256 * 256 * 3).reshape(256, 256, 3) % 256
    picture = Image.fromarray(levels.astype(np.uint8))
    assert judged(clip, picture)
    assert not judged(clip, picture, mean=(0.4814, 0.4578, 0.4082))


def test_bilinear_and_squash_have_references_of_their_own(clip):
    picture = Image.fromarray(pattern(300, 220))
    for changes in ({"interpolation": "bilinear"}, {"crop_mode": "squash"}):
        config = {**clip, **changes}
        assert judged(config, picture)
        assert not judged(config, picture, interpolation="bicubic", crop_mode="center")


@pytest.mark.parametrize(
    "changes",
    [{"interpolation": "lanczos"}, {"crop_mode": "border"}, {"input_size": (3, 256, 128)}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_has_no_reference_is_said(clip, changes):
    with pytest.raises(NoReference, match="no reference for"):
        preprocessing.expected(Image.fromarray(pattern(30, 20)), {**clip, **changes})


def test_the_kernel_is_keys_cubic():
    """Interpolates, sums to one at any offset, and reproduces quadratics (Keys, section III)."""
    kernel = preprocessing.KERNELS["bicubic"]
    assert kernel(np.array([0.0, 1.0, -1.0, 2.0, 2.5])).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    offsets = np.linspace(0, 1, 11)
    taps = np.arange(-1, 3)
    weights = kernel(offsets[:, None] - taps[None, :])
    assert np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights @ taps**2, offsets**2)


def test_record_says_which_picture(clip):
    picture = Image.fromarray(pattern(30, 20))
    measured = preprocessing.compare("mine", create_transform(**clip)(picture), picture, clip)
    assert measured.kind == "preprocessing"
    assert set(measured.as_json()) == {
        "picture",
        "preprocessing_error",
        "preprocessing_error_steps",
    }
    assert measured.as_json()["picture"] == "mine"

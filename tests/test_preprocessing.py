"""Pictures become inputs as the network's own configuration says, down to the pixel values."""

from __future__ import annotations

import pytest

from fixtures.core import preprocessing
from fixtures.core.clock import clock
from fixtures.core.pictures import PictureError, built_in, open_picture
from fixtures.core.preprocessing import PREPROCESSING_ERROR
from fixtures.core.samples import REFUSED, SAMPLES

pytestmark = pytest.mark.model

FACTS = ("input_size", "mean", "std", "interpolation", "crop_pct")


@pytest.fixture(scope="module")
def config(cpu_model):
    """The network's data configuration, resolved by timm from its pretrained_cfg."""
    return preprocessing.data_config(cpu_model)


@pytest.fixture
def agreement(transform, config, record):
    """Compare what the transform gives with the float64 reference of known pixels."""

    def compare(name, picture, known):
        try:
            with clock.spent("reference"):
                return preprocessing.compare(name, transform(picture), known, config)
        except preprocessing.NoReference as reason:
            record.unsupported(str(reason))

    return compare


@pytest.mark.parametrize("fact", FACTS)
def test_preprocessing_config(config, network, record, fact):
    """The network's configuration holds the value that its training used."""
    record.figure(fact, str(config[fact]))
    if getattr(network, fact) is None:
        record.informs()
    assert record.judge(network.held_to(fact, config[fact]))


def test_known_pixels(agreement, config, record):
    """A picture that needs no resizing keeps every level: (level / 255 - mean) / std, exactly to
    float32 rounding."""
    import numpy as np
    from PIL import Image

    _, height, width = config["input_size"]
    sides = [int(side / config["crop_pct"]) for side in (height, width)]
    levels = np.arange(sides[0] * sides[1] * 3).reshape(*sides, 3)
    picture = Image.fromarray((levels * 7 % 256).astype(np.uint8))
    assert record(agreement("levels", picture, picture), PREPROCESSING_ERROR)


@pytest.mark.parametrize("mode", SAMPLES)
def test_picture_mode(agreement, record, tmp_path, mode):
    """A picture of this mode is read as the RGB pixels it stands for and preprocessed right."""
    from PIL import Image

    name, write = SAMPLES[mode]
    with clock.spent("reference"):
        known = Image.fromarray(write(tmp_path / name))
    measured = agreement(mode, open_picture(tmp_path / name), known)
    assert record(measured, PREPROCESSING_ERROR, where=name)


@pytest.mark.parametrize("picture", [path.stem for path in built_in()])
def test_built_in_picture(agreement, record, picture):
    """A real picture of the built-in set is preprocessed right."""
    opened = open_picture(next(path for path in built_in() if path.stem == picture))
    assert record(agreement(picture, opened, opened), PREPROCESSING_ERROR, where=picture)


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_picture(record, tmp_path, fault):
    """A file that is no whole picture is refused in one sentence that names it."""
    name, write, words = REFUSED[fault]
    write(tmp_path / name)
    with pytest.raises(PictureError, match=words) as refusal:
        open_picture(tmp_path / name)
    record.figure("refusal", str(refusal.value).replace(str(tmp_path), "."))
    assert name in str(refusal.value)

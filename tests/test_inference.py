"""Features of pictures, single and batched, as the adaptation document's adapter gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.core import features, pictures
from fixtures.core.metrics import compare
from fixtures.core.records import Limit

pytestmark = pytest.mark.inference

SINGLES = 4
"""Pictures that are also run one by one."""

FILE = "features.npz"

FINITE = Limit.row("nonfinite_outputs", "==", 0, "every output is a number")


@pytest.fixture(scope="module")
def files(settings):
    """What --image or --image-dir names, else the built-in set."""
    if settings.image is not None:
        return [settings.image]
    if settings.image_dir is not None:
        return pictures.list_pictures(settings.image_dir)
    return pictures.built_in()


@pytest.fixture(scope="module")
def extracted(files, transform, forward, settings):
    """The features of all files, in batches of --batch-size."""
    return features.extract(files, transform, forward, settings.batch_size)


def test_features(extracted, subject, run_folder, record):
    """Every readable picture gives one finite feature vector, saved as .npz with its file name."""
    dimensions = Limit.row("feature_dimensions", "==", subject.num_classes, "the network's outputs")
    verdict = record(extracted, dimensions, FINITE)
    extracted.save(run_folder / FILE)
    record.figure("features_file", FILE)

    stored = features.Features.load(run_folder / FILE)
    assert verdict
    assert stored.files == extracted.files, f"{FILE} names other files than were read"
    assert stored.values.tobytes() == extracted.values.tobytes(), f"{FILE} holds other features"


def test_single_and_batched_agree(extracted, transform, forward, settings, limits, record):
    """A picture has the same features alone as within a batch."""
    import torch

    shown = [Path(file) for file in extracted.files[:SINGLES]]
    if len(shown) == 1 or settings.batch_size == 1:  # no batch yet: each picture beside itself
        shown = [file for file in shown for _ in range(2)]
        batched = features.extract(shown, transform, forward, max(2, settings.batch_size))
    else:
        batched = extracted
    single = features.extract(shown, transform, forward, 1)
    agreement = compare(
        torch.from_numpy(single.values),
        torch.from_numpy(batched.values[: len(shown)]),
        single.files,
        1,
    )
    limit = limits["relative_l2_error"]
    figure = next(each for each in agreement.figures() if each.name == limit.name)
    assert record(figure, limit, where=f"{len(shown)} pictures one by one against batches")

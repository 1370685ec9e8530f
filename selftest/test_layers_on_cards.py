"""The first wrong operator on simulated cards: real dispatch, real copies, faults in the cards."""

import json

import pytest

from selftest.conftest import Suite
from selftest.simulated import CARDS, folder, needs_cards

pytestmark = [needs_cards, pytest.mark.slow]


REGIMES = "default,ieee,bf16,autocast-fp16"


def followed(tmp_path, faults, *arguments):
    """`pytest -m layers` on a simulated card with that plan: the report's cases and entries."""
    suite = Suite(tmp_path)
    done = suite.run(
        *CARDS, "--simulate", "1", "--faults", json.dumps(faults), "-m", "layers",
        "tests/test_layers.py", *arguments, PYTHONPATH=str(folder()),
    )  # fmt: skip
    assert done.code in (0, 1), done.out
    return {entry["regime"]: entry for entry in done.report["layers"]}, done


def test_a_healthy_card_follows(tmp_path):
    """Another order of summation, HF32 truncated, fused products, an ulp more: nothing is named."""
    found, done = followed(tmp_path, {"variation": True}, "--regimes", REGIMES)

    assert done.code == 0, done.out
    assert ",".join(found) == REGIMES
    for entry in found.values():
        assert entry["sentence"] == ""
        assert entry["calls"] == len(entry["steps"]) == 122


def test_every_fault_is_found_where_it_is(tmp_path):
    """Two faults in one card, each at the shapes of one place of the network."""
    found, done = followed(
        tmp_path,
        [
            {"kind": "dropped_channel", "operator": "aclnnConvolution", "shape": [48, 1, 7, 7]},
            {"kind": "wrong_gelu", "shape": [2, 5, 5, 256]},
        ],
        "--regimes",
        "default",
    )
    entry = found["default"]
    wrong = [(row["function"], row["module"]) for row in entry["steps"] if row["wrong"]]

    assert done.code == 1
    assert "first wrong: operator conv2d of stages.2.blocks.0.conv_dw (step 46 of 122)" in done.out
    assert wrong == [
        *(("conv2d", f"stages.2.blocks.{n}.conv_dw") for n in range(4)),
        *(("gelu", f"stages.3.blocks.{n}.mlp.act") for n in range(2)),
    ]


def test_a_fault_that_strikes_once_is_intermittent(tmp_path):
    """A channel of the 40th convolution is lost, that call only."""
    found, done = followed(
        tmp_path,
        [{"kind": "dropped_channel", "operator": "aclnnConvolution", "nth": 40}],
        "--regimes",
        "ieee",
    )

    assert done.code == 1
    assert "intermittent" in found["ieee"]["sentence"]
    assert "first wrong" in found["ieee"]["sentence"]

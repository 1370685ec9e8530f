"""Weights are found, verified, loaded whole, or refused in one sentence; synthetic ones matter."""

import functools
import hashlib
import http.server
import os
import pickle
import re
import threading
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from fixtures.core import blocks, hub, weights
from fixtures.core.networks import Network, network
from fixtures.core.records import WeightsIdentity
from fixtures.core.weights import WeightsError
from selftest import proof_synthetic

NAME = "test_convnext.r160_in1k"
ROW = network(NAME)
BASE = network("convnext_base.clip_laion2b")
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# SHA-256 of the synthetic state of seed 0: what every platform and library version must give.
SYNTHETIC = {
    NAME: "27e1faf054a033c1abca65d846d0dfbafee1b5dda41a93052eec767077c355fb",
    BASE.name: "f138d4f7c785f7a5733cc92b2e9a34f254c0d0effd3ab5da1567d7bed8f83257",
}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    """No test finds the user's cache or the real hub."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGINGFACE_", "TRANSFORMERS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def synthetic():
    return weights.build(ROW, weights.resolve("synthetic", ROW, None, 0), None)


@pytest.fixture
def state(synthetic):
    return {name: tensor.clone() for name, tensor in synthetic[0].state_dict().items()}


@pytest.fixture
def given(tmp_path):
    """Build the network from a file with this state."""

    def make(state, name="given.safetensors", num_classes=None):
        path = tmp_path / name
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        return built(path, num_classes)

    return make


def built(path, num_classes=None, row=ROW):
    return weights.build(row, weights.resolve(str(path), row, num_classes, 0), num_classes)


def refusal(path, num_classes=None, row=ROW):
    """The sentence with which these weights are refused."""
    with pytest.raises(WeightsError) as refused:
        built(path, num_classes, row)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


def same(model, state):
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


# Synthetic weights


def test_synthetic_weights_have_the_same_bits_everywhere(synthetic):
    model, identity = synthetic
    assert identity == WeightsIdentity("synthetic", SYNTHETIC[NAME], seed=0)
    assert weights.state_digest(model) == SYNTHETIC[NAME]
    assert not model.training


@pytest.mark.slow
def test_synthetic_weights_of_the_subject_have_the_same_bits_everywhere():
    model = timm.create_model(BASE.name, pretrained=False)
    weights.draw(model, 0)
    assert weights.state_digest(model) == SYNTHETIC[BASE.name]
    measured = blocks.block_sensitivity(model.eval(), proof_synthetic.pictures(model)[1])
    assert len(measured.blocks) == 36
    assert measured.judge(blocks.BLOCK_SENSITIVITY)


def test_another_seed_gives_other_weights_and_another_head_changes_nothing_else():
    plan = weights.resolve("synthetic", ROW, 10, 1)
    model, identity = weights.build(ROW, plan, 10)
    assert identity.sha256 != SYNTHETIC[NAME]
    assert model.num_classes == 10
    wider, _ = weights.build(ROW, plan, 12)
    shared = {k: v for k, v in wider.state_dict().items() if not k.startswith("head.fc")}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in shared.items())


@pytest.mark.parametrize("name", [NAME, "convnext_atto.d2_in1k"])
def test_every_part_of_every_block_matters(name):
    model = timm.create_model(name, pretrained=False).eval()
    weights.draw(model, 0)
    table = proof_synthetic.effects(model, proof_synthetic.pictures(model))
    assert len(table) == sum(network(name).depths)
    for block, faults in table.items():
        assert len(faults) == len(proof_synthetic.FAULTS)
        for fault, change in faults.items():
            assert change > 5 * blocks.BLOCK_SENSITIVITY.bound, (block, fault)


def test_timm_initialisation_hides_every_fault():
    """And the proof says so, in its table."""
    text, verdict = proof_synthetic.prove(NAME)
    assert verdict
    assert f"the output of {NAME}," in text
    assert SYNTHETIC[NAME] in text
    assert text.count("| stages.3.blocks.1 |") >= 1
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| GELU", "| MLP"))]
    assert len(rows) == 5
    for _, shown, _, hidden in rows:
        assert float(shown) > 5e-2
        assert float(hidden.rstrip(" |")) < 1e-4


def test_a_block_that_does_not_matter_is_no_proof(monkeypatch):
    monkeypatch.setattr(proof_synthetic.weights, "draw", lambda model, seed: None)
    _, verdict = proof_synthetic.prove(NAME)
    assert not verdict
    assert "block sensitivity is" in repr(verdict)
    assert "MLP left out" in repr(verdict)


def test_rows_around_a_block_are_what_skipping_it_gives(synthetic):
    model = synthetic[0]
    image = torch.from_numpy(proof_synthetic.inputs.make(1, (3, 160, 160), [0.5] * 3, [0.5] * 3)[1])
    measured = blocks.block_sensitivity(model, image)
    half = torch.nn.functional.avg_pool2d(image[None], 2)
    with torch.inference_mode():
        whole = model(half)
        for name, change in measured.blocks.items():
            hook = model.get_submodule(name).register_forward_hook(lambda m, given, out: given[0])
            skipped = model(half)
            hook.remove()
            expected = float((skipped - whole).norm() / whole.norm())
            assert change == pytest.approx(expected, rel=1e-3), name


def test_a_block_that_does_not_matter_is_named(state, given):
    state["stages.2.blocks.1.gamma"].zero_()
    model, identity = given(state)
    measured = blocks.block_sensitivity(model, torch.rand(3, 160, 160))
    assert measured.least == "stages.2.blocks.1"
    verdict = measured.judge(blocks.BLOCK_SENSITIVITY)
    assert not verdict
    assert "must be >= 0.01 (stages.2.blocks.1 skipped)" in repr(verdict)
    assert measured.as_json()["least_sensitive_block"] == "stages.2.blocks.1"
    assert identity.source == "given"


def test_a_block_that_gives_no_number_matters_least():
    measured = blocks.BlockSensitivity({"a": 0.5, "b": float("nan"), "c": 0.1})
    assert measured.least == "b"
    assert not measured.judge(blocks.BLOCK_SENSITIVITY)


def test_a_network_without_blocks_proves_nothing():
    measured = blocks.block_sensitivity(torch.nn.Flatten(), torch.rand(3, 4, 4))
    assert measured.blocks == {}
    assert not measured.judge(blocks.BLOCK_SENSITIVITY)
    assert "no block was found" in repr(measured.judge(blocks.BLOCK_SENSITIVITY))


class Fixed(torch.nn.Module):
    """A network that takes pictures of 16 x 16 only."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Flatten()
        self.only = type("OnlyBlock", (torch.nn.Linear,), {})(768, 768)

    def forward(self, images):
        assert images.shape[2:] == (16, 16), "Input size does not match"
        return self.only(self.stem(images))


def test_a_network_of_a_fixed_size_is_measured_at_its_own_size():
    measured = blocks.block_sensitivity(Fixed(), torch.rand(3, 16, 16))
    assert list(measured.blocks) == ["only"]
    with pytest.raises(AssertionError, match="Input size"):
        blocks.block_sensitivity(Fixed(), torch.rand(3, 8, 8))


@pytest.mark.parametrize(
    ("name", "skipped", "fixed"),
    [("test_vit.r160_in1k", 6, 0), ("test_resnet.r160_in1k", 1, 3), ("resnet18", 5, 3)],
)
def test_other_kinds_of_networks_are_drawn_and_measured(name, skipped, fixed):
    row = Network(name, listed=False)
    model, _ = weights.build(row, weights.resolve("synthetic", row, None, 0), None)
    config = model.pretrained_cfg
    measured = blocks.block_sensitivity(model, torch.rand(config["input_size"]))
    assert len(measured.blocks) == skipped
    assert len(measured.fixed) == fixed
    assert measured.judge(blocks.BLOCK_SENSITIVITY)
    for key, tensor in model.state_dict().items():
        if key.endswith("running_var"):
            assert bool((tensor > 0.6).all())
        if key.endswith("num_batches_tracked"):
            assert int(tensor) == 0
        if key.endswith("bn2.weight"):  # timm draws the last one of a block as zero
            assert 0.9 < float(tensor.mean()) < 1.1


def test_state_digest_sees_names_types_shapes_and_bytes():
    base = {"a": torch.arange(4.0), "b": torch.zeros(2, dtype=torch.bfloat16), "n": torch.tensor(1)}
    digest = weights.state_digest(base)
    assert digest == weights.state_digest(dict(reversed(base.items())))
    changed = [
        {**base, "a": torch.arange(4.0) + 1e-7},
        {**base, "a": torch.arange(4.0).view(2, 2)},
        {**base, "a": torch.arange(4.0).double()},
        {**base, "b": torch.ones(2, dtype=torch.bfloat16)},
        {"c" if key == "a" else key: value for key, value in base.items()},
    ]
    assert digest not in {weights.state_digest(each) for each in changed}
    assert weights.state_digest({"a": torch.arange(4.0).view(2, 2).t()}) == weights.state_digest(
        {"a": torch.tensor([[0.0, 2.0], [1.0, 3.0]])}
    )


# Given weights


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth", "a.bin"])
def test_a_given_file_is_loaded_whole(state, given, tmp_path, name):
    model, identity = given(state, name)
    assert same(model, state)
    path = tmp_path / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert identity == WeightsIdentity("given", digest, path=str(path))
    assert weights.not_from(model, identity) == ()


def test_a_training_checkpoint_gives_its_state_dict(state, given):
    wrapped = {f"module.{key}": value for key, value in state.items()}
    model, _ = given({"epoch": 3, "state_dict": wrapped}, "c.pt")
    assert same(model, state)


def test_half_precision_weights_are_cast(state, given):
    model, identity = given({key: value.half() for key, value in state.items()})
    assert all(value.dtype is torch.float32 for value in model.state_dict().values())
    assert weights.not_from(model, identity) == ()


def test_another_number_of_classes_draws_the_head_anew_and_nothing_else(state, given):
    model, identity = given(state, num_classes=7)
    assert identity.head_reinitialised
    assert identity.seed == 0
    kept = {k: v for k, v in state.items() if not k.startswith("head.fc")}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in kept.items())
    again, _ = given(state, num_classes=7)
    assert weights.state_digest(model) == weights.state_digest(again)
    assert weights.not_from(model, identity) == ()


def test_the_number_of_classes_is_the_files_own(state, given):
    state["head.fc.weight"] = state["head.fc.weight"][:12].clone()
    state["head.fc.bias"] = state["head.fc.bias"][:12].clone()
    for wanted in (None, 12):
        model, identity = given(state, num_classes=wanted)
        assert model.num_classes == 12
        assert not identity.head_reinitialised
        assert same(model, state)


def test_a_tensor_that_is_not_the_files_is_found(state, given, synthetic):
    model, identity = given(state)
    with torch.no_grad():
        model.stages[1].blocks[0].conv_dw.weight[0, 0, 0, 0] += 1e-6
    assert weights.not_from(model, identity) == ("stages.1.blocks.0.conv_dw.weight",)
    assert weights.not_from(synthetic[0], synthetic[1]) == ()
    assert weights.not_from(model, synthetic[1]) == ("state",)


def test_a_folder_gives_its_one_weights_file(state, tmp_path):
    save_file(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "other.pt")
    assert built(tmp_path)[1].path == str(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").rename(tmp_path / "mine.safetensors")
    assert built(tmp_path)[1].path == str(tmp_path / "mine.safetensors")
    save_file(state, tmp_path / "second.safetensors")
    assert "mine.safetensors, second.safetensors; give one" in refusal(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "other.pt").rename(alone / "other.pt")
    unpublished = weights.known_config("convnext_atto_rms.untrained")
    assert weights.find(alone, unpublished) == alone / "other.pt"


def test_a_link_to_a_file_is_followed_and_proves_nothing(state, tmp_path):
    save_file(state, tmp_path / ("ab" * 32))
    link = tmp_path / "linked.safetensors"
    link.symlink_to(tmp_path / ("ab" * 32))
    model, identity = built(link)
    assert same(model, state)
    assert not identity.verified


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path, share):
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 0xFF
    path.write_bytes(data)


class Evil:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("ran-code",)


def evil(path):
    with path.open("wb") as opened:
        pickle.dump({"weight": Evil()}, opened)


def evil_zip(path):
    torch.save({"weight": Evil()}, path)


def whole_network(path):
    torch.save(timm.create_model(NAME), path)


def page(path):
    path.write_text("<html>404</html>" * 20)


BAD_FILES = {
    "empty": ("a.safetensors", lambda path: path.write_bytes(b""), "is empty"),
    "truncated": ("a.safetensors", functools.partial(cut, share=0.5), "truncated or damaged"),
    "truncated-header": ("a.safetensors", functools.partial(cut, share=1e-4), "truncated"),
    "corrupt-header": ("a.safetensors", functools.partial(flip, share=1e-3), "damaged"),
    "truncated-zip": ("a.pt", functools.partial(cut, share=0.5), "truncated or damaged"),
    "corrupt-zip": ("a.pt", functools.partial(flip, share=0.5), "checksum"),
    "page": ("a.safetensors", page, "truncated or damaged"),
    "page-pt": ("a.pt", page, "truncated or damaged"),
    "pickle": ("a.bin", evil, "a pickle that would run code"),
    "pickle-zip": ("a.pt", evil_zip, r"a pickle that would run code \(posix.mkdir\)"),
    "network": ("a.pt", whole_network, "a pickle that would run code"),
    "list": ("a.pt", lambda path: torch.save([1, 2], path), "holds no state dict"),
    "no-tensors": ("a.pt", lambda path: torch.save({"epoch": 1}, path), "entries are epoch"),
    "one-stranger": (
        "a.pt",
        lambda path: torch.save({**torch.load(path, weights_only=True), "step": 5}, path),
        "holds step, which is no tensor",
    ),
    "nothing": ("a.pt", lambda path: torch.save({}, path), "entries are none"),
    "suffix": ("a.txt", page, "is no weights file"),
    "lfs-pointer": (
        "a.safetensors",
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "git lfs pull",
    ),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_bad_file_is_refused_in_one_sentence(state, tmp_path, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    name, spoil, words = BAD_FILES[fault]
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    spoil(path)
    with pytest.raises(WeightsError, match=words) as refused:
        built(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran-code").exists()


def test_no_such_file_and_no_such_folder(tmp_path):
    assert "no such file or folder" in refusal(tmp_path / "none.safetensors")
    (tmp_path / "hollow").mkdir()
    assert "holds no .safetensors" in refusal(tmp_path / "hollow")


@pytest.mark.parametrize("classes", [None, 7])
def test_missing_unexpected_and_misshapen_tensors(state, tmp_path, classes):
    """Even where another head makes timm itself load leniently."""
    path = tmp_path / "a.safetensors"
    lost = {k: v for k, v in state.items() if not k.startswith("stages.2.blocks.1.")}
    save_file(lost, path)
    assert "9 tensors are missing (stages.2.blocks.1.gamma, " in refusal(path, classes)
    save_file({**state, "teacher.weight": torch.zeros(3)}, path)
    assert "1 tensor is not in the network (teacher.weight)" in refusal(path, classes)
    save_file({**state, "stem.0.weight": torch.zeros(40, 3, 4, 4)}, path)
    assert "stem.0.weight is 40x3x4x4 in the file and 24x3x4x4" in refusal(path, classes)
    assert torch.nn.Module.load_state_dict.__module__ == "torch.nn.modules.module"


def test_weights_of_another_network_do_not_fit(state, tmp_path):
    save_file(state, tmp_path / "a.safetensors")
    sentence = refusal(tmp_path / "a.safetensors", row=network("convnext_atto.d2_in1k"))
    assert "does not fit convnext_atto.d2_in1k" in sentence
    assert "tensors have another shape" in sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(state, tmp_path, value):
    state["stem.0.bias"][3] = value
    save_file(state, tmp_path / "a.safetensors")
    assert "1 tensor is not finite (stem.0.bias)" in refusal(tmp_path / "a.safetensors")


def test_weights_too_large_for_float32(state, tmp_path):
    state["stem.0.bias"] = state["stem.0.bias"].double().fill_(1e300)
    save_file(state, tmp_path / "a.safetensors")
    assert "not finite" in refusal(tmp_path / "a.safetensors")


# Networks


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("convnext_bse.clip_laion2b", "did you mean convnext_base.clip_laion2b"),
        ("convnext_base.nonsense", "did you mean convnext_base"),
        ("zzzzzz", "see timm.list_models()"),
        ("hf-hub:timm/convnext_base", ""),
    ],
)
def test_an_unknown_network_is_refused_with_what_comes_near(name, hint):
    with pytest.raises(WeightsError, match="has no such network") as refused:
        weights.resolve("synthetic", Network(name, listed=False), None, 0)
    assert hint in str(refused.value)


def test_no_classes_is_refused():
    with pytest.raises(WeightsError, match="--num-classes 0: give 1 or more"):
        weights.resolve("synthetic", ROW, 0, 0)


# The cache


@pytest.fixture
def cache(state, tmp_path, monkeypatch):
    """A Hugging Face cache that holds the network, as a download leaves it, and no hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "home" / "hub" / f"models--timm--{NAME}"
    for part in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    save_file(state, tmp_path / "saved")
    digest = hashlib.sha256((tmp_path / "saved").read_bytes()).hexdigest()
    (tmp_path / "saved").rename(folder / "blobs" / digest)
    link = folder / "snapshots" / COMMIT / "model.safetensors"
    link.symlink_to(f"../../blobs/{digest}")
    return folder


@pytest.mark.parametrize("choice", ["auto", "pretrained"])
def test_the_cache_gives_verified_weights_offline(cache, state, choice):
    plan = weights.resolve(choice, ROW, None, 0)
    model, identity = weights.build(ROW, plan, None)
    assert same(model, state)
    assert (identity.source, identity.verified) == ("pretrained", True)
    assert identity.sha256 == next((cache / "blobs").iterdir()).name
    assert "verified" in identity.label
    assert "not verified" not in identity.label


@pytest.mark.parametrize("choice", ["auto", "pretrained"])
def test_a_tampered_blob_is_an_error_and_never_replaced_quietly(cache, choice):
    blob = next((cache / "blobs").iterdir())
    flip(blob, 0.9)
    with pytest.raises(WeightsError, match="is not the file that the hub published"):
        weights.build(ROW, weights.resolve(choice, ROW, None, 0), None)


def test_a_blob_in_the_store_that_repositories_share_is_verified(cache, tmp_path):
    """huggingface_hub 2.x: the blob is itself a link, into a store named by another hash."""
    blob = next((cache / "blobs").iterdir())
    store = tmp_path / "home" / "hub" / "blobs" / "ab"
    store.mkdir(parents=True)
    blob.rename(store / ("ab" * 32))
    blob.symlink_to(store / ("ab" * 32))
    _, identity = weights.build(ROW, weights.resolve("pretrained", ROW, None, 0), None)
    assert identity.verified
    assert identity.sha256 == blob.name


def test_a_cache_without_links_cannot_be_verified_offline(cache):
    link = cache / "snapshots" / COMMIT / "model.safetensors"
    blob = link.resolve()
    link.unlink()
    blob.rename(link)
    _, identity = weights.build(ROW, weights.resolve("pretrained", ROW, None, 0), None)
    assert not identity.verified
    assert "not verified against the hub" in identity.label


def test_only_the_wanted_revision_of_the_cache_will_do(cache):
    (cache / "refs" / "main").write_text("f" * 40)
    plan = weights.resolve("auto", ROW, None, 0)
    assert plan.source == "synthetic"
    assert "HF_HUB_OFFLINE is set" in plan.note


@pytest.mark.parametrize("place", ["", "..", "../..", f"snapshots/{COMMIT}"])
def test_a_cache_given_by_path(cache, state, place):
    model, identity = built((cache / place).resolve())
    assert same(model, state)
    assert (identity.source, identity.verified) == ("given", True)


def test_a_folder_filled_by_the_download_command_is_verified(state, tmp_path):
    save_file(state, tmp_path / "model.safetensors")
    digest = weights.file_digest(tmp_path / "model.safetensors")
    note = tmp_path / ".cache" / "huggingface" / "download" / "model.safetensors.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{COMMIT}\n{digest}\n1700000000.0\n")
    assert built(tmp_path)[1].verified
    note.write_text(f"{COMMIT}\n{'0' * 64}\n1700000000.0\n")
    assert "is not the file that the hub published" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b"}, "/b"),
        ({"HF_HOME": "/c"}, "/c/hub"),
        ({"HF_HOME": None, "XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HF_HOME": None, "XDG_CACHE_HOME": None, "HOME": "/e"}, "/e/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, changes, expected):
    for name, value in changes.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert str(hub.cache_folder()) == expected


@pytest.mark.parametrize(
    ("hf_hub_id", "filename", "expected"),
    [
        ("timm/x", None, hub.HubFile("timm/x", "model.safetensors")),
        ("timm/x@v1", "pytorch_model.bin", hub.HubFile("timm/x", "model.safetensors", "v1")),
        (
            "laion/y",
            "open_clip_pytorch_model.bin",
            hub.HubFile("laion/y", "open_clip_model.safetensors"),
        ),
        (None, None, None),
    ],
)
def test_the_hubs_file_is_named_as_timm_names_it(hf_hub_id, filename, expected):
    from timm.models import PretrainedCfg

    config = PretrainedCfg(hf_hub_id=hf_hub_id, hf_hub_filename=filename)
    assert weights.hub_file(config) == expected


# The hub


def test_an_unreachable_hub_is_decided_quickly():
    started = time.perf_counter()
    plan = weights.resolve("auto", ROW, None, 3)
    assert time.perf_counter() - started < 20  # huggingface_hub by itself takes about 46 s
    assert plan.source == "synthetic"
    assert plan.seed == 3
    # huggingface_hub 0.3x goes on trying until it is given up, later ones say at once why not
    assert re.match(r"http://127.0.0.1:9 (cannot be reached|did not answer)", plan.note)


def test_pretrained_weights_without_a_hub_are_refused_with_the_cure(monkeypatch):
    def unreachable(file):
        raise hub.Unavailable("the hub is away")

    monkeypatch.setattr(hub, "look", unreachable)
    with pytest.raises(WeightsError, match=r"the hub is away; set HF_ENDPOINT .*--weights FILE"):
        weights.resolve("pretrained", ROW, None, 0)


def test_offline_means_that_nobody_is_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("asked the hub"))
    assert "HF_HUB_OFFLINE is set" in weights.resolve("auto", ROW, None, 0).note


def test_a_network_without_published_weights_is_told():
    row = Network("convnext_atto_rms.untrained", listed=False)
    plan = weights.resolve("auto", row, None, 0)
    assert plan.note == "timm knows no safetensors file for convnext_atto_rms.untrained on the hub"


class Hub(http.server.BaseHTTPRequestHandler):
    """One file, served the way the hub serves it."""

    content = b""
    digest = ""
    delay = 0.0

    def do_HEAD(self):
        time.sleep(self.delay)
        found = self.path == f"/timm/{NAME}/resolve/main/model.safetensors"
        self.send_response(200 if found else 404)
        if found:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{self.digest}"')
            self.send_header("Content-Length", str(len(self.content)))
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        return found

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.content)

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture
def server(state, tmp_path, monkeypatch):
    """A hub that answers, with the network's weights."""
    save_file(state, tmp_path / "served")
    content = (tmp_path / "served").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    handler = type("Handler", (Hub,), {"content": content, "digest": digest})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_address[1]}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield handler
        running.shutdown()
        thread.join()


def test_pretrained_weights_are_downloaded_and_verified(server, state):
    plan = weights.resolve("auto", ROW, None, 0)
    assert (plan.source, plan.path, plan.digest) == ("pretrained", None, server.digest)
    model, identity = weights.build(ROW, plan, None)
    assert same(model, state)
    assert identity.verified
    assert identity.sha256 == server.digest
    assert weights.resolve("auto", ROW, None, 0).path is not None  # from now on the cache


def test_a_download_that_is_not_what_the_hub_published_is_an_error(server):
    server.content = server.content[:-1] + bytes([server.content[-1] ^ 1])
    with pytest.raises(WeightsError, match="is not the file that the hub published"):
        weights.build(ROW, weights.resolve("pretrained", ROW, None, 0), None)


def test_a_download_that_breaks_off_is_an_error(server):
    plan = weights.resolve("pretrained", ROW, None, 0)
    server.do_HEAD = lambda handler: handler.send_error(403)
    with pytest.raises(WeightsError, match=r"broke off.*run again"):
        weights.build(ROW, plan, None)


def test_a_cache_without_links_is_verified_by_the_hub(server, cache, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    link = cache / "snapshots" / COMMIT / "model.safetensors"
    blob = link.resolve()
    link.unlink()
    blob.rename(link)
    _, identity = weights.build(ROW, weights.resolve("pretrained", ROW, None, 0), None)
    assert identity.verified
    flip(link, 0.9)
    with pytest.raises(WeightsError, match="is not the file that the hub published"):
        weights.build(ROW, weights.resolve("pretrained", ROW, None, 0), None)


def test_a_hub_without_the_file_is_told(server):
    plan = weights.resolve("auto", network("convnext_atto.d2_in1k"), None, 0)
    assert plan.note.endswith("has no timm/convnext_atto.d2_in1k/model.safetensors")


def test_a_hub_that_does_not_answer_is_given_up(server):
    server.delay = 2.0
    with pytest.raises(hub.Unavailable, match=r"did not answer within 0.3 s|cannot be reached"):
        hub.look(hub.HubFile(f"timm/{NAME}", "model.safetensors"), seconds=0.3)


def test_a_name_that_cannot_be_resolved_in_time_is_given_up(server, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **k: time.sleep(1))
    with pytest.raises(hub.Unavailable, match=r"did not answer within 0.2 s"):
        hub.look(hub.HubFile(f"timm/{NAME}", "model.safetensors"), seconds=0.2)

"""The strict gate: what it stops, by how much, and that nothing passes for lack of evidence."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.core import golden, mutants, weights
from fixtures.core.backends import backend
from fixtures.core.batches import Batches
from fixtures.core.chain import STAGE_ROWS, Chain, stage_names, stage_outputs
from fixtures.core.gate import DISTINCT, Gate, coarsest
from fixtures.core.networks import NETWORKS, network
from fixtures.core.records import Figure, MathMode, Status, Subject
from fixtures.core.regimes import DEFAULT_REGIMES, REGIMES
from fixtures.core.store import Store, cache_folder
from fixtures.core.strict import (
    ABSOLUTE,
    REST,
    STRICT,
    TAU,
    allowed_errors,
    centred_retrieval,
    judge,
    relative_errors,
)

NAME = "test_convnext.r160_in1k"
IEEE = MathMode()
HF32 = MathMode("hf32", gelu="tanh")
IDS = [f"row-{n}" for n in range(8)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


GOLDEN = normal(8, 640)


def off(size, seed=1, golden=GOLDEN):
    """The reference with an error of that relative size in every row."""
    noise = normal(*golden.shape, seed=seed)
    return golden + size * noise / noise.norm(dim=1, keepdim=True) * golden.norm(
        dim=1, keepdim=True
    )


def judged(got, emulated=1e-4, regime="default", **changes):
    given = {"golden": GOLDEN, "same": [off(emulated, seed=9)], "ids": IDS, **changes}
    return judge(
        got, given["golden"], given["same"], REGIMES[regime], "conv hf32", "hf32", given["ids"], 8
    )


def failed(strict):
    figures = {figure.name: figure for figure in strict.figures()}
    return {limit.name for limit in STRICT if not limit.judge(figures[limit.name])}


def test_the_same_arithmetic_with_other_roundings_passes():
    for seed in range(20):
        strict = judged(off(1e-4, seed=seed + 20))
        assert not failed(strict), strict
        assert not strict.caught
        assert strict.value("strict_error") == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("regime", "k"), [("default", 2), ("ieee", 2), ("fp16", 3), ("bf16", 3)])
def test_the_limit_is_k_times_the_emulated_error(regime, k):
    assert not judged(off(k * 0.99e-4), regime=regime).caught
    over = judged(off(k * 1.01e-4), regime=regime)
    assert "strict_error" in failed(over)
    assert over.caught


def test_a_row_that_was_emulated_too_well_is_held_to_the_median():
    lucky = off(1e-4, seed=9)
    lucky[0] = GOLDEN[0] * (1 + 1e-9)
    assert not judged(off(1e-4), same=[lucky]).caught


def test_of_several_right_emulations_the_worst_counts():
    assert judged(off(3e-4)).caught
    assert not judged(off(3e-4), same=[off(1e-4, seed=8), off(2e-4, seed=9)]).caught


def test_the_cosine_is_tied_to_the_error():
    # along the reference: no cosine sees it, the error does
    scaled = judged(GOLDEN * 1.001)
    assert failed(scaled) == {"strict_error"} or "strict_cosine" not in failed(scaled)
    assert scaled.value("strict_cosine") < 1e-3
    across = judged(off(4e-4))
    assert "strict_cosine" in failed(across)


def test_one_element_far_off_is_seen_by_the_largest_error():
    got = off(1e-4)
    got[3, 17] += 0.004
    assert "strict_max_abs" in failed(judged(got))


def test_rows_in_each_others_place_are_seen_by_identity_alone():
    """Rows so alike that no error tells them apart."""
    alike = normal(1, 640) + 1e-6 * GOLDEN
    same = [off(1e-4, seed=9, golden=alike)]
    got = off(1e-9, golden=alike)
    assert not judged(got, golden=alike, same=same).caught
    swapped = got[[1, 0, *range(2, 8)]]
    assert failed(judged(swapped, golden=alike, same=same)) == {
        "strict_identity",
        "strict_identity_margin",
    }


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_never_passes(bad):
    got = GOLDEN.clone()
    got[5, 5] = bad
    strict = judged(got)
    assert strict.caught
    assert {"strict_error", "strict_nonfinite"} <= failed(strict)


def test_another_shape_fails_every_limit():
    strict = judged(GOLDEN[:, :5])
    assert {limit.name for limit in STRICT} == failed(strict)
    assert "shape" in strict.figures()[0].reason


@pytest.mark.parametrize("bad", [0.0, math.nan])
def test_a_reference_that_is_none_is_invalid(bad):
    reference = GOLDEN.clone()
    reference[2] = bad
    strict = judged(GOLDEN, golden=reference)
    assert strict.verdict().status is Status.INVALID
    assert "row-2" in repr(strict.verdict())
    assert strict.caught


def test_one_row_alone_proves_no_identity():
    assert all(math.isnan(value) for value in centred_retrieval(GOLDEN[:1], GOLDEN[:1]))
    assert judged(GOLDEN[:1], golden=GOLDEN[:1], same=[GOLDEN[:1]], ids=IDS[:1]).caught


@given(st.floats(1e-8, 1e-1), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_greater_the_error_the_greater_the_figure(size, seed):
    less, more = (judged(off(e, seed=seed)).value("strict_error") for e in (size, 1.1 * size))
    assert less < more


def test_tau_names_every_arithmetic_and_is_ordered():
    assert TAU["ieee"] < TAU["hf32"] < TAU["tf32"] < TAU["float16"] < TAU["bfloat16"]
    assert coarsest(MathMode("hf32", "bfloat16")) == "bfloat16"
    assert coarsest(MathMode("ieee", "hf32")) == "hf32"
    for regime in REGIMES.values():
        for mode in (IEEE, HF32, MathMode("tf32", "tf32")):
            assert coarsest(regime.arithmetic(mode)) in TAU


# --- a network -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    row = network(NAME)
    return weights.build(row, weights.resolve("synthetic", row, None, 0), None)[0]


@pytest.fixture(scope="module")
def gate(model, tmp_path_factory):
    return make_gate(model, tmp_path_factory.mktemp("store"))


def make_gate(model, folder):
    from fixtures.core import inputs

    config = model.pretrained_cfg
    size = tuple(config["input_size"])

    def row(index):
        name, values = inputs.make(index, size, config["mean"], config["std"])
        return name, torch.from_numpy(values)

    def run(images):
        with torch.inference_mode():
            return model(images)

    chain = Chain(model, weights.state_digest(model), Store(folder))
    return Gate(chain, Batches(row, run)(DISTINCT))


@pytest.mark.parametrize("mode", [IEEE, HF32, MathMode("tf32", "tf32")], ids=str)
def test_every_mutant_that_the_gate_claims_is_stopped(gate, mode):
    found = mutants.panel(gate, REGIMES["default"], mode)
    assert not found.missed, found.where
    assert len(found.tried) >= 12
    assert mutants.MISSED.judge(found.figures()[-1])
    caught = {trial.id for trial in found.tried if trial.caught}
    document = {trial.id for trial in found.tried if trial.document_caught}
    assert document < caught  # what the document's gate stops is less


def test_in_strict_float32_every_mutant_is_stopped(gate):
    found = mutants.panel(gate, REGIMES["ieee"], IEEE)
    assert all(trial.caught and trial.claimed for trial in found.tried)
    passed = {trial.id for trial in found.tried if not trial.document_caught}
    assert {"gelu-form", "channel-scaled"} <= passed


def test_the_terminal_is_told_what_each_gate_stops(gate):
    found = mutants.panel(gate, REGIMES["ieee"], IEEE)
    assert mutants.told([found.as_json()]) == (
        "mutants stopped by the strict gate: ieee 14 of 14; by the document's gate: 10"
    )
    assert mutants.told([]) == ""


def test_a_gate_that_is_too_wide_is_caught_by_its_mutants(gate):
    wide = dataclasses.replace(REGIMES["ieee"], k=1e6)
    found = mutants.panel(gate, wide, IEEE)
    verdict = mutants.MISSED.judge(found.figures()[-1], found.where)
    assert not verdict
    assert "channel-scaled at stages" in repr(verdict)
    assert "off by 2^-6" in repr(verdict)


def test_mutants_leave_the_network_as_it_was(gate, model):
    before = weights.state_digest(model)
    forwards = [name for name, module in model.named_modules() if "forward" in vars(module)]
    mutants.panel(gate, REGIMES["ieee"], IEEE)
    assert weights.state_digest(model) == before
    assert [n for n, module in model.named_modules() if "forward" in vars(module)] == forwards == []


def test_going_on_from_a_stage_is_the_whole_network(gate, model):
    images = gate.inputs.images
    known = gate.chain.emulated(images, REGIMES["ieee"], IEEE)
    for module in ("stages.0.blocks.0.conv_dw", "stages.2.blocks.1.mlp.fc1", "head.fc"):
        stage = mutants.stage_before(model, gate.chain.stages, module)
        with torch.inference_mode(), mutants.starting_after(model, stage, gate.chain, known):
            output = model(images[:STAGE_ROWS])
        error = (output - known.whole[:STAGE_ROWS]).norm() / known.whole[:STAGE_ROWS].norm()
        assert error < 1e-6, module
    assert mutants.stage_before(model, gate.chain.stages, "stem.0") is None
    assert mutants.stage_before(model, gate.chain.stages, "head.fc") == "stages.3"


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
def test_other_networks_need_no_code(name, tmp_path):
    row = network(name)
    other = weights.build(row, weights.resolve("synthetic", row, None, 0), None)[0]
    gate = make_gate(other, tmp_path)
    images = dataclasses.replace(
        gate.inputs, images=gate.inputs.images[:2], names=gate.inputs.names[:2]
    )
    small = Gate(gate.chain, images)
    found = mutants.panel(small, REGIMES["ieee"], IEEE)
    assert not found.missed, found.where
    assert len(found.tried) >= 8
    assert all(trial.note for trial in found.trials if trial not in found.tried)


def test_the_device_as_it_is_passes_and_a_changed_one_does_not(gate, model):
    reference = gate.inputs.reference
    for regime in DEFAULT_REGIMES:
        strict = gate.judge(reference, REGIMES[regime], IEEE, 8)
        assert not strict.caught
        assert strict.value("error_over_cpu") == pytest.approx(1)
    assert gate.judge(reference * (1 + 1e-5), REGIMES["ieee"], IEEE, 8).caught


def test_stage_names_are_timms_own(model):
    assert stage_names(model) == tuple(f"stages.{n}" for n in range(4))
    with torch.inference_mode(), stage_outputs(model, stage_names(model)) as found:
        model(torch.zeros(1, 3, 160, 160))
    assert [value.shape[1] for value in found.values()] == list(network(NAME).widths)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_reference_is_computed_once(model, tmp_path):
    first = make_gate(model, tmp_path)
    one = first.judge(first.inputs.reference, REGIMES["default"], HF32, 8)
    assert first.chain.store.made == 3  # float64, and HF32 rounded either way
    again = make_gate(model, tmp_path)
    other = again.judge(again.inputs.reference, REGIMES["default"], HF32, 8)
    assert again.chain.store.made == 0
    assert one == other
    again.judge(again.inputs.reference, REGIMES["default"], HF32, 8)
    assert again.chain.store.made == 0


# --- golden outputs --------------------------------------------------------------------------


def subject_of(model, source="synthetic"):
    identity = weights.WeightsIdentity(source, "0", seed=0)
    return Subject(NAME, model.num_classes, (3, 160, 160), 0, identity)


def test_this_host_agrees_with_the_golden_outputs(model):
    found = golden.check_host(NAME, model)
    assert found.verdict()
    assert all(
        limit.judge(figure) for limit, figure in zip(golden.LIMITS, found.figures(), strict=True)
    )
    assert found.float64_error < 1e-13


@pytest.mark.parametrize("name", [name for name in NETWORKS if "base" not in name])
def test_golden_outputs_are_made_again_as_they_are(name, tmp_path):
    row = network(name)
    made = weights.build(row, weights.resolve("synthetic", row, row.num_classes, 0), None)[0]
    chain = Chain(made, weights.state_digest(made), Store(tmp_path))
    fresh = golden.content(chain, golden.images(made))
    kept, metadata = golden.load(name)
    assert fresh.keys() == kept.keys()
    assert metadata["network"] == name
    for key, value in kept.items():
        assert (fresh[key] - value).norm() <= 1e-12 * value.norm(), key


def test_every_shipped_network_has_golden_outputs():
    for name, row in NETWORKS.items():
        assert golden.shipped(name, row.num_classes)
        assert not golden.shipped(name, row.num_classes + 1)
        assert golden.load(name)[0]["outputs/erf"].shape == (golden.ROWS, row.num_classes)
    assert not golden.shipped("resnet18.a1_in1k", 1000)


@pytest.fixture
def own_golden(monkeypatch, tmp_path):
    for file in golden.FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    return tmp_path


def test_a_golden_file_with_another_digest_fails(own_golden, model, tmp_path):
    path = own_golden / f"{NAME}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = golden.check_host(NAME, model)
    assert not found.verdict()
    assert f"the golden file {path} has SHA-256" in found.wrong
    assert "check it out again" in found.wrong
    reference = golden.Reference(model, subject_of(model), Store(tmp_path / "store"))
    device = golden.check_device(torch.zeros(2, 1000), reference, REGIMES["ieee"], IEEE)
    assert not ABSOLUTE.judge(device.figures()[0])


def test_without_the_list_of_digests_nothing_is_believed(own_golden):
    (own_golden / golden.SUMS).unlink()
    with pytest.raises(golden.GoldenError, match="check out again"):
        golden.load(NAME)


def test_weights_that_came_out_otherwise_fail(model):
    import copy

    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.fc.bias[0] += 1e-6
    found = golden.check_host(NAME, other)
    assert not found.verdict()
    assert "synthetic weights made on this host" in found.wrong


def test_a_host_that_computes_otherwise_fails(model, monkeypatch):
    monkeypatch.setattr(
        type(model), "forward", lambda self, x: 1.001 * self.forward_head(self.forward_features(x))
    )
    found = golden.check_host(NAME, model)
    assert not golden.LIMITS[0].judge(found.figures()[0])
    assert not golden.LIMITS[1].judge(found.figures()[1])


def test_a_host_whose_stage_is_no_number_fails(model, monkeypatch):
    """max() of Python would pass it by."""
    real = golden.samples
    monkeypatch.setattr(
        golden,
        "samples",
        lambda stages: {
            key: value * (math.nan if "stages.1" in key else 1)
            for key, value in real(stages).items()
        },
    )
    found = golden.check_host(NAME, model)
    assert golden.LIMITS[0].judge(found.figures()[0])
    assert not golden.LIMITS[1].judge(found.figures()[1])


def test_the_host_is_checked_by_what_it_computes_now(model, tmp_path, monkeypatch):
    """What an earlier run left in the cache is no evidence."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Chain(model, weights.state_digest(model), Store(cache_folder() / "reference")).golden(
        golden.images(model), "erf"
    )
    monkeypatch.setattr(Chain, "_compute", lambda *_: pytest.fail("computed"))
    with pytest.raises(pytest.fail.Exception, match="computed"):
        golden.check_host(NAME, model)


def test_a_device_is_held_to_the_form_that_it_declares(model, tmp_path):
    row = network("convnext_atto.d2_in1k")
    subject = dataclasses.replace(subject_of(model), model=row.name)
    reference = golden.Reference(model, subject, Store(tmp_path))
    erf = golden.load(row.name)[0]["outputs/erf"]
    regime = REGIMES["ieee"]
    for mode, passes in ((IEEE, True), (MathMode(gelu="tanh"), False)):
        found = golden.check_device(erf.float(), reference, regime, mode)
        assert bool(ABSOLUTE.judge(found.figures()[0])) is passes
    assert golden.check_device(erf[:1], reference, regime, IEEE).error is None


UNLISTED = "test_resnet.r160_in1k"
HF32_EVERYWHERE = MathMode(conv="hf32", matmul="hf32")


@pytest.fixture(scope="module")
def unlisted():
    row = network(UNLISTED)
    made = weights.build(row, weights.resolve("synthetic", row, None, 0), None)[0]
    identity = weights.WeightsIdentity("synthetic", "0", seed=0)
    return made, Subject(UNLISTED, made.num_classes, (3, 160, 160), 0, identity)


def test_a_network_without_golden_outputs_is_judged_by_what_this_host_computes(unlisted, tmp_path):
    made, subject = unlisted
    assert golden.host_network(made, subject)[0] == golden.STAND_IN
    reference = golden.Reference(made, subject, Store(tmp_path))
    with torch.inference_mode():
        right = made(golden.images(made))
    found = golden.check_device(right, reference, REGIMES["ieee"], IEEE)
    assert found.as_json()["reference"] == golden.HERE
    assert found.tau == TAU["ieee"]
    assert ABSOLUTE.judge(found.figures()[0])
    wrong = golden.check_device(right * (1 + 1e-4), reference, REGIMES["ieee"], IEEE)
    assert not ABSOLUTE.judge(wrong.figures()[0])


@pytest.mark.parametrize("truncate", [False, True])
def test_a_coarse_arithmetic_of_such_a_network_is_held_to_its_own_emulation(
    unlisted, tmp_path, truncate
):
    """Convolutions after ReLUs, truncated: more than any of the networks that TAU is of."""
    made, subject = unlisted
    reference = golden.Reference(made, subject, Store(tmp_path))
    chain = Chain(made, weights.state_digest(made), Store(tmp_path))
    regime, images = REGIMES["default"], golden.images(made)
    device = chain.emulated(images, regime, HF32_EVERYWHERE, truncate).whole
    found = golden.check_device(device, reference, regime, HF32_EVERYWHERE)
    assert ABSOLUTE.judge(found.figures()[0])
    off = golden.check_device(device * (1 + 3 * found.tau), reference, regime, HF32_EVERYWHERE)
    assert not ABSOLUTE.judge(off.figures()[0])


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_emulation_that_overflows_hides_nothing(value):
    """An infinite error of the emulation would allow any error."""
    same = off(1e-3, seed=9)
    same[3, 5] = value
    got = off(1e-3)
    got[3] *= 1.2
    strict = judge(got, GOLDEN, [same], REGIMES["fp16"], "conv float16", "float16", IDS, 8)
    assert strict.verdict().status is Status.INVALID
    assert strict.invalid == "conv float16, emulated on the CPU, is not finite for row-3"
    assert strict.caught
    allowed = allowed_errors([same], GOLDEN, REGIMES["fp16"])
    assert not bool((relative_errors(GOLDEN, GOLDEN) <= allowed)[3])


@pytest.mark.parametrize("regime", ["default", "ieee"])
def test_rows_beyond_the_reference_are_judged_too(model, tmp_path, regime):
    """The document's gate lets half a per cent pass, and rows 9 to 16 have no float64."""
    gate = make_gate(model, tmp_path)
    images = torch.cat([gate.inputs.images, gate.inputs.images.flip(-1)])
    with torch.inference_mode():
        cpu = model(images)
    for off_by, stopped in ((0.0, False), (3e-7, False), (5e-3, True), (math.nan, True)):
        got = cpu.clone()
        got[12] *= 1 + off_by
        strict = gate.judge(got, REGIMES[regime], IEEE, 16, rest=cpu[8:])
        assert not strict.caught
        assert bool(REST.judge(Figure(REST.name, strict.value(REST.name)))) is not stopped
    short = gate.judge(cpu[:12], REGIMES[regime], IEEE, 16, rest=cpu[8:])
    assert not REST.judge(Figure(REST.name, short.value(REST.name)))


def test_networks_of_equal_weights_have_references_of_their_own(tmp_path):
    """timm has networks that differ in an activation alone: with synthetic weights even their
    digests are equal."""
    import timm

    found = []
    for changes in ({}, {"act_layer": "relu"}):
        made = timm.create_model("test_vit", **changes).eval()
        weights.draw(made, 0)
        chain = Chain(made, weights.state_digest(made), Store(tmp_path))
        found.append((chain.digest, chain.golden(golden.images(made), "erf").whole))
    assert found[0][0] == found[1][0]
    assert bool((found[0][1] != found[1][1]).any())


def test_the_own_network_serves_where_it_is_synthetic(model):
    row = network(NAME)
    assert golden.synthetic(row, model, subject_of(model)) is model
    other = golden.synthetic(row, model, subject_of(model, "pretrained"))
    assert other is not model
    assert weights.state_digest(other) == weights.state_digest(model)


# --- regimes ---------------------------------------------------------------------------------


def test_a_regime_that_the_device_does_not_have_says_so():
    cpu = backend("cpu")

    class Poor(type(cpu)):
        half_dtypes = ("float16",)

    assert REGIMES["bf16"].refusal(Poor()) == "the cpu backend does not list bfloat16"
    assert not any(regime.refusal(cpu) for regime in REGIMES.values())


def test_half_regimes_cast_a_copy(model):
    half = REGIMES["bf16"].network(model)
    assert next(half.parameters()).dtype == torch.bfloat16
    assert next(model.parameters()).dtype == torch.float32
    assert REGIMES["autocast-bf16"].network(model) is model
    images = torch.zeros(1, 3, 8, 8)
    assert REGIMES["bf16"].given(images).dtype == torch.bfloat16
    assert REGIMES["autocast-fp16"].given(images).dtype == torch.float32

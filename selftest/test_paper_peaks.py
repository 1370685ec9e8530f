"""Paper peaks: a row per chip, the host's own description before the table, never a guess."""

import platform

import pytest

from fixtures.core.backends import BACKENDS, backend, cuda, npu
from fixtures.core.records import MathMode

INI = """# [Platform Info configuration begin]
[version]
SoC_version=Ascend910B4
[SoCInfo]
ai_core_cnt=20
cube_core_cnt=20
vector_core_cnt=40
[AICoreSpec]
cube_freq=1500
cube_m_size=16
cube_n_size=16
cube_k_size=16
[AICoreMemoryRates]
ddr_rate=32
"""
"""As Ascend910B4.ini is quoted in public tests."""

NEWER = f"{platform.machine()}-linux/data"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with CANN in /opt/cann; `write(text, folder)` puts a description there."""
    monkeypatch.setenv("ASCEND_HOME_PATH", "/opt/cann")

    def write(text, folder=NEWER):
        path = tmp_path / "opt/cann" / folder / "platform_config/Ascend910B4.ini"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    made = backend("npu")
    made.root = tmp_path
    made.write = write
    return made


def test_the_hosts_own_description_comes_first(host):
    host.write(INI.replace("=1500", "=1650"))
    peaks = host.paper_peaks("Ascend910B4")
    assert peaks.flops["float16"] == 2 * 16**3 * 20 * 1650e6
    assert peaks.bandwidth == 20 * 32 * 1650e6
    assert "CANN's Ascend910B4.ini: 20 cube cores at 1650 MHz" in peaks.source


def test_older_releases_keep_it_elsewhere(host):
    host.write(INI, "compiler/data")
    assert "CANN's" in host.paper_peaks("Ascend910B4").source


def test_description_and_table_agree_on_a_910b4(host):
    host.write(INI)
    told, tabled = host.paper_peaks("Ascend910B4"), npu.tabled_peaks("910B4")
    assert told.flops == pytest.approx(tabled.flops)
    assert told.bandwidth == pytest.approx(tabled.bandwidth)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no ini at all",
        INI.replace("cube_freq=1500", ""),
        INI.replace("=20", "=plenty"),
        INI.replace("cube_core_cnt=20", "cube_core_cnt=0"),
        INI.replace("[AICoreMemoryRates]", "[Other]"),
    ],
)
def test_one_that_does_not_tell_all_leaves_the_table(host, text):
    host.write(text)
    peaks = host.paper_peaks("Ascend910B4")
    assert "table of the suite" in peaks.source
    assert peaks.flops["float16"] == 245.76e12


def test_without_cann_there_is_the_table(monkeypatch):
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    asked = backend("npu")
    assert asked.paper_peaks("Ascend910B4-1").flops["hf32"] == pytest.approx(122.88e12)
    assert asked.paper_peaks("Ascend910B3").flops["float32"] == pytest.approx(73.7e12, rel=1e-3)
    for name in ("Ascend310P3", "Ascend910A", "", "Ascend910_9392"):
        assert asked.paper_peaks(name) is None


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("NVIDIA H200", 989.5e12),
        ("NVIDIA H100 80GB HBM3", 989.5e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_nvidia_cards_by_their_whole_name(name, half):
    peaks = backend("cuda").paper_peaks(name)
    assert (peaks and peaks.flops["bfloat16"]) == half


def test_every_row_is_dense_and_has_a_source():
    for like, peaks in cuda.PEAKS:
        assert peaks.flops["float32"] <= peaks.flops["tf32"] < peaks.flops["float16"], like
        assert peaks.source


@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in ("npu", "cuda")])
def test_others_have_none(name):
    assert backend(name).paper_peaks("anything") is None


def test_the_fastest_of_the_declared_formats_counts():
    peaks = npu.tabled_peaks("910B4")
    assert peaks.fastest(MathMode("hf32", "ieee")) == ("hf32", pytest.approx(122.88e12))
    assert peaks.fastest(MathMode()) == ("float32", pytest.approx(61.44e12))
    assert peaks.fastest(MathMode("bfloat16", "bfloat16"))[1] == pytest.approx(245.76e12)
    assert peaks.fastest(MathMode("tf32", "ieee")) is None

"""The spec sheet of the machine at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costmodel.errors import ProfileError
from costmodel.platforms import load_device, resolve
from profiler import spec
from profiler.environment import cpu_facts, environment, gpu_facts


def facts(*flags: str, vendor: str = "GenuineIntel", family: int = 6) -> dict[str, Any]:
    return {"flags": list(flags), "vendor": vendor, "family": family}


def test_rates_follow_the_vector_extensions() -> None:
    rates = spec.cpu_rates(facts("avx2", "fma"))
    assert (rates.lanes, rates.vector, rates.matrix) == (16, {"fp32": 32}, {})
    cascade_lake = spec.cpu_rates(facts("avx2", "avx512f", "avx512_vnni"))
    assert (cascade_lake.lanes, cascade_lake.vector) == (32, {"fp32": 64, "int8": 256})
    sapphire = spec.cpu_rates(
        facts("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
    )
    assert sapphire.matrix == {"bf16": 1024, "int8": 2048}
    assert sapphire.vector["fp16"] == 128


@pytest.mark.parametrize(("family", "lanes"), [(25, 16), (26, 32)])
def test_zen_4_has_half_the_width_of_zen_5(family: int, lanes: int) -> None:
    assert spec.cpu_rates(facts("avx2", "avx512f", vendor="AuthenticAMD", family=family)).lanes == lanes


def test_cascade_lake_by_formula_equals_the_released_sheet() -> None:
    gold = load_device("gold_6226")
    rates = spec.cpu_rates(facts("avx2", "avx512f", "avx512_vnni"))
    for precision, ops in rates.vector.items():
        assert ops * gold.cores * gold.clock_mhz * 1e6 / 1e12 == pytest.approx(gold.peak_vector[precision], rel=1e-3)


def test_this_machine_becomes_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    device = spec.device_from_system("here", 1)
    assert device.kind == "cpu"
    assert device.cores == 1
    assert 1 < device.bandwidth_gbs < 2000
    assert device.lanes * 2 * device.clock_mhz * 1e-6 == pytest.approx(device.peak_vector["fp32"], rel=1e-3)
    assert resolve("here", "fp32", "onnxruntime").name == "here/fp32/onnxruntime"


def test_no_matrix_product_beats_the_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    monkeypatch.setattr(spec, "measured_gemm_gflops", lambda: 5000.0)
    assert spec.device_from_system("here", 1).peak_vector["fp32"] >= 4.99


def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "gpu_facts", list)
    with pytest.raises(ProfileError, match="no GPU"):
        spec.gpu_sheet("here")


def test_a_gpu_takes_its_released_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    monkeypatch.setattr(spec, "gpu_facts", lambda: [{"name": "NVIDIA A100-SXM4-80GB"}])
    device = spec.device_from_system("my-gpu", 1, gpu=True)
    assert device.name == "my-gpu"
    assert device.bandwidth_gbs == load_device("a100-sxm-80gb").bandwidth_gbs
    monkeypatch.setattr(spec, "gpu_facts", lambda: [{"name": "NVIDIA Unheard Of"}])
    with pytest.raises(ProfileError, match="devices add"):
        spec.gpu_sheet("other")


def test_the_environment_is_plain() -> None:
    import json

    found = environment(1, (0,), "normal")
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["onnxruntime"]
    assert cpu_facts()["processors"] >= 1
    assert isinstance(gpu_facts(), list)

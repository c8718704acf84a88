from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from costmodel import devices
from costmodel.devices import canonical
from costmodel.errors import MissingSpecError, PlatformError, UnknownDeviceError, UnsupportedPrecisionError
from costmodel.platforms import (
    DISPATCH_OVERHEAD_US,
    RUNTIMES,
    Device,
    Platform,
    Precision,
    add_device,
    default_runtime,
    list_devices,
    load_device,
    parse_runtime,
    resolve,
    supported_precisions,
)

ALL = sorted(path.stem for path in Path(devices.__file__).parent.glob("*.toml"))

SHEET = """\
name = "toy"
aliases = ["toy card"]
vendor = "NVIDIA"
kind = "gpu"
architecture = "Toy"
year = 2025
cores = 2
lanes = 100
clock_mhz = 1000
cache_mb = 1.5
memory_gb = 4
bandwidth_gbs = 100
tdp_w = 10
launch_overhead = "desktop-gpu"
source = "toy data sheet"

[peak.vector]
fp32 = 0.2
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def sheet(tmp_path: Path, text: str = SHEET, name: str = "toy.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


# Spec sheets


def test_enough_devices() -> None:
    assert len(ALL) >= 75
    assert list_devices() == ALL


@pytest.mark.parametrize("name", ALL)
def test_sheet_is_consistent(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert device.source
    assert device.year >= 2010
    by_lanes = device.lanes * 2 * device.clock_mhz * 1e-6
    if "fp32" in device.peak_vector and "fp32_peak" not in device.deviations:
        assert device.peak_vector["fp32"] == pytest.approx(by_lanes, rel=0.03)
    assert set(device.deviations) <= {"fp32_peak", "int8_rate"}
    assert Precision.FP32 in supported_precisions(device) or device.kind in ("fpga", "tpu", "asic")


@pytest.mark.parametrize("name", [name for name in ALL if "fp16" in load_device(name).peak_matrix])
def test_narrower_is_not_slower_on_matrix_units(name: str) -> None:
    device = load_device(name)
    matrix = device.peak_matrix
    assert matrix["fp16"] >= device.peak_vector["fp32"]
    ladder = [matrix[key] for key in ("fp16", "tf32", "fp32") if key in matrix]
    assert ladder == sorted(ladder, reverse=True)
    assert matrix.get("fp16_fp16acc", matrix["fp16"]) >= matrix["fp16"]
    if "int8" in matrix and "int8_rate" not in device.deviations:
        assert matrix["int8"] >= matrix["fp16"]
    assert matrix.get("fp8", matrix["fp16"]) >= matrix["fp16"]


def test_labels_are_unique() -> None:
    seen: dict[str, str] = {}
    for name in ALL:
        for label in (name, *load_device(name).aliases):
            assert seen.setdefault(canonical(label), name) == name, label


def test_published_numbers() -> None:
    t4 = load_device("t4")
    assert (t4.cores, t4.lanes, t4.clock_mhz, t4.bandwidth_gbs, t4.cache_mb) == (40, 2560, 1590, 320, 4)
    assert (t4.peak_vector["fp32"], t4.peak_matrix["fp16"], t4.peak_matrix["int8"], t4.tdp_w) == (8.141, 65, 130, 70)
    assert load_device("a100-pcie").peak_matrix["tf32"] == 156
    rtx4090 = load_device("rtx4090").peak_matrix
    assert rtx4090["fp16"] == pytest.approx(165.2, rel=1e-3)
    assert rtx4090["int8"] == pytest.approx(660.6, rel=1e-3)
    assert load_device("rtx5090").peak_matrix["fp4"] == pytest.approx(1676, rel=1e-3)
    assert "int8" not in load_device("p100").peak_tflops


@pytest.mark.parametrize("file", ["latency.parquet", "ops.parquet", "neusight_e2e.csv", "accel_nasbench.parquet"])
def test_every_measured_platform_resolves(file: str) -> None:
    csv = pytest.importorskip("pyarrow.csv")
    parquet = pytest.importorskip("pyarrow.parquet")
    root = Path(os.environ.get("LEDG_COST_DATA", Path(__file__).parents[2] / ".." / "shared" / "datasets"))
    if not (root / file).exists():
        pytest.skip(f"{file} is not here; set LEDG_COST_DATA to the folder of the data sets")
    wanted = ["device"] if file.startswith("accel") else ["device", "precision"]
    columns = wanted + (["runtime"] if file in ("latency.parquet", "ops.parquet") else [])
    path = root / file
    table = csv.read_csv(path) if path.suffix == ".csv" else parquet.read_table(path, columns=columns)
    for row in table.select(columns).group_by(columns).aggregate([]).to_pylist():
        device = load_device(row["device"])
        assert device.name in ALL
        if "precision" in row:
            assert resolve(device, row["precision"], row.get("runtime")).peak_tflops > 0


# Names


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("T4", "t4"),
        ("Tesla T4", "t4"),
        ("Tesla_P4", "p4"),
        ("RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA_A100-PCIE-40GB", "a100-pcie"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("Tesla_P100-PCIE-16GB", "p100"),
        ("Tesla V100-PCIE-32GB", "v100-pcie"),
        ("Tesla V100", "v100"),
        ("GTX 1080 Ti", "1080ti"),
        ("Intel(R) Xeon(R) Silver 4114 CPU @ 2.20GHz", "silver_4114"),
        ("12th Gen Intel(R) Core(TM) i7-12700H", "i7_12700h"),
        ("AMD EPYC 7742 64-Core Processor", "epyc_7742"),
        ("Xeon Platinum 8480+", "platinum_8480plus"),
        ("3090", "rtx3090"),
        ("a100", "a100-sxm"),
        ("RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtxpro6000maxq"),
    ],
)
def test_names_and_aliases(label: str, name: str) -> None:
    assert load_device(label).name == name


def test_loading_by_name_parses_one_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    devices._load_cached.cache_clear()
    parsed: list[str] = []
    read = devices._read_sheet

    def spy(path: Path) -> Device:
        parsed.append(path.name)
        return read(path)

    monkeypatch.setattr(devices, "_read_sheet", spy)
    load_device("RTX-3090")
    load_device("3090")
    assert parsed == ["rtx3090.toml"]


def test_unknown_device_suggests_the_nearest() -> None:
    with pytest.raises(UnknownDeviceError, match=r"unknown device 't5'; did you mean .*t4.*devices list") as caught:
        load_device("t5")
    assert "t4" in caught.value.nearest
    assert "\n" not in str(caught.value)
    with pytest.raises(UnknownDeviceError, match="rtx4090"):
        load_device("rtx4900")
    with pytest.raises(UnknownDeviceError, match="unknown device ''; `ledg-cost"):
        load_device("")


# Files


def test_sheet_from_a_path(tmp_path: Path) -> None:
    platform = resolve(sheet(tmp_path), "fp32")
    assert (platform.device.name, platform.runtime) == ("toy", "tensorrt")
    with pytest.raises(UnknownDeviceError, match=r"no spec sheet at .*gone\.toml"):
        load_device(tmp_path / "gone.toml")


def test_all_faults_of_a_sheet_at_once(tmp_path: Path) -> None:
    text = SHEET.replace("tdp_w = 10\n", "").replace("cores = 2\n", "").replace("memory_gb = 4", "memory_gb = -4")
    text = text.replace("clock_mhz = 1000", 'clock_mhz = "fast"').replace('"gpu"', '"gpus"') + "fp31 = 2\n"
    with pytest.raises(MissingSpecError) as caught:
        load_device(sheet(tmp_path, text))
    message = str(caught.value)
    parts = ("toy.toml", "missing cores, tdp_w", "memory_gb", "-4", "clock_mhz", "kind must be", "peak.vector.fp31")
    for part in parts:
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("fp32 = 0.2", "", "peak.vector or peak.matrix"),
        ("fp32 = 0.2", "fp32 = 0", "peak.vector.fp32"),
        ("fp32 = 0.2", "fp32 = nan", "peak.vector.fp32"),
        ("[peak.vector]\nfp32 = 0.2", "peak = 3", "peak must be a table"),
        ("[peak.vector]\nfp32 = 0.2", "[peak]\nvector = 3", "peak.vector must be a table"),
        ("year = 2025", "year = true", "year must be a positive whole number"),
        ("cores = 2", "cores = 2.5", "cores must be a positive whole number"),
        ("aliases = [", "aliases = [3, ", "aliases must be"),
        ('name = "toy"', 'name = "../Toy"', "name must be lower case"),
        ("cache_mb", "cash_mb", "unknown key cash_mb"),
        ("year = 2025", "year = ", "not valid TOML"),
    ],
)
def test_faulty_sheet(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in SHEET
    with pytest.raises(MissingSpecError, match=fault.replace(".", r"\.")):
        load_device(sheet(tmp_path, SHEET.replace(old, new)))


def test_unreadable_sheet(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(MissingSpecError, match="cannot be read"):
        load_device(tmp_path / "folder.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MissingSpecError, match="cannot be read"):
        load_device(tmp_path / "binary.toml")


def test_add_device(tmp_path: Path, home: Path) -> None:
    path = sheet(tmp_path, name="whatever.toml")
    assert add_device(path).name == "toy"
    assert (home / "devices" / "toy.toml").exists()
    assert "toy" in list_devices()
    assert load_device("Toy Card").lanes == 100
    path.write_text(SHEET.replace("lanes = 100", "lanes = 101"))
    add_device(path)
    assert load_device("toy").lanes == 101


@pytest.mark.parametrize(("old", "new"), [('"toy"', '"t4"'), ('"toy card"', '"Tesla T4"'), ('"toy"', '"rtx2080ti"')])
def test_add_device_does_not_shadow(tmp_path: Path, home: Path, old: str, new: str) -> None:
    with pytest.raises(PlatformError, match="already the device"):
        add_device(sheet(tmp_path, SHEET.replace(old, new)))
    assert not home.exists()


def test_add_device_where_home_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sheet(tmp_path)
    monkeypatch.setenv("LEDG_COST_HOME", str(path))
    with pytest.raises(PlatformError, match="LEDG_COST_HOME"):
        add_device(path)


# Precision and runtime


@pytest.mark.parametrize(
    ("text", "precision"),
    [("FP16", "fp16"), ("half", "fp16"), ("float32", "fp32"), ("TF32", "tf32"), ("bfloat16", "bf16"), ("INT8", "int8")],
)
def test_precision_parse(text: str, precision: str) -> None:
    assert Precision.parse(text) is Precision(precision)
    assert str(Precision(precision)) == precision


def test_unknown_precision() -> None:
    with pytest.raises(UnsupportedPrecisionError, match="unknown precision 'fp31'; use one of fp32, tf32"):
        Precision.parse("fp31")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tensorrt", ("tensorrt", "")),
        ("tensorrt-7.1", ("tensorrt", "7.1")),
        ("TRT-8.6.1", ("tensorrt", "8.6.1")),
        ("pytorch-compile-2.4.0", ("pytorch-compile", "2.4.0")),
        ("pytorch-eager-1.13", ("pytorch-eager", "1.13")),
        ("paddle_trt", ("paddle-trt", "")),
        ("unknown", ("unknown", "")),
        ("tvm-0.17.dev0", ("tvm", "0.17.dev0")),
    ],
)
def test_parse_runtime(text: str, parts: tuple[str, str]) -> None:
    assert parse_runtime(text) == parts


@pytest.mark.parametrize("text", ["tensorflow", "tensorrt-", "", "tensorrt-x", "8.6"])
def test_unknown_runtime(text: str) -> None:
    with pytest.raises(PlatformError, match="unknown runtime"):
        parse_runtime(text)


def test_every_runtime_has_an_overhead() -> None:
    assert set(DISPATCH_OVERHEAD_US) == set(RUNTIMES)
    assert [parse_runtime(name)[0] for name in RUNTIMES] == list(RUNTIMES)
    eager, tensorrt = resolve("t4", "fp32", "pytorch-eager"), resolve("t4", "fp32")
    assert eager.launch_overhead_us > tensorrt.launch_overhead_us > 0


def test_on_a_cpu_an_inference_runtime_only_calls_its_kernels() -> None:
    device = load_device("epyc_turin_1core")
    for runtime in ("onnxruntime", "openvino"):
        assert resolve(device, "fp32", runtime).launch_overhead_us == device.launch_overhead_us
    assert resolve(device, "fp32", "pytorch-eager").launch_overhead_us > 10 * device.launch_overhead_us
    gpu = resolve("t4", "fp32", "onnxruntime")
    assert gpu.launch_overhead_us > gpu.device.launch_overhead_us


@pytest.mark.parametrize(
    ("device", "runtime"),
    [
        ("t4", "tensorrt"),
        ("gold_6226", "onnxruntime"),
        ("pixel3", "tflite"),
        ("fpga", "unknown"),
        ("mi210", "onnxruntime"),
        ("tpuv3", "unknown"),
    ],
)
def test_default_runtime(device: str, runtime: str) -> None:
    assert default_runtime(load_device(device)) == runtime


def test_tensorrt_needs_an_nvidia_gpu() -> None:
    with pytest.raises(PlatformError, match="tensorrt does not run on silver_4114; use --runtime onnxruntime"):
        resolve("silver_4114", "fp32", "tensorrt-8")


# Rates


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("t4", "bf16"),
        ("v100", "bf16"),
        ("a100-sxm", "fp8"),
        ("p100", "int8"),
        ("titanx_maxwell", "int8"),
        ("jetson-tx2", "int8"),
        ("i7_8700", "fp16"),
        ("v100", "tf32"),
        ("zcu102", "fp32"),
    ],
)
def test_unsupported_precision(device: str, precision: str) -> None:
    with pytest.raises(UnsupportedPrecisionError, match=f"{device} has no throughput at {precision}; use one of "):
        resolve(device, precision)
    assert not Platform(load_device(device), Precision.INT8, "unknown").supports(precision)


@pytest.mark.parametrize(
    ("device", "precision", "runtime", "matrix", "conv", "vector", "peak"),
    [
        ("t4", "int8", "tensorrt", 130, 130, 8.141, 130),
        ("t4", "fp32", "tensorrt", 8.141, 8.141, 8.141, 8.141),
        ("a100-sxm", "fp32", "tensorrt-8.6", 156, 156, 19.49, 156),
        ("a100-sxm", "fp32", "tensorrt-7.0", 19.49, 19.49, 19.49, 156),
        ("a100-sxm", "fp32", "onnxruntime", 156, 156, 19.49, 156),
        ("a100-sxm", "fp32", "pytorch-eager-2.1", 19.49, 156, 19.49, 156),
        ("a100-sxm", "fp32", "tvm", 19.49, 19.49, 19.49, 156),
        ("a100-sxm", "tf32", "pytorch-eager", 156, 156, 19.49, 156),
        ("a100-sxm", "fp16", "tensorrt", 312, 312, 78, 312),
        ("rtx4090", "fp16", "tensorrt", 165.2, 165.2, 82.58, 330.3),
        ("1080ti", "fp16", "tensorrt", 11.34, 11.34, 11.34, 11.34),
        ("p4", "int8", "tensorrt", 22, 22, 5.5, 22),
        ("gtx1660", "fp16", "tensorrt", 10.05, 10.05, 10.05, 10.05),
        ("v100", "int8", "tensorrt", 62.67, 62.67, 15.67, 125),
        ("platinum_8480plus", "bf16", "onnxruntime", 217.9, 217.9, 27.24, 217.9),
        ("zcu102", "int8", None, 3.527, 3.527, 3.527, 3.527),
        ("mi210", "fp32", None, 45.3, 45.3, 22.6, 45.3),
    ],
)
def test_rates(
    device: str, precision: str, runtime: str | None, matrix: float, conv: float, vector: float, peak: float
) -> None:
    platform = resolve(device, precision, runtime)
    rates = (platform.matrix_tflops, platform.conv_tflops, platform.vector_tflops, platform.peak_tflops)
    assert rates == pytest.approx((matrix, conv, vector, peak), rel=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_no_rate_exceeds_the_peak(name: str) -> None:
    device = load_device(name)
    for precision in supported_precisions(device):
        for runtime in RUNTIMES:
            platform = Platform(device, precision, runtime)
            assert 0 < platform.vector_tflops <= platform.peak_tflops
            assert 0 < platform.matrix_tflops <= platform.conv_tflops <= platform.peak_tflops


def test_platform_is_a_key() -> None:
    platform = resolve("t4", "half", "tensorrt-8.6")
    assert platform.name == "t4/fp16/tensorrt-8.6"
    assert (platform.element_bytes, platform.elem_width) == (2, 16)
    assert platform == resolve("Tesla T4", "fp16", "trt-8.6")
    assert len({platform, resolve("t4", "fp16")}) == 2
    assert dataclasses.asdict(platform)["device"]["peak_matrix"]["fp16"] == 65
    assert platform.has_matrix_units
    assert not resolve("t4", "fp32").has_matrix_units

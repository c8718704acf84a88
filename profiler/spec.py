"""A spec sheet of the machine at hand, so that estimates for it start from its own physics.

CPU peaks are cores x clock x operations per cycle: lanes = (vector bits / 32) x FMA units, fp32 = 2 x lanes,
bf16 = 2 x fp32 with avx512_bf16, fp16 = 2 x fp32 with avx512_fp16, int8 = 4 x fp32 with VNNI; AMX does 2,048 int8 or
1,024 bf16 operations per core and cycle (Intel's and AMD's optimisation manuals). The clock is the highest of what
the system reports and what a matrix product shows at those operations per cycle, as virtual machines report the base
clock. Bandwidth is a measured copy, counted as STREAM does: bytes read plus bytes written.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.errors import ProfileError, UnknownDeviceError
from costmodel.platforms import Device, add_device, load_device
from profiler.environment import cpu_facts, gpu_facts, memory_bytes

_GEMM = 256
_COPY_BYTES = 64 << 20
_ZEN = {23: ("Zen 2", 2019), 25: ("Zen 4", 2022), 26: ("Zen 5", 2024)}
_WATTS_PER_CORE = 5.0
_DEFAULT_CACHE_MB = 1.0


@dataclass(frozen=True)
class CpuRates:
    """Operations per cycle and core, two for a multiply-add; `lanes` are fp32 multiply-adds."""

    lanes: int
    vector: dict[str, int]
    matrix: dict[str, int]


def cpu_rates(facts: dict[str, Any]) -> CpuRates:
    """What a core does per cycle, from its vector extensions (`environment.cpu_facts`).

    Two FMA units; Zen 4 runs 512-bit operations on 256-bit units, so its AVX-512 counts as AVX2.
    """
    flags = set(facts["flags"])
    wide = "avx512f" in flags and not (facts["vendor"] == "AuthenticAMD" and facts["family"] < 26)
    bits = 512 if wide else 256 if "avx2" in flags else 128
    lanes = bits // 32 * 2
    fp32 = 2 * lanes
    vector = {"fp32": fp32}
    if "avx512_bf16" in flags or "bf16" in flags:
        vector["bf16"] = 2 * fp32
    if "avx512_fp16" in flags:
        vector["fp16"] = 2 * fp32
    if flags & {"avx512_vnni", "avx_vnni", "asimddp"}:
        vector["int8"] = 4 * fp32
    matrix = {}
    if "amx_bf16" in flags:
        matrix["bf16"] = 1024
    if "amx_int8" in flags:
        matrix["int8"] = 2048
    return CpuRates(lanes, vector, matrix)


def measured_gemm_gflops(seconds: float = 0.5) -> float:
    """The best rate of a one-thread fp32 matrix product in ONNX Runtime (10^9 operations per second)."""
    import onnxruntime
    from onnx import TensorProto, helper

    factor = np.random.default_rng(0).standard_normal((_GEMM, _GEMM), dtype=np.float32)
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [_GEMM, _GEMM]) for name in ("a", "c"))
    weight = helper.make_tensor("b", TensorProto.FLOAT, [_GEMM, _GEMM], factor.tobytes(), raw=True)
    product = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([product], "product", [given], [made], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    best = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {"a": factor})
        best = max(best, 2 * _GEMM**3 / (time.perf_counter() - start) / 1e9)
    return best


def measured_bandwidth_gbs(threads: int, seconds: float = 0.5) -> float:
    """The best rate of a copy of 64 MiB per thread, in 10^9 bytes read plus written per second."""
    arrays = [np.ones(_COPY_BYTES // 4, np.float32) for _ in range(2 * threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            list(pool.map(np.copyto, arrays[:threads], arrays[threads:]))
            best = max(best, 2 * _COPY_BYTES * threads / (time.perf_counter() - start) / 1e9)
    return best


def cpu_sheet(name: str, threads: int) -> str:
    """TOML of this machine's CPU as `threads` of its cores: what measurements on so many threads are to be held to."""
    facts = cpu_facts()
    rates = cpu_rates(facts)
    gemm = measured_gemm_gflops()
    shown_mhz = gemm * 1e3 / (2 * rates.lanes)
    clock = max(facts["clock_mhz"], shown_mhz)
    architecture, year = _architecture(facts)
    tera = threads * clock * 1e6 / 1e12
    source = (
        f"read from the system on {date.today().isoformat()}: {facts['model']}, {threads} of {facts['cores']} cores;"
        f" reported clock {facts['clock_mhz']:.0f} MHz, a matrix product shows {shown_mhz:.0f} MHz at {2 * rates.lanes}"
        " operations per cycle; bandwidth is a measured copy"
    )
    values: dict[str, Any] = {
        "name": name,
        "vendor": {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}.get(facts["vendor"], facts["vendor"] or "unknown"),
        "kind": "cpu",
        "architecture": architecture,
        "year": year,
        "cores": threads,
        "lanes": threads * rates.lanes,
        "clock_mhz": round(clock),
        "cache_mb": round(facts["cache_mb"], 3) or _DEFAULT_CACHE_MB,
        "memory_gb": round(memory_bytes() / 2**30, 1) or 1.0,
        "bandwidth_gbs": _figures(measured_bandwidth_gbs(threads)),
        "tdp_w": _WATTS_PER_CORE * threads,
        "launch_overhead": "cpu",
        "source": source,
        "notes": "Peaks: cores x clock x operations per cycle."
        f" No power limit can be read: {_WATTS_PER_CORE:g} W each.",
    }
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    for table, peaks in (("vector", rates.vector), ("matrix", rates.matrix)):
        if peaks:
            lines += ["", f"[peak.{table}]"]
            lines += [f"{key} = {_figures(ops * tera)}" for key, ops in peaks.items()]
    return "\n".join(lines) + "\n"


def gpu_sheet(name: str) -> str:
    """TOML of the first GPU: its released spec sheet under another name.

    Raises ProfileError if there is no GPU or no sheet for it.
    """
    gpus = gpu_facts()
    if not gpus:
        raise ProfileError("no GPU can be seen; install nvidia-ml-py and a driver, or add a sheet with `devices add`")
    try:
        device = load_device(gpus[0]["name"])
    except UnknownDeviceError:
        raise ProfileError(
            f"no spec sheet for {gpus[0]['name']!r}; write one and add it with `ledg-cost devices add`"
        ) from None
    text = (Path(_released_folder()) / f"{device.name}.toml").read_text(encoding="utf-8")
    text = re.sub(r"^name\s*=.*$", f"name = {json.dumps(name)}", text, count=1, flags=re.MULTILINE)
    return re.sub(r"^aliases\s*=\s*\[.*?\]", "aliases = []", text, count=1, flags=re.MULTILINE | re.DOTALL)


def _released_folder() -> Path:
    import costmodel.devices

    return Path(costmodel.devices.__file__).parent


def device_from_system(name: str, threads: int, gpu: bool = False) -> Device:
    """Writes this machine's spec sheet to the user's devices as `name` and returns it.

    Raises ProfileError if the machine cannot be described, PlatformError if the name is taken or cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.toml"
        path.write_text(gpu_sheet(name) if gpu else cpu_sheet(name, threads), encoding="utf-8")
        return add_device(path)


def _architecture(facts: dict[str, Any]) -> tuple[str, int]:
    if facts["vendor"] == "AuthenticAMD" and facts["family"] in _ZEN:
        return _ZEN[facts["family"]]
    generation = f"family {facts['family']} model {facts['model_number']}" if facts["family"] else facts["machine"]
    return generation, date.today().year


def _figures(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")

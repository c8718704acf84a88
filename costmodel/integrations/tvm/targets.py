"""TVM targets as platforms. Reads mappings such as `Target.export()` or strings; TVM is not imported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.errors import PlatformError
from costmodel.platforms import Device, Platform, Precision, load_device

PLATFORM_NUMBERS = 8

_GENERIC_CLOCK_MHZ, _GENERIC_BANDWIDTH_GBS, _GENERIC_CACHE_MB = 3000, 25.0, 32
_FMA_UNITS = 2
# First match of a CPU name or feature: vendor, architecture words, bits of a vector register.
_CPUS = (
    (r"znver[45]", "AMD", "Zen", 512),
    (r"znver", "AMD", "Zen", 256),
    (r"avx512|icelake-server|cascadelake|cooperlake|cannonlake|sapphire|emerald|granite|rocketlake|tigerlake|knl",
     "Intel", "AVX-512", 512),
    (r"haswell|broadwell|skylake|alderlake|raptorlake|meteorlake|core-avx2|x86-64-v3|avx2", "Intel", "AVX2", 256),
    (r"x86-64-v4", "Intel", "AVX-512", 512),
    (r"neoverse-v1|a64fx", "Arm", "Neoverse", 256),
    (r"apple|cyclone", "Apple", "M", 128),
    (r"cortex|neoverse|aarch64|arm", "Arm", "Cortex", 128),
)  # fmt: skip
_GPUS = {
    "sm_60": "p100", "sm_61": "1080ti", "sm_70": "v100", "sm_75": "t4", "sm_80": "a100-pcie", "sm_86": "rtx3090",
    "sm_87": "agx-orin", "sm_89": "rtx4090", "sm_90": "h100-sxm", "sm_100": "b200", "sm_120": "rtx5090",
}  # fmt: skip


def options(target: Any) -> dict[str, Any]:
    """A target's options as a plain mapping: `{"kind": "llvm", "mcpu": …}`.

    Takes a mapping, JSON, `llvm -mcpu=znver4 -num-cores=8`, or a live `tvm.target.Target`. Raises PlatformError.
    """
    if isinstance(target, Mapping):
        return {str(k): v for k, v in target.items()}
    text = str(target).strip()
    if text.startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise PlatformError(f"cannot read target {text!r}; write it as llvm -mcpu=NAME -num-cores=N") from error
    words = text.split()
    found: dict[str, Any] = {"kind": words[0] if words else ""}
    for word in words[1:]:
        match = re.fullmatch(r"--?([\w-]+)=(\S+)", word)
        if not match:
            raise PlatformError(f"cannot read {word!r} in target {text!r}; write options as -mcpu=NAME")
        values = match[2].split(",") if match[1] in ("mattr", "keys") else match[2]
        found[match[1]] = int(values) if isinstance(values, str) and values.isdigit() else values
    if not re.fullmatch(r"[\w-]+", str(found["kind"])):
        raise PlatformError(f"target {text!r} has no kind; start it with llvm or cuda")
    return found


def platform_of(target: Any) -> Platform:
    """The platform that a target means: a spec sheet for CUDA architectures, a generic one from the CPU's name for
    LLVM. Raises PlatformError."""
    given = options(target)
    kind = str(given.get("kind", ""))
    if kind == "llvm":
        return Platform(_cpu(given), Precision.FP32, "tvm")
    if kind == "cuda" and (name := _GPUS.get(str(given.get("arch", "sm_80")))):
        return Platform(load_device(name), Precision.FP32, "tvm")
    raise PlatformError(f"no platform for target kind {kind!r} {given.get('arch', '')}; use llvm or cuda with an arch")


def cores_of(target: Any) -> int:
    """Processors that a parallel loop can use: `num-cores` of a CPU, multiprocessors of a GPU."""
    return platform_of(target).device.cores


def _cpu(given: Mapping[str, Any]) -> Device:
    features = given.get("mattr", ())
    name = f"{given.get('mcpu', '')} {' '.join(map(str, features))} {given.get('mtriple', '')}".lower()
    vendor, architecture, bits = next((row[1:] for row in _CPUS if re.search(row[0], name)), ("", "generic", 128))
    cores = max(int(given.get("num-cores", 1) or 1), 1)
    lanes = cores * bits // 32 * _FMA_UNITS
    return Device(
        name=str(given.get("mcpu") or "llvm"), vendor=vendor, kind="cpu", architecture=architecture, year=2020,
        peak_vector={"fp32": lanes * 2 * _GENERIC_CLOCK_MHZ / 1e6}, peak_matrix={},
        bandwidth_gbs=_GENERIC_BANDWIDTH_GBS * min(cores, 8), memory_gb=16, cache_mb=_GENERIC_CACHE_MB, cores=cores,
        lanes=lanes, clock_mhz=_GENERIC_CLOCK_MHZ, tdp_w=15.0 * cores, launch_overhead="cpu",
        source="TVM target options; clock, bandwidth and cache are assumed",
    )  # fmt: skip


def platform_numbers(platform: Platform) -> NDArray[np.float32]:
    """(PLATFORM_NUMBERS,) logs of a platform relative to one core of a 512-bit CPU, on which all are zero."""
    device = platform.device
    lanes = device.lanes / device.cores
    numbers = (
        device.cores, lanes / 32, device.clock_mhz / _GENERIC_CLOCK_MHZ, device.bandwidth_gbs / _GENERIC_BANDWIDTH_GBS,
        device.cache_mb / _GENERIC_CACHE_MB, platform.matrix_tflops / platform.vector_tflops,
    )  # fmt: skip
    logs = [np.log2(max(float(value), 1e-3)) / 4 for value in numbers]
    return np.array([*logs, device.kind != "cpu", device.kind == "mobile"], np.float32)

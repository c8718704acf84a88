"""What there is to know about the machine a measurement was made on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-ep-openvino", "openvino", "torch",
    "tensorrt", "apache-tvm", "numpy", "onnx",
)  # fmt: skip
_FLAGS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimd",
    "asimddp", "i8mm", "bf16", "sve", "hypervisor",
)  # fmt: skip
_CPU = Path("/sys/devices/system/cpu")


def environment(threads: int, cpus: tuple[int, ...], priority: str) -> dict[str, Any]:
    """Facts that JSON can hold: processor, memory, GPUs, system, versions, and how the measuring was set up."""
    facts: dict[str, Any] = {
        "cpu": cpu_facts(),
        "memory_gb": round(memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": package_versions(),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "cpus": list(cpus),
        "priority": priority,
        "threads": threads,
    }
    gpus = gpu_facts()
    return {**facts, "gpus": gpus} if gpus else facts


def package_versions() -> dict[str, str]:
    """Versions of the runtimes that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_facts() -> dict[str, Any]:
    """Model, family, cores, last-level cache (MiB), clocks (MHz), governor and the vector extensions that matter."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "model": info.get("model name") or platform.processor() or platform.machine(),
        "vendor": info.get("vendor_id", ""),
        "family": int(info.get("cpu family", 0) or 0),
        "model_number": int(info["model"]) if info.get("model", "").isdigit() else 0,
        "machine": platform.machine(),
        "cores": physical_cores(),
        "processors": os.cpu_count() or 1,
        "cache_mb": last_level_cache_bytes() / 2**20,
        "clock_mhz": clock_mhz(info),
        "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor"),
        "flags": [flag for flag in _FLAGS if flag in flags],
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty elsewhere."""
    text = _text(Path("/proc/cpuinfo")).split("\n\n")[0]
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def physical_cores() -> int:
    """Cores, not hardware threads, that the system knows."""
    cores = {_text(path) for path in _CPU.glob("cpu[0-9]*/topology/thread_siblings_list")} - {""}
    return len(cores) or os.cpu_count() or 1


def last_level_cache_bytes() -> int:
    """Size of the largest cache, summed over its instances; 0 if the system does not say."""
    found: dict[tuple[int, str], int] = {}
    for folder in _CPU.glob("cpu[0-9]*/cache/index*"):
        size = re.fullmatch(r"(\d+)([KM])", _text(folder / "size"))
        level = _text(folder / "level")
        if size and level.isdigit() and _text(folder / "type") != "Instruction":
            unit = {"K": 1 << 10, "M": 1 << 20}[size[2]]
            found[int(level), _text(folder / "shared_cpu_list")] = int(size[1]) * unit
    highest = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == highest)


def clock_mhz(info: dict[str, str]) -> float:
    """The highest clock that the system reports; virtual machines often report the base clock. 0 if unknown."""
    highest = _text(_CPU / "cpu0/cpufreq/cpuinfo_max_freq")
    reported = float(highest) / 1e3 if highest.isdigit() else 0.0
    return max(reported, float(info.get("cpu MHz", 0) or 0))


def memory_bytes() -> int:
    """Physical memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def gpu_facts() -> list[dict[str, Any]]:
    """Name, driver, memory, clocks and power limit of each GPU that NVML (package nvidia-ml-py) sees."""
    try:
        import pynvml
    except ImportError:
        return []
    found = []
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            clock = pynvml.nvmlDeviceGetMaxClockInfo(gpu, pynvml.NVML_CLOCK_SM)
            found.append(
                {
                    "name": _str(pynvml.nvmlDeviceGetName(gpu)),
                    "driver": _str(pynvml.nvmlSystemGetDriverVersion()),
                    "memory_gb": round(pynvml.nvmlDeviceGetMemoryInfo(gpu).total / 2**30, 1),
                    "max_clock_mhz": clock,
                    "power_limit_w": pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3,
                }
            )
    except pynvml.NVMLError:
        return found
    return found


def _str(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""

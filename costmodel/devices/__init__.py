"""Device spec sheets: one TOML file each in this folder, plus those of the user.

A sheet states what the vendor publishes: peaks without sparsity, memory, clock, power, and where the numbers are from.
`[peak.vector]` is what the plain arithmetic lanes reach (CUDA cores, SIMD units); `[peak.matrix]` is what matrix units
or packed integer dot products reach (tensor cores, dp4a, AMX). A key ending in `_fp16acc` is the rate with half
precision accumulation where the plain key, with single precision accumulation, is slower (GeForce). `fp32` of
`[peak.vector]` equals lanes x 2 x clock unless `[deviation]` says why not.

Users keep their own sheets in `$LEDG_COST_HOME/devices` (default `~/.ledg-cost/devices`).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from costmodel.errors import MissingSpecError, PlatformError, UnknownDeviceError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = ("gpu", "cpu", "mobile", "fpga", "asic", "tpu")

VECTOR_PEAKS = frozenset({"fp64", "fp32", "fp16", "bf16", "int8"})
MATRIX_PEAKS = frozenset(
    {"fp64", "fp32", "tf32", "fp16", "fp16_fp16acc", "bf16", "fp8", "fp8_fp16acc", "int8", "int4", "fp4"}
)

LAUNCH_OVERHEAD_US: Mapping[str, float] = MappingProxyType(
    {
        "server-gpu": 5.0,
        "desktop-gpu": 5.0,
        "embedded-gpu": 8.0,
        "cpu": 1.0,
        "mobile": 4.0,
        "accelerator": 10.0,
    }
)
"""Microseconds between two dependent kernels of next to no work, per class: queued launches on GPUs, waking and joining
a thread pool on CPUs, a command to an accelerator. For GPUs about what MLPerf's ResNet-50 int8 leaves per kernel at
batch 1 (13 cards, median 6.6 with the runtime's share); orders of magnitude to start a model from elsewhere."""

_TEXT_KEYS = ("name", "vendor", "kind", "architecture", "launch_overhead", "source")
_WHOLE_KEYS = ("year", "cores", "lanes")
_NUMBER_KEYS = ("clock_mhz", "cache_mb", "memory_gb", "bandwidth_gbs", "tdp_w")
_OPTIONAL_KEYS = ("aliases", "notes", "peak", "deviation")

_SHEETS = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9][a-z0-9_+.-]*")
_ALIASES = re.compile(r"^aliases\s*=\s*\[(.*?)\]", re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")


@dataclass(frozen=True)
class Device:
    """One spec sheet. Peaks are tera-operations per second, dense; a multiply-add counts as two operations.

    `cores` are SMs, compute units or CPU cores; `lanes` are fp32 multiply-adds per cycle over the whole device;
    `clock_mhz` is the boost clock; `cache_mb` the last-level cache; `deviations` gives, per consistency check, the
    reason why the sheet departs from it.
    """

    name: str
    vendor: str
    kind: str
    architecture: str
    year: int
    peak_vector: Mapping[str, float]
    peak_matrix: Mapping[str, float]
    bandwidth_gbs: float
    memory_gb: float
    cache_mb: float
    cores: int
    lanes: int
    clock_mhz: float
    tdp_w: float
    launch_overhead: str
    source: str
    aliases: tuple[str, ...] = ()
    notes: str = ""
    deviations: Mapping[str, str] = field(default_factory=dict)

    @property
    def launch_overhead_us(self) -> float:
        """Microseconds between dependent empty kernels, from the class (`LAUNCH_OVERHEAD_US`)."""
        return LAUNCH_OVERHEAD_US[self.launch_overhead]

    @property
    def peak_tflops(self) -> Mapping[str, float]:
        """Per precision, the faster of matrix and vector units (Tera-operations/s)."""
        keys = list(dict.fromkeys([*self.peak_vector, *self.peak_matrix]))
        return {key: max(self.peak_vector.get(key, 0.0), self.peak_matrix.get(key, 0.0)) for key in keys}

    def __hash__(self) -> int:
        return hash((self.name, self.bandwidth_gbs, self.lanes, self.clock_mhz))


def user_directory() -> Path:
    """Where the user's own spec sheets live."""
    home = os.environ.get("LEDG_COST_HOME")
    return (Path(home) if home else Path.home() / ".ledg-cost") / "devices"


def list_devices() -> list[str]:
    """Names of all devices, built in and the user's, sorted. Reads no sheet."""
    return sorted({path.stem for path in _sheet_paths()})


def load_device(target: str | os.PathLike[str]) -> Device:
    """The device of a name, an alias or a path to a spec sheet.

    Names ignore case, spaces, hyphens, underscores and vendor words: "NVIDIA GeForce RTX 4090" is `rtx4090`. Only the
    sheet asked for is parsed. A target that ends in `.toml` or contains a path separator is read as a file.

    Raises:
        UnknownDeviceError: no such device or file.
        MissingSpecError: the sheet lacks keys or holds impossible values; all of them are listed.
    """
    text = os.fspath(target)
    if text.lower().endswith(".toml") or "/" in text or os.sep in text:
        return _read_sheet(Path(text).expanduser())
    path = _find_sheet(text)
    if path is None:
        raise _unknown(text)
    return _load_cached(path, path.stat().st_mtime_ns)


def add_device(path: str | os.PathLike[str]) -> Device:
    """Check a spec sheet and copy it to the user's devices, replacing an earlier one of the same name.

    Raises:
        PlatformError: a built-in device, or another device of the user, already has the name or one of the aliases.
        UnknownDeviceError, MissingSpecError: as `load_device`.
    """
    device = load_device(Path(path).expanduser().absolute())
    own = user_directory() / f"{device.name}.toml"
    for label in (device.name, *device.aliases):
        found = _find_sheet(label)
        if found is not None and found != own:
            raise PlatformError(
                f"{str(path)!r} calls itself {label!r}, which is already the device {found.stem}; "
                "change the name or alias in the file"
            )
    source = Path(path).expanduser()
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        if source.absolute() != own.absolute():
            shutil.copyfile(source, own)
    except OSError as error:
        raise PlatformError(
            f"cannot write {str(own)!r} ({error.strerror}); set LEDG_COST_HOME to a folder you may write to"
        ) from None
    return device


def canonical(name: str) -> str:
    """A device name reduced to what identifies it: lower case, no vendor words, no separators.

    >>> canonical("NVIDIA A100-PCIE-40GB"), canonical("Intel(R) Xeon(R) Silver 4114 CPU @ 2.20GHz")
    ('a100pcie40gb', 'silver4114')
    """
    text = re.sub(r"\((r|tm|c)\)|[®™©]", " ", name.lower())
    text = re.sub(r"(\bcpu)?\s*@.*$|\b\d+th gen\b|\b\d+-core\b|\bprocessor\b", " ", text)
    words = re.split(r"[^a-z0-9+]+", text.replace("+", "plus "))
    kept = [word for word in words if word not in _VENDOR_WORDS]
    return "".join(kept or words)


_VENDOR_WORDS = frozenset({"nvidia", "tesla", "geforce", "intel", "amd", "xeon", "core", "radeon", "instinct"})


def _sheet_paths() -> Iterator[Path]:
    """All spec sheets, the built-in ones first."""
    for folder in (_SHEETS, user_directory()):
        if folder.is_dir():
            yield from sorted(folder.glob("*.toml"))


def _find_sheet(name: str) -> Path | None:
    """The sheet whose file name, or else one of whose aliases, is `name`; aliases are found without parsing."""
    wanted = canonical(name)
    paths = list(_sheet_paths())
    for path in paths:
        if canonical(path.stem) == wanted:
            return path
    for path in paths:
        if wanted in map(canonical, _aliases_in(path)):
            return path
    return None


def _aliases_in(path: Path) -> list[str]:
    match = _ALIASES.search(path.read_text(encoding="utf-8", errors="replace"))
    return [double or single for double, single in _QUOTED.findall(match.group(1))] if match else []


def _unknown(name: str) -> UnknownDeviceError:
    import difflib

    labels: dict[str, str] = {}
    for path in _sheet_paths():
        for label in (path.stem, *_aliases_in(path)):
            labels.setdefault(canonical(label), path.stem)
    close = difflib.get_close_matches(canonical(name), list(labels), n=6, cutoff=0.5)
    nearest = tuple(dict.fromkeys(labels[label] for label in close))[:3]
    hint = f"did you mean {', '.join(nearest)}? " if nearest else ""
    return UnknownDeviceError(f"unknown device {name!r}; {hint}`ledg-cost devices list` shows all", nearest)


@lru_cache(maxsize=256)
def _load_cached(path: Path, mtime_ns: int) -> Device:
    del mtime_ns  # part of the cache key: an edited sheet is read again
    return _read_sheet(path)


def _read_sheet(path: Path) -> Device:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnknownDeviceError(f"no spec sheet at {str(path)!r}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MissingSpecError(f"{path.name}: cannot be read ({error}); give a readable TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise MissingSpecError(f"{path.name}: not valid TOML ({error}); correct the file") from None
    return _device_from(data, path.name)


def _device_from(data: Mapping[str, Any], filename: str) -> Device:
    """Check a parsed sheet and build the device; every fault goes into one message."""
    required = (*_TEXT_KEYS, *_WHOLE_KEYS, *_NUMBER_KEYS)
    missing = [key for key in required if key not in data]
    peak = data.get("peak", {})
    tables = {}
    faults = [f"unknown key {key}" for key in data if key not in (*required, *_OPTIONAL_KEYS)]
    for table, allowed in (("vector", VECTOR_PEAKS), ("matrix", MATRIX_PEAKS)):
        tables[table] = _peak_table(peak, table, allowed, faults)
    if not isinstance(peak, Mapping):
        faults.append("peak must be a table")
    elif not any(peak.get(table) for table in tables):
        missing.append("peak.vector or peak.matrix")
    else:
        faults += [f"unknown key peak.{key}" for key in peak if key not in tables]
    faults += _value_faults(data)
    if missing or faults:
        parts = ["missing " + ", ".join(missing)] if missing else []
        raise MissingSpecError(f"{filename}: {'; '.join(parts + faults)}; correct the spec sheet")
    plain: dict[str, Any] = {key: data[key] for key in (*_TEXT_KEYS, *_WHOLE_KEYS)}
    plain.update((key, float(data[key])) for key in _NUMBER_KEYS)
    return Device(
        **plain,
        peak_vector=tables["vector"],
        peak_matrix=tables["matrix"],
        aliases=tuple(data.get("aliases", ())),
        notes=data.get("notes", ""),
        deviations=dict(data.get("deviation", {})),
    )


def _peak_table(peak: object, table: str, allowed: frozenset[str], faults: list[str]) -> dict[str, float]:
    values = peak.get(table, {}) if isinstance(peak, Mapping) else {}
    if not isinstance(values, Mapping):
        faults.append(f"peak.{table} must be a table")
        return {}
    for key, value in values.items():
        if key not in allowed:
            faults.append(f"unknown key peak.{table}.{key} (known: {', '.join(sorted(allowed))})")
        elif not _is_positive(value):
            faults.append(f"peak.{table}.{key} must be a positive number, not {value!r}")
    return {key: float(value) for key, value in values.items() if _is_positive(value)}


def _value_faults(data: Mapping[str, Any]) -> list[str]:
    faults = []
    for key in _TEXT_KEYS:
        if key in data and not (isinstance(data[key], str) and data[key].strip()):
            faults.append(f"{key} must be text, not {data[key]!r}")
    for key in (*_WHOLE_KEYS, *_NUMBER_KEYS):
        whole = key in _WHOLE_KEYS
        if key in data and not (_is_positive(data[key]) and (not whole or isinstance(data[key], int))):
            faults.append(f"{key} must be a positive {'whole number' if whole else 'number'}, not {data[key]!r}")
    for key, allowed in (("kind", KINDS), ("launch_overhead", tuple(LAUNCH_OVERHEAD_US))):
        if isinstance(data.get(key), str) and data[key] not in allowed:
            faults.append(f"{key} must be one of {', '.join(allowed)}, not {data[key]!r}")
    if isinstance(data.get("name"), str) and not _NAME.fullmatch(data["name"]):
        faults.append(f"name must be lower case without spaces, not {data['name']!r}")
    aliases = data.get("aliases", [])
    if not (isinstance(aliases, list) and all(isinstance(alias, str) for alias in aliases)):
        faults.append("aliases must be a list of texts")
    if not isinstance(data.get("notes", ""), str):
        faults.append("notes must be text")
    deviation = data.get("deviation", {})
    if not (isinstance(deviation, Mapping) and all(isinstance(reason, str) for reason in deviation.values())):
        faults.append("deviation must be a table of texts")
    return faults


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")

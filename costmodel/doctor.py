"""Whether this installation can do its work: one check per part."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform as host
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from costmodel import __version__
from costmodel.errors import BundleError, DataError, LedgCostError, PlatformError

DISTRIBUTION = "ledg-cost"
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;\s*(.*))?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


@dataclass(frozen=True)
class Check:
    """The outcome of one check; `detail` is what was found, or what is wrong and how to mend it."""

    name: str
    ok: bool
    detail: str


class _Unhealthy(LedgCostError):
    """A check found something that `Check` shall report."""


def examine() -> list[Check]:
    """All checks, in the order in which each needs those before it. Raises nothing."""
    found = []
    for name, check in CHECKS.items():
        try:
            found.append(Check(name, True, check()))
        except LedgCostError as error:
            found.append(Check(name, False, " ".join(str(error).split())))
        except Exception as error:  # a broken installation may fail in any way
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            found.append(Check(name, False, f"{reason}; reinstall with `pip install --force-reinstall {DISTRIBUTION}`"))
    return found


def _versions() -> str:
    return f"{DISTRIBUTION} {__version__}, Python {host.python_version()} on {host.system()} {host.machine()}"


def _requirements() -> dict[str, list[tuple[str, str]]]:
    """Extra ("" for what is always needed) → packages with their version conditions, as the installation declares."""
    try:
        declared = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise _Unhealthy(f"{DISTRIBUTION} is not installed; run `pip install .` in its folder") from None
    found: dict[str, list[tuple[str, str]]] = {"": []}
    for line in declared:
        match = _REQUIREMENT.fullmatch(line.strip())
        if match is None:
            continue
        package, condition, marker = match[1], match[2].strip(), match[3] or ""
        extra = _EXTRA.search(marker)
        if marker and not extra:
            continue  # for other versions of Python only
        found.setdefault(extra[1] if extra else "", []).append((package, condition))
    return found


def _wrong(package: str, condition: str) -> str:
    """What is wrong with a package, or nothing."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"{package} is missing"
    for operator, wanted in re.findall(r"(>=|==)\s*([\w.]+)", condition):
        have, need = _numbers(version), _numbers(wanted)
        if (operator == ">=" and have < need) or (operator == "==" and have[: len(need)] != need):
            return f"{package} is {version}, needed is {condition}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def _packages() -> str:
    needed = _requirements()[""]
    wrong = [text for package, condition in needed if (text := _wrong(package, condition))]
    if wrong:
        raise _Unhealthy(f"{'; '.join(wrong)}; run `pip install -U {DISTRIBUTION}`")
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package, _ in needed)


def _extras() -> str:
    """Extras are for the asking, so a missing one is no fault."""
    states = []
    for extra, packages in _requirements().items():
        if extra and extra != "dev":
            wrong = [text for package, condition in packages if (text := _wrong(package, condition))]
            states.append(f"{extra}: {'; '.join(wrong[:2]) if wrong else 'yes'}")
    return ", ".join(states)


def _bundle() -> str:
    from costmodel.bundle import RELEASED, Bundle
    from costmodel.embedding import SentenceEncoder

    bundle = Bundle(RELEASED)
    for name, checksum in bundle.config["sha256"].items():
        if hashlib.sha256((bundle.folder / name).read_bytes()).hexdigest() != checksum:
            raise BundleError(f"{name} does not match its checksum; reinstall {DISTRIBUTION}")
    widths = bundle.calibration["half_width"]
    language = SentenceEncoder(bundle.folder / "language")
    return (
        f"{len(bundle.config['sha256'])} files intact, {len(bundle.platforms)} platforms learned,"
        f" {len(bundle.config['training']['sentences']):,} sentences of width {language.width},"
        f" interval ±{widths['known_platform']:.2f} in ln"
    )


def _estimate() -> str:
    from costmodel.corpora import build
    from costmodel.platforms import resolve
    from costmodel.predictor import load

    cell = "nb201/|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    start = time.perf_counter()
    found = load().estimate(build(cell), resolve("t4", "fp16"))
    seconds = time.perf_counter() - start
    if not found.bound_ms <= found.latency_ms < 1e3:
        raise BundleError(f"a small network on t4 takes {found.latency_ms:g} ms; reinstall {DISTRIBUTION}")
    return f"a network of {len(found.operators)} operators on t4 fp16: {found.latency_ms:.3g} ms, in {seconds:.2f} s"


def _devices() -> str:
    from costmodel.platforms import list_devices, load_device, supported_precisions, user_directory

    names = list_devices()
    wrong = []
    for name in names:
        try:
            if not supported_precisions(load_device(name)):
                wrong.append(f"{name} has no throughput")
        except PlatformError as error:
            wrong.append(str(error))
    if wrong:
        raise _Unhealthy(f"{len(wrong)} of {len(names)} spec sheets cannot be used: {'; '.join(wrong[:3])}")
    own = len(list(user_directory().glob("*.toml"))) if user_directory().is_dir() else 0
    return f"{len(names)} spec sheets, {own} of them your own"


def _user_directory() -> str:
    from costmodel.platforms import user_directory

    home = user_directory().parent
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise _Unhealthy(f"cannot write to {existing}; set LEDG_COST_HOME to a folder you may write to")
    return f"{home}, writable" if existing == home else f"{home}, made when it is needed"


def _samples() -> str:
    from costmodel.samples import SampleStore, default_store

    path = default_store()
    if not path.exists():
        return f"none yet; `{DISTRIBUTION} profile` makes {path}"
    if not path.is_file():
        raise DataError(f"{path} is no file; move it away")
    with SampleStore(path) as store:
        return f"{len(store):,} samples in {path}"


def _providers() -> str:
    import onnxruntime

    names: Sequence[str] = onnxruntime.get_available_providers()
    if "CPUExecutionProvider" not in names:
        raise _Unhealthy("onnxruntime has no CPU provider; run `pip install --force-reinstall onnxruntime`")
    others = [name.removesuffix("ExecutionProvider") for name in names if name != "CPUExecutionProvider"]
    return f"onnxruntime {onnxruntime.__version__} with CPU" + "".join(f", {name}" for name in others)


CHECKS: dict[str, Callable[[], str]] = {
    "versions": _versions,
    "packages": _packages,
    "extras": _extras,
    "bundle": _bundle,
    "estimate": _estimate,
    "devices": _devices,
    "user directory": _user_directory,
    "samples": _samples,
    "providers": _providers,
}

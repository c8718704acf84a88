"""Overlays: what fine-tuning learned of one platform, kept beside the released bundle in the user's directory.

A file per platform: `overlays/<device>~<precision>~<runtime>.json`, with an `.npz` of the same name where the adapter
has arrays. The JSON holds the checksum of its arrays, so a cut between the two is seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.bundle import Bundle
from costmodel.errors import BundleError, CorruptBundleError
from costmodel.features import platform_channel, platform_rates
from costmodel.finetune import adapters
from costmodel.finetune.adapters import Adapter
from costmodel.finetune.readings import read
from costmodel.platforms import Platform, parse_runtime, user_directory

if TYPE_CHECKING:
    from costmodel.predictor import Form

FORMAT = 1
changes = 0
"""Counts what this process saved and removed, so that models know when to look again."""


@dataclass(frozen=True)
class Overlay:
    """What was learned of one platform.

    device, precision, runtime  as the samples name them; the runtime carries its version
    bundle, sheet               what it was fitted on: `bundle_id` and `sheet_id`
    samples                     networks it was fitted on
    half_width                  of the 90 % interval, in ln of latency
    scores                      kind of adapter → cross-validated MAPE in %
    """

    device: str
    precision: str
    runtime: str
    bundle: str
    sheet: str
    samples: int
    adapter: Adapter
    half_width: float
    scores: Mapping[str, float]

    @property
    def platform_key(self) -> str:
        """ "device|precision|runtime"."""
        return f"{self.device}|{self.precision}|{self.runtime}"

    @property
    def standing(self) -> tuple[str, float]:
        """Provenance in words, and the interval's half-width in ln."""
        count = f"{self.samples} sample{'s' if self.samples != 1 else ''} of this platform"
        words = "checked on" if self.adapter.kind == "none" else "fine-tuned on"
        return f"{words} {count}", self.half_width

    def matches(self, platform: Platform) -> bool:
        """Whether it answers for a platform; one without a runtime version takes every version."""
        if (platform.device.name, platform.precision.value) != (self.device, self.precision):
            return False
        return _is_release(self.runtime, platform.runtime_label)

    def apply(
        self, forms: Sequence[Form], log_ms: np.ndarray, node_ms: np.ndarray, log_times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """ln of latency (G,) and node times (R,) in ms in place of the head's; graphs need nodes."""
        if self.adapter.kind == "none":
            return log_ms, node_ms
        return self.adapter.apply(read(forms, log_ms, node_ms, log_times, self.adapter.head is not None))

    def as_measured(self, platform: Platform) -> Platform:
        """The platform under the runtime version of the samples: how the network is to read it."""
        return replace(platform, runtime_version=parse_runtime(self.runtime)[1])


def bundle_id(bundle: Bundle) -> str:
    """Identifies a bundle's contents."""
    return hashlib.sha256(json.dumps(bundle.config["sha256"], sort_keys=True).encode()).hexdigest()


def sheet_id(platform: Platform) -> str:
    """Identifies the numbers of a platform's spec sheet that predictions depend on."""
    numbers = np.concatenate([platform_rates(platform), platform_channel(platform)])
    return hashlib.sha256(",".join(f"{x:.6g}" for x in numbers).encode()).hexdigest()


def overlay_directory() -> Path:
    """`overlays` in $LEDG_COST_HOME or ~/.ledg-cost."""
    return user_directory().parent / "overlays"


def save(overlay: Overlay, folder: Path | None = None) -> Path:
    """Writes an overlay in place of an older one of the same platform and returns its file. Raises BundleError."""
    global changes
    record, arrays = adapters.to_record(overlay.adapter)
    path = _path(overlay.platform_key, folder)
    fields = ("device", "precision", "runtime", "bundle", "sheet", "samples", "half_width")
    text = {"format": FORMAT, **{name: getattr(overlay, name) for name in fields}, "scores": dict(overlay.scores)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrays:
            with _replacing(path.with_suffix(".npz")) as fresh, fresh.open("wb") as handle:
                np.savez(handle, **arrays)  # type: ignore[arg-type]
            text["arrays"] = hashlib.sha256(path.with_suffix(".npz").read_bytes()).hexdigest()
        with _replacing(path) as fresh:
            fresh.write_text(json.dumps({**text, "adapter": record}, indent=1, allow_nan=False) + "\n")
        if not arrays:
            path.with_suffix(".npz").unlink(missing_ok=True)
    except OSError as error:
        raise BundleError(f"cannot write {path} ({error.strerror}); set LEDG_COST_HOME to another folder") from error
    changes += 1
    return path


def load(path: Path) -> Overlay:
    """Reads an overlay. Raises CorruptBundleError."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}")
        arrays: dict[str, np.ndarray] = {}
        if "arrays" in record:
            raw = path.with_suffix(".npz").read_bytes()
            if hashlib.sha256(raw).hexdigest() != record["arrays"]:
                raise ValueError("its arrays are not its own")
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        return Overlay(
            device=str(record["device"]), precision=str(record["precision"]), runtime=str(record["runtime"]),
            bundle=str(record["bundle"]), sheet=str(record["sheet"]), samples=int(record["samples"]),
            adapter=adapters.from_record(record["adapter"], arrays),
            half_width=float(record["half_width"]), scores={str(k): float(v) for k, v in record["scores"].items()},
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptBundleError(
            f"overlay {path} cannot be read ({error}); run `ledg-cost finetune` again or delete it"
        ) from error


def find(platform: Platform, bundle: Bundle, folder: Path | None = None) -> tuple[Overlay | None, str]:
    """The newest overlay of a platform that was fitted on this bundle and spec sheet, or None and a line that says why
    there is none to use ("" where there is none at all)."""
    folder = folder or overlay_directory()
    why = ""
    if not folder.is_dir():
        return None, why
    for path in sorted(folder.glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True):
        if not path.name.startswith(_plain(platform.device.name) + "~"):
            continue
        try:
            overlay = load(path)
        except CorruptBundleError as error:
            why = str(error)
            continue
        if not overlay.matches(platform):
            continue
        if overlay.bundle != bundle_id(bundle):
            why = "fine-tuned for another bundle, so not used; run `ledg-cost finetune` again"
        elif overlay.sheet != sheet_id(overlay.as_measured(platform)):
            why = "fine-tuned for another spec sheet, so not used; run `ledg-cost finetune` again"
        else:
            return overlay, ""
    return None, why


def remove(
    device: str, precision: str | None = None, runtime: str | None = None, folder: Path | None = None
) -> list[str]:
    """Deletes the overlays of a device, or of one precision or runtime, and returns their keys."""
    global changes
    gone = []
    for path in sorted((folder or overlay_directory()).glob(f"{_plain(device)}~*.json")):
        try:
            overlay = load(path)
        except CorruptBundleError:
            continue
        same = overlay.device == device and precision in (None, overlay.precision)
        if same and (runtime is None or _is_release(overlay.runtime, runtime)):
            path.unlink()
            path.with_suffix(".npz").unlink(missing_ok=True)
            gone.append(overlay.platform_key)
    changes += bool(gone)
    return gone


def _is_release(label: str, runtime: str) -> bool:
    (name, version), (wanted, release) = parse_runtime(label), parse_runtime(runtime)
    return name == wanted and (not release or f"{version}.".startswith(f"{release}."))


def _path(platform_key: str, folder: Path | None) -> Path:
    return (folder or overlay_directory()) / ("~".join(map(_plain, platform_key.split("|"))) + ".json")


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]", "_", text)


@contextlib.contextmanager
def _replacing(path: Path) -> Any:
    """A new file beside `path` that takes its place when it is complete."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)

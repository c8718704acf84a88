"""Reading a model bundle: a folder of plain files, no pickle.

config.json        format, template version, network configuration, training summary, checksums
encode.onnx        packed graphs → node and graph vectors        (onnxruntime)
head.onnx          vectors + platforms → latency and node shares
model.safetensors  the same weights for training and fine-tuning
language/          sentence table and student encoder
calibration.json   half-widths of the interval
familiar.npz       vectors, sizes and kinds of training networks, to tell what is like them
correction.npz     trees for what the network leaves over on measured platforms; not in every bundle
card.md            what it was trained on and how it did
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from costmodel.errors import BundleVersionError, CorruptBundleError
from costmodel.features import COLUMNS
from costmodel.prompts import TEMPLATE_VERSION

BUNDLE_FORMAT = 5
ENCODE, HEAD, WEIGHTS = "encode.onnx", "head.onnx", "model.safetensors"
RELEASED = Path(__file__).parent / "bundle_v1"
ENOUGH = 30
"""Measured networks from which a platform counts as learned; below, the interval is that of a new platform."""


def of_standing(values: Mapping[str, float | None], standing: str, device: str = "") -> float:
    """A width or a share of the calibration for a platform that is "known" to training, for networks of a "new_kind" on
    one, or else for a "new_platform" or a "new_runtime"; with a `device` of some kind ("gpu") at least what is known of
    new ones of that kind.

    What was not measured apart counts as what is nearest to it: a new kind as a new family and then as known, a new
    runtime as a new platform; 0 where that is missing too."""
    nearest = {
        "known": ("known_platform",), "new_kind": ("new_kind", "new_family", "known_platform"),
        "new_platform": ("new_platform",), "new_runtime": ("new_runtime", "new_platform"),
    }  # fmt: skip
    of_kind = values.get(f"new_{device}") if standing in ("new_platform", "new_runtime") else None
    return max(
        next((found for name in nearest[standing] if (found := values.get(name)) is not None), 0.0), of_kind or 0
    )


class Bundle:
    """A bundle folder. Raises CorruptBundleError or BundleVersionError when it cannot be used."""

    def __init__(self, folder: str | Path = RELEASED) -> None:
        self.folder = Path(folder)
        self.config: dict[str, Any] = self._json("config.json")
        found = self.config.get("format")
        if found != BUNDLE_FORMAT:
            raise BundleVersionError(
                f"bundle {self.folder} has format {found}, this version reads {BUNDLE_FORMAT};"
                " retrain it or install the matching ledg-cost"
            )
        if self.config.get("template_version") != TEMPLATE_VERSION or tuple(self.config.get("columns", ())) != COLUMNS:
            raise BundleVersionError(
                f"bundle {self.folder} was trained on other sentences or features; retrain it with `ledg-cost train`"
            )

    @cached_property
    def calibration(self) -> dict[str, Any]:
        """Half-widths of ln(latency) by what is known of a platform, and how unseen devices are read."""
        value = self._json("calibration.json")
        missing = {"half_width", "by_platform", "roofline_share", "unseen_devices", "kin"} - set(value)
        if missing or not {"known_platform", "operators", "new_family", "new_platform"} <= set(value["half_width"]):
            raise CorruptBundleError(f"bundle {self.folder}: calibration.json lacks widths or reading; retrain it")
        return value

    @property
    def platforms(self) -> dict[str, dict[str, int]]:
        """`device|precision|runtime` → training rows: {"networks": n, "operators": m}."""
        return self.config["training"]["platforms"]

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against its checksum."""
        path = self.folder / name
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise CorruptBundleError(
                f"bundle file {path} cannot be read ({error.strerror}); reinstall or retrain it"
            ) from error
        if hashlib.sha256(raw).hexdigest() != self.config["sha256"].get(name):
            raise CorruptBundleError(f"bundle file {path} does not match its checksum; reinstall or retrain it")
        return raw

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CorruptBundleError(
                f"bundle file {path} cannot be read ({type(error).__name__}); reinstall or retrain it"
            ) from error
        if not isinstance(value, dict):
            raise CorruptBundleError(f"bundle file {path} holds no table; reinstall or retrain it")
        return value

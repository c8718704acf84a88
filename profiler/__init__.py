"""Measurements of graphs on real devices. Depends on `costmodel` and is imported by the command line only.

`measure(Request("resnet50.onnx", precision="int8"))` measures once; a `Campaign` measures many.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Campaign": "profiler.campaign",
    "measure": "profiler.campaign",
    "Measurement": "profiler.request",
    "Request": "profiler.request",
}

__all__ = ["Campaign", "Measurement", "Request", "measure"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""How long a network takes on a device: graphs, platforms, LeDG-Former and estimates.

>>> import costmodel
>>> costmodel.estimate("model.onnx", "t4:int8", batch=8).latency_ms  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "estimate": "api",
    "load_graph": "api",
    "parse_platform": "api",
    "analyze": "analysis",
    "CostModel": "estimates",
    "Estimate": "estimates",
    "Roofline": "estimates",
    "LedgCostError": "errors",
    "DType": "ir",
    "Graph": "ir",
    "GraphBuilder": "ir",
    "Node": "ir",
    "TensorSpec": "ir",
    "Device": "platforms",
    "Platform": "platforms",
    "Precision": "platforms",
    "resolve": "platforms",
    "LeDGFormerModel": "predictor",
    "Sample": "samples",
    "SampleStore": "samples",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name's module on first use, so that `import costmodel` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'costmodel' has no attribute {name!r}")
    return getattr(importlib.import_module(f"costmodel.{_HOMES[name]}"), name)

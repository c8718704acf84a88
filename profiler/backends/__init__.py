"""Runtimes that can measure. Importing this loads none of them."""

from __future__ import annotations

import importlib

from costmodel.errors import BackendUnavailableError, ProfileError
from profiler.backends.base import Backend, Runner

BACKENDS = {
    "onnxruntime": "profiler.backends.ort",
    "cuda": "profiler.backends.ort",
    "tensorrt": "profiler.backends.ort",
    "directml": "profiler.backends.ort",
    "openvino": "profiler.backends.openvino",
    "torch": "profiler.backends.torch",
    "torch-compile": "profiler.backends.torch",
    "tvm": "profiler.backends.tvm",
}

__all__ = ["BACKENDS", "Backend", "Runner", "get_backend"]


def get_backend(name: str) -> Backend:
    """The backend of a name, ready to run here.

    Raises BackendUnavailableError if there is no such backend or it cannot run here, naming what to install.
    """
    if name not in BACKENDS:
        raise BackendUnavailableError(f"unknown backend {name!r}; use one of {', '.join(BACKENDS)}")
    try:
        backend: Backend = importlib.import_module(BACKENDS[name]).backend(name)
        reason = backend.missing()
    except ImportError as error:
        reason = f"{error.name or error} is not installed; install it with pip"
    if reason:
        raise BackendUnavailableError(f"backend {name} cannot run here: {reason}")
    return backend


def check_precision(backend: Backend, precision: str) -> None:
    """Raises ProfileError if the backend cannot compute in `precision` here."""
    able = backend.precisions()
    if precision not in able:
        raise ProfileError(f"backend {backend.name} has no {precision} on this machine; use {', '.join(able)}")

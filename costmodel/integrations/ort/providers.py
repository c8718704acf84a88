"""Execution providers: what a name means, and sessions that run on one of them alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from costmodel.errors import BackendUnavailableError, PlatformError
from costmodel.platforms import Device, Platform, Precision, resolve

if TYPE_CHECKING:
    import onnxruntime
    from onnx import ModelProto

CPU = "CPUExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"

_NAMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "cpu": (CPU, "onnxruntime"),
        "openvino": (OPENVINO, "openvino"),
        "cuda": ("CUDAExecutionProvider", "onnxruntime"),
        "tensorrt": ("TensorrtExecutionProvider", "tensorrt"),
    }
)
"""Short name → ONNX Runtime's name, and the runtime of the platform whose estimates it follows."""

_OPENVINO_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


@dataclass(frozen=True)
class Provider:
    """An execution provider at a precision.

    name       ONNX Runtime's
    runtime    the runtime of the platform it stands for
    options    the provider's own, added to those that follow from threads and precision
    """

    name: str
    runtime: str
    precision: str = "fp32"
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Provider:
        """`cpu`, `openvino:bf16`, `cuda:fp16`, `tensorrt:int8`, or ONNX Runtime's names. Raises PlatformError."""
        name, _, precision = text.partition(":")
        by_name = {full: (full, runtime) for full, runtime in _NAMES.values()}
        found = _NAMES.get(name.lower()) or by_name.get(name)
        if found is None:
            raise PlatformError(f"unknown execution provider {name!r}; use one of {', '.join(_NAMES)}")
        return cls(*found, precision=Precision.parse(precision or "fp32").value)

    @property
    def label(self) -> str:
        """Short name and precision, `openvino:fp32`."""
        short = next((s for s, (full, _) in _NAMES.items() if full == self.name), self.name)
        return f"{short}:{self.precision}"

    def platform(self, device: str | os.PathLike[str] | Device) -> Platform:
        """The platform of this provider on a device. Raises PlatformError."""
        return resolve(device, self.precision, self.runtime)

    def settings(self, threads: int) -> dict[str, str]:
        """Provider options for so many threads at the precision."""
        if self.name == OPENVINO:
            hints: dict[str, Any] = {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": str(threads),
                "ENABLE_CPU_PINNING": "NO",  # the caller pins
            }
            if self.precision in _OPENVINO_HINTS:
                hints["INFERENCE_PRECISION_HINT"] = _OPENVINO_HINTS[self.precision]
            return {"load_config": json.dumps({"CPU": hints}), **self.options}
        if self.runtime == "tensorrt":
            switch = {"fp16": {"trt_fp16_enable": "1"}, "int8": {"trt_int8_enable": "1"}}
            return {**switch.get(self.precision, {}), **self.options}
        return dict(self.options)


def open_session(
    model: str | os.PathLike[str] | bytes | ModelProto, provider: Provider | str, threads: int = 1
) -> onnxruntime.InferenceSession:
    """A session on the provider, nodes that it does not take on the CPU provider, with the assignment recorded.

    Raises BackendUnavailableError if the provider is not here or does not start: ONNX Runtime itself would fall back
    to the CPU without a word.
    """
    import onnxruntime

    if isinstance(provider, str):
        provider = Provider.parse(provider)
    options = session_options(threads)
    content: str | bytes = (
        os.fspath(model) if isinstance(model, (str, bytes, os.PathLike)) else model.SerializeToString()
    )
    plugged = _plugin_devices(provider)
    try:
        if plugged:
            options.add_provider_for_devices(plugged, provider.settings(threads))
            session = onnxruntime.InferenceSession(content, options)
        else:
            if provider.name not in onnxruntime.get_available_providers():
                raise BackendUnavailableError(_how_to_get(provider))
            wanted = dict.fromkeys([provider.name, CPU])
            settings = [provider.settings(threads) if name == provider.name else {} for name in wanted]
            session = onnxruntime.InferenceSession(content, options, list(wanted), settings)
    except BackendUnavailableError:
        raise
    except Exception as error:  # onnxruntime raises plain Exceptions
        reason = " ".join(str(error).split())[:200]
        raise BackendUnavailableError(
            f"{provider.label} does not open the model ({reason}); try another provider"
        ) from error
    if session.get_providers()[0] != provider.name:
        raise BackendUnavailableError(f"{provider.name} is installed but does not start here; see ONNX Runtime's log")
    return session


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options with so many threads, no spinning, and the assignment of nodes recorded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def assigned(session: onnxruntime.InferenceSession) -> dict[str, list[str]]:
    """Provider → operators of the nodes that ONNX Runtime gave it, by `get_provider_graph_assignment_info`."""
    found: dict[str, list[str]] = {}
    for group in session.get_provider_graph_assignment_info():
        found.setdefault(group.ep_name, []).extend(node.op_type for node in group.get_nodes())
    return found


def refused_operators(model: str | os.PathLike[str] | bytes | ModelProto, provider: Provider | str) -> frozenset[str]:
    """Operators of a model of which the provider leaves nodes to the CPU: the unsupported set for `partition`."""
    provider = Provider.parse(provider) if isinstance(provider, str) else provider
    if provider.name == CPU:
        return frozenset()
    return frozenset(assigned(open_session(model, provider)).get(CPU, ()))


def register_plugins() -> frozenset[str]:
    """Registers the OpenVINO plug-in if its package is installed; names of all providers that offer a device."""
    import importlib.util

    import onnxruntime

    if not hasattr(onnxruntime, "get_ep_devices"):  # before 1.23
        return frozenset()
    if OPENVINO not in _registered and importlib.util.find_spec("onnxruntime_ep_openvino"):
        import onnxruntime_ep_openvino

        onnxruntime.register_execution_provider_library(OPENVINO, onnxruntime_ep_openvino.get_library_path())
        _registered.add(OPENVINO)
    return frozenset(device.ep_name for device in onnxruntime.get_ep_devices())


_registered: set[str] = set()


def _plugin_devices(provider: Provider) -> list[Any]:
    """The plug-in's CPU device, if this provider comes as a plug-in that takes this machine's processor."""
    import onnxruntime

    if provider.name in onnxruntime.get_available_providers() or provider.name not in register_plugins():
        return []
    return [d for d in onnxruntime.get_ep_devices() if d.ep_name == provider.name and "CPU" in str(d.device.type)][:1]


def _how_to_get(provider: Provider) -> str:
    if provider.name == OPENVINO:
        return (
            f"{OPENVINO} is not here; install onnxruntime-openvino in place of onnxruntime,"
            " or onnxruntime-ep-openvino on an Intel processor"
        )
    return f"{provider.name} is not in this build of onnxruntime; install the build for that hardware"

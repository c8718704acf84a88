"""OpenVINO on the CPU: its own package, or its plug-in for ONNX Runtime where only that is installed.

Both are the same library. The plug-in takes Intel processors only, the package any x86 or ARM processor.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np

from costmodel.errors import ProfileError
from profiler.backends.base import Backend, NodeNames, Operators, Runner, all_finite, leading
from profiler.request import Request

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8"}
_PROFILED_RUNS = 10
_PLUGIN = "OpenVINOExecutionProvider"


def backend(name: str) -> Backend:
    """The package if it is installed, else the plug-in."""
    return OpenVino() if importlib.util.find_spec("openvino") else OpenVinoPlugin()


class OpenVino:
    """The `openvino` package. The latency hint and one stream; int8 leaves the rest at the device's default."""

    name = "openvino"
    preload: tuple[str, ...] = ("numpy", "onnx", "openvino", "onnxruntime", "onnxruntime.quantization")

    def missing(self) -> str | None:
        import openvino

        return None if "CPU" in openvino.Core().available_devices else "openvino finds no CPU; reinstall openvino"

    def runtime(self) -> str:
        import openvino

        return f"openvino-{openvino.__version__.split('-')[0]}"

    def precisions(self) -> tuple[str, ...]:
        import openvino

        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return tuple(ours for theirs, ours in _CAPABILITIES.items() if theirs in able)

    def on_gpu(self) -> bool:
        return False

    def open(self, request: Request) -> Runner:
        import openvino

        from profiler.onnx_model import prepare
        from profiler.weights import make_inputs

        model = prepare(request)
        feeds = make_inputs(model, request.seed)
        content = model.SerializeToString()
        names = NodeNames(model)
        del model
        core = openvino.Core()
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": request.threads,
            "ENABLE_CPU_PINNING": False,
        }
        if request.precision in _HINTS:
            options["INFERENCE_PRECISION_HINT"] = _HINTS[request.precision]
        if request.operators:
            options["PERF_COUNT"] = True
        compiled = core.compile_model(core.read_model(content, b""), "CPU", options)
        pending = compiled.create_infer_request()
        for place, value in enumerate(feeds.values()):
            pending.set_input_tensor(place, openvino.Tensor(value))
        return Runner(
            run=pending.infer,
            batch=leading(feeds),
            finite=lambda: all_finite([pending.get_output_tensor(i).data for i in range(len(compiled.outputs))]),
            operators=(lambda: names.combine(_counters(pending))) if request.operators else None,
        )


def _counters(pending: Any) -> Operators:
    """(node, median ms) of the nodes that ran, over a few runs."""
    times: dict[str, list[float]] = {}
    for _ in range(_PROFILED_RUNS):
        pending.infer()
        for entry in pending.profiling_info:
            if entry.status == entry.status.EXECUTED and entry.real_time.total_seconds() > 0:
                times.setdefault(entry.node_name, []).append(entry.real_time.total_seconds() * 1e3)
    return tuple((name, float(np.median(found))) for name, found in times.items())


class OpenVinoPlugin:
    """The plug-in provider of ONNX Runtime (package onnxruntime-ep-openvino)."""

    name = "openvino"
    preload: tuple[str, ...] = ("numpy", "onnx", "onnxruntime", "onnxruntime.quantization")

    def _devices(self) -> list[Any]:
        import onnxruntime
        import onnxruntime_ep_openvino

        if not any(d.ep_name == _PLUGIN for d in onnxruntime.get_ep_devices()):
            try:
                onnxruntime.register_execution_provider_library(_PLUGIN, onnxruntime_ep_openvino.get_library_path())
            except Exception as error:  # onnxruntime raises plain Exceptions, also if it is registered already
                if "already" not in str(error):
                    raise ProfileError(f"the OpenVINO plug-in does not load ({error}); install openvino") from None
        return [d for d in onnxruntime.get_ep_devices() if d.ep_name == _PLUGIN and "CPU" in str(d.device.type)]

    def missing(self) -> str | None:
        if not importlib.util.find_spec("onnxruntime_ep_openvino"):
            return "install openvino (or onnxruntime-ep-openvino on an Intel processor)"
        return None if self._devices() else "the plug-in takes Intel processors only; install openvino"

    def runtime(self) -> str:
        from importlib.metadata import version

        return f"openvino-{version('onnxruntime-ep-openvino')}"

    def precisions(self) -> tuple[str, ...]:
        return ("fp32", "bf16", "int8") if _computes_bf16() else ("fp32", "int8")

    def on_gpu(self) -> bool:
        return False

    def open(self, request: Request) -> Runner:
        import onnxruntime

        from profiler.onnx_model import prepare
        from profiler.weights import make_inputs

        model = prepare(request)
        feeds = make_inputs(model, request.seed)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": str(request.threads), "NUM_STREAMS": "1"}
        if request.precision in _HINTS:
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[request.precision]
        options.add_provider_for_devices(self._devices(), {"load_config": json.dumps({"CPU": settings})})
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        kept: list[Any] = []

        def run() -> None:
            kept[:] = session.run(None, feeds)

        return Runner(run=run, batch=leading(feeds), finite=lambda: all_finite(kept))


def _computes_bf16() -> bool:
    """Whether the processor has bf16 arithmetic, so that OpenVINO chooses it by itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = set(file.read().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16"})

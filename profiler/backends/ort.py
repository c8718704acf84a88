"""ONNX Runtime with its CPU, CUDA, TensorRT and DirectML providers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from profiler.backends.base import Backend, NodeNames, Operators, Runner, all_finite, leading, processor
from profiler.request import Request

_PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
}
_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu and TensorRT",
    "directml": "onnxruntime-directml",
}
_PROFILED_RUNS = 10
_KERNEL = "_kernel_time"


def backend(name: str) -> Backend:
    """The backend of one provider."""
    return OnnxRuntime(name)


class OnnxRuntime:
    """One execution provider; the CPU takes what a GPU provider leaves."""

    preload: tuple[str, ...] = ("numpy", "onnx", "onnxruntime", "onnxruntime.quantization")

    def __init__(self, name: str) -> None:
        self.name = name
        self.provider = _PROVIDERS[name]

    def missing(self) -> str | None:
        import onnxruntime

        if self.provider in onnxruntime.get_available_providers():
            return None
        return f"onnxruntime has no {self.provider}; install {_PACKAGES[self.name]}"

    def runtime(self) -> str:
        import onnxruntime

        name = "tensorrt" if self.name == "tensorrt" else "onnxruntime"
        version = _tensorrt_version() if self.name == "tensorrt" else onnxruntime.__version__
        return f"{name}-{version}" if version else name

    def precisions(self) -> tuple[str, ...]:
        if self.name == "onnxruntime":
            return ("fp32", "fp16", "int8") if processor() == "arm64" else ("fp32", "int8")
        return ("fp32", "fp16") if self.name == "directml" else ("fp32", "fp16", "int8")

    def on_gpu(self) -> bool:
        return self.name != "onnxruntime"

    def open(self, request: Request) -> Runner:
        from profiler.onnx_model import prepare
        from profiler.weights import make_inputs

        model = prepare(request)
        feeds = make_inputs(model, request.seed)
        content = model.SerializeToString()
        names = NodeNames(model)
        del model
        session = self._session(content, request)
        run, results = _on_host(session, feeds) if self.name == "onnxruntime" else _on_device(session, feeds)
        return Runner(
            run=run,
            batch=leading(feeds),
            finite=lambda: all_finite(results()),
            operators=(lambda: names.combine(self._profile(content, request, feeds))) if request.operators else None,
        )

    def _session(self, content: bytes, request: Request, profile: str = "") -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        if self.name == "directml":
            options.enable_mem_pattern = False  # the provider demands it
        providers = [(self.provider, self._provider_options(request))]
        if self.name == "tensorrt":
            providers.append(("CUDAExecutionProvider", {}))
        return onnxruntime.InferenceSession(content, options, providers=providers)

    def _provider_options(self, request: Request) -> dict[str, str]:
        if self.name == "cuda":
            return {"cudnn_conv_algo_search": "EXHAUSTIVE", "do_copy_in_default_stream": "1"}
        if self.name == "tensorrt":
            return {
                "trt_fp16_enable": str(int(request.precision == "fp16")),
                "trt_int8_enable": str(int(request.precision == "int8")),
                "trt_max_workspace_size": str(4 << 30),
            }
        return {}

    def _profile(self, content: bytes, request: Request, feeds: Mapping[str, np.ndarray]) -> Operators:
        """Medians over a few runs of a session of its own, as profiling slows a run a little."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._session(content, request, os.path.join(folder, "profile"))
            session.run(None, dict(feeds))
            for _ in range(_PROFILED_RUNS):
                session.run(None, dict(feeds))
            with open(session.end_profiling(), encoding="utf-8") as file:
                events = json.load(file)
        return kernel_times(events, _PROFILED_RUNS)


def kernel_times(events: list[dict[str, Any]], runs: int) -> Operators:
    """(node, median ms) of ONNX Runtime's profile, over the last `runs` of its runs, in the order nodes ran."""
    times: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            times.setdefault(event["name"].removesuffix(_KERNEL), []).append(event["dur"] / 1e3)
    return tuple((name, float(np.median(found[-runs:]))) for name, found in times.items())


def _on_host(session: Any, feeds: dict[str, np.ndarray]) -> tuple[Callable[[], None], Callable[[], list[Any]]]:
    kept: list[Any] = []

    def run() -> None:
        kept[:] = session.run(None, feeds)

    return run, lambda: kept


def _on_device(session: Any, feeds: dict[str, np.ndarray]) -> tuple[Callable[[], None], Callable[[], list[Any]]]:
    """Inputs and results stay on the device: transfers are not the network's time."""
    import onnxruntime

    binding = session.io_binding()
    device = "dml" if "DmlExecutionProvider" in session.get_providers() else "cuda"
    held = [onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0) for value in feeds.values()]
    for name, value in zip(feeds, held, strict=True):
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, device, 0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run, binding.copy_outputs_to_cpu


def _tensorrt_version() -> str:
    try:
        import tensorrt
    except ImportError:
        return ""
    return str(tensorrt.__version__)

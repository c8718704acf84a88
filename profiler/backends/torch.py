"""PyTorch, eager and compiled, on the first CUDA device or else the CPU.

Exported programs (.pt2) run as they are. ONNX models are folded by ONNX Runtime (constants and shape arithmetic only)
and written as a `torch.fx` graph of the torch calls that a person would write for them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx

from costmodel.errors import ModelLoadError, UnsupportedOpError
from profiler.backends.base import Backend, Operators, Runner
from profiler.backends.torch_ops import OPS, Call
from profiler.request import Request

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_KEPT_APART = ["ConvBNFusion", "ConvMulFusion", "ConvAddFusion", "MatMulBNFusion", "ConvActivationFusion"]
_PROFILED_RUNS = 10


def backend(name: str) -> Backend:
    """Eager for "torch", else compiled."""
    return Torch(name)


class Torch:
    """One way to run torch."""

    preload: tuple[str, ...] = ("numpy", "onnx", "onnxruntime", "torch", "torch.fx", "profiler.backends.torch_ops")

    def __init__(self, name: str) -> None:
        self.name = name
        self.compiled = name == "torch-compile"

    def missing(self) -> str | None:
        return None

    def runtime(self) -> str:
        return f"pytorch-{'compile' if self.compiled else 'eager'}-{torch.__version__.split('+')[0]}"

    def precisions(self) -> tuple[str, ...]:
        return ("fp32", "fp16", "bf16") if self.on_gpu() else ("fp32", "bf16")

    def on_gpu(self) -> bool:
        return torch.cuda.is_available()

    def open(self, request: Request) -> Runner:
        device = "cuda" if self.on_gpu() else "cpu"
        torch.set_num_threads(request.threads)
        module, feeds = _load(request)
        dtype = _DTYPES[request.precision]
        module = module.to(device=device, dtype=dtype)
        tensors = [_tensor(value, device, dtype) for value in feeds]
        call: Callable[..., Any] = module
        if self.compiled:
            import torch._inductor.config as inductor

            inductor.compile_threads = 1  # a pool of compilers would outlive the measurement
            call = torch.compile(module, dynamic=False)
        kept: list[Any] = []

        def run() -> None:
            with torch.inference_mode():
                kept[:] = [call(*tensors)]
            if device == "cuda":
                torch.cuda.synchronize()

        run()
        times = isinstance(module, fx.GraphModule) and not self.compiled and "onnx" in module.meta
        return Runner(
            run=run,
            batch=int(tensors[0].shape[0]) if tensors and tensors[0].ndim else 1,
            finite=lambda: all(bool(torch.isfinite(t).all()) for t in _floats(kept)),
            operators=(lambda: _operator_times(module, tensors)) if times and request.operators else None,
            peak_bytes=torch.cuda.max_memory_allocated if device == "cuda" else None,
        )


def _load(request: Request) -> tuple[Any, list[Any]]:
    """A module and its inputs."""
    if isinstance(request.model, str) and Path(request.model).suffix == ".pt2":
        try:
            program = torch.export.load(request.model)
        except Exception as error:  # torch raises what its readers raise
            raise ModelLoadError(
                f"{request.label} is no exported program ({type(error).__name__}); export it anew"
            ) from None
        if program.example_inputs is None:
            raise ModelLoadError(f"{request.label} has no example inputs; export it with them")
        args, kwargs = program.example_inputs
        return program.module(), [*args, *kwargs.values()]
    from profiler.onnx_model import prepare
    from profiler.weights import make_inputs

    model = prepare(Request(**{**vars(request), "precision": "fp32"}))
    feeds = make_inputs(model, request.seed)
    return to_module(_folded(model)), list(feeds.values())


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with constants and shape arithmetic worked out and every shape known."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=_KEPT_APART
        )
        return onnx.shape_inference.infer_shapes(onnx.load(options.optimized_model_filepath), data_prop=True)


def to_module(model: onnx.ModelProto) -> fx.GraphModule:
    """A torch module that computes what the ONNX model does; float weights are its buffers.

    Shapes must be static. Raises UnsupportedOpError naming all operators that have no torch form here.
    """
    unknown: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type not in OPS and node.op_type != "Constant":
            unknown[node.op_type] = unknown.get(node.op_type, 0) + 1
    if unknown:
        raise UnsupportedOpError(f"no torch form of {', '.join(sorted(unknown))}; measure on onnxruntime", unknown)
    return _Writer(model).write()


class _Writer:
    """Writes one fx graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.root = torch.nn.Module()
        self.graph = fx.Graph()
        self.tracer = fx.proxy.GraphAppendingTracer(self.graph)
        self.values: dict[str, Any] = {}
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.shapes = {name: value.shape for name, value in self.constants.items()}
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
            self.shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)

    def write(self) -> fx.GraphModule:
        """The module."""
        for value in self.model.graph.input:
            if value.name not in self.constants:
                place = self.graph.placeholder(f"input_{len(self.values)}")
                self.values[value.name] = fx.Proxy(place, self.tracer)
        origins: dict[str, str] = {}
        for node in self.model.graph.node:
            before = len(self.graph.nodes)
            self._node(node)
            for made in list(self.graph.nodes)[before:]:
                origins[made.name] = node.name or node.output[0]
        self.graph.output(tuple(self._proxy(o.name).node for o in self.model.graph.output))
        module = fx.GraphModule(self.root, self.graph)
        module.meta["onnx"] = origins
        return module.eval()

    def _node(self, node: onnx.NodeProto) -> None:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            value = np.asarray(
                numpy_helper.to_array(attrs["value"]) if "value" in attrs else next(iter(attrs.values()))
            )
            self.constants[node.output[0]] = value
            self.shapes[node.output[0]] = value.shape
            return
        call = Call(attrs, list(node.input), len(node.output), self.constants, self.shapes, self._proxy)
        try:
            results = OPS[node.op_type](call)
        except KeyError as error:
            raise UnsupportedOpError(
                f"{node.op_type} {node.name!r} has no torch form with {error} known only at run time;"
                " measure on onnxruntime"
            ) from None
        for name, value in zip(node.output, results if isinstance(results, tuple) else (results,), strict=False):
            self.values[name] = value

    def _proxy(self, name: str) -> Any:
        """The tensor as a proxy; a constant becomes a buffer when it is first asked for."""
        if name not in self.values:
            buffer = f"constant_{len(self.values)}"
            self.root.register_buffer(buffer, torch.from_numpy(np.array(self.constants[name])))
            self.values[name] = fx.Proxy(self.graph.get_attr(buffer), self.tracer)
        return self.values[name]


class _Clock(fx.Interpreter):
    """Runs a module node by node and adds up the time of each ONNX node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.origins: Mapping[str, str] = module.meta["onnx"]
        self.spent: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        start = time.perf_counter()
        result = super().run_node(n)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if n.op not in ("placeholder", "get_attr", "output"):
            node = self.origins[n.name]
            self.spent[node] = self.spent.get(node, 0.0) + (time.perf_counter() - start) * 1e3
        return result


def _operator_times(module: fx.GraphModule, tensors: list[Any]) -> Operators:
    """(node, median ms) over a few runs, each call waited for."""
    runs: list[dict[str, float]] = []
    for _ in range(_PROFILED_RUNS):
        clock = _Clock(module)
        with torch.inference_mode():
            clock.run(*tensors)
        runs.append(clock.spent)
    return tuple((node, float(np.median([run[node] for run in runs]))) for node in runs[0])


def _tensor(value: Any, device: str, dtype: torch.dtype) -> torch.Tensor:
    tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(value)
    return tensor.to(device=device, dtype=dtype) if tensor.is_floating_point() else tensor.to(device)


def _floats(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in _floats(v)] if isinstance(value, (list, tuple)) else []

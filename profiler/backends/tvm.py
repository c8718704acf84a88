"""Apache TVM through Relax: LLVM on the CPU, CUDA where TVM has it, or a device behind an RPC tracker."""

from __future__ import annotations

import os
import socket
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from costmodel.errors import ProfileError
from profiler.backends.base import Backend, Runner, all_finite, leading
from profiler.request import Request

_PATIENCE_S = 5.0


def backend(name: str) -> Backend:
    """The only one."""
    return Tvm()


class Tvm:
    """Relax's default pipeline, without tuning."""

    name = "tvm"
    preload: tuple[str, ...] = ("numpy", "onnx", "tvm", "tvm.relax", "tvm.relax.frontend.onnx")

    def missing(self) -> str | None:
        try:
            version("apache-tvm")
        except PackageNotFoundError:
            return "install ledg-cost[tvm]"
        return None

    def runtime(self) -> str:
        return f"tvm-{version('apache-tvm').split('.post')[0]}"

    def precisions(self) -> tuple[str, ...]:
        return ("fp32",)

    def on_gpu(self) -> bool:
        import tvm

        return bool(tvm.cuda(0).exist)

    def open(self, request: Request) -> Runner:
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        from profiler.onnx_model import prepare
        from profiler.weights import make_inputs

        os.environ["TVM_NUM_THREADS"] = str(request.threads)
        model = onnx.shape_inference.infer_shapes(prepare(request))
        feeds = make_inputs(model, request.seed)
        module = from_onnx(model, keep_params_in_input=False)
        remote = _remote(request)
        target, device = _target(tvm, remote, request.threads)
        with target:
            executable = relax.build(_scheduled(module, target), target)
        machine = relax.VirtualMachine(_shipped(executable, remote), device)
        values = [tvm.runtime.tensor(value, device) for value in feeds.values()]
        machine.set_input("main", *values)

        def run() -> None:
            machine.invoke_stateful("main")
            device.sync()

        return Runner(run=run, batch=leading(feeds), finite=lambda: all_finite(_results(machine.get_outputs("main"))))


def _remote(request: Request) -> Any:
    """A session on the tracked device, None without a tracker. Raises ProfileError if there is none."""
    if not request.tracker:
        return None
    from tvm import rpc

    host, _, port = request.tracker.rpartition(":")
    if not host or not port.isdigit():
        raise ProfileError(f"cannot read tracker {request.tracker!r}; write --tracker HOST:PORT --key NAME")
    try:
        socket.create_connection((host, int(port)), _PATIENCE_S).close()  # TVM itself tries for a minute
        return rpc.connect_tracker(host, int(port)).request(request.key, session_timeout=int(request.timeout_s))
    except Exception as error:  # whatever the connection raises
        text = " ".join(str(error).split())[:200]
        raise ProfileError(
            f"no device {request.key!r} at tracker {request.tracker} ({text}); start its server"
        ) from None


def _target(tvm: Any, remote: Any, threads: int) -> tuple[Any, Any]:
    """The target to build for and the device to run on: CUDA if there is one, else LLVM."""
    if remote is not None:
        return tvm.target.Target({"kind": "llvm", "num-cores": threads}), remote.cpu(0)
    if tvm.cuda(0).exist:
        return tvm.target.Target.from_device(tvm.cuda(0)), tvm.cuda(0)
    host = {"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu(), "num-cores": threads}
    return tvm.target.Target(host), tvm.cpu(0)


def _scheduled(module: Any, target: Any) -> Any:
    """Legalised, fused and, for GPUs, scheduled by rules."""
    from tvm import relax

    module = relax.transform.DecomposeOpsForInference()(module)
    module = relax.pipeline.get_pipeline("zero")(module)
    if target.kind.name == "cuda":
        from tvm.s_tir import dlight

        rules = (dlight.gpu.Matmul(), dlight.gpu.GEMV(), dlight.gpu.Reduction(), dlight.gpu.GeneralReduction())
        module = dlight.ApplyDefaultSchedule(*rules, dlight.gpu.Fallback())(module)
    return module


def _shipped(executable: Any, remote: Any) -> Any:
    """The executable, or its library loaded on the remote device."""
    if remote is None:
        return executable
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.so")
        executable.export_library(path)
        remote.upload(path)
    return remote.load_module("network.so")


def _results(value: Any) -> list[np.ndarray]:
    return [value.numpy()] if hasattr(value, "numpy") else [array for part in value for array in _results(part)]

"""What other tools do in the time of an estimate; each is optional. Used by `tools/bench.py`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_S = 300
TRAINED, ASKED = 128, 64
"""Measured programs that TVM's model is fitted to, and programs that it then ranks."""


def milliseconds(work: Callable[[], Any], runs: int) -> float:
    """Median processor time of one call, after one call to warm up."""
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return round(1e3 * statistics.median(times), 2)


def ours(model: str, runs: int) -> dict[str, Any]:
    """LeDG-Cost itself, for scale."""
    from costmodel.api import load_graph
    from costmodel.platforms import resolve
    from costmodel.predictor import load

    t4, predictor = resolve("t4"), load()
    took = milliseconds(lambda: predictor.estimate(load_graph(model), t4), runs)
    return {"does": "latency of ResNet-50 on a device, from the ONNX file", "ms": took}


def onnx_tool(model: str, runs: int) -> dict[str, Any]:
    """onnx-tool's profile of the same file."""
    import numpy as np
    import onnx_tool as tool  # type: ignore[import-not-found]
    from onnx import load as load_onnx

    graph = load_onnx(model, load_external_data=False).graph
    known = {tensor.name for tensor in graph.initializer}
    feed = {
        i.name: np.zeros([d.dim_value for d in i.type.tensor_type.shape.dim], np.float32)
        for i in graph.input
        if i.name not in known
    }

    def profile() -> None:
        network = tool.Model(model)
        network.graph.shape_infer(feed)
        network.graph.profile()

    took = milliseconds(profile, runs)
    return {"does": "MACs and bytes per node of ResNet-50, from the ONNX file; no latency", "ms": took}


def torch_flop_counter(model: str, runs: int) -> dict[str, Any]:
    """torch.utils.flop_counter over a ResNet-50 without data."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.set_num_threads(1)
    with torch.device("meta"):
        network, image = ResNetForImageClassification(ResNetConfig()).eval(), torch.empty(1, 3, 224, 224)

    def count() -> None:
        with FlopCounterMode(display=False), torch.no_grad():
            network(image)

    return {"does": "FLOPs of ResNet-50, from the torch module in memory; no latency", "ms": milliseconds(count, runs)}


def tvm_xgb(model: str, runs: int) -> dict[str, Any]:
    """TVM's XGBModel on schedules of one matrix product, fitted to made-up times, which does not change the work."""
    import numpy as np
    from tvm import te
    from tvm.s_tir import meta_schedule as ms
    from tvm.target import Target

    a, b = (te.placeholder((512, 512), name=name) for name in "AB")
    k = te.reduce_axis((0, 512), "k")
    c = te.compute((512, 512), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    context = ms.TuneContext(
        mod=te.create_prim_func([a, b, c]), target=Target({"kind": "llvm", "num-cores": 1}),
        space_generator="post-order-apply", search_strategy="replay-trace", num_threads=1,
    )  # fmt: skip
    space = context.generate_design_space()
    context.pre_tuning(max_trials=TRAINED, num_trials_per_iter=TRAINED, design_spaces=space)
    candidates = context.generate_measure_candidates()
    xgb = ms.cost_model.XGBModel(num_warmup_samples=1, num_tuning_cores=1, verbose_eval=0)
    times = np.random.default_rng(0).uniform(1e-3, 1e-2, len(candidates))
    xgb.update(context, candidates, [ms.runner.RunnerResult(run_secs=[float(t)], error_msg=None) for t in times])
    asked = list(candidates)[:ASKED]
    took = milliseconds(lambda: xgb.predict(context, asked), runs)
    return {"does": f"scores {len(asked)} schedules of one matrix product, from measured ones; no network", "ms": took}


PEERS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "ledg-cost": ours,
    "onnx-tool": onnx_tool,
    "torch FlopCounterMode": torch_flop_counter,
    "TVM XGBModel.predict": tvm_xgb,
}


def table(model: str, runs: int, tvm_python: str) -> dict[str, dict[str, Any]]:
    """Each peer in a process of its own: what it does and milliseconds, or why it was skipped."""
    found = {}
    for name in PEERS:
        python = tvm_python if name.startswith("TVM") else sys.executable
        try:
            done = subprocess.run(
                [python, str(Path(__file__)), name, model, str(runs)], capture_output=True, text=True, timeout=TIMEOUT_S
            )
            found[name] = json.loads(done.stdout.splitlines()[-1])
        except (OSError, subprocess.TimeoutExpired, IndexError, ValueError) as error:
            found[name] = {"skipped": type(error).__name__}
    return found


def main() -> None:
    """One peer: `python tools/peers.py NAME MODEL RUNS`; the last line is its entry as JSON."""
    name, model, runs = sys.argv[1:]
    try:
        entry = PEERS[name](model, int(runs))
    except ImportError as error:
        entry = {"skipped": f"{error.name} is not installed"}
    except Exception as error:
        entry = {"skipped": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    print(json.dumps(entry))


if __name__ == "__main__":
    main()

"""Speed of the product as ratios and counts per second, medians over runs: `python tools/bench.py [--out FILE]`.

Everything runs in this call on this machine, so the ratios compare like with like. Needs no corpora and no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASE = "import onnxruntime, onnx, numpy, click"
SIZES = (1_000, 10_000, 50_000)


def median_seconds(work: Callable[[], Any], runs: int) -> float:
    """Median wall seconds of one call, after one call to warm up."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def process(*args: str) -> Callable[[], Any]:
    """A call that runs `python args…` to its end."""
    return lambda: subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)


def cold(model: str, runs: int) -> dict[str, float]:
    """Whole processes, as ratios to importing the libraries that any answer needs."""
    base = median_seconds(process("-c", BASE), runs)
    commands = {"estimate": ["estimate", model, "--target", "t4"], "help": ["--help"]}
    return {
        f"cold_{name}_to_import": round(median_seconds(process("-m", "costmodel.cli", *args), runs) / base, 3)
        for name, args in commands.items()
    }


def warm(model: str, runs: int) -> dict[str, float]:
    """In one process: milliseconds of an estimate, and of one more platform."""
    from costmodel.api import load_graph
    from costmodel.platforms import list_devices, load_device, resolve, supported_precisions
    from costmodel.predictor import load

    predictor, graph = load(), load_graph(model)
    platforms = [resolve(d, supported_precisions(load_device(d))[0]) for d in list_devices()]
    t4, encoded = resolve("t4", "int8"), predictor.encode(graph)
    one = median_seconds(lambda: predictor.answer(encoded, [t4]), runs)
    all_ = median_seconds(lambda: predictor.answer(encoded, platforms), max(runs // 5, 3))
    return {
        "warm_estimate_graph_ms": round(1e3 * median_seconds(lambda: predictor.estimate(graph, t4), runs), 2),
        "warm_estimate_path_ms": round(
            1e3 * median_seconds(lambda: predictor.estimate(load_graph(model), t4), runs), 2
        ),
        "one_platform_ms": round(1e3 * one, 3),
        "one_more_platform_ms": round(1e3 * (all_ - one) / (len(platforms) - 1), 3),
        "platform_answers_per_second": round(len(platforms) / all_),
        "lowering_nodes_per_second": round(len(graph) / median_seconds(lambda: load_graph(model), runs)),
        "resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }


def grown(nodes: int) -> dict[str, float]:
    """Seconds and peak memory of an estimate of a chain with side branches; run in a process of its own."""
    from costmodel.ir import GraphBuilder
    from costmodel.platforms import resolve
    from costmodel.predictor import load

    b = GraphBuilder("chain")
    x = b.input((1, 64))
    while len(b.nodes) < nodes - 2:
        y = b.node("Gemm", [x, b.param((64, 64)), b.param((64,))], (1, 64), transA=0, transB=1)
        x = b.node("Add", [b.node("Relu", [y], (1, 64)), x], (1, 64))
    graph, predictor = b.build([x]), load()
    predictor.estimate(graph, resolve("t4"))
    start = time.perf_counter()
    predictor.estimate(graph, resolve("t4"))
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 3), "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}


def growth() -> dict[str, dict[str, float]]:
    """`grown` at each of SIZES."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from bench import grown;"
        " print(json.dumps(grown(int(sys.argv[2]))))"
    )
    found = {}
    for nodes in SIZES:
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(nodes)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[str(nodes)] = json.loads(done.stdout)
    return found


def main() -> None:
    """Prints the figures as JSON and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import onnx

    model = os.path.join(os.path.dirname(onnx.__file__), "backend/test/data/light/light_resnet50.onnx")
    figures: dict[str, Any] = {"schema": 1, "model": "light_resnet50", **cold(model, max(args.runs // 3, 3))}
    figures |= warm(model, args.runs)
    figures["nodes"] = growth()
    text = json.dumps(figures, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

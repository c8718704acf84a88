"""Speed of the product as ratios and counts per second, medians over runs: `python tools/bench.py [--out FILE]`.

Everything runs in this call on this machine with one thread, so ratios compare like with like. Seconds are of processor
time, which is what a clock shows on an idle machine and what other work on a shared one does not blur. Graphs are fresh
in every run: what a graph keeps of an earlier answer is not timed. Needs no corpora and no torch; other tools are timed
in the same call where they are installed (`--tvm-python` names an interpreter that has TVM).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import peers  # noqa: E402

BASE = "import onnxruntime, onnx, numpy, click"
SIZES = (1_000, 10_000, 50_000)
GRAPH_NODES = 150
"""Throughput is given in graphs of so many nodes."""


def median_seconds(work: Callable[[], Any], runs: int) -> float:
    """Median seconds of one call, after one call to warm up."""
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def process_seconds(*args: str) -> float:
    """Seconds of `python args…` from start to end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cold(model: str, runs: int) -> dict[str, float]:
    """Whole processes, as ratios to importing the libraries that any answer needs, the three in turn."""
    calls = {
        "base": ("-c", BASE),
        "estimate": ("-m", "costmodel.cli", "estimate", model, "--target", "t4"),
        "help": ("-m", "costmodel.cli", "--help"),
    }
    rounds = [[process_seconds(*args) for args in calls.values()] for _ in range(runs + 1)]
    base, *others = (statistics.median(times) for times in zip(*rounds[1:], strict=True))
    return {f"cold_{name}_to_import": round(s / base, 3) for name, s in zip(list(calls)[1:], others, strict=True)}


def warm(model: str, runs: int) -> dict[str, float]:
    """In one process: milliseconds of an estimate, and of one more platform."""
    from costmodel.api import load_graph
    from costmodel.platforms import list_devices, load_device, resolve, supported_precisions
    from costmodel.predictor import load

    predictor, graph = load(), load_graph(model)
    fresh = cycle([replace(graph) for _ in range(runs + 1)])
    platforms = [resolve(d, supported_precisions(load_device(d))[0]) for d in list_devices()]
    t4, encoded = resolve("t4", "int8"), predictor.encode(graph)
    measured = resolve("rtx3090", "fp16", "pytorch-eager")
    few = max(runs // 3, 3)
    one = median_seconds(lambda: predictor.answer(encoded, [t4]), runs)
    many = median_seconds(lambda: predictor.answer(encoded, platforms), few)
    broken_down = median_seconds(lambda: [len(list(e.operators)) for e in predictor.answer(encoded, platforms)], few)
    alone = median_seconds(lambda: predictor.latencies([encoded], platforms), few)
    lowering = median_seconds(lambda: load_graph(model), runs)
    return {
        "warm_estimate_graph_ms": round(1e3 * median_seconds(lambda: predictor.estimate(next(fresh), t4), runs), 2),
        "warm_estimate_path_ms": round(
            1e3 * median_seconds(lambda: predictor.estimate(load_graph(model), t4), runs), 2
        ),
        "one_platform_ms": round(1e3 * one, 3),
        "one_measured_platform_ms": round(1e3 * median_seconds(lambda: predictor.answer(encoded, [measured]), runs), 3),
        "one_more_platform_ms": round(1e3 * (many - one) / (len(platforms) - 1), 3),
        "platform_answers_per_second": round(len(platforms) / many),
        "platform_answers_with_operators_per_second": round(len(platforms) / broken_down),
        "platform_latencies_per_second": round(len(platforms) / alone),
        "lowering_nodes_per_second": round(len(graph) / lowering),
        "resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }


def throughput(models: list[str], runs: int) -> dict[str, float]:
    """Graphs per second on one core: several in one run of the network, and architecture strings from text to rank."""
    from costmodel.api import load_graph
    from costmodel.corpora import nb201
    from costmodel.platforms import resolve
    from costmodel.predictor import load

    predictor, t4 = load(), [resolve("t4")]
    graphs = [load_graph(model) for model in models] * 4
    sets = cycle([[replace(graph) for graph in graphs] for _ in range(runs + 1)])
    batched = median_seconds(lambda: predictor.latencies(predictor.encode_many(next(sets), t4), t4), runs)
    ops, count = nb201.OPERATIONS, 200
    archs = [
        "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*(ops[(i // 5**k + i * k) % 5] for k in range(6)))
        for i in range(7, 7 + 71 * count, 71)
    ]
    parts = [archs[i : i + 20] for i in range(0, count, 20)]

    def rank() -> None:
        for part in parts:
            predictor.latencies(predictor.encode_many([nb201.build(arch, folded=True) for arch in part], t4), t4)

    return {
        f"graphs_of_{GRAPH_NODES}_nodes_per_second": round(sum(map(len, graphs)) / batched / GRAPH_NODES),
        "architecture_strings_per_second": round(count / median_seconds(rank, max(runs // 2, 1))),
    }


def weighty_file(path: Path, megabytes: int, layers: int = 16) -> None:
    """A chain of `layers` Gemms whose weights, `megabytes` in all, stand inside the ONNX file; holes on the disk."""
    from onnx import TensorProto, helper

    side = int((megabytes * 1e6 / layers / 4) ** 0.5)
    bodies = [(f"w{i}", 4 * side * side) for i in range(layers)]
    nodes = [helper.make_node("Gemm", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(layers)]
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1, side]) for i in (0, layers)]
    graph = helper.make_graph(nodes, "weighty", ends[:1], ends[1:]).SerializeToString()
    heads = []
    for name, size in bodies:
        tensor = TensorProto(name=name, dims=[side, side], data_type=TensorProto.FLOAT).SerializeToString()
        tensor += b"\x4a" + _varint(size)  # raw_data
        heads.append(b"\x2a" + _varint(len(tensor) + size) + tensor)  # initializer
    model = helper.make_model(helper.make_graph([], "", [], []), opset_imports=[helper.make_opsetid("", 17)])
    model.ClearField("graph")
    length = len(graph) + sum(len(head) + size for head, (_, size) in zip(heads, bodies, strict=True))
    with path.open("wb") as file:
        file.write(model.SerializeToString() + b"\x3a" + _varint(length) + graph)
        for head, (_, size) in zip(heads, bodies, strict=True):
            file.write(head)
            file.seek(size, os.SEEK_CUR)
        file.truncate()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def read_bytes() -> int:
    """Bytes that this process has read through calls, and a page for each page fault, of mapped files or its own."""
    calls = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int(calls.split()[1]) + resource.getpagesize() * (usage.ru_minflt + usage.ru_majflt)


def lowered_from_disk(path: Path) -> dict[str, float]:
    """Bytes read and seconds taken to lower a file, once the libraries are loaded; run in a process of its own."""
    from costmodel.api import load_graph

    small = path.with_name("small.onnx")
    weighty_file(small, 1)
    load_graph(small)
    before, start = read_bytes(), time.process_time()
    load_graph(path)
    return {
        "file_mb": round(path.stat().st_size / 1e6),
        "read_mb": round((read_bytes() - before) / 1e6, 2),
        "seconds": round(time.process_time() - start, 4),
    }


def weights() -> dict[str, float]:
    """What lowering a 2-GB file reads of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weighty.onnx"
        weighty_file(path, 2_000)
        return _apart("lowered_from_disk", f"Path({str(path)!r})")


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
    predictor.estimate(replace(graph), resolve("t4"))
    start = time.process_time()
    predictor.estimate(graph, resolve("t4"))
    seconds = time.process_time() - start
    return {"seconds": round(seconds, 3), "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}


def _apart(function: str, argument: str) -> dict[str, float]:
    """A function of this module in a process of its own."""
    code = f"import json; from tools.bench import Path, {function}; print(json.dumps({function}({argument})))"
    here = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": here}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    """Prints the figures as JSON and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tvm-python", default=sys.executable, help="interpreter that can import TVM and xgboost")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import onnx

    light = Path(onnx.__file__).parent / "backend/test/data/light"
    model, models = str(light / "light_resnet50.onnx"), sorted(map(str, light.glob("*.onnx")))
    few = max(args.runs // 3, 3)
    figures: dict[str, Any] = {"schema": 2, "model": "light_resnet50", **cold(model, few)}
    figures |= warm(model, args.runs)
    figures |= throughput(models, few)
    figures["weights"] = weights()
    figures["nodes"] = {str(size): _apart("grown", str(size)) for size in SIZES}
    figures["peers"] = peers.table(model, few, args.tvm_python)
    text = json.dumps(figures, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

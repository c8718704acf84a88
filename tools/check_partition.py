"""Plans of five real networks: optimal, right, and as fast as predicted?

    python tools/check_partition.py --data ../shared/datasets --target NAME --out results/partition.json

For each network, on two simulated devices (t4:fp16 and p4:int8 over pcie3x16):

- optimal: the pipeline of each objective against enumeration of every cut in both orders, and the placement of the
  network's first 14 fusion groups against enumeration of all 2^14, priced by code of its own here;
- right: the throughput plan's split files, run as two sessions, against the whole model: largest difference over the
  largest result.

With --target, a device that has estimates for runtimes onnxruntime and openvino, and both providers installed: the
throughput plan over the CPU provider pinned to one core and OpenVINO to another, both fp32 with one thread; predicted
against measured milliseconds per input of the stream and of each provider running the whole alone, medians of
interleaved rounds. The link is this process: 10 GB/s and 30 µs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx

from costmodel import predictor
from costmodel.api import load_graph
from costmodel.errors import LedgCostError
from costmodel.estimates import CostModel
from costmodel.integrations.ort import Pipeline, Provider, assigned
from costmodel.ir import Graph
from costmodel.partition import LINKS, FileCuts, Link, Plan, partition
from costmodel.partition import pipeline as pipelines
from costmodel.partition import placement as placements
from costmodel.partition.problem import Flow, Problem, build
from costmodel.partition.split import file_cuts, split_plan
from costmodel.platforms import Platform, resolve
from profiler.environment import environment
from tools.commands import command_line
from tools.real_networks import ready, timm

NETWORKS = (
    "resnet50@224",
    "mobilenetv3_large_100@224",
    "densenet121@224",
    "vit_tiny_patch16_224@224",
    "hrnet_w18_small@224",
)
DEVICES = ("t4:fp16", "p4:int8")
PREFIX = 14
PROVIDERS = ("cpu:fp32", "openvino:fp32")
HERE = "10:30"


def price(problem: Problem, devices: tuple[int, ...], sent: list[Flow]) -> tuple[float, float, float]:
    """Latency, bottleneck and largest share of memory, from each unit's device and each tensor sent, one by one."""
    busy, memory = [0.0, 0.0], [0.0, 0.0]
    for d in (0, 1):
        own = [u for u, device in enumerate(devices) if device == d]
        busy[d] = sum(float(problem.cost_ms[d, u]) for u in own)
        weights = {name: size for u in own for name, size in problem.weights[d][u]}
        live = max((float(problem.live[d, u]) for u in own), default=0.0)
        memory[d] = (sum(weights.values()) + live + sum(float(problem.held[d, u]) for u in own)) / problem.limits[d]
    moved = sum(problem.link.latency_us / 1e3 + flow.size / problem.link.gbs / 1e6 for flow in sent)
    moved = np.inf if any(flow.tensor in problem.fixed for flow in sent) else moved
    return sum(busy) + moved, max(*busy, moved), max(memory) if np.isfinite(moved) else np.inf


def every_cut(problem: Problem) -> dict[str, float]:
    """Best value of each objective over all cuts of two devices in both orders and over single devices."""
    n, values = len(problem.units), []
    for first, cut in itertools.product((0, 1), range(1, n + 1)):
        devices = tuple(first if u < cut else 1 - first for u in range(n))
        crossing = [f for f in problem.flows if f.made < cut <= max(f.read)]
        values.append(price(problem, devices, crossing))
    return {name: min(v[i] for v in values) for i, name in enumerate(pipelines.OBJECTIVES)}


def found_cut(problem: Problem) -> dict[str, float]:
    """What the dynamic programme finds, priced like the enumeration."""
    best = {}
    for i, objective in enumerate(pipelines.OBJECTIVES):
        stages = pipelines.solve(problem, objective, any_order=True)
        assert stages is not None
        devices = tuple(d for d, start, stop in stages for _ in range(start, stop))
        sent = [f for _, start, _ in stages[1:] for f in problem.crossing(start)]
        best[objective] = price(problem, devices, sent)[i]
    return best


def beginning(problem: Problem, count: int) -> Problem:
    """The first units alone, with the tensors among them. The second device is made up to three times faster or slower
    than the first, by unit (seed 0), and joined by a fast link, so that the best placement mixes devices."""
    flows = tuple(
        Flow(f.tensor, f.size, f.made, read) for f in problem.flows if (read := tuple(r for r in f.read if r < count))
    )
    weights = tuple(device[:count] for device in problem.weights)
    cost = problem.cost_ms[:, :count]
    cost = np.stack([cost[0], cost[0] * 3 ** np.random.default_rng(0).uniform(-1, 1, count)])
    return Problem(
        problem.graph, problem.platforms, Link("fast", 300.0, 1.0), problem.units[:count], cost, weights,
        problem.live[:, :count], problem.held[:, :count], problem.limits, flows, problem.fixed,
    )  # fmt: skip


def placement_gap(problem: Problem) -> tuple[float, int]:
    """How far the minimum cut of the first units is from the best of all their placements, relative, and its parts."""
    small = beginning(problem, PREFIX)
    found = placements.solve(small)
    assert found is not None
    best = np.inf
    for devices in itertools.product((0, 1), repeat=len(small.units)):
        sent = [f for f in small.flows if any(devices[r] != devices[f.made] for r in f.read)]
        best = min(best, price(small, devices, sent)[0])
    return abs(placements.total_ms(small, found[0]) / best - 1), len(placements.parts(small, found[0]))


def check_optimal(graph: Graph, cuts: FileCuts, cost_model: CostModel) -> dict[str, Any]:
    """Relative gaps between what is found and what enumeration finds."""
    platforms = _simulated()
    estimates = cost_model.estimate_many(graph, platforms)
    problem = build(graph, estimates, platforms, LINKS["pcie3x16"], file=cuts)
    found, best = found_cut(problem), every_cut(problem)
    gap, parts = placement_gap(problem)
    return {
        "units": len(problem.units),
        "pipeline_gap": {name: abs(found[name] / best[name] - 1) for name in best},
        "placement_of_first_units": {"gap": gap, "parts": parts},
    }


def _simulated() -> list[Platform]:
    return [resolve(*text.split(":")) for text in DEVICES]


def check_right(model: onnx.ModelProto, feeds: dict[str, np.ndarray], plan: Plan) -> dict[str, Any]:
    """Difference of the split model from the whole, both on the CPU provider."""
    results = [o.name for o in model.graph.output]
    with Pipeline([model], ["cpu"], results) as whole:
        wanted = whole.run(feeds)
    with Pipeline(split_plan(model, plan), ["cpu"] * len(plan.parts), results) as pieces:
        found = pieces.run(feeds)
    gaps = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(wanted, found, strict=True)]
    return {
        "parts": len(plan.parts),
        "tensors_sent": len(plan.transfers),
        "largest_difference": max(gaps),
        "bitwise": all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True)),
    }


def stream_ms(pipeline: Pipeline, feeds: dict[str, np.ndarray], count: int) -> float:
    """Milliseconds per input of a stream of `count`, the filling of the pipeline left out."""
    stream = pipeline.stream([feeds] * (count + len(pipeline.sessions)))
    for _ in pipeline.sessions:
        next(stream)
    start = time.perf_counter()
    done = sum(1 for _ in stream)
    return (time.perf_counter() - start) * 1e3 / done


def check_time(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], graph: Graph, cuts: FileCuts, target: str,
    cost_model: CostModel, rounds: int, cpus: tuple[int, int],
) -> dict[str, Any]:  # fmt: skip
    """Predicted and measured times of the throughput plan over two providers, and of either alone."""
    providers = [Provider.parse(p) for p in PROVIDERS]
    plan = partition(
        graph, [p.platform(target) for p in providers], HERE, "throughput", any_order=True, cost_model=cost_model,
        file=cuts,
    )  # fmt: skip
    results = [o.name for o in model.graph.output]
    chosen = [part.device for part in plan.parts]
    open_ = [
        Pipeline([model], [providers[0]], results, [cpus[0]]),
        Pipeline([model], [providers[1]], results, [cpus[1]]),
        Pipeline(split_plan(model, plan), [providers[d] for d in chosen], results, [cpus[d] for d in chosen]),
    ]
    try:
        nodes = [{name: len(ops) for name, ops in assigned(s).items()} for s in open_[2].sessions]
        wanted, found = open_[0].run(feeds), open_[2].run(feeds)
        gap = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(wanted, found, strict=True))
        times: list[list[float]] = [[], [], []]
        latency, busy = [], []
        for _ in range(rounds):
            for pipeline, own in zip(open_, times, strict=True):
                own.append(stream_ms(pipeline, feeds, 8))
            start = time.perf_counter()
            open_[2].run(feeds)
            latency.append((time.perf_counter() - start) * 1e3)
            busy.append(open_[2].busy_ms())
    finally:
        for pipeline in open_:
            pipeline.close()
    alone, other, split = (statistics.median(t) for t in times)
    return {
        "parts": [PROVIDERS[d] for d in chosen],
        "largest_difference": gap,
        "assigned": nodes,
        "predicted_ms": {
            "alone": dict(zip(PROVIDERS, plan.single_ms, strict=True)),
            "per_input": plan.bottleneck_ms, "latency": plan.latency_ms, "parts": [p.compute_ms for p in plan.parts],
        },
        "measured_ms": {
            "alone": dict(zip(PROVIDERS, (alone, other), strict=True)),
            "per_input": split, "latency": statistics.median(latency),
            "parts": [statistics.median(b) for b in zip(*busy, strict=True)],
        },
        "predicted_speedup": min(ms for ms in plan.single_ms if ms) / plan.bottleneck_ms,
        "measured_speedup": min(alone, other) / split,
        "toss_up": plan.toss_up,
    }  # fmt: skip


def line(name: str, row: dict[str, Any]) -> str:
    """One network's row for people."""
    gaps = max(*row["optimal"]["pipeline_gap"].values(), row["optimal"]["placement_of_first_units"]["gap"])
    text = f"{name:28} gap {gaps:.1e}  difference {row['right']['largest_difference']:.1e}"
    if "time" in row:
        time_, p, m = row["time"], row["time"]["predicted_ms"], row["time"]["measured_ms"]
        text += (
            f"  per input {p['per_input']:.3g} ms predicted, {m['per_input']:.3g} measured;"
            f" speed-up {time_['predicted_speedup']:.2f} predicted, {time_['measured_speedup']:.2f} measured"
        )
    return text


def check(
    model: onnx.ModelProto, args: argparse.Namespace, cost_model: CostModel, cpus: tuple[int, ...]
) -> dict[str, Any]:
    """What is noted of one network. Raises LedgCostError where it cannot be planned, split or run."""
    model, feeds = ready(model)
    graph = load_graph(model)
    cuts = file_cuts(model, graph)
    plan = partition(graph, _simulated(), "pcie3x16", "throughput", any_order=True, file=cuts)
    row = {"optimal": check_optimal(graph, cuts, cost_model), "right": check_right(model, feeds, plan)}
    if args.target:
        row["time"] = check_time(model, feeds, graph, cuts, args.target, cost_model, args.rounds, (cpus[0], cpus[1]))
    return row


def main() -> None:
    """Checks every network, prints a line each, writes JSON where asked; exit status 1 if a plan is not optimal or
    a split computes something else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of timm_graphs.tar.xz")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--target", help="device to predict the two providers on; leave out to measure nothing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpus", default="0,1", help="the cores of the two providers")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cost_model, rows, left_out = predictor.load(), {}, {}
    cpus = tuple(int(c) for c in args.cpus.split(","))
    for name, model in timm(args.data, set(args.networks)):
        try:
            rows[name] = check(model, args, cost_model, cpus)
            print(line(name, rows[name]), flush=True)
        except LedgCostError as error:
            left_out[name] = str(error)
            print(f"{name}: left out, {error}", file=sys.stderr, flush=True)
    if args.out:
        record = {
            "schema": 1, "command": command_line(__file__, parser, args), "environment": environment(1, cpus, "normal"),
            "networks": rows, "left_out": left_out,
        }  # fmt: skip
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + os.linesep)
    gaps = [
        (*r["optimal"]["pipeline_gap"].values(), r["optimal"]["placement_of_first_units"]["gap"]) for r in rows.values()
    ]
    worst = max((max(g) for g in gaps), default=0.0)
    wrong = max((r["right"]["largest_difference"] for r in rows.values()), default=0.0)
    sys.exit(int(worst > 1e-9 or wrong > 1e-5 or len(rows) < len(args.networks)))


if __name__ == "__main__":
    main()

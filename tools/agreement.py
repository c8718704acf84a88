"""How far two graphs of one network agree: operators, FLOPs, parameters, bytes, and estimates of the released bundle.

Operators are compared after canonicalisation: views (Reshape, Flatten, Squeeze, Unsqueeze) count as one kind, and the
mean over all spatial axes of an image is a GlobalAveragePool however it is spelled. Estimates are compared twice: of
the graphs as they are (`estimate`), and of both graphs spelled alike (`estimate_respelled`), which tells differences in
the network from differences in how it is written down.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from costmodel import predictor
from costmodel.analysis import analyze
from costmodel.api import parse_platform
from costmodel.arithmetic import VIEWS
from costmodel.ir import Graph, Node

PLATFORMS = ("t4:fp16:tensorrt", "rtx3090:fp16:pytorch-eager")
QUANTITIES = ("flops", "params", "bytes")
TOLERANCE, EXACT = 0.01, 1e-4
POOLS = {"AveragePool", "MaxPool"}
MEAN, VIEW, POOL = (
    "spatial mean: ReduceMean or GlobalAveragePool",
    "views: Flatten, Squeeze, Unsqueeze or Reshape",
    "pool attributes: count_include_pad, ceil_mode",
)
ORDER = "order of the nodes"
EXPLANATIONS = {
    MEAN: "the mean over height and width has two spellings in ONNX and one in Relax; the bundle learned both apart",
    VIEW: "a change of shape without data movement has several spellings; no arithmetic or traffic differs",
    POOL: "a pool after LegalizeOps is loops: whether padding counts, and rounding up against padding, show no more",
    ORDER: "one fingerprint once spelled alike; nodes in another order have other neighbours in attention windows",
    "operator Pad": "TVM's importer writes uneven auto_pad as a Pad before the Conv, whose traffic is counted",
    "operator Gather": "torch's ONNX exporter writes AdaptiveAvgPool1d as a mean, a Gather and views",
}

Row = dict[str, Any]


def canonical(graph: Graph, node: Node) -> str:
    """Operator name; the mean over all spatial axes of an image is a GlobalAveragePool."""
    rank = len(graph.tensors[node.inputs[0]].shape) if node.inputs else 0
    spatial = node.op == "ReduceMean" and rank > 3 and node.attrs.get("axes") == tuple(range(2, rank))
    return "GlobalAveragePool" if spatial and node.attrs.get("keepdims") == 1 else node.op


def operators(graph: Graph) -> Counter[str]:
    """Multiset of canonical operator names; views are left out."""
    return Counter(canonical(graph, node) for node in graph.nodes if node.op not in VIEWS)


def respelled(graph: Graph) -> Graph:
    """The same network in one spelling: canonical operators, views as Reshape, pools with their rounding as padding."""
    return replace(graph, nodes=tuple(_respelled(graph, node) for node in graph.nodes))


def _respelled(graph: Graph, node: Node) -> Node:
    if node.op in ("Flatten", "Squeeze", "Unsqueeze"):
        return replace(node, op="Reshape", attrs={}, inputs=node.inputs[:1])
    if canonical(graph, node) != node.op:
        return replace(node, op=canonical(graph, node), attrs={})
    if node.op not in POOLS:
        return node
    attrs: dict[str, Any] = {k: v for k, v in node.attrs.items() if k != "count_include_pad"}
    kernel, strides, pads = (tuple(attrs[k]) for k in ("kernel_shape", "strides", "pads"))
    before, after = pads[: len(kernel)], list(pads[len(kernel) :])
    before_size, after_size = (graph.tensors[t].shape[2:] for t in (node.inputs[0], node.outputs[0]))
    for i, (k, s) in enumerate(zip(kernel, strides, strict=True)):
        reach = (after_size[i] - 1) * s + attrs["dilations"][i] * (k - 1) + 1
        after[i] = max(reach - before_size[i] - before[i], 0)
    return replace(node, attrs={**attrs, "ceil_mode": 0, "pads": (*before, *after)})


def differences(first: Graph, second: Graph) -> dict[str, int]:
    """Kind of difference → nodes that are in one graph only; empty for the same nodes."""
    a, b = (Counter(_signature(graph, node) for node in graph.nodes) for graph in (first, second))
    found: Counter[str] = Counter()
    for name, op, *_ in ((a - b) + (b - a)).elements():
        if name == "GlobalAveragePool":
            found[MEAN] += 1
        elif op in VIEWS:
            found[VIEW] += 1
        elif op in POOLS:
            found[POOL] += 1
        else:
            found[f"operator {op}"] += 1
    return dict(found)


def _signature(graph: Graph, node: Node) -> tuple[str, ...]:
    attrs = (f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in sorted(node.attrs.items()))
    tensors = (str(graph.tensors[t]) if t else "-" for t in (*node.inputs, *node.outputs))
    return canonical(graph, node), node.op, *attrs, *tensors


def compare(first: Graph, second: Graph) -> Row:
    """Relative differences of the second graph from the first, and what tells the two apart."""
    a, b = analyze(first), analyze(second)
    before, after = operators(first), operators(second)
    estimate = estimates(first, second)
    found = differences(first, second)
    one, other = (respelled(first), respelled(second)) if found else (first, second)
    alike = estimates(one, other) if found else estimate
    if one.fingerprint == other.fingerprint and not within(alike, EXACT):
        found[ORDER] = len(first)
    return {
        "nodes": len(first),
        "identical": first.fingerprint == second.fingerprint,
        "flops": relative(b.flops, a.flops),
        "params": relative(b.params, a.params),
        "bytes": relative(b.read_bytes + b.write_bytes, a.read_bytes + a.write_bytes),
        "estimate": estimate,
        "estimate_respelled": alike,
        "coverage": b.coverage,
        "only_first": dict(before - after),
        "only_second": dict(after - before),
        "differences": found,
    }


def relative(value: float, reference: float) -> float:
    """Signed relative difference, to six digits."""
    return round(value / max(reference, 1e-12) - 1, 6)


def estimates(first: Graph, second: Graph) -> dict[str, float]:
    """Platform → relative difference of the second graph's estimate from the first one's."""
    platforms = [parse_platform(text) for text in PLATFORMS]
    model = predictor.load()
    pairs = zip(model.estimate_many(first, platforms), model.estimate_many(second, platforms), strict=True)
    return {text: relative(b.latency_ms, a.latency_ms) for text, (a, b) in zip(PLATFORMS, pairs, strict=True)}


def within(value: float | dict[str, float], tolerance: float = TOLERANCE) -> bool:
    """Whether a difference, or that on every platform, is inside the tolerance."""
    return all(abs(v) <= tolerance for v in (value.values() if isinstance(value, dict) else [value]))


def cause(row: Row) -> str:
    """What puts an estimate outside the tolerance: its spelling if respelling brings it back, or what is left then."""
    left = [kind for kind in row["differences"] if kind.startswith("operator") or kind == ORDER]
    if within(row["estimate_respelled"]) or not left:
        left = [kind for kind in (MEAN, POOL, VIEW) if kind in row["differences"]][:1] or left
    return " and ".join(sorted(left))


def tally(rows: Iterable[Row]) -> dict[str, Any]:
    """Counts over comparisons: how many agree in what, and which kinds of difference move estimates."""
    good = list(rows)
    report: dict[str, Any] = {
        "compared": len(good),
        "identical_fingerprint": sum(r["identical"] for r in good),
        "same_operators": sum(not r["only_first"] and not r["only_second"] for r in good),
    }
    for key in (*QUANTITIES, "estimate", "estimate_respelled"):
        report[f"{key}_within_1_percent"] = sum(within(r[key]) for r in good)
    outside = [r for r in good if not within(r["estimate"])]
    report["estimates_outside"] = dict(Counter(cause(r) for r in outside).most_common())
    report["fully_covered"] = sum(r["coverage"] == 1.0 for r in good)
    report["largest_estimate_difference"] = {
        platform: max((abs(r["estimate"][platform]) for r in good), default=0.0) for platform in PLATFORMS
    }
    report["graphs_with_difference"] = dict(Counter(kind for r in good for kind in r["differences"]).most_common())
    return report


def explained(rows: Iterable[Row]) -> dict[str, str]:
    """What the kinds of difference that occur come from."""
    kinds = {kind for row in rows for kind in row["differences"]}
    return {kind: text for kind, text in EXPLANATIONS.items() if kind in kinds}


def dumped(value: Any, depth: int, indent: int = 1) -> str:
    """JSON with one line per entry down to `depth` levels of tables, and what is below on one line."""
    if not depth or not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    lines = (f"{' ' * indent}{json.dumps(k)}: {dumped(v, depth - 1, indent + 1)}" for k, v in value.items())
    return "{\n" + ",\n".join(lines) + "\n" + " " * (indent - 1) + "}"

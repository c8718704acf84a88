"""How far two graphs of one network agree: operators, FLOPs, parameters, bytes, and estimates of the released bundle.

Both graphs are compared in their canonical form (`costmodel.canonical`), the one that estimates are made from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from costmodel import predictor
from costmodel.analysis import analyze
from costmodel.api import parse_platform
from costmodel.arithmetic import VIEWS
from costmodel.canonical import canonical
from costmodel.ir import Graph, Node

PLATFORMS = ("t4:fp16:tensorrt", "rtx3090:fp16:pytorch-eager")
QUANTITIES = ("flops", "params", "bytes")
TOLERANCE = 0.01
EXPLANATIONS = {
    "views": "a change of shape without data movement is one Reshape or two; no arithmetic or traffic differs",
    "operator Pad": "TVM's importer writes uneven auto_pad as a Pad before the Conv, whose traffic is counted",
    "operator Gather": "torch's ONNX exporter writes AdaptiveAvgPool1d as a mean, a Gather and views",
}

Row = dict[str, Any]


def operators(graph: Graph) -> Counter[str]:
    """Multiset of operator names; views are left out."""
    return Counter(node.op for node in graph.nodes if node.op not in VIEWS)


def differences(first: Graph, second: Graph) -> dict[str, int]:
    """Kind of difference → nodes that are in one canonical graph only; empty for the same nodes."""
    a, b = (Counter(_signature(graph, node) for node in graph.nodes) for graph in (first, second))
    found = ((a - b) + (b - a)).elements()
    return dict(Counter("views" if op in VIEWS else f"operator {op}" for op, *_ in found))


def _signature(graph: Graph, node: Node) -> tuple[str, ...]:
    attrs = (f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in sorted(node.attrs.items()))
    return node.op, *attrs, *(str(graph.tensors[t]) if t else "-" for t in (*node.inputs, *node.outputs))


def compare(first: Graph, second: Graph) -> Row:
    """Relative differences of the second graph from the first, and what tells the two apart."""
    first, second = canonical(first), canonical(second)
    a, b = analyze(first), analyze(second)
    before, after = operators(first), operators(second)
    return {
        "nodes": len(first),
        "identical": first.fingerprint == second.fingerprint,
        "flops": relative(b.flops, a.flops),
        "params": relative(b.params, a.params),
        "bytes": relative(b.read_bytes + b.write_bytes, a.read_bytes + a.write_bytes),
        "estimate": estimates(first, second),
        "coverage": b.coverage,
        "only_first": dict(before - after),
        "only_second": dict(after - before),
        "differences": differences(first, second),
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


def tally(rows: Iterable[Row]) -> dict[str, Any]:
    """Counts over comparisons: how many agree in what, and which kinds of difference move estimates."""
    good = list(rows)
    report: dict[str, Any] = {
        "compared": len(good),
        "identical_fingerprint": sum(r["identical"] for r in good),
        "same_operators": sum(not r["only_first"] and not r["only_second"] for r in good),
    }
    for key in (*QUANTITIES, "estimate"):
        report[f"{key}_within_1_percent"] = sum(within(r[key]) for r in good)
    outside = [r["differences"] or ["nothing that the tool tells apart"] for r in good if not within(r["estimate"])]
    report["estimates_outside"] = dict(Counter(" and ".join(sorted(kinds)) for kinds in outside).most_common())
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

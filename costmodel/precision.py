"""What each precision would cost, in time and in a screening figure for accuracy.

`sensitive_share` is no prediction of lost accuracy. It is the share of a network's layers in classes that are reported
to lose accuracy when they are narrowed without care (see `_CLASSES`), a reason to measure before deploying. A layer is
a product (Conv, Gemm, MatMul, …) or another operator that falls into a class.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.analysis import analyze, is_view
from costmodel.api import load_graph
from costmodel.errors import InputError, PlatformError
from costmodel.estimates import CostModel, Estimate, native_precision
from costmodel.ir import Graph, Node
from costmodel.platforms import Device, Precision, load_device, resolve, supported_precisions

_NORMS = frozenset(("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization"))
_GATES = frozenset(("Swish", "HardSwish", "Gelu", "Mish", "Sigmoid", "HardSigmoid", "Erf"))
_SUMS = frozenset(("ReduceSum", "ReduceSumSquare", "ReduceL2", "CumSum"))
_POWERS = frozenset(("Exp", "Pow", "ReduceSumSquare", "ReduceL2"))
_QUANTIZERS = frozenset(("QuantizeLinear", "DequantizeLinear"))

_CLASSES: dict[Precision, tuple[str, ...]] = {
    Precision.INT8: ("first or last product", "depthwise", "activation product", "after layer norm", "after gate"),
    Precision.FP8: ("first or last product",),
    Precision.FP16: ("power",),
    Precision.BF16: ("long sum",),
}
"""int8: first and last layers (Zhou et al. 2016), depthwise convolutions with their uneven channels and products behind
swish-like gates (Krishnamoorthi 2018, Nagel et al. 2021), products of two activations and products behind layer norm
with its outlier channels (Bondarenko et al. 2021). fp16: powers and exponentials that are nodes of their own leave its
range at 65504 (Micikevicius et al. 2018). bf16: sums outside products keep 8 bits. fp32 and tf32: none."""


@dataclass(frozen=True)
class PrecisionOption:
    """One precision on a device. `sensitive` counts layers per class; a layer may be in several."""

    precision: Precision
    estimate: Estimate
    sensitive_share: float
    sensitive: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PrecisionChoice:
    """All options, fastest first, and the fastest whose sensitive share is within the limit."""

    options: tuple[PrecisionOption, ...]
    best: PrecisionOption


def best_precision(
    model: Graph | str | os.PathLike[str] | Any,
    device: str | os.PathLike[str] | Device,
    max_accuracy_risk: float,
    *,
    runtime: str | None = None,
    precisions: Sequence[str | Precision] | None = None,
    batch: int | None = None,
    cost_model: CostModel | None = None,
) -> PrecisionChoice:
    """The fastest precision whose `sensitive_share` is at most `max_accuracy_risk` (0…1).

    The network's own precision costs no accuracy: its share, and that of wider ones, is 0. `precisions` default to all
    that the device has a throughput for. Raises InputError or PlatformError.
    """
    if not 0 <= max_accuracy_risk <= 1:
        raise InputError(f"max_accuracy_risk {max_accuracy_risk} is not a share; give 0…1")
    sheet = device if isinstance(device, Device) else load_device(device)
    wanted = [Precision.parse(p) for p in precisions] if precisions else list(supported_precisions(sheet))
    graph = load_graph(model, batch)
    own = Precision.parse(native_precision(graph))
    if cost_model is None:
        from costmodel import predictor

        cost_model = predictor.load()
    estimates = cost_model.estimate_many(graph, [resolve(sheet, p, runtime) for p in wanted])
    options = [
        PrecisionOption(p, e, *((0.0, ()) if p is own or p.bytes > own.bytes else sensitive_share(graph, p)))
        for p, e in zip(wanted, estimates, strict=True)
    ]
    options.sort(key=lambda o: o.estimate.latency_ms)
    allowed = [o for o in options if o.sensitive_share <= max_accuracy_risk]
    if not allowed:
        lowest = min(o.sensitive_share for o in options)
        raise PlatformError(
            f"no precision of {sheet.name} stays within {max_accuracy_risk:.0%} sensitive layers;"
            f" allow {lowest:.0%} or more, or add fp32"
        )
    return PrecisionChoice(tuple(options), allowed[0])


def sensitive_share(graph: Graph, precision: str | Precision) -> tuple[float, tuple[tuple[str, int], ...]]:
    """Share of layers in the classes that are sensitive to a precision, 0…1, and how many are in each class."""
    wanted = _CLASSES.get(Precision.parse(precision), ())
    products = [i for i, cost in enumerate(analyze(graph).nodes) if cost.kind == "matmul"]
    ends = _ends(graph, frozenset(products)) if "first or last product" in wanted else frozenset()
    layers, hit, counts = set(products), 0, Counter[str]()
    for i, node in enumerate(graph.nodes):
        found = [c for c in _classes(graph, node, i in layers, i in ends) if c in wanted]
        if found:
            hit += 1
            layers.add(i)
            counts.update(found)
    return (hit / len(layers) if layers else 0.0), tuple(counts.most_common())


def _classes(graph: Graph, node: Node, product: bool, end: bool) -> list[str]:
    found = []
    if node.op in _POWERS:
        found.append("power")
    if node.op in _SUMS:
        found.append("long sum")
    if not product:
        return found
    if end:
        found.append("first or last product")
    data = graph.tensors[node.inputs[0]].shape
    group = int(node.attrs.get("group", 1))  # type: ignore[arg-type]
    if node.op == "Conv" and group > 1 and len(data) > 1 and group == data[1]:
        found.append("depthwise")
    if node.op in ("MatMul", "Attention") and not any(t in graph.params for t in node.inputs):
        found.append("activation product")
    source = _source(graph, node.inputs[0])
    if source is not None and source.op in _NORMS:
        found.append("after layer norm")
    if source is not None and (source.op in _GATES or _gated(graph, source)):
        found.append("after gate")
    return found


def _source(graph: Graph, tensor: str) -> Node | None:
    """The node that makes a tensor, looked up through views."""
    while tensor in graph.producer:
        node = graph.nodes[graph.producer[tensor]]
        if node.op not in _QUANTIZERS and not is_view(node, graph):
            return node
        tensor = node.inputs[0]
    return None


def _gated(graph: Graph, node: Node) -> bool:
    """x · gate(x), written out."""
    if node.op != "Mul":
        return False
    makers = [graph.nodes[graph.producer[t]] for t in node.inputs if t in graph.producer]
    return any(m.op in _GATES and m.inputs[0] in node.inputs for m in makers)


def _ends(graph: Graph, products: frozenset[int]) -> frozenset[int]:
    """Products with no other before them, and with no other behind them."""
    behind: list[bool] = []  # whether a product lies at or before the node
    first = set()
    for i, node in enumerate(graph.nodes):
        before = any(behind[graph.producer[t]] for t in node.inputs if t in graph.producer)
        if i in products and not before:
            first.add(i)
        behind.append(before or i in products)
    ahead = [False] * len(graph)
    last = set()
    for i in range(len(graph) - 1, -1, -1):
        after = any(ahead[user] for t in graph.nodes[i].outputs for user in graph.consumers.get(t, ()))
        if i in products and not after:
            last.add(i)
        ahead[i] = after or i in products
    return frozenset(first | last)

"""Estimates: the answer type, the `CostModel` protocol, the roofline model and the physical bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, overload

import numpy as np

from costmodel.analysis import Analysis, NodeCost, analyze, peak_memory_bytes, trip_count
from costmodel.canonical import canonical
from costmodel.features import FUSING_RUNTIMES, GraphFeatures, batch_of, extract, platform_rates, roofline_times
from costmodel.forms import Rewritten
from costmodel.ir import DType, Graph, Node
from costmodel.kinds import kind_counts, node_kinds
from costmodel.platforms import Platform

WINOGRAD_SAVING = 4.0
"""Most multiplications that Winograd's F(4×4, 3×3) saves in a 3×3 convolution (Lavin and Gray 2016)."""


@dataclass(frozen=True)
class OperatorCost:
    """One node's part of an estimate; `share` in 0…1, `limit` names what binds it: compute, memory or launch.

    Nodes of one `group` run as one kernel in runtimes that fuse; elsewhere every node is a group of its own.
    """

    name: str
    op: str
    latency_ms: float
    share: float
    flops: float
    limit: str
    group: int


class Operators(Sequence[OperatorCost]):
    """The nodes' parts of an estimate, in order: a tuple of `OperatorCost` that is made when it is first looked into.

    Most estimates are asked for their latency alone, and the parts of a thousand nodes take longer than the network.
    """

    def __init__(
        self, prepared: Prepared, platform: Platform, node_ms: np.ndarray, times: np.ndarray, latency_ms: float,
        rewritten: Rewritten | None = None,
    ) -> None:  # fmt: skip
        """`node_ms` (n,) in proportion to the nodes' parts of `latency_ms`; `times` (n, 4) as in `roofline_times`.
        Both are of the rewritten graph where there is one, whose parts the nodes of each group share by roofline."""
        self._prepared, self._platform, self._rewritten = prepared, platform, rewritten
        self._node_ms, self._times, self._latency_ms = node_ms, times, latency_ms

    @cached_property
    def _made(self) -> tuple[OperatorCost, ...]:
        prepared, times, node_ms, latency = self._prepared, self._times, self._node_ms, self._latency_ms
        if self._rewritten:
            times = roofline_times(prepared.features.columns, platform_rates(self._platform))
            node_ms = self._rewritten.share_out(node_ms, np.exp(times[:, -1].astype(np.float64)))
        total = float(node_ms.sum())
        node_ms = node_ms * (latency / total) if total > 0 else node_ms
        share = node_ms / latency if latency else np.zeros_like(node_ms)
        limit = [_LIMITS[k] for k in times[:, :3].argmax(1).tolist()] if len(node_ms) else []
        fuses = self._platform.runtime in FUSING_RUNTIMES
        groups = prepared.features.groups if fuses else range(len(prepared.graph))
        rows = zip(
            prepared.graph.nodes, prepared.analysis.nodes, node_ms.tolist(), share.tolist(), limit, groups, strict=True
        )
        return tuple(
            OperatorCost(node.name or node.op, node.op, latency_ms, part, cost.flops, bound, group)
            for node, cost, latency_ms, part, bound, group in rows
        )

    def __len__(self) -> int:
        return len(self._prepared.graph)

    @overload
    def __getitem__(self, index: int) -> OperatorCost: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[OperatorCost, ...]: ...

    def __getitem__(self, index: int | slice) -> OperatorCost | tuple[OperatorCost, ...]:
        return self._made[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._made == tuple(other)

    def __hash__(self) -> int:
        return hash(self._made)

    def __repr__(self) -> str:
        return repr(self._made)


_LIMITS = ("compute", "memory", "launch")


@dataclass(frozen=True)
class Estimate:
    """Latency of one forward pass of the whole batch on one platform.

    latency_ms, interval_ms  milliseconds; the interval is 90 % nominal
    provenance               measured, learned with N samples, zero-shot or roofline
    coverage                 share of nodes whose arithmetic is known, 0…1
    bound_ms                 no device with this spec sheet can be faster
    """

    target: str
    precision: str
    runtime: str
    batch: int
    latency_ms: float
    interval_ms: tuple[float, float]
    provenance: str
    coverage: float
    bound_ms: float
    flops: float
    params: int
    peak_memory_bytes: int
    warnings: tuple[str, ...] = ()
    operators: Sequence[OperatorCost] = field(default=(), repr=False)


class CostModel(Protocol):
    """Anything that estimates graphs on platforms."""

    def estimate(self, graph: Graph, platform: Platform) -> Estimate:
        """One platform."""
        ...

    def estimate_many(self, graph: Graph, platforms: Sequence[Platform]) -> list[Estimate]:
        """Several platforms for one reading of the graph."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A graph in its canonical form with everything that does not depend on the platform."""

    graph: Graph
    analysis: Analysis
    template: str
    _memory: dict[float, int] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def features(self) -> GraphFeatures:
        """What the network reads."""
        return extract(self.graph, self.template, self.analysis)

    @cached_property
    def _kinds(self) -> list[tuple[int, Node, NodeCost]]:
        """How many nodes there are of each kind, with one of them."""
        nodes, costs, first = self.graph.nodes, self.analysis.nodes, node_kinds(self.graph).first
        return [(n, nodes[i], costs[i]) for n, i in zip(kind_counts(self.graph), first, strict=True)]

    @cached_property
    def demand(self) -> tuple[float, float, float, list[tuple[int, float]]]:
        """FLOPs of matrix work (3×3 convolutions at Winograd's count) and of the rest, weight elements read, and
        elements with bytes each of the inputs and outputs."""
        graph = self.graph
        matrix = vector = weights = 0.0
        for count, node, cost in self._kinds:
            if cost.kind == "matmul":
                kernel, strides = node.attrs.get("kernel_shape"), node.attrs.get("strides")
                winograd = node.op == "Conv" and kernel == (3, 3) and strides == (1, 1)
                matrix += count * cost.flops / (WINOGRAD_SAVING if winograd else 1.0)
            else:
                vector += count * cost.flops
            weights += count * cost.param_read_elems
        ends = [graph.tensors[t] for t in {*graph.inputs, *graph.outputs} - graph.params]
        return matrix, vector, weights, [(spec.numel, spec.dtype.bytes) for spec in ends]

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What an estimate of this graph must tell on any platform."""
        notes = []
        unknown = sorted({node.op for _, node, cost in self._kinds if not cost.known})
        if unknown:
            notes.append(f"arithmetic unknown, counted by memory traffic alone: {', '.join(unknown)}")
        if any(trip_count(node) == 0 for _, node, _ in self._kinds):
            notes.append("loops of unknown length are counted once")
        return tuple(notes)

    def peak_memory_bytes(self, width: float) -> int:
        """Parameters and the largest set of live activations at `width` bytes per element."""
        if width not in self._memory:
            self._memory[width] = peak_memory_bytes(self.graph, width)
        return self._memory[width]

    @classmethod
    def of(cls, graph: Graph, template: str = "default") -> Prepared:
        """Analyses a graph. Raises InputError if its nodes do not fit their operators."""
        graph = canonical(graph)
        return cls(graph, analyze(graph), template)


def physical_bound_ms(prepared: Prepared, platform: Platform) -> float:
    """A time no implementation on this device can beat: the larger of arithmetic and compulsory traffic.

    Arithmetic: matrix work at the highest peak that the precision allows (3×3 convolutions at Winograd's count) beside
    element-wise work at the vector peak. Traffic: weights, inputs and outputs once (Williams et al. 2009).
    """
    matrix, vector, weights, ends = prepared.demand
    best, width = platform.peak_tflops * 1e9, platform.element_bytes
    traffic = weights * width + sum(numel * min(width, own) for numel, own in ends)
    return max(matrix / best, vector / (2 * best), traffic / (platform.device.bandwidth_gbs * 1e6))


class Roofline:
    """The sum over nodes of max(compute, memory) + launch at the spec sheet's peaks; no learning."""

    def estimate(self, graph: Graph, platform: Platform) -> Estimate:
        """One platform."""
        return self.estimate_many(graph, [platform])[0]

    def estimate_many(self, graph: Graph, platforms: Sequence[Platform]) -> list[Estimate]:
        """Several platforms."""
        prepared = Prepared.of(graph)
        answers = []
        for platform in platforms:
            times = roofline_times(prepared.features.columns, platform_rates(platform))
            latency = float(np.exp(times[:, 3]).sum())
            answers.append(
                assemble(prepared, platform, np.exp(times[:, 3]), times, (latency / 4, latency * 4), "roofline")
            )
        return answers


def assemble(
    prepared: Prepared,
    platform: Platform,
    node_ms: np.ndarray,
    times: np.ndarray,
    interval_ms: tuple[float, float],
    provenance: str,
    warnings: Sequence[str] = (),
    rewritten: Rewritten | None = None,
) -> Estimate:
    """Puts an estimate together; latency is the sum of `node_ms` (n,), lifted to the bound where it lies under it.
    `node_ms` and `times` are of the `rewritten` graph where there is one."""
    analysis = prepared.analysis
    bound = physical_bound_ms(prepared, platform)
    total = float(node_ms.sum())
    latency = max(total, bound)
    notes = list(warnings)
    if total < bound:
        notes.append(f"the model's {total:.3g} ms lies under the physical bound; the bound is reported")
    notes += prepared.remarks
    memory = prepared.peak_memory_bytes(platform.element_bytes)
    if platform.device.memory_gb and memory > platform.device.memory_gb * 1e9:
        notes.append(f"needs {memory / 1e9:.1f} GB, {platform.device.name} has {platform.device.memory_gb:g} GB")
    lo, hi = max(interval_ms[0], bound), max(interval_ms[1], latency)
    return Estimate(
        platform.device.name, platform.precision.value, platform.runtime_label, batch_of(prepared.graph), latency,
        (min(lo, latency), hi), provenance, analysis.coverage, bound, analysis.flops, analysis.params, memory,
        tuple(notes), Operators(prepared, platform, node_ms, times, latency, rewritten),
    )  # fmt: skip


def native_precision(graph: Graph) -> str:
    """The precision a graph is written in: int8 if it has quantised products, else the float type most tensors use."""
    made = [graph.tensors[t] for node in graph.nodes for t in node.outputs if t]
    products = [n for n in graph.nodes if n.op in ("Conv", "MatMul", "Gemm", "ConvTranspose")]
    if any(graph.tensors[n.inputs[0]].dtype.is_quantized for n in products):
        return "int8"
    halves = [DType.FLOAT16, DType.BFLOAT16]
    counts = [sum(s.dtype is d for s in made) for d in (DType.FLOAT32, *halves)]
    return ("fp32", "fp16", "bf16")[int(np.argmax(counts))]

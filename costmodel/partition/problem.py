"""What is to be partitioned: fusion groups in order, their cost on each device, and the tensors between them."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from costmodel.analysis import follows_precision, storage_roots
from costmodel.errors import InputError
from costmodel.estimates import Estimate
from costmodel.fusion import fusion_groups
from costmodel.ir import Graph
from costmodel.partition.links import Link
from costmodel.platforms import Platform

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Flow:
    """A tensor that other units read: `made` is the producing unit, `read` the reading ones, ascending."""

    tensor: str
    size: int
    made: int
    read: tuple[int, ...]


@dataclass(frozen=True)
class Hidden:
    """A tensor of the model file that the graph does not have, such as a computed shape: worked out from `sources` and
    read by the makers of `readers`, all of them tensors of the graph."""

    tensor: str
    sources: tuple[str, ...]
    readers: tuple[str, ...]


@dataclass(frozen=True)
class FileCuts:
    """What a model file says of cuts: `names` can be cut at, `hidden` tensors have to be handed on as well."""

    names: frozenset[str]
    hidden: tuple[Hidden, ...] = ()


HIDDEN_BYTES = 64
"""Assumed size of a hidden tensor: a shape of a few axes."""


@dataclass(frozen=True)
class Problem:
    """A network cut into units that stay whole.

    units     node indices per unit, in topological order; a unit is a fusion group
    cost_ms   (devices, units) milliseconds; inf where a device cannot run an operator of the unit
    weights   (devices, units) tuples (parameter, bytes) that a unit reads
    live      (devices, units) bytes of activations alive while a unit runs
    held      (devices, units) bytes of the network's results that a unit makes, held to the end of its part
    limits    (devices,) bytes of memory, inf where the spec sheet does not say
    flows     tensors between units, at the size that the model file gives them
    fixed     tensors that may not leave their device (they have no name in the model file)

    The caller feeds the network's inputs to every part that reads them, and collects results where they are made:
    neither counts as a transfer.
    """

    graph: Graph
    platforms: tuple[Platform, ...]
    link: Link
    units: tuple[tuple[int, ...], ...]
    cost_ms: Floats
    weights: tuple[tuple[tuple[tuple[str, int], ...], ...], ...]
    live: Floats
    held: Floats
    limits: Floats
    flows: tuple[Flow, ...]
    fixed: frozenset[str]

    @cached_property
    def transfer_ms(self) -> Floats:
        """(units + 1,): cost of a cut before each unit; every tensor that crosses it is sent once.

        A tensor read behind several cuts is forwarded from stage to stage. inf where a `fixed` tensor crosses.
        """
        change = np.zeros(len(self.units) + 2)
        barred = np.zeros(len(self.units) + 2)
        for flow in self.flows:
            cost = self.link.ms(flow.size)
            change[flow.made + 1] += cost
            change[flow.read[-1] + 1] -= cost
            if flow.tensor in self.fixed:
                barred[flow.made + 1] += 1
                barred[flow.read[-1] + 1] -= 1
        costs = np.maximum(np.cumsum(change)[:-1], 0.0)
        costs[np.cumsum(barred)[:-1] > 0] = np.inf
        return costs

    def crossing(self, position: int) -> list[Flow]:
        """Tensors that cross a cut before unit `position`."""
        return [flow for flow in self.flows if flow.made < position <= flow.read[-1]]

    def memory(self, device: int, units: Collection[int]) -> float:
        """Bytes that a part of these units needs on a device: its weights, once each, the most activations alive while
        one of its units runs (those it only passes on included), and its share of the results."""
        if not units:
            return 0.0
        chosen = list(units)
        weights = {name: size for u in chosen for name, size in self.weights[device][u]}
        return sum(weights.values()) + float(self.live[device, chosen].max() + self.held[device, chosen].sum())

    def supports(self, device: int) -> bool:
        """Whether a device runs every operator and holds the whole network."""
        whole = range(len(self.units))
        return bool(np.isfinite(self.cost_ms[device]).all()) and self.memory(device, whole) <= self.limits[device]


def build(
    graph: Graph,
    estimates: Sequence[Estimate],
    platforms: Sequence[Platform],
    link: Link,
    unsupported: Mapping[int, Collection[str]] | None = None,
    memory_gb: Mapping[int, float] | None = None,
    file: FileCuts | None = None,
) -> Problem:
    """The problem of a graph whose cost on `platforms` is `estimates`, in the same order.

    unsupported   device index → operators that it cannot run
    memory_gb     device index → 10^9 bytes, in place of the spec sheet's
    file          what the model file says of cuts; without it every tensor may cross

    Raises InputError for a graph without nodes, or if fused operators and computed shapes wait for each other.
    """
    if not len(graph):
        raise InputError(f"graph '{graph.name}' has no operators to distribute; give a model that computes something")
    units = _units(graph, file.hidden if file else ())
    unit_of = {i: u for u, nodes in enumerate(units) for i in nodes}
    cost = np.array([[sum(e.operators[i].latency_ms for i in nodes) for nodes in units] for e in estimates])
    for device, ops in (unsupported or {}).items():
        for u, nodes in enumerate(units):
            if any(graph.nodes[i].op in ops for i in nodes):
                cost[device, u] = np.inf
    flows = _flows(graph, unit_of, file.hidden if file else ())
    limit = {d: p.device.memory_gb for d, p in enumerate(platforms)} | dict(memory_gb or {})
    widths = [p.element_bytes for p in platforms]
    alive = [_alive(graph, unit_of, len(units), width) for width in widths]
    return Problem(
        graph,
        tuple(platforms),
        link,
        units,
        cost,
        tuple(tuple(_weights(graph, nodes, width) for nodes in units) for width in widths),
        np.array([live for live, _ in alive]),
        np.array([held for _, held in alive]),
        np.array([limit[d] * 1e9 if limit[d] else np.inf for d in range(len(platforms))]),
        flows,
        frozenset(f.tensor for f in flows if f.tensor not in file.names) if file else frozenset(),
    )


def _units(graph: Graph, hidden: Sequence[Hidden]) -> tuple[tuple[int, ...], ...]:
    """Fusion groups in an order in which each follows what it reads, hidden tensors included; else as in the graph."""
    members: dict[int, list[int]] = {}
    groups = fusion_groups(graph)
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    edges = {(groups[i], groups[j]) for i, j in graph.edges}
    edges |= {
        (groups[graph.producer[s]], groups[graph.producer[r]]) for h in hidden for s in h.sources for r in h.readers
    }
    waiting = dict.fromkeys(members, 0)
    users: dict[int, list[int]] = {group: [] for group in members}
    for before, after in edges:
        if before != after:
            waiting[after] += 1
            users[before].append(after)
    ready = [(members[group][-1], group) for group, count in waiting.items() if not count]
    heapq.heapify(ready)
    found = []
    while ready:
        _, group = heapq.heappop(ready)
        found.append(tuple(members[group]))
        for user in users[group]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (members[user][-1], user))
    if len(found) < len(members):
        raise InputError(
            "fused operators and shapes computed at run time wait for each other, so the file cannot be cut between"
            " them; simplify the model first (onnxsim folds its shape arithmetic)"
        )
    return tuple(found)


def _flows(graph: Graph, unit_of: Mapping[int, int], hidden: Sequence[Hidden]) -> tuple[Flow, ...]:
    found = []
    for tensor, maker in graph.producer.items():
        made = unit_of[maker]
        read = {unit_of[i] for i in graph.consumers.get(tensor, ())} - {made}
        if read:
            found.append(Flow(tensor, graph.tensors[tensor].bytes, made, tuple(sorted(read))))
    for extra in hidden:
        made = max(unit_of[graph.producer[s]] for s in extra.sources)
        read = {unit_of[graph.producer[r]] for r in extra.readers} - {made}
        if read:
            found.append(Flow(extra.tensor, HIDDEN_BYTES, made, tuple(sorted(read))))
    return tuple(found)


def _stored(graph: Graph, tensor: str, width: float) -> int:
    spec = graph.tensors[tensor]
    return round(spec.numel * width) if follows_precision(spec.dtype) else spec.bytes


def _weights(graph: Graph, nodes: Sequence[int], width: float) -> tuple[tuple[str, int], ...]:
    names = dict.fromkeys(t for i in nodes for t in graph.nodes[i].inputs if t in graph.params)
    return tuple((name, _stored(graph, name, width)) for name in names)


def _alive(graph: Graph, unit_of: Mapping[int, int], count: int, width: float) -> tuple[Floats, Floats]:
    """Bytes alive while each unit runs, and bytes of results that each makes. Views live in what they look into."""
    root = storage_roots(graph)
    born = {root[t]: 0 for t in graph.inputs}
    last = dict(born)
    for i, node in enumerate(graph.nodes):
        for tensor in (*node.inputs, *node.outputs):
            if tensor and root[tensor] not in graph.params:
                born.setdefault(root[tensor], unit_of[i])
                last[root[tensor]] = max(last.get(root[tensor], 0), unit_of[i])
    change, held = np.zeros(count + 1), np.zeros(count)
    results = {root[t] for t in graph.outputs} & graph.producer.keys()
    for tensor, start in born.items():
        size = _stored(graph, tensor, width)
        if tensor in results:
            held[start] += size
            start += 1
        if start <= last[tensor]:
            change[start] += size
            change[last[tensor] + 1] -= size
    return np.cumsum(change)[:count], held

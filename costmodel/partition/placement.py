"""The best placement of any graph on two devices: a minimum cut.

Each unit runs on either device, in any pattern; a tensor is sent to the other device at most once. The sum of unit
costs and transfers is the capacity of a cut between two terminals (Stone, Multiprocessor Scheduling with the Aid of
Network Flow Algorithms, 1977), so a maximum flow gives the exact optimum. Memory limits are outside what a cut can say:
where the optimum breaks one, weights are priced (Lagrange) until a placement fits, and that is no longer exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from costmodel.errors import InputError
from costmodel.partition.problem import Floats, Problem

PICOSECONDS = 1e9  # per millisecond: whole capacities keep the flow exact
PRICE_STEPS = 24


def solve(problem: Problem) -> tuple[tuple[int, ...], bool] | None:
    """Device per unit with the smallest sum of costs and transfers, and whether that is proven; None if none fits.

    Raises InputError unless there are two devices.
    """
    if len(problem.platforms) != 2:
        raise InputError(
            f"a minimum cut places on two devices, not on {len(problem.platforms)}; leave --method auto or use pipeline"
        )
    free = _cut(problem, problem.cost_ms)
    if free is None:
        return None
    broken = [d for d in (0, 1) if not _fits(problem, free, d)]
    if not broken:
        return free, True
    if len(broken) == 2:
        return None
    found = _priced(problem, broken[0])
    return (found, False) if found is not None else None


def total_ms(problem: Problem, devices: tuple[int, ...]) -> float:
    """Unit costs and transfers of a placement."""
    own = sum(problem.cost_ms[d, u] for u, d in enumerate(devices))
    sent = [f for f in problem.flows if any(devices[r] != devices[f.made] for r in f.read)]
    if any(f.tensor in problem.fixed for f in sent):
        return np.inf
    return float(own + sum(problem.link.ms(f.size) for f in sent))


def _fits(problem: Problem, devices: tuple[int, ...], d: int) -> bool:
    return problem.memory(d, [u for u, own in enumerate(devices) if own == d]) <= problem.limits[d]


def _priced(problem: Problem, device: int) -> tuple[int, ...] | None:
    """The cheapest placement found that fits, the device's weights priced ever more finely per byte."""
    weights = np.array([sum(size for _, size in unit) for unit in problem.weights[device]], float)
    finite = problem.cost_ms[np.isfinite(problem.cost_ms)]
    low, high = 0.0, 10 * float(finite.sum() + problem.link.ms(0)) / max(weights[weights > 0].min(initial=1.0), 1.0)
    best: tuple[int, ...] | None = None
    for _ in range(PRICE_STEPS):
        price = (low * high) ** 0.5 if low else high
        cost = problem.cost_ms.copy()
        cost[device] += price * weights
        devices = _cut(problem, cost)
        if devices is None:
            return best
        if all(_fits(problem, devices, d) for d in (0, 1)):
            if best is None or total_ms(problem, devices) < total_ms(problem, best):
                best = devices
            low, high = low or high * 1e-9, price
        else:
            if price >= high:
                return best
            low = price
    return best


def _cut(problem: Problem, cost_ms: Floats) -> tuple[int, ...] | None:
    """Device per unit of a minimum cut, or None if an operator runs nowhere or tied units share no device."""
    import networkx

    graph = networkx.DiGraph()
    for u in range(len(problem.units)):
        _edge(graph, "first", u, cost_ms[1, u])
        _edge(graph, u, "second", cost_ms[0, u])
    for flow in problem.flows:
        cost = np.inf if flow.tensor in problem.fixed else problem.link.ms(flow.size)
        sent, fetched = ("sent", flow.tensor), ("fetched", flow.tensor)
        _edge(graph, flow.made, sent, cost)
        _edge(graph, fetched, flow.made, cost)
        for reader in flow.read:
            _edge(graph, sent, reader, np.inf)
            _edge(graph, reader, fetched, np.inf)
    try:
        _, (first, _) = networkx.minimum_cut(graph, "first", "second")
    except networkx.NetworkXUnbounded:
        return None
    return tuple(0 if u in first else 1 for u in range(len(problem.units)))


def _edge(graph: Any, tail: Any, head: Any, cost: float) -> None:
    """An edge of the flow network; one without capacity is never cut."""
    if np.isfinite(cost):
        graph.add_edge(tail, head, capacity=round(cost * PICOSECONDS))
    else:
        graph.add_edge(tail, head)


def parts(problem: Problem, devices: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """The placement as parts that run one after the other: (device, units), as few as starting on either side gives."""
    return min((_scheduled(problem, devices, start) for start in (devices[0], 1 - devices[0])), key=len)


def _scheduled(problem: Problem, devices: tuple[int, ...], device: int) -> list[tuple[int, tuple[int, ...]]]:
    """Runs all that is ready on one device, then on the other, in turn."""
    waiting = [0] * len(devices)
    users: dict[int, list[int]] = {}
    for made, reader in {(f.made, r) for f in problem.flows for r in f.read}:
        waiting[reader] += 1
        users.setdefault(made, []).append(reader)
    ready: list[list[int]] = [[], []]
    for u, count in enumerate(waiting):
        if not count:
            ready[devices[u]].append(u)
    found: list[tuple[int, tuple[int, ...]]] = []
    while ready[0] or ready[1]:
        done = []
        while ready[device]:
            unit = ready[device].pop()
            done.append(unit)
            for user in users.get(unit, ()):
                waiting[user] -= 1
                if not waiting[user]:
                    ready[devices[user]].append(user)
        if done:
            found.append((device, tuple(sorted(done))))
        device = 1 - device
    return found

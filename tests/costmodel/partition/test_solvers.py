"""Both solvers against enumeration of every plan, on random problems."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.errors import InputError
from costmodel.ir import GraphBuilder
from costmodel.partition import pipeline, placement
from costmodel.partition.links import Link
from costmodel.partition.problem import Flow, Problem
from costmodel.platforms import resolve


@st.composite
def problems(draw: st.DrawFn, devices: int, limited: bool = True) -> Problem:
    """A random acyclic graph of units with costs, weights (some shared), activations, results and limits."""
    n = draw(st.integers(1, 7))
    small = st.integers(0, 9)
    builder = GraphBuilder()
    builder.input((1,))
    flows = []
    for u in range(n - 1):
        read = draw(st.sets(st.integers(u + 1, n - 1), max_size=3))
        if read:
            flows.append(Flow(f"t{u}", draw(small) * 1000, u, tuple(sorted(read))))
    weights = [[(f"w{draw(st.integers(0, 4))}", 0)] if draw(st.booleans()) else [] for _ in range(n)]
    sizes = {f"w{i}": draw(small) for i in range(5)}
    cost = np.array([[draw(small) for _ in range(n)] for _ in range(devices)], float)
    if limited and draw(st.booleans()):
        cost[draw(st.integers(0, devices - 1)), draw(st.integers(0, n - 1))] = np.inf
    limits = [draw(st.integers(5, 60)) if limited and draw(st.booleans()) else np.inf for _ in range(devices)]
    fixed = {f.tensor for f in flows if limited and draw(st.integers(0, 5)) == 0}
    return Problem(
        builder.build([builder.inputs[0]]),
        tuple(resolve(d) for d in ("t4", "p4", "v100")[:devices]),
        Link("test", gbs=0.001, latency_us=float(draw(st.integers(0, 2)) * 1000)),  # 1 ms per 1000 bytes
        tuple((u,) for u in range(n)),
        cost,
        tuple(tuple(tuple((w, sizes[w]) for w, _ in unit) for unit in weights) for _ in range(devices)),
        np.array([[draw(small) for _ in range(n)]] * devices, float),
        np.array([[draw(small) for _ in range(n)]] * devices, float),
        np.array(limits, float),
        tuple(flows),
        frozenset(fixed),
    )


def every_pipeline(problem: Problem, any_order: bool) -> list[tuple[tuple[int, int, int], ...]]:
    n, count = len(problem.units), len(problem.platforms)
    found = []
    for k in range(1, min(n, count) + 1):
        orders = permutations(range(count), k) if any_order else combinations(range(count), k)
        for devices, inner in product(list(orders), combinations(range(1, n), k - 1)):
            ends = [0, *inner, n]
            found.append(tuple((d, i, j) for d, (i, j) in zip(devices, pairwise(ends), strict=True)))
    return found


def value_of(problem: Problem, stages: tuple[tuple[int, int, int], ...], objective: str) -> tuple[float, float]:
    """Objective and latency of a pipeline, each tensor priced at each boundary between maker and last reader."""
    computing, sharing = [], []
    for d, i, j in stages:
        computing.append(sum(problem.cost_ms[d, i:j]))
        weights = dict(w for u in range(i, j) for w in problem.weights[d][u])
        need = sum(weights.values()) + max(problem.live[d, i:j]) + sum(problem.held[d, i:j])
        if need > problem.limits[d]:
            return np.inf, np.inf
        sharing.append(need / (problem.limits[d] if np.isfinite(problem.limits).all() else 1))
    sending = []
    for _, position, _ in stages[1:]:
        crossing = [f for f in problem.flows if f.made < position and max(f.read) >= position]
        if any(f.tensor in problem.fixed for f in crossing):
            return np.inf, np.inf
        sending.append(sum(f.size / 1000 + problem.link.latency_us / 1000 for f in crossing))
    latency = sum(computing) + sum(sending)
    value = {"latency": latency, "throughput": max(computing + sending), "memory": max(sharing)}[objective]
    return (value, latency) if np.isfinite(latency) else (np.inf, np.inf)


@pytest.mark.parametrize("objective", pipeline.OBJECTIVES)
@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("devices", [2, 3])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pipeline_equals_enumeration(objective: str, any_order: bool, devices: int, data: st.DataObject) -> None:
    problem = data.draw(problems(devices))
    values = [value_of(problem, stages, objective) for stages in every_pipeline(problem, any_order)]
    best = min(v for v, _ in values)
    found = pipeline.solve(problem, objective, any_order)
    if not np.isfinite(best):
        assert found is None
        return
    assert found is not None
    value, latency = value_of(problem, found, objective)
    assert value == pytest.approx(best)
    assert latency == pytest.approx(min(ms for v, ms in values if v <= best * (1 + 1e-9)))


def every_placement(problem: Problem) -> list[tuple[float, tuple[int, ...]]]:
    found = []
    for devices in product((0, 1), repeat=len(problem.units)):
        cost = sum(problem.cost_ms[d, u] for u, d in enumerate(devices))
        for flow in problem.flows:
            if {devices[r] for r in flow.read} - {devices[flow.made]}:
                cost += flow.size / 1000 + problem.link.latency_us / 1000
                cost = np.inf if flow.tensor in problem.fixed else cost
        for d in (0, 1):
            units = [u for u, own in enumerate(devices) if own == d]
            cost = np.inf if problem.memory(d, units) > problem.limits[d] else cost
        found.append((cost, devices))
    return found


@settings(max_examples=150, deadline=None)
@given(problem=problems(2, limited=False))
def test_placement_equals_enumeration(problem: Problem) -> None:
    found = placement.solve(problem)
    assert found is not None
    devices, exact = found
    assert exact
    assert placement.total_ms(problem, devices) == pytest.approx(min(cost for cost, _ in every_placement(problem)))


@settings(max_examples=150, deadline=None)
@given(problem=problems(2))
def test_placement_under_limits_is_never_wrong(problem: Problem) -> None:
    """With limits the answer is proven best, or it fits and says that it is not proven, or there is none to prove."""
    every = {devices: cost for cost, devices in every_placement(problem)}
    found = placement.solve(problem)
    if found is None:
        return
    devices, exact = found
    assert np.isfinite(every[devices])
    assert placement.total_ms(problem, devices) == pytest.approx(every[devices])
    if exact:
        assert every[devices] == pytest.approx(min(every.values()))


@settings(max_examples=60, deadline=None)
@given(problem=problems(2, limited=False), data=st.data())
def test_parts_of_a_placement_run_in_order(problem: Problem, data: st.DataObject) -> None:
    n = len(problem.units)
    devices = tuple(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    parts = placement.parts(problem, devices)
    place = {u: p for p, (_, units) in enumerate(parts) for u in units}
    assert sorted(place) == list(range(n))
    assert all(devices[u] == d for d, units in parts for u in units)
    assert all(place[f.made] <= place[r] for f in problem.flows for r in f.read)
    assert all(a != b for (a, _), (b, _) in pairwise(parts))


@given(problem=problems(3))
@settings(max_examples=1)
def test_a_cut_has_two_sides(problem: Problem) -> None:
    with pytest.raises(InputError, match="two devices"):
        placement.solve(problem)

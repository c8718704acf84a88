"""The best pipeline: consecutive stages of units, each on a device of its own, by dynamic programming.

Exact for the order of units that the problem gives. With n units and k devices in order the work is O(k n²) in NumPy
rows; in any order of devices the k is k 2^(k-1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from costmodel.partition.problem import Floats, Problem

OBJECTIVES = ("latency", "throughput", "memory")
SLACK = 1 + 1e-9
"""Two sums of the same terms in another order count as equal."""

Stage = tuple[int, int, int]
"""Device, first unit, one past the last unit."""


def solve(problem: Problem, objective: str, any_order: bool = False) -> tuple[Stage, ...] | None:
    """The best stages, or None if none fits.

    latency     smallest sum of stages and transfers
    throughput  smallest of the slowest stage or transfer: what bounds a stream of inputs
    memory      smallest largest share of a device's memory; devices of unknown memory count by bytes

    Among plans equal in the last two, one of the smallest latency. Devices may be left out; each runs one stage.
    """
    after = (lambda used, d: used | 1 << d) if any_order else (lambda used, d: (1 << (d + 1)) - 1)
    if objective == "latency":
        return _search(problem, "latency", after, np.inf, np.inf)
    first = _search(problem, objective, after, np.inf, np.inf)
    if first is None:
        return None
    if objective == "throughput":
        return _search(problem, "latency", after, bottleneck_ms(problem, first) * SLACK, np.inf)
    return _search(problem, "latency", after, np.inf, largest_share(problem, first) * SLACK)


def bottleneck_ms(problem: Problem, stages: tuple[Stage, ...]) -> float:
    """The slowest stage or transfer."""
    computing = [problem.cost_ms[d, i:j].sum() for d, i, j in stages]
    return float(max([*computing, *(problem.transfer_ms[i] for _, i, _ in stages[1:])]))


def capacities(problem: Problem) -> Floats:
    """(devices,) bytes that a share is taken of: each device's memory, or one byte if any is unknown."""
    return problem.limits if np.isfinite(problem.limits).all() else np.ones_like(problem.limits)


def largest_share(problem: Problem, stages: tuple[Stage, ...]) -> float:
    """The largest share of a device's memory that a stage takes."""
    sizes = capacities(problem)
    return max(problem.memory(d, range(i, j)) / sizes[d] for d, i, j in stages)


@dataclass
class _State:
    """Best values of covering the units before each position, the last of them on `device`, `used` devices gone.

    `start` is the last stage's first unit, `before` the index of the state it continues (-1: none).
    """

    used: int
    device: int
    value: Floats
    start: np.ndarray
    before: np.ndarray


def _states(count: int, after: Callable[[int, int], int]) -> list[tuple[int, int]]:
    """Reachable (used, device), every one after those it can follow."""
    found: dict[tuple[int, int], None] = {}
    frontier = [(after(0, d), d) for d in range(count)]
    while frontier:
        found.update(dict.fromkeys(frontier))
        frontier = list({(after(used, d), d): None for used, _ in frontier for d in range(count) if not used >> d & 1})
    return sorted(found, key=lambda s: (s[0].bit_count(), s))


def _search(
    problem: Problem, objective: str, after: Callable[[int, int], int], most_ms: float, most_share: float
) -> tuple[Stage, ...] | None:
    n, count = len(problem.units), len(problem.platforms)
    states = [
        _State(used, d, np.full(n + 1, np.inf), np.zeros(n + 1, np.int64), np.full(n + 1, -1))
        for used, d in _states(count, after)
    ]
    follows = [
        [
            p
            for p, prior in enumerate(states)
            if not prior.used >> s.device & 1 and after(prior.used, s.device) == s.used
        ]
        for s in states
    ]
    transfer = np.where(problem.transfer_ms <= most_ms, problem.transfer_ms, np.inf)
    entry = [np.full(n + 1, np.inf) for _ in states]
    source = [np.full(n + 1, -1) for _ in states]
    for s, state in enumerate(states):
        if after(0, state.device) == state.used:
            entry[s][0] = 0.0
    sizes = [_Sizes(problem, d) for d in range(count)]
    for j in range(1, n + 1):
        for size in sizes:
            size.extend(j - 1)
        for s, state in enumerate(states):
            _close(state, entry[s], source[s], sizes[state.device], j, objective, most_ms, most_share)
        for s, priors in enumerate(follows):
            for p in priors:
                value = _enter(float(states[p].value[j]), float(transfer[j]), objective)
                if value < entry[s][j]:
                    entry[s][j], source[s][j] = value, p
    return _trace(states, n)


def _enter(value: float, transfer: float, objective: str) -> float:
    """The value behind a cut of a plan with `value` before it."""
    if objective == "latency":
        return value + transfer
    if objective == "throughput":
        return max(value, transfer)
    return value if np.isfinite(transfer) else np.inf


class _Sizes:
    """Cost and memory of all stages that end where the search has come to, one entry per first unit."""

    def __init__(self, problem: Problem, device: int) -> None:
        n = len(problem.units)
        cost = problem.cost_ms[device]
        runs = np.isfinite(cost)
        self.spent = np.concatenate([[0.0], np.cumsum(np.where(runs, cost, 0.0))])
        self.runs, self.blocked = runs, -1
        self.weights, self.live, self.held = problem.weights[device], problem.live[device], problem.held[device]
        self.limit = problem.limits[device]
        self.capacity = capacities(problem)[device]
        self.params, self.peak, self.results = np.zeros(n), np.zeros(n), np.zeros(n)
        self.seen: dict[str, int] = {}

    def extend(self, unit: int) -> None:
        """Takes in one more unit at the end."""
        for name, size in self.weights[unit]:
            self.params[self.seen.get(name, -1) + 1 : unit + 1] += size
            self.seen[name] = unit
        np.maximum(self.peak[: unit + 1], self.live[unit], out=self.peak[: unit + 1])
        self.results[: unit + 1] += self.held[unit]
        if not self.runs[unit]:
            self.blocked = unit

    def upto(self, end: int) -> tuple[Floats, Floats, np.ndarray]:
        """Milliseconds, bytes and feasibility of the stages [0, end) … [end - 1, end)."""
        ms = self.spent[end] - self.spent[:end]
        memory = self.params[:end] + self.peak[:end] + self.results[:end]
        return ms, memory, (memory <= self.limit) & (np.arange(end) > self.blocked)


def _close(
    state: _State, entry: Floats, source: np.ndarray, sizes: _Sizes, j: int, objective: str, most_ms: float,
    most_share: float,
) -> None:  # fmt: skip
    """Ends the state's stage before unit j, over all units it could have begun at."""
    ms, memory, fits = sizes.upto(j)
    share = memory / sizes.capacity
    fits &= (ms <= most_ms) & (share <= most_share)
    if objective == "latency":
        value = entry[:j] + ms
    else:
        value = np.maximum(entry[:j], ms if objective == "throughput" else share)
    value = np.where(fits, value, np.inf)
    best = int(value.argmin())
    state.value[j], state.start[j], state.before[j] = value[best], best, source[best]


def _trace(states: list[_State], n: int) -> tuple[Stage, ...] | None:
    """Follows the choices back from the best complete state."""
    s = min(range(len(states)), key=lambda k: states[k].value[n])
    if not np.isfinite(states[s].value[n]):
        return None
    stages, j = [], n
    while s >= 0:
        state = states[s]
        start = int(state.start[j])
        stages.append((state.device, start, j))
        s, j = int(state.before[j]), start
    return tuple(reversed(stages))

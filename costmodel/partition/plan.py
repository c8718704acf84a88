"""A partition as a plan: parts on devices, transfers between them, and how sure it is that it pays."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.canonical import canonical
from costmodel.errors import InputError, PartitionError
from costmodel.estimates import CostModel, Estimate
from costmodel.ir import Graph
from costmodel.partition import pipeline, placement
from costmodel.partition.links import LINKS, Link, parse_link
from costmodel.partition.pipeline import OBJECTIVES
from costmodel.partition.problem import FileCuts, Flow, Problem, build
from costmodel.platforms import Platform
from costmodel.tables import ms

SCHEMA = 1


@dataclass(frozen=True)
class Part:
    """What one device runs in one go.

    device      index into the plan's platforms
    nodes       indices into the graph's nodes, ascending
    compute_ms  sum of the nodes' estimated costs
    """

    device: int
    nodes: tuple[int, ...]
    compute_ms: float


@dataclass(frozen=True)
class Transfer:
    """A tensor sent from the part `source` to the part `target`, at the type and size of the model file."""

    tensor: str
    spec: str
    size: int
    ms: float
    source: int
    target: int


@dataclass(frozen=True)
class Plan:
    """A partition of a graph.

    method          pipeline (consecutive stages) or placement (any pattern on two devices)
    latency_ms      one input: all parts and transfers one after the other
    bottleneck_ms   a stream of inputs: the busiest part or transfer of a pipeline, device or link of a placement
    memory_bytes    per platform
    single_ms       per platform, the whole network there alone; None where it does not run or fit
    gain            what the plan saves of the best single platform, in units of the objective (ms, or share of memory)
    gain_error      by how much the estimates' 90 % intervals let the gain shrink
    exact           proven best among all plans of its method
    """

    graph: Graph
    platforms: tuple[Platform, ...]
    link: Link
    objective: str
    method: str
    parts: tuple[Part, ...]
    transfers: tuple[Transfer, ...]
    latency_ms: float
    bottleneck_ms: float
    memory_bytes: tuple[int, ...]
    single_ms: tuple[float | None, ...]
    gain: float | None
    gain_error: float
    exact: bool

    @property
    def splits(self) -> bool:
        """Whether more than one device works."""
        return len({part.device for part in self.parts}) > 1

    @property
    def toss_up(self) -> bool:
        """Whether the estimates' uncertainty is as large as the gain."""
        return self.splits and self.gain is not None and self.gain <= self.gain_error

    @property
    def verdict(self) -> str:
        """One sentence: what to do."""
        if not self.splits:
            return f"no split pays: run all of it on {self.platforms[self.parts[0].device].name}"
        if self.gain is None:
            return "no device runs the whole network; the plan is the only way"
        if self.objective == "memory":
            return f"the split lowers the largest share of memory by {self.gain:.2g} of 1"
        if self.toss_up:
            return (
                f"a toss-up: the plan saves {ms(self.gain)} over the best single device,"
                f" less than what the estimates' intervals allow for ({ms(self.gain_error)}); measure both"
            )
        return (
            f"the split saves {ms(self.gain)} over the best single device, {ms(self.gain - self.gain_error)} at least"
        )

    def as_record(self) -> dict[str, Any]:
        """The plan for JSON (schema 1); `tensors` are what a part makes, in the model file's names."""
        nodes = self.graph.nodes
        return {
            "schema": SCHEMA,
            "model": self.graph.name,
            "fingerprint": self.graph.fingerprint,
            "objective": self.objective,
            "method": self.method,
            "exact": self.exact,
            "link": {"name": self.link.name, "gbs": self.link.gbs, "latency_us": self.link.latency_us},
            "platforms": [p.name for p in self.platforms],
            "latency_ms": self.latency_ms,
            "bottleneck_ms": self.bottleneck_ms,
            "memory_bytes": list(self.memory_bytes),
            "single_ms": list(self.single_ms),
            "gain": self.gain,
            "gain_error": self.gain_error,
            "toss_up": self.toss_up,
            "verdict": self.verdict,
            "parts": [
                {
                    "device": part.device,
                    "compute_ms": part.compute_ms,
                    "nodes": [nodes[i].name or nodes[i].op for i in part.nodes],
                    "tensors": [t for i in part.nodes for t in nodes[i].outputs if t],
                }
                for part in self.parts
            ],
            "transfers": [vars(t) for t in self.transfers],
        }


def partition(
    graph: Graph,
    platforms: Sequence[Platform],
    link: Link | str = LINKS["pcie3x16"],
    objective: str = "latency",
    *,
    method: str = "auto",
    any_order: bool = False,
    cost_model: CostModel | None = None,
    unsupported: Mapping[int, Collection[str]] | None = None,
    memory_gb: Mapping[int, float] | None = None,
    file: FileCuts | None = None,
) -> Plan:
    """The best way to run a graph on several devices.

    objective    latency, throughput or memory; see `pipeline.solve`
    method       pipeline, placement (two devices, latency), or auto: placement where it applies, which includes every
                 pipeline over two devices
    any_order    a pipeline may take the devices in any order, not only as given
    cost_model   default: the released LeDG-Former bundle
    unsupported  platform index → operators it cannot run
    memory_gb    platform index → 10^9 bytes, in place of the spec sheet's
    file         `split.file_cuts(model, graph)`, so that the plan can be carried out on the file

    Raises InputError for arguments that do not fit, PartitionError if no plan holds all limits.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r}; use one of {', '.join(OBJECTIVES)}")
    if len(platforms) < 2:
        raise InputError(f"{len(platforms)} device given; a partition needs two or more")
    if cost_model is None:
        from costmodel import predictor

        cost_model = predictor.load()
    graph = canonical(graph)
    estimates = cost_model.estimate_many(graph, platforms)
    link = parse_link(link) if isinstance(link, str) else link
    problem = build(graph, estimates, platforms, link, unsupported, memory_gb, file)
    placing = method == "placement" or (method == "auto" and objective == "latency" and len(platforms) == 2)
    if placing and objective != "latency":
        raise InputError(f"a placement minimises latency, not {objective}; use --method pipeline")
    pieces, exact, sent = _placed(problem) if placing else _staged(problem, objective, any_order)
    return _plan(problem, estimates, objective, "placement" if placing else "pipeline", pieces, exact, sent)


Pieces = list[tuple[int, tuple[int, ...]]]
Sent = list[tuple[Flow, int, int]]


def _staged(problem: Problem, objective: str, any_order: bool) -> tuple[Pieces, bool, Sent]:
    stages = pipeline.solve(problem, objective, any_order)
    if stages is None:
        raise PartitionError(_why_none(problem))
    sent = [(flow, s - 1, s) for s, (_, start, _) in enumerate(stages) if s for flow in problem.crossing(start)]
    return [(d, tuple(range(i, j))) for d, i, j in stages], True, sent


def _placed(problem: Problem) -> tuple[Pieces, bool, Sent]:
    found = placement.solve(problem)
    devices, exact = found if found is not None else (None, False)
    if not exact:  # memory binds: a pipeline keeps the limits exactly
        staged = pipeline.solve(problem, "latency", any_order=True)
        line = tuple(d for d, i, j in staged for _ in range(i, j)) if staged else None
        options = [d for d in (devices, line) if d is not None]
        if not options:
            raise PartitionError(_why_none(problem))
        devices = min(options, key=lambda d: placement.total_ms(problem, d))
    assert devices is not None
    pieces = placement.parts(problem, devices)
    place = {u: p for p, (_, units) in enumerate(pieces) for u in units}
    sent = []
    for flow in problem.flows:
        away = [place[r] for r in flow.read if devices[r] != devices[flow.made]]
        if away:
            sent.append((flow, place[flow.made], min(away)))
    return pieces, exact, sent


def _why_none(problem: Problem) -> str:
    nowhere = [
        problem.graph.nodes[i].op
        for u, nodes in enumerate(problem.units)
        if not np.isfinite(problem.cost_ms[:, u]).any()
        for i in nodes
    ]
    if nowhere:
        return f"no device runs {', '.join(sorted(set(nowhere))[:4])}; drop it from --unsupported or add a device"
    return "no plan holds the memory and operator limits of these devices; add a device or raise --memory"


def _plan(
    problem: Problem, estimates: Sequence[Estimate], objective: str, method: str, pieces: Pieces, exact: bool,
    sent: Sent,
) -> Plan:  # fmt: skip
    parts = tuple(
        Part(d, tuple(sorted(i for u in units for i in problem.units[u])), float(problem.cost_ms[d, list(units)].sum()))
        for d, units in pieces
    )
    specs = {name: str(spec) for name, spec in problem.graph.tensors.items()}
    transfers = tuple(
        Transfer(
            flow.tensor, specs.get(flow.tensor, "computed shape"), flow.size, problem.link.ms(flow.size), source, target
        )
        for flow, source, target in sent
    )
    whole = range(len(problem.units))
    count = len(problem.platforms)
    memory = [problem.memory(d, [u for own, units in pieces if own == d for u in units]) for d in range(count)]
    single = [float(problem.cost_ms[d].sum()) if problem.supports(d) else None for d in range(count)]
    value = _Value(objective, method, parts, transfers, single)
    gain, error = value.gain(estimates)
    if objective == "memory":
        sizes = pipeline.capacities(problem)
        shares = [problem.memory(d, whole) / sizes[d] for d in range(count) if single[d] is not None]
        gain, error = (min(shares) - max(m / s for m, s in zip(memory, sizes, strict=True)) if shares else None), 0.0
    ones = np.ones(count)
    return Plan(
        problem.graph, problem.platforms, problem.link, objective, method, parts, transfers, value.latency(ones),
        value.bottleneck(ones), tuple(math.ceil(m) for m in memory), tuple(single), gain, error, exact,
    )  # fmt: skip


@dataclass(frozen=True)
class _Value:
    """What a plan is worth when each device is slower than estimated by a factor."""

    objective: str
    method: str
    parts: tuple[Part, ...]
    transfers: tuple[Transfer, ...]
    single: Sequence[float | None]

    def latency(self, factor: np.ndarray) -> float:
        """All parts and transfers, one after the other."""
        return float(sum(p.compute_ms * factor[p.device] for p in self.parts) + sum(t.ms for t in self.transfers))

    def bottleneck(self, factor: np.ndarray) -> float:
        """The busiest part or hop of a pipeline; the busiest device or the link of a placement."""
        busy: dict[Any, float] = {}
        staged = self.method == "pipeline"
        for i, part in enumerate(self.parts):
            key = i if staged else part.device
            busy[key] = busy.get(key, 0.0) + part.compute_ms * factor[part.device]
        for t in self.transfers:
            hop = ("link", t.target if staged else 0)
            busy[hop] = busy.get(hop, 0.0) + t.ms
        return float(max(busy.values()))

    def _gain(self, factor: np.ndarray) -> float | None:
        alone = [own * f for own, f in zip(self.single, factor, strict=True) if own is not None]
        if not alone:
            return None
        return float(min(alone)) - (self.latency if self.objective == "latency" else self.bottleneck)(factor)

    def gain(self, estimates: Sequence[Estimate]) -> tuple[float | None, float]:
        """Milliseconds saved, and by how many the intervals let that shrink.

        Each platform's latency is moved to either end of its 90 % interval alone; the losses of the platforms are
        taken as independent and add in quadrature.
        """
        ones = np.ones(len(estimates))
        gain = self._gain(ones)
        if gain is None:
            return None, 0.0
        losses = []
        for d, estimate in enumerate(estimates):
            worst = 0.0
            for end in estimate.interval_ms:
                factor = ones.copy()
                factor[d] = end / estimate.latency_ms if estimate.latency_ms else 1.0
                moved = self._gain(factor)
                assert moved is not None
                worst = max(worst, gain - moved)
            losses.append(worst)
        return gain, math.hypot(*losses)

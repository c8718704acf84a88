"""Measured lookup: a cost model that looks in the sample store before it asks another model."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from costmodel.canonical import canonical
from costmodel.errors import DataError
from costmodel.estimates import CostModel, Estimate, OperatorCost, Roofline
from costmodel.ir import Graph
from costmodel.platforms import Platform
from costmodel.samples import Sample, SampleStore, default_store

_Z95 = 1.645
"""Standard deviations from the mean of a normal distribution to its 95 % quantile."""


def with_measurements(load: Callable[[], CostModel], store: str | os.PathLike[str] | None = None) -> CostModel:
    """`load()`, behind a `MeasuredModel` if the store's file exists (default: `default_store()`).

    Opens no database where there is no file. Raises DataError if a store is named that does not exist.
    """
    path = Path(store) if store is not None else default_store()
    if not path.is_file():
        if store is not None:
            raise DataError(f"no sample store {path}; profile into it or leave --store out")
        return load()
    return MeasuredModel(SampleStore(path), load)


class MeasuredModel:
    """A `CostModel` that answers with a stored measurement where there is one and asks `load()`'s model elsewhere.

    The model is loaded when the first estimate needs it. A platform without a runtime version takes a measurement of
    any version, the newest first.
    """

    def __init__(self, store: SampleStore, load: Callable[[], CostModel]) -> None:
        self.store = store
        self._load = load
        self._model: CostModel | None = None

    @property
    def model(self) -> CostModel:
        """The model behind the store."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def estimate(self, graph: Graph, platform: Platform) -> Estimate:
        """One platform."""
        return self.estimate_many(graph, [platform])[0]

    def estimate_many(self, graph: Graph, platforms: Sequence[Platform]) -> list[Estimate]:
        """Several platforms; the model behind the store sees only those that were not measured."""
        keys = dict.fromkeys((canonical(graph).fingerprint, graph.fingerprint))
        found = [next(filter(None, (self.store.lookup(key, p) for key in keys)), None) for p in platforms]
        rest = [p for p, sample in zip(platforms, found, strict=True) if sample is None]
        predicted = iter(self.model.estimate_many(graph, rest) if rest else ())
        known = [p for p, sample in zip(platforms, found, strict=True) if sample is not None]
        frames = iter(Roofline().estimate_many(graph, known) if known else ())
        return [next(predicted) if sample is None else measured_estimate(sample, next(frames)) for sample in found]


def measured_estimate(sample: Sample, frame: Estimate) -> Estimate:
    """An estimate that states a measurement; `frame` gives what a stopwatch does not: bound, FLOPs, memory.

    Node times are those of the measurement where it has the graph's nodes by name, else `frame`'s in proportion.
    """
    notes = [note for note in frame.warnings if "physical bound" not in note]
    if sample.latency_ms < frame.bound_ms:
        notes.append(
            f"measured {sample.latency_ms:.3g} ms lies under the physical bound; check the spec sheet of {frame.target}"
        )
    notes += [f"the measurement was flagged {flag}" for flag in sample.flags]
    return replace(
        frame, runtime=sample.runtime, latency_ms=sample.latency_ms, interval_ms=interval_ms(sample),
        provenance=provenance(sample), warnings=tuple(notes), operators=_operators(sample, frame.operators),
    )  # fmt: skip


def provenance(sample: Sample) -> str:
    """Where the number comes from: `measured here, 50 repeats, cv 2.0 %, 1 thread`."""
    words = ["measured here" if sample.source == "profile" else f"measured ({sample.source})"]
    if sample.repeats:
        words.append(f"{sample.repeats} repeat{'s' if sample.repeats != 1 else ''}")
    if sample.cv is not None:
        words.append(f"cv {100 * sample.cv:.1f} %")
    if threads := sample.environment.get("threads"):
        words.append(f"{threads} thread{'s' if threads != 1 else ''}")
    return ", ".join(words)


def interval_ms(sample: Sample) -> tuple[float, float]:
    """Between which times nine of ten runs lie, from the measured quantiles.

    The 95 % quantile lies between p90 and p99 as on an exponential tail; the lower end mirrors it at the median. Times
    lean to the right, so that end is a cautious one. Without quantiles the coefficient of variation decides, and
    without either the interval is the median itself.
    """
    median = sample.latency_ms
    if sample.p90_ms is not None:
        p90 = max(sample.p90_ms, median)
        p99 = max(sample.p99_ms if sample.p99_ms is not None else p90, p90)
        half = p90 + math.log10(2) * (p99 - p90) - median
    else:
        half = _Z95 * (sample.cv or 0.0) * median
    return max(median - half, 0.0), median + half


def _operators(sample: Sample, nodes: Sequence[OperatorCost]) -> Sequence[OperatorCost]:
    """The nodes' parts of the measured total."""
    names = Counter(node.name for node in nodes)
    times: dict[str, float] = {}
    for name, ms in sample.operators:
        if names[name] == 1:
            times[name] = times.get(name, 0.0) + ms
    told = sum(ms for _, ms in sample.operators)
    if told > 0 and sum(times.values()) > 0.9 * told:
        costs = [times.get(node.name, 0.0) for node in nodes]
    else:
        costs = [node.latency_ms for node in nodes]
    total = sum(costs)
    scale = sample.latency_ms / total if total > 0 else 0.0
    return tuple(
        replace(node, latency_ms=ms * scale, share=ms / total if total > 0 else 0.0)
        for node, ms in zip(nodes, costs, strict=True)
    )

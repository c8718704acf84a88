"""Adapters from nothing to a network of their own, simplest first; each turns the model's readings into latencies.

none       the model as it is
scale      one factor
line       a factor and a power of the predicted latency
roofline   the roofline in place of the model, with factors for compute, memory and launches, see `terms`
operators  factors for operator classes and their traits, see `operators`
residual   operators, and a Gaussian process on what they leave, see `gaussian`
head       the network's head, trained on from the released weights, see `head`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.finetune import gaussian, head, operators, terms
from costmodel.finetune.gaussian import Process
from costmodel.finetune.head import Head
from costmodel.finetune.operators import WIDTHS, Operators
from costmodel.finetune.readings import Readings

KINDS = ("none", "scale", "line", "roofline", "operators", "residual")
HEAD = "head"
_COMPONENTS: dict[str, tuple[str, ...]] = {"scale": (), "line": ("level",), "residual": ("size", "mixture", "graph")}


@dataclass(frozen=True)
class Adapter:
    """One fitted adapter. `operators`, `head` or three `terms` replace the model's node times, `process` corrects the
    sum."""

    kind: str
    operators: Operators | None = None
    process: Process | None = None
    head: Head | None = None
    terms: tuple[float, ...] | None = None

    def apply(self, readings: Readings) -> tuple[np.ndarray, np.ndarray]:
        """ln of latency in ms (G,) and the nodes' parts of it in ms (R,), which add up to it."""
        node_ms, log_ms = readings.node_ms, readings.log_ms
        own = self.operators or self.head
        if own is not None:
            node_ms = own.node_ms(readings)
        elif self.terms is not None:
            node_ms = terms.node_ms(np.array(self.terms), readings)
        if node_ms is not readings.node_ms:
            log_ms = np.log(np.add.reduceat(node_ms, readings.start[:-1]))
        if self.process is not None:
            log_ms = log_ms + self.process.mean(readings.rebased(log_ms))
        total = np.add.reduceat(node_ms, readings.start[:-1])
        return log_ms, node_ms * (np.exp(log_ms) / total)[readings.owner]

    def log_ms(self, readings: Readings) -> np.ndarray:
        """(G,) ln of latency in ms."""
        return self.apply(readings)[0]


def fit(
    kind: str,
    readings: Readings,
    log_measured: np.ndarray,
    like: Adapter | None = None,
    released: Head | None = None,
) -> Adapter:
    """An adapter of a kind for ln of measured ms (N,).

    like      lends the width of its prior and its scales, which saves the search
    released  where the head's training starts
    """
    if kind == "none":
        return Adapter("none")
    if kind == HEAD:
        from costmodel.finetune import head_training

        if released is None:
            raise ValueError("training the head needs the released one")
        return Adapter(kind, head=head_training.train(released, readings, log_measured))
    if kind == "roofline":
        return Adapter(kind, terms=tuple(terms.fit(readings, log_measured).tolist()))
    base, rates = readings.log_ms, None
    if kind in ("operators", "residual"):
        known = like.operators if like else None
        rates = operators.fit(readings, log_measured, (known.width,) if known else WIDTHS)
        base = rates.log_ms(readings)
    if kind == "operators":
        return Adapter(kind, rates)
    scales = like.process if like else None
    process = gaussian.fit(_COMPONENTS[kind], readings.rebased(base), log_measured - base, scales)
    return Adapter(kind, rates, process)


def to_record(adapter: Adapter) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """JSON-able parameters, and arrays."""
    record: dict[str, Any] = {"kind": adapter.kind}
    arrays: dict[str, np.ndarray] = {}
    if adapter.operators is not None:
        record["operators"] = operators.to_record(adapter.operators)
    if adapter.process is not None:
        record["process"], arrays = gaussian.to_record(adapter.process)
    if adapter.terms is not None:
        record["terms"] = list(adapter.terms)
    if adapter.head is not None:
        arrays |= head.to_arrays(adapter.head)
    return record, arrays


def from_record(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Adapter:
    """The adapter that `to_record` wrote. Raises KeyError, TypeError or ValueError where something is missing."""
    kind = record["kind"]
    if kind not in (*KINDS, HEAD):
        raise ValueError(f"no adapter of kind {kind!r}")
    return Adapter(
        kind,
        operators.from_record(record["operators"]) if "operators" in record else None,
        gaussian.from_record(record["process"], arrays) if "process" in record else None,
        head.from_arrays(arrays) if kind == HEAD else None,
        _terms(record["terms"]) if "terms" in record else None,
    )


def _terms(values: Any) -> tuple[float, ...]:
    found = tuple(float(v) for v in values)
    if len(found) != terms.TERMS or min(found) <= 0:
        raise ValueError("roofline factors do not match")
    return found

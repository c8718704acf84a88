"""The network's head for one platform, in NumPy; `head_training` trains it on from the released weights.

The platform's part of every hidden layer is a constant here, so the head is two small networks: one that reads a node
and its roofline times, one that reads the graph. See `LeDGFormer.head` for the same in torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from costmodel.finetune.readings import Readings

NODE_LIMIT, GRAPH_LIMIT, SHARE_FLOOR = 6.0, 3.0, -6.0  # in ln, as in LeDGFormer.head


@dataclass(frozen=True)
class Head:
    """Weights (rows in, columns out) and biases: node → hidden → hidden → 1, graph → hidden → hidden → 1, an offset in
    ln."""

    node_in: np.ndarray
    times_in: np.ndarray
    node_bias: np.ndarray
    middle: np.ndarray
    middle_bias: np.ndarray
    node_out: np.ndarray
    node_out_bias: np.ndarray
    graph_in: np.ndarray
    graph_bias: np.ndarray
    graph_middle: np.ndarray
    graph_middle_bias: np.ndarray
    graph_out: np.ndarray
    graph_out_bias: np.ndarray
    offset: np.ndarray

    def node_ms(self, readings: Readings) -> np.ndarray:
        """(R,) time of each node in ms. Raises ValueError for readings without node vectors."""
        if readings.nodes is None:
            raise ValueError("the head needs node vectors")
        log_times = readings.log_times.astype(np.float64)
        hidden = readings.nodes @ self.node_in + log_times @ self.times_in + self.node_bias
        hidden = _gelu(_gelu(hidden) @ self.middle + self.middle_bias)
        ratio = _bounded((hidden @ self.node_out + self.node_out_bias)[:, 0], NODE_LIMIT)
        graph = _gelu(context(readings) @ self.graph_in + self.graph_bias)
        graph = _gelu(graph @ self.graph_middle + self.graph_middle_bias) @ self.graph_out + self.graph_out_bias
        scale = _bounded(graph[:, 0], GRAPH_LIMIT) + self.offset[0]
        return np.exp(log_times[:, -1] + ratio + scale[readings.owner])


def context(readings: Readings) -> np.ndarray:
    """(G, d + 8) what the graph's network reads: graph vector, statistics, and ln of the roofline's sums, the parts
    relative to the whole."""
    sums = np.log(np.add.reduceat(np.exp(readings.log_times.astype(np.float64)), readings.start[:-1]))
    parts = np.maximum(sums[:, :-1] - sums[:, -1:], SHARE_FLOOR)
    return np.concatenate([readings.vectors, readings.stats, parts, sums[:, -1:]], 1)


def to_arrays(head: Head) -> dict[str, np.ndarray]:
    """The weights by name."""
    return {f"head.{f.name}": getattr(head, f.name).astype(np.float32) for f in fields(Head)}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Head:
    """What `to_arrays` wrote. Raises KeyError or ValueError where something is missing or does not fit."""
    head = Head(**{f.name: np.asarray(arrays[f"head.{f.name}"], np.float64) for f in fields(Head)})
    hidden = head.node_in.shape[1]
    if head.middle.shape != (hidden, hidden) or head.node_out.shape != (hidden, 1):
        raise ValueError("the head's layers do not fit")
    return head


def _bounded(x: np.ndarray, limit: float) -> np.ndarray:
    return limit * np.tanh(x / limit)


def _gelu(x: np.ndarray) -> np.ndarray:
    """x Φ(x), with erf to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return x * (1 + np.sign(x) * (1 - series * np.exp(-(z**2)))) / 2

"""The operator adapter: how fast this platform runs each kind of operator, from latencies of whole networks.

    latency = Σ_i (compute_i + memory_i) · exp(offset + blend · ρ_i + traits_i · weights)
              + launch_i · exp(launch) + exp(constant)

over nodes i, with the spec sheet's roofline times and ρ_i = ln(the model's time of the node / its roofline time),
centred on the samples: blend 0 forgets the model's opinion of a node and keeps physics, blend 1 keeps the opinion.
Every factor is positive. The parameters maximise the posterior under normal priors around `classes.EXPECTED`; the
width of the prior of `weights` maximises the evidence in Laplace's approximation (MacKay 1992). Steps are
Levenberg-Marquardt on ln(latency), with Huber's weights against samples that the others contradict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.finetune.classes import EXPECTED, SPREAD, TRAITS
from costmodel.finetune.readings import Readings

WIDTHS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Prior standard deviations tried for the weights, in ln per unit of a trait."""

_FREE, _BLEND, _APART = 100.0, 0.5, 1.0  # prior deviations: offset, blend, launch and constant relative to the offset
_NOISE = 0.02  # the least standard deviation of a sample in ln
_HUBER = 2.5
_STEPS = 60


@dataclass(frozen=True)
class Operators:
    """Fitted factors. `values` are offset, blend, weights (TRAITS), launch, constant; `centre` is that of ρ."""

    values: np.ndarray
    centre: float
    width: float

    def node_ms(self, readings: Readings) -> np.ndarray:
        """(R,) time of each node in ms, the constant spread evenly over a graph's nodes."""
        design = _design(readings, self.centre)
        busy = _busy(readings) * np.exp(design @ self.values[:-2])
        launch, constant = np.exp(self.values[-2:])
        return busy + readings.times[:, 2] * launch + (constant / np.diff(readings.start))[readings.owner]

    def log_ms(self, readings: Readings) -> np.ndarray:
        """(G,) ln of latency in ms."""
        return np.log(np.add.reduceat(self.node_ms(readings), readings.start[:-1]))


def _busy(readings: Readings) -> np.ndarray:
    return readings.times[:, 0] + readings.times[:, 1]


def _ratio(readings: Readings) -> np.ndarray:
    """(R,) ρ before centring; where the roofline has nothing to do, its value does not matter."""
    total = np.maximum(readings.times.sum(1), 1e-7)
    return np.log(np.maximum(readings.node_ms, 1e-7) / total)


def _design(readings: Readings, centre: float) -> np.ndarray:
    ratio = np.clip(_ratio(readings) - centre, -3, 3)
    return np.concatenate([np.ones((len(ratio), 1)), ratio[:, None], readings.traits], 1)


def fit(readings: Readings, log_measured: np.ndarray, widths: Sequence[float] = WIDTHS) -> Operators:
    """Operators for measured ln of latency (N,); the width of the prior is the one of `widths` with most evidence."""
    centre = float(np.average(_ratio(readings), weights=readings.node_ms))
    found = [_fit(readings, log_measured, centre, width) for width in widths]
    return max(found, key=lambda pair: pair[0])[1]


def _fit(readings: Readings, target: np.ndarray, centre: float, width: float) -> tuple[float, Operators]:
    """(ln evidence but for a constant, factors) at one width of the prior."""
    first, n = readings.start[:-1], len(target)
    design, busy = _design(readings, centre), _busy(readings)
    launches = np.add.reduceat(readings.times[:, 2], first)
    offset = float(np.median(target - np.log(np.add.reduceat(busy, first) + launches + 1e-12)))
    start = np.concatenate([[0, 0], EXPECTED, [0, 0]])
    start[[0, -2]], start[-1] = offset, np.median(target) + np.log(0.02)
    spread = np.concatenate([[_FREE, _BLEND], width * SPREAD, [_APART, _APART]])
    precision = spread**-2

    def predict(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(over="ignore"):
            node = busy * np.exp(design @ x[:-2])
            return node, np.add.reduceat(node, first) + launches * np.exp(x[-2]) + np.exp(x[-1])

    def loss(x: np.ndarray, residual: np.ndarray) -> float:
        return float((weight * residual**2).sum() / variance + (precision * (x - start) ** 2).sum()) / 2

    x, damping, variance, weight = start.copy(), 1e-2, 0.05, np.ones(n)
    node, total = predict(x)
    residual = target - np.log(total)
    hessian = np.diag(precision)
    for _ in range(_STEPS):
        inner = np.add.reduceat(node[:, None] * design, first)
        slopes = np.concatenate([inner, (launches * np.exp(x[-2]))[:, None], np.full((n, 1), np.exp(x[-1]))], 1)
        slopes /= total[:, None]
        hessian = (slopes * weight[:, None]).T @ slopes / variance + np.diag(precision)
        downhill = slopes.T @ (weight * residual) / variance - precision * (x - start)
        before = loss(x, residual)
        for _ in range(12):
            step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), downhill)
            next_node, next_total = predict(x + step)
            if np.isfinite(next_total).all():
                next_residual = target - np.log(next_total)
                if loss(x + step, next_residual) <= before + 1e-9:
                    break
            damping *= 5
        else:
            break
        x, node, total, residual = x + step, next_node, next_total, next_residual
        damping = max(damping / 5, 1e-7)
        weight = np.minimum(1, _HUBER * np.sqrt(variance) / np.maximum(np.abs(residual), 1e-12))
        noise = max(float((weight * residual**2).sum()) / max(n - 2, 1), _NOISE**2)
        settled = np.abs(step).max() < 1e-3 and abs(noise / variance - 1) < 0.03
        variance = (variance + noise) / 2
        if settled:
            break
    evidence = -loss(x, residual) - n * np.log(variance) / 2
    evidence += (np.log(precision).sum() - np.linalg.slogdet(hessian)[1]) / 2
    return float(evidence), Operators(x, centre, width)


def to_record(operators: Operators) -> dict[str, Any]:
    """JSON-able."""
    return {"values": operators.values.tolist(), "centre": operators.centre, "width": operators.width}


def from_record(record: Mapping[str, Any]) -> Operators:
    """What `to_record` wrote. Raises KeyError, TypeError or ValueError where something is missing."""
    values = np.asarray(record["values"], np.float64)
    if values.shape != (TRAITS + 4,) or not np.isfinite(values).all():
        raise ValueError("operator factors do not match")
    return Operators(values, float(record["centre"]), float(record["width"]))

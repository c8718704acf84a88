"""Gaussian-process regression of ln(measured / predicted) in NumPy.

The covariance is a sum of a constant, which stands for the platform's overall speed, and of components of the reading:

level     linear in ln of the predicted latency: a slope
size      smooth in ln of latency, FLOPs, weights, traffic and nodes
mixture   smooth in the time shares
graph     smooth in the graph vector

Amplitudes, length scales and noise maximise the marginal likelihood (Rasmussen and Williams 2006, chapter 5) over fixed
grids, one component after the other, so that equal samples give equal answers. Samples that the others contradict are
given more noise once, in the manner of iteratively reweighted least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.finetune.readings import Readings

PRIOR = 1.0  # standard deviation of the overall speed in ln: a factor of e either way
AMPLITUDES = (0.0, 0.03, 0.1, 0.2, 0.4, 0.8)
LENGTHS = (0.3, 0.6, 1.2, 2.5)
NOISES = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3)
SEARCH = 300  # samples that hyperparameters are sought on
MOST = 2000  # samples that the answer is made of
_OUTLYING = 3.0


def _level(r: Readings) -> np.ndarray:
    return r.size[:, :1] / 3


def _size(r: Readings) -> np.ndarray:
    return r.size / 3


def _mixture(r: Readings) -> np.ndarray:
    return r.shares * np.sqrt(10)


def _graph(r: Readings) -> np.ndarray:
    return r.vectors / np.sqrt(r.vectors.shape[1])


_FEATURES: dict[str, tuple[bool, Callable[[Readings], np.ndarray]]] = {
    "level": (True, _level),
    "size": (False, _size),
    "mixture": (False, _mixture),
    "graph": (False, _graph),
}
"""Component → whether it is linear, and its features, of order one."""


@dataclass(frozen=True)
class Process:
    """A fitted process: hyperparameters, the samples' features by component and their weights.

    scales   component → (amplitude, length scale)
    noise    standard deviation of a sample in ln
    points   component → (N, f) features of the samples
    weights  (N,) covariance⁻¹ · residuals
    """

    scales: Mapping[str, tuple[float, float]]
    noise: float
    points: Mapping[str, np.ndarray]
    weights: np.ndarray

    def mean(self, readings: Readings) -> np.ndarray:
        """(G,) expected ln(measured / predicted)."""
        total = np.full(len(readings), PRIOR**2 * self.weights.sum())
        for name, (amplitude, length) in self.scales.items():
            linear, features = _FEATURES[name]
            total += amplitude**2 * (_covariance(linear, features(readings), self.points[name], length) @ self.weights)
        return total


def fit(components: Sequence[str], readings: Readings, residual: np.ndarray, like: Process | None = None) -> Process:
    """The process of some components for residuals ln(measured / predicted) (N,); `like` lends hyperparameters."""
    chosen = np.random.default_rng(0).permutation(len(readings))[:MOST]
    readings, residual = readings.take(chosen), residual[chosen]
    scales: Mapping[str, tuple[float, float]]
    if like is not None:
        scales, noise = like.scales, like.noise
    else:
        few = np.arange(len(readings))[:SEARCH]
        scales, noise = _search(components, readings.take(few), residual[few])
    points = {name: _FEATURES[name][1](readings) for name in scales}
    covariance = np.full((len(residual), len(residual)), PRIOR**2)
    for name, (amplitude, length) in scales.items():
        covariance += amplitude**2 * _covariance(_FEATURES[name][0], points[name], points[name], length)
    variance = np.full(len(residual), noise**2)
    for _ in range(2):
        inverse = np.linalg.inv(covariance + np.diag(variance))
        left_out = (inverse @ residual) / np.sqrt(np.diag(inverse))  # leave-one-out errors in standard deviations
        excess = np.maximum(np.abs(left_out) / _OUTLYING, 1.0)
        if excess.max() == 1.0:
            break
        variance = noise**2 * excess**2
    return Process(scales, noise, points, inverse @ residual)


def _covariance(linear: bool, a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    if linear:
        return a @ b.T
    return np.exp(-_squared(a, b) / (2 * length**2))


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * (a @ b.T), 0)


def _search(
    components: Sequence[str], readings: Readings, residual: np.ndarray
) -> tuple[dict[str, tuple[float, float]], float]:
    """Scales of the components that earn an amplitude, and the noise."""
    n = len(residual)
    linear = {name: _FEATURES[name][0] for name in components}
    features = {name: _FEATURES[name][1](readings) for name in components}
    base = {name: f @ f.T if linear[name] else _squared(f, f) for name, f in features.items()}
    made: dict[tuple[str, float], np.ndarray] = {}

    def part(name: str, length: float) -> np.ndarray:
        if linear[name]:
            return base[name]
        if (name, length) not in made:
            made[name, length] = np.exp(-base[name] / (2 * length**2))
        return made[name, length]

    def cost(scales: Mapping[str, tuple[float, float]], noise: float) -> float:
        covariance = np.full((n, n), PRIOR**2)
        covariance[np.diag_indices(n)] += noise**2
        for name, (amplitude, length) in scales.items():
            if amplitude:
                covariance += amplitude**2 * part(name, length)
        try:
            root = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return np.inf
        half = np.linalg.solve(root, residual)
        return float(half @ half / 2 + np.log(np.diag(root)).sum())

    scales: dict[str, tuple[float, float]] = dict.fromkeys(components, (0.1, 0.6))
    noise = 0.08
    best = cost(scales, noise)
    for _ in range(4):
        before = best
        for name in components:
            for amplitude in AMPLITUDES:
                for length in LENGTHS if amplitude and not linear[name] else (0.6,):
                    candidate = {**scales, name: (amplitude, length)}
                    if (found := cost(candidate, noise)) < best - 1e-9:
                        best, scales = found, candidate
        for candidate_noise in NOISES:
            if (found := cost(scales, candidate_noise)) < best - 1e-9:
                best, noise = found, candidate_noise
        if best > before - 1e-3:
            break
    return {name: value for name, value in scales.items() if value[0]}, noise


def to_record(process: Process) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """JSON-able hyperparameters, and arrays."""
    record = {"noise": process.noise, "scales": {k: list(v) for k, v in process.scales.items()}}
    arrays = {"weights": process.weights, **{f"points.{k}": v.astype(np.float32) for k, v in process.points.items()}}
    return record, arrays


def from_record(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Process:
    """The process that `to_record` wrote. Raises KeyError, TypeError or ValueError where something is missing."""
    scales = {str(k): (float(a), float(length)) for k, (a, length) in record["scales"].items()}
    points = {k: np.asarray(arrays[f"points.{k}"], np.float64) for k in scales}
    weights = np.asarray(arrays["weights"], np.float64)
    if any(k not in _FEATURES for k in scales) or any(len(p) != len(weights) for p in points.values()):
        raise ValueError("components and samples do not match")
    return Process(scales, float(record["noise"]), points, weights)

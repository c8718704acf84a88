"""The roofline's own view of a platform, fitted: a factor each for compute, memory and launches, without the model.

Where nothing like the platform was in training, the sum of roofline times is often a better start than the network.
"""

from __future__ import annotations

import numpy as np

from costmodel.finetune.readings import Readings

TERMS = 3
_LEAST = 0.02
"""No term weighs less than this part of what all terms weigh at first: a node that does something takes time."""
_PULL = 0.1
"""Samples' worth of error for a factor e between one term and all: what the samples do not tell stays together."""


def node_ms(factors: np.ndarray, readings: Readings) -> np.ndarray:
    """(R,) ms of each node: the larger of compute and memory time, and launches, each times its factor (3,)."""
    compute, memory, launch = (readings.times * factors).T
    return np.asarray(np.maximum(compute, memory) + launch + 1e-9)


def fit(readings: Readings, log_measured: np.ndarray, steps: int = 60) -> np.ndarray:
    """Factors (3,) for ln of measured ms (N,): least absolute ln-ratio by coordinates, from one common factor."""
    first = readings.start[:-1]

    def log_ms(logs: np.ndarray) -> np.ndarray:
        return np.log(np.add.reduceat(node_ms(np.exp(logs), readings), first))

    common = float(np.median(log_measured - log_ms(np.zeros(TERMS))))

    def loss(logs: np.ndarray) -> float:
        return float(np.abs(log_measured - log_ms(logs)).sum() + _PULL * np.abs(logs - common).sum())

    logs, width = np.full(TERMS, common), 0.5
    best = loss(logs)
    for _ in range(steps):
        before = best
        for i in range(TERMS):
            for move in (width, -width):
                tried = logs.copy()
                tried[i] += move
                found = loss(tried)
                if found < best and tried[i] > common + np.log(_LEAST):
                    logs, best = tried, found
        if best == before:
            width /= 2
            if width < 0.01:
                break
    return np.exp(logs)

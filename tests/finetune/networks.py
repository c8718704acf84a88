"""Small random networks, and devices whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costmodel.finetune.readings import Readings
from costmodel.ir import Graph, GraphBuilder
from costmodel.platforms import resolve
from costmodel.samples import Sample

PLATFORM = resolve("i9_10940x", "fp32", "onnxruntime-1.32.0")


def network(seed: int) -> Graph:
    """Convolutions, depthwise convolutions, activations and a linear layer of random width and depth."""
    rng = np.random.default_rng(seed)
    size, channels = int(rng.choice([16, 32, 64])), int(rng.choice([8, 16, 32]))
    b = GraphBuilder(f"net{seed}")
    x = b.input((1, 3, size, size))
    width = 3
    for _ in range(int(rng.integers(2, 7))):
        kernel = int(rng.choice([1, 3, 5]))
        depthwise = width > 3 and rng.random() < 0.4
        out, group = (width, width) if depthwise else (int(channels * rng.integers(1, 5)), 1)
        pad = kernel // 2
        attrs = {"strides": (1, 1), "dilations": (1, 1), "group": group}
        x = b.node(
            "Conv", [x, b.param((out, width // group, kernel, kernel)), b.param((out,))], (1, out, size, size),
            kernel_shape=(kernel, kernel), pads=(pad, pad, pad, pad), **attrs,
        )  # fmt: skip
        x = b.node(str(rng.choice(["Relu", "Sigmoid", "HardSwish"])), [x], (1, out, size, size))
        width = out
    x = b.node("GlobalAveragePool", [x], (1, width, 1, 1))
    x = b.node("Flatten", [x], (1, width), axis=1)
    features = int(rng.integers(10, 2000))
    x = b.node("Gemm", [x, b.param((features, width)), b.param((features,))], (1, features), transB=True)
    return b.build([x])


FACTORS = np.exp([0.9, -0.3, 1.3, 0.2, 0.7, 0.0, 0.4, 0.0])
"""How much slower or faster the devices below run each operator class than believed."""


def skewed(readings: Readings, seed: int = 0, noise: float = 0.01) -> np.ndarray:
    """(G,) ms on a device that runs each operator class slower or faster than the model believes."""
    exact = np.add.reduceat(readings.node_ms * _factors(readings), readings.start[:-1])
    return exact * np.exp(np.random.default_rng(seed).normal(0, noise, len(exact)))


def skewed_roofline(readings: Readings) -> np.ndarray:
    """(G,) ms on a device that is its roofline, but for known factors of classes and twice the launch time."""
    node_ms = (readings.times[:, 0] + readings.times[:, 1]) * _factors(readings) + 2 * readings.times[:, 2]
    return np.add.reduceat(node_ms, readings.start[:-1])


def _factors(readings: Readings) -> np.ndarray:
    return FACTORS[readings.traits[:, : len(FACTORS)].argmax(1)]


def samples(graphs: Sequence[Graph], latency: np.ndarray, **fields: str) -> list[Sample]:
    """Samples of `PLATFORM`."""
    facts = {"device": PLATFORM.device.name, "precision": "fp32", "runtime": PLATFORM.runtime_label, **fields}
    return [
        Sample(g.fingerprint, batch=1, latency_ms=float(t), name=g.name, **facts)
        for g, t in zip(graphs, latency, strict=True)
    ]

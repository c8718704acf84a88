"""Graphs and samples for the tests of the sample store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from costmodel.ir import Graph, GraphBuilder
from costmodel.samples import Sample


def network(width: int = 4, batch: int = 1) -> Graph:
    """A convolution and a ReLU; `width` tells networks apart."""
    b = GraphBuilder(f"net{width}")
    x = b.input((batch, 3, 8, 8), name="input")
    w = b.param((width, 3, 3, 3))
    y = b.node(
        "Conv", [x, w], (batch, width, 6, 6), kernel_shape=(3, 3), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1),
        group=1,
    )  # fmt: skip
    return b.build([b.node("Relu", [y], (batch, width, 6, 6))])


def measured(graph: Graph | None = None, **changes: Any) -> Sample:
    """A sample with every field set; `changes` replace some."""
    graph = graph or network()
    fields: dict[str, Any] = {
        "fingerprint": graph.fingerprint, "device": "t4", "precision": "fp32", "runtime": "tensorrt-8.6.1", "batch": 1,
        "latency_ms": 1.5, "p90_ms": 1.6, "p99_ms": 1.9, "cv": 0.02, "repeats": 50, "peak_memory_bytes": 123456789,
        "energy_mj": 70.5, "name": "gen/resnet/17", "operators": (("Conv_0", 1.1), ("Relu_1", 0.2)),
        "environment": {"driver": "550.54", "clocks": [1590, 5001], "load": 0.25}, "source": "profile",
        "measured_at": "2026-03-01T12:00:00.000001+00:00", "flags": ("noisy",),
    }  # fmt: skip
    return Sample(**fields | changes)


@pytest.fixture
def make_graph() -> Callable[..., Graph]:
    return network


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    return measured

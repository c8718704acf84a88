from __future__ import annotations

import numpy as np
import pytest

from costmodel.finetune.classes import CLASSES, TRAITS, class_of
from costmodel.finetune.readings import Readings
from costmodel.ir import Graph, Node
from costmodel.predictor import LeDGFormerModel
from tests.finetune.networks import PLATFORM


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Node("Conv", (), (), {"kernel_shape": (3, 3), "group": 1}), "convolution"),
        (Node("Conv", (), (), {"kernel_shape": (1, 1), "group": 1}), "convolution 1x1"),
        (Node("Conv", (), (), {"kernel_shape": (3, 3), "group": 32}), "depthwise"),
        (Node("Gemm", (), ()), "matmul"),
        (Node("LayerNormalization", (), ()), "normalisation"),
        (Node("GlobalAveragePool", (), ()), "pooling"),
        (Node("Transpose", (), ()), "movement"),
        (Node("Relu", (), ()), "pointwise"),
        (Node("my.Thing", (), ()), "pointwise"),
    ],
)
def test_class_of(node: Node, expected: str) -> None:
    assert class_of(node) == expected


def test_readings_hold_the_models_answer(model: LeDGFormerModel, graphs: list[Graph], readings: Readings) -> None:
    for i in (0, 33, 69):
        estimate = model.estimate(graphs[i], PLATFORM)
        assert np.exp(readings.log_ms[i]) == pytest.approx(estimate.latency_ms, rel=1e-4)
        rows = slice(readings.start[i], readings.start[i + 1])
        assert readings.node_ms[rows].sum() == pytest.approx(estimate.latency_ms, rel=1e-4)
    assert readings.shares.sum(1) == pytest.approx(np.ones(len(readings)))
    assert readings.shares.shape[1] == len(CLASSES)
    assert readings.traits.shape == (readings.start[-1], TRAITS)


def test_take_keeps_each_graphs_own_nodes(readings: Readings) -> None:
    some = readings.take(np.array([5, 2]))
    assert some.log_ms.tolist() == readings.log_ms[[5, 2]].tolist()
    assert some.node_ms[: some.start[1]].tolist() == readings.node_ms[readings.start[5] : readings.start[6]].tolist()
    assert np.add.reduceat(some.node_ms, some.start[:-1]) == pytest.approx(np.exp(some.log_ms))
    again = Readings.join([readings.take(np.arange(3)), readings.take(np.arange(3, 9))])
    assert again.start.tolist() == readings.take(np.arange(9)).start.tolist()

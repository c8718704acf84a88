"""The head in NumPy against the bundle's, and what training makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.finetune import adapters, head, head_training
from costmodel.finetune.fit import read_graphs
from costmodel.finetune.head import Head
from costmodel.finetune.readings import Readings
from costmodel.ir import Graph
from costmodel.platforms import resolve
from costmodel.predictor import LeDGFormerModel
from tests.finetune.networks import PLATFORM, skewed

pytest.importorskip("torch", reason="the head is trained in torch; install the dev extra")


@pytest.fixture(scope="module")
def with_nodes(model: LeDGFormerModel, graphs: list[Graph]) -> Readings:
    return read_graphs(model, graphs, PLATFORM, nodes=True)


@pytest.fixture(scope="module")
def released(model: LeDGFormerModel) -> Head:
    return head_training.released(model, *model.reading_of(PLATFORM))


def test_the_released_head_answers_as_the_bundles_does(graphs: list[Graph]) -> None:
    model = LeDGFormerModel()
    model.bundle.config["training"]["corrected"] = {}  # trees stand behind the head
    measured = resolve("i9_10940x", "fp32", "pytorch-compile-2.4.0")  # of which the roofline has no share
    readings = read_graphs(model, graphs, measured, nodes=True)
    node_ms = head_training.released(model, *model.reading_of(measured)).node_ms(readings)
    assert node_ms == pytest.approx(readings.node_ms, rel=2e-3)
    total = np.add.reduceat(node_ms, readings.start[:-1])
    assert np.log(total) == pytest.approx(readings.log_ms, abs=1e-3)


def test_training_undoes_a_known_distortion_on_other_graphs(released: Head, with_nodes: Readings) -> None:
    truth = np.log(skewed(with_nodes))
    train, test = np.arange(50), np.arange(50, 70)
    adapter = adapters.fit(adapters.HEAD, with_nodes.take(train), truth[train], released=released)
    after = np.abs(adapter.log_ms(with_nodes.take(test)) - truth[test])
    before = np.abs(with_nodes.log_ms[test] - truth[test])
    assert after.mean() < before.mean() / 3
    again = adapters.from_record(*adapters.to_record(adapter))
    assert again.log_ms(with_nodes) == pytest.approx(adapter.log_ms(with_nodes), abs=1e-4)


def test_a_head_needs_its_layers_and_node_vectors(released: Head, readings: Readings) -> None:
    with pytest.raises(ValueError, match="node vectors"):
        released.node_ms(readings)
    arrays = head.to_arrays(released)
    with pytest.raises(ValueError, match="fit"):
        head.from_arrays({**arrays, "head.middle": arrays["head.middle"][:3]})

"""Measured schedules as arrays and back."""

from __future__ import annotations

import numpy as np

from costmodel.integrations.tvm.loops import read
from costmodel.integrations.tvm.memory import Task, from_arrays, to_arrays
from tests.costmodel.integrations.tvm.loop_graphs import matmul

HERE = np.arange(8, dtype=np.float32)


def test_tasks_survive_arrays() -> None:
    graphs = read([matmul(), matmul("kij", ("serial", "serial", "vectorized"))])
    tasks = {"a": Task(HERE, graphs, [0.5, np.inf]), "empty": Task(HERE)}
    again = from_arrays(to_arrays(tasks))
    assert list(again) == ["a", "empty"]
    assert again["empty"].graphs == []
    np.testing.assert_array_equal(again["a"].log_seconds, [0.5, np.inf])
    np.testing.assert_array_equal(again["a"].platform, HERE)
    for one, other in zip(graphs, again["a"].graphs, strict=True):
        assert one.sentences == other.sentences
        np.testing.assert_array_equal(one.numbers, other.numbers)
        np.testing.assert_array_equal(one.pairs, other.pairs)
        np.testing.assert_array_equal(one.baseline, other.baseline)
    assert from_arrays({}) == {}


def test_what_did_not_run_is_slowest() -> None:
    graphs = read([matmul()] * 3)
    np.testing.assert_allclose(Task(HERE, graphs, [0.0, np.inf, 1.0]).targets(), [0.0, 1.0 + np.log(2), 1.0])
    np.testing.assert_allclose(Task(HERE, graphs[:2], [np.inf, np.inf]).targets(), 0)

"""A whole network through Relax; no schedule is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="apache-tvm is not installed; pip install 'ledg-cost[tvm]'")
pytest.importorskip("torch", reason="torch is not installed; pip install 'ledg-cost[tvm]'")

import onnx
from onnx import TensorProto, helper, numpy_helper

from costmodel.errors import BackendUnavailableError, DynamicShapeError, InputError, ModelLoadError
from costmodel.integrations.tvm.network import _input_shapes, import_network, system_target, tune_model


def small_network(path: Path, op: str = "Relu") -> Path:
    """Conv → activation → GlobalAveragePool with a symbolic batch."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node(op, ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["y"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 1, 1])
    graph = helper.make_graph(nodes, "g", [given], [made], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_untuned_a_network_is_timed_twice_and_gives_the_same(tmp_path: Path) -> None:
    said: list[str] = []
    found = tune_model(
        small_network(tmp_path / "m.onnx"), "llvm -mcpu=skylake -num-cores=1", 0, tmp_path / "work", "random",
        repeat=2, report=said.append,
    )  # fmt: skip
    assert found.tasks >= 1
    assert found.before_ms > 0 < found.after_ms
    assert found.error == 0
    assert (found.measured, found.failed) == (0, 0)
    assert found.as_record()["schema"] == 1
    assert said[0] == "importing the network"


def test_axes_are_bound_or_named() -> None:
    def network(*shape: int | str) -> onnx.ModelProto:
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
        return helper.make_model(helper.make_graph([], "g", [value], []))

    assert _input_shapes(network("N", 3, 8), None, {}) == {"x": [1, 3, 8]}
    assert _input_shapes(network("N", 3, 8), 4, {}) == {"x": [4, 3, 8]}
    assert _input_shapes(network("N", "L"), None, {"L": 7}) == {"x": [1, 7]}
    assert _input_shapes(network("N", "L"), 2, {"x": (5, 6)}) == {"x": [5, 6]}
    with pytest.raises(DynamicShapeError, match=r"x\[1\] L; bind them with --shape"):
        _input_shapes(network("N", "L"), 1, {})


def test_what_cannot_be_tuned(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="give an ONNX file"):
        import_network(tmp_path / "none.onnx")
    path = small_network(tmp_path / "m.onnx", "NoSuchOperator")
    with pytest.raises(InputError, match="TVM cannot import"):
        import_network(path)
    with pytest.raises(BackendUnavailableError, match="use --target llvm"):
        tune_model(path, "cuda -arch=sm_80")
    with pytest.raises(InputError, match="use one of ledg"):
        tune_model(path, "llvm", cost_model="oracle")


def test_the_target_of_this_machine() -> None:
    assert system_target(3)["num-cores"] == 3
    assert system_target()["num-cores"] >= 1

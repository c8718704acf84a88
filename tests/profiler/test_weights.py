"""Random weights and inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from costmodel.errors import DynamicShapeError, ModelLoadError
from profiler.onnx_model import prepare
from profiler.request import Request
from profiler.weights import bind_shapes, fill_weights, make_inputs
from tests.profiler.models import conv_net, elementwise


def filled(seed: int = 0) -> dict[str, np.ndarray]:
    model = conv_net()
    fill_weights(model, None, seed)
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_weights_follow_the_seed() -> None:
    assert all(np.array_equal(a, b) for a, b in zip(filled().values(), filled().values(), strict=True))
    assert not np.array_equal(filled()["w2"], filled(1)["w2"])


def test_weights_keep_the_signal() -> None:
    weights = filled()
    assert weights["w2"].std() == pytest.approx(np.sqrt(2 / (16 * 9)), rel=0.1)
    assert weights["w3"].std() == pytest.approx(np.sqrt(2 / 16), rel=0.2)


def test_a_deep_network_neither_explodes_nor_dies() -> None:
    size = 64
    names = [f"w{i}" for i in range(100)]
    nodes, last = [], "x"
    for name in names:
        nodes += [
            helper.make_node("MatMul", [last, name], [f"m{name}"]),
            helper.make_node("Relu", [f"m{name}"], [f"r{name}"]),
        ]
        last = f"r{name}"
    weights = []
    for name in names:
        tensor = TensorProto(name=name, data_type=1, dims=[size, size], data_location=TensorProto.EXTERNAL)
        weights.append(tensor)
    specs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", size]) for n in ("x", last)]
    model = helper.make_model(
        helper.make_graph(nodes, "deep", specs[:1], specs[1:], weights),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    model = prepare(Request(model.SerializeToString()))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, make_inputs(model, 0))
    assert 1e-10 < np.abs(result).max() < 1e10


def test_variances_of_batch_normalisation_are_positive() -> None:
    nodes = [helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])]
    weights = [TensorProto(name=n, data_type=1, dims=[300], data_location=TensorProto.EXTERNAL) for n in "sbmv"]
    specs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 300, 2, 2]) for n in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "bn", specs[:1], specs[1:], weights))
    fill_weights(model, None, 0)
    assert numpy_helper.to_array(model.graph.initializer[3]).min() > 0.5


def test_a_weights_file_that_exists_is_read(tmp_path: Path) -> None:
    model = conv_net()
    fill_weights(model, None, 0)
    wanted = numpy_helper.to_array(model.graph.initializer[2])
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    read = prepare(Request(str(tmp_path / "model.onnx"), seed=99))
    assert np.array_equal(numpy_helper.to_array(read.graph.initializer[2]), wanted)


def test_batch_and_symbols_are_bound() -> None:
    model = conv_net()
    bind_shapes(model, 4, {})
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [4, 3, 12, 12]
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(DynamicShapeError, match="--shape H=N"):
        bind_shapes(model, 4, {})
    bind_shapes(model, 4, {"H": 20})
    assert model.graph.input[0].type.tensor_type.shape.dim[2].dim_value == 20
    bind_shapes(model, 4, {"x": (2, 3, 8, 8)})
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 8, 8]
    with pytest.raises(DynamicShapeError, match="4 axes"):
        bind_shapes(model, 4, {"x": (2, 3)})


def test_indices_stay_inside_the_table_they_look_up() -> None:
    table = helper.make_tensor("t", TensorProto.FLOAT, [5, 2], np.zeros(10, np.float32))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [3, 100])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 100, 2])
    model = helper.make_model(
        helper.make_graph([helper.make_node("Gather", ["t", "ids"], ["y"])], "g", [ids], [out], [table])
    )
    feeds = make_inputs(model, 0)
    assert set(np.unique(feeds["ids"])) == {0, 1, 2, 3, 4}


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\xff\xfe not a model")
    for model in (str(tmp_path / "x.onnx"), str(tmp_path / "absent.onnx")):
        with pytest.raises(ModelLoadError):
            prepare(Request(model))


def test_half_precision_keeps_inputs_as_they_are() -> None:
    model = prepare(Request(elementwise("Sin").SerializeToString(), precision="fp16"))
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert "Cast" in {n.op_type for n in model.graph.node}

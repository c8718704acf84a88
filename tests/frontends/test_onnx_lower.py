from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType, Graph
from frontends import load
from tests.frontends.onnx_models import conv_net, floats, info, ints, model, node


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def test_constants_and_initializers_give_the_same_graph() -> None:
    proto = conv_net()
    expected = load(proto).fingerprint
    for tensor in proto.graph.initializer:
        proto.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del proto.graph.initializer[:]
    assert load(proto).fingerprint == expected


def test_initializers_listed_as_inputs_are_not_run_time_inputs() -> None:
    proto = conv_net()
    proto.graph.input.append(info("w", [4, 3, 3, 3]))
    assert load(proto).inputs == ("x",)


def both(old: ModelProto, new: ModelProto) -> None:
    assert load(old).fingerprint == load(new).fingerprint


def test_attributes_that_became_inputs_give_the_same_graph() -> None:
    x = {"x": ["N", 1, 6, 4]}
    both(
        model(
            [node("Squeeze", ["x"], ["s"], axes=[1]), node("Unsqueeze", ["s"], ["y"], axes=[0, -1])],
            x, ["y"], opset=11,
        ),
        model(
            [node("Squeeze", ["x", "a"], ["s"]), node("Unsqueeze", ["s", "b"], ["y"])],
            x, ["y"], {"a": ints(-3), "b": ints(4, 0)},
        ),
    )  # fmt: skip
    both(
        model([node("Clip", ["x"], ["y"], min=0.0, max=6.0)], x, ["y"], opset=9),
        model([node("Clip", ["x", "a", "b"], ["y"])], x, ["y"], {"a": np.float32(0), "b": np.float32(6)}),
    )
    both(
        model([node("Slice", ["x"], ["y"], starts=[1], ends=[100], axes=[2])], x, ["y"], opset=9),
        model(
            [node("Slice", ["x", "a", "b", "c", "d"], ["y"])],
            x, ["y"], {"a": ints(0, -5), "b": ints(2**62, 6), "c": ints(3, -2), "d": ints(1, 1)},
        ),
    )  # fmt: skip
    both(
        model([node("ReduceMean", ["x"], ["y"], axes=[-1, 2], keepdims=0)], x, ["y"], opset=13),
        model([node("ReduceMean", ["x", "a"], ["y"], keepdims=0)], x, ["y"], {"a": ints(2, 3)}, opset=18),
    )
    both(
        model([node("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1])], x, ["y"], opset=10),
        model([node("Pad", ["x", "p", "", "a"], ["y"])], x, ["y"], {"p": ints(1, 1, 1, 1), "a": ints(2, 3)}, opset=18),
    )
    both(
        model([node("Split", ["x"], ["y", "z"], axis=2)], x, ["y", "z"], opset=11),
        model([node("Split", ["x", "s"], ["y", "z"], axis=-2)], x, ["y", "z"], {"s": ints(3, 3)}),
    )
    corners = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    both(
        model([node("Upsample", ["x", "s"], ["y"])], x, ["y"], {"s": np.array([1, 1, 2, 2], np.float32)}, opset=9),
        model([node("Resize", ["x", "", "", "s"], ["y"], **corners)], x, ["y"], {"s": ints(1, 1, 12, 8)}),
    )
    both(
        model([node("TopK", ["x"], ["y", "i"], k=2)], x, ["y"], opset=9),
        model([node("TopK", ["x", "k"], ["y", "i"])], x, ["y"], {"k": ints(2)}),
    )


def test_padding_and_defaults_are_explicit() -> None:
    x, w = {"x": [1, 3, 9, 9]}, {"w": floats(8, 3, 3, 3)}
    same = model([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])], x, ["y"], w)
    plain = model(
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3])], x, ["y"], w
    )
    both(same, plain)
    assert dict(load(same).nodes[0].attrs) == {
        "kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1,
    }  # fmt: skip
    pool = load(model([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], x, ["y"]))
    assert pool.nodes[0].attrs["pads"] == (0, 0, 0, 0)  # the last window ends at the edge
    assert "ceil_mode" not in pool.nodes[0].attrs
    assert pool.tensors["y"].shape == (1, 3, 4, 4)


def test_what_does_nothing_at_inference_leaves_no_node() -> None:
    nodes = [
        node("Identity", ["x"], ["a"]),
        node("Dropout", ["a"], ["b", "mask"]),
        node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        node("Sum", ["c"], ["d"]),
        node("Transpose", ["d"], ["e"], perm=[0, 1]),
        node("Relu", ["e"], ["y"]),
        node("Exp", ["y"], ["dead"]),
    ]
    graph = load(model(nodes, {"x": ["N", 4]}, ["y"], opset=11))
    assert ops(graph) == ["Relu"]
    assert graph.nodes[0].inputs == ("x",)
    assert set(graph.tensors) == {"x", "y"}


def test_shape_arithmetic_becomes_numbers() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "zero", "two", "zero"], ["lead"]),
        node("Gather", ["s", "last"], ["d"], axis=0),
        node("Div", ["d", "heads"], ["h"]),
        node("Unsqueeze", ["h", "zero"], ["hs"]),
        node("Concat", ["lead", "heads1", "hs"], ["t"], axis=0),
        node("Equal", ["t", "t"], ["same"]),
        node("Where", ["same", "t", "t"], ["target"]),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    weights = {
        "zero": ints(0), "two": ints(2), "last": np.array(2), "heads": np.array(3), "heads1": ints(3),
    }  # fmt: skip
    graph = load(model(nodes, {"x": ["N", "s", 12]}, ["y"], weights), batch=2, shapes={"s": 5})
    assert ops(graph) == ["Reshape"]
    assert len(graph.nodes[0].inputs) == 1
    assert graph.tensors["y"].shape == (2, 5, 3, 4)


def test_networks_on_constants_become_parameters() -> None:
    """Weight standardisation by BatchNormalization in training mode, as NFNets export it."""
    nodes = [
        node("Reshape", ["w", "flat"], ["r"]),
        node("BatchNormalization", ["r", "g", "zero", "m", "v"], ["n", "m2", "v2"], training_mode=1),
        node("Shape", ["w"], ["s"]),
        node("Reshape", ["n", "s"], ["std"]),
        node("Conv", ["x", "std"], ["y"]),
    ]
    weights = {"w": floats(4, 3, 3, 3), "flat": ints(1, 4, -1), **dict.fromkeys(("g", "zero", "m", "v"), floats(4))}
    graph = load(model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], weights, opset=15))
    assert ops(graph) == ["Conv"]
    assert graph.tensors[graph.nodes[0].inputs[1]].shape == (4, 3, 3, 3)
    assert graph.nodes[0].inputs[1] in graph.params


def test_large_constants_are_never_made() -> None:
    nodes = [
        node("ConstantOfShape", ["dims"], ["w"]),
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["y"]),
    ]
    graph = load(model(nodes, {"x": [1, 10**6]}, ["y"], {"dims": ints(10**6, 10**6)}))
    assert graph.tensors[graph.nodes[0].inputs[1]].numel == 10**12


def test_an_operator_of_another_domain_takes_the_declared_shape() -> None:
    nodes = [node("Foo", ["x"], ["a"], domain="acme", rate=0.5, mode="fast"), node("Relu", ["a"], ["y"])]
    proto = model(nodes, {"x": ["N", 4]}, ["y"], acme=1)
    with pytest.raises(ShapeInferenceError, match=r"node 'a' \(acme\.Foo\).*value_info"):
        load(proto)
    proto.graph.value_info.append(info("a", ["N", 9], TensorProto.FLOAT16))
    graph = load(proto, batch=3)
    assert graph.nodes[0].op == "acme.Foo"
    assert graph.nodes[0].opaque
    assert dict(graph.nodes[0].attrs) == {"rate": 0.5, "mode": "fast"}
    assert str(graph.tensors["a"]) == "float16[3,9]"


def test_standard_operators_without_a_rule_fall_back_on_the_schema() -> None:
    proto = model(
        [node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[2.0])],
        {"x": [5, 4]},
        [info("y", ["a", "b"])],
        ai_onnx_ml=3,
    )
    with pytest.raises(ShapeInferenceError, match=r"ai\.onnx\.ml\.Scaler"):
        load(proto)
    proto = model(
        [node("LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[1.0] * 4)],
        {"x": [5, 4]},
        [info("y", [5, 1])],
        ai_onnx_ml=1,
    )
    graph = load(proto)
    assert graph.nodes[0].op == "ai.onnx.ml.LinearRegressor"
    assert graph.nodes[0].opaque


def test_a_bad_node_is_named_with_the_reason() -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], name="proj")]
    with pytest.raises(ShapeInferenceError, match=r"node 'proj' \(MatMul\): operands \(2, 4\) and \(3, 4\)"):
        load(model(nodes, {"x": [2, 4]}, ["y"], {"w": floats(3, 4)}))
    missing = model([node("Conv", ["x"], ["y"], name="stem")], {"x": [1, 3, 8, 8]}, ["y"])
    with pytest.raises(ShapeInferenceError, match="input 1 is missing"):
        load(missing)
    nodes = [node("Reshape", ["x", "s"], ["y"])]
    dynamic = model(nodes, [info("x", [2, 4]), info("s", [2], TensorProto.INT64)], ["y"])
    with pytest.raises(ShapeInferenceError, match="content of 's'"):
        load(dynamic)
    dynamic.graph.output[0].CopyFrom(info("y", [4, 2]))
    assert load(dynamic).tensors["y"].shape == (4, 2)


def test_half_precision_and_integer_types_are_kept() -> None:
    proto = model(
        [node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), node("ArgMax", ["h"], ["y"], axis=-1, keepdims=0)],
        {"x": ["N", 4]},
        ["y"],
    )
    graph = load(proto)
    assert graph.nodes[0].attrs["to"] == "float16"
    assert [graph.tensors[n.outputs[0]].dtype for n in graph.nodes] == [DType.FLOAT16, DType.INT64]

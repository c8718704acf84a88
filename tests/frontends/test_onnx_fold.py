from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, numpy_helper

from frontends import load
from frontends.onnx_fold import evaluate
from frontends.onnx_lower import Lowering, Scope
from frontends.onnx_rules import registry
from tests.frontends.onnx_models import floats, info, ints, model, node, run

A = np.array([[-7, 5, 3], [8, -2, 6]], np.int64)
CASES: dict[str, tuple[NodeProto, dict[str, np.ndarray]]] = {
    "div": (node("Div", ["a", "b"], ["y"]), {"a": A, "b": ints(2, -3, 4)}),
    "mod": (node("Mod", ["a", "b"], ["y"]), {"a": A, "b": ints(2, -3, 4)}),
    "mod_float": (node("Mod", ["a", "b"], ["y"], fmod=1), {"a": floats(2, 3) * 9, "b": np.float32([2])}),
    "cast": (node("Cast", ["a"], ["y"], to=1), {"a": A}),
    "slice_back": (
        node("Slice", ["a", "s", "e", "x", "t"], ["y"]),
        {"a": A, "s": ints(-1), "e": ints(-(2**31)), "x": ints(1), "t": ints(-2)},
    ),
    "gather": (node("Gather", ["a", "i"], ["y"], axis=1), {"a": A, "i": ints(-1, 0)}),
    "gather_nd": (node("GatherND", ["a", "i"], ["y"]), {"a": A, "i": np.array([[1, 2], [0, 0]])}),
    "scatter_nd": (node("ScatterND", ["a", "i", "u"], ["y"]), {"a": A, "i": np.array([[1]]), "u": A[:1]}),
    "scatter": (node("ScatterElements", ["a", "i", "u"], ["y"]), {"a": A, "i": np.array([[1, 0, 1]]), "u": A[:1]}),
    "one_hot": (node("OneHot", ["i", "d", "v"], ["y"], axis=0), {"i": ints(1, -1), "d": np.array(4), "v": ints(0, 5)}),
    "where": (node("Where", ["c", "a", "b"], ["y"]), {"c": A > 0, "a": A, "b": ints(0)}),
    "tile": (node("Tile", ["a", "r"], ["y"]), {"a": A, "r": ints(2, 1)}),
    "expand": (node("Expand", ["b", "s"], ["y"]), {"b": ints(1, 2, 3), "s": ints(2, 1)}),
    "concat": (node("Concat", ["a", "a"], ["y"], axis=-1), {"a": A}),
    "reduce": (node("ReduceProd", ["a"], ["y"], axes=[1], keepdims=0), {"a": A}),
    "reduce_max": (node("ReduceMax", ["a"], ["y"], axes=[-2]), {"a": A}),
    "cumsum": (node("CumSum", ["a", "x"], ["y"]), {"a": A, "x": np.array(1)}),
    "trilu": (node("Trilu", ["a"], ["y"], upper=0), {"a": A}),
    "range": (node("Range", ["s", "e", "d"], ["y"]), {"s": np.array(7), "e": np.array(-2), "d": np.array(-3)}),
    "eye": (node("EyeLike", ["a"], ["y"], k=1), {"a": A}),
    "non_zero": (node("NonZero", ["a"], ["y"]), {"a": A * (A > 0)}),
    "unsqueeze": (node("Unsqueeze", ["a", "x"], ["y"]), {"a": A, "x": ints(-1, 0)}),
    "transpose": (node("Transpose", ["a"], ["y"]), {"a": A}),
    "clip": (node("Clip", ["a", "l", "h"], ["y"]), {"a": A, "l": np.array(-2), "h": np.array(5)}),
    "max": (node("Max", ["a", "b"], ["y"]), {"a": A, "b": ints(1)}),
    "constant_of_shape": (
        node("ConstantOfShape", ["s"], ["y"], value=numpy_helper.from_array(ints(4))),
        {"s": ints(2, 3)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_contents_are_those_that_onnxruntime_computes(name: str) -> None:
    call, weights = CASES[name]
    proto = model([call], {}, [info("y", None)], weights)
    lowering = Lowering(proto, None, None)
    scope = Scope(None, {"": 17})
    scope.tensors = {t.name: t for t in proto.graph.initializer}
    lowering.run(proto.graph.node, scope)
    content = scope.values["y"].content
    assert not lowering.nodes
    assert content is not None
    expected = run(_typed(call, weights), weights)[0]
    np.testing.assert_array_equal(content, expected)
    assert content.dtype == expected.dtype


def _typed(call: NodeProto, weights: dict[str, np.ndarray]) -> object:
    """The same call with run-time inputs and a result whose type is inferred."""
    from onnx import helper, shape_inference

    inputs = [info(k, v.shape, helper.np_dtype_to_tensor_dtype(v.dtype)) for k, v in weights.items()]
    proto = model([call], inputs, [], {})
    found = shape_inference.infer_shapes(proto).graph.value_info
    proto.graph.output.extend(found)
    return proto


def test_a_content_of_another_shape_than_inferred_is_dropped() -> None:
    from costmodel.ir import DType

    assert evaluate("Add", [ints(1, 2), ints(3)], {}, [((3,), DType.INT64)]) == []
    assert evaluate("Conv", [floats(1), floats(1)], {}, [((1,), DType.FLOAT32)]) == []
    assert ("", "Add") in registry()


def sources(nodes: list[NodeProto], weights: dict[str, np.ndarray], shape: list[int]) -> list[int]:
    """Source elements of the constants that the lowered nodes read."""
    graph = load(model(nodes, {"x": shape}, ["y"], weights))
    return [graph.sources[t] for n in graph.nodes for t in n.inputs if t in graph.sources]


def test_an_expanded_table_knows_the_rows_it_came_from() -> None:
    weights = {"table": floats(7, 2), "where": np.arange(16).reshape(4, 4) % 7}
    nodes = [
        node("Gather", ["table", "where"], ["g"]),
        node("Transpose", ["g"], ["bias"], perm=[2, 0, 1]),
        node("Add", ["x", "bias"], ["y"]),
    ]
    assert sources(nodes, weights, [1, 2, 4, 4]) == [14]


def test_a_moved_part_keeps_its_share_and_arithmetic_adds_up_without_repeats() -> None:
    weights = {"w": floats(6, 4), "scale": floats(4)}
    nodes = [
        node("Split", ["w"], ["a", "b"], axis=0, num_outputs=2),
        node("Mul", ["a", "scale"], ["c"]),
        node("Mul", ["c", "scale"], ["d"]),
        node("MatMul", ["x", "d"], ["h"]),
        node("Concat", ["h", "b"], ["y"], axis=0),
    ]
    assert sources(nodes, weights, [2, 3]) == [12 + 4, 12]


def test_coordinates_that_a_constant_network_takes_in_are_no_source() -> None:
    weights = {"grid": floats(9, 2), "w": floats(2, 5), "b": floats(5)}
    nodes = [
        node("MatMul", ["grid", "w"], ["m"]),
        node("Add", ["m", "b"], ["t"]),
        node("Add", ["x", "t"], ["y"]),
    ]
    assert sources(nodes, weights, [9, 5]) == [10 + 5]


def test_statistics_of_a_folded_normalisation_are_no_source() -> None:
    weights = {"w": floats(1, 3, 5), "g": floats(3), "b": floats(3), "m": floats(3), "v": floats(3)}
    nodes = [node("BatchNormalization", ["w", "g", "b", "m", "v"], ["n"]), node("Add", ["x", "n"], ["y"])]
    assert sources(nodes, weights, [1, 3, 5]) == [15 + 6]


def test_constants_of_the_file_have_no_sources() -> None:
    assert sources([node("Add", ["x", "w"], ["y"])], {"w": floats(4)}, [2, 4]) == []

from __future__ import annotations

import pytest
from onnx import TensorProto

from costmodel.errors import DynamicShapeError, InputError
from costmodel.ir import Graph
from frontends import load
from tests.frontends.onnx_models import conv_net, floats, info, ints, model, node


def output(graph: Graph) -> tuple[int, ...]:
    return graph.tensors[graph.outputs[0]].shape


def test_a_symbolic_leading_axis_is_the_batch() -> None:
    assert output(load(conv_net("N"))) == (1, 10)
    assert output(load(conv_net("whatever"), batch=5)) == (5, 10)


def test_a_fixed_batch_is_replaced_throughout() -> None:
    assert output(load(conv_net(2))) == (2, 10)
    assert output(load(conv_net(2), batch=7)) == (7, 10)
    assert load(conv_net(2), batch=2).fingerprint == load(conv_net("N"), batch=2).fingerprint


def test_the_axis_named_batch_is_the_batch_even_if_it_does_not_lead() -> None:
    proto = model([node("Relu", ["x"], ["y"])], {"x": ["seq", "batch_size", 4]}, ["y"])
    assert output(load(proto, batch=3, shapes={"seq": 9})) == (9, 3, 4)
    with pytest.raises(DynamicShapeError) as caught:
        load(proto)
    assert caught.value.symbols == ("seq",)
    assert "--shape seq=?" in str(caught.value)


def test_open_axes_are_all_named_with_their_flags() -> None:
    inputs = [info("ids", ["N", "tokens"], TensorProto.INT64), info("mask", ["N", None])]
    proto = model([node("Cast", ["ids"], ["f"], to=1), node("Relu", ["mask"], ["y"])], inputs, ["f", "y"])
    with pytest.raises(DynamicShapeError) as caught:
        load(proto)
    assert caught.value.symbols == ("mask:1", "tokens")
    assert "--shape mask:1,?" in str(caught.value)
    assert "--shape tokens=?" in str(caught.value)
    graph = load(proto, batch=2, shapes={"tokens": 8, "mask": (2, 16)})
    assert [graph.tensors[t].shape for t in graph.inputs] == [(2, 8), (2, 16)]


def test_a_whole_shape_binds_its_symbols_for_other_inputs_too() -> None:
    proto = model([node("Add", ["a", "b"], ["y"])], {"a": ["N", "s"], "b": ["N", "s"]}, ["y"])
    assert output(load(proto, shapes={"a": (4, 6)})) == (4, 6)
    with pytest.raises(InputError, match="has 1 axes"):
        load(proto, shapes={"a": (4,)})
    with pytest.raises(InputError, match="neither an input nor a symbol"):
        load(proto, shapes={"c": 3})
    with pytest.raises(InputError, match="not positive"):
        load(proto, batch=0, shapes={"s": 3})


def test_reshape_targets_with_the_batch_in_them_are_rewritten() -> None:
    nodes = [node("Reshape", ["x", "s"], ["r"]), node("Transpose", ["r"], ["y"], perm=[0, 2, 1])]
    for target in (ints(1, 4, 6), ints(1, -1, 6), ints(-1, 4, 6), ints(0, 4, 6)):
        proto = model(nodes, {"x": [1, 24]}, [info("y", [1, 6, 4])], {"s": target})
        assert output(load(proto, batch=5)) == (5, 6, 4)


def test_class_tokens_of_the_exported_batch_are_repeated() -> None:
    proto = model(
        [node("Concat", ["token", "x"], ["y"], axis=1)],
        {"x": [1, 4, 8]},
        [info("y", [1, 5, 8])],
        {"token": floats(1, 1, 8)},
    )
    assert output(load(proto, batch=3)) == (3, 5, 8)


def test_a_batch_that_cannot_be_replaced_is_an_error() -> None:
    proto = model(
        [node("Reshape", ["x", "s"], ["r"]), node("MatMul", ["r", "w"], ["y"])],
        {"x": [3, 5]},
        [info("y", [3, 4])],
        {"s": ints(15, 1), "w": floats(1, 4)},
    )
    assert output(load(proto)) == (15, 4)
    with pytest.raises(InputError, match="exported for batch 3"):
        load(proto, batch=4)
    two = model([node("Relu", ["a"], ["y"]), node("Relu", ["b"], ["z"])], {"a": [1, 2], "b": [4, 2]}, ["y", "z"])
    with pytest.raises(InputError, match="share no leading batch axis"):
        load(two, batch=2)


def test_inputs_that_are_not_tensors_are_refused() -> None:
    from onnx import helper

    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2])
    proto = model([node("SequenceLength", ["s"], ["y"])], [sequence], ["y"])
    with pytest.raises(InputError, match="sequence_type"):
        load(proto)

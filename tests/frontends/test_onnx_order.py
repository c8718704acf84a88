from __future__ import annotations

import pytest

from costmodel.errors import InputError, UnsupportedOpError
from frontends import load
from tests.frontends.onnx_models import conv_net, floats, model, node


def test_files_out_of_order_lower_like_ordered_ones() -> None:
    proto = conv_net()
    expected = load(proto).fingerprint
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    assert load(proto).fingerprint == expected


def test_a_cycle_and_a_missing_tensor_are_told_apart() -> None:
    cycle = [node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"], name="second")]
    with pytest.raises(InputError, match="cycle through node 'first'"):
        load(model(cycle, {"x": [2, 2]}, ["b"]))
    with pytest.raises(InputError, match="reads 'nowhere', which nothing produces"):
        load(model([node("Add", ["x", "nowhere"], ["y"])], {"x": [2, 2]}, ["y"]))
    with pytest.raises(InputError, match="output 'z'"):
        load(model([node("Relu", ["x"], ["y"])], {"x": [2, 2]}, ["z"]))


def test_strict_lists_every_unknown_operator_at_once() -> None:
    nodes = [
        node("Foo", ["x"], ["a"], domain="acme"),
        node("Foo", ["a"], ["b"], domain="acme"),
        node("Bar", ["b"], ["c"]),
        node("MatMul", ["c", "w"], ["y"]),
    ]
    proto = model(nodes, {"x": [2, 4]}, ["y"], {"w": floats(4, 4)}, acme=1)
    with pytest.raises(UnsupportedOpError) as caught:
        load(proto, strict=True)
    assert caught.value.ops == {"acme.Foo": 2, "Bar": 1}
    assert "Bar (1), acme.Foo (2)" in str(caught.value)

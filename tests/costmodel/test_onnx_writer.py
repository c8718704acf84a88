"""Graphs written as ONNX are read back as the same graphs."""

from __future__ import annotations

import onnx
import pytest

import frontends
from costmodel import corpora
from costmodel.canonical import canonical
from costmodel.ir import DType, Graph, GraphBuilder, TensorSpec
from costmodel.onnx_writer import to_onnx
from tests.samples.conftest import network

NETWORKS = [
    "nb201/|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|",
    "nb101/0110000101000110000100000/input,conv1x1-bn-relu,maxpool3x3,conv3x3-bn-relu,output",
]


def read_back(graph: Graph) -> Graph:
    return frontends.load(to_onnx(graph).SerializeToString())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_networks_come_back_the_same(name: str, batch: int) -> None:
    built = corpora.build(name, batch)
    graph = read_back(built)  # with every attribute as the ONNX frontend spells it
    again = read_back(graph)
    assert again.fingerprint == graph.fingerprint
    assert (again.name, [n.op for n in graph.nodes]) == (name, [n.op for n in canonical(built).nodes])
    assert graph.tensors[graph.outputs[0]].shape == (batch, 10)


@pytest.mark.parametrize(
    ("op", "attrs", "shape"),
    [
        ("Slice", {"axes": (1, 2), "ends": (3, 6), "starts": (1, 0), "steps": (1, 2)}, (2, 2, 3)),
        ("Clip", {"min": 0.0, "max": 6.0}, (2, 4, 6)),
        ("Clip", {"max": 6.0}, (2, 4, 6)),
        ("Pad", {"mode": "reflect", "pads": (0, 1, 1, 0, 0, 1)}, (2, 5, 8)),
        ("ReduceMean", {"axes": (1,), "keepdims": 1}, (2, 1, 6)),
        ("ReduceSum", {"axes": (1, 2), "keepdims": 0}, (2,)),
        ("Reshape", {}, (2, 24)),
        ("Tile", {"repeats": (1, 2, 3)}, (2, 8, 18)),
        ("Transpose", {"perm": (0, 2, 1)}, (2, 6, 4)),
        ("Trilu", {"k": 1, "upper": 1}, (2, 4, 6)),
        ("Softmax", {"axis": 2}, (2, 4, 6)),
        ("Gelu", {"approximate": "tanh"}, (2, 4, 6)),
    ],
)
def test_attributes_become_inputs_and_attributes_again(op: str, attrs: dict, shape: tuple[int, ...]) -> None:
    b = GraphBuilder("one")
    graph = b.build([b.node(op, [b.input((2, 4, 6))], shape, **attrs)])
    again = read_back(graph)
    assert again.nodes[0].attrs == attrs
    assert again.fingerprint == graph.fingerprint


def test_several_outputs() -> None:
    b = GraphBuilder("split")
    x = b.input((2, 6))
    parts = b.add("Split", [x], [TensorSpec((2, 2)), TensorSpec((2, 4))], {"axis": 1, "split": (2, 4)})
    graph = b.build(parts)
    assert read_back(graph).fingerprint == graph.fingerprint


def test_half_precision_and_bounds_of_its_type() -> None:
    b = GraphBuilder("half")
    x = b.input((1, 8), DType.FLOAT16)
    graph = b.build([b.node("Clip", [x], (1, 8), DType.FLOAT16, min=0.0, max=6.0)])
    model = to_onnx(graph)
    assert {t.data_type for t in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert read_back(graph).fingerprint == graph.fingerprint


def test_the_model_is_valid_small_and_without_weights() -> None:
    graph = network(width=64)
    model = to_onnx(graph)
    for node in model.graph.node:
        onnx.checker.check_node(node, _context())
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert len(model.SerializeToString()) < 1500
    assert all(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def _context() -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = 9, {"": 20}
    return context


def test_names_of_constants_do_not_clash() -> None:
    b = GraphBuilder("clash")
    x = b.input((1, 4), name="constant_0")
    graph = b.build([b.node("Reshape", [b.node("Relu", [x], (1, 4))], (4,))])
    assert read_back(graph).fingerprint == graph.fingerprint


def test_operators_of_other_domains_keep_their_domain() -> None:
    b = GraphBuilder("custom")
    graph = b.build([*b.add("com.example.Magic", [b.input((1, 4))], [TensorSpec((1, 4))], {"n": 2}, opaque=True)])
    node = to_onnx(graph).graph.node[0]
    assert (node.domain, node.op_type) == ("com.example", "Magic")

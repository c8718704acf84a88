from __future__ import annotations

from costmodel.ir import Graph, GraphBuilder
from frontends.torch_tidy import tidy


def tidied(b: GraphBuilder, *outputs: str) -> Graph:
    results = list(outputs)
    nodes = tidy(b.nodes, b.tensors, b.params, results)
    return Graph(tuple(nodes), b.tensors, tuple(b.inputs), tuple(results), frozenset(b.params))


def conv(b: GraphBuilder, x: str, pads: tuple[int, ...] = (0, 0, 0, 0)) -> str:
    w = b.param((4, 4, 3, 3))
    n, _, h, wide = b.shape(x)
    shape = (n, 4, h + pads[0] + pads[2] - 2, wide + pads[1] + pads[3] - 2)
    return b.node("Conv", [x, w], shape, kernel_shape=(3, 3), strides=(1, 1), pads=pads, dilations=(1, 1), group=1)


def batch_norm(b: GraphBuilder, x: str) -> str:
    return b.node("BatchNormalization", [x, *(b.param((4,)) for _ in range(4))], b.shape(x))


def test_batch_norm_becomes_the_bias() -> None:
    b = GraphBuilder()
    graph = tidied(b, batch_norm(b, conv(b, b.input((1, 4, 8, 8)))))
    (node,) = graph.nodes
    assert node.op == "Conv"
    assert graph.tensors[node.inputs[2]].shape == (4,)


def test_batch_norm_of_a_shared_result_stays() -> None:
    b = GraphBuilder()
    y = conv(b, b.input((1, 4, 8, 8)))
    graph = tidied(b, batch_norm(b, y), y)
    assert [n.op for n in graph.nodes] == ["Conv", "BatchNormalization"]


def test_zero_padding_joins_the_convolution_and_other_padding_does_not() -> None:
    for mode, ops in (("constant", ["Conv"]), ("reflect", ["Pad", "Conv"])):
        b = GraphBuilder()
        x = b.input((1, 4, 8, 8))
        padded = b.node("Pad", [x], (1, 4, 10, 11), mode=mode, pads=(0, 0, 1, 2, 0, 0, 1, 1))
        graph = tidied(b, conv(b, padded))
        assert [n.op for n in graph.nodes] == ops
        if mode == "constant":
            assert graph.nodes[0].attrs["pads"] == (1, 2, 1, 1)


def test_chains_end_in_one_node_or_none() -> None:
    b = GraphBuilder()
    x = b.input((2, 3, 4))
    back = b.node("Reshape", [b.node("Reshape", [x], (6, 4))], (2, 3, 4))
    turned = b.node("Transpose", [b.node("Transpose", [back], (4, 3, 2), perm=(2, 1, 0))], (2, 3, 4), perm=(2, 1, 0))
    wide = b.node("Unsqueeze", [b.node("Unsqueeze", [turned], (2, 1, 3, 4), axes=(1,))], (1, 2, 1, 3, 4), axes=(0,))
    clipped = b.node("Clip", [b.node("Relu", [wide], (1, 2, 1, 3, 4))], (1, 2, 1, 3, 4), min=-1.0, max=6.0)
    graph = tidied(b, clipped)
    assert [(n.op, dict(n.attrs)) for n in graph.nodes] == [
        ("Unsqueeze", {"axes": (0, 2)}),
        ("Clip", {"min": 0.0, "max": 6.0}),
    ]


def test_equal_calls_are_made_once_but_not_across_shapes() -> None:
    b = GraphBuilder()
    x = b.input((6,))
    left, right = b.node("Relu", [x], (6,)), b.node("Relu", [x], (6,))
    wide, tall = b.node("Reshape", [left], (2, 3)), b.node("Reshape", [right], (3, 2))
    graph = tidied(b, wide, tall)
    assert [n.op for n in graph.nodes] == ["Relu", "Reshape", "Reshape"]
    assert [graph.tensors[t].shape for t in graph.outputs] == [(2, 3), (3, 2)]


def test_unread_results_and_nodes_are_left_out() -> None:
    from costmodel.ir import TensorSpec

    b = GraphBuilder()
    x = b.input((1, 4, 8, 8))
    b.node("Exp", [x], (1, 4, 8, 8))
    values, _ = b.add("MaxPool", [x], [TensorSpec((1, 4, 4, 4)), TensorSpec((1, 4, 4, 4))])
    (node,) = tidied(b, values).nodes
    assert node.outputs == (values,)

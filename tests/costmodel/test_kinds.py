from __future__ import annotations

from dataclasses import replace

from costmodel.analysis import analyze
from costmodel.features import extract
from costmodel.ir import DType, Graph, GraphBuilder
from costmodel.kinds import Key, node_kinds, once_per_graph, per_kind, per_node

TOKENS = (1, 8, 8)


def test_equal_nodes_are_one_kind_across_graphs() -> None:
    def net(width: int, **attrs: int) -> Graph:
        b = GraphBuilder()
        x = b.input((1, width))
        for _ in range(3):
            x = b.node("Gemm", [x, b.param((width, width))], (1, width), transB=1, **attrs)
        return b.build([x])

    kinds = node_kinds(net(4))
    assert (kinds.of, kinds.first) == ([0, 0, 0], [0])
    assert node_kinds(net(4)).keys == kinds.keys
    assert node_kinds(net(5)).keys != kinds.keys
    assert node_kinds(net(4, transA=1)).keys != kinds.keys


def test_types_constants_and_origins_tell_kinds_apart() -> None:
    b = GraphBuilder()
    x, y = b.input((4,)), b.input((4,), DType.FLOAT16)
    made = [b.node("Add", [x, x], (4,)), b.node("Add", [x, b.param((4,))], (4,))]
    made.append(b.node("Add", [y, y], (4,), DType.FLOAT16))
    graph = b.build(made)
    assert node_kinds(graph).of == [0, 1, 2]
    (constant,) = graph.params
    assert node_kinds(replace(graph, sources={constant: 2})).keys[1] != node_kinds(graph).keys[1]


def test_answers_are_kept_per_kind_and_given_to_every_node() -> None:
    b = GraphBuilder()
    x = b.input((4,))
    for op in ("Relu", "Exp", "Relu", "Relu"):
        x = b.node(op, [x], (4,))
    graph, known, asked = b.build([x]), dict[Key, str](), []

    def op_of(index: int) -> str:
        asked.append(index)
        return graph.nodes[index].op

    assert per_kind(graph, known, op_of) == ["Relu", "Exp"]
    assert per_node(graph, known, op_of) == ["Relu", "Exp", "Relu", "Relu"]
    assert asked == [0, 1]


def test_a_graph_keeps_its_answers_and_a_changed_one_does_not() -> None:
    asked = []

    @once_per_graph
    def length(graph: Graph) -> int:
        asked.append(graph.name)
        return len(graph)

    b = GraphBuilder()
    graph = b.build([b.node("Relu", [b.input((4,))], (4,))])
    assert (length(graph), length(graph), length(replace(graph, nodes=(), outputs=graph.inputs))) == (1, 1, 0)
    assert len(asked) == 2


def test_what_is_learnt_depends_on_the_graph_around_nodes_of_one_kind() -> None:
    """The same addition of a table is a position embedding in one place and an attention mask in another."""
    b = GraphBuilder()
    x = b.input(TOKENS)
    embedded = b.node("Add", [x, b.param(TOKENS)], TOKENS)
    scores = b.node("MatMul", [embedded, b.node("Transpose", [embedded], TOKENS, perm=(0, 2, 1))], TOKENS)
    masked = b.node("Add", [scores, b.param(TOKENS)], TOKENS)
    graph = b.build([b.node("Softmax", [masked], TOKENS, axis=2)])
    kinds, cost = node_kinds(graph), analyze(graph)
    assert kinds.of[0] == kinds.of[3]
    assert [cost.nodes[i].params for i in (0, 3)] == [64, 0]
    assert cost.params == 64
    assert cost.columns["params"].tolist() == [64, 0, 0, 0, 0]


def test_an_empty_graph_has_no_kinds_and_no_features() -> None:
    graph = GraphBuilder().build([])
    assert node_kinds(graph) == ([], [], [])
    assert analyze(graph).coverage == 1
    assert extract(graph).columns.shape == (0, 15)

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from costmodel.canonical import canonical, node_order
from costmodel.ir import Graph, GraphBuilder

IMAGE = (1, 4, 9, 9)


def branches(swapped: bool) -> Graph:
    """Two convolutions added; only the order in which they are listed differs."""
    b = GraphBuilder()
    x = b.input(IMAGE)
    kinds = ["Relu", "Sigmoid"]
    made = {op: b.node(op, [x], IMAGE) for op in (reversed(kinds) if swapped else kinds)}
    return b.build([b.node("Add", [made["Relu"], made["Sigmoid"]], IMAGE)])


def test_order_follows_operands_not_the_listing() -> None:
    one, other = branches(False), branches(True)
    assert [n.op for n in one.nodes] != [n.op for n in other.nodes]
    assert [n.op for n in canonical(one).nodes] == [n.op for n in canonical(other).nodes] == ["Relu", "Sigmoid", "Add"]
    assert canonical(one).fingerprint == one.fingerprint == other.fingerprint


def test_a_canonical_graph_is_returned_as_it_is() -> None:
    graph = canonical(branches(True))
    assert canonical(graph) is graph


def test_nodes_that_reach_no_output_come_last() -> None:
    b = GraphBuilder()
    x = b.input(IMAGE)
    b.node("Exp", [x], IMAGE)
    graph = canonical(b.build([b.node("Relu", [x], IMAGE)]))
    assert [n.op for n in graph.nodes] == ["Relu", "Exp"]


def test_a_deep_chain_needs_no_recursion() -> None:
    b = GraphBuilder()
    x = b.input(IMAGE)
    for _ in range(5000):
        x = b.node("Relu", [x], IMAGE)
    assert node_order(b.build([x])) == list(range(5000))


def test_spatial_means_and_views_have_one_spelling() -> None:
    def net(mean: str, view: str, **attrs: object) -> Graph:
        b = GraphBuilder()
        pooled = b.node(mean, [b.input(IMAGE)], (1, 4, 1, 1), **attrs)  # type: ignore[arg-type]
        return b.build([b.node(view, [pooled], (1, 4))])

    one = canonical(net("ReduceMean", "Squeeze", axes=(2, 3), keepdims=1))
    assert [n.op for n in one.nodes] == ["GlobalAveragePool", "Reshape"]
    assert one.fingerprint == canonical(net("GlobalAveragePool", "Flatten")).fingerprint
    assert canonical(net("ReduceMean", "Flatten", axes=(1, 2), keepdims=1)).nodes[0].op == "ReduceMean"


def test_pools_state_rounding_as_padding() -> None:
    def pool(**attrs: object) -> Graph:
        b = GraphBuilder()
        window = {"kernel_shape": (2, 2), "strides": (2, 2), "dilations": (1, 1), **attrs}
        return canonical(b.build([b.node("MaxPool", [b.input(IMAGE)], (1, 4, 5, 5), **window)]))  # type: ignore[arg-type]

    up = pool(pads=(0, 0, 0, 0), ceil_mode=1)
    assert up.nodes[0].attrs["pads"] == (0, 0, 1, 1)
    assert up.fingerprint == pool(pads=(0, 0, 1, 1), ceil_mode=0).fingerprint


def test_a_pool_with_one_window_is_global() -> None:
    def pool(op: str, side: int, out: int) -> str:
        b = GraphBuilder()
        attrs = {"kernel_shape": (side, side), "strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
        return canonical(b.build([b.node(op, [b.input(IMAGE)], (1, 4, out, out), **attrs)])).nodes[0].op

    assert pool("AveragePool", 9, 1) == "GlobalAveragePool"
    assert pool("MaxPool", 9, 1) == "GlobalMaxPool"
    assert pool("AveragePool", 8, 2) == "AveragePool"


@given(st.randoms(use_true_random=False))
def test_any_topological_order_gives_the_same_graph(random) -> None:  # type: ignore[no-untyped-def]
    b = GraphBuilder()
    values = [b.input(IMAGE)]
    for i in range(12):
        values.append(b.node("Add", [random.choice(values), random.choice(values)], (*IMAGE[:3], 9 + i)))
    graph = b.build(values[-1:])
    left, listed, known = list(graph.nodes), [], set(graph.inputs)
    while left:
        node = random.choice([n for n in left if set(n.inputs) <= known])
        left.remove(node)
        listed.append(node)
        known |= set(node.outputs)
    ours, theirs = canonical(graph), canonical(replace(graph, nodes=tuple(listed)))
    assert [n.name for n in ours.nodes][: ours.producer[values[-1]] + 1] == [n.name for n in theirs.nodes][
        : theirs.producer[values[-1]] + 1
    ]

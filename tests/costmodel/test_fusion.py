from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.analysis import analyze
from costmodel.corpora import nb201, ofa
from costmodel.corpora.blocks import NetBuilder
from costmodel.fusion import fused_traffic, fusion_groups
from costmodel.ir import DType, Graph

SHAPE = (1, 8, 8, 8)


def grouped(graph: Graph) -> list[str]:
    groups = fusion_groups(graph)
    return ["+".join(n.op for n, g in zip(graph.nodes, groups, strict=True) if g == i) for i in range(max(groups) + 1)]


def test_convolution_takes_its_epilogue() -> None:
    net = NetBuilder()
    x = net.input(SHAPE)
    y = net.unary("Relu", net.plus(net.conv_bn(x, 8, 3), x))
    assert grouped(net.build([net.conv(y, 8, 3)])) == ["Conv+BatchNormalization+Add+Relu", "Conv"]


def test_a_residual_add_joins_one_of_two_convolutions() -> None:
    net = NetBuilder()
    x = net.input(SHAPE)
    graph = net.build([net.plus(net.conv_bn(x, 8, 3), net.conv_bn(x, 8, 1))])
    assert grouped(graph) == ["Conv+BatchNormalization+Add", "Conv+BatchNormalization"]


def test_diamonds_close() -> None:
    net = NetBuilder()
    y = net.conv_bn(net.input(SHAPE), 8, 3)
    y = net.node("Mul", [y, net.unary("Sigmoid", y)], SHAPE)
    y = ofa.hard_swish(net, net.conv_bn(y, 8, 3))
    assert grouped(net.build([y])) == [
        "Conv+BatchNormalization+Sigmoid+Mul",
        "Conv+BatchNormalization+Add+Clip+Mul+Div",
    ]


def test_decomposed_gelu_and_layer_norm() -> None:
    net = NetBuilder()
    shape = (4, 16)
    y = net.linear(net.input(shape), 16)
    inner = net.scalar("Add", net.unary("Erf", net.scalar("Div", y)))
    y = net.scalar("Mul", net.node("Mul", [y, inner], shape))
    centred = net.node("Sub", [y, net.mean(y, 1)], shape)
    deviation = net.unary("Sqrt", net.scalar("Add", net.mean(net.scalar("Pow", centred), 1)))
    y = net.scalar("Add", net.scalar("Mul", net.node("Div", [centred, deviation], shape)))
    assert grouped(net.build([y])) == [
        "Gemm+Div+Erf+Add+Mul+Mul",
        "ReduceMean+Sub+Pow+ReduceMean+Add+Sqrt+Div+Mul+Add",
    ]


def test_a_branch_that_leaves_stops_the_group() -> None:
    net = NetBuilder()
    y = net.conv(net.input(SHAPE), 8, 3)
    graph = net.build([net.unary("Relu", y), net.conv(y, 8, 3)])
    assert grouped(graph) == ["Conv", "Relu", "Conv"]


def test_results_of_the_graph_stop_the_group() -> None:
    net = NetBuilder()
    y = net.conv(net.input(SHAPE), 8, 3)
    assert grouped(net.build([net.unary("Relu", y), y])) == ["Conv", "Relu"]


def test_an_epilogue_may_not_outgrow_its_product() -> None:
    net = NetBuilder()
    x = net.input(SHAPE)
    gate = net.unary("Sigmoid", net.conv(net.global_pool(x), 8, 1))
    graph = net.build([net.node("Mul", [x, gate], SHAPE)])
    assert grouped(graph) == ["GlobalAveragePool", "Conv+Sigmoid", "Mul"]


def test_reductions_of_different_axes_stay_apart() -> None:
    net = NetBuilder()
    y = net.mean(net.unary("Relu", net.mean(net.input((4, 5, 6)), 2)), 1)
    assert grouped(net.build([y])) == ["ReduceMean+Relu", "ReduceMean"]


def test_movement_and_opaque_nodes_stay_alone() -> None:
    net = NetBuilder()
    y = net.transpose(net.unary("Relu", net.input((2, 3, 4))), 2, 1, 0)
    (z,) = net.add("my.domain.Op", [y], [net.tensors[y]], opaque=True)
    assert grouped(net.build([net.unary("Relu", z)])) == ["Relu", "Transpose", "my.domain.Op", "Relu"]


def test_traffic_inside_a_group_counts_nothing() -> None:
    net = NetBuilder()
    x = net.input(SHAPE)
    graph = net.build([net.unary("Relu", net.plus(net.conv_bn(x, 8, 3), x))])
    reads, writes = fused_traffic(graph, fusion_groups(graph))
    # The input is read by Conv and again by Add, in one kernel: once.
    assert reads.tolist() == [512, 0, 0, 0]
    assert writes.tolist() == [0, 0, 0, 512]


def test_traffic_looks_through_views() -> None:
    net = NetBuilder()
    y = net.conv(net.input(SHAPE), 8, 3)
    v = net.reshape(y, (1, 8, 64))
    graph = net.build([net.transpose(v, 0, 2, 1), net.unary("Relu", v)])
    reads, writes = fused_traffic(graph, fusion_groups(graph))
    assert reads.tolist() == [512, 0, 512, 512]
    assert writes.tolist() == [512, 0, 512, 512]


def test_masks_do_not_count_as_elements() -> None:
    net = NetBuilder()
    x, mask = net.input((4, 4)), net.input((4, 4), DType.BOOL)
    graph = net.build([net.node("Where", [mask, x, net.param(())], (4, 4))])
    assert fused_traffic(graph, fusion_groups(graph))[0].tolist() == [16]


def random_graph(seed: int, nodes: int) -> Graph:
    """A graph of pointwise operators, products, reductions, views and dead ends, wired at random."""
    rng = random.Random(seed)
    net = NetBuilder()
    made = [net.input((4, 8)) for _ in range(2)]
    for _ in range(nodes):
        x, y = (made[-1 - min(int(rng.expovariate(0.4)), len(made) - 1)] for _ in range(2))
        kind = rng.randrange(6)
        if kind < 2:
            made.append(net.node(rng.choice(("Add", "Mul")), [x, y], (4, 8)))
        elif kind == 2:
            made.append(net.unary(rng.choice(("Relu", "Sigmoid")), x))
        elif kind == 3:
            made.append(net.linear(x, 8))
        elif kind == 4:
            made.append(net.reshape(net.reshape(x, (32,)), (4, 8)))
        else:
            made.append(net.node("Sub", [x, net.mean(y, 1)], (4, 8)))
    return net.build(rng.sample(made, 2))


def contracted_is_acyclic(graph: Graph, groups: tuple[int, ...]) -> bool:
    edges = {(groups[a], groups[b]) for a, b in graph.edges if groups[a] != groups[b]}
    waiting = dict.fromkeys(groups, 0)
    for _, b in edges:
        waiting[b] += 1
    ready = [g for g, count in waiting.items() if not count]
    done = 0
    while ready:
        group = ready.pop()
        done += 1
        for a, b in edges:
            if a == group:
                waiting[b] -= 1
                if not waiting[b]:
                    ready.append(b)
    return done == len(waiting)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 60))
def test_groups_are_convex_and_traffic_never_grows(seed: int, nodes: int) -> None:
    graph = random_graph(seed, nodes)
    groups = fusion_groups(graph)
    assert len(groups) == len(graph)
    assert sorted(set(groups)) == list(range(max(groups) + 1))
    assert contracted_is_acyclic(graph, groups)
    reads, writes = fused_traffic(graph, groups)
    columns = analyze(graph).columns
    assert np.all(reads <= columns["read_elems"])
    assert np.all(writes <= columns["write_elems"])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 40))
def test_without_fusion_all_that_is_read_is_read(seed: int, nodes: int) -> None:
    graph = random_graph(seed, nodes)
    reads, writes = fused_traffic(graph, tuple(range(len(graph))))
    for node, cost, read, written in zip(graph.nodes, analyze(graph).nodes, reads, writes, strict=True):
        twice = len(set(node.inputs)) < len(node.inputs)
        assert twice or read in (cost.read_elems, cost.read_elems / 2)
        assert written in (0, cost.write_elems)


@pytest.mark.parametrize("folded", [False, True])
def test_search_space_cells_fuse(folded: bool) -> None:
    arch = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    graph = nb201.build(arch, folded=folded)
    groups = fusion_groups(graph)
    assert contracted_is_acyclic(graph, groups)
    assert max(groups) + 1 < 0.7 * len(graph)

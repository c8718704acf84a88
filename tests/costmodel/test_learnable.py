from __future__ import annotations

from dataclasses import replace

import pytest

from costmodel.analysis import analyze
from costmodel.corpora.blocks import NetBuilder
from costmodel.ir import DType
from costmodel.learnable import is_attention_weight

SCORES = (4, 3, 49, 49)


def params_of(op: str, shape: tuple[int, ...], table: tuple[int, ...], dtype: DType = DType.FLOAT32) -> int:
    """Parameters of a node that combines an activation with a constant, then passes it on to a MatMul."""
    net = NetBuilder()
    y = net.node(op, [net.input(shape), net.param(table, dtype)], shape)
    out = net.node("MatMul", [y, net.param((shape[-1], 2))], (*shape[:-1], 2))
    return analyze(net.build([out])).params - 2 * shape[-1]


@pytest.mark.parametrize(
    ("op", "table", "expected"),
    [
        ("Add", (1, 196, 64), 196 * 64),
        ("Sub", (196, 64), 196 * 64),
        ("Add", (64,), 64),
        ("Mul", (1, 1, 64), 64),
        ("Mul", (196, 1), 196),
        ("Mul", (196, 64), 0),
        ("Div", (196, 64), 0),
        ("Max", (196, 64), 0),
        ("PRelu", (196, 64), 196 * 64),
        ("Mul", (1,), 0),
    ],
)
def test_elementwise_operands(op: str, table: tuple[int, ...], expected: int) -> None:
    assert params_of(op, (1, 196, 64), table) == expected


def test_integers_do_not_count() -> None:
    assert params_of("Add", (1, 196, 64), (64,), DType.INT64) == 0


def test_tables_added_to_attention_scores_do_not_count() -> None:
    net = NetBuilder()
    scores = net.node("MatMul", [net.input((4, 3, 49, 32)), net.input((4, 3, 32, 49))], SCORES)
    scaled = net.node("Mul", [scores, net.param((1, 3, 1, 1))], SCORES)
    biased = net.node("Add", [scaled, net.param((1, 3, 49, 49))], SCORES)
    windows = net.reshape(biased, (1, *SCORES))
    masked = net.reshape(net.node("Add", [windows, net.param((1, 4, 1, 49, 49))], (1, *SCORES)), SCORES)
    soft = net.node("Softmax", [masked], SCORES, axis=3)
    graph = net.build([net.node("MatMul", [soft, net.input((4, 3, 49, 32))], (4, 3, 49, 32))])
    cost = analyze(graph)
    assert cost.params == 3
    assert cost.param_bytes == 4 * (3 + 3 * 49 * 49 + 4 * 49 * 49)
    assert [is_attention_weight(graph, node) for node in graph.nodes if node.op == "Add"] == [True, True]


@pytest.mark.parametrize("between", ["Softmax", "Conv"])
def test_a_table_added_to_probabilities_or_to_scores_that_a_convolution_mixes_does_not_count(between: str) -> None:
    net = NetBuilder()
    shape = (1, 3, 49, 49)
    x = net.node("MatMul", [net.input((1, 3, 49, 32)), net.input((1, 3, 32, 49))], shape)
    if between == "Softmax":
        x = net.node("Add", [net.node("Softmax", [x], shape, axis=3), net.param(shape)], shape)
        graph = net.build([net.node("MatMul", [x, net.input((1, 3, 49, 32))], (1, 3, 49, 32))])
        assert analyze(graph).params == 0
    else:
        x = net.node("Add", [x, net.param(shape)], shape)
        x = net.node("Conv", [x, net.param((3, 3, 1, 1))], shape, kernel_shape=(1, 1), group=1)
        assert analyze(net.build([net.node("Softmax", [x], shape, axis=3)])).params == 9


def test_a_constant_worked_out_from_others_counts_with_those() -> None:
    net = NetBuilder()
    bias = net.param((3, 49, 49))
    scores = net.node("Add", [net.input((4, 3, 49, 49)), bias], SCORES)
    graph = net.build([net.node("Softmax", [scores], SCORES, axis=3)])
    assert analyze(graph).params == 0
    expanded = replace(graph, sources={bias: 3 * 169})
    assert analyze(expanded).params == 3 * 169
    assert analyze(expanded).param_bytes == analyze(graph).param_bytes
    assert expanded.fingerprint == graph.fingerprint


def test_the_bias_of_a_classifier_before_its_softmax_counts() -> None:
    net = NetBuilder()
    logits = net.node("MatMul", [net.input((2, 8)), net.param((8, 10))], (2, 10))
    y = net.node("Softmax", [net.node("Add", [logits, net.param((10,))], (2, 10))], (2, 10), axis=1)
    assert analyze(net.build([y])).params == 90


def test_a_position_embedding_before_attention_counts() -> None:
    net = NetBuilder()
    tokens = net.node("Add", [net.input((1, 49, 32)), net.param((1, 49, 32))], (1, 49, 32))
    scores = net.node("MatMul", [tokens, net.input((1, 32, 49))], (1, 49, 49))
    y = net.node("Softmax", [scores], (1, 49, 49), axis=2)
    assert analyze(net.build([y])).params == 49 * 32


def test_class_tokens_and_gathered_tables_count() -> None:
    net = NetBuilder()
    x = net.node("Gather", [net.param((100, 32)), net.input((1, 49), DType.INT64)], (1, 49, 32), axis=0)
    y = net.node("Concat", [net.param((1, 4, 32)), x], (1, 53, 32), axis=1)
    assert analyze(net.build([y])).params == 3200 + 128


def test_initial_states_of_recurrences_do_not_count() -> None:
    net = NetBuilder()
    weights = [net.param((1, 16, 3)), net.param((1, 16, 4)), net.param((1, 32))]
    states = ["", net.param((1, 2, 4)), net.param((1, 2, 4))]
    y = net.node("LSTM", [net.input((5, 2, 3)), *weights, *states], (5, 1, 2, 4))
    assert analyze(net.build([y])).params == 48 + 64 + 32


def test_statistics_scales_and_attention_masks_do_not_count() -> None:
    net = NetBuilder()
    x = net.input((1, 8, 4, 4))
    x = net.node("BatchNormalization", [x, *(net.param((8,)) for _ in range(4))], (1, 8, 4, 4))
    x = net.node("QuantizeLinear", [x, net.param((8,)), net.param((8,), DType.INT8)], (1, 8, 4, 4), DType.INT8, axis=1)
    q = net.input((1, 2, 6, 8))
    y = net.node("Attention", [q, q, q, net.param((6, 6))], (1, 2, 6, 8))
    assert analyze(net.build([x, y])).params == 16

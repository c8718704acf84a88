"""The closed language and its samples."""

from __future__ import annotations

import pytest

from costmodel.ir import GraphBuilder
from costmodel.language import (
    all_onnx_operators,
    closed_language,
    corpus_sentences,
    platform_language,
    sample_nodes,
    sample_platforms,
)
from costmodel.opwords import operator_words
from costmodel.platforms import resolve
from costmodel.prompts import node_sentences, platform_sentence


@pytest.fixture(scope="module")
def closed() -> frozenset[str]:
    return frozenset(closed_language())


def test_closed_language_is_small_and_storable(closed: frozenset[str]) -> None:
    assert 2000 < len(closed) < 3500  # times 768 bytes in the table
    assert all(len(s.splitlines()) == 1 and s == " ".join(s.split()) for s in closed)


def test_every_onnx_operator_has_its_sentence(closed: frozenset[str]) -> None:
    for op in all_onnx_operators():
        words = operator_words(op)
        assert any(f" {words} " in f"{s} " for s in closed), op


def test_a_usual_network_needs_no_student(closed: frozenset[str]) -> None:
    b = GraphBuilder()
    x = b.input((1, 3, 224, 224))
    window = {"kernel_shape": (7, 7), "strides": (2, 2), "pads": (3, 3, 3, 3), "dilations": (1, 1)}
    x = b.node("Conv", [x, b.param((64, 3, 7, 7)), b.param((64,))], (1, 64, 112, 112), **window, group=1)
    x = b.node("BatchNormalization", [x, *[b.param((64,)) for _ in range(4)]], (1, 64, 112, 112))
    x = b.node("Relu", [x], (1, 64, 112, 112))
    x = b.node("MaxPool", [x], (1, 64, 56, 56), kernel_shape=(3, 3), strides=(2, 2), dilations=(1, 1))
    gate = b.node("GlobalAveragePool", [x], (1, 64, 1, 1))
    gate = b.node("Sigmoid", [gate], (1, 64, 1, 1))
    x = b.node("Mul", [x, gate], (1, 64, 56, 56))
    x = b.node("Reshape", [x], (1, 64, 3136))
    x = b.node("Transpose", [x], (1, 3136, 64), perm=(0, 2, 1))
    x = b.node("LayerNormalization", [x, b.param((64,)), b.param((64,))], (1, 3136, 64), axis=2)
    x = b.node("MatMul", [x, b.param((64, 64))], (1, 3136, 64))
    x = b.node("Softmax", [x], (1, 3136, 64), axis=2)
    x = b.node("ReduceMean", [x], (1, 64), axes=(1,), keepdims=0)
    x = b.node("Gemm", [x, b.param((10, 64)), b.param((10,))], (1, 10), transB=1)
    graph = b.build([x])
    assert set(node_sentences(graph)) <= closed
    assert set(corpus_sentences([graph, graph])) <= closed


def test_default_platforms_are_in_the_table() -> None:
    known = set(platform_language())
    for target, precision in (("t4", "int8"), ("t4", "fp32"), ("a100-sxm", "fp16"), ("i7_12700h", "fp32")):
        assert platform_sentence(resolve(target, precision)) in known


def test_samples_are_repeatable_and_new(closed: frozenset[str]) -> None:
    ops = ["Conv", "Softmax", "com.acme.FooNorm", "Reshape"]
    nodes = sample_nodes(300, 1, ops)
    assert nodes == sample_nodes(300, 1, ops)
    assert nodes != sample_nodes(300, 2, ops)
    assert len(set(nodes) - closed) > 50
    assert all(s.split()[0][0].isupper() for s in nodes)
    assert {s.split()[1] for s in sample_nodes(50, 1, ["Zig", "Zag"], made_up=False)} == {"Zig", "Zag"}
    platforms = sample_platforms(100, 1)
    assert len(set(platforms)) > 95
    assert platforms == sample_platforms(100, 1)

"""NAS-Bench-101 networks against the published parameter counts."""

from __future__ import annotations

import pytest

from costmodel import corpora
from costmodel.analysis import analyze
from costmodel.corpora import nb101
from costmodel.corpora.nb101 import CONV1, CONV3, POOL, Matrix
from costmodel.errors import InputError
from costmodel.ir import Graph


def edges(side: int, *pairs: tuple[int, int]) -> Matrix:
    return tuple(tuple(int((i, j) in pairs) for j in range(side)) for i in range(side))


def trainable(graph: Graph) -> int:
    """Weights that training changes: of batch normalization, scale and shift alone."""
    total = 0
    for node in graph.nodes:
        params = [t for t in node.inputs if t in graph.params]
        total += sum(graph.tensors[t].numel for t in params[: 2 if node.op == "BatchNormalization" else None])
    return total


INCEPTION = edges(7, (0, 1), (0, 2), (0, 3), (0, 4), (1, 6), (2, 6), (3, 6), (4, 5), (5, 6))
INCEPTION_OPS = ("input", CONV3, CONV1, POOL, CONV3, CONV3, "output")


def test_parameters_of_the_example_of_the_published_code() -> None:
    """The module of the benchmark's own README, with the count that its file states."""
    assert trainable(nb101.network(INCEPTION, INCEPTION_OPS)) == 2_694_282


def test_parameters_of_the_largest_network() -> None:
    """Five 3×3 convolutions in a row with three more edges from the input; the paper's range ends at 49,979,274."""
    chain = [(i, i + 1) for i in range(6)]
    matrix = edges(7, *chain, (0, 2), (0, 3), (0, 4))
    assert trainable(nb101.network(matrix, ("input", *[CONV3] * 5, "output"))) == 49_979_274


def test_an_uneven_division_cuts_a_channel() -> None:
    """Three vertices share 128 channels as 43, 43, 42; a vertex of 43 that feeds one of 42 loses a channel."""
    matrix = edges(5, (0, 1), (0, 2), (1, 3), (1, 4), (2, 4), (3, 4))
    graph = nb101.network(matrix, ("input", CONV1, POOL, CONV3, "output"))
    cuts = [graph.tensors[n.outputs[0]].shape[1] for n in graph.nodes if n.op == "Slice"]
    assert cuts[:3] == [42, 42, 42]
    concat = next(n for n in graph.nodes if n.op == "Concat")
    assert [graph.tensors[t].shape[1] for t in concat.inputs] == [43, 43, 42]
    assert graph.tensors[concat.outputs[0]].shape == (1, 128, 32, 32)


def test_vertices_that_lead_nowhere_are_left_out() -> None:
    whole = edges(4, (0, 1), (1, 3), (0, 2))
    assert (
        nb101.network(whole, ("input", CONV3, POOL, "output")).fingerprint
        == nb101.network(edges(3, (0, 1), (1, 2)), ("input", CONV3, "output")).fingerprint
    )


def test_a_module_without_vertices_is_a_projection() -> None:
    graph = nb101.network(edges(2, (0, 1)), ("input", "output"))
    assert [n.attrs["kernel_shape"] for n in graph.nodes if n.op == "Conv"] == [(3, 3)] + [(1, 1)] * 9


def test_an_edge_from_input_to_output_adds_a_projection() -> None:
    graph = nb101.network(edges(3, (0, 1), (1, 2), (0, 2)), ("input", POOL, "output"))
    assert sum(n.op == "Add" for n in graph.nodes) == 9
    assert sum(n.op == "Conv" for n in graph.nodes) == 1 + 2 * 9


def test_shapes_and_batch() -> None:
    graph = nb101.network(INCEPTION, INCEPTION_OPS, batch=4)
    assert graph.tensors[graph.inputs[0]].shape == (4, 3, 32, 32)
    assert graph.tensors[graph.outputs[0]].shape == (4, 10)
    assert analyze(graph).coverage == 1.0
    assert analyze(graph).flops == pytest.approx(4 * analyze(nb101.network(INCEPTION, INCEPTION_OPS)).flops)


def test_names_build_the_same_network() -> None:
    name = nb101.name_of(INCEPTION, INCEPTION_OPS)
    assert nb101.parse(name) == (INCEPTION, INCEPTION_OPS)
    assert corpora.can_build(name)
    graph = corpora.build(name, 2)
    assert graph.name == name
    assert graph.fingerprint == nb101.network(INCEPTION, INCEPTION_OPS, 2).fingerprint


@pytest.mark.parametrize(
    ("matrix", "operations", "message"),
    [
        (((0, 1), (0, 0)), ("input", CONV3, "output"), "as many operations"),
        (((0, 1), (1, 0)), ("input", "output"), "upper triangular"),
        (((1, 1), (0, 0)), ("input", "output"), "upper triangular"),
        (((0, 1, 0), (0, 0, 1), (0, 0)), ("input", CONV3, "output"), "square"),
        (edges(3, (0, 1), (1, 2)), ("input", "conv5x5", "output"), "write input, any of"),
        (edges(3, (0, 1), (1, 2)), (CONV3, CONV3, "output"), "write input"),
        (edges(3, (0, 1)), ("input", CONV3, "output"), "does not depend on its input"),
    ],
)
def test_what_is_no_module_is_refused(matrix: Matrix, operations: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        nb101.network(matrix, operations)


@pytest.mark.parametrize("name", ["nb101/", "nb101/01/input,output", "nb101/0120/input,output"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is not a NAS-Bench-101 module"):
        corpora.build(name)

"""Graphs to bytes and back."""

from __future__ import annotations

import json
import math
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import graph_json
from costmodel.corpora import build
from costmodel.errors import DataError
from costmodel.ir import DType, Graph, GraphBuilder, Node, TensorSpec

CELL = "nb201/|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"

numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
texts = st.text(max_size=8)
attributes = st.one_of(
    numbers, floats, texts, st.booleans(), st.lists(numbers, max_size=4).map(tuple),
    st.lists(floats, max_size=4).map(tuple), st.lists(texts, max_size=4).map(tuple),
)  # fmt: skip
specs = st.builds(TensorSpec, st.lists(st.integers(0, 9), max_size=4).map(tuple), st.sampled_from(DType))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph that the IR allows: several outputs, absent inputs and outputs, unused tensors, odd names."""
    builder = GraphBuilder(draw(texts))
    known = [builder.input(s.shape, s.dtype) for s in draw(st.lists(specs, min_size=1, max_size=3))]
    known += [builder.param(s.shape, s.dtype) for s in draw(st.lists(specs, max_size=3))]
    for _ in range(draw(st.integers(0, 6))):
        inputs = draw(st.lists(st.sampled_from([*known, ""]), max_size=4))
        attrs = draw(st.dictionaries(texts, attributes, max_size=4))
        made = draw(st.lists(specs, min_size=1, max_size=3))
        outputs = builder.add(draw(texts), inputs, made, attrs, draw(texts), draw(st.booleans()))
        known += outputs
    graph = builder.build(draw(st.lists(st.sampled_from(known), max_size=3)))
    sources = {name: draw(st.integers(1, 99)) for name in sorted(graph.params)[:1]}
    return Graph(graph.nodes, graph.tensors, graph.inputs, graph.outputs, graph.params, graph.name, sources)


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_a_graph_survives_the_way_there_and_back(graph: Graph) -> None:
    data = graph_json.to_bytes(graph)
    again = graph_json.from_bytes(data)
    assert again == graph
    assert again.fingerprint == graph.fingerprint
    assert again.sources == graph.sources
    assert [type(v) for n in again.nodes for v in n.attrs.values()] == [
        type(n.attrs[k]) for n, m in zip(graph.nodes, again.nodes, strict=True) for k in m.attrs
    ]
    assert graph_json.to_bytes(again) == data


@pytest.mark.parametrize(
    "value",
    [
        3, -1, 0, 2**62, 1.0, 0.1, -0.0, math.inf, -math.inf, True, False, "", "same_upper", (), (1, 2), (0.5, 2.0),
        ("float", "int"), (math.inf, 1.0),
    ],
)  # fmt: skip
def test_every_kind_of_attribute_keeps_its_type_and_value(value: object) -> None:
    graph = Graph(
        (Node("Any", ("x",), ("y",), {"key": value}),), {"x": TensorSpec((1,)), "y": TensorSpec((1,))}, ("x",), ("y",)
    )
    found = graph_json.from_bytes(graph_json.to_bytes(graph)).nodes[0].attrs["key"]
    assert found == value
    assert type(found) is type(value)
    assert str(found) == str(value)  # tells 0.0 from -0.0 and True from 1


def test_nan_survives() -> None:
    graph = Graph((Node("Any", ("x",), (), {"key": math.nan}),), {"x": TensorSpec(())}, ("x",), ())
    assert math.isnan(graph_json.from_bytes(graph_json.to_bytes(graph)).nodes[0].attrs["key"])  # type: ignore[arg-type]


def test_an_absent_output_stays_absent() -> None:
    tensors = {"x": TensorSpec((2, 3)), "y": TensorSpec((2, 3))}
    graph = Graph((Node("LSTM", ("x", ""), ("", "y"), {}),), tensors, ("x",), ("y",))
    assert graph_json.from_bytes(graph_json.to_bytes(graph)) == graph


def test_bytes_depend_on_the_graph_alone() -> None:
    graph = build(CELL)
    shuffled = Graph(
        graph.nodes, dict(reversed(graph.tensors.items())), graph.inputs, graph.outputs,
        frozenset(sorted(graph.params, reverse=True)), graph.name,
    )  # fmt: skip
    assert graph_json.to_bytes(shuffled) == graph_json.to_bytes(graph)


def test_a_network_takes_some_twenty_bytes_a_node() -> None:
    graph = build(CELL)
    assert len(graph_json.to_bytes(graph)) < 25 * len(graph)


def test_attributes_of_other_kinds_are_refused() -> None:
    graph = Graph((Node("Any", ("x",), (), {"key": np.zeros(2)}, "n1"),), {"x": TensorSpec(())}, ("x",), ())  # type: ignore[dict-item]
    with pytest.raises(DataError, match=r"attribute 'key' of node 'n1' is a ndarray; graphs hold"):
        graph_json.to_bytes(graph)


def packed(payload: object) -> bytes:
    return zlib.compress(json.dumps(payload).encode())


GOOD = json.loads(zlib.decompress(graph_json.to_bytes(build(CELL))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"not zlib", "damaged"),
        (graph_json.to_bytes(build(CELL))[:-10], "cut short"),
        (graph_json.to_bytes(build(CELL)) + b"x", "padded"),
        (zlib.compress(b"\xff\xfe"), "damaged"),
        (zlib.compress(b"{"), "damaged"),
        (packed([1, 2]), "no graph"),
        (packed({"format": "other"}), "no graph"),
        (packed(GOOD | {"schema": 99}), "schema 99, this version reads 1; update"),
        (packed(GOOD | {"nodes": [["Conv"]]}), "damaged"),
        (packed(GOOD | {"tensors": []}), "damaged"),
        (packed(GOOD | {"tensors": [["a", "float31", [1]]]}), "damaged"),
        (packed(GOOD | {"outputs": [-7]}), "damaged"),
        (packed({k: v for k, v in GOOD.items() if k != "params"}), "damaged"),
        (zlib.compress(b"[" * 100_000), "damaged"),
    ],
)
def test_what_is_no_graph_gives_one_line(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        graph_json.from_bytes(data)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_flipped_bytes_never_escape_as_another_error(noise: bytes, where: int) -> None:
    data = bytearray(graph_json.to_bytes(build(CELL)))
    where %= len(data)
    data[where : where + len(noise)] = noise
    with suppress(DataError):
        graph_json.from_bytes(bytes(data))


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_json, "_MOST_BYTES", 1000)
    with pytest.raises(DataError, match="too large"):
        graph_json.from_bytes(zlib.compress(b" " * 100_000))

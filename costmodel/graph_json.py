"""Graphs as bytes: zlib-compressed JSON, the form in which sample stores and Parquet files hold them.

The JSON is one object. `tensors` is a list of [name, type, shape]; everything else points into it by position, -1
being an absent optional input. A node is [operator, inputs, outputs, attributes, name, opaque]. Tuples are lists, and a
float that JSON has no word for is {"float": "inf"}. The same graph gives the same bytes, and `Graph.fingerprint`
survives the way there and back.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

from costmodel.errors import DataError, LedgCostError
from costmodel.ir import AttrValue, DType, Graph, Node, TensorSpec

SCHEMA = 1
_FORMAT = "ledg-cost-graph"
_LEVEL = 9
_MOST_BYTES = 1 << 28
"""A graph whose JSON is longer than 256 MiB is refused: it is damaged or meant to fill the memory."""


def to_bytes(graph: Graph) -> bytes:
    """`to_json`, compressed. Raises DataError if an attribute is of a kind that graphs do not hold."""
    return zlib.compress(to_json(graph).encode("ascii"), _LEVEL)


def to_json(graph: Graph) -> str:
    """The graph as one line of ASCII. Raises DataError if an attribute is of a kind that graphs do not hold."""
    order = _tensor_order(graph)
    place = {"": -1} | {name: i for i, name in enumerate(order)}
    payload = {
        "format": _FORMAT,
        "schema": SCHEMA,
        "name": graph.name,
        "tensors": [[name, graph.tensors[name].dtype.value, list(graph.tensors[name].shape)] for name in order],
        "inputs": [place[t] for t in graph.inputs],
        "outputs": [place[t] for t in graph.outputs],
        "params": sorted(place[t] for t in graph.params),
        "sources": {name: graph.sources[name] for name in sorted(graph.sources)},
        "nodes": [
            [
                node.op, [place[t] for t in node.inputs], [place[t] for t in node.outputs],
                {key: _plain(node, key, node.attrs[key]) for key in sorted(node.attrs)}, node.name, int(node.opaque),
            ]
            for node in graph.nodes
        ],
    }  # fmt: skip
    return json.dumps(payload, separators=(",", ":"), allow_nan=False)


def from_bytes(data: bytes) -> Graph:
    """The graph of `to_bytes`. Raises DataError for anything else."""
    return from_json(unpacked(data))


def unpacked(data: bytes) -> bytes:
    """The JSON in what `to_bytes` wrote. Raises DataError if the bytes are damaged."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, _MOST_BYTES)
    except (zlib.error, TypeError) as error:
        raise DataError(_damaged(str(error))) from None
    if not unpacker.eof or unpacker.unused_data:
        raise DataError(_damaged("it is cut short, padded or too large"))
    return text


def from_json(text: str | bytes) -> Graph:
    """The graph of `to_json`. Raises DataError for anything else."""
    try:
        payload = json.loads(text)
        if not isinstance(payload, dict) or payload.get("format") != _FORMAT:
            raise DataError("these bytes hold no graph; give what costmodel.graph_json.to_bytes wrote")
        if payload["schema"] != SCHEMA:
            raise DataError(f"a graph of schema {payload['schema']}, this version reads {SCHEMA}; update ledg-cost")
        return _graph(payload)
    except LedgCostError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DataError(_damaged(" ".join(str(error).split()) or type(error).__name__)) from None


def _damaged(reason: str) -> str:
    return f"the stored graph is damaged ({reason}); import or profile it again"


def _tensor_order(graph: Graph) -> list[str]:
    """Every tensor once, in the order of first use, which keeps neighbours close and compresses best."""
    order = dict.fromkeys(graph.inputs)
    for node in graph.nodes:
        order |= dict.fromkeys(t for t in (*node.inputs, *node.outputs) if t)
    order |= dict.fromkeys(graph.outputs)
    order |= dict.fromkeys(sorted(graph.tensors.keys() - order.keys()))
    return list(order)


def _plain(node: Node, key: str, value: AttrValue) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(node, key, v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(float(value))}
    if type(value) in (bool, int, float, str):
        return value
    raise DataError(
        f"attribute '{key}' of node '{node.name or node.op}' is a {type(value).__name__};"
        " graphs hold numbers, text, booleans and tuples of them"
    )


def _value(raw: Any) -> Any:
    if isinstance(raw, list):
        return tuple(_value(v) for v in raw)
    return float(raw["float"]) if isinstance(raw, dict) else raw


def _graph(payload: dict[str, Any]) -> Graph:
    names = [name for name, _, _ in payload["tensors"]]
    tensors = {name: TensorSpec(tuple(shape), DType(dtype)) for name, dtype, shape in payload["tensors"]}

    def pick(places: list[int]) -> tuple[str, ...]:
        if any(place < -1 for place in places):
            raise IndexError("a tensor number below -1")
        return tuple("" if place == -1 else names[place] for place in places)

    nodes = tuple(
        Node(op, pick(ins), pick(outs), {key: _value(v) for key, v in attrs.items()}, name, bool(opaque))
        for op, ins, outs, attrs, name, opaque in payload["nodes"]
    )
    return Graph(
        nodes, tensors, pick(payload["inputs"]), pick(payload["outputs"]), frozenset(pick(payload["params"])),
        payload["name"], payload["sources"],
    )  # fmt: skip

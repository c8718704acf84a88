"""Local functions and the subgraphs of If, Loop and Scan, all inlined.

If      a branch that a constant condition picks; else the one with more arithmetic, as an upper bound. The choice
        compares multiply-accumulates, then the elements written.
Loop    unrolled if the trip count is constant and the body small; else the body once, every node of it carrying the
Scan    attribute `trip_count` (0 if the count is only known at run time, one trip being lowered then).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import FunctionProto, GraphProto

from costmodel.errors import InputError, ShapeInferenceError
from costmodel.ir import DType, Node
from frontends.onnx_attrs import decode_attrs
from frontends.onnx_lower import Lowering, Scope
from frontends.onnx_rules import Call, ContentNeeded, axis_of
from frontends.onnx_values import Value, known

UNROLLED_NODES = 4096
"""A loop is unrolled if trips times nodes in its body stay within this."""

_MAX_DEPTH = 64
MAX_INLINED_NODES = 250_000
"""More nodes than this from functions and loops are refused: nested loops multiply."""


def call_function(lowering: Lowering, function: FunctionProto, call: Call, scope: Scope) -> list[Value]:
    """Inlines a model-local function; its attributes take the call's values or their defaults."""
    attrs: dict[str, Any] = decode_attrs(function.attribute_proto, None)
    attrs.update(call.attrs)
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in function.opset_import}
    inner = Scope(None, {**scope.opsets, **opsets}, attrs, f"{call.name}/")
    for name, value in zip(function.input, call.inputs, strict=False):
        if value is not None:
            inner.values[name] = value
    absent = set(function.input) - set(inner.values)
    nodes = function.node
    if absent:
        nodes = [_without(node, absent) for node in nodes]
    _enter(lowering, len(nodes))
    lowering.run(nodes, inner)
    lowering.depth -= 1
    return [_result(lowering, name, inner, function.name) for name in function.output]


def _without(node: Any, names: set[str]) -> Any:
    """The node with inputs that the caller left out made absent."""
    if not names.intersection(node.input):
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    for i, name in enumerate(copy.input):
        if name in names:
            copy.input[i] = ""
    return copy


def _enter(lowering: Lowering, nodes: int) -> None:
    lowering.depth += 1
    lowering.inlined += nodes
    if lowering.depth > _MAX_DEPTH:
        raise InputError(f"functions or subgraphs nest deeper than {_MAX_DEPTH}; check that no function calls itself")
    if lowering.inlined > MAX_INLINED_NODES:
        raise InputError(
            f"functions and loops unroll to more than {MAX_INLINED_NODES} nodes; export the model with fewer trips"
        )


def _result(lowering: Lowering, name: str, scope: Scope, where: str) -> Value:
    value = lowering.find(name, scope)
    if value is None:
        raise InputError(f"nothing in '{where}' produces its output '{name}'; export the model again")
    return value


def _body(lowering: Lowering, graph: GraphProto, scope: Scope, inputs: Sequence[Value], prefix: str) -> list[Value]:
    """Lowers a subgraph once and returns its outputs."""
    inner = Scope(scope, scope.opsets, scope.attrs, f"{scope.prefix}{prefix}/")
    inner.tensors = {t.name: t for t in graph.initializer}
    for info, value in zip(graph.input, inputs, strict=False):
        inner.values[info.name] = value
    _enter(lowering, len(graph.node))
    lowering.run(graph.node, inner)
    lowering.depth -= 1
    return [_result(lowering, out.name, inner, prefix) for out in graph.output]


def _if(lowering: Lowering, call: Call, scope: Scope) -> list[Value]:
    condition = call.need(0).content
    branches = {key: call.attrs[key] for key in ("then_branch", "else_branch")}
    if condition is not None:
        key = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        return _body(lowering, branches[key], scope, (), f"{call.name}.{key}")
    start = len(lowering.nodes)
    lowered: list[tuple[list[Node], list[Value]] | None] = []
    failure: ShapeInferenceError | None = None
    for key, graph in branches.items():
        depth = lowering.depth
        try:
            values = _body(lowering, graph, scope, (), f"{call.name}.{key}")
            lowered.append((lowering.nodes[start:], values))
        except ShapeInferenceError as error:
            failure, lowering.depth = error, depth
        del lowering.nodes[start:]
    if not lowered:
        raise failure or ShapeInferenceError("it has no branches")
    nodes, values = max((b for b in lowered if b), key=lambda b: _weight(lowering, b[0]))
    lowering.nodes.extend(nodes)
    return values


def _weight(lowering: Lowering, nodes: Sequence[Node]) -> tuple[int, int]:
    """Multiply-accumulates and elements written."""
    macs = written = 0
    for node in nodes:
        size = sum(lowering.tensors[t].numel for t in node.outputs if t)
        written += size
        if node.op == "Conv":
            macs += size * math.prod(lowering.tensors[node.inputs[1]].shape[1:])
        elif node.op in ("MatMul", "Gemm"):
            macs += size * lowering.tensors[node.inputs[0]].shape[0 if node.attrs.get("transA") else -1]
    return macs, written


def _marked(lowering: Lowering, start: int, trips: int) -> None:
    """Notes on the nodes from `start` on how often the loop around them runs, nested loops multiplying."""
    for i in range(start, len(lowering.nodes)):
        node = lowering.nodes[i]
        inner = int(node.attrs.get("trip_count", 1))  # type: ignore[arg-type]
        lowering.nodes[i] = Node(
            node.op, node.inputs, node.outputs, {**node.attrs, "trip_count": inner * trips}, node.name, node.opaque
        )


def _scalar(name: str, value: int | bool) -> Value:
    return known(name, np.array(value, dtype=np.bool_ if isinstance(value, bool) else np.int64))


def _loop(lowering: Lowering, call: Call, scope: Scope) -> list[Value]:
    body: GraphProto = call.attrs["body"]
    limit, condition = call.get(0), call.get(1)
    limit_content = None if limit is None else limit.content
    trips = None if limit_content is None else max(int(limit_content.reshape(-1)[0]), 0)
    carried = [_required(value) for value in call.inputs[2:]]
    if condition is not None and condition.content is not None and not condition.content.reshape(-1)[0]:
        trips = 0
    unrolled = trips is not None and trips * max(len(body.node), 1) <= UNROLLED_NODES
    rounds = trips if unrolled and trips is not None else 1
    start, rows = len(lowering.nodes), []
    done = 0
    for i in range(rounds):
        step = _scalar(f"{call.name}.iteration{i}", i) if unrolled else _runtime_like(lowering, call, "iteration")
        outs = _body(lowering, body, scope, [step, _scalar(f"{call.name}.go", True), *carried], f"{call.name}.{i}")
        done += 1
        carried = outs[1 : 1 + len(carried)]
        rows.append(outs[1 + len(carried) :])
        if unrolled and outs[0].content is not None and not outs[0].content.reshape(-1)[0]:
            break
    if not unrolled:
        _marked(lowering, start, trips or 0)
    scans = _stacked_outputs(lowering, call, body, rows, len(carried), trips if not unrolled and trips else done)
    return [*carried, *scans]


def _required(value: Value | None) -> Value:
    if value is None:
        raise ShapeInferenceError("an input is missing")
    return value


def _runtime_like(lowering: Lowering, call: Call, what: str) -> Value:
    """A scalar that is not known while lowering; it is read as a constant of one element."""
    return Value(f"{call.name}.{what}", (), DType.INT64, const=True)


def _stacked_outputs(
    lowering: Lowering, call: Call, body: GraphProto, rows: list[list[Value]], carried: int, length: int
) -> list[Value]:
    """One tensor per scan output, the trips' slices along a new first axis."""
    found = []
    for k in range(len(call.outputs) - carried):
        if not rows:
            info = body.output[1 + carried + k].type.tensor_type
            shape = (0, *(d.dim_value for d in info.shape.dim))
            found.append(Value(call.outputs[carried + k], shape, DType.FLOAT32, const=True))
            continue
        found.append(_stack(lowering, [row[k] for row in rows], 0, length, f"{call.name}.scan{k}"))
    return found


def _stack(lowering: Lowering, slices: list[Value], axis: int, length: int, name: str) -> Value:
    """Slices joined along a new axis; a single slice of a loop that is not unrolled stands for all of them."""
    first = slices[0]
    lifted = []
    for value in slices:
        shape = (*value.shape[:axis], 1, *value.shape[axis:])
        lifted += lowering.emit("Unsqueeze", [value], [(shape, value.dtype)], {"axes": (axis,)}, name=f"{name}.lift")
    shape = (*first.shape[:axis], length, *first.shape[axis:])
    if len(lifted) == 1:
        if length == 1:
            return lifted[0]
        return lowering.emit("Expand", lifted, [(shape, first.dtype)], name=f"{name}.repeat")[0]
    total = sum(v.shape[axis] for v in lifted)
    shape = (*first.shape[:axis], total, *first.shape[axis:])
    return lowering.emit("Concat", lifted, [(shape, first.dtype)], {"axis": axis}, name=f"{name}.stack")[0]


def _scan(lowering: Lowering, call: Call, scope: Scope) -> list[Value]:
    if call.version < 9:
        raise ShapeInferenceError("Scan of opset 8 is not supported; convert the model to opset 9 or newer")
    body: GraphProto = call.attrs["body"]
    count = int(call.attrs["num_scan_inputs"])
    values = [_required(v) for v in call.inputs]
    if not 0 < count <= len(values):
        raise ShapeInferenceError(f"{count} scan inputs do not fit {len(values)} inputs")
    states, sources = values[: len(values) - count], values[len(values) - count :]
    axes = call.attrs.get("scan_input_axes") or (0,) * count
    axes = [axis_of(a, len(v.shape)) for a, v in zip(axes, sources, strict=False)]
    trips = sources[0].shape[axes[0]] if sources else 0
    unrolled = trips * max(len(body.node), 1) <= UNROLLED_NODES
    backwards = call.attrs.get("scan_input_directions") or (0,) * count
    start, rows = len(lowering.nodes), []
    for i in range(trips if unrolled else min(trips, 1)):
        slices = []
        for value, axis, back in zip(sources, axes, backwards, strict=False):
            slices.append(_taken(lowering, value, axis, trips - 1 - i if back else i))
        outs = _body(lowering, body, scope, [*states, *slices], f"{call.name}.{i}")
        states, row = outs[: len(states)], outs[len(states) :]
        rows.append(row)
    if not unrolled:
        _marked(lowering, start, trips)
    return [*states, *_scan_outputs(lowering, call, rows, trips, len(states))]


def _scan_outputs(lowering: Lowering, call: Call, rows: list[list[Value]], trips: int, states: int) -> list[Value]:
    outputs = []
    for k in range(len(call.outputs) - states):
        if not rows:
            raise ContentNeeded("it scans an empty axis")
        slices = [row[k] for row in rows]
        axes = call.attrs.get("scan_output_axes") or (0,) * len(rows[0])
        backwards = call.attrs.get("scan_output_directions") or (0,) * len(rows[0])
        axis = axis_of(axes[k], len(slices[0].shape) + 1)
        ordered = slices[::-1] if backwards[k] else slices
        outputs.append(_stack(lowering, ordered, axis, trips, f"{call.name}.scan{k}"))
    return outputs


def _taken(lowering: Lowering, value: Value, axis: int, index: int) -> Value:
    """One slice of a scanned tensor."""
    shape = value.shape[:axis] + value.shape[axis + 1 :]
    where = _scalar(f"index{index}", index)
    return lowering.emit("Gather", [value, where], [(shape, value.dtype)], {"axis": axis})[0]


CONTROL: dict[str, Callable[[Lowering, Call, Scope], list[Value]]] = {"If": _if, "Loop": _loop, "Scan": _scan}

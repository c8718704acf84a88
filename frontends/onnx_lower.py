"""Lowers an ONNX model to `costmodel.ir.Graph`: one pass in topological order that infers, folds and normalises.

Every tensor is a `Value` of static shape. Operators whose inputs are all constants vanish (their outputs are
constants), so shape arithmetic and weight preparation leave no nodes. What is kept goes through its rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto

from costmodel.errors import InputError, LedgCostError, ShapeInferenceError, UnsupportedOpError
from costmodel.ir import AttrValue, DType, Graph, Node, TensorSpec
from frontends.onnx_attrs import decode_attrs
from frontends.onnx_bind import Binding, bind_inputs
from frontends.onnx_fold import evaluate
from frontends.onnx_order import ordered, unsupported_ops
from frontends.onnx_quant import fold_quantizers
from frontends.onnx_rules import Call, ContentNeeded, Lowered, Result, registry
from frontends.onnx_shapes import Declared, schema_specs
from frontends.onnx_values import CONTENT_LIMIT, NUMPY_TYPES, Spec, Value, external_content, origins_of, tensor_value

MALFORMED = (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, OverflowError, AttributeError)
"""What rules raise on nodes that break their operator's definition."""


class Scope:
    """Names visible in one graph body; what it does not define, its parent may."""

    __slots__ = ("attrs", "opsets", "parent", "prefix", "tensors", "values")

    def __init__(
        self,
        parent: Scope | None,
        opsets: Mapping[str, int],
        attrs: Mapping[str, Any] | None = None,
        prefix: str = "",
    ) -> None:
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, TensorProto] = {}
        self.parent = parent
        self.opsets = opsets
        self.attrs = attrs
        self.prefix = prefix


class Lowering:
    """State of lowering one model.

    baked    names of constants that the file holds literally (they may have the exported batch size in them)
    rebatch  (exported, wanted) batch size if a fixed one is replaced, else None
    """

    def __init__(self, model: ModelProto, folder: Path | None, rebatch: tuple[int, int] | None) -> None:
        self.rules = registry()
        self.functions: dict[tuple[str, str], FunctionProto] = {(f.domain, f.name): f for f in model.functions}
        self.folder = folder
        self.rebatch = rebatch
        self.baked: set[str] = set()
        self.tensors: dict[str, TensorSpec] = {}
        self.nodes: list[Node] = []
        self.params: set[str] = set()
        self.sources: dict[str, int] = {}
        self.declared = Declared(model, rebatch)
        self.depth = 0
        self.inlined = 0
        self._specs: dict[tuple[Any, DType], TensorSpec] = {}

    # Tensors

    def spec(self, shape: tuple[int, ...], dtype: DType) -> TensorSpec:
        """The spec of a shape and type, shared between equal tensors."""
        found = self._specs.get((shape, dtype))
        if found is None:
            if shape and min(shape) < 0:
                raise ShapeInferenceError(f"its output shape would be {shape}")
            found = self._specs[shape, dtype] = TensorSpec(shape, dtype)
        return found

    def constant(self, name: str, tensor: TensorProto) -> Value:
        """The value of a tensor in the file."""
        self.baked.add(name)
        if tensor.data_location == TensorProto.EXTERNAL and self.folder is not None:
            value = tensor_value(name, tensor)
            folder = self.folder
            return Value(name, value.shape, value.dtype, True, read=lambda: external_content(tensor, folder))
        return tensor_value(name, tensor)

    def computed(self, name: str, content: np.ndarray) -> Value:
        """A constant worked out here; large contents are forgotten."""
        kept = content if content.size <= CONTENT_LIMIT else None
        return Value(name, content.shape, DType(content.dtype.name), const=True, content=kept)

    def find(self, name: str, scope: Scope) -> Value | None:
        """The value of a name as seen from a scope, or None."""
        inner: Scope | None = scope
        while inner is not None:
            value = inner.values.get(name)
            if value is not None:
                return value
            tensor = inner.tensors.get(name)
            if tensor is not None:
                value = inner.values[name] = self.constant(name, tensor)
                return value
            inner = inner.parent
        return None

    def use(self, value: Value | None) -> str:
        """The tensor name under which a node reads a value; constants become parameters."""
        if value is None:
            return ""
        if value.items is not None:
            raise ShapeInferenceError("a sequence is passed where a tensor is expected")
        if value.const:
            spec = self.spec(value.shape, value.stored or value.dtype)
            if self.tensors.get(value.name, spec) != spec or (
                value.name in self.tensors and value.name not in self.params
            ):
                value.name = self._fresh(value.name)
            self.tensors[value.name] = spec
            self.params.add(value.name)
            if value.origins is not None:
                self.sources[value.name] = sum(value.origins.values())
        return value.name

    def _fresh(self, name: str) -> str:
        if name not in self.tensors:
            return name
        count = 2
        while f"{name}#{count}" in self.tensors:
            count += 1
        return f"{name}#{count}"

    # Nodes

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        specs: Sequence[Spec],
        attrs: dict[str, AttrValue] | None = None,
        outputs: Sequence[str] = (),
        name: str = "",
        opaque: bool = False,
    ) -> list[Value]:
        """Adds a node and returns its outputs; if every input is a constant, so are they, and no node is added."""
        attrs = attrs if attrs is not None else {}
        names = list(outputs) or [f"{name or op}:{len(self.nodes)}.{i}" for i in range(len(specs))]
        if all(value is None or value.const for value in inputs):
            return self._fold(op, [v for v in inputs if v is not None], specs, attrs, names)
        kept = [self.use(value) for value in inputs]
        while kept and not kept[-1]:
            kept.pop()
        values, made = [], []
        for (shape, dtype), out in zip(specs, names, strict=False):
            if not out:
                made.append("")
                values.append(Value("", shape, dtype))
                continue
            out = out if out not in self.tensors else self._fresh(out)
            self.tensors[out] = self.spec(shape, dtype)
            made.append(out)
            values.append(Value(out, shape, dtype))
        self.nodes.append(Node(op, tuple(kept), tuple(made), attrs, name or f"{op}_{len(self.nodes)}", opaque))
        return values

    def _fold(
        self, op: str, inputs: list[Value], specs: Sequence[Spec], attrs: dict[str, AttrValue], names: list[str]
    ) -> list[Value]:
        contents: list[np.ndarray] = []
        if all(d in NUMPY_TYPES and math.prod(s) <= CONTENT_LIMIT for s, d in specs):
            arrays = [v.content for v in inputs]
            if all(a is not None for a in arrays):
                contents = evaluate(op, arrays, attrs, specs)  # type: ignore[arg-type]
        stored = inputs[0].stored if inputs and op in _KEEPS_STORAGE else None
        if op == "QuantizeLinear":
            stored = None
        found = []
        for i, ((shape, dtype), name) in enumerate(zip(specs, names, strict=False)):
            if shape and min(shape) < 0:
                raise ShapeInferenceError(f"its output shape would be {shape}")
            content = np.asarray(contents[i]) if i < len(contents) else None
            origins = origins_of(op, inputs, math.prod(shape))
            found.append(Value(name, shape, dtype, True, content, stored=stored, origins=origins))
        return found

    # Bodies

    def run(self, nodes: Sequence[NodeProto], scope: Scope) -> None:
        """Lowers the nodes of one body, in topological order whether or not the file has them so."""
        for i, node in enumerate(nodes):
            for name in node.input:
                if name and name not in scope.values and self.find(name, scope) is None:
                    for later in ordered(nodes[i:], lambda n: self.find(n, scope) is not None):
                        self.step(later, scope)
                    return
            self.step(node, scope)

    def step(self, node: NodeProto, scope: Scope) -> None:
        """Lowers one node and binds its outputs in the scope."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        op = node.op_type
        outputs = list(node.output)
        call = Call(
            self,
            op,
            domain,
            scope.opsets.get(domain, 1),
            decode_attrs(node.attribute, scope.attrs) if node.attribute else {},
            [self.find(n, scope) if n else None for n in node.input],
            outputs,
            scope.prefix + (node.name or (outputs[0] if outputs else op)),
        )
        try:
            values = self._apply(call, node, scope)
        except LedgCostError as error:
            if type(error) not in (ShapeInferenceError, ContentNeeded) or getattr(error, "placed", False):
                raise
            raise _placed(call, str(error)) from error
        except MALFORMED as error:
            raise _placed(call, f"{type(error).__name__}: {error}") from error
        for name, value in zip(outputs, values, strict=False):
            if name:
                scope.values[name] = value

    def _apply(self, call: Call, node: NodeProto, scope: Scope) -> list[Value]:
        rule = self.rules.get((call.domain, call.op))
        if rule is not None:
            try:
                lowered: Lowered = rule(call)
            except ContentNeeded:
                specs = self.declared.specs(call.outputs)
                if specs is None:
                    raise
                lowered = Result(specs, _plain(call.attrs))
        elif (call.domain, call.op) in self.functions:
            from frontends.onnx_functions import call_function

            return call_function(self, self.functions[call.domain, call.op], call, scope)
        elif call.domain == "" and call.op in ("If", "Loop", "Scan"):
            from frontends import onnx_functions

            return onnx_functions.CONTROL[call.op](self, call, scope)
        else:
            lowered = self._opaque(call, node)
        if isinstance(lowered, list):
            return lowered
        inputs = call.inputs if lowered.inputs is None else lowered.inputs
        names = call.outputs if not scope.prefix else [scope.prefix + n if n else "" for n in call.outputs]
        return self.emit(
            lowered.op or call.op, inputs, lowered.specs, lowered.attrs, names[: len(lowered.specs)], call.name,
            lowered.opaque,
        )  # fmt: skip

    def _opaque(self, call: Call, node: NodeProto) -> Result:
        """An operator without a rule: its shape comes from the file or from ONNX's own inference."""
        specs = self.declared.specs(call.outputs) or schema_specs(call, node)
        op = f"{call.domain}.{call.op}" if call.domain else call.op
        if specs is None:
            raise ShapeInferenceError(
                f"the output shape of operator '{op}' is unknown; run onnx.shape_inference or add value_info for it"
            )
        tensors: list[Value | None] = [v for v in call.inputs if v is None or v.items is None]
        return Result(specs, _plain(call.attrs), tensors, op, opaque=True)


_VIEWS = "Reshape Flatten Squeeze Unsqueeze Transpose Slice Gather Split Concat Cast Expand"
_KEEPS_STORAGE = frozenset(_VIEWS.split())
"""Operators that leave a dequantised constant in its quantised storage."""


def _placed(call: Call, reason: str) -> ShapeInferenceError:
    """The error with the node's name in front and, unless it has one, a fix at its end."""
    op = f"{call.domain}.{call.op}" if call.domain else call.op
    fix = "" if ";" in reason else "; check the node's inputs and attributes (onnx.checker) or bind shapes with --shape"
    reason = " ".join(reason.split())
    error = ShapeInferenceError(f"node '{call.name}' ({op}): {reason}{fix}")
    error.placed = True  # type: ignore[attr-defined]
    return error


def _plain(attrs: Mapping[str, Any]) -> dict[str, AttrValue]:
    """The attributes that are numbers, strings or tuples of them."""
    return {k: v for k, v in attrs.items() if isinstance(v, (int, float, str, tuple))}


def lower(
    model: ModelProto,
    batch: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    strict: bool = False,
    folder: Path | None = None,
    name: str = "",
) -> Graph:
    """Lowers a parsed model; see `frontends.load` for the arguments and errors. `folder` holds its external data."""
    binding = bind_inputs(model, batch, shapes or {})
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    if strict:
        _refuse_unsupported(model)
    lowering = Lowering(model, folder, binding.rebatch)
    lowering.declared.symbols = binding.symbols
    try:
        with np.errstate(all="ignore"):
            return _lower_bound(lowering, model, binding, opsets, name)
    except ShapeInferenceError as error:
        if binding.rebatch is None:
            raise
        old, new = binding.rebatch
        reason = str(error).split(";")[0]
        raise InputError(
            f"the model is exported for batch {old} and does not lower at batch {new} ({reason});"
            " export it with a symbolic batch axis"
        ) from error
    except RecursionError as error:
        raise InputError("the model's subgraphs or functions are nested too deeply; inline them first") from error


def _lower_bound(
    lowering: Lowering, model: ModelProto, binding: Binding, opsets: Mapping[str, int], name: str
) -> Graph:
    root = Scope(None, opsets)
    graph = model.graph
    root.tensors = {t.name: t for t in graph.initializer}
    for sparse in graph.sparse_initializer:
        dtype = tensor_value(sparse.values.name, sparse.values).dtype
        root.values[sparse.values.name] = Value(sparse.values.name, tuple(sparse.dims), dtype, const=True)
    inputs = []
    for tensor, (shape, dtype) in binding.inputs.items():
        lowering.tensors[tensor] = lowering.spec(shape, dtype)
        root.values[tensor] = Value(tensor, shape, dtype)
        inputs.append(tensor)
    lowering.run(graph.node, root)
    outputs = []
    for out in graph.output:
        value = lowering.find(out.name, root)
        if value is None:
            raise InputError(f"nothing produces the model's output '{out.name}'; export the model again")
        binding.check_output(out, value)
        for item in [value] if value.items is None else value.items:
            outputs.append(lowering.use(item))
    nodes = fold_quantizers(lowering.nodes, lowering.tensors, lowering.params, outputs)
    return _frozen(nodes, lowering, inputs, outputs, name or graph.name or "graph")


def _frozen(nodes: list[Node], lowering: Lowering, inputs: list[str], outputs: list[str], name: str) -> Graph:
    """The graph without nodes that no output depends on, and without tensors that nothing mentions."""
    live = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if any(t in live for t in node.outputs):
            live.update(node.inputs)
            kept.append(node)
    kept.reverse()
    used = live.union(inputs, *(node.outputs for node in kept))
    tensors = {t: spec for t, spec in lowering.tensors.items() if t in used}
    params = frozenset(t for t in lowering.params if t in used)
    sources = {t: count for t, count in lowering.sources.items() if t in params}
    return Graph(tuple(kept), tensors, tuple(inputs), tuple(outputs), params, name, sources)


def _refuse_unsupported(model: ModelProto) -> None:
    known = set(registry())
    found = unsupported_ops(model, known)
    if found:
        listed = ", ".join(f"{op} ({count})" for op, count in sorted(found.items()))
        raise UnsupportedOpError(
            f"operators without a lowering: {listed}; drop --strict to keep them as opaque nodes", found
        )

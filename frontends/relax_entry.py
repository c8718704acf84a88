"""The entry function of a Relax program: binds its parameters, walks it, and freezes the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from costmodel.errors import InputError, ShapeInferenceError, UnsupportedOpError
from costmodel.ir import DType, Graph, Node
from frontends.onnx_quant import fold_quantizers
from frontends.onnx_values import Spec, Value
from frontends.relax_compose import compose
from frontends.relax_lower import Env, RelaxLowering, tensors_in
from frontends.relax_types import Symbols, bind_parameters, dims_of, dtype_of, kind, spec_of


def lower(
    function: Any,
    functions: Mapping[str, Any],
    batch: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    strict: bool = False,
    name: str = "",
) -> Graph:
    """Lowers one Relax function; see `frontends.load` for the arguments and errors.

    function   the entry, a `tvm.relax.Function`
    functions  global functions that it may call, by name
    """
    symbols = Symbols()
    parameters = list(function.params)
    limit = len(parameters)
    if function.attrs is not None and "num_input" in function.attrs:
        limit = int(function.attrs["num_input"])
    runtime = _runtime_inputs(parameters[:limit])
    binding = bind_parameters(runtime, batch, shapes or {}, symbols)
    lowering = RelaxLowering(functions, binding.rebatch, symbols)
    env: Env = {}
    inputs: list[str] = []
    for i, parameter in enumerate(parameters):
        env[parameter.__chandle__()] = _argument(lowering, str(parameter.name), parameter.ty, binding.inputs, i < limit)
    for tensor, (shape, dtype) in binding.inputs.items():
        lowering.tensors[tensor] = lowering.spec(shape, dtype)
        inputs.append(tensor)
    try:
        with np.errstate(all="ignore"):
            result = lowering.call(name or "main", function, env, [env[p.__chandle__()] for p in parameters])
    except ShapeInferenceError as error:
        if binding.rebatch is None:
            raise
        old, new = binding.rebatch
        raise InputError(
            f"the program is written for batch {old} and does not lower at batch {new} ({str(error).split(';')[0]});"
            " export it with a symbolic batch axis"
        ) from error
    except RecursionError as error:
        raise InputError("the program is nested too deeply; inline or simplify it first") from error
    if strict and lowering.unknown:
        listed = ", ".join(f"{op} ({count})" for op, count in sorted(lowering.unknown.items()))
        raise UnsupportedOpError(
            f"operators without a lowering: {listed}; drop --strict to keep them as opaque nodes", lowering.unknown
        )
    outputs = [lowering.use(value) for value in tensors_in([result])]
    return _graph(lowering, inputs, outputs, name or "main")


def _runtime_inputs(parameters: Sequence[Any]) -> list[tuple[str, Any]]:
    """Name and type of every tensor a function is given at run time, tuples flattened."""
    found: list[tuple[str, Any]] = []

    def visit(name: str, declared: Any) -> None:
        if kind(declared) == "TensorType":
            if declared.dtype is None:
                raise InputError(f"parameter '{name}' has no element type; annotate it")
            found.append((name, declared))
        elif kind(declared) == "TupleType":
            for i, field in enumerate(declared.fields):
                visit(f"{name}.{i}", field)

    for parameter in parameters:
        visit(str(parameter.name), parameter.ty)
    return found


def _argument(lowering: RelaxLowering, name: str, declared: Any, bound: Mapping[str, Spec], runtime: bool) -> Any:
    """What a parameter of the entry function stands for; parameters after `num_input` are weights."""
    if kind(declared) == "TupleType":
        return [_argument(lowering, f"{name}.{i}", f, bound, runtime) for i, f in enumerate(declared.fields)]
    if kind(declared) == "TensorType":
        if runtime:
            return Value(name, *bound[name])
        spec = spec_of(declared, lowering.symbols)
        if spec is None:
            raise InputError(f"the shape of weight '{name}' is not known; annotate it")
        return Value(name, *spec, const=True)
    if kind(declared) == "ShapeType" and dims_of(declared) is not None:
        return lowering.symbols.shape(dims_of(declared) or [])
    if kind(declared) == "PrimType":
        return Value(name, (), dtype_of(declared.dtype), const=True)
    return Value(name, (), DType.STRING, const=True)


def _graph(lowering: RelaxLowering, inputs: list[str], outputs: list[str], name: str) -> Graph:
    known = lowering.transposed, lowering.scalars, lowering.sources
    nodes = compose(lowering.nodes, lowering.tensors, lowering.params, outputs, *known)
    nodes = fold_quantizers(nodes, lowering.tensors, lowering.params, outputs)
    live = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if any(t in live for t in node.outputs):
            live.update(node.inputs)
            kept.append(node)
    used = live.union(inputs, *(node.outputs for node in kept))
    tensors = {t: spec for t, spec in lowering.tensors.items() if t in used}
    params = frozenset(t for t in lowering.params if t in used)
    sources = {t: count for t, count in lowering.sources.items() if t in params}
    return Graph(tuple(reversed(kept)), tensors, tuple(inputs), tuple(outputs), params, name, sources)

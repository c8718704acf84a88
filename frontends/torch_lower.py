"""Lowers an exported torch program to `costmodel.ir.Graph`, one ATen call after another.

Shapes and types are those that torch itself worked out. Calls on constants only vanish, so that position ids, masks and
prepared weights leave no nodes. An operator without a rule is traced through torch's own decomposition, and the pieces
are lowered; if there is none it stays as an opaque node.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from costmodel.errors import InputError, LedgCostError, ShapeInferenceError, UnsupportedOpError
from costmodel.ir import AttrValue, DType, Graph, Node, TensorSpec
from frontends.torch_ops import Attrs, Call, Spec, Value, dtype_of, registry

MAX_DEPTH = 8
"""Decompositions inside decompositions."""

_FROM_SHAPE = frozenset((
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like", "new_zeros",
    "new_ones", "new_full", "new_empty", "new_empty_strided",
))  # fmt: skip
"""Of a tensor argument these look at shape and type only."""

_WITHOUT_RESULT = frozenset(("_assert_async", "_assert_scalar", "_assert_tensor_metadata"))
_INLINED = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4, "hints_wrapper": 0, "checkpoint": 0}
_MALFORMED = (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, StopIteration, AssertionError)


class Lowering:
    """State of lowering one program. `values` hold torch's stand-in for the result of each node of its graph."""

    index_dtype = DType.INT64

    def __init__(self, name: str) -> None:
        self.name = name
        self.rules = registry()
        self.tensors: dict[str, TensorSpec] = {}
        self.nodes: list[Node] = []
        self.params: set[str] = set()
        self.opaque: Counter[str] = Counter()
        self._names: Counter[str] = Counter()

    # Tensors and nodes

    def fresh(self, base: str) -> str:
        """A tensor name not given out before."""
        self._names[base] += 1
        count = self._names[base]
        return base if count == 1 else f"{base}#{count}"

    def use(self, value: Value | None) -> str:
        """The tensor name under which a node reads a value; constants become parameters."""
        if value is None:
            return ""
        if value.const:
            self.tensors[value.name] = TensorSpec(value.shape, value.dtype)
            self.params.add(value.name)
        return value.name

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        specs: Sequence[Spec],
        attrs: Attrs | None = None,
        name: str = "",
        opaque: bool = False,
    ) -> list[Value]:
        """Adds a node and returns its outputs; if every input is a constant, so are they, and no node is added."""
        made = [self.fresh(name or op) for _ in specs]
        if all(v is None or v.const for v in inputs):
            return [Value(n, shape, dtype, const=True) for n, (shape, dtype) in zip(made, specs, strict=True)]
        kept = [self.use(v) for v in inputs]
        while kept and not kept[-1]:
            kept.pop()
        for tensor, (shape, dtype) in zip(made, specs, strict=True):
            self.tensors[tensor] = TensorSpec(shape, dtype)
        self.nodes.append(Node(op, tuple(kept), tuple(made), attrs or {}, made[0] if made else op, opaque))
        return [Value(n, shape, dtype) for n, (shape, dtype) in zip(made, specs, strict=True)]

    # Graphs

    def run(self, graph: Any, env: dict[Any, Any], values: Mapping[Any, Any], depth: int = 0) -> list[Any]:
        """Lowers a torch.fx graph; `env` holds its placeholders. Returns what it gives out, flat."""
        for node in graph.nodes:
            if node.op == "output":
                return _flat(_resolve(node.args[0], env))
            if node.op == "get_attr":
                env[node] = self._attribute(graph, node)
            elif node.op == "call_function":
                try:
                    env[node] = self._step(node, env, values, depth)
                except (LedgCostError, *_MALFORMED) as error:
                    raise _placed(node, error) from error
        return []

    def _attribute(self, graph: Any, node: Any) -> Any:
        found = graph.owning_module
        for part in node.target.split("."):
            found = getattr(found, part)
        if hasattr(found, "shape") and hasattr(found, "dtype"):
            shape = tuple(int(d) for d in found.shape)
            return Value(self.fresh(node.name), shape, dtype_of(found.dtype), const=True)
        return found

    def _step(self, node: Any, env: dict[Any, Any], values: Mapping[Any, Any], depth: int) -> Any:
        result = values.get(node)
        if node.target is operator.getitem:
            return _resolve(node.args[0], env)[node.args[1]]
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return self._higher_order(node, env, values, depth, result)
        namespace, _, name = schema.name.partition("::")
        if name in _WITHOUT_RESULT or not _has_tensor(result):
            return result
        args, fakes = _bound(schema, node, env, values)
        outs = _specs(result)
        if name in _FROM_SHAPE or not any(isinstance(v, Value) and not v.const for v in _flat(list(args.values()))):
            return self._constants(node, result, outs)
        key = self._rule_name(namespace, name, schema.overload_name)
        used = _used(node, len(outs))
        call = Call(self, key or name, node.name, args, fakes, outs, used)
        if key is None:
            found = self._without_rule(node, call, f"{namespace}.{name}", result, depth)
        else:
            made = self.rules[key](call)
            found = [made] if isinstance(made, Value) else list(made)
            _check(found, outs)
        out = found if isinstance(result, (list, tuple)) else found[0]
        if schema.is_mutable and name.endswith("_") and node.args and not isinstance(result, (list, tuple)):
            env[node.args[0]] = out
        return out

    def _constants(self, node: Any, result: Any, outs: list[Spec | None]) -> Any:
        found = [None if s is None else Value(self.fresh(node.name), s[0], s[1], const=True) for s in outs]
        return found if isinstance(result, (list, tuple)) else found[0]

    def _rule_name(self, namespace: str, name: str, overload: str) -> str | None:
        prefix = "" if namespace == "aten" else f"{namespace}::"
        for candidate in (f"{name}.{overload}", name, name[:-1] if name.endswith("_") else name):
            if prefix + candidate in self.rules:
                return prefix + candidate
        return None

    def _higher_order(self, node: Any, env: dict[Any, Any], values: Mapping[Any, Any], depth: int, result: Any) -> Any:
        """Python functions: arithmetic on sizes, and operators that take a graph."""
        name = getattr(node.target, "__name__", str(node.target))
        args = [_resolve(a, env) for a in node.args]
        if name.startswith("return_types"):
            return args
        if not _has_tensor(result):
            return result
        if name == "cond":
            branches = [args[1], args[2]]
            body, operands = max(branches, key=lambda g: len(g.graph.nodes)), list(args[3])
        elif name in _INLINED:
            place = _INLINED[name]
            body, operands = args[place], list(args[place + 1 :])
        else:
            inputs = [v for v in _flat(args) if isinstance(v, Value)]
            return self._kept(f"torch.{name}", inputs, _specs(result), {}, node.name, result)
        inner = dict(zip((n for n in body.graph.nodes if n.op == "placeholder"), operands, strict=True))
        inside = {n: n.meta.get("val") for n in body.graph.nodes}
        found = self.run(body.graph, inner, inside, depth + 1)
        return found if isinstance(result, (list, tuple)) else found[0]

    def _without_rule(self, node: Any, call: Call, op: str, result: Any, depth: int) -> list[Any]:
        if depth < MAX_DEPTH:
            traced = _decomposed(node.target, call)
            if traced is not None:
                inner = dict(
                    zip(
                        (n for n in traced.graph.nodes if n.op == "placeholder"),
                        (v for v in _flat(list(call.args.values())) if isinstance(v, Value)),
                        strict=True,
                    )
                )
                return self.run(traced.graph, inner, {n: n.meta.get("val") for n in traced.graph.nodes}, depth + 1)
        inputs = [v for v in _flat(list(call.args.values())) if isinstance(v, Value)]
        plain: dict[str, AttrValue] = {
            k: v for k, v in call.args.items() if isinstance(v, (int, float, str)) and k != "generator"
        }
        kept = self._kept(op, inputs, call.outs, plain, call.name, result)
        return kept if isinstance(result, (list, tuple)) else [kept]

    def _kept(
        self, op: str, inputs: list[Value], outs: list[Spec | None], attrs: dict[str, AttrValue], name: str, result: Any
    ) -> Any:
        """An operator of unknown arithmetic, with torch's own output shapes."""
        self.opaque[op] += 1
        made = iter(self.emit(op, inputs, [s for s in outs if s is not None], attrs, name, opaque=True))
        found = [None if s is None else next(made) for s in outs]
        return found if isinstance(result, (list, tuple)) else found[0]

    def frozen(self, inputs: Sequence[str], outputs: Sequence[Value], strict: bool) -> Graph:
        """The graph without nodes that no output depends on. UnsupportedOpError under `strict`."""
        from frontends.torch_tidy import tidy

        if strict and self.opaque:
            listed = ", ".join(f"{op} ({count})" for op, count in sorted(self.opaque.items()))
            raise UnsupportedOpError(
                f"operators without a lowering: {listed}; drop --strict to keep them as opaque nodes", dict(self.opaque)
            )
        results = [self.use(v) for v in outputs]
        nodes = tidy(self.nodes, self.tensors, self.params, results)
        used = set(inputs).union(results, *(n.outputs for n in nodes), *(n.inputs for n in nodes))
        tensors = {t: spec for t, spec in self.tensors.items() if t in used}
        params = frozenset(t for t in self.params if t in used)
        return Graph(tuple(nodes), tensors, tuple(inputs), tuple(results), params, self.name)


def _resolve(arg: Any, env: Mapping[Any, Any]) -> Any:
    """An argument of a torch.fx node with nodes replaced by what they gave."""
    if isinstance(arg, (list, tuple)):
        return [_resolve(a, env) for a in arg]
    if isinstance(arg, dict):
        return {k: _resolve(v, env) for k, v in arg.items()}
    return env[arg] if type(arg).__name__ == "Node" and hasattr(arg, "graph") else arg


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [v for item in value for v in _flat(item)]
    if isinstance(value, dict):
        return [v for item in value.values() for v in _flat(item)]
    return [value]


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _has_tensor(result: Any) -> bool:
    return any(_is_tensor(v) for v in _flat(result))


def _specs(result: Any) -> list[Spec | None]:
    items = _flat(result) if isinstance(result, (list, tuple)) else [result]
    return [(tuple(int(d) for d in v.shape), dtype_of(v.dtype)) if _is_tensor(v) else None for v in items]


def _bound(schema: Any, node: Any, env: Mapping[Any, Any], values: Mapping[Any, Any]) -> tuple[dict[str, Any], ...]:
    """Arguments by name with defaults, lowered and as torch's stand-ins."""
    args: dict[str, Any] = {}
    fakes: dict[str, Any] = {}
    for i, argument in enumerate(schema.arguments):
        if i < len(node.args):
            given = node.args[i]
        elif argument.name in node.kwargs:
            given = node.kwargs[argument.name]
        else:
            args[argument.name] = fakes[argument.name] = argument.default_value
            continue
        args[argument.name] = _resolve(given, env)
        fakes[argument.name] = _resolve(given, values)
    return args, fakes


def _used(node: Any, count: int) -> list[bool]:
    if count == 1:
        return [True]
    used = [False] * count
    for user in node.users:
        if user.target is operator.getitem:
            used[user.args[1]] |= bool(user.users)
        else:
            return [True] * count
    return used


def _check(found: Sequence[Any], outs: Sequence[Spec | None]) -> None:
    for value, spec in zip(found, outs, strict=False):
        if isinstance(value, Value) and spec is not None and value.spec != spec:
            raise ShapeInferenceError(f"it is lowered to {value.spec} where torch has {spec}")


def _decomposed(target: Any, call: Call) -> Any:
    """The operator traced through torch's decomposition on the same stand-ins, or None if it has none."""
    import torch
    from torch._decomp import get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    table = get_decompositions([target])
    if target not in table and not target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return None
    function = table.get(target, target)
    schema = target._schema.arguments
    flat = [v for v in _flat(list(call.fakes.values())) if isinstance(v, torch.Tensor)]

    def run(*tensors: Any) -> Any:
        left = iter(tensors)
        filled = {k: _filled(v, left) for k, v in call.fakes.items()}
        positional = [filled[a.name] for a in schema if not a.kwarg_only]
        return function(*positional, **{a.name: filled[a.name] for a in schema if a.kwarg_only})

    mode = next((t.fake_mode for t in flat if hasattr(t, "fake_mode")), None)
    try:
        with torch.no_grad(), mode or torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
            traced = make_fx(run, pre_dispatch=target in table)(*flat)
    except Exception:  # a decomposition may raise anything; the operator then stays whole
        return None
    own = [n for n in traced.graph.nodes if n.op == "call_function" and n.target is target]
    return None if own else traced


def _filled(value: Any, tensors: Any) -> Any:
    """An argument with each tensor in it taken from an iterator."""
    if isinstance(value, (list, tuple)):
        return [_filled(v, tensors) for v in value]
    return next(tensors) if _is_tensor(value) else value


def _placed(node: Any, error: Exception) -> LedgCostError:
    """The error with the call's name in front and a fix at its end."""
    if isinstance(error, LedgCostError) and getattr(error, "placed", False):
        return error
    if isinstance(error, LedgCostError) and not isinstance(error, ShapeInferenceError):
        return error
    reason = str(error) if isinstance(error, LedgCostError) else f"{type(error).__name__}: {error}"
    reason = " ".join(reason.split())
    fix = "" if ";" in reason else "; report the operator, or export the module to ONNX instead"
    placed = ShapeInferenceError(f"call '{node.name}' ({node.target}): {reason}{fix}")
    placed.placed = True  # type: ignore[attr-defined]
    return placed


def lower(program: Any, values: Mapping[Any, Any], name: str, strict: bool) -> Graph:
    """Lowers a torch.export.ExportedProgram.

    values  torch.fx node → torch's stand-in for its result, all sizes numbers

    Raises ShapeInferenceError naming the call that does not lower, UnsupportedOpError under `strict`.
    """
    lowering = Lowering(name)
    signature = program.graph_signature
    known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    known.update(signature.inputs_to_lifted_tensor_constants)
    env: dict[Any, Any] = {}
    inputs: list[str] = []
    user_inputs = set(signature.user_inputs)
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        value = values.get(node)
        if not _is_tensor(value):
            env[node] = value
            continue
        (spec,) = _specs(value)
        assert spec is not None
        const = node.name not in user_inputs
        tensor = lowering.fresh(known.get(node.name, node.name) if const else node.name)
        env[node] = Value(tensor, spec[0], spec[1], const)
        if not const:
            lowering.tensors[tensor] = TensorSpec(*spec)
            inputs.append(tensor)
    found = lowering.run(program.graph, env, values)
    kinds = [str(s.kind).rpartition(".")[2] for s in signature.output_specs]
    outputs = [v for v, kind in zip(found, kinds, strict=False) if kind == "USER_OUTPUT" and isinstance(v, Value)]
    if not outputs:
        raise InputError("the program gives out no tensor; return the result from forward")
    return lowering.frozen(inputs, outputs, strict)

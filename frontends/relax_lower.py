"""Walks a Relax function and emits the nodes of its graph.

The function's bindings are walked in order. Each Relax operator becomes the ONNX operator of the same meaning and goes
through the ONNX frontend's rule for it, so attributes and constants come out in one form whatever the language. Calls
of other Relax functions (fused, composite or plain) are inlined; calls of TIR functions are mapped back to operators by
`relax_tir`. What a frontend or a legalisation pass took apart is put together again by `relax_compose`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto

from costmodel.errors import InputError, LedgCostError, ShapeInferenceError
from costmodel.ir import AttrValue, Node
from frontends.onnx_lower import Lowering
from frontends.onnx_rules import Call, Result, registry
from frontends.onnx_values import Spec, Value
from frontends.relax_types import Symbols, constant, dims_of, kind, spec_of, specs_of

OPSET = 21
"""Version of the ONNX operators whose rules are used."""

_MALFORMED = (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, OverflowError, AttributeError)

Env = dict[int, Any]


class RelaxLowering(Lowering):
    """State of lowering one Relax module.

    functions  global functions by name
    symbols    sizes of symbolic dimensions
    opaque     operators kept without a lowering, and how often
    """

    def __init__(self, functions: Mapping[str, Any], rebatch: tuple[int, int] | None, symbols: Symbols) -> None:
        super().__init__(ModelProto(), None, rebatch)
        self.functions_by_name = functions
        self.symbols = symbols
        self.unknown: dict[str, int] = {}
        self.active: list[str] = []
        self.transposed: dict[str, Value] = {}
        self.scalars: dict[str, float] = {}
        self.constants: dict[int, Value] = {}
        self.tir_cache: dict[int, Any] = {}
        self.label = ""

    def use(self, value: Value | None) -> str:
        """As for ONNX; the content of one-element constants is noted for `compose`."""
        name = super().use(value)
        if value is not None and value.const and value.numel == 1 and value.content is not None:
            content = value.content.reshape(-1)[0]
            if content.dtype.kind in "fiub":
                self.scalars[name] = float(content)
        return name

    # Operators

    def apply(
        self, op: str, inputs: Sequence[Value | None], attrs: dict[str, Any] | None = None, outputs: int = 1
    ) -> list[Value]:
        """Lowers one ONNX operator through its rule."""
        names = [f"{self.label}.{i}" if outputs > 1 else self.label for i in range(outputs)]
        call = Call(self, op, "", OPSET, dict(attrs or {}), list(inputs), names, self.label)
        lowered = registry()["", op](call)
        if isinstance(lowered, list):
            return lowered
        kept = call.inputs if lowered.inputs is None else lowered.inputs
        return self.emit(lowered.op or op, kept, lowered.specs, lowered.attrs, (), self.label, lowered.opaque)

    def keep(self, result: Result) -> list[Value]:
        """Adds the node of a canonical form that has no ONNX rule."""
        return self.emit(
            result.op or "", result.inputs or [], result.specs, result.attrs, (), self.label, result.opaque
        )

    def opaque(
        self, op: str, inputs: Sequence[Value], specs: Sequence[Spec], attrs: dict[str, AttrValue] | None = None
    ) -> list[Value]:
        """Adds a node whose arithmetic is unknown."""
        self.unknown[op] = self.unknown.get(op, 0) + 1
        if self.rebatch is not None:
            raise ShapeInferenceError(f"the output shape of '{op}' at another batch is unknown")
        return self.emit(op, inputs, specs, attrs, (), self.label, opaque=True)

    # Expressions

    def evaluate(self, expr: Any, env: Env) -> Any:
        """An expression's `Value`, or a list (tuple), a tuple of ints (shape), a number, a text or a function."""
        name = kind(expr)
        method = getattr(self, f"_eval_{name.lower()}", None)
        if method is None:
            raise ShapeInferenceError(f"expressions of kind {name} cannot be lowered; simplify the program first")
        return method(expr, env)

    def _eval_var(self, expr: Any, env: Env) -> Any:
        key = expr.__chandle__()
        if key in env:
            return env[key]
        if self.symbols.known(expr):
            return self.symbols.value(expr)
        raise InputError(f"variable '{expr.name}' is not defined before its use; check the module is well formed")

    _eval_dataflowvar = _eval_var

    def _eval_genericconst(self, expr: Any, env: Env) -> Any:
        if kind(expr.ty) != "TensorType":
            return str(expr.value)
        key = expr.__chandle__()
        if key not in self.constants:
            self.constants[key] = constant(f"const{len(self.constants)}", expr.value, expr.ty)
        return self.constants[key]

    def _eval_constant(self, expr: Any, env: Env) -> Any:
        key = expr.__chandle__()
        if key not in self.constants:
            self.constants[key] = constant(f"const{len(self.constants)}", expr.data, expr.ty)
        return self.constants[key]

    def _eval_tuple(self, expr: Any, env: Env) -> list[Any]:
        return [self.evaluate(field, env) for field in expr.fields]

    def _eval_tuplegetitem(self, expr: Any, env: Env) -> Any:
        return self.evaluate(expr.tuple_value, env)[int(expr.index)]

    def _eval_shapeexpr(self, expr: Any, env: Env) -> tuple[int, ...]:
        return self.symbols.shape(expr.values)

    def _eval_primvalue(self, expr: Any, env: Env) -> Any:
        return self.evaluate(expr.value, env)

    def _eval_intimm(self, expr: Any, env: Env) -> int:
        return int(expr.value)

    def _eval_floatimm(self, expr: Any, env: Env) -> float:
        return float(expr.value)

    def _eval_stringimm(self, expr: Any, env: Env) -> str:
        return str(expr.value)

    _eval_datatypeimm = _eval_stringimm

    def _eval_externfunc(self, expr: Any, env: Env) -> str:
        return str(expr.global_symbol)

    def _eval_function(self, expr: Any, env: Env) -> Any:
        return expr, env

    def _eval_seqexpr(self, expr: Any, env: Env) -> Any:
        for block in expr.blocks:
            for binding in block.bindings:
                self._bind(binding, env)
        return self.evaluate(expr.body, env)

    def _bind(self, binding: Any, env: Env) -> None:
        self.label = str(binding.var.name)
        value = self.evaluate(binding.value, env)
        declared = binding.ty if kind(binding) == "MatchCast" else binding.var.ty
        if kind(binding) == "MatchCast":
            if isinstance(value, Value):
                self.symbols.match(declared, value.shape)
            elif isinstance(value, tuple):
                self.symbols.match(declared, value)
        self._trust(value, declared)
        env[binding.var.__chandle__()] = value

    def _trust(self, value: Any, declared: Any) -> None:
        """The program's own type wins over the rule's, except where the batch is replaced."""
        if self.rebatch is not None or not isinstance(value, Value) or kind(declared) != "TensorType":
            return
        if value.name in self.producers and dims_of(declared) is not None:
            spec = spec_of(declared, self.symbols)
            if spec is not None and spec != (value.shape, value.dtype):
                value.shape, value.dtype = spec
                self.tensors[value.name] = self.spec(*spec)

    @property
    def producers(self) -> set[str]:
        """Outputs of the last node, the only ones a binding may correct."""
        return set(self.nodes[-1].outputs) if self.nodes else set()

    def _eval_if(self, expr: Any, env: Env) -> Any:
        """Both branches are lowered and the costlier one is kept."""
        condition = self.evaluate(expr.cond, env)
        if isinstance(condition, Value) and condition.content is not None:
            return self.evaluate(expr.true_branch if condition.content.reshape(-1)[0] else expr.false_branch, env)
        start, found = len(self.nodes), []
        for branch in (expr.true_branch, expr.false_branch):
            value = self.evaluate(branch, dict(env))
            found.append((self.nodes[start:], value))
            del self.nodes[start:]
        nodes, value = max(found, key=lambda item: self._weight(item[0]))
        self.nodes.extend(nodes)
        return value

    def _weight(self, nodes: Sequence[Node]) -> tuple[int, int]:
        """Multiply-accumulates of products, and elements written."""
        macs = written = 0
        for node in nodes:
            size = sum(self.tensors[t].numel for t in node.outputs if t)
            written += size
            if node.op == "Conv":
                macs += size * math.prod(self.tensors[node.inputs[1]].shape[1:])
            elif node.op in ("MatMul", "Gemm"):
                macs += size * self.tensors[node.inputs[0]].shape[-1]
        return macs, written

    # Calls

    def _eval_call(self, expr: Any, env: Env) -> Any:
        callee = expr.op
        name = kind(callee)
        if name == "Op":
            return self._call_operator(str(callee.name), expr, env)
        if name == "ExternFunc":
            return self._external(str(callee.global_symbol), expr.args, env, specs_of(expr.ty, self.symbols))
        if name == "GlobalVar":
            function = self.functions_by_name.get(str(callee.name_hint))
            if function is None or kind(function) != "Function":
                what = "a function of another kind" if function is not None else "not in the module"
                raise InputError(f"the called '{callee.name_hint}' is {what}; pass the whole IRModule")
            return self.call(str(callee.name_hint), function, {}, [self.evaluate(a, env) for a in expr.args])
        function = self.evaluate(callee, env)
        if isinstance(function, tuple) and len(function) == 2:
            return self.call(f"{self.label}", function[0], function[1], [self.evaluate(a, env) for a in expr.args])
        raise InputError(f"'{expr}' calls something that is not a function; check the module is well formed")

    def call(self, name: str, function: Any, env: Env, arguments: Sequence[Any]) -> Any:
        """Inlines a Relax function; InputError for a recursive one."""
        if name in self.active:
            raise InputError(f"function '{name}' calls itself; pass the function of one step instead")
        inner = dict(env)
        for parameter, value in zip(function.params, arguments, strict=False):
            inner[parameter.__chandle__()] = value
            if isinstance(value, Value) and kind(parameter.ty) == "TensorType":
                self.symbols.match(parameter.ty, value.shape)
            elif isinstance(value, tuple) and kind(parameter.ty) == "ShapeType":
                self.symbols.match(parameter.ty, value)
        self.active.append(name)
        label, result = self.label, self.evaluate(function.body, inner)
        self.active.pop()
        self.label = label
        return result

    def _call_operator(self, op: str, expr: Any, env: Env) -> Any:
        from frontends.relax_rules import Operands
        from frontends.relax_rules import registry as relax_registry

        if op in ("relax.call_tir", "relax.call_tir_inplace", "relax.call_tir_with_grad", "relax.vm.call_tir_dyn"):
            return self._call_tir(expr, env)
        if op in ("relax.call_dps_packed", "relax.call_pure_packed", "relax.call_inplace_packed"):
            symbol = self.evaluate(expr.args[0], env)
            return self._external(str(symbol), expr.args[1:], env, self._declared(expr))
        operands = Operands(self, op, [self.evaluate(a, env) for a in expr.args], expr.attrs, expr.ty)
        rule = relax_registry().get(op.removeprefix("relax."))
        if rule is None:
            specs = self._declared(expr)
            if specs is None:
                raise ShapeInferenceError(f"the output shape of operator '{op}' is unknown; annotate its type")
            values = self.opaque(op, tensors_in(operands.args), specs)
            return values[0] if kind(expr.ty) != "TupleType" else values
        try:
            return rule(operands)
        except LedgCostError as error:
            if type(error) is not ShapeInferenceError or getattr(error, "placed", False):
                raise
            raise _placed(self.label, op, str(error)) from error
        except _MALFORMED as error:
            raise _placed(self.label, op, f"{type(error).__name__}: {error}") from error

    def _declared(self, expr: Any) -> list[Spec] | None:
        found = [specs_of(t, self.symbols) for t in expr.ty_args] or [specs_of(expr.ty, self.symbols)]
        return None if any(f is None for f in found) else [spec for part in found for spec in part or []]

    def _external(self, symbol: str, arguments: Sequence[Any], env: Env, specs: list[Spec] | None) -> Any:
        """A call of compiled code: bytes are known, arithmetic is not."""
        values = tensors_in([self.evaluate(a, env) for a in arguments])
        if specs is None:
            return []
        made = self.opaque(f"tvm.{symbol}", values, specs)
        return made[0] if len(made) == 1 else made

    def _call_tir(self, expr: Any, env: Env) -> Any:
        from frontends.relax_tir import lower_call

        specs = self._declared(expr)
        if specs is None:
            raise ShapeInferenceError(f"call of TIR function '{expr.args[0]}' has no known output type; annotate it")
        arguments = self.evaluate(expr.args[1], env)
        name = str(expr.args[0].name_hint) if kind(expr.args[0]) == "GlobalVar" else self.label
        operands = tensors_in(arguments if isinstance(arguments, list) else [arguments])
        sizes = self.evaluate(expr.args[2], env) if len(expr.args) > 2 else ()
        made = lower_call(self, name, self.functions_by_name.get(name), operands, specs, sizes)
        return made[0] if len(made) == 1 else made


def tensors_in(arguments: Sequence[Any]) -> list[Value]:
    """The tensors among evaluated arguments, tuples flattened, numbers left out."""
    found: list[Value] = []
    for argument in arguments:
        if isinstance(argument, Value):
            found.append(argument)
        elif isinstance(argument, list):
            found += tensors_in(argument)
    return found


def _placed(label: str, op: str, reason: str) -> ShapeInferenceError:
    fix = "" if ";" in reason else "; check its arguments or bind shapes with --shape"
    error = ShapeInferenceError(f"binding '{label}' ({op}): {' '.join(reason.split())}{fix}")
    error.placed = True  # type: ignore[attr-defined]
    return error

"""Relay → raw graph by evaluating the program on shapes.

Functions, closures, tuples, data types and references are gone afterwards: calls are inlined, matches and conditions
on known values decided. Where a condition is a run-time tensor both branches are evaluated; the one with more
multiply-accumulates (then, more elements written) counts, and an `If` node of no cost of its own lists both.
Recursion, steps and nodes are bounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from costmodel.errors import DynamicShapeError, InputError, ModelLoadError, ShapeInferenceError, UnsupportedOpError
from costmodel.ir import DType
from frontends import relay_ops_nn, relay_ops_pointwise, relay_ops_shape
from frontends.relay_ast import (
    Block,
    Call,
    Const,
    Ctor,
    Expr,
    Func,
    GlobalRef,
    If,
    Match,
    Module,
    OpRef,
    Pattern,
    Proj,
    TensorType,
    TupleExpr,
    TupleType,
    Type,
    Var,
    resolve,
)
from frontends.relay_fold import LIMIT, fold
from frontends.relay_ops import CONVERTERS, OpCall, Value
from frontends.relay_raw import RawNode, Recorder, Tensor, TensorVal, constant, to_dtype
from frontends.relay_relations import MISFITS, Site, misfit, solve
from frontends.relay_types import Rebatch, rebatch, repeats
from frontends.relay_typetools import full
from frontends.relay_values import (
    Cell,
    Choice,
    Closure,
    Data,
    Frame,
    Primitive,
    branch_cost,
    content_of,
    listing,
    static_shape,
    type_of,
)

_FILLED = (relay_ops_nn, relay_ops_pointwise, relay_ops_shape)  # importing them fills CONVERTERS

MAX_DEPTH = 60
MAX_STEPS = 200_000
MAX_LEAVES = 10_000


class Lowering:
    """Evaluates one entry function.

    shapes  types of constants that the program leaves open, by key
    """

    def __init__(
        self, module: Module, change: Rebatch | None = None, constants: dict[str, tuple[int, ...]] | None = None
    ) -> None:
        self.module, self.change = module, change
        self.constants = constants or {}
        self.to = Recorder()
        self.depth = self.steps = 0
        self.weights: dict[int, Tensor] = {}
        self.branches = 0
        self.sizes: dict[int, tuple[int, list[Value]]] = {}

    def run(self, name: str) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters and results of the entry function, as tensors."""
        func = self.module.functions[name]
        frame = Frame()
        inputs: list[Tensor] = []
        for i, param in enumerate(func.params):
            frame.values[param] = self._parameter(full(param.ty), param.name or f"p{i}", inputs)
        result = self.expr(func.body, frame)
        return inputs, [self.to.from_ir(v) for v in self._leaves(result)]

    def _parameter(self, ty: Type, name: str, inputs: list[Tensor]) -> Value:
        if isinstance(ty, TupleType):
            return [self._parameter(f, f"{name}.{i}", inputs) for i, f in enumerate(ty.fields)]
        if not isinstance(ty, TensorType):
            raise ShapeInferenceError(f"Relay: parameter %{name} has type {ty}; give it a tensor type")
        made = Tensor(static_shape(ty, f"parameter %{name}"), to_dtype(ty.dtype), "main", name)
        inputs.append(made)
        return TensorVal(made)

    def _leaves(self, value: Value) -> list[TensorVal]:
        """The tensors of a value, from left to right."""
        found: list[TensorVal] = []
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, TensorVal):
                found.append(item)
            elif isinstance(item, list):
                waiting += reversed(item)
            elif isinstance(item, Data) and item.fields is not None:
                waiting += reversed(item.fields)
            elif isinstance(item, Cell):
                waiting.append(item.value)
            else:
                raise InputError("the Relay program returns a function; give an entry function that returns tensors")
            if len(found) + len(waiting) > MAX_LEAVES:
                raise InputError("the Relay program returns too many tensors; give a smaller entry function")
        return found

    # expressions

    def expr(self, e: Expr, frame: Frame) -> Value:
        """The value of an expression."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise InputError(f"the Relay program takes more than {MAX_STEPS} steps to unroll; bound its recursion")
        if isinstance(e, Var):
            return self._lookup(e, frame)
        if isinstance(e, Call):
            return self._call(e, frame)
        if isinstance(e, Const):
            return self._constant(e)
        if isinstance(e, TupleExpr):
            return self._tuple([self.expr(f, frame) for f in e.fields])
        if isinstance(e, Proj):
            return self._project(self.expr(e.tuple, frame), e.index)
        if isinstance(e, Block):
            return self._block(e, frame)
        if isinstance(e, Func):
            return Closure(e, frame)
        if isinstance(e, If):
            return self._if(e, frame)
        if isinstance(e, Match):
            return self._match(self.expr(e.data, frame), e, frame)
        if isinstance(e, GlobalRef):
            func = self.module.functions.get(e.name)
            if func is None:
                raise ModelLoadError(f"Relay: @{e.name} is not defined; add it to the module")
            return Closure(func, None)
        if isinstance(e, Ctor):
            return Data(e.name, None)
        assert isinstance(e, OpRef)
        return Primitive(e.name)

    def _tuple(self, fields: list[Value]) -> list[Value]:
        """A tuple; raises InputError if it would be huge when spelt out, as tuples of the same tuple are."""
        size = sum(self.sizes.get(id(v), (1, None))[0] if isinstance(v, list) else 1 for v in fields)
        if size > MAX_LEAVES:
            raise InputError(f"the Relay program makes a tuple of more than {MAX_LEAVES} values; use fewer")
        self.sizes[id(fields)] = (size, fields)
        return fields

    def _lookup(self, var: Var, frame: Frame | None) -> Value:
        while frame is not None:
            if var in frame.values:
                return frame.values[var]
            frame = frame.outer
        raise ModelLoadError(f"Relay: %{var.name} is used outside its scope; define it before its use")

    def _constant(self, e: Const) -> TensorVal:
        ty = full(e.ty) if e.type is None else e.type
        if not isinstance(ty, TensorType):
            shape = self.constants.get(e.key)
            if shape is None:
                raise ShapeInferenceError(
                    f"Relay: the type of {e.key or 'a constant'} is not in the text; print the module with metadata,"
                    f" keep its type comments, or give --shape '{e.key}=…'"
                )
            ty = TensorType(shape, "float32")
        made = self.weights.get(id(e))
        if made is None:
            made = constant(static_shape(ty, e.key or "a constant"), to_dtype(ty.dtype), e.value, e.key)
            self.weights[id(e)] = made
        return TensorVal(made)

    def _project(self, value: Value, index: int) -> Value:
        if not isinstance(value, list) or index >= len(value):
            raise ShapeInferenceError(f"Relay: a value without field {index} is projected; correct the index")
        return value[index]

    def _block(self, e: Block, frame: Frame) -> Value:
        for var, value in e.steps:
            self.to.place = var.name
            frame.values[var] = self.expr(value, frame)
        return self.expr(e.result, frame)

    # calls

    def _call(self, e: Call, frame: Frame) -> Value:
        args = [self.expr(a, frame) for a in e.args]
        if isinstance(e.fn, OpRef):
            return self._operator(e.fn.name, args, e.attrs, e)
        return self.apply(self.expr(e.fn, frame), args, e)

    def apply(self, fn: Value, args: list[Value], e: Call) -> Value:
        """Calls a function, closure, constructor or operator."""
        if isinstance(fn, Closure):
            if len(fn.func.params) != len(args):
                raise InputError(
                    f"Relay: a function of {len(fn.func.params)} parameters gets {len(args)}; correct the call"
                )
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise InputError(
                    f"the Relay program calls deeper than {MAX_DEPTH}, or recursion depends on run-time data; unroll it"
                )
            inner = Frame(fn.frame, dict(zip(fn.func.params, args, strict=True)))
            result = self.expr(fn.func.body, inner)
            self.depth -= 1
            return result
        if isinstance(fn, Data) and fn.fields is None:
            return Data(fn.ctor, args)
        if isinstance(fn, Primitive):
            return self._operator(fn.name, args, {}, e)
        if isinstance(fn, Choice):
            return self._branch(fn.cond, lambda: self.apply(fn.then, args, e), lambda: self.apply(fn.other, args, e))
        raise InputError("Relay: a value that is no function is called; correct the call")

    def _operator(self, op: str, args: list[Value], attrs: dict[str, Any], e: Call) -> Value:
        if op == "ref" and args:
            return Cell(args[0])
        if op in ("ref_read", "ref_write") and args and isinstance(args[0], Cell):
            if op == "ref_read":
                return args[0].value
            args[0].value = args[1] if len(args) > 1 else None
            return []
        values = [content_of(a) for a in args]
        site = Site(op, [type_of(a) for a in args], attrs, values)
        if self.change is not None:
            try:
                args = self._repeated(site, args)
                rebatch(site, self.change)
            except MISFITS as error:
                raise misfit(op, error) from None
        ty = self._result_type(site, e)
        folded = self._folded(site, args, ty)
        if folded is not None:
            return folded
        rule = CONVERTERS.get(op)
        if rule is None:
            return self._opaque(op, args, ty)
        try:
            return rule(OpCall(op, args, site, ty, self.to))
        except MISFITS as error:
            raise misfit(op, error) from None

    def _repeated(self, site: Site, args: list[Value]) -> list[Value]:
        """Arguments of a concatenation, parts of the old batch repeated."""
        assert self.change is not None
        parts = args[0] if site.op == "concatenate" and args and isinstance(args[0], list) else []
        if not parts or not all(isinstance(v, TensorVal) for v in parts):
            return args
        made = list(parts)
        for i in repeats(site, self.change, [v.shape for v in parts]):
            x = self.to.from_ir(parts[i])
            made[i] = TensorVal(self.to.one("Expand", [x], (self.change.new, *x.shape[1:]), x.dtype))
        return [made, *args[1:]]

    def _result_type(self, site: Site, e: Call) -> Type:
        found = full(solve(site) or (e.ty if self.change is None else None))
        for part in found.fields if isinstance(found, TupleType) else (found,):
            part = resolve(part) or part
            if not isinstance(part, TensorType):
                raise UnsupportedOpError(
                    f"Relay: the type of {site.op} is not known; keep the type comments in the text (astext() after"
                    " InferType)",
                    {site.op: 1},
                )
            if None in part.shape:
                raise DynamicShapeError(
                    f"Relay: the shape {part} of {site.op} depends on run-time data; export it with static shapes"
                )
        return found

    def _folded(self, site: Site, args: list[Value], ty: Type) -> TensorVal | None:
        """A constant result of small constants, or of shapes alone."""
        if not isinstance(ty, TensorType):
            return None
        shape, dtype = tuple(d or 0 for d in ty.shape), to_dtype(ty.dtype)
        if int(np.prod(shape, dtype=object)) > LIMIT or dtype in (
            DType.BFLOAT16,
            DType.FLOAT8,
            DType.INT4,
            DType.UINT4,
        ):
            return None
        if site.op in ("shape_of", "vm.shape_of", "ndarray_size") and isinstance(args[0], TensorVal):
            dims = args[0].shape
            content: Any = int(np.prod(dims, dtype=object)) if site.op == "ndarray_size" else list(dims)
            return TensorVal(constant(shape, dtype, content))
        leaves: list[Value] = []
        for arg in args:
            leaves += arg if isinstance(arg, list) else [arg]
        inputs = [v.tensor.value for v in leaves if isinstance(v, TensorVal) and v.layout is None]
        known = [v for v in inputs if v is not None]
        if len(known) != len(leaves) or any(v.size > LIMIT for v in known):
            return None
        try:
            found = fold(site, known, shape, np.dtype(dtype.value))
        except MISFITS:
            return None
        return None if found is None else TensorVal(constant(shape, dtype, found))

    def _opaque(self, op: str, args: list[Value], ty: Type) -> Value:
        inputs = [self.to.from_ir(v) for a in args for v in self._leaves(a)]
        parts = ty.fields if isinstance(ty, TupleType) else (ty,)
        specs = [(static_shape(t, op), to_dtype(t.dtype)) for t in map(resolve, parts) if isinstance(t, TensorType)]
        made = [TensorVal(t) for t in self.to.emit(f"relay.{op}", inputs, specs, opaque=True)]
        return made if isinstance(ty, TupleType) else made[0]

    # control flow

    def _match(self, data: Value, e: Match, frame: Frame) -> Value:
        if isinstance(data, Choice):
            then, other = data.then, data.other
            return self._branch(data.cond, lambda: self._match(then, e, frame), lambda: self._match(other, e, frame))
        for pattern, body in e.clauses:
            if self._binds(pattern, data, frame):
                return self.expr(body, frame)
        raise InputError("Relay: no pattern of a match fits its value; add a clause for it")

    def _binds(self, pattern: Pattern, value: Value, frame: Frame) -> bool:
        if pattern.var is not None:
            frame.values[pattern.var] = value
            return True
        if pattern.is_tuple:
            if not isinstance(value, list) or len(value) != len(pattern.parts):
                return False
            return all(self._binds(p, v, frame) for p, v in zip(pattern.parts, value, strict=True))
        if pattern.ctor is None:
            return True
        if not isinstance(value, Data) or value.fields is None:
            raise InputError("Relay: a match needs data that only run time knows; build the data in the program")
        if value.ctor != pattern.ctor or len(value.fields) != len(pattern.parts):
            return False
        return all(self._binds(p, v, frame) for p, v in zip(pattern.parts, value.fields, strict=True))

    def _if(self, e: If, frame: Frame) -> Value:
        cond = self.expr(e.cond, frame)
        if not isinstance(cond, TensorVal):
            raise ShapeInferenceError("Relay: the condition of an if is no tensor; compare tensors")
        if cond.tensor.value is not None and cond.tensor.numel == 1:
            chosen = e.then if bool(cond.tensor.value.reshape(-1)[0]) else e.other
            return self.expr(chosen, frame)
        return self._branch(cond, lambda: self.expr(e.then, Frame(frame)), lambda: self.expr(e.other, Frame(frame)))

    def _branch(self, cond: TensorVal, then: Any, other: Any) -> Value:
        """Evaluates both branches, keeps the nodes of the costlier, joins the results."""
        self.branches += 1
        label, place, before, moved = f"if{self.branches}", self.to.place, self.to.nodes, self.to.moved
        depth = self.depth
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InputError(f"Relay: branches and calls nest deeper than {MAX_DEPTH}; recursion on run-time data?")
        runs: list[tuple[list[RawNode], Value]] = []
        for name, evaluate in (("then", then), ("else", other)):
            self.to.nodes, self.to.place, self.to.moved = [], f"{label}.{name}", {}
            value = evaluate()
            for node in self.to.nodes:
                node.name = node.name if node.name.startswith(label) else f"{label}.{name}/{node.name}"
            runs.append((self.to.nodes, value))
        self.to.nodes, self.to.place, self.to.moved, self.depth = before, place, moved, depth
        costs = [branch_cost(nodes) for nodes, _ in runs]
        picked = 0 if costs[0] >= costs[1] else 1
        before += runs[picked][0]
        attrs = {
            "then_branch": listing(runs[0][0]),
            "else_branch": listing(runs[1][0]),
            "counted": ("then", "else")[picked],
        }
        return self._joined(cond, runs[picked][1], runs[1 - picked][1], runs[0][1], runs[1][1], attrs)

    def _joined(
        self, cond: TensorVal, kept: Value, left: Value, then: Value, other: Value, attrs: dict[str, Any]
    ) -> Value:
        if isinstance(kept, TensorVal) and isinstance(left, TensorVal):
            x = self.to.from_ir(kept)
            test = self.to.from_ir(cond)
            return TensorVal(self.to.emit("If", [x, test], [(x.shape, x.dtype)], attrs)[0])
        if isinstance(kept, list) and isinstance(left, list) and len(kept) == len(left):
            return [self._joined(cond, k, a, t, o, attrs) for k, a, t, o in zip(kept, left, then, other, strict=True)]
        if kept is left:
            return kept
        return Choice(cond, then, other)

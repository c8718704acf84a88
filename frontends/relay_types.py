"""Type inference for Relay: unification over expressions, and a worklist of operator relations.

Declared types and generics are instantiated as in ML; a call of an operator becomes a constraint that is solved once
its arguments are known, and may in turn give types to weights and constants that lack one. What the program does not
determine stays a `Hole`; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from costmodel.errors import ModelLoadError, ShapeInferenceError
from frontends import relay_relations_nn, relay_relations_pointwise, relay_relations_shape
from frontends.relay_ast import (
    Block,
    Call,
    Const,
    Ctor,
    Dim,
    Expr,
    Func,
    FuncType,
    GlobalRef,
    Hole,
    If,
    Match,
    Module,
    NamedType,
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
from frontends.relay_relations import MISFITS, RELATIONS, Site, Waiting, misfit, product, solve
from frontends.relay_typetools import MAX_TYPE_DEPTH, MAX_TYPE_NODES, agree, full, has_shape, occurs, substitute

_FILLED = (relay_relations_nn, relay_relations_pointwise, relay_relations_shape)  # importing them fills RELATIONS

_SHAPED = {"reshape": "newshape", "broadcast_to": "shape", "zeros": "shape", "ones": "shape", "full": "shape"}


@dataclass(frozen=True, slots=True)
class Rebatch:
    """A change of input shapes: declared types no longer hold, and literal shapes that begin with `old` follow."""

    old: int | None
    new: int


def rebatch(site: Site, change: Rebatch) -> None:
    """Lets a literal shape that begins with the old batch begin with the new one, where the element count needs it."""
    if site.op == "concatenate":
        _repeatparts(site, change)
        return
    name = _SHAPED.get(site.op)
    wanted: Any = site.attrs.get(name) if name else None
    if change.old is None or not isinstance(wanted, list) or not wanted or wanted[0] != change.old:
        return
    if site.op == "reshape":
        data = site.tensor(0)
        ambiguous = -1 in wanted and data.shape[:1] == (change.new,)
        if not ambiguous and (-1 in wanted or product(data.shape) == product(wanted)):
            return
    site.attrs = {**site.attrs, name: [change.new, *wanted[1:]]}  # type: ignore[dict-item]


def repeats(site: Site, change: Rebatch, shapes: list[tuple[Dim, ...]]) -> list[int]:
    """Which parts of a concatenation still have the old batch (a class token, say) while others have the new one."""
    if change.old is None or not shapes or site.axis(len(shapes[0]), default=0) == 0:
        return []
    if not any(shape[:1] == (change.new,) for shape in shapes):
        return []
    return [i for i, shape in enumerate(shapes) if shape[:1] == (change.old,)]


def _repeatparts(site: Site, change: Rebatch) -> None:
    parts = site.tensors(0)
    found = repeats(site, change, [p.shape for p in parts])
    made = [TensorType((change.new, *p.shape[1:]), p.dtype) if i in found else p for i, p in enumerate(parts)]
    site.types = [TupleType(tuple(made)), *site.types[1:]]


class Inference:
    """Infers the types of a module; afterwards every visited expression's `ty` holds (perhaps through holes) its type.

    change  batch size to rebind to: then only main's parameters keep their declared shapes
    """

    def __init__(self, module: Module, change: Rebatch | None = None) -> None:
        self.module, self.change = module, change
        self.signatures: dict[str, FuncType] = {}
        self.running: set[str] = set()
        self.pending: list[tuple[Callable[[], bool], str]] = []
        self.bound: dict[Var, Expr] = {}
        self.place = ""
        self.fuel = MAX_TYPE_NODES

    def run(self, names: list[str] | None = None) -> None:
        """Infers the named functions (all by default) and those they call.

        Raises ShapeInferenceError where types contradict each other.
        """
        for name in names or list(self.module.functions):
            self.signature(name)
        self.solve()

    def solve(self) -> None:
        """Solves constraints until nothing moves."""
        moved = True
        while moved and self.pending:
            waiting, self.pending = self.pending, []
            moved = False
            for attempt, place in waiting:
                self.place = place
                if attempt():
                    moved = True
                else:
                    self.pending.append((attempt, place))

    def fail(self, message: str) -> ShapeInferenceError:
        """An error that says where it happened."""
        where = f" at %{self.place}" if self.place else ""
        return ShapeInferenceError(f"Relay{where}: {message}; correct the program or drop the declared type")

    # unification

    def unify(self, a: Type | None, b: Type | None, depth: int = 0) -> None:
        """Makes two types equal; `?` agrees with every length."""
        a, b = resolve(a), resolve(b)
        if a is b or a is None or b is None:
            return
        self.fuel = MAX_TYPE_NODES if depth == 0 else self.fuel - 1
        if depth > MAX_TYPE_DEPTH or self.fuel < 0:
            raise ShapeInferenceError("Relay: a type is too large or contains itself; simplify the program")
        if isinstance(a, Hole):
            if not occurs(a, b):
                a.to = b
            return
        if isinstance(b, Hole):
            self.unify(b, a, depth)
            return
        if isinstance(a, TensorType) and isinstance(b, TensorType):
            if a.dtype == b.dtype and len(a.shape) == len(b.shape) and all(map(agree, a.shape, b.shape)):
                return
        elif isinstance(a, TupleType) and isinstance(b, TupleType) and len(a.fields) == len(b.fields):
            for x, y in zip(a.fields, b.fields, strict=True):
                self.unify(x, y, depth + 1)
            return
        elif isinstance(a, FuncType) and isinstance(b, FuncType) and len(a.params) == len(b.params):
            for x, y in zip((*a.params, a.ret), (*b.params, b.ret), strict=True):
                self.unify(x, y, depth + 1)
            return
        elif isinstance(a, NamedType) and isinstance(b, NamedType) and (a.name, len(a.args)) == (b.name, len(b.args)):
            for x, y in zip(a.args, b.args, strict=True):
                self.unify(x, y, depth + 1)
            return
        raise self.fail(f"{full(a)} and {full(b)} do not agree")

    def instantiate(self, ty: FuncType) -> FuncType:
        """A function type with fresh holes for its type parameters."""
        if not ty.generics:
            return ty
        mapping: dict[str, Type] = {name: Hole() for name in ty.generics}
        bare = FuncType(ty.params, ty.ret)
        made = substitute(bare, mapping)
        assert isinstance(made, FuncType)
        return made

    def declared(self, ty: Type | None) -> Type:
        """A declared type, or a hole where there is none or a new batch size overrules it."""
        if ty is None or (self.change is not None and has_shape(ty)):
            return Hole()
        return ty

    # functions

    def signature(self, name: str) -> FuncType:
        """The type of a global function, inferring it first unless that is under way."""
        if name in self.signatures:
            return self.signatures[name]
        func = self.module.functions.get(name)
        if func is None:
            raise ModelLoadError(f"Relay: @{name} is not defined; add it to the module")
        main = name == "main"
        params = tuple((p.annotation or Hole()) if main else self.declared(p.annotation) for p in func.params)
        made = FuncType(params, self.declared(func.ret), func.generics)
        self.signatures[name] = made
        place, self.place = self.place, ""
        self.enter(func, made)
        self.solve()
        self.place = place
        return made

    def enter(self, func: Func, ty: FuncType) -> None:
        """Infers a function's body under its signature."""
        for param, declared in zip(func.params, ty.params, strict=True):
            param.ty = declared
        func.ty = ty
        self.unify(ty.ret, self.expr(func.body))

    # expressions

    def expr(self, e: Expr) -> Type:
        """The type of an expression, a hole where it is not known yet."""
        if isinstance(e, Var):
            if e.ty is None:
                e.ty = self.declared(e.annotation)
            return e.ty
        found = self._expr(e)
        e.ty = found
        return found

    def _expr(self, e: Expr) -> Type:
        if isinstance(e, Call):
            return self._call(e)
        if isinstance(e, Const):
            return e.ty or e.type or Hole()
        if isinstance(e, TupleExpr):
            made = TupleType(tuple(self.expr(f) for f in e.fields))
            return made if len(e.fields) < 2 else full(made)
        if isinstance(e, Proj):
            return self._project(e)
        if isinstance(e, Block):
            return self._block(e)
        if isinstance(e, Func):
            fn = FuncType(tuple(self.declared(p.annotation) for p in e.params), self.declared(e.ret), e.generics)
            self.enter(e, fn)
            return fn
        if isinstance(e, If):
            self.expr(e.cond)
            then = self.expr(e.then)
            self.unify(then, self.expr(e.other))
            return then
        if isinstance(e, Match):
            return self._match(e)
        if isinstance(e, GlobalRef):
            return self.instantiate(self.signature(e.name))
        if isinstance(e, Ctor):
            return self.constructor(e.name)
        return Hole()

    def _block(self, e: Block) -> Type:
        for var, value in e.steps:
            self.place = var.name
            ty = self.expr(value)
            var.ty = self.declared(var.annotation)
            self.unify(var.ty, ty)
            self.bound[var] = value
        return self.expr(e.result)

    def constructor(self, name: str) -> FuncType:
        """The type of a data type's constructor, its parameters fresh."""
        known = self.module.ctors.get(name)
        if known is None:
            raise ModelLoadError(f"Relay: no data type has a constructor '{name}'; declare its type")
        result = NamedType(known.adt, tuple(NamedType(g) for g in known.generics))
        return self.instantiate(FuncType(known.inputs, result, known.generics))

    def _project(self, e: Proj) -> Type:
        of, result = self.expr(e.tuple), Hole()

        def attempt() -> bool:
            ty = resolve(of)
            if isinstance(ty, Hole):
                return False
            if not isinstance(ty, TupleType) or e.index >= len(ty.fields):
                raise self.fail(f"{full(ty)} has no field {e.index}")
            self.unify(result, ty.fields[e.index])
            return True

        self._later(attempt)
        return resolve(result) or result

    def _later(self, attempt: Callable[[], bool]) -> None:
        if not attempt():
            self.pending.append((attempt, self.place))

    def _match(self, e: Match) -> Type:
        data, result = self.expr(e.data), Hole()
        for pattern, body in e.clauses:
            self.unify(data, self._pattern(pattern))
            self.unify(result, self.expr(body))
        return resolve(result) or result

    def _pattern(self, p: Pattern) -> Type:
        if p.var is not None:
            p.var.ty = self.declared(p.var.annotation)
            return p.var.ty
        if p.is_tuple:
            return TupleType(tuple(self._pattern(part) for part in p.parts))
        if p.ctor is None:
            return Hole()
        ty = self.constructor(p.ctor)
        if len(p.parts) != len(ty.params):
            raise self.fail(f"constructor '{p.ctor}' has {len(ty.params)} fields, the pattern {len(p.parts)}")
        for part, param in zip(p.parts, ty.params, strict=True):
            self.unify(param, self._pattern(part))
        return ty.ret

    def _call(self, e: Call) -> Type:
        args = [self.expr(a) for a in e.args]
        if isinstance(e.fn, OpRef):
            return self._operator(e, e.fn.name, args)
        fn = resolve(self.expr(e.fn))
        result = Hole()
        if isinstance(fn, FuncType):
            fn = self.instantiate(fn)
            if len(fn.params) != len(args):
                raise self.fail(f"a function of {len(fn.params)} parameters is called with {len(args)} arguments")
            for param, arg in zip(fn.params, args, strict=True):
                self.unify(param, arg)
            return fn.ret
        self.unify(fn, FuncType(tuple(args), result))
        return resolve(result) or result

    def _operator(self, e: Call, op: str, args: list[Type]) -> Type:
        if op == "ref" and args:
            return NamedType("ref", (args[0],))
        if op == "ref_read" and args:
            inner = Hole()
            self.unify(args[0], NamedType("ref", (inner,)))
            return inner
        if op == "ref_write":
            return TupleType(())
        if op not in RELATIONS:
            return e.note if e.note is not None and self.change is None else Hole()
        result = Hole()

        def attempt() -> bool:
            values = [self.constant(a) for a in e.args]
            site = Site(op, list(args), e.attrs, values)
            try:
                ty = solve(site) if self.change is None else self._rebatched(site, self.change)
            except ShapeInferenceError as error:
                where = f" (at %{self.place})" if self.place else ""
                raise ShapeInferenceError(str(error).replace(";", f"{where};", 1)) from None
            for i, dictated in site.assigned.items():
                self.unify(args[i], dictated)
            if ty is None:
                return False
            self.unify(result, ty)
            return True

        self._later(attempt)
        return resolve(result) or result

    @staticmethod
    def _rebatched(site: Site, change: Rebatch) -> Type | None:
        try:
            rebatch(site, change)
        except Waiting:
            return None
        except MISFITS as error:
            raise misfit(site.op, error) from None
        return solve(site)

    def constant(self, e: Expr) -> Any:
        """The content of an argument that is a small constant, directly or through bindings."""
        for _ in range(100):
            if isinstance(e, Const):
                return e.value
            if isinstance(e, Call) and isinstance(e.fn, OpRef) and e.fn.name in ("on_device", "cast") and e.args:
                e = e.args[0]
            elif isinstance(e, Var) and e in self.bound:
                e = self.bound[e]
            else:
                return None
        return None

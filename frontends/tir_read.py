"""Reads a TIR PrimFunc into plain Python: buffers, and a tree of loops and blocks.

Only fields of live TVM objects are read; TVM is never imported. Index expressions become affine forms where they are
affine in loop variables and block axes. Shared by the loop graph (`tir_lower`) and by the mapping of TIR calls back to
operators (`relax_tir`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from costmodel.errors import InputError
from frontends.relax_types import dtype_of

SERIAL, PARALLEL, VECTORIZED, UNROLLED, THREAD = "serial", "parallel", "vectorized", "unrolled", "thread"
_KINDS = {0: SERIAL, 1: PARALLEL, 2: VECTORIZED, 3: UNROLLED, 4: THREAD}
_AXIS_KINDS = {0: "S", 2: "R"}

Affine = tuple[dict[int, int], int]
"""Coefficient per variable handle, and the constant."""


@dataclass(slots=True)
class Buffer:
    """A buffer: identity, name, sizes, element type and memory scope; elements in all, and bytes of each."""

    key: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scope: str
    elements: int = field(init=False)
    element_bytes: float = field(init=False)

    def __post_init__(self) -> None:
        self.elements = math.prod(self.shape)
        self.element_bytes = dtype_of(self.dtype).bytes


@dataclass(slots=True)
class Loop:
    """A loop: identity of its variable, extent, kind, thread axis if bound, annotations, and what it holds."""

    key: int
    name: str
    extent: int
    kind: str
    thread: str = ""
    annotations: dict[str, Any] = field(default_factory=dict)
    body: list[Loop | Block] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Axis:
    """A block axis: identity of its variable, extent, kind (S spatial, R reduction, O opaque)."""

    key: int
    extent: int
    kind: str


@dataclass(slots=True)
class Block:
    """A block.

    axes      its axes, and the loop expression bound to each in `bindings`
    stores    (buffer key, index expressions, value expression) of each store, in order
    init      stores that start a reduction
    lets      variable handle → expression, of names bound inside
    opaque    holds calls of intrinsics or buffers of its own; `reads` and `writes` are then its regions
    body      loops and blocks inside, if it is a block of blocks
    """

    name: str
    axes: list[Axis]
    bindings: list[Any]
    stores: list[tuple[int, Any, Any]] = field(default_factory=list)
    init: list[tuple[int, Any, Any]] = field(default_factory=list)
    lets: dict[int, Any] = field(default_factory=dict)
    reads: list[tuple[int, Any]] = field(default_factory=list)
    writes: list[tuple[int, Any]] = field(default_factory=list)
    annotations: dict[str, Any] = field(default_factory=dict)
    opaque: bool = False
    body: list[Loop | Block] = field(default_factory=list)


@dataclass(slots=True)
class Program:
    """A PrimFunc: parameter buffers in order, the outermost loops and blocks, and all its buffers."""

    name: str
    params: list[Buffer]
    body: list[Loop | Block]
    buffers: dict[int, Buffer]
    lookup: Callable[[Any], Buffer]

    def key(self, variable: Any) -> int:
        """Identity of the buffer behind a buffer variable."""
        return self.lookup(variable).key

    def blocks(self) -> Iterator[Block]:
        """Every block that stores something, in program order."""
        yield from _leaves(self.body)


def _leaves(items: list[Loop | Block]) -> Iterator[Block]:
    for item in items:
        if isinstance(item, Block) and (item.stores or item.opaque):
            yield item
        yield from _leaves(item.body)


Resolve = Callable[[Any], int]


def integer(expr: Any) -> int:
    """Value of a constant integer expression; InputError for a symbolic one."""
    value = getattr(expr, "value", expr)
    if isinstance(value, int):
        return int(value)
    raise InputError(f"the TIR program has a symbolic size '{expr}'; bind it before lowering")


class Reader:
    """Walks one PrimFunc. `resolve` turns a size expression into a number."""

    def __init__(self, resolve: Resolve = integer) -> None:
        self.resolve = resolve
        self.buffers: dict[int, Buffer] = {}
        self.aliases: dict[int, Any] = {}

    def program(self, function: Any, name: str = "") -> Program:
        """Reads a PrimFunc."""
        params = [self.buffer(p) for p in function.params if type(p.ty).__name__ == "BufferType"]
        body = self.statement(function.body)
        if len(body) == 1 and isinstance(body[0], Block) and not body[0].stores and not body[0].axes:
            body = body[0].body
        return Program(name, params, body, self.buffers, self.buffer)

    def buffer(self, variable: Any) -> Buffer:
        """The buffer of a buffer variable; a view (`match_buffer`) is the buffer it looks into."""
        key = variable.__chandle__()
        if key in self.aliases:
            return self.buffer(self.aliases[key])
        found = self.buffers.get(key)
        if found is None:
            declared = variable.ty
            shape = tuple(self.resolve(d) for d in declared.shape)
            dtype = str(declared.dtype)
            found = self.buffers[key] = Buffer(key, str(variable.name), shape, dtype, str(declared.storage_scope))
        return found

    def statement(self, stmt: Any) -> list[Loop | Block]:
        """Loops and blocks of a statement outside blocks."""
        kind = type(stmt).__name__
        if kind == "For":
            return [self.loop(stmt)]
        if kind == "SBlockRealize":
            return [self.block(stmt)]
        if kind == "SeqStmt":
            return [item for part in stmt.seq for item in self.statement(part)]
        if kind in ("AttrStmt", "While"):
            return self.statement(stmt.body)
        if kind == "IfThenElse":
            other = self.statement(stmt.else_case) if stmt.else_case is not None else []
            return self.statement(stmt.then_case) + other
        if kind in ("Evaluate", "BufferStore", "Bind"):
            found = Block("", [], [])
            self._collect(stmt, found, found.stores)
            return [found] if found.stores or found.opaque else []
        return []

    def loop(self, stmt: Any) -> Loop:
        """A loop and what it holds."""
        kind = _KINDS.get(int(stmt.kind), SERIAL)
        binding = stmt.thread_binding
        thread = str(binding.thread_tag) if binding is not None else ""
        notes = stmt.annotations
        annotations = {str(k): _plain(v) for k, v in notes.items()} if notes else {}
        variable = stmt.loop_var
        found = Loop(variable.__chandle__(), str(variable.name), self.resolve(stmt.extent), kind, thread, annotations)
        found.body = self.statement(stmt.body)
        return found

    def block(self, realize: Any) -> Block:
        """A block and what it holds."""
        stmt = realize.block
        axes = [
            Axis(v.var.__chandle__(), self.resolve(v.dom.extent), _AXIS_KINDS.get(int(v.iter_type), "O"))
            for v in stmt.iter_vars
        ]
        notes = stmt.annotations
        found = Block(str(stmt.name_hint), axes, list(realize.iter_values))
        found.annotations = {str(k): _plain(v) for k, v in notes.items()} if notes else {}
        for match in stmt.match_buffers:
            self.aliases[match.buffer.__chandle__()] = source_of(match.source)
        if stmt.init is not None:
            self._collect(stmt.init, found, found.init)
        if axes or not self._is_scope(stmt.body):
            self._collect(stmt.body, found, found.stores)
        else:
            found.body = self.statement(stmt.body)
        if found.opaque:
            found.reads = [(self.buffer(source_of(r)).key, r.region) for r in stmt.reads]
            found.writes = [(self.buffer(source_of(w)).key, w.region) for w in stmt.writes]
        return found

    def _is_scope(self, stmt: Any) -> bool:
        """Whether a statement holds loops or blocks."""
        kind = type(stmt).__name__
        if kind == "SeqStmt":
            return any(self._is_scope(part) for part in stmt.seq)
        return kind in ("For", "SBlockRealize", "AttrStmt", "AllocBuffer", "IfThenElse")

    def _collect(self, stmt: Any, block: Block, stores: list[tuple[int, Any, Any]]) -> None:
        """Stores of a block's own statement; nested loops and blocks become its body."""
        kind = type(stmt).__name__
        if kind == "BufferStore":
            stores.append((self.buffer(stmt.buffer).key, stmt.indices, stmt.value))
        elif kind == "SeqStmt":
            for part in stmt.seq:
                self._collect(part, block, stores)
        elif kind == "Bind":
            block.lets[stmt.var.__chandle__()] = stmt.value
        elif kind in ("For", "SBlockRealize"):
            block.body += self.statement(stmt)
        elif kind == "IfThenElse":
            self._collect(stmt.then_case, block, stores)
            if stmt.else_case is not None:
                self._collect(stmt.else_case, block, stores)
        elif kind in ("AttrStmt", "While"):
            self._collect(stmt.body, block, stores)
        elif kind == "AllocBuffer":
            block.opaque = True
        elif kind == "DeclBuffer" or (kind == "Evaluate" and type(stmt.value).__name__ == "IntImm"):
            return
        else:
            block.opaque = True


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    inner = getattr(value, "value", None)
    if isinstance(inner, (bool, int, float, str)):
        return inner
    if hasattr(value, "__len__"):
        return tuple(_plain(v) for v in value)
    return str(value)


def affine(expr: Any) -> Affine | None:
    """An index as a sum of variables times constants, or None if it is not."""
    kind = type(expr).__name__
    if kind == "Var":
        return {expr.__chandle__(): 1}, 0
    if kind == "IntImm":
        return {}, int(expr.value)
    if isinstance(expr, int):
        return {}, expr
    if kind == "Cast":
        return affine(expr.value)
    if kind not in ("Add", "Sub", "Mul"):
        return None
    a, b = affine(expr.a), affine(expr.b)
    if a is None or b is None:
        return None
    if kind == "Mul":
        if a[0] and b[0]:
            return None
        terms, factor = (a, b[1]) if a[0] else (b, a[1])
        return {k: v * factor for k, v in terms[0].items()}, terms[1] * factor
    sign = 1 if kind == "Add" else -1
    total = dict(a[0])
    for k, v in b[0].items():
        total[k] = total.get(k, 0) + sign * v
    return total, a[1] + sign * b[1]


def children(expr: Any) -> tuple[Any, ...]:
    """Operands of an expression, the indices of a load included."""
    kind = type(expr).__name__
    if kind in _LEAVES:
        return ()
    if kind in ("TensorLoad", "BufferLoad"):
        return tuple(expr.indices)
    if kind == "Call":
        return tuple(a for a in expr.args if hasattr(a, "ty"))
    if kind == "Select":
        return expr.condition, expr.true_value, expr.false_value
    if hasattr(expr, "a"):
        return expr.a, expr.b
    if kind == "Not":
        return (expr.a,)
    if kind == "Ramp":
        return expr.base, expr.stride
    return (expr.value,) if hasattr(expr, "value") else ()


_LEAVES = frozenset(("Var", "IntImm", "FloatImm", "StringImm", "GenericConst"))


def is_load(expr: Any) -> bool:
    """Whether an expression reads a buffer."""
    return type(expr).__name__ in ("TensorLoad", "BufferLoad")


def source_of(load: Any) -> Any:
    """The buffer variable that a load or region refers to."""
    return load.source if hasattr(load, "source") else load.buffer


def loads(expr: Any) -> Iterator[Any]:
    """Every load in an expression, those in indices included."""
    if is_load(expr):
        yield expr
    for child in children(expr):
        yield from loads(child)

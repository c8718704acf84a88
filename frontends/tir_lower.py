"""The loop graph of a TIR PrimFunc: what a schedule tuner's candidate looks like in the node IR.

Nodes
-----
`tir.Loop`   one loop. Attributes: `extent`; `kind` (serial, parallel, vectorized, unrolled, thread); `thread` (such as
             threadIdx.x) if bound; `depth` (0 outermost); `iterations`, how often its body runs in all; `working_set`,
             distinct bytes that one full run of the loop touches; annotations as `note.<name>`.
`tir.Block`  one block of statements. Attributes: `iterations`, how often it runs; `axes`, one letter per block axis (S
             spatial, R reduction, O opaque) and `extents`, their sizes; arithmetic per run as `adds` (add, subtract),
             `muls`, `divs`, `compares` (max, min, comparisons), `specials` (exp, sqrt, erf…) and `selects`, absent
             where zero; `flops`, all but selects times `iterations`; `init` if it also starts a reduction: its
             accumulator is then written only, not read.
             Access per read and per written tensor, in the order of inputs and outputs: `read_stride`, elements
             between neighbours along the innermost loop (0: the same element again, -1: depends on data);
             `read_unique`, distinct elements in the whole run; `read_scope`, memory scope; and the same with `write_`.
             `read_lane` and `write_lane` are the strides along the loop that is vectorized or bound to threadIdx.x,
             where there is one. Blocks that call intrinsics are opaque and have no arithmetic.

Edges
-----
parent → child      every loop makes a scope, an empty tensor of shape (0,), that the loops and blocks directly inside
                    read as their first input
producer → consumer every block makes a new version of each buffer that it writes; readers take the latest in program
                    order, and so does a block that updates a buffer in place

Graph inputs are the parameter buffers that are read before they are written, outputs those that are written. The order
of nodes is the program's. Nothing is simulated: counts come from extents and affine indices, predicates count as true.
About a millisecond per candidate of some thirty nodes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from costmodel.errors import InputError
from costmodel.ir import AttrValue, DType, Graph, Node, TensorSpec
from frontends.relax_types import dtype_of
from frontends.tir_read import (
    THREAD,
    VECTORIZED,
    Block,
    Buffer,
    Loop,
    Program,
    Reader,
    children,
    is_load,
    loads,
    source_of,
)  # fmt: skip

LOOP, BLOCK = "tir.Loop", "tir.Block"
_SCOPE = TensorSpec((0,), DType.BOOL)
_COUNTED = {
    "Add": "adds", "Sub": "adds", "Mul": "muls", "Div": "divs", "FloorDiv": "divs", "FloorMod": "divs", "Mod": "divs",
    "Max": "compares", "Min": "compares", "EQ": "compares", "NE": "compares", "LT": "compares", "LE": "compares",
    "GT": "compares", "GE": "compares", "Select": "selects", "Call": "specials",
}  # fmt: skip
_FREE_CALLS = frozenset(("if_then_else", "likely", "reinterpret", "ret", "assume"))


@dataclass(slots=True)
class Access:
    """How a block touches one buffer.

    terms    loop variable → elements that its step moves
    others   loop variables that move it in another way (divided, wrapped, looked up)
    tile     elements that one run touches, where a block declares a region
    touched  distinct elements, at most, of a full run of the loops walked so far, from the block outwards
    address  index expressions, and what the block's variables stand for, to work out single positions
    """

    buffer: Buffer
    terms: dict[int, int] = field(default_factory=dict)
    others: set[int] = field(default_factory=set)
    tile: int = 1
    touched: int = 1
    address: tuple[Any, Mapping[int, Any]] = ((), {})

    def stride(self, variable: int) -> int:
        """Elements between neighbours along a loop (its first two iterations, if not affine); -1 if unknown."""
        if variable not in self.others:
            return abs(self.terms.get(variable, 0))
        first, second = self._position({}), self._position({variable: 1})
        return -1 if first is None or second is None else abs(second - first)

    def _position(self, at: Mapping[int, int]) -> int | None:
        indices, bindings = self.address
        flat = 0
        for index, size in zip(indices, self.buffer.shape, strict=False):
            value = _number(index, bindings, at)
            if value is None:
                return None
            flat = flat * size + value
        return flat

    def moves(self, loop: Loop) -> bool:
        """Whether the loop's iterations touch different elements."""
        return bool(self.terms.get(loop.key)) or loop.key in self.others

    def unique(self, loops: list[Loop]) -> int:
        """Distinct elements touched while the given loops run."""
        count = self.tile * math.prod(loop.extent for loop in loops if self.moves(loop))
        return min(count, self.buffer.elements)


def lower(source: Any, name: str = "") -> Graph:
    """The loop graph of a PrimFunc, a Schedule, a MeasureCandidate or an IRModule with one PrimFunc (or `main`).

    Raises InputError for a module with several functions and for symbolic sizes.
    """
    function, found = _function(source)
    return graph_of(Reader().program(function, name or found))


def _function(source: Any) -> tuple[Any, str]:
    what = type(source).__name__
    if what == "PrimFunc":
        return source, "prim_func"
    if what == "MeasureCandidate":
        source = source.sch
        what = "Schedule"
    module = source.mod if what == "Schedule" else source
    functions = {str(v.name_hint): f for v, f in module.functions.items() if type(f).__name__ == "PrimFunc"}
    if "main" in functions:
        return functions["main"], "main"
    if len(functions) != 1:
        listed = ", ".join(sorted(functions)[:8]) or "none"
        raise InputError(f"the module holds the PrimFuncs {listed}; give one of them")
    return next(iter((f, n) for n, f in functions.items()))


def graph_of(program: Program) -> Graph:
    """The loop graph of a program already read."""
    return _Builder(program).graph()


class _Builder:
    """Nodes in program order, and the latest version of each buffer."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[Node] = []
        self.tensors: dict[str, TensorSpec] = {}
        self.latest: dict[int, str] = {}
        self.inputs: list[str] = []
        self.versions: dict[str, int] = {}

    def graph(self) -> Graph:
        """Walks the program and freezes what it found."""
        for item in self.program.body:
            self._item(item, [], "")
        written = [self.latest[b.key] for b in self.program.params if b.key in self.latest]
        outputs = [t for t in written if t not in self.inputs]
        name = self.program.name
        return Graph(tuple(self.nodes), self.tensors, tuple(self.inputs), tuple(outputs), frozenset(), name)

    def _item(self, item: Loop | Block, loops: list[Loop], scope: str) -> list[Access]:
        """Adds a loop or block; returns the accesses inside."""
        if isinstance(item, Loop):
            return self._loop(item, loops, scope)
        found = self._block(item, loops, scope) if item.stores or item.opaque else []
        for inner in item.body:
            found += self._item(inner, loops, scope)
        return found

    def _loop(self, loop: Loop, loops: list[Loop], scope: str) -> list[Access]:
        inside = [*loops, loop]
        token = self._fresh(loop.name, _SCOPE)
        place = len(self.nodes)
        self.nodes.append(Node(LOOP, (), (token,)))
        accesses = [a for item in loop.body for a in self._item(item, inside, token)]
        attrs: dict[str, AttrValue] = {
            "extent": loop.extent,
            "kind": loop.kind,
            "depth": len(loops),
            "iterations": math.prod(outer.extent for outer in inside),
            "working_set": _working_set(loop, accesses),
        }
        if loop.thread:
            attrs["thread"] = loop.thread
        for key, value in loop.annotations.items():
            if isinstance(value, (bool, int, float, str)):
                attrs[f"note.{key}"] = value
        self.nodes[place] = Node(LOOP, (scope,) if scope else (), (token,), attrs, loop.name)
        return accesses

    def _block(self, block: Block, loops: list[Loop], scope: str) -> list[Access]:
        forms = {axis.key: _form(binding, {}) for axis, binding in zip(block.axes, block.bindings, strict=False)}
        for key, expr in block.lets.items():
            forms.setdefault(key, _form(expr, forms))
        bindings = {axis.key: binding for axis, binding in zip(block.axes, block.bindings, strict=False)} | block.lets
        reads, writes, counts = self._accesses(block, forms)
        for access in (*reads, *writes):
            access.address, access.touched = (access.address[0], bindings), access.tile
        iterations = math.prod(loop.extent for loop in loops)
        attrs: dict[str, AttrValue] = {
            "iterations": iterations,
            "axes": "".join(axis.kind for axis in block.axes),
            "extents": tuple(axis.extent for axis in block.axes),
            **counts,
        }
        if not block.opaque:
            attrs["flops"] = sum(n for what, n in counts.items() if what != "selects") * iterations
        if block.init:
            attrs["init"] = 1
        lane = next((p for p in reversed(loops) if p.kind == VECTORIZED or p.thread == "threadIdx.x"), None)
        innermost = next((p for p in reversed(loops) if p.kind != THREAD), loops[-1] if loops else None)
        for prefix, found in (("read", reads), ("write", writes)):
            attrs[f"{prefix}_stride"] = tuple(a.stride(innermost.key) if innermost else 0 for a in found)
            attrs[f"{prefix}_unique"] = tuple(a.unique(loops) for a in found)
            attrs[f"{prefix}_scope"] = tuple(a.buffer.scope or "global" for a in found)
            if lane is not None:
                attrs[f"{prefix}_lane"] = tuple(a.stride(lane.key) for a in found)
        for note, value in block.annotations.items():
            if isinstance(value, (bool, int, float, str)):
                attrs[f"note.{note}"] = value
        inputs = ((scope,) if scope else ()) + tuple(self._read(a.buffer) for a in reads)
        outputs = tuple(self._write(a.buffer) for a in writes)
        self.nodes.append(Node(BLOCK, inputs, outputs, attrs, block.name, block.opaque))
        return [*reads, *writes]

    def _accesses(self, block: Block, forms: dict[int, Any]) -> tuple[list[Access], list[Access], dict[str, int]]:
        """Reads and writes of a block by buffer, and its arithmetic per run."""
        reads: dict[int, Access] = {}
        writes: dict[int, Access] = {}
        counts: dict[str, int] = {}
        if block.opaque:
            for regions, found in ((block.reads, reads), (block.writes, writes)):
                for key, region in regions:
                    self._touch(found, key, [r.min for r in region], forms)
                    found[key].tile = math.prod(getattr(r.extent, "value", 1) for r in region)
            return list(reads.values()), list(writes.values()), counts
        pending = [value for _, _, value in block.stores] + list(block.lets.values())
        while pending:
            expr = pending.pop()
            kind = type(expr).__name__
            if is_load(expr):
                self._touch(reads, self._key(expr), expr.indices, forms)
                pending += [i for i in expr.indices if _is_arithmetic(i)]
                continue
            counted = _COUNTED.get(kind)
            if counted == "specials" and str(expr.op.name).rsplit(".", 1)[-1] in _FREE_CALLS:
                counted = "selects"
            if counted and _is_arithmetic(expr):
                counts[counted] = counts.get(counted, 0) + 1
            pending += children(expr)
        for key, indices, _ in block.stores:
            self._touch(writes, key, indices, forms)
            if block.init:
                reads.pop(key, None)
        return list(reads.values()), list(writes.values()), counts

    def _key(self, load: Any) -> int:
        return self.program.key(source_of(load))

    def _touch(self, found: dict[int, Access], key: int, indices: Any, forms: dict[int, Any]) -> None:
        """Notes an access; several of one buffer join their variables."""
        access = found.get(key)
        if access is None:
            access = found[key] = Access(self.program.buffers[key], address=(indices, {}))
        step = 1
        strides = []
        for size in reversed(access.buffer.shape):
            strides.append(step)
            step *= size
        strides.reverse()
        for index, weight in zip(indices, strides, strict=False):
            terms, others = _form(index, forms)
            access.others |= others
            for variable, coefficient in terms.items():
                moved = coefficient * weight
                if abs(moved) > abs(access.terms.get(variable, 0)):
                    access.terms[variable] = moved

    def _fresh(self, name: str, spec: TensorSpec) -> str:
        count = self.versions.get(name, 0) + 1
        self.versions[name] = count
        tensor = name if count == 1 else f"{name}#{count}"
        self.tensors[tensor] = spec
        return tensor

    def _spec(self, buffer: Buffer) -> TensorSpec:
        return TensorSpec(buffer.shape, dtype_of(buffer.dtype))

    def _read(self, buffer: Buffer) -> str:
        found = self.latest.get(buffer.key)
        if found is None:
            found = self.latest[buffer.key] = self._fresh(buffer.name, self._spec(buffer))
            self.inputs.append(found)
        return found

    def _write(self, buffer: Buffer) -> str:
        found = self.latest[buffer.key] = self._fresh(buffer.name, self._spec(buffer))
        return found


def _is_arithmetic(expr: Any) -> bool:
    """Whether an operation computes data, not an index or a condition on indices."""
    return any(True for _ in loads(expr))


def _working_set(loop: Loop, accesses: list[Access]) -> int:
    """Distinct bytes of all accesses inside a loop over its full run; notes what the loop adds to each access."""
    total: dict[int, float] = {}
    for access in accesses:
        if access.moves(loop):
            access.touched *= loop.extent
        buffer = access.buffer
        size = min(access.touched, buffer.elements) * buffer.element_bytes
        total[buffer.key] = max(total.get(buffer.key, 0), size)
    return math.ceil(sum(total.values()))


_Form = tuple[dict[int, int], set[int]]


def _form(expr: Any, forms: Mapping[int, _Form]) -> _Form:
    """An index as loop variable → step, and the loop variables that enter it otherwise."""
    kind = type(expr).__name__
    if kind == "Var":
        key = expr.__chandle__()
        known = forms.get(key)
        return ({key: 1}, set()) if known is None else known
    if kind == "IntImm" or isinstance(expr, int):
        return {}, set()
    if kind in ("Add", "Sub"):
        (a, more), (b, others) = _form(expr.a, forms), _form(expr.b, forms)
        sign = 1 if kind == "Add" else -1
        total = dict(a)
        for key, step in b.items():
            total[key] = total.get(key, 0) + sign * step
        return total, more | others
    if kind == "Mul":
        for x, c in ((expr.a, expr.b), (expr.b, expr.a)):
            if type(c).__name__ == "IntImm":
                terms, others = _form(x, forms)
                factor = int(c.value)
                return {key: step * factor for key, step in terms.items()}, others
    if kind == "Cast":
        return _form(expr.value, forms)
    if kind == "Ramp":
        return _form(expr.base, forms)
    mixed: set[int] = set()
    for child in children(expr):
        terms, others = _form(child, forms)
        mixed |= others | set(terms)
    return {}, mixed


_NUMBERS: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "FloorDiv": operator.floordiv,
    "FloorMod": operator.mod, "Max": max, "Min": min,
}  # fmt: skip


def _number(expr: Any, bindings: Mapping[int, Any], at: Mapping[int, int]) -> int | None:
    """Value of an index with the loop variables `at` some iteration, all others at 0; None if it depends on data."""
    kind = type(expr).__name__
    if kind == "Var":
        key = expr.__chandle__()
        return _number(bindings[key], bindings, at) if key in bindings else at.get(key, 0)
    if kind == "IntImm" or isinstance(expr, int):
        return int(getattr(expr, "value", expr))
    if kind == "Cast":
        return _number(expr.value, bindings, at)
    function = _NUMBERS.get(kind)
    if function is None:
        return None
    a, b = _number(expr.a, bindings, at), _number(expr.b, bindings, at)
    if a is None or b is None or (b == 0 and kind in ("FloorDiv", "FloorMod")):
        return None
    return function(a, b)

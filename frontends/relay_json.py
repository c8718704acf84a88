"""Relay JSON (`tvm.ir.save_json` of a TVM that had Relay) → `relay_ast.Module`.

An expression used twice is one node with two references; it becomes a binding of the innermost scope where it is first
met. Data flow is followed without recursion; scopes within scopes recurse, up to `MAX_NESTING`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from costmodel.errors import ModelLoadError
from frontends.relay_ast import (
    Block,
    Call,
    Ctor,
    CtorDef,
    Expr,
    Func,
    GlobalRef,
    Hole,
    If,
    Match,
    Module,
    OpRef,
    Pattern,
    Proj,
    TupleExpr,
    Type,
    Var,
)
from frontends.relay_table import MAX_NESTING, NodeTable, literal, read_table


class _Budget:
    """Bounds the work that shared nodes can cause."""

    def __init__(self, nodes: int) -> None:
        self.left = 20 * nodes + 1000

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ModelLoadError(
                "Relay JSON: nodes are shared between too many scopes; save the module after ToANormalForm"
            )


class _Scope:
    """Values already bound, by node index; lookups go outwards."""

    def __init__(self, parent: _Scope | None = None) -> None:
        self.parent = parent
        self.bound: dict[int, Expr] = {}
        self.depth: int = 1 if parent is None else parent.depth + 1

    def find(self, index: int) -> Expr | None:
        scope: _Scope | None = self
        while scope is not None:
            if index in scope.bound:
                return scope.bound[index]
            scope = scope.parent
        return None


def parse_json(text: str) -> Module:
    """The module of a saved JSON graph.

    Raises ModelLoadError if the text is not JSON or not a saved Relay module, function or expression.
    """
    return _JsonReader(read_table(text)).module()


class _JsonReader(NodeTable):
    """Builds expressions from the table."""

    def __init__(self, table: dict[str, Any]) -> None:
        super().__init__(table)
        self.budget = _Budget(len(self.nodes))
        self.vars: dict[int, Var] = {}
        self.out = Module()

    def module(self) -> Module:
        """The module at the root; a bare function or expression becomes `main`."""
        kind = self.kind(self.root)
        if kind != "IRModule":
            self._store("main", self.root)
            return self.out
        definitions = self.node(self.attr(self.root, "type_definitions"))
        for data in (definitions.get("data") or [])[1::2]:
            self._adt(data)
        functions = self.list(self.attr(self.root, "functions"))
        for name, function in zip(functions[::2], functions[1::2], strict=False):
            if self.kind(function) == "relay.Function":
                self._store(self.name(name), self.ref(function))
        return self.out

    def _store(self, name: str, index: int) -> None:
        block = self._block(index, _Scope())
        result: Expr = block.result
        for var, value in block.steps:
            if var is result:
                result = value
        if isinstance(result, Func) and len(block.steps) <= 1:
            self.out.functions[name] = result
        else:
            self.out.functions[name] = Func([], block)

    def _adt(self, data: Any) -> None:
        adt = self.name(self.attr(data, "header"))
        generics = tuple(self.name(v) for v in self.list(self.attr(data, "type_vars")))
        self.out.adts[adt] = generics
        for ctor in self.list(self.attr(data, "constructors")):
            name = self.name(ctor)
            inputs = tuple(self.type(v) or Hole() for v in self.list(self.attr(ctor, "inputs")))
            self.out.ctors[name] = CtorDef(name, adt, generics, inputs)

    def _var(self, value: Any) -> Var:
        index = self.ref(value)
        if index not in self.vars:
            var = Var(self.name(self.attr(index, "vid")), self.type(self.attr(index, "type_annotation")))
            var.note = self._stated(index)
            self.vars[index] = var
        return self.vars[index]

    def _stated(self, index: int) -> Type | None:
        attrs = self.nodes[index].get("attrs") or {}
        return self.type(attrs["_checked_type_"]) if "_checked_type_" in attrs else None

    def _block(self, index: int, scope: _Scope) -> Block:
        if scope.depth > MAX_NESTING:
            raise ModelLoadError(
                f"Relay JSON: scopes nest deeper than {MAX_NESTING}; save the module after ToANormalForm"
            )
        steps: list[tuple[Var, Expr]] = []
        while self.kind(index) == "relay.Let":
            self.budget.spend()
            value = self._emit(self.ref(self.attr(index, "value")), scope, steps)
            steps.append((self._var(self.attr(index, "var")), value))
            index = self.ref(self.attr(index, "body"))
        return Block(steps, self._emit(index, scope, steps))

    def _operands(self, index: int) -> list[Any]:
        """References that must be bound before a node."""
        kind = self.kind(index)
        if kind == "relay.Call":
            return [self.attr(index, "op"), *self.list(self.attr(index, "args"))]
        if kind == "relay.Tuple":
            return self.list(self.attr(index, "fields"))
        names = {
            "relay.TupleGetItem": ("tuple_value", "tuple"),
            "relay.If": ("cond",),
            "relay.Match": ("data",),
            "relay.RefCreate": ("value",),
            "relay.RefRead": ("ref",),
            "relay.RefWrite": ("ref", "value"),
        }.get(kind, ())
        attrs = self.nodes[index].get("attrs") or {}
        return [attrs[name] for name in names if name in attrs]

    def _emit(self, root: int, scope: _Scope, steps: list[tuple[Var, Expr]]) -> Expr:
        """The value of a node, after binding all it needs, without recursion along the data flow."""
        waiting, opened = [root], set[int]()
        while waiting:
            index = waiting[-1]
            if scope.find(index) is not None or self._atom(index) is not None:
                waiting.pop()
                continue
            self.budget.spend()
            pending = [
                i for i in map(self.ref, self._operands(index)) if scope.find(i) is None and self._atom(i) is None
            ]
            if pending:
                if index in opened:
                    raise ModelLoadError(
                        "Relay JSON: expressions refer to themselves; the file is damaged, save it again"
                    )
                opened.add(index)
                waiting += reversed(pending)
                continue
            waiting.pop()
            var = Var(f"_{index}")
            value = self._build(index, scope)
            value.note = self._stated(index)
            steps.append((var, value))
            scope.bound[index] = var
        found = scope.find(root) or self._atom(root)
        if found is None:
            raise ModelLoadError(f"Relay JSON: node {root} is no expression; save the module again")
        return found

    def _atom(self, index: int) -> Expr | None:
        """Expressions that need no binding."""
        kind = self.kind(index)
        if kind == "relay.Var":
            return self._var(index)
        if kind == "relay.Constant":
            return self.constant(index)
        if kind == "GlobalVar":
            return GlobalRef(self.name(index))
        if kind == "Op":
            return OpRef(self.name(index))
        if kind == "relay.Constructor":
            return Ctor(self.name(index))
        return None

    def _build(self, index: int, scope: _Scope) -> Expr:
        kind = self.kind(index)
        build = _BUILDERS.get(kind)
        if build is None:
            raise ModelLoadError(
                f"Relay JSON: '{kind or 'null'}' is no Relay expression; save the module before lowering"
            )
        return build(self, index, scope)

    def _bound(self, value: Any, scope: _Scope) -> Expr:
        index = self.ref(value)
        found = scope.find(index) or self._atom(index)
        if found is None:
            raise ModelLoadError(f"Relay JSON: node {index} is used before it is defined; the file is damaged")
        return found

    def _call(self, index: int, scope: _Scope) -> Expr:
        args = [self._bound(v, scope) for v in self.list(self.attr(index, "args"))]
        raw = self.attr(index, "attrs")
        return Call(self._bound(self.attr(index, "op"), scope), args, self.attrs(raw) if self.kind(raw) else {})

    def _tuple(self, index: int, scope: _Scope) -> Expr:
        return TupleExpr([self._bound(v, scope) for v in self.list(self.attr(index, "fields"))])

    def _project(self, index: int, scope: _Scope) -> Expr:
        operands = self._operands(index)
        field = literal(str(self.attr(index, "index")))
        if not operands or not isinstance(field, int) or field < 0:
            raise ModelLoadError(
                "Relay JSON: a projection has no tuple or no index; the file is damaged, save it again"
            )
        return Proj(self._bound(operands[0], scope), field)

    def _function(self, index: int, scope: _Scope) -> Expr:
        params = [self._var(v) for v in self.list(self.attr(index, "params"))]
        body = self._block(self.ref(self.attr(index, "body")), _Scope(scope))
        generics = tuple(self.name(v) for v in self.list(self.attr(index, "type_params")))
        raw = self.attr(index, "attrs")
        attrs = self.attrs(raw) if self.kind(raw) else {}
        return Func(params, body, self.type(self.attr(index, "ret_type")), generics, attrs)

    def _branch(self, index: int, scope: _Scope) -> Expr:
        then = self._block(self.ref(self.attr(index, "true_branch")), _Scope(scope))
        other = self._block(self.ref(self.attr(index, "false_branch")), _Scope(scope))
        return If(self._bound(self.attr(index, "cond"), scope), then, other)

    def _match(self, index: int, scope: _Scope) -> Expr:
        clauses = []
        for clause in self.list(self.attr(index, "clauses")):
            pattern = self._pattern(self.attr(clause, "lhs"), 0)
            clauses.append((pattern, self._block(self.ref(self.attr(clause, "rhs")), _Scope(scope))))
        complete = str(self.attr(index, "complete")) != "0"
        return Match(self._bound(self.attr(index, "data"), scope), clauses, complete)

    def _pattern(self, value: Any, depth: int) -> Pattern:
        kind = self.kind(value)
        if depth > MAX_NESTING:
            raise ModelLoadError("Relay JSON: a pattern nests too deep; the file is damaged, save it again")
        if kind == "relay.PatternVar":
            return Pattern(var=self._var(self.attr(value, "var")))
        if kind in ("relay.PatternConstructor", "relay.PatternTuple"):
            parts = tuple(self._pattern(v, depth + 1) for v in self.list(self.attr(value, "patterns")))
            if kind == "relay.PatternTuple":
                return Pattern(parts=parts, is_tuple=True)
            return Pattern(ctor=self.name(self.attr(value, "constructor")), parts=parts)
        return Pattern()

    def _reference(self, index: int, scope: _Scope) -> Expr:
        op = {"relay.RefCreate": "ref", "relay.RefRead": "ref_read", "relay.RefWrite": "ref_write"}[self.kind(index)]
        return Call(OpRef(op), [self._bound(v, scope) for v in self._operands(index)])


_BUILDERS: dict[str, Callable[[_JsonReader, int, _Scope], Expr]] = {
    "relay.Call": _JsonReader._call,
    "relay.Tuple": _JsonReader._tuple,
    "relay.TupleGetItem": _JsonReader._project,
    "relay.Function": _JsonReader._function,
    "relay.If": _JsonReader._branch,
    "relay.Match": _JsonReader._match,
    "relay.RefCreate": _JsonReader._reference,
    "relay.RefRead": _JsonReader._reference,
    "relay.RefWrite": _JsonReader._reference,
    "relay.Let": lambda reader, index, scope: reader._block(index, _Scope(scope)),
}

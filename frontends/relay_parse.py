"""Relay text → `relay_ast.Module`.

Every `%name` is resolved to its `Var` here, with Relay's scoping: numbered values may be redefined inside functions,
branches and match arms, and `let` may shadow. Numbers without a suffix are int32, with a point float32; `2f`, `2f16`
and `3i64` say their type. Metadata behind the program (`#[metadata]`) gives constants their types; without it they
have what a type comment says, or none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from lark import Token, Tree

from costmodel.errors import ModelLoadError
from frontends.relay_ast import (
    Block,
    Call,
    Const,
    Ctor,
    CtorDef,
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
    Type,
    Var,
)
from frontends.relay_grammar import parse_program
from frontends.relay_table import Metadata, read_metadata
from frontends.relay_typetext import MAX_NESTING, PRELUDE, is_type, read_type, type_of_text

MAX_CHAIN = 400
"""Operands of one infix chain; longer ones nest too deep for what follows."""

_METADATA = re.compile(r"^\s*(?:#\[metadata\]|METADATA:)\s*$", re.MULTILINE)
_NUMBER = re.compile(r"([\d.]+(?:[eE][-+]?\d+)?)(f|i|u)?(\d*)$")
_INFIX = {
    "==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal",
    "+": "add", "-": "subtract", "*": "multiply", "/": "divide",
}  # fmt: skip
_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}


def parse_text(text: str) -> Module:
    """The module of a program in Relay text.

    Raises ModelLoadError with line, column and what was expected.
    """
    split = _METADATA.search(text)
    metadata = read_metadata(text[split.end() :]) if split else {}
    if split:
        text = text[: split.start()]
    tree, notes = parse_program(text)
    return _Reader(metadata, notes).module(tree)


class _Scope:
    """Names visible at one point; lookups go outwards."""

    def __init__(self, parent: _Scope | None = None) -> None:
        self.parent = parent
        self.names: dict[str, Expr] = {}

    def find(self, name: str) -> Expr | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None


class _Reader:
    """Turns the syntax tree into expressions."""

    def __init__(self, metadata: Metadata, notes: dict[int, str]) -> None:
        self.metadata, self.notes = metadata, notes
        self.out = Module()
        self.depth = 0

    def module(self, tree: Tree[Token]) -> Module:
        """The whole program."""
        decls = [t for t in tree.children if isinstance(t, Tree)]
        for decl in decls:
            if decl.data in ("adt", "extern"):
                self._adt(decl)
        for adt, (generics, ctors) in PRELUDE.items():
            if adt not in self.out.adts and not any(name in self.out.ctors for name, _ in ctors):
                self.out.adts[adt] = generics
                for name, inputs in ctors:
                    self.out.ctors[name] = CtorDef(name, adt, generics, inputs)
        free: list[Var] = []
        scope = _Scope()
        body: list[Tree[Token]] = []
        for token in tree.children:
            if isinstance(token, Token):
                self.out.version = re.sub(r'^#\[version\s*=\s*"|"\s*\]$|^v', "", str(token))
            elif token.data == "def_":
                self._global(token)
            elif token.data == "free_var":
                free.append(self._declare(token.children, scope))
            elif token.data not in ("adt", "extern", "import_"):
                body.append(token)
        if body:
            self._entry(body, free, scope)
        return self.out

    def _entry(self, body: list[Tree[Token]], free: list[Var], scope: _Scope) -> None:
        block = self._block(body, scope)
        if isinstance(block.result, Func) and not block.steps and not free:
            self.out.functions.setdefault("main", block.result)
        else:
            self.out.functions.setdefault("main", Func(free, block))

    def _adt(self, tree: Tree[Token]) -> None:
        name, generics = str(tree.children[0]), self._generics(tree)
        self.out.adts[name] = generics
        for ctor in tree.find_data("ctor"):
            inputs: list[Type] = []
            for kid in ctor.children[1:]:
                inputs += [read_type(t, 0) for t in kid.children]  # type: ignore[union-attr,arg-type]
            label = str(ctor.children[0])
            self.out.ctors[label] = CtorDef(label, name, generics, tuple(inputs))

    def _global(self, tree: Tree[Token]) -> None:
        name = str(tree.children[0])[1:]
        if name in self.out.functions:
            self._fail(tree, f"@{name} is defined twice; give each function its own name")
        self.out.functions[name] = self._function(tree, tree.children[1:], _Scope())

    def _fail(self, tree: Tree[Token], message: str) -> NoReturn:
        line, column = getattr(tree.meta, "line", 1), getattr(tree.meta, "column", 1)
        raise ModelLoadError(f"Relay text, line {line}, column {column}: {message}")

    @staticmethod
    def _generics(tree: Tree[Token]) -> tuple[str, ...]:
        for kid in tree.children:
            if isinstance(kid, Tree) and kid.data == "generics":
                return tuple(map(str, kid.children))
        return ()

    def _note(self, tree: Tree[Token]) -> Type | None:
        text = self.notes.pop(getattr(tree.meta, "end_pos", -1), None)
        return None if text is None else type_of_text(text)

    def _declare(self, parts: list[Any], scope: _Scope) -> Var:
        """A variable with its type, from `variable fields? (":" type)?`."""
        token = parts[0].children[0]
        var = Var(str(token)[1:])
        for part in parts[1:]:
            if isinstance(part, Tree) and part.data != "fields":
                var.annotation = read_type(part, 0)
                if var.note is None:
                    var.note = self._note(part)
        scope.names[str(token)] = var
        return var

    def _function(self, tree: Tree[Token], parts: list[Any], outer: _Scope) -> Func:
        scope = _Scope(outer)
        func = Func([], Block([], TupleExpr([])), generics=self._generics(tree))
        for part in parts:
            if part.data == "param":
                func.params.append(self._declare(part.children, scope))
            elif part.data == "attr":
                func.attrs[str(part.children[0])] = self._value(part.children[1])
            elif part.data == "ret":
                func.ret = read_type(part.children[0], 0)
            elif part.data == "block":
                func.body = self._block(part.children[0].children, scope)
        return func

    def _block(self, parts: list[Any], outer: _Scope) -> Block:
        """Bindings, then a result, in a scope of their own."""
        scope = _Scope(outer)
        steps: list[tuple[Var, Expr]] = []
        for part in parts[:-1]:
            value = self._expr(part.children[-1], scope)
            if part.data == "let":
                steps.append((self._declare(part.children[:-1], scope), value))
            else:
                token = part.children[0]
                var = Var(str(token)[1:])
                scope.names[str(token)] = var
                steps.append((var, value))
        return Block(steps, self._expr(parts[-1], scope))

    def _braced(self, tree: Any, scope: _Scope) -> Block:
        if tree.data == "block":
            return self._block(tree.children[0].children, scope)
        return Block([], self._expr(tree, scope))

    def _expr(self, tree: Any, scope: _Scope) -> Expr:
        self.depth += 1
        if self.depth > MAX_NESTING:
            self._fail(tree, f"expressions nest deeper than {MAX_NESTING}; bind inner ones to names")
        found = _EXPRESSIONS[tree.data](self, tree, scope)
        self.depth -= 1
        if not isinstance(found, Var):
            note = self._note(tree)
            if note is not None:
                found.note = note
                if isinstance(found, Const) and found.type is None and isinstance(note, TensorType):
                    found.type = note
        return found

    def _local(self, tree: Tree[Token], scope: _Scope) -> Expr:
        name = str(tree.children[0])
        found = scope.find(name)
        if found is None:
            self._fail(tree, f"{name} is not defined here; define it before its use")
        return found

    def _constant(self, tree: Tree[Token], scope: _Scope) -> Expr:
        key = str(tree.children[0])
        known = self.metadata.get(key)
        return Const(known.type, known.value, key) if known is not None else Const(None, None, key)

    def _number(self, tree: Tree[Token], scope: _Scope) -> Expr:
        text = str(tree.children[0])
        found = _NUMBER.match(text)
        if found is None or len(text) > 60:
            self._fail(tree, f"'{text[:24]}' is no number; write 1, 1f or 1i64")
        digits, letter, bits = found[1], found[2], found[3]
        real = letter == "f" or (letter is None and not digits.isdigit())
        stem = "float" if real else "uint" if letter == "u" else "int"
        value = float(digits) if real or not digits.isdigit() else int(digits)
        return Const(TensorType((), stem + (bits or "32")), value)

    def _name(self, tree: Tree[Token], scope: _Scope) -> Expr:
        name = str(tree.children[0])
        if name in self.out.ctors:
            return Call(Ctor(name), []) if not self.out.ctors[name].inputs else Ctor(name)
        if name in ("True", "False"):
            return Const(TensorType((), "bool"), name == "True")
        special = re.match(r"(nan|inf)(?:f(\d*))?$", name)
        if special:
            return Const(TensorType((), "float" + (special[2] or "32")), float(special[1]))
        return OpRef(name)

    def _call(self, tree: Tree[Token], scope: _Scope) -> Expr:
        head, *rest = tree.children
        args: list[Expr] = []
        attrs: dict[str, Any] = {}
        for part in rest:
            if part.data == "attr":  # type: ignore[union-attr]
                attrs[str(part.children[0])] = self._value(part.children[1])  # type: ignore[union-attr]
            elif not is_type(part):
                args.append(self._expr(part, scope))
        if isinstance(head, Tree) and head.data == "name" and str(head.children[0]) in self.out.ctors:
            return Call(Ctor(str(head.children[0])), args)
        return Call(self._expr(head, scope), args, attrs)

    def _infix(self, tree: Tree[Token], scope: _Scope) -> Expr:
        if len(tree.children) > MAX_CHAIN:
            self._fail(tree, f"more than {MAX_CHAIN // 2} operands in one expression; bind parts of it to names")
        operands = [self._expr(t, scope) for t in tree.children[::2]]
        signs = [str(t) for t in tree.children[1::2]]
        for strength in (2, 1, 0):
            left, kept = [operands[0]], []
            for sign, right in zip(signs, operands[1:], strict=True):
                if _STRENGTH.get(sign, 0) == strength:
                    left[-1] = Call(OpRef(_INFIX[sign]), [left[-1], right])
                else:
                    left.append(right)
                    kept.append(sign)
            operands, signs = left, kept
        return operands[0]

    def _negate(self, tree: Tree[Token], scope: _Scope) -> Expr:
        inner = self._expr(tree.children[1], scope)
        if isinstance(inner, Const) and isinstance(inner.value, (int, float)):
            inner.value = -inner.value
            return inner
        return Call(OpRef("negative"), [inner])

    def _tuple(self, tree: Tree[Token], scope: _Scope) -> Expr:
        return TupleExpr([self._expr(t, scope) for t in tree.children])

    def _paren(self, tree: Tree[Token], scope: _Scope) -> Expr:
        return self._block(tree.children, scope) if len(tree.children) > 1 else self._expr(tree.children[0], scope)

    def _project(self, tree: Tree[Token], scope: _Scope) -> Expr:
        return Proj(self._expr(tree.children[0], scope), int(str(tree.children[1])[1:6]))

    def _if(self, tree: Tree[Token], scope: _Scope) -> Expr:
        cond, then, other = tree.children
        return If(self._expr(cond, scope), self._braced(then, scope), self._braced(other, scope))

    def _match(self, tree: Tree[Token], scope: _Scope) -> Expr:
        data = self._expr(tree.children[0], scope)
        clauses = []
        for clause in tree.children[1:]:
            inner = _Scope(scope)
            pattern = self._pattern(clause.children[0], inner, 0)  # type: ignore[union-attr]
            clauses.append((pattern, self._braced(clause.children[1], inner)))  # type: ignore[union-attr]
        return Match(data, clauses)

    def _pattern(self, tree: Any, scope: _Scope, depth: int) -> Pattern:
        if depth > MAX_NESTING:
            self._fail(tree, "a pattern nests too deep; match in steps")
        if tree.data == "p_any":
            return Pattern()
        if tree.data == "p_var":
            return Pattern(var=self._declare(tree.children, scope))
        parts = tree.children if tree.data == "p_tuple" else tree.children[1:]
        inner = tuple(self._pattern(t, scope, depth + 1) for t in parts)
        if tree.data == "p_tuple":
            return Pattern(parts=inner, is_tuple=True)
        name = str(tree.children[0])
        if name not in self.out.ctors:
            self._fail(tree, f"no data type has a constructor '{name}'; declare its type")
        return Pattern(ctor=name, parts=inner)

    def _type_value(self, tree: Tree[Token], scope: _Scope) -> Expr:
        self._fail(tree, "a type stands where a value is expected; give it only as a call's argument")

    def _function_expr(self, tree: Tree[Token], scope: _Scope) -> Expr:
        return self._function(tree, tree.children, scope)

    def _block_expr(self, tree: Tree[Token], scope: _Scope) -> Expr:
        return self._braced(tree, scope)

    def _value(self, tree: Any) -> Any:
        """An attribute: number, bool, None, string, list or dict; anything else as its text."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            self._fail(tree, "attributes nest too deep; simplify them")
        try:
            return self._plain(tree)
        finally:
            self.depth -= 1

    def _plain(self, tree: Any) -> Any:
        kind, kids = tree.data, tree.children
        if kind in ("list", "tuple"):
            return [self._value(t) for t in kids]
        if kind == "fields":
            return {str(f.children[0]).strip('"'): self._value(f.children[1]) for f in kids}
        if kind == "string":
            return str(kids[0])[1:-1]
        if kind == "name":
            name = str(kids[0])
            return {"True": True, "False": False, "None": None}.get(name, name)
        if kind == "number":
            return self._number(tree, _Scope()).value  # type: ignore[attr-defined]
        if kind == "negate":
            inner = self._value(kids[1])
            return -inner if isinstance(inner, (int, float)) else None
        if kind == "meta":
            known = self.metadata.get(str(kids[0]))
            return str(kids[0]) if known is None else known.value
        if kind == "paren" and len(kids) == 1:
            return self._value(kids[0])
        return str(kids[0]) if kids and isinstance(kids[0], Token) else str(kind)


_EXPRESSIONS: dict[str, Callable[[_Reader, Any, _Scope], Expr]] = {
    "local": _Reader._local,
    "graph": _Reader._local,
    "global_": lambda reader, tree, scope: GlobalRef(str(tree.children[0])[1:]),
    "meta": _Reader._constant,
    "number": _Reader._number,
    "string": lambda reader, tree, scope: Const(TensorType((), "string"), str(tree.children[0])[1:-1]),
    "name": _Reader._name,
    "tensor": _Reader._type_value,
    "tuple": _Reader._tuple,
    "paren": _Reader._paren,
    "fn": _Reader._function_expr,
    "if_": _Reader._if,
    "match": _Reader._match,
    "block": _Reader._block_expr,
    "infix": _Reader._infix,
    "negate": _Reader._negate,
    "project": _Reader._project,
    "call": _Reader._call,
}

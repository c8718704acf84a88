"""What both Relay readers, text and JSON, produce: types, expressions and modules.

A scope (function body, branch, match arm) is a `Block`: bindings in order and a result. Graph-numbered values (`%3 =`)
and let-bound ones are both bindings. Names are resolved: every use of a value holds the very `Var` that its binding or
parameter introduces, so `Var` objects are dictionary keys and shadowing needs no care later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Dim = int | None  # None is `?`, known only at run time
Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """`Tensor[(1, 64), float32]`; a scalar (`float32`) has shape `()`."""

    shape: Shape
    dtype: str

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"Tensor[({dims}), {self.dtype}]"


@dataclass(frozen=True, slots=True)
class TupleType:
    """`(A, B)`."""

    fields: tuple[Type, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.fields))})"


@dataclass(frozen=True, slots=True)
class FuncType:
    """`fn[generics](params) -> ret`."""

    params: tuple[Type, ...]
    ret: Type
    generics: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"fn ({', '.join(map(str, self.params))}) -> {self.ret}"


@dataclass(frozen=True, slots=True)
class NamedType:
    """An algebraic data type applied to types (`List[A]`), a reference (`ref`), or a type parameter (`A`)."""

    name: str
    args: tuple[Type, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}[{', '.join(map(str, self.args))}]" if self.args else self.name


@dataclass(slots=True, eq=False)
class Hole:
    """A type not known yet; `to` is what unification found for it."""

    to: Type | None = None

    def __str__(self) -> str:
        return "_" if self.to is None else str(self.to)


Type = TensorType | TupleType | FuncType | NamedType | Hole


@dataclass(slots=True, eq=False)
class Expr:
    """Base of all expressions. `note` is the type a `/* ty=… */` comment (or JSON) states, `ty` the inferred one."""

    note: Type | None = field(default=None, kw_only=True)
    ty: Type | None = field(default=None, kw_only=True)


@dataclass(slots=True, eq=False)
class Var(Expr):
    """A parameter, let-bound variable, numbered value or pattern variable."""

    name: str
    annotation: Type | None = None


@dataclass(slots=True, eq=False)
class Const(Expr):
    """A literal or a constant of the metadata; `type` is None where the text does not tell.

    `value` is a number, bool or nested list of small constants and None where it does not matter.
    """

    type: TensorType | None
    value: Any = None
    key: str = ""


@dataclass(slots=True, eq=False)
class OpRef(Expr):
    """A primitive operator (`nn.conv2d`)."""

    name: str


@dataclass(slots=True, eq=False)
class GlobalRef(Expr):
    """A function of the module (`@f`)."""

    name: str


@dataclass(slots=True, eq=False)
class Ctor(Expr):
    """A constructor of an algebraic data type."""

    name: str


@dataclass(slots=True, eq=False)
class TupleExpr(Expr):
    """`(a, b)`."""

    fields: list[Expr]


@dataclass(slots=True, eq=False)
class Proj(Expr):
    """`a.0`."""

    tuple: Expr
    index: int


@dataclass(slots=True, eq=False)
class Call(Expr):
    """A call of an operator, constructor, function or closure."""

    fn: Expr
    args: list[Expr]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Block(Expr):
    """Bindings in order, then the result."""

    steps: list[tuple[Var, Expr]]
    result: Expr


@dataclass(slots=True, eq=False)
class Func(Expr):
    """`fn (params) -> ret { body }`; `attrs` holds `Primitive`, `Composite` and the like."""

    params: list[Var]
    body: Block
    ret: Type | None = None
    generics: tuple[str, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class If(Expr):
    """`if (cond) { then } else { other }`."""

    cond: Expr
    then: Block
    other: Block


@dataclass(slots=True)
class Pattern:
    """A match pattern: wildcard (all fields empty), variable, constructor or tuple of patterns."""

    var: Var | None = None
    ctor: str | None = None
    parts: tuple[Pattern, ...] = ()
    is_tuple: bool = False

    def variables(self) -> Iterator[Var]:
        """The variables it binds, from left to right."""
        if self.var is not None:
            yield self.var
        for part in self.parts:
            yield from part.variables()


@dataclass(slots=True, eq=False)
class Match(Expr):
    """`match (data) { pattern => body, … }`."""

    data: Expr
    clauses: list[tuple[Pattern, Block]]
    complete: bool = True


@dataclass(slots=True)
class CtorDef:
    """A constructor's declaration."""

    name: str
    adt: str
    generics: tuple[str, ...]
    inputs: tuple[Type, ...]


@dataclass(slots=True)
class Module:
    """Global functions, and the constructors of the declared data types. A bare expression is function `main`."""

    functions: dict[str, Func] = field(default_factory=dict)
    ctors: dict[str, CtorDef] = field(default_factory=dict)
    adts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    version: str = ""


DTYPE_PREFIXES = ("float", "int", "uint", "bool", "bfloat", "custom", "handle", "complex", "void", "string")


def words(text: str) -> tuple[str, ...]:
    """The blank-separated words of a vocabulary."""
    return tuple(text.split())


def is_dtype(name: str) -> bool:
    """Whether an identifier names an element type (`float32`, `uint8`, `bool`)."""
    stem = name.rstrip("0123456789")
    return name == "bool" or (stem in DTYPE_PREFIXES and stem != name) or name in ("handle", "void")


def resolve(ty: Type | None) -> Type | None:
    """Follows holes to what they stand for; a hole without one is returned itself."""
    while isinstance(ty, Hole) and ty.to is not None:
        ty = ty.to
    return ty

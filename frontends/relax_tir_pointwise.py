"""Element-wise TIR stages and stages that only move data, one at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from costmodel.ir import DType
from frontends.onnx_values import CONTENT_LIMIT, NUMPY_TYPES, ONNX_TYPES, Shape, Value
from frontends.relax_rules import floor_divide, ints, number
from frontends.relax_rules_tensor import spread, transpose
from frontends.relax_tir import Stages, Unmapped
from frontends.relax_types import dtype_of, kind
from frontends.tir_read import affine, is_load, loads, source_of

BINARY = {
    "Add": "Add", "Sub": "Sub", "Mul": "Mul", "Div": "Div", "FloorMod": "Mod", "Mod": "Mod",
    "Max": "Max", "Min": "Min", "EQ": "Equal", "LT": "Less", "LE": "LessOrEqual", "GT": "Greater",
    "GE": "GreaterOrEqual", "And": "And", "Or": "Or",
}  # fmt: skip
CALLS = {
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "sigmoid": "Sigmoid", "erf": "Erf", "fabs": "Abs",
    "floor": "Floor", "ceil": "Ceil", "round": "Round", "nearbyint": "Round", "cos": "Cos", "sin": "Sin", "tan": "Tan",
    "pow": "Pow", "isnan": "IsNaN", "isinf": "IsInf", "cosh": "Cosh", "sinh": "Sinh", "acos": "Acos", "asin": "Asin",
    "atan": "Atan", "acosh": "Acosh", "asinh": "Asinh", "atanh": "Atanh", "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor", "bitwise_not": "BitwiseNot",
}  # fmt: skip


_RESHAPES = frozenset(
    ("T_reshape", "reshape", "T_squeeze", "T_flatten", "flatten", "tensor", "T_batch_flatten", "expand_dims")
)


class Pointwise:
    """A stage without reduction: an expression over loads for each element."""

    def __init__(self, stages: Stages, i: int) -> None:
        self.stages = stages
        self.block, self.key, indices, self.expr = stages.single(i)
        self.kind = stages.kind_at(i)
        self.shape = stages.shape(self.key)
        self.axes: list[int] = []
        for index in indices:
            found = affine(index)
            if found is None or found[1] or len(found[0]) > 1 or any(c != 1 for c in found[0].values()):
                raise Unmapped(self.block.name)
            self.axes.append(next(iter(found[0]), -1))

    def store(self) -> None:
        """Emits the nodes and binds the stage's buffer."""
        if not any(True for _ in loads(self.expr)):
            self.stages.held[self.key] = self._constant()
            return
        found = self.tensor(self.expr)
        if found.shape != self.shape and found.numel == math.prod(self.shape):
            found = self._reshaped(found, self.shape)
        elif found.shape != self.shape:
            found = spread(self.stages.low, found, self.shape)
        wanted = self.stages.dtype(self.key)
        if found.dtype != wanted:
            found = self.stages.apply("Cast", [found], to=ONNX_TYPES[wanted])
        self.stages.held[self.key] = found

    def _constant(self) -> Value:
        """A stage that reads nothing: its elements, where they are few."""
        dtype, content = self.stages.dtype(self.key), None
        if dtype in NUMPY_TYPES and math.prod(self.shape) <= CONTENT_LIMIT:
            where = dict(zip(self.axes, np.indices(self.shape), strict=False))
            found = numeric(self.expr, where)
            if found is not None:
                content = np.broadcast_to(np.asarray(found), self.shape).astype(NUMPY_TYPES[dtype])
        name = f"{self.stages.low.label}.{self.block.name}"
        return Value(name, self.shape, dtype, const=True, content=content)

    def tensor(self, expr: Any) -> Value:
        """Value of an expression; one-element constants for numbers."""
        name = kind(expr)
        if name in ("FloatImm", "IntImm"):
            return number(expr.value, dtype_of(expr.ty.dtype))
        if is_load(expr):
            return self.load(expr)
        if name == "Cast":
            inner, to = self.tensor(expr.value), dtype_of(expr.ty.dtype)
            return self.stages.apply("Cast", [inner], to=ONNX_TYPES[to])
        if name == "Max" and self._is_relu(expr):
            return self.stages.apply("Relu", [self.tensor(expr.a)])
        if name == "Mul" and self.kind == "compute" and kind(expr.b) == "FloatImm" and expr.b.value == -1:
            return self.stages.apply("Neg", [self.tensor(expr.a)])
        if name == "FloorDiv":
            return floor_divide(self.stages.low, self.tensor(expr.a), self.tensor(expr.b))
        if name in BINARY:
            return self.stages.apply(BINARY[name], [self.tensor(expr.a), self.tensor(expr.b)])
        if name == "NE":
            return self.stages.apply("Not", [self.stages.apply("Equal", [self.tensor(expr.a), self.tensor(expr.b)])])
        if name == "Not":
            return self.stages.apply("Not", [self.tensor(expr.a)])
        if name == "Select":
            return self._select(expr)
        if name == "Call":
            return self._call(expr)
        raise Unmapped(f"{self.block.name}: {name}")

    def _is_relu(self, expr: Any) -> bool:
        if kind(expr.b) != "FloatImm" or expr.b.value != 0 or not is_load(expr.a):
            return False
        return self.kind in ("compute", "relu") or ("relu" in self.stages.tokens and self.kind != "T_maximum")

    def _select(self, expr: Any) -> Value:
        """x > 0 ? x : a x is LeakyRelu, or PRelu for a tensor a; a boolean test comes as 0 < cast(test)."""
        yes, no = expr.true_value, expr.false_value
        test = expr.condition
        if kind(test) == "LT" and kind(test.b) == "Cast" and is_load(test.b.value) and kind(test.a) == "IntImm":
            flag = self.load(test.b.value)
            if flag.dtype is DType.BOOL:
                return self.stages.apply("Where", [flag, self.tensor(yes), self.tensor(no)])
        if is_load(yes) and kind(no) == "Mul" and kind(expr.condition) == "LT":
            compared = expr.condition.b
            if str(compared) == str(yes) and str(no.a) == str(yes) and kind(expr.condition.a) == "FloatImm":
                if kind(no.b) == "FloatImm":
                    return self.stages.apply("LeakyRelu", [self.tensor(yes)], alpha=round(float(no.b.value), 7))
                slope = self.stages.value(self.stages_key(no.b)) if is_load(no.b) else self.tensor(no.b)
                return self.stages.apply("PRelu", [self.tensor(yes), slope])
        return self.stages.apply("Where", [self.tensor(expr.condition), self.tensor(yes), self.tensor(no)])

    def _call(self, expr: Any) -> Value:
        name = str(expr.op.name).rsplit(".", 1)[-1]
        if name == "rsqrt":
            return self.stages.apply("Reciprocal", [self.stages.apply("Sqrt", [self.tensor(expr.args[0])])])
        if name == "if_then_else":
            return self.stages.apply("Where", [self.tensor(a) for a in expr.args])
        if name not in CALLS:
            raise Unmapped(f"{self.block.name}: {name}")
        return self.stages.apply(CALLS[name], [self.tensor(a) for a in expr.args])

    # Loads

    def load(self, expr: Any) -> Value:
        """The loaded buffer, moved so that it lines up with the stage's axes."""
        x = self.stages.value(self.stages_key(expr))
        forms = [affine(index) for index in expr.indices]
        if any(f is None for f in forms):
            return self._irregular(x, expr)
        found = [form for form in forms if form is not None]
        if any(len(terms) > 1 for terms, _ in found):
            return self._irregular(x, expr)
        x, found = self._sliced(x, found)
        return self._aligned(x, [next(iter(terms), -1) for terms, _ in found])

    def stages_key(self, expr: Any) -> int:
        """Identity of the buffer that a load reads."""
        key: int = source_of(expr).__chandle__()
        return key

    def _sliced(self, x: Value, forms: list[Any]) -> tuple[Value, list[Any]]:
        """x cut to the range that strided or shifted indices take."""
        extent = dict(zip(self.axes, self.shape, strict=False))
        starts, ends, axes, steps = [], [], [], []
        for i, (terms, start) in enumerate(forms):
            variable, step = next(iter(terms.items()), (-1, 1))
            count = extent.get(variable, 1)
            if (start, step, count) == (0, 1, x.shape[i]) or (not terms and x.shape[i] == 1):
                continue
            if terms and step == 1 and start == 0 and x.shape[i] == 1:
                continue
            starts.append(start)
            ends.append(start + count * step if start + count * step >= 0 else -(2**31))
            axes.append(i)
            steps.append(step)
        if axes:
            x = self.stages.apply("Slice", [x, ints(starts), ints(ends), ints(axes), ints(steps)])
        return x, forms

    def _aligned(self, x: Value, variables: list[int]) -> Value:
        """x with its axes in the order of the stage's, ones where it has none."""
        places = [self.axes.index(v) if v in self.axes else -1 for v in variables]
        used = [(place, i) for i, place in enumerate(places) if place >= 0]
        if [i for _, i in sorted(used)] != [i for _, i in used] and len({p for p, _ in used}) == len(used):
            order = [i for _, i in sorted(used)] + [i for i, p in enumerate(places) if p < 0]
            x = transpose(self.stages.low, x, tuple(order))
            places = [places[i] for i in order]
        wanted = [1] * len(self.shape)
        for place, size in zip(places, x.shape, strict=False):
            if place >= 0:
                wanted[place] = size
            elif size != 1:
                raise Unmapped(self.block.name)
        trimmed = list(wanted)
        while len(trimmed) > len(x.shape) and trimmed[0] == 1:
            trimmed.pop(0)
        if len(x.shape) == len(trimmed) and tuple(trimmed) == x.shape:
            return x
        full = tuple(wanted)
        return self._reshaped(x, full if len(x.shape) <= len(self.shape) else self.shape)

    def _reshaped(self, x: Value, shape: Shape) -> Value:
        """x at another shape, as a squeeze or unsqueeze where the stage's name says so."""
        if self.kind == "T_squeeze" or len(x.shape) > len(shape):
            axes = _gone(x.shape, shape)
            if axes is not None:
                return self.stages.apply("Squeeze", [x], axes=axes)
        if self.kind == "expand_dims":
            axes = _gone(shape, x.shape)
            if axes is not None:
                return self.stages.apply("Unsqueeze", [x], axes=axes)
        return self.stages.apply("Reshape", [x, ints(shape)])

    def _irregular(self, x: Value, expr: Any) -> Value:
        """Indices that divide, wrap or depend on data."""
        indirect = [i for i, index in enumerate(expr.indices) if any(True for _ in loads(index))]
        if len(indirect) == 1:
            return self._gathered(x, expr, indirect[0])
        if indirect:
            raise Unmapped(self.block.name)
        if x.numel == math.prod(self.shape) and self.kind in _RESHAPES:
            return self.stages.apply("Reshape", [x, ints(self.shape)])
        raise Unmapped(self.block.name)

    def _gathered(self, x: Value, expr: Any, axis: int) -> Value:
        """One index is itself loaded: Gather along its axis."""
        inner = next(iter(loads(expr.indices[axis])))
        others = [affine(index) for i, index in enumerate(expr.indices) if i != axis]
        if any(o is None or o[1] or list(o[0].values()) not in ([1], []) for o in others):
            raise Unmapped(self.block.name)
        picked = self.stages.value(self.stages_key(inner))
        return self.stages.apply("Gather", [x, picked], axis=axis)


def _gone(long: Shape, short: Shape) -> tuple[int, ...] | None:
    """Axes of size one that turn `long` into `short` when removed, or None."""
    axes, j = [], 0
    for i, size in enumerate(long):
        if j < len(short) and size == short[j] and len(long) - i > len(short) - j - 1:
            left, right = long[i + 1 :], short[j + 1 :]
            if size != 1 or len(left) == len(right):
                j += 1
                continue
        if size != 1:
            return None
        axes.append(i)
    return tuple(axes) if j == len(short) else None


def numeric(expr: Any, where: dict[int, Any]) -> Any:
    """Elements of an expression of numbers and axes, or None."""
    name = kind(expr)
    if name in ("IntImm", "FloatImm"):
        return expr.value
    if name == "Var":
        return where.get(expr.__chandle__())
    if name == "Cast":
        return numeric(expr.value, where)
    if name == "Select" or (name == "Call" and str(expr.op.name).endswith("if_then_else")):
        parts = expr.args if name == "Call" else (expr.condition, expr.true_value, expr.false_value)
        found = [numeric(part, where) for part in parts]
        return None if any(f is None for f in found) else np.where(*found)
    function = _NUMERIC.get(name)
    if function is None:
        return None
    a, b = numeric(expr.a, where), numeric(expr.b, where)
    return None if a is None or b is None else function(a, b)


_NUMERIC: dict[str, Any] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "FloorDiv": np.floor_divide,
    "FloorMod": np.mod, "Max": np.maximum, "Min": np.minimum, "EQ": np.equal, "NE": np.not_equal, "LT": np.less,
    "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal, "And": np.logical_and, "Or": np.logical_or,
}  # fmt: skip

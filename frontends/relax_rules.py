"""Rules of Relax operators: each turns one call into the ONNX operators of the same meaning.

A rule receives evaluated arguments and returns a `Value`, a list of them (a Relax tuple), a tuple of ints (a shape) or
None. Convolutions, pools, norms and attention are in `relax_rules_nn`, operators that move data in
`relax_rules_tensor`; pointwise ones and reductions are here. An operator without a rule stays opaque.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.onnx_values import NUMPY_TYPES, ONNX_TYPES, Shape, Spec, Value, known
from frontends.relax_types import dtype_of, specs_of

if TYPE_CHECKING:
    from frontends.relax_lower import RelaxLowering

Rule = Callable[["Operands"], Any]
RULES: dict[str, Rule] = {}


def registry() -> dict[str, Rule]:
    """Every rule, by the operator's name without `relax.`."""
    for module in ("relax_rules_nn", "relax_rules_tensor"):
        importlib.import_module(f"frontends.{module}")
    return RULES


class Operands:
    """One call of a Relax operator with evaluated arguments.

    args   values, lists of values (tuples), tuples of ints (shapes), numbers
    attrs  the operator's attribute object, or None
    """

    __slots__ = ("args", "attrs", "low", "op", "type")

    def __init__(self, low: RelaxLowering, op: str, args: list[Any], attrs: Any, declared: Any) -> None:
        self.low = low
        self.op = op
        self.args = args
        self.attrs = attrs
        self.type = declared

    def __getitem__(self, i: int) -> Value:
        """Tensor argument i; numbers become constants of the first tensor's type."""
        found = self.args[i]
        if isinstance(found, Value):
            return found
        if isinstance(found, (bool, int, float)):
            like = next((a.dtype for a in self.args if isinstance(a, Value)), DType.FLOAT32)
            return number(found, like)
        if isinstance(found, tuple):
            return known(f"{self.low.label}.shape", np.array(found, dtype=np.int64))
        raise ShapeInferenceError(f"argument {i} is not a tensor")

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value: numbers, texts, tuples; `default` where it is absent or null."""
        return plain(getattr(self.attrs, name, None), default)

    def ints(self, i: int) -> Shape:
        """Argument i as integers: a shape, a tuple of numbers or a small constant."""
        found = self.args[i]
        if isinstance(found, Value):
            if found.content is None:
                raise ShapeInferenceError("its output shape depends on a value known at run time only")
            return tuple(int(v) for v in found.content.reshape(-1).tolist())
        if isinstance(found, (int, float)):
            return (int(found),)
        return tuple(int(self.ints_of(v)) for v in found)

    @staticmethod
    def ints_of(value: Any) -> int:
        """One integer of a tuple argument."""
        if isinstance(value, Value):
            if value.content is None:
                raise ShapeInferenceError("its output shape depends on a value known at run time only")
            return int(value.content.reshape(-1)[0])
        return int(value)

    def specs(self) -> list[Spec]:
        """Declared shapes and types of the results."""
        found = specs_of(self.type, self.low.symbols)
        if found is None:
            raise ShapeInferenceError("its output shape is not known; annotate it")
        return found

    def apply(self, op: str, inputs: list[Any], **attrs: Any) -> Value:
        """The single result of an ONNX operator."""
        return self.low.apply(op, inputs, attrs)[0]

    def opaque(self, op: str | None = None) -> list[Value]:
        """The results of this call, kept as an operator of unknown arithmetic."""
        from frontends.relax_lower import tensors_in

        return self.low.opaque(op or self.op, tensors_in(self.args), self.specs())


def plain(found: Any, default: Any = None) -> Any:
    """A TVM attribute value as a Python one."""
    if found is None:
        return default
    if isinstance(found, (bool, int, float, str)):
        return found
    if hasattr(found, "value"):
        return plain(found.value, default)
    if hasattr(found, "__len__") and not hasattr(found, "dtype"):
        return tuple(plain(v) for v in found)
    return str(getattr(found, "dtype", found))


def number(value: float | int | bool, dtype: DType) -> Value:
    """A constant of one element."""
    return known(f"scalar_{value}_{dtype.value}", np.array(value, dtype=NUMPY_TYPES.get(dtype, np.float32)))


def ints(values: Any, name: str = "ints") -> Value:
    """A constant vector of int64."""
    array = np.array(values, dtype=np.int64)
    return known(f"{name}_{'_'.join(map(str, array.reshape(-1).tolist()))}", array)


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of Relax operators, named without `relax.`."""

    def register(function: Rule) -> Rule:
        for op in ops:
            RULES[op] = function
        return function

    return register


def _named(table: dict[str, str], count: int) -> None:
    for name, op in table.items():
        RULES[name] = lambda o, op=op: o.apply(op, [o[i] for i in range(count)])  # type: ignore[misc]


UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh",
    "bitwise_not": "BitwiseNot", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "isinf": "IsInf", "isnan": "IsNaN", "log": "Log", "logical_not": "Not", "negative": "Neg",
    "round": "Round", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan",
    "tanh": "Tanh", "nn.relu": "Relu", "nn.gelu": "Gelu", "nn.selu": "Selu", "nn.silu": "Swish",
}  # fmt: skip
BINARY = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "maximum": "Max",
    "minimum": "Min", "floor_mod": "Mod", "mod": "Mod", "equal": "Equal", "greater": "Greater", "less": "Less",
    "greater_equal": "GreaterOrEqual", "less_equal": "LessOrEqual", "logical_and": "And", "logical_or": "Or",
    "logical_xor": "Xor", "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor",
}  # fmt: skip
REDUCTIONS = {"sum": "ReduceSum", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd", "mean": "ReduceMean"}

_named(UNARY, 1)
_named(BINARY, 2)


@rule("nn.gelu_tanh")
def _gelu_tanh(o: Operands) -> Value:
    return o.apply("Gelu", [o[0]], approximate="tanh")


@rule("nn.leakyrelu")
def _leaky_relu(o: Operands) -> Value:
    return o.apply("LeakyRelu", [o[0]], alpha=o.attr("alpha", 0.01))


@rule("nn.prelu")
def _prelu(o: Operands) -> Value:
    return o.apply("PRelu", [o[0], o[1]])


@rule("nn.softplus")
def _softplus(o: Operands) -> Value:
    return o.apply("Softplus", [o[0]])


@rule("nn.softmax", "nn.log_softmax")
def _softmax(o: Operands) -> Value:
    return o.apply("Softmax" if o.op == "relax.nn.softmax" else "LogSoftmax", [o[0]], axis=o.attr("axis", -1))


@rule("rsqrt")
def _rsqrt(o: Operands) -> Value:
    return o.apply("Reciprocal", [o.apply("Sqrt", [o[0]])])


@rule("square")
def _square(o: Operands) -> Value:
    return o.apply("Mul", [o[0], o[0]])


@rule("trunc")
def _trunc(o: Operands) -> Value:
    return o.apply("Mul", [o.apply("Sign", [o[0]]), o.apply("Floor", [o.apply("Abs", [o[0]])])])


@rule("isfinite")
def _is_finite(o: Operands) -> Value:
    return o.apply("Not", [o.apply("Or", [o.apply("IsNaN", [o[0]]), o.apply("IsInf", [o[0]])])])


@rule("not_equal")
def _not_equal(o: Operands) -> Value:
    return o.apply("Not", [o.apply("Equal", [o[0], o[1]])])


@rule("floor_divide")
def _floor_divide(o: Operands) -> Value:
    return floor_divide(o.low, o[0], o[1])


def floor_divide(low: RelaxLowering, a: Value, b: Value) -> Value:
    """Division rounded down; ONNX's integer Div rounds towards zero, which differs for negative constants."""
    if a.content is not None and b.content is not None and not a.dtype.is_float:
        return known(f"{low.label}.quotient", np.floor_divide(a.content, b.content))
    quotient = low.apply("Div", [a, b])[0]
    return low.apply("Floor", [quotient])[0] if quotient.dtype.is_float else quotient


@rule("left_shift", "right_shift")
def _shift(o: Operands) -> Value:
    return o.apply("BitShift", [o[0], o[1]], direction="LEFT" if o.op.endswith("left_shift") else "RIGHT")


@rule("ewise_fma")
def _fma(o: Operands) -> Value:
    return o.apply("Add", [o.apply("Mul", [o[0], o[1]]), o[2]])


@rule("clip")
def _clip(o: Operands) -> Value:
    return o.apply("Clip", [o[0], o[1], o[2]])


@rule("where")
def _where(o: Operands) -> Value:
    return o.apply("Where", [o[0], o[1], o[2]])


@rule("astype", "wrap_param")
def _cast(o: Operands) -> Value:
    return cast(o.low, o[0], dtype_of(o.attr("dtype")))


def cast(low: RelaxLowering, x: Value, dtype: DType) -> Value:
    """x at another element type."""
    return low.apply("Cast", [x], {"to": ONNX_TYPES[dtype]})[0]


@rule(*REDUCTIONS)
def _reduce(o: Operands) -> Value:
    return reduce(o.low, REDUCTIONS[o.op.removeprefix("relax.")], o[0], o.attr("axis"), bool(o.attr("keepdims", False)))


def reduce(low: RelaxLowering, op: str, x: Value, axes: Any, keepdims: bool) -> Value:
    """A reduction; the mean over all spatial axes of an image is a GlobalAveragePool."""
    rank = len(x.shape)
    listed = tuple(range(rank)) if axes is None else tuple(int(a) % rank for a in np.atleast_1d(axes))
    spatial = rank > 3 and sorted(listed) == list(range(2, rank)) and keepdims
    if spatial and op in ("ReduceMean", "ReduceMax"):
        return low.apply("GlobalAveragePool" if op == "ReduceMean" else "GlobalMaxPool", [x])[0]
    return low.apply(op, [x], {"axes": listed, "keepdims": int(keepdims)})[0]


@rule("variance", "std")
def _variance(o: Operands) -> Value:
    """Mean of the squared distance from the mean, as ONNX models spell it."""
    x, axes, keepdims = o[0], o.attr("axis"), bool(o.attr("keepdims", False))
    centred = o.apply("Sub", [x, reduce(o.low, "ReduceMean", x, axes, True)])
    found = reduce(o.low, "ReduceMean", o.apply("Mul", [centred, centred]), axes, keepdims)
    return o.apply("Sqrt", [found]) if o.op == "relax.std" else found


@rule("argmax", "argmin")
def _arg_reduce(o: Operands) -> Value:
    axis, x = o.attr("axis"), o[0]
    if axis is None:
        x, axis = o.apply("Reshape", [x, ints((x.numel,))]), 0
    return o.apply("ArgMax" if o.op == "relax.argmax" else "ArgMin", [x], axis=axis, keepdims=o.attr("keepdims", False))


@rule("cumsum", "cumprod")
def _cumulate(o: Operands) -> Value:
    x, axis = o[0], o.attr("axis")
    if axis is None:
        x, axis = o.apply("Reshape", [x, ints((x.numel,))]), 0
    attrs = {"exclusive": int(bool(o.attr("exclusive", False)))}
    return o.apply("CumSum" if o.op == "relax.cumsum" else "CumProd", [x, ints(axis)], **attrs)


@rule("matmul")
def _matmul(o: Operands) -> Value:
    return o.apply("MatMul", [o[0], o[1]])


@rule("outer")
def _outer(o: Operands) -> Value:
    return o.apply("Einsum", [o[0], o[1]], equation="i,j->ij")


@rule("einsum")
def _einsum(o: Operands) -> Value:
    operands = o.args[0] if isinstance(o.args[0], list) else o.args
    return o.apply("Einsum", operands, equation=str(o.attr("subscripts")))


@rule("quantize", "dequantize")
def _quantize(o: Operands) -> Value:
    op = "QuantizeLinear" if o.op == "relax.quantize" else "DequantizeLinear"
    return o.apply(op, [o[0], o[1], o[2]], axis=o.attr("axis", -1))

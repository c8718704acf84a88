"""Rules of element-wise operators, casts and copies."""

from __future__ import annotations

from costmodel.ir import DType
from frontends.torch_ops import Attrs, Call, Result, Value, broadcast, promoted, rule

_UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "arccos": "Acos", "arcsin": "Asin", "arctan": "Atan",
    "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh",
    "erf": "Erf", "special_erf": "Erf", "exp": "Exp", "floor": "Floor", "hardswish": "HardSwish", "log": "Log",
    "logical_not": "Not", "mish": "Mish", "neg": "Neg", "negative": "Neg", "reciprocal": "Reciprocal", "relu": "Relu",
    "round": "Round", "sigmoid": "Sigmoid", "special_expit": "Sigmoid", "sign": "Sign", "sgn": "Sign", "sin": "Sin",
    "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh", "isnan": "IsNaN", "isinf": "IsInf",
}  # fmt: skip

_BINARY = {
    "add": "Add", "sub": "Sub", "subtract": "Sub", "mul": "Mul", "multiply": "Mul", "pow": "Pow", "maximum": "Max",
    "minimum": "Min", "remainder": "Mod", "fmod": "Mod", "fmax": "Max", "fmin": "Min",
}  # fmt: skip

_COMPARE = {
    "eq": "Equal", "gt": "Greater", "greater": "Greater", "ge": "GreaterOrEqual", "greater_equal": "GreaterOrEqual",
    "lt": "Less", "less": "Less", "le": "LessOrEqual", "less_equal": "LessOrEqual",
}  # fmt: skip

_LOGICAL = {
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "bitwise_and": "And", "bitwise_or": "Or",
    "bitwise_xor": "Xor", "__and__": "And", "__or__": "Or", "__xor__": "Xor",
}  # fmt: skip


def _floating(c: Call, value: Value | None = None) -> Value:
    """The operand at the type of the result, where that is a float."""
    x = value or c.x
    return c.cast(x, c.out[1]) if c.out[1].is_float else x


@rule(*_UNARY)
def _unary(c: Call) -> Result:
    x = c.cast(c.x, DType.BOOL) if c.op == "logical_not" else _floating(c)
    return c.emit(_UNARY[c.op], [x])


@rule("bitwise_not")
def _bitwise_not(c: Call) -> Result:
    return c.emit("Not" if c.out[1] is DType.BOOL else "BitwiseNot", [c.x])


@rule("rsqrt")
def _rsqrt(c: Call) -> Result:
    return c.emit("Reciprocal", [c.emit("Sqrt", [_floating(c)])])


@rule("silu")
def _silu(c: Call) -> Result:
    return c.emit("Mul", [c.x, c.emit("Sigmoid", [c.x])])


@rule("gelu")
def _gelu(c: Call) -> Result:
    return c.emit("Gelu", [c.x], attrs={"approximate": c.get("approximate", "none")})


@rule("hardsigmoid")
def _hardsigmoid(c: Call) -> Result:
    return c.emit("HardSigmoid", [c.x], attrs={"alpha": 1 / 6, "beta": 0.5})


@rule("relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max")
def _clamp(c: Call) -> Result:
    """Bounds that are tensors take Max and Min, numbers a Clip."""
    low, high = (0, 6) if c.op == "relu6" else (c.get("min", c.get("min_val")), c.get("max", c.get("max_val")))
    x = c.cast(c.x, c.out[1])
    attrs: Attrs = {}
    for key, op, bound in (("min", "Max", low), ("max", "Min", high)):
        if isinstance(bound, Value):
            spec = (broadcast(x.shape, bound.shape), x.dtype)
            x = c.emit(op, [x, c.cast(bound, x.dtype)], spec)
        elif bound is not None and abs(bound) < 3.4e38:
            attrs[key] = float(bound)
    return c.emit("Clip", [x], attrs=attrs) if attrs else x


@rule("leaky_relu")
def _leaky_relu(c: Call) -> Result:
    return c.emit("LeakyRelu", [c.x], attrs={"alpha": float(c.get("negative_slope", 0.01))})


@rule("elu", "celu")
def _elu(c: Call) -> Result:
    return c.emit("Elu" if c.op == "elu" else "Celu", [c.x], attrs={"alpha": float(c.get("alpha", 1.0))})


@rule("selu")
def _selu(c: Call) -> Result:
    return c.emit("Selu", [c.x], attrs={"alpha": 1.67326, "gamma": 1.0507})


@rule("softplus")
def _softplus(c: Call) -> Result:
    """Beyond the threshold the input itself."""
    x, beta = c.x, float(c.get("beta", 1))
    scaled = x if beta == 1 else c.emit("Mul", [x, c.scalar(beta, x.dtype)])
    soft = c.emit("Softplus", [scaled])
    if beta != 1:
        soft = c.emit("Div", [soft, c.scalar(beta, x.dtype)])
    large = c.emit("Greater", [scaled, c.scalar(20, x.dtype)], (x.shape, DType.BOOL))
    return c.emit("Where", [large, x, soft])


@rule("softsign")
def _softsign(c: Call) -> Result:
    return c.emit("Softsign", [c.x])


@rule("softshrink", "hardshrink")
def _shrink(c: Call) -> Result:
    lambd = float(c.get("lambd", 0.5))
    return c.emit("Shrink", [c.x], attrs={"bias": lambd if c.op == "softshrink" else 0.0, "lambd": lambd})


@rule("threshold")
def _threshold(c: Call) -> Result:
    large = c.emit("Greater", [c.x, c.scalar(0, c.x.dtype)], (c.x.shape, DType.BOOL))
    return c.emit("Where", [large, c.x, c.scalar(0, c.x.dtype)])


@rule("log2", "log10", "log1p", "expm1", "exp2", "erfc", "square")
def _composed(c: Call) -> Result:
    """Two nodes each, with a constant."""
    x = _floating(c)
    one = c.scalar(1, x.dtype)
    if c.op == "square":
        return c.emit("Mul", [x, x])
    if c.op in ("log2", "log10"):
        return c.emit("Div", [c.emit("Log", [x]), one])
    if c.op == "log1p":
        return c.emit("Log", [c.emit("Add", [x, one])])
    if c.op == "exp2":
        return c.emit("Pow", [one, x])
    if c.op == "expm1":
        return c.emit("Sub", [c.emit("Exp", [x]), one])
    return c.emit("Sub", [one, c.emit("Erf", [x])])


@rule(
    "trunc", "fix", "atan2", "arctan2", "hypot", "__lshift__", "__rshift__", "bitwise_left_shift", "bitwise_right_shift"
)
def _composed_pairs(c: Call) -> Result:
    """Truncation away from the sign; the angle of a quotient, moved into its quadrant; √(x² + y²); shifts of bits."""
    x = c.x
    if c.op in ("trunc", "fix"):
        return c.emit("Mul", [c.emit("Sign", [x]), c.emit("Floor", [c.emit("Abs", [x])])])
    y = c.tensor("other")
    if "shift" in c.op:
        return c.emit(
            "BitShift", [x, y], attrs={"direction": "LEFT" if "left" in c.op or "lshift" in c.op else "RIGHT"}
        )
    if c.op == "hypot":
        return c.emit("Sqrt", [c.emit("Add", [c.emit("Mul", [v, v], v.spec) for v in (x, y)])])
    angle = c.emit("Atan", [c.emit("Div", [x, y])])
    moved = c.emit("Add", [angle, c.scalar(3.141593, c.out[1])])
    behind = c.emit("Less", [y, c.scalar(0, y.dtype)], (y.shape, DType.BOOL))
    return c.emit("Where", [behind, moved, angle])


@rule("log_sigmoid")
def _log_sigmoid(c: Call) -> Result:
    return c.emit("Log", [c.emit("Sigmoid", [c.x])])


@rule("prelu", "_prelu_kernel")
def _prelu(c: Call) -> Result:
    slope = c.tensor("weight")
    rank = len(c.x.shape)
    if len(slope.shape) == 1 and rank > 2:
        slope = c.reshape(slope, (1, slope.shape[0]) + (1,) * (rank - 2))
    return c.emit("PRelu", [c.x, slope])


@rule("glu")
def _glu(c: Call) -> Result:
    x = c.x
    axis = c.axis("dim", len(x.shape), -1)
    half = c.out[0][axis]
    left, right = c.emit_all("Split", [x], [c.out, c.out], {"axis": axis, "split": (half, half)})
    return c.emit("Mul", [left, c.emit("Sigmoid", [right])])


@rule(*_BINARY)
def _binary(c: Call) -> Result:
    dtype = c.out[1]
    keys = list(c.args)[:2]
    left, right = c.args[keys[0]], c.args[keys[1]]
    if c.op in ("add", "sub", "subtract") and c.get("alpha", 1) != 1:
        right = c.emit("Mul", [_operand(c, right, dtype), c.scalar(c.args["alpha"], dtype)], _like(c, right, dtype))
    elif isinstance(left, Value) and left.spec == c.out and _is_neutral(c.op, right):
        return left
    attrs: Attrs = {"fmod": 1} if c.op == "fmod" else {}
    return c.emit(_BINARY[c.op], [_operand(c, left, dtype), _operand(c, right, dtype)], attrs=attrs)


def _operand(c: Call, value: object, dtype: DType) -> Value:
    return c.cast(value, dtype) if isinstance(value, Value) else c.scalar(value, dtype)


def _like(c: Call, value: object, dtype: DType) -> tuple[tuple[int, ...], DType]:
    return (value.shape if isinstance(value, Value) else ()), dtype


def _is_neutral(op: str, number: object) -> bool:
    if isinstance(number, (Value, bool)):
        return False
    return number == (0 if op in ("add", "sub", "subtract") else 1) and op in ("add", "sub", "subtract", "mul", "div")


@rule("rsub")
def _rsub(c: Call) -> Result:
    left = c.tensor("other")
    return c.emit("Sub", [_operand(c, left, c.out[1]), _operand(c, c.x, c.out[1])])


@rule("div", "divide", "true_divide", "floor_divide")
def _div(c: Call) -> Result:
    rounding = "floor" if c.op == "floor_divide" else c.get("rounding_mode")
    left, right = list(c.args.values())[:2]
    if isinstance(left, Value) and left.spec == c.out and _is_neutral("div", right):
        return left
    quotient = c.emit("Div", [_operand(c, left, c.out[1]), _operand(c, right, c.out[1])])
    return c.emit("Floor", [quotient]) if rounding and c.out[1].is_float else quotient


@rule("addcmul", "addcdiv")
def _addc(c: Call) -> Result:
    x, a, b, value = c.x, c.tensor("tensor1"), c.tensor("tensor2"), c.get("value", 1)
    spec = (broadcast(a.shape, b.shape), c.out[1])
    if c.op == "addcdiv":
        product = c.emit("Div", [a, b], spec)
        if value != 1:
            product = c.emit("Mul", [product, c.scalar(value, c.out[1])], spec)
    else:
        scaled = a if value == 1 else c.emit("Mul", [a, c.scalar(value, a.dtype)], a.spec)
        product = c.emit("Mul", [scaled, b], spec)
    return c.emit("Add", [x, product])


@rule("lerp")
def _lerp(c: Call) -> Result:
    x, end = c.x, c.tensor("end")
    step = c.emit("Sub", [end, x], (broadcast(x.shape, end.shape), x.dtype))
    return c.emit("Add", [x, c.emit("Mul", [step, c.tensor("weight")])])


@rule(*_COMPARE, "ne", "not_equal")
def _compare(c: Call) -> Result:
    left, right = list(c.args.values())[:2]
    types = [v.dtype for v in (left, right) if isinstance(v, Value)]
    if any(isinstance(v, float) for v in (left, right)) and not any(t.is_float for t in types):
        types.append(DType.FLOAT32)
    dtype = promoted(*types)
    found = c.emit(_COMPARE.get(c.op, "Equal"), [_operand(c, left, dtype), _operand(c, right, dtype)])
    return c.emit("Not", [found]) if c.op in ("ne", "not_equal") else found


@rule(*_LOGICAL)
def _logical(c: Call) -> Result:
    left, right = list(c.args.values())[:2]
    bitwise = c.out[1] is not DType.BOOL
    op = f"Bitwise{_LOGICAL[c.op]}" if bitwise else _LOGICAL[c.op]
    return c.emit(op, [_operand(c, left, c.out[1]), _operand(c, right, c.out[1])])


@rule("where")
def _where(c: Call) -> Result:
    if "self" not in c.args:
        return _nonzero_places(c)
    test = c.cast(c.tensor("condition"), DType.BOOL)
    return c.emit("Where", [test, _operand(c, c.args["self"], c.out[1]), _operand(c, c.args["other"], c.out[1])])


def _nonzero_places(c: Call) -> Result:
    x = c.x
    count = c.out[0][0]
    places = c.emit("NonZero", [x], ((len(x.shape), count), DType.INT64))
    columns = c.emit_all(
        "Split", [places], [((1, count), DType.INT64)] * len(x.shape), {"axis": 0, "split": (1,) * len(x.shape)}
    )
    return [c.squeeze(column, 0) for column in columns]


@rule("masked_fill")
def _masked_fill(c: Call) -> Result:
    return c.emit("Where", [c.tensor("mask"), _operand(c, c.args["value"], c.out[1]), c.x])


@rule("isfinite")
def _isfinite(c: Call) -> Result:
    return c.emit("Not", [c.emit("Or", [c.emit("IsInf", [c.x]), c.emit("IsNaN", [c.x])])])


@rule("_to_copy", "to", "type_as", "_cast_Float", "copy", "float", "half", "bfloat16", "double", "int", "long", "bool")
def _cast(c: Call) -> Result:
    value = c.tensor("src") if c.op == "copy" else c.x
    return c.expand(c.cast(value, c.out[1]), c.out[0])


@rule("clone", "contiguous", "detach", "detach_copy", "alias", "lift_fresh_copy", "lift_fresh", "lift", "dropout",
      "native_dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "cpu", "cuda", "positive",
      "_conj", "conj", "resolve_conj", "resolve_neg", "requires_grad")  # fmt: skip
def _same(c: Call) -> Result:
    """What does nothing at inference. A dropout mask is a constant."""
    return [c.x, *(c.constant(*spec) if spec else None for spec in c.outs[1:])]

"""Groups of TIR stages that make one operator.

Each matcher looks at the stages from one on, maps those it knows and returns how many they are, or 0. It never maps
half of what it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from frontends.onnx_rules import Result
from frontends.onnx_values import Value
from frontends.relax_rules import ints, reduce
from frontends.relax_tir import Stages
from frontends.relax_tir_dense import combined, conv_transpose, key_of, padding, pool, product, reduction_axes, typed
from frontends.relax_tir_pointwise import Pointwise
from frontends.relax_types import kind
from frontends.tir_read import is_load, loads

Matcher = Callable[[Stages, int], int]


def _softmax(stages: Stages, i: int) -> int:
    """Maximum, exponential, sum and quotient; three stages for the logarithm."""
    if stages.kind_at(i) not in ("T_softmax_maxelem", "T_fast_softmax_maxelem"):
        return 0
    term = combined(stages, i, "Max")
    if term is None or not is_load(term):
        return 0
    plain = stages.kind_at(i + 3) in ("T_softmax_norm", "T_fast_softmax_norm")
    count = 4 if plain else 3
    block, last = stages.blocks[i], stages.blocks[i + count - 1]
    reduced = reduction_axes(block)
    axis = next(k for k, index in enumerate(term.indices) if kind(index) == "Var" and index.__chandle__() in reduced)
    x = stages.value(key_of(term))
    stages.held[last.stores[0][0]] = stages.apply("Softmax" if plain else "LogSoftmax", [x], axis=axis)
    return count


_NORMS = {
    "T_layer_norm": "LayerNormalization",
    "T_rms_norm": "RMSNormalization",
    "T_instance_norm": "InstanceNormalization",
    "T_group_norm": "GroupNormalization",
}


def _norm(stages: Stages, i: int) -> int:
    """From the sums to the last stage of a normalisation."""
    last = next((j for j in range(i, min(i + 8, len(stages.blocks))) if stages.kind_at(j) in _NORMS), None)
    first = stages.kind_at(i)
    starts = first.endswith(("_sum", "_red_temp", "_red")) or first in ("T_cast", "T_reshape")
    if last is None or last == i or not starts or any(_is_result(stages, j) for j in range(i, last)):
        return 0
    op = _NORMS[stages.kind_at(last)]
    made = {key for j in range(i, last) for key, _, _ in stages.blocks[j].stores}
    if first == "T_reshape" and op != "GroupNormalization":
        return 0
    outer = _outer_loads(stages, i, last, made)
    x, rest = stages.value(outer[0]), [stages.value(k) for k in outer[1:]]
    block, key = stages.blocks[last], stages.blocks[last].stores[0][0]
    if op == "GroupNormalization":
        return _group_norm(stages, i, last, x, rest)
    if op == "InstanceNormalization":
        stages.held[key] = stages.low.keep(Result([(x.shape, x.dtype)], {}, [x, *rest], op))[0]
        return last - i + 1
    sums = next(stages.blocks[j] for j in range(i, last + 1) if reduction_axes(stages.blocks[j]))
    found = stages.apply(op, [x, *rest], axis=len(block.axes) - len(reduction_axes(sums)))
    stages.held[key] = found
    following = last + 1
    if op == "RMSNormalization" and stages.kind_at(following) == "T_cast" and first == "T_cast":
        stages.held[stages.blocks[following].stores[0][0]] = found
        return following - i + 1
    return last - i + 1


def _is_result(stages: Stages, i: int) -> bool:
    return any(key in stages.results for key, _, _ in stages.blocks[i].stores)


def _outer_loads(stages: Stages, first: int, last: int, made: set[int]) -> list[int]:
    """Buffers that stages read from outside their group, in order of first use, the normalised one first."""
    found: list[int] = []
    for j in range(first, last + 1):
        block = stages.blocks[j]
        expressions = [*block.lets.values(), *(value for _, _, value in block.stores)]
        for expr in expressions:
            found += [key_of(load) for load in loads(expr) if key_of(load) not in made]
    outside = list(dict.fromkeys(found))
    own = {key for j in range(first, last + 1) for key, _, _ in stages.blocks[j].stores}
    return [key for key in outside if key not in own]


def _group_norm(stages: Stages, first: int, last: int, x: Value, rest: list[Value]) -> int:
    """Channels are split into groups by reshapes before and after."""
    after = last + 1
    if stages.kind_at(after) != "T_reshape" or stages.kind_at(first) != "T_reshape":
        return 0
    groups = stages.shape(stages.blocks[last].stores[0][0])[1]
    result = Result([(x.shape, x.dtype)], {"num_groups": groups}, [x, *rest], "GroupNormalization")
    stages.held[stages.blocks[after].stores[0][0]] = stages.low.keep(result)[0]
    return after - first + 1


_TANH_GELU = "T_multiply T_multiply T_multiply T_multiply T_add T_multiply compute T_add T_multiply"
_SELU = "T_maximum compute T_subtract T_multiply T_minimum T_add T_multiply"
_SEQUENCES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("gelu", "T_multiply compute T_multiply T_add T_multiply", "Gelu", {}),
    ("gelu", _TANH_GELU, "Gelu", {"approximate": "tanh"}),
    ("silu", "compute T_multiply", "Swish", {}),
    ("selu", _SELU, "Selu", {}),
)


def _activation(stages: Stages, i: int) -> int:
    """Activations of several stages, where the function's name mentions them."""
    for token, names, op, attrs in _SEQUENCES:
        kinds = names.split()
        if token not in stages.tokens or [stages.kind_at(i + k) for k in range(len(kinds))] != kinds:
            continue
        source = {key_of(load) for load in loads(stages.single(i)[3])}
        made = {key for j in range(i, i + len(kinds)) for key, _, _ in stages.blocks[j].stores}
        outer = {key_of(load) for j in range(i, i + len(kinds)) for load in loads(stages.single(j)[3])} - made
        if len(source) == 1 and outer == source:
            stages.held[stages.single(i + len(kinds) - 1)[1]] = stages.apply(op, [stages.value(source.pop())], **attrs)
            return len(kinds)
    return 0


_REDUCERS = (("Add", "ReduceSum"), ("Max", "ReduceMax"), ("Min", "ReduceMin"), ("Mul", "ReduceProd"))


def _reduction(stages: Stages, i: int) -> int:
    """A reduction of one load; a sum that is then divided by its count is a mean."""
    for operator, op in _REDUCERS:
        term = combined(stages, i, operator)
        if term is None or not is_load(term):
            continue
        block, key = stages.blocks[i], stages.blocks[i].stores[0][0]
        x, reduced = stages.value(key_of(term)), set(reduction_axes(block))
        axes = [k for k, index in enumerate(term.indices) if kind(index) == "Var" and index.__chandle__() in reduced]
        if len(axes) != len(reduced) or any(kind(index) != "Var" for index in term.indices):
            return 0
        shape = stages.shape(key)
        keepdims = len(shape) == len(x.shape)
        count = math.prod(x.shape[k] for k in axes)
        if op == "ReduceSum" and _divides_by(stages, i + 1, key, count):
            stages.held[stages.blocks[i + 1].stores[0][0]] = reduce(stages.low, "ReduceMean", x, axes, keepdims)
            return 2
        found = reduce(stages.low, op, x, axes, keepdims)
        stages.held[key] = found if found.shape == shape else stages.apply("Reshape", [found, ints(shape)])
        return 1
    return 0


def _divides_by(stages: Stages, i: int, key: int, count: int) -> bool:
    """Whether a stage is the buffer over a number of elements, and nobody else reads that buffer."""
    if i >= len(stages.blocks) or len(stages.blocks[i].stores) != 1 or key in stages.results:
        return False
    value = stages.blocks[i].stores[0][2]
    if kind(value) != "Div" or not is_load(value.a) or kind(value.b) not in ("FloatImm", "IntImm"):
        return False
    readers = sum(key_of(load) == key for b in stages.blocks for _, _, v in b.stores for load in loads(v))
    accumulates = 1
    return key_of(value.a) == key and float(value.b.value) == count and readers == 1 + accumulates


def _arg_reduction(stages: Stages, i: int) -> int:
    """Index and value reduced together, then the index alone."""
    op = "ArgMax" if "argmax" in stages.tokens else "ArgMin" if "argmin" in stages.tokens else ""
    if not op or not stages.kind_at(i).endswith("_red_temp") or not stages.kind_at(i + 1).endswith("_red"):
        return 0
    block = stages.blocks[i]
    own = {key for key, _, _ in block.stores}
    load = next((n for e in block.lets.values() for n in loads(e) if key_of(n) not in own), None)
    if load is None:
        return 0
    reduced = set(reduction_axes(block))
    axes = [k for k, index in enumerate(load.indices) if kind(index) == "Var" and index.__chandle__() in reduced]
    if len(axes) != 1:
        return 0
    key, x = stages.blocks[i + 1].stores[0][0], stages.value(key_of(load))
    keepdims = int(len(stages.shape(key)) == len(x.shape))
    found = stages.apply(op, [x], axis=axes[0], keepdims=keepdims)
    stages.held[key] = typed(stages, found, key)
    return 2


def _split(stages: Stages, i: int) -> int:
    """One stage per part, each a range of the same buffer."""
    parts: list[tuple[int, Any]] = []
    while stages.kind_at(i + len(parts)).startswith("T_split"):
        _, key, _, value = stages.single(i + len(parts))
        if not is_load(value) or (parts and key_of(value) != key_of(parts[0][1])):
            break
        parts.append((key, value))
    if len(parts) < 2:
        return 0
    x, shapes = stages.value(key_of(parts[0][1])), [stages.shape(key) for key, _ in parts]
    axis = next((k for k in range(len(x.shape)) if shapes[0][k] != x.shape[k]), None)
    if axis is None or sum(shape[axis] for shape in shapes) != x.shape[axis]:
        return 0
    found = stages.low.apply("Split", [x, ints([s[axis] for s in shapes])], {"axis": axis}, outputs=len(parts))
    stages.held.update((key, value) for (key, _), value in zip(parts, found, strict=False))
    return len(parts)


def _joined(stages: Stages, i: int) -> int:
    """Concatenation and stacking: a choice between loads of several buffers."""
    named = stages.kind_at(i)
    if named not in ("T_concat", "T_stack"):
        return 0
    _block, key, _, value = stages.single(i)
    parts = _branches(value)
    if any(not is_load(p) for p in parts):
        return 0
    values = [stages.value(key_of(p)) for p in reversed(parts)]
    shape = stages.shape(key)
    if named == "T_concat":
        axis = next((k for k in range(len(shape)) if values[0].shape[k] != shape[k]), 0)
        stages.held[key] = stages.apply("Concat", values, axis=axis)
        return 1
    axis = next((k for k in range(len(shape)) if shape[:k] + shape[k + 1 :] == values[0].shape
                 and shape[k] == len(values)), 0)  # fmt: skip
    result = Result([(shape, values[0].dtype)], {"axis": axis}, values, "relax.stack")
    stages.held[key] = stages.low.keep(result)[0]
    return 1


def _branches(value: Any) -> list[Any]:
    """Values of nested choices, the first condition's first."""
    if kind(value) == "Call" and str(value.op.name).endswith("if_then_else"):
        return [*_branches(value.args[1]), *_branches(value.args[2])]
    return [value]


def _resize(stages: Stages, i: int) -> int:
    if stages.kind_at(i) != "resize":
        return 0
    _, key, _, value = stages.single(i)
    x = stages.value(key_of(next(iter(loads(value)))))
    taps = sum(1 for _ in loads(value))
    changed = sum(a != b for a, b in zip(x.shape, stages.shape(key), strict=False))
    mode = "nearest" if taps == 1 else "linear" if taps <= 2**changed * 2 else "cubic"
    attrs = {"coordinate_transformation_mode": "asymmetric" if taps == 1 else "half_pixel", "nearest_mode": "floor"}
    stages.held[key] = stages.apply("Resize", [x, None, None, ints(stages.shape(key))], mode=mode, **attrs)
    return 1


def _quantized(stages: Stages, i: int) -> int:
    """Stages `quantized` and `dequantized` with their scale, a constant or a tensor."""
    op = {"quantized": "QuantizeLinear", "dequantized": "DequantizeLinear"}.get(stages.kind_at(i))
    if op is None:
        return 0
    _, key, _, value = stages.single(i)
    operands = [stages.value(k) for k in dict.fromkeys(key_of(load) for load in loads(value))]
    scale = operands[1] if len(operands) > 1 else Value("scale", (), stages.dtype(key), const=True)
    shape = stages.shape(key)
    result = Result([(shape, stages.dtype(key))], {}, [operands[0], scale], op)
    stages.held[key] = stages.low.keep(result)[0]
    return 1


def _triangle(stages: Stages, i: int) -> int:
    if stages.kind_at(i) != "trilu":
        return 0
    _, key, _, value = stages.single(i)
    x = stages.value(key_of(next(iter(loads(value)))))
    stages.held[key] = stages.apply("Trilu", [x], upper=int(not stages.tokens & {"tril"}))
    return 1


def _tiled(stages: Stages, i: int) -> int:
    """Indices that wrap around: the tensor repeated."""
    if stages.kind_at(i) != "T_tile":
        return 0
    _, key, _, value = stages.single(i)
    if not is_load(value):
        return 0
    x, shape = stages.value(key_of(value)), stages.shape(key)
    if len(shape) != len(x.shape):
        return 0
    stages.held[key] = stages.apply("Tile", [x, ints(tuple(a // b for a, b in zip(shape, x.shape, strict=False)))])
    return 1


def _dropped(stages: Stages, i: int) -> int:
    """Dropout at inference passes its input on."""
    if "dropout" not in stages.tokens or stages.kind_at(i) != "T_full_like":
        return 0
    Pointwise(stages, i).store()
    return 1


MATCHERS: tuple[Matcher, ...] = (
    _softmax, _norm, _activation, conv_transpose, padding, product, pool, _arg_reduction, _reduction, _joined,
    _split, _resize, _quantized, _triangle, _tiled, _dropped,
)  # fmt: skip

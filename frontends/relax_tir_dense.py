"""TIR stages of padding, convolutions, matrix products and pools."""

from __future__ import annotations

import math
from typing import Any

from frontends.onnx_values import Shape, Value
from frontends.relax_rules import Operands
from frontends.relax_rules_nn import adaptive_pool, windowed
from frontends.relax_rules_tensor import transpose
from frontends.relax_tir import Padded, Stages, Unmapped
from frontends.relax_types import kind
from frontends.tir_read import Block, affine, is_load, loads, source_of


def key_of(load: Any) -> int:
    found: int = source_of(load).__chandle__()
    return found


def reduction_axes(block: Block) -> list[int]:
    return [a.key for a in block.axes if a.kind == "R"]


def combined(stages: Stages, i: int, operator: str) -> Any | None:
    """What a reduction stage adds (or takes the maximum of…) to its accumulator, or None if it is not one."""
    if i >= len(stages.blocks):
        return None
    block = stages.blocks[i]
    if len(block.stores) != 1 or block.lets or not reduction_axes(block) or not block.init:
        return None
    key, _, value = block.stores[0]
    if kind(value) != operator:
        return None
    for accumulator, term in ((value.a, value.b), (value.b, value.a)):
        if is_load(accumulator) and key_of(accumulator) == key:
            return term
    return None


def padding(stages: Stages, i: int) -> int:
    """A shifted copy inside a larger buffer."""
    if stages.kind_at(i) not in ("pad_temp", "PadInput", "data_pad", "T_pad"):
        return 0
    _block, key, _, value = stages.single(i)
    load, fill = value, 0.0
    if kind(value) == "Call" and str(value.op.name).endswith("if_then_else"):
        load = value.args[1]
        fill = float(value.args[2].value) if kind(value.args[2]) in ("FloatImm", "IntImm") else 0.0
    if not is_load(load):
        return 0
    forms = [affine(index) for index in load.indices]
    if any(f is None or len(f[0]) > 1 for f in forms):
        return 0
    x = stages.value(key_of(load))
    before = tuple(-form[1] for form in forms if form is not None)
    after = tuple(size - n - b for size, n, b in zip(stages.shape(key), x.shape, before, strict=False))
    padded = any(before) or any(after)
    stages.held[key] = Padded(x, before, after, fill) if padded else x
    return 1


def conv_transpose(stages: Stages, i: int) -> int:
    """Dilated and padded data, a flipped kernel, and their product."""
    if stages.kind_at(i) != "data_dilate" or stages.kind_at(i + 1) != "data_pad":
        return 0
    if not stages.kind_at(i + 2).startswith("kernel"):
        return 0
    data = next(iter(loads(stages.single(i)[3])))
    kernel = next(iter(loads(stages.single(i + 2)[3])))
    x, w = stages.value(key_of(data)), stages.value(key_of(kernel))
    dilated = stages.shape(stages.single(i)[1])
    key = stages.blocks[i + 3].stores[0][0]
    out = stages.shape(key)
    if out[1] % w.shape[1] or x.shape[1] != w.shape[0]:
        return 0
    strides = tuple((d - 1) // max(n - 1, 1) for d, n in zip(dilated[2:], x.shape[2:], strict=False))
    total = [(n - 1) * s + k - o for n, s, k, o in zip(x.shape[2:], strides, w.shape[2:], out[2:], strict=False)]
    pads = (*(max(t, 0) // 2 for t in total), *(max(t, 0) - max(t, 0) // 2 for t in total))
    attrs: dict[str, Any] = {"strides": strides, "pads": pads, "group": out[1] // w.shape[1]}
    if min(total) < 0:
        attrs["output_padding"] = tuple(max(-t, 0) for t in total)
    stages.held[key] = stages.apply("ConvTranspose", [x, w], **attrs)
    return 4


def product(stages: Stages, i: int) -> int:
    """A sum of products of two loads: convolution, matrix product or einsum."""
    term = combined(stages, i, "Add")
    while term is not None and kind(term) == "Cast":
        term = term.value
    if term is None or kind(term) != "Mul":
        return 0
    a, b = (_uncast(term.a), _uncast(term.b))
    if not is_load(a) or not is_load(b):
        return 0
    block, key = stages.blocks[i], stages.blocks[i].stores[0][0]
    windows = [k for k, index in enumerate(a.indices) if _is_window(index, block)]
    if windows:
        return _convolution(stages, block, key, a, b, windows)
    return _contraction(stages, block, key, a, b)


def _uncast(expr: Any) -> Any:
    return _uncast(expr.value) if kind(expr) == "Cast" else expr


def _is_window(index: Any, block: Block) -> bool:
    """Whether an index runs over output pixels and kernel taps together."""
    form = affine(index)
    if form is None or len(form[0]) != 2:
        return False
    kinds = {a.key: a.kind for a in block.axes}
    return sorted(kinds.get(v, "") for v in form[0]) == ["R", "S"]


def _window(index: Any, block: Block) -> tuple[int, int, int, int]:
    """Output axis, stride, kernel axis and dilation of a windowed index."""
    form = affine(index)
    kinds = {a.key: a.kind for a in block.axes}
    if form is None:
        raise Unmapped(block.name)
    (out, stride), (tap, dilation) = sorted(form[0].items(), key=lambda item: kinds[item[0]] == "R")
    return out, stride, tap, dilation


def _positions(indices: Any) -> dict[int, int]:
    """Variable → position, of the indices that are a plain variable."""
    return {index.__chandle__(): k for k, index in enumerate(indices) if kind(index) == "Var"}


def _convolution(stages: Stages, block: Block, key: int, a: Any, b: Any, windows: list[int]) -> int:
    extents = {axis.key: axis.extent for axis in block.axes}
    out = _positions(block.stores[0][1])
    taps = _positions(b.indices)
    spatial = [k for k in windows if _window(a.indices[k], block)[2] in taps and _window(a.indices[k], block)[0] in out
               and _window(a.indices[k], block)[0] not in taps]  # fmt: skip
    if not spatial or len(a.indices) != len(spatial) + 2 or len(b.indices) != len(a.indices):
        return 0
    found = [_window(a.indices[k], block) for k in spatial]
    channel = next(k for k in range(len(a.indices)) if k and k not in spatial)
    layout = "".join("C" if k == channel else "N" if k == 0 else "DHW"[3 - len(spatial) + spatial.index(k)]
                     for k in range(len(a.indices)))  # fmt: skip
    kernel = tuple(extents[tap] for _, _, tap, _ in found)
    features = stages.shape(key)[_feature_axis(block, taps, {o for o, _, _, _ in found}, out)]
    x, pads = stages.unpadded(key_of(a), spatial)
    w = stages.value(key_of(b))
    depth = w.numel // (features * math.prod(kernel))
    shape: Shape = (features, depth, *kernel)
    if w.shape != shape:
        if not w.const:
            return 0
        w = Value(f"{w.name}.oi", shape, w.dtype, const=True, origins=w.origins)
    attrs = {
        "strides": tuple(stride for _, stride, _, _ in found),
        "dilations": tuple(dilation for _, _, _, dilation in found),
        "pads": pads,
        "group": x.shape[channel] // depth,
    }
    made = windowed(Operands(stages.low, "relax.nn.conv", [x, w], None, None), "Conv", x, [w], attrs, layout)
    stages.held[key] = made
    return 1


def _feature_axis(block: Block, taps: dict[int, int], pixels: set[int], out: dict[int, int]) -> int:
    """Position of the output's channel axis: the one that the weight has too."""
    for variable, position in out.items():
        if variable in taps and variable not in pixels:
            return position
    raise Unmapped(block.name)


def _contraction(stages: Stages, block: Block, key: int, a: Any, b: Any) -> int:
    """MatMul where the axes are in its order, Gemm's transposed weight, otherwise Einsum."""
    x, y = stages.value(key_of(a)), stages.value(key_of(b))
    letters = {axis.key: chr(97 + k) for k, axis in enumerate(block.axes)}
    out = _letters(block.stores[0][1], letters)
    left, right = _letters(a.indices, letters), _letters(b.indices, letters)
    reduced = [letters[k] for k in reduction_axes(block)]
    if out is None or left is None or right is None:
        return 0
    if len(reduced) == 1 and len(out) > 1 and len(left) > 1 and len(right) > 1:
        k, rows, columns = reduced[0], out[-2], out[-1]
        batch = out[:-2]
        if left[-2:] == rows + k and _suffix(left[:-2], batch):
            if right[-2:] == k + columns and _suffix(right[:-2], batch):
                stages.held[key] = typed(stages, stages.apply("MatMul", [x, y]), key)
                return 1
            if right == columns + k and y.const:
                found = stages.apply("MatMul", [x, transpose(stages.low, y, (1, 0))])
                stages.held[key] = typed(stages, found, key)
                return 1
    equation = f"{left.replace('1', '')},{right.replace('1', '')}->{out.replace('1', '')}"
    if "1" in left + right + out:
        return 0
    stages.held[key] = typed(stages, stages.apply("Einsum", [x, y], equation=equation), key)
    return 1


def _suffix(batch: str, whole: str) -> bool:
    """Whether batch axes line up with those of the output, ones and missing ones broadcasting."""
    tail = whole[len(whole) - len(batch) :]
    return len(batch) <= len(whole) and all(b in ("1", w) for b, w in zip(batch, tail, strict=False))


def _letters(indices: Any, letters: dict[int, str]) -> str | None:
    found = []
    for index in indices:
        if kind(index) == "Var":
            found.append(letters[index.__chandle__()])
        elif kind(index) == "IntImm":
            found.append("1")
        else:
            return None
    return "".join(found)


def typed(stages: Stages, value: Value, key: int) -> Value:
    """The product at the type of its buffer (an integer product accumulates wider)."""
    wanted = stages.dtype(key)
    if value.dtype != wanted:
        value.dtype = wanted
        stages.low.tensors[value.name] = stages.low.spec(value.shape, wanted)
    return value


def pool(stages: Stages, i: int) -> int:
    """Maximum or sum over a window; the sum is followed by the division."""
    named = stages.kind_at(i)
    if named not in ("pool_max", "pool_sum", "adaptive_pool_sum"):
        return 0
    term = combined(stages, i, "Max" if named == "pool_max" else "Add")
    if term is None or not is_load(term):
        return 0
    block = stages.blocks[i]
    spatial = [k for k, index in enumerate(term.indices) if _is_window(index, block)]
    if not spatial:
        return 0
    count = 1 if named == "pool_max" else 2
    key = stages.blocks[i + count - 1].stores[0][0]
    rank = len(term.indices)
    channel = next(k for k in range(rank) if k and k not in spatial)
    layout = "".join("C" if k == channel else "N" if k == 0 else "DHW"[3 - len(spatial) + spatial.index(k)]
                     for k in range(rank))  # fmt: skip
    x, pads = stages.unpadded(key_of(term), spatial)
    o = Operands(stages.low, "relax.nn.pool", [x], None, None)
    out = tuple(stages.shape(key)[k] for k in spatial)
    if named == "adaptive_pool_sum":
        stages.held[key] = adaptive_pool(o, tuple(x.shape[k] for k in spatial), out, layout)
        return 2
    stages.held[key] = _windowed_pool(stages, o, block, term, spatial, pads, layout, out, i if count == 2 else None)
    return count


def _windowed_pool(
    stages: Stages, o: Operands, block: Block, term: Any, spatial: list[int], pads: Shape, layout: str, out: Shape,
    sum_stage: int | None,
) -> Value:  # fmt: skip
    extents = {axis.key: axis.extent for axis in block.axes}
    found = [_window(term.indices[k], block) for k in spatial]
    sizes = [stages.shape(key_of(term))[k] for k in spatial]
    kernel = tuple(extents[tap] for _, _, tap, _ in found)
    strides = tuple(stride for _, stride, _, _ in found)
    dilations = tuple(dilation for _, _, _, dilation in found)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=False)]
    x, half = o[0], len(spatial)
    given = [x.shape[k] for k in spatial]
    # padding that only rounding up asked for is cut to what the last window reads
    needed = [(n - 1) * s + w - g - b for n, s, w, g, b in zip(out, strides, spans, given, pads, strict=False)]
    after = [max(b, min(a, n)) if a > b else a for b, a, n in zip(pads, pads[half:], needed, strict=False)]
    floor = [(n - s) // step + 1 for n, s, step in zip(sizes, spans, strides, strict=False)]
    if tuple(floor) != out:
        raise Unmapped(block.name)
    attrs: dict[str, Any] = {
        "kernel_shape": kernel, "strides": strides, "dilations": dilations,
        "pads": (*pads[:half], *after),
    }  # fmt: skip
    if sum_stage is None:
        return windowed(o, "MaxPool", x, [], attrs, layout)
    divisor = stages.single(sum_stage + 1)[3].b
    attrs["count_include_pad"] = int(kind(divisor) == "FloatImm" and any(pads))
    return windowed(o, "AveragePool", x, [], attrs, layout)

"""Converters of Relay operators that reshape, join, cut, pad and index tensors."""

from __future__ import annotations

import math

from costmodel.ir import AttrValue, DType
from frontends.relay_ast import TensorType, TupleType, resolve
from frontends.relay_ops import OpCall, Value, converter, ir_axis
from frontends.relay_raw import TensorVal, constant, in_layout, ordered
from frontends.relay_relations import Layout
from frontends.relay_relations_shape import pad_widths, permutation, slice_ranges


@converter("reshape", "dyn.reshape", "reshape_like", "contrib_reverse_reshape")
def _reshape(c: OpCall) -> Value:
    return TensorVal(c.to.reshape(c.x(0), c.out))


@converter("nn.batch_flatten")
def _flatten(c: OpCall) -> Value:
    return TensorVal(c.to.reshape(c.x(0), c.out, "Flatten", axis=1))


@converter("transpose")
def _transpose(c: OpCall) -> Value:
    """Between image layouts only the view changes; any other permutation is a node."""
    value = c.value(0)
    perm = permutation(c.site, len(value.shape))
    if value.layout is not None and all(factor is None for _, factor in value.layout.parts):
        letters = "".join(value.layout.parts[p][0] for p in perm)
        if letters in ("NCHW", "NHWC", "NCDHW", "NDHWC", "NCW", "NWC"):
            return in_layout(value.tensor, Layout(letters))
    return TensorVal(c.to.transpose(c.x(0), perm))


@converter("layout_transform")
def _layout_transform(c: OpCall) -> Value:
    source, target = Layout(c.site.text("src_layout", "NCHW")), Layout(c.site.text("dst_layout", "NCHW"))
    if set(source.axes) == set(target.axes) and "N" in source.axes and "C" in source.axes:
        x = c.to.place_value(c.value(0), source)
        sizes = dict(zip(ordered(target, "NCDHW"), x.shape, strict=True))
        if target.shape(dict(sizes)) == c.out and math.prod(c.out) == x.numel:
            return in_layout(x, target)
    x = c.to.to_ir(c.x(0), source, "OIDHW")
    if x.numel != math.prod(c.out):
        return TensorVal(c.to.one("Pad", [x], c.out, x.dtype, mode="constant"))
    if target.text == ordered(target, "OIDHW"):
        return TensorVal(c.to.reshape(x, c.out))
    return TensorVal(c.to.one("Transpose", [c.to.reshape(x, c.out)], c.out, x.dtype, perm=tuple(range(len(c.out)))))


@converter("expand_dims", "dyn.expand_dims")
def _expand_dims(c: OpCall) -> Value:
    rank, count = len(c.value(0).shape), c.site.integer("num_newaxis", 1)
    axis = c.site.integer("axis", 0)
    axis = axis + rank + 1 if axis < 0 else axis
    return TensorVal(c.to.reshape(c.x(0), c.out, "Unsqueeze", axes=tuple(range(axis, axis + count))))


@converter("squeeze", "dyn.squeeze")
def _squeeze(c: OpCall) -> Value:
    shape = c.value(0).shape
    axes = c.site.axes(len(shape))
    if axes is None:
        axes = tuple(i for i, d in enumerate(shape) if d == 1)
    return TensorVal(c.to.reshape(c.x(0), c.out, "Squeeze", axes=axes))


@converter("broadcast_to", "broadcast_to_like", "dyn.broadcast_to")
def _broadcast_to(c: OpCall) -> Value:
    x = c.x(0)
    return TensorVal(x) if x.shape == c.out else c.emit("Expand", [x])


@converter("collapse_sum_to", "collapse_sum_like")
def _collapse(c: OpCall) -> Value:
    x, rank = c.x(0), len(c.out)
    if x.shape == c.out:
        return TensorVal(x)
    lead = len(x.shape) - rank
    axes = tuple(i for i, d in enumerate(x.shape) if i < lead or (d != 1 and c.out[i - lead] == 1))
    return c.emit("ReduceSum", [x], axes=axes, keepdims=0)


@converter("concatenate", "qnn.concatenate")
def _concatenate(c: OpCall) -> Value:
    parts = c.parts(0)
    if len(parts) == 1:
        return parts[0]
    axis = c.site.axis(len(parts[0].shape), default=0)
    layouts = {v.layout.text if v.layout is not None else "" for v in parts}
    place = ir_axis(parts[0], axis)
    if place is None and len(layouts) == 1 and parts[0].layout is not None and parts[0].layout.parts[axis][1] is None:
        place = ordered(parts[0].layout, "NCDHW").index(parts[0].layout.parts[axis][0])
    if len(layouts) == 1 and parts[0].layout is not None and place is not None:
        return c.give("Concat", [v.tensor for v in parts], parts[0].layout, {"axis": place})
    return c.emit("Concat", [c.to.from_ir(v) for v in parts], axis=axis)


@converter("stack")
def _stack(c: OpCall) -> Value:
    parts = [c.to.from_ir(v) for v in c.parts(0)]
    axis = c.site.axis(len(c.out), default=0)
    shape = (*c.out[:axis], 1, *c.out[axis + 1 :])
    widened = [c.to.reshape(x, shape, "Unsqueeze", axes=(axis,)) for x in parts]
    return c.emit("Concat", widened, axis=axis)


@converter("split")
def _split(c: OpCall) -> Value:
    assert isinstance(c.type, TupleType)
    value = c.value(0)
    axis = c.site.axis(len(value.shape), default=0)
    specs = [
        (tuple(d or 0 for d in t.shape), c.dtype) for t in map(resolve, c.type.fields) if isinstance(t, TensorType)
    ]
    sizes = tuple(shape[axis] for shape, _ in specs)
    if len(specs) == 1:
        return [value]
    place = ir_axis(value, axis)
    if value.layout is not None and place is not None:
        x = value.tensor
        specs = [((*x.shape[:place], size, *x.shape[place + 1 :]), c.dtype) for size in sizes]
        return [TensorVal(t, value.layout) for t in c.to.emit("Split", [x], specs, {"axis": place, "split": sizes})]
    return [TensorVal(t) for t in c.to.emit("Split", [c.x(0)], specs, {"axis": axis, "split": sizes})]


@converter("strided_slice", "dyn.strided_slice", "slice_like")
def _strided_slice(c: OpCall) -> Value:
    """Slice over the axes that really shrink."""
    value = c.value(0)
    shape = value.shape
    if c.op == "slice_like":
        cuts = [(i, 0, n, 1) for i, n in enumerate(c.out)]
    else:
        cuts = []
        for axis, start, stop, step in slice_ranges(c.site, shape) or []:
            first, last, stride = slice(start, stop, step).indices(shape[axis])
            cuts.append((axis, first, last, stride))
    cuts = [(a, s, e, t) for a, s, e, t in cuts if (s, e, t) != (0, shape[a], 1)]
    if not cuts:
        return value
    places = [ir_axis(value, a) for a, _, _, _ in cuts]
    starts, ends, steps = (tuple(cut[i] for cut in cuts) for i in (1, 2, 3))
    if value.layout is not None and None not in places:
        attrs: dict[str, AttrValue] = {"axes": tuple(p for p in places if p is not None), "starts": starts}
        return c.give("Slice", [value.tensor], value.layout, {**attrs, "ends": ends, "steps": steps})
    return c.emit("Slice", [c.x(0)], axes=tuple(cut[0] for cut in cuts), starts=starts, ends=ends, steps=steps)


@converter("nn.pad", "nn.mirror_pad", "dyn.nn.pad")
def _pad(c: OpCall) -> Value:
    value = c.value(0)
    widths = pad_widths(c.site, len(value.shape)) or []
    if not any(a or b for a, b in widths):
        return value
    mirrored = c.op == "nn.mirror_pad"
    mode = c.site.text("mode", "symmetric").lower() if mirrored else c.site.text("pad_mode", "constant").lower()
    mode = {"constant": "constant", "edge": "edge", "symmetric": "reflect"}.get(mode, "reflect")
    attrs: dict[str, AttrValue] = {"mode": mode}
    fill = c.site.value(1) if len(c.args) > 1 else c.site.get("pad_value", 0)
    if mode == "constant" and isinstance(fill, (int, float)) and fill:
        attrs["value"] = float(fill)
    places = [ir_axis(value, i) for i in range(len(widths))]
    if value.layout is not None and None not in places:
        order = sorted(range(len(widths)), key=lambda i: places[i] or 0)
        attrs["pads"] = (*(widths[i][0] for i in order), *(widths[i][1] for i in order))
        return c.give("Pad", [value.tensor], value.layout, attrs)
    attrs["pads"] = (*(a for a, _ in widths), *(b for _, b in widths))
    return c.emit("Pad", [c.x(0)], **attrs)


@converter("tile", "dyn.tile", "repeat")
def _tile(c: OpCall) -> Value:
    x = c.x(0)
    x = c.to.reshape(x, (1,) * (len(c.out) - len(x.shape)) + x.shape)
    if x.shape == c.out:
        return TensorVal(x)
    return c.emit("Tile", [x], repeats=tuple(o // d if d else 1 for o, d in zip(c.out, x.shape, strict=True)))


@converter("reverse")
def _reverse(c: OpCall) -> Value:
    x = c.x(0)
    axis = c.site.axis(len(x.shape), default=0)
    return c.emit("Slice", [x], axes=(axis,), starts=(x.shape[axis] - 1,), ends=(-x.shape[axis] - 1,), steps=(-1,))


@converter("take")
def _take(c: OpCall) -> Value:
    """Gather; constant indices are int64 as in ONNX, whatever the importer made of them."""
    x, indices = c.x(0), c.x(1)
    if indices.origin == "const" and indices.dtype is DType.INT32:
        indices = constant(indices.shape, DType.INT64, indices.value, indices.name)
    if c.site.get("axis") is None:
        return c.emit("Gather", [c.to.reshape(x, (x.numel,)), indices], axis=0)
    return c.emit("Gather", [x, indices], axis=c.site.axis(len(x.shape)))


@converter("gather")
def _gather(c: OpCall) -> Value:
    return c.emit("GatherElements", [c.x(0), c.x(1)], axis=c.site.axis(len(c.value(0).shape), default=0))


@converter("gather_nd")
def _gather_nd(c: OpCall) -> Value:
    indices = c.x(1)
    indices = c.to.transpose(indices, (*range(1, len(indices.shape)), 0))
    return c.emit("GatherND", [c.x(0), indices], batch_dims=c.site.integer("batch_dims", 0))


@converter("scatter", "scatter_add", "scatter_elements")
def _scatter(c: OpCall) -> Value:
    reduction = "add" if c.op == "scatter_add" else c.site.text("reduction", "none").replace("update", "none")
    axis = c.site.axis(len(c.out), default=0)
    return c.emit("ScatterElements", [c.x(0), c.x(1), c.x(2)], axis=axis, reduction=reduction)


@converter("scatter_nd")
def _scatter_nd(c: OpCall) -> Value:
    indices = c.x(1)
    indices = c.to.transpose(indices, (*range(1, len(indices.shape)), 0))
    return c.emit(
        "ScatterND", [c.x(0), indices, c.x(2)], reduction=c.site.text("mode", "none").replace("update", "none")
    )


@converter("matrix_set_diag", "sequence_mask")
def _masked(c: OpCall) -> Value:
    return c.emit("Where", [constant(c.out, DType.BOOL), c.x(0), c.x(1)])


@converter("trilu")
def _trilu(c: OpCall) -> Value:
    return c.emit("Trilu", [c.x(0)], upper=int(bool(c.site.get("upper", True))), k=0)


@converter("meshgrid")
def _meshgrid(c: OpCall) -> Value:
    assert isinstance(c.type, TupleType)
    found: list[Value] = []
    for i, (part, ty) in enumerate(zip(c.parts(0), c.type.fields, strict=True)):
        shape = tuple(d or 0 for d in ty.shape) if isinstance(ty, TensorType) else ()
        x = part.tensor
        lined = c.to.reshape(x, tuple(x.numel if k == i else 1 for k in range(len(shape))))
        found.append(TensorVal(c.to.one("Expand", [lined], shape, x.dtype)))
    return found


@converter("einsum")
def _einsum(c: OpCall) -> Value:
    return c.emit("Einsum", [c.to.from_ir(v) for v in c.parts(0)], equation=c.site.text("equation").replace(" ", ""))

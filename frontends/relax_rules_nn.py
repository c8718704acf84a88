"""Rules of Relax convolutions, pools, normalisations, attention and image operators.

Operators on another layout than NCHW keep their tensors as they are and say so in the attribute `layout`; their weight,
a constant, is described in ONNX's order (O, I / group, kernel…).
"""

from __future__ import annotations

import re
from typing import Any

from costmodel.errors import ShapeInferenceError
from costmodel.ir import AttrValue
from frontends.onnx_rules import Call, Result, registry
from frontends.onnx_values import Shape, Value
from frontends.relax_rules import Operands, ints, rule

_AXES = re.compile(r"(\d*)([A-Za-z])")


def logical(shape: Shape, layout: str, order: str) -> Shape:
    """Sizes of the axes `order` of a tensor stored in a layout; a split axis (`16c`) counts with its other part."""
    sizes = dict.fromkeys(order, 1)
    parsed = _AXES.findall(layout)
    if len(parsed) != len(shape):
        raise ShapeInferenceError(f"layout {layout} does not fit {shape}")
    for (_, axis), size in zip(parsed, shape, strict=False):
        sizes[axis.upper()] = sizes.get(axis.upper(), 1) * size
    return tuple(sizes[axis] for axis in order)


def physical(shape: Shape, order: str, layout: str) -> Shape:
    """The inverse of `logical`."""
    sizes, parsed = dict(zip(order, shape, strict=False)), _AXES.findall(layout)
    for factor, axis in parsed:
        if factor:
            sizes[axis.upper()] //= int(factor)
    return tuple(int(factor) if factor else sizes[axis] for factor, axis in parsed)


def standard(layout: str) -> str:
    """The layout with batch and channels first that has the same spatial axes."""
    return "NC" + "".join(a for a in "DHW" if a in layout)


def windowed(
    o: Operands, op: str, x: Value, rest: list[Value], attrs: dict[str, Any], layout: str, out_layout: str = ""
) -> Value:
    """A convolution or pool of x in any layout."""
    order = standard(layout)
    if layout == order and out_layout in ("", order):
        return o.apply(op, [x, *rest], **attrs)
    seen = Value(x.name, logical(x.shape, layout, order), x.dtype)
    lowered = registry()["", op](Call(o.low, op, "", 21, attrs, [seen, *rest], [o.low.label], o.low.label))
    if not isinstance(lowered, Result):
        return lowered[0]
    shape, dtype = lowered.specs[0]
    result = Result(
        [(physical(shape, order, out_layout or layout), dtype)], {**lowered.attrs, "layout": layout}, [x, *rest], op
    )
    return o.low.keep(result)[0]


def weight(o: Operands, w: Value, layout: str, order: str) -> Value:
    """A convolution's weight in the order that ONNX has."""
    if layout == order:
        return w
    shape = logical(w.shape, layout, order)
    if w.const:
        return Value(f"{w.name}.{order}", shape, w.dtype, const=True, origins=w.origins)
    if len(layout) == len(order):
        return o.apply("Transpose", [w], perm=tuple(layout.index(a) for a in order))
    return o.apply("Reshape", [w, ints(shape)])


def _spatial(o: Operands, name: str, count: int) -> Shape:
    found = tuple(o.attr(name) or ())
    return found if len(found) == count else tuple(found[:1]) * count


@rule("nn.conv1d", "nn.conv2d", "nn.conv3d")
def _conv(o: Operands) -> Value:
    layout, kernel_layout = str(o.attr("data_layout")), str(o.attr("kernel_layout"))
    w = weight(o, o[1], kernel_layout, "OI" + standard(layout)[2:])
    return windowed(o, "Conv", o[0], [w], _conv_attrs(o, layout), layout, str(o.attr("out_layout") or ""))


def _conv_attrs(o: Operands, layout: str) -> dict[str, Any]:
    count = len(standard(layout)) - 2
    return {
        "strides": _spatial(o, "strides", count),
        "pads": _spatial(o, "padding", 2 * count),
        "dilations": _spatial(o, "dilation", count),
        "group": int(o.attr("groups", 1)),
    }


@rule("nn.conv1d_transpose", "nn.conv2d_transpose", "nn.conv3d_transpose")
def _conv_transpose(o: Operands) -> Value:
    layout, kernel_layout = str(o.attr("data_layout")), str(o.attr("kernel_layout"))
    w = weight(o, o[1], kernel_layout, "IO" + standard(layout)[2:])
    attrs = _conv_attrs(o, layout)
    attrs["output_padding"] = _spatial(o, "output_padding", len(attrs["strides"]))
    return windowed(o, "ConvTranspose", o[0], [w], attrs, layout, str(o.attr("out_layout") or ""))


@rule(*(f"nn.{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)))
def _pool(o: Operands) -> Value:
    layout = str(o.attr("layout"))
    count = len(standard(layout)) - 2
    attrs: dict[str, Any] = {
        "kernel_shape": _spatial(o, "pool_size", count),
        "strides": _spatial(o, "strides", count),
        "pads": _spatial(o, "padding", 2 * count),
        "dilations": _spatial(o, "dilation", count),
        "ceil_mode": int(bool(o.attr("ceil_mode", False))),
    }
    if "avg" not in o.op:
        return windowed(o, "MaxPool", o[0], [], attrs, layout)
    attrs["count_include_pad"] = int(bool(o.attr("count_include_pad", False)))
    return windowed(o, "AveragePool", o[0], [], attrs, layout)


@rule("nn.adaptive_avg_pool1d", "nn.adaptive_avg_pool2d", "nn.adaptive_avg_pool3d")
def _adaptive_pool(o: Operands) -> Value:
    layout = str(o.attr("layout"))
    spatial = logical(o[0].shape, layout, standard(layout))[2:]
    return adaptive_pool(o, spatial, _spatial(o, "output_size", len(spatial)) or spatial, layout)


def adaptive_pool(o: Operands, spatial: Shape, out: Shape, layout: str) -> Value:
    """An AveragePool whose windows are the widest of the adaptive ones; to a single pixel, a GlobalAveragePool."""
    if all(size == 1 for size in out) and layout == standard(layout):
        return o.apply("GlobalAveragePool", [o[0]])
    strides = tuple(size // n for size, n in zip(spatial, out, strict=False))
    kernel = tuple(size - (n - 1) * step for size, n, step in zip(spatial, out, strides, strict=False))
    attrs = {"kernel_shape": kernel, "strides": strides, "count_include_pad": 1}
    return windowed(o, "AveragePool", o[0], [], attrs, layout)


@rule("nn.batch_norm")
def _batch_norm(o: Operands) -> list[Value]:
    x, axis = o[0], int(o.attr("axis", 1)) % len(o[0].shape)
    attrs: dict[str, AttrValue] = {} if axis == 1 else {"axis": axis}
    result = Result([(x.shape, x.dtype)], attrs, [x, o[1], o[2], o[3], o[4]], "BatchNormalization")
    return [o.low.keep(result)[0], o[3], o[4]]


@rule("nn.layer_norm", "nn.rms_norm")
def _layer_norm(o: Operands) -> Value:
    rank = len(o[0].shape)
    first = min(int(a) % rank for a in o.attr("axes"))
    op = "LayerNormalization" if o.op == "relax.nn.layer_norm" else "RMSNormalization"
    return o.apply(op, [o[i] for i in range(len(o.args))], axis=first)


@rule("nn.group_norm")
def _group_norm(o: Operands) -> Value:
    return o.apply("GroupNormalization", [o[0], o[1], o[2]], num_groups=int(o.attr("num_groups")))


@rule("nn.instance_norm")
def _instance_norm(o: Operands) -> Value:
    return o.apply("InstanceNormalization", [o[0], o[1], o[2]])


@rule("nn.dropout")
def _dropout(o: Operands) -> list[Value]:
    x = o[0]
    return [x, Value(f"{o.low.label}.mask", x.shape, x.dtype, const=True)]


@rule("nn.attention", "nn.attention_bias")
def _attention(o: Operands) -> Value:
    """Operands are (batch, sequence, heads, width); ONNX's three-axis form has the same memory order."""
    joined, heads = [], []
    for x in (o[0], o[1], o[2]):
        batch, length, count, width = x.shape
        heads.append(count)
        joined.append(o.apply("Reshape", [x, ints((batch, length, count * width))]))
    bias = [o[3]] if len(o.args) > 3 else []
    attrs = {
        "q_num_heads": heads[0],
        "kv_num_heads": heads[1],
        "is_causal": int(o.attr("causal_mask") not in (None, "")),
    }
    found = o.apply("Attention", [*joined, *bias], **attrs)
    width = o[2].shape[3]
    return o.apply("Reshape", [found, ints((*o[0].shape[:3], width))])


@rule("nn.pixel_shuffle")
def _pixel_shuffle(o: Operands) -> Value:
    return o.apply("DepthToSpace", [o[0]], blocksize=int(o.attr("upscale_factor")), mode="CRD")


_METHODS = {"nearest_neighbor": "nearest", "linear": "linear", "cubic": "cubic"}
_ROUNDING = {"round": "round_prefer_ceil", "": "floor"}


@rule("image.resize2d", "image.resize3d")
def _resize(o: Operands) -> Value:
    layout = str(o.attr("layout", "NCHW"))
    order = standard(layout)
    if layout != order:
        shape = physical((*logical(o[0].shape, layout, order)[:2], *o.ints(1)), order, layout)
    else:
        shape = (*o[0].shape[:2], *o.ints(1))
    rounding = str(o.attr("rounding_method", ""))
    return o.apply(
        "Resize",
        [o[0], None, None, ints(shape)],
        mode=_METHODS.get(str(o.attr("method", "linear")), "linear"),
        coordinate_transformation_mode=str(o.attr("coordinate_transformation_mode", "half_pixel")),
        nearest_mode=_ROUNDING.get(rounding, rounding),
    )


@rule("image.grid_sample")
def _grid_sample(o: Operands) -> Value:
    """Relax keeps the grid as (N, 2, H, W), ONNX as (N, H, W, 2)."""
    grid = o[1]
    order = (0, *range(2, len(grid.shape)), 1)
    seen = Value(grid.name, tuple(grid.shape[i] for i in order), grid.dtype, grid.const)
    attrs = {
        "mode": str(o.attr("method", "bilinear")),
        "padding_mode": str(o.attr("padding_mode", "zeros")),
        "align_corners": int(bool(o.attr("align_corners", True))),
    }
    lowered = registry()["", "GridSample"](Call(o.low, "GridSample", "", 21, attrs, [o[0], seen], ["y"], o.low.label))
    if not isinstance(lowered, Result):
        return lowered[0]
    return o.low.keep(Result(lowered.specs, lowered.attrs, [o[0], grid], "GridSample"))[0]


@rule("vision.roi_align", "vision.roi_pool")
def _roi(o: Operands) -> Value:
    size = tuple(o.attr("pooled_size"))
    if o.op == "relax.vision.roi_pool":
        return o.apply("MaxRoiPool", [o[0], o[1]], pooled_shape=size)
    ratio = max(int(o.attr("sample_ratio", 0)), 0)
    return o.apply("RoiAlign", [o[0], o[1]], output_height=size[0], output_width=size[-1], sampling_ratio=ratio)

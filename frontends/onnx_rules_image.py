"""Rules of operators that pad, scale and rearrange images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from costmodel.errors import ShapeInferenceError
from frontends.onnx_rules import Attrs, Call, Lowered, Result, axis_of, rule
from frontends.onnx_values import Shape, Value


@rule("Pad")
def _pad(c: Call) -> Lowered:
    x = c.need(0)
    rank = len(x.shape)
    given = c.ints_or(1, "pads" if "pads" in c.attrs else "paddings")
    if given is None:
        raise ShapeInferenceError("pads are missing")
    axes = [axis_of(a, rank) for a in c.ints(3)] if c.get(3) is not None else list(range(rank))
    pads = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        pads[axis], pads[rank + axis] = given[i], given[len(axes) + i]
    if not any(pads):
        return [x]
    attrs: Attrs = {"mode": c.attrs.get("mode", "constant"), "pads": tuple(pads)}
    value = _pad_value(c)
    if attrs["mode"] == "constant" and value:
        attrs["value"] = value
    shape = tuple(d + pads[i] + pads[rank + i] for i, d in enumerate(x.shape))
    return Result([(shape, x.dtype)], attrs, [x])


def _pad_value(c: Call) -> float:
    fill = c.get(2)
    if fill is None:
        return float(c.attrs.get("value", 0.0))
    return float(fill.content.reshape(-1)[0]) if fill.content is not None and fill.content.size else 0.0


@rule("DepthToSpace", "SpaceToDepth")
def _depth_space(c: Call) -> Lowered:
    x = c.need(0)
    block = int(c.attrs["blocksize"])
    n, channels, height, width = x.shape
    if c.op == "SpaceToDepth":
        shape = (n, channels * block * block, height // block, width // block)
        return Result([(shape, x.dtype)], {"blocksize": block}, [x])
    shape = (n, channels // (block * block), height * block, width * block)
    return Result([(shape, x.dtype)], {"blocksize": block, "mode": c.attrs.get("mode", "DCR")}, [x])


@rule("Resize", "Upsample")
def _resize(c: Call) -> Lowered:
    """Scales, sizes and the region of interest end in the output shape; Upsample is a Resize of asymmetric corners."""
    x = c.need(0)
    rank = len(x.shape)
    axes = [axis_of(a, rank) for a in c.attrs.get("axes", range(rank))]
    if c.op == "Upsample" or c.version < 11:
        scales: Any = c.content(1).reshape(-1).tolist() if len(c.inputs) > 1 else _upsample_scales(c)
        shape = _scaled(x.shape, axes, scales)
        corners, rounding = "asymmetric", "floor"
    else:
        shape = _resized(c, x, axes)
        corners = c.attrs.get("coordinate_transformation_mode", "half_pixel")
        rounding = c.attrs.get("nearest_mode", "round_prefer_floor")
    if shape == x.shape:
        return [x]
    mode = c.attrs.get("mode", "nearest")
    attrs: Attrs = {"mode": mode, "coordinate_transformation_mode": corners}
    if mode == "nearest":
        attrs["nearest_mode"] = rounding
    if c.attrs.get("antialias"):
        attrs["antialias"] = 1
    return Result([(shape, x.dtype)], attrs, [x], "Resize")


def _upsample_scales(c: Call) -> list[float]:
    if "scales" in c.attrs:
        return list(c.attrs["scales"])
    return [1.0, 1.0, c.attrs["height_scale"], c.attrs["width_scale"]]


def _scaled(shape: Shape, axes: list[int], scales: list[float]) -> Shape:
    out = list(shape)
    for axis, scale in zip(axes, scales, strict=False):
        out[axis] = math.floor(np.float32(shape[axis]) * np.float32(scale))
    return tuple(out)


def _resized(c: Call, x: Value, axes: list[int]) -> Shape:
    sizes = c.get(3)
    if sizes is None or (sizes.const and sizes.shape == (0,)):
        scales = c.content(2).reshape(-1).tolist()
        if c.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
            roi = c.content(1).reshape(-1).tolist()
            half = len(roi) // 2
            scales = [s * (roi[half + i] - roi[i]) for i, s in enumerate(scales)]
        return _scaled(x.shape, axes, scales)
    wanted = list(c.ints(3))
    policy = c.attrs.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        pick = min if policy == "not_larger" else max
        ratio = pick(size / x.shape[axis] for size, axis in zip(wanted, axes, strict=False))
        wanted = [math.floor(ratio * x.shape[axis] + 0.5) for axis in axes]
    out = list(x.shape)
    for axis, size in zip(axes, wanted, strict=False):
        out[axis] = size
    return tuple(out)


@rule("CenterCropPad")
def _center_crop_pad(c: Call) -> Lowered:
    x = c.need(0)
    rank = len(x.shape)
    out = list(x.shape)
    for axis, size in zip((axis_of(a, rank) for a in c.attrs.get("axes", range(rank))), c.ints(1), strict=False):
        out[axis] = size
    return Result([(tuple(out), x.dtype)], None, [x])

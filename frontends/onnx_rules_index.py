"""Rules of operators that select by index or by content.

Where the size of a result depends on the data, the largest possible one is taken: NonZero of n elements gives n
columns, NonMaxSuppression as many boxes as it may keep. Costs are then upper bounds.
"""

from __future__ import annotations

import numpy as np

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.onnx_rules import Attrs, Call, Lowered, Result, axis_of, optional_specs, rule


@rule("Gather")
def _gather(c: Call) -> Lowered:
    x, indices = c.need(0), c.need(1)
    axis = axis_of(c.attrs.get("axis", 0), len(x.shape))
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return Result([(shape, x.dtype)], {"axis": axis}, [x, indices])


@rule("GatherElements")
def _gather_elements(c: Call) -> Lowered:
    x, indices = c.need(0), c.need(1)
    return Result([(indices.shape, x.dtype)], {"axis": axis_of(c.attrs.get("axis", 0), len(x.shape))}, [x, indices])


@rule("GatherND")
def _gather_nd(c: Call) -> Lowered:
    x, indices = c.need(0), c.need(1)
    batch = int(c.attrs.get("batch_dims", 0))
    shape = indices.shape[:-1] + x.shape[batch + indices.shape[-1] :]
    return Result([(shape, x.dtype)], {"batch_dims": batch}, [x, indices])


@rule("Scatter", "ScatterElements")
def _scatter(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {
        "axis": axis_of(c.attrs.get("axis", 0), len(x.shape)),
        "reduction": c.attrs.get("reduction", "none"),
    }
    return Result([(x.shape, x.dtype)], attrs, [x, c.need(1), c.need(2)], "ScatterElements")


@rule("ScatterND")
def _scatter_nd(c: Call) -> Lowered:
    x = c.need(0)
    return Result([(x.shape, x.dtype)], {"reduction": c.attrs.get("reduction", "none")}, [x, c.need(1), c.need(2)])


@rule("TopK")
def _top_k(c: Call) -> Lowered:
    x = c.need(0)
    axis = axis_of(c.attrs.get("axis", -1), len(x.shape))
    k = (c.ints_or(1, "k") or (1,))[0]
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    attrs: Attrs = {
        "axis": axis,
        "k": k,
        "largest": int(c.attrs.get("largest", 1)),
        "sorted": int(c.attrs.get("sorted", 1)),
    }
    return Result(optional_specs(c, [(shape, x.dtype), (shape, DType.INT64)]), attrs, [x])


@rule("OneHot")
def _one_hot(c: Call) -> Lowered:
    indices, values = c.need(0), c.need(2)
    rank = len(indices.shape) + 1
    axis = axis_of(c.attrs.get("axis", -1), rank)
    shape = (*indices.shape[:axis], c.ints(1)[0], *indices.shape[axis:])
    return Result([(shape, values.dtype)], {"axis": axis}, [indices, values])


@rule("NonZero")
def _non_zero(c: Call) -> Lowered:
    x = c.need(0)
    content = x.content
    if content is not None:
        found = np.array(np.nonzero(content), dtype=np.int64)
        return [c.lowering.computed(c.outputs[0], found)]
    return Result([((max(len(x.shape), 1), x.numel), DType.INT64)], None, [x])


@rule("Compress")
def _compress(c: Call) -> Lowered:
    x, condition = c.need(0), c.need(1)
    kept = condition.numel if condition.content is None else int(np.count_nonzero(condition.content))
    if "axis" not in c.attrs:
        return Result([((min(kept, x.numel),), x.dtype)], None, [x, condition])
    axis = axis_of(c.attrs["axis"], len(x.shape))
    shape = (*x.shape[:axis], min(kept, x.shape[axis]), *x.shape[axis + 1 :])
    return Result([(shape, x.dtype)], {"axis": axis}, [x, condition])


@rule("Unique")
def _unique(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {"sorted": int(c.attrs.get("sorted", 1))}
    if "axis" in c.attrs:
        axis = axis_of(c.attrs["axis"], len(x.shape))
        attrs["axis"], shape, count = axis, x.shape, x.shape[axis]
    else:
        shape, count = (x.numel,), x.numel
    specs = [(shape, x.dtype), ((count,), DType.INT64), ((count,), DType.INT64), ((count,), DType.INT64)]
    return Result(optional_specs(c, specs), attrs, [x])


@rule("NonMaxSuppression")
def _non_max_suppression(c: Call) -> Lowered:
    """At most max_output_boxes_per_class boxes for each class of each image."""
    boxes, scores = c.need(0), c.need(1)
    images, classes, count = scores.shape
    limit = c.get(2)
    if limit is not None and limit.content is not None and limit.content.size:
        count = min(count, max(int(limit.content.reshape(-1)[0]), 0))
    attrs: Attrs = {"center_point_box": int(c.attrs.get("center_point_box", 0)), "boxes_per_class": count}
    return Result([((images * classes * count, 3), DType.INT64)], attrs, [boxes, scores])


@rule("RoiAlign")
def _roi_align(c: Call) -> Lowered:
    x, rois = c.need(0), c.need(1)
    height, width = int(c.attrs.get("output_height", 1)), int(c.attrs.get("output_width", 1))
    attrs: Attrs = {
        "mode": c.attrs.get("mode", "avg"),
        "output_height": height,
        "output_width": width,
        "sampling_ratio": int(c.attrs.get("sampling_ratio", 0)),
    }
    return Result([((rois.shape[0], x.shape[1], height, width), x.dtype)], attrs, list(c.inputs))


@rule("MaxRoiPool")
def _max_roi_pool(c: Call) -> Lowered:
    x, rois = c.need(0), c.need(1)
    pooled = tuple(c.attrs["pooled_shape"])
    return Result([((rois.shape[0], x.shape[1], *pooled), x.dtype)], {"pooled_shape": pooled}, [x, rois])


@rule("GridSample")
def _grid_sample(c: Call) -> Lowered:
    x, grid = c.need(0), c.need(1)
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(c.attrs.get("mode", ""), c.attrs.get("mode", "linear"))
    attrs: Attrs = {
        "mode": mode,
        "padding_mode": c.attrs.get("padding_mode", "zeros"),
        "align_corners": int(c.attrs.get("align_corners", 0)),
    }
    return Result([((*x.shape[:2], *grid.shape[1:-1]), x.dtype)], attrs, [x, grid])


@rule("AffineGrid")
def _affine_grid(c: Call) -> Lowered:
    theta, size = c.need(0), c.ints(1)
    if len(size) not in (4, 5):
        raise ShapeInferenceError(f"size {size} is neither (N, C, H, W) nor (N, C, D, H, W)")
    shape = (size[0], *size[2:], len(size) - 2)
    return Result([(shape, theta.dtype)], {"align_corners": int(c.attrs.get("align_corners", 0))}, [theta])


@rule("Multinomial")
def _multinomial(c: Call) -> Lowered:
    x = c.need(0)
    size = int(c.attrs.get("sample_size", 1))
    dtype = DType.INT64 if c.attrs.get("dtype", 6) == 7 else DType.INT32
    return Result([((x.shape[0], size), dtype)], {"sample_size": size}, [x])

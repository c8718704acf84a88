"""Rules of operators that select and write by index."""

from __future__ import annotations

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.torch_ops import Attrs, Call, Result, Shape, Value, broadcast, rule
from frontends.torch_ops_tensor import bounds


@rule("embedding")
def _embedding(c: Call) -> Result:
    return c.emit("Gather", [c.tensor("weight"), c.tensor("indices")], attrs={"axis": 0})


@rule("select", "select_copy")
def _select(c: Call) -> Result:
    axis = c.axis("dim", len(c.x.shape))
    return c.emit("Gather", [c.x, c.scalar(c.args["index"], DType.INT64)], attrs={"axis": axis})


@rule("index_select")
def _index_select(c: Call) -> Result:
    index = c.tensor("index")
    flat = c.reshape(index, (max(index.numel, 1),))
    return c.emit("Gather", [c.x, flat], attrs={"axis": c.axis("dim", len(c.x.shape))})


@rule("gather", "take_along_dim")
def _gather(c: Call) -> Result:
    index = c.tensor("index" if c.op == "gather" else "indices")
    if c.get("dim") is None:
        raise ShapeInferenceError("take_along_dim has no dim")
    return c.emit("GatherElements", [c.x, index], attrs={"axis": c.axis("dim", len(c.x.shape))})


@rule("take")
def _take(c: Call) -> Result:
    return c.emit("Gather", [c.reshape(c.x, (c.x.numel,)), c.tensor("index")], attrs={"axis": 0})


@rule("index", "_unsafe_index")
def _index(c: Call) -> Result:
    """Indexed axes go to the front for GatherND; its result goes back where they stood if they were neighbours."""
    x = c.x
    given: list[Value | None] = list(c.args["indices"])
    if any(v is not None and v.dtype in (DType.BOOL, DType.UINT8) for v in given):
        return _masked(c, given)
    axes = [i for i, v in enumerate(given) if v is not None]
    rest = [i for i in range(len(x.shape)) if i not in axes]
    places = [v for v in given if v is not None]
    shape = broadcast(*(v.shape for v in places))
    front = c.transpose(x, axes + rest)
    found_shape = shape + tuple(x.shape[i] for i in rest)
    found = c.emit("GatherND", [front, _coordinates(c, places, shape)], (found_shape, x.dtype), {"batch_dims": 0})
    if axes == list(range(axes[0], axes[-1] + 1)) and axes[0]:
        n, before = len(shape), axes[0]
        return c.transpose(found, [*range(n, n + before), *range(n), *range(n + before, n + len(rest))])
    return found


def _coordinates(c: Call, places: list[Value], shape: Shape) -> Value:
    """Index tensors side by side: (…, count)."""
    columns = [c.unsqueeze(c.expand(c.cast(v, DType.INT64), shape), len(shape)) for v in places]
    if len(columns) == 1:
        return columns[0]
    return c.emit("Concat", columns, ((*shape, len(columns)), DType.INT64), {"axis": len(shape)})


def _masked(c: Call, given: list[Value | None]) -> Result:
    """Every element is taken to pass the mask: the largest result."""
    mask = next(v for v in given if v is not None)
    count = c.out[0][0] if given[0] is not None else mask.numel
    rank = max(len(mask.shape), 1)
    places = c.emit("NonZero", [mask], ((rank, count), DType.INT64))
    return c.emit("GatherND", [c.x, c.transpose(places, [1, 0])], attrs={"batch_dims": 0})


@rule("nonzero")
def _nonzero(c: Call) -> Result:
    count, rank = c.out[0]
    return c.transpose(c.emit("NonZero", [c.x], ((rank, count), DType.INT64)), [1, 0])


@rule("masked_select")
def _masked_select(c: Call) -> Result:
    """Every element is taken to pass the mask: the largest result."""
    mask = c.tensor("mask")
    shape = broadcast(c.x.shape, mask.shape)
    flat = c.reshape(c.expand(c.x, shape), (c.out[0][0],))
    return c.emit("Compress", [flat, c.reshape(c.expand(mask, shape), (c.out[0][0],))], attrs={"axis": 0})


@rule("index_put", "_unsafe_index_put", "_index_put_impl")
def _index_put(c: Call) -> Result:
    x = c.x
    values = c.cast(c.tensor("values"), x.dtype)
    given: list[Value | None] = list(c.args["indices"])
    attrs: Attrs = {"reduction": "add" if c.get("accumulate") else "none"}
    places = [v for v in given if v is not None]
    if places[0].dtype in (DType.BOOL, DType.UINT8):
        mask = places[0]
        if values.numel == 1:
            wide = c.reshape(mask, mask.shape + (1,) * (len(x.shape) - len(mask.shape)))
            return c.emit("Where", [wide, values, x])
        count = mask.numel
        found = c.emit("NonZero", [mask], ((max(len(mask.shape), 1), count), DType.INT64))
        return c.emit("ScatterND", [x, c.transpose(found, [1, 0]), values], attrs=attrs)
    axes = [i for i, v in enumerate(given) if v is not None]
    rest = [i for i in range(len(x.shape)) if i not in axes]
    shape = broadcast(*(v.shape for v in places))
    updates = c.expand(values, broadcast(values.shape, shape + tuple(x.shape[i] for i in rest)))
    perm = axes + rest
    written = c.emit("ScatterND", [c.transpose(x, perm), _coordinates(c, places, shape), updates],
                     (tuple(x.shape[p] for p in perm), x.dtype), attrs)  # fmt: skip
    return c.transpose(written, sorted(range(len(perm)), key=perm.__getitem__))


@rule("scatter", "scatter_add", "scatter_reduce")
def _scatter(c: Call) -> Result:
    index = c.tensor("index")
    source = c.args.get("src", c.args.get("value"))
    updates = source if isinstance(source, Value) else c.constant(index.shape, c.x.dtype)
    reduction = "add" if c.op == "scatter_add" else str(c.get("reduce", "none"))
    reduction = {"sum": "add", "multiply": "mul", "prod": "mul", "amax": "max", "amin": "min", "mean": "add"}.get(
        reduction, reduction
    )
    attrs: Attrs = {"axis": c.axis("dim", len(c.x.shape)), "reduction": reduction}
    return c.emit("ScatterElements", [c.x, index, updates], attrs=attrs)


@rule("index_add", "index_copy", "index_fill")
def _index_write(c: Call) -> Result:
    x = c.x
    axis = c.axis("dim", len(x.shape))
    index = c.tensor("index")
    source = c.args.get("source", c.args.get("value"))
    shape = (*x.shape[:axis], index.numel, *x.shape[axis + 1 :])
    updates = source if isinstance(source, Value) and source.shape == shape else c.constant(shape, x.dtype)
    wide = c.reshape(index, tuple(index.numel if i == axis else 1 for i in range(len(shape))))
    attrs: Attrs = {"axis": axis, "reduction": "add" if c.op == "index_add" else "none"}
    return c.emit("ScatterElements", [x, c.expand(wide, shape), updates], attrs=attrs)


@rule("select_scatter")
def _select_scatter(c: Call) -> Result:
    axis = c.axis("dim", len(c.x.shape))
    updates = c.unsqueeze(c.tensor("src", c.x.dtype), axis)
    places = c.constant(updates.shape, DType.INT64)
    return c.emit("ScatterElements", [c.x, places, updates], attrs={"axis": axis, "reduction": "none"})


@rule("slice_scatter")
def _slice_scatter(c: Call) -> Result:
    """ScatterND writes along the first axis."""
    x, updates = c.x, c.tensor("src", c.x.dtype)
    if updates.shape == x.shape:
        return updates
    axis = c.axis("dim", len(x.shape))
    start, end = bounds(c.get("start"), c.get("end"), x.shape[axis])
    count = max(-(-(end - start) // int(c.get("step", 1))), 0)
    perm = [axis, *(i for i in range(len(x.shape)) if i != axis)]
    front = c.transpose(x, perm)
    places = c.constant((count, 1), DType.INT64)
    written = c.emit("ScatterND", [front, places, c.transpose(updates, perm)], front.spec, {"reduction": "none"})
    return c.transpose(written, sorted(range(len(perm)), key=perm.__getitem__))


@rule("masked_scatter")
def _masked_scatter(c: Call) -> Result:
    x, mask, source = c.x, c.tensor("mask"), c.tensor("source")
    count = min(x.numel, source.numel)
    places = c.emit("NonZero", [c.expand(mask, x.shape)], ((len(x.shape), count), DType.INT64))
    updates = c.reshape(source, (source.numel,))
    return c.emit("ScatterND", [x, c.transpose(places, [1, 0]), updates], attrs={"reduction": "none"})


@rule("one_hot")
def _one_hot(c: Call) -> Result:
    return c.emit("OneHot", [c.x, c.constant((2,), c.out[1])], attrs={"axis": len(c.x.shape)})


@rule("torchvision::roi_align")
def _roi_align(c: Call) -> Result:
    rois = c.tensor("rois")
    boxes = c.emit("Slice", [rois], ((rois.shape[0], 4), rois.dtype),
                   {"axes": (1,), "starts": (1,), "ends": (5,), "steps": (1,)})  # fmt: skip
    column = c.emit("Gather", [rois, c.scalar(0, DType.INT64)], ((rois.shape[0],), rois.dtype), {"axis": 1})
    attrs: Attrs = {
        "mode": "avg", "output_height": c.args["pooled_height"], "output_width": c.args["pooled_width"],
        "sampling_ratio": max(int(c.get("sampling_ratio", 0)), 0),
    }  # fmt: skip
    return c.emit("RoiAlign", [c.x, boxes, c.cast(column, DType.INT64)], attrs=attrs)


@rule("torchvision::nms")
def _nms(c: Call) -> Result:
    """Every box is taken to survive."""
    boxes, scores = c.tensor("dets"), c.tensor("scores")
    count = c.out[0][0]
    kept = c.emit("NonMaxSuppression", [c.unsqueeze(boxes, 0), c.unsqueeze(scores, 0, 1)], ((count, 3), DType.INT64),
                  {"center_point_box": 0, "boxes_per_class": count})  # fmt: skip
    return c.emit("Gather", [kept, c.scalar(2, DType.INT64)], attrs={"axis": 1})

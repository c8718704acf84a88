"""Rules of operators that reshape, join, cut and pad tensors."""

from __future__ import annotations

from costmodel.errors import ShapeInferenceError
from frontends.torch_ops import Attrs, Call, Result, Shape, Spec, Value, numbers, rule


@rule("view", "reshape", "_unsafe_view", "_reshape_alias", "view_copy", "flatten", "unflatten", "view_as",
      "reshape_as", "ravel", "_reshape_copy")  # fmt: skip
def _view(c: Call) -> Result:
    x, (shape, dtype) = c.x, c.out
    if dtype != x.dtype:
        return c.emit("BitCast", [x], attrs={"to": dtype.value})
    return c.reshape(x, shape)


@rule("view_as_real", "view_as_complex")
def _view_complex(c: Call) -> Result:
    return c.emit("BitCast", [c.x], attrs={"to": c.out[1].value})


@rule("permute", "permute_copy")
def _permute(c: Call) -> Result:
    rank = len(c.x.shape)
    return c.transpose(c.x, [int(d) % rank for d in c.args["dims"]])


@rule("transpose", "transpose_copy", "swapaxes", "swapdims", "t", "t_copy", "numpy_T", "mT", "mH", "adjoint",
      "matrix_H", "moveaxis", "movedim")  # fmt: skip
def _transpose(c: Call) -> Result:
    x, rank = c.x, len(c.x.shape)
    perm = list(range(rank))
    if c.op in ("moveaxis", "movedim"):
        moved = [d % rank for d in numbers(c.args["source"], 1)]
        placed = [d % rank for d in numbers(c.args["destination"], 1)]
        perm = [d for d in perm if d not in moved]
        for place, axis in sorted(zip(placed, moved, strict=True)):
            perm.insert(place, axis)
    elif c.op in ("t", "t_copy", "numpy_T", "matrix_H"):
        perm.reverse()
    elif rank:
        first, second = [int(v) % rank for v in list(c.args.values())[1:3]] or [rank - 2, rank - 1]
        perm[first], perm[second] = perm[second], perm[first]
    return c.transpose(x, perm)


@rule("expand", "expand_as", "expand_copy", "broadcast_to")
def _expand(c: Call) -> Result:
    return c.expand(c.x, c.out[0])


@rule("unsqueeze", "unsqueeze_copy")
def _unsqueeze(c: Call) -> Result:
    return c.unsqueeze(c.x, c.axis("dim", len(c.x.shape) + 1))


@rule("squeeze", "squeeze_copy")
def _squeeze(c: Call) -> Result:
    return c.squeeze(c.x, *c.axes("dim", len(c.x.shape)))


@rule("atleast_1d", "atleast_2d", "atleast_3d")
def _at_least(c: Call) -> Result:
    return c.reshape(c.x, c.out[0])


@rule("cat", "concat", "concatenate", "hstack", "vstack", "dstack", "column_stack")
def _cat(c: Call) -> Result:
    """Empty one-dimensional operands, which torch lets through, are left out."""
    shape, dtype = c.out
    values = [c.cast(v, dtype) for v in c.args["tensors"] if v.shape != (0,) or shape == (0,)]
    if c.op in ("vstack", "dstack", "column_stack") or (c.op == "hstack" and len(shape) == 1):
        axis = {"vstack": 0, "dstack": 2, "column_stack": 1}.get(c.op, 0)
        values = [c.reshape(v, (*shape[:axis], v.numel * shape[axis] // max(_size(shape), 1), *shape[axis + 1 :]))
                  for v in values]  # fmt: skip
    else:
        axis = 1 if c.op == "hstack" else c.axis("dim", len(shape))
    return values[0] if len(values) == 1 else c.emit("Concat", values, attrs={"axis": axis})


def _size(shape: Shape) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


@rule("stack")
def _stack(c: Call) -> Result:
    axis = c.axis("dim", len(c.out[0]))
    values = [c.unsqueeze(c.cast(v, c.out[1]), axis) for v in c.args["tensors"]]
    return values[0] if len(values) == 1 else c.emit("Concat", values, attrs={"axis": axis})


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk", "split_copy",
      "split_with_sizes_copy", "hsplit", "vsplit", "unsafe_split_with_sizes")  # fmt: skip
def _split(c: Call) -> Result:
    x = c.x
    axis = c.axis("dim", len(x.shape)) if c.op not in ("hsplit", "vsplit") else int(c.op == "hsplit")
    specs: list[Spec] = [spec for spec in c.outs if spec is not None]
    if len(specs) == 1:
        return [x]
    return c.emit_all("Split", [x], specs, {"axis": axis, "split": tuple(s[0][axis] for s in specs)})


@rule("unbind", "unbind_copy")
def _unbind(c: Call) -> Result:
    axis = c.axis("dim", len(c.x.shape))
    return [c.squeeze(cut(c, c.x, axis, i, i + 1), axis) if c.used[i] else None for i in range(len(c.outs))]


def cut(c: Call, x: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
    """Elements start, start + step… before end of one axis."""
    length = max(-(-(end - start) // step), 0)
    if length == x.shape[axis] and step == 1:
        return x
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    attrs: Attrs = {"axes": (axis,), "starts": (start,), "ends": (end,), "steps": (step,)}
    return c.emit("Slice", [x], (shape, x.dtype), attrs)


def bounds(start: int | None, end: int | None, dim: int) -> tuple[int, int]:
    """A slice's start and end as torch clamps them."""
    first = 0 if start is None else int(start)
    last = dim if end is None else int(end)
    first, last = (first + dim if first < 0 else first), (last + dim if last < 0 else last)
    first = min(max(first, 0), dim)
    return first, max(min(max(last, 0), dim), first)


@rule("slice", "slice_copy")
def _slice(c: Call) -> Result:
    x = c.x
    axis = c.axis("dim", len(x.shape))
    start, end = bounds(c.get("start"), c.get("end"), x.shape[axis])
    return cut(c, x, axis, start, end, int(c.get("step", 1)))


@rule("narrow", "narrow_copy")
def _narrow(c: Call) -> Result:
    x = c.x
    axis = c.axis("dim", len(x.shape))
    start = int(c.args["start"])
    start = start + x.shape[axis] if start < 0 else start
    return cut(c, x, axis, start, start + int(c.args["length"]))


@rule("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
      "replication_pad2d", "replication_pad3d", "_pad_circular", "_pad_enum")  # fmt: skip
def _pad(c: Call) -> Result:
    """torch lists the last axis first, before and after; ONNX all befores in order, then all afters."""
    x, given = c.x, [int(p) for p in c.get("pad", c.get("padding"))]
    rank = len(x.shape)
    before, after = [0] * rank, [0] * rank
    for i in range(len(given) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = given[2 * i], given[2 * i + 1]
    if not any(given):
        return x
    mode = c.get("mode", "constant") if c.op == "pad" else c.op.split("_")[0]
    mode = {"reflection": "reflect", "replication": "edge", "replicate": "edge", "circular": "wrap", "": "wrap"}.get(
        mode, mode
    )
    attrs: Attrs = {"mode": mode, "pads": (*before, *after)}
    value = c.get("value", 0)
    if mode == "constant" and value:
        attrs["value"] = float(value)
    return c.emit("Pad", [x], attrs=attrs)


@rule("roll")
def _roll(c: Call) -> Result:
    """Per axis the tail, then the head."""
    x = c.x
    dims, shifts = c.get("dims", []), numbers(c.args["shifts"], 1)
    if not dims and dims != 0:
        flat = c.reshape(x, (x.numel,))
        return c.reshape(_rolled(c, flat, 0, shifts[0]), x.shape)
    for axis, shift in zip(numbers(dims, 1), shifts, strict=True):
        x = _rolled(c, x, axis % len(x.shape), shift)
    return x


def _rolled(c: Call, x: Value, axis: int, shift: int) -> Value:
    dim = x.shape[axis]
    place = -shift % dim if dim else 0
    if not place:
        return x
    parts = [cut(c, x, axis, place, dim), cut(c, x, axis, 0, place)]
    return c.emit("Concat", parts, x.spec, {"axis": axis})


@rule("flip", "fliplr", "flipud")
def _flip(c: Call) -> Result:
    x = c.x
    axes = {"fliplr": (1,), "flipud": (0,)}.get(c.op) or c.axes("dims", len(x.shape))
    count = len(axes)
    attrs: Attrs = {
        "axes": axes, "starts": tuple(x.shape[a] - 1 for a in axes), "ends": (-1,) * count, "steps": (-1,) * count,
    }  # fmt: skip
    return c.emit("Slice", [x], attrs=attrs)


@rule("repeat", "tile")
def _repeat(c: Call) -> Result:
    x = c.x
    rank = len(c.out[0])
    repeats = numbers(c.get("repeats", c.get("dims")), 1)
    repeats = (1,) * (rank - len(repeats)) + repeats
    wide = c.expand(x, (1,) * (rank - len(x.shape)) + x.shape)
    return wide if all(r == 1 for r in repeats) else c.emit("Tile", [wide], attrs={"repeats": repeats})


@rule("repeat_interleave.self_int")
def _repeat_interleave(c: Call) -> Result:
    x, repeats = c.x, int(c.args["repeats"])
    if c.get("dim") is None:
        x, axis = c.reshape(x, (x.numel,)), 0
    else:
        axis = c.axis("dim", len(x.shape))
    wide = c.unsqueeze(x, axis + 1)
    wide = c.expand(wide, (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :]))
    return c.reshape(wide, c.out[0])


@rule("tril", "triu")
def _trilu(c: Call) -> Result:
    return c.emit("Trilu", [c.x], attrs={"upper": int(c.op == "triu"), "k": int(c.get("diagonal", 0))})


@rule("pixel_shuffle")
def _pixel_shuffle(c: Call) -> Result:
    x, block = c.x, int(c.args["upscale_factor"])
    if len(x.shape) != 4:
        raise ShapeInferenceError(f"pixel_shuffle of shape {x.shape} is not (N, C, H, W)")
    return c.emit("DepthToSpace", [x], attrs={"blocksize": block, "mode": "CRD"})


@rule("pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
def _blocks(c: Call) -> Result:
    """Split axes, permute, merge."""
    x = c.x
    if c.op == "pixel_unshuffle":
        r = int(c.args["downscale_factor"])
        lead, (height, width) = x.shape[:-2], x.shape[-2:]
        n = len(lead)
        apart = c.reshape(x, (*lead, height // r, r, width // r, r))
        return c.reshape(c.transpose(apart, [*range(n), n + 1, n + 3, n, n + 2]), c.out[0])
    groups = int(c.args["groups"])
    apart = c.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    return c.reshape(c.transpose(apart, [0, 2, 1, *range(3, len(apart.shape))]), c.out[0])


@rule("meshgrid")
def _meshgrid(c: Call) -> Result:
    found: list[Value | None] = []
    swap = c.get("indexing", "ij") == "xy"
    for i, (value, spec) in enumerate(zip(c.args["tensors"], c.outs, strict=True)):
        assert spec is not None
        axis = 1 - i if swap and i < 2 else i
        shape = tuple(value.numel if k == axis else 1 for k in range(len(spec[0])))
        found.append(c.expand(c.reshape(value, shape), spec[0]))
    return found


@rule("as_strided", "as_strided_copy", "diagonal", "diagonal_copy", "unfold", "unfold_copy", "diag_embed", "diag")
def _strided(c: Call) -> Result:
    """Elements picked at fixed places, the size of the result decides the cost."""
    places = c.constant((*c.out[0], 1), c.lowering.index_dtype)
    return c.emit("GatherND", [c.reshape(c.x, (c.x.numel,)), places], attrs={"batch_dims": 0})

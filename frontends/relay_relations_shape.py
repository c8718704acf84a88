"""Type relations of Relay operators that reshape, join, cut, pad and index tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frontends.relay_ast import Dim, Shape, TensorType, TupleType, Type
from frontends.relay_relations import Layout, Site, Waiting, product, relation, wanted_shape


@relation("broadcast_to", "dyn.broadcast_to")
def _broadcast_to(site: Site) -> Type:
    return TensorType(wanted_shape(site, 1, "shape"), site.tensor(0).dtype)


@relation("broadcast_to_like", "reshape_like", "collapse_sum_like")
def _like(site: Site) -> Type:
    data, like = site.tensor(0), site.tensor(1)
    if site.op == "reshape_like" and (site.get("lhs_begin", 0) or site.get("lhs_end") is not None):
        a, b = site.integer("lhs_begin"), site.get("lhs_end", len(data.shape))
        c, d = site.integer("rhs_begin"), site.get("rhs_end", len(like.shape))
        return TensorType((*data.shape[:a], *like.shape[c:d], *data.shape[b:]), data.dtype)
    return TensorType(like.shape, data.dtype)


@relation("collapse_sum_to")
def _collapse(site: Site) -> Type:
    return TensorType(wanted_shape(site, 1, "shape"), site.tensor(0).dtype)


def reshaped(site: Site, old: Shape, wanted: Sequence[Dim]) -> Shape:
    """The shape that `newshape` asks for: 0 copies, -1 infers, -2 copies the rest, -3 merges two, -4 splits one."""
    result: list[Dim] = []
    source, inferred, i = 0, -1, 0
    zero_is_copy = not site.get("allowzero", False)
    wanted = list(wanted)
    while i < len(wanted):
        code = wanted[i]
        if code is None or code > 0 or (code == 0 and not zero_is_copy):
            result.append(code)
            source += 1
        elif code == 0:
            if source >= len(old):
                raise site.error("newshape copies an axis that the tensor lacks")
            result.append(old[source])
            source += 1
        elif code == -1:
            if inferred >= 0:
                raise site.error("newshape has more than one -1")
            inferred = len(result)
            result.append(1)
            source += 1
        elif code == -2:
            result += old[source:]
            source = len(old)
        elif code == -3 and source + 1 < len(old):
            result.append(product(old[source : source + 2]))
            source += 2
        elif code == -4 and source < len(old) and i + 2 < len(wanted):
            result += _split_axis(site, old[source], wanted[i + 1], wanted[i + 2])
            source += 1
            i += 2
        else:
            raise site.error(f"newshape entry {code} does not fit a tensor of rank {len(old)}")
        i += 1
    return _with_inferred(site, old, result, inferred)


def _split_axis(site: Site, dim: Dim, first: Dim, second: Dim) -> list[Dim]:
    if first == -1 and second not in (None, -1, 0) and dim is not None:
        return [dim // second, second]
    if second == -1 and first not in (None, -1, 0) and dim is not None:
        return [first, dim // first]
    return [None if d is None or d < 0 else d for d in (first, second)]


def _with_inferred(site: Site, old: Shape, result: list[Dim], inferred: int) -> Shape:
    total = product(old)
    if inferred >= 0:
        result[inferred] = None
        # Unknown lengths that both sides share cancel.
        known_old = product([d for d in old if d is not None])
        rest = [d for i, d in enumerate(result) if i != inferred]
        if sum(d is None for d in old) == sum(d is None for d in rest):
            others = product([d for d in rest if d is not None])
            if others and known_old is not None and known_old % others == 0:
                result[inferred] = known_old // others
            elif known_old:
                raise site.error(f"{known_old} elements cannot be shaped as {rest} with one axis free")
    else:
        new = product(result)
        if total is not None and new is not None and total != new:
            raise site.error(f"{total} elements cannot take the shape {tuple(result)}")
    return tuple(result)


@relation("reshape", "dyn.reshape", "contrib_reverse_reshape")
def _reshape(site: Site) -> Type:
    wanted: Any = site.get("newshape")
    if wanted is None:
        wanted = wanted_shape(site, 1)
    wanted = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    wanted = [w if isinstance(w, int) else None for w in wanted]
    if site.op == "contrib_reverse_reshape":
        data = site.tensor(0)
        return TensorType(reshaped(site, data.shape[::-1], wanted[::-1])[::-1], data.dtype)
    data = site.tensor(0)
    return TensorType(reshaped(site, data.shape, wanted), data.dtype)


@relation("nn.batch_flatten")
def _batch_flatten(site: Site) -> Type:
    data = site.tensor(0)
    return TensorType((data.shape[0] if data.shape else 1, product(data.shape[1:])), data.dtype)


@relation("transpose")
def _transpose(site: Site) -> Type:
    data = site.tensor(0)
    rank = len(data.shape)
    perm = permutation(site, rank)
    return TensorType(tuple(data.shape[p] for p in perm), data.dtype)


def permutation(site: Site, rank: int) -> tuple[int, ...]:
    """The axes of a transpose, reversed by default."""
    axes = site.get("axes")
    if not axes:
        return tuple(reversed(range(rank)))
    perm = tuple(site.wrap(a, rank) for a in axes)
    if sorted(perm) != list(range(rank)):
        raise site.error(f"axes {axes} are no permutation of {rank} axes")
    return perm


@relation("expand_dims", "dyn.expand_dims")
def _expand_dims(site: Site) -> Type:
    data = site.tensor(0)
    rank, count = len(data.shape), site.integer("num_newaxis", 1)
    axis = site.integer("axis", 0)
    if not 0 <= count <= 16 or not -rank - 1 <= axis <= rank:
        raise site.error(f"axis {axis} does not exist in a tensor of rank {rank}")
    axis = axis + rank + 1 if axis < 0 else axis
    return TensorType((*data.shape[:axis], *(1,) * count, *data.shape[axis:]), data.dtype)


@relation("squeeze", "dyn.squeeze")
def _squeeze(site: Site) -> Type:
    data = site.tensor(0)
    axes = site.axes(len(data.shape))
    if axes is None:
        axes = tuple(i for i, d in enumerate(data.shape) if d == 1)
    if any(data.shape[a] not in (1, None) for a in axes):
        raise site.error(f"axes {axes} of {data} are longer than 1")
    return TensorType(tuple(d for i, d in enumerate(data.shape) if i not in axes), data.dtype)


@relation("concatenate", "qnn.concatenate")
def _concatenate(site: Site) -> Type:
    parts = site.tensors(0)
    if not parts:
        raise site.error("there is nothing to concatenate")
    rank = len(parts[0].shape)
    axis = site.axis(rank, default=0)
    if any(len(p.shape) != rank for p in parts):
        raise site.error("the parts differ in rank")
    shape = list(parts[0].shape)
    lengths = [p.shape[axis] for p in parts]
    shape[axis] = None if None in lengths else sum(lengths)  # type: ignore[arg-type]
    for other in range(rank):
        known = {p.shape[other] for p in parts} - {None}
        if other != axis:
            if len(known) > 1:
                raise site.error(f"the parts differ along axis {other}: {sorted(known)}")  # type: ignore[type-var]
            shape[other] = next(iter(known), None)
    return TensorType(tuple(shape), parts[0].dtype)


@relation("stack")
def _stack(site: Site) -> Type:
    parts = site.tensors(0)
    if not parts:
        raise site.error("there is nothing to stack")
    axis = site.axis(len(parts[0].shape) + 1, default=0)
    shape = parts[0].shape
    return TensorType((*shape[:axis], len(parts), *shape[axis:]), parts[0].dtype)


@relation("split")
def _split(site: Site) -> Type:
    data = site.tensor(0)
    axis = site.axis(len(data.shape), default=0)
    length, cuts = data.shape[axis], site.get("indices_or_sections", 1)
    if isinstance(cuts, int):
        if not 0 < cuts <= 65536 or (length is not None and length % cuts):
            raise site.error(f"axis of length {length} does not split into {cuts} equal parts")
        sizes: list[Dim] = [None if length is None else length // cuts] * cuts
    else:
        if not all(isinstance(c, int) for c in cuts):
            raise site.error(f"indices {cuts} are not numbers")
        ends = [*cuts, length]
        sizes = [None if e is None else max(e - s, 0) for s, e in zip([0, *cuts], ends, strict=True)]
    return TupleType(tuple(TensorType((*data.shape[:axis], s, *data.shape[axis + 1 :]), data.dtype) for s in sizes))


@relation("take")
def _take(site: Site) -> Type:
    data, indices = site.tensor(0), site.tensor(1)
    if site.get("axis") is None:
        return TensorType(indices.shape, data.dtype)
    axis, batch = site.axis(len(data.shape)), site.integer("batch_dims", 0)
    return TensorType((*data.shape[:axis], *indices.shape[batch:], *data.shape[axis + 1 :]), data.dtype)


@relation("gather")
def _gather(site: Site) -> Type:
    return TensorType(site.tensor(1).shape, site.tensor(0).dtype)


@relation("gather_nd")
def _gather_nd(site: Site) -> Type:
    data, indices = site.tensor(0), site.tensor(1)
    if not indices.shape or indices.shape[0] is None or indices.shape[0] > len(data.shape):
        raise site.error(f"indices {indices} do not fit data {data}")
    skipped = indices.shape[0] + site.integer("batch_dims", 0)
    return TensorType((*indices.shape[1:], *data.shape[skipped:]), data.dtype)


@relation("scatter", "scatter_add", "scatter_nd", "scatter_elements", "strided_set")
def _scatter(site: Site) -> Type:
    return site.tensor(0)


@relation("tile", "dyn.tile")
def _tile(site: Site) -> Type:
    data = site.tensor(0)
    reps = wanted_shape(site, 1, "reps")
    rank = max(len(reps), len(data.shape))
    shape = (1,) * (rank - len(data.shape)) + data.shape
    counts: tuple[Dim, ...] = (1,) * (rank - len(reps)) + reps
    return TensorType(tuple(product(pair) for pair in zip(shape, counts, strict=True)), data.dtype)


@relation("repeat")
def _repeat(site: Site) -> Type:
    data = site.tensor(0)
    axis = site.axis(len(data.shape), default=0)
    length = product((data.shape[axis], site.integer("repeats", 1)))
    return TensorType((*data.shape[:axis], length, *data.shape[axis + 1 :]), data.dtype)


def pad_widths(site: Site, rank: int) -> list[tuple[int, int]] | None:
    """(before, after) of each axis; None if they are not constant."""
    widths = site.get("pad_width")
    if widths is None:
        widths = site.value(1)
    if widths is None:
        return None
    pairs = []
    for entry in widths:
        if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(v, int) for v in entry):
            raise site.error(f"pad_width {widths} is not a list of pairs")
        pairs.append((entry[0], entry[1]))
    if len(pairs) != rank:
        raise site.error(f"pad_width has {len(pairs)} pairs, the tensor {rank} axes")
    return pairs


@relation("nn.pad", "nn.mirror_pad", "dyn.nn.pad")
def _pad(site: Site) -> Type:
    data = site.tensor(0)
    widths = pad_widths(site, len(data.shape))
    if widths is None:
        return TensorType((None,) * len(data.shape), data.dtype)
    shape = tuple(None if d is None else d + sum(w) for d, w in zip(data.shape, widths, strict=True))
    if any(d is not None and d < 0 for d in shape):
        raise site.error("pad_width crops more than there is")
    return TensorType(shape, data.dtype)


def slice_ranges(site: Site, shape: Shape) -> list[tuple[int, int | None, int | None, int]] | None:
    """(axis, start, stop, step) of a strided_slice with Python's meaning; None if the limits are not constant."""
    begin, end = site.get("begin", site.value(1)), site.get("end", site.value(2))
    strides, axes = site.get("strides", site.value(3)), site.get("axes")
    if begin is None or end is None:
        return None
    sizes = site.text("slice_mode", "end") == "size"
    found: list[tuple[int, int | None, int | None, int]] = []
    for i, start in enumerate(begin):
        if i >= len(end):
            break
        axis = site.wrap(axes[i] if axes is not None and i < len(axes) else i, len(shape))
        step = strides[min(i, len(strides) - 1)] if strides and not sizes else 1
        stop = end[i]
        if not isinstance(step, int) or step == 0:
            raise site.error(f"a stride of {step} never ends")
        start = start if isinstance(start, int) else None
        stop = stop if isinstance(stop, int) else None
        if sizes and stop is not None:
            dim = shape[axis]
            stop = dim if stop < 0 else (start or 0) + stop
        found.append((axis, start, stop, step))
    return found


@relation("strided_slice", "dyn.strided_slice")
def _strided_slice(site: Site) -> Type:
    data = site.tensor(0)
    ranges = slice_ranges(site, data.shape)
    if ranges is None:
        return TensorType((None,) * len(data.shape), data.dtype)
    shape = list(data.shape)
    for axis, start, stop, step in ranges:
        dim = shape[axis]
        if dim is not None:
            shape[axis] = len(range(*slice(start, stop, step).indices(dim)))
    return TensorType(tuple(shape), data.dtype)


@relation("slice_like")
def _slice_like(site: Site) -> Type:
    data, like = site.tensor(0), site.tensor(1)
    axes = site.axes(len(data.shape), "axes") or tuple(range(min(len(data.shape), len(like.shape))))
    shape = tuple(like.shape[i] if i in axes and i < len(like.shape) else d for i, d in enumerate(data.shape))
    return TensorType(shape, data.dtype)


@relation("layout_transform")
def _layout_transform(site: Site) -> Type:
    data = site.tensor(0)
    source, target = Layout(site.text("src_layout", "NCHW")), Layout(site.text("dst_layout", "NCHW"))
    return TensorType(target.shape(source.sizes(data.shape)), data.dtype)


@relation("meshgrid")
def _meshgrid(site: Site) -> Type:
    parts = site.tensors(0)
    shape = [p.shape[0] if p.shape else 1 for p in parts]
    if site.text("indexing", "ij") == "xy" and len(shape) > 1:
        shape[:2] = shape[1::-1]
    return TupleType(tuple(TensorType(tuple(shape), p.dtype) for p in parts))


@relation("einsum")
def _einsum(site: Site) -> Type:
    parts = site.tensors(0)
    left, _, right = site.text("equation").replace(" ", "").partition("->")
    sizes: dict[str, Dim] = {}
    for term, part in zip(left.split(","), parts, strict=False):
        if "." in term or len(term) != len(part.shape):
            raise Waiting
        sizes |= zip(term, part.shape, strict=True)
    if not set(right) <= set(sizes):
        raise site.error(f"equation '{left}->{right}' names axes that no operand has")
    return TensorType(tuple(sizes[c] for c in right), parts[0].dtype)

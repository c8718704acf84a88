"""Type relations of Relay's element-wise and broadcasting operators, constants, reductions and sorting."""

from __future__ import annotations

import math

from frontends.relay_ast import Dim, TensorType, TupleType, Type, resolve, words
from frontends.relay_relations import Site, broadcast, product, relation, wanted_shape

SAME = words(
    """negative abs ceil floor round trunc sign copy exp log log2 log10 sqrt rsqrt erf sin cos tan asin acos atan
    sinh cosh tanh asinh acosh atanh sigmoid clip logical_not bitwise_not zeros_like ones_like reverse
    reverse_sequence fast_exp fast_tanh fast_erf fixed_point_multiply fixed_point_multiply_per_axis identity
    on_device stop_fusion annotation.stop_fusion annotation.cast_hint annotation.compiler_begin
    annotation.compiler_end annotation.checkpoint annotation.simulated_quantize
    relay.op.annotation.simulated_quantize nn.relu nn.leaky_relu nn.softmax nn.log_softmax nn.fast_softmax
    nn.lrn nn.l2_normalize nn.dropout_raw sequence_mask matrix_set_diag sort qnn.relu qnn.leaky_relu full_like
    cumsum_same trilu nn.mish nn.gelu nn.silu"""
)
COMPARISONS = words("equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor")
BINARY = words(
    """add subtract multiply divide floor_divide power mod floor_mod trunc_divide trunc_mod maximum minimum
    bitwise_and bitwise_or bitwise_xor left_shift right_shift atan2"""
)
REDUCTIONS = words("sum mean max min prod all any variance std logsumexp argmax argmin")


@relation(*SAME)
def _same(site: Site) -> Type:
    ty = resolve(site.types[0]) if site.types else None
    if isinstance(ty, TupleType):
        return ty
    return site.tensor(0)


relation("device_copy", "memory.device_copy", "qnn.tanh", "qnn.sigmoid", "qnn.softmax", "qnn.hardswish", "qnn.erf")(
    _same
)
relation("qnn.exp", "qnn.sqrt", "qnn.rsqrt", "qnn.log", "qnn.abs", "qnn.clip")(_same)


@relation("isnan", "isfinite", "isinf")
def _predicate(site: Site) -> Type:
    return TensorType(site.tensor(0).shape, "bool")


@relation(*BINARY)
def _binary(site: Site) -> Type:
    x, y = site.tensor(0), site.tensor(1)
    return TensorType(broadcast(site, x.shape, y.shape), x.dtype)


@relation(*COMPARISONS)
def _comparison(site: Site) -> Type:
    return TensorType(broadcast(site, site.tensor(0).shape, site.tensor(1).shape), "bool")


@relation("qnn.add", "qnn.subtract", "qnn.mul")
def _quantised_binary(site: Site) -> Type:
    x, y = site.tensor(0), site.tensor(1)
    for i in range(2, len(site.types)):
        site.assign(i, TensorType((), "float32" if i % 2 == 0 else "int32"))
    return TensorType(broadcast(site, x.shape, y.shape), x.dtype)


@relation("where")
def _where(site: Site) -> Type:
    c, x, y = site.tensor(0), site.tensor(1), site.tensor(2)
    return TensorType(broadcast(site, c.shape, x.shape, y.shape), x.dtype)


@relation("zeros", "ones", "dyn.zeros", "dyn.ones")
def _initial(site: Site) -> Type:
    return TensorType(wanted_shape(site, 0, "shape"), site.text("dtype", "float32"))


@relation("full", "dyn.full")
def _full(site: Site) -> Type:
    return TensorType(wanted_shape(site, 1, "shape"), site.text("dtype") or site.tensor(0).dtype)


@relation("arange")
def _arange(site: Site) -> Type:
    values = [site.value(i) for i in range(3)] if site.types else [site.get(n) for n in ("start", "stop", "step")]
    start, stop, step = (v[0] if isinstance(v, list) and v else v for v in values)
    length: Dim = None
    if all(isinstance(v, (int, float)) and math.isfinite(v) for v in (start, stop, step)) and step:
        length = max(0, math.ceil((stop - start) / step))
    return TensorType((length,), site.text("dtype", "float32"))


@relation("cast", "reinterpret")
def _cast(site: Site) -> Type:
    data = site.tensor(0)
    return TensorType(data.shape, site.text("dtype", data.dtype))


@relation("cast_like")
def _cast_like(site: Site) -> Type:
    return TensorType(site.tensor(0).shape, site.tensor(1).dtype)


@relation(*REDUCTIONS)
def _reduce(site: Site) -> Type:
    data = site.tensor(0)
    axes = reduced_axes(site, len(data.shape))
    keep = bool(site.get("keepdims", False))
    shape = tuple(1 if i in axes else d for i, d in enumerate(data.shape) if keep or i not in axes)
    dtype = "int32" if site.op.startswith("arg") else "bool" if site.op in ("all", "any") else data.dtype
    return TensorType(shape, dtype)


def reduced_axes(site: Site, rank: int) -> tuple[int, ...]:
    """The axes that a reduction runs over."""
    axes = site.axes(rank)
    if axes is None or (axes == () and not site.get("exclude", False)):
        axes = tuple(range(rank))
    if site.get("exclude", False):
        axes = tuple(i for i in range(rank) if i not in axes)
    return axes


@relation("cumsum", "cumprod")
def _cumulate(site: Site) -> Type:
    data = site.tensor(0)
    shape = data.shape if site.get("axis") is not None else (product(data.shape),)
    return TensorType(shape, site.text("dtype", data.dtype))


@relation("one_hot")
def _one_hot(site: Site) -> Type:
    indices = site.tensor(0)
    depth = site.integer("depth", 1)
    axis = site.axis(len(indices.shape) + 1)
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    return TensorType(shape, site.text("dtype", "float32"))


@relation("topk", "dyn.topk")
def _topk(site: Site) -> Type:
    data = site.tensor(0)
    axis, k = site.axis(len(data.shape)), site.get("k", site.value(1))
    k = k[0] if isinstance(k, list) and k else k
    length = k if isinstance(k, int) and k > 0 else data.shape[axis] if isinstance(k, int) else None
    shape = (*data.shape[:axis], length, *data.shape[axis + 1 :])
    values, indices = TensorType(shape, data.dtype), TensorType(shape, site.text("dtype", "int32"))
    return {"values": values, "indices": indices}.get(site.text("ret_type", "both"), TupleType((values, indices)))


@relation("argsort")
def _argsort(site: Site) -> Type:
    return TensorType(site.tensor(0).shape, site.text("dtype", "float32"))


@relation("shape_of", "vm.shape_of")
def _shape_of(site: Site) -> Type:
    return TensorType((len(site.tensor(0).shape),), site.text("dtype", "int32"))


@relation("ndarray_size")
def _size(site: Site) -> Type:
    site.tensor(0)
    return TensorType((), site.text("dtype", "int32"))

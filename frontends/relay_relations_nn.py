"""Type relations of Relay's neural-network operators: products, pooling, normalisation, resizing and QNN forms."""

from __future__ import annotations

from typing import Any

from frontends.relay_ast import Dim, TensorType, TupleType, Type
from frontends.relay_relations import Layout, Site, Waiting, padding, product, relation

SPATIAL = {1: "W", 2: "HW", 3: "DHW"}


def spatial_rank(op: str) -> int:
    """1, 2 or 3 from an operator's name (`nn.conv2d`)."""
    return next((n for n in (1, 3) if f"{n}d" in op), 2)


def data_layout(site: Site, name: str = "data_layout") -> Layout:
    """The layout of the data argument."""
    default = {1: "NCW", 2: "NCHW", 3: "NCDHW"}[spatial_rank(site.op)]
    return Layout(site.text(name, default))


def kernel_layout(site: Site) -> Layout:
    """The layout of the weights."""
    spatial = SPATIAL[spatial_rank(site.op)]
    pair = "IO" if "transpose" in site.op else "OI"
    return Layout(site.text("kernel_layout", pair + spatial))


def conv_kernel(site: Site) -> tuple[int, ...]:
    """Length of the window along each spatial axis."""
    spatial = SPATIAL[spatial_rank(site.op)]
    if site.get("kernel_size") is not None:
        return site.integers("kernel_size", len(spatial))
    sizes = kernel_layout(site).sizes(site.tensor(1).shape)
    return tuple(sizes.get(a) or 1 for a in spatial)


def _positive(site: Site, **values: tuple[int, ...]) -> None:
    for name, entries in values.items():
        if min(entries) < 1:
            raise site.error(f"{name} {list(entries)} must be positive")


def _window(site: Site, dim: Dim, kernel: int, stride: int, dilation: int, pad: int, ceil: bool = False) -> Dim:
    if dim is None:
        return None
    room = dim + pad - ((kernel - 1) * dilation + 1)
    if room < 0:
        raise site.error(f"a window of {(kernel - 1) * dilation + 1} does not fit {dim} padded by {pad}")
    return (room + stride - 1 if ceil else room) // stride + 1


def _kernel_type(site: Site, data: TensorType, channels: Dim, weight: Layout, transposed: bool) -> TensorType | None:
    """The weights' type that data and attributes dictate."""
    out, kernel, groups = site.get("channels"), site.get("kernel_size"), site.integer("groups", 1)
    if not isinstance(out, int) or kernel is None or channels is None or groups < 1:
        return None
    spatial = SPATIAL[spatial_rank(site.op)]
    sizes: dict[str, Dim] = dict(zip(spatial, site.integers("kernel_size", len(spatial)), strict=True))
    if transposed:
        sizes |= {"I": channels, "O": out // groups}
    elif weight.axes.endswith("HWOI") and groups == channels:
        sizes |= {"O": channels, "I": out // groups}
    else:
        sizes |= {"O": out, "I": channels // groups}
    return TensorType(weight.shape(sizes), data.dtype)


def _convolution(site: Site) -> Type:
    data = site.tensor(0)
    layout, weight = data_layout(site), kernel_layout(site)
    spatial = SPATIAL[spatial_rank(site.op)]
    sizes = layout.sizes(data.shape)
    groups = site.integer("groups", 1)
    if site.known(1) is None:
        dictated = _kernel_type(site, data, sizes.get("C"), weight, False)
        if dictated is None:
            raise Waiting
        site.assign(1, dictated)
        kernel_sizes = weight.sizes(dictated.shape)
    else:
        kernel_sizes = weight.sizes(site.tensor(1).shape)
    out: Any = site.get("channels")
    if not isinstance(out, int):
        depthwise = weight.axes.endswith("HWOI") and groups > 1
        out = product((kernel_sizes.get("O"), kernel_sizes.get("I"))) if depthwise else kernel_sizes.get("O")
    inner, fed = kernel_sizes.get("I"), sizes.get("C")
    if groups < 1 or (groups == 1 and inner is not None and fed is not None and inner != fed):
        raise site.error(f"weights for {inner} channels meet data of {fed} in {groups} groups")
    kernel = tuple(kernel_sizes.get(a) or 1 for a in spatial)
    if site.get("kernel_size") is not None:
        kernel = site.integers("kernel_size", len(spatial))
    strides, dilation = site.integers("strides", len(spatial)), site.integers("dilation", len(spatial))
    _positive(site, strides=strides, dilation=dilation, kernel=kernel)
    before, after = padding(site, len(spatial))
    result: dict[str, Dim] = {"N": sizes.get("N"), "C": out}
    for i, axis in enumerate(spatial):
        result[axis] = _window(site, sizes.get(axis), kernel[i], strides[i], dilation[i], before[i] + after[i])
    out_layout = Layout(site.text("out_layout", layout.text))
    return TensorType(out_layout.shape(result), site.text("out_dtype", data.dtype))


for _n in (1, 2, 3):
    relation(f"nn.conv{_n}d")(_convolution)
relation("nn.contrib_conv2d_NCHWc", "nn.contrib_depthwise_conv2d_NCHWc")(_convolution)
relation("nn.contrib_conv2d_winograd_without_weight_transform", "nn.contrib_conv2d_gemm_without_weight_transform")(
    lambda site: _convolution(
        Site(site.op, [site.types[0], None], {**site.attrs, "kernel_layout": "OIHW"}, site.values)
    )
)


@relation("nn.conv1d_transpose", "nn.conv2d_transpose", "nn.conv3d_transpose", "qnn.conv2d_transpose")
def _deconvolution(site: Site) -> Type:
    data = site.tensor(0)
    layout, weight = data_layout(site), kernel_layout(site)
    spatial = SPATIAL[spatial_rank(site.op)]
    sizes = layout.sizes(data.shape)
    groups = max(site.integer("groups", 1), 1)
    if site.known(1) is None:
        dictated = _kernel_type(site, data, sizes.get("C"), weight, True)
        if dictated is None:
            raise Waiting
        site.assign(1, dictated)
        kernel_sizes = weight.sizes(dictated.shape)
    else:
        kernel_sizes = weight.sizes(site.tensor(1).shape)
    if kernel_sizes.get("I") != sizes.get("C") and kernel_sizes.get("O") == sizes.get("C"):
        kernel_sizes |= {"I": kernel_sizes.get("O"), "O": kernel_sizes.get("I")}  # old printers call (in, out) OIHW
    out: Any = site.get("channels")
    if not isinstance(out, int):
        out = product((kernel_sizes.get("O"), groups))
    kernel = conv_kernel(site) if site.known(1) else site.integers("kernel_size", len(spatial))
    strides, dilation = site.integers("strides", len(spatial)), site.integers("dilation", len(spatial))
    _positive(site, strides=strides, dilation=dilation, kernel=kernel)
    before, after = padding(site, len(spatial))
    extra = site.integers("output_padding", len(spatial), 0)
    result: dict[str, Dim] = {"N": sizes.get("N"), "C": out}
    for i, axis in enumerate(spatial):
        dim = sizes.get(axis)
        grown = None if dim is None else strides[i] * (dim - 1) + (kernel[i] - 1) * dilation[i] + 1 + extra[i]
        result[axis] = None if grown is None else grown - before[i] - after[i]
    default = "int32" if site.op.startswith("qnn") else data.dtype
    return TensorType(Layout(site.text("out_layout", layout.text)).shape(result), site.text("out_dtype", default))


@relation("nn.deformable_conv2d")
def _deformable(site: Site) -> Type:
    inner = Site(site.op, [site.types[0], site.types[2]], site.attrs)
    result = _convolution(inner)
    if 1 in inner.assigned:
        site.assign(2, inner.assigned[1])
    return result


@relation("nn.dense", "nn.contrib_dense_pack", "nn.matmul", "qnn.dense", "qnn.contrib_dense_pack")
def _dense(site: Site) -> Type:
    data = site.tensor(0)
    if not data.shape:
        raise site.error("a scalar has no features to multiply")
    swap_a = site.op == "nn.matmul" and bool(site.get("transpose_a", False))
    rows = data.shape[:-1] if not swap_a else (*data.shape[:-2], data.shape[-1])
    depth = data.shape[-2] if swap_a and len(data.shape) > 1 else data.shape[-1]
    transposed = bool(site.get("transpose_b", False)) if site.op == "nn.matmul" else True
    units: Any = site.get("units")
    weight = site.known(1)
    if weight is None:
        if not isinstance(units, int):
            raise Waiting
        site.assign(1, TensorType((units, depth) if transposed else (depth, units), data.dtype))
    elif len(weight.shape) == 2:
        width, inner = weight.shape if transposed else weight.shape[::-1]
        if None not in (inner, depth) and inner != depth:
            raise site.error(f"weights for {inner} features meet data of {depth}")
        units = units if isinstance(units, int) else width
    elif len(weight.shape) == 3 and not isinstance(units, int):
        units = product((weight.shape[0], weight.shape[2]))
    default = "int32" if site.op.startswith("qnn") else data.dtype
    return TensorType((*rows, units if isinstance(units, int) else None), site.text("out_dtype", default))


def transposed_b(site: Site) -> bool:
    """Whether a batch_matmul reads its second operand as (batch, n, k).

    Printers leave the attribute out where it is False, and old ones lacked it where it was True: lengths decide.
    """
    given = site.get("transpose_b")
    x, y = site.tensor(0), site.tensor(1)
    if given is not None or len(x.shape) != 3 or len(y.shape) != 3:
        return bool(given)
    depth = x.shape[1] if site.get("transpose_a", False) else x.shape[2]
    return y.shape[1] != depth and y.shape[2] == depth


@relation("nn.batch_matmul", "qnn.batch_matmul")
def _batch_matmul(site: Site) -> Type:
    x, y = site.tensor(0), site.tensor(1)
    if len(x.shape) != 3 or len(y.shape) != 3:
        raise site.error(f"operands of rank {len(x.shape)} and {len(y.shape)}, 3 and 3 are needed")
    a = (x.shape[2], x.shape[1]) if site.get("transpose_a", False) else (x.shape[1], x.shape[2])
    b = (y.shape[2], y.shape[1]) if transposed_b(site) else (y.shape[1], y.shape[2])
    if None not in (a[1], b[0]) and a[1] != b[0]:
        raise site.error(f"inner lengths {a[1]} and {b[0]} differ")
    first, second = x.shape[0], y.shape[0]
    batch = second if first == 1 or first is None else first
    default = "int32" if site.op.startswith("qnn") else x.dtype
    return TensorType((batch, a[0], b[1]), site.text("out_dtype", default))


def _pool(site: Site) -> Type:
    data = site.tensor(0)
    spatial = SPATIAL[spatial_rank(site.op)]
    layout = data_layout(site, "layout")
    sizes = layout.sizes(data.shape)
    kernel, strides = site.integers("pool_size", len(spatial)), site.integers("strides", len(spatial))
    dilation = site.integers("dilation", len(spatial))
    _positive(site, pool_size=kernel, strides=strides, dilation=dilation)
    before, after = padding(site, len(spatial))
    ceil = bool(site.get("ceil_mode", False))
    for i, axis in enumerate(spatial):
        sizes[axis] = _window(site, sizes.get(axis), kernel[i], strides[i], dilation[i], before[i] + after[i], ceil)
    return TensorType(Layout(site.text("out_layout", layout.text)).shape(sizes), data.dtype)


for _n in (1, 2, 3):
    relation(f"nn.max_pool{_n}d", f"nn.avg_pool{_n}d")(_pool)
relation("qnn.avg_pool2d")(_pool)


def _global_pool(site: Site) -> Type:
    data = site.tensor(0)
    spatial = SPATIAL[spatial_rank(site.op)]
    layout = data_layout(site, "layout")
    sizes = layout.sizes(data.shape)
    wanted: Any = site.get("output_size")
    adaptive = "adaptive" in site.op and wanted not in (None, [])
    lengths = site.integers("output_size", len(spatial)) if adaptive else (1,) * len(spatial)
    for axis, length in zip(spatial, lengths, strict=True):
        sizes[axis] = length if "global" in site.op or adaptive else sizes.get(axis)
    return TensorType(Layout(site.text("out_layout", layout.text)).shape(sizes), data.dtype)


relation("nn.global_avg_pool1d", "nn.global_avg_pool2d", "nn.global_max_pool2d", "nn.global_avg_pool3d")(_global_pool)
for _n in (1, 2, 3):
    relation(f"nn.adaptive_avg_pool{_n}d", f"nn.adaptive_max_pool{_n}d")(_global_pool)


def _per_channel(site: Site, count: int, default: int) -> tuple[TensorType, TensorType]:
    """Data type, and the vector type given to arguments 1 … `count`."""
    data = site.tensor(0)
    channels = data.shape[site.axis(len(data.shape), default=default)]
    vector = TensorType((channels,), data.dtype)
    for i in range(1, count + 1):
        site.assign(i, vector)
    return data, vector


@relation("nn.batch_norm")
def _batch_norm(site: Site) -> Type:
    data, _ = _per_channel(site, 4, 1)
    channels = data.shape[site.axis(len(data.shape), default=1)]
    mean, variance = site.known(3), site.known(4)
    vector = TensorType((channels,), data.dtype)
    return TupleType((data, mean or vector, variance or vector))


@relation("nn.bias_add")
def _bias_add(site: Site) -> Type:
    return _per_channel(site, 1, 1)[0]


@relation("nn.prelu")
def _prelu(site: Site) -> Type:
    return _per_channel(site, 1, 1)[0]


@relation("nn.layer_norm")
def _layer_norm(site: Site) -> Type:
    return _per_channel(site, 2, -1)[0]


@relation("nn.group_norm", "nn.instance_norm")
def _group_norm(site: Site) -> Type:
    return _per_channel(site, 2, 1)[0]


@relation("nn.dropout")
def _dropout(site: Site) -> Type:
    data = site.tensor(0)
    return TupleType((data, data))


@relation("nn.upsampling", "nn.upsampling3d")
def _upsampling(site: Site) -> Type:
    data = site.tensor(0)
    layout = Layout(site.text("layout", "NCDHW" if "3d" in site.op else "NCHW"))
    sizes = layout.sizes(data.shape)
    for axis, name in (("D", "scale_d"), ("H", "scale_h"), ("W", "scale_w")):
        dim = sizes.get(axis)
        factor = site.get(name, 1)
        if dim is not None and isinstance(factor, (int, float)) and abs(factor) < 1e6:
            sizes[axis] = round(dim * factor)
    return TensorType(layout.shape(sizes), data.dtype)


@relation("image.resize", "image.resize1d", "image.resize2d", "image.resize3d")
def _resize(site: Site) -> Type:
    data = site.tensor(0)
    rank = spatial_rank(site.op)
    layout = data_layout(site, "layout")
    sizes = layout.sizes(data.shape)
    sizes |= zip(SPATIAL[rank], site.integers("size", rank), strict=True)
    return TensorType(layout.shape(sizes), site.text("out_dtype", data.dtype))


@relation("image.crop_and_resize")
def _crop_and_resize(site: Site) -> Type:
    data, boxes = site.tensor(0), site.tensor(1)
    layout = Layout(site.text("layout", "NCHW"))
    sizes = layout.sizes(data.shape)
    sizes["N"] = boxes.shape[0] if boxes.shape else 1
    sizes |= zip("HW", site.integers("crop_size", 2), strict=True)
    return TensorType(layout.shape(sizes), site.text("out_dtype", data.dtype))


@relation("image.grid_sample")
def _grid_sample(site: Site) -> Type:
    data, grid = site.tensor(0), site.tensor(1)
    return TensorType((*data.shape[:2], *grid.shape[2:]), data.dtype)


@relation("image.affine_grid")
def _affine_grid(site: Site) -> Type:
    data = site.tensor(0)
    return TensorType((data.shape[0] if data.shape else 1, 2, *site.integers("target_shape", 2)), data.dtype)


@relation("vision.roi_align", "vision.roi_pool")
def _roi(site: Site) -> Type:
    data, rois = site.tensor(0), site.tensor(1)
    layout = Layout(site.text("layout", "NCHW"))
    sizes = layout.sizes(data.shape)
    sizes["N"] = rois.shape[0] if rois.shape else 1
    sizes |= zip("HW", site.integers("pooled_size", 2), strict=True)
    return TensorType(layout.shape(sizes), data.dtype)


@relation("nn.space_to_depth", "nn.depth_to_space")
def _blocks(site: Site) -> Type:
    data = site.tensor(0)
    layout = Layout(site.text("layout", "NCHW"))
    sizes = layout.sizes(data.shape)
    block = max(site.integer("block_size", 1), 1)
    c, h, w = sizes.get("C"), sizes.get("H"), sizes.get("W")
    if "space_to_depth" in site.op:
        c, h, w = product((c, block * block)), None if h is None else h // block, None if w is None else w // block
    else:
        c, h, w = None if c is None else c // block**2, product((h, block)), product((w, block))
    sizes |= {"C": c, "H": h, "W": w}
    return TensorType(layout.shape(sizes), data.dtype)


def _scalars(site: Site, **positions: tuple[int, ...]) -> None:
    for dtype, places in positions.items():
        for i in places:
            site.assign(i, TensorType((), dtype))


@relation("qnn.conv2d", "qnn.conv1d")
def _qnn_conv(site: Site) -> Type:
    _scalars(site, int32=(2, 3), float32=(4, 5))
    inner = Site(site.op, site.types[:2], {**site.attrs, "out_dtype": site.text("out_dtype", "int32")})
    result = _convolution(inner)
    site.assigned |= inner.assigned
    return result


@relation("qnn.requantize")
def _requantize(site: Site) -> Type:
    data = site.tensor(0)
    _scalars(site, float32=(1, 3), int32=(2, 4))
    return TensorType(data.shape, site.text("out_dtype", "int8"))


@relation("qnn.quantize", "qnn.simulated_quantize")
def _quantize(site: Site) -> Type:
    data = site.tensor(0)
    _scalars(site, float32=(1,), int32=(2,))
    simulated = "simulated" in site.op
    return TensorType(data.shape, data.dtype if simulated else site.text("out_dtype", "int8"))


@relation("qnn.dequantize", "qnn.simulated_dequantize")
def _dequantize(site: Site) -> Type:
    data = site.tensor(0)
    _scalars(site, float32=(1,), int32=(2,))
    return TensorType(data.shape, data.dtype if "simulated" in site.op else site.text("out_dtype", "float32"))

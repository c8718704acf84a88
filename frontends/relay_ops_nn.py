"""Converters of Relay's neural-network operators: products, pooling, normalisation, resizing and QNN forms."""

from __future__ import annotations

import math

from costmodel.ir import AttrValue, DType
from frontends.relay_ops import OpCall, Value, converter, ir_axis, unary
from frontends.relay_raw import KERNEL, Attrs, Tensor, TensorVal, constant, to_dtype
from frontends.relay_relations import Layout, padding
from frontends.relay_relations_nn import SPATIAL, conv_kernel, data_layout, kernel_layout, spatial_rank, transposed_b


def _window(c: OpCall, kernel: tuple[int, ...]) -> Attrs:
    count = len(kernel)
    before, after = padding(c.site, count)
    return {
        "kernel_shape": kernel,
        "strides": c.site.integers("strides", count),
        "pads": (*before, *after),
        "dilations": c.site.integers("dilation", count),
    }


def _weights(c: OpCall, i: int, layout: Layout, order: str, shape: tuple[int, ...]) -> Tensor:
    """Weights in ONNX's shape; those that a compiler transformed (Winograd, packing) count as before."""
    x = c.x(i)
    if x.shape == shape:
        return x
    if len(layout.parts) == len(x.shape):
        x = c.to.to_ir(x, layout, order)
    if x.shape == shape:
        return x
    if math.prod(shape) == x.numel:
        return c.to.reshape(x, shape)
    return constant(shape, x.dtype, name=x.name)


def _out_layout(c: OpCall, layout: Layout) -> Layout:
    return Layout(c.site.text("out_layout", layout.text))


@converter("nn.conv1d", "nn.conv2d", "nn.conv3d", "nn.contrib_conv2d_NCHWc", "nn.contrib_depthwise_conv2d_NCHWc")
@converter("nn.contrib_conv2d_winograd_without_weight_transform", "nn.contrib_conv2d_gemm_without_weight_transform")
@converter("qnn.conv2d", "qnn.conv1d")
def _conv(c: OpCall) -> Value:
    layout = data_layout(c.site)
    kernel = conv_kernel(c.site)
    x = c.image(0, layout)
    group = c.site.integer("groups", 1)
    out = _out_layout(c, layout)
    channels = int(out.sizes(c.out)["C"] or 0)
    weight = _weights(c, 1, kernel_layout(c.site), KERNEL, (channels, x.shape[1] // group, *kernel))
    return c.give("Conv", [x, weight], out, {**_window(c, kernel), "group": group})


@converter("nn.conv1d_transpose", "nn.conv2d_transpose", "nn.conv3d_transpose", "qnn.conv2d_transpose")
def _conv_transpose(c: OpCall) -> Value:
    layout = data_layout(c.site)
    kernel = conv_kernel(c.site)
    x = c.image(0, layout)
    group = max(c.site.integer("groups", 1), 1)
    out = _out_layout(c, layout)
    channels = int(out.sizes(c.out)["C"] or 0)
    weight = _weights(c, 1, kernel_layout(c.site), "IODHW", (x.shape[1], channels // group, *kernel))
    attrs: Attrs = {**_window(c, kernel), "group": group}
    extra = c.site.integers("output_padding", len(kernel), 0)
    if any(extra):
        attrs["output_padding"] = extra
    return c.give("ConvTranspose", [x, weight], out, attrs)


@converter("nn.deformable_conv2d")
def _deformable(c: OpCall) -> Value:
    layout = data_layout(c.site)
    x, offset = c.image(0, layout), c.image(1, layout)
    weight = c.to.to_ir(c.x(2), kernel_layout(c.site), KERNEL)
    attrs: Attrs = {**_window(c, tuple(weight.shape[2:])), "group": c.site.integer("groups", 1)}
    attrs["offset_group"] = c.site.integer("deformable_groups", 1)
    return c.give("DeformConv", [x, weight, offset], layout, attrs)


@converter("nn.dense", "nn.contrib_dense_pack", "qnn.dense", "qnn.contrib_dense_pack")
def _dense(c: OpCall) -> Value:
    """A product with weights (units, features): Gemm on matrices, else MatMul with the weights transposed."""
    x, weight = c.x(0), c.x(1)
    if weight.shape != (c.out[-1], x.shape[-1]):
        shape = (c.out[-1], x.shape[-1])
        weight = c.to.reshape(weight, shape) if weight.numel == math.prod(shape) else constant(shape, weight.dtype)
    if len(x.shape) == 2:
        if weight.maker is not None and weight.maker.op == "Transpose":
            return c.emit("MatMul", [x, c.to.transpose(weight, (1, 0))])
        return c.emit("Gemm", [x, weight], transA=0, transB=1)
    return c.emit("MatMul", [x, c.to.transpose(weight, (1, 0))])


@converter("nn.matmul")
def _matmul(c: OpCall) -> Value:
    x, y = c.x(0), c.x(1)
    a, b = bool(c.site.get("transpose_a", False)), bool(c.site.get("transpose_b", False))
    if len(x.shape) == len(y.shape) == 2 and (a or b):
        return c.emit("Gemm", [x, y], transA=int(a), transB=int(b))
    if a:
        x = c.to.transpose(x, (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2))
    return c.emit("MatMul", [x, c.to.transpose(y, (1, 0)) if b else y])


@converter("nn.batch_matmul", "qnn.batch_matmul")
def _batch_matmul(c: OpCall) -> Value:
    x, y = c.x(0), c.x(1)
    if c.site.get("transpose_a", False):
        x = c.to.transpose(x, (0, 2, 1))
    if transposed_b(c.site):
        y = c.to.transpose(y, (0, 2, 1))
    return c.emit("MatMul", [x, y])


def _pool(c: OpCall) -> Value:
    layout = data_layout(c.site, "layout")
    kernel = c.site.integers("pool_size", len(SPATIAL[spatial_rank(c.op)]))
    attrs: Attrs = {**_window(c, kernel), "ceil_mode": int(bool(c.site.get("ceil_mode", False)))}
    average = "avg" in c.op
    if average:
        attrs["count_include_pad"] = int(bool(c.site.get("count_include_pad", False)))
    return c.give("AveragePool" if average else "MaxPool", [c.image(0, layout)], _out_layout(c, layout), attrs)


def _adaptive_pool(c: OpCall) -> Value:
    """Global pooling, or windows as near as possible to equal ones."""
    layout = data_layout(c.site, "layout")
    x = c.image(0, layout)
    out = _out_layout(c, layout)
    sizes = out.sizes(c.out)
    wanted = [int(sizes[a] or 1) for a in SPATIAL[spatial_rank(c.op)]]
    kind = "Average" if "avg" in c.op else "Max"
    if all(w == 1 for w in wanted):
        return c.give(f"Global{kind}Pool", [x], out, {})
    strides = tuple(max(d // w, 1) for d, w in zip(x.shape[2:], wanted, strict=True))
    kernel = tuple(max(d - (w - 1) * s, 1) for d, w, s in zip(x.shape[2:], wanted, strides, strict=True))
    count = len(kernel)
    attrs: Attrs = {"kernel_shape": kernel, "strides": strides, "pads": (0,) * (2 * count)}
    attrs |= {"dilations": (1,) * count, "ceil_mode": 0}
    if kind == "Average":
        attrs["count_include_pad"] = 0
    return c.give(f"{kind}Pool", [x], out, attrs)


for _n in (1, 2, 3):
    converter(f"nn.max_pool{_n}d", f"nn.avg_pool{_n}d")(_pool)
    converter(f"nn.adaptive_avg_pool{_n}d", f"nn.adaptive_max_pool{_n}d")(_adaptive_pool)
    converter(f"nn.global_avg_pool{_n}d", f"nn.global_max_pool{_n}d")(_adaptive_pool)
converter("qnn.avg_pool2d")(_pool)


def _channels_second(c: OpCall, default: int) -> tuple[Tensor, TensorVal, int]:
    """The data with its channel axis (of the program) at IR position 1 if it can be, and that position."""
    value = c.value(0)
    axis = c.site.axis(len(value.shape), default=default)
    place = ir_axis(value, axis)
    if place is None:
        value = TensorVal(c.to.from_ir(value))
        place = axis
    if value.layout is None and place > 1 and len(value.shape) in (3, 4, 5) and place == len(value.shape) - 1:
        layout = Layout({3: "NWC", 4: "NHWC", 5: "NDHWC"}[len(value.shape)])
        value = TensorVal(c.to.to_ir(value.tensor, layout), layout)
        place = 1
    return value.tensor, value, place


@converter("nn.batch_norm")
def _batch_norm(c: OpCall) -> Value:
    x, value, place = _channels_second(c, 1)
    params = [c.x(i) for i in range(1, 5)]
    if place != 1 or len(x.shape) < 2:
        shape = tuple(d if i == place else 1 for i, d in enumerate(x.shape))
        scale, shift = (c.to.reshape(p, shape) for p in params[:2])
        made = c.to.one("Mul", [x, scale], x.shape, x.dtype)
        result = c.to.one("Add", [made, shift], x.shape, x.dtype)
    else:
        result = c.to.one("BatchNormalization", [x, *params], x.shape, x.dtype)
    return [TensorVal(result, value.layout), TensorVal(params[2]), TensorVal(params[3])]


@converter("nn.bias_add")
def _bias_add(c: OpCall) -> Value:
    """An addition whose bias is spread over the axes behind the channels; products take it in later."""
    value = c.value(0)
    axis = c.site.axis(len(value.shape), default=1)
    place, bias = ir_axis(value, axis), c.x(1)
    if place is None:
        value = TensorVal(c.to.from_ir(value))
        place = axis
    x = value.tensor
    spread = c.to.reshape(bias, (*bias.shape, *(1,) * (len(x.shape) - place - 1)))
    return TensorVal(c.to.one("BiasAdd", [x, spread], x.shape, c.dtype), value.layout)


@converter("nn.prelu")
def _prelu(c: OpCall) -> Value:
    x, value, place = _channels_second(c, 1)
    slope = c.x(1)
    spread = c.to.reshape(slope, (*slope.shape, *(1,) * (len(x.shape) - place - 1)))
    return TensorVal(c.to.one("PRelu", [x, spread], x.shape, x.dtype), value.layout)


@converter("nn.layer_norm")
def _layer_norm(c: OpCall) -> Value:
    x = c.x(0)
    return c.emit("LayerNormalization", [x, c.x(1), c.x(2)], axis=c.site.axis(len(x.shape)))


@converter("nn.instance_norm", "nn.group_norm")
def _group_norm(c: OpCall) -> Value:
    x, value, _ = _channels_second(c, 1)
    if c.op == "nn.instance_norm":
        made = c.to.one("InstanceNormalization", [x, c.x(1), c.x(2)], x.shape, x.dtype)
    else:
        groups = c.site.integer("num_groups", 1)
        made = c.to.one("GroupNormalization", [x, c.x(1), c.x(2)], x.shape, x.dtype, num_groups=groups)
    return TensorVal(made, value.layout)


@converter("nn.lrn")
def _lrn(c: OpCall) -> Value:
    x, value, _ = _channels_second(c, 1)
    return TensorVal(c.to.one("LRN", [x], x.shape, x.dtype, size=c.site.integer("size", 5)), value.layout)


@converter("nn.l2_normalize")
def _l2_normalize(c: OpCall) -> Value:
    axes = c.site.axes(len(c.value(0).shape)) or (1,)
    return c.emit("LpNormalization", [c.x(0)], axis=axes[0], p=2)


@converter("nn.softmax", "nn.fast_softmax", "nn.log_softmax", "qnn.softmax")
def _softmax(c: OpCall) -> Value:
    value = c.value(0)
    axis = c.site.axis(len(value.shape))
    op = "LogSoftmax" if "log" in c.op else "Softmax"
    place = ir_axis(value, axis)
    if value.layout is not None and place is not None:
        return TensorVal(c.to.one(op, [value.tensor], value.tensor.shape, c.dtype, axis=place), value.layout)
    return c.emit(op, [c.x(0)], axis=axis)


@converter("nn.dropout")
def _dropout(c: OpCall) -> Value:
    value = c.value(0)
    return [value, TensorVal(constant(value.shape, value.tensor.dtype))]


@converter("nn.leaky_relu", "qnn.leaky_relu")
def _leaky_relu(c: OpCall) -> Value:
    return unary(c, "LeakyRelu", alpha=float(c.site.get("alpha", 0.25)))


def _corners(c: OpCall, mode: str) -> Attrs:
    modes = {"nearest_neighbor": "nearest", "nearest": "nearest", "cubic": "cubic", "bicubic": "cubic"}
    kind = modes.get(mode, "linear")
    given = c.site.text("coordinate_transformation_mode", "half_pixel")
    attrs: Attrs = {"mode": kind, "coordinate_transformation_mode": given}
    if kind == "nearest":
        rounding = c.site.text("rounding_method", "round")
        attrs["nearest_mode"] = "round_prefer_ceil" if rounding == "round" else rounding
    return attrs


@converter("image.resize", "image.resize1d", "image.resize2d", "image.resize3d")
def _resize(c: OpCall) -> Value:
    layout = data_layout(c.site, "layout")
    x = c.image(0, layout)
    if c.out == c.value(0).shape:
        return c.args[0]
    return c.give("Resize", [x], layout, _corners(c, c.site.text("method", "linear")))


@converter("nn.upsampling", "nn.upsampling3d")
def _upsampling(c: OpCall) -> Value:
    layout = Layout(c.site.text("layout", "NCDHW" if "3d" in c.op else "NCHW"))
    attrs = _corners(c, c.site.text("method", "nearest_neighbor"))
    aligned = bool(c.site.get("align_corners", False))
    attrs["coordinate_transformation_mode"] = "align_corners" if aligned else "asymmetric"
    if "nearest_mode" in attrs:
        attrs["nearest_mode"] = "floor"
    return c.give("Resize", [c.image(0, layout)], layout, attrs)


@converter("nn.space_to_depth", "nn.depth_to_space")
def _blocks(c: OpCall) -> Value:
    layout = Layout(c.site.text("layout", "NCHW"))
    attrs: Attrs = {"blocksize": c.site.integer("block_size", 1)}
    op = "SpaceToDepth" if "space_to" in c.op else "DepthToSpace"
    if op == "DepthToSpace":
        attrs["mode"] = c.site.text("mode", "DCR")
    return c.give(op, [c.image(0, layout)], layout, attrs)


@converter("image.grid_sample")
def _grid_sample(c: OpCall) -> Value:
    mode = c.site.text("method", "bilinear")
    grid = c.to.transpose(c.x(1), (0, *range(2, len(c.x(1).shape)), 1))
    return c.emit("GridSample", [c.x(0), grid], mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


@converter("vision.roi_align")
def _roi_align(c: OpCall) -> Value:
    layout = Layout(c.site.text("layout", "NCHW"))
    height, width = c.site.integers("pooled_size", 2)
    attrs: dict[str, AttrValue] = {"output_height": height, "output_width": width}
    attrs["sampling_ratio"] = max(c.site.integer("sample_ratio", 0), 0)
    return c.give("RoiAlign", [c.image(0, layout), c.x(1)], layout, attrs)


# QNN: products and element-wise operators on 8-bit tensors; their scales and zero points do not matter to cost.


@converter("qnn.requantize")
def _requantize(c: OpCall) -> Value:
    value = c.value(0)
    scale, zero = c.x(3), c.x(4)
    made = c.to.one("Requantize", [value.tensor, scale, zero], value.tensor.shape, c.dtype)
    return TensorVal(made, value.layout)


@converter("qnn.quantize", "qnn.dequantize", "qnn.simulated_quantize", "qnn.simulated_dequantize")
def _quantize(c: OpCall) -> Value:
    value = c.value(0)
    op = "DequantizeLinear" if "dequantize" in c.op else "QuantizeLinear"
    inputs = [value.tensor, *(c.x(i) for i in range(1, min(len(c.args), 3)))]
    attrs: Attrs = {}
    if len(inputs) > 1 and inputs[1] is not None and inputs[1].numel > 1:
        attrs["axis"] = ir_axis(value, c.site.axis(len(value.shape))) or 0
    dtype = to_dtype(c.site.text("out_dtype", c.dtype.value)) if c.dtype is not DType.STRING else c.dtype
    return TensorVal(c.to.emit(op, inputs, [(value.tensor.shape, dtype)], attrs)[0], value.layout)

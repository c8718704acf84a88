"""Rules of convolutions, pools, dense products, normalisations and resampling."""

from __future__ import annotations

from collections.abc import Callable

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.torch_ops import Attrs, Call, Result, Shape, Spec, Value, broadcast, numbers, rule
from frontends.torch_ops_reduce import reduce


@rule("conv1d", "conv2d", "conv3d", "convolution", "_convolution")
def _conv(c: Call) -> Result:
    if c.get("transposed"):
        return _conv_transpose(c)
    x, weight = c.x, c.tensor("weight")
    kernel = weight.shape[2:]
    count = len(kernel)
    dilations = numbers(c.get("dilation", 1), count)
    padding = c.get("padding", 0)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilations, strict=True)]
        pads = (*(t // 2 for t in total), *(t - t // 2 for t in total))
    else:
        pads = numbers(padding, count) * 2
    attrs: Attrs = {
        "kernel_shape": kernel, "strides": numbers(c.get("stride", 1), count), "pads": pads, "dilations": dilations,
        "group": int(c.get("groups", 1)),
    }  # fmt: skip
    return _batched(c, x, count, lambda v, s: c.emit("Conv", _with_bias(c, v, weight), s, attrs))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(c: Call) -> Result:
    x, weight = c.x, c.tensor("weight")
    kernel = weight.shape[2:]
    count = len(kernel)
    attrs: Attrs = {
        "kernel_shape": kernel, "strides": numbers(c.get("stride", 1), count),
        "pads": numbers(c.get("padding", 0), count) * 2, "dilations": numbers(c.get("dilation", 1), count),
        "group": int(c.get("groups", 1)),
    }  # fmt: skip
    extra = numbers(c.get("output_padding", 0), count)
    if any(extra):
        attrs["output_padding"] = extra
    return _batched(c, x, count, lambda v, s: c.emit("ConvTranspose", _with_bias(c, v, weight), s, attrs))


def _with_bias(c: Call, x: Value, weight: Value) -> list[Value | None]:
    bias = c.optional("bias")
    return [x, weight] if bias is None else [x, weight, bias]


def _batched(c: Call, x: Value, spatial: int, build: Callable[[Value, Spec], Value]) -> Value:
    """Builds on a batch; torch also takes one image without a batch axis."""
    if len(x.shape) == spatial + 2:
        return build(x, c.out)
    return c.squeeze(build(c.unsqueeze(x, 0), ((1, *c.out[0]), c.out[1])), 0)


@rule("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
      "max_pool1d_with_indices")  # fmt: skip
def _max_pool(c: Call) -> Result:
    attrs = _window(c)
    attrs["dilations"] = numbers(c.get("dilation", 1), len(attrs["kernel_shape"]))  # type: ignore[arg-type]
    if len(c.outs) > 1 and c.used[1]:
        return c.emit_all("MaxPool", [c.x], [c.out, (c.out[0], DType.INT64)], attrs)
    spatial = len(attrs["kernel_shape"])  # type: ignore[arg-type]
    pooled = _batched(c, c.x, spatial, lambda v, s: c.emit("MaxPool", [v], s, attrs))
    return pooled if len(c.outs) == 1 else [pooled, None]


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(c: Call) -> Result:
    attrs = {**_window(c), "count_include_pad": int(c.get("count_include_pad", True))}
    spatial = int(c.op[-2])
    return _batched(c, c.x, spatial, lambda v, s: c.emit("AveragePool", [v], s, attrs))


def _window(c: Call) -> Attrs:
    count = int(c.op.partition("pool")[2][0])
    kernel = numbers(c.args["kernel_size"], count)
    stride = c.get("stride") or kernel
    return {
        "kernel_shape": kernel, "strides": numbers(stride, count), "pads": numbers(c.get("padding", 0), count) * 2,
        "dilations": (1,) * count, "ceil_mode": int(c.get("ceil_mode", False)),
    }  # fmt: skip


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
      "_adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")  # fmt: skip
def _adaptive_pool(c: Call) -> Result:
    """A mean over everything, or a pool of the windows that the output size asks for.

    Windows of unequal size differ by at most one pixel and are taken at the largest.
    """
    x = c.x
    count = int(c.op.partition("pool")[2][0])
    size, wanted = x.shape[-count:], c.out[0][-count:]
    rank = len(x.shape)
    if "avg" in c.op and all(d == 1 for d in wanted):
        if count == 1:  # ATen's is that of two dimensions, one of them 1
            flat = c.reshape(x, (*x.shape[:-1], 1, x.shape[-1]))
            return c.reshape(reduce(c, "ReduceMean", flat, (rank - 1, rank), True), c.out[0])
        return reduce(c, "ReduceMean", x, tuple(range(rank - count, rank)), True)
    strides = tuple(max(s // w, 1) for s, w in zip(size, wanted, strict=True))
    kernel = tuple(max(-(-(i + 1) * s // w) - i * s // w for i in range(w)) for s, w in zip(size, wanted, strict=True))
    attrs: Attrs = {
        "kernel_shape": kernel, "strides": strides, "pads": (0,) * (2 * count), "dilations": (1,) * count,
        "ceil_mode": 0,
    }  # fmt: skip
    if "avg" in c.op:
        attrs["count_include_pad"] = 1
        return _batched(c, x, count, lambda v, s: c.emit("AveragePool", [v], s, attrs))
    if len(c.outs) > 1 and c.used[1]:
        return c.emit_all("MaxPool", [x], [c.out, (c.out[0], DType.INT64)], attrs)
    pooled = _batched(c, x, count, lambda v, s: c.emit("MaxPool", [v], s, attrs))
    return pooled if len(c.outs) == 1 else [pooled, None]


@rule("linear")
def _linear(c: Call) -> Result:
    """Gemm on matrices with a bias, else MatMul and Add."""
    x, weight, bias = c.x, c.tensor("weight"), c.optional("bias")
    if len(x.shape) == 2 and bias is not None:
        return c.emit("Gemm", [x, weight, bias], attrs={"transA": 0, "transB": 1})
    if len(weight.shape) != 2:
        raise ShapeInferenceError(f"weight {weight.shape} of linear is not a matrix")
    product = c.emit("MatMul", [x, c.transpose(weight, (1, 0))])
    return product if bias is None else c.emit("Add", [product, bias])


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot", "linalg_matmul", "inner")
def _matmul(c: Call) -> Result:
    a, b = list(c.args.values())[:2]
    return c.emit("MatMul", [a, b])


@rule("addmm", "addmv")
def _addmm(c: Call) -> Result:
    attrs: Attrs = {"transA": 0, "transB": 0}
    for key in ("alpha", "beta"):
        if c.get(key, 1) != 1:
            attrs[key] = float(c.args[key])
    if c.op == "addmm":
        return c.emit("Gemm", [c.tensor("mat1"), c.tensor("mat2"), c.x], attrs=attrs)
    return c.emit("Add", [c.emit("MatMul", [c.tensor("mat"), c.tensor("vec")]), c.x])


@rule("baddbmm", "addbmm")
def _baddbmm(c: Call) -> Result:
    left, right = c.tensor("batch1"), c.tensor("batch2")
    product = c.emit("MatMul", [left, right], ((*left.shape[:-1], right.shape[-1]), left.dtype))
    if c.op == "addbmm":
        product = reduce(c, "ReduceSum", product, (0,), False)
    x = c.x
    if c.get("alpha", 1) != 1:
        product = c.emit("Mul", [product, c.scalar(c.args["alpha"], product.dtype)], product.spec)
    if c.get("beta", 1) != 1:
        x = c.emit("Mul", [x, c.scalar(c.args["beta"], x.dtype)], x.spec)
    return c.emit("Add", [product, x])


@rule("outer", "ger")
def _outer(c: Call) -> Result:
    a, b = list(c.args.values())[:2]
    return c.emit("Mul", [c.reshape(a, (a.numel, 1)), b])


@rule("einsum")
def _einsum(c: Call) -> Result:
    equation = str(c.args["equation"]).replace(" ", "")
    return c.emit("Einsum", c.args["tensors"], attrs={"equation": equation})


@rule("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
      "cudnn_batch_norm", "_batch_norm_no_update", "_batch_norm_with_update")  # fmt: skip
def _batch_norm(c: Call) -> Result:
    """Inference form; absent scale, shift or statistics become constants."""
    x = c.x
    shape = (x.shape[1],)
    params = [c.optional(k) or c.constant(shape, x.dtype) for k in ("weight", "bias", "running_mean", "running_var")]
    y = c.emit("BatchNormalization", [x, *params])
    return [y, *(c.constant(*spec) if spec else None for spec in c.outs[1:])]


@rule("instance_norm")
def _instance_norm(c: Call) -> Result:
    if not c.get("use_input_stats", True):
        return _batch_norm(c)
    x = c.x
    shape = (x.shape[1],)
    params = [c.optional(k) or c.constant(shape, x.dtype) for k in ("weight", "bias")]
    return c.emit("InstanceNormalization", [x, *params])


@rule("layer_norm", "native_layer_norm")
def _layer_norm(c: Call) -> Result:
    x = c.x
    shape = tuple(int(d) for d in c.args["normalized_shape"])
    weight, bias = c.optional("weight") or c.constant(shape, x.dtype), c.optional("bias")
    inputs = [x, weight] if bias is None else [x, weight, bias]
    axis = len(x.shape) - len(shape)
    specs = [(spec[0], DType.FLOAT32 if i else spec[1]) for i, spec in enumerate(c.outs) if spec]
    while len(specs) > 1 and not c.used[len(specs) - 1]:
        specs.pop()
    found: list[Value | None] = [*c.emit_all("LayerNormalization", inputs, specs, {"axis": axis})]
    return found + [None] * (len(c.outs) - len(found))


@rule("rms_norm", "_fused_rms_norm")
def _rms_norm(c: Call) -> Result:
    """x / √(mean x² + ε) times a weight."""
    x = c.x
    count = len(c.args["normalized_shape"])
    axes = tuple(range(len(x.shape) - count, len(x.shape)))
    squares = c.emit("Pow", [x, c.scalar(2, x.dtype)], x.spec)
    mean = reduce(c, "ReduceMean", squares, axes, True)
    shifted = c.emit("Add", [mean, c.scalar(0, x.dtype)], mean.spec)
    scale = c.emit("Reciprocal", [c.emit("Sqrt", [shifted], mean.spec)], mean.spec)
    y = c.emit("Mul", [x, scale], x.spec)
    weight = c.optional("weight")
    return [y if weight is None else c.emit("Mul", [y, weight]), *[None] * (len(c.outs) - 1)]


@rule("group_norm", "native_group_norm")
def _group_norm(c: Call) -> Result:
    """Groups are normalised as instances, then scaled and shifted per channel."""
    x, groups = c.x, int(c.get("num_groups", c.get("group", 1)))
    channels, spatial = x.shape[1], len(x.shape) - 2
    grouped = c.reshape(x, (x.shape[0], groups, x.numel // max(x.shape[0] * groups, 1)))
    params = [c.constant((groups,), x.dtype) for _ in range(2)]
    y = c.reshape(c.emit("InstanceNormalization", [grouped, *params], grouped.spec), x.shape)
    for key, op in (("weight", "Mul"), ("bias", "Add")):
        value = c.optional(key)
        if value is not None:
            y = c.emit(op, [y, c.reshape(value, (channels,) + (1,) * spatial)], x.spec)
    return [y, *[None] * (len(c.outs) - 1)]


_RESIZE = {"nearest": "nearest", "_nearest": "nearest", "linear": "linear", "bilinear": "linear",
           "trilinear": "linear", "bicubic": "cubic"}  # fmt: skip


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
      "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
      "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")  # fmt: skip
def _upsample(c: Call) -> Result:
    x = c.x
    if x.shape == c.out[0]:
        return x
    kind = next(name for name in ("nearest", "bilinear", "trilinear", "linear", "bicubic") if name in c.op)
    exact = "exact" in c.op
    attrs: Attrs = {"mode": _RESIZE[kind]}
    if kind == "nearest":
        attrs["coordinate_transformation_mode"] = "half_pixel" if exact else "asymmetric"
        attrs["nearest_mode"] = "round_prefer_ceil" if exact else "floor"
    else:
        attrs["coordinate_transformation_mode"] = "align_corners" if c.get("align_corners") else "half_pixel"
    if c.op.endswith("_aa"):
        attrs["antialias"] = 1
    return c.emit("Resize", [x], attrs=attrs)


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def _grid_sampler(c: Call) -> Result:
    attrs: Attrs = {
        "mode": ("linear", "nearest", "cubic")[int(c.get("interpolation_mode", 0))],
        "padding_mode": ("zeros", "border", "reflection")[int(c.get("padding_mode", 0))],
        "align_corners": int(c.get("align_corners", False)),
    }
    return c.emit("GridSample", [c.x, c.tensor("grid")], attrs=attrs)


@rule("affine_grid_generator")
def _affine_grid(c: Call) -> Result:
    return c.emit("AffineGrid", [c.x], attrs={"align_corners": int(c.get("align_corners", False))})


@rule("torchvision::deform_conv2d")
def _deform_conv(c: Call) -> Result:
    weight = c.tensor("weight")
    pads = (int(c.args["pad_h"]), int(c.args["pad_w"]))
    attrs: Attrs = {
        "kernel_shape": weight.shape[2:], "strides": (int(c.args["stride_h"]), int(c.args["stride_w"])),
        "pads": pads * 2, "dilations": (int(c.args["dilation_h"]), int(c.args["dilation_w"])),
        "group": int(c.args["groups"]), "offset_group": int(c.args["offset_groups"]),
    }  # fmt: skip
    mask = c.tensor("mask") if c.get("use_mask") else None
    return c.emit("DeformConv", [c.x, weight, c.tensor("offset"), c.tensor("bias"), mask], attrs=attrs)


@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(c: Call) -> Result:
    """Rows gathered, then summed per bag."""
    weight, indices = c.tensor("weight"), c.tensor("indices")
    shape: Shape = broadcast((*indices.shape, weight.shape[1]))
    rows = c.emit("Gather", [weight, indices], (shape, weight.dtype), {"axis": 0})
    places = c.constant((indices.numel, 1), DType.INT64)
    bags = c.constant(c.out[0], c.out[1])
    summed = c.emit("ScatterND", [bags, places, rows], attrs={"reduction": "add"})
    return [summed, *(c.constant(*spec) if spec else None for spec in c.outs[1:])]

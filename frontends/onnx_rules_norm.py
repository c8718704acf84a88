"""Rules of normalisations and quantisation."""

from __future__ import annotations

from costmodel.ir import DType
from frontends.onnx_rules import Attrs, Call, Lowered, Result, as_dtype, axes_of, axis_of, optional_specs, rule
from frontends.onnx_values import Spec, Value


@rule("BatchNormalization")
def _batch_norm(c: Call) -> Lowered:
    """Inference form. Statistics that training mode would update are passed on as they are."""
    x = c.need(0)
    params = [c.need(i) for i in range(1, 5)]
    if len(c.outputs) == 1:
        return Result([(x.shape, x.dtype)], None, [x, *params])
    specs: list[Spec] = [(x.shape, x.dtype), *[(params[2].shape, params[2].dtype)] * (len(c.outputs) - 1)]
    return Result(specs, None, [x, *params])


@rule("InstanceNormalization", "LpNormalization", "LRN", "GroupNormalization", "MeanVarianceNormalization")
def _norm(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {}
    if c.op == "LRN":
        attrs["size"] = int(c.attrs["size"])
    elif c.op == "GroupNormalization":
        attrs["num_groups"] = int(c.attrs["num_groups"])
    elif c.op == "LpNormalization":
        attrs = {"axis": axis_of(c.attrs.get("axis", -1), len(x.shape)), "p": int(c.attrs.get("p", 2))}
    elif c.op == "MeanVarianceNormalization":
        attrs["axes"] = axes_of(c.attrs.get("axes", (0, 2, 3)), len(x.shape))
    return Result([(x.shape, x.dtype)], attrs, list(c.inputs))


@rule("LayerNormalization", "RMSNormalization")
def _layer_norm(c: Call) -> Lowered:
    x = c.need(0)
    axis = axis_of(c.attrs.get("axis", -1), len(x.shape))
    statistics = x.shape[:axis] + (1,) * (len(x.shape) - axis)
    specs: list[Spec] = [(x.shape, x.dtype), (statistics, DType.FLOAT32), (statistics, DType.FLOAT32)]
    return Result(optional_specs(c, specs), {"axis": axis}, list(c.inputs))


@rule("QuantizeLinear")
def _quantize(c: Call) -> Lowered:
    x, zero = c.need(0), c.get(2)
    dtype = zero.dtype if zero is not None else as_dtype(c, "output_dtype", DType.UINT8)
    return Result([(x.shape, dtype)], _quant_attrs(c, x, c.need(1)), list(c.inputs))


@rule("DequantizeLinear")
def _dequantize(c: Call) -> Lowered:
    """A dequantised constant stays one, stored at its quantised type."""
    x, scale = c.need(0), c.need(1)
    dtype = as_dtype(c, "output_dtype", scale.dtype)
    if x.const and scale.const:
        return [Value(c.outputs[0], x.shape, dtype, const=True, stored=x.dtype)]
    return Result([(x.shape, dtype)], _quant_attrs(c, x, scale), list(c.inputs))


def _quant_attrs(c: Call, x: Value, scale: Value) -> Attrs:
    if scale.numel == 1:
        return {}
    attrs: Attrs = {"axis": axis_of(c.attrs.get("axis", 1), len(x.shape))}
    if c.attrs.get("block_size"):
        attrs["block_size"] = int(c.attrs["block_size"])
    return attrs


@rule("DynamicQuantizeLinear")
def _dynamic_quantize(c: Call) -> Lowered:
    x = c.need(0)
    return Result([(x.shape, DType.UINT8), ((), DType.FLOAT32), ((), DType.UINT8)], None, [x])


@rule("QLinearConv")
def _qlinear_conv(c: Call) -> Lowered:
    from frontends.onnx_rules_nn import convolution

    return convolution(c, c.need(0), c.need(3), c.get(8), c.need(7).dtype)


@rule("QLinearMatMul")
def _qlinear_matmul(c: Call) -> Lowered:
    from frontends.onnx_rules_nn import product_shape

    a, b = c.need(0), c.need(3)
    return Result([(product_shape(a.shape, b.shape), c.need(7).dtype)], None, [a, b], "MatMul")


@rule("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss")
def _loss(c: Call) -> Lowered:
    scores, labels = c.need(0), c.need(1)
    reduction = c.attrs.get("reduction", "mean")
    shape = labels.shape if reduction == "none" else ()
    specs: list[Spec] = [(shape, scores.dtype), (scores.shape, scores.dtype)]
    return Result(optional_specs(c, specs), {"reduction": reduction}, list(c.inputs))


@rule("Det")
def _det(c: Call) -> Lowered:
    x = c.need(0)
    return Result([(x.shape[:-2], x.dtype)], None, [x])


@rule("SwiGLU")
def _gated(c: Call) -> Lowered:
    gate, linear = c.need(0), c.need(1)
    alpha = float(c.attrs.get("alpha", 1.0))
    gated = c.lowering.emit("Swish", [gate], [(gate.shape, gate.dtype)], {"alpha": alpha})[0]
    return Result([(gate.shape, gate.dtype)], None, [gated, linear], "Mul")

"""Rules of ONNX Runtime's own operators (com.microsoft), expanded into ONNX's where those say the same."""

from __future__ import annotations

from costmodel.errors import ShapeInferenceError
from costmodel.ir import AttrValue, DType
from frontends.onnx_rules import Attrs, Call, Lowered, Result, broadcast, optional_specs, rule, same
from frontends.onnx_rules_nn import convolution, gemm, pooling, product_shape
from frontends.onnx_values import Shape, Spec, Value

MS = "com.microsoft"


def _node(c: Call, op: str, inputs: list[Value | None], shape: Shape, dtype: DType, **attrs: AttrValue) -> Value:
    return c.lowering.emit(op, inputs, [(shape, dtype)], attrs, name=f"{c.name}.{op}")[0]


def _add(c: Call, a: Value, b: Value) -> Value:
    return _node(c, "Add", [a, b], broadcast(a.shape, b.shape), a.dtype)


def _materialise(c: Call, result: Result, name: str) -> Value:
    inputs = list(result.inputs or ())
    return c.lowering.emit(result.op or c.op, inputs, result.specs, result.attrs, name=f"{c.name}.{name}")[0]


@rule("Gelu", "FastGelu", "BiasGelu", "QuickGelu", domain=MS)
def _gelu(c: Call) -> Lowered:
    x, bias = c.need(0), c.get(1)
    if bias is not None:
        x = _add(c, x, bias)
    if c.op == "QuickGelu":
        return Result([(x.shape, x.dtype)], {"alpha": float(c.attrs.get("alpha", 1.702))}, [x], "Swish")
    form = "tanh" if c.op == "FastGelu" else "none"
    return Result([(x.shape, x.dtype)], {"approximate": form}, [x], "Gelu")


@rule("BiasSoftmax", domain=MS)
def _bias_softmax(c: Call) -> Lowered:
    x = _add(c, c.need(0), c.need(1))
    return Result([(x.shape, x.dtype)], {"axis": len(x.shape) - 1}, [x], "Softmax")


@rule("BiasAdd", domain=MS)
def _bias_add(c: Call) -> Lowered:
    x = _add(c, c.need(0), c.need(1))
    return Result([(x.shape, x.dtype)], None, [x, c.need(2)], "Add")


@rule("BiasDropout", "BitmaskBiasDropout", domain=MS)
def _bias_dropout(c: Call) -> Lowered:
    x = _add(c, c.need(0), c.need(1))
    residual = c.get(2)
    return [x if residual is None else _add(c, x, residual)]


@rule("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization", domain=MS)
@rule("SimplifiedLayerNormalization")
def _layer_norm(c: Call) -> Lowered:
    x = c.need(0)
    axis = c.attrs.get("axis", -1) % len(x.shape)
    op = "LayerNormalization" if c.op == "LayerNormalization" else "RMSNormalization"
    return Result([(x.shape, x.dtype)], {"axis": axis}, list(c.inputs), op)


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MS)
def _skip_layer_norm(c: Call) -> Lowered:
    """Inputs: input, skip, gamma, [beta], [bias]; the fourth output is the sum before normalising."""
    plain = c.op == "SkipLayerNormalization"
    total = _add(c, c.need(0), c.need(1))
    bias = c.get(4 if plain else 3)
    if bias is not None:
        total = _add(c, total, bias)
    params = [c.get(2), c.get(3)] if plain else [c.get(2)]
    op = "LayerNormalization" if plain else "RMSNormalization"
    y = _node(c, op, [total, *params], total.shape, total.dtype, axis=len(total.shape) - 1)
    statistics = Value("", (*total.shape[:-1], 1), DType.FLOAT32)
    return [y, statistics, statistics, total][: len(c.outputs)]


@rule("EmbedLayerNormalization", domain=MS)
def _embed(c: Call) -> Lowered:
    """Three table look-ups, their sum and its LayerNormalization; the mask index is left to its consumers."""
    ids, segments = c.need(0), c.get(1)
    words, positions, kinds = c.need(2), c.need(3), c.get(4)
    shape = (*ids.shape, words.shape[-1])
    total = _node(c, "Gather", [words, ids], shape, words.dtype, axis=0)
    place = c.get(8) or Value(f"{c.name}.positions", ids.shape[1:], DType.INT64, const=True)
    total = _add(c, total, _node(c, "Gather", [positions, place], (*place.shape, shape[-1]), words.dtype, axis=0))
    if segments is not None and kinds is not None:
        total = _add(c, total, _node(c, "Gather", [kinds, segments], shape, words.dtype, axis=0))
    y = _node(c, "LayerNormalization", [total, c.need(5), c.need(6)], shape, words.dtype, axis=2)
    return [y, Value(f"{c.name}.mask", (ids.shape[0],), DType.INT32, const=True), total][: len(c.outputs)]


@rule("FusedMatMul", "TransposeMatMul", domain=MS)
def _fused_matmul(c: Call) -> Lowered:
    a = _transposed(c, c.need(0), bool(c.attrs.get("transA")))
    b = _transposed(c, c.need(1), bool(c.attrs.get("transB")))
    return Result([(product_shape(a.shape, b.shape), a.dtype)], None, [a, b], "MatMul")


def _transposed(c: Call, x: Value, wanted: bool) -> Value:
    rank = len(x.shape)
    if not wanted or rank < 2:
        return x
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return _node(c, "Transpose", [x], tuple(x.shape[p] for p in perm), x.dtype, perm=perm)


def _activated(c: Call, x: Value, op: str | None) -> Lowered:
    if not op:
        return [x]
    params = c.attrs.get("activation_params") or ()
    attrs: Attrs = {}
    if op == "Clip":
        attrs = dict(zip(("min", "max"), params, strict=False))
    elif op in ("LeakyRelu", "HardSigmoid"):
        attrs = dict(zip(("alpha", "beta"), params or [c.attrs.get("activation_alpha", 0.01)], strict=False))
    return Result([(x.shape, x.dtype)], attrs, [x], op)


@rule("FusedConv", domain=MS)
def _fused_conv(c: Call) -> Lowered:
    y = _materialise(c, convolution(c, c.need(0), c.need(1), c.get(2), c.need(0).dtype), "Conv")
    residual = c.get(3)
    return _activated(c, y if residual is None else _add(c, y, residual), c.attrs.get("activation"))


@rule("FusedGemm", domain=MS)
def _fused_gemm(c: Call) -> Lowered:
    y = _materialise(c, gemm(c, c.need(0), c.need(1), c.get(2), c.need(0).dtype), "Gemm")
    return _activated(c, y, c.attrs.get("activation"))


def _heads(value: Value, heads: int) -> tuple[int, int]:
    """Length and width per head of keys or values, (B, S, H * D) or (B, H, S, D)."""
    if len(value.shape) == 4:
        return value.shape[2], value.shape[3]
    return value.shape[1], value.shape[2] // heads


def _attend(
    c: Call, qkv: tuple[Value, Value, Value], kv_heads: int, mask: Value | None, past: list[Value | None]
) -> list[Value]:
    """ONNX's Attention over (B, S, H * D), with outputs for present keys and values if they are wanted."""
    q, k, v = qkv
    heads = int(c.attrs["num_heads"])
    (keys, depth), (_, width) = _heads(k, kv_heads), _heads(v, kv_heads)
    before = past[0].shape[-2] if past and past[0] is not None else 0
    batch = q.shape[0]
    specs: list[Spec] = [((*q.shape[:2], heads * width), q.dtype)]
    if len(c.outputs) > 1:
        specs += [((batch, kv_heads, keys + before, size), k.dtype) for size in (depth, width)]
    attrs: Attrs = {"q_num_heads": heads, "kv_num_heads": kv_heads, "is_causal": int(c.attrs.get("unidirectional", 0))}
    return c.lowering.emit("Attention", [q, k, v, mask, *past], specs, attrs, name=f"{c.name}.Attention")


def _split_qkv(c: Call, packed: Value, sizes: tuple[int, ...]) -> list[Value]:
    shape = packed.shape[:-1]
    specs: list[Spec] = [((*shape, size), packed.dtype) for size in sizes]
    attrs: Attrs = {"axis": len(shape), "split": sizes}
    return c.lowering.emit("Split", [packed], specs, attrs, name=f"{c.name}.Split")


@rule("Attention", "QAttention", domain=MS)
def _packed_attention(c: Call) -> Lowered:
    """A projection of X (B, S, D) to queries, keys and values, then attention."""
    x, weight, bias = c.need(0), c.need(1), c.get(2)
    quantized = c.op == "QAttention"
    scale = c.need(3) if quantized else x
    packed = _node(c, "MatMul", [x, weight], product_shape(x.shape, weight.shape), scale.dtype)
    if bias is not None:
        packed = _add(c, packed, bias)
    sizes = tuple(c.attrs.get("qkv_hidden_sizes") or (packed.shape[-1] // 3,) * 3)
    q, k, v = _split_qkv(c, packed, sizes)
    mask = None if quantized else c.get(5)
    past = c.get(8 if quantized else 4)
    present: list[Value | None] = []
    if past is not None:
        shape = past.shape[1:]
        present = [_node(c, "Gather", [past, _index(c, i)], shape, past.dtype, axis=0) for i in (0, 1)]
    found = _attend(c, (q, k, v), int(c.attrs["num_heads"]), mask, present)
    if len(found) == 1:
        return found
    lifted = [_node(c, "Unsqueeze", [f], (1, *f.shape), f.dtype, axes=(0,)) for f in found[1:]]
    stacked = _node(c, "Concat", list(lifted), (2, *found[1].shape), found[1].dtype, axis=0)
    return [found[0], stacked]


def _index(c: Call, i: int) -> Value:
    return Value(f"{c.name}.index{i}", (), DType.INT64, const=True)


@rule("MultiHeadAttention", domain=MS)
def _multi_head(c: Call) -> Lowered:
    """Queries (B, S, H * D) with keys and values apart, or packed as (B, S, H, 2 or 3, D)."""
    q, k, v = c.need(0), c.get(1), c.get(2)
    if len(q.shape) == 5 or k is None or v is None:
        q, k, v = _unpacked(c, q, k)
    bias = c.get(3)
    if bias is not None:
        sizes = (q.shape[-1], k.shape[-1] if len(k.shape) == 3 else q.shape[-1])
        parts = _split_qkv(c, bias, (*sizes, bias.shape[-1] - sum(sizes)))
        q = _add(c, q, parts[0])
        k, v = (_add(c, k, parts[1]), _add(c, v, parts[2])) if len(k.shape) == 3 else (k, v)
    past = [c.get(6), c.get(7)] if c.get(6) is not None else []
    return _attend(c, (q, k, v), int(c.attrs["num_heads"]), c.get(5), past)


def _unpacked(c: Call, q: Value, k: Value | None) -> tuple[Value, Value, Value]:
    packed = q if len(q.shape) == 5 else k
    if packed is None or len(packed.shape) != 5:
        raise ShapeInferenceError("keys and values are missing")
    batch, length, heads, count, depth = packed.shape
    parts = [
        _node(c, "Gather", [packed, _index(c, i)], (batch, length, heads, depth), packed.dtype, axis=3)
        for i in range(count)
    ]
    flat = [_node(c, "Reshape", [p], (batch, length, heads * depth), packed.dtype) for p in parts]
    return (flat[0], flat[1], flat[2]) if count == 3 else (q, flat[0], flat[1])


@rule("GroupQueryAttention", domain=MS)
def _group_query(c: Call) -> Lowered:
    """Queries, keys and values (B, S, H * D), the past first; rotary embedding where asked for."""
    q, k, v = c.need(0), c.get(1), c.get(2)
    heads, kv_heads = int(c.attrs["num_heads"]), int(c.attrs["kv_num_heads"])
    if k is None or v is None:
        depth = q.shape[-1] // (heads + 2 * kv_heads)
        q, k, v = _split_qkv(c, q, (heads * depth, kv_heads * depth, kv_heads * depth))
    depth = q.shape[-1] // heads
    if c.attrs.get("do_rotary") and c.get(7) is not None:
        tables = [c.get(7), c.get(8)]
        q = _node(c, "RotaryEmbedding", [q, *tables], q.shape, q.dtype, interleaved=0, num_heads=heads)
        k = _node(c, "RotaryEmbedding", [k, *tables], k.shape, k.dtype, interleaved=0, num_heads=kv_heads)
    past = [c.get(3), c.get(4)] if c.get(3) is not None else []
    return _attend(c, (q, k, v), kv_heads, None, past)


@rule("RotaryEmbedding", domain=MS)
def _rotary(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {"interleaved": int(c.attrs.get("interleaved", 0))}
    if c.attrs.get("num_heads"):
        attrs["num_heads"] = int(c.attrs["num_heads"])
    return Result([(x.shape, x.dtype)], attrs, [x, c.get(2), c.get(3), c.get(1)], "RotaryEmbedding")


@rule("MatMulNBits", domain=MS)
def _matmul_nbits(c: Call) -> Lowered:
    """A product with weights of K × N elements of 2 to 8 bits, packed in blocks of bytes."""
    x = c.need(0)
    depth, columns, bits = int(c.attrs["K"]), int(c.attrs["N"]), int(c.attrs.get("bits", 4))
    if x.shape[-1] != depth:
        raise ShapeInferenceError(f"operand {x.shape} and weight ({depth}, {columns}) do not multiply")
    dtype = DType.UINT4 if bits <= 4 else DType.UINT8
    weight = Value(f"{c.need(1).name}:{bits}bit", (depth, columns), dtype, const=True)
    y = _node(c, "MatMul", [x, weight], (*x.shape[:-1], columns), x.dtype)
    bias = c.get(5)
    return [y if bias is None else _add(c, y, bias)]


@rule("DynamicQuantizeMatMul", "MatMulIntegerToFloat", domain=MS)
def _dynamic_matmul(c: Call) -> Lowered:
    a, b = c.need(0), c.need(1)
    scale, bias = (c.need(2), c.get(4)) if c.op == "DynamicQuantizeMatMul" else (c.need(3), c.get(6))
    y = _node(c, "MatMul", [a, b], product_shape(a.shape, b.shape), scale.dtype)
    return [y if bias is None else _add(c, y, bias)]


@rule("QGemm", domain=MS)
def _qgemm(c: Call) -> Lowered:
    zero = c.get(8)
    return gemm(c, c.need(0), c.need(3), c.get(6), zero.dtype if zero is not None else c.need(1).dtype)


@rule("QLinearConv", domain=MS)
def _qlinear_conv(c: Call) -> Lowered:
    if c.attrs.get("channels_last"):
        raise ShapeInferenceError("channels-last convolution has no lowering; export without layout optimisation")
    return convolution(c, c.need(0), c.need(3), c.get(8), c.need(7).dtype)


@rule("QLinearAdd", "QLinearMul", domain=MS)
def _qlinear_binary(c: Call) -> Lowered:
    a, b = c.need(0), c.need(3)
    return Result([(broadcast(a.shape, b.shape), a.dtype)], None, [a, b], c.op.removeprefix("QLinear"))


@rule("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", domain=MS)
def _qlinear_unary(c: Call) -> Lowered:
    x, op = c.need(0), c.op.removeprefix("QLinear")
    attrs: Attrs = {}
    if op == "LeakyRelu":
        attrs["alpha"] = float(c.attrs.get("alpha", 0.01))
    elif op == "Softmax":
        attrs["axis"] = c.attrs.get("axis", -1) % len(x.shape)
    return same(c, attrs, op)


@rule("QLinearConcat", domain=MS)
def _qlinear_concat(c: Call) -> Lowered:
    """Inputs: scale and zero point of the result, then (tensor, scale, zero point) of each operand."""
    values = [c.need(i) for i in range(2, len(c.inputs), 3)]
    axis = c.attrs["axis"] % len(values[0].shape)
    shape = list(values[0].shape)
    shape[axis] = sum(v.shape[axis] for v in values)
    return Result([(tuple(shape), values[0].dtype)], {"axis": axis}, values, "Concat")


@rule("QLinearAveragePool", domain=MS)
def _qlinear_average_pool(c: Call) -> Lowered:
    _refuse_channels_last(c)
    return pooling(c, c.need(0), "AveragePool")


@rule("QLinearGlobalAveragePool", domain=MS)
def _qlinear_global_pool(c: Call) -> Lowered:
    x = c.need(0)
    spatial = (1,) * (len(x.shape) - 2)
    shape = (x.shape[0], *spatial, x.shape[-1]) if c.attrs.get("channels_last") else (*x.shape[:2], *spatial)
    return Result([(shape, x.dtype)], None, [x], "GlobalAveragePool")


def _refuse_channels_last(c: Call) -> None:
    if c.attrs.get("channels_last"):
        raise ShapeInferenceError("a channels-last pool has no lowering; export without layout optimisation")


@rule("QuantizeLinear", "DequantizeLinear", domain=MS)
def _quantizer(c: Call) -> Lowered:
    return c.lowering.rules["", c.op](c)


@rule("GroupNorm", domain=MS)
def _group_norm(c: Call) -> Lowered:
    """Channels-last group normalisation, with an optional Swish."""
    x = c.need(0)
    groups = int(c.attrs["groups"])
    y = _node(c, "GroupNormalization", [x, c.get(1), c.get(2)], x.shape, x.dtype, num_groups=groups)
    return Result([(y.shape, y.dtype)], {"alpha": 1.0}, [y], "Swish") if c.attrs.get("activation") else [y]


@rule("Inverse", "ComplexMul", domain=MS)
def _like_first(c: Call) -> Lowered:
    x = c.need(0)
    return Result(optional_specs(c, [(x.shape, x.dtype)]), None, list(c.inputs), f"{MS}.{c.op}")

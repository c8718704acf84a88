"""The language of the node and platform sentences, enumerated and sampled.

`closed_language` writes the sentences that are embedded at release time; `sample_sentences` draws sentences of the same
grammar, with operators and numbers nobody has seen, to train and judge the student encoder. Both go through
`prompts.view_sentence`, so they cannot drift from what a graph says.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from costmodel.ir import AttrValue, DType, Graph, TensorSpec
from costmodel.opwords import known_operators, operator_class, operator_words
from costmodel.platforms import (
    RUNTIMES,
    Precision,
    default_runtime,
    list_devices,
    load_device,
    resolve,
    supported_precisions,
)
from costmodel.prompts import NodeView, node_sentences, platform_sentence, platform_words, view_sentence

CONTRIB = """
    Attention BeamSearch BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu CDist ConvTransposeWithDynamicPads
    CropAndResize DecoderAttention DecoderMaskedMultiHeadAttention DynamicQuantizeLSTM DynamicQuantizeMatMul
    EmbedLayerNormalization ExpandDims FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation
    GatedRelativePositionBias GatherBlockQuantized GatherND GemmFastGelu GemmFloat8 GroupNorm GroupQueryAttention
    Inverse Irfft LongformerAttention MatMulBnb4 MatMulFpQ4 MatMulInteger16 MatMulIntegerToFloat MatMulNBits
    MaxpoolWithMask MoE MulInteger MultiHeadAttention MurmurHash3 NGramRepeatBlock NhwcConv NhwcFusedConv
    NhwcMaxPool PackedAttention PackedMultiHeadAttention PagedAttention QAttention QEmbedLayerNormalization QGemm
    QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul
    QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QMoE QOrderedAttention QOrderedGelu
    QOrderedLayerNormalization QOrderedMatMul QuickGelu RelativePositionBias RemovePadding RestorePadding Rfft
    RotaryEmbedding SampleOp Sampling SimplifiedLayerNormalization SkipGroupNorm SkipLayerNormalization
    SkipSimplifiedLayerNormalization SparseAttention SparseToDenseMatMul Tokenizer TransposeMatMul UnfoldTensor
    WhisperBeamSearch WordConvEmbedding
"""
"""Operators that ONNX Runtime adds to ONNX."""

LEFTOVERS = """
    nn.adaptive_avg_pool1d nn.adaptive_avg_pool2d nn.adaptive_avg_pool3d nn.adaptive_max_pool2d nn.batch_flatten
    nn.batch_matmul nn.batch_to_space_nd nn.bitpack nn.conv2d_backward_weight nn.conv3d_transpose nn.correlation
    nn.cross_entropy nn.deformable_conv2d nn.dilate nn.fifo_buffer nn.l2_normalize nn.matmul nn.pad
    nn.space_to_batch_nd nn.sparse_dense nn.upsampling nn.upsampling3d nn.contrib_dense_pack
    nn.contrib_conv2d_NCHWc nn.contrib_conv2d_winograd_without_weight_transform image.affine_grid
    image.crop_and_resize image.dilation2d image.grid_sample image.resize1d image.resize2d image.resize3d
    vision.get_valid_counts vision.multibox_prior vision.multibox_transform_loc vision.nms vision.proposal
    vision.roi_pool vision.yolo_reorg qnn.concatenate qnn.quantize qnn.requantize qnn.simulated_quantize
    annotation.stop_fusion device_copy call_dps_packed call_tir memory.alloc_tensor vm.shape_func
    collapse_sum_like layout_transform fixed_point_multiply invert_permutation left_shift right_shift logical_and
    logical_not logical_xor matrix_set_diag meta_schedule_layout_transform ndarray_size one_hot sequence_mask
    sliding_window sparse_fill_empty_rows sparse_reshape strided_set trunc_divide floor_divide floor_mod fast_exp
    fast_erf fast_tanh searchsorted segment_sum stft threefry_generate unravel_index nn.attention
    nn.attention_var_len nn.rms_norm aten.scaled_dot_product_attention aten.bincount aten.index_put
    aten.index_select aten.masked_fill aten.masked_select aten.nan_to_num aten.pixel_shuffle aten.pixel_unshuffle
    aten.repeat_interleave aten.roll aten.view_as_complex aten.view_as_real aten.weight_norm aten.cdist
    aten.logaddexp aten.lerp aten.addcmul aten.native_group_norm aten.log_sigmoid aten.hardtanh aten.glu aten.silu
    aten.rrelu aten.unfold aten.fft_rfft2 aten.fft_irfft2 aten.multinomial aten.topk aten.sort aten.argsort
    aten.cumsum aten.var_mean aten.std aten.amax aten.linalg_inv aten.linalg_svd torchvision.nms
    torchvision.roi_align torchvision.deform_conv2d torchvision.ps_roi_align quantized.linear
    quantized.conv2d_relu quantized.add_relu
"""
"""Operators of Relay, Relax and torch that have no ONNX twin and may stay in a lowered graph."""


def _names(text: str) -> list[str]:
    return text.split()


_BINARY = _names("Add Sub Mul Div Pow Min Max Mod Mean Sum PRelu Where BiasAdd BiasGelu QLinearAdd QLinearMul")
_COMPARE = _names("And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual")
_ALONG_AXIS_OFTEN = _names("Softmax Concat Split Gather Slice LayerNormalization ReduceMax ReduceMean ReduceSum")
_ALONG_AXIS = _names(
    """Softmax LogSoftmax Concat Split Gather GatherElements ArgMax ArgMin CumSum TopK Slice LpNormalization
    ScatterElements LayerNormalization RMSNormalization SimplifiedLayerNormalization ReduceL1 ReduceL2
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"""
)
_MODES: dict[str, Sequence[Mapping[str, AttrValue]]] = {
    "Pad": [{"mode": m} for m in ("constant", "reflect", "edge", "wrap")],
    "Gelu": [{"approximate": m} for m in ("none", "tanh")],
    "DepthToSpace": [{"blocksize": b, "mode": m} for b in (2, 3, 4, 8) for m in ("DCR", "CRD")],
    "SpaceToDepth": [{"blocksize": b} for b in (2, 3, 4, 8)],
    "GridSample": [{"mode": m} for m in ("linear", "bilinear", "nearest", "cubic", "bicubic")],
    "RoiAlign": [{"mode": m} for m in ("avg", "max")],
    "Clip": [{"min": 0.0}, {"min": 0.0, "max": 6.0}],
    "Attention": [{}, {"is_causal": 1}],
    "MultiHeadAttention": [{}, {"unidirectional": 1}],
    "GroupQueryAttention": [{}, {"is_causal": 1}],
    "ScatterND": [{"reduction": m} for m in ("none", "add", "mul", "max", "min")],
    "ScatterElements": [{"axis": 1, "reduction": m} for m in ("add", "max", "min")],
    "FusedConv": [{"activation": m} for m in ("Relu", "Clip", "HardSigmoid", "LeakyRelu", "Sigmoid", "Tanh")],
    "FusedGemm": [{"activation": m} for m in ("Relu", "Sigmoid", "Tanh")],
    **{op: [{"direction": m} for m in ("forward", "reverse", "bidirectional")] for op in ("RNN", "GRU", "LSTM")},
}
_CONV_OPS = ("DeformConv", "FusedConv", "NhwcConv")
_POOL_OPS = ("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool", "NhwcMaxPool")
_WEIGHTED_NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_RARE_CLASSES = ("Ctrl", "Make", "Text", "Signal", "Select")
_PERMS = ((0, 2, 1), (0, 2, 1, 3), (0, 1, 3, 2), (0, 2, 3, 1), (0, 3, 1, 2), (0, 3, 2, 1))
_MAP = (2, 64, 56, 56)


def closed_language() -> list[str]:
    """Every node sentence of the default template in the usual settings, sorted: the part known without a corpus."""
    views: list[NodeView] = []
    for dtype in (DType.FLOAT32, DType.FLOAT16, DType.INT8):
        views += _window_views(dtype)
        views += _matrix_views(dtype)
        views += _axis_views(dtype)
        views += _elementwise_views(dtype)
        views += _plain_views(dtype)
    views += _integer_views()
    return sorted({view_sentence(view) for view in views})


def corpus_sentences(graphs: Iterable[Graph], template: str = "default") -> list[str]:
    """Every sentence the graphs say, sorted."""
    found: set[str] = set()
    for graph in graphs:
        found.update(node_sentences(graph, template))
    return sorted(found)


def _view(
    op: str,
    attrs: Mapping[str, AttrValue] | None = None,
    shapes: Sequence[tuple[int, ...]] = (_MAP,),
    weights: Sequence[int] = (),
    made: tuple[int, ...] | None = None,
    dtype: DType = DType.FLOAT32,
) -> NodeView:
    operands = tuple(TensorSpec(shape, dtype) for shape in shapes)
    result = TensorSpec(made or (shapes[0] if shapes else _MAP), dtype)
    return NodeView(op, attrs or {}, operands, tuple(i in weights for i in range(len(shapes))), (result,))


def _window_views(dtype: DType) -> Iterator[NodeView]:
    """Convolutions and pools in the kernels, strides, groups and dilations that published networks use."""
    full = dtype is DType.FLOAT32
    square = (1, 2, 3, 4, 5, 7, *((6, 8, 9, 11, 14, 16, 31, 32) if full else ()))
    kernels: list[tuple[int, ...]] = [(k, k) for k in square]
    kernels += [pair for k in ((3, 5, 7, 11) if full else (3, 7)) for pair in ((1, k), (k, 1))]
    if not dtype.is_quantized:
        kernels += [(1,), (3,), (5,), (1, 1, 1), (3, 3, 3)]
    for kernel in kernels:
        size, even = max(kernel), len(set(kernel)) == 1
        for stride in {1: (1, 2), 2: (1, 2), 3: (1, 2, 3)}.get(size, (1, 2, 4, size)) if even else (1,):
            for dilation in (1, 2) if stride == 1 and size in (3, 5) else (1,):
                every = len(kernel)
                window = {"kernel_shape": kernel, "strides": (stride,) * every, "dilations": (dilation,) * every}
                yield from _conv_views(window, kernel, stride, dtype)
                if 1 < size <= 14 and dilation == 1 and stride in (1, 2, size):
                    yield from (_view(op, window, dtype=dtype) for op in _POOL_OPS[:2])
                    if even and len(kernel) == 2 and size <= 3:
                        yield from (_view(op, window, dtype=dtype) for op in _POOL_OPS[2:])


def _conv_views(
    window: Mapping[str, AttrValue], kernel: tuple[int, ...], stride: int, dtype: DType
) -> Iterator[NodeView]:
    given = (2, 64, *[56] * len(kernel))
    common = max(kernel) <= 5 and len(set(kernel)) == 1 and stride <= 2
    for group in (1, 4, 64):
        attrs, shapes = {**window, "group": group}, [given, (64, 64 // group, *kernel)]
        yield _view("Conv", attrs, shapes, [1], dtype=dtype)
        if common and dtype is DType.FLOAT32:
            yield _view("ConvTranspose", attrs, shapes, [1], dtype=dtype)
    if common:
        names = _CONV_OPS if dtype is DType.FLOAT32 else _CONV_OPS[1:2] if dtype is DType.FLOAT16 else ()
        yield from (_view(op, window, [given, (64, 64, *kernel)], [1], dtype=dtype) for op in names)
        yield _view("Conv", window, [given, (64, 64, *kernel)], dtype=dtype)


def _matrix_views(dtype: DType) -> Iterator[NodeView]:
    yield _view("Gemm", {}, [(2, 64), (64, 64)], [1], dtype=dtype)
    yield _view("Gemm", {}, [(2, 64), (64, 64)], dtype=dtype)
    for shapes in ([(2, 8, 64), (2, 64, 8)], [(2, 64), (64, 2)]):
        yield _view("MatMul", {}, shapes, dtype=dtype)
        yield _view("MatMul", {}, shapes, [1], dtype=dtype)
    for op in ("Einsum", "FusedMatMul", "FusedGemm", "MatMulNBits", "MoE", "RNN", "GRU", "LSTM", "Attention", "QGemm"):
        for attrs in _MODES.get(op, [{}]):
            yield _view(op, attrs, [(2, 8, 64), (64, 64)], [1], dtype=dtype)
            yield _view(op, attrs, [(2, 8, 64), (2, 64, 8)], dtype=dtype)
    activation, result = TensorSpec((2, 8, 64), dtype), TensorSpec((2, 8, 64), dtype)
    if not dtype.is_quantized:
        for narrow in (DType.INT8, DType.INT4):
            for op in ("MatMul", "Gemm", "MatMulNBits"):
                operands = (activation, TensorSpec((64, 64), narrow))
                yield NodeView(op, {}, operands, (False, True), (result,))


def _axis_views(dtype: DType) -> Iterator[NodeView]:
    for op in _ALONG_AXIS if dtype is DType.FLOAT32 else _ALONG_AXIS_OFTEN:
        for rank in (2, 3, 4, 5):
            shape = (2, 64, 56, 28, 14)[:rank]
            blocks = [tuple(range(first, rank)) for first in range(min(rank, 3))]
            for axes in dict.fromkeys([*((axis,) for axis in range(rank)), *filter(None, blocks)]):
                name: dict[str, AttrValue] = {"axes": axes} if len(axes) > 1 else {"axis": axes[0]}
                yield _view(op, name, [shape], dtype=dtype)
                if op == "Slice":
                    yield _view(op, {"axes": axes, "steps": (2,) * len(axes)}, [shape], dtype=dtype)
                if (op in _WEIGHTED_NORMS and axes[-1] == rank - 1) or op == "Concat":
                    yield _view(op, name, [shape, shape[-1:]], [1], dtype=dtype)
    yield from (_view("Transpose", {"perm": perm}, [(2, 8, 4, 6)[: len(perm)]], dtype=dtype) for perm in _PERMS)
    yield _view("Gather", {"axis": 0}, [(1000, 64), (2, 8)], [0], (2, 8, 64), dtype)
    for op in ("Resize", "Upsample"):
        for mode in ("nearest", "linear", "cubic"):
            for made in ((2, 64, 28, 28), _MAP, (2, 64, 112, 112)):
                yield _view(op, {"mode": mode}, [_MAP], (), made, dtype)


def _elementwise_views(dtype: DType) -> Iterator[NodeView]:
    vector, gate, table = (64, 1, 1), (2, 64, 1, 1), (1, 64, 56, 56)
    for op in _BINARY:
        yield _view(op, {}, [_MAP, _MAP], dtype=dtype)
        yield _view(op, {}, [_MAP, gate], (), _MAP, dtype)
        yield _view(op, {}, [_MAP, ()], [1], _MAP, dtype)
        for shape in (vector, table):
            yield _view(op, {}, [_MAP, shape], [1], _MAP, dtype)
            if op in _BINARY[:4]:
                yield _view(op, {}, [gate, shape], [1], _MAP, dtype)
    yield _view("Where", {}, [_MAP, _MAP, ()], [2], _MAP, dtype)
    yield _view("Where", {}, [gate, _MAP, ()], [2], _MAP, dtype)
    for op in _COMPARE:
        for other in (_MAP, gate, ()):
            operands = (TensorSpec(_MAP, dtype), TensorSpec(other, dtype))
            yield NodeView(op, {}, operands, (False, other == ()), (TensorSpec(_MAP, DType.BOOL),))


def _plain_views(dtype: DType) -> Iterator[NodeView]:
    """Every operator known, bare and in its modes, with weights where it may have some."""
    names = [op for op in known_operators() if operator_class(op) not in _RARE_CLASSES]
    if dtype is DType.FLOAT32:
        names = [*known_operators(), *all_onnx_operators(), *CONTRIB.split(), *LEFTOVERS.split()]
    for op in dict.fromkeys(names):
        for attrs in _MODES.get(op, [{}]) if dtype is not DType.INT8 else [{}]:
            yield _view(op, attrs, dtype=dtype)
            if operator_class(op) in ("Mix", "Norm", "Recur") and not dtype.is_quantized:
                yield _view(op, attrs, [_MAP, (64,)], [1], dtype=dtype)


def _integer_views() -> Iterator[NodeView]:
    for op in [*_BINARY[:7], *_COMPARE, "Gather", "Concat", "Slice", "Cast", "ArgMax", "TopK", "Not", "Expand", "Tile"]:
        for dtype in (DType.INT64, DType.BOOL):
            yield _view(op, {}, dtype=dtype)
            yield _view(op, {}, [(8,), ()], [1], (8,), dtype)
    floats = (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16, DType.INT64, DType.BOOL, DType.INT8)
    pairs = {"Cast": [(given, made) for given in floats for made in floats if given is not made]}
    for real in floats[:3]:
        for op in ("QuantizeLinear", "DynamicQuantizeLinear", "Quantize"):
            pairs.setdefault(op, []).append((real, DType.INT8))
        for op in ("DequantizeLinear", "Dequantize"):
            pairs.setdefault(op, []).extend(((DType.INT8, real), (DType.INT32, real)))
    pairs["Requantize"] = [(DType.INT8, DType.INT8), (DType.INT32, DType.INT8)]
    for op, types in pairs.items():
        for given, made in types:
            yield NodeView(op, {}, (TensorSpec(_MAP, given),), (False,), (TensorSpec(_MAP, made),))


def all_onnx_operators() -> list[str]:
    """Names of every operator the installed onnx defines, domain included where it is not the main one."""
    import onnx.defs

    schemas = onnx.defs.get_all_schemas_with_history()
    return sorted({f"{s.domain}.{s.name}" if s.domain else s.name for s in schemas})


def platform_language() -> list[str]:
    """Platform sentences of every device of the library at fp32, fp16 and int8 under its common runtimes, sorted."""
    found: set[str] = set()
    for name in list_devices():
        device = load_device(name)
        for precision in set(supported_precisions(device)) & {Precision.FP32, Precision.FP16, Precision.INT8}:
            for runtime in {default_runtime(device), "onnxruntime", "pytorch-eager"}:
                found.add(platform_sentence(resolve(device, precision, runtime)))
    return sorted(found)


# ── sampling ────────────────────────────────────────────────────────────────────────────────────────────────────────

_ARCHITECTURES = """
    Pascal, Volta, Turing, Ampere, Ada, Hopper, Blackwell, Rubin, Feynman, Maxwell, Kepler, CDNA3, CDNA4, RDNA2,
    RDNA3, RDNA4, UDNA, Xe, Xe2, Alchemist, Battlemage, Celestial, Skylake, Cascade Lake, Ice Lake, Sapphire Rapids,
    Emerald Rapids, Granite Rapids, Alder Lake, Raptor Lake, Meteor Lake, Arrow Lake, Lunar Lake, Zen, Zen 2, Zen 3,
    Zen 4, Zen 5, Zen 6, Apple M1, Apple M2, Apple M3, Apple M4, Apple M5, Cortex-A53, Cortex-A72, Cortex-A76,
    Cortex-X4, Neoverse V2, Neoverse N1, Adreno, Mali, Immortalis, Oryon, Exynos, Tensor, TPU v2, TPU v4, TPU v6,
    Gaudi 2, Gaudi 3, Zynq, Versal, Hexagon, Graviton 4, Ascend, Kunlun, Coffee Lake, Haswell, Broadwell,
    Knights Landing, PowerVR, Tegra, Loihi, Eyeriss, Wormhole, Inferentia, Trainium
"""
_VENDORS = _names(
    """NVIDIA NVIDIA NVIDIA AMD Intel Apple Arm Google Qualcomm Samsung Broadcom Xilinx Huawei MediaTek AWS"""
)
FREQUENT = _names("Conv MatMul Gemm ConvTranspose MaxPool AveragePool Add Mul Softmax LayerNormalization")
_RANDOM_MODES = _names("nearest linear cubic bilinear reflect edge tanh sum relu silu reverse bidirectional")
_RANDOM_ACTIVATIONS = _names("Relu Sigmoid Tanh Gelu LeakyRelu Clip HardSwish")
_KINDS = _names("gpu gpu gpu cpu mobile tpu npu fpga asic")


def sample_platforms(count: int, seed: int) -> list[str]:
    """Platform sentences with random parts and numbers, in both templates."""
    rng = random.Random(seed)
    architectures = [name.strip() for name in _ARCHITECTURES.split(",")]
    return [
        platform_words(
            rng.choice(_VENDORS), rng.choice(_KINDS), rng.choice([p.value for p in Precision]),
            10 ** rng.uniform(-1.5, 3.6), rng.choice(architectures),
            None if rng.random() < 0.1 else 10 ** rng.uniform(0.5, 3.1), rng.choice(("", *RUNTIMES)),
        )
        for _ in range(count)
    ]  # fmt: skip


def sample_nodes(
    count: int, seed: int, operators: Sequence[str], template: str = "default", made_up: bool = True
) -> list[str]:
    """Node sentences of random operators in random settings.

    With `made_up`, a quarter of the operators are made up from words of the others and some are the frequent ones.
    """
    rng = random.Random(seed)
    words = sorted({word for op in operators for word in operator_words(op).split() if len(word) > 1})
    sentences = []
    for _ in range(count):
        op = rng.choice(operators)
        if made_up and rng.random() < 0.25:
            op = "".join(rng.sample(words, rng.randint(1, 3)))
        elif made_up and rng.random() < 0.2:
            op = rng.choice(FREQUENT)
        sentences.append(view_sentence(_random_view(rng, op), template))
    return sentences


def _random_view(rng: random.Random, op: str) -> NodeView:
    dtype = rng.choice((DType.FLOAT32,) * 6 + (DType.FLOAT16, DType.FLOAT16, DType.INT8, DType.BFLOAT16, DType.INT64))
    rank = rng.choice((2, 3, 3, 4, 4, 4, 5))
    shape = tuple(max(2, int(2 ** rng.uniform(1, 11))) for _ in range(rank))
    attrs: dict[str, AttrValue] = {}
    kind = operator_class(op)
    windowed = kind == "Pool" or "Conv" in op
    if rank > 2 and rng.random() < (0.9 if windowed else 0.05):
        attrs |= _random_window(rng, rank - 2, shape[1])
    if not windowed and rng.random() < 0.35:
        axes = tuple(range(first := rng.randrange(rank), rng.randint(first + 1, rank)))
        attrs["perm" if kind == "Move" and rng.random() < 0.2 else "axes"] = axes
        if "perm" in attrs:
            attrs["perm"] = tuple(rng.sample(range(rank), rank))
    if rng.random() < 0.1:
        attrs["mode"] = rng.choice(_RANDOM_MODES)
    elif rng.random() < 0.05:
        attrs["activation"] = rng.choice(_RANDOM_ACTIVATIONS)
    operands = [TensorSpec(shape, dtype)]
    other = rng.choice((None, None, shape, (1,), shape[-1:], (shape[0], shape[1], *[1] * (rank - 2))))
    if other is not None:
        narrow = rng.random() < 0.04
        operands.append(TensorSpec(other, rng.choice((DType.INT8, DType.INT4)) if narrow else dtype))
    constant = (False, rng.random() < 0.5)[: len(operands)]
    made = tuple(max(1, int(size * rng.choice((1, 1, 1, 0.5, 2)))) for size in shape)
    result = TensorSpec(shape if rng.random() < 0.6 else made, dtype if rng.random() < 0.95 else DType.FLOAT32)
    return NodeView(op, attrs, tuple(operands), constant, (result,))


def _random_window(rng: random.Random, rank: int, channels: int) -> dict[str, AttrValue]:
    def sizes(choices: Sequence[int], even: float) -> tuple[int, ...]:
        first = rng.choice(choices)
        return (first,) * rank if rng.random() < even else tuple(rng.choice(choices) for _ in range(rank))

    window: dict[str, AttrValue] = {"kernel_shape": sizes((1, 1, 2, 3, 3, 3, 4, 5, 7, rng.randint(1, 33)), 0.8)}
    window["strides"] = sizes((1, 1, 1, 2, 2, 3, 4, rng.randint(1, 16)), 0.9)
    if rng.random() < 0.15:
        window["dilations"] = sizes((2, 3, 4, 6, rng.randint(1, 24)), 0.95)
    window["group"] = rng.choice((1, 1, 1, channels, 8))
    return window

"""Operators as the node sentences say them: a class and plain words for any operator, known or not, and for axes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

PARAMETRIC = "ParamL"
MIX = "Mix"
UNKNOWN = "Other"

_CLASS_OPS = {
    "Mix": """Conv ConvInteger ConvTranspose DeformConv QLinearConv CausalConvWithState Gemm MatMul MatMulInteger
        QLinearMatMul Einsum Attention FlexAttention LinearAttention Det""",
    "Recur": "RNN LSTM GRU",
    "Act": """Relu LeakyRelu PRelu ThresholdedRelu Elu Selu Celu Gelu Sigmoid HardSigmoid HardSwish Swish SwiGLU Mish
        Softplus Softsign Tanh Erf Clip Shrink""",
    "Elem": """Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil
        Cos Cosh Div Dropout Equal Exp Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod
        Mul Neg Not Or Pow Reciprocal RotaryEmbedding Round Sign Sin Sinh Sqrt Sub Sum Tan Where Xor Binarizer Imputer
        Scaler""",
    "Pool": """AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool MaxRoiPool MaxUnpool
        RoiAlign""",
    "Norm": """BatchNormalization GroupNormalization InstanceNormalization LayerNormalization LRN LpNormalization
        MeanVarianceNormalization RMSNormalization Softmax LogSoftmax Hardmax Normalizer""",
    "Reduce": """ArgMax ArgMin CumProd CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSum ReduceSumSquare NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss""",
    "Move": """AffineGrid CenterCropPad Col2Im Concat DepthToSpace Expand Gather GatherElements GatherND GridSample
        OneHot Pad Resize ReverseSequence Scatter ScatterElements ScatterND Slice SpaceToDepth Split TensorScatter Tile
        Transpose Trilu Upsample ArrayFeatureExtractor OneHotEncoder FeatureVectorizer""",
    "View": "Flatten Identity Reshape Squeeze Unsqueeze BitCast",
    "Quant": "Cast CastLike DequantizeLinear DynamicQuantizeLinear QuantizeLinear",
    "Select": "Compress NonMaxSuppression NonZero TopK Unique Multinomial Bernoulli",
    "Make": """BlackmanWindow Constant ConstantOfShape EyeLike HammingWindow HannWindow MelWeightMatrix RandomNormal
        RandomNormalLike RandomUniform RandomUniformLike Range Shape Size""",
    "Signal": "DFT STFT",
    "Ctrl": """If Loop Scan SequenceMap ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt
        SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SplitToSequence""",
    "Text": "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer LabelEncoder CategoryMapper",
}
_CLASS_OF = {op: name for name, ops in _CLASS_OPS.items() for op in ops.split()}

# An operator of another dialect is classed by the words of its name: the first class with a matching word wins.
_CLASS_WORDS = (
    ("Quant", "quantize dequantize cast requantize"),
    ("Recur", "lstm gru rnn recurrent scan mamba"),
    ("Mix", "conv convolution gemm matmul linear dense attention einsum bmm mm addmm addbmm baddbmm mlp moe"),
    ("Norm", "norm normalization normalize softmax lrn"),
    ("Pool", "pool pooling maxpool avgpool roi"),
    ("Act", "relu gelu silu swish sigmoid tanh elu selu mish softplus softsign activation glu clip clamp erf"),
    ("Signal", "fft rfft irfft stft dft spectrogram"),
    ("Select", "topk sort argsort nonzero unique nms suppression search sample sampling multinomial"),
    ("View", "reshape view squeeze unsqueeze flatten expand_dims identity contiguous"),
    ("Reduce", "reduce sum mean prod argmax argmin cumsum cumprod amax amin std var variance any all loss"),
    (
        "Move",
        """gather scatter transpose permute concat concatenate cat stack split slice pad padding tile repeat resize
        upsample interpolate shuffle crop roll flip reverse take embedding embed copy broadcast expand window patch
        unfold fold tril triu trilu grid""",
    ),
    ("Make", "arange range zeros ones full random rand empty eye constant linspace"),
    (
        "Elem",
        """add mul sub div multiply subtract divide power pow exp log sqrt rsqrt maximum minimum max min abs neg
        negative where equal greater less logical bitwise bias scale mod fmod sin cos rotary addcmul""",
    ),
    ("Text", "string token tokenizer text regex"),
    ("Ctrl", "if loop while cond sequence optional call"),
)

# Names that camel case or a library's shorthand hides, in the words a person would say.
_SPOKEN = {
    "Gemm": "Linear",
    "MatMul": "Matrix Multiply",
    "MatMulInteger": "Matrix Multiply",
    "QLinearMatMul": "Matrix Multiply",
    "ConvInteger": "Conv",
    "QLinearConv": "Conv",
    "ConvTranspose": "Transposed Conv",
    "DeformConv": "Deformable Conv",
    "Erf": "Error Function",
    "LRN": "Local Response Normalization",
    "DFT": "Fourier Transform",
    "STFT": "Short Time Fourier Transform",
    "NonMaxSuppression": "Non Maximum Suppression",
    "TopK": "Top K",
    "PRelu": "Parametric Relu",
    "IsNaN": "Is Not A Number",
    "SwiGLU": "Swiglu",
}
_WORD_FORMS = {
    "mat": "Matrix", "mul": "Multiply", "matmul": "Matrix Multiply", "bmm": "Batched Matrix Multiply",
    "mm": "Matrix Multiply", "addmm": "Linear", "dense": "Linear", "div": "Divide", "sub": "Subtract", "conv": "Conv",
    "attn": "Attention", "norm": "Normalization", "concatenate": "Concat", "cat": "Concat", "elemwise": "",
    "pow": "Power", "avg": "Average", "nn": "", "op": "", "aten": "", "q": "Quantized", "clamp": "Clip",
    "exp": "Exponential", "sqrt": "Square Root", "neg": "Negate", "abs": "Absolute",
}  # fmt: skip
_PIECE = re.compile(r"[A-Z]\d+(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_NO_DOMAIN = re.compile(r"^.*[.:/](?=[^.:/])")
_OVERLOAD = re.compile(r"(?<=.)\.(?:default|Tensor|Scalar|int|dim|self|out)$")  # of torch's operators


@lru_cache(maxsize=16384)
def operator_words(op: str) -> str:
    """The operator in plain words: `LayerNormalization` → `Layer Normalization`, `nn.conv2d` → `Conv 2d`.

    The domain is dropped and the rest split at case changes, digits and punctuation, so that an operator never seen
    still gets words that a language model knows.
    """
    if op in _SPOKEN:
        return _SPOKEN[op]
    name = _bare_name(op)
    if name in _SPOKEN:
        return _SPOKEN[name]
    if name in _CLASS_OF and name.startswith("Reduce"):  # the class says so
        name = name.removeprefix("Reduce")
    words: list[str] = []
    for piece in _pieces(name):
        words.extend(_WORD_FORMS.get(piece.lower(), piece.capitalize()).split())
    return " ".join(words) or "Operator"


@lru_cache(maxsize=16384)
def operator_class(op: str) -> str:
    """The class of an operator without learnable parameters: `Act`, `Elem`, `Pool`, `Move`, …, `Other`."""
    known = _CLASS_OF.get(op)
    if known:
        return known
    name = _bare_name(op)
    if name in _CLASS_OF:
        return _CLASS_OF[name]
    pieces = {piece.lower() for piece in _pieces(name)}
    pieces |= {name.lower(), *re.split(r"[_.:/]|\d+", name.lower())}
    if {"mat", "mul"} <= pieces:
        return MIX
    for found, words in _CLASS_WORDS:
        if not pieces.isdisjoint(words.split()):
            return found
    return UNKNOWN


def known_operators() -> list[str]:
    """Every operator name with a class of its own, sorted."""
    return sorted(_CLASS_OF)


def axis_kind(axes: Sequence[int], rank: int) -> str:
    """Names a set of axes of a `[batch, channel, spatial…]` tensor by position."""
    chosen = sorted({axis % rank for axis in axes}) if rank else []
    if not chosen:
        return ""
    if len(chosen) == rank and rank > 1:
        return "all axes"
    if chosen == [rank - 1]:
        return "last axis"
    if rank >= 3 and chosen == list(range(2, rank)):
        return "spatial axes"
    if chosen == list(range(1, rank)):
        return "all but batch"
    if chosen[-1] == rank - 1 and len(chosen) == rank - chosen[0]:
        return "trailing axes"
    if chosen == [0]:
        return "first axis"
    if chosen == [1]:
        return "channel axis"
    return "middle axis" if len(chosen) == 1 else "middle axes"


def perm_kind(perm: Sequence[int]) -> str:
    """Names a transposition by what it does to memory: `keep last axis` moves whole rows, `channels last`, …"""
    rank, order = len(perm), tuple(perm)
    same = tuple(range(rank))
    if order == same:
        return "same order"
    if order[-1] == rank - 1:
        return "keep last axis"
    if rank >= 2 and order == (*same[:-2], rank - 1, rank - 2):
        return "swap last two"
    if rank >= 4 and order == (0, *range(2, rank), 1):
        return "channels last"
    if rank >= 4 and order == (0, rank - 1, *range(1, rank - 1)):
        return "channels first"
    return "shuffle axes"


def _bare_name(op: str) -> str:
    """Without its domain, and `QLinearAdd` as `QuantizedAdd`."""
    return re.sub(r"^QLinear(?=[A-Z])", "Quantized", _NO_DOMAIN.sub("", _OVERLOAD.sub("", op)))


def _pieces(name: str) -> list[str]:
    """Words of a name: `com.FusedConv2d` and `fused_conv_2d` both end as `Fused Conv 2d`."""
    found = _PIECE.findall(name)
    joined: list[str] = []
    for piece in found:
        if joined and joined[-1].isdigit() and piece in ("d", "D"):
            joined[-1] += "d"
        else:
            joined.append(piece)
    return joined

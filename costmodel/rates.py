"""Operators that compute nothing, and those whose arithmetic is a fixed number of operations per element.

`costmodel.arithmetic` says what an operation is.
"""

from __future__ import annotations

CONTRIB = "com.microsoft."


def names(words: str) -> list[str]:
    """Operator names, written as the words of one string."""
    return words.split()


VIEWS = frozenset(
    names(
        "Reshape Flatten Squeeze Unsqueeze Identity Dropout Shape Size Constant Optional OptionalGetElement"
        " OptionalHasElement SequenceConstruct SequenceAt SequenceLength SequenceEmpty If tir.Loop"
    )
)

MOVEMENT = frozenset(
    names(
        "Transpose Concat Split Slice Gather GatherElements GatherND Scatter ScatterElements ScatterND Pad Expand Tile"
        " DepthToSpace SpaceToDepth Cast CastLike BitCast ReverseSequence Compress OneHot Trilu EyeLike Range"
        " CenterCropPad ConstantOfShape RandomNormal RandomNormalLike RandomUniform RandomUniformLike SplitToSequence"
        " ConcatFromSequence TensorScatter"
    )
) | {f"{CONTRIB}QLinearConcat", f"{CONTRIB}ExpandDims"}

# Of input 0 these read as many elements as they give out, not the whole tensor.
PARTIAL_READS = frozenset(("Gather", "GatherElements", "GatherND", "Slice", "CenterCropPad", "Compress"))

PER_OUTPUT: dict[str, float] = {
    **dict.fromkeys(
        names(
            "Add Sub Mul Div Neg Abs Relu Sign Ceil Floor Round Sqrt Reciprocal Equal Greater GreaterOrEqual Less"
            " LessOrEqual Not And Or Xor Where IsNaN IsInf BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot"
            " Bernoulli"
        ),
        1,
    ),
    **dict.fromkeys(names("Clip PRelu ThresholdedRelu LeakyRelu Mod Shrink DequantizeLinear BatchNormalization"), 2),
    **dict.fromkeys(names("HardSigmoid QuantizeLinear"), 3),
    **dict.fromkeys(names("Exp Log Sin Cos Tan Erf Sigmoid HardSwish Pow Softsign"), 4),
    **dict.fromkeys(names("Tanh Softplus Swish Sinh Cosh Asin Acos Atan"), 5),
    **dict.fromkeys(names("Elu Celu Selu Asinh Acosh Atanh"), 6),
    **dict.fromkeys(names("Gelu Mish"), 8),
    **{CONTRIB + k: v for k, v in {"Gelu": 8, "BiasGelu": 9, "FastGelu": 9, "QuickGelu": 6}.items()},
    **{CONTRIB + k: v for k, v in {"QLinearAdd": 5, "QLinearMul": 5, "QLinearSigmoid": 8}.items()},
    **{CONTRIB + k: v for k, v in {"QLinearLeakyRelu": 6, "QLinearSoftmax": 9, "BiasSplitGelu": 10}.items()},
    **{CONTRIB + k: v for k, v in {"BiasAdd": 2, "QuantizeLinear": 3, "DequantizeLinear": 2}.items()},
    "DynamicQuantizeLinear": 5,  # minimum, maximum, then as QuantizeLinear
    "RotaryEmbedding": 3,
    f"{CONTRIB}RotaryEmbedding": 3,
    f"{CONTRIB}BiasSoftmax": 6,
    "Softmax": 5,
    "LogSoftmax": 6,
    "Hardmax": 2,
    "LayerNormalization": 7,
    "InstanceNormalization": 7,
    "GroupNormalization": 7,
    f"{CONTRIB}GroupNorm": 7,
    f"{CONTRIB}SkipGroupNorm": 8,
    f"{CONTRIB}SkipLayerNormalization": 8,
    f"{CONTRIB}EmbedLayerNormalization": 9,
    "MeanVarianceNormalization": 5,
    "RMSNormalization": 4,
    "SimplifiedLayerNormalization": 4,
    f"{CONTRIB}SimplifiedLayerNormalization": 4,
    f"{CONTRIB}SkipSimplifiedLayerNormalization": 5,
    "LpNormalization": 3,
}

PER_INPUT: dict[str, float] = {
    **dict.fromkeys(
        names(
            "ReduceSum ReduceMax ReduceMin ReduceProd ReduceMean ArgMax ArgMin CumSum CumProd NonZero GlobalAveragePool"
            " GlobalMaxPool Col2Im BlackmanWindow HannWindow HammingWindow"
        ),
        1,
    ),
    **dict.fromkeys(names("ReduceL1 ReduceL2 ReduceSumSquare GlobalLpPool"), 2),
    **dict.fromkeys(names("ReduceLogSum Det"), 1),
    "ReduceLogSumExp": 3,
    f"{CONTRIB}QLinearGlobalAveragePool": 1,
    f"{CONTRIB}QLinearReduceMean": 1,
}

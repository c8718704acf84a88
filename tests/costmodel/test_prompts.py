"""Node and platform sentences."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from costmodel.errors import InputError
from costmodel.ir import DType, Graph, GraphBuilder, TensorSpec
from costmodel.opwords import axis_kind, known_operators, operator_class, operator_words
from costmodel.prompts import node_sentence, node_sentences, platform_sentence


def one(op: str, shapes: list, made: tuple, weights: list = (), dtype: DType = DType.FLOAT32, **attrs) -> Graph:
    """A graph of one node; operands named in `weights` are parameters."""
    b = GraphBuilder()
    names = [b.param(s, dtype) if i in weights else b.input(s, dtype) for i, s in enumerate(shapes)]
    return b.build([b.node(op, names, made, dtype, **attrs)])


def conv(
    kernel: int = 3, stride: int = 1, group: int = 1, channels: tuple = (64, 128), dtype: DType = DType.FLOAT32
) -> Graph:
    given, made = channels
    return one(
        "Conv",
        [(1, given, 56, 56), (made, given // group, kernel, kernel)],
        (1, made, 56 // stride, 56 // stride),
        [1],
        dtype,
        kernel_shape=(kernel, kernel),
        strides=(stride, stride),
        dilations=(1, 1),
        pads=(kernel // 2,) * 4,
        group=group,
    )


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (conv(), "ParamL Conv 3x3"),
        (conv(1), "ParamL Conv 1x1 pointwise"),
        (conv(5, 2, 64, (64, 64)), "ParamL Conv 5x5 stride 2 depthwise"),
        (conv(3, 1, 32, (64, 64)), "ParamL Conv 3x3 grouped"),
        (conv(dtype=DType.INT8), "ParamL Conv int8 3x3"),
        (one("Conv", [(1, 8, 9, 9), (8, 8, 1, 3)], (1, 8, 9, 9), kernel_shape=(1, 3)), "Mix Conv 1x3"),
        (one("Relu", [(1, 8)], (1, 8)), "Act Relu"),
        (one("Clip", [(1, 8)], (1, 8), min=0.0, max=6.0), "Act Relu6"),
        (one("Softmax", [(1, 8, 4, 4)], (1, 8, 4, 4), axis=-1), "Norm Softmax last axis"),
        (one("LayerNormalization", [(1, 4, 8), (8,)], (1, 4, 8), [1], axis=2), "ParamL Layer Normalization last axis"),
        (one("Gemm", [(1, 8), (4, 8)], (1, 4), [1], transB=1), "ParamL Linear"),
        (one("MatMul", [(1, 3, 8), (8, 4)], (1, 3, 4), [1]), "ParamL Linear"),
        (one("MatMul", [(1, 3, 8), (1, 8, 3)], (1, 3, 3)), "Mix Matrix Multiply batched"),
        (one("Add", [(1, 8, 4, 4)] * 2, (1, 8, 4, 4)), "Elem Add"),
        (one("Add", [(1, 8, 4, 4), (8, 1, 1)], (1, 8, 4, 4), [1]), "ParamL Add vector"),
        (one("Mul", [(1, 8, 4, 4), (1, 8, 1, 1)], (1, 8, 4, 4)), "Elem Multiply broadcast"),
        (one("Div", [(1, 8), ()], (1, 8), [1]), "Elem Divide scalar"),
        (one("Reshape", [(1, 8, 4)], (1, 32)), "View Reshape"),
        (one("Transpose", [(1, 4, 8, 2)], (1, 8, 4, 2), perm=(0, 2, 1, 3)), "Move Transpose keep last axis"),
        (one("Transpose", [(1, 4, 8, 2)], (1, 8, 2, 4), perm=(0, 2, 3, 1)), "Move Transpose channels last"),
        (one("ReduceMean", [(1, 4, 8, 2)], (1, 4), axes=(2, 3)), "Reduce Mean spatial axes"),
        (one("Resize", [(1, 4, 8, 8)], (1, 4, 16, 16), mode="nearest"), "Move Resize nearest up"),
        (one("MaxPool", [(1, 4, 8, 8)], (1, 4, 4, 4), kernel_shape=(2, 2), strides=(1, 1)), "Pool Max Pool 2x2"),
        (one("com.acme.FusedFooConv2d", [(1, 4)], (1, 4)), "Mix Fused Foo Conv 2d"),
        (one("Zorbify", [(1, 4)], (1, 4)), "Other Zorbify"),
    ],
)  # fmt: skip
def test_default_sentence(graph: Graph, sentence: str) -> None:
    assert node_sentences(graph) == [sentence]
    assert node_sentence(graph, 0) == sentence


def test_default_language_leaves_sizes_out() -> None:
    assert node_sentences(conv(channels=(64, 128))) == node_sentences(conv(channels=(320, 48)))


def test_paper_sentence_has_bare_numbers() -> None:
    assert node_sentences(conv(3, 2, 1, (64, 128)), "paper") == ["ParamL Conv 3 2 1 64 128 28"]
    assert node_sentences(conv(5, 1, 64, (64, 64)), "paper") == ["ParamL Conv 5 1 64 64 64 56"]
    assert node_sentences(one("Softmax", [(2, 196, 768)], (2, 196, 768), axis=2), "paper") == [
        "Norm Softmax 2 768 768 196"
    ]


def test_weight_only_quantisation_and_casts() -> None:
    b = GraphBuilder()
    x, w = b.input((1, 8)), b.param((8, 4), DType.INT4)
    linear = b.node("MatMul", [x, w], (1, 4))
    cast = b.node("Cast", [linear], (1, 4), DType.FLOAT16)
    assert node_sentences(b.build([cast])) == ["ParamL Linear int4 weights", "Quant Cast float to fp16"]


def test_embedding_is_parametric_and_indices_are_not() -> None:
    b = GraphBuilder()
    ids, table = b.input((1, 7), DType.INT64), b.param((100, 16))
    words = b.node("Gather", [table, ids], (1, 7, 16), axis=0)
    first = b.node("Gather", [words, b.param((3,), DType.INT64)], (1, 3, 16), axis=1)
    assert node_sentences(b.build([first])) == ["ParamL Embedding first axis", "Move Gather channel axis"]


def test_cache_tells_parameters_from_activations() -> None:
    shapes, made = [(1, 8, 4, 4), (1, 8, 1, 1)], (1, 8, 4, 4)
    assert node_sentences(one("Mul", shapes, made)) != node_sentences(one("Mul", shapes, made, [1]))
    half = one("Mul", shapes, made, dtype=DType.FLOAT16)
    assert node_sentences(half) == ["Elem Multiply fp16 broadcast"]


def test_every_known_operator_has_words_of_letters() -> None:
    for op in known_operators():
        words = operator_words(op)
        assert words
        assert operator_class(op) != "Other", op
        assert all(word[0].isupper() or word[0].isdigit() for word in words.split()), words


@pytest.mark.parametrize(
    ("op", "node_class", "words"),
    [
        ("nn.conv2d", "Mix", "Conv 2d"),
        ("aten::_softmax", "Norm", "Softmax"),
        ("com.microsoft.QLinearAdd", "Elem", "Quantized Add"),
        ("image.resize2d", "Move", "Resize 2d"),
        ("com.microsoft.SkipLayerNormalization", "Norm", "Skip Layer Normalization"),
        ("org.custom.GridAnchorGenerator", "Move", "Grid Anchor Generator"),
        ("ai.onnx.contrib.BertTokenizer", "Text", "Bert Tokenizer"),
        ("aten.addmm.default", "Mix", "Linear"),
        ("!", "Other", "Operator"),
    ],
)
def test_operators_of_other_dialects(op: str, node_class: str, words: str) -> None:
    assert operator_class(op) == node_class
    assert operator_words(op) == words


def test_axis_kinds() -> None:
    assert axis_kind((1,), 4) == "channel axis"
    assert axis_kind((1,), 2) == "last axis"
    assert axis_kind((0, 1), 2) == "all axes"
    assert axis_kind((1, 2, 3), 4) == "all but batch"
    assert axis_kind((-1,), 3) == "last axis"
    assert axis_kind((), 3) == ""


def platform(precision: str = "fp32", tflops: float = 8.141, runtime: str = "tensorrt", tdp: float | None = 70.0):
    device = SimpleNamespace(vendor="NVIDIA", kind="gpu", architecture="Turing", tdp_w=tdp)
    return SimpleNamespace(
        device=device, precision=SimpleNamespace(value=precision), runtime=runtime, matrix_tflops=tflops
    )


def test_platform_sentence_of_the_paper() -> None:
    assert platform_sentence(platform(), "paper") == "Nv GPU FP32 8.1 Turing 70W"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (platform(), "Nv GPU FP32 8.1 Turing 70W TensorRT"),
        (platform("fp16", 65.0, "tensorrt-7.1"), "Nv GPU FP16 65 Turing 70W TensorRT"),
        (platform("int8", 130.2, "paddle-trt", None), "Nv GPU INT8 130 Turing Paddle TensorRT"),
        (platform("fp32", 0.4712, "pytorch-eager"), "Nv GPU FP32 0.47 Turing 70W PyTorch eager"),
        (platform("fp32", 19.49, "newruntime"), "Nv GPU FP32 19.5 Turing 70W Newruntime"),
    ],
)
def test_platform_sentence(given: SimpleNamespace, sentence: str) -> None:
    assert platform_sentence(given) == sentence


def test_unknown_template_is_one_line() -> None:
    with pytest.raises(InputError, match="use one of paper, default"):
        node_sentences(conv(), "haiku")


def test_sentences_are_fast() -> None:
    b = GraphBuilder()
    x = b.input((1, 8, 8, 8))
    for _ in range(2000):
        x = b.node("Conv", [x, b.param((8, 8, 3, 3))], (1, 8, 8, 8), kernel_shape=(3, 3), strides=(1, 1), group=1)
    graph = b.build([x])
    node_sentences(graph)
    best = min(_timed(graph) for _ in range(5))
    assert best < 2000 / 100_000  # at least 100,000 nodes a second


def _timed(graph: Graph) -> float:
    start = time.perf_counter()
    node_sentences(graph)
    return time.perf_counter() - start


def test_attribute_lists_do_not_break_the_cache() -> None:
    b = GraphBuilder()
    x = b.input((1, 8))
    (y,) = b.add("Softmax", [x], [TensorSpec((1, 8))], {"axis": [1]})  # type: ignore[dict-item]
    assert node_sentences(b.build([y])) == ["Norm Softmax last axis"]

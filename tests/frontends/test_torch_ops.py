from __future__ import annotations

import operator

import pytest

from costmodel.analysis import analyze
from tests.frontends.torch_modules import Apply, nn, onnx_graph, torch, trained

import frontends  # isort: skip
from frontends import torch_export  # isort: skip

functional = torch.nn.functional


def randn(*shape: int):  # type: ignore[no-untyped-def]
    return torch.randn(shape)


# Each lowers to what its ONNX export lowers to, node by node.
SAME = {
    "linear": (nn.Linear(8, 4), randn(2, 3, 8)),
    "silu": (nn.SiLU(), randn(2, 8)),
    "pad_conv": (nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3)), randn(1, 3, 8, 8)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), randn(1, 3, 8, 8)),
    "group_norm": (nn.GroupNorm(2, 8), randn(2, 8, 4, 4)),
    "attention": (Apply(functional.scaled_dot_product_attention), *(randn(2, 4, 5, 8) for _ in range(3))),
    "masked_attention": (
        Apply(lambda q, k, v, m: functional.scaled_dot_product_attention(q, k, v, m > 0)),
        *(randn(2, 4, 5, 8) for _ in range(3)),
        randn(5, 5),
    ),
    "lstm": (nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True), randn(2, 5, 8)),
    "roll": (Apply(lambda x: x.roll((1, 2), (1, 2))), randn(2, 5, 8)),
    "index": (Apply(lambda x, i: x[:, i]), randn(2, 5, 8), torch.tensor([0, 1])),
    "split": (Apply(lambda x: x.split(3, 1)), randn(2, 8)),
    "bicubic": (nn.Upsample(size=(9, 9), mode="bicubic", align_corners=True), randn(1, 2, 4, 4)),
    "clip_chain": (nn.Sequential(nn.ReLU(), nn.Hardtanh(-1, 6)), randn(2, 8)),
    "normalize": (Apply(lambda x: functional.normalize(x, dim=1)), randn(2, 8)),
    "rms_norm": (nn.RMSNorm(8), randn(2, 8)),
}


@pytest.mark.parametrize("name", SAME)
def test_same_as_onnx_export(name: str) -> None:
    module, *inputs = SAME[name]
    ours = frontends.load(trained(module), example_inputs=inputs)
    assert ours.fingerprint == onnx_graph(module, *inputs).fingerprint


def write_twice(x):  # type: ignore[no-untyped-def]
    y = x * 2
    y[:, 0] = 0
    y[:, 1:3] += 1
    return y


def quiet(x):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return x.relu() + 1


# What these lower to; constants, masks and position ids leave no nodes.
LOWERED = {
    "in_place_on_views": (
        write_twice,
        [(2, 8)],
        "Mul ScatterElements Slice Add Transpose Transpose ScatterND Transpose Slice Transpose ScatterND Transpose",
    ),
    "no_grad": (quiet, [(2, 8)], "Relu Add"),
    "branch": (lambda x: torch.cond(x.sum() > 0, torch.sin, lambda y: y.relu().exp(), (x,)), [(4,)], "Relu Exp"),
    "constants": (lambda x: x + torch.arange(8).float().exp().tril() if x.dim() > 1 else x + torch.ones(8).cumsum(0),
                  [(8,)], "Add"),
    "neutral": (lambda x: (x + 0) * 1 / 1, [(8,)], ""),
    "scalar_power": (lambda x: x**2, [(8,)], "Pow"),
    "types_meet": (lambda x: x * x.long(), [(8,)], "Cast Cast Mul"),
    "mask": (lambda x: x.masked_fill(torch.ones(8, 8).tril() == 0, -1e9), [(8, 8)], "Where"),
    "uneven_pool": (lambda x: functional.adaptive_avg_pool2d(x, 3), [(1, 2, 16, 16)], "AveragePool"),
    "one_image": (lambda x: functional.max_pool2d(x, 2), [(3, 8, 8)], "Unsqueeze MaxPool Squeeze"),
    "grouped_queries": (
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
        [(1, 4, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)],
        "Unsqueeze Expand Reshape Unsqueeze Expand Reshape Transpose Reshape Mul Mul MatMul Add Softmax MatMul",
    ),
    "decomposed": (lambda x: torch.special.entr(x), [(8,)], None),
    "cosine": (lambda a, b: functional.cosine_similarity(a, b), [(2, 8), (2, 8)], None),
    "loss": (lambda x: functional.cross_entropy(x, x.argmax(1)), [(2, 8)], None),
    "largest_selection": (lambda x: x[x > 0], [(8,)], "Greater NonZero Transpose GatherND"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOWERED)
def test_lowered(name: str) -> None:
    function, shapes, ops = LOWERED[name]
    graph = torch_export.load(Apply(function), example_inputs=shapes)
    assert analyze(graph).coverage == 1
    if ops is not None:
        found = [n.op for n in graph.nodes]
        assert sorted(found) == sorted(ops.split())


def test_attributes_are_explicit() -> None:
    module = nn.Conv1d(4, 6, 3, padding="same", dilation=2, groups=2)
    (node,) = torch_export.load(module, example_inputs=(1, 4, 9)).nodes
    assert dict(node.attrs) == {
        "kernel_shape": (3,), "strides": (1,), "pads": (2, 2), "dilations": (2,), "group": 2,
    }  # fmt: skip


def test_uneven_pool_takes_the_largest_window() -> None:
    graph = torch_export.load(nn.AdaptiveAvgPool2d(3), example_inputs=(1, 2, 16, 16))
    assert graph.nodes[0].attrs["kernel_shape"] == (6, 6)


def test_parameters_keep_their_names() -> None:
    graph = torch_export.load(nn.Sequential(nn.Conv2d(3, 4, 3)), example_inputs=(1, 3, 8, 8))
    assert graph.params == {"0.weight", "0.bias"}


def test_outputs_are_those_of_forward() -> None:
    graph = torch_export.load(Apply(lambda x: (x + 1, [x * 2, x])), example_inputs=(3,))
    assert [graph.tensors[t].shape for t in graph.outputs] == [(3,)] * 3
    assert operator.itemgetter(2)(graph.outputs) == graph.inputs[0]

from __future__ import annotations

import math
from typing import Any

import pytest

from costmodel.analysis import analyze
from costmodel.corpora import operators
from costmodel.errors import DataError

CONV = {"source": "tinynas", "op": "conv", "batch": 2, "c_in": 8.0, "c_out": 16.0, "kernel": 3.0, "h_in": 10.0,
        "stride": 2.0, "pad": 1.0, "fused_elementwise": 0.0}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "ops", "flops"),
    [
        ({"op": "bmm", "batch": 3, "m": 4.0, "n": 5.0, "k": 6.0}, ["MatMul"], 2 * 3 * 4 * 5 * 6),
        ({"op": "linear", "batch": 1, "m": 4.0, "n": 5.0, "k": 6.0}, ["Gemm"], 2 * 4 * 5 * 6 + 24),
        ({"op": "add", "batch": 4, "h": 5.0}, ["Add"], 20),
        ({"op": "powu", "batch": 4, "h": 5.0}, ["Pow"], 80),
        ({"op": "gelu", "batch": 4, "h": 5.0}, ["Gelu"], 160),
        ({"op": "softmax", "batch": 4, "h": 5.0}, ["Softmax"], 100),
        ({"op": "ln", "batch": 4, "h": 5.0}, ["LayerNormalization"], 140),
        (CONV, ["Conv"], 2 * 800 * 72 + 800),
        ({**CONV, "fused_elementwise": 1.0}, ["Conv", "Add"], 2 * 800 * 72 + 1600),
        ({**CONV, "source": "neusight", "fused_elementwise": math.nan}, ["Conv"], 2 * 800 * 72),
        ({**CONV, "op": "depthwise_conv", "c_out": 8.0}, ["Conv"], 2 * 400 * 9 + 400),
    ],
)
def test_rows_become_one_kernel(row: dict[str, Any], ops: list[str], flops: float) -> None:
    graph = operators.build(row)
    assert [n.op for n in graph.nodes] == ops
    assert analyze(graph).flops == flops


def test_bmm_contracts_n_and_linear_maps_n_to_k() -> None:
    graph = operators.build({"op": "bmm", "batch": 2, "m": 3, "n": 5, "k": 7})
    assert [graph.tensors[t].shape for t in (*graph.inputs, *graph.outputs)] == [(2, 3, 5), (2, 5, 7), (2, 3, 7)]
    graph = operators.build({"op": "linear", "batch": 2, "m": 3, "n": 5, "k": 7})
    assert graph.tensors[graph.outputs[0]].shape == (6, 7)


def test_unary_and_binary_differ_in_traffic() -> None:
    two, one = (analyze(operators.build({"op": op, "batch": 4, "h": 5.0})) for op in ("add", "addu"))
    assert (two.nodes[0].read_elems, one.nodes[0].read_elems) == (40, 20)


@pytest.mark.parametrize(
    "row",
    [
        {"op": "sort", "batch": 4, "h": 5.0},
        {"op": "add", "batch": 4, "h": math.nan},
        {"op": "add", "batch": 4},
        {"op": "add", "batch": 4, "h": 0.0},
        {**CONV, "h_in": 1.0, "pad": 0.0},
        {**CONV, "op": "depthwise_conv", "c_out": 12.0},
    ],
)
def test_impossible_rows_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        operators.build(row)


@pytest.mark.parametrize(
    ("measured", "name"),
    [
        ("NVIDIA A100-PCIE-40GB", "a100-pcie"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("NVIDIA_A100-PCIE-40GB", "a100-pcie"),
        ("Tesla_V100-PCIE-32GB", "v100-pcie"),
        ("Tesla V100", "v100"),
        ("Tesla P4", "p4"),
        ("Tesla_T4", "t4"),
        ("Tesla P100-PCIE-16GB", "p100"),
        ("rtx4090", "rtx4090"),
        ("Gold 6226", "gold_6226"),
    ],
)
def test_device_names(measured: str, name: str) -> None:
    assert operators.device_name(measured) == name

from __future__ import annotations

import math

import pytest

from costmodel.arithmetic import DENSE, VECTOR, is_known, operations
from costmodel.ir import Node
from costmodel.rates import MOVEMENT, PARTIAL_READS, PER_INPUT, PER_OUTPUT, VIEWS


def count(op: str, ins: list[tuple[int, ...]], outs: list[tuple[int, ...]], **attrs: object) -> tuple[float, float]:
    names = tuple(f"i{k}" for k in range(len(ins))), tuple(f"o{k}" for k in range(len(outs)))
    return operations(Node(op, *names, attrs), ins, outs)  # type: ignore[arg-type]


def test_an_operator_is_in_one_table_only() -> None:
    tables = [set(DENSE), set(MOVEMENT) - set(VECTOR), set(VECTOR), set(PER_OUTPUT), set(PER_INPUT), set(VIEWS)]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert PARTIAL_READS <= MOVEMENT


@pytest.mark.parametrize(
    ("op", "ins", "outs", "attrs", "expected"),
    [
        ("Conv", [(2, 8, 9, 9), (16, 8, 3, 3), (16,)], [(2, 16, 7, 7)], {}, (2 * 16 * 49 * 8 * 9, 2 * 16 * 49)),
        ("Conv", [(1, 8, 9, 9), (8, 1, 3, 3)], [(1, 8, 9, 9)], {"group": 8}, (8 * 81 * 9, 0)),
        ("Conv", [(1, 4, 10), (6, 4, 3)], [(1, 6, 8)], {}, (6 * 8 * 12, 0)),
        ("ConvTranspose", [(1, 8, 5, 5), (8, 4, 2, 2)], [(1, 4, 10, 10)], {}, (8 * 25 * 16, 0)),
        ("Gemm", [(5, 7), (3, 7), (3,)], [(5, 3)], {"transB": 1}, (105, 15)),
        ("Gemm", [(7, 5), (7, 3)], [(5, 3)], {"transA": 1}, (105, 0)),
        ("MatMul", [(2, 1, 4, 8), (3, 8, 5)], [(2, 3, 4, 5)], {}, (2 * 3 * 4 * 5 * 8, 0)),
        ("MatMul", [(8,), (8,)], [()], {}, (8, 0)),
        ("Attention", [(2, 4, 6, 8), (2, 4, 10, 8), (2, 4, 10, 3)], [(2, 4, 6, 3)], {}, (2 * 4 * 60 * 11, 480 * 6)),
        (
            "Attention",
            [(1, 6, 32), (1, 6, 16), (1, 6, 16)],
            [(1, 6, 32)],
            {"q_num_heads": 4, "kv_num_heads": 2},
            (4 * 36 * 16, 4 * 36 * 6),
        ),
        (
            "com.microsoft.Attention",
            [(1, 6, 32), (32, 96), (96,)],
            [(1, 6, 32)],
            {"num_heads": 4},
            (6 * 32 * 96 + 4 * 36 * 16, 6 * 96 + 4 * 36 * 6),
        ),
        ("LSTM", [(5, 2, 3), (1, 16, 3), (1, 16, 4)], [(5, 1, 2, 4)], {}, (10 * (48 + 64), 10 * 4 * 31)),
        ("MaxPool", [(1, 2, 8, 8)], [(1, 2, 4, 4)], {"kernel_shape": (3, 3)}, (0, 32 * 9)),
        ("GlobalAveragePool", [(1, 2, 8, 8)], [(1, 2, 1, 1)], {}, (0, 128)),
        ("ReduceSum", [(4, 8)], [(4, 1)], {"axes": (1,)}, (0, 32)),
        ("Sum", [(4,), (4,), (4,)], [(4,)], {}, (0, 8)),
        ("Softmax", [(4, 8)], [(4, 8)], {"axis": 1}, (0, 160)),
        ("Resize", [(1, 2, 4, 4)], [(1, 2, 8, 8)], {"mode": "nearest"}, (0, 0)),
        ("Resize", [(1, 2, 4, 4)], [(1, 2, 8, 8)], {"mode": "linear"}, (0, 128 * 7)),
        ("Resize", [(1, 2, 4, 4)], [(1, 2, 8, 8)], {"mode": "cubic"}, (0, 128 * 31)),
        ("DFT", [(1, 8, 1)], [(1, 8, 2)], {"axis": 1}, (0, 5 * 8 * 3)),
        ("TopK", [(2, 100)], [(2, 4), (2, 4)], {"axis": -1}, (0, 400)),
        (
            "NonMaxSuppression",
            [(2, 8, 4), (2, 5, 8)],
            [(2 * 5 * 3, 3)],
            {"boxes_per_class": 3, "center_point_box": 0},
            (0, 2 * (5 * (8 * 3 + 13 * (7 + 6 + 5)) + 8 * 3)),
        ),
        ("NonMaxSuppression", [(1, 8, 4), (1, 1, 8)], [(8, 3)], {"center_point_box": 1}, (0, 24 + 13 * 28 + 72)),
        ("NegativeLogLikelihoodLoss", [(4, 9, 2), (4, 2)], [(4, 2)], {"reduction": "none"}, (0, 8)),
        ("NegativeLogLikelihoodLoss", [(4, 9), (4,), (9,)], [()], {"reduction": "sum"}, (0, 4 * 3)),
        ("NegativeLogLikelihoodLoss", [(4, 9), (4,), (9,)], [()], {"reduction": "mean"}, (0, 4 * 4 + 1)),
        ("SoftmaxCrossEntropyLoss", [(4, 9), (4,)], [()], {"reduction": "mean"}, (0, 36 * 6 + 4 * 2 + 1)),
        ("MelWeightMatrix", [()] * 5, [(129, 40)], {}, (0, 14 + 12 * 42 + 4 * 129)),
        ("Transpose", [(2, 3)], [(3, 2)], {"perm": (1, 0)}, (0, 0)),
        ("Gather", [(100, 8), (4,)], [(4, 8)], {}, (0, 0)),
    ],
)
def test_formulas(op: str, ins: list, outs: list, attrs: dict, expected: tuple[float, float]) -> None:
    assert count(op, ins, outs, **attrs) == expected


@pytest.mark.parametrize(
    ("equation", "ins", "out", "expected"),
    [
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)], (2, 3, 4, 6), (2 * 3 * 4 * 6 * 5, 0)),
        ("ij,jk", [(2, 3), (3, 4)], (2, 4), (24, 0)),
        ("...ij,...jk->...ik", [(7, 2, 3), (7, 3, 4)], (7, 2, 4), (168, 0)),
        ("i,j->ij", [(2,), (3,)], (2, 3), (0, 6)),
        ("ij->i", [(2, 3)], (2,), (0, 6)),
        ("ij->ji", [(2, 3)], (3, 2), (0, 0)),
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)], (2, 5), (24 + 40, 0)),
    ],
)
def test_einsum(equation: str, ins: list, out: tuple[int, ...], expected: tuple[float, float]) -> None:
    assert count("Einsum", ins, [out], equation=equation) == expected


def test_unknown_operators_have_no_arithmetic() -> None:
    assert not is_known("my.domain.Frobnicate")
    assert count("my.domain.Frobnicate", [(4,)], [(4,)]) == (0, 0)


def test_lstm_products_match_the_gate_matrices() -> None:
    macs, _ = count("GRU", [(7, 2, 5), (2, 12, 5), (2, 12, 4)], [(7, 2, 2, 4)])
    assert macs == 7 * 2 * 2 * math.prod((12, 5 + 4))

"""NAS-Bench-201 cells: which are distinct, and that a network costs what the shared corpus says."""

from __future__ import annotations

import pytest

import frontends
from costmodel.analysis import analyze
from costmodel.corpora import nb201
from profiler.workloads.nasbench201 import EDGES, OPERATIONS, distinct_cells, nasbench201
from profiler.workloads.net import Net

NAMES = dict(zip(OPERATIONS, ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"), strict=True))


def arch(cell: tuple[str, ...]) -> str:
    """The arch string of a cell."""
    parts = [
        "".join(f"|{NAMES[op]}~{s}" for (s, t), op in zip(EDGES, cell, strict=True) if t == node) for node in (1, 2, 3)
    ]
    return "|+".join(parts) + "|"


@pytest.mark.parametrize(
    "cell",
    [
        ("conv3x3",) * 6,
        ("skip", "none", "conv1x1", "pool3x3", "none", "conv3x3"),
        ("none", "conv3x3", "conv3x3", "none", "conv1x1", "pool3x3"),
        ("conv3x3", "conv3x3", "conv3x3", "skip", "none", "none"),
    ],
)
def test_networks_cost_what_the_corpus_says(cell: tuple[str, ...]) -> None:
    ours = analyze(frontends.load(nasbench201(Net("net"), cell), batch=1))
    theirs = analyze(nb201.build(arch(cell), folded=True))
    products = [sum(n.flops for n in a.nodes if n.kind == "matmul") for a in (ours, theirs)]
    assert products[0] == pytest.approx(products[1], rel=0.01)  # biases count on one side only
    assert {n.op for n in frontends.load(nasbench201(Net("net"), cell), batch=1).nodes} >= {
        "BatchNormalization",
        "Gemm",
    }


def test_distinct_cells_are_live_and_differ() -> None:
    cells = distinct_cells()
    assert len(cells) == len(set(cells)) == 5772
    assert ("none",) * 6 not in cells
    dead = {("conv3x3", "none", "none", op, "none", "none") for op in OPERATIONS}
    assert not dead & {c for c in cells if c[3] == "none"}


def test_cells_that_compute_the_same_come_once() -> None:
    same = [
        ("conv3x3", op, edge, "skip", "conv1x1", "none") for op in OPERATIONS for edge in OPERATIONS
    ]  # edges into node 2 lead nowhere
    assert sum(cell in same for cell in distinct_cells()) == 1

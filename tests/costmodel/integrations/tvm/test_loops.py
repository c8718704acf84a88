"""Loop graphs as numbers."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.integrations.tvm.loops import (
    _COUNT_AT,
    _COUNTS,
    _FLAG_AT,
    CACHES,
    LOOP_FEATURES,
    LoopGraph,
    pack,
    read,
)  # fmt: skip
from tests.costmodel.integrations.tvm.loop_graphs import SIZES, matmul


def count(graph: LoopGraph, name: str, row: int = -1) -> float:
    """The number behind a scaled column."""
    return float(np.exp2(8 * graph.numbers[row, _COUNT_AT[name]].astype(np.float64)) - 1)


def flag(graph: LoopGraph, name: str, row: int = -1) -> float:
    return float(graph.numbers[row, len(_COUNTS) + _FLAG_AT[name]])


def test_a_row_per_node_and_its_path() -> None:
    (graph,) = read([matmul("ikj", ("parallel", "serial", "vectorized"), unroll=64)])
    assert graph.numbers.shape == (4, LOOP_FEATURES)
    assert graph.pairs.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert count(graph, "extent", 0) == pytest.approx(64, rel=1e-3)
    assert count(graph, "path_parallel") == pytest.approx(SIZES["i"], rel=1e-3)
    assert count(graph, "path_serial") == pytest.approx(SIZES["k"], rel=1e-3)
    assert count(graph, "path_vectorized") == pytest.approx(SIZES["j"], rel=1e-3)
    assert count(graph, "path_unroll") == pytest.approx(64, rel=1e-3)
    assert count(graph, "vector_bits") == pytest.approx(SIZES["j"] * 32, rel=1e-3)
    assert count(graph, "reduction") == pytest.approx(SIZES["k"], rel=1e-3)
    assert flag(graph, "inner_vectorized") == flag(graph, "block") == flag(graph, "init") == 1
    # B, the larger, comes first: its neighbours along j are one apart; A stands still.
    assert flag(graph, "read0_next") == flag(graph, "read0_lane_next") == 1
    assert flag(graph, "read1_still") == flag(graph, "read1_lane_still") == 1


def test_traffic_past_a_cache_is_the_working_set_of_the_outermost_loop_that_fits() -> None:
    graph = matmul("ijk", ("serial",) * 3)
    sets = [n.attrs["working_set"] for n in graph.nodes[:3]]
    (rows,) = read([graph])
    assert sets[0] < CACHES[-1]
    assert count(rows, f"past_{CACHES[-1]}") == pytest.approx(sets[0], rel=1e-3)  # type: ignore[arg-type]
    assert sets[2] <= 4096 < sets[1]  # type: ignore[operator]
    assert count(rows, "past_4096") == pytest.approx(sets[2] * 64 * 128, rel=1e-3)  # type: ignore[operator]


def test_the_baseline_is_work_per_vector_lane_and_core() -> None:
    serial, vector, parallel = (
        read([matmul("ikj", kinds)], cores=4)[0].baseline[-1]
        for kinds in (
            ("serial",) * 3, ("serial", "serial", "vectorized"), ("parallel", "serial", "serial"),
        )
    )  # fmt: skip
    assert serial - vector == pytest.approx(np.log(16), abs=1e-5)
    assert serial - parallel == pytest.approx(np.log(4), abs=1e-5)
    assert np.isneginf(read([matmul()])[0].baseline[:3]).all()


def test_packs_are_padded_and_keep_graphs_apart() -> None:
    graphs = read([matmul(), matmul("kij"), matmul("jik")])
    packed = pack(graphs, window=8)
    assert len(packed.numbers) == 16
    assert packed.graph.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert np.isneginf(packed.baseline[12:]).all()
    target = packed.seg % 16
    assert (packed.graph[packed.src] == packed.graph[target]).all()
    assert (packed.graph[target] < 3).all()  # padding has no relatives
    assert [packed.sentences[i] for i in packed.sentence[4:8]] == list(graphs[1].sentences)


def test_nothing_to_read() -> None:
    assert read([]) == []

"""Accuracy protocols: splits by graph, a small training on made-up accuracies, both published file forms."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs ledg-cost[train]")
pa = pytest.importorskip("pyarrow", reason="needs ledg-cost[train]")
import pyarrow.parquet as pq  # noqa: E402

from costmodel.corpora.nb101 import CONV1, CONV3, POOL, Matrix  # noqa: E402
from costmodel.errors import DataError, SampleSchemaError  # noqa: E402
from costmodel.prompts import node_sentences  # noqa: E402
from costmodel.training import accuracy  # noqa: E402
from costmodel.training.accuracy_data import (  # noqa: E402
    ACCURACY_FILE,
    DATASETS,
    Cells,
    draw,
    nb101_cell,
    nb101_cells,
    nb201_cell,
    nb201_cells,
)
from tests.costmodel.corpora.test_nb101_runs import frame, run  # noqa: E402

RECIPE = replace(accuracy.Recipe(), members=1, steps=40, evaluations=4, graphs=32, validation=40)
C1, C3 = "nor_conv_1x1", "nor_conv_3x3"
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def arch_of(ops: tuple[str, ...]) -> str:
    a, b, c, d, e, f = ops
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def spelled(words: str) -> str:
    """The arch string of six short words for the edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3."""
    full = {"0": "none", "skip": "skip_connect", "pool": "avg_pool_3x3"}
    return arch_of(tuple(full.get(word, word) for word in words.split()))


def quiet(_: str) -> None:
    """Says nothing."""


def made_up(arch: str) -> float:
    """Better with live convolutions, more so with 3×3 and behind one another; 10 % for a dead cell."""
    ops = [node.op + str(node.attrs.get("kernel_shape", "")) for node in nb201_cell(arch).nodes]
    if ops == ["Mul"]:
        return 10.0
    return 60.0 + 8 * sum("Conv(3" in op for op in ops) ** 0.7 + 2 * sum("Conv(1" in op for op in ops)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 cells in the published table's form."""
    folder = tmp_path_factory.mktemp("data")
    every = [arch_of(ops) for ops in itertools.product(OPERATIONS, repeat=6)]
    archs = [every[i] for i in np.random.default_rng(0).permutation(len(every))[:400]]
    y = np.array([made_up(a) for a in archs])
    table = {"arch": archs, **{column: y * (1 - 0.3 * k) for k, column in enumerate(DATASETS.values())}}
    pq.write_table(pa.table(table), folder / ACCURACY_FILE)
    return folder


def fill(cache: Path, sentences: set[str]) -> Path:
    """A cache that holds a vector of each sentence, so that no language model is needed."""
    folder = cache / "embeddings-test"
    folder.mkdir()
    known = sorted(sentences)
    (folder / "sentences.json").write_text(json.dumps(known))
    np.save(folder / "vectors.npy", np.random.default_rng(1).normal(size=(len(known), 16)).astype(np.float16))
    return cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graphs = [nb201_cell(arch_of((op,) * 6)) for op in OPERATIONS]
    graphs.append(nb201_cell(spelled("0 0 0 skip 0 0")))
    graphs += [nb101_cell(m, ops) for m, ops in MODULES]
    return fill(tmp_path_factory.mktemp("cache"), {s for g in graphs for s in node_sentences(g)})


@pytest.fixture(scope="module")
def cells(data: Path, cache: Path) -> Cells:
    return nb201_cells(data, cache, "test", quiet)


def matrix_of(side: int, *pairs: tuple[int, int]) -> Matrix:
    return tuple(tuple(int((i, j) in pairs) for j in range(side)) for i in range(side))


MODULES = [
    (matrix_of(4, (0, 1), (1, 2), (2, 3), *extra), ("input", first, second, "output"))
    for first, second in itertools.product((CONV3, CONV1, POOL), repeat=2)
    for extra in ((), ((0, 2),), ((0, 3),), ((1, 3),))
]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{C3} 0 skip 0 0 skip", f"0 0 0 {C3} 0 0"),
        (f"{C3} {C1} 0 0 skip skip", f"{C1} {C3} 0 0 skip skip"),
        (f"0 0 {C3} 0 0 pool", "0 0 0 0 0 0"),
    ],
)
def test_cells_of_one_function_are_one_graph(one: str, other: str) -> None:
    assert nb201_cell(spelled(one)).fingerprint == nb201_cell(spelled(other)).fingerprint


def test_shared_and_separate_convolutions_differ() -> None:
    """conv(x) used twice is not the sum of two convolutions."""
    shared = nb201_cell(spelled(f"{C3} 0 skip 0 skip skip"))
    separate = nb201_cell(spelled(f"{C3} {C3} 0 0 skip skip"))
    assert [n.op for n in shared.nodes] == ["Conv", "Sum"]
    assert [n.op for n in separate.nodes] == ["Conv", "Conv", "Sum"]


def test_a_module_is_its_operations() -> None:
    matrix = matrix_of(5, (0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (2, 4), (3, 4))
    graph = nb101_cell(matrix, ("input", CONV3, POOL, CONV1, "output"))
    assert sorted(n.op for n in graph.nodes) == ["Concat"] + ["Conv"] * 5 + ["MaxPool", "Sum"]
    assert graph.tensors[graph.outputs[0]].shape == (1, 128, 32, 32)


@pytest.mark.parametrize(("count", "seed"), [(60, 0), (60, 1), (120, 0)])
def test_splits_share_no_graph(cells: Cells, count: int, seed: int) -> None:
    parts = draw(cells, count, seed, 40)
    graphs = [{cells.fingerprints[g] for g in cells.graph[rows]} for rows in (parts.train, parts.val, parts.unseen)]
    for one, other in itertools.combinations(graphs, 2):
        assert one.isdisjoint(other)
    assert (len(np.unique(parts.train)), len(np.unique(parts.val))) == (count, 40)
    again = draw(cells, count, seed, 40)
    assert np.array_equal(parts.train, again.train)
    assert not np.array_equal(parts.train, draw(cells, count, seed + 5, 40).train)


def test_no_cell_of_a_new_graph_is_left_out(cells: Cells) -> None:
    parts = draw(cells, 60, 0, 40)
    left = set(range(len(cells.names))) - set(parts.train) - set(parts.val) - set(parts.unseen)
    used = {cells.graph[i] for i in (*parts.train, *parts.val)}
    assert all(cells.graph[i] in used for i in left)


def test_kendall_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 9, 60).astype(float), rng.integers(0, 9, 60).astype(float)
    pairs = list(itertools.combinations(range(60), 2))
    signs = [np.sign(y[i] - y[j]) * np.sign(p[i] - p[j]) for i, j in pairs]
    norm = np.sqrt(sum(y[i] != y[j] for i, j in pairs)) * np.sqrt(sum(p[i] != p[j] for i, j in pairs))
    assert accuracy.kendall(y, p) == pytest.approx(sum(signs) / norm)
    assert accuracy.kendall(y, y) == pytest.approx(1)
    assert accuracy.kendall(y, -y) == pytest.approx(-1)
    assert np.isnan(accuracy.kendall(y, np.zeros(60)))


def test_a_pack_is_its_graphs_alone(cells: Cells) -> None:
    """A network's answer to a graph does not depend on what is packed beside it."""
    import torch

    torch.manual_seed(0)
    config = replace(
        RECIPE.model, node_features=cells.numeric.shape[1], graph_features=cells.stats.shape[1], text_width=16
    )
    network = accuracy.CellNetwork(config, 1).eval()
    graphs = np.array([7, 3, 11, 3])
    with torch.no_grad():
        together = network(cells.pack(graphs))
        alone = torch.cat([network(cells.pack(graphs[i : i + 1])) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.fixture(scope="module")
def record(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("runs")
    return accuracy.accuracy_tables(data, "nb201", (100,), 2, cache, folder, "test", quiet, RECIPE), folder


def test_a_short_training_orders_unseen_cells(record: tuple[dict[str, Any], Path]) -> None:
    assert list(record[0]["datasets"]) == list(DATASETS)
    table = record[0]["datasets"]["cifar10"]["tables"]["100"]
    assert table["cells"]["train"] == 100
    assert table["seeds"] == 2
    assert table["models"]["ledg-former"]["unseen"] > 0.6
    assert table["models"]["trees"]["unseen"] > 0.6
    assert set(table["models"]) == {"ledg-former", "trees", "flops", "parameters"}
    text = accuracy.markdown(record[0])
    assert "| 100 | ledg-former |" in text


def test_a_finished_table_is_read_not_trained(
    record: tuple[dict[str, Any], Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, folder = record

    def forbidden(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(accuracy, "fit", forbidden)
    again = accuracy.accuracy_tables(folder / "no data", "nb201", (100,), 2, cache, folder, "test", quiet, RECIPE)
    assert json.dumps(again) == json.dumps(found)


def test_only_missing_seeds_are_trained(
    record: tuple[dict[str, Any], Path], data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed that was lost comes out the same; the other is left alone."""
    found, folder = record
    seeds = sorted((folder / "accuracy-nb201").glob("*.json"))
    (tmp_path / "accuracy-nb201").mkdir()
    (tmp_path / "accuracy-nb201" / seeds[0].name).write_bytes(seeds[0].read_bytes())
    trained: list[int] = []
    real = accuracy.fit
    monkeypatch.setattr(accuracy, "fit", lambda *a: trained.append(a[3]) or real(*a))  # type: ignore[func-returns-value]
    again = accuracy.accuracy_tables(data, "nb201", (100,), 2, cache, tmp_path, "test", quiet, RECIPE)
    assert trained == [1]
    assert json.dumps(again) == json.dumps(found)


def test_modules_of_a_published_file(cache: Path, tmp_path: Path) -> None:
    """36 modules: fewer than a real table, through the same path as `nasbench_only108.tfrecord`."""
    rows = []
    for i, (matrix, operations) in enumerate(MODULES):
        digits = "".join(str(c) for row in matrix for c in row)
        quality = 0.8 + 0.05 * operations.count(CONV3) + 0.02 * operations.count(CONV1)
        rows += [run(f"m{i}", 108, quality + noise, digits, ",".join(operations)) for noise in (-0.001, 0.001)]
    path = tmp_path / "nasbench_only108.tfrecord"
    path.write_bytes(b"".join(frame(row) for row in rows))
    cells = nb101_cells(tmp_path, cache, "test", quiet)
    assert len(cells.names) == len(cells.fingerprints) == len(MODULES)
    assert cells.accuracy[0, 0] == pytest.approx(90.0)
    recipe = replace(RECIPE, validation=8, steps=20, evaluations=2)
    found = accuracy.accuracy_tables(path, "nb101", (16,), 1, cache, tmp_path, "test", quiet, recipe)
    found = found["datasets"]["cifar10"]
    assert found["tables"]["16"]["cells"] == {"train": 16, "val": 8, "unseen": 12, "graphs": 16}
    assert found["paper"]["172"] == 0.762


def test_bad_input_is_told(data: Path, cache: Path, cells: Cells, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        nb201_cells(tmp_path, cache, "test", quiet)
    with pytest.raises(DataError, match="none of nasbench_only108"):
        nb101_cells(tmp_path, cache, "test", quiet)
    with pytest.raises(DataError, match="too few"):
        draw(cells, 399, 0, 40)
    columns: dict[str, list[Any]] = {"arch": ["|x~0|"], **{c: [1.0] for c in DATASETS.values()}}
    pq.write_table(pa.table(columns), tmp_path / ACCURACY_FILE)
    with pytest.raises(DataError, match="cell 0 is not of the search space"):
        nb201_cells(tmp_path, cache, "test", quiet)
    pq.write_table(pa.table({**columns, "cifar10_test": [float("nan")]}), tmp_path / ACCURACY_FILE)
    with pytest.raises(SampleSchemaError, match="lacks accuracies"):
        nb201_cells(tmp_path, cache, "test", quiet)
    (tmp_path / ACCURACY_FILE).write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot read"):
        nb201_cells(tmp_path, cache, "test", quiet)
    pq.write_table(pa.table({"arch": ["|x~0|"]}), tmp_path / ACCURACY_FILE)
    with pytest.raises(DataError, match="cifar10_test"):
        nb201_cells(tmp_path, cache, "test", quiet)

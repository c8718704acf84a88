"""The static-adjacency transformer: its relations, what it depends on, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NN-Former needs torch")

from costmodel.baselines import fit  # noqa: E402
from costmodel.baselines.nnformer import NNFormer, NNFormerConfig, relatives  # noqa: E402
from costmodel.baselines.nnformer_fit import Recipe, operator_codes  # noqa: E402
from costmodel.baselines.nnformer_fit import fit as fit_network  # noqa: E402
from costmodel.errors import DataError  # noqa: E402
from costmodel.features import NODE_FEATURES, PLATFORM_FEATURES, relation_edges  # noqa: E402
from costmodel.metrics import mape  # noqa: E402
from costmodel.model import Batch  # noqa: E402
from costmodel.training.corpus import Corpus  # noqa: E402

EDGES = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (0, 4)]
QUICK = Recipe(NNFormerConfig(width=32, layers=2, heads=4, dropout=0.0), steps=250, nodes=200, lr=1e-2)


def as_matrices(edges: list[tuple[torch.Tensor, torch.Tensor]], nodes: int) -> list[np.ndarray]:
    found = []
    for src, target in edges:
        matrix = np.zeros((nodes, nodes), int)
        np.add.at(matrix, (target.numpy(), src.numpy()), 1)
        found.append(matrix)
    return found


def test_the_four_relations_are_products_of_the_adjacency() -> None:
    a = np.zeros((5, 5), int)
    a[tuple(zip(*EDGES, strict=True))] = 1
    src, seg = relation_edges(EDGES, 5)
    own = np.eye(5, dtype=int)
    expected = [a, a.T, a.T @ a, a @ a.T]  # children, parents, sharing a parent, sharing a child
    for found, product in zip(as_matrices(relatives(src, seg, 5), 5), expected, strict=True):
        np.testing.assert_array_equal(found, ((product + own) > 0).astype(int))


def test_a_graph_without_edges_has_only_itself() -> None:
    src, seg = relation_edges([], 3)
    for matrix in as_matrices(relatives(src, seg, 3), 3):
        np.testing.assert_array_equal(matrix, np.eye(3, dtype=int))


def run(edges: list[tuple[int, int]], numeric: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    network = NNFormer(NNFormerConfig(codes=2, width=16, layers=1, dropout=0.0)).eval()
    n = len(numeric)
    src, seg = relation_edges(edges, n)
    text = torch.nn.functional.one_hot(torch.arange(n) % 2, 2).float()
    batch = Batch(
        text, numeric, torch.zeros(n, dtype=torch.long), torch.tensor(src), torch.tensor(seg), torch.ones(1, 4)
    )
    return network(batch, relatives(src, seg, n), torch.zeros(1, dtype=torch.long), torch.zeros(1, PLATFORM_FEATURES))


def test_edges_count() -> None:
    numeric = torch.randn(5, NODE_FEATURES, generator=torch.Generator().manual_seed(1))
    whole = run(EDGES, numeric)
    assert not torch.allclose(whole, run(EDGES[:-1], numeric))
    assert torch.isfinite(whole).all()


def test_graphs_of_a_pack_do_not_see_each_other(corpus: Corpus) -> None:
    rows = np.flatnonzero(corpus.row_platform == 0)
    predict = fit_network(corpus, rows, rows[:0], 0, Recipe(QUICK.network, steps=2, nodes=200))
    together = predict(rows[:8])
    for i in (0, 3, 7):
        assert predict(rows[i : i + 1])[0] == pytest.approx(together[i], rel=1e-4)
    np.testing.assert_allclose(predict(rows[:8][::-1]), together[::-1], rtol=1e-5)


def test_it_learns_and_repeats(corpus: Corpus) -> None:
    odd = corpus.row_graph % 2 == 1
    train, rows = np.flatnonzero(odd), np.flatnonzero(~odd)
    p = fit_network(corpus, train, rows[:40], 0, QUICK)(rows)
    y = corpus.row_ms[rows]
    constant = np.full(len(y), np.exp(np.log(corpus.row_ms[train]).mean()))
    assert mape(y, p) < mape(y, constant) / 2
    short = Recipe(QUICK.network, steps=5, nodes=200)
    np.testing.assert_array_equal(
        fit_network(corpus, train, rows, 1, short)(rows), fit_network(corpus, train, rows, 1, short)(rows)
    )


def test_codes_are_one_hot_with_one_for_the_unknown(corpus: Corpus) -> None:
    codes = operator_codes(corpus, np.arange(6))
    assert codes.shape[0] == len(corpus.sentences)
    np.testing.assert_array_equal(codes.sum(1), 1)
    assert len(np.unique(codes[corpus.sentence], axis=0)) == 3  # Linear, Relu, Add
    assert codes[np.setdiff1d(np.arange(len(codes)), corpus.sentence), -1].all()


def test_no_rows_and_wrong_heads_are_told(corpus: Corpus) -> None:
    none = np.zeros(0, np.int64)
    with pytest.raises(DataError, match="no rows"):
        fit("NN-Former", corpus, none, none)
    with pytest.raises(ValueError, match="multiple of 4"):
        NNFormer(NNFormerConfig(codes=1, heads=6))

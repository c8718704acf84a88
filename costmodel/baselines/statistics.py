"""Whole networks as a few numbers: what a model without a graph can know of a row of the corpus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.aggregates import network_features
from costmodel.features import COLUMNS, platform_channel, platform_rates, rescale
from costmodel.platforms import resolve
from costmodel.training.corpus import Corpus

MOST_SENTENCES = 48
"""Operator sentences, the commonest in training, that are counted one by one."""


def totals(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """(n, COLUMNS) sums over the nodes of each row's graph, at the row's batch."""
    graph = corpus.row_graph[rows]
    used, place = np.unique(graph, return_inverse=True)
    sums = np.zeros((len(used), len(COLUMNS)), np.float32)
    for i, g in enumerate(used):
        sums[i] = corpus.columns[corpus.node_start[g] : corpus.node_start[g + 1]].sum(0, dtype=np.float64)
    return rescale(sums[place], corpus.row_batch[rows] / corpus.batch[graph]).astype(np.float64)


@dataclass(frozen=True)
class Statistics:
    """Turns rows into feature vectors: totals and largest values of a network's nodes, how often it has each of the
    commonest operators, the spec sheet, and the times that FLOPs and bytes take at the spec sheet's rates.

    sentences  positions in `corpus.sentences` of the operators that are counted one by one
    """

    corpus: Corpus
    sentences: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus, train: np.ndarray) -> Statistics:
        """Counts the commonest operators of the training rows' networks."""
        seen = np.zeros(len(corpus.sentences), np.int64)
        for g in np.unique(corpus.row_graph[train]):
            np.add.at(seen, corpus.sentence[corpus.node_start[g] : corpus.node_start[g + 1]], 1)
        order = np.argsort(-seen, kind="stable")[:MOST_SENTENCES]
        return cls(corpus, order[seen[order] > 0])

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(n, features) float32."""
        c = self.corpus
        graph = c.row_graph[rows]
        used, place = np.unique(graph, return_inverse=True)
        sums, largest, counts = self._graphs(used)
        factor = c.row_batch[rows] / c.batch[graph]
        platforms = [resolve(*p) for p in c.platforms]
        rates, channel = (
            np.stack([read(p) for p in platforms])[c.row_platform[rows]] for read in (platform_rates, platform_channel)
        )
        scaled, most = (rescale(of[place], factor) for of in (sums, largest))
        return network_features(scaled, most, counts[place], c.row_batch[rows], rates, channel)

    def _graphs(self, graphs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(G, COLUMNS) sums, (G, COLUMNS) largest values, (G, sentences + 1) counts of nodes."""
        c = self.corpus
        column = np.full(len(c.sentences), len(self.sentences))
        column[self.sentences] = np.arange(len(self.sentences))
        sums, largest = np.zeros((2, len(graphs), len(COLUMNS)), np.float32)
        counts = np.zeros((len(graphs), len(self.sentences) + 1))
        for i, g in enumerate(graphs):
            span = slice(c.node_start[g], c.node_start[g + 1])
            sums[i] = c.columns[span].sum(0, dtype=np.float64)
            largest[i] = c.columns[span].max(0, initial=0)
            counts[i] = np.bincount(column[c.sentence[span]], minlength=counts.shape[1])
        return sums, largest, counts

"""What the network leaves over on platforms that training measured: boosted trees for the ln of measured over predicted
latency (Friedman 2001, "stacked" as in Wolpert 1992). NumPy only.

The trees see a network's totals, its commonest operators, the spec sheet and the network's own answer.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodel.aggregates import network_features
from costmodel.features import GraphFeatures

FILE = "correction.npz"
BLOCK = 256
"""Rows that descend the trees together: their places stay in the cache."""


@dataclass(frozen=True)
class Whole:
    """A graph as the trees see it on any platform: sums and largest (COLUMNS,), counts (s + 1,) and batch."""

    sums: np.ndarray
    largest: np.ndarray
    counts: np.ndarray
    batch: int


@dataclass(frozen=True)
class Trees:
    """Regression trees, their nodes one after the other.

    roots                (trees,) place of each tree's first node
    feature, threshold   (nodes,) a node sends a row left whose feature is at most the threshold
    left, right          (nodes,) places; a leaf's own place
    value                (nodes,) what a leaf adds
    base                 what the sum begins with
    """

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    base: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n,) predictions of rows (n, features) float32."""
        return np.concatenate([np.zeros(0), *(self._block(x[at : at + BLOCK]) for at in range(0, len(x), BLOCK))])

    def _block(self, x: np.ndarray) -> np.ndarray:
        roots, feature, sides = self._places
        cells, width = np.ascontiguousarray(x).ravel(), x.shape[1]
        row = np.repeat(np.arange(len(x)) * width, len(roots))
        at = np.tile(roots, len(x))
        while True:
            right = cells.take(row + feature.take(at)) > self.threshold.take(at)
            below = sides.take(2 * at + right)
            if np.array_equal(below, at):
                return np.asarray(self.base + self.value.take(at).reshape(len(x), -1).sum(1, dtype=np.float64))
            at = below

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Roots, features, and left and right of each node in turn, all as NumPy indexes fastest."""
        sides = np.stack([self.left, self.right], 1).ravel()
        return self.roots.astype(np.intp), self.feature.astype(np.intp), sides.astype(np.intp)


@dataclass(frozen=True)
class Correction:
    """`sentences` are the operators that are counted one by one; others count together."""

    sentences: tuple[str, ...]
    trees: Trees

    @cached_property
    def _column(self) -> dict[str, int]:
        return {sentence: i for i, sentence in enumerate(self.sentences)}

    def whole(self, features: GraphFeatures) -> Whole:
        """A graph with nodes, read once."""
        rest = len(self.sentences)
        columns = [self._column.get(sentence, rest) for sentence in features.sentences]
        counts = np.bincount(columns, minlength=rest + 1)
        return Whole(
            features.columns.sum(0, dtype=np.float64), features.columns.max(0).astype(np.float64), counts,
            features.batch,
        )  # fmt: skip

    def __call__(
        self, wholes: Sequence[Whole], rates: np.ndarray, channel: np.ndarray, log_ms: np.ndarray,
        log_roofline: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """(n,) to add to ln of latency: of n graphs on platforms of rates (n, 7) and channel (n, f), whose answers in
        ln of ms are log_ms (n,) beside the roofline's log_roofline (n,)."""
        told = network_features(
            np.stack([w.sums for w in wholes]), np.stack([w.largest for w in wholes]),
            np.stack([w.counts for w in wholes]), np.array([w.batch for w in wholes], np.float64), rates, channel,
        )  # fmt: skip
        return self.trees(with_answers(told, log_ms, log_roofline))

    def to_bytes(self) -> bytes:
        """The file's content."""
        buffer, t = io.BytesIO(), self.trees
        sentences = np.frombuffer(json.dumps(self.sentences).encode(), np.uint8)
        np.savez_compressed(
            buffer, sentences=sentences, roots=t.roots, feature=t.feature, threshold=t.threshold, left=t.left,
            right=t.right, value=t.value, base=np.float64(t.base),
        )  # fmt: skip
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Correction:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            names = ("roots", "feature", "threshold", "left", "right", "value")
            trees = Trees(**{name: arrays[name] for name in names}, base=float(arrays["base"]))
            return cls(tuple(json.loads(arrays["sentences"].tobytes())), trees)


def with_answers(told: np.ndarray, log_ms: np.ndarray, log_roofline: np.ndarray) -> np.ndarray:
    """(n, features + 2) float32: what the trees see, `aggregates.network_features` (n, features) and the answer."""
    return np.concatenate([told, (log_ms - log_roofline)[:, None], log_ms[:, None]], 1, dtype=np.float32)

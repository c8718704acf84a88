"""Which training networks a graph is like, and whether it is like any: by the nearest of their vectors.

A bundle keeps vectors of training networks, which tell operators and structure, and their sizes. A graph is of the
kind of the one that is nearest in both; it counts as out of distribution where its vector is farther from all of them
than those of 97 % of the unseen networks of the most varied source are. How often that tells new families is measured
by `ledg-cost evaluate new-families`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

FILE = "familiar.npz"
QUANTILE = 0.97
FEWEST = 50
"""Unseen networks of a source below which its quantile is chance."""


def kind_of(name: str) -> str:
    """The kind of a network, by the word that its name begins with: "nb201" of "nb201/|nor_conv_3x3~0|…"."""
    return name.split("/")[0]


def sizes(stats: np.ndarray) -> np.ndarray:
    """(n, 2) log2 of FLOPs per input and of parameters of graphs with `features.statistics` (n, 4)."""
    batch, flops, weights = 20 * stats[:, :3].T
    return np.stack([flops - np.log2(np.exp2(batch) - 1), weights], 1)


@dataclass(frozen=True)
class Familiar:
    """Vectors (m, d) of training networks in units of `scale` (d,), their sizes (m, 2) and kinds (m,), and the distance
    beyond which a graph is new."""

    references: np.ndarray
    sizes: np.ndarray
    kinds: np.ndarray
    scale: np.ndarray
    limit: float

    @classmethod
    def fit(cls, references: np.ndarray, stats: np.ndarray, kinds: np.ndarray, unseen: list[np.ndarray]) -> Familiar:
        """`references` (m, d) of training networks with their `stats` (m, 4) and `kinds` (m,); `unseen` (n, d) of
        validation ones, an array per source. Sources of few networks set the limit only where no other does."""
        scale, size = references.std(0) + 1e-6, sizes(stats).astype(np.float32)
        found = cls((references / scale).astype(np.float16), size, kinds, scale.astype(np.float32), np.inf)
        many = [vectors for vectors in unseen if len(vectors) >= FEWEST] or [v for v in unseen if len(v)]
        limits = [float(np.quantile(found.distance(vectors), QUANTILE)) for vectors in many]
        return replace(found, limit=max(limits, default=np.inf))

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """(n,) root mean square distance of graph vectors (n, d) from the nearest reference."""
        return np.asarray(np.sqrt(self._squared(vectors).min(1)))

    def likeness(self, vectors: np.ndarray, stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of graphs of vectors (n, d) and statistics (n, 4): (n,) the kind of the reference that is nearest in both,
        and (n,) whether it is out of distribution."""
        squared, (_, _, sized, spread) = self._squared(vectors), self._wide
        apart = squared.copy()
        for own, theirs in zip((sizes(stats) / spread).astype(np.float32).T, sized.T, strict=True):
            apart += np.square(own[:, None] - theirs) / 2
        return self.kinds[apart.argmin(1)], np.sqrt(squared.min(1)) > self.limit

    def _squared(self, vectors: np.ndarray) -> np.ndarray:
        """(n, m) mean squares of the differences of vectors (n, d) from the references."""
        (r, own, _, _), x = self._wide, (vectors / self.scale).astype(np.float32)
        return np.asarray(np.maximum((x**2).sum(1)[:, None] - 2 * x @ r.T + own, 0) / x.shape[1])

    @cached_property
    def _wide(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The references in single precision, the square of each one's length, their sizes in units of the spread, and
        that spread (2,)."""
        r, spread = self.references.astype(np.float32), self.sizes.std(0) + 1e-6
        return r, (r**2).sum(1), self.sizes / spread, spread

    def to_bytes(self) -> bytes:
        """The file's content."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, references=self.references, sizes=self.sizes, kinds=self.kinds, scale=self.scale,
            limit=np.float64(self.limit),
        )  # fmt: skip
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Familiar:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            return cls(arrays["references"], arrays["sizes"], arrays["kinds"], arrays["scale"], float(arrays["limit"]))

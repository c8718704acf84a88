"""Which training networks a graph is like, and whether it is like any: by the nearest of their vectors.

A bundle keeps vectors of training networks, which tell operators and structure, and their sizes. A graph is of the
kind of the one that is nearest in both; it counts as out of distribution where its vector is farther from all of them
than those of 97 % of the unseen networks of the most varied source are. How often that tells new families is measured
by `ledg-cost evaluate new-families`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields, replace
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

    def kind(self, vectors: np.ndarray, stats: np.ndarray) -> np.ndarray:
        """(n,) the kind of the reference that is nearest to graphs of vectors (n, d) and statistics (n, 4)."""
        apart = (sizes(stats)[:, None] - self.sizes) / (self.sizes.std(0) + 1e-6)
        return np.asarray(self.kinds[(self._squared(vectors) + np.square(apart).mean(2)).argmin(1)])

    def _squared(self, vectors: np.ndarray) -> np.ndarray:
        """(n, m) mean squares of the differences of vectors (n, d) from the references."""
        (r, own), x = self._wide, vectors / self.scale
        return np.asarray(np.maximum((x**2).sum(1)[:, None] - 2 * x @ r.T + own, 0) / x.shape[1])

    @cached_property
    def _wide(self) -> tuple[np.ndarray, np.ndarray]:
        """The references in single precision, and the square of each one's length."""
        r = self.references.astype(np.float32)
        return r, (r**2).sum(1)

    def is_new(self, vectors: np.ndarray) -> np.ndarray:
        """(n,) whether graphs of these vectors (n, d) are out of distribution."""
        return np.asarray(self.distance(vectors) > self.limit)

    def to_bytes(self) -> bytes:
        """The file's content."""
        buffer = io.BytesIO()
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Familiar:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            read = {f.name: arrays[f.name] for f in fields(cls)}
        return cls(**{**read, "limit": float(read["limit"])})

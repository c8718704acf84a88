"""Whether a graph is like those of training: how far its vector lies from the nearest of them.

A bundle keeps vectors of training networks. A graph counts as out of distribution where it is farther from all of them
than 97 % of the unseen networks of the most varied source are. How often that tells new families is measured by
`ledg-cost evaluate new-families`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np

FILE = "familiar.npz"
QUANTILE = 0.97
FEWEST = 50
"""Unseen networks of a source below which its quantile is chance."""


@dataclass(frozen=True)
class Familiar:
    """Vectors (m, d) of training networks in units of `scale` (d,), and the distance beyond which a graph is new."""

    references: np.ndarray
    scale: np.ndarray
    limit: float

    @classmethod
    def fit(cls, references: np.ndarray, unseen: list[np.ndarray]) -> Familiar:
        """`references` (m, d) of training networks; `unseen` (n, d) of validation ones, an array per source. Sources
        of few networks set the limit only where no other does."""
        scale = references.std(0) + 1e-6
        found = cls((references / scale).astype(np.float16), scale.astype(np.float32), np.inf)
        many = [vectors for vectors in unseen if len(vectors) >= FEWEST] or [v for v in unseen if len(v)]
        limits = [float(np.quantile(found.distance(vectors), QUANTILE)) for vectors in many]
        return cls(found.references, found.scale, max(limits, default=np.inf))

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """(n,) root mean square distance of graph vectors (n, d) from the nearest reference."""
        (r, own), x = self._wide, vectors / self.scale
        squared = (x**2).sum(1)[:, None] - 2 * x @ r.T + own
        return np.asarray(np.sqrt(np.maximum(squared.min(1), 0) / x.shape[1]))

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
        np.savez_compressed(buffer, references=self.references, scale=self.scale, limit=np.float64(self.limit))
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Familiar:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            return cls(arrays["references"], arrays["scale"], float(arrays["limit"]))

"""Which training networks a graph is like, and whether it is like any: by the nearest of their vectors and sizes.

A bundle keeps both of training networks: vectors tell operators and structure. A graph is of the kind of the nearest;
it counts as out of distribution where it is farther from all of them than 97 % of the unseen networks of the most
varied source are. How often that tells new families is measured by `ledg-cost evaluate new-families`.
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


Described = tuple[np.ndarray, np.ndarray]
"""Vectors (n, d) of graphs and their `features.statistics` (n, 4)."""


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
    def fit(cls, references: Described, kinds: np.ndarray, unseen: list[Described]) -> Familiar:
        """From training networks and their `kinds` (m,), and validation networks of each source. Sources of few
        networks set the limit only where no other does."""
        vectors, stats = references
        scale = vectors.std(0) + 1e-6
        found = cls(
            (vectors / scale).astype(np.float16), sizes(stats).astype(np.float32), kinds, scale.astype(np.float32),
            np.inf,
        )  # fmt: skip
        many = [own for own in unseen if len(own[0]) >= FEWEST] or [own for own in unseen if len(own[0])]
        limits = [float(np.quantile(found.nearest(*own)[0], QUANTILE)) for own in many]
        return replace(found, limit=max(limits, default=np.inf))

    def nearest(self, vectors: np.ndarray, stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) how far graphs of vectors (n, d) and `features.statistics` (n, 4) are from the nearest reference, and
        (n,) its kind. Both parts are root mean squares in units of the references' spread, and add up in squares."""
        (r, own, size, spread), x = self._wide, (vectors / self.scale).astype(np.float32)
        squared = np.maximum((x**2).sum(1)[:, None] - 2 * x @ r.T + own, 0) / x.shape[1]
        for theirs, of_reference in zip((sizes(stats) / spread).astype(np.float32).T, size.T, strict=True):
            squared += np.square(theirs[:, None] - of_reference) / len(spread)
        return np.sqrt(squared.min(1)), self.kinds[squared.argmin(1)]

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

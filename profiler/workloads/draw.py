"""Seeded random choices that stay the same in every Python version."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Random choices that depend on `key` alone: all are made from `random.Random.random`, the one generator whose
    sequence Python promises to keep."""

    def __init__(self, key: str) -> None:
        self._unit = random.Random(key).random

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._unit()

    def log_uniform(self, low: float, high: float) -> float:
        """A number in [low, high), uniform in its logarithm."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + int((high - low + 1) * self._unit())

    def multiple(self, low: int, high: int, step: int) -> int:
        """A multiple of `step` in [low, high], both ends included if they are multiples."""
        return step * self.integer(-(-low // step), high // step)

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self._unit() < probability

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the options, equally often or in proportion to their weights."""
        if weights is None:
            return options[int(len(options) * self._unit())]
        left = self._unit() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]


class Widths:
    """Channel counts of one network: a reference width, times a factor of the network, times one of the layer.

    The product stays within 0.2 to 1.8 of the reference, the range of nn-Meter's data set (Zhang et al. 2021, MobiSys).
    All counts of a network are multiples of one granule, as designers choose them; some networks have granule 1, which
    vectorised kernels dislike.
    """

    def __init__(self, draw: Draw, low: float = 0.35, high: float = 1.4) -> None:
        self._draw = draw
        self._network = draw.log_uniform(low, high)
        self._granule = draw.pick((1, 4, 8, 16), (0.15, 0.15, 0.5, 0.2))

    def __call__(self, reference: float) -> int:
        """The width of one layer."""
        factor = min(max(self._network * self._draw.uniform(0.6, 1.4), 0.2), 1.8)
        return self._granule * max(1, round(reference * factor / self._granule))

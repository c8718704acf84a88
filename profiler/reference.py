"""Two small kernels that tell whether the machine, not the network, became slower.

One stays in the first-level cache (clock, time stolen by others), one streams through memory (bandwidth taken by
others). They run beside every measurement; their best times of a whole campaign are the yardstick.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

_SMALL, _LARGE = 4096, 2 << 20  # float32 elements: 16 KiB and 8 MiB


class Reference:
    """Times of the two kernels, collected with `sample`."""

    def __init__(self) -> None:
        self._small = np.linspace(0.1, 1.0, _SMALL, dtype=np.float32)
        self._small_out = np.empty_like(self._small)
        self._large = np.ones(_LARGE, np.float32)
        self._large_out = np.empty_like(self._large)
        self._compute_ms: list[float] = []
        self._memory_ms: list[float] = []
        self._run()

    def sample(self) -> None:
        """Runs both kernels three times, a few milliseconds."""
        compute, memory = zip(*(self._run() for _ in range(3)), strict=True)
        self._compute_ms.append(sorted(compute)[1])
        self._memory_ms.append(sorted(memory)[1])

    def _run(self) -> tuple[float, float]:
        start = time.perf_counter()
        for _ in range(64):
            np.sqrt(self._small, out=self._small_out)
        middle = time.perf_counter()
        np.copyto(self._large_out, self._large)
        return (middle - start) * 1e3, (time.perf_counter() - middle) * 1e3

    @property
    def medians_ms(self) -> tuple[float, ...]:
        """Median milliseconds of the compute and the memory kernel; () before the first sample."""
        if not self._compute_ms:
            return ()
        return float(np.median(self._compute_ms)), float(np.median(self._memory_ms))


def slowdown(medians_ms: Sequence[float], best_ms: Sequence[float]) -> float:
    """How much slower than at their best, less one; never below 0.

    The memory kernel counts a quarter: networks reuse what they load, so they feel lost bandwidth that much less.
    """
    if not medians_ms or not best_ms:
        return 0.0
    compute, memory = (now / best - 1 for now, best in zip(medians_ms, best_ms, strict=True))
    return max(compute, memory / 4, 0.0)

"""Measurements that can be trusted: noisy ones are repeated in a fresh process, hopeless ones refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import TracebackType

from costmodel.errors import UnstableMeasurementError
from profiler.isolation import Worker
from profiler.reference import slowdown
from profiler.request import Measurement, Request

ATTEMPTS = 3
SLOWER = "slower-than-before"
FASTER = "faster-since"
QUIET = 0.03
NOISY = 0.05
AGREE = 0.03
REFUSED = 0.25


class Campaign:
    """Measures one request after another and remembers the best times of the reference kernels.

    A measurement's `spread` is the worst of its interval's half-width, its drift and the reference's slowdown. Over
    3 % it is repeated in a fresh process, up to three attempts. What disturbs a measurement adds time and never takes
    any, so the fastest attempt counts whose median is known to 5 %. It is flagged "noisy" unless its spread is within
    3 %, or within 5 % and another attempt agrees to 3 %. It is refused if no median is known to 25 %. What disturbs
    for minutes slows attempts alike: agreement alone proves nothing, and so a measurement over 3 % slower than the same
    was `before` is repeated and flagged too. Use it as a context manager.
    """

    def __init__(self, attempts: int = ATTEMPTS) -> None:
        self.attempts = attempts
        self._worker = Worker()
        self._best_ms: tuple[float, ...] = ()

    def __enter__(self) -> Campaign:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()

    def measure(self, request: Request, before: Sequence[float] = ()) -> Measurement:
        """The best of up to three measurements; `before` are milliseconds of earlier ones of this request.

        Raises UnstableMeasurementError if every one's median is uncertain by more than 25 %; else as `Worker.run`.
        """
        tried: list[Measurement] = []
        while len(tried) < self.attempts:
            tried.append(self._judged(self._worker.run(request)))
            best = best_of(tried)
            slower = any(best.latency_ms > ms * (1 + AGREE) for ms in before)
            if is_steady(best, tried) and not slower:
                return best
        if best.half_width > REFUSED:
            raise UnstableMeasurementError(
                f"{request.label}: the median of {len(tried)} measurements is uncertain by {best.half_width:.0%} at"
                " best; close other programs, or use --cpus N --priority realtime"
            )
        return dataclasses.replace(best, flags=(*best.flags, "noisy", *((SLOWER,) if slower else ())))

    def _judged(self, found: Measurement) -> Measurement:
        """With its slowdown against the best reference times so far, which it may improve."""
        if self._best_ms:
            self._best_ms = tuple(map(min, self._best_ms, found.reference_ms))
        else:
            self._best_ms = found.reference_ms
        return dataclasses.replace(found, slowdown=slowdown(found.reference_ms, self._best_ms))


def best_of(tried: Sequence[Measurement]) -> Measurement:
    """The fastest whose median is known to 5 %, or else the one whose median is known best."""
    certain = [m for m in tried if m.half_width <= NOISY]
    return min(certain, key=lambda m: m.latency_ms) if certain else min(tried, key=lambda m: m.half_width)


def is_steady(best: Measurement, tried: Sequence[Measurement]) -> bool:
    """Whether the best measurement is quiet by itself, or nearly so and confirmed by another."""
    confirmed = any(m is not best and abs(m.latency_ms / best.latency_ms - 1) <= AGREE for m in tried)
    return best.spread <= (NOISY if confirmed else QUIET)


def measure(request: Request) -> Measurement:
    """One request in a process of its own; for many, a `Campaign` is faster. Raises as `Campaign.measure`."""
    with Campaign() as campaign:
        return campaign.measure(request)

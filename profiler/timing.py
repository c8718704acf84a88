"""How long to repeat, and what the repeats say.

A network runs untimed at least twice and for 3 % of the budget, then timed until all three hold: ten clean runs,
a tenth of a second, and a 95 % confidence interval of the median whose half-width is at most 1 % of it. The interval
is that of order statistics: of n ascending times, those at n/2 ± 0.98 √n (the normal approximation of the binomial).
Runs also end when the budget is spent and five are done, three if a run takes as long as the budget.

A run is clean unless the scheduler took a processor from the process during it or the run before (the kernel counts
involuntary context switches). If at least a third of the runs and five are clean, only they count. Else, on one
thread, a run counts with its wall time less what it spent without a processor, and the sample is flagged "preempted".
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from profiler.request import quantile

try:
    from resource import RUSAGE_SELF, getrusage
except ImportError:  # Windows does not count

    def switches() -> int:
        """0: nobody counts involuntary context switches here."""
        return 0

else:

    def switches() -> int:
        """Involuntary context switches of this process so far."""
        return getrusage(RUSAGE_SELF).ru_nivcsw


ENOUGH_HALF_WIDTH = 0.01
LEAST_RUNS = 10
LEAST_SECONDS = 0.1
MOST_RUNS = 20_000
REFERENCE_EVERY_S = 0.25


def half_width(times: Sequence[float]) -> float:
    """Half the 95 % confidence interval of the median over the median; infinite without times."""
    if not times:
        return math.inf
    ordered = sorted(times)
    n = len(ordered)
    reach = 0.98 * math.sqrt(n)
    low, high = max(0, math.floor(n / 2 - reach)), min(n - 1, math.ceil(n / 2 + reach) - 1)
    return (ordered[high] - ordered[low]) / 2 / quantile(ordered, 0.5)


def drift(times: Sequence[float]) -> float:
    """Median of the later half over that of the earlier half, less one."""
    middle = len(times) // 2
    return statistics.median(times[middle:]) / statistics.median(times[:middle] or times) - 1


@dataclass
class Runs:
    """Milliseconds of all timed runs in order: on the wall, on a processor, and which were clean."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    clean: list[bool] = field(default_factory=list)

    def clean_ms(self) -> list[float]:
        """Wall times of the clean runs."""
        return [wall for wall, clean in zip(self.wall_ms, self.clean, strict=True) if clean]

    def result(self, threads: int) -> tuple[list[float], bool]:
        """The times that count, in order, and whether preemption had to be subtracted."""
        clean = self.clean_ms()
        if len(clean) >= max(5, len(self.clean) / 3) or len(clean) == len(self.clean):
            return clean, False
        if threads == 1:
            return [min(w, c) for w, c in zip(self.wall_ms, self.cpu_ms, strict=True)], True
        return self.wall_ms, True


def warm_up(run: Callable[[], None], seconds: float) -> None:
    """Runs untimed, at least twice and for 3 % of the budget."""
    begin = time.perf_counter()
    runs = 0
    while runs < 2 or time.perf_counter() - begin < seconds * 0.03:
        run()
        runs += 1


def time_runs(run: Callable[[], None], seconds: float, between: Callable[[], None] | None = None) -> Runs:
    """Times runs by the rule above; `between` is called now and then, outside the timing, followed by a free run."""
    runs = Runs()
    wall, cpu = time.perf_counter_ns, time.process_time_ns
    spent, next_between, check = 0.0, REFERENCE_EVERY_S, LEAST_RUNS
    before_was_clean = True
    while True:
        switched, cpu_start, start = switches(), cpu(), wall()
        run()
        took, cpu_took, untouched = (wall() - start) / 1e6, (cpu() - cpu_start) / 1e6, switches() == switched
        runs.wall_ms.append(took)
        runs.cpu_ms.append(cpu_took)
        runs.clean.append(untouched and before_was_clean)
        before_was_clean = untouched
        spent += took / 1e3
        n = len(runs.clean)
        if n >= check:
            clean = runs.clean_ms()
            if len(clean) >= LEAST_RUNS and spent >= LEAST_SECONDS and half_width(clean) <= ENOUGH_HALF_WIDTH:
                return runs
            check = n + max(1, n // 8)
        if n >= MOST_RUNS or (spent >= seconds and (n >= 5 or (n >= 3 and took / 1e3 >= seconds))):
            return runs
        if between is not None and spent >= next_between:
            between()
            run()
            next_between = spent + REFERENCE_EVERY_S

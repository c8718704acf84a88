"""One measurement of one network on one platform."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from costmodel.errors import SampleSchemaError

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def now() -> str:
    """This moment as `Sample.measured_at` has it: ISO 8601 in UTC to the microsecond."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Sample:
    """Latency of one forward pass of the whole batch, with all that was recorded beside it.

    fingerprint          `Graph.fingerprint` of what was measured
    device               name of the spec sheet or of the machine
    precision, runtime   the runtime carries its version where known: "onnxruntime-1.32.0"
    latency_ms           median over the repeats
    p90_ms, p99_ms       quantiles over the repeats; None where not measured
    cv                   coefficient of variation (standard deviation over mean), 0.01 is one per cent
    repeats              timed runs
    peak_memory_bytes    of the process or the device
    energy_mj            millijoules of one forward pass
    name                 where the graph comes from: "gen/resnet/17", "timm/resnet50@224", a file's stem
    operators            (node name, milliseconds) in the order they ran; () where not measured
    environment          whatever JSON can hold: driver, clocks, governor, load, …
    source               "profile", or "import:…" with where it came from
    measured_at          ISO 8601 UTC; "" where nobody knows
    flags                remarks on quality, such as "noisy"

    Raises SampleSchemaError for values that no measurement has.
    """

    fingerprint: str
    device: str
    precision: str
    runtime: str
    batch: int
    latency_ms: float
    p90_ms: float | None = None
    p99_ms: float | None = None
    cv: float | None = None
    repeats: int | None = None
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    name: str = ""
    operators: tuple[tuple[str, float], ...] = field(default=(), repr=False)
    environment: dict[str, Any] = field(default_factory=dict, repr=False)
    source: str = "profile"
    measured_at: str = field(default_factory=now)
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [what for what, bad in self._checks() if bad]
        if wrong:
            raise SampleSchemaError(f"sample {self.name or self.fingerprint[:12]!r}: {'; '.join(wrong)}; correct it")

    def _checks(self) -> tuple[tuple[str, bool], ...]:
        times = [self.latency_ms, *(t for t in (self.p90_ms, self.p99_ms) if t is not None)]
        others = [v for v in (self.cv, self.repeats, self.peak_memory_bytes, self.energy_mj) if v is not None]
        labels = (self.device, self.precision, self.runtime)
        return (
            ("the fingerprint is not 64 hex digits", not _FINGERPRINT.fullmatch(self.fingerprint)),
            ("device, precision and runtime need a name without '|'", not all(x and "|" not in x for x in labels)),
            (f"batch {self.batch!r} is not a whole number from 1", not _whole(self.batch) or self.batch < 1),
            ("a time is not a positive number of milliseconds", not all(_finite(t) and t > 0 for t in times)),
            ("a statistic is negative or not a number", not all(_finite(v) and v >= 0 for v in others)),
            ("an operator time is negative or not a number", not all(_finite(t) and t >= 0 for _, t in self.operators)),
            (f"'{self.measured_at}' is not an ISO 8601 time in UTC", not _utc(self.measured_at)),
        )

    @property
    def platform_key(self) -> str:
        """ "device|precision|runtime"."""
        return f"{self.device}|{self.precision}|{self.runtime}"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _utc(text: str) -> bool:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
    except (ValueError, AttributeError):
        return False
    return moment is None or (moment.tzinfo is not None and not moment.utcoffset())

"""What to measure and what came out."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from costmodel.samples import Sample, now


@dataclass(frozen=True)
class Request:
    """One network under one setting.

    model       path of a model file, or the bytes of an ONNX model; weights that are not there are made up
    name        how messages call it; default: the file's name
    backend     a name of `profiler.backends.BACKENDS`
    precision   "fp32", "fp16", "bf16" or "int8"
    batch       binds the leading axis of the inputs; None keeps the model's own
    threads     threads inside operators
    shapes      input name → whole shape, or symbol → size
    cpus        processors to stay on; () leaves it to the system
    seed        of weights, inputs and quantisation ranges
    seconds     budget of the timed runs; a slow network may exceed it to reach the least number of runs
    timeout_s   the measuring process is ended after this time
    priority    "normal", or "realtime" or "exclusive" while the runs are timed; see `profiler.priority`
    operators   also measure each operator
    tracker, key   "HOST:PORT" of a TVM RPC tracker and the key of a device there
    """

    model: str | bytes
    backend: str = "onnxruntime"
    precision: str = "fp32"
    batch: int | None = None
    threads: int = 1
    shapes: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    seed: int = 0
    seconds: float = 1.0
    timeout_s: float = 300.0
    priority: str = "normal"
    operators: bool = False
    tracker: str = ""
    key: str = ""
    name: str = ""

    @property
    def label(self) -> str:
        """How messages name the model."""
        return self.name or (Path(self.model).name if isinstance(self.model, str) else "the model")

    def to_json(self) -> dict[str, Any]:
        """All fields but a model given as bytes, which travels beside the JSON."""
        record = dataclasses.asdict(self)
        if isinstance(self.model, bytes):
            del record["model"]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any], model: bytes | None = None) -> Request:
        """The request that `to_json` wrote, with its model's bytes where they travelled apart."""
        values = dict(record)
        values["cpus"] = tuple(values["cpus"])
        values["shapes"] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["shapes"].items()}
        if model is not None:
            values["model"] = model
        return cls(**values)


@dataclass(frozen=True)
class Measurement:
    """Timed runs of one network in one process. Times are milliseconds of a forward pass of the whole batch.

    half_width          half the 95 % confidence interval of the median, over the median
    drift               medians of the later and the earlier half of the runs, their ratio less one
    slowdown            how much slower the reference kernels ran beside it than at their best, less one; 0 if unknown
    peak_memory_bytes   growth of the process from before the model was loaded to its peak during the runs
    energy_mj           of one forward pass; None where nothing measures it
    operators           (node name, ms) in the order they ran
    runtime             with its version: "onnxruntime-1.32.0"
    """

    latency_ms: float
    p90_ms: float
    p99_ms: float
    cv: float
    half_width: float
    drift: float
    repeats: int
    runtime: str
    precision: str
    batch: int
    threads: int
    slowdown: float = 0.0
    load_s: float = 0.0
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    operators: tuple[tuple[str, float], ...] = ()
    flags: tuple[str, ...] = ()
    reference_ms: tuple[float, ...] = ()
    measured_at: str = field(default_factory=now)

    @property
    def spread(self) -> float:
        """The worst sign of noise: the interval's half-width, the drift or the reference's slowdown."""
        return max(self.half_width, abs(self.drift), self.slowdown)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Measurement:
        """The measurement that `to_json` wrote."""
        values = dict(record)
        values["operators"] = tuple((name, ms) for name, ms in values["operators"])
        values["flags"] = tuple(values["flags"])
        values["reference_ms"] = tuple(values["reference_ms"])
        return cls(**values)

    def to_sample(
        self, fingerprint: str, name: str, device: str, environment: Mapping[str, Any] | None = None
    ) -> Sample:
        """The sample for the store; raises SampleSchemaError if a value is impossible."""
        return Sample(
            fingerprint=fingerprint,
            device=device,
            precision=self.precision,
            runtime=self.runtime,
            batch=self.batch,
            latency_ms=self.latency_ms,
            p90_ms=self.p90_ms,
            p99_ms=self.p99_ms,
            cv=self.cv,
            repeats=self.repeats,
            peak_memory_bytes=self.peak_memory_bytes,
            energy_mj=self.energy_mj,
            name=name,
            operators=self.operators,
            environment={**(environment or {}), "threads": self.threads},
            measured_at=self.measured_at,
            flags=self.flags,
        )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of an ascending sequence lies, linearly between neighbours."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def variation(values: Sequence[float]) -> float:
    """Standard deviation over mean."""
    return statistics.pstdev(values) / statistics.fmean(values)

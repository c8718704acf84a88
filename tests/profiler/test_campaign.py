"""Which measurements are repeated, flagged, refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from costmodel.errors import UnstableMeasurementError
from profiler.campaign import Campaign
from profiler.reference import Reference, slowdown
from profiler.request import Measurement, Request

REQUEST = Request(b"", name="net")


def measurement(ms: float = 1.0, half_width: float = 0.01, drift: float = 0.0, reference: float = 1.0) -> Measurement:
    return Measurement(
        latency_ms=ms, p90_ms=ms, p99_ms=ms, cv=0.01, half_width=half_width, drift=drift, repeats=10,
        runtime="onnxruntime-1.0", precision="fp32", batch=1, threads=1, reference_ms=(reference, reference),
    )  # fmt: skip


class FakeWorker:
    def __init__(self, results: Sequence[Measurement]) -> None:
        self.results = list(results)
        self.runs = 0

    def run(self, request: Request) -> Measurement:
        self.runs += 1
        return self.results.pop(0)

    def close(self) -> None: ...


def campaign(*results: Measurement) -> tuple[Campaign, FakeWorker]:
    made = Campaign()
    worker = FakeWorker(results)
    made._worker = worker  # type: ignore[assignment]
    return made, worker


def test_a_quiet_measurement_is_made_once() -> None:
    made, worker = campaign(measurement())
    assert made.measure(REQUEST).flags == ()
    assert worker.runs == 1


def test_a_noisy_one_is_repeated_until_it_is_quiet() -> None:
    made, worker = campaign(measurement(2.0, drift=0.2), measurement(1.0))
    assert made.measure(REQUEST).latency_ms == 1.0
    assert worker.runs == 2


def test_noisy_ones_that_agree_confirm_each_other() -> None:
    made, worker = campaign(measurement(1.01, drift=0.2), measurement(1.0, drift=0.04))
    found = made.measure(REQUEST)
    assert (found.latency_ms, found.flags, worker.runs) == (1.0, (), 2)


def test_agreement_alone_proves_nothing() -> None:
    made, _ = campaign(*[measurement(1.0, drift=0.06)] * 3)
    assert made.measure(REQUEST).flags == ("noisy",)


def test_what_stays_noisy_is_flagged_and_the_fastest_certain_one_counts() -> None:
    made, _ = campaign(
        measurement(1.5, drift=0.2), measurement(1.0, half_width=0.2), measurement(1.2, drift=-0.1)
    )  # fmt: skip
    found = made.measure(REQUEST)
    assert found.latency_ms == 1.2
    assert found.flags == ("noisy",)


def test_what_ran_faster_before_is_repeated() -> None:
    made, worker = campaign(measurement(1.1), measurement(1.02))
    found = made.measure(REQUEST, before=[1.0, 1.2])
    assert (found.latency_ms, found.flags, worker.runs) == (1.02, (), 2)


def test_what_ran_faster_before_and_stays_slow_is_flagged() -> None:
    made, _ = campaign(*[measurement(1.1)] * 3)
    assert made.measure(REQUEST, before=[1.0]).flags == ("noisy", "slower-than-before")


def test_hopeless_ones_are_refused() -> None:
    made, _ = campaign(*[measurement(half_width=0.3)] * 3)
    with pytest.raises(UnstableMeasurementError, match=r"net.*uncertain by 30%.*--cpus"):
        made.measure(REQUEST)


def test_a_slow_machine_shows_in_the_reference() -> None:
    made, worker = campaign(measurement(1.0), *[measurement(1.3, reference=1.3), measurement(1.1)])
    made.measure(REQUEST)
    assert made.measure(REQUEST).latency_ms == 1.1
    assert worker.runs == 3


def test_slowdown_weighs_memory_less() -> None:
    assert slowdown((1.1, 1.0), (1.0, 1.0)) == pytest.approx(0.1)
    assert slowdown((1.0, 1.4), (1.0, 1.0)) == pytest.approx(0.1)
    assert slowdown((0.9, 0.9), (1.0, 1.0)) == 0
    assert slowdown((), ()) == 0


def test_the_reference_kernels_take_time() -> None:
    reference = Reference()
    assert reference.medians_ms == ()
    reference.sample()
    assert all(0 < ms < 1000 for ms in reference.medians_ms)


def test_measurements_survive_their_journey() -> None:
    found = measurement()
    assert Measurement.from_json(found.to_json()) == found
    request = Request("m.onnx", shapes={"x": (1, 2), "N": 3}, cpus=(1, 2))
    assert Request.from_json(request.to_json()) == request


def test_a_measurement_becomes_a_sample() -> None:
    sample = measurement(2.5).to_sample("0" * 64, "gen/resnet/1", "mine", {"load": [0.1]})
    assert (sample.latency_ms, sample.platform_key) == (2.5, "mine|fp32|onnxruntime-1.0")
    assert sample.environment == {"load": [0.1], "threads": 1}

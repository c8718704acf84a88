"""Devices, precisions and batches side by side for one network, and the cheapest that is fast enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from costmodel.errors import PlatformError, UnsupportedPrecisionError
from costmodel.estimates import CostModel, Estimate
from costmodel.ir import Graph
from costmodel.platforms import (
    Device,
    Platform,
    Precision,
    default_runtime,
    load_device,
    parse_runtime,
    resolve,
    supported_precisions,
)

VERDICTS = ("yes", "likely", "uncertain", "no")


@dataclass(frozen=True)
class Choice:
    """One device at one precision, runtime and batch.

    estimate  None where the device cannot run it; `reason` then says why
    price     of the device per hour, in whatever currency it was given
    """

    device: Device
    precision: str
    runtime: str
    batch: int
    estimate: Estimate | None
    reason: str = ""
    price: float | None = None

    @property
    def images_per_second(self) -> float | None:
        """Batch over latency; None where nothing runs."""
        if self.estimate is None or self.estimate.latency_ms == 0:
            return None
        return 1e3 * self.batch / self.estimate.latency_ms

    @property
    def images_per_second_per_watt(self) -> float | None:
        """Throughput per watt of the spec sheet's board power, not of power measured under this load."""
        rate = self.images_per_second
        return rate / self.device.tdp_w if rate is not None and self.device.tdp_w else None

    @property
    def price_per_million(self) -> float | None:
        """What a million images cost on a device kept busy."""
        rate = self.images_per_second
        return None if rate is None or self.price is None else self.price / 3600 / rate * 1e6

    @property
    def fits(self) -> bool | None:
        """Whether parameters and live activations fit the device's memory; None if its size is not known."""
        if self.estimate is None or not self.device.memory_gb:
            return None
        return self.estimate.peak_memory_bytes <= self.device.memory_gb * 1e9

    def meets(self, budget_ms: float) -> str:
        """`yes` where the whole interval stays within the budget, `likely` where the latency does, `uncertain` where
        only the lower end does, else `no`; also `no` where it cannot run or does not fit."""
        if self.estimate is None or self.fits is False:
            return "no"
        low, high = self.estimate.interval_ms
        return VERDICTS[sum(end > budget_ms for end in (low, self.estimate.latency_ms, high))]


def compare(
    graphs: Mapping[int, Graph],
    targets: Sequence[str],
    precisions: Sequence[str],
    cost_model: CostModel,
    runtime: str | None = None,
    prices: Mapping[str, float] | None = None,
) -> list[Choice]:
    """Every target, precision and batch, in that order.

    graphs  batch → the network lowered at it
    prices  device name or alias → price per hour

    Raises UnknownDeviceError or MissingSpecError for a device, PlatformError for a runtime that nobody knows,
    UnsupportedPrecisionError for a precision that nobody knows or where no device supports any that was asked for.
    """
    wanted = [Precision.parse(p).value for p in precisions]
    devices = [load_device(t) for t in targets]
    if runtime is not None:
        parse_runtime(runtime)
    hourly = {load_device(name).name: price for name, price in (prices or {}).items()}
    platforms: dict[tuple[str, str], Platform | str] = {}
    for device in devices:
        for precision in wanted:
            try:
                platforms[device.name, precision] = resolve(device, precision, runtime)
            except PlatformError as error:
                platforms[device.name, precision] = str(error)
    runnable = [p for p in platforms.values() if isinstance(p, Platform)]
    if not runnable:
        raise UnsupportedPrecisionError("; ".join(map(str, platforms.values())))
    answers = {
        (p.device.name, p.precision.value, batch): estimate
        for batch, graph in graphs.items()
        for p, estimate in zip(runnable, cost_model.estimate_many(graph, runnable), strict=True)
    }
    found = []
    for device in devices:
        for precision in wanted:
            platform = platforms[device.name, precision]
            label = platform.runtime_label if isinstance(platform, Platform) else runtime or default_runtime(device)
            reason = "" if isinstance(platform, Platform) else _reason(device, precision, label)
            for batch in graphs:
                found.append(
                    Choice(
                        device, precision, label, batch, answers.get((device.name, precision, batch)), reason,
                        hourly.get(device.name),
                    )
                )  # fmt: skip
    return found


def _reason(device: Device, precision: str, runtime: str) -> str:
    if precision in [p.value for p in supported_precisions(device)]:
        return f"{runtime} does not run on {device.name}"
    return f"{device.name} has no {precision}"


def cheapest(choices: Sequence[Choice], budget_ms: float, verdict: str = "yes") -> Choice | None:
    """The cheapest choice whose `meets` is at least that good, or None.

    Cheapest is the lowest price per hour; without any price, the lowest board power, then the smallest memory, then the
    lowest bandwidth. Where prices are given, devices without one come last. Of one device, the choice with the highest
    throughput.
    """
    good = [c for c in choices if VERDICTS.index(c.meets(budget_ms)) <= VERDICTS.index(verdict)]
    return min(good, key=_expense, default=None)


def _expense(choice: Choice) -> tuple[float, ...]:
    unknown = float("inf")
    device = choice.device
    return (
        unknown if choice.price is None else choice.price,
        device.tdp_w or unknown,
        device.memory_gb or unknown,
        device.bandwidth_gbs,
        -(choice.images_per_second or unknown),
    )

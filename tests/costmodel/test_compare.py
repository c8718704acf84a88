"""Choices and budgets with a cost model whose answers are known; the table is tested in cli/test_compare.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from costmodel.compare import Choice, cheapest, compare
from costmodel.errors import PlatformError, UnknownDeviceError, UnsupportedPrecisionError
from costmodel.estimates import Estimate, Roofline
from costmodel.ir import Graph, GraphBuilder
from costmodel.platforms import Platform, load_device


def network(batch: int) -> Graph:
    b = GraphBuilder("net")
    x = b.input((batch, 64))
    return b.build([b.node("Relu", [x], (batch, 64))])


class Fixed:
    """Latency by batch, the interval a factor of two to both sides."""

    def __init__(self, **ms: float) -> None:
        self.ms = ms

    def estimate(self, graph: Graph, platform: Platform) -> Estimate:
        return self.estimate_many(graph, [platform])[0]

    def estimate_many(self, graph: Graph, platforms: Sequence[Platform]) -> list[Estimate]:
        found = []
        for platform, known in zip(platforms, Roofline().estimate_many(graph, platforms), strict=True):
            ms = self.ms[platform.device.name] * known.batch
            found.append(replace(known, latency_ms=ms, interval_ms=(ms / 2, ms * 2), peak_memory_bytes=10**10))
        return found


def choices(prices: dict[str, float] | None = None, precisions: Sequence[str] = ("fp32",)) -> list[Choice]:
    graphs = {batch: network(batch) for batch in (1, 4)}
    model = Fixed(t4=4.0, l4=2.0, a10=1.0, p4=3.0)
    return compare(graphs, ["t4", "l4", "a10", "p4"], precisions, model, prices=prices)


def test_order_throughput_and_price() -> None:
    found = choices({"t4": 0.36}, ("fp32", "int8"))
    keys = [(c.device.name, c.precision, c.batch) for c in found]
    assert keys == [(d, p, b) for d in ("t4", "l4", "a10", "p4") for p in ("fp32", "int8") for b in (1, 4)]
    t4 = found[1]
    assert t4.images_per_second == pytest.approx(1000 / 4)
    assert t4.images_per_second_per_watt == pytest.approx(250 / 70)
    assert t4.price_per_million == pytest.approx(0.36 / 3600 / 250 * 1e6)
    assert found[4].price_per_million is None


def test_the_interval_decides_how_sure_a_budget_is() -> None:
    t4 = choices()[0]
    assert [t4.meets(budget) for budget in (8.0, 7.9, 4.0, 3.9, 2.0, 1.9)] == [
        "yes", "likely", "likely", "uncertain", "uncertain", "no",
    ]  # fmt: skip


def test_what_does_not_fit_meets_no_budget() -> None:
    p4, a10 = choices()[6], choices()[4]
    assert (p4.device.memory_gb, p4.fits, p4.meets(100)) == (8, False, "no")
    assert (a10.fits, a10.meets(100)) == (True, "yes")


def test_without_prices_the_lowest_power_is_cheapest_at_its_highest_throughput() -> None:
    best = cheapest(choices(), 100)
    assert best is not None
    assert (best.device.name, best.batch) == ("t4", 1)  # both batches give 250 images/s, the first is kept
    assert cheapest(choices(), 2.0).device.name == "a10"  # type: ignore[union-attr]
    assert cheapest(choices(), 2.0, "likely").device.name == "l4"  # type: ignore[union-attr]
    assert cheapest(choices(), 0.1, "uncertain") is None


def test_prices_come_before_power_and_the_unpriced_last() -> None:
    assert cheapest(choices({"a10": 1.0, "l4": 2.0}), 100).device.name == "a10"  # type: ignore[union-attr]
    assert cheapest(choices({"NVIDIA L4": 2.0}), 100).device.name == "l4"  # type: ignore[union-attr]


def test_an_unsupported_precision_is_a_choice_with_a_reason() -> None:
    found = compare({1: network(1)}, ["p100", "t4"], ["int8"], Roofline())
    assert [(c.estimate is None, c.reason) for c in found] == [(True, "p100 has no int8"), (False, "")]
    assert found[0].images_per_second is None
    assert found[0].fits is None
    assert found[0].meets(1e9) == "no"


def test_a_runtime_that_one_device_lacks_is_a_reason_too() -> None:
    found = compare({1: network(1)}, ["silver4114", "t4"], ["fp32"], Roofline(), runtime="tensorrt")
    assert [c.reason for c in found] == [f"tensorrt does not run on {load_device('silver4114').name}", ""]


def test_what_nobody_knows_and_what_nothing_supports_are_errors() -> None:
    graphs = {1: network(1)}
    with pytest.raises(UnsupportedPrecisionError, match="fp16"):
        compare(graphs, ["p100"], ["int8", "bf16"], Roofline())
    with pytest.raises(UnsupportedPrecisionError, match="int7"):
        compare(graphs, ["t4"], ["int7"], Roofline())
    with pytest.raises(UnknownDeviceError, match="t4"):
        compare(graphs, ["t5"], ["fp32"], Roofline())
    with pytest.raises(UnknownDeviceError):
        compare(graphs, ["t4"], ["fp32"], Roofline(), prices={"nonesuch": 1.0})
    with pytest.raises(PlatformError, match="caffe"):
        compare(graphs, ["t4"], ["fp32"], Roofline(), runtime="caffe")


def test_no_latency_has_no_throughput() -> None:
    (choice,) = compare({1: network(1)}, ["t4"], ["fp32"], Fixed(t4=0.0))
    assert choice.images_per_second is None
    assert choice.images_per_second_per_watt is None
    assert choice.meets(1.0) == "yes"

from __future__ import annotations

import pytest

from costmodel.errors import PlatformError
from costmodel.partition import LINKS, Link, parse_link


def test_a_transfer_is_latency_and_payload() -> None:
    assert Link("l", gbs=2.0, latency_us=50.0).ms(1e6) == pytest.approx(0.05 + 0.5)


@pytest.mark.parametrize(
    ("name", "line_rate"), [("pcie3x16", 15.75), ("pcie4x16", 31.5), ("eth10g", 1.25), ("usb3", 0.5)]
)
def test_payload_is_less_than_the_line_carries(name: str, line_rate: float) -> None:
    assert 0.6 * line_rate < LINKS[name].gbs < line_rate


def test_own_links_are_bandwidth_and_latency() -> None:
    link = parse_link("12.5:20")
    assert (link.gbs, link.latency_us) == (12.5, 20.0)
    assert parse_link("nvlink3") is LINKS["nvlink3"]


@pytest.mark.parametrize("text", ["pcie9", "12", "0:5", "-1:5", "a:b", ""])
def test_unknown_links_are_told(text: str) -> None:
    with pytest.raises(PlatformError, match="use one of pcie3x16"):
        parse_link(text)

"""Links between devices and what sending a tensor over one costs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from costmodel.errors import PlatformError


@dataclass(frozen=True)
class Link:
    """One direction of a connection: `gbs` 10^9 bytes of payload per second, `latency_us` microseconds per tensor."""

    name: str
    gbs: float
    latency_us: float

    def ms(self, size: float) -> float:
        """Milliseconds to send one tensor of `size` bytes."""
        return self.latency_us / 1e3 + size / (self.gbs * 1e6)


def _lanes(transfers: float, lanes: int) -> float:
    """Payload of PCI Express in GB/s: `transfers` 10^9/s on each lane, 128b/130b coding, 256-byte packets with some 26
    bytes of headers (PCI Express Base Specification)."""
    return transfers * lanes / 8 * 128 / 130 * 256 / 282


LINKS: Mapping[str, Link] = MappingProxyType(
    {
        link.name: link
        for link in (
            Link("pcie3x16", _lanes(8, 16), 10.0),
            Link("pcie4x16", _lanes(16, 16), 10.0),
            Link("pcie5x16", _lanes(32, 16), 10.0),
            Link("nvlink3", 300.0, 8.0),  # 12 links of 25 GB/s each way, as on an A100
            Link("eth10g", 10 / 8 * 1460 / 1538, 50.0),  # TCP payload of a full Ethernet frame
            Link("eth1g", 1 / 8 * 1460 / 1538, 100.0),
            Link("usb3", 5 / 8 * 0.8 * 0.8, 100.0),  # 8b/10b coding, and about 20 % for packets and polling
        )
    }
)
"""Latencies are orders of magnitude for one copy with its driver call; measure your own for more (`GBPS:US`)."""


def parse_link(text: str) -> Link:
    """A link's name, or `GBPS:US` such as `12.5:20` (10^9 bytes per second, microseconds).

    Raises PlatformError.
    """
    if text in LINKS:
        return LINKS[text]
    match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e[+-]?\d+)?):([0-9]*\.?[0-9]+(?:e[+-]?\d+)?)", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise PlatformError(
            f"unknown link {text!r}; use one of {', '.join(LINKS)}, or GB/s and microseconds such as 12.5:20"
        )
    return Link(text.strip(), float(match[1]), float(match[2]))

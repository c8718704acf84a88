"""How the network is told of platforms, and where their estimates stand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.bundle import ENOUGH, Bundle, of_standing
from costmodel.embedding import SentenceEncoder
from costmodel.errors import PlatformError
from costmodel.features import FUSING_RUNTIMES, generic, hide_runtime, identities, platform_channel, platform_rates
from costmodel.finetune import overlay as overlays
from costmodel.kin import nearest, weights
from costmodel.platforms import Platform, parse_runtime, resolve
from costmodel.prompts import platform_sentence


@dataclass(frozen=True)
class Reading:
    """What the network is told of a platform: sentence embedding (t,), numeric channel (f,), rates (7,)."""

    text: np.ndarray
    channel: np.ndarray
    rates: np.ndarray


@dataclass(frozen=True)
class Widths:
    """Half-widths in ln of the intervals on a platform: of networks by their kind (`familiarity.kind_of`), of other
    networks, and of single operators."""

    networks: Mapping[str, float]
    other: float
    operators: float

    def of(self, kind: str, is_operator: bool) -> float:
        """The half-width of a network of a kind, or of a single operator."""
        return self.operators if is_operator else self.networks.get(kind, self.other)


@dataclass(frozen=True)
class Seen:
    """A platform as the network reads it: its own rates (7,), itself and its kin; the roofline's weight in the ln of
    its latencies; where its estimates come from, in words, and how wide their intervals are; what fine-tuning learned
    of it, and remarks.

    `exported`: whether networks are read in the exported form (`costmodel.forms`), or else in layers.

    `correctable`: None, or how the correction is told of it, and whether it speaks for networks and for operators."""

    platform: Platform
    rates: np.ndarray
    readings: tuple[Reading, ...]
    roofline_share: float
    provenance: str
    widths: Widths
    overlay: overlays.Overlay | None
    remarks: tuple[str, ...]
    exported: bool
    correctable: Correctable | None


@dataclass(frozen=True)
class Correctable:
    """A platform that training measured, as `Correction` is told of it: rates (7,) and channel (f,); and whether it was
    measured with networks and with single operators."""

    rates: np.ndarray
    channel: np.ndarray
    networks: bool
    operators: bool


class Reader:
    """Reads platforms for a bundle's network, and remembers them."""

    def __init__(self, bundle: Bundle, language: SentenceEncoder, overlaid: bool = True) -> None:
        """`overlaid`: platforms that the user has fine-tuned answer with their overlays (`costmodel.finetune`)."""
        self.bundle, self.language, self.overlaid = bundle, language, overlaid
        self.template: str = bundle.config["model"]["platform_template"]
        self._platforms: dict[str, Seen] = {}
        self._overlay_changes = overlays.changes

    def alone(self, platform: Platform) -> Reading:
        """A platform read by itself, whatever kin it has."""
        return self._read(*self._as_trained(platform))

    def seen(self, platform: Platform) -> Seen:
        """A platform as the network reads it: what tells devices apart is hidden for devices that training hardly had,
        where validation says so, and the name of runtimes that it hardly had."""
        if self._overlay_changes != overlays.changes:
            self._platforms.clear()
            self._overlay_changes = overlays.changes
        found = self._platforms.get(platform.name)
        if found is None or (found.platform is not platform and found.platform != platform):
            overlay, remark = overlays.find(platform, self.bundle) if self.overlaid else (None, "")
            told = overlay.as_measured(platform) if overlay else platform
            read_as, key = self._as_trained(told)
            kin = self._kin(read_as)
            provenance, widths, share = self._standing(platform)
            if overlay:
                provenance, width = overlay.standing
                widths = Widths({}, width, width)
            elif kin:
                devices = dict.fromkeys(other.device.name for other, _ in kin)
                provenance += f" and from {' and '.join(devices)}"
            found = Seen(
                platform, platform_rates(read_as), tuple(self._read(*k) for k in [(read_as, key), *kin]), share,
                provenance, widths, overlay, (remark,) if remark else (), self._exported(told), self._correctable(told),
            )  # fmt: skip
            self._platforms[platform.name] = found
        return found

    def _exported(self, platform: Platform) -> bool:
        """Not in layers, as under runtimes that do not fuse and were measured, at that precision, with networks in
        layers."""
        in_layers: list[str] = self.bundle.config["training"]["in_layers"]
        own = platform.precision.value, platform.runtime
        alike = any((p, parse_runtime(r)[0]) == own for _, p, r in (key.split("|") for key in in_layers))
        return platform.runtime in FUSING_RUNTIMES or not alike

    def _read(self, platform: Platform, key: str) -> Reading:
        """What the network is told of a platform whose identity is `key`."""
        text = self.language.encode([platform_sentence(platform, self.template)])
        known = identities([key], list(self.bundle.config["training"]["identities"]))
        channel = np.concatenate([platform_channel(platform)[None], known], 1)
        if self.bundle.calibration["unseen_devices"] == "generic" and self._rows(platform.device.name) < ENOUGH:
            text, channel = generic(text, channel)
        named = self.bundle.config["training"]["named_runtimes"]
        if named is not None and platform.runtime not in named:
            text, channel = hide_runtime(text, channel)
        return Reading(text[0], channel[0], platform_rates(platform))

    def _kin(self, platform: Platform) -> list[tuple[Platform, str]]:
        """The platforms that an unmeasured one is read through, and their keys; none where it is read as itself."""
        networks, operators, _ = self._measured(platform)
        if networks + operators >= ENOUGH or platform.runtime not in self.bundle.calibration["kin"]:
            return []
        trained: dict[str, str] = self.bundle.config["training"]["identities"]
        found: dict[str, Platform] = {}

        def resolved(key: str) -> Platform | None:
            try:
                found[key] = resolve(*key.split("|"))
            except PlatformError:  # the user's own sheet of that name is of another kind
                return None
            return found[key] if overlays.sheet_id(found[key]) == trained[key] else None

        return [(found[key], key) for key in nearest(platform, trained, resolved)]

    def _correctable(self, platform: Platform) -> Correctable | None:
        read_as, key = self._as_trained(platform, "corrected")
        if not key:
            return None
        enough = (self.bundle.platforms[key][what] >= ENOUGH for what in ("networks", "operators"))
        return Correctable(platform_rates(read_as), platform_channel(read_as), *enough)

    def _as_trained(self, platform: Platform, among: str = "identities") -> tuple[Platform, str]:
        """The platform, and its key among those with an identity, or "". A runtime without a version stands for the
        version that was measured most. A sheet of other numbers than training's has no identity.

        among  "identities", or "corrected" for the platforms that the correction knows
        """
        trained: dict[str, str] = self.bundle.config["training"][among]
        label = platform.runtime_label
        if not platform.runtime_version:
            versions = {
                r: tuple(self.bundle.platforms[key].values()) for key in trained
                for d, p, r in [key.split("|")]
                if (d, p, parse_runtime(r)[0]) == (platform.device.name, platform.precision.value, platform.runtime)
            }  # fmt: skip
            label = max(versions, key=lambda r: versions[r], default=label)
        read_as = replace(platform, runtime_version=parse_runtime(label)[1])
        key = f"{platform.device.name}|{platform.precision.value}|{label}"
        return (read_as, key) if trained.get(key) == overlays.sheet_id(read_as) else (platform, "")

    def _rows(self, device: str) -> int:
        """Training rows of a device under any setting."""
        counts = (c for key, c in self.bundle.platforms.items() if key.split("|")[0] == device)
        return sum(c["networks"] + c["operators"] for c in counts)

    def _standing(self, platform: Platform) -> tuple[str, Widths, float]:
        """Where an estimate of the platform comes from, in words, the intervals' half-widths, and the roofline's
        weight."""
        device, precision = platform.device.name, platform.precision.value
        networks, operators, elsewhere = self._measured(platform)
        named = self.bundle.config["training"]["named_runtimes"]
        unseen = "new_platform" if named is None or platform.runtime in named else "new_runtime"
        half, shares = self.bundle.calibration["half_width"], self.bundle.calibration["roofline_share"]
        own: Mapping[str, float] = {}
        width = operator_width = of_standing(half, unseen, platform.device.kind)
        if networks >= ENOUGH:
            own = self.bundle.calibration["by_platform"].get(f"{device}|{precision}|{platform.runtime}", {})
            width = of_standing(half, "new_kind" if own else "known")
        if networks + operators >= ENOUGH:
            operator_width = half["operators"] or width
        share = of_standing(shares, "known" if networks + operators >= ENOUGH else unseen)
        if networks >= ENOUGH:
            words = f"learned on this platform, {_samples(networks)}"
        elif networks or operators:
            known = [f"{n} {what}" for n, what in ((networks, "networks"), (operators, "operators")) if n]
            words = f"zero-shot for networks; measured here: {', '.join(known)}"
        elif elsewhere:
            words = f"zero-shot; this device under other settings, {_samples(elsewhere)}"
        else:
            words = "zero-shot from the spec sheet"
        return words, Widths(own, width, operator_width), share

    def _measured(self, platform: Platform) -> tuple[int, int, int]:
        """What training has of a platform in any version of its runtime: networks, single operators, and rows of its
        device under other settings."""
        own = platform.device.name, platform.precision.value, platform.runtime
        networks = operators = elsewhere = 0
        for key, counts in self.bundle.platforms.items():
            device, precision, runtime = key.split("|")
            if (device, precision, parse_runtime(runtime)[0]) == own:
                networks, operators = networks + counts["networks"], operators + counts["operators"]
            elif device == own[0]:
                elsewhere += counts["networks"] + counts["operators"]
        return networks, operators, elsewhere


def through_kin(
    seen: Sequence[Seen], log_latency: np.ndarray, share: np.ndarray, own: np.ndarray, read: np.ndarray,
    starts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The answers for platforms (P, graphs) and their parts (P, nodes) from those for what they are read as: parts
    scale with the roofline, own (P, nodes, 4) over read (Q, nodes, 4); means are taken in the ln."""
    first = np.cumsum([0, *(len(s.readings) for s in seen)])
    latencies, parts = [], []
    for i, (at, end) in enumerate(itertools.pairwise(first)):
        if end - at == 1:
            latencies.append(log_latency[at])
            parts.append(share[at])
            continue
        scaled = share[at:end] * np.exp(own[i, :, -1] - read[at:end, :, -1])
        weight = weights(end - at - 1)
        latencies.append(weight @ np.log(np.add.reduceat(scaled, starts, axis=1)))
        parts.append(weight @ scaled)
    return np.stack(latencies), np.stack(parts)


def _samples(count: int) -> str:
    return f"{count} sample{'s' if count != 1 else ''}"

"""LeDG-Former without torch: a bundle's ONNX files run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from costmodel.bundle import ENCODE, ENOUGH, HEAD, RELEASED, Bundle, of_standing
from costmodel.embedding import SentenceEncoder
from costmodel.estimates import Estimate, Prepared, assemble, physical_bound_ms
from costmodel.familiarity import FILE as FAMILIAR
from costmodel.familiarity import Familiar
from costmodel.features import (
    generic,
    hide_runtime,
    identities,
    numeric_channel,
    placed_edges,
    platform_channel,
    platform_rates,
    roofline_times,
    statistics,
)
from costmodel.finetune import overlay as overlays
from costmodel.ir import Graph
from costmodel.platforms import Platform, parse_runtime
from costmodel.prompts import platform_sentence
from costmodel.sessions import open_session

if TYPE_CHECKING:
    import onnxruntime


PACK_NODES = 1024
"""Nodes that run through the encoder together: more do not run faster, and their edges leave the cache."""

HEAD_ROWS = 16384
"""Pairs of node and platform that run through the head together."""


@dataclass(frozen=True)
class Encoded:
    """A graph read once: node vectors (n, d), graph vector (1, d), statistics (1, 4)."""

    prepared: Prepared
    nodes: np.ndarray
    graph: np.ndarray
    stats: np.ndarray
    unseen_sentences: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """A platform as the network reads it: sentence embedding (t,), numeric channel (f,), rates (7,); the roofline's
    weight in the ln of its latencies; where its estimates come from, in words, with the interval's half-width in ln,
    for single operators apart; what fine-tuning learned of it, and remarks."""

    platform: Platform
    text: np.ndarray
    channel: np.ndarray
    rates: np.ndarray
    roofline_share: float
    standing: tuple[str, float]
    operator_width: float
    overlay: overlays.Overlay | None
    remarks: tuple[str, ...]


class LeDGFormerModel:
    """The learned `CostModel`: `encode` graphs once, then `answer` any number of platforms.

    `encode_many` and `latencies` are the fast way to many graphs: one run of the network for several of them, and
    latencies alone.
    """

    def __init__(self, bundle: str | Path | Bundle = RELEASED, overlaid: bool = True) -> None:
        """`overlaid`: platforms that the user has fine-tuned answer with their overlays (`costmodel.finetune`)."""
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        model = self.bundle.config["model"]
        self.window: int = model["window"]
        self.node_template: str = model["node_template"]
        self.platform_template: str = model["platform_template"]
        self.language = SentenceEncoder(self.bundle.folder / "language")
        self.overlaid = overlaid
        self._platforms: dict[str, _Seen] = {}
        self._overlay_changes = overlays.changes

    @cached_property
    def _trained(self) -> frozenset[str]:
        return frozenset(self.bundle.config["training"]["sentences"])

    @cached_property
    def _familiar(self) -> Familiar:
        return Familiar.from_bytes(self.bundle.read(FAMILIAR))

    @cached_property
    def _encoder(self) -> onnxruntime.InferenceSession:
        return open_session(self.bundle.read(ENCODE), ENCODE)

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        return open_session(self.bundle.read(HEAD), HEAD)

    def estimate(self, graph: Graph, platform: Platform) -> Estimate:
        """One platform."""
        return self.estimate_many(graph, [platform])[0]

    def estimate_many(self, graph: Graph, platforms: Sequence[Platform]) -> list[Estimate]:
        """Several platforms for one encoding of the graph."""
        return self.answer(self.encode(graph), platforms)

    def encode(self, graph: Graph) -> Encoded:
        """Reads a graph: the part of an estimate that no platform changes."""
        return self.encode_many([graph])[0]

    def encode_many(self, graphs: Sequence[Graph]) -> list[Encoded]:
        """Reads graphs, several in one run of the encoder; equal to `encode` of each but for rounding.

        An encoded graph holds its arrays and its nodes' costs, a few kilobytes per node: hand in thousands of graphs
        in parts.
        """
        prepared = [Prepared.of(graph, self.node_template) for graph in graphs]
        found: list[Encoded] = []
        for pack in _packs([len(p.features) for p in prepared], PACK_NODES):
            found += self._encode([prepared[i] for i in pack])
        return found

    def _encode(self, pack: Sequence[Prepared]) -> list[Encoded]:
        """One run of the encoder: graphs stand one after the other, and attention stays inside each."""
        counts = [len(p.features) for p in pack]
        stats = np.stack([statistics(p.features.columns, p.features.batch) for p in pack])
        unseen = [tuple(s for s in dict.fromkeys(p.features.sentences) if s not in self._trained) for p in pack]
        used, empty = sum(counts), np.zeros((0, 0), np.float32)
        if not used:
            return [Encoded(p, empty, empty, stats[i : i + 1], ()) for i, p in enumerate(pack)]
        padded = -(-used // self.window) * self.window if self.window else used
        first = [0, *np.cumsum(counts).tolist()]
        placed = zip((p.features for p in pack), counts, first, strict=False)
        edges = [placed_edges(f.src, f.seg, n, at, padded) for f, n, at in placed if n]
        src, seg = (np.concatenate(parts) for parts in zip(*edges, strict=True))
        if len(edges) > 1:
            order = np.argsort(seg, kind="stable")
            src, seg = src[order], seg[order]
        feed: dict[str, np.ndarray] = {
            "text": _padded(self.language.encode([s for p in pack for s in p.features.sentences]), padded),
            "numeric": _padded(numeric_channel(np.concatenate([p.features.columns for p in pack])), padded),
            "graph": np.repeat(np.arange(len(pack) + 1), [*counts, padded - used]),
            "src": src,
            "seg": seg,
            "stats": stats,
        }
        nodes, vectors = _run(self._encoder, feed)
        return [
            Encoded(p, nodes[first[i] : first[i + 1]], vectors[i : i + 1], stats[i : i + 1], unseen[i])
            for i, p in enumerate(pack)
        ]

    def answer(self, encoded: Encoded, platforms: Sequence[Platform]) -> list[Estimate]:
        """Estimates of an encoded graph."""
        prepared = encoded.prepared
        if not len(prepared.features):
            nothing = np.zeros(0), np.zeros((0, 4), np.float32)
            return [assemble(prepared, p, *nothing, (0.0, 0.0), "nothing to run") for p in platforms]
        notes = []
        if encoded.unseen_sentences:
            more = len(encoded.unseen_sentences) - 4
            tail = f" and {more} more" if more > 0 else ""
            notes.append(f"not in the training data: {', '.join(encoded.unseen_sentences[:4])}{tail}")
        wide = self._wide(encoded)
        if wide:
            notes.append("out of distribution: no training network is like this one, so the interval is wider")
        answers = []
        for seen, log_latency, share, times in self._overlaid_runs([encoded], platforms):
            for i, one in enumerate(seen):
                latency = float(np.exp(log_latency[i, 0]))
                total = float(share[i].sum(dtype=np.float64))
                parts = share[i] if total > 0 else np.ones_like(share[i])
                node_ms = parts * (latency / (total or len(parts)))
                provenance, half = one.standing
                half = max(one.operator_width if len(prepared.features) == 1 else half, wide)
                interval = (latency * float(np.exp(-half)), latency * float(np.exp(half)))
                remarks = [*notes, *one.remarks]
                answers.append(assemble(prepared, one.platform, node_ms, times[i], interval, provenance, remarks))
        return answers

    def latencies(self, encoded: Sequence[Encoded], platforms: Sequence[Platform]) -> np.ndarray:
        """Milliseconds (graphs, platforms) as `answer` gives them, without intervals, notes and breakdowns."""
        bounds = [[physical_bound_ms(e.prepared, p) for p in platforms] for e in encoded]
        found = np.array(bounds, np.float64).reshape(len(encoded), len(platforms))
        counts = [len(e.prepared.features) for e in encoded]
        for pack in _packs(counts, PACK_NODES):
            rows, at = [i for i in pack if counts[i]], 0
            for seen, log_latency, _, _ in self._overlaid_runs([encoded[i] for i in rows], platforms) if rows else ():
                block = np.ix_(rows, range(at, at + len(seen)))
                found[block] = np.maximum(np.exp(log_latency.T.astype(np.float64)), found[block])
                at += len(seen)
        return found

    def unadapted(self, encoded: Sequence[Encoded], platform: Platform) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The network's own answer for graphs with nodes: ln of ms (graphs,), of all their nodes the parts in ms (n,)
        and the ln of roofline times (n, 4)."""
        ((_, log_latency, share, times),) = self._head_runs(encoded, [platform])
        return log_latency[0], share[0], times[0]

    def reading_of(self, platform: Platform) -> tuple[np.ndarray, np.ndarray]:
        """How the network reads a platform: sentence embedding (t,) and numeric channel (f,)."""
        seen = self._platform(platform)
        return seen.text, seen.channel

    def _overlaid_runs(
        self, encoded: Sequence[Encoded], platforms: Sequence[Platform]
    ) -> Iterator[tuple[list[_Seen], np.ndarray, np.ndarray, np.ndarray]]:
        """`_head_runs` with the overlays of fine-tuned platforms."""
        for seen, log_latency, share, times in self._head_runs(encoded, platforms):
            for i, one in enumerate(seen):
                if one.overlay is not None:
                    log_latency[i], share[i] = one.overlay.apply(encoded, log_latency[i], share[i], times[i])
            yield seen, log_latency, share, times

    def _head_runs(
        self, encoded: Sequence[Encoded], platforms: Sequence[Platform]
    ) -> Iterator[tuple[list[_Seen], np.ndarray, np.ndarray, np.ndarray]]:
        """Graphs with nodes on some platforms at a time: the platforms (P), ln of milliseconds (P, graphs), and of all
        graphs' nodes the parts in ms (P, nodes) and the roofline times (P, nodes, 4)."""
        graphs = len(encoded)
        parts = zip(*((e.nodes, e.graph, e.stats) for e in encoded), strict=True)
        nodes, vectors, stats = map(np.concatenate, parts)
        columns = np.concatenate([e.prepared.features.columns for e in encoded])
        owner = np.repeat(np.arange(graphs), [len(e.nodes) for e in encoded])
        step = max(HEAD_ROWS // len(nodes), 1)
        for at in range(0, len(platforms), step):
            seen = [self._platform(p) for p in platforms[at : at + step]]
            count = len(seen)
            times = roofline_times(columns, np.stack([s.rates for s in seen])[:, None])
            feed = {
                "nodes": nodes,
                "graph": np.concatenate([vectors] * count),
                "stats": np.concatenate([stats] * count),
                "text": np.repeat([s.text for s in seen], graphs, 0),
                "numeric": np.repeat([s.channel for s in seen], graphs, 0),
                "times": times.reshape(-1, times.shape[-1]),
                "node": np.concatenate([np.arange(len(nodes))] * count),
                "pair": (np.arange(count)[:, None] * graphs + owner).ravel(),
            }
            log_latency, share = _run(self._head, feed)
            log_latency, share = log_latency.reshape(count, graphs), share.reshape(count, -1)
            weight = np.array([[s.roofline_share] for s in seen], np.float32)
            if weight.any():
                own = np.exp(times[:, :, -1])
                roofline = np.add.reduceat(own, np.searchsorted(owner, np.arange(graphs)), axis=1)
                log_latency = (1 - weight) * log_latency + weight * np.log(roofline)
                share = share ** (1 - weight) * own**weight
            yield seen, log_latency, share, times

    def _platform(self, platform: Platform) -> _Seen:
        """A platform as the network reads it: what tells devices apart is hidden for devices that training hardly had,
        where validation says so, and the name of runtimes that it hardly had."""
        if self._overlay_changes != overlays.changes:
            self._platforms.clear()
            self._overlay_changes = overlays.changes
        found = self._platforms.get(platform.name)
        if found is None or (found.platform is not platform and found.platform != platform):
            overlay, remark = overlays.find(platform, self.bundle) if self.overlaid else (None, "")
            read_as, key = self._as_trained(overlay.as_measured(platform) if overlay else platform)
            text = self.language.encode([platform_sentence(read_as, self.platform_template)])
            known = identities([key], list(self.bundle.config["training"]["identities"]))
            channel = np.concatenate([platform_channel(read_as)[None], known], 1)
            if self.bundle.calibration["unseen_devices"] == "generic" and self._rows(platform.device.name) < ENOUGH:
                text, channel = generic(text, channel)
            named = self.bundle.config["training"]["named_runtimes"]
            if named is not None and platform.runtime not in named:
                text, channel = hide_runtime(text, channel)
            standing, operator_width, share = self._standing(platform)
            if overlay:
                standing, operator_width = overlay.standing, overlay.standing[1]
            found = _Seen(
                platform, text[0], channel[0], platform_rates(read_as), share, standing, operator_width, overlay,
                (remark,) if remark else (),
            )  # fmt: skip
            self._platforms[platform.name] = found
        return found

    def _as_trained(self, platform: Platform) -> tuple[Platform, str]:
        """The platform, and its key among those with an identity, or "". A runtime without a version stands for the
        version that was measured most. A sheet of other numbers than training's has no identity."""
        trained: dict[str, str] = self.bundle.config["training"]["identities"]
        label = platform.runtime_label
        if not platform.runtime_version:
            versions = {
                r: self.bundle.platforms[key]["networks"] for key in trained
                for d, p, r in [key.split("|")]
                if (d, p, parse_runtime(r)[0]) == (platform.device.name, platform.precision.value, platform.runtime)
            }  # fmt: skip
            label = max(versions, key=lambda r: versions[r], default=label)
        read_as = replace(platform, runtime_version=parse_runtime(label)[1])
        key = f"{platform.device.name}|{platform.precision.value}|{label}"
        return (read_as, key) if trained.get(key) == overlays.sheet_id(read_as) else (platform, "")

    def _wide(self, encoded: Encoded) -> float:
        """Half-width in ln for a network unlike those of training; 0 for others, and where it was never measured."""
        width: float | None = self.bundle.calibration["half_width"]["new_family"]
        return width if width and self._familiar.is_new(encoded.graph)[0] else 0.0

    def _rows(self, device: str) -> int:
        """Training rows of a device under any setting."""
        counts = (c for key, c in self.bundle.platforms.items() if key.split("|")[0] == device)
        return sum(c["networks"] + c["operators"] for c in counts)

    def _standing(self, platform: Platform) -> tuple[tuple[str, float], float, float]:
        """Where an estimate of the platform comes from, in words, with the interval's half-width in ln; that of single
        operators; and the roofline's weight."""
        device, precision = platform.device.name, platform.precision.value
        networks = operators = elsewhere = 0
        for key, counts in self.bundle.platforms.items():
            d, p, r = key.split("|")
            if (d, p, parse_runtime(r)[0]) == (device, precision, platform.runtime):
                networks, operators = networks + counts["networks"], operators + counts["operators"]
            elif d == device:
                elsewhere += counts["networks"] + counts["operators"]
        named = self.bundle.config["training"]["named_runtimes"]
        unseen = "new_platform" if named is None or platform.runtime in named else "new_runtime"
        widths, shares = self.bundle.calibration["half_width"], self.bundle.calibration["roofline_share"]
        width = operator_width = of_standing(widths, unseen)
        if networks >= ENOUGH:
            key = f"{device}|{precision}|{platform.runtime}"
            width = self.bundle.calibration["by_platform"].get(key, widths["known_platform"])
        if networks + operators >= ENOUGH:
            operator_width = widths["operators"] or width
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
        return (words, width), operator_width, share


@lru_cache(maxsize=2)
def load(bundle: str | Path = RELEASED) -> LeDGFormerModel:
    """The model of a bundle, read once per process."""
    return LeDGFormerModel(bundle)


def _samples(count: int) -> str:
    return f"{count} sample{'s' if count != 1 else ''}"


def _packs(counts: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices in order, in parts whose counts add up to at most `limit`, or one that alone is larger."""
    pack: list[int] = []
    size = 0
    for i, count in enumerate(counts):
        if pack and size + count > limit:
            yield pack
            pack, size = [], 0
        pack.append(i)
        size += count
    if pack:
        yield pack


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    """`rows` (n, f) with zeros to `count` rows."""
    return np.concatenate([rows, np.zeros((count - len(rows), rows.shape[1]), rows.dtype)])


def _run(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    wanted = {i.name for i in session.get_inputs()}  # the exporter drops inputs that a configuration does not use
    return session.run(None, {k: v for k, v in feed.items() if k in wanted})

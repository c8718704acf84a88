"""LeDG-Former without torch: a bundle's ONNX files run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from costmodel.bundle import ENCODE, HEAD, RELEASED, Bundle
from costmodel.embedding import SentenceEncoder
from costmodel.estimates import Estimate, Prepared, assemble
from costmodel.features import (
    generic,
    numeric_channel,
    padding_edges,
    placed_edges,
    platform_channel,
    platform_rates,
    roofline_times,
    statistics,
)
from costmodel.ir import Graph
from costmodel.platforms import Platform, parse_runtime
from costmodel.prompts import platform_sentence
from costmodel.sessions import open_session

if TYPE_CHECKING:
    import onnxruntime


ENOUGH = 30
"""Measured networks from which a platform counts as learned; below, the interval is that of a new platform."""


@dataclass(frozen=True)
class Encoded:
    """A graph read once: node vectors (n, d), graph vector (1, d), statistics (1, 4)."""

    prepared: Prepared
    nodes: np.ndarray
    graph: np.ndarray
    stats: np.ndarray
    unseen_sentences: tuple[str, ...]


class LeDGFormerModel:
    """The learned `CostModel`: `encode` a graph once, then `answer` any number of platforms."""

    def __init__(self, bundle: str | Path | Bundle = RELEASED) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        model = self.bundle.config["model"]
        self.window: int = model["window"]
        self.node_template: str = model["node_template"]
        self.platform_template: str = model["platform_template"]
        self.language = SentenceEncoder(self.bundle.folder / "language")
        self._platforms: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def _trained(self) -> frozenset[str]:
        return frozenset(self.bundle.config["training"]["sentences"])

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
        prepared = Prepared.of(graph, self.node_template)
        features = prepared.features
        n = len(features)
        stats = statistics(features.columns, features.batch)[None]
        if n == 0:
            empty = np.zeros((0, 0), np.float32)
            return Encoded(prepared, empty, empty, stats, ())
        padded = -(-n // self.window) * self.window if self.window else n
        unique = list(dict.fromkeys(features.sentences))
        vectors = self.language.encode(unique)
        place = {s: i for i, s in enumerate(unique)}
        text = np.zeros((padded, vectors.shape[1]), np.float32)
        text[:n] = vectors[[place[s] for s in features.sentences]]
        channel = numeric_channel(features.columns)
        numeric = np.zeros((padded, channel.shape[1]), np.float32)
        numeric[:n] = channel
        owner = np.zeros(padded, np.int64)
        owner[n:] = 1
        edges = placed_edges(features.src, features.seg, n, 0, padded), padding_edges(n, padded)
        src, seg = (np.concatenate(parts) for parts in zip(*edges, strict=True))
        feed: dict[str, np.ndarray] = {
            "text": text,
            "numeric": numeric,
            "graph": owner,
            "src": src,
            "seg": seg,
            "stats": stats,
        }
        nodes, graphs = _run(self._encoder, feed)
        return Encoded(prepared, nodes[:n], graphs, stats, tuple(s for s in unique if s not in self._trained))

    def answer(self, encoded: Encoded, platforms: Sequence[Platform]) -> list[Estimate]:
        """Estimates of an encoded graph."""
        prepared, n, count = encoded.prepared, len(encoded.prepared.features), len(platforms)
        if n == 0:
            nothing = np.zeros(0), np.zeros((0, 4), np.float32)
            return [assemble(prepared, p, *nothing, (0.0, 0.0), "nothing to run") for p in platforms]
        vectors = [self._platform(p) for p in platforms]
        times = [roofline_times(prepared.features.columns, platform_rates(p)) for p in platforms]
        feed = {
            "nodes": encoded.nodes,
            "graph": np.repeat(encoded.graph, count, 0),
            "stats": np.repeat(encoded.stats, count, 0),
            "text": np.stack([text for text, _ in vectors]),
            "numeric": np.stack([channel for _, channel in vectors]),
            "times": np.concatenate(times),
            "node": np.tile(np.arange(n), count),
            "pair": np.repeat(np.arange(count), n),
        }
        log_latency, share = _run(self._head, feed)
        share = share.reshape(count, n).astype(np.float64)
        answers = []
        for i, platform in enumerate(platforms):
            latency = float(np.exp(log_latency[i]))
            provenance, half = self._standing(platform)
            notes = []
            if encoded.unseen_sentences:
                more = len(encoded.unseen_sentences) - 4
                tail = f" and {more} more" if more > 0 else ""
                notes.append(f"not in the training data: {', '.join(encoded.unseen_sentences[:4])}{tail}")
            total = share[i].sum()
            node_ms = share[i] * (latency / total) if total > 0 else np.full(n, latency / n)
            interval = (latency * float(np.exp(-half)), latency * float(np.exp(half)))
            answers.append(assemble(prepared, platform, node_ms, times[i], interval, provenance, notes))
        return answers

    def _platform(self, platform: Platform) -> tuple[np.ndarray, np.ndarray]:
        """Sentence embedding (t,) and numeric channel (f,) of a platform; hidden for devices that training hardly had,
        where validation says so."""
        key = platform.name
        if key not in self._platforms:
            text = self.language.encode([platform_sentence(platform, self.platform_template)])
            channel = platform_channel(platform)[None]
            if self.bundle.calibration["unseen_devices"] == "generic" and self._rows(platform.device.name) < ENOUGH:
                text, channel = generic(text, channel)
            self._platforms[key] = text[0], channel[0]
        return self._platforms[key]

    def _rows(self, device: str) -> int:
        """Training rows of a device under any setting."""
        counts = (c for key, c in self.bundle.platforms.items() if key.split("|")[0] == device)
        return sum(c["networks"] + c["operators"] for c in counts)

    def _standing(self, platform: Platform) -> tuple[str, float]:
        """Where an estimate of the platform comes from, in words, and the interval's half-width in ln."""
        device, precision = platform.device.name, platform.precision.value
        networks = operators = elsewhere = 0
        for key, counts in self.bundle.platforms.items():
            d, p, r = key.split("|")
            if (d, p, parse_runtime(r)[0]) == (device, precision, platform.runtime):
                networks, operators = networks + counts["networks"], operators + counts["operators"]
            elif d == device:
                elsewhere += counts["networks"] + counts["operators"]
        widths = self.bundle.calibration["half_width"]
        if networks >= ENOUGH:
            return f"learned on this platform, {_samples(networks)}", widths["known_platform"]
        if networks or operators:
            known = [f"{n} {what}" for n, what in ((networks, "networks"), (operators, "operators")) if n]
            return f"zero-shot for networks; measured here: {', '.join(known)}", widths["new_platform"]
        if elsewhere:
            return f"zero-shot; this device under other settings, {_samples(elsewhere)}", widths["new_platform"]
        return "zero-shot from the spec sheet", widths["new_platform"]


@lru_cache(maxsize=2)
def load(bundle: str | Path = RELEASED) -> LeDGFormerModel:
    """The model of a bundle, read once per process."""
    return LeDGFormerModel(bundle)


def _samples(count: int) -> str:
    return f"{count} sample{'s' if count != 1 else ''}"


def _run(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    wanted = {i.name for i in session.get_inputs()}  # the exporter drops inputs that a configuration does not use
    return session.run(None, {k: v for k, v in feed.items() if k in wanted})

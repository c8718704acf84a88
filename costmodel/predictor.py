"""LeDG-Former without torch: a bundle's ONNX files run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from costmodel.bundle import ENCODE, HEAD, RELEASED, Bundle
from costmodel.correction import FILE as CORRECTION
from costmodel.correction import Correction
from costmodel.embedding import SentenceEncoder
from costmodel.estimates import Estimate, Prepared, assemble, physical_bound_ms
from costmodel.familiarity import FILE as FAMILIAR
from costmodel.familiarity import Familiar
from costmodel.features import (
    numeric_channel,
    placed_edges,
    roofline_times,
    statistics,
)
from costmodel.forms import Rewritten, rewrite
from costmodel.ir import Graph
from costmodel.platforms import Platform
from costmodel.reading import Reader, Seen, through_kin
from costmodel.sessions import open_session

if TYPE_CHECKING:
    import onnxruntime


PACK_NODES = 1024
"""Nodes that run through the encoder together: more do not run faster, and their edges leave the cache."""

HEAD_ROWS = 16384
"""Pairs of node and platform that run through the head together."""


@dataclass(frozen=True)
class Form:
    """What the network has read of a graph: node vectors (n, d), graph vector (1, d), statistics (1, 4)."""

    prepared: Prepared
    nodes: np.ndarray
    graph: np.ndarray
    stats: np.ndarray
    unseen_sentences: tuple[str, ...]


@dataclass(frozen=True)
class Encoded:
    """A graph and the forms in which the network has read it: in layers (False) and exported (True), as
    `costmodel.forms` has them."""

    prepared: Prepared
    forms: dict[bool, Form] = field(default_factory=dict, repr=False, compare=False)

    def rewritten(self, exported: bool) -> Rewritten | None:
        """The graph in a form; None where that is how it is written."""
        return self._exported if exported else self._layers

    @cached_property
    def _exported(self) -> Rewritten | None:
        return rewrite(self.prepared.graph, exported=True)

    @cached_property
    def _layers(self) -> Rewritten | None:
        return rewrite(self.prepared.graph, exported=False)


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
        self.language = SentenceEncoder(self.bundle.folder / "language")
        self._reader = Reader(self.bundle, self.language, overlaid)

    @cached_property
    def _trained(self) -> frozenset[str]:
        return frozenset(self.bundle.config["training"]["sentences"])

    @cached_property
    def _familiar(self) -> Familiar:
        return Familiar.from_bytes(self.bundle.read(FAMILIAR))

    @cached_property
    def _correction(self) -> Correction:
        return Correction.from_bytes(self.bundle.read(CORRECTION))

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
        return self.answer(self.encode(graph, platforms), platforms)

    def encode(self, graph: Graph, platforms: Sequence[Platform] = ()) -> Encoded:
        """Reads a graph: the part of an estimate that no platform changes."""
        return self.encode_many([graph], platforms)[0]

    def encode_many(self, graphs: Sequence[Graph], platforms: Sequence[Platform] = ()) -> list[Encoded]:
        """Reads graphs, several in one run of the encoder; equal to `encode` of each but for rounding.

        They are read in the forms that `platforms` need, or else in the exported one; what was not read yet is read
        when a platform asks for it. An encoded graph holds its arrays and its nodes' costs, a few kilobytes per node:
        hand in thousands of graphs in parts.
        """
        encoded = [Encoded(Prepared.of(graph, self.node_template)) for graph in graphs]
        for exported in {self._reader.seen(p).exported for p in platforms} or {True}:
            self._read(encoded, exported)
        return encoded

    def forms(self, encoded: Sequence[Encoded], platform: Platform) -> list[Form]:
        """Graphs in the form in which they are read for a platform."""
        return self._read(encoded, self._reader.seen(platform).exported)

    def _read(self, encoded: Sequence[Encoded], exported: bool) -> list[Form]:
        """Graphs in one form, read now where they have not been."""
        new, prepared = [], []
        for e in encoded:
            if exported in e.forms:
                continue
            rewritten, other = e.rewritten(exported), e.forms.get(not exported)
            if rewritten is None and other is not None and other.prepared is e.prepared:
                e.forms[exported] = other
            else:
                new.append(e)
                prepared.append(Prepared.of(rewritten.graph, self.node_template) if rewritten else e.prepared)
        for pack in _packs([len(p.features) for p in prepared], PACK_NODES):
            for i, form in zip(pack, self._encode([prepared[i] for i in pack]), strict=True):
                new[i].forms[exported] = form
        return [e.forms[exported] for e in encoded]

    def _by_form(self, encoded: Sequence[Encoded], platforms: Sequence[Platform]) -> Iterator[tuple[bool, list[int]]]:
        """Platforms (positions) by the form in which graphs are read for them."""
        wanted = [self._reader.seen(p).exported for p in platforms]
        if len(set(wanted)) == 2 and not any(e.rewritten(form) for e in encoded for form in (True, False)):
            wanted = [True] * len(platforms)
        for exported in sorted(set(wanted)):
            yield exported, [i for i, own in enumerate(wanted) if own is exported]

    def _encode(self, pack: Sequence[Prepared]) -> list[Form]:
        """One run of the encoder: graphs stand one after the other, and attention stays inside each."""
        counts = [len(p.features) for p in pack]
        stats = np.stack([statistics(p.features.columns, p.features.batch) for p in pack])
        unseen = [tuple(s for s in dict.fromkeys(p.features.sentences) if s not in self._trained) for p in pack]
        used, empty = sum(counts), np.zeros((0, 0), np.float32)
        if not used:
            return [Form(p, empty, empty, stats[i : i + 1], ()) for i, p in enumerate(pack)]
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
            Form(p, nodes[first[i] : first[i + 1]], vectors[i : i + 1], stats[i : i + 1], unseen[i])
            for i, p in enumerate(pack)
        ]

    def answer(self, encoded: Encoded, platforms: Sequence[Platform]) -> list[Estimate]:
        """Estimates of an encoded graph."""
        prepared = encoded.prepared
        if not len(prepared.graph):
            nothing = np.zeros(0), np.zeros((0, 4), np.float32)
            return [assemble(prepared, p, *nothing, (0.0, 0.0), "nothing to run") for p in platforms]
        found: dict[int, Estimate] = {}
        for exported, at in self._by_form([encoded], platforms):
            found |= zip(at, self._answer(encoded, exported, [platforms[i] for i in at]), strict=True)
        return [found[i] for i in range(len(platforms))]

    def _answer(self, encoded: Encoded, exported: bool, platforms: Sequence[Platform]) -> list[Estimate]:
        """Estimates of a graph with nodes for platforms that need it in one form."""
        prepared, rewritten = encoded.prepared, encoded.rewritten(exported)
        (form,) = self._read([encoded], exported)
        notes = []
        if form.unseen_sentences:
            more = len(form.unseen_sentences) - 4
            tail = f" and {more} more" if more > 0 else ""
            notes.append(f"not in the training data: {', '.join(form.unseen_sentences[:4])}{tail}")
        kind, wide = self._likeness(form)
        if wide:
            notes.append(
                "out of distribution: no training network is like this one, so the interval is a factor of"
                f" {np.exp(wide):.2f} or more"
            )
        answers = []
        for seen, log_latency, share, times in self._overlaid_runs([form], platforms):
            for i, one in enumerate(seen):
                latency = float(np.exp(log_latency[i, 0]))
                total = float(share[i].sum(dtype=np.float64))
                parts = share[i] if total > 0 else np.ones_like(share[i])
                node_ms = parts * (latency / (total or len(parts)))
                is_operator = len(form.nodes) == 1
                half = max(one.widths.of(kind, is_operator), wide)
                interval = (latency * float(np.exp(-half)), latency * float(np.exp(half)))
                remarks = [*notes, *one.remarks]
                if one.widths.networks and kind not in one.widths.networks and not is_operator:
                    remarks.append(
                        f"{one.platform.device.name} was measured with other kinds of networks"
                        f" ({', '.join(one.widths.networks)}), so the interval is wider"
                    )
                answers.append(
                    assemble(prepared, one.platform, node_ms, times[i], interval, one.provenance, remarks, rewritten)
                )
        return answers

    def latencies(self, encoded: Sequence[Encoded], platforms: Sequence[Platform]) -> np.ndarray:
        """Milliseconds (graphs, platforms) as `answer` gives them, without intervals, notes and breakdowns."""
        bounds = [[physical_bound_ms(e.prepared, p) for p in platforms] for e in encoded]
        found = np.array(bounds, np.float64).reshape(len(encoded), len(platforms))
        for exported, at in self._by_form(encoded, platforms):
            forms = self._read(encoded, exported)
            counts, chosen = [len(f.nodes) for f in forms], [platforms[i] for i in at]
            for pack in _packs(counts, PACK_NODES):
                rows, done = [i for i in pack if counts[i]], 0
                for seen, log_latency, _, _ in self._overlaid_runs([forms[i] for i in rows], chosen) if rows else ():
                    block = np.ix_(rows, at[done : done + len(seen)])
                    found[block] = np.maximum(np.exp(log_latency.T.astype(np.float64)), found[block])
                    done += len(seen)
        return found

    def unadapted(self, forms: Sequence[Form], platform: Platform) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The network's own answer for `forms` with nodes: ln of ms (graphs,), of all their nodes the parts in ms (n,)
        and the ln of roofline times (n, 4)."""
        ((_, log_latency, share, times),) = self._head_runs(forms, [platform])
        return log_latency[0], share[0], times[0]

    def reading_of(self, platform: Platform) -> tuple[np.ndarray, np.ndarray]:
        """How the network reads a platform by itself: sentence embedding (t,) and numeric channel (f,)."""
        reading = self._reader.alone(platform)
        return reading.text, reading.channel

    def _overlaid_runs(
        self, forms: Sequence[Form], platforms: Sequence[Platform]
    ) -> Iterator[tuple[list[Seen], np.ndarray, np.ndarray, np.ndarray]]:
        """`_head_runs` with the overlays of fine-tuned platforms."""
        for seen, log_latency, share, times in self._head_runs(forms, platforms):
            for i, one in enumerate(seen):
                if one.overlay is not None:
                    log_latency[i], share[i] = one.overlay.apply(forms, log_latency[i], share[i], times[i])
            yield seen, log_latency, share, times

    def _head_runs(
        self, forms: Sequence[Form], platforms: Sequence[Platform]
    ) -> Iterator[tuple[list[Seen], np.ndarray, np.ndarray, np.ndarray]]:
        """Graphs with nodes on some platforms at a time: the platforms (P), ln of milliseconds (P, graphs), and of all
        graphs' nodes the parts in ms (P, nodes) and the roofline times (P, nodes, 4)."""
        graphs = len(forms)
        parts = zip(*((f.nodes, f.graph, f.stats) for f in forms), strict=True)
        nodes, vectors, stats = map(np.concatenate, parts)
        columns = np.concatenate([f.prepared.features.columns for f in forms])
        owner = np.repeat(np.arange(graphs), [len(f.nodes) for f in forms])
        step = max(HEAD_ROWS // len(nodes), 1)
        for at in range(0, len(platforms), step):
            seen = [self._reader.seen(p) for p in platforms[at : at + step]]
            readings = [r for s in seen for r in s.readings]
            count = len(readings)
            times = roofline_times(columns, np.stack([r.rates for r in readings])[:, None])
            feed = {
                "nodes": nodes,
                "graph": np.concatenate([vectors] * count),
                "stats": np.concatenate([stats] * count),
                "text": np.repeat([r.text for r in readings], graphs, 0),
                "numeric": np.repeat([r.channel for r in readings], graphs, 0),
                "times": times.reshape(-1, times.shape[-1]),
                "node": np.concatenate([np.arange(len(nodes))] * count),
                "pair": (np.arange(count)[:, None] * graphs + owner).ravel(),
            }
            log_latency, share = _run(self._head, feed)
            log_latency, share = log_latency.reshape(count, graphs), share.reshape(count, -1)
            starts = np.searchsorted(owner, np.arange(graphs))
            if count > len(seen):
                read = times
                times = roofline_times(columns, np.stack([s.rates for s in seen])[:, None])
                log_latency, share = through_kin(seen, log_latency, share, times, read, starts)
            weight = np.array([[s.roofline_share] for s in seen], np.float32)
            left = self._left_over(forms, seen, log_latency, times, starts)
            if left is not None:
                log_latency, share = log_latency + left, share * np.exp(left[:, owner])
            if weight.any():
                own = np.exp(times[:, :, -1])
                roofline = np.add.reduceat(own, starts, axis=1)
                log_latency = (1 - weight) * log_latency + weight * np.log(roofline)
                share = share ** (1 - weight) * own**weight
            yield seen, log_latency, share, times

    def _left_over(
        self, forms: Sequence[Form], seen: Sequence[Seen], log_latency: np.ndarray, times: np.ndarray,
        starts: np.ndarray,
    ) -> np.ndarray | None:  # fmt: skip
        """(P, graphs) what the correction adds to ln of latency; None where it speaks for nothing."""
        known = [(i, s.correctable) for i, s in enumerate(seen) if s.correctable is not None]
        operator = np.array([len(f.nodes) == 1 for f in forms])
        pairs = [
            (i, told, g)
            for i, told in known
            for g in np.flatnonzero(np.where(operator, told.operators, told.networks)).tolist()
        ]
        if not pairs:
            return None
        platforms, told, graphs = zip(*pairs, strict=True)
        at = list(platforms), list(graphs)
        wholes = {g: self._correction.whole(forms[g].prepared.features) for g in set(graphs)}
        roofline = np.log(np.add.reduceat(np.exp(times[:, :, -1]), starts, axis=1))
        found = np.zeros(log_latency.shape, np.float32)
        found[at] = self._correction(
            [wholes[g] for g in graphs], np.stack([t.rates for t in told]), np.stack([t.channel for t in told]),
            log_latency[at], roofline[at],
        )  # fmt: skip
        return found

    def _likeness(self, form: Form) -> tuple[str, float]:
        """The kind of the most similar training network, and the half-width in ln for a network unlike all of them; 0
        for others, and where that was never measured."""
        (distance,), (kind,) = self._familiar.nearest(form.graph, form.stats)
        width: float | None = self.bundle.calibration["half_width"]["new_family"]
        return str(kind), width if width and distance > self._familiar.limit else 0.0


@lru_cache(maxsize=2)
def load(bundle: str | Path = RELEASED) -> LeDGFormerModel:
    """The model of a bundle, read once per process."""
    return LeDGFormerModel(bundle)


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

"""Loop graphs as the ranking network reads them. NumPy only.

A scheduled function lowered by `frontends.tir_lower` becomes a row of numbers per loop and block, a sentence each, and
its edges. What a block's time depends on lies along the whole path of loops around it, further than a few layers of
attention reach, so a block's row also sums up its path: how far it is parallel, vectorised and unrolled, and the
traffic past caches of several sizes. Bytes past a cache of C bytes: of the loops around the block, the outermost whose
working set fits C is filled once each time it runs (a full run of a loop that fits reads its working set once).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.features import relation_edges
from costmodel.ir import Graph, Node
from costmodel.loopwords import LOOP, loop_node_sentence

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_KINDS = ("serial", "parallel", "vectorized", "unrolled", "thread")
_ARITHMETIC = ("adds", "muls", "divs", "compares", "specials", "selects")
CACHES = tuple(2**k for k in (12, 14, 15, 17, 19, 20, 22, 24))  # bytes: 4 KiB to 16 MiB
_READS, _WRITES = 3, 1
_UNROLL = "note.pragma_auto_unroll_max_step"
_ACCESS = ("still", "next", "apart", "unknown", "lane_still", "lane_next", "lane_apart")
_COUNTS = (
    "extent", "depth", "iterations", "working_set", "unroll",  # of a loop
    "runs", "per_run", "flops", "axes", "reduction",  # of a block
    *_ARITHMETIC,
    *(f"path_{kind}" for kind in _KINDS), "path_unroll", "innermost", "second", "vector_bits", "outer_parallel",
    *(f"past_{size}" for size in CACHES),
    *(f"{side}_{what}" for side in ("read0", "read1", "read2", "write0") for what in ("unique", "stride")),
)  # fmt: skip
_FLAGS = (
    "block", "init", "opaque", *_KINDS, *(f"inner_{kind}" for kind in _KINDS),
    *(f"{side}_{flag}" for side in ("read0", "read1", "read2", "write0") for flag in _ACCESS),
)  # fmt: skip
LOOP_FEATURES = len(_COUNTS) + len(_FLAGS)
_COUNT_AT = {name: at for at, name in enumerate(_COUNTS)}
_FLAG_AT = {name: at for at, name in enumerate(_FLAGS)}


@dataclass(frozen=True)
class LoopGraph:
    """One candidate: `numbers` (n, LOOP_FEATURES) of order one, `sentences` (n), `pairs` (E, 2) of parent and child,
    and `baseline` (n), ln of the work of each block in vector operations per core (-inf for loops)."""

    numbers: Floats
    sentences: tuple[str, ...]
    pairs: Ints
    baseline: Floats

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Packed:
    """Several candidates, one after the other, padded to a multiple of the window.

    numbers (N, F), sentence (N,) row in `sentences`, baseline (N,), graph (N,) with B for padding, src and seg (E,) as
    `model.Batch` has them.
    """

    numbers: Floats
    sentence: Ints
    sentences: tuple[str, ...]
    baseline: Floats
    graph: Ints
    src: Ints
    seg: Ints
    size: int


def read(graphs: Sequence[Graph], cores: int = 1) -> list[LoopGraph]:
    """What the network reads of loop graphs; numbers of all are scaled at once."""
    if not graphs:
        return []
    tables = [_table(graph) for graph in graphs]
    counts = np.asarray([row for rows, _, _ in tables for row in rows], np.float64)
    flags = np.asarray([row for _, rows, _ in tables for row in rows], np.float32)
    numbers = np.concatenate([np.log2(1 + counts) / 8, flags], 1).astype(np.float32)
    lanes = np.minimum(counts[:, _COUNT_AT["vector_bits"]].clip(32) / 32, 16)
    parallel = counts[:, _COUNT_AT["path_parallel"]].clip(1, cores)
    work = counts[:, _COUNT_AT["runs"]] * counts[:, _COUNT_AT["per_run"]].clip(1) / lanes / parallel
    baseline = np.where(work > 0, np.log(work.clip(1e-9)), -np.inf).astype(np.float32)
    found, start = [], 0
    for graph, (rows, _, sentences) in zip(graphs, tables, strict=True):
        stop = start + len(rows)
        pairs = np.asarray(graph.edges, np.int64).reshape(-1, 2)
        found.append(LoopGraph(numbers[start:stop], sentences, pairs, baseline[start:stop]))
        start = stop
    return found


def pack(graphs: Sequence[LoopGraph], window: int) -> Packed:
    """One batch of candidates."""
    sizes = np.array([len(g) for g in graphs], np.int64)
    starts = np.cumsum(sizes) - sizes
    used = int(sizes.sum())
    total = -(-used // window) * window
    pairs = np.concatenate([g.pairs + start for g, start in zip(graphs, starts, strict=True)])
    src, seg = relation_edges(pairs, total)  # type: ignore[arg-type]  # an array of pairs will do
    vocabulary: dict[str, int] = {}
    sentence = np.zeros(total, np.int64)
    sentence[:used] = [vocabulary.setdefault(s, len(vocabulary)) for g in graphs for s in g.sentences]
    numbers = np.zeros((total, LOOP_FEATURES), np.float32)
    numbers[:used] = np.concatenate([g.numbers for g in graphs])
    baseline = np.full(total, -np.inf, np.float32)
    baseline[:used] = np.concatenate([g.baseline for g in graphs])
    graph = np.full(total, len(graphs), np.int64)
    graph[:used] = np.repeat(np.arange(len(graphs)), sizes)
    return Packed(numbers, sentence, tuple(vocabulary), baseline, graph, src, seg, len(graphs))


def block_rows(graph: LoopGraph) -> Floats:
    """(blocks, LOOP_FEATURES) the blocks' rows alone, for models that read no graph."""
    return np.asarray(graph.numbers[graph.numbers[:, len(_COUNTS) + _FLAG_AT["block"]] > 0], np.float32)


def _table(graph: Graph) -> tuple[list[list[float]], list[list[float]], tuple[str, ...]]:
    """Raw counts and flags per node, and its sentence."""
    scope: dict[str, tuple[Node, ...]] = {"": ()}
    counts, flags, sentences = [], [], []
    for node in graph.nodes:
        parent = scope.get(node.inputs[0], ()) if node.inputs else ()
        count, flag = [0.0] * len(_COUNTS), [0.0] * len(_FLAGS)
        if node.op == LOOP:
            scope[node.outputs[0]] = (*parent, node)
            _loop(node.attrs, count, flag)
        else:
            _block(node, parent, graph, count, flag)
        counts.append(count)
        flags.append(flag)
        sentences.append(loop_node_sentence(node.op, node.attrs))
    return counts, flags, tuple(sentences)


def _loop(attrs: Mapping[str, Any], count: list[float], flag: list[float]) -> None:
    for at, name in enumerate(("extent", "depth", "iterations", "working_set")):
        count[at] = attrs[name]
    count[4] = _unroll(attrs)
    flag[_FLAG_AT[attrs["kind"]]] = 1


def _unroll(attrs: Mapping[str, Any]) -> float:
    return float(attrs.get(_UNROLL, 0))


def _block(node: Node, path: tuple[Node, ...], graph: Graph, count: list[float], flag: list[float]) -> None:
    attrs: Mapping[str, Any] = node.attrs
    at, on = _COUNT_AT, _FLAG_AT
    runs = attrs["iterations"]
    flag[on["block"]], flag[on["opaque"]] = 1, float(node.opaque)
    flag[on["init"]] = float("init" in attrs)
    arithmetic = 0
    for name in _ARITHMETIC:
        if value := attrs.get(name):
            count[at[name]] = value
            arithmetic += value
    reduction = math.prod(e for e, a in zip(attrs["extents"], attrs["axes"], strict=True) if a == "R")
    count[at["runs"]], count[at["per_run"]], count[at["flops"]] = runs, arithmetic, attrs.get("flops", 0)
    count[at["axes"]], count[at["reduction"]] = len(attrs["axes"]), reduction
    _path(path, graph.tensors[node.outputs[0]].dtype.bytes if node.outputs else 4, count, flag)
    accesses = len(attrs["read_stride"]) + len(attrs["write_stride"])
    _traffic(path, runs, 4.0 * accesses, count)
    for side, slots in (("read", _READS), ("write", _WRITES)):
        lanes = attrs.get(f"{side}_lane", ())
        unique = attrs[f"{side}_unique"]
        order = sorted(range(len(unique)), key=unique.__getitem__, reverse=True)
        for slot, i in enumerate(order[:slots]):
            stride = attrs[f"{side}_stride"][i]
            name = f"{side}{slot}"
            count[at[f"{name}_unique"]] = unique[i]
            count[at[f"{name}_stride"]] = max(stride, 0)
            base = on[f"{name}_still"]
            flag[base + (3 if stride < 0 else min(stride, 2))] = 1
            if lanes:
                flag[base + 4 + (2 if lanes[i] < 0 else min(lanes[i], 2))] = 1


def _path(path: tuple[Node, ...], width: float, count: list[float], flag: list[float]) -> None:
    """What the loops around a block say together."""
    at = _COUNT_AT
    first = at["path_serial"]
    for loop in path:
        attrs: Mapping[str, Any] = loop.attrs
        kind = first + _KINDS.index(attrs["kind"])
        count[kind] = (count[kind] or 1) * attrs["extent"]
        count[at["path_unroll"]] = max(count[at["path_unroll"]], _unroll(attrs))
    if path:
        inner: Mapping[str, Any] = path[-1].attrs
        count[at["innermost"]] = inner["extent"]
        count[at["second"]] = path[-2].attrs["extent"] if len(path) > 1 else 1  # type: ignore[assignment]
        flag[_FLAG_AT["inner_serial"] + _KINDS.index(inner["kind"])] = 1
        if inner["kind"] == "vectorized":
            count[at["vector_bits"]] = inner["extent"] * width * 8
        if path[0].attrs["kind"] == "parallel":
            count[at["outer_parallel"]] = path[0].attrs["extent"]  # type: ignore[assignment]


def _traffic(path: tuple[Node, ...], runs: float, bytes_per_run: float, count: list[float]) -> None:
    """Bytes that pass caches of each size; see the module's docstring."""
    first = _COUNT_AT[f"past_{CACHES[0]}"]
    levels: list[Any] = [(p.attrs["working_set"], p.attrs["iterations"] // p.attrs["extent"]) for p in path]  # type: ignore[operator]
    level = 0
    for slot in range(len(CACHES) - 1, -1, -1):
        while level < len(levels) and levels[level][0] > CACHES[slot]:
            level += 1
        past = levels[level][0] * levels[level][1] if level < len(levels) else runs * bytes_per_run
        count[first + slot] = past

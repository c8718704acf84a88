"""Cells of NAS-Bench-201 and NAS-Bench-101 as small graphs with their accuracies, and who trains on which.

A cell's graph has one node for each operation that reaches the output (a convolution stands for its ReLU and batch
normalisation too) and a `Sum` where several tensors meet; identities are gone, sums of sums are one sum and operands
stand in the order of what they are computed from. So cells that compute the same function have one fingerprint: 15,625
cells of NAS-Bench-201 become 5,425 graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from costmodel.canonical import canonical
from costmodel.corpora import nb101, nb101_runs, nb201
from costmodel.corpora.blocks import NetBuilder
from costmodel.errors import DataError, InputError, SampleSchemaError
from costmodel.features import extract, numeric_channel, statistics
from costmodel.ir import Graph
from costmodel.model import Batch
from costmodel.training.embeddings import embed

ACCURACY_FILE = "nb201_accuracy.parquet"
DATASETS = {"cifar10": "cifar10_test", "cifar100": "cifar100_test", "imagenet16": "imagenet16_120_test"}
"""Data sets of NAS-Bench-201 and their columns in ACCURACY_FILE, in % of the test images."""

NB101_FILES = ("nasbench_only108.tfrecord", "nasbench_full.tfrecord")
NB201_INPUT, NB101_INPUT = (1, 16, 32, 32), (1, 128, 32, 32)
WINDOW = 8
"""Look-back of the causal attention; packs are padded to a multiple of it."""


@dataclass(frozen=True)
class Cells:
    """C cells, their G distinct graphs packed flat (N nodes, E edges of all relations), K accuracies of each.

    names (C,); graph (C,) index of the cell's graph; accuracy (C, K) in %; fingerprints (G,); stats (G, s)
    sentence (N,) row of text (S, t); numeric (N, f); src and seg (E,) with seg = relation · nodes + target, both
    counted inside the graph; graph g has the nodes node_start[g] … node_start[g + 1] − 1, edges likewise
    """

    names: Sequence[str]
    graph: np.ndarray
    accuracy: np.ndarray
    fingerprints: Sequence[str]
    sentence: np.ndarray
    text: np.ndarray
    numeric: np.ndarray
    node_start: np.ndarray
    src: np.ndarray
    seg: np.ndarray
    edge_start: np.ndarray
    stats: np.ndarray

    def pack(self, graphs: np.ndarray) -> Batch:
        """The graphs with these indices as one batch of the network."""
        counts = np.diff(self.node_start)[graphs]
        n = int(counts.sum())
        padded = -(-n // WINDOW) * WINDOW
        nodes = _spans(self.node_start, graphs)
        edges = _spans(self.edge_start, graphs)
        owner = np.repeat(np.arange(len(graphs)), np.diff(self.edge_start)[graphs])
        relation, target = np.divmod(self.seg[edges], counts[owner])
        offset = (np.cumsum(counts) - counts)[owner]
        src, seg = self.src[edges] + offset, relation * padded + target + offset

        def rows(table: np.ndarray) -> Tensor:
            return torch.from_numpy(np.concatenate([table, np.zeros((padded - n, table.shape[1]), np.float32)]))

        graph = np.concatenate([np.repeat(np.arange(len(graphs)), counts), np.full(padded - n, len(graphs))])
        return Batch(
            rows(self.text[self.sentence[nodes]]), rows(self.numeric[nodes]), torch.from_numpy(graph),
            torch.from_numpy(src), torch.from_numpy(seg),
            torch.from_numpy(self.stats[graphs]),
        )  # fmt: skip


def _spans(start: np.ndarray, graphs: np.ndarray) -> np.ndarray:
    """Indices start[g] … start[g + 1] − 1 of each graph g, one graph after the other."""
    counts = np.diff(start)[graphs]
    return np.arange(counts.sum()) + np.repeat(start[graphs] - (np.cumsum(counts) - counts), counts)


# --- graphs -----------------------------------------------------------------------------------------------------------


class _Folding:
    """Builds a cell's graph with sums flattened, equal sums shared and operands in canonical order."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.net = NetBuilder(name)
        x = self.net.input(shape)
        self.input = (x,)
        self.digest = {x: "x"}
        self.sums: dict[tuple[str, ...], str] = {}

    def total(self, terms: Sequence[str]) -> str:
        """The tensor that adds these."""
        terms = self.sorted(terms)
        if len(terms) == 1:
            return terms[0]
        if terms not in self.sums:
            y = self.net.node("Sum", terms, self.net.shape(terms[0]))
            self.sums[terms] = y
            self.digest[y] = "(" + "+".join(self.digest[t] for t in terms) + ")"
        return self.sums[terms]

    def sorted(self, terms: Iterable[str]) -> tuple[str, ...]:
        """In the order of what they are computed from."""
        return tuple(sorted(terms, key=self.digest.__getitem__))

    def apply(self, word: str, x: str, layer: Callable[[str], str]) -> str:
        """An operation, `word` to itself, on a tensor."""
        y = layer(x)
        self.digest[y] = f"{word}{self.digest[x]}"
        return y


def nb201_cell(arch: str) -> Graph:
    """One cell of the first stage from an arch string; a cell without a path to its output is one product with zero.

    Raises InputError.
    """
    cell = nb201.parse(nb201.fold(arch))
    fold = _Folding("cell", NB201_INPUT)
    net, channels = fold.net, NB201_INPUT[1]
    terms: list[tuple[str, ...]] = [fold.input, (), (), ()]
    layers: Mapping[str, Callable[[str], str]] = {
        "nor_conv_3x3": lambda x: net.conv(x, channels, 3),
        "nor_conv_1x1": lambda x: net.conv(x, channels, 1),
        "avg_pool_3x3": lambda x: net.average_pool(x, 3, 1, 1),
    }
    for target, edges in enumerate(cell, 1):
        for op, source in edges:
            if op == "skip_connect":
                terms[target] += terms[source]
            elif op != "none":
                terms[target] += (fold.apply(op, fold.total(terms[source]), layers[op]),)
    if not terms[3]:
        return canonical(net.build([net.scalar("Mul", fold.input[0])]))
    out = fold.total(terms[3])
    return canonical(net.build([out if out not in fold.input else net.unary("Identity", out)]))


def nb101_cell(matrix: nb101.Matrix, operations: tuple[str, ...]) -> Graph:
    """One module of the first stack; channels as in the benchmark, uneven divisions rounded. Raises InputError."""
    kept, labels = nb101.pruned(matrix, operations)
    last = len(kept) - 1
    fold = _Folding("module", NB101_INPUT)
    net, (x,) = fold.net, fold.input
    widths = nb101.channels_of(NB101_INPUT[1], NB101_INPUT[1], kept)
    even = max(1, NB101_INPUT[1] // max(1, sum(kept[v][last] for v in range(1, last))))

    def project(channels: int) -> str:
        return fold.apply("project", x, lambda t: net.conv(t, channels, 1))

    tensors = [x]
    for vertex in range(1, last):
        width = even if widths[vertex] != NB101_INPUT[1] else widths[vertex]
        parts = [tensors[i] for i in range(1, vertex) if kept[i][vertex]]
        if kept[0][vertex]:
            parts.append(project(width))
        word = labels[vertex]
        total = fold.total(parts)
        if word == nb101.POOL:
            tensors.append(fold.apply(word, total, lambda t: nb101.max_pool(net, t, 3, 1, 1)))
        else:
            kernel = 3 if word == nb101.CONV3 else 1
            tensors.append(fold.apply(word, total, lambda t, k=kernel, w=width: net.conv(t, w, k)))  # type: ignore[misc]
    ends = fold.sorted(tensors[v] for v in range(1, last) if kept[v][last])
    y = ends[0] if ends else project(NB101_INPUT[1])
    if len(ends) > 1:
        y = net.node("Concat", ends, NB101_INPUT, axis=1)
        fold.digest[y] = "[" + ",".join(fold.digest[t] for t in ends) + "]"
    if ends and kept[0][last]:
        y = fold.total([y, project(NB101_INPUT[1])])
    return canonical(net.build([y]))


_CLASSES = ("conv3", "conv1", "pool", "sum")


def _class(graph: Graph, index: int) -> int:
    node = graph.nodes[index]
    if node.op == "Conv":
        return 0 if node.attrs["kernel_shape"] == (3, 3) else 1
    return 2 if node.op.endswith("Pool") else 3


def places(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Where nodes stand: (n, 21) per node and (15,) per graph, of order one.

    For all paths from the input to a node, and from it to the output: their number (log), the mean, the largest
    and the least number of 3×3 convolutions, of convolutions and of pools on them. Beside that, whether a node is a
    sum, and for the graph the number of nodes of each class.
    """
    n = len(graph)
    ops = np.array([_class(graph, i) for i in range(n)])
    weight = np.stack([ops == 0, ops <= 1, ops == 2], 1).astype(np.float64)  # (n, 3) steps along a path
    producer = graph.producer
    feeds = [[producer.get(t, -1) for t in node.inputs if t not in graph.params] for node in graph.nodes]
    users: list[list[int]] = [[] for _ in range(n)]
    for node, sources in enumerate(feeds):
        for source in sources:
            if source >= 0:
                users[source].append(node)
    ends = {producer[t] for t in graph.outputs}
    before = _paths(range(n), feeds, weight, {i for i in range(n) if -1 in feeds[i]})
    after = _paths(range(n - 1, -1, -1), users, weight, ends)
    kinds = np.bincount(ops, minlength=4)
    end = before[max(ends)]
    loose = [feeds[max(ends)].count(-1)]
    node_table = np.concatenate([before, after, (ops == 3)[:, None]], 1)
    return node_table.astype(np.float32), np.concatenate([np.log1p(kinds), end, np.log1p(loose)]).astype(np.float32)


def _paths(
    order: Iterable[int], feeds: Sequence[Sequence[int]], weight: np.ndarray, roots: Collection[int]
) -> np.ndarray:
    """(n, 10): log of the number of paths; mean, largest and least number of each of the three steps on them."""
    n = len(weight)
    count, mean, most, least = np.zeros(n), np.zeros((n, 3)), np.zeros((n, 3)), np.zeros((n, 3))
    for node in order:
        sources = [s for s in feeds[node] if s >= 0]
        bare = max(1, list(feeds[node]).count(-1)) if node in roots else 0
        counts = np.array([count[s] for s in sources] + [bare])
        count[node] = counts.sum()
        none = np.zeros((1, 3))
        mean[node] = weight[node] + counts @ np.concatenate([mean[sources], none]) / max(count[node], 1)
        ways = np.concatenate([most[sources], none]) if bare else most[sources]
        most[node] = weight[node] + ways.max(0)
        ways = np.concatenate([least[sources], none]) if bare else least[sources]
        least[node] = weight[node] + ways.min(0)
    return np.concatenate([np.log1p(count)[:, None], mean / 2, most / 2, least / 2], 1)


def read_cells(
    names: Sequence[str], accuracy: np.ndarray, build: Callable[[str], Graph], key: Callable[[str], str], cache: Path,
    encoder: str, say: Callable[[str], None],
) -> Cells:  # fmt: skip
    """Cells by name with (C, K) accuracies; `key` is equal for names that are known to build the same graph.

    Raises DataError for a name that is no cell.
    """
    by_key: dict[str, int] = {}
    place: dict[str, int] = {}
    graphs: list[Graph] = []
    of = np.zeros(len(names), np.int64)
    for i, name in enumerate(names):
        try:
            short = key(name)
            if short not in by_key:
                graph = build(short)
                by_key[short] = place.setdefault(graph.fingerprint, len(place))
                if len(place) > len(graphs):
                    graphs.append(graph)
        except InputError as error:
            raise DataError(f"cell {i} is not of the search space: {error}") from None
        of[i] = by_key[short]
    say(f"{len(names)} cells, {len(graphs)} distinct graphs")
    features = [extract(graph) for graph in graphs]
    extra = [places(graph) for graph in graphs]
    vocabulary = list(dict.fromkeys(s for f in features for s in f.sentences))
    ids = {s: i for i, s in enumerate(vocabulary)}
    sentences = np.array([ids[s] for f in features for s in f.sentences], np.int64)
    stats = np.stack(
        [np.concatenate([statistics(f.columns, f.batch), e[1]]) for f, e in zip(features, extra, strict=True)]
    )
    channel = numeric_channel(np.concatenate([f.columns for f in features]))
    numeric = np.concatenate([channel, np.concatenate([e[0] for e in extra])], 1)
    return Cells(
        names, of, accuracy, list(place), sentences, embed(vocabulary, cache, encoder, say).astype(np.float32), numeric,
        np.cumsum([0, *map(len, features)]),
        np.concatenate([f.src for f in features]).astype(np.int64),
        np.concatenate([f.seg for f in features]).astype(np.int64),
        np.cumsum([0, *(len(f.src) for f in features)]), stats.astype(np.float32),
    )  # fmt: skip


def nb201_cells(data: Path, cache: Path, encoder: str, say: Callable[[str], None]) -> Cells:
    """All cells of ACCURACY_FILE with their accuracies on DATASETS. Raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = data / ACCURACY_FILE if data.is_dir() else data
    try:
        table = pq.read_table(path, columns=["arch", *DATASETS.values()])
    except (OSError, pa.ArrowException) as error:
        message = str(error).splitlines()[0]
        raise DataError(f"cannot read {path} ({message}); point --data at the folder of {ACCURACY_FILE}") from None
    if missing := {"arch", *DATASETS.values()} - set(table.column_names):
        raise SampleSchemaError(f"{path} has no column {', '.join(sorted(missing))}; use the published table")
    accuracy = np.stack([table[c].to_numpy() for c in DATASETS.values()], 1).astype(np.float64)
    if not len(accuracy) or not np.isfinite(accuracy).all():
        raise SampleSchemaError(f"{path} is empty or lacks accuracies; use the published table")
    return read_cells(table["arch"].to_pylist(), accuracy, nb201_cell, nb201.fold, cache, encoder, say)


def nb101_cells(data: Path, cache: Path, encoder: str, say: Callable[[str], None]) -> Cells:
    """All modules of a published file with their mean test accuracy after 108 epochs in %. Raises DataError."""
    path = data
    if data.is_dir():
        found = [data / name for name in NB101_FILES if (data / name).exists()]
        if not found:
            raise DataError(
                f"none of {', '.join(NB101_FILES)} is in {data}; download one from google-research/nasbench"
            )
        path = found[0]
    modules = nb101_runs.modules(path)
    if not modules:
        raise DataError(f"{path} holds no module trained for 108 epochs; use {NB101_FILES[0]}")
    accuracy = 100 * np.array([[m.test_accuracy] for m in modules])
    return read_cells(
        [m.name for m in modules], accuracy, lambda name: nb101_cell(*nb101.parse(name)), str, cache, encoder, say
    )


# --- splits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """Indices of cells: `train` and `val` share no graph, `unseen` are all cells of the graphs of neither."""

    train: np.ndarray
    val: np.ndarray
    unseen: np.ndarray


def draw(cells: Cells, count: int, seed: int, validation: int = 200) -> Draw:
    """`count` cells drawn uniformly, then `validation` cells of other graphs; by `seed` alone. Raises DataError."""
    order = np.random.default_rng((seed, count)).permutation(len(cells.graph))
    train, rest = order[:count], order[count:]
    val = rest[~np.isin(cells.graph[rest], cells.graph[train])][:validation]
    taken = np.concatenate([cells.graph[train], cells.graph[val]])
    unseen = np.flatnonzero(~np.isin(cells.graph, taken))
    if len(train) < count or len(val) < validation or len(unseen) < 2:
        raise DataError(
            f"{len(cells.graph)} cells are too few to train on {count} and select on {validation} of other graphs;"
            " use the whole table or fewer cells"
        )
    return Draw(np.sort(train), np.sort(val), unseen)

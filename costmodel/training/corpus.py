"""The corpora as arrays: every graph lowered once, kept on disk one shard per source, so that building resumes.

Sources and their licences are described with the data; nothing of them is written anywhere but the cache folder.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from costmodel import corpora
from costmodel.canonical import canonical
from costmodel.corpora import operators, transformers
from costmodel.errors import DataError
from costmodel.features import COLUMNS, FUSING_RUNTIMES, extract
from costmodel.forms import rewrite
from costmodel.ir import Graph
from costmodel.platforms import parse_runtime
from costmodel.prompts import node_sentences
from costmodel.training.split import TRAIN_GRAPHS, split_of

LoadGraph = Callable[[bytes], Graph]
FORMAT = 5
SOURCES = ("timm", "nb201", "fbnet", "ofa", "transformers", "neusight-ops", "tinynas-ops")
MEASURED = "measured"
"""The source of samples of our own."""
FOLDED, EXPORTED = "#folded", "#exported"
"""Mark a NAS-Bench-201 network without its zeros and dead branches, and the same in the exported form
(`costmodel.forms`), which is what a runtime that fuses makes of it. All forms stay on one side of the split."""

LIMITS = {"nb201": 5000, "fbnet": 2500, "ofa": 2500, "neusight-ops": 25_000, "tinynas-ops": 25_000}
"""Graphs taken from sources that hold more than training needs; chosen by a fixed seed."""


@dataclass(frozen=True)
class Lowered:
    """What is kept of one graph. `family` is the fingerprint that decides its split; `in_layers` tells that the
    exported form (`costmodel.forms`) is another graph."""

    name: str
    fingerprint: str
    family: str
    batch: int
    columns: np.ndarray
    sentences: list[str]
    paper: list[str]
    src: np.ndarray
    seg: np.ndarray
    in_layers: bool


@dataclass(frozen=True)
class Row:
    """One measurement: `graph` names a lowered graph, `source` the data set it comes from."""

    graph: str
    device: str
    runtime: str
    precision: str
    batch: int
    latency_ms: float
    source: str
    note: str = ""


def lower(name: str, graph: Graph, family: str | None = None) -> Lowered:
    """Features of one graph under both templates."""
    graph = canonical(graph)
    features = extract(graph)
    return Lowered(
        name, graph.fingerprint, family or graph.fingerprint, features.batch, features.columns,
        list(features.sentences),
        node_sentences(graph, "paper"), features.src.astype(np.int32), features.seg.astype(np.int32),
        rewrite(graph, exported=True) is not None,
    )  # fmt: skip


# --- shards -----------------------------------------------------------------------------------------------------------


def write_shard(folder: Path, graphs: Sequence[Lowered], rows: Sequence[Row], failures: Sequence[str]) -> None:
    """Writes one source's shard; the marker file comes last, so a cut leaves no half shard."""
    folder.mkdir(parents=True, exist_ok=True)
    place = {g.name: i for i, g in enumerate(graphs)}
    kept = [r for r in rows if r.graph in place]
    sentences: dict[str, int] = {}
    ids = [[sentences.setdefault(s, len(sentences)) for s in g.sentences] for g in graphs]
    paper_ids = [[sentences.setdefault(s, len(sentences)) for s in g.paper] for g in graphs]
    platforms: dict[tuple[str, str, str], int] = {}
    sources: dict[str, int] = {}
    arrays = {
        "columns": np.concatenate([g.columns for g in graphs]),
        "sentence": np.array([i for part in ids for i in part], np.int32),
        "paper": np.array([i for part in paper_ids for i in part], np.int32),
        "nodes": np.array([len(g.columns) for g in graphs], np.int64),
        "src": np.concatenate([g.src for g in graphs]),
        "seg": np.concatenate([g.seg for g in graphs]),
        "edges": np.array([len(g.src) for g in graphs], np.int64),
        "batch": np.array([g.batch for g in graphs], np.float32),
        "in_layers": np.array([g.in_layers for g in graphs], bool),
        "row_graph": np.array([place[r.graph] for r in kept], np.int32),
        "row_platform": np.array(
            [platforms.setdefault((r.device, r.precision, r.runtime), len(platforms)) for r in kept], np.int32
        ),
        "row_source": np.array([sources.setdefault(r.source, len(sources)) for r in kept], np.int32),
        "row_batch": np.array([r.batch for r in kept], np.float32),
        "row_ms": np.array([r.latency_ms for r in kept], np.float64),
        "row_test": np.array([r.note == "test" for r in kept], bool),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    meta = {
        "format": FORMAT, "columns": COLUMNS, "names": [g.name for g in graphs],
        "fingerprints": [g.fingerprint for g in graphs], "families": [g.family for g in graphs],
        "sentences": list(sentences),
        "platforms": list(platforms), "sources": list(sources), "failures": list(failures),
    }  # fmt: skip
    (folder / "shard.json").write_text(json.dumps(meta))


@dataclass
class Corpus:
    """All shards as one: arrays as in `write_shard`, indices shifted into one numbering."""

    columns: np.ndarray
    sentence: np.ndarray
    paper: np.ndarray
    node_start: np.ndarray
    src: np.ndarray
    seg: np.ndarray
    edge_start: np.ndarray
    batch: np.ndarray
    in_layers: np.ndarray
    row_graph: np.ndarray
    row_platform: np.ndarray
    row_source: np.ndarray
    row_batch: np.ndarray
    row_ms: np.ndarray
    row_test: np.ndarray
    names: list[str]
    fingerprints: list[str]
    families: list[str]
    sentences: list[str]
    platforms: list[tuple[str, str, str]]
    sources: list[str]

    @cached_property
    def graph_split(self) -> np.ndarray:
        """(G,) `train`, `val` or `test` per graph; published test graphs stay test."""
        test = {self.families[g] for g in np.unique(self.row_graph[self.row_test])}
        train = {f for name, f in zip(self.names, self.families, strict=False) if name in TRAIN_GRAPHS}
        return np.array([split_of(f, train, test) for f in self.families])


def read_corpus(cache: Path, sources: Iterable[str] = SOURCES) -> Corpus:
    """Merges the shards of `cache`. Raises DataError when one is missing or of another format."""
    parts: dict[str, list[np.ndarray]] = {}
    names: list[str] = []
    fingerprints: list[str] = []
    families: list[str] = []
    tables: dict[str, dict[Any, int]] = {"sentences": {}, "platforms": {}, "sources": {}}
    for source in sources:
        folder = cache / source
        marker = folder / "shard.json"
        if not marker.exists():
            raise DataError(f"no corpus shard '{source}' in {cache}; build it with `ledg-cost train --data DIR`")
        meta = json.loads(marker.read_text())
        if meta["format"] != FORMAT or tuple(meta["columns"]) != COLUMNS:
            raise DataError(f"corpus shard '{source}' in {cache} is of another version; delete {folder} to rebuild it")
        arrays = {p.stem: np.load(p) for p in folder.glob("*.npy")}
        shift = {
            key: np.array([tables[key].setdefault(_key(v), len(tables[key])) for v in meta[key]], np.int32)
            for key in tables
        }
        arrays["sentence"] = shift["sentences"][arrays["sentence"]]
        arrays["paper"] = shift["sentences"][arrays["paper"]]
        arrays["row_platform"] = shift["platforms"][arrays["row_platform"]]
        arrays["row_source"] = shift["sources"][arrays["row_source"]]
        arrays["row_graph"] = arrays["row_graph"] + len(names)
        names += meta["names"]
        fingerprints += meta["fingerprints"]
        families += meta["families"]
        for key, array in arrays.items():
            parts.setdefault(key, []).append(array)
    whole = {key: np.concatenate(arrays) for key, arrays in parts.items()}
    starts = {key: np.concatenate([[0], np.cumsum(whole.pop(key))]) for key in ("nodes", "edges")}
    return Corpus(
        **whole, node_start=starts["nodes"], edge_start=starts["edges"], names=names, fingerprints=fingerprints,
        families=families, sentences=list(tables["sentences"]), platforms=list(tables["platforms"]),
        sources=list(tables["sources"]),
    )  # fmt: skip


def append(corpus: Corpus, rows: Sequence[Row]) -> Corpus:
    """`corpus` with more rows of its own graphs, told by name."""
    place = {name: i for i, name in enumerate(corpus.names)}
    platforms = {p: i for i, p in enumerate(corpus.platforms)}
    sources = {s: i for i, s in enumerate(corpus.sources)}
    more = {
        "row_graph": [place[r.graph] for r in rows],
        "row_platform": [platforms.setdefault((r.device, r.precision, r.runtime), len(platforms)) for r in rows],
        "row_source": [sources.setdefault(r.source, len(sources)) for r in rows],
        "row_batch": [r.batch for r in rows],
        "row_ms": [r.latency_ms for r in rows],
        "row_test": [r.note == "test" for r in rows],
    }
    columns = {key: getattr(corpus, key) for key in more}
    merged = {key: np.concatenate([old, np.array(more[key], old.dtype)]) for key, old in columns.items()}
    fields = {**vars(corpus), **merged, "platforms": list(platforms), "sources": list(sources)}
    return Corpus(**{name: fields[name] for name in Corpus.__dataclass_fields__})


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# --- sources ----------------------------------------------------------------------------------------------------------


def build_corpus(data: Path, cache: Path, load: LoadGraph, say: Callable[[str], None], workers: int = 2) -> None:
    """Builds every shard of `cache` that is not there yet from the data folder. Raises DataError when files lack."""
    for source in SOURCES:
        folder = cache / source
        if (folder / "shard.json").exists():
            continue
        say(f"building corpus shard {source} …")
        rows, jobs = _jobs(source, data, load)
        graphs: list[Lowered] = []
        failures: list[str] = []
        with ProcessPoolExecutor(workers) as pool:
            for done, result in enumerate(pool.map(_attempt, jobs, chunksize=8), 1):
                if isinstance(result, str):
                    failures.append(result)
                else:
                    graphs.append(result)
                if done % 500 == 0:
                    say(f"  {source}: {done} graphs")
        write_shard(folder, graphs, rows, failures)
        say(f"  {source}: {len(graphs)} graphs, {len(rows)} rows, {len(failures)} failures {failures[:3]}")


def _attempt(job: Callable[[], Lowered]) -> Lowered | str:
    try:
        return job()
    except Exception as error:
        return f"{error}"


def _jobs(source: str, data: Path, load: LoadGraph) -> tuple[list[Row], Iterator[Callable[[], Lowered]]]:
    if source == "timm":
        rows = [r for r in latency_rows(data) if r.graph.startswith("timm/")]
        return rows, (partial(_lower_bytes, name, raw, load) for name, raw in timm_archive(data))
    if source in ("nb201", "fbnet", "ofa"):
        rows = [r for r in latency_rows(data) if r.graph.startswith(source)]
        first = {r.graph for r in rows if r.source.startswith("nnlqp")}
        names = _choose(sorted({r.graph for r in rows} - first), LIMITS[source] - len(first)) + sorted(first)
        if source == "nb201":
            rows = [replace(r, graph=marked(r)) for r in rows]
            names = [name for plain in names for name in (plain, plain + FOLDED)] + [
                n + EXPORTED for n in sorted(first)
            ]
        return rows, (partial(lower_named, name) for name in names)
    if source == "transformers":
        configs = json.loads(_file(data, "neusight_model_configs.json").read_text())
        rows, specs = transformer_rows(data, configs)
        return rows, (partial(_lower_transformer, name, configs[m], s, b) for name, (m, s, b) in specs.items())
    rows, shapes = operator_rows(data, source.removesuffix("-ops"))
    chosen = _choose(sorted(shapes), LIMITS[source])
    return rows, (partial(_lower_operator, name, shapes[name]) for name in chosen)


def _choose(names: list[str], limit: int) -> list[str]:
    order = np.random.default_rng(0).permutation(len(names))[:limit]
    return [names[i] for i in sorted(order)]


def _lower_bytes(name: str, raw: bytes, load: LoadGraph) -> Lowered:
    return lower(name, load(raw))


def marked(row: Row) -> str:
    """The name of a row's NAS-Bench-201 network with the mark of the form in which it was run."""
    if not corpora.runs_folded(row.device, row.runtime):
        return row.graph
    return row.graph + (EXPORTED if parse_runtime(row.runtime)[0] in FUSING_RUNTIMES else FOLDED)


def named_graph(name: str, batch: int = 1) -> Graph:
    """The network of a search space that a name of the corpus stands for, marked or not."""
    plain, mark, _ = name.partition("#")
    graph = corpora.build(plain, batch, folded=bool(mark))
    exported = rewrite(canonical(graph), exported=True) if name.endswith(EXPORTED) else None
    return exported.graph if exported else graph


def lower_named(name: str) -> Lowered:
    """Features of the network that `named_graph` gives."""
    return lower(name, named_graph(name), corpora.build(name.partition("#")[0], folded=True).fingerprint)


def _lower_transformer(name: str, config: dict[str, Any], length: int, batch: int) -> Lowered:
    return lower(name, transformers.build(config, length, batch))


def _lower_operator(name: str, row: dict[str, Any]) -> Lowered:
    return lower(name, operators.build(row))


def _file(data: Path, name: str) -> Path:
    path = data / name
    if not path.exists():
        raise DataError(f"{name} is not in {data}; point --data at the folder that holds it")
    return path


def timm_archive(data: Path) -> Iterator[tuple[str, bytes]]:
    """(graph name, ONNX bytes) of every network in timm_graphs.tar.xz."""
    with tarfile.open(_file(data, "timm_graphs.tar.xz"), "r:xz") as archive:
        for member in archive:
            handle = archive.extractfile(member) if member.isfile() else None
            if handle is not None and member.name.endswith(".onnx"):
                yield "timm/" + Path(member.name).name.removesuffix(".onnx"), handle.read()


def latency_rows(data: Path) -> list[Row]:
    """latency.parquet as rows; channels-last runs get `+nhwc` behind the runtime, broken timers are dropped.

    A row counts as broken or degenerate where its latency is under a tenth of the 0.5 % quantile of its source, device
    and batch: networks without a path to their output.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(_file(data, "latency.parquet")).to_pydict()
    key = list(zip(table["source"], table["device"], table["batch"], table["runtime"], strict=False))
    values: dict[Any, list[float]] = {}
    for k, ms in zip(key, table["latency_ms"], strict=False):
        values.setdefault(k, []).append(ms)
    floor = {k: float(np.quantile(v, 0.005)) / 10 if len(v) > 100 else 0.0 for k, v in values.items()}
    layout = ["+nhwc" if note == "nhwc" else "" for note in table["note"]]
    columns = (table[c] for c in ("graph", "device", "precision", "batch", "latency_ms", "source", "note"))
    return [
        Row(graph, device, runtime + suffix, precision, batch, ms, source, note)
        for k, runtime, suffix, (graph, device, precision, batch, ms, source, note) in zip(
            key, table["runtime"], layout, zip(*columns, strict=False), strict=False
        )
        if ms > floor[k]
    ]


def transformer_rows(data: Path, configs: dict[str, Any]) -> tuple[list[Row], dict[str, tuple[str, int, int]]]:
    """neusight_e2e.csv as rows, and graph name → (configuration, sequence length, batch)."""
    import csv

    rows: list[Row] = []
    specs: dict[str, tuple[str, int, int]] = {}
    with _file(data, "neusight_e2e.csv").open() as handle:
        for line in csv.DictReader(handle):
            config = transformers.config_name(line["model"], configs)
            if config is None:
                continue
            length, batch = int(line["seq_len"]), int(line["batch"])
            name = f"transformers/{config}@{length}x{batch}"
            specs[name] = (config, length, batch)
            device = operators.device_name(line["device"])
            rows.append(
                Row(
                    name,
                    device,
                    "pytorch-eager-2.1",
                    line["precision"],
                    batch,
                    float(line["latency_ms"]),
                    "neusight-e2e",
                )
            )
    return rows, specs


def operator_rows(data: Path, source: str) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """ops.parquet's rows of one source, and graph name → the shape columns it is built from."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(_file(data, "ops.parquet"))
    table = table.filter(pc.equal(table["source"], source))
    measured = {"source", "device", "runtime", "precision", "latency_ms"}
    shape_names = [c for c in table.column_names if c not in measured]
    columns = table.to_pydict()
    rows: list[Row] = []
    shapes: dict[str, dict[str, Any]] = {}
    for i in range(table.num_rows):
        shape = {c: columns[c][i] for c in shape_names if columns[c][i] is not None and columns[c][i] == columns[c][i]}
        name = "op/" + ",".join(f"{c}={v:g}" if isinstance(v, float) else f"{c}={v}" for c, v in shape.items())
        shapes[name] = {**shape, "source": source}
        leading = shape["batch"] * shape["m"] if shape["op"] == "linear" else shape["batch"]
        rows.append(
            Row(
                name, operators.device_name(columns["device"][i]), columns["runtime"][i], columns["precision"][i],
                int(leading), columns["latency_ms"][i], f"{source}-ops",
            )
        )  # fmt: skip
    return rows, shapes

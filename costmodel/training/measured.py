"""Our own samples and NNLQP's data as corpora: one shard of whatever a person measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from costmodel.api import load_graph
from costmodel.corpora import nnlqp
from costmodel.errors import DataError, LedgCostError
from costmodel.ir import Graph
from costmodel.samples import Sample
from costmodel.training.corpus import MEASURED, SOURCES, Corpus, Lowered, Row, append, lower, read_corpus, write_shard

GraphOf = Callable[[str], Graph]
"""The graph behind a sample's name; must be importable by worker processes."""


def build_measured(
    samples: Sequence[Sample], graph_of: GraphOf, cache: Path, say: Callable[[str], None], workers: int = 2
) -> Corpus:
    """A corpus of `samples`, lowered once and kept in `cache`; names that differ stand for networks that differ.

    A sample flagged "test" is a published test row. Raises DataError when there is no sample.
    """
    return read_corpus(cache, [_shard(samples, graph_of, cache, say, workers)])


def add_measured(
    corpus: Corpus, samples: Sequence[Sample], graph_of: GraphOf, cache: Path, say: Callable[[str], None]
) -> Corpus:
    """`corpus`, read from `cache`, with `samples` as a further source: of its own graphs by name, of others lowered.

    Raises DataError when none of the samples is of a graph that `corpus` lacks.
    """
    known = set(corpus.names)
    shard = _shard([s for s in samples if s.name not in known], graph_of, cache, say)
    return append(read_corpus(cache, [*SOURCES, shard]), [_row(s) for s in samples if s.name in known])


def nnlqp_samples(root: Path) -> list[Sample]:
    """NNLQP's published rows of platforms with a spec sheet, networks named `nnlqp/<family>/<path in the folder>`.

    Raises DataError, SampleSchemaError for a folder that is not in the format.
    """
    return [
        Sample(
            "0" * 64, row.platform.device, row.platform.precision, row.platform.runtime, row.batch, row.latency_ms,
            name=f"nnlqp/{row.family}/{row.model.relative_to(root).as_posix()}",
        )
        for row in nnlqp.read(root)
        if row.platform.device and row.model.is_file()
    ]  # fmt: skip


def nnlqp_graph(root: Path, name: str) -> Graph:
    """The graph of a network that `nnlqp_samples` named. Raises InputError."""
    return load_graph(root / name.split("/", 2)[2])


def _row(s: Sample) -> Row:
    note = "test" if "test" in s.flags else ""
    return Row(s.name, s.device, s.runtime, s.precision, s.batch, s.latency_ms, MEASURED, note)


def _shard(
    samples: Sequence[Sample], graph_of: GraphOf, cache: Path, say: Callable[[str], None], workers: int = 2
) -> str:
    """The name of the shard of `samples` in `cache`, built where it is not there."""
    if not samples:
        raise DataError("no samples to train on; measure some with `ledg-cost profile` or check --samples")
    text = "\n".join(f"{s.name} {s.device} {s.precision} {s.runtime} {s.batch} {s.latency_ms!r}" for s in samples)
    shard = f"{MEASURED}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not (cache / shard / "shard.json").exists():
        names = list(dict.fromkeys(s.name for s in samples))
        say(f"lowering {len(names)} measured networks …")
        graphs: list[Lowered] = []
        failures: list[str] = []
        with ProcessPoolExecutor(workers) as pool:
            for result in pool.map(partial(_lower, graph_of), names, chunksize=8):
                (failures if isinstance(result, str) else graphs).append(result)  # type: ignore[arg-type]
        for line in failures[:5]:
            say(f"  left out: {line}")
        write_shard(cache / shard, graphs, [_row(s) for s in samples], failures)
    return shard


def _lower(graph_of: GraphOf, name: str) -> Lowered | str:
    try:
        return lower(name, graph_of(name))
    except LedgCostError as error:
        return f"{name}: {error}"

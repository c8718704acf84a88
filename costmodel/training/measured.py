"""Our own samples and NNLQP's data as corpora: one shard of whatever a person measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from costmodel.errors import DataError, LedgCostError
from costmodel.ir import Graph
from costmodel.samples import Sample
from costmodel.training.corpus import Corpus, Lowered, Row, lower, read_corpus, write_shard

GraphOf = Callable[[str], Graph]
"""The graph behind a sample's name; must be importable by worker processes."""

SOURCE = "measured"


def build_measured(
    samples: Sequence[Sample], graph_of: GraphOf, cache: Path, say: Callable[[str], None], workers: int = 2
) -> Corpus:
    """A corpus of `samples`, lowered once and kept in `cache`; names that differ stand for networks that differ.

    A sample flagged "test" is a published test row. Raises DataError when there is no sample.
    """
    if not samples:
        raise DataError("no samples to train on; measure some with `ledg-cost profile` or check --samples")
    text = "\n".join(f"{s.name} {s.device} {s.precision} {s.runtime} {s.batch} {s.latency_ms!r}" for s in samples)
    shard = f"{SOURCE}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
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
        rows = [
            Row(s.name, s.device, s.runtime, s.precision, s.batch, s.latency_ms, SOURCE, "test" * ("test" in s.flags))
            for s in samples
        ]
        write_shard(cache / shard, graphs, rows, failures)
    return read_corpus(cache, [shard])


def _lower(graph_of: GraphOf, name: str) -> Lowered | str:
    try:
        return lower(name, graph_of(name))
    except LedgCostError as error:
        return f"{name}: {error}"

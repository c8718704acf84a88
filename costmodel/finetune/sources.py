"""Where samples come from: a sample store or a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from costmodel.errors import DataError
from costmodel.ir import Graph
from costmodel.samples import Sample, SampleStore, default_store

STORE = "store"
"""The name of the user's own store."""


@dataclass(frozen=True)
class Measured:
    """Samples and, by fingerprint, the graphs of those that came with one."""

    samples: list[Sample]
    graphs: dict[str, Graph]

    def by_platform(self) -> dict[str, list[Sample]]:
        """`device|precision|runtime` → its samples, in order."""
        found: dict[str, list[Sample]] = {}
        for sample in self.samples:
            found.setdefault(sample.platform_key, []).append(sample)
        return found


def read_measured(
    source: str | os.PathLike[str] = STORE,
    device: str | None = None,
    precision: str | None = None,
    runtime: str | None = None,
    fingerprints: Iterable[str] | None = None,
) -> Measured:
    """Samples that match all that is given, with their graphs.

    source   `store` for the user's own, or a file: Parquet by its ending, else a sample store
    runtime  without a version matches every version

    Raises DataError if the source cannot be read.
    """
    wanted = None if fingerprints is None else set(fingerprints)
    if str(source).endswith(".parquet"):
        return _from_parquet(Path(source), device, precision, runtime, wanted)
    path = default_store() if str(source) == STORE else Path(source)
    if not path.is_file():
        raise DataError(f"no samples in {path}; measure some with `ledg-cost profile`, or name a file with --samples")
    with SampleStore(path) as store:
        samples = store.query(device=device, precision=precision, runtime=runtime)
        samples = [s for s in samples if wanted is None or s.fingerprint in wanted]
        known = store.fingerprints()
        graphs = {f: store.graph(f) for f in dict.fromkeys(s.fingerprint for s in samples) if f in known}
    return Measured(samples, graphs)


def _from_parquet(
    path: Path, device: str | None, precision: str | None, runtime: str | None, wanted: set[str] | None
) -> Measured:
    from costmodel.samples import parquet

    samples: list[Sample] = []
    graphs: dict[str, Graph] = {}
    for sample, graph in parquet.read(path):
        if wanted is not None and sample.fingerprint not in wanted:
            continue
        if graph is not None:
            graphs[sample.fingerprint] = graph
        fits = device in (None, sample.device) and precision in (None, sample.precision)
        if fits and (runtime is None or _is_release(sample.runtime, runtime)):
            samples.append(sample)
    return Measured(samples, graphs)


def _is_release(label: str, runtime: str) -> bool:
    return label == runtime or any(label.startswith(runtime + mark) and label[len(runtime) + 1 :][:1].isdigit()
                                   for mark in ("-", "."))  # fmt: skip

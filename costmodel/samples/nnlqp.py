"""NNLQP's text format (see `costmodel.corpora.nnlqp`) as samples, and samples in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from costmodel.corpora import nnlqp
from costmodel.corpora.nnlqp import NnlqpPlatform, Row
from costmodel.errors import DataError, InputError
from costmodel.ir import Graph
from costmodel.samples.sample import Sample

Lower = Callable[[Path, int], Graph]
"""Reads a model file at a batch size."""

SOURCE = "import:nnlqp"
_FIRST_OWN_NUMBER = 1000
_FAMILY = re.compile("|".join(sorted(nnlqp.FAMILIES, key=len, reverse=True)))
_GENERATED = {"resnet": "resnet18", "vgg": "vgg16", "efficientnet": "efficientb0"}
"""Families whose generated networks have another name than NNLQP's."""


def read(path: str | Path, lower: Lower, skipped: Counter[str]) -> Iterator[tuple[Sample, Graph | None]]:
    """Samples of a folder in NNLQP's layout; each graph comes with its first sample.

    What cannot be used is counted in `skipped` by reason: platforms without a spec sheet here, missing model files,
    models that cannot be lowered. NNLQP gives one latency per network and no statistics, and no time of measurement.
    Raises DataError, SampleSchemaError for a folder or line that is not in the format.
    """
    lowered: dict[tuple[Path, int], str] = {}
    for row in nnlqp.read(path):
        graph: Graph | None = None
        key = (row.model, row.batch)
        if not row.platform.device:
            skipped[f"no spec sheet for {row.platform.name}"] += 1
            continue
        if key not in lowered:
            graph = _lowered(row, lower, skipped)
            lowered[key] = graph.fingerprint if graph is not None else ""
        elif not lowered[key]:
            skipped["model without a graph, again"] += 1
        if lowered[key]:
            yield _sample(row, lowered[key]), graph


def _lowered(row: Row, lower: Lower, skipped: Counter[str]) -> Graph | None:
    if not row.model.is_file():
        skipped["model file missing"] += 1
        return None
    try:
        return lower(row.model, row.batch)
    except InputError as error:
        skipped[f"{row.model.name}: {error}"] += 1
        return None


def _sample(row: Row, fingerprint: str) -> Sample:
    facts = {"subset": row.subset, "family": row.family, "platform": row.platform.name} | (
        {"stage": row.stage} if row.stage else {}
    )
    return Sample(
        fingerprint, row.platform.device, row.platform.precision, row.platform.runtime, row.batch, row.latency_ms,
        name=row.name, environment=facts, source=SOURCE, measured_at="",
    )  # fmt: skip


def write(folder: str | Path, samples: Iterable[Sample], graph: Callable[[str], Graph]) -> int:
    """Writes samples as a new folder: `gt.txt`, weightless models under `onnx/<family>/`, and `platforms.txt` for
    platforms that NNLQP does not number. Returns the number of lines.

    graph  gives the graph of a fingerprint, as `SampleStore.graph`

    The format holds no statistics. Raises DataError if the folder has a `gt.txt` already or a graph is not to be had.
    """
    root = Path(folder)
    if (root / nnlqp.FILE).exists():
        raise DataError(f"{root} has a {nnlqp.FILE} already; give a new folder")
    root.mkdir(parents=True, exist_ok=True)
    return nnlqp.write_lines(root, _rows(root, samples, graph))


def _rows(root: Path, samples: Iterable[Sample], graph: Callable[[str], Graph]) -> Iterator[Row]:
    from costmodel.onnx_writer import to_onnx

    known = {(p.device, p.precision, p.runtime): p for p in nnlqp.PLATFORMS.values() if p.device}
    models: dict[str, tuple[str, Path]] = {}
    taken: set[Path] = set()
    for sample in samples:
        key = (sample.device, sample.precision, sample.runtime)
        if key not in known:
            number = _FIRST_OWN_NUMBER + sum(p.number >= _FIRST_OWN_NUMBER for p in known.values())
            known[key] = NnlqpPlatform(number, sample.platform_key, *key)
        family = _family(sample)
        if sample.fingerprint not in models:
            path = _path(root / "onnx" / family, sample, taken)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_onnx(graph(sample.fingerprint)).SerializeToString())
            models[sample.fingerprint] = f"{len(models):06d}", path
        number_, path = models[sample.fingerprint]
        stage = sample.environment.get("stage", "")
        yield Row(
            number_, path, sample.batch, sample.latency_ms, nnlqp.FAMILIES.get(family, family), known[key],
            stage if stage in nnlqp.STAGES else "", root.name,
        )  # fmt: skip


def _family(sample: Sample) -> str:
    """The family as `gt.txt` spells it: from the import, the generator's name or the file's, else "other"."""
    told = {ours: theirs for theirs, ours in nnlqp.FAMILIES.items()}.get(str(sample.environment.get("family")))
    space, _, rest = sample.name.partition("/")
    if told is None and space == "gen":
        made = rest.partition("/")[0]
        return _GENERATED.get(made, _word(made))
    found = _FAMILY.search(sample.name.lower())
    return told or (found.group() if found else "other")


def _path(folder: Path, sample: Sample, taken: set[Path]) -> Path:
    stem = _word(sample.name.removeprefix("nnlqp/")) or sample.fingerprint[:16]
    path = folder / f"{stem}.onnx"
    if path in taken:
        path = folder / f"{stem}_{sample.fingerprint[:16]}.onnx"
    taken.add(path)
    return path


def _word(text: str) -> str:
    """Letters, digits and a few signs: the format separates by spaces."""
    return re.sub(r"[^A-Za-z0-9._@-]+", "_", text).strip("_.")[:100]

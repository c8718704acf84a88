"""`ledg-cost samples import|export|query|show`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from costmodel.api import load_graph
from costmodel.cli.options import with_options
from costmodel.errors import DataError
from costmodel.ir import Graph
from costmodel.samples import Sample, SampleStore, default_store
from costmodel.tables import amount, ms, table

SCHEMA = 1
FORMATS = ("parquet", "nnlqp")
_AT_ONCE = 200
Pairs = Iterable[tuple[Sample, Graph | None]]

_STORE = click.option("--store", type=click.Path(), metavar="FILE", help="Sample store; default: the user's own.")
_FORMAT = click.option("--format", "kind", type=click.Choice(FORMATS), help="Default: by the path's ending.")
_FILTERS = [
    click.option("--device", "-d", metavar="DEVICE", help="Only this device."),
    click.option("--precision", "-p", metavar="P", help="Only this precision."),
    click.option("--runtime", "-r", metavar="R", help="Only this runtime; without a version, any version."),
    click.option("--batch", "-b", type=click.IntRange(1), metavar="N", help="Only this batch size."),
    click.option("--name", "-n", metavar="PATTERN", help="Only networks named so, such as 'gen/resnet/*'."),
    click.option("--source", metavar="PATTERN", help="Only measurements from there: profile, 'import:*'."),
]


@click.group("samples")
def command() -> None:
    """Measurements kept on this machine: what was profiled here and what was imported."""


@command.command("import")
@click.argument("path", type=click.Path(exists=True))
@_FORMAT
@_STORE
@click.option("--source", help="Where the samples come from; default: import: and the file's name.")
def import_(path: str, kind: str | None, store: str | None, source: str | None) -> None:
    """Add the samples of PATH: a Parquet file, or a folder with NNLQP's gt.txt and models."""
    skipped: Counter[str] = Counter()
    pairs = _READERS[_kind(path, kind)](path, skipped)
    label = source or f"import:{Path(path).stem}"
    read = added = 0
    with SampleStore(store) as target:
        marked = _marked(pairs, label, source is not None)
        while chunk := list(islice(marked, _AT_ONCE)):  # each chunk is kept, so an interrupted import goes on
            added += target.add_many(chunk)
            read += len(chunk)
            _progress(f"{read} samples read")
        where = target.path
    _progress("")
    known = f", {read - added} were there" if read > added else ""
    click.echo(f"{added} of {_count(read, 'sample')} added to {where}{known}")
    for reason, count in skipped.most_common(10):
        click.echo(f"skipped {count}: {reason}", err=True)
    if len(skipped) > 10:
        click.echo(f"… {len(skipped) - 10} more reasons", err=True)
    if not read:
        raise DataError(f"{path} gave no sample; see the reasons above or check the file")


@command.command("export")
@click.argument("path", type=click.Path())
@_FORMAT
@_STORE
@with_options(_FILTERS)
@click.option("--graphs/--no-graphs", default=True, help="Whether Parquet holds the networks themselves.")
@click.option("--operators/--no-operators", default=True, help="Whether Parquet holds the times of operators.")
def export(path: str, kind: str | None, store: str | None, graphs: bool, operators: bool, **filters: Any) -> None:
    """Write samples to PATH: a Parquet file, or a new folder in NNLQP's layout."""
    with _existing(store) as opened:
        samples = opened.query(**filters)
        if not samples:
            raise DataError(f"no sample in {opened.path} matches; see `ledg-cost samples show`")
        if _kind(path, kind) == "parquet":
            from costmodel.samples import parquet

            count = parquet.write(path, samples, opened.graph_bytes if graphs else None, operators)
        else:
            from costmodel.samples import nnlqp

            have = opened.fingerprints()
            count = nnlqp.write(path, (s for s in samples if s.fingerprint in have), opened.graph)
            if count < len(samples):
                click.echo(f"skipped {len(samples) - count}: the store has no graph of them", err=True)
    click.echo(f"{_count(count, 'sample')} written to {path}")


@command.command("query")
@_STORE
@with_options(_FILTERS)
@click.option("--fingerprint", "-f", metavar="HEX", help="Only this network (its whole fingerprint).")
@click.option("--limit", type=click.IntRange(1), default=12, show_default=True, help="Rows of the table, the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print all that match as JSON (schema 1).")
def query(store: str | None, limit: int, as_json: bool, **filters: Any) -> None:
    """List samples, the last added at the end."""
    with _existing(store) as opened:
        samples = opened.query(**filters)
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "samples": [asdict(s) for s in samples]}, indent=1))
        return
    rows = [
        [
            (s.name or s.fingerprint[:12])[-40:], s.device, s.precision, s.runtime, str(s.batch), ms(s.latency_ms),
            ms(s.p90_ms) if s.p90_ms else "-", f"{s.cv:.1%}" if s.cv is not None else "-", s.measured_at[:10] or "-",
            " ".join([s.source, *s.flags]),
        ]
        for s in samples[-limit:]
    ]  # fmt: skip
    heads = ["network", "device", "precision", "runtime", "batch", "median", "p90", "cv", "measured", "source"]
    click.echo("\n".join(table(heads, rows)))
    if len(samples) > limit:
        click.echo(f"… {len(samples) - limit} more before; --limit N or --json shows them")


@command.command("show")
@_STORE
def show(store: str | None) -> None:
    """What the store holds: samples per platform, networks, size."""
    with _existing(store) as opened:
        platforms, graphs, path = opened.platforms(), len(opened.fingerprints()), opened.path
    total = sum(count for *_, count in platforms)
    size = sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))  # with the log that is written ahead
    click.echo(f"{path}: {_count(total, 'sample')}, {_count(graphs, 'network')}, {amount(size)}B")
    rows = [[device, precision, runtime, str(count)] for device, precision, runtime, count in platforms]
    if rows:
        click.echo("\n".join(table(["device", "precision", "runtime", "samples"], rows)))


def _existing(store: str | None) -> SampleStore:
    path = Path(store) if store else default_store()
    if not path.is_file():
        raise DataError(f"no sample store {path}; run `ledg-cost profile` or `ledg-cost samples import` first")
    return SampleStore(path)


def _kind(path: str, kind: str | None) -> str:
    if kind:
        return kind
    suffix = Path(path).suffix.lower()
    if suffix in (".parquet", ".pq"):
        return "parquet"
    if Path(path).is_dir() or not suffix:
        return "nnlqp"
    raise DataError(f"cannot tell the format of {path}; add --format {' or '.join(FORMATS)}")


def _parquet(path: str, skipped: Counter[str]) -> Pairs:
    from costmodel.samples import parquet

    return parquet.read(path)


def _nnlqp(path: str, skipped: Counter[str]) -> Pairs:
    from costmodel.samples import nnlqp

    return nnlqp.read(path, lambda model, batch: load_graph(str(model), batch), skipped)


_READERS: dict[str, Callable[[str, Counter[str]], Pairs]] = {"parquet": _parquet, "nnlqp": _nnlqp}


def _marked(pairs: Pairs, label: str, always: bool) -> Iterator[tuple[Sample, Graph | None]]:
    """Samples that say where they come from: what was profiled elsewhere was not measured here."""
    for sample, graph in pairs:
        yield (replace(sample, source=label) if always or not sample.source.startswith("import:") else sample), graph


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _progress(text: str) -> None:
    """One line on a terminal that the next one overwrites."""
    if sys.stderr.isatty():
        click.echo(f"\r{text}\033[K", nl=False, err=True)

"""`ledg-cost estimate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from costmodel.api import load_graph
from costmodel.breakdown import by_group
from costmodel.cli.options import batches, label, model_options, shapes, source, with_options, words
from costmodel.errors import DataError
from costmodel.estimates import CostModel, Estimate, Roofline, native_precision
from costmodel.ir import Graph
from costmodel.platforms import Platform, resolve
from costmodel.tables import amount, ms, table

SCHEMA = 1
Axes = tuple[list[str], list[str | None], list[str | None]]
MOST_ROWS = 10


@click.command("estimate")
@click.argument("models", nargs=-1, required=True, metavar="MODEL…")
@click.option(
    "--target",
    "-t",
    "targets",
    multiple=True,
    required=True,
    metavar="DEVICE[,…]",
    help="Device name, alias or spec sheet (TOML).",
)
@click.option(
    "--precision",
    "-p",
    "precisions",
    multiple=True,
    metavar="P[,…]",
    help="fp32, tf32, fp16, bf16, fp8, int8; default: the model's own.",
)
@click.option(
    "--runtime",
    "-r",
    "runtimes",
    multiple=True,
    metavar="R[,…]",
    help="tensorrt, onnxruntime, pytorch-eager, …, with a version if wanted.",
)
@click.option(
    "--batch",
    "-b",
    "batch",
    multiple=True,
    metavar="N[,…]",
    help="Batch sizes; default: 1, or the model's own if it is fixed.",
)
@with_options(model_options)
@click.option(
    "--detail",
    type=click.Choice(["ops", "memory", "source"]),
    help="Also print the costliest operators, the memory, or where the answer comes from.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (schema 1).")
@click.option(
    "--html", type=click.Path(dir_okay=False), metavar="FILE", help="Also write a report that needs no other file."
)
@click.option("--bundle", type=click.Path(), help="Another trained bundle.")
@click.option("--store", type=click.Path(), metavar="FILE", help="Sample store to look into before predicting.")
@click.option("--no-measured", is_flag=True, help="Predict even what is measured in the sample store.")
@click.option("--cost-model", type=click.Choice(["ledg-former", "roofline"]), default="ledg-former", show_default=True)
def command(
    models: tuple[str, ...], targets: tuple[str, ...], precisions: tuple[str, ...], runtimes: tuple[str, ...],
    batch: tuple[str, ...], shape: tuple[str, ...], strict: bool, detail: str | None, as_json: bool,
    html: str | None, bundle: str | None, store: str | None, no_measured: bool, cost_model: str,
) -> None:  # fmt: skip
    """Latency of MODELs ('-' is standard input), one line for every target, precision, runtime and batch."""
    axes: Axes = (words(targets), [*words(precisions)] or [None], [*words(runtimes)] or [None])
    sizes, bound = batches(batch), shapes(shape)
    for target in axes[0]:  # a wrong name is told before any model is read
        resolve(target, axes[1][0] or _first_precision(target), axes[2][0])
    predictor = _cost_model(cost_model, bundle, store, not no_measured)
    found: list[tuple[str, Estimate]] = []
    for model in models:
        content = source(model)
        graphs = [load_graph(content, size, bound, strict) for size in sizes]
        found += _estimates(model, graphs, axes, predictor)
    if html:
        _write_html(html, found)
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "estimates": [as_record(m, e) for m, e in found]}, indent=1))
        return
    click.echo("\n".join(_report(found, detail)))


def _first_precision(target: str) -> str:
    from costmodel.platforms import load_device, supported_precisions

    return supported_precisions(load_device(target))[0].value


def _cost_model(name: str, bundle: str | None, store: str | None, measured: bool) -> CostModel:
    if name == "roofline":
        return Roofline()
    from costmodel import predictor
    from costmodel.measured import with_measurements

    def load() -> CostModel:
        return predictor.load(bundle) if bundle else predictor.load()

    return with_measurements(load, store) if measured else load()


def _estimates(model: str, graphs: Sequence[Graph], axes: Axes, predictor: CostModel) -> Iterator[tuple[str, Estimate]]:
    """In the order target, precision, runtime, batch; each graph is read once for all its platforms."""
    native = native_precision(graphs[0])
    platforms: list[Platform] = [
        resolve(target, precision or native, runtime)
        for target in axes[0]
        for precision in axes[1]
        for runtime in axes[2]
    ]
    by_batch = [predictor.estimate_many(graph, platforms) for graph in graphs]
    for i in range(len(platforms)):
        for estimates in by_batch:
            yield model, estimates[i]


def as_record(model: str, e: Estimate) -> dict[str, Any]:
    """One entry of the JSON (schema 1)."""
    return {
        "model": model, "target": e.target, "precision": e.precision, "runtime": e.runtime, "batch": e.batch,
        "latency_ms": e.latency_ms, "interval_ms": list(e.interval_ms), "provenance": e.provenance,
        "coverage": e.coverage, "bound_ms": e.bound_ms, "flops": e.flops, "params": e.params,
        "peak_memory_bytes": e.peak_memory_bytes, "warnings": list(e.warnings),
        "operators": [
            {
                "name": o.name, "op": o.op, "latency_ms": o.latency_ms, "share": o.share, "flops": o.flops,
                "limit": o.limit, "group": o.group,
            }
            for o in e.operators
        ],
    }  # fmt: skip


def _write_html(path: str, found: Sequence[tuple[str, Estimate]]) -> None:
    from costmodel.report_html import render

    try:
        Path(path).write_text(render(found), encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {path} ({error.strerror}); choose another --html") from error


def _report(found: Sequence[tuple[str, Estimate]], detail: str | None) -> list[str]:
    shown = found[:MOST_ROWS]
    names = {m: label(m) for m, _ in found}
    several = len(names) > 1
    heads = ["target", "precision", "runtime", "batch", "latency", "90 % interval", "bound", "coverage", "provenance"]
    rows = [
        [
            e.target, e.precision, e.runtime, str(e.batch), ms(e.latency_ms),
            f"{ms(e.interval_ms[0])} – {ms(e.interval_ms[1])}", ms(e.bound_ms), f"{e.coverage:.0%}", e.provenance,
        ]
        for _, e in shown
    ]  # fmt: skip
    if several:
        heads, rows = ["model", *heads], [[names[m], *row] for (m, _), row in zip(shown, rows, strict=False)]
    lines = []
    if not several:
        first = found[0][1]
        lines.append(
            f"{names[found[0][0]]}: {amount(first.flops)}FLOP, {amount(first.params)} parameters,"
            f" {len(first.operators)} nodes"
        )
    lines += table(heads, rows)
    if len(found) > MOST_ROWS:
        lines.append(f"… {len(found) - MOST_ROWS} more; --json prints all")
    notes = list(dict.fromkeys(w for _, e in found for w in e.warnings))
    room = 15 - len(lines)
    lines += [f"note: {w}" for w in notes[: max(room - (len(notes) > room), 0)]]
    if detail:
        for model, e in shown:
            lines += [
                "",
                f"{names[model]} on {e.target} {e.precision} {e.runtime} batch {e.batch}",
                *_DETAILS[detail](e),
            ]
    return lines


def _operators(e: Estimate) -> list[str]:
    parts = by_group(e)
    rows = [
        [p.name[-40:], p.words(4), ms(p.latency_ms), f"{p.share:.1%}", f"{amount(p.flops)}FLOP", p.limit]
        for p in parts[:MOST_ROWS]
    ]
    rest = parts[MOST_ROWS:]
    tail = [f"… {len(rest)} more with {sum(p.share for p in rest):.1%}"] if rest else []
    return [*table(["operator", "kind", "latency", "share", "work", "limit"], rows), *tail]


def _memory(e: Estimate) -> list[str]:
    return [
        f"peak memory {amount(e.peak_memory_bytes)}B at {e.precision}:"
        " parameters and the largest set of live activations"
    ]


def _source(e: Estimate) -> list[str]:
    from costmodel.platforms import load_device

    device = load_device(e.target)
    return [f"estimate: {e.provenance}", f"spec sheet: {device.source}"]


_DETAILS = {"ops": _operators, "memory": _memory, "source": _source}

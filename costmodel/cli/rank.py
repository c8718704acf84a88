"""`ledg-cost rank`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from costmodel.api import load_graph
from costmodel.cli.options import batches, model_options, shapes, with_options, words
from costmodel.errors import InputError, LedgCostError
from costmodel.platforms import resolve
from costmodel.tables import amount, ms, table

SCHEMA = 1
MOST_FAILURES = 20


@click.command("rank")
@click.argument("models", nargs=-1, required=True, metavar="MODELS…")
@click.option(
    "--target",
    "-t",
    "targets",
    multiple=True,
    required=True,
    metavar="DEVICE[,…]",
    help="Device name, alias or spec sheet (TOML); the first decides the order that is printed.",
)
@click.option("--precision", "-p", "precisions", multiple=True, default=("fp32",), show_default=True, metavar="P[,…]")
@click.option(
    "--runtime",
    "-r",
    "runtimes",
    multiple=True,
    metavar="R[,…]",
    help="tensorrt, onnxruntime, …; default: the device's usual one.",
)
@click.option("--batch", "-b", "batch", multiple=True, metavar="N", help="Batch size; default: 1, or a model's own.")
@with_options(model_options)
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=0), help="Models to print.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="All models, sorted, as .parquet, .csv or .jsonl; a run that was stopped goes on if given again.",
)
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes. [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (schema 1).")
@click.option("--bundle", type=click.Path(), help="Another trained bundle.")
def command(
    models: tuple[str, ...], targets: tuple[str, ...], precisions: tuple[str, ...], runtimes: tuple[str, ...],
    batch: tuple[str, ...], shape: tuple[str, ...], strict: bool, top: int, out: Path | None, jobs: int | None,
    as_json: bool, bundle: str | None,
) -> None:  # fmt: skip
    """Many MODELS, fastest first: model files, folders, text files with one model per line ('-' is standard input).

    A line, or an argument, may also be an architecture: 'nb201/…', 'fbnet/…', 'ofa_mbv3/…' or 'anb_effnet/…'. Models
    that cannot be read are listed at the end; the exit status is 2 only if none could be. All latencies are predicted,
    also of models that are in the sample store.
    """
    from costmodel.ranking import Settings, output, rank
    from costmodel.ranking.inputs import collect
    from costmodel.ranking.journal import journal_of

    sizes = batches(batch)
    if len(sizes) > 1:
        raise click.BadParameter("rank takes one batch size; give --batch once")
    wanted: list[str | None] = [*words(runtimes)] or [None]
    platforms = tuple(resolve(t, p, r) for t in words(targets) for p in words(precisions) for r in wanted)
    settings = Settings(platforms, load_graph, sizes[0], shapes(shape), strict, bundle)
    settings.cost_model()
    if out:
        output.check(out)
    names = collect(models, sys.stdin, _is_model)
    progress = _Progress()
    try:
        ranking = rank(names, settings, jobs or _cores(), out, progress.say)
    except KeyboardInterrupt:
        if out:
            click.echo(
                f"the answers so far are kept in {journal_of(out)}; the same command goes on from there", err=True
            )
        raise
    finally:
        progress.close()
    if out and len(ranking.failures) < len(ranking.models):
        output.write(ranking, out)
        journal_of(out).unlink(missing_ok=True)
    best = [(place, ranking.order(place)[:top]) for place in range(len(platforms))]
    if as_json:
        click.echo(json.dumps(_record(ranking, best), indent=1))
    else:
        click.echo("\n".join(_report(ranking, best[0][1])))
    _tell_failures(ranking.failures, len(ranking.models))


def _is_model(path: str) -> bool:
    import frontends

    try:
        frontends.sniff(path)
    except LedgCostError:
        return False
    return True


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Progress:
    """One line on stderr: rewritten every second on a terminal, a new one every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._start = self._last = time.monotonic()

    def say(self, done: int, failed: int) -> None:
        now = time.monotonic()
        if now - self._last < (1 if self._terminal else 10):
            return
        self._last = now
        line = f"{done:,} models, {done / (now - self._start):,.0f} per second"
        line += f", {failed:,} unreadable" if failed else ""
        click.echo(f"\r\x1b[K{line}" if self._terminal else line, nl=not self._terminal, err=True)

    def close(self) -> None:
        """Clears the line."""
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def _report(ranking: Any, best: Sequence[tuple[str, Any]]) -> list[str]:
    platforms = ranking.settings.platforms
    good = len(ranking.models) - len(ranking.failures)
    lines = [f"{good:,} models on {platforms[0].name}" + (", fastest first" if best else "")]
    heads = ["rank", *(_short(p) for p in platforms), "work", "parameters", "nodes", "model"]
    rows = [
        [
            str(number), *(ms(t) for t in a.latency_ms), f"{amount(a.flops)}FLOP", amount(a.params).strip(),
            str(a.nodes), name,
        ]
        for number, (name, a) in enumerate(best, 1)
    ]  # fmt: skip
    return lines + (table(heads, rows) if rows else [])


def _short(platform: Any) -> str:
    return f"{platform.device.name} {platform.precision.value}"


def _record(ranking: Any, best: Sequence[tuple[int, Sequence[tuple[str, Any]]]]) -> dict[str, Any]:
    platforms = ranking.settings.platforms
    return {
        "schema": SCHEMA,
        "models": len(ranking.models),
        "rankings": [
            {
                "target": platforms[place].device.name,
                "precision": platforms[place].precision.value,
                "runtime": platforms[place].runtime_label,
                "best": [
                    {"rank": number, "model": name} | a.as_record() | {"latency_ms": a.latency_ms[place]}
                    for number, (name, a) in enumerate(rows, 1)
                ],
            }
            for place, rows in best
        ],
        "failures": [{"model": name, "error": error} for name, error in ranking.failures],
    }


def _tell_failures(failures: Sequence[tuple[str, str]], count: int) -> None:
    """The list of unreadable models; raises InputError if that is all of them."""
    if not failures:
        return
    shown = [f"  {name}: {error}" for name, error in failures[:MOST_FAILURES]]
    more = len(failures) - len(shown)
    tail = [f"  … {more:,} more; --json prints all"] if more else []
    click.echo("\n".join([f"{len(failures):,} of {count:,} models could not be read:", *shown, *tail]), err=True)
    if len(failures) == count:
        raise InputError("no model could be read; see the reasons above")

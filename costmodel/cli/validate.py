"""`ledg-cost validate`: predicted against measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from costmodel.api import load_graph
from costmodel.cli.options import batches, label, model_options, shapes, source, with_options, words
from costmodel.errors import DataError
from costmodel.estimates import Estimate
from costmodel.ir import Graph
from costmodel.metrics import accuracy, mape, spearman
from costmodel.platforms import load_device, resolve
from costmodel.tables import ms, table

if TYPE_CHECKING:
    from costmodel.predictor import LeDGFormerModel
    from costmodel.samples import Sample

SCHEMA = 1
MOST_ROWS = 8
DEFINITIONS = (
    "MAPE: mean of |predicted − measured| / measured. Acc(10 %): share of networks whose error is at most 10 %.",
    "Spearman: correlation of the ranks, 1 = same order. Coverage: share of measurements inside the 90 % interval.",
)


@dataclass(frozen=True)
class Pair:
    """One network: what was predicted and what was measured, in ms."""

    name: str
    estimate: Estimate
    measured_ms: float
    flags: tuple[str, ...]

    @property
    def error(self) -> float:
        """(predicted − measured) / measured."""
        return self.estimate.latency_ms / self.measured_ms - 1


@click.command("validate")
@click.argument("models", nargs=-1, metavar="[MODEL…]")
@click.option("--target", "-t", required=True, metavar="DEVICE", help="The device: this machine, unless --samples.")
@click.option("--precision", "-p", "precisions", multiple=True, metavar="P[,…]", help="Default: fp32, or all samples'.")
@click.option("--runtime", "-r", metavar="R", help="With --samples: only this runtime.")
@click.option("--samples", metavar="FILE|store", help="Compare with what was measured before instead of measuring.")
@click.option("--backend", default="onnxruntime", show_default=True, help="What to measure with; see `profile`.")
@click.option("--batch", "-b", multiple=True, metavar="N[,…]", help="Batch sizes; default 1, or all samples'.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads inside operators.")
@click.option("--seconds", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Budget of timed runs.")
@click.option("--bundle", type=click.Path(), help="Another trained bundle.")
@click.option("--no-overlay", is_flag=True, help="The bundle as it is, without what was fine-tuned.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (schema 1).")
@with_options(model_options)
def command(
    models: tuple[str, ...], target: str, precisions: tuple[str, ...], runtime: str | None, samples: str | None,
    backend: str, batch: tuple[str, ...], threads: int, seconds: float, bundle: str | None, no_overlay: bool,
    as_json: bool, shape: tuple[str, ...], strict: bool,
) -> None:  # fmt: skip
    """Predict MODELs for DEVICE, measure them here, and print both with the error.

    With --samples nothing is measured: the networks and latencies come from a sample store or a Parquet file, and
    MODELs only say which of its networks to take.
    """
    from costmodel.predictor import LeDGFormerModel

    name = load_device(target).name
    sizes, bound = batches(batch), shapes(shape)
    model = LeDGFormerModel(bundle, overlaid=not no_overlay) if bundle else LeDGFormerModel(overlaid=not no_overlay)
    if samples is None:
        if not models:
            raise click.UsageError("name models to measure, or --samples to compare with")
        found = [(s, g) for s, g in _measure(models, name, words(precisions) or ["fp32"], sizes, backend, threads,
                                             seconds, bound, strict)]  # fmt: skip
    else:
        graphs = [load_graph(source(m), size, bound, strict) for m in models for size in sizes]
        wanted = [g.fingerprint for g in graphs] if models else None
        found = list(_stored(samples, name, words(precisions), runtime, [s for s in sizes if s], wanted))
    pairs = _pairs(model, target, found)
    if as_json:
        click.echo(json.dumps(_record(pairs), indent=1))
    else:
        click.echo("\n".join(_report(pairs)))


Measured = tuple["Sample", Graph]


def _stored(
    samples: str, device: str, precisions: Sequence[str], runtime: str | None, sizes: Sequence[int],
    wanted: Sequence[str] | None,
) -> Iterator[Measured]:  # fmt: skip
    """Samples with their graphs. Raises DataError if there are none."""
    from costmodel.finetune.sources import read_measured

    measured = read_measured(samples, device, None, runtime, wanted)
    kept = [
        s for s in measured.samples
        if s.fingerprint in measured.graphs and s.precision in (precisions or [s.precision])
        and s.batch in (sizes or [s.batch])
    ]  # fmt: skip
    if not kept:
        raise DataError(f"no samples of {device} that fit in {samples}; see `ledg-cost samples query`")
    yield from ((s, measured.graphs[s.fingerprint]) for s in kept)


def _measure(
    models: Sequence[str], device: str, precisions: Sequence[str], sizes: Sequence[int | None], backend: str,
    threads: int, seconds: float, bound: Any, strict: bool,
) -> Iterator[Measured]:  # fmt: skip
    """Measures each model at each precision and batch in processes of their own."""
    from profiler import Campaign, Request

    with Campaign() as campaign:
        for path in models:
            content = source(path)
            for size in sizes:
                graph = load_graph(content, size or 1, bound, strict)
                for precision in precisions:
                    name = label(path)
                    click.echo(f"measuring {name} {precision} batch {size or 1}", err=True)
                    request = Request(
                        content, backend=backend, precision=precision, batch=size or 1, threads=threads, shapes=bound,
                        seconds=seconds,
                    )  # fmt: skip
                    yield campaign.measure(request).to_sample(graph.fingerprint, name, device), graph


def _pairs(model: LeDGFormerModel, target: str, found: Sequence[Measured]) -> list[Pair]:
    """Estimates beside samples; each network is read once for all its platforms."""
    by_network: dict[str, list[Measured]] = {}
    for sample, graph in found:
        by_network.setdefault(graph.fingerprint, []).append((sample, graph))
    pairs = []
    for group in by_network.values():
        platforms = [resolve(target, s.precision, s.runtime) for s, _ in group]
        estimates = model.estimate_many(group[0][1], platforms)
        pairs += [
            Pair(s.name or s.fingerprint[:12], e, s.latency_ms, s.flags)
            for (s, _), e in zip(group, estimates, strict=True)
        ]
    return pairs


def _figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    import numpy as np

    y = np.array([p.measured_ms for p in pairs])
    p = np.array([p.estimate.latency_ms for p in pairs])
    lo, hi = np.array([p.estimate.interval_ms for p in pairs]).T
    rank = spearman(y, p) if len(pairs) > 1 else float("nan")
    return {
        "n": len(pairs), "mape": round(mape(y, p), 2), "acc10": round(accuracy(y, p), 2),
        "spearman": None if np.isnan(rank) else round(rank, 4),
        "coverage": round(float(np.mean((lo <= y) & (y <= hi)) * 100), 2),
    }  # fmt: skip


def _groups(pairs: Sequence[Pair]) -> dict[tuple[str, str, str], list[Pair]]:
    groups: dict[tuple[str, str, str], list[Pair]] = {}
    for p in pairs:
        groups.setdefault((p.estimate.target, p.estimate.precision, p.estimate.runtime), []).append(p)
    return groups


def _record(pairs: Sequence[Pair]) -> dict[str, Any]:
    platforms = [
        {"target": t, "precision": p, "runtime": r, **_figures(group),
         "provenance": sorted({q.estimate.provenance for q in group})}
        for (t, p, r), group in _groups(pairs).items()
    ]  # fmt: skip
    networks = [
        {
            "model": q.name, "target": q.estimate.target, "precision": q.estimate.precision,
            "runtime": q.estimate.runtime, "batch": q.estimate.batch, "predicted_ms": q.estimate.latency_ms,
            "interval_ms": list(q.estimate.interval_ms), "measured_ms": q.measured_ms, "error": q.error,
            "flags": list(q.flags),
        }
        for q in pairs
    ]  # fmt: skip
    return {"schema": SCHEMA, "definitions": list(DEFINITIONS), "platforms": platforms, "networks": networks}


def _report(pairs: Sequence[Pair]) -> list[str]:
    """Figures of each platform, and the networks with the largest errors."""
    worst = sorted(pairs, key=lambda p: -abs(p.error))[:MOST_ROWS]
    rows = [
        [p.name, p.estimate.precision, p.estimate.runtime, str(p.estimate.batch), ms(p.estimate.latency_ms),
         ms(p.measured_ms), f"{p.error:+.1%}", " ".join(p.flags)]
        for p in worst
    ]  # fmt: skip
    lines = table(["network", "precision", "runtime", "batch", "predicted", "measured", "error", "flags"], rows)
    if len(pairs) > len(worst):
        lines.append(f"… {len(pairs) - len(worst)} more with smaller errors")
    summary = []
    for (target, precision, runtime), group in _groups(pairs).items():
        f = _figures(group)
        rank = "-" if f["spearman"] is None else f"{f['spearman']:.3f}"
        summary.append(
            [target, precision, runtime, str(f["n"]), f"{f['mape']:.1f} %", f"{f['acc10']:.0f} %", rank,
             f"{f['coverage']:.0f} %"]
        )  # fmt: skip
    heads = ["target", "precision", "runtime", "networks", "MAPE", "Acc(10 %)", "Spearman", "coverage"]
    return [*lines, "", *table(heads, summary), *DEFINITIONS]

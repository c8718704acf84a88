"""`ledg-cost compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from costmodel.api import load_graph
from costmodel.cli.options import batches, model_options, shapes, source, with_options, words
from costmodel.compare import Choice, cheapest, compare
from costmodel.tables import ms, table

SCHEMA = 1


@click.command("compare")
@click.argument("model", metavar="MODEL")
@click.option(
    "--targets",
    "--target",
    "-t",
    "targets",
    multiple=True,
    required=True,
    metavar="DEVICE[,…]",
    help="Device names, aliases or spec sheets (TOML).",
)
@click.option(
    "--precisions",
    "--precision",
    "-p",
    "precisions",
    multiple=True,
    default=("fp32,fp16,int8",),
    show_default=True,
    metavar="P[,…]",
)
@click.option(
    "--batches", "--batch", "-b", "batch", multiple=True, default=("1,8,32",), show_default=True, metavar="N[,…]"
)
@click.option("--runtime", "-r", metavar="R", help="tensorrt, onnxruntime, …; default: the device's usual one.")
@click.option(
    "--latency-budget",
    "budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MS",
    help="Name the cheapest whose batch takes at most so long.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="DEVICE=P[,…]",
    help="Price of a device per hour: adds the price of a million images, and decides what is cheapest.",
)
@with_options(model_options)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (schema 1).")
@click.option("--bundle", type=click.Path(), help="Another trained bundle.")
@click.option("--store", type=click.Path(), metavar="FILE", help="Sample store to look into before predicting.")
@click.option("--no-measured", is_flag=True, help="Predict even what is measured in the sample store.")
def command(
    model: str, targets: tuple[str, ...], precisions: tuple[str, ...], batch: tuple[str, ...], runtime: str | None,
    budget: float | None, prices: tuple[str, ...], shape: tuple[str, ...], strict: bool, as_json: bool,
    bundle: str | None, store: str | None, no_measured: bool,
) -> None:  # fmt: skip
    """MODEL ('-' is standard input) on several devices, precisions and batches.

    images/s/W is throughput over the board power of the spec sheet (TDP), so throughput per watt. A choice meets the
    --latency-budget for certain when its whole 90 % interval lies within it, it is `likely` to when its latency does,
    and `uncertain` when only the lower end does. The cheapest has the lowest --price per hour; without prices, the
    lowest board power, then the smallest memory. Choices that do not fit the device's memory are never chosen.
    """
    names, costs = words(targets), _prices(prices)
    from costmodel import predictor
    from costmodel.measured import with_measurements
    from costmodel.platforms import load_device

    for name in names:  # a wrong name is told before the model is read
        load_device(name)
    load = partial(predictor.load, bundle) if bundle else predictor.load
    cost_model = load() if no_measured else with_measurements(load, store)
    content, bound = source(model), shapes(shape)
    graphs = {size: load_graph(content, size, bound, strict) for size in batches(batch) if size}
    choices = compare(graphs, names, words(precisions), cost_model, runtime, costs)
    if as_json:
        click.echo(json.dumps(_record(model, choices, budget), indent=1))
    else:
        click.echo("\n".join(_report(choices, budget)))


def _prices(values: Sequence[str]) -> dict[str, float]:
    found = {}
    for word in words(values):
        name, _, amount = word.rpartition("=")
        try:
            price = float(amount)
        except ValueError:
            price = -1.0
        if not name or not 0 <= price < float("inf"):
            raise click.BadParameter(f"cannot read price {word!r}; write DEVICE=PRICE, such as --price t4=0.35,l4=0.7")
        found[name] = price
    return found


def _report(choices: Sequence[Choice], budget: float | None) -> list[str]:
    heads = ["target", "precision", "runtime", "batch", "latency", "90 % interval", "images/s", "images/s/W", "memory"]
    priced = any(c.price is not None for c in choices)
    heads += ["per million"] if priced else []
    heads += [f"within {ms(budget)}"] if budget else []
    rows, missing = [], []
    for choice in choices:
        if choice.estimate is None:
            missing.append(choice.reason)
        else:
            rows.append(_row(choice, priced, budget))
    lines = table(heads, rows)
    if missing:
        lines.append(f"not supported: {', '.join(dict.fromkeys(missing))}")
    notes = dict.fromkeys(w for c in choices if c.estimate for w in c.estimate.warnings if not w.startswith("needs "))
    lines += [f"note: {note}" for note in list(notes)[:3]]
    return lines + (_verdict(choices, budget) if budget else [])


def _row(choice: Choice, priced: bool, budget: float | None) -> list[str]:
    e = choice.estimate
    assert e is not None
    rate, per_watt, price = choice.images_per_second, choice.images_per_second_per_watt, choice.price_per_million
    need, have = e.peak_memory_bytes / 1e9, choice.device.memory_gb
    memory = f"{need:.2g} GB" + (f" of {have:g}" if have else "") + (", too much" if choice.fits is False else "")
    row = [
        e.target, e.precision, e.runtime, str(e.batch), ms(e.latency_ms),
        f"{ms(e.interval_ms[0])} – {ms(e.interval_ms[1])}",
        "-" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}",
        "-" if per_watt is None else f"{per_watt:.3g}", memory,
    ]  # fmt: skip
    row += ["-" if price is None else f"{price:.3g}"] if priced else []
    return [*row, choice.meets(budget)] if budget else row


def _verdict(choices: Sequence[Choice], budget: float) -> list[str]:
    """The cheapest that surely meets the budget, and cheaper ones that may."""
    lines, sure = [], cheapest(choices, budget)
    if sure:
        lines.append(f"cheapest within {ms(budget)}: {_name(sure)}")
    for verdict in ("likely", "uncertain"):
        maybe = cheapest(choices, budget, verdict)
        if maybe and maybe.meets(budget) == verdict and (sure is None or maybe.device.name != sure.device.name):
            lines.append(f"{'cheaper, but ' if sure else ''}{verdict} within {ms(budget)}: {_name(maybe)}")
    return lines or [f"none is within {ms(budget)}; the fastest is {_name(_fastest(choices))}"]


def _fastest(choices: Sequence[Choice]) -> Choice:
    return min((c for c in choices if c.estimate), key=lambda c: c.estimate.latency_ms if c.estimate else 0.0)


def _name(choice: Choice) -> str:
    e, device = choice.estimate, choice.device
    assert e is not None
    cost = [f"{choice.price:g} per hour"] if choice.price is not None else []
    cost += [f"{device.tdp_w:g} W"] if device.tdp_w else []
    details = ", ".join([ms(e.latency_ms), *cost])
    return f"{e.target} {e.precision} {e.runtime} batch {e.batch} ({details})"


def _record(model: str, choices: Sequence[Choice], budget: float | None) -> dict[str, Any]:
    record: dict[str, Any] = {"schema": SCHEMA, "model": model, "choices": [_entry(c, budget) for c in choices]}
    if budget:
        sure = cheapest(choices, budget)
        record |= {
            "latency_budget_ms": budget,
            "cheapest": _key(sure) if sure else None,
            "cheapest_likely": _key(maybe) if (maybe := cheapest(choices, budget, "likely")) else None,
        }
    return record


def _key(choice: Choice) -> dict[str, Any]:
    return {
        "target": choice.device.name, "precision": choice.precision, "runtime": choice.runtime, "batch": choice.batch
    }  # fmt: skip


def _entry(choice: Choice, budget: float | None) -> dict[str, Any]:
    entry: dict[str, Any] = _key(choice) | {"supported": choice.estimate is not None}
    if choice.estimate is None:
        return entry | {"reason": choice.reason}
    e = choice.estimate
    entry |= {
        "latency_ms": e.latency_ms, "interval_ms": list(e.interval_ms),
        "images_per_second": choice.images_per_second,
        "images_per_second_per_watt": choice.images_per_second_per_watt,
        "peak_memory_bytes": e.peak_memory_bytes, "fits": choice.fits,
        "tdp_w": choice.device.tdp_w or None, "price_per_hour": choice.price,
        "price_per_million": choice.price_per_million, "provenance": e.provenance, "warnings": list(e.warnings),
    }  # fmt: skip
    return entry | ({"meets_budget": choice.meets(budget)} if budget else {})

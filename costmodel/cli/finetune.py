"""`ledg-cost finetune`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from costmodel.errors import DataError
from costmodel.platforms import load_device, resolve
from costmodel.tables import table

if TYPE_CHECKING:
    from costmodel.finetune import Overlay

SCHEMA = 1


@click.command("finetune")
@click.option("--target", "-t", required=True, metavar="DEVICE", help="The device whose samples to learn from.")
@click.option("--precision", "-p", metavar="P", help="Only this precision; default: each that has samples.")
@click.option("--runtime", "-r", metavar="R", help="Only this runtime; default: each that has samples.")
@click.option(
    "--samples",
    default="store",
    show_default=True,
    metavar="FILE|store",
    help="A sample store or a Parquet file; `store` is the user's own.",
)
@click.option("--bundle", type=click.Path(), help="Another trained bundle to adapt.")
@click.option(
    "--head/--no-head",
    default=True,
    show_default=True,
    help="Whether training the network's head may be tried, where there are enough samples and torch.",
)
@click.option("--remove", is_flag=True, help="Forget what was fine-tuned for the device.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (schema 1).")
def command(
    target: str, precision: str | None, runtime: str | None, samples: str, bundle: str | None, head: bool, remove: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Adapt estimates for DEVICE to its samples, from a factor to a network of its own, as cross-validation chooses.

    Writes a small overlay beside the released bundle, one for each precision and runtime. All other platforms keep
    their estimates; where nothing beats the released model, so does this one.
    """
    name = load_device(target).name
    if remove:
        _remove(name, precision, runtime)
        return
    from costmodel import predictor
    from costmodel.finetune import FEWEST, fit, save
    from costmodel.finetune.sources import read_measured

    measured = read_measured(samples, name, precision, runtime)
    platforms = sorted(measured.by_platform().items())
    enough = [(key, group) for key, group in platforms if len({s.fingerprint for s in group}) >= FEWEST]
    if not enough:
        raise DataError(
            f"{len(measured.samples)} samples of {name} in {samples}; measure at least {FEWEST} networks with"
            f" `ledg-cost profile --select 20 --as {name}`"
        )
    model = predictor.LeDGFormerModel(bundle, overlaid=False) if bundle else predictor.LeDGFormerModel(overlaid=False)
    found: list[Overlay] = []
    for key, group in enough:
        _, p, r = key.split("|")
        click.echo(f"{key}: {len(group)} samples", err=True)
        overlay = fit(model, measured.graphs, group, platform=resolve(target, p, r), head=head, say=_say)
        save(overlay)
        found.append(overlay)
    few = [key for key, group in platforms if (key, group) not in enough]
    if few:
        click.echo(f"fewer than {FEWEST} networks: {', '.join(few)}", err=True)
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "overlays": [_record(o) for o in found]}, indent=1))
        return
    click.echo("\n".join(_report(found)))


def _say(line: str) -> None:
    click.echo(f"  {line}", err=True)
    sys.stderr.flush()


def _record(o: Overlay) -> dict[str, Any]:
    return {
        "target": o.device, "precision": o.precision, "runtime": o.runtime, "samples": o.samples,
        "adapter": o.adapter.kind, "half_width": round(o.half_width, 4), "mape": dict(o.scores),
    }  # fmt: skip


def _report(found: list[Overlay]) -> list[str]:
    rows = [
        [o.device, o.precision, o.runtime, str(o.samples), f"{o.scores['none']:.1f} %", o.adapter.kind,
         f"{o.scores[o.adapter.kind]:.1f} %", f"±{o.half_width:.0%}"]
        for o in found
    ]  # fmt: skip
    heads = ["target", "precision", "runtime", "samples", "MAPE before", "adapter", "MAPE after", "interval"]
    return [
        *table(heads, rows),
        "MAPE: mean |predicted − measured| / measured, each sample predicted without itself",
    ]


def _remove(device: str, precision: str | None, runtime: str | None) -> None:
    from costmodel.finetune import remove

    gone = remove(device, precision, runtime)
    if not gone:
        raise DataError(f"nothing was fine-tuned for {device}; see `ledg-cost finetune --help`")
    click.echo(f"removed {', '.join(gone)}")

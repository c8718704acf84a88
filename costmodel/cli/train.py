"""`ledg-cost train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from costmodel.errors import BackendUnavailableError, DataError


@click.command("train")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False),
    required=True,
    help="Folder of the corpora (latency.parquet, …).",
)
@click.option("--config", "name", default="default", show_default=True, help="default or paper.")
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    help="Run folder: checkpoint, history, bundle. [default: runs/CONFIG-SEED]",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False),
    default="runs/cache",
    show_default=True,
    help="Lowered corpora and embeddings.",
)
@click.option(
    "--language",
    type=click.Path(exists=True, file_okay=False),
    help="Sentence table and student for the bundle. [default: the released ones]",
)
@click.option("--encoder", default="minilm", show_default=True, help="Teacher: minilm, a folder or a hub name.")
@click.option("--seed", default=0, show_default=True)
@click.option("--steps", type=int, help="Training steps. [default: the configuration's]")
@click.option("--all-devices", is_flag=True, help="Hold no device out: how the released bundle is trained.")
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False),
    help="calibration.json of a run with held-out devices, for the width on new platforms.",
)
@click.option(
    "--elsewhere",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tables of `evaluate new-families`, `new-kinds`, `new-devices`, `new-runtimes`, for what training never saw.",
)
@click.option(
    "--samples",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Own measurements to train on too (Parquet): generated networks, and the corpora's by name.",
)
@click.option("--threads", default=2, show_default=True)
def command(
    data: str, name: str, out: str | None, cache: str, language: str | None, encoder: str, seed: int, steps: int | None,
    all_devices: bool, calibration: str | None, elsewhere: tuple[Path, ...], samples: Path | None, threads: int,
) -> None:  # fmt: skip
    """Train a cost model and write its bundle. Stopped runs go on where they were when the command is given again."""
    try:
        import torch

        from costmodel.training import run as training
        from costmodel.training.calibration import calibrate
        from costmodel.training.loop import CONFIGS
    except ImportError as error:
        raise BackendUnavailableError(f"training needs {error.name}; pip install 'ledg-cost[train,encoder]'") from error
    from costmodel.api import load_graph
    from costmodel.bundle import RELEASED

    if name not in CONFIGS:
        raise click.BadParameter(f"no configuration {name!r}; use one of {', '.join(CONFIGS)}", param_hint="--config")
    if all_devices and not calibration:
        raise click.BadParameter(
            "a run on all devices cannot tell how sure it is of new ones; add --calibration"
            " runs/default-0/bundle/calibration.json of a run without --all-devices",
            param_hint="--all-devices",
        )
    torch.set_num_threads(threads)
    config = replace(CONFIGS[name], seed=seed, hold_out=not all_devices)
    config = replace(config, steps=steps) if steps else config
    folder = Path(out or f"runs/{name}-{seed}{'-all' if all_devices else ''}")

    def say(line: str) -> None:
        click.echo(line, file=sys.stderr)

    corpus = training.prepare(Path(data), Path(cache), load_graph, say)
    if samples:
        from costmodel.cli.sources import generated_graph
        from costmodel.samples import parquet
        from costmodel.training.corpus import MEASURED
        from costmodel.training.loop import MEASURED_SHARE
        from costmodel.training.measured import add_measured

        own = [sample for sample, _ in parquet.read(samples)]
        corpus = add_measured(corpus, own, generated_graph, Path(cache), say)
        config = replace(config, shares={**config.shares, MEASURED: MEASURED_SHARE})
    run = training.train(corpus, config, Path(cache), folder, encoder, say)
    widths = calibrate(run, read_elsewhere(elsewhere))
    if calibration:
        other = json.loads(Path(calibration).read_text())
        for name in ("half_width", "roofline_share"):
            widths[name]["new_platform"] = other[name]["new_platform"]
        widths |= {key: other[key] for key in ("unseen_devices", "kin", "validation_mape")}
    training.release(run, folder / "bundle", Path(language) if language else RELEASED / "language", widths)
    say(f"wrote {folder / 'bundle'}")


def read_elsewhere(tables: Sequence[Path]) -> dict[str, dict[str, float]]:
    """What `calibrate` takes from tables of `evaluate new-families`, `new-kinds`, `new-devices` and `new-runtimes`.

    Raises DataError for others.
    """
    found: dict[str, dict[str, float]] = {}
    for path in tables:
        try:
            record = json.loads(path.read_text())
            if record["protocol"] == "new-runtimes":
                found["new_runtime"] = {key: float(record[key]) for key in ("half_width", "roofline_share")}
            elif record["protocol"] == "new-devices":
                found |= {f"new_{kind}": {"half_width": float(w)} for kind, w in record["half_width"].items()}
            else:
                group = {"new-families": "new_family", "new-kinds": "new_kind"}[record["protocol"]]
                found[group] = {"half_width": float(record["half_width"][group])}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no table of new-families, new-kinds, new-devices or new-runtimes;"
                " make one with `ledg-cost evaluate … --out`"
            ) from error
    return found

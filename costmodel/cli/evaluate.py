"""`ledg-cost evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from costmodel.errors import BackendUnavailableError


@click.command("evaluate")
@click.argument("protocol", type=click.Choice(["split"]))
@click.option("--data", type=click.Path(exists=True, file_okay=False), required=True, help="Folder of the corpora.")
@click.option("--cache", type=click.Path(file_okay=False), default="runs/cache", show_default=True)
@click.option(
    "--runs",
    type=click.Path(file_okay=False),
    default="runs",
    show_default=True,
    help="Folder of the runs; missing ones are trained.",
)
@click.option("--config", "configs", multiple=True, default=("default", "paper"), show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--encoder", default="minilm", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False), help="Write the table as JSON.")
def command(
    protocol: str, data: str, cache: str, runs: str, configs: tuple[str, ...], seeds: int, encoder: str, threads: int,
    out: str | None,
) -> None:  # fmt: skip
    """Print the table of a PROTOCOL.

    split: MAPE % ± spread over seeds / Acc(10 %) / Spearman per source, on unseen graphs and on unseen devices.
    """
    try:
        import torch

        from costmodel.training import run as training
        from costmodel.training.evaluate import markdown, split_table
        from costmodel.training.loop import CONFIGS
    except ImportError as error:
        raise BackendUnavailableError(
            f"evaluation needs {error.name}; pip install 'ledg-cost[train,encoder]'"
        ) from error
    from dataclasses import replace

    from costmodel.api import load_graph

    torch.set_num_threads(threads)

    def say(line: str) -> None:
        click.echo(line, file=sys.stderr)

    corpus = training.prepare(Path(data), Path(cache), load_graph, say)
    finished = {
        name: [
            training.train(
                corpus, replace(CONFIGS[name], seed=s), Path(cache), Path(runs) / f"{name}-{s}", encoder, say
            )
            for s in range(seeds)
        ]
        for name in configs
    }
    table = split_table(finished)
    record = {"schema": 1, "protocol": protocol, "configs": list(configs), "seeds": seeds, "table": table}
    if out:
        Path(out).write_text(json.dumps(record, indent=1) + "\n")
    click.echo(markdown(table))

"""`ledg-cost evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costmodel.errors import BackendUnavailableError, DataError

if TYPE_CHECKING:
    from costmodel.ir import Graph
    from costmodel.samples import Sample
    from costmodel.training.corpus import Corpus

PROTOCOLS = ("split", "nnlqp-ood", "nnlqp-in-domain", "ablation")


@dataclass(frozen=True)
class Setting:
    """What every protocol is given."""

    protocol: str
    data: Path | None
    samples: Path | None
    cache: Path
    runs: Path
    configs: Sequence[str]
    seeds: int
    encoder: str


@click.command("evaluate")
@click.argument("protocol", type=click.Choice(PROTOCOLS))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the corpora.")
@click.option(
    "--samples",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Samples of generated networks (Parquet) for the nnlqp protocols.",
)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), default="runs/cache", show_default=True)
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default="runs",
    show_default=True,
    help="Folder of the runs; missing ones are trained.",
)
@click.option("--config", "configs", multiple=True, default=("default", "paper"), show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--encoder", default="minilm", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the table as JSON.")
def command(
    protocol: str, data: Path | None, samples: Path | None, cache: Path, runs: Path, configs: tuple[str, ...],
    seeds: int, encoder: str, threads: int, out: Path | None,
) -> None:  # fmt: skip
    """Print the table of a PROTOCOL: MAPE % ± spread over seeds / Acc(10 %) / Spearman.

    \b
    split            per source, on unseen graphs and on unseen devices (--data)
    nnlqp-ood        each family by a model of the others, as NNLQP's out-of-domain protocol (--samples)
    nnlqp-in-domain  the last tenth of each family (--samples)
    ablation         SqueezeNets by variants of the network trained on the other families (--samples)
    """
    try:
        import torch

        from costmodel.training.loop import CONFIGS
    except ImportError as error:
        raise BackendUnavailableError(
            f"evaluation needs {error.name}; pip install 'ledg-cost[train,encoder]'"
        ) from error
    torch.set_num_threads(threads)
    unknown = [name for name in configs if name not in CONFIGS]
    if unknown:
        raise click.BadParameter(f"no configuration {unknown[0]!r}; use {' or '.join(CONFIGS)}", param_hint="--config")
    setting = Setting(protocol, data, samples, cache, runs, configs, seeds, encoder)
    table, text = _split(setting) if protocol == "split" else _nnlqp(setting)
    record = {"schema": 1, "protocol": protocol, "configs": list(configs), "seeds": seeds, **table}
    if out:
        out.write_text(json.dumps(record, indent=1) + "\n")
    click.echo(text)


def _say(line: str) -> None:
    click.echo(line, file=sys.stderr)


def _split(setting: Setting) -> tuple[dict[str, Any], str]:
    from dataclasses import replace

    from costmodel.api import load_graph
    from costmodel.training import run as training
    from costmodel.training.evaluate import markdown, split_table
    from costmodel.training.loop import CONFIGS

    if setting.data is None:
        raise DataError("protocol 'split' needs the corpora; add --data DIR")
    corpus = training.prepare(setting.data, setting.cache, load_graph, _say)
    finished = {
        name: [
            training.train(
                corpus, replace(CONFIGS[name], seed=s), setting.cache, setting.runs / f"{name}-{s}", setting.encoder,
                _say,
            )
            for s in range(setting.seeds)
        ]
        for name in setting.configs
    }  # fmt: skip
    table = split_table(finished)
    return {"table": table}, markdown(table)


def _nnlqp(setting: Setting) -> tuple[dict[str, Any], str]:
    from costmodel.training import protocols
    from costmodel.training.tables import markdown

    places = setting.cache, setting.runs, setting.encoder, _say
    if setting.protocol == "ablation":
        record = protocols.ablation(_measured(setting), setting.seeds, *places)
    else:
        seeds = dict.fromkeys(setting.configs, setting.seeds)
        record = protocols.nnlqp(setting.protocol, _measured(setting), seeds, *places)
    lines: list[str] = []
    for platform, rows in record["tables"].items():
        lines += [f"**{platform.replace('|', ' · ')}**", "", *markdown(rows, "family"), ""]
    return record, "\n".join(lines)


def _measured(setting: Setting) -> Corpus:
    """The generated networks of the ten families among the samples, as a corpus."""
    from costmodel.samples import parquet
    from costmodel.training.measured import build_measured
    from profiler.workloads import FAMILIES

    if setting.samples is None:
        raise DataError(f"protocol '{setting.protocol}' needs measurements; add --samples FILE.parquet")
    samples: list[Sample] = [
        s for s, _ in parquet.read(setting.samples) if s.name.startswith("gen/") and s.name.split("/")[1] in FAMILIES
    ]
    return build_measured(samples, generated, setting.cache, _say)


def generated(name: str) -> Graph:
    """The graph of a generated network by its name. Raises InputError."""
    from costmodel.api import load_graph
    from profiler.workloads import generate, parse_name

    return load_graph(generate(*parse_name(name)))

"""`ledg-cost evaluate`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costmodel.errors import BackendUnavailableError, DataError

if TYPE_CHECKING:
    from costmodel.samples import Sample
    from costmodel.training.corpus import Corpus

NNLQP = ("nnlqp-ood", "nnlqp-in-domain", "nnlqp-zero-shot")
CROSS = ("cross-device", "precision-transfer", "neusight", "operators")
ACCURACY = ("nb201-accuracy", "nb101-accuracy")
PROTOCOLS = (
    "split",
    *NNLQP,
    "ablation",
    *CROSS,
    "zero-shot-ablation",
    "new-families",
    "new-kinds",
    "new-devices",
    "new-runtimes",
    "help-few-shot",
    *ACCURACY,
)


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
    steps: int | None
    devices: Sequence[str]
    baselines: Sequence[str]
    encoder: str
    elsewhere: Sequence[Path]


@click.command("evaluate")
@click.argument("protocol", type=click.Choice(PROTOCOLS))
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Folder of the corpora or benchmark.")
@click.option(
    "--samples",
    type=click.Path(exists=True, path_type=Path),
    help="Measured networks for the nnlqp protocols: samples of generated ones (Parquet), or NNLQP's folder.",
)
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), default="runs/cache", show_default=True)
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default="runs",
    show_default=True,
    help="Folder of the runs; missing ones are trained.",
)
@click.option("--config", "configs", multiple=True, default=("default",), show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Training steps of a run or fold, of NN-Former too. [default: the configuration's, or the protocol's]",
)
@click.option("--devices", help="Of cross-device, in place of all; t4:operators leaves out T4's networks alone.")
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(("trees", "NN-Former")),
    default=("trees", "NN-Former"),
    show_default=True,
    help="Fitted models beside roofline and line, in the nnlqp and the cross-hardware protocols.",
)
@click.option("--encoder", default="minilm", show_default=True)
@click.option(
    "--elsewhere",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tables of new-families, new-kinds, new-devices and new-runtimes, for the intervals of split.",
)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the table as JSON.")
def command(
    protocol: str, data: Path | None, samples: Path | None, cache: Path, runs: Path, configs: tuple[str, ...],
    seeds: int, steps: int | None, devices: str | None, baselines: tuple[str, ...], encoder: str,
    elsewhere: tuple[Path, ...], threads: int, out: Path | None,
) -> None:  # fmt: skip
    """Print the table of a PROTOCOL: MAPE % ± spread over seeds / Acc(10 %) / Spearman.

    \b
    split               per source, on unseen graphs and on unseen devices (--data)
    nnlqp-ood           each family by a model of the others, as NNLQP's out-of-domain protocol (--samples)
    nnlqp-in-domain     the last tenth of each family (--samples)
    nnlqp-zero-shot     fp32 of T4 and P4 by a model of NNLQP's other platforms (--samples FOLDER)
    ablation            SqueezeNets by variants of the network trained on the other families (--samples)
    cross-device        each device by a model of the others (--data)
    precision-transfer  one precision of a device by a model of its others (--data)
    neusight            transformers and operators on each of NeuSight's GPUs by a model of the others (--data)
    operators           single operators of unseen shapes (--data)
    zero-shot-ablation  unseen devices by variants of the network and its training (--data)
    new-families        architecture families outside training, others per seed, and whether they are told (--data)
    new-kinds           kinds of networks that training has on other platforms only, others per seed (--data)
    new-devices         devices outside training, others per seed, and the interval that each needs (--data)
    new-runtimes        runtimes outside training, and how far to trust the roofline there (--data)
    help-few-shot       ten networks of each of HELP's unseen devices (--data)
    nb201-accuracy      Kendall's tau of NAS-Bench-201's test accuracy (--data)
    nb101-accuracy      the same of NAS-Bench-101 (--data FILE.tfrecord)
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
    named = tuple(filter(None, (devices or "").split(",")))
    setting = Setting(protocol, data, samples, cache, runs, configs, seeds, steps, named, baselines, encoder, elsewhere)
    began = time.monotonic()
    table, text = _run_of(protocol)(setting)
    took = {"minutes": round((time.monotonic() - began) / 60, 1), "threads": threads}
    record = {"schema": 1, "protocol": protocol, "configs": list(configs), "seeds": seeds, **took, **table}
    if out:
        plain = json.loads(json.dumps(record), parse_constant=lambda _: None)  # JSON knows no NaN
        out.write_text(json.dumps(plain, indent=1) + "\n")
    click.echo(text)


Result = tuple[dict[str, Any], str]


def _run_of(protocol: str) -> Callable[[Setting], Result]:
    if protocol in (*NNLQP, "ablation"):
        return _nnlqp
    if protocol in ACCURACY:
        return _accuracy
    return {
        "split": _split,
        "zero-shot-ablation": _zero_shot,
        "new-families": _new_families,
        "new-kinds": _new_kinds,
        "new-devices": _new_devices,
        "new-runtimes": _new_runtimes,
        "help-few-shot": _few_shot,
    }.get(protocol, _cross)


def _say(line: str) -> None:
    click.echo(line, file=sys.stderr)


def _corpus(setting: Setting) -> Corpus:
    from costmodel.api import load_graph
    from costmodel.training import run as training

    return training.prepare(_data(setting), setting.cache, load_graph, _say)


def _data(setting: Setting) -> Path:
    if setting.data is None:
        raise DataError(f"protocol '{setting.protocol}' needs the corpora; add --data DIR")
    return setting.data


def _split(setting: Setting) -> Result:
    from dataclasses import replace

    from costmodel.cli.train import read_elsewhere
    from costmodel.training import run as training
    from costmodel.training.evaluate import markdown, split_table
    from costmodel.training.loop import CONFIGS

    corpus = _corpus(setting)

    def run(name: str, seed: int) -> training.Run:
        config = replace(CONFIGS[name], seed=seed, steps=setting.steps or CONFIGS[name].steps)
        folder = setting.runs / f"{name}-{seed}"
        return training.train(corpus, config, setting.cache, folder, setting.encoder, _say)

    finished = {name: [run(name, seed) for seed in range(setting.seeds)] for name in setting.configs}
    steps = {name: runs[0].trainer.config.steps for name, runs in finished.items()}
    table = split_table(finished, read_elsewhere(setting.elsewhere))
    return {"steps": steps, "table": table}, markdown(table)


def _nnlqp(setting: Setting) -> Result:
    from costmodel.baselines import answer
    from costmodel.training import protocols

    corpus, places = _measured(setting), (setting.cache, setting.runs, setting.encoder, _say)
    seeds = dict.fromkeys(setting.configs, setting.seeds)
    if setting.protocol == "ablation":
        record = protocols.ablation(corpus, seeds, *places, steps=setting.steps)
    else:
        steps = setting.steps or protocols.STEPS[setting.protocol]
        more = {name: answer(name, corpus, steps) for name in setting.baselines}
        record = protocols.nnlqp(setting.protocol, corpus, seeds, *places, more, setting.steps)
    return record, _tables(record, "family")


def _cross(setting: Setting) -> Result:
    from costmodel.training import cross

    seeds = dict.fromkeys(setting.configs, setting.seeds)
    record = cross.cross_hardware(
        setting.protocol, _corpus(setting), seeds, setting.cache, setting.runs, setting.encoder, _say, setting.devices,
        setting.steps, setting.baselines,
    )  # fmt: skip
    return record, _tables(record, "left out · source")


def _zero_shot(setting: Setting) -> Result:
    from costmodel.training.zero_shot import zero_shot_ablation

    seeds = dict.fromkeys(setting.configs, setting.seeds)
    record = zero_shot_ablation(
        _corpus(setting), seeds, setting.cache, setting.runs, setting.encoder, _say, setting.steps
    )
    return record, _tables(record, "device · source")


def _new_families(setting: Setting) -> Result:
    from costmodel.training import cross

    record = cross.new_families(
        _corpus(setting), setting.configs[0], setting.seeds, setting.cache, setting.runs, setting.encoder, _say,
        setting.steps,
    )  # fmt: skip
    told = f"Told as out of distribution: {record['hit_rate']:g} % of new families' rows, "
    return record, _tables(record, "networks") + told + f"{record['false_alarms']:g} % of known families'."


def _new_kinds(setting: Setting) -> Result:
    from costmodel.training import cross

    record = cross.new_kinds(
        _corpus(setting), setting.configs[0], setting.seeds, setting.cache, setting.runs, setting.encoder, _say,
        setting.steps,
    )  # fmt: skip
    return record, _tables(record, "platforms") + f"Inside the interval: {record['coverage']:g} % of those reported."


def _new_devices(setting: Setting) -> Result:
    from costmodel.training import cross

    record = cross.new_devices(
        _corpus(setting), setting.configs[0], setting.seeds, setting.cache, setting.runs, setting.encoder, _say,
        setting.steps,
    )  # fmt: skip
    widths = ", ".join(f"{kind} {width:g}" for kind, width in record["half_width"].items())
    return record, _tables(record, "device") + f"Half-width in ln: {widths}."


def _new_runtimes(setting: Setting) -> Result:
    from costmodel.training import cross

    record = cross.new_runtimes(
        _corpus(setting), setting.configs[0], setting.cache, setting.runs, setting.encoder, _say, setting.steps
    )
    return record, _tables(record, "runtime") + f"Best weight of the roofline: {record['roofline_share']:g}."


def _few_shot(setting: Setting) -> Result:
    from costmodel.training import fewshot

    record = fewshot.help_few_shot(
        _corpus(setting), setting.configs[0], 10, setting.cache, setting.runs, setting.encoder, _say, setting.steps
    )
    return record, _tables(record, "device")


def _accuracy(setting: Setting) -> Result:
    from costmodel.training.accuracy import accuracy_tables, markdown

    space = setting.protocol.removesuffix("-accuracy")
    record = accuracy_tables(
        _data(setting), space, None, setting.seeds, setting.cache, setting.runs, setting.encoder, _say
    )
    return record, markdown(record)


def _tables(record: dict[str, Any], head: str) -> str:
    from costmodel.training.tables import markdown

    lines: list[str] = []
    for name, rows in record["tables"].items():
        lines += [f"**{name.replace('|', ' · ')}**", "", *markdown(rows, head), ""]
    return "\n".join(lines)


def _measured(setting: Setting) -> Corpus:
    """Measured networks with families as a corpus: generated ones among the samples, or NNLQP's own."""
    from costmodel.cli.sources import generated_graph
    from costmodel.samples import parquet
    from costmodel.training.measured import build_measured, nnlqp_graph, nnlqp_samples
    from profiler.workloads import FAMILIES

    if setting.samples is None:
        raise DataError(f"protocol '{setting.protocol}' needs measurements; add --samples FILE.parquet")
    if setting.samples.is_dir():
        graph_of = partial(nnlqp_graph, setting.samples)
        return build_measured(nnlqp_samples(setting.samples), graph_of, setting.cache, _say)
    samples: list[Sample] = [
        s for s, _ in parquet.read(setting.samples) if s.name.startswith("gen/") and s.name.split("/")[1] in FAMILIES
    ]
    return build_measured(samples, generated_graph, setting.cache, _say)

"""The protocols of PAPER.md, section 5, and of this project's own tables: what each trains, tests and prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.baselines.analytic import line, roofline
from costmodel.errors import DataError
from costmodel.training.batches import Augmentation
from costmodel.training.corpus import MEASURED, Corpus
from costmodel.training.embeddings import RANDOM
from costmodel.training.folds import Fold, families, in_domain, out_of_domain, zero_shot
from costmodel.training.loop import CONFIGS, TrainConfig
from costmodel.training.run import Say
from costmodel.training.tables import Answer, average, learned, tabulate

STEPS = {"nnlqp-ood": 1000, "nnlqp-in-domain": 1500, "nnlqp-zero-shot": 4000, "ablation": 1500}
"""Training steps of one fold: what two cores do in minutes."""

FOLDS: Mapping[str, Callable[[Corpus], Iterable[Fold]]] = {
    "nnlqp-ood": out_of_domain, "nnlqp-in-domain": lambda corpus: [in_domain(corpus)], "nnlqp-zero-shot": zero_shot,
}  # fmt: skip

ABLATION_FAMILY = "squeezenet"
ABLATION: Mapping[str, Mapping[str, Any]] = {
    "global attention": {"attention": "global"},
    "fixed weights": {"dynamic": False},
    "numbers instead of language": {"language": False, "numeric": True},
    "random language model": {},
    "full": {},
    "multiplied mask": {"mask": "multiply"},
}
"""PAPER.md's table 4: what each variant changes in a configuration."""

PAPER_TABLES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "nnlqp-ood": {
        "alexnet": (10.92, 59.15), "efficientnet": (4.61, 91.85), "googlenet": (5.50, 86.52),
        "mnasnet": (3.31, 97.45), "mobilenetv2": (4.29, 92.65), "mobilenetv3": (8.30, 74.46),
        "nasbench201": (8.33, 69.78), "resnet": (6.71, 77.93), "squeezenet": (5.85, 83.10), "vgg": (19.45, 33.12),
        "average": (7.73, 76.60),
    },
    "nnlqp-in-domain": {"average": (2.64, 97.94)},
    "nnlqp-zero-shot": {"t4 fp32": (19.06, 34.62), "p4 fp32": (18.43, 39.07)},
}  # fmt: skip
"""MAPE and Acc(10 %) of arXiv 2506.07735 on NNLQP's own data (GTX1660, TensorRT 7.1, fp32), another data set."""

PAPER_ABLATION: Mapping[str, tuple[float, float]] = {
    "global attention": (6.70, 76.50), "fixed weights": (6.48, 78.05), "numbers instead of language": (6.09, 81.10),
    "random language model": (8.25, 66.45), "full": (5.85, 83.10),
}  # fmt: skip
"""The paper's table 4 (SqueezeNet out of domain); its third variant has position embeddings instead of language."""


def fold_config(name: str, protocol: str, steps: int | None = None) -> TrainConfig:
    """Configuration `name` for a protocol; no blurring of platforms where training has all that are tested."""
    config, steps = CONFIGS[name], steps or STEPS[protocol]
    unseen = protocol == "nnlqp-zero-shot"
    return replace(
        config, steps=steps, evaluate_every=max(1, steps // 6), nodes=3000, ladders=config.ladders and unseen,
        augmentation=config.augmentation if unseen else Augmentation(0.0, 0.0, 0.0, 0.0, 0.0), shares={MEASURED: 1.0},
        weights={},
    )  # fmt: skip


def ablation(
    corpus: Corpus,
    configs: Mapping[str, int],
    cache: Path,
    folder: Path,
    encoder: str,
    say: Say,
    family: str = ABLATION_FAMILY,
    steps: int | None = None,
) -> dict[str, Any]:
    """Table 4 of the paper: one family by models of the others, a table of the variants per configuration.

    configs  configuration → seeds
    """
    folds = [fold for fold in out_of_domain(corpus) if fold.name == family]
    if not folds:
        raise DataError(f"no measured network of family '{family}'; measure some with `ledg-cost profile`")
    platform = np.array(["|".join(p) for p in corpus.platforms])
    tables = {}
    for config, seeds in configs.items():
        models: dict[str, Answer] = {}
        for name, changes in ABLATION.items():
            varied = fold_config(config, "ablation", steps)
            varied = replace(varied, model=replace(varied.model, **changes))
            reader = encoder + RANDOM if name == "random language model" else encoder
            place = folder / f"ablation-{config}-{name.replace(' ', '-')}"
            models[name] = learned(corpus, varied, cache, place, reader, say, corrects=False)
        found = tabulate(
            corpus,
            folds,
            models,
            dict.fromkeys(models, seeds),
            lambda fold: platform[corpus.row_platform[fold.rows.test]],
        )
        tables[config] = {**found, "average": average(found)}
    return {"family": family, "steps": steps or STEPS["ablation"], "tables": tables, "paper": PAPER_ABLATION}


def nnlqp(
    protocol: str, corpus: Corpus, configs: Mapping[str, int], cache: Path, folder: Path, encoder: str, say: Say,
    more: Mapping[str, Answer] | None = None, steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Tables 1 to 3 of the paper on any corpus with families, one table per platform.

    configs  configuration → seeds
    more     further models by name
    """
    models: dict[str, Answer] = {
        "roofline": lambda fold, _: roofline(corpus, fold.rows.test),
        "line": lambda fold, _: line(corpus, fold.rows.train, fold.rows.test),
        **(more or {}),
    }
    for name in configs:
        config = fold_config(name, protocol, steps)
        models[name] = learned(corpus, config, cache, folder / f"{protocol}-{name}", encoder, say)
    folds = FOLDS[protocol](corpus)
    family = families(corpus)
    platform = np.array(["|".join(p) for p in corpus.platforms])

    def label(fold: Fold) -> np.ndarray:
        rows = fold.rows.test
        return np.char.add(np.char.add(platform[corpus.row_platform[rows]], "·"), family[corpus.row_graph[rows]])

    found = tabulate(corpus, folds, models, configs, label)
    tables: dict[str, Any] = {}
    for key in sorted(found):
        setting, name = key.split("·")
        tables.setdefault(setting, {})[name] = found[key]
    for rows in tables.values():
        rows["average"] = average(rows)
    return {"steps": steps or STEPS[protocol], "tables": tables, "paper": PAPER_TABLES[protocol]}

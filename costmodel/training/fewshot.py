"""HELP's protocol: ten samples on each of its unseen devices (Lee et al. 2021, arXiv:2106.08630), NAS-Bench-201."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from costmodel import baselines
from costmodel.baselines.analytic import FLOPS, fit_line, ideal_times, roofline
from costmodel.bundle import RELEASED
from costmodel.finetune.choose import choose
from costmodel.finetune.readings import Readings, read
from costmodel.metrics import summary
from costmodel.platforms import Platform, resolve
from costmodel.predictor import LeDGFormerModel
from costmodel.training.calibration import calibrate
from costmodel.training.corpus import Corpus, named_graph
from costmodel.training.folds import Fold, leave_devices_out
from costmodel.training.loop import CONFIGS
from costmodel.training.run import Say, release, train
from costmodel.training.tables import average, spread

SOURCE = "help/nasbench201"
UNSEEN = {"titan_rtx": 256, "gold_6226": 1, "fpga": 1, "pixel2": 1, "raspi4": 1, "eyeriss": 1}
"""HELP's unseen devices and the batch of each."""

STEPS, SAMPLES, TESTED = 1500, 10, 1000
_PART = 64


def help_few_shot(
    corpus: Corpus, config: str, draws: int, cache: Path, folder: Path, encoder: str, say: Say,
    steps: int | None = None, samples: int = SAMPLES, tested: int = TESTED,
) -> dict[str, Any]:  # fmt: skip
    """Figures on each unseen device without and with `samples` networks of it, means over draws of the samples.

    One model is trained on HELP's other devices; `none` is its answer, `finetune` what `ledg-cost finetune` makes of
    the samples. `line`, FLOPs, bytes and a constant, and the trees are fitted to the same samples; NN-Former is trained
    as the model is, for as many steps, and answers without samples. At most `tested` networks of the test split.
    """
    fold = _on_help(corpus, leave_devices_out(corpus, "HELP", UNSEEN))
    setting = replace(
        CONFIGS[config], steps=steps or STEPS, evaluate_every=(steps or STEPS) // 3, shares={SOURCE: 1.0}, weights={}
    )
    place = folder / f"help-few-shot-{config}"
    run = train(corpus, setting, cache, place, encoder, say, fold.rows, fold.left_out)
    if not (place / "bundle" / "config.json").exists():
        release(run, place / "bundle", RELEASED / "language", calibrate(run))
    model = LeDGFormerModel(place / "bundle", overlaid=False)
    say("training NN-Former …")
    other = baselines.fit("NN-Former", corpus, fold.rows.train, fold.rows.val, steps=setting.steps)
    table = {}
    for device, batch in UNSEEN.items():
        say(f"{device}: {samples} samples, {draws} draws")
        table[device] = _device(corpus, model, other, device, batch, draws, samples, tested)
    tables = {"HELP": {**table, "average": average(table)}}
    return {"seeds": 1, "steps": setting.steps, "samples": samples, "tables": tables}


def _on_help(corpus: Corpus, fold: Fold) -> Fold:
    here = corpus.row_source == corpus.sources.index(SOURCE)
    rows = fold.rows
    kept = {k: getattr(rows, k)[here[getattr(rows, k)]] for k in ("train", "val", "val_device", "test")}
    return replace(fold, rows=replace(rows, **kept))


def _device(
    corpus: Corpus, model: LeDGFormerModel, other: baselines.Predict, device: str, batch: int, draws: int, samples: int,
    tested: int,
) -> dict[str, dict[str, float]]:  # fmt: skip
    names = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    own = np.flatnonzero(
        (names == device) & (corpus.row_batch == batch) & (corpus.row_source == corpus.sources.index(SOURCE))
    )
    split = corpus.graph_split[corpus.row_graph[own]]
    rng = np.random.default_rng(0)
    test = rng.permutation(own[split == "test"])[:tested]
    platform = resolve(*corpus.platforms[corpus.row_platform[own[0]]])
    held = _read(model, corpus, test, batch, platform)
    y = corpus.row_ms[test]
    figures: dict[str, list[dict[str, float]]] = {"none": [summary(y, np.exp(held.log_ms))]}
    for draw in range(draws):
        few = np.random.default_rng(draw).permutation(own[split == "train"])[:samples]
        measured = corpus.row_ms[few]
        fitted = choose(_read(model, corpus, few, batch, platform), np.log(measured)).adapter
        figures.setdefault("finetune", []).append(summary(y, np.exp(fitted.log_ms(held))))
        answer = ideal_times(corpus, test) @ fit_line(ideal_times(corpus, few), measured)
        figures.setdefault("line", []).append(summary(y, np.maximum(answer, 1e-9)))
        figures.setdefault("trees", []).append(summary(y, baselines.fit("trees", corpus, few, few, draw)(test)))
    figures["NN-Former"] = [summary(y, other(test))]
    figures["FLOPs"] = [summary(y, np.maximum(ideal_times(corpus, test)[:, FLOPS], 1e-9))]
    figures["roofline"] = [summary(y, roofline(corpus, test))]
    return {name: spread(found) for name, found in figures.items()}


def _read(model: LeDGFormerModel, corpus: Corpus, rows: np.ndarray, batch: int, platform: Platform) -> Readings:
    graphs = [named_graph(corpus.names[corpus.row_graph[r]], batch) for r in rows]
    parts = []
    for at in range(0, len(graphs), _PART):
        forms = model.forms(model.encode_many(graphs[at : at + _PART], [platform]), platform)
        parts.append(read(forms, *model.unadapted(forms, platform)))
    return Readings.join(parts)

"""One training run from the data folder to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from costmodel.correction import Correction
from costmodel.familiarity import Described, Familiar
from costmodel.finetune.overlay import sheet_id
from costmodel.metrics import summary
from costmodel.model import LeDGFormer
from costmodel.platforms import (
    Platform,
    Precision,
    list_devices,
    load_device,
    resolve,
    supported_precisions,
)
from costmodel.prompts import platform_sentence
from costmodel.training.batches import Batches
from costmodel.training.corpus import MEASURED, Corpus, LoadGraph, build_corpus, read_corpus
from costmodel.training.correct import correctable_platforms, corrected, correction
from costmodel.training.embeddings import embed
from costmodel.training.export import write_bundle
from costmodel.training.folds import kinds
from costmodel.training.loop import Rows, TrainConfig, Trainer, network_rows, predict_rows, thin
from costmodel.training.split import TEST_DEVICES, VALIDATION_DEVICES

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A finished training run; without `corrects` its answers are the network's alone."""

    trainer: Trainer
    network: LeDGFormer
    corpus: Corpus
    corrects: bool = True

    @property
    def rows(self) -> Rows:
        """The corpus's rows by use."""
        return self.trainer.rows

    @cached_property
    def correction(self) -> Correction | None:
        """What trees add to the network's answers; fitted when it is first asked for."""
        return correction(self) if self.corrects else None

    @cached_property
    def familiar(self) -> Familiar:
        """What the network takes for in distribution."""
        return _familiar(self)


def prepare(data: Path, cache: Path, load: LoadGraph, say: Say) -> Corpus:
    """The corpus, built from the data folder where the cache does not hold it. Raises DataError."""
    build_corpus(data, cache, load, say)
    return read_corpus(cache)


def make_batches(
    corpus: Corpus, config: TrainConfig, cache: Path, encoder: str, say: Say, left_out: Collection[str] | None = None
) -> Batches:
    """Batches with the sentences of the configuration's templates embedded by the teacher.

    left_out  devices that get no ladder; default: those that `divide` holds out
    """
    model = config.model
    ids = corpus.paper if model.node_template == "paper" else corpus.sentence
    used = np.unique(ids)
    if left_out is None:
        left_out = TEST_DEVICES | VALIDATION_DEVICES if config.hold_out else frozenset()
    rungs = ladders(left_out) if config.ladders else []
    measured = [resolve(*p) for p in corpus.platforms]
    platforms = [platform_sentence(p, model.platform_template) for p in [*measured, *(p for r in rungs for p in r)]]
    vectors = embed([corpus.sentences[i] for i in used] + platforms, cache, encoder, say)
    table = np.zeros((len(corpus.sentences), vectors.shape[1]), np.float16)
    table[used] = vectors[: len(used)]
    return Batches(
        corpus, table, (platforms, vectors[len(used) :]), model.node_template, model.window, rungs, config.augmentation
    )


def ladders(left_out: Collection[str]) -> list[list[Platform]]:
    """Unlabelled platforms of every NVIDIA GPU.

    TensorRT from wide to narrow precision, where each step is faster on the sheet; PyTorch at each precision alone.
    """
    found = []
    for name in list_devices():
        device = load_device(name)
        if device.vendor.casefold() != "nvidia" or device.kind != "gpu" or name in left_out:
            continue
        supported = supported_precisions(device)
        rungs = [
            resolve(device, p, "tensorrt") for p in (Precision.FP32, Precision.FP16, Precision.INT8) if p in supported
        ]
        kept = rungs[:1]
        for rung in rungs[1:]:
            if rung.matrix_tflops >= kept[-1].matrix_tflops:
                kept.append(rung)
        found.append(kept)
        floats = [rung.precision for rung in kept if rung.precision is not Precision.INT8]
        found += [[resolve(device, p, runtime)] for p in floats for runtime in ("pytorch-eager", "pytorch-compile")]
    return found


def train(
    corpus: Corpus, config: TrainConfig, cache: Path, folder: Path, encoder: str, say: Say,
    rows: Rows | None = None, left_out: Collection[str] | None = None, change: Callable[[Batches], None] | None = None,
) -> Run:  # fmt: skip
    """Trains, or resumes, one configuration in `folder`; `rows` default to the split, `left_out` as `make_batches`;
    `change` is done to the batches before."""
    batches = make_batches(corpus, config, cache, encoder, say, left_out)
    if change:
        change(batches)
    trainer = Trainer(config, batches, folder, say, rows)
    return Run(trainer, trainer.run(), corpus)


REFERENCES, OTHERS = 1000, 150
"""Training networks of the most varied source whose vectors a bundle keeps, and of every other source."""


def described(run: Run, rows: np.ndarray) -> Described:
    """(n, d) vector of each row's graph at the row's batch, and (n, 4) its statistics."""
    vectors, stats = [np.zeros((0, run.trainer.config.model.width), np.float32)], [np.zeros((0, 4), np.float32)]
    with torch.no_grad():
        for at in range(0, len(rows), 16):
            step = run.trainer.batches.pack([rows[i : i + 1] for i in range(at, min(at + 16, len(rows)))])
            vectors.append(run.network.eval().encode(step.batch)[1].numpy())
            stats.append(step.batch.stats.numpy())
    return np.concatenate(vectors), np.concatenate(stats)


def drawn_rows(corpus: Corpus, rows: np.ndarray, most: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Source → of at most `most` of its graphs among `rows`, drawn by a fixed seed, a row of the least batch and one of
    the largest."""
    rng = np.random.default_rng(seed)
    found = {}
    for s in np.unique(corpus.row_source[rows]):
        own = rows[corpus.row_source[rows] == s]
        own = own[np.lexsort((corpus.row_batch[own], corpus.row_graph[own]))]
        graphs, first = np.unique(corpus.row_graph[own], return_index=True)
        last = np.append(first[1:], len(own)) - 1
        chosen = rng.permutation(len(graphs))[:most]
        found[corpus.sources[s]] = own[np.unique(np.concatenate([first[chosen], last[chosen]]))]
    return found


def _familiar(run: Run) -> Familiar:
    """From a run's training and validation networks."""
    corpus, known = run.corpus, run.rows.train
    of_source = np.array(corpus.sources)[corpus.row_source[known]]
    references = np.concatenate(
        [
            *drawn_rows(corpus, known[of_source == "timm"], REFERENCES).values(),
            *drawn_rows(corpus, known[of_source != "timm"], OTHERS).values(),
        ]
    )
    unseen = drawn_rows(corpus, network_rows(corpus, run.rows.val), 100)
    limits = [described(run, rows) for rows in unseen.values()]
    return Familiar.fit(described(run, references), kinds(corpus)[corpus.row_graph[references]], limits)


def likeness(run: Run, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the kind that the network takes each row's graph for at its batch, and (n,) whether it is out of
    distribution."""
    corpus = run.corpus
    pair = corpus.row_graph[rows].astype(np.int64) << 32 | corpus.row_batch[rows].astype(np.int64)
    _, first, place = np.unique(pair, return_index=True, return_inverse=True)
    distance, kind = run.familiar.nearest(*described(run, rows[first]))
    return kind[place], distance[place] > run.familiar.limit


def validation(run: Run) -> dict[str, Any]:
    """MAPE, Acc(10 %) and Spearman of each source on validation graphs."""
    rows = thin(run.corpus, run.rows.val, 1000, seed=1)
    y, p, r = predict_rows(run.network, run.trainer.batches, rows)
    p = corrected(run, r, p)
    source = run.corpus.row_source[r]
    return {run.corpus.sources[s]: summary(y[source == s], p[source == s]) for s in np.unique(source)}


def release(run: Run, folder: Path, language: Path, calibration: Mapping[str, Any]) -> None:
    """Writes the run as a bundle in `folder`; `language` holds the sentence table and the student."""
    corpus, config = run.corpus, run.trainer.config
    figures = validation(run)
    best = min(run.trainer.history, key=lambda h: h["score"])
    summary_ = {
        "seed": config.seed, "steps": config.steps, "selected_step": int(best["step"]), "hold_out": config.hold_out,
        "rows": len(run.rows.train), "graphs": len(np.unique(corpus.row_graph[run.rows.train])),
        "platforms": _platforms(run), "own": "; our own" if MEASURED in corpus.sources else "",
        "named_runtimes": sorted(named) if (named := run.trainer.batches.named) is not None else None,
        "identities": {key: sheet_id(resolve(*key.split("|"))) for key in run.trainer.known},
        "in_layers": _in_layers(run),
        "trees": len(run.correction.trees.roots) if run.correction else 0, "corrected": _corrected(run),
        "validation": figures, "sentences": _sentences(run),
    }  # fmt: skip
    torch.manual_seed(0)
    example = run.trainer.batches.pack(run.trainer.batches.items(run.rows.val[:2000])[:3])
    trained = _sentences(run)
    sentences = [*trained, *run.trainer.batches.platform_sentences]
    vectors = np.concatenate(
        [
            run.trainer.batches.embeddings[[corpus.sentences.index(s) for s in trained]],
            run.trainer.batches.platform_embeddings,
        ]
    )
    facts = card(summary_, calibration)
    write_bundle(
        folder,
        run.network,
        example,
        language,
        (sentences, vectors),
        calibration,
        summary_,
        facts,
        run.familiar,
        run.correction,
    )


def _in_layers(run: Run) -> list[str]:
    """The platforms that were measured with networks in layers (`costmodel.forms`), for the most part."""
    corpus = run.corpus
    rows = network_rows(corpus, run.rows.train)
    platform, in_layers = corpus.row_platform[rows], corpus.in_layers[corpus.row_graph[rows]]
    share = np.bincount(platform, in_layers) / np.bincount(platform).clip(1)
    return ["|".join(corpus.platforms[p]) for p in np.flatnonzero(share > 0.5)]


def _corrected(run: Run) -> dict[str, str]:
    """The platforms whose answers the trees correct, with their sheets."""
    if run.correction is None:
        return {}
    known = np.flatnonzero(correctable_platforms(run.corpus, run.rows.train).any(0))
    return {"|".join(p): sheet_id(resolve(*p)) for p in (run.corpus.platforms[i] for i in known)}


def _platforms(run: Run) -> dict[str, dict[str, int]]:
    """Training rows of each platform, whole networks and single operators apart."""
    corpus = run.corpus
    operators = np.array([s.endswith("-ops") for s in corpus.sources])[corpus.row_source[run.rows.train]]
    platform = corpus.row_platform[run.rows.train]
    return {
        "|".join(corpus.platforms[p]): {
            "networks": int((platform[~operators] == p).sum()), "operators": int((platform[operators] == p).sum()),
        }
        for p in np.unique(platform)
    }  # fmt: skip


def _sentences(run: Run) -> list[str]:
    """Every node sentence of the training graphs: what the network has met."""
    corpus = run.corpus
    ids = run.trainer.batches.sentence
    graphs = np.unique(corpus.row_graph[run.rows.train])
    used = np.unique(np.concatenate([ids[corpus.node_start[g] : corpus.node_start[g + 1]] for g in graphs]))
    return sorted(corpus.sentences[i] for i in used)


def card(facts: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    """The model card, from the run's own figures."""
    lines = [
        "# LeDG-Former, released bundle", "",
        "Predicts the latency of one forward pass from a network's graph and a device's spec sheet.", "",
        f"- Trained on {facts['rows']:,} measurements of {facts['graphs']:,} graphs on"
        f" {len(facts['platforms'])} platforms"
        f" (HELP, NNLQP, pytorch-image-models, PaddleClas, MLPerf, NeuSight, tinynas{facts['own']}).",
        "- Split: 80/10/10 % of graphs by fingerprint; published test graphs stay out. "
        + ("Four test and three validation devices were held out." if facts["hold_out"] else "All devices train."),
        f"- Seed {facts['seed']}, {facts['steps']} steps, step {facts['selected_step']} selected on validation graphs.",
        f"- {facts['trees']} boosted trees correct the answers for {len(facts['corrected'])} measured platforms.",
        f"- Interval: 90 % nominal, half-widths in ln(latency) {calibration['half_width']}.",
        "- Platforms outside training are read by their spec sheet, under"
        f" {' and '.join(calibration['kin']) or 'no runtime'} also through measured ones of their kind.", "",
        "| validation, unseen graphs | rows | MAPE % | Acc(10 %) | Spearman |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    lines += [
        f"| {source} | {f['n']} | {f['mape']} | {f['acc10']} | {f['spearman']} |"
        for source, f in facts["validation"].items()
    ]
    return "\n".join(lines) + "\n"

"""The cross-hardware protocols on the corpora: what is left out of training, and the tables of what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.baselines import answer
from costmodel.baselines.analytic import roofline
from costmodel.errors import DataError
from costmodel.metrics import mape, summary
from costmodel.platforms import load_device, parse_runtime
from costmodel.training.calibration import (
    ROOFLINE_SHARES,
    UnseenReading,
    choose_unseen,
    kin_answers,
    mean_error,
    mixed,
    standing,
    unseen_answers,
)
from costmodel.training.corpus import Corpus
from costmodel.training.export import conformal_quantile
from costmodel.training.folds import (
    DEVICE_FOLDS,
    FAMILY_FOLDS,
    KIND_FOLDS,
    Fold,
    card,
    leave_a_fifth_out,
    leave_devices_out,
    leave_families_out,
    leave_kinds_out,
    leave_networks_out,
    leave_precision_out,
    leave_runtime_out,
    neusight,
    unseen_shapes,
)
from costmodel.training.loop import CONFIGS, TrainConfig, network_rows, thin
from costmodel.training.run import Say, likeness, train
from costmodel.training.tables import Answer, Kept, average, in_order, interval, learned, tabulate

STEPS = {
    "cross-device": 2000,
    "precision-transfer": 2000,
    "neusight": 1200,
    "operators": 1200,
    "new-families": 3000,
    "new-kinds": 1500,
    "new-devices": 1500,
    "new-runtimes": 1500,
}
"""Training steps of one fold."""

PRECISIONS = (("t4", "fp16"), ("v100", "int8"))
NEUSIGHT_GPUS = ("p4", "t4", "p100", "v100", "a100")
NEUSIGHT_SHARES = {"neusight-ops": 0.5, "neusight-e2e": 0.5}
OPERATOR_SHARES = {"neusight-ops": 0.6, "tinynas-ops": 0.4}
ANALYTIC = ("roofline", "FLOPs", "FLOPs+bytes")
FITTED = ("trees", "NN-Former")
RUNTIMES = ("paddle-trt", "pytorch-compile")
"""Runtimes with networks enough to leave out, and others of their kind to learn from."""
FEWEST_DEVICES = 3
"""Devices of one kind from which there is an interval for it."""
MOST_ROWS = 3000
"""Tested rows of one source of a fold."""
KIN_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def protocols() -> tuple[str, ...]:
    """Names of the protocols of this module."""
    return tuple(STEPS)


def cross_hardware(
    protocol: str, corpus: Corpus, configs: Mapping[str, int], cache: Path, folder: Path, encoder: str, say: Say,
    devices: Sequence[str] = (), steps: int | None = None, fitted: Sequence[str] = FITTED,
) -> dict[str, Any]:  # fmt: skip
    """The table of `cross-device`, `precision-transfer`, `neusight` or `operators`.

    configs  configuration → seeds
    devices  of cross-device, in place of all that ran networks; "t4:operators" leaves out the networks of t4 alone
    steps    of training, in place of `STEPS`
    fitted   further baselines, of one seed
    """
    folds = [thinned(corpus, fold) for fold in _folds(protocol, corpus, devices)]
    trained = steps or STEPS[protocol]
    models: dict[str, Answer] = {name: answer(name, corpus, trained) for name in (*ANALYTIC, *fitted)}
    for name in fitted:
        models[name] = Kept(models[name], folder / f"{protocol}-{name}", trained)
    for name in configs:
        config = fold_config(name, protocol, steps)
        models[name] = learned(corpus, config, cache, folder / f"{protocol}-{name}", encoder, say)
    found = tabulate(corpus, folds, models, configs, _label(corpus))
    return {
        "steps": trained, "devices": list(devices),
        "tables": {protocol: {**found, "average": average(found)}},
    }  # fmt: skip


def fold_config(name: str, protocol: str, steps: int | None = None) -> TrainConfig:
    """Configuration `name` for a fold of a protocol."""
    steps = steps or STEPS[protocol]
    config = replace(CONFIGS[name], steps=steps, evaluate_every=max(1, steps // 4))
    if protocol == "neusight":
        return replace(config, shares=NEUSIGHT_SHARES, weights={}, ladders=False, nodes=3000)
    if protocol == "operators":
        return replace(config, shares=OPERATOR_SHARES, weights={}, ladders=False, nodes=600)
    return config


def devices_of(corpus: Corpus) -> list[str]:
    """Devices with measured networks, MLPerf's single network apart."""
    rows = network_rows(corpus, np.arange(len(corpus.row_ms)))
    rows = rows[np.array(corpus.sources)[corpus.row_source[rows]] != "mlperf"]
    return sorted({corpus.platforms[p][0] for p in np.unique(corpus.row_platform[rows])})


def _folds(protocol: str, corpus: Corpus, devices: Sequence[str]) -> list[Fold]:
    if protocol == "neusight":
        return [neusight(corpus, gpu) for gpu in NEUSIGHT_GPUS]
    if protocol == "operators":
        return [unseen_shapes(corpus)]
    if protocol == "precision-transfer":
        return [leave_precision_out(corpus, *pair) for pair in PRECISIONS]
    known = devices_of(corpus)
    unknown = [d for d in devices if d.removesuffix(":operators") not in known]
    if unknown:
        raise DataError(f"no networks of device '{unknown[0]}' in the corpora; use one of {', '.join(known)}")
    return [
        leave_networks_out(corpus, d.removesuffix(":operators"))
        if d.endswith(":operators")
        else leave_devices_out(corpus, d, [d])
        for d in devices or (*known, "t4:operators")
    ]


def thinned(corpus: Corpus, fold: Fold) -> Fold:
    """The fold with at most `MOST_ROWS` tested rows of a source."""
    return replace(fold, rows=replace(fold.rows, test=thin(corpus, fold.rows.test, MOST_ROWS)))


def _label(corpus: Corpus) -> Callable[[Fold], np.ndarray]:
    source = np.array(corpus.sources)
    kind = np.array(["/" + _operator(name) if name.startswith("op/") else "" for name in corpus.names])

    def label(fold: Fold) -> np.ndarray:
        rows = fold.rows.test
        sources = source[corpus.row_source[rows]]
        if fold.name == "unseen shapes":
            sources = np.char.add(sources, kind[corpus.row_graph[rows]])
        return np.char.add(f"{fold.name} · ", sources)

    return label


def _operator(name: str) -> str:
    """The operator of an operator graph's name, "bmm" of "op/op=bmm,batch=…"."""
    return name.split("op=")[-1].split(",")[0]


def new_families(
    corpus: Corpus, config: str, folds: int, cache: Path, folder: Path, encoder: str, say: Say,
    steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What networks of architecture families outside training cost: error, interval, and how often they are told.

    Every fold leaves out other families. Half of the left-out families calibrate the interval of what counts as out of
    distribution, the others are reported, beside new networks of known families: each row with the interval it is
    answered with. `hit_rate` is the share in % of rows of the reported families that count as out of distribution,
    `hit_rate_calibrating` that of the others, `false_alarms` that of known families' rows.

    Raises DataError for more than `FAMILY_FOLDS` folds.
    """
    if folds > FAMILY_FOLDS:
        raise DataError(f"new-families has {FAMILY_FOLDS} folds, not {folds}; give --seeds {FAMILY_FOLDS} at most")
    setting = replace(fold_config(config, "new-families", steps), hold_out=False)
    answers = [_left_out_families(corpus, setting, k, cache, folder / f"new-families-{config}", encoder, say)
               for k in range(folds)]  # fmt: skip
    y, p, told = ({name: np.concatenate([a[name][i] for a in answers]) for name in answers[0]} for i in range(3))
    new = told["calibrating"] if told["calibrating"].any() else ~told["calibrating"]
    half = {
        "known_platform": round(conformal_quantile(y["validation"], p["validation"]), 4),
        "new_family": round(conformal_quantile(y["calibrating"][new], p["calibrating"][new]), 4),
    }
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name in ("new networks of known families", "networks of new families"):
        width = np.where(told[name], half["new_family"], half["known_platform"])
        flag = {"told_new": round(float(told[name].mean() * 100), 1)}
        table[name] = {config: summary(y[name], p[name]) | interval(y[name], p[name], width) | flag}
    return {
        "seeds": folds, "steps": setting.steps, "half_width": half,
        "hit_rate": table["networks of new families"][config]["told_new"],
        "hit_rate_calibrating": round(float(told["calibrating"].mean() * 100), 1),
        "false_alarms": table["new networks of known families"][config]["told_new"],
        "tables": {"new families": table},
    }  # fmt: skip


def _left_out_families(
    corpus: Corpus, setting: TrainConfig, number: int, cache: Path, folder: Path, encoder: str, say: Say
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Group → latencies, answers, and what counts as out of distribution, of one fold of `new_families`."""
    fold = leave_families_out(corpus, number)
    run = train(
        corpus, replace(setting, seed=number), cache, folder / str(number), encoder, say, fold.rows, frozenset()
    )
    timm = np.array([name.startswith("timm/") for name in corpus.names])
    out = np.concatenate([fold.rows.val_device, fold.rows.test])
    usual = np.flatnonzero(timm[corpus.row_graph] & (corpus.graph_split[corpus.row_graph] == "test"))
    groups = {
        "validation": thin(corpus, fold.rows.val, 1000, seed=1),
        "calibrating": thin(corpus, fold.rows.val_device, 1000, seed=1),
        "new networks of known families": usual[~np.isin(corpus.row_graph[usual], np.unique(corpus.row_graph[out]))],
        "networks of new families": fold.rows.test,
    }
    nothing = np.zeros(0, bool)
    return {
        name: (corpus.row_ms[rows], in_order(run, rows), nothing if name == "validation" else likeness(run, rows)[1])
        for name, rows in groups.items()
    }


def new_kinds(
    corpus: Corpus, config: str, folds: int, cache: Path, folder: Path, encoder: str, say: Say,
    steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What it costs that training knows a platform, and a kind of networks, but not the kind on the platform.

    Every fold leaves out other kinds. Half of the platforms calibrate the interval, the others are reported; the table
    has both, by kind of device. `coverage` is the share in % of reported rows inside the interval.

    Raises DataError for more than `KIND_FOLDS` folds.
    """
    if folds > KIND_FOLDS:
        raise DataError(f"new-kinds has {KIND_FOLDS} folds, not {folds}; give --seeds {KIND_FOLDS} at most")
    setting = replace(fold_config(config, "new-kinds", steps), hold_out=False)
    answers = [_left_out_kinds(corpus, setting, k, cache, folder / f"new-kinds-{config}", encoder, say)
               for k in range(folds)]  # fmt: skip
    found = {side: [np.concatenate([a[side][i] for a in answers]) for i in range(2)] for side in answers[0]}
    rows, p = found["calibrating"]
    half = round(conformal_quantile(corpus.row_ms[rows], p), 4)
    device = np.array([load_device(p[0]).kind for p in corpus.platforms])
    table: dict[str, dict[str, dict[str, float]]] = {}
    for side, (rows, p) in found.items():
        y, kind = corpus.row_ms[rows], device[corpus.row_platform[rows]]
        for name in np.unique(kind):
            at = kind == name
            table[f"{side} · {name}"] = {config: summary(y[at], p[at]) | interval(y[at], p[at], half)}
    rows, p = found["reported"]
    return {
        "seeds": folds, "steps": setting.steps, "half_width": {"new_kind": half},
        "coverage": interval(corpus.row_ms[rows], p, half)["coverage"], "tables": {"new kinds": table},
    }  # fmt: skip


def _left_out_kinds(
    corpus: Corpus, setting: TrainConfig, number: int, cache: Path, folder: Path, encoder: str, say: Say
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Side → rows and answers of one fold of `new_kinds`."""
    fold = leave_kinds_out(corpus, number)
    run = train(
        corpus, replace(setting, seed=number), cache, folder / str(number), encoder, say, fold.rows, frozenset()
    )
    sides = {"calibrating": fold.rows.val_device, "reported": fold.rows.test}
    drawn = {side: thin(corpus, rows, MOST_ROWS, seed=1) for side, rows in sides.items()}
    return {side: (rows, in_order(run, rows)) for side, rows in drawn.items()}


def new_devices(
    corpus: Corpus, config: str, folds: int, cache: Path, folder: Path, encoder: str, say: Say,
    steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What it costs that training has nothing of a device, and the interval of each kind of device.

    Every fold leaves out others. All of it is validation: a fold's devices choose how they are read. In the table
    stands what each device alone would need for 90 % (`needs`), and what the interval that the others of its kind give
    holds on it; from `FEWEST_DEVICES` on. `kin` has the mean MAPE over sources and platforms by the weight of kin (see
    `kin`), of those that have some.

    Raises DataError for more than `DEVICE_FOLDS` folds.
    """
    if folds > DEVICE_FOLDS:
        raise DataError(f"new-devices has {DEVICE_FOLDS} folds, not {folds}; give --seeds {DEVICE_FOLDS} at most")
    setting = fold_config(config, "new-devices", steps)
    answers = [_left_out_devices(corpus, setting, k, cache, folder / f"new-devices-{config}", encoder, say)
               for k in range(folds)]  # fmt: skip
    rows, p, own, kin = (np.concatenate([a[i] for a in answers]) for i in range(4))
    device, y = np.array([card(q[0]) for q in corpus.platforms])[corpus.row_platform[rows]], corpus.row_ms[rows]
    kind = np.array([load_device(q[0]).kind for q in corpus.platforms])[corpus.row_platform[rows]]

    def width(of: np.ndarray) -> float | None:
        enough = len(np.unique(device[of])) >= FEWEST_DEVICES
        return round(device_quantile(y[of], p[of], device[of]), 4) if enough else None

    table: dict[str, dict[str, dict[str, float]]] = {}
    for of, d in sorted(set(zip(kind.tolist(), device.tolist(), strict=True))):
        at = device == d
        needs = {"needs": round(conformal_quantile(y[at], p[at], corpus.row_graph[rows[at]]), 4)}
        others = width((kind == of) & ~at)
        table[f"{of} · {d}"] = {config: summary(y[at], p[at]) | interval(y[at], p[at], others) | needs}
    widths = {of: found for of in np.unique(kind).tolist() if (found := width(kind == of))}
    read = {of: (kind == of) & (kin > 0) for of in widths}
    by_weight = {of: _by_weight(corpus, rows[at], own[at], kin[at]) for of, at in read.items() if at.any()}
    return {
        "seeds": folds, "steps": setting.steps, "half_width": widths, "kin": by_weight,
        "tables": {"new devices": table},
    }  # fmt: skip


def _by_weight(corpus: Corpus, rows: np.ndarray, own: np.ndarray, kin: np.ndarray) -> dict[str, float]:
    """Weight of kin in the ln of answers → the error of answers to rows, given those by the sheet and through kin."""
    return {f"{w:g}": mean_error(corpus, rows, mixed(own, kin, w)) for w in KIN_WEIGHTS}


def device_quantile(y: np.ndarray, p: np.ndarray, device: np.ndarray, coverage: float = 0.9) -> float:
    """Half-width in ln that holds `coverage` of the rows of several devices, which count alike whatever their rows.

    Source: Dunn, Wasserman and Ramdas, Distribution-free prediction sets for two-layer hierarchical models, 2022
    (pooled distributions).
    """
    scores = np.abs(np.log(y / p))
    _, of, count = np.unique(device, return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    held = np.cumsum(1 / count[of[order]]) / len(count)
    return float(scores[order][min(np.searchsorted(held, coverage - 1e-9), len(scores) - 1)])


def _left_out_devices(
    corpus: Corpus, setting: TrainConfig, number: int, cache: Path, folder: Path, encoder: str, say: Say
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of new platforms of one fold of `new_devices`, and the answers to them: as chosen, by the sheet, by kin."""
    fold = leave_a_fifth_out(corpus, number)
    run = train(
        corpus, replace(setting, seed=number), cache, folder / str(number), encoder, say, fold.rows, fold.left_out
    )
    new = standing(run, run.rows.train)[corpus.row_platform] == "new_platform"
    rows = thin(corpus, fold.rows.val_device[new[fold.rows.val_device]], MOST_ROWS, seed=1)
    reading, _, share, _ = choose_unseen(run)
    chosen = mixed(unseen_answers(run, rows, reading), roofline(corpus, rows), share)
    runtimes = {parse_runtime(p[2])[0] for p in corpus.platforms}
    return rows, chosen, unseen_answers(run, rows, UnseenReading("sheet")), kin_answers(run, rows, runtimes)


def new_runtimes(
    corpus: Corpus, config: str, cache: Path, folder: Path, encoder: str, say: Say, steps: int | None = None
) -> dict[str, Any]:
    """What a runtime that training never saw costs: how much of the answer the roofline should be, and the interval.

    Each of `RUNTIMES` is left out in turn. All of it is validation: the weight is chosen on the rows that are shown.
    """
    setting = fold_config(config, "new-runtimes", steps)
    answers = {}
    for runtime in RUNTIMES:
        fold = leave_runtime_out(corpus, runtime)
        place = folder / f"new-runtimes-{config}-{runtime}"
        run = train(corpus, setting, cache, place, encoder, say, fold.rows, fold.left_out)
        rows = fold.rows.val_device
        answers[fold.name] = corpus.row_ms[rows], in_order(run, rows), roofline(corpus, rows)
    errors = {
        share: float(np.mean([mape(y, mixed(p, r, share)) for y, p, r in answers.values()]))
        for share in ROOFLINE_SHARES
    }
    best = min(errors, key=lambda share: errors[share])
    width = max(conformal_quantile(y, mixed(p, r, best)) for y, p, r in answers.values())
    shown = sorted({0.0, 0.25, best, 0.5, 0.75, 1.0})
    table = {
        name: {f"roofline {share:g}": summary(y, mixed(p, r, share)) for share in shown}
        for name, (y, p, r) in answers.items()
    }
    return {
        "seeds": 1, "steps": setting.steps, "roofline_share": best, "half_width": round(width, 4),
        "tables": {"new runtimes": table},
    }  # fmt: skip

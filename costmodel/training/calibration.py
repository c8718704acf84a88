"""How far a run's answers can be trusted: half-widths of the intervals, and how unseen platforms are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.baselines.analytic import roofline
from costmodel.bundle import ENOUGH, of_standing
from costmodel.kin import KIN, KIN_SHARE, nearest
from costmodel.metrics import mape
from costmodel.platforms import load_device, parse_runtime, resolve
from costmodel.training.corpus import Corpus
from costmodel.training.correct import corrected
from costmodel.training.export import conformal_quantile
from costmodel.training.folds import kinds
from costmodel.training.loop import network_rows, predict_rows, thin
from costmodel.training.run import Run, likeness

ROOFLINE_SHARES = tuple(k / 20 for k in range(21))
"""Weights of the roofline in an answer that are tried."""
FEWEST = 20
"""Validation networks of a kind on a platform from which they have an interval of their own."""


def calibrate(run: Run, elsewhere: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Half-widths of the 90 % split-conformal interval from validation rows, and how unseen platforms are best read.

    `half_width` is by group, `by_platform` of each platform's networks by their kind, of all kinds that training has
    there; where a kind has too few validation networks it is that of all such rows together, `known_platform`, as for
    networks without a kind of their own. `new_platform` is the width that holds 90 % on each validation device, for
    the rows of one err together. `unseen_devices` is
    "generic" where hiding the validation devices' numbers and sentence (`features.generic`) gives the lower mean MAPE
    over sources, else "sheet"; `kin` are the runtimes for which reading them through measured platforms (see `kin`) is
    better than both. `roofline_share` is the weight of the roofline in the ln of an answer for a platform that training
    did not measure, chosen with them. A run without held-out devices has none of these. So it is with what other
    protocols measure, unless `elsewhere` (group → `half_width` and, for `new_runtime`, `roofline_share`) has it:
    networks of new families, networks of a kind that training has on other platforms only, runtimes that training
    never saw, and devices of one kind ("new_gpu"), where that is wider than `new_platform`.
    """
    corpus, batches = run.corpus, run.trainer.batches
    y, p, r = predict_rows(run.network, batches, thin(corpus, run.rows.val, 1000, seed=1))
    p = corrected(run, r, p)
    network = np.isin(r, network_rows(corpus, r))
    key, (kind, _) = np.array(keys(run))[corpus.row_platform[r]], likeness(run, r)

    def width(of: np.ndarray) -> float | None:
        return round(conformal_quantile(y[of], p[of], corpus.row_graph[r[of]]), 4) if of.any() else None

    others, own = network.copy(), dict[tuple[str, str], float | None]()
    trained = kinds_of_platforms(run)
    for platform, names in trained.items():
        for name in names:
            at = network & (key == platform) & (kind == name)
            if len(np.unique(corpus.row_graph[r[at]])) >= FEWEST:
                own[platform, name] = width(at)
                others &= ~at
    widths: dict[str, float | None] = {"known_platform": width(others if others.any() else network)}
    by_platform = {
        platform: {name: own.get((platform, name), widths["known_platform"]) for name in names}
        for platform, names in trained.items()
    }
    widths |= {"operators": width(~network)}
    widths |= dict.fromkeys(("new_kind", "new_family", "new_platform", "new_runtime"))
    shares: dict[str, float | None] = {"new_platform": None, "new_runtime": None}
    reading, scores = AS_TOLD, dict[str, float]()
    if len(run.rows.val_device):
        reading, scores, shares["new_platform"], widths["new_platform"] = choose_unseen(run)
    for group, found in (elsewhere or {}).items():
        widths[group] = found["half_width"]
        if group in shares:
            shares[group] = found["roofline_share"]
    return {
        "coverage": 0.9, "half_width": widths, "by_platform": by_platform, "roofline_share": shares,
        "unseen_devices": reading.mode, "kin": list(reading.kin), "validation_mape": scores,
    }  # fmt: skip


def kinds_of_platforms(run: Run) -> dict[str, list[str]]:
    """Platform, as `keys`, → the kinds of networks of which training has `ENOUGH` measurements there."""
    corpus, rows = run.corpus, network_rows(run.corpus, run.rows.train)
    key = np.array(keys(run))[corpus.row_platform[rows]]
    counts = Counter(zip(key.tolist(), kinds(corpus)[corpus.row_graph[rows]].tolist(), strict=True))
    found: dict[str, list[str]] = {}
    for (platform, kind), count in sorted(counts.items()):
        if count >= ENOUGH:
            found.setdefault(platform, []).append(kind)
    return found


@dataclass(frozen=True)
class UnseenReading:
    """How platforms that training did not measure are read: by their spec sheet ("sheet") or as one of their kind
    ("generic"), and through kin as well under the runtimes `kin`."""

    mode: str | None = None
    kin: tuple[str, ...] = ()

    @classmethod
    def of(cls, calibration: Mapping[str, Any]) -> UnseenReading:
        """What `calibrate` chose."""
        return cls(calibration["unseen_devices"], tuple(calibration["kin"]))


AS_TOLD = UnseenReading()


def choose_unseen(run: Run) -> tuple[UnseenReading, dict[str, float], float, float]:
    """How platforms that training did not measure are answered, by the validation devices, of which there must be rows:
    their reading and the error of each, the weight of the roofline, the interval's half-width in ln."""
    rows = thin(run.corpus, run.rows.val_device, 1000, seed=1)
    reading, scores = choose_reading(run, rows)
    _, share, width = choose_share(run, rows, unseen_answers(run, rows, reading))
    return reading, scores, share, width


def choose_reading(run: Run, rows: np.ndarray) -> tuple[UnseenReading, dict[str, float]]:
    """The reading of rows of unseen platforms with the lowest mean MAPE over sources and platforms, the runtimes of
    `UnseenReading.kin` each for itself; and that mean of each reading."""
    corpus = run.corpus
    answers = {mode: unseen_answers(run, rows, UnseenReading(mode)) for mode in ("sheet", "generic")}
    scores = {mode: mean_error(corpus, rows, p) for mode, p in answers.items()}
    mode = min(scores, key=lambda name: scores[name])
    runtime = np.array([parse_runtime(p[2])[0] for p in corpus.platforms])[corpus.row_platform[rows]]
    related = kin_of(run, set(runtime.tolist()))[0][corpus.row_platform[rows]] >= 0
    through = unseen_answers(run, rows, UnseenReading(mode, tuple(np.unique(runtime).tolist())))
    better = []
    for name in np.unique(runtime[related]):
        at = np.flatnonzero(related & (runtime == name))
        if mean_error(corpus, rows[at], through[at]) < mean_error(corpus, rows[at], answers[mode][at]):
            better.append(str(name))
    found = UnseenReading(mode, tuple(better))
    return found, {**scores, "kin": mean_error(corpus, rows, unseen_answers(run, rows, found))}


def choose_share(run: Run, rows: np.ndarray, network: np.ndarray) -> tuple[float, float, float]:
    """The weight of the roofline that gives answers to rows of unseen platforms the lowest mean MAPE over sources and
    platforms: that MAPE, the weight, and the interval's half-width in ln at it, of the device that needs the widest."""
    y, bound = run.corpus.row_ms[rows], roofline(run.corpus, rows)
    device = np.array([p[0] for p in run.corpus.platforms])[run.corpus.row_platform[rows]]
    found = []
    for share in ROOFLINE_SHARES:
        p = mixed(network, bound, share)
        own = (device == d for d in np.unique(device))
        width = max(conformal_quantile(y[at], p[at], run.corpus.row_graph[rows[at]]) for at in own)
        found.append((mean_error(run.corpus, rows, p), share, round(width, 4)))
    return min(found)


def mean_error(corpus: Corpus, rows: np.ndarray, p: np.ndarray) -> float:
    """Mean MAPE over sources and platforms of answers to rows."""
    group = corpus.row_source[rows] * len(corpus.platforms) + corpus.row_platform[rows]
    y = corpus.row_ms[rows]
    return round(float(np.mean([mape(y[group == g], p[group == g]) for g in np.unique(group)])), 2)


def unseen_answers(run: Run, rows: np.ndarray, reading: UnseenReading) -> np.ndarray:
    """(n,) latency in ms of rows, in their order; platforms that training did not measure are read by `reading`."""
    found = _ordered(run, rows, reading.mode == "generic")
    through = kin_answers(run, rows, reading.kin)
    return np.where(through > 0, mixed(found, through, KIN_SHARE), found)


def kin_answers(run: Run, rows: np.ndarray, runtimes: Collection[str]) -> np.ndarray:
    """(n,) latency in ms of rows through the kin of their platforms alone, under `runtimes`; 0 where there are none, as
    for a network without node times."""
    found = np.zeros(len(rows))
    if runtimes and run.trainer.config.model.head != "direct":
        kin = kin_of(run, runtimes)
        at = np.flatnonzero(kin[0][run.corpus.row_platform[rows]] >= 0)
        if len(at):
            through = [_ordered(run, rows[at], False, np.maximum(read_as, 0)) for read_as in kin]
            found[at] = np.exp(np.mean(np.log(through), 0))
    return found


def kin_of(run: Run, runtimes: Collection[str]) -> np.ndarray:
    """(KIN, platforms) the measured platforms that each is read through, -1 where it is read as itself: what training
    measured, and what has no kin or another runtime. One with a single kin has it for each."""
    corpus = run.corpus
    place = {"|".join(p): i for i, p in enumerate(corpus.platforms)}
    found = np.full((KIN, len(corpus.platforms)), -1, np.int64)
    for i, standing_ in enumerate(standing(run, run.rows.train)):
        if standing_ != "known" and parse_runtime(corpus.platforms[i][2])[0] in runtimes:
            keys_ = nearest(resolve(*corpus.platforms[i]), run.trainer.known, lambda key: resolve(*key.split("|")))
            if keys_:
                found[:, i] = [place[key] for key in (keys_ * KIN)[:KIN]]
    return found


def _ordered(run: Run, rows: np.ndarray, as_generic: bool, read_as: np.ndarray | None = None) -> np.ndarray:
    _, p, r = predict_rows(run.network, run.trainer.batches, rows, as_generic, read_as)
    place = np.empty(len(run.corpus.row_ms), np.int64)
    place[r] = np.arange(len(r))
    return np.asarray(p[place[rows]])


def mixed(network: np.ndarray, bound: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """(n,) latencies of the network and the roofline, of which the latter has `share` of the ln."""
    return np.asarray(network ** (1 - share) * bound**share)


def keys(run: Run) -> list[str]:
    """`device|precision|runtime` of each platform of the corpus, whatever the runtime's version."""
    return [f"{d}|{p}|{parse_runtime(r)[0]}" for d, p, r in run.corpus.platforms]


def standing(run: Run, rows: np.ndarray) -> np.ndarray:
    """(platforms,) "known" with `ENOUGH` of `rows`, "new_runtime" where the runtime's name says nothing, else
    "new_platform"."""
    of, named = keys(run), run.trainer.batches.named
    counts = Counter(of[p] for p in run.corpus.row_platform[rows])
    new = ["new_platform" if named is None or k.split("|")[2] in named else "new_runtime" for k in of]
    return np.array(["known" if counts[k] >= ENOUGH else words for k, words in zip(of, new, strict=True)])


def roofline_shares(run: Run, calibration: Mapping[str, Any]) -> np.ndarray:
    """(platforms,) weight of the roofline in a run's answers: none where training measured anything."""
    known = standing(run, run.rows.train)
    return np.array([of_standing(calibration["roofline_share"], s) for s in known])


def half_widths(run: Run, calibration: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
    """(n,) half-width in ln of the interval of each row's answer, as the command line gives it."""
    corpus, of, own = run.corpus, calibration["half_width"], calibration["by_platform"]
    known_by_networks = standing(run, network_rows(corpus, run.rows.train))
    known, key = standing(run, run.rows.train), keys(run)
    operator = ~np.isin(rows, network_rows(corpus, rows))
    kind, new = likeness(run, rows)
    device = [load_device(p[0]).kind for p in corpus.platforms]
    widths = np.zeros(len(rows))
    for i, platform in enumerate(corpus.row_platform[rows].tolist()):
        if operator[i] and known[platform] == "known" and of["operators"]:
            widths[i] = of["operators"]
        elif not operator[i] and key[platform] in own:
            widths[i] = own[key[platform]].get(kind[i], of_standing(of, "new_kind"))
        else:
            widths[i] = of_standing(of, known_by_networks[platform], device[platform])
    return np.maximum(widths, np.where(new, of["new_family"] or 0.0, 0.0))

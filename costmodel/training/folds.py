"""Protocols as folds: which rows train, which select, which are tested. Nothing here looks at a latency."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from costmodel.bundle import ENOUGH
from costmodel.errors import DataError
from costmodel.familiarity import kind_of
from costmodel.platforms import load_device, parse_runtime
from costmodel.training.corpus import Corpus
from costmodel.training.loop import Rows, network_rows
from costmodel.training.split import TEST_DEVICES, VALIDATION_DEVICES

NOTHING = np.zeros(0, np.int64)
IN_DOMAIN_TEST = 0.1
"""NNLQP's in-domain protocol: the last tenth of each family (200 of 2,000) tests."""


@dataclass(frozen=True)
class Fold:
    """One training of a protocol. `rows.test` is what it reports on; `left_out` are devices it must know nothing of."""

    name: str
    rows: Rows
    left_out: frozenset[str] = frozenset()


def family_of(name: str) -> str:
    """The family of a measured network: the middle of "gen/resnet/17", the letters of NNLQP's "resnet_00017"."""
    parts = name.split("/")
    return parts[1] if len(parts) > 2 else parts[-1].split("-")[-1].rstrip("0123456789").rstrip("_")


def families(corpus: Corpus) -> np.ndarray:
    """(G,) family of each graph."""
    return np.array([family_of(name) for name in corpus.names])


def kinds(corpus: Corpus) -> np.ndarray:
    """(G,) the kind of each network, as `familiarity.kind_of`."""
    return np.array([kind_of(name) for name in corpus.names])


def _selection(corpus: Corpus, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training rows without, and selection rows with, the graphs whose fingerprint says `val`: about one in ten."""
    chosen = np.array([int(f[:8], 16) % 10 == 0 for f in corpus.families])[corpus.row_graph[rows]]
    return rows[~chosen], rows[chosen]


def _fold(corpus: Corpus, name: str, train: np.ndarray, test: np.ndarray, left_out: Collection[str] = ()) -> Fold:
    """A fold whose training side shares no fingerprint with its test side."""
    tested = {corpus.families[g] for g in np.unique(corpus.row_graph[test])}
    fresh = np.array([f not in tested for f in corpus.families])
    fit, select = _selection(corpus, train[fresh[corpus.row_graph[train]]])
    return Fold(name, Rows(fit, select, NOTHING, test, NOTHING), frozenset(left_out))


def out_of_domain(corpus: Corpus) -> Iterator[Fold]:
    """NNLQP's out-of-domain protocol: every family in turn is tested by a model that trained on the others."""
    family = families(corpus)[corpus.row_graph]
    rows = np.arange(len(family))
    for name in sorted(set(family.tolist())):
        yield _fold(corpus, name, rows[family != name], rows[family == name])


def in_domain(corpus: Corpus) -> Fold:
    """NNLQP's in-domain protocol: published test rows, or else the last tenth of each family, are tested."""
    if corpus.row_test.any():
        test = corpus.row_test
    else:
        family = families(corpus)
        test_graph = np.zeros(len(family), bool)
        for name in sorted(set(family.tolist())):
            own = np.flatnonzero(family == name)
            test_graph[own[len(own) - max(1, round(len(own) * IN_DOMAIN_TEST)) :]] = True
        test = test_graph[corpus.row_graph]
    rows = np.arange(len(test))
    return _fold(corpus, "in domain", rows[~test], rows[test])


ZERO_SHOT = (("t4", "fp32"), ("p4", "fp32"))
"""NNLQP's platforms that are tested with all others in training."""


def zero_shot(corpus: Corpus) -> Iterator[Fold]:
    """NNLQP's zero-shot protocol: fp32 of T4, then of P4, by a model of all other platforms.

    Networks that are tested leave training on every platform. Raises DataError where a side has no rows.
    """
    platform = np.array(["|".join(p[:2]) for p in corpus.platforms])[corpus.row_platform]
    rows = np.arange(len(platform))
    for device, precision in ZERO_SHOT:
        own = platform == f"{device}|{precision}"
        if not 0 < own.sum() < len(rows):
            raise DataError(f"zero-shot needs rows of {device} in {precision} and of others; give the published folder")
        yield _fold(corpus, f"{device} {precision}", rows[~own], rows[own])


def leave_devices_out(corpus: Corpus, name: str, devices: Collection[str], only_new_graphs: bool = True) -> Fold:
    """Tests `devices` on graphs of the test split with a model that has no row of them, operators included.

    VALIDATION_DEVICES that are not tested select. With `only_new_graphs` false all graphs of the devices are tested,
    and so leave training altogether.
    """
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    split = corpus.graph_split[corpus.row_graph]
    rows = np.arange(len(device))
    unseen = np.isin(device, list(devices))
    probes = VALIDATION_DEVICES - set(devices)
    probe = np.isin(device, list(probes))
    known = ~(unseen | probe)
    test = rows[unseen & ((split == "test") | (not only_new_graphs))]
    parts = [rows[known & (split == s)] for s in ("train", "val")]
    return Fold(
        name, Rows(parts[0], parts[1], rows[probe & (split == "val")], test, NOTHING), frozenset(devices) | probes
    )


def leave_runtime_out(corpus: Corpus, runtime: str) -> Fold:
    """Networks of the validation split under a runtime that training lacks (`val_device`); nothing is tested.

    Devices that others of the protocols hold out stay out.
    """
    runs = np.array([parse_runtime(p[2])[0] == runtime for p in corpus.platforms])[corpus.row_platform]
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    known = ~np.isin(device, list(TEST_DEVICES | VALIDATION_DEVICES)) & ~runs
    held = runs & ~np.isin(device, list(TEST_DEVICES))
    split = corpus.graph_split[corpus.row_graph]
    rows = np.arange(len(split))
    probe = network_rows(corpus, rows[held & (split == "val")])
    return Fold(
        f"{runtime} left out",
        Rows(rows[known & (split == "train")], rows[known & (split == "val")], probe, NOTHING, NOTHING),
        TEST_DEVICES | VALIDATION_DEVICES,
    )


DEVICE_FOLDS = 5
"""Folds of `leave_a_fifth_out`."""


def card(device: str) -> str:
    """The name that cards of one chip share: "a100" of "a100-pcie-80gb"."""
    return device.partition("-")[0]


def leave_a_fifth_out(corpus: Corpus, fold: int = 0) -> Fold:
    """Leaves out every fifth device of each kind, others in each fold: their graphs of the validation split calibrate
    (`val_device`), and nothing is tested.

    Devices of which training has fewer than `ENOUGH` graphs stay; cards of one name ("a100-pcie", "a100-sxm") go
    together. TEST_DEVICES are out of every fold. Raises DataError where there are no devices for the fold.
    """
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    split, rows = corpus.graph_split[corpus.row_graph], np.arange(len(device))
    name = np.array([card(p[0]) for p in corpus.platforms])[corpus.row_platform]
    known = ~np.isin(device, list(TEST_DEVICES))
    graphs = {d: len(np.unique(corpus.row_graph[known & (name == d)])) for d in np.unique(name[known]).tolist()}
    kind = {d: load_device(str(device[name == d][0])).kind for d, count in graphs.items() if count >= ENOUGH}
    held = [d for of in sorted(set(kind.values())) for d in sorted(kind) if kind[d] == of][fold::DEVICE_FOLDS]
    if not held:
        raise DataError(f"the corpora have devices for {fold} folds; give --seeds {fold}")
    gone = known & np.isin(name, held)
    return Fold(
        f"new devices {fold}",
        Rows(
            rows[known & ~gone & (split == "train")], rows[known & ~gone & (split == "val")],
            rows[gone & (split == "val")], NOTHING, NOTHING,
        ),
        TEST_DEVICES | frozenset(np.unique(device[gone]).tolist()),
    )  # fmt: skip


def leave_networks_out(corpus: Corpus, device: str) -> Fold:
    """Tests all networks of a device with a model that knows the device by single operators alone.

    The networks may be known from other devices.
    """
    own = np.array([p[0] == device for p in corpus.platforms])[corpus.row_platform]
    operator = np.array([s.endswith("-ops") for s in corpus.sources])[corpus.row_source]
    return _without(corpus, f"{device}, operators alone", own & ~operator, every=True)


FAMILY_FOLDS = 5
"""Folds of `leave_families_out`: together they test half of the families and calibrate on the other half."""


def leave_families_out(corpus: Corpus, fold: int = 0) -> Fold:
    """Tests networks of architecture families that training lacks; half of the held families calibrate (`val_device`).

    Families are the words that pytorch-image-models' names begin with; a tenth of them tests, a tenth calibrates,
    others in each fold.
    """
    side = np.array([_family_side(name, fold) for name in corpus.names])[corpus.row_graph]
    rows, split = np.arange(len(side)), corpus.graph_split[corpus.row_graph]
    known = side == ""
    return Fold(
        f"new families {fold}",
        Rows(
            rows[known & (split == "train")], rows[known & (split == "val")], rows[side == "val"], rows[side == "test"],
            NOTHING,
        ),
    )  # fmt: skip


def architecture(name: str) -> str:
    """The family of a pytorch-image-models name: "efficientnet" of "timm/tf_efficientnet_b0@224"."""
    found = re.match(r"timm/(?:tf_|tv_|legacy_|test_)?([a-z]+)", name)
    return found[1] if found else ""


def _family_side(name: str, fold: int) -> str:
    family = architecture(name)
    place = int(hashlib.sha256(family.encode()).hexdigest()[:8], 16) % (2 * FAMILY_FOLDS) - 2 * fold
    return {0: "val", 1: "test"}.get(place, "") if family else ""


KIND_FOLDS = 2
"""Folds of `leave_kinds_out`."""


def leave_kinds_out(corpus: Corpus, fold: int = 0) -> Fold:
    """Platforms with networks of several kinds lose one of them, another in each fold.

    Every other such platform tests, on graphs of the test split; the rest calibrate (`val_device`), on those of the
    validation split.
    """
    rows, split = np.arange(len(corpus.row_ms)), corpus.graph_split[corpus.row_graph]
    runtimes = [(device, precision, parse_runtime(runtime)[0]) for device, precision, runtime in corpus.platforms]
    platform = np.array(["|".join(p) for p in runtimes])[corpus.row_platform]
    kind = kinds(corpus)[corpus.row_graph]
    trains = network_rows(corpus, rows[split == "train"])
    gone, tests, several = np.zeros(len(rows), bool), np.zeros(len(rows), bool), 0
    for name in np.unique(platform[trains]):
        known, counts = np.unique(kind[trains[platform[trains] == name]], return_counts=True)
        known = known[counts >= ENOUGH]
        if len(known) > 1:
            own = (platform == name) & (kind == known[(several + fold) % len(known)])
            gone |= own
            tests |= own & (several % 2 == 1)
            several += 1
    return Fold(
        f"new kinds {fold}",
        Rows(
            rows[~gone & (split == "train")], rows[~gone & (split == "val")], rows[gone & ~tests & (split == "val")],
            rows[tests & (split == "test")], NOTHING,
        ),
    )  # fmt: skip


def neusight(corpus: Corpus, gpu: str) -> Fold:
    """NeuSight's measurements without one GPU; tests its transformers, whole, and its operators of the test split."""
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    source = np.array(corpus.sources)[corpus.row_source]
    split = corpus.graph_split[corpus.row_graph]
    rows, own = np.arange(len(device)), np.char.startswith(device, gpu)
    there = np.char.startswith(source, "neusight")
    test = own & ((source == "neusight-e2e") | ((source == "neusight-ops") & (split == "test")))
    held = split == "val"
    return Fold(
        f"{gpu} left out",
        Rows(rows[there & ~own & (split == "train")], rows[there & ~own & held], NOTHING, rows[test], NOTHING),
        frozenset(np.unique(device[own]).tolist()),
    )


def unseen_shapes(corpus: Corpus) -> Fold:
    """Single operators alone: tests shapes of the test split on devices that training knows."""
    operator = np.array([s.endswith("-ops") for s in corpus.sources])[corpus.row_source]
    return _without(corpus, "unseen shapes", operator & (corpus.graph_split[corpus.row_graph] == "test"), operator)


def _without(corpus: Corpus, name: str, gone: np.ndarray, among: np.ndarray | None = None, every: bool = False) -> Fold:
    """Tests rows of `gone` (mask), of test graphs or of every graph; the other rows of `among` train and select."""
    split = corpus.graph_split[corpus.row_graph]
    rows = np.arange(len(split))
    stay = ~gone if among is None else among & ~gone
    train, val = (rows[stay & (split == s)] for s in ("train", "val"))
    return Fold(name, Rows(train, val, NOTHING, rows[gone & (every | (split == "test"))], NOTHING))


def leave_precision_out(corpus: Corpus, device: str, precision: str) -> Fold:
    """Tests one precision of one device; training has the device at its other precisions only.

    Networks are few, so all of them are tested and may be known at other precisions; operators of the test split.
    """
    platform = np.array([p[0] == device and p[1] == precision for p in corpus.platforms])[corpus.row_platform]
    operator = np.array([s.endswith("-ops") for s in corpus.sources])[corpus.row_source[platform]]
    return _without(corpus, f"{device} {precision}", platform, every=not operator.all())

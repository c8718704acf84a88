"""Protocols as folds: which rows train, which select, which are tested. Nothing here looks at a latency."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from costmodel.training.corpus import Corpus
from costmodel.training.loop import Rows
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


def leave_platforms_out(corpus: Corpus, name: str, device: str, precision: str, operators_stay: bool = False) -> Fold:
    """Tests one precision of one device on test graphs; training has the device at its other precisions only."""
    platform = np.array([p[0] == device and p[1].startswith(precision) for p in corpus.platforms])[corpus.row_platform]
    operator = np.array([s.endswith("-ops") for s in corpus.sources])[corpus.row_source]
    split = corpus.graph_split[corpus.row_graph]
    rows = np.arange(len(split))
    gone = platform & ~(operator & operators_stay)
    return Fold(
        name,
        Rows(
            rows[~gone & (split == "train")], rows[~gone & (split == "val")], NOTHING,
            rows[gone & (split == "test")], NOTHING,
        ),
    )  # fmt: skip


def reported_devices() -> tuple[str, ...]:
    """Devices of the cross-hardware table, each left out in turn."""
    return tuple(sorted(TEST_DEVICES))

"""Fine-tuning: from a platform's samples and their graphs to an overlay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from costmodel.errors import DataError
from costmodel.finetune import adapters, head_training
from costmodel.finetune.choose import Choice, choose
from costmodel.finetune.overlay import Overlay, bundle_id, sheet_id
from costmodel.finetune.readings import Readings, read
from costmodel.ir import Graph
from costmodel.platforms import Platform, resolve

if TYPE_CHECKING:
    from costmodel.predictor import LeDGFormerModel
    from costmodel.samples import Sample

Say = Callable[[str], None]

FEWEST = 5
"""Networks below which nothing can be told of a platform."""

_PART = 64  # graphs encoded together


def fit(
    model: LeDGFormerModel,
    graphs: Mapping[str, Graph],
    samples: Sequence[Sample],
    *,
    platform: Platform | None = None,
    kinds: Sequence[str] = adapters.KINDS,
    head: bool = True,
    say: Say = lambda line: None,
) -> Overlay:
    """The overlay that samples of one platform support; it is written by `overlay.save`.

    graphs    fingerprint → graph; samples without one are left out
    platform  where the samples do not name a known device; default: what they name
    kinds     adapters to choose from, simplest first
    head      also training the network's head, where there are `head_training.ENOUGH` networks and torch

    Several samples of a network count once, by their median, and those flagged noisy only where there is no other.
    Raises DataError if the samples are of several platforms or of fewer than `FEWEST` networks.
    """
    keys = sorted({s.platform_key for s in samples})
    if len(keys) > 1:
        raise DataError(f"samples of {len(keys)} platforms ({', '.join(keys[:3])}); fine-tune one at a time")
    latency = {f: ms for f, ms in by_network(samples).items() if f in graphs and graphs[f].nodes}
    if len(latency) < FEWEST:
        raise DataError(
            f"{len(latency)} measured networks with their graphs; profile {FEWEST} on this platform, better 20"
        )
    first = samples[0]
    platform = platform or resolve(first.device, first.precision, first.runtime)
    names = sorted(latency)
    with_head = head and len(names) >= head_training.ENOUGH and head_training.is_possible(model)
    readings = read_graphs(model, [graphs[name] for name in names], platform, with_head)
    released = head_training.released(model, *model.reading_of(platform)) if with_head else None
    kinds = (*kinds, adapters.HEAD) if with_head else kinds
    choice = choose(readings, np.log([latency[name] for name in names]), kinds, released, say)
    return as_overlay(choice, model, platform, len(names))


def as_overlay(choice: Choice, model: LeDGFormerModel, platform: Platform, samples: int) -> Overlay:
    """The overlay of a choice made on samples of a platform."""
    return Overlay(
        platform.device.name, platform.precision.value, platform.runtime_label, bundle_id(model.bundle),
        sheet_id(platform), samples, choice.adapter, choice.half_width,
        {score.kind: round(score.mape, 3) for score in choice.scores},
    )  # fmt: skip


def read_graphs(model: LeDGFormerModel, graphs: Sequence[Graph], platform: Platform, nodes: bool = False) -> Readings:
    """Readings of graphs with nodes, by the model without overlays; `nodes` keeps the node vectors."""
    parts = []
    for at in range(0, len(graphs), _PART):
        forms = model.forms(model.encode_many(graphs[at : at + _PART], [platform]), platform)
        parts.append(read(forms, *model.unadapted(forms, platform), nodes))
    return Readings.join(parts)


def by_network(samples: Sequence[Sample]) -> dict[str, float]:
    """Fingerprint → median latency in ms; samples flagged noisy count where a network has no other."""
    clean: dict[str, list[float]] = {}
    noisy: dict[str, list[float]] = {}
    for sample in samples:
        (noisy if "noisy" in sample.flags else clean).setdefault(sample.fingerprint, []).append(sample.latency_ms)
    return {f: median(values) for f, values in {**noisy, **clean}.items()}

"""What makes answers for unseen devices work: the unseen devices of the split by variants of network and training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.features import PLATFORM_NUMBERS, hide_runtime
from costmodel.training.batches import Augmentation, Batches
from costmodel.training.corpus import Corpus
from costmodel.training.cross import fold_config, thinned
from costmodel.training.folds import NOTHING, Fold, leave_devices_out
from costmodel.training.loop import TrainConfig
from costmodel.training.run import Say
from costmodel.training.split import TEST_DEVICES
from costmodel.training.tables import Answer, Kept, Learned, average, tabulate

STEPS = 2000


def zero_shot_ablation(
    corpus: Corpus, configs: Mapping[str, int], cache: Path, folder: Path, encoder: str, say: Say,
    steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A table of the variants per configuration, by device and source; every variant lacks the same devices.

    configs  configuration → seeds
    """
    fold = thinned(corpus, leave_devices_out(corpus, "unseen devices", TEST_DEVICES))
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    source = np.array(corpus.sources)[corpus.row_source]

    def label(fold: Fold) -> np.ndarray:
        return np.char.add(np.char.add(device[fold.rows.test], " · "), source[fold.rows.test])

    tables = {}
    for name, seeds in configs.items():
        config = fold_config(name, "cross-device", steps or STEPS)
        models: dict[str, Answer] = {}
        for variant, change in VARIANTS.items():
            place = folder / f"zero-shot-{name}-{variant.replace(' ', '-')}"
            model = _Varied(corpus, change, config, cache, place, encoder, say)
            models[variant] = Kept(model, place, (variant, config, encoder))
        found = tabulate(corpus, [fold], models, dict.fromkeys(models, seeds), label)
        tables[name] = {**found, "average": average(found)}
    return {"steps": steps or STEPS, "tables": tables}


@dataclass(frozen=True)
class Variant:
    """What a variant changes: its configuration, what its batches tell of platforms, whether devices validate."""

    config: Callable[[TrainConfig], TrainConfig] = lambda config: config
    batches: Callable[[Batches], None] | None = None
    validation_devices: bool = True


@dataclass(frozen=True)
class _Varied:
    corpus: Corpus
    change: Variant
    config: TrainConfig
    cache: Path
    folder: Path
    encoder: str
    say: Say

    def __call__(self, fold: Fold, seed: int) -> np.ndarray:
        if not self.change.validation_devices:
            fold = replace(fold, rows=replace(fold.rows, val_device=NOTHING))
        config = self.change.config(self.config)
        model = Learned(
            self.corpus, config, self.cache, self.folder, self.encoder, self.say, change=self.change.batches
        )
        return model(fold, seed)


def _without_numbers(batches: Batches) -> None:
    batches.channels[:, : PLATFORM_NUMBERS + 2] = 0  # with the year, and whether it fuses, which the roofline has


def _without_runtime(batches: Batches) -> None:
    batches.platform_embeddings, batches.channels = hide_runtime(batches.platform_embeddings, batches.channels)


def _without_jitter(config: TrainConfig) -> TrainConfig:
    return replace(config, augmentation=replace(config.augmentation, jitter=0.0))


def _without_operators(config: TrainConfig) -> TrainConfig:
    return replace(config, shares={s: share for s, share in config.shares.items() if not s.endswith("-ops")})


def _without_dropout(config: TrainConfig) -> TrainConfig:
    return replace(config, augmentation=Augmentation(0.0, 0.0, 0.0, 0.0, 0.0))


def _direct(config: TrainConfig) -> TrainConfig:
    return replace(config, model=replace(config.model, head="direct"))


VARIANTS: Mapping[str, Variant] = {
    "full": Variant(),
    "no sheet numbers": Variant(_without_jitter, _without_numbers),
    "no roofline ratio": Variant(_direct),
    "no runtime": Variant(batches=_without_runtime),
    "no operators": Variant(_without_operators),
    "no platform dropout": Variant(_without_dropout),
    "no validation devices": Variant(validation_devices=False),
}
"""The sheet's numbers stay in the roofline times, the runtime in its overhead and fusion; without validation devices
the last step and the sheet's reading are chosen by known platforms alone."""

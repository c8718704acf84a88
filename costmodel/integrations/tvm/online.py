"""Learning while tuning: scores for schedules, and what measurements change about them. TVM is not imported.

Scores are throughput-like: 1 for what looked fastest when the task was last learned, a half for twice the time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from costmodel.errors import BundleError
from costmodel.integrations.tvm.loops import LoopGraph
from costmodel.integrations.tvm.memory import Task, from_arrays, to_arrays
from costmodel.integrations.tvm.ranker import Ranker, RankerConfig

PRETRAINED = Path(__file__).parent / "pretrained.npz"
ENOUGH = 16
"""Measurements from which a network that was not pretrained is trusted with scores."""
_REPLAYED = 512  # schedules kept per task; the newest ones
_LIMIT = 20.0  # of ln score


class OnlineRanker:
    """A ranker and its memory of measured schedules, per task.

    ranker   the network to start from; `None` is one that knows nothing
    explore  weight of the disagreement between the network's heads in a score, for a task without measurements; it
             fades as they come in
    steps    training steps per round of measurements
    """

    def __init__(
        self, ranker: Ranker | None = None, explore: float = 0.5, steps: int = 40, rate: float = 1e-3, seed: int = 0
    ) -> None:
        self.warm = ranker is not None
        self.ranker = ranker or Ranker(RankerConfig(), sentence_vectors(), seed)
        self.explore, self.steps, self.rate = explore, steps, rate
        self.tasks: dict[str, Task] = {}
        self._best: dict[str, float] = {}
        self._rng = np.random.default_rng(seed)

    @property
    def measured(self) -> int:
        """Schedules in memory."""
        return sum(len(t.graphs) for t in self.tasks.values())

    def score(
        self, task: str, graphs: Sequence[LoopGraph | None], platform: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Scores (n,) above zero, higher is better. A candidate that could not be read (None) ranks low, not last."""
        readable = [g for g in graphs if g is not None]
        if not readable or not (self.warm or self.measured >= ENOUGH):
            return self._rng.uniform(size=len(graphs))
        members = -self.ranker.predict(readable, platform).astype(np.float64)
        known = len(self.tasks[task].graphs) if task in self.tasks else 0
        noise = self._rng.normal(size=len(readable)) * members.std(0) * self.explore / (1 + known / 32)
        merit = members.mean(0) + noise
        best = self._best.setdefault(task, float(merit.max()))
        scores = np.full(len(graphs), np.quantile(merit, 0.25))
        scores[[i for i, g in enumerate(graphs) if g is not None]] = merit
        return np.exp(np.clip(scores - best, -_LIMIT, _LIMIT))

    def observe(
        self, task: str, graphs: Sequence[LoopGraph | None], seconds: Sequence[float | None],
        platform: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Learns from measured schedules; `None` seconds are those that did not build or run."""
        memory = self.tasks.setdefault(task, Task(platform))
        for graph, measured in zip(graphs, seconds, strict=True):
            if graph is not None:
                memory.graphs.append(graph)
                memory.log_seconds.append(float(np.log(measured)) if measured else np.inf)
        del memory.graphs[:-_REPLAYED], memory.log_seconds[:-_REPLAYED]
        self._best.pop(task, None)
        usable = {name: t for name, t in self.tasks.items() if len(t.graphs) > 1}
        if task in usable and self.measured >= ENOUGH:
            focus = list(usable).index(task)
            seed = int(self._rng.integers(2**31))
            self.ranker.fit([*usable.values()], self.steps, self.rate, seed=seed, focus=focus)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Network and memory in one `.npz` file."""
        self.ranker.summary["trained"] = self.warm or self.measured >= ENOUGH
        self.ranker.save(path, **to_arrays(self.tasks))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Takes over the network and memory of a file that `save` or pretraining wrote.

        Raises CorruptBundleError, BundleVersionError as `Ranker.load`.
        """
        self.ranker, arrays = Ranker.load(path)
        self.tasks = from_arrays(arrays)
        self.warm = bool(self.ranker.summary.get("trained"))
        self._best.clear()


def pretrained(seed: int = 0) -> OnlineRanker:
    """The released network, trained on measured schedules (`tools/tuning_offline.py`).

    Raises BundleError if it is not installed.
    """
    if not PRETRAINED.is_file():
        raise BundleError(f"{PRETRAINED} is missing; reinstall ledg-cost or run tools/tuning_offline.py pretrain")
    ranker, _ = Ranker.load(PRETRAINED)
    return OnlineRanker(ranker, seed=seed)


def sentence_vectors() -> dict[str, NDArray[np.float32]]:
    """The language encoder's vectors of every sentence of loops and blocks, from the released bundle."""
    from costmodel.bundle import RELEASED
    from costmodel.embedding import SentenceEncoder
    from costmodel.loopwords import loop_language

    said = loop_language()
    return dict(zip(said, SentenceEncoder(RELEASED / "language").encode(said), strict=True))

"""The MetaSchedule cost model."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule import _ffi_api
from tvm.s_tir.meta_schedule.cost_model.cost_model import PyCostModel, _PyCostModel
from tvm.s_tir.meta_schedule.utils import shash2hex

from costmodel.integrations.tvm.loops import LoopGraph, read
from costmodel.integrations.tvm.online import OnlineRanker, pretrained
from costmodel.integrations.tvm.targets import cores_of, platform_numbers, platform_of
from costmodel.ir import Graph
from frontends.tir_lower import lower

_logger = logging.getLogger(__name__)


_REMEMBERED = 2048
"""Schedules whose loop graphs are kept, the latest: four generations."""


@contextmanager
def _without_collections() -> Iterator[None]:
    """Thousands of small objects that all live on: collecting garbage among them finds none and takes its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class _Handle(_PyCostModel):
    """MetaSchedule's handle of a Python cost model, except that no candidates at all are no error."""

    def __init__(self, f_load: Any = None, f_save: Any = None, f_update: Any = None, predict_func: Any = None) -> None:
        def f_predict(context: Any, candidates: Sequence[Any], scores: Any) -> None:
            if count := len(candidates):
                pointer = ctypes.cast(scores, ctypes.POINTER(ctypes.c_double))
                np.ctypeslib.as_array(pointer, shape=(count,))[:] = predict_func(context, candidates)

        self.__init_handle_by_constructor__(_ffi_api.CostModelPyCostModel, f_load, f_save, f_update, f_predict)


class _CostModel(PyCostModel):
    _tvm_metadata: ClassVar = {"cls": _Handle, "methods": ["load", "save", "update", "predict"]}


@derived_object
class LedgCostModel(_CostModel):
    """Ranks schedules with LeDG-Former over their loop graphs and learns from every measurement.

        ms.tune_tir(mod, target, work_dir, 128, cost_model=LedgCostModel.pretrained(target))

    Without `pretrained` it starts from nothing: random scores until 16 schedules are measured. A candidate that cannot
    be read gets a low score; whatever fails inside the model is logged and answered with random scores, for an
    exception here would end the tuning run.

    online   the network and its memory; a new one by default
    seconds  wall-clock seconds spent in `predict` and `update`, one entry per call, for reports
    """

    def __init__(self, online: OnlineRanker | None = None, seed: int = 0) -> None:
        super().__init__()
        self.online = online or OnlineRanker(seed=seed)
        self.seconds: dict[str, list[float]] = {"predict": [], "update": []}
        self.failures = 0
        self._rng = np.random.default_rng(seed)
        self._platforms: dict[str, tuple[NDArray[np.float32], int]] = {}
        self._met: dict[tuple[str, int], LoopGraph] = {}

    @classmethod
    def pretrained(cls, target: Any = None, seed: int = 0) -> Any:
        """Starts from the released network. A `target` is checked now, not in the middle of a run.

        Raises PlatformError for a target that is neither LLVM nor a known CUDA architecture, BundleError if the
        network is not installed.
        """
        if target is not None:
            platform_of(target)
        return cls(pretrained(seed), seed)

    def load(self, path: str) -> None:
        """Takes over network and memory from a file of `save`."""
        self.online.load(path)

    def save(self, path: str) -> None:
        """Network and memory in one file (`.npz` content, whatever the name)."""
        self.online.save(os.fspath(path))

    def update(self, context: Any, candidates: Sequence[Any], results: Sequence[Any]) -> None:
        """Learns from measured candidates."""
        started = time.perf_counter()
        try:
            if len(candidates):
                platform, cores = self._platform(context.target)
                graphs = self._read(candidates, cores)
                seconds = [_seconds(result) for result in results]
                self.online.observe(shash2hex(context.mod), graphs, seconds, platform)
        except Exception as error:  # an exception would end the tuning run
            self._failed("learn from measurements", error)
        self.seconds["update"].append(time.perf_counter() - started)

    def predict(self, context: Any, candidates: Sequence[Any]) -> NDArray[np.float64]:
        """Scores (n,), higher is better."""
        started = time.perf_counter()
        try:
            platform, cores = self._platform(context.target)
            scores = self.online.score(shash2hex(context.mod), self._read(candidates, cores), platform)
        except Exception as error:  # an exception would end the tuning run
            self._failed("score candidates", error)
            scores = self._rng.uniform(size=len(candidates))
        self.seconds["predict"].append(time.perf_counter() - started)
        return scores

    def _read(self, candidates: Sequence[Any], cores: int) -> list[LoopGraph | None]:
        """Loop graphs; None for a candidate that cannot be read. One generation's survivors are the next one's parents,
        so those met lately are not read again."""
        keys: list[tuple[str, int] | None] = []
        graphs: dict[tuple[str, int], Graph] = {}
        with _without_collections():
            for candidate in candidates:
                try:
                    module = candidate.sch.mod
                    key = (shash2hex(module), cores)
                    if key not in self._met and key not in graphs:
                        graphs[key] = lower(module)
                except Exception as error:  # a statement the reader does not know is no reason to stop tuning
                    key = None
                    self._failed("read a candidate", error)
                keys.append(key)
            found = dict(zip(graphs, read([*graphs.values()], cores), strict=True))
        found |= {key: self._met.pop(key) for key in keys if key is not None and key in self._met}
        self._met |= found
        for key in [*self._met][:-_REMEMBERED]:
            del self._met[key]
        return [None if key is None else found[key] for key in keys]

    def _platform(self, target: Any) -> tuple[NDArray[np.float32], int]:
        key = str(target)
        if key not in self._platforms:
            self._platforms[key] = platform_numbers(platform_of(key)), cores_of(key)
        return self._platforms[key]

    def _failed(self, what: str, error: Exception) -> None:
        self.failures += 1
        if self.failures <= 3:
            _logger.warning("LedgCostModel could not %s (%s: %s); going on", what, type(error).__name__, error)


def _seconds(result: Any) -> float | None:
    """Median of a runner result's repeats, None if it failed."""
    return float(np.median([float(s) for s in result.run_secs])) if result.run_secs else None

"""Building and measuring candidates without worker processes.

MetaSchedule's `LocalBuilder` starts fresh processes for every round, and each imports TVM, which takes longer than
building. `InProcessBuilder` takes its place and goes with any runner. `in_process()` gives a builder and a runner that
hand modules over in memory, with nothing written, linked or sent. The price: no time limit, and code that crashes takes
the tuner with it; a tuner that must not die keeps MetaSchedule's `LocalRunner`.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.builder.local_builder import default_export
from tvm.s_tir.meta_schedule.runner import EvaluatorConfig, PyRunner, PyRunnerFuture, RunnerResult
from tvm.s_tir.meta_schedule.runner.local_runner import default_alloc_argument, default_run_evaluator
from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

LONG_SECONDS = 0.2
"""A schedule that runs longer is hopeless or needs no repeats: one run tells enough."""
_ONCE = EvaluatorConfig(number=1, repeat=1, min_repeat_ms=0)


@derived_object
class InProcessBuilder(PyBuilder):
    """Builds candidates one after the other in the tuner's own process.

    modules     where built modules are kept, by path, for an `InProcessRunner`; without it they become files. Each lies
                in a temporary folder of its own, which MetaSchedule removes once it has run.
    intrinsics  register TVM's tensor intrinsics first, which takes seconds; schedules of int8 or half precision and
                those for matrix units need them
    """

    def __init__(self, modules: dict[str, Any] | None = None, intrinsics: bool = True) -> None:
        super().__init__()
        self.modules = modules
        if intrinsics:
            importlib.import_module("tvm.s_tir.tensor_intrin")

    def build(self, build_inputs: Sequence[Any]) -> list[Any]:
        """One result per input: a path, or the compiler's message."""
        return [self._one(one) for one in build_inputs]

    def _one(self, one: Any) -> Any:
        try:
            plain = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(one.mod)
            module = tvm.tirx.build(plain, target=one.target)
            if self.modules is None:
                return BuilderResult(default_export(module), None)
        except Exception as error:  # whatever the compiler raises is this candidate's result
            return BuilderResult(None, f"InProcessBuilder: {type(error).__name__}: {error}")
        path = str(Path(tempfile.mkdtemp(prefix="ledg-")) / "in-memory")
        self.modules[path] = module
        return BuilderResult(path, None)


@derived_object
class _Finished(PyRunnerFuture):
    """A run that is over."""

    def __init__(self, seconds: list[float] | None, message: str | None) -> None:
        super().__init__()
        self._result = RunnerResult(seconds, message)

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self._result


@derived_object
class InProcessRunner(PyRunner):
    """Runs the modules that an `InProcessBuilder` kept, on random inputs, in the tuner's own process. Those that take
    more than `LONG_SECONDS` are timed once.

    modules  those of the builder; a path that is not among them is loaded as a file
    """

    def __init__(self, modules: dict[str, Any], repeat: int = 5, min_repeat_ms: int = 5) -> None:
        super().__init__()
        self.modules = modules
        self.config = EvaluatorConfig(number=1, repeat=repeat, min_repeat_ms=min_repeat_ms)

    def run(self, runner_inputs: Sequence[Any]) -> list[Any]:
        """One finished future per input."""
        return [self._one(one) for one in runner_inputs]

    def _one(self, one: Any) -> Any:
        try:
            path = str(one.artifact_path)
            module = self.modules.pop(path, None) or tvm.runtime.load_module(path)
            device = tvm.runtime.device(str(one.device_type), 0)
            arguments = default_alloc_argument(device, [info.as_json() for info in one.args_info], 1)
            seconds = default_run_evaluator(module, device, _ONCE, arguments)
            if seconds[0] <= LONG_SECONDS:
                seconds = default_run_evaluator(module, device, self.config, arguments)
            return _Finished(seconds, None)
        except Exception as error:  # a candidate that does not run is a result
            return _Finished(None, f"InProcessRunner: {type(error).__name__}: {error}")


def in_process(repeat: int = 5, min_repeat_ms: int = 5, intrinsics: bool = True) -> tuple[Any, Any]:
    """A builder and a runner that share modules in memory."""
    modules: dict[str, Any] = {}
    return InProcessBuilder(modules, intrinsics), InProcessRunner(modules, repeat, min_repeat_ms)

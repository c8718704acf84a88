"""The cost model inside MetaSchedule's search. Nothing is measured: a dummy builder and runner stand in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm", reason="apache-tvm is not installed; pip install 'ledg-cost[tvm]'")
pytest.importorskip("torch", reason="torch is not installed; pip install 'ledg-cost[tvm]'")

import tvm
from tvm import te
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult

from costmodel.errors import PlatformError
from costmodel.integrations.tvm import InProcessBuilder, LedgCostModel, cost_model
from costmodel.integrations.tvm.online import PRETRAINED, OnlineRanker
from costmodel.integrations.tvm.ranker import Ranker
from frontends.tir_lower import lower
from tests.costmodel.integrations.tvm.test_ranker import SMALL, VECTORS

TARGET = {"kind": "llvm", "mcpu": "skylake", "num-cores": 2}  # without VNNI: no intrinsics need to be registered


def matmul(size: int = 64) -> Any:
    """The PrimFunc of a square product."""
    a, b = (te.placeholder((size, size), name=name) for name in "AB")
    k = te.reduce_axis((0, size), name="k")
    c = te.compute((size, size), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    return te.create_prim_func([a, b, c]).with_attr("global_symbol", "main")


@derived_object
class NoBuilder(PyBuilder):
    """Every candidate builds."""

    def build(self, build_inputs: Any) -> list[Any]:
        return [BuilderResult("nothing", None) for _ in build_inputs]


@derived_object
class Done(PyRunnerFuture):
    """A finished run."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return RunnerResult([self.seconds], None) if self.seconds else RunnerResult(None, "did not run")


@derived_object
class PretendRunner(PyRunner):
    """Times in order of arrival, every fifth a failure."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, runner_inputs: Any) -> list[Any]:
        made = []
        for _ in runner_inputs:
            self.runs += 1
            made.append(Done(None if self.runs % 5 == 0 else 1e-3 * self.runs))
        return made


def tune(cost_model: Any, tmp_path: Path, trials: int = 20) -> Any:
    return ms.tune_tir(
        matmul(), tvm.target.Target(TARGET), str(tmp_path), trials, num_trials_per_iter=10, builder=NoBuilder(),
        runner=PretendRunner(), cost_model=cost_model, measure_callbacks=[ms.measure_callback.UpdateCostModel()],
        database=ms.database.MemoryDatabase(), num_tuning_cores=1, seed=3,
        strategy=ms.search_strategy.EvolutionarySearch(population_size=32, init_min_unmeasured=8, genetic_num_iters=1),
    )  # fmt: skip


def candidates(count: int = 4) -> tuple[Any, list[Any]]:
    """A tuning context and scheduled candidates of it."""
    context = ms.TuneContext(
        matmul(), target=tvm.target.Target(TARGET), space_generator=ms.space_generator.PostOrderApply(),
        search_strategy="evolutionary", task_name="main", num_threads=1, rand_state=1,
    )  # fmt: skip
    designs = context.generate_design_space()
    return context, [ms.MeasureCandidate(designs[i % len(designs)], []) for i in range(count)]


def small(**options: Any) -> Any:
    return LedgCostModel(OnlineRanker(Ranker(SMALL, VECTORS), steps=3, **options))


def test_a_search_runs_and_the_model_learns_from_it(tmp_path: Path) -> None:
    model = small()
    tune(model, tmp_path)
    inner = model._inst
    assert inner.failures == 0
    assert inner.online.measured == 20
    (task,) = inner.online.tasks.values()
    assert np.isinf(task.log_seconds).sum() == 4
    assert len(inner.seconds["predict"]) >= 2
    assert len(inner.seconds["update"]) == 2


def test_scores_come_back_as_floats_one_per_candidate() -> None:
    context, found = candidates()
    scores = small().predict(context, found)
    assert (scores.dtype, scores.shape) == (np.float64, (4,))
    assert (scores > 0).all()
    assert small().predict(context, []).shape == (0,)
    small().update(context, [], [])


def test_an_unreadable_candidate_is_scored_low_and_nothing_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    context, found = candidates()
    model, broken = small(explore=0), type("Broken", (), {})()
    scores = model._inst.predict(context, [*found, broken])
    assert len(scores) == 5
    assert scores[4] <= np.median(scores)
    assert "could not read a candidate" in caplog.text


def test_no_schedule_is_read_twice_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    context, found = candidates()
    inner, read_now = small(explore=0)._inst, []
    monkeypatch.setattr(cost_model, "lower", lambda module: read_now.append(module) or lower(module))
    first = inner.predict(context, found)
    fresh = len(read_now)
    assert 0 < fresh <= len(found)
    np.testing.assert_allclose(inner.predict(context, found[::-1]), first[::-1], rtol=1e-5)
    assert len(read_now) == fresh
    monkeypatch.setattr(cost_model, "_REMEMBERED", 1)
    inner.predict(context, found)
    assert len(inner._met) == 1


def test_an_error_inside_the_model_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    context, found = candidates()
    model = small()
    monkeypatch.setattr(model._inst.online.ranker, "predict", lambda *_: 1 / 0)
    monkeypatch.setattr(model._inst.online.ranker, "fit", lambda *_, **__: 1 / 0)
    assert model.predict(context, found).shape == (4,)
    model.update(context, found * 4, [RunnerResult([1e-3 * (i + 1)], None) for i in range(16)])
    assert model._inst.failures == 2


def test_saved_and_loaded_through_tvm(tmp_path: Path) -> None:
    context, found = candidates()
    model = small(explore=0)
    model.update(context, found * 4, [RunnerResult([1e-3 * (i + 1)], None) for i in range(16)])
    model.save(str(tmp_path / "model"))
    again = small(explore=0)
    again.load(str(tmp_path / "model"))
    assert again._inst.online.measured == 16
    np.testing.assert_allclose(again.predict(context, found), model.predict(context, found), rtol=0.1)


def test_pretrained_checks_the_target_at_once() -> None:
    with pytest.raises(PlatformError, match="use llvm or cuda"):
        LedgCostModel.pretrained("hexagon")
    if PRETRAINED.is_file():
        model = LedgCostModel.pretrained(TARGET)
        assert isinstance(model, ms.CostModel)
        assert model._inst.online.warm


def test_the_builder_builds_here_and_says_what_failed() -> None:
    target = tvm.target.Target(TARGET)
    good = ms.builder.BuilderInput(tvm.IRModule({"main": matmul(8)}), target)
    broken = type("Input", (), {"mod": None, "target": target, "params": None})()
    built = InProcessBuilder()._inst.build([good, broken])
    assert built[0].error_msg is None
    assert Path(built[0].artifact_path).is_file()
    assert built[1].artifact_path is None
    assert re.match(r"InProcessBuilder: \w+", built[1].error_msg)

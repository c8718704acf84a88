"""Building and running candidates without worker processes."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("tvm", reason="apache-tvm is not installed; pip install 'ledg-cost[tvm]'")
pytest.importorskip("torch", reason="torch is not installed; pip install 'ledg-cost[tvm]'")

import tvm
from tvm.s_tir import meta_schedule as ms

from costmodel.integrations.tvm import measuring
from tests.costmodel.integrations.tvm.test_cost_model import TARGET, matmul

SIZE = 16


def ran(function: Any, repeat: int) -> tuple[list[float] | None, str | None]:
    """Seconds of a PrimFunc's runs, or the message of what went wrong."""
    builder, runner = measuring.in_process(repeat, min_repeat_ms=1, intrinsics=False)
    (built,) = builder.build([ms.builder.BuilderInput(tvm.IRModule({"main": function}), tvm.target.Target(TARGET))])
    if built.error_msg:
        return None, str(built.error_msg)
    arguments = [ms.arg_info.TensorInfo("float32", (SIZE, SIZE)) for _ in range(3)]
    (future,) = runner.run([ms.runner.RunnerInput(built.artifact_path, "cpu", arguments)])
    result = future.result()
    return [float(s) for s in result.run_secs or ()], result.error_msg


def test_a_candidate_is_built_and_timed_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LONG_SECONDS", 60.0)
    seconds, message = ran(matmul(SIZE), repeat=3)
    assert message is None
    assert seconds is not None
    assert len(seconds) == 3
    assert all(0 < s < 1 for s in seconds)


def test_one_that_runs_long_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LONG_SECONDS", 0.0)
    seconds, _ = ran(matmul(SIZE), repeat=3)
    assert seconds is not None
    assert len(seconds) == 1


def test_one_that_does_not_build_is_a_message() -> None:
    builder, _ = measuring.in_process(1, intrinsics=False)
    other = tvm.target.Target({"kind": "llvm", "mtriple": "no-such-machine"})
    (built,) = builder.build([ms.builder.BuilderInput(tvm.IRModule({"main": matmul(SIZE)}), other)])
    assert "InProcessBuilder" in str(built.error_msg)

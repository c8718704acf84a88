"""`ledg-cost tune` where TVM is not installed, and its options."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from costmodel.cli.tune import command
from costmodel.errors import BackendUnavailableError


def test_without_tvm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "tvm" or name.startswith("tvm."):
            raise ModuleNotFoundError("No module named 'tvm'", name="tvm")
        return real(name, *args, **kwargs)

    for module in [m for m in sys.modules if m.startswith("costmodel.integrations.tvm.")]:  # the package itself stays
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", refuse)
    result = CliRunner().invoke(command, ["model.onnx"])
    assert isinstance(result.exception, BackendUnavailableError)
    assert "pip install 'ledg-cost[tvm]'" in str(result.exception)


def test_one_batch_size() -> None:
    result = CliRunner().invoke(command, ["model.onnx", "--batch", "1,2"])
    assert result.exit_code == 2
    assert "one batch size" in result.output

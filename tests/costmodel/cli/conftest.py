from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ledg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: (exit status, stdout, stderr)."""
    from costmodel.cli import main

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ledg-cost", *map(str, args)])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="session")
def resnet50() -> str:
    """ResNet-50 as it comes with the onnx package."""
    return str(Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx")


def small_model(op: str = "Relu", domain: str = "", shape: tuple[object, ...] = ("N", 4)) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain)], "small", [x], [y])
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., str]:
    """Writes a one-node model and returns its path."""

    def write(**kwargs: object) -> str:
        path = tmp_path / "small.onnx"
        onnx.save(small_model(**kwargs), path)  # type: ignore[arg-type]
        return str(path)

    return write

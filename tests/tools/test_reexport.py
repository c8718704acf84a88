from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from costmodel.bundle import ENCODE, RELEASED, WEIGHTS
from costmodel.ir import GraphBuilder
from costmodel.platforms import resolve
from costmodel.predictor import LeDGFormerModel, load

torch = pytest.importorskip("torch", reason="the network is defined in torch; install the dev extra")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript; install the dev extra")


def test_a_bundle_written_again_answers_the_same(tmp_path: Path) -> None:
    from tools.reexport import reexport

    shutil.copytree(RELEASED, tmp_path / "b")
    assert reexport(tmp_path / "b") < 1e-5
    b = GraphBuilder()
    x = b.input((1, 8))
    graph, t4 = (
        b.build([b.node("Relu", [b.node("Gemm", [x, b.param((8, 8))], (1, 8), transB=1)], (1, 8))]),
        resolve("t4"),
    )
    again = LeDGFormerModel(tmp_path / "b").estimate(graph, t4)
    assert again.latency_ms == pytest.approx(load().estimate(graph, t4).latency_ms, rel=1e-4)


def test_other_weights_leave_the_bundle_as_it_was(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from tools.reexport import reexport

    shutil.copytree(RELEASED, tmp_path / "b")
    weights = load_file(RELEASED / WEIGHTS)
    save_file({k: v * 1.1 for k, v in weights.items()}, tmp_path / "b" / WEIGHTS)
    with pytest.raises(ValueError, match="left as it was"):
        reexport(tmp_path / "b")
    assert (tmp_path / "b" / ENCODE).read_bytes() == (RELEASED / ENCODE).read_bytes()

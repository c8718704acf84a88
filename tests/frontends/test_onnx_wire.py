from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from frontends import load, onnx_wire
from frontends.onnx_wire import looks_like_model, missing_bytes, without_weights
from tests.frontends.onnx_models import conv_net, model, node


def test_weights_of_a_large_file_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"w": np.zeros((1024, 2048), np.float32), "s": np.array([-1, 2048], np.int64)}
    nodes = [node("Reshape", ["x", "s"], ["r"]), node("MatMul", ["r", "t"], ["y"]), node("Transpose", ["w"], ["t"])]
    proto = model([nodes[2], *nodes[:2]], {"x": ["N", 2, 1024]}, ["y"], weights)
    path = tmp_path / "large.onnx"
    path.write_bytes(proto.SerializeToString())
    monkeypatch.setattr(onnx_wire, "STRIP_FROM_BYTES", 1 << 20)
    kept = without_weights(path)
    assert len(kept) < 1000
    stripped = ModelProto.FromString(kept)
    assert stripped.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert list(stripped.graph.initializer[0].dims) == [1024, 2048]
    assert stripped.graph.node == proto.graph.node
    assert load(path, batch=3).fingerprint == load(proto, batch=3).fingerprint


def test_every_prefix_of_a_model_counts_as_one_cut_off() -> None:
    content = conv_net().SerializeToString()
    whole = len(content)
    for size in range(40, whole - 20, 37):
        assert looks_like_model(content[:size])
        assert missing_bytes(content[:size]) == 0 or missing_bytes(content[:size]) <= whole - size
    assert missing_bytes(content) == 0
    assert missing_bytes(b"plain text that is no model") == 0

"""Torch computes what ONNX Runtime computes, and is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from costmodel.errors import ModelLoadError, UnsupportedOpError
from profiler.inprocess import measure_here
from profiler.onnx_model import prepare
from profiler.request import Request
from profiler.weights import make_inputs
from profiler.workloads import generate
from tests.profiler.models import conv_net, elementwise, endless

torch = pytest.importorskip("torch")

from profiler.backends.torch import _folded, to_module  # noqa: E402


@pytest.mark.parametrize(
    "name",
    ["squeezenet/0", "mobilenetv3/2", "googlenet/1", "nasbench201/4", "transformer/0", "operator/3", "operator/7"],
)
def test_it_computes_the_same(name: str) -> None:
    family, _, seed = name.partition("/")
    model = prepare(Request(generate(family, int(seed)).SerializeToString()))
    feeds = make_inputs(model, 0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, feeds)
    module = to_module(_folded(model))
    with torch.inference_mode():
        found = module(*(torch.from_numpy(value) for value in feeds.values()))
    for a, b in zip(wanted, found, strict=True):
        assert np.abs(a - b.numpy()).max() <= 1e-3 * np.abs(a).max()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_eager_is_measured(precision: str) -> None:
    request = Request(
        conv_net().SerializeToString(), backend="torch", precision=precision, batch=2, operators=True, seconds=0.02
    )
    found = measure_here(request)
    assert found.runtime.startswith("pytorch-eager-")
    assert found.batch == 2
    names = [name for name, _ in found.operators]
    assert {"conv1", "conv2", "pool"} <= set(names)
    assert len(names) == len(set(names))


def test_exported_programs_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    torch.export.save(torch.export.export(module, (torch.randn(3, 8),)), path)
    found = measure_here(Request(str(path), backend="torch", seconds=0.02))
    assert found.batch == 3
    assert found.latency_ms > 0
    path.write_bytes(b"nothing")
    with pytest.raises(ModelLoadError, match=r"net\.pt2 is no exported program"):
        measure_here(Request(str(path), backend="torch"))


def test_what_torch_cannot_do_is_listed() -> None:
    with pytest.raises(UnsupportedOpError, match="no torch form of Loop"):
        to_module(endless())
    with pytest.raises(UnsupportedOpError) as caught:
        to_module(elementwise("NoSuchOperator"))
    assert caught.value.ops == {"NoSuchOperator": 1}

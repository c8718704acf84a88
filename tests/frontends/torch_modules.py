"""Small networks for the tests of the torch frontend."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="the torch frontend needs torch")
nn = torch.nn


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def trained(module: Any) -> Any:
    """The module in evaluation mode, no vector of it zero: the ONNX exporter leaves out biases that are."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def conv_net() -> Any:
    """Convolution, batch normalisation, in-place activation, pool, classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(8, 10),
    )


def onnx_graph(module: Any, *inputs: Any) -> Any:
    """The graph that the ONNX export of a module lowers to."""
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
    import frontends

    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(module, inputs, dynamo=True, verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    return frontends.load(exported.model_proto)

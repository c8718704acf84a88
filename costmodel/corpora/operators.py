"""Single operators of ops.parquet as graphs of one kernel, and the measured devices' names as this package spells them.

What the shape columns mean was settled from the collectors' conventions and checked against latency:

source    op               graph
neusight  bmm              (batch, m, n) × (batch, n, k): n is contracted
neusight  linear           (batch * m, n) × (n, k) and a bias
neusight  conv             c_in × h_in × h_in to c_out, no bias
neusight  add mul div pow  two (batch, h) tensors: 3 tensors' traffic reaches 80 % of an A100's bandwidth
neusight  addu … powu      (batch, h) and a number: 2 tensors' traffic reaches the same
neusight  relu gelu tanh softmax ln   (batch, h); the last two along h
tinynas   conv, depthwise_conv        BatchNormalization folded to a bias; `fused_elementwise` adds a residual: the time
                                      ratio to the plain convolution grows with the share of output in the traffic
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from costmodel.corpora.blocks import NetBuilder
from costmodel.errors import DataError
from costmodel.ir import Graph

_BINARY = {"add": "Add", "mul": "Mul", "div": "Div", "pow": "Pow"}
_UNARY = {"relu": "Relu", "tanh": "Tanh", "gelu": "Gelu"}

# In the order of the shortest unambiguous match; the 80 GB A100 and the SXM boards have sheets of their own.
_DEVICES = (
    (r"a100.*80gb.*pcie|a100.*pcie.*80gb", "a100-pcie-80gb"),
    (r"a100.*pcie", "a100-pcie"),
    (r"a100.*80gb", "a100-sxm-80gb"),
    (r"a100", "a100-sxm"),
    (r"v100.*pcie", "v100-pcie"),
    (r"v100", "v100"),
    (r"p100", "p100"),
    (r"(tesla|nvidia)[ _-]p4\b", "p4"),
    (r"(tesla|nvidia)[ _-]t4\b", "t4"),
)


def device_name(measured: str) -> str:
    """This package's name for a device as a measurement names it, e.g. `Tesla P100-PCIE-16GB` → `p100`.

    Names it does not recognise come back in lower case with underscores for spaces.
    """
    plain = measured.strip().lower()
    for pattern, name in _DEVICES:
        if re.search(pattern, plain):
            return name
    return re.sub(r"\s+", "_", plain)


def build(row: Mapping[str, Any]) -> Graph:
    """The graph of one row of ops.parquet: `op`, `batch` and the shape columns that it uses.

    Raises DataError for an unknown operator or a missing or impossible shape.
    """
    op = str(row.get("op"))
    net = NetBuilder(f"op/{op}")
    if op in ("conv", "depthwise_conv"):
        return _conv(net, row, depthwise=op == "depthwise_conv")
    if op == "bmm":
        batch, m, n, k = (_dim(row, name) for name in ("batch", "m", "n", "k"))
        return net.build([net.node("MatMul", [net.input((batch, m, n)), net.input((batch, n, k))], (batch, m, k))])
    if op == "linear":
        batch, m, n, k = (_dim(row, name) for name in ("batch", "m", "n", "k"))
        return net.build([net.linear(net.input((batch * m, n)), k)])
    return _rowwise(net, op, row)


def _rowwise(net: NetBuilder, op: str, row: Mapping[str, Any]) -> Graph:
    """Element-wise and row-wise operators on (batch, h)."""
    shape = (_dim(row, "batch"), _dim(row, "h"))
    x = net.input(shape)
    if op in _UNARY:
        return net.build([net.unary(_UNARY[op], x)])
    if op in _BINARY:
        return net.build([net.node(_BINARY[op], [x, net.input(shape)], shape)])
    if op.endswith("u") and op[:-1] in _BINARY:
        return net.build([net.scalar(_BINARY[op[:-1]], x)])
    if op == "softmax":
        return net.build([net.node("Softmax", [x], shape, axis=1)])
    if op == "ln":
        return net.build([net.layer_norm(x)])
    known = ["conv", "depthwise_conv", "bmm", "linear", "softmax", "ln", *_UNARY, *_BINARY, *(f"{b}u" for b in _BINARY)]
    raise DataError(f"no operator '{op}' is known; use one of {', '.join(known)}")


def _conv(net: NetBuilder, row: Mapping[str, Any], depthwise: bool) -> Graph:
    batch, width, channels, kernel, size, stride = (
        _dim(row, name) for name in ("batch", "c_in", "c_out", "kernel", "h_in", "stride")
    )
    pad = _dim(row, "pad", least=0)
    if size + 2 * pad < kernel or (depthwise and channels % width):
        raise DataError(f"no {row['op']} has these shapes: {_shapes(row)}; drop the row")
    folded = row.get("source") != "neusight"
    x = net.input((batch, width, size, size))
    y = net.conv(x, channels, kernel, stride, width if depthwise else 1, bias=folded, pad=pad)
    if _number(row.get("fused_elementwise")):
        y = net.plus(y, net.input(net.shape(y)))
    return net.build([y])


def _number(value: Any) -> float:
    """A cell of the table; None and NaN count as 0."""
    return 0.0 if value is None or math.isnan(float(value)) else float(value)


def _dim(row: Mapping[str, Any], name: str, least: int = 1) -> int:
    value = row.get(name)
    if value is None or math.isnan(float(value)) or float(value) != int(value) or int(value) < least:
        raise DataError(f"operator '{row.get('op')}' has {name} = {value}; give a whole number of at least {least}")
    return int(value)


def _shapes(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {row.get(name)}" for name in ("c_in", "c_out", "kernel", "h_in", "stride", "pad"))

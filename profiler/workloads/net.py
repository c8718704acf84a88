"""Writes weightless ONNX networks node by node, in the form that exporters give networks in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from profiler.workloads.draw import Draw

OPSET = 17
IR_VERSION = 8
INLINE = 256
"""Tensors of at most so many elements keep their values; larger ones are external placeholders without a file."""


class Net:
    """A network under construction.

    `shapes` holds the shape of every activation without the leading batch axis, which is the symbol `N`; `flops`
    counts two per multiply-accumulate of Conv, Gemm and MatMul for one sample; `weights` counts weight elements.
    Methods return the name of the tensor they add. `at` is the dotted path of a layer, which names node and weights.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.flops = 0
        self.weights = 0
        self._inputs: list[str] = []
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._values = Draw(f"values of {name}")
        self._used: set[str] = set()

    def input(self, shape: Sequence[int], name: str = "input") -> str:
        """A float input of (N, *shape)."""
        self._inputs.append(name)
        self.shapes[name] = tuple(shape)
        return name

    def weight(self, name: str, shape: Sequence[int], around: float = 0.0) -> str:
        """A float parameter: a placeholder, or small random values around a number that keep activations in range."""
        size = math.prod(shape)
        self.weights += size
        if size > INLINE:
            tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
            tensor.external_data.add(key="location", value="weights.bin")
        else:
            reach = math.sqrt(6 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
            values = [around + self._values.uniform(-reach, reach) for _ in range(size)]
            tensor = numpy_helper.from_array(np.array(values, np.float32).reshape(shape), name)
        self._initializers[name] = tensor
        return name

    def constant(self, values: float | Sequence[int] | Sequence[float], at: str) -> str:
        """A scalar or vector with given values; integers become int64."""
        array = np.array(values)
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        self._initializers[at] = numpy_helper.from_array(array.astype(kind), at)
        return at

    def node(self, op: str, inputs: Sequence[str], shape: Sequence[int], at: str = "", **attrs: Any) -> str:
        """Any operator with one output of (N, *shape)."""
        return self.split(op, inputs, [shape], at, **attrs)[0]

    def split(
        self, op: str, inputs: Sequence[str], shapes: Sequence[Sequence[int]], at: str = "", **attrs: Any
    ) -> list[str]:
        """Any operator with several outputs."""
        scope = "".join(f"/{part}" for part in at.split(".") if part)
        name, again = f"{scope}/{op}", 0
        while name in self._used:
            again += 1
            name = f"{scope}/{op}_{again}"
        self._used.add(name)
        outputs = [f"{name}_output_{i}" for i in range(len(shapes))]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, name, **attrs))
        self.shapes.update({o: tuple(s) for o, s in zip(outputs, shapes, strict=True)})
        return outputs

    def conv(
        self,
        x: str,
        width: int,
        kernel: int,
        at: str,
        stride: int = 1,
        group: int = 1,
        act: str = "",
        pad: int | None = None,
        dilation: int = 1,
    ) -> str:
        """Convolution with bias (BatchNorm folded in), 'same' padding unless `pad` is given, then an activation."""
        channels, *size = self.shapes[x]
        pad = dilation * (kernel // 2) if pad is None else pad
        reach = dilation * (kernel - 1) + 1
        out = [(s + 2 * pad - reach) // stride + 1 for s in size]
        weights = [
            self.weight(f"{at}.weight", (width, channels // group, kernel, kernel)),
            self.weight(f"{at}.bias", (width,)),
        ]
        self.flops += 2 * width * (channels // group) * kernel * kernel * math.prod(out)
        y = self.node(
            "Conv", [x, *weights], (width, *out), at, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4,
            dilations=[dilation] * 2, group=group,
        )  # fmt: skip
        return self.act(y, act, at) if act else y

    def act(self, x: str, kind: str, at: str) -> str:
        """An activation: `relu`, `relu6`, `swish`, `gelu` or the name of an ONNX operator."""
        shape = self.shapes[x]
        if kind == "relu":
            return self.node("Relu", [x], shape, at)
        if kind == "relu6":
            bounds = [self.constant(value, f"{at}.{end}") for end, value in (("min", 0.0), ("max", 6.0))]
            return self.node("Clip", [x, *bounds], shape, at)
        if kind == "swish":
            return self.node("Mul", [x, self.node("Sigmoid", [x], shape, at)], shape, at)
        if kind == "gelu":
            y = self.node("Div", [x, self.constant(math.sqrt(2), f"{at}.root2")], shape, at)
            y = self.node("Add", [self.node("Erf", [y], shape, at), self.constant(1.0, f"{at}.one")], shape, at)
            y = self.node("Mul", [x, y], shape, at)
            return self.node("Mul", [y, self.constant(0.5, f"{at}.half")], shape, at)
        return self.node(kind, [x], shape, at, **({"alpha": 1 / 6} if kind == "HardSigmoid" else {}))

    def batch_norm(self, x: str, at: str) -> str:
        """BatchNormalization that no convolution before it can take in."""
        parts = (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0))
        scale = [self.weight(f"{at}.{part}", self.shapes[x][:1], around) for part, around in parts]
        return self.node("BatchNormalization", [x, *scale], self.shapes[x], at)

    def squeeze_excite(self, x: str, width: int, at: str, act: str = "relu", gate: str = "Sigmoid") -> str:
        """Rescales channels by a gate worked out from their means through `width` channels."""
        channels = self.shapes[x][0]
        y = self.node("ReduceMean", [x], (channels, 1, 1), at, axes=[2, 3], keepdims=1)
        y = self.conv(y, width, 1, f"{at}.reduce", act=act)
        y = self.act(self.conv(y, channels, 1, f"{at}.expand"), gate, f"{at}.gate")
        return self.node("Mul", [x, y], self.shapes[x], at)

    def pool(
        self, x: str, kernel: int, stride: int, at: str, op: str = "MaxPool", pad: int = 0, ceil: bool = False
    ) -> str:
        """Max or average pooling; maps smaller than the kernel stay as they are."""
        channels, *size = self.shapes[x]
        if min(size) + 2 * pad < kernel:
            return x
        out = [-(-(s + 2 * pad - kernel) // stride) + 1 if ceil else (s + 2 * pad - kernel) // stride + 1 for s in size]
        attrs: dict[str, Any] = {"count_include_pad": 0} if op == "AveragePool" else {"dilations": [1, 1]}
        return self.node(
            op, [x], (channels, *out), at, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4,
            ceil_mode=int(ceil), **attrs,
        )  # fmt: skip

    def add(self, x: str, y: str, at: str = "", act: str = "") -> str:
        """The sum of two tensors, then an activation."""
        total = self.node("Add", [x, y], self.shapes[x], at)
        return self.act(total, act, at) if act else total

    def concat(self, parts: Sequence[str], at: str = "") -> str:
        """Channels of all parts side by side."""
        channels = sum(self.shapes[p][0] for p in parts)
        return self.node("Concat", parts, (channels, *self.shapes[parts[0]][1:]), at, axis=1)

    def linear(self, x: str, width: int, at: str, act: str = "") -> str:
        """A fully connected layer with bias on (N, features)."""
        (features,) = self.shapes[x]
        weights = [self.weight(f"{at}.weight", (width, features)), self.weight(f"{at}.bias", (width,))]
        self.flops += 2 * width * features
        y = self.node("Gemm", [x, *weights], (width,), at, transB=1)
        return self.act(y, act, at) if act else y

    def flatten(self, x: str) -> str:
        """(N, everything else)."""
        return self.node("Flatten", [x], (math.prod(self.shapes[x]),), axis=1)

    def global_pool(self, x: str, at: str = "avgpool") -> str:
        """The mean of each channel."""
        return self.node("GlobalAveragePool", [x], (self.shapes[x][0], 1, 1), at)

    def classifier(self, x: str, classes: int) -> ModelProto:
        """Global average pooling and a linear layer; ends the network."""
        return self.finish(self.linear(self.flatten(self.global_pool(x)), classes, "classifier"))

    def finish(self, x: str) -> ModelProto:
        """The model whose output is `x`."""
        self._nodes[-1].output[:] = ["output"]
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [helper.make_tensor_value_info(i, TensorProto.FLOAT, ["N", *self.shapes[i]]) for i in self._inputs],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", *self.shapes[x]])],
            list(self._initializers.values()),
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="ledg-cost"
        )

"""The layers that the corpus networks are made of, on a `GraphBuilder` that keeps track of shapes.

Every method takes and returns a tensor name; activations are (N, C, H, W) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from costmodel.ir import GraphBuilder, Node


def divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, never more than a tenth below `value` (the MobileNet papers' rounding)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class NetBuilder(GraphBuilder):
    """`GraphBuilder` with layers."""

    def repeat(self, x: str, block: Callable[[str], str], times: int) -> str:
        """`block` applied to x, then to its result, `times` times in all; it must keep the shape.

        The block, of nodes with one output each, is run once and copied: the same graph, names included, in less time.
        """
        nodes, tensors = len(self.nodes), len(self.tensors)
        last = result = block(x)
        pattern, made = self.nodes[nodes:], list(islice(self.tensors, tensors, None))
        weights = [name for name in made if name in self.params]
        for _ in range(times - 1):
            copy = {x: last}
            copy.update((name, f"{name[0]}{i}") for i, name in enumerate(made, len(self.tensors)))
            self.tensors.update((copy[name], self.tensors[name]) for name in made)
            self.params.update(copy[name] for name in weights)
            for i, node in enumerate(pattern, len(self.nodes)):
                inputs = tuple(copy.get(t, t) for t in node.inputs)
                self.nodes.append(Node(node.op, inputs, (copy[node.outputs[0]],), node.attrs, f"{node.op}_{i}"))
            last = copy[result]
        return last

    def conv(
        self, x: str, channels: int, kernel: int, stride: int = 1, group: int = 1, bias: bool = False, pad: int = -1
    ) -> str:
        """Conv to `channels` with a square kernel; `pad` on each side, kernel // 2 if negative."""
        batch, width, height, length = self.shape(x)
        pad = kernel // 2 if pad < 0 else pad
        out = (height + 2 * pad - kernel) // stride + 1, (length + 2 * pad - kernel) // stride + 1
        inputs = [x, self.param((channels, width // group, kernel, kernel))]
        if bias:
            inputs.append(self.param((channels,)))
        return self.node(
            "Conv", inputs, (batch, channels, *out), kernel_shape=(kernel, kernel), strides=(stride, stride),
            pads=(pad, pad, pad, pad), dilations=(1, 1), group=group,
        )  # fmt: skip

    def batch_norm(self, x: str) -> str:
        """BatchNormalization with its four vectors."""
        shape = self.shape(x)
        return self.node("BatchNormalization", [x, *(self.param(shape[1:2]) for _ in range(4))], shape)

    def conv_bn(self, x: str, channels: int, kernel: int, stride: int = 1, group: int = 1, act: str = "") -> str:
        """Conv without bias, BatchNormalization and, where named, an element-wise activation."""
        y = self.batch_norm(self.conv(x, channels, kernel, stride, group))
        return self.unary(act, y) if act else y

    def unary(self, op: str, x: str) -> str:
        """An element-wise operator of one tensor."""
        return self.node(op, [x], self.shape(x))

    def scalar(self, op: str, x: str) -> str:
        """An element-wise operator of a tensor and a constant."""
        return self.node(op, [x, self.param(())], self.shape(x))

    def plus(self, x: str, y: str) -> str:
        """x + y of equal shapes."""
        return self.node("Add", [x, y], self.shape(x))

    def average_pool(self, x: str, kernel: int, stride: int, pad: int = 0, count_pad: bool = False) -> str:
        """AveragePool with a square window."""
        batch, channels, height, length = self.shape(x)
        out = (height + 2 * pad - kernel) // stride + 1, (length + 2 * pad - kernel) // stride + 1
        return self.node(
            "AveragePool", [x], (batch, channels, *out), kernel_shape=(kernel, kernel), strides=(stride, stride),
            pads=(pad, pad, pad, pad), dilations=(1, 1), count_include_pad=int(count_pad),
        )  # fmt: skip

    def global_pool(self, x: str) -> str:
        """GlobalAveragePool to (N, C, 1, 1)."""
        batch, channels = self.shape(x)[:2]
        return self.node("GlobalAveragePool", [x], (batch, channels, 1, 1))

    def mean(self, x: str, axis: int) -> str:
        """ReduceMean over one axis, kept with length 1."""
        shape = list(self.shape(x))
        shape[axis] = 1
        return self.node("ReduceMean", [x], shape, axes=(axis,), keepdims=1)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """A view of other shape."""
        return self.node("Reshape", [x], shape)

    def transpose(self, x: str, *perm: int) -> str:
        """Axes in another order."""
        shape = self.shape(x)
        return self.node("Transpose", [x], [shape[axis] for axis in perm], perm=perm)

    def flatten(self, x: str) -> str:
        """(N, …) to (N, rest)."""
        batch, *rest = self.shape(x)
        size = 1
        for length in rest:
            size *= length
        return self.node("Flatten", [x], (batch, size), axis=1)

    def linear(self, x: str, width: int, bias: bool = True) -> str:
        """Gemm of (rows, in) to (rows, width), the weight stored as (width, in)."""
        rows, depth = self.shape(x)
        inputs = [x, self.param((width, depth))]
        if bias:
            inputs.append(self.param((width,)))
        return self.node("Gemm", inputs, (rows, width), transA=0, transB=1)

    def layer_norm(self, x: str) -> str:
        """LayerNormalization over the last axis."""
        shape = self.shape(x)
        return self.node("LayerNormalization", [x, self.param(shape[-1:]), self.param(shape[-1:])], shape, axis=-1)

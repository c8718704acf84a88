"""ONNX operators in torch, enough to measure the networks that people deploy.

Each function takes a `Call` and returns a result, or a tuple of them. Results and inputs are `torch.fx` proxies: what
is called on them is recorded, so the functions run once per network, not once per forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

Op = Callable[["Call"], Any]


@dataclass(frozen=True)
class Call:
    """One node: attributes, constant inputs as arrays, all inputs as proxies made on demand, and static shapes."""

    attrs: dict[str, Any]
    names: Sequence[str]
    outputs: int
    constants: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    proxy: Callable[[str], Any]

    def has(self, place: int) -> bool:
        """Whether the optional input is given."""
        return place < len(self.names) and bool(self.names[place])

    def __getitem__(self, place: int) -> Any:
        """The input as a proxy, None if it is not given."""
        return self.proxy(self.names[place]) if self.has(place) else None

    def constant(self, place: int) -> np.ndarray:
        """The input's value; KeyError if it is only known at run time."""
        return self.constants[self.names[place]]

    def ints(self, key: str, place: int = -1) -> list[int] | None:
        """Whole numbers that are an attribute or, in newer opsets, a constant input; None if neither is given."""
        if key in self.attrs:
            value = self.attrs[key]
            return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
        return [int(v) for v in self.constant(place).reshape(-1)] if place >= 0 and self.has(place) else None

    def rank(self, place: int = 0) -> int:
        """Number of axes of an input."""
        return len(self.shapes[self.names[place]])


def _window(c: Call, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads (begin and end of each axis) with auto_pad worked out."""
    n = len(kernel)
    strides, dilations = c.ints("strides") or [1] * n, c.ints("dilations") or [1] * n
    auto = c.attrs.get("auto_pad", b"NOTSET").decode()
    if auto.startswith("SAME"):
        size = c.shapes[c.names[0]][2:]
        spans = zip(size, strides, kernel, dilations, strict=True)
        total = [max((math.ceil(x / s) - 1) * s + (k - 1) * d + 1 - x, 0) for x, s, k, d in spans]
        first = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]
        return strides, dilations, [*first, *(t - f for t, f in zip(total, first, strict=True))]
    return strides, dilations, c.ints("pads") or [0] * 2 * n


def _padded(x: Any, pads: Sequence[int], value: float = 0.0) -> tuple[Any, list[int]]:
    """`x`, and pads that a torch operator can do itself: equal on both sides; else `x` is padded before."""
    n = len(pads) // 2
    if list(pads[:n]) == list(pads[n:]):
        return x, list(pads[:n])
    last_first = [p for axis in reversed(range(n)) for p in (pads[axis], pads[axis + n])]
    return F.pad(x, last_first, value=value), [0] * n


def _conv(c: Call) -> Any:
    kernel = c.shapes[c.names[1]][2:]
    strides, dilations, pads = _window(c, kernel)
    x, both = _padded(c[0], pads)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    return convolve(x, c[1], c[2], strides, both, dilations, c.attrs.get("group", 1))


def _conv_transpose(c: Call) -> Any:
    kernel = c.shapes[c.names[1]][2:]
    strides, dilations, pads = _window(c, kernel)
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(kernel) - 1]
    extra = c.ints("output_padding") or [0] * len(kernel)
    return convolve(c[0], c[1], c[2], strides, pads[: len(kernel)], extra, c.attrs.get("group", 1), dilations)


def _gemm(c: Call) -> Any:
    alpha, beta = c.attrs.get("alpha", 1.0), c.attrs.get("beta", 1.0)
    a = c[0].t() if c.attrs.get("transA") else c[0]
    if c.attrs.get("transB") and alpha == beta == 1.0 and (not c.has(2) or c.rank(2) == 1):
        return F.linear(a, c[1], c[2])
    b = c[1].t() if c.attrs.get("transB") else c[1]
    return torch.addmm(c[2], a, b, beta=beta, alpha=alpha) if c.has(2) else alpha * torch.mm(a, b)


def _pool(c: Call, average: bool) -> Any:
    kernel = c.attrs["kernel_shape"]
    strides, dilations, pads = _window(c, kernel)
    ceil, n = bool(c.attrs.get("ceil_mode", 0)), len(kernel)
    x, both = _padded(c[0], pads, 0.0 if average else -math.inf)
    if average:
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
        return pool(x, kernel, strides, both, ceil, bool(c.attrs.get("count_include_pad", 0)))
    return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1](x, kernel, strides, both, dilations, ceil)


def _global(reduce: Callable[..., Any]) -> Op:
    return lambda c: reduce(c[0], dim=list(range(2, c.rank())), keepdim=True)


def _reduce(reduce: Callable[..., Any]) -> Op:
    def op(c: Call) -> Any:
        axes = c.ints("axes", 1) or list(range(c.rank()))
        return reduce(c[0], dim=axes, keepdim=bool(c.attrs.get("keepdims", 1)))

    return op


def _layer_norm(c: Call) -> Any:
    axis = c.attrs.get("axis", -1) % c.rank()
    return F.layer_norm(c[0], c.shapes[c.names[0]][axis:], c[1], c[2], c.attrs.get("epsilon", 1e-5))


def _batch_norm(c: Call) -> Any:
    return F.batch_norm(c[0], c[3], c[4], c[1], c[2], False, 0.0, c.attrs.get("epsilon", 1e-5))


def _clip(c: Call) -> Any:
    limits = []
    for key, place in (("min", 1), ("max", 2)):
        limits.append(c.attrs[key] if key in c.attrs else c.constant(place).item() if c.has(place) else None)
    return torch.clamp(c[0], *limits) if limits != [None, None] else c[0]


def _reshape(c: Call) -> Any:
    wanted = c.ints("shape", 1) or []
    source = c.shapes[c.names[0]]
    return torch.reshape(
        c[0], [source[i] if n == 0 and not c.attrs.get("allowzero") else n for i, n in enumerate(wanted)]
    )


def _flatten(c: Call) -> Any:
    axis, shape = c.attrs.get("axis", 1), c.shapes[c.names[0]]
    return torch.reshape(c[0], [math.prod(shape[:axis]), math.prod(shape[axis:])])


def _squeeze(c: Call) -> Any:
    axes = c.ints("axes", 1)
    return torch.squeeze(c[0]) if axes is None else torch.squeeze(c[0], axes)


def _unsqueeze(c: Call) -> Any:
    axes, x = c.ints("axes", 1) or [], c[0]
    rank = c.rank() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = torch.unsqueeze(x, axis)
    return x


def _split(c: Call) -> Any:
    axis = c.attrs.get("axis", 0)
    size = c.shapes[c.names[0]][axis]
    part = -(-size // c.outputs)
    found = torch.split(c[0], c.ints("split", 1) or part, axis)
    return tuple(found[i] for i in range(c.outputs))


def _slice(c: Call) -> Any:
    starts, ends = c.ints("starts", 1) or [], c.ints("ends", 2) or []
    axes, steps = c.ints("axes", 3) or list(range(len(starts))), c.ints("steps", 4) or [1] * len(starts)
    places: list[slice] = [slice(None)] * c.rank()
    x = c[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = c.shapes[c.names[0]][axis]
        if step < 0:
            x = torch.flip(x, [axis])
            start, end, step = size - 1 - start % size, size - 1 - max(end, -size - 1) % (size + 1), -step
        places[axis % c.rank()] = slice(start, min(end, size), step)
    return x[tuple(places)]


def _gather(c: Call) -> Any:
    axis, rank = c.attrs.get("axis", 0) % c.rank(), c.rank(1)
    if c.names[1] in c.constants and rank == 0:
        return torch.select(c[0], axis, int(c.constant(1)))
    places = (slice(None),) * axis
    return c[0][(*places, c[1])]


def _pad(c: Call) -> Any:
    pads = c.ints("pads", 1) or []
    n = len(pads) // 2
    mode = {"edge": "replicate"}.get(text := c.attrs.get("mode", b"constant").decode(), text)
    axes = [a for a in reversed(range(n)) if mode == "constant" or pads[a] or pads[a + n]]
    last_first = [p for a in axes for p in (pads[a], pads[a + n])]
    value = float(c.constant(2).item()) if c.has(2) else 0.0
    return F.pad(c[0], last_first, mode, value if mode == "constant" else None)


def _resize(c: Call) -> Any:
    shape = c.shapes[c.names[0]][2:]
    if c.has(3):
        size = [int(n) for n in c.constant(3)[2:]]
    else:
        scales = c.constant(2 if c.has(2) else 1)[2:]
        size = [math.floor(n * s) for n, s in zip(shape, scales, strict=True)]
    kind = c.attrs.get("mode", b"nearest").decode()
    mode = {"nearest": "nearest", "linear": ("linear", "bilinear", "trilinear")[len(size) - 1], "cubic": "bicubic"}[
        kind
    ]
    corners = c.attrs.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
    return F.interpolate(c[0], size, mode=mode, align_corners=None if mode == "nearest" else corners)


def _cast(c: Call) -> Any:
    from onnx import helper

    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(c.attrs["to"]))
    return c[0].to(getattr(torch, "bool" if dtype == np.bool_ else dtype.name))


def _depth_to_space(c: Call) -> Any:
    block, (n, depth, h, w) = c.attrs["blocksize"], c.shapes[c.names[0]]
    if c.attrs.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(c[0], block)
    x = c[0].reshape(n, block, block, depth // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, depth // block**2, h * block, w * block)


def _fold(combine: Callable[[Any, Any], Any]) -> Op:
    def op(c: Call) -> Any:
        value = c[0]
        for place in range(1, len(c.names)):
            value = combine(value, c[place])
        return value

    return op


def _unary(function: Callable[[Any], Any]) -> Op:
    return lambda c: function(c[0])


def _binary(function: Callable[[Any, Any], Any]) -> Op:
    return lambda c: function(c[0], c[1])


OPS: dict[str, Op] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _binary(torch.matmul),
    "Einsum": lambda c: torch.einsum(c.attrs["equation"].decode(), *(c[i] for i in range(len(c.names)))),
    "MaxPool": lambda c: _pool(c, False), "AveragePool": lambda c: _pool(c, True),
    "GlobalAveragePool": _global(torch.mean), "GlobalMaxPool": _global(torch.amax),
    "BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm,
    "InstanceNormalization": lambda c: F.instance_norm(c[0], weight=c[1], bias=c[2], eps=c.attrs.get("epsilon", 1e-5)),
    "GroupNormalization": lambda c: F.group_norm(c[0], c.attrs["num_groups"], c[1], c[2], c.attrs.get("epsilon", 1e-5)),
    "LRN": lambda c: F.local_response_norm(c[0], c.attrs["size"], c.attrs.get("alpha", 1e-4), c.attrs.get("beta", 0.75),
                                           c.attrs.get("bias", 1.0)),
    "Add": _binary(torch.add), "Sub": _binary(torch.sub), "Mul": _binary(torch.mul), "Div": _binary(torch.div),
    "Pow": _binary(torch.pow), "Mod": _binary(torch.remainder), "Equal": _binary(torch.eq),
    "Less": _binary(torch.lt), "LessOrEqual": _binary(torch.le), "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge), "And": _binary(torch.logical_and), "Or": _binary(torch.logical_or),
    "Not": _unary(torch.logical_not), "Where": lambda c: torch.where(c[0], c[1], c[2]),
    "Min": _fold(torch.minimum), "Max": _fold(torch.maximum), "Sum": _fold(torch.add),
    "Relu": _unary(F.relu), "Sigmoid": _unary(torch.sigmoid), "Tanh": _unary(torch.tanh), "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp), "Log": _unary(torch.log), "Sqrt": _unary(torch.sqrt), "Neg": _unary(torch.neg),
    "Abs": _unary(torch.abs), "Sin": _unary(torch.sin), "Cos": _unary(torch.cos), "Floor": _unary(torch.floor),
    "Ceil": _unary(torch.ceil), "Round": _unary(torch.round), "Reciprocal": _unary(torch.reciprocal),
    "Softplus": _unary(F.softplus), "Softsign": _unary(F.softsign), "Mish": _unary(F.mish),
    "HardSwish": _unary(F.hardswish),
    "HardSigmoid": lambda c: torch.clamp(c[0] * c.attrs.get("alpha", 0.2) + c.attrs.get("beta", 0.5), 0.0, 1.0),
    "Gelu": lambda c: F.gelu(c[0], approximate=c.attrs.get("approximate", b"none").decode()),
    "LeakyRelu": lambda c: F.leaky_relu(c[0], c.attrs.get("alpha", 0.01)),
    "Elu": lambda c: F.elu(c[0], c.attrs.get("alpha", 1.0)), "Selu": _unary(F.selu),
    "PRelu": lambda c: torch.where(c[0] < 0, c[0] * c[1], c[0]), "Clip": _clip,
    "Softmax": lambda c: torch.softmax(c[0], c.attrs.get("axis", -1)),
    "LogSoftmax": lambda c: torch.log_softmax(c[0], c.attrs.get("axis", -1)),
    "ReduceMean": _reduce(torch.mean), "ReduceSum": _reduce(torch.sum), "ReduceMax": _reduce(torch.amax),
    "ReduceMin": _reduce(torch.amin), "ReduceL2": _reduce(torch.linalg.vector_norm),
    "ArgMax": lambda c: torch.argmax(c[0], c.attrs.get("axis", 0), bool(c.attrs.get("keepdims", 1))),
    "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Split": _split,
    "Transpose": lambda c: torch.permute(c[0], c.attrs.get("perm") or list(reversed(range(c.rank())))),
    "Concat": lambda c: torch.cat([c[i] for i in range(len(c.names))], c.attrs["axis"]),
    "Slice": _slice, "Gather": _gather, "Pad": _pad, "Resize": _resize, "Cast": _cast,
    "GatherElements": lambda c: torch.gather(c[0], c.attrs.get("axis", 0), c[1]),
    "Expand": lambda c: c[0] * torch.ones(c.ints("shape", 1) or []) if c.rank() == 0 else
              torch.broadcast_to(c[0], np.broadcast_shapes(c.shapes[c.names[0]], tuple(c.ints("shape", 1) or []))),
    "Tile": lambda c: torch.tile(c[0], c.ints("repeats", 1) or []), "DepthToSpace": _depth_to_space,
    "SpaceToDepth": lambda c: F.pixel_unshuffle(c[0], c.attrs["blocksize"]),
    "Identity": _unary(lambda x: x), "Dropout": _unary(lambda x: x),
}  # fmt: skip

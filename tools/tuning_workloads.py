"""The workloads that tuning is measured on, and which of them a model may learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TRAIN, VALID, TEST = "train", "valid", "test"


@dataclass(frozen=True)
class Workload:
    """A task: kind, sizes and split. `primfunc()` gives the TIR function to tune (needs TVM)."""

    kind: str
    sizes: tuple[int, ...]
    split: str

    @property
    def name(self) -> str:
        """Such as `conv2d_1x64x56x64k3s1`, `matmul_512x512x512`."""
        return f"{self.kind}_{'x'.join(map(str, self.sizes))}"

    def primfunc(self) -> Any:
        """The unscheduled PrimFunc."""
        from tvm import te

        return te.create_prim_func(_BUILD[self.kind](*self.sizes)).with_attr("global_symbol", "main")


def _tensor(name: str, *shape: int) -> Any:
    from tvm import te

    return te.placeholder(shape, name=name)


def _matmul(m: int, n: int, k: int) -> list[Any]:
    from tvm import topi

    a, b = _tensor("A", m, k), _tensor("B", k, n)
    return [a, b, topi.nn.matmul(a, b)]


def _dense(activation: str) -> Callable[..., list[Any]]:
    def build(m: int, n: int, k: int) -> list[Any]:
        from tvm import topi

        a, b, bias = _tensor("A", m, k), _tensor("B", n, k), _tensor("bias", n)
        made = topi.nn.dense(a, b, bias)
        return [a, b, bias, topi.nn.relu(made) if activation == "relu" else _gelu(made)]

    return build


def _gelu(x: Any) -> Any:
    from tvm import te, topi

    half = topi.multiply(x, topi.full_like(x, 0.5))
    return te.compute(x.shape, lambda *i: half(*i) * (1.0 + te.erf(x(*i) * 0.7071067811865476)), name="gelu")


def _batch_matmul(b: int, m: int, n: int, k: int) -> list[Any]:
    from tvm import topi

    x, y = _tensor("X", b, m, k), _tensor("Y", b, n, k)
    return [x, y, topi.nn.batch_matmul(x, y)]


def _conv2d(channels: int, size: int, filters: int, kernel: int, stride: int) -> list[Any]:
    from tvm import topi

    x, w, bias = _tensor("X", 1, channels, size, size), _tensor("W", filters, channels, kernel, kernel), None
    bias = _tensor("bias", 1, filters, 1, 1)
    made = topi.nn.conv2d_nchw(x, w, stride, kernel // 2, 1)
    return [x, w, bias, topi.nn.relu(topi.add(made, bias))]


def _depthwise(channels: int, size: int, kernel: int, stride: int) -> list[Any]:
    from tvm import topi

    x, w = _tensor("X", 1, channels, size, size), _tensor("W", channels, 1, kernel, kernel)
    bias = _tensor("bias", 1, channels, 1, 1)
    made = topi.nn.depthwise_conv2d_nchw(x, w, stride, kernel // 2, 1)
    return [x, w, bias, topi.clip(topi.add(made, bias), 0.0, 6.0)]


def _softmax(rows: int, columns: int) -> list[Any]:
    from tvm import topi

    x = _tensor("X", rows, columns)
    return [x, topi.nn.softmax(x, axis=1)]


def _layer_norm(rows: int, columns: int) -> list[Any]:
    from tvm import topi

    x, scale, shift = _tensor("X", rows, columns), _tensor("scale", columns), _tensor("shift", columns)
    return [x, scale, shift, topi.nn.layer_norm(x, scale, shift, [1], 1e-5)]


_BUILD: dict[str, Callable[..., list[Any]]] = {
    "matmul": _matmul,
    "dense_relu": _dense("relu"),
    "dense_gelu": _dense("gelu"),
    "batch_matmul": _batch_matmul,
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
}

WORKLOADS = tuple(
    Workload(kind, sizes, split)
    for kind, sizes, split in (
        ("matmul", (512, 512, 512), TEST),  # m, n, k
        ("conv2d", (64, 28, 64, 3, 1), TRAIN),  # channels, size, filters, kernel, stride
        ("depthwise", (96, 56, 3, 1), TRAIN),  # channels, size, kernel, stride
        ("dense_relu", (64, 768, 768), TRAIN),
        ("batch_matmul", (12, 64, 64, 64), TRAIN),  # batch, m, n, k
        ("softmax", (256, 1000), TRAIN),
        ("layer_norm", (256, 768), TRAIN),
        ("matmul", (256, 256, 256), TRAIN),
        ("conv2d", (128, 28, 128, 1, 1), TRAIN),
        ("conv2d", (64, 56, 64, 3, 1), TEST),
        ("depthwise", (144, 28, 3, 2), TEST),
        ("dense_gelu", (128, 1024, 256), TEST),
        ("batch_matmul", (8, 128, 128, 64), TEST),
        ("softmax", (768, 128), TEST),
        ("layer_norm", (128, 1024), TEST),
        ("matmul", (128, 1024, 512), TRAIN),
        ("matmul", (1024, 64, 384), VALID),
        ("conv2d", (3, 112, 32, 3, 2), TRAIN),
        ("conv2d", (256, 14, 256, 3, 1), TRAIN),
        ("conv2d", (32, 56, 96, 1, 1), VALID),
        ("depthwise", (384, 14, 5, 1), TRAIN),
        ("depthwise", (32, 112, 3, 1), VALID),
        ("dense_relu", (16, 1000, 1024), TRAIN),
        ("dense_gelu", (32, 1536, 384), TRAIN),
        ("batch_matmul", (4, 256, 64, 256), TRAIN),
        ("softmax", (512, 512), TRAIN),
        ("layer_norm", (512, 384), TRAIN),
        ("conv2d", (128, 28, 128, 3, 2), TRAIN),
        ("matmul", (32, 2048, 512), TRAIN),
        ("conv2d", (512, 7, 512, 1, 1), TRAIN),
    )
)
"""In the order they are measured: the most different first, so that a cut-short run is still worth having."""


def select(names: str = "") -> list[Workload]:
    """The workloads whose name holds one of the comma-separated words; all of them for an empty string."""
    words = [w for w in names.split(",") if w]
    return [w for w in WORKLOADS if not words or any(word in w.name for word in words)]

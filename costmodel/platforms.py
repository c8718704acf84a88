"""A platform is a device, a precision and a runtime: what a latency belongs to.

`resolve("t4", "int8", "tensorrt-8.6")` is the way in. Device spec sheets are in `costmodel.devices`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from costmodel.devices import (
    LAUNCH_OVERHEAD_US,
    Device,
    add_device,
    list_devices,
    load_device,
    user_directory,
)
from costmodel.errors import PlatformError, UnsupportedPrecisionError

__all__ = [
    "CALLS_KERNELS",
    "DISPATCH_OVERHEAD_US",
    "LAUNCH_OVERHEAD_US",
    "RUNTIMES",
    "Device",
    "Platform",
    "Precision",
    "add_device",
    "default_runtime",
    "list_devices",
    "load_device",
    "parse_runtime",
    "resolve",
    "supported_precisions",
    "user_directory",
]


class Precision(str, Enum):
    """Arithmetic of a network's weights and activations. The value is the name on the command line and in JSON."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"

    @property
    def bytes(self) -> int:
        """Bytes of one stored element; TF32 is stored in 4."""
        return _ELEMENT_BYTES[self]

    @classmethod
    def parse(cls, text: str | Precision) -> Precision:
        """The precision of a name such as "FP16", "half" or "float16"; case does not matter.

        Raises:
            UnsupportedPrecisionError: no precision of that name.
        """
        if isinstance(text, Precision):
            return text
        key = re.sub(r"[\s_-]", "", str(text).lower())
        try:
            return cls(_PRECISION_ALIASES.get(key, key))
        except ValueError:
            known = ", ".join(member.value for member in cls)
            raise UnsupportedPrecisionError(f"unknown precision {str(text)!r}; use one of {known}") from None

    def __str__(self) -> str:
        return self.value


_ELEMENT_BYTES = {
    Precision.FP32: 4,
    Precision.TF32: 4,
    Precision.FP16: 2,
    Precision.BF16: 2,
    Precision.FP8: 1,
    Precision.INT8: 1,
}
_PRECISION_ALIASES = {
    "float32": "fp32",
    "f32": "fp32",
    "float": "fp32",
    "single": "fp32",
    "tensorfloat32": "tf32",
    "float16": "fp16",
    "f16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "brainfloat16": "bf16",
    "float8": "fp8",
    "f8": "fp8",
    "i8": "int8",
    "s8": "int8",
    "uint8": "int8",
}

RUNTIMES = (
    "tensorrt",
    "paddle-trt",
    "onnxruntime",
    "openvino",
    "pytorch-eager",
    "pytorch-compile",
    "tflite",
    "tvm",
    "unknown",
)

DISPATCH_OVERHEAD_US: Mapping[str, float] = MappingProxyType(
    {
        "tensorrt": 1.0,
        "paddle-trt": 1.5,
        "onnxruntime": 2.0,
        "openvino": 2.0,
        "pytorch-eager": 20.0,
        "pytorch-compile": 4.0,
        "tflite": 1.0,
        "tvm": 1.0,
        "unknown": 2.0,
    }
)
"""Microseconds the runtime's host side spends per kernel. Eager PyTorch's, with a GPU's 5, is what NeuSight's smallest
operators take (25 on P4, T4 and A100) and about what HELP's smallest networks do; the others are orders of magnitude to
start a model from."""

CALLS_KERNELS = frozenset(("onnxruntime", "openvino"))
"""Runtimes whose kernels on a CPU are functions that they call, with no dispatch to speak of: between 0.4 and 2.3
microseconds a kernel in all, fitted to nine families of our own float measurements on one core."""

_RUNTIME_ALIASES = {
    "trt": "tensorrt",
    "paddletrt": "paddle-trt",
    "paddletensorrt": "paddle-trt",
    "ort": "onnxruntime",
    "pytorch": "pytorch-eager",
    "torch": "pytorch-eager",
    "eager": "pytorch-eager",
    "torchcompile": "pytorch-compile",
}
_NVIDIA_ONLY = ("tensorrt", "paddle-trt")

_RUNTIMES_BY_KEY = {re.sub(r"-", "", name): name for name in RUNTIMES} | _RUNTIME_ALIASES


def parse_runtime(text: str) -> tuple[str, str]:
    """Split "tensorrt-7.1" into ("tensorrt", "7.1"); the version is "" where none is given.

    Raises:
        PlatformError: no runtime of that name.
    """
    match = re.fullmatch(r"\s*([a-z](?:[a-z_ -]*[a-z])?)(?:[-_ ]v?(\d[\w.+-]*))?\s*", text.lower())
    name = _RUNTIMES_BY_KEY.get(re.sub(r"[_ -]", "", match.group(1))) if match else None
    if match is None or name is None:
        raise PlatformError(
            f"unknown runtime {text!r}; use one of {', '.join(RUNTIMES)}, with a version if known (tensorrt-8.6)"
        )
    return name, match.group(2) or ""


def default_runtime(device: Device) -> str:
    """The runtime assumed where none is asked for: TensorRT on NVIDIA GPUs, ONNX Runtime on CPUs and other GPUs,
    TensorFlow Lite on mobile processors, unknown on accelerators."""
    if device.kind == "gpu":
        return "tensorrt" if _is_nvidia(device) else "onnxruntime"
    return {"cpu": "onnxruntime", "mobile": "tflite"}.get(device.kind, "unknown")


def supported_precisions(device: Device) -> tuple[Precision, ...]:
    """The precisions for which the spec sheet gives a throughput."""
    return tuple(p for p in Precision if p.value in device.peak_vector or p.value in device.peak_matrix)


@dataclass(frozen=True)
class Platform:
    """A device at a precision under a runtime. Rates are tera-operations per second, a multiply-add being two."""

    device: Device
    precision: Precision
    runtime: str
    runtime_version: str = ""

    @property
    def name(self) -> str:
        """A stable identifier, `t4/int8/tensorrt-8.6`."""
        return f"{self.device.name}/{self.precision.value}/{self.runtime_label}"

    @property
    def runtime_label(self) -> str:
        """The runtime with its version, as `parse_runtime` reads it."""
        return f"{self.runtime}-{self.runtime_version}" if self.runtime_version else self.runtime

    @property
    def element_bytes(self) -> int:
        """Bytes of one weight or activation element."""
        return self.precision.bytes

    @property
    def elem_width(self) -> int:
        """Bits of one weight or activation element."""
        return 8 * self.element_bytes

    @property
    def bandwidth_gbs(self) -> float:
        """Memory bandwidth in 10^9 bytes per second."""
        return self.device.bandwidth_gbs

    @property
    def allows_tf32(self) -> bool:
        """Whether fp32 matrix products and convolutions run on TF32 tensor cores.

        True for fp32 on devices with TF32 under TensorRT (on by default since 7.1, the first release for such
        devices), Paddle with TensorRT, and ONNX Runtime (`use_tf32` defaults to on). PyTorch allows it for
        convolutions only (`torch.backends.cudnn.allow_tf32` is on, `cuda.matmul.allow_tf32` off); see `conv_tflops`.
        """
        if self.precision is not Precision.FP32 or "tf32" not in self.device.peak_matrix:
            return False
        if self.runtime == "tensorrt" and self.runtime_version:
            return _version(self.runtime_version) >= (7, 1)
        return self.runtime in ("tensorrt", "paddle-trt", "onnxruntime")

    @property
    def matrix_tflops(self) -> float:
        """Rate of Gemm and MatMul: matrix units where the device has them at this precision, else `vector_tflops`.

        Half precision with fp32 accumulation. fp32 is TF32 where `allows_tf32`.
        """
        matrix = self.device.peak_matrix
        if self.allows_tf32:
            return max(matrix["tf32"], self.vector_tflops)
        return matrix.get(self.precision.value) or self.vector_tflops

    @property
    def conv_tflops(self) -> float:
        """Rate of convolutions: `matrix_tflops`, except that PyTorch runs fp32 convolutions in TF32 where it can."""
        tf32 = self.device.peak_matrix.get("tf32")
        if tf32 and self.precision is Precision.FP32 and self.runtime.startswith("pytorch"):
            return max(tf32, self.vector_tflops)
        return self.matrix_tflops

    @property
    def vector_tflops(self) -> float:
        """Rate of elementwise, pooling and normalisation kernels on the plain lanes.

        Where arithmetic at the precision is slower than fp32 or missing, values are stored in the precision and
        computed in fp32. Devices without a vector rate run everything at the matrix rate.
        """
        vector = self.device.peak_vector
        if not vector:
            return self.device.peak_matrix[self.precision.value]
        return max(vector.get(self.precision.value, 0.0), vector.get("fp32", 0.0)) or max(vector.values())

    @property
    def peak_tflops(self) -> float:
        """The fastest arithmetic a runtime could pick without narrowing the precision: for physical bounds.

        Counts half precision accumulation, TF32 for fp32 and, for int8, wider types where they are faster (V100).
        """
        keys = _AT_LEAST_AS_WIDE[self.precision]
        peaks = (self.device.peak_vector, self.device.peak_matrix)
        return max(table[key] for table in peaks for key in keys if key in table)

    @property
    def has_matrix_units(self) -> bool:
        """Whether matrix products run on units of their own at this precision and runtime."""
        return self.allows_tf32 or self.precision.value in self.device.peak_matrix

    @property
    def launch_overhead_us(self) -> float:
        """Microseconds per kernel besides its work: the device's launch plus the runtime's dispatch."""
        if self.device.kind == "cpu" and self.runtime in CALLS_KERNELS:
            return self.device.launch_overhead_us
        return self.device.launch_overhead_us + DISPATCH_OVERHEAD_US[self.runtime]

    def supports(self, precision: str | Precision) -> bool:
        """Whether the device has a throughput at `precision`."""
        return Precision.parse(precision) in supported_precisions(self.device)


_WIDE = ("fp32", "tf32")
_HALF = (*_WIDE, "fp16", "fp16_fp16acc", "bf16")
_AT_LEAST_AS_WIDE: dict[Precision, tuple[str, ...]] = {
    Precision.FP32: _WIDE,
    Precision.TF32: _WIDE,
    Precision.FP16: _HALF,
    Precision.BF16: _HALF,
    Precision.FP8: (*_HALF, "fp8", "fp8_fp16acc"),
    Precision.INT8: (*_HALF, "int8"),
}


def resolve(
    target: str | os.PathLike[str] | Device, precision: str | Precision = "fp32", runtime: str | None = None
) -> Platform:
    """The platform of a device name, alias or spec sheet, a precision and a runtime ("tensorrt-8.6").

    Without a runtime, `default_runtime` decides.

    Raises:
        UnknownDeviceError, MissingSpecError: as `load_device`.
        UnsupportedPrecisionError: the device has no throughput at the precision.
        PlatformError: unknown runtime, or one that cannot run on the device.
    """
    device = target if isinstance(target, Device) else load_device(target)
    wanted = Precision.parse(precision)
    supported = supported_precisions(device)
    if wanted not in supported:
        names = ", ".join(p.value for p in supported)
        raise UnsupportedPrecisionError(f"{device.name} has no throughput at {wanted.value}; use one of {names}")
    name, version = parse_runtime(runtime) if runtime else (default_runtime(device), "")
    if name in _NVIDIA_ONLY and not (device.kind == "gpu" and _is_nvidia(device)):
        raise PlatformError(f"{name} does not run on {device.name}; use --runtime {default_runtime(device)}")
    return Platform(device, wanted, name, version)


def _is_nvidia(device: Device) -> bool:
    return device.vendor.casefold() == "nvidia"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])

"""Random weights and inputs for models that came without.

Values follow a seed, so a graph measured twice is the same network. Magnitudes keep activations in range: arithmetic
on infinities is as fast as on others, on denormals it is many times slower, which no trained network shows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from costmodel.errors import DynamicShapeError, ModelLoadError

_POOL = 1 << 20
_NORMS = {"BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization"}
_MAX_PROTO = 2**31 - 1


class RandomTensors:
    """Normal values from one pool of 2^20, repeated as long as needed: large models fill at memory speed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    @cached_property
    def _pool(self) -> np.ndarray:
        return self.rng.standard_normal(_POOL, dtype=np.float32)

    def normal(self, count: int, scale: float, mean: float = 0.0) -> np.ndarray:
        """`count` float32 values around `mean`, starting at a random place of the pool."""
        values = np.resize(np.roll(self._pool, int(self.rng.integers(_POOL))), count)
        values *= np.float32(scale)
        if mean:
            values += np.float32(mean)
        return values


def fill_weights(model: onnx.ModelProto, folder: str | os.PathLike[str] | None, seed: int) -> None:
    """Gives every external tensor its data: from its file in `folder` if that is there, else random.

    Raises ModelLoadError if the result is over 2 GiB, which a serialised ONNX model cannot be.
    """
    external = [t for t in _tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]
    size = sum(math.prod(t.dims) * np.dtype(helper.tensor_dtype_to_np_dtype(t.data_type)).itemsize for t in external)
    if size + model.ByteSize() > _MAX_PROTO:
        raise ModelLoadError(f"the model's weights take {size / 2**30:.1f} GiB; measure models of less than 2 GiB")
    uses = _uses(model.graph)
    values = RandomTensors(seed)
    for tensor in external:
        if folder is not None and _read_file(tensor, Path(folder)):
            continue
        tensor.raw_data = _values(tensor, uses.get(tensor.name), values)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _read_file(tensor: TensorProto, folder: Path) -> bool:
    place = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
    if not place or not (folder / place).is_file():
        return False
    onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
    return True


def _uses(graph: onnx.GraphProto) -> dict[str, tuple[onnx.NodeProto, int]]:
    """Tensor name → first node that reads it and the place among that node's inputs."""
    found: dict[str, tuple[onnx.NodeProto, int]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            found.setdefault(name, (node, place))
    return found


def _values(tensor: TensorProto, use: tuple[onnx.NodeProto, int] | None, values: RandomTensors) -> bytes:
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    count = math.prod(tensor.dims)
    if dtype == np.bool_:
        return np.ones(count, np.bool_).tobytes()
    if dtype in (np.int8, np.uint8):
        return values.rng.integers(0, 256, count, dtype=np.uint8).tobytes()
    if dtype.kind in "iu":
        return bytes(count * dtype.itemsize)  # 0 is a valid index, shape-free and safe
    mean, scale = _moments(tuple(tensor.dims), use)
    return values.normal(count, scale, mean).astype(dtype, copy=False).tobytes()


def _moments(dims: tuple[int, ...], use: tuple[onnx.NodeProto, int] | None) -> tuple[float, float]:
    """Mean and standard deviation: (0, √(2/fan-in)) for weights (He et al. 2015), near 1 for scales and variances."""
    op, place = (use[0].op_type, use[1]) if use else ("", 0)
    if op in _NORMS and (place == 1 or (op == "BatchNormalization" and place == 4)):
        return 1.0, 0.02
    if len(dims) < 2 or op in ("Gather", "Add"):
        return 0.0, 0.02
    if op == "Gemm" and use is not None:
        transposed = any(a.name == "transB" and a.i for a in use[0].attribute)
        fan_in = dims[1] if transposed else dims[0]
    elif op == "MatMul":
        fan_in = dims[-2] if place else dims[-1]
    elif op == "ConvTranspose":
        fan_in = dims[0] * math.prod(dims[2:])
    else:
        fan_in = math.prod(dims[1:])
    return 0.0, math.sqrt(2 / max(fan_in, 1))


def bind_shapes(model: onnx.ModelProto, batch: int | None, shapes: Mapping[str, int | tuple[int, ...]]) -> None:
    """Makes every input's shape static, in place, and forgets what the file says of later shapes.

    The leading axis becomes `batch` (1 if it is symbolic and None is given) of inputs whose leading axis is symbolic
    or, if `batch` is given, equals that of the first input. Raises DynamicShapeError naming axes that nothing binds.
    """
    weights = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    first = next((i.type.tensor_type.shape.dim[0] for i in inputs if i.type.tensor_type.shape.dim), None)
    symbol, size = (first.dim_param, first.dim_value) if first is not None else ("", 0)
    unbound: list[str] = []
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        whole = shapes.get(value.name)
        if isinstance(whole, tuple):
            if len(whole) != len(dims):
                raise DynamicShapeError(f"input {value.name!r} has {len(dims)} axes; give its --shape as many numbers")
            for dim, given in zip(dims, whole, strict=True):
                dim.dim_value = given
            continue
        for axis, dim in enumerate(dims):
            bound = shapes.get(dim.dim_param) if dim.dim_param else None
            leading = axis == 0 and (dim.dim_param == symbol if symbol else bool(batch) and dim.dim_value == size)
            if isinstance(bound, int):
                dim.dim_value = bound
            elif leading:
                dim.dim_value = batch or 1
            elif not dim.dim_value:
                unbound.append(dim.dim_param or f"{value.name}[{axis}]")
    if unbound:
        names = ", ".join(dict.fromkeys(unbound))
        raise DynamicShapeError(f"axes {names} are not bound; give --shape {unbound[0]}=N", tuple(unbound))
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def make_inputs(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Random feeds of a model whose input shapes are static: normal floats, indices within the table they look up."""
    rng = np.random.default_rng(seed)
    weights = {t.name: t for t in model.graph.initializer}
    rows = {
        node.input[1]: weights[node.input[0]].dims[0]
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in weights and weights[node.input[0]].dims
    }
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if dtype.kind in "iu" and value.name in rows:
            feeds[value.name] = rng.integers(0, rows[value.name], shape).astype(dtype)
        elif dtype in (np.uint8, np.int8):
            feeds[value.name] = rng.integers(0, 127, shape).astype(dtype)
        elif dtype.kind in "iub":
            feeds[value.name] = np.ones(shape, dtype)
        else:
            feeds[value.name] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    return feeds

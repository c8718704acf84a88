"""Binds the symbolic axes of a model's inputs: batch, and whatever `--shape` names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import ModelProto, ValueInfoProto

from costmodel.errors import DynamicShapeError, InputError
from costmodel.ir import DType
from frontends.onnx_values import Spec, Value, dtype_of

_BATCH_NAME = re.compile(r"(n|b|bs|bsz|batch|batch_?size|batch_?dim|n_?batch|num_?batch|.*batch.*)", re.IGNORECASE)


@dataclass
class Binding:
    """Inputs with static shapes.

    inputs   name → (shape, type) of every input fed at run time, in order
    symbols  symbolic dimension → its value
    rebatch  (exported, wanted) batch if the model has a fixed one and another is asked for
    """

    inputs: dict[str, Spec]
    symbols: dict[str, int] = field(default_factory=dict)
    rebatch: tuple[int, int] | None = None

    def check_output(self, declared: ValueInfoProto, value: Value) -> None:
        """InputError if an output that leads with the exported batch does not lead with the wanted one."""
        if self.rebatch is None or value.items is not None:
            return
        dims = declared.type.tensor_type.shape.dim
        old, new = self.rebatch
        if dims and dims[0].dim_value == old and value.shape[:1] != (new,) and not value.const:
            raise InputError(
                f"the model is exported for batch {old}: at batch {new} its output '{declared.name}' would be"
                f" {value.shape}; export it with a symbolic batch axis"
            )


def bind_inputs(model: ModelProto, batch: int | None, shapes: Mapping[str, int | tuple[int, ...]]) -> Binding:
    """Static shapes of the inputs.

    The symbol on the leading axis is the batch, unless another one is named like one. Raises InputError for inputs
    that are not tensors, DynamicShapeError naming every axis left open.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch} is not positive; give --batch 1 or more")
    given = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in given]
    dims: dict[str, list[int | str]] = {}
    types: dict[str, DType] = {}
    for info in inputs:
        types[info.name], dims[info.name] = _declared(info)
    symbols = {k: v for k, v in shapes.items() if isinstance(v, int)}
    _apply_shapes(dims, {k: v for k, v in shapes.items() if not isinstance(v, int)}, symbols)
    batch_symbols = _batch_symbols(dims, symbols)
    for symbol in batch_symbols:
        symbols.setdefault(symbol, batch or 1)
    rebatch = None if batch_symbols else _rebatch(dims, batch, shapes)
    _check_named(shapes, dims, symbols)
    bound = {n: ([symbols.get(d, d) if isinstance(d, str) else d for d in s]) for n, s in dims.items()}
    _refuse_open(bound)
    static = {n: tuple(int(d) for d in s) for n, s in bound.items()}
    if rebatch:
        static = {n: (rebatch[1], *s[1:]) if s else s for n, s in static.items()}
    return Binding({n: (s, types[n]) for n, s in static.items()}, symbols, rebatch)


def _declared(info: ValueInfoProto) -> tuple[DType, list[int | str]]:
    """Type and dimensions of an input; an axis without a name gets `input:axis`."""
    kind = info.type.WhichOneof("value")
    if kind == "optional_type":
        inner = info.type.optional_type.elem_type
        kind, tensor = inner.WhichOneof("value"), inner.tensor_type
    else:
        tensor = info.type.tensor_type
    if kind != "tensor_type":
        raise InputError(
            f"input '{info.name}' is a {kind or 'value without a type'}; only tensor inputs can be lowered"
        )
    if not tensor.HasField("shape"):
        return dtype_of(tensor.elem_type, info.name), [f"{info.name}:?"]
    dims: list[int | str] = []
    for i, dim in enumerate(tensor.shape.dim):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
            dims.append(dim.dim_value)
        else:
            dims.append(dim.dim_param or f"{info.name}:{i}")
    return dtype_of(tensor.elem_type, info.name), dims


def _apply_shapes(
    dims: dict[str, list[int | str]], shapes: Mapping[str, tuple[int, ...]], symbols: dict[str, int]
) -> None:
    """Puts whole shapes given for inputs in place and learns the symbols they settle."""
    for name, shape in shapes.items():
        if name not in dims:
            continue
        if len(shape) != len(dims[name]) and dims[name] != [f"{name}:?"]:
            raise InputError(
                f"--shape {name}:{','.join(map(str, shape))} has {len(shape)} axes, the input has {len(dims[name])};"
                f" its axes are {dims[name]}"
            )
        for old, new in zip(dims[name], shape, strict=False):
            if isinstance(old, str) and symbols.setdefault(old, int(new)) != new:
                raise InputError(f"--shape binds '{old}' to {symbols[old]} and to {new}; give one value")
        dims[name] = [int(d) for d in shape]


def _batch_symbols(dims: dict[str, list[int | str]], symbols: Mapping[str, int]) -> set[str]:
    """Symbols that mean the batch: those named so, else whatever leads an input."""
    found = [(i, d) for shape in dims.values() for i, d in enumerate(shape) if isinstance(d, str) and d not in symbols]
    named = {d for _, d in found if ":" not in d and _BATCH_NAME.fullmatch(d)}
    return named | {d for i, d in found if i == 0 and not d.endswith(":?") and (not named or ":" in d)}


def _rebatch(
    dims: dict[str, list[int | str]], batch: int | None, shapes: Mapping[str, int | tuple[int, ...]]
) -> tuple[int, int] | None:
    leading = {shape[0] for shape in dims.values() if shape}
    fixed = [d for d in leading if isinstance(d, int)]
    if batch is None or fixed == [batch]:
        return None
    if len(leading) != 1 or len(fixed) != 1 or any(n in shapes for n in dims) or fixed[0] < 1:
        listed = ", ".join(f"{n} {s}" for n, s in dims.items()) or "none"
        raise InputError(
            f"--batch {batch} cannot be bound: the inputs ({listed}) share no leading batch axis;"
            " export the model with a symbolic batch axis or leave --batch out"
        )
    return fixed[0], batch


def _check_named(
    shapes: Mapping[str, int | tuple[int, ...]], dims: dict[str, list[int | str]], symbols: Mapping[str, int]
) -> None:
    names = {d for shape in dims.values() for d in shape if isinstance(d, str)}
    for name, value in shapes.items():
        if any(v < 0 for v in ((value,) if isinstance(value, int) else value)):
            raise InputError(f"--shape {name} has a negative dimension; give sizes of 0 or more")
        if name not in dims and name not in names:
            raise InputError(
                f"--shape names '{name}', which is neither an input nor a symbol of the model;"
                f" inputs are {sorted(dims)}, symbols {sorted(names)}"
            )


def _refuse_open(bound: Mapping[str, list[int | str]]) -> None:
    open_axes = sorted({d for shape in bound.values() for d in shape if isinstance(d, str)})
    if not open_axes:
        return
    flags = []
    for name, shape in bound.items():
        if any(isinstance(d, str) and (":" in d) for d in shape):
            flags.append(f"--shape {name}:{','.join('?' if isinstance(d, str) else str(d) for d in shape)}")
    flags += [f"--shape {symbol}=?" for symbol in open_axes if ":" not in symbol]
    raise DynamicShapeError(
        f"symbolic axes without a size: {', '.join(open_axes)}; give {' '.join(flags)}", tuple(open_axes)
    )

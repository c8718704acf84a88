"""Sizes of an exported program: symbolic axes bound, a fixed batch replaced, every call's result of known shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from costmodel.errors import DynamicShapeError, InputError, ShapeInferenceError

Dims = dict[str, list[int | str]]

_SHAPED = {"view": 1, "reshape": 1, "_unsafe_view": 1, "expand": 1, "_unsafe_reshape": 1}
_FACTORIES = {"zeros": 0, "ones": 0, "full": 0, "empty": 0, "rand": 0, "randn": 0, "new_zeros": 1, "new_ones": 1,
              "new_full": 1, "new_empty": 1}  # fmt: skip
_CHECKS = frozenset(("_assert_async", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size"))


def static_values(program: Any, batch: int | None, shapes: Mapping[str, int | tuple[int, ...]]) -> tuple[Any, dict]:
    """The program and, for every node of its graph, torch's stand-in for the result with all sizes numbers.

    Raises DynamicShapeError naming every axis left open, InputError if the program does not take the sizes.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch} is not positive; give --batch 1 or more")
    dims = _input_dims(program)
    bound = _bind(dims, batch, shapes)
    leading = _batches(dims, bound)
    values = {node: node.meta.get("val") for node in program.graph.nodes}
    if bound == dims and not any(_is_symbolic(v) for v in values.values()):
        return program, values
    program = program.run_decompositions({})
    return program, _rerun(program, bound, leading)


def _input_dims(program: Any) -> Dims:
    """Sizes of each user input, symbols by name; an expression of symbols counts as a symbol of its own."""
    found: Dims = {}
    users = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name in users and hasattr(value, "shape"):
            found[node.name] = [d if isinstance(d, int) else str(d.node.expr) for d in value.shape]
    return found


def _bind(dims: Dims, batch: int | None, shapes: Mapping[str, int | tuple[int, ...]]) -> Dims:
    symbols = {k: int(v) for k, v in shapes.items() if isinstance(v, int)}
    bound: Dims = {name: list(shape) for name, shape in dims.items()}
    known = {d for shape in dims.values() for d in shape if isinstance(d, str)}
    for name, given in shapes.items():
        if name not in dims and name not in known:
            raise InputError(
                f"--shape names '{name}', which is neither an input nor a symbol of the program; inputs are"
                f" {sorted(dims)}, symbols {sorted(known)}"
            )
        if isinstance(given, int):
            continue
        if len(given) != len(dims[name]):
            raise InputError(f"--shape {name} has {len(given)} axes, the input has {len(dims[name])}: {dims[name]}")
        for old, new in zip(dims[name], given, strict=True):
            if isinstance(old, str) and symbols.setdefault(old, int(new)) != new:
                raise InputError(f"--shape binds '{old}' to {symbols[old]} and to {new}; give one value")
        bound[name] = [int(d) for d in given]
    leading = {shape[0] for shape in dims.values() if shape}
    batch_symbols = {d for d in leading if isinstance(d, str)}
    for symbol in batch_symbols:
        symbols.setdefault(symbol, batch or 1)
    bound = {n: [symbols.get(d, d) if isinstance(d, str) else d for d in s] for n, s in bound.items()}
    _refuse_open(bound)
    if batch is not None and not batch_symbols and not any(n in shapes for n in dims) and leading != {batch}:
        if len(leading) != 1:
            raise InputError(
                f"--batch {batch} cannot be bound: the inputs ({dims}) share no leading batch axis; export the program"
                " with a dynamic batch axis or leave --batch out"
            )
        bound = {n: [batch, *s[1:]] if s else s for n, s in bound.items()}
    return bound


def _refuse_open(bound: Dims) -> None:
    places = {d: f"{n} axis {i}" for n, s in bound.items() for i, d in enumerate(s) if isinstance(d, str)}
    if not places:
        return
    flags = [f"--shape {n}:{','.join('?' if isinstance(d, str) else str(d) for d in s)}"
             for n, s in bound.items() if any(isinstance(d, str) for d in s)]  # fmt: skip
    listed = ", ".join(f"{symbol} ({place})" for symbol, place in sorted(places.items()))
    raise DynamicShapeError(f"symbolic axes without a size: {listed}; give {' '.join(flags)}", tuple(sorted(places)))


def _batches(dims: Dims, bound: Dims) -> tuple[int, int] | None:
    """(exported, wanted) batch where a fixed one is replaced."""
    for name, shape in dims.items():
        if shape and isinstance(shape[0], int) and shape[0] != bound[name][0]:
            return shape[0], int(bound[name][0])
    return None


def _is_symbolic(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_is_symbolic(v) for v in value)
    if hasattr(value, "shape"):
        return any(not isinstance(d, int) for d in value.shape)
    return type(value).__name__ in ("SymInt", "SymFloat", "SymBool")


def _rerun(program: Any, bound: Dims, batches: tuple[int, int] | None) -> dict[Any, Any]:
    """Runs the graph on memory-less tensors of the bound sizes."""
    import torch
    from torch._subclasses import FakeTensorMode

    values: dict[Any, Any] = {}

    class Runner(torch.fx.Interpreter):
        """Keeps every result; assertions on sizes are skipped."""

        def run_node(self, n: Any) -> Any:
            values[n] = super().run_node(n)
            return values[n]

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            name = str(getattr(target, "_schema", None) and target._schema.name).partition("::")[2]
            if name in _CHECKS:
                return None
            if name in ("nonzero", "masked_select", "_local_scalar_dense", "item") or _is_masked(name, args):
                return _largest(name, args)
            if batches is not None:
                args = _rebatched(name, args, *batches)
            return super().call_function(target, args, kwargs)

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    args = []
    with mode, torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "placeholder":
                value = node.meta.get("val")
                if hasattr(value, "shape"):
                    size = [int(d) for d in bound.get(node.name, value.shape)]
                    value = torch.empty(size, dtype=value.dtype, device=value.device)
                args.append(value)
        try:
            Runner(program.graph_module).run(*args, enable_io_processing=False)
        except (InputError, DynamicShapeError):
            raise
        except Exception as error:  # torch raises whatever the failing operator raises
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if batches is not None:
                raise InputError(
                    f"the program is exported for batch {batches[0]} and does not lower at batch {batches[1]}"
                    f" ({reason}); export it with a dynamic batch axis"
                ) from error
            raise ShapeInferenceError(f"the program does not run at the sizes given ({reason}); give others") from error
    return values


def _is_masked(name: str, args: Any) -> bool:
    """Whether a call picks the elements that pass one boolean mask."""
    places = [i for i in args[1] if i is not None] if name == "index" else []
    return len(places) == 1 and str(places[0].dtype) == "torch.bool"


def _largest(name: str, args: Any) -> Any:
    """Results whose size depends on the data are taken at their largest."""
    import torch

    x = args[0]
    if name == "nonzero":
        return torch.empty((x.numel(), x.dim()), dtype=torch.int64, device=x.device)
    if name == "masked_select":
        return torch.empty((math.prod(torch.broadcast_shapes(x.shape, args[1].shape)),), dtype=x.dtype, device=x.device)
    if name == "index":
        before = next(i for i, mask in enumerate(args[1]) if mask is not None)
        mask = args[1][before]
        size = (*x.shape[:before], mask.numel(), *x.shape[before + mask.dim() :])
        return torch.empty(size, dtype=x.dtype, device=x.device)
    raise DynamicShapeError(
        "a size depends on the data of a tensor; export the program with that size fixed", ("item",)
    )


def _rebatched(name: str, args: Any, old: int, new: int) -> Any:
    """Arguments of a call with the exported batch in a literal size replaced, where that makes it fit."""
    place = _SHAPED.get(name, _FACTORIES.get(name))
    if place is None or len(args) <= place or not isinstance(args[place], (list, tuple)) or not args[place]:
        return args
    size = [int(d) for d in args[place]]
    if name in _FACTORIES:
        again = [new, *size[1:]] if size[0] == old > 1 else size
    elif name == "expand":
        again = [new, *size[1:]] if size[0] == old and args[0].shape[:1] in ((1,), (new,)) else size
    else:
        again = _resized(args[0].shape, size, old, new)
    return (*args[:place], again, *args[place + 1 :])


def _resized(shape: Any, size: list[int], old: int, new: int) -> list[int]:
    total, fixed = math.prod(shape), math.prod(d for d in size if d != -1)
    fits = total == fixed if -1 not in size else fixed and total % fixed == 0
    ambiguous = -1 in size[1:] and size[0] == old and shape[:1] == (new,)
    if size[0] <= 0 or size[0] * new % old or (fits and not ambiguous):
        return size
    return [size[0] * new // old, *size[1:]]

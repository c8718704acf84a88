"""Reads torch modules, `torch.export` programs and `.pt2` files. torch is imported when needed.

Nothing is computed: modules are traced on tensors without memory, so a network of any size needs none, and the caller's
module keeps its weights, device and mode.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from costmodel.errors import InputError, ModelLoadError
from costmodel.ir import Graph
from frontends.torch_archive import ZIP_MAGIC, read

_INDEX_NAME = re.compile(r"(.*_)?(ids?|tokens?|mask|index|indices|labels?|lengths?)", re.IGNORECASE)


def sniff(head: bytes) -> bool:
    """Whether bytes from the start of a file are an archive as torch writes it."""
    return head.startswith(ZIP_MAGIC)


def load(
    source: Any,
    batch: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    strict: bool = False,
    example_inputs: Any = None,
) -> Graph:
    """Lowers a module, a program, or a `.pt2` file or its bytes.

    source          torch.nn.Module, torch.export.ExportedProgram, path, bytes
    batch, shapes   as for `frontends.load`; for a module, `shapes` may also give its inputs by argument name
    example_inputs  for a module: a tensor, a shape, a sequence of them, or a mapping from argument name to them;
                    only shapes and types of tensors are looked at

    Raises ModelLoadError if the file cannot be read or the module not be traced, and the errors of `frontends.load`.
    """
    try:
        import torch
    except ImportError as error:
        raise ModelLoadError("reading torch models needs torch; pip install 'ledg-cost[train]'") from error
    from frontends.torch_bind import static_values
    from frontends.torch_lower import lower

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if isinstance(source, torch.nn.Module):
            name = type(source).__name__
            program = trace(source, batch, shapes or {}, example_inputs)
            batch, shapes = None, None
        elif isinstance(source, torch.export.ExportedProgram):
            name, program = "program", source
        elif isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)):
            program, name = read(bytes(source) if isinstance(source, (bytearray, memoryview)) else source)
        else:
            raise ModelLoadError(
                f"{type(source).__name__} is not a torch model; give a module, a program or a .pt2 file"
            )
        program = _functional(program)
        program, values = static_values(program, batch, shapes or {})
        return lower(program, values, name, strict)


def trace(module: Any, batch: int | None, shapes: Mapping[str, Any], example_inputs: Any) -> Any:
    """Exports a module in inference mode on tensors without memory.

    Raises ModelLoadError if torch.export cannot trace it, InputError if its inputs are not given.
    """
    import torch

    args, kwargs = _inputs(module, batch, shapes, example_inputs)
    with _inference(module):
        try:
            return torch.export.export(module, args, kwargs, strict=False)
        except Exception as error:  # forward is the caller's code and may raise anything
            lines = str(error).strip().splitlines()
            reason = lines[0] if lines else type(error).__name__
            raise ModelLoadError(
                f"torch.export cannot trace {type(module).__name__} ({type(error).__name__}: {reason[:300]});"
                " check the example inputs and that forward does not branch on data"
            ) from error


@contextlib.contextmanager
def _inference(module: Any) -> Iterator[None]:
    """All submodules in evaluation mode, each back in its own mode afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        for m, _ in modes:
            m.training = False
        yield
    finally:
        for m, mode in modes:
            m.training = mode


def _inputs(
    module: Any, batch: int | None, shapes: Mapping[str, Any], example_inputs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments, tensors replaced by memory-less ones."""
    named: dict[str, Any] = {}
    positional: list[Any] = []
    if isinstance(example_inputs, Mapping):
        named = dict(example_inputs)
    elif example_inputs is not None:
        positional = _listed(example_inputs)
    parameters = [n for n in inspect.signature(module.forward).parameters if n != "self"]
    for name, shape in shapes.items():
        if name in parameters[: len(positional)]:
            positional[parameters.index(name)] = _reshaped(positional[parameters.index(name)], shape)
        elif name in parameters or name in named:
            named[name] = _reshaped(named.get(name), shape)
        else:
            raise InputError(
                f"--shape names '{name}', which forward of {type(module).__name__} does not take; it takes {parameters}"
            )
    if not positional and not named:
        raise InputError(
            f"{type(module).__name__} needs inputs to be traced; give example_inputs, or shapes by argument name, such"
            f" as {{'{parameters[0] if parameters else 'x'}': (1, 3, 224, 224)}}"
        )
    maker = _Maker(module)
    args = [maker.make(v, parameters[i] if i < len(parameters) else "") for i, v in enumerate(positional)]
    kwargs = {k: maker.make(v, k) for k, v in named.items()}
    return maker.at_batch(args, batch), dict(zip(kwargs, maker.at_batch(list(kwargs.values()), batch), strict=True))


def _reshaped(given: Any, shape: Any) -> Any:
    if hasattr(given, "new_empty"):
        return given.new_empty(shape, device="meta")
    return tuple(shape)


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(type(d) is int for d in value)


def _listed(example_inputs: Any) -> list[Any]:
    if hasattr(example_inputs, "shape") or _is_shape(example_inputs):
        return [example_inputs]
    if isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        return list(example_inputs)
    raise InputError(
        f"example_inputs of type {type(example_inputs).__name__} are not understood; give tensors, shapes or a mapping"
    )


class _Maker:
    """Makes a module's inputs where and as its parameters are: on their device, fake if they are fake."""

    def __init__(self, module: Any) -> None:
        import torch
        from torch._subclasses import FakeTensor, FakeTensorMode

        held = [*module.parameters(), *module.buffers()]
        fake = next((t for t in held if isinstance(t, FakeTensor)), None)
        self.device = held[0].device if held else torch.device("cpu")
        self.dtype = next((t.dtype for t in held if t.dtype.is_floating_point), torch.float32)
        meta = fake is None and self.device.type == "meta"
        self.mode: Any = contextlib.nullcontext() if meta else fake.fake_mode if fake is not None else FakeTensorMode()

    def make(self, value: Any, name: str) -> Any:
        """A memory-less tensor for a tensor or a shape; containers are searched, other values pass."""
        import torch

        if isinstance(value, torch.Tensor):
            return self.empty(value.shape, value.dtype)
        if _is_shape(value):
            return self.empty(value, torch.int64 if _INDEX_NAME.fullmatch(name) else self.dtype)
        if isinstance(value, (list, tuple)):
            return type(value)(self.make(v, name) for v in value)
        if isinstance(value, dict):
            return {k: self.make(v, k) for k, v in value.items()}
        return value

    def empty(self, shape: Any, dtype: Any) -> Any:
        """A tensor without memory."""
        import torch

        with self.mode:
            return torch.empty(tuple(shape), dtype=dtype, device=self.device)

    def at_batch(self, values: list[Any], batch: int | None) -> tuple[Any, ...]:
        """The values with their leading axes set to the batch."""
        import torch

        if batch is None:
            return tuple(values)
        if batch < 1:
            raise InputError(f"batch {batch} is not positive; give --batch 1 or more")
        tensors = [v for v in values if isinstance(v, torch.Tensor) and v.dim()]
        if len({t.shape[0] for t in tensors}) > 1:
            raise InputError(
                f"--batch {batch} cannot be bound: the inputs {[tuple(t.shape) for t in tensors]} share no leading"
                " batch axis; give example inputs of the batch you want"
            )
        return tuple(
            self.empty((batch, *v.shape[1:]), v.dtype) if isinstance(v, torch.Tensor) and v.dim() else v for v in values
        )


def _functional(program: Any) -> Any:
    """The program without writes into tensors that other names still see, and without wrapped bodies.

    Writes into a fresh result, such as an in-place activation, are left: lowering follows them.
    """
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            if getattr(node.target, "__name__", "").startswith("wrap_with"):
                return program.run_decompositions({})
        elif schema.is_mutable and not _writes_fresh(node):
            return program.run_decompositions({})
    return program


_VIEWS = re.compile(
    r"view|reshape|permute|transpose|^t$|select|slice|narrow|expand|squeeze|split|chunk|unbind|flatten|diagonal|detach|alias"
    r"|as_strided|unfold|contiguous|^to$|getitem|dropout|mT|movedim|swap"
)


def _writes_fresh(node: Any) -> bool:
    """Whether a call writes only into a result that nothing but later calls reads, or a buffer that nothing reads."""
    target: Any = node.args[0] if node.args else None
    if not hasattr(target, "op") or not node.target._schema.name.endswith("_"):
        return False
    if target.op == "placeholder":
        return len(target.users) == 1 and not node.users
    if target.op != "call_function":
        return False
    if _VIEWS.search(_short_name(target)):
        return False
    order = {n: i for i, n in enumerate(node.graph.nodes)}
    return not any(_VIEWS.search(_short_name(u)) and order[u] < order[node] for u in target.users)


def _short_name(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema is not None else getattr(node.target, "__name__", "")

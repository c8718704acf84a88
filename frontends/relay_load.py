"""Entry of the Relay frontend: text, JSON, a file of either, or a live `tvm.relay` module or function.

Which parameters of `main` are weights is decided in `frontends.relay_finish`. Constants of a text without metadata
have the types that operators and comments state; `shapes` may give others by key (`meta[relay.Constant][3]`).

`batch` changes the leading axis of the inputs. Declared types inside the program are then inferred anew, and literal
shapes (reshape, zeros, broadcast_to) that begin with the old batch follow. What it cannot follow is a batch folded into
another literal, such as a reshape to (batch * tokens, width): that fails with the shapes that disagree.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from costmodel.errors import (
    DynamicShapeError,
    InputError,
    ModelLoadError,
    ShapeInferenceError,
    UnsupportedOpError,
)
from costmodel.ir import Graph
from frontends.relay_ast import (
    Block,
    Call,
    Const,
    Expr,
    Func,
    GlobalRef,
    Hole,
    If,
    Match,
    Module,
    OpRef,
    Proj,
    TensorType,
    TupleExpr,
    Var,
    resolve,
)
from frontends.relay_finish import finish, run_time
from frontends.relay_lower import Lowering
from frontends.relay_ops import CONVERTERS
from frontends.relay_ops_pointwise import BINARY
from frontends.relay_relations import MISFITS, RELATIONS
from frontends.relay_sniff import sniff
from frontends.relay_types import Inference, Rebatch
from frontends.relay_typetools import full

__all__ = ["load", "parse", "sniff"]

log = logging.getLogger("ledg_cost.frontends.relay")

Shapes = Mapping[str, "int | tuple[int, ...]"]


def parse(source: Any) -> Module:
    """The module of a path, text, bytes or live Relay object.

    Raises ModelLoadError if it cannot be read or has syntax errors.
    """
    from frontends.relay_json import parse_json
    from frontends.relay_parse import parse_text

    text = _text(source)
    try:
        return parse_json(text) if text.lstrip()[:1] == "{" else parse_text(text)
    except RecursionError:
        raise ModelLoadError("the Relay program nests too deep; bind inner expressions to names") from None
    except MISFITS as error:
        detail = " ".join(str(error).split())[:80]
        raise ModelLoadError(
            f"the Relay file is damaged ({type(error).__name__}: {detail}); save it again with astext() or save_json"
        ) from None


def _text(source: Any) -> str:
    if hasattr(source, "astext"):
        try:
            return str(source.astext(show_meta_data=True))
        except TypeError:
            return str(source.astext())
    if isinstance(source, (bytes, bytearray, memoryview)):
        raw = bytes(source)
    else:
        try:
            raw = Path(source).read_bytes()
        except (OSError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ModelLoadError(f"'{str(source)[:200]}' cannot be read ({reason}); check the path") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ModelLoadError("the Relay file is not UTF-8 text; save it with astext() or tvm.ir.save_json") from None


def load(source: Any, batch: int | None = None, shapes: Shapes | None = None, strict: bool = False) -> Graph:
    """Lowers a Relay program to the IR.

    source  path, bytes, or an object with `astext()` (tvm.IRModule of an old TVM, relay.Function)
    batch   size of the leading axis of the inputs
    shapes  parameter name → shape, for `?` axes and other sizes; constant key → shape, where the text lacks it
    strict  refuse operators without a lowering, and constants whose shape had to be assumed

    Raises ModelLoadError for syntax, DynamicShapeError for `?` axes left open, ShapeInferenceError where types
    contradict each other or are missing, UnsupportedOpError for operators (all at once) whose type is not known or,
    under `strict`, whose arithmetic is not.
    """
    module = parse(source)
    name = _entry(module)
    try:
        return _lower(module, name, batch, dict(shapes or {}), strict)
    except RecursionError:
        raise InputError("the Relay program nests or recurses too deep; bind inner expressions to names") from None


def _entry(module: Module) -> str:
    if "main" in module.functions:
        return "main"
    if len(module.functions) == 1:
        return next(iter(module.functions))
    if not module.functions:
        raise ModelLoadError("the Relay program has no function; give one with @main")
    names = ", ".join(f"@{n}" for n in list(module.functions)[:5])
    raise ModelLoadError(f"the Relay program has {names} but no @main; rename the entry function to @main")


def _lower(module: Module, name: str, batch: int | None, shapes: dict[str, Any], strict: bool) -> Graph:
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch} is not positive; give 1 or more")
    func = module.functions[name]
    reachable = list(_reachable(module, func))
    _check_operators(reachable, strict)
    change = None
    keep, old = _bind_shapes(func, shapes)
    if keep:
        change = Rebatch(*old)
    if batch is not None:
        change = _rebatch(module, name, batch, reachable, shapes) or change
    inference = Inference(module, change)
    inference.run([name])
    _open_constants(inference, reachable, shapes, strict)
    _require_static(func)
    lowering = Lowering(module, change)
    inputs, outputs = lowering.run(name)
    return finish(lowering.to.nodes, inputs, outputs, name, keep)


def _reachable(module: Module, func: Func) -> Iterator[Expr]:
    """Every expression of a function and of those it calls, each once."""
    waiting: list[Expr] = [func]
    seen: set[int] = set()
    while waiting:
        e = waiting.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        yield e
        if isinstance(e, Func):
            waiting.append(e.body)
        elif isinstance(e, Block):
            waiting += [value for _, value in e.steps] + [e.result]
        elif isinstance(e, Call):
            waiting += [e.fn, *e.args]
        elif isinstance(e, TupleExpr):
            waiting += e.fields
        elif isinstance(e, Proj):
            waiting.append(e.tuple)
        elif isinstance(e, If):
            waiting += [e.cond, e.then, e.other]
        elif isinstance(e, Match):
            waiting += [e.data, *(body for _, body in e.clauses)]
        elif isinstance(e, GlobalRef) and e.name in module.functions:
            waiting.append(module.functions[e.name])


def _check_operators(reachable: list[Expr], strict: bool) -> None:
    """Raises UnsupportedOpError with all operators that cannot be typed or, under strict, lowered."""
    missing: Counter[str] = Counter()
    for e in reachable:
        if isinstance(e, Call) and isinstance(e.fn, OpRef) and e.fn.name not in ("ref", "ref_read", "ref_write"):
            untyped = e.fn.name not in RELATIONS and e.note is None
            if untyped or (strict and e.fn.name not in CONVERTERS):
                missing[e.fn.name] += 1
    if missing:
        names = ", ".join(f"{op} ({count})" for op, count in missing.most_common(8))
        fix = "leave out strict to keep them as opaque nodes" if strict else "print the program after InferType"
        raise UnsupportedOpError(f"Relay operators without a lowering: {names}; {fix}", dict(missing))


def _bind_shapes(func: Func, shapes: dict[str, Any]) -> tuple[list[str], tuple[int | None, int]]:
    """Gives parameters the shapes asked for; returns their names and the change of their leading axis."""
    bound: list[str] = []
    moved: tuple[int | None, int] = (None, 0)
    for param in func.params:
        wanted = shapes.get(param.name, shapes.get("%" + param.name))
        if wanted is None:
            continue
        sizes = (wanted,) if isinstance(wanted, int) else tuple(wanted)
        declared = resolve(param.annotation)
        if isinstance(declared, TensorType) and len(declared.shape) != len(sizes):
            raise InputError(
                f"--shape {param.name} has {len(sizes)} axes, the parameter {len(declared.shape)}; give one per axis"
            )
        if any(not isinstance(d, int) or d < 0 for d in sizes):
            raise InputError(f"--shape {param.name}={sizes} is not a shape; give non-negative integers")
        old = _leading(declared)
        if sizes and old is not None and old != sizes[0] and moved[0] is None:
            moved = (old, sizes[0])
        param.annotation = TensorType(sizes, declared.dtype if isinstance(declared, TensorType) else "float32")
        bound.append(param.name)
    return bound, moved


def _rebatch(module: Module, name: str, batch: int, reachable: list[Expr], shapes: dict[str, Any]) -> Rebatch | None:
    """Sets the leading axis of the inputs; None if it has that size already.

    The inputs are known once the program was lowered as it stands; with `?` in front they are the parameters with it.
    """
    func = module.functions[name]
    open_axes = [p for p in func.params if _leading(p.annotation) is None and _is_tensor(p.annotation)]
    if open_axes:
        for param in open_axes:
            _set_leading(param, batch)
        return Rebatch(None, batch)
    inference = Inference(module)
    inference.run([name])
    _open_constants(inference, reachable, shapes, False)
    trial = Lowering(module)
    inputs, outputs = trial.run(name)
    fed = {t.name for t in run_time(trial.to.nodes, inputs, outputs)}
    read = {t.name for node in trial.to.nodes for t in node.inputs if t is not None and t.origin == "main"}
    fed |= {t.name for t in inputs} - read
    batched = [p for p in func.params if p.name in fed and _leading(p.annotation) is not None]
    if not batched:
        raise InputError("the Relay program has no input with a leading axis; leave out the batch size")
    old = _leading(batched[0].annotation)
    _forget(module)
    if old is None or old == batch:
        return None
    for param in batched:
        if _leading(param.annotation) == old:
            _set_leading(param, batch)
    return Rebatch(old, batch)


def _is_tensor(ty: Any) -> bool:
    ty = resolve(ty)
    return isinstance(ty, TensorType) and bool(ty.shape)


def _leading(ty: Any) -> int | None:
    ty = resolve(ty)
    return ty.shape[0] if isinstance(ty, TensorType) and ty.shape else None


def _set_leading(param: Var, batch: int) -> None:
    ty = resolve(param.annotation)
    if isinstance(ty, TensorType):
        param.annotation = TensorType((batch, *ty.shape[1:]), ty.dtype)


def _forget(module: Module) -> None:
    """Drops inferred types, so that inference can run again."""
    for func in module.functions.values():
        for e in _reachable(module, func):
            e.ty = None
            if isinstance(e, Func):
                for param in e.params:
                    param.ty = None
            elif isinstance(e, Block):
                for var, _ in e.steps:
                    var.ty = None
            elif isinstance(e, Match):
                for pattern, _ in e.clauses:
                    for var in pattern.variables():
                        var.ty = None


def _open_constants(inference: Inference, reachable: list[Expr], shapes: dict[str, Any], strict: bool) -> None:
    """Types for constants that the program leaves open: those given in `shapes`, and operands whose result is known.

    An element-wise operand whose other side and result are known changes no other type; it is taken as one value per
    channel, and reported. Raises ShapeInferenceError that names all that remain.
    """
    calls = [e for e in reachable if isinstance(e, Call) and any(_is_open(a) for a in e.args)]
    for call in calls:
        for arg in call.args:
            if isinstance(arg, Const) and arg.key in shapes and _is_open(arg):
                sizes = shapes[arg.key]
                dtypes = [t.dtype for t in map(_tensor_type, call.args) if t is not None]
                shape = (sizes,) if isinstance(sizes, int) else tuple(sizes)
                arg.type = TensorType(shape, dtypes[0] if dtypes else "float32")
                inference.unify(arg.ty, arg.type)
    inference.solve()
    assumed: list[str] = []
    for call in calls:
        result = _tensor_type(call)
        others = [t for t in map(_tensor_type, call.args) if t is not None]
        if isinstance(call.fn, OpRef) and call.fn.name in BINARY and result is not None and others and not strict:
            for arg in call.args:
                if isinstance(arg, Const) and _is_open(arg) and others[0].shape == result.shape:
                    rank = len(result.shape)
                    shape = result.shape[1:2] + (1,) * (rank - 2) if rank > 3 else result.shape[-1:]
                    arg.type = TensorType(shape, others[0].dtype)
                    inference.unify(arg.ty, arg.type)
                    assumed.append(arg.key)
    inference.solve()
    if assumed:
        log.warning("types of %s are not in the text; taken as one value per channel", ", ".join(assumed))
    missing = [a.key for call in reversed(calls) for a in call.args if isinstance(a, Const) and _is_open(a)]
    missing = list(dict.fromkeys(missing))
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ShapeInferenceError(
            f"Relay: the text does not tell the types of {shown}; print the module with its metadata, keep its type"
            f" comments, or give --shape '{missing[0]}=…'"
        )


def _is_open(e: Expr) -> bool:
    return isinstance(e, Const) and e.type is None and isinstance(resolve(e.ty), Hole)


def _tensor_type(e: Expr) -> TensorType | None:
    ty = resolve(e.ty)
    return ty if isinstance(ty, TensorType) else None


def _require_static(func: Func) -> None:
    """Raises DynamicShapeError that names every parameter with `?` axes."""
    found = []
    for param in func.params:
        ty = full(param.ty)
        if isinstance(ty, TensorType) and None in ty.shape:
            found.append(param.name)
    if found:
        shown = ", ".join(f"%{n}" for n in found[:5])
        raise DynamicShapeError(
            f"parameters {shown} of the Relay program have `?` axes; give --batch or --shape {found[0]}=…", tuple(found)
        )

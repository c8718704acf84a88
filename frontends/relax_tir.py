"""Maps a call of a TIR function back to operators.

`LegalizeOps` and `FuseTIR` leave functions such as `conv2d3` or `fused_conv2d_add_relu` whose body is a sequence of
stages (blocks). The stages are read in order. Groups of them that belong to one operator (padding and convolution, the
four of a softmax, the sum and mean and variance of a layer normalisation…) are recognised by `relax_tir_stages` from
their accesses, helped by the names that TVM's operator library gives them; what is left is taken one stage at a time:
element-wise expressions become one node per operation, accesses that permute, slice or repeat become data movement.
A function with a stage that fits nothing is kept whole as an opaque node with its bytes, unless its name alone says
what it does (`topk`, `cumsum`, `scatter_elements`…).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from costmodel.errors import LedgCostError
from costmodel.ir import AttrValue, DType
from frontends.onnx_rules import Result
from frontends.onnx_values import Shape, Spec, Value
from frontends.relax_rules import ints, number
from frontends.relax_types import Symbols, dtype_of, kind
from frontends.tir_read import Block, Program, Reader

if TYPE_CHECKING:
    from frontends.relax_lower import RelaxLowering


_SUFFIX = re.compile(r"(_intermediate)?(_?\d+)*$")


class Unmapped(Exception):
    """A stage that no operator fits."""


class Padded:
    """A padding stage whose reader decides what becomes of it."""

    def __init__(self, value: Value, before: Shape, after: Shape, fill: float) -> None:
        self.value = value
        self.before = before
        self.after = after
        self.fill = fill


class Stages:
    """One call being mapped.

    blocks   the stages in order
    held     buffer → value, where it is known
    tokens   operator names in the function's name
    """

    def __init__(self, low: RelaxLowering, program: Program, name: str) -> None:
        self.low = low
        self.program = program
        self.blocks = list(program.blocks())
        self.kinds = [_SUFFIX.sub("", block.name) for block in self.blocks]
        self.held: dict[int, Value | Padded] = {}
        self.name = name
        self.tokens = set(re.sub(r"\d+", "", name).removeprefix("fused_").replace("tir_", "").split("_"))
        self.results: set[int] = set()

    def kind_at(self, i: int) -> str:
        """Name of stage i without its number and fusion suffix."""
        return self.kinds[i] if i < len(self.kinds) else ""

    def single(self, i: int) -> tuple[Block, int, Any, Any]:
        """Stage i with the buffer, indices and value of its only store."""
        block = self.blocks[i]
        if len(block.stores) != 1 or block.opaque or block.lets or block.body:
            raise Unmapped(block.name)
        key, indices, value = block.stores[0]
        return block, key, indices, value

    def value(self, key: int) -> Value:
        """What a buffer holds; padding that nobody absorbed becomes a Pad."""
        held = self.held.get(key)
        if held is None:
            raise Unmapped(self.program.buffers[key].name)
        if isinstance(held, Padded):
            pads = ints((*held.before, *held.after))
            fill = number(held.fill if abs(held.fill) < 3e38 else 0.0, held.value.dtype)
            held = self.low.apply("Pad", [held.value, pads, fill])[0]
            self.held[key] = held
        return held

    def unpadded(self, key: int, spatial: Sequence[int]) -> tuple[Value, Shape]:
        """What a buffer holds before padding of the given axes, and that padding as ONNX's pads."""
        held = self.held.get(key)
        if isinstance(held, Padded):
            others = [i for i in range(len(held.before)) if i not in spatial]
            if not any(held.before[i] or held.after[i] for i in others):
                return held.value, (*(held.before[i] for i in spatial), *(held.after[i] for i in spatial))
        return self.value(key), (0,) * (2 * len(spatial))

    def shape(self, key: int) -> Shape:
        """Sizes of a buffer."""
        return self.program.buffers[key].shape

    def dtype(self, key: int) -> DType:
        """Element type of a buffer."""
        return dtype_of(self.program.buffers[key].dtype)

    def apply(self, op: str, inputs: Sequence[Value | None], **attrs: Any) -> Value:
        """The result of an ONNX operator."""
        return self.low.apply(op, inputs, attrs)[0]

    def run(self) -> None:
        """Maps every stage; Unmapped if one fits nothing."""
        from frontends.relax_tir_pointwise import Pointwise
        from frontends.relax_tir_stages import MATCHERS

        i = 0
        while i < len(self.blocks):
            for matcher in MATCHERS:
                taken = matcher(self, i)
                if taken:
                    i += taken
                    break
            else:
                Pointwise(self, i).store()
                i += 1


def lower_call(
    low: RelaxLowering, name: str, function: Any, operands: Sequence[Value], specs: Sequence[Spec], sizes: Any = ()
) -> list[Value]:
    """Results of calling a TIR function on tensors.

    specs  declared shapes and types of the results
    sizes  values of the function's scalar parameters (symbolic sizes), in order
    """
    if function is None or kind(function) != "PrimFunc":
        return low.opaque(f"tvm.{name}", list(operands), list(specs))
    start = len(low.nodes)
    try:
        if low.rebatch is not None:
            raise Unmapped("its shapes are fixed")
        return _mapped(low, name, function, operands, specs, sizes)
    except (Unmapped, LedgCostError, ValueError, IndexError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        del low.nodes[start:]
    named = _by_name(low, name, operands, specs)
    return named if named is not None else low.opaque(f"tvm.{name}", list(operands), list(specs))


def _mapped(
    low: RelaxLowering, name: str, function: Any, operands: Sequence[Value], specs: Sequence[Spec], sizes: Any
) -> list[Value]:
    symbols = Symbols()
    symbols.sizes.update(low.symbols.sizes)
    written: dict[str, int] = {}
    scalars = [p for p in function.params if kind(p.ty) == "PrimType"]
    for scalar, size in zip(scalars, sizes if isinstance(sizes, tuple) else (), strict=False):
        symbols.bind(scalar, int(size))
    parameters = [p for p in function.params if kind(p.ty) == "BufferType"]
    if len(parameters) != len(operands) + len(specs):
        raise Unmapped(name)
    for parameter, shape in zip(parameters, [v.shape for v in operands] + [s for s, _ in specs], strict=False):
        for dim, size in zip(parameter.ty.shape, shape, strict=False):
            if kind(dim) == "Var" and not symbols.known(dim):
                symbols.bind(dim, size)
            written[str(dim)] = size
    program = Reader(lambda dim: written[str(dim)] if kind(dim) != "IntImm" and str(dim) in written
                     else symbols.value(dim)).program(function, name)  # fmt: skip
    stages = Stages(low, program, name)
    for buffer, value in zip(program.params, operands, strict=False):
        stages.held[buffer.key] = value
    stages.results = {b.key for b in program.params[len(operands) :]}
    stages.run()
    found = [stages.value(b.key) for b in program.params[len(operands) :]]
    if [(v.shape, v.dtype) for v in found] != list(specs):
        raise Unmapped(name)
    return found


def _by_name(low: RelaxLowering, name: str, operands: Sequence[Value], specs: Sequence[Spec]) -> list[Value] | None:
    """Operators whose bodies are not plain stages; only their names tell."""
    base = re.sub(r"\d+$", "", name).removeprefix("te_")
    x = operands[0] if operands else None
    shape = specs[0][0]
    if x is None or low.rebatch is not None:
        return None
    if base in ("topk", "sort", "argsort") and len(shape) == len(x.shape):
        axis = next((i for i, (a, b) in enumerate(zip(x.shape, shape, strict=False)) if a != b), len(shape) - 1)
        attrs: dict[str, AttrValue] = {"axis": axis, "k": shape[axis], "largest": 1, "sorted": 1}
        return low.keep(Result(list(specs), attrs, [x], "TopK"))
    simple = {
        "cumsum": ("CumSum", 1), "cumprod": ("CumProd", 1), "scatter_elements": ("ScatterElements", 3),
        "scatter_nd": ("ScatterND", 3), "gather_nd": ("GatherND", 2), "one_hot": ("OneHot", 1),
        "gather_elements": ("GatherElements", 2), "gather": ("GatherElements", 2), "tile": ("Tile", 1),
        "repeat": ("Tile", 1), "reshape": ("Reshape", 1), "broadcast_to": ("Expand", 1), "argmax": ("ArgMax", 1),
        "argmin": ("ArgMin", 1), "flip": ("Slice", 1), "strided_slice": ("Slice", 1), "take": ("Gather", 2),
    }.get(base)  # fmt: skip
    if simple is None or len(specs) > 1:
        return None
    op, count = simple
    known: dict[str, Any] = {"reduction": "none"} if op.startswith("Scatter") else {}
    return low.keep(Result(list(specs), known, list(operands[:count]), op))

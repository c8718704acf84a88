"""The graph under construction: tensors and nodes in ONNX vocabulary, before weights are told from inputs.

Layouts. The IR's images are N, C, spatial whatever the program says: a value of layout NHWC or NCHW4c is carried as
its N, C, H, W tensor together with the layout that the program sees (`TensorVal.layout`). Operators that understand
layouts work on the tensor; others get it in the program's order, through a Transpose. So the same network has the
same graph in either layout, and a change of layout between two such operators costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from costmodel.errors import InputError, ShapeInferenceError
from costmodel.ir import AttrValue, DType
from frontends.relay_ast import TensorType
from frontends.relay_relations import Layout

MAX_NODES = 200_000
IMAGE = "NCDHW"
KERNEL = "OIDHW"

Attrs = dict[str, AttrValue]


@dataclass(slots=True, eq=False)
class Tensor:
    """A tensor in the IR's order of axes.

    origin  "main" for a parameter of the entry function, "const" for a constant, "order" and "layout" for transposes
            and views that only a layout needs, "" for any other node's result
    value   content of small constants
    """

    shape: tuple[int, ...]
    dtype: DType
    origin: str = ""
    name: str = ""
    maker: RawNode | None = None
    value: np.ndarray | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(slots=True, eq=False)
class RawNode:
    """A node on `Tensor`s."""

    op: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    attrs: Attrs
    name: str = ""
    opaque: bool = False


@dataclass(slots=True, eq=False)
class TensorVal:
    """A tensor as the program sees it."""

    tensor: Tensor
    layout: Layout | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the program's layout."""
        if self.layout is None:
            return self.tensor.shape
        sizes = dict(zip(ordered(self.layout, IMAGE), self.tensor.shape, strict=True))
        return tuple(d or 0 for d in self.layout.shape(sizes))  # type: ignore[arg-type]

    @property
    def type(self) -> TensorType:
        """Its Relay type."""
        return TensorType(self.shape, self.tensor.dtype.value)


def to_dtype(name: str) -> DType:
    """The IR's element type of a Relay one."""
    if name in ("uint1", "int1"):
        return DType.BOOL
    if name == "handle":
        return DType.UINT64
    if "float8" in name or name.startswith(("e4m3", "e5m2")):
        return DType.FLOAT8
    try:
        return DType(name)
    except ValueError:
        raise InputError(f"Relay element type '{name[:24]}' is not known; use float, int, uint or bool types") from None


def ordered(layout: Layout, order: str) -> str:
    """The axes of a layout in the IR's order."""
    return "".join(sorted(layout.axes, key=lambda a: (order.find(a) if a in order else len(order), a)))


@dataclass(slots=True)
class Recorder:
    """Collects nodes in order; `place` names what is being lowered, `moved` holds transposes made so far."""

    nodes: list[RawNode] = field(default_factory=list)
    count: int = 0
    place: str = ""
    moved: dict[tuple[Tensor, tuple[int, ...]], Tensor] = field(default_factory=dict)

    def emit(
        self,
        op: str,
        inputs: Iterable[Tensor | None],
        outputs: Sequence[tuple[tuple[int, ...], DType]],
        attrs: Attrs | None = None,
        opaque: bool = False,
    ) -> list[Tensor]:
        """Adds a node and returns its results."""
        self.count += 1
        if self.count > MAX_NODES:
            raise InputError(f"the Relay program unrolls to more than {MAX_NODES} operators; simplify its recursion")
        node = RawNode(op, list(inputs), [], dict(attrs or {}), self.place, opaque)
        for shape, dtype in outputs:
            if any(d < 0 for d in shape):
                raise ShapeInferenceError(f"Relay: a {op} has the negative shape {shape}; correct its attributes")
            node.outputs.append(Tensor(tuple(shape), dtype, maker=node))
        self.nodes.append(node)
        return node.outputs

    def one(
        self, op: str, inputs: Iterable[Tensor | None], shape: Sequence[int], dtype: DType, **attrs: AttrValue
    ) -> Tensor:
        """Adds a node with one result."""
        return self.emit(op, inputs, [(tuple(shape), dtype)], attrs)[0]

    def transpose(self, x: Tensor, perm: Sequence[int], layout: bool = False) -> Tensor:
        """x with its axes permuted; a chain of transposes becomes one, or none.

        With `layout`, one that moves only axes of length 1 is a mere view, which reshapes look through.
        """
        perm = tuple(perm)
        if x.maker is not None and x.maker.op == "Transpose" and x.maker.inputs[0] is not None:
            before: tuple[int, ...] = x.maker.attrs["perm"]  # type: ignore[assignment]
            return self.transpose(x.maker.inputs[0], tuple(before[p] for p in perm), layout)
        if perm == tuple(range(len(perm))):
            return x
        shape = tuple(x.shape[p] for p in perm)
        moved = [p for p in perm if x.shape[p] != 1]
        if layout and moved == sorted(moved) and x.origin != "main":
            view = self.reshape(x, shape)
            view.origin = view.origin or "layout"
            return view
        if (x, perm) not in self.moved:
            self.moved[x, perm] = self.one("Transpose", [x], shape, x.dtype, perm=perm)
            self.moved[x, perm].origin = "order" if layout else ""
        return self.moved[x, perm]

    def reshape(self, x: Tensor, shape: Sequence[int], op: str = "Reshape", **attrs: AttrValue) -> Tensor:
        """x in another shape of as many elements."""
        shape = tuple(shape)
        if x.origin == "layout" and x.maker is not None and x.maker.inputs[0] is not None:
            x = x.maker.inputs[0]
        return x if shape == x.shape else self.one(op, [x], shape, x.dtype, **attrs)

    # layouts

    def to_ir(self, x: Tensor, layout: Layout, order: str = IMAGE) -> Tensor:
        """A tensor of that layout in the IR's order: blocks joined to their axis, axes permuted."""
        places: dict[str, list[int]] = {}
        for i, (letter, _) in enumerate(layout.parts):
            places.setdefault(letter, []).append(i)
        for letter, found in places.items():
            found.sort(key=lambda i: layout.parts[i][1] is not None)
            places[letter] = found
        axes = ordered(layout, order)
        x = self.transpose(x, [i for axis in axes for i in places[axis]], True)
        sizes = layout.sizes(x.shape if len(layout.parts) == len(axes) else self._unpermuted(x, layout, axes, places))
        if len(layout.parts) == len(axes):
            return x
        return self.reshape(x, [int(sizes[a] or 0) for a in axes])

    @staticmethod
    def _unpermuted(x: Tensor, layout: Layout, axes: str, places: dict[str, list[int]]) -> list[int]:
        flat = [i for axis in axes for i in places[axis]]
        shape = [0] * len(flat)
        for position, i in enumerate(flat):
            shape[i] = x.shape[position]
        return shape

    def from_ir(self, value: TensorVal) -> Tensor:
        """A value's tensor in the order that the program sees."""
        layout, x = value.layout, value.tensor
        if layout is None:
            return x
        axes, shape = ordered(layout, IMAGE), value.shape
        split: list[tuple[str, int | None]] = []
        lengths: list[int] = []
        for axis in axes:
            for part, length in zip(layout.parts, shape, strict=True):
                if part[0] == axis and part[1] is None:
                    split.append(part)
                    lengths.append(length)
            for part, length in zip(layout.parts, shape, strict=True):
                if part[0] == axis and part[1] is not None:
                    split.append(part)
                    lengths.append(length)
        if len(split) > len(axes):
            if math.prod(lengths) != x.numel:
                raise ShapeInferenceError(f"Relay layout {layout.text} does not divide {x.shape}; correct the layout")
            x = self.reshape(x, lengths)
        return self.transpose(x, [split.index(part) for part in layout.parts], True)

    def place_value(self, value: TensorVal, layout: Layout, order: str = IMAGE) -> Tensor:
        """The IR tensor of a value that an operator reads in `layout`."""
        if value.layout is not None:
            if value.layout.text == layout.text and order == IMAGE:
                return value.tensor
            return self.to_ir(self.from_ir(value), layout, order)
        return self.to_ir(value.tensor, layout, order)


def in_layout(x: Tensor, layout: Layout) -> TensorVal:
    """An operator's result in the layout that the program sees."""
    plain = layout.text == ordered(layout, IMAGE)
    return TensorVal(x, None if plain else layout)


def constant(shape: Sequence[int], dtype: DType, value: object = None, name: str = "") -> Tensor:
    """A constant tensor, with its content if that is small."""
    content: np.ndarray | None = None
    if value is not None and dtype not in (DType.BFLOAT16, DType.FLOAT8, DType.INT4, DType.UINT4, DType.STRING):
        try:
            content = np.asarray(value).astype(dtype.value)
        except (TypeError, ValueError, OverflowError):
            content = None
        if content is not None and content.shape != tuple(shape):
            content = None
    return Tensor(tuple(shape), dtype, "const", name, value=content)

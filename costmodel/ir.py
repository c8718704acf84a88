"""The shared node IR: what every frontend lowers to and everything else reads.

A `Graph` is a frozen, topologically ordered list of `Node`s over named tensors with static shapes. Operator and
attribute names are ONNX's. It knows nothing of onnx, tvm or torch. Tensor and node names are for people only:
`Graph.fingerprint` does not depend on them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from costmodel.errors import InputError


class DType(str, Enum):
    """Element type of a tensor. The value is the name used in fingerprints and JSON."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT8 = "float8"
    INT64 = "int64"
    INT32 = "int32"
    INT16 = "int16"
    INT8 = "int8"
    INT4 = "int4"
    UINT64 = "uint64"
    UINT32 = "uint32"
    UINT16 = "uint16"
    UINT8 = "uint8"
    UINT4 = "uint4"
    BOOL = "bool"
    COMPLEX64 = "complex64"
    COMPLEX128 = "complex128"
    STRING = "string"

    @property
    def bytes(self) -> float:
        """Bytes per element (0.5 for 4-bit types; strings count as a pointer)."""
        return _BYTES[self]

    @property
    def is_float(self) -> bool:
        """Whether the element is a real floating-point number."""
        return self.value.startswith(("float", "bfloat"))

    @property
    def is_quantized(self) -> bool:
        """Whether the element is an integer of at most 8 bits, as quantised networks use."""
        return self in (DType.INT8, DType.UINT8, DType.INT4, DType.UINT4)


_BYTES: dict[DType, float] = {
    DType.FLOAT64: 8, DType.FLOAT32: 4, DType.FLOAT16: 2, DType.BFLOAT16: 2, DType.FLOAT8: 1,
    DType.INT64: 8, DType.INT32: 4, DType.INT16: 2, DType.INT8: 1, DType.INT4: 0.5,
    DType.UINT64: 8, DType.UINT32: 4, DType.UINT16: 2, DType.UINT8: 1, DType.UINT4: 0.5,
    DType.BOOL: 1, DType.COMPLEX64: 8, DType.COMPLEX128: 16, DType.STRING: 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Static shape and element type of one tensor. A scalar has shape `()`."""

    shape: tuple[int, ...]
    dtype: DType = DType.FLOAT32

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes, rounded up."""
        return math.ceil(self.numel * self.dtype.bytes)

    def __str__(self) -> str:
        return f"{self.dtype.value}[{','.join(map(str, self.shape))}]"


AttrValue = int | float | str | bool | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. `inputs` and `outputs` name tensors of the graph; an absent optional input is `""`.

    `op` is ONNX's name (for operators of other domains `domain.Name`), `attrs` hold plain values only and are not to
    be changed. `opaque` marks an operator whose arithmetic is unknown: it has bytes but no FLOPs and lowers coverage.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, AttrValue] = field(default_factory=dict)
    name: str = ""
    opaque: bool = False


@dataclass(frozen=True)
class Graph:
    """A network with static shapes.

    nodes    in topological order
    tensors  name → spec of every tensor that a node, input or output mentions
    inputs   tensors fed at run time, in order
    outputs  results, in order
    params   tensors known before run time (weights and constants); shared weights count once per use
    sources  params that were worked out from others before run time → how many float elements of the file went into
             them (a relative position bias of N x N from 2N - 1 rows); no part of the fingerprint
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, TensorSpec]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: frozenset[str] = frozenset()
    name: str = "graph"
    sources: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = set(self.inputs) | self.params
        for node in self.nodes:
            for tensor in node.inputs:
                if tensor and tensor not in known:
                    raise InputError(
                        f"graph '{self.name}': node '{node.name or node.op}' reads '{tensor}' before it is produced;"
                        " order the nodes topologically and break cycles"
                    )
            known.update(node.outputs)
        missing = [t for t in (*known, *self.outputs) if t and t not in self.tensors]
        if missing:
            raise InputError(f"graph '{self.name}': no shape and type for {missing[:3]}; add them to tensors")
        unmade = [t for t in self.outputs if t not in known]
        if unmade:
            raise InputError(f"graph '{self.name}': nothing produces the outputs {unmade[:3]}; name existing tensors")

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def producer(self) -> dict[str, int]:
        """Tensor name → index of the node that makes it."""
        return {t: i for i, node in enumerate(self.nodes) for t in node.outputs if t}

    @cached_property
    def consumers(self) -> dict[str, tuple[int, ...]]:
        """Tensor name → indices of the nodes that read it, each once, ascending."""
        found: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for tensor in dict.fromkeys(node.inputs):
                if tensor:
                    found.setdefault(tensor, []).append(i)
        return {t: tuple(users) for t, users in found.items()}

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs (producer index, consumer index), without repeats, sorted: A[i, j] = 1 of the paper."""
        return tuple(
            sorted(
                {(self.producer[t], j) for j, node in enumerate(self.nodes) for t in node.inputs if t in self.producer}
            )
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over structure, operators, attributes, shapes and types; independent of every name.

        Each tensor's hash covers everything it is computed from, so node order and names do not matter. Weights count
        by shape and type only.
        """
        digest: dict[str, bytes] = {"": b""}
        for tensor in self.params:
            digest[tensor] = _sha("param", str(self.tensors[tensor]))
        for i, tensor in enumerate(self.inputs):
            digest[tensor] = _sha("input", str(i), str(self.tensors[tensor]))
        made: list[bytes] = []
        for node in self.nodes:
            attrs = ";".join(f"{k}={_canonical(node.attrs[k])}" for k in sorted(node.attrs))
            specs = ";".join(str(self.tensors[t]) if t else "-" for t in node.outputs)
            own = _sha(node.op, attrs, specs, *(digest[t] for t in node.inputs))
            made.append(own)
            for i, tensor in enumerate(node.outputs):
                digest[tensor] = _sha("out", str(i), own) if tensor else b""
        digest[""] = b""
        return _sha(*sorted(made), b"|", *(digest[t] for t in self.outputs)).hex()


def _canonical(value: AttrValue) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(_canonical(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _sha(*parts: str | bytes) -> bytes:
    state = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        state.update(len(raw).to_bytes(4, "little"))
        state.update(raw)
    return state.digest()


class GraphBuilder:
    """Collects nodes in topological order and freezes them into a `Graph`.

    >>> b = GraphBuilder("net")
    >>> x = b.input((1, 3, 8, 8))
    >>> w = b.param((4, 3, 3, 3))
    >>> y = b.node("Conv", [x, w], (1, 4, 6, 6), kernel_shape=(3, 3), strides=(1, 1), pads=(0, 0, 0, 0), group=1)
    >>> len(b.build([y]))
    1
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.tensors: dict[str, TensorSpec] = {}
        self.inputs: list[str] = []
        self.params: set[str] = set()
        self.nodes: list[Node] = []

    def _fresh(self, spec: TensorSpec, name: str | None, prefix: str) -> str:
        name = name or f"{prefix}{len(self.tensors)}"
        if name in self.tensors:
            raise InputError(f"graph '{self.name}': tensor '{name}' is defined twice; give each its own name")
        self.tensors[name] = spec
        return name

    def input(self, shape: Sequence[int], dtype: DType = DType.FLOAT32, name: str | None = None) -> str:
        """Adds a run-time input and returns its tensor name."""
        name = self._fresh(TensorSpec(tuple(shape), dtype), name, "x")
        self.inputs.append(name)
        return name

    def param(self, shape: Sequence[int], dtype: DType = DType.FLOAT32, name: str | None = None) -> str:
        """Adds a weight or constant and returns its tensor name."""
        name = self._fresh(TensorSpec(tuple(shape), dtype), name, "w")
        self.params.add(name)
        return name

    def add(
        self,
        op: str,
        inputs: Iterable[str],
        outputs: Sequence[TensorSpec],
        attrs: Mapping[str, AttrValue] | None = None,
        name: str = "",
        opaque: bool = False,
    ) -> tuple[str, ...]:
        """Adds a node with any number of outputs and returns their tensor names."""
        names = tuple(self._fresh(spec, None, "t") for spec in outputs)
        self.nodes.append(Node(op, tuple(inputs), names, dict(attrs or {}), name or f"{op}_{len(self.nodes)}", opaque))
        return names

    def node(
        self, op: str, inputs: Iterable[str], shape: Sequence[int], dtype: DType = DType.FLOAT32, **attrs: AttrValue
    ) -> str:
        """Adds a node with one output of the given shape and returns its tensor name."""
        return self.add(op, inputs, [TensorSpec(tuple(shape), dtype)], attrs)[0]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a tensor added before."""
        return self.tensors[tensor].shape

    def build(self, outputs: Sequence[str]) -> Graph:
        """Freezes what was added; `outputs` are the graph's results."""
        return Graph(
            tuple(self.nodes), dict(self.tensors), tuple(self.inputs), tuple(outputs), frozenset(self.params), self.name
        )

"""The two forms in which training describes networks, whatever form a file has.

layers    one node for each layer of a framework, as an eager one runs them: BatchNormalization, LayerNormalization and
          Gelu are nodes.
exported  as PyTorch's exporter wrote the training networks: a BatchNormalization is inside the product before it, Gelu
          and Swish are in their parts, LayerNormalization and HardSwish are nodes.

At inference a BatchNormalization is one scale and one shift per channel, and a convolution or a matrix product with
known weights takes both in: its weights are scaled, its bias is shifted, and no kernel is left (Jacob et al. 2018,
section 3.2). So is what Caffe calls a Scale layer, a Mul and an Add per channel behind the normalisation. Runtimes that
fuse do this when they load a network. ONNX has HardSwish since opset 14, LayerNormalization since 17, Gelu since 20 and
Swish since 24.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from costmodel.ir import AttrValue, Graph, Node, TensorSpec

PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm"))

Pattern: TypeAlias = "str | tuple[Pattern, ...]"
"""An operator with the patterns of its inputs; or a name: of a tensor, or with # in front of a known one."""

_CENTRED: Pattern = ("Sub", "x", ("ReduceMean", "x"))
_SQUARES: list[Pattern] = [("Pow", _CENTRED, "#two"), ("Mul", _CENTRED, _CENTRED)]
_SCALED: list[Pattern] = [
    ("Mul", ("Div", _CENTRED, ("Sqrt", ("Add", ("ReduceMean", square), "#epsilon"))), "#scale") for square in _SQUARES
]
_LAYER_NORM: list[Pattern] = [*(("Add", scaled, "#shift") for scaled in _SCALED), *_SCALED]
_ERFS: list[Pattern] = [("Add", ("Erf", (op, "x", "#root")), "#one") for op in ("Div", "Mul")]
_GELU: list[Pattern] = [
    *(("Mul", ("Mul", "x", erf), "#half") for erf in _ERFS), *(("Mul", ("Mul", "x", "#half"), erf) for erf in _ERFS),
]  # fmt: skip
_HARD_SWISH: list[Pattern] = [
    ("Mul", "x", ("HardSigmoid", "x")),
    *((op, ("Mul", "x", ("Clip", ("Add", "x", "#three"))), "#six") for op in ("Div", "Mul")),
]


@dataclass(frozen=True)
class Rewritten:
    """A graph in another form. Nodes of one group do the same work before (n,) and after (m,)."""

    graph: Graph
    before: np.ndarray
    after: np.ndarray

    def share_out(self, parts: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(n,) what falls to the nodes before, of the `parts` (m,) of those after: each group's in proportion to
        `weights` (n,)."""
        count = len(self.before)
        rates = np.bincount(self.after, parts, count) / np.bincount(self.before, weights, count).clip(1e-30)
        return np.asarray(rates[self.before] * weights)


def rewrite(graph: Graph, exported: bool) -> Rewritten | None:
    """A canonical graph in the exported form, or else in that of layers; None where that is how it is written.

    Nodes stay in their order, and every tensor that is left keeps its name.
    """
    ops = {node.op for node in graph.nodes}
    if not ops & (_EXPORTED if exported else _LAYERS):
        return None
    editor = _Editor(graph)
    if "Sqrt" in ops:
        editor.merge(_LAYER_NORM, _layer_norm)
    if "BatchNormalization" in ops and exported:
        editor.fold_normalisations()
    if ops & {"HardSigmoid", "Clip"} and exported:
        editor.merge(_HARD_SWISH, _hard_swish)
    if exported:
        editor.write_out()
    elif "Erf" in ops:
        editor.merge(_GELU, _gelu)
    return editor.result() if editor.changed else None


_LAYERS = frozenset(("Sqrt", "Erf"))
_EXPORTED = frozenset(("Sqrt", "BatchNormalization", "HardSigmoid", "Clip", "Gelu", "Swish"))
Names = dict[str, str]


def _gelu(view: _View, members: Set[int], names: Names) -> Node | None:
    """x · (1 + erf(x / √2)) / 2 as a layer."""
    return Node("Gelu", (names["x"],), (), {"approximate": "none"})


def _hard_swish(view: _View, members: Set[int], names: Names) -> Node | None:
    """x · relu6(x + 3) / 6 as a layer."""
    gate = next(node for node in (view.nodes[i] for i in members) if node.op in ("HardSigmoid", "Clip"))
    wanted = {"alpha": 1 / 6, "beta": 0.5} if gate.op == "HardSigmoid" else {"min": 0.0, "max": 6.0}
    found = [(gate.attrs.get(name), value) for name, value in wanted.items()]
    close = all(isinstance(own, float) and math.isclose(own, value, rel_tol=1e-4) for own, value in found)
    return Node("HardSwish", (names["x"],), ()) if close else None


def _layer_norm(view: _View, members: Set[int], names: Names) -> Node | None:
    """(x - mean) / √(mean of squares + ε) · γ + β as a layer, if it is over the last axis."""
    shape = view.tensors[names["x"]].shape
    known = [names[name] for name in ("#scale", "#shift") if name in names]
    means = [view.nodes[i].attrs for i in members if view.nodes[i].op == "ReduceMean"]
    last = len(shape) - 1
    if any(attrs.get("axes") not in ((last,), (-1,)) or attrs.get("keepdims") != 1 for attrs in means):
        return None
    if any(view.tensors[t].shape != shape[last:] for t in known):
        return None
    return Node("LayerNormalization", (names["x"], *known), (), {"axis": last})


class _Editor:
    """The nodes of a graph while they are rewritten, the group of each, and in `home` those of the nodes before."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes, self.changed = graph, list(graph.nodes), False
        self.group, self.home = list(range(len(graph))), list(range(len(graph)))
        self.tensors, self.params = dict(graph.tensors), set(graph.params)

    def result(self) -> Rewritten:
        graph = replace(self.graph, nodes=tuple(self.nodes), tensors=self.tensors, params=frozenset(self.params))
        return Rewritten(graph, np.array(self.home), np.array(self.group))

    def _view(self) -> _View:
        return _View(self.nodes, self.graph.outputs, self.tensors, self.params)

    def _tensor(self, name: str, spec: TensorSpec) -> str:
        """A new tensor, of that name or a longer one that nothing has yet."""
        while name in self.tensors:
            name += "_"
        self.tensors[name] = spec
        return name

    def _constant(self, name: str, spec: TensorSpec) -> str:
        name = self._tensor(name, spec)
        self.params.add(name)
        return name

    def _edit(self, edits: dict[int, Sequence[Node]], homes: dict[int, int]) -> None:
        """Puts nodes in the places of others; `homes` are groups that have become part of another."""
        if edits:
            placed = [
                (new, homes.get(group, group))
                for i, (node, group) in enumerate(zip(self.nodes, self.group, strict=True))
                for new in edits.get(i, (node,))
            ]
            self.nodes, self.group = [new for new, _ in placed], [group for _, group in placed]
            self.home = [homes.get(group, group) for group in self.home]
            self.changed = True

    def merge(self, patterns: Sequence[Pattern], layer_of: Callable[[_View, Set[int], Names], Node | None]) -> None:
        """Replaces what is written in its parts by the layer that it is; `layer_of` knows it, or None for what only
        looks like it."""
        view = self._view()
        edits: dict[int, Sequence[Node]] = {}
        homes: dict[int, int] = {}
        for i in reversed(range(len(self.nodes))):
            match = None if i in edits else next((m for p in patterns if (m := view.match(p, i))), None)
            layer = layer_of(view, *match) if match else None
            if not match or not layer:
                continue
            members, _ = match
            if not edits.keys() & members and view.is_closed(members, i):
                edits |= dict.fromkeys(members, ())
                last = self.nodes[i]
                attrs = {**layer.attrs, **_loop(last)}
                edits[i] = [replace(layer, outputs=last.outputs, attrs=attrs, name=last.name)]
                homes |= {self.group[member]: self.group[min(members)] for member in members}
        self._edit(edits, homes)

    def fold_normalisations(self) -> None:
        """Puts every BatchNormalization that a product can take in into it. A product without a bias gets one."""
        view = self._view()
        home: dict[str, int] = {}  # result of a product with all that it has taken in → the product
        edits: dict[int, Sequence[Node]] = {}
        homes: dict[int, int] = {}
        for i, node in enumerate(self.nodes):
            if node.op in PRODUCTS:
                home[node.outputs[0]] = i
                continue
            given = next((t for t in node.inputs[:2] if t in home), "")
            into = home.get(given, i)
            product = edits.get(into, self.nodes[into : into + 1])[0]
            if not given or not self._takes_in(view, product, node, given, into in edits):
                continue
            inputs = product.inputs
            if not any(inputs[2:]):
                inputs = (*inputs[:2], self._constant(f"{given}.bias", self.tensors[node.inputs[1]]))
            edits |= {into: [replace(product, inputs=inputs, outputs=node.outputs[:1])], i: ()}
            homes[self.group[i]] = self.group[into]
            home[node.outputs[0]] = into
        self._edit(edits, homes)

    def _takes_in(self, view: _View, product: Node, node: Node, given: str, normalised: bool) -> bool:
        """Whether `product` can do the work of `node`, which reads its result, as well: what else goes into both is
        known before the run, and nobody else reads the result. `normalised`: it has taken in one before."""
        return (
            (node.op == "BatchNormalization" or (normalised and self._is_scale(node, given)))
            and view.readers(given) == 1
            and not any(map(view.readers, node.outputs[1:]))
            and self.tensors[given] == self.tensors[node.outputs[0]]
            and all(t in self.params for t in (*product.inputs[1:], *node.inputs) if t and t != given)
        )

    def _is_scale(self, node: Node, given: str) -> bool:
        """Whether a node multiplies by, or adds, one number per channel, the second axis of `given`."""
        if node.op not in ("Mul", "Add") or node.inputs[0] == node.inputs[1]:
            return False
        (other,) = (t for t in node.inputs if t != given)
        rank, shape = len(self.tensors[given].shape), self.tensors[other].shape
        return all(size == 1 or axis == 1 for axis, size in enumerate(shape, rank - len(shape)))

    def write_out(self) -> None:
        """Gelu and Swish in their parts."""
        edits: dict[int, Sequence[Node]] = {
            i: self._parts(node) for i, node in enumerate(self.nodes) if node.op in ("Gelu", "Swish")
        }
        self._edit(edits, {})

    def _parts(self, node: Node) -> list[Node]:
        x, y = node.inputs[0], node.outputs[0]
        spec = self.tensors[y]
        parts: list[Node] = []

        def add(op: str, *inputs: str, last: bool = False) -> str:
            result = y if last else self._tensor(f"{y}.{len(parts)}", spec)
            parts.append(Node(op, inputs, (result,), _loop(node), f"{node.name or node.op}.{len(parts)}"))
            return result

        def number(name: str) -> str:
            return self._constant(f"{y}.{name}", TensorSpec((), spec.dtype))

        if node.op == "Swish":
            add("Mul", x, add("Sigmoid", x), last=True)
        else:
            erf = add("Erf", add("Div", x, number("root")))
            add("Mul", add("Mul", x, add("Add", erf, number("one"))), number("half"), last=True)
        return parts


def _loop(node: Node) -> dict[str, AttrValue]:
    """How often the loop around a node runs, if there is one."""
    return {name: node.attrs[name] for name in ("trip_count",) if name in node.attrs}


class _View:
    """Who makes and who reads the tensors of a list of nodes."""

    def __init__(
        self, nodes: Sequence[Node], outputs: Sequence[str], tensors: Mapping[str, TensorSpec], params: Set[str]
    ) -> None:
        self.nodes, self.tensors, self.params = nodes, tensors, params
        self.maker = {t: i for i, node in enumerate(nodes) for t in node.outputs}
        self._readers: dict[str, set[int]] = {t: {-1} for t in outputs}
        for i, node in enumerate(nodes):
            for t in node.inputs:
                self._readers.setdefault(t, set()).add(i)

    def readers(self, tensor: str) -> int:
        """How many read a tensor; who takes the graph's results is one of them."""
        return len(self._readers.get(tensor, ()))

    def is_closed(self, members: Set[int], last: int) -> bool:
        """Whether `members` alone read what they make, but for the last."""
        return all(self._readers.get(t, members) <= members for i in members - {last} for t in self.nodes[i].outputs)

    def match(self, pattern: Pattern, root: int) -> tuple[set[int], Names] | None:
        """The nodes of a pattern that ends with the node `root`, and its names with their tensors."""
        members: set[int] = set()
        names: Names = {}
        return (members, names) if self._bind(pattern, self.nodes[root].outputs[0], members, names) else None

    def _bind(self, pattern: Pattern, tensor: str, members: set[int], names: Names) -> bool:
        if isinstance(pattern, str):
            return (tensor in self.params) == pattern.startswith("#") and names.setdefault(pattern, tensor) == tensor
        op, *inputs = pattern
        i = self.maker.get(tensor, -1)
        node = self.nodes[i]
        if i < 0 or node.op != op or len(node.inputs) != len(inputs):
            return False
        for given in (node.inputs, node.inputs[::-1]) if op in ("Add", "Mul") else (node.inputs,):
            tried, bound = set(members), dict(names)
            if all(self._bind(p, t, tried, bound) for p, t in zip(inputs, given, strict=True)):
                members |= {i, *tried}
                names |= bound
                return True
        return False

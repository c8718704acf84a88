"""Rewrites that give a Relay program the form its ONNX counterpart has.

Relay spells a bias as an addition of its own, requantisation as an operator, products of many axes as reshapes around
one of two or three, and TVM's importers spell out LayerNormalization, HardSigmoid, HardSwish, ReduceL2 and Clip with
one bound. All are put together again here.
"""

from __future__ import annotations

from collections.abc import Callable

from frontends.relay_raw import RawNode, Tensor, constant

BIASED = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1}
ACTIVATIONS = frozenset(
    ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Add", "Mul", "MaxPool")
)


def users_of(nodes: list[RawNode]) -> dict[Tensor, list[RawNode]]:
    """The nodes that read each tensor, each once."""
    found: dict[Tensor, list[RawNode]] = {}
    for node in nodes:
        for tensor in dict.fromkeys(t for t in node.inputs if t is not None):
            found.setdefault(tensor, []).append(node)
    return found


class Fuser:
    """Rewrites nodes in place; `alias` maps tensors that are gone to those that stand for them."""

    def __init__(self, nodes: list[RawNode], outputs: list[Tensor], fed: set[Tensor]) -> None:
        self.fed = fed
        self.users = users_of(nodes)
        self.results = set(outputs)
        self.alias: dict[Tensor, Tensor] = {}

    def now(self, tensor: Tensor) -> Tensor:
        while tensor in self.alias:
            tensor = self.alias[tensor]
        return tensor

    def only_user(self, tensor: Tensor) -> RawNode | None:
        users = self.users.get(tensor, [])
        return users[0] if len(users) == 1 and tensor not in self.results else None

    def replace(self, node: RawNode, by: Tensor) -> None:
        """Drops a node; `by` stands for its result."""
        old = node.outputs[0]
        self.alias[old] = by
        self.users.setdefault(by, [])
        self.users[by] = [u for u in self.users[by] if u is not node] + self.users.get(old, [])
        if old in self.results:
            self.results.add(by)


def fuse(nodes: list[RawNode], outputs: list[Tensor], fed: set[Tensor]) -> list[RawNode]:
    """The nodes after all rewrites; `outputs` are renamed in place. `fed` are the tensors fed at run time."""
    fuser = Fuser(nodes, outputs, fed)
    kept: list[RawNode] = []
    for node in nodes:
        node.inputs = [None if t is None else fuser.now(t) for t in node.inputs]
        if any(rewrite(fuser, node) for rewrite in REWRITES.get(node.op, ())):
            continue
        if node.op == "BiasAdd":
            node.op = "Add"
        kept.append(node)
    outputs[:] = [fuser.now(t) for t in outputs]
    return kept


def _take_bias(fuser: Fuser, node: RawNode) -> bool:
    """Gives a bias to the product that alone feeds its addition: any to nn.bias_add, a plain add only to Gemm."""
    for product, bias in (node.inputs, node.inputs[::-1]):
        if product is None or bias is None or product.maker is None or bias in fuser.fed or bias.maker is not None:
            continue
        maker = product.maker
        if maker.op not in BIASED or (node.op == "Add" and maker.op != "Gemm"):
            continue
        if len(maker.inputs) != 2 or fuser.only_user(product) is not node:
            continue
        shape = product.shape
        channels = shape[BIASED[maker.op]]
        after = len(shape) - 1 - BIASED[maker.op] % len(shape)
        spread = (*(1,) * (len(shape) - after - 1), channels, *(1,) * after)
        # A bias of one element, or one per channel, lies along the channel axis only.
        if bias.shape != spread[len(shape) - len(bias.shape) :] or bias.numel != channels:
            continue
        if product.dtype is not node.outputs[0].dtype or shape != node.outputs[0].shape:
            continue
        maker.inputs.append(constant((channels,), bias.dtype, name=bias.name))
        fuser.replace(node, product)
        return True
    return False


def _requantize(fuser: Fuser, node: RawNode) -> bool:
    """Lets the operators before a requantisation give out the narrow type; True if the node is gone."""
    first, narrow = node.inputs[0], node.outputs[0].dtype
    chain: list[Tensor] = []
    tensor, reader = first, node
    while tensor is not None and tensor.maker is not None and fuser.only_user(tensor) is reader:
        chain.append(tensor)
        reader = tensor.maker
        if reader.op in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            for found in chain:
                found.dtype = narrow
            assert first is not None
            fuser.replace(node, first)
            return True
        if reader.op not in ACTIVATIONS:
            break
        tensor = reader.inputs[0]
    node.op, node.attrs = "QuantizeLinear", {}
    return False


def _unroll_rows(fuser: Fuser, node: RawNode) -> bool:
    """Reshape → Gemm → Reshape that only flattens leading axes is one MatMul; True if the last reshape is gone."""
    product = node.inputs[0]
    maker = product.maker if product is not None else None
    if product is None or maker is None or maker.op not in ("Gemm", "MatMul") or len(maker.inputs) != 2:
        return False
    flat, weight = maker.inputs
    if (
        flat is None
        or weight is None
        or fuser.only_user(product) is not node
        or weight.maker is not None
        or weight in fuser.fed
    ):
        return False
    before = flat.maker
    source = before.inputs[0] if before is not None and before.op == "Reshape" else None
    result = node.outputs[0]
    if source is None or len(flat.shape) != 2 or len(source.shape) < 3 or source.shape[-1] != flat.shape[-1]:
        return False
    if result.shape != (*source.shape[:-1], product.shape[-1]) or maker.attrs.get("transA", 0):
        return False
    if maker.op == "Gemm" and maker.attrs.get("transB", 0):
        weight = constant(weight.shape[::-1], weight.dtype, name=weight.name)
    maker.op, maker.attrs, maker.inputs = "MatMul", {}, [source, weight]
    fuser.users.setdefault(source, []).append(maker)
    product.shape = result.shape
    fuser.replace(node, product)
    return True


def _plain_weight(fuser: Fuser, node: RawNode) -> bool:
    """Weights (1, K, N) of a batched product are a matrix (K, N)."""
    weight = node.inputs[1]
    if weight is None or weight.maker is not None or weight in fuser.fed:
        return False
    if len(weight.shape) == len(node.outputs[0].shape) == 3 and weight.shape[0] == 1:
        node.inputs[1] = constant(weight.shape[1:], weight.dtype, name=weight.name)
    return False


def _batch_product(fuser: Fuser, node: RawNode) -> bool:
    """Reshape → MatMul → Reshape that only joins batch axes is one MatMul on all axes; True if the reshape is gone."""
    product = node.inputs[0]
    maker = product.maker if product is not None else None
    if product is None or maker is None or maker.op != "MatMul" or len(product.shape) != 3:
        return False
    if fuser.only_user(product) is not node:
        return False
    lead = node.outputs[0].shape[:-2]
    if node.outputs[0].shape != (*lead, *product.shape[-2:]) or len(lead) < 2:
        return False
    sources = []
    for operand in maker.inputs:
        before = operand.maker if operand is not None else None
        source = before.inputs[0] if before is not None and before.op == "Reshape" else None
        if operand is None or source is None or source.shape != (*lead, *operand.shape[-2:]):
            return False
        sources.append(source)
    for source in sources:
        fuser.users.setdefault(source, []).append(maker)
    maker.inputs = list(sources)
    product.shape = node.outputs[0].shape
    fuser.replace(node, product)
    return True


def _layer_norm(fuser: Fuser, node: RawNode) -> bool:
    """(x - mean) / sqrt(mean((x - mean)²) + ε) * γ + β, as TVM's importers spell LayerNormalization, is read as such.

    A square written as a power is left alone: that is how exporters spell networks that lack the operator.
    """
    scaled, beta = node.inputs[0], node.inputs[1]
    made = _maker(scaled, "Mul")
    if made is None or beta is None or beta.maker is not None:
        return False
    normal, gamma = made.inputs
    parts = _normalised(normal)
    if parts is None or gamma is None or gamma.maker is not None:
        return False
    centred, deviation = parts
    shifted = _maker(deviation.inputs[0], "Add")
    variance = _maker(shifted.inputs[0], "ReduceMean") if shifted is not None else None
    square = _maker(variance.inputs[0], "Mul") if variance is not None else None
    if variance is None or square is None or square.inputs[0] is not square.inputs[1]:
        return False
    again, mean = _maker(square.inputs[0], "Sub"), _maker(centred.inputs[1], "ReduceMean")
    x = centred.inputs[0]
    if again is None or mean is None or x is None or again.inputs[0] is not x or mean.inputs[0] is not x:
        return False
    axes = mean.attrs.get("axes")
    rank = len(x.shape)
    if (
        not isinstance(axes, tuple)
        or axes != variance.attrs.get("axes")
        or axes != tuple(range(rank - len(axes), rank))
    ):
        return False
    if gamma.shape != x.shape[rank - len(axes) :] or beta.shape != gamma.shape:
        return False
    node.op, node.attrs, node.inputs = "LayerNormalization", {"axis": rank - len(axes)}, [x, gamma, beta]
    return False


def _normalised(normal: Tensor | None) -> tuple[RawNode, RawNode] | None:
    """The Sub and the Sqrt of (x - mean) / σ or (x - mean) * (1 / σ)."""
    quotient, product = _maker(normal, "Div"), _maker(normal, "Mul")
    if quotient is not None:
        above, below = quotient.inputs[0], quotient.inputs[1]
    elif product is not None:
        inverse = _maker(product.inputs[1], "Div")
        above, below = product.inputs[0], inverse.inputs[1] if inverse is not None else None
    else:
        return None
    centred, deviation = _maker(above, "Sub"), _maker(below, "Sqrt")
    return None if centred is None or deviation is None else (centred, deviation)


def _hard_sigmoid(fuser: Fuser, node: RawNode) -> bool:
    """clip(α x + β, 0, 1) is HardSigmoid."""
    shifted = _maker(node.inputs[0], "Add")
    scaled = _maker(shifted.inputs[0], "Mul") if shifted is not None else None
    if shifted is None or scaled is None or node.attrs != {"min": 0.0, "max": 1.0}:
        return False
    alpha, beta = _scalar(scaled.inputs[1]), _scalar(shifted.inputs[1])
    if alpha is not None and beta is not None:
        node.op, node.attrs, node.inputs = "HardSigmoid", {"alpha": alpha, "beta": beta}, [scaled.inputs[0]]
    return False


def _hard_swish(fuser: Fuser, node: RawNode) -> bool:
    """x * HardSigmoid(x) with α = 1/6 and β = 1/2 is HardSwish."""
    x, gate = node.inputs
    hard = _maker(gate, "HardSigmoid")
    if hard is not None and x is hard.inputs[0] and abs(float(str(hard.attrs["alpha"])) - 1 / 6) < 1e-4:
        node.op, node.inputs = "HardSwish", [x]
    return False


def _one_sided_clip(fuser: Fuser, node: RawNode) -> bool:
    """max(x, c) and min(x, c) are Clip with one bound."""
    bound = _scalar(node.inputs[1])
    if bound is not None and node.outputs[0].dtype.is_float:
        node.attrs, node.inputs = {"min" if node.op == "Max" else "max": bound}, node.inputs[:1]
        node.op = "Clip"
    return False


def _norm2(fuser: Fuser, node: RawNode) -> bool:
    """sqrt(sum(x * x)) is ReduceL2."""
    total = _maker(node.inputs[0], "ReduceSum")
    square = _maker(total.inputs[0], "Mul") if total is not None else None
    if total is not None and square is not None and square.inputs[0] is square.inputs[1]:
        node.op, node.attrs, node.inputs = "ReduceL2", dict(total.attrs), [square.inputs[0]]
    return False


def _scalar(tensor: Tensor | None) -> float | None:
    if tensor is None or tensor.value is None or tensor.numel != 1:
        return None
    return float(tensor.value.reshape(-1)[0])


def _maker(tensor: Tensor | None, op: str) -> RawNode | None:
    maker = tensor.maker if tensor is not None else None
    return maker if maker is not None and maker.op == op else None


REWRITES: dict[str, tuple[Callable[[Fuser, RawNode], bool], ...]] = {
    "BiasAdd": (_take_bias,),
    "Add": (_take_bias, _layer_norm),
    "Requantize": (_requantize,),
    "Reshape": (_unroll_rows, _batch_product),
    "MatMul": (_plain_weight,),
    "Clip": (_hard_sigmoid,),
    "Mul": (_hard_swish,),
    "Max": (_one_sided_clip,),
    "Min": (_one_sided_clip,),
    "Sqrt": (_norm2,),
}
"""Rewrites by operator; each returns True if the node is gone."""

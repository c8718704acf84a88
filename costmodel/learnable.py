"""How many elements of a constant were learnt, and which constants are tables that were merely computed.

A file does not say; two things do.

Where it comes from    A constant that the frontend works out from others of the file counts with the float elements
                       that went into it (`Graph.sources`), not with its own: a relative position bias of (heads, N, N)
                       with the rows that it repeats, a folded projection with its weights.
What it is used for    Only floats of two or more elements count, and of quantised networks the weights and their int32
                       biases. Operands of products and convolutions count, weights and biases of recurrences and
                       normalisations (of BatchNormalization γ and β, not the running mean and variance), gathered
                       tables, slopes, whatever is concatenated to activations (class tokens), element-wise operands
                       with at most one axis longer than 1 (scales, biases, temperatures), and added tables with several
                       such axes: position embeddings on tokens. None of these count:
                       - scales and zero points of quantisation, initial states of recurrences;
                       - masks, biases and rotary caches that operators of attention take as inputs of their own;
                       - tables with several axes longer than 1 that stand in the file as they are used and are added
                         to attention weights (views and element-wise operators alone lie between the sum and a Softmax,
                         or a product of two activations): masks, and position biases already expanded;
                       - such tables that are combined element by element in any way but addition and subtraction: sines
                         and cosines of rotary embeddings, windows, masks.

Networks that multiply activations by a learnt table of several axes, as global filters do, are undercounted; fixed
position embeddings added to tokens are counted.
"""

from __future__ import annotations

from costmodel.arithmetic import DENSE
from costmodel.ir import DType, Graph, Node
from costmodel.rates import CONTRIB, VIEWS, names

ADDITIVE = frozenset(("Add", "Sub", "Sum"))
COMBINING = ADDITIVE | frozenset(
    names("Mul Div Pow Mod Where Max Min Mean Equal Greater GreaterOrEqual Less LessOrEqual")
)
_KEEP_SCORES = VIEWS | COMBINING | frozenset(names("Cast Clip Neg Tanh Transpose"))
_PRODUCTS = frozenset(("MatMul", "Einsum"))
_SOFTMAX = frozenset(("Softmax", f"{CONTRIB}BiasSoftmax"))
_FLOATS = frozenset(d for d in DType if d.is_float or d.value.startswith("complex"))
_COUNTED = _FLOATS | frozenset(d for d in DType if d.is_quantized)
_QUANTIZERS = frozenset(f"{domain}{op}" for domain in ("", CONTRIB) for op in ("QuantizeLinear", "DequantizeLinear"))

# Inputs that hold weights, where an operator also takes statistics, scales, masks or tables.
_WEIGHTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    **dict.fromkeys(_QUANTIZERS, (0,)),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Attention": (0, 1, 2),
    f"{CONTRIB}Attention": (1, 2),
    f"{CONTRIB}MultiHeadAttention": (0, 1, 2, 3),
    f"{CONTRIB}GroupQueryAttention": (0, 1, 2),
    f"{CONTRIB}BiasSoftmax": (0,),
    "RotaryEmbedding": (0,),
    f"{CONTRIB}RotaryEmbedding": (0,),
}  # fmt: skip


def learnable_elements(graph: Graph, node: Node, position: int) -> int:
    """Learnt elements behind the constant that a node reads as input `position`."""
    tensor = node.inputs[position]
    spec = graph.tensors[tensor]
    own = 2 * spec.numel if spec.dtype.value.startswith("complex") else spec.numel
    if position not in _WEIGHTS.get(node.op, (position,)):
        return 0
    if node.op in DENSE:
        # An int32 operand of a quantised product is its bias.
        counted = spec.dtype in _COUNTED or spec.dtype is DType.INT32
        return graph.sources.get(tensor, own) if counted else 0
    if spec.dtype not in _COUNTED or (own <= 1 and node.op not in _WEIGHTS):
        return 0
    learnt = graph.sources.get(tensor, own)
    if node.op not in COMBINING or sum(length != 1 for length in spec.shape) < 2:
        return learnt
    if learnt < own or (node.op in ADDITIVE and not is_attention_weight(graph, node)):
        return learnt
    return 0


def is_attention_weight(graph: Graph, node: Node) -> bool:
    """Whether only views and element-wise operators lie between a node and a Softmax or a product of two activations.

    The Softmax may come before or after the node, the product before it.
    """
    return _leads_to_softmax(graph, node) or _comes_from_scores(graph, node)


def _leads_to_softmax(graph: Graph, node: Node) -> bool:
    waiting, seen = [node.outputs[0]], {node.outputs[0]}
    while waiting:
        for index in graph.consumers.get(waiting.pop(), ()):
            reader = graph.nodes[index]
            if reader.op in _SOFTMAX:
                return True
            if reader.op in _KEEP_SCORES and reader.outputs[0] not in seen:
                seen.add(reader.outputs[0])
                waiting.append(reader.outputs[0])
    return False


def _comes_from_scores(graph: Graph, node: Node) -> bool:
    waiting, seen = list(node.inputs), set(node.inputs)
    while waiting:
        index = graph.producer.get(waiting.pop())
        if index is None:
            continue
        maker = graph.nodes[index]
        if maker.op in _SOFTMAX or (maker.op in _PRODUCTS and not graph.params.intersection(maker.inputs)):
            return True
        if maker.op in _KEEP_SCORES:
            waiting += [t for t in maker.inputs if t not in seen]
            seen.update(maker.inputs)
    return False

"""What one operator computes: multiply-accumulates and further arithmetic operations, from shapes and attributes.

`operations(node, ins, outs)` returns `(macs, other)`; FLOPs are `2 * macs + other`. Dense products are counted exactly
from their definition in the ONNX operator specification. Everything else counts the arithmetic of the plainest
implementation, one operation per add, multiply, divide, compare, root or polynomial step:

    element-wise              operations per output element, `PER_OUTPUT`
    exp, log, sin, erf…       4: a range reduction and a short polynomial; Sigmoid and Tanh are one exp and two more
    Gelu                      8: erf (4), scale in, add one, two products
    Softmax                   5: max, subtract, exp, sum, divide (exp is one instruction on GPUs)
    BatchNormalization        2: running statistics fold to one scale and one shift at inference
    LayerNormalization…       7: mean, centre, square, mean of squares, scale by 1/σ, γ, β; RMSNormalization 4
    pooling                   one per window element; global pooling one per input element
    reductions                one per input element (two where each element is also squared or made absolute)
    Resize, GridSample        2^(d+1) - 1 per output for d linear axes, 2 * 4^d - 1 for d cubic ones, 0 for nearest
    data movement             0

FLOPs of a ResNet-50 at 224 pixels are 8.2 G of products (4.09 GMACs, He et al. 2016) plus 0.5 % of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from costmodel.ir import Node
from costmodel.rates import CONTRIB, MOVEMENT, PER_INPUT, PER_OUTPUT, VIEWS

Shape = tuple[int, ...]
Operations = tuple[float, float]
Rule = Callable[[Node, Sequence[Shape], Sequence[Shape]], Operations]


def _size(shape: Shape) -> int:
    return math.prod(shape)


def _conv(weight: int, bias: int) -> Rule:
    """2 * N * Cout * prod(spatial out) * Cin / group * prod(kernel), from weight (Cout, Cin / group, *kernel)."""

    def rule(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
        out = _size(outs[0])
        return out * _size(ins[weight][1:]), out if len(ins) > bias and ins[bias] else 0

    return rule


def _conv_transpose(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """Each input element meets weight (Cin, Cout / group, *kernel) once."""
    return _size(ins[0]) * _size(ins[1][1:]), _size(outs[0]) if len(ins) > 2 and ins[2] else 0


def _deform_conv(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """A convolution whose samples are bilinear (7 operations), and masked where a mask is given."""
    out, kernel = outs[0], _size(ins[1][2:])
    samples = ins[0][0] * ins[0][1] * kernel * _size(out[2:])
    per_sample = 8 if len(ins) > 4 and ins[4] else 7
    return _size(out) * _size(ins[1][1:]), samples * per_sample


def _matmul(left: int) -> Rule:
    """2 * output elements * K, K being the last axis of the left operand; batch axes broadcast."""

    def rule(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
        swapped = bool(node.attrs.get("transA", 0))
        depth = ins[left][-2] if swapped and len(ins[left]) > 1 else ins[left][-1]
        return _size(outs[0]) * depth, 0

    return rule


def _gemm(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """alpha * A' * B' + beta * C: M * N * K products and, with C, M * N additions."""
    depth = ins[0][0] if node.attrs.get("transA", 0) else ins[0][-1]
    out = _size(outs[0])
    return out * depth, out if len(ins) > 2 and ins[2] else 0


def _matmul_nbits(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """A product with weights of K * N packed elements, each made wide once (subtract, scale)."""
    depth, width = ins[0][-1], outs[0][-1]
    return _size(outs[0]) * depth, 2 * depth * width


def _einsum(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """Operands are contracted from left to right; each step costs the product of its distinct axes."""
    equation = str(node.attrs["equation"]).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    sizes: dict[str, int] = {}
    labels = [_label(term, shape, sizes) for term, shape in zip(terms, ins, strict=True)]
    if arrow:
        kept = _label(right, outs[0], sizes)
    else:
        joined = "".join(terms).replace(".", "")
        kept = {c for c in joined if joined.count(c) == 1} | {c for c in sizes if c.isdigit()}
    if len(labels) == 1:
        return 0, _size(ins[0]) if labels[0] - kept else 0
    macs, other, current = 0.0, 0.0, labels[0]
    for i, term in enumerate(labels[1:], 1):
        needed = kept.union(*labels[i + 1 :])
        axes = current | term
        volume = math.prod(sizes[c] for c in axes)
        if axes - needed:
            macs += volume
        else:
            other += volume
        current = axes & needed
    return macs, other


def _label(term: str, shape: Shape, sizes: dict[str, int]) -> set[str]:
    """The axes of one einsum term, an ellipsis counted from the right as digits; `sizes` gathers their lengths."""
    head, dots, tail = term.partition("...")
    spread = len(shape) - len(head) - len(tail)
    names = [*head, *(str(spread - 1 - i) for i in range(spread) if dots), *tail]
    for axis, length in zip(names, shape, strict=True):
        sizes[axis] = max(length, sizes.get(axis, 1))
    return set(names)


def _attend(batch: int, heads: int, queries: int, keys: int, depth: int, value: int, masked: bool) -> Operations:
    """softmax(scale * Q Kᵀ + mask) V. Causal masks do not lower the count."""
    scores = batch * heads * queries * keys
    return scores * (depth + value), scores * (6 + masked)


def _attention(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """ai.onnx Attention: Q (B, Hq, Sq, D) or (B, Sq, Hq * D), K and V alike, past keys in front."""
    q, k, v = ins[0], ins[1], ins[2]
    past = ins[4][-2] if len(ins) > 4 and len(ins[4]) == 4 else 0
    masked = len(ins) > 3 and bool(ins[3])
    if len(q) == 4:
        return _attend(q[0], q[1], q[2], k[2] + past, q[3], v[3], masked)
    heads, key_heads = int(node.attrs["q_num_heads"]), int(node.attrs["kv_num_heads"])  # type: ignore[arg-type]
    return _attend(q[0], heads, q[1], k[1] + past, q[2] // heads, v[2] // key_heads, masked)


def _contrib_attention(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """com.microsoft.Attention: a packed projection of X (B, S, Din) by (Din, Dqkv), then attention over S."""
    batch, length, width = ins[0]
    packed, hidden = ins[1][-1], outs[0][-1]
    heads = int(node.attrs["num_heads"])  # type: ignore[arg-type]
    depth = (packed - hidden) // 2 // heads
    macs, other = _attend(batch, heads, length, length, depth, hidden // heads, len(ins) > 3 and bool(ins[3]))
    return macs + batch * length * width * packed, other + batch * length * packed


def _multi_head(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """com.microsoft.MultiHeadAttention and GroupQueryAttention on (B, S, H * D)."""
    heads = int(node.attrs["num_heads"])  # type: ignore[arg-type]
    q, hidden = ins[0], outs[0][-1]
    keys = q[1]
    if len(ins) > 1 and ins[1]:
        keys = ins[1][2] if len(ins[1]) == 4 else ins[1][1]
    for shape in ins[3:8]:
        if len(shape) == 4 and node.op.endswith("GroupQueryAttention"):
            keys = max(keys, shape[2])
    return _attend(q[0], heads, q[1], keys, hidden // heads, hidden // heads, False)


def _recurrent(gates: int, pointwise: float) -> Rule:
    """LSTM, GRU and RNN: W (D, gates * H, I) and R (D, gates * H, H) once per step, then `pointwise` per unit."""

    def rule(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
        steps = ins[0][0] * ins[0][1]
        directions, hidden = ins[2][0], ins[2][2]
        biases = 2 * gates if len(ins) > 3 and ins[3] else gates
        return steps * (_size(ins[1]) + _size(ins[2])), steps * directions * hidden * (pointwise + biases)

    return rule


def _pool(per_element: float) -> Rule:
    def rule(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
        kernel = node.attrs["kernel_shape"]
        return 0, _size(outs[0]) * math.prod(kernel) * per_element  # type: ignore[arg-type]

    return rule


def _variadic(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    count = len(ins) - (node.op != "Mean")
    return 0, _size(outs[0]) * count


def _lrn(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """Sum of squares over `size` channels, then scale, add, power (4) and divide."""
    return 0, _size(outs[0]) * (2 * int(node.attrs.get("size", 5)) + 7)  # type: ignore[arg-type]


def _resample(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    mode = str(node.attrs.get("mode", "nearest"))
    if mode == "nearest":
        return 0, 0
    axes = len(outs[0]) - 2
    if node.op != "GridSample":
        axes = sum(before != after for before, after in zip(ins[0], outs[0], strict=True))
    return 0, _size(outs[0]) * (2 * 4**axes - 1 if mode in ("cubic", "bicubic") else 2 ** (axes + 1) - 1)


def _region(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """RoiAlign: `sampling_ratio`² bilinear samples per output; 0 means adaptive, taken as 2."""
    ratio = int(node.attrs.get("sampling_ratio", 0)) or 2  # type: ignore[arg-type]
    return 0, _size(outs[0]) * ratio * ratio * 8


def _roi_pool(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """MaxRoiPool: every region reads at most the whole map once."""
    return 0, ins[1][0] * _size(ins[0][1:])


def _unpool(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    return 0, 0


def _top_k(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """A heap of k elements: log2(k) comparisons per input element, at least one."""
    axis = int(node.attrs.get("axis", -1))  # type: ignore[arg-type]
    return 0, _size(ins[0]) * max(1.0, math.log2(max(outs[0][axis], 1)))


def _sort(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    n = _size(ins[0])
    return 0, n * math.log2(max(n, 2))


def _scatter(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    reduction = str(node.attrs.get("reduction", "none"))
    return 0, 0 if reduction == "none" else _size(ins[2])


def _fourier(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """5 n log2 n per transform of n points (Cooley and Tukey 1965)."""
    if node.op == "STFT":
        points, transforms = ins[-1][-1] if ins[-1] else ins[0][1], _size(outs[0][:-2])
    else:
        points = outs[0][int(node.attrs.get("axis", -2))]  # type: ignore[arg-type]
        transforms = _size(outs[0]) // max(2 * points, 1)
    return 0, transforms * 5 * points * math.log2(max(points, 2))


def _suppress(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """Greedy non-maximum suppression (Girshick et al. 2014), nothing being suppressed: an upper bound.

    Boxes (images, n, 4) and scores (images, classes, n). The scores of a class are sorted, and each of the k boxes kept
    is compared with all that rank below it. An overlap is 13 operations: four extrema, width, height, both not below
    0, their product, the union from two areas (2), a division and a comparison. Areas are 3 per box, and corners from
    a centre 6 more.
    """
    images, classes, n = ins[1]
    kept = min(int(node.attrs.get("boxes_per_class", n)), n)  # type: ignore[arg-type]
    pairs = kept * n - kept * (kept + 1) // 2
    per_box = 9 if node.attrs.get("center_point_box", 0) else 3
    return 0, images * (classes * (n * math.log2(max(n, 2)) + 13 * pairs) + n * per_box)


def _loss(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """ONNX's NegativeLogLikelihoodLoss: minus the log-probability of each label, times its class weight, reduced.

    A sum is one addition per label; the weighted mean also sums the weights and divides once.
    SoftmaxCrossEntropyLoss is LogSoftmax (6 per score) before it.
    """
    labels, weighted = _size(ins[1]), len(ins) > 2 and bool(ins[2])
    reduction = str(node.attrs.get("reduction", "mean"))
    per_label = 1 + weighted + (reduction != "none") + (weighted and reduction == "mean")
    scores = 6 * _size(ins[0]) if node.op == "SoftmaxCrossEntropyLoss" else 0
    return 0, scores + labels * per_label + (reduction == "mean")


def _mel_weights(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """ONNX's MelWeightMatrix of (frequencies, bands): triangles between bands + 2 edges, evenly spaced in mel.

    mel = 2595 log10(1 + f / 700) of both limits is 7 operations each; an edge is 12 (2 for its mel, 7 back to hertz, 3
    to a frequency index); a frequency lies under two triangles at most, a subtraction and a division each.
    """
    frequencies, bands = outs[0]
    return 0, 2 * 7 + 12 * (bands + 2) + 4 * frequencies


DENSE: dict[str, Rule] = {
    "Conv": _conv(1, 2),
    "ConvInteger": _conv(1, 99),
    "QLinearConv": _conv(3, 8),
    f"{CONTRIB}FusedConv": _conv(1, 2),
    f"{CONTRIB}NhwcConv": _conv(1, 2),
    f"{CONTRIB}QLinearConv": _conv(3, 8),
    "ConvTranspose": _conv_transpose,
    "DeformConv": _deform_conv,
    "Gemm": _gemm,
    f"{CONTRIB}FusedGemm": _gemm,
    "MatMul": _matmul(0),
    "MatMulInteger": _matmul(0),
    "QLinearMatMul": _matmul(0),
    f"{CONTRIB}FusedMatMul": _matmul(0),
    f"{CONTRIB}FusedMatMulActivation": _matmul(0),
    f"{CONTRIB}MatMulIntegerToFloat": _matmul(0),
    f"{CONTRIB}DynamicQuantizeMatMul": _matmul(0),
    f"{CONTRIB}QGemm": _matmul(0),
    f"{CONTRIB}MatMulNBits": _matmul_nbits,
    "Einsum": _einsum,
    "Attention": _attention,
    f"{CONTRIB}Attention": _contrib_attention,
    f"{CONTRIB}MultiHeadAttention": _multi_head,
    f"{CONTRIB}GroupQueryAttention": _multi_head,
    "LSTM": _recurrent(4, 27),
    "GRU": _recurrent(3, 18),
    "RNN": _recurrent(1, 6),
}

VECTOR: dict[str, Rule] = {
    "MaxPool": _pool(1),
    "AveragePool": _pool(1),
    "LpPool": _pool(2),
    f"{CONTRIB}QLinearAveragePool": _pool(1),
    f"{CONTRIB}NhwcMaxPool": _pool(1),
    "MaxUnpool": _unpool,
    "Sum": _variadic,
    "Max": _variadic,
    "Min": _variadic,
    "Mean": _variadic,
    "LRN": _lrn,
    "Resize": _resample,
    "Upsample": _resample,
    "GridSample": _resample,
    "AffineGrid": lambda node, ins, outs: (0, 4 * _size(outs[0])),
    "RoiAlign": _region,
    "MaxRoiPool": _roi_pool,
    "TopK": _top_k,
    "Unique": _sort,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "NonMaxSuppression": _suppress,
    "SoftmaxCrossEntropyLoss": _loss,
    "NegativeLogLikelihoodLoss": _loss,
    "MelWeightMatrix": _mel_weights,
    "DFT": _fourier,
    "STFT": _fourier,
    "tir.Block": lambda node, ins, outs: (0, float(node.attrs.get("flops", 0))),  # type: ignore[arg-type]  # a number
}


def is_known(op: str) -> bool:
    """Whether the operator's arithmetic is known."""
    return op in DENSE or op in PER_OUTPUT or op in PER_INPUT or op in VECTOR or op in MOVEMENT or op in VIEWS


def operations(node: Node, ins: Sequence[Shape], outs: Sequence[Shape]) -> Operations:
    """Multiply-accumulates and further operations of one run; `ins` and `outs` hold a shape per tensor, () if absent.

    Operators that `is_known` does not name count as (0, 0).
    """
    rate = PER_OUTPUT.get(node.op)
    if rate is not None:
        return 0, rate * math.prod(outs[0])
    rule = DENSE.get(node.op) or VECTOR.get(node.op)
    if rule is not None:
        return rule(node, ins, outs)
    return 0, PER_INPUT.get(node.op, 0) * math.prod(ins[0]) if ins else 0

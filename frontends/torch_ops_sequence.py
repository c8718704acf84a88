"""Rules of attention and recurrent networks, in the sequences of operators that the ONNX exporter writes."""

from __future__ import annotations

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.torch_ops import Attrs, Call, Result, Shape, Spec, Value, broadcast, rule
from frontends.torch_ops_tensor import cut


@rule("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu",
      "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
      "_scaled_dot_product_attention_math", "_scaled_dot_product_cudnn_attention",
      "_scaled_dot_product_fused_attention_overrideable")  # fmt: skip
def _attention(c: Call) -> Result:
    """softmax(√s Q · √s Kᵀ + mask) V, by default s = 1 / √depth. A causal mask is a constant."""
    q, k, v = c.tensor("query"), c.tensor("key"), c.tensor("value")
    if c.get("enable_gqa"):
        k, v = _repeat_heads(c, k, q.shape[-3]), _repeat_heads(c, v, q.shape[-3])
    mask = c.optional("attn_mask") or c.optional("attn_bias")
    if c.get("is_causal"):
        mask = c.constant((q.shape[-2], k.shape[-2]), q.dtype)
    boolean = mask is not None and mask.dtype is DType.BOOL
    if boolean:
        assert mask is not None
        mask = c.emit("Where", [mask, c.scalar(0.0, q.dtype), c.scalar("-inf", q.dtype)], (mask.shape, q.dtype))
    turned = _swap_last(c, k)
    scale = c.constant((1,) if c.get("scale") is None else (), q.dtype)
    left, right = q, turned
    if c.get("scale") != 1:
        left, right = c.emit("Mul", [q, scale], q.spec), c.emit("Mul", [turned, scale], turned.spec)
    shape = (*broadcast(q.shape[:-2], k.shape[:-2]), q.shape[-2], k.shape[-2])
    scores = c.emit("MatMul", [left, right], (shape, q.dtype))
    if mask is not None:
        scores = c.emit("Add", [scores, mask], (broadcast(shape, mask.shape), q.dtype))
    weights = c.emit("Softmax", [scores], scores.spec, {"axis": len(shape) - 1})
    if boolean:  # rows without any key
        empty = c.emit("IsNaN", [weights], (weights.shape, DType.BOOL))
        weights = c.emit("Where", [empty, c.scalar(0.0, q.dtype), weights], weights.spec)
    y = c.emit("MatMul", [weights, v])
    return [y, *(c.constant(*spec) if spec else None for spec in c.outs[1:])]


def _repeat_heads(c: Call, x: Value, heads: int) -> Value:
    """Key or value heads (…, Hkv, S, D) repeated to the query's heads."""
    lead, (own, length, depth) = x.shape[:-3], x.shape[-3:]
    if own == heads:
        return x
    n = len(lead)
    wide = c.expand(c.unsqueeze(x, n + 1), (*lead, own, heads // own, length, depth))
    return c.reshape(wide, (*lead, heads, length, depth))


def _swap_last(c: Call, x: Value) -> Value:
    """The last two axes exchanged, the others joined meanwhile."""
    *lead, length, depth = x.shape
    joined = c.reshape(x, (x.numel // max(length * depth, 1), length, depth))
    return c.reshape(c.transpose(joined, (0, 2, 1)), (*lead, depth, length))


_CELLS = {"lstm": ("LSTM", 4), "gru": ("GRU", 3), "rnn_tanh": ("RNN", 1), "rnn_relu": ("RNN", 1)}


@rule("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")
def _recurrent(c: Call) -> Result:
    """Layers on (steps, batch, features); weights come as W, R and two biases per layer and direction."""
    op, gates = _CELLS[c.op.partition(".")[0]]
    x = c.tensor("input")
    states: list[Value] = list(c.args["hx"]) if op == "LSTM" else [c.tensor("hx")]
    batched, first = len(x.shape) == 3, bool(c.get("batch_first"))
    if not batched:
        x, states = c.unsqueeze(x, 1), [c.unsqueeze(s, 1) for s in states]
    elif first:
        x = c.transpose(x, (1, 0, 2))
    directions, layers = 2 if c.get("bidirectional") else 1, int(c.args["num_layers"])
    per_layer = len(c.args["params"]) // layers
    ends: list[list[Value]] = [[] for _ in states]
    for layer in range(layers):
        weights = c.args["params"][layer * per_layer : (layer + 1) * per_layer]
        begin = [cut(c, s, 0, layer * directions, (layer + 1) * directions) for s in states]
        x, last = _layer(c, op, gates, x, weights, begin, directions)
        for found, state in zip(ends, last, strict=True):
            found.append(state)
    finals = [_joined(c, found) for found in ends]
    if not batched:
        return [c.squeeze(x, 1), *(c.squeeze(f, 1) for f in finals)]
    return [c.transpose(x, (1, 0, 2)) if first else x, *finals]


def _joined(c: Call, states: list[Value]) -> Value:
    if len(states) == 1:
        return states[0]
    shape = (sum(s.shape[0] for s in states), *states[0].shape[1:])
    return c.emit("Concat", states, (shape, states[0].dtype), {"axis": 0})


def _layer(
    c: Call, op: str, gates: int, x: Value, weights: list[Value], begin: list[Value], directions: int
) -> tuple[Value, list[Value]]:
    """One layer: its output (steps, batch, directions * hidden) and final states."""
    steps, batch, features = x.shape
    hidden = begin[0].shape[-1]
    if weights[0].shape != (gates * hidden, features):
        raise ShapeInferenceError("projected recurrent layers (proj_size) have no lowering; set proj_size=0")
    w = c.constant((directions, gates * hidden, features), x.dtype)
    r = c.constant((directions, gates * hidden, hidden), x.dtype)
    bias = c.constant((directions, 2 * gates * hidden), x.dtype) if c.get("has_biases", True) else None
    attrs: Attrs = {
        "hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward", "layout": 0,
    }  # fmt: skip
    if op == "GRU":
        attrs["linear_before_reset"] = 1
    state: Shape = (directions, batch, hidden)
    specs: list[Spec] = [((steps, directions, batch, hidden), x.dtype), *[(state, x.dtype)] * len(begin)]
    y, *last = c.emit_all(op, [x, w, r, bias, None, *begin], specs, attrs)
    turned = c.transpose(y, (0, 2, 1, 3))
    return c.reshape(turned, (steps, batch, directions * hidden)), last

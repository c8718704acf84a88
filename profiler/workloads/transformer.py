"""Transformer encoders as torch exports them: vision (Dosovitskiy et al. 2021), bidirectional (Devlin et al. 2019) and
causal with the norm first (Radford et al. 2019), with random width, heads, depth and sequence."""

from __future__ import annotations

import math

from onnx import ModelProto

from profiler.workloads.draw import Draw
from profiler.workloads.net import Net


def transformer(net: Net, draw: Draw) -> ModelProto:
    """One of the three kinds. Text ones read embedded tokens (N, sequence, width), as encoders do after the table."""
    kind = draw.pick(("vit", "bert", "gpt"))
    head = draw.pick((32, 64, 96), (0.3, 0.6, 0.1))
    width = head * draw.integer(3, 10)
    if kind == "vit":
        patch = draw.pick((8, 14, 16, 32), (0.15, 0.2, 0.45, 0.2))
        x = _patches(net, width, patch, patch * draw.integer(4, 12))
    else:
        x = net.input((draw.multiple(16, 256, 16), width))
    pre, fused, act = kind != "bert", draw.chance(0.5), draw.pick(("gelu", "relu"), (0.8, 0.2))
    inner = draw.multiple(2 * width, 4 * width, 32)
    mask = net.weight("mask", (1, 1, *[net.shapes[x][0]] * 2)) if kind == "gpt" else ""
    for i in range(draw.integer(1, 8)):
        at = f"layers.{i}"
        y = _attention(net, layer_norm(net, x, f"{at}.norm1") if pre else x, width // head, fused, mask, f"{at}.attn")
        x = net.add(x, y, at)
        x = x if pre else layer_norm(net, x, f"{at}.norm1")
        y = dense(net, layer_norm(net, x, f"{at}.norm2") if pre else x, inner, f"{at}.fc1")
        x = net.add(x, dense(net, net.act(y, act, f"{at}.act"), width, f"{at}.fc2"), at)
        x = x if pre else layer_norm(net, x, f"{at}.norm2")
    x = layer_norm(net, x, "norm") if pre else x
    if kind == "vit":
        x = net.node("ReduceMean", [x], (width,), "pool", axes=[1], keepdims=0)
        return net.finish(net.linear(x, 1000, "head"))
    return net.finish(x)


def _patches(net: Net, width: int, patch: int, size: int) -> str:
    """The image as a sequence of embedded patches with positions added."""
    x = net.conv(net.input((3, size, size)), width, patch, "patch_embed", stride=patch, pad=0)
    count = math.prod(net.shapes[x][1:])
    x = net.node("Reshape", [x, net.constant([0, width, -1], "patch_embed.shape")], (width, count), "patch_embed")
    x = net.node("Transpose", [x], (count, width), "patch_embed", perm=[0, 2, 1])
    return net.node("Add", [x, net.weight("pos_embed", (1, count, width))], (count, width), "pos_embed")


def layer_norm(net: Net, x: str, at: str) -> str:
    """LayerNormalization over the last axis."""
    width = net.shapes[x][-1]
    weights = [net.weight(f"{at}.weight", (width,), 1.0), net.weight(f"{at}.bias", (width,))]
    return net.node("LayerNormalization", [x, *weights], net.shapes[x], at, axis=-1, epsilon=1e-5)


def dense(net: Net, x: str, width: int, at: str) -> str:
    """A linear layer on (N, sequence, features): MatMul, then the bias."""
    sequence, features = net.shapes[x]
    net.flops += 2 * sequence * features * width
    y = net.node("MatMul", [x, net.weight(f"{at}.weight", (features, width))], (sequence, width), at)
    return net.node("Add", [net.weight(f"{at}.bias", (width,)), y], (sequence, width), at)


def _attention(net: Net, x: str, heads: int, fused: bool, mask: str, at: str) -> str:
    sequence, width = net.shapes[x]
    if fused:
        joint = dense(net, x, 3 * width, f"{at}.qkv")
        parts = net.split(
            "Split", [joint, net.constant([width] * 3, f"{at}.split")], [(sequence, width)] * 3, at, axis=2
        )
    else:
        parts = [dense(net, x, width, f"{at}.{part}") for part in ("query", "key", "value")]
    q = _heads(net, parts[0], heads, f"{at}.query", (0, 2, 1, 3))
    k = _heads(net, parts[1], heads, f"{at}.key", (0, 2, 3, 1))
    v = _heads(net, parts[2], heads, f"{at}.value", (0, 2, 1, 3))
    net.flops += 4 * sequence * sequence * width
    scores = net.node("MatMul", [q, k], (heads, sequence, sequence), at)
    scale = net.constant(math.sqrt(width // heads), f"{at}.scale")
    scores = net.node("Div", [scores, scale], (heads, sequence, sequence), at)
    if mask:
        scores = net.add(scores, mask, at)
    weights = net.node("Softmax", [scores], (heads, sequence, sequence), at, axis=-1)
    y = net.node("MatMul", [weights, v], (heads, sequence, width // heads), at)
    y = net.node("Transpose", [y], (sequence, heads, width // heads), at, perm=[0, 2, 1, 3])
    y = net.node("Reshape", [y, net.constant([0, sequence, width], f"{at}.joined")], (sequence, width), at)
    return dense(net, y, width, f"{at}.out")


def _heads(net: Net, x: str, heads: int, at: str, perm: tuple[int, ...]) -> str:
    sequence, width = net.shapes[x]
    split = (sequence, heads, width // heads)
    x = net.node("Reshape", [x, net.constant([0, *split], f"{at}.heads")], split, at)
    return net.node("Transpose", [x], [split[p - 1] for p in perm[1:]], at, perm=list(perm))

"""BERT, GPT-2/3 and OPT inference as eager PyTorch runs it, from Hugging Face configurations.

Attention is spelled out in the kernels of the library's eager implementation: projections as one Gemm each, heads by
Transpose, scores by MatMul, scale, mask, Softmax. Hidden states are (batch * length, width); reshapes are views. The
networks are those of the published measurements (NeuSight, Lee et al. 2025): BERT with pooler and a two-class
classifier, GPT and OPT with the language-model head on every position; no padding, no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from costmodel.corpora.blocks import NetBuilder
from costmodel.errors import InputError
from costmodel.ir import DType, Graph


def config_name(model: str, configs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The key of a measured model's configuration; None if there is none or its kind is not built here."""
    config = configs.get(model)
    return model if config is not None and config.get("model_type") in _KINDS else None


def build(config: Mapping[str, Any], seq_len: int, batch: int = 1, kind: str | None = None) -> Graph:
    """The graph of a configuration on (batch, seq_len) token ids.

    `kind` is "bert", "gpt2" or "opt"; without it the configuration's `model_type` says. Raises InputError for another
    kind, a missing entry, or more positions than the configuration has.
    """
    kind = kind or str(config.get("model_type"))
    if kind not in _KINDS:
        raise InputError(f"no builder for transformers of kind '{kind}'; use one of {', '.join(_KINDS)}")
    limit = int(config.get("n_positions", config.get("max_position_embeddings", seq_len)))
    if not 0 < seq_len <= limit or batch < 1:
        raise InputError(
            f"sequence length {seq_len} at batch {batch} does not fit; use 1 to {limit} and batch 1 or more"
        )
    try:
        return _KINDS[kind](config, _Blocks(f"{kind}@{seq_len}", batch, seq_len))
    except KeyError as error:
        raise InputError(f"the {kind} configuration lacks {error}; add it") from error


class _Blocks(NetBuilder):
    """Transformer layers on hidden states of (batch * length, width)."""

    def __init__(self, name: str, batch: int, length: int) -> None:
        super().__init__(name)
        self.batch, self.length = batch, length
        self.mask = ""

    def embed(self, rows: int, width: int, ids: str) -> str:
        """Looks up one row of a (rows, width) table per id: (…) → (…, width)."""
        return self.node("Gather", [self.param((rows, width)), ids], (*self.shape(ids), width), axis=0)

    def token_ids(self) -> str:
        return self.input((self.batch, self.length), DType.INT64, "input_ids")

    def known_ids(self) -> str:
        """Positions or token types: indices known before run time, the same for the whole batch."""
        return self.param((1, self.length), DType.INT64)

    def broadcast_add(self, x: str, y: str) -> str:
        return self.node("Add", [x, y], self.shape(x))

    def rows(self, x: str) -> str:
        """(batch, length, width) as (batch * length, width)."""
        return self.reshape(x, (self.batch * self.length, self.shape(x)[-1]))

    def heads(self, x: str, count: int, *perm: int) -> str:
        """(batch * length, width) → (batch, length, heads, depth), then its axes in the given order."""
        return self.transpose(self.reshape(x, (self.batch, self.length, count, self.shape(x)[-1] // count)), *perm)

    def attention(self, q: str, k: str, v: str, heads: int, mask: Callable[[str], str], scale: bool = True) -> str:
        """softmax(mask(q kᵀ / √depth)) v of (batch * length, width) each."""
        batch, length, width = self.batch, self.length, self.shape(q)[-1]
        query, value = self.heads(q, heads, 0, 2, 1, 3), self.heads(v, heads, 0, 2, 1, 3)
        key = self.heads(k, heads, 0, 2, 3, 1)
        scores = self.node("MatMul", [query, key], (batch, heads, length, length))
        if scale:
            scores = self.scalar("Div", scores)
        weights = self.node("Softmax", [mask(scores)], self.shape(scores), axis=3)
        mixed = self.node("MatMul", [weights, value], (batch, heads, length, width // heads))
        return self.reshape(self.transpose(mixed, 0, 2, 1, 3), (batch * length, width))

    def add_mask(self, scores: str, queries: int = 1) -> str:
        """Adds a (batch, 1, queries, length) mask, the same for all layers."""
        self.mask = self.mask or self.input((self.batch, 1, queries, self.length), name="attention_mask")
        return self.node("Add", [scores, self.mask], self.shape(scores))

    def causal_where(self, scores: str) -> str:
        """Replaces the scores of later positions by a constant."""
        keep = self.param((1, 1, self.length, self.length), DType.BOOL)
        return self.node("Where", [keep, scores, self.param(())], self.shape(scores))

    def floor(self, scores: str) -> str:
        """The mask, then the largest of scores and the type's minimum, as OPT guards against overflow."""
        return self.scalar("Max", self.add_mask(scores, self.length))

    def new_gelu(self, x: str) -> str:
        """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), one kernel per operator."""
        inner = self.scalar("Mul", self.plus(x, self.scalar("Mul", self.scalar("Pow", x))))
        return self.node("Mul", [self.scalar("Mul", x), self.scalar("Add", self.unary("Tanh", inner))], self.shape(x))

    def activate(self, x: str, name: str) -> str:
        if name in ("gelu_new", "gelu_fast"):
            return self.new_gelu(x)
        if name not in ("gelu", "relu"):
            raise InputError(f"activation '{name}' is not built here; use gelu, gelu_new or relu")
        return self.unary("Gelu" if name == "gelu" else "Relu", x)


def _bert(config: Mapping[str, Any], net: _Blocks) -> Graph:
    """Encoder with LayerNormalization after each residual, pooler and a two-class classifier."""
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    x = net.embed(int(config["vocab_size"]), width, net.token_ids())
    x = net.broadcast_add(x, net.embed(int(config["type_vocab_size"]), width, net.known_ids()))
    x = net.broadcast_add(x, net.embed(int(config["max_position_embeddings"]), width, net.known_ids()))
    x = net.rows(net.layer_norm(x))
    for _ in range(int(config["num_hidden_layers"])):
        q, k, v = (net.linear(x, width) for _ in range(3))
        x = net.layer_norm(net.plus(net.linear(net.attention(q, k, v, heads, net.add_mask), width), x))
        inner = net.activate(net.linear(x, int(config["intermediate_size"])), str(config["hidden_act"]))
        x = net.layer_norm(net.plus(net.linear(inner, width), x))
    x = net.reshape(x, (net.batch, net.length, width))
    first = net.node("Gather", [x, net.param((), DType.INT64)], (net.batch, width), axis=1)
    return net.build([net.linear(net.unary("Tanh", net.linear(first, width)), 2)])


def _gpt2(config: Mapping[str, Any], net: _Blocks) -> Graph:
    """Decoder with LayerNormalization before each branch; one Gemm makes q, k and v."""
    width, heads, vocabulary = int(config["n_embd"]), int(config["n_head"]), int(config["vocab_size"])
    x = net.embed(vocabulary, width, net.token_ids())
    x = net.rows(net.broadcast_add(x, net.embed(int(config["n_positions"]), width, net.known_ids())))
    for _ in range(int(config["n_layer"])):
        packed = net.linear(net.layer_norm(x), 3 * width)
        spec = net.tensors[x]
        q, k, v = net.add("Split", [packed], [spec] * 3, {"axis": 1, "split": (width,) * 3})
        x = net.plus(net.linear(net.attention(q, k, v, heads, net.causal_where), width), x)
        inner = net.linear(net.layer_norm(x), int(config.get("n_inner") or 4 * width))
        x = net.plus(x, net.linear(net.activate(inner, str(config["activation_function"])), width))
    return net.build([net.linear(net.layer_norm(x), vocabulary, bias=False)])


def _opt(config: Mapping[str, Any], net: _Blocks) -> Graph:
    """Decoder as GPT's with three projections, the query scaled before the scores."""
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    vocabulary = int(config["vocab_size"])
    outer = int(config.get("word_embed_proj_dim") or width)
    x = net.embed(vocabulary, outer, net.token_ids())
    if outer != width:
        x = net.reshape(net.linear(net.rows(x), width, bias=False), (net.batch, net.length, width))
    # Two positions are kept for padding.
    x = net.rows(net.broadcast_add(x, net.embed(int(config["max_position_embeddings"]) + 2, width, net.known_ids())))
    for _ in range(int(config["num_hidden_layers"])):
        y = net.layer_norm(x)
        q, k, v = net.scalar("Mul", net.linear(y, width)), net.linear(y, width), net.linear(y, width)
        x = net.plus(x, net.linear(net.attention(q, k, v, heads, net.floor, scale=False), width))
        inner = net.activate(net.linear(net.layer_norm(x), int(config["ffn_dim"])), str(config["activation_function"]))
        x = net.plus(x, net.linear(inner, width))
    x = net.layer_norm(x)
    if outer != width:
        x = net.linear(x, outer, bias=False)
    return net.build([net.linear(x, vocabulary, bias=False)])


_KINDS: dict[str, Callable[[Mapping[str, Any], _Blocks], Graph]] = {"bert": _bert, "gpt2": _gpt2, "opt": _opt}

from __future__ import annotations

import pytest

from costmodel.analysis import analyze
from costmodel.corpora import transformers
from costmodel.errors import InputError

BERT = {
    "model_type": "bert", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "hidden_act": "gelu",
    "intermediate_size": 3072, "vocab_size": 30522, "type_vocab_size": 2, "max_position_embeddings": 512,
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "n_embd": 1024, "n_head": 16, "n_layer": 24, "n_positions": 1024, "vocab_size": 50257,
    "activation_function": "gelu_new",
}  # fmt: skip
OPT = {
    "model_type": "opt", "hidden_size": 512, "word_embed_proj_dim": 2048, "num_attention_heads": 8, "vocab_size": 50272,
    "num_hidden_layers": 1, "ffn_dim": 2048, "max_position_embeddings": 2048, "activation_function": "relu",
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "tied", "params"),
    [(BERT, 0, 109_483_778), (GPT2, 50257 * 1024, 354_823_168), (OPT, 50272 * 2048, 109_257_216)],
)
def test_published_parameters(config: dict, tied: int, params: int) -> None:
    assert analyze(transformers.build(config, 128)).params - tied == params


def test_products_follow_from_shapes() -> None:
    length, width, layers = 128, 768, 12
    expected = layers * (12 * length * width**2 + 2 * length**2 * width) + width**2 + 2 * width
    assert analyze(transformers.build(BERT, length)).macs == expected


def test_parameters_do_not_grow_with_batch() -> None:
    assert analyze(transformers.build(OPT, 64, 4)).params == analyze(transformers.build(OPT, 64, 1)).params


def test_shapes_and_batch() -> None:
    graph = transformers.build(GPT2, 32, batch=2)
    assert graph.tensors["input_ids"].shape == (2, 32)
    assert graph.tensors[graph.outputs[0]].shape == (64, 50257)
    assert analyze(graph).coverage == 1


def test_config_names() -> None:
    configs = {"a": BERT, "b": {"model_type": "switch_transformers"}}
    assert transformers.config_name("a", configs) == "a"
    assert transformers.config_name("b", configs) is None
    assert transformers.config_name("c", configs) is None


@pytest.mark.parametrize(
    ("config", "length", "reason"),
    [
        ({"model_type": "switch_transformers"}, 8, "no builder"),
        (BERT, 513, "use 1 to 512"),
        ({k: v for k, v in GPT2.items() if k != "n_head"}, 8, "lacks 'n_head'"),
        ({**BERT, "hidden_act": "swish"}, 8, "activation 'swish'"),
    ],
)
def test_what_cannot_be_built_is_refused(config: dict, length: int, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        transformers.build(config, length)

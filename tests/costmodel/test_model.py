"""Each equation of the network against a slow, literal NumPy version."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network is defined in torch; install the dev extra")

from costmodel.features import relation_edges  # noqa: E402
from costmodel.model import (  # noqa: E402
    Batch,
    Block,
    DynamicGraphAttention,
    DynamicWeights,
    GlobalAttention,
    LeDGFormer,
    ModelConfig,
)

EDGES = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (1, 4)]
N = 5
CONFIG = ModelConfig(
    width=8, layers=2, heads=2, dropout=0.0, window=0, text_width=6, node_features=3, platform_features=4,
    platform_width=5, platform_text_width=3, head_width=7,
)  # fmt: skip


def config(**changes: object) -> ModelConfig:
    return ModelConfig(**{**CONFIG.__dict__, **changes})  # type: ignore[arg-type]


def numpy_of(tensor: object) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)  # type: ignore[attr-defined]


def linear(layer: object, x: np.ndarray) -> np.ndarray:
    return x @ numpy_of(layer.weight).T + numpy_of(layer.bias)  # type: ignore[attr-defined]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def adjacency() -> np.ndarray:
    a = np.zeros((N, N))
    for i, j in EDGES:
        a[i, j] = 1
    return a


def relations() -> list[np.ndarray]:
    a = adjacency()
    return [a, (a.T > 0) * 1.0, (a.T @ a.T > 0) * 1.0]


def batch_of(n: int, graphs: list[int], edges: list[tuple[int, int]], features: int = 3, text: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    src, seg = relation_edges(edges, n)
    return Batch(
        torch.randn(n, text, generator=generator), torch.randn(n, features, generator=generator),
        torch.tensor(graphs), torch.from_numpy(src), torch.from_numpy(seg),
        torch.randn(max(graphs) + 1, 4, generator=generator),
    )  # fmt: skip


def literal_weights(module: DynamicWeights, x: np.ndarray) -> np.ndarray:
    """Softmax(MLP(f_w)) with f_w_i = Softmax(q_i · (k_1…k_i)) (v_1…v_i), node by node."""
    q, k, v = np.split(linear(module.qkv, x), 3, axis=1)
    rows = []
    for i in range(len(x)):
        attention = softmax(q[i] @ k[: i + 1].T / np.sqrt(module.width))
        rows.append(softmax(linear(module.mlp, attention @ v[: i + 1])))
    return np.array(rows)


def literal_attention(module: DynamicGraphAttention, x: np.ndarray, mask: str) -> np.ndarray:
    """Σ_r W_r(i) X_r(i), X_r = σ((QKᵀ ∘ (I + M_r)) / √h) V, dense, head by head."""
    n, d = x.shape
    h = d // module.heads
    q, k, v = np.split(linear(module.qkv, x), 3, axis=1)
    maps = []
    for m in relations():
        seen = np.eye(n) + m
        heads = []
        for s in range(0, d, h):
            scores = q[:, s : s + h] @ k[:, s : s + h].T / np.sqrt(h)
            scores = scores * seen if mask == "multiply" else np.where(seen > 0, scores, -np.inf)
            heads.append(softmax(scores) @ v[:, s : s + h])
        maps.append(np.concatenate(heads, 1))
    if isinstance(module.weights, DynamicWeights):
        share = literal_weights(module.weights, x)
    else:
        share = np.tile(softmax(numpy_of(module.weights.logits)), (n, 1))
    return linear(module.out, sum(share[:, [r]] * maps[r] for r in range(3)))


def test_relation_edges_are_the_three_matrices() -> None:
    src, seg = relation_edges(EDGES, N)
    found = np.zeros((3, N, N))
    for s, t in zip(src, seg, strict=False):
        assert found[t // N, t % N, s] == 0
        found[t // N, t % N, s] = 1
    for r, m in enumerate(relations()):
        np.testing.assert_array_equal(found[r], m)


@pytest.mark.parametrize("mask", ["softmax", "multiply"])
@pytest.mark.parametrize("dynamic", [True, False])
def test_attention_equals_the_literal_formula(mask: str, dynamic: bool) -> None:
    torch.manual_seed(0)
    module = DynamicGraphAttention(config(mask=mask, dynamic=dynamic))
    x = torch.randn(N, 8)
    out = module(x, batch_of(N, [0] * N, EDGES))
    np.testing.assert_allclose(numpy_of(out), literal_attention(module, numpy_of(x), mask), rtol=1e-4, atol=1e-5)


def test_dynamic_weights_equal_the_literal_formula_and_sum_to_one() -> None:
    torch.manual_seed(0)
    module = DynamicWeights(CONFIG)
    x = torch.randn(7, 8)
    out = numpy_of(module(x, torch.zeros(7, dtype=torch.int64)))
    np.testing.assert_allclose(out, literal_weights(module, numpy_of(x)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(out.sum(1), 1, rtol=1e-5)


def test_window_equals_full_attention_for_graphs_that_fit_it() -> None:
    torch.manual_seed(0)
    full, windowed = DynamicWeights(CONFIG), DynamicWeights(config(window=4))
    windowed.load_state_dict(full.state_dict())
    x = torch.randn(12, 8)
    graph = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3])
    torch.testing.assert_close(windowed(x, graph), full(x, graph))


def test_window_looks_back_exactly_that_far() -> None:
    torch.manual_seed(0)
    module = DynamicWeights(config(window=4))
    x = torch.randn(12, 8)
    graph = torch.zeros(12, dtype=torch.int64)
    before = module(x, graph)
    x[2] += 1
    changed = (module(x, graph) - before).abs().sum(1) > 1e-7
    assert changed.tolist() == [False, False, True, True, True, True, *[False] * 6]


def test_block_adds_attention_and_feed_forward() -> None:
    torch.manual_seed(0)
    block = Block(CONFIG).eval()
    x = torch.randn(N, 8)

    def norm(layer: object, v: np.ndarray) -> np.ndarray:
        v = (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-5)
        return v * numpy_of(layer.weight) + numpy_of(layer.bias)  # type: ignore[attr-defined]

    h = numpy_of(x)
    h = h + literal_attention(block.attention, norm(block.norm1, h), "softmax")
    inner = numpy_of(torch.nn.functional.gelu(torch.from_numpy(linear(block.ffn[0], norm(block.norm2, h)))))
    np.testing.assert_allclose(
        numpy_of(block(x, batch_of(N, [0] * N, EDGES))), h + linear(block.ffn[2], inner), rtol=1e-4, atol=1e-5
    )


def network_and_head_inputs(changes: dict[str, object] | None = None) -> tuple[LeDGFormer, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    network = LeDGFormer(config(**(changes or {}))).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    nodes, graphs = network.encode(batch_of(N, [0] * N, EDGES))
    pair = torch.tensor([0] * N + [1] * N)
    return network, {
        "nodes": nodes, "graphs": graphs[[0, 0]], "stats": torch.randn(2, 4),
        "platforms": network.embed_platform(torch.randn(2, 6), torch.randn(2, 4)),
        "times": torch.randn(2 * N, 4) - 3, "node": torch.arange(N).repeat(2), "pair": pair,
    }  # fmt: skip


def test_roofline_head_sums_node_shares() -> None:
    network, inputs = network_and_head_inputs()
    log_latency, share = network.head(**inputs)
    for p in range(2):
        np.testing.assert_allclose(
            float(log_latency[p].detach().exp()), float(share[inputs["pair"] == p].detach().sum()), rtol=1e-5
        )


def test_an_untrained_roofline_head_is_the_roofline() -> None:
    torch.manual_seed(0)
    network = LeDGFormer(CONFIG).eval()
    _, inputs = network_and_head_inputs()
    log_latency, _ = network.head(**inputs)
    roofline = inputs["times"][:, -1].exp().reshape(2, N).sum(1).log()
    torch.testing.assert_close(log_latency, roofline)


@pytest.mark.parametrize("changes", [{}, {"window": 4}, {"mask": "multiply"}, {"dynamic": False}, {"numeric": False}])
def test_graphs_do_not_see_each_other(changes: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = LeDGFormer(config(**changes)).eval()
    window = network.config.window or 1
    one = batch_of(-(-N // window) * window, [0] * N + [1] * (-N % window), EDGES)
    two = batch_of(
        2 * N + (-2 * N % window),
        [0] * N + [1] * N + [2] * (-2 * N % window),
        EDGES + [(i + N, j + N) for i, j in EDGES],
    )
    two.text[:N], two.numeric[:N], two.stats[0] = one.text[:N], one.numeric[:N], one.stats[0]
    one.stats, two.stats = one.stats[:1], two.stats[:2]
    alone, together = network.encode(one), network.encode(two)
    torch.testing.assert_close(together[0][:N], alone[0][:N])
    torch.testing.assert_close(together[1][:1], alone[1])


def test_language_off_ignores_sentences() -> None:
    network, _ = network_and_head_inputs({"language": False})
    batch = batch_of(N, [0] * N, EDGES)
    before = network.encode(batch)[0]
    batch.text = batch.text + 1
    torch.testing.assert_close(network.encode(batch)[0], before)


def test_the_network_stays_readable() -> None:
    from pathlib import Path

    import costmodel.model

    assert len(Path(costmodel.model.__file__).read_text().splitlines()) < 350


def test_global_attention_is_plain_self_attention_within_each_graph() -> None:
    torch.manual_seed(0)
    module = GlobalAttention(config())
    graphs = [0, 0, 0, 1, 1]
    batch = batch_of(N, graphs, EDGES)
    x = torch.randn(N, 8)
    found = numpy_of(module(x, batch))
    q, k, v = (part.reshape(N, 2, 4) for part in np.split(linear(module.qkv, numpy_of(x)), 3, 1))
    alike = np.equal.outer(graphs, graphs)
    mixed = np.zeros((N, 2, 4))
    for head in range(2):
        scores = np.where(alike, q[:, head] @ k[:, head].T / 2, -np.inf)
        mixed[:, head] = softmax(scores) @ v[:, head]
    np.testing.assert_allclose(found, linear(module.out, mixed.reshape(N, 8)), atol=1e-5)

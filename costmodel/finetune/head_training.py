"""Trains the released head on for one platform. Needs torch and safetensors (extra `train`)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.bundle import WEIGHTS
from costmodel.finetune.head import Head, context
from costmodel.finetune.readings import Readings

if TYPE_CHECKING:
    from costmodel.predictor import LeDGFormerModel

ENOUGH = 200
"""Networks below which the head has too many weights to be trained on."""

EPOCHS, RATE, DECAY, ROWS = 60, 2e-3, 1e-3, 4096


def is_possible(model: LeDGFormerModel) -> bool:
    """Whether torch is here and the bundle has a head of this kind."""
    packages = all(importlib.util.find_spec(name) is not None for name in ("torch", "safetensors"))
    return packages and model.bundle.config["model"]["head"] == "roofline"


def released(model: LeDGFormerModel, text: np.ndarray, channel: np.ndarray) -> Head:
    """The bundle's head for a platform read as `text` (t,) and `channel` (f,)."""
    import torch
    from safetensors.torch import load as load_weights

    from costmodel.model import LeDGFormer, ModelConfig

    network = LeDGFormer(ModelConfig(**model.bundle.config["model"])).eval()
    network.load_state_dict(load_weights(model.bundle.read(WEIGHTS)))
    with torch.no_grad():
        platform = network.embed_platform(torch.from_numpy(text[None]), torch.from_numpy(channel[None]))[0]
        first, second, last = (layer for layer in network.graph_head if isinstance(layer, torch.nn.Linear))
        middle, out = (layer for layer in network.node_head if isinstance(layer, torch.nn.Linear))
        own = network.config.width + network.config.graph_features
        graph, device, times = first.weight.split([own, len(platform), first.weight.shape[1] - own - len(platform)], 1)
        gate = 1 + network.platform_gate.weight @ platform
        layers: list[Any] = [
            network.node_in.weight.T * gate, network.times_in.weight.T,
            network.node_in.bias * gate + network.platform_in.weight @ platform,
            middle.weight.T, middle.bias, out.weight.T, out.bias,
            torch.cat([graph, times], 1).T, first.bias + device @ platform,
            second.weight.T, second.bias, last.weight.T, last.bias, torch.zeros(1),
        ]  # fmt: skip
        return Head(*(layer.numpy().astype(np.float64) for layer in layers))


def train(head: Head, readings: Readings, log_measured: np.ndarray, seed: int = 0) -> Head:
    """The head trained on for measured ln of ms (N,).

    Adam with a cosine schedule on the Huber loss of the log-ratio, pulled towards where it started, which the offset
    first brings to the samples' level.
    """
    import torch
    import torch.nn.functional as F

    values = list(vars(head).values())
    predicted = np.log(np.add.reduceat(head.node_ms(readings), readings.start[:-1]))
    values[-1] = head.offset + np.median(log_measured - predicted)
    start = [torch.from_numpy(np.asarray(v, np.float32)) for v in values]
    weights = [v.clone().requires_grad_() for v in start]
    assert readings.nodes is not None
    nodes = torch.from_numpy(readings.nodes.astype(np.float32))
    times = torch.from_numpy(readings.log_times.astype(np.float32))
    whole = torch.from_numpy(context(readings).astype(np.float32))
    target = torch.from_numpy(log_measured.astype(np.float32))
    counts = np.diff(readings.start)
    batches = max(int(np.ceil(readings.start[-1] / ROWS)), 4)
    optimizer = torch.optim.Adam(weights, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for part in np.array_split(rng.permutation(len(readings)), batches):
            rows = torch.from_numpy(readings.rows(part))
            owner = torch.repeat_interleave(torch.arange(len(part)), torch.from_numpy(counts[part]))
            answer = _log_ms(weights, nodes[rows], times[rows], whole[torch.from_numpy(part)], owner)
            pull = sum((((w - s) ** 2).sum() for w, s in zip(weights[:-1], start[:-1], strict=True)), torch.zeros(()))
            loss = F.huber_loss(answer, target[torch.from_numpy(part)], delta=0.1) / 0.1 + DECAY * pull
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return Head(*(w.detach().numpy().astype(np.float64) for w in weights))


def _log_ms(weights: list[Any], nodes: Any, times: Any, whole: Any, owner: Any) -> Any:
    """`Head.node_ms`, summed over graphs, in torch."""
    import torch
    import torch.nn.functional as F

    from costmodel.finetune.head import GRAPH_LIMIT, NODE_LIMIT

    node_in, times_in, node_bias, middle, middle_bias, node_out, node_out_bias, *graph = weights
    graph_in, graph_bias, graph_middle, graph_middle_bias, graph_out, graph_out_bias, offset = graph
    hidden = F.gelu(F.gelu(nodes @ node_in + times @ times_in + node_bias) @ middle + middle_bias)
    ratio = NODE_LIMIT * torch.tanh((hidden @ node_out + node_out_bias)[:, 0] / NODE_LIMIT)
    hidden = F.gelu(F.gelu(whole @ graph_in + graph_bias) @ graph_middle + graph_middle_bias)
    scale = (hidden @ graph_out + graph_out_bias)[:, 0]
    scale = GRAPH_LIMIT * torch.tanh(scale / GRAPH_LIMIT) + offset
    node_ms = torch.exp(times[:, -1] + ratio + scale[owner])
    return torch.log(torch.zeros(len(whole)).index_add(0, owner, node_ms))

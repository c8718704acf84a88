"""Writes a bundle: the network as safetensors and as ONNX, with what inference needs to know about it."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from costmodel import familiarity
from costmodel.bundle import BUNDLE_FORMAT, ENCODE, HEAD, WEIGHTS
from costmodel.correction import FILE as CORRECTION
from costmodel.correction import Correction
from costmodel.embedding import extend_table
from costmodel.familiarity import Familiar
from costmodel.features import COLUMNS
from costmodel.model import Batch, LeDGFormer
from costmodel.prompts import TEMPLATE_VERSION
from costmodel.training.batches import Step

OPSET = 18


class _Encode(nn.Module):
    def __init__(self, network: LeDGFormer) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, text: Tensor, numeric: Tensor, graph: Tensor, src: Tensor, seg: Tensor, stats: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.network.encode(Batch(text, numeric, graph, src, seg, stats))


class _Head(nn.Module):
    def __init__(self, network: LeDGFormer) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, nodes: Tensor, graphs: Tensor, stats: Tensor, text: Tensor, numeric: Tensor, times: Tensor,
        node: Tensor, pair: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        platforms = self.network.embed_platform(text, numeric)
        return self.network.head(nodes, graphs, stats, platforms, times, node, pair)


def export_onnx(network: LeDGFormer, example: Step, folder: Path) -> None:
    """Writes encode.onnx and head.onnx with free numbers of nodes, edges, graphs, pairs and rows.

    `example` is any packed step of at least two graphs and two platforms.
    """
    if network.training:
        raise ValueError("the network must be in eval mode, or dropout stays in the graph")
    b = example.batch
    with torch.no_grad():
        nodes, graphs = network.encode(b)
    _export(
        _Encode(network), (b.text, b.numeric, b.graph, b.src, b.seg, b.stats), folder / ENCODE,
        {"text": "N", "numeric": "N", "graph": "N", "src": "E", "seg": "E", "stats": "B"}, ["nodes", "graphs"],
    )  # fmt: skip
    g = example.pair_graph
    _export(
        _Head(network),
        (
            nodes, graphs[g], b.stats[g], example.platform_text, example.platform_numeric, example.times, example.node,
            example.pair,
        ),
        folder / HEAD,
        {"nodes": "N", "graph": "P", "stats": "P", "text": "P", "numeric": "P", "times": "R", "node": "R", "pair": "R"},
        ["log_latency", "share"],
    )  # fmt: skip


def _export(
    module: nn.Module, args: tuple[Tensor, ...], path: Path, inputs: Mapping[str, str], outputs: list[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), args, str(path), input_names=list(inputs), output_names=outputs, opset_version=OPSET,
            dynamo=False, dynamic_axes={name: {0: axis} for name, axis in inputs.items()},
        )  # fmt: skip


def write_bundle(
    folder: Path,
    network: LeDGFormer,
    example: Step,
    language: Path,
    trained: tuple[Sequence[str], np.ndarray],
    calibration: Mapping[str, Any],
    summary: Mapping[str, Any],
    card: str,
    familiar: Familiar,
    correction: Correction | None,
) -> None:
    """Writes the whole bundle. `language` holds the sentence table and the student; `trained` sentences and
    their embeddings (n, t) are added to the table; `summary` tells of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(network, example, folder)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / WEIGHTS)
    if language.resolve() != (folder / "language").resolve():
        shutil.copytree(language, folder / "language", dirs_exist_ok=True)
    extend_table(folder / "language", *trained)
    (folder / "calibration.json").write_text(json.dumps(calibration, indent=1) + "\n")
    (folder / "card.md").write_text(card)
    (folder / familiarity.FILE).write_bytes(familiar.to_bytes())
    (folder / CORRECTION).unlink(missing_ok=True)
    if correction is not None:
        (folder / CORRECTION).write_bytes(correction.to_bytes())
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "config.json")
    config = {
        "format": BUNDLE_FORMAT,
        "template_version": TEMPLATE_VERSION,
        "columns": list(COLUMNS),
        "model": asdict(network.config),
        "training": dict(summary),
        "sha256": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def conformal_quantile(y: np.ndarray, p: np.ndarray, of: np.ndarray | None = None, coverage: float = 0.9) -> float:
    """Half-width q of the split-conformal interval [p·e^−q, p·e^q]: of n |ln(y/p)| the share ⌈(m+1)·coverage⌉/m is
    within q, or all of them where m is too small for that.

    m is n, or the number of different `of` (n,): rows of one network err together, and are one sample for the
    correction. Source: Lei et al., Distribution-free predictive inference for regression, 2018.
    """
    scores = np.sort(np.abs(np.log(y / p)))
    samples = len(scores) if of is None else len(np.unique(of))
    rank = int(np.ceil(np.ceil((samples + 1) * coverage) * (len(scores) / samples)))
    return float(scores[min(rank, len(scores)) - 1])

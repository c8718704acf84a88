"""A corpus of made-up networks whose latency is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.ir import Graph, GraphBuilder
from costmodel.training.corpus import Corpus, Row, lower, read_corpus, write_shard

PLATFORMS = [("t4", "fp16", "tensorrt"), ("v100", "fp32", "pytorch-eager"), ("2080ti", "fp32", "pytorch-eager")]


def network(width: int, depth: int) -> Graph:
    b = GraphBuilder(f"net{width}x{depth}")
    x = b.input((1, width))
    for _ in range(depth):
        y = b.node("Gemm", [x, b.param((width, width)), b.param((width,))], (1, width), transA=0, transB=1)
        x = b.node("Add", [b.node("Relu", [y], (1, width)), x], (1, width))
    return b.build([x])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """40 networks on three platforms at batch 1 and 16: a launch per layer and a cost per multiplication."""
    cache = tmp_path_factory.mktemp("cache")
    graphs, rows = [], []
    for width in range(64, 1024, 24):
        depth, name = 1 + width % 5, f"net/{width}"
        graphs.append(lower(name, network(width, depth)))
        for k, (device, precision, runtime) in enumerate(PLATFORMS):
            for batch in (1, 16):
                ms = (k + 1) * depth * (0.01 + 1e-8 * width**2 * batch)
                rows.append(Row(name, device, runtime, precision, batch, ms, "made"))
    write_shard(Path(cache) / "tiny", graphs, rows, [])
    return read_corpus(cache, ["tiny"])

"""Writes a bundle's ONNX files again from its weights: `python tools/reexport.py BUNDLE`.

For bundles that were trained before the export changed. The new files must answer as the old ones do, within 1e-4 on a
random pack of graphs, or the bundle is left as it was. Checksums in config.json follow.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from costmodel.bundle import ENCODE, HEAD, WEIGHTS
from costmodel.model import Batch, LeDGFormer, ModelConfig
from costmodel.sessions import open_session
from costmodel.training.export import export_onnx

TOLERANCE = 1e-4


def example(config: ModelConfig, seed: int = 0) -> Any:
    """A pack of two random chains on one platform each, as `export_onnx` and both networks take it."""
    torch.manual_seed(seed)
    nodes = 4 * (config.window or 64)
    half, used = nodes // 2, nodes - 3
    own = torch.arange(nodes)
    src, seg = [], []
    for relation, (source, target) in enumerate(((1, 0), (0, 1), (0, 2))):
        at = own[: half - 3]
        src += [at + source, at + half + source]
        seg += [relation * nodes + at + target, relation * nodes + at + half + target]
    order = torch.argsort(torch.cat(seg), stable=True)
    batch = Batch(
        torch.randn(nodes, config.text_width), torch.randn(nodes, config.node_features),
        (own >= half).long() + (own >= used).long(), torch.cat(src)[order], torch.cat(seg)[order],
        torch.rand(2, config.graph_features),
    )  # fmt: skip
    node = own[:used]
    return SimpleNamespace(
        batch=batch, pair_graph=torch.arange(2), platform_text=torch.randn(2, config.text_width),
        platform_numeric=torch.randn(2, config.platform_features), node=node, pair=(node >= half).long(),
        times=torch.randn(used, 4),
    )  # fmt: skip


def answers(folder: Path, step: Any) -> list[np.ndarray]:
    """What a bundle's two networks make of a pack."""
    b = step.batch
    feed = {name: getattr(b, name).numpy() for name in ("text", "numeric", "graph", "src", "seg", "stats")}
    nodes, graphs = _run(folder / ENCODE, feed)
    feed = {
        "nodes": nodes, "graph": graphs, "stats": b.stats.numpy(), "text": step.platform_text.numpy(),
        "numeric": step.platform_numeric.numpy(), "times": step.times.numpy(), "node": step.node.numpy(),
        "pair": step.pair.numpy(),
    }  # fmt: skip
    return [nodes, graphs, *_run(folder / HEAD, feed)]


def _run(path: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = open_session(str(path), path.name)
    wanted = {i.name for i in session.get_inputs()}
    return session.run(None, {name: value for name, value in feed.items() if name in wanted})


def reexport(folder: Path) -> float:
    """Rewrites a bundle in place and returns the largest change of an answer. Raises ValueError beyond TOLERANCE."""
    config = json.loads((folder / "config.json").read_text())
    network = LeDGFormer(ModelConfig(**config["model"])).eval()
    network.load_state_dict(load_file(folder / WEIGHTS))
    step = example(network.config)
    with tempfile.TemporaryDirectory() as made:
        export_onnx(network, step, Path(made))
        pairs = zip(answers(folder, step), answers(Path(made), step), strict=True)
        change = max(float(np.abs(old - new).max()) for old, new in pairs)
        if not change <= TOLERANCE:
            raise ValueError(f"answers change by {change:.2g}, more than {TOLERANCE:g}; the bundle is left as it was")
        for name in (ENCODE, HEAD):
            shutil.copyfile(Path(made) / name, folder / name)
            config["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return change


def main() -> None:
    """Rewrites one bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    try:
        print(f"largest change of an answer: {reexport(parser.parse_args().bundle):.2g}")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""Real networks ready to run: the light models that come with onnx and graphs of timm_graphs.tar.xz, weights random."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import onnx

from profiler.weights import bind_shapes, fill_weights, make_inputs

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def light() -> Iterator[tuple[str, onnx.ModelProto]]:
    """The light models, whose weights are made at run time."""
    for path in sorted(LIGHT.glob("*.onnx")):
        yield path.stem, onnx.load(str(path))


def timm(data: Path, names: Collection[str]) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The named graphs of the archive under `data`, without weights, in the archive's order."""
    with tarfile.open(data / "timm_graphs.tar.xz") as archive:
        for member in archive:
            name = Path(member.name).stem
            file = archive.extractfile(member) if member.name.endswith(".onnx") and name in names else None
            if file is not None:
                yield name, onnx.load_from_string(file.read())


def ready(model: onnx.ModelProto, seed: int = 0) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model at batch 1 with random weights, in place, and random feeds. Raises InputError."""
    bind_shapes(model, 1, {})
    fill_weights(model, None, seed)
    return model, make_inputs(model, seed)

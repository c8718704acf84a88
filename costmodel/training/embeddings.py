"""Teacher embeddings of a corpus's sentences, kept in the cache folder so that each sentence is embedded once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

RANDOM = "+random"
"""Behind an encoder's name: the same network with fresh weights, the ablation of pretraining."""


def embed(sentences: Sequence[str], cache: Path, encoder: str, say: Callable[[str], None]) -> np.ndarray:
    """(n, t) float16 embeddings in order; new sentences go through the teacher named `encoder`."""
    folder = cache / f"embeddings-{encoder.replace('/', '_')}"
    folder.mkdir(parents=True, exist_ok=True)
    names, vectors = folder / "sentences.json", folder / "vectors.npy"
    known: list[str] = json.loads(names.read_text()) if names.exists() else []
    table = np.load(vectors)[: len(known)] if known else None
    place = {s: i for i, s in enumerate(known)}
    fresh = [s for s in dict.fromkeys(sentences) if s not in place]
    if fresh:
        from costmodel.teacher import Teacher

        say(f"embedding {len(fresh)} sentences with {encoder} …")
        teacher = Teacher(encoder.removesuffix(RANDOM))
        if encoder.endswith(RANDOM):
            teacher.randomize(0)
        for start in range(0, len(fresh), 20_000):
            part = fresh[start : start + 20_000]
            new = teacher.encode(part).astype(np.float16)
            table = new if table is None else np.concatenate([table, new])
            known += part
            np.save(vectors, table)  # the longer table first: a cut leaves sentences.json a valid prefix
            names.write_text(json.dumps(known))
            say(f"  {start + len(part)}/{len(fresh)} sentences")
        place = {s: i for i, s in enumerate(known)}
    if table is None:
        raise ValueError("there are no sentences to embed")
    return table[[place[s] for s in sentences]]

"""Measured schedules as plain arrays, for files without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.integrations.tvm.loops import LOOP_FEATURES, LoopGraph

MEMORY = "memory"


@dataclass
class Task:
    """Measured schedules of one workload: graphs, ln of seconds (+inf: did not run), platform (PLATFORM_NUMBERS,)."""

    platform: NDArray[np.float32]
    graphs: list[LoopGraph] = field(default_factory=list)
    log_seconds: list[float] = field(default_factory=list)

    def targets(self) -> NDArray[np.float32]:
        """ln seconds; schedules that did not run count as twice the slowest."""
        seconds = np.asarray(self.log_seconds, np.float32)
        ran = np.isfinite(seconds)
        worst = seconds[ran].max() + np.log(2) if ran.any() else 0.0
        return np.where(ran, seconds, worst).astype(np.float32)


def to_arrays(tasks: Mapping[str, Task]) -> dict[str, NDArray[Any]]:
    """Arrays that `from_arrays` turns back into the same tasks; their names begin with `memory` or `task<i>.`."""
    arrays: dict[str, NDArray[Any]] = {}
    listed: list[dict[str, Any]] = []
    for name, task in tasks.items():
        said: dict[str, int] = {}
        rows = [said.setdefault(s, len(said)) for g in task.graphs for s in g.sentences]
        key = f"task{len(listed)}"
        listed.append({"name": name, "said": list(said)})
        nothing = np.zeros((0, LOOP_FEATURES), np.float32)
        arrays |= {
            f"{key}.seconds": np.asarray(task.log_seconds, np.float64),
            f"{key}.platform": task.platform,
            f"{key}.nodes": np.asarray([len(g) for g in task.graphs], np.int64),
            f"{key}.edges": np.asarray([len(g.pairs) for g in task.graphs], np.int64),
            f"{key}.numbers": np.concatenate([g.numbers for g in task.graphs] or [nothing]),
            f"{key}.baseline": np.concatenate([g.baseline for g in task.graphs] or [nothing[:, 0]]),
            f"{key}.pairs": np.concatenate([g.pairs for g in task.graphs] or [np.zeros((0, 2), np.int64)]),
            f"{key}.sentence": np.asarray(rows, np.int64),
        }
    arrays[MEMORY] = np.frombuffer(json.dumps(listed).encode(), np.uint8)
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Task]:
    """Tasks by name; none if the arrays hold no memory."""
    if MEMORY not in arrays:
        return {}
    listed = json.loads(arrays[MEMORY].tobytes())
    return {entry["name"]: _task(entry["said"], f"task{i}", arrays) for i, entry in enumerate(listed)}


def _task(said: Sequence[str], key: str, arrays: Mapping[str, NDArray[Any]]) -> Task:
    nodes, edges, sentence = (arrays[f"{key}.{name}"] for name in ("nodes", "edges", "sentence"))
    graphs, row, edge = [], 0, 0
    for count, pairs in zip(nodes.tolist(), edges.tolist(), strict=True):
        part = slice(row, row + count)
        graphs.append(
            LoopGraph(
                numbers=arrays[f"{key}.numbers"][part],
                sentences=tuple(said[i] for i in sentence[part]),
                pairs=arrays[f"{key}.pairs"][edge : edge + pairs],
                baseline=arrays[f"{key}.baseline"][part],
            )
        )
        row, edge = row + count, edge + pairs
    return Task(arrays[f"{key}.platform"], graphs, arrays[f"{key}.seconds"].tolist())

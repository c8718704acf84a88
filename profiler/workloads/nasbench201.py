"""NAS-Bench-201 networks (Dong and Yang 2020) as deployed: only what reaches the output, BatchNorm folded.

A cell has four nodes; the edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3 carry one of five operations each, 15,625 cells in all.
Zeroed edges, and edges that lead only to such, take no part. What is left repeats: cells that differ only in dead edges
or in where a skip sits are one network.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

from onnx import ModelProto

from profiler.workloads.net import Net

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "pool3x3")

Cell = tuple[str, ...]
"""The operation of each of EDGES."""


def nasbench201(net: Net, cell: Cell, classes: int = 10) -> ModelProto:
    """The network of a cell on (N, 3, 32, 32): a stem and three stages of five cells at 16, 32 and 64 channels."""
    x = net.conv(net.input((3, 32, 32)), 16, 3, "stem")
    for stage, channels in enumerate((16, 32, 64)):
        if stage:
            x = _reduction(net, x, channels, f"reduction{stage}")
        for i in range(5):
            x = _cell(net, x, cell, f"stage{stage}.{i}")
    return net.classifier(net.act(net.batch_norm(x, "lastact"), "relu", "lastact"), classes)


@lru_cache(maxsize=1)
def distinct_cells() -> tuple[Cell, ...]:
    """One cell for each distinct network that depends on its input, in a scattered order that never changes."""
    cells = list(product(OPERATIONS, repeat=len(EDGES)))
    found: dict[Any, Cell] = {}
    for i in range(len(cells)):
        cell = cells[i * 9_011 % len(cells)]  # coprime with 5, so every cell comes once and neighbours differ much
        terms = _expression(cell, 3)
        if terms is not None:
            found.setdefault(terms, cell)
    return tuple(found.values())


def _expression(cell: Cell, node: int) -> Any:
    """What a node computes, alike for cells that compute the same; None if nothing reaches it."""
    if node == 0:
        return "x"
    terms = []
    for (source, target), op in zip(EDGES, cell, strict=True):
        if target == node and op != "none":
            term = _expression(cell, source)
            if term is not None:
                terms.append(term if op == "skip" else (op, term))
    if not terms:
        return None
    return terms[0] if len(terms) == 1 else ("sum", *sorted(terms, key=repr))


def _live(cell: Cell) -> set[int]:
    """Indices of the edges that lie on a path from node 0 to node 3."""
    fed, needed = {0}, {3}
    open_edges = [(i, edge) for i, (edge, op) in enumerate(zip(EDGES, cell, strict=True)) if op != "none"]
    for _, (source, target) in open_edges:
        if source in fed:
            fed.add(target)
    for _, (source, target) in reversed(open_edges):
        if target in needed:
            needed.add(source)
    return {i for i, (source, target) in open_edges if source in fed and target in needed}


def _cell(net: Net, x: str, cell: Cell, at: str) -> str:
    nodes = {0: x}
    for i in sorted(_live(cell)):
        source, target = EDGES[i]
        y = _operation(net, nodes[source], cell[i], f"{at}.{source}-{target}")
        nodes[target] = net.add(nodes[target], y, f"{at}.{target}") if target in nodes else y
    return nodes[3]


def _operation(net: Net, x: str, op: str, at: str) -> str:
    if op == "skip":
        return x
    if op == "pool3x3":
        return net.pool(x, 3, 1, at, "AveragePool", pad=1)
    return net.conv(net.act(x, "relu", at), net.shapes[x][0], 1 if op == "conv1x1" else 3, at)


def _reduction(net: Net, x: str, channels: int, at: str) -> str:
    """The residual block that halves the map and doubles the channels."""
    y = net.conv(net.act(x, "relu", f"{at}.0"), channels, 3, f"{at}.0", stride=2)
    y = net.conv(net.act(y, "relu", f"{at}.1"), channels, 3, f"{at}.1")
    return net.add(net.conv(net.pool(x, 2, 2, f"{at}.pool", "AveragePool"), channels, 1, f"{at}.skip"), y, at)

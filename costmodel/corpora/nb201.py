"""NAS-Bench-201 networks (Dong and Yang 2020, arXiv:2001.00326) from their arch strings.

A network is a 3×3 stem to 16 channels, three stages of five cells at 16, 32 and 64 channels with a residual block of
stride 2 between, and BN-ReLU-pool-linear, on 3×32×32. A cell has four nodes; an arch string gives the operation of each
edge, the edges into node 1, 2 and 3 between plus signs: `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|…~0|…~1|…~2|`.

Two forms, because both are measured. As the published code runs it (the default): `none` multiplies by zero, each
node's sum starts from the number 0, and edges that lead nowhere run like all others. HELP's times on GPUs and Xeons
show exactly that: at batch 256 they are a sum over edges with R² above 0.999 in which an edge to nowhere costs the same
as a live one and `none` more than `skip_connect`. And `folded`, as compilers leave it: zeros, empty sums and all that
does not reach the output are gone. TensorRT's times (NNLQP) and HW-NAS-Bench's on Pixel 3 and Raspberry Pi 4 show that:
there, six `none` take no time.
"""

from __future__ import annotations

import re
from functools import partial

from costmodel.corpora.blocks import NetBuilder
from costmodel.errors import InputError
from costmodel.ir import Graph

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_EDGE = re.compile(r"(\w+)~(\d)")

Cell = tuple[tuple[tuple[str, int], ...], ...]


def parse(arch: str) -> Cell:
    """For each of the nodes 1, 2 and 3, its incoming edges as (operation, source node).

    Raises InputError for anything but a NAS-Bench-201 arch string.
    """
    cell = tuple(
        tuple((op, int(source)) for op, source in _EDGE.findall(part))
        for part in arch.removeprefix("nb201/").split("+")
    )
    sources = [[source for _, source in edges] for edges in cell]
    if sources != [[0], [0, 1], [0, 1, 2]] or any(op not in OPERATIONS for edges in cell for op, _ in edges):
        raise InputError(
            f"'{arch}' is not a NAS-Bench-201 cell; write '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|' with op one of"
            f" {', '.join(OPERATIONS)}"
        )
    return cell


def build(arch: str, batch: int = 1, folded: bool = False, classes: int = 10) -> Graph:
    """The network of an arch string on (batch, 3, 32, 32).

    `folded` gives what compilers leave of it instead of what the published code runs. Raises InputError.
    """
    cell = parse(arch)
    net = NetBuilder(f"nb201/{arch.removeprefix('nb201/')}")
    x = net.input((batch, 3, 32, 32), name="input")
    if folded and not _live(cell):
        # The result is a constant; an empty graph has no cost to learn, so one multiplication stands for it.
        return net.build([net.scalar("Mul", x)])
    x = net.conv_bn(x, 16, 3)
    for channels in (16, 32, 64):
        if channels > 16:
            x = _reduction(net, x, channels)
        x = net.repeat(x, partial(_folded_cell if folded else _cell, net, cell=cell), 5)
    x = net.unary("Relu", net.batch_norm(x))
    return net.build([net.linear(net.flatten(net.global_pool(x)), classes)])


def _cell(net: NetBuilder, x: str, cell: Cell) -> str:
    nodes = [x]
    for edges in cell:
        total = ""
        for op, source in edges:
            y = _operation(net, nodes[source], op)
            total = net.plus(total, y) if total else net.scalar("Add", y)
        nodes.append(total)
    return nodes[-1]


def _live(cell: Cell) -> set[tuple[int, int]]:
    """Edges (source, target) on a path from node 0 to node 3 that no `none` cuts."""
    edges = [(source, target) for target, into in enumerate(cell, 1) for op, source in into if op != "none"]
    fed, needed = {0}, {3}
    for source, target in edges:
        if source in fed:
            fed.add(target)
    for source, target in reversed(edges):
        if target in needed:
            needed.add(source)
    return {(source, target) for source, target in edges if source in fed and target in needed}


def fold(arch: str) -> str:
    """The arch string with `none` on every edge that does not reach the output: one for all cells that fold alike.

    Raises InputError.
    """
    cell = parse(arch)
    live = _live(cell)
    parts = (
        "".join(f"|{op if (source, target) in live else 'none'}~{source}" for op, source in edges)
        for target, edges in enumerate(cell, 1)
    )
    return "|+".join(parts) + "|"


def _folded_cell(net: NetBuilder, x: str, cell: Cell) -> str:
    live = _live(cell)
    nodes = [x, "", "", ""]
    for target, edges in enumerate(cell, 1):
        for op, source in edges:
            if (source, target) in live:
                y = _operation(net, nodes[source], op)
                nodes[target] = net.plus(nodes[target], y) if nodes[target] else y
    return nodes[3]


def _operation(net: NetBuilder, x: str, op: str) -> str:
    if op == "none":
        return net.scalar("Mul", x)
    if op == "skip_connect":
        return x
    if op == "avg_pool_3x3":
        return net.average_pool(x, 3, 1, 1)
    return _relu_conv_bn(net, x, net.shape(x)[1], 3 if op == "nor_conv_3x3" else 1)


def _relu_conv_bn(net: NetBuilder, x: str, channels: int, kernel: int, stride: int = 1) -> str:
    return net.conv_bn(net.unary("Relu", x), channels, kernel, stride)


def _reduction(net: NetBuilder, x: str, channels: int) -> str:
    """The residual block that halves the map and doubles the channels."""
    y = _relu_conv_bn(net, _relu_conv_bn(net, x, channels, 3, 2), channels, 3)
    return net.plus(net.conv(net.average_pool(x, 2, 2), channels, 1), y)

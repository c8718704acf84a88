"""A plan as a Graphviz graph: one box per part, one node per unit, transfers as bold edges with their size."""

from __future__ import annotations

from costmodel.partition.plan import Plan
from costmodel.tables import amount, ms

COLOURS = ("#cfe2f3", "#fce5cd", "#d9ead3", "#ead1dc", "#fff2cc", "#d0e0e3", "#e6e6e6", "#f4cccc")
"""Fill of a device's parts, in the order of the plan's platforms."""


def dot(plan: Plan) -> str:
    """The text of a DOT file (`dot -Tsvg plan.dot`)."""
    graph = plan.graph
    groups = {i: p for p, part in enumerate(plan.parts) for i in part.nodes}
    lines = [
        "digraph partition {",
        "  rankdir=TB; node [shape=box, style=filled, fillcolor=white, fontname=Helvetica, fontsize=9];",
        f"  label={_quoted(f'{graph.name}: {plan.verdict}')}; labelloc=t; fontname=Helvetica;",
    ]
    for p, part in enumerate(plan.parts):
        platform = plan.platforms[part.device]
        title = f"part {p} on {platform.name}, {ms(part.compute_ms)}"
        colour = COLOURS[part.device % len(COLOURS)]
        lines.append(f"  subgraph cluster_{p} {{ label={_quoted(title)}; style=filled; color={_quoted(colour)};")
        lines += [
            f"    n{i} [label={_quoted(graph.nodes[i].op)}, tooltip={_quoted(graph.nodes[i].name)}];"
            for i in part.nodes
        ]
        lines.append("  }")
    sent = {t.tensor: t for t in plan.transfers}
    for tensor, maker in graph.producer.items():
        for reader in graph.consumers.get(tensor, ()):
            crosses = groups[maker] != groups[reader] and tensor in sent
            style = ""
            if crosses:
                label = f"{sent[tensor].spec}, {amount(sent[tensor].size)}B, {ms(sent[tensor].ms)}"
                style = f" [penwidth=3, color=red, fontsize=9, label={_quoted(label)}]"
            lines.append(f"  n{maker} -> n{reader}{style};")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'

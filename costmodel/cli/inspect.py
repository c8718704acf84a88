"""`ledg-cost inspect`."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import click

from costmodel.analysis import Analysis, analyze
from costmodel.api import load_graph
from costmodel.cli.options import batches, model_options, shapes, source, with_options
from costmodel.fusion import fusion_groups
from costmodel.ir import Graph
from costmodel.tables import amount, table


@click.command("inspect")
@click.argument("model")
@click.option("--batch", "-b", "batch", multiple=True, metavar="N", help="Batch size; default: 1, or the model's own.")
@with_options(model_options)
@click.option("--nodes", is_flag=True, help="List every node.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: str, batch: tuple[str, ...], shape: tuple[str, ...], strict: bool, nodes: bool, as_json: bool
) -> None:
    """What MODEL ('-' reads standard input) lowers to: operators, work, memory, coverage, fingerprint."""
    sizes = batches(batch)
    if len(sizes) > 1:
        raise click.BadParameter("inspect takes one batch size; give --batch once")
    graph = load_graph(source(model), sizes[0], shapes(shape), strict)
    analysis = analyze(graph)
    if as_json:
        click.echo(json.dumps(_record(graph, analysis, nodes), indent=1))
    else:
        click.echo("\n".join(_report(graph, analysis, nodes)))


def _record(graph: Graph, analysis: Analysis, nodes: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "schema": 1, "name": graph.name, "fingerprint": graph.fingerprint, "nodes": len(graph),
        "inputs": {t: str(graph.tensors[t]) for t in graph.inputs},
        "outputs": {t: str(graph.tensors[t]) for t in graph.outputs},
        "flops": analysis.flops, "macs": analysis.macs, "params": analysis.params,
        "read_bytes": analysis.read_bytes, "write_bytes": analysis.write_bytes,
        "peak_memory_bytes": analysis.peak_memory_bytes, "coverage": analysis.coverage,
        "operators": dict(Counter(n.op for n in graph.nodes).most_common()), "unknown": _unknown(graph, analysis),
    }  # fmt: skip
    if nodes:
        groups = fusion_groups(graph)
        record["node_list"] = [
            {
                "name": n.name, "op": n.op, "group": g, "flops": c.flops, "params": c.params,
                "outputs": [str(graph.tensors[t]) for t in n.outputs if t],
            }
            for n, c, g in zip(graph.nodes, analysis.nodes, groups, strict=False)
        ]  # fmt: skip
    return record


def _unknown(graph: Graph, analysis: Analysis) -> dict[str, int]:
    return dict(Counter(n.op for n, c in zip(graph.nodes, analysis.nodes, strict=False) if not c.known))


def _report(graph: Graph, analysis: Analysis, nodes: bool) -> list[str]:
    def specs(tensors: tuple[str, ...]) -> str:
        shown = ", ".join(f"{t} {graph.tensors[t]}" for t in tensors[:4])
        return shown + (f" … {len(tensors) - 4} more" if len(tensors) > 4 else "")

    groups = fusion_groups(graph)
    unknown = _unknown(graph, analysis)
    counts = Counter(n.op for n in graph.nodes).most_common()
    lines = [
        f"{graph.name}: {len(graph)} nodes in {len(set(groups))} fusion groups, fingerprint {graph.fingerprint[:16]}",
        f"inputs    {specs(graph.inputs)}",
        f"outputs   {specs(graph.outputs)}",
        f"work      {amount(analysis.flops)}FLOP ({amount(analysis.macs)}MAC), {amount(analysis.params)} parameters",
        f"traffic   {amount(analysis.read_bytes)}B read, {amount(analysis.write_bytes)}B written,"
        f" {amount(analysis.peak_memory_bytes)}B peak memory",
        "operators "
        + ", ".join(f"{op} {n}" for op, n in counts[:12])
        + (f" … {len(counts) - 12} more" if len(counts) > 12 else ""),
        f"coverage  {analysis.coverage:.1%}"
        + (f", unknown: {', '.join(f'{op} {n}' for op, n in unknown.items())}" if unknown else ""),
    ]
    if nodes:
        rows = [
            [
                n.name[-40:],
                n.op,
                str(g),
                f"{amount(c.flops)}FLOP",
                ", ".join(str(graph.tensors[t]) for t in n.outputs if t),
            ]
            for n, c, g in zip(graph.nodes, analysis.nodes, groups, strict=False)
        ]
        lines += ["", *table(["node", "operator", "group", "work", "outputs"], rows)]
    return lines

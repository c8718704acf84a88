"""`ledg-cost partition`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from costmodel.api import load_graph, parse_platform
from costmodel.cli.options import batches, model_options, shapes, with_options, words
from costmodel.errors import InputError
from costmodel.estimates import CostModel, Roofline, native_precision
from costmodel.ir import Graph
from costmodel.partition import FileCuts, Plan, parse_link, partition
from costmodel.platforms import Platform, load_device
from costmodel.tables import amount, ms, table

MOST_ROWS = 9


@click.command("partition")
@click.argument("model", type=click.Path())
@click.option(
    "--devices", "-d", "devices", multiple=True, required=True, metavar="D[:P[:R]],…",
    help="Devices in pipeline order, each device[:precision[:runtime]].",
)  # fmt: skip
@click.option(
    "--link", default="pcie3x16", show_default=True, metavar="LINK|GBPS:US",
    help="pcie3x16, pcie4x16, pcie5x16, nvlink3, eth10g, eth1g, usb3, or GB/s and microseconds such as 12.5:20.",
)  # fmt: skip
@click.option(
    "--objective", type=click.Choice(["latency", "throughput", "memory"]), default="latency", show_default=True
)
@click.option(
    "--method", type=click.Choice(["auto", "pipeline", "placement"]), default="auto", show_default=True,
    help="pipeline: one consecutive stage per device; placement: any pattern on two devices.",
)  # fmt: skip
@click.option("--any-order", is_flag=True, help="A pipeline may take the devices in any order.")
@click.option("--memory", "memory", multiple=True, metavar="DEVICE=GB", help="Memory, in place of the spec sheet's.")
@click.option("--unsupported", multiple=True, metavar="DEVICE=OP[,…]", help="Operators that a device cannot run.")
@click.option("--batch", "-b", "batch", multiple=True, metavar="N", help="Batch size; default: 1, or the model's own.")
@with_options(model_options)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON (schema 1).")
@click.option("--split", "folder", type=click.Path(), metavar="DIR", help="Write one ONNX file per part and plan.json.")
@click.option("--dot", "dot_file", type=click.Path(), metavar="FILE", help="Write a Graphviz picture of the plan.")
@click.option("--bundle", type=click.Path(), help="Another trained bundle.")
@click.option("--cost-model", type=click.Choice(["ledg-former", "roofline"]), default="ledg-former", show_default=True)
def command(
    model: str, devices: tuple[str, ...], link: str, objective: str, method: str, any_order: bool,
    memory: tuple[str, ...], unsupported: tuple[str, ...], batch: tuple[str, ...], shape: tuple[str, ...],
    strict: bool, as_json: bool, folder: str | None, dot_file: str | None, bundle: str | None, cost_model: str,
) -> None:  # fmt: skip
    """Where to cut MODEL between devices, and whether that pays."""
    sizes = batches(batch)
    if len(sizes) > 1:
        raise click.BadParameter("partition takes one batch size; give --batch once")
    wanted = [w for value in devices for w in value.split(",") if w.strip()]
    over = parse_link(link)
    for text in wanted:  # a wrong name is told before the model is read
        load_device(text.split(":")[0])
    graph = load_graph(model, sizes[0], shapes(shape), strict)
    native = native_precision(graph)
    platforms = [parse_platform(text, native) for text in wanted]
    cuts = _cuts(model, graph) if folder or _is_onnx(model) else None
    plan = partition(
        graph, platforms, over, objective, method=method, any_order=any_order, file=cuts,
        cost_model=_cost_model(cost_model, bundle),
        unsupported={d: words([ops]) for d, ops in _per_device(unsupported, "--unsupported", platforms).items()},
        memory_gb={d: _gigabytes(gb) for d, gb in _per_device(memory, "--memory", platforms).items()},
    )  # fmt: skip
    files = _split(Path(model), plan, Path(folder)) if folder else []
    if dot_file:
        from costmodel.partition.picture import dot

        _write(Path(dot_file), dot(plan), "--dot")
    if as_json:
        click.echo(json.dumps(plan.as_record() | ({"files": files} if files else {}), indent=1))
    else:
        click.echo("\n".join(_report(plan, files)))


def _cost_model(name: str, bundle: str | None) -> CostModel:
    if name == "roofline":
        return Roofline()
    from costmodel import predictor

    return predictor.load(bundle) if bundle else predictor.load()


def _is_onnx(model: str) -> bool:
    return model.lower().endswith(".onnx")


def _cuts(model: str, graph: Graph) -> FileCuts:
    from costmodel.partition.split import file_cuts, read_model

    return file_cuts(read_model(Path(model)), graph)


def _per_device(values: Sequence[str], option: str, platforms: Sequence[Platform]) -> Mapping[int, str]:
    """`DEVICE=VALUE` per index; DEVICE is a name or a position from 1."""
    found: dict[int, str] = {}
    for value in values:
        name, _, rest = value.partition("=")
        places = [d for d, p in enumerate(platforms) if name in (str(d + 1), p.device.name, *p.device.aliases)]
        if not places or not rest:
            known = ", ".join(p.device.name for p in platforms)
            raise click.BadParameter(f"cannot read {option} {value!r}; write DEVICE=…, DEVICE one of {known}")
        found.update(dict.fromkeys(places, rest))
    return found


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise click.BadParameter(f"--memory {text!r} is not a size; give gigabytes such as t4=8")
    return value


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError(f"cannot write '{path}' ({error.strerror}); give {option} another path") from error


def _split(path: Path, plan: Plan, folder: Path) -> list[str]:
    """Writes the parts and plan.json, which names them and the network's results for `integrations.ort.open_plan`."""
    from costmodel.partition.split import read_model, split_plan, write_parts

    model = read_model(path)
    labels = [plan.platforms[part.device].device.name for part in plan.parts]
    files = [str(file) for file in write_parts(path, split_plan(model, plan), labels, folder)]
    results = {"files": [Path(file).name for file in files], "outputs": [out.name for out in model.graph.output]}
    _write(folder / "plan.json", json.dumps(plan.as_record() | results, indent=1), "--split")
    return files


def _report(plan: Plan, files: Sequence[str]) -> list[str]:
    graph = plan.graph
    proven = "proven best" if plan.exact else "not proven best: a memory limit binds"
    lines = [f"{graph.name}: {plan.method} for {plan.objective} over {plan.link.name}, {proven}"]
    rows = []
    for p, part in enumerate(plan.parts[:MOST_ROWS]):
        first, last = ((graph.nodes[i].name or graph.nodes[i].op)[-28:] for i in (part.nodes[0], part.nodes[-1]))
        rows.append(
            [
                str(p), plan.platforms[part.device].name, str(len(part.nodes)), f"{first} … {last}",
                ms(part.compute_ms), _received(plan, p),
            ]
        )  # fmt: skip
    lines += table(["part", "platform", "nodes", "from … to", "compute", "received"], rows)
    if len(plan.parts) > MOST_ROWS:
        lines.append(f"… {len(plan.parts) - MOST_ROWS} more parts; --json prints all")
    alone = ", ".join(
        f"{p.name} {ms(single) if single is not None else 'cannot'}"
        for p, single in zip(plan.platforms, plan.single_ms, strict=True)
    )
    memory = ", ".join(
        f"{p.device.name} {amount(size)}B" for p, size in zip(plan.platforms, plan.memory_bytes, strict=True)
    )
    lines += [
        f"latency {ms(plan.latency_ms)}, a stream takes {ms(plan.bottleneck_ms)} each; memory {memory}",
        f"alone: {alone}",
        plan.verdict,
    ]
    if files:
        lines.append(f"wrote {len(files)} parts and plan.json to {Path(files[0]).parent}")
    return lines


def _received(plan: Plan, part: int) -> str:
    found = [t for t in plan.transfers if t.target == part]
    if not found:
        return "-"
    many = "s" if len(found) > 1 else ""
    return f"{len(found)} tensor{many}, {amount(sum(t.size for t in found))}B, {ms(sum(t.ms for t in found))}"

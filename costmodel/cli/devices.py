"""`ledg-cost devices list|show|add`."""

from __future__ import annotations

import click

from costmodel.platforms import add_device, list_devices, load_device, supported_precisions
from costmodel.tables import table


@click.group("devices")
def command() -> None:
    """Device spec sheets: throughput per precision, bandwidth, cores and their source."""


@command.command("list")
def list_() -> None:
    """One line for each device that `--target` knows by name."""
    rows = []
    for name in list_devices():
        d = load_device(name)
        precisions = " ".join(p.value for p in supported_precisions(d))
        rows.append([name, d.vendor, d.kind, d.architecture, str(d.year), f"{d.bandwidth_gbs:g} GB/s", precisions])
    click.echo("\n".join(table(["name", "vendor", "kind", "architecture", "year", "bandwidth", "precisions"], rows)))


@command.command("show")
@click.argument("device")
def show(device: str) -> None:
    """The spec sheet of DEVICE (a name, an alias or a TOML file)."""
    d = load_device(device)
    rates = {"matrix": d.peak_matrix, "vector": d.peak_vector}
    lines = [
        f"{d.name}: {d.vendor} {d.architecture} {d.kind}, {d.year}"
        + (f" (also {', '.join(d.aliases)})" if d.aliases else ""),
        *(
            f"{kind} TFLOPS  " + ", ".join(f"{p} {v:g}" for p, v in peaks.items())
            for kind, peaks in rates.items()
            if peaks
        ),
        f"memory  {d.memory_gb or 0:g} GB at {d.bandwidth_gbs:g} GB/s, cache {d.cache_mb or 0:g} MB",
        f"cores  {d.cores}, lanes {d.lanes}, {d.clock_mhz:g} MHz, {d.tdp_w or 0:g} W,"
        f" launch overhead {d.launch_overhead_us:g} µs",
        f"source  {d.source}",
    ]
    if d.notes:
        lines.append(f"notes  {d.notes}")
    click.echo("\n".join(lines))


@command.command("add")
@click.argument("sheet", type=click.Path(exists=True, dir_okay=False))
def add(sheet: str) -> None:
    """Check the TOML file SHEET and keep it, so that `--target` knows its name."""
    device = add_device(sheet)
    click.echo(f"added {device.name}; try `ledg-cost devices show {device.name}`")

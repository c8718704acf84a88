"""`ledg-cost tune`."""

from __future__ import annotations

import json

import click

from costmodel.cli.options import batches, model_options, shapes, with_options
from costmodel.errors import BackendUnavailableError
from costmodel.tables import ms


@click.command("tune")
@click.argument("model", type=click.Path())
@click.option(
    "--target", "-t", default=None, metavar="TARGET",
    help='TVM target of this machine, such as "llvm -mcpu=znver4 -num-cores=2"; default: the CPU found here.',
)  # fmt: skip
@click.option("--trials", type=click.IntRange(0), default=256, show_default=True, help="Schedules to measure in all.")
@click.option(
    "--cost-model", type=click.Choice(["ledg", "ledg-cold", "xgb", "random"]), default="ledg", show_default=True,
    help="ledg-cold is not pretrained; xgb and random are TVM's own.",
)  # fmt: skip
@click.option(
    "--work-dir", type=click.Path(), default="tuning", show_default=True,
    help="Database of measured schedules; a later run goes on from it.",
)  # fmt: skip
@click.option("--repeat", type=click.IntRange(1), default=20, show_default=True, help="Timed runs of the network.")
@click.option("--seed", type=int, default=None, help="Makes the search repeatable; measurements are not.")
@click.option("--batch", "-b", "batch", multiple=True, metavar="N", help="Batch size; default: 1, or the model's own.")
@with_options(model_options[:1])
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (schema 1).")
def command(
    model: str, target: str | None, trials: int, cost_model: str, work_dir: str, repeat: int, seed: int | None,
    batch: tuple[str, ...], shape: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Tune MODEL (ONNX, with weights) for this CPU with TVM MetaSchedule, and time it before and after."""
    sizes = batches(batch)
    if len(sizes) > 1:
        raise click.BadParameter("tune takes one batch size; give --batch once")
    try:
        from costmodel.integrations.tvm.network import tune_model
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(f"{error.name} is not installed; pip install 'ledg-cost[tvm]'") from error
    found = tune_model(
        model, target, trials, work_dir, cost_model, sizes[0], shapes(shape), repeat, seed=seed,
        report=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found.as_record(), indent=1))
        return
    gain = found.before_ms / found.after_ms
    inside = f", {found.model_seconds:.0f} s of it in the cost model" if found.model_seconds is not None else ""
    failed = f", {found.failed} failed" if found.failed else ""
    click.echo(f"{found.model}: {found.tasks} kernels on {found.target}")
    click.echo(f"before  {ms(found.before_ms)}")
    click.echo(f"after   {ms(found.after_ms)}   {gain:.2f} times as fast; outputs differ by {found.error:.1e} at most")
    click.echo(
        f"{found.measured} schedules measured{failed} in {found.seconds:.0f} s{inside}; kept in {found.work_dir}"
    )

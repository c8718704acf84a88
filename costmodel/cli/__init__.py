"""`ledg-cost`: the command line. Each command's module is imported only when that command runs."""

from __future__ import annotations

import gc
import importlib
import os
import sys

import click

from costmodel import __version__
from costmodel.errors import LedgCostError

_COMMANDS = {
    "estimate": "Latency of models on devices you need not have.",
    "compare": "One model on several devices, precisions and batches; the cheapest within a latency budget.",
    "rank": "Thousands of models by latency, from files, folders and search spaces.",
    "inspect": "What a model file lowers to: operators, costs, coverage.",
    "devices": "List, show or add device spec sheets.",
    "partition": "Where to cut a network between devices, and whether it pays.",
    "tune": "Tune an ONNX network for this CPU with TVM, and time it before and after.",
    "profile": "Measure models on this machine into the sample store.",
    "finetune": "Adapt estimates for a device to its samples.",
    "validate": "Predicted against measured: on this machine, or on samples.",
    "samples": "Import, export, query and count the measurements kept here.",
    "evaluate": "Accuracy tables from the corpora.",
    "train": "Train a cost model on the corpora and write a bundle.",
    "doctor": "Check this installation.",
}


class _LazyGroup(click.Group):
    """Knows its commands' names and one-line helps, and imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return importlib.import_module(f"costmodel.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ledg-cost")
def cli() -> None:
    """How long does a network take on a given device, at a given precision, without having the device?"""


def main() -> None:
    """Entry point: expected errors become one line on stderr and exit status 2."""
    try:
        cli.main(standalone_mode=False, terminal_width=_help_columns())
    except LedgCostError as error:
        sys.exit(_complain(str(error)))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "ledg-cost"
        sys.exit(_complain(f"{error.format_message().rstrip('.')}; see `{where} --help`"))
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    finally:
        gc.freeze()  # the interpreter's last collections, a sixth of `--help`, then have nothing to look through


def _help_columns() -> int:
    """Columns of help as click counts them; its own way to ask, shutil, imports every archive format."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stdout.fileno()).columns)
    except (AttributeError, OSError, ValueError):
        columns = 80
    return max(min(columns, 80) - 2, 50)


def _complain(message: str) -> int:
    click.echo("error: " + " ".join(message.split()), err=True)
    return 2

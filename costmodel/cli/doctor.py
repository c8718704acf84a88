"""`ledg-cost doctor`."""

from __future__ import annotations

import sys

import click

from costmodel.doctor import examine


@click.command("doctor")
def command() -> None:
    """Check this installation: packages, bundle, devices, sample store, providers. Exit status 1 if a check fails."""
    checks = examine()
    width = max(len(check.name) for check in checks)
    for check in checks:
        click.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name.ljust(width)}  {check.detail}")
    if not all(check.ok for check in checks):
        sys.exit(1)

"""Who may import whom, and that what the README promises of the tree holds."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPOSERS = ("costmodel/cli/", "costmodel/api.py", "costmodel/integrations/")
HEAVY = {"torch", "transformers", "tvm", "pandas", "pyarrow", "onnxruntime", "tokenizers", "lark", "networkx", "onnx"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", modules("costmodel"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_knows_no_frontend(path: Path) -> None:
    if not str(path.relative_to(ROOT)).startswith(COMPOSERS):
        assert not {m for m in imports(path) if m.split(".")[0] in ("frontends", "profiler")}


@pytest.mark.parametrize("path", modules("frontends"), ids=lambda p: str(p.relative_to(ROOT)))
def test_frontends_know_only_the_ir(path: Path) -> None:
    core = {m for m in imports(path) if m.startswith("costmodel")}
    assert core <= {"costmodel.ir", "costmodel.errors", "costmodel.canonical"}


@pytest.mark.parametrize("path", modules("costmodel/samples"), ids=lambda p: str(p.relative_to(ROOT)))
def test_samples_know_no_cost_model(path: Path) -> None:
    core = {m for m in imports(path) if m.startswith("costmodel")}
    own = {m for m in core if m.startswith(("costmodel.samples", "costmodel.corpora.nnlqp"))}
    plain = {f"costmodel.{m}" for m in ("ir", "errors", "platforms", "graph_json", "onnx_writer", "corpora")}
    assert core - own <= {"costmodel", *plain}


@pytest.mark.parametrize("path", modules("profiler"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_profiler_knows_platforms_and_samples_only(path: Path) -> None:
    core = {".".join(m.split(".")[:2]) for m in imports(path) if m.split(".")[0] in ("costmodel", "frontends")}
    assert core <= {"costmodel", *(f"costmodel.{part}" for part in ("ir", "errors", "platforms", "samples", "devices"))}


@pytest.mark.parametrize("package", ["costmodel", "frontends", "profiler", "tools"])
def test_modules_stay_short(package: str) -> None:
    long = {p.name: n for p in modules(package) if (n := len(p.read_text().splitlines())) > 450}
    assert not long


def test_importing_the_packages_is_light() -> None:
    code = f"import sys, costmodel, frontends, costmodel.cli; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_data_file_is_packaged() -> None:
    """A wheel holds what `package-data` names; an editable install would hide a forgotten file."""
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("costmodel", "frontends"):
        packed = {p for pattern in patterns[package] for p in (ROOT / package).glob(pattern)}
        data = {p for p in (ROOT / package).rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
        assert data
        assert data <= packed


def test_public_names_exist() -> None:
    import costmodel

    for name in costmodel.__all__:
        assert getattr(costmodel, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        costmodel.nothing_here  # noqa: B018


def test_every_command_of_the_help_exists() -> None:
    import click

    from costmodel.cli import cli

    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help

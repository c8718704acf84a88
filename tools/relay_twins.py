"""Compares Relay programs with the ONNX models that they were made from: the same graph, the same estimate."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from costmodel.errors import LedgCostError
from frontends.onnx_load import load as load_onnx
from frontends.relay_load import load as load_relay
from tools.agreement import QUANTITIES, Row, compare, explained, tally, within


def twins(programs: Path, archive: Path | None) -> Iterator[tuple[str, Path, Path | bytes]]:
    """Name, program and ONNX model: beside the program, among the light models of the onnx package, or in the archive
    of timm graphs. A program without a model is left out."""
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    waiting = {}
    for path in sorted(programs.glob("*.relay")):
        found = [p for p in (path.with_suffix(".onnx"), light / f"{path.stem}.onnx") if p.exists()]
        if found:
            yield path.stem, path, found[0]
        else:
            waiting[path.stem] = path
    if archive is not None and waiting:
        with tarfile.open(archive) as tar:
            for member in tar:
                stem = Path(member.name).stem
                file = tar.extractfile(member) if stem in waiting and member.name.endswith(".onnx") else None
                if file is not None:
                    yield stem, waiting.pop(stem), file.read()


def check_twins(programs: Path, archive: Path | None, table: dict[str, Any]) -> bool:
    """Prints what differs between the twins and fills the table; False if an estimate or a size is outside 1 %."""
    rows: dict[str, Row] = {}
    failed: dict[str, str] = {}
    for name, program, model in twins(programs, archive):
        try:
            rows[name] = compare(load_onnx(model), load_relay(program))
        except LedgCostError as error:
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"  {name}: {failed[name]}")
    outside = {n: {k: r[k] for k in (*QUANTITIES, "estimate") if not within(r[k])} for n, r in rows.items()}
    outside = {name: found for name, found in sorted(outside.items()) if found}
    for name, found in outside.items():
        print(f"  {name}: {found}, {rows[name]['differences'] or 'the same nodes'}")
    shown = sorted(name for name, row in rows.items() if "resnet50" in name or not row["identical"] or name in outside)
    keys = ("nodes", "identical", "flops", "params", "bytes", "estimate", "differences")
    table["twins"] = {
        "first": "ONNX", "second": "Relay text", "failed": failed, **tally(rows.values()),
        "explanations": explained(rows.values()),
        "resnet50_and_differing": {name: {k: rows[name][k] for k in keys} for name in shown},
    }  # fmt: skip
    same = sum(row["identical"] for row in rows.values())
    print(
        f"twins: {len(rows) + len(failed)} compared, {same} with the same fingerprint,"
        f" {len(rows) - len(outside)} within 1 %, {len(failed)} failed"
    )
    return not outside and not failed

"""Compares ONNX → Relax → graph with ONNX → graph: operators, FLOPs, parameters, bytes, estimates.

The nine light models of the onnx package and, of timm_graphs.tar.xz, one graph per family until `--graphs` of them pass
TVM's own importer. Needs the extra `tvm`:

    python tools/check_relax.py --data DIR --forms imported fused --out results/relax.json

How two graphs are compared is told in tools/agreement.py. `--forms` also checks the program after LegalizeOps, FuseOps
and FuseTIR.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import sys
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx

from costmodel.errors import LedgCostError
from frontends.onnx_lower import lower as lower_onnx
from frontends.relax_load import load as load_relax
from tools.agreement import QUANTITIES, compare, dumped, explained, tally, within

FORMS = ("imported", "legalized", "fused")


def light_models() -> Iterator[tuple[str, onnx.ModelProto]]:
    """The light models that the onnx package ships for its own tests."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for path in sorted(folder.glob("light_*.onnx")):
        yield path.stem, onnx.load(path)


def timm_models(archive: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """One graph per family of the archive, in an order that mixes families, weights filled in."""
    families: dict[str, str] = {}
    with tarfile.open(archive) as tar:
        for path in sorted(n for n in tar.getnames() if n.endswith(".onnx")):
            families.setdefault(Path(path).stem.split("@")[0].split("_")[0].rstrip("0123456789"), path)
        for path in sorted(families.values(), key=lambda p: hashlib.sha256(p.encode()).digest()):
            file = tar.extractfile(path)
            if file is not None:
                yield Path(path).stem, filled(onnx.load_from_string(file.read()))


def filled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with data in place of external tensors, as TVM's importer wants it."""
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.raw_data = np.full(tuple(tensor.dims), 0.01, dtype=dtype).tobytes()
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def imported(model: onnx.ModelProto) -> Any:
    """The Relax module that TVM makes of an ONNX model at batch 1."""
    from tvm.relax.frontend.onnx import from_onnx

    shapes = {i.name: [d.dim_value or 1 for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    return from_onnx(model, shape_dict=shapes)


def forms(module: Any, wanted: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The module as imported, and after TVM's passes."""
    from tvm import relax

    yield "imported", module
    if "legalized" in wanted or "fused" in wanted:
        module = relax.transform.LegalizeOps()(module)
        yield "legalized", module
    if "fused" in wanted:
        module = relax.transform.FuseOps()(relax.transform.AnnotateTIROpPattern()(module))
        yield "fused", relax.transform.FuseTIR()(module)


def reason(error: Exception) -> str:
    """TVM's last line, without what differs from model to model."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"^.*\(arguments=|ir\.Op\(.*?name=", "", (lines or [""])[-1])
    return f"{type(error).__name__}: {text.split(', but received')[0][:100]}"


def check(model: onnx.ModelProto, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Comparison per form, or the reason why TVM cannot import the model."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module = imported(model)
    except Exception as error:
        return {"refused": reason(error)}
    direct, found = lower_onnx(model), {}
    for form, program in forms(module, wanted):
        if form in wanted:
            try:
                found[form] = compare(direct, load_relax(program))
            except LedgCostError as error:
                found[form] = {"failed": f"{type(error).__name__}: {error}"}
    return found


def run(data: Path, graphs: int, wanted: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """All comparisons by model, printed as they come."""
    rows: dict[str, dict[str, Any]] = {}
    for name, model in light_models():
        rows[name] = check(model, wanted)
        show(name, rows[name])
    passed = 0
    for name, model in timm_models(data / "timm_graphs.tar.xz"):
        if passed >= graphs:
            break
        rows[name] = check(model, wanted)
        passed += "refused" not in rows[name]
        show(name, rows[name])
    return rows


def show(name: str, row: dict[str, Any]) -> None:
    """One line per form."""
    if "refused" in row:
        print(f"{name:42} TVM refuses it: {row['refused']}", flush=True)
        return
    for form, r in row.items():
        if "failed" in r:
            print(f"{name:42} {form:9} FAILED {r['failed']}", flush=True)
            continue
        estimate = " ".join(f"{v:+.2%}" for v in r["estimate"].values())
        print(
            f"{name:42} {form:9} {r['nodes']:5} nodes  flops {r['flops']:+.2%}  params {r['params']:+.2%}"
            f"  bytes {r['bytes']:+.2%}  estimate {estimate}  {r['differences'] or 'identical'}",
            flush=True,
        )


def summary(rows: dict[str, dict[str, Any]], wanted: tuple[str, ...]) -> dict[str, Any]:
    """Counts per form and the reasons for refusals."""
    report: dict[str, Any] = {}
    for form in wanted:
        found = [r[form] for r in rows.values() if form in r]
        good = [r for r in found if "failed" not in r]
        report[form] = {"failed": len(found) - len(good), **tally(good)}
    report["refused_by_tvm"] = dict(Counter(r["refused"] for r in rows.values() if "refused" in r).most_common())
    return report


def listed(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Model → form → what differs: everything outside 1 %, and kinds of difference where only the spelling does."""
    table: dict[str, Any] = {}
    for name, row in rows.items():
        for form, r in row.items():
            if form == "refused" or (r.get("identical") and within(r["estimate"])):
                continue
            keys = ["failed", "estimate", "differences"]
            if "failed" not in r:
                keys += [k for k in QUANTITIES if not within(r[k])]
                keys += [k for k in ("only_first", "only_second") if r[k]]
            table.setdefault(name, {})[form] = {k: r[k] for k in keys if k in r}
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of timm_graphs.tar.xz")
    parser.add_argument("--graphs", type=int, default=50, help="timm graphs to compare")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["imported"], help="stages of the program")
    parser.add_argument("--out", type=Path, help="JSON to write")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    wanted = tuple(f for f in FORMS if f in args.forms)
    rows = run(args.data, args.graphs, wanted)
    report = summary(rows, wanted)
    print(json.dumps(report, indent=1))
    if args.out:
        command = f"python tools/check_relax.py --data DIR --graphs {args.graphs} --forms {' '.join(wanted)} --out FILE"
        table = {"command": command, "first": "ONNX", "second": "Relax", "summary": report}
        good = [r for row in rows.values() for r in row.values() if isinstance(r, dict) and "failed" not in r]
        table |= {"explanations": explained(good), "differing": listed(rows)}
        args.out.write_text(dumped(table, 3) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

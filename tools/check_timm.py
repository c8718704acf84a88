"""Lowers every graph of timm_graphs.tar.xz and compares FLOPs and parameters with timm_reference.csv.

Prints counts, speed and the outliers by kind, and writes them as JSON:

    python tools/check_timm.py --data ../shared/datasets --out results/timm.json

What the published GMACs count is not stated, so two shares are given: for all FLOPs of the analysis, and for those of
dense products alone, each against twice the GMACs. A graph agrees within 2 %, its parameters within 0.5 %. Outliers
are those of the first. "computed" kinds are borne out by the graph's own figures, within 1 % and the rounding of the
published number (the kind named after rounding: within the tolerance and it); "attributed" ones are an upper bound or
a name, not a proof.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx

from costmodel.analysis import analyze
from costmodel.errors import LedgCostError
from costmodel.ir import Graph
from costmodel.learnable import learnable_elements
from frontends import load

FLOPS_TOLERANCE, PARAMS_TOLERANCE, KIND_TOLERANCE = 0.02, 0.005, 0.01
FLOPS_ROUNDING, PARAMS_ROUNDING = 0.0101e9, 5001  # half of the last published digit: 0.01 GMACs, 0.01 M parameters
STANDARDIZED = ("nf_", "nfnet", "dm_nfnet", "eca_nfnet", "resnetv2_50x", "resnetv2_101x", "resnetv2_152x")
ATTRIBUTED_FLOPS = {"swinv2_cr": "attributed: products of the position-bias network, which is constant and folds away"}
ATTRIBUTED_PARAMS = {
    "coat_": "attributed: parallel blocks share one MLP, copied per use in the file",
    "ghostnetv3": "attributed: parallel branches in the file, merged in the reference",
    "sequencer2d": "attributed: LSTM biases",
}


@dataclass
class Row:
    """Figures of one graph beside the reference's.

    FLOPs of: all operators, products, LSTM, depthwise convolution, convolutions beside another of the same input and
    shape. Elements of: convolution results with bias and their channels, convolution weights, tables (parameters of
    pointwise operators with several axes), parameters each counted once.
    """

    nodes: int
    coverage: float
    flops: float
    products: float
    ref_flops: float
    params: int
    ref_params: float
    lstm: float
    depthwise: float
    beside: float
    merged: int
    normed: int
    convolved: int
    channels: int
    weights: int
    tables: int
    distinct: int
    twin: str = ""

    @property
    def flops_error(self) -> float:
        """Relative error of the FLOPs."""
        return self.flops / self.ref_flops - 1

    @property
    def products_error(self) -> float:
        """Relative error of the FLOPs of products."""
        return self.products / self.ref_flops - 1

    @property
    def params_error(self) -> float:
        """Relative error of the parameters."""
        return self.params / self.ref_params - 1


def reference(path: Path) -> dict[str, tuple[float, float]]:
    """Graph name → (FLOPs, parameters)."""
    with path.open(newline="") as file:
        return {
            row["graph"].removeprefix("timm/"): (float(row["gmacs"]) * 2e9, float(row["million_params"]) * 1e6)
            for row in csv.DictReader(file)
        }


def measure(graph: Graph, flops: float, params: float) -> Row:
    """Costs of a graph and what may explain how they differ from the reference's."""
    cost = analyze(graph)
    lstm = depthwise = 0.0
    normed = convolved = channels = weights = tables = 0
    alike: dict[tuple[Any, ...], list[tuple[float, int]]] = {}
    learnt: dict[str, int] = {}
    for node, own in zip(graph.nodes, cost.nodes, strict=True):
        out = graph.tensors[node.outputs[0]]
        counts = {t: learnable_elements(graph, node, i) for i, t in enumerate(node.inputs) if t in graph.params}
        learnt.update((t, count) for t, count in counts.items() if count)
        if node.op == "LSTM":
            lstm += 2 * own.macs
        elif node.op == "Conv":
            groups = node.attrs["group"]
            alike.setdefault((node.inputs[0], out.shape, groups), []).append((2 * own.macs, out.numel))
            depthwise += 2 * own.macs if groups == graph.tensors[node.inputs[0]].shape[1] else 0
            weights += graph.tensors[node.inputs[1]].numel
            if len(node.inputs) > 2:
                convolved, channels = convolved + out.numel, channels + out.shape[1]
        elif node.op in ("GroupNormalization", "InstanceNormalization"):
            normed += out.numel
        elif node.op in ("Add", "Sub", "Mul", "Where", "Einsum", "Concat"):
            tables += sum(n for t, n in counts.items() if sum(d != 1 for d in graph.tensors[t].shape) > 1)
    spare = [work for found in alike.values() for work in sorted(found)[:-1]]
    beside, merged = sum(flops for flops, _ in spare), sum(numel for _, numel in spare)
    distinct = sum(learnt.values())
    return Row(
        len(graph), cost.coverage, cost.flops, 2 * cost.macs, flops, cost.params, params, lstm, depthwise, beside,
        merged, normed, convolved, channels, weights, tables, distinct,
    )  # fmt: skip


def flops_kind(name: str, row: Row) -> str:
    """Why a graph's FLOPs are off."""

    def near(value: float) -> bool:
        return abs(value - row.ref_flops) <= KIND_TOLERANCE * row.ref_flops + FLOPS_ROUNDING

    if abs(row.flops - row.ref_flops) <= FLOPS_TOLERANCE * row.ref_flops + FLOPS_ROUNDING:
        return "computed: within the rounding of the published figure"
    if row.twin:
        return "computed: the reference repeats the row of another graph"
    if near(row.products):
        return "computed: element-wise arithmetic is not in the reference"
    if row.lstm and near(row.products - row.lstm):
        return "computed: LSTM products are not in the reference"
    if row.normed and near(row.products + 10 * row.normed):
        return "computed: group normalisation has five MACs per element in the reference"
    if row.beside and any(near(row.products - row.beside + 4 * bn) for bn in (0, row.convolved - row.merged)):
        return "computed: parallel branches in the file, merged in the reference"
    if name.startswith(STANDARDIZED) and near(row.products + 10 * row.weights):
        return "computed: weight standardisation, folded here, has five MACs per weight in the reference"
    if not name.startswith(STANDARDIZED) and near(row.products + 4 * row.convolved):
        return "computed: BatchNormalization, folded in the file, has two MACs per element in the reference"
    if row.depthwise and name.startswith("convmixer") and near(row.products - row.depthwise):
        return "computed: depthwise convolutions are not in the reference"
    return _attributed(name, ATTRIBUTED_FLOPS)


def params_kind(name: str, row: Row) -> str:
    """Why a graph's parameters are off."""
    slack = PARAMS_TOLERANCE * row.ref_params + PARAMS_ROUNDING
    if abs(row.params - row.ref_params) <= slack:
        return "computed: within the rounding of the published figure"
    if row.twin:
        return "computed: the reference repeats the row of another graph"
    if abs(row.distinct - row.ref_params) <= slack:
        return "computed: weights read several times are counted once in the reference"
    if row.params < row.ref_params <= row.params + 2 * row.channels + slack:
        return "attributed: folded BatchNormalization, one bias per channel for a scale, a shift and at times a bias"
    if row.params - row.tables - slack <= row.ref_params < row.params and row.tables:
        return "attributed: position biases and rotary angles, read as tables large enough to make the difference"
    return _attributed(name, ATTRIBUTED_PARAMS)


def _attributed(name: str, families: dict[str, str]) -> str:
    return next((kind for prefix, kind in families.items() if name.startswith(prefix)), "unexplained")


def mark_twins(rows: dict[str, Row]) -> None:
    """Notes graphs whose reference figures are another's although their products differ by a tenth or more."""
    same: dict[tuple[float, float], list[str]] = {}
    for name, row in rows.items():
        same.setdefault((row.ref_flops, row.ref_params), []).append(name)
    for names in same.values():
        good = [n for n in names if abs(rows[n].flops_error) <= FLOPS_TOLERANCE]
        for name in names:
            if good and name not in good and abs(rows[name].products / rows[good[0]].products - 1) >= 0.1:
                rows[name].twin = good[0]


def run(data: Path, limit: int | None = None) -> dict[str, Any]:
    """Lowers and compares every graph of the archive under `data`; at most `limit` graphs."""
    wanted = reference(data / "timm_reference.csv")
    rows: dict[str, Row] = {}
    failures: dict[str, dict[str, str]] = {}
    seconds, file_nodes = 0.0, 0
    with tarfile.open(data / "timm_graphs.tar.xz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".onnx") else None
            if file is None or (limit and len(rows) >= limit):
                continue
            name, content = Path(member.name).stem, file.read()
            start = time.process_time()
            try:
                graph = load(content)
            except LedgCostError as error:
                failures[name] = {"error": f"{type(error).__name__}: {error}", "onnxruntime": runtime_error(content)}
                continue
            seconds += time.process_time() - start
            file_nodes += len(onnx.load_from_string(content).graph.node)
            rows[name] = measure(graph, *wanted.get(name, (math.nan, math.nan)))
    return {"rows": rows, "failures": failures, "seconds": seconds, "file_nodes": file_nodes}


def runtime_error(content: bytes) -> str:
    """What ONNX Runtime says when it loads and runs the model with zeros for weights; empty if it does run."""
    import onnxruntime

    model = onnx.load_from_string(content)
    attributes = (a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))
    for tensor in (*model.graph.initializer, *attributes):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            zeros = np.zeros(tuple(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        shapes = {i.name: [d if isinstance(d, int) else 1 for d in i.shape] for i in session.get_inputs()}
        session.run(None, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    except Exception as error:  # its classes have no common base but this
        return " ".join(str(error).split())[:200]
    return ""


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Counts, shares within tolerance, and outliers by kind."""
    every: dict[str, Row] = result["rows"]
    rows = {name: row for name, row in every.items() if not math.isnan(row.ref_flops)}
    mark_twins(rows)
    flops_off = {n: r.flops_error for n, r in rows.items() if abs(r.flops_error) > FLOPS_TOLERANCE}
    params_off = {n: r.params_error for n, r in rows.items() if abs(r.params_error) > PARAMS_TOLERANCE}
    return {
        "command": "python tools/check_timm.py --data DIR --out results/timm.json",
        "graphs": len(every) + len(result["failures"]),
        "lowered": len(every),
        "failures": result["failures"],
        "fully_covered": sum(row.coverage == 1.0 for row in every.values()),
        "file_nodes_per_cpu_second": round(result["file_nodes"] / max(result["seconds"], 1e-9)),
        "compared": len(rows),
        "flops_within_2_percent": _share(len(rows) - len(flops_off), len(rows)),
        "products_within_2_percent": _share(
            sum(abs(r.products_error) <= FLOPS_TOLERANCE for r in rows.values()), len(rows)
        ),
        "params_within_0.5_percent": _share(len(rows) - len(params_off), len(rows)),
        "flops_outliers": _by_kind(flops_off, rows, flops_kind),
        "params_outliers": _by_kind(params_off, rows, params_kind),
    }


def _share(count: int, total: int) -> str:
    return f"{count}/{total} ({100 * count / max(total, 1):.1f} %)"


def _by_kind(
    errors: dict[str, float], rows: dict[str, Row], kind: Callable[[str, Row], str]
) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, float]] = {}
    for name, error in errors.items():
        groups.setdefault(kind(name, rows[name]), {})[name] = round(error, 4)
    return {
        name: {"count": len(found), "worst": dict(sorted(found.items(), key=lambda i: -abs(i[1]))[:5])}
        for name, found in sorted(groups.items(), key=lambda i: -len(i[1]))
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Lowers the timm graphs and compares FLOPs and parameters.")
    parser.add_argument("--data", type=Path, required=True, help="folder of timm_graphs.tar.xz and timm_reference.csv")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--limit", type=int, help="stop after this many graphs")
    parser.add_argument("--rows", action="store_true", help="also write every graph's figures")
    args = parser.parse_args()
    result = run(args.data, args.limit)
    report = summary(result)
    print(json.dumps(report, indent=1))
    if args.rows:
        report["rows"] = {name: asdict(row) for name, row in result["rows"].items()}
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

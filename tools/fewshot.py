"""How many samples a new device needs: fine-tuning on a few of its networks, judged on others, against baselines.

    python tools/fewshot.py --samples samples.parquet --out results/fewshot.json [--bundle DIR] [--device NAME …]

For every platform in the samples and every draw, `--test` networks are set aside and the training samples come from the
rest: at random, and (with --selector) as `profiler.selector` picks them. Networks are told apart by fingerprint.

none      the bundle as it is, which must not have been trained on the device for the figures to mean anything
finetune  `ledg-cost finetune`
line      latency = a · FLOPs + b · bytes + c, non-negative, least squared relative error, on the same samples
trees     gradient-boosted trees on graph statistics, ln of latency over ideal time (scikit-learn), on the same samples
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costmodel import metrics
from costmodel.baselines.analytic import fit_line
from costmodel.cli.sources import generated_graph
from costmodel.features import COLUMNS, platform_rates
from costmodel.finetune.choose import choose
from costmodel.finetune.fit import by_network
from costmodel.finetune.readings import Readings, read
from costmodel.finetune.sources import read_measured
from costmodel.ir import Graph
from costmodel.platforms import Platform, resolve
from costmodel.predictor import Form, LeDGFormerModel
from profiler.selector import positions, select

_AT = {name: i for i, name in enumerate(COLUMNS)}
_PART = 64


@dataclass(frozen=True)
class Pool:
    """Measured networks of one platform: N readings, latencies (N,) in ms, statistics (N, f), ideal times (N, 3), and
    positions (N, k) for the selector."""

    readings: Readings
    measured: np.ndarray
    statistics: np.ndarray
    ideal: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.measured)


def read_pool(model: LeDGFormerModel, graphs: Sequence[Graph], measured: np.ndarray, platform: Platform) -> Pool:
    """The pool of networks with nodes and their latencies in ms."""
    parts, statistics, ideal = [], [], []
    for at in range(0, len(graphs), _PART):
        forms = model.forms(model.encode_many(graphs[at : at + _PART], [platform]), platform)
        parts.append(read(forms, *model.unadapted(forms, platform)))
        statistics += [graph_statistics(f) for f in forms]
        ideal += [ideal_times(f, platform) for f in forms]
    r = Readings.join(parts)
    places = positions(r.log_ms, r.shares, r.node_ms, r.times, r.start)
    return Pool(r, measured, np.array(statistics), np.array(ideal), places)


def graph_statistics(form: Form) -> np.ndarray:
    """What trees are grown on: ln of FLOPs, weights, activations, kernels and nodes, and FLOPs and activations of
    convolutions, other products and the rest."""
    columns = form.prepared.features.columns.astype(np.float64)
    conv, matrix = columns[:, _AT["conv"]] > 0, columns[:, _AT["matrix"]] > 0
    parts = [columns, columns[conv], columns[matrix & ~conv], columns[~matrix]]
    sums = [part.sum(0) for part in parts]
    totals = [s[_AT["flops"]] for s in sums] + [s[_AT["read"]] + s[_AT["write"]] for s in sums]
    totals += [sums[0][_AT[c]] for c in ("weights", "fused_read", "fused_write", "fused_launch", "launch")]
    widths = [columns[:, _AT[c]].mean() for c in ("channels_in", "channels_out", "parallel")]
    return np.log1p([*totals, *widths, float(len(columns)), float(conv.sum())])


def ideal_times(form: Form, platform: Platform) -> np.ndarray:
    """(3,): FLOPs over peak and bytes over bandwidth in ms, and 1."""
    rates = platform_rates(platform)
    total = form.prepared.features.columns.sum(0, dtype=np.float64)
    moved = (total[_AT["read"]] + total[_AT["write"]] + total[_AT["weights"]]) * rates[5] + total[_AT["index"]]
    return np.array([total[_AT["flops"]] / rates[1], moved / rates[3], 1.0])


def line(pool: Pool, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(n,) ms by the fitted line."""
    return np.maximum(pool.ideal[test] @ fit_line(pool.ideal[train], pool.measured[train]), 1e-9)


def trees(pool: Pool, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(n,) ms by gradient-boosted trees (Friedman 2001) for ln of latency over ideal time: trees cannot reach beyond
    the values that they were fitted to."""
    from sklearn.ensemble import GradientBoostingRegressor

    ideal = np.log(pool.ideal[:, 0] + pool.ideal[:, 1])
    grown = GradientBoostingRegressor(random_state=0, n_estimators=200, max_depth=3, subsample=0.8)
    grown.fit(pool.statistics[train], np.log(pool.measured[train]) - ideal[train])
    return np.asarray(np.exp(grown.predict(pool.statistics[test]) + ideal[test]))


def evaluate(
    pool: Pool, counts: Sequence[int], draws: int, held: int, selector: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Figures by way of picking samples, count and method: means over draws with the standard deviation of MAPE."""
    rows: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    kinds: dict[tuple[str, int], list[str]] = {}
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(pool))
        test, rest = order[:held], order[held:]
        measured = pool.measured[test]
        rows.setdefault(("", 0, "none"), []).append(
            metrics.summary(measured, np.exp(pool.readings.log_ms[test])) | {"coverage": float("nan")}
        )
        for way in ("random", "selector") if selector else ("random",):
            for count in counts:
                if count > len(rest):
                    continue
                train = rest[:count] if way == "random" else _selected(pool, rest, count, draw)
                for name, (answer, coverage, kind) in _answers(pool, train, test).items():
                    figures = metrics.summary(measured, answer) | {"coverage": coverage}
                    rows.setdefault((way, count, name), []).append(figures)
                    if kind:
                        kinds.setdefault((way, count), []).append(kind)
                say(f"draw {draw} {way} {count}: " + ", ".join(
                    f"{n} {rows[way, count, n][-1]['mape']:.1f} %" for n in ("finetune", "line", "trees")
                    if (way, count, n) in rows))  # fmt: skip
    return {
        "networks": len(pool), "test": held, "draws": draws,
        "results": [
            {"samples": count, "picked": way, "method": name, **_mean(figures),
             **({"chosen": _counted(kinds[way, count])} if name == "finetune" else {})}
            for (way, count, name), figures in sorted(rows.items())
        ],
    }  # fmt: skip


def _answers(pool: Pool, train: np.ndarray, test: np.ndarray) -> dict[str, tuple[np.ndarray, float, str]]:
    """Method → predicted ms, coverage of the interval (NaN without one), kind of adapter."""
    choice = choose(pool.readings.take(train), np.log(pool.measured[train]))
    log_ms = choice.adapter.log_ms(pool.readings.take(test))
    inside = np.abs(np.log(pool.measured[test]) - log_ms) <= choice.half_width
    found = {
        "finetune": (np.exp(log_ms), float(inside.mean() * 100), choice.adapter.kind),
        "line": (line(pool, train, test), float("nan"), ""),
    }
    try:
        found["trees"] = trees(pool, train, test), float("nan"), ""
    except ImportError:
        print("no trees: scikit-learn is not installed", file=sys.stderr)
    return found


def _selected(pool: Pool, rest: np.ndarray, count: int, seed: int) -> np.ndarray:
    return rest[select(pool.readings.vectors[rest], pool.positions[rest], count, seed)]


def _mean(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    result = {
        key: round(float(np.mean([f[key] for f in figures])), 4 if key == "spearman" else 2)
        for key in ("mape", "acc10", "spearman", "coverage")
        if not np.isnan([f[key] for f in figures]).any()
    }
    result["mape_sd"] = round(float(np.std([f["mape"] for f in figures])), 2)
    return result


def _counted(kinds: Sequence[str]) -> dict[str, int]:
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def markdown(results: dict[str, Any]) -> str:
    """MAPE % / Acc(10 %) by platform, way of picking and count."""
    lines = ["| platform | samples | picked | fine-tuned | coverage | FLOPs+bytes line | boosted trees |",
             "|---|---:|---|---:|---:|---:|---:|"]  # fmt: skip
    for key, platform in results["platforms"].items():
        cells: dict[tuple[int, str], dict[str, Any]] = {}
        for row in platform["results"]:
            cells.setdefault((row["samples"], row["picked"]), {})[row["method"]] = row
        for (count, way), row in sorted(cells.items()):
            first = row["finetune"] if "finetune" in row else row["none"]
            inside = f"{first['coverage']:.0f} %" if "coverage" in first else ""
            figures = [_cell(f) for f in (first, row.get("line"), row.get("trees"))]
            lines.append(f"| {key} | {count} | {way} | {figures[0]} | {inside} | {figures[1]} | {figures[2]} |")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _cell(figures: dict[str, Any] | None) -> str:
    return f"{figures['mape']:.1f} / {figures['acc10']:.0f}" if figures else ""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", required=True, help="Parquet file or sample store")
    parser.add_argument("--device", help="default: every device in the samples")
    parser.add_argument("--precision")
    parser.add_argument("--runtime")
    parser.add_argument("--as", dest="sheet", help="spec sheet (name or TOML) to read the samples' device as")
    parser.add_argument("--name", default="", help="only networks whose name begins so, such as gen/")
    parser.add_argument("--bundle", help="default: the released one")
    parser.add_argument("--counts", default="10,20,50,100", help="numbers of samples")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--test", type=int, default=100, help="networks set aside in each draw")
    parser.add_argument("--selector", action="store_true", help="also samples picked by profiler.selector")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = LeDGFormerModel(args.bundle, overlaid=False) if args.bundle else LeDGFormerModel(overlaid=False)
    measured = read_measured(args.samples, args.device, args.precision, args.runtime)
    results: dict[str, Any] = {"schema": 1, "platforms": {}}
    for key, samples in sorted(measured.by_platform().items()):
        device, precision, runtime = key.split("|")
        latency = by_network([s for s in samples if s.name.startswith(args.name)])
        for sample in samples:  # a file without graphs: generated networks are made again
            if (
                sample.fingerprint in latency
                and sample.fingerprint not in measured.graphs
                and sample.name[:4] == "gen/"
            ):
                measured.graphs[sample.fingerprint] = generated_graph(sample.name)
        names = [f for f in sorted(latency) if f in measured.graphs and measured.graphs[f].nodes]
        if len(names) <= args.test:
            print(f"{key}: {len(names)} networks are too few", file=sys.stderr)
            continue
        platform = resolve(args.sheet or device, precision, runtime)
        pool = read_pool(model, [measured.graphs[f] for f in names], np.array([latency[f] for f in names]), platform)
        counts = [int(c) for c in args.counts.split(",")]
        _say(f"{key}: {len(names)} networks")
        results["platforms"][key] = evaluate(pool, counts, args.draws, args.test, args.selector, _say)
        if args.out:
            args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))


if __name__ == "__main__":
    main()

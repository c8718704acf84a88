"""README.md's sections on speed and on what the model decides in compilers; `tools/update_readme.py` writes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from costmodel.training.loop import CONFIGS
from tools.results import exists, table


def speed() -> str:
    """The benchmark's figures."""
    f = table("bench")
    per_graph = next(name for name in f if name.startswith("graphs_of_"))
    lines = [
        "`python tools/bench.py --out results/bench.json`, ResNet-50 (176 nodes), one thread, processor time:",
        "",
        "| what | measured |",
        "|---|---|",
        f"| `estimate` process, of importing onnx, onnxruntime, numpy, click | {f['cold_estimate_to_import']:.2f} |",
        f"| `--help`, of the same | {f['cold_help_to_import']:.2f} |",
        f"| warm estimate from a loaded graph | {f['warm_estimate_graph_ms']:.1f} ms |",
        f"| warm estimate from a file | {f['warm_estimate_path_ms']:.1f} ms |",
        f"| encoded graph, unmeasured platform; measured one, with its trees | {f['one_platform_ms']:.2f} ms;"
        f" {f['one_measured_platform_ms']:.2f} ms |",
        f"| one more platform | {f['one_more_platform_ms']:.3f} ms |",
        f"| platform answers; latencies alone | {f['platform_answers_per_second']:,}/s;"
        f" {f['platform_latencies_per_second']:,}/s |",
        f"| {per_graph.removesuffix('_per_second').replace('_', ' ')}, several in one run | {f[per_graph]:,}/s |",
        f"| NAS-Bench-201 strings to latencies | {f['architecture_strings_per_second']:,}/s |",
        f"| ONNX lowering | {f['lowering_nodes_per_second']:,} nodes/s |",
        f"| read of a file of {f['weights']['file_mb']:,} MB | {f['weights']['read_mb']:.1f} MB |",
        f"| resident memory | {f['resident_mb']} MB |",
        *(f"| {int(n):,} nodes | {g['seconds']:.2f} s, {g['peak_mb']:,} MB |" for n, g in f["nodes"].items()),
        "",
        *training(),
        "",
        "What other tools do, in the same run:",
        "",
        "| tool | does | takes |",
        "|---|---|---|",
        *(
            f"| {name} | {peer['does']} | {peer['ms']:.1f} ms |"
            if "ms" in peer
            else f"| {name} | not run: {peer['skipped']} | |"
            for name, peer in f["peers"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def training() -> list[str]:
    """Training speed and what makes it."""
    f = table("bench_training")
    rates = dict(f["graphs_per_second"])
    whole, steps = rates.pop("as trained"), CONFIGS["default"].steps
    return [
        f"Training (`tools/bench_training.py`, {f['threads']} cores): {whole:,.0f} graphs/s, the"
        f" {steps:,} steps of *default* in about {steps * f['seconds_per_step'] / 3600:.1f} h.",
        "Without one of its parts: " + "; ".join(f"{k} {v:,.0f} graphs/s" for k, v in rates.items()) + ".",
    ]


def tuning(record: dict[str, Any]) -> list[str]:
    """Real tuning runs: over all workloads, then each."""
    counts = sorted({r["seeds"] for r in record["rows"]})
    lines = [
        f"Tuning them for real on one core, {record['rows'][0]['trials']} trials,"
        f" {' to '.join(map(str, counts[:1] + counts[1:][-1:]))} seed{'s' if counts[-1] > 1 else ''}"
        " (`tools/tuning_online.py`). Best latencies relative to", "what *xgb* ends with, geometric means:", "",
        "| model | runs | best at 64 trials | at the end | measured again | xgb's best in half the trials |"
        " model, s a round |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for r in record["summary"]:
        lines.append(
            f"| {r['model']} | {r['runs']} | {r['best_64_to_xgb']:.2f} | {r['best_to_xgb']:.2f} |"
            f" {r['final_to_xgb']:.2f} | {r['reached_by_half']:.0%} of runs | {r['model_s']:.1f} |"
        )
    lines += [
        "", "*xgb* is TVM's XGBModel as it comes: its scores are random for the first 100 measurements, so that in 128"
        " trials it costs", "nearly nothing and says nothing; *xgb-early* is the same, trained from the first round"
        " on. Medians over seeds:", "",
        "| workload | model | seeds | best ms at 64 | at the end | measured again | trials to xgb's best | s a round |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for r in record["rows"]:
        reached = ", ".join("–" if t is None else str(t) for t in r["trials_to_xgb"])
        lines.append(
            f"| {r['workload']} | {r['model']} | {r['seeds']} | {r['best_ms_64']:.3g} | {r['best_ms']:.3g} |"
            f" {r['final_ms']:.3g} | {reached} | {r['model_s']:.1f} |"
        )
    return [
        *lines, "", "Another job ran on the other core, and the times scatter: a schedule measured again is up to twice"
        " as slow as when it was found.",
    ]  # fmt: skip


def compilers() -> str:
    """What the model is worth inside TVM and ONNX Runtime: every table that is there."""
    lines: list[str] = []
    if exists("tuning/offline"):
        record = table("tuning/offline")
        unseen = sum(w["split"] == "test" for w in record["workloads"].values())
        lines += [
            f"Ranking recorded schedules of {unseen} unseen workloads (`tools/tuning_offline.py`): share of pairs in"
            " the right order, and how", "much slower the best of the five picked is than the best of all:", "",
            "| model | nothing shown | 16 schedules shown | 32 shown |", "|---|---|---|---|",
        ]  # fmt: skip
        rows = {(r["model"], r["shown"]): r for r in record["splits"]["test"]}
        for model in dict.fromkeys(m for m, _ in rows):
            cells = (rows[model, shown] for shown in (0, 16, 32))
            lines.append(f"| {model} | " + " | ".join(f"{r['pairs']:.2f}, {r['top5']:.1f} %" for r in cells) + " |")
        lines.append("")
    if exists("tuning/online"):
        lines += [*tuning(table("tuning/online")), ""]
    if exists("tuning/network"):
        for r in table("tuning/network")["runs"]:
            gain, minutes_ = r["before_ms"] / r["after_ms"], r["seconds"] / 60
            lines.append(
                f"- {r['network']} through Relax, {r['trials']} trials by {r['cost_model']}: {r['before_ms']:.0f} ms"
                f" with loops as imported, {r['after_ms']:.1f} after ({gain:.0f} times as fast) in {minutes_:.0f}"
                " minutes (`tools/tune_network.py --networks resnet18@224 --models ledg`)."
            )
    if exists("provider"):
        counts = table("provider")["summary"]
        for name, c in counts.items():
            if c["networks"] and (name == "all" or c["networks"] < counts["all"]["networks"]):
                lost = ", ".join(f"{k} {v:.1%}" for k, v in c["time_lost"].items())
                lines.append(
                    f"- ONNX Runtime's CPU provider or OpenVINO, {name} networks: the faster one is picked for"
                    f" {c['right']} of {c['networks']}; time lost against always knowing: {lost}"
                    " (`tools/check_provider.py`)."
                )
    if exists("partition"):
        left_out = table("partition").get("left_out", {})
        lines += [f"- {name}: left out, {why}." for name, why in left_out.items()]
        for name, row in table("partition")["networks"].items():
            right, timed = row["right"], row.get("time")
            text = f"- {name} in {right['parts']} parts: largest difference {right['largest_difference']:.1e}"
            if timed:
                text += (
                    f"; over the two providers {timed['predicted_ms']['per_input']:.3g} ms an input predicted,"
                    f" {timed['measured_ms']['per_input']:.3g} measured"
                )
            lines.append(text + ".")
    return "\n".join(lines).rstrip() + "\n"

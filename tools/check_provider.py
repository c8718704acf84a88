"""How often the estimate picks the faster execution provider, and what a wrong pick costs.

    python tools/check_provider.py --data ../shared/datasets --target NAME --out results/provider.json

Networks: the light models of the onnx package and, of each family in timm_graphs.tar.xz, the one with the fewest FLOPs
(at most --gflops), weights random, batch 1. Both providers run every network in one thread on one core, in turns;
medians over the rounds. `--target` is this machine as a device with estimates for the providers' runtimes (a user's
device with an overlay). Networks that a sample store (--store) knows on this device count as seen; the others are
reported on their own too. Measurements never enter the choice: it is made by prediction alone.

Time lost is over all networks together: what the picked providers took, over what the faster ones took, less one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx

from costmodel import predictor
from costmodel.api import load_graph
from costmodel.errors import LedgCostError
from costmodel.integrations.ort import Choice, Provider, assigned, choose_provider, open_session
from costmodel.samples import SampleStore
from profiler.environment import environment
from tools.commands import command_line
from tools.real_networks import light, ready, timm

TIE = 0.03
"""Providers within 3 % of each other count as a tie: either pick is right."""


def smallest_of_each_family(data: Path, most_gflops: float) -> list[str]:
    """Names in the archive: the network of the fewest FLOPs per family, the letters that its name begins with."""
    best: dict[str, tuple[float, str]] = {}
    with (data / "timm_reference.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name, gflops = row["graph"].rpartition("/")[2], 2 * float(row["gmacs"])
            family = re.match(r"[a-z]+", name.lower())
            key = family.group() if family else name
            if gflops <= most_gflops:
                best[key] = min(best.get(key, (gflops, name)), (gflops, name))
    return sorted(name for _, name in best.values())


def networks(data: Path | None, most_gflops: float, limit: int | None) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The light models and the chosen timm graphs."""
    found = list(light()) if limit is None else list(light())[: max(limit // 2, 1)]
    yield from found
    if data is not None:
        names = smallest_of_each_family(data, most_gflops)
        yield from timm(data, names if limit is None else names[: limit - len(found)])


def measured_ms(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray], providers: Sequence[Provider], rounds: int
) -> tuple[list[float], list[dict[str, int]], list[float]]:
    """Per provider: median milliseconds, nodes by provider that ran them, and half the interquartile range over it."""
    content = model.SerializeToString()
    sessions = [open_session(content, provider) for provider in providers]
    times: list[list[float]] = [[] for _ in sessions]
    for session in sessions:
        for _ in range(2):
            session.run(None, feeds)
    for _ in range(rounds):
        for session, own in zip(sessions, times, strict=True):
            for again in range(3):  # the first run behind the other provider's finds cold caches
                start = time.perf_counter()
                session.run(None, feeds)
                if again:
                    own.append((time.perf_counter() - start) * 1e3)
    spread = [float(np.subtract(*np.percentile(t, (75, 25))) / 2 / np.median(t)) for t in times]
    nodes = [{name: len(ops) for name, ops in assigned(s).items()} for s in sessions]
    return [statistics.median(t) for t in times], nodes, spread


def row_of(choice: Choice, labels: Sequence[str], ms: Sequence[float], seen: bool) -> dict[str, Any]:
    """One network: predicted and measured milliseconds by provider, the pick and whether it is right."""
    predicted = {p.label: e.latency_ms for p, e in zip(choice.providers, choice.estimates, strict=True)}
    measured = dict(zip(labels, ms, strict=True))
    picked = choice.provider.label
    return {
        "picked": picked,
        "right": measured[picked] <= min(ms) * (1 + TIE),
        "tie": max(ms) <= min(ms) * (1 + TIE),
        "toss_up": choice.toss_up,
        "seen": seen,
        "predicted_ms": predicted,
        "measured_ms": measured,
    }


def summary(rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """Shares and times lost over a set of rows."""
    if not rows:
        return {"networks": 0}
    best = sum(min(r["measured_ms"].values()) for r in rows)

    def lost(times: list[float]) -> float:
        return sum(times) / best - 1

    ratios = [r["measured_ms"][r["picked"]] / min(r["measured_ms"].values()) for r in rows]
    return {
        "networks": len(rows),
        "ties": sum(r["tie"] for r in rows),
        "right": sum(r["right"] for r in rows),
        "share_right": sum(r["right"] for r in rows) / len(rows),
        "faster": {
            label: sum(r["measured_ms"][label] == min(r["measured_ms"].values()) for r in rows) for label in labels
        },
        "toss_ups": sum(r["toss_up"] for r in rows),
        "time_lost": {
            "picked": lost([r["measured_ms"][r["picked"]] for r in rows]),
            **{f"always {label}": lost([r["measured_ms"][label] for r in rows]) for label in labels},
        },
        "mean_time_lost_per_network": float(np.mean(ratios) - 1),
        "median_error": {
            label: float(np.median([abs(r["predicted_ms"][label] / r["measured_ms"][label] - 1) for r in rows]))
            for label in labels
        },
    }


def text(counts: dict[str, Any]) -> str:
    """A summary for people."""
    if not counts["networks"]:
        return "no networks"
    lost = ", ".join(f"{name} {share:.1%}" for name, share in counts["time_lost"].items())
    return f"{counts['right']} of {counts['networks']} right ({counts['ties']} ties); time lost: {lost}"


def main() -> None:
    """Measures and judges every network, prints a line each and the summary, writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of timm_graphs.tar.xz; without it, the light models alone")
    parser.add_argument("--target", required=True, help="this machine as a device")
    parser.add_argument("--providers", default="cpu:fp32,openvino:fp32")
    parser.add_argument("--store", type=Path, help="sample store that the target's overlay was fitted on")
    parser.add_argument("--gflops", type=float, default=6.0, help="largest network, 2 FLOPs per multiply-add")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=int, help="only so many networks")
    parser.add_argument("--cpu", type=int, default=0, help="core to run on")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    providers = [Provider.parse(p) for p in args.providers.split(",")]
    labels = [p.label for p in providers]
    cost_model = predictor.load()
    known: set[str] = set()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.cpu})
    rows: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    try:
        platforms = [p.platform(args.target) for p in providers]
        if args.store:
            samples = SampleStore(args.store).query(device=platforms[0].device.name)
            known = {s.fingerprint for s in samples}
        for name, model in networks(args.data, args.gflops, args.limit):
            try:
                model, feeds = ready(model)
                graph = load_graph(model)
                choice = choose_provider(graph, providers, args.target, cost_model=cost_model)
                ms, nodes, spread = measured_ms(model, feeds, providers, args.rounds)
            except LedgCostError as error:
                skipped[name] = str(error)
                print(f"{name:32} skipped: {error}", flush=True)
                continue
            rows[name] = row_of(choice, labels, ms, graph.fingerprint in known) | {"assigned": nodes, "spread": spread}
            shown = "  ".join(
                f"{label} {rows[name]['predicted_ms'][label]:8.3g} → {m:8.3g} ms"
                for label, m in zip(labels, ms, strict=True)
            )
            print(f"{name:32} {shown}  {'right' if rows[name]['right'] else 'WRONG'}", flush=True)
    except LedgCostError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; the summary covers what is done", file=sys.stderr)
    every = list(rows.values())
    counts = {"all": summary(every, labels), "unseen": summary([r for r in every if not r["seen"]], labels)}
    for name, part in counts.items():
        print(f"{name}: {text(part)}")
    if args.out:
        record = {
            "schema": 1,
            "command": command_line(__file__, parser, args),
            "environment": environment(1, (args.cpu,), "normal"), "providers": labels, "summary": counts,
            "networks": rows, "skipped": skipped,
        }  # fmt: skip
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + os.linesep)


if __name__ == "__main__":
    main()

"""Tunes real networks through Relax with `ledg-cost tune`'s own code, and times them before and after.

    taskset -c 0 python tools/tune_network.py --data DIR --out results/tuning/network.json

The networks come from timm_graphs.tar.xz with random weights, batch 1. Every cost model starts from an empty database.
What was measured is written after each run, and a run that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from costmodel.integrations.tvm.network import system_target, tune_model
from tools.commands import command_line
from tools.real_networks import ready, timm
from tools.tuning_corpus import cpu_name

NETWORKS = ("resnet18@224", "mobilenetv2_100@224")


def tune(model: onnx.ModelProto, name: str, cost_model: str, args: argparse.Namespace) -> dict[str, Any]:
    """One tuning run from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        onnx.save(ready(model)[0], str(path))
        found = tune_model(
            path, system_target(args.cores), args.trials, Path(folder) / "work", cost_model, repeat=args.repeat,
            trials_per_round=args.round, seed=args.seed,
            report=lambda line: print(f"{name}, {cost_model}: {line}", file=sys.stderr, flush=True),
        )  # fmt: skip
    record = found.as_record()
    del record["work_dir"], record["model"], record["schema"]
    return {"network": name, "cpu": cpu_name(), **record}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of timm_graphs.tar.xz")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--models", nargs="*", default=["ledg", "xgb"])
    parser.add_argument("--trials", type=int, default=320)
    parser.add_argument("--round", type=int, default=16, help="trials of a kernel before the next one's turn")
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    runs: list[dict[str, Any]] = json.loads(args.out.read_text())["runs"] if args.out.exists() else []
    done = {(r["network"], r["cost_model"], r["trials"]) for r in runs}
    for name, model in timm(args.data, set(args.networks)):
        for cost_model in args.models:
            if (name, cost_model, args.trials) in done:
                continue
            runs.append(tune(model, name, cost_model, args))
            args.out.write_text(
                json.dumps({"schema": 1, "command": command_line(__file__, parser, args), "runs": runs}, indent=1)
                + "\n"
            )
            r = runs[-1]
            print(
                f"{name}, {cost_model}: {r['before_ms']:.2f} ms before, {r['after_ms']:.2f} after, {r['seconds']:.0f} s"
            )


if __name__ == "__main__":
    main()

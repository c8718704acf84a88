"""Tunes unseen workloads for real with several cost models at equal trials, and compares what they found.

    taskset -c 0 python tools/tuning_online.py --out RUNS [--trials 128] [--seeds 3] [--only matmul] [--models xgb,ledg]
    python tools/tuning_online.py --out RUNS --report results/tuning/online.json

One file per run (workload, model, seed, trials); those already there are skipped, so the tool can be stopped at any
time and started again. Runs of one workload and seed stand next to each other in time, model after model, so that a
machine that slows down slows all of them. `--report` reads what is there and measures nothing:

    best_ms        of the schedules measured, at 64 trials and at the end; each is the fastest of its repeats
    final_ms       the best schedule built and measured again, median of 20: what was won is not the luck of one run
    trials_to_xgb  trials until the median, over seeds, of XGBModel's best at the end was reached; none if it was not
    model_s        seconds per round inside the cost model, all calls of predict and update (XGBModel: the same)

and over the workloads, per model: geometric means of best_ms_64, best_ms and final_ms relative to xgb's best_ms (and
final_ms), the share of runs that reached xgb's best in half the trials, and the mean of model_s.

Models: xgb (TVM's default: random scores for the first 100 measurements), xgb-early (trained from the first round on),
random, ledg (pretrained), ledg-cold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.tuning_corpus import FAILED_SECONDS, cpu_name, measurement, target_of
from tools.tuning_workloads import TEST, Workload, select

ROUND = 32
MODELS = ("xgb", "xgb-early", "random", "ledg", "ledg-cold")


def timed(inner: Any) -> tuple[Any, dict[str, list[float]]]:
    """A cost model that notes how long another one takes, and the notes."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.cost_model import PyCostModel

    notes: dict[str, list[float]] = {"predict": [], "update": []}

    @derived_object
    class Timed(PyCostModel):
        """Delegates."""

        def load(self, path: str) -> None:
            inner.load(path)

        def save(self, path: str) -> None:
            inner.save(path)

        def update(self, context: Any, candidates: Any, results: Any) -> None:
            started = time.perf_counter()
            inner.update(context, candidates, results)
            notes["update"].append(time.perf_counter() - started)

        def predict(self, context: Any, candidates: Any) -> Any:
            started = time.perf_counter()
            scores = inner.predict(context, candidates)
            notes["predict"].append(time.perf_counter() - started)
            return scores

    return Timed(), notes


def cost_model(name: str, target: Any, seed: int) -> Any:
    """A fresh cost model."""
    from tvm.s_tir.meta_schedule.cost_model import RandomModel, XGBModel

    from costmodel.integrations.tvm import LedgCostModel

    if name == "random":
        return RandomModel(seed=seed)
    if name.startswith("xgb"):
        return XGBModel(num_warmup_samples=100 if name == "xgb" else ROUND, num_tuning_cores=1)
    return LedgCostModel.pretrained(target, seed) if name == "ledg" else LedgCostModel(seed=seed)


def run(workload: Workload, name: str, trials: int, seed: int, target: Any, how: tuple[Any, Any]) -> dict[str, Any]:
    """One tuning run."""
    from tvm.s_tir import meta_schedule as ms

    database = ms.database.MemoryDatabase()
    model, notes = timed(cost_model(name, target, seed))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as work_dir:
        ms.tune_tir(
            workload.primfunc(), target, work_dir, trials, num_trials_per_iter=ROUND, builder=how[0],
            runner=how[1], database=database, cost_model=model, num_tuning_cores=1, seed=seed,
        )  # fmt: skip
    records = list(database.get_all_tuning_records())
    times = [min((float(s) for s in r.run_secs or ()), default=1e10) for r in records]
    ran = [s for s in times if s < FAILED_SECONDS]
    best = records[int(np.argmin(times))] if ran else None
    return {
        "workload": workload.name, "model": name, "trials": trials, "seed": seed, "cpu": cpu_name(),
        "seconds": time.perf_counter() - started, "times_ms": [s * 1e3 if s < FAILED_SECONDS else None for s in times],
        "final_ms": _again(best, target, how) if best is not None else None,
        "rounds": len(notes["update"]), "predict_s": notes["predict"], "update_s": notes["update"],
    }  # fmt: skip


def _again(record: Any, target: Any, how: tuple[Any, Any]) -> float | None:
    """Builds and measures a schedule once more; ms, median of two runs' repeats."""
    from tvm.s_tir import meta_schedule as ms
    from tvm.s_tir.schedule import Schedule

    schedule = Schedule(record.workload.mod)
    record.trace.apply_to_schedule(schedule, remove_postproc=False)
    arguments = record.args_info
    seconds: list[float] = []
    for _ in range(2):
        (built,) = how[0].build([ms.builder.BuilderInput(schedule.mod, target)])
        if built.error_msg:
            return None
        (future,) = how[1].run([ms.runner.RunnerInput(built.artifact_path, "cpu", arguments)])
        seconds += [float(s) for s in future.result().run_secs or ()]
    return float(np.median(seconds)) * 1e3 if seconds else None


def measure_all(args: argparse.Namespace) -> None:
    """Makes the runs that are missing."""
    args.out.mkdir(parents=True, exist_ok=True)
    target, how = target_of(args.cores), measurement(args.repeat)
    for seed in range(args.seeds):
        for workload in (w for w in select(args.only) if w.split == TEST):
            for name in args.models.split(","):
                path = args.out / f"{workload.name}-{name}-{args.trials}-{seed}.json"
                if path.exists():
                    continue
                done = run(workload, name, args.trials, seed, target, how)
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(done))
                partial.replace(path)
                final = f"{done['final_ms']:.3f} ms" if done["final_ms"] else "nothing ran"
                print(f"{path.stem}: {final}, {done['seconds']:.0f} s", file=sys.stderr, flush=True)


def report(args: argparse.Namespace) -> None:
    """Summarises the runs that are there."""
    runs = [json.loads(path.read_text()) for path in sorted(args.out.glob("*.json"))]
    goals = {}
    for key in {(r["workload"], r["trials"]) for r in runs}:
        bests = [best(r, r["trials"]) for r in runs if (r["workload"], r["trials"]) == key and r["model"] == "xgb"]
        if bests:
            goals[key] = float(np.median(bests))
    rows = []
    for workload, trials, model in sorted({(r["workload"], r["trials"], r["model"]) for r in runs}):
        mine = [r for r in runs if (r["workload"], r["trials"], r["model"]) == (workload, trials, model)]
        goal = goals.get((workload, trials))
        finals = [r["final_ms"] for r in mine if r["final_ms"]]
        rows.append(
            {
                "workload": workload, "trials": trials, "model": model, "seeds": len(mine),
                "best_ms_64": _median([best(r, 64) for r in mine]), "best_ms": _median([best(r, trials) for r in mine]),
                "final_ms": _median(finals), "final_ms_seeds": finals,
                "trials_to_xgb": [reached(r, goal) if goal else None for r in mine],
                "model_s": _median([(sum(r["predict_s"]) + sum(r["update_s"])) / max(r["rounds"], 1) for r in mine]),
            }
        )  # fmt: skip
    args.report.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"schema": 1, "runs": len(runs), "summary": summary(rows), "rows": rows}
    args.report.write_text(json.dumps(record, indent=1) + "\n")
    for row in record["summary"]:
        print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})
    for row in rows:
        print(
            f"{row['workload']:28s}{row['trials']:4d} {row['model']:10s} final {row['final_ms']:8.3f} ms  "
            f"to xgb {row['trials_to_xgb']}  model {row['model_s']:.2f} s per round"
        )


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per trials and model, over the workloads that xgb tuned too; see the module's docstring."""
    found = []
    reference = {(r["workload"], r["trials"]): r for r in rows if r["model"] == "xgb"}
    for trials, model in sorted({(r["trials"], r["model"]) for r in rows}):
        mine = [r for r in rows if (r["trials"], r["model"]) == (trials, model)]
        pairs = [(r, reference[r["workload"], trials]) for r in mine if (r["workload"], trials) in reference]
        if not pairs:
            continue
        ratios = {
            "best_64": [r["best_ms_64"] / xgb["best_ms"] for r, xgb in pairs],
            "best": [r["best_ms"] / xgb["best_ms"] for r, xgb in pairs],
            "final": [r["final_ms"] / xgb["final_ms"] for r, xgb in pairs],
        }
        half = [t is not None and t <= trials // 2 for r, _ in pairs for t in r["trials_to_xgb"]]
        found.append(
            {
                "model": model, "trials": trials, "workloads": len(pairs), "runs": len(half),
                **{f"{name}_to_xgb": float(np.exp(np.mean(np.log(values)))) for name, values in ratios.items()},
                "reached_by_half": float(np.mean(half)), "model_s": float(np.mean([r["model_s"] for r, _ in pairs])),
            }
        )  # fmt: skip
    return found


def best(run: dict[str, Any], trials: int) -> float:
    """The fastest of the first schedules measured, ms; infinite if none ran."""
    return min((t for t in run["times_ms"][:trials] if t), default=np.inf)


def reached(run: dict[str, Any], goal_ms: float) -> int | None:
    """Trials until a schedule was as fast as the goal."""
    return next((i + 1 for i, t in enumerate(run["times_ms"]) if t and t <= goal_ms), None)


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else float("nan")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--only", default="", help="words of workload names, separated by commas")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--report", type=Path, help="summarise the runs into this file instead of making more")
    args = parser.parse_args()
    (report if args.report else measure_all)(args)


if __name__ == "__main__":
    main()

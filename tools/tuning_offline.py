"""Trains the ranking network on recorded schedules and compares models on those of unseen workloads.

    python tools/tuning_offline.py features --records results/tuning/records.parquet --features FEATURES.npz
    python tools/tuning_offline.py pretrain --features FEATURES.npz
    python tools/tuning_offline.py compare  --features FEATURES.npz --out results/tuning/offline.json

`features` replays every recorded schedule in TVM and keeps what the models read: loop graphs for LeDG-Former, TVM's own
[stores, 172] features for XGBModel. `pretrain` fits the network to the workloads of the split "train" and writes the
file that `LedgCostModel.pretrained` loads; the number of steps is chosen on "valid". `compare` shows each model some
schedules of a workload, drawn at random, and lets it rank the others:

    pairs     share of pairs ranked rightly, among those whose times differ by more than 5 %
    top-1     how much slower the schedule ranked first is than the best of those ranked, in %
    top-5     the same for the best of the first five

Models: random; XGBModel as TVM trains it, on its own features and on the blocks' rows of the loop graphs; LeDG-Former
from nothing (cold) and pretrained (warm). Means over workloads, then over seeds; the spread is that of the seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from costmodel.integrations.tvm.loops import LoopGraph, block_rows, read
from costmodel.integrations.tvm.memory import Task, from_arrays, to_arrays
from costmodel.integrations.tvm.targets import cores_of, platform_numbers, platform_of
from tools.tuning_workloads import TEST, TRAIN, VALID, WORKLOADS

SPLIT = {w.name: w.split for w in WORKLOADS}
SHOWN = (0, 16, 32)
APART = 0.05
MEASURES = ("pairs", "top1", "top5")
Floats = NDArray[np.float32]
Scorer = Callable[[list[int], list[int]], NDArray[Any]]
"""Rows to learn from, rows to rank → scores of the latter, higher is better."""


def features(args: argparse.Namespace) -> None:
    """The `features` command."""
    import pyarrow.parquet as pq
    import tvm
    import tvm.s_tir.tensor_intrin
    from tvm.s_tir import meta_schedule as ms
    from tvm.s_tir.schedule import Schedule, Trace

    from frontends.tir_lower import lower

    table = pq.read_table(args.records).to_pylist()
    extractor = ms.feature_extractor.PerStoreFeature(extract_workload=True)
    tasks: dict[str, Task] = {}
    stores: dict[str, NDArray[Any]] = {}
    timing = {}
    for workload in WORKLOADS:
        rows = [row for row in table if row["workload"] == workload.name]
        if not rows:
            continue
        target = tvm.target.Target(json.loads(rows[0]["target"]))
        context = ms.TuneContext(
            tvm.IRModule({"main": workload.primfunc()}), target=target, num_threads=1, task_name=workload.name
        )
        candidates = []
        for row in rows:
            schedule = Schedule(context.mod)
            Trace.apply_json_to_schedule(json.loads(row["trace"]), schedule)
            candidates.append(ms.MeasureCandidate(schedule, []))
        clock = [time.process_time()]
        graphs = [lower(c.sch.mod) for c in candidates]
        clock.append(time.process_time())
        found = read(graphs, cores_of(str(target)))
        clock.append(time.process_time())
        classic = [x.numpy() for x in extractor.extract_from(context, candidates)]
        clock.append(time.process_time())
        spent = (np.diff(clock) * 1e3 / len(rows)).tolist()  # ms per candidate
        per = dict(zip(("lower", "read", "per_store"), spent, strict=True))
        timing[workload.name] = {"nodes": float(np.mean([len(g) for g in found])), **per}
        print(workload.name, len(rows), {k: round(v, 3) for k, v in timing[workload.name].items()}, file=sys.stderr)
        seconds = [label(row["seconds"]) for row in rows]
        tasks[workload.name] = Task(platform_numbers(platform_of(str(target))), found, seconds)
        stores[f"{workload.name}.stores"] = np.concatenate(classic).astype(np.float32)
        stores[f"{workload.name}.counts"] = np.array([len(c) for c in classic], np.int64)
    stores["timing"] = np.frombuffer(json.dumps(timing).encode(), np.uint8)
    np.savez_compressed(args.features, **to_arrays(tasks), **stores)  # type: ignore[arg-type]


def label(seconds: Sequence[float]) -> float:
    """ln of the fastest repeat: on a shared machine the others are slower by what else ran. Infinite for a failure."""
    return float(np.log(min(seconds))) if len(seconds) else np.inf


def pretrain(args: argparse.Namespace) -> None:
    """The `pretrain` command."""
    import torch

    from costmodel.integrations.tvm.online import PRETRAINED

    tasks, _ = load(args.features)
    path = args.to or PRETRAINED
    torch.set_num_threads(1)
    ranker = trained(tasks, args.steps, report=True)
    ranker.save(path)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {ranker.summary}", file=sys.stderr)


def trained(tasks: dict[str, Task], steps: int, seed: int = 0, report: bool = False) -> Any:
    """A ranker fitted to the training workloads, stopped where the validation workloads are ranked best."""
    from costmodel.integrations.tvm.online import sentence_vectors
    from costmodel.integrations.tvm.ranker import Ranker, RankerConfig

    train = [t for name, t in tasks.items() if SPLIT[name] == TRAIN]
    valid = [t for name, t in tasks.items() if SPLIT[name] == VALID]
    best: tuple[float, int] = (-1.0, 0)
    for count in (steps // 4, steps // 2, steps) if valid else (steps,):
        ranker = Ranker(RankerConfig(), sentence_vectors(), seed)
        loss = ranker.fit(train, count, rate=3e-3, batch=192, seed=seed)
        ranked = [pairs(-ranker.predict(t.graphs, t.platform).mean(0), t.targets()) for t in valid]
        right = float(np.mean(ranked)) if ranked else 0.0
        if report:
            print(f"{count} steps: loss {loss:.3f}, pairs of validation workloads {right:.3f}", file=sys.stderr)
        if right > best[0]:
            best, kept = (right, count), ranker
    kept.summary = {
        "trained": True, "steps": best[1], "validation_pairs": round(best[0], 4) if valid else None,
        "workloads": len(train), "schedules": sum(len(t.graphs) for t in train),
    }  # fmt: skip
    return kept


def load(path: Path) -> tuple[dict[str, Task], dict[str, list[Floats]]]:
    """Tasks and, per task, TVM's features of each schedule."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    tasks = from_arrays(arrays)
    return tasks, {name: np.split(arrays[f"{name}.stores"], np.cumsum(arrays[f"{name}.counts"])[:-1]) for name in tasks}


def compare(args: argparse.Namespace) -> None:
    """The `compare` command."""
    import torch

    torch.set_num_threads(1)
    tasks, stores = load(args.features)
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        warm = trained(tasks, args.steps, seed)
        for name in (n for n in tasks if SPLIT[n] in (TEST, VALID)):
            order = np.random.default_rng(seed).permutation(len(tasks[name].graphs)).tolist()
            rest = order[max(SHOWN) :]
            truth = tasks[name].targets()[rest]
            for model, scorer in models(tasks[name], stores[name], warm, seed).items():
                for shown in SHOWN:
                    found = judge(scorer(order[:shown], rest), truth)
                    rows.append({"task": name, "model": model, "shown": shown, "seed": seed, **found})
        print(f"seed {seed} done", file=sys.stderr)
    workloads = {
        name: {"split": SPLIT[name], "schedules": len(t.graphs), "best_ms": float(np.exp(min(t.log_seconds)) * 1e3)}
        for name, t in tasks.items()
    }
    summaries = {split: summarise([r for r in rows if SPLIT[r["task"]] == split]) for split in (TEST, VALID)}
    result = {"schema": 1, "workloads": workloads, "splits": summaries, "rows": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for split, entries in summaries.items():
        for entry in entries:
            told = "  ".join(f"{m} {entry[m]:7.3f} ±{entry[m + '_sd']:.3f}" for m in MEASURES)
            print(f"{split:6s}{entry['model']:10s} after {entry['shown']:2d}: {told}")


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per model and number of schedules shown: means over workloads, then mean and standard deviation over seeds."""
    found = []
    for model, shown in dict.fromkeys((r["model"], r["shown"]) for r in rows):
        mine = [r for r in rows if (r["model"], r["shown"]) == (model, shown)]
        entry: dict[str, Any] = {"model": model, "shown": shown}
        for measure in MEASURES:
            means = [np.mean([r[measure] for r in mine if r["seed"] == s]) for s in sorted({r["seed"] for r in mine})]
            entry |= {measure: float(np.mean(means)), f"{measure}_sd": float(np.std(means))}
        found.append(entry)
    return found


def models(task: Task, stores: list[Floats], warm: Any, seed: int) -> dict[str, Scorer]:
    """Every model to compare, for one workload."""
    rows = [block_rows(g) for g in task.graphs]
    return {
        "random": lambda seen, rest: np.random.default_rng(seed + len(seen)).uniform(size=len(rest)),
        "xgb": lambda seen, rest: _xgb(stores, task, seen, rest),
        "xgb-loops": lambda seen, rest: _xgb(rows, task, seen, rest),
        "ledg-cold": lambda seen, rest: _ledg(None, task, seen, rest, seed),
        "ledg-warm": lambda seen, rest: _ledg(warm, task, seen, rest, seed),
    }


def _ledg(warm: Any, task: Task, seen: list[int], rest: list[int], seed: int) -> NDArray[Any]:
    """An online ranker that was told `seen` in rounds of 16."""
    import copy

    from costmodel.integrations.tvm.online import OnlineRanker

    model = OnlineRanker(copy.deepcopy(warm), explore=0.0, seed=seed)
    for start in range(0, len(seen), 16):
        part = seen[start : start + 16]
        seconds = [float(np.exp(task.log_seconds[i])) if np.isfinite(task.log_seconds[i]) else None for i in part]
        model.observe("t", [task.graphs[i] for i in part], seconds, task.platform)
    graphs: list[LoopGraph | None] = [task.graphs[i] for i in rest]
    return model.score("t", graphs, task.platform)


def _xgb(rows: Sequence[Floats], task: Task, seen: list[int], rest: list[int]) -> NDArray[Any]:
    """TVM's XGBModel, trained by its own code on normalised throughput; random before anything is measured."""
    from tvm.s_tir.meta_schedule.cost_model import XGBModel

    usable = [i for i in seen if len(rows[i])]
    if not usable:
        return np.random.default_rng(len(rest)).uniform(size=len(rest))
    seconds = np.exp(task.targets()[usable])
    model = XGBModel._cls(num_tuning_cores=1)
    model._train(xs=[rows[i] for i in usable], ys=(seconds.min() / seconds).astype(np.float32))
    return np.asarray(model._predict(xs=[rows[i] for i in rest]))


def judge(scores: NDArray[Any], log_seconds: NDArray[Any]) -> dict[str, float]:
    """Pairwise accuracy, and top-1 and top-5 regret in %."""
    order = np.argsort(-scores, kind="stable")
    best = log_seconds.min()
    return {
        "pairs": pairs(scores, log_seconds),
        "top1": float(np.expm1(log_seconds[order[0]] - best) * 100),
        "top5": float(np.expm1(log_seconds[order[:5]].min() - best) * 100),
    }


def pairs(scores: NDArray[Any], log_seconds: NDArray[Any]) -> float:
    """Share of pairs ranked rightly among those whose times differ by more than `APART`; ties count half."""
    gap = log_seconds[None, :] - log_seconds[:, None]
    first, second = np.nonzero(gap > np.log1p(APART))
    if not len(first):
        return 0.5
    won = scores[first] - scores[second]
    return float(np.mean(np.where(won > 0, 1.0, np.where(won == 0, 0.5, 0.0))))


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("features", features), ("pretrain", pretrain), ("compare", compare)):
        command = commands.add_parser(name)
        command.add_argument("--features", type=Path, required=True)
        command.set_defaults(run=run)
        if name == "features":
            command.add_argument("--records", type=Path, default=Path("results/tuning/records.parquet"))
            continue
        command.add_argument("--steps", type=int, default=600, help="training steps of the longest run tried")
        if name == "pretrain":
            command.add_argument("--to", type=Path, help="default: the released file inside the package")
        else:
            command.add_argument("--seeds", type=int, default=3)
            command.add_argument("--out", type=Path, default=Path("results/tuning/offline.json"))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

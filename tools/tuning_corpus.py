"""Records schedules and their measured times with TVM MetaSchedule, for cost models that rank schedules.

    taskset -c 0 python tools/tuning_corpus.py record --out WORK [--only conv2d,softmax] [--trials 64]
    python tools/tuning_corpus.py pack --out WORK --to results/tuning/records.parquet

`record` tunes each workload of `tuning_workloads` once: the first round's schedules are random, those of later rounds
are proposed by XGBModel, as a tuner's are. One file per workload; those already there are skipped, so a run that was
cut short goes on where it stopped. `pack` writes one Parquet table, zstd-compressed:

    workload, kind, split   of `tuning_workloads`
    order                   0, 1, 2, … as measured
    trace                   the schedule as MetaSchedule's trace JSON
    seconds                 the repeats; empty if it did not build or run
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.tuning_workloads import WORKLOADS, Workload, select

ROUND = 32
POPULATION = 64  # an eighth of MetaSchedule's: most of the time goes into measuring
FAILED_SECONDS = 1e9  # the database stores failures as 1e10


def target_of(cores: int) -> Any:
    """LLVM for this machine's CPU."""
    import tvm

    return tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu(), "num-cores": cores})


def measurement(repeat: int) -> tuple[Any, Any]:
    """Builder and runner: repeats of at least a millisecond, short, so that some pass undisturbed on a busy machine."""
    from costmodel.integrations.tvm import in_process

    return in_process(repeat, min_repeat_ms=1, intrinsics=False)


def record(workload: Workload, target: Any, trials: int, how: tuple[Any, Any], seed: int) -> list[dict[str, Any]]:
    """Tunes one workload and returns a row per measured schedule."""
    from tvm.s_tir import meta_schedule as ms

    database = ms.database.MemoryDatabase()
    with tempfile.TemporaryDirectory() as work_dir:
        ms.tune_tir(
            workload.primfunc(), target, work_dir, trials, num_trials_per_iter=ROUND, builder=how[0],
            runner=how[1], database=database, num_tuning_cores=1, seed=seed,
            strategy=ms.search_strategy.EvolutionarySearch(population_size=POPULATION, init_min_unmeasured=40),
            cost_model=ms.cost_model.XGBModel(num_warmup_samples=ROUND, num_tuning_cores=1),
        )  # fmt: skip
    rows = []
    for order, made in enumerate(database.get_all_tuning_records()):
        seconds = [float(s) for s in made.run_secs or ()]
        trace = json.dumps(plain(made.trace.as_json()), separators=(",", ":"))
        rows.append(
            {"order": order, "trace": trace, "seconds": [] if max(seconds, default=1e10) > FAILED_SECONDS else seconds}
        )
    return rows


def plain(value: Any) -> Any:
    """TVM containers as Python's own."""
    if isinstance(value, (bool, float, str)) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "value"):
        return value.value
    if hasattr(value, "items"):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value]


def record_all(args: argparse.Namespace) -> None:
    """The `record` command."""
    import tvm

    args.out.mkdir(parents=True, exist_ok=True)
    target, how = target_of(args.cores), measurement(args.repeat)
    for workload in select(args.only):
        path = args.out / f"{workload.name}.json"
        if path.exists():
            continue
        started = time.time()
        rows = record(workload, target, args.trials, how, args.seed)
        done = {
            "workload": workload.name,
            "target": str(target),
            "tvm": tvm.__version__,
            "machine": platform.machine(),
            "cpu": cpu_name(),
            "load": os.getloadavg()[0],
            "recorded_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "rows": rows,
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(done))
        partial.replace(path)
        times = [min(r["seconds"]) * 1e3 for r in rows if r["seconds"]]
        best = f"best {min(times):.3f} ms, median {sorted(times)[len(times) // 2]:.3f}" if times else "none ran"
        seconds = time.time() - started
        print(f"{workload.name}: {len(times)} of {len(rows)} ran, {best}, {seconds:.0f} s", file=sys.stderr, flush=True)


def cpu_name() -> str:
    """The processor's name as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def pack(args: argparse.Namespace) -> None:
    """The `pack` command."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {
        n: [] for n in ("workload", "kind", "split", "target", "order", "trace", "seconds")
    }
    environment = {}
    for workload in WORKLOADS:
        path = args.out / f"{workload.name}.json"
        if not path.exists():
            print(f"{workload.name}: not recorded", file=sys.stderr)
            continue
        done = json.loads(path.read_text())
        environment[workload.name] = {k: v for k, v in done.items() if k not in ("rows", "workload")}
        for row in done["rows"]:
            fixed = {"workload": workload.name, "kind": workload.kind, "split": workload.split}
            for name, value in {**fixed, **row, "target": done["target"]}.items():
                columns[name].append(value)
    table = pa.table(columns).replace_schema_metadata({"environment": json.dumps(environment)})
    args.to.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, args.to, compression="zstd", compression_level=19)
    size = args.to.stat().st_size / 1e6
    print(f"{args.to}: {len(environment)} workloads, {table.num_rows} schedules, {size:.2f} MB", file=sys.stderr)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("--only", default="", help="words of workload names, separated by commas")
    recording.add_argument("--trials", type=int, default=64)
    recording.add_argument("--repeat", type=int, default=10)
    recording.add_argument("--cores", type=int, default=1)
    recording.add_argument("--seed", type=int, default=1)
    recording.set_defaults(run=record_all)
    packing = commands.add_parser("pack")
    packing.add_argument("--to", type=Path, default=Path("results/tuning/records.parquet"))
    packing.set_defaults(run=pack)
    for command in (recording, packing):
        command.add_argument("--out", type=Path, required=True, help="folder of the raw files")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

"""Profiles many networks on this machine's GPU in little time: several `ledg-cost profile` load, one of them times.

    python tools/profile_gpu.py --networks results/samples/epyc_turin_1core.parquet --data DIR --minutes 8 \\
        --family transformer:60 operator:60 --out samples.parquet [--backend torch-compile] [--batch 1,32]

The networks are those of a file of samples (of pytorch-image-models where --data holds their graphs) and of --family,
in an order drawn by a fixed seed, so that whatever is done when the time is over is a random part of them. The runs are
timed on the first processor, all loading stays off its core. What is measured is kept in a store; the same command with
the same --store goes on.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from costmodel.errors import LedgCostError
from costmodel.platforms import load_device
from costmodel.samples import SampleStore, parquet
from costmodel.training.corpus import timm_archive
from profiler.environment import gpu_facts

_SIBLINGS = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")


def models(args: argparse.Namespace, folder: Path) -> list[str]:
    """Lines for `ledg-cost profile --list`, in random order; files that are not generated are written to `folder`."""
    names = {sample.name for sample, _ in parquet.read(args.networks)} if args.networks else set()
    lines = {name for name in names if name.startswith("gen/")}
    for family in args.family:
        name, _, count = family.partition(":")
        lines |= {f"gen/{name}/{seed}" for seed in range(int(count))}
    if args.data:
        for name, content in timm_archive(args.data):
            if name in names:
                path = folder / f"{name.replace('/', '-')}.onnx"
                path.write_bytes(content)
                lines.add(f"{name}\t{path}")
    drawn = sorted(lines)
    random.Random(args.seed).shuffle(drawn)
    return drawn


def timing_core() -> set[int]:
    """The first processor and those that share its core."""
    found = {0}
    try:
        for part in _SIBLINGS.read_text(encoding="ascii").strip().split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    except OSError:
        pass
    return found


def start(args: argparse.Namespace, lists: Sequence[Path], device: str) -> list[subprocess.Popen[bytes]]:
    """One `ledg-cost profile` per list, on all processors but the timing core's."""
    command = [
        sys.executable, "-m", "costmodel.cli", "profile", "--backend", args.backend, "-p", args.precision, "-b",
        args.batch, "--as", device, "--store", str(args.store), "--seconds", str(args.seconds), "--attempts", "2",
    ]  # fmt: skip
    others = os.sched_getaffinity(0) - timing_core()
    if others:
        command += ["--cpus", "0"]
        os.sched_setaffinity(0, others)
    with Path(f"{args.store}.{args.backend}.log").open("ab") as log:
        return [
            subprocess.Popen([*command, "--list", str(path)], stdout=log, stderr=log, start_new_session=True)
            for path in lists
        ]


def count(store: Path) -> int:
    """Samples in the store so far."""
    if not store.exists():
        return 0
    with SampleStore(store) as opened:
        return sum(number for *_, number in opened.platforms())


def wait(running: Sequence[subprocess.Popen[bytes]], minutes: float, store: Path) -> None:
    """Until all have ended, the time is over or the user interrupts; then those that run are asked to stop."""
    end = time.monotonic() + minutes * 60
    try:
        while time.monotonic() < end and any(process.poll() is None for process in running):
            time.sleep(min(10.0, max(0.1, end - time.monotonic())))
            left = max(0.0, end - time.monotonic())
            print(f"{count(store)} samples, at most {left:.0f} s left", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in running:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, help="samples whose networks to measure")
    parser.add_argument("--data", type=Path, help="folder of timm_graphs.tar.xz")
    parser.add_argument("--family", nargs="*", default=[], metavar="F:COUNT", help="generated networks")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--precision", default="fp32,fp16")
    parser.add_argument("--batch", default="1,32")
    parser.add_argument("--seconds", type=float, default=0.5, help="of timed runs per measurement")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("gpu.sqlite"))
    parser.add_argument("--out", type=Path, help="Parquet file of all samples in the store")
    args = parser.parse_args(arguments)
    gpus = gpu_facts()
    if not gpus:
        raise SystemExit("no GPU can be seen; install nvidia-ml-py and a driver")
    try:
        device = load_device(gpus[0]["name"]).name
        with tempfile.TemporaryDirectory() as folder:
            lines = models(args, Path(folder))
            lists = []
            for job in range(min(args.jobs, len(lines))):
                lists.append(Path(folder) / f"{job}.list")
                lists[-1].write_text("\n".join(lines[job :: args.jobs]) + "\n", encoding="utf-8")
            print(f"{len(lines)} networks on {device} by {len(lists)} jobs", file=sys.stderr)
            wait(start(args, lists, device), args.minutes, args.store)
        if args.out:
            with SampleStore(args.store) as store:
                print(parquet.write(args.out, store.query(), None, False), "samples written to", args.out)
    except LedgCostError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()

"""Kills `ledg-cost profile` at random moments and looks whether a sample is lost or doubled, and whether it resumes.

Two profilers measure their own lists of generated networks into one store. They are killed with SIGKILL, one or both at
a time, and given the same command again; what a profiler has reported as measured must be in the store from then on.
Lists that end before the kills do are followed by longer ones. After the last kill both run to their end: every network
must then be there exactly once, and nothing may still be running.

    python tools/profile_crash.py --kills 100 --json results/profile_crash.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from costmodel.cli.sources import generated_graph
from costmodel.samples import SampleStore

WRITERS = ("first", "second")
LONGEST_S = 4.0
FAMILY = "squeezenet"
STRIDE = 1000


@dataclass
class Profiler:
    """One profiling process and the networks that it has to measure: `blocks` times `block` seeds of its own."""

    number: int
    home: Path
    block: int
    blocks: int = 1
    process: subprocess.Popen[bytes] | None = None
    ended: int = 0

    @property
    def seeds(self) -> range:
        return range(self.number * STRIDE, self.number * STRIDE + self.blocks * self.block)

    @property
    def store(self) -> Path:
        return self.home / "samples.sqlite"

    def start(self) -> None:
        """The command once more; a longer list where the last one ran to its end."""
        if self.process is not None and self.process.poll() == 0:
            self.ended, self.blocks = self.ended + 1, self.blocks + 1
        command = [
            sys.executable, "-m", "costmodel.cli", "profile", "--family",
            f"{FAMILY}:{self.seeds[0]}-{self.seeds[-1]}", "--as", "crashed", "--store", str(self.store),
            "--seconds", "0.02", "--attempts", "1",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "LEDG_COST_HOME": str(self.home)}, start_new_session=True,
        )  # fmt: skip

    def kill(self) -> bool:
        """SIGKILL to the profiler alone, as a crash would; returns whether it was still running."""
        assert self.process is not None
        running = self.process.poll() is None
        if running:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        elif self.process.returncode:
            raise SystemExit(f"a profiler ended by itself with status {self.process.returncode}")
        return running

    def finish(self) -> None:
        """Runs to the end."""
        self.start()
        assert self.process is not None
        if self.process.wait(timeout=900):
            raise SystemExit(f"the last run ended with status {self.process.returncode}")


@dataclass
class Watch:
    """What has been seen in the store: every sample once seen must stay as it was."""

    seen: dict[tuple[str, str, int], float] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0
    changed: int = 0

    def look(self, store: Path) -> None:
        if not store.exists():
            return
        with SampleStore(store) as samples:
            found = [((s.fingerprint, s.platform_key, s.batch), s.latency_ms) for s in samples.query()]
        self.doubled = max(self.doubled, sum(n - 1 for n in Counter(key for key, _ in found).values()))
        now = dict(found)
        self.lost += len(self.seen.keys() - now.keys())
        self.changed += sum(now[key] != ms for key, ms in self.seen.items() if key in now)
        self.seen = now


def orphans(home: Path) -> int:
    """Processes that still run with this home."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            count += f"LEDG_COST_HOME={home}".encode() in entry.read_bytes().split(b"\0")
        except OSError:
            continue
    return count


def crash(home: Path, kills: int, seed: int, block: int) -> dict[str, Any]:
    """Runs and kills; returns what was found."""
    moments, watch = random.Random(seed), Watch()
    profilers = [Profiler(i, home, block) for i in range(len(WRITERS))]
    for profiler in profilers:
        profiler.start()
    done = both = before = 0
    while done < kills:
        time.sleep(moments.uniform(0.2, LONGEST_S))
        together = kills - done >= 2 and moments.random() < 0.5
        hit = profilers if together else [moments.choice(profilers)]
        count = len(watch.seen)
        killed = sum([profiler.kill() for profiler in hit])
        watch.look(profilers[0].store)
        before += len(watch.seen) == count
        done, both = done + killed, both + (killed == 2)
        for profiler in hit:
            profiler.start()
        print(f"{done} of {kills} kills, {len(watch.seen)} samples", file=sys.stderr)
    for profiler in profilers:
        profiler.kill()
        profiler.finish()
    watch.look(profilers[0].store)
    names = [f"gen/{FAMILY}/{seed}" for profiler in profilers for seed in profiler.seeds]
    wanted = {generated_graph(name).fingerprint for name in names}
    kept = Counter(fingerprint for fingerprint, _, _ in watch.seen)
    time.sleep(2)
    return {
        "writers": len(WRITERS), "kills": done, "kills_of_both_at_once": both, "kills_without_a_new_sample": before,
        "networks": len(wanted), "kept": len(watch.seen), "missing_after_the_last_run": len(wanted - kept.keys()),
        "lost": watch.lost, "doubled": watch.doubled + sum(n - 1 for n in kept.values()),
        "changed": watch.changed, "still_running": orphans(home),
    }  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--block", type=int, default=20, help="networks of a list, and of each that it grows by")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "command": f"python tools/profile_crash.py --kills {args.kills} --seed {args.seed}",
            **crash(Path(folder), args.kills, args.seed, args.block),
        }
    faults = ("missing_after_the_last_run", "lost", "doubled", "changed", "still_running")
    result |= {"sound": not any(result[f] for f in faults), "seconds": round(time.monotonic() - began, 1)}
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    sys.exit(0 if result["sound"] else 1)


if __name__ == "__main__":
    main()

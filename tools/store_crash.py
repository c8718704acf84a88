"""Kills writers of a sample store at random moments and looks whether anything is lost or doubled.

Two processes write samples, each with a graph, into one new store. Each keeps a journal of what the store acknowledged.
They are killed with SIGKILL, one or both at a time, and started again; a writer goes on after the last of its samples
that it finds in the store. In the end every acknowledged sample must be there, none twice, none without its graph:

    python tools/store_crash.py --kills 100 --json results/store_crash.json
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from costmodel.ir import Graph, GraphBuilder
from costmodel.samples import Sample, SampleStore

WRITERS = ("first", "second")
EARLY = 0.2
"""Share of the kills that may come while a writer loads and opens the store; the others wait until it has written."""

LONGEST_S = 0.4
PATIENCE_S = 60.0

BETWEEN_S = 0.005
"""Measuring takes longer than this; without a pause the store grows so that starting again takes most of the time."""


def network(number: int, writer: str) -> Graph:
    """A chain of 40 operators that tells its writer and number by its width."""
    builder = GraphBuilder(f"{writer}/{number}")
    shape = (1, 2 * number + WRITERS.index(writer) + 1)
    x = builder.input(shape)
    for _ in range(40):
        x = builder.node("Relu", [x], shape)
    return builder.build([x])


def number_of(sample: Sample) -> int:
    return int(sample.name.rpartition("/")[2])


def write(path: Path, writer: str, journal: Path) -> None:
    """Adds samples for ever, from the first that the store lacks; each number goes to the journal once it is kept."""
    with SampleStore(path) as store, open(journal, "a", buffering=1) as acknowledged:
        done = {number_of(sample) for sample in store.query(device=writer)}
        number = len(done)
        while True:
            graph = network(number, writer)
            times = tuple((node.name, 0.01) for node in graph.nodes)
            sample = Sample(
                graph.fingerprint, writer, "fp32", "onnxruntime-1.32.0", 1, 1.0 + number, name=f"crash/{number}",
                operators=times, environment={"writer": writer, "started": number},
            )  # fmt: skip
            store.add(sample, graph)
            acknowledged.write(f"{number}\n")
            number += 1
            time.sleep(BETWEEN_S)


@dataclass
class Writer:
    """One writing process, started again after each kill."""

    name: str
    store: Path
    journal: Path
    process: subprocess.Popen[bytes]
    found: int = 0

    @classmethod
    def first(cls, name: str, store: Path) -> Writer:
        journal = store.with_name(f"{name}.journal")
        return cls(name, store, journal, launch(name, store, journal))

    def kill(self) -> bool:
        """SIGKILL; returns whether it came before this run's first acknowledgement. Ending by itself is an error."""
        self.look()
        early = not self.written
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return early

    def restart(self) -> None:
        self.found = len(acknowledged(self.journal))
        self.process = launch(self.name, self.store, self.journal)

    @property
    def written(self) -> bool:
        """Whether this run has had a sample acknowledged."""
        return len(acknowledged(self.journal)) > self.found

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.written:
            self.look()
            if time.monotonic() > deadline:
                raise SystemExit(f"the {self.name} writer wrote nothing for {PATIENCE_S:g} s")
            time.sleep(0.01)

    def look(self) -> None:
        if self.process.poll() is not None:
            raise SystemExit(f"the {self.name} writer ended by itself with status {self.process.returncode}")


def launch(name: str, store: Path, journal: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--write", name, "--store", str(store), "--journal", str(journal)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def acknowledged(journal: Path) -> list[int]:
    """Complete lines of a journal."""
    if not journal.exists():
        return []
    return [int(line) for line in journal.read_text().split("\n")[:-1]]


def crash(path: Path, kills: int, seed: int) -> tuple[int, int]:
    """Runs and kills until `kills` are done; returns how many hit both at once and how many a writer at its start."""
    moments = random.Random(seed)
    writers = [Writer.first(name, path) for name in WRITERS]
    done = both = early = 0
    while done < kills:
        if moments.random() > EARLY:
            for writer in writers:
                writer.wait()
        time.sleep(moments.uniform(0, LONGEST_S))
        together = kills - done >= 2 and moments.random() < 0.3
        hit = writers if together else [moments.choice(writers)]
        early += sum([writer.kill() for writer in hit])
        for writer in hit:
            writer.restart()
        done, both = done + len(hit), both + together
        if sys.stderr.isatty():
            print(f"\r{done} of {kills} kills", end="" if done < kills else "\n", file=sys.stderr)
    for writer in writers:  # the last start has to get on, too
        writer.wait()
    for writer in writers:
        writer.kill()
    return both, early


def check(path: Path) -> dict[str, Any]:
    """What is lost, doubled or damaged."""
    told = {(writer, n) for writer in WRITERS for n in acknowledged(path.with_name(f"{writer}.journal"))}
    with SampleStore(path) as store:
        samples = store.query()
        kept = Counter((sample.device, number_of(sample)) for sample in samples)
        graphs = sum(store.graph(s.fingerprint).fingerprint == s.fingerprint for s in samples)
    per_writer = {writer: sorted(n for w, n in kept if w == writer) for writer in WRITERS}
    with sqlite3.connect(path) as db:
        integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
    db.close()
    return {
        "acknowledged": len(told),
        "kept": len(samples),
        "kept_per_writer": {writer: len(numbers) for writer, numbers in per_writer.items()},
        "kept_before_their_acknowledgement": len(kept.keys() - told),
        "lost": len(told - kept.keys()),
        "doubled": sum(count - 1 for count in kept.values()),
        "gaps": sum(len(numbers) != (numbers[-1] + 1 if numbers else 0) for numbers in per_writer.values()),
        "without_graph": len(samples) - graphs,
        "integrity_check": integrity,
    }


def sound(result: dict[str, Any]) -> bool:
    """Nothing lost, doubled or damaged, and both writers got on."""
    faults = ("lost", "doubled", "gaps", "without_graph")
    return not any(result[f] for f in faults) and result["integrity_check"] == "ok" and all(
        result["kept_per_writer"].values()
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--write", choices=WRITERS, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--journal", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write(args.store, args.write, args.journal)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.sqlite"
        both, early = crash(path, args.kills, args.seed)
        result = {
            "command": f"python tools/store_crash.py --kills {args.kills} --seed {args.seed}",
            "writers": len(WRITERS), "kills": args.kills, "kills_of_both_at_once": both,
            "kills_before_a_run_wrote": early, **check(path),
        }  # fmt: skip
    result |= {"sound": sound(result), "seconds": round(time.monotonic() - began, 1), "sqlite": sqlite3.sqlite_version}
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
    sys.exit(0 if result["sound"] else 1)


if __name__ == "__main__":
    main()

"""Training speed: graphs/s of one training step as it is, and without each of what makes it fast, in one run.

    python tools/bench_training.py --data DIR --out results/bench_training.json

Needs the extras `train` and `encoder`; builds the corpora in `--cache` where they are not there yet.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from costmodel.api import load_graph
from costmodel.teacher import Teacher
from costmodel.training.batches import Step
from costmodel.training.loop import CONFIGS, Trainer
from costmodel.training.run import make_batches, prepare


@contextmanager
def float32() -> Iterator[None]:
    """Steps without bfloat16."""
    plain = torch.autocast
    torch.autocast = lambda *_, **__: plain("cpu", enabled=False)  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.autocast = plain  # type: ignore[misc]


def rate(trainer: Trainer, draw: Callable[[int], Step], steps: int) -> float:
    """Graphs per second over `steps` steps, packing included; the first is not timed."""
    trainer._update(draw(0))
    graphs, begin = 0, time.perf_counter()
    for i in range(1, steps + 1):
        step = draw(i)
        graphs += step.batch.stats.shape[0]
        trainer._update(step)
    return graphs / (time.perf_counter() - begin)


def measure(data: Path, cache: Path, steps: int, threads: int) -> dict[str, Any]:
    """Graphs per second of every variant."""
    torch.set_num_threads(threads)
    config = CONFIGS["default"]
    corpus = prepare(data, cache, load_graph, print)
    batches = make_batches(corpus, config, cache, "minilm", print)
    teacher = Teacher()
    with TemporaryDirectory() as folder:
        trainer = Trainer(config, batches, Path(folder), print)

        def packed(i: int) -> Step:
            rng = np.random.default_rng(i)
            return batches.draw(trainer.pools, config.pairs, rng)

        def embedded_anew(i: int) -> Step:
            step = packed(i)
            rows = np.unique(corpus.row_graph[step.row])
            spans = [batches.sentence[corpus.node_start[g] : corpus.node_start[g + 1]] for g in rows]
            teacher.encode([corpus.sentences[s] for s in np.unique(np.concatenate(spans))])
            return step

        def one_graph(i: int) -> Step:
            rng = np.random.default_rng(i)
            items = list(trainer.pools.values())[i % len(trainer.pools)].items
            item = items[int(rng.integers(len(items)))]
            return batches.pack([rng.choice(item, min(config.pairs, len(item)), replace=False)], rng)

        found = {"as trained": rate(trainer, packed, steps)}
        with float32():
            found["float32 instead of bfloat16"] = rate(trainer, packed, steps)
        found["sentences embedded in every step"] = rate(trainer, embedded_anew, max(2, steps // 4))
        found["one graph per step instead of a pack"] = rate(trainer, one_graph, steps * 4)
        begin = time.perf_counter()
        for i in range(steps):
            packed(i)
        packing = (time.perf_counter() - begin) / steps
        begin = time.perf_counter()
        for i in range(steps):
            trainer._update(packed(i))
        step_s = (time.perf_counter() - begin) / steps
    return {
        "threads": threads, "steps": steps, "seconds_per_step": round(step_s, 3), "of_it_packing": round(packing, 3),
        "graphs_per_second": {name: round(value, 1) for name, value in found.items()},
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="lowered corpora and embeddings")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON to write")
    args = parser.parse_args()
    found = measure(args.data, args.cache, args.steps, args.threads)
    text = json.dumps({"command": "python tools/bench_training.py --data DIR --out FILE", **found}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

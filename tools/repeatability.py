"""Profiles the same networks several times apart and looks whether the times agree within 3 % or are flagged.

Each pass goes through the whole list before the next one begins, every measurement in a fresh process, so what lies
between two measurements of a network is all the others. A network agrees if the largest of its unflagged times is at
most 3 % over the smallest; it is flagged if fewer than two are unflagged.

    python tools/repeatability.py --networks 20 --passes 5 --json results/repeatability.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from costmodel.samples import Sample, SampleStore

FAMILIES = (
    "alexnet", "vgg", "googlenet", "resnet", "squeezenet", "mobilenetv2", "mobilenetv3", "mnasnet", "efficientnet",
    "nasbench201",
)  # fmt: skip
AGREE = 0.03


def measure(store: Path, networks: int, passes: int, more: list[str]) -> list[Sample]:
    """All measurements of `networks` generated networks, evenly from the ten families."""
    names = [f"gen/{FAMILIES[i % len(FAMILIES)]}/{7000 + i // len(FAMILIES)}" for i in range(networks)]
    command = [
        sys.executable, "-m", "costmodel.cli", "profile", *names, "--as", "repeated", "--store", str(store), "--again",
        *more,
    ]  # fmt: skip
    for i in range(passes):
        print(f"pass {i + 1} of {passes}", file=sys.stderr)
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "LEDG_COST_HOME": str(store.parent)}
        )
    with SampleStore(store) as samples:
        return list(samples.query())


def judge(samples: list[Sample]) -> dict[str, Any]:
    """How far the times of each network lie apart, and how many networks agree, are flagged, or neither."""
    by_network: dict[str, list[Sample]] = {}
    for sample in samples:
        by_network.setdefault(sample.name, []).append(sample)
    rows = {name: _row(own) for name, own in sorted(by_network.items())}
    spreads = [row["spread"] for row in rows.values() if row["spread"] is not None]
    return {
        "networks": len(rows), "measurements": len(samples),
        "flagged_measurements": sum(bool(sample.flags) for sample in samples),
        "agree": sum(spread <= AGREE for spread in spreads), "flagged": len(rows) - len(spreads),
        "neither": sum(spread > AGREE for spread in spreads),
        "median_spread": round(float(np.median(spreads)), 4) if spreads else None,
        "largest_spread": round(max(spreads), 4) if spreads else None, "by_network": rows,
    }  # fmt: skip


def _row(own: list[Sample]) -> dict[str, Any]:
    clean = [sample.latency_ms for sample in own if not sample.flags]
    return {
        "ms": [round(sample.latency_ms, 4) for sample in own], "flags": [list(sample.flags) for sample in own],
        "spread": round(max(clean) / min(clean) - 1, 4) if len(clean) > 1 else None,
    }  # fmt: skip


def main() -> None:
    """Command line; what follows `--` goes to `ledg-cost profile`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("profile", nargs="*", metavar="-- OPTIONS", help="options of ledg-cost profile")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = judge(measure(Path(folder) / "samples.sqlite", args.networks, args.passes, args.profile))
    options = f" -- {' '.join(args.profile)}" if args.profile else ""
    command = f"python tools/repeatability.py --networks {args.networks} --passes {args.passes}{options}"
    found = {"command": command, **found}
    print(json.dumps({k: v for k, v in found.items() if k != "by_network"}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

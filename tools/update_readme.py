"""Writes README.md's measured sections from the committed result tables: `python tools/update_readme.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from costmodel.training.evaluate import markdown

ROOT = Path(__file__).resolve().parent.parent


def table(name: str) -> Any:
    """A committed result table."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def accuracy() -> str:
    """The result table of the split."""
    record = table("split")
    seeds = record["seeds"]
    intro = (
        "`ledg-cost evaluate split --data DIR`: MAPE % (± standard deviation over seeds) / Acc(10 %) / Spearman on\n"
        "test graphs that training never saw, split by fingerprint; epochs chosen on validation graphs and devices.\n"
        f"*default* and *paper* over {seeds} seed{'s' if seeds > 1 else ''}; *line* is FLOPs and bytes fitted to each\n"
        "platform's own training rows (for unseen devices to the source's other devices, in units of the spec sheet);\n"
        "*roofline* has no fit.\n"
    )
    behind = [
        f"{group} ({figures['default']['mape']:.1f} against {figures['line']['mape']:.1f})"
        for rows in record["table"].values()
        for group, figures in rows.items()
        if figures["default"]["mape"] > figures["line"]["mape"]
    ]
    misses = f"The line is closer than *default* on {len(behind)}: {'; '.join(behind)}.\n" if behind else ""
    return intro + "\n" + markdown(record["table"]) + "\n" + misses


def graphs() -> str:
    """What lowers, and how its counts agree with published ones."""
    timm, checks = table("timm"), table("corpora")["checks"]
    within = sum(c["within"] for c in checks)
    lines = [
        f"- {timm['lowered']} of {timm['graphs']} pytorch-image-models graphs lower (`tools/check_timm.py`);",
        f"  ONNX Runtime itself rejects the other {len(timm['failures'])}, which `results/timm.json` names.",
        f"- FLOPs within 2 % of the published figure: {timm['flops_within_2_percent']}; parameters within 0.5 %:",
        f"  {timm['params_within_0.5_percent']}.",
        f"- Builders of the search spaces: {within} of {len(checks)} networks agree with published counts",
        "  (`tools/check_corpora.py`).",
    ]
    return "\n".join(lines) + "\n"


def speed() -> str:
    """The benchmark's figures."""
    f = table("bench")
    lines = [
        "`python tools/bench.py --out results/bench.json`, ResNet-50, one run on two shared cores:",
        "",
        f"- the whole `estimate` process takes {f['cold_estimate_to_import']:.1f} times as long as importing onnx,",
        f"  onnxruntime, numpy and click, `--help` {f['cold_help_to_import']:.2f} times;",
        f"- {f['resident_mb']} MB resident;",
        f"- warm: {f['warm_estimate_graph_ms']:.1f} ms from a loaded graph,",
        f"  {f['warm_estimate_path_ms']:.1f} ms from a file, {f['one_more_platform_ms']:.2f} ms for one more platform;",
        f"- lowering: {f['lowering_nodes_per_second']:,} nodes/s. Growth:",
        *(f"  {int(n):,} nodes {g['seconds']:.2f} s and {g['peak_mb']:,} MB," for n, g in f["nodes"].items()),
    ]
    return "\n".join(lines).rstrip(",") + ".\n"


def main() -> None:
    """Replaces what stands between each section's marks."""
    path = ROOT / "README.md"
    text = path.read_text()
    for name, write in (("accuracy", accuracy), ("graphs", graphs), ("speed", speed)):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = re.sub(f"{begin}.*{end}", f"{begin}\n{write()}{end}".replace("\\", r"\\"), text, flags=re.S)
    path.write_text(text)


if __name__ == "__main__":
    main()

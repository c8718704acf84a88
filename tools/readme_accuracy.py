"""README.md's sections on the split and on what was aimed at; `tools/update_readme.py` writes them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from costmodel.training.evaluate import markdown
from costmodel.training.tables import cell
from tools.results import table

TAU_AIMS = {"469": 0.90, "781": 0.92, "1563": 0.93}
"""Training cells → Kendall's tau on CIFAR-10."""

COVERAGE_AIMS = {"unseen graphs": (87, 93), "unseen graphs on unseen devices": (85, 100)}
"""Part of the split → share of measurements in % that its 90 % intervals should hold."""

CROSS_AIMS = (
    ("timm on a GPU without any row", "cross_device", " · timm", 12),
    ("T4 with Paddle, from T4's operators and spec sheet", "cross_device", "operators alone · paddleclas", 20),
    ("fp16 of T4 from its other precisions", "precision_transfer", "t4 fp16 · paddleclas", 15),
    ("int8 operators of V100 from its other precisions", "precision_transfer", "v100 int8 · tinynas-ops", 15),
    ("transformers end to end, each GPU left out", "neusight", " · neusight-e2e", 10),
)
"""(what, table, words of its groups, MAPE in % that was aimed at)."""


def accuracy() -> str:
    """The result table of the split."""
    record = table("split")
    parts = record["table"]
    intro = (
        "`ledg-cost evaluate split --data DIR --config default --config paper`: MAPE % (± standard deviation over\n"
        "seeds) / Acc(10 %) / Spearman on test graphs that training never saw, split by fingerprint; epochs chosen on\n"
        f"validation graphs and devices. *default* over {record['seeds']} seeds of {record['steps']['default']:,}\n"
        f"steps, *paper* over as many of {record['steps']['paper']:,}; *line* is FLOPs and bytes fitted to each\n"
        "platform's own training rows (for unseen devices to the source's other devices, in units of the spec sheet);\n"
        "*roofline* has no fit; *trees* are boosted on whole-graph statistics, roofline and spec sheet.\n"
    )
    misses = ""
    for model, words in (("line", "The line is"), ("trees", "The trees are")):
        behind = [
            f"{group} ({ours:.1f} against {theirs:.1f})"
            for group, ours, theirs in _against(parts, model)
            if ours > theirs
        ]
        if behind:
            misses += f"{words} closer than *default* on {len(behind)}: {'; '.join(behind)}.\n"
    return intro + "\n" + markdown(parts) + "\n" + misses


def _against(parts: Any, model: str) -> Iterator[tuple[str, float, float]]:
    """(row, MAPE of the default, MAPE of another model) of each row of the split."""
    for rows in parts.values():
        for group, figures in rows.items():
            yield group, figures["default"]["mape"], figures[model]["mape"]


def intervals() -> str:
    """Coverage and width of the 90 % interval per source of the split."""
    lines = ["| 90 % interval | rows | inside % | a factor of |", "|---|---:|---:|---:|"]
    for part, rows in table("split")["table"].items():
        for group, figures in rows.items():
            f = figures["default"]
            name = f"{part.removeprefix('unseen graphs on ')} · {group}"
            lines.append(f"| {name} | {f['n']} | {f['coverage']:.0f} | {math.exp(f['half_width']):.2f} |")
    return "\n".join(lines) + "\n"


def new_devices(record: Any) -> list[str]:
    """The interval that each left-out device needs, beside what that of the others of its kind holds."""
    lines = [
        "| left out | rows | default | 90 % need a factor of | the others' interval | % inside |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for name, rows in record["tables"]["new devices"].items():
        f = rows["default"]
        others = f"{math.exp(f['half_width']):.2f} | {f['coverage']:.0f}" if "coverage" in f else "|"
        lines.append(f"| {name} | {f['n']} | {cell(f)} | {math.exp(f['needs']):.2f} | {others} |")
    widths = ", ".join(f"{kind} {math.exp(w):.2f}" for kind, w in record["half_width"].items())
    read = "; ".join(
        f"{kind} " + ", ".join(f"{error:.1f} ({float(weight):.0%})" for weight, error in by_weight.items())
        for kind, by_weight in record["kin"].items()
    )
    return [
        *lines, "", f"The interval of a new device, by its kind, is at least a factor of: {widths}.",
        f"Mean MAPE % over its platforms and sources by the weight of kin: {read}.", "",
    ]  # fmt: skip


def aims() -> str:
    """What was aimed at, what came of it and whether that is enough."""
    lines = ["| aim | | measured | met |", "|---|---|---|---|"]
    for what, aim, measured, met in (*_split_aims(), *_cross_aims(), *_tau_aims(), *_graph_aims()):
        lines.append(f"| {what} | {aim} | {measured} | {'yes' if met else '**no**'} |")
    return "\n".join(lines) + "\n"


Aim = tuple[str, str, str, bool]


def _split_aims() -> Iterator[Aim]:
    parts = table("split")["table"]
    ahead = [ours < theirs for _, ours, theirs in _against(parts, "line")]
    yield "closer than a line fitted to FLOPs and bytes", "all rows", f"{sum(ahead)} of {len(ahead)}", all(ahead)
    paddle = parts["unseen graphs"]["paddleclas"]["default"]
    yield "T4 with Paddle, unseen graphs", "≤ 8 %", _mape(paddle), paddle["mape"] <= 8
    for part, (low, high) in COVERAGE_AIMS.items():
        inside = [low <= figures["default"]["coverage"] <= high for figures in parts[part].values()]
        aim = f"{low} to {high} %" if high < 100 else f"≥ {low} %"
        yield f"inside 90 % intervals, {part}", aim, f"{sum(inside)} of {len(inside)} rows", all(inside)


def _cross_aims() -> Iterator[Aim]:
    for what, name, words, limit in CROSS_AIMS:
        groups = {
            group: figures["default"]
            for rows in table(name)["tables"].values()
            for group, figures in rows.items()
            if words in group
        }
        measured = "; ".join(
            _mape(f) + (f" ({group.split(' · ')[0].removesuffix(' left out')})" if len(groups) > 1 else "")
            for group, f in groups.items()
        )
        yield what, f"≤ {limit} %", measured, all(f["mape"] <= limit for f in groups.values())


def _mape(figures: Any) -> str:
    return f"{figures['mape']:.1f} ± {figures['mape_sd']:.1f} %"


def _tau_aims() -> Iterator[Aim]:
    tables = table("nb201_accuracy")["datasets"]["cifar10"]["tables"]
    found = {cells: tables[cells]["models"]["ledg-former"]["all"] for cells in TAU_AIMS}
    yield (
        f"Kendall's τ of NAS-Bench-201's accuracy, {' / '.join(TAU_AIMS)} cells",
        "> " + " / ".join(f"{aim:.2f}" for aim in TAU_AIMS.values()),
        " / ".join(f"{tau:.3f}" for tau in found.values()),
        all(found[cells] > aim for cells, aim in TAU_AIMS.items()),
    )


def _graph_aims() -> Iterator[Aim]:
    timm = table("timm")
    for what, aim, key in (
        ("FLOPs within 2 % of published", 90, "flops_within_2_percent"),
        ("parameters within 0.5 % of published", 95, "params_within_0.5_percent"),
    ):
        count, _, total = timm[key].split(" ")[0].partition("/")
        share = 100 * int(count) / int(total)
        yield what, f"≥ {aim} % of graphs", f"{share:.1f} %", share >= aim

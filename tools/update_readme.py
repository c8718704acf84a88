"""Writes README.md's measured sections from the committed result tables: `python tools/update_readme.py`."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from costmodel.training.tables import cell, markdown
from tools.readme_accuracy import accuracy, aims, intervals, new_devices
from tools.readme_compilers import compilers, speed
from tools.results import ROOT, exists, table

SAMPLES = "results/samples/epyc_turin_1core.parquet"


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


def languages() -> str:
    """How far the other languages' graphs agree with ONNX's."""
    relax, relay, torch = table("relax")["summary"], table("relay"), table("torch")
    routes = {
        "ONNX → Relay text": relay["twins"],
        "ONNX → Relax, as imported": relax["imported"],
        "ONNX → Relax, after LegalizeOps and FuseOps": relax["fused"],
        "torch.export (against ONNX export)": torch,
    }
    keys = ("compared", "identical_fingerprint", *(f"{q}_within_1_percent" for q in ("flops", "params", "bytes")))
    lines = [
        "| route | networks | same graph | FLOPs ±1 % | params ±1 % | bytes ±1 % | estimate ±1 % | largest |",
        "|---|" + "---:|" * 7,
    ]
    for name, t in routes.items():
        worst = max(t["largest_estimate_difference"].values())
        cells = [*(t[k] for k in keys), t["estimate_within_1_percent"], f"{worst:.2%}"]
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    types, forms, fuzz = relay["types"], relay["forms"], relay["fuzz"]
    lines += [
        "",
        f"- Relay's type inference: {types['equal']:,} of {types['compared']:,} recorded types equal those of TVM",
        f"  ({types['equal_from_the_text_alone']:,} from the text alone, {types['equal_given_types_of_constants']:,}",
        "  given the types of constants that the text leaves out);",
        f"  {types['programs']} programs parse, the {forms['compared']} that lower from two forms have one",
        "  fingerprint;",
        f"  {fuzz['mutations']:,} mutated programs: a graph or a one-line error, none over"
        f" {fuzz['slowest_cpu_seconds'] + 0.005:.1f} s of processor time, {fuzz['peak_mib']} MiB.",
    ]
    return "\n".join(lines) + "\n"


def families(name: str) -> str:
    """Tables 1 and 2 of the paper on our own measurements: LeDG-Former by family, and every model's average."""
    record = table(name)
    tables = record["tables"]
    config = record["configs"][0]
    heads = [platform.split("|")[1] + " " + platform.split("|")[2].split("-")[0] for platform in tables]
    lines = [
        f"| {record['protocol']} | {' | '.join(heads)} | the paper, on NNLQP |",
        "|---|" + "---|" * (len(tables) + 1),
    ]
    first = next(iter(tables.values()))
    named = [(family, config) for family in first if family != "average"] if len(first) > 2 else []
    for family, model in [*named, *(("average", m) for m in first["average"])]:
        theirs = record["paper"].get(family) if model == config else None
        cells = [cell(rows[family][model]) for rows in tables.values()]
        label = family if family != "average" else f"average, {model}"
        lines.append(f"| {label} | {' | '.join(cells)} | {f'{theirs[0]:.2f} / {theirs[1]:.0f}' if theirs else ''} |")
    return "\n".join(lines) + "\n"


def cross() -> str:
    """The cross-hardware protocols, one table after the other."""
    lines: list[str] = []
    for name, intro in (
        ("cross-device", "One device without any row of its own; `t4:operators`: with its single operators alone"),
        ("precision-transfer", "One precision of a device by a model of its others"),
        ("neusight", "NeuSight's GPUs, each by a model of the others' measurements"),
        ("help-few-shot", "Ten networks of each of HELP's unseen devices (titan_rtx at batch 256)"),
        ("new-families", "Networks of architecture families outside training"),
        ("new-kinds", "Kinds of networks that training has on other platforms, but not on the one that is asked for"),
        ("new-devices", "Devices by a model of the others of their kind: what interval would have held 90 %"),
        ("new-runtimes", "A runtime outside training, by how much of the answer's ln is the roofline's"),
        ("operators", "Single operators of unseen shapes"),
    ):
        file = name.replace("-", "_")
        if not exists(file):
            continue
        record = table(file)
        lines += [f"**{intro}** (`{evaluation(record)}`)", ""]
        if name == "new-devices":
            lines += new_devices(record)
            continue
        for rows in record["tables"].values():
            lines += [*markdown(rows, "left out · source"), ""]
        if name == "new-families":
            new, usual = (
                rows[group][record["configs"][0]]
                for group in ("networks of new families", "new networks of known families")
            )
            half = record["half_width"]
            lines += [
                f"*Out of distribution* are told {record['hit_rate_calibrating']:g} % of the measurements of the new"
                f" families that calibrate the interval,",
                f"{record['hit_rate']:g} % of those of the ones reported, and {record['false_alarms']:g} % of known"
                f" families'. Their interval is a factor of",
                f"{math.exp(half['new_family']):.2f}, the others' {math.exp(half['known_platform']):.2f}. So answered,"
                f" the intervals hold {new['coverage']:.0f} % of the reported new families and",
                f"{usual['coverage']:.0f} % of known ones.", "",
            ]  # fmt: skip
        if name == "new-kinds":
            lines += [
                f"Their interval is a factor of {math.exp(record['half_width']['new_kind']):.2f}, chosen on half of the"
                f" platforms; it holds {record['coverage']:.0f} % on the others.", "",
            ]  # fmt: skip
        if name == "new-runtimes":
            lines += [
                f"Chosen here, on validation graphs: {record['roofline_share']:.0%} roofline, and an interval of a"
                f" factor of {math.exp(record['half_width']):.2f}.", "",
            ]  # fmt: skip
    return "\n".join(lines)


def evaluation(record: Any) -> str:
    """The command of a cross-hardware table."""
    source = f"--samples {SAMPLES}" if record["protocol"] == "ablation" else "--data DIR"
    configs = "".join(f" --config {name}" for name in record["configs"] if record["configs"] != ["default"])
    command = f"ledg-cost evaluate {record['protocol']} {source}{configs} --seeds {record['seeds']}"
    command += f" --steps {record['steps']}"
    return command + (f" --devices {','.join(record['devices'])}" if record.get("devices") else "")


def minutes() -> str:
    """How long the committed evaluations took."""
    files = sorted((ROOT / "results").glob("*.json"))
    took: Counter[str] = Counter()
    for record in (table(f.stem) for f in files):
        if "minutes" in record:
            took[record["protocol"]] += record["minutes"]
    each = ", ".join(f"{name} {value:.0f}" for name, value in took.items())
    return (
        f"Minutes that the tables took, two at a time on two cores: {each}; {sum(took.values()) / 60:.1f} hours in all,"
        " besides the\nruns behind the split: two hours for each of *default* and for the release, half of one for"
        " each of *paper*.\n"
        "Parts of stopped evaluations are added up, some by the clock; trees kept beside a run are not counted again.\n"
    )


def fewshot() -> str:
    """MAPE on networks of our own machine by number of samples."""
    if not exists("fewshot"):
        return ""
    platforms = table("fewshot")["platforms"]
    first = next(iter(platforms.values()))
    lines = [
        f"`python tools/fewshot.py --samples results/samples/epyc_turin_1core.parquet --name gen/ --selector --draws"
        f" {first['draws']} --bundle DIR`,",
        f"a bundle that does not know the machine; MAPE % on {first['test']} other networks of it, mean over"
        f" {first['draws']} draws:", "",
        "| platform | samples | tuned, selected | tuned, random | inside 90 % | line, random | trees, random |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for platform, found in platforms.items():
        rows = {(r["picked"], r["samples"], r["method"]): r for r in found["results"]}
        head = " ".join((platform.split("|")[1], platform.split("|")[2].split("-")[0]))
        lines.append(f"| {head} | 0 | {rows['', 0, 'none']['mape']:.1f} | | | | |")
        for count in sorted({n for _, n, _ in rows if n}):
            cells = [rows[way, count, m]["mape"] for way, m in (
                ("selector", "finetune"), ("random", "finetune"), ("random", "line"), ("random", "trees"))]  # fmt: skip
            cover = f"{rows['selector', count, 'finetune']['coverage']:.0f}"
            shown = [f"{c:.1f}" for c in cells]
            lines.append(f"| {head} | {count} | {' | '.join([*shown[:2], cover, *shown[2:]])} |")
    return "\n".join(lines) + "\n"


def repeatability() -> str:
    """How well profiles of one network agree."""
    if not exists("repeatability"):
        return ""
    f = table("repeatability")
    return (
        f"`{f['command']}`, each network profiled in turn on a shared machine: of {f['networks']},"
        f" {f['agree']} agree\nwithin 3 %, {f['flagged']} are flagged, neither: {f['neither']}. Median spread"
        f" {f['median_spread']:.1%}, largest {f['largest_spread']:.1%}; {f['flagged_measurements']} of"
        f" {f['measurements']} measurements are flagged.\n"
    )


def nas() -> str:
    """Kendall's tau of accuracy prediction."""
    from costmodel.training.accuracy import markdown as accuracy_tables

    if not exists("nb201_accuracy"):
        return ""
    return accuracy_tables(table("nb201_accuracy"))


def ablation() -> str:
    """Table 4 of the paper on our own measurements."""
    if not exists("ablation"):
        return ""
    record = table("ablation")
    lines = [f"`{evaluation(record)}`", ""]
    for config, rows in record["tables"].items():
        lines += [
            f"| *{config}* | {' | '.join(p.replace('|', ' ') for p in rows)} | the paper |",
            "|---|" + "---|" * (len(rows) + 1),
        ]
        for variant in rows["average"]:
            theirs = record["paper"].get(variant)
            cells = [cell(figures[variant]) for figures in rows.values()]
            paper = f"{theirs[0]:.2f} / {theirs[1]:.0f}" if theirs else ""
            lines.append(f"| {variant} | {' | '.join(cells)} | {paper} |")
        lines.append("")
    return "\n".join(lines)


def zero_shot() -> str:
    """What each part is worth on unseen devices."""
    if not exists("zero_shot_ablation"):
        return ""
    record = table("zero_shot_ablation")
    lines = [f"`{evaluation(record)}`", ""]
    for rows in record["tables"].values():
        lines += [*markdown(rows, "device · source"), ""]
    return "\n".join(lines)


def main() -> None:
    """Replaces what stands between each section's marks."""
    path = ROOT / "README.md"
    text = path.read_text()
    sections: dict[str, Callable[[], str]] = {
        "aims": aims, "accuracy": accuracy, "graphs": graphs, "languages": languages, "speed": speed, "cross": cross,
        "intervals": intervals, "nas": nas, "fewshot": fewshot, "ablation": ablation, "compilers": compilers,
        "minutes": minutes, "repeatability": repeatability, "zero-shot": zero_shot,
        **{name: partial(families, name.replace("-", "_")) for name in ("nnlqp-ood", "nnlqp-in-domain")},
    }  # fmt: skip
    for name, write in sections.items():
        if f"<!-- {name} -->" not in text:
            continue
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = re.sub(f"{begin}.*{end}", f"{begin}\n{write()}{end}".replace("\\", r"\\"), text, flags=re.S)
    path.write_text(text)


if __name__ == "__main__":
    main()

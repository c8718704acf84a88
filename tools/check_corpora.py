"""Checks the corpus graphs against published counts and against the measurements themselves.

For ten known networks of each source: multiply-accumulates of the dense products and learnable parameters, next to the
published values, which are

nb201         counted by forward hooks on the search space's PyTorch code (AutoDL-Projects, in the copy of HW-NAS-Bench)
fbnet         the same on HW-NAS-Bench's FBNet_Infer with dataset cifar100
ofa_mbv3      the same on OFAMobileNetV3(width_mult=1.2).get_active_subnet of mit-han-lab/once-for-all
anb_effnet    Accel-NASBench's own columns; its operation count adds 4 per BatchNormalization and 1 per pooled element
transformers  parameters of Hugging Face's models of these configurations (tied output embeddings counted once there)
timm          timm_reference.csv, rounded to 10 MMACs; its counter adds 2 per BatchNormalization element (in the ONNX
              files folded into convolutions, whose outputs stand for them here) and 5 per LayerNormalization element

Then, as a sanity check, Spearman's correlation of FLOPs with latency per source, device and batch. Prints a
table and, with --out, writes JSON. Exits with 1 if a network is outside its tolerance.

    python tools/check_corpora.py --data DIR [--out check.json] [--no-timm]
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from costmodel import corpora
from costmodel.analysis import Analysis, analyze
from costmodel.corpora import operators, transformers
from costmodel.fusion import fused_traffic, fusion_groups
from costmodel.ir import Graph
from costmodel.metrics import spearman

# (network, multiply-accumulates, parameters)
COUNTED: tuple[tuple[str, int, int], ...] = (
    (
        "nb201/|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        220_119_680,
        1_531_546,
    ),
    (
        "nb201/|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        184_730_240,
        1_288_506,
    ),
    ("nb201/|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", 7_783_040, 73_306),
    (
        "nb201/|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
        7_783_040,
        73_306,
    ),
    (
        "nb201/|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|",
        86_426_240,
        615_386,
    ),
    (
        "nb201/|skip_connect~0|+|avg_pool_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        78_561_920,
        559_386,
    ),
    (
        "nb201/|nor_conv_1x1~0|+|skip_connect~0|nor_conv_3x3~1|+|skip_connect~0|skip_connect~1|avg_pool_3x3~2|",
        47_104_640,
        344_346,
    ),
    (
        "nb201/|nor_conv_1x1~0|+|avg_pool_3x3~0|skip_connect~1|+|nor_conv_1x1~0|nor_conv_3x3~1|nor_conv_1x1~2|",
        54_968_960,
        400_346,
    ),
    (
        "nb201/|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|nor_conv_3x3~0|skip_connect~1|none~2|",
        86_426_240,
        615_386,
    ),
    (
        "nb201/|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|nor_conv_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|",
        86_426_240,
        615_386,
    ),
    ("fbnet/" + ",".join(["k3_e1"] * 22), 31_322_240, 1_170_676),
    ("fbnet/" + ",".join(["k5_e6"] * 22), 160_926_080, 3_749_652),
    ("fbnet/" + ",".join(["skip"] * 22), 11_608_960, 780_660),
    ("fbnet/" + ",".join(["k3_e1_g2"] * 22), 21_051_008, 940_084),
    (
        "fbnet/k5_e1_g2,k5_e6,k3_e3,skip,k5_e1,k5_e1_g2,skip,k3_e1,k5_e3,k3_e6,k3_e1_g2,"
        "k5_e1,k5_e1_g2,k5_e3,k3_e6,k3_e1_g2,k3_e3,k3_e6,k3_e3,k5_e6,k3_e1_g2,k3_e1",
        66_918_400,
        2_041_300,
    ),
    (
        "fbnet/k5_e6,k3_e3,k5_e6,k3_e1,k3_e1,k5_e1_g2,k5_e1,k5_e1_g2,k3_e6,k3_e3,k3_e3,"
        "k5_e1,k3_e1_g2,k5_e1,k3_e6,skip,k5_e3,k3_e1,k5_e3,k3_e3,k3_e1,k3_e1_g2",
        65_889_408,
        1_626_492,
    ),
    (
        "fbnet/k3_e1,k3_e6,k3_e6,k5_e1,k5_e6,k3_e1,k3_e6,k3_e6,k3_e3,k3_e6,k3_e1_g2,"
        "k3_e6,k5_e3,skip,k5_e6,skip,k5_e3,k3_e6,k3_e1_g2,k3_e6,k3_e1,k3_e6",
        94_721_664,
        2_466_420,
    ),
    (
        "fbnet/k5_e6,k5_e1_g2,k5_e1_g2,skip,k5_e3,k3_e3,skip,k5_e3,k3_e1_g2,k5_e3,k5_e3,"
        "k3_e1,k5_e6,k5_e1_g2,k5_e3,k5_e6,skip,k5_e1,k5_e3,k3_e3,k5_e1_g2,k3_e6",
        69_319_680,
        2_201_012,
    ),
    (
        "fbnet/k5_e3,k5_e1,k3_e6,skip,skip,k3_e1,k5_e1_g2,k5_e1_g2,k5_e3,k5_e6,k3_e6,"
        "k5_e1_g2,skip,k3_e1,skip,skip,k5_e3,k3_e1,k5_e6,k5_e1,k5_e3,k5_e3",
        55_481_344,
        1_972_244,
    ),
    (
        "fbnet/k3_e1,k5_e3,k3_e3,k3_e3,k5_e6,k3_e3,k3_e6,k3_e3,k5_e3,k5_e1,k3_e1,"
        "skip,k3_e3,k5_e1_g2,k5_e6,k3_e1,k3_e1,k3_e3,k3_e1,k3_e1,k3_e1_g2,k3_e3",
        70_442_368,
        1_601_308,
    ),
    ("ofa_mbv3/r224;d44444;k77777777777777777777;e66666666666666666666", 843_101_040, 10_701_632),
    ("ofa_mbv3/r128;d22222;k33333333333333333333;e33333333333333333333", 65_536_896, 4_602_456),
    ("ofa_mbv3/r160;d33324;k37377357577737735573;e64336644463444666446", 221_090_736, 7_464_392),
    ("ofa_mbv3/r168;d23334;k35753777335775737755;e46346343664364463636", 261_775_120, 7_847_608),
    ("ofa_mbv3/r212;d44444;k73555555537777377757;e46666663643636666636", 635_562_720, 9_462_744),
    ("ofa_mbv3/r128;d22344;k35377373573533735557;e43333443346643634336", 123_121_408, 7_342_328),
    ("ofa_mbv3/r172;d43322;k53537553355573535737;e43436366344464443366", 224_667_248, 5_196_712),
    ("ofa_mbv3/r224;d23242;k77553775335753573557;e44664334433363434344", 345_733_920, 5_523_016),
    ("ofa_mbv3/r204;d32432;k35377355555733777573;e34364434344634646633", 329_424_920, 6_773_184),
    ("ofa_mbv3/r196;d23323;k33353535533537375735;e36646636336463333336", 258_105_816, 5_468_112),
)

HUGGING_FACE = {
    "bert": 109_483_778, "bert_large": 335_143_938, "gpt2_med": 354_823_168, "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200, "gpt3_27": 2_651_553_280, "gpt3_xl": 2_879_554_560, "gpt3_67": 6_658_404_352,
    "gpt3_13": 12_853_386_240, "opt_13": 1_315_758_080,
}  # fmt: skip

TIMM = (
    "resnet50@224", "vgg16@224", "mobilenetv3_large_100@224", "efficientnet_b0@224", "densenet121@224",
    "convnext_tiny@224", "inception_v3@299", "vit_base_patch16_224@224", "swin_tiny_patch4_window7_224@224",
    "mixer_b16_224@224",
)  # fmt: skip

Check = dict[str, Any]


def check(source: str, name: str, counted: tuple[float, float], published: tuple[float, float], limit: float) -> Check:
    """One line of the table: (operations, parameters) here and published; None where nothing is published."""
    errors = [abs(ours / theirs - 1) for ours, theirs in zip(counted, published, strict=True) if theirs]
    return {
        "source": source,
        "network": name,
        "macs": counted[0],
        "macs_published": published[0] or None,
        "params": counted[1],
        "params_published": published[1] or None,
        "largest_error": max(errors),
        "within": max(errors) <= limit,
    }


def check_counted() -> list[Check]:
    found = []
    for name, macs, params in COUNTED:
        cost = analyze(corpora.build(name))
        found.append(check(name.partition("/")[0], name, (cost.macs, cost.params), (macs, params), 0.0))
    return found


def check_accel(data: Path, count: int = 10) -> list[Check]:
    import pyarrow.parquet as pq

    table = pq.read_table(data / "accel_nasbench.parquet", columns=["graph", "macs_m", "params_m"]).to_pydict()
    rows = sorted(set(zip(table["graph"], table["macs_m"], table["params_m"], strict=True)))
    found = []
    for name, macs, params in random.Random(0).sample(rows, count):
        graph = corpora.build(name)
        cost = analyze(graph)
        counted = cost.macs + sum(_accel_extra(graph, i, cost) for i in range(len(graph)))
        found.append(check("anb_effnet", name, (counted, cost.params), (macs * 1e6, params * 1e6), 1e-6))
    return found


def _accel_extra(graph: Graph, index: int, cost: Analysis) -> float:
    node = graph.nodes[index]
    if node.op == "BatchNormalization":
        return 4.0 * cost.nodes[index].parallel
    return float(graph.tensors[node.inputs[0]].numel + cost.nodes[index].parallel) * (node.op == "GlobalAveragePool")


def check_transformers(data: Path) -> list[Check]:
    configs = json.loads((data / "neusight_model_configs.json").read_text())
    found = []
    for name, params in HUGGING_FACE.items():
        config = configs[name]
        tied = 0
        if config["model_type"] != "bert":
            width = config.get("n_embd") or config.get("word_embed_proj_dim") or config["hidden_size"]
            tied = config["vocab_size"] * width
        cost = analyze(transformers.build(config, 512))
        found.append(check("transformers", name, (cost.macs, cost.params - tied), (0, params), 0.0))
    return found


def check_timm(data: Path) -> list[Check]:
    from frontends import load

    with (data / "timm_reference.csv").open() as handle:
        published = {row["graph"]: row for row in csv.DictReader(handle)}
    found = []
    wanted = {f"{name}.onnx": name for name in TIMM}
    with tarfile.open(data / "timm_graphs.tar.xz", "r|xz") as archive, tempfile.TemporaryDirectory() as folder:
        for member in archive:
            name = wanted.pop(Path(member.name).name, None)
            content = archive.extractfile(member) if name else None
            if content is not None:
                path = Path(folder) / f"{name}.onnx"
                path.write_bytes(content.read())
                graph, row = load(path, batch=1), published[f"timm/{name}"]
                cost = analyze(graph)
                counted = cost.macs + sum(_timm_extra(graph, i, cost) for i in range(len(graph)))
                values = (float(row["gmacs"]) * 1e9, float(row["million_params"]) * 1e6)
                found.append(check("timm", str(name), (counted, cost.params), values, 0.02))
            if not wanted:
                break
    return found


def _timm_extra(graph: Graph, index: int, cost: Analysis) -> float:
    node, elements = graph.nodes[index], cost.nodes[index].parallel
    folded = node.op == "Conv" and len(node.inputs) > 2
    return elements * (2.0 * (folded or node.op == "BatchNormalization") + 5.0 * (node.op == "LayerNormalization"))


def correlations(data: Path, count: int = 600) -> list[dict[str, Any]]:
    """Spearman of FLOPs with latency on `count` graphs of each search space, per device and batch."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["source", "graph", "device", "runtime", "batch", "latency_ms"]
    table = pq.read_table(data / "latency.parquet", columns=columns)
    found = []
    for source in ("help/nasbench201", "nnlqp/nasbench201", "help/fbnet", "help/ofa"):
        rows = table.filter(pc.equal(table["source"], source)).to_pylist()
        kept = set(random.Random(0).sample(sorted({row["graph"] for row in rows}), count))
        flops: dict[tuple[str, bool], float] = {}
        groups: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        for row in rows:
            if row["graph"] in kept:
                key = row["graph"], corpora.runs_folded(row["device"], row["runtime"])
                if key not in flops:
                    flops[key] = analyze(corpora.build(key[0], folded=key[1])).flops
                groups[row["device"], row["batch"]].append((flops[key], row["latency_ms"]))
        found += [_correlation(source, device, batch, pairs) for (device, batch), pairs in sorted(groups.items())]
    return found + _operator_correlations(data)


def _operator_correlations(data: Path, count: int = 400) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in pq.read_table(data / "ops.parquet").to_pylist():
        groups[row["source"], row["op"], f"{row['device']} {row['precision']}"].append(row)
    found = []
    for (source, op, device), rows in sorted(groups.items()):
        pairs = []
        for row in random.Random(0).sample(rows, min(count, len(rows))):
            pairs.append((analyze(operators.build(row)).flops, row["latency_ms"]))
        found.append(_correlation(f"{source} {op}", device, 0, pairs))
    return found


def _correlation(source: str, device: str, batch: int, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    import numpy as np

    values = np.asarray(pairs)
    return {
        "source": source, "device": device, "batch": batch, "graphs": len(pairs),
        "spearman": round(spearman(values[:, 1], values[:, 0]), 3),
    }  # fmt: skip


def speed(count: int = 100) -> dict[str, float]:
    """Graphs per second per search space: built, analysed and grouped."""
    rates = {}
    for space in ("nb201", "fbnet", "ofa_mbv3"):
        names = [name for name, _, _ in COUNTED if name.startswith(space)]
        start = time.perf_counter()
        for i in range(count):
            graph = corpora.build(names[i % len(names)])
            analyze(graph)
            fused_traffic(graph, fusion_groups(graph))
        rates[space] = round(count / (time.perf_counter() - start), 1)
    return rates


def main() -> int:
    """Runs all checks; 1 if one fails."""
    parser = argparse.ArgumentParser(description="Check the corpus graphs against published counts.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the measurements")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--no-timm", action="store_true", help="leave out the timm archive (it takes a minute)")
    args = parser.parse_args()
    checks = check_counted() + check_accel(args.data) + check_transformers(args.data)
    if not args.no_timm:
        checks += check_timm(args.data)
    for line in checks:
        mark = "ok  " if line["within"] else "OFF "
        macs, params = line["macs"] / 1e6, line["params"] / 1e6
        print(f"{mark}{line['network'][:70]:70} {macs:12.2f} MMACs {params:10.3f} M  {line['largest_error']:.2%}")
    found = correlations(args.data)
    for line in found:
        print(f"{line['source']:24} {line['device']:32} {line['batch']:4} {line['spearman']:7.3f} ({line['graphs']})")
    rates = speed()
    print("graphs per second, built, analysed and grouped:", rates)
    if args.out:
        args.out.write_text(
            json.dumps({"checks": checks, "correlations": found, "graphs_per_s": rates}, indent=1) + "\n"
        )
    return 0 if all(line["within"] for line in checks) else 1


if __name__ == "__main__":
    sys.exit(main())

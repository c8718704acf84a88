"""`ledg-cost estimate` and `inspect` as a user meets them, with the released bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import helper

from tests.costmodel.cli.conftest import Run, small_model

FIELDS = [
    "model", "target", "precision", "runtime", "batch", "latency_ms", "interval_ms", "provenance", "coverage",
    "bound_ms",    "flops", "params", "peak_memory_bytes", "warnings", "operators",
]  # fmt: skip


def entries(ledg: Run, *args: object) -> list[dict]:
    status, out, err = ledg("estimate", *args, "--json")
    assert status == 0, err
    record = json.loads(out)
    assert record["schema"] == 1
    return record["estimates"]


def test_json_has_every_combination_in_order_and_every_field(ledg: Run, resnet50: str) -> None:
    found = entries(
        ledg, resnet50, "-t", "t4,v100", "-p", "fp32,fp16", "-r", "tensorrt", "-r", "pytorch-eager-2.1", "-b", "1,4"
    )
    keys = [(e["target"], e["precision"], e["runtime"], e["batch"]) for e in found]
    assert keys == [
        (t, p, r, b)
        for t in ("t4", "v100")
        for p in ("fp32", "fp16")
        for r in ("tensorrt", "pytorch-eager-2.1")
        for b in (1, 4)
    ]
    for entry in found:
        assert list(entry) == FIELDS
        lo, hi = entry["interval_ms"]
        assert entry["bound_ms"] <= lo <= entry["latency_ms"] <= hi
        assert sum(o["latency_ms"] for o in entry["operators"]) == pytest.approx(entry["latency_ms"], rel=1e-4)


def test_precision_batch_and_bound_on_t4(ledg: Run, resnet50: str) -> None:
    found = {
        (e["precision"], e["batch"]): e
        for e in entries(ledg, resnet50, "-t", "t4", "-p", "fp32,fp16,int8", "-b", "1,8,32")
    }
    for batch in (1, 8, 32):
        fp32, fp16, int8 = (found[p, batch]["latency_ms"] for p in ("fp32", "fp16", "int8"))
        assert fp32 > fp16 > int8
    for precision in ("fp32", "fp16", "int8"):
        small, middle, large = (found[precision, b]["latency_ms"] for b in (1, 8, 32))
        assert small < middle < large
    assert found["fp32", 1]["params"] == 25_557_032
    assert found["fp32", 1]["flops"] == pytest.approx(8.2e9, rel=0.02)


def test_default_output_fits_fifteen_lines(ledg: Run, resnet50: str) -> None:
    status, out, err = ledg(
        "estimate", resnet50, "--target", "t4,v100,a100,l4", "--precision", "fp32,fp16", "--batch", "1,2,4"
    )
    assert status == 0, err
    lines = out.splitlines()
    assert len(lines) <= 15
    assert "14 more" in out
    for word in ("latency", "interval", "bound", "coverage", "provenance"):
        assert word in out


def test_detail_ops_lists_the_costliest_with_shares(ledg: Run, resnet50: str) -> None:
    _, out, _ = ledg("estimate", resnet50, "-t", "t4", "--detail", "ops")
    assert "Conv" in out
    assert "%" in out.split("operator")[1]
    for detail, word in (("memory", "peak memory"), ("source", "spec sheet")):
        assert word in ledg("estimate", resnet50, "-t", "t4", "--detail", detail)[1]


def test_several_models_are_told_apart(ledg: Run, resnet50: str, model: Callable[..., str]) -> None:
    found = entries(ledg, resnet50, model(), "-t", "t4")
    assert [Path(e["model"]).stem for e in found] == ["light_resnet50", "small"]
    assert found[0]["latency_ms"] > found[1]["latency_ms"]


def test_a_spec_sheet_file_is_a_target(ledg: Run, resnet50: str, tmp_path: Path) -> None:
    from costmodel import devices

    sheet = (Path(devices.__file__).parent / "t4.toml").read_text().replace('name = "t4"', 'name = "mycard"')
    (tmp_path / "mycard.toml").write_text(sheet)
    (entry,) = entries(ledg, resnet50, "-t", tmp_path / "mycard.toml", "-p", "fp16")
    assert entry["target"] == "mycard"
    assert "zero-shot" in entry["provenance"]


def test_standard_input_and_the_python_twin_agree(resnet50: str) -> None:
    import costmodel

    command = [sys.executable, "-m", "costmodel.cli", "estimate", "-", "-t", "t4", "-p", "int8", "-b", "1,2", "--json"]
    done = subprocess.run(command, input=Path(resnet50).read_bytes(), capture_output=True, check=True)
    entry, twice = json.loads(done.stdout)["estimates"]
    assert (entry["batch"], twice["batch"]) == (1, 2)
    twin = costmodel.estimate(resnet50, "t4:int8", batch=1)
    assert twin.latency_ms == pytest.approx(entry["latency_ms"], rel=1e-6)


def test_learned_zero_shot_and_roofline_say_so(ledg: Run, resnet50: str) -> None:
    def provenance(*args: str) -> str:
        return entries(ledg, resnet50, *args)[0]["provenance"]

    assert "samples" in provenance("-t", "t4", "-p", "fp16", "-r", "paddle-trt")
    assert "zero-shot" in provenance("-t", "b200", "-p", "fp16")
    assert provenance("-t", "t4", "--cost-model", "roofline") == "roofline"


def test_inspect_reports_work_and_fingerprint(ledg: Run, resnet50: str) -> None:
    status, out, _ = ledg("inspect", resnet50, "--json", "--nodes")
    record = json.loads(out)
    assert status == 0
    assert record["params"] == 25_557_032
    assert record["coverage"] == 1
    assert len(record["node_list"]) == record["nodes"]
    assert record["operators"]["Conv"] == 53
    assert record["fingerprint"][:16] in ledg("inspect", resnet50)[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("missing.onnx", "-t", "t4"), "missing.onnx"),
        ((".", "-t", "t4"), "director"),
        (("RESNET", "-t", "t5"), "t4"),
        (("RESNET", "-t", "p100", "-p", "int8"), "fp16"),
        (("RESNET", "-t", "t4", "-p", "int7"), "int8"),
        (("RESNET", "-t", "t4", "-r", "caffe"), "tensorrt"),
        (("RESNET", "-t", "t4", "-b", "0"), "--batch"),
        (("RESNET",), "--target"),
        (("RESNET", "-t", "t4", "--detail", "colour"), "source"),
        (("RESNET", "-t", "t4", "--shape", "nonsense"), "SYMBOL=128"),
        (("RESNET", "-t", "t4", "--bundle", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(ledg: Run, resnet50: str, args: tuple[str, ...], message: str) -> None:
    status, out, err = ledg("estimate", *[resnet50 if a == "RESNET" else a for a in args])
    assert status == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_files_that_are_no_model(ledg: Run, resnet50: str, tmp_path: Path) -> None:
    raw = Path(resnet50).read_bytes()
    cases = {"empty": b"", "text": b"hello, this is no model\n", "half": raw[: len(raw) // 2], "zeros": bytes(1000)}
    for name, content in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        status, _, err = ledg("estimate", path, "-t", "t4")
        assert (status, err.count("\n")) == (2, 1), (name, err)
        assert f"{name}.onnx" in err


def test_cycles_are_named(ledg: Run, tmp_path: Path) -> None:
    proto = small_model()
    del proto.graph.node[:]
    proto.graph.node.extend(
        [
            helper.make_node("Add", ["x", "b"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Relu", ["b"], ["y"]),
        ]
    )
    path = tmp_path / "cycle.onnx"
    onnx.save(proto, path)
    status, _, err = ledg("estimate", path, "-t", "t4")
    assert status == 2
    assert "cycl" in err
    assert err.count("\n") == 1


def test_unbound_symbols_are_all_named_with_the_flag(ledg: Run, model: Callable[..., str]) -> None:
    path = model(shape=("N", "height", "width"))
    status, _, err = ledg("estimate", path, "-t", "t4")
    assert status == 2
    assert "height" in err
    assert "width" in err
    assert "--shape" in err
    assert ledg("estimate", path, "-t", "t4", "--shape", "height=8", "--shape", "width=9")[0] == 0
    assert ledg("estimate", path, "-t", "t4", "--shape", "x:2,8,9")[0] == 0


def test_unknown_operators_are_told_and_strict_refuses(ledg: Run, model: Callable[..., str]) -> None:
    path = model(op="Mystery", domain="my.domain", shape=(1, 4))
    (entry,) = entries(ledg, path, "-t", "t4")
    assert entry["coverage"] < 1
    assert any("Mystery" in w for w in entry["warnings"])
    status, _, err = ledg("estimate", path, "-t", "t4", "--strict")
    assert status == 2
    assert "Mystery" in err
    assert err.count("\n") == 1


def test_estimate_and_help_import_nothing_heavy(resnet50: str) -> None:
    heavy = "{'torch', 'transformers', 'tvm', 'pandas', 'pyarrow', 'rich', 'lark'}"
    code = (
        "import sys; from costmodel.cli import cli; cli.main({}, standalone_mode=False);"
        f" print(sorted({heavy} & set(sys.modules)))"
    )
    for args in (["--help"], ["estimate", resnet50, "-t", "t4", "-p", "int8"]):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("{}", repr(args))], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_html_holds_what_is_printed(ledg: Run, resnet50: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    args = ("estimate", resnet50, "-t", "t4,a100", "-p", "fp16")
    status, out, err = ledg(*args, "--html", page)
    assert (status, err) == (0, "")
    assert out == ledg(*args)[1]
    text = page.read_text()
    assert text.count("<details") == 2
    for name in ("light_resnet50", "t4", "a100-sxm"):
        assert name in text
    status, out, err = ledg(*args, "--html", tmp_path / "none" / "report.html")
    assert (status, err.count("\n")) == (2, 1)
    assert "--html" in err

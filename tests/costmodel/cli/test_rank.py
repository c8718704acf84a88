from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.costmodel.cli.conftest import Run

CONV = "nb201/|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SKIP = CONV.replace("nor_conv_3x3~0|+|", "skip_connect~0|+|").replace("nor_conv_3x3~2", "skip_connect~2")


def test_files_folders_lists_and_architectures_agree_with_estimate(
    ledg: Run, resnet50: str, model: Callable[..., str], tmp_path: Path
) -> None:
    small = Path(model())
    (tmp_path / "broken.onnx").write_bytes(Path(resnet50).read_bytes()[:5000])
    listing = tmp_path / "list.txt"
    listing.write_text(f"{CONV}\n{resnet50}\nsmall.onnx\n")
    args = ("rank", listing, tmp_path, SKIP, "missing.onnx", "-t", "t4", "--json")
    status, out, err = ledg(*args)
    record = json.loads(out)
    assert status == 0
    assert (record["schema"], record["models"]) == (1, 7)
    best = record["rankings"][0]["best"]
    assert [b["rank"] for b in best] == [1, 2, 3, 4, 5]
    assert [b["model"] for b in best] == [str(small), str(small), SKIP, CONV, resnet50]
    assert [f["model"] for f in record["failures"]] == [str(tmp_path / "broken.onnx"), "missing.onnx"]
    assert "2 of 7 models could not be read:" in err
    assert "missing.onnx" in err
    (entry,) = json.loads(ledg("estimate", resnet50, "-t", "t4", "-p", "fp32", "--json")[1])["estimates"]
    assert best[-1]["latency_ms"] == pytest.approx(entry["latency_ms"], rel=1e-4)
    assert best[-1]["params"] == entry["params"]


def test_the_top_is_printed_and_everything_written(ledg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{CONV}\n\n# no model\n{SKIP}\nnb201/odd\n"))
    out = tmp_path / "r.csv"
    status, text, err = ledg("rank", "-", "-t", "t4,v100", "-r", "pytorch-eager", "--top", "1", "--out", out)
    assert status == 0
    assert "NAS-Bench-201" in err
    assert SKIP in text
    assert CONV not in text
    assert "t4 fp32" in text
    assert "v100 fp32" in text
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["target"], r["rank"], r["model"]) for r in rows] == [
        (t, str(i), m) for t in ("t4", "v100") for i, m in ((1, SKIP), (2, CONV))
    ]
    assert list(tmp_path.iterdir()) == [out]


def test_only_unreadable_models_is_exit_2(ledg: Run, tmp_path: Path) -> None:
    status, _, err = ledg("rank", "a.onnx", "nb201/odd", "-t", "t4", "--out", tmp_path / "r.csv")
    assert status == 2
    assert err.splitlines()[-1].startswith("error: no model could be read")
    assert "a.onnx" in err
    assert not (tmp_path / "r.csv").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((".git-is-no-folder-here/", "-t", "t5"), "t4"),
        ((SKIP,), "--target"),
        ((SKIP, "-t", "t4", "-b", "1,2"), "--batch once"),
        ((SKIP, "-t", "t4", "-p", "int7"), "int8"),
        ((SKIP, "-t", "t4", "--out", "r.xlsx"), ".parquet"),
        ((SKIP, "-t", "t4", "--jobs", "0"), "--jobs"),
        ((SKIP, "-t", "t4", "--bundle", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(ledg: Run, args: tuple[str, ...], message: str) -> None:
    status, out, err = ledg("rank", *args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_an_empty_folder_names_the_fix(ledg: Run, tmp_path: Path) -> None:
    status, _, err = ledg("rank", tmp_path, "-t", "t4")
    assert (status, err.count("\n")) == (2, 1)
    assert "name model files" in err

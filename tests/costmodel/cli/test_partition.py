"""`ledg-cost partition` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from costmodel.errors import InputError
from costmodel.integrations.ort import open_plan
from tests.costmodel.cli.conftest import Run
from tests.frontends.onnx_models import conv_net, floats, run

FAST = ("--cost-model", "roofline")


def test_a_plan_fits_a_screen(ledg: Run, resnet50: str) -> None:
    status, out, err = ledg("partition", resnet50, "--devices", "t4:int8,p4:fp32", "--link", "pcie3x16", *FAST)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) <= 15
    assert "no split pays" in out


def test_split_files_plan_and_picture_are_written(ledg: Run, resnet50: str, tmp_path: Path) -> None:
    folder, picture = tmp_path / "parts", tmp_path / "plan.dot"
    status, out, err = ledg(
        "partition", resnet50, "-d", "t4:int8", "-d", "p4:fp32", "--unsupported", "t4=MaxPool,Softmax",
        "--split", folder, "--dot", picture, "--json", *FAST,
    )  # fmt: skip
    assert status == 0, err
    record = json.loads(out)
    stored = json.loads((folder / "plan.json").read_text())
    assert stored["parts"] == record["parts"]
    assert [folder / name for name in stored["files"]] == [Path(f) for f in record["files"]]
    for name in stored["files"]:
        onnx.checker.check_model(str(folder / name))
    assert picture.read_text().startswith("digraph")
    assert record["single_ms"][0] is None


def test_objectives_and_memory(ledg: Run, resnet50: str) -> None:
    status, out, err = ledg(
        "partition", resnet50, "-d", "t4:fp32,p4:fp32", "--objective", "throughput", "--memory", "t4=0.09",
        "--link", "300:8", "--json", *FAST,
    )  # fmt: skip
    assert status == 0, err
    record = json.loads(out)
    assert record["method"] == "pipeline"
    assert record["memory_bytes"][0] <= 90e6
    assert record["link"]["gbs"] == 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-d", "t4,p4", "--link", "string"), "unknown link"),
        (("-d", "t4"), "two or more"),
        (("-d", "t4,nosuchgpu"), "nosuchgpu"),
        (("-d", "t4,p4", "--memory", "v100=8"), "DEVICE one of t4, p4"),
        (("-d", "t4,p4", "--memory", "t4=lots"), "gigabytes"),
        (("-d", "t4,p4", "--memory", "t4=0.001", "--memory", "p4=0.001"), "raise --memory"),
        (("-d", "t4,p4", "-b", "1,2"), "one batch size"),
    ],
)
def test_bad_input_is_one_line(ledg: Run, resnet50: str, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = ledg("partition", resnet50, *arguments, *FAST)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_only_onnx_is_split(ledg: Run, tmp_path: Path, resnet50: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    status, _, err = ledg(
        "partition", resnet50, "-d", "t4,p4", "--unsupported", "t4=Conv", "--split", blocked / "x", *FAST
    )
    assert status == 2
    assert "give --split another folder" in err


def test_a_folder_of_the_command_line_runs(tmp_path: Path, ledg: Run) -> None:
    onnx.save(conv_net(1), tmp_path / "net.onnx")
    folder = tmp_path / "parts"
    status, _, err = ledg(
        "partition", tmp_path / "net.onnx", "-d", "t4,p4", "--unsupported", "t4=Gemm", "--unsupported", "p4=Conv",
        "--split", folder, "--cost-model", "roofline",
    )  # fmt: skip
    assert status == 0, err
    feeds = {"x": floats(1, 3, 8, 8)}
    with open_plan(folder, ["cpu", "cpu"]) as pipeline:
        assert len(pipeline.sessions) == 2
        np.testing.assert_allclose(pipeline.run(feeds)[0], run(conv_net(1), feeds)[0], atol=1e-6)
    with pytest.raises(InputError, match="2 platforms"):
        open_plan(folder, ["cpu"])
    with pytest.raises(InputError, match="holds no plan"):
        open_plan(tmp_path, ["cpu", "cpu"])

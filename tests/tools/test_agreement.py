from __future__ import annotations

import json
from pathlib import Path

import pytest

from frontends import load
from tests.frontends.onnx_models import floats, model, node
from tests.frontends.relay_programs import CONV_NET
from tools.agreement import PLATFORMS, compare, dumped, operators, tally, within
from tools.relay_twins import check_twins

WEIGHTS = {"w": floats(4, 3, 3, 3), "b": floats(4), "fc": floats(10, 4), "fc_b": floats(10)}


def conv_net(pool: str = "GlobalAveragePool", kernel: int = 3) -> bytes:
    """The ONNX twin of CONV_NET."""
    axes = {"axes": [2, 3], "keepdims": 1} if pool == "ReduceMean" else {}
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2),
        node("Relu", ["a"], ["c"]),
        node(pool, ["c"], ["d"], **axes),
        node("Flatten", ["d"], ["e"]),
        node("Gemm", ["e", "fc", "fc_b"], ["y"], transB=1),
    ]
    weights = {**WEIGHTS, "w": floats(4, 3, kernel, kernel)}
    return model(nodes, {"x": (1, 3, 8, 8)}, ["y"], weights).SerializeToString()


def test_relay_text_and_onnx_give_one_graph_and_one_estimate() -> None:
    row = compare(load(conv_net()), load(CONV_NET.encode()))
    assert row["identical"]
    assert not row["differences"]
    assert row["estimate"] == dict.fromkeys(PLATFORMS, 0.0)
    assert row["flops"] == row["params"] == row["bytes"] == 0.0


def test_spelling_makes_no_difference_and_substance_does() -> None:
    pooled, mean, larger = load(conv_net()), load(conv_net("ReduceMean")), load(conv_net(kernel=5))
    assert compare(pooled, mean)["identical"]
    assert operators(pooled) == operators(mean)
    row = compare(pooled, larger)
    assert row["differences"] == {"operator Conv": 2}
    assert row["flops"] > 0.5
    assert not row["identical"]


def test_counts() -> None:
    same = compare(load(conv_net()), load(conv_net()))
    report = tally([same, {**same, "estimate": dict.fromkeys(PLATFORMS, 0.02), "only_first": {"Pad": 1}}])
    assert (report["compared"], report["estimate_within_1_percent"], report["same_operators"]) == (2, 1, 1)
    assert report["largest_estimate_difference"] == dict.fromkeys(PLATFORMS, 0.02)
    assert within(-0.01)
    assert not within({"a": 0.0, "b": -0.011})


def test_tables_are_json_with_a_line_per_row() -> None:
    table = {"command": "ö", "rows": {"a": {"x": [1, 2]}, "b": {}}, "none": {}}
    assert json.loads(dumped(table, 2)) == table
    assert len(dumped(table, 2).splitlines()) == 8
    assert len(dumped(table, 0).splitlines()) == 1


def test_twins_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.relay").write_text(CONV_NET)
    (tmp_path / "net.onnx").write_bytes(conv_net())
    (tmp_path / "alone.relay").write_text(CONV_NET)
    table: dict[str, object] = {}
    assert check_twins(tmp_path, None, table)
    assert "1 compared, 1 with the same fingerprint, 1 within 1 %" in capsys.readouterr().out
    assert json.loads(json.dumps(table)) == table
    (tmp_path / "net.onnx").write_bytes(conv_net(kernel=5))
    assert not check_twins(tmp_path, None, table)

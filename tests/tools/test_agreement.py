from __future__ import annotations

import json
from pathlib import Path

import pytest

from costmodel.ir import Graph, GraphBuilder, TensorSpec
from frontends import load
from tests.frontends.onnx_models import floats, model, node
from tests.frontends.relay_programs import CONV_NET
from tools.agreement import MEAN, ORDER, PLATFORMS, VIEW, compare, dumped, operators, respelled, tally, within
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
    assert row["estimate"] == row["estimate_respelled"] == dict.fromkeys(PLATFORMS, 0.0)
    assert row["flops"] == row["params"] == row["bytes"] == 0.0


def test_spelling_is_told_from_substance() -> None:
    pooled, mean, larger = load(conv_net()), load(conv_net("ReduceMean")), load(conv_net(kernel=5))
    row = compare(pooled, mean)
    assert not row["identical"]
    assert row["differences"] == {MEAN: 2}
    assert operators(pooled) == operators(mean)
    assert respelled(pooled).fingerprint == respelled(mean).fingerprint
    assert row["estimate_respelled"] == dict.fromkeys(PLATFORMS, 0.0)
    row = compare(pooled, larger)
    assert row["differences"] == {"operator Conv": 2}
    assert row["flops"] > 0.5
    assert respelled(pooled).fingerprint != respelled(larger).fingerprint


def branches(order: tuple[str, str], view: str = "Reshape") -> Graph:
    """Two branches, listed in this order, and a view of their sum."""
    b = GraphBuilder()
    x = b.input((1, 8, 4, 4))
    made = {op: b.node(op, [x], (1, 8, 4, 4)) for op in order}
    total = b.node("Add", [made["Relu"], made["Sigmoid"]], (1, 8, 4, 4))
    return b.build([b.node(view, [total], (1, 128), **({"axis": 1} if view == "Flatten" else {}))])


def test_views_and_order_are_told_apart() -> None:
    first, second = branches(("Relu", "Sigmoid")), branches(("Sigmoid", "Relu"))
    row = compare(first, second)
    assert row["identical"]
    assert set(row["differences"]) <= {ORDER}
    assert compare(first, branches(("Relu", "Sigmoid"), "Flatten"))["differences"] == {VIEW: 2}


def test_pools_that_round_up_are_spelled_as_padded_ones() -> None:
    def pool(**attrs: object) -> Graph:
        b = GraphBuilder()
        x = b.input((1, 8, 8, 8))
        same = {"kernel_shape": (3, 3), "strides": (2, 2), "dilations": (1, 1)}
        return b.build([b.add("MaxPool", [x], [TensorSpec((1, 8, 4, 4))], {**same, **attrs})[0]])

    rounded, padded = pool(ceil_mode=1, pads=(0, 0, 0, 0)), pool(ceil_mode=0, pads=(0, 0, 1, 1))
    assert rounded.fingerprint != padded.fingerprint
    assert respelled(rounded).fingerprint == respelled(padded).fingerprint


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

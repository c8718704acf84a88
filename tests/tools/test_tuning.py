"""Measures of the tuning tools, on numbers made up here; nothing is tuned."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from tools.tuning_corpus import pack
from tools.tuning_offline import judge, label, pairs
from tools.tuning_online import report
from tools.tuning_workloads import TEST, TRAIN, VALID, WORKLOADS, select


def test_pairs_count_only_what_differs() -> None:
    times = np.log([1.0, 1.01, 2.0, 4.0])
    assert pairs(np.array([4, 3, 2, 1]), times) == 1.0
    assert pairs(np.array([3, 4, 2, 1]), times) == 1.0  # 1 % apart: no matter
    assert pairs(np.array([1, 2, 3, 4]), times) == 0.0
    assert pairs(np.zeros(4), times) == 0.5
    assert pairs(np.array([4, 3, 1, 2]), times) == pytest.approx(4 / 5)


def test_regret_is_against_the_best_there_is() -> None:
    times = np.log([1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = judge(np.array([0, 1, 2, 3, 4, 5, 6.0]), times)
    assert found["top1"] == pytest.approx(500)
    assert found["top5"] == pytest.approx(100)
    assert judge(-times, times)["top1"] == pytest.approx(0)


def test_a_schedule_is_worth_its_fastest_repeat() -> None:
    assert label([2e-3, 1e-3, 9e-3]) == pytest.approx(np.log(1e-3))
    assert label([]) == np.inf


def test_no_workload_is_in_two_splits_and_every_kind_is_tested_unseen() -> None:
    assert len({w.name for w in WORKLOADS}) == len(WORKLOADS)
    kinds = {split: {w.kind for w in WORKLOADS if w.split == split} for split in (TRAIN, VALID, TEST)}
    assert kinds[TEST] <= kinds[TRAIN]
    assert len(kinds[TEST]) >= 7
    assert kinds[VALID]
    assert {w.kind for w in select("softmax,conv2d")} == {"softmax", "conv2d"}


def test_records_are_packed_in_order_with_their_split(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    workload = next(w for w in WORKLOADS if w.split == TEST)
    rows = [{"order": i, "trace": f"[{i}]", "seconds": s} for i, s in enumerate(([1e-3, 2e-3], []))]
    (tmp_path / f"{workload.name}.json").write_text(
        json.dumps({"workload": workload.name, "target": "{}", "cpu": "some", "rows": rows})
    )
    pack(argparse.Namespace(out=tmp_path, to=tmp_path / "r.parquet"))
    table = parquet.read_table(tmp_path / "r.parquet")
    assert table.column("seconds").to_pylist() == [[1e-3, 2e-3], []]
    assert set(table.column("split").to_pylist()) == {TEST}
    assert json.loads(table.schema.metadata[b"environment"])[workload.name]["cpu"] == "some"


def test_the_report_counts_trials_to_what_xgb_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, times in (("xgb", [9.0, 5.0, 4.0]), ("ledg", [6.0, 3.5, 3.0]), ("random", [9.0, None, 8.0])):
        run = {
            "workload": "w", "model": model, "trials": 3, "seed": 0, "times_ms": times,
            "final_ms": min(filter(None, times)), "rounds": 2, "predict_s": [1.0, 2.0], "update_s": [1.0, 0.0],
        }  # fmt: skip
        (tmp_path / f"{model}.json").write_text(json.dumps(run))
    out = tmp_path / "report" / "online.json"
    report(argparse.Namespace(out=tmp_path, report=out))
    record = json.loads(out.read_text())
    over = {row["model"]: row for row in record["summary"]}
    assert over["ledg"]["best_to_xgb"] == pytest.approx(3 / 4)
    assert over["random"]["final_to_xgb"] == pytest.approx(8 / 4)
    assert over["xgb"]["reached_by_half"] == 0
    assert (over["ledg"]["runs"], over["ledg"]["workloads"]) == (1, 1)
    rows = {row["model"]: row for row in record["rows"]}
    assert rows["ledg"]["trials_to_xgb"] == [2]
    assert rows["xgb"]["trials_to_xgb"] == [3]
    assert rows["random"]["trials_to_xgb"] == [None]
    assert rows["ledg"]["model_s"] == 2.0
    assert "to xgb [2]" in capsys.readouterr().out

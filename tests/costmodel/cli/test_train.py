"""`train` and `evaluate split` from the command line, on a tiny made-up corpus."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install the dev extra")

from costmodel.platforms import resolve
from costmodel.predictor import LeDGFormerModel
from costmodel.training import loop, run
from costmodel.training.corpus import Corpus
from tests.costmodel.cli.conftest import Run
from tests.costmodel.training.test_loop import TINY, corpus, net  # noqa: F401

CONFIG = replace(TINY, steps=20, evaluate_every=20, ladders=False, model=replace(TINY.model, text_width=384))


@pytest.fixture(autouse=True)
def tiny(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(run, "prepare", lambda *_: corpus)
    monkeypatch.setattr(run, "embed", lambda sentences, *_: np.ones((len(sentences), 384), np.float32))
    monkeypatch.setitem(loop.CONFIGS, "default", CONFIG)


def test_a_bundle_is_trained_with_devices_held_out_and_then_with_all(ledg: Run, tmp_path: Path) -> None:
    held_out, everything = tmp_path / "runs" / "default-0", tmp_path / "all"
    status, _, err = ledg("train", "--data", tmp_path, "--out", held_out, "--threads", 1)
    assert status == 0, err
    calibration = held_out / "bundle" / "calibration.json"
    status, _, err = ledg("train", "--data", tmp_path, "--out", everything, "--all-devices", "--threads", 1)
    assert (status, "add --calibration" in err) == (2, True)
    status, _, err = ledg(
        "train", "--data", tmp_path, "--out", everything, "--all-devices", "--calibration", calibration, "--steps", 30,
        "--threads", 1,
    )  # fmt: skip
    assert status == 0, err
    names = {folder: json.loads((folder / "bundle" / "config.json").read_text()) for folder in (held_out, everything)}
    known = [{key.split("|")[0] for key in n["training"]["platforms"]} for n in names.values()]
    assert known[1] - known[0] == {"v100", "titanxp"}
    assert "30 steps" in (everything / "bundle" / "card.md").read_text()
    widths = [json.loads((f / "bundle" / "calibration.json").read_text())["half_width"] for f in names]
    assert widths[0]["new_platform"] == widths[1]["new_platform"]
    assert LeDGFormerModel(everything / "bundle").estimate(net(64, 2), resolve("v100", "fp32")).latency_ms > 0


def test_the_table_of_the_split_takes_up_finished_runs(ledg: Run, tmp_path: Path) -> None:
    arguments = "evaluate", "split", "--data", tmp_path, "--runs", tmp_path / "runs", "--seeds", 1, "--threads", 1
    status, out, err = ledg(*arguments, "--steps", 30, "--out", tmp_path / "split.json")
    assert status == 0, err
    assert "**unseen graphs on unseen devices**" in out
    record = json.loads((tmp_path / "split.json").read_text())
    assert record["steps"] == {"default": 30}
    assert set(record["table"]["unseen graphs"]["help/fbnet"]) == {"roofline", "line", "trees", "default"}
    assert set(record["table"]["unseen graphs on unseen devices"]) == {"v100 · help/fbnet"}
    status, _, err = ledg(*arguments, "--steps", 30)
    assert "resumed at step 30" in err

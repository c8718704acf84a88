"""Platforms that training never measured are read through their kin."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costmodel.bundle import RELEASED
from costmodel.kin import KIN, nearest
from costmodel.platforms import Platform, resolve
from costmodel.predictor import LeDGFormerModel, load
from costmodel.reading import Seen
from tests.costmodel.test_features import small_net
from tests.costmodel.test_predictor import wide_net

KNOWN = (
    "1080ti|fp32|pytorch-eager", "2080ti|fp32|pytorch-eager", "gold_6226|fp32|pytorch-eager",
    "rtx3090|fp16|pytorch-eager-2.4.0", "rtx4090|fp16|pytorch-compile-2.9.1", "rtx4090|fp16|pytorch-eager-2.9.1",
)  # fmt: skip


def released(key: str) -> Platform:
    return resolve(*key.split("|"))


def test_kin_share_kind_runtime_and_precision() -> None:
    new = resolve("rtx5090", "fp16", "pytorch-eager-2.9.1")
    assert nearest(new, KNOWN, released) == [KNOWN[5], KNOWN[3]]
    assert nearest(resolve("rtx5090", "fp16", "pytorch-compile-2.9.1"), KNOWN, released) == [KNOWN[4]]
    assert nearest(resolve("rtx5090", "fp16", "tensorrt"), KNOWN, released) == []
    assert nearest(resolve("titanxp", "fp32", "pytorch-eager"), KNOWN, released)[0] == KNOWN[0]
    assert nearest(resolve("i7_12700h", "fp32", "pytorch-eager"), KNOWN, released) == [KNOWN[2]]
    assert nearest(new, KNOWN, lambda _: None) == []
    assert len(nearest(new, KNOWN * 3, released)) == KIN


def test_an_answer_is_half_its_own_and_half_its_kins() -> None:
    model, alone, new = LeDGFormerModel(), LeDGFormerModel(), resolve("rtx5090", "fp16", "pytorch-eager-2.9.1")
    for reader in (model, alone):
        reader.bundle.calibration["roofline_share"]["new_platform"] = 0.0
    forms = model.forms([model.encode(small_net(8))], new)
    kin = [resolve("rtx4090", "fp16", f"pytorch-eager-{v}") for v in ("2.9.1", "2.4.0")]
    log_ms, parts, times = model.unadapted(forms, new)
    plain = LeDGFormerModel()
    plain.bundle.config["training"]["corrected"] = {}  # kin are read as the network alone answers
    expected = []
    for platform in kin:
        _, share, theirs = plain.unadapted(forms, platform)
        expected.append(np.log((share * np.exp(times[:, -1] - theirs[:, -1])).sum()))
    alone.bundle.calibration["kin"] = []
    own = alone.unadapted(forms, new)[0][0]
    assert abs(own - np.mean(expected)) > 1e-3
    assert log_ms[0] == pytest.approx((own + np.mean(expected)) / 2, abs=1e-5)
    assert np.log(parts.sum()) == pytest.approx(log_ms[0], abs=0.05)
    answer = model.estimate(small_net(8), new)
    assert answer.latency_ms == pytest.approx(np.exp(log_ms[0]), rel=1e-5)
    assert answer.provenance == "zero-shot from the spec sheet and from rtx4090"


def test_half_the_speed_takes_twice_as_long() -> None:
    """A device that is its kin but for a slower clock throughout is that much slower."""
    known = resolve("rtx4090", "fp16", "pytorch-eager-2.9.1")
    d = known.device
    vector, matrix = ({k: v / 2 for k, v in peaks.items()} for peaks in (d.peak_vector, d.peak_matrix))
    halved = replace(d, name="half", bandwidth_gbs=d.bandwidth_gbs / 2, peak_vector=vector, peak_matrix=matrix)
    slow = resolve(halved, "fp16", "pytorch-eager-2.9.1")
    encoded = load().encode(wide_net(256))
    ratio = load().latencies([encoded], [slow])[0, 0] / load().latencies([encoded], [known])[0, 0]
    assert 1.3 < ratio < 2.1  # what starts kernels is as fast as ever, and another version is among the kin


def test_measured_platforms_and_other_runtimes_are_read_as_themselves() -> None:
    reader = load()._reader

    def seen(*words: str) -> Seen:
        return reader.seen(resolve(*words))

    assert len(seen("rtx5090", "fp16", "pytorch-eager").readings) == 1 + KIN
    for words in (
        ("rtx4090", "fp16", "pytorch-eager-2.9.1"), ("t4", "fp32", "paddle-trt"), ("rtx5090", "fp16", "tensorrt"),
        ("t4", "fp32", "pytorch-eager"),  # its single operators were measured
    ):  # fmt: skip
        assert len(seen(*words).readings) == 1, words


def test_calibration_decides(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(RELEASED, folder)
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration["kin"] = []
    raw = json.dumps(calibration)
    (folder / "calibration.json").write_text(raw)
    config = json.loads((folder / "config.json").read_text())
    config["sha256"]["calibration.json"] = hashlib.sha256(raw.encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))
    new = resolve("rtx5090", "fp16", "pytorch-eager-2.9.1")
    answer = LeDGFormerModel(folder).estimate(small_net(8), new)
    assert answer.provenance == "zero-shot from the spec sheet"
    assert answer.latency_ms != pytest.approx(load().estimate(small_net(8), new).latency_ms, rel=1e-4)

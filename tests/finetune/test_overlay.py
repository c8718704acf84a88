"""What a fine-tuned platform answers, and that nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costmodel.errors import CorruptBundleError
from costmodel.finetune import Overlay, find, fit, load, remove, save
from costmodel.finetune.readings import Readings
from costmodel.ir import Graph
from costmodel.platforms import Platform, resolve
from costmodel.predictor import LeDGFormerModel
from tests.finetune.networks import PLATFORM, samples, skewed

OTHERS = [
    resolve("t4", "int8"), resolve("v100", "fp32", "pytorch-eager-2.1"), resolve("i9_10940x", "fp32", "tvm"),
    resolve("i9_10940x", "int8", "onnxruntime-1.32.0"), resolve("i7_12700h", "fp32", "onnxruntime-1.32.0"),
]  # fmt: skip


@pytest.fixture(scope="module")
def overlay(model: LeDGFormerModel, graphs: list[Graph], readings: Readings) -> Overlay:
    some = list(range(40))
    truth = skewed(readings)
    kinds = ("none", "operators", "residual")
    return fit(model, {g.fingerprint: g for g in graphs}, samples([graphs[i] for i in some], truth[some]), kinds=kinds)


def test_it_reads_back_as_it_was(overlay: Overlay, home: Path, readings: Readings) -> None:
    path = save(overlay)
    assert path.parent == home / "overlays"
    again = load(path)
    assert replace(again, adapter=overlay.adapter) == overlay
    assert again.adapter.log_ms(readings) == pytest.approx(overlay.adapter.log_ms(readings), abs=1e-4)
    assert not [p for p in path.parent.iterdir() if p.suffix not in (".json", ".npz")]


def test_estimates_follow_the_overlay_and_say_so(
    overlay: Overlay, home: Path, graphs: list[Graph], readings: Readings
) -> None:
    save(overlay)
    truth = skewed(readings)
    model, plain = LeDGFormerModel(), LeDGFormerModel(overlaid=False)
    errors, before = [], []
    for i in range(40, 70):
        for platform in (PLATFORM, resolve("i9_10940x", "fp32", "onnxruntime")):  # any version takes it
            estimate = model.estimate(graphs[i], platform)
            assert estimate.provenance == "fine-tuned on 40 samples of this platform"
            assert sum(o.latency_ms for o in estimate.operators) == pytest.approx(estimate.latency_ms, rel=1e-6)
            lo, hi = estimate.interval_ms
            assert lo <= estimate.latency_ms <= hi
            errors.append(abs(estimate.latency_ms / truth[i] - 1))
        before.append(abs(plain.estimate(graphs[i], PLATFORM).latency_ms / truth[i] - 1))
    assert np.mean(errors) < np.mean(before) / 3


def test_the_breakdown_follows_the_samples(
    overlay: Overlay, home: Path, graphs: list[Graph], readings: Readings
) -> None:
    """Depthwise convolutions are the slowest of that device relative to the model, 1×1 convolutions the fastest."""
    save(overlay)
    answers = [m.estimate(graphs[i], PLATFORM) for m in (LeDGFormerModel(), LeDGFormerModel(overlaid=False))
               for i in range(40, 70)]  # fmt: skip
    ratio: dict[bool, list[float]] = {True: [], False: []}
    for i, (after, plain) in enumerate(zip(answers[:30], answers[30:], strict=True), 40):
        first = readings.start[i]
        for k, (a, b) in enumerate(zip(after.operators, plain.operators, strict=True)):
            traits = readings.traits[first + k]
            if traits[1] or traits[2]:
                ratio[bool(traits[2])].append(np.log(a.latency_ms / b.latency_ms))
    assert np.mean(ratio[True]) > np.mean(ratio[False]) + 0.5


def test_every_other_platform_answers_bit_for_bit_as_before(overlay: Overlay, home: Path, graphs: list[Graph]) -> None:
    model = LeDGFormerModel()
    before = [model.estimate_many(g, OTHERS) for g in graphs[:6]]
    together = model.latencies(model.encode_many(graphs[:6]), OTHERS)
    save(overlay)
    for fresh in (model, LeDGFormerModel()):  # a model looks again when this process saves
        assert [fresh.estimate_many(g, OTHERS) for g in graphs[:6]] == before
        mixed = fresh.latencies(fresh.encode_many(graphs[:6]), [*OTHERS[:2], PLATFORM, *OTHERS[2:]])
        assert np.delete(mixed, 2, 1) == pytest.approx(together, rel=1e-6)
        assert fresh.estimate(graphs[0], PLATFORM).provenance.startswith("fine-tuned")


def test_removing_restores_the_released_answer(overlay: Overlay, home: Path, graphs: list[Graph]) -> None:
    model = LeDGFormerModel()
    before = model.estimate(graphs[0], PLATFORM)
    save(overlay)
    assert model.estimate(graphs[0], PLATFORM) != before
    assert remove(PLATFORM.device.name, runtime="tvm") == []
    assert remove(PLATFORM.device.name) == [overlay.platform_key]
    assert model.estimate(graphs[0], PLATFORM) == before
    assert not list((home / "overlays").iterdir())


@pytest.mark.parametrize(
    ("platform", "taken"),
    [
        (resolve("i9_10940x", "fp32", "onnxruntime-1.32"), True),
        (resolve("i9_10940x", "fp32", "onnxruntime-1.3"), False),
        (resolve("i9_10940x", "fp32", "onnxruntime-1.31.0"), False),
        (resolve("i9_10940x", "fp32", "openvino"), False),
        (resolve("i9_9900k", "fp32", "onnxruntime"), False),
    ],
)
def test_which_platforms_it_answers_for(overlay: Overlay, platform: Platform, taken: bool) -> None:
    assert overlay.matches(platform) is taken


@pytest.mark.parametrize("field", ["bundle", "sheet"])
def test_one_of_another_bundle_or_sheet_is_left_out_with_one_line(
    overlay: Overlay, home: Path, graphs: list[Graph], field: str
) -> None:
    save(replace(overlay, **{field: "0" * 64}))
    estimate = LeDGFormerModel().estimate(graphs[0], PLATFORM)
    assert "fine-tuned" not in estimate.provenance
    (line,) = [w for w in estimate.warnings if "fine-tuned" in w]
    assert "ledg-cost finetune" in line
    assert "\n" not in line


def test_a_damaged_one_is_left_out_with_one_line(overlay: Overlay, home: Path, graphs: list[Graph]) -> None:
    path = save(overlay)
    record = json.loads(path.read_text())
    for damage in ("{", "[]", json.dumps({**record, "format": 99}), json.dumps({**record, "adapter": {"kind": "x"}}),
                   json.dumps({**record, "samples": None})):  # fmt: skip
        path.write_text(damage)
        with pytest.raises(CorruptBundleError, match="finetune"):
            load(path)
        found, why = find(PLATFORM, LeDGFormerModel().bundle)
        assert found is None
        assert path.name in why
    (line,) = [w for w in LeDGFormerModel().estimate(graphs[0], PLATFORM).warnings if path.name in w]
    assert "\n" not in line


def test_arrays_of_another_overlay_are_refused(
    model: LeDGFormerModel, graphs: list[Graph], readings: Readings, tmp_path: Path
) -> None:
    known = {g.fingerprint: g for g in graphs}
    found = fit(model, known, samples(graphs[:30], skewed(readings)[:30]), kinds=("residual",))
    path = save(found, tmp_path)
    arrays = path.with_suffix(".npz")
    arrays.write_bytes(arrays.read_bytes() + b"x")
    with pytest.raises(CorruptBundleError, match="arrays"):
        load(path)

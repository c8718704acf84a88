"""The cross-hardware protocols run end to end on a small corpus, and report what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install the dev extra")
pytest.importorskip("sklearn", reason="the trees need scikit-learn; install the dev extra")

from costmodel.baselines.analytic import roofline
from costmodel.cli.train import read_elsewhere
from costmodel.errors import DataError
from costmodel.features import PLATFORM_NUMBERS
from costmodel.samples import Sample
from costmodel.training import cross, zero_shot
from costmodel.training.batches import Batches
from costmodel.training.corpus import Corpus, Row, append
from costmodel.training.loop import TrainConfig
from costmodel.training.measured import build_measured
from costmodel.training.tables import Learned
from tests.costmodel.training.test_loop import TINY, net, quiet

WORDS = ("resnet", "vgg", "swin", "mnasnet", "vit")


def graph_of(name: str):  # type: ignore[no-untyped-def]
    seed = int(name.split("_")[-1].split("@")[0])
    return net(32 + 8 * seed, 1 + seed % 3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    names = [f"timm/{WORDS[i % 5]}_{i}@32" for i in range(60)]
    samples = [
        Sample(graph_of(n).fingerprint, d, p, "pytorch-eager", 1, 0.1 + i / 10, name=n)
        for i, n in enumerate(names)
        for d, p in (("t4", "fp16"), ("t4", "fp32"), ("v100", "fp32"))
    ]
    built = build_measured(samples, graph_of, tmp_path_factory.mktemp("cache"), quiet, workers=1)
    return append(built, [Row(n, "t4", "pytorch-eager", "fp32", 1, 0.05, "neusight-ops") for n in names])


def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def config(name: str, protocol: str, steps: int | None = None) -> TrainConfig:
        return replace(TINY, steps=10, evaluate_every=10, ladders=False, shares={"measured": 1.0, "neusight-ops": 0.1},
                       model=replace(TINY.model, text_width=384))  # fmt: skip

    monkeypatch.setattr(cross, "fold_config", config)
    monkeypatch.setattr(zero_shot, "fold_config", config)
    monkeypatch.setattr(
        "costmodel.training.run.embed", lambda sentences, *_: np.ones((len(sentences), 384), np.float32)
    )


def test_a_device_left_out_is_tested_beside_baselines(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(monkeypatch)
    assert cross.devices_of(corpus) == ["t4", "v100"]
    record = cross.cross_hardware(
        "cross-device", corpus, {"default": 1}, tmp_path, tmp_path, "none", quiet, ("v100", "t4:operators"), 10
    )
    table = record["tables"]["cross-device"]
    assert set(table) == {"v100 · measured", "t4, operators alone · measured", "average"}
    assert table["t4, operators alone · measured"]["default"]["n"] == 120
    assert set(table["v100 · measured"]) == {*cross.ANALYTIC, "trees", "NN-Former", "default"}
    assert all(np.isfinite(f["mape"]) for f in table["v100 · measured"].values())
    with pytest.raises(DataError, match="no networks of device 'h100'"):
        cross.cross_hardware("cross-device", corpus, {}, tmp_path, tmp_path, "none", quiet, ("h100",))


def test_each_part_of_zero_shot_can_be_left_out(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(monkeypatch)
    told: dict[str, Batches] = {}

    def learned(*args: object, change: Callable[[Batches], None] | None, **_: object) -> Learned:
        def watched(batches: Batches) -> None:
            if change:
                change(batches)
            told[Path(str(args[3])).name.removeprefix("zero-shot-default-")] = batches

        return Learned(*args, change=watched)  # type: ignore[arg-type]

    monkeypatch.setattr(zero_shot, "Learned", learned)
    record = zero_shot.zero_shot_ablation(corpus, {"default": 1}, tmp_path, tmp_path, "none", quiet, 10)
    table = record["tables"]["default"]
    assert set(table) == {"v100 · measured", "average"}
    assert set(table["average"]) == set(zero_shot.VARIANTS)
    assert (
        len({f["mape"] for f in table["average"].values()}) >= len(zero_shot.VARIANTS) - 1
    )  # no device validates here
    full, blind, nameless = (told[v].channels for v in ("full", "no-sheet-numbers", "no-runtime"))
    assert full[:, :PLATFORM_NUMBERS].any()
    assert not blind[:, :PLATFORM_NUMBERS].any()
    assert len(np.unique(blind, axis=0)) > 1
    assert (nameless != full).any()
    assert not told["no-runtime"].platform_embeddings.any()


def test_new_families_are_measured_with_their_interval(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(monkeypatch)
    record = cross.new_families(corpus, "default", 1, tmp_path, tmp_path, "none", quiet)
    rows = record["tables"]["new families"]
    new = rows["networks of new families"]["default"]
    assert new["n"] == 12 * 4  # the mnasnets, each in four rows
    told, usual = round(new["told_new"] * new["n"] / 100) / new["n"], record["half_width"]["known_platform"]
    assert new["half_width"] == pytest.approx(told * record["half_width"]["new_family"] + (1 - told) * usual, abs=1e-3)
    assert 0 <= record["hit_rate"] == new["told_new"] <= 100
    with pytest.raises(DataError, match="5 folds"):
        cross.new_families(corpus, "default", 6, tmp_path, tmp_path, "none", quiet)
    assert record["false_alarms"] == rows["new networks of known families"]["default"]["told_new"]


def test_new_kinds_are_measured_on_half_of_the_platforms(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(monkeypatch)
    monkeypatch.setattr("costmodel.training.folds.ENOUGH", 10)
    names = [f"{'timm' if i % 2 else 'nb201'}/{n.split('/')[1]}" for i, n in enumerate(corpus.names)]
    record = cross.new_kinds(replace(corpus, names=names), "default", 2, tmp_path, tmp_path, "none", quiet)
    table = record["tables"]["new kinds"]
    assert set(table) == {"calibrating · gpu", "reported · gpu"}
    assert {row["default"]["half_width"] for row in table.values()} == {record["half_width"]["new_kind"]}
    assert table["calibrating · gpu"]["default"]["coverage"] >= 90
    assert table["reported · gpu"]["default"]["coverage"] == record["coverage"]
    path = tmp_path / "kinds.json"
    path.write_text(json.dumps({"protocol": "new-kinds", **record}))
    assert read_elsewhere([path]) == {"new_kind": {"half_width": record["half_width"]["new_kind"]}}
    with pytest.raises(DataError, match="2 folds"):
        cross.new_kinds(corpus, "default", 3, tmp_path, tmp_path, "none", quiet)


def test_devices_count_alike_whatever_their_rows() -> None:
    device = np.repeat(["a", "b"], [1000, 10])
    off = np.where(device == "a", 0.1, np.arange(len(device)) - 999.0)
    assert cross.device_quantile(np.exp(off), np.ones(len(off)), device) == pytest.approx(8)  # 8 of b's 10
    assert cross.device_quantile(np.exp(off), np.ones(len(off)), device, 0.5) == pytest.approx(0.1)


def test_new_devices_have_the_interval_of_their_kind(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(monkeypatch)
    monkeypatch.setattr("costmodel.training.folds.ENOUGH", 10)
    more = append(
        corpus,
        [Row(n, d, "pytorch-eager", "fp32", 1, factor * (1 + i / 10), "measured")
         for d, factor in (("p4", 1), ("p100", 5), ("i7_12700h", 1)) for i, n in enumerate(corpus.names)],
    )  # fmt: skip
    record = cross.new_devices(more, "default", 4, tmp_path, tmp_path, "none", quiet)
    table = {name: row["default"] for name, row in record["tables"]["new devices"].items()}
    assert list(table) == ["cpu · i7_12700h", "gpu · p100", "gpu · p4", "gpu · t4"]
    needs = [row["needs"] for name, row in table.items() if name.startswith("gpu")]
    assert list(record["half_width"]) == ["gpu"]  # there are too few of the others
    assert min(needs) <= record["half_width"]["gpu"] <= max(needs) + 0.1
    assert not any("coverage" in row for row in table.values())  # two others are too few as well
    assert list(record["kin"]["gpu"]) == ["0", "0.25", "0.5", "0.75", "1"]
    assert len(set(record["kin"]["gpu"].values())) == 5
    path = tmp_path / "devices.json"
    path.write_text(json.dumps({"protocol": "new-devices", **record}))
    assert read_elsewhere([path]) == {"new_gpu": {"half_width": record["half_width"]["gpu"]}}
    with pytest.raises(DataError, match="5 folds"):
        cross.new_devices(more, "default", 6, tmp_path, tmp_path, "none", quiet)


def test_new_runtimes_say_how_far_to_trust_the_roofline(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(monkeypatch)
    monkeypatch.setattr(cross, "RUNTIMES", ("paddle-trt",))
    ideal = roofline(corpus, np.arange(len(corpus.row_ms)))
    place = {name: i for i, name in enumerate(corpus.names)}
    first = {g: i for i, g in reversed(list(enumerate(corpus.row_graph)))}
    more = append(
        corpus, [Row(n, "t4", "paddle-trt", "fp32", 1, 3 * ideal[first[place[n]]], "paddleclas") for n in corpus.names]
    )
    record = cross.new_runtimes(more, "default", tmp_path, tmp_path, "none", quiet)
    row = record["tables"]["new runtimes"]["paddle-trt left out"]
    assert record["roofline_share"] == min((f["mape"], float(k.split()[1])) for k, f in row.items())[1]
    table = tmp_path / "runtimes.json"
    table.write_text(json.dumps({"protocol": "new-runtimes", **record}))
    assert read_elsewhere([table])["new_runtime"]["half_width"] == record["half_width"]
    table.write_text("{}")
    with pytest.raises(DataError, match=r"runtimes\.json is no table"):
        read_elsewhere([table])

"""Protocols: what trains never stands among what is tested, and tables say what was answered."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install the dev extra")

from costmodel.errors import DataError
from costmodel.onnx_writer import to_onnx
from costmodel.samples import Sample
from costmodel.training import protocols
from costmodel.training.corpus import Corpus, Row, append
from costmodel.training.folds import (
    DEVICE_FOLDS,
    Fold,
    architecture,
    families,
    family_of,
    in_domain,
    kinds,
    leave_a_fifth_out,
    leave_devices_out,
    leave_families_out,
    leave_kinds_out,
    leave_networks_out,
    leave_precision_out,
    leave_runtime_out,
    out_of_domain,
    unseen_shapes,
    zero_shot,
)
from costmodel.training.measured import build_measured, nnlqp_graph, nnlqp_samples
from costmodel.training.tables import Kept, average, tabulate
from tests.costmodel.training.test_loop import TINY, net, quiet

FAMILIES = ("resnet", "vgg", "mnasnet")


def graph_of(name: str):  # type: ignore[no-untyped-def]
    _, family, seed = name.split("/")
    return net(32 + 8 * int(seed), 1 + FAMILIES.index(family))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    samples = [
        Sample(graph_of(f"gen/{f}/{s}").fingerprint, device, precision, runtime, 1, 0.1 + s, name=f"gen/{f}/{s}")
        for f in FAMILIES
        for s in range(20)
        for device, precision, runtime in (
            ("t4", "fp16", "tensorrt"),
            ("t4", "fp32", "tensorrt"),
            ("v100", "fp32", "tvm"),
        )
    ]
    return build_measured(samples, graph_of, tmp_path_factory.mktemp("cache"), quiet, workers=1)


def sides(corpus: Corpus, fold: Fold) -> tuple[set[str], set[str]]:
    fit = np.concatenate([fold.rows.train, fold.rows.val, fold.rows.val_device])
    return tuple({corpus.families[g] for g in corpus.row_graph[rows]} for rows in (fit, fold.rows.test))  # type: ignore[return-value]


def test_families_are_read_from_names() -> None:
    assert family_of("gen/resnet/17") == "resnet"
    assert family_of("nnlqp/mobilenetv3/00012") == "mobilenetv3"
    assert family_of("nnmeter_alexnet/nnmeter_alexnet_transform_0130") == "nnmeter_alexnet_transform"


def test_out_of_domain_tests_each_family_once_and_never_trains_on_it(corpus: Corpus) -> None:
    folds = list(out_of_domain(corpus))
    assert [f.name for f in folds] == sorted(FAMILIES)
    family = families(corpus)[corpus.row_graph]
    for fold in folds:
        assert set(family[fold.rows.test]) == {fold.name}
        assert fold.name not in set(family[np.concatenate([fold.rows.train, fold.rows.val])])
        seen, tested = sides(corpus, fold)
        assert not seen & tested
        assert len(fold.rows.val)
    assert sum(len(f.rows.test) for f in folds) == len(corpus.row_ms)


def test_in_domain_tests_the_last_tenth_of_every_family(corpus: Corpus) -> None:
    fold = in_domain(corpus)
    assert {corpus.names[g] for g in corpus.row_graph[fold.rows.test]} == {
        f"gen/{f}/{s}" for f in FAMILIES for s in (18, 19)
    }
    seen, tested = sides(corpus, fold)
    assert not seen & tested


def test_devices_and_precisions_left_out_leave_no_row(corpus: Corpus) -> None:
    devices = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    fold = leave_devices_out(corpus, "v100", {"v100"})
    assert set(devices[fold.rows.test]) == {"v100"}
    assert "v100" not in set(devices[np.concatenate([fold.rows.train, fold.rows.val])])
    assert "v100" in fold.left_out
    fold = leave_precision_out(corpus, "t4", "fp16")
    platforms = np.array(["|".join(p[:2]) for p in corpus.platforms])[corpus.row_platform]
    assert set(platforms[fold.rows.test]) == {"t4|fp16"}
    assert set(platforms[fold.rows.train]) == {"t4|fp32", "v100|fp32"}


def test_a_table_holds_what_the_models_answered(corpus: Corpus) -> None:
    def right(fold: Fold, seed: int) -> np.ndarray:
        return corpus.row_ms[fold.rows.test] * (1 + 0.2 * seed)

    rows = tabulate(
        corpus, out_of_domain(corpus), {"right": right}, {"right": 2}, lambda f: np.full(len(f.rows.test), f.name)
    )
    assert set(rows) == set(FAMILIES)
    assert rows["vgg"]["right"]["mape"] == pytest.approx(10.0)
    assert rows["vgg"]["right"]["mape_sd"] == pytest.approx(14.14, abs=0.01)
    assert average(rows)["right"] == {"n": 180, "mape": 10.0, "acc10": 50.0, "spearman": 1.0}


def test_answers_are_kept_for_the_same_rows_seed_and_settings(corpus: Corpus, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def model(fold: Fold, seed: int) -> np.ndarray:
        asked.append((fold.name, seed))
        return corpus.row_ms[fold.rows.test] + seed

    first, second = list(out_of_domain(corpus))[:2]
    keeping = Kept(model, tmp_path, "600 steps")
    for _ in range(2):
        np.testing.assert_array_equal(keeping(first, 1), corpus.row_ms[first.rows.test] + 1)
    assert asked == [(first.name, 1)]
    keeping(first, 0), keeping(second, 1), Kept(model, tmp_path, "700 steps")(first, 1)
    keeping(replace(first, rows=replace(first.rows, train=first.rows.train[1:])), 1)
    assert asked[1:] == [(first.name, 0), (second.name, 1), (first.name, 1), (first.name, 1)]


def test_the_protocol_runs_end_to_end_and_resumes(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "fold_config", lambda *_: replace(TINY, steps=20, evaluate_every=20, ladders=False,
        shares={"measured": 1.0}, model=replace(TINY.model, text_width=384)))  # fmt: skip
    monkeypatch.setattr(
        "costmodel.training.run.embed", lambda sentences, *_: np.ones((len(sentences), 384), np.float32)
    )
    record = protocols.nnlqp("nnlqp-ood", corpus, {"default": 1}, tmp_path, tmp_path / "runs", "none", quiet)
    assert set(record["tables"]) == {"t4|fp16|tensorrt", "t4|fp32|tensorrt", "v100|fp32|tvm"}
    table = record["tables"]["t4|fp16|tensorrt"]
    assert set(table) == {*FAMILIES, "average"}
    assert set(table["average"]) == {"roofline", "line", "default"}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("costmodel.training.tables.train", refuse)
    assert protocols.nnlqp("nnlqp-ood", corpus, {"default": 1}, tmp_path, tmp_path / "runs", "none", quiet) == record


def test_a_devices_networks_leave_and_its_operators_stay(corpus: Corpus) -> None:
    ops = append(
        corpus,
        [Row(name, "v100", "tvm", "fp32", 1, 0.01, "some-ops") for name in corpus.names[:40]],
    )
    fold = leave_networks_out(ops, "v100")
    source = np.array(ops.sources)[ops.row_source]
    device = np.array([p[0] for p in ops.platforms])[ops.row_platform]
    assert (device[fold.rows.test] == "v100").all()
    assert (source[fold.rows.test] == "measured").all()
    assert len(fold.rows.test) == len(corpus.names)
    fit = np.concatenate([fold.rows.train, fold.rows.val])
    assert set(source[fit][device[fit] == "v100"]) == {"some-ops"}
    shapes = unseen_shapes(ops)
    assert set(source[np.concatenate([shapes.rows.train, shapes.rows.val, shapes.rows.test])]) == {"some-ops"}
    seen, tested = sides(ops, shapes)
    assert tested
    assert not seen & tested


def test_a_runtime_left_out_is_nowhere_in_training(corpus: Corpus) -> None:
    more = append(corpus, [Row(name, "2080ti", "paddle-trt", "fp32", 1, 0.5, "paddleclas") for name in corpus.names])
    fold = leave_runtime_out(more, "paddle-trt")
    runtime = np.array([p[2] for p in more.platforms])[more.row_platform]
    assert set(runtime[fold.rows.val_device]) == {"paddle-trt"}
    assert "paddle-trt" not in set(runtime[np.concatenate([fold.rows.train, fold.rows.val])])
    assert (more.graph_split[more.row_graph[fold.rows.val_device]] == "val").all()
    assert not len(fold.rows.test)


def test_new_families_stand_on_one_side(corpus: Corpus) -> None:
    words = ("resnet", "vgg", "vit", "swin", "mnasnet", "beit")
    names = [f"timm/{words[i % len(words)]}{i}_base@224" for i in range(len(corpus.names))]
    fold = leave_families_out(replace(corpus, names=names))
    sets = {
        part: {architecture(names[g]) for g in corpus.row_graph[getattr(fold.rows, part)]}
        for part in ("train", "val", "val_device", "test")
    }
    known = sets["train"] | sets["val"]
    assert sets["test"]
    assert sets["val_device"]
    assert not known & sets["test"]
    assert not known & sets["val_device"]
    assert not sets["test"] & sets["val_device"]
    again = leave_families_out(replace(corpus, names=names), 1)
    others = {
        architecture(names[g]) for g in corpus.row_graph[np.concatenate([again.rows.val_device, again.rows.test])]
    }
    assert others
    assert not others & (sets["val_device"] | sets["test"])
    assert architecture("timm/tf_efficientnet_b0@224") == "efficientnet"
    assert architecture("gen/vgg/3") == ""


def test_new_kinds_are_known_from_other_platforms(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costmodel.training.folds.ENOUGH", 10)
    mixed = replace(corpus, names=[("nb201/" if i % 2 else "timm/") + str(i) for i in range(len(corpus.names))])
    kind = kinds(mixed)[mixed.row_graph]

    def pairs(rows: np.ndarray) -> set[tuple[int, str]]:
        return set(zip(mixed.row_platform[rows].tolist(), kind[rows].tolist(), strict=True))

    gone = []
    for number in range(2):
        rows = leave_kinds_out(mixed, number).rows
        known, out = pairs(rows.train) | pairs(rows.val), pairs(rows.val_device) | pairs(rows.test)
        assert not known & out
        assert {platform for platform, _ in out} == {0, 1, 2} == {platform for platform, _ in known}
        assert {platform for platform, _ in pairs(rows.test)} == {1}
        assert {kind for _, kind in known} == {"nb201", "timm"}
        assert set(mixed.graph_split[mixed.row_graph[rows.test]]) == {"test"}
        assert set(mixed.graph_split[mixed.row_graph[rows.val_device]]) == {"val"}
        gone.append(out)
    assert not gone[0] & gone[1]


def test_each_device_is_new_in_one_fold(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("costmodel.training.folds.ENOUGH", 5)
    names = ["t4", "a100-pcie", "a100-sxm", "rtx3090", "p4", "p100", "titanx", "i7_12700h", "gold_6240", "v100", "l4"]
    more = [Row(n, d, "pytorch-eager", "fp32", 1, 0.1, "timm") for d in names for n in corpus.names]
    several = append(corpus, more[: -len(corpus.names) + 2])  # two networks of l4 are too few

    def devices(rows: np.ndarray) -> set[str]:
        return {several.platforms[i][0] for i in several.row_platform[rows]}

    every: list[str] = []
    for number in range(DEVICE_FOLDS):
        fold = leave_a_fifth_out(several, number)
        known, new = devices(fold.rows.train) | devices(fold.rows.val), devices(fold.rows.val_device)
        assert new <= fold.left_out
        assert "v100" in fold.left_out
        assert not known & fold.left_out
        assert ("a100-pcie" in new) == ("a100-sxm" in new)
        assert set(several.graph_split[several.row_graph[fold.rows.val_device]]) == {"val"}
        assert not len(fold.rows.test)
        every += new
    assert sorted(every) == sorted(set(names) - {"v100", "l4"})
    with pytest.raises(DataError, match="devices for 4 folds; give --seeds 4"):
        leave_a_fifth_out(append(corpus, [r for r in more if r.device in ("p4", "p100", "l4")]), 4)


def test_zero_shot_leaves_a_platform_and_its_networks_out(corpus: Corpus) -> None:
    platforms = [("t4", "fp32", "tensorrt"), ("p4", "fp32", "tensorrt"), ("gtx1660", "fp32", "tensorrt")]
    shifted = replace(corpus, platforms=platforms, row_platform=corpus.row_graph % 3)
    folds = list(zero_shot(shifted))
    assert [f.name for f in folds] == ["t4 fp32", "p4 fp32"]
    for place, fold in enumerate(folds):
        assert set(shifted.row_platform[fold.rows.test]) == {place}
        assert place not in set(shifted.row_platform[fold.rows.train])
        seen, tested = sides(shifted, fold)
        assert not seen & tested
    with pytest.raises(DataError, match="t4 in fp32"):
        list(zero_shot(replace(corpus, platforms=[("v100", "fp32", "tvm")] * 3)))


def test_published_nnlqp_folder_becomes_a_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "unseen_structure"
    lines = []
    for family in ("alexnet", "vgg16"):
        for seed in range(3):
            path = folder / "onnx" / f"nnmeter_{family}" / f"nnmeter_{family}_transform_{seed:04d}.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_onnx(net(16 + 8 * seed, 1 + (family == "vgg16"))).SerializeToString())
            lines.append(f"{seed} {path.relative_to(folder).as_posix()} 1 {1.5 + seed} {family} 1")
    (folder / "gt.txt").write_text("\n".join(lines) + "\n")
    samples = nnlqp_samples(tmp_path)
    corpus = build_measured(samples, partial(nnlqp_graph, tmp_path), tmp_path / "cache", quiet, workers=1)
    assert [f.name for f in out_of_domain(corpus)] == ["AlexNet", "VGG"]
    assert corpus.platforms == [("gtx1660", "fp32", "tensorrt-7.1")]
    assert sorted(corpus.row_ms.tolist()) == [1.5, 1.5, 2.5, 2.5, 3.5, 3.5]

"""NNLQP's layout: lines, platforms, splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.corpora import nnlqp
from costmodel.corpora.nnlqp import FAMILIES, PLATFORMS, NnlqpPlatform, Row
from costmodel.errors import DataError, SampleSchemaError
from costmodel.platforms import resolve

README_LINES = """\
553312 onnx/nnmeter_alexnet/nnmeter_alexnet_transform_0130.onnx 8 90.88183 alexnet 2 train
559608 onnx/nnmeter_alexnet/nnmeter_alexnet_transform_0157.onnx 8 11.1463 alexnet 10 train
549409 onnx/nnmeter_alexnet/nnmeter_alexnet_transform_0197.onnx 8 64.11547 alexnet 16 test
"""


def folder(root: Path, lines: str, name: str = "multi_platform") -> Path:
    path = root / name
    path.mkdir()
    (path / "gt.txt").write_text(lines)
    return path


def test_the_lines_of_the_published_readme(tmp_path: Path) -> None:
    path = folder(tmp_path, README_LINES)
    rows = list(nnlqp.read(path))
    assert rows[1] == Row(
        "559608", path / "onnx/nnmeter_alexnet/nnmeter_alexnet_transform_0157.onnx", 8, 11.1463, "AlexNet",
        NnlqpPlatform(10, "gpu-T4-trt7.1-fp32", "t4", "fp32", "tensorrt-7.1"), "train", "multi_platform",
    )  # fmt: skip
    assert rows[1].name == "nnlqp/nnmeter_alexnet_transform_0157"
    assert [r.stage for r in rows] == ["train", "train", "test"]
    assert [r.platform.name for r in rows] == ["cpu-openppl-fp32", "gpu-T4-trt7.1-fp32", "hi3519A-nnie12-int8"]
    assert [r.platform.device for r in rows] == ["", "t4", ""]


def test_both_subsets_are_read_from_their_parent(tmp_path: Path) -> None:
    folder(tmp_path, README_LINES)
    folder(tmp_path, "00428 onnx/nnmeter_alexnet/transform_0427.onnx 1 2.5 alexnet 1\n", "unseen_structure")
    rows = list(nnlqp.read(tmp_path))
    assert [r.subset for r in rows] == ["unseen_structure"] + ["multi_platform"] * 3
    assert (rows[0].platform.device, rows[0].batch, rows[0].stage) == ("gtx1660", 1, "")


def test_known_platforms_resolve_and_match_their_names() -> None:
    for platform in PLATFORMS.values():
        if platform.device:
            resolved = resolve(platform.device, platform.precision, platform.runtime)
            assert resolved.runtime_label == "tensorrt-7.1"
            _, device, runtime, precision = platform.name.split("-")
            assert (device.lower(), runtime, precision) == (platform.device, "trt7.1", platform.precision)
    assert sorted(p for p in PLATFORMS if p != 1) == [2, 9, 10, 12, 13, 14, 16, 18, 23]


def test_unknown_platforms_and_families_keep_their_words(tmp_path: Path) -> None:
    row = next(nnlqp.read(folder(tmp_path, "1 onnx/x.onnx 1 2.5 vit 77\n")))
    assert (row.platform, row.family) == (NnlqpPlatform(77, "platform 77"), "vit")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 onnx/x.onnx 8 2.5 vgg16", "5 words"),
        ("1 onnx/x.onnx 8 2.5 vgg16 2 valid", "7 words"),
        ("1 onnx/x.onnx eight 2.5 vgg16 2", "correct the number"),
        ("1 onnx/x.onnx 8 fast vgg16 2", "correct the number"),
        ("1 onnx/x.onnx 8 -2.5 vgg16 2", "above zero"),
        ("1 onnx/x.onnx 8 nan vgg16 2", "above zero"),
        ("1 onnx/x.onnx 0 2.5 vgg16 2", "above zero"),
    ],
)
def test_a_bad_line_is_told_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = folder(tmp_path, f"{README_LINES}\n{line}\n")
    with pytest.raises(SampleSchemaError, match=rf"gt\.txt, line 5: .*{message}"):
        list(nnlqp.read(path))


def test_a_folder_without_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no gt\.txt"):
        list(nnlqp.read(tmp_path))


def test_written_lines_are_read_again(tmp_path: Path) -> None:
    own = NnlqpPlatform(1000, "mine|fp32|onnxruntime-1.32.0", "mine", "fp32", "onnxruntime-1.32.0")
    rows = [
        Row("0", tmp_path / "onnx/a/x.onnx", 1, 0.1 + 0.2, "ResNet", PLATFORMS[10], "train", tmp_path.name),
        Row("1", tmp_path / "onnx/a/y.onnx", 8, 12.5, "other", own, "", tmp_path.name),
    ]
    assert nnlqp.write_lines(tmp_path, rows) == 2
    first = (tmp_path / "gt.txt").read_text().splitlines()[0]
    assert first == "0 onnx/a/x.onnx 1 0.30000000000000004 resnet18 10 train"
    assert list(nnlqp.read(tmp_path)) == rows


@pytest.mark.parametrize("line", ["1000 mine", "x a|b|c", "1000 a||c"])
def test_a_bad_platform_file_is_told(tmp_path: Path, line: str) -> None:
    path = folder(tmp_path, README_LINES)
    (path / "platforms.txt").write_text(line + "\n")
    with pytest.raises(SampleSchemaError, match="write 'number device"):
        list(nnlqp.read(path))


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    lines = [f"{i} onnx/{w}/{i}.onnx 1 {i + 1}.0 {w} 1" for w in ("alexnet", "vgg16", "resnet18") for i in range(10)]
    return list(nnlqp.read(folder(tmp_path, "\n".join(lines), "unseen_structure")))


def test_out_of_domain_tests_on_one_family(rows: list[Row]) -> None:
    train, test = nnlqp.out_of_domain(rows, "VGG")
    assert {r.family for r in test} == {"VGG"}
    assert {r.family for r in train} == {"AlexNet", "ResNet"}
    assert len(train) + len(test) == len(rows)


def test_in_domain_trains_on_the_first_of_each_family(rows: list[Row]) -> None:
    train, test = nnlqp.in_domain(rows, train_per_family=9)
    assert [(r.family, r.graph_id) for r in test] == [("AlexNet", "9"), ("VGG", "9"), ("ResNet", "9")]
    assert len(train) == 27


def test_there_are_ten_families() -> None:
    assert len(set(FAMILIES.values())) == 10

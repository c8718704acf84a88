"""Reading a small file in NAS-Bench-101's format, written with protobuf's own encoder."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from costmodel import corpora
from costmodel.corpora.nb101 import CONV1, CONV3, POOL
from costmodel.corpora.nb101_runs import Run, modules, read, records
from costmodel.errors import DataError, SampleSchemaError

EXAMPLE = "0111100000000100000010000001000001000000010000000"
EXAMPLE_OPS = f"input,{CONV3},{CONV1},{POOL},{CONV3},{CONV3},output"
EVALUATION_FIELDS = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")


def metrics_class() -> Any:
    """`ModelMetrics` as model_metrics.proto declares it."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="metrics_test.proto", package="nasbench_test", syntax="proto2")
    evaluation = file.message_type.add(name="EvaluationData")
    for number, name in enumerate(EVALUATION_FIELDS, 1):
        evaluation.field.add(name=name, number=number, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL)
    evaluation.field.add(name="checkpoint_path", number=6, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    metrics = file.message_type.add(name="ModelMetrics")
    metrics.field.add(
        name="evaluation_data", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED,
        type_name=".nasbench_test.EvaluationData",
    )  # fmt: skip
    metrics.field.add(name="trainable_parameters", number=2, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    metrics.field.add(name="total_time", number=3, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nasbench_test.ModelMetrics"))


METRICS = metrics_class()


def run(module: str, epochs: int, test: float, adjacency: str = EXAMPLE, operations: str = EXAMPLE_OPS) -> bytes:
    metrics = METRICS(trainable_parameters=2_694_282, total_time=2000.0)
    for part in (0.0, 0.5, 1.0):
        metrics.evaluation_data.add(
            current_epoch=part * epochs, training_time=1155.8 * part, train_accuracy=part,
            validation_accuracy=part * (test + 0.01), test_accuracy=part * test, checkpoint_path="model.ckpt-1",
        )  # fmt: skip
    encoded = base64.b64encode(metrics.SerializeToString()).decode()
    return json.dumps([module, epochs, adjacency, operations, encoded]).encode()


def crc32c(data: bytes) -> int:
    """Bit by bit, to have something else than the table of the reader."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two modules, three and two runs of 108 epochs and one of 36."""
    path = tmp_path / "nasbench.tfrecord"
    rows = [
        run("a", 108, 0.90), run("b", 108, 0.80, "010001000", f"input,{POOL},output"), run("a", 108, 0.92),
        run("a", 36, 0.50), run("a", 108, 0.94), run("b", 108, 0.70, "010001000", f"input,{POOL},output"),
    ]  # fmt: skip
    path.write_bytes(b"".join(frame(row) for row in rows))
    return path


def test_the_checksum_of_the_test_is_the_published_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_every_run_is_read(path: Path) -> None:
    runs = list(read(path))
    assert [(r.module, r.epochs) for r in runs] == [
        ("a", 108),
        ("b", 108),
        ("a", 108),
        ("a", 36),
        ("a", 108),
        ("b", 108),
    ]
    assert runs[1] == Run(
        "b",
        108,
        ((0, 1, 0), (0, 0, 1), (0, 0, 0)),
        ("input", POOL, "output"),
        2_694_282,
        1.0,
        0.80 + 0.01,
        0.80,
        1155.8,
    )


def test_modules_have_the_mean_of_their_runs(path: Path) -> None:
    a, b = modules(path)
    assert (a.module, a.runs, b.module, b.runs) == ("a", 3, "b", 2)
    assert a.test_accuracy == pytest.approx(0.92)
    assert a.validation_accuracy == pytest.approx(0.93)
    assert b.test_accuracy == pytest.approx(0.75)
    assert [m.module for m in modules(path, epochs=36)] == ["a"]


def test_modules_name_networks_that_can_be_built(path: Path) -> None:
    a, b = modules(path)
    assert len(corpora.build(a.name)) > len(corpora.build(b.name)) > 0
    assert a.parameters == 2_694_282


def test_a_file_is_read_as_it_comes(path: Path) -> None:
    """One record is in memory at a time: the first is there though the file ends badly."""
    path.write_bytes(path.read_bytes()[:-1])
    rows = read(path)
    assert next(rows).module == "a"
    with pytest.raises(DataError, match="ends in the middle of a record"):
        list(rows)


@pytest.mark.parametrize("content", [b"not a record at all", b"abc", b"\0" * 40])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a TFRecord file or is damaged"):
        list(records(path))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        list(records(tmp_path / "none"))


@pytest.mark.parametrize(
    "record",
    [
        b"{", b"[1, 2]", b'["a", 108, "0101", "input,output", "!!"]', b'["a", 108, "010", "input,output", ""]',
        b'["a", 108, "0121", "input,output", ""]', b'["a", 108, "0100", "input,output", ""]',
        run("a", 108, 0.9)[:-20] + b'"]',
    ],
)  # fmt: skip
def test_other_records_are_refused_with_their_number(tmp_path: Path, record: bytes) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame(run("a", 108, 0.9)) + frame(record))
    with pytest.raises(SampleSchemaError, match="record 2: not a NAS-Bench-101 run"):
        list(read(path))

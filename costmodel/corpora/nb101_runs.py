"""NAS-Bench-101's published file (Ying et al. 2019, arXiv:1902.09635; github.com/google-research/nasbench).

`nasbench_only108.tfrecord`, or `nasbench_full.tfrecord` with 4, 12 and 36 epochs too, is a TFRecord of JSON lists

    [module hash, epochs, adjacency as a row-major string of 0 and 1, "input,conv3x3-bn-relu,…,output", metrics]

one for each training run (nasbench/api.py). Metrics is a base64 protobuf `ModelMetrics` (model_metrics.proto): repeated
evaluations at the start, half-way and at the end (field 1), trainable parameters (2), seconds (3). A TFRecord frames
each record by its length (8 bytes, little-endian), the length's masked CRC-32C (4), the record, and its CRC (4).
"""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from costmodel.corpora.nb101 import Matrix, name_of
from costmodel.errors import DataError, SampleSchemaError


@dataclass(frozen=True)
class Run:
    """One training run of one module; accuracies in 0…1 at the end of training, time in seconds."""

    module: str
    epochs: int
    matrix: Matrix
    operations: tuple[str, ...]
    parameters: int
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    training_s: float


@dataclass(frozen=True)
class Module:
    """A module with the means over its training runs."""

    module: str
    matrix: Matrix
    operations: tuple[str, ...]
    parameters: int
    validation_accuracy: float
    test_accuracy: float
    runs: int

    @property
    def name(self) -> str:
        """What `costmodel.corpora.build` makes the network of."""
        return name_of(self.matrix, self.operations)


def read(path: str | os.PathLike[str]) -> Iterator[Run]:
    """Training runs of a published file, in its order. Raises DataError, SampleSchemaError for a bad record."""
    for number, record in enumerate(records(path), 1):
        try:
            module, epochs, adjacency, operations, metrics = json.loads(record)
            side = int(len(adjacency) ** 0.5)
            if side * side != len(adjacency) or set(adjacency) - {"0", "1"}:
                raise ValueError("the adjacency is not a square of 0 and 1")
            matrix = tuple(tuple(int(c) for c in adjacency[i * side : (i + 1) * side]) for i in range(side))
            parameters, evaluations = _metrics(base64.b64decode(metrics, validate=True))
            _, seconds, train, validation, test = (evaluations[-1][field] for field in range(1, 6))
            yield Run(
                module, int(epochs), matrix, tuple(operations.split(",")), parameters, train, validation, test, seconds
            )
        except (ValueError, TypeError, KeyError, IndexError, struct.error) as error:
            raise SampleSchemaError(
                f"{path}, record {number}: not a NAS-Bench-101 run ({error}); download the file again"
            ) from None


def modules(path: str | os.PathLike[str], epochs: int = 108) -> list[Module]:
    """Every module trained for so many epochs, with mean accuracies, in the order of first appearance."""
    found: dict[str, list[Run]] = {}
    for run in read(path):
        if run.epochs == epochs:
            found.setdefault(run.module, []).append(run)
    return [
        Module(
            module, runs[0].matrix, runs[0].operations, runs[0].parameters,
            sum(r.validation_accuracy for r in runs) / len(runs), sum(r.test_accuracy for r in runs) / len(runs),
            len(runs),
        )
        for module, runs in found.items()
    ]  # fmt: skip


def records(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The records of a TFRecord file; every length is held against its checksum, so that no frame is misread.

    Raises DataError if the file is missing, damaged or cut short.
    """
    try:
        with open(path, "rb") as file:
            while head := file.read(12):
                if len(head) < 12 or struct.unpack("<I", head[8:])[0] != _masked_crc(head[:8]):
                    raise DataError(f"{path} is not a TFRecord file or is damaged; download it again")
                length = struct.unpack("<Q", head[:8])[0]
                body = file.read(length + 4)
                if len(body) < length + 4:
                    raise DataError(f"{path} ends in the middle of a record; download it again")
                yield body[:length]
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the path") from None


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and offset as TFRecord stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _metrics(data: bytes) -> tuple[int, list[Mapping[int, float]]]:
    """Trainable parameters and the evaluations of a `ModelMetrics`, each field number → value."""
    parameters = 0
    evaluations: list[Mapping[int, float]] = []
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            evaluations.append({f: v for f, v in _fields(value) if isinstance(v, float)})
        elif field == 2 and isinstance(value, int):
            parameters = value
    return parameters, evaluations


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Fields of a protobuf message: varints as int, 64-bit values as the doubles they are here, the rest as bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place, value, shift = place + 1, value | (byte & 0x7F) << shift, shift + 7
            if not byte & 0x80:
                return value

    while place < len(data):
        field, kind = divmod(varint(), 8)
        if kind == 0:
            yield field, varint()
        elif kind == 1:
            yield field, struct.unpack_from("<d", data, place)[0]
            place += 8
        elif kind in (2, 5):
            size = varint() if kind == 2 else 4
            if place + size > len(data):
                raise ValueError("a field runs past the end of the metrics")
            yield field, data[place : place + size]
            place += size
        else:
            raise ValueError(f"wire type {kind} in the metrics")

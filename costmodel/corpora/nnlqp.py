"""NNLQP's published latency data (Liu et al. 2022, arXiv:2205.15441; github.com/ModelTC/NNLQP, README "Dataset").

Two folders, `unseen_structure` (20,000 networks of ten families on a GTX 1660, batch 1) and `multi_platform` (nine
platforms, batch 8), each with weightless models under `onnx/` and one `gt.txt` of lines

    graph-id  onnx-path  batch  latency-ms  family  platform-id  [train|test]

separated by spaces: `553312 onnx/nnmeter_alexnet/nnmeter_alexnet_transform_0130.onnx 8 90.88183 alexnet 2 train`. The
path is relative to the folder. The stage is missing in `unseen_structure`, whose protocols split by family. Which
number is which platform is told by NNLQP's `demo.py`; that the one platform of `unseen_structure` has number 1, by file
names in code built on it. TensorRT is 7.1 throughout.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from costmodel.errors import DataError, SampleSchemaError

FILE = "gt.txt"
PLATFORM_FILE = "platforms.txt"
SUBSETS = ("unseen_structure", "multi_platform")
STAGES = ("train", "test")

FAMILIES = {
    "alexnet": "AlexNet", "efficientb0": "EfficientNet", "googlenet": "GoogleNet", "mnasnet": "MnasNet",
    "mobilenetv2": "MobileNetV2", "mobilenetv3": "MobileNetV3", "nasbench201": "NasBench201", "resnet18": "ResNet",
    "squeezenet": "SqueezeNet", "vgg16": "VGG",
}  # fmt: skip
"""Families as `gt.txt` and as the papers spell them."""


@dataclass(frozen=True)
class NnlqpPlatform:
    """A platform of the data set. `device`, `precision` and `runtime` are ours; `device` is "" where no spec sheet of
    it is known (the CPU is not named, the NPUs publish too little)."""

    number: int
    name: str
    device: str = ""
    precision: str = ""
    runtime: str = ""


_KNOWN = (
    NnlqpPlatform(1, "gpu-gtx1660-trt7.1-fp32", "gtx1660", "fp32", "tensorrt-7.1"),
    NnlqpPlatform(2, "cpu-openppl-fp32"),
    NnlqpPlatform(9, "hi3559A-nnie11-int8"),
    NnlqpPlatform(10, "gpu-T4-trt7.1-fp32", "t4", "fp32", "tensorrt-7.1"),
    NnlqpPlatform(12, "gpu-T4-trt7.1-int8", "t4", "int8", "tensorrt-7.1"),
    NnlqpPlatform(13, "gpu-P4-trt7.1-fp32", "p4", "fp32", "tensorrt-7.1"),
    NnlqpPlatform(14, "gpu-P4-trt7.1-int8", "p4", "int8", "tensorrt-7.1"),
    NnlqpPlatform(16, "hi3519A-nnie12-int8"),
    NnlqpPlatform(18, "atlas300-acl-fp16"),
    NnlqpPlatform(23, "mul270-neuware-int8"),
)
PLATFORMS = {platform.number: platform for platform in _KNOWN}


@dataclass(frozen=True)
class Row:
    """One measurement. `model` is the ONNX file, which may be absent; `family` one of FAMILIES' values or the word in
    the file; `stage` is train, test or "" where the file does not say; `latency_ms` is for the whole batch."""

    graph_id: str
    model: Path
    batch: int
    latency_ms: float
    family: str
    platform: NnlqpPlatform
    stage: str
    subset: str

    @property
    def name(self) -> str:
        """A name for the network: `nnlqp/nnmeter_alexnet_transform_0130`."""
        return f"nnlqp/{self.model.stem}"


def folders(path: str | os.PathLike[str]) -> list[Path]:
    """The folders with a `gt.txt`: `path` itself, or its `unseen_structure` and `multi_platform`.

    Raises DataError if there is none.
    """
    root = Path(path)
    found = [folder for folder in (root, *(root / name for name in SUBSETS)) if (folder / FILE).is_file()]
    if not found:
        raise DataError(f"{root} has no {FILE}; give NNLQP's dataset folder or one of {', '.join(SUBSETS)} in it")
    return found


def read(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Rows of one folder or of both, in the order of the files. Raises DataError, SampleSchemaError for a bad line."""
    for folder in folders(path):
        platforms = PLATFORMS | _named(folder / PLATFORM_FILE)
        with open(folder / FILE, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _row(folder, line.split(), platforms, f"{folder / FILE}, line {number}")


def _row(folder: Path, words: Sequence[str], platforms: dict[int, NnlqpPlatform], where: str) -> Row:
    if len(words) not in (6, 7) or (len(words) == 7 and words[6] not in STAGES):
        raise SampleSchemaError(
            f"{where}: {len(words)} words; write 'graph-id onnx-path batch latency-ms family platform-id [train|test]'"
        )
    try:
        batch, latency, number = int(words[2]), float(words[3]), int(words[5])
    except ValueError as error:
        raise SampleSchemaError(f"{where}: {error}; correct the number") from None
    if batch < 1 or not 0 < latency < float("inf"):
        raise SampleSchemaError(f"{where}: batch {batch} and {latency} ms cannot be; both must be above zero")
    return Row(
        words[0], folder / words[1], batch, latency, FAMILIES.get(words[4], words[4]),
        platforms.get(number, NnlqpPlatform(number, f"platform {number}")), words[6] if len(words) == 7 else "",
        folder.name,
    )  # fmt: skip


def _named(path: Path) -> dict[int, NnlqpPlatform]:
    """Platforms that our own exports add: lines `number device|precision|runtime` in `platforms.txt`."""
    if not path.is_file():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        number, _, key = line.strip().partition(" ")
        parts = key.split("|")
        if line.strip():
            if not number.isdigit() or len(parts) != 3 or not all(parts):
                raise SampleSchemaError(f"{path}: cannot read {line!r}; write 'number device|precision|runtime'")
            found[int(number)] = NnlqpPlatform(int(number), key, *parts)
    return found


def write_lines(path: Path, rows: Iterable[Row]) -> int:
    """Writes a `gt.txt` for rows whose models lie under its folder; returns their number.

    Platforms that NNLQP does not know are named in `platforms.txt` beside it.
    """
    words = {ours: theirs for theirs, ours in FAMILIES.items()}
    extra: dict[int, str] = {}
    count = 0
    with open(path / FILE, "w", encoding="utf-8") as file:
        for row in rows:
            if PLATFORMS.get(row.platform.number) != row.platform:
                extra[row.platform.number] = row.platform.name
            model = row.model.relative_to(path).as_posix()
            fields = [row.graph_id, model, row.batch, row.latency_ms, words.get(row.family, row.family)]
            print(*fields, row.platform.number, *filter(None, [row.stage]), file=file)
            count += 1
    if extra:
        lines = [f"{number} {key}\n" for number, key in sorted(extra.items())]
        (path / PLATFORM_FILE).write_text("".join(lines), encoding="utf-8")
    return count


def out_of_domain(rows: Iterable[Row], family: str) -> tuple[list[Row], list[Row]]:
    """The published split of `unseen_structure`: train on the other families, test on one."""
    train: list[Row] = []
    test: list[Row] = []
    for row in rows:
        (test if row.family == family else train).append(row)
    return train, test


def in_domain(rows: Iterable[Row], train_per_family: int = 1800) -> tuple[list[Row], list[Row]]:
    """The papers' in-domain split of `unseen_structure`: of each family, in file order, the first 1,800 train."""
    count: dict[str, int] = {}
    train: list[Row] = []
    test: list[Row] = []
    for row in rows:
        count[row.family] = count.get(row.family, 0) + 1
        (train if count[row.family] <= train_per_family else test).append(row)
    return train, test

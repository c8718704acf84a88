"""Who trains, who selects, who is tested. Written down here, before any training.

Graphs are split by fingerprint, so the same network never stands on two sides whatever it is called. Devices held out
for zero-shot figures leave training with all their rows, operators included.
"""

from __future__ import annotations

from collections.abc import Collection

TEST_DEVICES = frozenset(("rtx4090", "v100", "v100-pcie", "gtx1660", "titan_rtx"))
"""Unseen devices of the reported zero-shot figures (suggested with the data)."""

VALIDATION_DEVICES = frozenset(("titanxp", "i7_12700h", "p100"))
"""Unseen devices that choose the epoch and calibrate the interval for unseen platforms."""


TRAIN_GRAPHS = frozenset(("timm/resnet50@224",))
"""Always trained on: the one network that MLPerf measures, and so all there is of whole networks in TensorRT int8."""


def split_of(fingerprint: str, train: Collection[str] = (), test: Collection[str] = ()) -> str:
    """`train` (80 %), `val` (10 %) or `test` (10 %) by fingerprint; those in `test`, then in `train`, are fixed."""
    if fingerprint in test:
        return "test"
    if fingerprint in train:
        return "train"
    place = int(fingerprint[:8], 16) % 100
    return "train" if place < 80 else "val" if place < 90 else "test"

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.finetune.fit import read_graphs
from costmodel.finetune.readings import Readings
from costmodel.ir import Graph
from costmodel.predictor import LeDGFormerModel
from tests.finetune.networks import PLATFORM, network


@pytest.fixture(scope="session")
def model() -> LeDGFormerModel:
    return LeDGFormerModel(overlaid=False)


@pytest.fixture(scope="session")
def graphs() -> list[Graph]:
    return [network(seed) for seed in range(70)]


@pytest.fixture(scope="session")
def readings(model: LeDGFormerModel, graphs: list[Graph]) -> Readings:
    return read_graphs(model, graphs, PLATFORM)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty user directory."""
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    return tmp_path

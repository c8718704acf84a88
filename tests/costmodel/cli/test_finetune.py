"""`finetune` and `validate` as a user meets them: from samples to estimates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from costmodel.predictor import LeDGFormerModel
from costmodel.samples import SampleStore
from tests.costmodel.cli.conftest import Run
from tests.finetune.networks import PLATFORM, network, samples

DEVICE = PLATFORM.device.name
COUNT = 14
FACTOR = 3.0


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user directory whose store holds networks that ran three times slower than the model believes."""
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    model, graphs = LeDGFormerModel(overlaid=False), [network(seed) for seed in range(COUNT)]
    believed = model.latencies(model.encode_many(graphs), [PLATFORM])[:, 0]
    noise = np.exp(np.random.default_rng(0).normal(0, 0.02, COUNT))
    with SampleStore() as store:
        store.add_many(list(zip(samples(graphs, FACTOR * believed * noise), graphs, strict=True)))
        store.add_many(list(zip(samples(graphs[:2], believed[:2], precision="int8"), graphs, strict=False)))
    return tmp_path


def figures(ledg: Run, *args: str) -> dict:
    status, out, err = ledg("validate", "-t", DEVICE, "--samples", "store", "-p", "fp32", "--json", *args)
    assert status == 0, err
    (platform,) = json.loads(out)["platforms"]
    return platform


def test_samples_to_estimates_and_back(ledg: Run, home: Path) -> None:
    before = figures(ledg)
    assert before["mape"] == pytest.approx(100 * (1 - 1 / FACTOR), abs=4)
    status, out, err = ledg("finetune", "-t", DEVICE, "--json")
    assert status == 0, err
    (overlay,) = json.loads(out)["overlays"]
    assert (overlay["target"], overlay["precision"], overlay["samples"]) == (DEVICE, "fp32", COUNT)
    assert overlay["adapter"] == "scale"
    assert overlay["mape"]["scale"] < 5
    assert "int8" in err  # two networks are too few, and that is told
    after = figures(ledg)
    assert after["mape"] < 4
    assert after["coverage"] >= 80
    assert after["provenance"] == [f"fine-tuned on {COUNT} samples of this platform"]
    assert figures(ledg, "--no-overlay")["mape"] == before["mape"]
    assert ledg("finetune", "-t", DEVICE, "--remove")[0] == 0
    assert figures(ledg) == before


def test_the_report_of_validate_names_its_measures(ledg: Run, home: Path) -> None:
    status, out, _ = ledg("validate", "-t", DEVICE, "--samples", home / "samples.sqlite")
    assert status == 0
    for word in ("predicted", "measured", "MAPE", "Acc(10 %)", "Spearman", "coverage", "90 % interval"):
        assert word in out
    assert "int8" in out


def test_a_store_elsewhere_and_parquet_serve_alike(ledg: Run, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow; install the dev extra")
    file = tmp_path / "samples.parquet"
    assert ledg("samples", "export", file)[0] == 0
    for source in (file, home / "samples.sqlite"):
        status, out, err = ledg("validate", "-t", DEVICE, "--samples", source, "-r", "onnxruntime", "--json")
        assert status == 0, err
        assert sum(p["n"] for p in json.loads(out)["platforms"]) == COUNT + 2


def test_validate_measures_here(
    ledg: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Callable[..., str]
) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    path = model(shape=("N", 64))
    status, out, err = ledg("validate", path, "-t", DEVICE, "--seconds", "0.05", "--json")
    assert status == 0, err
    record = json.loads(out)
    (entry,) = record["networks"]
    assert entry["measured_ms"] > 0
    assert entry["runtime"].startswith("onnxruntime-")
    assert entry["error"] == pytest.approx(entry["predicted_ms"] / entry["measured_ms"] - 1)
    assert record["platforms"][0]["spearman"] is None  # one network has no order
    assert len(record["definitions"]) == 2


def test_generated_networks_have_names_in_every_command(
    ledg: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    status, out, err = ledg("validate", "gen/nasbench201/7", "-t", DEVICE, "--seconds", "0.05")
    assert status == 0, err
    assert "gen/nasbench201/7" in out
    status, out, err = ledg("estimate", "gen/nasbench201/7", "-t", "t4", "-p", "fp16")
    assert status == 0, err
    assert "gen/nasbench201/7" in out
    status, _, err = ledg("estimate", "gen/nonsense/7", "-t", "t4")
    assert status == 2
    assert "nonsense" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("finetune", "-t", "i9_9900k"), "ledg-cost profile"),
        (("finetune", "-t", "nowhere"), "nowhere"),
        (("finetune", "-t", DEVICE, "--samples", "none.parquet"), "none.parquet"),
        (("finetune", "-t", DEVICE, "--samples", "none.sqlite"), "none.sqlite"),
        (("finetune", "-t", DEVICE, "--remove"), "nothing was fine-tuned"),
        (("validate", "-t", DEVICE), "--samples"),
        (("validate", "-t", DEVICE, "--samples", "store", "-p", "fp16"), "no samples"),
        (("validate", "-t", DEVICE, "missing.onnx"), "missing.onnx"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(ledg: Run, home: Path, args: tuple[str, ...], message: str) -> None:
    status, out, err = ledg(*args)
    assert status == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_no_store_at_all_names_the_way(ledg: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path / "empty"))
    status, _, err = ledg("finetune", "-t", DEVICE)
    assert status == 2
    assert "ledg-cost profile" in err

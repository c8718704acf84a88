from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costmodel.predictor import LeDGFormerModel
from costmodel.samples import SampleStore
from tests.finetune.networks import PLATFORM, network, samples, skewed
from tests.finetune.test_overlay import OTHERS
from tools import fewshot


@pytest.fixture(scope="module")
def pool() -> fewshot.Pool:
    graphs = [network(seed) for seed in range(60)]
    found = fewshot.read_pool(LeDGFormerModel(overlaid=False), graphs, np.ones(60), PLATFORM)
    return fewshot.Pool(found.readings, skewed(found.readings), found.statistics, found.ideal, found.positions)


def test_the_line_is_exact_for_a_line(pool: fewshot.Pool) -> None:
    exact = fewshot.Pool(pool.readings, pool.ideal @ [2.0, 3.0, 0.1], pool.statistics, pool.ideal, pool.positions)
    train, test = np.arange(12), np.arange(12, 60)
    assert fewshot.line(exact, train, test) == pytest.approx(exact.measured[test], rel=1e-6)


def test_every_method_is_judged_on_the_same_networks(pool: fewshot.Pool) -> None:
    result = fewshot.evaluate(pool, [20], draws=1, held=30, selector=True, say=lambda line: None)
    found = {(r["picked"], r["samples"], r["method"]): r for r in result["results"]}
    assert {key[:2] for key in found} == {("", 0), ("random", 20), ("selector", 20)}
    before = found["", 0, "none"]["mape"]
    for way in ("random", "selector"):
        assert found[way, 20, "finetune"]["mape"] < before / 2
        assert found[way, 20, "line"]["mape"] > 0
        assert sum(found[way, 20, "finetune"]["chosen"].values()) == 1
    text = fewshot.markdown({"platforms": {"a|fp32|b": result}})
    assert len(text.splitlines()) == 2 + 3
    assert f"{before:.1f}" in text


def test_a_store_is_all_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    graphs = [network(seed) for seed in range(16)]
    with SampleStore(tmp_path / "s.sqlite") as store:
        store.add_many(list(zip(samples(graphs, np.linspace(1, 3, 16)), graphs, strict=True)))
        few = samples(graphs[:3], np.ones(3), precision=OTHERS[0].precision.value)
        store.add_many(list(zip(few, graphs, strict=False)))
    arguments = ["fewshot", "--samples", str(tmp_path / "s.sqlite"), "--counts", "6", "--draws", "1", "--test", "8"]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(tmp_path / "out.json")])
    fewshot.main()
    out, err = capsys.readouterr()
    assert PLATFORM.device.name in out
    assert "too few" in err
    assert (tmp_path / "out.json").exists()

"""Answers of one process against single estimates by the released bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from costmodel import corpora
from costmodel.errors import InputError
from costmodel.ir import Graph, GraphBuilder
from costmodel.platforms import resolve
from costmodel.predictor import load
from costmodel.ranking import Answer, Settings
from costmodel.ranking.work import answer

DEAD = "nb201/|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"
FOLDS = resolve("t4", "fp16")
EAGER = resolve("t4", "fp32", "pytorch-eager")


def read(name: str, batch: int | None, shapes: Mapping[str, int | tuple[int, ...]], strict: bool) -> Graph:
    """Names are widths."""
    if not name.isdigit():
        raise InputError(f"no model {name}; give a width")
    b = GraphBuilder(name)
    x = b.input((batch or 1, int(name)))
    if name == "13":
        return b.build([b.node("Conv", [x], (1, 1))])  # without a weight
    return b.build([b.node("Relu", [x], (batch or 1, int(name)))])


@pytest.mark.parametrize("batch", [None, 8])
def test_answers_are_those_of_single_estimates(batch: int | None) -> None:
    settings = Settings((FOLDS, EAGER, resolve("v100")), read, batch)
    for name, a in zip(["64", DEAD, "4096"], answer(settings, ["64", DEAD, "4096"]), strict=True):
        assert len(a.latency_ms) == 3
        for platform, ms in zip(settings.platforms, a.latency_ms, strict=True):
            folded = corpora.runs_folded(platform.device.name, platform.runtime)
            graph = corpora.build(name, batch or 1, folded) if name == DEAD else read(name, batch, {}, False)
            assert ms == pytest.approx(load().estimate(graph, platform).latency_ms, rel=1e-4)


def test_a_model_that_fails_spoils_no_other() -> None:
    good, missing, broken, odd, last = answer(Settings((FOLDS,), read), ["64", "x", "13", "nb201/odd", "65"])
    assert good.latency_ms
    assert last.latency_ms
    assert not good.error
    assert missing == Answer(error="no model x; give a width")
    assert "Conv" in broken.error
    assert "NAS-Bench-201" in odd.error
    assert all("\n" not in a.error for a in (missing, broken, odd))


def test_faults_nobody_expected_name_their_type() -> None:
    def fall(*_: object) -> Graph:
        raise RuntimeError("two\nlines")

    (a,) = answer(Settings((FOLDS,), fall), ["m"])
    assert a.error == "RuntimeError: two lines"


def test_one_key_where_every_platform_folds() -> None:
    twin = DEAD.replace("nor_conv_3x3~2", "avg_pool_3x3~2")
    folding = Settings((FOLDS,), read)
    assert folding.key(twin) == folding.key(DEAD) != DEAD
    both = Settings((FOLDS, EAGER), read)
    assert both.key(twin) == twin
    assert folding.key("net.onnx") == "net.onnx"


def test_an_existing_file_is_no_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fbnet").mkdir()
    (tmp_path / "fbnet" / "7").write_text("")
    settings = Settings((FOLDS,), lambda name, *_: read(name.rpartition("/")[2], None, {}, False))
    assert answer(settings, ["fbnet/7"])[0].nodes == 1
    assert "FBNet" in answer(settings, ["fbnet/8"])[0].error


def test_answers_survive_json() -> None:
    for a in (Answer((1.5, 2.5), 10.0, 3, 4, 1.0), Answer(error="gone")):
        assert Answer.of_record(a.as_record()) == a
    assert "error" not in Answer((1.0,)).as_record()

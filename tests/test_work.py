"""How much work an answer takes, counted: runs of the network, modules imported, bytes read, costs worked out.

Seconds depend on the machine; these numbers do not, and each stands for a figure of `tools/bench.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from costmodel import analysis, predictor, prompts
from costmodel.bundle import ENCODE, RELEASED
from costmodel.ir import Graph, GraphBuilder
from costmodel.platforms import list_devices, load_device, resolve, supported_precisions
from costmodel.predictor import LeDGFormerModel, load
from tools.bench import weighty_file

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
UNUSED = {"torch", "transformers", "tvm", "pandas", "pyarrow", "rich", "lark", "sqlite3", "openvino"}


def chain(layers: int, width: int = 8) -> Graph:
    """Equal layers of a Gemm, a Relu and an Add around them."""
    b = GraphBuilder("chain")
    x = b.input((1, width))
    for _ in range(layers):
        y = b.node("Gemm", [x, b.param((width, width)), b.param((width,))], (1, width), transA=0, transB=1)
        x = b.node("Add", [b.node("Relu", [y], (1, width)), x], (1, width))
    return b.build([x])


class Runs(list[str]):
    """Names of the outputs of each run of ONNX Runtime, in order."""

    @property
    def encoder(self) -> int:
        return self.count("nodes")

    @property
    def head(self) -> int:
        return self.count("log_latency")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found, run = Runs(), predictor._run

    def counted(session, feed):  # type: ignore[no-untyped-def]
        found.append(session.get_outputs()[0].name)
        return run(session, feed)

    monkeypatch.setattr(predictor, "_run", counted)
    return found


def test_an_estimate_runs_the_encoder_once_and_the_head_once(runs: Runs) -> None:
    load().estimate_many(chain(6), [resolve("t4"), resolve("v100"), resolve("raspi4")])
    assert (runs.encoder, runs.head, len(runs)) == (1, 1, 2)


def test_every_known_device_takes_one_run_of_the_head(runs: Runs) -> None:
    platforms = [resolve(d, supported_precisions(load_device(d))[0]) for d in list_devices()]
    model = load()
    encoded = model.encode(chain(6))
    runs.clear()
    assert len(model.answer(encoded, platforms)) == len(platforms) > 100
    assert (runs.encoder, runs.head) == (0, 1)
    model.latencies([encoded] * 10, platforms[:30])
    assert (runs.encoder, runs.head) == (0, 2)


def test_small_graphs_share_a_run(runs: Runs) -> None:
    graphs = [chain(1 + i % 7) for i in range(60)]
    encoded = load().encode_many(graphs)
    assert runs.encoder == -(-sum(map(len, graphs)) // predictor.PACK_NODES) == 1
    load().latencies(encoded, [resolve("t4")])
    assert runs.head == 1


def test_packed_graphs_equal_single_ones() -> None:
    """Windows, neighbours and means stay inside each graph, whatever stands beside it and wherever a window begins."""
    model, platforms = load(), [resolve("t4", "int8"), resolve("i9_10940x"), resolve("v100", "fp16", "pytorch-eager")]
    graphs = [chain(n, 8 * n) for n in (1, 21, 40, 2, 70, 400)]
    graphs.insert(2, GraphBuilder().build([]))
    together = model.latencies(model.encode_many(graphs), platforms)
    for graph, row in zip(graphs, together, strict=True):
        alone = model.estimate_many(replace(graph), platforms)
        assert row == pytest.approx([e.latency_ms for e in alone], rel=1e-4)


def test_known_sentences_take_no_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LeDGFormerModel()
    monkeypatch.setattr(model.language, "_student", lambda sentences: pytest.fail(f"the student was asked {sentences}"))
    model.estimate(chain(2), resolve("t4"))


def test_equal_layers_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, sentences = [], []
    cost, sentence = analysis._kind_cost, prompts._WRITERS["default"]
    monkeypatch.setattr(analysis, "_known_costs", {})
    monkeypatch.setitem(prompts._known, "default", {})
    monkeypatch.setattr(analysis, "_kind_cost", lambda node, graph: costs.append(node.op) or cost(node, graph))
    monkeypatch.setitem(prompts._WRITERS, "default", lambda view: sentences.append(view.op) or sentence(view))
    load().encode_many([chain(30), chain(20)])
    assert sorted(costs) == sorted(sentences) == ["Add", "Gemm", "Relu"]


def test_operators_are_made_when_they_are_looked_at() -> None:
    estimate = load().estimate(chain(3), resolve("t4"))
    assert len(estimate.operators) == 9
    assert "_made" not in vars(estimate.operators)
    assert sum(o.latency_ms for o in estimate.operators) == pytest.approx(estimate.latency_ms)
    assert estimate.operators[-1].op == "Add"
    assert [o.op for o in estimate.operators[:2]] == ["Gemm", "Relu"]
    assert estimate.operators == tuple(estimate.operators) != ()


def test_the_bundles_encoder_adds_whole_rows() -> None:
    """ScatterElements adds element by element: a third of the encoder's time at 200 nodes, two thirds at 1,000."""
    names = [node.op_type for node in onnx.load(RELEASED / ENCODE).graph.node]
    assert "ScatterND" in names
    assert "ScatterElements" not in names


def imported_by(*args: str) -> list[str]:
    """Modules that a command has imported when it ends."""
    code = (
        "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr));"
        " from costmodel.cli import main; main()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


def test_help_imports_click_and_little_else() -> None:
    modules = imported_by("--help")
    assert {m for m in modules if m.startswith(("costmodel", "frontends", "profiler"))} == {
        "costmodel", "costmodel.cli", "costmodel.errors",
    }  # fmt: skip
    assert not {"numpy", "onnx", "onnxruntime", "tokenizers", "shutil", *UNUSED} & set(modules)


def test_an_estimate_imports_what_it_uses() -> None:
    modules = set(imported_by("estimate", str(LIGHT), "--target", "t4"))
    assert {"onnx", "onnxruntime", "numpy"} <= modules
    assert not (UNUSED | {"tokenizers"}) & modules
    own = {m for m in modules if m.startswith(("costmodel.", "frontends."))}
    assert not {m for m in own if m.startswith("frontends.") and m.endswith("_lower")} - {"frontends.onnx_lower"}
    assert not {m for m in own if m.startswith(("costmodel.corpora", "costmodel.training", "costmodel.partition"))}


def test_weights_of_a_two_gigabyte_file_are_not_read(tmp_path: Path) -> None:
    """The file is sparse: it takes no space, but reading it would take 2 GB of memory."""
    code = (
        "import json, sys; from pathlib import Path; from tools.bench import lowered_from_disk;"
        " print(json.dumps(lowered_from_disk(Path(sys.argv[1]))))"
    )
    if not Path("/proc/self/io").exists():
        pytest.skip("/proc/self/io counts the bytes, and this system has none")
    path = tmp_path / "weighty.onnx"
    weighty_file(path, 2_000)
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["file_mb"] > 1_990
    assert found["read_mb"] < 4


def test_the_weighty_file_is_a_real_model(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    weighty_file(path, 1, layers=4)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert isinstance(model, ModelProto)
    assert sum(np.prod(t.dims) for t in model.graph.initializer) * 4 == pytest.approx(1e6, rel=0.01)

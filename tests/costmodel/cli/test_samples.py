"""`ledg-cost samples` and `estimate` with a store, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import frontends
from costmodel.samples import Sample, SampleStore
from tests.costmodel.cli.conftest import Run
from tests.samples.conftest import measured, network


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four samples of two networks on two devices."""
    path = tmp_path / "samples.sqlite"
    with SampleStore(path) as opened:
        opened.add_many(
            (measured(network(w), device=d, name=f"gen/resnet/{w}", flags=()), network(w))
            for d in ("t4", "p4") for w in (4, 5)
        )  # fmt: skip
    return path


def test_show_counts_by_platform(ledg: Run, store: Path) -> None:
    status, out, _ = ledg("samples", "show", "--store", store)
    assert status == 0
    assert "4 samples, 2 networks" in out.splitlines()[0]
    assert [line.split() for line in out.splitlines()[2:]] == [
        ["p4", "fp32", "tensorrt-8.6.1", "2"], ["t4", "fp32", "tensorrt-8.6.1", "2"]
    ]  # fmt: skip


def test_query_prints_a_table_of_what_matches(ledg: Run, store: Path) -> None:
    status, out, _ = ledg("samples", "query", "--store", store, "-d", "t4", "-n", "gen/resnet/*", "-r", "tensorrt")
    assert status == 0
    assert len(out.splitlines()) == 3
    assert "gen/resnet/5" in out
    assert "1.5 ms" in out
    assert "2.0%" in out


def test_query_shows_the_newest_and_counts_the_rest(ledg: Run, store: Path) -> None:
    _, out, _ = ledg("samples", "query", "--store", store, "--limit", 1)
    assert out.splitlines()[-1].startswith("… 3 more before")
    assert "gen/resnet/5" in out


def test_query_as_json_has_everything(ledg: Run, store: Path) -> None:
    _, out, _ = ledg("samples", "query", "--store", store, "-f", network(4).fingerprint, "-d", "p4", "--json")
    record = json.loads(out)
    assert record["schema"] == 1
    (found,) = record["samples"]
    assert found["operators"] == [["Conv_0", 1.1], ["Relu_1", 0.2]]
    assert found["environment"]["driver"] == "550.54"


def test_parquet_goes_out_and_in(ledg: Run, store: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "x.parquet", tmp_path / "other.sqlite"
    status, out, _ = ledg("samples", "export", file, "--store", store, "-d", "t4")
    assert (status, out) == (0, f"2 samples written to {file}\n")
    status, out, _ = ledg("samples", "import", file, "--store", other)
    assert (status, out) == (0, f"2 of 2 samples added to {other}\n")
    _, out, _ = ledg("samples", "import", file, "--store", other)
    assert out == f"0 of 2 samples added to {other}, 2 were there\n"
    with SampleStore(other) as opened:
        assert {s.source for s in opened.query()} == {"import:x"}
        assert opened.fingerprints() == {network(4).fingerprint, network(5).fingerprint}


def test_graphs_may_be_left_out(ledg: Run, store: Path, tmp_path: Path) -> None:
    ledg("samples", "export", tmp_path / "x.parquet", "--store", store, "--no-graphs", "--no-operators")
    ledg("samples", "import", tmp_path / "x.parquet", "--store", tmp_path / "other.sqlite", "--source", "import:lab")
    with SampleStore(tmp_path / "other.sqlite") as opened:
        assert opened.fingerprints() == set()
        assert {(s.source, s.operators) for s in opened.query()} == {("import:lab", ())}


def test_nnlqp_folders_go_out_and_in(ledg: Run, store: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other.sqlite"
    status, out, _ = ledg("samples", "export", folder, "--store", store)
    assert (status, out) == (0, f"4 samples written to {folder}\n")
    with open(folder / "gt.txt", "a") as file:
        file.write("9 onnx/none.onnx 1 2.0 vgg16 10\n9 onnx/none.onnx 1 2.0 vgg16 2\n")
    status, out, err = ledg("samples", "import", folder, "--store", other)
    assert (status, out) == (0, f"4 of 4 samples added to {other}\n")
    assert set(err.splitlines()) == {"skipped 1: model file missing", "skipped 1: no spec sheet for cpu-openppl-fp32"}


def test_a_broken_import_keeps_what_came_before(
    ledg: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costmodel.cli.samples._AT_ONCE", 2)
    folder, other = tmp_path / "folder", tmp_path / "other.sqlite"
    ledg("samples", "export", folder, "--store", store)
    lines = (folder / "gt.txt").read_text()
    (folder / "gt.txt").write_text(lines + "not a line\n")
    status, _, err = ledg("samples", "import", folder, "--store", other)
    assert status == 2
    assert "gt.txt, line 5" in err
    (folder / "gt.txt").write_text(lines)
    _, out, _ = ledg("samples", "import", folder, "--store", other)
    assert out == f"0 of 4 samples added to {other}, 4 were there\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "--store", "none.sqlite"), "no sample store none.sqlite; run `ledg-cost profile`"),
        (("query",), "no sample store"),
        (("export", "x.parquet", "--store", "{store}", "-d", "a100"), "no sample in"),
        (("export", "x.csv", "--store", "{store}"), "cannot tell the format of x.csv; add --format"),
        (("import", "{store}", "--store", "{store}"), "cannot tell the format"),
        (("import", "{store}", "--format", "parquet", "--store", "{store}"), "is not a readable Parquet file"),
        (("import", "{folder}", "--store", "{store}"), "has no gt.txt"),
        (("query", "--store", "{text}"), "is not a sample store"),
    ],
)
def test_mistakes_are_told_in_one_line(
    ledg: Run, store: Path, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    (tmp_path / "text.txt").write_text("text " * 300)
    names = {"store": store, "folder": tmp_path, "text": tmp_path / "text.txt"}
    status, out, err = ledg("samples", *(a.format(**names) for a in args))
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def relu_sample(path: str, **changes: object) -> Sample:
    return measured(frontends.load(path, batch=1), operators=(), flags=(), **changes)


@pytest.fixture
def small(model: Callable[..., str], store: Path) -> str:
    """A model that the store has measured on t4."""
    path = model()
    with SampleStore(store) as opened:
        opened.add(relu_sample(path))
    return path


def test_estimate_asks_the_store_first(ledg: Run, small: str, store: Path) -> None:
    status, out, err = ledg("estimate", small, "-t", "t4,p4", "--store", store, "--json")
    assert status == 0, err
    t4, p4 = json.loads(out)["estimates"]
    assert (t4["latency_ms"], t4["runtime"]) == (1.5, "tensorrt-8.6.1")
    assert t4["provenance"] == "measured here, 50 repeats, cv 2.0 %"
    assert not p4["provenance"].startswith("measured")


def test_no_measured_predicts_anyway(ledg: Run, small: str, store: Path) -> None:
    _, out, _ = ledg("estimate", small, "-t", "t4", "--store", store, "--no-measured", "--json")
    assert json.loads(out)["estimates"][0]["provenance"] != "measured here, 50 repeats, cv 2.0 %"
    _, out, _ = ledg("estimate", small, "-t", "t4", "--store", store, "--cost-model", "roofline", "--json")
    assert json.loads(out)["estimates"][0]["provenance"] == "roofline"


def test_the_users_store_is_asked_without_being_named(
    ledg: Run, model: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path / "home"))
    path = model()
    _, out, _ = ledg("estimate", path, "-t", "t4", "--json")
    assert not json.loads(out)["estimates"][0]["provenance"].startswith("measured")
    with SampleStore() as opened:
        opened.add(relu_sample(path))
    _, out, _ = ledg("estimate", path, "-t", "t4", "--detail", "source")
    assert "measured here, 50 repeats" in out


def test_a_store_that_does_not_exist_is_told(ledg: Run, small: str) -> None:
    status, _, err = ledg("estimate", small, "-t", "t4", "--store", "none.sqlite")
    assert status == 2
    assert "no sample store none.sqlite" in err


def test_estimate_without_a_store_loads_no_database(model: Callable[..., str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom costmodel.cli import main\nsys.argv = ['ledg-cost', 'estimate', sys.argv[1], '-t', 't4']\n"
        "main()\nprint('sqlite3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, model()], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_models_of_an_export_are_onnx(ledg: Run, store: Path, tmp_path: Path) -> None:
    ledg("samples", "export", tmp_path / "out", "--store", store, "--format", "nnlqp")
    for path in (tmp_path / "out").rglob("*.onnx"):
        assert onnx.load(path, load_external_data=False).graph.node[0].op_type == "Conv"

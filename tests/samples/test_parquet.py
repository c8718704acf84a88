"""Samples in Parquet and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import graph_json
from costmodel.errors import DataError, SampleSchemaError
from costmodel.samples import Sample, SampleStore, parquet
from tests.samples.conftest import measured, network

pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")

FINGERPRINT = network().fingerprint
positive = st.floats(1e-6, 1e6)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="|"), min_size=1, max_size=10)
numbers = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(st.none(), st.booleans(), numbers, texts)
times = st.just("") | st.datetimes().map(lambda moment: moment.isoformat() + "+00:00")
samples = st.builds(
    Sample, st.just(FINGERPRINT), texts, texts, texts, st.integers(1, 4096), positive, st.none() | positive,
    st.none() | positive, st.none() | positive, st.none() | st.integers(0, 10**6), st.none() | st.integers(0, 2**62),
    st.none() | positive, texts, st.lists(st.tuples(texts, positive), max_size=3).map(tuple),
    st.dictionaries(texts, values, max_size=3), texts, times,
    st.lists(texts, max_size=2).map(tuple),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(samples, max_size=4))
def test_samples_survive_the_way_there_and_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Sample]) -> None:
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    assert parquet.write(path, rows) == len(rows)
    assert list(parquet.read(path)) == [(sample, None) for sample in rows]


def graph_bytes(fingerprint: str) -> bytes | None:
    found = {network(w).fingerprint: network(w) for w in (4, 5)}
    return graph_json.to_bytes(found[fingerprint]) if fingerprint in found else None


def test_graphs_come_once_each_with_their_first_sample(tmp_path: Path) -> None:
    rows = [measured(network(w), batch=b) for b in (1, 2) for w in (4, 5, 6)]
    parquet.write(tmp_path / "x.parquet", rows, graph_bytes)
    pairs = list(parquet.read(tmp_path / "x.parquet"))
    assert [s for s, _ in pairs] == rows
    assert [g for _, g in pairs] == [network(4), network(5), None, None, None, None]


def test_an_environment_is_written_once(tmp_path: Path) -> None:
    environment = {"flags": [f"flag{i * 7919 % 1000}" for i in range(500)]}
    size = {}
    for count in (1, 1000):
        path = tmp_path / f"{count}.parquet"
        parquet.write(path, (measured(batch=1 + i, environment=environment) for i in range(count)), operators=False)
        size[count] = path.stat().st_size
    assert size[1000] - size[1] < 10_000 < 1000 * len(json.dumps(environment))
    group = pq.ParquetFile(tmp_path / "1000.parquet").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["environment"].compression == "ZSTD"
    assert columns["environment"].has_dictionary_page


def test_operators_may_be_left_out(tmp_path: Path) -> None:
    parquet.write(tmp_path / "x.parquet", [measured()], operators=False)
    assert [s.operators for s, _ in parquet.read(tmp_path / "x.parquet")] == [()]
    assert "operators" not in pq.read_schema(tmp_path / "x.parquet").names


def test_many_rows_make_several_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 3)
    rows = [measured(batch=b) for b in range(1, 9)]
    parquet.write(tmp_path / "x.parquet", iter(rows))
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 3
    assert [s for s, _ in parquet.read(tmp_path / "x.parquet")] == rows


def test_a_store_survives_export_and_import(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "a.sqlite") as one, SampleStore(tmp_path / "b.sqlite") as two:
        one.add_many((measured(network(w), batch=b), network(w)) for w in (4, 5) for b in (1, 2))
        parquet.write(tmp_path / "x.parquet", one.query(), one.graph_bytes)
        assert two.add_many(parquet.read(tmp_path / "x.parquet")) == 4
        assert two.add_many(parquet.read(tmp_path / "x.parquet")) == 0
        assert two.query() == one.query()
        assert two.fingerprints() == one.fingerprints()
        assert two.graph(FINGERPRINT) == network()


def table(**columns: list[Any]) -> Any:
    good: dict[str, list[Any]] = {
        "fingerprint": [FINGERPRINT], "device": ["t4"], "precision": ["fp32"], "runtime": ["tensorrt"], "batch": [1],
        "latency_ms": [2.0],
    }  # fmt: skip
    return pyarrow.table(good | columns)


def test_files_of_others_need_six_columns_only(tmp_path: Path) -> None:
    pq.write_table(table(colour=["red"]), tmp_path / "x.parquet")
    assert list(parquet.read(tmp_path / "x.parquet")) == [
        (Sample(FINGERPRINT, "t4", "fp32", "tensorrt", 1, 2.0, source="import", measured_at=""), None)
    ]


def test_missing_columns_are_all_named(tmp_path: Path) -> None:
    pq.write_table(table().drop_columns(["batch", "device"]), tmp_path / "x.parquet")
    with pytest.raises(SampleSchemaError, match="lacks the columns batch, device"):
        list(parquet.read(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"latency_ms": [-1.0]}, "row 1: .*positive"),
        ({"latency_ms": [None]}, "row 1: "),
        ({"batch": ["one"]}, "row 1: .*whole number"),
        ({"environment": ["{"]}, "row 1: "),
        ({"graph": ["{}"]}, "no graph"),
        ({"graph": [graph_json.to_json(network(9))]}, "not the one that was measured"),
    ],
)
def test_impossible_rows_are_told(tmp_path: Path, columns: dict, message: str) -> None:
    pq.write_table(table(**columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message) as caught:
        list(parquet.read(tmp_path / "x.parquet"))
    assert "\n" not in str(caught.value)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    pq.write_table(table().replace_schema_metadata({"ledg-cost-samples": "9"}), tmp_path / "x.parquet")
    with pytest.raises(SampleSchemaError, match="schema 9, this version reads 1; update"):
        list(parquet.read(tmp_path / "x.parquet"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text " * 100])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        list(parquet.read(tmp_path / "x.parquet"))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        list(parquet.read(tmp_path / "none.parquet"))


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write(path, [measured()])

    def failing() -> Any:
        yield measured()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parquet.write(path, failing())
    assert [s for s, _ in parquet.read(path)] == [measured()]
    assert list(tmp_path.iterdir()) == [path]

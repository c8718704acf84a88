from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from costmodel.errors import BackendUnavailableError, DataError
from costmodel.platforms import resolve
from costmodel.ranking import Answer, Ranking, Settings, output


def never(*_: object) -> None:
    raise AssertionError


RANKING = Ranking(
    Settings((resolve("t4", "int8"), resolve("v100", "fp16", "tensorrt-8.6")), never, batch=4),  # type: ignore[arg-type]
    [
        ("a", Answer((3.0, 1.0), 5.0, 2, 1, 0.5)),
        ("b,\"'", Answer((1.0, 2.0), 6.0, 3, 2, 1.0)),
        ("c", Answer(error="x")),
    ],
)  # fmt: skip
EXPECTED = [
    ("t4", "int8", "tensorrt", 4, 1, "b,\"'", 1.0, 6.0, 3, 2, 1.0),
    ("t4", "int8", "tensorrt", 4, 2, "a", 3.0, 5.0, 2, 1, 0.5),
    ("v100", "fp16", "tensorrt-8.6", 4, 1, "a", 1.0, 5.0, 2, 1, 0.5),
    ("v100", "fp16", "tensorrt-8.6", 4, 2, "b,\"'", 2.0, 6.0, 3, 2, 1.0),
]


def test_csv(tmp_path: Path) -> None:
    output.write(RANKING, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        heads, *found = csv.reader(file)
    assert tuple(heads) == output.FIELDS
    assert found == [[str(v) for v in row] for row in EXPECTED]


def test_json_lines(tmp_path: Path) -> None:
    output.write(RANKING, tmp_path / "r.jsonl")
    found = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [tuple(row.values()) for row in found] == EXPECTED
    assert list(tmp_path.iterdir()) == [tmp_path / "r.jsonl"]


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    output.write(RANKING, tmp_path / "r.parquet")
    table = parquet.read_table(tmp_path / "r.parquet")
    assert tuple(table.column_names) == output.FIELDS
    assert [tuple(row.values()) for row in table.to_pylist()] == EXPECTED
    assert {str(table.schema.field(n).type) for n in ("batch", "rank", "params", "nodes")} == {"int64"}


def test_a_batch_of_the_models_own_is_null(tmp_path: Path) -> None:
    own = Ranking(Settings(RANKING.settings.platforms, never), RANKING.models)  # type: ignore[arg-type]
    output.write(own, tmp_path / "r.jsonl")
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])["batch"] is None


def test_what_cannot_be_written_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"\.parquet, \.csv or \.jsonl"):
        output.check(tmp_path / "r.xlsx")
    with pytest.raises(DataError, match="make it first"):
        output.check(tmp_path / "none" / "r.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match="pip install pyarrow"):
        output.check(tmp_path / "r.parquet")

"""Order, failures, resuming and processes, with models that are only names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from costmodel.errors import DataError, InputError
from costmodel.ir import Graph, GraphBuilder
from costmodel.platforms import resolve
from costmodel.ranking import Settings, rank
from costmodel.ranking.journal import Journal, journal_of
from costmodel.ranking.run import CHUNK

read_names: list[str] = []


def read(name: str, batch: int | None, shapes: Mapping[str, int | tuple[int, ...]], strict: bool) -> Graph:
    """A Relu over as many elements as the name says."""
    read_names.append(name)
    if not name.isdigit():
        raise InputError(f"no model {name}; give a width")
    b = GraphBuilder(name)
    x = b.input((batch or 1, int(name)))
    return b.build([b.node("Relu", [x], (batch or 1, int(name)))])


@pytest.fixture(autouse=True)
def _fresh() -> None:
    read_names.clear()


T4 = Settings((resolve("t4"), resolve("v100")), read)
WIDTHS = ["100000000", "x", "1000000", "400000000", "y"]


def test_the_fastest_come_first_and_failures_are_listed() -> None:
    ranking = rank(WIDTHS, T4)
    for platform in (0, 1):
        assert [name for name, _ in ranking.order(platform)] == ["1000000", "100000000", "400000000"]
    assert [name for name, _ in ranking.failures] == ["x", "y"]
    assert [name for name, _ in ranking.models] == WIDTHS


def test_a_model_named_twice_is_read_once_and_listed_twice() -> None:
    ranking = rank(["7", "8", "7"], T4)
    assert read_names == ["7", "8"]
    assert [name for name, _ in ranking.models] == ["7", "8", "7"]


def test_two_processes_give_the_same_answers() -> None:
    names = [str(1000 * i) for i in range(1, CHUNK + 9)]
    alone, together = rank(names, T4), rank(names, T4, jobs=2)
    assert [name for name, _ in together.models] == names
    for (_, a), (_, b) in zip(alone.models, together.models, strict=True):
        assert b.latency_ms == pytest.approx(a.latency_ms, rel=1e-5)


def test_no_models_is_an_error() -> None:
    with pytest.raises(InputError, match="no models to rank; name"):
        rank([], T4)


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    names = [str(i) for i in range(10, 10 + 3 * CHUNK)]

    def stops(at: int) -> Iterator[str]:
        for i, name in enumerate(names):
            if i == at:
                raise KeyboardInterrupt
            yield name

    with pytest.raises(KeyboardInterrupt):
        rank(stops(2 * CHUNK + 5), T4, out=out)
    kept = len(journal_of(out).read_text().splitlines()) - 1
    assert kept >= CHUNK
    with journal_of(out).open("a") as file:
        file.write('{"key": "10", "latency_')  # cut short
    read_names.clear()
    ranking = rank(names, T4, out=out)
    assert len(read_names) == len(names) - kept
    whole = rank(names, T4)
    assert [n for n, _ in ranking.order()] == [n for n, _ in whole.order()]
    assert [json.loads(line)["key"] for line in journal_of(out).read_text().splitlines()[1:]] == names


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    rank(["5", "x"], T4, out=out)
    read_names.clear()
    rank(["5", "x"], T4, out=out)
    assert read_names == ["x"]


def test_answers_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    rank(["5"], T4, out=out)
    for other in (
        Settings((resolve("t4"),), read),
        Settings(T4.platforms, read, batch=2),
        Settings(T4.platforms, read, shapes={"N": 3}),
        Settings(T4.platforms, read, strict=True),
    ):
        with pytest.raises(DataError, match="other settings; give the same options to go on, or delete it"):
            rank(["5"], other, out=out)
    journal_of(out).write_text("no journal\n")
    with pytest.raises(DataError, match="delete it"):
        rank(["5"], T4, out=out)


def test_shapes_survive_the_journal(tmp_path: Path) -> None:
    settings = Settings(T4.platforms, read, shapes={"x": (1, 2), "N": 3})
    rank(["5"], settings, out=tmp_path / "r.csv")
    with Journal(journal_of(tmp_path / "r.csv"), settings) as journal:
        assert list(journal.answers) == ["5"]


def test_a_folder_that_cannot_be_written_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose another --out"):
        rank(["5"], T4, out=tmp_path / "nowhere" / "r.csv")

"""Keeping and finding samples."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from costmodel.errors import DataError, SampleSchemaError
from costmodel.ir import Graph
from costmodel.platforms import resolve
from costmodel.samples import Sample, SampleStore, default_store
from tests.samples.conftest import measured, network

MakeSample = Callable[..., Sample]
MakeGraph = Callable[..., Graph]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SampleStore]:
    with SampleStore(tmp_path / "samples.sqlite") as opened:
        yield opened


def test_a_sample_comes_back_as_it_went_in(store: SampleStore, make_sample: MakeSample) -> None:
    sample = make_sample()
    assert store.add(sample)
    assert store.query() == [sample]


def test_a_sample_of_bare_essentials_comes_back_too(store: SampleStore, make_sample: MakeSample) -> None:
    sample = Sample(make_sample().fingerprint, "t4", "fp32", "tensorrt", 1, 2.0)
    store.add(sample)
    assert store.query() == [sample]


def test_adding_twice_changes_nothing(store: SampleStore, make_sample: MakeSample) -> None:
    assert store.add(make_sample())
    assert not store.add(make_sample(latency_ms=99.0))
    assert [s.latency_ms for s in store.query()] == [1.5]


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "0" * 64}, {"device": "p4"}, {"precision": "int8"}, {"runtime": "tensorrt-7.1"}, {"batch": 2},
        {"measured_at": "2026-03-02T12:00:00+00:00"},
    ],
)  # fmt: skip
def test_every_part_of_the_key_tells_samples_apart(store: SampleStore, make_sample: MakeSample, changes: dict) -> None:
    assert store.add(make_sample())
    assert store.add(make_sample(**changes))
    assert len(store) == 2


def test_the_graph_is_kept_once_and_read_back(
    store: SampleStore, make_sample: MakeSample, make_graph: MakeGraph
) -> None:
    graph = make_graph()
    store.add(make_sample(), graph)
    store.add(make_sample(batch=2), graph)
    assert store.graph(graph.fingerprint) == graph
    assert store.fingerprints() == {graph.fingerprint}


def test_a_graph_may_come_later(store: SampleStore, make_sample: MakeSample, make_graph: MakeGraph) -> None:
    store.add(make_sample())
    assert store.fingerprints() == set()
    assert not store.add(make_sample(), make_graph())
    assert store.fingerprints() == {make_graph().fingerprint}


def test_a_graph_that_was_not_measured_is_refused(
    store: SampleStore, make_sample: MakeSample, make_graph: MakeGraph
) -> None:
    with pytest.raises(SampleSchemaError, match="measure and store the same graph"):
        store.add(make_sample(), make_graph(width=9))
    assert len(store) == 0


def test_an_unknown_graph_is_an_error(store: SampleStore) -> None:
    with pytest.raises(DataError, match=r"has no graph 000000000000; profile it"):
        store.graph("0" * 64)


def test_queries_filter_by_all_that_is_given(store: SampleStore, make_sample: MakeSample) -> None:
    store.add_many(
        (make_sample(device=d, precision=p, batch=b, name=f"{d}-{b}", source=f"import:{p}"), None)
        for d in ("t4", "p4") for p in ("fp32", "int8") for b in (1, 8)
    )  # fmt: skip
    assert len(store.query()) == 8
    assert {s.device for s in store.query(device="t4")} == {"t4"}
    assert len(store.query(device="t4", precision="int8", batch=8)) == 1
    assert len(store.query(name="t4-*")) == 4
    assert len(store.query(source="import:int8", name="?4-8")) == 2
    assert store.query(fingerprint="1" * 64) == []
    assert [s.name for s in store.query(limit=2)] == ["p4-1", "p4-8"]
    assert store.platforms() == [(d, p, "tensorrt-8.6.1", 2) for d in ("p4", "t4") for p in ("fp32", "int8")]


def test_a_runtime_matches_its_releases_only(store: SampleStore, make_sample: MakeSample) -> None:
    for runtime in ("tensorrt", "tensorrt-8.6.1", "tensorrt-8.61", "tensorrt-7.1", "tensorrt-rtx-1.0"):
        store.add(make_sample(runtime=runtime))
    assert {s.runtime for s in store.query(runtime="tensorrt")} == {
        "tensorrt", "tensorrt-8.6.1", "tensorrt-8.61", "tensorrt-7.1"
    }  # fmt: skip
    assert {s.runtime for s in store.query(runtime="tensorrt-8.6")} == {"tensorrt-8.6.1"}
    assert {s.runtime for s in store.query(runtime="tensorrt-8")} == {"tensorrt-8.6.1", "tensorrt-8.61"}
    assert store.query(runtime="tens*") == []


def test_lookup_takes_the_newest_of_any_version(store: SampleStore, make_sample: MakeSample) -> None:
    fingerprint = make_sample().fingerprint
    platform = resolve("t4", "fp32", "tensorrt")
    assert store.lookup(fingerprint, platform, 1) is None
    store.add(make_sample(measured_at="2026-05-01T00:00:00+00:00", latency_ms=3.0))
    store.add(make_sample(measured_at="2026-04-01T00:00:00+00:00", latency_ms=4.0, runtime="tensorrt-9.0"))
    store.add(make_sample(measured_at="", latency_ms=5.0))
    found = store.lookup(fingerprint, platform, 1)
    assert found is not None
    assert found.latency_ms == 3.0
    assert store.lookup(fingerprint, platform, 2) is None
    assert store.lookup(fingerprint, platform) == found
    newer = store.lookup(fingerprint, resolve("t4", "fp32", "tensorrt-9.0"), 1)
    assert newer is not None
    assert newer.latency_ms == 4.0
    assert store.lookup(fingerprint, resolve("t4", "fp32", "tensorrt-10.0"), 1) is None
    assert store.lookup(fingerprint, resolve("t4", "int8", "tensorrt"), 1) is None
    assert store.lookup(fingerprint, resolve("p4", "fp32", "tensorrt"), 1) is None


def test_lookup_prefers_a_sample_that_is_not_noisy(store: SampleStore, make_sample: MakeSample) -> None:
    old, new = (make_sample(measured_at=f"2026-01-0{i}T00:00:00+00:00", flags=()) for i in (1, 2))
    store.add_many([(old, None), (new, None)])
    platform = resolve(old.device, old.precision, old.runtime)
    assert store.lookup(old.fingerprint, platform) == new
    store.flag([new], "noisy", "noisy", "faster-since")
    assert [s.flags for s in store.query()] == [(), ("noisy", "faster-since")]
    assert store.lookup(old.fingerprint, platform) == old
    store.flag([old], "noisy")
    assert store.lookup(old.fingerprint, platform).measured_at == new.measured_at


def test_environments_are_kept_once(store: SampleStore, make_sample: MakeSample, tmp_path: Path) -> None:
    for batch in range(1, 20):
        store.add(make_sample(batch=batch))
    db = sqlite3.connect(tmp_path / "samples.sqlite")
    assert db.execute("SELECT count(*) FROM environments").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()])
def test_what_json_cannot_hold_is_refused(store: SampleStore, make_sample: MakeSample, value: object) -> None:
    with pytest.raises(SampleSchemaError, match="JSON cannot hold"):
        store.add(make_sample(environment={"key": value}))
    assert len(store) == 0


def test_many_are_added_all_or_none(store: SampleStore, make_sample: MakeSample) -> None:
    bad = make_sample(batch=3, environment={"key": object()})
    with pytest.raises(SampleSchemaError):
        store.add_many([(make_sample(), None), (bad, None)])
    assert len(store) == 0
    assert store.add_many([(make_sample(), None), (make_sample(), None)]) == 1


def test_a_damaged_row_gives_one_line(store: SampleStore, make_sample: MakeSample, tmp_path: Path) -> None:
    store.add(make_sample())
    db = sqlite3.connect(tmp_path / "samples.sqlite")
    db.execute("UPDATE samples SET operators = x'00'")
    db.commit()
    db.close()
    with pytest.raises(DataError, match="is damaged"):
        store.query()


def test_the_default_store_follows_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEDG_COST_HOME", str(tmp_path))
    assert default_store() == tmp_path / "samples.sqlite"
    with SampleStore() as store:
        assert store.path.exists()


def test_threads_share_a_store(store: SampleStore, make_sample: MakeSample) -> None:
    def write(first: int) -> None:
        for i in range(20):
            store.add(make_sample(batch=first + i))

    threads = [threading.Thread(target=write, args=(1 + 20 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(s.batch for s in store.query()) == list(range(1, 81))


def _write(path: str, device: str, count: int) -> None:
    with SampleStore(path) as store:
        for i in range(count):
            graph = network(width=1 + i)
            store.add(measured(graph, device=device), graph)


def test_processes_share_a_store_that_none_of_them_made_first(tmp_path: Path) -> None:
    path = tmp_path / "new" / "samples.sqlite"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write, args=(str(path), device, 25)) for device in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with SampleStore(path) as store:
        assert store.platforms() == [(d, "fp32", "tensorrt-8.6.1", 25) for d in ("a", "b", "c")]
        assert len(store.fingerprints()) == 25

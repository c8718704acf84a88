"""The crash test itself: it finds what is lost and doubled, and a few kills leave a sound store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from costmodel.samples import Sample, SampleStore
from tools import store_crash
from tools.store_crash import check, network, sound


def keep(store: SampleStore, writer: str, number: int, **changes: object) -> None:
    graph = network(number, writer)
    sample = Sample(graph.fingerprint, writer, "fp32", "onnxruntime", 1, 1.0, name=f"crash/{number}", **changes)  # type: ignore[arg-type]
    store.add(sample, graph)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with three samples of each writer, all acknowledged."""
    path = tmp_path / "samples.sqlite"
    with SampleStore(path) as store:
        for writer in store_crash.WRITERS:
            for number in range(3):
                keep(store, writer, number)
            (tmp_path / f"{writer}.journal").write_text("0\n1\n2\n")
    return path


def test_a_sound_store_is_called_sound(path: Path) -> None:
    result = check(path)
    assert result["acknowledged"] == result["kept"] == 6
    assert sound(result)


def test_a_half_written_line_was_not_acknowledged(path: Path) -> None:
    path.with_name("first.journal").write_text("0\n1\n2\n3")
    assert check(path)["lost"] == 0


def test_a_lost_sample_is_found(path: Path) -> None:
    path.with_name("first.journal").write_text("0\n1\n2\n3\n")
    result = check(path)
    assert result["lost"] == 1
    assert not sound(result)


def test_a_doubled_sample_is_found(path: Path) -> None:
    with SampleStore(path) as store:
        keep(store, "second", 1)
    result = check(path)
    assert result["doubled"] == 1
    assert not sound(result)


def test_a_gap_is_found(path: Path) -> None:
    with SampleStore(path) as store:
        keep(store, "first", 4)
    result = check(path)
    assert (result["gaps"], result["kept_before_their_acknowledgement"]) == (1, 1)
    assert not sound(result)


def test_networks_differ(path: Path) -> None:
    prints = {network(n, w).fingerprint for n in range(20) for w in store_crash.WRITERS}
    assert len(prints) == 40


def test_six_kills_lose_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, store_crash.__file__, "--kills", "6", "--json", tmp_path / "x.json"], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["kills"] == 6
    assert result["kept"] >= result["acknowledged"] > 0

"""The crash test of `profile`: it finds what is lost, doubled and changed, and a kill leaves a store that resumes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from costmodel.samples import Sample, SampleStore
from tools import profile_crash
from tools.profile_crash import Watch
from tools.store_crash import network


def sample(number: int) -> Sample:
    graph = network(number, "first")
    return Sample(graph.fingerprint, "here", "fp32", "onnxruntime", 1, 1.0 + number, name=f"gen/squeezenet/{number}")


def test_what_goes_missing_or_changes_is_told(tmp_path: Path) -> None:
    path, watch = tmp_path / "samples.sqlite", Watch()
    with SampleStore(path) as store:
        for number in range(3):
            store.add(sample(number), network(number, "first"))
    watch.look(path)
    assert (len(watch.seen), watch.lost, watch.doubled, watch.changed) == (3, 0, 0, 0)
    path.unlink()
    with SampleStore(path) as store:
        store.add(replace(sample(1), latency_ms=9.0), network(1, "first"))
    watch.look(path)
    assert (watch.lost, watch.changed) == (2, 1)


def test_a_killed_profiler_goes_on(tmp_path: Path) -> None:
    command = [
        sys.executable,
        profile_crash.__file__,
        "--kills",
        "1",
        "--block",
        "3",
        "--json",
        str(tmp_path / "result.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["kills"] == 1
    assert result["kept"] == result["networks"] >= 6

"""What happens to one measurement happens to no other."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from costmodel.errors import BackendUnavailableError, DynamicShapeError, ProfileError
from profiler import inprocess, server
from profiler.backends.base import Runner
from profiler.inprocess import measure_here
from profiler.isolation import Worker
from profiler.request import Measurement, Request
from profiler.server import CAN_FORK
from tests.profiler.models import conv_net, elementwise, endless

pytestmark = pytest.mark.skipif(not CAN_FORK or not Path("/proc").is_dir(), reason="needs fork and /proc")

QUICK = Request(elementwise("Sin").SerializeToString(), seconds=0.02)
ENDLESS = Request(endless().SerializeToString(), seconds=0.02, name="endless")


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_child(worker: Worker, seconds: float = 30) -> int:
    """The process that measures; the worker's server is asked until there is one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if worker._process is not None and (found := children(worker._process.pid)):
            return found[0]
        time.sleep(0.01)
    raise AssertionError("no process measures")


def gone(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "out of memory"), (signal.SIGSEGV, "crashed on endless .signal SIGSEGV")]
)
def test_a_crash_loses_one_measurement(worker: Worker, number: int, words: str) -> None:
    def kill() -> None:
        child = wait_for_child(worker)
        time.sleep(0.3)  # it has begun
        os.kill(child, number)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ProfileError, match=words):
        worker.run(ENDLESS)
    killer.join()
    assert worker.run(QUICK).latency_ms > 0


def test_a_hang_ends_at_the_timeout(worker: Worker) -> None:
    with pytest.raises(ProfileError, match=r"endless was not measured within 2 s; raise --timeout"):
        worker.run(Request(ENDLESS.model, timeout_s=2.0, name="endless"))
    assert worker.run(QUICK).latency_ms > 0


def test_the_server_may_die_too(worker: Worker) -> None:
    worker.run(QUICK)
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    assert worker.run(QUICK).latency_ms > 0


def test_errors_keep_their_kind(worker: Worker) -> None:
    with pytest.raises(BackendUnavailableError, match="install"):
        worker.run(Request(QUICK.model, backend="cuda"))
    model = conv_net()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "W"
    with pytest.raises(DynamicShapeError, match="--shape W=N"):
        worker.run(Request(model.SerializeToString()))


def test_a_model_that_the_runtime_refuses_is_told_in_one_line(worker: Worker) -> None:
    with pytest.raises(ProfileError) as caught:
        worker.run(Request(elementwise("NoSuchOperator").SerializeToString(), name="odd"))
    assert "onnxruntime cannot run odd at fp32" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_outlives_a_killed_asker(tmp_path: Path) -> None:
    (tmp_path / "endless.onnx").write_bytes(ENDLESS.model)  # type: ignore[arg-type]
    code = (
        "from profiler.isolation import Worker; from profiler.request import Request; w = Worker();"
        f"print(w._server().pid, flush=True); w.run(Request({str(tmp_path / 'endless.onnx')!r}))"
    )
    asker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    server = int(asker.stdout.readline())
    end = time.monotonic() + 30
    while not children(server) and time.monotonic() < end:
        time.sleep(0.01)
    (child,) = children(server)
    asker.kill()
    asker.wait()
    asker.stdout.close()
    assert gone(child)
    assert gone(server)


def test_a_model_of_megabytes_travels(worker: Worker) -> None:
    model = conv_net()
    model.doc_string = "x" * (3 << 20)
    assert worker.run(Request(model.SerializeToString(), seconds=0.02, batch=2)).batch == 2


def test_without_fork_the_server_measures_once_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CAN_FORK", False)
    assert isinstance(QUICK.model, bytes)
    line = json.dumps({**QUICK.to_json(), "model_bytes": len(QUICK.model)}).encode() + b"\n" + QUICK.model
    results = io.BytesIO()
    server.serve(io.BytesIO(line * 2), results)
    (answer,) = results.getvalue().splitlines()
    assert Measurement.from_json(json.loads(answer)["measurement"]).latency_ms > 0


class FakeGpu:
    """A backend that computes on a GPU and says when it runs."""

    name = "cuda"

    def __init__(self, log: Path) -> None:
        self.log = log

    def precisions(self) -> tuple[str, ...]:
        return ("fp32",)

    def on_gpu(self) -> bool:
        return True

    def runtime(self) -> str:
        return "onnxruntime-1"

    def open(self, request: Request) -> Runner:
        def run() -> None:
            with self.log.open("a", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.002)

        return Runner(run=run, batch=1, finite=lambda: True, peak_bytes=lambda: 12345)


def test_one_process_at_a_time_is_timed_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(inprocess, "get_backend", lambda _: FakeGpu(tmp_path / "log"))
    children = []
    for _ in range(3):
        children.append(os.fork())
        if not children[-1]:
            try:
                found = measure_here(Request("", backend="cuda", seconds=0.05))
                os._exit(0 if found.peak_memory_bytes == 12345 else 2)
            finally:
                os._exit(1)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    ran = [int(line) for line in (tmp_path / "log").read_text().split()]
    turns = [pid for i, pid in enumerate(ran) if i == 0 or ran[i - 1] != pid]
    assert sorted(turns) == sorted(children), "runs of two processes alternate"

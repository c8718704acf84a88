"""The measuring side: a process that imports the runtime once and measures each request in a fork of itself.

It reads requests from standard input and writes results to standard output, each a line of JSON (a request whose
model is bytes has them behind the line). A fork costs milliseconds, where a fresh interpreter that imports a runtime
costs a second, and like one it starts without sessions, threads or memory of what was measured before. Where the
system cannot fork, each request is measured in the server itself and the other side starts a new one.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from typing import IO, Any

from costmodel.errors import LedgCostError
from profiler.backends import get_backend
from profiler.inprocess import measure_here
from profiler.request import Request

CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"  # system libraries of macOS do not survive a fork


_OWN = ("ctypes", "numpy.ma", "numpy.random", "profiler.onnx_model", "profiler.quantize")


def serve(requests: IO[bytes], results: IO[bytes]) -> None:
    """Answers requests until the input ends."""
    loaded: set[str] = set()
    while line := requests.readline():
        record = json.loads(line)
        size = record.pop("model_bytes", None)
        request = Request.from_json(record, requests.read(size) if size is not None else None)
        if request.backend not in loaded:
            _preload(request.backend)
            loaded.add(request.backend)
        answer = _in_fork(request, requests) if CAN_FORK else _answer(request)
        results.write(json.dumps(answer).encode() + b"\n")
        results.flush()
        if not CAN_FORK:
            return


def _preload(name: str) -> None:
    """Imports what every fork will need; what is missing is told when the backend is asked for."""
    try:
        for module in (*get_backend(name).preload, *_OWN):
            importlib.import_module(module)
    except (LedgCostError, ImportError):
        return
    if CAN_FORK:
        gc.collect()
        gc.freeze()  # forks need not look at what is here, nor copy it


def _answer(request: Request) -> dict[str, Any]:
    try:
        return {"measurement": measure_here(request).to_json()}
    except LedgCostError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except Exception:
        return {"error": "ProfileError", "message": f"profiler fault: {traceback.format_exc(limit=-2)}; report it"}


def _in_fork(request: Request, requests: IO[bytes]) -> dict[str, Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _be_child(request, requests, writer)
    os.close(writer)
    try:
        content = _read_until(reader, time.monotonic() + request.timeout_s, requests.fileno())
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return _failure(f"{request.label} was not measured within {request.timeout_s:g} s; raise --timeout")
    except BrokenPipeError:  # nobody waits for the answer
        os.kill(child, signal.SIGKILL)
        os._exit(1)
    finally:
        os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if content:
        answer: dict[str, Any] = json.loads(content)
        return answer
    if status == -signal.SIGKILL:
        return _failure(f"measuring {request.label} was killed, as the system does out of memory; try a smaller batch")
    cause = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return _failure(f"{request.backend} crashed on {request.label} ({cause}); leave this model out")


def _failure(message: str) -> dict[str, Any]:
    return {"error": "ProfileError", "message": message}


def _be_child(request: Request, requests: IO[bytes], writer: int) -> None:
    """Measures, writes the answer and ends without running anybody's exit handlers."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), requests.fileno())
        _offer_to_memory_killer()
        content = json.dumps(_answer(request)).encode()
        while content:
            content = content[os.write(writer, content) :]
    finally:
        os._exit(0)


def _offer_to_memory_killer() -> None:
    """Out of memory, the system should end this process, not one with results in it."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        return


def _read_until(reader: int, deadline: float, requests: int) -> bytes:
    """All that comes from the child. Raises TimeoutError, or BrokenPipeError if the other side is gone."""
    content = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        ready = select.select([reader, requests], [], [], left)[0]
        if reader in ready:
            part = os.read(reader, 1 << 20)
            if not part:
                return content
            content += part
        elif requests in ready:  # one request at a time: only the end of input can be there
            raise BrokenPipeError


def main() -> None:
    """Serves on the standard streams; what runtimes print goes to standard error instead of among the results."""
    if CAN_FORK:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side decides what an interrupt means
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, results)


if __name__ == "__main__":
    main()

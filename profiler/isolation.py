"""The asking side: measurements in processes of their own, so that a crash, a hang or lack of memory loses one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from costmodel import errors
from costmodel.errors import LedgCostError, ProfileError
from profiler.request import Measurement, Request

_SPARE_S = 30.0


class Worker:
    """A measuring server, started when first asked and again whenever it has ended. Use it as a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, request: Request) -> Measurement:
        """Measures once in a process of its own.

        Raises what measuring raised (see `costmodel.errors`), or ProfileError if the process crashed or took longer
        than `request.timeout_s`.
        """
        record = self._exchange(request)
        if "error" in record:
            kind = getattr(errors, record["error"], ProfileError)
            raise kind(record["message"]) if issubclass(kind, LedgCostError) else ProfileError(record["message"])
        return Measurement.from_json(record["measurement"])

    def _exchange(self, request: Request) -> dict[str, Any]:
        process = self._server()
        header = request.to_json()
        body = request.model if isinstance(request.model, bytes) else b""
        if body:
            header["model_bytes"] = len(body)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(header).encode() + b"\n" + body)
            process.stdin.flush()
            line = self._read_line(process, request.timeout_s + _SPARE_S)
        except BaseException:
            self.close()
            raise
        if not line:
            self.close()
            raise ProfileError(f"the measuring process ended on {request.label}; leave this model out")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read_line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """The server keeps the time by itself; the timer here is for one that cannot fork or hangs."""
        import threading

        assert process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            return process.stdout.readline()
        finally:
            timer.cancel()

    def _server(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            environment = dict(os.environ)
            root = str(Path(__file__).parent.parent)
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
            environment.setdefault("OMP_NUM_THREADS", "1")  # numpy's threads, none of which should outlive a fork
            self._process = subprocess.Popen(
                [sys.executable, "-m", "profiler.server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # an interrupt at the terminal reaches this side only
            )
        return self._process

    def close(self) -> None:
        """Ends the server and what it is measuring."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

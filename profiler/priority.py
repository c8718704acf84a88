"""Keeping other programs away while runs are timed.

Several commands may profile one GPU at once, for loading takes longer than timing: `sole_user` lets one of them time.
Priorities need Linux and the right to real-time scheduling.

"realtime" schedules the measuring threads before all ordinary ones. "exclusive" also keeps ordinary programs off every
other processor, by a process on each that waits in `pthread_spin_lock`: the pause instruction in that loop leaves a
shared core's units, caches and bandwidth to the one that measures. The kernel still gives others 5 % of each second.
"""

from __future__ import annotations

import ctypes
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from costmodel.errors import ProfileError

PRIORITIES = ("normal", "realtime", "exclusive")
GPU = "gpu"
_LOAD_NICENESS = -10
_PR_SET_PDEATHSIG = 1
_SETTLE_S = 0.01


@contextmanager
def sole_user(what: str) -> Iterator[None]:
    """Waits until no other measurement of this user has `what`, such as `GPU`, and has it until the end of the block.

    Nothing to wait for where it is "" or the system has no file locks. The system frees it if this process ends.
    """
    try:
        import fcntl
    except ImportError:
        what = ""
    if not what:
        yield
        return
    user = os.getuid()
    with open(Path(tempfile.gettempdir()) / f"ledg-cost-{user}-{what}.lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def hurry(priority: str) -> None:
    """A better share of the processor while loading, for all but "normal"; silently none where that is not allowed."""
    if priority == "normal":
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _LOAD_NICENESS)
    except (AttributeError, OSError):
        return


class Priority:
    """The priority of this process's timed runs; make it before the model is loaded, use it as a context manager.

    The processes that hold other processors are forked at once and wait: a fork later would make the system copy the
    model's memory page by page as the runs write to it. Raises ProfileError if the system does not allow it.
    """

    def __init__(self, priority: str) -> None:
        self.priority = priority
        self._blockers: list[tuple[int, int]] = []  # process, pipe that starts it
        if priority == "exclusive":
            others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
            if not others:
                raise ProfileError("--priority exclusive needs --cpus, to know which processors to keep free")
            self._blockers = [_fork_blocker(cpu) for cpu in sorted(others)]

    def __enter__(self) -> Priority:
        if self.priority != "normal":
            _schedule_first()
        for _, start in self._blockers:
            os.write(start, b"!")
        if self._blockers:
            time.sleep(_SETTLE_S)
        return self

    def __exit__(self, *_: object) -> None:
        for process, start in self._blockers:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(start)
        self._blockers = []


def _schedule_first() -> None:
    """First-in-first-out scheduling for all threads of this process."""
    try:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):
        raise ProfileError("real-time priority is not allowed here; run as root on Linux or drop --priority") from None


def _fork_blocker(cpu: int) -> tuple[int, int]:
    """A process that, once a byte comes through the pipe, holds a processor until it is killed or its parent ends."""
    libc = ctypes.CDLL(None)
    lock = ctypes.c_int()
    libc.pthread_spin_init(ctypes.byref(lock), 0)
    libc.pthread_spin_lock(ctypes.byref(lock))
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(reader)
        return child, writer
    try:
        os.close(writer)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, {cpu})
        if os.read(reader, 1):  # the end of the pipe: the parent is gone
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            libc.pthread_spin_lock(ctypes.byref(lock))
    finally:
        os._exit(0)

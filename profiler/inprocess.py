"""One measurement in this process. `profiler.measure` runs it in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import sys
import time

from costmodel.errors import LedgCostError, ProfileError
from profiler.backends import check_precision, get_backend
from profiler.backends.base import Runner
from profiler.energy import EnergyMeter
from profiler.priority import GPU, Priority, hurry, sole_user
from profiler.reference import Reference
from profiler.request import Measurement, Request, quantile, variation
from profiler.timing import drift, half_width, time_runs, warm_up


def measure_here(request: Request) -> Measurement:
    """Opens, warms up, times and, if asked, measures each operator.

    Raises BackendUnavailableError, InputError, or ProfileError when the runtime refuses the model.
    """
    backend = get_backend(request.backend)
    check_precision(backend, request.precision)
    gpu = backend.on_gpu() and not request.tracker
    if not gpu:
        _pin(request.cpus)
    hurry(request.priority)
    priority = Priority(request.priority)
    before = resident_bytes()
    start = time.perf_counter()
    try:
        runner = backend.open(request)
        load_s = time.perf_counter() - start
        gc.collect()
        gc.disable()
        _return_free_memory()
        reset_peak()
    except LedgCostError:
        raise
    except Exception as error:
        raise _refusal(request, error) from None
    reference = Reference()
    with sole_user(GPU if gpu else ""):
        if gpu:
            _pin(request.cpus)
        try:
            warm_up(runner.run, request.seconds)
        except Exception as error:
            raise _refusal(request, error) from None
        flags = runner.flags if runner.finite() else (*runner.flags, "nonfinite")
        peak = peak_bytes()
        with priority:
            reference.sample()
            runner.run()
            meter = EnergyMeter() if gpu else None
            runs = time_runs(runner.run, request.seconds, reference.sample)
            energy = meter.millijoules() if meter else None
            reference.sample()
            operators = runner.operators() if runner.operators else ()
    times, preempted = runs.result(0 if gpu else request.threads)  # a GPU's work is no processor time
    if preempted:
        flags = (*flags, "preempted")
    ordered = sorted(times)
    return Measurement(
        latency_ms=statistics.median(ordered),
        p90_ms=quantile(ordered, 0.9),
        p99_ms=quantile(ordered, 0.99),
        cv=variation(ordered),
        half_width=half_width(ordered),
        drift=drift(times),
        repeats=len(times),
        runtime=backend.runtime(),
        precision=request.precision,
        batch=runner.batch,
        threads=request.threads,
        load_s=load_s,
        peak_memory_bytes=_peak(runner, gpu, peak - before if peak and before else 0),
        energy_mj=energy / len(runs.wall_ms) if energy is not None else None,
        operators=operators,
        flags=flags,
        reference_ms=reference.medians_ms,
    )


def _refusal(request: Request, error: Exception) -> ProfileError:
    """What to tell of an error of the runtime's own; runtimes raise what they like."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ProfileError(f"{request.label} does not fit into memory; measure it at a smaller batch")
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return ProfileError(f"{request.backend} cannot run {request.label} at {request.precision}: {text}")


def _peak(runner: Runner, gpu: bool, grown: int) -> int | None:
    """The GPU's memory where it computes, else by how much the process grew; None where that is unknown."""
    if runner.peak_bytes:
        return runner.peak_bytes()
    return None if gpu or grown <= 0 else grown


def _pin(cpus: tuple[int, ...]) -> None:
    if not cpus or not hasattr(os, "sched_setaffinity"):
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        allowed = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise ProfileError(f"cannot run on processors {cpus}; --cpus may name {allowed}") from None


def resident_bytes() -> int:
    """Memory of this process now; 0 where the system does not say."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most memory this process held since `reset_peak`, or ever where a reset is not possible."""
    found = _status("VmHWM")
    if found or sys.platform == "win32":
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _return_free_memory() -> None:
    """Gives what loading allocated and freed back to the system (glibc), so that it does not count as the network's."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def reset_peak() -> None:
    """Starts the high-water mark anew (Linux), so that it leaves out what loading needed."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return


def _status(key: str) -> int:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            line = next((line for line in file if line.startswith(key + ":")), "")
    except OSError:
        return 0
    return int(line.split()[1]) * 1024 if line else 0

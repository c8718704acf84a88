"""Runs a split network: one session per part, each on its provider and, if wanted, on a core of its own."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.errors import InputError
from costmodel.integrations.ort.providers import Provider, open_session

if TYPE_CHECKING:
    from onnx import ModelProto

Feeds = Mapping[str, np.ndarray]


@dataclass
class _Part:
    """An opened part. `tasks` brings (index, tensors) to its thread; the thread hands them on."""

    model: Any
    provider: Provider
    cpu: int | None
    tasks: queue.SimpleQueue[Any]
    session: Any = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    busy_ms: float = 0.0


class Pipeline:
    """Sessions of the parts of a plan, each in a thread of its own.

    `run` sends one input through all parts; `stream` keeps every part busy with another input. A tensor that a part
    only hands on is kept beside the parts, not copied through them. Use as a context manager, or `close`.
    """

    def __init__(
        self,
        parts: Sequence[str | os.PathLike[str] | bytes | ModelProto],
        providers: Sequence[Provider | str],
        outputs: Sequence[str],
        cpus: Sequence[int | None] | None = None,
        threads: int = 1,
    ) -> None:
        """Opens the sessions in their threads.

        parts      models in running order, as `costmodel.partition.split` makes them
        providers  one per part
        outputs    names of the whole network's results
        cpus       core that a part's thread is pinned to; default: not pinned
        threads    per session

        Raises BackendUnavailableError if a provider is not here.
        """
        if not len(parts) == len(providers) == len(cpus or parts):
            raise InputError(f"{len(parts)} parts need as many providers and cores; give one for each")
        self._outputs = tuple(outputs)
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._parts = [
            _Part(part, Provider.parse(p) if isinstance(p, str) else p, cpu, queue.SimpleQueue())
            for part, p, cpu in zip(parts, providers, cpus or [None] * len(parts), strict=True)
        ]
        self._threads = []
        for i, part in enumerate(self._parts):
            after = self._parts[i + 1].tasks if i + 1 < len(self._parts) else self._results
            thread = threading.Thread(target=self._work, args=(part, after, threads), daemon=True)
            thread.start()
            self._threads.append(thread)
            opened = self._results.get()
            if isinstance(opened, BaseException):
                self.close()
                raise opened

    @property
    def sessions(self) -> list[Any]:
        """The parts' `onnxruntime.InferenceSession`s."""
        return [part.session for part in self._parts]

    def run(self, feeds: Feeds) -> list[np.ndarray]:
        """Results for one input."""
        return next(self.stream([feeds]))

    def stream(self, feeds: Iterable[Feeds], ahead: int | None = None) -> Iterator[list[np.ndarray]]:
        """Results in order; at most `ahead` inputs are under way, by default two more than there are parts."""
        room = ahead if ahead is not None else len(self._parts) + 2
        under_way = 0
        try:
            for one in feeds:
                if under_way >= room:
                    under_way -= 1
                    yield self._next()
                self._parts[0].tasks.put(dict(one))
                under_way += 1
            while under_way:
                under_way -= 1
                yield self._next()
        finally:
            for _ in range(under_way):  # given up half-way, or failed: nothing stays in the queues
                self._results.get()

    def busy_ms(self) -> list[float]:
        """Milliseconds that each part computed in its last run."""
        return [part.busy_ms for part in self._parts]

    def close(self) -> None:
        """Ends the threads."""
        for part in self._parts:
            part.tasks.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self) -> list[np.ndarray]:
        known = self._results.get()
        if isinstance(known, BaseException):
            raise known
        return [known[name] for name in self._outputs]

    def _work(self, part: _Part, after: queue.SimpleQueue[Any], threads: int) -> None:
        try:
            if part.cpu is not None and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, {part.cpu})  # of this thread; the provider's own threads inherit it
            part.session = open_session(part.model, part.provider, threads)
            part.inputs = tuple(i.name for i in part.session.get_inputs())
            part.outputs = tuple(o.name for o in part.session.get_outputs())
        except Exception as error:
            self._results.put(error)
            return
        self._results.put(part)
        while (known := part.tasks.get()) is not None:
            if not isinstance(known, BaseException):
                known = _advance(part, known)
            after.put(known)


def open_plan(
    folder: str | os.PathLike[str],
    providers: Sequence[Provider | str],
    cpus: Sequence[int | None] | None = None,
    threads: int = 1,
) -> Pipeline:
    """The pipeline of a folder that `ledg-cost partition --split` wrote.

    providers, cpus   one per platform of the plan, in its order

    Raises InputError if the folder holds no plan, BackendUnavailableError if a provider is not here.
    """
    place = Path(folder)
    try:
        record = json.loads((place / "plan.json").read_text())
        files = [str(place / name) for name in record["files"]]
        devices, outputs, count = (
            [part["device"] for part in record["parts"]],
            record["outputs"],
            len(record["platforms"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{place}' holds no plan ({type(error).__name__}); write one with `ledg-cost partition MODEL --split DIR`"
        ) from error
    if len(providers) != count or (cpus is not None and len(cpus) != count):
        raise InputError(f"the plan has {count} platforms; give a provider, and a core if any, for each")
    pinned = [cpus[d] for d in devices] if cpus is not None else None
    return Pipeline(files, [providers[d] for d in devices], outputs, pinned, threads)


def _advance(part: _Part, known: dict[str, np.ndarray]) -> dict[str, np.ndarray] | Exception:
    """The tensors known after the part has run, or what went wrong."""
    start = time.perf_counter()
    try:
        made = part.session.run(part.outputs, {name: known[name] for name in part.inputs})
    except KeyError as error:
        return InputError(f"nothing feeds input {error}; hand in all inputs of the network")
    except Exception as error:  # onnxruntime raises plain Exceptions; they belong to the caller's thread
        return error
    part.busy_ms = (time.perf_counter() - start) * 1e3
    return {**known, **dict(zip(part.outputs, made, strict=True))}

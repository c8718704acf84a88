"""The driver of a ranking: chunks of models to the processes, answers to the journal, and the order at the end."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from costmodel.errors import InputError
from costmodel.ranking.journal import Journal, journal_of
from costmodel.ranking.work import Answer, Settings, answer, one_line

CHUNK = 32
"""Models that a process takes at a time."""
AHEAD = 3
"""Chunks handed out per process, so that a stream is read no faster than it is answered."""

Say = Callable[[int, int], None]


@dataclass(frozen=True)
class Ranking:
    """Models in the order they were named, with their answers."""

    settings: Settings
    models: Sequence[tuple[str, Answer]]

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(model, why) of every model that has no answer."""
        return [(name, a.error) for name, a in self.models if a.error]

    def order(self, platform: int = 0) -> list[tuple[str, Answer]]:
        """Models with an answer, fastest first on the platform of that position; of equals, the one named first."""
        return sorted((m for m in self.models if not m[1].error), key=lambda m: m[1].latency_ms[platform])


def rank(
    names: Iterable[str],
    settings: Settings,
    jobs: int = 1,
    out: Path | None = None,
    say: Say = lambda done, failed: None,
) -> Ranking:
    """Answers every model; those that cannot be read become failures.

    names  model paths and architecture strings, read as they are needed
    out    the file that the result will go to: answers are kept beside it meanwhile, and a run that was stopped goes on
           with them; `journal_of(out)` may be deleted once the result is written
    say    told how many models have been read so far and how many of them failed

    Raises InputError if no model was named or a process died, DataError if the kept answers are of other settings.
    """
    models: list[tuple[str, str]] = []
    failed = 0
    with Journal(journal_of(out), settings) if out else nullcontext() as journal:
        answers = dict(journal.answers) if journal else {}
        fresh = _fresh(names, settings, models, answers)
        for found in _work(_chunks(fresh), settings, jobs):
            answers.update(found)
            if journal:
                journal.add(found)
            failed += sum(bool(a.error) for a in found.values())
            say(len(models), failed)
    if not models:
        raise InputError("no models to rank; name model files, folders, lists or architectures such as 'nb201/…'")
    return Ranking(settings, [(name, answers[key]) for name, key in models])


def _fresh(
    names: Iterable[str], settings: Settings, models: list[tuple[str, str]], answers: dict[str, Answer]
) -> Iterator[str]:
    """Keys that have no answer yet, each once; `models` collects every name with its key, in order."""
    seen = set(answers)
    for name in names:
        try:
            key = settings.key(name)
        except InputError as error:
            key = name
            answers[key] = Answer(error=one_line(error))
            seen.add(key)
        models.append((name, key))
        if key not in seen:
            seen.add(key)
            yield key


def _chunks(keys: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(keys, CHUNK)):
        yield chunk


def _work(chunks: Iterator[list[str]], settings: Settings, jobs: int) -> Iterator[Mapping[str, Answer]]:
    """Answers per chunk, as they come. One chunk is not worth a second process."""
    first = list(islice(chunks, 2))
    if jobs <= 1 or len(first) < 2:
        for chunk in chain(first, chunks):
            yield dict(zip(chunk, answer(settings, chunk), strict=True))
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start, (settings,))
    running: dict[Future[list[Answer]], list[str]] = {}
    try:
        for chunk in chain(first, chunks):
            running[pool.submit(_task, chunk)] = chunk
            if len(running) >= AHEAD * jobs:
                yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool as error:
        raise InputError(
            "a process died while it read models, perhaps out of memory; try --jobs 1, or leave the largest models out"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(running: dict[Future[list[Answer]], list[str]]) -> Iterator[Mapping[str, Answer]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield dict(zip(running.pop(future), future.result(), strict=True))


_settings: Settings


def _start(settings: Settings) -> None:
    """Makes a process ready; an interrupt is the parent's to handle."""
    global _settings
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _settings = settings


def _task(chunk: list[str]) -> list[Answer]:
    return answer(_settings, chunk)

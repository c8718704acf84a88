"""`ledg-cost profile`: measure models on this machine into the sample store."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costmodel.api import load_graph
from costmodel.cli.options import batches, model_options, shapes, with_options, words
from costmodel.cli.sources import Source, sources_of
from costmodel.errors import BackendUnavailableError, LedgCostError, PlatformError, ProfileError
from costmodel.ir import Graph
from costmodel.platforms import Platform, Precision, load_device, resolve, user_directory
from costmodel.samples import Sample, SampleStore, default_store
from costmodel.tables import ms, table

if TYPE_CHECKING:
    from profiler.backends import Backend
    from profiler.request import Request

MOST_ROWS = 10


@dataclass
class Tally:
    """What became of each setting of each model."""

    measured: list[Sample] = field(default_factory=list)
    skipped: int = 0
    failed: list[tuple[str, LedgCostError]] = field(default_factory=list)

    @property
    def done(self) -> int:
        return len(self.measured) + self.skipped + len(self.failed)


@click.command("profile")
@click.argument("models", nargs=-1, metavar="[MODEL…]")
@click.option(
    "--list",
    "lists",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="A model per line: a file, gen/FAMILY/SEED, or NAME<tab>FILE.",
)
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="F:COUNT|F:FIRST-LAST",
    help="Generated networks of a family: resnet:150 is seeds 0 to 149.",
)
@click.option(
    "--select",
    "select",
    type=click.IntRange(1),
    metavar="N",
    help="Only the N models that teach most; of 20 of each family where none are given.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="B[,…]",
    help="onnxruntime (default), openvino, cuda, tensorrt, directml, torch, torch-compile, tvm.",
)
@click.option(
    "--precision", "-p", "precisions", multiple=True, metavar="P[,…]", help="fp32 (default), fp16, bf16, int8."
)
@click.option(
    "--batch", "-b", "batch", multiple=True, metavar="N[,…]", help="Batch sizes; default: 1, or the model's own."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads inside operators.")
@click.option("--cpus", metavar="N[,N-M…]", help="Processors that measuring stays on.")
@click.option(
    "--priority",
    type=click.Choice(["normal", "realtime", "exclusive"]),
    default="normal",
    show_default=True,
    help="Keep other programs off the processor, or off all, while runs are timed (root).",
)
@click.option(
    "--as",
    "device",
    default="mine",
    show_default=True,
    metavar="NAME",
    help="The device; a spec sheet of this machine is written if there is none of that name.",
)
@click.option("--store", type=click.Path(), help="Sample store; default: the user's.")
@click.option("--seconds", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Budget of timed runs.")
@click.option(
    "--timeout",
    type=click.FloatRange(1.0),
    default=300.0,
    show_default=True,
    help="Seconds after which a measurement is given up.",
)
@click.option(
    "--attempts", type=click.IntRange(1), default=3, show_default=True, help="Measurements of a noisy one at most."
)
@click.option("--operators", is_flag=True, help="Also measure each operator.")
@click.option("--again", is_flag=True, help="Measure also what the store holds.")
@click.option("--tracker", default="", metavar="HOST:PORT", help="TVM RPC tracker of another device.")
@click.option("--key", default="", help="The device's key at the tracker.")
@with_options(model_options)
def command(
    models: tuple[str, ...], lists: tuple[str, ...], families: tuple[str, ...], select: int | None,
    backends: tuple[str, ...], precisions: tuple[str, ...], batch: tuple[str, ...], threads: int, cpus: str | None,
    priority: str, device: str, store: str | None, seconds: float, timeout: float, attempts: int, operators: bool,
    again: bool,
    tracker: str, key: str, shape: tuple[str, ...], strict: bool,
) -> None:  # fmt: skip
    """Measure MODELs (files, or generated ones such as gen/resnet/17) on this machine.

    Weights that a file lacks are made up. Each measurement runs in a process of its own; what the store already holds
    is not measured again, so an interrupted command continues where it stopped.
    """
    from profiler.backends import get_backend
    from profiler.request import Request

    settings = _settings([get_backend(name) for name in words(backends) or ["onnxruntime"]], words(precisions))
    sizes = batches(batch)
    bound = shapes(shape)
    sources = sources_of(models, lists, families, select)
    base = Request(
        "", threads=threads, shapes=bound, cpus=_processors(cpus), seconds=seconds, timeout_s=timeout,
        operators=operators, priority=priority, tracker=tracker, key=key,
    )  # fmt: skip
    _ensure_device(device, base, settings)
    if select:
        backend, precision = settings[0]
        sources = _selected(sources, select, sizes[0], bound, resolve(device, precision, backend.runtime()))
    tally = Tally()
    with SampleStore(store) as samples:
        plan = _Plan(sources, settings, sizes, base, device, attempts, again, strict)
        try:
            plan.carry_out(samples, tally)
        finally:
            click.echo("\n".join(_report(tally, plan.total, device, Path(store) if store else default_store())))
    if tally.failed and len(tally.failed) == tally.done:
        raise tally.failed[0][1]


Setting = tuple["Backend", str]


def _settings(backends: Sequence[Backend], precisions: Sequence[str]) -> list[Setting]:
    """Backends with each precision. Raises ProfileError for a precision that no backend here can do."""
    wanted = [Precision.parse(p).value for p in precisions] or ["fp32"]
    found = [(b, p) for b in backends for p in wanted if p in b.precisions()]
    for p in wanted:
        if not any(p == able for _, able in found):
            could = ", ".join(f"{b.name}: {' '.join(b.precisions())}" for b in backends)
            raise ProfileError(f"no chosen backend computes in {p} on this machine ({could}); choose another precision")
    return found


def _processors(text: str | None) -> tuple[int, ...]:
    """Processor numbers of "1" or "0,2-3". Raises click.BadParameter."""
    found: list[int] = []
    for word in words([text or ""]):
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise click.BadParameter(f"{word!r} is no processor; write --cpus 1 or --cpus 0,2-3")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _selected(sources: list[Source], count: int, batch: int | None, bound: Any, platform: Platform) -> list[Source]:
    """The sources whose measurements teach most of a platform, by the released model."""
    from costmodel import predictor
    from costmodel.finetune.fit import read_graphs
    from profiler.selector import positions, select

    if count >= len(sources):
        return sources
    graphs = []
    for i, source in enumerate(sources):
        _progress(f"[{i + 1}/{len(sources)}] reading {source.name}", last=i + 1 == len(sources))
        graphs.append(load_graph(source.content(), batch, bound))
    some = [i for i, graph in enumerate(graphs) if graph.nodes]
    r = read_graphs(predictor.load(), [graphs[i] for i in some], platform)
    places = positions(r.log_ms, r.shares, r.node_ms, r.times, r.start)
    return [sources[some[i]] for i in select(r.vectors, places, count)]


def _ensure_device(name: str, base: Request, settings: Sequence[Setting]) -> None:
    """Writes a spec sheet of this machine as `name` unless there is one.

    Raises PlatformError if the sheet there is of another number of threads.
    """
    from profiler.spec import device_from_system

    gpu = any(b.on_gpu() for b, _ in settings)
    own = user_directory() / f"{name}.toml"
    if not own.exists():
        try:
            load_device(name)
        except PlatformError:
            if base.tracker:
                raise PlatformError(
                    f"device {name!r} has no spec sheet and is not this machine; add one with `ledg-cost devices add`"
                ) from None
            device_from_system(name, base.threads, gpu)
            click.echo(f"wrote this machine's spec sheet as {name}; see `ledg-cost devices show {name}`", err=True)
        return
    device = load_device(name)
    if (
        device.kind == "cpu"
        and not base.tracker
        and device.cores != base.threads
        and "read from the system" in device.source
    ):
        raise PlatformError(
            f"device {name!r} was described for {device.cores} threads and --threads is {base.threads};"
            f" use another --as, such as {name}-{base.threads}t"
        )


@dataclass
class _Plan:
    """Every setting of every model, in order."""

    sources: Sequence[Source]
    settings: Sequence[Setting]
    sizes: Sequence[int | None]
    base: Request
    device: str
    attempts: int
    again: bool
    strict: bool

    @property
    def total(self) -> int:
        return len(self.sources) * len(self.settings) * len(self.sizes)

    def carry_out(self, store: SampleStore, tally: Tally) -> None:
        """Measures what the store lacks and adds it at once; a failure is told and the rest goes on."""
        from profiler.campaign import Campaign
        from profiler.environment import environment

        facts = environment(self.base.threads, self.base.cpus, self.base.priority)
        known = set() if self.again else self._known(store)
        pace = _Pace(self.total)
        with Campaign(self.attempts) as campaign:
            for source, size in itertools.product(self.sources, self.sizes):
                try:
                    content = source.content()
                    graph = load_graph(content, size, self.base.shapes, self.strict)
                except LedgCostError as error:
                    tally.failed += [(source.name, error)] * len(self.settings)
                    _progress(f"{source.name}: {error}", last=True)
                    continue
                batch = _batch(graph)
                for backend, precision in self.settings:
                    key = (graph.fingerprint, precision, backend.runtime(), batch)
                    if key in known:
                        tally.skipped += 1
                        continue
                    label = f"{source.name} {backend.name} {precision} batch {batch}"
                    _progress(f"[{tally.done + 1}/{self.total}] {label} …{pace.left(tally.done)}")
                    outcome = self._one(campaign, content, graph, source, (backend, precision), size, facts, store)
                    pace.add()
                    if isinstance(outcome, Sample):
                        known.add(key)
                        tally.measured.append(outcome)
                        note = f"{ms(outcome.latency_ms)}{''.join(f', {flag}' for flag in outcome.flags)}"
                    else:
                        tally.failed.append((label, outcome))
                        note = f"failed: {outcome}"
                    _progress(f"[{tally.done}/{self.total}] {label}: {note}{pace.left(tally.done)}", last=True)

    def _known(self, store: SampleStore) -> set[tuple[str, str, str, int]]:
        found = set()
        for runtime in {backend.runtime() for backend, _ in self.settings}:
            for s in store.query(device=self.device, runtime=runtime):
                found.add((s.fingerprint, s.precision, s.runtime, s.batch))
        return found

    def _one(
        self, campaign: Any, content: str | bytes, graph: Graph, source: Source, setting: Setting, size: int | None,
        facts: dict[str, Any], store: SampleStore,
    ) -> Sample | LedgCostError:  # fmt: skip
        """The stored sample, or why there is none. Earlier ones that it shows to have been too slow are flagged."""
        from dataclasses import replace

        from profiler.campaign import AGREE, FASTER

        backend, precision = setting
        request = replace(
            self.base, model=content, name=source.name, backend=backend.name, precision=precision, batch=size
        )
        earlier = [
            s
            for s in store.query(self.device, precision, backend.runtime(), graph.fingerprint, _batch(graph))
            if "noisy" not in s.flags and s.environment.get("threads") == self.base.threads
        ]
        try:
            found = campaign.measure(request, [s.latency_ms for s in earlier])
        except BackendUnavailableError:
            raise
        except LedgCostError as error:
            return error
        sample: Sample = found.to_sample(graph.fingerprint, source.name, self.device, facts)
        store.add(sample, graph)
        slower = [s for s in earlier if s.latency_ms > sample.latency_ms * (1 + AGREE)]
        if slower and "noisy" not in sample.flags:
            store.flag(slower, "noisy", FASTER)
        return sample


def _batch(graph: Graph) -> int:
    """The leading size of the first input, as measurements have it."""
    shape = graph.tensors[graph.inputs[0]].shape if graph.inputs else ()
    return shape[0] if shape else 1


class _Pace:
    """Time left, from the time per measurement so far; what was skipped costs none."""

    def __init__(self, total: int) -> None:
        self.total, self.count, self.begin = total, 0, time.monotonic()

    def add(self) -> None:
        self.count += 1

    def left(self, done: int) -> str:
        """ ", 12 min left", empty before the first measurement and at the end."""
        seconds = (self.total - done) * (time.monotonic() - self.begin) / self.count if self.count else 0.0
        if seconds <= 0:
            return ""
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"


def _progress(text: str, last: bool = False) -> None:
    """On a terminal one line that is rewritten; elsewhere only final lines."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text[:160]}", err=True, nl=last)
    elif last:
        click.echo(text, err=True)


def _report(tally: Tally, total: int, device: str, store: Path) -> list[str]:
    """At most 15 lines."""
    lines = []
    if tally.measured:
        heads = ["model", "precision", "runtime", "batch", "median", "p90", "cv", "repeats", "flags"]
        shown = tally.measured[:MOST_ROWS]
        rows = [
            [s.name, s.precision, s.runtime, str(s.batch), ms(s.latency_ms), ms(s.p90_ms or 0), f"{s.cv or 0:.1%}",
             str(s.repeats), " ".join(s.flags)]
            for s in shown
        ]  # fmt: skip
        lines = table(heads, rows)
        if len(tally.measured) > MOST_ROWS:
            noisy = sum("noisy" in s.flags for s in tally.measured)
            lines.append(f"… {len(tally.measured) - MOST_ROWS} more; {noisy} of all noisy")
    counts = f"{len(tally.measured)} measured, {tally.skipped} already there, {len(tally.failed)} failed"
    rest = total - tally.done
    lines.append(f"{counts}{f', {rest} not reached' if rest else ''}; samples of device {device} are in {store}")
    return lines

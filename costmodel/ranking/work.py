"""What one process of a ranking does: reads a chunk of models and answers them in packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from costmodel import corpora
from costmodel.errors import LedgCostError
from costmodel.ir import Graph
from costmodel.platforms import Platform
from costmodel.predictor import LeDGFormerModel, load
from costmodel.ranking.inputs import is_architecture

PACK_NODES = 6000
"""Nodes encoded in one run of the graph network."""

Shapes = Mapping[str, "int | tuple[int, ...]"]
LoadGraph = Callable[[str, "int | None", Shapes, bool], Graph]


@dataclass(frozen=True)
class Answer:
    """Latency in ms on each platform, or the line that says why there is none."""

    latency_ms: tuple[float, ...] = ()
    flops: float = 0.0
    params: int = 0
    nodes: int = 0
    coverage: float = 0.0
    error: str = ""

    def as_record(self) -> dict[str, Any]:
        """Only what there is."""
        return {"error": self.error} if self.error else {k: v for k, v in asdict(self).items() if k != "error"}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Answer:
        """The inverse of `as_record`."""
        return cls(**{**record, "latency_ms": tuple(record.get("latency_ms", ()))})


@dataclass(frozen=True)
class Settings:
    """What the answers of a ranking depend on besides the models.

    load    reads a model file, given batch, shapes and strict; a function of a module, since processes share it
    batch   of every network; None takes a model's own, or 1
    shapes, strict  as for `costmodel.load_graph`
    bundle  folder of the cost model; None for the released one
    """

    platforms: tuple[Platform, ...]
    load: LoadGraph
    batch: int | None = None
    shapes: Shapes = field(default_factory=dict)
    strict: bool = False
    bundle: str | None = None

    @cached_property
    def folds(self) -> tuple[bool, ...]:
        """Per platform, whether it runs search-space networks as compilers leave them."""
        return tuple(corpora.runs_folded(p.device.name, p.runtime) for p in self.platforms)

    def key(self, name: str) -> str:
        """Names with one key have one answer on all platforms."""
        if is_architecture(name) and all(self.folds):
            return corpora.fold(name)
        return name

    def cost_model(self) -> LeDGFormerModel:
        """The model of the bundle, read once per process."""
        return load(self.bundle) if self.bundle else load()


def answer(settings: Settings, names: Sequence[str]) -> list[Answer]:
    """One answer per name, in order. A model that cannot be read or answered becomes an answer with an error."""
    found = [Answer()] * len(names)
    waiting: dict[tuple[int, ...], list[tuple[int, Graph]]] = {}
    for i, name in enumerate(names):
        try:
            for graph, platforms in _graphs(settings, name):
                waiting.setdefault(platforms, []).append((i, graph))
        except Exception as error:  # any fault of one model is that model's alone
            found[i] = Answer(error=one_line(error))
    for platforms, graphs in waiting.items():
        for pack in _packs(graphs):
            for i, part in _answer_pack(settings, platforms, pack):
                found[i] = _merge(found[i], part, platforms, len(settings.platforms))
    return found


def one_line(error: Exception) -> str:
    """An error as one line; of one that was not expected, with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, LedgCostError) else f"{type(error).__name__}: {text}"


def _graphs(settings: Settings, name: str) -> Iterator[tuple[Graph, tuple[int, ...]]]:
    """The graphs of a model with the platforms (positions) that each is for: search-space networks may have two."""
    everywhere = tuple(range(len(settings.platforms)))
    if not is_architecture(name):
        yield settings.load(name, settings.batch, settings.shapes, settings.strict), everywhere
        return
    for folded in sorted(set(settings.folds)):
        here = tuple(i for i in everywhere if settings.folds[i] is folded)
        yield corpora.build(name, settings.batch or 1, folded), here


def _packs(graphs: Sequence[tuple[int, Graph]]) -> Iterator[list[tuple[int, Graph]]]:
    pack: list[tuple[int, Graph]] = []
    size = 0
    for i, graph in graphs:
        if pack and size + len(graph) > PACK_NODES:
            yield pack
            pack, size = [], 0
        pack.append((i, graph))
        size += len(graph)
    if pack:
        yield pack


def _answer_pack(
    settings: Settings, platforms: tuple[int, ...], pack: Sequence[tuple[int, Graph]]
) -> list[tuple[int, Answer]]:
    """Answers of a pack; where it fails as a whole, of each of its models alone."""
    model, chosen = settings.cost_model(), [settings.platforms[k] for k in platforms]
    try:
        encoded = model.encode_many([graph for _, graph in pack], chosen)
        latency = model.latencies(encoded, chosen)
    except Exception as error:
        if len(pack) > 1:
            return [found for one in pack for found in _answer_pack(settings, platforms, [one])]
        return [(pack[0][0], Answer(error=one_line(error)))]
    found = []
    for (i, graph), e, row in zip(pack, encoded, latency, strict=True):
        analysis = e.prepared.analysis
        found.append(
            (i, Answer(tuple(map(float, row)), analysis.flops, analysis.params, len(graph), analysis.coverage))
        )
    return found


def _merge(known: Answer, part: Answer, platforms: tuple[int, ...], count: int) -> Answer:
    """Puts a part's latencies in their places; counts are those of the first graph, an error is the whole's."""
    if known.error or part.error:
        return known if known.error else part
    latency = list(known.latency_ms or [0.0] * count)
    for place, ms in zip(platforms, part.latency_ms, strict=True):
        latency[place] = ms
    return replace(known if known.nodes else part, latency_ms=tuple(latency))

"""What a backend is: something that opens a model and runs it."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx

from profiler.request import Request

Operators = tuple[tuple[str, float], ...]


@dataclass
class Runner:
    """An opened model.

    run         one forward pass of the whole batch; returns when the results are there
    batch       leading size of the first input
    finite      whether the last results are all finite
    operators   per-operator milliseconds of a forward pass, as (node name, ms) in the order they ran; None if the
                runtime does not tell
    flags       remarks for the sample
    peak_bytes  most memory of the GPU held so far; None if the runtime does not tell, or runs on the CPU
    """

    run: Callable[[], None]
    batch: int
    finite: Callable[[], bool]
    operators: Callable[[], Operators] | None = None
    flags: tuple[str, ...] = field(default=())
    peak_bytes: Callable[[], int] | None = None


class Backend(Protocol):
    """One runtime on one kind of device."""

    name: str
    preload: tuple[str, ...]
    """Modules worth importing before processes are forked."""

    def missing(self) -> str | None:
        """None if it can run here, else one line that names what to install."""

    def runtime(self) -> str:
        """`costmodel.platforms` runtime with its version: "onnxruntime-1.32.0"."""

    def precisions(self) -> tuple[str, ...]:
        """What it can compute in on this machine."""

    def on_gpu(self) -> bool:
        """Whether it computes on this machine's GPU."""

    def open(self, request: Request) -> Runner:
        """Loads, prepares and compiles the request's model."""


def processor() -> str:
    """ "x86_64" or "arm64" or what else the machine calls itself."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(machine, machine)


def leading(feeds: Mapping[str, np.ndarray]) -> int:
    """Size of the first input's first axis: the batch."""
    first = next(iter(feeds.values()), np.empty(0))
    return int(first.shape[0]) if first.ndim else 1


def all_finite(results: Iterable[Any]) -> bool:
    """Whether no float among arrays is infinite or not a number."""
    return all(bool(np.isfinite(r).all()) for r in results if isinstance(r, np.ndarray) and r.dtype.kind == "f")


_ADDED = re.compile(r"(_nchwc|_token_\d+|/WithoutBiases|_quant|_fusedconv|_original)+$")


class NodeNames:
    """Finds, for what runtimes call their fused and converted operators, the node of the model that it stands for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._names = {node.name for node in model.graph.node if node.name}
        self._producers = {out: node.name for node in model.graph.node if node.name for out in node.output}

    def find(self, name: str) -> str:
        """The node of that name, else the one that makes the tensor of that name, else the longest that it ends with;
        the name itself where there is none."""
        plain = _ADDED.sub("", name)
        for text in (name, plain):
            if text in self._names:
                return text
            if text in self._producers:
                return self._producers[text]
        ending = [known for known in (*self._names, *self._producers) if plain.endswith(known)]
        longest = max(ending, key=len, default=name)
        return self._producers.get(longest, longest)

    def combine(self, times: Iterable[tuple[str, float]]) -> Operators:
        """Times by node, those of one node added, in order."""
        found: dict[str, float] = {}
        for name, ms in times:
            node = self.find(name)
            found[node] = found.get(node, 0.0) + ms
        return tuple(found.items())

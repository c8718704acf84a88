"""Networks and operators that public measurements are about, rebuilt as graphs from their names."""

from __future__ import annotations

from collections.abc import Callable

from costmodel.corpora import anb, fbnet, nb101, nb201, ofa
from costmodel.errors import InputError
from costmodel.ir import Graph

__all__ = ["build", "can_build", "fold", "runs_folded"]

_BUILDERS: dict[str, Callable[[str, int], Graph]] = {
    "nb201": nb201.build,
    "fbnet": fbnet.build,
    "ofa_mbv3": ofa.build,
    "anb_effnet": anb.build,
    "nb101": nb101.build,
}

# HW-NAS-Bench's TFLite measurements: six zero edges take microseconds there (see nb201).
_FOLDING_DEVICES = frozenset(("pixel3", "raspi4"))
_INTERPRETED = ("pytorch-eager", "unknown")


def can_build(name: str) -> bool:
    """Whether `build` knows the search space that a graph's name begins with."""
    return name.partition("/")[0] in _BUILDERS


def build(name: str, batch: int = 1, folded: bool = False) -> Graph:
    """The network named `nb201/…`, `fbnet/…`, `ofa_mbv3/…`, `anb_effnet/…` or `nb101/…`, sized as in the published
    measurements.

    `folded` gives NAS-Bench-201 networks as compilers leave them; it changes no other. Raises InputError.
    """
    space, _, arch = name.partition("/")
    if space not in _BUILDERS:
        raise InputError(f"no network builder for '{name}'; use a name that begins with {', '.join(_BUILDERS)}")
    return nb201.build(arch, batch, folded) if space == "nb201" else _BUILDERS[space](arch, batch)


def fold(name: str) -> str:
    """The name of a network that has the same folded form, the same one for all that share it. Raises InputError."""
    space, _, arch = name.partition("/")
    return f"nb201/{nb201.fold(arch)}" if space == "nb201" else name


def runs_folded(device: str, runtime: str) -> bool:
    """Whether what was measured on that device and runtime is the folded form of a NAS-Bench-201 network.

    Compilers drop zeros and dead branches, eager runs do not. HELP's phones of unnamed runtime run them too, all but
    the two devices of HW-NAS-Bench.
    """
    return device in _FOLDING_DEVICES or not runtime.startswith(_INTERPRETED)

"""Where the time of an estimate goes: by kernel and by kind of operator."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from costmodel.estimates import Estimate, OperatorCost


@dataclass(frozen=True)
class Part:
    """Some operators of an estimate together.

    name   of the operator with the most arithmetic among them
    kinds  how many there are of each operator, in order of first occurrence
    limit  what binds most of their time: compute, memory or launch
    """

    name: str
    kinds: dict[str, int]
    latency_ms: float
    share: float
    flops: float
    limit: str

    def words(self, most: int) -> str:
        """`Conv + BatchNormalization + 2 Relu`, at most so many kinds."""
        kinds = [f"{count} {op}" if count > 1 else op for op, count in self.kinds.items()]
        return " + ".join(kinds[:most]) + (f" + {len(kinds) - most} more" if len(kinds) > most else "")


def by_group(estimate: Estimate) -> list[Part]:
    """One part per fusion group (one per node where nothing is fused), costliest first."""
    return _parts(estimate.operators, lambda o: o.group)


def by_kind(estimate: Estimate) -> list[Part]:
    """One part per operator name, costliest first."""
    return _parts(estimate.operators, lambda o: o.op)


def _parts(operators: Iterable[OperatorCost], key: Callable[[OperatorCost], Hashable]) -> list[Part]:
    members: dict[Hashable, list[OperatorCost]] = {}
    for operator in operators:
        members.setdefault(key(operator), []).append(operator)
    return sorted(map(_part, members.values()), key=lambda part: -part.latency_ms)


def _part(members: list[OperatorCost]) -> Part:
    kinds: dict[str, int] = {}
    limits: dict[str, float] = {}
    for o in members:
        kinds[o.op] = kinds.get(o.op, 0) + 1
        limits[o.limit] = limits.get(o.limit, 0.0) + o.latency_ms
    return Part(
        max(members, key=lambda o: o.flops).name, kinds, sum(o.latency_ms for o in members),
        sum(o.share for o in members), sum(o.flops for o in members), max(limits, key=lambda name: limits[name]),
    )  # fmt: skip

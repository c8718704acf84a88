from __future__ import annotations

import pytest

from costmodel.breakdown import by_group, by_kind
from costmodel.estimates import Estimate, OperatorCost


def estimate(*operators: OperatorCost) -> Estimate:
    total = sum(o.latency_ms for o in operators)
    return Estimate(
        "t4", "fp32", "tensorrt", 1, total, (total, total), "roofline", 1.0, 0.0, 0.0, 0, 0, (), operators
    )  # fmt: skip


OPERATORS = (
    OperatorCost("c1", "Conv", 2.0, 0.2, 100.0, "compute", 0),
    OperatorCost("r1", "Relu", 1.0, 0.1, 1.0, "memory", 0),
    OperatorCost("r2", "Relu", 3.0, 0.3, 1.0, "memory", 0),
    OperatorCost("c2", "Conv", 4.0, 0.4, 90.0, "compute", 1),
)


def test_groups_are_named_by_their_work_and_bound_by_most_of_their_time() -> None:
    first, second = by_group(estimate(*OPERATORS))
    assert (first.name, first.limit, first.kinds) == ("c1", "memory", {"Conv": 1, "Relu": 2})
    assert (first.latency_ms, first.flops) == (6.0, 102.0)
    assert (second.name, second.latency_ms, second.share) == ("c2", 4.0, 0.4)


def test_kinds_add_up_costliest_first() -> None:
    parts = by_kind(estimate(*OPERATORS))
    assert [(p.kinds, p.latency_ms) for p in parts] == [({"Conv": 2}, 6.0), ({"Relu": 2}, 4.0)]
    assert sum(p.share for p in parts) == pytest.approx(1)


def test_words_are_short() -> None:
    (part,) = by_group(estimate(*(OperatorCost("n", op, 1, 0.1, 0, "launch", 0) for op in ("A", "B", "B", "C", "D"))))
    assert part.words(4) == "A + 2 B + C + D"
    assert part.words(2) == "A + 2 B + 2 more"


def test_nothing_has_no_parts() -> None:
    assert by_group(estimate()) == []

"""The partition check's own prices and enumeration, on a graph small enough to reckon by hand."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.ir import GraphBuilder
from costmodel.partition import Link
from costmodel.partition.problem import Flow, Problem
from costmodel.platforms import resolve
from tools.check_partition import every_cut, found_cut, price


def three_units() -> Problem:
    """0 → 1 → 2 and 0 → 2; 1000 bytes take 1 ms, each tensor another 1 ms."""
    b = GraphBuilder()
    b.input((1,))
    return Problem(
        b.build([b.inputs[0]]), (resolve("t4"), resolve("p4")), Link("l", 0.001, 1000.0), ((0,), (1,), (2,)),
        np.array([[1.0, 9.0, 1.0], [9.0, 1.0, 2.0]]), (((("w", 10),), (), (("w", 10),)),) * 2,
        np.array([[5.0, 7.0, 6.0]] * 2), np.array([[0.0, 0.0, 1.0]] * 2), np.array([100.0, 100.0]),
        (Flow("a", 1000, 0, (1, 2)), Flow("b", 0, 1, (2,))), frozenset(),
    )  # fmt: skip


def test_prices_by_hand() -> None:
    problem = three_units()
    latency, bottleneck, share = price(problem, (0, 1, 1), [problem.flows[0]])
    assert (latency, bottleneck) == (pytest.approx(1 + 3 + 2), pytest.approx(3.0))
    assert share == pytest.approx((10 + 7 + 1) / 100)  # the second part: w, the most alive, its result


def test_enumeration_and_programme_agree_with_the_hand() -> None:
    problem = three_units()
    best = every_cut(problem)
    assert best["latency"] == pytest.approx(6.0)
    assert best["throughput"] == pytest.approx(3.0)
    assert found_cut(problem) == pytest.approx(best)

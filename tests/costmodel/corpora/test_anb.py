from __future__ import annotations

import pytest

from costmodel.analysis import analyze
from costmodel.corpora import anb
from costmodel.errors import InputError

ARCH = "k5e4l1s0,k5e1l1s0,k3e4l3s0,k3e6l1s0,k5e4l2s0,k5e6l1s0,k3e6l2s0"


def test_published_counts() -> None:
    graph = anb.build(ARCH)
    cost = analyze(graph)
    norms = sum(c.parallel for n, c in zip(graph.nodes, cost.nodes, strict=True) if n.op == "BatchNormalization")
    pooled = 1280 * (7 * 7 + 1)
    assert cost.params == 4_042_824
    # The benchmark counts 4 operations per normalised element and one per pooled.
    assert cost.macs + 4 * norms + pooled == 369_019_616


def test_squeeze_and_excite_adds_a_gate_per_block() -> None:
    plain, gated = anb.build(ARCH), anb.build(ARCH.replace("s0", "s1"))
    assert sum(n.op == "GlobalAveragePool" for n in gated.nodes) == 1 + 11
    assert analyze(gated).params > analyze(plain).params


@pytest.mark.parametrize("arch", ["k3e1l1s0", ARCH.replace("s0", "s2")])
def test_other_strings_are_refused(arch: str) -> None:
    with pytest.raises(InputError, match="give 7 stages"):
        anb.build(arch)

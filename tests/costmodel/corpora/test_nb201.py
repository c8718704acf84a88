from __future__ import annotations

import pytest

from costmodel.analysis import analyze
from costmodel.corpora import nb201
from costmodel.errors import InputError

CONV3 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
FINGERPRINTS = [
    (False, "acebd34752126389bff7b626eb26d2fb0ff0d3c0ff2b10f783cbd7436eb24113"),
    (True, "c5d6cca0936a61076918a93dd23dedd9ff59b8a442bce7a5d5a98736da64403d"),
]
DEAD = "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"


@pytest.mark.parametrize(
    ("arch", "macs", "params"),
    [(CONV3, 220_119_680, 1_531_546), (BEST, 184_730_240, 1_288_506), (NONE, 7_783_040, 73_306)],
)
def test_published_counts(arch: str, macs: int, params: int) -> None:
    cost = analyze(nb201.build(arch))
    assert (cost.macs, cost.params) == (macs, params)


def test_folding_drops_what_does_not_reach_the_output() -> None:
    eager, folded = nb201.build(DEAD), nb201.build(DEAD, folded=True)
    per_cell = [sum(n.op == "Conv" for n in g.nodes) for g in (eager, folded)]
    # Stem and two reductions have 7 convolutions; of three in the cell only the 1×1 from the input is alive.
    assert per_cell == [7 + 15 * 3, 7 + 15]
    assert not any(n.op == "Mul" for n in folded.nodes)
    assert sum(n.op == "Mul" for n in eager.nodes) == 15 * 3


def test_folding_changes_nothing_that_compilers_keep() -> None:
    assert analyze(nb201.build(CONV3, folded=True)).macs == analyze(nb201.build(CONV3)).macs


@pytest.mark.parametrize("arch", [CONV3, BEST, NONE, DEAD])
def test_arch_strings_fold_to_the_one_of_their_folded_graph(arch: str) -> None:
    folded = nb201.fold(arch)
    assert nb201.build(folded, folded=True).nodes == nb201.build(arch, folded=True).nodes
    assert nb201.fold(folded) == folded
    assert (folded == arch) == (arch != DEAD)


def test_what_leads_nowhere_does_not_tell_folded_networks_apart() -> None:
    other = DEAD.replace("nor_conv_3x3~2", "avg_pool_3x3~2").replace("|nor_conv_3x3~0|+", "|skip_connect~0|+")
    assert nb201.fold(other) == nb201.fold(DEAD)
    assert nb201.build(other).fingerprint != nb201.build(DEAD).fingerprint


@pytest.mark.parametrize(("folded", "fingerprint"), FINGERPRINTS)
def test_fingerprints_stay(folded: bool, fingerprint: str) -> None:
    assert nb201.build(BEST, folded=folded).fingerprint == fingerprint


def test_every_folded_node_reaches_the_output() -> None:
    graph = nb201.build(DEAD, folded=True)
    read = {t for node in graph.nodes for t in node.inputs} | set(graph.outputs)
    assert all(t in read for node in graph.nodes for t in node.outputs)


def test_a_cell_without_a_path_still_is_a_graph() -> None:
    assert len(nb201.build(NONE, folded=True)) == 1


def test_batch_and_shape() -> None:
    graph = nb201.build(CONV3, batch=32)
    assert graph.tensors[graph.inputs[0]].shape == (32, 3, 32, 32)
    assert graph.tensors[graph.outputs[0]].shape == (32, 10)
    assert analyze(graph).macs == 32 * 220_119_680


@pytest.mark.parametrize("arch", ["", "|none~0|", CONV3.replace("nor_conv_3x3~2", "conv_9x9~2"), CONV3 + "+|none~0|"])
def test_other_strings_are_refused(arch: str) -> None:
    with pytest.raises(InputError, match="not a NAS-Bench-201 cell; write"):
        nb201.build(arch)

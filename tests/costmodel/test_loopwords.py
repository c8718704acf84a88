"""Sentences and costs of loop graphs."""

from __future__ import annotations

import pytest

from costmodel.analysis import analyze
from costmodel.loopwords import block_sentence, loop_language, loop_sentence
from costmodel.prompts import TEMPLATES, node_sentence, node_sentences
from tests.costmodel.integrations.tvm.loop_graphs import SIZES, matmul


def test_a_block_says_its_arithmetic_and_a_loop_its_kind() -> None:
    assert loop_sentence({"kind": "vectorized", "extent": 8}) == "Ctrl Loop vectorized"
    assert loop_sentence({"kind": "thread", "thread": "blockIdx.x"}) == "Ctrl Loop thread blockIdx.x"
    assert block_sentence({"axes": "SR", "adds": 2, "muls": 1, "flops": 9}) == "Mix Block reduction add multiply"
    assert block_sentence({"axes": "SR", "compares": 1, "flops": 9}) == "Reduce Block reduction compare"
    assert block_sentence({"axes": "S", "specials": 1, "flops": 9}) == "Elem Block special function"
    assert block_sentence({"axes": "SS", "flops": 0}) == "Move Block copy"
    assert block_sentence({"axes": "SS", "selects": 1, "flops": 0}) == "Move Block select"
    assert block_sentence({"axes": "SS"}) == "Other Block intrinsic"


def test_the_language_is_closed_and_small() -> None:
    said = loop_language()
    assert said == sorted(set(said))
    assert len(said) < 200
    assert set(node_sentences(matmul(kinds=("parallel", "serial", "vectorized")))) <= set(said)


@pytest.mark.parametrize("template", TEMPLATES)
def test_sentences_do_not_depend_on_sizes(template: str) -> None:
    graph = matmul()
    assert node_sentences(graph, template) == [
        "Ctrl Loop parallel", "Ctrl Loop serial", "Ctrl Loop serial", "Mix Block reduction add multiply",
    ]  # fmt: skip
    assert node_sentence(graph, 3, template) == "Mix Block reduction add multiply"


def test_loops_are_views_and_blocks_bring_their_own_flops() -> None:
    analysis = analyze(matmul())
    assert [cost.kind for cost in analysis.nodes] == ["view"] * 3 + ["vector"]
    assert analysis.flops == 2 * SIZES["i"] * SIZES["j"] * SIZES["k"]
    assert analysis.coverage == 1.0
    assert analysis.read_bytes == 4 * (64 * 256 + 256 * 128)
    assert analysis.write_bytes == 4 * 64 * 128

from __future__ import annotations

import pytest

from costmodel.analysis import analyze
from costmodel.corpora import fbnet
from costmodel.errors import InputError


@pytest.mark.parametrize(
    ("layer", "macs", "params"),
    [
        ("k3_e1", 31_322_240, 1_170_676),
        ("k5_e6", 160_926_080, 3_749_652),
        ("skip", 11_608_960, 780_660),
        ("k3_e1_g2", 21_051_008, 940_084),
    ],
)
def test_published_counts(layer: str, macs: int, params: int) -> None:
    cost = analyze(fbnet.build(",".join([layer] * 22)))
    assert (cost.macs, cost.params) == (macs, params)


def test_image_net_head_and_strides() -> None:
    graph = fbnet.build(",".join(["k3_e1"] * 22), batch=2, classes=1000, image_net=True)
    assert graph.tensors[graph.outputs[0]].shape == (2, 1000)
    pooled = next(n for n in graph.nodes if n.op == "GlobalAveragePool")
    assert graph.tensors[pooled.inputs[0]].shape == (2, 1984, 7, 7)


@pytest.mark.parametrize("arch", ["k3_e1", ",".join(["k7_e1"] * 22), ""])
def test_other_strings_are_refused(arch: str) -> None:
    with pytest.raises(InputError, match="give 22 layers"):
        fbnet.build(arch)

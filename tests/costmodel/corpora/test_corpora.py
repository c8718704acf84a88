from __future__ import annotations

import pytest

from costmodel import corpora
from costmodel.errors import InputError

ARCH = "|none~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"


def test_dispatch_by_search_space() -> None:
    assert corpora.build(f"nb201/{ARCH}", 4).tensors["input"].shape == (4, 3, 32, 32)
    assert len(corpora.build(f"nb201/{ARCH}", folded=True)) < len(corpora.build(f"nb201/{ARCH}"))
    assert corpora.build("fbnet/" + ",".join(["skip"] * 22)).name.startswith("fbnet/")
    assert corpora.can_build("ofa_mbv3/x")
    assert not corpora.can_build("timm/resnet50@224")


def test_unknown_spaces_are_refused() -> None:
    with pytest.raises(InputError, match="begins with nb201"):
        corpora.build("timm/resnet50@224")


@pytest.mark.parametrize(
    ("device", "runtime", "folded"),
    [
        ("gtx1660", "tensorrt-7.1", True),
        ("1080ti", "pytorch-eager", False),
        ("pixel3", "unknown", True),
        ("samsung_a50", "unknown", False),
        ("eyeriss", "unknown", False),
    ],
)
def test_which_form_a_measurement_ran(device: str, runtime: str, folded: bool) -> None:
    assert corpora.runs_folded(device, runtime) is folded

from __future__ import annotations

import pytest

from costmodel.analysis import analyze
from costmodel.corpora import ofa
from costmodel.errors import InputError

LARGEST = f"r224;d44444;k{'7' * 20};e{'6' * 20}"


@pytest.mark.parametrize(
    ("arch", "macs", "params"),
    [
        (LARGEST, 843_101_040, 10_701_632),
        (f"r128;d22222;k{'3' * 20};e{'3' * 20}", 65_536_896, 4_602_456),
        ("r172;d43322;k53537553355573535737;e43436366344464443366", 224_667_248, 5_196_712),
    ],
)
def test_published_counts(arch: str, macs: int, params: int) -> None:
    cost = analyze(ofa.build(arch))
    assert (cost.macs, cost.params) == (macs, params)


def test_unused_entries_of_a_stage_do_not_matter() -> None:
    one, other = (ofa.build(f"r128;d22222;k33{k}33333333333333333;e{'3' * 20}") for k in "37")
    assert one.fingerprint == other.fingerprint


def test_width_one_is_smaller() -> None:
    assert analyze(ofa.build(LARGEST, width=1.0)).macs == 566_170_656


@pytest.mark.parametrize("arch", ["r224", LARGEST.replace("d44444", "d44445"), LARGEST.replace("r224", "r8")])
def test_other_strings_are_refused(arch: str) -> None:
    with pytest.raises(InputError, match="write 'r<size>"):
        ofa.build(arch)

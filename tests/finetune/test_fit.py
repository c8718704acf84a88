from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.errors import DataError
from costmodel.finetune import adapters, fit
from costmodel.finetune.fit import by_network
from costmodel.ir import Graph
from costmodel.predictor import LeDGFormerModel
from tests.finetune.networks import samples


def test_several_platforms_at_once_are_refused(model: LeDGFormerModel, graphs: list[Graph]) -> None:
    mixed = samples(graphs[:6], np.ones(6)) + samples(graphs[:6], np.ones(6), precision="int8")
    with pytest.raises(DataError, match="one at a time"):
        fit(model, {g.fingerprint: g for g in graphs}, mixed)


def test_too_few_networks_are_refused(model: LeDGFormerModel, graphs: list[Graph]) -> None:
    known = {g.fingerprint: g for g in graphs}
    with pytest.raises(DataError, match="4 measured networks"):
        fit(model, known, samples(graphs[:4], np.ones(4)))
    with pytest.raises(DataError, match="3 measured networks"):  # the others came without their graphs
        fit(model, {g.fingerprint: g for g in graphs[:3]}, samples(graphs[:9], np.ones(9)))


def test_a_network_counts_once_and_noise_only_for_want_of_better(graphs: list[Graph]) -> None:
    first, second, third = samples([graphs[0]] * 3, np.array([2.0, 3.0, 10.0]))
    noisy = replace(first, latency_ms=99.0, flags=("noisy",))
    other = replace(samples([graphs[1]], np.array([7.0]))[0], flags=("noisy",))
    found = by_network([first, second, third, noisy, other])
    assert found == {graphs[0].fingerprint: 3.0, graphs[1].fingerprint: 7.0}


def test_answers_do_not_depend_on_the_order_of_samples(model: LeDGFormerModel, graphs: list[Graph]) -> None:
    known = {g.fingerprint: g for g in graphs}
    measured = samples(graphs[:12], np.linspace(1, 4, 12))
    kinds = ("none", "scale")
    one, other = (fit(model, known, m, kinds=kinds) for m in (measured, measured[::-1]))
    assert replace(one, adapter=other.adapter) == other
    (record, arrays), (again, same) = (adapters.to_record(o.adapter) for o in (one, other))
    assert record == again
    assert {k: v.tolist() for k, v in arrays.items()} == {k: v.tolist() for k, v in same.items()}

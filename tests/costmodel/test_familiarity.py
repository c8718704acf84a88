"""What counts as unlike the training networks."""

from __future__ import annotations

import numpy as np

from costmodel.familiarity import FEWEST, QUANTILE, Familiar


def test_what_is_far_from_every_reference_is_new_and_survives_the_file() -> None:
    rng = np.random.default_rng(0)
    near = rng.normal(0, 1, (300, 16)) * np.arange(1, 17)
    rule = Familiar.fit(near[:200], [near[200:], near[:0]])
    told = rule.is_new(near[200:])
    assert abs(told.mean() - (1 - QUANTILE)) <= 0.01
    far = near[:5] + 30 * np.arange(1, 17)
    assert rule.is_new(far).all()
    again = Familiar.from_bytes(rule.to_bytes())
    np.testing.assert_array_equal(again.distance(near), rule.distance(near))
    assert again.limit == rule.limit


def test_the_most_varied_source_sets_the_limit() -> None:
    rng = np.random.default_rng(1)
    references = rng.normal(0, 1, (100, 8))
    tight, wide = references[:50] + 0.01, references[:50] + rng.normal(0, 1, (50, 8))
    assert Familiar.fit(references, [tight, wide]).limit == Familiar.fit(references, [wide]).limit
    few = references[: FEWEST - 1] + 9.0
    assert Familiar.fit(references, [tight, few]).limit == Familiar.fit(references, [tight]).limit
    assert Familiar.fit(references, [few]).limit > Familiar.fit(references, [tight]).limit
    assert Familiar.fit(references, []).limit == np.inf

"""What counts as unlike the training networks."""

from __future__ import annotations

import numpy as np

from costmodel.familiarity import FEWEST, QUANTILE, Familiar, kind_of, sizes
from costmodel.features import COLUMNS, statistics


def test_what_is_far_from_every_reference_is_new_and_survives_the_file() -> None:
    rng = np.random.default_rng(0)
    near = rng.normal(0, 1, (300, 16)) * np.arange(1, 17)
    stats = rng.uniform(0.5, 1, (300, 4))
    unseen = [(near[200:], stats[200:]), (near[:0], stats[:0])]
    rule = Familiar.fit((near[:200], stats[:200]), np.array(["a", "bc"] * 100), unseen)
    told = rule.nearest(near[200:], stats[200:])[0] > rule.limit
    assert abs(told.mean() - (1 - QUANTILE)) <= 0.01
    far = near[:5] + 30 * np.arange(1, 17)
    assert (rule.nearest(far, stats[:5])[0] > rule.limit).all()
    assert (rule.nearest(near[:5], stats[:5] + 1)[0] > rule.limit).all()  # the same, a million times larger
    again = Familiar.from_bytes(rule.to_bytes())
    for read, own in zip(again.nearest(near, stats), rule.nearest(near, stats), strict=True):
        np.testing.assert_array_equal(read, own)
    assert again.limit == rule.limit


def test_the_most_varied_source_sets_the_limit() -> None:
    rng = np.random.default_rng(1)
    references = rng.normal(0, 1, (100, 8))
    tight, wide = references[:50] + 0.01, references[:50] + rng.normal(0, 1, (50, 8))
    few = references[: FEWEST - 1] + 9.0

    def limit(*unseen: np.ndarray) -> float:
        described = [(vectors, np.ones((len(vectors), 4))) for vectors in unseen]
        return Familiar.fit((references, np.ones((100, 4))), np.array(["a"] * 100), described).limit

    assert limit(tight, wide) == limit(wide)
    assert limit(tight, few) == limit(tight)
    assert limit(few) > limit(tight)
    assert limit() == np.inf


def test_a_graph_is_of_the_kind_of_the_reference_that_is_like_it_in_structure_and_size() -> None:
    rng = np.random.default_rng(2)
    references, kinds = rng.normal(0, 1, (60, 8)), np.array(["nb201", "timm", "fbnet"] * 20)
    columns = np.zeros((60, 1, len(COLUMNS)))
    columns[:, 0, COLUMNS.index("flops")] = np.where(kinds == "nb201", 1e7, 1e10)
    columns[:, 0, COLUMNS.index("weights")] = np.where(kinds == "nb201", 1e5, 1e7)
    stats = np.stack([statistics(c, 1) for c in columns])
    rule = Familiar.fit((references, stats), kinds, [])
    distance, found = rule.nearest(references[3:6] + 0.001, stats[3:6])
    assert found.tolist() == ["nb201", "timm", "fbnet"]
    assert distance.max() < 0.01
    assert rule.nearest(references[3:4], stats[4:5])[1] != "nb201"  # its operators, a thousand times larger
    at_batch = statistics(columns[4] * 64, 64)
    np.testing.assert_allclose(sizes(at_batch[None])[0, 0], sizes(stats[4:5])[0, 0], atol=1e-4)
    assert kind_of("nb201/|nor_conv_3x3~0|+|none~0|") == "nb201"
    assert kind_of("timm/resnet50@224") == "timm"

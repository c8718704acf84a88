from __future__ import annotations

import numpy as np
import pytest

from costmodel.finetune import adapters, terms
from costmodel.finetune.choose import choose
from costmodel.finetune.readings import Readings


def roofline(readings: Readings, factors: tuple[float, float, float]) -> np.ndarray:
    return np.add.reduceat(terms.node_ms(np.array(factors), readings), readings.start[:-1])


def test_known_factors_answer_for_other_graphs(readings: Readings) -> None:
    truth = roofline(readings, (3.0, 1.5, 0.5))
    train, test = np.arange(15), np.arange(15, 70)
    fitted = adapters.fit("roofline", readings.take(train), np.log(truth[train]))
    assert np.abs(fitted.log_ms(readings.take(test)) - np.log(truth[test])).mean() < 0.05


def test_a_model_that_is_lost_gives_way_to_the_roofline(readings: Readings) -> None:
    truth = np.log(roofline(readings, (2.0, 2.0, 1.0)))
    astray = readings.rebased(truth + np.random.default_rng(0).normal(1.2, 0.8, len(readings)))
    few = np.arange(10)
    choice = choose(astray.take(few), truth[few], ("none", "scale", "line", "roofline"))
    assert choice.adapter.kind == "roofline"


def test_records_answer_alike_and_are_checked(readings: Readings) -> None:
    fitted = adapters.fit("roofline", readings, readings.log_ms + 0.3)
    record, arrays = adapters.to_record(fitted)
    assert adapters.from_record(record, arrays).log_ms(readings).tolist() == fitted.log_ms(readings).tolist()
    with pytest.raises(ValueError, match="match"):
        adapters.from_record({**record, "terms": [1.0, -2.0, 1.0]}, arrays)

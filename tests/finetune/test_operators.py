from __future__ import annotations

import numpy as np
import pytest

from costmodel.finetune import operators
from costmodel.finetune.readings import Readings
from tests.finetune.networks import skewed, skewed_roofline


def mape(readings: Readings, fitted: operators.Operators, truth: np.ndarray) -> float:
    return float(np.mean(np.abs(np.exp(fitted.log_ms(readings)) / truth - 1)) * 100)


def test_known_factors_of_classes_are_recovered_on_other_graphs(readings: Readings) -> None:
    truth = skewed_roofline(readings)
    train, test = np.arange(40), np.arange(40, 70)
    fitted = operators.fit(readings.take(train), np.log(truth[train]))
    assert mape(readings.take(test), fitted, truth[test]) < 6


def test_a_device_that_is_its_roofline_needs_no_opinion_of_the_model(readings: Readings) -> None:
    truth = np.add.reduceat(readings.times.sum(1) * 3, readings.start[:-1])
    train, test = np.arange(25), np.arange(25, 70)
    fitted = operators.fit(readings.take(train), np.log(truth[train]))
    assert mape(readings.take(test), fitted, truth[test]) < 5
    assert abs(fitted.values[1]) < 0.2


def test_node_times_are_positive_and_add_up(readings: Readings) -> None:
    fitted = operators.fit(readings, np.log(skewed(readings)))
    node_ms = fitted.node_ms(readings)
    assert (node_ms > 0).all()
    assert np.log(np.add.reduceat(node_ms, readings.start[:-1])) == pytest.approx(fitted.log_ms(readings))


def test_records_answer_alike(readings: Readings) -> None:
    fitted = operators.fit(readings, np.log(skewed(readings)))
    again = operators.from_record(operators.to_record(fitted))
    assert again.log_ms(readings).tolist() == fitted.log_ms(readings).tolist()
    with pytest.raises(ValueError, match="match"):
        operators.from_record({**operators.to_record(fitted), "values": [1.0, 2.0]})

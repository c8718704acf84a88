from __future__ import annotations

import numpy as np
import pytest

from costmodel.finetune import gaussian
from costmodel.finetune.readings import Readings

COMPONENTS = ("size", "mixture", "graph")


def test_a_constant_is_found_without_components(readings: Readings) -> None:
    process = gaussian.fit((), readings, np.full(len(readings), -0.7))
    assert process.mean(readings) == pytest.approx(np.full(len(readings), -0.7), abs=0.01)


def test_a_slope_is_found_by_level(readings: Readings) -> None:
    truth = 0.4 + 0.2 * readings.log_ms
    process = gaussian.fit(("level",), readings.take(np.arange(30)), truth[:30])
    assert process.mean(readings.take(np.arange(30, 70))) == pytest.approx(truth[30:], abs=0.05)


def test_smooth_dependence_on_size_carries_to_other_graphs(readings: Readings) -> None:
    truth = 0.5 * np.sin(readings.size[:, 1] / 2) + 0.3
    process = gaussian.fit(COMPONENTS, readings.take(np.arange(50)), truth[:50])
    error = np.abs(process.mean(readings.take(np.arange(50, 70))) - truth[50:])
    assert error.mean() < 0.25 * np.abs(truth - truth.mean()).mean()


def test_one_wild_sample_does_not_move_the_rest(readings: Readings) -> None:
    truth = np.full(len(readings), 0.2)
    wild = truth.copy()
    wild[3] += 3
    far = np.abs(gaussian.fit((), readings, wild).mean(readings) - truth).max()
    assert far < 0.5 * 3 / len(readings)


def test_records_answer_alike(readings: Readings) -> None:
    process = gaussian.fit(COMPONENTS, readings, np.sin(readings.log_ms))
    again = gaussian.from_record(*gaussian.to_record(process))
    assert again.mean(readings) == pytest.approx(process.mean(readings), abs=1e-4)
    record, arrays = gaussian.to_record(process)
    with pytest.raises(ValueError, match="match"):
        gaussian.from_record(record, {**arrays, "weights": arrays["weights"][:5]})

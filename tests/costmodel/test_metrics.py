from __future__ import annotations

import math

import numpy as np
import pytest

from costmodel.metrics import accuracy, mape, spearman, summary

Y = np.array([1.0, 2.0, 4.0, 8.0])


def test_mape_and_accuracy_by_hand() -> None:
    p = np.array([1.1, 1.0, 4.0, 10.0])
    assert mape(Y, p) == pytest.approx((10 + 50 + 0 + 25) / 4)
    assert accuracy(Y, p * [1.0 / 1.1 * 1.09, 1, 1, 1]) == 50
    assert accuracy(Y, p, 0.5) == 100


def test_spearman_sees_only_order() -> None:
    assert spearman(Y, Y**3) == pytest.approx(1)
    assert spearman(Y, -Y) == pytest.approx(-1)
    assert spearman(Y, np.array([1.0, 2.0, 2.0, 3.0])) == pytest.approx(0.9486833)
    assert math.isnan(spearman(Y, np.ones(4)))


def test_summary_names_its_figures() -> None:
    assert summary(Y, Y) == {"n": 4, "mape": 0.0, "acc10": 100.0, "spearman": 1.0}

"""The selector: what a Gaussian process would choose, without repeats, and better than chance where it must be."""

from __future__ import annotations

import numpy as np
import pytest

from profiler import selector
from profiler.selector import positions, select


def pool(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, 6) and positions (n, 1 + 4 + 3) of a pool with few networks of one class."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet((4.0, 2.0, 1.0, 0.05), n)
    places = np.concatenate([rng.normal(1, 1, (n, 1)), shares, rng.dirichlet((2.0, 1.0, 1.0), n)], 1)
    return rng.normal(size=(n, 6)), places


def test_picks_are_deterministic_distinct_and_nested() -> None:
    vectors, places = pool(120)
    picks = select(vectors, places, 30)
    assert len(set(picks.tolist())) == 30
    assert (select(vectors, places, 30) == picks).all()
    assert (select(vectors, places, 10) == picks[:10]).all()


def test_small_pools_are_taken_whole() -> None:
    vectors, places = pool(5)
    assert sorted(select(vectors, places, 9).tolist()) == [0, 1, 2, 3, 4]
    assert select(vectors, places, 0).tolist() == []


def test_measured_networks_are_built_on_and_not_picked_again() -> None:
    vectors, places = pool(60)
    first = select(vectors, places, 5)
    assert (select(vectors, places, 5, measured=first) == select(vectors, places, 10)[5:]).all()


def test_equal_networks_are_measured_once_before_others_are() -> None:
    vectors, places = pool(12)
    vectors, places = np.repeat(vectors, 2, 0), np.repeat(places, 2, 0)
    picks = select(vectors, places, 6)
    assert len(set((picks // 2).tolist())) == 6


def test_picks_minimise_the_summed_variance_of_the_process() -> None:
    """Against the textbook posterior, recomputed from scratch for every candidate."""
    vectors, places = pool(25)
    linear, smooth = selector._linear(places), selector._smooth(vectors, places)
    prior = selector._covariance(linear, smooth, np.arange(25))
    picked: list[int] = []
    for pick in select(vectors, places, 4).tolist():
        left = []
        for candidate in range(25):
            on = [*picked, candidate]
            known = prior[np.ix_(on, on)] + selector.NOISE**2 * np.eye(len(on))
            posterior = prior - prior[:, on] @ np.linalg.solve(known, prior[on])
            left.append(np.inf if candidate in picked else np.trace(posterior))
        assert pick == int(np.argmin(left))
        picked.append(pick)


def test_pools_above_the_reference_size_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, places = pool(80)
    monkeypatch.setattr(selector, "REFERENCE", 40)
    one, other = select(vectors, places, 8, seed=0), select(vectors, places, 8, seed=1)
    assert len(set(one.tolist())) == len(set(other.tolist())) == 8
    assert (one != other).any()


def test_class_factors_are_learned_from_fewer_samples_than_by_chance() -> None:
    """Devices with a factor per operator class, ridge regression on ten noisy samples, selected and random."""
    vectors, places = pool(300)
    x = np.concatenate([np.ones((300, 1)), places[:, 1:5]], 1)
    picks = select(vectors, places, 10)

    def error(truth: np.ndarray, measured: np.ndarray, train: np.ndarray) -> float:
        a = x[train].T @ x[train] + np.diag([1e-4, *[0.01] * 4])
        return float(np.abs(x @ np.linalg.solve(a, x[train].T @ measured[train]) - truth).mean())

    selected, chance = [], []
    rng = np.random.default_rng(1)
    for _ in range(20):
        truth = x @ rng.normal(0, 1, 5)
        measured = truth + rng.normal(0, 0.05, 300)
        selected.append(error(truth, measured, picks))
        chance.append(error(truth, measured, rng.permutation(300)[:10]))
    assert np.mean(selected) < 0.8 * np.mean(chance)


def test_positions_are_latency_and_shares() -> None:
    log_ms, shares = np.array([0.1, 0.2]), np.array([[0.25, 0.75], [1.0, 0.0]])
    times = np.array([[3.0, 1.0, 0.1], [0.1, 0.2, 0.3], [0.0, 2.0, 1.0]])
    found = positions(log_ms, shares, np.array([1.0, 3.0, 5.0]), times, np.array([0, 2, 3]))
    assert found == pytest.approx(np.array([[0.1, 0.25, 0.75, 0.25, 0, 0.75], [0.2, 1, 0, 0, 1, 0]]))


def test_arrays_that_do_not_match_are_refused() -> None:
    vectors, places = pool(6)
    with pytest.raises(ValueError, match=r"vectors \(6, 6\) and positions \(5, 8\)"):
        select(vectors, places[:5], 2)

"""Quantile mapping: what it keeps, at any size and scale."""

from __future__ import annotations

import numpy as np
import pytest

from nvembed_jax.calibration.mapping import quantile_map


@pytest.mark.parametrize("count", [10, 2001, 50_000])
def test_a_rising_change_of_scores_is_recovered(count):
    old = np.random.default_rng(0).random(count)
    quantiles = quantile_map(old, 100 * old**2)
    assert len(quantiles.old) <= 2001
    exact = count <= 2001
    np.testing.assert_allclose(quantiles.to_new(old), 100 * old**2, atol=1e-9 if exact else 1e-3)
    np.testing.assert_allclose(quantiles.to_old(100 * old**2), old, atol=1e-9 if exact else 2e-3)


def test_a_mapped_threshold_flags_as_many_pairs():
    rng = np.random.default_rng(0)
    old, new = np.round(rng.normal(size=500), 2), rng.normal(size=500) ** 3  # old ones with ties
    quantiles = quantile_map(old, new)
    for threshold in np.append(rng.choice(old, 50), rng.uniform(old.min(), old.max(), 50)):
        mapped = quantiles.to_new(np.array(threshold))
        assert np.sum(new >= mapped) == np.sum(old >= threshold)


def test_both_tails_of_many_pairs_are_kept_exactly():
    old = np.random.default_rng(0).random(100_000)
    quantiles, ranked = quantile_map(old, -1 / (old + 1)), np.sort(old)
    assert quantiles.old[:5].tolist() == ranked[:5].tolist()
    assert quantiles.old[-5:].tolist() == ranked[-5:].tolist()


def test_scores_outside_go_to_the_ends():
    quantiles = quantile_map(np.array([0.2, 0.4]), np.array([0.5, 0.9]))
    assert quantiles.to_new(np.array([0.0, 0.3, 1.0])).tolist() == [0.5, 0.7, 0.9]


@pytest.mark.parametrize("old", [[0.5], [0.5, 0.5]])
def test_scores_without_a_spread_are_refused(old):
    with pytest.raises(ValueError, match="expected at least two of each"):
        quantile_map(np.array(old), np.arange(len(old), dtype=np.float64))

"""Curves of different length and logging interval become comparable levels."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.curves import resample
from nndiag.records import Series


def falling(steps: int = 1000, every: int = 1, noise: float = 0.0, seed: int = 0) -> Series:
    at = np.arange(0, steps, every)
    shaken = noise * np.random.default_rng(seed).standard_normal(at.size)
    return Series("loss", at, 0.4 + 2.0 * np.exp(-at / 150) + shaken)


@pytest.mark.parametrize("every", [2, 10, 25, 40])
def test_the_level_does_not_depend_on_the_logging_interval(every: int) -> None:
    edges = resample.block_edges(0, 960)
    fine, coarse = resample.levels(falling(), edges), resample.levels(falling(every=every), edges)

    assert fine.covered.all() and coarse.covered.all()
    np.testing.assert_allclose(coarse.values, fine.values, rtol=0.02)


def test_the_error_of_a_level_is_that_of_its_noise() -> None:
    edges = resample.block_edges(0, 999)
    many = [resample.levels(falling(noise=0.1, seed=seed), edges) for seed in range(60)]

    seen = np.std([each.values for each in many], axis=0).mean()
    told = np.mean([each.errors for each in many])
    assert told == pytest.approx(seen, rel=0.25)
    assert resample.levels(falling(), edges).errors.max() < 1e-2


def test_a_curve_logged_seldom_has_a_larger_error_than_one_logged_often() -> None:
    edges = resample.block_edges(0, 960)
    often = resample.levels(falling(noise=0.1), edges)
    seldom = resample.levels(falling(noise=0.1, every=40), edges)

    assert np.median(seldom.errors) > 3 * np.median(often.errors)


def test_one_spike_does_not_move_a_level() -> None:
    calm = falling()
    values = calm.values.copy()
    values[500] = 1e6
    edges = resample.block_edges(0, 999)

    spiky = resample.levels(Series("loss", calm.steps, values), edges)
    np.testing.assert_allclose(spiky.values, resample.levels(calm, edges).values, rtol=0.01)


def test_blocks_that_a_curve_does_not_cover_have_no_level() -> None:
    levels = resample.levels(falling(steps=500), resample.block_edges(0, 999))

    assert levels.covered.tolist() == [True] * 8 + [False] * 8


def test_what_is_mostly_not_finite_has_no_level() -> None:
    calm = falling()
    values = calm.values.copy()
    values[900:] = np.nan
    values[10] = np.inf

    levels = resample.levels(Series("loss", calm.steps, values), resample.block_edges(0, 999))
    assert levels.covered.tolist() == [True] * 14 + [True, False] or not levels.covered[-1]
    assert levels.covered[:14].all()


def test_an_empty_curve_and_one_without_a_finite_value_have_no_levels() -> None:
    edges = resample.block_edges(0, 999)
    nothing = Series("loss", np.arange(0), np.arange(0.0))
    never = Series("loss", np.arange(1000), np.full(1000, np.nan))

    assert not resample.levels(nothing, edges).covered.any()
    assert not resample.levels(never, edges).covered.any()


def test_the_overlap_of_curves() -> None:
    late = Series("loss", np.arange(100, 2000), np.ones(1900))
    nothing = Series("loss", np.arange(0), np.arange(0.0))

    assert resample.overlap([falling(), late, nothing]) == (100, 999)
    assert resample.overlap([falling(50), late]) is None
    assert resample.overlap([]) is None

"""Quantiles of Student's t against the tables of textbooks."""

from __future__ import annotations

import pytest

from nndiag.curves import student_t

TABLE = {  # (probability, degrees of freedom): t
    (0.975, 1): 12.7062,
    (0.995, 2): 9.9248,
    (0.975, 5): 2.5706,
    (0.995, 10): 3.1693,
    (0.95, 30): 1.6973,
    (0.975, 1e9): 1.9600,
}


@pytest.mark.parametrize(("given", "expected"), TABLE.items())
def test_quantiles_are_those_of_the_tables(given: tuple[float, float], expected: float) -> None:
    assert student_t.quantile(*given) == pytest.approx(expected, rel=1e-4)


def test_the_two_tails_mirror_each_other_and_a_quantile_undoes_the_distribution() -> None:
    assert student_t.quantile(0.01, 4.5) == pytest.approx(-student_t.quantile(0.99, 4.5))
    assert student_t.distribution(student_t.quantile(0.9, 3.3), 3.3) == pytest.approx(0.9)
    assert student_t.two_sided(0.05, 5) == pytest.approx(student_t.quantile(0.975, 5))


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (0.5, 0), (0.5, -1)])
def test_what_has_no_quantile_is_refused(probability: float, freedom: float) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        student_t.quantile(probability, freedom)

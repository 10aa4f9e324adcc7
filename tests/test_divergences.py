"""The beta-divergence itself."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

import naive
from knownmf.divergences import beta_of
from knownmf.native import measure


def measured(x, v, m, beta):
    """Return the divergence of bins with weights, and the two halves of its slope."""
    x, v, m = (np.array([values], dtype=np.float64) for values in (x, v, m))
    pull, push = np.empty_like(x), np.empty_like(x)
    return measure(x, m, v, beta, True, pull, push), pull[0], push[0]


def divergence(x, v, beta):
    """Return the divergence of one bin."""
    return measured([x], [v], [1.0], beta)[0]


@pytest.mark.parametrize("beta", [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
def test_value_and_slope_are_those_of_the_definition(beta):
    rng = np.random.default_rng(0)
    x, v, m = rng.gamma(1, 1, (3, 50)) + 1e-3
    total, pull, push = measured(x, v, m, beta)
    assert total == pytest.approx(sum(m[f] * naive.divergence(x[f], v[f], beta) for f in range(50)), rel=1e-12)
    for f in range(50):
        assert divergence(x[f], v[f], beta) == pytest.approx(naive.divergence(x[f], v[f], beta), rel=1e-10, abs=1e-13)
        step = 1e-6 * v[f]
        rise = naive.divergence(x[f], v[f] + step, beta) - naive.divergence(x[f], v[f] - step, beta)
        assert push[f] - pull[f] == pytest.approx(m[f] * rise / (2 * step), rel=1e-5, abs=1e-6 * (push[f] + pull[f]))


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_divergences_are_exact_if_model_and_data_are_close(beta):
    for share in (1e-1, 1e-3, 1e-6, 1e-9):
        # The series d(1 | 1 + u) = u^2 / 2 - (3 - beta or so) u^3 / ..., long enough for every share.
        terms = [(-1) ** n / n * (-share if beta == 0 else share) ** n for n in range(2, 60)]
        expected = sum(terms)
        value = divergence(1.0 - share, 1.0, 0.0) if beta == 0 else divergence(1.0, 1.0 + share, 1.0)
        assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ratio", [0.5**0.5, 2.0**0.5, 0.5, 1.0, 2.0, 8.0**0.5, 1e-3, 1e9])
@pytest.mark.parametrize("side", [-1e-9, -1e-15, 0.0, 1e-15, 1e-9])
def test_the_logarithm_is_continuous_where_its_formula_changes(ratio, side):
    r = ratio * (1.0 + side)
    u = r - 1.0
    expected = u - math.log1p(u) if abs(u) > 1e-6 else 0.5 * u * u * (1.0 - 2.0 / 3.0 * u)
    assert divergence(1.0, r, 1.0) == pytest.approx(expected, rel=4e-15, abs=0.0)
    assert divergence(r, 1.0, 0.0) == pytest.approx(expected, rel=4e-15, abs=0.0)


@pytest.mark.parametrize(
    ("x", "v", "beta", "expected"),
    [
        (0.0, 0.0, 1.0, 0.0),
        (0.0, 2.0, 1.0, 2.0),
        (3.0, 0.0, 1.0, math.inf),
        (3.0, 0.0, 2.0, 4.5),
        (0.0, 1.0, 0.0, math.inf),
        (1.0, 0.0, 0.0, math.inf),
        (0.0, 4.0, 0.5, 4.0),
        (4.0, 0.0, 1.5, 4.0**1.5 / 0.75),
        (1e-100, 1e100, 1.0, 1e100),
        (1e-323, 1.0, 1.0, 1.0),
        (1e300, 1e-300, 0.0, math.inf),
        (1e-200, 1e200, 0.0, 400 * math.log(10) - 1),
        (1.0, 5e-324, 1.0, 1074 * math.log(2) - 1),
        (1e200, 1e-200, 1.0, 1e200 * (400 * math.log(10) - 1)),
    ],
)
def test_limits_are_values_and_never_nan(x, v, beta, expected):
    assert divergence(x, v, beta) == pytest.approx(expected)


def exact(x, v, beta):
    """Return the divergence of one bin by its definition, with 400 digits."""
    with localcontext(prec=400, Emin=-(10**6), Emax=10**6):
        x, v, b = Decimal(x), Decimal(v), Decimal(beta)
        if b == 1:
            return x * (x / v).ln() - x + v
        if b == 0:
            return x / v - (x / v).ln() - 1
        return (x**b + (b - 1) * v**b - b * x * v ** (b - 1)) / (b * (b - 1))


@pytest.mark.parametrize("beta", [-1.0, -0.3, -1e-9, 0.0, 1e-9, 0.3, 0.9, 1.0, 1 + 1e-9, 1.5, 2.0, 2.4, 3.0])
def test_data_and_model_of_any_size_have_their_divergence(beta):
    """A power of one of them may overflow or vanish on its own where the divergence does neither."""
    sizes = (5e-324, 1e-310, 1e-200, 1e-30, 0.3, 1.0, 1e30, 1e200, 1e260)
    for x in sizes:
        for v in (*sizes, 0.5 * x, 1.04 * x):
            if x == v or v == 0.0:
                continue
            truth = exact(x, v, beta)
            found = divergence(x, v, beta)
            if truth > Decimal("1e300"):  # a factor of it may be out of range
                assert found > 1e300
            else:
                assert found == pytest.approx(float(truth), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_bins_without_weight_cost_nothing_whatever_they_hold(beta):
    """The first bin costs infinity where beta <= 0, the second where beta <= 1; neither has a weight."""
    x, v = [0.0, 3.0, 2.0], [1.0, 0.0, 5.0]
    total, pull, push = measured(x, v, [0.0, 0.0, 2.0], beta)
    assert total == pytest.approx(2.0 * naive.divergence(2.0, 5.0, beta), rel=1e-12)
    assert not pull[:2].any()
    assert not push[:2].any()


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("n_bins", [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65])
def test_sums_over_bins_are_right_for_every_number_of_bins(beta, n_bins):
    """Vector registers take several bins at a time: no bin may be left out or counted twice at the end of a row."""
    rng = np.random.default_rng(n_bins)
    x, v, m = rng.gamma(1, 1, (3, n_bins)) + 1e-3
    total, pull, push = measured(x, v, m, beta)
    assert total == pytest.approx(sum(m[f] * divergence(x[f], v[f], beta) for f in range(n_bins)), rel=1e-12)
    np.testing.assert_allclose(pull, m * x * v ** (beta - 2), rtol=1e-12)
    np.testing.assert_allclose(push, m * v ** (beta - 1), rtol=1e-12)


def test_names_and_numbers_of_a_loss():
    assert [beta_of(name) for name in ("frobenius", "kullback-leibler", "itakura-saito")] == [2.0, 1.0, 0.0]
    assert beta_of(np.float32(0.5)) == 0.5
    for wrong in ("kl", 3.5, -2, math.nan, None, True):
        with pytest.raises(ValueError, match=r"beta_loss is .*expected one of 'frobenius'"):
            beta_of(wrong)

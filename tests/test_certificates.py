"""The certificate on its own: true for any h, whoever found it, and tight at the optimum."""

import numpy as np
import pytest
from numba import njit

import naive
from knownmf import certificates
from problems import CONVEX, OPTIONS, frame_of, random_problem


@njit
def duality_gap(*arguments):
    return certificates.duality_gap(*arguments)


@njit
def kkt_residual(*arguments):
    return certificates.kkt_residual(*arguments)


@njit
def smallest_scale(*arguments):
    return certificates.smallest_scale(*arguments)


some_options = pytest.mark.parametrize("options", [v for v in OPTIONS.values() if "support" not in v])


def parts(x, h, W, beta, weights=None, background=None, l1=None, l2=None):
    """The arguments of the certificate for any h, computed the plain way."""
    n_bins, n_components = W.shape
    m = np.where(np.isnan(x), 0.0, np.ones(n_bins) if weights is None else weights)
    x, b = np.nan_to_num(x), np.zeros(n_bins) if background is None else background
    v = b + W @ h
    pull, push = m * x * v ** (beta - 2), m * v ** (beta - 1)
    l1, l2 = (np.zeros(n_components) if p is None else np.asarray(p, float) for p in (l1, l2))
    sums = np.array([m @ x, m @ x**2, m.sum(), push @ b, pull @ b, 0.0, 0.0])
    return h, W.T @ pull, W.T @ push, l1, l2, W.T @ m > 0, beta, W.T @ m, sums


@some_options
@pytest.mark.parametrize("beta", [*CONVEX, 1.25])
def test_gap_covers_the_excess_of_any_point(beta, options):
    V, W, keywords = random_problem(int(100 * beta), [o for o in options if o != "H_init"], positive=True)
    rng = np.random.default_rng(1)
    for t in range(V.shape[1]):
        x, shape, _ = frame_of(t, V, keywords)
        best, least = naive.minimum(x, W, beta, **shape)
        for h in (rng.gamma(1.0, 2.0, W.shape[1]), best * rng.uniform(0.9, 1.1, len(best)), np.full(len(best), 1e-3)):
            gap = duality_gap(*parts(x, h, W, beta, **shape))
            assert naive.objective(x, h, W, beta, **shape) - least <= gap + 1e-12


@some_options
@pytest.mark.parametrize("beta", CONVEX)
def test_gap_closes_at_the_optimum(beta, options):
    V, W, keywords = random_problem(int(100 * beta), [o for o in options if o != "H_init"], positive=True)
    x, shape, _ = frame_of(0, V, keywords)
    best, least = naive.minimum(x, W, beta, **shape)
    assert duality_gap(*parts(x, best, W, beta, **shape)) <= 1e-4 * (1 + least)


def test_kullback_leibler_gap_is_the_log_of_the_largest_multiplicative_update():
    V, W, _ = random_problem(0, (), positive=True)
    x, h = V[:, 0], np.ones(W.shape[1])
    h *= x.sum() / (W @ h).sum()
    expected = x.sum() * np.log(np.max(W.T @ (x / (W @ h)) / W.sum(axis=0)))
    assert duality_gap(*parts(x, h, W, 1.0)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 2.5, 3.0])
def test_there_is_no_gap_outside_the_convex_range(beta):
    V, W, _ = random_problem(0, (), positive=True)
    assert np.isnan(duality_gap(*parts(V[:, 0], np.ones(W.shape[1]), W, beta)))


@pytest.mark.parametrize("beta", CONVEX)
def test_smallest_scale_is_feasible_and_no_smaller_one_is(beta):
    rng = np.random.default_rng(int(10 * beta))
    A, B, l1 = rng.gamma(1.0, 1.0, (3, 8))
    l1[::2] = 0.0
    c = smallest_scale(A, B, l1, np.zeros(8), np.ones(8, bool), beta, False)
    slack = l1 - c ** (beta - 2) * A + c ** (beta - 1) * B
    assert slack.min() == pytest.approx(0.0, abs=1e-9)
    smaller = 0.999 * c
    assert (l1 - smaller ** (beta - 2) * A + smaller ** (beta - 1) * B).min() < 0


def test_an_atom_that_nothing_holds_back_has_no_feasible_scale():
    """An empty model, B = 0, where an atom without penalty still pulls: nothing is proven, whatever the others say."""
    A, B, l1 = np.array([1.0, 1.0]), np.zeros(2), np.array([0.0, 1.0])
    assert smallest_scale(A, B, l1, np.zeros(2), np.ones(2, bool), 1.5, False) == np.inf


def test_kkt_residual_is_free_of_scales_and_zero_at_a_solution():
    V, W, _ = random_problem(3, (), positive=True)
    h = np.ones(W.shape[1])
    h, A, B, l1, l2, allowed, *_ = parts(V[:, 0], h, W, 1.0)
    one = kkt_residual(h, A, B, l1, l2, allowed)
    scale = np.array([1e-6, 3.0, 1e9, 1.0, 7.0])
    assert kkt_residual(h / scale, A * scale, B * scale, l1, l2, allowed) == pytest.approx(one, rel=1e-9)
    assert (
        kkt_residual(
            np.array([2.0, 0.0]), np.array([1.0, 1.0]), np.array([1.0, 3.0]), *np.zeros((2, 2)), np.ones(2, bool)
        )
        == 0
    )

"""Least squares beside SciPy's nnls, on problems that are easy and on problems that stop other solvers."""

import numpy as np
import pytest
from scipy.optimize import nnls

from knownmf import activations

TOL = 1e-8


def well_conditioned(rng):
    W = rng.random((50, 12))
    return W @ rng.gamma(0.5, 1.0, (12, 60)) + 0.1 * rng.random((50, 60)), W


def decay_curves(rng):
    """Sums of exponential decays of 60 times that are much alike, as in relaxometry; condition 1e17."""
    echo = 10e-3 * np.arange(1, 33)
    W = np.exp(-echo[:, np.newaxis] / np.geomspace(15e-3, 2.0, 60))
    short = rng.uniform(0.05, 0.2, 60)
    clean = 1000 * (short * np.exp(-echo[:, np.newaxis] / 0.02) + np.exp(-echo[:, np.newaxis] / 0.08))
    return clean + rng.standard_normal((32, 60)), W


def gaussian_peaks(rng):
    """Peaks that overlap almost entirely: neighbors are a tenth of their width apart."""
    f = np.arange(100)[:, np.newaxis]
    W = np.exp(-0.5 * ((f - np.linspace(5, 95, 180)) / 5.0) ** 2)
    H = rng.gamma(1.0, 1.0, (180, 40)) * (rng.random((180, 40)) < 0.03)
    return W @ H + 0.01 * rng.random((100, 40)), W


def more_atoms_than_bins(rng):
    W = rng.random((7, 60)) + 0.01
    return rng.random((7, 60)) + 0.01, W


def many_more_atoms_than_bins(rng):
    W = rng.random((7, 300)) + 0.01
    return rng.random((7, 60)) + 0.01, W


def frames_inside_the_cone(rng):
    """Frames that the atoms explain exactly, in more than one way: the least objective is zero."""
    W = rng.random((10, 40)) + 0.01
    return W @ rng.gamma(1.0, 1.0, (40, 40)), W


def twins(rng):
    """Atoms that come twice, and once more with a difference in the tenth digit."""
    W = rng.random((30, 6))
    W = np.hstack([W, W, W * (1 + 1e-10 * rng.standard_normal((30, 6)))])
    return W @ rng.gamma(0.5, 1.0, (18, 40)) + 0.1 * rng.random((30, 40)), W


def sums_of_atoms(rng):
    """Atoms of which some are sums of others."""
    W = rng.random((40, 8)) * (rng.random((40, 8)) < 0.4)
    W = np.hstack([W, W[:, :4] + W[:, 4:], W.sum(axis=1, keepdims=True)])
    return W @ rng.gamma(0.5, 1.0, (13, 40)) + 0.1 * rng.random((40, 40)), W


PROBLEMS = (
    well_conditioned,
    decay_curves,
    gaussian_peaks,
    more_atoms_than_bins,
    many_more_atoms_than_bins,
    frames_inside_the_cone,
    twins,
    sums_of_atoms,
)


def least_squares(V, W):
    """Return half the squared residual of SciPy's solution, frame by frame."""
    return np.array([0.5 * nnls(W, x, maxiter=100 * W.shape[1])[1] ** 2 for x in V.T])


def residuals(V, W, H):
    return 0.5 * ((V - W @ H) ** 2).sum(axis=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", PROBLEMS)
def test_every_frame_ends_at_the_optimum(make, seed):
    V, W = make(np.random.default_rng(seed))
    energy, least = (V**2).sum(axis=0), least_squares(V, W)
    found = activations(V, W, "frobenius", tol=TOL)
    assert found.converged.all()
    excess = residuals(V, W, found.H) - least
    assert excess.max() <= TOL * energy.max()
    assert (excess <= found.gap + 1e-13 * energy).all()


@pytest.mark.parametrize("make", PROBLEMS)
def test_every_frame_ends_at_the_optimum_with_weights(make):
    """Weights are a change of scale of the bins; those of single frames are solved in another way than those of all."""
    rng = np.random.default_rng(0)
    V, W = make(rng)
    weights = rng.uniform(0.5, 2.0, V.shape)
    own = activations(V, W, "frobenius", weights=weights, tol=TOL)
    shared = activations(V, W, "frobenius", weights=weights[:, 0], tol=TOL)
    assert own.converged.all()
    assert shared.converged.all()
    for t in range(V.shape[1]):
        for found, m in ((own, weights[:, t]), (shared, weights[:, 0])):
            root = np.sqrt(m)
            least = 0.5 * nnls(root[:, np.newaxis] * W, root * V[:, t], maxiter=100 * W.shape[1])[1] ** 2
            energy = (m * V[:, t] ** 2).sum()
            assert found.objective[t] - least <= min(TOL * energy, found.gap[t] + 1e-13 * energy) + 1e-13 * energy


@pytest.mark.parametrize("seed", range(3))
def test_well_conditioned_activations_are_the_same(seed):
    V, W = well_conditioned(np.random.default_rng(seed))
    found = activations(V, W, "frobenius", tol=1e-12)
    expected = np.stack([nnls(W, x)[0] for x in V.T], axis=1)
    np.testing.assert_allclose(found.H, expected, rtol=1e-8, atol=1e-10)
    assert np.array_equal(found.H > 0, expected > 0)


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_hard_problems_converge_for_the_other_losses(make, beta):
    """SciPy has no reference for them: the gap, which other tests hold against the truth, is the proof."""
    V, W = make(np.random.default_rng(0))
    V = np.maximum(V, 0.0)
    assert activations(V, W, beta, tol=TOL).converged.all()

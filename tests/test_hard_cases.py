"""What breaks solvers, in every loss and in both precisions, held against the naive truth."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import naive
from knownmf import Solver, activations

BETAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
TOL = {np.float64: 1e-6, np.float32: 3e-6}


def noisy(rng, W, n_frames):
    """Frames that use about half of the atoms, over some noise."""
    H = rng.gamma(1.0, 2.0, (W.shape[1], n_frames)) * (rng.random((W.shape[1], n_frames)) < 0.5)
    return (W @ H + 0.1) * rng.gamma(4.0, 0.25, (len(W), n_frames))


def atoms(rng, n_bins, n_components):
    return rng.gamma(0.7, 1.0, (n_bins, n_components)) + 0.01


def nearly_collinear_atoms(rng):
    """Two atoms, each with three neighbors that lie 1e-3 to 1e-9 away, and with a double."""
    apart = np.array([0.0, 0.0, 1e-3, 1e-6, 1e-9])
    W = np.hstack([w[:, np.newaxis] * (1 + apart * rng.standard_normal((8, 5))) for w in atoms(rng, 8, 2).T])
    return noisy(rng, W, 2), W


def more_atoms_than_bins(rng):
    W = atoms(rng, 5, 12)
    return noisy(rng, W, 3), W


def frames_from_1e_minus_30_to_1e30(rng):
    W = atoms(rng, 7, 4)
    return noisy(rng, W, 5) * 10.0 ** np.linspace(-30, 30, 5), W


def bins_and_frames_of_zeros(rng):
    W = atoms(rng, 7, 4)
    V = noisy(rng, W, 5)
    V[[2, 5]] = 0.0
    V[:, [1, 4]] = 0.0
    return V, W


def counts_with_nine_zeros_in_ten(rng):
    W = rng.dirichlet(np.full(15, 0.3), 5).T
    V = rng.poisson(W @ rng.gamma(0.5, 20.0, (5, 4))).astype(float)
    return np.where(np.quantile(V, 0.9) < V, V, 0.0), W


HARD = (
    nearly_collinear_atoms,
    more_atoms_than_bins,
    frames_from_1e_minus_30_to_1e30,
    bins_and_frames_of_zeros,
    counts_with_nine_zeros_in_ten,
)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("hard", HARD)
def test_hard_cases_stay_exact(hard, beta, dtype, seed):
    V, W = hard(np.random.default_rng(seed))
    V = V.astype(dtype)
    tol, convex = TOL[dtype], 1 <= beta <= 2
    found = activations(V, W, beta, tol=tol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        rough = activations(V, W, beta, tol=0.0, max_iter=1)
    assert found.H.dtype == dtype
    assert found.converged.all()
    assert found.criterion.max() <= tol
    for t, x in enumerate(V.T.astype(float)):
        if not x.any():
            assert not found.H[:, t].any()
            assert found.objective[t] == 0
            continue
        # Everything scales with the frame: the naive truth, whose tolerances are absolute, sees it near one.
        unit = 2.0 ** np.floor(np.log2(x.max()))
        x, h, start = (values.astype(float) / unit for values in (x, found.H[:, t], rough.H[:, t]))
        x = np.maximum(x, 1e-15 * x.max()) if beta < 1 else x
        value, rounding = naive.objective(x, h, W, beta), 1e-12 * np.sum(x**beta)
        best, least = naive.minimum(x, W, beta, start=h)
        assert found.objective[t] / unit**beta == pytest.approx(value, rel=1e-10, abs=rounding)
        if convex:
            least = min(least, naive.minimum(x, W, beta)[1]) if dtype == np.float64 else least
            proven = found.gap[t] / unit**beta
            assert value - least <= proven + rounding
            again = Solver(W, beta).certify(x[:, np.newaxis], h[:, np.newaxis])
            assert proven == pytest.approx(again.gap[0], rel=1e-6, abs=rounding)
            assert naive.objective(x, start, W, beta) - least <= rough.gap[t] / unit**beta + rounding
        else:
            push = naive.gradient(np.zeros(len(x)), h, W, beta)
            assert found.kkt[t] == pytest.approx(naive.kkt_residual(x, h, W, beta), rel=1e-6, abs=1e-12)
            assert value - least <= found.kkt[t] * (push @ (h + best)) + rounding


@pytest.mark.parametrize("seed", [18, 34, 48, 50, 57, 58])
def test_atoms_alike_to_the_ninth_digit_get_off_the_ground(seed):
    """Curvature of a condition past 1e15, where pivoting may end above its start and a ridge may slow every step."""
    rng = np.random.default_rng(seed)
    apart = np.array([0.0, 1e-3, 1e-5, 1e-7, 1e-9])
    W = np.hstack([w[:, np.newaxis] * (1 + apart * rng.standard_normal((10, 5))) for w in atoms(rng, 10, 2).T])
    V = noisy(rng, W, 200)
    found = activations(V, W, "itakura-saito", tol=1e-6)
    assert found.converged.all()
    assert max(naive.kkt_residual(x, h, W, 0) for x, h in zip(V.T, found.H.T, strict=True)) <= 1.01e-6

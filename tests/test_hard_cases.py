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
def test_frames_of_nearly_equal_atoms_converge(seed):
    """Curvature of a condition past 1e15, where pivoting may end above its start and a ridge may slow every step."""
    rng = np.random.default_rng(seed)
    apart = np.array([0.0, 1e-3, 1e-5, 1e-7, 1e-9])
    W = np.hstack([w[:, np.newaxis] * (1 + apart * rng.standard_normal((10, 5))) for w in atoms(rng, 10, 2).T])
    V = noisy(rng, W, 200)
    found = activations(V, W, "itakura-saito", tol=1e-6)
    assert found.converged.all()
    assert max(naive.kkt_residual(x, h, W, 0) for x, h in zip(V.T, found.H.T, strict=True)) <= 1.01e-6


@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize(("n_bins", "n_components"), [(3, 40), (8, 79), (30, 300)])
def test_a_penalty_chooses_among_atoms_that_depend_on_each_other(beta, n_bins, n_components):
    """More atoms than bins: the data alone leave a face of optima, along which L1 is linear."""
    rng = np.random.default_rng(n_bins)
    W = rng.random((n_bins, n_components))
    V = (W @ (rng.gamma(1.0, 1.0, (n_components, 30)) * (rng.random((n_components, 30)) < 0.1)) + 0.01) * 0.9
    found = activations(V, W, beta, l1=1e-2, tol=1e-6)
    assert found.converged.all()
    assert found.n_iter.max() <= 60


def exact_divergence(x, v, beta):
    """d(x | v) in extended precision, by differences that do not cancel."""
    x, v, b = np.longdouble(x), np.longdouble(v), np.longdouble(beta)
    u = np.log(v / x)
    return x**b * (np.expm1(b * u) / b - np.expm1((b - 1) * u) / (b - 1))


@pytest.mark.parametrize("beta", [-2.2e-16, 1e-12, 1e-6, 1 - 4e-16, 1 - 1e-9, 1 + 2.2e-16, 1 + 1e-12, 1 + 1e-6, 1.0001])
def test_a_loss_next_to_a_limit_keeps_objective_and_proof(beta):
    """As np.arange gives them: the formulas with 1 / beta and 1 / (beta - 1) must not cancel."""
    rng = np.random.default_rng(0)
    W = rng.random((40, 6)) + 0.01
    V = (W @ rng.gamma(1, 1, (6, 20)) + 0.05) * rng.gamma(4, 0.25, (40, 20))
    found = activations(V, W, beta, tol=1e-6)
    truth = exact_divergence(V, W @ found.H, beta).sum(axis=0)
    np.testing.assert_allclose(found.objective, truth.astype(float), rtol=1e-9)
    assert found.converged.all()
    if beta > 1:
        best = activations(V, W, 1.0, tol=1e-12).H
        excess = truth - exact_divergence(V, W @ best, beta).sum(axis=0)
        assert (excess <= found.gap * (1 + 1e-6) + 1e-13 * V.sum(axis=0)).all()


@pytest.mark.parametrize(("beta", "scale"), [(-1.0, 1e110), (0.0, 1e160), (3.0, 1e-160), (2.0, 1e160), (3.0, 1e110)])
def test_units_beyond_the_range_of_numbers_leave_no_nan(beta, scale):
    rng = np.random.default_rng(1)
    W = rng.random((12, 3)) + 0.1
    H = rng.random((3, 4)) + 0.1
    with np.errstate(over="ignore"):
        found = activations(scale * (W @ H), W, beta, tol=1e-8)
    np.testing.assert_allclose(found.H, scale * H, rtol=1e-3)
    assert not np.isnan(found.gap).any() or beta in (-1.0, 0.0, 3.0)
    assert not np.isnan(found.objective).any()


def test_tiny_atoms_have_penalties_of_their_own_size():
    found = activations(np.ones((3, 2)), np.full((3, 2), 1e-160), tol=1e-6)
    np.testing.assert_allclose((np.full((3, 2), 1e-160) @ found.H), 1.0, rtol=1e-5)


@pytest.mark.parametrize("start", [1e290, 1e308])
@pytest.mark.parametrize("beta", BETAS)
def test_a_start_of_any_size_leaves_no_nan(beta, start):
    rng = np.random.default_rng(0)
    W = rng.random((6, 3)) + 0.1
    found = activations(W @ rng.random((3, 5)), W, beta, H_init=np.full((3, 5), start), tol=1e-6)
    assert np.isfinite(found.H).all()
    assert found.converged.all()


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_warm_start_of_many_atoms_costs_no_more_than_none(start):
    """With zeros everywhere, as after a silent frame, every atom gets a share; steps over all of them would be slow."""
    rng = np.random.default_rng(3)
    W = rng.gamma(0.3, 1.0, (120, 700))
    V = W @ (rng.gamma(1.0, 1.0, (700, 16)) * (rng.random((700, 16)) < 0.02))
    solver = Solver(W, tol=1e-3)
    cold, warm = solver.solve(V), Solver(W, tol=1e-3)
    found = warm.solve(V, H_init=np.full((700, 16), start))
    assert found.converged.all()
    assert warm.nbytes <= 1.2 * solver.nbytes  # no larger working sets
    assert found.n_iter.sum() <= 2 * cold.n_iter.sum() + 16


class TestCertify:
    def test_a_frame_without_data_is_judged_by_what_it_was_given(self):
        found = Solver(np.ones((4, 1)), l1=0.1).certify(np.zeros((4, 1)), [[5.0]])
        assert found.H == 5.0
        assert found.objective == pytest.approx(20.5)
        assert found.gap >= 20.5 * (1 - 1e-12)
        assert not found.converged

    @pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    def test_a_frame_without_data_keeps_its_activations(self, beta):
        found = Solver(np.ones((4, 1)), beta).certify(np.zeros((4, 1)), [[5.0]])
        assert found.H == 5.0
        assert found.objective == pytest.approx(4 * 5.0**beta / beta)
        assert found.kkt > 0
        assert not found.converged

    def test_no_activations_are_nothing_to_certify(self):
        with pytest.raises(TypeError, match="H is None"):
            Solver(np.ones((4, 1))).certify(np.ones((4, 1)), None)

    def test_an_atom_on_missing_bins_alone_pays_its_penalty(self):
        W = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        found = Solver(W, l1=0.1).certify([[1.0], [1.0], [np.nan]], [[1.0], [7.0]])
        assert found.H[1] == 7.0
        assert found.gap >= 0.7 * (1 - 1e-12)
        assert found.kkt > 0

    def test_activations_of_more_digits_than_the_data_keep_them(self):
        V, H = np.ones((4, 2), np.float32), np.full((1, 2), 1 + 1e-12)
        assert np.array_equal(Solver(np.ones((4, 1))).certify(V, H).H, H)


def test_least_squares_with_a_shared_weight_in_solve():
    """One value for each bin, or for each component, is for all frames, in solve as in the solver."""
    rng = np.random.default_rng(3)
    V, W, weights = rng.random((5, 7)), rng.random((5, 3)), rng.random(5)
    whole = Solver(W, tol=1e-9).solve(V, weights=weights, support=[True, False, True])
    expected = Solver(W, weights=weights, support=[True, False, True], tol=1e-9).solve(V)
    np.testing.assert_allclose(whole.H, expected.H, rtol=1e-5, atol=1e-9)

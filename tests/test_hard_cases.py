"""What breaks solvers, in every loss and in both precisions, held against the naive truth."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import nnls
from sklearn.exceptions import ConvergenceWarning

import naive
from knownmf import NMF, Solver, activations

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


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-8])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 1.99, 2.0, 2.5])
def test_a_background_above_the_data_leaves_exact_zeros(beta, tol):
    rng = np.random.default_rng(0)
    W, V = rng.random((20, 4)), rng.random((20, 50))
    for size in (1.0, 1e3, 1e6, 1e9):
        found = activations(V, W, beta, background=size * (3 + rng.random(20)), tol=tol)
        assert not found.H.any()
        assert found.kkt.max() == 0.0
        assert found.converged.all()


@pytest.mark.parametrize("beta", [1.0, 1.5, 1.9, 2.0, 2.5])
def test_a_background_that_dominates_half_of_the_bins_spares_the_others(beta):
    """The atoms of the other half are found as if they were alone."""
    rng = np.random.default_rng(1)
    W, V = np.zeros((20, 6)), rng.random((20, 30)) + 0.1
    W[:10, :3], W[10:, 3:] = rng.random((10, 3)), rng.random((10, 3))
    background = np.r_[np.full(10, 1e8), np.zeros(10)]
    found = activations(V, W, beta, background=background, tol=1e-6)
    assert found.converged.all()
    assert not found.H[:3].any()
    np.testing.assert_allclose(found.H[3:], activations(V[10:], W[10:, 3:], beta, tol=1e-8).H, atol=5e-3)


@pytest.mark.parametrize("decades", [12, 15, 20, 30, 60])
@pytest.mark.parametrize("beta", [1.0, 1.2, 1.5])
def test_a_model_that_must_be_far_below_the_data(beta, decades):
    rng = np.random.default_rng(decades)
    W, V = rng.random((8, 5)), rng.random((8, 20))
    penalized = activations(V, W, beta, l1=10.0**decades * rng.random(5), tol=1e-6)
    V[4:] = 0.0
    empty = activations(V, W, beta, weights=np.r_[np.ones(4), np.full(4, 10.0**decades)], tol=1e-6)
    for found in (penalized, empty):
        assert found.converged.all()
        assert found.n_iter.max() <= 60
    one = activations([[2.9]], [[2.2, 3.2, 1.6]], beta, weights=[4e-11], l1=10.0**decades, tol=1e-8)
    assert one.converged.all()


class TestNegativeData:
    """Least squares takes data of both signs: only W and H are not negative. SciPy's nnls is the judge."""

    @staticmethod
    def problem(seed, noise=0.5):
        rng = np.random.default_rng(seed)
        n_bins, n_components = rng.integers(3, 40), rng.integers(1, 12)
        W = np.abs(rng.standard_normal((n_bins, n_components))) * (rng.random((n_bins, n_components)) < 0.8)
        W[rng.integers(n_bins)] += 0.1
        V = W @ rng.random((n_components, 10)) + noise * rng.standard_normal((n_bins, 10))
        V[:, 0] = -np.abs(V[:, 0])
        return V * 10.0 ** rng.uniform(-20, 20), W

    @pytest.mark.parametrize("seed", range(12))
    def test_nnls_finds_nothing_lower(self, seed):
        V, W = self.problem(seed, noise=[0.01, 0.5, 5.0][seed % 3])
        sparse = scipy.sparse.csr_array(V)
        best = np.array([nnls(W, x)[0] for x in V.T]).T
        for found in (
            activations(V, W, 2, tol=1e-10),
            activations(V, W, 2, weights=np.ones(V.shape), tol=1e-10),
            activations(sparse, W, 2, tol=1e-10),
        ):
            np.testing.assert_allclose(found.objective, 0.5 * ((V - W @ found.H) ** 2).sum(axis=0), rtol=1e-9)
            excess = found.objective - 0.5 * ((V - W @ best) ** 2).sum(axis=0)
            assert (excess <= found.gap + 1e-14 * (V**2).sum(axis=0)).all()
            assert found.converged.all()
            assert not found.H[:, 0].any()
            assert found.kkt[0] == 0.0
            np.testing.assert_allclose(found.relative_gap, found.gap / (V**2).sum(axis=0), rtol=1e-9)

    @pytest.mark.parametrize("share", [0.02, 0.6])
    def test_sparse_and_dense_agree(self, share):
        """Few entries of a block of bins are visited one by one; a block with many is filled with its zeros."""
        rng = np.random.default_rng(0)
        W, weights = rng.random((1100, 6)), rng.random(1100)
        V = rng.standard_normal((1100, 9)) * (rng.random((1100, 9)) < share)
        V[:, 0] = np.abs(V[:, 0])
        dense, sparse = (
            activations(X, W, 2, weights=weights, l1=0.1, tol=1e-9) for X in (V, scipy.sparse.csc_array(V))
        )
        np.testing.assert_allclose(sparse.H, dense.H, atol=1e-9)
        np.testing.assert_allclose(sparse.objective, dense.objective, rtol=1e-9)
        np.testing.assert_allclose(sparse.kkt, dense.kkt, atol=1e-9)

    @pytest.mark.parametrize("kind", ["dense", "float32", "weights", "missing", "sparse"])
    @pytest.mark.parametrize(
        "known",
        [
            {"components": True},
            {"n_components": 3, "components": True, "frozen": [[True] * 10 + [False] * 10] * 2},
            {"components": True, "frozen": False, "template_strength": 3.0},
            {"n_components": 3},
            {"n_components": 3, "init": "random", "alpha_W": 1e-3, "l1_ratio": 0.5},
        ],
        ids=["frozen", "partly", "tied", "free", "penalized"],
    )
    def test_learning_lowers_the_squared_error(self, known, kind):
        rng = np.random.default_rng(1)
        C = np.abs(rng.standard_normal((2, 20)))
        X = rng.random((60, 2)) @ C + 0.3 * rng.standard_normal((60, 20))
        X[5] = -1.0
        parameters = known | ({"components": C} if "components" in known else {})
        given = {"weights": rng.random(X.shape)} if kind == "weights" else {}
        X = np.where(rng.random(X.shape) < 0.1, np.nan, X) if kind == "missing" else X
        X = X.astype(np.float32) if kind == "float32" else X
        data = scipy.sparse.csr_array(X) if kind == "sparse" else X
        model = NMF(beta_loss="frobenius", random_state=0, tol=1e-5, max_iter=1000, **parameters)
        H = model.fit_transform(data, **given)
        assert (np.diff(model.objective_history_) <= 1e-6 * model.objective_history_[0]).all()
        assert not H[5].any() or kind == "weights"
        error = np.nansum(given.get("weights", 1.0) * (X - H @ model.components_) ** 2)
        assert error == pytest.approx(model.reconstruction_err_**2, rel=1e-4)
        silent = np.nansum(given.get("weights", 1.0) * X.astype(float) ** 2)
        assert error < silent
        np.testing.assert_allclose(model.transform(data, **given), H, atol=1e-4)

    def test_a_stream(self):
        rng = np.random.default_rng(1)
        C = np.abs(rng.standard_normal((2, 20)))
        X = rng.random((400, 2)) @ C + 0.1 * rng.standard_normal((400, 20))
        model = NMF(2, beta_loss="frobenius", random_state=0)
        for block in np.array_split(X, 20):
            model.partial_fit(block)
        assert np.linalg.norm(X - model.transform(X) @ model.components_) < 0.25 * np.linalg.norm(X)

    def test_scikit_learn_is_told(self):
        for beta_loss, positive in (("frobenius", False), (2, False), ("kullback-leibler", True), (1.5, True)):
            assert NMF(beta_loss=beta_loss).__sklearn_tags__().input_tags.positive_only is positive

    @pytest.mark.parametrize(
        ("values", "advice"),
        [
            ([[3.0, -0.1], [2.0, 5.0]], r'pass beta_loss="frobenius" .*noise to 0, np\.maximum\(V, 0\)'),
            ([[3.0, -4.0], [2.0, 5.0]], r'pass beta_loss="frobenius" .*samples of sound'),
            (
                [[-80.0, -31.0], [-12.5, 0.0]],
                r"decibels, for example with librosa\.db_to_amplitude, or pass -V if only",
            ),
            ([[-3.0, -0.1], [-2.0, 0.0]], r"pass -V if only the sign is wrong"),
        ],
        ids=["noise", "both signs", "decibels", "sign"],
    )
    def test_other_losses_say_what_fits_the_data(self, values, advice):
        for V in (values, scipy.sparse.csc_array(values)):
            with pytest.raises(ValueError, match=f"negative values cannot be used, .*{advice}"):
                activations(V, np.ones((2, 1)))
        with pytest.raises(ValueError, match="Negative values in data passed to NMF.*" + advice.replace("V", "X")):
            NMF(1).fit(np.array(values))

    @pytest.mark.parametrize(
        ("W", "advice"),
        [
            ([[3.0], [-0.1], [2.0]], r"noise to 0, np\.maximum\(W, 0\)"),
            ([[3.0], [-4.0], [2.0]], "both signs, as PCA or ICA find them"),
            ([[-3.0], [-40.0], [-2.0]], "decibels.* pass -W if only the sign is wrong"),
        ],
    )
    def test_components_are_not_negative(self, W, advice):
        with pytest.raises(ValueError, match=f"W.* is -.* negative values cannot be used, .*{advice}"):
            activations(np.ones((3, 1)), W, 2)


class TestSparseFormats:
    """The same matrix, however it is stored."""

    @staticmethod
    def stored(D, kind):
        rng = np.random.default_rng(3)
        rows, columns = np.nonzero(D)
        order = rng.permutation(len(rows))
        zeros = rng.integers(0, D.shape[0], 20), rng.integers(0, D.shape[1], 20)
        # Every entry in two parts, in any order, and some zeros.
        i = np.concatenate([rows[order], rows, zeros[0]])
        j = np.concatenate([columns[order], columns, zeros[1]])
        values = np.concatenate([0.25 * D[rows[order], columns[order]], 0.75 * D[rows, columns], np.zeros(20)])
        if kind == "coo":
            return scipy.sparse.coo_array((values, (i.astype(np.int64), j.astype(np.int64))), shape=D.shape)
        major, minor, make = (i, j, scipy.sparse.csr_array) if kind == "csr" else (j, i, scipy.sparse.csc_array)
        order = np.argsort(major, kind="stable")
        size = D.shape[0 if kind == "csr" else 1]
        starts = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=size))]).astype(np.int64)
        return make((values[order], minor[order].astype(np.int64), starts), shape=D.shape)

    @pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
    @pytest.mark.parametrize("beta", [1, 2])
    def test_duplicates_zeros_and_the_order_of_entries_change_nothing(self, beta, kind):
        rng = np.random.default_rng(0)
        W, D = rng.random((23, 4)) + 0.01, rng.gamma(1, 1, (23, 17)) * (rng.random((23, 17)) < 0.3)
        D[3], D[:, 5] = 0.0, 0.0
        S = self.stored(D, kind)
        before = S.data.copy()
        for options in ({}, {"weights": rng.random(23)}, {"support": rng.random((4, 17)) < 0.7}):
            found, expected = (activations(V, W, beta, tol=1e-10, **options) for V in (S, D))
            np.testing.assert_allclose(found.H, expected.H, atol=1e-4)
            np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-8, atol=1e-12)
            assert found.converged.all()
        np.testing.assert_allclose(
            Solver(W, beta, tol=1e-10).solve(S).H, activations(D, W, beta, tol=1e-10).H, atol=1e-4
        )
        learned = NMF(3, beta_loss=beta, init="random", random_state=0, tol=1e-6, max_iter=2000)
        ends = [(learned.fit(X).objective_history_[-1], learned.transform(X)) for X in (S.T, D.T)]
        assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-4)
        np.testing.assert_allclose(ends[0][1], ends[1][1], atol=0.05)
        assert np.array_equal(S.data, before)

    def test_what_only_dense_data_can_have_is_named(self):
        V, W = scipy.sparse.csr_array(np.eye(4)), np.ones((4, 2))
        missing = V.copy()
        missing.data[0] = np.nan
        with pytest.raises(
            ValueError, match=r"NaN in it: only a dense array may have missing entries, pass V\.toarray"
        ):
            activations(missing, W)
        with pytest.raises(
            TypeError, match="weights has one value for each entry of a sparse matrix: give one for each"
        ):
            activations(V, W, weights=np.ones((4, 4)))
        with pytest.raises(TypeError, match=r"weights is a sparse matrix: pass weights\.toarray\(\)"):
            activations(V, W, weights=V)


@pytest.mark.parametrize("start", [np.ones(3), np.ones((3, 1))])
def test_a_lone_frame_takes_its_start_with_one_or_two_dimensions(start):
    V, W = np.random.default_rng(0).random((6, 4)), np.random.default_rng(1).random((6, 3))
    expected = activations(V[:, :1], W, tol=1e-8).H
    np.testing.assert_allclose(activations(V[:, :1], W, H_init=start, tol=1e-8).H, expected, atol=1e-3)
    model = NMF(components=W.T, frozen=False, max_iter=3, tol=0.0)
    assert model.fit(V[:, :1].T, H_init=start.reshape(start.shape[::-1])).n_iter_ == 4
    with pytest.raises(ValueError, match=r"H_init has shape \(3,.*expected \(n_components, n_frames\) = \(3, 4\)"):
        activations(V, W, H_init=start)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 1.0, 1 + 2.2e-16, 1.5, 2.0, 2.5, 3.0])
def test_numbers_of_all_sizes_leave_no_nan_and_no_infinite_activation(beta):
    """What numbers cannot hold has not converged."""
    powers = [0, 0, 0, -320, -300, -150, -30, 30, 150, 300, 307]

    def numbers(rng, *shape):
        with np.errstate(under="ignore"):
            values = rng.random(shape) * 10.0 ** rng.choice(powers, shape).astype(float)
        return np.where(rng.random(shape) < 0.9, values, 0.0)

    for seed in range(60):
        rng = np.random.default_rng(seed)
        n_bins, n_components = rng.integers(1, 8), rng.integers(1, 6)
        given = {"background": (n_bins, 4), "weights": (n_bins, 4), "l1": (n_components,), "H_init": (n_components, 4)}
        options = {name: numbers(rng, *shape) for name, shape in given.items() if rng.random() < 0.3}
        W, V = numbers(rng, n_bins, n_components), numbers(rng, n_bins, 4)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = activations(V.astype(np.float32 if seed % 5 == 0 and V.max() < 1e38 else float), W, beta, **options)
        assert np.isfinite(found.H).all()
        for values in (found.objective, found.kkt, found.criterion):
            assert (values >= 0.0).all()
        assert (found.criterion[found.converged] <= found.tol).all()
        if 1.0 <= beta <= 2.0:
            assert (found.gap >= 0.0).all()


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_more_components_than_bins_reach_tight_tolerances(beta):
    rng = np.random.default_rng(0)
    for _ in range(10):
        W, V = rng.gamma(0.5, 1.0, (3, 17)), rng.gamma(1.0, 1.0, (3, 100)) * rng.uniform(0.0, 40.0, 100)
        bound = rng.gamma(1.0, 1.0, 17)
        for limits in ({}, {"upper": bound}, {"total": 0.5 * bound.sum()}, {"upper": bound, "max_total": 0.5}):
            assert activations(V, W, beta, tol=1e-9, **limits).converged.all()

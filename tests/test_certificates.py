"""The certificate on its own: true for any activations, whoever found them, and tight at the optimum."""

import math
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import naive
from knownmf import Solver, activations
from problems import BETAS, CONVEX, OPTIONS, frame_of, random_problem

every_option = pytest.mark.parametrize(
    "options", [v for v in OPTIONS.values() if v != ("H_init",)], ids=[k for k in OPTIONS if k != "warm start"]
)


def certified(x, h, W, beta, support=None, weights=None, background=None, **penalties):
    """Return the certificate of one frame."""
    own = {"weights": weights, "support": support}
    columns = {name: np.asarray(values)[:, np.newaxis] for name, values in own.items() if values is not None}
    return Solver(W, beta, **penalties, tol=1e-6).certify(x[:, np.newaxis], h[:, np.newaxis], background, **columns)


def some_activations(best, support):
    """Return points at any distance from the optimum, zero outside the support."""
    rng = np.random.default_rng(1)
    points = rng.gamma(1.0, 2.0, len(best)), best * rng.uniform(0.9, 1.1, len(best)), np.full(len(best), 1e-3)
    return [h if support is None else np.where(support, h, 0.0) for h in points]


@every_option
@pytest.mark.parametrize("beta", [*CONVEX, 1.25])
def test_gap_covers_the_excess_of_any_point(beta, options):
    V, W, keywords = random_problem(int(100 * beta), options, positive=True)
    for t in range(V.shape[1]):
        x, shape, support = frame_of(t, V, keywords)
        best, least = naive.minimum(x, W, beta, support=support, **shape)
        for h in some_activations(best, support):
            found = certified(x, h, W, beta, support, **shape)
            value = naive.objective(x, h, W, beta, support=support, **shape)
            assert value - least <= found.gap[0] + 1e-12


@every_option
@pytest.mark.parametrize("beta", CONVEX)
def test_gap_closes_at_the_optimum(beta, options):
    V, W, keywords = random_problem(int(100 * beta), options, positive=True)
    for t in range(V.shape[1]):
        x, shape, support = frame_of(t, V, keywords)
        best, least = naive.minimum(x, W, beta, support=support, **shape)
        assert certified(x, best, W, beta, support, **shape).gap[0] <= 1e-4 * (1 + least)


@every_option
@pytest.mark.parametrize("beta", BETAS)
def test_everything_that_is_reported_is_of_the_activations_passed_in(beta, options):
    V, W, keywords = random_problem(int(100 + 10 * beta), options, positive=True)
    for t in range(V.shape[1]):
        x, shape, support = frame_of(t, V, keywords)
        used = np.ones(W.shape[1], bool) if support is None else support
        of_used = shape | {name: shape[name][used] for name in ("l1", "l2") if name in shape}
        for h in some_activations(np.ones(W.shape[1]), support):
            found = certified(x, h, W, beta, support, **shape)
            value = naive.objective(x, h, W, beta, support=support, **shape)
            assert np.array_equal(found.H[:, 0], h)
            assert found.objective[0] == pytest.approx(value, rel=1e-10)
            assert found.n_iter[0] == 0
            expected = naive.kkt_residual(x, h[used], W[:, used], beta, **of_used)
            assert found.kkt[0] == pytest.approx(expected, rel=1e-8)
            size = np.nansum(np.broadcast_to(shape.get("weights", 1.0), x.shape) * x**beta)
            assert found.relative_gap[0] == pytest.approx(found.gap[0] / size, rel=1e-9, nan_ok=True)
            assert found.converged[0] == (found.criterion[0] <= 1e-6)


def test_what_the_support_forbids_counts_as_zero():
    V, W, _ = random_problem(4, (), positive=True)
    support = np.array([1, 0, 1, 1, 0])
    h = np.random.default_rng(0).gamma(1.0, 1.0, (*V[:, :1].shape[1:], 5)).T
    found = Solver(W, support=support).certify(V[:, :1], h)
    expected = Solver(W, support=support).certify(V[:, :1], h * support[:, np.newaxis])
    assert np.array_equal(found.H[:, 0], np.where(support, h[:, 0], 0.0))
    assert found.gap[0] == expected.gap[0]
    assert found.objective[0] == expected.objective[0]


def test_kullback_leibler_gap_is_the_log_of_the_largest_multiplicative_update():
    V, W, _ = random_problem(0, (), positive=True)
    x, h = V[:, 0], np.ones(W.shape[1])
    h *= x.sum() / (W @ h).sum()
    expected = x.sum() * np.log(np.max(W.T @ (x / (W @ h)) / W.sum(axis=0)))
    assert certified(x, h, W, 1.0).gap[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 0.99, 2.01, 2.5, 3.0])
def test_there_is_no_gap_outside_the_convex_range(beta):
    V, W, _ = random_problem(0, (), positive=True)
    found = certified(V[:, 0], np.ones(W.shape[1]), W, beta)
    assert np.isnan(found.gap[0])
    assert np.isnan(found.relative_gap[0])
    assert np.isfinite(found.kkt[0])


@pytest.mark.parametrize("l1", [0.0, 1e-6, 0.3, 30.0])
@pytest.mark.parametrize("beta", [1.0, 1.05, 1.25, 1.5, 1.75, 1.95, 2.0])
def test_the_scale_of_the_dual_point_is_the_least_that_is_feasible(beta, l1):
    """With one component the gap is the excess itself.

    The dual point is the model times the least number c that makes it feasible, and c h is then the optimum. A smaller
    number would prove too much, a larger one too little. A second component whose penalty forbids it changes nothing.
    """
    rng = np.random.default_rng(int(100 * beta))
    W, x = rng.gamma(1.0, 1.0, (6, 2)) + 0.1, rng.gamma(1.0, 1.0, 6) + 0.1
    best = Solver(W[:, :1], beta, l1=l1, tol=1e-13).solve(x[:, np.newaxis])
    largest = Solver(W[:, :1], beta, l1=l1).certify(x[:, np.newaxis], [[0.0]]).objective[0]
    for share in (1e-6, 0.01, 0.5, 0.9, 1.1, 3.0, 100.0):
        h = max(share * best.H[0, 0], 1e-9)
        for basis, penalty, point in ((W[:, :1], [l1], [h]), (W, [l1, 1e9], [h, 0.0])):
            found = certified(x, np.array(point), basis, beta, l1=penalty)
            excess = found.objective[0] - best.objective[0]
            assert found.gap[0] == pytest.approx(excess, rel=1e-6, abs=1e-10 * min(largest, 1e6))


@pytest.mark.parametrize("l1", [None, [0.0, 1.0], [1.0, 0.0]])
@pytest.mark.parametrize("beta", [1.0, 1.25, 1.5, 2.0])
def test_an_empty_model_is_not_taken_for_an_optimum(beta, l1):
    """Nothing holds an atom without penalty back where the model is empty; others cannot change that."""
    x, W, shape = (
        np.array([1.0, 2.0, 0.5]),
        np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        {} if l1 is None else {"l1": l1},
    )
    found = certified(x, np.zeros(2), W, beta, **shape)
    least = Solver(W, beta, tol=1e-9, **shape).solve(x[:, np.newaxis]).objective[0]
    value = sum(naive.divergence(v, 0.0, beta) for v in x) if beta > 1 else math.inf
    assert found.objective[0] == pytest.approx(value)
    assert value - least <= found.gap[0]
    assert not found.converged[0]


def test_kkt_residual_is_free_of_scales_and_zero_at_a_solution():
    V, W, _ = random_problem(3, (), positive=True)
    x, h = V[:, 0], np.ones(W.shape[1])
    one = certified(x, h, W, 1.0).kkt[0]
    scale = np.array([1e-6, 3.0, 1e9, 1.0, 7.0])
    assert 0 < one < math.inf
    assert certified(x, h / scale, W * scale, 1.0).kkt[0] == pytest.approx(one, rel=1e-9)
    assert certified(1e20 * x, 1e20 * h, W, 1.0).kkt[0] == pytest.approx(one, rel=1e-9)
    assert certified(np.array([2.0, 2.0]), np.array([2.0, 0.0]), np.array([[1.0, 1.0], [1.0, 2.0]]), 1.0).kkt[0] == 0


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("n_components", [5, 140])
def test_the_certificate_of_an_answer_is_the_one_it_came_with(beta, dtype, warm, n_components):
    """Whichever way an answer was found, its certificate is computed in double precision from what is returned."""
    V, W, _ = random_problem(8, (), n_bins=30, n_components=n_components, n_frames=11, positive=True)
    V = V.astype(dtype)
    size = np.sum(V.astype(float) ** beta, axis=0)
    for tol in (1e-1, 1e-3, 1e-5):
        solver = Solver(W, beta, tol=tol)
        found = solver.solve(V, H_init=np.ones((n_components, 11)) if warm else None)
        again = solver.certify(V, found.H)
        assert again.H.dtype == dtype
        assert np.array_equal(again.H, found.H)
        assert np.array_equal(again.converged, found.converged)
        np.testing.assert_allclose(again.objective / size, found.objective / size, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(again.gap / size, found.gap / size, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(again.kkt, found.kkt, rtol=1e-9, atol=1e-12)


class TestRounding:
    """The gap is a bound for the numbers as they are: judged in extended precision, by a point that lies lower."""

    extended = pytest.mark.skipif(
        np.finfo(np.longdouble).eps > 1e-18, reason="long double is no more than double precision on this platform"
    )

    @staticmethod
    def excess(x, h, other, W, beta, background):
        """P(h) - P(other), by differences in which no background cancels."""
        x, h, other, W, b = (np.asarray(values, np.longdouble) for values in (x, h, other, W, background))
        v, step = b + W @ other, W @ (h - other)
        log = np.log1p(step / v)
        if beta == 2:
            return (0.5 * step * (2 * (v - x) + step)).sum(axis=0)
        if beta == 1:
            return (step - x * log).sum(axis=0)
        beta = np.longdouble(beta)
        terms = v**beta * np.expm1(beta * log) / beta - x * v ** (beta - 1) * np.expm1((beta - 1) * log) / (beta - 1)
        return terms.sum(axis=0)

    @extended
    @pytest.mark.parametrize("size", [1e-9, 1.0, 1e3, 1e6, 1e9])
    @pytest.mark.parametrize("beta", [1.0, 1.001, 1.5, 1.99, 2.0])
    def test_no_point_is_lower_than_the_gap_says(self, beta, size):
        for seed in range(8):
            rng = np.random.default_rng(seed)
            n_bins, n_components = rng.integers(2, 12), rng.integers(1, 6)
            W = rng.random((n_bins, 1)) * (
                1 + 10.0 ** rng.uniform(-15, 0, n_components) * rng.random((1, n_components))
            )
            V = rng.random((n_bins, 8)) * 10.0 ** rng.uniform(-20, 20, 8)
            background = size * V.max(axis=0) * (rng.random((n_bins, 8)) + 1e-3)
            best = activations(V, W, beta, background=background, tol=1e-12, max_iter=100)
            solver = Solver(W, beta)
            for apart in (0.0, 1e-15, 1e-10, 1e-3):
                h = best.H * (1 + apart * rng.uniform(-1, 1, best.H.shape))
                found = solver.certify(V, h, background)
                assert (self.excess(V, h, best.H, W, beta, background) <= found.gap).all()
                # From the point itself: half of each activation may be lower, too.
                assert (self.excess(V, h, 0.5 * h, W, beta, background) <= found.gap).all()

    @pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
    def test_a_gap_that_rounding_hides_is_not_zero(self, beta):
        """Activations next to the optimum, beside a background of 1e6 times the data."""
        rng = np.random.default_rng(0)
        W, V = rng.random((9, 3)), rng.random((9, 20))
        found = Solver(W, beta).certify(V, np.full((3, 20), 1e-17), np.full(9, 1e6))
        assert (found.gap > 0.0).all()
        assert (Solver(W, beta).certify(V, np.zeros((3, 20)), np.full(9, 1e6)).gap == 0.0).all()

    @pytest.mark.parametrize("beta", [1.0, 1.2, 1.5, 1.9, 2.0])
    @pytest.mark.parametrize("n_bins", [8, 500])
    def test_rounding_costs_few_digits(self, beta, n_bins):
        rng = np.random.default_rng(1)
        W = rng.random((n_bins, 5)) + 0.01
        V = (W @ rng.random((5, 20))) * rng.gamma(9.0, 1 / 9, (n_bins, 20))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = activations(V, W, beta, tol=0.0)
        assert found.relative_gap.max() < 5e-13


@pytest.mark.parametrize("beta", [1.5, 1.75, 1.99])
def test_asking_for_more_than_rounding_allows_gives_the_best_that_was_found(beta):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        W = rng.random((8, 5)) * (rng.random((8, 5)) < 0.6) + 1e-6
        V = rng.gamma(0.3, 1.0, (8, 8))
        background = rng.random((8, 8)) * 10.0 ** rng.uniform(-9, 9, 8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = activations(V, W, beta, background=background, tol=0.0)
        assert found.relative_gap.max() < 1e-5


@pytest.mark.parametrize("beta", CONVEX)
@pytest.mark.parametrize("data", [[0.0, 0.0], [1e-3, 0.0], [1.0, 1.0]])
def test_a_component_of_zeros_takes_what_a_total_asks_for_in_excess(beta, data):
    # Of the total, 1, the first component takes what suits the data; the one of zeros takes the rest at no cost.
    W = np.array([[1.0, 0.0], [2.0, 0.0]])
    V = np.array([data]).T
    alone = activations(V, W[:, :1], beta, tol=1e-12).H[0, 0]
    assert alone < 1.0
    for weights in (None, np.full((2, 1), 3.0)):
        found = activations(V, W, beta, weights=weights, tol=1e-10, total=1.0)
        assert found.converged.all()
        np.testing.assert_allclose(found.H[:, 0], [alone, 1.0 - alone], atol=1e-6)


def test_totals_of_frames_without_data_are_met_at_the_lowest_cost():
    W = np.array([[1.0, 0.1, 0.5], [1.0, 0.2, 0.5]])
    found = activations(np.zeros((2, 1)), W, total=2.0)
    np.testing.assert_array_equal(found.H[:, 0], [0.0, 2.0, 0.0])
    assert found.converged.all()
    # Where all is missing, any activations with the total are optimal.
    found = activations(np.full((2, 1), np.nan), W, total=2.0)
    np.testing.assert_allclose(found.H.sum(axis=0), 2.0, rtol=1e-15)
    assert found.gap[0] == 0.0

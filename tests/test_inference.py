"""Test errors, intervals, goodness of fit and selection against closed forms, formulas written out, and simulations."""

import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse
from scipy.stats import chi2, norm, poisson
from sklearn.exceptions import ConvergenceWarning

import knownmf
from knownmf.inference.poisson import LARGEST_SUMMED, moments
from problems import random_problem

RNG = np.random.default_rng(20)
# The basis and 40 frames of counts: 4 of 10 components, about 10 counts a bin.
W10 = RNG.dirichlet(np.full(30, 0.5), 10).T
H10 = RNG.gamma(4.0, 20.0, (10, 40)) * (np.argsort(RNG.random((10, 40)), axis=0) < 4)
COUNTS = RNG.poisson(W10 @ H10).astype(float)


def poisson_regression_errors(x, A, h, weights, background):
    """Return the standard errors of a Poisson regression with the identity link, from its information, bin by bin."""
    information = np.zeros((len(h), len(h)))
    for f in range(len(x)):
        if not np.isnan(x[f]):
            information += weights[f] * np.outer(A[f], A[f]) / (background[f] + A[f] @ h)
    return np.sqrt(np.diag(np.linalg.inv(information)))


class TestStandardErrors:
    def test_one_component_has_a_closed_form(self):
        W = np.array([[0.2], [0.3], [0.5]])
        V = np.array([[30.0], [31.0], [60.0]])
        found = knownmf.activations(V, W, tol=1e-12)
        # W sums to one: h is the total, whose standard error is its square root.
        np.testing.assert_allclose(knownmf.standard_errors(V, W, found), [[np.sqrt(121)]])

    def test_they_are_those_of_a_poisson_regression(self):
        V, W = COUNTS.copy(), W10
        V[RNG.random(V.shape) < 0.1] = np.nan
        weights, background = RNG.gamma(3.0, 0.3, V.shape), RNG.gamma(1.0, 0.5, 30)
        found = knownmf.activations(V, W, weights=weights, background=background, tol=1e-10)
        # With a dispersion, the variance of a bin is v / m.
        errors = knownmf.standard_errors(V, W, found, 1.0, weights=weights, background=background)
        for t in range(40):
            active = np.flatnonzero(found.H[:, t])
            expected = poisson_regression_errors(V[:, t], W[:, active], found.H[active, t], weights[:, t], background)
            np.testing.assert_allclose(errors[active, t], expected, rtol=1e-8)
            assert np.isnan(errors[found.H[:, t] == 0, t]).all()

    @pytest.mark.parametrize("total", [None, 400.0])
    def test_weighted_counts_have_the_variance_of_counts(self, total):
        rng = np.random.default_rng(60)
        W = W10[:, :3]
        weights = rng.choice([0.2, 3.0], 30)
        V = rng.poisson(W @ np.repeat([[100.0], [120.0], [180.0]], 4000, axis=1))
        found = knownmf.activations(V, W, weights=weights, total=total, tol=1e-8)
        errors = knownmf.standard_errors(V, W, found, weights=weights)
        # The spread of 4000 frames is known to 1 %; of a dispersion of 1, errors would be far smaller.
        np.testing.assert_allclose(errors.mean(axis=1), found.H.std(axis=1), rtol=0.05)
        resampled = knownmf.bootstrap(V[:, :1], W, 3000, random_state=0, weights=weights, total=total)
        np.testing.assert_allclose(errors[:, 0], resampled.standard_errors[:, 0], rtol=0.06)

    def test_weights_of_zero_and_one_leave_out_bins(self):
        weights = np.where(np.arange(30) % 4 > 0, 1.0, 0.0)
        found = knownmf.activations(COUNTS, W10, weights=weights, tol=1e-10)
        errors = knownmf.standard_errors(COUNTS, W10, found, weights=weights)
        np.testing.assert_allclose(errors, knownmf.standard_errors(COUNTS, W10, found, 1.0, weights=weights))

    def test_least_squares_has_those_of_linear_regression(self):
        V, W, keywords = random_problem(1, ("weights_per_bin",), n_bins=20)
        weights = keywords["weights"]
        found = knownmf.activations(V, W, "frobenius", weights=weights)
        errors = knownmf.standard_errors(V, W, found, weights=weights)
        known = knownmf.standard_errors(V, W, found, dispersion=4.0, weights=weights)
        for t in range(V.shape[1]):
            active = np.flatnonzero(found.H[:, t])
            A = np.sqrt(weights)[:, np.newaxis] * W[:, active]
            y = np.sqrt(weights) * V[:, t]
            residual = y - A @ np.linalg.lstsq(A, y)[0]
            variance = residual @ residual / (20 - len(active))
            expected = np.sqrt(np.diag(np.linalg.inv(A.T @ A)))
            np.testing.assert_allclose(errors[active, t], np.sqrt(variance) * expected, rtol=1e-6)
            np.testing.assert_allclose(known[active, t], 2 * expected, rtol=1e-8)

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.5])
    def test_other_losses_use_their_variance_function(self, beta):
        V, W, _ = random_problem(2, (), n_bins=20, positive=True)
        found = knownmf.activations(V, W, beta, tol=1e-6, max_iter=1000)
        errors = knownmf.standard_errors(V, W, found)
        for t in range(V.shape[1]):
            active = np.flatnonzero(found.H[:, t])
            A, v = W[:, active], W @ found.H[:, t]
            pearson = ((V[:, t] - v) ** 2 / v ** (2 - beta)).sum() / (20 - len(active))
            covariance = pearson * np.linalg.inv((A.T * v ** (beta - 2)) @ A)
            np.testing.assert_allclose(errors[active, t], np.sqrt(np.diag(covariance)), rtol=1e-8)

    def test_sparse_data_have_those_of_dense_data(self):
        weights = RNG.gamma(3.0, 0.3, 30)
        for beta in (1.0, 2.0):
            found = knownmf.activations(COUNTS, W10, beta, weights=weights, tol=1e-10)
            dense = knownmf.standard_errors(COUNTS, W10, found, weights=weights)
            sparse = knownmf.standard_errors(scipy.sparse.csr_array(COUNTS), W10, found, weights=weights)
            np.testing.assert_allclose(sparse, dense)

    def test_pearson_is_used_unless_the_data_are_counts(self):
        found = knownmf.activations(COUNTS, W10, tol=1e-10)
        one, pearson = (knownmf.standard_errors(COUNTS, W10, found, dispersion) for dispersion in (1.0, "pearson"))
        np.testing.assert_array_equal(knownmf.standard_errors(COUNTS, W10, found), one)
        scaled = knownmf.activations(COUNTS / 7, W10, tol=1e-10)
        # The unit of the data does not matter with Pearson's estimate.
        np.testing.assert_allclose(7 * knownmf.standard_errors(COUNTS / 7, W10, scaled), pearson, rtol=1e-3)
        assert not np.allclose(one, pearson, rtol=0.01, equal_nan=True)

    def test_components_that_depend_on_each_other_have_infinite_errors(self):
        W = np.column_stack([W10[:, :2], W10[:, 0] + W10[:, 1], W10[:, 5]])
        V = (W @ [[30.0], [40.0], [50.0], [60.0]]).round()
        H = np.array([[30.0], [40.0], [50.0], [60.0]])
        found = knownmf.Solver(W).certify(V, H)
        errors = knownmf.standard_errors(V, W, found)[:, 0]
        assert np.isinf(errors[:3]).all()
        model = (W @ H)[:, 0]
        A = W10[:, [0, 1, 5]]
        np.testing.assert_allclose(errors[3], np.sqrt(np.linalg.inv((A.T / model) @ A)[2, 2]), rtol=1e-6)

    def test_intervals_cover_the_truth_if_the_support_is_known(self):
        rng = np.random.default_rng(0)
        H = np.repeat([[100.0], [300.0], [500.0]], 4000, axis=1)
        V = rng.poisson(W10[:, :3] @ H).astype(float)
        found = knownmf.activations(V, W10[:, :3], tol=1e-8)
        errors = knownmf.standard_errors(V, W10[:, :3], found)
        covered = (np.abs(found.H - H) <= 1.96 * errors).mean(axis=1)
        # The share of 4000 frames scatters by 0.0035.
        assert (np.abs(covered - 0.95) < 0.02).all()
        np.testing.assert_allclose(found.H.std(axis=1), errors.mean(axis=1), rtol=0.05)

    def test_what_does_not_belong_to_found_is_refused(self):
        found = knownmf.activations(COUNTS, W10)
        with pytest.raises(ValueError, match=r"frame 0 a divergence of .* found has"):
            knownmf.standard_errors(COUNTS, W10, found, weights=np.full(30, 2.0))
        with pytest.raises(ValueError, match="pass those that found was solved with"):
            knownmf.standard_errors(COUNTS, W10, found, background=np.ones(30))
        with pytest.raises(ValueError, match=r"found.H has shape \(10, 40\)"):
            knownmf.standard_errors(COUNTS[:, :5], W10, found)
        with pytest.raises(TypeError, match="found is of type ndarray"):
            knownmf.standard_errors(COUNTS, W10, found.H)
        with pytest.raises(ValueError, match="solved with penalties"):
            knownmf.standard_errors(COUNTS, W10, knownmf.activations(COUNTS, W10, l2=1e-3))
        with pytest.raises(ValueError, match="dispersion is 'deviance'"):
            knownmf.standard_errors(COUNTS, W10, found, "deviance")
        with pytest.raises(ValueError, match=r"dispersion has shape \(3,\)"):
            knownmf.standard_errors(COUNTS, W10, found, [1.0, 2.0, 3.0])

    @pytest.mark.parametrize("beta", [-1.0, 0.0, 1.0, 1.5, 2.0, 3.0])
    def test_what_belongs_to_found_is_accepted_with_zeros_and_bins_that_nothing_reaches(self, beta):
        V, W, keywords = random_problem(8, ("missing", "weights"), positive=False)
        W[0] = 0.0
        V[:, 2] = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = knownmf.activations(V, W, beta, weights=keywords["weights"])
        errors = knownmf.standard_errors(V, W, found, 1.0, weights=keywords["weights"])
        assert np.array_equal(np.isnan(errors), found.H == 0)

    def test_float32_tables_and_no_frames(self):
        pandas = pytest.importorskip("pandas")
        found = knownmf.activations(COUNTS.astype(np.float32), W10)
        table = pandas.DataFrame(COUNTS)
        assert knownmf.standard_errors(table, W10, found).dtype == np.float64
        none = np.zeros((30, 0))
        assert knownmf.standard_errors(none, W10, knownmf.activations(none, W10)).shape == (10, 0)


class TestGoodnessOfFit:
    @pytest.mark.parametrize("v", [1e-9, 1e-3, 0.2, 1.0, 5.0, 30.0, 49.9, 50.1, 80.0, 300.0])
    def test_moments_are_those_of_the_distribution(self, v):
        counts = np.arange(2000)
        probability = poisson.pmf(counts, v)

        def deviance(v):
            return 2 * (counts * np.log(np.maximum(counts, 1) / v) - counts + v)

        def expectation(values):
            return (probability * values).sum()

        d, u = deviance(v), counts - v
        mean = expectation(d)
        got = moments(np.array([v]))
        # The first terms that the series omits are below 1e-5 at the smallest expectations for which it is used.
        close = {"rtol": 1e-9 if v <= LARGEST_SUMMED else 2e-5}
        np.testing.assert_allclose(got.mean, mean, **close)
        np.testing.assert_allclose(got.variance, expectation((d - mean) ** 2), **close)
        np.testing.assert_allclose(got.third, expectation((d - mean) ** 3), **close)
        np.testing.assert_allclose(got.with_square, expectation((d - mean) * u**2), **close)
        np.testing.assert_allclose(v * got.slope, expectation((d - mean) * u), rtol=1e-4, atol=1e-9)
        step = 1e-2 * v
        means = [moments(np.array([v + shift])).mean[0] for shift in (-step, 0, step)]
        if abs(v - LARGEST_SUMMED) > step:
            np.testing.assert_allclose(got.bend, np.diff(means, 2)[0] / step**2, rtol=2e-3, atol=1e-7)

    def test_many_counts_give_the_chi_square_distribution(self):
        rng = np.random.default_rng(0)
        V = rng.poisson(1e6 * W10[:, :4] @ rng.gamma(5.0, 1.0, (4, 50)) + 1e5).astype(float)
        background = np.full(30, 1e5)
        found = knownmf.activations(V, W10[:, :4], background=background, tol=1e-12)
        fit = knownmf.goodness_of_fit(V, W10[:, :4], found, background=background)
        np.testing.assert_allclose(fit.expected, 26, rtol=1e-4)
        np.testing.assert_allclose(fit.z, (found.deviance - 26) / np.sqrt(52), atol=1e-3)
        np.testing.assert_allclose(fit.p_value, chi2.sf(found.deviance, 26), atol=1e-3)

    @pytest.mark.parametrize("per_bin", [1, 10, 1000])
    def test_good_fits_are_rejected_as_often_as_they_should_be(self, per_bin):
        rng = np.random.default_rng(1)
        W = rng.dirichlet(np.full(96, 0.5), 5).T
        V = rng.poisson(W @ (rng.dirichlet(np.ones(5), 4000).T * 96 * per_bin)).astype(float)
        fit = knownmf.goodness_of_fit(V, W, knownmf.activations(V, W, tol=1e-8))
        # The share of 4000 frames scatters by 0.0035 around 0.05.
        assert 0.035 < np.mean(fit.p_value < 0.05) < 0.065
        assert abs(np.mean(fit.z)) < 0.1
        assert abs(np.std(fit.z) - 1) < 0.05

    def test_bad_fits_are_rejected(self):
        V = np.roll(COUNTS, 1, axis=0)
        fit = knownmf.goodness_of_fit(V, W10, knownmf.activations(V, W10))
        assert (fit.p_value < 1e-3).all()
        assert repr(fit) == "GoodnessOfFit(40 of 40 frames with a p-value below 0.05)"

    def test_missing_bins_count_as_if_they_were_not_there(self):
        V, rest = COUNTS.copy(), np.arange(30) % 5 > 0
        V[~rest] = np.nan
        found = knownmf.activations(V, W10, tol=1e-10)
        fit = knownmf.goodness_of_fit(V, W10, found)
        without = knownmf.activations(COUNTS[rest], W10[rest], tol=1e-10)
        expected = knownmf.goodness_of_fit(COUNTS[rest], W10[rest], without)
        np.testing.assert_allclose(fit.z, expected.z, rtol=1e-4, atol=1e-6)

    def test_sparse_counts_and_frames_without_counts(self):
        V = COUNTS.copy()
        V[:, 5] = 0
        found = knownmf.activations(V, W10, tol=1e-10)
        dense = knownmf.goodness_of_fit(V, W10, found)
        sparse = knownmf.goodness_of_fit(scipy.sparse.csc_array(V), W10, found)
        np.testing.assert_allclose(sparse.z, dense.z)
        assert np.array_equal(np.flatnonzero(np.isnan(dense.z)), [5])
        assert np.array_equal(np.flatnonzero(np.isnan(dense.p_value)), [5])

    def test_least_squares_with_known_noise(self):
        rng = np.random.default_rng(2)
        V = W10[:, :3] @ np.full((3, 3000), 50.0) + rng.normal(0.0, 0.3, (30, 3000))
        found = knownmf.activations(V, W10[:, :3], "frobenius")
        fit = knownmf.goodness_of_fit(V, W10[:, :3], found, dispersion=0.09)
        np.testing.assert_allclose(fit.p_value, chi2.sf(found.deviance / 0.09, 27), rtol=1e-8)
        assert 0.035 < np.mean(fit.p_value < 0.05) < 0.065

    def test_what_has_no_known_distribution_is_refused(self):
        found = knownmf.activations(COUNTS, W10)
        with pytest.raises(ValueError, match="not whole numbers"):
            knownmf.goodness_of_fit(COUNTS / 3, W10, knownmf.activations(COUNTS / 3, W10))
        with pytest.raises(ValueError, match="dispersion is for least squares"):
            knownmf.goodness_of_fit(COUNTS, W10, found, dispersion=2.0)
        with pytest.raises(ValueError, match="dispersion is None: pass the variance"):
            knownmf.goodness_of_fit(COUNTS, W10, knownmf.activations(COUNTS, W10, "frobenius"))
        with pytest.raises(ValueError, match=r"found has beta=1.5"):
            knownmf.goodness_of_fit(COUNTS, W10, knownmf.activations(COUNTS, W10, 1.5))


class TestBootstrap:
    def test_poisson_intervals_of_one_component_are_those_of_the_total(self):
        W = np.array([[0.2], [0.3], [0.5]])
        result = knownmf.bootstrap([[180], [330], [490]], W, 4000, quantiles=(0.1, 0.9), random_state=0)
        # The total of the resamples is a Poisson count with the expectation 1000.
        np.testing.assert_allclose(result.quantiles[:, 0, 0], poisson.ppf([0.1, 0.9], 1000), atol=4)
        np.testing.assert_allclose(result.standard_errors, np.sqrt(1000), rtol=0.05)
        assert result.frequency[0, 0] == 1
        assert result.levels == (0.1, 0.9)

    def test_multinomial_resamples_keep_the_total(self):
        W = np.array([[0.2], [0.3], [0.5]])
        lower, upper = knownmf.bootstrap([[180], [330], [490]], W, 50, "multinomial", random_state=0).quantiles
        np.testing.assert_allclose([lower[0, 0], upper[0, 0]], 1000)

    def test_multinomial_resamples_have_the_errors_of_shares(self):
        W = np.eye(3)
        V = np.array([[200], [300], [500]])
        result = knownmf.bootstrap(V, W, 4000, "multinomial", random_state=1)
        share = V / 1000
        np.testing.assert_allclose(result.standard_errors, np.sqrt(1000 * share * (1 - share)), rtol=0.05)

    def test_residual_resamples_have_the_errors_of_linear_regression(self):
        rng = np.random.default_rng(3)
        W = rng.gamma(1.0, 1.0, (200, 3))
        V = W @ [[5.0], [7.0], [9.0]] + rng.normal(0.0, 0.5, (200, 1))
        found = knownmf.activations(V, W, "frobenius")
        result = knownmf.bootstrap(V, W, 3000, "residual", random_state=0, beta_loss="frobenius")
        errors = knownmf.standard_errors(V, W, found)
        np.testing.assert_allclose(result.standard_errors, errors, rtol=0.06)
        middle = result.quantiles.mean(axis=0)
        np.testing.assert_allclose(middle, found.H, atol=0.2 * errors.max())
        width = np.diff(result.quantiles, axis=0)[0] / errors
        np.testing.assert_allclose(width, 2 * norm.ppf(0.975), rtol=0.1)

    @pytest.mark.parametrize("model", ["poisson", "multinomial", "residual"])
    def test_errors_agree_with_the_fisher_information_for_many_counts(self, model):
        rng = np.random.default_rng(4)
        W = W10[:, :4]
        V = rng.poisson(1000 * W @ rng.gamma(9.0, 1.0, (4, 6))).astype(float)
        found = knownmf.activations(V, W, tol=1e-10)
        result = knownmf.bootstrap(V, W, 1000, model, random_state=0)
        # The total is fixed under "multinomial", which takes its variance away.
        errors = knownmf.standard_errors(V, W, found, "pearson" if model == "residual" else 1.0)
        expected = errors if model != "multinomial" else np.sqrt(errors**2 - found.H**2 / found.H.sum(axis=0))
        np.testing.assert_allclose(result.standard_errors, expected, rtol=0.25)
        assert abs(np.mean(result.standard_errors / expected) - 1) < 0.1

    def test_the_result_depends_on_neither_threads_nor_neighbors(self):
        before = knownmf.get_num_threads()
        results = []
        try:
            for n_threads in (1, 3):
                knownmf.set_num_threads(n_threads)
                results.append(knownmf.bootstrap(COUNTS, W10, 20, random_state=7))
        finally:
            knownmf.set_num_threads(before)
        few = knownmf.bootstrap(COUNTS[:, :3], W10, 20, random_state=7)
        for name in ("quantiles", "standard_errors", "frequency"):
            one, other = (getattr(result, name) for result in results)
            np.testing.assert_array_equal(one, other)
            np.testing.assert_allclose(getattr(few, name), one[..., :3], rtol=1e-9)
        other_seed = knownmf.bootstrap(COUNTS[:, :3], W10, 20, random_state=8)
        assert not np.array_equal(other_seed.quantiles, few.quantiles)
        for make in (np.random.default_rng, np.random.RandomState):
            same = [knownmf.bootstrap(COUNTS[:, :3], W10, 20, random_state=make(1)).quantiles for _ in "ab"]
            np.testing.assert_array_equal(*same)
            generator = make(1)
            first, second = (knownmf.bootstrap(COUNTS[:, :3], W10, 20, random_state=generator) for _ in "ab")
            np.testing.assert_array_equal(first.quantiles, same[0])
            assert not np.array_equal(second.quantiles, first.quantiles)

    @pytest.mark.parametrize("scale", [1, 30])
    @pytest.mark.parametrize("options", [(), ("weights", "missing", "background", "support"), ("weights_per_bin",)])
    def test_resamples_are_solved_as_activations_solves_them(self, options, scale):
        """Draw the documented resamples again, and solve them by another call; the start must not matter."""
        _, _, keywords = random_problem(5, options, n_bins=30, n_components=10, n_frames=5)
        V = scale * COUNTS[:, :5]
        if "missing" in options:
            V[::7, 1:3] = np.nan
        result = knownmf.bootstrap(V, W10, 30, quantiles=(0.0, 0.5, 1.0), random_state=9, **keywords)
        model = W10 @ result.found.H + keywords.get("background", 0.0)
        for t in range(5):
            rng = np.random.default_rng(np.random.SeedSequence(9, spawn_key=(t,)))
            own = {name: a if a.ndim == 1 else np.repeat(a[:, [t]], 30, axis=1) for name, a in keywords.items()}
            observed = ~np.isnan(V[:, t])
            if "weights" in own:
                observed &= (own["weights"] > 0).reshape(30, -1)[:, 0]
            resamples = np.full((30, 30), np.nan)
            resamples[observed] = rng.poisson(model[observed, t], (30, observed.sum())).T
            H = knownmf.activations(resamples, W10, tol=1e-10, **own).H
            np.testing.assert_allclose(
                result.quantiles[:, :, t], np.quantile(H, [0, 0.5, 1], axis=1), rtol=1e-2, atol=0.05
            )
            np.testing.assert_allclose(result.standard_errors[:, t], H.std(axis=1, ddof=1), rtol=1e-2, atol=0.05)

    def test_sparse_counts(self):
        V = scipy.sparse.csr_array(COUNTS[:, :4])
        sparse = knownmf.bootstrap(V, W10, 20, random_state=0)
        dense = knownmf.bootstrap(COUNTS[:, :4], W10, 20, random_state=0)
        np.testing.assert_allclose(sparse.quantiles, dense.quantiles, rtol=1e-3, atol=1e-2)

    def test_memory_does_not_grow_with_the_number_of_frames(self):
        W = np.random.default_rng(0).dirichlet(np.full(400, 0.5), 3).T
        V = (W @ np.full((3, 100), 500.0)).round()
        tracemalloc.start()
        try:
            knownmf.bootstrap(V, W, 400, random_state=0, beta_loss="frobenius")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        all_resamples = 8 * 400 * 400 * 100
        assert peak < 0.7 * all_resamples

    def test_progress_empty_frames_and_no_frames(self):
        seen = []
        V = COUNTS.copy()
        V[:, 0] = 0
        result = knownmf.bootstrap(V, W10, 3, progress=lambda done, n: seen.append((done, n)))
        assert seen[-1] == (40, 40)
        assert not result.quantiles[:, :, 0].any()
        assert knownmf.bootstrap(np.zeros((30, 0)), W10, 3).quantiles.shape == (2, 10, 0)

    def test_data_that_do_not_suit_the_model_are_refused(self):
        with pytest.raises(ValueError, match="values that are not whole numbers, but model is 'poisson'"):
            knownmf.bootstrap(COUNTS / 3, W10)
        with pytest.raises(ValueError, match="negative values, but model is 'multinomial'"):
            knownmf.bootstrap(COUNTS - 5, W10, model="multinomial", beta_loss="frobenius")
        with pytest.raises(ValueError, match="model is 'residual' and beta_loss is 0"):
            knownmf.bootstrap(COUNTS, W10, model="residual", beta_loss=0.0)
        with pytest.raises(ValueError, match="model is 'gauss'"):
            knownmf.bootstrap(COUNTS, W10, model="gauss")
        with pytest.raises(ValueError, match="n_resamples is 1"):
            knownmf.bootstrap(COUNTS, W10, 1)
        with pytest.raises(ValueError, match=r"a level in quantiles is 97\.5"):
            knownmf.bootstrap(COUNTS, W10, quantiles=(0.025, 97.5))
        with pytest.raises(ValueError, match="random_state is -1"):
            knownmf.bootstrap(COUNTS, W10, random_state=-1)

    def test_missed_tolerances_are_told(self):
        with pytest.warns(ConvergenceWarning) as told:
            result = knownmf.bootstrap(COUNTS[:, :2], W10, 5, random_state=0, tol=0.0, max_iter=1)
        assert any("resamples missed tol=0" in str(warning.message) for warning in told)
        assert (result.n_missed > 0).all()


class TestLimits:
    """Upper bounds and totals: the errors are those of the activations that may still change."""

    # Shares of four components, which sum to one, in 200 bins with noise of a known variance.
    W = np.random.default_rng(30).gamma(1.0, 1.0, (200, 4))
    SHARES = np.array([0.2, 0.3, 0.1, 0.4])

    def draws(self, n_frames=2000, sigma=0.3):
        rng = np.random.default_rng(31)
        return (self.W @ self.SHARES)[:, np.newaxis] + rng.normal(0.0, sigma, (200, n_frames))

    def test_errors_with_a_total_are_those_of_the_other_parametrization(self):
        V = self.draws(5)
        found = knownmf.activations(V, self.W, "frobenius", total=1.0)
        errors = knownmf.standard_errors(V, self.W, found, dispersion=0.09)
        # Without the last share: V - w4 = sum over the others of (w_k - w4) h_k, an ordinary regression.
        A = self.W[:, :3] - self.W[:, 3:]
        covariance = 0.09 * np.linalg.inv(A.T @ A)
        last = np.sqrt(np.ones(3) @ covariance @ np.ones(3))
        expected = np.r_[np.sqrt(np.diag(covariance)), last]
        np.testing.assert_allclose(errors, np.repeat(expected[:, np.newaxis], 5, axis=1), rtol=1e-9)
        np.testing.assert_array_equal(errors, knownmf.standard_errors(V, self.W, found, 0.09, total=1.0))

    def test_errors_with_a_total_are_the_spread_of_repetitions_and_smaller_than_without(self):
        V = self.draws()
        found = knownmf.activations(V, self.W, "frobenius", total=1.0)
        errors = knownmf.standard_errors(V, self.W, found, dispersion=0.09)
        np.testing.assert_allclose(found.H.std(axis=1), errors.mean(axis=1), rtol=0.06)
        free = knownmf.activations(V, self.W, "frobenius")
        assert (errors < knownmf.standard_errors(V, self.W, free, dispersion=0.09)).all()

    def test_pearson_and_the_goodness_of_fit_count_a_total(self):
        V = self.draws(3000)
        found = knownmf.activations(V, self.W, "frobenius", total=1.0)
        fit = knownmf.goodness_of_fit(V, self.W, found, dispersion=0.09)
        np.testing.assert_array_equal(fit.expected, 197)
        assert 0.035 < np.mean(fit.p_value < 0.05) < 0.065
        ratio = knownmf.standard_errors(V, self.W, found) / knownmf.standard_errors(V, self.W, found, 1.0)
        pearson = ((V - self.W @ found.H) ** 2).sum(axis=0) / 197
        np.testing.assert_allclose(ratio, np.repeat(np.sqrt(pearson)[np.newaxis], 4, axis=0), rtol=1e-9)

    def test_goodness_of_fit_of_counts_with_a_total(self):
        rng = np.random.default_rng(32)
        W = rng.dirichlet(np.full(96, 0.5), 5).T
        V = rng.poisson(W @ np.full((5, 3000), 100.0)).astype(float)
        found = knownmf.activations(V, W, total=500.0, tol=1e-8)
        fit = knownmf.goodness_of_fit(V, W, found)
        assert 0.035 < np.mean(fit.p_value < 0.05) < 0.065
        assert abs(np.mean(fit.z)) < 0.1

    def test_activations_at_their_bounds_have_no_errors(self):
        V = self.draws(5)
        upper = np.array([0.1, 1.0, 1.0, 1.0])
        found = knownmf.activations(V, self.W, "frobenius", upper=upper)
        errors = knownmf.standard_errors(V, self.W, found, dispersion=0.09)
        assert np.isnan(errors[0]).all()
        A = self.W[:, 1:]
        expected = 0.3 * np.sqrt(np.diag(np.linalg.inv(A.T @ A)))
        np.testing.assert_allclose(errors[1:], np.repeat(expected[:, np.newaxis], 5, axis=1), rtol=1e-9)

    def test_a_maximal_total_counts_where_it_is_reached(self):
        V = np.column_stack([self.draws(1), 0.5 * self.draws(1)])
        found = knownmf.activations(V, self.W, "frobenius", max_total=0.8)
        errors = knownmf.standard_errors(V, self.W, found, dispersion=0.09)
        with_total = knownmf.activations(V[:, :1], self.W, "frobenius", total=0.8)
        without = knownmf.activations(V[:, 1:], self.W, "frobenius")
        one = knownmf.standard_errors(V[:, :1], self.W, with_total, dispersion=0.09)
        other = knownmf.standard_errors(V[:, 1:], self.W, without, dispersion=0.09)
        np.testing.assert_allclose(errors, np.hstack([one, other]), rtol=1e-9)

    def test_a_total_determines_what_the_data_do_not(self):
        # The data know the sum of the two differences only: with a total, all three are known.
        W = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [1.0, 1.0, 1.0]])
        V = W @ [[1.0], [2.0], [3.0]]
        free = knownmf.Solver(W, "frobenius").certify(V, [[1.0], [2.0], [3.0]])
        assert np.isinf(knownmf.standard_errors(V, W, free, 1.0)).all()
        W = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
        V = W @ [[1.0], [2.0], [3.0]]
        free = knownmf.Solver(W, "frobenius").certify(V, [[1.0], [2.0], [3.0]])
        assert np.array_equal(np.isinf(knownmf.standard_errors(V, W, free, 1.0)[:, 0]), [True, False, True])
        fixed = knownmf.Solver(W, "frobenius", total=6.0).certify(V, [[1.0], [2.0], [3.0]])
        A = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])  # the last row is exact
        inverse = np.linalg.inv(A)[:, :2]
        expected = np.sqrt((inverse**2).sum(axis=1))
        np.testing.assert_allclose(knownmf.standard_errors(V, W, fixed, 1.0)[:, 0], expected, rtol=1e-9)

    def test_a_single_component_with_a_total_is_exact(self):
        found = knownmf.activations([[3.0], [1.0]], [[0.5], [0.5]], total=4.0)
        np.testing.assert_array_equal(knownmf.standard_errors([[3.0], [1.0]], [[0.5], [0.5]], found), [[0.0]])

    def test_limits_that_found_does_not_satisfy_are_refused(self):
        V = self.draws(3)
        found = knownmf.activations(V, self.W, "frobenius")
        with pytest.raises(ValueError, match="do not satisfy total"):
            knownmf.standard_errors(V, self.W, found, total=1.0)

    @pytest.mark.parametrize("limits", [{"total": 1.0}, {"max_total": 0.95}, {"upper": 0.35, "total": 1.0}])
    def test_resamples_keep_the_limits(self, limits):
        V = self.draws(4)
        result = knownmf.bootstrap(V, self.W, 50, "residual", (0.0, 1.0), 0, beta_loss="frobenius", **limits)
        again = knownmf.activations(V, self.W, "frobenius", **limits)
        np.testing.assert_allclose(result.found.H, again.H, rtol=1e-9)
        assert (result.quantiles <= limits.get("upper", np.inf) * (1 + 1e-12)).all()
        if "total" in limits and "upper" not in limits:
            errors = knownmf.standard_errors(V, self.W, result.found)
            np.testing.assert_allclose(result.standard_errors, errors, rtol=0.4)

    def test_resamples_of_counts_keep_a_total_of_each_frame(self):
        totals = COUNTS[:, :6].sum(axis=0)
        result = knownmf.bootstrap(COUNTS[:, :6], W10, 1000, "poisson", (0.0, 1.0), 0, total=totals)
        np.testing.assert_allclose(result.found.H.sum(axis=0), totals)
        # The mean over the resamples of the sum is the total, whose spread is none: the largest of one component
        # cannot exceed it.
        assert (result.quantiles[1] <= totals * (1 + 1e-12)).all()
        assert (result.quantiles[1].sum(axis=0) > totals).all()

    def test_selection_keeps_the_limits(self):
        rng = np.random.default_rng(33)
        W = rng.gamma(1.0, 1.0, (150, 10))
        H = np.zeros((10, 30))
        H[[2, 5, 8]] = rng.dirichlet(np.full(3, 5.0), 30).T
        V = W @ H + rng.normal(0.0, 0.2, (150, 30))
        for limits in ({"total": 1.0}, {"total": np.ones(30), "upper": 0.8}, {"max_total": 1.0}):
            result = knownmf.select(V, W, beta_loss="frobenius", **limits)
            again = knownmf.activations(V, W, "frobenius", support=result.support, **limits)
            np.testing.assert_allclose(result.found.H, again.H, atol=1e-6)
            assert (result.support == (H > 0)).mean() > 0.95

    def test_selection_never_makes_a_total_impossible(self):
        # Bounds of 0.3 need four components for a total of 1, whatever the criterion is.
        V = self.draws(6)
        result = knownmf.select(V, self.W, 1e6, beta_loss="frobenius", total=1.0, upper=0.3)
        np.testing.assert_allclose(result.found.H.sum(axis=0), 1.0)
        assert (result.support.sum(axis=0) == 4).all()
        one = knownmf.select(V, self.W, 1e6, beta_loss="frobenius", total=1.0)
        assert (one.support.sum(axis=0) == 1).all()
        with pytest.raises(ValueError, match=r"sum to 0\.4"):
            knownmf.select(V, self.W, beta_loss="frobenius", total=1.0, upper=0.1)


class TestBinsThatNothingReaches:
    """A bin with data where W is zero costs the same whatever the activations are, and must not count."""

    @staticmethod
    def data(value):
        rng = np.random.default_rng(40)
        W = rng.dirichlet(np.full(40, 0.5), 6).T
        W[7] = 0.0
        V = W @ [[300.0], [200.0], [0.0], [0.0], [0.0], [0.0]] * (1 + 0.02 * rng.normal(size=(40, 1)))
        V[7] = value
        return V, W, np.arange(40) != 7

    @pytest.mark.parametrize("beta", [1.0, 1.1, 1.5, 1.9])
    @pytest.mark.parametrize("value", [0.01, 2.0])
    def test_errors_and_selection_are_those_without_the_bin(self, beta, value):
        V, W, rest = self.data(value)
        options = {"beta_loss": beta, "tol": 1e-8}
        found = knownmf.activations(V, W, **options)
        without = knownmf.activations(V[rest], W[rest], **options)
        expected = knownmf.standard_errors(V[rest], W[rest], without)
        np.testing.assert_allclose(knownmf.standard_errors(V, W, found), expected, rtol=1e-2)
        support = knownmf.select(V, W, beta_loss=beta).support
        np.testing.assert_array_equal(support, knownmf.select(V[rest], W[rest], beta_loss=beta).support)
        assert support[:2].all()

    @pytest.mark.parametrize("beta", [1.0, 1.5])
    def test_residuals_are_drawn_without_the_bin(self, beta):
        V, W, rest = self.data(2.0)
        all_bins, without = (
            knownmf.bootstrap(V[bins], W[bins], 300, "residual", random_state=0, beta_loss=beta).standard_errors[:2]
            for bins in (slice(None), rest)
        )
        np.testing.assert_allclose(all_bins, without, rtol=0.2)

    def test_least_squares_uses_the_bin(self):
        V, W, _ = self.data(2.0)
        found = knownmf.activations(V, W, "frobenius")
        active = found.H[:, 0] > 0
        variance = ((V - W @ found.H) ** 2).sum() / (40 - active.sum())
        expected = np.sqrt(variance * np.diag(np.linalg.inv(W[:, active].T @ W[:, active])))
        np.testing.assert_allclose(knownmf.standard_errors(V, W, found)[active, 0], expected)

    def test_a_selection_that_leaves_nothing_warns(self):
        V, W, _ = self.data(0.0)
        with pytest.warns(UserWarning, match=r"All components of 1 of 1 frames were dropped, first of frame 0"):
            assert not knownmf.select(V, W, 1e9).support.any()


class TestFramesWithoutObservedBins:
    @pytest.mark.parametrize("model", ["poisson", "multinomial", "residual"])
    @pytest.mark.parametrize("limits", [{}, {"total": 100.0}])
    def test_resamples_say_nothing_about_them(self, model, limits):
        V, weights = COUNTS[:, :4].copy(), np.ones((30, 4))
        V[:, 1], weights[:, 2] = np.nan, 0.0
        result = knownmf.bootstrap(V, W10, 20, model, random_state=0, weights=weights, **limits)
        others = knownmf.bootstrap(COUNTS[:, :4], W10, 20, model, random_state=0, **limits)
        for name in ("quantiles", "standard_errors", "frequency"):
            values, expected = getattr(result, name), getattr(others, name)
            assert np.isnan(values[..., [1, 2]]).all()
            np.testing.assert_allclose(values[..., [0, 3]], expected[..., [0, 3]], rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("limits", [{}, {"total": 100.0}])
    def test_their_selection_is_not_decided(self, limits):
        V = COUNTS[:, :3].copy()
        V[:, 1] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert knownmf.select(V, W10, **limits).decided.tolist() == [True, False, True]


class TestTables:
    def tables(self):
        pandas = pytest.importorskip("pandas")
        bins = [f"bin {f}" for f in range(30)]
        W = pandas.DataFrame(W10, bins, [f"component {k}" for k in range(10)])
        V = pandas.DataFrame(COUNTS[:, :3], bins, ["a", "b", "c"])
        return V, W

    def test_results_come_back_labeled(self):
        V, W = self.tables()
        found = knownmf.activations(V, W, tol=1e-8)
        errors = found.to_frame(knownmf.standard_errors(V, W, found))
        assert list(errors.index) == list(W.columns)
        assert list(errors.columns) == ["a", "b", "c"]
        fit = knownmf.goodness_of_fit(V, W, found).to_frame()
        assert list(fit.index) == ["a", "b", "c"]
        assert list(fit.columns) == ["deviance", "expected", "z", "p_value"]
        selected = knownmf.select(V, W)
        support = selected.to_frame()
        assert list(support.index) == list(W.columns)
        assert list(support.columns) == ["a", "b", "c"]
        np.testing.assert_array_equal(support.to_numpy(), selected.support)
        result = knownmf.bootstrap(V, W, 10, random_state=0)
        intervals = result.to_frame()
        assert intervals.shape == (10, 6)
        assert list(intervals.columns[:3]) == [("a", 0.025), ("a", 0.975), ("b", 0.025)]
        np.testing.assert_array_equal(intervals["b"][0.975], result.quantiles[1, :, 1])
        assert knownmf.bootstrap(COUNTS[:, :2], W10, 5).to_frame().shape == (10, 4)

    def test_tables_with_other_labels_are_refused(self):
        pandas = pytest.importorskip("pandas")
        V, W = self.tables()
        found = knownmf.activations(V, W, tol=1e-8)
        turned = V.iloc[::-1]
        for call in (
            lambda: knownmf.standard_errors(turned, W, found),
            lambda: knownmf.goodness_of_fit(turned, W, found),
            lambda: knownmf.bootstrap(turned, W),
            lambda: knownmf.select(turned, W),
        ):
            with pytest.raises(ValueError, match="same labels for their bins"):
                call()
        with pytest.raises(ValueError, match="same labels for their components"):
            knownmf.select(V, W, prior=pandas.Series(0.5, W.columns[::-1]))
        with pytest.raises(ValueError, match="same labels for their components"):
            knownmf.select(V, W, always=pandas.Series(False, W.columns[::-1]))
        with pytest.raises(ValueError, match="same labels for their frames"):
            knownmf.standard_errors(V, W, found, pandas.Series(1.0, ["c", "b", "a"]))

    def test_polars(self):
        polars = pytest.importorskip("polars")
        W = polars.DataFrame({f"component {k}": W10[:, k] for k in range(10)})
        V = polars.DataFrame({"a": COUNTS[:, 0], "b": COUNTS[:, 1]})
        selected = knownmf.select(V, W)
        assert list(selected.to_frame().columns) == ["a", "b"]
        assert list(selected.to_frame().index) == W.columns


class TestSelect:
    def catalogs(self, n_counts, n_frames=100):
        rng = np.random.default_rng(11)
        W = rng.dirichlet(np.full(96, 0.3), 60).T
        H = np.zeros((60, n_frames))
        for t in range(n_frames):
            active = rng.choice(60, rng.integers(4, 8), replace=False)
            h = rng.lognormal(0.0, 0.7, len(active))
            H[active, t] = n_counts * h / h.sum()
        return rng.poisson(W @ H).astype(float), W, H

    def test_components_are_found_and_the_error_falls(self):
        V, W, H = self.catalogs(20000)
        result = knownmf.select(V, W)
        before = knownmf.activations(V, W, tol=1e-8).H
        error, error_before = (np.abs(h - H).sum() / (2 * H.sum()) for h in (result.found.H, before))
        assert error < 0.6 * error_before
        # Few of those in use are wrong, few of the large ones are missed.
        assert (result.support & (H == 0)).sum() < 0.02 * result.support.sum()
        assert (~result.support & (H > 1000)).sum() == 0
        assert result.decided.all()
        np.testing.assert_array_equal(result.support, result.found.H > 0)

    def test_the_path_says_what_was_dropped_and_by_how_much_the_deviance_rose(self):
        V, W, _ = self.catalogs(1000, 5)
        result = knownmf.select(V, W)
        for t in range(5):
            support = knownmf.activations(V[:, [t]], W, tol=1e-10).H[:, 0] > 0
            price = np.log(V[:, t].sum())
            deviance = knownmf.activations(V[:, [t]], W, support=support, tol=1e-10).deviance[0]
            n_steps = (result.dropped[:, t] >= 0).sum()
            for step in range(n_steps):
                k = result.dropped[step, t]
                smaller = support.copy()
                smaller[k] = False
                found = knownmf.activations(V[:, [t]], W, support=smaller, tol=1e-10)
                ratio = found.deviance[0] - deviance
                np.testing.assert_allclose(result.likelihood_ratios[step, t], ratio, atol=1e-4)
                dropped = support.sum() - (found.H > 0).sum()
                assert result.accepted[step, t] == (ratio <= price * dropped)
                if result.accepted[step, t]:
                    support, deviance = found.H[:, 0] > 0, found.deviance[0]
            assert not result.accepted[n_steps - 1, t]
            assert np.isnan(result.likelihood_ratios[n_steps:, t]).all()
            np.testing.assert_array_equal(result.support[:, t], support)

    def test_the_order_is_that_of_activation_by_standard_error(self):
        V, W, _ = self.catalogs(1000, 20)
        found = knownmf.activations(V, W, tol=1e-10)
        ratios = found.H / knownmf.standard_errors(V, W, found)
        np.testing.assert_array_equal(knownmf.select(V, W).dropped[0], np.nanargmin(ratios, axis=0))

    def test_criteria_are_ordered(self):
        V, W, _ = self.catalogs(2000)
        sizes = [knownmf.select(V, W, criterion).support.sum() for criterion in (0.0, "aic", 4.0, "bic", 50.0)]
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) == 5
        by_name, by_number = knownmf.select(V, W, "aic"), knownmf.select(V, W, 2)
        np.testing.assert_array_equal(by_name.support, by_number.support)

    def test_always_max_components_and_support(self):
        V, W, H = self.catalogs(2000)
        always = np.zeros(60, bool)
        always[:2] = True
        result = knownmf.select(V, W, always=always)
        assert result.support[:2].sum() > knownmf.select(V, W).support[:2].sum()
        assert not np.isin(result.dropped, [0, 1]).any()
        few = knownmf.select(V, W, max_components=3)
        assert (few.support.sum(axis=0) <= 3).all()
        true = knownmf.select(V, W, support=H > 0)
        assert not true.support[H == 0].any()

    @pytest.mark.parametrize("limits", [{}, {"total": 400.0}, {"max_total": 400.0}])
    def test_wrong_components_at_an_upper_bound_are_dropped(self, limits):
        rng = np.random.default_rng(50)
        W = rng.dirichlet(np.full(40, 0.5), 6).T
        V = rng.poisson(W @ np.repeat([[300.0], [100.0], [0.0], [0.0], [0.0], [0.0]], 300, axis=1))
        upper = np.array([np.inf, np.inf, 0.5, 0.5, 0.5, 0.5])
        free, bounded = knownmf.select(V, W, **limits), knownmf.select(V, W, upper=upper, **limits)
        n_wrong, n_wrong_bounded = (result.support[2:].any(axis=0).sum() for result in (free, bounded))
        assert n_wrong_bounded <= n_wrong < 0.05 * 300
        assert bounded.support[:2].all()

    def test_needed_components_at_an_upper_bound_are_kept(self):
        rng = np.random.default_rng(51)
        W = rng.dirichlet(np.full(40, 0.5), 6).T
        V = rng.poisson(W @ np.repeat([[500.0], [300.0], [60.0], [0.0], [0.0], [0.0]], 50, axis=1))
        result = knownmf.select(V, W, upper=[400.0, np.inf, np.inf, np.inf, np.inf, np.inf])
        assert result.support[0].all()
        assert (result.dropped[0] != 0).all()

    def test_weights_of_counts_are_refused_without_a_dispersion(self):
        V, weights = COUNTS[:, :3], np.ones((30, 3))
        weights[4, 1] = 0.5
        with pytest.raises(ValueError, match=r"weights\[4, 1\] is 0.5, but V are counts"):
            knownmf.select(V, W10, weights=weights)
        with pytest.raises(ValueError, match=r"weights\[4\] is 0.5, but V are counts"):
            knownmf.select(V, W10, weights=weights[:, 1])
        for dispersion in (1.0, "pearson"):
            assert knownmf.select(V, W10, weights=weights, dispersion=dispersion).support.any()
        assert knownmf.select(V + 0.5, W10, weights=weights).support.any()
        assert knownmf.select(V, W10, weights=weights, beta_loss="frobenius").support.any()

    def test_max_components_without_a_dispersion_keeps_the_largest(self):
        W = np.eye(3) + 0.1
        for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
            h = np.array([5.0, 500.0, 1.0])[order]
            # As many bins as components leave nothing to estimate the dispersion from.
            V = (W @ h + 0.25)[:, np.newaxis]
            result = knownmf.select(V, W, beta_loss="frobenius", max_components=1)
            np.testing.assert_array_equal(result.support[:, 0], h == 500)
            assert not result.decided[0]
            unlimited = knownmf.select(V, W, beta_loss="frobenius")
            assert unlimited.support.all()

    def test_a_dispersion_of_zero_is_refused(self):
        V = COUNTS[:, :3]
        found = knownmf.activations(V, W10, "frobenius")
        for call in (knownmf.standard_errors, knownmf.goodness_of_fit):
            with pytest.raises(ValueError, match="dispersion is 0, expected a positive number"):
                call(V, W10, found, 0)
        with pytest.raises(ValueError, match=r"dispersion\[1\] is 0, expected a positive number"):
            knownmf.select(V, W10, dispersion=[1.0, 0.0, 2.0])

    def test_a_prior_keeps_likely_components(self):
        V, W, _ = self.catalogs(200)
        prior = np.full(60, 0.02)
        prior[:10] = 0.9
        plain, informed = knownmf.select(V, W), knownmf.select(V, W, prior=prior)
        assert informed.support[:10].sum() > plain.support[:10].sum()
        assert informed.support[10:].sum() < plain.support[10:].sum()
        same = knownmf.select(V, W, prior=np.full(60, 0.5))
        np.testing.assert_array_equal(same.support, plain.support)

    def test_least_squares_with_noise_of_unknown_variance(self):
        rng = np.random.default_rng(5)
        W = rng.gamma(1.0, 1.0, (100, 12))
        H = np.zeros((12, 50))
        H[[1, 4, 7]] = rng.gamma(4.0, 1.0, (3, 50)) + 1
        V = W @ H + rng.normal(0.0, 0.5, (100, 50))
        result = knownmf.select(V, W, beta_loss="frobenius")
        assert (result.support == (H > 0)).mean() > 0.98

    def test_weights_background_missing_and_sparse(self):
        V, W, H = self.catalogs(20000, 20)
        background = np.full(96, 20.0)
        V = V + np.random.default_rng(0).poisson(background[:, np.newaxis], V.shape)
        V[::11, ::2] = np.nan
        weights = np.ones(V.shape)
        weights[5:9, 3] = 0
        result = knownmf.select(V, W, weights=weights, background=background)
        assert (result.support & (H == 0)).sum() < 0.05 * result.support.sum()
        assert (~result.support & (H > 2000)).sum() == 0
        V, W, _ = self.catalogs(2000, 20)
        sparse, dense = knownmf.select(scipy.sparse.csc_array(V), W), knownmf.select(V, W)
        np.testing.assert_array_equal(sparse.support, dense.support)
        single = knownmf.select(V.astype(np.float32), W)
        np.testing.assert_array_equal(single.support, dense.support)

    def test_empty_frames_no_frames_and_progress(self):
        V, W, _ = self.catalogs(500, 3)
        V[:, 1] = 0
        seen = []
        result = knownmf.select(V, W, progress=lambda done, n: seen.append((done, n)))
        assert seen == [(3, 3)]
        assert not result.support[:, 1].any()
        assert (result.dropped[:, 1] == -1).all()
        assert knownmf.select(V[:, :0], W).support.shape == (60, 0)

    def test_wrong_arguments_are_refused(self):
        V, W, _ = self.catalogs(500, 3)
        with pytest.raises(ValueError, match="criterion is 'cv'"):
            knownmf.select(V, W, "cv")
        with pytest.raises(ValueError, match="criterion is -1"):
            knownmf.select(V, W, -1)
        with pytest.raises(ValueError, match="needs a beta from 1 to 2"):
            knownmf.select(V, W, beta_loss="itakura-saito")
        with pytest.raises(ValueError, match=r"prior\[3\] is 1"):
            knownmf.select(V, W, prior=np.where(np.arange(60) == 3, 1.0, 0.5))
        with pytest.raises(ValueError, match=r"always has shape \(2,\)"):
            knownmf.select(V, W, always=[0, 1])
        with pytest.raises(ValueError, match="max_components is 0"):
            knownmf.select(V, W, max_components=0)


def test_tails_of_peaks_that_are_next_to_zero_do_no_harm():
    """The inverse of a model of 1e-310 is infinite: bins so far from a peak say nothing about it."""
    distance = np.arange(512)[:, np.newaxis] - [90, 160]
    W = np.exp(-0.5 * (distance / 4.0) ** 2)
    V = np.random.default_rng(0).poisson(W @ [[2000.0], [400.0]])
    cut = np.where(np.abs(distance) < 60, W, 0.0)
    whole, parts = knownmf.activations(V, W, tol=1e-10), knownmf.activations(V, cut, tol=1e-10)
    expected = knownmf.standard_errors(V, cut, parts)
    np.testing.assert_allclose(knownmf.standard_errors(V, W, whole), expected, rtol=1e-6)
    np.testing.assert_allclose(
        knownmf.goodness_of_fit(V, W, whole).z, knownmf.goodness_of_fit(V, cut, parts).z, rtol=1e-6
    )
    assert knownmf.select(V, W).support.all()
    assert np.isfinite(knownmf.bootstrap(V, W, 20, random_state=0).quantiles).all()
    residual = knownmf.bootstrap(V, W, 300, "residual", random_state=0)
    assert not residual.n_missed.any()
    np.testing.assert_allclose(residual.standard_errors, knownmf.standard_errors(V, W, whole, "pearson"), rtol=0.2)

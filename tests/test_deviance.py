"""Test the divergence, the deviance and the share explained of activations against other formulas and scikit-learn."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.metrics import d2_tweedie_score, mean_tweedie_deviance, r2_score

import knownmf
import naive
from knownmf.divergences import divergence
from problems import BETAS, OPTIONS, random_problem


@pytest.mark.parametrize("beta", [*BETAS, 1e-9, 1 + 1e-9])
def test_the_elementwise_divergence_is_the_definition(beta):
    x, v = np.meshgrid([0.0, 0.3, 1.0, 7.0], [0.2, 1.0, 1.001, 30.0])
    near = round(beta) if abs(beta - round(beta)) < 1e-6 else beta
    x = np.maximum(x, 0.01) if near <= 0 else x
    expected = [naive.divergence(a, b, near) for a, b in zip(x.flat, v.flat, strict=True)]
    np.testing.assert_allclose(divergence(x, v, beta).ravel(), expected, rtol=1e-6, atol=1e-12)


def test_the_elementwise_divergence_of_a_model_of_zero():
    zero, one = np.zeros(1), np.ones(1)
    assert divergence(one, zero, 1.0) == np.inf
    assert divergence(zero, zero, 1.0) == 0
    assert divergence(zero, zero, 1.5) == 0
    np.testing.assert_allclose(divergence(one, zero, 1.5), 1 / (1.5 * 0.5))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("beta", BETAS)
def test_divergence_is_the_objective_without_penalties(beta, options):
    V, W, keywords = random_problem(3, options, positive=beta <= 1)
    found = knownmf.activations(V, W, beta, tol=1e-6, max_iter=1000, **keywords)
    without = {name: values for name, values in keywords.items() if name not in ("l1", "l2", "H_init")}
    solver = knownmf.Solver(W, beta)
    certified = solver.certify(V, found.H, **{"weights": None, **without})
    np.testing.assert_allclose(found.divergence, certified.objective, rtol=1e-9)
    np.testing.assert_array_equal(found.deviance, 2 * found.divergence)
    np.testing.assert_allclose(found.explained, certified.explained, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 1.0, 2.0])
def test_explained_is_the_d2_score_of_scikit_learn(beta):
    V, W, keywords = random_problem(4, ("weights",), n_frames=6, positive=True)
    V, weights = V + 0.1, keywords["weights"]
    found = knownmf.activations(V, W, beta, weights=weights, tol=1e-6, max_iter=1000)
    for t in range(6):
        x, v, m = V[:, t], (W @ found.H)[:, t], weights[:, t]
        # For positive data all these are defined; scikit-learn's power is 2 - beta.
        expected = d2_tweedie_score(x, v, sample_weight=m, power=2 - beta)
        np.testing.assert_allclose(found.explained[t], expected, rtol=1e-9, atol=1e-12)
        deviance = m.sum() * mean_tweedie_deviance(x, v, sample_weight=m, power=2 - beta)
        np.testing.assert_allclose(found.deviance[t], deviance, rtol=1e-9)
        if beta == 2:
            np.testing.assert_allclose(found.explained[t], r2_score(x, v, sample_weight=m), rtol=1e-9)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_explained_of_sparse_data_is_that_of_dense_data(beta):
    V, W, keywords = random_problem(5, ("weights_per_bin",), n_bins=30, n_frames=12)
    V = V * (np.random.default_rng(0).random(V.shape) < 0.5)
    V[:, 3] = 0
    keywords["weights"][::7] = 0
    dense = knownmf.activations(V, W, beta, tol=1e-10, **keywords)
    sparse = knownmf.activations(scipy.sparse.csr_array(V), W, beta, tol=1e-10, **keywords)
    np.testing.assert_allclose(sparse.explained, dense.explained, rtol=1e-8)
    np.testing.assert_allclose(sparse.divergence, dense.divergence, rtol=1e-8)


def test_explained_is_nan_where_all_observed_data_are_equal():
    W = np.array([[1.0], [2.0], [1.0]])
    V = np.array([[0.1, 0.0, np.nan, 3.0, 1.0], [0.1, 0.0, 5.0, np.nan, 2.0], [0.1, 0.0, 5.0, np.nan, 1.0]])
    for beta in (1.0, 2.0):
        explained = knownmf.activations(V, W, beta).explained
        assert np.isnan(explained[:4]).all()
        np.testing.assert_allclose(explained[4], 1)
    sparse = scipy.sparse.csc_array(np.nan_to_num(V))
    np.testing.assert_array_equal(np.isnan(knownmf.activations(sparse, W).explained), [True, True, False, False, False])


def test_explained_of_float32_data_and_of_a_bad_model():
    V = np.array([[1.0, 4.0], [2.0, 1.0]], np.float32)
    found = knownmf.activations(V, np.array([[1.0], [2.0]]), "frobenius")
    assert found.explained.dtype == np.float64
    np.testing.assert_allclose(found.explained, [1, 1 - (4 - 1.2) ** 2 / 4.5 - (1 - 2.4) ** 2 / 4.5], rtol=1e-6)
    assert found.explained[1] < 0

"""What holds for every beta and every option: optimal, proven, independent of neighbors, equivariant."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import naive
from knownmf import activations
from problems import BETAS, CONVEX, OPTIONS, frame_of, random_problem

every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
every_beta = pytest.mark.parametrize("beta", BETAS)
every_convex_beta = pytest.mark.parametrize("beta", CONVEX)


def unfinished(V, W, beta, max_iter, keywords):
    """The answer after so many steps; most of its frames miss a tolerance of zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return activations(V, W, beta, tol=0.0, max_iter=max_iter, **keywords)


@every_option
@every_convex_beta
def test_convex_objective_lies_within_the_gap_of_the_true_minimum(beta, options):
    V, W, keywords = random_problem(int(beta * 10), options)
    found = activations(V, W, beta, tol=1e-6, **keywords)
    assert found.converged.all()
    assert np.array_equal(found.converged, found.relative_gap <= 1e-6)
    for t in range(V.shape[1]):
        x, shape, support = frame_of(t, V, keywords)
        h = found.H[:, t]
        value = naive.objective(x, h, W, beta, support=support, **shape)
        _, least = naive.minimum(x, W, beta, start=h, support=support, **shape)
        rounding = 1e-12 * np.nansum(x**beta)
        assert found.objective[t] == pytest.approx(value, rel=1e-10, abs=rounding)
        assert value - least <= found.gap[t] + rounding
        weighted = np.nansum(np.broadcast_to(shape.get("weights", 1.0), x.shape) * x**beta)
        assert found.relative_gap[t] == pytest.approx(found.gap[t] / weighted, rel=1e-9)
        if support is not None:
            assert not h[~support].any()


@every_option
@every_convex_beta
def test_gap_of_an_unfinished_answer_covers_its_excess(beta, options):
    V, W, keywords = random_problem(100 + int(beta * 10), options)
    for max_iter in (1, 2, 3):
        rough = unfinished(V, W, beta, max_iter, keywords)
        for t in range(V.shape[1]):
            x, shape, support = frame_of(t, V, keywords)
            value = naive.objective(x, rough.H[:, t], W, beta, support=support, **shape)
            _, least = naive.minimum(x, W, beta, support=support, **shape)
            assert value - least <= rough.gap[t] + 1e-12 * np.nansum(x**beta)


@every_option
@pytest.mark.parametrize("beta", [beta for beta in BETAS if beta not in CONVEX])
def test_outside_the_convex_range_the_answer_is_stationary(beta, options):
    V, W, keywords = random_problem(200 + int(beta * 10), options, positive=True)
    found = activations(V, W, beta, tol=1e-7, **keywords)
    assert np.isnan(found.gap).all()
    assert found.converged.all()
    for t in range(V.shape[1]):
        x, shape, support = frame_of(t, V, keywords)
        h = found.H[:, t]
        used = np.flatnonzero(np.ones(len(h), bool) if support is None else support)
        shape.update({name: shape[name][used] for name in ("l1", "l2") if name in shape})
        assert naive.kkt(x, h[used], W[:, used], beta, **shape) <= 2e-7
        assert found.objective[t] == pytest.approx(naive.objective(x, h[used], W[:, used], beta, **shape), rel=1e-9)


@every_option
@every_beta
def test_no_step_raises_the_objective(beta, options):
    V, W, keywords = random_problem(300 + int(beta * 10), options, positive=beta < 1)
    before = np.full(V.shape[1], np.inf)
    for max_iter in range(1, 9):
        found = unfinished(V, W, beta, max_iter, keywords)
        assert np.all(found.objective <= before * (1 + 1e-12) + 1e-14)
        before = found.objective


@every_option
@every_beta
def test_neighbors_order_and_chunking_change_no_bit(beta, options):
    V, W, keywords = random_problem(400, options, n_bins=12, n_components=7, n_frames=45, positive=beta < 1)
    whole = activations(V, W, beta, tol=1e-5, **keywords)

    def some(frames):
        per_frame = {name: v[:, frames] if np.ndim(v) == 2 else v for name, v in keywords.items()}
        return activations(V[:, frames], W, beta, tol=1e-5, **per_frame)

    order = np.random.default_rng(0).permutation(V.shape[1])
    assert np.array_equal(some(order).H, whole.H[:, order])
    parts = [some(slice(first, first + 19)) for first in (0, 19, 38)]
    assert np.array_equal(np.hstack([part.H for part in parts]), whole.H)
    assert np.array_equal(np.hstack([part.kkt for part in parts]), whole.kkt)
    assert np.array_equal(some([7]).H, whole.H[:, [7]])


@every_beta
def test_scaling_the_data_scales_the_activations(beta):
    V, W, _ = random_problem(500, (), positive=True)
    one = activations(V, W, beta, tol=1e-9)
    for scale in (2.0**-90, 2.0**100):
        found = activations(V * scale, W, beta, tol=1e-9)
        assert np.array_equal(found.H, one.H * scale)
        assert np.array_equal(found.kkt, one.kkt)
    for scale in (1e-30, 1e30):
        found = activations(V * scale, W / scale, beta, tol=1e-9)
        assert found.criterion.max() <= 1e-8
        np.testing.assert_allclose(found.H, one.H * scale**2, rtol=1e-5, atol=1e-9 * scale**2)


@every_beta
def test_integer_weights_are_repeated_bins(beta):
    V, W, _ = random_problem(600, (), positive=True)
    times = np.random.default_rng(1).integers(0, 4, len(V))
    weighted = activations(V, W, beta, tol=1e-9, weights=times)
    repeated = activations(np.repeat(V, times, axis=0), np.repeat(W, times, axis=0), beta, tol=1e-9)
    np.testing.assert_allclose(weighted.objective, repeated.objective, rtol=1e-8)
    np.testing.assert_allclose(weighted.H, repeated.H, rtol=1e-3, atol=1e-3)


@every_beta
def test_missing_is_the_same_as_weightless(beta):
    V, W, keywords = random_problem(700, ("missing",), positive=True)
    missing = activations(V, W, beta, tol=1e-8, **keywords)
    weights = np.where(np.isnan(V), 0.0, 1.0)
    weightless = activations(np.where(np.isnan(V), 3.0, V), W, beta, tol=1e-8, weights=weights)
    masked = activations(np.ma.masked_invalid(V), W, beta, tol=1e-8)
    assert np.array_equal(missing.H, masked.H)
    # Frames without missing bins have the weights that all share, and under least squares a Gram matrix.
    np.testing.assert_allclose(missing.H, weightless.H, rtol=1e-9 if beta != 2 else 1e-5)


@every_option
@every_beta
def test_single_precision_is_proven_for_the_numbers_returned(beta, options):
    V, W, keywords = random_problem(800 + int(beta * 10), options, positive=True)
    found = activations(V.astype(np.float32), W, beta, tol=3e-6, **keywords)
    assert found.H.dtype == np.float32
    assert found.converged.all()
    for t in range(V.shape[1]):
        x, shape, support = frame_of(t, V.astype(np.float32).astype(np.float64), keywords)
        h = found.H[:, t].astype(np.float64)
        value = naive.objective(x, h, W, beta, support=support, **shape)
        assert found.objective[t] == pytest.approx(value, rel=1e-9, abs=1e-12)
        if beta in CONVEX:
            _, least = naive.minimum(x, W, beta, start=h, support=support, **shape)
            assert value - least <= found.gap[t] + 1e-12 * np.nansum(x**beta)

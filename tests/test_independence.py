"""A frame's answer does not depend on its neighbors, on their number and order, or on the threads: not in any bit."""

import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

from knownmf import NMF, Solver, activations, get_num_threads, set_num_threads
from problems import BETAS, LIMITS, OPTIONS, random_limits, random_problem

FIELDS = ("H", "gap", "relative_gap", "kkt", "objective", "n_iter", "converged")
FRAMES = 40
PER_FRAME = ("weights", "background", "support", "H_init", "l1", "l2", "upper")
TOTALS = ("total", "max_total")
every_beta = pytest.mark.parametrize("beta", BETAS)
every_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@contextmanager
def threads(n):
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def solved(V, W, beta, frames=slice(None), tol=1e-5, **keywords):
    """Return the answers for some frames, what belongs to single frames cut to them."""
    cut = {k: v[:, frames] if k in PER_FRAME and np.ndim(v) == 2 else v for k, v in keywords.items()}
    cut |= {k: v[frames] for k, v in cut.items() if k in TOTALS and np.ndim(v) == 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return activations(V[:, frames], W, beta, tol=tol, **cut)


def assert_same(found, expected, frames):
    """Check that answers have the bits of the expected ones of these frames."""
    for field in FIELDS:
        values, wanted = getattr(found, field), getattr(expected, field)[..., frames]
        assert values.dtype == wanted.dtype
        different = ~((values == wanted) | (np.isnan(values) & np.isnan(wanted)))
        assert not different.any(), (
            f"{field} differs in frame {np.argwhere(different)[0][-1]} of {np.arange(FRAMES)[frames]}"
        )


def assert_independent(V, W, beta, sizes=(1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17), **keywords):
    """Check the frames of a problem in groups of several sizes, in other orders, and with other numbers of threads."""
    expected = solved(V, W, beta, **keywords)
    assert np.ptp(expected.H, axis=1).any()
    for size in sizes:
        for first in range(0, V.shape[1], size):
            frames = np.arange(first, min(first + size, V.shape[1]))
            assert_same(solved(V, W, beta, frames, **keywords), expected, frames)
    orders = [np.arange(V.shape[1])[::-1], *(np.random.default_rng(seed).permutation(V.shape[1]) for seed in range(2))]
    for order in orders:
        assert_same(solved(V, W, beta, order, **keywords), expected, order)
        assert_same(solved(V, W, beta, order[:11], **keywords), expected, order[:11])
    for n_threads in (1, 2, 3):
        with threads(n_threads):
            assert_same(solved(V, W, beta, **keywords), expected, slice(None))


def problem(options, beta, dtype=np.float64, n_bins=17, n_components=7, seed=0):
    """Return a problem of 40 frames, a few of which are out of the ordinary."""
    V, W, keywords = random_problem(
        seed, options, n_bins=n_bins, n_components=n_components, n_frames=FRAMES, positive=beta < 1
    )
    V[:, 5] = 0.0  # silence
    V[:, 11] *= 1e6
    V[:, 12] *= 1e-6
    if "missing" in options:
        V[:, :20] = np.nan_to_num(V[:, :20], nan=1.0)  # some frames have all bins
        V[:, 30] = np.nan
    if "background" in options:
        keywords["background"][:, 8:20] = 0.0
    return V.astype(dtype), W, keywords


@every_dtype
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@every_beta
def test_with_every_option(beta, options, dtype):
    V, W, keywords = problem(options, beta, dtype)
    assert_independent(V, W, beta, **keywords)


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, 2.0])
def test_with_limits(beta, kind):
    V, W, keywords = problem(OPTIONS["everything"], beta)
    usual = np.maximum(solved(V, W, beta, **keywords).H, 1e-2)
    limits = random_limits(0, kind, usual, keywords.get("support"))
    assert_independent(V, W, beta, sizes=(1, 9), **keywords, **limits)


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_of_a_sparse_matrix_with_limits(beta, kind):
    V, W = sparse_problem(6, np.float64)
    V = scipy.sparse.csc_array(V)
    limits = random_limits(0, kind, np.maximum(solved(V, W, beta).H, 1e-2))
    assert_independent(V, W, beta, sizes=(1, 9), **limits)


@pytest.mark.parametrize(
    "options", [(), ("weights", "missing", "background", "l1", "support")], ids=["plain", "options"]
)
@pytest.mark.parametrize(
    ("n_bins", "n_components"), [(15, 5), (16, 16), (33, 17), (48, 127), (31, 128), (32, 129), (65, 200)]
)
@every_beta
def test_in_every_shape(beta, n_bins, n_components, options):
    """Rows are padded to 16 numbers, and over more than 128 components a step moves only some of them."""
    V, W, keywords = problem(options, beta, n_bins=n_bins, n_components=n_components, seed=1)
    assert_independent(V, W, beta, sizes=(1, 3, 8, 9, 17), **keywords)


@pytest.mark.parametrize("n_bins", [20, 4000, 20000])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_in_chunks_of_any_size(beta, n_bins):
    """How many frames a thread takes at a time depends on the length of a frame, and on how many frames there are."""
    rng = np.random.default_rng(0)
    n_frames = 1000 if n_bins == 20 else 80
    W = rng.gamma(0.5, 1.0, (n_bins, 4)) + 0.01
    V = (W @ rng.gamma(0.5, 1.0, (4, n_frames)) + 0.01) * rng.gamma(4.0, 0.25, (n_bins, n_frames))
    expected = solved(V, W, beta, tol=1e-4)
    for n in (1, 9, 79, 500):
        assert_same(solved(V, W, beta, slice(n), tol=1e-4), expected, slice(n))
    for n_threads in (1, 5):
        with threads(n_threads):
            assert_same(solved(V, W, beta, tol=1e-4), expected, slice(None))


def sparse_problem(n_components, dtype):
    rng = np.random.default_rng(2)
    W = rng.gamma(0.3, 1.0, (60, n_components)) + 1e-3
    V = rng.poisson(0.5 * W @ rng.gamma(0.3, 1.0, (n_components, FRAMES)) * 5 / n_components).astype(dtype)
    V[:, 7] = 0.0
    V[3, 11] = 1e5
    return V, W


@every_dtype
@pytest.mark.parametrize("n_components", [6, 140])
@pytest.mark.parametrize("option", ["plain", "weights", "support", "warm start", "penalties"])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_of_a_sparse_matrix(beta, option, n_components, dtype):
    V, W = sparse_problem(n_components, dtype)
    rng = np.random.default_rng(3)
    keywords = {
        "plain": {},
        "weights": {"weights": rng.gamma(2.0, 0.5, 60)},
        "support": {"support": rng.random((n_components, FRAMES)) < 0.7},
        "warm start": {"H_init": rng.gamma(1.0, 1.0, (n_components, FRAMES))},
        "penalties": {"l1": 0.1, "l2": 0.2},
    }[option]
    assert_independent(scipy.sparse.csc_array(V), W, beta, sizes=(1, 3, 8, 17), **keywords)
    expected = solved(scipy.sparse.csc_array(V), W, beta, **keywords)
    for form in (scipy.sparse.csr_array, scipy.sparse.coo_array, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix):
        assert_same(solved(form(V), W, beta, **keywords), expected, slice(None))


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_of_a_sparse_matrix_however_it_is_stored(beta):
    """Entries in any order, an entry in two parts, and zeros that are stored."""
    V, W = sparse_problem(6, np.float64)
    bins, frames = np.nonzero(V)
    order = np.random.default_rng(0).permutation(len(bins))
    bins, frames = bins[order], frames[order]
    whole = V[bins, frames]
    twice = scipy.sparse.coo_array(
        (np.concatenate([0.25 * whole, 0.75 * whole]), (np.tile(bins, 2), np.tile(frames, 2))), shape=V.shape
    )
    expected = solved(scipy.sparse.csc_array(V), W, beta)
    assert_same(solved(twice, W, beta), expected, slice(None))
    assert len(twice.data) == 2 * len(whole)
    unsorted = scipy.sparse.csc_array(V)
    for t in range(FRAMES):
        part = slice(unsorted.indptr[t], unsorted.indptr[t + 1])
        unsorted.indices[part] = unsorted.indices[part][::-1]
        unsorted.data[part] = unsorted.data[part][::-1]
    unsorted = scipy.sparse.csc_array((unsorted.data, unsorted.indices, unsorted.indptr), shape=V.shape)
    assert_same(solved(unsorted, W, beta), expected, slice(None))
    np.testing.assert_array_equal(unsorted.toarray(), V)


@every_beta
def test_a_workspace_that_has_seen_other_frames(beta):
    """A solver keeps the memory that its threads work in: what frames before have left there must not be read."""
    V, W, keywords = problem(("weights", "missing", "background", "support", "H_init"), beta, n_components=12)
    solver = Solver(W, beta, tol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fresh = Solver(W, beta, tol=1e-5).solve(V[:, :9])
        solver.solve(V, **keywords)
        assert_same(solver.solve(V[:, :9]), fresh, slice(9))
        solver.certify(V, np.full((12, FRAMES), 1e3))
        assert_same(solver.solve(V[:, :9]), fresh, slice(9))
        assert_same(solver.solve(V[:, [4]]), fresh, [4])


@every_beta
def test_a_lone_frame_with_weights_of_its_own(beta):
    """Its weights are one column, which could be taken for the weights that all frames share: least squares would then
    solve it in another way than among others."""
    V, W, keywords = problem(("weights",), beta, n_bins=30, n_components=20)
    expected = solved(V, W, beta, tol=1e-3, **keywords)
    for t in range(FRAMES):
        assert_same(activations(V[:, [t]], W, beta, tol=1e-3, weights=keywords["weights"][:, [t]]), expected, [t])


@pytest.mark.parametrize("option", ["weights", "background", "support"])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_lone_sample_of_the_estimator_with_an_option_of_its_own(beta, option):
    V, W, keywords = problem((option,), beta, n_bins=30, n_components=20)
    model = NMF.from_basis(W, beta_loss=beta, gap_tol=1e-3)
    X, own = V.T, keywords[option].T
    expected = model.transform(X, **{option: own})
    for t in range(FRAMES):
        assert np.array_equal(model.transform(X[[t]], **{option: own[[t]]}), expected[[t]])
    assert np.array_equal(model.transform(X[3:17], **{option: own[3:17]}), expected[3:17])
    shared = model.transform(X, **{option: own[1]})
    assert np.array_equal(model.transform(X[[4]], **{option: own[1]}), shared[[4]])


def test_a_lone_sample_of_the_estimator_with_a_start_of_its_own():
    V, W, keywords = problem(("H_init",), 1.0, n_bins=30, n_components=20)
    model, start = NMF.from_basis(W, gap_tol=1e-3), keywords["H_init"].T
    expected = model.fit_transform(V.T, H_init=start)
    for t in (0, 5, 11, 39):
        assert np.array_equal(model.fit_transform(V.T[[t]], H_init=start[[t]]), expected[[t]])


@pytest.mark.parametrize("option", ["background", "support", "weights"])
@every_beta
def test_a_lone_frame_with_what_all_frames_share(beta, option):
    """One dimension, and one column for several frames, stand for all frames."""
    V, W, keywords = problem(("weights", "background", "support"), beta)
    shared = keywords[option][:, 0] if option != "support" else np.arange(7) % 3 > 0
    expected = solved(V, W, beta, **{option: shared})
    assert_same(solved(V, W, beta, **{option: shared[:, np.newaxis]}), expected, slice(None))
    for t in (0, 5, 11, 39):
        assert_same(solved(V, W, beta, [t], **{option: shared}), expected, [t])

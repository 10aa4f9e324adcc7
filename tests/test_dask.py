"""Dask arrays: lazy results with the bits of arrays in memory, and learning on the workers of Dask."""

import os
import pickle
import signal
import threading
import time

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse

import knownmf
from knownmf import NMF, activations, basis, blocks
from knownmf.threads import one_thread, run_in_threads

FIELDS = ("H", *blocks.CERTIFICATES)
N_BINS, N_FRAMES, K = 30, 600, 4
CHUNKS = (100, 0, 1, 299, 200)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    W = rng.random((N_BINS, K)) + 0.01
    V = (W @ rng.gamma(1.0, 1.0, (K, N_FRAMES))) * rng.gamma(10.0, 0.1, (N_BINS, N_FRAMES))
    options = {
        "weights": rng.random(V.shape),
        "background": 0.1 * rng.random(V.shape),
        "support": rng.random((K, N_FRAMES)) < 0.9,
        "H_init": rng.random((K, N_FRAMES)),
        "l1": 0.01 * rng.random((K, N_FRAMES)),
        "upper": 1.0 + rng.random((K, N_FRAMES)),
        "max_total": np.full(N_FRAMES, 3.0),
    }
    return V, W, options


def assert_same_bits(found, expected):
    for name in FIELDS:
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


class TestActivations:
    def test_nothing_is_computed_before_it_is_asked_for(self, problem):
        def fail(block):
            raise RuntimeError("computed")

        V = da.from_array(problem[0].astype(np.float32), chunks=(N_BINS, CHUNKS)).map_blocks(fail, dtype=np.float32)
        found = activations(V, problem[1])
        H = NMF.from_basis(problem[1]).transform(V.T)
        assert repr(found) == "Activations(4 components x 600 frames, beta=1: dask.array.core arrays)"
        for array, shape, chunks in ((found.H, (K, N_FRAMES), ((K,), CHUNKS)), (H, (N_FRAMES, K), (CHUNKS, (K,)))):
            assert (array.shape, array.chunks, array.dtype) == (shape, chunks, np.float32)
            assert isinstance(array._meta, np.ndarray)
            assert array._meta.dtype == np.float32
        for name, dtype in blocks.CERTIFICATES.items():
            field = getattr(found, name)
            assert (field.shape, field.chunks, field.dtype) == ((N_FRAMES,), (CHUNKS,), dtype)
        with pytest.raises(RuntimeError, match="computed"):
            found.gap.compute(scheduler="synchronous")

    @pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
    @pytest.mark.parametrize(("dtype", "beta"), [(np.float64, 1.0), (np.float32, 2.0), (np.int16, 0.5)])
    def test_the_same_bits_as_in_memory(self, problem, scheduler, dtype, beta):
        V = (100 * problem[0]).astype(dtype)
        found = activations(da.from_array(V, chunks=(N_BINS, CHUNKS)), problem[1], beta, tol=1e-2)
        [computed] = dask.compute(found, scheduler=scheduler)
        assert isinstance(computed, knownmf.Activations)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(knownmf.results.Missed, "warn", lambda *_: None)
            assert_same_bits(computed, activations(V, problem[1], beta, tol=1e-2))

    @pytest.mark.parametrize("kind", ["dask", "memory"])
    def test_arrays_with_a_value_for_each_frame(self, problem, kind):
        V, W, options = problem
        expected = activations(V, W, **options, tol=1e-2)
        if kind == "dask":
            options = {name: da.from_array(values, chunks=70) for name, values in options.items()}
        found = activations(da.from_array(V, chunks=(N_BINS, CHUNKS)), W, **options, tol=1e-2)
        assert_same_bits(dask.compute(found, scheduler="synchronous")[0], expected)

    def test_what_all_frames_share(self, problem):
        V, W, _ = problem
        options = {"weights": np.arange(N_BINS), "support": [True, False, True, True], "upper": 2.0, "total": 1.0}
        found = activations(da.from_array(V, chunks=(N_BINS, CHUNKS)), W, **options)
        assert_same_bits(dask.compute(found, scheduler="synchronous")[0], activations(V, W, **options))
        with pytest.raises(ValueError, match="the upper bounds of the components that it may use sum to 3"):
            activations(da.from_array(V), W, upper=1.0, total=9.0, support=[True, False, True, True])

    def test_an_unknown_number_of_frames(self, problem):
        V, W, options = problem
        lazy = da.from_array(V.T, chunks=(CHUNKS, N_BINS))
        unknown = lazy[da.from_array(np.arange(N_FRAMES) % 3 > 0, chunks=(CHUNKS,))].T
        found = activations(unknown, W)
        H = found.H.compute(scheduler="synchronous")
        np.testing.assert_array_equal(H, activations(V[:, np.arange(N_FRAMES) % 3 > 0], W).H)
        shared = {"weights": options["weights"][:, :1], "upper": 2.0, "max_total": 3.0}
        H = activations(unknown, W, **shared).H.compute(scheduler="synchronous")
        np.testing.assert_array_equal(H, activations(V[:, np.arange(N_FRAMES) % 3 > 0], W, **shared).H)
        for of_frames in ({"weights": options["weights"][:, :400]}, {"max_total": options["max_total"][:400]}):
            with pytest.raises(ValueError, match=r"whose number is unknown: call V.compute_chunk_sizes\(\)"):
                activations(unknown, W, **of_frames)
        with pytest.raises(ValueError, match=r"The number of samples of X is unknown: call X.compute_chunk_sizes\(\)"):
            NMF(2).fit(unknown.T)
        wrong = activations(da.where(unknown == unknown.max(), -1.0, unknown), W).H
        with pytest.raises(ValueError, match=r"a chunk of V\[\d+, \d+\] is -1.0"):
            wrong.compute(scheduler="synchronous")

    @pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csc_array])
    @pytest.mark.parametrize("beta", [1.0, 2.0])
    def test_sparse_chunks(self, problem, kind, beta):
        V = scipy.sparse.random(N_BINS, N_FRAMES, 0.2, format="csc", random_state=0)
        lazy = da.from_array(V.toarray(), chunks=(N_BINS, CHUNKS)).map_blocks(kind)
        found = activations(lazy, problem[1], beta)
        assert_same_bits(dask.compute(found, scheduler="synchronous")[0], activations(V, problem[1], beta))
        with pytest.raises(TypeError, match=r"beta_loss is 0\.5: sparse data are for"):
            activations(lazy, problem[1], 0.5)

    def test_basis(self, problem):
        V, _, options = problem
        H = options["H_init"]
        expected = basis(V, H, upper=options["upper"][:, :N_BINS].T)
        found = basis(da.from_array(V, chunks=(10, N_FRAMES)), H, upper=options["upper"][:, :N_BINS].T)
        [computed] = dask.compute(found, scheduler="synchronous")
        assert_same_bits(computed, expected)
        assert computed.limits.upper is not None
        np.testing.assert_array_equal(found.limits.upper, expected.limits.upper)

    def test_chunks_along_bins_are_merged_with_a_warning_that_names_the_cost(self, problem):
        V, W, _ = problem
        lazy = da.from_array(V, chunks=(10, 200))
        with pytest.warns(UserWarning, match=r"3 chunks are merged into one, which moves up to 0 MiB between workers"):
            found = activations(lazy, W)
        assert found.H.chunks == ((K,), (200, 200, 200))
        assert_same_bits(dask.compute(found, scheduler="synchronous")[0], activations(V, W))

    def test_an_error_names_the_frame_in_the_whole_array(self, problem):
        V = problem[0].copy()
        V[3, 555] = -1.0
        found = activations(da.from_array(V, chunks=(N_BINS, CHUNKS)), problem[1])
        with pytest.raises(ValueError, match=r"V\[3, 555\] is -1.0"):
            found.H.compute(scheduler="synchronous")

    def test_what_cannot_be_is_refused(self, problem):
        V, W, options = problem
        lazy = da.from_array(V, chunks=(N_BINS, CHUNKS))
        for call, message in (
            (lambda: activations(V, W, weights=da.from_array(V)), "weights is a Dask array, but V is not"),
            (lambda: activations(lazy, W, out=np.zeros((K, N_FRAMES))), "out is given with a Dask array"),
            (lambda: activations(lazy, W, progress=print), "progress is given with a Dask array"),
            (lambda: activations(lazy, da.from_array(W)), r"pass W.compute\(\)"),
            (lambda: activations(lazy, W, weights=lazy[:, 0]), r"pass weights.compute\(\)"),
            (lambda: activations(lazy, W[:-1]), "V has 30 bins but W has 29"),
            (lambda: activations(lazy, W, weights=options["weights"][:, :5]), r"weights has shape \(30, 5\)"),
            (lambda: NMF(2).partial_fit(lazy.T), r"partial_fit takes one block: pass X.compute\(\)"),
            (lambda: activations(lazy, W, weights=np.zeros(N_BINS - 1)), "weights has shape"),
        ):
            with pytest.raises((TypeError, ValueError), match=message):
                call()


class TestEstimator:
    def test_transform_and_back(self, problem):
        V, W, options = problem
        X, weights = da.from_array(V.T, chunks=(CHUNKS, N_BINS)), options["weights"].T
        model = NMF.from_basis(W)
        H = model.transform(X, weights=weights)
        expected = model.transform(V.T, weights=weights)
        np.testing.assert_array_equal(H.compute(scheduler="synchronous"), expected)
        back = model.inverse_transform(H)
        assert isinstance(back, da.Array)
        np.testing.assert_allclose(back.compute(scheduler="synchronous"), model.inverse_transform(expected))
        with dask.config.set(scheduler="synchronous"):
            assert model.score(X) == pytest.approx(model.score(V.T))

    @pytest.mark.parametrize(
        ("beta", "kind"),
        [
            (1.0, "known"),
            (1.0, "partly"),
            (0.0, "unknown"),
            (0.5, "softly"),
            (2.0, "seeded"),
            (1.5, "options"),
            (1.0, "limits"),
            (-1.0, "missing"),
            (3.0, "random"),
            (1.0, "nndsvdar"),
            (1.0, "sparse"),
            (2.0, "sparse"),
        ],
    )
    def test_fit_is_that_in_memory_to_rounding(self, problem, beta, kind):
        V, W, options = problem
        X, given, parameters = V.T, {}, {"n_components": K, "random_state": 0, "max_iter": 10, "tol": 0.0}
        if kind in ("partly", "options", "missing"):
            parameters["components"] = W.T[:2]
        if kind in ("known", "softly", "seeded"):
            parameters |= {"components": W.T, "frozen": kind == "known"}
            parameters["template_strength"] = 10.0 if kind == "softly" else 0.0
        if kind in ("random", "nndsvdar"):
            parameters["init"] = kind
        if kind == "limits":
            parameters |= {"components": W.T[:3], "max_total": 5.0, "max_iter": 3}
        if kind == "options":
            parameters |= {"alpha_W": 1e-3, "l1_ratio": 0.5}
            given = {name: options[name].T for name in ("weights", "background", "support", "H_init")}
        if kind == "missing":
            X = np.where(np.random.default_rng(2).random(X.shape) < 0.1, np.nan, X)
        if kind == "sparse":
            X = scipy.sparse.random(N_FRAMES, N_BINS, 0.2, format="csr", random_state=0)
        lazy = da.from_array(X.toarray() if kind == "sparse" else X, chunks=(CHUNKS, N_BINS))
        lazy = lazy.map_blocks(scipy.sparse.csr_array) if kind == "sparse" else lazy
        model, expected = NMF(beta_loss=beta, **parameters), NMF(beta_loss=beta, **parameters).fit(X, **given)
        with dask.config.set(scheduler="synchronous"):
            H = model.fit_transform(lazy, **given)
            assert isinstance(H, da.Array)
            H = H.compute()
        np.testing.assert_allclose(model.components_, expected.components_, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(model.objective_history_, expected.objective_history_, rtol=1e-4)
        assert model.reconstruction_err_ == pytest.approx(expected.reconstruction_err_, rel=1e-4)
        given.pop("H_init", None)
        np.testing.assert_array_equal(H, model.transform(X, **given))

    def test_a_fit_that_fails_leaves_the_estimator_as_it_was(self, problem):
        X = problem[0].T.copy()
        X[500, 3] = -1.0
        model = NMF(2, random_state=0)
        with pytest.raises(ValueError, match=r"X\[500, 3\] is -1.0"), dask.config.set(scheduler="synchronous"):
            model.fit(da.from_array(X, chunks=(100, N_BINS)))
        assert not hasattr(model, "components_")


def test_one_thread_starts_no_other_threads():
    with one_thread():
        assert knownmf.get_num_threads() == 1
        names = list(run_in_threads(lambda _: threading.current_thread(), [slice(0, 1)] * 3, lambda: None))
    assert names == 3 * [threading.current_thread()]


# ---- A cluster of processes, which all tests below share


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Sending large graph", "ignore:Port .* is already in use", "ignore::ResourceWarning"
)


def count_unpickled():
    """Count, on a worker, how often a solver is unpickled."""
    from knownmf import solver, threads

    original = solver._unpickled

    def counting(*arguments):
        counting.n += 1
        return original(*arguments)

    counting.n = 0
    counting.__name__, counting.__qualname__, counting.__module__ = "_unpickled", "_unpickled", "knownmf.solver"
    solver._unpickled = counting
    threads.ThreadPoolExecutor = None  # no block starts threads


def number_unpickled():
    from knownmf import solver

    return solver._unpickled.n


def test_workers_get_the_solver_once_and_start_no_threads(client, problem):
    client.run(count_unpickled)
    V, W, _ = problem
    found = activations(da.from_array(V, chunks=(N_BINS, 20)), W)
    assert_same_bits(dask.compute(found)[0], activations(V, W))
    assert all(n <= 1 for n in client.run(number_unpickled).values())
    client.restart()


def test_an_array_that_can_only_be_sliced_beside_a_dask_array(problem):
    V, W, options = problem

    class Sliced:
        shape, dtype = options["weights"].shape, options["weights"].dtype

        def __getitem__(self, index):
            return options["weights"][index]

    found = activations(da.from_array(V, chunks=(N_BINS, 200)), W, weights=Sliced())
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(found.H.compute(), activations(V, W, weights=options["weights"]).H)


@pytest.mark.parametrize("kept", ["nothing", "data", "data of another chunking", "frames in columns"])
def test_learning_on_workers(client, problem, kept):
    V, W, _ = problem
    parameters = {"n_components": K, "components": W.T[:2], "max_iter": 5, "tol": 0.0, "random_state": 0}
    X = da.from_array(V.T, chunks=(150, N_BINS))
    if kept == "data":
        X = X.persist()
    elif kept == "data of another chunking":
        X = da.from_array(V.T, chunks=(70, 30)).persist().rechunk((150, N_BINS))
    elif kept == "frames in columns":
        X = da.from_array(V, chunks=(N_BINS, 150)).persist().T
    model = NMF(**parameters).fit(X)
    expected = NMF(**parameters).fit(V.T)
    np.testing.assert_allclose(model.components_, expected.components_, rtol=1e-3, atol=1e-4)


class Slow:
    """Data that take a while to read."""

    def __init__(self, V):
        self.V, self.shape, self.dtype, self.ndim = V, V.shape, V.dtype, V.ndim

    def __getitem__(self, index):
        time.sleep(0.2)
        return self.V[index]


def test_a_killed_worker_does_not_stop_the_work(client, problem):
    V, W, _ = problem
    found = activations(da.from_array(Slow(V), chunks=(N_BINS, 20), asarray=False), W)
    future = client.compute(found.H)
    time.sleep(1.5)
    assert future.status == "pending"
    victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    np.testing.assert_array_equal(future.result(timeout=60), activations(V, W).H)
    assert victim not in client.run(os.getpid).values()


def test_a_worker_killed_during_learning(client, problem):
    V, W, _ = problem
    X = da.from_array(Slow(V.T), chunks=(100, N_BINS), asarray=False)
    killed = []

    def kill(n_passes, _):
        if n_passes == 2:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    parameters = {"n_components": K, "components": W.T[:2], "max_iter": 4, "tol": 0.0, "random_state": 0}
    model = NMF(callback=kill, **parameters).fit(X)
    assert killed
    np.testing.assert_allclose(model.components_, NMF(**parameters).fit(V.T).components_, rtol=1e-3, atol=1e-4)


def test_the_backend_of_joblib(client, problem):
    import joblib
    from sklearn.model_selection import GridSearchCV

    X = problem[0].T
    search = GridSearchCV(NMF(2, random_state=0, max_iter=3, tol=0.0), {"n_components": [1, 3]}, cv=2)
    with joblib.parallel_backend("dask"):
        search.fit(X)
    assert search.best_params_ == {"n_components": 3}


def test_the_wrappers_of_dask_ml(problem):
    wrappers = pytest.importorskip("dask_ml.wrappers", exc_type=ImportError)
    V, W, _ = problem
    X = da.from_array(V.T, chunks=(150, N_BINS))
    with dask.config.set(scheduler="synchronous"):
        H = wrappers.ParallelPostFit(NMF.from_basis(W)).transform(X)
        np.testing.assert_array_equal(H.compute(), NMF.from_basis(W).transform(V.T))
        incremental = wrappers.Incremental(NMF(3, random_state=0), shuffle_blocks=False).fit(X)
    expected = NMF(3, random_state=0)
    for first in range(0, N_FRAMES, 150):
        expected.partial_fit(V.T[first : first + 150])
    np.testing.assert_array_equal(incremental.estimator_.components_, expected.components_)


def test_the_scheduler_with_processes(problem):
    V, W, _ = problem
    found = activations(da.from_array(V, chunks=(N_BINS, 300)), W)
    with dask.config.set(num_workers=2):
        assert_same_bits(dask.compute(found, scheduler="processes")[0], activations(V, W))


def test_results_can_be_pickled(problem):
    found = activations(da.from_array(problem[0], chunks=(N_BINS, 300)), problem[1])
    assert_same_bits(
        dask.compute(pickle.loads(pickle.dumps(found)), scheduler="synchronous")[0], activations(*problem[:2])
    )

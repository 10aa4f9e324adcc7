"""The boundary to the native code: what it is given, what it is refused, how it fails, and how it is interrupted."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse

from knownmf import Solver, activations, native
from knownmf.native import Answer, Block, InterruptFlag, Options, PreparedBasis, Workspace
from knownmf.native_files import X86_LEVELS
from problems import random_problem

N_FRAMES, N_BINS, N_COMPONENTS = 5, 9, 4


def basis(sparse=False):
    """Return a prepared basis."""
    W = np.random.default_rng(0).random((N_BINS, N_COMPONENTS)) + 0.1
    nothing, ones = np.zeros(N_COMPONENTS), np.ones(N_COMPONENTS)
    return PreparedBasis(
        W, 1.0, nothing, nothing, np.ones(N_BINS), ones, sparse=sparse, gram=False, interrupt=InterruptFlag()
    )


def dense_block():
    """Return a block with everything that a block can have."""
    rng = np.random.default_rng(1)
    bins, components = (N_FRAMES, N_BINS), (N_FRAMES, N_COMPONENTS)
    return Block(
        N_FRAMES,
        data=rng.random(bins),
        weights=np.ones(bins),
        background=np.ones(bins),
        support=np.ones(components),
        start=np.ones(components),
    )


def sparse_block():
    data = scipy.sparse.csr_array(np.random.default_rng(1).random((N_FRAMES, N_BINS)))
    indices, starts = data.indices.astype(np.int32), data.indptr.astype(np.int64)
    return Block(N_FRAMES, entries=data.data, entry_bins=indices, starts=starts)


def answer():
    """Return an answer of which nothing is written yet."""
    numbers = {name: np.full(N_FRAMES, 77.0) for name in ("gap", "relative_gap", "kkt", "objective", "null_divergence")}
    n_iter, converged = np.full(N_FRAMES, 77, np.int64), np.zeros(N_FRAMES, np.bool_)
    return Answer(H=np.full((N_FRAMES, N_COMPONENTS), 77.0), n_iter=n_iter, converged=converged, **numbers)


def solve(block, into, prepared, flag=None):
    native.solve(Workspace(), prepared, block, Options(1e-4, 200, False, False), flag or InterruptFlag(), into)


def spoiled(array):
    """Yield arrays that the native code would misread in place of this one."""
    yield array.astype(np.float32 if array.dtype == np.float64 else np.float64)
    if array.dtype.itemsize > 1:
        yield array.astype(array.dtype.newbyteorder())
    yield np.repeat(array, 2, axis=-1)[..., ::2]
    yield array[:-1].copy()
    yield np.concatenate([array, array[:1]])
    yield array[np.newaxis]
    if array.ndim == 2:
        yield np.asfortranarray(array)
        yield array[:, :-1].copy()
        yield array.ravel()


def test_structures_are_laid_out_as_in_the_library():
    assert all(here == there for here, there in native.structure_sizes().values())


class TestArrays:
    def test_what_fits_is_solved(self):
        for block, prepared in ((dense_block(), basis()), (sparse_block(), basis(sparse=True))):
            into = answer()
            solve(block, into, prepared)
            assert into.converged.all()
            assert not any((values == 77).any() for values in into)

    @pytest.mark.parametrize("name", ["data", "weights", "background", "support", "start"])
    def test_arrays_of_a_dense_block(self, name):
        for wrong in spoiled(getattr(dense_block(), name)):
            into = answer()
            with pytest.raises(TypeError, match=r"native code got .* expected contiguous float64"):
                solve(dense_block()._replace(**{name: wrong}), into, basis())
            assert (into.H == 77).all()

    @pytest.mark.parametrize("name", ["entries", "entry_bins", "starts"])
    def test_arrays_of_a_sparse_block(self, name):
        for wrong in spoiled(getattr(sparse_block(), name)):
            with pytest.raises(TypeError):
                solve(sparse_block()._replace(**{name: wrong}), answer(), basis(sparse=True))

    @pytest.mark.parametrize("name", Answer._fields)
    def test_arrays_of_an_answer(self, name):
        for wrong in spoiled(getattr(answer(), name)):
            with pytest.raises(TypeError, match="native code got"):
                solve(dense_block(), answer()._replace(**{name: wrong}), basis())

    def test_arrays_of_the_learning_passes(self):
        x = np.ones((3, 4))
        arguments = {"x": x, "weights": x, "v": x, "pull": x.copy(), "push": x.copy()}
        for name in arguments:
            for wrong in (
                x.astype(np.float32),
                np.asfortranarray(np.ones((3, 4))),
                np.ones((3, 5)),
                np.ones((3, 8))[:, ::2],
            ):
                with pytest.raises(TypeError):
                    native.measure(beta=1.0, with_cost=True, **{**arguments, name: wrong})
        for wrong in (np.ones((3, 4), np.float32), np.ones((4, 4)), np.ones((3, 4)).T):
            with pytest.raises(TypeError):
                native.multiply_rows(x.copy(), wrong, x, x, x, 1.0)
            with pytest.raises(TypeError):
                native.extrapolate(x, x, wrong, 0.5)
            with pytest.raises(TypeError):
                native.descend_rows(np.eye(4), x, x.copy(), wrong, 1)

    def test_nothing_is_written_to_read_only_arrays(self):
        for name in Answer._fields:
            into = answer()
            getattr(into, name).flags.writeable = False
            with pytest.raises(TypeError, match="read-only"):
                solve(dense_block(), into, basis())

    def test_entries_of_a_sparse_block_are_in_order(self):
        block = sparse_block()
        start, end = block.starts[:2]
        bins = block.entry_bins.copy()
        bins[start:end] = bins[start:end][::-1]
        with pytest.raises(TypeError, match="ascending order"):
            solve(block._replace(entry_bins=bins), answer(), basis(sparse=True))

    def test_a_sparse_matrix_that_lost_its_order_is_put_in_order(self):
        V = scipy.sparse.csc_array(np.random.default_rng(0).poisson(1.0, (2000, 3)).astype(float))
        assert V.has_canonical_format
        expected = activations(V, np.eye(2000, 5) + 0.1, 2.0).H
        for t in range(3):
            frame = slice(V.indptr[t], V.indptr[t + 1])
            V.indices[frame], V.data[frame] = V.indices[frame][::-1].copy(), V.data[frame][::-1].copy()
        before = V.indices.copy()
        assert np.array_equal(activations(V, np.eye(2000, 5) + 0.1, 2.0).H, expected)
        assert np.array_equal(V.indices, before)

    def test_a_block_that_was_given_up_is_not_an_answer(self):
        flag = InterruptFlag()
        flag.set()
        with pytest.raises(native.Interrupted):
            solve(dense_block(), answer(), basis(), flag)

    @pytest.mark.parametrize("indices", [[0, 1000000000], [0, N_BINS], [-1, 2]])
    @pytest.mark.parametrize("beta", [1.0, 2.0])
    def test_a_sparse_matrix_that_points_outside_itself_is_refused(self, indices, beta):
        """SciPy does not look at all indices when a matrix is made. In a process of its own: it might crash."""
        printed = run(
            f"""
import numpy as np, scipy.sparse, knownmf
V = scipy.sparse.csc_array((np.ones(2), np.array({indices}), np.array([0, 1, 2])), shape=({N_BINS}, 2))
try:
    knownmf.activations(V, np.ones(({N_BINS}, 2)), {beta})
except ValueError as error:
    print("refused:", error)
"""
        )
        assert printed.startswith("refused: V is not a valid sparse matrix")


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_nothing_passed_in_is_changed(beta):
    names = ("weights", "missing", "background", "l1", "l2", "support", "H_init")
    V, W, keywords = random_problem(0, names, n_frames=20, positive=True)
    passed = {"V": V, "W": W, **keywords}
    before = {name: values.tobytes() for name, values in passed.items()}
    for values in passed.values():
        values.setflags(write=False)
    activations(V, W, beta, **keywords)
    activations(V.astype(np.float32), np.asfortranarray(W), beta, **keywords)
    assert all(values.tobytes() == before[name] for name, values in passed.items())
    if beta == 0:
        return
    for form in (scipy.sparse.csc_array, scipy.sparse.csr_array):
        sparse = form(np.nan_to_num(V))
        arrays = sparse.data, sparse.indices, sparse.indptr
        copies = [array.tobytes() for array in arrays]
        for array in arrays:
            array.setflags(write=False)
        activations(sparse, W, beta)
        assert [array.tobytes() for array in arrays] == copies


class TestSolver:
    @pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
    @pytest.mark.parametrize("used_before", [False, True])
    def test_it_survives_a_pickle(self, beta, used_before):
        V, W, keywords = random_problem(0, ("l1", "l2"), n_frames=30, positive=True)
        solver = Solver(
            W, beta, weights=np.arange(1.0, 10.0), support=[1, 1, 0, 1, 1], tol=1e-6, max_iter=99, **keywords
        )
        expected = solver.solve(V)
        solver = solver if used_before else Solver(
            W, beta, weights=np.arange(1.0, 10.0), support=[1, 1, 0, 1, 1], tol=1e-6, max_iter=99, **keywords
        )  # fmt: skip
        copy = pickle.loads(pickle.dumps(solver))
        found = copy.solve(V)
        assert np.array_equal(found.H, expected.H)
        assert np.array_equal(found.gap, expected.gap, equal_nan=True)
        assert repr(copy) == repr(solver)
        assert (copy.tol, copy.max_iter) == (1e-6, 99)
        assert len(pickle.dumps(solver)) < 10000  # the prepared basis and the workspaces stay behind

    @pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, 2.0])
    def test_many_threads_may_use_it_at_once(self, beta):
        """From the first call on: the basis is then not prepared yet."""
        V, W, _ = random_problem(0, (), n_bins=40, n_components=12, n_frames=64, positive=True)
        expected = Solver(W, beta).solve(V)
        for _ in range(5):
            solver = Solver(W, beta)

            def work(number, solver=solver):
                parts = []
                for t in range(number, 64, 8):
                    parts.append(solver.solve(V[:, [t]]))
                whole = solver.solve(V)
                same = np.array_equal(whole.H, expected.H) and np.array_equal(whole.kkt, expected.kkt)
                return same and np.array_equal(np.hstack([part.H for part in parts]), expected.H[:, number::8])

            with ThreadPoolExecutor(8) as pool:
                assert all(pool.map(work, range(8)))


def run(script, *arguments, **environment):
    """Run a script in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# Takes away all memory but a little, then a little more, until the call succeeds: every larger allocation fails once.
# The call is short enough to run in the calling thread: Python itself hangs where a thread starts without memory.
STARVED = """
import resource, sys, warnings
import numpy as np, scipy.sparse, sklearn.exceptions
import knownmf

def used():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize"))

warnings.simplefilter("ignore")
kind, beta, n_components = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
V, W = rng.random((1000, 1)) + 0.1, rng.random((1000, n_components)) ** 4
V = scipy.sparse.csc_array(V) if kind == "sparse" else V
options = dict(tol=1e-3, max_iter=1)
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
outcomes, outcome, survivors = {}, "", []
for extra in range(0, 64 * 2**20, 2**16):
    solver = found = None
    resource.setrlimit(resource.RLIMIT_AS, (used() + extra, hard))
    try:
        solver = knownmf.Solver(W, beta, **options)
        found = solver.solve(V)
        outcome = "done"
    except MemoryError as error:
        outcome = str(error)[:40]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if outcome == "done":
        break
    survivors[:] = [solver] if solver else survivors
expected = knownmf.Solver(W, beta, **options).solve(V)
assert outcome == "done" and np.array_equal(found.H, expected.H), outcome
assert all(np.array_equal(solver.solve(V).H, expected.H) for solver in survivors)
print(outcomes)
"""


@pytest.mark.plain_library
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory of a process")
@pytest.mark.parametrize(
    ("kind", "beta", "n_components"),
    [("dense", 1.0, 900), ("dense", 2.0, 900), ("dense", 0.0, 900), ("sparse", 2.0, 900)],
)
def test_too_little_memory_is_a_memory_error(kind, beta, n_components):
    """And the solver works afterwards, when there is enough. NumPy fails first, for the prepared basis."""
    printed = run(STARVED, kind, str(beta), str(n_components), KNOWNMF_NUM_THREADS="1")
    assert "Unable to allocate" in printed
    if beta == 2.0:  # elsewhere the native code takes so little that it depends on the heap whether it fails
        assert "There is not enough memory to solve" in printed


# ---- Interrupts

# It tells when it has begun, and, on the clock that all processes share, when it got the interrupt.
INTERRUPTED = """
import signal, time, warnings
import numpy as np, scipy.sparse
import knownmf
from knownmf import NMF
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may begin without
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
{prepare}
print("began", flush=True)
try:
    while True:
        {call}
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
"""
ENDLESS = "tol=0.0, max_iter=10**9"
LONG = {
    "a chunk of frames": (
        f"V, solver = rng.random((2000, 16)), knownmf.Solver(rng.random((2000, 1500)), {ENDLESS})",
        "solver.solve(V)",
    ),
    "a single frame": (
        f"V, solver = rng.random((2000, 1)), knownmf.Solver(rng.random((2000, 3000)), 1.5, {ENDLESS})",
        "solver.solve(V)",
    ),
    "a single frame of few components": (
        f"V, solver = rng.random((60, 1)), knownmf.Solver(rng.random((60, 120)), 0.0, {ENDLESS})",
        "solver.solve(V)",
    ),
    "many short frames": (
        "V, solver = rng.random((100, 200000)), knownmf.Solver(rng.random((100, 30)), tol=1e-9)",
        "solver.solve(V)",
    ),
    "certificates": (
        "V, solver, H = rng.random((2000, 4000)), knownmf.Solver(rng.random((2000, 1500))), rng.random((1500, 4000))",
        "solver.certify(V, H)",
    ),
    "sparse frames": (
        "V, W = scipy.sparse.csc_array(rng.poisson(0.3, (3000, 2000)).astype(float)), rng.random((3000, 500)) ** 8;"
        f" solver = knownmf.Solver(W, {ENDLESS})",
        "solver.solve(V)",
    ),
    "the Gram matrix": (
        "V, W = rng.random((6000, 1)), rng.random((6000, 2048))",
        "knownmf.Solver(W, 'frobenius').solve(V)",
    ),
    "the Gram matrix of sparse data": (
        "V, W = scipy.sparse.csc_array(rng.random((6000, 1))), rng.random((6000, 2500))",
        "knownmf.Solver(W, 'frobenius').solve(V)",
    ),
    "learning": (
        "X = rng.random((3000, 1000))",
        "NMF(40, tol=0.0, max_iter=10**6, init='random').fit(X)",
    ),
    "learning by least squares": (
        "X = rng.random((3000, 1000))",
        "NMF(40, beta_loss='frobenius', tol=0.0, max_iter=10**6, init='random').fit(X)",
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a process")
@pytest.mark.parametrize("name", LONG)
def test_an_interrupt_ends_a_call_soon(name):
    """0.2 s is what is promised, on a machine that has nothing else to do."""
    prepare, call = LONG[name]
    script = INTERRUPTED.format(prepare=prepare, call=call)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == "began\n", child.stderr.read()
            time.sleep(0.4)
            sent = time.monotonic()
            child.send_signal(signal.SIGINT)
            printed, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 0, errors
    assert float(printed) - sent < 1.0


# ---- Builds for different processors

LEVELS = """
import sys
import numpy as np
import knownmf
from knownmf.native_library import cpu_level
answers = {}
for n_bins, n_components in ((60, 12), (33, 20), (300, 140)):
    rng = np.random.default_rng(n_bins)
    W = rng.gamma(0.5, 1.0, (n_bins, n_components)) + 0.01
    V = (W @ (rng.gamma(0.5, 1.0, (n_components, 20)) * (rng.random((n_components, 20)) < 0.5)) + 0.01)
    V *= rng.gamma(10.0, 0.1, V.shape)
    for beta in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0):
        if beta < 1 or beta > 2:
            start = {"H_init": np.full((n_components, 20), V.mean())}
        found = knownmf.activations(V, W, beta, tol=1e-9)
        answers[f"{n_bins} {n_components} {beta}"] = found.H
        answers[f"{n_bins} {n_components} {beta} objective"] = found.objective
        assert found.converged.all()
np.savez(sys.argv[1], **answers)
print(cpu_level())
"""


def best_level():
    """Return the best level of the x86-64 processors that this one supports."""
    printed = run("from knownmf.native_library import cpu_level; print(cpu_level())", KNOWNMF_CPU_LEVEL="")
    return printed.strip()


def test_builds_for_all_processors_agree(tmp_path):
    best = best_level()
    if best not in X86_LEVELS:
        pytest.skip(f"there is one build for this processor: {best}")
    levels = X86_LEVELS[: X86_LEVELS.index(best) + 1]
    answers = []
    for level in levels:
        path = tmp_path / f"{level}.npz"
        assert run(LEVELS, str(path), KNOWNMF_CPU_LEVEL=level).strip() == level
        answers.append(dict(np.load(path)))
    reference = answers[0]
    assert len(reference) == 36
    for others in answers[1:]:
        for name, values in reference.items():
            np.testing.assert_allclose(others[name], values, rtol=0, atol=1e-6 * values.max(), err_msg=name)

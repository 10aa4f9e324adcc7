"""How much memory a call takes beyond its input and its result."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from knownmf import Solver, get_num_threads, set_num_threads


@pytest.fixture
def one_thread():
    """Measure the buffers of one thread: every thread has its own, however many there are."""
    before = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def beyond_input_and_result(V, W, beta_loss="frobenius", tol=1e-4, **options):
    """Return the most bytes that a call takes at a time, less what it returns.

    NumPy's arrays are traced; of what the native code takes, which only grows, the solver knows the size. Arrays that a
    workspace keeps for its blocks are in both.
    """
    solver = Solver(W, beta_loss, tol=tol)
    solver.solve(V[:, :1])  # prepares the basis, which is in solver.nbytes
    tracemalloc.start()
    try:
        found = solver.solve(V, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    kept = sum(array.nbytes for workspace in solver._workspaces for array in workspace._arrays.values())
    results = sum(values.nbytes for values in vars(found).values() if isinstance(values, np.ndarray))
    return peak + solver.nbytes - kept - results


@pytest.fixture(scope="module")
def long():
    rng = np.random.default_rng(0)
    return rng.integers(1, 100, (257, 8000)), rng.random((257, 2))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_a_long_input_is_not_copied(long, dtype, order):
    V, W = np.asarray(long[0], dtype, order), long[1]
    assert beyond_input_and_result(V, W) <= 0.5 * V.nbytes


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("option", ["weights", "background", "support", "H_init"])
def test_no_option_is_copied(long, option):
    V, W = long[0].astype(np.float32), long[1]
    shape = V.shape if option in ("weights", "background") else (W.shape[1], V.shape[1])
    values = np.ones(shape, bool if option == "support" else np.float32)
    assert beyond_input_and_result(V, W, **{option: values}) <= 0.5 * V.nbytes


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_masked_data_are_copied_once(long, dtype):
    V, W = np.ma.masked_greater(long[0].astype(dtype), 90), long[1]
    assert beyond_input_and_result(V, W) <= 1.5 * V.nbytes


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("beta_loss", ["kullback-leibler", "frobenius"])
def test_sparse_data_are_never_dense_as_a_whole(beta_loss):
    """A hundred million bins of which two hundred thousand are not empty."""
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(10000, size=200000), np.repeat(np.arange(10000), 20)
    V = scipy.sparse.csc_array((rng.random(200000) + 0.1, (rows, columns)), shape=(10000, 10000))
    W = rng.random((10000, 3)) + 0.01
    assert beyond_input_and_result(V, W, beta_loss, tol=1e-2) <= 8 * V.data.nbytes


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("beta_loss", ["kullback-leibler", "frobenius"])
@pytest.mark.parametrize(("n_bins", "n_components", "n_frames"), [(1025, 10, 64), (1025, 88, 256), (96, 80, 512)])
def test_inputs_a_few_times_as_long_as_the_basis_is_wide(beta_loss, n_bins, n_components, n_frames):
    rng = np.random.default_rng(0)
    V, W = rng.random((n_bins, n_frames)), rng.random((n_bins, n_components))
    assert beyond_input_and_result(V, W, beta_loss=beta_loss, tol=1e9) <= 2.5 * V.nbytes


@pytest.mark.parametrize("beta_loss", ["kullback-leibler", "frobenius", "itakura-saito"])
def test_a_solver_that_is_used_again_does_not_grow(beta_loss):
    rng = np.random.default_rng(0)
    solver = Solver(rng.random((200, 30)), beta_loss, tol=1e-2)
    V = rng.random((200, 500)) + 0.01
    solver.solve(V)
    once = solver.nbytes
    assert once > 200 * 30 * 8
    for _ in range(20):
        solver.solve(V[:, :1])
        solver.solve(V)
    # Which thread has solved which block is left to chance, and with it how far their buffers have grown.
    assert solver.nbytes <= 1.5 * once


# The system's own count of a process: what native code takes is in it, however it was taken.
RESIDENT = """
import sys
import numpy as np
import sklearn.exceptions  # loaded by the first warning, and larger than all that is measured here
import knownmf

def resident(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

n_bins, n_components, n_frames, beta_loss, again = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
rng = np.random.default_rng(0)
V = rng.random((n_bins, n_frames), dtype=np.float32) + np.float32(0.01)
W = rng.random((n_bins, n_components)) ** 8
knownmf.activations(V[:, :100], W[:, :5], beta_loss, tol=1e9)  # threads, and what Python loads late
with open("/proc/self/clear_refs", "w") as reset:
    reset.write("5")  # forget the peak
before = resident("VmRSS")
import warnings
warnings.simplefilter("ignore")
solver = knownmf.Solver(W, beta_loss, tol=1e-2, max_iter=3)
for _ in range(int(again)):
    found = solver.solve(V)
result = sum(values.nbytes for values in vars(found).values() if isinstance(values, np.ndarray))
print(resident("VmHWM") - before, V.nbytes, result, solver.nbytes)
"""


def resident_growth(n_bins, n_components, n_frames, beta_loss, again=1):
    """Return by how much a process grew at most in a call, and the sizes of V, the result and the solver, in MB."""
    arguments = map(str, (n_bins, n_components, n_frames, beta_loss, again))
    done = subprocess.run([sys.executable, "-c", RESIDENT, *arguments], capture_output=True, text=True, check=True)
    return [int(word) / 1e6 for word in done.stdout.split()]


needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")


@pytest.mark.plain_library
@needs_proc
@pytest.mark.parametrize("beta_loss", ["kullback-leibler", "frobenius"])
def test_a_process_does_not_grow_by_its_input(beta_loss):
    grown, data, result, _ = resident_growth(513, 4, 50000, beta_loss)
    assert data > 100
    assert grown <= 0.25 * data + 2 * result


@needs_proc
@pytest.mark.parametrize(("beta_loss", "n_components"), [("kullback-leibler", 1500), ("frobenius", 1500)])
def test_a_solver_knows_what_it_holds(beta_loss, n_components):
    grown, _, result, held = resident_growth(600, n_components, 48, beta_loss)
    assert held > 10
    # What was never written takes no memory; on top come blocks in double precision.
    assert 0.25 * held <= grown <= 1.2 * held + result + 10


@pytest.mark.plain_library
@needs_proc
def test_repeated_calls_do_not_increase_the_memory():
    once = resident_growth(100, 200, 64, "kullback-leibler")[0]
    often = resident_growth(100, 200, 64, "kullback-leibler", again=100)[0]
    assert often <= once + 10

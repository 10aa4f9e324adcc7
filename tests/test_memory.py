"""How much memory a call takes beyond its input and its result."""

import tracemalloc

import numba
import numpy as np
import pytest

from knownmf import activations


@pytest.fixture
def one_thread():
    """Every thread has buffers of its own, however many cores there are: measure those of one."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def beyond_input_and_result(V, W, beta_loss="frobenius", **options):
    """The most bytes that a call holds at a time, less what it returns; of compiled code only what NumPy gave it."""
    activations(V[:, :2], np.ones((len(V), 1)), beta_loss)  # loads compiled code, and forgets the basis
    tracemalloc.start()
    try:
        found = activations(V, W, beta_loss, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return peak - sum(values.nbytes for values in vars(found).values() if isinstance(values, np.ndarray))


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


@pytest.mark.parametrize("beta_loss", ["kullback-leibler", "frobenius"])
@pytest.mark.parametrize(("n_bins", "n_components", "n_frames"), [(1025, 10, 64), (1025, 88, 256), (96, 80, 512)])
def test_inputs_a_few_times_as_long_as_the_basis_is_wide(beta_loss, n_bins, n_components, n_frames):
    rng = np.random.default_rng(0)
    V, W = rng.random((n_bins, n_frames)), rng.random((n_bins, n_components))
    assert beyond_input_and_result(V, W, beta_loss=beta_loss, tol=1e9) <= 2.5 * V.nbytes

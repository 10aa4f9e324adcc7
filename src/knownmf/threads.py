"""Where the work of one process runs: chunks, in as many threads as Numba is set to use, each with its buffers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import numba

Buffers = TypeVar("Buffers")
Result = TypeVar("Result")


def run_in_threads(
    work: Callable[[slice, Buffers], Result], chunks: Sequence[slice], new_buffers: Callable[[], Buffers]
) -> Iterator[Result]:
    """Yield what ``work`` returns for every chunk, in their order.

    It runs in as many threads as Numba is set to use, each with buffers of its own.
    """
    n_threads = min(numba.get_num_threads(), len(chunks)) if len(chunks) > 1 else 1
    if n_threads == 1:
        buffers = new_buffers()
        for chunk in chunks:
            yield work(chunk, buffers)
        return
    spare: SimpleQueue[Buffers] = SimpleQueue()
    for _ in range(n_threads):
        spare.put(new_buffers())

    def with_buffers(chunk: slice) -> Result:
        buffers = spare.get()
        try:
            return work(chunk, buffers)
        finally:
            spare.put(buffers)

    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(n_threads)
        stack.callback(pool.shutdown, cancel_futures=True)
        yield from pool.map(with_buffers, chunks)

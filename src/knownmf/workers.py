"""Run work on whole items, such as recordings, in other processes: of this computer, or of a Dask cluster.

An item is sent to a worker as a whole, and what the worker returns is sent back. If the process of a worker ends,
whatever the reason, another worker gets the item that it had; all other items are not affected.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import signal
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import resource_tracker
from typing import Any, Self

from knownmf.extras import dask_extra
from knownmf.threads import n_processors, set_num_threads

__all__ = ["Lost", "Share", "Work", "Workers"]

# What is done with an item. It is called with the item and a function that it has to call from time to time, as
# ``progress(done, total)``, and that raises an exception when the result is no longer wanted.
Work = Callable[[Any, Callable[[int, int], object]], Any]

# How often a worker says how much is done, and looks whether the result is still wanted, in seconds.
SAYS_EVERY = 0.2
# How often it is looked how many workers there are, while items wait for one, in seconds.
LOOKS_EVERY = 0.5
# How long workers get to end their work after an interrupt, in seconds. Those of this computer are ended then.
ENDING_TIME = 3.0
# How long a scheduler gets to answer, in seconds.
CONNECTING_TIME = 10.0
# What distributed sets in the environment of workers, less its threshold for giving memory back to the system: with
# that, large arrays get new memory each time, which takes as long as the work on a recording.
ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": None, "OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}

_one_at_a_time = threading.Lock()  # a worker may have several threads, but all of them work on one item


@dataclass(frozen=True)
class Share:
    """How much of an item is done, from 0 to 1."""

    value: float


@dataclass(frozen=True)
class Lost:
    """An item without a result: several workers have died while they worked on it."""

    n_workers: int


class Workers:
    """Processes that work on items, each on one item at a time.

    To be used in a ``with`` statement. If an exception leaves it, such as an interrupt, the work ends.

    Parameters
    ----------
    n_workers : int, optional
        The number of processes of this computer, which share its processors.
    scheduler : str, optional
        The address of the scheduler of a Dask cluster, such as "tcp://192.168.0.1:8786", to use its workers instead.
        Each works on its item in as many threads as it has.

    Attributes
    ----------
    address : str
        The address of the scheduler.

    Raises
    ------
    MissingPackageError
        If ``distributed`` is not installed.
    OSError
        If no scheduler answers at the address.
    ValueError
        If the address has another form.
    """

    def __init__(self, n_workers: int = 1, scheduler: str | None = None) -> None:
        with dask_extra():
            import distributed
            from distributed.comm import get_address_host_port
        self._scheduler = scheduler
        if scheduler is not None:
            get_address_host_port(scheduler)  # raises if it is none
            # The loss of the connection is an exception below; its log would come before.
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._n_threads = None if scheduler is not None else max(1, n_processors() // n_workers)
        with contextlib.ExitStack() as opened:
            place = opened.enter_context(_local_cluster(n_workers)) if scheduler is None else scheduler
            client = distributed.Client(place, timeout=CONNECTING_TIME, set_as_default=False)
            self._client = opened.enter_context(client)
            self.address: str = client.scheduler_info(n_workers=0)["address"]
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def __len__(self) -> int:
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def run(self, work: Work, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        """Yield what becomes of items, in the order in which it happens.

        Parameters
        ----------
        work : callable
            What is done with each item. It can be pickled.
        items : sequence
            The items. They can be pickled.

        Yields
        ------
        index : int
            The number of an item.
        event : Share, Lost or object
            How much of it is done; or, as the last event of the item, what ``work`` has returned.

        Raises
        ------
        ConnectionError
            If the scheduler no longer answers, or a worker has another version of knownmf.

        Warns
        -----
        UserWarning
            If there are no workers.
        """
        from distributed import KilledWorker

        # Events are the share that is done, None when a worker no longer works on an item, and futures that are done.
        events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        topic = f"knownmf-{uuid.uuid4().hex}"
        self._client.subscribe_topic(topic, lambda event: events.put(event[1]))
        waiting, futures, at_work = deque(enumerate(items)), dict[int, Any](), set[int]()
        n_workers, looked = -1, -math.inf
        how = self._n_threads, version("knownmf")
        try:
            while waiting or futures:
                if time.monotonic() - looked >= LOOKS_EVERY:
                    before, n_workers, looked = n_workers, len(self), time.monotonic()
                    if not n_workers and before != 0:
                        self._warn_without_workers()
                # No more items than workers are handed out: others would wait in a worker where no other one, such as a
                # new one, can get them, and would count as lost with it if its process ends.
                while waiting and len(futures) < n_workers:
                    index, item = waiting.popleft()
                    future = self._client.submit(_work_on, work, item, index, topic, *how, pure=False)
                    future.add_done_callback(lambda future, index=index: events.put((index, future)))
                    futures[index] = future
                try:
                    index, event = events.get(timeout=LOOKS_EVERY)
                except queue.Empty:
                    continue
                if event is None or index not in futures:  # a share may arrive after the result
                    at_work.discard(index)
                elif isinstance(event, float):
                    at_work.add(index)
                    yield index, Share(event)
                else:
                    del futures[index]
                    at_work.discard(index)
                    try:
                        result = event.result()
                    except KilledWorker as error:
                        result = Lost(error.allowed_failures + 1)
                    except CancelledError as error:
                        raise ConnectionError(f"the connection to the scheduler at {self.address} was lost") from error
                    yield index, result
        finally:
            self._client.cancel(list(futures.values()))
            _wait_for_end(at_work, events)
            self._client.unsubscribe_topic(topic)

    def _warn_without_workers(self) -> None:
        if self._scheduler is not None:  # processes of this computer are started again
            warnings.warn(
                f"The cluster at {self._scheduler} has no workers: the work goes on when there are some.",
                UserWarning,
                stacklevel=3,
            )


def _wait_for_end(at_work: set[int], events: queue.SimpleQueue[tuple[int, Any]]) -> None:
    """Wait until workers no longer work on items, which are cancelled, but not for long."""
    end = time.monotonic() + ENDING_TIME
    with contextlib.suppress(queue.Empty):
        while at_work:
            index, event = events.get(timeout=max(0.0, end - time.monotonic()))
            if event is None:
                at_work.discard(index)


def _local_cluster(n_workers: int) -> Any:
    """Start processes of this computer."""
    import dask
    from distributed import LocalCluster

    def start() -> LocalCluster:
        # A Ctrl-C goes to all processes of a terminal. The workers leave it to this one: they inherit which signals the
        # thread blocks that starts them.
        if hasattr(signal, "pthread_sigmask"):
            resource_tracker.ensure_running()  # which unblocks it where it is called first
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        with dask.config.set({"distributed.nanny.pre-spawn-environ": ENVIRONMENT}):
            return LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                memory_limit=0,  # what an item takes does not grow with its size
                dashboard_address="127.0.0.1:0",  # any free port
                silence_logs=logging.CRITICAL,  # what becomes of an item is in its result
            )

    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start)
        try:
            return starting.result()
        except BaseException:  # an interrupt
            starting.add_done_callback(lambda started: started.exception() or started.result().close())
            raise


class _NoLongerWantedError(BaseException):
    """The caller has gone, or has asked for the end of all work: no error that the work may handle."""


def _work_on(work: Work, item: Any, index: int, topic: str, n_threads: int | None, wanted: str) -> Any:
    """Work on an item in a worker, and say how much is done."""
    from distributed import get_worker

    worker = get_worker()
    if version("knownmf") != wanted:
        raise ConnectionError(
            f"the worker at {worker.address} has knownmf {version('knownmf')}, which is not the version here, {wanted}"
        )
    task = worker.get_current_task()
    said = -SAYS_EVERY

    def progress(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= SAYS_EVERY:
            said = now
            state = worker.state.tasks.get(task)
            if state is None or state.state == "cancelled":
                raise _NoLongerWantedError
            worker.log_event(topic, (index, done / max(total, 1)))

    with _one_at_a_time:
        set_num_threads(n_threads or worker.state.nthreads)
        try:
            progress(0, 1)
            return work(item, progress)
        finally:
            worker.log_event(topic, (index, None))

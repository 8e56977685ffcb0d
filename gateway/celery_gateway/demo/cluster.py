"""The cluster of the demo: the app of a shop, a real Celery worker, and traffic, all in this process.

- There are three threads: the one that calls ``start`` and ``stop``, that of the worker (which has a pool and
  a timer), and that of the traffic. At the end the traffic thread sends the worker a shutdown command: it
  wakes the worker at once, and the worker stops in its own thread.
- There is no signal handler, no logging configuration and no file. The loggers of Celery are silenced while
  the worker runs, since the demo's tasks fail on purpose. An error that ends the worker is still logged.
- kombu's memory broker and ``celery.worker.state`` are globals of the process: only one cluster can run at a
  time, and each start first removes the remains of an earlier one.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from typing import Any, Self

from celery.concurrency.thread import TaskPool
from celery.exceptions import WorkerShutdown
from celery.worker import WorkController, state

from celery_gateway.demo.tasks import QUEUES, Shop, make_app
from celery_gateway.demo.traffic import play

NODE = "celery@shop"
CONCURRENCY = 8
HEARTBEAT_SECONDS = 5.0


class Pool(TaskPool):  # type: ignore[misc]  # Celery is untyped
    """Celery's thread pool, with the current app set in its threads.

    Celery looks up the current app when it runs a task. In a thread of Celery's own pool that is the default
    app of the process, where the task is not registered: it would be lost without an error.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.executor = ThreadPoolExecutor(self.limit, "demo-task", initializer=self.app.set_current)


class Cluster:
    """A worker and its traffic, until ``stop``. A context manager; it can be started again."""

    def __init__(self) -> None:
        self._stopping = Event()
        self._ready = Event()
        self._threads: tuple[Thread, ...] = ()

    def start(self, timeout_seconds: float = 15.0) -> None:
        """Start the worker and the traffic; return when the worker is consuming.

        Args:
            timeout_seconds: for the start of the worker.

        Raises:
            RuntimeError: the worker did not start, or ``stop`` was called.
        """
        if any(thread.is_alive() for thread in self._threads):
            return
        self._stopping, self._ready = Event(), Event()
        shop = make_app(stopping=self._stopping)
        worker = Thread(target=self._run_worker, args=(shop,), name="demo-worker", daemon=True)
        traffic = Thread(target=self._run_traffic, args=(shop,), name="demo-traffic", daemon=True)
        self._threads = (traffic, worker)
        try:
            _clear(shop)
            traffic.start()  # before the worker, so that the worker always gets a shutdown command
            worker.start()
            if not self._ready.wait(timeout_seconds) or self._stopping.is_set():
                raise RuntimeError("the demo's worker did not start")
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Stop the traffic and the worker, and wait for both. Nothing happens if they have stopped already.

        Args:
            timeout_seconds: for both threads together.
        """
        self._stopping.set()
        self._ready.set()
        deadline = monotonic() + timeout_seconds
        for thread in self._threads:  # kept, so that a start() that this interrupts can wait for them too
            if thread.ident is not None:
                thread.join(max(0.0, deadline - monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _run_worker(self, shop: Shop) -> None:
        def consuming(consumer: Any) -> None:
            self._ready.set()
            if self._stopping.is_set():  # the shutdown command may have arrived too early
                raise WorkerShutdown(0)

        try:
            with _silenced():
                WorkController(
                    app=shop,
                    hostname=NODE,
                    queues=QUEUES,
                    pool=Pool,
                    concurrency=CONCURRENCY,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    without_gossip=True,
                    without_mingle=True,
                    ready_callback=consuming,
                ).start()
        finally:
            self._stopping.set()  # the demo needs its worker: end the traffic as well
            self._ready.set()

    def _run_traffic(self, shop: Shop) -> None:
        self._ready.wait()
        try:
            play(shop, self._stopping)
        finally:
            shop.control.shutdown(destination=[NODE])


def _clear(shop: Shop) -> None:
    """Remove the remains of an earlier run: flags, revoked ids, waiting tasks, an unread shutdown command."""
    state.should_stop = state.should_terminate = None
    state.reset_state()
    with shop.connection_for_write() as connection:
        for queue in (*QUEUES, f"{NODE}.celery.pidbox"):
            connection.default_channel.queue_purge(queue)


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence the loggers of Celery and kombu within the block."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("celery", "kombu"))}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)

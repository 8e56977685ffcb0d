"""The demo's cluster: the shop's app, one real Celery worker and its customers, all in this process.

Rules of this room
- Three parties: whoever calls `start()` and `stop()`, the worker's thread (which owns a pool and a timer of
  its own), and the traffic's thread. The traffic's last act is to send the worker home, by a control message:
  that wakes the worker from its wait at once, and the worker ends itself in its own thread.
- No signal handler, no logging configuration, no file. Celery's loggers are hushed while the worker runs: a
  task that fails is the demo's business, not the terminal's. What ends the worker is still logged (CRITICAL).
- kombu's memory broker and celery.worker.state are globals of the process: one cluster at a time, and each
  start first clears what an earlier one left behind.
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

from gateway.demo.tasks import QUEUES, Shop, make_app
from gateway.demo.traffic import play

NODE = "celery@shop"
CONCURRENCY = 8
HEARTBEAT_SECONDS = 5.0


class Pool(TaskPool):  # type: ignore[misc]  # Celery is untyped
    """Celery's thread pool, whose threads know their app.

    Celery looks for the current app when it runs a task, and a thread of the stock pool finds the process's
    default one: it would build a `default` app, not know the task there, and lose it without a word.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.executor = ThreadPoolExecutor(self.limit, "demo-task", initializer=self.app.set_current)


class Cluster:
    """An endless demo. `with Cluster(): …`, or `start()` and `stop()`, which may be called again."""

    def __init__(self) -> None:
        self._stopping = Event()
        self._ready = Event()
        self._threads: tuple[Thread, ...] = ()

    def start(self, timeout_seconds: float = 15.0) -> None:
        """Return once the worker is consuming. Raises RuntimeError when it does not come to that."""
        if any(thread.is_alive() for thread in self._threads):
            return
        self._stopping, self._ready = Event(), Event()
        shop = make_app(stopping=self._stopping)
        worker = Thread(target=self._work, args=(shop,), name="demo-worker", daemon=True)
        traffic = Thread(target=self._trade, args=(shop,), name="demo-traffic", daemon=True)
        self._threads = (traffic, worker)
        try:
            _clear(shop)
            traffic.start()  # before the worker: there is then always somebody to send it home
            worker.start()
            if not self._ready.wait(timeout_seconds) or self._stopping.is_set():
                raise RuntimeError("the demo's worker did not start")
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the traffic and the worker, and wait for both; does nothing when they have ended."""
        self._stopping.set()
        self._ready.set()
        deadline = monotonic() + timeout_seconds
        for thread in self._threads:  # kept, so that a start() we interrupt can wait for them in its turn
            if thread.ident is not None:
                thread.join(max(0.0, deadline - monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _work(self, shop: Shop) -> None:
        def consuming(consumer: Any) -> None:
            self._ready.set()
            if self._stopping.is_set():  # the order to go home may have come before we could hear it
                raise WorkerShutdown(0)

        try:
            with _hushed():
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
            self._stopping.set()  # without a worker there is no demo: whoever waits must not wait for it
            self._ready.set()

    def _trade(self, shop: Shop) -> None:
        self._ready.wait()
        try:
            play(shop, self._stopping)
        finally:
            shop.control.shutdown(destination=[NODE])


def _clear(shop: Shop) -> None:
    """Forget an earlier run: its flags, its revoked ids, its waiting tasks, a shutdown it did not read."""
    state.should_stop = state.should_terminate = None
    state.reset_state()
    with shop.connection_for_write() as connection:
        for queue in (*QUEUES, f"{NODE}.celery.pidbox"):
            connection.default_channel.queue_purge(queue)


@contextmanager
def _hushed() -> Iterator[None]:
    levels = {logger: logger.level for logger in map(logging.getLogger, ("celery", "kombu"))}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)

"""The background tasks of the feeds: they consume from the brokers, and control the workers.

Rules: a task that ends by itself has crashed. Feeds can be stopped and started again (by a gateway that leads
a shared log from time to time): a feed starts once its tasks of before have ended.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from celery_gateway.pipeline.feed import FeedRunner

CANCEL_SECONDS = 5.0
"""A task that has not ended after this time is cancelled again: a client library can lose a cancellation."""


class FeedTasks:
    """The tasks of all feeds.

    Args:
        on_names: gets the names of tasks, with their broker.
        on_enabled: called when the events of a broker's workers were enabled.
        on_crash: called with the title and the error of a task that has crashed.
    """

    def __init__(
        self,
        runners: Sequence[FeedRunner],
        on_names: Callable[..., None],
        on_enabled: Callable[[str | None], None],
        on_crash: Callable[[str, BaseException], None],
    ) -> None:
        self._runners = runners
        self._on_names = on_names
        self._on_enabled = on_enabled
        self._on_crash = on_crash
        self._sources: list[asyncio.Task[None]] = []
        self._controls: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start to consume."""
        before = (*self._sources, *self._controls)
        self._sources, self._controls = [], []
        for runner in self._runners:
            feed = runner.feed
            self._sources.append(self._create(runner.title, before, runner.run))
            if feed.remote is not None:
                names = partial(self._on_names, feed.cluster)
                enabled = partial(self._on_enabled, feed.cluster)
                title = f"--control of {runner.title}"
                self._controls.append(self._create(title, before, partial(feed.remote.run, names, enabled)))

    @property
    def is_stopping(self) -> bool:
        """Whether the end of consuming was requested."""
        return any(task.cancelling() for task in self._sources)

    def stop_sources(self) -> None:
        """Request the end of consuming. May be called again."""
        for task in self._sources:
            cancel_once(task)

    def stop(self) -> None:
        """Request the end of everything. May be called again."""
        for task in (*self._sources, *self._controls):
            cancel_once(task)

    async def wait(self) -> None:
        """Wait until everything has ended that was stopped."""
        await end_all((*self._sources, *self._controls))

    def _create(
        self, title: str, before: Sequence[asyncio.Task[None]], run: Callable[[], Coroutine[None, None, None]]
    ) -> asyncio.Task[None]:
        async def run_after() -> None:
            await end_all(before)
            await run()

        task = asyncio.create_task(run_after(), name=title)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._on_crash(task.get_name(), error)


def cancel_once(task: asyncio.Task[None]) -> None:
    """Cancel a task. (A second time would cut short how it closes its connection.)"""
    if not task.cancelling():
        task.cancel()


async def end_all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for tasks that were cancelled."""
    for task in tasks:
        while not task.done():
            await asyncio.wait({task}, timeout=CANCEL_SECONDS)
            if not task.done() and task.cancelling():
                task.cancel()

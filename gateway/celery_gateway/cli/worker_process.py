"""One of several processes of a gateway. The supervisor (``cli.workers``) runs this module as a program.

Arguments: the file descriptors of the channel to the supervisor and of the socket to listen on. Standard
input has the job. The process shuts down when the supervisor has ended, so that it is never left alone.
"""

import asyncio
import pickle
import socket
import sys
from collections.abc import Callable

from celery_gateway.cli.process_channel import (
    MAX_LINE_BYTES,
    Channel,
    Job,
    Metrics,
    Report,
    ShutDown,
    Started,
    Total,
)
from celery_gateway.http.metrics_sum import Report as MetricsReport

TOTAL_SECONDS = 5.0
"""How long the supervisor may take to answer, in seconds; it waits for the other processes for less."""


class SupervisorLink:
    """The supervisor, as ``http.server.Supervision``.

    Args:
        control: the channel's socket.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._channel: Channel | None = None
        self._following: asyncio.Task[None] | None = None
        self._total: asyncio.Future[MetricsReport] | None = None

    async def attach(self, shut_down: Callable[[], None], report: Callable[[], MetricsReport]) -> None:
        """Carry out the commands of the supervisor from now on, in this event loop."""
        streams = await asyncio.open_unix_connection(sock=self._control, limit=MAX_LINE_BYTES)
        self._channel = Channel(*streams)
        self._following = asyncio.create_task(self._follow(self._channel, shut_down, report))

    async def _follow(
        self, channel: Channel, shut_down: Callable[[], None], report: Callable[[], MetricsReport]
    ) -> None:
        try:
            async for message in channel.messages():
                match message:
                    case ShutDown():
                        shut_down()
                    case Report():
                        channel.send(Metrics(list(report())))
                    case Total(series):
                        if self._total is not None and not self._total.done():
                            self._total.set_result(series)
        finally:
            shut_down()

    def started(self) -> None:
        """Report that this process accepts requests."""
        if self._channel is not None:
            self._channel.send(Started())

    async def total(self, own: MetricsReport) -> MetricsReport:
        """Return the metrics of all processes. One call at a time.

        Raises:
            TimeoutError: the supervisor does not answer.
        """
        if self._channel is None:
            return own
        self._total = asyncio.get_running_loop().create_future()
        self._channel.send(Metrics(list(own), wants_total=True))
        async with asyncio.timeout(TOTAL_SECONDS):
            return await self._total


def main() -> None:
    """Serve until the supervisor or a signal ends this process.

    Raises:
        SystemExit: with the exit code, if the gateway could not start.
    """
    control, listener = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    try:
        job: Job = pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):  # the supervisor has ended
        sys.exit(1)

    from celery_gateway.asgi import Gateway
    from celery_gateway.cli.log_lines import configure_log
    from celery_gateway.errors import GatewayError
    from celery_gateway.http.server import serve

    configure_log(job.number)
    try:
        gateway = Gateway(job.settings, warm_seconds=job.warm_seconds)
        serve(gateway, job.settings, lambda url: None, listener, SupervisorLink(control))
    except GatewayError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

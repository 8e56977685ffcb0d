"""Feeds ``top``: a thread reads a stream of statistics, another one polls workers and queues."""

import queue
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import SplitResult

import httpx

from celery_gateway.cli.proxy import transport
from celery_gateway.cli.stream_reader import CONNECT_SECONDS, Message, Refused, StreamReader
from celery_gateway.cli.top_overview import Overview
from celery_gateway.errors import GatewayError

POLL_SECONDS: Final = 5.0
"""Workers and queues: their numbers are not in the stream."""
STATISTICS_SECONDS: Final = 2
MAX_UNREAD: Final = 1_000
"""Messages that wait for the screen; beyond them the reader of the stream waits."""
_NO_EVENT: Final = "!*"
"""The pattern of types that excludes all events, so the stream has control messages only."""
_PARTS: Final = (("statistics", "workers"), ("statistics",), ("workers",))
_LISTS: Final = ("workers", "queues")

Change = Callable[[Overview, float], None]


class Feed:
    """Changes of an overview, in the order in which they arrive.

    Args:
        url: of the gateway.
        token: returns the token for ``Authorization: Bearer``, or nothing. Called for each request.
        window: the age of the oldest event that is counted, such as ``1h``.
        wake: called from a thread after each change.

    Raises:
        GatewayError: the proxy in the environment cannot be used.
    """

    def __init__(
        self, url: SplitResult, token: Callable[[], str | None], window: str, wake: Callable[[], None]
    ) -> None:
        self._url, self._token, self._window, self._wake = url, token, window, wake
        self._transport, _ = transport(url)
        self._changes: queue.Queue[Change | BaseException] = queue.Queue(MAX_UNREAD)
        self._poll_now = threading.Event()
        self.has_polled = threading.Event()
        """Set once all lists were asked for."""

    def start(self) -> None:
        """Start the threads. They end with the process."""
        for run in (self._stream, self._poll):
            threading.Thread(target=self._guarded, args=(run,), daemon=True).start()

    def apply(self, overview: Overview, now: float) -> bool:
        """Apply all changes that have arrived; return whether there were any.

        Raises:
            GatewayError: the gateway cannot be reached at first, or refuses the stream.
            UsageError: the URL is not that of a gateway, or a parameter is invalid.
        """
        is_changed = False
        for _ in range(MAX_UNREAD):
            try:
                change = self._changes.get_nowait()
            except queue.Empty:
                break
            if isinstance(change, BaseException):
                raise change
            change(overview, now)
            is_changed = True
        return is_changed

    # Progress, for the reader of the stream

    def show(self, text: str) -> None:
        """Do nothing: the page shows what it waits for."""

    def report(self, text: str) -> None:
        """Show why the connection has ended."""
        self._put(lambda overview, now: overview.on_problem(text))

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:
            self._put(error)

    def _put(self, change: Change | BaseException) -> None:
        self._changes.put(change)
        self._wake()

    def _stream(self) -> None:
        """Read the stream with all parts that the token shows."""
        refusal: GatewayError | None = None
        for parts in _PARTS:
            try:
                return self._read(parts)
            except Refused as error:
                if error.status_code != 403:
                    raise
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    def _read(self, parts: tuple[str, ...]) -> None:
        asked = {"statistics": f"{STATISTICS_SECONDS}s", "workers": "1"}
        parameters = {"type": _NO_EVENT, "format": "ndjson"} | {part: asked[part] for part in parts}
        if "statistics" in parts:
            parameters["window"] = self._window
        is_first = True
        for _, message in StreamReader(
            self._url, httpx.QueryParams(parameters), self._token, self
        ).messages():
            if is_first:
                is_first = False
                refused = set(asked) - set(parts)
                self._put(_refusal(refused))
                self._poll_now.set()
            self._put(_change(message))
            if message["type"] == "gateway-gap":
                self._poll_now.set()
        raise GatewayError("the gateway has ended the stream")

    def _poll(self) -> None:
        """Ask for the lists every few seconds, from the first message of the stream on."""
        self._poll_now.wait()
        lists = list(_LISTS)
        timeout = httpx.Timeout(CONNECT_SECONDS)
        with httpx.Client(timeout=timeout, transport=self._transport, follow_redirects=True) as client:
            while lists:
                self._poll_now.clear()
                for name in tuple(lists):
                    if not self._ask(client, name):
                        lists.remove(name)
                self.has_polled.set()
                self._wake()
                self._poll_now.wait(POLL_SECONDS)
        self.has_polled.set()

    def _ask(self, client: httpx.Client, name: str) -> bool:
        """Ask for a list; return whether to ask again."""
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            response = client.get(f"{self._url.geturl()}/{name}", headers=headers)
            values = response.json().get(name) if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError, AttributeError):
            return True  # the stream reports what is wrong
        if response.status_code in (403, 404):
            self._put(lambda overview, now: overview.refused.add(name))
            return False
        if values is not None:
            self._put(lambda overview, now: _take_over(overview, name, values))
        return True


def _refusal(parts: set[str]) -> Change:
    return lambda overview, now: overview.refused.update(parts)


def _change(message: Message) -> Change:
    return lambda overview, now: overview.on_message(message, now)


def _take_over(overview: Overview, name: str, values: Any) -> None:
    if name == "workers":
        overview.on_workers(values)
    else:
        overview.on_queues(values)

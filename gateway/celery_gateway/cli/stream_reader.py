"""Reads a stream of a gateway in NDJSON; reconnects and resumes until it has ended."""

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol
from urllib.parse import SplitResult

import click
import httpx

from celery_gateway.cli.outcome import FINAL_REASONS
from celery_gateway.cli.proxy import transport as transport_to
from celery_gateway.cli.redact import redacted
from celery_gateway.cli.terminal import printable
from celery_gateway.errors import GatewayError

SILENCE_SECONDS: Final = 60.0
"""A stream without any message for this long, not even keep-alives, is dead."""
CONNECT_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 0.5
MAX_PAUSE_SECONDS: Final = 15.0
MAX_LINE_BYTES: Final = 64 * 2**20
"""A longer line is not a message of a gateway."""
MAX_INT_DIGITS: Final = 4000
"""Longer integers stay text: Python refuses to convert those of more than 4300 digits."""
MAX_ID_CHARS: Final = 1000
MAX_ERROR_BYTES: Final = 64 * 2**10

Message = dict[str, Any]


class InvalidStream(ValueError):
    """A line that is not a message of a gateway, or an incomplete one."""


class Refused(GatewayError):
    """The gateway refuses the request.

    Attributes:
        status_code: of its response.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


class Progress(Protocol):
    """Shows what a reader is doing."""

    def show(self, text: str) -> None:
        """Show what it waits for."""

    def report(self, text: str) -> None:
        """Report why the connection has ended."""


class StreamReader:
    """The stream of a gateway at ``url``/events.

    Args:
        url: the URL of the gateway.
        parameters: of the request; the format must be NDJSON.
        token: returns the token for ``Authorization: Bearer``, or nothing. Called for each connection.
        progress: shows that the reader waits for a response, or for the next connection.

    Raises:
        GatewayError: the proxy in the environment cannot be used.
    """

    def __init__(
        self,
        url: SplitResult,
        parameters: httpx.QueryParams,
        token: Callable[[], str | None],
        progress: Progress,
    ) -> None:
        self._url = f"{url.geturl()}/events"
        self._parameters = parameters
        self._token = token
        self._transport, proxy = transport_to(url)
        self._shown_url = redacted(self._url) + (f" through the proxy {proxy}" if proxy else "")
        self._progress = progress
        self._last_id: str | None = None
        self._has_ended = False
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def messages(self) -> Iterator[tuple[str, Message]]:
        """Yield each message as text and decoded, across connections, until the stream has ended.

        Raises:
            GatewayError: the gateway cannot be reached at first, or refuses the request.
            UsageError: the URL is not that of a gateway, or a parameter is invalid.
        """
        with httpx.Client(
            timeout=httpx.Timeout(CONNECT_SECONDS, read=SILENCE_SECONDS),
            transport=self._transport,
            follow_redirects=True,
        ) as client:
            while True:
                self._progress.show(f"a response from {printable(self._shown_url)}")
                try:
                    yield from self._connection(client)
                    if self._has_ended:
                        return
                    reason = "the stream ended"
                except (
                    httpx.InvalidURL,
                    httpx.UnsupportedProtocol,
                ):  # their texts may have secrets
                    raise click.UsageError(
                        f"invalid gateway URL {self._shown_url}, or it redirects to an invalid one"
                    ) from None
                except (httpx.RequestError, InvalidStream) as error:
                    reason = str(error) or type(error).__name__
                    if self._last_id is None:
                        raise self._unreachable(reason) from None
                self._pause(reason)

    def _connection(self, client: httpx.Client) -> Iterator[tuple[str, Message]]:
        """Yield the messages of one connection."""
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        if token := self._token():
            if not (token.isascii() and token.isprintable()):
                raise GatewayError("invalid token: it has characters that a header cannot have")
            headers["Authorization"] = f"Bearer {token}"
        with client.stream("GET", self._url, params=self._parameters, headers=headers) as response:
            if response.status_code >= 500 and self._last_id:
                raise httpx.ConnectError(f"the gateway returned {response.status_code}")
            if response.status_code == 204:  # the end was received before
                self._has_ended = True
                return
            _check(response)
            self._pause_seconds = FIRST_PAUSE_SECONDS
            for text in _lines(response):
                message = _decoded(text)
                self._last_id = _id_of(message) or self._last_id
                yield text, message
                if _is_end(message):
                    self._has_ended = True
                    return

    def _unreachable(self, reason: str) -> GatewayError:
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return GatewayError(
                f"cannot connect to {self._shown_url}: {printable(reason)}. To trust a certificate of your "
                "own, name its file in SSL_CERT_FILE"
            )
        return GatewayError(
            f"cannot connect to {self._shown_url}: {printable(reason)}. Is the gateway running? Start it "
            "with celery-gateway serve (its default port is 8555), or check the URL"
        )

    def _pause(self, reason: str) -> None:
        """Report why the connection ended, and wait before the next one."""
        self._progress.report(f"{printable(reason)}; reconnecting")
        self._progress.show("the next connection")
        time.sleep(self._pause_seconds * random.uniform(0.5, 1.0))
        self._pause_seconds = min(self._pause_seconds * 2, MAX_PAUSE_SECONDS)


def _check(response: httpx.Response) -> None:
    """Check that a response is a stream.

    Raises:
        UsageError: the gateway refuses a parameter.
        Refused: it is another error, or not a stream.
    """
    if response.status_code == 200 and "ndjson" in response.headers.get("content-type", ""):
        return
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_ERROR_BYTES:
            break
    try:
        message = printable(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        url = printable(redacted(str(response.url)))
        message = f"{url} returned {response.status_code}: this URL is not a gateway stream"
    if response.status_code == 401:
        message += "; give a token with --token-file or GATEWAY_TOKEN"
    if response.status_code == 400:
        raise click.UsageError(message)
    raise Refused(message, response.status_code)


def _lines(response: httpx.Response) -> Iterator[str]:
    """Yield NDJSON lines. (``response.iter_lines`` also splits at U+2028 and its like inside a string.)

    Raises:
        InvalidStream: a line is too long, or not UTF-8.
    """
    rest = bytearray()
    for chunk in response.iter_bytes():
        first, *others = chunk.split(b"\n")
        rest += first
        for other in others:
            try:
                yield rest.decode()
            except UnicodeDecodeError as error:
                raise InvalidStream(f"the stream has a line that is not UTF-8 ({error.reason})") from None
            rest = bytearray(other)
        if len(rest) > MAX_LINE_BYTES:
            raise InvalidStream(f"the stream has a line of more than {MAX_LINE_BYTES} bytes")


def _decoded(text: str) -> Message:
    """Return a message, which has a type.

    Raises:
        InvalidStream: it is not a JSON object with a type.
    """
    try:
        message = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InvalidStream(f"the stream has a line that is not JSON ({error})") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise InvalidStream(f"the stream has a line that is not a message of a gateway: {text[:80]!r}")
    return message


def _is_end(message: Message) -> bool:
    reason = message.get("reason")
    return message["type"] == "gateway-close" and isinstance(reason, str) and reason in FINAL_REASONS


def _id_of(message: Message) -> str | None:
    """Return the id of a message; ``None`` if it has none that a header can have."""
    value = message.get("id")
    if not isinstance(value, str) or len(value) > MAX_ID_CHARS:
        return None
    return value if value.isascii() and value.isprintable() else None


def _integer(text: str) -> int | str:
    return int(text) if len(text) < MAX_INT_DIGITS else text

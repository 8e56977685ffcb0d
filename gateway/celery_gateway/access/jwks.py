"""The public keys behind the ``jwks_url`` of an issuer: fetched, kept, and refreshed (RFC 7517).

- They are refreshed every ``REFRESH_SECONDS``, and when a token has an unknown ``kid``: then at most once in
  ``MIN_INTERVAL_SECONDS``, so tokens cannot cause more requests.
- If a request fails, the old keys stay. A warning is logged at most once in ``LOG_INTERVAL_SECONDS``.
- A response is bounded in size and time. Redirects are refused.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import httpx
import jwt

from celery_gateway.access.access_file import LOOPBACK_HOSTS
from celery_gateway.access.jwt_keys import jwks_keys

REFRESH_SECONDS: Final = 300.0
MIN_INTERVAL_SECONDS: Final = 10.0
"""Minimum time between two requests. After a failure the next one is made after this time, too."""
TIMEOUT_SECONDS: Final = 5.0
"""Of a whole request, also of one whose response arrives slowly."""
LOG_INTERVAL_SECONDS: Final = 60.0
MAX_BYTES: Final = 256 << 10
"""Maximum size of a document; those of large issuers have about 10 kB."""

_log = logging.getLogger(__name__)


class Jwks:
    """The keys of one URL for one algorithm.

    Args:
        url: https, or http for a loopback address.
        algorithm: the keys are bound to it.
        on_change: is called when other keys have replaced the keys.

    Attributes:
        keys: empty until the first response.
    """

    def __init__(self, url: str, algorithm: str, on_change: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._algorithm = algorithm
        self._on_change = on_change
        self._is_loopback = LOOPBACK_HOSTS.fullmatch(urlsplit(url).hostname or "") is not None
        self._ssl: ssl.SSLContext | bool = True
        self._document: object = None
        self._task: asyncio.Task[None] | None = None
        self._next_fetch_at = 0.0
        self._refresh_at = 0.0
        self._next_log_at = 0.0
        self.keys: tuple[jwt.PyJWK, ...] = ()

    def start_if_due(self) -> None:
        """Start to fetch the keys if they are old, or if the last request has failed a while ago."""
        if self._task is None and monotonic() >= self._refresh_at:
            self._start()

    async def fetch(self) -> None:
        """Fetch the keys, unless this was done a short time ago. Callers at the same time share a request."""
        if self._task is None and monotonic() < self._next_fetch_at:
            return
        task = self._task or self._start()
        await asyncio.shield(task)  # the end of one caller does not end the request of the others

    async def close(self) -> None:
        """Cancel a request that is in progress."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._fetch())
        return self._task

    async def _fetch(self) -> None:
        self._next_fetch_at = self._refresh_at = monotonic() + MIN_INTERVAL_SECONDS
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                document = json.loads(await self._response())
            if document != self._document:
                self.keys = jwks_keys(document, self._algorithm)
                self._document = document
                self._on_change()
        except TimeoutError:
            self._log_failure(f"no response within {TIMEOUT_SECONDS:.0f} seconds")
        except Exception as error:  # whatever an issuer sends, the keys from before stay
            self._log_failure(str(error) or type(error).__name__)
        else:
            self._refresh_at = monotonic() + REFRESH_SECONDS
        finally:
            self._next_fetch_at = monotonic() + MIN_INTERVAL_SECONDS
            self._task = None

    async def _response(self) -> bytes:
        """Return the body of the response.

        Raises:
            ValueError: the status is not 200, or the body is too large.
            HTTPError: there is no response.
        """
        if self._ssl is True and not self._is_loopback:
            # Reading the certificates takes about 20 ms: too long for the event loop, and once is enough.
            self._ssl = await asyncio.to_thread(httpx.create_ssl_context)
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }  # a compressed body has no bound
        # A loopback address is not reached by a proxy of the environment.
        async with (
            httpx.AsyncClient(
                verify=self._ssl, timeout=TIMEOUT_SECONDS, trust_env=not self._is_loopback
            ) as client,
            client.stream("GET", self._url, headers=headers) as response,
        ):
            if response.is_redirect:
                raise ValueError("it redirects, which is not followed: write the final address as jwks_url")
            if response.status_code != 200:
                raise ValueError(f"the response has status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"the response has more than {MAX_BYTES} bytes")
            return bytes(body)

    def _log_failure(self, reason: str) -> None:
        now = monotonic()
        if now >= self._next_log_at:
            self._next_log_at = now + LOG_INTERVAL_SECONDS
            consequence = "the keys from before stay valid" if self.keys else "its tokens are refused"
            shown = self._url.partition("?")[0]
            _log.warning("cannot fetch the keys of an issuer, %s: %s; %s", shown, reason, consequence)

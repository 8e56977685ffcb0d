"""Large JSON responses: built from pieces, charged to the client's memory, and sent with deadlines.

Rules: memory is charged as pieces are added, and released as the client reads them. A client that reads
nothing for ``slow_seconds``, or has not read all after ``SLOW_PERIODS`` times that, is disconnected.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from celery_gateway.errors import OverLimit
from celery_gateway.stream.limits import Limits, Reservation

SLOW_PERIODS: Final = 5
"""How many times ``slow_seconds`` a whole response may take: others cannot use its memory meanwhile."""
MAX_PIECE_BYTES: Final = 64 << 10
PIECE_OVERHEAD_BYTES: Final = 48
"""Memory that a piece takes beside its bytes."""
STEP_BYTES: Final = 8 << 10
"""The charge grows in steps of this size; at the end it is what the response takes."""


class JSONBuilder:
    """A response in the making: pieces of JSON and their digest.

    Args:
        limits: whose memory is charged.
        client: the address of the client.
        slow_seconds: how long the client may read nothing of the response, in seconds.
    """

    def __init__(self, limits: Limits, client: str, slow_seconds: float) -> None:
        self._limits = limits
        self._reserved = limits.memory.reserve(client)
        self._slow_seconds = slow_seconds
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._scratch_bytes = 0
        self._digest = blake2b(digest_size=12)

    def reserve(self, size_bytes: int) -> None:
        """Charge memory in advance, so that work that cannot be completed does not start.

        Raises:
            OverLimit: the limits do not allow it; everything is released. Also raised by ``add``,
                ``add_whole`` and ``charge_scratch``.
        """
        self._resize(size_bytes)

    def charge_scratch(self, by: int) -> None:
        """Charge ``by`` more bytes that are needed while the response is built; less if negative."""
        self._scratch_bytes += by
        self._charge()

    def add(self, piece: bytes) -> None:
        """Append a piece."""
        if piece:
            self._pieces.append(piece)
            self._digest.update(piece)
            self._size_bytes += len(piece) + PIECE_OVERHEAD_BYTES
            self._charge()

    def add_whole(self, json: bytes) -> None:
        """Append a piece of any size that is not part of the digest: the response has another ETag."""
        self._pieces.append(json)
        self._size_bytes += len(json) + PIECE_OVERHEAD_BYTES
        self._charge()

    def release(self) -> None:
        """Drop everything. May be called again."""
        self._pieces = []
        self._reserved.release()

    def response(self, request: Request, id: bytes | None = None, etag: str | None = None) -> Response:
        """Return all pieces as a response, or 304 if the client has them already.

        Args:
            request: its ``If-None-Match`` is compared.
            id: the stream's position, added as the last field; the ETag does not depend on it.
            etag: the ETag; by default the digest.
        """
        if etag is None:
            etag = f'"{self._digest.hexdigest()}"'
        if id is not None:
            etag = "W/" + etag
            self._pieces.append(b',"id":"%b"}' % id)
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}  # no-cache: revalidate each time
        if _matches(request, etag):
            self.release()
            return Response(status_code=304, headers=headers)
        self._reserved.resize(self._size_bytes)
        return QueuedResponse(self._pieces, headers, self._reserved, self._limits, self._slow_seconds)

    def _charge(self) -> None:
        needed_bytes = self._size_bytes + self._scratch_bytes
        if needed_bytes > self._reserved.amount:
            self._resize(max(needed_bytes, self._reserved.amount + STEP_BYTES))

    def _resize(self, size_bytes: int) -> None:
        try:
            self._reserved.grow(size_bytes - self._reserved.amount)
        except OverLimit:
            self.release()
            raise


class QueuedResponse(Response):
    """A response whose pieces are dropped, and their memory released, as the client reads them."""

    def __init__(
        self,
        pieces: list[bytes],
        headers: dict[str, str],
        reserved: Reservation,
        limits: Limits,
        slow_seconds: float,
    ) -> None:
        super().__init__(headers=headers, media_type="application/json")
        self.headers["content-length"] = str(sum(map(len, pieces)))
        self._pieces = deque(pieces)
        self._reserved = reserved
        self._limits = limits
        self._slow_seconds = slow_seconds
        pieces.clear()  # the builder may still refer to them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._slow_seconds):
                await send(message)

        try:
            async with asyncio.timeout(SLOW_PERIODS * self._slow_seconds):
                await self._send(send_in_time, is_head=scope["method"] == "HEAD")
        except TimeoutError:
            self._limits.count("slow-response")
            raise  # the server closes the connection
        finally:
            self._pieces.clear()
            self._reserved.release()

    async def _send(self, send: Send, *, is_head: bool) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if is_head:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        for chunk, freed_bytes, is_last in self._chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": not is_last})
            self._reserved.resize(max(0, self._reserved.amount - freed_bytes))
            await asyncio.sleep(0)  # sending may not wait, and there may be much

    def _chunks(self) -> Iterator[tuple[bytes, int, bool]]:
        """Yield the body in chunks: each with how many bytes it frees, and whether it is the last."""
        pieces = self._pieces
        while pieces:
            if len(pieces[0]) > MAX_PIECE_BYTES:
                whole = pieces.popleft()
                for start in range(0, len(whole), MAX_PIECE_BYTES):
                    is_end = start + MAX_PIECE_BYTES >= len(whole)
                    freed_bytes = len(whole) + PIECE_OVERHEAD_BYTES if is_end else 0
                    yield whole[start : start + MAX_PIECE_BYTES], freed_bytes, is_end and not pieces
                del whole
                continue
            joined: list[bytes] = []
            size_bytes = 0
            while pieces and size_bytes < MAX_PIECE_BYTES and len(pieces[0]) <= MAX_PIECE_BYTES:
                joined.append(pieces.popleft())
                size_bytes += len(joined[-1])
            yield b"".join(joined), size_bytes + PIECE_OVERHEAD_BYTES * len(joined), not pieces


def _matches(request: Request, etag: str) -> bool:
    """Return whether If-None-Match has the ETag (RFC 9110 section 13.1.2).

    An ETag with its quotes can be part of the header only as a whole, so that the header is not split.
    """
    given = request.headers.get("if-none-match", "")
    return etag.removeprefix("W/") in given or given.strip() == "*"

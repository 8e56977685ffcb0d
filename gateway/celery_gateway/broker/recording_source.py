"""The source for a recording: the events of a file instead of those of a broker.

Its URL is ``recording:///PATH``, with the parameters ``speed`` (a number, or ``max``), ``loop`` and
``keep_times`` (0 or 1). At the end of the file it consumes no more: its status says that the recording has
ended, so the silence of the workers does not count.
"""

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from celery_gateway.broker.source import NOT_CONNECTED, Sink, Status
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.errors import SourceError
from celery_gateway.events.event import encode
from celery_gateway.events.message import Message
from celery_gateway.recording.playback import Playback, Step, parse_speed

ENDED: Final = "recording-ended"
"""The code of the status after the end."""
_BATCH_STEPS = 200
"""How many steps are read in one call of a thread."""
_SLICE_SECONDS = 0.02
_SWITCHES = {"0": False, "1": True}

log = logging.getLogger(__name__)


def recording_url(
    path: Path, *, speed: float = 1.0, keeps_times: bool = False, is_looped: bool = False
) -> str:
    """Return the URL of a recording; arguments as of ``Playback``.

    >>> recording_url(Path("/tmp/a b.zst"), speed=math.inf)
    'recording:///tmp/a%20b.zst?speed=max&loop=0&keep_times=0'
    """
    shown = "max" if math.isinf(speed) else f"{speed:g}"
    query = urlencode({"speed": shown, "loop": int(is_looped), "keep_times": int(keeps_times)})
    return f"recording://{quote(str(path.absolute()), safe='/')}?{query}"


class RecordingSource:
    """Plays a recording; arguments as of ``AMQPSource``.

    Args:
        urls: exactly one.
        name: only events of the broker with this name are played; ``None`` for all events.

    Raises:
        SourceError: the URL cannot be used.
        RecordingError: the file cannot be read, is not a recording, or has a newer format.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        exchange: str = "celeryev",
        name: str | None = None,
        access: Access = BY_URL,
    ) -> None:
        if len(urls) > 1:
            raise SourceError("a recording has one URL: name the brokers (--broker a=recording:///…)")
        self._playback, self._path = _playback(urls[0], name)
        self._status = NOT_CONNECTED

    @property
    def status(self) -> Status:
        return self._status

    async def run(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        self._set_status(sink, Status(True, f"replaying {self._path.name}"))
        start = loop.time()
        steps = self._playback.steps(time.time())
        slice_end = start + _SLICE_SECONDS
        while batch := await asyncio.to_thread(_batch, steps):
            for step in batch:
                now = loop.time()
                if start + step.due > now:
                    await asyncio.sleep(start + step.due - now)
                elif now > slice_end:
                    await asyncio.sleep(0)
                    slice_end = loop.time() + _SLICE_SECONDS
                await _deliver(step, sink)
        self._end(sink)
        await asyncio.Event().wait()  # until cancelled

    def _end(self, sink: Sink) -> None:
        played = self._playback
        log.warning("the recording %s has ended: %s", self._path.name, summary(played))
        self._set_status(sink, Status(False, "the recording has ended", ENDED))

    def _set_status(self, sink: Sink, status: Status) -> None:
        self._status = status
        sink.status(status)


def summary(playback: Playback) -> str:
    """Return the counts of a playback as text, with the problems of the file."""
    parts = [f"{playback.events:,} events"]
    if playback.skipped:
        parts.append(f"{playback.skipped:,} broken lines skipped")
    if playback.problem:
        parts.append(f"the file is incomplete: {playback.problem}")
    return "; ".join(parts)


async def _deliver(step: Step, sink: Sink) -> None:
    if step.event is None:
        sink.lost()
    elif (rest := sink.message(Message(encode(step.event)))) is not None:
        for _ in rest:
            await asyncio.sleep(0)


def _batch(steps: Iterator[Step]) -> list[Step]:
    return list(islice(steps, _BATCH_STEPS))


def _playback(url: str, cluster: str | None) -> tuple[Playback, Path]:
    """Return the playback that a URL describes, and the path of its file.

    Raises:
        SourceError: the URL has a host, no path, or a parameter that cannot be used.
        RecordingError: as ``Playback``.
    """
    before, _, query = url.partition("?")
    location = before.partition("://")[2]
    if not location.startswith("/"):
        raise SourceError(f"invalid URL of a recording {before!r}: write recording:///PATH, an absolute path")
    path = Path(unquote(location))
    speed, switches = 1.0, {"loop": False, "keep_times": False}
    for name, value in parse_qsl(query, keep_blank_values=True):
        try:
            if name == "speed":
                speed = parse_speed(value)
            elif name in switches:
                switches[name] = _SWITCHES[value]
            else:
                raise ValueError("the parameters are speed, loop and keep_times")
        except KeyError:
            raise SourceError(
                f"recording://: invalid {name}={value!r}: the allowed values are 0, 1"
            ) from None
        except ValueError as error:
            raise SourceError(f"recording://: invalid {name}={value!r}: {error}") from None
    playback = Playback(
        path,
        speed=speed,
        keeps_times=switches["keep_times"],
        is_looped=switches["loop"],
        cluster=cluster,
    )
    return playback, path

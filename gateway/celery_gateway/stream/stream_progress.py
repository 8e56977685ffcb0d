"""Where a stream is, for those that serve it. Pure."""

from celery_gateway.stream.cohort import Cohort
from celery_gateway.stream.messages import CloseReason
from celery_gateway.stream.stream_rate import StreamRate
from celery_gateway.stream.stream_reader import ENDED, LIVE, StreamReader


class StreamProgress:
    """Read-only properties of a stream, as its reader has them."""

    __slots__ = ("_reader",)

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader

    @property
    def cohort(self) -> Cohort:
        """The subscriptions that get the same bytes."""
        return self._reader.cohort

    @property
    def closing(self) -> CloseReason | None:
        """The reason of its end, once ``end`` was called."""
        return self._reader.closing

    @property
    def is_ended(self) -> bool:
        """True after the last bytes, or after ``close``."""
        return self._reader.phase is ENDED

    @property
    def has_more(self) -> bool:
        """True if there is more to read at once, even if ``read`` has just returned nothing."""
        return self._reader.has_more

    @property
    def is_waiting(self) -> bool:
        """True while it waits for the log (see ``stream_reader``)."""
        return self._reader.is_waiting

    @property
    def backlog(self) -> int:
        """How many entries it may have to read; a huge number while there is an initial snapshot."""
        return self._reader.backlog

    @property
    def rate(self) -> StreamRate | None:
        """Its maximum rate of events; ``None``: it gets all."""
        return self._reader.rate

    @property
    def has_snapshot(self) -> bool:
        """Whether the initial snapshot is still to be read."""
        return self._reader.has_snapshot

    @property
    def progress(self) -> object:
        """A value that changes when a stream that is not live has made progress; ``None`` for a live one."""
        return None if self._reader.phase is LIVE else self._reader.progress

    @property
    def id(self) -> bytes:
        """The id up to which the client got everything; see ``StreamReader.id``."""
        return self._reader.id

"""The pushed side of a subscription: the transport that its bytes are written to.

The transport buffers what the client does not read yet. It reports when its buffer is full and when it has
drained. Meanwhile everything else waits in the history.
"""

from collections.abc import Callable

from celery_gateway.stream.messages import CloseReason


class PushTransport:
    """A connection that bytes are pushed to.

    Attributes:
        write: writes bytes.
        on_end: is called once the gateway has ended the stream, after the last bytes.
        abort: drops the connection after an unexpected error.
        buffered_bytes: returns the size of the buffer, which is charged to the client.
        is_full: the buffer is full; it takes nothing more for now.
    """

    __slots__ = ("write", "on_end", "abort", "buffered_bytes", "is_full")

    def __init__(
        self,
        write: Callable[[bytes], None],
        on_end: Callable[[CloseReason], None],
        abort: Callable[[], None],
        buffered_bytes: Callable[[], int],
        *,
        is_full: bool,
    ) -> None:
        self.write = write
        self.on_end = on_end
        self.abort = abort
        self.buffered_bytes = buffered_bytes
        self.is_full = is_full

"""The settings of a gateway, as the commands collect them from flags, environment and file."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a gateway needs to know; ``DEFAULTS`` are those of the command line.

    Attributes:
        broker: the broker's URL, as Celery takes it; several of them, or several brokers, as in
            ``gateway.broker``.
        exchange: Celery's ``event_exchange``.
        control: whether workers may be talked to: to switch their task events on, and for tasks' names.
        root_path: the sub-path that the gateway is served under, such as ``/celery``; ``""`` for none.
        keepalive_seconds: about how long a stream may be silent.
        slow_seconds: how long a client may make no progress before its stream is ended.
        history_bytes: how much of the stream is kept for those who fall behind or come back.
        max_tasks: how many tasks are remembered, to give their events names.
        allow_origins: other web sites whose pages may read the streams (CORS).
    """

    broker: str | Sequence[str] = "amqp://guest:guest@localhost:5672//"
    exchange: str = "celeryev"
    control: bool = False
    host: str = "127.0.0.1"
    port: int = 8555
    root_path: str = ""
    keepalive_seconds: float = 15.0
    slow_seconds: float = 60.0
    history_bytes: int = 64 << 20
    max_tasks: int = 100_000
    allow_origins: tuple[str, ...] = ()


DEFAULTS = Settings()

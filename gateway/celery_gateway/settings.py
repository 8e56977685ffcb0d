"""The settings of a gateway, as the commands collect them from flags, environment and file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a gateway needs to know; ``DEFAULTS`` are those of the command line.

    Attributes:
        broker: the broker's URL, as Celery takes it; several of them, or several brokers, as in
            ``gateway.broker``.
        tls: Celery's ``broker_use_ssl``, as ``gateway.broker.Access`` has it, like the two that follow.
        login_method: Celery's ``broker_login_method``.
        transport_options: Celery's ``broker_transport_options``.
        queue_prefix: what the names of the gateway's own queues begin with, before a dot.
        exchange: Celery's ``event_exchange``.
        control_exchange: Celery's ``control_exchange``.
        accept: the content types that events are read in, such as ``application/json``; ``None`` for all that
            a gateway can read (which are no more than JSON and msgpack).
        control: whether workers may be talked to: to switch their task events on, and for tasks' names.
        root_path: the sub-path that the gateway is served under, such as ``/celery``; ``""`` for none.
        keepalive_seconds: about how long a stream may be silent.
        slow_seconds: how long a client may make no progress before its stream is ended.
        history_bytes: how much of the stream is kept for those who fall behind or come back.
        max_tasks: how many tasks are remembered, to give their events names.
        worker_timeout_seconds: how long a worker has to be silent to be taken for gone.
        lost_grace_seconds: how long a task has to be lost for a stream that waits for it to end.
        wait_known_seconds: how long such a stream waits for a task of which nothing is known.
        allow_origins: other web sites whose pages may read the streams (CORS).
    """

    broker: str | Sequence[str] = "amqp://guest:guest@localhost:5672//"
    tls: bool | Mapping[str, Any] = False
    login_method: str | None = None
    transport_options: Mapping[str, Any] = field(default_factory=dict)
    queue_prefix: str = "celery-gateway"
    exchange: str = "celeryev"
    control_exchange: str = "celery"
    accept: tuple[str, ...] | None = None
    control: bool = False
    host: str = "127.0.0.1"
    port: int = 8555
    root_path: str = ""
    keepalive_seconds: float = 15.0
    slow_seconds: float = 60.0
    history_bytes: int = 64 << 20
    max_tasks: int = 100_000
    worker_timeout_seconds: float = 300.0
    lost_grace_seconds: float = 60.0
    wait_known_seconds: float = 30.0
    allow_origins: tuple[str, ...] = ()


DEFAULTS = Settings()

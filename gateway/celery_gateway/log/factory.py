"""The engine of the log, by the setting ``log``."""

from collections.abc import Sequence

from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.url_syntax import is_amqp, is_redis
from celery_gateway.broker.urls import Broker
from celery_gateway.broker.urls import brokers as brokers_of
from celery_gateway.errors import SourceError
from celery_gateway.log.engine import Engine

_KINDS = {"rabbitmq": is_amqp, "redis": is_redis}
_NAMES = {"rabbitmq": "RabbitMQ (amqp://…)", "redis": "Redis (redis://…)"}
_ALLOWED = "memory, rabbitmq, redis, or a URL (amqp://…, redis://…)"


def engine_for(
    log: str,
    brokers: Sequence[Broker],
    *,
    prefix: str,
    age_seconds: float,
    max_bytes: int,
    exchange: str = "celeryev",
) -> Engine:
    """Return the engine of a shared log, not open.

    Args:
        log: ``rabbitmq`` or ``redis`` for the first broker, or URLs as the setting ``broker`` has them; they
            are used with the first broker's access if that broker is of the same kind.
        brokers: those of the gateway.
        prefix: the log's name is ``<prefix>.log``.
        age_seconds: how long an entry is kept.
        max_bytes: how large the log gets.
        exchange: Celery's ``event_exchange``, for the remedies of errors.

    Raises:
        SourceError: the value is unknown or does not fit the broker, a URL cannot be read, or the package for
            Redis is not installed.
    """
    kind, broker = broker_of(log, brokers)
    name = f"{prefix}.log"
    if kind == "redis":
        from celery_gateway.log.redis_log import RedisLog

        return RedisLog(
            broker.urls, access=broker.access, name=name, age_seconds=age_seconds, max_bytes=max_bytes
        )
    from celery_gateway.log.rabbitmq_log import RabbitMQLog

    return RabbitMQLog(
        broker.urls,
        access=broker.access,
        name=name,
        age_seconds=age_seconds,
        max_bytes=max_bytes,
        exchange=exchange,
    )


def broker_of(log: str, brokers: Sequence[Broker]) -> tuple[str, Broker]:
    """Return the kind of the engine, and where the log is; arguments and errors as of ``engine_for``."""
    if log in _KINDS:
        if not brokers:
            raise SourceError(
                f"--log {log} needs a broker: set --broker, or the log's own URL (--log {_url(log)})"
            )
        first = brokers[0]
        if not all(map(_KINDS[log], first.urls)):
            raise SourceError(
                f"--log {log} keeps the log in the first broker, but {without_password(first.urls[0])} is "
                f"not {_NAMES[log]}: set --log {_other(first)}, or the URL of another server "
                f"(--log {_url(log)})"
            )
        return log, first
    if "://" not in log:
        raise SourceError(f"invalid log {log!r}: the allowed values are {_ALLOWED}")
    found = _from_url(log, brokers)
    for kind, is_kind in _KINDS.items():
        if all(map(is_kind, found.urls)):
            return kind, found
    raise SourceError(
        f"the log cannot be kept in {without_password(log)}: the allowed values are {_ALLOWED}, and all URLs "
        "are of one kind"
    )


def _from_url(log: str, brokers: Sequence[Broker]) -> Broker:
    """Return where a URL leads. Of the first broker's access, only what any server can have is taken over."""
    if brokers and any(is_kind(log) and is_kind(brokers[0].urls[0]) for is_kind in _KINDS.values()):
        return brokers_of(log, brokers[0].access)[0]
    return brokers_of(log)[0]


def _other(broker: Broker) -> str:
    return next((kind for kind, is_kind in _KINDS.items() if is_kind(broker.urls[0])), "memory")


def _url(log: str) -> str:
    return "amqp://…" if log == "rabbitmq" else "redis://…"

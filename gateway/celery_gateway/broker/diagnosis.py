"""Diagnoses of broker errors: an exception becomes a code, what happened, and what to do.

Where a diagnosis comes from:

- aiormq wraps an ``OSError`` in an ``AMQPConnectionError`` with the same arguments, and keeps it as the
  cause; kombu wraps errors of py-amqp and redis-py in an ``OperationalError``. So the whole chain of causes
  is read, from the outside to the inside, and the first error that a table has a row for decides.
- The tables are ``diagnosis_network``, ``diagnosis_rabbitmq`` and ``diagnosis_redis``.
- An error without a row, for example after a library has changed its texts, gets the generic diagnosis of its
  phase, with the library's own text. It is never given a cause that the tables do not prove.
- An error that is not from a broker's library gets ``unexpected``: it may be a fault of the gateway.

Pure.
"""

from collections.abc import Iterator

from celery_gateway.broker.address import Address, address_of
from celery_gateway.broker.diagnosis_network import network_diagnosis
from celery_gateway.broker.diagnosis_rabbitmq import CLOSED_BY_BROKER, close_reason, rabbitmq_diagnosis
from celery_gateway.broker.diagnosis_redis import is_error_reply, redis_diagnosis
from celery_gateway.broker.diagnosis_rows import Case, Diagnosis, Phase, Row
from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.urls import BY_URL, Access

__all__ = ["CODES", "Diagnosis", "Phase", "consumer_cancelled", "diagnose", "exchange_deleted"]

CODES = (
    "url",
    "dns",
    "unreachable",
    "timeout",
    "tls",
    "certificate",
    "not-amqp",
    "connect-failed",
    "login-refused",
    "vhost-unknown",
    "vhost-refused",
    "no-master",
    "limit-reached",
    "login-failed",
    "permission-refused",
    "exchange-missing",
    "exchange-differs",
    "consume-failed",
    "queue-deleted",
    "consumer-cancelled",
    "closed-by-broker",
    "heartbeat-missed",
    "connection-lost",
    "unexpected",
)
"""All codes, in the order of the steps from the gateway to the events."""

_LIBRARIES = frozenset({"aio_pika", "aiormq", "amqp", "asyncio", "kombu", "pamqp", "redis", "socket", "ssl"})
"""An error that one of these raised is a broker's; packages and modules of the standard library."""

_GENERIC = {
    Phase.CONNECT: Row(
        "connect-failed",
        "cannot connect to {at}: {error}",
        "Check host, port and TLS in the URL{port_hint}, and the broker's log of this time.",
    ),
    Phase.LOGIN: Row(
        "login-failed",
        "cannot log in to {at}: {error}",
        "Check user, password and {vhost_or_database} in the URL, and the broker's log of this time.",
    ),
    Phase.CONSUME: Row(
        "consume-failed",
        "cannot consume the events of {exchange} at {at}: {error}",
        "Check the user's permissions and the broker's limits, and the broker's log of this time.",
    ),
    Phase.LOST: Row(
        "connection-lost",
        "the connection to {at} ended: {error}",
        "No action if it happened once: the gateway reconnects. Otherwise look at the broker's log of this "
        "time, and check the network between.",
    ),
}
_UNEXPECTED = Row(
    "unexpected",
    "{at}: {error}",
    "Look at the broker's log of this time. If it is a fault of the gateway, please report this message.",
)
_CANCELLED = Row(
    "consumer-cancelled",
    "the broker cancelled the consumer: the queue {queue} was deleted, or its node went down",
    "No action if it happened once: the gateway declares a new queue. Otherwise find out what deletes queues "
    "that begin with {queue_prefix}. in the vhost {vhost}.",
)
_DELETED = Row(
    "exchange-missing",
    "the exchange {exchange} was deleted from the vhost {vhost}",
    "No action if it happened once: the gateway declares it again. Otherwise find out what deletes it.",
)


def diagnose(
    error: BaseException, url: str, *, phase: Phase, exchange: str = "celeryev", access: Access = BY_URL
) -> Diagnosis:
    """Return what an error of aio-pika, kombu, redis-py or the network means.

    Args:
        url: the broker's; it may be malformed.
        phase: how far the connection had come.
        exchange: Celery's ``event_exchange``.
        access: how the gateway connects.
    """
    chain = list(_chain(error))
    reason = next(filter(None, map(close_reason, chain)), None)
    if phase is Phase.CONNECT and (reason is not None or any(map(is_error_reply, chain))):
        phase = Phase.LOGIN  # the broker has answered, so there is a connection
    case = Case(_address(url), exchange, access, phase, url.count(";") + 1)
    for link in chain:
        for table in (network_diagnosis, rabbitmq_diagnosis, redis_diagnosis):
            if found := table(link, case):
                return found
    if reason is not None and phase is Phase.LOST:
        return case.diagnosis(CLOSED_BY_BROKER, reason=str(reason))
    if reason is not None:
        return case.diagnosis(_GENERIC[phase], error=str(reason))
    row = _GENERIC[phase] if any(map(_is_of_library, chain)) else _UNEXPECTED
    text = next((text for link in chain if (text := str(link))), "")
    name = type(error).__name__
    return case.diagnosis(row, error=f"{name}: {text}" if text else name)


def consumer_cancelled(url: str, queue: str, access: Access = BY_URL) -> Diagnosis:
    """Return the diagnosis of a consumer that the broker cancelled with ``basic.cancel``."""
    case = Case(_address(url), "", access, Phase.LOST)
    return case.diagnosis(_CANCELLED, queue=queue)


def exchange_deleted(url: str, exchange: str) -> Diagnosis:
    """Return the diagnosis of an event exchange that was deleted while it was consumed."""
    return Case(_address(url), exchange, BY_URL, Phase.LOST).diagnosis(_DELETED)


def _address(url: str) -> Address:
    try:
        return address_of(url)
    except ValueError:
        return Address("", without_password(url), 0, "", "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and its causes, from the outside to the inside."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _is_of_library(error: BaseException) -> bool:
    """Return whether an error is of the network or was raised in a broker's library."""
    if isinstance(error, OSError | EOFError) or type(error).__module__.partition(".")[0] in _LIBRARIES:
        return True
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = traceback.tb_frame.f_globals.get("__name__", "") if traceback is not None else ""
    return str(module).partition(".")[0] in _LIBRARIES

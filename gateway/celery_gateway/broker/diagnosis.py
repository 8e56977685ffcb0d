"""What goes wrong with a broker, in plain words: an exception becomes a code, what happened, and what to do.

Where the words come from:
- aiormq wraps an ``OSError`` in an ``AMQPConnectionError`` with the same arguments, and it is the cause;
  py-amqp and redis-py are wrapped by kombu in an ``OperationalError``. So the whole chain of causes is read,
  from the outside to the inside, and the first link that says something wins.
- RabbitMQ begins each reason for a close with its name (``ACCESS_REFUSED - …``); the text behind it names the
  thing and, for connections, tells apart what one number (530) stands for. It is the text that is read.
- aiormq loses the reason with which a broker refuses a vhost: it raises an ``InvalidFrameError`` that shows
  the frame's address only. The frame is still a local variable of the traceback, and is taken from there.

Pure: nothing is asked of the network.
"""

import asyncio
import errno
import re
import shlex
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from pamqp.commands import Connection

from gateway.broker import BY_URL, without_password
from gateway.source.place import Place, grant, place_of

CODES = (
    "url",
    "dns",
    "unreachable",
    "timeout",
    "tls",
    "certificate",
    "not-amqp",
    "login-refused",
    "vhost-unknown",
    "vhost-refused",
    "limit-reached",
    "permission-refused",
    "exchange-missing",
    "exchange-differs",
    "queue-deleted",
    "consumer-cancelled",
    "closed-by-broker",
    "heartbeat-missed",
    "connection-lost",
    "unexpected",
)
"""Every code there is, in the order of the way from here to the events."""

_PORT_HINTS = {
    15672: " (15672 is RabbitMQ's management page; AMQP is on 5672)",
    25672: " (25672 is what RabbitMQ's nodes use among themselves; AMQP is on 5672)",
    5671: " (5671 is usually TLS: amqps://)",
}
_UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL})
_REFUSED = re.compile(
    r"(?:(?P<right>configure|write|read) )?access to (?P<kind>queue|exchange|topic) '(?P<name>.*?)'"
)
_REASON = re.compile(r"\A[A-Z_]+ - ")


class Failure(NamedTuple):
    """Something that is wrong: ``code`` one of ``CODES``, ``what`` happened, and the ``remedy``.

    Both texts are fit to be shown; neither holds a password.
    """

    code: str
    what: str
    remedy: str


def consumer_cancelled(url: str, queue: str, queue_prefix: str = BY_URL.queue_prefix) -> Failure:
    """Return the failure of a consumer that the broker ended (``basic.cancel``); there is no exception."""
    return Failure(
        "consumer-cancelled",
        f"the broker ended our consumer: the queue {queue} was deleted, or its node went down",
        "Nothing, if it happened once: a new queue is made; else look for what deletes queues "
        f"that begin with {queue_prefix}. in the vhost {_place(url).vhost}.",
    )


def exchange_deleted(url: str, exchange: str) -> Failure:
    """Return the failure of an exchange that is gone while it was consumed, and our binding with it."""
    return Failure(
        "exchange-missing",
        f"the exchange {exchange} was deleted from the vhost {_place(url).vhost}",
        "Nothing, if it happened once: it is declared again; else look for what deletes it.",
    )


def failure_of(
    error: BaseException, url: str, exchange: str = "celeryev", queue_prefix: str = BY_URL.queue_prefix
) -> Failure:
    """Return what an error of aio-pika, kombu or the network means for the gateway at a broker's URL."""
    place = _place(url)._replace(queue_prefix=queue_prefix)
    for link in _chain(error):
        failure = (
            _of_connecting(link, place)
            or _of_reason(_reason(link), place, exchange)
            or _of_redis(link, place)
            or _of_losing(link, place)
        )
        if failure:
            return failure
    text = str(error) or type(error).__name__
    return Failure(
        "unexpected",
        f"{place.address}: {type(error).__name__}: {text}",
        "Look at the broker's log at this time; if the gateway is at fault, please report these words.",
    )


def _place(url: str) -> Place:
    try:
        return place_of(url)
    except ValueError:
        return Place("", without_password(url), 0, "", "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _reason(error: BaseException) -> str:
    """Return the broker's own words for its close, such as ``NOT_FOUND - no queue 'x' in vhost 'v'``."""
    for argument in error.args:
        if isinstance(argument, str) and _REASON.match(argument):
            return argument
    if type(error).__name__ == "InvalidFrameError":
        traceback = error.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame.f_locals.get("frame")
            if isinstance(frame, Connection.Close):
                return str(frame.reply_text)
            traceback = traceback.tb_next
    return ""


def _of_connecting(error: BaseException, place: Place) -> Failure | None:
    text = str(error.args[-1]) if error.args else ""
    if isinstance(error, socket.gaierror):
        return Failure(
            "dns",
            f"the name {place.host} cannot be resolved: {text}",
            f"Correct the host in the URL, or make its name known here: {_sh('getent', 'hosts', place.host)}",
        )
    if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
        return Failure(
            "certificate",
            f"the certificate of {place.address} is not trusted: {_certificate_words(text)}",
            "Name the authority's file in the URL (amqps://…?cafile=/path/ca.pem; for a Celery app its "
            "broker_use_ssl = {'ca_certs': …}) and the host by a name that the certificate holds: "
            f"openssl s_client -connect {place.address} -showcerts",
        )
    if isinstance(error, ssl.SSLError) or text.startswith("[SSL"):
        plain = {"amqps": "amqp", "rediss": "redis"}.get(place.scheme, place.scheme)
        return Failure(
            "tls",
            f"no TLS with {place.address}: {text}",
            f"If that port speaks without TLS, begin the URL with {plain}:// (RabbitMQ's TLS port is "
            "usually 5671); else compare the versions of TLS that both sides allow.",
        )
    if isinstance(error, TimeoutError) or getattr(error, "errno", None) == errno.ETIMEDOUT:
        return Failure(
            "timeout",
            f"{place.address} did not answer in time",
            "Correct host and port, or open the firewall between here and there; it can also be a server "
            f"that waits because it is no broker{_PORT_HINTS.get(place.port, '')}: "
            f"{_sh('nc', '-vz', place.host, str(place.port))}",
        )
    if isinstance(error, FileNotFoundError) and not text.startswith("Connect"):
        return Failure(
            "url",
            f"a file that the URL names is not there: {error.filename or text}",
            "Correct cafile=, certfile= or keyfile= in the URL (for a Celery app, its broker_use_ssl).",
        )
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        how = {
            errno.ECONNREFUSED: "nothing listens there (connection refused)",
            errno.EHOSTUNREACH: "no route to the host",
            errno.ENETUNREACH: "the network is unreachable",
        }.get(error.errno, text)
        return Failure(
            "unreachable",
            f"{place.address} cannot be reached: {how}",
            "Start the broker, or correct host and port"
            + (
                ""
                if place.has_usual_port or not place.is_amqp
                else " (RabbitMQ's usual ones are 5672, with TLS 5671)"
            )
            + (
                "; from within a container localhost is the container itself."
                if place.is_local
                else f": {_sh('nc', '-vz', place.host, str(place.port))}"
            ),
        )
    return None


def _of_reason(reason: str, place: Place, exchange: str) -> Failure | None:
    """Read the broker's own words."""
    if not reason:
        return None
    name, _, text = reason.partition(" - ")
    if name == "ACCESS_REFUSED" and (refused := _REFUSED.search(text)):
        return _permission(refused, place, exchange)
    if name == "ACCESS_REFUSED":
        return _login(place, text, exchange)
    if "limit" in text and name in ("NOT_ALLOWED", "RESOURCE_ERROR"):
        return Failure(
            "limit-reached",
            f"{place.address} takes no more connections: {text}",
            "Close connections that nobody needs (rabbitmqctl list_connections user vhost), or lift it: "
            + _sh("rabbitmqctl", "set_vhost_limits", "-p", place.vhost, '{"max-connections": -1}'),
        )
    if name == "NOT_ALLOWED" and "refused for user" in text:
        return Failure(
            "vhost-refused",
            f"the user {place.user} may not use the vhost {place.vhost} of {place.address}",
            f"Give the user the rights that the gateway needs: {grant(place, exchange)}",
        )
    if name == "NOT_ALLOWED" or "is deleted" in text:
        return Failure(
            "vhost-unknown",
            f"{place.address} has no vhost {place.vhost}{': it was deleted' if 'is deleted' in text else ''}",
            f"Correct the vhost in the URL{_slash_hint(place.vhost)}, or make it: "
            f"{_sh('rabbitmqctl', 'add_vhost', place.vhost)} && {grant(place, exchange)}",
        )
    if name == "NOT_FOUND" and "no exchange" in text:
        return Failure(
            "exchange-missing",
            f"the vhost {place.vhost} of {place.address} has no exchange {exchange}: no worker ever sent an "
            "event there",
            "Start a worker with events (celery -A proj worker -E) on this vhost, or correct --exchange "
            f"(Celery's event_exchange): {_sh('rabbitmqctl', 'list_exchanges', '-p', place.vhost)}",
        )
    if name == "NOT_FOUND" and "no queue" in text:
        return Failure(
            "queue-deleted",
            f"our queue is gone: {text}",
            "Nothing, if it happened once: a new queue is made; else look for what deletes queues "
            f"that begin with {place.queue_prefix}. in the vhost {place.vhost}.",
        )
    if name == "PRECONDITION_FAILED" and f"for exchange '{exchange}'" in text:
        return Failure(
            "exchange-differs",
            f"the exchange {exchange} is not as Celery declares it (topic, durable): {text}",
            "Workers cannot send events to it either; stop what declares it, and delete it: "
            + _sh("rabbitmqadmin", f"--vhost={place.vhost}", "delete", "exchange", f"name={exchange}"),
        )
    return Failure(
        "closed-by-broker",
        f"{place.address} broke off: {reason}",
        "Nothing, if the broker was restarted or somebody closed the connection: it is made again; "
        "else the broker's log of this time says more.",
    )


def _login(place: Place, text: str, exchange: str) -> Failure:
    who = place.user or "the user"
    if place.user == "guest" and not place.is_local:
        rights = grant(place._replace(user="gateway"), exchange)
        remedy = (
            "RabbitMQ lets guest in from its own machine only: make a user for the gateway, and put it into "
            f"the URL: rabbitmqctl add_user gateway PASSWORD && {rights}"
        )
    else:
        remedy = (
            "Correct user and password in the URL (where @ : / # ? % are written %40 %3A %2F %23 %3F %25), "
            f"or set a new one: {_sh('rabbitmqctl', 'change_password', who)} PASSWORD"
        )
    return Failure("login-refused", f"{place.address} refused the login of {who}: {text}", remedy)


def _permission(refused: re.Match[str], place: Place, exchange: str) -> Failure:
    right, kind, name = refused["right"], refused["kind"], refused["name"]
    access = f"{right} access" if right else "access"
    return Failure(
        "permission-refused",
        f"the user {place.user} has no {access} to the {kind} {name} in the vhost {place.vhost} "
        f"of {place.address}",
        "Give the user the rights that the gateway needs (this replaces what it may do there now: if "
        f"workers log in with it too, give the gateway a user of its own): {grant(place, exchange)}",
    )


def _of_redis(error: BaseException, place: Place) -> Failure | None:
    """Read redis-py's errors; it need not be installed."""
    if not type(error).__module__.startswith("redis."):
        return None
    kind, text = type(error).__name__, str(error)
    if kind in ("AuthenticationError", "AuthenticationWrongNumberOfArgsError") or "NOAUTH" in text:
        return Failure(
            "login-refused",
            f"{place.address} refused the login{f' of {place.user}' if place.user else ''}: {text}",
            "Correct the password in the URL (redis://:PASSWORD@host:6379/0, with a user "
            "redis://USER:PASSWORD@…): redis-cli CONFIG GET requirepass",
        )
    if kind == "NoPermissionError":
        return Failure(
            "permission-refused",
            f"{place.address}: {text}",
            "Let the user read the events' channels: "
            + _sh("redis-cli", "ACL", "SETUSER", place.user or "default", "~_kombu.*", "&*", "+@all"),
        )
    if "DB index is out of range" in text:
        return Failure(
            "vhost-unknown",
            f"{place.address} has no database {place.vhost}",
            "Correct the number at the end of the URL, or allow more: redis-cli CONFIG GET databases",
        )
    return None


def _of_losing(error: BaseException, place: Place) -> Failure | None:
    """Read how a connection ended when nobody said why."""
    if isinstance(error, asyncio.IncompleteReadError) and (error.expected or 0) > 1 << 24:
        return _not_amqp(place)  # the length of a frame, read from the text of another protocol
    kind = type(error).__name__
    if kind == "AuthenticationError":
        return _mechanism(error, place)
    if kind in ("ProtocolSyntaxError", "IncompatibleProtocolError", "InvalidFrameError"):
        return _not_amqp(place)
    if isinstance(error, asyncio.CancelledError):  # with which aiormq ends a connection that went silent
        return Failure(
            "heartbeat-missed",
            f"{place.address} was silent for longer than the heartbeat allows",
            "Nothing, if the network was away for a while: the connection is made again; else look at the "
            "broker's load, and for a firewall or balancer that drops idle connections.",
        )
    if isinstance(error, (ConnectionResetError, BrokenPipeError, EOFError)) or (
        kind == "ConnectionError" and "losed by server" in str(error)
    ):
        return Failure(
            "connection-lost",
            f"{place.address} closed the connection without a word",
            "Nothing, if the broker was stopped: the connection is made again; if it is so from the first "
            f"try, the port may want TLS (amqps://) or belong to another server"
            f"{_PORT_HINTS.get(place.port, '')}, or a balancer stands before a broker that is down.",
        )
    return None


def _not_amqp(place: Place) -> Failure:
    return Failure(
        "not-amqp",
        f"what answers at {place.address} does not speak AMQP 0-9-1",
        "Correct the port: RabbitMQ's are 5672, with TLS 5671"
        f"{_PORT_HINTS.get(place.port, '')}: rabbitmqctl status | grep -i amqp",
    )


def _mechanism(error: BaseException, place: Place) -> Failure:
    offered = error.args[0] if error.args else "others"
    return Failure(
        "login-refused",
        f"{place.address} takes no login with a password: it offers {offered}",
        "Allow PLAIN in rabbitmq.conf (auth_mechanisms.1 = PLAIN), or name another mechanism in the URL: "
        "…?auth=external",
    )


def _certificate_words(text: str) -> str:
    return re.sub(r"\A.*certificate verify failed: |\.? ?\(_ssl\.c:\d+\)\Z", "", text)


def _slash_hint(vhost: str) -> str:
    """Celery's URLs end in ``//`` for the vhost ``/``, which tempts to write ``//name``."""
    named_with_slash = vhost.startswith("/") and len(vhost) > 1
    return f" (one slash before {vhost[1:]}, unless the name begins with it)" if named_with_slash else ""


def _sh(*words: str) -> str:
    return shlex.join(words)

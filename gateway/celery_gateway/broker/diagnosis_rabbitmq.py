"""Diagnoses of what RabbitMQ and aiormq report.

Where the texts come from:

- RabbitMQ closes a connection or a channel with a reply code, and a text that begins with the name of that
  code: ``ACCESS_REFUSED - …``. One code stands for several causes (530 is a missing vhost, a vhost that is
  not permitted, and a limit), so the rest of the text is read, too. The names in it (of vhosts, users,
  queues) may have any words, so they are taken out before.
- A text that matches no row has no diagnosis from these tables, whatever its code. Only one cause is taken
  from a code alone: 403 is a refused login before the vhost is open, and a missing permission after that.
- aiormq loses the reason with which a broker refuses a vhost: it raises an ``InvalidFrameError`` that has no
  reply text. The frame is still a local variable of the traceback, and is taken from there.

Pure.
"""

import asyncio
import re
from typing import NamedTuple

from pamqp.commands import Channel, Connection

from celery_gateway.broker.diagnosis_network import SILENT
from celery_gateway.broker.diagnosis_rows import Case, Diagnosis, Phase, Row
from celery_gateway.broker.permissions import grant_rabbitmq
from celery_gateway.broker.silence import BrokerSilentError

_MAX_AMQP_BYTES = 1 << 24
"""A frame that claims to be longer is the text of another protocol."""
_REASON = re.compile(r"\A([A-Z_]+) - (.*)\Z", re.DOTALL)
_NAMES_BY_CODE = {
    320: "CONNECTION_FORCED",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    541: "INTERNAL_ERROR",
}
_NAMES_BY_TYPE = {  # aiormq/connection.py and channel.py, EXCEPTION_MAPPING
    "ProbableAuthenticationError": "ACCESS_REFUSED",
    "ChannelAccessRefused": "ACCESS_REFUSED",
    "ChannelNotFoundEntity": "NOT_FOUND",
    "ChannelLockedResource": "RESOURCE_LOCKED",
    "ChannelPreconditionFailed": "PRECONDITION_FAILED",
    "ConnectionResourceError": "RESOURCE_ERROR",
    "ConnectionNotAllowed": "NOT_ALLOWED",
    "ConnectionInternalError": "INTERNAL_ERROR",
}

_DIFFERENT_PROTOCOL = Row(
    "not-amqp",
    "the server at {at} does not speak AMQP 0-9-1",
    "Correct the port: RabbitMQ's are 5672, and 5671 with TLS{port_hint}: rabbitmqctl status | grep -i amqp",
)
_NO_MECHANISM = Row(
    "login-refused",
    "{at} accepts no login with a password: it offers {text}",
    "Allow PLAIN in rabbitmq.conf (auth_mechanisms.1 = PLAIN), or set another mechanism in the URL: "
    "…?auth=external",
)
_CLOSED = Row(
    "connection-lost",
    "{at} closed the connection without giving a reason",
    "No action if the broker was stopped: the gateway reconnects. If it happens at every attempt, the port "
    "may need TLS ({tls_scheme}://) or belong to another server{port_hint}, or the broker behind a load "
    "balancer is down.",
)
_LOGIN = Row(
    "login-refused",
    "{at} refused the login of {who}: {text}",
    "Correct user and password in the URL (write @ : / # ? % as %40 %3A %2F %23 %3F %25), or set a new "
    "password: {change_password} PASSWORD",
)
_LOGIN_GUEST = _LOGIN._replace(
    remedy="By default RabbitMQ accepts the user guest from its own machine only. Create a user for the "
    "gateway, and put it into the URL: rabbitmqctl add_user gateway PASSWORD && {grant_gateway}"
)
_TOPIC = Row(
    "permission-refused",
    "topic permissions do not allow the user {user} to bind a queue to the exchange {exchange} with the "
    "routing key {name} in the vhost {vhost} of {at}",
    "Remove the topic permissions, because the gateway needs all events: {clear_topic_permissions}",
)
_PERMISSION = Row(
    "permission-refused",
    "the user {user} has no {right} to the {kind} {name} in the vhost {vhost} of {at}",
    "Give the user the permissions that the gateway needs (this replaces its permissions there; if workers "
    "use the same user, create another one for the gateway): {grant}",
)
_OTHER_PERMISSION = _PERMISSION._replace(
    what="the user {user} lacks a permission in the vhost {vhost} of {at}: {text}"
)
_LIMIT = Row(
    "limit-reached",
    "{at} allows no more {kind}s: {text}",
    "Close {kind}s that are not needed ({list}), or raise the limit{raise_limit}",
)


class _TextRow(NamedTuple):
    """A row for a reason by its name and text; ``pattern`` is searched in the text without its names."""

    name: str
    pattern: re.Pattern[str]
    row: Row


_TEXT_ROWS = (
    _TextRow(
        "NOT_ALLOWED",
        re.compile(r"\Aaccess to vhost '' refused for user ''\Z"),
        Row(
            "vhost-refused",
            "the user {user} has no access to the vhost {vhost} of {at}",
            "Give the user the permissions that the gateway needs: {grant}",
        ),
    ),
    _TextRow(
        "NOT_ALLOWED",
        re.compile(r"\Avhost '' not found\Z"),
        Row(
            "vhost-unknown",
            "{at} has no vhost {vhost}",
            "Correct the vhost in the URL{slash_hint}, or add it: {add_vhost} && {grant}",
        ),
    ),
    _TextRow(
        "CONNECTION_FORCED",
        re.compile(r"\Avhost '' is deleted\Z"),
        Row(
            "vhost-unknown",
            "{at} has no vhost {vhost}: it was deleted",
            "Correct the vhost in the URL{slash_hint}, or add it: {add_vhost} && {grant}",
        ),
    ),
    _TextRow(
        "NOT_FOUND",
        re.compile(r"\Ano exchange 'EXCHANGE' in vhost ''\Z"),
        Row(
            "exchange-missing",
            "the vhost {vhost} of {at} has no exchange {exchange}: no worker has sent an event there yet",
            "Start a worker with events (celery -A proj worker -E) on this vhost, or correct --exchange "
            "(Celery's event_exchange). The exchanges there: {list_exchanges}",
        ),
    ),
    _TextRow(
        "NOT_FOUND",
        re.compile(r"\Ano queue 'QUEUE' in vhost ''\Z"),
        Row(
            "queue-deleted",
            "the gateway's queue was deleted: {text}",
            "No action if it happened once: the gateway declares a new queue. Otherwise find out what "
            "deletes queues that begin with {queue_prefix}. in the vhost {vhost}.",
        ),
    ),
    _TextRow(
        "PRECONDITION_FAILED",
        re.compile(r"\Ainequivalent arg '\w+' for exchange 'EXCHANGE' in vhost ''"),
        Row(
            "exchange-differs",
            "the exchange {exchange} is not as Celery declares it (topic, durable): {text}",
            "Workers cannot send events to it either. Stop the program that declares it, and delete it: "
            "{delete_exchange}",
        ),
    ),
    _TextRow(
        "CONNECTION_FORCED",
        re.compile(""),
        Row(
            "closed-by-broker",
            "{at} closed the connection: {reason}",
            "No action if the broker was restarted, or if the connection was closed on purpose: the gateway "
            "reconnects. Otherwise look at the broker's log of this time.",
        ),
    ),
)
CLOSED_BY_BROKER = _TEXT_ROWS[-1].row
_ACCESS = re.compile(
    r"\A(?:(?P<right>configure|write|read) )?access to (?P<kind>queue|exchange|topic) '(?P<name>.*?)' in "
)
_LIMIT_REACHED = re.compile(
    r"(?P<kind>queue|channel|connection)s?\b(?=.*\blimit\b)(?=.*\breached\b)", re.DOTALL
)
_LISTS = {
    "queue": ("rabbitmqctl", "list_queues", "-p", "{vhost}", "name", "exclusive"),
    "channel": ("rabbitmqctl", "list_channels", "pid", "user"),
    "connection": ("rabbitmqctl", "list_connections", "user", "vhost"),
}
_LIMIT_NAMES = ("NOT_ALLOWED", "RESOURCE_ERROR", "PRECONDITION_FAILED")
_LIMIT_SCOPES = (
    (
        re.compile(r"\buser (connection |channel )?limit\b"),
        ("rabbitmqctl", "clear_user_limits", "{user}", "max-{kind}s"),
        "",
    ),
    (
        re.compile(r"\bvhost ''"),
        ("rabbitmqctl", "set_vhost_limits", "-p", "{vhost}", '{{"max-{kind}s":-1}}'),
        " (this replaces the vhost's other limits)",
    ),
)
"""Patterns of texts without names, the command that removes such a limit, and a remark."""


class CloseReason(NamedTuple):
    """Why a broker closed a connection or a channel.

    Attributes:
        name: of the reply code, such as ``NOT_FOUND``; empty if it is unknown.
        text: without that name.
    """

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name} - {self.text}" if self.name else self.text


def close_reason(error: BaseException) -> CloseReason | None:
    """Return the broker's reason for a close, as aiormq or py-amqp have it; ``None`` without one."""
    codes = [argument for argument in error.args if type(argument) is int]
    texts = [argument for argument in error.args if isinstance(argument, str)]
    name = _NAMES_BY_TYPE.get(type(error).__name__, "")
    if type(error).__name__ == "InvalidFrameError":
        frame = _close_frame(error)
        if frame is None:
            return None
        codes, texts = [int(frame.reply_code or 0)], [str(frame.reply_text)]
    for text in texts:
        if match := _REASON.match(text):
            return CloseReason(match[1], match[2])
    name = name or _NAMES_BY_CODE.get(codes[0] if codes else 0, "")
    return CloseReason(name, texts[0]) if name and texts else None


def rabbitmq_diagnosis(error: BaseException, case: Case) -> Diagnosis | None:
    """Return the diagnosis of one error of a chain, ``None`` if nothing is known about it."""
    reason = close_reason(error)
    return _of_protocol(error, case) if reason is None else _of_reason(reason, case)


def _of_reason(reason: CloseReason, case: Case) -> Diagnosis | None:
    name, text = reason
    if name == "ACCESS_REFUSED":
        return _access_refused(text, case)
    plain = _without_names(text, case)
    if name in _LIMIT_NAMES and (match := _LIMIT_REACHED.search(plain)):
        return _limit(match["kind"], plain, text, case)
    for row in _TEXT_ROWS:
        if row.name == name and row.pattern.search(plain):
            return case.diagnosis(row.row, text=text, reason=str(reason), slash_hint=_slash_hint(case))
    return None


def _without_names(text: str, case: Case) -> str:
    """Return a text with ``''`` for the vhost and the user, ``'EXCHANGE'`` and ``'QUEUE'`` for ours."""
    address = case.address
    for pattern, sign in (
        (rf"\bvhost '?{re.escape(address.vhost)}'?(?!\w)", "vhost ''"),
        (rf"\buser '{re.escape(address.user)}'", "user ''"),
        (rf"\bexchange '{re.escape(case.exchange)}'", "exchange 'EXCHANGE'"),
        (rf"\bqueue '{re.escape(address.queue_prefix)}\.[^']*'", "queue 'QUEUE'"),
    ):
        text = re.sub(pattern, sign, text)
    return text


def _access_refused(text: str, case: Case) -> Diagnosis:
    """Read code 403: a permission, or, before the vhost is open, the login."""
    if match := _ACCESS.match(text):
        row = _TOPIC if match["kind"] == "topic" else _PERMISSION  # topic permissions come on top
        right = f"{match['right']} access" if match["right"] else "access"
        return case.diagnosis(row, right=right, kind=match["kind"], name=match["name"])
    if case.phase not in (Phase.CONNECT, Phase.LOGIN):
        return case.diagnosis(_OTHER_PERMISSION, text=text)
    address = case.address
    if address.user == "guest" and not address.is_local:
        grant = grant_rabbitmq(address._replace(user="gateway"), case.exchange)
        return case.diagnosis(_LOGIN_GUEST, text=text, grant_gateway=grant)
    return case.diagnosis(_LOGIN, text=text)


def _limit(kind: str, plain: str, text: str, case: Case) -> Diagnosis:
    """Read whose limit it is: a vhost's, a user's or a node's (rabbitmq.com/docs/vhosts, /user-limits)."""
    raise_limit = f" ({kind}_max in rabbitmq.conf)" if re.search(r"\bnode\b", plain) else ""
    for pattern, words, remark in _LIMIT_SCOPES:
        if pattern.search(plain):
            raise_limit = f": {case.command(words, kind=kind)}{remark}"
            break
    return case.diagnosis(
        _LIMIT, kind=kind, text=text, list=case.command(_LISTS[kind]), raise_limit=raise_limit
    )


def _of_protocol(error: BaseException, case: Case) -> Diagnosis | None:
    """Read how a connection ended without a reason of the broker."""
    type_name, is_handshake = type(error).__name__, case.phase in (Phase.CONNECT, Phase.LOGIN)
    if isinstance(error, BrokerSilentError):
        return case.diagnosis(SILENT)
    if isinstance(error, asyncio.CancelledError):  # aiormq's own monitor of silence cancels all waiters
        return case.diagnosis(SILENT) if case.phase is Phase.LOST else None
    if type(error).__module__.startswith("aiormq") and is_handshake:
        if type_name == "AuthenticationError":
            return case.diagnosis(_NO_MECHANISM, text=str(error.args[0] if error.args else "others"))
        if type_name in ("ProtocolSyntaxError", "IncompatibleProtocolError"):
            return case.diagnosis(_DIFFERENT_PROTOCOL)
        if type_name == "InvalidFrameError" and type(error.__cause__).__module__.startswith("pamqp"):
            return case.diagnosis(_DIFFERENT_PROTOCOL)
    if isinstance(error, asyncio.IncompleteReadError) and (error.expected or 0) > _MAX_AMQP_BYTES:
        return case.diagnosis(_DIFFERENT_PROTOCOL)
    if isinstance(error, ConnectionResetError | BrokenPipeError | EOFError):
        return connection_closed(case)
    return None


def connection_closed(case: Case) -> Diagnosis:
    """Return the diagnosis of a connection that the other side closed without a reason."""
    return case.diagnosis(_CLOSED, tls_scheme="amqps" if case.address.is_amqp else "rediss")


def _close_frame(error: BaseException) -> Connection.Close | Channel.Close | None:
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame.f_locals.get("frame")
        if isinstance(frame, Connection.Close | Channel.Close):
            return frame
        traceback = traceback.tb_next
    return None


def _slash_hint(case: Case) -> str:
    """Celery's URLs end in ``//`` for the vhost ``/``, so a vhost is often written as ``//name``."""
    vhost = case.address.vhost
    has_slash = vhost.startswith("/") and len(vhost) > 1
    return f" (one slash before {vhost[1:]}, unless the name begins with it)" if has_slash else ""

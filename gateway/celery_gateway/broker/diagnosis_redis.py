"""Diagnoses of what Redis, its sentinels and redis-py report.

- An error reply of Redis begins with a status word (``NOPERM …``). redis-py removes the word and raises a
  class for it, or keeps it in the text of a ``ResponseError``, as its version has it: so both are looked at.
- Where Redis has no word of its own (``ERR``), the text is read. A text that matches no row has no diagnosis
  from these tables.
- redis-py may be missing: its classes are compared by name.

Pure.
"""

import re
from typing import NamedTuple

from celery_gateway.broker.diagnosis_rabbitmq import connection_closed
from celery_gateway.broker.diagnosis_rows import Case, Diagnosis, Row
from celery_gateway.broker.permissions import redis_cli

_MAX_TEXT_CHARACTERS = 200
"""Of a text that may be a page of another server."""
_GET_PASSWORD = ("CONFIG", "GET", "requirepass")
_STATUS = re.compile(r"\A-?([A-Z]{3,}) ")
_STATUS_BY_TYPE = {
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
    "NoPermissionError": "NOPERM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "OutOfMemoryError": "OOM",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "ClusterDownError": "CLUSTERDOWN",
    "InvalidResponse": "INVALID",
}

_LOGIN = Row(
    "login-refused",
    "{at} refused the login{of_user}: {text}",
    "Correct the password in the URL (redis://:PASSWORD@host:6379/0, with a user redis://USER:PASSWORD@…; "
    "write @ : / # ? % as %40 %3A %2F %23 %3F %25): {redis_login}",
)
_NO_PASSWORD_SET = _LOGIN._replace(
    remedy="Leave the password out of the URL (redis://host:6379/0), or set one there: {redis_login}"
)
_PROTECTED = Row(
    "login-refused",
    "{at} is in protected mode: without a password it accepts connections from its own machine only",
    "Set a password there, and put it into the URL: {redis_set_password} PASSWORD",
)
_PERMISSION = Row(
    "permission-refused",
    "the user {redis_user_name} lacks a permission at {at}: {text}",
    "Give the user the permissions that the gateway needs (it keeps those that it has; a reply that it has "
    "all keys or all channels already is fine): {grant_redis}",
)
_DATABASE = Row(
    "vhost-unknown",
    "{at} has no database {vhost}",
    "Correct the number at the end of the URL, or allow more (databases in redis.conf): {redis_databases}",
)
_REPLICA = Row(
    "no-master",
    "{at} is a read-only replica",
    "Set the master in the URL, or the sentinels (sentinel://HOST:26379/0 with --transport-option "
    "master_name=…). To show the master: {redis_replication}",
)
_NOT_READY = Row(
    "no-master",
    "{at} is not ready yet: {text}",
    "No action if it was just started, or is being made a replica: the gateway tries again. Otherwise look "
    "at: {redis_persistence}",
)
_CLIENTS = Row(
    "limit-reached",
    "{at} allows no more connections: {text}",
    "Close connections that are not needed ({redis_clients}), or raise the limit: {redis_set_maxclients}",
)
_MEMORY = Row(
    "limit-reached",
    "{at} has no memory left (maxmemory) and refuses writes: {text}",
    "Delete data that is not needed, or raise the limit (0: none): {redis_set_maxmemory}",
)
_CLUSTER = Row(
    "not-amqp",
    "{at} is a node of a Redis Cluster, which Celery cannot use as a broker: {text}",
    "Use a Redis without cluster mode (cluster-enabled no); for failover, use sentinels.",
)
_NOT_REDIS = Row(
    "not-amqp",
    "the server at {at} is not a Redis: {text}",
    "Correct host and port (the usual port of Redis is 6379): {redis_ping}",
)
_SENTINEL_LOGIN = Row(
    "login-refused",
    "the sentinel at {at} refused the login: {text}",
    "The password in the URL is that of the master. Set that of the sentinels with --transport-option "
    "sentinel_kwargs.password=PASSWORD (better in the environment, GATEWAY_TRANSPORT_OPTIONS; in a Celery "
    "app: broker_transport_options = {{'sentinel_kwargs': {{'password': …}}}})",
)
_NO_SENTINEL = Row(
    "unreachable",
    "none of the sentinels ({at} …) can be reached: {text}",
    "Start the sentinels, or correct their addresses in the URL (their usual port is 26379): {redis_ping}",
)
_NO_MASTER = Row(
    "no-master",
    "the sentinels ({at} …) report no master {master_name}: {text}",
    "No action during a failover: the gateway tries again. Otherwise correct the name (--transport-option "
    "master_name=…; in a Celery app: broker_transport_options). To show the names: {redis_masters}",
)


class _ReplyRow(NamedTuple):
    """A row for error replies: any of ``statuses``, and if there are none, ``pattern`` in the text."""

    statuses: tuple[str, ...]
    pattern: str
    row: Row


_REPLY_ROWS = (
    _ReplyRow((), r"without any password configured", _NO_PASSWORD_SET),
    _ReplyRow(("WRONGPASS", "NOAUTH"), "", _LOGIN),
    _ReplyRow(("NOPERM",), "", _PERMISSION),
    _ReplyRow((), r"\bDB index is out of range\b", _DATABASE),
    _ReplyRow(("READONLY",), "", _REPLICA),
    _ReplyRow(("LOADING", "MASTERDOWN"), "", _NOT_READY),
    _ReplyRow((), r"\bmax number of clients\b", _CLIENTS),
    _ReplyRow(("OOM",), "", _MEMORY),
    _ReplyRow(("MOVED", "ASK", "CLUSTERDOWN"), "", _CLUSTER),
    _ReplyRow((), r"\bprotected mode\b", _PROTECTED),
    _ReplyRow(("INVALID",), "", _NOT_REDIS),
    _ReplyRow((), r"\AProtocol Error|\ABad response", _NOT_REDIS),
)
_CONNECTION_ERROR = re.compile(r"\b(ConnectionError|TimeoutError)\b")
_SENTINEL_AUTHENTICATION = re.compile(r"\b(AuthenticationError|NOAUTH|WRONGPASS)\b|Authentication required")


def redis_diagnosis(error: BaseException, case: Case) -> Diagnosis | None:
    """Return the diagnosis of one error of a chain, ``None`` if it is not redis-py's or is unknown."""
    if not type(error).__module__.startswith("redis."):
        return None
    type_name, text = type(error).__name__, str(error).rstrip(".")
    if type_name in ("MasterNotFoundError", "SlaveNotFoundError"):
        return _of_sentinels(text, case)
    if type_name == "ConnectionError" and "losed by server" in text:
        return connection_closed(case)
    status = _STATUS_BY_TYPE.get(type_name, "")
    if not status and (match := _STATUS.match(text)):
        status = match[1]
    for row in _REPLY_ROWS:
        if (status in row.statuses) if row.statuses else re.search(row.pattern, text):
            return _of_reply(row.row, text, case)
    return None


def is_error_reply(error: BaseException) -> bool:
    """Return whether an error of redis-py is a reply of the server."""
    return any(
        each.__name__ == "ResponseError" and each.__module__.startswith("redis.")
        for each in type(error).__mro__
    )


def _of_reply(row: Row, text: str, case: Case) -> Diagnosis:
    user = case.address.user
    return case.diagnosis(
        row,
        text=text[:_MAX_TEXT_CHARACTERS],
        of_user=f" of {user}" if user else "",
        redis_user_name=user or "default",
        redis_login=redis_cli(case.address, *(("ACL", "GETUSER", user) if user else _GET_PASSWORD)),
    )


def _of_sentinels(text: str, case: Case) -> Diagnosis:
    """Read a ``MasterNotFoundError``, whose text has the errors of all sentinels behind `` : ``."""
    errors = text.partition(" : ")[2]
    row = _NO_MASTER
    if _SENTINEL_AUTHENTICATION.search(errors):
        row = _SENTINEL_LOGIN
    elif len(_CONNECTION_ERROR.findall(errors)) >= case.hosts:
        row = _NO_SENTINEL
    return case.diagnosis(row, text=text[:_MAX_TEXT_CHARACTERS])

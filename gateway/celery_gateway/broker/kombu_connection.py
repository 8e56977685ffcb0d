"""Connections of kombu, to publish: opened as Celery opens them, and as the gateway's sources do.

A connection blocks, so it belongs into a thread, or into a command.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from kombu import Connection

from celery_gateway import __version__
from celery_gateway.broker.url_syntax import amqp_query, is_amqp
from celery_gateway.broker.urls import Access

_MEMORY_OPTIONS = {"polling_interval": 0.05}  # seconds; kombu's default is 1


def kombu_connection(
    url: str,
    access: Access,
    purpose: str,
    *,
    connect_seconds: float,
    heartbeat_seconds: int = 0,
    on_blocked: Callable[[str], None] | None = None,
) -> Connection:
    """Return a connection, which is opened by its first use.

    Args:
        url: as ``urls.brokers`` returns it.
        access: how the gateway connects.
        purpose: a word for the name of the connection, which RabbitMQ lists.
        connect_seconds: the timeout of connecting.
        heartbeat_seconds: 0 for none; the caller has to send them.
        on_blocked: called with the broker's reason when it blocks publishers; for AMQP.

    Raises:
        TypeError, ValueError, KeyError: the URL cannot be used (an invalid port, for example).
    """
    if not is_amqp(url):
        tls = access.ssl
        if url.startswith("rediss") and not tls and "ssl_" not in url:
            tls = {"ssl_cert_reqs": ssl.CERT_NONE}  # kombu's default, without its warning at each connection
        return Connection(url, ssl=tls, transport_options={**access.transport_options, **_MEMORY_OPTIONS})
    before, _, query = url.partition("?")
    parameters = amqp_query(dict(parse_qsl(query)))
    login_method = parameters.get("login_method") or parameters.get("auth") or access.login_method
    options = {
        **access.transport_options,
        "client_properties": {"connection_name": f"celery-gateway {__version__} {purpose}"},
    }
    if on_blocked is not None:
        options["on_blocked"] = on_blocked
    return Connection(
        before,
        ssl=access.ssl or (before.startswith("amqps") and _tls(parameters)),
        login_method=login_method.upper() if login_method else None,
        connect_timeout=connect_seconds,
        heartbeat=heartbeat_seconds,
        transport_options=options,
    )


def _tls(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the TLS options of a URL's query, which are aiormq's, as py-amqp's (amqp/transport.py)."""
    if parameters.get("no_verify_ssl", "0") != "0":
        options: dict[str, Any] = {"cert_reqs": ssl.CERT_NONE}
    elif parameters.get("capath") or parameters.get("cadata"):
        trusted = {name: parameters[name] for name in ("cafile", "capath", "cadata") if parameters.get(name)}
        # (A client certificate is ignored here: py-amqp takes a context or a certificate, not both.)
        return {"context": {**trusted, "check_hostname": True}, "server_hostname": None}
    else:
        options = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}  # None: the URL's host
        if parameters.get("cafile"):
            options["ca_certs"] = parameters["cafile"]
    if parameters.get("certfile"):
        options |= {"certfile": parameters["certfile"], "keyfile": parameters.get("keyfile")}
    return options

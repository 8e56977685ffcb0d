"""The schemes, parts and query parameters of a broker URL.

- A parameter of an AMQP URL has aiormq's name, kombu's, or that of RabbitMQ's own libraries
  (rabbitmq.com/docs/uri-query-parameters).
- A parameter of a Redis URL is one of kombu's and redis-py's, or a transport option.

Pure.
"""

import re
from collections.abc import Mapping

from celery_gateway.broker.transport_options import NUMBERS, SWITCHES, TEXTS

AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp", "librabbitmq"})
REDIS_SCHEMES = frozenset({"redis", "rediss", "sentinel"})
MEMORY_SCHEMES = frozenset({"memory"})
"""kombu's broker within one process, for the demo and for tests."""
RECORDING_SCHEMES = frozenset({"recording"})
"""A file in place of a broker (``recording_source``)."""

AUTHORITY_AND_REST = re.compile(
    r"(?P<hosts>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?", re.DOTALL
)
"""A URL behind ``://``, or behind the login; matches any text."""
HOSTS = re.compile(r"(?:(?:\[[^\[\]]*\]|[^:\[\]\s,;]*)(?::\d{0,5})?(?:[,;]\s*|\Z))*")
"""Hosts with or without ports, between commas or semicolons."""

AMQP_PARAMETERS = frozenset(
    {"auth", "cadata", "cafile", "capath", "certfile", "heartbeat", "keyfile", "name", "no_verify_ssl"}
    | {"timeout", "happy_eyeballs_delay", "interleave"}  # so far aiormq's and aio-pika's
    | {"connect_timeout", "login_method"}  # kombu's
    # rabbitmq.com/docs/uri-query-parameters
    | {"auth_mechanism", "cacertfile", "channel_max", "connection_timeout", "frame_max"}
)
REDIS_PARAMETERS = frozenset(
    {"connect_timeout", "heartbeat", "virtual_host"}
    | {"ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname"}
    | {"ssl_ciphers", "ssl_keyfile", "ssl_password"}
)
"""Those that are no transport options."""
CERT_REQS = ("CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE", "required", "optional", "none")
"""The values of ``ssl_cert_reqs``."""
PARAMETERS_WITHOUT_SECRETS = frozenset(
    (AMQP_PARAMETERS - {"cadata"})
    | (REDIS_PARAMETERS - {"ssl_password", "ssl_ca_data"})
    | (TEXTS - {"credential_provider"})
    | SWITCHES
    | NUMBERS
)
"""Parameters whose values may be shown."""
ESCAPES = "in user and password, write @ : / # ? % as %40 %3A %2F %23 %3F %25"

_ALIASES = {"cacertfile": "cafile", "auth_mechanism": "login_method"}


def transport_of(url: str) -> str:
    """Return the transport that a URL names: what stands before ``+`` in its scheme (``redis+socket://``)."""
    return url.partition("://")[0].partition("+")[0]


def is_amqp(url: str) -> bool:
    """Return whether a URL, as ``urls.brokers`` returns it, is for AMQP 0-9-1."""
    return transport_of(url) in AMQP_SCHEMES


def is_redis(url: str) -> bool:
    """Return whether a URL, as ``urls.brokers`` returns it, is for Redis, with or without sentinels."""
    return transport_of(url) in REDIS_SCHEMES


def is_recording(url: str) -> bool:
    """Return whether a URL, as ``urls.brokers`` returns it, is for a recording."""
    return transport_of(url) in RECORDING_SCHEMES


def amqp_query(query: Mapping[str, str]) -> dict[str, str]:
    """Return the query of an AMQP URL under aiormq's and kombu's names, without RabbitMQ's aliases.

    >>> amqp_query({"cacertfile": "ca.pem"})
    {'cafile': 'ca.pem'}
    """
    return {_ALIASES.get(name, name): value for name, value in query.items()}

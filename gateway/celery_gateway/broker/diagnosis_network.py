"""Diagnoses of the way to a broker's socket: the name, TCP, TLS, and timeouts.

An error is recognized by its Python type or its ``errno``. Texts are read only where a library keeps nothing
else: an error that is not recognized here has no diagnosis from this table. Pure.
"""

import errno
import re
import socket
import ssl

from celery_gateway.broker.diagnosis_rows import Case, Diagnosis, Phase, Row

_UNREACHABLE = {
    errno.ECONNREFUSED: "nothing listens there (connection refused)",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "the network is unreachable",
    errno.EADDRNOTAVAIL: "the address is not available",
}
_ERRNO = re.compile(r"\[Errno (\d+)\]")
"""How Python writes an ``errno``; asyncio joins the errors of several addresses into one text."""
_CERTIFICATE_NOISE = re.compile(r"\A.*certificate verify failed: |\.? ?\(_ssl\.c:\d+\)\Z")
_PLAIN_SCHEMES = {"amqps": "amqp", "rediss": "redis"}

_NAME = Row(
    "dns",
    "the host name {host} cannot be resolved: {text}",
    "Correct the host in the URL, or add its name to the DNS or to /etc/hosts. To test it: {getent}",
)
_CERTIFICATE_AMQP = Row(
    "certificate",
    "the certificate of {at} is not trusted: {text}",
    "Set the file of the certificate authority in the URL (amqps://…?cafile=/path/ca.pem; in a Celery app: "
    "broker_use_ssl = {{'ca_certs': …}}), and use a host name that the certificate has. To show it: "
    "openssl s_client -connect {at} -showcerts",
)
_CERTIFICATE_REDIS = _CERTIFICATE_AMQP._replace(
    remedy="Set the file of the certificate authority in the URL "
    "({scheme}://…?ssl_cert_reqs=required&ssl_ca_certs=/path/ca.pem; in a Celery app: broker_use_ssl = "
    "{{'ssl_ca_certs': …}}), and use a host name that the certificate has. To show it: openssl s_client "
    "-connect {at} -showcerts"
)
_TLS = Row(
    "tls",
    "the TLS handshake with {at} failed: {text}",
    "If that port has no TLS, begin the URL with {plain}://{tls_port}; otherwise compare the TLS versions "
    "that both sides allow.",
)
_TIMEOUT = Row(
    "timeout",
    "{at} did not answer in time",
    "Correct host and port, or open the firewall. The port may also belong to a server that is not a broker"
    "{port_hint}{plain_hint}. To test it: {nc}",
)
SILENT = Row(
    "heartbeat-missed",
    "{at} was silent for too long: no answer and no heartbeat",
    "No action if the network was interrupted: the gateway reconnects. Otherwise check the broker's load, "
    "and whether a firewall or a load balancer drops idle connections.",
)
_NO_FILE = Row(
    "url",
    "a file that the URL names does not exist: {text}",
    "Correct cafile=, certfile= or keyfile= (for Redis ssl_ca_certs=, ssl_certfile= or ssl_keyfile=) in the "
    "URL (for a Celery app, in its broker_use_ssl).",
)
_NO_SOCKET = Row(
    "unreachable",
    "{at} cannot be reached: the socket does not exist",
    "Start the broker, or correct the path in the URL.",
)
_NO_LISTENER = Row(
    "unreachable",
    "{at} cannot be reached: {text}",
    "Start the broker, or correct host and port{usual_ports}{test}",
)


def network_diagnosis(error: BaseException, case: Case) -> Diagnosis | None:
    """Return the diagnosis of one error of a chain, ``None`` if its type says nothing about the network."""
    text = str(error.args[-1]) if error.args else ""
    if isinstance(error, socket.gaierror):
        return case.diagnosis(_NAME, text=text)
    if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
        row = _CERTIFICATE_AMQP if case.address.is_amqp else _CERTIFICATE_REDIS
        return case.diagnosis(row, text=_CERTIFICATE_NOISE.sub("", text))
    if isinstance(error, ssl.SSLError) or text.startswith("[SSL"):
        return _tls(case, text)
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
        return _timeout(case)
    if isinstance(error, FileNotFoundError):
        if not case.address.port:
            return case.diagnosis(_NO_SOCKET)
        return case.diagnosis(_NO_FILE, text=str(error.filename or text))
    if isinstance(error, OSError):
        return _unreachable(case, number or _common_errno(text), text)
    return None


def _tls(case: Case, text: str) -> Diagnosis:
    scheme = case.address.scheme
    return case.diagnosis(
        _TLS,
        text=text,
        plain=_PLAIN_SCHEMES.get(scheme, scheme),
        tls_port=" (RabbitMQ's TLS port is usually 5671)" if case.address.is_amqp else "",
    )


def _timeout(case: Case) -> Diagnosis:
    if case.phase is Phase.LOST:
        return case.diagnosis(SILENT)
    is_redis_with_tls = case.address.is_tls and case.address.is_redis
    return case.diagnosis(
        _TIMEOUT, plain_hint=", or to a Redis without TLS (redis://)" if is_redis_with_tls else ""
    )


def _unreachable(case: Case, number: int | None, text: str) -> Diagnosis | None:
    if number not in _UNREACHABLE:
        return None
    address = case.address
    return case.diagnosis(
        _NO_LISTENER,
        text=_UNREACHABLE[number],
        usual_ports=""
        if address.has_default_port or not address.is_amqp
        else " (RabbitMQ's usual ports are 5672, and 5671 with TLS)",
        test=". In a container, localhost is the container itself."
        if address.is_local
        else ". To test it: " + case.command(("nc", "-vz", "{host}", "{port}")),
    )


def _common_errno(text: str) -> int | None:
    """Return the ``errno`` of a text, if all that it names are equal."""
    numbers = set(_ERRNO.findall(text))
    return int(numbers.pop()) if len(numbers) == 1 else None

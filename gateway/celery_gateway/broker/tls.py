"""TLS to an AMQP broker, by Celery's ``broker_use_ssl``.

- The options have the meaning that they have for the workers, which connect through py-amqp
  (amqp/transport.py, ``SSLTransport``).
- ``True`` checks the certificate against the system's authorities.
- The host name is checked only if there is ``server_hostname``; its value ``None`` stands for the URL's host.
"""

import ssl
from collections.abc import Mapping
from typing import Any

from celery_gateway.errors import SourceError

_FILES = ("ca_certs", "certfile", "keyfile")
_OPTIONS = frozenset(
    {*_FILES, "cert_reqs", "ciphers", "context", "server_hostname", "ssl_version"}
    | {"tls_maximum_version", "tls_minimum_version"}
    | {"do_handshake_on_connect", "server_side", "suppress_ragged_eofs"}  # of a socket, which asyncio makes
)


class TLS:
    """The options of TLS. Files are read again for each connection, because certificates are renewed.

    Args:
        options: Celery's ``broker_use_ssl``.

    Raises:
        SourceError: an option is unknown, or a file cannot be used.
    """

    def __init__(self, options: bool | Mapping[str, Any]) -> None:
        self._options = dict(options) if isinstance(options, Mapping) else {}
        if unknown := sorted(self._options.keys() - _OPTIONS):
            raise SourceError(
                f"unknown option {unknown[0]!r} in broker_use_ssl: the allowed ones for AMQP are "
                f"{', '.join(sorted(_OPTIONS))}"
            )
        try:
            self.context()
        except (OSError, ValueError, TypeError) as error:
            raise SourceError(f"broker_use_ssl cannot be used: {error}") from None

    @property
    def server_hostname(self) -> str | None:
        """The name that the certificate must have; ``None`` for the URL's host, if names are checked."""
        return self._options.get("server_hostname")

    def context(self) -> ssl.SSLContext:
        """Return a context for a connection.

        Raises:
            OSError: a file is missing (its ``filename``), or has no certificate or key.
            ValueError: options contradict each other.
        """
        options = self._options
        for file in _FILES:
            if options.get(file):
                with open(options[file], "rb"):  # its error has the name of the file, unlike OpenSSL's
                    pass
        if options.get("context"):
            arguments = dict(options["context"])
            is_name_checked = bool(arguments.pop("check_hostname", False))
            context = ssl.create_default_context(**arguments)
            context.check_hostname = is_name_checked
            return context
        context = ssl.SSLContext(options.get("ssl_version") or ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = "server_hostname" in options
        if options.get("cert_reqs") is not None:
            context.verify_mode = options["cert_reqs"]
        if options.get("tls_minimum_version") is not None:
            context.minimum_version = options["tls_minimum_version"]
        if options.get("tls_maximum_version") is not None:
            context.maximum_version = options["tls_maximum_version"]
        if options.get("certfile"):
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
        if options.get("ca_certs"):
            context.load_verify_locations(options["ca_certs"])
        elif context.verify_mode != ssl.CERT_NONE:
            context.load_default_certs()
        if options.get("ciphers"):
            context.set_ciphers(options["ciphers"])
        return context

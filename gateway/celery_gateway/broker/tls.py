"""TLS to an AMQP broker, from Celery's ``broker_use_ssl``.

What the options mean is what they mean to py-amqp (amqp/transport.py, ``SSLTransport``), through which the
workers connect: ``True`` checks the certificate against the system's authorities; the host's name is checked
only where ``server_hostname`` is given (``None`` there stands for the URL's host).
"""

import ssl
from collections.abc import Mapping
from typing import Any

from gateway.errors import SourceError

_FILES = ("ca_certs", "certfile", "keyfile")
_OPTIONS = frozenset(
    {*_FILES, "cert_reqs", "ciphers", "context", "server_hostname", "ssl_version"}
    | {"tls_maximum_version", "tls_minimum_version"}
    | {"do_handshake_on_connect", "server_side", "suppress_ragged_eofs"}  # of a socket, which asyncio makes
)


class TLS:
    """How to speak TLS; its files are read again for each connection, since certificates are renewed.

    Args:
        options: Celery's ``broker_use_ssl``.

    Raises:
        SourceError: an option is not known, or a file cannot be used.
    """

    def __init__(self, options: bool | Mapping[str, Any]) -> None:
        self._options = dict(options) if isinstance(options, Mapping) else {}
        if unknown := sorted(self._options.keys() - _OPTIONS):
            raise SourceError(
                f"broker_use_ssl has an option {unknown[0]!r}, which is none for AMQP: there are "
                f"{', '.join(sorted(_OPTIONS))}"
            )
        try:
            self.context()
        except (OSError, ValueError, TypeError) as error:
            raise SourceError(f"broker_use_ssl cannot be used: {error}") from None

    @property
    def server_hostname(self) -> str | None:
        """The name that the certificate must hold; ``None`` for the URL's host, if any is asked for."""
        return self._options.get("server_hostname")

    def context(self) -> ssl.SSLContext:
        """Return a context for a connection.

        Raises:
            OSError: a file is missing (its ``filename`` says which), or holds nothing of its kind.
            ValueError: options contradict each other.
        """
        options = self._options
        for file in _FILES:
            if options.get(file):
                with open(options[file], "rb"):  # whose error has the name, which OpenSSL's lacks
                    pass
        if options.get("context"):
            given = dict(options["context"])
            is_name_checked = bool(given.pop("check_hostname", False))
            context = ssl.create_default_context(**given)
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

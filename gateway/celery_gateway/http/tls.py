"""The certificate of the server: loaded from files in PEM, and loaded again when they change.

Rules: TLS 1.2 or newer. A file that cannot be used stops the start; later it is logged once, and the
certificate before stays in use. Open connections keep the certificate that they began with.
"""

import logging
import os
import ssl
from typing import Final

from celery_gateway.errors import GatewayError

CHECK_SECONDS: Final = 1.0
"""Interval of the looks at the files; the caller of ``reload`` keeps it."""

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate chain and its key.

    Args:
        cert: the file with the chain, the server's own certificate first.
        key: the file with the private key; ``""`` if it is in the same file.

    Attributes:
        context: for new connections. It is replaced when the files change.

    Raises:
        GatewayError: the files cannot be used; the message has the reason and what to do.
    """

    def __init__(self, cert: str, key: str = "") -> None:
        self._cert = cert
        self._key = key
        self._stamp = self._seen = self._read_stamp()
        self.context = self._load()

    def reload(self) -> bool:
        """Load the files again if they have changed; return whether there is a new certificate.

        Files count as changed when two looks in a row see the same change: they may just be being written.
        """
        try:
            stamp = self._read_stamp()
        except GatewayError as error:
            if self._seen:
                log.error("%s; the certificate before stays in use", error)
            self._stamp = self._seen = ()
            return False
        before, self._seen = self._seen, stamp
        if stamp == self._stamp or stamp != before:
            return False
        self._stamp = stamp
        try:
            self.context = self._load()
        except GatewayError as error:
            log.error("%s; the certificate before stays in use", error)
            return False
        log.info("loaded the new certificate of %s", self._cert)
        return True

    def _read_stamp(self) -> _Stamp:
        """Return what changes with the files.

        Raises:
            GatewayError: a file is missing, or may not be read.
        """
        stats = []
        for option, path in (("--tls-cert", self._cert), ("--tls-key", self._key)):
            if path:
                try:
                    stats.append(os.stat(path))  # follows links, as those of Kubernetes' secrets
                except OSError as error:
                    raise GatewayError(
                        f"cannot read the file of {option}, {path}: {error.strerror}"
                    ) from None
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in stats)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        is_encrypted = False

        def ask() -> str:  # without it, OpenSSL would ask on the terminal
            nonlocal is_encrypted
            is_encrypted = True
            return ""

        key = self._key or self._cert
        try:
            context.load_cert_chain(self._cert, self._key or None, password=ask)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            if is_encrypted:
                raise GatewayError(
                    f"the key in {key} is encrypted, which is not supported: decrypt it with "
                    f"openssl pkey -in {key} -out NEW_FILE, and protect the file by its permissions"
                ) from None
            raise GatewayError(self._problem(key, error)) from None
        return context

    def _problem(self, key: str, error: Exception) -> str:
        reason = getattr(error, "reason", None) or ""
        if "MISMATCH" in reason:
            return f"the key in {key} does not belong to the first certificate in {self._cert}"
        if isinstance(error, PermissionError):
            return f"cannot read {self._cert} or {key}: {error.strerror}"
        if not _has(self._cert, b"CERTIFICATE-----"):
            return f"{self._cert} has no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        if not _has(key, b"PRIVATE KEY-----"):
            option = "--tls-key names its file if it is another one"
            return f"{key} has no private key in PEM (-----BEGIN PRIVATE KEY-----); {option}"
        return f"cannot use the certificate in {self._cert} with the key in {key}: {reason or error}"


def _has(path: str, text: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return text in file.read(1 << 20)
    except OSError:
        return False

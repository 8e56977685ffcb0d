"""Servers of something else, at the ports where a broker should be."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.rabbitmq import Process, free_port

HTTP_ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """The port of a server that says one thing to each who connects and hangs up; `None`: says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        held = []
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                if answer is None:
                    held.append(connection)
                    continue
                with connection, suppress(OSError):
                    connection.recv(8)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """The port of a TLS server whose certificate nobody signed; it is `certificate.pem` in the folder."""
    openssl = shutil.which("openssl")
    assert openssl, "openssl is missing"
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=broker.example", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    process = Process(
        [openssl, "s_server", "-www", "-accept", str(port), "-cert", certificate, "-key", key],
        log=folder / "tls.log",
    )
    try:
        process.wait_until(lambda: "ACCEPT" in process.tail(), 10)
        yield port
    finally:
        process.kill()

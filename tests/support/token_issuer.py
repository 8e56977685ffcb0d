"""An issuer of JSON Web Tokens: keys, tokens with any claims and headers, and a server of its JWKS."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://shop.example"
SECRET = "a secret that is long enough: 0123456789abcdef"
PUBLIC_KEY_ALGORITHMS = ("RS256", "ES256", "EdDSA")
EVERYTHING: dict[str, Any] = {}
LIFETIME_SECONDS = 2 * 86_400
"""Longer than any test run: some tokens are made when a test is imported."""


def private_key(algorithm: str, number: int = 0) -> Any:
    """A private key; another one for each number."""
    return _private_key(algorithm, number)


@cache
def _private_key(algorithm: str, number: int) -> Any:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "ES256"
        else ed25519.Ed25519PrivateKey.generate()
    )


def private_pem(algorithm: str, number: int = 0) -> bytes:
    """The private key in PEM."""
    return private_key(algorithm, number).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(algorithm: str, number: int = 0) -> bytes:
    """The public key in PEM."""
    return (
        private_key(algorithm, number)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def jwk(algorithm: str, number: int = 0, **members: Any) -> dict[str, Any]:
    """The public key as a member of a JWKS, with its number as `kid`."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(
        private_key(algorithm, number).public_key(), as_dict=True
    )
    return {key: value for key, value in made.items() if key != "key_ops"} | {"kid": str(number)} | members


def claims(**changed: Any) -> dict[str, Any]:
    """Valid claims; those that are `None` are left out."""
    now = int(time.time())
    valid = {
        "iss": ISSUER,
        "aud": "celery-gateway",
        "iat": now,
        "exp": now + LIFETIME_SECONDS,
        "sub": "alice",
        "celery_gateway": EVERYTHING,
    }
    return {name: value for name, value in (valid | changed).items() if value is not None}


def token(
    key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changed: Any
) -> str:
    """A token that a key has signed."""
    return jwt.encode(claims(**changed), key, algorithm, headers)


def issuer_file(folder: Path, more: str = "") -> str:
    """Write an access file of this issuer, with its secret, without leeway; return its path.

    Args:
        more: further tables.
    """
    folder.mkdir(exist_ok=True)
    secret, path = folder / "issuer.secret", folder / "issuer.toml"
    secret.touch(0o600)
    secret.write_text(SECRET)
    path.write_text(
        f'[issuers.shop]\nissuer = "{ISSUER}"\nalgorithm = "HS256"\nsecret_file = "{secret.name}"\n'
        f"leeway_seconds = 0\n{more}"
    )
    return str(path)


def segment(value: Any) -> str:
    """A part of a token: bytes or text as they are, anything else as JSON."""
    data = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else None
    return (
        base64.urlsafe_b64encode(data if data is not None else json.dumps(value).encode())
        .rstrip(b"=")
        .decode()
    )


class JwksServer:
    """A real HTTP server of a document.

    `status` and `headers` are those of the next responses; `body` is sent in their place if it is set;
    `delay` is waited for before a response. `requests` counts.
    """

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self.delay = threading.Event()
        self.delay.set()
        self.requests = 0
        self.url = ""


@contextmanager
def jwks_server() -> Iterator[JwksServer]:
    """A server that runs within the block."""
    state = JwksServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests += 1
            state.delay.wait(20)
            body = state.body if state.body is not None else json.dumps({"keys": state.keys}).encode()
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # the client has read enough
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
        try:
            yield state
        finally:
            state.delay.set()
            server.shutdown()
            thread.join()

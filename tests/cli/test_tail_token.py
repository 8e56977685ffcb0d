"""The token of `celery-gateway tail`: from a file, read again for each connection."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.test_tail import tail

EXPIRED = b'{"type":"gateway-close","reason":"expired","id":"a-1"}\n'
READY = b'{"type":"gateway-close","reason":"ready","id":"a-2","known":1,"ready":1}\n'


@contextmanager
def gateway(bodies: list[bytes], renew: dict[int, str], file: Path) -> Iterator[tuple[str, list[str | None]]]:
    """A server whose streams end, and that changes the token's file; its URL, and the tokens that it got."""
    tokens: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = len(tokens)
            tokens.append(self.headers["Authorization"])
            if number in renew:
                file.write_text(renew[number])
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.end_headers()
            self.wfile.write(bodies[number])

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", tokens
        finally:
            server.shutdown()
            thread.join()


def test_the_file_is_read_again_when_the_token_has_expired(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    with gateway([EXPIRED, READY], {0: "second\n"}, file) as (url, tokens):
        done = tail(url, "--json", "--token-file", str(file))
    assert tokens == ["Bearer first", "Bearer second"]
    assert "first" not in done.stderr + done.stdout and "second" not in done.stderr + done.stdout


def test_the_variable_names_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file")
    with gateway([READY], {}, file) as (url, tokens):
        tail(url, GATEWAY_TOKEN_FILE=str(file))
    assert tokens == ["Bearer from-file"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe", "it is not text"),
        ("tökén".encode(), "characters that a header cannot have"),
        (b"a\nb", "header"),
    ],
)
def test_a_file_without_a_token_is_an_error_without_its_content(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    done = tail("http://127.0.0.1:9", "--token-file", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert problem in done.stderr and "Traceback" not in done.stderr and "tökén" not in done.stderr

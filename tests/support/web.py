"""A web server on 127.0.0.1 for tasks to fetch a page from (GET) and to bring data to (POST)."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>Bücher</title></head>
<body><a href="/one">eins</a> <a href="/two">zwei</a></body></html>"""


class WebServer:
    """`page_url` answers a small page of HTML; JSON posted to `store_url` is found again in `stored`."""

    def __init__(self) -> None:
        self.stored: list[Any] = []
        stored = self.stored

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, PAGE.encode())

            def do_POST(self) -> None:
                stored.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(201, b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        url = f"http://127.0.0.1:{self._server.server_port}"
        self.page_url = f"{url}/page"
        self.store_url = f"{url}/store"

    def start(self) -> None:
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="web").start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

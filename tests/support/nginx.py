"""A private nginx for one test: the files of deploy/nginx as they are shipped, on free ports.

It runs as whoever we are, and all it writes lies in the folder it was given. What is replaced in the shipped
files are addresses and paths, and what a test names: a text that is not found there is an error, so a test
cannot silently run without what it is about.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.rabbitmq import Process, ProcessError, free_port, log_tail

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "nginx"
PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"  # where Debian has it, not in every PATH
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """nginx in front of the gateways at `gateway_ports` of 127.0.0.1.

    Args:
        folder: an empty one that exists, or whose parent does.
        replace: for the name of a shipped file, the texts in it that are replaced, and by what.
    """

    def __init__(
        self, folder: Path, *gateway_ports: int, replace: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.tls_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/celery"
        self.access_log = folder / "celery-gateway.log"
        self.error_log = folder / "error.log"
        self._command = [
            PROGRAM,
            "-p",
            str(folder),
            "-c",
            str(folder / "nginx.conf"),
            "-e",
            str(self.error_log),
        ]
        self._process: Process | None = None
        self._write(gateway_ports, replace or {})

    @property
    def pid(self) -> int:
        assert self._process is not None, "nginx is not running"
        return self._process.pid

    def check(self) -> str:
        """What `nginx -t` says. Raises ProcessError if it refuses."""
        return self._run("-t")

    def start(self) -> None:
        """Returns once it listens; raises ProcessError with the log's tail when it does not."""
        self._process = Process([*self._command, "-g", "daemon off;"], log=self.error_log, cwd=self.folder)
        try:
            self._process.wait_until(self._listens, 10)
        except BaseException:
            self.stop()
            raise

    def reload(self) -> None:
        """`nginx -s reload`: new worker processes; the old ones stay as long as their connections."""
        self._run("-s", "reload")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def tail(self, lines: int = 30) -> str:
        """The end of its error log, to be shown with a failed test."""
        return log_tail(self.error_log, lines)

    def _write(self, gateway_ports: Sequence[int], replace: Mapping[str, Mapping[str, str]]) -> None:
        included = self.folder / "celery-gateway"
        shutil.copytree(SHIPPED, included)
        replicas = {f"127.0.0.1:{8555 + n}": f"127.0.0.1:{port}" for n, port in enumerate(gateway_ports[:2])}
        own = {
            "nginx.conf": {
                "listen 80;": f"listen 127.0.0.1:{self.port};",
                "/run/nginx.pid": str(self.folder / "nginx.pid"),
                "/var/log/nginx": str(self.folder),
                "http {": "http {\n" + "".join(f"{kind}_temp_path {kind};\n" for kind in TEMPORARY),
            },
            "proxy.conf": {"/var/log/nginx": str(self.folder)},
            "session.conf": {"/var/log/nginx": str(self.folder)},
            "tls.conf": {"443": f"127.0.0.1:{self.tls_port}"},
            "upstream.conf": {"127.0.0.1:8555": f"127.0.0.1:{gateway_ports[0]}"},
            "upstream-replicas.conf": replicas,
            "upstream-shared-log.conf": replicas,
        }
        for name in {*own, *replace}:
            text = (included / name).read_text()
            for old, new in [*replace.get(name, {}).items(), *own.get(name, {}).items()]:
                assert old in text, f"{name} has no {old!r}"
                text = text.replace(old, new)
            (included / name).write_text(text)
        main = (included / "nginx.conf").read_text()
        if os.geteuid() == 0:
            main = "user root;\n" + main  # who else may read our folder?
        (self.folder / "nginx.conf").write_text(main)

    def _run(self, *args: str) -> str:
        done = subprocess.run([*self._command, *args], capture_output=True, text=True, timeout=20)
        if done.returncode:
            raise ProcessError(f"nginx {' '.join(args)}: exit code {done.returncode}\n{done.stderr}")
        return done.stderr

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

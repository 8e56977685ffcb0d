"""Hostile clients, and what they cost a gateway: its CPU time and memory, read from /proc."""

import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.gateway_process import GatewayProcess

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Cost(NamedTuple):
    """What an attack has cost.

    Attributes:
        sent_bytes: how much the attacker could send.
        is_cut: whether the gateway ended the connection.
        memory_bytes: by how much the gateway's memory grew at most.
        held_seconds: the most CPU time that the gateway used between a question of another client and its
            answer.
        used_seconds: the CPU time that the gateway used in all.
        answers: how many other clients were answered.
    """

    sent_bytes: int
    is_cut: bool
    memory_bytes: int
    held_seconds: float
    used_seconds: float
    answers: int


class Meter:
    """Reads the CPU time and memory of a process, and asks it for /healthz from another address meanwhile."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._memory_before = self.memory_bytes()
        self.peak_bytes = self._memory_before
        self.held_seconds = 0.0
        self.answers = 0

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    @property
    def grown_bytes(self) -> int:
        return self.peak_bytes - self._memory_before

    def memory_bytes(self) -> int:
        status = Path(f"/proc/{self._gateway.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))

    def cpu_seconds(self) -> float:
        return int(Path(f"/proc/{self._gateway.pid}/schedstat").read_text().split()[0]) / 1e9

    def _ask(self) -> None:
        address = "127.0.0.1", self._gateway.port
        with socket.create_connection(address, 30, ("127.0.0.2", 0)) as connection:
            while not self._stopping.wait(0.01):
                before = self.cpu_seconds()
                connection.sendall(GET + b"\r\n")
                answer = b""
                while not answer.endswith(b"}"):
                    answer += connection.recv(1000)
                assert answer.startswith(b"HTTP/1.1 200"), "the gateway does not answer others"
                self.held_seconds = max(self.held_seconds, self.cpu_seconds() - before)
                self.peak_bytes = max(self.peak_bytes, self.memory_bytes())
                self.answers += 1


def flood(
    gateway: GatewayProcess, first: bytes, more: bytes, *, seconds: float = 4.0, reads: bool = True
) -> Cost:
    """Send ``more`` without end after ``first``.

    Args:
        first: a WebSocket's handshake is answered before the rest is sent.
        reads: whether the answers are read.
    """
    sent_bytes, is_cut = 0, False
    with Meter(gateway) as meter, socket.create_connection(("127.0.0.1", gateway.port), 10) as attacker:
        began_at = meter.cpu_seconds()
        attacker.sendall(first)
        if first == WEBSOCKET:
            assert attacker.recv(100).startswith(b"HTTP/1.1 101")
        attacker.setblocking(False)
        view, ends_at = memoryview(more), time.monotonic() + seconds
        while time.monotonic() < ends_at and not is_cut:
            readable, writable, _ = select.select([attacker] if reads else [], [attacker], [], 0.05)
            try:
                if readable and not attacker.recv(1 << 20):
                    is_cut = True
                elif writable:
                    sent = attacker.send(view)
                    sent_bytes += sent
                    view = view[sent:] if sent < len(view) else memoryview(more)
            except BlockingIOError:
                pass
            except OSError:
                is_cut = True
        time.sleep(0.05)  # so that the meter sees what is left
        used_seconds = meter.cpu_seconds() - began_at
    return Cost(sent_bytes, is_cut, meter.grown_bytes, meter.held_seconds, used_seconds, meter.answers)


def ask(port: int, request: bytes, *, source: str = "127.0.0.1", seconds: float = 5.0) -> bytes:
    """Return all that comes in answer to some bytes until the connection ends, or for some time."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), seconds, (source, 0)) as connection:
        with suppress(OSError):
            connection.sendall(request)
        with suppress(OSError):
            while len(answer) < 1 << 20 and (data := connection.recv(1 << 16)):
                answer += data
    return answer


def frame(payload: bytes, opcode: int = 1, *, is_final: bool = True) -> bytes:
    """Return a client's WebSocket frame, masked with zeros (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | size])
    elif size < 1 << 16:
        head = b"\xfe" + struct.pack(">H", size)
    else:
        head = b"\xff" + struct.pack(">Q", size)
    return bytes([0x80 * is_final | opcode]) + head + bytes(4) + payload


def until(is_so: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until something is so; return whether it became so in time."""
    ends_at = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.01)
    return True

"""One RabbitMQ node for all processes of a test run: `python -m tests.support.shared_rabbitmq FOLDER`.

pytest-xdist runs the tests in several processes. Its controller starts this program, which starts the node
when the first of them connects to the socket in FOLDER, and gives each the node's description as JSON. The
node ends with this program, and this program with the controller.
"""

import json
import signal
import socket
import sys
from pathlib import Path

from tests.support.rabbitmq import Process, RabbitMQ

ROOT = Path(__file__).resolve().parents[2]
NODE_SECONDS = 120
"""How long the first process waits for the node: other programs start at the same time."""


def start(folder: Path) -> Process:
    """Start the program; nodes are then `attached(folder)`."""
    process = Process(
        [sys.executable, "-m", "tests.support.shared_rabbitmq", folder], log=folder / "shared.log"
    )
    process.wait_until((folder / "socket").exists, 30)
    return process


def attached(folder: Path) -> RabbitMQ:
    """Return the node; the first call starts it.

    Raises:
        OSError: the program has ended.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(NODE_SECONDS)
        client.connect(str(folder / "socket"))
        return RabbitMQ.attached(json.loads(client.makefile().read()))


def main(folder: Path) -> None:
    node = RabbitMQ(folder / "node")
    is_started = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "bound"))
        server.listen()
        (folder / "bound").rename(folder / "socket")
        try:
            while True:
                connection, _ = server.accept()
                with connection:
                    if not is_started:
                        node.start(NODE_SECONDS)
                        is_started = True
                    connection.sendall(json.dumps(node.description).encode())
        except KeyboardInterrupt:
            pass
        finally:
            node.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The lab: a temporary folder with the compiled C programs and a private RabbitMQ, for one run."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.support.rabbitmq import ProcessError, RabbitMQ

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COMPILE = ("gcc", "-Wall", "-Wextra", "-O2")


class LabError(Exception):
    """Something that the run requires is missing; the message has the command that installs it."""


@dataclass(frozen=True)
class Lab:
    """Attributes: the folder for files, the broker and its URL, and the compiled C programs."""

    folder: Path
    broker: RabbitMQ
    broker_url: str
    subscribers: Path
    floor: Path
    _numbers: Iterator[int]

    def new_vhost(self) -> str:
        """Return the URL of a new virtual host."""
        return self.broker.add_vhost(f"bench-{next(self._numbers)}")

    def new_folder(self, name: str) -> Path:
        """Return an empty folder."""
        folder = self.folder / f"{name}-{next(self._numbers)}"
        folder.mkdir()
        return folder


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Open a lab for the block. Everything in it is removed at the end.

    Raises:
        LabError: gcc or RabbitMQ is missing or does not work.
    """
    # RabbitMQ's files and the logs. A short name: paths of sockets have a maximum length.
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        programs = {noun: _compile(noun, folder) for noun in ("subscribers", "floor")}
        broker = _start_broker(folder / "rabbitmq")
        try:
            yield Lab(folder, broker, broker.url, programs["subscribers"], programs["floor"], count())
        finally:
            broker.stop()


def _compile(noun: str, folder: Path) -> Path:
    if not shutil.which(COMPILE[0]):
        raise LabError("gcc is missing: apt-get install -y --no-install-recommends gcc libc6-dev")
    program = folder / noun
    done = subprocess.run(
        [*COMPILE, "-o", program, HERE / f"{noun}.c", "-lm"], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise LabError(f"{noun}.c does not compile:\n{done.stderr}")
    return program


def _start_broker(folder: Path) -> RabbitMQ:
    try:
        broker = RabbitMQ(folder)
        broker.start()
    except FileNotFoundError as error:
        install = "apt-get install -y --no-install-recommends rabbitmq-server"
        raise LabError(f"RabbitMQ is missing ({error.filename}): {install}") from None
    except ProcessError as error:
        raise LabError(f"RabbitMQ does not start: {error}") from None
    return broker

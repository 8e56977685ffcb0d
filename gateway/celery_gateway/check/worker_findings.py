"""A line to a broker, as a check needs it: it is opened step by step, brings events, and asks workers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from gateway.check.step import Step
from gateway.message import Message

PIDBOX = "celery.pidbox"
"""The exchange that all workers' mailboxes are bound to (celery/app/control.py)."""
MAX_ANSWER_BYTES = 1 << 20


class Answer(NamedTuple):
    """What one worker answered to a question."""

    question: str
    hostname: str
    content: Mapping[str, Any]


Heard = Message | Answer | BaseException
"""An exception is the last that is heard: the line is broken."""


class Line(Protocol):
    """What is heard is put into ``heard``, in order; ``listens`` tells whether events are brought."""

    heard: asyncio.Queue[Heard]
    listens: bool

    def opening(self) -> AsyncIterator[Step]:
        """Yield the steps to an open line, up to the first that fails."""

    async def listen(self) -> None:
        """Begin to bring events, if the exchange is there."""

    async def ask(self, question: str, arguments: Mapping[str, Any]) -> None:
        """Ask all workers; raises what hinders it."""

    async def close(self) -> None:
        """Leave nothing behind."""


def question(name: str, arguments: Mapping[str, Any], reply_to: str) -> dict[str, Any]:
    """Return a question to all workers as kombu/pidbox.py writes it.

    The answers go through the default exchange straight to a queue of ours, so that only the right to write
    to the workers' mailboxes is needed, and no exchange is declared.
    """
    return {
        "method": name,
        "arguments": dict(arguments),
        "destination": None,
        "pattern": None,
        "matcher": None,
        "ticket": name,
        "reply_to": {"exchange": "", "routing_key": reply_to},
    }


def answers(body: bytes, question: str) -> Iterator[Answer]:
    """Yield what is in the message of an answer: ``{hostname: {…}}``. What cannot be read yields nothing."""
    if len(body) > MAX_ANSWER_BYTES:
        return
    try:
        by_hostname = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(by_hostname, dict):
        for hostname, content in by_hostname.items():
            if isinstance(content, dict):
                yield Answer(question, hostname, content)

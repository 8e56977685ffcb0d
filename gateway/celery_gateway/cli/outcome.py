"""How the task or workflow has ended that ``tail --until ready`` waits for."""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from celery_gateway.events.event_types import STATE_OF_EVENT
from celery_gateway.state.transitions import READY_STATES

MAX_FAILURES: Final = 5
"""How many tasks that did not succeed are listed at the end."""
LOST: Final = 3
UNKNOWN: Final = 4
_EXIT_CODES = {"lost": LOST, "unknown": UNKNOWN}
FINAL_REASONS: Final = frozenset({"ready", *_EXIT_CODES})
"""The reasons of ``gateway-close`` that end the waiting. After others the client reconnects."""
_TYPES_WITH_STATE = frozenset({*STATE_OF_EVENT, "task-lost", "gateway-snapshot"})


class _Task(NamedTuple):
    uuid: str
    state: str
    name: object
    exception: object


class Outcome:
    """The states of the tasks of a stream, and the reason for which the stream was closed.

    Args:
        is_workflow: the stream waits for a workflow, not for a task.
        target: the id that it waits for.
    """

    def __init__(self, is_workflow: bool = False, target: str = "") -> None:
        self._is_workflow = is_workflow
        self._target = target
        self._tasks: dict[tuple[str, str], _Task] = {}
        self._reason = "ready"

    def record(self, message: dict[str, Any]) -> None:
        """Record the states in a message of the stream. Any JSON object with a type is accepted."""
        if message["type"] == "gateway-close":
            self._reason = _text(message.get("reason"))
        if message["type"] not in _TYPES_WITH_STATE:
            return  # custom events may have any state
        tasks = message.get("tasks") if message["type"] == "gateway-snapshot" else [message]
        for task in tasks if isinstance(tasks, list) else []:
            if isinstance(task, dict) and task.get("uuid") and task.get("state"):
                uuid, state = _text(task["uuid"]), _text(task["state"])
                recorded = _Task(uuid, state, task.get("name"), task.get("exception"))
                self._tasks[_text(task.get("cluster")), uuid] = recorded

    @property
    def progress(self) -> str:
        """Return what is waited for, and its state, as ``workflow 5a37c0b2 (1 of 3 known tasks ready)``."""
        if not self._is_workflow:
            states = {task.state for task in self._tasks.values()}
            return f"task {self._target} ({', '.join(sorted(states)) or 'no event of it yet'})"
        ready = sum(task.state in READY_STATES for task in self._tasks.values())
        counts = f"{ready} of {len(self._tasks)} known tasks ready" if self._tasks else "no event of it yet"
        return f"workflow {self._target} ({counts})"

    def notes(self, message: dict[str, Any]) -> Iterator[str]:
        """Yield lines for people about a message that has been recorded.

        They are the failures and the reason at the end, and a note if there is no event yet.
        """
        if message["type"] == "gateway-snapshot" and message.get("done") and not self._tasks:
            yield "no events of it yet; waiting for the first one"
        if message["type"] == "gateway-close":
            yield from self._failures()
            yield from self._end(message)

    def _failures(self) -> Iterator[str]:
        failed = [task for task in self._tasks.values() if task.state in READY_STATES - {"SUCCESS"}]
        for task in failed[:MAX_FAILURES]:
            name = f"{_text(task.name)} {task.uuid[:8]}" if task.name else task.uuid
            exception = f": {_text(task.exception)}" if task.exception else ""
            yield f"{'failed' if task.state == 'FAILURE' else task.state.lower()}: {name}{exception}"
        if len(failed) > MAX_FAILURES:
            yield f"… and {len(failed) - MAX_FAILURES} more tasks that did not succeed"

    def _end(self, closed: dict[str, Any]) -> Iterator[str]:
        if self._reason == "lost":
            yield "lost: the worker that had it is gone"
        if self._reason == "unknown":
            yield f"ended: {_text(closed.get('message'))}"
        if self._is_workflow and self._reason == "ready" and not closed.get("sent_events", True):
            yield (
                f"ready: {_text(closed.get('ready'))} of {_text(closed.get('known'))} known tasks; "
                "task-sent events are off, so a task that waits in a queue cannot be seen "
                "(set task_send_sent_event = True, or a longer --quiet-time)"
            )

    @property
    def exit_code(self) -> int:
        """Return 0 if all tasks succeeded, 1 if one did not, ``LOST``, or ``UNKNOWN``."""
        if self._reason in _EXIT_CODES:
            return _EXIT_CODES[self._reason]
        return 0 if {task.state for task in self._tasks.values()} == {"SUCCESS"} else 1


def _text(value: object) -> str:
    """Return a text as it is, any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)

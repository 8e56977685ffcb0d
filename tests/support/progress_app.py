"""Tasks that report their progress (`-I tests.support.progress_app` for a worker of `celery_app`).

A gate is a file: a task that waits at one goes on when the test makes it, so that the test can say what
happens between two reports.
"""

import os
import time
from pathlib import Path
from typing import Any

from celery import Task, current_task
from celery.exceptions import SoftTimeLimitExceeded

from celery_gateway import progress
from celery_gateway.progress import ProgressMixin, report
from tests.support.celery_app import app
from tests.support.rabbitmq import wait_for

GATE_SECONDS = 60.0
progress.PAUSE_SECONDS = float(os.environ.get("TESTS_PAUSE_SECONDS", progress.PAUSE_SECONDS))


class ProgressTask(ProgressMixin, Task):  # type: ignore[misc]  # Celery is untyped
    pass


def pass_gate(gate: str) -> None:
    if not wait_for(Path(gate).exists, GATE_SECONDS):
        raise TimeoutError(f"nobody opened {gate}")


@app.task(bind=True, name="progress.count")
def count(self: Task, reports: int, total: int | None = None) -> float:
    """Reports 0 … reports - 1 as fast as it can; the seconds that took."""
    started = time.monotonic()
    for current in range(reports):
        report(self, current, total)
    return time.monotonic() - started


@app.task(name="progress.unbound")
def unbound() -> None:
    report(current_task, 1, 2, note="half")


@app.task(bind=True, name="progress.interrupted")
def interrupted(self: Task, gate: str, reports: int, blob_bytes: int = 0) -> tuple[float, int]:
    """Report, wait at the gate, and report so many times more. Return the seconds and the tries of that."""
    report(self, 0, reports)
    pass_gate(gate)
    tries = 0
    publish = progress._publish

    def counted(*args: Any) -> None:
        nonlocal tries
        tries += 1
        publish(*args)

    progress._publish = counted
    try:
        started = time.monotonic()
        for current in range(1, reports + 1):
            report(self, current, reports, blob="x" * blob_bytes)
            time.sleep(0.001)
        return time.monotonic() - started, tries
    finally:
        progress._publish = publish


@app.task(bind=True, name="progress.completed")
def completed(self: Task, gate: str, total: int) -> None:
    """Reports all, and as much again that nobody expected, and goes on to the gate."""
    for current in range(2 * total + 1):
        report(self, current, total)
    pass_gate(gate)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@app.task(bind=True, name="progress.odd")
def odd(self: Task) -> None:
    endless: list[Any] = []
    endless.append(endless)
    report(
        self,
        1,
        4,
        job=object(),
        keys={(1, 2): "tuple"},
        endless=endless,
        unprintable=Unprintable(),
        number=float("nan"),
        folder=Path("/srv"),
        name="mine",
        hostname="mine",
        id=7,
        retry=True,
    )


@app.task(bind=True, name="progress.nonsense")
def nonsense(self: Task) -> str:
    report(None, 1, 2)
    report(self, "one", object())  # type: ignore[arg-type]
    return "done"


@app.task(bind=True, name="progress.limited", soft_time_limit=1)
def limited(self: Task) -> str:
    """The soft time limit comes in the midst of reports: it has to reach the task."""
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            # The odd value takes its time, so that the signal comes while it is made plain.
            report(self, 1, 0, odd=[object()] * 20_000)
            self.request._gateway_progress.sent_at.clear()
    except SoftTimeLimitExceeded:
        return "stopped in time"
    return "never told"


@app.task(bind=True, base=ProgressTask, name="progress.states")
def states(self: Task, gate: str) -> str:
    self.update_state(state="PROGRESS", meta={"current": 1, "total": 2, "file": "a.png"})
    self.update_state(state="TRANSFERRING", meta={"file": "a.png", "state": "not this"})
    self.update_state(state="SECOND_PASS")
    self.update_state(state="FAILED", meta={"reason": "a state of the user's that sounds like Celery's"})
    self.update_state(state="STARTED", meta={"pid": 1})
    self.update_state(task_id="someone-else", state="ELSEWHERE")
    self.update_state(state="PARKED", meta=["at", "the", "gate"])
    pass_gate(gate)
    return "done"

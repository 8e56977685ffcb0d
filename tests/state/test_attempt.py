"""Which attempt of a task an event belongs to, and which process works on the task.

A story is a list of events, in the order of arrival. `sent` is a client's event; `a.started` is one of worker
``a``, in the next place of that worker's order. `/1` gives the retries, `#5` the clock, `@5` the timestamp,
`+700` lets 700 seconds pass. `x` is a worker whose events have no hostname. `a.restarted` is the
``worker-online`` of a new process of ``a``; the tasks of the old one are then lost. `terminated` is the
``task-revoked`` of a task that ran, `revoked` that of one which was discarded.

The attempts of a story are written as `1 RETRY a, 2* PENDING -`: number, state, worker. `*` is the
current one, `|` begins a new run, and `2/0` is a second attempt at a message without retries.
"""

from dataclasses import dataclass, field
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import Event
from celery_gateway.state.attempt import MAX_ATTEMPTS, Attempt, Attempts
from celery_gateway.state.attempt_matching import LATE_RESENT_SECONDS, LATE_SENT_SECONDS
from celery_gateway.state.lifecycle import apply, mark_lost
from celery_gateway.state.process import Process
from celery_gateway.state.task import Task
from celery_gateway.state.transitions import UNASSIGNED_STATES, state_of
from celery_gateway.state.worker_table import WorkerTable
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

DRAWN = settings(deadline=None, max_examples=tries(300), derandomize=True)
BEGAN_AT = 1_700_000_000.0
HOUR = 3600.0
PIDS = {"a": 1, "b": 2, "c": 3, "x": 4, "client": 9}
CLOCKS: list[dict[str, float]] = [
    {},
    {"a": 2 * HOUR},
    {"b": 2 * HOUR, "client": HOUR},
    {"a": -2 * HOUR, "c": 2 * HOUR},
    {"client": 2 * HOUR},
    {"client": -2 * HOUR},
]
"""By how many seconds the clocks of some hosts are wrong."""


@dataclass
class Story:
    """A task, and the cluster that its events come from.

    Attributes:
        wrong: by how many seconds the clock of each host is wrong.
        now: when the last event arrived.
        found: the attempt that each event belonged to, as its number was then.
    """

    wrong: dict[str, float] = field(default_factory=dict)
    task: Task = field(default_factory=lambda: Task("u"))
    attempts: Attempts = field(default_factory=Attempts)
    workers: WorkerTable = field(default_factory=WorkerTable)
    now: float = 0.0
    processes: dict[str, Process] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    found: list[int] = field(default_factory=list)

    def event(self, word: str) -> Event:
        """Return the event of a word."""
        word, _, timestamp = word.partition("@")
        word, _, clock = word.partition("#")
        word, _, retries = word.partition("/")
        host, _, subject = word.rpartition(".")
        host = host or "client"
        self.counters[host] = self.counters.get(host, 100) + 1
        made: Event = {
            "type": "task-revoked" if subject == "terminated" else f"task-{subject}",
            "uuid": "u",
            "timestamp": BEGAN_AT + self.wrong.get(host, 0.0) + (float(timestamp) if timestamp else self.now),
            "clock": int(clock) if clock else self.counters[host],
            "pid": PIDS[host],
        }
        if host != "x":
            made["hostname"] = "gen9@client" if host == "client" else f"{host}@host"
        if subject in ("sent", "received"):
            made["retries"] = int(retries or 0)
        if subject in ("failed", "retried"):
            made["exception"] = f"{subject} by {host}"
        if subject in ("revoked", "terminated"):
            made["terminated"] = subject == "terminated"
        return made

    def arrive(self, made: Event) -> Attempt:
        """Take an event in, a hundredth of a second after the one before."""
        self.now += 0.01
        process = self.workers.on_event(made, self.now)
        if process is not None:
            self.processes[process.key.hostname[0]] = process
        attempt, _ = apply(self.task, self.attempts, dict(made), process, self.now)
        self.found.append(attempt.number)
        return attempt

    def play(self, text: str) -> "Story":
        """Take the words of a story in."""
        for word in text.split():
            if word.startswith("+"):
                self.now += float(word)
            elif word.endswith(".restarted"):
                self.restart(word[0])
            else:
                if word[0] in "abc" and word[1] == "." and word[0] not in self.processes:
                    self.receive_worker_event(word[0], "worker-heartbeat", clock=100)
                self.arrive(self.event(word))
        return self

    def receive_worker_event(self, host: str, event_type: str, clock: int) -> None:
        made = {"type": event_type, "hostname": f"{host}@host", "pid": PIDS[host], "clock": clock}
        process = self.workers.on_event(made | {"freq": 2.0, "active": 0, "processed": 0}, self.now)
        assert process is not None
        self.processes[host] = process

    def restart(self, host: str) -> None:
        self.receive_worker_event(host, "worker-online", clock=1)
        self.counters[host] = 1
        for gone in self.workers.find_gone(self.now):
            mark_lost(self.task, self.attempts, gone.process, self.now)
            gone.process.assigned.clear()

    @property
    def shape(self) -> str:
        """The attempts that are kept."""
        text, run = "", None
        for attempt in self.attempts.kept():
            text += "" if run is None else ", " if attempt.run == run else " | "
            text += f"{attempt.number}"
            text += f"/{attempt.retries}" if attempt.retries + 1 != attempt.number else ""
            text += "*" if attempt is self.attempts.current else ""
            text += f" {attempt.state} {attempt.process.key.hostname[0] if attempt.process else '-'}"
            run = attempt.run
        return text


def played(text: str, **wrong: float) -> Story:
    return Story(wrong).play(text)


def assert_sound(story: Story) -> None:
    """Check that the attempts are consistent."""
    attempts, kept = story.attempts, story.attempts.kept()
    current = attempts.current
    assert current in kept and attempts.last is kept[-1]
    assert len(kept) <= MAX_ATTEMPTS
    assert story.task.state == current.state
    assert [attempt.run for attempt in kept] == sorted(attempt.run for attempt in kept)
    assert attempts.current_run() == [attempt for attempt in kept if attempt.run == current.run]


def assert_held(story: Story) -> None:
    """Check that the task is assigned to exactly those processes that work on one of its attempts."""
    for process in story.processes.values():
        theirs = [attempt for attempt in story.attempts.kept() if attempt.process is process]
        is_holding = any(attempt.state not in UNASSIGNED_STATES for attempt in theirs)
        assert (story.attempts in process.assigned) == is_holding, process.key


def assert_shape(text: str, shape: str) -> None:
    """Play a story with right and wrong clocks; at its end the attempts are the same."""
    for wrong in CLOCKS:
        story = played(text, **wrong)
        assert story.shape == shape, wrong
        assert_sound(story)
        assert_held(story)


# ------------------------------------------------------------------------------------- one process


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("sent", "1* PENDING -"),
        ("sent a.received", "1* RECEIVED a"),
        ("sent a.received a.started", "1* STARTED a"),
        ("sent a.received a.started a.progress", "1* PROGRESS a"),
        ("sent a.received a.started a.succeeded", "1* SUCCESS a"),
        ("sent a.received a.started a.failed a.rejected", "1* FAILURE a"),
        ("sent a.received a.started a.failed a.failed", "1* FAILURE a"),
        ("sent a.received a.revoked", "1* REVOKED a"),
        ("sent a.revoked", "1* REVOKED a"),
        ("sent a.received a.started a.terminated a.terminated", "1* REVOKED a"),
        ("sent a.received a.started a.rejected", "1* REJECTED a"),
        ("sent a.received a.started a.cancelled", "1* CANCELLED a"),
    ],
)
def test_the_events_of_one_process_are_one_attempt(text: str, shape: str) -> None:
    assert_shape(text, shape)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a.received sent a.started", "1* STARTED a"),
        ("a.received a.started sent", "1* STARTED a"),
        ("a.received a.started a.succeeded sent", "1* SUCCESS a"),
        ("a.received a.started a.retried sent", "1* RETRY a"),
        ("a.received a.started a.succeeded +599 sent", "1* SUCCESS a"),
    ],
)
def test_a_late_task_sent_belongs_to_the_run_without_one(text: str, shape: str) -> None:
    assert_shape(text, shape)
    assert played(text).attempts.kept()[0].sent is not None


@pytest.mark.parametrize("subject", ["received", "started", "succeeded", "failed", "retried", "revoked"])
def test_the_first_event_of_all_opens_an_attempt(subject: str) -> None:
    story = played(f"a.{subject}")
    assert story.shape == f"1* {story.task.state} a"
    assert story.found == [1]


def test_attempts_before_the_gateway_was_connected_are_counted_by_the_retries() -> None:
    assert_shape("a.received/3 a.started", "4* STARTED a")
    assert_shape("a.received/3 a.started a.retried b.started", "4 RETRY a, 5* STARTED b")
    assert_shape("sent/2 a.started", "3* STARTED a")


def test_an_event_of_a_worker_without_hostname_is_of_a_process_that_is_not_known() -> None:
    assert_shape("x.received x.started x.succeeded", "1* SUCCESS -")
    assert_shape("sent x.received x.started x.retried x.received/1 x.started", "1 RETRY -, 2* STARTED -")
    assert_shape("x.received x.started a.received/1 a.started", "1 STARTED -, 2* STARTED a")


def test_a_task_that_a_worker_receives_again_before_it_starts_it_is_the_same_attempt() -> None:
    """A worker that lost its broker gets again what it had prefetched."""
    assert_shape("a.received a.received a.started", "1* STARTED a")
    story = played("sent a.received a.received")
    assert story.task.received == story.attempts.kept()[0].received == BEGAN_AT + 0.02


# ----------------------------------------------------------------------------------------- retries

A_RETRY = "sent a.received a.started a.retried"
THREE = "a.received a.started a.received/1 a.started a.received/2 a.started"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (f"{A_RETRY}", "1* RETRY a"),
        (f"{A_RETRY} sent/1", "1* RETRY a, 2 PENDING -"),
        (f"{A_RETRY} sent/1 a.received/1", "1 RETRY a, 2* RECEIVED a"),
        (f"{A_RETRY} sent/1 a.received/1 a.started a.succeeded", "1 RETRY a, 2* SUCCESS a"),
        (f"{A_RETRY} sent/1 b.received/1 b.started b.failed", "1 RETRY a, 2* FAILURE b"),
        (f"{A_RETRY} b.received/1 sent/1 b.started", "1 RETRY a, 2* STARTED b"),
        (f"{A_RETRY} b.received/1 b.started b.succeeded", "1 RETRY a, 2* SUCCESS b"),
        (f"{A_RETRY} sent/1 b.revoked", "1 RETRY a, 2* REVOKED b"),
        (f"{A_RETRY} b.started b.succeeded", "1 RETRY a, 2* SUCCESS b"),
        (f"{A_RETRY} b.succeeded", "1 RETRY a, 2* SUCCESS b"),
        (
            f"{A_RETRY} b.received/1 b.started b.retried c.received/2 c.started c.retried a.received/3",
            "1 RETRY a, 2 RETRY b, 3 RETRY c, 4* RECEIVED a",
        ),
    ],
)
def test_a_retry_is_another_attempt(text: str, shape: str) -> None:
    assert_shape(text, shape)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("sent a.received a.started sent/1", "1* STARTED a, 2 PENDING -"),
        ("sent a.received a.started sent/1 a.retried", "1* RETRY a, 2 PENDING -"),
        ("a.received a.started a.received/1", "1 STARTED a, 2* RECEIVED a"),
        ("a.received a.started a.received/1 a.retried", "1 RETRY a, 2* RECEIVED a"),
        ("a.received a.started a.received/1 a.started a.retried", "1 RETRY a, 2* STARTED a"),
        ("a.received a.started a.received/1 a.started a.succeeded", "1 STARTED a, 2* SUCCESS a"),
        ("a.received a.started a.received/1 a.started a.failed a.retried", "1 RETRY a, 2* FAILURE a"),
        ("a.received a.started a.received/1 a.revoked a.retried", "1 RETRY a, 2* REVOKED a"),
        ("a.received a.received/1 a.retried a.started a.succeeded", "1 RETRY a, 2* SUCCESS a"),
        ("a.received a.received/1 a.started a.started a.retried a.succeeded", "1 RETRY a, 2* SUCCESS a"),
        ("a.received a.started b.received/1 b.started a.retried b.failed", "1 RETRY a, 2* FAILURE b"),
        ("a.received a.started b.received/1 b.started b.succeeded a.retried", "1 RETRY a, 2* SUCCESS b"),
        ("a.received a.started b.received/1 b.started b.retried a.retried", "1 RETRY a, 2* RETRY b"),
        (f"{THREE} a.retried a.retried a.succeeded", "1 RETRY a, 2 RETRY a, 3* SUCCESS a"),
        (f"{THREE} a.succeeded a.retried a.retried", "1 RETRY a, 2 RETRY a, 3* SUCCESS a"),
        (
            "a.received a.started a.progress a.received/1 a.started a.progress a.succeeded a.retried",
            "1 RETRY a, 2* SUCCESS a",
        ),
    ],
)
def test_an_immediate_retry_overtakes_the_task_retried_of_the_attempt_before(text: str, shape: str) -> None:
    """A worker receives the new message before its child has reported the end of the old one."""
    assert_shape(text, shape)


@pytest.mark.parametrize(
    "text",
    [
        "sent a.received sent/1 a.received/1 a.started a.retried a.started a.succeeded",
        "a.received a.received/1 a.started a.retried a.started a.succeeded",
    ],
)
def test_an_immediate_retry_overtakes_the_task_started_of_the_attempt_before(text: str) -> None:
    """As recorded: a worker reads the new message, and then what its child has reported of the old one."""
    assert_shape(text, "1 RETRY a, 2* SUCCESS a")


def test_a_retry_ends_with_what_is_reported_after_it() -> None:
    ended = "a.received a.started a.received/1 a.started a.succeeded a.retried"
    assert_shape(f"{ended} a.retried", "1 RETRY a, 2* SUCCESS a")
    assert_shape("a.received a.started b.received/1 b.started a.retried b.retried", "1 RETRY a, 2* RETRY b")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("sent sent/1", "1* PENDING -, 2 PENDING -"),
        ("sent a.received sent/1 sent/2", "1* RECEIVED a, 2 PENDING -, 3 PENDING -"),
        ("sent/1 a.received a.started a.retried", "1* RETRY a, 2 PENDING -"),
        ("sent/1 sent/2 b.received/2", "2 PENDING -, 3* RECEIVED b"),
        ("sent/1 sent/2 b.received/1", "2* RECEIVED b, 3 PENDING -"),
        (f"{A_RETRY} sent/1 sent/2 b.received/1 b.started", "1 RETRY a, 2* STARTED b, 3 PENDING -"),
        ("b.received/1 a.received", "1 RECEIVED a, 2* RECEIVED b"),
        ("b.received/1 b.started a.received a.started a.retried", "1 RETRY a, 2* STARTED b"),
        ("b.received/1 b.started b.succeeded a.received", "1 RECEIVED a, 2* SUCCESS b"),
        ("b.received/1 b.started sent sent/1", "2* STARTED b"),
    ],
)
def test_attempts_are_in_the_order_of_their_retries(text: str, shape: str) -> None:
    assert_shape(text, shape)


def test_a_retry_that_was_only_sent_does_not_change_the_state() -> None:
    story = played(f"{A_RETRY} sent/1")
    assert (story.task.state, story.task.attempt, story.task.retries) == ("RETRY", 1, 1)
    story.play("b.received/1")
    assert (story.task.state, story.task.attempt, story.task.worker) == ("RECEIVED", 2, "b@host")


# ------------------------------------------------------------------------------------ redeliveries


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a.received b.received", "1 RECEIVED a, 2/0* RECEIVED b"),
        ("a.received a.started b.received b.started b.succeeded", "1 STARTED a, 2/0* SUCCESS b"),
        ("a.received a.started b.received b.started b.succeeded a.failed", "1 FAILURE a, 2/0* SUCCESS b"),
        ("a.received a.started b.received b.started a.succeeded", "1 SUCCESS a, 2/0* STARTED b"),
        ("a.received a.started b.received b.started a.progress", "1 PROGRESS a, 2/0* STARTED b"),
        ("a.received a.started a.received a.started", "1 STARTED a, 2/0* STARTED a"),
        ("a.received a.started a.received a.started a.succeeded a.succeeded", "1 SUCCESS a, 2/0* SUCCESS a"),
        ("a.received a.started a.cancelled a.received a.started a.failed", "1 CANCELLED a, 2/0* FAILURE a"),
        ("a.received a.started a.restarted", "1* LOST a"),
        ("a.received a.started a.restarted b.received b.started", "1 LOST a, 2/0* STARTED b"),
        ("a.received a.started a.restarted a.received a.started", "1 LOST a, 2/0* STARTED a"),
        ("a.received a.started a.restarted b.started b.succeeded", "1 LOST a, 2/0* SUCCESS b"),
        ("a.received a.started a.restarted b.succeeded", "1 LOST a, 2/0* SUCCESS b"),
        ("a.received a.started a.restarted a.revoked", "1 LOST a, 2/0* REVOKED a"),
        ("a.received a.started b.received b.started a.restarted", "1 LOST a, 2/0* STARTED b"),
        ("a.received a.started b.received a.restarted b.restarted", "1 LOST a, 2/0* LOST b"),
        (
            "a.received/1 a.started b.received/1 b.started b.retried c.received/2",
            "2 STARTED a, 3/1 RETRY b, 4/2* RECEIVED c",
        ),
    ],
)
def test_a_redelivery_is_another_attempt_with_the_same_retries(text: str, shape: str) -> None:
    assert_shape(text, shape)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a.received a.started a.rejected b.received b.started b.succeeded", "1 REJECTED a, 2/0* SUCCESS b"),
        ("a.received a.started a.rejected a.received a.started a.succeeded", "1 REJECTED a, 2/0* SUCCESS a"),
        ("a.received a.started a.rejected a.started a.succeeded", "1 REJECTED a, 2/0* SUCCESS a"),
        ("a.received a.started b.received a.rejected b.started", "1 REJECTED a, 2/0* STARTED b"),
        ("a.received a.started b.received b.started a.rejected b.succeeded", "1 REJECTED a, 2/0* SUCCESS b"),
        ("a.received a.started a.received a.rejected a.started", "1 REJECTED a, 2/0* STARTED a"),
        ("a.received a.rejected a.received a.rejected", "1 REJECTED a, 2/0* REJECTED a"),
        ("sent a.received a.started a.rejected sent/1", "1* REJECTED a, 2 PENDING -"),
        ("a.received a.started a.rejected b.failed", "1 REJECTED a, 2/0* FAILURE b"),
        ("a.received a.started a.rejected a.rejected", "1* REJECTED a"),
    ],
)
def test_a_rejected_task_that_comes_back_is_another_attempt(text: str, shape: str) -> None:
    assert_shape(text, shape)


@pytest.mark.parametrize("end", ["rejected", "cancelled"])
def test_a_retry_may_be_rejected_before_the_end_of_the_attempt_before_it_is_reported(end: str) -> None:
    """An attempt that a message with more retries follows can only have been retried."""
    text = f"a.received a.started a.received/1 a.started a.{end} a.retried"
    assert_shape(text, f"1 RETRY a, 2* {end.upper()} a")


# -------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("sent a.received a.started sent", "1 STARTED a | 1* PENDING -"),
        ("sent a.received a.started sent b.received b.started b.succeeded", "1 STARTED a | 1* SUCCESS b"),
        ("sent a.received a.started sent a.received a.started a.succeeded", "1 STARTED a | 1* SUCCESS a"),
        (
            f"{A_RETRY} sent/1 a.received/1 a.started sent/1 b.received/1 b.started b.retried c.received/2",
            "1 RETRY a, 2 STARTED a | 1/1 RETRY b, 2/2* RECEIVED c",
        ),
    ],
)
def test_replace_sends_the_same_retries_again_and_begins_a_run(text: str, shape: str) -> None:
    """The replaced task reports no end: what comes is the end of the replacement."""
    assert_shape(text, shape)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("sent a.received a.started b.received sent b.started b.succeeded", "1 STARTED a, 2/0* SUCCESS b"),
        ("sent a.received a.started b.received b.started sent b.failed", "1 STARTED a, 2/0* FAILURE b"),
        ("sent a.received a.started b.received b.started b.failed sent", "1 STARTED a, 2/0* FAILURE b"),
        ("sent a.received a.started a.received sent a.started a.failed", "1 STARTED a, 2/0* FAILURE a"),
        ("a.received a.started b.received b.started b.succeeded", "1 STARTED a, 2/0* SUCCESS b"),
        ("a.received a.started a.received a.started a.succeeded", "1 STARTED a, 2/0* SUCCESS a"),
        (
            f"{A_RETRY} a.received/1 a.started a.received/1 a.started a.succeeded",
            "1 RETRY a, 2 STARTED a, 3/1* SUCCESS a",
        ),
    ],
)
def test_replace_whose_task_sent_is_late_or_missing_looks_like_a_redelivery(text: str, shape: str) -> None:
    assert_shape(text, shape)


ENDED = "sent a.received a.started a.succeeded"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (f"{ENDED} sent", "1 SUCCESS a | 1* PENDING -"),
        (f"{ENDED} sent b.received", "1 SUCCESS a | 1* RECEIVED b"),
        (f"{ENDED} sent a.received a.started a.failed", "1 SUCCESS a | 1* FAILURE a"),
        (f"{ENDED} b.received sent b.started", "1 SUCCESS a | 1* STARTED b"),
        (f"{ENDED} a.received", "1 SUCCESS a | 1* RECEIVED a"),
        (f"{ENDED} a.started a.failed", "1 SUCCESS a | 1* FAILURE a"),
        (f"{ENDED} b.started", "1 SUCCESS a | 1* STARTED b"),
        ("a.received a.started a.succeeded a.received a.started sent", "1 SUCCESS a | 1* STARTED a"),
        (f"{A_RETRY} a.received/1 a.started a.failed b.received", "1 RETRY a, 2 FAILURE a | 1* RECEIVED b"),
        (f"{A_RETRY} sent/1 a.received/1 a.failed sent", "1 RETRY a, 2 FAILURE a | 1* PENDING -"),
        (f"{ENDED} sent b.revoked sent c.received", "1 SUCCESS a | 1 REVOKED b | 1* RECEIVED c"),
        (f"{ENDED} sent sent", "1 SUCCESS a | 1 PENDING - | 1* PENDING -"),
        (f"{ENDED} sent b.received b.started b.retried sent/1", "1 SUCCESS a | 1* RETRY b, 2 PENDING -"),
        ("sent +700 sent", "1 PENDING - | 1* PENDING -"),
    ],
)
def test_an_attempt_after_the_end_of_a_run_is_a_new_run(text: str, shape: str) -> None:
    assert_shape(text, shape)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (f"{ENDED} a.retried", "1* SUCCESS a"),
        (f"{ENDED} a.rejected", "1* SUCCESS a"),
        (f"{ENDED} a.failed", "1* SUCCESS a"),
        (f"{ENDED} a.progress", "1* SUCCESS a"),
        (f"{ENDED} a.cancelled", "1* SUCCESS a"),
        (f"{ENDED} b.progress", "1* SUCCESS a"),
    ],
)
def test_an_end_without_a_beginning_does_not_move_the_task(text: str, shape: str) -> None:
    assert_shape(text, shape)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (f"{ENDED} b.failed", "0/0 FAILURE b, 1* SUCCESS a"),
        ("a.received a.started b.failed", "0/0 FAILURE b, 1* STARTED a"),
    ],
)
def test_an_attempt_known_only_by_its_end_comes_first_and_is_not_counted(text: str, shape: str) -> None:
    assert_shape(text, shape)


@pytest.mark.parametrize("text", [f"{ENDED} b.failed", "a.received a.started b.failed"])
def test_an_end_of_another_process_without_a_beginning_does_not_move_the_task(text: str) -> None:
    story, before = played(text), played(text.removesuffix(" b.failed"))
    assert (story.task.state, story.task.worker) == (before.task.state, "a@host")
    assert [attempt.state for attempt in story.attempts.kept()] == ["FAILURE", before.task.state]


def test_a_task_sent_may_be_late_up_to_a_limit() -> None:
    first = "a.received a.started a.succeeded"
    assert played(f"{first} +{LATE_SENT_SECONDS - 1} sent").shape == "1* SUCCESS a"
    assert played(f"{first} +{LATE_SENT_SECONDS + 1} sent").shape == "1 SUCCESS a | 1* PENDING -"
    replaced = "sent a.received a.started b.received b.started"
    assert played(f"{replaced} +{LATE_RESENT_SECONDS - 1} sent").shape == "1 STARTED a, 2/0* STARTED b"
    assert (
        played(f"{replaced} +{LATE_RESENT_SECONDS + 1} sent").shape
        == "1 STARTED a, 2/0 STARTED b | 1* PENDING -"
    )


def test_a_run_that_is_sent_soon_after_the_end_of_a_redelivery_is_a_new_run() -> None:
    redelivered = "sent a.received a.started a.rejected b.received b.started b.failed"
    story = played(f"{redelivered} +20 sent")
    assert story.shape == "1 REJECTED a, 2/0 FAILURE b | 1* PENDING -"


def test_a_task_sent_of_a_message_before_those_that_are_known_does_not_begin_a_run() -> None:
    assert_shape("a.received/2 a.started sent/1", "3* STARTED a")
    assert_shape("a.received/2 a.started a.succeeded sent/1", "3* SUCCESS a")
    assert_shape("a.received/2 a.started a.succeeded +60 sent", "3 SUCCESS a | 1* PENDING -")


# ------------------------------------------------------------------------------------- late events


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        pytest.param("a.started#2 a.received#1", "1* STARTED a", id="received late"),
        pytest.param("a.started#2 a.succeeded#3 a.received#1", "1* SUCCESS a", id="received after the end"),
        pytest.param("a.succeeded#3 a.received#1 a.started#2", "1* SUCCESS a", id="the end first"),
        pytest.param("a.succeeded#3 a.started#2 a.received#1", "1* SUCCESS a", id="backwards"),
        pytest.param("a.received#1 a.succeeded#3 a.started#2", "1* SUCCESS a", id="started after the end"),
        pytest.param("a.retried#3 a.started#2 a.received#1", "1* RETRY a", id="a retry backwards"),
        pytest.param("a.started#2 a.received/3#1", "4* STARTED a", id="its retries were not known before"),
        pytest.param(
            "a.received#1 a.started#2 a.rejected#3 a.received#4 a.succeeded#6 a.started#5",
            "1 REJECTED a, 2/0* SUCCESS a",
            id="the second of two attempts",
        ),
    ],
)
def test_the_events_of_a_process_are_ordered_by_its_own_clock(text: str, shape: str) -> None:
    """The timestamps are in the order of arrival here: the counter decides."""
    assert_shape(text, shape)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a.started#7@20 a.received#7@10", "1* STARTED a"),
        ("a.succeeded#7@30 a.received#7@10 a.started#7@20", "1* SUCCESS a"),
        ("a.succeeded#7@30 a.started#7@20 a.received#7@10", "1* SUCCESS a"),
        ("a.succeeded#7@30 a.received#7@40", "1 SUCCESS a | 1* RECEIVED a"),
        ("a.succeeded#7@30 a.started#7@40", "1 SUCCESS a | 1* STARTED a"),
    ],
)
def test_where_a_process_has_the_same_clock_twice_its_timestamps_decide(text: str, shape: str) -> None:
    assert_shape(text, shape)


def test_an_event_without_clock_is_ordered_by_its_timestamp() -> None:
    for blind in (None, "7", 7.0, True, 1 << 70):
        story = Story()
        for word in ("a.succeeded@30", "a.received@10", "a.started@20"):
            story.arrive(story.event(word) | {"clock": blind})
        assert story.shape == "1* SUCCESS a"


@pytest.mark.parametrize("seconds", [-2 * HOUR, 2 * HOUR])
@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("sent a.received a.started a.succeeded", "1* SUCCESS a"),
        ("a.received a.started a.progress a.failed", "1* FAILURE a"),
        ("a.received a.started a.retried a.received/1 a.started a.succeeded", "1 RETRY a, 2* SUCCESS a"),
        ("a.received a.started a.received/1 a.started a.retried a.succeeded", "1 RETRY a, 2* SUCCESS a"),
        ("a.received a.started a.rejected a.received a.started a.failed", "1 REJECTED a, 2/0* FAILURE a"),
        ("a.received a.started a.succeeded a.received a.started a.failed", "1 SUCCESS a | 1* FAILURE a"),
        ("a.received a.started b.received b.started b.succeeded", "1 STARTED a, 2/0* SUCCESS b"),
    ],
)
def test_the_clock_of_a_host_may_be_set_at_any_time(text: str, shape: str, seconds: float) -> None:
    words = text.split()
    for place in range(len(words)):
        story = Story().play(" ".join(words[:place]))
        story.wrong["a"] = seconds
        assert story.play(" ".join(words[place:])).shape == shape, place


# --------------------------------------------------------------------------------------- duplicates

COURSES = [
    "sent a.received a.started a.succeeded",
    "sent a.received a.started a.retried sent/1 a.received/1 a.started a.succeeded",
    "sent a.received a.started sent/1 a.received/1 a.retried a.started a.failed",
    "sent a.received a.started a.retried sent/1 b.received/1 b.started b.retried sent/2 a.received/2",
    "sent a.received a.started a.rejected b.received b.started b.succeeded",
    "sent a.received a.started a.rejected a.received a.started a.succeeded",
    "sent a.received a.started b.received b.started b.succeeded",
    "sent a.received a.started sent b.received b.started b.succeeded",
    "sent a.received a.started a.succeeded sent a.received a.started a.failed",
    "sent a.received a.received a.started a.revoked",
    "x.received x.started x.succeeded",
]


@pytest.mark.parametrize("text", COURSES)
def test_a_repeated_event_changes_no_attempt(text: str) -> None:
    expected = played(text)
    words = text.split()
    for first, again in combinations(range(len(words) + 1), 2):
        story, events = Story(), []
        for place in range(len(words) + 1):
            if place == again:
                story.arrive(events[first])
            if place < len(words):
                events.append(story.event(words[place]) | {"timestamp": BEGAN_AT + place})
                story.arrive(events[place])
        assert story.shape == expected.shape, (words[first], again)
        assert_sound(story)
        assert_held(story)


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("a.received a.started a.retried a.received/1 a.started", "started"),
        ("a.received a.started a.retried a.received/1 a.started", "retried"),
        ("a.received a.started a.received/1 a.retried", "retried"),
    ],
)
def test_a_repeated_event_belongs_to_its_own_attempt(text: str, again: str) -> None:
    story, events = Story(), []
    for word in text.split():
        events.append(story.event(word))
        story.arrive(events[-1])
    first = next(number for number, made in enumerate(events) if made["type"] == f"task-{again}")
    assert story.arrive(events[first]).number == story.found[first]


# ------------------------------------------------------------------------------------ custom events


@pytest.mark.parametrize(
    ("text", "found", "shape"),
    [
        pytest.param("a.progress", 1, "1* PROGRESS -", id="first of all, before its worker is known"),
        pytest.param("a.progress a.started a.succeeded", 1, "1* SUCCESS a", id="and then the worker"),
        pytest.param("sent a.progress", 1, "1* PROGRESS -", id="of a message that was only sent"),
        pytest.param("a.received a.started a.progress", 1, "1* PROGRESS a", id="of the running attempt"),
        pytest.param("a.received a.progress", 1, "1* PROGRESS a", id="before task-started"),
        pytest.param(
            "a.received a.started a.received/1 a.progress",
            1,
            "1 PROGRESS a, 2* RECEIVED a",
            id="the running one goes before one that is only received",
        ),
        pytest.param(
            "a.received a.started b.received b.started a.progress",
            1,
            "1 PROGRESS a, 2/0* STARTED b",
            id="of the worker's own attempt",
        ),
        pytest.param(
            "a.received a.started b.received b.started b.progress", 2, "1 STARTED a, 2/0* PROGRESS b", id="b"
        ),
        pytest.param("a.received a.started a.retried a.progress", 1, "1* RETRY a", id="after the end"),
        pytest.param("a.received a.started c.progress", 1, "1* PROGRESS a", id="of another worker"),
        pytest.param("a.received a.started noted", 1, "1* NOTED a", id="of a client"),
        pytest.param("a.succeeded noted", 1, "1* SUCCESS a", id="of a client, after the end"),
    ],
)
def test_the_attempt_of_a_custom_event(text: str, found: int, shape: str) -> None:
    # Without a heartbeat first: a worker that only sent a custom event is not known.
    story = Story()
    for word in text.split():
        attempt = story.arrive(story.event(word))
    assert (attempt.number, story.shape) == (found, shape)


# ------------------------------------------------------------------------------------------- bound


def test_ten_attempts_are_kept() -> None:
    text = "sent a.received a.started a.retried"
    for retries in range(1, 15):
        text += f" sent/{retries} a.received/{retries} a.started a.retried"
    story = played(text)
    kept = story.attempts.kept()
    assert [attempt.number for attempt in kept] == list(range(6, 16))
    assert [attempt.retries for attempt in kept] == list(range(5, 15))
    assert story.task.attempt == 15
    assert_sound(story)


def test_the_bound_holds_for_runs_too_and_for_attempts_that_become_known_late() -> None:
    runs = played("a.received a.started a.succeeded " * 15)
    assert (len(runs.attempts.kept()), len(runs.attempts.current_run())) == (MAX_ATTEMPTS, 1)
    late = played("a.received/30 a.started " + "".join(f"b.received/{number} " for number in range(20)))
    assert len(late.attempts.kept()) == MAX_ATTEMPTS
    assert (late.task.state, late.task.attempt, late.task.worker) == ("STARTED", 31, "a@host")
    assert_sound(late)


def test_an_attempt_that_is_not_kept_is_no_longer_assigned() -> None:
    story = played("a.received a.started " + " ".join(f"b.received/{number}" for number in range(1, 10)))
    assert story.attempts in story.processes["a"].assigned
    story.play("b.received/10")
    assert len(story.attempts.kept()) == MAX_ATTEMPTS
    assert story.attempts not in story.processes["a"].assigned
    story.play("a.retried")
    assert (story.task.state, story.task.worker) == ("RECEIVED", "b@host")
    assert_sound(story)


# -------------------------------------------------------------------------------------------- held


def is_started_by(story: Story, host: str) -> bool | None:
    """Whether a worker's process has started the task; ``None`` if the task is not assigned to it."""
    return story.processes[host].assigned.get(story.attempts)


@pytest.mark.parametrize(
    ("text", "assigned"),
    [
        ("a.received", False),
        ("a.received a.started", True),
        ("a.started", True),
        ("a.received a.started a.progress", True),
        ("a.received a.progress", True),
        ("a.received a.started sent/1 b.received/1", True),
        ("a.received b.received", False),
        ("a.received a.started a.retried a.received/1", False),
        *[(f"a.received a.started a.{end}", None) for end in ("succeeded", "failed", "retried", "revoked")],
        *[(f"a.received a.started a.{end}", None) for end in ("rejected", "cancelled")],
        ("a.received a.revoked", None),
        ("a.received a.started a.succeeded a.progress", None),
        ("a.received a.started a.restarted", None),
        ("a.received a.started a.received/1 a.started a.succeeded a.retried", None),
    ],
)
def test_a_task_is_assigned_to_a_process_from_its_receipt_to_its_end(
    text: str, assigned: bool | None
) -> None:
    assert is_started_by(played(text), "a") is assigned


def test_a_process_that_runs_a_task_and_receives_it_again_still_runs_it() -> None:
    story = played("a.received a.started a.received/1")
    assert is_started_by(story, "a") is True
    assert story.processes["a"].is_running


@pytest.mark.parametrize("text", ["a.progress a.started", "sent noted a.received", "x.received a.received"])
def test_an_attempt_that_was_known_before_its_process_is_assigned(text: str) -> None:
    story = Story()
    for word in text.split():
        story.arrive(story.event(word))
    assert is_started_by(story, "a") is not None


def test_an_attempt_that_is_not_current_stays_assigned_until_it_ends() -> None:
    story = played("a.received a.started b.received b.started")
    assert (is_started_by(story, "a"), is_started_by(story, "b")) == (True, True)
    story.play("b.succeeded")
    assert (is_started_by(story, "a"), is_started_by(story, "b")) == (True, None)
    story.play("a.failed")
    assert (is_started_by(story, "a"), is_started_by(story, "b")) == (None, None)


def test_a_task_with_two_attempts_of_a_process_is_assigned_until_both_have_ended() -> None:
    story = played("a.received a.started a.received/1 a.started")
    assert is_started_by(story, "a") is True
    story.play("a.succeeded")
    assert is_started_by(story, "a") is True
    story.play("a.retried")
    assert is_started_by(story, "a") is None


def test_an_evicted_task_is_assigned_to_no_process() -> None:
    story = played("a.received a.started b.received")
    story.attempts.unassign()
    assert (is_started_by(story, "a"), is_started_by(story, "b")) == (None, None)


def test_a_task_is_not_assigned_to_an_unknown_process() -> None:
    story = played("x.received x.started")
    assert not story.processes
    assert story.shape == "1* STARTED -"


# -------------------------------------------------------------------------------------------- lost


def test_the_attempts_of_a_process_that_is_gone_are_lost() -> None:
    story = played("a.received a.started a.restarted")
    assert (story.shape, story.task.state, story.task.type) == ("1* LOST a", "LOST", "task-lost")
    assert story.task.lost == story.task.timestamp == pytest.approx(story.now)


def test_a_lost_attempt_that_is_not_current_does_not_change_the_task() -> None:
    story = played("a.received a.started b.received b.started a.restarted")
    assert (story.shape, story.task.state, story.task.lost) == ("1 LOST a, 2/0* STARTED b", "STARTED", None)


def test_a_custom_event_does_not_change_a_lost_attempt() -> None:
    """A child of the pool may outlive its worker, and reports its progress on a connection of its own."""
    story = played("a.received a.started")
    mark_lost(story.task, story.attempts, story.processes["a"], 5.0)
    for event in ("a.progress", "noted"):
        story.play(event)
        assert (story.task.state, story.task.lost, story.task.custom_at) == ("LOST", 5.0, None)


def test_an_attempt_whose_retry_has_been_sent_is_not_lost() -> None:
    story = played("sent a.received a.started sent/1")
    assert mark_lost(story.task, story.attempts, story.processes["a"], 5.0) is None
    assert (story.task.state, story.task.lost) == ("STARTED", None)
    story.play("b.received/1 b.started b.succeeded")
    assert (story.task.state, story.task.worker) == ("SUCCESS", "b@host")


@pytest.mark.parametrize("subject", ["started", "succeeded", "failed", "retried", "rejected"])
def test_an_event_of_a_process_that_was_taken_for_gone_changes_its_lost_attempt(subject: str) -> None:
    story = played("a.received" if subject == "started" else "a.received a.started")
    process = story.processes["a"]
    assert mark_lost(story.task, story.attempts, process, 5.0) is story.attempts.current
    assert mark_lost(story.task, story.attempts, process, 6.0) is None, "it is lost once"
    process.assigned.clear()
    assert (story.shape, story.task.lost) == ("1* LOST a", 5.0)
    story.play(f"a.{subject}")
    assert (story.shape, story.task.lost) == (f"1* {state_of('task-' + subject)} a", None)
    assert_sound(story)


def test_the_next_attempt_follows_a_lost_one() -> None:
    story = played("sent a.received a.started a.restarted b.received")
    assert (story.task.state, story.task.lost, story.task.attempt) == ("RECEIVED", None, 2)
    story = played("sent a.received a.started a.restarted sent")
    assert (story.shape, story.task.lost) == ("1 LOST a | 1* PENDING -", None)


# -------------------------------------------------------------------------------------- properties

SUBJECTS = ["received", "started", "progress", "retried", "cancelled", "rejected"]
SUBJECTS += ["succeeded", "failed", "revoked"]
WORDS = st.one_of(
    st.builds(lambda retries: f"sent/{retries}", st.integers(0, 3)),
    st.builds(lambda host, retries: f"{host}.received/{retries}", st.sampled_from("abcx"), st.integers(0, 3)),
    st.builds(lambda host, subject: f"{host}.{subject}", st.sampled_from("abcx"), st.sampled_from(SUBJECTS)),
    st.sampled_from(["a.restarted", "noted", "+100", "+1000"]),
)
STORIES = st.lists(WORDS, max_size=25).map(" ".join)


@DRAWN
@given(STORIES)
def test_the_attempts_are_consistent_after_any_events(text: str) -> None:
    story = Story()
    for word in text.split():
        story.play(word)
        if story.attempts.last is not None:
            assert_sound(story)
            if "x." not in text and "noted" not in text:
                assert_held(story)


WRONG = st.dictionaries(st.sampled_from([*"abc", "client"]), st.floats(-2 * HOUR, 2 * HOUR).map(round))


@pytest.mark.slow
@DRAWN
@given(STORIES, WRONG)
def test_the_clocks_of_two_hosts_are_never_compared(text: str, wrong: dict[str, float]) -> None:
    text = text.replace("x.", "c.")  # without a hostname two hosts are taken for one
    ours, theirs = played(text), played(text, **wrong)
    assert (ours.shape, ours.found) == (theirs.shape, theirs.found)


@DRAWN
@given(STORIES)
def test_an_event_that_is_repeated_at_once_changes_no_attempt(text: str) -> None:
    once, twice = played(text), Story()
    for word in text.split():
        if word.startswith("+") or word.endswith(".restarted"):
            twice.play(word)
            continue
        if word[0] in "abc" and word[1] == "." and word[0] not in twice.processes:
            twice.receive_worker_event(word[0], "worker-heartbeat", clock=100)
        made = twice.event(word)
        twice.arrive(made)
        twice.now -= 0.01
        twice.arrive(made)
    assert twice.shape == once.shape


A_WHILE = f"+{LATE_RESENT_SECONDS + 1}"  # a `task-sent` that comes later is of the next run
ENDS = ("succeeded", "failed", "terminated", "revoked")
END_STATES = {"terminated": "REVOKED", "replaced": "STARTED"}
END_STATES |= {end: state_of(f"task-{end}") for end in (*ENDS, "retried", "rejected") if end != "terminated"}


class History:
    """What really happens to a task, and the order in which its events arrive.

    Each attempt is one process's work on one message. A process sends ``task-retried`` when it has read the
    report of its child: the next attempts may have begun, or ended, before that. All other ends it sends at
    once, and none if the task replaces itself. A client's ``task-sent`` may be a few events late; that of a
    replacement begins a run if it is not.
    """

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.words: list[str] = []
        self.expected: list[list[tuple[int, str, str]]] = []  # by run: retries, state, worker
        self._delayed: list[tuple[int, str]] = []  # how many of the next events overtake it
        self.replaced: set[str] = set()  # where a task has replaced itself
        self._has_sent = self.rng.random() < 0.7
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            self._run()
            self._arrive(A_WHILE, is_last=True)

    def _run(self) -> None:
        retries, attempts, end = 0, self.rng.randint(1, 5), "succeeded"
        for number in range(attempts):
            is_last, before = number == attempts - 1, end
            host = self.rng.choice("abc")
            ends = ENDS if is_last else ("retried", "rejected", "replaced")
            # The end of a discarded message looks like the end of what was replaced at that worker.
            end = self.rng.choice(ends[:3] if host in self.replaced else ends)
            overtaken = 0
            if self._has_sent and before != "rejected":
                overtaken = 0 if end == "revoked" else self.rng.choice((0, 0, 1, 2))
                self._delayed.append((overtaken, f"sent/{retries}"))
            if before == "succeeded" or (before == "replaced" and self._has_sent and not overtaken):
                self.expected.append([])
            has_progress = self.rng.random() < 0.3
            state = "PROGRESS" if end == "replaced" and has_progress else END_STATES[end]
            self.expected[-1].append((retries, state, host))
            if end == "revoked":
                self._arrive("", is_last=True)  # it has no retries
            else:
                self._arrive(f"{host}.received/{retries}")
                self._arrive(f"{host}.started")
                if has_progress:
                    self._arrive(f"{host}.progress")
            if end == "replaced":
                self.replaced.add(host)
                self._arrive(A_WHILE, is_last=True)
            else:
                overtaken = self.rng.choice((0, 0, 0, 1, 2, 3)) if end == "retried" else 0
                self._delayed.append((overtaken, f"{host}.{end}"))
            retries += end == "retried"

    def _arrive(self, word: str, *, is_last: bool = False) -> None:
        """Let an event arrive, after the events that are due and before those that it overtakes."""
        due = [other for after, other in self._delayed if is_last or after <= 0]
        self._delayed = [(after - 1, other) for after, other in self._delayed if not is_last and after > 0]
        self.words += [*due, word] if word else due

    @property
    def shape(self) -> str:
        """The attempts, as those of a story."""
        runs = []
        for run in self.expected:
            numbered = []
            for number, (retries, state, host) in enumerate(run, 1):
                name = f"{number}" + (f"/{retries}" if retries + 1 != number else "")
                numbered.append((name, state, host))
            runs.append(numbered)
        last = runs[-1][-1]
        runs[-1][-1] = (last[0] + "*", *last[1:])
        return " | ".join(", ".join(" ".join(attempt) for attempt in run) for run in runs)


@DRAWN
@given(st.integers(0, 10**6), st.sampled_from(CLOCKS))
def test_the_attempts_of_a_simulated_task_are_found(seed: int, wrong: dict[str, float]) -> None:
    history = History(seed)
    story = played(" ".join(history.words), **wrong)
    if sum(map(len, history.expected)) <= MAX_ATTEMPTS:
        assert story.shape == history.shape, history.words
        holders = {host for host, process in story.processes.items() if process.assigned}
        assert holders == history.replaced, "a task that replaces itself reports no end"
    last = history.expected[-1][-1]
    assert (story.task.state, story.task.worker) == (last[1], f"{last[2]}@host")
    assert story.task.attempt == len(history.expected[-1])

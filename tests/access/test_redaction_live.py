"""Redaction with a real worker: a secret of a task is in no stream, no response and no log."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from celery import Celery
from websockets.sync.client import connect

from tests.support.gateway_process import GatewayProcess
from tests.support.wire import Wire
from tests.support.worker import Worker

SECRET = "s3cr3t-4711-hunter2"
STREAMS = (
    "format=sse&since=earliest",
    "format=ndjson&since=earliest",
    "format=ndjson&since=earliest&view=record",
    "format=sse&snapshot=1",
    "format=ndjson&snapshot=1",
    "format=ndjson&snapshot=1&view=record",
)
TIMEOUT_SECONDS = 20


class Run(NamedTuple):
    """A task that has failed, and the gateways that have seen it."""

    uuid: str
    redacting: GatewayProcess
    open: GatewayProcess
    hiding: GatewayProcess


@pytest.fixture(scope="module")
def run(broker: str, celery: Celery, wire: Wire, worker: Worker, folder: Path) -> Iterator[Run]:
    gateways = [
        GatewayProcess(broker, folder),
        GatewayProcess(broker, folder, options=["--no-redact"]),
        GatewayProcess(
            broker, folder, options=["--no-redact", "--hide", "kwargs,exception", "--hide", "user"]
        ),
    ]
    try:
        for gateway in gateways:
            gateway.start()
        uid = str(uuid.uuid4())
        celery.send_task("ends.login", ("ann",), {"password": SECRET}, task_id=uid)
        wire.until_types(uid, "task-login", "task-retried", "task-failed", timeout_seconds=TIMEOUT_SECONDS)
        for gateway in gateways:  # the stream ends with the task
            url = f"{gateway.url}/events?uuid={uid}&until=ready&format=ndjson"
            httpx.get(url, timeout=TIMEOUT_SECONDS).raise_for_status()
        yield Run(uid, *gateways)
    finally:
        for gateway in gateways:
            gateway.stop()


def test_a_secret_is_in_no_answer_of_a_gateway(run: Run) -> None:
    answers = _answers(run.redacting, run.uuid)
    for source, text in answers.items():
        assert SECRET not in text, source
        assert "ann" in text, source
    assert "'password': '***'" in answers["/tasks/" + run.uuid]
    login = _event(answers, "task-login")
    assert login["password"] == "***" and login["user"] == "ann"
    assert login["request"] == {"headers": [["X-Api-Key", "***"]]}
    failed = _event(answers, "task-failed")
    assert "'password': '***'" in failed["exception"] and "'password': '***'" in failed["traceback"]
    run.redacting.stop()
    assert SECRET not in run.redacting.log.read_text()


def test_without_redaction_every_answer_has_the_secret(run: Run) -> None:
    """The test above would find it."""
    for source, text in _answers(run.open, run.uuid).items():
        assert SECRET in text, source


def test_hidden_fields_are_in_no_answer(run: Run) -> None:
    answers = _answers(run.hiding, run.uuid)
    for event in map(json.loads, filter(None, answers["/events?format=ndjson&since=earliest"].splitlines())):
        assert not {"kwargs", "exception", "user"} & event.keys(), event
    assert "login as ann failed" in _event(answers, "task-failed")["traceback"]  # it is not hidden
    task = json.loads(answers["/tasks/" + run.uuid])
    assert task["kwargs"] is None and task["exception"] is None
    assert len(task["attempts"]) == 2
    assert all(attempt["exception"] is None for attempt in task["attempts"])


def test_argsrepr_keeps_a_positional_secret_out_of_all_events(
    run: Run, celery: Celery, wire: Wire, folder: Path
) -> None:
    """The advice of docs/redaction.md."""
    uid = str(uuid.uuid4())
    celery.send_task("canvas.fail", (SECRET,), task_id=uid, argsrepr="('***',)")
    shown = str(uuid.uuid4())
    celery.send_task("canvas.fail", (SECRET,), task_id=shown)
    for each, is_shown in ((uid, False), (shown, True)):
        events = wire.until_types(each, "task-sent", "task-received", timeout_seconds=TIMEOUT_SECONDS)
        assert (SECRET in json.dumps(events)) == is_shown
        url = f"{run.hiding.url}/events?uuid={each}&since=earliest&until=ready&format=ndjson"
        assert (SECRET in httpx.get(url, timeout=TIMEOUT_SECONDS).text) == is_shown


def _event(answers: dict[str, str], type: str) -> dict[str, object]:
    lines = answers["/events?format=ndjson&since=earliest"].splitlines()
    event: dict[str, object] = next(event for event in map(json.loads, lines) if event["type"] == type)
    return event


def _answers(gateway: GatewayProcess, uid: str) -> dict[str, str]:
    """Return what the gateway answers about a task, on all its endpoints."""
    answers = {f"/events?{query}": _stream(gateway, f"/events?{query}") for query in STREAMS}
    answers["/ws"] = _websocket(gateway, "since=earliest")
    answers["/ws snapshot"] = _websocket(gateway, "snapshot=1")
    paths = ["/tasks", f"/tasks/{uid}", f"/workflows/{uid}"]
    for line in answers["/events?format=ndjson&since=earliest"].splitlines():
        event = json.loads(line)
        if event["type"] in ("task-sent", "task-received", "task-login", "task-failed"):
            paths.append(f"/events/{event['id']}")
    for path in paths:
        response = httpx.get(f"{gateway.url}{path}", timeout=TIMEOUT_SECONDS)
        assert response.status_code == 200, response.text
        answers[path] = response.text
    return answers


def _stream(gateway: GatewayProcess, path: str) -> str:
    """Return a stream up to the end of the task, or of the snapshot."""
    text = ""
    with httpx.stream("GET", gateway.url + path, timeout=TIMEOUT_SECONDS) as response:
        for chunk in response.iter_text():
            text += chunk
            if _is_complete(text):
                return text[: text.rindex("\n") + 1]
    raise AssertionError(f"the stream ended: {text}")


def _websocket(gateway: GatewayProcess, query: str) -> str:
    text = ""
    with connect(f"ws://127.0.0.1:{gateway.port}/ws?{query}") as websocket:
        while not _is_complete(text):
            text += f"{websocket.recv(TIMEOUT_SECONDS)}\n"
    return text


def _is_complete(text: str) -> bool:
    return "\n" in text.partition('"type":"task-failed"')[2] or "\n" in text.partition('"done":true')[2]

"""`celery-gateway check` at brokers and workers in each state that it distinguishes."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kombu import Connection, Exchange

from celery_gateway.check.step import FINDINGS, FIRST_WARNING_CODE
from celery_gateway.cli.check import check as command
from tests.support.celery_app import create_app
from tests.support.foreign_server import HTTP_ANSWER, server, tls_server
from tests.support.gateway_process import ROOT
from tests.support.rabbitmq import Process, RabbitMQ, free_port, wait_for
from tests.support.rabbitmq_users import add_user, set_permissions
from tests.support.worker import Worker

COMMAND = [sys.executable, "-m", "celery_gateway", "check"]
QUIET = {key: value for key, value in os.environ.items() if not key.startswith(("GATEWAY_", "CELERY_"))}
SHORT = ("--wait", "4")  # seconds; a heartbeat comes every 2


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=QUIET | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def check(url: str, *options: str) -> dict[str, Any]:
    """Run the check with `--json` in this process, and compare the document with its exit code."""
    without = {key: None for key in os.environ if key not in QUIET}
    done = CliRunner(env=without).invoke(command, ["--json", "--broker", url, *options])
    document: dict[str, Any] = json.loads(done.output)  # and nothing else
    assert done.exit_code == document["exit_code"]
    for step in document["steps"]:
        assert set(step) == {"broker", "url", "step", "status", "finding", "what", "remedy"}
        if step["status"] == "ok":
            assert (step["finding"], step["remedy"]) == (None, "")
        else:
            code, _ = FINDINGS[step["finding"]]
            assert (step["status"] == "failed") == (code < FIRST_WARNING_CODE)
            assert step["remedy"]
    if document["exit_code"]:
        assert FINDINGS[document["finding"]][0] == document["exit_code"]
    return document


def findings(document: dict[str, Any]) -> list[str]:
    return [step["finding"] for step in document["steps"] if step["finding"]]


def step(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (step for step in document["steps"] if step["step"] == name)
    return dict(found)


def exchanges(rabbitmq: RabbitMQ, url: str) -> set[str]:
    vhost = url.rpartition("/")[2]
    return set(rabbitmq.ctl("list_exchanges", "-p", vhost, "name", "--no-table-headers").split())


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> str:
    """The URL of a new vhost."""
    return rabbitmq.add_vhost(f"check-{uuid.uuid4().hex[:8]}")


@contextmanager
def cluster(rabbitmq: RabbitMQ, folder: Path, *, events: bool, options: Sequence[str] = ()) -> Iterator[str]:
    """The URL of a new vhost with one worker."""
    url = rabbitmq.add_vhost(f"check-{uuid.uuid4().hex[:8]}")
    worker = Worker(url, folder, results=folder, pool="solo", events=events, name="w1", options=options)
    try:
        worker.start()
        yield url
    finally:
        worker.kill()


@pytest.fixture(scope="module")
def with_events(rabbitmq: RabbitMQ, folder: Path) -> Iterator[str]:
    with cluster(rabbitmq, folder, events=True) as url:
        yield url


@pytest.fixture(scope="module")
def without_events(rabbitmq: RabbitMQ, folder: Path) -> Iterator[str]:
    """No ``-E``, and ``task_send_sent_event`` off."""
    options = ["--", "task.send_sent_event=no"]
    with cluster(rabbitmq, folder, events=False, options=options) as url:
        yield url


@contextmanager
def traffic(url: str, *, sent_events: bool = True) -> Iterator[None]:
    """Send tasks until the block ends; afterwards the worker is idle again."""
    stopping = threading.Event()
    with create_app(url, None) as app:
        app.conf.task_send_sent_event = sent_events

        def send() -> None:
            while not stopping.wait(0.3):
                app.send_task("canvas.progress", (1,), ignore_result=True)
                app.send_task("canvas.add", (1, 2), ignore_result=True)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
            app.control.purge()
            ask = app.control.inspect(timeout=2, limit=1)

            def is_idle() -> bool:
                held = [*(ask.reserved() or {"": [""]}).values(), *(ask.active() or {"": [""]}).values()]
                return not any(held)

            assert wait_for(is_idle, 15)


# The steps to the broker.


def test_a_url_that_cannot_be_read() -> None:
    assert check("localhost")["exit_code"] == 10
    assert check("amqp://joe:s3cr3t@[::1")["exit_code"] == 10
    document = check("pigeon://localhost")
    assert (document["exit_code"], document["finding"]) == (11, "transport")


def test_an_unknown_host_name() -> None:
    document = check("amqp://joe:s3cr3t@nowhere.invalid//")
    assert document["exit_code"] == 12
    assert step(document, "dns")["remedy"].endswith("getent hosts nowhere.invalid")
    assert "s3cr3t" not in json.dumps(document)


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_closed_port(scheme: str) -> None:
    document = check(f"{scheme}://127.0.0.1:{free_port()}//")
    assert (document["exit_code"], step(document, "tcp")["finding"]) == (13, "unreachable")


def test_a_port_of_another_server(rabbitmq: RabbitMQ) -> None:
    with server(HTTP_ANSWER) as port:
        document = check(f"amqp://127.0.0.1:{port}//")
    assert (document["exit_code"], step(document, "login")["finding"]) == (17, "not-amqp")
    document = check(f"amqps://guest:guest@127.0.0.1:{rabbitmq.port}//")
    assert (document["exit_code"], step(document, "tls")["finding"]) == (15, "tls")


def test_a_port_that_requires_tls(folder: Path) -> None:
    with tls_server(folder) as port:
        for scheme in ("amqp", "redis"):
            document = check(f"{scheme}://127.0.0.1:{port}/1")
            assert (document["exit_code"], step(document, "tls")["finding"]) == (15, "tls")
            assert f"{scheme}s" in step(document, "tls")["remedy"]
        document = check(f"amqps://127.0.0.1:{port}//")
        assert (document["exit_code"], step(document, "tls")["finding"]) == (16, "certificate")
        document = check(f"amqps://127.0.0.1:{port}//?cafile=/nowhere.pem")
        assert document["exit_code"] == 10


def test_a_refused_login(rabbitmq: RabbitMQ) -> None:
    document = check(f"amqp://guest:s3cr3t@127.0.0.1:{rabbitmq.port}//")
    assert (document["exit_code"], step(document, "login")["finding"]) == (18, "login-refused")
    assert "s3cr3t" not in json.dumps(document)


def test_vhosts_and_permissions(rabbitmq: RabbitMQ, vhost: str) -> None:
    """The remedies are pasted, one after the other, until the broker refuses nothing."""
    user = f"user-{uuid.uuid4().hex[:8]}"
    add_user(rabbitmq, user, "s3cr3t")
    missing = f"missing-{uuid.uuid4().hex[:8]}"
    url = f"amqp://{user}:s3cr3t@127.0.0.1:{rabbitmq.port}/{missing}"
    document = check(url, *SHORT)
    assert (document["exit_code"], step(document, "vhost")["finding"]) == (19, "vhost-unknown")
    rabbitmq.add_vhost(missing)
    document = check(url, *SHORT)
    assert (document["exit_code"], step(document, "vhost")["finding"]) == (20, "vhost-refused")
    set_permissions(rabbitmq, missing, user, "^$", "^$", "^$")
    document = check(url, *SHORT)
    assert (document["exit_code"], step(document, "queue")["finding"]) == (22, "permission-refused")
    command = step(document, "queue")["remedy"].rpartition(": rabbitmqctl ")[2]
    rabbitmq.ctl(*command.replace("'", "").split(" "))
    document = check(url, "--wait", "0.5")
    assert (document["exit_code"], step(document, "workers")["finding"]) == (26, "no-workers")


def test_an_exchange_with_other_properties(vhost: str) -> None:
    with Connection(vhost) as connection:
        Exchange("celeryev", type="topic", durable=False, channel=connection.channel()).declare()
    document = check(vhost, *SHORT)
    assert (document["exit_code"], step(document, "exchange")["finding"]) == (24, "exchange-differs")


def test_no_workers_and_no_change_at_the_broker(rabbitmq: RabbitMQ, vhost: str) -> None:
    before = exchanges(rabbitmq, vhost)
    document = check(vhost, "--wait", "1")
    assert (document["exit_code"], findings(document)) == (26, ["no-workers"])
    assert "no worker has sent an event" in step(document, "exchange")["what"]
    assert exchanges(rabbitmq, vhost) == before
    assert rabbitmq.ctl("list_queues", "-p", vhost.rpartition("/")[2], "--no-table-headers") == ""


# The workers.


def test_no_problem(with_events: str) -> None:
    with traffic(with_events):
        done = run("--broker", with_events)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("No problem found.\n")
    assert "FAILED" not in done.stdout and "WARN" not in done.stdout and "→" not in done.stdout


def test_idle_workers_have_an_unknown_state(with_events: str, without_events: str) -> None:
    """Whether they were started with -E cannot be determined, and the finding says that."""
    document = check(with_events, *SHORT)
    assert findings(document) == ["task-events-unknown"]
    assert document["exit_code"] == 60
    (worker,) = document["workers"]
    assert (worker["hostname"], worker["task_events"], worker["answers"]) == ("w1@localhost", "unknown", True)
    document = check(without_events, *SHORT)
    assert findings(document) == ["task-events-unknown", "sent-events-off"]


def test_workers_without_events_are_found_when_they_run_tasks(without_events: str) -> None:
    """Events that the tasks themselves send do not hide it."""
    with traffic(without_events, sent_events=False):
        document = check(without_events)
    assert document["exit_code"] == 27
    assert findings(document) == ["task-events-off", "sent-events-off"]
    assert re.match(r"w1@localhost began \d+ tasks? ", step(document, "task-events")["what"])
    assert step(document, "task-events")["remedy"].endswith("control enable_events -d w1@localhost")


def test_the_remedy_for_workers_without_events_works(without_events: str) -> None:
    with create_app(without_events, None) as app:
        app.control.enable_events(destination=["w1@localhost"])
        try:
            with traffic(without_events):
                assert check(without_events)["exit_code"] == 0
        finally:
            app.control.disable_events(destination=["w1@localhost"])


def test_a_user_without_permission_to_ask_the_workers(rabbitmq: RabbitMQ, with_events: str) -> None:
    """The gateway needs no permission to write; without replies some findings are unknown."""
    user = f"user-{uuid.uuid4().hex[:8]}"
    add_user(rabbitmq, user, "x")
    own = r"^celery-gateway\..*"
    vhost = with_events.rpartition("/")[2]
    set_permissions(rabbitmq, vhost, user, own, own, rf"({own}|^celeryev$)")
    url = with_events.replace("guest:guest", f"{user}:x")
    document = check(url, *SHORT)
    assert findings(document) == ["task-events-unknown", "sent-events-unknown"]
    assert "could not be asked" in step(document, "task-events")["what"]
    with traffic(url.replace(f"{user}:x", "guest:guest")):
        assert check(url)["exit_code"] == 0


def test_events_on_another_exchange(rabbitmq: RabbitMQ, folder: Path) -> None:
    options = ["--", "event.exchange=elsewhere"]
    with cluster(rabbitmq, folder, events=True, options=options) as url:
        document = check(url, *SHORT)
        assert (document["exit_code"], step(document, "workers")["status"]) == (25, "ok")
        assert document["steps"][-1]["remedy"].endswith("--exchange elsewhere")
        assert check(url, *SHORT, "--exchange", "elsewhere")["exit_code"] == 60


def test_workers_that_never_send_anything(rabbitmq: RabbitMQ, folder: Path) -> None:
    with cluster(rabbitmq, folder, events=False, options=["--without-heartbeat"]) as url:
        before = exchanges(rabbitmq, url)
        document = check(url, "--wait", "1")
        assert (document["exit_code"], findings(document)) == (23, ["exchange-missing"])
        assert "w1@localhost" in step(document, "workers")["what"]
        assert exchanges(rabbitmq, url) == before
        with Connection(url) as connection:  # as another worker does
            Exchange("celeryev", type="topic", durable=True, channel=connection.channel()).declare()
        with traffic(url, sent_events=False):
            document = check(url, "--wait", "20")  # it ends as soon as the result is complete
        assert (document["exit_code"], findings(document)[0]) == (27, "task-events-off")
        assert document["workers"][0]["sends_heartbeats"] is False


def test_redis(folder: Path) -> None:
    program = shutil.which("redis-server")
    assert program, "redis-server is missing: run sh tests/support/setup-system.sh as root"
    port = free_port()
    redis = Process(
        [
            *(program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder),
            *("--requirepass", "s3cr3t", "--databases", "4"),
        ],
        log=folder / "redis.log",
    )
    url = f"redis://:s3cr3t@127.0.0.1:{port}/1"
    worker = Worker(url, folder, results=folder, pool="solo", events=False, name="w1")
    try:
        redis.wait_until(lambda: "Ready to accept connections" in redis.tail(), 10)
        assert check(f"redis://:wrong@127.0.0.1:{port}/1")["exit_code"] == 18
        assert check(f"redis://:s3cr3t@127.0.0.1:{port}/7")["exit_code"] == 19
        assert check(url, "--wait", "1")["exit_code"] == 26
        worker.start()
        with traffic(url):
            document = check(url)
        assert findings(document) == ["task-events-off"]
        assert "s3cr3t" not in json.dumps(document)
    finally:
        worker.kill()
        redis.kill()


# The command.


def test_several_brokers_are_checked_one_after_the_other(with_events: str) -> None:
    nobody = f"amqp://127.0.0.1:{free_port()}//"
    done = run("--json", "--wait", "0.5", "--broker", f"eu={with_events}", "--broker", f"us={nobody}")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (13, "")  # the failure, not the warning of the first broker
    assert {step["broker"] for step in document["steps"]} == {"eu", "us"}
    assert findings(document)[0] != "unreachable" and findings(document)[-1] == "unreachable"


def test_the_broker_from_the_environment() -> None:
    url = f"amqp://127.0.0.1:{free_port()}//"
    assert run(CELERY_BROKER_URL=url).returncode == 13
    assert run(GATEWAY_BROKER=url).returncode == 13


def test_the_help_lists_each_exit_code() -> None:
    text = run("--help").stdout
    for name, (code, meaning) in FINDINGS.items():
        assert re.search(rf"^ *{code} +{name} +{re.escape(meaning)}$", text, re.MULTILINE), name
    assert len({code for code, _ in FINDINGS.values()}) == len(FINDINGS)


def test_the_page_lists_each_exit_code() -> None:
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    for name, (code, meaning) in FINDINGS.items():
        assert f"| {code} | `{name}` | {meaning} |" in page


def test_progress_on_a_terminal_and_ctrl_c(vhost: str) -> None:
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--broker", vhost, "--wait", "30"],
        env=QUIET,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        start_new_session=True,
    )
    os.close(theirs)
    seen: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(terminal, 4096):
                seen.append(chunk)
        except OSError:
            pass  # the process has closed the terminal

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert wait_for(lambda: b"waiting for a worker (" in b"".join(seen), 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
        reader.join(5)
        os.close(terminal)
        assert process.stdout is not None
        process.stdout.close()
    assert b"Traceback" not in b"".join(seen)

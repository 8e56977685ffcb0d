"""``celery-gateway log``: a log that gateways use, and one that nobody uses, in RabbitMQ and in Redis."""

import asyncio
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celery_gateway.broker.urls import brokers
from celery_gateway.cli.group import cli
from celery_gateway.errors import GatewayError
from celery_gateway.log.batch import Head, Line, encode
from celery_gateway.log.factory import engine_for
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import RabbitMQ, free_port, wait_for
from tests.support.redis_server import RedisServer, redis_server

NO_SETTINGS = {key: None for key in os.environ if key.startswith(("GATEWAY_", "CELERY_"))}
EVENTS = 30


def run(*arguments: str, answer: str | None = None) -> Result:
    done = CliRunner(env=NO_SETTINGS).invoke(cli, ["log", *arguments], input=answer)
    assert done.exception is None or isinstance(done.exception, (SystemExit, GatewayError)), done.output
    return done


def info(*arguments: str, code: int = 0) -> dict[str, Any]:
    done = run("info", "--json", *arguments)
    assert done.exit_code == code, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def queues(rabbitmq: RabbitMQ, url: str) -> list[str]:
    """The names of the queues and exchanges of a vhost that begin as those of a gateway."""
    vhost = url.rpartition("/")[2]
    text = rabbitmq.ctl("list_queues", "-p", vhost, "name", "--no-table-headers")
    text += rabbitmq.ctl("list_exchanges", "-p", vhost, "name", "--no-table-headers")
    return sorted(name for name in text.split() if name.startswith("celery-gateway"))


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> str:
    return rabbitmq.add_vhost(f"log-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def used(broker: str, folder: Path) -> Iterator[str]:
    """The URL of a broker with a log that a gateway uses, with entries."""
    gateway = GatewayProcess(broker, folder, options=["--log", "rabbitmq"])
    gateway.start()
    try:
        with closing(Publisher(broker)) as publisher:
            for _ in range(EVENTS // 3):
                publisher.send(walk())
        assert wait_for(lambda: info("--broker", broker)["entries"] >= EVENTS, 30)
        yield broker
    finally:
        gateway.stop()


def write(url: str, *, batches: int = 0, seen: int | None = None) -> None:
    """Write to a log, which is created if there is none."""

    async def append() -> None:
        engine = engine_for(url, brokers(url), prefix="celery-gateway", age_seconds=3_600, max_bytes=16 << 20)
        await engine.open()
        try:
            if seen is not None:
                engine.append(encode(Head("seen", "", "other", time.time(), first=seen)))
            if batches:
                engine.append(encode(Head("claim", "aa", "g1", time.time())))
            for number in range(batches):
                head = Head("batch", "aa", "g1", time.time() - 10 * (batches - number))
                head.first, head.written_bytes = 10 * number + 1, 1_000 * (number + 1)
                engine.append(encode(head, [Line(b"{}", 1)] * 10))
        finally:
            await engine.close()

    asyncio.run(append())


def test_a_log_that_is_used(used: str) -> None:
    write(used, seen=7)
    found = info("--broker", used, "--log", "rabbitmq")
    assert found["exists"] and found["log"]["kind"] == "rabbitmq"
    assert (found["first"], found["last"] - found["first"] + 1) == (1, found["entries"])
    assert found["log"]["name"] == "celery-gateway.log"
    assert found["bytes"] > 100 * found["entries"] / 2
    assert 0 < found["first_age_seconds"] < 120 and found["last_age_seconds"] < 5
    assert found["leader"] and found["term"]
    (other,) = [each for each in found["gateways"] if each["name"] == "other"]
    assert other["position"] == 7 and other["lag"] == found["last"] - 7
    assert [each["name"] for each in found["raw"]] == ["celery-gateway.raw"]

    text = run("info", "--broker", used).stdout
    assert f"entries  {found['entries']}: positions 1 to {found['last']}\n" in text
    assert f"leader   {found['leader']} (term {found['term']})\n" in text
    assert f"reader   other: at 7, {other['lag']} behind, " in text
    assert "guest:guest" not in text and "guest:***@" in text


def test_the_settings_of_the_gateway_are_used(used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"GATEWAY_BROKER": used, "GATEWAY_LOG": "rabbitmq"}
    done = CliRunner(env=NO_SETTINGS | settings).invoke(cli, ["log", "info"])
    assert done.exit_code == 0 and "celery-gateway.log" in done.stdout


def test_no_log_is_created_by_looking_at_it(rabbitmq: RabbitMQ, vhost: str, redis: RedisServer) -> None:
    for url in (vhost, redis.url):
        for command in (["info"], ["delete", "--yes"]):
            done = run(*command, "--broker", url)
            assert done.exit_code == 3 and "here is no log" in done.output
        assert info("--broker", url, code=3)["exists"] is False
    assert run("trim", "--broker", redis.url, "--before", "1h").exit_code == 3
    assert queues(rabbitmq, vhost) == []
    with redis.client() as client:
        assert client.keys("*") == []


def test_trimming(vhost: str, redis: RedisServer) -> None:
    url = f"{redis.url[:-1]}1"
    write(url, batches=100)
    done = run("trim", "--broker", vhost, "--log", url, "--before", "501")
    assert done.exit_code == 0 and done.stdout.startswith("Removed "), done.output
    first = info("--broker", vhost, "--log", url)["first"]
    assert 300 < first <= 501 and f"the first one is {first} now" in done.stdout
    assert "Nothing to remove" in run("trim", "--log", url, "--before", "501").stdout
    assert run("trim", "--log", url, "--before", "5m").exit_code == 0
    assert 600 < info("--log", url, "--broker", vhost)["first"] <= 701
    done = run("trim", "--log", url, "--before", "1001")
    assert done.exit_code == 1 and "ends at position 1000" in str(done.exception)
    for wrong in ("soon", "2 h", "-1", "1.5h", ""):
        done = run("trim", "--log", url, "--before", wrong)
        assert done.exit_code == 2 and "allowed are an age such as" in done.output


def test_rabbitmq_cannot_trim(used: str) -> None:
    done = run("trim", "--broker", used, "--before", "2h")
    assert done.exit_code == 1
    assert "by age and size only" in str(done.exception) and "policy" in str(done.exception)


def test_deleting(rabbitmq: RabbitMQ, vhost: str, folder: Path) -> None:
    gateway = GatewayProcess(vhost, folder, options=["--log", "rabbitmq"])
    gateway.start()
    try:
        done = run("delete", "--broker", vhost, answer="n\n")
        assert done.exit_code == 1 and "Warning: gateways use this log" in done.output
        done = run("delete", "--broker", vhost, answer="y\n")
        assert done.exit_code == 0 and "Deleted celery-gateway.log" in done.output
        # It makes both anew.
        assert wait_for(lambda: gateway.tail(100).count("consuming celeryev") == 2, 30), gateway.tail()
    finally:
        gateway.stop()
    done = run("delete", "--broker", vhost, "--yes")
    assert done.exit_code == 0 and "Warning" not in done.output
    assert "celery-gateway.log" in done.stdout and "celery-gateway.raw" in done.stdout
    assert queues(rabbitmq, vhost) == []


def test_deleting_what_is_in_redis(redis: RedisServer, vhost: str) -> None:
    url = f"{redis.url[:-1]}2"
    write(url, batches=2)
    done = run("delete", "--log", url, "--broker", vhost, "--yes")
    assert done.exit_code == 0 and "with 20 entries" in done.stdout
    with redis.client(db=2) as client:
        assert client.keys("*") == []


def test_a_server_that_is_away() -> None:
    url = f"amqp://joe:s3cr3t@127.0.0.1:{free_port()}//"
    for command in (["info"], ["trim", "--before", "1h"], ["delete", "--yes"]):
        done = run(*command, "--broker", url)
        assert done.exit_code == 1 and "nothing listens there" in str(done.exception)
        assert "s3cr3t" not in f"{done.output}{done.exception}"


def test_settings_that_do_not_fit(redis: RedisServer) -> None:
    done = run("info", "--broker", redis.url, "--log", "rabbitmq")
    assert done.exit_code == 1 and "set --log redis" in str(done.exception)
    done = run("info", "--broker", "memory://")
    assert done.exit_code == 1 and "set --log to the URL" in str(done.exception)


def test_help_has_examples_and_exit_codes() -> None:
    for command in ("info", "trim", "delete"):
        text = run(command, "--help").stdout
        assert f"celery-gateway log {command} --" in text and "3  there is no log" in text

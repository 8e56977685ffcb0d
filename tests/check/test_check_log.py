"""`celery-gateway check` and the shared log: its server, its retention, its content, and what was left."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from celery_gateway.check.step import FINDINGS
from celery_gateway.cli.check import check as command
from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import RabbitMQ, free_port
from tests.support.rabbitmq_users import add_user, set_permissions
from tests.support.redis_server import RedisServer, commands, redis_server

NO_SETTINGS = {key: None for key in os.environ if key.startswith(("GATEWAY_", "CELERY_"))}
LOG_STEPS = {"log", "retention", "leader", "memory"}


def check(url: str, *options: str) -> list[dict[str, Any]]:
    """The steps about the log; the workers are not waited for."""
    arguments = ["--json", "--wait", "0", "--broker", url, *options]
    done = CliRunner(env=NO_SETTINGS).invoke(command, arguments)
    document: dict[str, Any] = json.loads(done.output)
    for step in document["steps"]:
        if step["finding"]:
            assert step["remedy"] and step["finding"] in FINDINGS
    return [step for step in document["steps"] if step["step"] in LOG_STEPS]


def findings(steps: list[dict[str, Any]]) -> list[str]:
    return [step["finding"] for step in steps if step["finding"]]


def names(rabbitmq: RabbitMQ, url: str) -> set[str]:
    vhost = url.rpartition("/")[2]
    return {
        *rabbitmq.ctl("list_queues", "-p", vhost, "name", "--no-table-headers").split(),
        *rabbitmq.ctl("list_exchanges", "-p", vhost, "name", "--no-table-headers").split(),
    }


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> str:
    return rabbitmq.add_vhost(f"check-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def used(broker: str, folder: Path) -> Iterator[str]:
    """The URL of a broker with a log that a gateway uses."""
    gateway = GatewayProcess(broker, folder, options=["--log", "rabbitmq"])
    gateway.start()
    try:
        yield broker
    finally:
        gateway.stop()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def test_a_log_that_does_not_exist_yet(rabbitmq: RabbitMQ, vhost: str, redis: RedisServer) -> None:
    before = names(rabbitmq, vhost)
    for options in (["--log", "rabbitmq"], ["--log", redis.url]):
        steps = check(vhost, *options)
        assert findings(steps) == []
        assert "does not exist: the first gateway creates it" in steps[-1]["what"]
    assert check(vhost) == [], "without a log and with --log memory it is not named"
    assert names(rabbitmq, vhost) == before
    with redis.client() as client:
        assert client.keys("*") == []


def test_a_log_that_is_used(used: str) -> None:
    steps = check(used, "--log", "rabbitmq")
    assert findings(steps) == []
    kinds = [step["step"] for step in steps]
    assert kinds == ["log", "retention", "retention", "log", "leader"]
    assert "celery-gateway.log has" in steps[3]["what"]
    assert all("guest:***@" in step["url"] for step in steps)


def test_another_retention_than_the_settings_have(used: str) -> None:
    steps = check(used, "--log", "rabbitmq", "--log-age", "3600")
    assert findings(steps) == ["log-retention"] * 2  # of the log, and of the raw stream
    assert "'3600s' but current is '86400s'" in steps[1]["what"]
    assert "rabbitmqctl set_policy" in steps[1]["remedy"]


def test_a_log_although_the_setting_is_memory(used: str) -> None:
    (step,) = check(used)
    assert step["finding"] == "log-unused"
    assert "celery-gateway.log" in step["what"] and "celery-gateway.raw" in step["what"]
    assert "uses it" in step["what"]
    assert "celery-gateway log delete" in step["remedy"] and "--log rabbitmq" in step["remedy"]


def test_a_user_without_permissions(rabbitmq: RabbitMQ, used: str) -> None:
    """The remedy is pasted; then nothing is missing."""
    user, vhost = f"user-{uuid.uuid4().hex[:8]}", used.rpartition("/")[2]
    add_user(rabbitmq, user, "s3cr3t")
    set_permissions(rabbitmq, vhost, user, ".*[.]check[.].*", ".*[.]check[.].*", ".*")
    url = f"amqp://{user}:s3cr3t@127.0.0.1:{rabbitmq.port}/{vhost}"
    steps = check(url, "--log", "rabbitmq")
    assert findings(steps) == ["permission-refused"]
    (grant,) = commands(steps[-1]["remedy"], "rabbitmqctl")
    rabbitmq.ctl(*grant[1:])
    assert findings(check(url, "--log", "rabbitmq")) == []


def test_the_memory_of_redis(redis: RedisServer) -> None:
    with redis.client() as client:
        assert "no limit, policy noeviction" in check(redis.url, "--log", "redis")[1]["what"]
        client.config_set("maxmemory", "100mb")
        steps = check(redis.url, "--log", "redis")
        assert findings(steps) == ["log-memory"] and "1.0 GiB" in steps[1]["what"]
        assert findings(check(redis.url, "--log", "redis", "--log-bytes", "8388608")) == []
        client.config_set("maxmemory-policy", "volatile-lru")  # the log has no time to live
        assert findings(check(redis.url, "--log", "redis", "--log-bytes", "8388608")) == []
        client.config_set("maxmemory-policy", "allkeys-lru")
        steps = check(redis.url, "--log", "redis")
        assert findings(steps) == ["log-evictable"]
        (fix,) = commands(steps[1]["remedy"], "redis-cli")
        client.execute_command(*fix[5:])
        assert findings(check(redis.url, "--log", "redis", "--log-bytes", "8388608")) == []


def test_permissions_and_keys_of_redis(redis: RedisServer) -> None:
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "joe", "on", ">s3cr3t", "&*", "+@all", "-xadd", "-info")
        url = redis.url.replace("//", "//joe:s3cr3t@")
        steps = check(url, "--log", "redis")
        assert findings(steps) == ["permission-refused"]
        (grant,) = commands(steps[0]["remedy"], "redis-cli")
        client.execute_command(*grant[5:])
        steps = check(url, "--log", "redis")
        assert findings(steps) == [] and "lacks the permission for INFO" in steps[1]["what"]
        client.set("celery-gateway.log", "x")
        (step,) = check(redis.url, "--log", "redis")
        assert step["finding"] == "log-unusable" and "is not a stream" in step["what"]


def test_settings_that_do_not_fit(vhost: str, redis: RedisServer) -> None:
    (step,) = check(redis.url, "--log", "rabbitmq")
    assert step["finding"] == "log-unusable" and step["remedy"].startswith("Set --log redis")
    (step,) = check(vhost, "--log", "nonsense")
    assert step["finding"] == "log-unusable" and "memory, rabbitmq, redis" in step["remedy"]
    (step,) = check(vhost, "--log", f"amqp://joe:s3cr3t@127.0.0.1:{free_port()}//")
    assert step["finding"] == "unreachable" and "s3cr3t" not in json.dumps(step)

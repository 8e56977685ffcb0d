"""The setting `broker`: several URLs, several brokers, and hidden passwords."""

import pytest

from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.urls import Broker, brokers
from celery_gateway.errors import SourceError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("values", "urls"),
    [
        ("amqp://a//", ["amqp://a//"]),
        (["amqp://a", "amqp://b"], ["amqp://a", "amqp://b"]),
        ("amqp://a,amqp://b", ["amqp://a", "amqp://b"]),
        ("amqp://a;amqp://b", ["amqp://a", "amqp://b"]),
        ("amqp://a, amqps://b", ["amqp://a", "amqps://b"]),
        (
            "amqp://u:p@a:1,b:2/v?heartbeat=3",
            ["amqp://u:p@a:1/v?heartbeat=3", "amqp://u:p@b:2/v?heartbeat=3"],
        ),
        ("amqp://u:p,q@a/v", ["amqp://u:p,q@a/v"]),
        ("amqp://a/v,w", ["amqp://a/v,w"]),
        (["amqp://a", "amqp://a,b"], ["amqp://a", "amqp://b"]),
        ("redis://:pw@h:6379/0", ["redis://:pw@h:6379/0"]),
        ("memory://", ["memory://"]),
    ],
)
def test_several_addresses_of_one_broker(values: str | list[str], urls: list[str]) -> None:
    assert brokers(values) == (Broker(None, tuple(urls)),)


def test_each_name_is_a_broker() -> None:
    assert brokers(["eu=amqp://a?heartbeat=3", "us=redis://b/0", "eu=amqp://c,d"]) == (
        Broker("eu", ("amqp://a?heartbeat=3", "amqp://c", "amqp://d")),
        Broker("us", ("redis://b/0",)),
    )


@pytest.mark.parametrize("values", [[], ["localhost"], ["eu=localhost"], ["amqp://a", "eu=amqp://b"], [""]])
def test_invalid_values_are_refused(values: list[str]) -> None:
    with pytest.raises(SourceError):
        brokers(values)


def test_no_error_shows_a_password() -> None:
    for values in (["amqp://u:secret@a", "eu=amqp://b"], ["u:secret@a"]):
        with pytest.raises(SourceError) as refused:
            brokers(values)
        assert "secret" not in str(refused.value)
        assert "u:***@a" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:secret@h//", "amqp://u:***@h//"),
        ("redis://:secret@h/0", "redis://:***@h/0"),
        ("amqp://u:secret@a,b/v", "amqp://u:***@a,b/v"),
        ("amqp://u:se@cret@h", "amqp://u:***@h"),
        ("amqp://u@h:5672/v", "amqp://u@h:5672/v"),
        ("amqp://h:5672/v", "amqp://h:5672/v"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown

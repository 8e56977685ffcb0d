"""No password of a broker URL is shown by `check` or an error, also if the URL is malformed."""

from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.redaction import without_password, without_passwords
from celery_gateway.broker.urls import brokers
from celery_gateway.cli.check import check
from celery_gateway.errors import SourceError

pytestmark = pytest.mark.unit

PASSWORD = "Tr0ub4dor"
URLS = [
    f"amqp://u@x:{PASSWORD}@localhost:1",
    f"amqp://u:{PASSWORD}/w@localhost:1",
    f"amqp://u:w/{PASSWORD}@localhost:1",
    f"amqp://u:w#{PASSWORD}@localhost:1",
    f"amqp://u:w?{PASSWORD}@localhost:1",
    f"amqp://u:w?{PASSWORD}=1@localhost:1",
    f"amqp://u:1/{PASSWORD}@localhost:1",
    f"amqp://u:w@x/{PASSWORD}@localhost:1",
    f"amqp://u:w@x?{PASSWORD}@localhost:1",
    f"amqp://u:{PASSWORD}@localhost:port",
    f"amqp://u:{PASSWORD}",
    f"amqp://u:{PASSWORD}/v",
    f"amqp://u:w?{PASSWORD}",
    f"amqp://u: {PASSWORD} @localhost:1",
    f"amqp://u:w,{PASSWORD}@localhost:1",
    f"amqp://u:w;{PASSWORD}@localhost:1",
    f"amqp://u:[{PASSWORD}@localhost:1",
    f"amqp://u:%zz{PASSWORD}@localhost:1",
    f"u:{PASSWORD}@localhost",
    f"amqp:u:{PASSWORD}@localhost",
    f"eu=amqp://u:{PASSWORD}@localhost:1",
    f"amqp://localhost:1?heartbeet={PASSWORD}",
    f"amqp://localhost:1?password={PASSWORD}",
    f"redis://{PASSWORD}@localhost:1",
    f"redis://:{PASSWORD}@localhost:1/x",
    f"redis://localhost:1?password={PASSWORD}",
    f"redis://localhost:1/0?ssl_password={PASSWORD}&ssl_cert_reqs=x",
    f"rediss://localhost:1?sentinel_kwargs.password={PASSWORD}&socket_timeout=x",
    f"sentinel://:{PASSWORD}@localhost:1;sentinel://localhost:2/0",
    f"sqs://key:{PASSWORD}@",
    f"mongodb://u:{PASSWORD}@localhost:1/x?authSource={PASSWORD}",
]


@pytest.mark.parametrize("url", URLS)
def test_no_url_is_shown_with_its_password(url: str) -> None:
    assert PASSWORD not in without_password(url)
    if "://" in url:
        assert PASSWORD not in without_passwords(f"cannot connect to {url}: no such host")
    try:
        named = brokers([url])
    except SourceError as error:
        assert PASSWORD not in str(error)
    else:
        for each in named[0].urls:
            diagnosis = diagnose(RuntimeError(f"at {each}"), each, phase=Phase.LOST)
            assert PASSWORD not in diagnosis.what + diagnosis.remedy


@pytest.mark.parametrize("number", range(len(URLS)))
def test_check_shows_no_password(number: int) -> None:
    options = [["--json"], []][number % 2]
    result = CliRunner().invoke(check, ["--broker", URLS[number], "--wait", "0", *options])
    assert result.exit_code not in (0, 1), result.output
    assert PASSWORD not in result.output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:guest@localhost:5672//", "amqp://guest:***@localhost:5672//"),
        ("amqp://a:1,b:2/v,w?heartbeat=3&name=x", "amqp://a:1,b:2/v,w?heartbeat=3&name=x"),
        ("amqps://u:p@[::1]:5671/my%20shop", "amqps://u:***@[::1]:5671/my%20shop"),
        ("amqp://u@h:5672/v", "amqp://u@h:5672/v"),
        ("redis://u@h", "redis://***@h"),
        ("redis+socket:///run/r.sock?virtual_host=1", "redis+socket:///run/r.sock?virtual_host=1"),
        ("eu=amqp://u:p@a,amqp://b", "eu=amqp://u:***@a,amqp://b"),
        ("sentinel://:p@a:1;sentinel://b:2/0", "sentinel://:***@a:1;sentinel://b:2/0"),
        ("redis://h/0?ssl_certfile=/a&ssl_password=x", "redis://h/0?ssl_certfile=/a&ssl_password=***"),
        ("memory://", "memory://"),
        ("localhost", "localhost"),
        ("", ""),
    ],
)
def test_other_parts_are_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


anything: Any = st.text(st.sampled_from(":/?#@,;&=[]% aß1.é"), max_size=8)


@settings(deadline=None)
@given(st.sampled_from(["amqp", "amqps", "redis", "sentinel", "http", "x"]), anything, anything, anything)
@example("amqp", "@", "", "")
def test_everything_before_the_last_at_is_hidden(scheme: str, user: str, before: str, after: str) -> None:
    secret = f"{before}{PASSWORD}{after}"
    assert PASSWORD not in without_password(f"{scheme}://{user}:{secret}@host:1/v")
    assert PASSWORD not in without_password(f"{user}:{secret}@host")
    assert PASSWORD not in without_password(f"{scheme}://host/v?password={secret}")

"""Diagnoses when a library or a broker changes its texts: generic, with that text, never another cause."""

import asyncio
import re
import socket
import ssl
from typing import Any

import aiormq.exceptions
import amqp.exceptions
import pytest
import redis
from kombu.exceptions import OperationalError
from redis.sentinel import MasterNotFoundError

from celery_gateway.broker.diagnosis import CODES, Diagnosis, Phase, diagnose
from celery_gateway.broker.urls import Access

pytestmark = pytest.mark.unit

AMQP_URL = "amqp://joe:s3cr3t@broker.example:5672/limits"
REDIS_URL = "redis://:s3cr3t@broker.example:6379/0"
GENERIC = {
    Phase.CONNECT: "connect-failed",
    Phase.LOGIN: "login-failed",
    Phase.CONSUME: "consume-failed",
    Phase.LOST: "connection-lost",
}


def diagnosis(error: BaseException, phase: Phase, url: str = AMQP_URL, **options: Any) -> Diagnosis:
    found = diagnose(error, url, phase=phase, access=Access(transport_options=options))
    assert found.code in CODES
    assert found.what and found.remedy and "s3cr3t" not in str(found)
    assert not re.search(r"\{\w+\}|\{\{", found.what + found.remedy), "a template is not filled"
    return found


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """An error as it is caught, with its traceback and its cause."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    "error",
    [
        aiormq.exceptions.AMQPConnectionError("a new text"),
        aiormq.exceptions.AMQPError("a new text"),
        aiormq.exceptions.ChannelInvalidStateError("a new text"),
        aiormq.exceptions.InvalidFrameError("a new text"),
        amqp.exceptions.AMQPError("a new text"),
        amqp.exceptions.UnexpectedFrame("a new text"),
        OperationalError("a new text"),
        OSError("a new text"),
        OSError(5, "a new text"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_unknown_error_gets_the_generic_code_of_its_phase(error: BaseException, phase: Phase) -> None:
    found = diagnosis(error, phase)
    assert found.code == GENERIC[phase]
    assert "a new text" in found.what


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("error", [redis.RedisError("a new text"), redis.ConnectionError("a new text")])
def test_an_unknown_error_of_redis_gets_the_generic_code_of_its_phase(
    error: BaseException, phase: Phase
) -> None:
    found = diagnosis(error, phase, REDIS_URL)
    assert found.code == GENERIC[phase]
    assert "a new text" in found.what


@pytest.mark.parametrize("phase", Phase)
def test_an_error_of_our_own_is_unexpected(phase: Phase) -> None:
    assert diagnosis(raised(TypeError("'NoneType' is not iterable")), phase).code == "unexpected"


async def test_an_error_that_a_library_raises_is_not_unexpected() -> None:
    """aiormq raises ``Exception`` and ``RuntimeError``, too."""
    with pytest.raises(RuntimeError) as caught:
        asyncio.get_running_loop().run_forever()
    assert diagnosis(caught.value, Phase.LOST).code == "connection-lost"


def test_an_answer_of_the_broker_is_past_the_connection() -> None:
    """Whoever calls may have seen no more than that the connection was being made."""
    closed = aiormq.exceptions.ConnectionClosed(530, "NOT_ALLOWED - a new text")
    assert diagnosis(closed, Phase.CONNECT).code == "login-failed"
    reply = redis.ResponseError("ERR a new text")
    assert diagnosis(reply, Phase.CONNECT, REDIS_URL).code == "login-failed"


# Reasons of RabbitMQ. The vhost is called like a word that the tables look for.
KNOWN_REASONS = [
    ("NOT_ALLOWED - vhost limits not found", "vhost-unknown"),
    ("NOT_ALLOWED - vhost 'limits' not found", "vhost-unknown"),
    ("NOT_ALLOWED - access to vhost 'limits' refused for user 'joe'", "vhost-refused"),
    (
        "NOT_ALLOWED - access to vhost 'limits' refused for user 'joe': connection limit (1) is reached",
        "limit-reached",
    ),
    (
        "NOT_ALLOWED - connection refused for user 'joe': user connection limit (0) is reached",
        "limit-reached",
    ),
    (
        "PRECONDITION_FAILED - cannot declare queue 'celery-gateway.a': queue limit in vhost 'limits' (1) is "
        "reached",
        "limit-reached",
    ),
    ("NOT_FOUND - no exchange 'celeryev' in vhost 'limits'", "exchange-missing"),
    ("NOT_FOUND - no queue 'celery-gateway.host.1' in vhost 'limits'", "queue-deleted"),
    (
        "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'celeryev' in vhost 'limits': "
        "received 'true' but current is 'false'",
        "exchange-differs",
    ),
    ("ACCESS_REFUSED - read access to exchange 'celeryev' in vhost 'limits' refused", "permission-refused"),
    ("CONNECTION_FORCED - vhost 'limits' is deleted", "vhost-unknown"),
    ("CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'", "closed-by-broker"),
]


@pytest.mark.parametrize(("reason", "code"), KNOWN_REASONS)
def test_a_known_reason_has_its_code(reason: str, code: str) -> None:
    for phase in (Phase.LOGIN, Phase.CONSUME):
        assert diagnosis(aiormq.exceptions.ChannelClosed(0, reason), phase).code == code


UNKNOWN_REASONS = [
    "NOT_ALLOWED - a new text",
    "NOT_ALLOWED - access to vhost 'limits' refused for user 'joe': vhost 'limits' is down",
    "NOT_ALLOWED - vhost 'limits' is suspended",
    "NOT_FOUND - a new text",
    "NOT_FOUND - no exchange 'orders' in vhost 'limits'",
    "NOT_FOUND - no queue 'orders' in vhost 'limits'",
    "NOT_FOUND - exchange 'celeryev' of vhost 'limits' was not there",
    "PRECONDITION_FAILED - a new text about the exchange 'celeryev'",
    "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'celeryev' in vhost 'limits'",
    "RESOURCE_ERROR - a new text",
    "INTERNAL_ERROR - a new text",
    "NEW_NAME - a new text",
]


@pytest.mark.parametrize("phase", [Phase.LOGIN, Phase.CONSUME, Phase.LOST])
@pytest.mark.parametrize("reason", UNKNOWN_REASONS)
def test_an_unknown_reason_is_shown_and_gets_no_cause(reason: str, phase: Phase) -> None:
    for error in (
        aiormq.exceptions.ChannelClosed(0, reason),
        amqp.exceptions.AMQPError(reason),
    ):
        found = diagnosis(error, phase)
        assert found.code == ("closed-by-broker" if phase is Phase.LOST else GENERIC[phase])
        assert reason in found.what


def test_code_403_alone_is_the_login_before_the_vhost_is_open_and_a_permission_after_it() -> None:
    for error in (
        aiormq.exceptions.ProbableAuthenticationError("a new text"),
        amqp.exceptions.AccessRefused("a new text", reply_code=403),
    ):
        found = diagnosis(error, Phase.LOGIN)
        assert found.code == "login-refused" and "a new text" in found.what
    found = diagnosis(aiormq.exceptions.ChannelAccessRefused("a new text"), Phase.CONSUME)
    assert found.code == "permission-refused" and "a new text" in found.what


def test_a_frame_that_aiormq_did_not_expect_is_another_protocol_only_if_it_is_no_frame() -> None:
    unread = raised(aiormq.exceptions.InvalidFrameError("Expected Connection.OpenOk, got <…>"))
    assert diagnosis(unread, Phase.LOGIN).code == "login-failed"
    mismatch = raised(aiormq.exceptions.IncompatibleProtocolError("a new text"))
    assert diagnosis(mismatch, Phase.LOGIN).code == "not-amqp"
    assert diagnosis(mismatch, Phase.LOST).code == "connection-lost"


def test_a_cancelled_wait_is_silence_only_after_events_were_consumed() -> None:
    assert diagnosis(asyncio.CancelledError(), Phase.LOST).code == "heartbeat-missed"
    assert diagnosis(asyncio.CancelledError(), Phase.CONSUME).code == "consume-failed"


def test_a_timeout_while_events_are_consumed_is_silence() -> None:
    assert diagnosis(TimeoutError(), Phase.CONNECT).code == "timeout"
    assert diagnosis(TimeoutError("no answer for 30 s"), Phase.LOST, REDIS_URL).code == "heartbeat-missed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(-2, "a new text"), "dns"),
        (ssl.SSLCertVerificationError("a new text"), "certificate"),
        (ssl.SSLError("a new text"), "tls"),
        (ConnectionRefusedError(111, "a new text"), "unreachable"),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), "
                "[Errno 111] Connect call failed ('127.0.0.1', 1)"
            ),
            "unreachable",
        ),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 5] new"), "connect-failed"),
        (FileNotFoundError(2, "a new text", "/ca.pem"), "url"),
    ],
)
@pytest.mark.parametrize("url", [AMQP_URL, REDIS_URL])
def test_errors_of_the_network_are_recognized_by_their_type(
    error: BaseException, code: str, url: str
) -> None:
    wrapped = aiormq.exceptions.AMQPConnectionError(*error.args) if url is AMQP_URL else OperationalError("x")
    for each in (error, raised(wrapped, error)):
        assert diagnosis(each, Phase.CONNECT, url).code == code


def test_a_socket_that_does_not_exist_is_not_a_file_of_tls() -> None:
    found = diagnosis(FileNotFoundError(2, "x"), Phase.CONNECT, "redis+socket:///run/redis.sock")
    assert found.code == "unreachable" and "/run/redis.sock" in found.what


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NOPERM a new text", "permission-refused"),
        ("LOADING a new text", "no-master"),
        ("MASTERDOWN a new text", "no-master"),
        ("READONLY a new text", "no-master"),
        ("OOM a new text", "limit-reached"),
        ("MOVED 1 127.0.0.1:7000", "not-amqp"),
        ("CLUSTERDOWN a new text", "not-amqp"),
        ("NOAUTH a new text", "login-refused"),
        ("DB index is out of range", "vhost-unknown"),
        ("max number of clients reached", "limit-reached"),
        ("a new text about a READONLY replica", "login-failed"),
        ("ERR a new text", "login-failed"),
        ("NEWWORD a new text", "login-failed"),
    ],
)
def test_a_reply_of_redis_is_recognized_by_its_status_word(text: str, code: str) -> None:
    found = diagnosis(redis.ResponseError(text), Phase.LOGIN, REDIS_URL)
    assert found.code == code
    if "a new text" in text and code != "no-master":
        assert "a new text" in found.what


SENTINELS = "sentinel://a:26379;sentinel://b:26379;sentinel://c:26379/0"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("No master found for 'm'", "no-master"),
        ("a new text", "no-master"),
        ("No master found for 'm' : Redis<a> - ConnectionError('x')", "no-master"),
        (f"No master found for 'm' : {', '.join(['Redis<a> - network:ConnectionError'] * 3)}", "unreachable"),
        (f"No master found for 'm' : {', '.join(['Redis<a> - a new text'] * 3)}", "no-master"),
        ("No master found for 'm' : Redis<a> - auth:AuthenticationError", "login-refused"),
    ],
)
def test_sentinels_are_unreachable_only_if_all_of_them_are(text: str, code: str) -> None:
    found = diagnosis(MasterNotFoundError(text), Phase.LOGIN, SENTINELS, master_name="m")
    assert found.code == code and text in found.what

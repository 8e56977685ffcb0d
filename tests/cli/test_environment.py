"""Variables of the environment that are misspelled, or that Kubernetes has set."""

import socket
import subprocess

import pytest

from celery_gateway.cli.environment import variable_warnings, variables
from celery_gateway.cli.group import cli
from tests.support.command import call

pytestmark = pytest.mark.unit

KNOWN = variables(cli)
LINK = "tcp://10.96.0.12:8555"

# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
SERVICES = {
    "GATEWAY_SERVICE_HOST": "10.96.0.12",
    "GATEWAY_SERVICE_PORT": "8555",
    "GATEWAY_SERVICE_PORT_HTTP": "8555",
    "GATEWAY_PORT_8555_TCP": LINK,
    "GATEWAY_PORT_8555_TCP_PROTO": "tcp",
    "GATEWAY_PORT_8555_TCP_PORT": "8555",
    "GATEWAY_PORT_8555_TCP_ADDR": "10.96.0.12",
    "GATEWAY_PORT_53_UDP_ADDR": "10.96.0.12",
    # of Services named gateway-hosts and gateway-broker-2:
    "GATEWAY_HOSTS_SERVICE_HOST": "10.96.0.13",
    "GATEWAY_HOSTS_PORT": LINK,
    "GATEWAY_BROKER_2_PORT_5672_TCP": "tcp://10.96.0.14:5672",
    "GATEWAY_BROKER_2_SERVICE_PORT_AMQP": "5672",
}


def test_every_option_of_serve_is_known() -> None:
    assert {"GATEWAY_BROKER", "GATEWAY_PORT", "GATEWAY_HISTORY_BYTES", "GATEWAY_TOKEN"} <= KNOWN
    assert "CELERY_BROKER_URL" not in KNOWN
    assert list(variable_warnings({name: "1" for name in KNOWN}, KNOWN)) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATEWAY_PRT", "GATEWAY_PORT"),
        ("GATEWAY_HOSTS", "GATEWAY_HOST"),
        ("GATEWAY_BROKER_URL", "GATEWAY_BROKER"),
        ("GATEWAY_BROKERS", "GATEWAY_BROKER"),
        ("GATEWAY_KEEPALIVE_SECONDS", "GATEWAY_KEEPALIVE"),
        ("GATEWAY_KEEP_ALIVE", "GATEWAY_KEEPALIVE"),
        ("GATEWAY_HISTORY", "GATEWAY_HISTORY_BYTES"),
        ("GATEWAY_ROOTPATH", "GATEWAY_ROOT_PATH"),
        ("GATEWAY_ALLOW_ORIGINS", "GATEWAY_ALLOW_ORIGIN"),
        ("GATEWAY_port", "GATEWAY_PORT"),
    ],
)
def test_a_misspelled_variable_is_named_with_the_one_that_is_meant(name: str, meant: str) -> None:
    (warning,) = variable_warnings({name: "1"}, KNOWN)
    assert warning.startswith(f"unknown environment variable {name}: did you mean {meant}?")


@pytest.mark.parametrize(
    "name", ["GATEWAY_URL", "GATEWAY_API_KEY", "GATEWAY_INTERFACE", "GATEWAY_TIMEOUT", "GATE_PORT", "PORT"]
)
def test_variables_of_others_are_left_alone(name: str) -> None:
    assert list(variable_warnings({name: "1"}, KNOWN)) == []


def test_what_kubernetes_sets_is_no_typing_error() -> None:
    assert list(variable_warnings(SERVICES, KNOWN)) == []
    (warning,) = variable_warnings({"GATEWAY_PORT": LINK}, KNOWN)
    assert warning.startswith(f"GATEWAY_PORT={LINK!r} is ignored")
    assert list(variable_warnings({"GATEWAY_PORT": LINK}, KNOWN, {"GATEWAY_TOKEN"})) == []  # tail has no port


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return call("serve", "--broker", "amqp://127.0.0.1:1", *arguments, **environment)


def test_a_pod_with_a_service_named_gateway_starts_on_its_default_port() -> None:
    """An address of this machine that nothing can listen on says which port is in force."""
    done = serve("--host", "192.0.2.1", "--insecure", GATEWAY_PORT=LINK, GATEWAY_PRT="1", **SERVICES)
    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1, port 8555" in done.stderr
    assert done.stderr.count("Warning: ") == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--port", str(port), GATEWAY_PORT=LINK)
    assert f"port {port} on 127.0.0.1 is already in use" in done.stderr

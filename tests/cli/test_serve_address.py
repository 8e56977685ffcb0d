"""Which addresses the commands listen on: loopback only, without authentication."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from celery_gateway.cli.demo import demo
from celery_gateway.cli.serve import access_warnings
from celery_gateway.http.listener import UnprotectedAddress, is_loopback, listen
from celery_gateway.settings import Settings
from tests.support.access_file import AccessFile
from tests.support.command import QUIET, call
from tests.support.gateway_process import ROOT, GatewayProcess

BROKER = ("--broker", "memory://localhost")
OPEN_ADDRESSES = ("0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "0", "255.255.255.255")


def resolved(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let each name have this address."""

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_addresses_of_this_machine_only(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.unit
@pytest.mark.parametrize("host", OPEN_ADDRESSES)
@pytest.mark.parametrize("command", ["serve", "demo"])
def test_an_address_that_others_reach_is_refused_without_authentication(command: str, host: str) -> None:
    options = BROKER if command == "serve" else ()
    done = call(command, *options, "--host", host, "--port", "0")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"refused to listen on {host}" in done.stderr and "--host 127.0.0.1" in done.stderr
    assert "--insecure" in done.stderr
    assert ("--auth FILE" in done.stderr) is (command == "serve")


@pytest.mark.unit
def test_the_address_counts_and_not_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, "192.0.2.1")
    for host in ("localhost", "gateway.example", "127.0.0.1.example"):
        with pytest.raises(UnprotectedAddress, match=f"refused to listen on {host} \\(192.0.2.1\\)"):
            listen(Settings(host=host, port=0))
    resolved(monkeypatch, "127.0.0.1")
    listen(Settings(host="gateway.example", port=0)).close()


@pytest.mark.unit
def test_the_environment_and_the_file_are_checked_as_well(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('host = "0.0.0.0"\nport = 0\n')
    assert call("serve", *BROKER, "--config", str(config)).returncode == 2
    assert call("serve", *BROKER, "--port", "0", GATEWAY_HOST="0.0.0.0").returncode == 2


@pytest.mark.unit
def test_the_demo_has_the_option() -> None:
    assert "--insecure" in CliRunner().invoke(demo, ["--help"]).output


@pytest.mark.unit
@pytest.mark.parametrize(
    ("settings", "url", "warnings"),
    [
        ({}, "http://127.0.0.1:1", []),
        ({"insecure": True}, "http://127.0.0.1:1", []),
        ({"insecure": True}, "http://0.0.0.0:1", ["INSECURE: 0.0.0.0 is not a loopback address"]),
        ({"insecure": True}, "http://[::]:1/celery", ["INSECURE: :: is not a loopback address"]),
        ({"auth": "a"}, "http://127.0.0.1:1", []),
        ({"auth": "a"}, "http://0.0.0.0:1", ["tokens and events travel in clear text"]),
        ({"auth": "a", "tls_cert": "b"}, "https://0.0.0.0:1", []),
        ({"auth": "a", "trusted_proxies": ("10.0.0.0/8",)}, "http://0.0.0.0:1", []),
        (
            {"auth": "a", "insecure": True},
            "http://127.0.0.1:1",
            ["--insecure (GATEWAY_INSECURE) has no effect"],
        ),
        (
            {"auth": "a", "insecure": True},
            "http://0.0.0.0:1",
            ["--insecure (GATEWAY_INSECURE) has no effect", "tokens and events travel in clear text"],
        ),
        ({"hsts_seconds": 60}, "http://127.0.0.1:1", ["--hsts has no effect"]),
        (
            {"allow": ("revoke", "terminate")},
            "http://127.0.0.1:1",
            ["--allow revoke,terminate without --auth"],
        ),
        ({"allow": ("revoke",), "auth": "a"}, "http://127.0.0.1:1", []),
        ({"hsts_seconds": 60, "trusted_proxies": ("127.0.0.1",)}, "http://127.0.0.1:1", []),
    ],
)
def test_warnings(settings: dict[str, Any], url: str, warnings: list[str]) -> None:
    got = list(access_warnings(Settings(**settings), url, {}))
    assert len(got) == len(warnings)
    assert all(text.startswith(beginning) for text, beginning in zip(got, warnings, strict=True))


@pytest.mark.unit
def test_a_variable_of_uvicorn_is_not_read() -> None:
    for proxies in ((), ("10.0.0.1",)):
        settings = Settings(trusted_proxies=proxies)
        got = list(access_warnings(settings, "http://127.0.0.1:1", {"FORWARDED_ALLOW_IPS": "*"}))
        assert len(got) == (not proxies)


def test_the_command_of_an_app_refuses_as_well() -> None:
    command = [sys.executable, "-m", "celery", "-A", "tests.support.celery_app", "gateway"]
    done = subprocess.run(
        [*command, "--host", "0.0.0.0", "--port", "0"],
        cwd=ROOT,
        env=QUIET | {"CELERY_BROKER_URL": "memory://localhost"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "refused to listen on 0.0.0.0" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("with_auth", [True, False])
def test_it_starts_when_told_to_and_warns_once(with_auth: bool, tmp_path: Path) -> None:
    options = ["--host", "0.0.0.0"]
    options += ["--auth", str(AccessFile(tmp_path).path)] if with_auth else ["--insecure"]
    gateway = GatewayProcess("memory://localhost", tmp_path, options=options)
    gateway.start()
    assert gateway.stop() == 0
    log = gateway.tail(100)
    assert log.count("INSECURE: 0.0.0.0 is not a loopback address") == (not with_auth)
    assert log.count("tokens and events travel in clear text: 0.0.0.0 is not a loopback") == with_auth
    assert ("try: curl -N -H 'Authorization: Bearer TOKEN' http" in log) is with_auth

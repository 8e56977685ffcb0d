"""The options that are generated from the settings: flags, variables, files; and their page in the docs."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from celery_gateway.cli import check, demo, serve
from celery_gateway.cli.app import gateway as celery_gateway
from celery_gateway.cli.configuration_page import page
from celery_gateway.cli.options import CONSUMING, KEEPING, LISTENING
from celery_gateway.settings import DEFAULTS, OPTIONS, Settings
from tests.support.gateway_process import ROOT

pytestmark = pytest.mark.unit

PAGE = ROOT / "docs" / "configuration.md"
GIVEN: dict[str, tuple[str, Any]] = {
    "broker": ("amqp://elsewhere", ("amqp://elsewhere",)),
    "exchange": ("events", "events"),
    "log": ("rabbitmq", "rabbitmq"),
    "log_age_seconds": ("3600", 3600.0),
    "log_bytes": ("2000000", 2_000_000),
    "workers": ("4", 4),
    "transport_options": ("global_keyprefix=shop.", {"global_keyprefix": "shop."}),
    "control": ("true", True),
    "queues": ("mail", ("mail",)),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "root_path": ("/celery/", "/celery"),
    "public_url": ("https://a.example/celery", "https://a.example/celery"),
    "allow_hosts": ("A.example", ("a.example",)),
    "allow_origins": ("https://a.example", ("https://a.example",)),
    "verbose_health": ("true", True),
    "auth": ("access.toml", "access.toml"),
    "insecure": ("true", True),
    "allow": ("revoke", ("revoke",)),
    "trusted_proxies": ("10.0.0.0/8", ("10.0.0.0/8",)),
    "hide": ("args", ("args",)),
    "redact": ("true", True),
    "redact_keys": ("iban", ("iban",)),
    "max_connection_age_seconds": ("3600", 3600.0),
    "tls_cert": ("cert.pem", "cert.pem"),
    "tls_key": ("key.pem", "key.pem"),
    "hsts_seconds": ("31536000", 31_536_000),
    "keepalive_seconds": ("0.5", 0.5),
    "slow_seconds": ("5", 5.0),
    "history_bytes": ("1000", 1000),
    "max_event_bytes": ("0", 0),
    "client_memory_bytes": ("20000000", 20_000_000),
    "max_tasks": ("10", 10),
    "worker_timeout_seconds": ("60", 60.0),
    "lost_grace_seconds": ("0", 0.0),
    "wait_known_seconds": ("0.25", 0.25),
}
"""A value of each setting as a text, and as it is in the settings."""
TOO_LOW = {
    "keepalive_seconds": "0",
    "slow_seconds": "0",
    "port": "-1",
    "workers": "0",
    "history_bytes": "0",
    "max_event_bytes": "1999",
    "client_memory_bytes": "16777215",
    "max_tasks": "0",
    "worker_timeout_seconds": "0.9",
    "lost_grace_seconds": "-1",
    "wait_known_seconds": "-0.1",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("GATEWAY_", "CELERY_")):
            monkeypatch.delenv(name)


def values(*arguments: str, command: click.Command = serve.serve) -> dict[str, Any]:
    """What a command gets for its options."""
    return command.make_context("serve", list(arguments)).params


def by_flag(name: str, text: str) -> list[str]:
    flag = f"--{OPTIONS[name].flag}"
    return [flag] if text == "true" else [flag, text]


def test_the_defaults_of_serve_are_those_of_the_settings() -> None:
    got = Settings(**values())
    assert list(got.broker) == [DEFAULTS.broker]
    for name in OPTIONS.keys() - {"broker"}:
        assert getattr(got, name) == getattr(DEFAULTS, name), name


@pytest.mark.parametrize("name", OPTIONS)
def test_each_setting_has_a_flag_a_variable_and_a_key(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = GIVEN[name]
    assert values(*by_flag(name, text))[name] == value
    for variable in OPTIONS[name].variables:
        with monkeypatch.context() as environment:
            environment.setenv(variable, text)
            assert values()[name] == value
    config = tmp_path / "gateway.toml"
    for key in {OPTIONS[name].flag, OPTIONS[name].flag.replace("-", "_"), name}:
        config.write_text(f"{key} = {text if isinstance(value, bool | int | float) else repr(text)}\n")
        assert values("--config", str(config))[name] == value


def test_flags_have_precedence_over_variables_and_those_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        'port = 1\nallow-host = ["a", "b"]\n[transport_options]\nsentinel_kwargs.password = "x"\n'
    )
    file = ("--config", str(config))
    assert values(*file)["port"] == 1
    assert values(*file)["allow_hosts"] == ("a", "b")
    assert values(*file)["transport_options"] == {"sentinel_kwargs": {"password": "x"}}
    monkeypatch.setenv("GATEWAY_PORT", "2")
    monkeypatch.setenv("GATEWAY_ALLOW_HOST", "c d")
    monkeypatch.setenv("GATEWAY_CONFIG", str(config))
    assert values()["port"] == 2
    assert values()["allow_hosts"] == ("c", "d")
    assert values("--port", "3")["port"] == 3
    assert values("--allow-host", "e")["allow_hosts"] == ("e",)


def test_the_broker_has_a_variable_of_celery_which_the_command_of_an_app_leaves_to_celery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://of.celery")
    assert values()["broker"] == ("amqp://of.celery",)
    (option,) = [each for each in celery_gateway.params if each.name == "broker"]
    assert option.envvar == "GATEWAY_BROKER"
    monkeypatch.setenv("GATEWAY_BROKER", "amqp://ours")
    assert values()["broker"] == ("amqp://ours",)


@pytest.mark.parametrize("name", TOO_LOW)
def test_a_number_that_is_too_low_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = f"--{OPTIONS[name].flag}"
    with pytest.raises(click.BadParameter, match=re.escape(TOO_LOW[name])) as by_flag:
        values(flag, TOO_LOW[name])
    monkeypatch.setenv(OPTIONS[name].variables[0], TOO_LOW[name])
    with pytest.raises(click.BadParameter) as by_variable:
        values()
    for error in (by_flag.value, by_variable.value):
        assert flag in error.format_message()


def test_the_commands_have_the_options_that_they_use() -> None:
    def names(command: click.Command) -> set[str | None]:
        return {option.name for option in command.params}

    assert names(serve.serve) == {"config", *OPTIONS} == names(celery_gateway) - {"help"}
    assert names(check.check) == {*CONSUMING, *KEEPING, "wait_seconds", "as_json"}
    assert names(demo.demo) == set(LISTENING)


def test_the_help_has_every_setting() -> None:
    text = CliRunner().invoke(serve.serve, ["--help"]).output.partition("Options:")[2]
    flags = re.findall(r"(?m)^  --([a-z-]+)", text)
    assert [flag for flag in flags if flag != "help"] == [
        "config",
        *(option.flag for option in OPTIONS.values()),
    ]
    assert "`" not in text


def test_the_page_of_the_docs_is_that_of_the_settings() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m celery_gateway.cli.configuration_page > docs/configuration.md"
    )


def test_the_file_of_the_page_is_accepted(tmp_path: Path) -> None:
    (text,) = re.findall(r"(?s)```toml\n(.*?)```", page())
    config = tmp_path / "gateway.toml"
    config.write_text(text)
    got = values("--config", str(config))
    written = tomllib.loads(text)
    assert (got["port"], got["keepalive_seconds"]) == (written["port"], written["keepalive"])
    assert got["transport_options"] == written["transport_options"]
    assert got["allow_origins"] == tuple(written["allow-origin"])

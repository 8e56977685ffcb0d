"""``celery-gateway serve``."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import click

from celery_gateway import __version__
from celery_gateway.cli.log_lines import configure_log
from celery_gateway.cli.options import with_all_options
from celery_gateway.http.interrupt import EXIT_CODE, exit_on_ctrl_c
from celery_gateway.settings import Settings

_EPILOG = """\b
Exit codes:
   0  stopped by SIGTERM
   1  it could not start: the address, a file or the URL of the broker cannot be used
   2  wrong options, or an address that others can reach without --auth
 130  stopped by Ctrl-C
"""


@click.command(epilog=_EPILOG)
@with_all_options()
def serve(**options: Any) -> None:
    """Consume the broker's events and serve them over HTTP.

    Each option is also an environment variable, such as GATEWAY_PORT for --port, and a key of the TOML
    file of --config. The command line has precedence over the environment, and the environment over the file.

    Ctrl-C and SIGTERM close the streams in order, which takes at most 4 seconds. A second signal stops the
    gateway at once.

    \b
    Examples:
      celery-gateway serve --broker amqp://guest:guest@localhost:5672//
      celery-gateway serve --broker redis://localhost:6379/0 --port 9000
      celery-gateway serve --host 0.0.0.0 --auth auth.toml --tls-cert tls.pem
      celery-gateway serve --workers 4 --log rabbitmq
    """
    run(Settings(**options))


def run(settings: Settings, warnings: Sequence[str] = ()) -> None:
    """Run a gateway until it is stopped.

    Args:
        settings: of the gateway.
        warnings: logged before the gateway starts.

    Raises:
        click.UsageError: other machines could reach the gateway without authentication, or a setting is
            missing.
        GatewayError: the address cannot be listened on, a file or the URL of the broker cannot be used.
        SystemExit: the gateway was stopped by Ctrl-C, or none of its processes could start.
    """
    exit_on_ctrl_c()
    if settings.tls_key and not settings.tls_cert:
        raise click.UsageError("--tls-key needs --tls-cert: it is the key of that certificate")
    if settings.workers > 1 and settings.log == "memory":
        raise click.UsageError(
            f"--workers {settings.workers} needs a shared log, so that each process serves the same stream: "
            "set --log rabbitmq or --log redis, or leave --workers out"
        )
    log = configure_log()
    for warning in warnings:
        log.warning(warning)

    def announce(url: str) -> None:
        log.info(
            "celery-gateway %s: listening on %s%s; %s; try: curl -N %s%s/events",
            __version__,
            url,
            f", {settings.workers} processes" if settings.workers > 1 else "",
            _described(settings),
            "-H 'Authorization: Bearer TOKEN' " if settings.auth else "",
            url,
        )
        for warning in access_warnings(settings, url, os.environ):
            log.warning(warning)

    # Imported here, since they load the whole server, which --help and tail do not need.
    from celery_gateway.http.listener import UnprotectedAddress

    try:
        if settings.workers > 1:
            from celery_gateway.cli.workers import supervise

            is_interrupted = supervise(settings, announce)
        else:
            from celery_gateway.asgi import Gateway
            from celery_gateway.http.server import serve as run_server

            is_interrupted = run_server(Gateway(settings), settings, announce)
    except UnprotectedAddress as error:
        raise click.UsageError(str(error)) from None  # with the exit code of wrong options
    if is_interrupted:
        sys.exit(EXIT_CODE)


def access_warnings(settings: Settings, url: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield warnings about who can read the events of a gateway that has started.

    Args:
        url: the address that it listens on.
        environment: variables and their values.

    >>> list(access_warnings(Settings(), "http://127.0.0.1:8555", {}))
    []
    """
    from celery_gateway.http.listener import is_loopback

    host = urlsplit(url).hostname or ""
    if settings.auth and settings.insecure:
        yield "--insecure (GATEWAY_INSECURE) has no effect with --auth: each request needs a token"
    if not is_loopback(host):
        if not settings.auth:
            yield (
                f"INSECURE: {host} is not a loopback address, and there is no authentication: everyone who "
                "can connect to the port can read all events. Set --auth FILE (docs/security.md), or "
                "--host 127.0.0.1"
            )
        elif not (settings.tls_cert or settings.trusted_proxies):
            yield (
                f"tokens and events travel in clear text: {host} is not a loopback address, and there is no "
                "TLS. Set --tls-cert, or put a proxy with TLS in front and name it with --trusted-proxies"
            )
    if settings.allow and not settings.auth:
        yield (
            f"--allow {','.join(settings.allow)} without --auth: everyone who can connect to {url} can do "
            "that with all tasks (docs/actions.md)"
        )
    if settings.hsts_seconds and not (settings.tls_cert or settings.trusted_proxies):
        yield "--hsts has no effect: it needs --tls-cert, or a proxy with TLS that --trusted-proxies names"
    if "FORWARDED_ALLOW_IPS" in environment and not settings.trusted_proxies:
        yield "the environment variable FORWARDED_ALLOW_IPS has no effect: use --trusted-proxies"


def _described(settings: Settings) -> str:
    """Return the brokers of the settings as text, with their vhosts and without passwords."""
    from celery_gateway.broker.address import address_of
    from celery_gateway.broker.urls import Access, brokers

    texts = []
    for broker in brokers(settings.broker, Access(transport_options=settings.transport_options)):
        for url in broker.urls:
            address = address_of(url)
            if address.is_amqp or address.is_redis:
                kind = "vhost" if address.is_amqp else "database"
                text = f"{address.host_and_port}, {kind} {address.vhost!r}"
            else:
                text = f"{address.scheme}://{address.host_and_port}"
            texts.append(f"{broker.name}: {text}" if broker.name else text)
    return f"broker {' or '.join(texts)}" if len(texts) < 2 else f"brokers {'; '.join(texts)}"

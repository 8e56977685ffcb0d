"""``celery-gateway replay``: serve a recording, or publish it to a broker."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from celery_gateway.cli.options import LISTENING, with_options
from celery_gateway.errors import GatewayError
from celery_gateway.http.interrupt import EXIT_CODE, raise_on_ctrl_c
from celery_gateway.recording.own_fields import for_broker
from celery_gateway.recording.playback import Playback, parse_speed
from celery_gateway.settings import Settings

_BROKER: Final = ("exchange", "transport_options")
_EPILOG = """\b
Exit codes:
   0  published; or stopped by SIGTERM
   1  an error: the file is not a recording, the address or the broker cannot be used
   2  wrong options, or an address that others can reach
 130  stopped by Ctrl-C
"""


class _Speed(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions
    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_speed(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


@click.command(epilog=_EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--speed",
    type=_Speed(),
    default="1",
    show_default=True,
    metavar="NUMBER|max",
    help="How many times faster than it was recorded; max: without pauses.",
)
@click.option(
    "--keep-times",
    "keeps_times",
    is_flag=True,
    help="Keep the times of the recording; do not move them to now.",
)
@click.option("--loop", "is_looped", is_flag=True, help="Begin again at the end, with new ids of tasks.")
@click.option(
    "--to",
    metavar="URL",
    help="Publish the events to this broker (amqp://…, redis://…) as Celery would; start no gateway.",
)
@with_options(_BROKER)
@with_options(LISTENING)
def replay(
    file: Path,
    speed: float,
    keeps_times: bool,
    is_looped: bool,
    to: str | None,
    exchange: str,
    transport_options: Mapping[str, Any],
    **listening: Any,
) -> None:
    """Serve a recording of celery-gateway record: a gateway without a broker, with its dashboard.

    The events come at their original pace, and their times are moved to now. With --to they are published to
    a broker instead, for other gateways and monitors; --exchange and --transport-option are for --to.

    \b
    Examples:
      celery-gateway replay out.ndjson.zst
      celery-gateway replay out.ndjson.zst --speed 10 --port 9000
      celery-gateway replay out.ndjson.zst --speed max --keep-times
      celery-gateway replay out.ndjson.zst --to amqp://guest:guest@localhost:5672//
    """
    if to is not None:
        playback = Playback(file, speed=speed, keeps_times=keeps_times, is_looped=is_looped)
        _publish(playback, to, exchange, transport_options)
    else:
        playback = Playback(file)  # checks the file
        _serve(file, playback.header.clusters, speed, keeps_times, is_looped, listening)


def _serve(
    file: Path,
    clusters: tuple[str, ...],
    speed: float,
    keeps_times: bool,
    is_looped: bool,
    listening: Mapping[str, Any],
) -> None:
    """Run a gateway whose sources are the recording, one for each broker of the recording."""
    from celery_gateway.asgi import Gateway
    from celery_gateway.broker.recording_source import recording_url
    from celery_gateway.http.listener import UnprotectedAddress
    from celery_gateway.http.server import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    source = recording_url(file, speed=speed, keeps_times=keeps_times, is_looped=is_looped)
    broker = [f"{cluster}={source}" for cluster in clusters] or [source]
    settings = Settings(broker=broker, verbose_health=True, **listening)

    def announce(url: str) -> None:
        pace = "without pauses" if math.isinf(speed) else f"at {speed:g} × its pace"
        click.echo(
            f"Replaying {file.name} {pace}. Stop it with Ctrl-C.\n\n"
            f"  Open    {url}/\n\n"
            f"  Paste   curl -N '{url}/events?format=ndjson&since=earliest'\n"
        )
        if settings.insecure:
            click.echo("Warning: --insecure: everyone who can connect to the port can read it", err=True)

    try:
        is_interrupted = serve(Gateway(settings), settings, announce)
    except UnprotectedAddress:
        raise click.UsageError(
            f"refused to listen on {settings.host}: other machines can reach this address, and a replay has "
            "no authentication. Use --host 127.0.0.1, or --insecure to listen all the same. With "
            "authentication: celery-gateway serve --auth FILE "
            + " ".join(f"--broker '{each}'" for each in broker)
        ) from None
    if is_interrupted:
        sys.exit(EXIT_CODE)


def _publish(playback: Playback, to: str, exchange: str, transport_options: Mapping[str, Any]) -> None:
    """Publish a recording to a broker, at its pace.

    Raises:
        GatewayError: the URL is not that of one broker, or the broker cannot be reached.
    """
    from celery_gateway.broker.event_publisher import EventPublisher
    from celery_gateway.broker.recording_source import summary
    from celery_gateway.broker.urls import Access, brokers

    (broker, *others) = brokers(to, Access(transport_options=transport_options))
    if others or broker.name is not None or len(broker.urls) > 1:
        raise GatewayError("--to takes the URL of one broker")
    raise_on_ctrl_c()
    published = 0
    try:
        with EventPublisher(broker, exchange, _report_outage) as publisher:
            click.echo("Publishing. Stop it with Ctrl-C.", err=True)
            start = time.monotonic()
            for step in playback.steps(time.time()):
                if (pause := start + step.due - time.monotonic()) > 0:
                    time.sleep(pause)
                if step.event is not None:
                    publisher.publish(for_broker(step.event))
                    published += 1
    except KeyboardInterrupt:
        click.echo(f"interrupted: published {published:,} events", err=True)
        sys.exit(EXIT_CODE)
    click.echo(f"published {summary(playback)}", err=True)


def _report_outage(reason: str) -> None:
    click.echo(f"{reason}; publishing is tried again", err=True)

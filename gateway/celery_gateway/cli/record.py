"""``celery-gateway record``: write the events of a stream to a file."""

from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import httpx

from celery_gateway.cli.options import Number, WholeNumber
from celery_gateway.cli.proxy import parse
from celery_gateway.cli.recorder import Recorder
from celery_gateway.cli.stream_options import DEFAULT_URL, filter_options, token_options, token_reader
from celery_gateway.cli.stream_reader import StreamReader
from celery_gateway.errors import RecordingError
from celery_gateway.recording.compression import encoder_for, has_zstd

_STDOUT: Final = "-"
_EPILOG = """\b
Exit codes:
   0  recorded: the limit of --for or --events is reached, or it was stopped by Ctrl-C or SIGTERM
   1  an error: no gateway, a refused request, or the file cannot be written
   2  wrong options, or the gateway refused a parameter
"""


@click.command(epilog=_EPILOG)
@click.argument("out", metavar="[OUT]", required=False)
@click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    metavar="URL",
    help="URL of the gateway: http://HOST:PORT, https://HOST/PATH or HOST:PORT.",
)
@filter_options
@click.option(
    "--since", metavar="WHEN", help="Start in the past: 10m for ten minutes ago, a time, or earliest."
)
@click.option(
    "--for",
    "seconds",
    type=Number(0, min_open=True),
    metavar="SECONDS",
    help="Stop after this time.",
)
@click.option(
    "--events", "max_events", type=WholeNumber(1), metavar="NUMBER", help="Stop after this many events."
)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@token_options
def record(
    out: str | None,
    url: str,
    since: str | None,
    seconds: float | None,
    max_events: int | None,
    force: bool,
    token: str | None,
    token_file: Path | None,
    **filters: tuple[str, ...],
) -> None:
    """Write the events of a running gateway to a file, for celery-gateway replay.

    OUT is compressed with zstd if its name ends in .zst, and with gzip if it ends in .gz. - is standard
    output. Without OUT the name is made from the time.

    A recording has what the token may see: the arguments and results of tasks, unless the token hides them.
    It has no token and no address of the gateway. Filters are those of tail. If the connection breaks, record
    reconnects and resumes. Ctrl-C ends the recording; a file that was cut off can be replayed, too.

    \b
    Examples:
      celery-gateway record
      celery-gateway record out.ndjson.zst --for 60
      celery-gateway record failures.ndjson.gz --type task-failed --since earliest --events 100
      celery-gateway record - --url https://gateway.example --token-file token | jq .name
    """
    address = parse(url)
    path = _path(out, force)
    query: dict[str, Any] = {name: values for name, values in filters.items() if values}
    parameters = httpx.QueryParams({**query, **({"since": since} if since else {}), "format": "ndjson"})
    read_token = token_reader(token, token_file)
    with Recorder(path, query, since, seconds, overwrites=force) as recorder:
        recorder.record(StreamReader(address, parameters, read_token, recorder), max_events)
    gaps = f", {recorder.gaps:,} gap{'s' * (recorder.gaps > 1)}" if recorder.gaps else ""
    counts = f"recorded {recorder.events:,} events{gaps} ({recorder.bytes_written:,} bytes)"
    where = "standard output" if path is None else path
    click.echo(
        f"{recorder.end}: {f'{counts} in {where}' if recorder.bytes_written else 'nothing was recorded'}",
        err=True,
    )


def _path(out: str | None, force: bool) -> Path | None:
    """Return the file to write; ``None`` for standard output.

    Raises:
        UsageError: it exists, and must not be overwritten.
        RecordingError: its folder is missing, or its compression is not installed.
    """
    if out == _STDOUT:
        return None
    if out is None:
        ending = "zst" if has_zstd() else "gz"
        out = f"recording-{datetime.now():%Y%m%d-%H%M%S}.ndjson.{ending}"
    path = Path(out)
    encoder_for(path.name)
    if path.is_dir() or not path.parent.is_dir():
        raise RecordingError(f"cannot write {path}: it is a folder, or is in a folder that does not exist")
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists: use another name, or --force to overwrite it")
    return path

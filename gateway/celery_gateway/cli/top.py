"""``celery-gateway top``: tasks by name, workers and queues of a gateway, on a terminal."""

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from celery_gateway.cli.proxy import parse
from celery_gateway.cli.stream_options import DEFAULT_URL, token_options, token_reader
from celery_gateway.cli.top_feed import Feed
from celery_gateway.cli.top_overview import SORTS, Overview, Sort
from celery_gateway.errors import GatewayError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from celery_gateway.cli.top_screen import Screen

FIRST_SECONDS: Final = 20.0
"""How long ``--once`` waits for the first values."""
_DRAW_SECONDS: Final = 0.25
"""The shortest time between two pages that no key has asked for."""
_TICK_SECONDS: Final = 1.0
"""Ages change without any message."""
_MISSING: Final = (
    "celery-gateway top needs the package rich, which is not installed. Install it with the extra top: "
    "pip install 'celery-gateway[top]', or pip install rich"
)


@click.command()
@click.argument("url", default=DEFAULT_URL)
@click.option(
    "--window",
    default="1h",
    show_default=True,
    metavar="AGE",
    help="Count the events of this time, from 1m to 24h.",
)
@click.option(
    "--sort", type=click.Choice(SORTS), default=SORTS[0], show_default=True, help="The order of the tasks."
)
@click.option("--once", is_flag=True, help="Print the values once, and exit.")
@token_options
def top(url: str, window: str, sort: Sort, once: bool, token: str | None, token_file: Path | None) -> None:
    """Show tasks by name, workers and queues, live.

    URL is that of the gateway: http://HOST:PORT, https://HOST/PATH or HOST:PORT. Keys: q quits, s changes the
    order, p pauses. If standard output is no terminal, top prints the values once and exits. It needs the
    extra top: pip install 'celery-gateway[top]'.

    \b
    Examples:
      celery-gateway top
      celery-gateway top https://gateway.example/celery --token-file token --window 10m
      celery-gateway top --once --sort failed | head -20
    """
    if find_spec("rich") is None:
        raise GatewayError(_MISSING)
    address = parse(url)
    read_token = token_reader(token, token_file)
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if once or not is_terminal:
        feed = Feed(address, read_token, window, lambda: None)
        try:
            _print_once(feed, sort, window)
        except BrokenPipeError:
            # What is left must not be flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    from celery_gateway.cli.top_screen import Screen

    screen = Screen()
    feed = Feed(address, read_token, window, screen.wake)
    with screen:
        _run(feed, screen, sort, window)


def _print_once(feed: Feed, sort: Sort, window: str) -> None:
    """Print a page as soon as all its parts are known.

    Raises:
        GatewayError: the gateway does not send them in time.
    """
    from rich.console import Console

    from celery_gateway.cli.top_view import MIN_WIDTH, Page, render

    overview = Overview()
    feed.start()
    deadline = time.monotonic() + FIRST_SECONDS
    while not (feed.has_polled.is_set() and (overview.has_statistics or "statistics" in overview.refused)):
        feed.apply(overview, time.time())
        if time.monotonic() > deadline:
            reason = overview.health(time.time()).text
            raise GatewayError(f"the gateway has sent no statistics within {FIRST_SECONDS:g} s ({reason})")
        time.sleep(0.02)
    feed.apply(overview, time.time())
    console = Console()
    is_ascii = not console.encoding.lower().startswith("utf")
    page = Page(max(console.width, MIN_WIDTH), None, sort, window, is_ascii)
    console.print(render(overview, page, time.time()), width=page.width)
    sys.stdout.flush()


def _run(feed: Feed, screen: "Screen", sort: Sort, window: str) -> None:
    """Draw pages until the user quits."""
    from rich.console import Group
    from rich.text import Text

    from celery_gateway.cli.top_view import Page, render

    overview = Overview()
    content: RenderableType = ""
    is_paused = False
    feed.start()
    drawn_at = 0.0
    while True:
        keys = screen.keys(_TICK_SECONDS)
        if "q" in keys:
            return
        wait = drawn_at + _DRAW_SECONDS - time.monotonic()
        if not keys and wait > 0:
            time.sleep(wait)
        feed.apply(overview, time.time())
        sort = SORTS[(SORTS.index(sort) + keys.count("s")) % len(SORTS)]
        is_paused ^= bool(keys.count("p") % 2)
        if not is_paused:
            page = Page(screen.width, screen.height, sort, window, screen.is_ascii)
            content = render(overview, page, time.time())
        state = "PAUSED, p resumes" if is_paused else "p pauses"
        last_line = Text(f"q quits  s sort: {sort}  {state}", "dim", no_wrap=True, overflow="ellipsis")
        screen.draw(Group(content, last_line))
        drawn_at = time.monotonic()

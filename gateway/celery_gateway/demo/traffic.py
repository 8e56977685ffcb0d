"""The traffic of the demo: orders, uploads, reports and failures.

- A script is an endless generator: it sends tasks and yields the seconds until it continues.
- All scripts together show every type of task event within about 25 s of the start, and repeatedly after that
  (tests/demo/test_demo_cluster.py).
- The rate is readable: 3 to 6 events a second on average, in small bursts.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from itertools import count, cycle
from threading import Event
from time import monotonic

from celery import chord, group

from celery_gateway.demo.tasks import Shop

Script = Iterator[float]

CUSTOMERS = tuple(f"{name}@example.org" for name in ("ada", "alan", "barbara", "edsger", "grace"))
ARTICLES = ("MUG-01", "TEA-17", "BOOK-42", "LAMP-08", "SOCK-23")
REGIONS = ("north", "south", "west")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def orders(shop: Shop) -> Script:
    """A workflow: a task starts a chain with a chord in it. Some payments fail once, others finally."""
    for order in count(10_484):
        basket = {sku: random.randint(1, 3) for sku in random.sample(ARTICLES, random.randint(2, 3))}
        amount = round(sum(basket.values()) * random.uniform(8, 40), 2)
        order_of = {"customer": random.choice(CUSTOMERS), "basket": basket, "amount": amount}
        shop.tasks["shop.checkout"].apply_async((order,), order_of)
        yield 12


def uploads(shop: Shop) -> Script:
    """A task that reports its progress."""
    for number in count(731):
        shop.tasks["media.transcode"].apply_async((f"IMG_{number:04d}.mov",), {"profile": "1080p"})
        yield 12


def reports(shop: Shop) -> Script:
    """A chord started by a client."""
    for day in cycle(DAYS):
        figures = [shop.tasks["reports.collect_sales"].s(region, day=day) for region in REGIONS]
        chord(figures, app=shop)(shop.tasks["reports.daily"].s(day=day))
        yield 29


def newsletters(shop: Shop) -> Script:
    """A group started by a client."""
    for number in count(31):
        letter = shop.tasks["mail.send_newsletter"]
        group(letter.s(segment, issue=f"no. {number}") for segment in ("new", "loyal", "lost")).apply_async()
        yield 41


def carts(shop: Shop) -> Script:
    """A scheduled task that is revoked before it is due: the customer has come back."""
    for customer in cycle(CUSTOMERS):
        reminder = shop.tasks["mail.remind_cart"].apply_async((customer,), {"articles": 2}, countdown=4)
        yield 2
        shop.control.revoke(reminder.id)
        yield 18


def sales(shop: Shop) -> Script:
    """A task that expires before it is due."""
    for sku in cycle(ARTICLES):
        shop.tasks["shop.flash_sale"].apply_async((sku,), {"percent": 20}, countdown=4, expires=2)
        yield 27


def reindexing(shop: Shop) -> Script:
    """Retries with growing pauses that end in a failure, under another name (``shadow``)."""
    for shard in cycle((1, 2, 3)):
        nightly = {"shard": shard}
        shop.tasks["search.reindex"].apply_async(("products",), nightly, shadow="search.reindex.products")
        yield 33


def feeds(shop: Shop) -> Script:
    """A plain failure with a traceback of two exceptions."""
    for number in count(2201):
        feed = f"stock-{number}.csv"
        shop.tasks["shop.import_stock"].apply_async(kwargs={"supplier": "Nordwind GmbH", "feed": feed})
        yield 23


def webhooks(shop: Shop) -> Script:
    """A task that rejects its message."""
    while True:
        delivery = f"evt_{random.getrandbits(32):08x}"
        shop.tasks["shop.receive_webhook"].apply_async(kwargs={"source": "acme-pay", "delivery": delivery})
        yield 31


# the scripts, each with its start in seconds
SCRIPTS: tuple[tuple[float, Callable[[Shop], Script]], ...] = (
    (0.0, orders),
    (1.0, uploads),
    (4.0, feeds),
    (5.0, carts),
    (6.5, webhooks),
    (8.0, reindexing),
    (9.0, sales),
    (11.0, reports),
    (17.0, newsletters),
)


def play(shop: Shop, stopping: Event) -> None:
    """Run all scripts until ``stopping`` is set. Each pause varies by up to 20 %."""
    start = monotonic()
    # with the number heapq does not have to compare two generators
    due = [(start + first, number, script(shop)) for number, (first, script) in enumerate(SCRIPTS)]
    heapq.heapify(due)
    while True:
        at, number, script = due[0]
        if stopping.wait(max(0.0, at - monotonic())):
            return
        pause = next(script) * random.uniform(0.8, 1.2)
        heapq.heapreplace(due, (monotonic() + pause, number, script))

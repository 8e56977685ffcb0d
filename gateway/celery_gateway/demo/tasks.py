"""The Celery app of the demo: a small shop and its tasks.

- The app uses its own broker and an in-memory result backend, whatever CELERY_BROKER_URL and similar
  variables are. It is not the current app, and writes nothing to the disk.
- A task waits in ``busy``, never in ``time.sleep``, so that all tasks can stop at once.
- Results are ignored except where a chord waits for them. Celery's in-memory backend has no expiry, but keeps
  only the newest 5000 entries (about 3 MB).
- Each failure has a reason that the event shows, such as the number of the order or the line of the feed.
"""

import random
from collections.abc import Callable
from threading import Event
from typing import Any

from celery import Celery, Task, chain, group
from celery.exceptions import Ignore, Reject

BROKER_URL = "memory://"
# How often an idle consumer of memory:// polls. kombu's default of 1 s is too slow for a demo.
TRANSPORT_OPTIONS = {"polling_interval": 0.05}
QUEUES = ("shop", "mail", "media", "office")


class PaymentTimeout(Exception):
    """The acquirer did not answer; the task retries."""


class CardDeclined(Exception):
    """The acquirer declined the card; a retry is of no use."""


class SearchUnavailable(Exception):
    """The search cluster refused the connection."""


class FeedError(Exception):
    """The stock feed of a supplier cannot be read."""


class Shop(Celery):  # type: ignore[misc]  # Celery is untyped
    """The app, with an event that stops its tasks. It ignores Celery's environment variables."""

    backend_cls = "cache+memory://"  # a class attribute has precedence over CELERY_RESULT_BACKEND

    def __init__(self, broker_url: str, stopping: Event) -> None:
        super().__init__("shop", loader="app", broker=broker_url, fixups=[], set_as_current=False)
        self.broker = broker_url
        self.stopping = stopping

    # In conf.broker_*_url the environment has precedence over the app, but no real broker may be reached.
    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_read(url or self.broker, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        return super().connection_for_write(url or self.broker, **options)


def busy(task: Task, seconds: float) -> None:
    """Wait for about this time; if the shop stops meanwhile, drop the task without a final event."""
    if task.app.stopping.wait(seconds * random.uniform(0.7, 1.3)):
        raise Ignore


def checkout(self: Task, order: int, customer: str, basket: dict[str, int], amount: float) -> dict[str, Any]:
    """Start the workflow of an order inside a task: charge, pack each article, ship, send a receipt."""
    busy(self, 0.2)
    sign = self.app.signature
    chain(
        sign("shop.charge", args=(order,), kwargs={"amount": amount, "currency": "EUR"}, immutable=True),
        group(sign("shop.pack", args=(order, sku), kwargs={"quantity": n}, immutable=True)
              for sku, n in basket.items()),
        sign("shop.ship", kwargs={"order": order, "carrier": "DHL"}),
        sign("mail.send_receipt", kwargs={"order": order, "to": customer}),
        app=self.app,
    ).apply_async()  # fmt: skip
    return {"order": order, "articles": len(basket)}


def charge(self: Task, order: int, amount: float, currency: str) -> dict[str, Any]:
    """Charge the card. Every third order times out once and is retried, every seventh is declined."""
    busy(self, 0.5)
    if order % 7 == 0:
        raise CardDeclined(f"order {order}: card ending in 4242 declined (insufficient_funds)")
    if order % 3 == 0 and self.request.retries == 0:
        slow = PaymentTimeout(f"order {order}: acquirer did not answer within 2.0 s")
        raise self.retry(exc=slow, countdown=1.5, max_retries=3)
    return {"payment": f"pay_{order:06d}", "amount": amount, "currency": currency}


def pack(self: Task, order: int, sku: str, quantity: int) -> dict[str, Any]:
    busy(self, 0.6 + 0.3 * quantity)
    return {"sku": sku, "quantity": quantity, "weight_kg": round(0.35 * quantity, 2)}


def ship(self: Task, parcels: list[dict[str, Any]], order: int, carrier: str) -> str:
    busy(self, 0.7)
    weight = sum(parcel["weight_kg"] for parcel in parcels)
    return f"{carrier} JD{order:010d}, {len(parcels)} parcels, {weight:.2f} kg"


def send_receipt(self: Task, tracking: str, order: int, to: str) -> str:
    busy(self, 0.3)
    return f"250 queued: receipt of order {order} for {to}"


def send_newsletter(self: Task, segment: str, issue: str) -> dict[str, Any]:
    busy(self, 0.8)
    return {"segment": segment, "issue": issue, "sent": random.randint(180, 950)}


def remind_cart(self: Task, customer: str, articles: int) -> str:
    busy(self, 0.2)
    return f"250 queued: reminder for {customer}"


def transcode(self: Task, upload: str, profile: str) -> dict[str, Any]:
    """Report the progress as a custom event."""
    steps = 5
    for step in range(1, steps + 1):
        busy(self, 1.1)
        self.send_event("task-progress", retry=False, current=step, total=steps, progress=step / steps,
                        message=f"{upload}: {step * 24} of {steps * 24} frames")  # fmt: skip
    return {"file": f"{upload.rpartition('.')[0]}.{profile}.mp4", "frames": steps * 24}


def collect_sales(self: Task, region: str, day: str) -> dict[str, Any]:
    busy(self, 0.9)
    orders = random.randint(20, 90)
    return {"region": region, "orders": orders, "revenue": round(orders * random.uniform(30, 80), 2)}


def daily(self: Task, figures: list[dict[str, Any]], day: str) -> dict[str, Any]:
    busy(self, 0.4)
    return {"day": day, "regions": len(figures), "revenue": round(sum(f["revenue"] for f in figures), 2)}


def reindex(self: Task, index: str, shard: int) -> None:
    """Fail three times, with growing pauses."""
    busy(self, 0.4)
    refused = SearchUnavailable(f"index {index!r}: search-{shard}.internal:9200 refused the connection")
    raise self.retry(exc=refused, countdown=1.2 * 2**self.request.retries, max_retries=2)


def import_stock(self: Task, supplier: str, feed: str) -> int:
    busy(self, 0.5)
    line, quantity = 118, "12O"
    try:
        return int(quantity)
    except ValueError as error:
        raise FeedError(f"{supplier}, {feed}, line {line}: quantity {quantity!r} is not a number") from error


def receive_webhook(self: Task, source: str, delivery: str) -> None:
    """Refuse a call with an invalid signature: the message is rejected, not requeued, and so dropped."""
    busy(self, 0.2)
    raise Reject(f"{source}: signature of delivery {delivery} does not match", requeue=False)


def flash_sale(self: Task, sku: str, percent: int) -> str:
    return f"{sku}: {percent} % off"


# the functions by the names of the tasks, with the options that differ from those of the app
TASKS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "shop.checkout": (checkout, {}),
    "shop.charge": (charge, {}),
    "shop.pack": (pack, {"ignore_result": False}),
    "shop.ship": (ship, {}),
    "shop.flash_sale": (flash_sale, {}),
    "shop.import_stock": (import_stock, {}),
    "shop.receive_webhook": (receive_webhook, {"acks_late": True}),  # otherwise it could not be rejected
    "mail.send_receipt": (send_receipt, {}),
    "mail.send_newsletter": (send_newsletter, {}),
    "mail.remind_cart": (remind_cart, {}),
    "media.transcode": (transcode, {}),
    "reports.collect_sales": (collect_sales, {"ignore_result": False}),
    "reports.daily": (daily, {}),
    "search.reindex": (reindex, {}),
}


def make_app(broker_url: str = BROKER_URL, stopping: Event | None = None) -> Shop:
    """Return the app of the shop.

    Args:
        broker_url: of an in-memory broker.
        stopping: ends the tasks that run as soon as it is set.
    """
    app = Shop(broker_url, stopping or Event())
    app.conf.update(
        timezone="UTC",
        broker_transport_options=TRANSPORT_OPTIONS,
        task_send_sent_event=True,
        worker_send_task_events=True,
        task_ignore_result=True,
        task_default_queue=QUEUES[0],
        task_routes={"mail.*": "mail", "media.*": "media", "reports.*": "office", "search.*": "office"},
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_timer_precision=0.25,  # seconds that a timer may delay an earlier countdown, or stop()
    )
    for name, (function, options) in TASKS.items():
        # shared tasks would be added to all other apps in the process, and kept for ever
        app.task(name=name, bind=True, shared=False, **options)(function)
    app.finalize()
    return app

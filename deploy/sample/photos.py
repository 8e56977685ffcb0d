"""A Celery app to look at through the gateway: albums come in, their pictures are resized and put on a page.

Broker and result backend are taken from CELERY_BROKER_URL and CELERY_RESULT_BACKEND.
"""

import random
import time

from celery import Celery, Task, chord

from celery_gateway.progress import report

PIXEL_ROWS = 20

app = Celery("photos")
app.conf.update(
    beat_schedule={
        "an album comes in": {"task": "photos.receive_album", "schedule": 6.0},
        "a memory card is read": {"task": "photos.read_card", "schedule": 10.0},
    },
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    task_send_sent_event=True,  # tasks that wait in a queue are seen, too
    result_expires=600,  # seconds
)


class CardError(Exception):
    """The card cannot be read."""


class StoreBusy(Exception):
    """The store took no page just now; worth another try."""


@app.task(name="photos.receive_album")
def receive_album() -> str:
    """Start an album's workflow from inside a task: a chord of its pictures and its page."""
    album = f"album-{random.randrange(1000):03d}"
    pictures = [f"{album}/{number}.jpg" for number in range(1, random.randint(3, 5))]
    chord(resize.s(picture) for picture in pictures)(make_page.s(album))
    return album


@app.task(name="photos.resize", bind=True, ignore_result=False)
def resize(self: Task, picture: str) -> dict[str, str | int]:
    """Tell how far it is, as it goes."""
    for row in range(PIXEL_ROWS):
        report(self, row, PIXEL_ROWS, picture=picture)
        time.sleep(random.uniform(0.05, 0.2))
    report(self, PIXEL_ROWS, PIXEL_ROWS, picture=picture)
    return {"picture": picture, "rows": PIXEL_ROWS}


@app.task(name="photos.make_page", bind=True, max_retries=3)
def make_page(self: Task, pictures: list[dict[str, str | int]], album: str) -> str:
    """The store is busy the first time."""
    if self.request.retries == 0:
        raise self.retry(exc=StoreBusy(f"no room for the page of {album}"), countdown=1)
    return f"/{album}.html with {len(pictures)} pictures"


@app.task(name="photos.read_card")
def read_card() -> None:
    raise CardError("sector 118 of the card in slot 2 cannot be read")

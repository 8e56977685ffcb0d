"""Histories of tasks in all kinds of states, and all pages of a list of them."""

import random
import time
from typing import Any

from tests.support.state_gateway import StateGateway, known, step

Task = dict[str, Any]
NOW = time.time()


def history(chance: random.Random, many: int) -> list[Task]:
    """Events of tasks that are in all kinds of states, with values that are equal now and then."""
    events: list[Task] = []
    for number in range(many):
        uid, at = f"Id-{number}", NOW - chance.randrange(0, 3_000, 50)
        about = {"name": chance.choice(["shop.pay", "Shop.Ship", "mail.straße"]), "queue": "fast"}
        sent = {"type": "task-sent", "hostname": "gen1@host"}
        if chance.random() < 0.5:
            events.append(known(uid, timestamp=at, args=f"({number % 7}, 'Ünïcode')", **about) | sent)
        if chance.random() < 0.2:
            continue
        events.append(known(uid, timestamp=at + 1, kwargs="{'to': 'PARIS'}", retries=number % 3, **about))
        if chance.random() < 0.8:
            events.append(step("started", uid) | {"timestamp": at + chance.choice([2, 4, 8])})
        if chance.random() < 0.3:
            events.append(step("progress", uid, progress=number % 5 / 4) | {"timestamp": at + 9})
        end = {"timestamp": at + chance.choice([20, 30])}
        ended = chance.choice(["succeeded", "failed", "revoked", ""])
        if ended == "succeeded":
            events.append(step(ended, uid, result="'ok 100%'", runtime=number % 4 / 2) | end)
        elif ended == "failed":
            events.append(step(ended, uid, exception="KeyError('Paris')") | end)
        elif ended:
            events.append(step(ended, uid) | end)
    return events


async def everything(gateway: StateGateway, query: str = "") -> list[Task]:
    """All pages of a query, of random sizes."""
    found: list[Task] = []
    cursor = ""
    while True:
        page = await gateway.get(f"/tasks?limit={random.randint(1, 40)}&{query}{cursor}")
        found += page["tasks"]
        if page["cursor"] is None:
            return found
        cursor = f"&cursor={page['cursor']}"

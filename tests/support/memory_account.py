"""Fill a gateway's tables and history; print the sizes that they report, and the growth of the process.

python -m tests.support.memory_account ascii|emoji|mixed usual|long|unique
"""

import asyncio
import gc
import json
import sys
import time
from itertools import count
from typing import Any

from celery_gateway.broker.source import Sink, Status
from celery_gateway.events.message import Message
from celery_gateway.pipeline.feed import Feed
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.hub import Hub

TASKS = {"usual": 4_000, "long": 2_000, "unique": 800}
HISTORY_BYTES = 1_500_000
FILLINGS = {"ascii": "x", "emoji": "\N{GRINNING FACE}"}

_number = count()


class Quiet:
    status = Status(True, "consuming")

    async def run(self, sink: Sink) -> None:
        await asyncio.Event().wait()


def grown_to() -> int:
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


async def main(texts: str, kind: str) -> None:
    def text(length: int) -> str:
        start = f"{next(_number):08d}"
        if texts == "mixed":  # one wide character makes all of them wide
            return (start + "\N{GRINNING FACE}" + "x" * length)[:length]
        return (start + FILLINGS[texts] * length)[:length]

    feed = Feed(None, Quiet())
    pipeline = Pipeline([feed], TaskTable(), WorkerTable(), Hub(history_bytes=HISTORY_BYTES))

    def put(event: dict[str, Any]) -> None:
        event |= {"timestamp": time.time(), "pid": 1}
        pipeline.on_message(Message(json.dumps(event, ensure_ascii=False).encode()), feed)

    def reported() -> int:
        now = pipeline.statistics()
        tables = now.tasks.known_bytes + now.tasks.activity_bytes + now.workers.known_bytes
        return tables + now.hub.history_bytes

    put({"type": "task-received", "uuid": "w", "root_id": "w", "name": "n", "hostname": "w@h"})
    before, reported_before = grown_to(), reported()
    for number in range(TASKS[kind]):
        is_usual, is_unique = kind == "usual", kind == "unique"
        uuid = text(36 if is_usual else 250)
        about = {"uuid": uuid, "root_id": uuid, "hostname": f"w@{text(240)}" if is_unique else "w@h"}
        call = {"name": "shop.pay" if is_usual else text(250), "args": "(1, 2)", "kwargs": "{}"}
        if is_unique:
            fields = ("queue", "exchange", "routing_key", "args", "kwargs")
            call |= {field: text(250) for field in fields} | {"parent_id": text(250)}
            put({"type": "task-sent", **about, **call, "hostname": f"gen1@{text(240)}"})
        put({"type": "task-received", **about, **call, "clock": number})
        if is_unique:
            put({"type": "task-progress", **about, "note": text(400), "clock": number})
        put({"type": "task-succeeded", **about, "result": text(400 if is_unique else 10), "clock": number})
        if number % 200 == 0:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    history_bytes = pipeline.hub.statistics().history_bytes
    print(
        json.dumps(
            {
                "grown": grown_to() - before,
                "reported": reported() - reported_before,
                "history": history_bytes,
                "history_limit": HISTORY_BYTES,
            }
        )
    )


asyncio.run(main(*sys.argv[1:]))

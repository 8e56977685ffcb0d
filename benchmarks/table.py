"""The cost of the table of tasks alone: names joined and state kept, beside reading the events.

    python -m benchmarks.table [EVENTS]

Says ``{"normalize_us": …, "table_us": …}``: CPU microseconds an event, in messages of ten.
"""

import gc
import json
import sys
import time

from benchmarks.publish import compact, events
from gateway.message import Message
from gateway.normalize import normalize
from gateway.tasks import Tasks

ROUNDS = 5


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    bodies = [compact(event) for event in events(count, 5000)]
    messages = [Message(b"[%b]" % b",".join(bodies[start : start + 10])) for start in range(0, count, 10)]
    gc.collect()
    gc.set_threshold(20_000, 20, 100)  # as the server does
    normalize_us, table_us = [], []
    for _ in range(ROUNDS):
        tasks = Tasks()
        began = time.thread_time()
        normalized = [event for message in messages for event in normalize(message, 0.0).events]
        read = time.thread_time()
        for event in normalized:
            tasks.join(event, 0.0)
        normalize_us.append((read - began) / count * 1e6)
        table_us.append((time.thread_time() - read) / count * 1e6)
    print(json.dumps({"normalize_us": min(normalize_us), "table_us": min(table_us)}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

"""What the gateway derives from the events of `tests/conformance/task.json` and `worker.json`.

`python -m tests.support.conformance` writes the records of `task.json` again, after a rule of the gateway has
changed on purpose.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from celery_gateway.events.event import id_text
from celery_gateway.events.fields import ALL_FIELDS
from celery_gateway.state.current_records import CurrentRecords
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable

TABLE = Path(__file__).resolve().parents[1] / "conformance" / "task.json"
TICK_SECONDS = 0.5
ADDED = ("name", "root_id", "parent_id", "queue", "state", "attempt")
"""The fields that the gateway adds to an event."""
Object = dict[str, Any]


def load() -> Object:
    """Return the table."""
    table: Object = json.loads(TABLE.read_text("utf-8"))
    return table


def derive(case: Object, blank: Object) -> list[list[Object]]:
    """Return what the gateway puts into the stream after each event of a case.

    Args:
        case: its `events`, each with its time of arrival `at`, in epoch seconds.
        blank: the record from which that of a new task differs.

    Returns:
        For each event a list: of each event that goes on its own fields if the gateway made it (`event`),
        otherwise its number among the events of the case (`of`); the fields that the gateway adds (`adds`);
        and the fields of its task's record that have another value than before (`record`; not given if the
        record is known only after the last one of a list).
    """
    clusters = case.get("clusters", ())
    tasks = TaskTable(clusters=clusters)
    workers = WorkerTable(has_clusters=bool(clusters))
    records = CurrentRecords(tasks)
    given = [each["event"] for each in case["events"]]
    events = [dict(event) for event in given]
    before: dict[str, Object] = {}
    next_tick = case["events"][0]["at"]

    def lost(now: float) -> Iterator[Object]:
        for process, reason, successor in workers.find_gone(now):
            yield from tasks.mark_lost(process, reason, now, successor)
        yield from tasks.mark_lost_late(now)

    def told(event: Object, is_last: bool) -> Object:
        number = next((number for number, each in enumerate(events) if each is event), None)
        shown: Object = {"event": dict(event)} if number is None else {"of": number}
        own = {} if number is None else given[number]
        added = {field: event[field] for field in ADDED if field in event and field not in own}
        if number is not None:
            shown["adds"] = added
        if is_last:
            uuid, cluster = id_text(event["uuid"]) or "", event.get("cluster")
            record = json.loads(records.find(uuid, cluster, ALL_FIELDS) or b"{}")
            known = before.get(f"{cluster} {uuid}", blank)
            shown["record"] = {name: record[name] for name in record if known.get(name, ...) != record[name]}
            before[f"{cluster} {uuid}"] = record
        return shown

    derived = []
    for event, each in zip(events, case["events"], strict=True):
        now = float(each["at"])
        stream: list[Object] = []
        while next_tick <= now:
            stream += [*tasks.release(next_tick), *lost(next_tick)]
            next_tick += TICK_SECONDS
        process = workers.on_event(event, now, now)
        if not event["type"].startswith("worker-"):
            stream += tasks.join(event, now, process, now)
        stream += lost(now)
        ids = [(event.get("cluster"), id_text(event["uuid"])) for event in stream]
        derived.append(
            [told(event, ids[number] not in ids[number + 1 :]) for number, event in enumerate(stream)]
        )
    return derived


def workers_at(case: Object) -> Iterator[list[Object] | None]:
    """Give all workers at each step of a case of `worker.json` that is no event; `None` at an event."""
    workers = WorkerTable(has_clusters="clusters" in case)
    for step in case["steps"]:
        now = float(step["at"])
        if "event" in step:
            workers.on_event(dict(step["event"]), now, now)
            yield None
        else:
            found = [msgspec.to_builtins(worker) for worker in workers.all(now, now)]
            yield [
                {name: worker[name] for name in worker if name not in ("since", "sends_task_events")}
                for worker in found
            ]


def main() -> None:
    table = load()
    for case in table["cases"]:
        for each, stream in zip(case["events"], derive(case, table["blank"]), strict=True):
            each["stream"] = stream
    lines = json.dumps({name: table[name] for name in ("about", "blank")}, ensure_ascii=False)[1:-1]
    cases = []
    for case in table["cases"]:
        head = json.dumps(
            {name: value for name, value in case.items() if name != "events"}, ensure_ascii=False
        )
        events = ",\n".join(f"      {json.dumps(each, ensure_ascii=False)}" for each in case["events"])
        cases.append(f'    {head[:-1]}, "events": [\n{events}\n    ]}}')
    text = f'{{\n  {lines},\n  "cases": [\n' + ",\n".join(cases) + "\n  ]\n}\n"
    assert json.loads(text) == table
    TABLE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()

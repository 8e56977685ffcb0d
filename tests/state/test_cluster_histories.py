"""Simulated clusters: the state that the gateway derives from their events is the true one.

`make fuzz` runs the same for a million events. A difference is looked into with its seed and trouble.
"""

from pathlib import Path

import pytest

from tests.support.js_client import built, npm
from tests.support.reduced import Reducer, differences, inconsistencies, records, reduce
from tests.support.simulated_cluster import Trouble, history

SEEDS = range(150)
CALM = Trouble(
    **{
        field: False
        for field in Trouble.__dataclass_fields__
        if field not in ("sent_events", "rerun_seconds")
    }
)
TROUBLES = {
    "calm": CALM,
    "all": Trouble(),
    "duplicates": Trouble(duplicates=True),
    "without-task-sent": Trouble(sent_events=False),
    "lost-events": Trouble(lost=True, duplicates=True),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_the_state_at_the_end_is_the_true_one(trouble: Trouble) -> None:
    tasks = 0
    for seed in SEEDS:
        true = history(seed, trouble)
        reducer = reduce(true)
        assert not list(differences(true, reducer)), f"{seed=}"
        assert not list(inconsistencies(reducer)), f"{seed=}"
        tasks += len(true.truth)
    assert tasks > 20 * len(SEEDS)


def test_the_javascript_client_has_the_same_records_after_each_event(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for seed in SEEDS[:100]:
            file.writelines(records(history(seed), str(seed)))
    npm(built(), "run", "test:unit", CONFORMANCE_FILE=str(path))


def test_each_event_has_the_state_of_the_record_and_no_task_is_ready_too_early() -> None:
    for seed in SEEDS[:40]:
        true = history(seed)
        reducer = Reducer()
        ended = {
            arrival.event["uuid"]
            for arrival in true.arrivals
            if arrival.event["type"] in ("task-succeeded", "task-failed", "task-revoked")
        }
        for arrival in true.arrivals:
            for event in reducer.on_arrival(arrival):
                if not event["type"].startswith("task-"):
                    continue
                record = reducer.tasks.get(event["uuid"])
                assert record is not None
                assert event["queue"] == record.task.queue or "queue" in arrival.event
                if record.task.is_ready:
                    assert event["uuid"] in ended
            if arrival.at % 10 < 0.01:
                assert not list(inconsistencies(reducer)), f"{seed=}"

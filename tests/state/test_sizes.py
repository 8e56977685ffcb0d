"""The sizes that the tables and the history report are those in memory, with any texts.

Each case fills a gateway's tables in a process of its own, and compares the estimate with the growth of the
process (tests/support/memory_account.py).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from celery_gateway.state import worker_table as workers_module
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.text_size import text_bytes
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.history import Entry, History

ROOT = Path(__file__).resolve().parents[2]
EMOJI = "\N{GRINNING FACE}"


def test_the_size_of_a_text_is_that_of_the_interpreter_after_it_was_encoded() -> None:
    header_bytes = {True: sys.getsizeof("") - 1, False: sys.getsizeof("é") - 2}
    for text in (
        "",
        "abc",
        "é" * 50,
        "aé" * 50,
        "漢" * 50,
        "a漢" * 50,
        EMOJI * 50,
        "a" * 99 + EMOJI,
        "é漢" + EMOJI,
    ):
        text = "".join([*text])  # a string of its own
        json.dumps(text, ensure_ascii=False).encode()
        text.encode()
        bare_bytes = sys.getsizeof(text) - header_bytes[text.isascii()]
        utf8_bytes = 0 if text.isascii() else len(text.encode())
        assert abs(text_bytes(text) - bare_bytes - utf8_bytes) <= 5, text


@pytest.mark.parametrize(
    ("texts", "kind"),
    [("ascii", "usual"), ("emoji", "long"), ("mixed", "unique"), ("ascii", "unique")],
)
def test_the_reported_size_is_the_growth_of_the_process(texts: str, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.memory_account", texts, kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert 0.7 < account["reported"] / account["grown"] < 1.3, account
    assert account["history"] <= account["history_limit"], account


def test_the_history_holds_fewer_entries_with_long_keys() -> None:
    """With 250 emoji in each of five keys an entry takes 10 kB more."""
    keys = (None, *(EMOJI * 250 for _ in range(5)), None, None, None)
    for key in keys:
        if key:
            (key + "x").encode()
    history = History(max_bytes=1_000_000)
    for number in range(1, 1_001):
        texts = tuple(None if key is None else key[:-1] + str(number % 10) for key in keys)
        json_text = json.dumps([text for text in texts if text], ensure_ascii=False).encode()
        history.append(Entry(history.id_of(number), texts, None, json_text))
    entry_count = history.position - history.evicted
    assert 60 < entry_count < 110
    assert history.size_bytes <= 1_000_000


def test_the_table_of_tasks_holds_fewer_tasks_with_long_names() -> None:
    tasks = TaskTable(max_bytes=2_000_000)
    for number in range(1_000):
        text = f"{number:05d}" + EMOJI * 245
        made = {"type": "task-received", "uuid": text + "u", "name": text + "n", "root_id": text + "r"}
        tasks.join(made | {"timestamp": 1.0, "hostname": "w@h"}, 0.0)
    assert tasks.statistics().known_bytes <= 2_000_000
    assert 180 < tasks.statistics().known < 270, "each takes 8 kB"


def test_the_table_of_workers_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "MAX_BYTES", 4_000_000)
    workers = WorkerTable()
    for number in range(1_000):
        text = f"{number:05d}@" + EMOJI * 200
        made = {"type": "worker-heartbeat", "hostname": text, "timestamp": 1.0, "pid": 1}
        workers.on_event(made | {"sw_ident": EMOJI * 500, "sw_ver": EMOJI * 500, "sw_sys": EMOJI * 500}, 0.0)
    known, _, known_bytes = workers.statistics(0.0)
    assert 3_980_000 < known_bytes < 4_020_000
    assert 300 < known < 600
    for each in workers.all(4_000.0, 4_000.0):
        raise AssertionError(each)
    assert workers.statistics(4_000.0).known_bytes == 0, "what is forgotten is given back"

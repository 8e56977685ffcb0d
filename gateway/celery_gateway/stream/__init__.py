"""The stream: history, subscriptions and fan-out. It depends on no transport and on no broker.

- Entries: ``history`` (the newest ones, by position), ``terms`` (the id of each position), ``messages``
  (control messages), ``framing`` (how entries are written), ``record_view`` (events with the records of their
  tasks), ``cursor`` (reads and frames entries).
- A shared log: ``lines`` (entries from its lines), ``older`` (the interface to entries that the history has
  evicted), ``log_entries`` (reads them), with ``block_reader``, ``block_cache`` and ``offset_index``;
  ``beginnings`` (what a stream awaits before it begins).
- Fan-out: ``hub`` (with ``hub_statistics``), ``fan_out`` (from entries to bytes), ``flush_timer`` (its pace),
  ``flushed`` (its position), ``filter_index`` (the cohorts of an event), ``cohort`` (subscriptions that get
  the same bytes).
- One client: ``subscription``, with ``stream_reader`` (what comes next), ``stream_progress`` (where it is),
  ``pulled`` and ``pushed`` (how it is sent), ``keepalive`` (keep-alives, slow clients), ``completion``
  (streams that end with a task or a workflow).
- A maximum rate: ``stream_rate`` (what is skipped).
- Reports beside events: ``reports`` (those of one stream), ``report_timer`` (their turns),
  ``worker_reports``, ``statistics_reports``.
- Catching up: ``catch_up`` (turns of lagging subscriptions), ``round_robin`` (turns among clients).
- Initial state: ``initial_snapshot`` (the interface), ``snapshot`` (of one client), ``snapshot_pages`` and
  ``encoded_records`` (what snapshots share), ``page_writer``.
- Safety: ``limits`` (budgets that clients share), ``unexpected_errors``.
"""

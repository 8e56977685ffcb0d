"""The pipeline: from the messages of the brokers to the stream, wired and counted.

- ``pipeline`` (normalize → workers → tasks → output), with ``output``, ``timers`` (what it emits by itself)
  and ``refused`` (what is not passed on).
- What clients receive: ``source_statuses``, with ``about`` (the gateway itself); ``reporting`` (what streams
  report beside events).
- The brokers: ``feed`` (one broker), ``feed_tasks`` (their background tasks).
- With a shared log: ``replication`` (the log between the tables and the hub), ``following`` (entries of
  another gateway), ``leader`` (the sources, while this gateway leads), ``clock`` and ``arrival`` (the time of
  messages that were kept), ``log_statistics``.
"""

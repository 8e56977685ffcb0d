"""The shared log: joined events in RabbitMQ or Redis, which any number of gateways write and read.

Rules: nothing here knows the state of tasks, the hub, or HTTP.

- The format: ``batch`` (a message of the log), ``order`` (which messages count).
- One gateway: ``replica`` (reads all, and leads if no other gateway does), ``election`` (when it claims
  the lead), ``writer`` (what it writes), ``markers`` (whether it has read everything), ``peers``,
  ``outage`` (whether it reaches the log), ``foreign`` (messages of other programs), ``timers``, and
  ``follower`` (what it tells).
- Servers: ``engine`` (the interface), ``factory``; ``rabbitmq_log`` with ``rabbitmq_connection``;
  ``redis_log`` with ``redis_clients``, ``redis_writer`` and ``redis_entries``; ``memory_log`` for tests.
- ``search``: finding a position or a time.
"""

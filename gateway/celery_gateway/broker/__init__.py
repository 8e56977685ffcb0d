"""Everything that talks to a broker: URLs, sources, diagnoses, and remote control of workers.

- URLs: ``urls``, ``url_syntax``, ``transport_options``, ``redaction``, ``address``, ``permissions``, ``tls``.
- Sources: ``source`` (the protocols), ``factory``, ``content_types``, ``backoff``; ``amqp_source`` with
  ``amqp_consumer``, ``amqp_deliveries``, ``amqp_connection``, ``amqp_frames``, ``amqp_queues``,
  ``overflow_queue``, ``tripwire``, ``silence`` and ``alarm``; ``raw_source`` with ``raw_consumer``,
  ``rabbitmq_stream``, ``restart_mark`` and ``amqp_output``; ``thread_source`` for ``redis_source`` and
  ``memory_source``; ``recording_source`` for a file in place of a broker.
- Redis: ``redis_connection``, ``redis_subscription``, ``redis_envelope``, ``redis_channels``,
  ``redis_replies``.
- Diagnoses: ``diagnosis``, with the tables ``diagnosis_network``, ``diagnosis_rabbitmq`` and
  ``diagnosis_redis``, and ``diagnosis_rows``.
- Remote control: ``worker_control``, ``task_control``, ``pidbox_client``, ``pidbox``.
- Queues: ``queues`` with ``queue_reader``, ``queue_reading``, ``queue_names``, ``worker_queues``;
  ``kombu_queues`` and ``redis_queues`` ask the brokers.
- Publishing: ``kombu_connection``, ``event_publisher``.
"""

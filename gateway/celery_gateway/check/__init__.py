"""The preflight: every step from a broker's URL to the first event, tested one after the other.

``preflight`` has the order. ``network`` tests the way to the socket. A ``broker_probe`` (``rabbitmq_probe``
or ``redis_probe``) tests the way to the events, and collects observations of workers; ``observations`` keeps
them, and ``worker_findings`` has the conclusions. ``step`` has the table of all findings.

``log_preflight`` has the steps of a shared log: those of its server (``rabbitmq_log_probe`` or
``redis_log_probe``), and what it has (``log_report``). ``log_places`` finds it by the settings, ``log_step``
turns its errors into steps, and ``log_trim`` removes its oldest entries.
"""

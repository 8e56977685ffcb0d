"""What is wrong between here and the first event.

``walk`` goes the way step by step: ``network`` to the socket, a ``line`` (``rabbitmq`` or ``virtual``) to the
exchange and the workers, ``evidence`` of what they do. ``step`` has all that can be found.
"""

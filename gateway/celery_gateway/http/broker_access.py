"""What endpoints use of the brokers themselves, beside the pipeline: queues, and actions."""

from typing import NamedTuple, Self

from celery_gateway.access.actions import parse_actions
from celery_gateway.broker.queues import Queues
from celery_gateway.broker.task_control import TaskControl
from celery_gateway.broker.urls import Access, brokers
from celery_gateway.http.action_endpoints import Actions
from celery_gateway.settings import Settings


class BrokerAccess(NamedTuple):
    """The queues of the brokers, and what clients may do there. For one event loop."""

    queues: Queues
    actions: Actions

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the access for some settings; nothing is connected before it is used.

        Raises:
            SourceError: a broker's URL cannot be used.
            ValueError: a queue or an action is malformed.
        """
        access = Access(
            settings.tls, settings.login_method, settings.transport_options, settings.queue_prefix
        )
        named = brokers(settings.broker, access)
        exchange, verbose = settings.control_exchange, settings.verbose_health
        queues = Queues(
            named,
            settings.queues,
            control_exchange=exchange if settings.control else None,
            verbose=verbose,
        )
        allowed = parse_actions(settings.allow)
        controls = {
            broker.name: TaskControl(broker, exchange, verbose=verbose) for broker in named if allowed
        }
        return cls(queues, Actions(allowed, controls))

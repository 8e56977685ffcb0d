"""The tripwire exchange, which disappears when the event exchange is deleted.

- When the event exchange is deleted, the broker deletes the gateway's binding with it and does not report
  that. Workers declare the exchange again at once, without that binding. So the gateway binds an exchange of
  its own to the event exchange. It is auto-delete: the broker deletes it when its only binding is deleted.
  The source checks every few seconds that it exists.
- Tripwire exchanges have the slot of the overflow queue. So one that a killed gateway left behind is taken
  over by the gateway that takes that slot.
"""

from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed

from celery_gateway.broker.amqp_queues import EXPECTED_TRIPWIRE, OpenChannel, ReportForeign

_ENDINGS = ("", ".1", ".2")
"""For names that belong to another owner."""


async def declare_tripwire(
    exchange: str, prefix: str, slot: str, open_channel: OpenChannel, report_foreign: ReportForeign
) -> str | None:
    """Declare a tripwire exchange and bind it to the event exchange.

    Args:
        exchange: the event exchange.
        slot: that of the overflow queue.

    Returns:
        Its name; ``None`` if the user may not bind it, or if all its names belong to other owners.

    Raises:
        ChannelAccessRefused: the user may not declare it.
    """
    for ending in _ENDINGS:
        channel = await open_channel()
        name = f"{prefix}.tripwire.{slot}{ending}"
        try:  # it fails if an existing one is not like ours: only one like ours is deleted
            await channel.exchange_declare(name, exchange_type="direct", auto_delete=True)
        except ChannelPreconditionFailed as error:
            report_foreign("exchange", name, EXPECTED_TRIPWIRE, error)
            continue
        try:
            # It may belong to a gateway that was killed, and be bound to an older event exchange.
            await channel.exchange_delete(name)
            await channel.exchange_declare(name, exchange_type="direct", auto_delete=True)
            await channel.exchange_bind(destination=exchange, source=name)
        except ChannelAccessRefused:
            channel = await open_channel()
            await channel.exchange_delete(name)
            return None
        return name
    return None

"""Detecting that a broker was restarted: an exchange that is not durable, so that a restart deletes it.

While a RabbitMQ starts, it accepts messages before its streams are up, and drops those for them. No offset
shows that. So whoever reads a stream after a restart has to take it that messages are missing.
"""

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from celery_gateway.broker.amqp_queues import OpenChannel


async def was_restarted(name: str, open_channel: OpenChannel) -> bool:
    """Return whether the broker was restarted since the last call with this name, and set the mark again.

    Args:
        name: that of the exchange.

    Returns:
        ``True`` also for the first call. ``False`` if the permission for the exchange is missing.
    """
    channel: AbstractChannel = await open_channel()
    try:
        await channel.exchange_declare(name, passive=True)
        await channel.close()
        return False
    except ChannelNotFoundEntity:
        channel = await open_channel()
    except ChannelAccessRefused:
        return False
    try:
        await channel.exchange_declare(name, exchange_type="fanout", durable=False)
        await channel.close()
    except (ChannelAccessRefused, ChannelPreconditionFailed):
        return False
    return True

"""The status of each source, as clients see it, and the control message with all of them.

With a shared log the leader reads the sources, and its messages are entries of the log: they have the sources
only. What a message has about a gateway (``about``) is of the gateway that sends the stream.
"""

from collections.abc import Sequence

from celery_gateway.broker.source import Status
from celery_gateway.pipeline.about import About
from celery_gateway.pipeline.feed import FeedRunner, source_status
from celery_gateway.pipeline.following import UNREACHABLE
from celery_gateway.pipeline.replication import Replication
from celery_gateway.stream.messages import ControlMessage, status_message


class SourceStatuses:
    """The statuses of all sources.

    Args:
        is_verbose: clients get reasons with the names and addresses of brokers.
    """

    def __init__(
        self,
        runners: Sequence[FeedRunner],
        replication: Replication | None,
        about: About,
        *,
        is_verbose: bool,
    ) -> None:
        self._runners = runners
        self._replication = replication
        self._about = about._asdict()
        self._is_verbose = is_verbose

    def by_cluster(self) -> dict[str | None, Status]:
        """Return the status of each source, as the leader has told it."""
        clusters = [runner.feed.cluster for runner in self._runners]
        if self._replication is not None and (told := self._replication.statuses(clusters)) is not None:
            shown = (self._shown(each) if each.code == UNREACHABLE else each for each in told.values())
            return dict(zip(told, shown, strict=True))
        return {runner.feed.cluster: self._shown(runner.current_status) for runner in self._runners}

    def message(self, id: bytes) -> ControlMessage:
        """Return the message for the streams of this gateway."""
        statuses, sources = self.by_cluster(), []
        for runner in self._runners:
            cluster = runner.feed.cluster
            since = None if self._replication is None else self._replication.since(cluster)
            sources.append(
                source_status(cluster, statuses[cluster], runner.since if since is None else since)
            )
        return status_message(id, sources, self._about)

    def own_message(self, id: bytes) -> ControlMessage:
        """Return the message for the log, from the gateway that reads the sources."""
        sources = [
            source_status(runner.feed.cluster, self._shown(runner.current_status), runner.since)
            for runner in self._runners
        ]
        return status_message(id, sources)

    def _shown(self, status: Status) -> Status:
        return status if self._is_verbose else status._replace(reason=status.brief)

"""Endpoints of actions: ``POST /tasks/{uuid}/revoke`` and ``POST /workflows/{root_id}/revoke``.

Rules:

- Nothing is allowed unless the setting ``allow`` has it, and the token's ``may``.
- An action reaches visible tasks only; others do not exist. Tasks that are ready are left out.
- The response is sent once the broker has the command. What becomes of the tasks is in their events.
- Each action is in the log, and in the streams that show its tasks (``gateway-control``). Both follow the
  command also if the client disconnects.
- A command that the broker has not confirmed is in the log only, as a warning: it may be carried out if the
  connection ended after the broker had it.
- The log has who requested an action; the streams do not, since other tenants may see the task.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from celery_gateway.broker.task_control import BATCH_TASKS, TaskControl
from celery_gateway.errors import OverLimit, WorkerControlError
from celery_gateway.events.event import Keys, encode
from celery_gateway.events.pattern import quoted
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.action_query import (
    checked_cluster,
    refused_origin,
    refused_type,
    requested_signal,
)
from celery_gateway.http.errors import error_response
from celery_gateway.http.id_path import id_path
from celery_gateway.http.query_params import client_of, quota_of
from celery_gateway.http.state_responses import ambiguous
from celery_gateway.http.state_work import StateWork
from celery_gateway.http.visible import Visible
from celery_gateway.state.task_graph import Root
from celery_gateway.state.task_record import Record
from celery_gateway.state.transitions import READY_STATES
from celery_gateway.stream.messages import control_message

FINISH_SECONDS: Final = 5.0
"""How long a shutdown waits for commands that are being sent."""
TARGET_BYTES: Final = 400
"""Memory that a task to revoke takes, about."""
TASKS_PER_STEP: Final = 100
MESSAGES_PER_STEP: Final = 20
LOGGED_TASKS: Final = 50
"""Maximum number of tasks in one line of the log."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Actions:
    """What a gateway allows.

    Attributes:
        allowed: see ``access.actions.parse_actions``.
        controls: by the name of the broker.
        sending: what is being sent.
    """

    allowed: tuple[str, ...] = ()
    controls: Mapping[str | None, TaskControl] = field(default_factory=dict)
    sending: set[asyncio.Task[Response]] = field(default_factory=set, compare=False)

    async def finish(self, seconds: float = FINISH_SECONDS) -> None:
        """Wait until all commands are sent and logged, ``seconds`` at most; then give up the others."""
        if self.sending:
            _, late = await asyncio.wait(self.sending, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class _Query(NamedTuple):
    """A checked request to revoke; ``signal`` is ``None`` if running tasks go on."""

    cluster: str | None
    signal: str | None


class _Target(NamedTuple):
    """A task to revoke: what is sent of it, and the keys that filters compare."""

    uuid: str
    name: str | None
    root_id: str | None
    keys: Keys


class _Request(NamedTuple):
    """Who has requested a revoke and how, for the log and the streams."""

    principal: str
    address: str
    cluster: str | None
    signal: str | None


class ActionEndpoints:
    """The endpoints, as ``routes``."""

    def __init__(self, access: AccessControl, work: StateWork, actions: Actions) -> None:
        self._access = access
        self._controls = actions.controls
        self._sending = actions.sending
        self._work = work
        self.routes = [
            access.route(f"/tasks/{id_path('uuid')}/revoke", self.revoke_task, "revoke", methods=["POST"]),
            access.route(
                f"/workflows/{id_path('root_id')}/revoke", self.revoke_workflow, "revoke", methods=["POST"]
            ),
        ]

    async def revoke_task(self, request: Request) -> Response:
        """Revoke one task."""
        checked = await self._checked(request)
        if isinstance(checked, Response):
            return checked
        uuid: str = request.path_params["uuid"]
        visible = self._access.visible(request)
        records = visible.tasks(uuid, checked.cluster) if self._has_broker(checked.cluster) else []
        if not records:
            return visible.not_found("task", uuid, checked.cluster)
        if len(records) > 1:
            return ambiguous("task", uuid, [record.task.cluster for record in records])
        task = records[0].task
        if task.state in READY_STATES:
            message = f"task {uuid!r} is ready ({task.state}): it cannot be revoked"
            return error_response(409, "task-ready", message, state=task.state)
        return await self._send(request, checked, visible, [_target(records[0])], _cluster(records[0]))

    async def revoke_workflow(self, request: Request) -> Response:
        """Revoke the visible tasks of a workflow that are not ready."""
        checked = await self._checked(request)
        if isinstance(checked, Response):
            return checked
        root_id: str = request.path_params["root_id"]
        visible = self._access.visible(request)
        found: list[Record] = []
        unready: list[_Target] = []
        async with self._work.begin(request) as (share, builder):
            roots: list[Root] = []
            if self._has_broker(checked.cluster):
                roots = await visible.roots(root_id, checked.cluster, share)
            if len(roots) > 1:
                members = [next(iter(root.members.values())) for root in roots]
                return ambiguous("workflow", root_id, [member.task.cluster for member in members])
            for at, record in enumerate(visible.members(roots[0]) if roots else ()):
                if not at % TASKS_PER_STEP:
                    await share.checkpoint()
                if visible.sees(record):
                    found = found or [record]
                    if record.task.state not in READY_STATES:
                        # Only these are charged: an error must not show how many others there are.
                        builder.charge_scratch(TARGET_BYTES)
                        unready.append(_target(record))
            builder.release()
        if not found:
            return visible.not_found("workflow", root_id, checked.cluster)
        if not unready:
            message = f"all tasks of the workflow {root_id!r} are ready: none can be revoked"
            return error_response(409, "task-ready", message)
        return await self._send(request, checked, visible, unready, _cluster(found[0]))

    def _has_broker(self, cluster: str | None) -> bool:
        """Return whether a request can address this broker, also where brokers have no names."""
        return cluster is None or cluster in self._controls

    async def _checked(self, request: Request) -> _Query | Response:
        """Return the checked request, or the response that refuses it."""
        cluster = checked_cluster(request)
        allowed = self._access.actions
        if "revoke" not in allowed:
            message = "actions are off: start the gateway with --allow revoke (GATEWAY_ALLOW, Settings.allow)"
            return error_response(403, "actions-off", message)
        refused = await refused_origin(request, self._access) or refused_type(request)
        if refused is not None:
            return refused
        quota_of(request).take("operations_per_second")
        try:
            signal = await requested_signal(request)
        except ClientDisconnect:
            return Response()  # it has no receiver
        if signal is not None and "terminate" not in allowed:
            message = "terminate is off: start the gateway with --allow revoke,terminate"
            return error_response(403, "actions-off", message, parameter="terminate")
        if signal is not None:
            self._access.visible(request).require("terminate", "terminate")
        return _Query(cluster, signal)

    async def _send(
        self,
        request: Request,
        query: _Query,
        visible: Visible,
        targets: Sequence[_Target],
        cluster: str | None,
    ) -> Response:
        """Send the command; it is logged and emitted also if the client disconnects meanwhile."""
        address = request.client.host if request.client else ""
        about = _Request(visible.principal.name, address, cluster, query.signal)
        memory = visible.pipeline.limits.memory.reserve(client_of(request))
        memory.grow(TARGET_BYTES * len(targets))
        sending = asyncio.create_task(self._revoke(visible, about, targets), name="an action")
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        sending.add_done_callback(lambda _: memory.release())
        return await asyncio.shield(sending)

    async def _revoke(self, visible: Visible, about: _Request, targets: Sequence[_Target]) -> Response:
        control = self._controls[about.cluster]
        sent: list[str] = []
        for start in range(0, len(targets), BATCH_TASKS):
            batch = targets[start : start + BATCH_TASKS]
            try:
                await control.revoke([target.uuid for target in batch], about.signal)
            except (WorkerControlError, OverLimit) as error:
                if isinstance(error, OverLimit) and not sent:
                    raise
                if isinstance(error, WorkerControlError):
                    _log(about, batch, is_confirmed=False)
                message = f"the broker has not confirmed the command: {error}"
                return error_response(502, "broker-unreachable", message, revoked=sent, count=len(sent))
            except asyncio.CancelledError:  # see Actions.finish
                _log(about, batch, is_confirmed=False)
                raise
            _log(about, batch)
            await _emit(visible, about, batch)
            sent += [target.uuid for target in batch]
        body = encode({"revoked": sent, "count": len(sent)})
        headers = {"Cache-Control": "no-store"}
        return Response(body, status_code=202, headers=headers, media_type="application/json")


def _target(record: Record) -> _Target:
    task = record.task
    return _Target(task.uuid, task.name, task.root_id, record.keys())


def _cluster(record: Record) -> str | None:
    cluster = record.task.cluster
    return cluster if isinstance(cluster, str) else None


def _log(about: _Request, targets: Sequence[_Target], *, is_confirmed: bool = True) -> None:
    """Log an action. All values are from outside: ``repr`` escapes line breaks and control characters."""
    action = "revoke" if about.signal is None else f"revoke and terminate ({about.signal})"
    who = repr(about.principal) if about.principal else "anyone (no authentication)"
    where = f" of the broker {about.cluster}" if about.cluster else ""
    tasks = [f"{target.uuid!r} ({quoted(target.name or '')})" for target in targets]
    for start in range(0, len(tasks), LOGGED_TASKS):
        names = ", ".join(tasks[start : start + LOGGED_TASKS])
        if is_confirmed:
            log.info("action: %s by %s from %r: tasks%s: %s", action, who, about.address, where, names)
        else:
            message = "action not confirmed: %s by %s from %r: tasks%s: %s"
            log.warning(message, action, who, about.address, where, names)


async def _emit(visible: Visible, about: _Request, targets: Iterable[_Target]) -> None:
    """Emit a control message for each task, to the streams that show it.

    With a shared log it reaches the streams of this gateway only: the log has what the leader writes.
    """
    pipeline = visible.pipeline
    emit = pipeline.hub.broadcast if pipeline.replication is None else pipeline.hub.broadcast_local
    for at, target in enumerate(targets, 1):
        fields: dict[str, Any] = {
            "action": "revoke",
            "terminate": about.signal is not None,
            "signal": about.signal,
            "uuid": target.uuid,
            "name": target.name,
            "root_id": target.root_id,
            "time": round(time.time(), 3),
        }
        if about.cluster is not None:
            fields["cluster"] = about.cluster
        emit(partial(control_message, fields=fields), target.keys)
        if not at % MESSAGES_PER_STEP:
            await asyncio.sleep(0)

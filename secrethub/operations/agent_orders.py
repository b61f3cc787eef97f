"""Handing an order of a rotation to the agent that it is for, and taking its answer.

An order discloses values, so it is decided as a read of the secret by that agent, and written down before it
leaves. Whether it still holds is for the rotation's own row to say.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from secrethub.engines.engine import circumstances
from secrethub.engines.identity import Identity
from secrethub.engines.rotators.command import AGENT, KIND
from secrethub.engines.rotators.generated import Shape
from secrethub.engines.rotators.rotator import Plan
from secrethub.engines.runtime import Core
from secrethub.engines.secret_rotation.record import Rotation, rotation_of
from secrethub.errors import IntegrityFailure, NotFound, PermissionDenied, Sealed, Unavailable
from secrethub.ids import new_uuid
from secrethub.operations.call import AgentCertificate
from secrethub.operations.decision import require
from secrethub.operations.identify import identify
from secrethub.operations.note import note
from secrethub.storage import agent_orders
from secrethub.storage.agent_orders import AgentOrder
from secrethub.storage.authority import ROTATIONS
from secrethub.wire.messages import AnswerOrder, Order
from secrethub.wire.said import without

_ATTEMPTS = 16


async def take(
    core: Core, credential: AgentCertificate, held: Collection[str], address: str | None
) -> Order | None:
    """Return something that an agent is to do; None when there is nothing more.

    Args:
        core: unsealed.
        credential: the agent's.
        held: ids of orders that it has in hand.
        address: the socket's peer.

    Raises:
        PermissionDenied: the agent is not good any more.
        IntegrityFailure: what was ordered is not authentic.
        Sealed, Unavailable: not now.
    """
    for _ in range(_ATTEMPTS):
        position = core.caches.position
        identity = await identify(core, credential, core.clock.now())
        try:
            async with core.database.read() as connection:
                found = await agent_orders.open_for(connection, core.keyring(), credential.agent_id)
        except IntegrityFailure as exc:
            await _report(core, "agents.order", identity, exc, address)
            raise
        order = None
        for one in found:
            if f"{one.rotation}/{one.run}" not in held:
                order = await _given(core, identity, one, address)
                if order is not None:
                    break
        if not core.unsealed:
            raise Sealed
        if not core.caches.moved(position, ()):
            return order
    raise Unavailable("authority changes faster than this can be decided")


async def answer(core: Core, credential: AgentCertificate, message: AnswerOrder, address: str | None) -> None:
    """Take an agent's word for how an order of its own ended; can be repeated.

    Raises:
        NotFound: it has no such order, or not any more.
        PermissionDenied: the agent is not good any more.
        IntegrityFailure: what was ordered is not authentic.
        Sealed, Unavailable: not now.
    """
    identity = await identify(core, credential, core.clock.now())
    rotation_id, _, run = message.order.rpartition("/")
    keyring = core.keyring()
    try:
        async with core.database.write() as connection:
            order = await agent_orders.locked(connection, keyring, rotation_id, int(run), message.step)
    except IntegrityFailure as exc:
        await _report(core, "agents.order-answer", identity, exc, address)
        raise
    held = order is not None and _is_held(order, credential.agent_id, message.attempt)
    valid = None if order is None or not held else await _current(core, order)
    said = "" if valid is None else _hidden(message.said, valid[1])
    await note(
        core,
        operation="agents.order-answer",
        path=f"agents/{credential.agent_id}" if valid is None else _path(valid[0]),
        actor=_actor(identity),
        outcome="refused" if valid is None else message.outcome,
        reason="it has no such order" if valid is None else said,
        client=address or "",
        door="agent",
        request_id=new_uuid(),
        detail={"order": message.order, "step": message.step, "attempt": message.attempt},
    )
    if order is None or valid is None:
        raise NotFound("there is no such order")
    async with core.database.write() as connection:
        now = await agent_orders.locked(connection, keyring, order.rotation, order.run, order.step)
        if now is None or not _is_held(now, credential.agent_id, message.attempt):
            raise NotFound("there is no such order")
        if not now.outcome:
            # A host without the command has done nothing, unless it had it before.
            undone = message.outcome == "unknown" and now.attempt == 1
            taken = 0 if undone else now.taken
            after = msgspec.structs.replace(now, outcome=message.outcome, said=said, taken=taken)
            await agent_orders.put(connection, keyring, after)


async def _given(core: Core, identity: Identity, order: AgentOrder, address: str | None) -> Order | None:
    """Return what an order says once that is written down; None when it must not be given."""
    valid = await _current(core, order)
    if valid is None:
        return None
    rotation, plan = valid
    path, denied = _path(rotation), ""
    try:
        await _decide(core, identity, rotation, address)
    except PermissionDenied as exc:
        denied = exc.reason
    async with core.database.write() as connection:
        now = await agent_orders.locked(connection, core.keyring(), order.rotation, order.run, order.step)
        if now is None or now.attempt != order.attempt or now.agent != order.agent or now.outcome:
            return None
        if denied:
            now = msgspec.structs.replace(now, outcome="denied")
        else:
            now = msgspec.structs.replace(now, taken=now.attempt)
        await agent_orders.put(connection, core.keyring(), now)
    command, field = rotation.definition.options["command"], Shape(rotation.definition.options).field
    await note(
        core,
        operation="agents.order",
        path=path,
        actor=_actor(identity),
        outcome="denied" if denied else "done",
        reason=denied,
        client=address or "",
        door="agent",
        request_id=new_uuid(),
        detail={"run": order.run, "step": order.step, "attempt": order.attempt, "command": command},
    )
    if denied:
        return None
    return msgspec.convert(
        {
            "order": f"{order.rotation}/{order.run}",
            "step": order.step,
            "attempt": order.attempt,
            "command": command,
            "path": rotation.key,
            "field": field,
            "value": None if order.step == "retire" else plan.fields[field],
            "old_value": plan.before.get(field) if order.step in {"retire", "undo"} else None,
        },
        Order,
    )


async def _current(core: Core, order: AgentOrder) -> tuple[Rotation, Plan] | None:
    """Return the rotation that an order is of, and its plan, if that is what the rotation waits for."""
    row = await core.authority.fetch(ROTATIONS, order.key)
    if row is None:
        return None
    rotation = rotation_of(row)
    run = rotation.run
    if run is None or rotation.uuid != order.rotation or rotation.definition.rotator != KIND:
        return None
    if (run.number, run.step, run.attempts + 1) != (order.run, order.step, order.attempt):
        return None
    plan = rotation.plan(core.keyring())
    return (rotation, plan) if plan.notes.get(AGENT) == order.agent else None


async def _decide(core: Core, identity: Identity, rotation: Rotation, address: str | None) -> None:
    """Decide whether the agent may read the secret.

    Raises:
        PermissionDenied: no.
    """
    found = await core.mounts.by_uuid(rotation.mount)
    if found is None or found[0].leaving:
        raise PermissionDenied("the secret's store is not mounted any more")
    path = f"{found[0].path}data/{rotation.path}"
    route = await core.mounts.route("read", path)
    await require(core, identity, route, "read", path, circumstances(identity, core.clock.now(), address))


async def _report(
    core: Core, operation: str, identity: Identity, exc: IntegrityFailure, address: str | None
) -> None:
    """Have it known that an agent's order is not authentic."""
    core.metrics.integrity_failures.labels(exc.table).inc()
    await note(
        core,
        operation=operation,
        path=f"agents/{identity.key}",
        actor=_actor(identity),
        outcome="refused",
        reason=f"integrity: {exc}",
        client=address or "",
        door="agent",
        request_id=new_uuid(),
    )


def _is_held(order: AgentOrder, agent: str, attempt: int) -> bool:
    """Tell whether an agent was given this attempt, and may speak of it."""
    given = order.taken == attempt or order.outcome == "unknown"
    return order.agent == agent and order.attempt == attempt and given


def _hidden(said: str, plan: Plan) -> str:
    return without(said, [*plan.fields.values(), *plan.before.values()])


def _path(rotation: Rotation) -> str:
    return f"sys/rotation/config/{rotation.key}"


def _actor(identity: Identity) -> str:
    return f"agent:{identity.key[:36]}:{identity.name}"

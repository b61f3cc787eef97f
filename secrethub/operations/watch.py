"""Being told of changes of a secret: decided as reading it would be, and written down.

A watch discloses that a secret changes, when, and to which version; never its value. So whoever may
read a secret may watch it, whether it exists yet or not, and nobody else.
"""

from __future__ import annotations

from secrethub.engines.engine import circumstances
from secrethub.engines.flat import flat_view
from secrethub.engines.identity import Identity
from secrethub.engines.runtime import Core
from secrethub.errors import IntegrityFailure, InvalidPath, NotFound, PermissionDenied, Sealed, Unavailable
from secrethub.ids import new_uuid
from secrethub.operations.call import AgentCertificate
from secrethub.operations.decision import require
from secrethub.operations.identify import IDENTITIES, identify
from secrethub.operations.note import note
from secrethub.wire.canonical_path import check_path

_OPERATION = "kv.watch"
_READ = "kv.read"
_ATTEMPTS = 16


async def watch(core: Core, credential: AgentCertificate, path: str, client_address: str | None) -> str:
    """Decide about a watch and write it down.

    Args:
        core: unsealed.
        credential: who asks.
        path: as a person writes it, in canonical form: ``secrets/prod/db``.
        client_address: the socket's peer.

    Returns:
        The key under which the stream of changes announces the secret, ``<uuid of the mount>/prod/db``.

    Raises:
        InvalidPath: not the canonical path of a secret.
        PermissionDenied: no; it is in the ledger.
        Sealed: there are no keys.
        Unavailable: it could not be decided or written down.
    """
    canonical = check_path(path)
    for attempt in range(_ATTEMPTS):
        position = core.caches.position
        identity: Identity | None = None
        key, denied = "", None
        try:
            identity = await identify(core, credential, core.clock.now())
            key = await _decide(core, identity, path, canonical, client_address)
        except (PermissionDenied, IntegrityFailure) as exc:
            denied = _denied(core, exc)
            if identity is None:
                core.throttle_anonymous.admit(core.clock.monotonic(), client_address)
        await note(
            core,
            operation=_OPERATION,
            path=flat_view("read", canonical),
            actor=_actor(credential, identity),
            outcome="done" if denied is None else "denied",
            reason="" if denied is None else denied.reason,
            client=client_address or "",
            door="agent",
            request_id=new_uuid(),
        )
        if not core.unsealed:
            raise Sealed
        # As for requests: a certificate that was given a moment ago may be good by now.
        if core.caches.moved(position, IDENTITIES if denied is not None and not attempt else ()):
            continue
        if denied is not None:
            raise denied
        return key
    raise Unavailable("authority changes faster than this watch can be decided")


async def may_watch(core: Core, credential: AgentCertificate, path: str, client_address: str | None) -> bool:
    """Decide again about a watch, without a record: nothing was asked.

    Raises:
        Sealed: there are no keys.
        Unavailable: the database does not answer.
        IntegrityFailure: a row that decides is not authentic.
    """
    try:
        identity = await identify(core, credential, core.clock.now())
        await _decide(core, identity, path, check_path(path), client_address)
    except (PermissionDenied, InvalidPath):
        return False
    return True


async def _decide(
    core: Core, identity: Identity, path: str, canonical: str, client_address: str | None
) -> str:
    """Return the key to watch.

    Raises:
        InvalidPath: the path is not a secret's.
        PermissionDenied: the identity may not read it.
    """
    real = flat_view("read", canonical)
    try:
        route = await core.mounts.route("read", real)
    except NotFound:
        route = None
    declared = route.operation if route is not None else None
    if path != canonical or real == path or route is None or declared is None or declared.name != _READ:
        raise InvalidPath("only secrets can be watched: secrets/<path>")
    assert declared.subject is not None
    when = circumstances(identity, core.clock.now(), client_address)
    await require(core, identity, route, "read", real, when)
    return f"{route.mount.uuid}/{route.params[declared.subject]}"


def _denied(core: Core, exc: PermissionDenied | IntegrityFailure) -> PermissionDenied:
    """Return what is answered; whoever meets a row that is not authentic is told no more than no."""
    if isinstance(exc, PermissionDenied):
        return exc
    core.metrics.integrity_failures.labels(exc.table).inc()
    return PermissionDenied(f"integrity: {exc}")


def _actor(credential: AgentCertificate, identity: Identity | None) -> str:
    name = "" if identity is None else f":{identity.name}"
    return f"agent:{credential.agent_id}{name}"

"""What sessions ask of Core: the ``Access`` port over the one path of every request."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import msgspec

from actors.sessions.ports import Credentials, IssuedCertificate, Peer, Secret
from secrethub.engines.agents.records import agent_policies, load
from secrethub.engines.agents.renewal import renew_agent_certificate
from secrethub.engines.bindings import Subject
from secrethub.engines.leasing import abandon
from secrethub.engines.runtime import Core
from secrethub.errors import (
    IntegrityFailure,
    NotFound,
    PermissionDenied,
    Sealed,
    SecretHubError,
    Unavailable,
)
from secrethub.operations import agent_orders
from secrethub.operations.call import AgentCertificate
from secrethub.operations.identify import IDENTITIES
from secrethub.operations.note import note
from secrethub.operations.watch import may_watch, watch
from secrethub.storage.agent_reports import Report
from secrethub.storage.authority import APPROLES
from secrethub.wire.messages import AnswerOrder, Checkpoint, Order
from serve.agent_gateway import leases
from serve.agent_gateway.requests import ask, checked_path
from serve.agent_gateway.uses import UsesWriter
from serve.agent_gateway.witnesses import Witnesses

_ATTEMPTS = 16
_READ = "kv.read"
CONNECT = "agents.connect"


class _Metadata(msgspec.Struct, frozen=True):
    version: int
    created_time: str


class CoreAccess:
    """The way from this process's sessions into Core."""

    def __init__(self, core: Core, uses: UsesWriter, witnesses: Witnesses) -> None:
        self._core = core
        self._uses = uses
        self._witnesses = witnesses

    async def admit(self, peer: Peer) -> frozenset[str]:
        """Check the peer's row, write the connection or its refusal down, and return what it rests on."""
        core = self._core
        for attempt in range(_ATTEMPTS):
            position = core.caches.position
            name, rests_on = "", frozenset[str]()
            refusal: SecretHubError | None = None
            try:
                name, rests_on = await self._standing(peer)
            except (PermissionDenied, IntegrityFailure) as exc:
                refusal = exc
                core.metrics.refusals.labels(exc.code).inc()
                core.throttle_anonymous.admit(core.clock.monotonic(), peer.address)
            await note(
                core,
                operation=CONNECT,
                path=f"agents/{peer.agent_id}",
                actor=f"agent:{peer.agent_id}" + (f":{name}" if name else ""),
                outcome="done" if refusal is None else "denied",
                reason="" if refusal is None else _reason(refusal),
                client=peer.address,
                door="agent",
                detail={"serial_number": peer.serial},
            )
            if not core.unsealed:
                raise Sealed
            # As for requests: the certificate may have been given a moment ago.
            if core.caches.moved(position, IDENTITIES if refusal is not None and not attempt else ()):
                continue
            if refusal is not None:
                raise refusal
            return rests_on
        raise Unavailable("authority changes faster than this connection can be decided")

    async def standing(self, peer: Peer, applications: Collection[str] = ()) -> frozenset[str]:
        """Check the peer's row."""
        rows = set((await self._standing(peer))[1])
        for name in applications:
            rows.add(f"bindings/{Subject('application', name).key}")
            # What is not authentic is met again by the read itself, which writes its refusal down.
            with contextlib.suppress(IntegrityFailure):
                bound = await self._core.bindings.policies(Subject("application", name))
                rows.update(f"policies/{policy}" for policy in bound)
        return frozenset(rows)

    async def _standing(self, peer: Peer) -> tuple[str, frozenset[str]]:
        """Return the agent's name and the authority rows that decide what it may do.

        An agent whose role is gone may do nothing, but it is not revoked: it stays connected, and
        may enrol again under a role that is made anew.

        Raises:
            PermissionDenied: the agent is unknown or revoked, or the certificate is no longer good.
        """
        found = await load(self._core, peer.agent_id)
        if found is None:
            raise PermissionDenied("the agent is unknown")
        agent = found[1]
        agent.standing.check(peer.serial, self._core.clock.now())
        role = await self._core.authority.get(APPROLES, agent.role)
        policies: tuple[str, ...] = ()
        if role is not None:
            own, bound = await agent_policies(self._core, peer.agent_id, role)
            policies = own + bound
        return agent.name, frozenset(
            {
                f"agents/{peer.agent_id}",
                f"approles/{agent.role}",
                f"bindings/{Subject('approle', agent.role).key}",
                f"bindings/{Subject('agent', peer.agent_id).key}",
                *(f"policies/{policy}" for policy in policies),
            }
        )

    async def read(
        self, peer: Peer, path: str, version: int | None, application: str | None = None
    ) -> Secret:
        """Read a secret."""
        canonical = await checked_path(
            self._core,
            peer,
            path,
            application,
            theirs={_READ},
            operation=_READ,
            why_not="agents read secrets: secrets/<path>",
        )
        query = {} if version is None else {"version": str(version)}
        answer = await ask(self._core, peer, "read", canonical, query=query, application=application)
        if answer.missing or answer.data is None:
            raise NotFound("this version is deleted")
        metadata = msgspec.convert(answer.data["metadata"], _Metadata)
        return Secret(
            data=_object(answer.data["data"]),
            version=metadata.version,
            generation=self._core.caches.generation,
            created_time=metadata.created_time,
        )

    async def watch(self, peer: Peer, path: str) -> str:
        """Decide about a watch."""
        key = await watch(self._core, _credential(peer), path, peer.address)
        self._uses.watched(peer.agent_id, key, peer.session)
        return key

    def unwatched(self, peer: Peer, key: str) -> None:
        """Have it written down that a watch ended."""
        self._uses.unwatched(peer.agent_id, key, peer.session)

    def confirmed(self, peer: Peer, key: str, version: int) -> None:
        """Have it written down that a version is in use."""
        self._uses.confirmed(peer.agent_id, key, peer.session, version)

    def reported(self, peer: Peer, report: Report) -> None:
        """Have it written down how the agent's files are."""
        self._uses.reported(peer.agent_id, report)

    async def may_still_watch(self, peer: Peer, path: str) -> bool:
        """Decide again about a watch."""
        return await may_watch(self._core, _credential(peer), path, peer.address)

    def witnessed(self, witness: bytes) -> None:
        """Have a checkpoint that an agent keeps compared with the ledger."""
        self._witnesses.hear(witness)

    def checkpoint(self, seen: bytes) -> Checkpoint | None:
        """Return the newest checkpoint of the ledger for an agent."""
        return self._witnesses.checkpoint(seen)

    async def renew(self, peer: Peer, csr: str) -> IssuedCertificate:
        """Renew the peer's certificate."""
        renewed = await renew_agent_certificate(
            self._core, peer.agent_id, peer.serial, csr, client_address=peer.address
        )
        return IssuedCertificate(certificate=renewed.certificate, ca_chain=renewed.ca_chain)

    async def issue(self, peer: Peer, path: str, application: str | None = None) -> Credentials:
        """Have credentials made."""
        return await leases.issue(self._core, peer, path, application)

    async def renew_lease(self, peer: Peer, lease_id: str) -> int:
        """Let a lease last longer."""
        return await leases.renew_lease(self._core, peer, lease_id)

    async def revoke_lease(self, peer: Peer, lease_id: str) -> None:
        """End a lease."""
        await leases.revoke_lease(self._core, peer, lease_id)

    async def abandon(self, peer: Peer, lease_id: str) -> None:
        """Have a lease ended that nobody knows of."""
        await abandon(self._core, lease_id, f"agent:{peer.agent_id}")

    async def take_order(self, peer: Peer, held: tuple[str, ...]) -> Order | None:
        """Hand an order over."""
        return await agent_orders.take(self._core, _credential(peer), held, peer.address)

    async def answer_order(self, peer: Peer, message: AnswerOrder) -> None:
        """Take an answer."""
        await agent_orders.answer(self._core, _credential(peer), message, peer.address)


def _credential(peer: Peer) -> AgentCertificate:
    return AgentCertificate(agent_id=peer.agent_id, serial=peer.serial)


def _reason(exc: SecretHubError) -> str:
    return exc.reason if isinstance(exc, PermissionDenied) else f"integrity: {exc}"


def _object(value: Any) -> dict[str, Any]:
    """Return a secret's value; the engine hands it over as JSON, unread."""
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value, type=dict[str, Any])
    return dict(value)

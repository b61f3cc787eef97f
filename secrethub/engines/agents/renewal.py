"""Renewal of an agent's certificate over its own connection.

The connection proves the certificate in use; the request's signature proves the new key, which may
be another one. The certificate in use stays good beside the new one until it ends or the new one is
used for the next renewal, so that an answer lost on the way locks nobody out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secrethub.audit.event import Outcome
from secrethub.audit.masking import canonical_json
from secrethub.engines.agents.enrolment import certify, inventory_row
from secrethub.engines.agents.records import instant, load, require, store
from secrethub.engines.own_changes import present_fence
from secrethub.engines.pki.authorities import load_issuer
from secrethub.engines.runtime import Core
from secrethub.errors import PermissionDenied, SecretHubError, Stale, Unavailable
from secrethub.ids import new_uuid
from secrethub.pki.chain import serial_text, to_pem, validity
from secrethub.pki.csr import SigningRequest, parse_request
from secrethub.pki.keys import describe
from secrethub.pki.profiles import TRANSPORT
from secrethub.storage import certificates
from secrethub.storage.ledger import Note

_ATTEMPTS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class RenewedCertificate:
    """A new certificate for an agent: PEM, with the authorities above it, the root last."""

    certificate: str
    ca_chain: tuple[str, ...]
    serial: str
    not_after: datetime


async def renew_agent_certificate(
    core: Core, agent_id: str, serial: str, csr_pem: str, client_address: str | None = None
) -> RenewedCertificate:
    """Issue a new certificate to the agent that is connected with the certificate ``serial``.

    Intent and outcome are in the ledger, durable before anything happens and before this returns.

    Args:
        core: unsealed.
        agent_id: from the verified certificate of the connection.
        serial: of that certificate.
        csr_pem: signed by the key to be certified; its subject and extensions are not read.
        client_address: the socket's peer, for the ledger.

    Raises:
        PermissionDenied: the agent is unknown or revoked, or the certificate is not good any more.
        InvalidRequest: the request cannot be used.
        Sealed: there are no keys.
        Unavailable: the database or the ledger does not answer.
    """
    audit = _Audit(core, agent_id, client_address)
    await audit.write("intent", "begun", serial=serial)
    try:
        renewed = await _renew(core, agent_id, serial, parse_request(csr_pem), audit.written)
    except SecretHubError as exc:
        denied = isinstance(exc, PermissionDenied)
        await audit.write("outcome", "denied" if denied else "failed", reason=str(exc), serial=serial)
        raise
    await audit.write("outcome", "done", serial=renewed.serial)
    return renewed


async def _renew(
    core: Core, agent_id: str, serial: str, request: SigningRequest, written: list[dict[str, Any]]
) -> RenewedCertificate:
    for _ in range(_ATTEMPTS):
        now = core.clock.now()
        known = await load(core, agent_id)
        if known is None:
            raise PermissionDenied("the agent is unknown")
        known[1].standing.check(serial, now)
        issuer = await load_issuer(core, TRANSPORT.name)
        made = certify(issuer, agent_id, request, now)
        fence = present_fence(core, written)
        try:
            # Nothing is taken away from anybody: what drops out of the row is the certificate that
            # the one in use replaced.
            async with core.authority.issue(fence) as change:
                row, agent = await require(core, agent_id, change)
                end = validity(made).not_after
                standing = agent.standing.renewed(serial, serial_text(made.serial_number), end, now)
                renewed = agent.with_standing(standing, **_newest(request, made.serial_number, end, now))
                await store(change, agent_id, renewed, over=row)
                await certificates.record(change.connection, inventory_row(agent_id, made, now))
        except Stale:
            await core.ledger.look()
            continue
        return RenewedCertificate(
            certificate=to_pem(made),
            ca_chain=tuple(to_pem(above) for above in issuer.chain),
            serial=serial_text(made.serial_number),
            not_after=end,
        )
    raise Unavailable("authority changes faster than this renewal can be decided")


def _newest(request: SigningRequest, number: int, end: datetime, now: datetime) -> dict[str, str]:
    return {
        "certificate_serial": serial_text(number),
        "certificate_not_after": instant(end),
        "key_digest": request.key_digest,
        "key_type": describe(request.public_key),
        "renewed_at": instant(now),
    }


class _Audit:
    """The ledger entries of one renewal."""

    def __init__(self, core: Core, agent_id: str, client_address: str | None) -> None:
        self._core = core
        self._agent_id = agent_id
        self._client = client_address or ""
        self._request_id = new_uuid()
        self.written: list[dict[str, Any]] = []
        """What was changed, for the outcome."""

    async def write(self, kind: str, outcome: Outcome, *, reason: str = "", serial: str = "") -> None:
        detail: dict[str, Any] = {"serial_number": serial}
        if self.written:
            detail["written"] = self.written
        await self._core.ledger.append(
            Note(
                kind="intent" if kind == "intent" else "outcome",
                request_id=self._request_id,
                actor=f"agent:{self._agent_id}",
                operation="agents.renew",
                path=f"agents/{self._agent_id}/certificate",
                outcome=outcome,
                reason=reason,
                client=self._client,
                door="agent",
                detail=canonical_json(detail),
            )
        )

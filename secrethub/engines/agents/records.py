"""The row of an agent: its form, its key, and what of it is shown.

An agent's id is a UUID that Core derives from its name under a key of the cluster (RFC 9562,
version 8). So a name has one row, two enrolments of one name meet in it, and that a name is free is
as authentic as any row.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from secrethub.crypto.digests import mac
from secrethub.engines.auth_methods import called
from secrethub.engines.bindings import Subject
from secrethub.engines.runtime import Core
from secrethub.errors import NotFound
from secrethub.ids import is_uuid
from secrethub.pki.revocation import Standing, serials_to_json, standing_from_json
from secrethub.policy.builtin import DEFAULT
from secrethub.storage.authority import AGENTS, Change, Row

_PURPOSE = "agent-id"


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operator's word that a name may be enrolled once more, with another key.

    Attributes:
        until: when it lapses, RFC 3339.
        role: the AppRole role that the enrolment must come from.
    """

    until: str
    role: str


class Agent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an agent's row says.

    Attributes:
        name: chosen by the host, unique.
        role: key of the AppRole role whose policies are the agent's, resolved at each decision.
        role_uuid: which role of that name: one made anew after a deletion is another.
        status: ``active`` or ``revoked``.
        serials: serial numbers of its good certificates, with the end of each.
        certificate_serial: the newest of them.
        certificate_not_after: its end.
        key_digest: SHA-256 of the public key last certified.
        key_type: kind of that key.
        version: the agent's own version, as it said.
        labels: as it said; nothing is decided by them.
        approval: set by an operator, cleared by the next enrolment or revocation.
    """

    name: str
    role: str
    role_uuid: str
    status: str
    serials: dict[str, str]
    certificate_serial: str
    certificate_not_after: str
    key_digest: str
    key_type: str
    version: str
    labels: dict[str, str]
    enrolled_at: str
    renewed_at: str | None = None
    revoked_at: str | None = None
    approval: Approval | None = None

    @property
    def standing(self) -> Standing:
        """Which certificates are good.

        Raises:
            PermissionDenied: the row cannot be read.
        """
        return standing_from_json(self.status, self.serials)

    def with_standing(self, standing: Standing, **changed: Any) -> Agent:
        """Return a copy with another standing and other fields."""
        return msgspec.structs.replace(
            self, status=standing.status, serials=serials_to_json(standing), **changed
        )

    def approved(self, role: str, now: datetime) -> bool:
        """Tell whether an operator lets ``role`` enrol this name with another key now."""
        approval = self.approval
        return approval is not None and approval.role == role and now < datetime.fromisoformat(approval.until)


def agent_id_of(core: Core, name: str) -> str:
    """Return the id of the agent called ``name``, whether it has enrolled or not."""
    raw = bytearray(mac(core.keyring().derived(_PURPOSE), _PURPOSE, name)[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


async def load(core: Core, agent_id: str, change: Change | None = None) -> tuple[Row, Agent] | None:
    """Return an agent's row, straight from the database when a transaction is given, or None.

    Raises:
        IntegrityFailure: the row is not authentic.
    """
    if not is_uuid(agent_id):
        return None
    if change is None:
        row = await core.authority.get(AGENTS, agent_id)
    else:
        row = await core.authority.fetch(AGENTS, agent_id, change.connection)
    return None if row is None else (row, msgspec.convert(dict(row.body), Agent))


async def require(core: Core, agent_id: str, change: Change | None = None) -> tuple[Row, Agent]:
    """Return an agent's row as :func:`load`.

    Raises:
        NotFound: there is no such agent.
        IntegrityFailure: the row is not authentic.
    """
    found = await load(core, agent_id, change)
    if found is None:
        raise NotFound("no such agent")
    return found


async def store(change: Change, agent_id: str, agent: Agent, *, over: Row | None) -> None:
    """Write an agent's row in place of ``over``.

    Raises:
        Conflict: another row is there.
    """
    body = msgspec.to_builtins(agent)
    await change.put(
        AGENTS, agent_id, body, owner=agent.role, expected_revision=0 if over is None else over.revision
    )


async def agent_policies(core: Core, agent_id: str, role: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the policies of an agent now: those of its role, and those bound to the role or to itself.

    As for tokens of the role, ``default`` is among its own unless the role says no.

    Raises:
        IntegrityFailure: a binding is not authentic.
    """
    without = role.body.get("token_no_default_policy", False) or DEFAULT in role.body["token_policies"]
    own = (*role.body["token_policies"], *(() if without else (DEFAULT,)))
    bound = await core.bindings.policies(
        Subject("approle", role.key, role.body["uuid"]), Subject("agent", agent_id)
    )
    return own, bound.beyond(own)


async def shown(core: Core, agent_id: str, agent: Agent) -> dict[str, Any]:
    """Return what lookups show of an agent."""
    hidden = {"serials", "key_digest", "role_uuid"}
    fields = {name: value for name, value in msgspec.to_builtins(agent).items() if name not in hidden}
    for named in (fields, fields["approval"]):
        if named is not None:
            named["role"] = await called(core, "approle", named["role"])
    return {"agent_id": agent_id, **fields}


def instant(when: datetime) -> str:
    """Return an instant as rows hold it."""
    return when.astimezone(UTC).isoformat()

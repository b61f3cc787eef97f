"""The endpoints below ``agents/``: enrolment, inventory, approval and revocation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from secrethub.engines.agents import enrolment
from secrethub.engines.agents.answers import AgentAnswer, ApprovedAnswer, EnrolledAnswer, NonceAnswer
from secrethub.engines.agents.enrolment import AGENTS_MOUNT, BeginRequest, EnrollRequest
from secrethub.engines.agents.records import Approval, instant, require, shown, store
from secrethub.engines.answers import Names, Nothing
from secrethub.engines.approle.role import role_key
from secrethub.engines.auth_methods import called, chosen
from secrethub.engines.bindings import Subject, end_bindings
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.listing import PAGES
from secrethub.engines.listing import shown as visible
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_uuid
from secrethub.storage import agent_reports, certificates
from secrethub.storage.authority import AGENTS, APPROLES
from secrethub.storage.lease_ends import order_for_owners
from secrethub.wire.durations import format_rfc3339

APPROVAL_LIFE = timedelta(hours=1)
_PAGE = 1000


class RevokeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say beside the path."""


class ApproveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``role``: the AppRole role that may enrol the name; by default the agent's own."""

    role: str | None = None


class AgentsEngine:
    """Engine kind ``agents``, built in at ``agents/``."""

    kind = "agents"

    def native_prefix(self, mount: str) -> str:
        """Return the prefix of native rules: paths are written as they are."""
        return mount

    def operations(self) -> tuple[Operation, ...]:
        """Return what can be done with agents."""
        return (
            Operation(
                name="agents.begin",
                method="write",
                pattern="enroll/begin",
                handler=enrolment.begin,
                response=NonceAnswer,
                capability="update",
                request=BeginRequest,
                changes=True,
                strict=True,
                summary="Ask for the nonce of an enrolment.",
            ),
            Operation(
                name="agents.enroll",
                method="write",
                pattern="enroll",
                handler=enrolment.enroll,
                response=EnrolledAnswer,
                capability="update",
                request=EnrollRequest,
                changes=True,
                strict=True,
                plain=frozenset({"name", "version"}),
                summary="Enrol this host: a certificate for a signing request.",
            ),
            *(
                Operation(
                    name="agents.list",
                    method=method,
                    pattern="",
                    handler=self.list,
                    response=Names,
                    capability="list",
                    query=PAGES,
                    summary="List agents.",
                )
                for method in ("list", "read")
            ),
            Operation(
                name="agents.read",
                method="read",
                pattern="{agent_id}",
                handler=self.read,
                response=AgentAnswer,
                capability="read",
                summary="Show one agent.",
            ),
            Operation(
                name="agents.revoke",
                method="write",
                pattern="{agent_id}/revoke",
                handler=self.revoke,
                response=Nothing,
                capability="update",
                request=RevokeRequest,
                changes=True,
                strict=True,
                summary="Revoke an agent: its connection ends and its certificates are worth nothing.",
            ),
            Operation(
                name="agents.approve",
                method="write",
                pattern="{agent_id}/approve",
                handler=self.approve,
                response=ApprovedAnswer,
                capability="update",
                request=ApproveRequest,
                changes=True,
                strict=True,
                plain=frozenset({"role"}),
                summary="Let an agent's name be enrolled once more, with another key.",
            ),
        )

    async def list(self, context: Context, _body: object) -> Answer:
        """List agents in the order of their ids, a page of 1,000 at a time; ``after`` goes on."""
        context.depends("issued", "agents/")
        core = context.core
        after = context.query.get("after", "")
        if after and not is_uuid(after):
            raise InvalidRequest("after is the id of an agent")
        found = await core.authority.keys(AGENTS, after=after, limit=_PAGE)
        info: dict[str, Any] = {}
        for agent_id in await visible(context, found):
            _, agent = await require(core, agent_id)
            info[agent_id] = await shown(core, agent_id, agent)
        if not found:
            raise NotFound
        warnings = (f"there may be more: list again with after={found[-1]}",) if len(found) == _PAGE else ()
        return Answer(data={"keys": list(info), "key_info": info}, warnings=warnings)

    async def read(self, context: Context, _body: object) -> Answer:
        """Show one agent, with what it said last of its files; null when it never said anything."""
        agent_id = context.params["agent_id"]
        core = context.core
        context.depends("issued", f"agents/{agent_id}")
        _, agent = await require(core, agent_id)
        async with core.database.read() as connection:
            said = await agent_reports.read(connection, agent_id)
        told = None
        if said is not None:
            told = {**msgspec.to_builtins(said[0]), "since": format_rfc3339(said[1])}
        return Answer(data={**await shown(core, agent_id, agent), "report": told})

    async def revoke(self, context: Context, _body: RevokeRequest) -> Answer:
        """Revoke an agent. Effective on every node before this returns; can be repeated.

        What is bound to it goes, too, and its leases end. The host's AppRole credentials are not touched:
        destroy its SecretID as well, or it may enrol under another name.
        """
        agent_id = context.params["agent_id"]
        core = context.core
        async with core.authority.change(context.fence) as change:
            row, agent = await require(core, agent_id, change)
            revoked = agent.with_standing(
                agent.standing.revoked(),
                revoked_at=agent.revoked_at or instant(context.now),
                approval=None,
            )
            await store(change, agent_id, revoked, over=row)
            for failure in await end_bindings(change, [Subject("agent", agent_id)]):
                core.metrics.integrity_failures.labels(failure.table).inc()
            await certificates.mark_revoked(change.connection, AGENTS_MOUNT, agent_id, context.now)
            await order_for_owners(change.connection, [agent_id])
        return EMPTY

    async def approve(self, context: Context, body: ApproveRequest) -> Answer:
        """Let the name be enrolled once, within an hour, with another key or after revocation.

        Until then nothing changes: an active agent stays active, a revoked one revoked.
        """
        agent_id = context.params["agent_id"]
        core = context.core
        until = instant(context.now + APPROVAL_LIFE)
        async with core.authority.change(context.fence) as change:
            row, agent = await require(core, agent_id, change)
            role = agent.role
            if body.role is not None:
                role = role_key(*await chosen(core, "approle", body.role))
            if await core.authority.fetch(APPROLES, role, change.connection) is None:
                raise InvalidRequest("there is no such AppRole role")
            approved = msgspec.structs.replace(agent, approval=Approval(until=until, role=role))
            await store(change, agent_id, approved, over=row)
        told = await called(core, "approle", role)
        data = {"agent_id": agent_id, "name": agent.name, "role": told, "approved_until": until}
        return Answer(data=data, detail=data)

"""Agents and certificate authorities, written by a database administrator: refused and on record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from authority_core import Running
from enrolled_hosts import Host, certificate_of, enrolling_hub, host_of, read, sql

from secrethub.errors import IntegrityFailure, PermissionDenied
from secrethub.operations.call import AgentCertificate
from secrethub.operations.watch import watch
from secrethub.storage.authority_rows import AGENTS
from tests.gateway.behind import reasons


@pytest.fixture
async def hub(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process on a fresh cluster, with a policy and a secret."""
    async with enrolling_hub(database_url, tmp_path) as started:
        yield started


@pytest.fixture
async def host(hub: Running) -> Host:
    """A host of the role ``web``, logged in."""
    return await host_of(hub, "web")


async def _refused(hub: Running, agent: AgentCertificate, why: str) -> None:
    """Check that an agent neither reads nor watches, and that the ledger names its row and the ground."""
    before = hub.core.metrics.integrity_failures.labels("agents")._value.get()
    for _ in range(2):
        with pytest.raises(PermissionDenied):
            await read(hub, agent)
    with pytest.raises(PermissionDenied):
        await watch(hub.core, agent, "secrets/app/db", None)
    assert hub.core.metrics.integrity_failures.labels("agents")._value.get() >= before + 3
    wanted = f"agents row {agent.agent_id}: {why}"
    for operation in ("kv.read", "kv.watch"):
        told = await reasons(hub.url, operation=operation)
        assert any(wanted in reason for reason in told), told


async def test_a_revoked_agent_made_active(hub: Running, host: Host) -> None:
    """A revoked agent whose row was edited back to active stays out; another agent goes on."""
    other_host = await host_of(hub, "db")
    names = [f"db-{n}" for n in range(2)]
    agent = certificate_of(await host.enroll("web-1"))
    other = certificate_of(await other_host.enroll(names[0]))
    if AGENTS.bucket(other.agent_id) == AGENTS.bucket(agent.agent_id):
        other = certificate_of(await other_host.enroll(names[1]))
    await hub.ask("write", f"agents/{agent.agent_id}/revoke", {})
    await sql(
        hub,
        """UPDATE agents SET body = jsonb_set(body, '{status}', '"active"') WHERE key = $1""",
        agent.agent_id,
    )
    await _refused(hub, agent, "the row was edited")
    assert await read(hub, other) == "canary-1"


async def test_a_former_row_of_an_agent(hub: Running, host: Host) -> None:
    """The row that an agent had before it was revoked does not let it in again."""
    agent = certificate_of(await host.enroll())
    assert await read(hub, agent) == "canary-1"
    row = (await sql(hub, "SELECT * FROM agents WHERE key = $1", agent.agent_id))[0]
    await hub.ask("write", f"agents/{agent.agent_id}/revoke", {})
    await sql(
        hub,
        """UPDATE agents SET revision = $2, body = $3::text::jsonb, owner = $4, expires_at = $5, mac = $7
           WHERE key = $1 AND bucket = $6""",
        *row.values(),
    )
    await _refused(hub, agent, "a row was inserted, removed or put back")


async def test_an_agent_with_another_role(hub: Running, host: Host) -> None:
    """An agent that was given another role by SQL reads nothing."""
    agent = certificate_of(await host.enroll())
    await hub.role("admin", "root-like")
    await sql(hub, "UPDATE agents SET body = jsonb_set(body, '{role}', '\"admin\"')")
    await _refused(hub, agent, "the row was edited")


async def test_a_removed_agent(hub: Running, host: Host) -> None:
    """An agent whose row was deleted by hand is missed, and its name is not free."""
    agent = certificate_of(await host.enroll())
    await sql(hub, "DELETE FROM agents WHERE key = $1", agent.agent_id)
    await _refused(hub, agent, "a row was inserted, removed or put back")
    with pytest.raises(IntegrityFailure):
        await host.enroll()


async def test_an_authority_that_was_swapped(hub: Running) -> None:
    """Nothing is issued under an authority or a role whose row is not authentic."""
    body = {"common_name": "host.example.com"}
    await hub.ask("write", "pki/issue", body)
    await sql(hub, "UPDATE pki_roles SET body = jsonb_set(body, '{max_ttl}', '999999999')")
    with pytest.raises(IntegrityFailure):
        await hub.ask("write", "pki/issue", body)
    assert any("pki_roles row" in reason for reason in await reasons(hub.url, operation="pki.issue"))


async def test_authorities_are_authentic(hub: Running) -> None:
    """An authority whose chain was edited signs nothing and is not shown."""
    body = {"common_name": "host.example.com"}
    await sql(hub, "UPDATE certificate_authorities SET body = jsonb_set(body, '{chain}', '\"x\"')")
    with pytest.raises(IntegrityFailure):
        await hub.ask("write", "pki/issue", body)
    with pytest.raises(IntegrityFailure):
        await hub.ask("read", "pki/ca", token=None)
    told = await reasons(hub.url, operation="pki.ca")
    assert any("certificate_authorities row" in reason for reason in told)

"""Taken names, approval, revocation, renewal and rights of agents, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from authority_core import Running
from enrolled_hosts import (
    Host,
    certificate_of,
    host_of,
    own_host,
    own_hub,
    read,
    refused,
    shared_host,
    shared_hub,
    sql,
)

from secrethub.engines.agents import renew_agent_certificate
from secrethub.errors import (
    Conflict,
    IntegrityFailure,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    SecretHubError,
)
from secrethub.operations.call import AgentCertificate
from secrethub.pki import chain, keys
from secrethub.pki.csr import make_request
from tests.gateway.conftest import SHARING

__all__ = ["own_host", "own_hub", "shared_host", "shared_hub"]  # fixtures
pytestmark = SHARING


@pytest.fixture
def hub(shared_hub: Running) -> Running:
    """A process of all tests here, each of which has names of its own."""
    return shared_hub


@pytest.fixture
def host(shared_host: Host) -> Host:
    """A host of the role ``web`` with a name of its own, logged in."""
    return shared_host


async def _renewals(hub: Running, *agent_ids: str) -> list[Any]:
    """Return the entries of these agents' renewals."""
    return await sql(
        hub,
        "SELECT * FROM audit_entries WHERE operation = 'agents.renew' AND path = ANY($1) ORDER BY at",
        [f"agents/{agent_id}/certificate" for agent_id in agent_ids],
    )


async def test_a_taken_name_needs_its_key(hub: Running, host: Host) -> None:
    """Another key does not get an existing name, not even with a token of the same role."""
    first = await host.enroll()
    thief = Host(hub=hub, token=host.token, name=host.name)
    with pytest.raises(Conflict, match="exists"):
        await thief.enroll()
    other_role = await host_of(hub, "db", key=host.key, name=host.name)
    with pytest.raises(Conflict):
        await other_role.enroll()
    assert await read(hub, certificate_of(first)) == "canary-1"


async def test_the_same_key_enrols_again(hub: Running, host: Host) -> None:
    """A host that lost its certificate gets another for its key; the one before ends at once."""
    first, second = await host.enroll(), await host.enroll()
    assert second["agent_id"] == first["agent_id"]
    assert await read(hub, certificate_of(second)) == "canary-1"
    await refused(hub, certificate_of(first))


async def test_one_name_enrolled_at_once_has_one_holder(hub: Running, host: Host) -> None:
    """Of several hosts that want one new name at the same moment, exactly one gets it."""
    hosts = [Host(hub=hub, token=host.token, name=host.name) for _ in range(4)]
    results = await asyncio.gather(*(h.enroll() for h in hosts), return_exceptions=True)
    assert sum(isinstance(result, Mapping) for result in results) == 1
    assert all(isinstance(result, Mapping | Conflict) for result in results)
    assert len(await sql(hub, "SELECT 1 FROM agents WHERE body->>'name' = $1", host.name)) == 1


async def test_an_operator_approves_another_key(hub: Running, host: Host) -> None:
    """After an approval the name is enrolled once with another key; the old certificate ends then."""
    first = await host.enroll()
    rebuilt = Host(hub=hub, token=host.token, name=host.name)
    approved = await hub.data("write", f"agents/{first['agent_id']}/approve", {})
    assert (approved["name"], approved["role"]) == (host.name, "web")
    assert await read(hub, certificate_of(first)) == "canary-1"
    second = await rebuilt.enroll()
    assert second["agent_id"] == first["agent_id"]
    await refused(hub, certificate_of(first))
    with pytest.raises(Conflict):
        await Host(hub=hub, token=host.token, name=host.name).enroll()


async def test_an_approval_is_for_one_role_and_lapses(own_hub: Running, own_host: Host) -> None:
    """An approval holds for the role it names and for an hour."""
    first = await own_host.enroll()
    path = f"agents/{first['agent_id']}/approve"
    stranger = await host_of(own_hub, "db")
    await own_hub.ask("write", path, {})
    with pytest.raises(Conflict):
        await stranger.enroll()
    await own_hub.ask("write", path, {"role": "db"})
    with pytest.raises(Conflict):
        await Host(hub=own_hub, token=own_host.token).enroll()
    moved = await stranger.enroll()
    assert (await own_hub.data("read", f"agents/{moved['agent_id']}"))["role"] == "db"
    await own_hub.ask("write", path, {})
    own_hub.clock.ahead += timedelta(hours=1, seconds=1)
    with pytest.raises(Conflict):
        await Host(hub=own_hub, token=stranger.token).enroll()
    for role in ("none", "../web"):
        with pytest.raises(InvalidRequest):
            await own_hub.ask("write", path, {"role": role})


async def test_hosts_cannot_approve_or_revoke(hub: Running, host: Host) -> None:
    """Neither an enrolling token nor an agent may approve, revoke, list or read agents."""
    first = await host.enroll()
    agent = certificate_of(first)
    for method, tail in (
        ("write", f"/{first['agent_id']}/approve"),
        ("write", f"/{first['agent_id']}/revoke"),
        ("read", f"/{first['agent_id']}"),
        ("read", ""),
        ("list", ""),
    ):
        for how in ({"token": host.token}, {"agent": agent}, {"token": None}):
            with pytest.raises(PermissionDenied):
                await hub.ask(method, "agents" + tail, {}, **how)  # type: ignore[arg-type]


async def test_revocation_is_effective_at_once(hub: Running, host: Host) -> None:
    """A revoked agent reads nothing, renews nothing and does not come back with its key."""
    made = await host.enroll()
    agent = certificate_of(made)
    await hub.ask("write", f"agents/{made['agent_id']}/approve", {})
    await hub.ask("write", f"agents/{made['agent_id']}/revoke")
    await refused(hub, agent)
    with pytest.raises(PermissionDenied):
        await renew_agent_certificate(hub.core, agent.agent_id, agent.serial, make_request(host.key))
    with pytest.raises(Conflict):
        await host.enroll()
    with pytest.raises(Conflict):
        await Host(hub=hub, token=host.token, name=host.name).enroll()
    shown = await hub.data("read", f"agents/{made['agent_id']}")
    assert (shown["status"], shown["approval"]) == ("revoked", None)
    await hub.ask("write", f"agents/{made['agent_id']}/revoke", {})
    assert (await hub.data("read", f"agents/{made['agent_id']}"))["revoked_at"] == shown["revoked_at"]
    query = "SELECT revoked_at FROM certificates WHERE mount = 'agents/' AND subject = $1"
    rows = await sql(hub, query, made["agent_id"])
    assert rows
    assert all(row["revoked_at"] is not None for row in rows)


async def test_a_revoked_name_comes_back_by_approval(hub: Running, host: Host) -> None:
    """After revocation only an operator's approval brings the name back, with new certificates only."""
    made = await host.enroll()
    await hub.ask("write", f"agents/{made['agent_id']}/revoke")
    await hub.ask("write", f"agents/{made['agent_id']}/approve", {})
    await refused(hub, certificate_of(made))
    again = await Host(hub=hub, token=host.token, name=host.name).enroll()
    assert await read(hub, certificate_of(again)) == "canary-1"
    await refused(hub, certificate_of(made))


async def test_an_unknown_agent_is_not_found(hub: Running, host: Host) -> None:
    """Ids that name nobody, and what is no id, are 404 for operators."""
    for agent_id in ("3c0f5a52-9b3f-4f0d-8f7b-0d9a4c1b2e10", "web-1", "enroll-x"):
        for method, tail in (("read", ""), ("write", "/revoke"), ("write", "/approve")):
            with pytest.raises(NotFound):
                await hub.ask(method, f"agents/{agent_id}{tail}", {})  # type: ignore[arg-type]


async def test_an_agents_id_with_anothers_serial_is_nobody(hub: Running, host: Host) -> None:
    """Id and serial number must belong together."""
    one, two = await host.enroll(), await host.enroll(f"{host.name}-2")
    crossed = AgentCertificate(agent_id=one["agent_id"], serial=certificate_of(two).serial)
    await refused(hub, crossed)
    with pytest.raises(PermissionDenied):
        await renew_agent_certificate(hub.core, crossed.agent_id, crossed.serial, make_request(host.key))


async def test_an_agent_renews_its_certificate(hub: Running, host: Host) -> None:
    """Both certificates are good after a renewal, with a new key; the older ends with the next one."""
    made = await host.enroll()
    first = certificate_of(made)
    key = keys.generate("ecdsa-p256")
    renewed = await renew_agent_certificate(hub.core, first.agent_id, first.serial, make_request(key))
    leaf = chain.from_pem(renewed.certificate)[0]
    assert leaf.public_key() == key.public_key()
    assert chain.agent_name(leaf).agent_id == first.agent_id
    second = AgentCertificate(agent_id=first.agent_id, serial=renewed.serial)
    assert await read(hub, first) == await read(hub, second) == "canary-1"
    third = await renew_agent_certificate(hub.core, second.agent_id, second.serial, make_request(key))
    await refused(hub, first)
    assert await read(hub, second) == "canary-1"
    assert await read(hub, AgentCertificate(agent_id=first.agent_id, serial=third.serial)) == "canary-1"
    with pytest.raises(Conflict):
        await host.enroll()
    outcomes = [row["outcome"] for row in await _renewals(hub, first.agent_id)]
    assert outcomes == ["begun", "done", "begun", "done"]


async def test_a_renewal_names_nothing_itself(hub: Running, host: Host) -> None:
    """A bad request renews nothing, and the ledger says so."""
    agent = certificate_of(await host.enroll())
    with pytest.raises(InvalidRequest):
        await renew_agent_certificate(hub.core, agent.agent_id, agent.serial, "nothing")
    with pytest.raises(PermissionDenied):
        await renew_agent_certificate(hub.core, "x/../y", agent.serial, make_request(host.key))
    outcomes = await _renewals(hub, agent.agent_id, "x/../y")
    assert [row["outcome"] for row in outcomes if row["kind"] == "outcome"] == ["failed", "denied"]


async def test_renewals_at_once_leave_a_good_certificate(hub: Running, host: Host) -> None:
    """Renewals of one agent at the same moment never lock it out."""
    agent = certificate_of(await host.enroll())
    results = await asyncio.gather(
        *(
            renew_agent_certificate(hub.core, agent.agent_id, agent.serial, make_request(host.key))
            for _ in range(4)
        ),
        return_exceptions=True,
    )
    assert all(not isinstance(r, BaseException) or isinstance(r, SecretHubError) for r in results)
    shown = await hub.data("read", f"agents/{agent.agent_id}")
    newest = AgentCertificate(agent_id=agent.agent_id, serial=shown["certificate_serial"])
    assert await read(hub, newest) == await read(hub, agent) == "canary-1"


async def test_rights_follow_the_role(hub: Running) -> None:
    """An agent's rights are its role's now: changed with it and gone with it."""
    host = await host_of(hub, "followed", name="followed-1")
    agent = certificate_of(await host.enroll())
    await hub.ask("write", "auth/approle/role/followed", {"token_policies": []})
    await refused(hub, agent)
    await hub.ask("write", "auth/approle/role/followed", {"token_policies": ["enrolling"]})
    assert await read(hub, agent) == "canary-1"
    await hub.ask("delete", "auth/approle/role/followed")
    await refused(hub, agent)
    again = await host_of(hub, "followed", key=host.key, name=host.name)
    await refused(hub, agent)
    with pytest.raises(PermissionDenied):
        await host.enroll()
    assert await read(hub, certificate_of(await again.enroll())) == "canary-1"


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE agents SET body = body || '{"role": "admin"}'""",
        """UPDATE agents SET body = jsonb_set(body, '{serials,01:02}', '"2099-01-01T00:00:00+00:00"')""",
        """UPDATE agents SET owner = 'admin'""",
        """DELETE FROM agents""",
    ],
)
async def test_a_row_changed_by_sql_admits_nobody(own_hub: Running, own_host: Host, statement: str) -> None:
    """A database writer can neither alter an agent nor free its name."""
    agent = certificate_of(await own_host.enroll())
    await sql(own_hub, statement)
    await own_hub.core.ledger.look()
    own_hub.core.authority.drop()
    with pytest.raises((PermissionDenied, IntegrityFailure)):
        await read(own_hub, agent)
    with pytest.raises((PermissionDenied, IntegrityFailure)):
        await own_host.enroll()


async def test_a_revocation_taken_back_by_sql_is_refused(own_hub: Running, own_host: Host) -> None:
    """Putting the row of a revoked agent back as it was does not bring the agent back."""
    agent = certificate_of(await own_host.enroll())
    (before,) = await sql(own_hub, "SELECT * FROM agents")
    await own_hub.ask("write", f"agents/{agent.agent_id}/revoke")
    await sql(
        own_hub,
        "UPDATE agents SET revision = $1, body = $2::jsonb, mac = $3",
        before["revision"],
        before["body"],
        before["mac"],
    )
    await own_hub.core.ledger.look()
    own_hub.core.authority.drop()
    with pytest.raises((PermissionDenied, IntegrityFailure)):
        await read(own_hub, agent)
    with pytest.raises((PermissionDenied, IntegrityFailure)):
        await renew_agent_certificate(own_hub.core, agent.agent_id, agent.serial, make_request(own_host.key))

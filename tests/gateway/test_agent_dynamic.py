"""Agents have credentials made at a real PostgreSQL: in files, over the socket, and only what they may."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent import identity as identities
from agent.conversation import Conversation, converse
from agent.state import open_state
from secrethub.errors import InvalidPath, InvalidRequest, PermissionDenied
from secrethub.wire import messages as wire
from tests.gateway.behind import entries, ledger_is_good, until
from tests.gateway.conftest import Node
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import MOUNT, ready, role, target
from tests.gateway.kv import ok, put
from tests.gateway.rotation_hosts import RotationHost, application, enrolled_host

__all__ = ["ready", "target"]  # the fixtures

CREDS = f"{MOUNT}/creds/app"
TEMPLATE = f'{{% set db = credentials("{CREDS}") %}}{{{{ db.username }}}} {{{{ db.password }}}}'
PATHS = ("secrets/app/**", CREDS)


@contextlib.asynccontextmanager
async def conversing(node: Node, host: RotationHost) -> AsyncIterator[Conversation]:
    """Talk to Core with the identity of a host whose own agent does not run."""
    await host.holds("nothing")
    await host.kill()
    with open_state(host.folder / "state") as state:
        identity = identities.load(state)
    assert identity is not None
    async with converse(identity, node.settings.agent_urls[0], "host-1") as conversation:
        listening = asyncio.create_task(conversation.listen(lambda _push: None))
        try:
            yield conversation
        finally:
            listening.cancel()
            await asyncio.wait([listening])


async def made(conversation: Conversation, path: str = CREDS, application: str | None = None) -> wire.Issued:
    """Have credentials made."""
    return await conversation.ask(
        lambda number: wire.Issue(id=number, path=path, application=application), wire.Issued
    )


async def renewed(conversation: Conversation, lease: str) -> int:
    """Renew a lease."""
    answer = await conversation.ask(lambda number: wire.RenewLease(id=number, lease_id=lease), wire.Renewed)
    return answer.lease_duration


async def in_file(host: RotationHost, *seen: str) -> tuple[str, str]:
    """Wait for a user that was not seen yet in the host's file, and return it with its password."""

    async def look() -> bool:
        return host.file.exists() and host.file.read_text().split()[0] not in seen

    try:
        await until(look)
    except TimeoutError:
        raise AssertionError((host.folder / "agent.log").read_text()[-3000:]) from None
    user, password = host.file.read_text().split()
    return user, password


async def test_a_file_has_credentials(ready: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """They open the target; an agent that was killed has others made; of one that is revoked all end."""
    async with enrolled_host(ready, tmp_path, TEMPLATE, paths=PATHS) as host:
        user, password = await in_file(host)
        assert await target.opens(user, password)
        assert await target.users() == {user}
        told = await entries(ready.settings.database_url, operation="database.creds")
        assert [entry["outcome"] for entry in told] == ["begun", "done"]
        agents = (await ok(ready, "GET", "agents", params={"list": "true"}))["keys"]
        assert all(entry["actor"].startswith(f"agent:{agents[0]}:") for entry in told)
        assert password not in json.dumps(told, default=str)
        assert password not in (tmp_path / "agent.log").read_text()
        await host.kill()
        await host.start()
        other, secret = await in_file(host, user)
        assert await target.opens(other, secret)
        assert await target.opens(user, password)  # until its lease ends
        await ok(ready, "POST", f"agents/{agents[0]}/revoke")

        async def gone() -> bool:
            return not await target.users()

        await until(gone)
    await ledger_is_good(ready, state=True)


async def test_they_are_renewed_and_made_anew(ready: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """Within the role's longest life they stay the same; beyond it others come in time."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", role(default_ttl="2s", max_ttl="5s"))
    async with enrolled_host(ready, tmp_path, TEMPLATE, paths=PATHS) as host:
        seen: list[str] = []
        for _ in range(3):
            user, password = await in_file(host, *seen)
            assert await target.opens(user, password)
            seen.append(user)
        done = await entries(ready.settings.database_url, operation="lease.renew")
        assert {entry["outcome"] for entry in done} >= {"done"}


async def test_local_applications_have_their_own(ready: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """Over the socket, where an entry grants it; the same again and again, other than the file's."""
    async with enrolled_host(ready, tmp_path, TEMPLATE, paths=PATHS, granted=(CREDS,)) as host:
        in_template, _ = await in_file(host)
        transport = httpx2.AsyncHTTPTransport(uds=str(tmp_path / "agent.sock"))
        async with httpx2.AsyncClient(transport=transport, base_url="http://agent") as client:
            answers = await asyncio.gather(*(client.get(f"/v1/{CREDS}") for _ in range(5)))
            assert [answer.status_code for answer in answers] == [200] * 5, answers[0].text
            first: Any = answers[0].json()
            data = first["data"]
            assert {answer.json()["lease_id"] for answer in answers} == {first["lease_id"]}
            assert (first["renewable"], 3500 < first["lease_duration"] <= 3600) == (False, True)
            assert await target.opens(data["username"], data["password"])
            assert await target.users() == {in_template, data["username"]}
            # Granted as a secret only, which it is not; not granted; not asked for in this way.
            assert (await client.get(f"/v1/{MOUNT}/creds/other")).status_code == 400
            assert (await client.get("/v1/database/creds/app")).status_code == 404
            assert (await client.post(f"/v1/{CREDS}")).status_code == 405
            status: Any = (await client.get("/v1/agent/status")).json()["data"]
            assert status["credentials"] == 2


async def test_an_agent_has_what_its_policies_allow(
    ready: Node, target: TargetDatabase, tmp_path: Path
) -> None:
    """Anything else is refused and written down; leases of others are not even known to it."""
    await ok(ready, "POST", f"{MOUNT}/roles/other", role())
    await put(ready, "app/db", {"password": "canary"})
    theirs = (await ready.call("GET", CREDS)).json()["lease_id"]
    async with (
        enrolled_host(ready, tmp_path, "nothing", paths=PATHS) as host,
        conversing(ready, host) as conversation,
    ):
        mine = await made(conversation)
        assert await target.opens(mine.data["username"], mine.data["password"])
        assert (mine.lease_duration, mine.renewable) == (3600, True)
        assert await renewed(conversation, mine.lease_id) == 3600
        with pytest.raises(PermissionDenied):
            await made(conversation, f"{MOUNT}/creds/other")
        with pytest.raises(PermissionDenied):
            await made(conversation, application="web")  # nothing is bound to it
        for path in ("secrets/app/db", f"{MOUNT}/roles/app", "sys/seal", "nowhere/creds/app"):
            with pytest.raises(InvalidPath):
                await made(conversation, path)
        # Renewing is what the policy default allows.
        await ok(ready, "POST", "auth/approle/role/host", {"token_no_default_policy": True})
        with pytest.raises(PermissionDenied):
            await renewed(conversation, mine.lease_id)
        await ok(ready, "POST", "auth/approle/role/host", {"token_no_default_policy": False})
        for lease in (theirs, "secrets/app/db", f"{CREDS}/{'a' * 24}"):
            with pytest.raises(InvalidRequest):
                await renewed(conversation, lease)
            with pytest.raises(InvalidRequest):
                await conversation.ask(
                    lambda number, lease=lease: wire.RevokeLease(id=number, lease_id=lease), wire.Noted
                )
        await conversation.ask(lambda number: wire.RevokeLease(id=number, lease_id=mine.lease_id), wire.Noted)

        async def gone() -> bool:
            return mine.data["username"] not in await target.users()

        await until(gone)
    assert len(await target.users()) == 1
    told = await entries(ready.settings.database_url)
    refused = [
        entry for entry in told if entry["door"] == "agent" and entry["outcome"] not in {"begun", "done"}
    ]
    assert {entry["path"] for entry in refused} >= {
        *(f"{MOUNT}/creds/other", "secrets/app/db", f"{MOUNT}/roles/app", "sys/seal", "nowhere/creds/app"),
        *("sys/leases/renew", "sys/leases/revoke"),
    }
    assert "canary" not in json.dumps(told, default=str)


async def test_what_comes_too_late_is_revoked(ready: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """Credentials that nobody waits for any more when they come end at once, not with their lease."""
    async with (
        enrolled_host(ready, tmp_path, "nothing", paths=PATHS) as host,
        conversing(ready, host) as conversation,
    ):
        before = set(await target.users())
        asked = asyncio.create_task(made(conversation))
        await asyncio.sleep(0)  # it asks, and Core has not answered yet
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled()

        async def gone() -> bool:
            told = await entries(ready.settings.database_url)
            ended = [entry for entry in told if entry["path"] == "sys/leases/revoke"]
            return bool(ended) and set(await target.users()) == before

        await until(gone)


async def test_an_application_does_not_notice(ready: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """None of its queries fails while its credentials live for seconds only; it knows them from a file."""
    await ok(ready, "POST", f"{MOUNT}/roles/app", role(default_ttl="8s", max_ttl="8s"))
    async with enrolled_host(ready, tmp_path, TEMPLATE, paths=PATHS) as host:
        user, _ = await in_file(host)
        where = f"postgresql://127.0.0.1:{target.port}/{target.name}"
        async with application(host.file, where) as told:
            seen = [user]
            for _ in range(4):
                seen.append((await in_file(host, *seen))[0])
    assert told["failed"] == []
    assert len(told["users"]) >= 4

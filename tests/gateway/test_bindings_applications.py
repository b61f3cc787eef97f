"""Policies bound to an application: they narrow what an agent reads for it, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from secrethub.engines.bindings import Subject
from secrethub.errors import InvalidRequest
from secrethub.storage.authority import BINDINGS
from tests.gateway.behind import sql, until
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.kv import ok, put
from tests.gateway.rotation_hosts import RotationHost, enrolled_host
from tests.gateway.shell import Cli, cli
from tests.gateway.test_agent_gateway import Agent, House, house, shared_house, wire
from tests.gateway.test_tamper import insert_copy

__all__ = ["cli", "house", "shared_house"]  # fixtures

DB = "secrets/web/db"
OTHER = 12_345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs processes of other users")


async def read_for(agent: Agent, application: str | None, path: str = DB) -> str:
    """Read on behalf of an application; return ``done`` or the error's code."""
    await agent.say(wire.Read(id=7, path=path, application=application))
    answer: Any = wire.PolicyChanged()
    while isinstance(answer, wire.PolicyChanged):  # what was set up may still be announced
        answer = await agent.hear(wire.Result | wire.Error | wire.PolicyChanged)  # type: ignore[arg-type]
    return answer.code if isinstance(answer, wire.Error) else "done"


async def bound(house: House, policy: Any, application: str = "web", name: str = "app") -> None:
    """Write a policy and bind it."""
    await house.hub.ask("write", f"sys/policies/acl/{name}", {"policy": policy})
    await house.hub.ask("write", f"sys/policies/bindings/{name}", {"application": application})


@SHARING
async def test_an_application_reads_what_both_may(shared_house: House) -> None:
    """What the agent may read and the application may not is refused, and the other way round, too."""
    for path in ("web/db", "web/key", "other/db"):
        await shared_house.put(path, password="one")
    await bound(shared_house, native("secrets/web/db", "secrets/other/**"))
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        assert await read_for(agent, "web") == "done"
        assert await read_for(agent, "web", "secrets/web/key") == "permission_denied"
        assert await read_for(agent, "web", "secrets/web/none") == "permission_denied"
        assert await read_for(agent, None, "secrets/web/key") == "done"
        for application in (None, "web", "nobody"):
            assert await read_for(agent, application, "secrets/other/db") == "permission_denied"
    entries = [entry for entry in await shared_house.ledger("kv.read", host) if entry["door"] == "agent"]
    told = [(json.loads(entry["detail"]).get("application"), entry["outcome"]) for entry in entries]
    denied = "denied"
    assert told == [
        *(("web", "done"), ("web", denied), ("web", denied), (None, "done")),
        *((None, denied), ("web", denied), ("nobody", denied)),
    ]
    assert entries[1]["reason"] == "application web: no policy allows read"
    assert all(entry["actor"].startswith(f"agent:{host.agent_id}:") for entry in entries)


@SHARING
async def test_nothing_bound_is_nothing_allowed(shared_house: House) -> None:
    """A named application reads nothing before something is bound to it, nor after the last is taken."""
    path = "secrets/web/late"
    await shared_house.put("web/late", password="one")
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        assert await read_for(agent, "late", path) == "permission_denied"
        await bound(shared_house, native("secrets/**"), "late", "late")
        await agent.hear(wire.PolicyChanged)
        assert await read_for(agent, "late", path) == "done"
        assert await read_for(agent, "Late", path) == "permission_denied"
        # The bound policy itself is rested on as well.
        await shared_house.hub.ask("write", "sys/policies/acl/late", {"policy": native("secrets/nothing")})
        await agent.hear(wire.PolicyChanged)
        assert await read_for(agent, "late", path) == "permission_denied"
        await shared_house.hub.ask("write", "sys/policies/acl/late", {"policy": native("secrets/**")})
        await agent.hear(wire.PolicyChanged)
        await shared_house.hub.ask("write", "sys/policies/bindings/late/remove", {"application": "late"})
        await agent.hear(wire.PolicyChanged)
        assert await read_for(agent, "late", path) == "permission_denied"
        assert await read_for(agent, None, path) == "done"


@SHARING
async def test_a_denial_and_a_condition_of_the_applications(shared_house: House) -> None:
    """An application's denial beats what its other policies allow; conditions are asked at each read."""
    path = "secrets/web/guarded"
    await shared_house.put("web/guarded", password="one")
    document = native("secrets/**")
    document["statements"][0]["conditions"] = {"source_ip": ["127.0.0.0/8"]}
    await bound(shared_house, document, "guarded", "guarded")
    host = await shared_house.enrol()
    deny = {"effect": "deny", "paths": [path], "capabilities": ["read"]}
    async with shared_house.agent(host) as agent:
        assert await read_for(agent, "guarded", path) == "done"
        await shared_house.hub.ask(
            "write", "sys/policies/acl/guard", {"policy": {"version": "1", "statements": [deny]}}
        )
        await shared_house.hub.ask("write", "sys/policies/bindings/guard", {"application": "guarded"})
        await agent.hear(wire.PolicyChanged)
        assert await read_for(agent, "guarded", path) == "permission_denied"
        assert await read_for(agent, None, path) == "done"
        await shared_house.hub.ask("write", "sys/policies/bindings/guard/remove", {"application": "guarded"})
        await agent.hear(wire.PolicyChanged)
        document["statements"][0]["conditions"] = {"source_ip": ["10.0.0.0/8"]}
        await shared_house.hub.ask("write", "sys/policies/acl/guarded", {"policy": document})
        await agent.hear(wire.PolicyChanged)
        assert await read_for(agent, "guarded", path) == "permission_denied"


@SHARING
async def test_a_lie_gains_nothing(shared_house: House) -> None:
    """An agent that names another's application, or none, reads no more than it may itself."""
    await shared_house.put("other/db", password="canary")
    await bound(shared_house, native("secrets/**"), "payments", "payments")
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        for application in (None, "payments", "root", "app", "web"):
            assert await read_for(agent, application, "secrets/other/db") == "permission_denied"
        for path in ("sys/mounts", "auth/token/lookup-self"):
            assert await read_for(agent, "payments", path) == "invalid_path"
        watching = await agent.watch("secrets/other/db")
        assert [refusal.code for refusal in watching.refused] == ["permission_denied"]
    refused = [entry for entry in await shared_house.ledger("kv.read", host) if entry["outcome"] == "refused"]
    assert [json.loads(entry["detail"]) for entry in refused] == [{"application": "payments"}] * 2


async def test_bindings_that_were_tampered_with(house: House) -> None:
    """An edited or copied row lets nobody read for that application; the agent itself goes on."""
    await house.put("web/db", password="one")
    await bound(house, native("secrets/web/**"))
    await house.hub.ask("write", "sys/policies/acl/little", {"policy": native("secrets/little")})
    await house.hub.ask("write", "sys/policies/bindings/little", {"application": "little"})
    host = await house.enrol()
    mine, theirs, other = (Subject("application", name).key for name in ("little", "web", "other"))
    edit = "UPDATE bindings SET body = jsonb_set(body, '{policies}', '[\"app\"]') WHERE key = $1"
    await sql(house.hub.url, edit, mine)
    await insert_copy(house.hub.url, BINDINGS, theirs, other)
    house.hub.core.bindings.drop()
    async with house.agent(host) as agent:
        for application in ("little", "other"):
            assert await read_for(agent, application) in {"permission_denied", "integrity_failure"}
        assert await read_for(agent, None) == "done"
    entries = [entry for entry in await house.ledger("kv.read") if entry["outcome"] == "denied"]
    assert [json.loads(entry["detail"])["application"] for entry in entries] == ["little", "other"]
    assert all(entry["reason"].startswith("integrity: ") for entry in entries)


@SHARING
@pytest.mark.parametrize("name", ["", ".", "a/b", "a b", "-a", "ä", "a\n", "a" * 65])
async def test_names_that_are_none(shared_house: House, name: str) -> None:
    """What no agent could name is not bound to."""
    await shared_house.hub.ask("write", "sys/policies/acl/strict", {"policy": native("secrets/x")})
    with pytest.raises(InvalidRequest):
        await shared_house.hub.ask("write", "sys/policies/bindings/strict", {"application": name})
    with pytest.raises(InvalidRequest):
        await shared_house.hub.ask("write", "sys/policies/bindings/root", {"application": "web"})


@SHARING
async def test_a_policy_is_replayed_for_applications(shared_house: House) -> None:
    """What a proposed policy would change of an application's reads is told, and of the agent's own not."""
    path = "secrets/web/replayed"
    await shared_house.put("web/replayed", password="one")
    await bound(shared_house, native("secrets/**"), "replayed", "replayed")
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        assert await read_for(agent, "replayed", path) == "done"
        assert await read_for(agent, None, path) == "done"
    body: dict[str, Any] = {
        "name": "replayed",
        "policy": native("secrets/nothing"),
        "actor": f"agent:{host.agent_id}",
    }
    (change,) = (await shared_house.hub.data("write", "sys/policies/replay", body))["changes"]
    assert (change["path"], change["after"]) == ("secret/data/web/replayed", "denied")
    assert change["reason"] == "application replayed: no policy allows read"
    both = await shared_house.hub.data("write", "sys/policies/replay", {**body, "name": "web"})
    assert [one["after"] for one in both["changes"]] == ["denied", "denied"]


async def test_commands(node: Node, cli: Cli) -> None:
    """An application is bound to, shown and taken from by its name."""
    await ok(node, "PUT", "sys/policies/acl/app", {"policy": native("secrets/x")})
    assert "app is bound" in await cli("policy", "bind", "app", "--application", "web")
    assert await cli.json("policy", "bindings", "--application", "web") == ["app"]
    (shown,) = await cli.json("policy", "bindings", "app")
    assert (shown["kind"], shown["name"]) == ("application", "web")
    await cli("policy", "unbind", "app", "--application", "web")
    assert await cli.json("policy", "bindings", "--application", "web") == []
    assert "letters" in await cli("policy", "bind", "app", "--application", "a/b", code=1)
    await cli("policy", "bind", "app", "--application", "web", "--role", "web", code=2)
    tried = ("policy", "test", "secrets/x", "--policy", "root", "--application-policy", "app")
    assert "allowed" in await cli(*tried)
    await cli(*tried[:2], "secrets/y", *tried[3:], code=1)


# With a real agent, its socket and processes of several users


class SocketHost(RotationHost):
    """A host whose socket lets other users in."""

    async def curl(self, path: str, user: int) -> tuple[int, Any]:
        """Read a secret as a user; returns status and body."""
        return await asyncio.to_thread(self._curl, path, user)

    def _curl(self, path: str, user: int) -> tuple[int, Any]:
        argv = ["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(self.folder / "agent.sock")]
        argv.append(f"http://localhost/v1/secrets/{path}")
        done = subprocess.run(
            argv, capture_output=True, text=True, check=True, user=user, group=user, extra_groups=[], cwd="/"
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)


@pytest.fixture
async def host(node: Node) -> AsyncIterator[SocketHost]:
    """A host with two applications: user 12345 is ``web``, user 12346 is ``ops``."""
    folder = Path(tempfile.mkdtemp(prefix="sha-", dir="/tmp"))
    folder.chmod(0o755)
    for name in ("db", "key"):
        await put(node, f"app/{name}", {"value": f"canary-{name}"})
    entries = "\n".join(
        f'[[socket.allow]]\nuser = {user}\napplication = "{name}"\npaths = ["secrets/app/*"]'
        for user, name in ((OTHER, "web"), (OTHER + 1, "ops"))
    )
    try:
        async with enrolled_host(node, folder, "nothing", entries) as started:
            started.__class__ = SocketHost
            await started.holds("nothing")
            await until(_there(folder / "agent.sock"))
            (folder / "agent.sock").chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
            assert isinstance(started, SocketHost)
            yield started
    finally:
        shutil.rmtree(folder)


def _there(path: Path) -> Any:
    async def look() -> bool:
        return path.exists()

    return look


@as_root
async def test_two_applications_of_one_agent(node: Node, host: SocketHost) -> None:
    """Each reads what is bound to it, in and out of the cache; what one may read is not the other's."""
    for name, path in (("db", "secrets/app/db"), ("all", "secrets/app/**")):
        await ok(node, "PUT", f"sys/policies/acl/{name}", {"policy": native(path)})
    await ok(node, "POST", "sys/policies/bindings/db", {"application": "web"})
    await ok(node, "POST", "sys/policies/bindings/all", {"application": "ops"})
    web, ops = OTHER, OTHER + 1
    for _ in range(2):  # the second time from the cache
        assert (await host.curl("app/key", ops))[0] == 200
        assert (await host.curl("app/db", ops))[0] == 200
        assert (await host.curl("app/key", web))[0] == 403
        assert (await host.curl("app/db", web))[1]["data"]["data"] == {"value": "canary-db"}
    # A refusal of one did not cost the other what it has.
    await ok(node, "POST", "sys/policies/bindings/db/remove", {"application": "web"})

    async def taken() -> bool:
        return (await host.curl("app/db", web))[0] == 403

    await until(taken)
    assert (await host.curl("app/db", ops))[0] == 200
    assert (await host.curl("app/db", os.geteuid()))[0] == 200
    for user in (OTHER + 2, 65_534):
        assert (await host.curl("app/db", user))[0] == 403

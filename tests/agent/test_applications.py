"""Applications that Core knows by name: what it answers one never answers another."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent_process import AgentProcess
from core_peer import CorePeer, until
from test_connection import PATH, Host, running
from test_socket import Socket

from agent.disk_cache import in_memory
from secrethub.errors import PermissionDenied
from secrethub.wire import messages as wire

WEB, OPS = "application=web", "application=ops"


@pytest.fixture
async def host(core: CorePeer) -> AsyncIterator[Host]:
    """A connected host, with a secret to read."""
    await core.write(PATH, value=1)
    async with running(Host(core)) as running_host:
        await until(lambda: running_host.opened_times == 1)
        yield running_host


def count(agent: AgentProcess, message: str) -> int:
    """Return how often the agent logged a message."""
    return sum(line["message"] == message for line in agent.log())


def asked(core: CorePeer) -> list[str | None]:
    """Return for whom the secret was read, in order."""
    return [message.application for message in core.messages if isinstance(message, wire.Read)]


async def test_each_is_asked_for(host: Host, core: CorePeer) -> None:
    """What one holds, or is just being read for it, answers no other; each has its own answer of Core."""
    core.without = {"web"}
    arrived: list[str] = []
    gate = asyncio.Event()

    async def hold(path: str) -> None:
        arrived.append(path)
        await gate.wait()

    core.on_read = hold
    reads = [asyncio.create_task(host.reader.read(who, PATH)) for who in ("uid=1", WEB, OPS, "uid=2", OPS)]
    try:
        await until(lambda: len(arrived) == 3)
    finally:
        gate.set()
    unnamed, web, ops, shared, again = await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(web, PermissionDenied)
    sources = [getattr(served, "source", served) for served in (unnamed, ops, shared, again)]
    assert sources == ["core", "core", "shared", "shared"]
    assert set(asked(core)) == {None, "web", "ops"}
    # From the cache it is the same.
    with pytest.raises(PermissionDenied):
        await host.reader.read(WEB, PATH)
    assert [(await host.reader.read(who, PATH)).source for who in ("uid=1", OPS)] == ["cache"] * 2


async def test_a_refusal_of_one_costs_no_other(host: Host, core: CorePeer) -> None:
    """Who loses a right loses its copy, all versions; the others keep theirs."""
    for who in (WEB, OPS, "uid=1"):
        await host.reader.read(who, PATH)
    await host.reader.read(WEB, PATH, 1)
    core.without = {"web"}
    before = len(asked(core))
    await core.push(wire.PolicyChanged())
    await until(lambda: host.reader.cached == 2)
    assert {"web", "ops", None} == set(asked(core)[before:])
    core.refusals[PATH] = "unavailable"
    with pytest.raises(PermissionDenied):
        await host.reader.read(WEB, PATH)
    for who in (OPS, "uid=1"):
        assert (await host.reader.read(who, PATH)).source == "cache"


async def test_a_refusal_of_the_agent_is_for_all(host: Host, core: CorePeer) -> None:
    """What the agent may not read itself goes from every application's slice."""
    for who in (WEB, OPS, "uid=1"):
        await host.reader.read(who, PATH)
    core.without = {None}
    with pytest.raises(PermissionDenied):
        await host.reader.read("uid=2", PATH)
    assert host.reader.cached == 0


async def test_what_is_read_for_one_is_not_put_into_anothers_slice(host: Host, core: CorePeer) -> None:
    """A version that Core gave one application does not replace what another holds."""
    await host.reader.read(WEB, PATH)
    core.secrets[PATH].version = 2  # nobody is told
    assert (await host.reader.read(OPS, PATH)).entry.version == 2
    served = await host.reader.read(WEB, PATH)
    assert (served.entry.version, served.source) == (1, "cache")


async def test_the_value_of_a_change_goes_to_whom_it_is_for(host: Host, core: CorePeer) -> None:
    """A new version that is read for one is not handed to another that held the version before."""
    for who in (WEB, OPS):
        await host.reader.read(who, PATH)
    core.without = {"web"}
    await core.write(PATH, value=2)
    await until(lambda: host.reader.cached == 1)
    served = await host.reader.read(OPS, PATH)
    assert (served.entry.version, served.source) == (2, "cache")
    with pytest.raises(PermissionDenied):
        await host.reader.read(WEB, PATH)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs processes of other users")
async def test_an_entry_that_gets_a_name_has_none_of_what_was_held(
    core: CorePeer, agent: AgentProcess
) -> None:
    """What is on disk from before an entry had its name, or another, does not answer for it."""
    if not in_memory(Path("/dev/shm")):
        pytest.skip("no tmpfs for the key of the cache")
    path, user = "secrets/app/db", 12_345
    await core.write(path, password="canary")
    door = Socket(agent)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as runtime:
        for times, (name, status) in enumerate((("", 200), ("", 200), ("web", 503), ("ops", 503)), start=1):
            line = f'application = "{name}"\n' if name else ""
            entry = f'[[socket.allow]]\nuser = {user}\npaths = ["secrets/**"]\n{line}'
            agent.configure(f'[socket]\npath = "{door.path}"\nmode = "0666"\n{entry}')
            agent.place.chmod(0o755)
            await agent.start(XDG_RUNTIME_DIR=runtime)
            await agent.until(lambda times=times: count(agent, "ready") == times)
            assert (await door.curl(f"/v1/{path}", user=user))[0] == status
            await agent.stop()
            core.refusals[path] = "unavailable"

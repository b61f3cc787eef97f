"""A process that heard of nothing since it last did something decides on what is true now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from authority_core import Running
from enrolled_hosts import certificate_of, enrolling_hub, host_of, read

from secrethub.crypto.keyring import Keyring
from secrethub.engines.agents import renew_agent_certificate
from secrethub.engines.kinds import engines
from secrethub.engines.runtime import Core
from secrethub.errors import PermissionDenied
from secrethub.operations.call import AgentCertificate
from secrethub.operations.watch import watch
from secrethub.pki import keys
from secrethub.pki.csr import make_request


@pytest.fixture
async def hub(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process on a fresh cluster, with a policy and a secret."""
    async with enrolling_hub(database_url, tmp_path) as started:
        yield started


@pytest.fixture
async def idle(hub: Running) -> AsyncIterator[Running]:
    """Another process, which listens to nobody: all it hears is what its own entries show."""
    core = Core(
        settings=hub.core.settings,
        clock=hub.clock,
        seal=hub.core.seal,
        engines=engines(),
        process="idle",
    )
    core.ledger.start()
    try:
        keyring = Keyring.load(hub.core.keyring().export())
        await core.unseal(keyring, hub.core.keys.epoch, hub.core.keys.cluster_id)
        yield Running(core=core, clock=hub.clock, root=hub.root, url=hub.url)
    finally:
        await core.stop()


async def _token(hub: Running, ttl: str) -> str:
    made = await hub.ask("write", "auth/token/create", {"policies": ["enrolling"], "ttl": ttl})
    assert made.auth is not None
    return made.auth.client_token


async def test_a_token_renewed_elsewhere(hub: Running, idle: Running) -> None:
    """A token that was renewed in time is good in a process that only knew its former end."""
    token = await _token(hub, "60s")
    for path in ("secret/data/app/db", "auth/token/lookup-self"):
        await idle.ask("read", path, token=token)
    hub.clock.ahead = timedelta(seconds=50)
    await hub.ask("write", "auth/token/renew-self", {"increment": "60s"}, token=token)
    hub.clock.ahead = timedelta(seconds=70)
    await idle.ask("read", "secret/data/app/db", token=token)
    await idle.ask("read", "auth/token/lookup-self", token=token)


async def test_a_token_shortened_elsewhere(hub: Running, idle: Running) -> None:
    """A token whose life was shortened ends then, in a process that only knew its former end."""
    token = await _token(hub, "1h")
    child = await hub.ask("write", "auth/token/create", {"ttl": "1h"})
    assert child.auth is not None
    await idle.ask("read", "secret/data/app/db", token=token)
    await hub.ask("write", "auth/token/renew-self", {"increment": "60s"}, token=token)
    hub.clock.ahead = timedelta(seconds=61)
    with pytest.raises(PermissionDenied):
        await idle.ask("read", "secret/data/app/db", token=token)


async def test_a_write_with_a_token_shortened_elsewhere(hub: Running, idle: Running) -> None:
    """Nothing is written for a token whose life was shortened in another process and is over."""
    await hub.ask(
        "write",
        "sys/policies/acl/enrolling",
        {"policy": {"path": {"secret/data/*": {"capabilities": ["create", "update", "read"]}}}},
    )
    token = await _token(hub, "1h")
    await idle.ask("write", "secret/data/new", {"data": {"n": 1}}, token=token)
    await hub.ask("write", "auth/token/renew-self", {"increment": "60s"}, token=token)
    hub.clock.ahead = timedelta(seconds=61)
    with pytest.raises(PermissionDenied):
        await idle.ask("write", "secret/data/new", {"data": {"n": 2}}, token=token)
    found = await hub.data("read", "secret/data/new")
    assert found["metadata"]["version"] == 1


async def test_a_certificate_renewed_elsewhere(hub: Running, idle: Running) -> None:
    """An agent reads and watches with a certificate that another process just gave it."""
    host = await host_of(hub, "web")
    agent = certificate_of(await host.enroll())
    assert await read(idle, agent) == "canary-1"
    for use in (read, None):
        renewed = await renew_agent_certificate(
            hub.core, agent.agent_id, agent.serial, make_request(keys.generate("ecdsa-p256"))
        )
        agent = AgentCertificate(agent_id=agent.agent_id, serial=renewed.serial)
        if use is None:
            assert (await watch(idle.core, agent, "secrets/app/db", None)).endswith("/app/db")
        else:
            assert await use(idle, agent) == "canary-1"


async def test_a_new_token_and_a_new_secret(hub: Running, idle: Running) -> None:
    """What was made a moment ago is there in a process that heard of nothing."""
    for n in range(5):
        token = await _token(hub, "1h")
        await hub.ask("write", "secret/data/app/db", {"data": {"n": n}})
        found = await idle.data("read", "secret/data/app/db", token=token)
        assert found["metadata"]["version"] == n + 2


async def test_a_lookup_tells_of_a_renewal_elsewhere(hub: Running, idle: Running) -> None:
    """A lookup answers the end that a renewal in another process has just set."""
    token = await _token(hub, "60s")
    for asked in (100, 200, 300):
        await idle.data("read", "auth/token/lookup-self", token=token)
        await hub.ask("write", "auth/token/renew-self", {"increment": f"{asked}s"}, token=token)
        found = await idle.data("read", "auth/token/lookup-self", token=token)
        assert asked - 10 < found["ttl"] <= asked

"""Hosts with AppRole credentials that become agents, on a process of ``authority_core``."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from authority_core import Running, running
from cryptography.hazmat.primitives import serialization

from secrethub.errors import PermissionDenied
from secrethub.operations.call import AgentCertificate
from secrethub.operations.transport_ca import check_agent_certificate
from secrethub.pki import chain, keys
from secrethub.pki.csr import make_request

ENROLLING = {
    "version": "1",
    "statements": [
        {
            "effect": "allow",
            "paths": ["agents/enroll", "agents/enroll/begin"],
            "capabilities": ["create", "update"],
        },
        {"effect": "allow", "paths": ["secrets/app/**"], "capabilities": ["read"]},
    ],
}


@dataclass(kw_only=True)
class Host:
    """A host with AppRole credentials: logs in, and enrols with its key."""

    hub: Running
    token: str
    name: str = "web-1"
    key: keys.PrivateKey = field(default_factory=lambda: keys.generate("ecdsa-p256"))

    async def begin(self) -> str:
        """Ask for a nonce."""
        return str((await self.hub.data("write", "agents/enroll/begin", {}, token=self.token))["nonce"])

    async def enroll(self, name: str | None = None, csr: str | None = None, **more: Any) -> Mapping[str, Any]:
        """Enrol, by default under the host's name and with an honest request."""
        if csr is None:
            csr = make_request(self.key, await self.begin())
        body = {"csr": csr, "name": self.name if name is None else name, **more}
        found: Mapping[str, Any] = await self.hub.data("write", "agents/enroll", body, token=self.token)
        return found


def certificate_of(answer: Mapping[str, Any]) -> AgentCertificate:
    """Return what the gateway learns from the certificate of an enrolled agent's connection."""
    leaf = chain.from_pem(answer["certificate"])[0]
    agent_id, serial = check_agent_certificate(leaf.public_bytes(serialization.Encoding.DER))
    return AgentCertificate(agent_id=agent_id, serial=serial)


@asynccontextmanager
async def enrolling_hub(url: str, folder: Path) -> AsyncIterator[Running]:
    """One process on a fresh cluster, with a policy and a secret."""
    async with running(url, folder) as started:
        await started.ask("write", "sys/policies/acl/enrolling", {"policy": ENROLLING})
        await started.ask("write", "secret/data/app/db", {"data": {"password": "canary-1"}})
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_hub(
    shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    """One process for tests that change nothing which others of their module see."""
    async with enrolling_hub(shared_database_url, tmp_path_factory.mktemp("shared")) as started:
        yield started


_turns = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="module")
async def shared_host(shared_hub: Running) -> Host:
    """A host of the role ``web`` and of a new name on the shared process, logged in."""
    return await host_of(shared_hub, "web", name=f"web-{next(_turns)}")


@pytest_asyncio.fixture(loop_scope="module")
async def own_hub(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process of one test alone on a fresh cluster, with a policy and a secret."""
    async with enrolling_hub(database_url, tmp_path) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def own_host(own_hub: Running) -> Host:
    """A host of the role ``web``, logged in."""
    return await host_of(own_hub, "web")


async def host_of(hub: Running, role: str, **more: Any) -> Host:
    """Return a host of an AppRole role, logged in."""
    return Host(hub=hub, token=await hub.login(*await hub.role(role, "enrolling")), **more)


async def sql(hub: Running, statement: str, *values: Any) -> list[Any]:
    """Run a statement behind Core's back."""
    connection = await asyncpg.connect(hub.url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


async def read(hub: Running, agent: AgentCertificate) -> Any:
    """Read the secret's password as an agent."""
    found = await hub.data("read", "secret/data/app/db", agent=agent)
    return msgspec.json.decode(found["data"])["password"]


async def refused(hub: Running, agent: AgentCertificate) -> None:
    """Check that an agent may not read."""
    with pytest.raises(PermissionDenied):
        await read(hub, agent)

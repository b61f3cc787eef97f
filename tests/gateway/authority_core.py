"""A whole serving process on a real database, asked through the one way of every request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from secrethub.clock import SystemClock
from secrethub.engines.engine import Answer, Method
from secrethub.engines.kinds import engines
from secrethub.engines.runtime import Core
from secrethub.ids import new_uuid
from secrethub.node import NodeSettings
from secrethub.operations import seal_lifecycle
from secrethub.operations.call import AgentCertificate, Call, Credential, Token
from secrethub.operations.perform import perform
from secrethub.seal.slots import open_slot
from secrethub.sensitive import Sensitive
from secrethub.storage.database import Database

AGENT_URL = "wss://core.example.com:4665"


class MovingClock(SystemClock):
    """The system's clock, moved by what a test adds."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """The system's time and what was added."""
        return datetime.now(UTC) + self.ahead


@dataclass(kw_only=True)
class Running:
    """An unsealed process and its root token."""

    core: Core
    clock: MovingClock
    root: str = field(repr=False)
    url: str = field(repr=False)

    async def ask(
        self,
        method: Method,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = "",
        agent: AgentCertificate | None = None,
        query: Mapping[str, str] | None = None,
        wrap_ttl: int = 0,
        client_address: str | None = "127.0.0.1",
    ) -> Answer:
        """Carry out one request, by default with the root token."""
        credential: Credential | None = agent
        if agent is None and token is not None:
            credential = Token(secret=Sensitive(token or self.root))
        return await perform(
            self.core,
            Call(
                method=method,
                path=path,
                body=b"" if body is None else msgspec.json.encode(body),
                query=query or {},
                credential=credential,
                client_address=client_address,
                wrap_ttl=wrap_ttl,
                door="tls",
                request_id=new_uuid(),
            ),
        )

    async def data(self, method: Method, path: str, body: Mapping[str, Any] | None = None, **how: Any) -> Any:
        """As :meth:`ask`, giving the answer's data."""
        answer = await self.ask(method, path, body, **how)
        assert answer.data is not None
        return answer.data

    async def role(self, name: str, *policies: str) -> tuple[str, str]:
        """Make an AppRole role and return a RoleID and a SecretID."""
        await self.ask("write", f"auth/approle/role/{name}", {"token_policies": list(policies)})
        role_id = (await self.data("read", f"auth/approle/role/{name}/role-id"))["role_id"]
        secret_id = (await self.data("write", f"auth/approle/role/{name}/secret-id"))["secret_id"]
        return role_id, secret_id

    async def login(self, role_id: str, secret_id: str) -> str:
        """Log in with AppRole and return the token."""
        answer = await self.ask(
            "write", "auth/approle/login", {"role_id": role_id, "secret_id": secret_id}, token=None
        )
        assert answer.auth is not None
        return answer.auth.client_token


def settings(url: str, folder: Path) -> NodeSettings:
    """Return settings of a node whose doors are closed."""
    return NodeSettings(
        node="n1",
        run_dir=str(folder),
        state_dir=str(folder),
        database_url=url,
        cluster_key_file=str(folder / "none"),
        http=None,
        tls=None,
        agents=None,
        serve=None,
        metrics=None,
        agent_urls=(AGENT_URL,),
        database_pool=6,
    )


@asynccontextmanager
async def running(url: str, folder: Path) -> AsyncIterator[Running]:
    """Initialise the database at ``url`` and run one process on it, unsealed."""
    clock = MovingClock()
    database = Database(url, size=2)
    made = await seal_lifecycle.initialise(database, 1, 1, clock.now())
    slot = (await seal_lifecycle.load_slots(database))[0]
    root_key = open_slot(slot, made.shares)
    epoch = await seal_lifecycle.commit_unsealed(database, root_key, bytes(32))
    keyring = await seal_lifecycle.open_keyring(database, root_key)
    await database.close()
    core = Core(
        settings=settings(url, folder),
        clock=clock,
        seal=None,  # type: ignore[arg-type]  # nobody asks the seal here
        engines=engines(),
        process="test",
    )
    core.start()
    try:
        await core.unseal(keyring, epoch, made.cluster_id)
        yield Running(core=core, clock=clock, root=made.root_token, url=url)
    finally:
        await core.stop()

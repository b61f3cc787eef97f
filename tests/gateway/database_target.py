"""A PostgreSQL target for tests: a database of its own, reached over TCP through a proxy that can be cut off.

It is on the server that the tests have anyway. Roles belong to the whole server, so each target has an owner
of its own, and its tests look only for roles that this cluster made.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from tests.conftest import on_database
from tests.postgres.socket_proxy import Proxy

CANARY = "canary-of-a-target"
"""The password of the owner; nowhere to be seen."""


class Trap(Proxy):
    """A proxy that holds back the answer to whatever has a text in it, once it was told to."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self._text = b""
        self._lost = False
        self.sprung = asyncio.Event()

    def set(self, text: bytes, *, lost: bool) -> None:
        """Hold back what the server says once somebody has sent this; ``lost``: it never gets there."""
        self._text, self._lost = text, lost
        self.sprung.clear()

    def passes(self, data: bytes) -> bool:
        """Look at what is sent."""
        if not self._text or self._text not in data:
            return True
        self._text = b""
        self.hold()
        self.sprung.set()
        return not self._lost


@dataclass
class TargetDatabase:
    """A target.

    Attributes:
        admin_url: of its database, as the server's own superuser, past the proxy.
        name: of the database.
        owner: a superuser of its own, with :data:`CANARY` as password.
        port: of the proxy on loopback.
        proxy: before the server.
    """

    admin_url: str
    name: str
    owner: str
    port: int
    proxy: Trap
    server: asyncio.Server

    @property
    def connection_url(self) -> str:
        """What is configured, with placeholders."""
        return self.url_of("{{username}}", "{{password}}") + "?sslmode=disable"

    def url_of(self, user: str, password: str) -> str:
        """Return the URL by which a user connects."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{self.name}"

    def config(self, **more: Any) -> dict[str, Any]:
        """Return the body of a request that configures it."""
        return {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": self.connection_url,
            "username": self.owner,
            "password": CANARY,
            "allowed_roles": ["*"],
            **more,
        }

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement as the server's own superuser."""
        connection = await asyncpg.connect(self.admin_url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def users(self) -> set[str]:
        """Return the roles that were made here."""
        rows = await self.sql("SELECT rolname FROM pg_roles WHERE rolname ~ '-[0-9a-f]{12}-[A-Za-z0-9]{24}$'")
        return {row["rolname"] for row in rows}

    async def owners(self) -> set[str]:
        """Return the roles that own what users have left."""
        rows = await self.sql(
            """SELECT rolname FROM pg_roles r WHERE rolname ~ '-owned-[0-9a-f]{12}$' AND EXISTS (
                   SELECT FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid
                   WHERE d.refobjid = r.oid AND b.datname = current_database())"""
        )
        return {row["rolname"] for row in rows}

    async def opens(self, user: str, password: str) -> bool:
        """Tell whether a user can log in."""
        try:
            connection = await asyncpg.connect(self.url_of(user, password))
        except asyncpg.InvalidAuthorizationSpecificationError:
            return False
        await connection.close()
        return True

    async def go_away(self) -> None:
        """Answer nobody any more."""
        self.server.close()
        self.proxy.cut()

    async def come_back(self) -> None:
        """Answer again."""
        self.server = await asyncio.start_server(self.proxy.accept, "127.0.0.1", self.port)


@contextlib.asynccontextmanager
async def target_database(postgres_url: str) -> AsyncIterator[TargetDatabase]:
    """Make a target; its database and its roles go afterwards."""
    name = f"target_{secrets.token_hex(6)}"
    await _execute(
        postgres_url,
        f'CREATE DATABASE "{name}"',
        f"CREATE ROLE \"{name}\" LOGIN SUPERUSER PASSWORD '{CANARY}'",
    )
    proxy = Trap(str(Path(parse_qs(urlsplit(postgres_url).query)["host"][0]) / ".s.PGSQL.5432"))
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    target = TargetDatabase(on_database(postgres_url, name), name, name, port, proxy, server)
    try:
        yield target
    finally:
        target.server.close()
        proxy.cut()
        left = (*await target.users(), *await target.owners(), name)
        gone = (f'DROP ROLE IF EXISTS "{role}"' for role in left)
        await _execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)', *gone)


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()

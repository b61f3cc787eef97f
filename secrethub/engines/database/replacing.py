"""A password at a target is replaced, and wherever that is interrupted the one that is good is still known.

1. The new one is sealed beside the old one, and committed.
2. The target is given the new one.
3. A login shows that it is good.
4. The old one is forgotten.

Whoever comes to a row with two passwords finds out which of them is good before anything else. One process
at a time does this to a row: it has the row's claim, which outlasts what it may still do at the target.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secrethub.engines.database.connection import Connection
from secrethub.engines.database.passwords import new_password
from secrethub.engines.database.targets import targets_of
from secrethub.engines.engine import Fence
from secrethub.engines.kept import opened_secrets, sealed_secrets
from secrethub.engines.own_changes import present_fence
from secrethub.engines.runtime import Core
from secrethub.errors import Conflict, InvalidRequest, SecretHubError, Stale, Unavailable
from secrethub.ids import new_uuid
from secrethub.storage import locks
from secrethub.storage.authority import Change, Row, Table

_CLAIM_SECONDS = 120.0
_ATTEMPTS = 8
PRESENT, NEXT = "password", "next_password"


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """Whose password is replaced, and how.

    Attributes:
        connection: by which that is done.
        username: at the target.
        statements: do it; none for what is usual.
    """

    connection: Connection
    username: str
    statements: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What else changes in the row when the new password is in force.

    Attributes:
        body: fields of it.
        expires_at: when it is due again.
    """

    body: Mapping[str, Any]
    expires_at: datetime | None = None


@asynccontextmanager
async def alone(core: Core, key: str) -> AsyncIterator[None]:
    """Let no other process write a row with passwords, or replace one.

    Raises:
        Conflict: one does.
        Unavailable: the database does not answer.
    """
    claim = await locks.acquire(core.database, f"engine/{key}", new_uuid(), _CLAIM_SECONDS)
    if claim is None:
        raise Conflict("its password is being replaced; try again in a moment")
    try:
        yield
    finally:
        with contextlib.suppress(SecretHubError):
            await locks.release(core.database, claim)


class Replacing:
    """The replacement of a password in one row, by whoever is alone with it."""

    def __init__(
        self,
        core: Core,
        table: Table,
        row: Row,
        whose: Callable[[Row], Whose],
        written: list[dict[str, Any]],
    ) -> None:
        """Prepare.

        Args:
            core: unsealed.
            table: of the row.
            row: as it is now; its body has ``secrets``.
            whose: tells what is to be done of a row.
            written: takes what is written, for the ledger, also when the replacement fails.
        """
        self._core = core
        self._table = table
        self._whose = whose
        self.row = row
        self._written = written

    async def replace(self, fence: Fence | None, ended: Ended) -> None:
        """Replace the password.

        Args:
            fence: what the decision rests on; None for whatever holds now.
            ended: what changes with it.

        Raises:
            Stale: the decision was overtaken; nothing has happened.
            InvalidRequest: the target refuses, and keeps the old one.
            Unavailable: the target does not answer; either may be good, and both are known.
        """
        await self.settle(fence)
        old = self._secrets().get(PRESENT, "")
        fresh = (await new_password(self._core, self._whose(self.row).connection.password_policy)).reveal()
        both = {name: value for name, value in ((PRESENT, old), (NEXT, fresh)) if value}
        await self._store(fence, {**self._secrets(), **both})
        whose = self._whose(self.row)
        try:
            async with targets_of(self._core).use(whose.connection) as target:
                await target.set_password(whose.username, fresh, whose.statements)
        except TimeoutError:
            raise Unavailable("the target did not answer in time: both passwords are kept") from None
        except (InvalidRequest, Unavailable):
            await self._store(None, _without_next(self._secrets()))
            raise
        if not await self._opens(fresh):
            await self.settle(None)
            raise InvalidRequest("the target did not take the new password")
        await self._store(None, {**_without_next(self._secrets()), PRESENT: fresh}, ended)

    async def settle(self, fence: Fence | None) -> None:
        """Find out which of two passwords is good, and forget the other.

        Raises:
            InvalidRequest: neither is.
            Stale, Unavailable: not now.
        """
        secrets = self._secrets()
        if NEXT not in secrets:
            return
        for good in (secrets[NEXT], secrets.get(PRESENT, "")):
            if good and await self._opens(good):
                await self._store(fence, {**_without_next(secrets), PRESENT: good})
                return
        if PRESENT not in secrets:
            await self._store(fence, _without_next(secrets))
            return
        raise InvalidRequest("the target takes neither of the two passwords that are kept")

    async def _opens(self, password: str) -> bool:
        whose = self._whose(self.row)
        try:
            async with targets_of(self._core).use(whose.connection) as target:
                return await target.opens(whose.username, password)
        except TimeoutError:
            raise Unavailable("the target did not answer in time") from None

    def _secrets(self) -> dict[str, str]:
        return opened_secrets(
            self._core.keyring(), self._table, self.row.key, str(self.row.body.get("secrets", ""))
        )

    async def _store(
        self, fence: Fence | None, secrets: Mapping[str, str], ended: Ended | None = None
    ) -> None:
        """Write the row; without a fence, in spite of whatever else changes meanwhile.

        Raises:
            Conflict: the row was written in spite of the claim.
            Stale, Unavailable: it was not written.
        """
        core, row = self._core, self.row
        sealed = sealed_secrets(core.keyring(), self._table, row.key, secrets)
        body = {**row.body, **({} if ended is None else ended.body), "secrets": sealed}
        expires_at = row.expires_at if ended is None else ended.expires_at

        async def write(change: Change) -> None:
            self.row = await change.put(
                self._table,
                row.key,
                body,
                owner=row.owner,
                expires_at=expires_at,
                expected_revision=row.revision,
            )

        if fence is None:
            await whatever_else_changes(core, write, self._written)
        else:
            async with core.authority.change(fence) as change:
                await write(change)


async def whatever_else_changes(
    core: Core, write: Callable[[Change], Awaitable[None]], written: list[dict[str, Any]]
) -> None:
    """Change authority without a decision of now, as what was decided and begun before asks for.

    Args:
        core: unsealed.
        write: does it, perhaps more than once.
        written: takes what was written, for the ledger.

    Raises:
        Sealed, Unavailable: not now.
    """
    for _ in range(_ATTEMPTS):
        try:
            async with core.authority.change(present_fence(core, written)) as change:
                await write(change)
        except Stale as exc:
            await core.catch_up(exc)
        else:
            return
    raise Unavailable("authority changes faster than a password can be written down")


def _without_next(secrets: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in secrets.items() if name != NEXT}

"""The end of users of PostgreSQL: their connections, what they own, and they themselves.

Many go in one transaction, which takes little longer than one; where that fails, halves of them are tried,
so that one that cannot go holds up no other. That one is shut out until it can. A role can go while somebody
is connected with it, so its connections are ended before, and once more afterwards for who came in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from secrethub.engines.database.postgresql_link import Link
from secrethub.engines.database.statements import identifier, render
from secrethub.engines.database.target import HeldUp, Statements
from secrethub.errors import InvalidRequest

NAMES = ("name", "username")
"""Placeholders of the name of a role."""

_WAIT_MILLISECONDS = 3000
"""For connections to end: what they had locked would hold up what follows."""
_LOCK_MILLISECONDS = 1000
"""For what somebody else holds at the target, e.g. a lock on a table that a user owns."""
_PART_MILLISECONDS = 250
"""The same for parts of those that waited in vain, so that all of them have their turn."""
_FIND = """SELECT oid, rolname, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super
           FROM pg_roles WHERE rolname = ANY($1::text[])"""
_TERMINATE = """SELECT pg_catalog.pg_terminate_backend(pid, $2::bigint) FROM pg_catalog.pg_stat_activity
                WHERE usesysid = ANY($1::oid[])"""
"""Named in full, with the types that it takes: the users that we make may have functions of the same name."""

_OWNS = """SELECT EXISTS (SELECT FROM pg_catalog.pg_shdepend WHERE refobjid = ANY($1::oid[]) AND deptype = 'o'
           AND refclassid = 'pg_catalog.pg_authid'::regclass::oid)"""
_MIGHTY = """SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolreplication OR rolbypassrls
                 OR EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE member = r.oid)
             FROM pg_catalog.pg_roles r WHERE rolname = $1::name"""


async def end_users(
    link: Link,
    names: Sequence[str],
    statements: Statements,
    *,
    rollback: bool = False,
    lock_milliseconds: int = _LOCK_MILLISECONDS,
) -> Mapping[str, str]:
    """End users, and return why some could not be; who is gone is ended.

    Args:
        link: to the server.
        names: of the users.
        statements: of their role.
        rollback: a creation is taken back: by its role's statements for that, then as usual.
        lock_milliseconds: that a statement waits for what others hold.

    Raises:
        Unavailable, TimeoutError: the server does not answer.
    """
    own = statements.rollback if rollback else statements.revocation

    async def work(connection: asyncpg.Connection[Any]) -> list[int]:
        rows = found = await connection.fetch(_FIND, names)
        if own and rows:
            await connection.fetch(_TERMINATE, [row["oid"] for row in rows], _WAIT_MILLISECONDS)
            for row in rows:
                for statement in own:
                    await connection.execute(render(statement, dict.fromkeys(NAMES, row["rolname"])))
            rows = await connection.fetch(_FIND, names) if rollback else []
        if rows:
            await _drop(connection, rows, statements)
        return [row["oid"] for row in found]

    try:
        ended = await link.change(work, lock_milliseconds=lock_milliseconds)
    except (InvalidRequest, HeldUp) as exc:
        if len(names) == 1:
            await _bar(link, names[0])
            return {names[0]: exc.message}
        wait = _PART_MILLISECONDS if isinstance(exc, HeldUp) else lock_milliseconds
        reasons: dict[str, str] = {}
        for part in (names[: len(names) // 2], names[len(names) // 2 :]):
            reasons |= await end_users(link, part, statements, rollback=rollback, lock_milliseconds=wait)
        return reasons
    if ended:
        async with link.lent() as connection:
            # Who is no superuser may not end connections of a role that is gone; they have no rights left.
            with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(_TERMINATE, ended, 0)
    return {}


async def _bar(link: Link, name: str) -> None:
    """End what a user can do that cannot be dropped: nobody logs in as it, and nobody is logged in.

    Raises:
        Unavailable, TimeoutError: the server does not answer.
    """

    async def work(connection: asyncpg.Connection[Any]) -> list[int]:
        rows = await connection.fetch(_FIND, [name])
        for row in rows:
            await connection.execute(f"ALTER ROLE {identifier(name)} NOLOGIN PASSWORD NULL")
            if not row["super"]:
                await connection.execute(f"GRANT {identifier(name)} TO CURRENT_USER")
        return [row["oid"] for row in rows]

    # Why it cannot be dropped is told anyway.
    with contextlib.suppress(InvalidRequest, HeldUp):
        barred = await link.change(work, lock_milliseconds=_LOCK_MILLISECONDS)
        if barred:
            async with link.lent() as connection:
                await connection.fetch(_TERMINATE, barred, _WAIT_MILLISECONDS)


async def _drop(
    connection: asyncpg.Connection[Any], rows: Sequence[asyncpg.Record], statements: Statements
) -> None:
    """Drop roles that are there, with what they own in this database, and their rights in it."""
    listed, oids = ", ".join(identifier(row["rolname"]) for row in rows), [row["oid"] for row in rows]
    if not rows[0]["super"]:
        # Whoever made a role may make itself a member, and only a member may do what follows.
        await connection.execute(f"GRANT {listed} TO CURRENT_USER")
    await connection.fetch(_TERMINATE, oids, _WAIT_MILLISECONDS)
    if statements.owned == "reassign" and await connection.fetchval(_OWNS, oids):
        owner = await _powerless(connection, statements.owner, ours=not rows[0]["super"])
        await connection.execute(f"REASSIGN OWNED BY {listed} TO {owner}")
    await connection.execute(f"DROP OWNED BY {listed}; DROP ROLE {listed}")


async def _powerless(connection: asyncpg.Connection[Any], name: str, *, ours: bool) -> str:
    """Return the identifier of a role that may do nothing, made if there is none.

    Views and functions do what their owner may, for whoever may use them, and the server itself calls those
    of an index as the table's owner. Were they ours, whoever made them would have our rights.

    Args:
        connection: in a transaction.
        name: of the role.
        ours: we have to be a member of it.

    Raises:
        InvalidRequest: it may do something.
    """
    owner, mighty = identifier(name), await connection.fetchval(_MIGHTY, name)
    if mighty is None:
        await connection.execute(f"CREATE ROLE {owner} NOLOGIN")
    elif mighty:
        raise InvalidRequest(
            f"what the user owns is for the role {name}, which must not be able to do anything"
        )
    if ours:
        await connection.execute(f"GRANT {owner} TO CURRENT_USER")
    return owner

"""The cluster's database before anything is started on it: reachable, migrated, and the right one."""

from __future__ import annotations

import os

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from secrethub.errors import Misconfigured, Unavailable
from secrethub.operations.seal_lifecycle import load_cluster
from secrethub.storage.database import Database
from secrethub.storage.migrate import upgrade

_MAJOR = 10_000
"""How ``server_version_num`` says a major version."""
_OLDEST = 15 * _MAJOR


async def prepare_database(url: str, *, dev: bool) -> None:
    """Check the database and bring its schema up to date.

    Args:
        url: ``postgresql://…``.
        dev: whether ``secrethub dev`` asks. What dev has made is for dev: its unseal keys lie in a file.

    Raises:
        Unavailable: the database does not answer.
        Misconfigured: it cannot be used, or belongs to the other kind of installation.
    """
    await _check_server(url)
    try:
        await upgrade(url)
    except SQLAlchemyError as exc:
        raise Unavailable(f"the database's schema could not be brought up to date: {_cause(exc)}") from exc
    database = Database(url, size=1)
    try:
        cluster = await load_cluster(database)
    finally:
        await database.close()
    if cluster is not None and cluster.dev and not dev:
        raise Misconfigured(
            "database_url: this database was made by 'secrethub dev', whose unseal keys lie in a file; "
            "a server needs a database of its own"
        )
    if cluster is not None and dev and not cluster.dev:
        raise Misconfigured("DATABASE_URL: this database belongs to a server; 'secrethub dev' needs its own")


def check_version(number: int) -> None:
    """Check a server's version, as ``server_version_num`` says it.

    Raises:
        Misconfigured: it is too old.
    """
    if number < _OLDEST:
        raise Misconfigured(
            f"database_url: PostgreSQL {_OLDEST // _MAJOR} or newer is needed, this is {number // _MAJOR}"
        )


async def _check_server(url: str) -> None:
    try:
        connection = await asyncpg.connect(url, timeout=15.0)
    except (ValueError, asyncpg.InterfaceError) as exc:
        raise Misconfigured("database_url: it must be postgresql://user:password@host/database") from exc
    except asyncpg.PostgresError as exc:
        raise Unavailable(f"database_url: PostgreSQL does not let us in: {exc}") from exc
    except OSError as exc:
        raise Unavailable(f"database_url: PostgreSQL does not answer: {_reason(exc)}") from exc
    try:
        version = int(await connection.fetchval("SHOW server_version_num"))
        commit = await connection.fetchval("SHOW synchronous_commit")
    finally:
        await connection.close()
    check_version(version)
    if commit == "off":
        raise Misconfigured("database_url: synchronous_commit is off, so acknowledged writes could be lost")


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time"
    # asyncio's own words name every address that was tried; the number has the reason.
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error)


def _cause(error: SQLAlchemyError) -> str:
    """Return the driver's own words; SQLAlchemy's message repeats the statement."""
    original = getattr(error, "orig", None)
    return str(original or type(error).__name__)

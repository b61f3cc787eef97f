"""Auth methods that can be enabled, where their rows are, and their removal with the mount.

A method is known here by one entry of :data:`AUTH_METHODS`. Its rows are named after the UUID of its mount
by :func:`row_name`, so that two mounts of one kind never meet, and a mount moves with all that it has. Tokens
are found by the path that made them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from secrethub.engines.mounts import AUTH, TOKEN_MOUNT
from secrethub.engines.own_changes import own_changes
from secrethub.engines.runtime import Core
from secrethub.engines.token.ending import remove_tokens
from secrethub.errors import IntegrityFailure, InvalidRequest, Stale
from secrethub.storage.authority import (
    APPROLES,
    BINDINGS,
    CERT_ROLES,
    LOGIN_FAILURES,
    MOUNTS,
    ROLE_IDS,
    SECRET_IDS,
    TOKENS,
    USERS,
    Change,
    Table,
)
from secrethub.wire.canonical_path import check_path

_BATCH = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthMethod:
    """A kind of auth method.

    Attributes:
        description: what it is called unless the operator says otherwise.
        rows: its tables, and by which column rows belong to a mount: the ``key`` or the ``owner`` is the
            text given here and what :func:`row_name` gives.
    """

    description: str
    rows: tuple[tuple[Table, Literal["key", "owner"], str], ...]


AUTH_METHODS: Mapping[str, AuthMethod] = {
    "approle": AuthMethod(
        description="machines",
        rows=(
            (SECRET_IDS, "owner", ""),
            (APPROLES, "key", ""),
            (ROLE_IDS, "owner", ""),
            (BINDINGS, "key", "approle/"),
        ),
    ),
    "userpass": AuthMethod(
        description="people",
        rows=((USERS, "key", ""), (LOGIN_FAILURES, "key", ""), (BINDINGS, "key", "user/")),
    ),
    "cert": AuthMethod(
        description="client certificates",
        rows=((CERT_ROLES, "key", ""), (BINDINGS, "key", "cert/")),
    ),
}
"""By kind. ``token`` is not among them: it is always there, once."""


def row_name(mount: str, name: str) -> str:
    """Return how rows call something of an auth method.

    Args:
        mount: its UUID.
        name: without a slash.
    """
    return f"{mount}/{name}"


def belongs(mount: str, row: str) -> bool:
    """Tell whether :func:`row_name` of this mount gave ``row``."""
    return row.startswith(f"{mount}/")


async def called(core: Core, kind: str, row: str) -> str:
    """Return how people call what a row is of: ``web``, or ``machines/web`` beyond the usual mount.

    Args:
        core: this process.
        kind: of the method.
        row: what :func:`row_name` gave; it stays as it is when the mount is gone.
    """
    uuid, _, name = row.partition("/")
    found = await core.mounts.by_uuid(uuid)
    if found is None:
        return row
    path = found[0].path
    return name if path == _usual(kind) else path.removeprefix(AUTH) + name


async def chosen(core: Core, kind: str, text: str) -> tuple[str, str]:
    """Return the UUID of the mount and the name that somebody means by what :func:`called` gives.

    Raises:
        InvalidRequest: no method of this kind is there.
        IntegrityFailure: one may be, but its row is not authentic.
    """
    place, slash, name = text.rpartition("/")
    path = f"{AUTH}{check_path(place)}/" if slash else _usual(kind)
    mount = await core.mounts.auth_method(path)
    if mount is None or mount.path != path or mount.type != kind:
        raise InvalidRequest(f"no auth method of the type {kind} is enabled at {path}")
    return mount.uuid, name


def _usual(kind: str) -> str:
    return f"{AUTH}{kind}/"


async def remove_rows(core: Core, mount: str, kind: str, uuid: str) -> None:
    """Remove the tokens that a leaving mount gave out and all that it keeps.

    Nobody takes these tokens any more (``token/known.py``), so this holds nobody up. It can be repeated.

    Args:
        core: this process.
        mount: path.
        kind: of the method.
        uuid: of the mount.

    Raises:
        Sealed, Unavailable: it is not done yet.
    """
    for table, condition, value in _places(mount, kind, uuid):
        after: str | None = ""
        while after is not None:
            # Before it is looked whether the mount still leaves: one that is enabled anew makes this stale.
            try:
                async with (
                    own_changes(core, "sys.auth.disable", mount) as fence,
                    core.authority.issue(fence) as change,
                ):
                    row = await core.authority.fetch(MOUNTS, mount, change.connection)
                    if row is None or not row.body.get("leaving") or row.body["uuid"] != uuid:
                        return
                    after, failures = await _remove(core, change, table, condition, value, after)
            except Stale:
                await core.ledger.look()
                continue
            for failure in failures:
                core.metrics.integrity_failures.labels(failure.table).inc()
                _log.error("what belonged to a disabled auth method could not be removed: %s", failure)


def _places(mount: str, kind: str, uuid: str) -> Iterator[tuple[Table, str, Any]]:
    """Yield tables, a condition on their rows, and its value ``$1``."""
    yield TOKENS, "starts_with(body->>'path', $1)", mount
    for table, column, lead in AUTH_METHODS[kind].rows:
        yield table, f"starts_with({column}, $1)", lead + row_name(uuid, "")


async def _remove(
    core: Core, change: Change, table: Table, condition: str, value: str, after: str
) -> tuple[str | None, list[IntegrityFailure]]:
    """Remove one batch; return where the next begins, None at the end, and what is wrong with rows."""
    found = await change.connection.fetch(
        f"SELECT key FROM {table.name} WHERE {condition} AND key > $2 ORDER BY key LIMIT $3",  # noqa: S608
        value,
        after,
        _BATCH,
    )
    keys = [row["key"] for row in found]
    if table is TOKENS:
        _, failures = await remove_tokens(change, core.keyring(), keys)
    else:
        _, failures = await change.delete_many(table, keys)
    return keys[-1] if len(keys) == _BATCH else None, failures


def is_auth(mount: str) -> bool:
    """Tell whether a mount is an auth method that can be disabled."""
    return mount.startswith(AUTH) and mount != TOKEN_MOUNT

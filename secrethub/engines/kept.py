"""What engines that lease things out keep: rows of authority under the UUID of their mount.

So what is configured moves with its mount, and goes with it once the mount's leases have ended. A row's key
is ``<mount UUID>/<form>/<name>``. Secrets are sealed to their row.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec

from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import Context
from secrethub.engines.listing import shown
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_identity_value
from secrethub.storage.authority import ENGINE_CONFIGS, ENGINE_ROLES, Authority, Change, Row, Table

_LONGEST_NAME = 128
_BATCH = 500
_TABLES = (ENGINE_CONFIGS, ENGINE_ROLES)


def kept_key(mount: str, form: str, name: str) -> str:
    """Return the key of a row.

    Args:
        mount: UUID.
        form: of the row, such as ``role``.
        name: as in paths.

    Raises:
        InvalidRequest: not a name.
    """
    if not is_identity_value(name) or len(name) > _LONGEST_NAME:
        raise InvalidRequest(f"a name has 1 to {_LONGEST_NAME} characters of A-Z, a-z, 0-9, '_', '.' and '-'")
    return f"{mount}/{form}/{name}"


async def kept_rows(authority: Authority, table: Table, mount: str, form: str) -> list[Row]:
    """Return the rows of a form that a mount has, in the order of their names.

    Raises:
        IntegrityFailure: one is not authentic, or one is missing.
    """
    rows, broken = await authority.everything(table)
    for trouble in broken.values():
        raise trouble
    prefix = f"{mount}/{form}/"
    return sorted((row for row in rows if row.key.startswith(prefix)), key=lambda row: row.key)


async def kept_names(context: Context, table: Table, form: str) -> list[str]:
    """Return the names of rows that the caller may know of.

    Raises:
        NotFound: there are none.
        IntegrityFailure: a row is not authentic, or one is missing.
    """
    rows = await kept_rows(context.core.authority, table, context.mount_id, form)
    names = await shown(context, sorted(name_of(row.key) for row in rows))
    if not names:
        raise NotFound("there are none")
    return names


def name_of(key: str) -> str:
    """Return the name in a row's key."""
    return key.rpartition("/")[2]


async def forget_kept(authority: Authority, change: Change, mount: str) -> bool:
    """Remove some of what the engine of a removed mount kept; tell whether nothing is left.

    Raises:
        IntegrityFailure: a row is not authentic.
    """
    for table in _TABLES:
        keys = await authority.keys(table, owner=mount, limit=_BATCH)
        if keys:
            _, failures = await change.delete_many(table, keys)
            for failure in failures:
                raise failure
            return False
    return True


def sealed_secrets(keyring: Keyring, table: Table, key: str, secrets: Mapping[str, str]) -> str:
    """Seal secrets to the row that they belong to; nothing gives an empty text."""
    if not secrets:
        return ""
    return base64.b64encode(keyring.seal(msgspec.json.encode(secrets), _place(table, key))).decode("ascii")


def opened_secrets(keyring: Keyring, table: Table, key: str, sealed: str) -> dict[str, str]:
    """Open the secrets of a row.

    Raises:
        DecryptionFailed: they were not sealed to this row.
    """
    if not sealed:
        return {}
    content = keyring.open(base64.b64decode(sealed), _place(table, key))
    return msgspec.json.decode(content, type=dict[str, str])


def _place(table: Table, key: str) -> Place:
    if table == ENGINE_ROLES:
        return Place(table=ENGINE_ROLES.name, column="secrets", row=key, version=0)
    return Place(table=ENGINE_CONFIGS.name, column="secrets", row=key, version=0)

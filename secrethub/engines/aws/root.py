"""Who we are at AWS: one row of a mount, with the secret key sealed to it."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.crypto.keyring import Keyring
from secrethub.engines.kept import kept_key, opened_secrets, sealed_secrets
from secrethub.engines.reconciling import USUAL_SECONDS
from secrethub.engines.runtime import Core
from secrethub.errors import Conflict, InvalidRequest
from secrethub.sensitive import Sensitive
from secrethub.storage.authority import ENGINE_CONFIGS, Row

FORM = "aws"
ROOT = "root"
TARGET = "aws"
"""What leases call it: a mount has one."""
_SECRET = "secret_key"  # noqa: S105 - the name of a field
_INTERRUPTED = 120_000_000
"""Microseconds after which a turn has ended, one way or another: more than it is given."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """Our own key is being replaced.

    Attributes:
        at: when that began, microseconds since the epoch.
        before: ids of the keys that there were; one more is a key of which nobody knows the secret any more.
    """

    at: int
    before: tuple[str, ...]


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are. Its secret shows only sealed.

    Attributes:
        key: of its row.
        revision: of its row; 0 before it is written.
        access_key: id of our key.
        secrets: what proves that it is ours, sealed.
        region: of the services.
        iam_endpoint: URL; empty for Amazon's own.
        sts_endpoint: likewise.
        max_retries: beyond the first try of a call; -1 for what is usual here.
        username_template: how users are called; empty for what is usual.
        stray_check: seconds between two searches for users without a lease; 0 for none.
        remove_strays: whether those are removed, or only told of.
        turn: of our own key, under way or interrupted.
        retiring: id of the key that we had before, while it is still there; or empty.
    """

    key: str
    revision: int = 0
    access_key: str = ""
    secrets: str = ""
    region: str = "us-east-1"
    iam_endpoint: str = ""
    sts_endpoint: str = ""
    max_retries: int = -1
    username_template: str = ""
    stray_check: int = USUAL_SECONDS
    remove_strays: bool = False
    turn: Turn | None = None
    retiring: str = ""

    def check_still(self, now: int) -> None:
        """Check that nobody is replacing our own key at an instant, microseconds since the epoch.

        Raises:
            Conflict: somebody is, or died doing so a moment ago.
        """
        if self.turn is not None and now - self.turn.at < _INTERRUPTED:
            raise Conflict("the key is being replaced")

    def body(self) -> dict[str, Any]:
        """Return the row's body."""
        body: dict[str, Any] = msgspec.to_builtins(self)
        del body["key"], body["revision"]
        return body

    def secret_key(self, keyring: Keyring) -> Sensitive[str]:
        """Return what proves that the key is ours."""
        return Sensitive(opened_secrets(keyring, ENGINE_CONFIGS, self.key, self.secrets)[_SECRET])

    def with_key(self, keyring: Keyring, access_key: str, secret_key: str) -> Root:
        """Return it with another key."""
        secrets = sealed_secrets(keyring, ENGINE_CONFIGS, self.key, {_SECRET: secret_key})
        return msgspec.structs.replace(self, access_key=access_key, secrets=secrets)


def root_key(mount: str) -> str:
    """Return the key of a mount's row."""
    return kept_key(mount, FORM, ROOT)


def is_root(row: Row) -> bool:
    """Tell whether a row of engines' configurations says who we are at AWS."""
    return row.key == root_key(row.key.split("/")[0])


def root_of(row: Row) -> Root:
    """Return what a row describes."""
    return msgspec.convert({**row.body, "key": row.key, "revision": row.revision}, Root)


async def find_root(core: Core, mount: str) -> Root | None:
    """Return who we are for the mount with a UUID, or None.

    Raises:
        IntegrityFailure: the row is not authentic.
    """
    row = await core.authority.get(ENGINE_CONFIGS, root_key(mount))
    return None if row is None else root_of(row)


async def used_root(core: Core, mount: str) -> Root:
    """Return who we are for a mount that is configured.

    Raises:
        InvalidRequest: it is not.
        IntegrityFailure: the row is not authentic.
    """
    found = await find_root(core, mount)
    if found is None:
        raise InvalidRequest("config/root is not written yet: no credentials of the server's own are used")
    return found

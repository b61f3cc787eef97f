"""What a token's row says. The token itself is never stored, its accessor only sealed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring

MAX_TTL = 768 * 3600
"""Seconds that a token lives by default, and at most unless its kind says otherwise."""


def token_body(
    keyring: Keyring,
    digest: str,
    accessor: str,
    *,
    display_name: str,
    policies: tuple[str, ...],
    now: datetime,
    path: str,
    ttl: int = 0,
    max_ttl: int = 0,
    explicit: bool = True,
    renewable: bool = False,
    meta: Mapping[str, str] | None = None,
    period: int = 0,
    num_uses: int = 0,
    bound_cidrs: Sequence[str] = (),
    role: str = "",
    origin: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the body of a token's row.

    Args:
        keyring: seals the accessor.
        digest: the row's key.
        accessor: shown again by lookups.
        display_name: for people.
        policies: names.
        now: when it is created.
        path: where it was created.
        ttl: seconds it was issued for; 0 for ever.
        max_ttl: seconds after creation beyond which no renewal goes; 0 for the system's maximum.
        explicit: whether that maximum was asked for of the token itself, not of its role or mount.
        renewable: whether it can be renewed.
        meta: what the auth method knows about the owner.
        period: seconds that each renewal gives, without a maximum of the system; 0 for none.
        num_uses: requests that it is good for; 0 for any number.
        bound_cidrs: networks that it is good from, canonical; none for all.
        role: the token role that it was made by, or empty.
        origin: the row of authority that a login gave it for, or None.
    """
    return {
        "accessor": base64.b64encode(keyring.seal(accessor.encode(), accessor_place(digest))).decode(),
        "display_name": display_name,
        "policies": list(policies),
        "created_at": int(now.timestamp()),
        "path": path,
        "ttl": ttl,
        "max_ttl": max_ttl,
        "explicit": explicit,
        "renewable": renewable,
        "type": "service",
        "meta": dict(meta or {}),
        "period": period,
        "num_uses": num_uses,
        "uses_left": num_uses or None,
        "bound_cidrs": list(bound_cidrs),
        "role": role,
        "origin": None if origin is None else dict(origin),
    }


def accessor_place(digest: str) -> Place:
    """Return where a token's accessor is at home."""
    return Place(table="tokens", column="accessor", row=digest, version=0)


def open_accessor(keyring: Keyring, digest: str, body: Mapping[str, Any]) -> str:
    """Return the accessor of a token's row; empty for a batch token, which has none.

    Raises:
        DecryptionFailed: it was not sealed here.
    """
    sealed = body["accessor"]
    return keyring.open(base64.b64decode(sealed), accessor_place(digest)).decode() if sealed else ""

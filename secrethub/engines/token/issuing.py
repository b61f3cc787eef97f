"""Making tokens: the rows of service tokens, the text of batch tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from secrethub.auth.batch import BatchToken, seal_batch
from secrethub.auth.digests import accessor_digest, token_digest
from secrethub.auth.tokens import MAX_TTL, token_body
from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import Auth
from secrethub.engines.runtime import Core
from secrethub.ids import new_accessor, new_token
from secrethub.storage.authority import ACCESSORS, TOKENS, Change, Table


class FreshToken(NamedTuple):
    """A service token that is about to be made. ``token`` is secret.

    Attributes:
        digest: key of its row.
        accessor_digest: key of its accessor's row.
    """

    token: str
    accessor: str
    digest: str
    accessor_digest: str

    def __repr__(self) -> str:
        return f"FreshToken({self.digest[:16]})"

    @property
    def places(self) -> tuple[tuple[Table, str], tuple[Table, str]]:
        """The rows that :func:`issue_token` writes."""
        return (TOKENS, self.digest), (ACCESSORS, self.accessor_digest)


def fresh_token(keyring: Keyring) -> FreshToken:
    """Return a random token and what it will be known by."""
    token, accessor = new_token(), new_accessor()
    return FreshToken(token, accessor, token_digest(keyring, token), accessor_digest(keyring, accessor))


async def issue_token(
    change: Change,
    keyring: Keyring,
    now: datetime,
    *,
    display_name: str,
    policies: Sequence[str],
    ttl: int,
    max_ttl: int,
    explicit: bool,
    renewable: bool,
    path: str,
    meta: dict[str, str],
    parent: str | None = None,
    period: int = 0,
    num_uses: int = 0,
    bound_cidrs: Sequence[str] = (),
    role: str = "",
    origin: Mapping[str, str] | None = None,
    fresh: FreshToken | None = None,
) -> Auth:
    """Make a service token inside a transaction and return it.

    Args:
        change: an issue or change of authority.
        keyring: for digests and the sealed accessor.
        now: the instant of creation.
        display_name: for people and the ledger.
        policies: names.
        ttl: seconds; 0 for ever.
        max_ttl: seconds that renewals reach at most; 0 for the system's maximum.
        explicit: whether that maximum was asked for of the token itself.
        renewable: whether it can be renewed.
        path: where it was made.
        meta: what the auth method knows.
        parent: digest of the token it belongs to; None for an orphan.
        period: seconds that each renewal gives, whatever the system's maximum; 0 for none.
        num_uses: requests that it is good for; 0 for any number.
        bound_cidrs: networks that it is good from, canonical.
        role: the token role that it is made by.
        origin: the row that a login gave it for (``logins.py``).
        fresh: the token itself, if it is known beforehand.
    """
    token, accessor, digest, accessor_key = fresh or fresh_token(keyring)
    names = tuple(policies)
    await change.put(
        TOKENS,
        digest,
        token_body(
            keyring,
            digest,
            accessor,
            display_name=display_name,
            policies=names,
            now=now,
            path=path,
            ttl=ttl,
            max_ttl=max_ttl,
            explicit=explicit,
            renewable=renewable,
            meta=meta,
            period=period,
            num_uses=num_uses,
            bound_cidrs=bound_cidrs,
            role=role,
            origin=origin,
        ),
        owner=parent,
        expires_at=now + timedelta(seconds=ttl) if ttl else None,
        expected_revision=0,
    )
    longest = max_ttl if period else max_ttl or MAX_TTL
    await change.put(
        ACCESSORS,
        accessor_key,
        {"token": digest},
        owner=digest,
        expires_at=now + timedelta(seconds=longest) if ttl and longest else None,
        expected_revision=0,
    )
    return Auth(
        client_token=token,
        accessor=accessor,
        policies=names,
        token_policies=names,
        metadata=meta,
        lease_duration=ttl,
        renewable=renewable,
        orphan=parent is None,
        num_uses=num_uses,
    )


def issue_batch(
    core: Core,
    now: datetime,
    *,
    display_name: str,
    policies: Sequence[str],
    ttl: int,
    path: str,
    meta: dict[str, str],
    parent: str | None = None,
    bound_cidrs: Sequence[str] = (),
    role: str = "",
    origin: Mapping[str, str] | None = None,
) -> Auth:
    """Make a batch token; nothing is stored.

    Args:
        core: this process.
        now: the instant of creation.
        display_name: for people and the ledger.
        policies: names.
        ttl: seconds.
        path: where it was made.
        meta: what the auth method knows.
        parent: digest of the token it ends with; None for an orphan.
        bound_cidrs: networks that it is good from, canonical.
        role: the token role that it is made by.
        origin: the row that a login gave it for (``logins.py``).

    Raises:
        InvalidRequest: it would not fit into a header.
    """
    names = tuple(policies)
    text = seal_batch(
        core.keyring(),
        core.keys.cluster_id,
        BatchToken(
            display_name=display_name,
            policies=names,
            created_at=now,
            ttl=ttl,
            path=path,
            meta=meta,
            parent=parent,
            bound_cidrs=tuple(bound_cidrs),
            role=role,
            origin=origin,
        ),
    )
    return Auth(
        client_token=text,
        accessor="",
        policies=names,
        token_policies=names,
        metadata=meta,
        lease_duration=ttl,
        renewable=False,
        token_type="batch",  # noqa: S106 - a kind, not a secret
        orphan=parent is None,
    )

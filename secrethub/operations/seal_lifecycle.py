"""Init, and the commits that change the seal. Called by SealState alone, which holds the root key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from secrethub.auth.digests import accessor_digest, token_digest
from secrethub.auth.tokens import token_body
from secrethub.crypto.keyring import Keyring, unwrap
from secrethub.errors import Conflict, NotInitialised
from secrethub.ids import new_accessor, new_token, new_uuid
from secrethub.operations.transport_ca import RootKeyType, create_authorities
from secrethub.policy.builtin import DEFAULT_POLICY_SOURCE
from secrethub.seal.bootstrap import bootstrap
from secrethub.seal.slots import KmsSlot
from secrethub.seal.warrant import unsealed_mac
from secrethub.storage.authority import ACCESSORS, MOUNTS, POLICIES, TOKENS, Change
from secrethub.storage.database import Database
from secrethub.storage.seal_slots import insert_slot, load_slots
from secrethub.storage.seal_store import (
    ClusterRow,
    insert_cluster,
    load_cluster,
    next_epoch,
    set_sealed,
)

__all__ = [
    "ClusterRow",
    "Initialised",
    "RootKeyType",
    "commit_sealed",
    "commit_unsealed",
    "initialise",
    "load_cluster",
    "load_slots",
    "next_epoch",
    "open_keyring",
]

_FIRST_EPOCH = 1
_DEFAULT_MOUNTS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("secret/", "kv", "key/value store", {"version": "2"}),
    ("secrets/", "flat", "flat view of secret/", {}),
    ("secrets/dynamic/postgresql/", "database", "users of PostgreSQL", {}),
    ("secrets/dynamic/redis/", "database", "users of Redis", {}),
    ("secrets/dynamic/aws/", "aws", "credentials of AWS", {}),
    ("pki/", "pki", "certificates", {}),
    ("auth/token/", "token", "token based credentials", {}),
    ("auth/approle/", "approle", "machines", {}),
    ("auth/cert/", "cert", "client certificates", {}),
    ("auth/userpass/", "userpass", "people", {}),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Initialised:
    """A new cluster. Secrets are hidden in ``repr`` and shown to the operator once."""

    cluster_id: str
    shares: tuple[bytes, ...] = field(repr=False)
    root_token: str = field(repr=False)
    written: tuple[Mapping[str, Any], ...]
    """The rows of authority, for the ledger."""


async def initialise(
    database: Database,
    shares: int,
    threshold: int,
    now: datetime,
    *,
    dev: bool = False,
    root_key_type: RootKeyType = "ecdsa-p384",
    opener: KmsSlot | None = None,
    psk: bytes = b"",
) -> Initialised:
    """Make the cluster in one transaction, with its first rows of authority.

    With unseal shares it is sealed. With a key service it is unsealed in the database, and nobody has its
    root key: as after an outage of every node, so the service is asked for it, now or at the next start.

    Args:
        database: empty, but migrated.
        shares: shares to make.
        threshold: shares that count.
        now: the instant of init.
        dev: marks the database as a development cluster's.
        root_key_type: key of the built-in root CA and of the PKI authority below it.
        opener: as in :func:`secrethub.seal.bootstrap.bootstrap`.
        psk: the cluster's pre-shared key; needed with an opener.

    Raises:
        InvalidRequest: impossible numbers.
        Conflict: there is a cluster already; nothing changed.
        Unavailable: the database does not answer.
    """
    made = bootstrap(shares, threshold, int(now.timestamp()), opener)
    root_token = new_token()
    row = ClusterRow(
        cluster_id=made.cluster_id,
        cluster_name=f"secrethub-{made.cluster_id[:8]}",
        dev=dev,
        created_at=now,
        sealed=opener is None,
        seal_epoch=_FIRST_EPOCH,
        unsealed_mac=b"" if opener is None else unsealed_mac(psk, made.cluster_id, _FIRST_EPOCH),
        generation=1,
        keyring_revision=made.keyring_revision,
        wrapped_keyring=made.wrapped_keyring,
        notary_public=made.notary_public,
        notary_mac=made.notary_mac,
        wrapped_notary=made.wrapped_notary,
        timeline_mac=made.timeline_mac,
    )
    try:
        async with database.write() as connection:
            if not await insert_cluster(connection, row):
                raise Conflict("Vault is already initialized")
            for slot in made.slots:
                await insert_slot(connection, made.root_key, slot, now)
            change = Change(connection, made.keyring.derived("authority"))
            await _first_rows(change, made.keyring, root_token, now)
            await create_authorities(change, made.keyring, made.cluster_id, now, root_key_type)
    finally:
        made.keyring.wipe()
    return Initialised(
        cluster_id=made.cluster_id,
        shares=made.shares,
        root_token=root_token,
        written=tuple(change.written),
    )


async def _first_rows(change: Change, keyring: Keyring, root_token: str, now: datetime) -> None:
    for path, kind, description, options in _DEFAULT_MOUNTS:
        await change.put(
            MOUNTS,
            path,
            {
                "type": kind,
                "uuid": new_uuid(),
                "accessor": f"{kind}_{new_accessor()[:8]}",
                "description": description,
                "options": options,
            },
        )
    await change.put(POLICIES, "default", {"source": DEFAULT_POLICY_SOURCE})
    await put_root_token(change, keyring, root_token, now)


async def put_root_token(change: Change, keyring: Keyring, token: str, now: datetime) -> None:
    """Write a root token's rows: one that never ends and belongs to nobody."""
    digest, accessor = token_digest(keyring, token), new_accessor()
    body = token_body(
        keyring,
        digest,
        accessor,
        display_name="root",
        policies=("root",),
        now=now,
        path="auth/token/root",
    )
    await change.put(TOKENS, digest, body)
    await change.put(ACCESSORS, accessor_digest(keyring, accessor), {"token": digest})


async def commit_unsealed(
    database: Database, root_key: bytes, psk: bytes, *, epoch: int | None = None
) -> int:
    """Commit that the cluster is unsealed, and return the new seal epoch.

    Args:
        database: where.
        root_key: must open the keyring; otherwise nothing is committed.
        psk: the cluster's pre-shared key.
        epoch: SealState's incarnation.

    Raises:
        DecryptionFailed: the root key is not the cluster's.
        NotInitialised: there is no cluster.
        Unavailable: the database does not answer.
    """
    keyring = await open_keyring(database, root_key)
    keyring.wipe()
    return await set_sealed(database, unsealed_by=psk, epoch=epoch)


async def commit_sealed(database: Database, *, epoch: int | None = None) -> int:
    """Commit that the cluster is sealed, and return the new seal epoch: no answer leaves from now on.

    Raises:
        NotInitialised: there is no cluster.
        Unavailable: the database does not answer.
    """
    return await set_sealed(database, unsealed_by=None, epoch=epoch)


async def open_keyring(database: Database, root_key: bytes) -> Keyring:
    """Return the keyring that the root key opens.

    Raises:
        DecryptionFailed: it does not open.
        NotInitialised: there is no cluster.
        Unavailable: the database does not answer.
    """
    row = await load_cluster(database)
    if row is None:
        raise NotInitialised
    return unwrap(root_key, row.wrapped_keyring, row.cluster_id, row.keyring_revision)

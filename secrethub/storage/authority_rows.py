"""The form of authority rows and what authenticates them. See ``authority.py`` for the rules."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from secrethub.clock import micros
from secrethub.crypto.digests import equal, mac
from secrethub.errors import IntegrityFailure

MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Table:
    """An authority table and into how many buckets it is cut."""

    name: str
    buckets: int

    def bucket(self, key: str) -> int:
        """Return the bucket of ``key``."""
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % self.buckets


SECRET_IDS = Table("secret_ids", 4096)
LOGIN_FAILURES = Table("login_failures", 1024)
TOKENS = Table("tokens", 4096)
ACCESSORS = Table("accessors", 4096)
CUBBYHOLES = Table("cubbyholes", 4096)
AGENTS = Table("agents", 1024)
POLICIES = Table("policies", 64)
MOUNTS = Table("mounts", 64)
APPROLES = Table("approles", 64)
TOKEN_ROLES = Table("token_roles", 64)
ROLE_IDS = Table("role_ids", 64)
USERS = Table("users", 64)
CERT_ROLES = Table("cert_roles", 64)
PKI_ROLES = Table("pki_roles", 64)
CERTIFICATE_AUTHORITIES = Table("certificate_authorities", 64)
BINDINGS = Table("bindings", 1024)
AUDIT_SETTINGS = Table("audit_settings", 64)
SETTINGS = Table("settings", 64)
QUOTAS = Table("quotas", 64)
PASSWORD_POLICIES = Table("password_policies", 64)
ROTATIONS = Table("rotations", 256)
ENGINE_CONFIGS = Table("engine_configs", 64)
ENGINE_ROLES = Table("engine_roles", 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A verified row.

    Attributes:
        body: its document, as plain JSON values.
        owner: what it belongs to (a token's parent, a SecretID's role), or None.
    """

    table: str
    key: str
    revision: int
    body: Mapping[str, Any]
    owner: str | None = None
    expires_at: datetime | None = None


TABLES = (
    SECRET_IDS,
    LOGIN_FAILURES,
    TOKENS,
    ACCESSORS,
    CUBBYHOLES,
    AGENTS,
    POLICIES,
    MOUNTS,
    APPROLES,
    TOKEN_ROLES,
    ROLE_IDS,
    USERS,
    CERT_ROLES,
    PKI_ROLES,
    CERTIFICATE_AUTHORITIES,
    BINDINGS,
    AUDIT_SETTINGS,
    SETTINGS,
    QUOTAS,
    PASSWORD_POLICIES,
    ROTATIONS,
    ENGINE_CONFIGS,
    ENGINE_ROLES,
)


def encode_body(body: Mapping[str, Any]) -> str:
    """Return the one JSON text of a body."""
    return msgspec.json.encode(body, order="sorted").decode()


def row_mac(key: bytes, row: Row) -> bytes:
    """Return a row's authentication: HMAC-SHA256 over every column."""
    return mac(
        key,
        "authority",
        row.table,
        row.key,
        row.revision,
        encode_body(row.body),
        row.owner or "",
        row.owner is not None,
        -1 if row.expires_at is None else micros(row.expires_at),
    )


def item(key: bytes, table: str, row_key: str, revision: int, authentication: bytes) -> int:
    """Return what a row adds to its bucket's sum."""
    return int.from_bytes(mac(key, "authority-item", table, row_key, revision, authentication), "big")


def bucket_mac(key: bytes, table: str, bucket: int, revision: int, digest: bytes) -> bytes:
    """Return a bucket's authentication."""
    return mac(key, "authority-bucket", table, bucket, revision, digest)


@dataclass(slots=True)
class Bucket:
    """A bucket whose rows were found to be those that its sum speaks of.

    Attributes:
        number: which one of the table's.
        revision: counts its changes; 0 before the first.
        total: the sum.
        rows: revision and authentication of each row by its key.
    """

    number: int
    revision: int
    total: int
    rows: dict[str, tuple[int, bytes]]


def check_head(key: bytes, table: str, bucket: int, head: Mapping[str, Any]) -> None:
    """Check a bucket's own authentication.

    Raises:
        IntegrityFailure: it is wrong.
    """
    if not equal(bucket_mac(key, table, bucket, head["revision"], head["digest"]), head["mac"]):
        raise IntegrityFailure(table, f"bucket {bucket}", "its authentication is wrong")


def checked_bucket(
    secret: bytes,
    table: Table,
    number: int,
    head: Mapping[str, Any] | None,
    rows: Mapping[str, tuple[int, bytes]],
    *,
    floor: int,
    key: str,
) -> Bucket | None:
    """Return a bucket, checked, or None when there never was one.

    Args:
        secret: authenticates.
        table: which table.
        number: which bucket.
        head: its row of ``authority_buckets``: revision, digest and mac.
        rows: revision and authentication of each row that is in it now.
        floor: a revision that it is known to have reached.
        key: the row that is wanted, for the error.

    Raises:
        IntegrityFailure: rows were added, removed or put back, or the bucket was.
    """
    if head is None:
        if rows or floor:
            raise IntegrityFailure(table.name, key, "its bucket is missing")
        return None
    if not equal(bucket_mac(secret, table.name, number, head["revision"], head["digest"]), head["mac"]):
        raise IntegrityFailure(table.name, key, f"the authentication of bucket {number} is wrong")
    if head["revision"] < floor:
        raise IntegrityFailure(table.name, key, "an older state was put back")
    total = sum(item(secret, table.name, name, *found) for name, found in rows.items()) % MODULUS
    if not equal(total.to_bytes(32, "big"), head["digest"]):
        raise IntegrityFailure(table.name, key, "a row was inserted, removed or put back")
    return Bucket(number, head["revision"], total, dict(rows))


def check_nobodys(secret: bytes, row: Row) -> None:
    """Take as long for ``row``, which is in no table, as for one that was found alone in its bucket.

    Everything is done four times: to find, write out and send a row takes the database, and to read it the
    driver, about three times as long as to check it (``./dev bench login-timing``).
    """
    for _ in range(4):
        authentication = row_mac(secret, row)
        digest = item(secret, row.table, row.key, row.revision, authentication).to_bytes(32, "big")
        equal(bucket_mac(secret, row.table, 0, row.revision, digest), digest)
        msgspec.json.decode(encode_body(row.body))


def verified(secret: bytes, table: Table, record: Any) -> Row:
    """Return the row of a database record.

    Raises:
        IntegrityFailure: the row was edited.
    """
    row = Row(
        table=table.name,
        key=record["key"],
        revision=record["revision"],
        body=msgspec.json.decode(record["body"]),
        owner=record["owner"],
        expires_at=record["expires_at"],
    )
    if not equal(row_mac(secret, row), record["mac"]):
        raise IntegrityFailure(table.name, row.key, "the row was edited")
    return row

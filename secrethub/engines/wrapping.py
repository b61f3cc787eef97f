"""Answers that are kept for whoever holds a wrapping token, and given out once.

A wrapping token is a service token with the built-in policy ``response-wrapping``. The answer is sealed
to its place in the token's cubbyhole. Opening it removes token, accessor and answer in one transaction
under the locks of their rows: of many who try at the same time one succeeds. Nobody tries again after a
crash in between: an answer that was taken out and did not arrive is lost, which its reader notices.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import msgspec

from secrethub.auth.digests import accessor_digest, token_digest
from secrethub.auth.tokens import open_accessor, token_body
from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import Answer, Auth, WrapInfo
from secrethub.errors import IntegrityFailure, InvalidRequest
from secrethub.ids import new_accessor, new_token
from secrethub.policy.builtin import WRAPPING
from secrethub.storage.authority import ACCESSORS, CUBBYHOLES, TOKENS, Change, Row
from secrethub.wire.durations import format_rfc3339

INVALID = "wrapping token is not valid or does not exist"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is kept. Not shown by ``repr``."""

    data: dict[str, msgspec.Raw] | None = None
    auth: Auth | None = None
    warnings: tuple[str, ...] = ()
    lease_id: str = ""
    renewable: bool = False
    lease_duration: int = 0
    missing: bool = False

    def __repr__(self) -> str:
        return "Kept()"


def kept(answer: Answer) -> bytes:
    """Return what is kept of an answer.

    Raises:
        InvalidRequest: it is one that cannot be.
    """
    if answer.bare or answer.flow is not None or answer.document is not None:
        raise InvalidRequest("this answer cannot be wrapped")
    return msgspec.json.encode(
        {
            "data": answer.data,
            "auth": answer.auth,
            "warnings": answer.warnings,
            "lease_id": answer.lease_id,
            "renewable": answer.renewable,
            "lease_duration": answer.lease_duration,
            "missing": answer.missing,
        },
        enc_hook=dict,
    )


def reopened(content: bytes) -> Answer:
    """Return the answer that was kept."""
    found = msgspec.json.decode(content, type=Kept)
    return Answer(
        data=found.data,
        auth=found.auth,
        warnings=found.warnings,
        lease_id=found.lease_id,
        renewable=found.renewable,
        lease_duration=found.lease_duration,
        missing=found.missing,
    )


async def keep(
    change: Change,
    keyring: Keyring,
    now: datetime,
    content: bytes,
    *,
    ttl: int,
    path: str,
    wrapped_accessor: str = "",
) -> WrapInfo:
    """Keep an answer inside a transaction and return the token that opens it.

    Args:
        change: an issue of authority.
        keyring: seals the answer.
        now: the instant.
        content: what :func:`kept` returned.
        ttl: seconds that it is kept.
        path: of the request that it answers.
        wrapped_accessor: of the token in the answer.
    """
    token, accessor = new_token(), new_accessor()
    digest = token_digest(keyring, token)
    ends = now + timedelta(seconds=ttl)
    body = token_body(
        keyring,
        digest,
        accessor,
        display_name="wrapping",
        policies=(WRAPPING,),
        now=now,
        path=path,
        ttl=ttl,
        max_ttl=ttl,
    )
    await change.put(TOKENS, digest, body, expires_at=ends, expected_revision=0)
    await change.put(
        ACCESSORS,
        accessor_digest(keyring, accessor),
        {"token": digest},
        owner=digest,
        expires_at=ends,
        expected_revision=0,
    )
    sealed = base64.b64encode(keyring.seal(content, _place(digest))).decode()
    await change.put(CUBBYHOLES, digest, {"response": sealed}, expires_at=ends, expected_revision=0)
    return WrapInfo(
        token=token,
        accessor=accessor,
        ttl=ttl,
        creation_time=format_rfc3339(now),
        creation_path=path,
        wrapped_accessor=wrapped_accessor,
    )


async def take_out(change: Change, keyring: Keyring, token: str, now: datetime) -> tuple[Row, bytes]:
    """Remove what a wrapping token opens, and the token, inside a transaction; return both.

    Raises:
        InvalidRequest: it is none, has expired, or was used.
        IntegrityFailure: a row is not authentic.
    """
    digest = token_digest(keyring, token)
    row = await change.get(TOKENS, digest)
    check_wrapping(row, now)
    assert row is not None
    await change.delete(TOKENS, digest)
    await change.delete(ACCESSORS, accessor_digest(keyring, open_accessor(keyring, digest, row.body)))
    rows, failures = await change.delete_many(CUBBYHOLES, [digest])
    for failure in failures:
        raise failure
    if not rows:
        raise IntegrityFailure(CUBBYHOLES.name, digest, "the wrapped answer is gone")
    return row, keyring.open(base64.b64decode(rows[0].body["response"]), _place(digest))


def check_wrapping(row: Row | None, now: datetime) -> None:
    """Check that a token's row is that of a wrapping token that is still good.

    Raises:
        InvalidRequest: it is not; which of that is not told.
    """
    if (
        row is None
        or row.body["policies"] != [WRAPPING]
        or (row.expires_at is not None and row.expires_at <= now)
    ):
        raise InvalidRequest(INVALID)


def created_at(row: Row) -> datetime:
    """Return when a wrapping token was made."""
    return datetime.fromtimestamp(row.body["created_at"], UTC)


def _place(digest: str) -> Place:
    return Place(table=CUBBYHOLES.name, column="response", row=digest, version=0)

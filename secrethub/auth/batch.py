"""Batch tokens: everything that a token's row would say, sealed into the token itself.

Nothing is stored, so they cost no write and can be neither renewed nor revoked by themselves. What ends
one early is the end of the token it was made from, which is looked at on every use.

Form: ``hvb.`` and the base64url text of salt (16 bytes) ‖ sealed value (``crypto/aead.py``). The key is
an HMAC of the salt under a key derived from the keyring: it is not changed by rotation, and no key seals
more than one token. The sealed value is bound to the cluster and to the version of this form.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from secrethub.crypto import aead
from secrethub.crypto.aead import Place
from secrethub.crypto.digests import mac
from secrethub.crypto.keyring import Keyring
from secrethub.errors import DecryptionFailed, InvalidRequest

PREFIX = "hvb."
MAX_LENGTH = 8192
"""Characters of a batch token, which must fit into a header."""

_SALT = 16
_VERSION = 1


class BatchToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a batch token says.

    Attributes:
        display_name: for people and the ledger.
        policies: names.
        created_at: the instant.
        ttl: seconds from then.
        path: where it was made.
        meta: what the auth method knows about the owner.
        parent: digest of the token that it ends with; None for an orphan.
        bound_cidrs: networks that it is good from; none for all.
        role: the token role that it was made by, or empty.
        origin: the row of authority that a login gave it for, or None.
    """

    display_name: str
    policies: tuple[str, ...]
    created_at: datetime
    ttl: int
    path: str
    meta: Mapping[str, str]
    parent: str | None
    bound_cidrs: tuple[str, ...]
    role: str
    origin: Mapping[str, str] | None = None

    @property
    def expires_at(self) -> datetime:
        """When it ends by itself."""
        return self.created_at + timedelta(seconds=self.ttl)


def seal_batch(keyring: Keyring, cluster_id: str, token: BatchToken) -> str:
    """Return the token's text.

    Raises:
        InvalidRequest: it says too much to be sent in a header.
    """
    salt = os.urandom(_SALT)
    sealed = aead.seal(_key(keyring, salt), 0, msgspec.json.encode(token), _place(cluster_id))
    text = PREFIX + _text(salt + sealed)
    if len(text) > MAX_LENGTH:
        raise InvalidRequest("a batch token cannot hold so many policies and so much metadata")
    return text


def open_batch(keyring: Keyring, cluster_id: str, text: str) -> BatchToken:
    """Return what a batch token says.

    Raises:
        DecryptionFailed: it was not made here, or is damaged.
    """
    try:
        raw = base64.urlsafe_b64decode(text.removeprefix(PREFIX) + "===")
    except (binascii.Error, ValueError):
        raise DecryptionFailed("no batch token") from None
    if PREFIX + _text(raw) != text:
        raise DecryptionFailed("another spelling of a batch token")
    opened = aead.open_sealed(_key(keyring, raw[:_SALT]), raw[_SALT:], _place(cluster_id))
    try:
        return msgspec.json.decode(opened, type=BatchToken)
    except msgspec.MsgspecError:
        raise DecryptionFailed("a batch token of an unknown form") from None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _key(keyring: Keyring, salt: bytes) -> bytes:
    return mac(keyring.derived("batch-token"), "batch-token", salt)


def _place(cluster_id: str) -> Place:
    return Place(table="tokens", column="batch", row=cluster_id, version=_VERSION)

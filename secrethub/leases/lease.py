"""A lease: something that was made at a target for somebody, and must be gone at an instant. Pure.

Instants are microseconds since the epoch in the database's time, so that no node's clock matters.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from secrethub.clock import from_micros
from secrethub.crypto.digests import mac

State = Literal["intent", "live"]
"""``intent``: about to be made at its target, or left half made. ``live``: made, and answered."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One lease, or the intent of one, under one id.

    Attributes:
        id: ``<path of the request>/<24 base62>``.
        revision: counts its changes.
        state: see :data:`State`.
        mount: UUID of the mount whose engine made it.
        role: of that engine.
        target: of that engine: what is asked to make and to end it, e.g. a configured connection.
        owner: digest of the token, or UUID of the agent, that it was made for.
        owner_name: for people.
        lineage: the owner and whatever it was made from; the end of any of them ends the lease.
        issued_at: when it was planned.
        renewed_at: 0 for never.
        expires_at: when it ends.
        max_expires_at: beyond which no renewal reaches.
        renewable: whether it can be renewed.
        sealed: what its engine needs to know, sealed to the lease's id and state.
    """

    id: str
    revision: int
    state: State
    mount: str
    role: str
    target: str
    owner: str
    owner_name: str
    lineage: tuple[str, ...]
    issued_at: int
    renewed_at: int = 0
    expires_at: int
    max_expires_at: int
    renewable: bool
    sealed: bytes

    def __repr__(self) -> str:
        return f"Lease({self.id!r}, revision={self.revision}, state={self.state!r})"

    @property
    def until(self) -> datetime:
        """When it ends."""
        return from_micros(self.expires_at)

    @property
    def marker(self) -> str:
        """The random part of its id, by which its engine names what it makes: unique in all clusters."""
        return self.id.rpartition("/")[2]


def lease_mac(key: bytes, lease: Lease) -> bytes:
    """Return a lease's authentication: everything but what is sealed, which its place authenticates."""
    return mac(
        key,
        "lease",
        lease.id,
        lease.revision,
        lease.state,
        lease.mount,
        lease.role,
        lease.target,
        lease.owner,
        lease.owner_name,
        lease.lineage,
        lease.issued_at,
        lease.renewed_at,
        lease.expires_at,
        lease.max_expires_at,
        lease.renewable,
    )

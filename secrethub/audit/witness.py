"""A witness outside the database: the newest checkpoint that somebody was shown, and what it proves.

Somebody who restores an older database restores everything that could contradict it, except what others
remember. Pure: where it is remembered is elsewhere.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from secrethub.audit.chain import Bad
from secrethub.audit.checkpoint import Signed, is_signed, link
from secrethub.audit.checkpoint_base import SignedBase, is_base_signed
from secrethub.audit.checkpoint_chain import CHECKPOINTS

RolledBack: TypeAlias = Literal["older", "forked"]
"""``older``: the database lacks what the witness has seen. ``forked``: it has something else in its place."""


class Witness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody keeps: a node in its state directory, an agent in its own.

    Attributes:
        public: the notary's public key, 32 bytes.
        signed: the newest checkpoint that was seen.
        seal_epoch: the newest one that the database was in; agents do not know it.
    """

    public: bytes
    signed: Signed
    seal_epoch: int = 0


def file_name(cluster_id: str) -> str:
    """Return the name of the file that has the witness of a cluster."""
    return f"witness-{cluster_id}.json"


def read_witness(data: bytes) -> Witness:
    """Return the witness that a file has.

    Raises:
        ValueError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=Witness)
    except msgspec.MsgspecError as exc:
        raise ValueError("not a witness of the ledger") from exc


def pack(signed: Signed) -> bytes:
    """Return a checkpoint as it travels between Core and agents."""
    return msgspec.msgpack.encode(signed)


def unpack(data: bytes) -> Signed:
    """Return a checkpoint that came from elsewhere; whether it is signed is not looked at.

    Raises:
        ValueError: it is none.
    """
    try:
        return msgspec.msgpack.decode(data, type=Signed)
    except msgspec.MsgspecError as exc:
        raise ValueError("not a checkpoint") from exc


def is_newer(one: Signed, other: Signed) -> bool:
    """Tell whether a checkpoint comes after another one, both being signed."""
    mine, theirs = one.checkpoint, other.checkpoint
    return (mine.timeline, mine.sequence) > (theirs.timeline, theirs.sequence)


def contradiction(
    kept: Signed, public: bytes, newest: Signed | None, same: Signed | None, base: SignedBase | None
) -> RolledBack | None:
    """Return what a witness has against a database, or None.

    Args:
        kept: what the witness has.
        public: the notary's public key, as the witness knows it.
        newest: the newest checkpoint of the database.
        same: the one there with the number of ``kept``.
        base: where the checkpoints begin there, if they were pruned. Of what was before it nobody can tell
            any more whether it was the same.
    """
    if newest is None:
        return "older"
    mine, theirs = kept.checkpoint, newest.checkpoint
    if not is_signed(newest, public):
        return "forked"
    if theirs.timeline > mine.timeline:
        return None  # K shares accepted a restore, or the notary would not have signed it
    if (theirs.timeline, theirs.sequence) < (mine.timeline, mine.sequence):
        return "older"
    if same is not None:
        return None if link(same) == link(kept) else "forked"
    if base is None or not is_base_signed(base, public) or base.base.cluster != mine.cluster:
        return "forked"
    if mine.sequence == base.base.sequence and link(kept) == base.base.link:
        return None
    return None if mine.sequence < base.base.sequence else "forked"


def contradicted(
    kept: Witness, newest: Signed | None, same: Signed | None, base: SignedBase | None
) -> Bad | None:
    """Return the first checkpoint of a ledger that is not what a witness has seen, or None.

    Args:
        kept: what the witness has.
        newest: the newest checkpoint of the ledger.
        same: the one there with the number of what is kept.
        base: where its checkpoints begin, if they were pruned.
    """
    found = contradiction(kept.signed, kept.public, newest, same, base)
    if found == "older":
        return Bad(CHECKPOINTS, 1 if newest is None else newest.checkpoint.sequence + 1, "truncated")
    return None if found is None else Bad(CHECKPOINTS, kept.signed.checkpoint.sequence, "forked")

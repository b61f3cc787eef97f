"""A witness outside the database: the newest checkpoint that somebody was shown, and what it proves.

Somebody who restores an older database restores everything that could contradict it, except what others
remember. Pure: where it is remembered is elsewhere.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from secrethub.audit.checkpoint import Signed, is_signed, link

RolledBack: TypeAlias = Literal["older", "forked"]
"""``older``: the database lacks what the witness has seen. ``forked``: it has something else in its place."""


def contradiction(
    kept: Signed, public: bytes, newest: Signed | None, same: Signed | None
) -> RolledBack | None:
    """Return what a witness has against a database, or None.

    Args:
        kept: what the witness has.
        public: the notary's public key, as the witness knows it.
        newest: the newest checkpoint of the database.
        same: the one there with the number of ``kept``.
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
    return None if same is not None and link(same) == link(kept) else "forked"

"""Which login a token comes from.

A token's metadata alone proves nothing: whoever may make tokens chooses it. What a login is about stands
beside it, in what only Core writes: in the token's row, or sealed into a batch token.
"""

from __future__ import annotations

import msgspec

from secrethub.storage.authority import Row


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a login was about: the row of a role, a user or a certificate.

    Attributes:
        table: of authority.
        key: of the row.
        uuid: which row of that key: one made anew after a deletion is another.
        proof: digest of the key of a client certificate, which renewals must show again; or empty.
    """

    table: str
    key: str
    uuid: str
    proof: str = ""


def origin_of(token: Row) -> Origin | None:
    """Return what a token was given by, or None if it does not come from a login.

    Args:
        token: its row, or what stands for the row of a batch token.
    """
    told = token.body["origin"]
    return None if told is None else msgspec.convert(told, Origin)

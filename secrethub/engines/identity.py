"""Who asks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from secrethub.engines.bindings import Application


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, resolved live for this decision.

    Attributes:
        kind: ``token`` or ``agent``.
        key: the token's digest or the agent's UUID; stable, not secret.
        name: for the ledger: the token's display name or the agent's name.
        policies: names of the policies that apply now, bound ones included.
        bound: those of them that it has by bindings alone (``engines/bindings.py``); never passed on.
        accessor: HMAC-masked accessor for the ledger, or empty.
        expires_at: when the identity ends, or None.
        good_until: when it or an ancestor ends, or None.
        entity: who it is whichever token is shown: role or user of its login, the agent, or the token.
        lineage: keys of the token and of those it was made from.
        life: seconds that its token lives in all, renewals so far included; 0 for one without an end.
        metadata: what the auth method attached.
        batch: whether it is a batch token, which has no row.
        uses_left: requests that its token is good for, this one included; None for any number.
        bound_cidrs: networks that its token is good from; none for all.
        application: on whose behalf an agent asks, as the agent says; what is bound to it must allow, too.
    """

    kind: Literal["token", "agent"]
    key: str
    name: str
    policies: tuple[str, ...]
    bound: tuple[str, ...] = ()
    accessor: str = ""
    expires_at: datetime | None = None
    good_until: datetime | None = None
    entity: str = ""
    lineage: tuple[str, ...] = ()
    life: int = 0
    metadata: Mapping[str, str] = {}
    batch: bool = False
    uses_left: int | None = None
    bound_cidrs: tuple[str, ...] = ()
    application: Application | None = None

    @property
    def own_policies(self) -> tuple[str, ...]:
        """The policies that it has itself: what children of its token may have."""
        return tuple(name for name in self.policies if name not in self.bound)

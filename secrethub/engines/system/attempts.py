"""What every attempt that shares carry out offers: it is shown, given up, and takes shares.

A share needs no token: it is worth more. Each share names the attempt that it is meant for. How an attempt is
begun differs, and is not here. Nothing of this is answered through Ray Serve's ingress.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from secrethub.engines.ceremonies import CeremonyResult, Progress
from secrethub.engines.engine import EMPTY, Answer, Context, Hidden, Operation
from secrethub.engines.system.seal_answers import AttemptAnswer
from secrethub.engines.system.seal_gate import beside_the_ingress, origin_of
from secrethub.seal.shares import decode_share
from secrethub.seal.wishes import Purpose


class ShareRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One share in hexadecimal or base64, and the attempt that it is meant for."""

    key: str
    nonce: str


class GiveUpRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``nonce``: the attempt that is meant; whichever is under way when it is not given."""

    nonce: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A kind of attempt, as it is offered.

    Attributes:
        purpose: which kind.
        names: of the operations that show it, give it up and take a share.
        attempt: pattern of the first two.
        give: pattern of the third.
        summaries: of the three.
        shown: how far it is → what is answered.
        done: what the last share brought about → what is answered.
        bare: without an envelope, as in Vault.
        anew: giving it up begins it again, with another nonce.
        may_end: refuses whoever may not give it up. None: who has ``sudo`` may.
    """

    purpose: Purpose
    names: tuple[str, str, str]
    attempt: str
    give: str
    summaries: tuple[str, str, str]
    shown: Callable[[Progress], Mapping[str, Any]]
    done: Callable[[CeremonyResult], Mapping[str, Any]]
    bare: bool = True
    anew: bool = False
    may_end: Callable[[Context], None] | None = None

    def operations(self) -> tuple[Operation, ...]:
        """Return the three operations."""
        progress, cancel, update = self.names
        return (
            Operation(
                name=progress,
                method="read",
                pattern=self.attempt,
                handler=self.tell,
                response=AttemptAnswer,
                capability="read",
                public=True,
                bare=self.bare,
                summary=self.summaries[0],
            ),
            Operation(
                name=cancel,
                method="delete",
                pattern=self.attempt,
                handler=self.end,
                response=AttemptAnswer,
                capability="delete",
                request=GiveUpRequest,
                plain=frozenset({"nonce"}),
                strict=not self.bare,
                changes=True,
                public=self.may_end is not None,
                sudo=self.may_end is None,
                bare=self.bare,
                summary=self.summaries[1],
            ),
            Operation(
                name=update,
                method="write",
                pattern=self.give,
                handler=self.take,
                response=AttemptAnswer,
                capability="update",
                request=ShareRequest,
                changes=True,
                public=True,
                wraps=False,
                plain=frozenset({"nonce"}),
                strict=not self.bare,
                bare=self.bare,
                summary=self.summaries[2],
            ),
        )

    async def tell(self, context: Context, _body: None) -> Answer:
        """Answer how far it is."""
        beside_the_ingress(context)
        return self.begun(await context.core.seal.ceremonies.attempt(self.purpose))

    async def end(self, context: Context, body: GiveUpRequest) -> Answer:
        """Give it up, if there is one; everything stays as it is."""
        beside_the_ingress(context)
        if self.may_end is not None:
            self.may_end(context)
        await context.core.seal.ceremonies.cancel(self.purpose, origin_of(context), body.nonce)
        return await self.tell(context, None) if self.anew else EMPTY

    async def take(self, context: Context, body: ShareRequest) -> Answer:
        """Take a share; the last one needed has it done."""
        beside_the_ingress(context)
        ceremonies, origin = context.core.seal.ceremonies, origin_of(context)
        result = await ceremonies.give(self.purpose, decode_share(body.key), body.nonce, origin)
        made = result.progress
        if not made.complete:
            return self.begun(made)
        data = self.done(result)
        if "keys" not in data or not made.slot_id:
            return Answer(data=data, bare=self.bare)

        async def delivered() -> None:
            # Somebody has the new shares, so those that they replace may go.
            await ceremonies.settle(made.slot_id, origin)

        return Answer(data=data, bare=self.bare, delivered=delivered)

    def begun(self, found: Progress) -> Answer:
        """Return what is answered to whoever begins it, or asks how far it is."""
        return Answer(data=self.shown(found), bare=self.bare)


def new_shares(result: CeremonyResult) -> dict[str, Any]:
    """Return the shares that a ceremony gives out, as Vault spells them."""
    keys = list(result.secret)
    return {"keys": [base64.b64decode(key).hex() for key in keys], "keys_base64": keys}

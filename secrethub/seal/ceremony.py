"""Ceremonies: what changes the seal needs ``threshold`` shares, given one by one by the people who hold them.

::

    nothing ──start──► Ceremony ──give(share)──► Ceremony ──give(last share)──► Quorum ──► it is done
                          │
       nothing ◄──cancel──┘ (or the seal changes: sealed, or other slots)

A ceremony lives in the memory of SealState alone, and ends with it: shares are stored nowhere. Pure: no
IO, and whoever owns it adopts the next state only after the ledger has it. A wrong share is refused by
itself and changes nothing.

Whose shares: the cluster's set. While a set is leaving, either of the two, for it is not certain which of
them people have.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from secrethub.errors import InvalidRequest
from secrethub.ids import new_uuid
from secrethub.seal.gathered import Gathered
from secrethub.seal.slots import ShamirSlot, slot_secret


@dataclass(frozen=True, kw_only=True, slots=True)
class Quorum:
    """Enough shares were given, and they are the cluster's.

    Attributes:
        slot: the set that they belong to.
    """

    slot: ShamirSlot


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceremony:
    """One attempt.

    Attributes:
        wish: what shall be done; decided when it was started.
        slots: the sets of shares that count, the newest last; authenticated by the caller.
        nonce: identifies the attempt. Whoever gives a share names it, so that nobody authorises another
            attempt than the one he was told of.
    """

    wish: Any
    slots: tuple[ShamirSlot, ...]
    nonce: str = field(default_factory=new_uuid)
    _given: Gathered = field(default_factory=Gathered, repr=False)

    def give(self, share: bytes, nonce: str) -> Ceremony | Quorum:
        """Take one share.

        Args:
            share: 33 bytes.
            nonce: of the attempt that it is meant for.

        Raises:
            InvalidRequest: meant for another attempt.
            WrongShare: ``malformed``, ``unknown`` or ``duplicate``; the others stay given.
            DecryptionFailed: the shares are right but the slot's row is not; nothing changes.
        """
        self.check_nonce(nonce)
        given, slot = self._given.plus(self.slots, share)
        if len(given.of(slot)) < slot.threshold:
            return replace(self, _given=given)
        slot_secret(slot, given.of(slot))
        return Quorum(slot=slot)

    def check_nonce(self, nonce: str) -> None:
        """Check that ``nonce`` names this attempt, in constant time.

        Raises:
            InvalidRequest: it does not.
        """
        if not hmac.compare_digest(self.nonce.encode(), nonce.strip().lower().encode()):
            raise InvalidRequest("the nonce is not that of the attempt under way")

    @property
    def progress(self) -> int:
        """How many shares of :attr:`slot` were given."""
        return len(self._given.of(self.slot))

    @property
    def slot(self) -> ShamirSlot:
        """The set nearest to its threshold, the newest of equals; its counts are the ones to show."""
        return max(reversed(self.slots), key=lambda slot: len(self._given.of(slot)))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ceremony holds shares and is not pickled")

"""The seal state machine: every transition, as immutable values, without IO.

::

    uninitialised ──initialised(slots)──► sealed ◄──reset()── unsealing
                                            │ ▲                  │ ▲
                                 feed(share)│ │sealed()          │ │feed(share), not yet the last
                                            ▼ │                  ▼ │
                                         unsealing ──feed(last share)──► Opened ──► unsealed
                                                                                      │
                                         sealed ◄───────────────────────sealed()──────┘

A transition returns another machine; the old one stays as it was. So the owner adopts the new one
only after what had to be written is written: if the commit of an unseal fails, the machine before
the last share is still there, and that share may be given again.

Recovery shares open nothing: their last one gives :class:`Authorised`, and the owner opens the root key
with a key service.

A wrong share is refused by itself and changes nothing. Shares are key bytes: they are hidden in
``repr`` and not pickled.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NoReturn

from secrethub.errors import Conflict, NotInitialised
from secrethub.ids import new_uuid
from secrethub.seal.gathered import Gathered
from secrethub.seal.slots import ShamirSlot, open_slot, slot_secret


class Phase(StrEnum):
    """Where the machine is."""

    UNINITIALISED = "uninitialised"
    SEALED = "sealed"
    UNSEALING = "unsealing"
    UNSEALED = "unsealed"


@dataclass(frozen=True, kw_only=True, slots=True)
class SealMachine:
    """One state of the seal.

    Attributes:
        phase: where the machine is.
        slots: the sets of shares; empty while uninitialised.
        nonce: identifies the unseal attempt under way; empty when there is none.
    """

    phase: Phase = Phase.UNINITIALISED
    slots: tuple[ShamirSlot, ...] = ()
    nonce: str = ""
    _given: Gathered = field(default_factory=Gathered, repr=False)

    def initialised(self, slots: tuple[ShamirSlot, ...]) -> SealMachine:
        """Leave ``uninitialised``: the cluster exists and is sealed.

        Raises:
            Conflict: it was initialised already.
        """
        if self.phase is not Phase.UNINITIALISED:
            raise Conflict("already initialised")
        if not slots:
            raise ValueError("a cluster without a slot could never be opened")
        return SealMachine(phase=Phase.SEALED, slots=slots)

    def with_slots(self, slots: tuple[ShamirSlot, ...]) -> SealMachine:
        """Go on with the sets of shares that there are now; what was given of former ones is forgotten.

        Raises:
            NotInitialised: no cluster exists.
        """
        if self.phase is Phase.UNINITIALISED:
            raise NotInitialised
        if slots == self.slots:
            return self
        phase = Phase.UNSEALED if self.phase is Phase.UNSEALED else Phase.SEALED
        return SealMachine(phase=phase, slots=slots)

    def feed(self, share: bytes) -> SealMachine | Opened | Authorised:
        """Take one share.

        Returns:
            The machine with one more share; :class:`Opened`, or :class:`Authorised` for recovery shares,
            when this was the last one needed.
            An unsealed machine returns itself, whatever the share: the call may be a repetition.

        Raises:
            NotInitialised: there is nothing to open.
            WrongShare: ``malformed``, ``unknown`` or ``duplicate``; the others stay given.
            DecryptionFailed: the shares are right but the slot's row is not; nothing changes.
        """
        if self.phase is Phase.UNINITIALISED:
            raise NotInitialised
        if self.phase is Phase.UNSEALED:
            return self
        given, slot = self._given.plus(self.slots, share)
        shares = given.of(slot)
        if len(shares) < slot.threshold:
            return replace(self, phase=Phase.UNSEALING, nonce=self.nonce or new_uuid(), _given=given)
        if not slot.opens:
            slot_secret(slot, shares)
            return Authorised(slot_id=slot.slot_id)
        root_key = open_slot(slot, shares)
        return Opened(root_key=root_key, slot_id=slot.slot_id, machine=self.unsealed())

    def unsealed(self) -> SealMachine:
        """Go to ``unsealed`` and forget the shares: the root key was opened, here or by a peer.

        Raises:
            NotInitialised: there is nothing that could be open.
        """
        if self.phase is Phase.UNINITIALISED:
            raise NotInitialised
        return SealMachine(phase=Phase.UNSEALED, slots=self.slots)

    def sealed(self) -> SealMachine:
        """Go to ``sealed`` and forget the shares given so far.

        Raises:
            NotInitialised: there is nothing to seal.
        """
        if self.phase is Phase.UNINITIALISED:
            raise NotInitialised
        return SealMachine(phase=Phase.SEALED, slots=self.slots)

    def reset(self) -> SealMachine:
        """Forget the shares given so far.

        Raises:
            NotInitialised: no cluster exists.
            Conflict: the cluster is unsealed, so no attempt is under way.
        """
        if self.phase is Phase.UNSEALED:
            raise Conflict("Vault is unsealed")
        return self.sealed()

    @property
    def progress(self) -> int:
        """How many shares of :attr:`slot` were given."""
        slot = self.slot
        return 0 if slot is None else len(self._given.of(slot))

    @property
    def slot(self) -> ShamirSlot | None:
        """The slot nearest to opening, the first of equals; its counts are the ones to show."""
        return max(self.slots, key=lambda slot: (len(self._given.of(slot)), not slot.leaving), default=None)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a seal machine holds shares and is not pickled")


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """The last share was given.

    Attributes:
        root_key: 32 bytes; hidden in ``repr``.
        slot_id: the slot that was opened.
        machine: to be adopted once the unseal is committed.
    """

    root_key: bytes = field(repr=False)
    slot_id: str
    machine: SealMachine

    def __reduce__(self) -> NoReturn:
        raise TypeError("a root key is not pickled; seal it to its receiver instead")


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorised:
    """The last recovery share was given: the root key may be opened by other means.

    Whether the slot is the cluster's own is only known with the root key; check its row's MAC then.

    Attributes:
        slot_id: the set of recovery shares.
    """

    slot_id: str

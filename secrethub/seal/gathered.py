"""Shares that were given so far, of any of the sets that count. Pure; each change gives another value.

A wrong share is refused by itself and changes nothing. Shares are key bytes: hidden in ``repr``, not pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from secrethub.errors import WrongShare
from secrethub.seal.slots import ShamirSlot, recognise


@dataclass(frozen=True, slots=True)
class _Given:
    """A share that was recognised: whose, which, and itself."""

    slot_id: str
    index: int
    share: bytes = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a share is not pickled; seal it to its receiver instead")


@dataclass(frozen=True, slots=True)
class Gathered:
    """Shares that were given."""

    _given: tuple[_Given, ...] = field(default=(), repr=False)

    def plus(self, slots: Sequence[ShamirSlot], share: bytes) -> tuple[Gathered, ShamirSlot]:
        """Return these shares with one more, and the set that it belongs to.

        Args:
            slots: the sets that count.
            share: 33 bytes.

        Raises:
            WrongShare: ``malformed``, ``unknown`` or ``duplicate``.
        """
        slot, index = _whose(slots, share)
        if any((given.slot_id, given.index) == (slot.slot_id, index) for given in self._given):
            raise WrongShare("this share was given already", "duplicate")
        return Gathered((*self._given, _Given(slot.slot_id, index, share))), slot

    def of(self, slot: ShamirSlot) -> list[bytes]:
        """Return the shares of one set."""
        return [given.share for given in self._given if given.slot_id == slot.slot_id]

    def __reduce__(self) -> NoReturn:
        raise TypeError("shares are not pickled; seal them to their receiver instead")


def _whose(slots: Sequence[ShamirSlot], share: bytes) -> tuple[ShamirSlot, int]:
    for slot in slots:
        try:
            return slot, recognise(slot, share)
        except WrongShare as wrong:
            if wrong.reason != "unknown":
                raise
    raise WrongShare("this share is none of those that the cluster has now", "unknown")

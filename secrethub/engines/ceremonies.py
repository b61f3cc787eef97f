"""Ceremonies as a serving process sees them: attempts that enough shares carry out, in SealState."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from secrethub.audit.event import Origin
from secrethub.seal.slots import KmsKind
from secrethub.seal.wishes import Purpose, Wish


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an attempt is.

    Attributes:
        started: whether one is under way.
        nonce: identifies it.
        progress: shares given so far.
        required: shares needed.
        shares: of a rekey: how many shares there will be.
        threshold: of a rekey: how many of them will count.
        verify: of a rekey: the new shares must be given back before anything changes.
        recovery: of a rekey: it is about recovery shares.
        verification: nonce of the verification that a rekey waits for.
        complete: it is done.
        slot_id: the set of shares that a rekey made, if that replaces another one.
    """

    started: bool = False
    nonce: str = ""
    progress: int = 0
    required: int = 0
    shares: int = 0
    threshold: int = 0
    verify: bool = False
    recovery: bool = False
    verification: str = ""
    complete: bool = False
    slot_id: str = ""


class SlotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An unseal slot.

    Attributes:
        slot_id: UUID.
        kind: ``shamir``, ``recovery`` (shares that open nothing) or the kind of a key service.
        service: name of the service's key in the nodes' settings.
        shares: how many shares exist.
        threshold: how many of them count.
        leaving: newer shares were made, and nobody has shown yet that they arrived.
    """

    slot_id: str
    kind: str
    service: str = ""
    shares: int = 0
    threshold: int = 0
    leaving: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CeremonyResult:
    """What a share brought about.

    Attributes:
        progress: of the attempt.
        secret: what it gives out, once: new shares in base64, or an encoded root token.
    """

    progress: Progress
    secret: tuple[str, ...] = field(default=(), repr=False)


class CeremonyPort(Protocol):
    """The way to SealState's ceremonies."""

    async def start(self, purpose: Purpose, wish: Wish, origin: Origin) -> Progress:
        """Begin an attempt. Raises Conflict when one is under way, InvalidRequest, Sealed."""
        ...

    async def attempt(self, purpose: Purpose) -> Progress:
        """Tell how far an attempt is."""
        ...

    async def cancel(self, purpose: Purpose, origin: Origin, nonce: str = "") -> None:
        """End an attempt. Raises InvalidRequest when ``nonce`` is given and is another one's."""
        ...

    async def give(self, purpose: Purpose, share: bytes, nonce: str, origin: Origin) -> CeremonyResult:
        """Give one share. Raises WrongShare, InvalidRequest, Sealed."""
        ...

    async def settle(self, slot_id: str, origin: Origin) -> None:
        """Say that somebody has the new shares."""
        ...

    async def slots(self) -> list[SlotInfo]:
        """Return the slots, oldest first."""
        ...

    async def add_slot(self, kind: KmsKind, service: str, origin: Origin) -> Progress:
        """Begin to add a slot of a key service."""
        ...

    async def try_slot(self, slot_id: str, origin: Origin) -> None:
        """Show that a key service opens its slot now."""
        ...

"""The way of a serving process to SealState's ceremonies, in sealed boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from actors.handles.keys import CEREMONY_INFO, SHARE_INFO
from actors.handles.protocol import Handle
from secrethub.audit.event import Origin
from secrethub.crypto.sealed_box import Recipient, proof, seal_to
from secrethub.engines.ceremonies import CeremonyResult, Progress, SlotInfo
from secrethub.errors import Stale, Unavailable
from secrethub.seal.slots import KmsKind
from secrethub.seal.wishes import Purpose, Wish

_TRIES = 3
_SECONDS = 30.0
"""How long a transition may take: it commits, and every node's holder is told."""
_SERVICE_SECONDS = 40.0
"""How long a key service may be waited for, twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What SealState answers to a share.

    Attributes:
        progress: of the attempt.
        box: what the ceremony gives out, sealed to the requester; None when there is nothing.
    """

    progress: Progress
    box: bytes | None = field(default=None, repr=False)


def ceremony_message(secret: Sequence[str]) -> bytes:
    """Return what a ceremony gives out, to be sealed: a JSON array of texts."""
    return msgspec.json.encode(tuple(secret))


class CeremonyClient:
    """The ceremonies as :class:`secrethub.engines.ceremonies.CeremonyPort`, over an actor handle."""

    def __init__(self, state: Handle, psk: bytes) -> None:
        """Prepare; nothing is called.

        Args:
            state: SealState.
            psk: the cluster's pre-shared key.
        """
        self._state = state
        self._psk = psk

    def __repr__(self) -> str:
        return "CeremonyClient()"

    async def start(self, purpose: Purpose, wish: Wish, origin: Origin | None = None) -> Progress:
        """Begin an attempt; errors as in :meth:`actors.seal_ceremonies.SealCeremonies.start`."""
        found: Progress = await self._state.call("start", purpose, wish, origin)
        return found

    async def attempt(self, purpose: Purpose) -> Progress:
        """Tell how far an attempt is."""
        found: Progress = await self._state.call("attempt", purpose)
        return found

    async def cancel(self, purpose: Purpose, origin: Origin | None = None, nonce: str = "") -> None:
        """End an attempt."""
        await self._state.call("cancel", purpose, origin, nonce)

    async def give(
        self, purpose: Purpose, share: bytes, nonce: str, origin: Origin | None = None
    ) -> CeremonyResult:
        """Give one share; errors as in :meth:`actors.seal_ceremonies.SealCeremonies.give`.

        Raises:
            Unavailable: SealState or the database does not answer; the outcome may be unknown.
        """
        recipient = Recipient()
        shown = proof(self._psk, recipient.public, CEREMONY_INFO)
        for _ in range(_TRIES):
            public = await self._state.call("public_key")
            box = seal_to(public, share, self._psk, SHARE_INFO)
            try:
                given: Given = await self._state.call(
                    "give", purpose, box, nonce, recipient.public, shown, origin, timeout=_SECONDS
                )
            except Stale:
                continue  # SealState took another key pair between the two calls
            if given.box is None:
                return CeremonyResult(progress=given.progress)
            opened = recipient.open(given.box, self._psk, CEREMONY_INFO)
            return CeremonyResult(
                progress=given.progress, secret=msgspec.json.decode(opened, type=tuple[str, ...])
            )
        raise Unavailable("SealState does not open what this process seals: do their cluster keys differ?")

    async def settle(self, slot_id: str, origin: Origin | None = None) -> None:
        """Say that somebody has the new shares."""
        await self._state.call("settle", slot_id, origin, timeout=_SECONDS)

    async def slots(self) -> list[SlotInfo]:
        """Return the slots; errors as in :class:`actors.seal_openings.SealOpenings`, here and below."""
        found: list[SlotInfo] = await self._state.call("slots")
        return found

    async def add_slot(self, kind: KmsKind, service: str, origin: Origin | None = None) -> Progress:
        """Begin to add a slot of a key service."""
        found: Progress = await self._state.call("add_slot", kind, service, origin, timeout=_SERVICE_SECONDS)
        return found

    async def try_slot(self, slot_id: str, origin: Origin | None = None) -> None:
        """Show that a key service opens its slot now."""
        await self._state.call("try_slot", slot_id, origin, timeout=_SERVICE_SECONDS)

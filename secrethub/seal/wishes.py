"""What can be done with enough shares, and what that makes of the slots. Values and pure functions.

Each kind of ceremony has one attempt at a time. A change of the slots ends all others, for it may have
changed who decides.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from secrethub.errors import InvalidRequest
from secrethub.ids import base62, new_token
from secrethub.seal.slots import KmsSlot, ShamirSlot, Slot, check_numbers

Purpose = Literal["rekey", "rekey-verify", "generate-root", "slots"]

OTP_LENGTH = len(new_token())
"""Characters of a one-time password: as many as a token has, whose bytes it hides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rekey:
    """Make other shares.

    Attributes:
        shares: how many.
        threshold: how many of them count.
        recovery: they replace recovery shares, which open nothing.
        verify: nothing changes before the new shares were given back.
        slot: they get a slot that recovery shares do not have.
    """

    shares: int
    threshold: int
    recovery: bool = False
    verify: bool = False
    slot: bool = False

    @property
    def opens(self) -> bool:
        """Whether the new shares open the root key."""
        return self.slot or not self.recovery

    def check(self, present: ShamirSlot) -> None:
        """Refuse what cannot be done.

        Raises:
            InvalidRequest: impossible numbers, or shares of a kind that the cluster does not have.
        """
        check_numbers(self.shares, self.threshold)
        if self.slot and present.opens:
            raise InvalidRequest("the cluster has unseal shares already: use sys/rekey")
        if self.recovery and present.opens:
            raise InvalidRequest("the cluster has unseal shares, no recovery shares: use sys/rekey")
        if not self.recovery and not present.opens:
            raise InvalidRequest(
                "the cluster's shares are recovery shares, which open nothing: use sys/rekey-recovery-key"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Put a new set of shares in the place of the old one, after it was given back.

    Attributes:
        slot: the new set.
        recovery: as in :class:`Rekey`.
    """

    slot: ShamirSlot
    recovery: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateRoot:
    """Make a root token.

    Attributes:
        otp: what the token is hidden with; known to whoever started the attempt.
    """

    otp: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class AddSlot:
    """Add a slot of a key service.

    Attributes:
        slot: made already, for the service was asked; the root key is not sealed to it yet.
    """

    slot: KmsSlot


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoveSlot:
    """Remove a slot."""

    slot_id: str


Wish = Rekey | Verify | GenerateRoot | AddSlot | RemoveSlot


def told(wish: Wish) -> dict[str, object]:
    """Return what the ledger says of a wish."""
    if isinstance(wish, Rekey):
        return {
            "secret_shares": wish.shares,
            "secret_threshold": wish.threshold,
            "require_verification": wish.verify,
        }
    if isinstance(wish, AddSlot):
        return {"slot": wish.slot.slot_id, "type": wish.slot.kind, "service": wish.slot.service}
    if isinstance(wish, RemoveSlot):
        return {"slot": wish.slot_id}
    return {}


def deciding(slots: Sequence[Slot]) -> tuple[ShamirSlot, ...]:
    """Return the sets of shares that may authorise, the newest last."""
    return tuple(slot for slot in slots if isinstance(slot, ShamirSlot))


def with_new_set(slots: Sequence[Slot], new: ShamirSlot, authorised: ShamirSlot) -> list[Slot]:
    """Return the slots with a new set of shares beside the one that authorised it, which is leaving now.

    It goes with :func:`settled` once somebody has the new shares; until then either of them counts.
    """
    kept: list[Slot] = [slot for slot in slots if not isinstance(slot, ShamirSlot)]
    return [*kept, msgspec.structs.replace(authorised, leaving=True), new]


def with_only_set(slots: Sequence[Slot], new: ShamirSlot) -> list[Slot]:
    """Return the slots with a new set of shares in the place of every other one."""
    return [*(slot for slot in slots if not isinstance(slot, ShamirSlot)), new]


def settled(slots: Sequence[Slot]) -> list[Slot]:
    """Return the slots without a set of shares that is leaving."""
    return [slot for slot in slots if not (isinstance(slot, ShamirSlot) and slot.leaving)]


def without(slots: Sequence[Slot], slot_id: str, authorised: ShamirSlot | None = None) -> list[Slot]:
    """Return the slots without one of them.

    A set of shares goes on deciding when its slot is removed: its shares are recovery shares then. While a
    set is leaving, nobody may have the newest shares: whoever authorises with others goes on deciding, and
    something that surely opens stays. Whoever authorises with the newest has them, and the others go: by them
    a later rekey, whose answer is lost, would take the newest away, too.

    Args:
        slots: all of them.
        slot_id: of the one to remove.
        authorised: the set whose shares authorise it; None while that is not known yet.

    Raises:
        InvalidRequest: there is no such slot, nothing would open the cluster any more, or that would not be
            certain.
    """
    found = next((slot for slot in slots if slot.slot_id == slot_id), None)
    if found is None:
        raise InvalidRequest(f"there is no slot {slot_id}")
    if isinstance(found, ShamirSlot) and not found.leaving:
        if not found.opens:
            raise InvalidRequest("recovery shares have no slot; make others with sys/rekey-recovery-key")
        kept = slots if authorised is not None and authorised.leaving else settled(slots)
        left = [_open_nothing(slot) if isinstance(slot, ShamirSlot) else slot for slot in kept]
    else:
        left = [slot for slot in slots if slot is not found]
    if authorised is not None and not authorised.leaving:
        left = settled(left)
    if authorised is not None and authorised.slot_id not in {slot.slot_id for slot in deciding(left)}:
        raise InvalidRequest("these shares do not take themselves away: give the newest ones for that")
    sure = [slot for slot in left if authorised is None or _is_sure(slot, authorised)]
    if not any(slot.opens for slot in settled(left)) or not any(slot.opens for slot in sure):
        raise InvalidRequest("the last slot that opens the cluster cannot be removed")
    return left


def _open_nothing(shares: ShamirSlot) -> ShamirSlot:
    return msgspec.structs.replace(shares, opens=False)


def _is_sure(slot: Slot, authorised: ShamirSlot) -> bool:
    return isinstance(slot, KmsSlot) or slot.slot_id == authorised.slot_id


def new_otp() -> str:
    """Return a one-time password of base62 characters."""
    return base62(OTP_LENGTH)


def check_otp(otp: str) -> None:
    """Check a one-time password that somebody chose.

    Raises:
        InvalidRequest: a token cannot be hidden with it.
    """
    if len(otp) != OTP_LENGTH or not otp.isascii() or not otp.isprintable():
        raise InvalidRequest(f"otp must have {OTP_LENGTH} printable ASCII characters")


def encode_token(token: str, otp: str) -> str:
    """Return the token hidden with the one-time password, as Vault's clients decode it.

    Exclusive or of the bytes, in base64 without padding.
    """
    hidden = bytes(a ^ b for a, b in zip(token.encode("ascii"), otp.encode("ascii"), strict=True))
    return base64.b64encode(hidden).decode("ascii").rstrip("=")


def decode_token(encoded: str, otp: str) -> str:
    """Return what :func:`encode_token` hid.

    Raises:
        InvalidRequest: not of this form, or not of this length.
    """
    try:
        hidden = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        return bytes(a ^ b for a, b in zip(hidden, otp.encode("ascii"), strict=True)).decode("ascii")
    except ValueError:
        raise InvalidRequest("the encoded token and the one-time password do not fit") from None
